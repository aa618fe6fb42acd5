#include "sync/breakers.h"
#include "base/base.h"
#include "base/intern.h"
#include <stdlib.h>
#include <string.h>

struct breakers {
    struct intern *names;
    _Atomic uint64_t *server;    /* by id; the sync thread alone writes */
    _Atomic uint64_t *local;     /* by id; main alone writes */
    _Atomic int64_t *changed_ms; /* by id; the sync thread alone writes */
    struct {
        _Atomic uint64_t to[BREAKER_HALF_OPEN + 1];
        _Atomic int64_t last_ms;
    } moves[BREAKERS_TRACKED]; /* the sync thread alone writes */
    _Atomic unsigned flags;
    _Atomic uint64_t version;
    _Atomic uint64_t table_full;
    void (*opened)(void *arg); /* NULL: nobody asks */
    void *opened_arg;
};

const char *breaker_state_name(enum breaker_state s)
{
    switch (s) {
    case BREAKER_UNKNOWN:
        return "unknown";
    case BREAKER_CLOSED:
        return "closed";
    case BREAKER_OPEN:
        return "open";
    case BREAKER_HALF_OPEN:
        return "half_open";
    }
    return "unknown";
}

int breaker_state_parse(const char *s, enum breaker_state *out)
{
    for (enum breaker_state i = BREAKER_CLOSED; i <= BREAKER_HALF_OPEN; i++) {
        if (strcmp(s, breaker_state_name(i)) == 0) {
            *out = i;
            return 0;
        }
    }
    return -1;
}

uint64_t breaker_rate_from_double(double allow_rate)
{
    if (!(allow_rate > 0))
        return 0;
    if (allow_rate >= 1)
        return BREAKER_RATE_ONE;
    uint64_t n = (uint64_t)(allow_rate * (double)BREAKER_RATE_ONE + 0.5);
    /* only 1.0 admits everybody, only 0.0 nobody */
    if (n == 0)
        return 1;
    return n < BREAKER_RATE_ONE ? n : BREAKER_RATE_ONE - 1;
}

struct breakers *breakers_new(void)
{
    struct breakers *b = xcalloc(1, sizeof(*b));
    b->names = intern_new(BREAKERS_CAPACITY);
    /* this large, zeroed memory comes from mmap: pages nobody touches are never made */
    b->server = xcalloc(BREAKERS_CAPACITY, sizeof(*b->server));
    b->local = xcalloc(BREAKERS_CAPACITY, sizeof(*b->local));
    b->changed_ms = xcalloc(BREAKERS_CAPACITY, sizeof(*b->changed_ms));
    return b;
}

void breakers_free(struct breakers *b)
{
    if (!b)
        return;
    intern_free(b->names);
    free(b->server);
    free(b->local);
    free(b->changed_ms);
    free(b);
}

uint32_t breakers_intern(struct breakers *b, const char *name, size_t len)
{
    uint32_t id = intern_add(b->names, name, len);
    if (id == 0)
        atomic_fetch_add_explicit(&b->table_full, 1, memory_order_relaxed);
    return id;
}

uint32_t breakers_find(const struct breakers *b, const char *name, size_t len)
{
    return intern_find(b->names, name, len);
}

const char *breakers_name(const struct breakers *b, uint32_t id, size_t *len)
{
    return intern_name(b->names, id, len);
}

uint32_t breakers_count(const struct breakers *b)
{
    return intern_count(b->names);
}

uint64_t breakers_table_full(const struct breakers *b)
{
    return atomic_load_explicit(&b->table_full, memory_order_relaxed);
}

static bool valid(uint32_t id)
{
    return !BUG(id >= BREAKERS_CAPACITY);
}

uint64_t breakers_load(const struct breakers *b, uint32_t id)
{
    return valid(id) ? atomic_load_explicit(&b->server[id], memory_order_acquire) : 0;
}

uint64_t breakers_local(const struct breakers *b, uint32_t id)
{
    return valid(id) ? atomic_load_explicit(&b->local[id], memory_order_acquire) : 0;
}

unsigned breakers_flags(const struct breakers *b)
{
    return atomic_load_explicit(&b->flags, memory_order_acquire);
}

int64_t breakers_changed_ms(const struct breakers *b, uint32_t id)
{
    return valid(id) ? atomic_load_explicit(&b->changed_ms[id], memory_order_relaxed) : 0;
}

static void note_transition(struct breakers *b, uint32_t id, enum breaker_state to, int64_t wall_ms)
{
    unsigned slot = id < BREAKERS_TRACKED - 1 ? id : BREAKERS_TRACKED - 1;
    atomic_fetch_add_explicit(&b->moves[slot].to[to], 1, memory_order_relaxed);
    atomic_store_explicit(&b->moves[slot].last_ms, wall_ms, memory_order_relaxed);
}

uint64_t breakers_transitions(const struct breakers *b, unsigned slot, enum breaker_state to)
{
    return atomic_load_explicit(&b->moves[slot].to[to], memory_order_relaxed);
}

int64_t breakers_transition_ms(const struct breakers *b, unsigned slot)
{
    return atomic_load_explicit(&b->moves[slot].last_ms, memory_order_relaxed);
}

bool breakers_store(struct breakers *b, uint32_t id, enum breaker_state state, uint64_t rate,
                    bool rate_null, int64_t wall_ms)
{
    if (BUG(id == 0 || id >= BREAKERS_CAPACITY || rate > BREAKER_RATE_ONE))
        return false;
    struct breaker_view v =
        breaker_unpack(atomic_load_explicit(&b->server[id], memory_order_relaxed));
    if (rate_null)
        rate = 0;
    if (v.state == state && v.rate == rate && v.rate_null == rate_null)
        return false;
    bool opens = state == BREAKER_OPEN && v.state != BREAKER_OPEN;
    if (v.state != state)
        note_transition(b, id, state, wall_ms);
    v.state = state;
    v.rate = rate;
    v.rate_null = rate_null;
    v.changes++;
    atomic_store_explicit(&b->changed_ms[id], wall_ms, memory_order_relaxed);
    atomic_store_explicit(&b->server[id], breaker_pack(v), memory_order_release);
    atomic_fetch_add_explicit(&b->version, 1, memory_order_release);
    if (opens && b->opened)
        b->opened(b->opened_arg);
    return true;
}

void breakers_await(struct breakers *b, uint32_t id, bool awaited)
{
    if (!valid(id))
        return;
    struct breaker_view v =
        breaker_unpack(atomic_load_explicit(&b->server[id], memory_order_relaxed));
    if (v.state != BREAKER_UNKNOWN || v.rate_null == awaited)
        return;
    v.rate_null = awaited;
    atomic_store_explicit(&b->server[id], breaker_pack(v), memory_order_release);
}

void breakers_watch(struct breakers *b, void (*opened)(void *arg), void *arg)
{
    b->opened = opened;
    b->opened_arg = arg;
}

void breakers_set_local(struct breakers *b, uint32_t id, uint64_t word)
{
    if (BUG(id == 0 || id >= BREAKERS_CAPACITY))
        return;
    atomic_store_explicit(&b->local[id], word, memory_order_release);
    atomic_fetch_add_explicit(&b->version, 1, memory_order_release);
    if ((word & 3) == BREAKER_OPEN && b->opened)
        b->opened(b->opened_arg);
}
void breakers_set_flags(struct breakers *b, unsigned set, unsigned clear)
{
    unsigned old = atomic_load_explicit(&b->flags, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&b->flags, &old, (old & ~clear) | set,
                                                  memory_order_acq_rel, memory_order_relaxed))
        ;
}

uint64_t breakers_version(const struct breakers *b)
{
    return atomic_load_explicit(&b->version, memory_order_acquire);
}
