#include "control/door.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/log.h"
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define STRANGER_LINE_MS 60000 /* anybody may come as often as they please */

struct guest {
    struct door *door; /* borrowed */
    struct evhttp_connection *conn;
    void (*on_gone)(void *arg);
    void *arg;
    struct guest *next;
};

/* A connection without a request so far.  Only its address is kept: evhttp may have freed it. */
struct newcomer {
    const struct bufferevent *bev;
    int64_t since_ms;
};

struct door {
    struct event *check;
    struct bufferevent **unchecked; /* borrowed; they live until the check has run */
    size_t unchecked_count, unchecked_cap;
    struct newcomer *newcomers; /* owned, connections_max of them */
    size_t newcomer_count;
    struct guest *guests; /* owned */
    size_t guest_count;
    size_t connections_max;
    int64_t patience_ms;
    struct log_limit stranger_lines;
    _Atomic uint64_t strangers;
    _Atomic uint64_t turned_away;
};

/* evhttp asks for a bufferevent right after accept and only then gives it the descriptor, so the
 * check runs as the next event of the same turn: before the loop can see any byte from there. */
static struct bufferevent *on_accept(struct event_base *base, void *arg)
{
    struct door *d = arg;
    struct bufferevent *bev = bufferevent_socket_new(base, -1, 0);

    if (bev == NULL)
        return NULL;
    if (d->unchecked_count == d->unchecked_cap) {
        d->unchecked_cap = d->unchecked_cap ? d->unchecked_cap * 2 : 16;
        d->unchecked = xrealloc(d->unchecked, d->unchecked_cap * sizeof(struct bufferevent *));
    }
    d->unchecked[d->unchecked_count++] = bev;
    event_active(d->check, 0, 0);
    return bev;
}

static void forget_newcomer(struct door *d, const struct bufferevent *bev, int64_t now_ms)
{
    size_t kept = 0;

    for (size_t i = 0; i < d->newcomer_count; i++) {
        struct newcomer n = d->newcomers[i];

        if (n.bev != bev && now_ms - n.since_ms <= d->patience_ms)
            d->newcomers[kept++] = n;
    }
    d->newcomer_count = kept;
}

/* Zeroes where the kernel does not tell: no process of ours has pid 0. */
static struct ucred peer_of(int fd)
{
    struct ucred peer = { 0 };
    socklen_t len = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return (struct ucred){ 0 };
    return peer;
}

static void log_stranger(struct door *d, struct ucred peer, int64_t now_ms)
{
    char pid[16];
    char uid[16];
    char more[24];
    uint64_t suppressed;

    if (!log_limit_pass(&d->stranger_lines, now_ms, STRANGER_LINE_MS, &suppressed))
        return;
    snprintf(pid, sizeof(pid), "%d", (int)peer.pid);
    snprintf(uid, sizeof(uid), "%u", (unsigned)peer.uid);
    snprintf(more, sizeof(more), "%" PRIu64, suppressed);
    log_event(LOG_WARNING, "control", "control.stranger",
              "another process connected to the embedded control plane's socket; it was shut out",
              "pid", pid, "uid", uid, "suppressed", more, NULL);
}

static void check_one(struct door *d, const struct bufferevent *bev, int fd)
{
    int64_t now_ms = clock_mono_ms();
    struct ucred peer = peer_of(fd);

    forget_newcomer(d, bev, now_ms);
    if (peer.pid != getpid()) {
        log_stranger(d, peer, now_ms);
        atomic_fetch_add_explicit(&d->strangers, 1, memory_order_relaxed);
        shutdown(fd, SHUT_RDWR);
    } else if (d->guest_count + d->newcomer_count >= d->connections_max) {
        atomic_fetch_add_explicit(&d->turned_away, 1, memory_order_relaxed);
        shutdown(fd, SHUT_RDWR);
    } else {
        d->newcomers[d->newcomer_count++] = (struct newcomer){ bev, now_ms };
    }
}

static void on_check(evutil_socket_t unused, short what, void *arg)
{
    struct door *d = arg;

    (void)unused;
    (void)what;
    for (size_t i = 0; i < d->unchecked_count; i++) {
        int fd = bufferevent_getfd(d->unchecked[i]);

        if (fd >= 0)
            check_one(d, d->unchecked[i], fd);
    }
    d->unchecked_count = 0;
}

struct door *door_new(struct event_base *base, struct evhttp *http, size_t connections_max,
                      int64_t patience_ms)
{
    struct door *d = xcalloc(1, sizeof(*d));

    d->connections_max = connections_max;
    d->patience_ms = patience_ms;
    d->newcomers = xcalloc(connections_max, sizeof(*d->newcomers));
    d->check = event_new(base, -1, 0, on_check, d);
    if (d->check == NULL)
        abort(); /* out of memory, as xmalloc would */
    evhttp_set_bevcb(http, on_accept, d);
    return d;
}

void door_free(struct door *d)
{
    if (d == NULL)
        return;
    event_free(d->check);
    while (d->guests) {
        struct guest *g = d->guests;

        d->guests = g->next;
        free(g);
    }
    free(d->unchecked);
    free(d->newcomers);
    free(d);
}

static void on_close(struct evhttp_connection *conn, void *arg)
{
    struct guest *g = arg;
    struct guest **at = &g->door->guests;

    (void)conn;
    while (*at != g)
        at = &(*at)->next;
    *at = g->next;
    g->door->guest_count--;
    if (g->on_gone)
        g->on_gone(g->arg);
    free(g);
}

struct guest *door_guest(struct door *d, struct evhttp_request *req)
{
    struct evhttp_connection *conn = evhttp_request_get_connection(req);
    struct guest *g;

    for (g = d->guests; g; g = g->next) {
        if (g->conn == conn)
            return g;
    }
    forget_newcomer(d, evhttp_connection_get_bufferevent(conn), clock_mono_ms());
    g = xcalloc(1, sizeof(*g));
    g->door = d;
    g->conn = conn;
    g->next = d->guests;
    d->guests = g;
    d->guest_count++;
    evhttp_connection_set_closecb(conn, on_close, g);
    return g;
}

void guest_on_gone(struct guest *g, void (*fn)(void *arg), void *arg)
{
    g->on_gone = fn;
    g->arg = arg;
}

uint64_t door_strangers(const struct door *d)
{
    return atomic_load_explicit(&d->strangers, memory_order_relaxed);
}

uint64_t door_turned_away(const struct door *d)
{
    return atomic_load_explicit(&d->turned_away, memory_order_relaxed);
}
