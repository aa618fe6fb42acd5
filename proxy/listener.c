#include "proxy/listener.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "proxy/downstream.h"
#include "proxy/proxy.h"
#include "proxy/snapshot.h"
#include "proxy/transparent.h"
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#define BACKLOG          1024
#define ACCEPTS_PER_TURN 64
/* Connections past the limit that may wait for their error answer; further ones are closed. */
#define TURNED_AWAY_MAX 256

/* ---- Opening ---- */

static int open_one(const struct listen_addr *addr, bool join)
{
    int one = 1;
    int fd = socket(addr->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    conn_send_at_once(fd); /* accepted sockets inherit it */
    if (addr->sa.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (join)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
    if (bind(fd, (const struct sockaddr *)&addr->sa, addr->sa_len) < 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    /* From here on others of this process may join. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
    return fd;
}

static const char *hint(int error)
{
    switch (error) {
    case EADDRINUSE:
        return "; is another copy running? (ss -ltnp shows who listens)";
    case EACCES:
        return "; ports below 1024 need a privilege: choose a higher one";
    case EADDRNOTAVAIL:
        return "; this host has no such address";
    default:
        return "";
    }
}

bool listener_lacks_ipv6(const struct listen_addr *addr)
{
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)&addr->sa;
    if (addr->sa.ss_family != AF_INET6 || !IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr))
        return false;
    struct sockaddr_in6 probe = *in6;
    probe.sin6_port = 0;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno == EAFNOSUPPORT;
    bool lacks = bind(fd, (struct sockaddr *)&probe, sizeof(probe)) < 0 && errno == EADDRNOTAVAIL;
    close(fd);
    return lacks;
}

int listener_open(const struct listen_addr *addr, int *fds, unsigned count,
                  struct sockaddr_storage *bound, struct strbuf *errors, int *code)
{
    struct listen_addr at = *addr;
    unsigned opened = 0;
    for (unsigned i = 0; i < count; i++) {
        int fd = open_one(&at, i > 0);
        if (fd < 0)
            break;
        fds[opened++] = fd;
        socklen_t len = sizeof(*bound);
        getsockname(fd, (struct sockaddr *)bound, &len);
        at.sa = *bound; /* port 0: the others join the port that was given */
    }
    for (unsigned i = 0; i < opened && opened == count; i++)
        if (listen(fds[i], BACKLOG) < 0)
            opened = i;
    if (opened == count)
        return 0;
    int error = errno;
    strbuf_addf(errors, "cannot listen on %s: %s%s\n", addr->text, strerror(error), hint(error));
    *code = error == EACCES ? 77 : 73;
    for (unsigned i = 0; i < count && i < opened; i++)
        close(fds[i]);
    return -1;
}

/* ---- Places ---- */

/* Takes a place under limits.connections, or says why there is none. */
static enum turned_away admit(struct worker *w, const struct sockaddr *peer, bool transparent)
{
    struct proxy *p = w->proxy;
    const struct config *cfg = w->snap->cfg;
    int64_t limit = cfg->limits.connections < p->connection_limit ? cfg->limits.connections
                                                                  : p->connection_limit;
    if (!transparent && !cidr_contains(&cfg->allow_clients, peer))
        return TURNED_AWAY_ADDRESS;
    if (atomic_fetch_add(&p->connections, 1) < limit)
        return TURNED_AWAY_NO;
    atomic_fetch_sub(&p->connections, 1);
    return TURNED_AWAY_LIMIT;
}

static void give_back(struct worker *w, bool turned_away)
{
    struct proxy *p = w->proxy;
    if (turned_away)
        atomic_fetch_sub(&p->turned_away, 1);
    else if (atomic_fetch_sub(&p->connections, 1) == 1)
        atomic_store(&p->last_client_gone_ms, clock_mono_ms());
}

/*
 * connections_per_client: a small table of counters by hashed address, shared by all
 * workers.  Two addresses in one slot share their allowance: the limit may then bite
 * early, never late.  They count without a limit too, so that one that a reload brings holds
 * for connections that stand already.
 */
#define CLIENT_SLOTS 65536
static _Atomic uint32_t client_counts[CLIENT_SLOTS];

static uint32_t client_slot(const struct address *a)
{
    uint64_t h = a->sa.sa_family == AF_INET6 ? keyed_hash(&a->in6.sin6_addr, 16)
                                             : keyed_hash(&a->in.sin_addr, 4);
    return (uint32_t)(h % (CLIENT_SLOTS - 1)) + 1;
}

void listener_client_gone(struct worker *w, uint32_t slot, bool turned_away)
{
    if (slot)
        atomic_fetch_sub(&client_counts[slot], 1);
    give_back(w, turned_away);
}

static void count_turned_away(struct worker *w, enum turned_away why)
{
    switch (why) {
    case TURNED_AWAY_NO:
        break;
    case TURNED_AWAY_LIMIT:
        COUNT(w->c.limit_connections);
        break;
    case TURNED_AWAY_CLIENT_LIMIT:
        COUNT(w->c.limit_connections_per_client);
        break;
    case TURNED_AWAY_ADDRESS:
        COUNT(w->c.client_errors_forbidden);
        break;
    }
}

static void take_in(struct listener *l, int fd, const struct address *peer)
{
    struct worker *w = l->w;
    struct address original;
    if (l->transparent && transparent_destination(fd, &original) < 0) {
        COUNT(w->c.not_redirected_total);
        close(fd);
        return;
    }
    enum turned_away why = admit(w, &peer->sa, l->transparent);
    uint32_t slot = 0;
    if (why == TURNED_AWAY_NO) {
        int64_t limit = w->snap->cfg->limits.connections_per_client;
        slot = client_slot(peer);
        if (atomic_fetch_add(&client_counts[slot], 1) >= limit && limit != OFF) {
            atomic_fetch_sub(&client_counts[slot], 1);
            slot = 0;
            give_back(w, false);
            why = TURNED_AWAY_CLIENT_LIMIT;
        }
    }
    count_turned_away(w, why);
    if (why != TURNED_AWAY_NO && atomic_fetch_add(&w->proxy->turned_away, 1) >= TURNED_AWAY_MAX) {
        atomic_fetch_sub(&w->proxy->turned_away, 1);
        close(fd);
        return;
    }
    downstream_new(w, fd, peer, l->transparent ? &original : NULL, why, slot);
}

/* ---- Accepting ---- */

static void pause_accept(struct listener *l)
{
    static const struct timeval wait = { .tv_usec = 100 * 1000 };
    COUNT(l->w->c.accept_pauses_total);
    event_del(&l->ev);
    l->paused = true;
    event_add(&l->resume, &wait);
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct listener *l = arg;
    l->paused = false;
    event_add(&l->ev, NULL);
}

static bool out_of_descriptors(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct listener *l = arg;
    worker_note_event(l->w);
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct address peer = { 0 };
        socklen_t len = sizeof(peer);
        int client = accept4(fd, &peer.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client >= 0) {
            take_in(l, client, &peer);
            continue;
        }
        if (out_of_descriptors(errno))
            pause_accept(l);
        if (errno != EINTR && errno != ECONNABORTED)
            return;
    }
}

/* Accepted sockets inherit it: no call per connection. */
void listener_reconfigure(struct listener *l)
{
    conn_keepalive(l->fd, l->w->snap->cfg->timeouts.keepalive_ms);
}

void listener_attach(struct listener *l, struct worker *w, int fd, bool transparent)
{
    l->w = w;
    l->transparent = transparent;
    l->fd = fd;
    listener_reconfigure(l);
    event_assign(&l->ev, w->base, fd, EV_READ | EV_PERSIST, on_accept, l);
    event_add(&l->ev, NULL);
    evtimer_assign(&l->resume, w->base, on_resume, l);
}

void listener_detach(struct listener *l)
{
    event_del(&l->ev);
    event_del(&l->resume);
    close(l->fd);
}
