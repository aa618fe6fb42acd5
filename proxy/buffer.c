#include "proxy/buffer.h"
#include "base/base.h"
#include <stdlib.h>
#include <string.h>

/* More than this many idle blocks per worker go back to the allocator at once. */
#define FREE_BLOCKS_MAX 256

void block_pool_init(struct block_pool *p, size_t limit_bytes)
{
    *p = (struct block_pool){ .limit = limit_bytes };
}

void block_pool_trim(struct block_pool *p, size_t keep)
{
    while (p->free_count > keep) {
        struct block *b = p->free;
        p->free = b->next;
        p->free_count--;
        free(b);
    }
}

static void block_reset(struct block *b)
{
    b->next = NULL;
    b->start = b->end = BLOCK_HEADROOM;
    b->pinned = false;
}

struct block *block_get(struct block_pool *p)
{
    return p->in_use + BLOCK_SIZE > p->limit - p->limit / 4 ? NULL : block_get_urgent(p);
}

struct block *block_get_reserved(struct block_pool *p)
{
    return p->in_use + BLOCK_SIZE > p->limit ? NULL : block_get_urgent(p);
}

struct block *block_get_urgent(struct block_pool *p)
{
    struct block *b = p->free;
    if (b) {
        p->free = b->next;
        p->free_count--;
    } else {
        b = xmalloc(BLOCK_SIZE);
        b->cap = BLOCK_BYTES;
    }
    p->in_use += BLOCK_SIZE;
    block_reset(b);
    return b;
}

static size_t outsized_bytes(uint32_t cap)
{
    return sizeof(struct block) + BLOCK_HEADROOM + (size_t)cap + BLOCK_TAILROOM;
}

struct block *block_get_outsized(struct block_pool *p, uint32_t cap)
{
    return p->in_use + outsized_bytes(cap) > p->limit ? NULL : block_get_outsized_urgent(p, cap);
}

struct block *block_get_outsized_urgent(struct block_pool *p, uint32_t cap)
{
    size_t bytes = outsized_bytes(cap);
    struct block *b = xmalloc(bytes);
    b->cap = (uint32_t)(bytes - sizeof(*b));
    p->in_use += bytes;
    block_reset(b);
    return b;
}

void block_put(struct block_pool *p, struct block *b)
{
    if (!b)
        return;
    if (b->cap != BLOCK_BYTES) {
        p->in_use -= sizeof(*b) + b->cap;
        free(b);
        return;
    }
    p->in_use -= BLOCK_SIZE;
    if (p->free_count >= FREE_BLOCKS_MAX) {
        free(b);
        return;
    }
    b->next = p->free;
    p->free = b;
    p->free_count++;
}

void block_add(struct block *b, const void *data, size_t len)
{
    if (BUG(len > block_space(b)))
        return;
    memcpy(b->data + b->end, data, len);
    b->end += (uint32_t)len;
}

void block_compact(struct block *b)
{
    uint32_t len = block_len(b);
    memmove(b->data + BLOCK_HEADROOM, b->data + b->start, len);
    b->start = BLOCK_HEADROOM;
    b->end = BLOCK_HEADROOM + len;
}
