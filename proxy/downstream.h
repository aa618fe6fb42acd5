/*
 * downstream.h - a client connection: reads heads, one exchange at a time.
 *
 * Pipelined requests wait in the input block until the one before them is answered.
 * After an answer that leaves a request body unread, the connection lingers: it says
 * that no more will come, throws away what still arrives, within bounds, and closes, so
 * that the answer is not lost to a reset (RFC 9112 9.6).
 */
#ifndef PROXY_DOWNSTREAM_H
#define PROXY_DOWNSTREAM_H
#include "proxy/authority.h"
#include "proxy/conn.h"
#include "proxy/dns.h"
#include "proxy/gate.h"
#include "proxy/metrics.h"
#include "proxy/probe.h"
#include <stdbool.h>
#include <stdint.h>

struct exchange;
struct tls_hello;
struct upstream;

#define EMPTY_LINES_MAX 4 /* before a request line (RFC 9112 2.2) */
#define LINGER_MS       5000
#define LINGER_BYTES    (1024 * 1024) /* or more, while the answer is still with our kernel */

/* Why a connection gets one error answer instead of service. */
enum turned_away {
    TURNED_AWAY_NO,
    TURNED_AWAY_LIMIT,
    TURNED_AWAY_CLIENT_LIMIT,
    TURNED_AWAY_ADDRESS
};

/* A CONNECT that turned out to carry plain HTTP. */
struct inner {
    struct authority to;
    char host[HOST_MAX + 10]; /* Host for requests that come without one */
    bool covered;             /* the next request goes by the verdict on the CONNECT, if it
                                 takes the same route of the same snapshot: */
    size_t route;             /* its index */
    uint64_t generation;
    struct gate_result gate;
    enum gate_verdict verdict;
    uint32_t breaker;
    bool shadow;            /* and by what shadow mode noted, */
    int64_t probe_left_ms;  /* within what is left of its time (0: it has no end), */
    struct probe_pass pass; /* with its leases */
    int64_t connected_us;   /* time its connection took, for the first request on it */
};

struct downstream {
    struct conn c;
    struct list link;         /* in worker->downstreams */
    struct exchange *ex;      /* NULL: between requests */
    struct inner *inner;      /* owned; NULL: not inside a CONNECT */
    struct address *original; /* owned; redirected to us: where it was going */
    struct tls_hello *hello;  /* owned; while undecided */
    struct list parked;       /* struct upstream: NTLM or Negotiate, ours alone */
    struct address client;
    size_t scanned; /* of the head in c.in; while undecided: of what may be a request line */
    size_t linger_left;
    uint32_t client_slot; /* of connections_per_client's table; 0: not counted */
    uint8_t empty_lines;  /* before the request line */
    uint8_t turned_away;  /* enum turned_away */
    uint8_t mode;         /* enum traffic_mode, that it is counted by */
    bool undecided;       /* redirected, and not yet clear what the client speaks */
    bool lingering;
    bool head_timed; /* the deadline is the head's */
};

/* Takes over an accepted socket.  original: NULL, or where a redirected one was going. */
void downstream_new(struct worker *w, int fd, const struct address *client,
                    const struct address *original, enum turned_away turned_away,
                    uint32_t client_slot);
void downstream_close(struct downstream *d);
/* A CONNECT was granted: whatever it carries, nothing else comes on this connection. */
void downstream_connected(struct downstream *d);
/* What remains to be written is cut short on purpose: the peer must notice. */
void downstream_reset(struct downstream *d);
/* The start of a head is here, and must be all here within timeouts.client_header. */
void downstream_await_head(struct downstream *d);
/* For at least one more byte behind those that are here, up to limit bytes.  False: limit is
 * reached, or no memory is left. */
bool downstream_make_room(struct downstream *d, size_t limit);
/* The exchange is over.  keep: serve the next request. linger: the peer may still be sending. */
void downstream_exchange_done(struct downstream *d, bool keep, bool linger);

#endif
