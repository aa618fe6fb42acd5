/* Values into structures: from text (defaults, variables, flags) and from the file. */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include "config/set.h"
#include "config/suggest.h"
#include "config/value.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX           1024
#define SELECTOR_PAIRS_MAX 20 /* as many as the service keeps of one thing */

/* One text of a value, with its place. */
struct piece {
    char *text;
    struct place_of at;
};

/* Room for the value of an option that is only checked; status_set is the largest. */
struct scratch {
    _Alignas(max_align_t) char room[sizeof(struct status_set)];
};

static void *field_of(const struct config_option *o, void *base, void *scratch)
{
    return o->offset == NOWHERE ? scratch : (char *)base + o->offset;
}

struct origin *origin_of(struct loader *l, const char *name)
{
    return &l->origins[option_find(&global_options, name) - global_options.rows];
}

/* -- a whole value ------------------------------------------------------------------- */

static int apply_piece(struct loader *l, const struct config_option *o, void *field,
                       const struct piece *p)
{
    struct strbuf why = STRBUF_INIT;
    int result = set_piece(l->arena, o, p->text, field, &why);

    if (result)
        report_error(&l->report, p->at, "%s", strbuf_str(&why));
    strbuf_free(&why);
    return result;
}

static int apply_list(struct loader *l, const struct config_option *o, void *field,
                      const struct piece *pieces, size_t count, bool append, struct place_of at)
{
    size_t max = o->max ? (size_t)o->max : LIST_MAX;
    int result = 0;

    if (!append)
        set_clear(o, field);
    if (o->flags & OPTION_OFF && count == 1 && strcmp(pieces[0].text, "off") == 0) {
        set_clear(o, field);
        return 0;
    }
    if (set_count(o, field) + count > max) {
        report_error(&l->report, at, "more than %zu items", max);
        return -1;
    }
    for (size_t i = 0; i < count; i++)
        result |= apply_piece(l, o, field, &pieces[i]);
    return result;
}

/* What not_yet.c compares: items joined by commas. */
static bool refuse_not_yet(struct loader *l, const struct option_table *t,
                           const struct config_option *o, const struct piece *pieces, size_t count,
                           struct place_of at)
{
    struct strbuf joined = STRBUF_INIT;

    for (size_t i = 0; i < count; i++)
        strbuf_addf(&joined, "%s%s", i ? "," : "", pieces[i].text);
    bool refused = not_yet_refuse(l, t, o, strbuf_str(&joined), at);
    strbuf_free(&joined);
    return refused;
}

static int apply_pieces(struct loader *l, const struct option_table *t,
                        const struct config_option *o, void *base, const struct piece *pieces,
                        size_t count, bool append, struct place_of at)
{
    struct scratch scratch = { 0 };
    void *field = field_of(o, base, &scratch);
    int result = option_is_list(o) ? apply_list(l, o, field, pieces, count, append, at)
                                   : apply_piece(l, o, field, &pieces[0]);

    if (!result && l->layer != LAYER_DEFAULT && refuse_not_yet(l, t, o, pieces, count, at))
        result = -1;
    if (t == &global_options) {
        struct origin *origin = &l->origins[o - t->rows];
        origin->layer = l->layer;
        origin->at = at;
        origin->bad |= result != 0;
    }
    return result;
}

static char *trim(char *s)
{
    s += strspn(s, " \t");
    for (size_t len = strlen(s); len > 0 && strchr(" \t", s[len - 1]); len--)
        s[len - 1] = 0;
    return s;
}

int apply_text(struct loader *l, const struct option_table *t, const struct config_option *o,
               void *base, const char *text, struct place_of at, bool append)
{
    size_t count = 1, i = 0;
    char *copy = arena_strdup(l->arena, text);

    if (!option_is_list(o)) {
        struct piece piece = { copy, at };
        return apply_pieces(l, t, o, base, &piece, 1, false, at);
    }
    for (const char *p = text; *p; p++)
        count += *p == ',';
    struct piece *pieces = xcalloc(count, sizeof(*pieces));
    for (char *p = copy; p; i++) {
        char *comma = strchr(p, ',');
        if (comma)
            *comma = 0;
        pieces[i] = (struct piece){ trim(p), at };
        p = comma ? comma + 1 : NULL;
    }
    if (count == 1 && !*pieces[0].text)
        count = 0;
    int result = apply_pieces(l, t, o, base, pieces, count, append, at);
    free(pieces);
    return result;
}

void apply_defaults(struct loader *l, const struct option_table *t, void *base)
{
    for (size_t i = 0; i < t->count; i++)
        if (t->rows[i].def)
            apply_text(l, t, &t->rows[i], base, t->rows[i].def, (struct place_of){ 0 }, false);
}

/* -- nodes of the file --------------------------------------------------------------- */

static const char *wanted(const struct config_option *o)
{
    switch (o->type) {
    case TYPE_BOOL:
        return "true or false, without quotes";
    case TYPE_INT:
        return o->flags & OPTION_OFF ? "a whole number without quotes, or \"off\""
                                     : "a whole number without quotes";
    case TYPE_NUMBER:
        return "a number without quotes";
    case TYPE_DURATION:
        return "a duration in quotes, such as \"2s\"";
    case TYPE_SIZE:
        return "a size in quotes, such as \"64KiB\"";
    case TYPE_ENUM:
    case TYPE_WORD:
    case TYPE_STRING:
    case TYPE_CONTROL_URL:
        return "text in quotes";
    case TYPE_STRINGS:
    case TYPE_CIDRS:
        return "a list of texts: [\"...\", \"...\"]";
    case TYPE_LISTEN:
        return o->flags & OPTION_OFF ? "\"address:port\", a list of these, or \"off\""
                                     : "\"address:port\" or a list of these";
    case TYPE_PORTS:
        return "a list of ports: [80, \"8000-8099\"]";
    case TYPE_STATUSES:
        return "a list of statuses: [429, \"5xx\"]";
    case TYPE_OUTCOMES:
        return "a list of names: [\"connect\", \"dns\"]";
    case TYPE_MAP:
    case TYPE_METRICS:
    case TYPE_OBJECT:
        return "an object: { ... }";
    case TYPE_SCALAR:
        return "a text in quotes, a number, true, false or null";
    case TYPE_HEAD_RULES:
    case TYPE_BODY_RULES:
    case TYPE_OBJECTS:
        return "a list of objects: [{ ... }]";
    }
    return "something else";
}

static void refuse_type(struct loader *l, const struct config_option *o, const cJSON *node)
{
    struct place_of at = { .node = node };

    if (cJSON_IsNumber(node) && (o->type == TYPE_DURATION || o->type == TYPE_SIZE))
        report_error(&l->report, at, "%.15g has no unit; write \"%.15g%s\" or \"%.15g%s\"",
                     node->valuedouble, node->valuedouble, o->type == TYPE_SIZE ? "B" : "ms",
                     node->valuedouble, o->type == TYPE_SIZE ? "KiB" : "s");
    else if (cJSON_IsNull(node))
        report_error(&l->report, at, "null is no value here; expected %s", wanted(o));
    else
        report_error(&l->report, at, "expected %s", wanted(o));
}

/* Can this node, not a list, be a value of o or an item of one? */
static bool node_fits(const struct config_option *o, const cJSON *node)
{
    switch (o->type) {
    case TYPE_BOOL:
        return cJSON_IsBool(node);
    case TYPE_INT:
        return cJSON_IsNumber(node) || (o->flags & OPTION_OFF && cJSON_IsString(node) &&
                                        strcmp(node->valuestring, "off") == 0);
    case TYPE_NUMBER:
        return cJSON_IsNumber(node);
    case TYPE_PORTS:
    case TYPE_STATUSES:
        return cJSON_IsNumber(node) || cJSON_IsString(node);
    default:
        return cJSON_IsString(node);
    }
}

static char *node_text(struct loader *l, const cJSON *node)
{
    if (cJSON_IsBool(node))
        return arena_strdup(l->arena, cJSON_IsTrue(node) ? "true" : "false");
    if (!cJSON_IsNumber(node))
        return arena_strdup(l->arena, node->valuestring);
    if (node->valuedouble == trunc(node->valuedouble) && fabs(node->valuedouble) < 1e18)
        return arena_printf(l->arena, "%.0f", node->valuedouble);
    return arena_printf(l->arena, "%.17g", node->valuedouble);
}

static void mark_bad(struct loader *l, const struct option_table *t, const struct config_option *o)
{
    if (t == &global_options)
        l->origins[o - t->rows].bad = true;
}

static void apply_array(struct loader *l, const struct option_table *t,
                        const struct config_option *o, void *base, const cJSON *array)
{
    size_t count = 0;
    bool fits = true;
    struct piece *pieces = xcalloc((size_t)cJSON_GetArraySize(array) + 1, sizeof(*pieces));

    for (const cJSON *node = array->child; node; node = node->next) {
        if (node_fits(o, node)) {
            pieces[count++] = (struct piece){ node_text(l, node), { .node = node } };
        } else {
            fits = false;
            report_error(&l->report, at_node(node), "this item does not belong here; expected %s",
                         wanted(o));
        }
    }
    apply_pieces(l, t, o, base, pieces, count, false, at_node(array));
    if (!fits)
        mark_bad(l, t, o);
    free(pieces);
}

static void apply_map(struct loader *l, const struct config_option *o, void *base,
                      const cJSON *object)
{
    struct name_value_list scratch = { 0 };
    struct name_value_list *m = field_of(o, base, &scratch);
    struct strbuf why = STRBUF_INIT;

    for (const cJSON *node = object->child; node; node = node->next) {
        char *name = arena_strdup(l->arena, node->string);
        char *value = cJSON_IsString(node) ? arena_strdup(l->arena, node->valuestring) : NULL;
        strbuf_clear(&why);
        if (o->check_name(l->arena, &name, &why)) {
            report_error(&l->report, at_key(node), "%s", strbuf_str(&why));
        } else if (!value) {
            report_error(&l->report, at_node(node), "expected text in quotes");
        } else if (o->check(l->arena, &value, &why)) {
            report_error(&l->report, at_node(node), "%s", strbuf_str(&why));
        } else {
            map_set(l->arena, m, name, value);
        }
    }
    if (m->count > (size_t)o->max)
        report_error(&l->report, at_node(object), "more than %lld entries", (long long)o->max);
    strbuf_free(&why);
}

/* What was said last counts: pairs or plain, whatever a layer below said. */
static void forget_selector(const struct config_option *o, void *base)
{
    if (o->selector)
        memset((char *)base + o->selector, 0, sizeof(struct name_value_list));
}

static void forget_plain(const struct config_option *o, void *base)
{
    char *none = NULL;

    if (option_is_list(o))
        set_clear(o, (char *)base + o->offset);
    else
        memcpy((char *)base + o->offset, &none, sizeof(none));
}

/* { "metadata": { "region": "us-east-1" } } */
static void apply_selector(struct loader *l, const struct config_option *o, void *base,
                           const cJSON *object)
{
    static const struct config_option pairs = { "metadata",
                                                TYPE_MAP,
                                                0,
                                                0,
                                                SELECTOR_PAIRS_MAX,
                                                .check = check_field_value,
                                                .check_name = check_plain };
    const cJSON *metadata = child_of(object, "metadata");
    struct config_option row = pairs;

    bool strange = false;

    for (const cJSON *node = object->child; node; node = node->next) {
        if (strcmp(node->string, "metadata") == 0)
            continue;
        strange = true;
        report_error(&l->report, at_key(node), "unknown key; did you mean \"metadata\"?");
    }
    if (strange)
        return;
    if (!metadata) {
        report_error(&l->report, at_node(object), "expected %s, or { \"metadata\": { ... } }",
                     wanted(o));
        return;
    }
    if (!cJSON_IsObject(metadata) || !metadata->child) {
        report_error(&l->report, at_node(metadata),
                     "expected an object with at least one pair: { \"region\": \"us-east-1\" }");
        return;
    }
    forget_plain(o, base);
    forget_selector(o, base);
    row.offset = o->selector;
    apply_map(l, &row, base, metadata);
}

static void apply_null(struct loader *l, const struct option_table *t,
                       const struct config_option *o, void *base, const cJSON *node)
{
    char *none = NULL;

    if (!(o->flags & OPTION_NULL)) {
        refuse_type(l, o, node);
        mark_bad(l, t, o);
    } else if (o->type == TYPE_CONTROL_URL) {
        set_control_url(base, NULL);
    } else if (o->offset != NOWHERE) {
        memcpy((char *)base + o->offset, &none, sizeof(none));
    }
}

static void apply_scalar(struct loader *l, const struct config_option *o, void *base,
                         const cJSON *node)
{
    struct scalar *s = field_of(o, base, NULL);

    *s = (struct scalar){ .type = SCALAR_NULL };
    if (cJSON_IsBool(node))
        s->type = cJSON_IsTrue(node) ? SCALAR_TRUE : SCALAR_FALSE;
    if (cJSON_IsNumber(node))
        *s = (struct scalar){ .type = SCALAR_NUMBER, .number = node->valuedouble };
    if (!cJSON_IsString(node))
        return;
    *s =
        (struct scalar){ .type = SCALAR_STRING, .text = arena_strdup(l->arena, node->valuestring) };
    if (strlen(s->text) > RULE_TEXT_MAX)
        report_error(&l->report, at_node(node), "the text is longer than %d bytes", RULE_TEXT_MAX);
}

static void apply_node(struct loader *l, const struct option_table *t,
                       const struct config_option *o, void *base, const cJSON *node)
{
    bool list = option_is_list(o);
    struct place_of at = { .node = node };

    if (o->selector && cJSON_IsObject(node)) {
        apply_selector(l, o, base, node);
        return;
    }
    forget_selector(o, base);
    if (o->type == TYPE_SCALAR && !cJSON_IsObject(node) && !cJSON_IsArray(node)) {
        apply_scalar(l, o, base, node);
    } else if (cJSON_IsNull(node)) {
        apply_null(l, t, o, base, node);
    } else if (o->type == TYPE_OBJECT ? cJSON_IsObject(node)
                                      : o->type == TYPE_OBJECTS && cJSON_IsArray(node)) {
        return;
    } else if (o->type == TYPE_MAP && cJSON_IsObject(node)) {
        apply_map(l, o, base, node);
    } else if (o->type == TYPE_METRICS && cJSON_IsObject(node)) {
        metrics_apply(l, base, node);
    } else if ((o->type == TYPE_HEAD_RULES || o->type == TYPE_BODY_RULES) && cJSON_IsArray(node)) {
        rules_apply(l, o, base, node);
    } else if (list && cJSON_IsArray(node)) {
        apply_array(l, t, o, base, node);
    } else if (o->type < TYPE_MAP && (!list || o->type == TYPE_LISTEN) && node_fits(o, node)) {
        struct piece piece = { node_text(l, node), at };
        apply_pieces(l, t, o, base, &piece, 1, false, at);
    } else {
        refuse_type(l, o, node);
        mark_bad(l, t, o);
    }
}

/* -- objects ------------------------------------------------------------------------- */

static bool is_section(const struct option_table *t, const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < t->count; i++)
        if (strncmp(t->rows[i].name, name, len) == 0 && t->rows[i].name[len] == '.')
            return true;
    return false;
}

/* Offers every key that may stand beside the unknown one. */
static void offer_siblings(struct loader *l, const struct option_table *t, const char *prefix,
                           struct suggestion *near)
{
    size_t len = strlen(prefix);

    for (size_t i = 0; i < t->count; i++)
        if (strncmp(t->rows[i].name, prefix, len) == 0)
            suggest_offer(near, arena_strndup(l->arena, t->rows[i].name + len,
                                              strcspn(t->rows[i].name + len, ".")));
}

/* How many bytes of name lead up to and include the step key; 0: it has none of that name. */
static size_t find_step(const char *name, const char *key)
{
    size_t len = strlen(key);

    for (const char *p = name;; p++) {
        size_t n = strcspn(p, ".");
        if (n == len && memcmp(p, key, len) == 0)
            return (size_t)(p - name) + len;
        p += n;
        if (!*p)
            return 0;
    }
}

/* The pointer of a key of exactly this name anywhere else; NULL: none. */
static const char *find_elsewhere(struct loader *l, const char *key)
{
    static const struct option_table *const tables[] = { &global_options, &route_options };

    for (size_t k = 0; k < ARRAY_LEN(tables); k++) {
        for (size_t i = 0; i < tables[k]->count; i++) {
            const char *name = tables[k]->rows[i].name;
            size_t len = find_step(name, key);
            if (!len)
                continue;
            char *pointer = arena_printf(l->arena, "%s/%.*s", tables[k]->pointer, (int)len, name);
            for (char *p = pointer; *p; p++)
                if (*p == '.')
                    *p = '/';
            return pointer;
        }
    }
    return NULL;
}

static void refuse_unknown(struct loader *l, const struct option_table *t, const char *prefix,
                           const cJSON *node)
{
    struct place_of at = { .node = node, .key = true };
    struct suggestion near;
    const char *elsewhere = find_elsewhere(l, node->string);

    suggest_start(&near, node->string);
    offer_siblings(l, t, prefix, &near);
    if (near.best && (near.distance == 1 || !elsewhere))
        report_error(&l->report, at, "unknown key; did you mean \"%s\"?", near.best);
    else if (elsewhere)
        report_error(&l->report, at, "unknown key; did you mean \"%s\"?", elsewhere);
    else
        report_error(&l->report, at, "unknown key");
}

static void apply_section(struct loader *l, const struct option_table *t, void *base,
                          const char *prefix, const cJSON *object)
{
    for (const cJSON *node = object->child; node; node = node->next) {
        struct place_of at = { .node = node, .key = true };
        const char *name = arena_printf(l->arena, "%s%s", prefix, node->string);
        const struct config_option *o = option_find(t, name);
        const char *refusal = t == &global_options ? secret_refusal(name) : NULL;

        if (refusal) {
            report_error(&l->report, at, "%s", refusal);
        } else if (o && !strchr(node->string, '.')) {
            apply_node(l, t, o, base, node);
        } else if (is_section(t, name) && !strchr(node->string, '.')) {
            if (cJSON_IsObject(node))
                apply_section(l, t, base, arena_printf(l->arena, "%s.", name), node);
            else
                report_error(&l->report, at_node(node), "expected an object: { ... }");
        } else if (strcmp(name, "$schema") != 0 || t != &global_options) {
            refuse_unknown(l, t, prefix, node);
        }
    }
}

void apply_object(struct loader *l, const struct option_table *t, void *base, const cJSON *node)
{
    if (cJSON_IsObject(node))
        apply_section(l, t, base, "", node);
    else
        report_error(&l->report, at_node(node), "expected an object: { ... }");
}
