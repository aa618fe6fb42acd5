/*
 * door.h - who may connect: this very process, and no more often than the limit.
 *
 * Any program of the same network namespace can connect to an abstract Unix socket, so
 * the kernel is asked for the peer's pid (SO_PEERCRED) before the first byte of a
 * connection is read; a stranger is shut out at once, with a warning once a minute.
 */
#ifndef CONTROL_DOOR_H
#define CONTROL_DOOR_H
#include <stddef.h>
#include <stdint.h>

struct event_base;
struct evhttp;
struct evhttp_request;
struct door;  /* opaque; event loop thread only, but for the counters */
struct guest; /* one connection that has sent a request; freed when it closes */

/* Takes hold of http: sets its bufferevent callback.  A connection that sends no request is
 * taken to be gone after patience_ms, which must be http's own timeout or more. */
struct door *door_new(struct event_base *base, struct evhttp *http, size_t connections_max,
                      int64_t patience_ms);
/* After evhttp_free().  NULL is fine. */
void door_free(struct door *d);

/* For each request; sets the connection's close callback. */
struct guest *door_guest(struct door *d, struct evhttp_request *req);
/* Called once when the connection closes, while req and its connection are still readable. */
void guest_on_gone(struct guest *g, void (*fn)(void *arg), void *arg);

/* Any thread. */
uint64_t door_strangers(const struct door *d);   /* shut out: another process */
uint64_t door_turned_away(const struct door *d); /* shut out: the limit */

#endif
