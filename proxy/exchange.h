/*
 * exchange.h - one request and its response, from the parsed head to the log line.
 *
 * The exchange owns the request while it travels; the files of the stations (route, gate,
 * upstream, relay, classify) do the work.  Events decide when, exchange_enter() keeps
 * the books, exchange_finish() is the one end.
 */
#ifndef PROXY_EXCHANGE_H
#define PROXY_EXCHANGE_H
#include "proxy/classify.h"
#include "proxy/downstream.h"
#include "proxy/gate.h"
#include "proxy/http1.h"
#include "proxy/metrics.h"
#include "proxy/pace.h"
#include "proxy/probe.h"
#include "proxy/reply.h"
#include "proxy/upstream.h"
#include <stdbool.h>
#include <stdint.h>

struct live_route;
struct snapshot;
struct target;
struct tunnel;

enum exchange_state {
    EX_HEAD,    /* the head has been read; route and gate decide */
    EX_CONNECT, /* waiting for a name or a connection */
    EX_AWAIT,   /* the request goes out; no final response head yet */
    EX_TUNNEL,  /* bytes both ways: CONNECT or an upgraded connection */
    EX_RELAY,   /* the response head has been passed on; the body moves */
    EX_REPLY,   /* we answer ourselves */
    EX_DONE,
    EX_STATE_COUNT,
};
const char *exchange_state_name(enum exchange_state s);

enum request_state {
    RQ_NONE,    /* no body */
    RQ_STREAM,  /* being read and passed on (or, before that, waiting to be) */
    RQ_DISCARD, /* being read and thrown away */
    RQ_DONE,
};

enum response_state {
    RS_NONE,   /* no final head yet */
    RS_STREAM, /* body moves */
    RS_DONE,   /* all of it has been read */
    RS_CUT,    /* ended too early: pass on what there is, then break */
};

#define EXCHANGE_PATH_MAX   256
#define EXCHANGE_REPLAY_MAX 8192 /* bytes of head and body kept for promise 5 */
#define UPGRADE_MAX         128  /* of the protocols passed on in Upgrade */
#define INTERIM_MAX         16   /* 1xx answers to one request */
#define FIN_GRACE_MS        1000
#define CLIENT_LOOK_MS      1000 /* a reset that came with the request is noticed after this */

struct exchange {
    enum exchange_state state;
    enum request_state rq;
    enum response_state rs;
    struct worker *w;
    struct downstream *down;
    struct upstream *up; /* borrowed; NULL: none */
    struct snapshot *snap;
    const struct live_route *route;
    struct target *target; /* a reference */
    struct attempt attempt;
    struct tunnel *tunnel;       /* EX_TUNNEL only */
    struct connect_job *job;     /* EX_CONNECT only */
    struct inspector *inspector; /* owned; NULL: nobody looks at the body */
    struct http1_body request_body;
    struct http1_body response_body;
    struct block *head; /* the request as sent upstream, pinned until it cannot be replayed */
    uint32_t head_start;

    bool attempt_begun : 1;
    bool recorded : 1; /* the verdict has been counted and sampled */
    bool client_http10 : 1;
    bool client_close : 1; /* the client asked to close */
    bool is_head : 1;
    bool idempotent : 1;
    bool replayable : 1;
    bool replayed : 1;
    bool expect_continue : 1;
    bool reused : 1;         /* sent on a pooled connection */
    bool private_auth : 1;   /* NTLM or Negotiate */
    bool upstream_bytes : 1; /* any byte came on this connection */
    bool upstream_reusable : 1;
    bool upload_broken : 1; /* the upstream takes no more of the request */
    bool chunked_out : 1;   /* the response leaves chunked */
    bool close_after : 1;   /* close the client connection after the answer */
    bool client_gone : 1;
    bool client_looked_at : 1;
    bool waiting_client : 1;
    bool head_sent : 1; /* a response head has been handed to the client */

    bool upstream_known : 1; /* upstream_address is valid */
    bool is_connect : 1;     /* opens a tunnel */
    bool silent : 1;         /* redirected bytes that are no HTTP: no answer of ours fits */
    bool upgrade : 1;        /* a listed Upgrade has been passed on */
    bool opaque : 1;         /* a tunnel's bytes, not HTTP */
    bool tunnel_broken : 1;  /* ended by a reset or by us, not by both sides */
    bool event_stream : 1;   /* the response is one */
    bool bypassed : 1;       /* the host is in the bypass list, or bypass is on */
    bool ungated : 1;        /* mode off, or in the bypass list: makes no samples */
    bool holds_tunnel : 1;   /* a place under limits.tunnels */
    bool no_place : 1;       /* there was none: it will not be tried */
    bool shadow : 1;         /* refused but for shadow mode; verdict says why */
    bool values_known : 1;   /* values is valid */

    enum traffic_mode mode;
    struct address upstream_address;
    uint64_t serial; /* of this worker; with the worker's index the request id */
    size_t scanned;  /* of the response head in up->c.in */
    uint8_t interim_count;
    enum gate_verdict verdict;
    struct gate_result gate;
    uint32_t breaker;       /* slot id of the deciding one; 0: none */
    unsigned status;        /* sent to the client; 0: none */
    enum proxy_error error; /* of our own answer */
    const char *detail;     /* static text behind it */

    int64_t start_us; /* head taken up */
    int64_t start_wall_ms;
    int64_t client_wait_us;       /* time spent waiting for the client */
    int64_t client_wait_began_us; /* valid while waiting_client */
    int64_t last_upstream_us;     /* last response byte read; 0: none */
    int64_t first_byte_us;        /* 0: none */
    int64_t connected_us;         /* time a new connection took; -1: reused */
    int64_t last_move_ms;         /* any byte of the exchange, for timeouts.idle */
    int64_t fin_ms;               /* client's FIN; 0: none */
    int64_t connect_deadline_ms;
    int64_t linger_until_ms; /* see exchange_flush_last; 0: not begun */
    int64_t probe_until_ms;  /* half_open.timeout cuts then; 0: never */
    int64_t pace_at_ms;      /* next look at how fast the bodies come; 0: nobody looks */
    struct pace request_pace, response_pace;
    uint64_t request_bytes, response_bytes; /* bodies */

    uint8_t trace_len;
    struct exchange *next_free;

    /* From here on nothing is cleared for a new request: it is large, and set when used. */
    struct probe_pass pass; /* its count is cleared */
    char method[16];        /* cut, for the log and tags */
    char path[EXCHANGE_PATH_MAX];
    char trace_id[64];
    char offered[UPGRADE_MAX];  /* if upgrade: the list sent */
    double values[MAX_METRICS]; /* of metrics that the response tells; NaN: not told */
};

/* Events. */
void exchange_on_downstream(struct exchange *ex);
void exchange_on_upstream(struct exchange *ex);
void exchange_on_deadline(struct exchange *ex);
void exchange_on_resolved(struct exchange *ex);
void exchange_on_connected(struct exchange *ex, struct upstream *up);
void exchange_on_connect_failed(struct exchange *ex);
/* Cut for a reason of ours (drain): neutral. */
void exchange_abort(struct exchange *ex);

/* The tunnel of this CONNECT carries plain HTTP: ex goes on as its first request. */
void exchange_become_inner(struct exchange *ex);

/* For the stations. */
struct exchange *exchange_new(struct downstream *d); /* of d's worker; d->ex is set */
bool exchange_is_unasked(const struct exchange *ex); /* the origin has not asked for the body */
const struct config *exchange_config(const struct exchange *ex);
unsigned exchange_slot(const struct exchange *ex); /* the route's, in worker_counters.routes */
void exchange_set_mode(struct exchange *ex, enum traffic_mode mode);
void exchange_enter(struct exchange *ex, enum exchange_state next);
void exchange_rearm(struct exchange *ex);      /* works out the next deadline */
void exchange_watch_pace(struct exchange *ex); /* a body begins: limits.min_body_rate */
/* Looks for a connection and sends the request; fresh: not from the pool. */
void exchange_connect(struct exchange *ex, bool fresh);
void exchange_forget_head(struct exchange *ex); /* it will not be sent again */
void exchange_drop_upstream(struct exchange *ex);
void exchange_release_upstream(struct exchange *ex, bool reusable);
/* Writes the last that the client is to have, an answer of ours or the rest of a cut one.  It
 * has LINGER_MS to take some of it, and again after each time it did; then it is reset. */
enum io_result exchange_flush_last(struct exchange *ex);
void exchange_finish(struct exchange *ex, enum request_result result);

void exchanges_free(struct worker *w);

#endif
