#include "proxy/downstream.h"
#include "base/base.h"
#include "base/clock.h"
#include "proxy/exchange.h"
#include "proxy/listener.h"
#include "proxy/proxy.h"
#include "proxy/request.h"
#include "proxy/snapshot.h"
#include "proxy/transparent.h"
#include "proxy/tunnel.h"
#include <stdlib.h>

#define SMALL_HEAD_BYTES 2048
#define TURNED_AWAY_MS   10000 /* if client_header is off */

static void read_head(struct downstream *d);

static const struct config *config_of(const struct downstream *d)
{
    return d->c.w->snap->cfg;
}

/* ---- Life ---- */

static void on_ready(struct conn *c);
static void on_deadline(struct conn *c);

static void downstream_free(struct conn *c)
{
    struct downstream *d = CONTAINER(c, struct downstream, c);
    if (d->inner)
        probe_release(&d->inner->pass);
    free(d->inner);
    free(d->original);
    free(d->hello);
    free(d);
}

static const struct conn_ops downstream_ops = {
    .on_ready = on_ready,
    .on_deadline = on_deadline,
    .free = downstream_free,
};

static void idle_deadline(struct downstream *d)
{
    int64_t idle_ms = config_of(d)->timeouts.client_idle_ms;
    conn_set_deadline(&d->c, idle_ms == OFF ? CONN_NO_DEADLINE : worker_now_ms(d->c.w) + idle_ms);
}

void downstream_new(struct worker *w, int fd, const struct address *client,
                    const struct address *original, enum turned_away turned_away,
                    uint32_t client_slot)
{
    struct downstream *d = xcalloc(1, sizeof(*d));
    conn_init(&d->c, w, fd, &downstream_ops, false);
    d->c.urgent = true;
    list_init(&d->parked);
    d->client = *client;
    d->turned_away = (uint8_t)turned_away;
    d->client_slot = client_slot;
    list_add_tail(&w->downstreams, &d->link);
    if (original)
        COUNT(w->c.client_connections_total_transparent);
    else
        COUNT(w->c.client_connections_total_http);
    d->mode = original ? TRAFFIC_TRANSPARENT : TRAFFIC_HTTP;
    COUNT(w->c.client_connections[d->mode]);
    idle_deadline(d);
    /* Whoever is only to be told off does not stay for long without asking. */
    int64_t header_ms = config_of(d)->timeouts.client_header_ms;
    if (turned_away != TURNED_AWAY_NO)
        conn_set_deadline(&d->c,
                          worker_now_ms(w) + (header_ms == OFF ? TURNED_AWAY_MS : header_ms));
    if (original) {
        d->original = xmalloc(sizeof(*original));
        *d->original = *original;
        d->undecided = true;
        conn_set_deadline(&d->c, worker_now_ms(w) + TUNNEL_SNIFF_MS);
    }
    /* Clients speak first: their bytes are usually here already. */
    d->c.readable = d->c.writable = true;
    on_ready(&d->c);
}

static void let_go(struct downstream *d)
{
    struct worker *w = d->c.w;
    while (!list_empty(&d->parked)) {
        struct upstream *up = CONTAINER(d->parked.next, struct upstream, parked_link);
        list_remove(&up->parked_link);
        up->owner = NULL;
        if (!up->ex)
            upstream_close(up);
    }
    list_remove(&d->link);
    count_sub(&w->c.client_connections[d->mode], 1);
    listener_client_gone(w, d->client_slot, d->turned_away != TURNED_AWAY_NO);
}

void downstream_connected(struct downstream *d)
{
    struct worker *w = d->c.w;
    if (d->original)
        return;
    count_sub(&w->c.client_connections[d->mode], 1);
    d->mode = TRAFFIC_CONNECT;
    COUNT(w->c.client_connections[d->mode]);
}

void downstream_close(struct downstream *d)
{
    if (d->c.dead)
        return;
    if (d->ex) {
        exchange_abort(d->ex); /* comes back here when it has ended */
        return;
    }
    let_go(d);
    conn_close(&d->c);
}

void downstream_reset(struct downstream *d)
{
    if (d->c.dead)
        return;
    if (BUG(d->ex != NULL))
        return;
    let_go(d);
    conn_reset(&d->c);
}

/* ---- Lingering ---- */

static void linger_read(struct downstream *d)
{
    for (;;) {
        size_t got;
        enum io_result io = conn_read(&d->c, BLOCK_SIZE, &got);
        conn_drop_in(&d->c);
        if (io == IO_AGAIN || io == IO_YIELD || io == IO_STARVED)
            return;
        d->linger_left -= got < d->linger_left ? got : d->linger_left;
        /* Closing on what it still sends would take along what it has yet to get. */
        if (io != IO_OK || (d->linger_left == 0 && conn_unsent_bytes(&d->c) == 0)) {
            downstream_close(d);
            return;
        }
    }
}

static void linger_begin(struct downstream *d)
{
    d->lingering = true;
    d->linger_left = LINGER_BYTES;
    conn_drop_in(&d->c);
    conn_shutdown_write(&d->c);
    conn_set_deadline(&d->c, worker_now_ms(d->c.w) + LINGER_MS);
    linger_read(d);
}

void downstream_exchange_done(struct downstream *d, bool keep, bool linger)
{
    d->ex = NULL;
    d->scanned = 0;
    d->empty_lines = 0;
    d->head_timed = false;
    d->c.urgent = true;
    if (d->c.dead)
        return;
    if (!keep || d->c.error || d->c.write_error) {
        if (linger && !d->c.eof && !d->c.error)
            linger_begin(d);
        else
            downstream_close(d);
        return;
    }
    idle_deadline(d);
    conn_release_empty(&d->c);
    /* What was pipelined is served on the next turn: no recursion, and others get theirs. */
    if (d->c.in || d->c.readable || d->c.eof)
        conn_run_again(&d->c);
}

/* ---- Reading a head ---- */

static void skip_empty_lines(struct downstream *d)
{
    struct block *in = d->c.in;
    while (d->scanned == 0 && block_len(in) >= 2 && d->empty_lines < EMPTY_LINES_MAX &&
           memcmp(block_bytes(in), "\r\n", 2) == 0) {
        in->start += 2;
        d->empty_lines++;
    }
}

/* The start of a head waits in little memory: many may never be finished. */
static void shrink_head(struct downstream *d)
{
    struct block *in = d->c.in;
    if (!in || in->cap < BLOCK_BYTES || block_len(in) > SMALL_HEAD_BYTES / 2)
        return;
    struct block *small = block_get_outsized_urgent(&d->c.w->blocks, SMALL_HEAD_BYTES);
    block_add(small, block_bytes(in), block_len(in));
    conn_drop_in(&d->c);
    d->c.in = small;
}

static void replace_head(struct downstream *d, struct block *larger)
{
    block_add(larger, block_bytes(d->c.in), block_len(d->c.in));
    conn_drop_in(&d->c);
    d->c.in = larger;
}

enum head_room { HEAD_ROOM, HEAD_LARGE, HEAD_NO_MEMORY };

/* Makes room for the rest of a head. */
static enum head_room head_room(struct downstream *d, size_t limit)
{
    struct block *in = d->c.in;
    if (block_len(in) >= limit)
        return HEAD_LARGE;
    if (block_space(in) > BLOCK_TAILROOM)
        return HEAD_ROOM;
    if (in->start > BLOCK_HEADROOM) {
        block_compact(in);
        return HEAD_ROOM;
    }
    struct block *larger = in->cap < BLOCK_BYTES
                               ? block_get_urgent(&d->c.w->blocks)
                               : block_get_outsized(&d->c.w->blocks, (uint32_t)limit);
    if (!larger) {
        COUNT(d->c.w->c.limit_buffered_total);
        return HEAD_NO_MEMORY;
    }
    replace_head(d, larger);
    return HEAD_ROOM;
}

bool downstream_make_room(struct downstream *d, size_t limit)
{
    return head_room(d, limit) == HEAD_ROOM;
}

static void head_failed(struct downstream *d, enum http1_error err)
{
    struct worker *w = d->c.w;
    if (err == HTTP1_HEAD_TOO_LARGE || err == HTTP1_TOO_MANY_FIELDS || err == HTTP1_URI_TOO_LONG) {
        COUNT(w->c.limit_headers);
        COUNT(w->c.client_errors_header_too_large);
    } else {
        COUNT(w->c.client_errors_bad_request);
    }
    request_begin_bad(d, http1_error_status(err), PERR_HTTP_REQUEST_ERROR, http1_error_text(err));
}

/* A target that fills the whole allowance is too long; otherwise the fields are. */
static enum http1_error too_large(const struct downstream *d)
{
    const struct block *in = d->c.in;
    bool first_line = memchr(in->data + in->start, '\n', block_len(in)) == NULL;
    return first_line ? HTTP1_URI_TOO_LONG : HTTP1_HEAD_TOO_LARGE;
}

/* True if a head was complete (served or refused). */
static bool take_head(struct downstream *d)
{
    const struct config *cfg = config_of(d);
    struct block *in = d->c.in;
    size_t end;
    skip_empty_lines(d);
    const char *data = (const char *)block_bytes(in);
    int found = http1_find_end(data, block_len(in), &d->scanned, &end);
    if (found < 0) {
        head_failed(d, HTTP1_BAD_LINE_END);
        return true;
    }
    size_t limit = (size_t)cfg->limits.header_bytes;
    if (found == 0) {
        switch (block_len(in) > 0 ? head_room(d, limit) : HEAD_ROOM) {
        case HEAD_ROOM:
            return false;
        case HEAD_LARGE:
            head_failed(d, too_large(d));
            return true;
        case HEAD_NO_MEMORY:
            request_begin_bad(d, 503, PERR_CONNECTION_LIMIT_REACHED,
                              "limits.buffered_total is reached");
            return true;
        }
    }
    if (end > limit) {
        head_failed(d, HTTP1_HEAD_TOO_LARGE);
        return true;
    }
    static _Thread_local struct http1_head head;
    enum http1_error err = http1_parse_request(&head, data, end, (size_t)cfg->limits.header_fields);
    if (err)
        head_failed(d, err);
    else
        request_begin(d, &head, end);
    return true;
}

/* The head as a whole has client_header; the time runs from its first byte. */
static void head_deadline(struct downstream *d)
{
    int64_t limit_ms = config_of(d)->timeouts.client_header_ms;
    if (d->head_timed || limit_ms == OFF)
        return;
    d->head_timed = true;
    conn_set_deadline(&d->c, worker_now_ms(d->c.w) + limit_ms);
}

void downstream_await_head(struct downstream *d)
{
    if (!d->head_timed)
        idle_deadline(d); /* if client_header is off */
    head_deadline(d);
}

static void read_head(struct downstream *d)
{
    while (!d->ex && !d->c.dead && !d->lingering) {
        if (d->c.in && block_len(d->c.in) > 0) {
            if (take_head(d))
                continue;
            if (block_len(d->c.in) > 0)
                head_deadline(d);
        }
        size_t got;
        enum io_result io = conn_read(&d->c, BLOCK_SIZE, &got);
        if (io == IO_EOF || io == IO_ERROR) {
            if (d->c.in && block_len(d->c.in) > 0)
                COUNT(d->c.w->c.client_errors_aborted);
            downstream_close(d);
            return;
        }
        if (io != IO_OK) {
            conn_release_empty(&d->c);
            shrink_head(d);
            return;
        }
    }
}

static void decide(struct downstream *d, bool waited_long_enough)
{
    transparent_decide(d, waited_long_enough);
    if (d->c.dead || d->ex)
        return;
    if (d->undecided) {
        shrink_head(d);
        return;
    }
    if (!d->head_timed)
        idle_deadline(d);
    read_head(d);
}

static void on_ready(struct conn *c)
{
    struct downstream *d = CONTAINER(c, struct downstream, c);
    if (d->ex)
        exchange_on_downstream(d->ex);
    else if (d->lingering)
        linger_read(d);
    else if (d->undecided)
        decide(d, false);
    else
        read_head(d);
}

static void on_deadline(struct conn *c)
{
    struct downstream *d = CONTAINER(c, struct downstream, c);
    if (d->ex) {
        exchange_on_deadline(d->ex);
        return;
    }
    if (d->undecided) {
        decide(d, true);
        return;
    }
    if (!d->lingering && c->in && block_len(c->in) > 0) {
        COUNT(c->w->c.client_errors_timeout);
        request_begin_bad(d, 408, PERR_HTTP_REQUEST_ERROR,
                          "the request head did not arrive within timeouts.client_header");
        return;
    }
    downstream_close(d);
}
