/*
 * inspect.h - what a response says: does a rule match it, what do its metrics read? (pure)
 *
 * A plan is compiled once per route and configuration, and shared.  At a response head
 * inspect_head() looks at its fields; if the body matters too, an inspector gets to see
 * each of its bytes as they pass.  It looks at the first failure.body_limit decoded bytes
 * (for metrics, at all events of an event stream), and what it finds does not depend on
 * how the bytes were cut: the rule that becomes true at the earliest byte wins, of
 * several the first in the file; values behind that byte are not read.
 *
 * In an event stream the rules see the data of one event after the other, and the whole
 * of an event is one moment.  Data that is no JSON matches no pointer.
 *
 * A body that cannot be read (coding, compression, JSON, size) matches nothing from
 * there on; inspector_trouble() tells the first reason.
 */
#ifndef PROXY_INSPECT_H
#define PROXY_INSPECT_H
#include "config/config.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http1_head;
struct inspect_plan; /* opaque, never changes */
struct inspector;    /* opaque, one per response */

#define INSPECT_INFLATED_MAX ((uint64_t)16 * 1024 * 1024) /* of one compressed event stream */

enum trouble {
    TROUBLE_NONE,
    TROUBLE_UNKNOWN_ENCODING, /* neither gzip nor deflate, or several */
    TROUBLE_BAD_ENCODING,     /* compressed data broken or cut short */
    TROUBLE_BAD_JSON,         /* a pointer is wanted, and the body is no JSON or cut short */
    TROUBLE_EVENT_TOO_LONG,   /* over body_limit or 64 KiB */
    TROUBLE_INFLATED_MAX,
    TROUBLE_BODY_LIMIT, /* the body went on behind failure.body_limit */
    TROUBLE_COUNT,
};
const char *trouble_name(enum trouble t);

/* NULL: the route asks nothing of responses.  r must outlive the plan. */
struct inspect_plan *inspect_plan_new(const struct route *r);
void inspect_plan_free(struct inspect_plan *p); /* NULL is fine */

/* The first of failure.headers that matches, or RULE_NONE; values[i] of the route's metrics
 * that are read from a field, NaN for all others. */
unsigned inspect_head(const struct inspect_plan *p, const struct http1_head *h,
                      double values[MAX_METRICS]);
/* An event stream has to be looked at before it can be judged. */
bool inspect_wants_events(const struct inspect_plan *p);

/* NULL: nothing in this body matters; with *trouble, because it cannot be read.
 * values (borrowed, as inspect_head left them) gets what the metrics read. */
struct inspector *inspector_new(const struct inspect_plan *p, const struct http1_head *h,
                                bool event_stream, double values[MAX_METRICS],
                                enum trouble *trouble);
void inspector_free(struct inspector *in); /* NULL is fine */
void inspector_feed(struct inspector *in, const uint8_t *bytes, size_t len);
void inspector_end(struct inspector *in);            /* the body is complete */
unsigned inspector_rule(const struct inspector *in); /* RULE_NONE: none has matched */
bool inspector_is_done(const struct inspector *in);  /* needs no more bytes */
enum trouble inspector_trouble(const struct inspector *in);

#endif
