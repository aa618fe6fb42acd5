/*
 * snapshot.h - one configuration as the workers use it, and when it may be freed.
 *
 * Main compiles a struct config into a snapshot and publishes it.  A worker adopts
 * it between events and counts its exchanges per snapshot, plainly.  Main frees a
 * retired snapshot when no worker uses it any more and the sync thread has passed the
 * ring positions of that moment.
 */
#ifndef PROXY_SNAPSHOT_H
#define PROXY_SNAPSHOT_H
#include "config/config.h"
#include "proxy/probe.h"
#include "proxy/proxy.h"
#include "sync/breakers.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct route_table;

/* A route with its names looked up. */
struct live_route {
    const struct route *cfg;
    unsigned slot;                /* in worker_counters.routes */
    bool templated;               /* a breaker name holds "{host}" */
    bool templated_router;        /* so does the router */
    bool tells_host;              /* or a tag: samples need the host's name */
    bool gates;                   /* names at least one breaker, or will */
    bool unresolved;              /* its breakers are selected from a list yet to come */
    uint32_t fixed[MAX_BREAKERS]; /* interned: the names without "{host}", in order */
    unsigned fixed_count;
    unsigned breaker_count;    /* with those that hold it */
    struct probe_limits probe; /* while a breaker is half-open */
    struct inspect_plan *plan; /* owned; NULL: asks nothing of responses */
    uint8_t *rule_slots;       /* owned; by rule from RULE_HEADERS on; NULL: has none */
};

struct snapshot {
    struct config *cfg; /* owned */
    struct route_table *table;
    struct live_route *routes; /* by route index */
    struct live_route fallback;
    uint64_t generation;
    struct snapshot *next_retired;   /* main's list */
    uint64_t ring_mark[WORKERS_MAX]; /* sync must pass these; valid once marked */
    bool marked;
    struct {
        _Atomic uint64_t exchanges; /* that worker's; written by it alone */
        char pad[56];
    } use[WORKERS_MAX];
};

/* Takes over cfg. Interns its names. */
struct snapshot *snapshot_new(struct proxy *p, struct config *cfg);
void snapshot_free(struct snapshot *s);
const struct live_route *snapshot_route(const struct snapshot *s, const struct route *r);
/* NULL: it has none of that name. */
const struct live_route *snapshot_route_named(const struct snapshot *s, const char *name);

/* Main: publish next (the former one is retired), and free what nobody uses any more.
 * True while retired snapshots wait. */
void snapshot_publish(struct proxy *p, struct snapshot *next);
bool snapshot_reap(struct proxy *p);
void snapshot_reap_all(struct proxy *p); /* at exit, when every thread has ended */

/* The slot of a route name in worker_counters.routes: names past the cap share "_other". */
unsigned route_slot(struct proxy *p, const char *name);
/* The same for rules, in worker_counters.rule_matches: "status", "slower_than", and names that
 * all routes share. */
unsigned rule_slot(const struct live_route *lr, unsigned rule);
const char *rule_slot_name(const struct proxy *p, unsigned slot);  /* NULL: unused */
const char *route_slot_name(const struct proxy *p, unsigned slot); /* NULL: unused */

#endif
