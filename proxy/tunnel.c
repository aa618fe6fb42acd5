#include "proxy/tunnel.h"
#include "base/base.h"
#include "proxy/exchange.h"
#include "proxy/judge.h"
#include "proxy/snapshot.h"
#include "proxy/tunnels.h"
#include <stdlib.h>

/* ---- What is inside (pure) ---- */

enum sniff tunnel_sniff(const uint8_t *data, size_t len, size_t seen, size_t max)
{
    static const char tails[2][10] = { " HTTP/1.0", " HTTP/1.1" };
    size_t end = seen;
    while (end < len && end < max && data[end] != '\r' && data[end] != '\n') {
        /* A request line is printable, and begins with a method. */
        if (data[end] < 0x20 || data[end] == 0x7f || (end == 0 && data[end] == ' '))
            return SNIFF_OPAQUE;
        end++;
    }
    if (len >= 3 && memcmp(data, "PRI", 3) == 0)
        return SNIFF_OPAQUE; /* HTTP/2 */
    const uint8_t *space = memchr(data, ' ', end);
    struct slice method = { (const char *)data, space ? (size_t)(space - data) : end };
    struct slice unseen = { method.p + seen, method.len > seen ? method.len - seen : 0 };
    if (unseen.len > 0 && !http1_is_token(unseen))
        return SNIFF_OPAQUE;
    if (space && slice_eq(method, SLICE("CONNECT")))
        return SNIFF_OPAQUE; /* for the next proxy of a chain */
    if (end == len && end < max)
        return SNIFF_MORE;
    if (end == max)
        return SNIFF_OPAQUE; /* no line that long is a request's */
    for (size_t i = 0; i < ARRAY_LEN(tails); i++)
        if (end > 9 && memcmp(data + end - 9, tails[i], 9) == 0)
            return SNIFF_HTTP;
    return SNIFF_OPAQUE;
}

/* ---- Judging ---- */

static bool waits_for_alert(const struct tunnel *t)
{
    return t->look && t->down.looking && tls_alert_begun(&t->look->answer);
}

/* An alert or a part of it in place of a ServerHello, and no more will come: without the rest
 * nothing says that the handshake might have gone on. */
static void judge_half_alert(struct exchange *ex)
{
    if (waits_for_alert(ex->tunnel))
        judge_failed(ex, OUTCOME_TLS);
}

/* The rest of an alert is overdue.  A whole warning refuses nothing: what it warns of may take
 * its time. */
static void judge_late_alert(struct exchange *ex)
{
    if (ex->tunnel->look->answer.at > 0)
        judge_failed(ex, OUTCOME_TLS);
    else
        judge_end(ex);
}

static void judge_client_left(struct exchange *ex, int64_t at_ms)
{
    judge_half_alert(ex);
    if (ex->attempt.fixed)
        return;
    COUNT(ex->w->c.client_errors_aborted);
    judge_client_gone(ex, at_ms);
}

/* Without a byte.  One that has met itself says nothing about the upstream. */
static void judge_reset(struct exchange *ex)
{
    bool loop = upstream_is_loop(ex->up);
    if (loop && !ex->attempt.fixed) {
        ex->error = PERR_PROXY_LOOP_DETECTED;
        ex->detail = "the connection to the destination was redirected to this proxy";
    }
    judge_failed(ex, loop ? OUTCOME_LOCAL : OUTCOME_RESET);
}

/* An upstream that ends once the client has ended follows its example. */
static void judge_upstream_ended(struct exchange *ex)
{
    judge_half_alert(ex);
    if (ex->fin_ms)
        judge_client_left(ex, ex->fin_ms);
    else
        judge_reset(ex);
}

static void judge_upstream_broke(struct exchange *ex)
{
    judge_half_alert(ex);
    judge_reset(ex);
}

/* The client waits for an answer as long as it has sent something and got nothing. */
static void run_tunnel_clock(struct exchange *ex, bool sent)
{
    if (ex->first_byte_us || ex->attempt.fixed)
        return;
    if (ex->request_bytes == 0)
        attempt_clock_stop(&ex->attempt);
    else if (sent || ex->attempt.clock_ms < 0)
        attempt_clock(&ex->attempt, worker_now_ms(ex->w));
}

/* ---- The first bytes ---- */

static void look_begin(struct tunnel *t)
{
    t->look = xcalloc(1, sizeof(*t->look));
    t->up.looking = t->down.looking = true;
}

static void look_end(struct tunnel *t)
{
    if (t->up.looking || t->down.looking)
        return;
    free(t->look);
    t->look = NULL;
}

static void note_client_bytes(struct exchange *ex, const uint8_t *data, size_t len)
{
    struct tunnel *t = ex->tunnel;
    if (t->look->noted_up == 0 && !ex->first_byte_us) {
        int64_t began_us = ex->start_us;
        ex->start_us = worker_now_us(ex->w); /* the tunnel's latency counts from here */
        if (ex->probe_until_ms)
            ex->probe_until_ms += (ex->start_us - began_us) / 1000; /* nobody was asked before */
        ex->client_wait_us = 0;
    }
    t->look->noted_up += len;
    enum tls_hello_result hello = tls_hello_push(&t->look->hello, data, len);
    struct slice name = tls_hello_name(&t->look->hello);
    t->up.looking = hello == TLS_HELLO_MORE;
    if (name.len > 0)
        t->sni = xstrndup(name.p, name.len);
}

static void note_first_upstream_byte(struct exchange *ex)
{
    ex->first_byte_us = ex->last_upstream_us = worker_now_us(ex->w);
    attempt_response_byte(&ex->attempt);
    if (ex->attempt.fixed)
        COUNT(ex->w->c.late_answers_total);
}

static void note_upstream_bytes(struct exchange *ex, const uint8_t *data, size_t len)
{
    struct tunnel *t = ex->tunnel;
    struct tunnel_look *look = t->look;
    enum tls_alert alert = TLS_ALERT_NO;
    if (!ex->first_byte_us)
        note_first_upstream_byte(ex);
    look->noted_down += len;
    if (!ex->attempt.fixed && tls_hello_begun(&look->hello)) {
        alert = tls_alert_push(&look->answer, data, len);
        if (alert == TLS_ALERT_MORE)
            return;
    }
    t->down.looking = false;
    if (alert == TLS_ALERT_FAILED)
        judge_failed(ex, OUTCOME_TLS);
    else
        judge_end(ex);
}

/* Looks at what comes next, as far as it has not been looked at before, and passes it on. */
static void look_at(struct exchange *ex, struct way_run *r, size_t passed, const size_t *noted,
                    void (*note)(struct exchange *ex, const uint8_t *data, size_t len))
{
    const struct block *in;
    while (r->way->looking && (in = tunnel_way_peek(r)) != NULL) {
        size_t seen = *noted - passed - (size_t)r->moved;
        if (block_len(in) > seen)
            note(ex, in->data + in->start + seen, block_len(in) - seen);
        if (!tunnel_way_pass(r))
            return;
    }
}

/* ---- Both directions ---- */

static void finish(struct exchange *ex, bool broken)
{
    bool judged_bad = ex->attempt.fixed && !ex->attempt.ok && !ex->attempt.neutral;
    bool aborted = ex->attempt.fixed && ex->attempt.outcome == OUTCOME_CLIENT_ABORT;
    ex->tunnel_broken = broken;
    exchange_finish(ex, aborted                                           ? RESULT_CLIENT_ABORTED
                        : (judged_bad || ex->error) && !ex->first_byte_us ? RESULT_FAILED
                        : ex->bypassed                                    ? RESULT_BYPASSED
                                                                          : RESULT_FORWARDED);
}

static void note_moved(struct exchange *ex, const struct way_run *up, const struct way_run *down)
{
    ex->request_bytes += up->moved;
    ex->response_bytes += down->moved;
    count_add(&ex->w->c.tunnel_bytes_up, up->moved);
    count_add(&ex->w->c.tunnel_bytes_down, down->moved);
    if (up->moved || up->wrote || down->moved || down->wrote)
        ex->last_move_ms = worker_now_ms(ex->w);
    run_tunnel_clock(ex, up->moved > 0 || up->wrote);
}

/* ---- A broken side ---- */

static bool is_broken(const struct conn *c)
{
    return c->error != 0 || c->write_error != 0;
}

/* From here on nothing is sent to it any more. */
static void side_broke(struct exchange *ex, struct conn *c)
{
    struct tunnel *t = ex->tunnel;
    bool client = c == &ex->down->c;
    struct tunnel_way *to_it = client ? &t->down : &t->up;
    t->broken = c;
    t->discard_left = TUNNEL_DISCARD_BYTES;
    ex->last_move_ms = worker_now_ms(ex->w);
    if (client)
        judge_client_left(ex, ex->fin_ms ? ex->fin_ms : worker_now_ms(ex->w));
    to_it->looking = false;
    look_end(t);
    tunnel_way_free(ex->w, to_it);
    conn_drop_out(c);
}

/* What it says has nowhere to go; it must not wait for us before it listens, though. */
static void discard(struct tunnel *t, struct conn *c)
{
    enum io_result io = IO_OK;
    conn_drop_in(c);
    while (io == IO_OK && t->discard_left > 0) {
        size_t got;
        io = conn_read(c, BLOCK_SIZE, &got);
        conn_drop_in(c);
        t->discard_left -= got < t->discard_left ? got : t->discard_left;
    }
}

static bool is_stuck(const struct exchange *ex)
{
    return worker_now_ms(ex->w) >= ex->last_move_ms + LINGER_MS;
}

/* Does the other side still take anything?  Then it may also say more, though nobody listens:
 * who is not read from might stop reading. */
static void note_taken(struct exchange *ex, const struct way_run *r)
{
    struct tunnel *t = ex->tunnel;
    int unsent = conn_unsent_bytes(r->to);
    if (unsent != t->unsent || r->moved || r->wrote) {
        ex->last_move_ms = worker_now_ms(ex->w);
        t->discard_left = TUNNEL_DISCARD_BYTES;
    }
    t->unsent = unsent;
}

/* Passes on what the broken side had sent before, then ends the tunnel the way that side did.
 * Closing while the peer still sends is a reset, and takes along what our kernel holds. */
static void pass_last_words(struct exchange *ex, struct way_run *r, enum way_result res)
{
    struct tunnel *t = ex->tunnel;
    bool orderly = r->way->eof && r->from == &ex->up->c;
    bool delivered = res != WAY_OPEN && tunnel_way_delivered(r);
    if (res != WAY_OPEN && orderly)
        judge_upstream_ended(ex);
    else if (res != WAY_OPEN && r->from == &ex->up->c)
        judge_upstream_broke(ex);
    note_taken(ex, r);
    if (!is_broken(r->to))
        discard(t, r->to);
    if (is_broken(r->to)) {
        judge_client_left(ex, worker_now_ms(ex->w)); /* before all that it was sent was read */
        finish(ex, true);
    } else if (delivered && (t->unsent == 0 || is_stuck(ex))) {
        finish(ex, !orderly);
    } else if (is_stuck(ex)) {
        tunnel_cut(ex);
    }
}

/* A client is not read from while the upstream takes nothing, so no read tells of its reset. */
static bool client_waits(const struct exchange *ex)
{
    const struct tunnel_pipe *pipe = ex->tunnel->up.pipe;
    return ex->up->c.out_bytes > 0 || (pipe && pipe->bytes > 0);
}

static void look_for_reset(struct conn *c)
{
    int error = is_broken(c) ? 0 : conn_connect_error(c);
    if (error)
        conn_write_failed(c, error);
}

/* ---- Moving ---- */

static void move(struct exchange *ex)
{
    struct tunnel *t = ex->tunnel;
    struct conn *client = &ex->down->c, *server = &ex->up->c;
    struct way_run up = { .w = ex->w, .way = &t->up, .from = client, .to = server };
    struct way_run down = { .w = ex->w, .way = &t->down, .from = server, .to = client };

    if (t->look) {
        look_at(ex, &up, ex->request_bytes, &t->look->noted_up, note_client_bytes);
        look_at(ex, &down, ex->response_bytes, &t->look->noted_down, note_upstream_bytes);
        look_end(t);
    }
    enum way_result u = WAY_OPEN, d = WAY_OPEN;
    if (t->broken != server)
        u = tunnel_way_run(&up);
    if (t->broken != client)
        d = tunnel_way_run(&down);
    note_moved(ex, &up, &down);
    if (!t->broken && (is_broken(client) || is_broken(server))) {
        side_broke(ex, is_broken(client) ? client : server);
        move(ex); /* a write may have found out what a read is to tell now */
        return;
    }
    if (t->broken) {
        pass_last_words(ex, t->broken == client ? &up : &down, t->broken == client ? u : d);
        return;
    }
    if (t->up.eof && !ex->fin_ms && !t->down.eof)
        ex->fin_ms = worker_now_ms(ex->w);
    if (u == WAY_ENDED)
        tunnel_way_end(&up);
    if (d == WAY_ENDED) {
        tunnel_way_end(&down);
        judge_upstream_ended(ex); /* unless a byte came before */
    }
    if (t->up.shut && t->down.shut)
        finish(ex, false);
}

/* ---- Sniffing ---- */

static void go_opaque(struct exchange *ex)
{
    ex->tunnel->sniffing = false;
}

/* Asked of the origin itself; an absolute target is for the next proxy of a chain. */
static bool is_for_origin(const struct block *in)
{
    const uint8_t *line = in->data + in->start;
    const uint8_t *space = memchr(line, ' ', block_len(in));
    return space && (space[1] == '/' || space[1] == '*');
}

/* True: still looking, or the exchange has become something else. */
static bool sniff(struct exchange *ex)
{
    struct tunnel *t = ex->tunnel;
    struct conn *client = &ex->down->c;
    size_t got;
    if (ex->up->c.readable || worker_now_ms(ex->w) >= t->sniff_until_ms) {
        if (!ex->up->c.in)
            conn_read(&ex->up->c, BLOCK_SIZE, &got);
        if (ex->up->c.in || ex->up->c.eof || ex->up->c.error ||
            worker_now_ms(ex->w) >= t->sniff_until_ms) {
            go_opaque(ex);
            return false;
        }
    }
    for (;;) {
        if (client->in && block_len(client->in) > 0) {
            switch (
                tunnel_sniff(block_bytes(client->in), block_len(client->in), 0, TUNNEL_SNIFF_MAX)) {
            case SNIFF_HTTP:
                if (is_for_origin(client->in)) {
                    exchange_become_inner(ex);
                    return true;
                }
                go_opaque(ex);
                return false;
            case SNIFF_OPAQUE:
                go_opaque(ex);
                return false;
            case SNIFF_MORE:
                break;
            }
            if (block_space(client->in) <= BLOCK_TAILROOM) {
                go_opaque(ex);
                return false;
            }
        }
        switch (conn_read(client, BLOCK_SIZE, &got)) {
        case IO_OK:
            t->sniff_until_ms = worker_now_ms(ex->w) + TUNNEL_SNIFF_MS;
            break;
        case IO_AGAIN:
        case IO_STARVED:
        case IO_YIELD:
            conn_release_empty(client);
            return true;
        case IO_EOF:
        case IO_ERROR:
            go_opaque(ex);
            return false;
        }
    }
}

/* ---- Life ---- */

void tunnel_begin(struct exchange *ex, bool sniffing)
{
    struct tunnel *t = xcalloc(1, sizeof(*t));
    t->ex = ex;
    t->sniffing = sniffing;
    t->sniff_until_ms = worker_now_ms(ex->w) + TUNNEL_SNIFF_MS;
    ex->tunnel = t;
    ex->opaque = true;
    tunnels_add(t);
    COUNT(ex->w->c.tunnels);
    ex->last_move_ms = worker_now_ms(ex->w);
    if (ex->is_connect) {
        ex->start_us = worker_now_us(ex->w);
        attempt_clock_stop(&ex->attempt);
        look_begin(t);
    }
    tunnel_run(ex);
}

void tunnel_run(struct exchange *ex)
{
    struct downstream *d = ex->down;
    if (ex->tunnel->sniffing) {
        if (conn_flush(&d->c) == IO_ERROR) {
            judge_client_left(ex, worker_now_ms(ex->w));
            finish(ex, true);
            return;
        }
        if (sniff(ex)) {
            if (d->ex == ex && ex->tunnel)
                exchange_rearm(ex);
            return;
        }
    }
    move(ex);
    if (d->ex == ex)
        exchange_rearm(ex);
}

static int64_t earlier(int64_t a, int64_t b)
{
    return b < a ? b : a;
}

int64_t tunnel_deadline(const struct exchange *ex)
{
    const struct tunnel *t = ex->tunnel;
    int64_t idle_ms = ex->route->cfg->timeouts.tunnel_idle_ms;
    if (t->sniffing)
        return t->sniff_until_ms;
    if (t->broken) /* no event tells that our kernel has sent something */
        return worker_now_ms(ex->w) + TUNNEL_UNSENT_MS;
    int64_t at = idle_ms == OFF ? INT64_MAX : ex->last_move_ms + idle_ms;
    if (waits_for_alert(t))
        at = earlier(at, ex->first_byte_us / 1000 + TUNNEL_ALERT_MS);
    if (client_waits(ex))
        at = earlier(at, worker_now_ms(ex->w) + LINGER_MS);
    return at == INT64_MAX ? OFF : at;
}

void tunnel_on_deadline(struct exchange *ex)
{
    int64_t now_ms = worker_now_ms(ex->w);
    int64_t idle_ms = ex->route->cfg->timeouts.tunnel_idle_ms;
    if (!ex->tunnel->sniffing && idle_ms != OFF && now_ms >= ex->last_move_ms + idle_ms) {
        judge_half_alert(ex);
        /* Who was asked nothing has missed nothing. */
        attempt_failed(&ex->attempt, ex->request_bytes ? OUTCOME_TIMEOUT : OUTCOME_LOCAL);
        finish(ex, true);
        return;
    }
    if (waits_for_alert(ex->tunnel) && now_ms >= ex->first_byte_us / 1000 + TUNNEL_ALERT_MS) {
        judge_late_alert(ex);
        ex->tunnel->down.looking = false;
        look_end(ex->tunnel);
    }
    if (client_waits(ex))
        look_for_reset(&ex->down->c);
    tunnel_run(ex);
}

void tunnel_free(struct exchange *ex)
{
    struct tunnel *t = ex->tunnel;
    if (!t)
        return;
    tunnels_remove(t);
    count_sub(&ex->w->c.tunnels, 1);
    tunnel_way_free(ex->w, &t->up);
    tunnel_way_free(ex->w, &t->down);
    free(t->look);
    free(t->sni);
    free(t);
    ex->tunnel = NULL;
}

void tunnel_cut(struct exchange *ex)
{
    judge_half_alert(ex);
    attempt_failed(&ex->attempt, OUTCOME_LOCAL);
    finish(ex, true);
}
