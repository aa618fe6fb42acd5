#include "sync/sample.h"
#include <math.h>
#include <string.h>

struct values {
    const struct attempt_record *rec;
    const char *host;
    size_t host_len;
    const char *instance;
};

/* What stands for a placeholder; unknown ones stay as written. */
static bool add_value(struct strbuf *sb, const char *name, size_t len, const struct values *v)
{
    const struct attempt_record *rec = v->rec;
#define IS(text) (len == sizeof(text) - 1 && memcmp(name, text, len) == 0)
    if (IS("host")) {
        strbuf_add(sb, v->host, v->host_len);
    } else if (IS("status")) {
        if (rec->status) /* no response head, no status: an empty tag is left out */
            strbuf_addu(sb, rec->status);
    } else if (IS("method")) {
        strbuf_add(sb, rec->method, strnlen(rec->method, sizeof(rec->method)));
    } else if (IS("outcome")) {
        strbuf_adds(sb, outcome_name((enum outcome)rec->outcome));
    } else if (IS("rule")) {
        strbuf_adds(sb, rule_name(rec->route, rec->rule));
    } else if (IS("tier")) {
        strbuf_adds(sb, rec->opaque ? "opaque" : "http");
    } else if (IS("route")) {
        strbuf_adds(sb, rec->route->name);
    } else if (IS("instance")) {
        strbuf_adds(sb, v->instance);
    } else {
        return false;
    }
#undef IS
    return true;
}

static void expand(struct strbuf *sb, const char *template, const struct values *v)
{
    const char *s = template;
    for (;;) {
        size_t plain = strcspn(s, "{");
        strbuf_add(sb, s, plain);
        s += plain;
        if (!*s)
            return;
        const char *end = strchr(s, '}');
        if (end && add_value(sb, s + 1, (size_t)(end - s - 1), v)) {
            s = end + 1;
        } else {
            strbuf_addc(sb, '{');
            s++;
        }
    }
}

/* The value of a template: itself, unless something is to be put in. */
static void add_expanded(struct sample_writer *w, struct strbuf *out, const char *template,
                         const struct values *v)
{
    if (!strchr(template, '{')) {
        strbuf_json_string(out, template, strlen(template));
        return;
    }
    strbuf_clear(&w->scratch);
    expand(&w->scratch, template, v);
    strbuf_json_string(out, strbuf_str(&w->scratch), w->scratch.len);
}

static bool has_tag(const struct name_value_list *tags, const char *name)
{
    for (size_t i = 0; i < tags->count; i++)
        if (strcmp(tags->items[i].name, name) == 0)
            return true;
    return false;
}

/* A tunnel says so without being asked: its latency and success mean less than a response's. */
static void add_tags(struct sample_writer *w, const struct values *v)
{
    const struct name_value_list *tags = &v->rec->route->tags;
    struct strbuf *out = &w->tail;
    bool any = false;
    if (v->rec->opaque && !has_tag(tags, "tier")) {
        strbuf_adds(out, ",\"tags\":{\"tier\":\"opaque\"");
        any = true;
    }
    for (size_t i = 0; i < tags->count; i++) {
        size_t undo = out->len;
        strbuf_adds(out, any ? "," : ",\"tags\":{");
        strbuf_json_string(out, tags->items[i].name, strlen(tags->items[i].name));
        strbuf_addc(out, ':');
        size_t value = out->len;
        add_expanded(w, out, tags->items[i].value, v);
        if (strbuf_ok(out) && out->len == value + 2) /* "": left out */
            strbuf_truncate(out, undo);
        else
            any = true;
    }
    if (any)
        strbuf_addc(out, '}');
}

static void limit(struct strbuf *sb)
{
    sb->max = SAMPLE_MAX;
    strbuf_clear(sb);
}

bool sample_begin(struct sample_writer *w, const struct attempt_record *rec, const char *host,
                  size_t host_len)
{
    const struct values v = { rec, host, host_len, w->instance };
    limit(&w->router);
    limit(&w->tail);
    limit(&w->scratch);
    w->rec = rec;
    if (!rec->route->router)
        return false;

    strbuf_adds(&w->router, "{\"router_id\":");
    size_t id = w->router.len;
    add_expanded(w, &w->router, rec->route->router, &v);
    if (strbuf_ok(&w->router) && w->router.len <= id + 2) /* "{host}" without a host */
        return false;
    strbuf_adds(&w->router, ",\"metric\":");

    strbuf_adds(&w->tail, rec->ok ? ",\"ok\":true" : ",\"ok\":false");
    add_tags(w, &v);
    size_t trace = rec->trace_len < ATTEMPT_TRACE_MAX ? rec->trace_len : ATTEMPT_TRACE_MAX;
    if (trace > 0) {
        strbuf_adds(&w->tail, ",\"trace_id\":");
        strbuf_json_string(&w->tail, rec->trace_id, trace);
    }
    strbuf_addc(&w->tail, '}');
    return true;
}

enum sample_result sample_metric(struct sample_writer *w, size_t i)
{
    const struct attempt_record *rec = w->rec;
    if (i >= rec->route->metric_count || !isfinite(rec->values[i]))
        return SAMPLE_ABSENT;
    const char *name = rec->route->metrics[i].name;
    limit(&w->text);
    strbuf_add(&w->text, strbuf_str(&w->router), w->router.len);
    strbuf_json_string(&w->text, name, strlen(name));
    strbuf_adds(&w->text, ",\"ts_ms\":");
    strbuf_addu(&w->text, rec->ts_ms > 0 ? (uint64_t)rec->ts_ms : 0);
    strbuf_adds(&w->text, ",\"value\":");
    strbuf_json_number(&w->text, rec->values[i]);
    strbuf_add(&w->text, strbuf_str(&w->tail), w->tail.len);
    if (!strbuf_ok(&w->router) || !strbuf_ok(&w->tail) || !strbuf_ok(&w->scratch) ||
        !strbuf_ok(&w->text))
        return SAMPLE_TOO_LARGE;
    return SAMPLE_OK;
}

void sample_writer_free(struct sample_writer *w)
{
    strbuf_free(&w->router);
    strbuf_free(&w->tail);
    strbuf_free(&w->text);
    strbuf_free(&w->scratch);
}
