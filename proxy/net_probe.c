#include "proxy/net_probe.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_MS     2000
#define ARRIVE_MS      500 /* after our connect() has ended, the other end is there at once */
#define PROC_TABLE_MAX ((size_t)256 * 1024 * 1024)
#define TCP_LISTENING  0x0A

/* ---- /proc/net/tcp ---- */

struct proc_end {
    struct in6_addr addr; /* IPv4 as ::ffff:a.b.c.d */
    uint16_t port;
};

struct proc_socket {
    struct proc_end local, remote;
    unsigned state;
    uint32_t uid;
};

/* "0100007F:0C39": 32-bit words as the machine has them in memory, then the port. */
static int read_end(const char *text, struct proc_end *out)
{
    uint32_t words[4] = { 0, 0, htonl(0xffff), 0 };
    const char *colon = strchr(text, ':');
    size_t digits = colon ? (size_t)(colon - text) : 0;
    if (digits != 8 && digits != 32)
        return -1;
    for (size_t i = 0; i < digits / 8; i++) {
        char word[9];
        snprintf(word, sizeof(word), "%.8s", text + 8 * i);
        words[digits == 8 ? 3 : i] = (uint32_t)strtoul(word, NULL, 16);
    }
    memcpy(&out->addr, words, sizeof(words));
    out->port = (uint16_t)strtoul(colon + 1, NULL, 16);
    return 0;
}

/* sl local_address rem_address st queues timer retrnsmt uid ... */
static int read_socket(char *line, struct proc_socket *out)
{
    char *fields[8], *save = NULL;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        fields[i] = strtok_r(i ? NULL : line, " ", &save);
        if (!fields[i])
            return -1;
    }
    out->state = (unsigned)strtoul(fields[3], NULL, 16);
    out->uid = (uint32_t)strtoul(fields[7], NULL, 10);
    return read_end(fields[1], &out->local) < 0 || read_end(fields[2], &out->remote) < 0 ? -1 : 0;
}

typedef void socket_fn(const struct proc_socket *s, void *arg);

static void each_socket(const char *table, socket_fn *fn, void *arg)
{
    char *copy = xstrdup(table ? table : ""), *rest = copy, *line;
    while ((line = strsep(&rest, "\n")) != NULL) {
        struct proc_socket s;
        if (read_socket(line, &s) == 0)
            fn(&s, arg);
    }
    free(copy);
}

struct listener_search {
    uint16_t port;
    struct net_listeners *out;
};

static void on_listener(const struct proc_socket *s, void *arg)
{
    static const struct in6_addr any4 = { .s6_addr = { [10] = 0xff, [11] = 0xff } };
    static const struct in6_addr loop4 = { .s6_addr = {
                                               [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 } };
    struct listener_search *search = arg;
    if (s->state != TCP_LISTENING || s->local.port != search->port)
        return;
    const struct in6_addr *a = &s->local.addr;
    bool any6 = IN6_IS_ADDR_UNSPECIFIED(a); /* takes IPv4 too, unless it was told not to */
    bool v4 = any6 || memcmp(a, &any4, sizeof(*a)) == 0 || memcmp(a, &loop4, sizeof(*a)) == 0;
    bool v6 = any6 || IN6_IS_ADDR_LOOPBACK(a);
    search->out->v4 = search->out->v4 || v4;
    search->out->v6 = search->out->v6 || v6;
    if (v4 || v6)
        search->out->uid = s->uid;
}

void net_listeners_read(const char *tcp, const char *tcp6, uint16_t port, struct net_listeners *out)
{
    struct listener_search search = { port, out };
    *out = (struct net_listeners){ 0 };
    each_socket(tcp, on_listener, &search);
    each_socket(tcp6, on_listener, &search);
}

struct peer_search {
    uint16_t port;
    struct proc_end peer;
    bool found;
};

static void on_peer(const struct proc_socket *s, void *arg)
{
    struct peer_search *search = arg;
    if (s->state != TCP_LISTENING && s->local.port == search->port &&
        s->remote.port == search->peer.port &&
        memcmp(&s->remote.addr, &search->peer.addr, sizeof(s->remote.addr)) == 0)
        search->found = true;
}

bool net_peer_read(const char *tcp, const char *tcp6, uint16_t port, const struct sockaddr *peer)
{
    struct peer_search search = { .port = port };
    if (peer->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, peer, sizeof(in6));
        search.peer = (struct proc_end){ in6.sin6_addr, ntohs(in6.sin6_port) };
    } else {
        struct sockaddr_in in;
        memcpy(&in, peer, sizeof(in));
        search.peer.port = ntohs(in.sin_port);
        search.peer.addr.s6_addr[10] = search.peer.addr.s6_addr[11] = 0xff;
        memcpy(&search.peer.addr.s6_addr[12], &in.sin_addr, sizeof(in.sin_addr));
    }
    each_socket(tcp, on_peer, &search);
    each_socket(tcp6, on_peer, &search);
    return search.found;
}

static void read_table(const char *path, struct strbuf *out)
{
    char buf[16384];
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    out->max = PROC_TABLE_MAX;
    while (fd >= 0 && (n = read(fd, buf, sizeof(buf))) > 0)
        strbuf_add(out, buf, (size_t)n);
    if (fd >= 0)
        close(fd);
}

static void read_tables(struct strbuf *tcp, struct strbuf *tcp6)
{
    read_table("/proc/net/tcp", tcp);
    read_table("/proc/net/tcp6", tcp6);
}

void net_listeners_find(uint16_t port, struct net_listeners *out)
{
    struct strbuf tcp = STRBUF_INIT, tcp6 = STRBUF_INIT;
    read_tables(&tcp, &tcp6);
    net_listeners_read(strbuf_str(&tcp), strbuf_str(&tcp6), port, out);
    strbuf_free(&tcp);
    strbuf_free(&tcp6);
}

/* ---- A connection ---- */

static socklen_t make_target(bool v6, uint16_t port, const struct cidr_list *excluded,
                             struct sockaddr_storage *out)
{
    static const char *const documentation[2][3] = {
        { "192.0.2.1", "198.51.100.1", "203.0.113.1" },
        { "2001:db8::1", "2001:db8:8000::1", "2001:db8:ffff::1" },
    };
    for (size_t i = 0; i < ARRAY_LEN(documentation[0]); i++) {
        struct sockaddr_in *in = (struct sockaddr_in *)out;
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
        *out = (struct sockaddr_storage){ .ss_family = v6 ? AF_INET6 : AF_INET };
        inet_pton(out->ss_family, documentation[v6][i],
                  v6 ? (void *)&in6->sin6_addr : (void *)&in->sin_addr);
        *(v6 ? &in6->sin6_port : &in->sin_port) = htons(port);
        if (!cidr_contains(excluded, (struct sockaddr *)out))
            return v6 ? sizeof(*in6) : sizeof(*in);
    }
    return 0;
}

static bool arrived(int fd, uint16_t proxy_port)
{
    struct sockaddr_storage own = { 0 };
    socklen_t len = sizeof(own);
    int64_t deadline_ms = clock_mono_ms() + ARRIVE_MS;
    bool found = false;
    if (getsockname(fd, (struct sockaddr *)&own, &len) < 0)
        return false;
    while (!found && clock_mono_ms() < deadline_ms) {
        struct strbuf tcp = STRBUF_INIT, tcp6 = STRBUF_INIT;
        read_tables(&tcp, &tcp6);
        found =
            net_peer_read(strbuf_str(&tcp), strbuf_str(&tcp6), proxy_port, (struct sockaddr *)&own);
        strbuf_free(&tcp);
        strbuf_free(&tcp6);
        if (!found)
            poll(NULL, 0, 10);
    }
    return found;
}

/* 0, or the errno of a connect() that was under way. */
static int await_connect(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLOUT };
    int err = 0, n;
    socklen_t len = sizeof(err);
    int64_t deadline_ms = clock_mono_ms() + CONNECT_MS;
    do {
        int64_t left_ms = deadline_ms - clock_mono_ms();
        n = poll(&p, 1, left_ms > 0 ? (int)left_ms : 0);
    } while (n < 0 && errno == EINTR);
    if (n == 0)
        return ETIMEDOUT;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 ? errno : err;
}

static enum net_capture probe_socket(int fd, const struct sockaddr *to, socklen_t len,
                                     uint16_t proxy_port, struct strbuf *why)
{
    int err = connect(fd, to, len) < 0 ? errno : 0;
    if (err == ENETUNREACH || err == EHOSTUNREACH || err == EADDRNOTAVAIL) {
        /* At once, so it is our own lack of a route: the rules have not been asked. */
        strbuf_adds(why, strerror(err));
        return NET_UNTESTED;
    }
    if (err == EINPROGRESS)
        err = await_connect(fd);
    if (err) {
        strbuf_adds(why, strerror(err));
        return NET_NOT_CAPTURED;
    }
    if (arrived(fd, proxy_port))
        return NET_CAPTURED;
    strbuf_addf(why, "it was accepted by something else than port %u here", proxy_port);
    return NET_NOT_CAPTURED;
}

/* By a reset: after an end the proxy would try to reach the target, and report a failure. */
static void hang_up(int fd)
{
    struct linger abort_now = { .l_onoff = 1, .l_linger = 0 };
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort_now, sizeof(abort_now));
    close(fd);
}

enum net_capture net_probe(bool v6, uint16_t captured_port, uint16_t proxy_port,
                           const struct cidr_list *excluded, struct strbuf *why)
{
    struct sockaddr_storage to;
    char text[INET6_ADDRSTRLEN];
    socklen_t len = make_target(v6, captured_port, excluded, &to);
    if (!len) {
        strbuf_adds(why, "the addresses of documentation are excluded");
        return NET_UNTESTED;
    }
    const void *addr = v6 ? (const void *)&((struct sockaddr_in6 *)&to)->sin6_addr
                          : (const void *)&((struct sockaddr_in *)&to)->sin_addr;
    inet_ntop(to.ss_family, addr, text, sizeof(text));
    strbuf_addf(why, v6 ? "connection to [%s]:%u: " : "connection to %s:%u: ", text, captured_port);
    int fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        strbuf_adds(why, strerror(errno));
        return NET_UNTESTED;
    }
    enum net_capture got = probe_socket(fd, (struct sockaddr *)&to, len, proxy_port, why);
    hang_up(fd);
    return got;
}
