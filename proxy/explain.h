/*
 * explain.h - which way a request would take, and why, without sending it (pure).
 *
 * Asks the same route table and the same gate as a request does; half-open is answered by a
 * probability instead of a draw.  How many probes there are now, or how large a body is, is not
 * asked: the bounds that would have a say are named.  An https:// URL is explained as the
 * CONNECT that a client makes of it.  Names are not resolved, so what only an address can tell
 * (loops, denied networks) is said only where the URL has an address.
 */
#ifndef PROXY_EXPLAIN_H
#define PROXY_EXPLAIN_H
#include "base/slice.h"
#include "config/config.h"
#include "proxy/authority.h"
#include "sync/breakers.h"
#include <stdbool.h>
#include <stdint.h>

#define EXPLAIN_BOUNDS_MAX 4

struct route_table;
struct self_addrs;
struct strbuf;
struct switches;

struct intern;

struct explain_world { /* all borrowed */
    const struct config *cfg;
    const struct route_table *table;
    const struct breakers *breakers; /* NULL: no proxy was asked, so no state is known */
    const struct switches *switches; /* NULL together with breakers */
    const struct self_addrs *self;   /* what the proxy listens on; NULL together with breakers */
    struct intern *hosts;            /* that have {host} names; NULL together with breakers */
    int64_t now_ms;                  /* monotonic */
};

struct explain_question {
    struct slice url;    /* http://..., https://..., or host:port with the method CONNECT */
    struct slice method; /* of what is sent inside a CONNECT it says nothing */
    const struct name_value_list *headers;
};

enum explain_verdict {
    EXPLAIN_ALLOWED,
    EXPLAIN_BY_CHANCE, /* half-open: allowed with a probability */
    EXPLAIN_REJECTED,
    EXPLAIN_UNKNOWN, /* depends on states, and none are known */
};
const char *explain_verdict_name(enum explain_verdict v); /* "allowed", "by_chance", ... */

struct explained_breaker {
    char name[HOST_MAX + 1];
    size_t len;
    uint32_t id; /* 0: nobody has named it yet */
};

struct explanation {
    struct authority to;
    bool is_connect;
    const struct route *route;
    bool is_fallback;   /* no route matches */
    bool host_left_out; /* names with {host} do not guard it: limits.auto_breakers, or too long */
    const char *host_pattern;       /* of the route; NULL: it takes every host */
    struct string_list passed_over; /* names of earlier routes whose host and port fit; owned */
    const char
        *bypass_entry; /* of the bypass list; NULL: none matches, or a route names the host */
    struct explained_breaker breakers[MAX_BREAKERS];
    unsigned breaker_count;
    bool unresolved; /* the breakers are selected by metadata that has not come */
    unsigned flags;  /* breakers_flags() */
    enum explain_verdict verdict;
    double probability; /* of passing: 0 to 1, also where the verdict is plain; NaN: unknown */
    const char *why;    /* one clause */
    const char *bounds[EXPLAIN_BOUNDS_MAX]; /* keys that may refuse a probe all the same */
    unsigned bound_count;
    const char *decided_by; /* name of the breaker that decides, or NULL */
};

/* 0, or -1: *why says what is wrong with the question. */
int explain(const struct explain_world *w, const struct explain_question *q,
            struct explanation *out, const char **why);
void explanation_free(struct explanation *e);

/* As JSON; what the admin listener answers and the subcommand prints. */
void explain_write(const struct explain_world *w, const struct explain_question *q,
                   const struct explanation *e, struct strbuf *out);

#endif
