/*
 * target.h - what a worker remembers of one upstream host and port.
 *
 * One lookup per request finds the idle connections, the candidate routes and the names
 * that "{host}" stands for.  Forgotten when nobody refers to it and room is needed.
 */
#ifndef PROXY_TARGET_H
#define PROXY_TARGET_H
#include "proxy/authority.h"
#include "proxy/dns.h"
#include "proxy/route.h"
#include "proxy/worker.h"
#include <stdbool.h>
#include <stdint.h>

struct live_route;
struct snapshot;

struct target_names { /* of one templated route for this host */
    const struct live_route *route;
    uint32_t breakers[MAX_BREAKERS];
};

struct target {
    struct list lru;
    struct list idle; /* struct upstream, most recently used first */
    unsigned refs;    /* exchanges and connections */
    bool is_literal;  /* needs no resolver: a literal, or a fixed address */
    bool is_fixed;    /* transparent mode: connect to this address, whatever the name */
    struct address fixed;
    uint16_t port;
    uint64_t generation; /* snapshot that the members below belong to; 0: none yet */
    struct route_candidates candidates;
    struct target_names *names;
    size_t name_count;
    uint32_t host_id;  /* interned {host}; 0: not yet, or no room */
    bool bypassed;     /* matches the bypass list */
    bool host_refused; /* past limits.auto_breakers or the table: ungated, no samples */
    size_t label_len;
    char label[HOST_MAX + 10]; /* {host} */
    char host[HOST_MAX + 1];   /* what is resolved */
    size_t authority_len;      /* "host:port" at the front of key */
    size_t key_len;
    char key[];
};

/* Adds a reference. */
struct target *target_get(struct worker *w, const struct authority *a);
/* What target_get would find for this authority with default port 80, if it was asked for lately
 * and is spelled as most are: in lower case, plainly.  NULL: parse it.  Adds no reference. */
struct target *target_recall(const struct worker *w, struct slice authority);
/* Takes what target_recall has found: as target_get. */
void target_take(struct worker *w, struct target *t);
void target_ref(struct target *t);
void target_unref(struct target *t);
void targets_free(struct worker *w);

/* The route for a request under this snapshot; never NULL (the fallback). */
const struct live_route *target_route(struct target *t, struct worker *w,
                                      const struct snapshot *snap, const struct route_request *rq);
/* Whether the host is in the bypass list and no route names it. */
bool target_bypassed(struct target *t, const struct snapshot *snap);
/* The breaker slots of a route for this host; NULL with *count 0: ungated. Interns templated
 * names at first sight.  Sets t->host_id if samples tell the host. */
const uint32_t *target_breakers(struct target *t, struct worker *w, const struct snapshot *snap,
                                const struct live_route *r, unsigned *count);

#endif
