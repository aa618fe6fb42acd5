#include "proxy/conn.h"
#include "base/base.h"
#include "config/config.h"
#include <errno.h>
#include <event2/event.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#define FLUSH_IOVECS 16
#define MERGE_BYTES  4096
/* A body that moves goes on when the memory is full of those that stall: in blocks this
 * small, and one at a time, it costs little. */
#define SMALL_STEP_BYTES 2048
/* A timer that fires this late says that we were stopped, or busy, not that the peer was. */
#define LATE_MS 250

static void on_socket_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    struct conn *c = arg;
    worker_note_event(c->w);
    if (c->dead)
        return;
    if (what & EV_READ)
        c->readable = true;
    if (what & EV_WRITE)
        c->writable = true;
    if (what & EV_CLOSED)
        c->hangup = c->readable = true;
    c->ops->on_ready(c);
}

static void timer_arm(struct conn *c, int64_t at_ms)
{
    int64_t wait = at_ms - worker_now_ms(c->w);
    if (wait < 1)
        wait = 1;
    struct timeval tv = { .tv_sec = wait / 1000, .tv_usec = wait % 1000 * 1000 };
    c->timer_at_ms = at_ms;
    c->timer_armed = true;
    event_add(&c->timer, &tv);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct conn *c = arg;
    if (c->dead)
        return;
    c->timer_armed = false;
    if (c->deadline_ms == CONN_NO_DEADLINE)
        return;
    int64_t now_ms = worker_now_ms(c->w);
    if (c->deadline_ms > now_ms) {
        timer_arm(c, c->deadline_ms);
        return;
    }
    /* What came meanwhile lies in the socket and is seen to first, in one more turn. */
    if (now_ms - c->timer_at_ms >= LATE_MS && !c->excused) {
        c->excused = true;
        timer_arm(c, now_ms + 1);
        return;
    }
    c->excused = false;
    c->deadline_ms = CONN_NO_DEADLINE;
    c->ops->on_deadline(c);
}

void conn_init(struct conn *c, struct worker *w, int fd, const struct conn_ops *ops,
               bool connecting)
{
    *c = (struct conn){
        .w = w, .ops = ops, .fd = fd, .connecting = connecting, .deadline_ms = CONN_NO_DEADLINE
    };
    event_assign(&c->ev, w->base, fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST,
                 on_socket_event, c);
    event_add(&c->ev, NULL);
    evtimer_assign(&c->timer, w->base, on_timer, c);
}

void conn_close(struct conn *c)
{
    if (c->dead)
        return;
    c->dead = true;
    event_del(&c->ev);
    if (c->timer_armed)
        event_del(&c->timer);
    close(c->fd);
    c->fd = -1;
    conn_drop_in(c);
    conn_drop_out(c);
    list_remove(&c->run);
    list_add_tail(&c->w->graveyard, &c->run);
}

void conn_reset_on_close(struct conn *c)
{
    struct linger abort_now = { .l_onoff = 1, .l_linger = 0 };
    if (!c->dead)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &abort_now, sizeof(abort_now));
}

void conn_reset(struct conn *c)
{
    conn_reset_on_close(c);
    conn_close(c);
}

void conn_shutdown_write(struct conn *c)
{
    if (!c->dead)
        shutdown(c->fd, SHUT_WR);
}

/* A connection that moved its share waits for the next turn, so that one fast peer
 * cannot starve the others of this loop. */
static bool share_used_up(struct conn *c, size_t moved)
{
    if (c->turn != c->w->turn) {
        c->turn = c->w->turn;
        c->turn_bytes = 0;
    }
    c->turn_bytes += (uint32_t)moved;
    return c->turn_bytes >= CONN_TURN_BYTES;
}

static bool take_block(struct conn *c)
{
    if (c->in)
        return true;
    struct block_pool *pool = &c->w->blocks;
    c->in = c->urgent ? block_get_urgent(pool) : block_get(pool);
    if (!c->in && c->moving)
        c->in = block_get_outsized_urgent(pool, SMALL_STEP_BYTES);
    if (c->in)
        return true;
    COUNT(c->w->c.limit_buffered_total);
    list_remove(&c->run);
    list_add_tail(&c->w->starved, &c->run);
    return false;
}

void conn_make_sure(struct conn *c)
{
    char byte;
    if (!c->unsure || c->dead)
        return;
    c->unsure = false;
    c->readable = true;
    if (recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno == EINTR)
        return;
    if (errno == EAGAIN)
        c->readable = false;
    else
        c->error = errno; /* told only once: the next read would take it for a FIN */
}

enum io_result conn_read(struct conn *c, size_t want, size_t *got)
{
    *got = 0;
    if (c->dead || c->error)
        return IO_ERROR;
    if (c->eof)
        return IO_EOF;
    if (!c->readable)
        conn_make_sure(c);
    if (c->error)
        return IO_ERROR;
    if (!c->readable)
        return IO_AGAIN;
    if (share_used_up(c, 0)) {
        conn_run_again(c);
        return IO_YIELD;
    }
    if (!take_block(c))
        return IO_STARVED;
    size_t room = block_space(c->in) - BLOCK_TAILROOM;
    if (want > room)
        want = room;
    if (BUG(want == 0))
        return IO_AGAIN;
    ssize_t n = recv(c->fd, c->in->data + c->in->end, want, 0);
    if (n > 0) {
        c->in->end += (uint32_t)n;
        *got = (size_t)n;
        share_used_up(c, (size_t)n);
        /* A short read has emptied the socket, unless a FIN is still to be fetched. */
        if ((size_t)n < want && !c->hangup)
            c->readable = false, c->unsure = true;
        return IO_OK;
    }
    conn_release_empty(c);
    if (n == 0 && conn_end_is_reset(c)) {
        c->error = c->write_error;
        return IO_ERROR;
    }
    if (n == 0) {
        c->eof = true;
        return IO_EOF;
    }
    if (errno == EAGAIN || errno == EINTR) {
        c->readable = errno == EINTR;
        return IO_AGAIN;
    }
    c->error = errno;
    return IO_ERROR;
}

/* Drops n written bytes from the front of the chain. */
static void out_consume(struct conn *c, size_t n)
{
    c->out_bytes -= n;
    while (n > 0) {
        struct block *b = c->out_head;
        uint32_t len = block_len(b);
        if (n < len) {
            b->start += (uint32_t)n;
            return;
        }
        n -= len;
        b->start = b->end;
        c->out_head = b->next;
        if (!c->out_head)
            c->out_tail = NULL;
        b->next = NULL;
        if (!b->pinned)
            block_put(&c->w->blocks, b);
    }
}

void conn_write_failed(struct conn *c, int error)
{
    c->write_error = error;
    c->readable = true; /* the read tells what is left, and how it ended */
}

/* EPIPE: the peer had ended before. */
bool conn_end_is_reset(const struct conn *c)
{
    return c->write_error != 0 && c->write_error != EPIPE;
}

int conn_unsent_bytes(const struct conn *c)
{
    int unsent = 0;
    return ioctl(c->fd, SIOCOUTQNSD, &unsent) < 0 ? 0 : unsent;
}

bool conn_all_taken(const struct conn *c)
{
    int unacknowledged = 0;
    return ioctl(c->fd, SIOCOUTQ, &unacknowledged) == 0 && unacknowledged == 0;
}

enum io_result conn_flush(struct conn *c)
{
    if (c->dead || c->write_error)
        return IO_ERROR;
    while (c->out_bytes > 0) {
        if (!c->writable)
            return IO_AGAIN;
        struct iovec iov[FLUSH_IOVECS];
        int n = 0;
        size_t total = 0;
        for (struct block *b = c->out_head; b && n < FLUSH_IOVECS; b = b->next) {
            iov[n++] = (struct iovec){ block_bytes(b), block_len(b) };
            total += block_len(b);
        }
        ssize_t sent =
            n == 1 ? send(c->fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL)
                   : sendmsg(c->fd, &(struct msghdr){ .msg_iov = iov, .msg_iovlen = (size_t)n },
                             MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            if (errno == EAGAIN) {
                c->writable = false;
                return IO_AGAIN;
            }
            conn_write_failed(c, errno);
            return IO_ERROR;
        }
        out_consume(c, (size_t)sent);
        if ((size_t)sent < total)
            c->writable = false;
    }
    return IO_OK;
}

/* Little is copied behind what waits already: a chain of nearly empty blocks would hold
 * far more memory than limits.buffer says. */
static bool merge(struct conn *c, struct block *b)
{
    struct block *tail = c->out_tail;
    if (!tail || tail->pinned || b->pinned || block_len(b) > MERGE_BYTES ||
        block_len(b) > block_space(tail))
        return false;
    block_add(tail, block_bytes(b), block_len(b));
    c->out_bytes += block_len(b);
    block_put(&c->w->blocks, b);
    return true;
}

void conn_enqueue(struct conn *c, struct block *b)
{
    if (c->dead || block_len(b) == 0) {
        if (!b->pinned)
            block_put(&c->w->blocks, b);
        return;
    }
    if (merge(c, b))
        return;
    b->next = NULL;
    if (c->out_tail)
        c->out_tail->next = b;
    else
        c->out_head = b;
    c->out_tail = b;
    c->out_bytes += block_len(b);
}

void conn_enqueue_bytes(struct conn *c, const void *data, size_t len)
{
    const uint8_t *p = data;
    while (len > 0 && !c->dead) {
        struct block *b = c->out_tail;
        if (!b || b->pinned || block_space(b) == 0) {
            b = block_get_urgent(&c->w->blocks);
            size_t n = len < block_space(b) ? len : block_space(b);
            block_add(b, p, n);
            conn_enqueue(c, b);
            p += n;
            len -= n;
            continue;
        }
        size_t n = len < block_space(b) ? len : block_space(b);
        block_add(b, p, n);
        c->out_bytes += n;
        p += n;
        len -= n;
    }
}

void conn_drop_in(struct conn *c)
{
    block_put(&c->w->blocks, c->in);
    c->in = NULL;
}

void conn_drop_out(struct conn *c)
{
    while (c->out_head) {
        struct block *b = c->out_head;
        c->out_head = b->next;
        b->next = NULL;
        if (!b->pinned)
            block_put(&c->w->blocks, b);
    }
    c->out_tail = NULL;
    c->out_bytes = 0;
}

void conn_release_empty(struct conn *c)
{
    if (c->in && block_len(c->in) == 0)
        conn_drop_in(c);
}

void conn_set_deadline(struct conn *c, int64_t at_ms)
{
    if (c->dead)
        return;
    c->deadline_ms = at_ms;
    if (at_ms != CONN_NO_DEADLINE && (!c->timer_armed || at_ms < c->timer_at_ms))
        timer_arm(c, at_ms);
}

void conn_run_again(struct conn *c)
{
    if (c->dead || list_linked(&c->run))
        return;
    list_add_tail(&c->w->runq, &c->run);
}

int conn_connect_error(struct conn *c)
{
    int err = 0;
    socklen_t len = sizeof(err);
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        return errno;
    return err;
}

void conn_send_at_once(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

void conn_keepalive(int fd, int64_t after_ms)
{
    int on = after_ms != OFF, seconds = (int)(after_ms / 1000), probes = 3;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    if (!on)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof(seconds));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}
