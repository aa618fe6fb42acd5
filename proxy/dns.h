/*
 * dns.h - names to addresses, one cache per worker, on c-ares.
 *
 * TTLs are clamped to dns.min_ttl..max_ttl.  When the resolver fails, an answer that
 * has expired is used for dns.stale longer, and counted.  A failed connect makes the
 * entry expire at once.
 */
#ifndef PROXY_DNS_H
#define PROXY_DNS_H
#include "proxy/worker.h"
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#define DNS_ADDRESSES_MAX 16

struct address {
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    };
};
static inline socklen_t address_len(const struct address *a)
{
    return a->sa.sa_family == AF_INET6 ? sizeof(a->in6) : sizeof(a->in);
}
bool address_eq(const struct address *a, const struct address *b); /* with the port */
void address_set_port(struct address *a, uint16_t port);
/* "192.0.2.1" or "2001:db8::1"; size at least INET6_ADDRSTRLEN. */
void address_text(const struct address *a, char *out, size_t size);

enum dns_result { DNS_OK, DNS_NXDOMAIN, DNS_TIMEOUT, DNS_SERVFAIL, DNS_OTHER };

struct dns_answer {
    enum dns_result result;
    unsigned count;
    struct address addresses[DNS_ADDRESSES_MAX]; /* port 0 */
};

/* Lives in the asker; valid until done is called or dns_cancel. */
struct dns_query {
    struct list link;
    void (*done)(struct dns_query *q, const struct dns_answer *answer);
};

enum dns_start { DNS_ANSWERED, DNS_PENDING, DNS_REFUSED /* limits.dns_queue */ };

struct dns *dns_new(struct worker *w); /* uses w->snap's configuration */
void dns_free(struct dns *d);
void dns_reconfigure(struct dns *d); /* w->snap has changed */

/* host: lower case, or an address literal.  Answered: *answer is filled, done is not called. */
enum dns_start dns_resolve(struct dns *d, const char *host, struct dns_query *q,
                           struct dns_answer *answer);
void dns_cancel(struct dns_query *q);
void dns_expire(struct dns *d, const char *host); /* a connect to it failed */
/* Whether an idle connection to a may still serve host: a is in the newest answer, expired or
 * not (an expired one is asked for anew in the background).  True for literals. */
bool dns_still_answers(struct dns *d, const char *host, const struct address *a);
void dns_tick(struct dns *d); /* every second: forgets what nobody asked for */

#endif
