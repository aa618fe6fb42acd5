/*
 * stats.h - what the sync thread tells the others: atomics, and the last error's text.
 */
#ifndef SYNC_STATS_H
#define SYNC_STATS_H
#include "sync/quiet.h"
#include "sync/sync.h"
#include <pthread.h>
#include <stdatomic.h>

#define STATS_ERROR_MAX 160

enum stats_source { STATS_STREAM, STATS_INGEST, STATS_METADATA, STATS_POLL, STATS_SOURCE_COUNT };

struct stats {
    _Atomic uint64_t counters[SYNC_COUNTER_COUNT];
    _Atomic uint64_t buffered;
    _Atomic uint64_t in_flight;
    _Atomic uint64_t capacity;
    _Atomic int64_t last_event_wall_ms;
    _Atomic int64_t last_flush_wall_ms;
    _Atomic uint64_t cached_breakers;
    _Atomic uint64_t unknown_names;
    _Atomic uint64_t awaited_names;
    _Atomic bool polling;
    _Atomic int64_t last_poll_wall_ms;
    _Atomic int64_t last_metadata_wall_ms;
    _Atomic int64_t listed_breakers; /* -1: their list has not come */
    _Atomic int64_t listed_routers;
    pthread_mutex_t lock; /* error; no worker ever takes it */
    char error[STATS_SOURCE_COUNT][STATS_ERROR_MAX];
    struct quiet quiet; /* sync thread only */
};

void stats_init(struct stats *st);
void stats_destroy(struct stats *st);

static inline void stats_count(struct stats *st, enum sync_counter c)
{
    atomic_fetch_add_explicit(&st->counters[c], 1, memory_order_relaxed);
}

/* Sync thread: something failed (kept for the gauges, a warning at most once a minute) or
 * went well again.  text holds no secrets. */
void stats_trouble(struct stats *st, enum stats_source source, const char *text, int64_t now_ms);
void stats_well(struct stats *st, enum stats_source source);
/* An info line about the connection, within the budget of quiet.h. */
void stats_line(struct stats *st, const char *event, const char *msg, const char *reason,
                int64_t now_ms);

void stats_last_error(struct stats *st, char out[STATS_ERROR_MAX]);

#endif
