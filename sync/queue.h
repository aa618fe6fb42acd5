/*
 * queue.h - samples that wait for a batch, oldest first.
 *
 * Texts lie one behind the other in blocks of 64 KiB, so that taking in ten thousand
 * a second costs few allocations and an empty queue holds none.  The queue has no
 * bound of its own: its owner drops the oldest.  Pure.
 */
#ifndef SYNC_QUEUE_H
#define SYNC_QUEUE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct queue_block;

struct queue {                 /* zero is empty */
    struct queue_block *first; /* owned; read from here */
    struct queue_block *last;  /* written here */
    size_t count;
    size_t urgent; /* how many of them are */
};

struct queue_sample {
    const char *text; /* borrowed until the next call on the queue */
    size_t len;
    int64_t at_ms; /* when it was pushed, monotonic */
    bool urgent;
};

/* len is at most QUEUE_SAMPLE_MAX; a longer one is a bug of ours and is refused. */
#define QUEUE_SAMPLE_MAX (60 * 1024)
bool queue_push(struct queue *q, const char *text, size_t len, int64_t now_ms, bool urgent);
/* False: empty. */
bool queue_peek(const struct queue *q, struct queue_sample *out);
void queue_pop(struct queue *q); /* the one that queue_peek shows */
void queue_clear(struct queue *q);

#endif
