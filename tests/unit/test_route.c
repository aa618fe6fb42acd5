/* Which route a request takes: the first that matches, however they are indexed. */
#include "proxy/route.h"

#include "base/base.h"
#include "base/prng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A route as words: "hosts|ports|methods|paths|header=value", each list by commas. */
struct arena {
    struct route *routes;
    size_t count;
};

static struct string_list list_of(const char *text, size_t len)
{
    struct string_list l = { NULL, 0 };
    char *copy = xstrndup(text, len), *save = NULL;

    for (char *t = strtok_r(copy, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
        l.items = xrealloc(l.items, (l.count + 1) * sizeof(*l.items));
        l.items[l.count++] = xstrdup(t);
    }
    free(copy);
    return l;
}

static void list_drop(struct string_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->items[i]);
    free(l->items);
}

static void add_ports(struct port_list *ports, const struct string_list *texts)
{
    for (size_t i = 0; i < texts->count; i++) {
        unsigned first, last;
        if (sscanf(texts->items[i], "%u-%u", &first, &last) < 2)
            last = first;
        ports->items = xrealloc(ports->items, (ports->count + 1) * sizeof(*ports->items));
        ports->items[ports->count++] = (struct port_range){ (uint16_t)first, (uint16_t)last };
    }
}

static void add_headers(struct name_value_list *headers, const struct string_list *texts)
{
    for (size_t i = 0; i < texts->count; i++) {
        const char *eq = strchr(texts->items[i], '=');
        headers->items = xrealloc(headers->items, (headers->count + 1) * sizeof(*headers->items));
        headers->items[headers->count++] =
            (struct name_value){ xstrndup(texts->items[i], (size_t)(eq - texts->items[i])),
                                 xstrdup(eq + 1) };
    }
}

static void add_route(struct arena *a, const char *words)
{
    struct string_list parts[5];

    for (int i = 0; i < 5; i++) {
        size_t n = strcspn(words, "|");
        parts[i] = list_of(words, n);
        words += n + (words[n] == '|');
    }
    if ((a->count & (a->count - 1)) == 0) /* 0, 1, 2, 4, 8, ... */
        a->routes = xrealloc(a->routes, (a->count ? 2 * a->count : 1) * sizeof(*a->routes));
    struct route *r = &a->routes[a->count];
    *r = (struct route){ .index = a->count,
                         .match = { .hosts = parts[0], .methods = parts[2], .paths = parts[3] } };
    add_ports(&r->match.ports, &parts[1]);
    add_headers(&r->match.headers, &parts[4]);
    list_drop(&parts[1]);
    list_drop(&parts[4]);
    a->count++;
}

static void arena_drop(struct arena *a)
{
    for (size_t i = 0; i < a->count; i++) {
        struct match *m = &a->routes[i].match;
        list_drop(&m->hosts);
        list_drop(&m->methods);
        list_drop(&m->paths);
        free(m->ports.items);
        for (size_t h = 0; h < m->headers.count; h++) {
            free(m->headers.items[h].name);
            free(m->headers.items[h].value);
        }
        free(m->headers.items);
    }
    free(a->routes);
    *a = (struct arena){ 0 };
}

struct request {
    const char *host;
    unsigned port;
    const char *method, *path;
    const char *headers; /* "name=value" by commas; NULL: a tunnel */
};

static bool has_header(void *ctx, struct slice name, struct slice value)
{
    const struct request *rq = ctx;
    struct string_list l = list_of(rq->headers, strlen(rq->headers));
    bool found = false;

    for (size_t i = 0; i < l.count; i++) {
        const char *eq = strchr(l.items[i], '=');
        found |= slice_eq_nocase((struct slice){ l.items[i], (size_t)(eq - l.items[i]) }, name) &&
                 slice_eq(slice_of(eq + 1), value);
    }
    list_drop(&l);
    return found;
}

/* The index of the route, or -1. */
static long take(const struct route_table *t, const struct request *rq, bool *named)
{
    struct route_candidates c;
    struct request mine = *rq;
    struct route_request r = { .method = slice_of(rq->method ? rq->method : ""),
                               .path = slice_of(rq->path ? rq->path : ""),
                               .has_header = rq->headers ? has_header : NULL,
                               .ctx = &mine };

    route_candidates_init(t, slice_of(rq->host), (uint16_t)rq->port, &c);
    const struct route *got = route_match(&c, &r);
    long index = got ? (long)got->index : -1;
    if (named)
        *named = c.named;
    route_candidates_free(&c);
    return index;
}

struct route_case {
    const char *name;
    const char *routes[5];
    struct request rq;
    long want;
};

static void check(const struct route_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct arena a = { 0 };
        for (size_t r = 0; r < 5 && cases[i].routes[r]; r++)
            add_route(&a, cases[i].routes[r]);
        struct route_table *t = route_table_new(a.routes, a.count);
        long got = take(t, &cases[i].rq, NULL);
        route_table_free(t);
        arena_drop(&a);
        if (got != cases[i].want)
            fail_msg("%s: %s:%u %s %s [%s]: got route %ld, want %ld", cases[i].name,
                     cases[i].rq.host, cases[i].rq.port, cases[i].rq.method, cases[i].rq.path,
                     cases[i].rq.headers ? cases[i].rq.headers : "tunnel", got, cases[i].want);
    }
}

static void hosts_match_exactly_by_suffix_or_all(void **state)
{
    (void)state;
    static const struct route_case cases[] = {
        { "no routes", { NULL }, { "a", 80, "GET", "/", "" }, -1 },
        { "exact", { "a.b" }, { "a.b", 80, "GET", "/", "" }, 0 },
        { "another", { "a.b" }, { "b", 80, "GET", "/", "" }, -1 },
        { "a longer name", { "a.b" }, { "x.a.b", 80, "GET", "/", "" }, -1 },
        { "a shorter one", { "a.b" }, { "a.bc", 80, "GET", "/", "" }, -1 },
        { "suffix", { "*.a.b" }, { "x.a.b", 80, "GET", "/", "" }, 0 },
        { "suffix, deep", { "*.a.b" }, { "z.y.x.a.b", 80, "GET", "/", "" }, 0 },
        { "suffix, not the name itself", { "*.a.b" }, { "a.b", 80, "GET", "/", "" }, -1 },
        { "suffix, not inside a label", { "*.a.b" }, { "xa.b", 80, "GET", "/", "" }, -1 },
        { "suffix of one label", { "*.b" }, { "a.b", 80, "GET", "/", "" }, 0 },
        { "any", { "*" }, { "x", 80, "GET", "/", "" }, 0 },
        { "no hosts at all is any", { "" }, { "x", 80, "GET", "/", "" }, 0 },
        { "one of several", { "a,*.b,c" }, { "x.b", 80, "GET", "/", "" }, 0 },
        { "an address", { "::1" }, { "::1", 80, "GET", "/", "" }, 0 },
        { "an IPv4 address", { "192.0.2.1" }, { "192.0.2.1", 80, "GET", "/", "" }, 0 },
        { "an address is no suffix", { "192.0.2.1" }, { "1.192.0.2.1", 80, "GET", "/", "" }, -1 },
        /* file order beats how specific a pattern is */
        { "any first", { "*", "a.b" }, { "a.b", 80, "GET", "/", "" }, 0 },
        { "exact first", { "a.b", "*" }, { "a.b", 80, "GET", "/", "" }, 0 },
        { "suffix first", { "*.b", "a.b", "*" }, { "a.b", 80, "GET", "/", "" }, 0 },
        { "longer suffix later", { "*.b", "*.a.b" }, { "x.a.b", 80, "GET", "/", "" }, 0 },
        { "longer suffix first", { "*.a.b", "*.b" }, { "x.a.b", 80, "GET", "/", "" }, 0 },
        { "the other of two", { "*.a.b", "*.b" }, { "x.b", 80, "GET", "/", "" }, 1 },
        { "twice in one route", { "q", "a.b,*.b,*,a.b" }, { "a.b", 80, "GET", "/", "" }, 1 },
    };

    check(cases, ARRAY_LEN(cases));
}

static void ports_match_within_their_ranges(void **state)
{
    (void)state;
    static const struct route_case cases[] = {
        { "one", { "a|80" }, { "a", 80, "GET", "/", "" }, 0 },
        { "not that one", { "a|80" }, { "a", 81, "GET", "/", "" }, -1 },
        { "the first of a range", { "a|80-90" }, { "a", 80, "GET", "/", "" }, 0 },
        { "the last of a range", { "a|80-90" }, { "a", 90, "GET", "/", "" }, 0 },
        { "below", { "a|80-90" }, { "a", 79, "GET", "/", "" }, -1 },
        { "above", { "a|80-90" }, { "a", 91, "GET", "/", "" }, -1 },
        { "one of several", { "a|80,443,8000-8999" }, { "a", 8443, "GET", "/", "" }, 0 },
        { "the highest", { "a|1-65535" }, { "a", 65535, "GET", "/", "" }, 0 },
        { "the next route", { "a|80", "a|443" }, { "a", 443, "GET", "/", "" }, 1 },
        { "for tunnels too", { "a|80", "a|443" }, { "a", 443, NULL, NULL, NULL }, 1 },
    };

    check(cases, ARRAY_LEN(cases));
}

static void methods_paths_and_headers_must_all_match(void **state)
{
    (void)state;
    static const struct route_case cases[] = {
        { "method", { "a||POST" }, { "a", 80, "POST", "/", "" }, 0 },
        { "methods are case-sensitive", { "a||POST" }, { "a", 80, "post", "/", "" }, -1 },
        { "one of two", { "a||POST,PUT" }, { "a", 80, "PUT", "/", "" }, 0 },
        { "no prefix of a method", { "a||POST" }, { "a", 80, "POSTER", "/", "" }, -1 },
        { "path", { "a|||/v1/charge" }, { "a", 80, "GET", "/v1/charge", "" }, 0 },
        { "a longer path", { "a|||/v1/charge" }, { "a", 80, "GET", "/v1/charges", "" }, -1 },
        { "a slash more", { "a|||/v1/charge" }, { "a", 80, "GET", "/v1/charge/", "" }, -1 },
        { "paths are case-sensitive", { "a|||/v1" }, { "a", 80, "GET", "/V1", "" }, -1 },
        { "no decoding", { "a|||/a" }, { "a", 80, "GET", "/%61", "" }, -1 },
        { "prefix", { "a|||/v1/*" }, { "a", 80, "GET", "/v1/x/y", "" }, 0 },
        { "an empty rest", { "a|||/v1/*" }, { "a", 80, "GET", "/v1/", "" }, 0 },
        { "less than the prefix", { "a|||/v1/*" }, { "a", 80, "GET", "/v1", "" }, -1 },
        { "another prefix", { "a|||/v1/*" }, { "a", 80, "GET", "/v2/x", "" }, -1 },
        { "a prefix within a segment", { "a|||/v1*" }, { "a", 80, "GET", "/v11", "" }, 0 },
        { "everything", { "a|||*" }, { "a", 80, "GET", "/x", "" }, 0 },
        { "the star of OPTIONS", { "a|||/*" }, { "a", 80, "OPTIONS", "*", "" }, -1 },
        { "header", { "a||||x-t=blue" }, { "a", 80, "GET", "/", "X-T=blue" }, 0 },
        { "its value exactly", { "a||||x-t=blue" }, { "a", 80, "GET", "/", "X-T=Blue" }, -1 },
        { "any of its lines", { "a||||x-t=blue" }, { "a", 80, "GET", "/", "x-t=red,x-t=blue" }, 0 },
        { "all headers", { "a||||x=1,y=2" }, { "a", 80, "GET", "/", "x=1,y=2" }, 0 },
        { "one is missing", { "a||||x=1,y=2" }, { "a", 80, "GET", "/", "x=1" }, -1 },
        { "all kinds", { "a||POST|/p|x=1" }, { "a", 80, "POST", "/p", "x=1" }, 0 },
        { "not the method", { "a||POST|/p|x=1" }, { "a", 80, "GET", "/p", "x=1" }, -1 },
        { "not the path", { "a||POST|/p|x=1" }, { "a", 80, "POST", "/q", "x=1" }, -1 },
        { "not the header", { "a||POST|/p|x=1" }, { "a", 80, "POST", "/p", "x=2" }, -1 },
        { "the next that fits", { "a||POST", "a|||/p", "a" }, { "a", 80, "GET", "/p", "" }, 1 },
        { "the last resort", { "a||POST", "a|||/p", "a" }, { "a", 80, "GET", "/q", "" }, 2 },
        { "behind the last resort", { "a", "a||POST" }, { "a", 80, "POST", "/q", "" }, 0 },
        { "another host's last resort", { "b", "a||POST" }, { "a", 80, "POST", "/q", "" }, 1 },
    };

    check(cases, ARRAY_LEN(cases));
}

static void tunnels_match_only_routes_without_conditions(void **state)
{
    (void)state;
    static const struct route_case cases[] = {
        { "unconditional", { "a" }, { "a", 443, NULL, NULL, NULL }, 0 },
        { "methods", { "a||CONNECT" }, { "a", 443, "CONNECT", "", NULL }, -1 },
        { "paths", { "a|||*" }, { "a", 443, "CONNECT", "", NULL }, -1 },
        { "headers", { "a||||x=1" }, { "a", 443, "CONNECT", "", NULL }, -1 },
        { "the first without",
          { "a||GET", "a|||/x", "*", "a" },
          { "a", 443, NULL, NULL, NULL },
          2 },
    };

    check(cases, ARRAY_LEN(cases));
}

static void a_host_is_named_by_a_pattern_that_is_not_everything(void **state)
{
    (void)state;
    static const struct {
        const char *route, *host;
        bool want;
    } cases[] = {
        { "a", "a", true },    { "*.b", "a.b", true }, { "*", "a", false },
        { "", "a", false },    { "b", "a", false },    { "*,a", "a", true },
        { "*,a", "b", false }, { "a|443", "a", true }, /* on another port, but named */
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a = { 0 };
        bool named;
        add_route(&a, cases[i].route);
        struct route_table *t = route_table_new(a.routes, a.count);
        take(t, &(struct request){ cases[i].host, 80, "GET", "/", "" }, &named);
        route_table_free(t);
        arena_drop(&a);
        if (named != cases[i].want)
            fail_msg("\"%s\" and %s: got %d", cases[i].route, cases[i].host, named);
    }
}

static void candidates_end_with_the_first_that_asks_for_nothing_else(void **state)
{
    (void)state;
    struct arena a = { 0 };
    struct route_candidates c;

    add_route(&a, "a||POST");
    add_route(&a, "b");
    add_route(&a, "*||GET");
    add_route(&a, "a|443");
    add_route(&a, "*");
    add_route(&a, "a||PUT");
    struct route_table *t = route_table_new(a.routes, a.count);
    route_candidates_init(t, SLICE("a"), 80, &c);
    assert_int_equal(c.count, 3);
    assert_int_equal(c.items[0]->index, 0);
    assert_int_equal(c.items[1]->index, 2);
    assert_int_equal(c.items[2]->index, 4);
    route_candidates_free(&c);
    assert_int_equal(c.count, 0);
    route_candidates_free(&c); /* twice is fine */
    route_table_free(t);
    route_table_free(NULL);
    arena_drop(&a);
}

static void the_longest_host_with_the_most_labels_is_looked_up(void **state)
{
    (void)state;
    struct arena a = { 0 };
    char host[256], pattern[320];

    for (size_t i = 0; i < 255; i++)
        host[i] = i % 2 ? '.' : 'a';
    host[255] = '\0';
    /* Every suffix there is has a route that does not fit, so that all buckets are touched. */
    for (size_t i = 1; i < 255; i += 2) {
        snprintf(pattern, sizeof(pattern), "*%s||NEVER", host + i);
        add_route(&a, pattern);
    }
    snprintf(pattern, sizeof(pattern), "%s||NEVER", host);
    add_route(&a, pattern);
    add_route(&a, "*||NEVER");
    add_route(&a, "*.a");
    struct route_table *t = route_table_new(a.routes, a.count);
    long got = take(t, &(struct request){ host, 80, "GET", "/", "" }, NULL);
    assert_int_equal(got, a.count - 1);
    route_table_free(t);
    arena_drop(&a);
}

/* ---- Against a model that tries one route after the other ---- */

static bool model_host(const struct match *m, const char *host)
{
    for (size_t i = 0; i < m->hosts.count; i++) {
        const char *p = m->hosts.items[i];
        size_t pl = strlen(p + 1), hl = strlen(host);
        if (strcmp(p, "*") == 0 || strcmp(p, host) == 0)
            return true;
        if (p[0] == '*' && hl > pl && strcmp(host + hl - pl, p + 1) == 0)
            return true;
    }
    return m->hosts.count == 0;
}

static bool model_port(const struct match *m, unsigned port)
{
    for (size_t i = 0; i < m->ports.count; i++)
        if (port >= m->ports.items[i].first && port <= m->ports.items[i].last)
            return true;
    return m->ports.count == 0;
}

static bool model_text(const struct string_list *l, const char *text, bool star)
{
    for (size_t i = 0; i < l->count; i++) {
        size_t n = strlen(l->items[i]);
        bool prefix = star && l->items[i][n - 1] == '*';
        if (prefix ? strncmp(text, l->items[i], n - 1) == 0 : strcmp(text, l->items[i]) == 0)
            return true;
    }
    return l->count == 0;
}

static long model(const struct arena *a, const struct request *rq)
{
    for (size_t i = 0; i < a->count; i++) {
        const struct match *m = &a->routes[i].match;
        if (!model_host(m, rq->host) || !model_port(m, rq->port))
            continue;
        if (!rq->headers) {
            if (m->methods.count + m->paths.count + m->headers.count == 0)
                return (long)i;
            continue;
        }
        bool headers = true;
        for (size_t h = 0; h < m->headers.count; h++) {
            char text[64];
            snprintf(text, sizeof(text), "%s=%s", m->headers.items[h].name,
                     m->headers.items[h].value);
            headers &= strstr(rq->headers, text) != NULL;
        }
        if (headers && model_text(&m->methods, rq->method, false) &&
            model_text(&m->paths, rq->path, true))
            return (long)i;
    }
    return -1;
}

static const char *const methods[] = { "GET", "POST", "PUT" };
static const char *const paths[] = { "/", "/a", "/a/b", "/a/bc" };
static const char *const conditions[] = { "",      "||GET",      "||POST,PUT",      "|||/a*",
                                          "|||/a", "|443",       "|80-90||/*",      "||||x=1",
                                          "",      "||GET|/a/b", "||PUT||x=1,y=22", "|81" };

/* Up to three labels of a small alphabet, so that patterns and hosts often meet. */
static void random_host(struct prng *p, unsigned names, char *out, size_t size)
{
    unsigned labels = 1 + prng_u32(p) % 3;
    size_t n = 0;

    for (unsigned i = 0; i < labels; i++)
        n += (size_t)snprintf(out + n, size - n, "%sh%u", i ? "." : "", prng_u32(p) % names);
}

static void random_route(struct prng *p, unsigned names, char *out, size_t size)
{
    unsigned hosts = 1 + prng_u32(p) % 3;
    size_t n = 0;

    for (unsigned i = 0; i < hosts; i++) {
        char host[64];
        random_host(p, names, host, sizeof(host));
        if (prng_u32(p) % 500 == 0)
            snprintf(host, sizeof(host), "*");
        n += (size_t)snprintf(out + n, size - n, "%s%s%s", i ? "," : "",
                              host[0] != '*' && prng_u32(p) % 3 == 0 ? "*." : "", host);
    }
    snprintf(out + n, size - n, "%s", conditions[prng_u32(p) % ARRAY_LEN(conditions)]);
}

static void compare(struct prng *p, size_t routes, unsigned names, unsigned requests)
{
    struct arena a = { 0 };
    char text[256];
    unsigned matched = 0;

    for (size_t i = 0; i < routes; i++) {
        random_route(p, names, text, sizeof(text));
        add_route(&a, text);
    }
    struct route_table *t = route_table_new(a.routes, a.count);
    for (unsigned i = 0; i < requests; i++) {
        static const char *const headers[] = { "", "x=1", "y=22,x=1", NULL };
        static const unsigned ports[] = { 80, 81, 443, 90 };
        char host[64];
        random_host(p, names, host, sizeof(host));
        struct request rq = { host, ports[prng_u32(p) % 4], methods[prng_u32(p) % 3],
                              paths[prng_u32(p) % 4], headers[prng_u32(p) % 4] };
        long got = take(t, &rq, NULL), want = model(&a, &rq);
        matched += want >= 0;
        if (got != want)
            fail_msg("%zu routes, %s:%u %s %s [%s]: got route %ld, want %ld", routes, host, rq.port,
                     rq.method, rq.path, rq.headers ? rq.headers : "tunnel", got, want);
    }
    if (routes > 10 && matched < requests / 20)
        fail_msg("%zu routes: only %u of %u requests matched any", routes, matched, requests);
    route_table_free(t);
    arena_drop(&a);
}

static void the_index_finds_what_a_linear_search_finds(void **state)
{
    (void)state;
    struct prng p;

    prng_seed_fixed(&p, 31);
    for (unsigned round = 0; round < 200; round++)
        compare(&p, prng_u32(&p) % 30, 4, 200);
}

static void ten_thousand_routes_are_searched_correctly(void **state)
{
    (void)state;
    struct prng p;

    prng_seed_fixed(&p, 32);
    compare(&p, 10000, 300, 4000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_match_exactly_by_suffix_or_all),
        cmocka_unit_test(ports_match_within_their_ranges),
        cmocka_unit_test(methods_paths_and_headers_must_all_match),
        cmocka_unit_test(tunnels_match_only_routes_without_conditions),
        cmocka_unit_test(a_host_is_named_by_a_pattern_that_is_not_everything),
        cmocka_unit_test(candidates_end_with_the_first_that_asks_for_nothing_else),
        cmocka_unit_test(the_longest_host_with_the_most_labels_is_looked_up),
        cmocka_unit_test(the_index_finds_what_a_linear_search_finds),
        cmocka_unit_test(ten_thousand_routes_are_searched_correctly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
