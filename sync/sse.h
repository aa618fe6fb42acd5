/*
 * sse.h - server-sent events out of bytes that arrive in any pieces.
 *
 * Follows the event stream grammar of the HTML standard (9.2.5, 9.2.6): LF, CR and
 * CRLF end a line, a byte order mark at the start is skipped, an event that the end
 * of the stream cuts short is dropped.  `id` and `retry` are ignored.  Pure; one
 * buffer is allocated at the start, none per event.
 */
#ifndef SYNC_SSE_H
#define SYNC_SSE_H
#include <stddef.h>

#define SSE_EVENT_MAX (64 * 1024) /* bytes of all field lines of one event */
#define SSE_NAME_MAX  64          /* a longer name is cut: no name we know is that long */

enum sse_kind {
    SSE_EVENT,    /* a complete event with data */
    SSE_COMMENT,  /* a line that starts with a colon: the server is alive */
    SSE_TOO_LONG, /* an event beyond SSE_EVENT_MAX, skipped to its end */
};

/* Valid only during the call. */
struct sse_event {
    enum sse_kind kind;
    const char *name; /* "" when the event has none; NUL-terminated */
    const char *data; /* lines joined by LF; NUL-terminated, may hold NULs itself */
    size_t data_len;
};

typedef void (*sse_handler)(void *arg, const struct sse_event *event);

struct sse; /* opaque, one per stream */

struct sse *sse_new(sse_handler handler, void *arg);
void sse_free(struct sse *p);  /* NULL is fine */
void sse_reset(struct sse *p); /* a new stream begins */
/* Calls the handler once per event and comment, in order.  The handler must not feed,
 * reset or free p. */
void sse_feed(struct sse *p, const char *bytes, size_t len);

#endif
