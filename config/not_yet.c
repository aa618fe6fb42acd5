/*
 * What the file format has and the program cannot do yet.
 *
 * A key in this table is accepted at the values listed, so that a file written for a
 * later version's defaults works, and refused at any other.  When the program learns
 * one, its row goes; nothing else refers to it.
 */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include <string.h>

struct rule {
    const struct option_table *table;
    const char *name;
    const char *accepted; /* the items joined by commas; alternatives parted by "|" */
};

static const struct rule rules[] = {
    { &route_options, "tls", "tunnel" },
    { &route_options, "failure.slower_than", "off" },
};

/* The same for values that are no text: what is refused, and how it is called. */
enum refused_shape { OBJECT_INSIDE, NOT_EMPTY };

static const struct {
    const char *name; /* of a route */
    enum refused_shape shape;
    const char *called;
} shapes[] = {
    { "metrics", OBJECT_INSIDE, "a metric from the response" },
    { "failure.headers", NOT_EMPTY, "a rule on response headers" },
    { "failure.body", NOT_EMPTY, "a rule on response bodies" },
};

static bool is_accepted(const char *accepted, const char *value)
{
    size_t len = strlen(value);

    for (const char *p = accepted;; p += strcspn(p, "|") + 1) {
        size_t n = strcspn(p, "|");
        if (n == len && memcmp(p, value, len) == 0)
            return true;
        if (!p[n])
            return false;
    }
}

bool not_yet_refuse(struct loader *l, const struct option_table *t, const struct config_option *o,
                    const char *joined, struct place_of at)
{
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        if (rules[i].table != t || strcmp(rules[i].name, o->name) != 0 ||
            is_accepted(rules[i].accepted, joined))
            continue;
        struct strbuf quoted = STRBUF_INIT;
        report_quote(&quoted, joined);
        report_error(&l->report, at, "%s is not available in this version", strbuf_str(&quoted));
        strbuf_free(&quoted);
        return true;
    }
    return false;
}

/* The node that has the refused shape, or NULL. */
static const cJSON *find_shape(enum refused_shape shape, const cJSON *node)
{
    if (shape == NOT_EMPTY)
        return (cJSON_IsObject(node) || cJSON_IsArray(node)) && node->child ? node : NULL;
    for (const cJSON *child = cJSON_IsObject(node) ? node->child : NULL; child; child = child->next)
        if (cJSON_IsObject(child))
            return child;
    return NULL;
}

bool not_yet_refuse_node(struct loader *l, const struct option_table *t,
                         const struct config_option *o, const cJSON *node)
{
    if (t != &route_options)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        if (strcmp(shapes[i].name, o->name) != 0)
            continue;
        const cJSON *found = find_shape(shapes[i].shape, node);
        if (found)
            report_error(&l->report, at_node(found), "%s is not available in this version",
                         shapes[i].called);
        return found != NULL;
    }
    return false;
}
