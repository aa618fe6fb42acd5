/*
 * relay.h - move the bytes of a body from one connection to the other.
 *
 * Blocks travel from the reader to the writer; what is queued for the writer is bounded
 * by limits.buffer, and a writer that stops stops the reader.
 */
#ifndef PROXY_RELAY_H
#define PROXY_RELAY_H
#include "proxy/conn.h"
#include "proxy/http1.h"
#include <stddef.h>
#include <stdint.h>

enum relay_result {
    RELAY_DONE,        /* the message has been read to its end and queued */
    RELAY_WAIT_SOURCE, /* nothing more to read now */
    RELAY_WAIT_SINK,   /* the writer's buffer is full */
    RELAY_YIELD,       /* turn used up, or no block free: on_ready will come */
    RELAY_SOURCE_EOF,  /* ended before the message did (or: ended it, FRAMING_CLOSE) */
    RELAY_SOURCE_ERROR,
    RELAY_SINK_ERROR,
    RELAY_MALFORMED, /* framing */
};

struct relay {
    struct conn *from, *to; /* to NULL: discard */
    struct http1_body *body;
    bool chunked_out;
    size_t buffer_limit;
    /* Sees each run of payload just before it is passed on, and may neither change, keep nor
     * delay it; NULL: nobody. */
    void (*observe)(void *observer, const uint8_t *bytes, size_t len);
    void *observer;
    size_t budget;  /* discard at most so many bytes; SIZE_MAX otherwise */
    uint64_t moved; /* out: payload bytes */
    bool read_any;  /* out: at least one byte came from the source */
    bool wrote_any; /* out: the sink took at least one byte */
};

enum relay_result relay_body(struct relay *r);

#endif
