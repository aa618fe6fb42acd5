/*
 * proxy.h - what the whole process shares: one struct, made by main before any thread.
 *
 * Workers read it; only the atomics in it change while they run.
 */
#ifndef PROXY_PROXY_H
#define PROXY_PROXY_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct breakers;
struct control;
struct intern;
struct own_conns;
struct probes;
struct self_addrs;
struct snapshot;
struct switches;
struct sync;
struct worker;

#define WORKERS_MAX 64

struct proxy {
    struct breakers *breakers;
    struct probes *probes;       /* what bounds half-open attempts */
    struct switches *switches;   /* what an operator holds by hand */
    struct sync *sync;           /* NULL until started */
    struct control *control;     /* NULL unless embedded */
    struct intern *rule_names;   /* of routes' rules, capped: see rule_slot_name() */
    struct intern *route_names;  /* id - 1 is the slot in worker_counters.routes, capped */
    struct intern *auto_hosts;   /* hosts that got {host} names, up to limits.auto_breakers */
    struct self_addrs *self;     /* what we listen on; fixed before the workers start */
    struct own_conns *own_conns; /* to origins; NULL: no transparent listeners */
    struct worker *workers[WORKERS_MAX];
    unsigned worker_count;
    _Atomic(struct snapshot *) snapshot; /* the newest; workers adopt it between events */

    _Atomic int64_t connections;         /* client connections of all workers */
    _Atomic int64_t turned_away;         /* more connections, only to be told why not */
    _Atomic int64_t tunnels;             /* places under limits.tunnels that are taken */
    int64_t connection_limit;            /* limits.connections, lowered to fit RLIMIT_NOFILE */
    _Atomic int64_t last_client_gone_ms; /* monotonic; when connections last became 0 */

    _Atomic bool draining;
    _Atomic bool started; /* every listener accepts and state is known, or the wait is over */
    int64_t start_wall_ms;
    int64_t start_mono_ms;

    /* Written by main on reload, read by telemetry on the same thread. */
    unsigned snapshots; /* in memory: the present one, and those still in use */
    bool last_reload_ok;
    bool restart_required;
    uint64_t reloads_ok, reloads_failed;
    int64_t last_reload_wall_ms;
    char restart_option[64];

    /* Connections past the limit of 64; written and read by main. */
    uint64_t telemetry_refused, admin_refused;
};

#endif
