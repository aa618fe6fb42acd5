#include "sync/queue.h"
#include "base/base.h"
#include <stdlib.h>
#include <string.h>

struct header {
    int64_t at_ms;
    uint32_t len;
    bool urgent;
};

#define BLOCK_BYTES (64 * 1024 - 4 * sizeof(void *))

struct queue_block {
    struct queue_block *next;
    size_t read;
    size_t used;
    char bytes[BLOCK_BYTES]; /* header and text, again and again, unaligned */
};

_Static_assert(QUEUE_SAMPLE_MAX + sizeof(struct header) <= BLOCK_BYTES, "one sample fits a block");

static struct queue_block *block_with_room(struct queue *q, size_t need)
{
    if (q->last && BLOCK_BYTES - q->last->used >= need)
        return q->last;
    struct queue_block *b = xmalloc(sizeof(*b));
    b->next = NULL;
    b->read = 0;
    b->used = 0;
    if (q->last)
        q->last->next = b;
    else
        q->first = b;
    q->last = b;
    return b;
}

bool queue_push(struct queue *q, const char *text, size_t len, int64_t now_ms, bool urgent)
{
    if (BUG(len > QUEUE_SAMPLE_MAX))
        return false;
    const struct header h = { .at_ms = now_ms, .len = (uint32_t)len, .urgent = urgent };
    struct queue_block *b = block_with_room(q, sizeof(h) + len);
    memcpy(b->bytes + b->used, &h, sizeof(h));
    memcpy(b->bytes + b->used + sizeof(h), text, len);
    b->used += sizeof(h) + len;
    q->count++;
    q->urgent += urgent;
    return true;
}

bool queue_peek(const struct queue *q, struct queue_sample *out)
{
    if (q->count == 0)
        return false;
    struct header h;
    const struct queue_block *b = q->first;
    memcpy(&h, b->bytes + b->read, sizeof(h));
    *out = (struct queue_sample){
        .text = b->bytes + b->read + sizeof(h),
        .len = h.len,
        .at_ms = h.at_ms,
        .urgent = h.urgent,
    };
    return true;
}

void queue_pop(struct queue *q)
{
    struct queue_sample s;
    if (!queue_peek(q, &s))
        return;
    struct queue_block *b = q->first;
    b->read += sizeof(struct header) + s.len;
    q->count--;
    q->urgent -= s.urgent;
    if (b->read < b->used)
        return;
    q->first = b->next;
    if (!q->first)
        q->last = NULL;
    free(b);
}

void queue_clear(struct queue *q)
{
    while (q->first) {
        struct queue_block *b = q->first;
        q->first = b->next;
        free(b);
    }
    *q = (struct queue){ 0 };
}
