#include "proxy/relay.h"
#include "base/base.h"
#include <stdio.h>

/* "<hex>\r\n" in the room before the payload, "\r\n" behind it: no byte is moved. */
static void add_chunk_framing(struct block *b)
{
    char line[BLOCK_HEADROOM + 1];
    int n = snprintf(line, sizeof(line), "%x\r\n", block_len(b));
    if (BUG(b->start < (uint32_t)n || block_space(b) < 2))
        return;
    b->start -= (uint32_t)n;
    memcpy(b->data + b->start, line, (size_t)n);
    block_add(b, "\r\n", 2);
}

/* The last chunk with the trailer section, which is checked also where it is not passed on. */
static enum http1_error add_last_chunk(struct relay *r)
{
    char trailers[HTTP1_TRAILER_MAX];
    size_t len = 0;
    enum http1_error err = http1_body_trailers(r->body, trailers, &len);
    if (err || !r->to || !r->chunked_out)
        return err;
    conn_enqueue_bytes(r->to, "0\r\n", 3);
    conn_enqueue_bytes(r->to, trailers, len);
    conn_enqueue_bytes(r->to, "\r\n", 2);
    return HTTP1_OK;
}

/* Hands the payload at the front of the source's block over to the sink. */
static void pass_on(struct relay *r, size_t used, size_t payload)
{
    struct conn *from = r->from;
    struct block *in = from->in;
    if (!r->to || payload == 0) {
        in->start += (uint32_t)used;
        conn_release_empty(from);
        return;
    }
    if (used == block_len(in) && in->start >= BLOCK_HEADROOM) {
        from->in = NULL;
        in->end = in->start + (uint32_t)payload;
        if (r->chunked_out)
            add_chunk_framing(in);
        conn_enqueue(r->to, in);
        return;
    }
    /* The next message follows in the same block: copy, and leave that where it is. */
    char line[BLOCK_HEADROOM + 1];
    if (r->chunked_out)
        conn_enqueue_bytes(r->to, line, (size_t)snprintf(line, sizeof(line), "%zx\r\n", payload));
    conn_enqueue_bytes(r->to, block_bytes(in), payload);
    if (r->chunked_out)
        conn_enqueue_bytes(r->to, "\r\n", 2);
    in->start += (uint32_t)used;
}

/* Consumes what the source's block holds. */
static enum relay_result consume(struct relay *r)
{
    struct block *in = r->from->in;
    size_t used, payload;
    if (http1_body_decode(r->body, block_bytes(in), block_len(in), &used, &payload))
        return RELAY_MALFORMED;
    r->moved += payload;
    if (r->observe && payload > 0)
        r->observe(r->observer, block_bytes(in), payload);
    r->budget -= used < r->budget ? used : r->budget;
    pass_on(r, used, payload);
    if (!r->body->done)
        return RELAY_WAIT_SOURCE;
    if (r->body->framing == FRAMING_CHUNKED && add_last_chunk(r))
        return RELAY_MALFORMED;
    return RELAY_DONE;
}

static enum relay_result flush(struct relay *r)
{
    if (!r->to || r->to->out_bytes == 0)
        return RELAY_DONE;
    size_t before = r->to->out_bytes;
    enum io_result io = conn_flush(r->to);
    r->wrote_any |= r->to->out_bytes < before;
    return io == IO_ERROR ? RELAY_SINK_ERROR : RELAY_DONE;
}

static size_t want(const struct relay *r)
{
    if (r->body->framing == FRAMING_LENGTH && r->body->left < BLOCK_SIZE)
        return (size_t)r->body->left; /* leave the next message in the socket */
    return BLOCK_SIZE;
}

static enum relay_result fill(struct relay *r)
{
    size_t got;
    r->from->moving = !r->to || r->to->out_bytes == 0;
    switch (conn_read(r->from, want(r), &got)) {
    case IO_OK:
        r->read_any = true;
        return consume(r);
    case IO_AGAIN:
        return RELAY_WAIT_SINK; /* meaning: nothing here; the caller maps it */
    case IO_EOF:
        if (r->body->framing == FRAMING_CLOSE)
            r->body->done = true;
        return r->body->done ? RELAY_DONE : RELAY_SOURCE_EOF;
    case IO_ERROR:
        return RELAY_SOURCE_ERROR;
    case IO_STARVED:
    case IO_YIELD:
        break;
    }
    return RELAY_YIELD;
}

enum relay_result relay_body(struct relay *r)
{
    bool drained = false;
    enum relay_result res = RELAY_WAIT_SOURCE;
    while (!drained && res == RELAY_WAIT_SOURCE) {
        if (r->body->done) {
            res = RELAY_DONE;
            break;
        }
        if (r->budget == 0)
            return RELAY_WAIT_SINK;
        if (r->to && r->to->out_bytes >= r->buffer_limit) {
            if (flush(r) == RELAY_SINK_ERROR)
                return RELAY_SINK_ERROR;
            if (r->to->out_bytes >= r->buffer_limit)
                return RELAY_WAIT_SINK;
        }
        if (r->from->in && block_len(r->from->in) > 0) {
            res = consume(r);
            continue;
        }
        res = fill(r);
        drained = res == RELAY_WAIT_SINK;
    }
    if (drained)
        res = RELAY_WAIT_SOURCE;
    if (res == RELAY_DONE)
        conn_settled(r->from);
    if (flush(r) == RELAY_SINK_ERROR)
        return RELAY_SINK_ERROR;
    return res;
}
