#include "proxy/dns.h"
#include "base/base.h"
#include "base/log.h"
#include "base/map.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "proxy/snapshot.h"
#include <ares.h>
#include <arpa/inet.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES_MAX 8192

struct entry {
    struct dns *dns;
    struct list lru;
    struct list waiters; /* of struct dns_query */
    bool asking;
    int64_t asked_ms;
    int64_t expires_ms;
    struct dns_answer answer; /* the newest; count 0 until there is one */
    char host[];
};

struct dns_socket {
    struct list link;
    struct dns *dns;
    ares_socket_t fd;
    struct event *ev;
};

struct dns {
    struct worker *w;
    ares_channel channel;
    bool channel_ok;
    struct event *timer;
    struct map *entries;
    struct list lru; /* oldest first */
    struct list sockets;
    int64_t pending; /* questions with c-ares */
    bool closing;
};

bool address_eq(const struct address *a, const struct address *b)
{
    if (a->sa.sa_family != b->sa.sa_family)
        return false;
    if (a->sa.sa_family == AF_INET6)
        return a->in6.sin6_port == b->in6.sin6_port &&
               a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
               memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(struct in6_addr)) == 0;
    return a->in.sin_port == b->in.sin_port && a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
}

void address_set_port(struct address *a, uint16_t port)
{
    if (a->sa.sa_family == AF_INET6)
        a->in6.sin6_port = htons(port);
    else
        a->in.sin_port = htons(port);
}

/* By hand where it is often asked for, in every line of the log: inet_ntop uses printf. */
static void ipv4_text(uint32_t ip, char *out)
{
    for (int shift = 24; shift >= 0; shift -= 8) {
        unsigned part = ip >> shift & 255;
        if (part >= 100)
            *out++ = (char)('0' + part / 100);
        if (part >= 10)
            *out++ = (char)('0' + part / 10 % 10);
        *out++ = (char)('0' + part % 10);
        *out++ = shift > 0 ? '.' : '\0';
    }
}

void address_text(const struct address *a, char *out, size_t size)
{
    if (a->sa.sa_family == AF_INET && size >= INET_ADDRSTRLEN) {
        ipv4_text(ntohl(a->in.sin_addr.s_addr), out);
        return;
    }
    const void *ip = a->sa.sa_family == AF_INET6 ? (const void *)&a->in6.sin6_addr
                                                 : (const void *)&a->in.sin_addr;
    if (!inet_ntop(a->sa.sa_family, ip, out, (socklen_t)size))
        out[0] = '\0';
}

/* ---- c-ares on the worker's loop ---- */

static void timer_update(struct dns *d)
{
    struct timeval max = { .tv_sec = 60 }, tv;
    if (d->pending == 0) {
        event_del(d->timer);
        return;
    }
    struct timeval *next = ares_timeout(d->channel, &max, &tv);
    event_add(d->timer, next);
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct dns *d = ((struct dns_socket *)arg)->dns;
    worker_note_event(d->w);
    ares_process_fd(d->channel, what & EV_READ ? fd : ARES_SOCKET_BAD,
                    what & EV_WRITE ? fd : ARES_SOCKET_BAD);
    timer_update(d);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct dns *d = arg;
    ares_process_fd(d->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    timer_update(d);
}

static struct dns_socket *socket_find(struct dns *d, ares_socket_t fd)
{
    for (struct list *l = d->sockets.next; l != &d->sockets; l = l->next) {
        struct dns_socket *s = CONTAINER(l, struct dns_socket, link);
        if (s->fd == fd)
            return s;
    }
    return NULL;
}

static void on_sock_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct dns *d = arg;
    struct dns_socket *s = socket_find(d, fd);
    if (s) {
        event_free(s->ev);
        s->ev = NULL;
    }
    if (!readable && !writable) {
        if (s) {
            list_remove(&s->link);
            free(s);
        }
        return;
    }
    if (!s) {
        s = xcalloc(1, sizeof(*s));
        s->dns = d;
        s->fd = fd;
        list_add_tail(&d->sockets, &s->link);
    }
    short what = (short)((readable ? EV_READ : 0) | (writable ? EV_WRITE : 0) | EV_PERSIST);
    s->ev = event_new(d->w->base, fd, what, on_socket, s);
    event_add(s->ev, NULL);
}

static void channel_open(struct dns *d)
{
    const struct config *cfg = d->w->snap->cfg;
    /* Two tries, the second twice as long, fill dns.timeout. */
    int64_t first = cfg->dns.timeout_ms == OFF ? 2000 : cfg->dns.timeout_ms / 3;
    struct ares_options opt = { .timeout = (int)(first > 100 ? first : 100),
                                .tries = 2,
                                .sock_state_cb = on_sock_state,
                                .sock_state_cb_data = d };
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB;
    d->channel_ok = ares_init_options(&d->channel, &opt, mask) == ARES_SUCCESS;
    if (!d->channel_ok) {
        log_event(LOG_ERROR, "proxy", "dns.init_failed", "the resolver cannot be set up", NULL);
        return;
    }
    if (cfg->dns.servers.count == 0)
        return;
    struct strbuf csv = STRBUF_INIT;
    for (size_t i = 0; i < cfg->dns.servers.count; i++)
        strbuf_addf(&csv, "%s%s", i ? "," : "", cfg->dns.servers.items[i]);
    if (ares_set_servers_ports_csv(d->channel, strbuf_str(&csv)) != ARES_SUCCESS)
        log_event(LOG_ERROR, "proxy", "dns.servers", "dns.servers cannot be used", "servers",
                  strbuf_str(&csv), NULL);
    strbuf_free(&csv);
}

/* ---- Entries ---- */

static int64_t clamp_ttl(const struct dns *d, int64_t ttl_ms)
{
    const struct config *cfg = d->w->snap->cfg;
    if (ttl_ms < cfg->dns.min_ttl_ms)
        ttl_ms = cfg->dns.min_ttl_ms;
    if (cfg->dns.max_ttl_ms != OFF && ttl_ms > cfg->dns.max_ttl_ms)
        ttl_ms = cfg->dns.max_ttl_ms;
    return ttl_ms;
}

static void entry_forget(struct entry *e)
{
    list_remove(&e->lru);
    map_remove(e->dns->entries, e->host, strlen(e->host));
    count_sub(&e->dns->w->c.dns_cache_entries, 1);
    free(e);
}

static void make_room(struct dns *d)
{
    struct list *l = d->lru.next;
    while (map_count(d->entries) >= ENTRIES_MAX && l != &d->lru) {
        struct entry *e = CONTAINER(l, struct entry, lru);
        l = l->next;
        if (!e->asking)
            entry_forget(e);
    }
}

static struct entry *entry_get(struct dns *d, const char *host, bool create)
{
    size_t len = strlen(host);
    struct entry *e = map_get(d->entries, host, len);
    if (!e && create) {
        make_room(d);
        e = xcalloc(1, sizeof(*e) + len + 1);
        e->dns = d;
        memcpy(e->host, host, len + 1);
        list_init(&e->waiters);
        map_put(d->entries, host, len, e);
        COUNT(d->w->c.dns_cache_entries);
    }
    if (e && create) {
        list_remove(&e->lru);
        list_add_tail(&d->lru, &e->lru);
    }
    return e;
}

static enum dns_result result_of(struct dns *d, int status)
{
    switch (status) {
    case ARES_SUCCESS:
        COUNT(d->w->c.dns_lookups_ok);
        return DNS_OK;
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
        COUNT(d->w->c.dns_lookups_nxdomain);
        return DNS_NXDOMAIN;
    case ARES_ETIMEOUT:
        COUNT(d->w->c.dns_lookups_timeout);
        return DNS_TIMEOUT;
    case ARES_ESERVFAIL:
    case ARES_EREFUSED:
    case ARES_ECONNREFUSED:
        COUNT(d->w->c.dns_lookups_servfail);
        return DNS_SERVFAIL;
    default:
        COUNT(d->w->c.dns_lookups_other);
        return DNS_OTHER;
    }
}

/* Takes the addresses over in c-ares' order (RFC 6724); the shortest TTL counts for all. */
static int64_t take_addresses(struct dns_answer *out, const struct ares_addrinfo *res)
{
    int64_t ttl_s = INT32_MAX;
    out->count = 0;
    for (struct ares_addrinfo_node *n = res->nodes; n; n = n->ai_next) {
        if (out->count == DNS_ADDRESSES_MAX)
            break;
        if (n->ai_family != AF_INET && n->ai_family != AF_INET6)
            continue;
        struct address *a = &out->addresses[out->count++];
        memset(a, 0, sizeof(*a));
        memcpy(a, n->ai_addr, n->ai_family == AF_INET6 ? sizeof(a->in6) : sizeof(a->in));
        if (n->ai_ttl < ttl_s)
            ttl_s = n->ai_ttl;
    }
    return ttl_s * 1000;
}

static void tell_waiters(struct entry *e, const struct dns_answer *answer)
{
    while (!list_empty(&e->waiters)) {
        struct dns_query *q = CONTAINER(e->waiters.next, struct dns_query, link);
        list_remove(&q->link);
        q->done(q, answer);
    }
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *res)
{
    (void)timeouts;
    struct entry *e = arg;
    struct dns *d = e->dns;
    d->pending--;
    e->asking = false;
    if (d->closing || status == ARES_EDESTRUCTION) {
        if (res)
            ares_freeaddrinfo(res);
        return;
    }
    int64_t now_ms = worker_now_ms(d->w);
    histogram_observe(&d->w->c.dns_lookup, (now_ms - e->asked_ms) * 1000);
    struct dns_answer answer = { .result = result_of(d, status) };
    if (answer.result == DNS_OK) {
        int64_t ttl_ms = take_addresses(&answer, res);
        if (answer.count == 0)
            answer.result = DNS_NXDOMAIN;
        else
            e->expires_ms = now_ms + clamp_ttl(d, ttl_ms);
    }
    if (res)
        ares_freeaddrinfo(res);
    int64_t stale_ms = d->w->snap->cfg->dns.stale_ms;
    bool resolver_failed = answer.result != DNS_OK && answer.result != DNS_NXDOMAIN;
    if (resolver_failed && e->answer.count > 0 && stale_ms != OFF &&
        now_ms < e->expires_ms + stale_ms) {
        COUNT(d->w->c.dns_stale_answers_total);
        answer = e->answer;
    } else {
        e->answer = answer;
    }
    /* The waiters may run whole exchanges: from here on e may be gone. */
    tell_waiters(e, &answer);
}

static void ask(struct dns *d, struct entry *e)
{
    struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    e->asking = true;
    e->asked_ms = worker_now_ms(d->w);
    d->pending++;
    ares_getaddrinfo(d->channel, e->host, NULL, &hints, on_answer, e);
}

static bool parse_literal(const char *host, struct address *a)
{
    memset(a, 0, sizeof(*a));
    if (inet_pton(AF_INET, host, &a->in.sin_addr) == 1) {
        a->in.sin_family = AF_INET;
        return true;
    }
    if (inet_pton(AF_INET6, host, &a->in6.sin6_addr) == 1) {
        a->in6.sin6_family = AF_INET6;
        return true;
    }
    return false;
}

enum dns_start dns_resolve(struct dns *d, const char *host, struct dns_query *q,
                           struct dns_answer *answer)
{
    if (parse_literal(host, &answer->addresses[0])) {
        answer->result = DNS_OK;
        answer->count = 1;
        return DNS_ANSWERED;
    }
    struct entry *e = entry_get(d, host, true);
    if (e->answer.count > 0 && worker_now_ms(d->w) < e->expires_ms) {
        COUNT(d->w->c.dns_cache_hits_total);
        *answer = e->answer;
        return DNS_ANSWERED;
    }
    if (!d->channel_ok) {
        *answer = (struct dns_answer){ .result = DNS_OTHER };
        return DNS_ANSWERED;
    }
    if (!e->asking && d->pending >= d->w->snap->cfg->limits.dns_queue) {
        COUNT(d->w->c.limit_dns_queue);
        return DNS_REFUSED;
    }
    list_add_tail(&e->waiters, &q->link);
    if (e->asking)
        return DNS_PENDING;
    /* c-ares may answer from the hosts file before it returns: hold the waiter back from it. */
    list_remove(&q->link);
    ask(d, e);
    if (e->asking) {
        list_add_tail(&e->waiters, &q->link);
        timer_update(d);
        return DNS_PENDING;
    }
    *answer = e->answer;
    return DNS_ANSWERED;
}

void dns_cancel(struct dns_query *q)
{
    list_remove(&q->link);
}

void dns_expire(struct dns *d, const char *host)
{
    struct entry *e = entry_get(d, host, false);
    if (e)
        e->expires_ms = 0;
}

bool dns_still_answers(struct dns *d, const char *host, const struct address *a)
{
    struct address literal;
    if (parse_literal(host, &literal))
        return true;
    struct entry *e = entry_get(d, host, false);
    if (!e)
        return false;
    if (worker_now_ms(d->w) >= e->expires_ms && !e->asking && d->channel_ok &&
        d->pending < d->w->snap->cfg->limits.dns_queue) {
        ask(d, e);
        timer_update(d);
    }
    struct address bare = *a;
    address_set_port(&bare, 0);
    for (unsigned i = 0; i < e->answer.count; i++)
        if (address_eq(&bare, &e->answer.addresses[i]))
            return true;
    return false;
}

void dns_tick(struct dns *d)
{
    const struct config *cfg = d->w->snap->cfg;
    int64_t keep_ms = 60000 + (cfg->dns.stale_ms == OFF ? 0 : cfg->dns.stale_ms);
    int64_t now_ms = worker_now_ms(d->w);
    for (struct list *l = d->lru.next, *next; l != &d->lru; l = next) {
        next = l->next;
        struct entry *e = CONTAINER(l, struct entry, lru);
        if (e->asking || now_ms < e->expires_ms + keep_ms || now_ms < e->asked_ms + keep_ms)
            break; /* the list is in order of use */
        entry_forget(e);
    }
}

struct dns *dns_new(struct worker *w)
{
    struct dns *d = xcalloc(1, sizeof(*d));
    d->w = w;
    d->entries = map_new();
    list_init(&d->lru);
    list_init(&d->sockets);
    d->timer = evtimer_new(w->base, on_timeout, d);
    channel_open(d);
    return d;
}

void dns_reconfigure(struct dns *d)
{
    if (d->pending > 0)
        return; /* questions under way keep the channel; the next reload or tick tries again */
    if (d->channel_ok)
        ares_destroy(d->channel);
    channel_open(d);
}

void dns_free(struct dns *d)
{
    if (!d)
        return;
    d->closing = true;
    if (d->channel_ok)
        ares_destroy(d->channel);
    while (!list_empty(&d->lru))
        entry_forget(CONTAINER(d->lru.next, struct entry, lru));
    map_free(d->entries);
    event_free(d->timer);
    free(d);
}
