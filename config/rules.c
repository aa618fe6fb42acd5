/* "failure.headers" and "failure.body" of a route: which responses are failures. */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include <string.h>

static int complain(struct loader *l, const cJSON *node, const char *says)
{
    report_error(&l->report, at_node(node), "%s", says);
    return -1;
}

/* What the value is held against; -1: not exactly one test was written. */
static int read_test(struct loader *l, const cJSON *node, const struct rule_draft *d,
                     struct response_rule *r)
{
    const cJSON *exists = child_of(node, "exists");
    bool equals = d->text || d->equals.type != SCALAR_NONE;

    if (exists && !d->exists)
        return complain(l, exists, "only true is a value here; a rule cannot ask for absence");
    if ((exists != NULL) + equals + (d->contains != NULL) != 1)
        return complain(l, node, "write one of \"exists\", \"equals\" and \"contains\"");
    if (exists) {
        r->test = TEST_EXISTS;
    } else if (equals) {
        r->test = TEST_EQUALS;
        r->wanted = d->text ? (struct scalar){ .type = SCALAR_STRING, .text = d->text } : d->equals;
    } else {
        r->test = TEST_CONTAINS;
        r->wanted = (struct scalar){ .type = SCALAR_STRING, .text = d->contains };
    }
    return 0;
}

static int shape_header(struct loader *l, const cJSON *node, const struct rule_draft *d,
                        struct response_rule *r)
{
    if (!d->header)
        return complain(l, node, "the key \"header\" is missing");
    r->subject = SUBJECT_HEADER;
    r->where = d->header;
    return read_test(l, node, d, r);
}

static int shape_body(struct loader *l, const cJSON *node, const struct rule_draft *d,
                      struct response_rule *r)
{
    bool asks = child_of(node, "exists") || d->equals.type != SCALAR_NONE;

    if (d->json_pointer && d->sse_event)
        return complain(l, node, "write either \"json_pointer\" or \"sse_event\"");
    if (d->json_pointer) {
        r->subject = SUBJECT_JSON;
        r->where = d->json_pointer;
        return read_test(l, node, d, r);
    }
    if (d->sse_event) {
        if (asks || d->contains)
            return complain(l, node,
                            "an event is known by its name alone; for its data write a "
                            "rule with \"json_pointer\" or \"contains\"");
        r->subject = SUBJECT_EVENT;
        r->where = d->sse_event;
        r->test = TEST_EXISTS;
        return 0;
    }
    if (asks)
        return complain(l, node, "the key \"json_pointer\" is missing");
    if (!d->contains)
        return complain(l, node, "write \"json_pointer\", \"contains\" or \"sse_event\"");
    r->subject = SUBJECT_TEXT;
    return read_test(l, node, d, r);
}

void rules_apply(struct loader *l, const struct config_option *o, void *base, const cJSON *array)
{
    bool headers = o->type == TYPE_HEAD_RULES;
    struct rule_list *list = (void *)((char *)base + o->offset);
    size_t count = (size_t)cJSON_GetArraySize(array);

    *list = (struct rule_list){ 0 };
    if (count > (size_t)o->max) {
        report_error(&l->report, at_node(array), "more than %lld rules", (long long)o->max);
        return;
    }
    list->items = arena_alloc(l->arena, count * sizeof(*list->items) + 1);
    for (const cJSON *node = array->child; node; node = node->next) {
        struct rule_draft d = { 0 };
        struct response_rule *r = &list->items[list->count];
        unsigned errors = l->report.error_count;
        apply_object(l, headers ? &header_rule_options : &body_rule_options, &d, node);
        if (l->report.error_count > errors ||
            (headers ? shape_header(l, node, &d, r) : shape_body(l, node, &d, r)))
            continue;
        r->name = d.name
                      ? d.name
                      : arena_printf(l->arena, headers ? "headers-%zu" : "body-%zu", list->count);
        list->count++;
    }
}

/* ---- Names ---- */

const char *rule_name(const struct route *r, unsigned rule)
{
    const struct rule_list *list = rule < RULE_BODY ? &r->failure.headers : &r->failure.body;
    size_t i = rule - (rule < RULE_BODY ? RULE_HEADERS : RULE_BODY);

    if (rule == RULE_NONE)
        return "";
    if (rule == RULE_STATUS)
        return "status";
    if (rule == RULE_SLOWER_THAN)
        return "slower_than";
    return BUG(i >= list->count) ? "" : list->items[i].name;
}

static struct place_of at_rules(const cJSON *route)
{
    const cJSON *failure = child_of(route, "failure");
    return failure ? at_node(failure) : at_node(route);
}

static const struct response_rule *nth(const struct route *r, size_t i)
{
    size_t headers = r->failure.headers.count;
    return i < headers ? &r->failure.headers.items[i] : &r->failure.body.items[i - headers];
}

void rules_check(struct loader *l, const struct route *r, const cJSON *route)
{
    size_t count = r->failure.headers.count + r->failure.body.count;

    for (size_t i = 0; i < count; i++) {
        const char *name = nth(r, i)->name;
        if (strcmp(name, "status") == 0 || strcmp(name, "slower_than") == 0)
            report_error(&l->report, at_rules(route), "\"%s\" is the name of a built-in rule",
                         name);
        for (size_t k = 0; k < i; k++)
            if (strcmp(name, nth(r, k)->name) == 0)
                report_error(&l->report, at_rules(route), "two rules are called \"%s\"", name);
    }
}
