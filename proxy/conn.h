/*
 * conn.h - one socket of the data path: readiness, bytes, one lazy timer.
 *
 * All data-path I/O goes through conn_read and conn_flush, never a bare descriptor,
 * so that TLS has a place.  One persistent edge-triggered event per socket; what it
 * said is remembered in the connection.  The timer is re-armed only when it must fire
 * earlier: deadlines are stored, the timer finds out when it fires.
 */
#ifndef PROXY_CONN_H
#define PROXY_CONN_H
#include "proxy/buffer.h"
#include "proxy/worker.h"
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define CONN_NO_DEADLINE INT64_MAX
#define CONN_TURN_BYTES  (256 * 1024) /* per connection and turn, then others have theirs */

struct conn;

struct conn_ops {
    void (*on_ready)(struct conn *c);    /* readable, writable, or queued for another turn */
    void (*on_deadline)(struct conn *c); /* its deadline has passed (and is cleared) */
    void (*free)(struct conn *c);        /* after its callbacks have returned */
};

struct conn {
    struct worker *w;
    const struct conn_ops *ops;
    int fd;
    int error;       /* errno of a failed read; 0 */
    int write_error; /* errno of a failed write: what came in may still be read */
    bool connecting : 1;
    bool readable : 1;
    bool unsure : 1; /* a short read has emptied the socket, unless a reset came with the bytes:
                        libevent tells of both in the words of either */
    bool writable : 1;
    bool hangup : 1; /* epoll saw the peer's FIN; bytes may be left to read */
    bool eof : 1;    /* a read returned 0 */
    bool dead : 1;   /* closed; freed at the end of the turn */
    bool timer_armed : 1;
    bool excused : 1; /* its timer came late, and has been put off once */
    bool moving : 1;  /* what it read last has been passed on: may go on in small steps past
                         the limit */
    bool urgent : 1;  /* reads a head: may take a block past the limit, to be able to answer */
    uint32_t turn_bytes;
    uint64_t turn;    /* that turn_bytes counts */
    struct block *in; /* received, not yet consumed; one contiguous run */
    struct block *out_head, *out_tail;
    size_t out_bytes;
    int64_t deadline_ms;
    int64_t timer_at_ms;
    struct list run; /* in runq, starved or graveyard */
    struct event ev;
    struct event timer;
};

/* Takes over fd (non-blocking).  connecting: the first writability is the connect's result. */
void conn_init(struct conn *c, struct worker *w, int fd, const struct conn_ops *ops,
               bool connecting);
/* Closes now, frees later; every call after it is ignored. */
void conn_close(struct conn *c);
/* The same with a reset, so that the peer cannot take what it got for complete. */
void conn_reset(struct conn *c);
void conn_reset_on_close(struct conn *c); /* the later close will be a reset */
void conn_shutdown_write(struct conn *c);

/* Whether splice(2) may move this connection's bytes past us: not once TLS is on it. */
static inline bool conn_splice_ok(const struct conn *c)
{
    return !c->dead;
}

enum io_result {
    IO_OK,    /* some bytes moved */
    IO_AGAIN, /* nothing now; an event will come */
    IO_EOF,
    IO_ERROR,   /* c->error or c->write_error says which */
    IO_STARVED, /* no buffer block free; queued, on_ready comes when there is one */
    IO_YIELD,   /* this turn's share is used up; queued for the next turn */
};

/* Reads into c->in (taking a block if there is none), up to `want` bytes. */
enum io_result conn_read(struct conn *c, size_t want, size_t *got);
/* Writes as much of the out chain as the socket takes.  IO_OK: all of it. */
enum io_result conn_flush(struct conn *c);
void conn_enqueue(struct conn *c, struct block *b); /* takes b over (not a pinned one) */
/* Copies into the last out block or a new one (of the reserve, if the limit is reached: only
 * for little, so that an answer can always be finished). */
void conn_enqueue_bytes(struct conn *c, const void *data, size_t len);
/* A whole message has been read: nothing more is waited for now, so it need not be found out
 * whether a reset came with its last bytes.  A later write tells. */
static inline void conn_settled(struct conn *c)
{
    c->unsure = false;
}
/* The loop has learned something of it that on_ready has not been told yet. */
static inline bool conn_has_news(const struct conn *c)
{
    return (c->ev.ev_evcallback.evcb_flags & EVLIST_ACTIVE) != 0;
}
/* After a short read: asks the kernel what is behind it. */
void conn_make_sure(struct conn *c);
void conn_drop_in(struct conn *c); /* gives c->in back */
void conn_drop_out(struct conn *c);
/* Gives c->in back if it holds nothing. */
void conn_release_empty(struct conn *c);

void conn_set_deadline(struct conn *c, int64_t at_ms); /* monotonic; CONN_NO_DEADLINE clears */
void conn_run_again(struct conn *c);                   /* on_ready at the end of this turn */
/* Nothing waits for more to fill a segment. */
void conn_send_at_once(int fd);
/* timeouts.keepalive finds peers that are gone without a word; OFF: nobody asks them. */
void conn_keepalive(int fd, int64_t after_ms);
int conn_connect_error(struct conn *c); /* SO_ERROR of a finished connect */
void conn_write_failed(struct conn *c, int error);
/* Whether the end that a read has found is a reset that a write was told of: no FIN came. */
bool conn_end_is_reset(const struct conn *c);
int conn_unsent_bytes(const struct conn *c); /* written, and still with our kernel */
/* Every byte written has been taken by the peer's kernel: no reset can lose it any more. */
bool conn_all_taken(const struct conn *c);

#endif
