/*
 * upstream.h - connections to origins: opened, lent to one exchange, pooled.
 *
 * A new connection tries the addresses in the resolver's order, the next one after
 * 300 ms or an error (RFC 8305 in small).  A connection returns to the pool only if
 * no byte is left over and its address is still in the current answer.  A kept one goes to
 * where the configuration still lets it go, or it is closed.
 */
#ifndef PROXY_UPSTREAM_H
#define PROXY_UPSTREAM_H
#include "proxy/conn.h"
#include "proxy/dns.h"
#include "proxy/target.h"
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>

struct config;
struct downstream;
struct exchange;

struct upstream {
    struct conn c;
    struct list idle_link;    /* in target->idle */
    uint64_t released_in;     /* turn of the worker; 0: not yet.  Read with idle_link */
    struct list pool_link;    /* in worker->pool_lru */
    struct target *target;    /* a reference */
    struct exchange *ex;      /* the borrower; NULL: idle */
    struct list parked_link;  /* in owner->parked */
    struct downstream *owner; /* NTLM or Negotiate was seen: belongs to this client alone */
    struct address address;
    uint32_t own_place;  /* in proxy->own_conns; 0: none */
    uint64_t served;     /* exchanges before the present one */
    uint64_t allowed_in; /* generation of the snapshot that last let it go to its address */
};

#define CONNECT_PARALLEL 4
#define CONNECT_NEXT_MS  300

enum connect_failure {
    CONNECT_OK,
    CONNECT_DNS_FAILED,
    CONNECT_DNS_TIMEOUT,
    CONNECT_DNS_QUEUE_FULL,
    CONNECT_REFUSED,
    CONNECT_RESET, /* it stood, and was reset before we looked */
    CONNECT_TIMEOUT,
    CONNECT_ERROR,  /* unreachable and the like; error says which */
    CONNECT_LOCAL,  /* descriptors, ports, memory */
    CONNECT_DENIED, /* access.deny_destinations */
    CONNECT_LOOP,   /* our own proxy port */
    CONNECT_SELF,   /* our own telemetry or admin port */
};

/* An attempt to get a connection; an exchange has one only while it connects. */
struct connect_job {
    struct exchange *ex; /* NULL: in the worker's free list */
    struct connect_job *next_free;
    bool active;
    bool asking; /* query is with the resolver */
    struct dns_query query;
    struct dns_answer answer;
    unsigned next; /* address to try next */
    unsigned in_flight;
    struct {
        int fd; /* -1: free */
        unsigned address;
        struct event ev;
    } tries[CONNECT_PARALLEL];
    struct event stagger;
    bool stagger_armed;
    enum connect_failure failure; /* the most telling so far */
    int error;
    int64_t began_us;
};

enum upstream_start { UPSTREAM_READY, UPSTREAM_PENDING, UPSTREAM_FAILED };

/* Finds or opens a connection for ex->target.  fresh: not from the pool.  READY: *out is lent
 * to ex; PENDING: exchange_on_connected or exchange_on_connect_failed follows; FAILED:
 * ex->job->failure says why. */
enum upstream_start upstream_acquire(struct exchange *ex, bool fresh, struct upstream **out);
void upstream_cancel(struct exchange *ex); /* gives ex->job back; fine without one */
void connect_jobs_free(struct worker *w);
/* The exchange is done with it: to the pool, or parked with its owner, or closed. */
void upstream_release(struct upstream *up, bool reusable);
/* From now on it belongs to this client; beyond PARKED_MAX the oldest of them goes. */
#define PARKED_MAX 8
void upstream_park(struct upstream *up, struct downstream *owner);
void upstream_close(struct upstream *up);
/* It was redirected to ourselves. */
bool upstream_is_loop(const struct upstream *up);
void upstream_close_idle(struct worker *w); /* all of the pool */

/* Whether access.deny_destinations holds where it goes. */
bool upstream_is_denied(const struct upstream *up, const struct config *cfg);
void upstream_close_denied(struct worker *w); /* after a reload: those of the pool */

#endif
