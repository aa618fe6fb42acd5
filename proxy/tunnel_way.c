#include "proxy/tunnel_way.h"
#include "base/base.h"
#include "proxy/relay.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* A pipe of the usual 64 KiB needs twice the CPU for each byte; 1 MiB is what anybody may have.
 * Few are that large, because the kernel lets a user have 64 MiB of pipes in all, and makes
 * further ones tiny. */
#define SPLICE_CHUNK    (1024 * 1024)
#define LARGE_PIPES_MAX 8    /* of a worker */
#define SPLICE_WORTH    4096 /* smaller bursts are copied again, so that pipes go where bulk is */
#define COPY_BYTES_MAX  ((size_t)BLOCK_SIZE * 2) /* queued for the sink */

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
    if (w->pipe_count < LARGE_PIPES_MAX) /* refused, it stays as it is: smaller, not wrong */
        fcntl(p->fds[0], F_SETPIPE_SZ, SPLICE_CHUNK);
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
        conn_write_failed(r->to, n < 0 ? errno : EPIPE);
        return -1;
    }
    return 0;
}

/* One fill of the pipe. 1: bytes came; 0: nothing now; -1: broken.  Sets eof. */
static int pipe_fill(struct way_run *r)
{
    struct tunnel_pipe *p = r->way->pipe;
    if (!r->from->readable)
        conn_make_sure(r->from);
    if (r->from->error)
        return -1;
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
    if (n == 0 && conn_end_is_reset(r->from)) {
        r->from->error = r->from->write_error;
        return -1;
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
        if (drained > 0)
            return WAY_OPEN;
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
    pipe_give_back(r->w, r->way->pipe);
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
                           .buffer_limit = COPY_BYTES_MAX,
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

static bool flush(struct way_run *r)
{
    size_t before = r->to->out_bytes;
    if (conn_flush(r->to) == IO_ERROR)
        return false;
    r->wrote |= r->to->out_bytes < before;
    return true;
}

/* The source has ended: no read will tell of its reset any more. */
static enum way_result run_ended(struct way_run *r)
{
    if (r->from->readable && !r->from->error) {
        r->from->readable = false;
        r->from->error = conn_connect_error(r->from);
    }
    return flush(r) && !r->from->error ? WAY_ENDED : WAY_BROKEN;
}

/* Writes what was passed on; reads nothing that would not be looked at. */
static enum way_result run_looking(struct way_run *r)
{
    if (!flush(r))
        return WAY_BROKEN;
    if (r->from->in)
        return WAY_OPEN;
    r->way->eof = r->from->eof;
    return r->from->error ? WAY_BROKEN : r->from->eof ? WAY_ENDED : WAY_OPEN;
}

/* Without one the bytes are copied: slower, not wrong. */
static void take_pipe(struct way_run *r)
{
    r->way->pipe = pipe_take(r->w);
    if (!r->way->pipe && !r->way->pipeless)
        COUNT(r->w->c.limit_tunnel_pipes);
    r->way->pipeless = !r->way->pipe;
}

enum way_result tunnel_way_run(struct way_run *r)
{
    if (r->way->eof && !r->way->pipe)
        return run_ended(r);
    if (r->way->looking)
        return run_looking(r);
    if (!r->way->pipe && may_splice(r))
        take_pipe(r);
    return r->way->pipe ? run_splice(r) : run_copy(r);
}

const struct block *tunnel_way_peek(struct way_run *r)
{
    size_t got;
    if (!r->from->in && r->from->readable)
        conn_read(r->from, BLOCK_SIZE, &got);
    return r->from->in;
}

bool tunnel_way_pass(struct way_run *r)
{
    struct block *in = r->from->in;
    if (!in || (r->to->out_bytes >= COPY_BYTES_MAX && !flush(r)) ||
        r->to->out_bytes >= COPY_BYTES_MAX)
        return false;
    r->from->in = NULL;
    r->moved += block_len(in);
    conn_enqueue(r->to, in);
    return true;
}

bool tunnel_way_delivered(const struct way_run *r)
{
    return r->to->out_bytes == 0 && (!r->way->pipe || r->way->pipe->bytes == 0);
}

void tunnel_way_end(struct way_run *r)
{
    if (!r->way->shut && tunnel_way_delivered(r)) {
        r->way->shut = true;
        conn_shutdown_write(r->to);
    }
}

void tunnel_way_free(struct worker *w, struct tunnel_way *way)
{
    if (way->pipe)
        pipe_give_back(w, way->pipe);
    way->pipe = NULL;
}
