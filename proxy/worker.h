/*
 * worker.h - one thread of the data plane, and everything it owns.
 *
 * A worker shares nothing that it changes: its event loop, connections, pool,
 * resolver, random numbers, counters and buffers are its own.  Each turn of the loop
 * reads the clock at most once, serves events, then runs what queued itself again,
 * frees what was closed, and adopts a new snapshot if there is one.
 */
#ifndef PROXY_WORKER_H
#define PROXY_WORKER_H
#include "base/prng.h"
#include "proxy/buffer.h"
#include "proxy/metrics.h"
#include "proxy/reply.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct conn;
struct connect_job;
struct dns;
struct event;
struct event_base;
struct exchange;
struct listener;
struct map;
struct proxy;
struct ring;
struct snapshot;
struct target;
struct tunnel_pipe;
struct upstream;

struct list { /* intrusive, doubly linked, with a head of the same type */
    struct list *next, *prev;
};

#define TARGETS_RECENT 64 /* a power of two */

struct worker {
    struct proxy *proxy;
    unsigned index;
    pthread_t thread;
    struct event_base *base;
    struct snapshot *snap; /* adopted; exchanges hold their own */
    struct prng prng;
    struct ring *ring; /* of struct attempt_record, drained by sync */
    struct block_pool blocks;
    struct dns *dns;
    struct map *targets; /* "host:port" -> struct target */
    struct list target_lru;
    struct target *recent_targets[TARGETS_RECENT];
    struct list pool_lru;  /* idle upstream connections, oldest first */
    struct list runq;      /* connections to serve again next turn */
    struct list starved;   /* connections waiting for a buffer block */
    struct list graveyard; /* closed connections, freed at the end of the turn */
    struct list downstreams;
    struct list tunnel_routes; /* for tunnels.c */
    struct map *tunnels_of;    /* the same by route */
    bool tunnels_left;         /* some may have to go although their breaker changes no more */
    struct tunnel_pipe *free_pipes;
    unsigned pipe_count; /* free ones included */
    struct exchange *free_exchanges;
    unsigned free_exchange_count;
    struct connect_job *free_jobs;
    unsigned free_job_count;
    uint64_t exchange_serial;
    struct reply_kept reply;
    size_t idle_upstreams;
    struct listener *listeners;
    unsigned listener_count;
    struct event *wake_event, *tick_event;
    int wake_fd;
    uint64_t turn, turn_of_clock;
    uint64_t batch_turn;    /* that the next two are about */
    unsigned batch;         /* events, of whatever kind, that it began with, or more */
    unsigned batch_served;  /* of those the ones of descriptors, so far */
    unsigned batch_largest; /* batch_served of the turn that had most */
    int64_t now_us_cached;
    int64_t now_wall_ms_cached;
    uint64_t breakers_version;   /* at the last look at tunnels */
    uint64_t tunnels_generation; /* likewise, of the snapshot */
    _Atomic bool stop;
    _Atomic int64_t tick_ms; /* monotonic, when it last ticked */
    _Atomic uint64_t adopted_generation;
    struct worker_counters c;
};

/* Time of this turn of the loop, monotonic. */
int64_t worker_now_us(struct worker *w);
static inline int64_t worker_now_ms(struct worker *w)
{
    return worker_now_us(w) / 1000;
}

static inline int64_t worker_wall_ms(struct worker *w) /* Unix epoch: wire and logs only */
{
    worker_now_us(w);
    return w->now_wall_ms_cached;
}

void worker_begin_batch(struct worker *w);
/* Every callback of a descriptor begins with it, so that the first one of a turn counts. */
static inline void worker_note_event(struct worker *w)
{
    if (w->batch_turn != w->turn)
        worker_begin_batch(w);
    w->batch_served++;
}
/* Whatever came before this turn began has been served or is an active event; and the turn is
 * a short one. */
bool worker_knows_all(const struct worker *w);

struct worker *worker_new(struct proxy *p, unsigned index, struct ring *ring);
int worker_start(struct worker *w);
void worker_wake(struct worker *w); /* any thread */
void worker_stop(struct worker *w); /* any thread; then worker_join */
void worker_join(struct worker *w);
void worker_free(struct worker *w); /* after worker_join, or if never started */

void list_init(struct list *head);
void list_add_tail(struct list *head, struct list *item);
void list_remove(struct list *item); /* fine if it is in no list */
static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}
static inline bool list_linked(const struct list *item)
{
    return item->next != NULL;
}
#define CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
