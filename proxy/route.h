/*
 * route.h - which route a request takes: the first that matches, in file order (pure).
 *
 * Routes are indexed by host, so the cost does not grow with the routes of other
 * hosts.  The part that depends on host and port alone is worked out once per target
 * (route_candidates); per request only methods, paths and headers are looked at.
 */
#ifndef PROXY_ROUTE_H
#define PROXY_ROUTE_H
#include "base/slice.h"
#include "config/config.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct route_table; /* opaque, immutable */

struct route_table *route_table_new(const struct route *routes, size_t count); /* borrows routes */
void route_table_free(struct route_table *t);

/* Routes whose hosts and ports fit, in file order, up to and including the first that asks
 * for nothing else. */
struct route_candidates {
    const struct route **items; /* owned */
    size_t count;
    bool named; /* a route names the host, not only "*" */
};
void route_candidates_init(const struct route_table *t, struct slice host, uint16_t port,
                           struct route_candidates *out);
void route_candidates_free(struct route_candidates *c);

struct route_request {
    struct slice method;
    struct slice path;                                                    /* without "?query" */
    bool (*has_header)(void *ctx, struct slice name, struct slice value); /* NULL: a tunnel */
    void *ctx;
};
/* NULL: none matches.  A tunnel (has_header NULL) matches only routes without method, path
 * and header conditions. */
const struct route *route_match(const struct route_candidates *c, const struct route_request *rq);

/* The host pattern of a matching route that fits most closely; NULL: it has none at all. */
const char *route_host_pattern(const struct route *r, struct slice host);

/* The bypass list, by the rules of Go's httpproxy: "example.com" and its subdomains,
 * ".example.com" the subdomains alone, an address, a CIDR, "host:port", or "*". */
bool bypass_match(const struct string_list *entries, struct slice host, uint16_t port);
/* The first entry that matches, or NULL. */
const char *bypass_find(const struct string_list *entries, struct slice host, uint16_t port);

#endif
