/*
 * buffer.h - blocks of 16 KiB from a free list, one list per worker.
 *
 * A block is taken at the first byte and given back when it is empty, so an idle
 * connection holds none.  Blocks travel: what was read from one side is written to
 * the other from the same memory.  A read leaves room before and behind the payload
 * for chunk framing.
 */
#ifndef PROXY_BUFFER_H
#define PROXY_BUFFER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK_SIZE     16384
#define BLOCK_HEADROOM 16 /* "ffffffff\r\n" */
#define BLOCK_TAILROOM 16 /* "\r\n" and the last chunk "0\r\n\r\n" */

struct block {
    struct block *next;
    uint32_t start; /* first unread byte */
    uint32_t end;   /* one behind the last byte */
    uint32_t cap;   /* bytes in data; above BLOCK_BYTES: an outsized head, never pooled */
    bool pinned;    /* the exchange keeps it for a replay: writing it does not give it back */
    uint8_t data[];
};

#define BLOCK_BYTES (BLOCK_SIZE - (uint32_t)sizeof(struct block))

struct block_pool {
    struct block *free;
    size_t free_count;
    size_t in_use; /* bytes, outsized ones included */
    size_t limit;  /* bytes: this worker's share of limits.buffered_total */
};

void block_pool_init(struct block_pool *p, size_t limit_bytes);
void block_pool_trim(struct block_pool *p, size_t keep); /* frees all but keep idle blocks */

/* For bodies, which leave a quarter of the limit to heads.  NULL: no more; the caller waits. */
struct block *block_get(struct block_pool *p);
/* For heads, so that readers who stall cannot keep others from being served.  NULL: the limit
 * is reached; the caller sheds. */
struct block *block_get_reserved(struct block_pool *p);
/* Past the limit too: for what must not fail.  Never NULL; at most one per connection. */
struct block *block_get_urgent(struct block_pool *p);
/* For heads longer than a block; never NULL below the limit, cap counts the payload. */
struct block *block_get_outsized(struct block_pool *p, uint32_t cap);
struct block *block_get_outsized_urgent(struct block_pool *p, uint32_t cap);
void block_put(struct block_pool *p, struct block *b); /* NULL is fine */

static inline uint32_t block_len(const struct block *b)
{
    return b->end - b->start;
}
static inline uint32_t block_space(const struct block *b)
{
    return b->cap - b->end;
}
static inline uint8_t *block_bytes(struct block *b)
{
    return b->data + b->start;
}
/* Appends; the caller has checked block_space. */
void block_add(struct block *b, const void *data, size_t len);
/* Moves the payload to the front (behind the headroom) to make room. */
void block_compact(struct block *b);

#endif
