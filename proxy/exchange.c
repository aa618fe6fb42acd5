#include "proxy/exchange.h"
#include "base/base.h"
#include "proxy/access_log.h"
#include "proxy/answer.h"
#include "proxy/judge.h"
#include "proxy/proxy.h"
#include "proxy/snapshot.h"
#include "proxy/transfer.h"
#include "proxy/tunnel.h"
#include "proxy/tunnels.h"
#include <stdlib.h>

#define FREE_EXCHANGES_MAX 1024

const char *exchange_state_name(enum exchange_state s)
{
    switch (s) {
    case EX_HEAD:
        return "head";
    case EX_CONNECT:
        return "connect";
    case EX_AWAIT:
        return "await";
    case EX_TUNNEL:
        return "tunnel";
    case EX_RELAY:
        return "relay";
    case EX_REPLY:
        return "reply";
    case EX_DONE:
        return "done";
    case EX_STATE_COUNT:
        break;
    }
    return "?";
}

/* Where a request may go next.  Read it from top to bottom. */
static const unsigned next_ok[EX_STATE_COUNT] = {
    [EX_HEAD] = BIT(EX_CONNECT) | BIT(EX_REPLY) | BIT(EX_DONE),
    [EX_CONNECT] = BIT(EX_AWAIT) | BIT(EX_TUNNEL) | BIT(EX_REPLY) | BIT(EX_DONE),
    [EX_AWAIT] = BIT(EX_RELAY) | BIT(EX_TUNNEL) | BIT(EX_REPLY) | BIT(EX_DONE) |
                 BIT(EX_CONNECT), /* stale pooled connection: once more on a fresh one */
    [EX_TUNNEL] = BIT(EX_DONE),
    [EX_RELAY] = BIT(EX_DONE),
    [EX_REPLY] = BIT(EX_DONE),
    [EX_DONE] = 0,
};

void exchange_enter(struct exchange *ex, enum exchange_state next)
{
    if (BUG(!(next_ok[ex->state] & BIT(next))))
        return;
    ex->state = next;
}

const struct config *exchange_config(const struct exchange *ex)
{
    return ex->snap->cfg;
}

/* ---- Birth and end ---- */

struct exchange *exchange_new(struct downstream *d)
{
    struct worker *w = d->c.w;
    struct exchange *ex = w->free_exchanges;
    if (ex) {
        w->free_exchanges = ex->next_free;
        w->free_exchange_count--;
        memset(ex, 0, offsetof(struct exchange, pass));
        ex->method[0] = ex->path[0] = '\0';
        ex->pass.count = 0;
    } else {
        ex = xcalloc(1, sizeof(*ex));
    }
    ex->w = w;
    ex->down = d;
    ex->serial = ++w->exchange_serial;
    ex->snap = w->snap;
    count_add(&ex->snap->use[w->index].exchanges, 1);
    ex->start_us = worker_now_us(w);
    ex->start_wall_ms = worker_wall_ms(w);
    ex->last_move_ms = ex->start_us / 1000;
    ex->connected_us = -1;
    d->ex = ex;
    d->c.urgent = false;
    conn_set_deadline(&d->c, CONN_NO_DEADLINE);
    ex->mode = (enum traffic_mode)d->mode;
    COUNT(w->c.requests_in_flight[ex->mode]);
    return ex;
}

void exchange_set_mode(struct exchange *ex, enum traffic_mode mode)
{
    count_sub(&ex->w->c.requests_in_flight[ex->mode], 1);
    ex->mode = mode;
    COUNT(ex->w->c.requests_in_flight[mode]);
}

static void exchange_free(struct exchange *ex)
{
    struct worker *w = ex->w;
    /* Every exchange ends here, when its upstream connection is closed or given back. */
    probe_release(&ex->pass);
    http1_body_free(&ex->request_body);
    http1_body_free(&ex->response_body);
    judge_free(ex);
    if (ex->target)
        target_unref(ex->target);
    count_sub(&ex->snap->use[w->index].exchanges, 1);
    count_sub(&w->c.requests_in_flight[ex->mode], 1);
    tunnels_release(ex);
    if (w->free_exchange_count >= FREE_EXCHANGES_MAX) {
        free(ex);
        return;
    }
    ex->next_free = w->free_exchanges;
    w->free_exchanges = ex;
    w->free_exchange_count++;
}

void exchanges_free(struct worker *w)
{
    while (w->free_exchanges) {
        struct exchange *ex = w->free_exchanges;
        w->free_exchanges = ex->next_free;
        free(ex);
    }
    w->free_exchange_count = 0;
}

/* The request as sent is kept for a replay; from here on it is not needed any more. */
void exchange_forget_head(struct exchange *ex)
{
    struct block *b = ex->head;
    ex->head = NULL;
    if (!b)
        return;
    b->pinned = false;
    bool queued = ex->up && ex->up->c.out_head == b;
    if (!queued)
        block_put(&ex->w->blocks, b);
}

void exchange_drop_upstream(struct exchange *ex)
{
    struct upstream *up = ex->up;
    if (!up)
        return;
    ex->up = NULL;
    up->ex = NULL;
    upstream_close(up);
}

void exchange_release_upstream(struct exchange *ex, bool reusable)
{
    struct upstream *up = ex->up;
    if (!up)
        return;
    if (ex->private_auth && !up->owner && reusable)
        upstream_park(up, ex->down);
    ex->up = NULL;
    upstream_release(up, reusable);
}

unsigned exchange_slot(const struct exchange *ex)
{
    return ex->route ? ex->route->slot : ex->snap->fallback.slot;
}

static void count_request(struct exchange *ex, enum request_result result)
{
    struct route_counters *rc = &ex->w->c.routes[exchange_slot(ex)];
    unsigned code_class = ex->status > 599 ? 5 : ex->status / 100;
    COUNT(rc->requests[ex->mode][code_class][result]);
    count_add(&rc->request_body_bytes, ex->request_bytes);
    count_add(&rc->response_body_bytes, ex->response_bytes);
    if (ex->error != PERR_NONE)
        COUNT(rc->errors[ex->error]);
    histogram_observe(&ex->w->c.request_duration, worker_now_us(ex->w) - ex->start_us);
    if (ex->first_byte_us)
        histogram_observe(&ex->w->c.upstream_first_byte, ex->first_byte_us - ex->start_us);
}

static void finish_tunnel(struct exchange *ex, enum request_result result)
{
    struct downstream *d = ex->down;
    bool inner = d->inner != NULL && !ex->opaque, broken = ex->tunnel_broken;
    if (!inner)
        COUNT(ex->w->c.tunnels_total[exchange_slot(ex)][result]);
    tunnel_free(ex);
    if (broken && ex->up)
        conn_reset_on_close(&ex->up->c);
    exchange_drop_upstream(ex);
    exchange_enter(ex, EX_DONE);
    exchange_free(ex);
    if (broken) {
        d->ex = NULL;
        downstream_reset(d);
    } else {
        downstream_exchange_done(d, inner, !inner); /* a client that still sends will read first */
    }
}

/* Who asked for the close sends no more (RFC 9112 9.6).  Some do all the same, an empty line: it
 * meets a closed socket, whose reset must find the answer where it can be lost no more. */
static bool has_had_last_word(const struct exchange *ex)
{
    const struct conn *c = &ex->down->c;
    return ex->client_close && ex->rq == RQ_NONE && !ex->is_connect && !c->readable &&
           (!c->in || block_len(c->in) == 0) && conn_all_taken(c);
}

void exchange_finish(struct exchange *ex, enum request_result result)
{
    struct downstream *d = ex->down;
    if (ex->attempt_begun && BUG(!ex->attempt.fixed))
        attempt_failed(&ex->attempt, OUTCOME_LOCAL);
    if (ex->shadow) {
        result = RESULT_SHADOW_REJECTED;
        if (!ex->attempt_begun)
            judge_shadow(ex);
    }
    judge_record(ex);
    upstream_cancel(ex);
    count_request(ex, result);
    access_log_exchange(ex, result);
    if (ex->tunnel) {
        finish_tunnel(ex, result);
        return;
    }

    bool whole = ex->rs == RS_DONE || ex->state == EX_REPLY;
    bool request_read = ex->rq == RQ_NONE || ex->rq == RQ_DONE;
    exchange_release_upstream(ex, ex->rs == RS_DONE && ex->upstream_reusable && request_read);
    exchange_forget_head(ex);
    /* Nothing in these bytes would show that the end came too early. */
    bool delimited_by_close = ex->response_body.framing == FRAMING_CLOSE ||
                              (ex->response_body.framing == FRAMING_CHUNKED && !ex->chunked_out);
    bool untaken = d->c.out_bytes > 0 && !ex->client_gone;
    bool cut_unmarked = ex->silent || untaken || (ex->rs == RS_CUT && delimited_by_close);
    bool keep = whole && request_read && !ex->close_after && !ex->client_gone;
    bool last_word = whole && !keep && has_had_last_word(ex);
    exchange_enter(ex, EX_DONE);
    exchange_free(ex);
    if (cut_unmarked) {
        d->ex = NULL;
        downstream_reset(d); /* only a reset shows that the end is not the end */
        return;
    }
    downstream_exchange_done(d, keep, whole && !last_word);
}

/* ---- Deadlines ---- */

static int64_t earlier(int64_t a, int64_t b)
{
    return b == OFF ? a : b < a ? b : a;
}

static int64_t after(int64_t from_ms, int64_t wait_ms)
{
    return wait_ms == OFF || from_ms < 0 ? OFF : from_ms + wait_ms;
}

static int64_t first_byte_deadline(const struct exchange *ex)
{
    return ex->first_byte_us ? OFF
                             : after(ex->attempt.clock_ms, ex->route->cfg->timeouts.first_byte_ms);
}

static int64_t idle_deadline(const struct exchange *ex)
{
    bool upstream_owes = !ex->waiting_client && ex->rs != RS_DONE &&
                         (ex->first_byte_us || ex->attempt.clock_ms >= 0);
    return upstream_owes ? after(ex->last_move_ms, ex->route->cfg->timeouts.idle_ms) : OFF;
}

/* After its FIN a client gets one second: of waiting, or of silence in a running answer.  In a
 * tunnel, also in one that still connects, it is half a close and no more. */
static int64_t fin_deadline(const struct exchange *ex)
{
    if (!ex->fin_ms || ex->is_connect)
        return OFF;
    if (ex->state != EX_RELAY)
        return ex->fin_ms + FIN_GRACE_MS;
    if (ex->down->c.out_bytes > 0)
        return OFF; /* it still reads, or a reset will tell */
    return (ex->last_move_ms > ex->fin_ms ? ex->last_move_ms : ex->fin_ms) + FIN_GRACE_MS;
}

bool exchange_is_unasked(const struct exchange *ex)
{
    return ex->expect_continue && !ex->interim_count && !ex->request_bytes;
}

/* An answer that has begun goes on if it was judged, as a late one or a tunnel, and an event
 * stream always.  Time spent waiting for the client does not count. */
static int64_t probe_deadline(const struct exchange *ex)
{
    bool goes_on = ex->first_byte_us && (ex->attempt.fixed || ex->event_stream);
    if (!ex->probe_until_ms || goes_on || ex->waiting_client)
        return OFF;
    return ex->probe_until_ms + ex->client_wait_us / 1000;
}

static int64_t total_deadline(const struct exchange *ex)
{
    return after(ex->start_us / 1000, ex->route->cfg->timeouts.total_ms);
}

/* Once, for those who still wait then: asking after each request would be a call more. */
static int64_t client_look(const struct exchange *ex)
{
    return ex->client_looked_at ? OFF : ex->start_us / 1000 + CLIENT_LOOK_MS;
}

/* Nothing is left to do but that the client takes what there is. */
static bool is_lingering(const struct exchange *ex)
{
    return ex->state == EX_REPLY || ex->rs == RS_CUT;
}

enum io_result exchange_flush_last(struct exchange *ex)
{
    struct conn *c = &ex->down->c;
    size_t before = c->out_bytes;
    enum io_result io = conn_flush(c);
    if (!ex->linger_until_ms || c->out_bytes < before)
        ex->linger_until_ms = worker_now_ms(ex->w) + LINGER_MS;
    return io;
}

void exchange_rearm(struct exchange *ex)
{
    int64_t at = CONN_NO_DEADLINE;
    if (is_lingering(ex)) {
        conn_set_deadline(&ex->down->c, ex->linger_until_ms);
        return;
    }
    if (ex->state == EX_CONNECT)
        at = earlier(at, ex->connect_deadline_ms);
    if (ex->attempt_begun)
        at = earlier(at, attempt_deadline(&ex->attempt));
    if (ex->state == EX_TUNNEL)
        at = earlier(at, tunnel_deadline(ex));
    at = earlier(at, probe_deadline(ex));
    if (ex->attempt_begun && ex->state != EX_TUNNEL) {
        at = earlier(at, first_byte_deadline(ex));
        at = earlier(at, idle_deadline(ex));
        at = earlier(at, fin_deadline(ex));
        at = earlier(at, ex->pace_at_ms ? ex->pace_at_ms : OFF);
        at = earlier(at, client_look(ex));
        at = earlier(at, total_deadline(ex));
    }
    conn_set_deadline(&ex->down->c, at);
}

/* ---- How fast the bodies come ---- */

static void timed_out(struct exchange *ex, const char *detail)
{
    judge_failed(ex, OUTCOME_TIMEOUT);
    answer_fail(ex, 504, PERR_HTTP_RESPONSE_TIMEOUT, detail);
}

/* Says nothing of the upstream if the client is who is slow, or took most of the time. */
static void total_timed_out(struct exchange *ex)
{
    bool by_client =
        ex->waiting_client || ex->client_wait_us / 1000 > ex->route->cfg->timeouts.total_ms / 2;
    if (by_client) {
        COUNT(ex->w->c.client_errors_timeout);
        judge_failed(ex, OUTCOME_LOCAL);
    }
    /* With what it has not taken yet its answer would be whole, and nothing would have failed. */
    if (ex->rs == RS_DONE && ex->down->c.out_bytes > 0) {
        conn_drop_out(&ex->down->c);
        conn_reset_on_close(&ex->down->c);
    }
    timed_out(ex, "not finished within timeouts.total");
}

void exchange_watch_pace(struct exchange *ex)
{
    if (exchange_config(ex)->limits.min_body_rate != OFF && !ex->pace_at_ms)
        ex->pace_at_ms = worker_now_ms(ex->w) + PACE_STEP_MS;
}

static bool is_full(const struct exchange *ex, const struct conn *c)
{
    return c->out_bytes >= (size_t)exchange_config(ex)->limits.buffer;
}

/* Nothing is owed before the origin has asked for the body, nor while it takes no more. */
static bool request_too_slow(struct exchange *ex)
{
    return ex->rq == RQ_STREAM && ex->up && !ex->upload_broken &&
           pace_too_slow(&ex->request_pace, ex->request_bytes,
                         exchange_is_unasked(ex) || is_full(ex, &ex->up->c),
                         exchange_config(ex)->limits.min_body_rate);
}

/* An event stream has nothing to say for most of the time: that is its nature. */
static bool response_too_slow(struct exchange *ex)
{
    return ex->state == EX_RELAY && ex->rs == RS_STREAM && !ex->event_stream &&
           pace_too_slow(&ex->response_pace, ex->response_bytes, is_full(ex, &ex->down->c),
                         exchange_config(ex)->limits.min_body_rate);
}

/* False: the exchange has been cut. */
static bool keeps_pace(struct exchange *ex)
{
    ex->pace_at_ms = worker_now_ms(ex->w) + PACE_STEP_MS;
    if (request_too_slow(ex)) {
        COUNT(ex->w->c.limit_min_body_rate);
        COUNT(ex->w->c.client_errors_timeout);
        judge_failed(ex, OUTCOME_LOCAL);
        ex->close_after = true;
        answer_fail(ex, 408, PERR_HTTP_REQUEST_ERROR,
                    "the request body came slower than limits.min_body_rate");
        return false;
    }
    if (response_too_slow(ex)) {
        COUNT(ex->w->c.limit_min_body_rate);
        timed_out(ex, "the response body came slower than limits.min_body_rate");
        return false;
    }
    return true;
}

/* ---- Connecting ---- */

/* CONNECT: the way is open. */
static void establish(struct exchange *ex, struct upstream *up)
{
    static const char answer[] = "HTTP/1.1 200 Connection established\r\n"
                                 "Proxy-Status: tripswitch-proxy\r\n\r\n";
    ex->up = up;
    ex->upstream_address = up->address;
    ex->upstream_known = true;
    if (!ex->silent) {
        ex->status = 200;
        ex->head_sent = true;
        conn_enqueue_bytes(&ex->down->c, answer, sizeof(answer) - 1);
    }
    downstream_connected(ex->down);
    exchange_enter(ex, EX_TUNNEL);
    tunnel_begin(ex, !ex->silent);
}

/* Of the time of a probe, when the way was open: until a request has come the client owes. */
static int64_t probe_left_ms(const struct exchange *ex)
{
    int64_t left_ms = ex->probe_until_ms - ex->start_us / 1000;
    return !ex->probe_until_ms ? 0 : left_ms > 0 ? left_ms : 1;
}

void exchange_become_inner(struct exchange *ex)
{
    struct downstream *d = ex->down;
    struct upstream *up = ex->up;
    COUNT(ex->w->c.connect_plaintext_http_total);
    d->inner = xcalloc(1, sizeof(*d->inner));
    *d->inner = (struct inner){ .covered = true,
                                .route = ex->route->cfg->index,
                                .generation = ex->snap->generation,
                                .gate = ex->gate,
                                .verdict = ex->verdict,
                                .breaker = ex->breaker,
                                .shadow = ex->shadow,
                                .probe_left_ms = probe_left_ms(ex),
                                .pass = ex->pass,
                                .connected_us = ex->connected_us };
    ex->pass.count = 0;
    memcpy(d->inner->host, ex->target->key, ex->target->authority_len);
    struct slice host = { d->inner->host, ex->target->authority_len };
    if (BUG(authority_parse(&d->inner->to, host, 0) != TARGET_OK))
        d->inner->to = (struct authority){ .raw = host };
    /* The connection goes on to belong to this client. */
    ex->opaque = false;
    ex->up = NULL;
    up->ex = NULL;
    upstream_park(up, d);
    attempt_failed(&ex->attempt, OUTCOME_NEUTRAL);
    enum request_result result = ex->shadow     ? RESULT_SHADOW_REJECTED
                                 : ex->bypassed ? RESULT_BYPASSED
                                                : RESULT_FORWARDED;
    ex->shadow = false; /* whether that would have been right its first request will show */
    exchange_finish(ex, result);
}

static void send_request(struct exchange *ex, struct upstream *up)
{
    if (ex->is_connect) {
        establish(ex, up);
        return;
    }
    ex->up = up;
    ex->upstream_address = up->address;
    ex->upstream_known = true;
    ex->reused = up->served > 0;
    if (!ex->reused && ex->connected_us < 0 && ex->down->inner)
        ex->connected_us = ex->down->inner->connected_us;
    ex->upstream_bytes = false;
    if (up->owner)
        ex->private_auth = true;
    exchange_enter(ex, EX_AWAIT);
    struct block *b = ex->head;
    if (ex->replayable) {
        b->start = ex->head_start;
        b->pinned = true;
    } else {
        ex->head = NULL;
    }
    conn_enqueue(&up->c, b);
    attempt_clock_stop(&ex->attempt);
    up->c.urgent = true; /* it reads a head first */
    if (ex->rq == RQ_STREAM)
        exchange_watch_pace(ex);
    ex->last_move_ms = worker_now_ms(ex->w);
    transfer_run(ex);
}

void exchange_connect(struct exchange *ex, bool fresh)
{
    struct upstream *up;
    ex->connect_deadline_ms = after(worker_now_ms(ex->w), exchange_config(ex)->dns.timeout_ms);
    switch (upstream_acquire(ex, fresh || ex->is_connect, &up)) {
    case UPSTREAM_READY:
        send_request(ex, up);
        break;
    case UPSTREAM_PENDING:
        exchange_rearm(ex);
        break;
    case UPSTREAM_FAILED:
        exchange_on_connect_failed(ex);
        break;
    }
}

void exchange_on_resolved(struct exchange *ex)
{
    ex->connect_deadline_ms = after(worker_now_ms(ex->w), ex->route->cfg->timeouts.connect_ms);
    exchange_rearm(ex);
}

void exchange_on_connected(struct exchange *ex, struct upstream *up)
{
    ex->connected_us = worker_now_us(ex->w) - ex->job->began_us;
    upstream_cancel(ex);
    send_request(ex, up);
}

void exchange_on_connect_failed(struct exchange *ex)
{
    static const struct {
        enum outcome outcome;
        int status;
        enum proxy_error error;
        const char *detail;
    } answers[] = {
        [CONNECT_DNS_FAILED] = { OUTCOME_DNS, 502, PERR_DNS_ERROR, "the host name has no address" },
        [CONNECT_DNS_TIMEOUT] = { OUTCOME_DNS, 504, PERR_DNS_TIMEOUT,
                                  "the resolver did not answer within dns.timeout" },
        [CONNECT_DNS_QUEUE_FULL] = { OUTCOME_LOCAL, 503, PERR_CONNECTION_LIMIT_REACHED,
                                     "limits.dns_queue is reached" },
        [CONNECT_REFUSED] = { OUTCOME_CONNECT, 502, PERR_CONNECTION_REFUSED,
                              "the upstream refused the connection" },
        [CONNECT_RESET] = { OUTCOME_RESET, 502, PERR_CONNECTION_TERMINATED,
                            "the upstream reset the connection at once" },
        [CONNECT_TIMEOUT] = { OUTCOME_CONNECT, 504, PERR_CONNECTION_TIMEOUT,
                              "no connection within timeouts.connect" },
        [CONNECT_ERROR] = { OUTCOME_CONNECT, 502, PERR_DESTINATION_IP_UNROUTABLE,
                            "the upstream cannot be reached" },
        [CONNECT_LOCAL] = { OUTCOME_LOCAL, 503, PERR_CONNECTION_LIMIT_REACHED,
                            "out of descriptors, ports or memory" },
        [CONNECT_DENIED] = { OUTCOME_LOCAL, 502, PERR_DESTINATION_IP_PROHIBITED,
                             "the destination is in access.deny_destinations" },
        [CONNECT_LOOP] = { OUTCOME_LOCAL, 502, PERR_PROXY_LOOP_DETECTED,
                           "the destination is this proxy" },
        [CONNECT_SELF] = { OUTCOME_LOCAL, 502, PERR_DESTINATION_IP_PROHIBITED,
                           "the destination is a private port of this proxy" },
    };
    enum connect_failure f = ex->job->failure;
    if (BUG(f == CONNECT_OK))
        f = CONNECT_ERROR;
    judge_failed(ex, answers[f].outcome);
    answer_fail(ex, answers[f].status, answers[f].error, answers[f].detail);
}

/* ---- Events ---- */

/* Does all that can be done now. */
static void run(struct exchange *ex)
{
    switch (ex->state) {
    case EX_CONNECT:
        transfer_watch(ex);
        break;
    case EX_AWAIT:
    case EX_RELAY:
        transfer_run(ex);
        break;
    case EX_TUNNEL:
        tunnel_run(ex);
        break;
    case EX_REPLY:
        answer_run(ex);
        break;
    case EX_HEAD:
    case EX_DONE:
    case EX_STATE_COUNT:
        break;
    }
}

void exchange_on_downstream(struct exchange *ex)
{
    run(ex);
}

void exchange_on_upstream(struct exchange *ex)
{
    run(ex);
}

static void probe_timed_out(struct exchange *ex)
{
    static const char detail[] = "a half-open attempt, not answered within half_open.timeout";
    if (!ex->tunnel) {
        timed_out(ex, detail);
        return;
    }
    /* Who was asked nothing has missed nothing. */
    judge_failed(ex, ex->request_bytes ? OUTCOME_TIMEOUT : OUTCOME_LOCAL);
    ex->error = PERR_HTTP_RESPONSE_TIMEOUT;
    ex->detail = detail;
    ex->tunnel_broken = true;
    exchange_finish(ex, RESULT_FAILED);
}

static bool reached(int64_t deadline, int64_t now_ms)
{
    return deadline != OFF && now_ms >= deadline;
}

void exchange_on_deadline(struct exchange *ex)
{
    int64_t now_ms = worker_now_ms(ex->w);
    if (is_lingering(ex)) {
        ex->close_after = true;
        exchange_finish(ex, ex->state == EX_REPLY ? answer_result(ex) : RESULT_FAILED);
        return;
    }
    if (ex->state != EX_TUNNEL && reached(fin_deadline(ex), now_ms)) {
        transfer_client_gone(ex, ex->fin_ms);
        return;
    }
    if (ex->state != EX_TUNNEL && reached(client_look(ex), now_ms)) {
        ex->client_looked_at = true;
        if (conn_connect_error(&ex->down->c) != 0) {
            transfer_client_gone(ex, now_ms);
            return;
        }
    }
    if (ex->state == EX_CONNECT && reached(ex->connect_deadline_ms, now_ms)) {
        ex->job->failure = ex->job->asking ? CONNECT_DNS_TIMEOUT : CONNECT_TIMEOUT;
        if (ex->job->asking)
            COUNT(ex->w->c.upstream_connects_dns);
        else
            COUNT(ex->w->c.upstream_connects_timeout);
        dns_expire(ex->w->dns, ex->target->host);
        exchange_on_connect_failed(ex);
        return;
    }
    judge_tick(ex);
    if (reached(probe_deadline(ex), now_ms))
        probe_timed_out(ex);
    else if (ex->state == EX_TUNNEL)
        tunnel_on_deadline(ex);
    else if (reached(first_byte_deadline(ex), now_ms))
        timed_out(ex, "no response byte within timeouts.first_byte");
    else if (reached(idle_deadline(ex), now_ms))
        timed_out(ex, "nothing moved for timeouts.idle");
    else if (reached(total_deadline(ex), now_ms))
        total_timed_out(ex);
    else if (!ex->pace_at_ms || now_ms < ex->pace_at_ms || keeps_pace(ex))
        exchange_rearm(ex);
}

void exchange_abort(struct exchange *ex)
{
    judge_failed(ex, OUTCOME_LOCAL);
    ex->client_gone = ex->tunnel_broken = true;
    upstream_cancel(ex);
    if (!ex->tunnel) /* a tunnel's is reset */
        exchange_drop_upstream(ex);
    exchange_finish(ex, RESULT_FAILED);
}
