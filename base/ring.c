#include "base/ring.h"

#include "base/base.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_LINE 64

/* Each side writes its own cache line and keeps a copy of where the other side was. */
struct ring {
    alignas(CACHE_LINE) _Atomic uint64_t pushed; /* producer */
    uint64_t popped_seen;
    alignas(CACHE_LINE) _Atomic uint64_t popped; /* consumer */
    uint64_t pushed_seen;
    alignas(CACHE_LINE) char *records; /* read by both, never changed */
    size_t record_size;
    uint32_t mask;
};

struct ring *ring_new(size_t record_size, uint32_t capacity)
{
    if (BUG(capacity == 0 || (capacity & (capacity - 1)) != 0))
        abort(); /* a constant of ours is wrong: nothing to go on with */

    struct ring *r = aligned_alloc(CACHE_LINE, sizeof(*r));
    if (r == NULL)
        abort();
    memset(r, 0, sizeof(*r));
    r->records = xcalloc(capacity, record_size); /* fresh pages: the kernel fills them on use */
    r->record_size = record_size;
    r->mask = capacity - 1;
    return r;
}

void ring_free(struct ring *r)
{
    if (r == NULL)
        return;
    free(r->records);
    free(r);
}

static char *record_at(const struct ring *r, uint64_t position)
{
    return r->records + (position & r->mask) * r->record_size;
}

bool ring_push(struct ring *r, const void *record, bool *was_empty)
{
    uint64_t pushed = atomic_load_explicit(&r->pushed, memory_order_relaxed);

    if (pushed - r->popped_seen > r->mask) {
        r->popped_seen = atomic_load_explicit(&r->popped, memory_order_acquire);
        if (pushed - r->popped_seen > r->mask)
            return false;
    }
    memcpy(record_at(r, pushed), record, r->record_size);
    if (was_empty == NULL) {
        atomic_store_explicit(&r->pushed, pushed + 1, memory_order_release);
        return true;
    }
    /*
     * Publish first, look at the consumer after: either it finds this record before it
     * reports "empty", or we see here that it had taken all the others.  Sequential
     * consistency on both sides (see ring_pop) is what excludes the third case.
     */
    atomic_store(&r->pushed, pushed + 1);
    r->popped_seen = atomic_load(&r->popped);
    *was_empty = r->popped_seen >= pushed;
    return true;
}

bool ring_pop(struct ring *r, void *record)
{
    uint64_t popped = atomic_load_explicit(&r->popped, memory_order_relaxed);

    if (popped == r->pushed_seen) {
        r->pushed_seen = atomic_load_explicit(&r->pushed, memory_order_acquire);
        if (popped == r->pushed_seen) {
            /* About to say "empty": make our position visible before the last look. */
            atomic_fetch_add(&r->popped, 0);
            r->pushed_seen = atomic_load(&r->pushed);
            if (popped == r->pushed_seen)
                return false;
        }
    }
    memcpy(record, record_at(r, popped), r->record_size);
    atomic_store_explicit(&r->popped, popped + 1, memory_order_release);
    return true;
}

uint64_t ring_pushed(const struct ring *r)
{
    return atomic_load_explicit(&r->pushed, memory_order_acquire);
}

uint64_t ring_popped(const struct ring *r)
{
    return atomic_load_explicit(&r->popped, memory_order_acquire);
}
