/* "metrics" of a route: what each attempt is measured by. */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include "config/suggest.h"
#include "config/value.h"
#include <math.h>
#include <string.h>

static const char *const kinds[] = {
    [METRIC_LATENCY] = "latency",
    [METRIC_FIRST_BYTE] = "first_byte",
    [METRIC_CONNECT] = "connect",
    [METRIC_REQUEST_BYTES] = "request_bytes",
    [METRIC_RESPONSE_BYTES] = "response_bytes",
};

static int find_kind(struct loader *l, const cJSON *node, enum metric_kind *kind)
{
    struct suggestion near;
    struct strbuf quoted = STRBUF_INIT;

    suggest_start(&near, node->valuestring);
    for (unsigned k = 0; k < ARRAY_LEN(kinds); k++) {
        if (strcmp(kinds[k], node->valuestring) == 0) {
            *kind = (enum metric_kind)k;
            return 0;
        }
        suggest_offer(&near, kinds[k]);
    }
    report_quote(&quoted, node->valuestring);
    report_error(&l->report, at_node(node),
                 "%s is not latency, first_byte, connect, request_bytes, response_bytes or a "
                 "number%s%s%s",
                 strbuf_str(&quoted), near.best ? "; did you mean \"" : "",
                 near.best ? near.best : "", near.best ? "\"?" : "");
    strbuf_free(&quoted);
    return -1;
}

/* A value of the response. */
static int read_source(struct loader *l, const cJSON *node, struct metric *m)
{
    struct source_draft d = { 0 };
    unsigned errors = l->report.error_count;

    apply_object(l, &metric_source_options, &d, node);
    if (l->report.error_count > errors)
        return -1;
    if (!d.json_pointer == !d.header) {
        report_error(&l->report, at_node(node), "write either \"json_pointer\" or \"header\"");
        return -1;
    }
    m->kind = d.header ? METRIC_HEADER : METRIC_JSON;
    m->source = d.header ? d.header : d.json_pointer;
    return 0;
}

static int read_metric(struct loader *l, const cJSON *node, struct metric *m)
{
    struct strbuf why = STRBUF_INIT;
    struct place_of at = { .node = node };

    *m = (struct metric){ .name = arena_strdup(l->arena, node->string) };
    if (check_tag_name(l->arena, &m->name, &why)) {
        report_error(&l->report, at_key(node), "%s", strbuf_str(&why));
        strbuf_free(&why);
        return -1;
    }
    if (cJSON_IsString(node))
        return find_kind(l, node, &m->kind);
    if (cJSON_IsObject(node))
        return read_source(l, node, m);
    m->kind = METRIC_CONSTANT;
    m->constant = node->valuedouble;
    if (cJSON_IsNumber(node) && isfinite(node->valuedouble))
        return 0;
    report_error(&l->report, at,
                 "expected the name of a measure in quotes, a number, or an object "
                 "with \"json_pointer\" or \"header\"");
    return -1;
}

/* Replaces what a layer below said. */
void metrics_apply(struct loader *l, struct route *r, const cJSON *object)
{
    r->metric_count = 0;
    for (const cJSON *node = object->child; node; node = node->next) {
        struct metric m;
        if (read_metric(l, node, &m))
            continue;
        if (r->metric_count == MAX_METRICS) {
            report_error(&l->report, at_node(object), "more than %d metrics", MAX_METRICS);
            return;
        }
        r->metrics[r->metric_count++] = m;
    }
}
