#include "proxy/route.h"
#include "base/base.h"
#include "base/map.h"
#include <arpa/inet.h>
#include <stdlib.h>

/* Routes of one host pattern, in file order. */
struct bucket {
    size_t *indexes;
    size_t count;
};

struct route_table {
    const struct route *routes;
    struct map *exact;  /* "a.example" -> struct bucket */
    struct map *suffix; /* ".a.example" -> struct bucket */
    struct bucket any;  /* routes without hosts, or with "*" */
};

static void bucket_add(struct bucket *b, size_t index)
{
    if (b->count > 0 && b->indexes[b->count - 1] == index)
        return; /* two patterns of one route in one bucket */
    b->indexes = xrealloc(b->indexes, (b->count + 1) * sizeof(*b->indexes));
    b->indexes[b->count++] = index;
}

static void map_bucket_add(struct map *m, const char *key, size_t index)
{
    struct bucket *b = map_get(m, key, strlen(key));
    if (!b) {
        b = xcalloc(1, sizeof(*b));
        map_put(m, key, strlen(key), b);
    }
    bucket_add(b, index);
}

static void table_add(struct route_table *t, size_t index)
{
    const struct string_list *hosts = &t->routes[index].match.hosts;
    if (hosts->count == 0)
        bucket_add(&t->any, index);
    for (size_t i = 0; i < hosts->count; i++) {
        const char *host = hosts->items[i];
        if (strcmp(host, "*") == 0)
            bucket_add(&t->any, index);
        else if (host[0] == '*')
            map_bucket_add(t->suffix, host + 1, index);
        else
            map_bucket_add(t->exact, host, index);
    }
}

struct route_table *route_table_new(const struct route *routes, size_t count)
{
    struct route_table *t = xcalloc(1, sizeof(*t));
    t->routes = routes;
    t->exact = map_new();
    t->suffix = map_new();
    for (size_t i = 0; i < count; i++)
        table_add(t, i);
    return t;
}

static void map_buckets_free(struct map *m)
{
    size_t pos = 0;
    void *value;
    while (map_next(m, &pos, NULL, NULL, &value)) {
        free(((struct bucket *)value)->indexes);
        free(value);
    }
    map_free(m);
}

void route_table_free(struct route_table *t)
{
    if (!t)
        return;
    map_buckets_free(t->exact);
    map_buckets_free(t->suffix);
    free(t->any.indexes);
    free(t);
}

static bool port_fits(const struct route *r, uint16_t port)
{
    for (size_t i = 0; i < r->match.ports.count; i++)
        if (port >= r->match.ports.items[i].first && port <= r->match.ports.items[i].last)
            return true;
    return r->match.ports.count == 0;
}

static bool unconditional(const struct route *r)
{
    return r->match.methods.count == 0 && r->match.paths.count == 0 && r->match.headers.count == 0;
}

/* Host names have at most 127 labels; with the exact and the general bucket that bounds
 * how many buckets one host can touch. */
#define BUCKETS_MAX 130

static size_t buckets_of(const struct route_table *t, struct slice host,
                         const struct bucket *out[BUCKETS_MAX], bool *named)
{
    size_t n = 0;
    const struct bucket *b = map_get(t->exact, host.p, host.len);
    if (b)
        out[n++] = b;
    if (map_count(t->suffix) > 0) {
        for (size_t i = 1; i < host.len && n < BUCKETS_MAX - 1; i++) {
            if (host.p[i] != '.')
                continue;
            b = map_get(t->suffix, host.p + i, host.len - i);
            if (b)
                out[n++] = b;
        }
    }
    *named = n > 0;
    if (t->any.count > 0)
        out[n++] = &t->any;
    return n;
}

void route_candidates_init(const struct route_table *t, struct slice host, uint16_t port,
                           struct route_candidates *out)
{
    const struct bucket *buckets[BUCKETS_MAX];
    size_t at[BUCKETS_MAX] = { 0 };
    *out = (struct route_candidates){ 0 };
    size_t n = buckets_of(t, host, buckets, &out->named), cap = 0;
    for (;;) {
        /* Merge by file order; a route may stand in several buckets. */
        size_t best = SIZE_MAX;
        for (size_t i = 0; i < n; i++)
            if (at[i] < buckets[i]->count && buckets[i]->indexes[at[i]] < best)
                best = buckets[i]->indexes[at[i]];
        if (best == SIZE_MAX)
            return;
        for (size_t i = 0; i < n; i++)
            if (at[i] < buckets[i]->count && buckets[i]->indexes[at[i]] == best)
                at[i]++;
        const struct route *r = &t->routes[best];
        if (!port_fits(r, port))
            continue;
        if (out->count == cap) {
            cap = cap ? cap * 2 : 2;
            out->items = xrealloc(out->items, cap * sizeof(*out->items));
        }
        out->items[out->count++] = r;
        if (unconditional(r))
            return;
    }
}

void route_candidates_free(struct route_candidates *c)
{
    free(c->items);
    *c = (struct route_candidates){ 0 };
}

static bool method_fits(const struct route *r, struct slice method)
{
    for (size_t i = 0; i < r->match.methods.count; i++)
        if (slice_eq(method, slice_of(r->match.methods.items[i])))
            return true;
    return r->match.methods.count == 0;
}

static bool path_fits(const struct route *r, struct slice path)
{
    for (size_t i = 0; i < r->match.paths.count; i++) {
        struct slice want = slice_of(r->match.paths.items[i]);
        bool prefix = want.len > 0 && want.p[want.len - 1] == '*';
        if (prefix && path.len >= want.len - 1 && memcmp(path.p, want.p, want.len - 1) == 0)
            return true;
        if (!prefix && slice_eq(path, want))
            return true;
    }
    return r->match.paths.count == 0;
}

static bool headers_fit(const struct route *r, const struct route_request *rq)
{
    for (size_t i = 0; i < r->match.headers.count; i++) {
        const struct name_value *h = &r->match.headers.items[i];
        if (!rq->has_header(rq->ctx, slice_of(h->name), slice_of(h->value)))
            return false;
    }
    return true;
}

const struct route *route_match(const struct route_candidates *c, const struct route_request *rq)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct route *r = c->items[i];
        if (unconditional(r))
            return r;
        if (rq->has_header && method_fits(r, rq->method) && path_fits(r, rq->path) &&
            headers_fit(r, rq))
            return r;
    }
    return NULL;
}

/* How closely a pattern fits: 0 not at all; longer suffixes more, the exact name most. */
static size_t closeness(const char *pattern, struct slice host)
{
    struct slice p = slice_of(pattern);
    if (slice_eq(p, host))
        return SIZE_MAX;
    if (slice_eq(p, SLICE("*")))
        return 1;
    struct slice suffix = { p.p + 1, p.len - 1 };
    bool fits = p.p[0] == '*' && host.len > suffix.len &&
                memcmp(host.p + host.len - suffix.len, suffix.p, suffix.len) == 0;
    return fits ? p.len : 0;
}

const char *route_host_pattern(const struct route *r, struct slice host)
{
    const char *best = NULL;
    size_t most = 0;
    for (size_t i = 0; i < r->match.hosts.count; i++) {
        size_t n = closeness(r->match.hosts.items[i], host);
        if (n > most) {
            most = n;
            best = r->match.hosts.items[i];
        }
    }
    return best;
}

/* ---- Bypass ---- */

static bool in_cidr(const char *entry, struct slice host)
{
    char net[INET6_ADDRSTRLEN], text[INET6_ADDRSTRLEN];
    const char *slash = strchr(entry, '/');
    if (!slash || (size_t)(slash - entry) >= sizeof(net) || host.len >= sizeof(text))
        return false;
    memcpy(net, entry, (size_t)(slash - entry));
    net[slash - entry] = '\0';
    memcpy(text, host.p, host.len);
    text[host.len] = '\0';
    uint8_t a[16] = { 0 }, b[16] = { 0 };
    int family = strchr(net, ':') ? AF_INET6 : AF_INET;
    char *rest;
    long bits = strtol(slash + 1, &rest, 10), size = family == AF_INET6 ? 128 : 32;
    if (rest == slash + 1 || *rest || inet_pton(family, net, a) != 1 ||
        inet_pton(family, text, b) != 1 || bits < 0 || bits > size)
        return false;
    for (long i = 0; i < bits; i++)
        if ((a[i / 8] ^ b[i / 8]) >> (7 - i % 8) & 1)
            return false;
    return true;
}

static bool has_suffix(struct slice host, struct slice suffix)
{
    return host.len > suffix.len &&
           slice_eq_nocase((struct slice){ host.p + host.len - suffix.len, suffix.len }, suffix);
}

static bool bypass_entry(const char *entry, struct slice host, uint16_t port)
{
    if (strcmp(entry, "*") == 0 || in_cidr(entry, host))
        return true;
    struct slice name = slice_of(entry);
    const char *colon = memrchr(name.p, ':', name.len);
    bool one_colon = colon && memchr(name.p, ':', name.len) == colon;
    if (one_colon || (colon && name.p[0] == '[' && colon[-1] == ']')) {
        if (strtoul(colon + 1, NULL, 10) != port)
            return false;
        name.len = (size_t)(colon - name.p);
    }
    if (name.len > 2 && name.p[0] == '[' && name.p[name.len - 1] == ']')
        name = (struct slice){ name.p + 1, name.len - 2 };
    if (name.len > 1 && name.p[0] == '*' && name.p[1] == '.')
        name = (struct slice){ name.p + 1, name.len - 1 };
    if (name.len == 0)
        return false;
    if (name.p[0] == '.')
        return has_suffix(host, name);
    if (slice_eq_nocase(host, name))
        return true;
    return has_suffix(host, name) && host.p[host.len - name.len - 1] == '.';
}

const char *bypass_find(const struct string_list *entries, struct slice host, uint16_t port)
{
    for (size_t i = 0; i < entries->count; i++)
        if (bypass_entry(entries->items[i], host, port))
            return entries->items[i];
    return NULL;
}

bool bypass_match(const struct string_list *entries, struct slice host, uint16_t port)
{
    return bypass_find(entries, host, port) != NULL;
}
