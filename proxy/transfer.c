#include "proxy/transfer.h"
#include "base/base.h"
#include "proxy/answer.h"
#include "proxy/exchange.h"
#include "proxy/judge.h"
#include "proxy/relay.h"
#include "proxy/rewrite.h"
#include "proxy/snapshot.h"
#include "proxy/tunnel.h"
#include "proxy/tunnels.h"

/* ---- The client's side ---- */

void transfer_client_gone(struct exchange *ex, int64_t at_ms)
{
    ex->client_gone = true;
    COUNT(ex->w->c.client_errors_aborted);
    judge_client_gone(ex, at_ms);
    upstream_cancel(ex);
    /* The origin must not take what it got for a whole request (RFC 9112 8). */
    exchange_drop_upstream(ex);
    exchange_finish(ex, RESULT_CLIENT_ABORTED);
}

/* Looks for a client that left while we do not read from it.  False: the exchange is over. */
static bool watch_client(struct exchange *ex)
{
    struct conn *c = &ex->down->c;
    bool uploading = ex->rq == RQ_STREAM && ex->state != EX_CONNECT && !ex->upload_broken;
    if (!(c->hangup || c->readable) || uploading)
        return true; /* nothing new, or the upload will find out how it ends */
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error != 0) {
        transfer_client_gone(ex, worker_now_ms(ex->w));
        return false;
    }
    if (c->hangup && !ex->fin_ms)
        ex->fin_ms = worker_now_ms(ex->w);
    return true;
}

static void wait_for_client(struct exchange *ex, bool waiting)
{
    if (waiting == ex->waiting_client)
        return;
    int64_t now_us = worker_now_us(ex->w);
    if (waiting)
        ex->client_wait_began_us = now_us;
    else
        ex->client_wait_us += now_us - ex->client_wait_began_us;
    ex->waiting_client = waiting;
}

/* ---- The request, upstream ---- */

static void run_clocks(struct exchange *ex, bool took)
{
    if (ex->first_byte_us || !ex->up)
        return;
    int64_t now_ms = worker_now_ms(ex->w);
    bool upstream_owes = ex->up->c.out_bytes > 0 || ex->rq != RQ_STREAM;
    if (!upstream_owes)
        attempt_clock_stop(&ex->attempt);
    else if (took || ex->attempt.clock_ms < 0)
        attempt_clock(&ex->attempt, now_ms);
}

/* False: the exchange is over. */
static bool stream_request(struct exchange *ex)
{
    struct upstream *up = ex->up;
    struct relay r = { .from = &ex->down->c,
                       .to = &up->c,
                       .body = &ex->request_body,
                       .chunked_out = ex->request_body.framing == FRAMING_CHUNKED,
                       .buffer_limit = (size_t)exchange_config(ex)->limits.buffer,
                       .budget = SIZE_MAX };
    enum relay_result res = relay_body(&r);
    ex->request_bytes += r.moved;
    if (r.read_any || r.wrote_any)
        ex->last_move_ms = worker_now_ms(ex->w);
    switch (res) {
    case RELAY_DONE:
        ex->rq = RQ_DONE;
        break;
    case RELAY_WAIT_SOURCE:
    case RELAY_WAIT_SINK:
    case RELAY_YIELD:
        break;
    case RELAY_SOURCE_EOF:
    case RELAY_SOURCE_ERROR:
        transfer_client_gone(ex, worker_now_ms(ex->w));
        return false;
    case RELAY_SINK_ERROR:
        ex->upload_broken = true;
        break;
    case RELAY_MALFORMED:
        COUNT(ex->w->c.client_errors_bad_request);
        judge_client_gone(ex, worker_now_ms(ex->w));
        ex->close_after = true;
        answer_fail(ex, 400, PERR_HTTP_REQUEST_ERROR, http1_error_text(HTTP1_BAD_CHUNK));
        return false;
    }
    if (ex->rs == RS_NONE)
        wait_for_client(ex, res == RELAY_WAIT_SOURCE && up->c.out_bytes == 0 &&
                                !exchange_is_unasked(ex));
    run_clocks(ex, r.wrote_any);
    return true;
}

static bool move_request(struct exchange *ex)
{
    struct upstream *up = ex->up;
    if (!up || ex->upload_broken)
        return true;
    if (ex->rq == RQ_STREAM)
        return stream_request(ex);
    if (up->c.out_bytes == 0)
        return true;
    size_t before = up->c.out_bytes;
    if (conn_flush(&up->c) == IO_ERROR)
        ex->upload_broken = true;
    bool took = up->c.out_bytes < before;
    if (took)
        ex->last_move_ms = worker_now_ms(ex->w);
    if (ex->rs == RS_NONE)
        wait_for_client(ex, false);
    run_clocks(ex, took);
    return true;
}

/* ---- The response ---- */

/* The upstream connection ended before a complete response head. */
static void upstream_died(struct exchange *ex)
{
    if (!ex->upstream_bytes && ex->reused) {
        if (ex->replayable && !ex->replayed) {
            ex->replayed = true;
            COUNT(ex->w->c.retries_stale_connection);
            exchange_drop_upstream(ex);
            ex->upload_broken = false;
            exchange_enter(ex, EX_CONNECT);
            exchange_connect(ex, true);
            return;
        }
        judge_failed(ex, OUTCOME_STALE);
        answer_fail(ex, 502, PERR_CONNECTION_TERMINATED,
                    "the upstream closed a reused connection and the request cannot be repeated");
        return;
    }
    if (upstream_is_loop(ex->up)) {
        judge_failed(ex, OUTCOME_LOCAL);
        answer_fail(ex, 502, PERR_PROXY_LOOP_DETECTED,
                    "the connection to the destination was redirected to this proxy");
        return;
    }
    judge_failed(ex, OUTCOME_RESET);
    if (ex->upstream_bytes)
        answer_fail(ex, 502, PERR_HTTP_RESPONSE_INCOMPLETE,
                    "the upstream closed the connection within the response head");
    else
        answer_fail(ex, 502, PERR_CONNECTION_TERMINATED,
                    "the upstream closed the connection without an answer");
}

static void bad_response(struct exchange *ex, const char *detail)
{
    judge_failed(ex, OUTCOME_PROTOCOL);
    answer_fail(ex, 502, PERR_HTTP_PROTOCOL_ERROR, detail);
}

static void bad_head(struct exchange *ex, enum http1_error err)
{
    if (err == HTTP1_HEAD_TOO_LARGE || err == HTTP1_TOO_MANY_FIELDS)
        COUNT(ex->w->c.limit_headers);
    bad_response(ex, http1_error_text(err));
}

/* Writes a head for the client. */
static void send_head(struct exchange *ex, const struct http1_head *h, size_t head_len,
                      const struct rewrite_response *o)
{
    struct worker *w = ex->w;
    size_t bound = rewrite_bound(h, head_len, o->via, (struct slice){ "", 0 });
    struct block *b = NULL;
    if (bound <= BLOCK_BYTES - BLOCK_HEADROOM)
        b = block_get_urgent(&w->blocks);
    else
        b = block_get_outsized_urgent(&w->blocks, (uint32_t)bound);
    b->end += (uint32_t)rewrite_response(h, o, b->data + b->end, block_space(b));
    conn_enqueue(&ex->down->c, b);
    ex->head_sent = true;
}

static bool pass_interim(struct exchange *ex, const struct http1_head *h, size_t head_len)
{
    if (++ex->interim_count > INTERIM_MAX) {
        COUNT(ex->w->c.limit_interim_responses);
        bad_response(ex, "too many interim responses");
        return false;
    }
    if (!ex->client_http10) {
        bool was_sent = ex->head_sent;
        send_head(ex, h, head_len, &(struct rewrite_response){ .via = exchange_config(ex)->via });
        ex->head_sent = was_sent; /* a final answer of ours may still follow */
        conn_flush(&ex->down->c);
    }
    return true;
}

static void begin_response(struct exchange *ex, const struct http1_head *h, size_t head_len)
{
    judge_head(ex, h);

    http1_body_init(&ex->response_body, h->framing, h->content_length);
    http1_body_note_hops(&ex->response_body, h);
    ex->upstream_reusable = !h->close;
    ex->private_auth |= h->auth_per_connection;
    ex->status = h->status;
    ex->chunked_out = h->framing == FRAMING_CHUNKED && !ex->client_http10;
    bool delimited_by_close =
        h->framing == FRAMING_CLOSE || (h->framing == FRAMING_CHUNKED && ex->client_http10);
    if (delimited_by_close || ex->client_close)
        ex->close_after = true;
    send_head(ex, h, head_len,
              &(struct rewrite_response){ .via = exchange_config(ex)->via,
                                          .chunked = ex->chunked_out,
                                          .close = ex->close_after && !ex->client_http10 });
    exchange_forget_head(ex);
    ex->up->c.urgent = false;
    exchange_enter(ex, EX_RELAY);
    ex->rs = RS_STREAM;
    exchange_watch_pace(ex);
}

/* Room for the rest of a response head; -1: it is larger than limits.header_bytes. */
static int response_head_room(struct exchange *ex)
{
    struct conn *c = &ex->up->c;
    size_t limit = (size_t)exchange_config(ex)->limits.header_bytes;
    if (block_len(c->in) >= limit)
        return -1;
    if (block_space(c->in) > BLOCK_TAILROOM)
        return 0;
    if (c->in->start > BLOCK_HEADROOM) {
        block_compact(c->in);
        return 0;
    }
    struct block *big = block_get_outsized_urgent(&ex->w->blocks, (uint32_t)limit);
    block_add(big, block_bytes(c->in), block_len(c->in));
    conn_drop_in(c);
    c->in = big;
    return 0;
}

enum head_progress { HEAD_MORE, HEAD_TAKEN, HEAD_OVER /* the exchange is over, or starts anew */ };

/* "HTTP/1.1 1": an interim response is no response byte, but for 101; until that much of the
 * line is here nobody knows. */
static bool is_response_byte(const struct block *in)
{
    const uint8_t *line = in->data + in->start;
    size_t len = block_len(in);
    if (len <= 9)
        return false;
    return line[9] != '1' || (len > 11 && line[10] == '0' && line[11] == '1');
}

static void note_response_bytes(struct exchange *ex)
{
    ex->upstream_bytes = true;
    ex->last_move_ms = worker_now_ms(ex->w);
    if (!is_response_byte(ex->up->c.in))
        return;
    ex->last_upstream_us = worker_now_us(ex->w);
    if (!ex->first_byte_us) {
        ex->first_byte_us = ex->last_upstream_us;
        wait_for_client(ex, false);
        attempt_response_byte(&ex->attempt);
    }
}

/* A 101 names what it switches to, all of which must have been passed on (RFC 9110 7.8). */
static bool was_offered(const struct exchange *ex, const struct http1_head *h)
{
    bool any = false;
    if (!ex->upgrade || !h->upgrade)
        return false;
    for (size_t i = 0; i < h->field_count; i++) {
        if (h->fields[i].id != FIELD_UPGRADE)
            continue;
        struct slice rest = h->fields[i].value, item;
        while (http1_next_item(&rest, &item)) {
            if (!http1_list_has(slice_of(ex->offered), item))
                return false;
            any = true;
        }
    }
    return any;
}

/* 101: from here on the connection is a tunnel. */
static enum head_progress switch_protocols(struct exchange *ex, const struct http1_head *h,
                                           size_t head_len)
{
    if (!was_offered(ex, h)) {
        bad_response(ex, "the upstream switched to a protocol that was not offered");
        return HEAD_OVER;
    }
    /* In the tunnel the rest of the request would be taken for the new protocol. */
    if (ex->rq == RQ_STREAM || ex->up->c.out_bytes > 0) {
        bad_response(ex, "the upstream switched protocols before it had the whole request");
        return HEAD_OVER;
    }
    judge_head(ex, h);
    ex->status = 101;
    if (!ex->first_byte_us)
        ex->first_byte_us = ex->last_upstream_us;
    send_head(ex, h, head_len,
              &(struct rewrite_response){ .via = exchange_config(ex)->via, .upgrade = true });
    exchange_forget_head(ex);
    ex->up->c.in->start += (uint32_t)head_len;
    conn_release_empty(&ex->up->c);
    exchange_enter(ex, EX_TUNNEL);
    tunnel_begin(ex, false);
    return HEAD_OVER;
}

static enum head_progress take_response_head(struct exchange *ex)
{
    struct block *in = ex->up->c.in;
    const struct config *cfg = exchange_config(ex);
    const char *data = (const char *)block_bytes(in);
    size_t end;
    if (http1_response_hopeless(data, block_len(in))) {
        bad_response(ex, "the upstream does not speak HTTP/1");
        return HEAD_OVER;
    }
    int found = http1_find_end(data, block_len(in), &ex->scanned, &end);
    if (found < 0 || (found == 0 && response_head_room(ex) < 0) ||
        (found > 0 && end > (size_t)cfg->limits.header_bytes)) {
        bad_head(ex, found < 0 ? HTTP1_BAD_LINE_END : HTTP1_HEAD_TOO_LARGE);
        return HEAD_OVER;
    }
    if (found == 0)
        return HEAD_MORE;
    static _Thread_local struct http1_head h;
    enum http1_error err =
        http1_parse_response(&h, data, end, (size_t)cfg->limits.header_fields, ex->is_head);
    if (err) {
        bad_head(ex, err);
        return HEAD_OVER;
    }
    ex->scanned = 0;
    if (h.status == 101)
        return switch_protocols(ex, &h, end);
    bool final = h.status >= 200;
    if (final)
        tunnels_release(ex); /* an upgrade that was refused */
    if (final)
        begin_response(ex, &h, end);
    else if (!pass_interim(ex, &h, end))
        return HEAD_OVER;
    in->start += (uint32_t)end;
    if (!final && block_len(in) > 0)
        note_response_bytes(ex);
    conn_release_empty(&ex->up->c);
    return HEAD_TAKEN;
}

/* False: the exchange is over, or has begun anew. */
static bool read_response_head(struct exchange *ex)
{
    while (ex->state == EX_AWAIT) {
        struct conn *c = &ex->up->c;
        if (c->in && block_len(c->in) > 0) {
            enum head_progress p = take_response_head(ex);
            if (p == HEAD_OVER)
                return false;
            if (p == HEAD_TAKEN)
                continue;
        }
        size_t got;
        switch (conn_read(c, BLOCK_SIZE, &got)) {
        case IO_OK:
            note_response_bytes(ex);
            break;
        case IO_AGAIN:
        case IO_STARVED:
        case IO_YIELD:
            return true;
        case IO_EOF:
        case IO_ERROR:
            upstream_died(ex);
            return false;
        }
    }
    return true;
}

/* The response has been read to its end. */
static void response_read(struct exchange *ex)
{
    ex->rs = RS_DONE;
    judge_end(ex);
    if (ex->rq != RQ_STREAM)
        exchange_release_upstream(ex, ex->upstream_reusable && !ex->upload_broken);
}

static void response_cut(struct exchange *ex, enum outcome outcome, enum proxy_error error,
                         const char *detail)
{
    judge_failed(ex, outcome);
    ex->rs = RS_CUT;
    ex->error = error;
    ex->detail = detail;
    ex->close_after = true;
    exchange_drop_upstream(ex);
}

/* False: the exchange is over. */
static bool stream_response(struct exchange *ex)
{
    struct relay r = { .from = &ex->up->c,
                       .to = &ex->down->c,
                       .body = &ex->response_body,
                       .chunked_out = ex->chunked_out,
                       .buffer_limit = (size_t)exchange_config(ex)->limits.buffer,
                       .budget = SIZE_MAX,
                       .observe = judge_looks(ex) ? judge_observe : NULL,
                       .observer = ex };
    enum relay_result res = relay_body(&r);
    ex->response_bytes += r.moved;
    if (r.read_any)
        ex->last_upstream_us = worker_now_us(ex->w);
    if (r.read_any || r.wrote_any)
        ex->last_move_ms = worker_now_ms(ex->w);
    if (r.observe)
        judge_body(ex);
    switch (res) {
    case RELAY_DONE:
        response_read(ex);
        break;
    case RELAY_WAIT_SOURCE:
    case RELAY_WAIT_SINK:
    case RELAY_YIELD:
        wait_for_client(ex, res == RELAY_WAIT_SINK);
        break;
    case RELAY_SOURCE_EOF:
    case RELAY_SOURCE_ERROR:
        response_cut(ex, OUTCOME_RESET, PERR_HTTP_RESPONSE_INCOMPLETE,
                     "the upstream ended the response too early");
        break;
    case RELAY_SINK_ERROR:
        transfer_client_gone(ex, worker_now_ms(ex->w));
        return false;
    case RELAY_MALFORMED:
        response_cut(ex, OUTCOME_PROTOCOL, PERR_HTTP_PROTOCOL_ERROR,
                     "malformed chunked response body");
        break;
    }
    return true;
}

static enum request_result forwarded_result(const struct exchange *ex)
{
    return ex->rs == RS_CUT ? RESULT_FAILED : ex->bypassed ? RESULT_BYPASSED : RESULT_FORWARDED;
}

/* The answer is complete before the request is: go on only if the origin wants the rest. */
static bool upload_goes_on(const struct exchange *ex)
{
    return ex->rq == RQ_STREAM && ex->up && ex->status < 400 && !ex->upload_broken &&
           ex->upstream_reusable && !ex->up->c.hangup && !ex->up->c.eof && !ex->up->c.error;
}

void transfer_response(struct exchange *ex)
{
    if (ex->rs == RS_STREAM && !stream_response(ex))
        return;
    if (ex->rs == RS_STREAM)
        return;
    enum io_result io = ex->rs == RS_CUT ? exchange_flush_last(ex) : conn_flush(&ex->down->c);
    if (io == IO_ERROR) {
        transfer_client_gone(ex, worker_now_ms(ex->w));
        return;
    }
    wait_for_client(ex, io == IO_AGAIN);
    if (io == IO_AGAIN || (ex->rs == RS_DONE && upload_goes_on(ex)))
        return;
    exchange_finish(ex, forwarded_result(ex));
}

/* Does all that can be done now. */
/* ---- All of it ---- */

void transfer_run(struct exchange *ex)
{
    struct downstream *d = ex->down;
    if (!watch_client(ex) || !move_request(ex))
        return;
    if (ex->state == EX_AWAIT && !read_response_head(ex))
        return;
    if (ex->state == EX_RELAY)
        transfer_response(ex);
    if (d->ex == ex)
        exchange_rearm(ex);
}

void transfer_watch(struct exchange *ex)
{
    if (watch_client(ex))
        exchange_rearm(ex);
}
