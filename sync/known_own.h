/*
 * known_own.h - what known.c and known_asked.c share; nobody else includes it.
 *
 * known.c has the stream's snapshots, what is synced and stale, and time; known_asked.c has the
 * names that are awaited, and polls and lists, which tell of them.
 */
#ifndef SYNC_KNOWN_OWN_H
#define SYNC_KNOWN_OWN_H
#include "sync/breakers.h"
#include "sync/known.h"
#include "sync/known_log.h"
#include "sync/sync.h"

struct known {
    struct breakers *breakers;
    _Atomic uint64_t *counters;
    uint32_t *used; /* owned */
    size_t used_count;
    bool templated;
    bool unresolved;
    int64_t state_max_age_ms;
    struct known_log log;

    bool connected;
    bool spoke;   /* this connection has said anything */
    bool trusted; /* this connection has named all used breakers, or its snapshot is whole */
    bool whole;   /* what this connection's snapshot lacks the server lacks */
    bool told;    /* stream or polls have said something since the start */
    bool synced;  /* a snapshot was whole, or a poll went well, at some time */
    bool stale;
    bool poll_ok;      /* the last poll went well, and polls are still made */
    bool must_compare; /* this connection's snapshot with what was known before it */
    bool wants_list;
    bool polling;  /* the stream is not what counts, even if it stands */
    bool by_polls; /* the last to tell all it was asked for was a poll, not the stream */
    bool wants_poll;
    bool hosts_awaited; /* names of hosts are used, and nobody was asked about them */
    bool hosts_in_poll;
    int64_t polled_ms;  /* the last poll that went well */
    int64_t begun_ms;   /* when this connection's snapshot began; valid while connected */
    int64_t event_ms;   /* last event of this connection, or its start */
    int64_t lost_ms;    /* when a trusted connection was last lost; 0: never */
    int64_t adopted_ms; /* the workers go by what was configured last; INT64_MAX: did before */
    size_t pending;     /* used names not seen on this connection */
    uint64_t cached;
    uint64_t missing;
    uint64_t awaited;
    uint8_t is_used[BREAKERS_CAPACITY / 8];
    uint8_t is_left[BREAKERS_CAPACITY / 8];   /* used until a moment ago */
    uint8_t is_seen[BREAKERS_CAPACITY / 8];   /* on this connection */
    uint8_t is_heard[BREAKERS_CAPACITY / 8];  /* since the list was asked for */
    uint8_t is_listed[BREAKERS_CAPACITY / 8]; /* in the last list */
    uint8_t in_poll[BREAKERS_CAPACITY / 8];   /* the last poll to begin asks for it */
    uint8_t is_polled[BREAKERS_CAPACITY / 8]; /* the last one that went well did */
    uint8_t in_list[BREAKERS_CAPACITY / 8];   /* used when the list was asked for */
};

static inline bool has_bit(const uint8_t *bits, uint32_t id)
{
    return bits[id / 8] >> (id % 8) & 1;
}

static inline void set_bit(uint8_t *bits, uint32_t id)
{
    bits[id / 8] = (uint8_t)(bits[id / 8] | 1u << (id % 8));
}

static inline void clear_bit(uint8_t *bits, uint32_t id)
{
    bits[id / 8] = (uint8_t)(bits[id / 8] & ~(1u << (id % 8)));
}

static inline void count(struct known *k, enum sync_counter c)
{
    atomic_fetch_add_explicit(&k->counters[c], 1, memory_order_relaxed);
}

static inline enum breaker_state state_of(const struct known *k, uint32_t id)
{
    return breaker_unpack(breakers_load(k->breakers, id)).state;
}

static inline bool is_awaited(const struct known *k, uint32_t id)
{
    return breaker_is_awaited(breaker_unpack(breakers_load(k->breakers, id)));
}

/* known.c */
void known_refresh(struct known *k); /* what the slots say is the state of now */
void known_look_for_missing(struct known *k);

/* known_asked.c */
bool known_stream_tells(const struct known *k); /* the stream has told all there is */
void known_await_all(struct known *k, bool awaited);
void known_keep_hosts_awaited(struct known *k); /* it takes effect once synced */
void known_await_joined(struct known *k, const uint8_t *was_used, bool was_templated);
/* Routes use some of these no more; but workers do until they have the routes. */
void known_leave(struct known *k, const uint32_t *former, size_t count);
void known_end_adoption(struct known *k); /* now they have */

#endif
