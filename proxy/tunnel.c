#include "proxy/tunnel.h"
#include "base/base.h"
#include "proxy/exchange.h"
#include "proxy/judge.h"
#include "proxy/proxy.h"
#include "proxy/relay.h"
#include "proxy/snapshot.h"
#include "proxy/tls_hello.h"
#include "sync/breakers.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define SPLICE_CHUNK (64 * 1024)
#define SPLICE_WORTH 4096 /* smaller bursts are copied again, so that pipes go where bulk is */

/* ---- What is inside (pure) ---- */

enum sniff tunnel_sniff(const uint8_t *data, size_t len)
{
    static const char tails[2][10] = { " HTTP/1.0", " HTTP/1.1" };
    size_t end = 0;
    while (end < len && end < TUNNEL_SNIFF_MAX && data[end] != '\r' && data[end] != '\n') {
        /* A request line is printable, and begins with a method. */
        if (data[end] < 0x20 || data[end] == 0x7f || (end == 0 && data[end] == ' '))
            return SNIFF_OPAQUE;
        end++;
    }
    if (len >= 3 && memcmp(data, "PRI", 3) == 0)
        return SNIFF_OPAQUE; /* HTTP/2 */
    const uint8_t *space = memchr(data, ' ', end);
    struct slice method = { (const char *)data, space ? (size_t)(space - data) : end };
    if (end > 0 && !http1_is_token(method))
        return SNIFF_OPAQUE;
    if (space && slice_eq(method, SLICE("CONNECT")))
        return SNIFF_OPAQUE; /* for the next proxy of a chain */
    if (end == len && end < TUNNEL_SNIFF_MAX)
        return SNIFF_MORE;
    if (end == TUNNEL_SNIFF_MAX)
        return SNIFF_OPAQUE; /* no line that long is a request's */
    for (size_t i = 0; i < ARRAY_LEN(tails); i++)
        if (end > 9 && memcmp(data + end - 9, tails[i], 9) == 0)
            return SNIFF_HTTP;
    return SNIFF_OPAQUE;
}

/* ---- Pipes ---- */

static struct tunnel_pipe *pipe_take(struct worker *w)
{
    struct tunnel_pipe *p = w->free_pipes;
    if (p) {
        w->free_pipes = p->next;
        return p;
    }
    if (w->pipe_count >= TUNNEL_PIPES_MAX)
        return NULL;
    p = xcalloc(1, sizeof(*p));
    if (pipe2(p->fds, O_NONBLOCK | O_CLOEXEC) < 0) {
        free(p);
        return NULL;
    }
    w->pipe_count++;
    return p;
}

static void pipe_destroy(struct worker *w, struct tunnel_pipe *p)
{
    close(p->fds[0]);
    close(p->fds[1]);
    free(p);
    w->pipe_count--;
}

static void pipe_give_back(struct worker *w, struct tunnel_pipe *p)
{
    if (p->bytes > 0) { /* what is left in it belongs to nobody else */
        pipe_destroy(w, p);
        return;
    }
    p->next = w->free_pipes;
    w->free_pipes = p;
}

void tunnel_pipes_free(struct worker *w)
{
    while (w->free_pipes) {
        struct tunnel_pipe *p = w->free_pipes;
        w->free_pipes = p->next;
        pipe_destroy(w, p);
    }
}

/* ---- One direction ---- */

enum way_result { WAY_OPEN, WAY_ENDED, WAY_BROKEN };

struct way_run {
    struct exchange *ex;
    struct tunnel_way *way;
    struct conn *from, *to;
    uint64_t moved;    /* bytes that came from the source */
    bool wrote;        /* the sink took some */
    bool sink_waiting; /* the sink takes no more now */
};

/* Empties the pipe into the sink. 0: empty; 1: the sink is full; -1: broken. */
static int pipe_drain(struct way_run *r)
{
    struct tunnel_pipe *p = r->way->pipe;
    while (p->bytes > 0) {
        if (!r->to->writable)
            return 1;
        ssize_t n =
            splice(p->fds[0], NULL, r->to->fd, NULL, p->bytes, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        if (n > 0) {
            p->bytes -= (size_t)n;
            r->wrote = true;
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            r->to->writable = false;
            return 1;
        }
        r->to->write_error = n < 0 ? errno : EPIPE;
        return -1;
    }
    return 0;
}

/* One fill of the pipe. 1: bytes came; 0: nothing now; -1: broken.  Sets eof. */
static int pipe_fill(struct way_run *r)
{
    struct tunnel_pipe *p = r->way->pipe;
    if (!r->from->readable)
        return 0;
    ssize_t n;
    do {
        n = splice(r->from->fd, NULL, p->fds[1], NULL, SPLICE_CHUNK,
                   SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        p->bytes += (size_t)n;
        r->moved += (uint64_t)n;
        return 1;
    }
    if (n == 0) {
        r->from->eof = r->way->eof = true;
        return 0;
    }
    if (errno == EAGAIN) {
        r->from->readable = false;
        return 0;
    }
    r->from->error = errno;
    return -1;
}

static enum way_result run_splice(struct way_run *r)
{
    size_t turn_bytes = 0;
    for (;;) {
        int drained = pipe_drain(r);
        if (drained < 0)
            return WAY_BROKEN;
        if (drained > 0) {
            r->sink_waiting = true;
            return WAY_OPEN;
        }
        if (r->way->eof || turn_bytes >= CONN_TURN_BYTES)
            break;
        uint64_t before = r->moved;
        int filled = pipe_fill(r);
        if (filled < 0)
            return WAY_BROKEN;
        if (filled == 0 && !r->way->eof)
            break;
        turn_bytes += (size_t)(r->moved - before);
    }
    /* Empty: an idle direction holds no pipe. */
    pipe_give_back(r->ex->w, r->way->pipe);
    r->way->pipe = NULL;
    if (turn_bytes >= CONN_TURN_BYTES)
        conn_run_again(r->from);
    else if (turn_bytes < SPLICE_WORTH)
        r->way->full_reads = 0;
    return r->way->eof ? WAY_ENDED : WAY_OPEN;
}

static enum way_result run_copy(struct way_run *r)
{
    struct http1_body raw;
    http1_body_init(&raw, FRAMING_CLOSE, 0);
    struct relay relay = { .from = r->from,
                           .to = r->to,
                           .body = &raw,
                           .buffer_limit = BLOCK_SIZE * 2,
                           .budget = SIZE_MAX };
    enum relay_result res = relay_body(&relay);
    r->moved += relay.moved;
    r->wrote |= relay.wrote_any;
    if (relay.moved >= 2 * (BLOCK_BYTES - BLOCK_HEADROOM - BLOCK_TAILROOM))
        r->way->full_reads = 2;
    switch (res) {
    case RELAY_DONE:
        r->way->eof = true;
        return WAY_ENDED;
    case RELAY_WAIT_SINK:
        r->sink_waiting = true;
        return WAY_OPEN;
    case RELAY_WAIT_SOURCE:
    case RELAY_YIELD:
        return WAY_OPEN;
    case RELAY_SOURCE_EOF:
    case RELAY_SOURCE_ERROR:
    case RELAY_SINK_ERROR:
    case RELAY_MALFORMED:
        break;
    }
    return WAY_BROKEN;
}

/* All that was queued by copying must be out before the pipe may write. */
static bool may_splice(const struct way_run *r)
{
    return r->way->full_reads >= 2 && r->to->out_bytes == 0 && !r->from->in &&
           conn_splice_ok(r->from) && conn_splice_ok(r->to);
}

/* The source has ended: no read will tell of its reset any more. */
static enum way_result run_ended(struct way_run *r)
{
    size_t before = r->to->out_bytes;
    if (r->from->readable) {
        r->from->readable = false;
        r->from->error = conn_connect_error(r->from);
        if (r->from->error)
            return WAY_BROKEN;
    }
    if (conn_flush(r->to) == IO_ERROR)
        return WAY_BROKEN;
    r->wrote |= r->to->out_bytes < before;
    return WAY_ENDED;
}

static enum way_result run_way(struct way_run *r)
{
    if (r->way->eof && !r->way->pipe)
        return run_ended(r);
    if (!r->way->pipe && may_splice(r))
        r->way->pipe = pipe_take(r->ex->w);
    return r->way->pipe ? run_splice(r) : run_copy(r);
}

/* The source has ended: once everything is delivered the sink is told. */
static void pass_end(struct way_run *r)
{
    if (!r->way->shut && r->to->out_bytes == 0 && !r->way->pipe) {
        r->way->shut = true;
        conn_shutdown_write(r->to);
    }
}

/* ---- Judging ---- */

/* A fatal alert instead of a ServerHello (RFC 8446 6). */
static bool is_tls_alert(const struct exchange *ex, const struct block *in)
{
    return ex->tunnel->client_hello && in && block_len(in) >= 7 && in->data[in->start] == 0x15 &&
           in->data[in->start + 5] == 2;
}

/* Looked at where it lies; it travels on as it came. */
static void note_client_hello(struct exchange *ex, const struct block *in)
{
    struct slice name;
    const uint8_t *data = in->data + in->start;
    ex->tunnel->client_hello = block_len(in) >= 2 && data[0] == 0x16 && data[1] == 3;
    if (tls_hello_parse(data, block_len(in), &name) != TLS_HELLO_DONE)
        return;
    size_t len = name.len < sizeof(ex->sni) - 1 ? name.len : sizeof(ex->sni) - 1;
    memcpy(ex->sni, name.p, len);
    ex->sni[len] = '\0';
}

static void note_client_bytes(struct exchange *ex)
{
    if (ex->request_bytes == 0 && !ex->first_byte_us) {
        note_client_hello(ex, ex->down->c.in);
        ex->start_us = worker_now_us(ex->w); /* the tunnel's latency counts from here */
        ex->client_wait_us = 0;
    }
}

static void note_first_upstream_byte(struct exchange *ex)
{
    if (ex->first_byte_us)
        return;
    ex->first_byte_us = ex->last_upstream_us = worker_now_us(ex->w);
    attempt_response_byte(&ex->attempt);
    if (ex->attempt.fixed) {
        COUNT(ex->w->c.late_answers_total);
        return;
    }
    if (is_tls_alert(ex, ex->up->c.in))
        attempt_failed(&ex->attempt, OUTCOME_TLS);
    else
        attempt_end(&ex->attempt);
    judge_record(ex);
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

/* ---- Both directions ---- */

static void finish(struct exchange *ex, bool broken)
{
    bool judged_bad = ex->attempt.fixed && !ex->attempt.ok && !ex->attempt.neutral;
    bool aborted = ex->attempt.fixed && ex->attempt.outcome == OUTCOME_CLIENT_ABORT;
    ex->tunnel_broken = broken;
    exchange_finish(ex, aborted                            ? RESULT_CLIENT_ABORTED
                        : judged_bad && !ex->first_byte_us ? RESULT_FAILED
                        : ex->bypassed                     ? RESULT_BYPASSED
                                                           : RESULT_FORWARDED);
}

static void judge_client_gone(struct exchange *ex, int64_t at_ms)
{
    if (ex->attempt.fixed)
        return;
    COUNT(ex->w->c.client_errors_aborted);
    attempt_client_gone(&ex->attempt, at_ms);
    judge_record(ex);
}

/* An upstream that ends once the client has ended follows its example. */
static void judge_upstream_gone(struct exchange *ex)
{
    if (ex->fin_ms)
        judge_client_gone(ex, ex->fin_ms);
    else
        judge_failed(ex, OUTCOME_RESET);
}

/* The block that waits behind the read is looked at before it travels on. */
static void peek_source(struct conn *c)
{
    size_t got;
    if (!c->in && c->readable)
        conn_read(c, BLOCK_SIZE, &got);
}

static bool broke_at_source(const struct way_run *r)
{
    return r->from->error != 0;
}

static void move(struct exchange *ex)
{
    struct tunnel *t = ex->tunnel;
    struct conn *client = &ex->down->c, *server = &ex->up->c;
    struct way_run up = { .ex = ex, .way = &t->up, .from = client, .to = server };
    struct way_run down = { .ex = ex, .way = &t->down, .from = server, .to = client };

    if (!ex->first_byte_us) {
        peek_source(client);
        peek_source(server);
        if (client->in)
            note_client_bytes(ex);
        if (server->in)
            note_first_upstream_byte(ex);
    }
    enum way_result u = run_way(&up), d = run_way(&down);
    ex->request_bytes += up.moved;
    ex->response_bytes += down.moved;
    count_add(&ex->w->c.tunnel_bytes_up, up.moved);
    count_add(&ex->w->c.tunnel_bytes_down, down.moved);
    if (up.moved || up.wrote || down.moved || down.wrote)
        ex->last_move_ms = worker_now_ms(ex->w);
    if (down.moved)
        note_first_upstream_byte(ex);
    run_tunnel_clock(ex, up.moved > 0 || up.wrote);

    if (u == WAY_BROKEN || d == WAY_BROKEN) {
        bool client_side = u == WAY_BROKEN ? broke_at_source(&up) : !broke_at_source(&down);
        if (client_side)
            judge_client_gone(ex, ex->fin_ms ? ex->fin_ms : worker_now_ms(ex->w));
        else
            judge_upstream_gone(ex);
        finish(ex, true);
        return;
    }
    if (t->up.eof && !ex->fin_ms && !t->down.eof)
        ex->fin_ms = worker_now_ms(ex->w);
    if (u == WAY_ENDED)
        pass_end(&up);
    if (d == WAY_ENDED) {
        pass_end(&down);
        judge_upstream_gone(ex); /* unless a byte came before */
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
        peek_source(&ex->up->c);
        if (ex->up->c.in || ex->up->c.eof || ex->up->c.error ||
            worker_now_ms(ex->w) >= t->sniff_until_ms) {
            go_opaque(ex);
            return false;
        }
    }
    for (;;) {
        if (client->in && block_len(client->in) > 0) {
            switch (tunnel_sniff(block_bytes(client->in), block_len(client->in))) {
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
    list_add_tail(&ex->w->tunnels, &t->link);
    COUNT(ex->w->c.tunnels);
    atomic_fetch_add(&ex->w->proxy->tunnels, 1);
    ex->last_move_ms = worker_now_ms(ex->w);
    if (ex->is_connect) {
        ex->start_us = worker_now_us(ex->w);
        attempt_clock_stop(&ex->attempt);
    }
    tunnel_run(ex);
}

void tunnel_run(struct exchange *ex)
{
    struct downstream *d = ex->down;
    if (ex->tunnel->sniffing) {
        if (conn_flush(&d->c) == IO_ERROR) {
            judge_client_gone(ex, worker_now_ms(ex->w));
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

int64_t tunnel_deadline(const struct exchange *ex)
{
    const struct tunnel *t = ex->tunnel;
    int64_t idle_ms = ex->route->cfg->timeouts.tunnel_idle_ms;
    if (t->sniffing)
        return t->sniff_until_ms;
    return idle_ms == OFF ? OFF : ex->last_move_ms + idle_ms;
}

void tunnel_on_deadline(struct exchange *ex)
{
    int64_t now_ms = worker_now_ms(ex->w);
    int64_t idle_ms = ex->route->cfg->timeouts.tunnel_idle_ms;
    if (!ex->tunnel->sniffing && idle_ms != OFF && now_ms >= ex->last_move_ms + idle_ms) {
        /* Who was asked nothing has missed nothing. */
        attempt_failed(&ex->attempt, ex->request_bytes ? OUTCOME_TIMEOUT : OUTCOME_LOCAL);
        finish(ex, true);
        return;
    }
    tunnel_run(ex);
}

void tunnel_free(struct exchange *ex)
{
    struct tunnel *t = ex->tunnel;
    if (!t)
        return;
    list_remove(&t->link);
    count_sub(&ex->w->c.tunnels, 1);
    atomic_fetch_sub(&ex->w->proxy->tunnels, 1);
    if (t->up.pipe)
        pipe_give_back(ex->w, t->up.pipe);
    if (t->down.pipe)
        pipe_give_back(ex->w, t->down.pipe);
    free(t);
    ex->tunnel = NULL;
}

/* ---- Open breakers reach tunnels ---- */

static bool breaker_open(const struct exchange *ex)
{
    const struct breakers *b = ex->w->proxy->breakers;
    unsigned count, flags = breakers_flags(b);
    if (flags & (STATE_STALE | STATE_BYPASS) || ex->ungated || ex->route->cfg->mode != MODE_ENFORCE)
        return false;
    const uint32_t *ids = target_breakers(ex->target, ex->w, ex->snap, ex->route, &count);
    for (unsigned i = 0; i < count; i++)
        if (breaker_unpack(breakers_load(b, ids[i])).state == BREAKER_OPEN)
            return true;
    return false;
}

void tunnels_tick(struct worker *w)
{
    int64_t now_ms = worker_now_ms(w);
    for (struct list *l = w->tunnels.next, *next; l != &w->tunnels; l = next) {
        next = l->next;
        struct exchange *ex = CONTAINER(l, struct tunnel, link)->ex;
        enum tunnels_on_open rule = ex->route->cfg->tunnels_on_open;
        bool idle = now_ms - ex->last_move_ms >= TUNNEL_IDLE_OPEN_MS;
        if (rule == TUNNELS_KEEP || (rule == TUNNELS_CLOSE_IDLE && !idle) || !breaker_open(ex))
            continue;
        COUNT(w->c.tunnels_closed_on_open);
        attempt_failed(&ex->attempt, OUTCOME_LOCAL);
        finish(ex, true);
    }
}
