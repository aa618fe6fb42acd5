/* The JSON Schema of the file, for editors. */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/arena.h"
#include "config/options.h"
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#define DURATION_PATTERN "[0-9]+(ms|s|m|h|d)"
#define SIZE_PATTERN     "[0-9]+(B|KiB|MiB|GiB|KB|kB|MB|GB)"

static cJSON *of_type(const char *type)
{
    cJSON *schema = cJSON_CreateObject();
    cJSON_AddStringToObject(schema, "type", type);
    return schema;
}

static cJSON *reference(const char *to)
{
    cJSON *schema = cJSON_CreateObject();
    cJSON_AddStringToObject(schema, "$ref", to);
    return schema;
}

static cJSON *list_of(cJSON *items)
{
    cJSON *schema = of_type("array");
    cJSON_AddItemToObject(schema, "items", items);
    return schema;
}

static cJSON *map_of(cJSON *values)
{
    cJSON *schema = of_type("object");
    cJSON_AddItemToObject(schema, "additionalProperties", values);
    return schema;
}

static cJSON *one_of(cJSON *a, cJSON *b)
{
    cJSON *schema = cJSON_CreateObject();
    cJSON *list = cJSON_AddArrayToObject(schema, "anyOf");
    cJSON_AddItemToArray(list, a);
    cJSON_AddItemToArray(list, b);
    return schema;
}

static cJSON *only(const char *word)
{
    cJSON *schema = cJSON_CreateObject();
    cJSON_AddStringToObject(schema, "const", word);
    return schema;
}

static cJSON *number(const struct config_option *o, const char *type)
{
    cJSON *schema = of_type(type);
    cJSON_AddNumberToObject(schema, "minimum", (double)o->min);
    cJSON_AddNumberToObject(schema, "maximum", (double)o->max);
    return o->flags & OPTION_OFF ? one_of(schema, only("off")) : schema;
}

static cJSON *pattern(const struct config_option *o, const char *form)
{
    struct strbuf text = STRBUF_INIT;
    cJSON *schema = of_type("string");

    strbuf_addf(&text, o->flags & OPTION_OFF ? "^(%s|off)$" : "^%s$", form);
    cJSON_AddStringToObject(schema, "pattern", strbuf_str(&text));
    strbuf_free(&text);
    return schema;
}

static cJSON *choices(const struct config_option *o)
{
    cJSON *schema = cJSON_CreateObject();
    cJSON *list = cJSON_AddArrayToObject(schema, "enum");
    struct arena a = { 0 };

    for (const char *p = o->choices; *p; p += strcspn(p, "|"), p += *p == '|')
        cJSON_AddItemToArray(list, cJSON_CreateString(arena_strndup(&a, p, strcspn(p, "|"))));
    arena_free(&a);
    return schema;
}

static cJSON *definition(const struct config_option *o)
{
    static const struct {
        const char *name;
        const char *to;
    } objects[] = {
        { "defaults", "#/$defs/route" },
        { "routes", "#/$defs/route" },
        { "embedded.auto_breaker", "#/$defs/breaker" },
        { "embedded.breakers", "#/$defs/breaker" },
        { "embedded.routers", "#/$defs/router" },
    };

    for (size_t i = 0; i < ARRAY_LEN(objects); i++)
        if (strcmp(objects[i].name, o->name) == 0)
            return reference(objects[i].to);
    return of_type("object");
}

static cJSON *scalar(void)
{
    static const char *const types[] = { "string", "number", "boolean", "null" };
    cJSON *schema = cJSON_CreateObject();

    cJSON_AddItemToObject(schema, "type", cJSON_CreateStringArray(types, ARRAY_LEN(types)));
    return schema;
}

static cJSON *base_schema(const struct config_option *o)
{
    switch (o->type) {
    case TYPE_BOOL:
        return of_type("boolean");
    case TYPE_INT:
        return number(o, "integer");
    case TYPE_NUMBER:
        return number(o, "number");
    case TYPE_DURATION:
        return pattern(o, DURATION_PATTERN);
    case TYPE_SIZE:
        return pattern(o, SIZE_PATTERN);
    case TYPE_ENUM:
    case TYPE_WORD:
        return choices(o);
    case TYPE_STRING:
    case TYPE_CONTROL_URL:
        return of_type("string");
    case TYPE_LISTEN:
        return one_of(of_type("string"), list_of(of_type("string")));
    case TYPE_STRINGS:
    case TYPE_CIDRS:
    case TYPE_OUTCOMES:
        return list_of(of_type("string"));
    case TYPE_PORTS:
    case TYPE_STATUSES:
        return list_of(one_of(of_type("integer"), of_type("string")));
    case TYPE_MAP:
        return map_of(of_type("string"));
    case TYPE_METRICS:
        return map_of(one_of(one_of(of_type("string"), of_type("number")),
                             reference("#/$defs/metric_source")));
    case TYPE_HEAD_RULES:
        return list_of(reference("#/$defs/header_rule"));
    case TYPE_BODY_RULES:
        return list_of(reference("#/$defs/body_rule"));
    case TYPE_SCALAR:
        return scalar();
    case TYPE_OBJECT:
        return definition(o);
    case TYPE_OBJECTS:
        return list_of(definition(o));
    }
    return cJSON_CreateObject();
}

static cJSON *default_of(const struct config_option *o)
{
    bool bare = o->type == TYPE_BOOL || o->type == TYPE_NUMBER ||
                (o->type == TYPE_INT && strcmp(o->def, "off") != 0);

    if (!option_is_list(o))
        return bare ? cJSON_CreateRaw(o->def) : cJSON_CreateString(o->def);
    cJSON *items = cJSON_CreateArray();
    struct arena a = { 0 };
    for (const char *p = o->def; *p; p += strcspn(p, ","), p += *p == ',')
        cJSON_AddItemToArray(items, cJSON_CreateString(arena_strndup(&a, p, strcspn(p, ","))));
    arena_free(&a);
    return items;
}

/* { "metadata": { "region": "us-east-1" } } */
static cJSON *selector(void)
{
    cJSON *schema = of_type("object"), *pairs = map_of(of_type("string"));

    cJSON_AddNumberToObject(pairs, "minProperties", 1);
    cJSON_AddItemToObject(cJSON_AddObjectToObject(schema, "properties"), "metadata", pairs);
    cJSON_AddItemToArray(cJSON_AddArrayToObject(schema, "required"),
                         cJSON_CreateString("metadata"));
    cJSON_AddFalseToObject(schema, "additionalProperties");
    return schema;
}

static cJSON *schema_of(const struct config_option *o)
{
    cJSON *schema = base_schema(o);

    if (o->selector)
        schema = one_of(schema, selector());
    if (o->flags & OPTION_NULL)
        schema = one_of(schema, of_type("null"));
    cJSON_AddStringToObject(schema, "description", o->help);
    if (o->def)
        cJSON_AddItemToObject(schema, "default", default_of(o));
    return schema;
}

static cJSON *new_object(void)
{
    cJSON *schema = of_type("object");
    cJSON_AddFalseToObject(schema, "additionalProperties");
    cJSON_AddObjectToObject(schema, "properties");
    return schema;
}

static cJSON *properties(cJSON *schema)
{
    return cJSON_GetObjectItemCaseSensitive(schema, "properties");
}

/* The schema of the section of that name within, made on first use. */
static cJSON *section(cJSON *within, const char *name)
{
    cJSON *found = cJSON_GetObjectItemCaseSensitive(properties(within), name);

    if (!found) {
        found = new_object();
        cJSON_AddItemToObject(properties(within), name, found);
    }
    return found;
}

static cJSON *table_schema(const struct option_table *t)
{
    cJSON *schema = new_object();
    struct arena a = { 0 };

    for (size_t i = 0; i < t->count; i++) {
        const char *rest = t->rows[i].name;
        cJSON *within = schema;
        for (const char *dot; (dot = strchr(rest, '.')); rest = dot + 1)
            within = section(within, arena_strndup(&a, rest, (size_t)(dot - rest)));
        cJSON_AddItemToObject(properties(within), rest, schema_of(&t->rows[i]));
    }
    arena_free(&a);
    return schema;
}

void config_schema(struct strbuf *out)
{
    cJSON *schema = table_schema(&global_options);
    cJSON *defs = cJSON_AddObjectToObject(schema, "$defs");

    cJSON_AddStringToObject(schema, "$schema", "https://json-schema.org/draft/2020-12/schema");
    cJSON_AddStringToObject(schema, "title", "Configuration of tripswitch-proxy");
    cJSON_AddItemToObject(properties(schema), "$schema", of_type("string"));
    cJSON_AddItemToObject(defs, "route", table_schema(&route_options));
    cJSON_AddItemToObject(defs, "breaker", table_schema(&breaker_options));
    cJSON_AddItemToObject(defs, "router", table_schema(&router_options));
    cJSON_AddItemToObject(defs, "header_rule", table_schema(&header_rule_options));
    cJSON_AddItemToObject(defs, "body_rule", table_schema(&body_rule_options));
    cJSON_AddItemToObject(defs, "metric_source", table_schema(&metric_source_options));
    char *text = cJSON_Print(schema);
    strbuf_adds(out, text);
    strbuf_addc(out, '\n');
    cJSON_free(text);
    cJSON_Delete(schema);
}
