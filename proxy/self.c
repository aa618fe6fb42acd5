#include "proxy/self.h"
#include "base/base.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SELF_MAX 256 /* four lists of at most 64 listeners */

/* Every address as IPv6, IPv4 mapped, so that ::ffff:127.0.0.1 is 127.0.0.1. */
struct normal {
    struct in6_addr addr;
    uint16_t port; /* network order */
};

struct self_addrs {
    struct {
        struct normal at;
        enum self_kind kind;
        bool any; /* bound to every address */
    } items[SELF_MAX];
    size_t count;
};

static struct normal normalise(const struct sockaddr *sa)
{
    struct normal n = { 0 };
    if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
        n.addr = in6->sin6_addr;
        n.port = in6->sin6_port;
    } else if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)sa;
        n.addr.s6_addr[10] = n.addr.s6_addr[11] = 0xff;
        memcpy(&n.addr.s6_addr[12], &in->sin_addr, 4);
        n.port = in->sin_port;
    }
    return n;
}

static bool is_any(const struct in6_addr *a)
{
    static const uint8_t any4[16] = { [10] = 0xff, [11] = 0xff };
    return IN6_IS_ADDR_UNSPECIFIED(a) || memcmp(a, any4, 16) == 0;
}

static bool is_loopback(const struct in6_addr *a)
{
    return IN6_IS_ADDR_LOOPBACK(a) || (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 127);
}

struct self_addrs *self_new(void)
{
    return xcalloc(1, sizeof(struct self_addrs));
}

void self_free(struct self_addrs *s)
{
    free(s);
}

void self_add(struct self_addrs *s, const struct sockaddr *bound, enum self_kind kind)
{
    if (BUG(s->count == SELF_MAX))
        return;
    s->items[s->count].at = normalise(bound);
    s->items[s->count].kind = kind;
    s->items[s->count].any = is_any(&s->items[s->count].at.addr);
    s->count++;
}

static void write_text(const struct normal *n, char text[SELF_TEXT_SIZE])
{
    char ip[INET6_ADDRSTRLEN];
    bool v4 = IN6_IS_ADDR_V4MAPPED(&n->addr);
    const void *addr = v4 ? (const void *)&n->addr.s6_addr[12] : &n->addr;
    inet_ntop(v4 ? AF_INET : AF_INET6, addr, ip, sizeof(ip));
    snprintf(text, SELF_TEXT_SIZE, v4 ? "%s:%u" : "[%s]:%u", ip, (unsigned)ntohs(n->port));
}

bool self_next(const struct self_addrs *s, enum self_kind kind, size_t *pos,
               char text[SELF_TEXT_SIZE])
{
    while (*pos < s->count) {
        size_t i = (*pos)++;
        if (s->items[i].kind != kind)
            continue;
        write_text(&s->items[i].at, text);
        return true;
    }
    return false;
}

/* Whether the kernel would deliver a packet for it to this host: then the source address
 * it picks is the destination itself.  Connecting a datagram socket sends nothing. */
static bool is_local(const struct sockaddr *sa, const struct normal *n)
{
    if (is_loopback(&n->addr) || is_any(&n->addr))
        return true;
    int fd = socket(sa->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return true; /* cannot tell: refuse rather than loop */
    struct sockaddr_storage mine;
    socklen_t len = sizeof(mine);
    socklen_t sa_len =
        sa->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    bool local = false;
    if (connect(fd, sa, sa_len) == 0 && getsockname(fd, (struct sockaddr *)&mine, &len) == 0) {
        struct normal source = normalise((struct sockaddr *)&mine);
        local = memcmp(&source.addr, &n->addr, sizeof(n->addr)) == 0;
    }
    close(fd);
    return local;
}

enum self_kind self_check(const struct self_addrs *s, const struct sockaddr *destination)
{
    struct normal n = normalise(destination);
    for (size_t i = 0; i < s->count; i++) {
        if (s->items[i].at.port != n.port)
            continue;
        if (memcmp(&s->items[i].at.addr, &n.addr, sizeof(n.addr)) == 0)
            return s->items[i].kind;
        /* 0.0.0.0 and :: connect to this host. */
        if (is_any(&n.addr) && is_loopback(&s->items[i].at.addr))
            return s->items[i].kind;
        if (s->items[i].any && is_local(destination, &n))
            return s->items[i].kind;
    }
    return SELF_NO;
}
