#include "proxy/probe.h"
#include "base/base.h"
#include "base/slice.h"
#include "sync/breakers.h"
#include <stdlib.h>

/* A lease: 44 bits of milliseconds when it expires, 20 of a serial number, so that who held a
 * slot before cannot take its successor's lease for its own.  0: free. */
#define SERIAL_BITS 20
#define SERIAL_MASK ((UINT64_C(1) << SERIAL_BITS) - 1)

#define CHUNK_SLOTS 50
#define CHUNKS      (MAX_PROBES / CHUNK_SLOTS)
_Static_assert(MAX_PROBES % CHUNK_SLOTS == 0, "every place has a slot");

struct chunk {
    _Atomic uint64_t slots[CHUNK_SLOTS];
};

/* Of one breaker. */
struct place {
    _Atomic uint64_t serial;
    _Atomic uint64_t last_us; /* when an attempt last got its turn; 0: never */
    _Atomic unsigned used;    /* no lease was ever in a slot from here on */
    _Atomic(struct chunk *) chunks[CHUNKS];
};

struct probes {
    _Atomic(struct place *) *places; /* by slot id of the breaker */
};

/* ---- Limits ---- */

static uint64_t spacing(int64_t per_second, int64_t shared_by)
{
    if (per_second <= 0) /* OFF */
        return 0;
    uint64_t shares_us = UINT64_C(1000000) * (uint64_t)shared_by, rate = (uint64_t)per_second;
    return (shares_us + rate - 1) / rate; /* rounded so that the rate is never exceeded */
}

struct probe_limits probe_limits_of(const struct route *r)
{
    uint64_t own = spacing(r->half_open.max_per_second, 1);
    uint64_t share = spacing(r->half_open.fleet.max_per_second, r->half_open.fleet.size);
    int64_t timeout_ms = r->half_open.timeout_ms, concurrent = r->half_open.max_concurrent;
    struct probe_limits l = {
        .concurrent = concurrent == OFF ? 0 : (unsigned)concurrent,
        .spacing_us = own > share ? own : share,
        .lease_ms = timeout_ms == OFF ? PROBE_LEASE_MS : timeout_ms + PROBE_GRACE_MS,
        .methods = &r->half_open.eligible.methods,
        .max_body = r->half_open.eligible.max_body,
    };
    l.chooses = l.methods->count || l.max_body != OFF;
    return l;
}

bool probe_eligible(const struct probe_limits *l, const char *method, size_t method_len,
                    int64_t body_bytes)
{
    struct slice asked = { method, method_len };
    if (l->max_body != OFF && (body_bytes < 0 || body_bytes > l->max_body))
        return false;
    for (size_t i = 0; i < l->methods->count; i++)
        if (slice_eq(asked, slice_of(l->methods->items[i])))
            return true;
    return l->methods->count == 0;
}

/* ---- Places ---- */

struct probes *probes_new(void)
{
    struct probes *p = xcalloc(1, sizeof(*p));
    /* this large, zeroed memory comes from mmap: pages nobody touches are never made */
    p->places = xcalloc(BREAKERS_CAPACITY, sizeof(*p->places));
    return p;
}

void probes_free(struct probes *p)
{
    if (!p)
        return;
    for (size_t id = 0; id < BREAKERS_CAPACITY; id++) {
        struct place *place = atomic_load(&p->places[id]);
        for (size_t c = 0; place && c < CHUNKS; c++)
            free(atomic_load(&place->chunks[c]));
        free(place);
    }
    free(p->places);
    free(p);
}

/* Workers may make it at the same time; the first one's counts. */
static struct place *place_of(struct probes *p, uint32_t breaker)
{
    struct place *there = atomic_load(&p->places[breaker]);
    if (there)
        return there;
    struct place *mine = xcalloc(1, sizeof(*mine));
    if (atomic_compare_exchange_strong(&p->places[breaker], &there, mine))
        return mine;
    free(mine);
    return there;
}

static _Atomic uint64_t *slot_of(struct place *place, unsigned i)
{
    struct chunk *there = atomic_load(&place->chunks[i / CHUNK_SLOTS]);
    if (!there) {
        struct chunk *mine = xcalloc(1, sizeof(*mine));
        if (atomic_compare_exchange_strong(&place->chunks[i / CHUNK_SLOTS], &there, mine))
            there = mine;
        else
            free(mine);
    }
    return &there->slots[i % CHUNK_SLOTS];
}

static bool is_held(uint64_t value, int64_t now_ms)
{
    return value != 0 && (int64_t)(value >> SERIAL_BITS) > now_ms;
}

static unsigned count_held(struct place *place, int64_t now_ms)
{
    unsigned held = 0, used = atomic_load(&place->used);
    for (unsigned i = 0; i < used; i++)
        held += is_held(atomic_load(slot_of(place, i)), now_ms);
    return held;
}

unsigned probes_held(const struct probes *p, uint32_t breaker, int64_t now_us)
{
    struct place *place = atomic_load(&p->places[breaker]);
    return place ? count_held(place, now_us / 1000) : 0;
}

uint64_t probes_held_sum(const struct probes *p, uint32_t last, int64_t now_us)
{
    uint64_t held = 0;
    for (uint32_t id = 0; id <= last; id++)
        held += probes_held(p, id, now_us);
    return held;
}

/* ---- Leases ---- */

static void give_back(struct probe_lease *lease)
{
    uint64_t mine = lease->value;
    atomic_compare_exchange_strong(lease->slot, &mine, 0);
}

static void note_used(struct place *place, unsigned count)
{
    unsigned old = atomic_load(&place->used);
    while (old < count && !atomic_compare_exchange_weak(&place->used, &old, count))
        ;
}

static uint64_t new_value(struct place *place, int64_t now_ms, int64_t lease_ms)
{
    uint64_t serial = atomic_fetch_add(&place->serial, 1) & SERIAL_MASK;
    return (uint64_t)(now_ms + lease_ms) << SERIAL_BITS | serial;
}

static bool take_lease(struct place *place, const struct probe_limits *l, int64_t now_ms,
                       struct probe_lease *lease)
{
    unsigned slots = l->concurrent ? l->concurrent : MAX_PROBES;
    for (unsigned i = 0; i < slots; i++) {
        _Atomic uint64_t *slot = slot_of(place, i);
        uint64_t old = atomic_load(slot);
        if (is_held(old, now_ms))
            continue;
        note_used(place, i + 1);
        *lease = (struct probe_lease){ slot, new_value(place, now_ms, l->lease_ms) };
        if (!atomic_compare_exchange_strong(slot, &old, lease->value))
            continue;
        /* Slots past our limit were taken under a higher one or none.  Of several who come this
         * far at the same time the last sees all the others, so too many never stay. */
        if (atomic_load(&place->used) <= slots || count_held(place, now_ms) <= slots)
            return true;
        give_back(lease);
        return false;
    }
    return false;
}

void probe_release(struct probe_pass *pass)
{
    for (unsigned i = 0; i < pass->count; i++)
        give_back(&pass->leases[i]);
    pass->count = 0;
}

/* ---- Rate ---- */

struct turn { /* to undo it */
    uint64_t before, mine;
};

static bool take_turn(struct place *place, uint64_t spacing_us, uint64_t now_us, struct turn *t)
{
    t->before = atomic_load(&place->last_us);
    do {
        if (spacing_us && t->before != 0 && now_us < t->before + spacing_us)
            return false;
        t->mine = now_us > t->before ? now_us : t->before; /* workers' clocks differ a little */
    } while (!atomic_compare_exchange_weak(&place->last_us, &t->before, t->mine));
    return true;
}

static void undo_turn(struct place *place, struct turn *t)
{
    uint64_t mine = t->mine;
    atomic_compare_exchange_strong(&place->last_us, &mine, t->before);
}

static bool take_turns(struct place *const *places, unsigned count, const struct probe_limits *l,
                       int64_t now_us, unsigned *breaker)
{
    struct turn turns[MAX_BREAKERS];
    for (unsigned i = 0; i < count; i++) {
        if (take_turn(places[i], l->spacing_us, (uint64_t)now_us, &turns[i]))
            continue;
        *breaker = i;
        while (i > 0) {
            i--;
            undo_turn(places[i], &turns[i]);
        }
        return false;
    }
    return true;
}

/* Leases come first: a turn spent on one who then finds no place would be lost. */
enum half_open_bound probe_admit(struct probes *p, const struct probe_limits *l,
                                 const uint32_t *breakers, unsigned count, int64_t now_us,
                                 struct probe_pass *pass, unsigned *breaker)
{
    struct place *places[MAX_BREAKERS];
    pass->count = 0;
    for (unsigned i = 0; i < count; i++)
        places[i] = place_of(p, breakers[i]);
    for (unsigned i = 0; i < count; i++) {
        if (take_lease(places[i], l, now_us / 1000, &pass->leases[pass->count])) {
            pass->count++;
        } else if (l->concurrent) {
            probe_release(pass);
            *breaker = i;
            return BOUND_CONCURRENT;
        }
    }
    if (!take_turns(places, count, l, now_us, breaker)) {
        probe_release(pass);
        return BOUND_PER_SECOND;
    }
    return BOUND_NONE;
}
