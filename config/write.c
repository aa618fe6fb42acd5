/* Values back to JSON: for the hash, for comparing two configurations, for showing one. */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include "config/value.h"
#include <string.h>

typedef void item_writer(struct json *j, const void *item);

static void write_string(struct json *j, const void *item)
{
    json_str(j, NULL, *(char *const *)item);
}

static void write_listen(struct json *j, const void *item)
{
    json_str(j, NULL, ((const struct listen_addr *)item)->text);
}

static void write_cidr(struct json *j, const void *item)
{
    struct strbuf text = STRBUF_INIT;
    value_format_cidr(&text, item);
    json_str(j, NULL, strbuf_str(&text));
    strbuf_free(&text);
}

static void write_ports(struct json *j, const void *item)
{
    const struct port_range *r = item;
    struct strbuf text = STRBUF_INIT;

    if (r->first == r->last)
        json_int(j, NULL, r->first);
    else {
        strbuf_addf(&text, "%u-%u", r->first, r->last);
        json_str(j, NULL, strbuf_str(&text));
    }
    strbuf_free(&text);
}

static void write_items(struct json *j, const char *name, const void *field, size_t size,
                        item_writer *write)
{
    struct {
        const char *items;
        size_t count;
    } list;

    memcpy(&list, field, sizeof(list));
    json_open(j, name, '[');
    for (size_t i = 0; i < list.count; i++)
        write(j, list.items + i * size);
    json_close(j);
}

static void write_statuses(struct json *j, const char *name, const struct status_set *set)
{
    struct strbuf text = STRBUF_INIT;

    json_open(j, name, '[');
    for (unsigned first = 100; first < 600; first++) {
        unsigned last = first;
        if (!status_set_has(set, first))
            continue;
        while (last < 599 && status_set_has(set, last + 1))
            last++;
        strbuf_clear(&text);
        strbuf_addf(&text, "%u-%u", first, last);
        if (first == last)
            json_int(j, NULL, first);
        else
            json_str(j, NULL, strbuf_str(&text));
        first = last;
    }
    json_close(j);
    strbuf_free(&text);
}

static void write_outcomes(struct json *j, const char *name, uint32_t bits)
{
    json_open(j, name, '[');
    for (unsigned o = OUTCOME_CONNECT; o <= OUTCOME_PROTOCOL; o++)
        if (bits & BIT(o))
            json_str(j, NULL, outcome_name((enum outcome)o));
    json_close(j);
}

static void write_source(struct json *j, const struct metric *m)
{
    json_open(j, m->name, '{');
    json_str(j, m->kind == METRIC_JSON ? "json_pointer" : "header", m->source);
    json_close(j);
}

static void write_metrics(struct json *j, const char *name, const struct route *r)
{
    static const char *const kinds[] = { "latency", "first_byte", "connect", "request_bytes",
                                         "response_bytes" };

    json_open(j, name, '{');
    for (size_t i = 0; i < r->metric_count; i++) {
        const struct metric *m = &r->metrics[i];
        if (m->kind == METRIC_CONSTANT)
            json_num(j, m->name, m->constant);
        else if (m->kind == METRIC_JSON || m->kind == METRIC_HEADER)
            write_source(j, m);
        else
            json_str(j, m->name, kinds[m->kind]);
    }
    json_close(j);
}

static void write_scalar(struct json *j, const char *name, const struct scalar *s)
{
    switch (s->type) {
    case SCALAR_NONE:
        break;
    case SCALAR_NULL:
        json_null(j, name);
        break;
    case SCALAR_FALSE:
    case SCALAR_TRUE:
        json_bool(j, name, s->type == SCALAR_TRUE);
        break;
    case SCALAR_NUMBER:
        json_num(j, name, s->number);
        break;
    case SCALAR_STRING:
        json_str(j, name, s->text);
        break;
    }
}

static void write_rule(struct json *j, const void *item)
{
    static const char *const subjects[] = { "header", "json_pointer", NULL, "sse_event" };
    const struct response_rule *r = item;

    json_open(j, NULL, '{');
    json_str(j, "name", r->name);
    if (r->where)
        json_str(j, subjects[r->subject], r->where);
    if (r->test == TEST_EXISTS && r->subject != SUBJECT_EVENT)
        json_bool(j, "exists", true);
    if (r->test != TEST_EXISTS)
        write_scalar(j, r->test == TEST_EQUALS ? "equals" : "contains", &r->wanted);
    json_close(j);
}

static void write_map(struct json *j, const char *name, const struct name_value_list *m)
{
    json_open(j, name, '{');
    for (size_t i = 0; i < m->count; i++)
        json_str(j, m->items[i].name, m->items[i].value);
    json_close(j);
}

static void write_number(struct json *j, const struct config_option *o, const char *name,
                         const void *field)
{
    struct strbuf text = STRBUF_INIT;
    int64_t n;

    memcpy(&n, field, sizeof(n));
    if (o->type == TYPE_DURATION)
        value_format_duration(&text, n);
    else if (o->type == TYPE_SIZE)
        value_format_size(&text, n);
    else if (n == OFF && o->flags & OPTION_OFF)
        strbuf_adds(&text, "off");
    if (text.len)
        json_str(j, name, strbuf_str(&text));
    else
        json_int(j, name, n);
    strbuf_free(&text);
}

static void write_choice(struct json *j, const struct config_option *o, const char *name,
                         const void *field)
{
    const char *p = o->choices;
    unsigned index;

    for (memcpy(&index, field, sizeof(index)); index > 0 && *p; index--)
        p += strcspn(p, "|") + 1;
    json_strn(j, name, p, strcspn(p, "|"));
}

static void write_text(struct json *j, const struct config_option *o, const char *name,
                       const void *field)
{
    const char *s;

    memcpy(&s, field, sizeof(s));
    json_str(j, name, s && o->flags & OPTION_SECRET && strchr(s, '@') ? "***" : s);
}

/* The pairs that stand for the value; false: there are none. */
static bool write_selector(struct json *j, const char *name, const struct config_option *o,
                           const void *base)
{
    const struct name_value_list *pairs = (const void *)((const char *)base + o->selector);

    if (!o->selector || !pairs->count)
        return false;
    json_open(j, name, '{');
    write_map(j, "metadata", pairs);
    json_close(j);
    return true;
}

static void write_value(struct json *j, const char *name, const struct config_option *o,
                        const void *base)
{
    const void *field = (const char *)base + o->offset;
    const struct config *cfg = base;

    if (write_selector(j, name, o, base))
        return;
    switch (o->type) {
    case TYPE_BOOL:
        json_bool(j, name, *(const bool *)field);
        break;
    case TYPE_NUMBER:
        json_num(j, name, *(const double *)field);
        break;
    case TYPE_INT:
    case TYPE_DURATION:
    case TYPE_SIZE:
        write_number(j, o, name, field);
        break;
    case TYPE_ENUM:
        write_choice(j, o, name, field);
        break;
    case TYPE_WORD:
    case TYPE_STRING:
        write_text(j, o, name, field);
        break;
    case TYPE_CONTROL_URL:
        json_str(j, name, cfg->control.embedded ? "embedded" : cfg->control.url);
        break;
    case TYPE_STRINGS:
        write_items(j, name, field, sizeof(char *), write_string);
        break;
    case TYPE_LISTEN:
        write_items(j, name, field, sizeof(struct listen_addr), write_listen);
        break;
    case TYPE_CIDRS:
        write_items(j, name, field, sizeof(struct cidr), write_cidr);
        break;
    case TYPE_PORTS:
        write_items(j, name, field, sizeof(struct port_range), write_ports);
        break;
    case TYPE_STATUSES:
        write_statuses(j, name, field);
        break;
    case TYPE_OUTCOMES:
        write_outcomes(j, name, *(const uint32_t *)field);
        break;
    case TYPE_MAP:
        write_map(j, name, field);
        break;
    case TYPE_METRICS:
        write_metrics(j, name, field);
        break;
    case TYPE_HEAD_RULES:
    case TYPE_BODY_RULES:
        write_items(j, name, field, sizeof(struct response_rule), write_rule);
        break;
    case TYPE_SCALAR:
        write_scalar(j, name, field);
        break;
    case TYPE_OBJECT:
    case TYPE_OBJECTS:
        break;
    }
}

void option_write_value(const struct config_option *o, const void *base, struct strbuf *out)
{
    struct json j = { .sb = out };
    write_value(&j, NULL, o, base);
}

/* How many bytes of both names are the same sections: "dns.ttl" and "dns.stale" share "dns.". */
static size_t shared_sections(const char *a, const char *b)
{
    size_t shared = 0;

    for (size_t i = 0; a[i] && a[i] == b[i]; i++)
        if (a[i] == '.')
            shared = i + 1;
    return shared;
}

static unsigned count_dots(const char *s)
{
    unsigned n = 0;
    for (; *s; s++)
        n += *s == '.';
    return n;
}

/* A text that was never given and that the file could not spell as null either. */
static bool is_absent(const struct config_option *o, const void *base)
{
    const char *field = (const char *)base + o->offset;

    return (o->type == TYPE_STRING || o->type == TYPE_WORD) && !(o->flags & OPTION_NULL) &&
           *(char *const *)(const void *)field == NULL;
}

/* Rows of one section stand together in the table. */
void option_write_all(const struct option_table *t, const void *base, struct json *j)
{
    const char *previous = "";
    char section[64];

    for (size_t i = 0; i < t->count; i++) {
        const struct config_option *o = &t->rows[i];
        if (o->offset == NOWHERE || option_is_embedded(o) || is_absent(o, base))
            continue; /* write_embedded has its own */
        size_t shared = shared_sections(previous, o->name);
        for (unsigned open = count_dots(previous + shared); open > 0; open--)
            json_close(j);
        const char *rest = o->name + shared;
        for (const char *dot; (dot = strchr(rest, '.')); rest = dot + 1) {
            size_t len = (size_t)(dot - rest);
            memcpy(section, rest, len);
            section[len] = 0;
            json_open(j, section, '{');
        }
        write_value(j, rest, o, base);
        previous = o->name;
    }
    for (unsigned open = count_dots(previous); open > 0; open--)
        json_close(j);
}

static void write_route(struct json *j, const char *name, const struct route *r)
{
    struct route_draft d = { .route = *r, .reject_status = r->reject.status };

    json_open(j, name, '{');
    option_write_all(&route_options, &d, j);
    json_close(j);
}

static void write_embedded(struct json *j, const struct config *cfg)
{
    json_open(j, "embedded", '{');
    json_open(j, "auto_breaker", '{');
    option_write_all(&breaker_options, &cfg->embedded.auto_breaker, j);
    json_close(j);
    json_open(j, "breakers", '[');
    for (size_t i = 0; i < cfg->embedded.breaker_count; i++) {
        json_open(j, NULL, '{');
        option_write_all(&breaker_options, &cfg->embedded.breakers[i], j);
        json_close(j);
    }
    json_close(j);
    json_open(j, "routers", '[');
    for (size_t i = 0; i < cfg->embedded.router_count; i++) {
        json_open(j, NULL, '{');
        option_write_all(&router_options, &cfg->embedded.routers[i], j);
        json_close(j);
    }
    json_close(j);
    json_str(j, "state_file", cfg->embedded.state_file);
    json_close(j);
}

void config_write(const struct config *cfg, struct strbuf *out)
{
    struct json j = { .sb = out };

    json_open(&j, NULL, '{');
    option_write_all(&global_options, cfg, &j);
    json_open(&j, "routes", '[');
    for (size_t i = 0; i < cfg->route_count; i++)
        write_route(&j, NULL, &cfg->routes[i]);
    json_close(&j);
    write_embedded(&j, cfg);
    json_close(&j);
}
