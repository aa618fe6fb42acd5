/*
 * breakers.h - what is known of each breaker, readable without a lock.
 *
 * Names are interned in one table of 65 536 slots, allocated at start and never
 * freed.  A slot is two words: `server`, written by the sync thread alone, and
 * `local`, written by main alone (an override).  One flags word says how far the
 * whole table can be trusted.  A check costs a worker one load per breaker and one
 * for the flags.
 */
#ifndef SYNC_BREAKERS_H
#define SYNC_BREAKERS_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BREAKERS_CAPACITY 65536

enum breaker_state { BREAKER_UNKNOWN, BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };
const char *breaker_state_name(enum breaker_state s); /* "unknown", "closed", ... as on the wire */
int breaker_state_parse(const char *s,
                        enum breaker_state *out); /* -1: not one of the wire's three */

/* allow_rate as n / 2^32, so that a 32-bit draw d admits when d < n; 1.0 is 2^32. */
#define BREAKER_RATE_ONE (UINT64_C(1) << 32)

struct breaker_view {
    enum breaker_state state; /* BREAKER_UNKNOWN: the server never named it, or took it back */
    uint64_t rate;            /* 0 to BREAKER_RATE_ONE; 0 for a null rate */
    bool rate_null;           /* the server sent null: in half_open it admits nobody */
    uint32_t changes;         /* how often the server changed it, wraps */
};

/* One word: bits 0-32 rate, 33-34 state, 35 null rate, 36-63 changes. */
static inline struct breaker_view breaker_unpack(uint64_t word)
{
    return (struct breaker_view){
        .rate = word & ((UINT64_C(1) << 33) - 1),
        .state = (enum breaker_state)(word >> 33 & 3),
        .rate_null = word >> 35 & 1,
        .changes = (uint32_t)(word >> 36),
    };
}
static inline uint64_t breaker_pack(struct breaker_view v)
{
    return (v.rate & ((UINT64_C(1) << 33) - 1)) | (uint64_t)v.state << 33 |
           (uint64_t)v.rate_null << 35 | (uint64_t)(v.changes & 0xfffffff) << 36;
}
uint64_t breaker_rate_from_double(double allow_rate); /* clamps to 0..1; NaN is 0 */
/* Of an unknown one: nobody could yet say whether the server has it.  It has the bit of the null
 * rate, which only a half-open breaker needs. */
static inline bool breaker_is_awaited(struct breaker_view v)
{
    return v.state == BREAKER_UNKNOWN && v.rate_null;
}

/*
 * The local word: what an operator says instead of the server, until a moment of the
 * monotonic clock.  Bits 0-1 state, 2-13 reason (a number that main hands out), 14-63 the
 * end in milliseconds.  Its end is in it, so that it ends on time whoever sleeps; 0: none.
 */
#define BREAKER_REASON_MAX 4095

static inline uint64_t breaker_local_pack(enum breaker_state state, unsigned reason,
                                          int64_t until_ms)
{
    return (uint64_t)state | (uint64_t)(reason & BREAKER_REASON_MAX) << 2 |
           (uint64_t)until_ms << 14;
}
/* BREAKER_UNKNOWN: there is no override, or it has ended. */
static inline enum breaker_state breaker_local_state(uint64_t word, int64_t now_ms)
{
    return now_ms < (int64_t)(word >> 14) ? (enum breaker_state)(word & 3) : BREAKER_UNKNOWN;
}
static inline unsigned breaker_local_reason(uint64_t word)
{
    return word >> 2 & BREAKER_REASON_MAX;
}

/* Bits of the flags word. */
enum {
    STATE_SYNCED = 1u << 0,    /* a snapshot or a whole poll has arrived at least once */
    STATE_STALE = 1u << 1,     /* neither stream nor polls have delivered for state_max_age */
    STATE_CONNECTED = 1u << 2, /* the stream stands now; clear while states come from polls */
    STATE_BYPASS = 1u << 3,    /* main: gate nothing */
    STATE_OVERRIDES = 1u << 4, /* main: some local word is not 0 */
    STATE_AWAITED = 1u << 5,   /* every unknown breaker is awaited: names of hosts were not asked */
};

struct breakers; /* opaque, one per process */

struct breakers *breakers_new(void);
void breakers_free(struct breakers *b);

/* Takes a mutex: at load, at a state event, at a worker's first sight of a templated
 * name.  0: the table is full (counted). */
uint32_t breakers_intern(struct breakers *b, const char *name, size_t len);
uint32_t breakers_find(const struct breakers *b, const char *name, size_t len); /* 0: absent */
const char *breakers_name(const struct breakers *b, uint32_t id, size_t *len);
uint32_t breakers_count(const struct breakers *b); /* highest id; ids run from 1 */
uint64_t breakers_table_full(const struct breakers *b);

uint64_t breakers_load(const struct breakers *b, uint32_t id);  /* the server word */
uint64_t breakers_local(const struct breakers *b, uint32_t id); /* the local word; 0: no override */
unsigned breakers_flags(const struct breakers *b);
int64_t breakers_changed_ms(const struct breakers *b, uint32_t id); /* wall clock; 0: never */

/* Sync thread only. True if state or rate differ from before. */
bool breakers_store(struct breakers *b, uint32_t id, enum breaker_state state, uint64_t rate,
                    bool rate_null, int64_t wall_ms);
/* Sync thread only.  Nothing happens to one whose state is known. */
void breakers_await(struct breakers *b, uint32_t id, bool awaited);
/* How often the server moved a breaker into a state, and when last (wall clock; 0: never).
 * Kept for the first BREAKERS_TRACKED ids; all further ones share the last slot. */
#define BREAKERS_TRACKED 201
uint64_t breakers_transitions(const struct breakers *b, unsigned slot, enum breaker_state to);
int64_t breakers_transition_ms(const struct breakers *b, unsigned slot);

/* Before any thread runs: whom to tell when a breaker has opened, by the server or by an
 * override, on the thread that stored it.  The states are there to be read by then. */
void breakers_watch(struct breakers *b, void (*opened)(void *arg), void *arg);
/* Main only: the local word; 0 removes it. */
void breakers_set_local(struct breakers *b, uint32_t id, uint64_t word);

/* Any thread. */
void breakers_set_flags(struct breakers *b, unsigned set, unsigned clear);
/* Changes with every stored state, rate or local word: a worker compares it to see whether to look.
 */
uint64_t breakers_version(const struct breakers *b);

#endif
