#include "base/log_ring.h"

#include "base/base.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_LINE 64

/* In front of each line.  Lines start at multiples of its size, so it never wraps. */
struct line_head {
    uint32_t len;
    uint32_t tag;
};

struct log_ring {
    alignas(CACHE_LINE) _Atomic uint64_t pushed; /* bytes ever, by the producer */
    uint64_t popped_seen;
    alignas(CACHE_LINE) _Atomic uint64_t popped; /* bytes ever, by the consumer */
    alignas(CACHE_LINE) char *bytes;             /* LOG_RING_BYTES */
};

struct log_ring *log_ring_new(void)
{
    struct log_ring *r = aligned_alloc(CACHE_LINE, sizeof(*r));

    if (r == NULL)
        abort();
    memset(r, 0, sizeof(*r));
    r->bytes = xcalloc(1, LOG_RING_BYTES); /* large enough to come as untouched pages */
    return r;
}

void log_ring_free(struct log_ring *r)
{
    if (r == NULL)
        return;
    free(r->bytes);
    free(r);
}

static size_t footprint(size_t len)
{
    size_t unit = sizeof(struct line_head);

    return unit + (len + unit - 1) / unit * unit;
}

static void copy_in(struct log_ring *r, uint64_t position, const char *from, size_t len)
{
    size_t at = position % LOG_RING_BYTES;
    size_t first = len < LOG_RING_BYTES - at ? len : LOG_RING_BYTES - at;

    memcpy(r->bytes + at, from, first);
    memcpy(r->bytes, from + first, len - first);
}

static void copy_out(const struct log_ring *r, uint64_t position, char *to, size_t len)
{
    size_t at = position % LOG_RING_BYTES;
    size_t first = len < LOG_RING_BYTES - at ? len : LOG_RING_BYTES - at;

    memcpy(to, r->bytes + at, first);
    memcpy(to + first, r->bytes, len - first);
}

bool log_ring_push(struct log_ring *r, unsigned tag, const char *line, size_t len, bool *half_full)
{
    uint64_t pushed = atomic_load_explicit(&r->pushed, memory_order_relaxed);
    struct line_head head = { .len = (uint32_t)len + 1, .tag = tag };
    size_t size = footprint(len + 1);
    const uint64_t half = LOG_RING_BYTES / 2;

    *half_full = false;
    if (len > LOG_RING_MAX_LINE)
        return false;
    if (pushed + size - r->popped_seen > half) {
        /* Full, or about to pass the half: look where the consumer really is. */
        uint64_t before = pushed - atomic_load_explicit(&r->popped, memory_order_acquire);
        r->popped_seen = pushed - before;
        if (before + size > LOG_RING_BYTES)
            return false;
        *half_full = before <= half && before + size > half;
    }
    copy_in(r, pushed, (const char *)&head, sizeof(head));
    copy_in(r, pushed + sizeof(head), line, len);
    r->bytes[(pushed + sizeof(head) + len) % LOG_RING_BYTES] = '\n';
    /* Sequentially consistent: the producer looks next whether the consumer sleeps, and the
     * consumer looks here after it has said so.  One of them sees the other. */
    atomic_store(&r->pushed, pushed + size);
    return true;
}

static struct line_head head_at(const struct log_ring *r, uint64_t position)
{
    struct line_head head;

    copy_out(r, position, (char *)&head, sizeof(head));
    return head;
}

bool log_ring_peek(struct log_ring *r, unsigned *tag, size_t *len)
{
    uint64_t popped = atomic_load_explicit(&r->popped, memory_order_relaxed);

    if (popped == atomic_load(&r->pushed))
        return false;
    struct line_head head = head_at(r, popped);
    *tag = head.tag;
    *len = head.len;
    return true;
}

void log_ring_take(struct log_ring *r, char *out)
{
    uint64_t popped = atomic_load_explicit(&r->popped, memory_order_relaxed);
    struct line_head head = head_at(r, popped);

    if (out != NULL)
        copy_out(r, popped + sizeof(head), out, head.len);
    atomic_store_explicit(&r->popped, popped + footprint(head.len), memory_order_release);
}
