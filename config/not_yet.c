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
