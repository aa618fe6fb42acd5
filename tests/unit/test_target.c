/* What a worker remembers of a host: one entry each, its names, and how many there may be. */
#include "proxy/target.h"

#include "base/base.h"
#include "base/intern.h"
#include "base/map.h"
#include "proxy/snapshot.h"
#include "sync/breakers.h"
#include "tests/unit/show.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WORKERS 2

static struct proxy p;
static struct config cfg;
static struct snapshot snap;

static void worker_begin(unsigned i)
{
    struct worker *w = xcalloc(1, sizeof(*w));

    w->proxy = &p;
    w->index = i;
    w->targets = map_new();
    list_init(&w->target_lru);
    p.workers[i] = w;
}

static int set_up(void **state)
{
    (void)state;
    memset(&p, 0, sizeof(p));
    memset(&cfg, 0, sizeof(cfg));
    memset(&snap, 0, sizeof(snap));
    p.breakers = breakers_new();
    p.auto_hosts = intern_new(1000);
    for (unsigned i = 0; i < WORKERS; i++)
        worker_begin(i);
    cfg.limits.auto_breakers = 100;
    snap.cfg = &cfg;
    snap.generation = 1;
    snap.table = route_table_new(NULL, 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WORKERS; i++) {
        targets_free(p.workers[i]);
        free(p.workers[i]);
    }
    route_table_free(snap.table);
    breakers_free(p.breakers);
    intern_free(p.auto_hosts);
    return 0;
}

static struct target *get(unsigned worker, const char *text)
{
    struct authority a;

    memset(&a, 0xa5, sizeof(a)); /* as on a stack */
    if (authority_parse(&a, slice_of(text), 80))
        fail_msg("%s is no authority", text);
    return target_get(p.workers[worker], &a);
}

static void a_host_and_port_have_one_target_per_worker(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool same;
    } cases[] = {
        { "a.b", "a.b", true },           { "a.b", "A.B.", true },
        { "a.b", "a.b:80", true },        { "a.b", "a.b:81", false },
        { "a.b", "a.c", false },          { "a.b:443", "a.b:80", false },
        { "[::1]", "[0:0::1]:80", true }, { "[::1]:80", "[::1]:81", false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct target *a = get(0, cases[i].a), *b = get(0, cases[i].b);
        if ((a == b) != cases[i].same)
            fail_msg("%s and %s: the same %d", cases[i].a, cases[i].b, a == b);
        struct target *other = get(1, cases[i].a);
        assert_ptr_not_equal(a, other);
        target_unref(a);
        target_unref(b);
        target_unref(other);
        assert_int_equal(a->refs, 0);
    }
}

static void a_target_knows_its_host_port_and_label(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host, *label, *key;
        unsigned port;
        bool literal;
    } cases[] = {
        { "Api.Example.com.", "api.example.com", "api.example.com", "api.example.com:80", 80,
          false },
        { "a:443", "a", "a", "a:443", 443, false },
        { "a:8080", "a", "a:8080", "a:8080", 8080, false },
        { "192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.1:80", 80, true },
        { "[2001:DB8::1]:81", "2001:db8::1", "[2001:db8::1]:81", "[2001:db8::1]:81", 81, true },
        { "192.0.2.1.example", "192.0.2.1.example", "192.0.2.1.example", "192.0.2.1.example:80", 80,
          false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct target *t = get(0, cases[i].text);
        if (strcmp(t->host, cases[i].host) != 0 || strcmp(t->label, cases[i].label) != 0 ||
            t->label_len != strlen(t->label) || strcmp(t->key, cases[i].key) != 0 ||
            t->key_len != strlen(t->key) || t->port != cases[i].port ||
            t->is_literal != cases[i].literal)
            fail_msg("%s: host %s, label %s, key %s, port %u, literal %d", cases[i].text, t->host,
                     t->label, t->key, (unsigned)t->port, t->is_literal);
        target_unref(t);
    }
}

static void references_keep_a_target_when_room_is_made(void **state)
{
    (void)state;
    struct worker *w = p.workers[0];
    char text[32];
    struct target *kept = get(0, "kept");

    for (unsigned i = 0; i < 10000; i++) {
        snprintf(text, sizeof(text), "h%u", i);
        target_unref(get(0, text));
        if (map_count(w->targets) > 4096)
            fail_msg("%zu targets after %u hosts", map_count(w->targets), i);
    }
    struct target *again = get(0, "kept");
    assert_ptr_equal(kept, again);
    target_unref(kept);
    target_unref(again);
    struct target *newest = get(0, "h9999");
    assert_int_equal(map_count(w->targets), 4096);
    target_unref(newest);
}

static void the_least_recently_used_target_goes_first(void **state)
{
    (void)state;
    struct worker *w = p.workers[0];
    char text[32];

    for (unsigned i = 0; i < 4096; i++) {
        snprintf(text, sizeof(text), "h%u", i);
        target_unref(get(0, text));
    }
    target_unref(get(0, "h0")); /* used again: h1 is the oldest now */
    target_unref(get(0, "new"));
    assert_non_null(map_get(w->targets, "h0:80", 5));
    assert_null(map_get(w->targets, "h1:80", 5));
    assert_non_null(map_get(w->targets, "h2:80", 5));
}

/* ---- Those asked for lately ---- */

static void an_authority_spelled_as_the_key_is_recalled_and_no_other(void **state)
{
    (void)state;
    static const struct {
        const char *known, *asked;
        bool recalled;
    } cases[] = {
        { "a.b", "a.b", true },
        { "a.b", "a.b:80", false },
        { "a.b:80", "a.b:80", true },
        { "a.b", "A.B", false },
        { "a.b", "a.b.", false },
        { "a.b", "a.b:", false },
        { "a.b", "a.b:81", false },
        { "a.b:81", "a.b", false },
        { "a.b:81", "a.b:81", true },
        { "a.b:8080", "a.b", false },
        { "a.b:8080", "a.b:80", false },
        { "A.B.", "a.b", false }, /* nobody has spelled it so yet */
        { "[::1]", "[::1]", true },
        { "[::1]:81", "[::1]:81", true },
        { "[::1]", "[0::1]", false },
        { "u@a.b", "a.b", false },
        { "a.b", "u@a.b", false },
        { "one-of-the-longer-names.example:8080", "one-of-the-longer-names.example:8080", true },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct worker *w = p.workers[0];
        struct authority a;
        struct target *t = NULL;
        memset(w->recent_targets, 0, sizeof(w->recent_targets));
        if (authority_parse(&a, slice_of(cases[i].known), 80) == TARGET_OK)
            t = target_get(w, &a);
        struct target *again = target_recall(w, slice_of(cases[i].asked));
        if (again != (cases[i].recalled ? t : NULL))
            fail_msg("%s after %s: recalled %d", cases[i].asked, cases[i].known, again != NULL);
        assert_null(target_recall(p.workers[1], slice_of(cases[i].asked)));
        if (t)
            target_unref(t);
    }
}

static void what_is_recalled_is_what_parsing_finds(void **state)
{
    (void)state;
    struct worker *w = p.workers[0];
    unsigned recalled = 0;

    for (unsigned i = 0; i < 20000; i++) {
        char text[64];
        struct authority a;
        snprintf(text, sizeof(text), i % 3 ? "host-%u.example" : "host-%u.example:%u", i % 50,
                 i % 3 + 80);
        struct target *known = target_recall(w, slice_of(text));
        assert_int_equal(authority_parse(&a, slice_of(text), 80), TARGET_OK);
        struct target *t = target_get(w, &a);
        if (known && known != t)
            fail_msg("%s: recalled %s", text, known->key);
        recalled += known != NULL;
        target_unref(t);
    }
    assert_true(recalled > 0);
}

static void a_redirected_target_is_not_recalled(void **state)
{
    (void)state;
    struct worker *w = p.workers[0];
    struct authority a;
    struct address to = { .in = { .sin_family = AF_INET, .sin_port = htons(80) } };

    assert_int_equal(authority_parse(&a, SLICE("a.b"), 80), TARGET_OK);
    a.fixed = &to;
    struct target *t = target_get(w, &a);
    assert_null(target_recall(w, SLICE("a.b")));
    target_unref(t);
}

/* So spelled, they are not recalled, and take nobody's place among those that are. */
static void fill(unsigned count)
{
    char text[32];

    for (unsigned i = 0; i < count; i++) {
        snprintf(text, sizeof(text), "H%u", i);
        target_unref(get(0, text));
    }
}

static void a_forgotten_target_is_not_recalled(void **state)
{
    (void)state;
    struct worker *w = p.workers[0];

    target_unref(get(0, "first"));
    struct target *t = target_recall(w, SLICE("first"));
    assert_non_null(t);
    target_take(w, t);
    assert_int_equal(t->refs, 1);
    target_unref(t);
    fill(4096);
    assert_null(map_get(w->targets, "first:80", 8));
    assert_null(target_recall(w, SLICE("first")));
}

static void what_is_recalled_counts_as_used(void **state)
{
    (void)state;
    struct worker *w = p.workers[0];

    target_unref(get(0, "first"));
    fill(4095);
    struct target *first = target_recall(w, SLICE("first"));
    assert_non_null(first);
    target_take(w, first); /* h0 is the oldest now */
    target_unref(first);
    target_unref(get(0, "new"));
    assert_non_null(map_get(w->targets, "first:80", 8));
    assert_null(map_get(w->targets, "h0:80", 5));
}

static void addresses_are_spelled_as_everywhere(void **state)
{
    (void)state;
    static const char *const cases[] = { "0.0.0.0",         "1.20.255.9", "10.100.199.200",
                                         "255.255.255.255", "::1",        "2001:db8::a:0:1" };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct address a = { .in = { .sin_family = AF_INET } };
        char text[INET6_ADDRSTRLEN];
        if (inet_pton(AF_INET, cases[i], &a.in.sin_addr) != 1) {
            a = (struct address){ .in6 = { .sin6_family = AF_INET6 } };
            assert_int_equal(inet_pton(AF_INET6, cases[i], &a.in6.sin6_addr), 1);
        }
        address_text(&a, text, sizeof(text));
        assert_string_equal(text, cases[i]);
    }
}

/* ---- Names of templated routes ---- */

/* A route that is made live by hand. */
static struct live_route templated(struct route *r, char **names, size_t count)
{
    *r = (struct route){ .name = (char *)"t", .breakers = { names, count } };
    return (struct live_route){ .cfg = r,
                                .templated = true,
                                .tells_host = true,
                                .gates = count > 0,
                                .breaker_count = (unsigned)count };
}

static void host_in_a_name_becomes_the_label(void **state)
{
    (void)state;
    static const struct {
        const char *host, *name, *want;
    } cases[] = {
        { "A.b", "{host}", "a.b" },           { "a.b:443", "{host}", "a.b" },
        { "a.b:8443", "{host}", "a.b:8443" }, { "[::1]:81", "{host}", "[::1]:81" },
        { "a.b", "x-{host}-y", "x-a.b-y" },   { "a.b", "{host}{host}", "a.ba.b" },
        { "a.b", "{host", "{host" },          { "a.b", "{{host}}", "{a.b}" },
        { "a.b", "plain", "plain" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct route r;
        char *names[] = { (char *)cases[i].name };
        struct live_route lr = templated(&r, names, 1);
        struct target *t = get(0, cases[i].host);
        unsigned count = 99;
        snap.generation++;
        const uint32_t *ids = target_breakers(t, p.workers[0], &snap, &lr, &count);
        const char *got = ids && count == 1 ? breakers_name(p.breakers, ids[0], NULL) : "-";
        if (strcmp(got, cases[i].want) != 0)
            fail_msg("%s for %s: got %s, want %s", cases[i].name, cases[i].host, got,
                     cases[i].want);
        assert_true(t->host_id != 0);
        target_unref(t);
    }
}

static void names_are_looked_up_once_per_snapshot(void **state)
{
    (void)state;
    struct route r1, r2;
    char *one[] = { (char *)"{host}" }, *two[] = { (char *)"a-{host}", (char *)"b-{host}" };
    struct live_route lr1 = templated(&r1, one, 1), lr2 = templated(&r2, two, 2);
    struct target *t = get(0, "h");
    unsigned count;

    uint32_t id = target_breakers(t, p.workers[0], &snap, &lr1, &count)[0];
    const uint32_t *ids = target_breakers(t, p.workers[0], &snap, &lr2, &count);
    assert_int_equal(count, 2);
    assert_string_equal(breakers_name(p.breakers, ids[0], NULL), "a-h");
    assert_string_equal(breakers_name(p.breakers, ids[1], NULL), "b-h");
    assert_int_equal(t->name_count, 2);
    uint32_t before = breakers_count(p.breakers);
    assert_int_equal(target_breakers(t, p.workers[0], &snap, &lr1, &count)[0], id);
    assert_int_equal(count, 1);
    assert_int_equal(t->name_count, 2);
    snap.generation++;
    assert_int_equal(target_breakers(t, p.workers[0], &snap, &lr1, &count)[0], id);
    assert_int_equal(t->name_count, 1); /* what the former snapshot knew is forgotten */
    assert_int_equal(breakers_count(p.breakers), before);
    target_unref(t);
}

static void a_route_without_templates_needs_no_lookup(void **state)
{
    (void)state;
    struct route r = { .name = (char *)"r" };
    struct live_route lr = {
        .cfg = &r, .gates = true, .breaker_count = 2, .fixed_count = 2, .fixed = { 7, 9 }
    };
    struct target *t = get(0, "h");
    unsigned count;

    cfg.limits.auto_breakers = 0; /* does not concern it */
    assert_ptr_equal(target_breakers(t, p.workers[0], &snap, &lr, &count), lr.fixed);
    assert_int_equal(count, 2);
    assert_int_equal(t->host_id, 0);
    target_unref(t);
}

static void hosts_past_auto_breakers_pass_ungated_and_are_counted(void **state)
{
    (void)state;
    struct route r;
    char *names[] = { (char *)"{host}" };
    struct live_route lr = templated(&r, names, 1);
    unsigned count;
    struct worker *w = p.workers[0];
    static const struct {
        const char *host;
        unsigned worker;
        bool gated;
    } steps[] = {
        { "a", 0, true },     { "b", 0, true },  { "c", 0, false }, /* the third of two */
        { "a", 1, true },     /* known, whichever worker asks */
        { "a:443", 0, true }, /* has the same name */
        { "c", 1, false },    { "c", 0, false },
    };

    cfg.limits.auto_breakers = 2;
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        struct target *t = get(steps[i].worker, steps[i].host);
        const uint32_t *ids = target_breakers(t, p.workers[steps[i].worker], &snap, &lr, &count);
        if (!ids || count != (steps[i].gated ? 1 : 0))
            fail_msg("step %zu, %s: %u breakers", i, steps[i].host, count);
        target_unref(t);
    }
    assert_int_equal(count_get(&w->c.limit_auto_breakers), 1); /* hosts */
    assert_int_equal(count_get(&w->c.ungated_hosts_total), 2); /* requests */

    cfg.limits.auto_breakers = 3; /* a reload lifts the limit */
    snap.generation++;
    struct target *t = get(0, "c");
    assert_non_null(target_breakers(t, w, &snap, &lr, &count));
    target_unref(t);
}

static void a_breaker_without_host_gates_hosts_past_auto_breakers_too(void **state)
{
    (void)state;
    struct route r;
    char *names[] = { (char *)"{host}", (char *)"all" };
    struct live_route mixed = templated(&r, names, 2);
    struct live_route tagged = { .cfg = &r, .tells_host = true, .gates = true };
    unsigned count;

    mixed.fixed[0] = tagged.fixed[0] = 7;
    mixed.fixed_count = tagged.fixed_count = tagged.breaker_count = 1;
    cfg.limits.auto_breakers = 0;
    snap.generation++;
    struct target *t = get(0, "h");
    assert_int_equal(target_breakers(t, p.workers[0], &snap, &mixed, &count)[0], 7);
    assert_int_equal(count, 1);
    assert_int_equal(target_breakers(t, p.workers[0], &snap, &tagged, &count)[0], 7);
    assert_int_equal(count, 1);
    assert_int_equal(t->host_id, 0); /* its samples leave the tag out */
    target_unref(t);
}

static void a_name_that_grows_too_long_leaves_the_request_ungated(void **state)
{
    (void)state;
    struct route r;
    char long_name[300];
    static const struct {
        size_t prefix; /* before a host of 4 bytes */
        bool fits;
    } cases[] = { { 0, true }, { HOST_MAX - 4, true }, { HOST_MAX - 3, false } };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        unsigned count = 99;
        memset(long_name, 'n', cases[i].prefix);
        strcpy(long_name + cases[i].prefix, "{host}");
        char *names[] = { long_name };
        struct live_route lr = templated(&r, names, 1);
        struct target *t = get(0, "host");
        snap.generation++;
        const uint32_t *ids = target_breakers(t, p.workers[0], &snap, &lr, &count);
        if (!ids || count != (cases[i].fits ? 1 : 0))
            fail_msg("%zu bytes before the host: %u breakers", cases[i].prefix, count);
        target_unref(t);
    }
}

static void a_full_table_of_breakers_leaves_the_host_ungated(void **state)
{
    (void)state;
    struct route r;
    char *names[] = { (char *)"{host}" };
    struct live_route lr = templated(&r, names, 1);
    unsigned count = 99;
    char name[16];

    for (unsigned i = 0; i < BREAKERS_CAPACITY; i++)
        if (!breakers_intern(p.breakers, name, (size_t)snprintf(name, sizeof(name), "f%u", i)))
            break;
    struct target *t = get(0, "h");
    target_breakers(t, p.workers[0], &snap, &lr, &count);
    assert_int_equal(count, 0);
    assert_int_equal(count_get(&p.workers[0]->c.ungated_hosts_total), 1);
    target_unref(t);
}

/* ---- Routes and the bypass list ---- */

static void with_routes(struct route *routes, struct live_route *live, size_t count)
{
    route_table_free(snap.table);
    snap.table = route_table_new(routes, count);
    for (size_t i = 0; i < count; i++)
        live[i] = (struct live_route){ .cfg = &routes[i] };
    snap.routes = live;
    snap.generation++;
}

static void a_target_takes_the_routes_of_the_snapshot_it_is_asked_with(void **state)
{
    (void)state;
    char *a[] = { (char *)"a" }, *b[] = { (char *)"b" };
    struct route old_routes[] = { { .index = 0, .match.hosts = { a, 1 } } };
    struct route new_routes[] = { { .index = 0, .match.hosts = { b, 1 } },
                                  { .index = 1, .match.hosts = { a, 1 } } };
    struct live_route old_live[1], new_live[2];
    struct route_request rq = { .method = SLICE("GET"), .path = SLICE("/") };
    struct target *t = get(0, "a");

    assert_ptr_equal(target_route(t, p.workers[0], &snap, &rq), &snap.fallback);
    with_routes(old_routes, old_live, 1);
    assert_ptr_equal(target_route(t, p.workers[0], &snap, &rq), &old_live[0]);
    with_routes(new_routes, new_live, 2);
    assert_ptr_equal(target_route(t, p.workers[0], &snap, &rq), &new_live[1]);
    with_routes(NULL, NULL, 0);
    assert_ptr_equal(target_route(t, p.workers[0], &snap, &rq), &snap.fallback);
    target_unref(t);
}

static void a_host_that_a_route_names_is_never_bypassed(void **state)
{
    (void)state;
    char *entries[] = { (char *)"b", (char *)"10.0.0.0/8" };
    char *named[] = { (char *)"x.b" }, *suffix[] = { (char *)"*.c.b" }, *any[] = { (char *)"*" };
    struct route routes[] = { { .index = 0, .match.hosts = { named, 1 } },
                              { .index = 1, .match.hosts = { suffix, 1 } },
                              { .index = 2, .match.hosts = { any, 1 } } };
    struct live_route live[3];
    static const struct {
        const char *host;
        bool want;
    } cases[] = {
        { "b", true },         { "y.b", true },      { "x.b", false },
        { "x.b:8080", false }, { "y.c.b", false },   { "c.b", true },
        { "d", false },        { "10.1.2.3", true }, { "11.1.2.3", false },
    };

    cfg.bypass = (struct string_list){ entries, 2 };
    with_routes(routes, live, 3);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct target *t = get(0, cases[i].host);
        if (target_bypassed(t, &snap) != cases[i].want)
            fail_msg("%s: want %d", cases[i].host, cases[i].want);
        target_unref(t);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_host_and_port_have_one_target_per_worker),
        TEST(a_target_knows_its_host_port_and_label),
        TEST(references_keep_a_target_when_room_is_made),
        TEST(the_least_recently_used_target_goes_first),
        TEST(an_authority_spelled_as_the_key_is_recalled_and_no_other),
        TEST(what_is_recalled_is_what_parsing_finds),
        TEST(a_redirected_target_is_not_recalled),
        TEST(a_forgotten_target_is_not_recalled),
        TEST(what_is_recalled_counts_as_used),
        TEST(addresses_are_spelled_as_everywhere),
        TEST(host_in_a_name_becomes_the_label),
        TEST(names_are_looked_up_once_per_snapshot),
        TEST(a_route_without_templates_needs_no_lookup),
        TEST(hosts_past_auto_breakers_pass_ungated_and_are_counted),
        TEST(a_breaker_without_host_gates_hosts_past_auto_breakers_too),
        TEST(a_name_that_grows_too_long_leaves_the_request_ungated),
        TEST(a_full_table_of_breakers_leaves_the_host_ungated),
        TEST(a_target_takes_the_routes_of_the_snapshot_it_is_asked_with),
        TEST(a_host_that_a_route_names_is_never_bypassed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
