#include "proxy/transparent.h"
#include "base/base.h"
#include "base/log.h"
#include "proxy/downstream.h"
#include "proxy/own_conns.h"
#include "proxy/proxy.h"
#include "proxy/request.h"
#include "proxy/snapshot.h"
#include "proxy/tls_hello.h"
#include "proxy/tunnel.h"
#include <arpa/inet.h>
#include <linux/netfilter_ipv4.h>
#include <stdio.h>
#include <stdlib.h>

#define IP6T_SO_ORIGINAL_DST 80 /* linux/netfilter_ipv6/ip6_tables.h, which C++ headers break */
#define LOOP_LOG_MS          60000

int transparent_destination(int fd, struct address *out)
{
    struct address local = { 0 };
    socklen_t len = sizeof(local), local_len = sizeof(local);
    memset(out, 0, sizeof(*out));
    if (getsockname(fd, &local.sa, &local_len) < 0)
        return -1;
    bool v6 = local.sa.sa_family == AF_INET6;
    if (getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IP6T_SO_ORIGINAL_DST : SO_ORIGINAL_DST,
                   out, &len) < 0)
        return -1;
    return address_eq(out, &local) ? -1 : 0;
}

/* The name that opaque bytes are routed by: the server name if it can be one, else the
 * address. */
static void name_opaque(const struct downstream *d, struct slice sni, struct authority *a)
{
    const struct address *to = d->original;
    uint16_t port = ntohs(to->sa.sa_family == AF_INET6 ? to->in6.sin6_port : to->in.sin_port);
    char text[INET6_ADDRSTRLEN + 2], ip[INET6_ADDRSTRLEN];
    bool is_name = sni.len > 0 && !memchr(sni.p, ':', sni.len) && sni.p[0] != '[';
    if (!is_name || authority_parse(a, sni, port) != TARGET_OK) {
        address_text(to, ip, sizeof(ip));
        int n = snprintf(text, sizeof(text), to->sa.sa_family == AF_INET6 ? "[%s]" : "%s", ip);
        if (BUG(authority_parse(a, (struct slice){ text, (size_t)n }, port) != TARGET_OK))
            return;
    }
    a->raw = (struct slice){ a->host, a->host_len };
}

static void decided(struct downstream *d)
{
    d->undecided = false;
    d->scanned = 0;
    free(d->hello);
    d->hello = NULL;
}

static void go_opaque(struct downstream *d)
{
    struct authority a;
    name_opaque(d, d->hello ? tls_hello_name(d->hello) : (struct slice){ "", 0 }, &a);
    decided(d);
    request_begin_opaque(d, &a);
}

/* What of the block has not been seen yet. */
static enum tls_hello_result look_for_hello(struct downstream *d)
{
    const struct block *in = d->c.in;
    if (!d->hello)
        d->hello = xcalloc(1, sizeof(*d->hello));
    size_t seen = d->hello->result == TLS_HELLO_MORE ? d->hello->seen : block_len(in);
    return tls_hello_push(d->hello, in->data + in->start + seen, block_len(in) - seen);
}

static size_t line_limit(const struct downstream *d)
{
    return (size_t)d->c.w->snap->cfg->limits.header_bytes;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Empty lines may stand before a request line (RFC 9112 2.2). */
static size_t leading_empty_lines(const uint8_t *data, size_t len)
{
    size_t skip = 0;
    while (skip < (size_t)2 * EMPTY_LINES_MAX && len - skip >= 2 &&
           memcmp(data + skip, "\r\n", 2) == 0)
        skip += 2;
    return skip;
}

/* Whether these bytes are worth a longer wait, or a refusal if their line is too long: others
 * than HTTP clients also begin with a word. */
static bool begins_like_http(const uint8_t *data, size_t len)
{
    static const struct slice methods[] = {
        SLICE("GET "),   SLICE("POST "),  SLICE("PUT "),     SLICE("HEAD "),    SLICE("DELETE "),
        SLICE("PATCH "), SLICE("TRACE "), SLICE("OPTIONS "), SLICE("PROPFIND ")
    };
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        size_t n = len < methods[i].len ? len : methods[i].len;
        if (memcmp(data, methods[i].p, n) == 0)
            return true;
    }
    const uint8_t *space = memchr(data, ' ', len);
    return space && space + 1 < data + len && (space[1] == '/' || space[1] == '*');
}

/* Does it look like HTTP?  The same lengths hold as for explicit requests: a longer line is a
 * request too, to be refused.  *worth_a_wait: with SNIFF_MORE. */
static enum sniff look_for_http(struct downstream *d, bool *worth_a_wait)
{
    const struct block *in = d->c.in;
    const uint8_t *data = in->data + in->start;
    size_t max = larger(line_limit(d), TUNNEL_SNIFF_MAX), len = block_len(in);
    size_t skip = leading_empty_lines(data, len);
    *worth_a_wait = false;
    if (skip == len || (skip + 1 == len && data[skip] == '\r'))
        return SNIFF_MORE;
    data += skip;
    len -= skip;
    enum sniff http = tunnel_sniff(data, len, d->scanned > skip ? d->scanned - skip : 0, max);
    *worth_a_wait = begins_like_http(data, len);
    if (http == SNIFF_MORE)
        d->scanned = len + skip;
    if (http == SNIFF_OPAQUE && *worth_a_wait && len >= max && !memchr(data, '\n', max))
        return SNIFF_HTTP;
    return http;
}

/* True: decided. */
static bool look(struct downstream *d, bool waited_long_enough)
{
    enum tls_hello_result tls = look_for_hello(d);
    /* Without the rest nobody knows whose breakers are to be asked. */
    bool worth_a_wait = tls == TLS_HELLO_MORE;
    enum sniff http = tls == TLS_HELLO_NO ? look_for_http(d, &worth_a_wait) : SNIFF_OPAQUE;
    if (http == SNIFF_HTTP) {
        decided(d);
        return true;
    }
    bool more = tls == TLS_HELLO_MORE || http == SNIFF_MORE;
    if (!more || waited_long_enough) {
        go_opaque(d);
        return true;
    }
    if (worth_a_wait)
        downstream_await_head(d);
    if (downstream_make_room(d, larger(line_limit(d), TLS_HELLO_MAX)))
        return false;
    if (http == SNIFF_MORE)
        decided(d); /* a head there is no memory for gets its answer */
    else
        go_opaque(d);
    return true;
}

/* Asked once it has said something, or nothing for a while: from then on it is known as ours. */
static bool is_loop(struct downstream *d)
{
    static _Thread_local struct log_limit limit;
    if (!own_conns_meet(d->c.w->proxy->own_conns, &d->client, d->original))
        return false;
    if (log_limit_pass(&limit, worker_now_ms(d->c.w), LOOP_LOG_MS, NULL))
        log_event(LOG_WARNING, "proxy", "transparent.loop",
                  "a connection of this proxy was redirected to it: its user or group must be "
                  "excepted from the rules (init-net --uid or --gid)",
                  NULL);
    return true;
}

void transparent_decide(struct downstream *d, bool waited_long_enough)
{
    for (;;) {
        size_t got;
        if ((d->c.in || waited_long_enough) && is_loop(d)) {
            downstream_reset(d);
            return;
        }
        if (d->c.in && block_len(d->c.in) > 0 && look(d, waited_long_enough))
            return;
        switch (conn_read(&d->c, BLOCK_SIZE, &got)) {
        case IO_OK:
            if (!d->head_timed)
                conn_set_deadline(&d->c, worker_now_ms(d->c.w) + TUNNEL_SNIFF_MS);
            continue;
        case IO_AGAIN:
        case IO_STARVED:
        case IO_YIELD:
            conn_release_empty(&d->c);
            if (waited_long_enough)
                go_opaque(d); /* the server may speak first */
            return;
        case IO_EOF:
            if (!d->c.in && is_loop(d)) {
                downstream_reset(d);
                return;
            }
            /* All that it has to say is here; it may still want to hear. */
            if (!d->c.in || !look(d, true))
                go_opaque(d);
            return;
        case IO_ERROR:
            COUNT(d->c.w->c.client_errors_aborted);
            downstream_close(d);
            return;
        }
    }
}
