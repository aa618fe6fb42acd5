/*
 * store.h - one project: its breakers, its routers, and which feeds which.
 *
 * Pure: no I/O, the caller gives both clocks, one thread.  Everything a client can see
 * change is told to one listener, at once and in order.
 *
 * What exists comes from the configuration:
 *   - embedded.breakers and embedded.routers, as written;
 *   - each breaker and router that a route names and `embedded` does not define; the
 *     breakers are made from auto_breaker.  A route's breakers are linked to its router,
 *     except that a defined router is not given breakers which defined routers list: for
 *     those the operator has said who feeds them;
 *   - for a router whose id holds "{host}": nothing yet.  The first sample that names such
 *     a router makes it, and its breakers for that host, as long as there are fewer than
 *     limits.auto_breakers.  Beyond that samples are taken and ignored.  A definition whose
 *     name holds "{host}" is the rule for all breakers made from that name.
 *
 * A sample reaches the breakers that are linked to its router and have its metric
 * (PROTOCOL section 1).
 */
#ifndef CONTROL_STORE_H
#define CONTROL_STORE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config;
struct name_value_list;
struct persist_entry;
struct store; /* opaque */

/* Templated names longer than this are not made into breakers; the sample is ignored. */
#define STORE_NAME_MAX 512

struct store_now {
    int64_t mono_ms;
    int64_t wall_ms;
};

/* One breaker as clients see it; the strings live until the next call that may change it. */
struct store_breaker {
    const char *id;
    const char *name;
    const char *metric;
    const char *state; /* as on the wire */
    double allow_rate; /* closed 1, open 0 */
    int64_t updated_wall_ms;
    const struct name_value_list *metadata; /* NULL: none */
};

struct store_change {
    struct store_breaker breaker;
    const char *from;   /* NULL: not a transition but a new breaker or another allow_rate */
    const char *reason; /* of a transition: a stable word, and a sentence */
    const char *reason_text;
};
typedef void store_listener(void *arg, const struct store_change *change);

struct store *store_new(store_listener *listener, void *arg);
void store_free(struct store *s); /* NULL is fine */

/*
 * Borrows cfg until the next call or store_free.  Breakers whose name stays keep their
 * state; one that goes while it is not closed is told to be closed, reason "removed".
 * Routers that went are remembered until the next call: samples for them may
 * still be under way, and are ignored.
 */
void store_configure(struct store *s, const struct config *cfg, struct store_now now);

/*
 * A breaker goes on as a former run left it: open for the rest of its cooldown by the wall
 * clock, half-open from the start.  One made for a host is made again if its router may be.
 * False: nothing has that name, or limits.auto_breakers is met.  Before the first sample.
 */
bool store_resume(struct store *s, const struct persist_entry *entry, struct store_now now);

/* Would store_sample know this router, or make it? */
bool store_knows_router(const struct store *s, const char *router_id);

struct store_sample {
    const char *router_id;
    const char *metric;
    int64_t ts_ms; /* wall clock: when the attempt began */
    bool ok;
};
void store_sample(struct store *s, const struct store_sample *sample, struct store_now now);

/* Evaluate what is due.  Call it when store_next_ms() has come; INT64_MAX: nothing to do. */
void store_tick(struct store *s, struct store_now now);
int64_t store_next_ms(const struct store *s);

/* Reading.  Orders are stable until the next store_configure. */
size_t store_breaker_count(const struct store *s);
struct store_breaker store_breaker_at(const struct store *s, size_t i);
bool store_breaker_by_id(const struct store *s, const char *id, struct store_breaker *out);
/* Those that are not closed, for store_resume of the next run.  Start with *pos = 0, false at the
 * end. */
bool store_unclosed_next(const struct store *s, size_t *pos, struct store_now now,
                         struct persist_entry *out);
/* Names that went after their breaker had moved, but for those that exist now: closed, for
 * clients that missed it (id and metric are NULL).  Of many the latest are kept, as many at least
 * as ever went at once.  Start with *pos = 0, false at the end. */
bool store_gone_next(const struct store *s, size_t *pos, struct store_breaker *out);
/* The routers; start with *pos = 0, false at the end. */
bool store_router_next(const struct store *s, size_t *pos, const char **id, const char **name);
const struct name_value_list *store_router_metadata(const struct store *s, const char *router_id);
bool store_has_router(const struct store *s, const char *router_id); /* made already, not gone */
/* The breakers of that router; start with *pos = 0, false at the end. */
bool store_link_next(const struct store *s, const char *router_id, size_t *pos,
                     struct store_breaker *out);

struct store_status {
    uint64_t open;
    uint64_t closed;           /* half-open ones are in neither (PROTOCOL section 6) */
    int64_t last_eval_wall_ms; /* 0: never */
    uint64_t list_version;     /* another number for another list of breakers and routers */
    uint64_t auto_breakers;    /* made for hosts, ever */
    uint64_t auto_refused;     /* samples ignored because limits.auto_breakers was reached */
    uint64_t transitions;
};
void store_status(const struct store *s, struct store_status *out);

#endif
