/*
 * log_ring.h - one thread's log lines on their way to the log thread.
 *
 * A single-producer single-consumer ring of bytes that holds lines of any length up to
 * LOG_RING_MAX_LINE, each with a tag.  Its pages come from the kernel on first use.
 * Only log.c includes this.
 */
#ifndef BASE_LOG_RING_H
#define BASE_LOG_RING_H
#include <stdbool.h>
#include <stddef.h>

#define LOG_RING_BYTES    (256 * 1024)
#define LOG_RING_MAX_LINE (32 * 1024)

struct log_ring; /* opaque */

struct log_ring *log_ring_new(void);
void log_ring_free(struct log_ring *r); /* NULL is fine */

/* Producer.  Stores the line and a newline.  False: no room (or len above the maximum),
 * nothing stored.  *half_full tells that this line took the ring past its half. */
bool log_ring_push(struct log_ring *r, unsigned tag, const char *line, size_t len, bool *half_full);

/* Consumer.  The oldest line's tag and length, newline included; false: empty. */
bool log_ring_peek(struct log_ring *r, unsigned *tag, size_t *len);
/* Take the line just peeked at; out NULL: throw it away. */
void log_ring_take(struct log_ring *r, char *out);

#endif
