#include "control/store.h"

#include "base/base.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "control/template.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WALL INT64_C(1800000000000)

/* One world per test: a configuration by hand, a store, and all that it told. */

struct fixture {
    struct config cfg;
    struct route routes[4];
    char *names[4][4];
    struct breaker_def defs[3];
    struct router_def routers[2];
    char *listed[2];
    struct store *store;
    struct strbuf told;
    int64_t now_ms;
};

static void on_change(void *arg, const struct store_change *change)
{
    struct fixture *f = arg;
    const struct store_breaker *b = &change->breaker;

    if (change->from)
        strbuf_addf(&f->told, "%s:%s>%s(%s) ", b->name, change->from, b->state, change->reason);
    else
        strbuf_addf(&f->told, "%s=%s/%g ", b->name, b->state, b->allow_rate);
}

static struct store_now at(const struct fixture *f)
{
    return (struct store_now){ .mono_ms = f->now_ms, .wall_ms = WALL + f->now_ms };
}

static void configure(struct fixture *f)
{
    strbuf_clear(&f->told);
    store_configure(f->store, &f->cfg, at(f));
}

static struct breaker_def run_def(void)
{
    return (struct breaker_def){
        .metric = "latency",
        .kind = "consecutive_failures",
        .op = "gte",
        .threshold = 2,
        .window_ms = 60000,
        .eval_interval_ms = 500,
        .cooldown_ms = 5000,
        .half_open_indeterminate_policy = "conservative",
        .recovery_allow_rate_ramp_steps = 1,
    };
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->store = store_new(on_change, f);
    f->now_ms = 100000;
    f->cfg.limits.auto_breakers = 3;
    f->cfg.embedded.auto_breaker = run_def();
    f->cfg.embedded.breakers = f->defs;
    f->cfg.embedded.routers = f->routers;
    f->cfg.routes = f->routes;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    store_free(f->store);
    strbuf_free(&f->told);
    free(f);
    return 0;
}

/* breakers: names, ended by NULL. */
static struct route *add_route(struct fixture *f, char *router, char *first, char *second)
{
    size_t i = f->cfg.route_count++;
    struct route *r = &f->routes[i];

    f->names[i][0] = first;
    f->names[i][1] = second;
    *r = (struct route){ .name = "route", .index = i, .router = router };
    r->breakers.items = f->names[i];
    r->breakers.count = (first != NULL) + (second != NULL);
    r->metrics[0] = (struct metric){ .name = "latency", .kind = METRIC_LATENCY };
    r->metric_count = 1;
    return r;
}

static void sample(struct fixture *f, const char *router, const char *metric, bool ok)
{
    const struct store_sample s = {
        .router_id = router, .metric = metric, .ts_ms = WALL + f->now_ms, .ok = ok
    };

    store_sample(f->store, &s, at(f));
}

static void fail_twice(struct fixture *f, const char *router)
{
    sample(f, router, "latency", false);
    sample(f, router, "latency", false);
}

static void expect_told(struct fixture *f, const char *want)
{
    assert_string_equal(strbuf_str(&f->told), want);
    strbuf_clear(&f->told);
}

static struct store_status status(const struct fixture *f)
{
    struct store_status st;

    store_status(f->store, &st);
    return st;
}

static void templates_find_the_host_in_a_name(void **state)
{
    static const struct {
        const char *tmpl;
        const char *name;
        const char *host; /* NULL: no match */
    } cases[] = {
        { "{host}", "a.example", "a.example" },
        { "{host}", "", NULL },
        { "r-{host}", "r-a", "a" },
        { "r-{host}", "r-", NULL },
        { "r-{host}", "R-a", NULL },
        { "{host}-r", "a-r", "a" },
        { "{host}-r", "-r", NULL },
        { "x{host}y", "xy", NULL },
        { "x{host}y", "xay", "a" },
        { "{host}/{host}", "a.b/a.b", "a.b" },
        { "{host}/{host}", "a.b/a.c", NULL },
        { "{host}/{host}", "a/aa", NULL }, /* 3 bytes for two hosts */
        { "{host}{host}", "abab", "ab" },
        { "<{host}|{host}>", "<ab|ab>", "ab" },
        { "{hos}", "{hos}", NULL }, /* nothing to find */
        { "{host}", "{host}", "{host}" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct slice host;
        struct strbuf again = STRBUF_INIT;

        if (template_match(cases[i].tmpl, cases[i].name, &host) != (cases[i].host != NULL))
            fail_msg("%s against %s: wrong answer", cases[i].tmpl, cases[i].name);
        if (cases[i].host == NULL)
            continue;
        if (!slice_eq(host, slice_of(cases[i].host)))
            fail_msg("%s against %s: %.*s", cases[i].tmpl, cases[i].name, (int)host.len, host.p);
        template_expand(cases[i].tmpl, host, &again);
        assert_string_equal(strbuf_str(&again), cases[i].name);
        strbuf_free(&again);
    }
}

static void defined_breakers_get_the_samples_of_their_routers_and_metric(void **state)
{
    struct fixture *f = *state;

    f->defs[0] = run_def();
    f->defs[0].name = "a";
    f->defs[1] = run_def();
    f->defs[1].name = "b";
    f->defs[1].metric = "tokens";
    f->cfg.embedded.breaker_count = 2;
    f->listed[0] = "a";
    f->listed[1] = "b";
    f->routers[0] = (struct router_def){ .id = "r1", .name = "one" };
    f->routers[0].breakers.items = f->listed;
    f->routers[0].breakers.count = 2;
    f->cfg.embedded.router_count = 1;
    configure(f);
    expect_told(f, "a=closed/1 b=closed/1 ");
    fail_twice(f, "r1");
    expect_told(f, "a:closed>open(unhealthy) ");
    sample(f, "r1", "tokens", false);
    sample(f, "r1", "tokens", false);
    expect_told(f, "b:closed>open(unhealthy) ");
    sample(f, "r1", "other", false);
    expect_told(f, "");
    assert_int_equal(status(f).open, 2);
    assert_int_equal(status(f).transitions, 2);
}

static void routes_make_what_nobody_defined_and_link_it(void **state)
{
    struct fixture *f = *state;

    add_route(f, "r1", "a", "b");
    add_route(f, "r2", "b", NULL);
    configure(f);
    expect_told(f, "a=closed/1 b=closed/1 ");
    assert_true(store_knows_router(f->store, "r1"));
    assert_false(store_knows_router(f->store, "r3"));
    fail_twice(f, "r2");
    expect_told(f, "b:closed>open(unhealthy) ");
    fail_twice(f, "r1");
    expect_told(f, "a:closed>open(unhealthy) ");
    assert_int_equal(status(f).auto_breakers, 0); /* the file bounds them, not the limit */
}

static void a_defined_router_keeps_its_links_and_gets_breakers_that_none_lists(void **state)
{
    static const struct {
        const char *router;
        const char *want;
    } cases[] = {
        { "r1", "a:closed>open(unhealthy) c:closed>open(unhealthy) " },
        { "r2", "b:closed>open(unhealthy) " },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture *f;

        teardown(state);
        setup(state);
        f = *state;
        for (size_t k = 0; k < 3; k++) {
            static char *const names[] = { "a", "b", "c" };

            f->defs[k] = run_def();
            f->defs[k].name = names[k];
        }
        f->cfg.embedded.breaker_count = 3;
        f->listed[0] = "a";
        f->listed[1] = "b";
        for (size_t k = 0; k < 2; k++) {
            static char *const ids[] = { "r1", "r2" };

            f->routers[k] = (struct router_def){ .id = ids[k], .name = ids[k] };
            f->routers[k].breakers.items = &f->listed[k];
            f->routers[k].breakers.count = 1;
        }
        f->cfg.embedded.router_count = 2;
        add_route(f, "r1", "b", "c"); /* b is r2's alone; c is nobody's */
        configure(f);
        strbuf_clear(&f->told);
        fail_twice(f, cases[i].router);
        expect_told(f, cases[i].want);
    }
}

static void the_first_sample_of_a_host_makes_its_router_and_breakers(void **state)
{
    struct fixture *f = *state;
    struct store_breaker b;
    size_t pos = 0;

    add_route(f, "r/{host}", "{host}-x", "shared");
    configure(f);
    expect_told(f, "shared=closed/1 ");
    assert_false(store_has_router(f->store, "r/h1"));
    assert_true(store_knows_router(f->store, "r/h1"));
    assert_false(store_has_router(f->store, "r/h1")); /* asking makes nothing */
    sample(f, "r/h1", "latency", true);
    expect_told(f, "h1-x=closed/1 ");
    assert_true(store_has_router(f->store, "r/h1"));
    assert_true(store_link_next(f->store, "r/h1", &pos, &b));
    assert_string_equal(b.name, "h1-x");
    assert_true(store_link_next(f->store, "r/h1", &pos, &b));
    assert_string_equal(b.name, "shared");
    assert_false(store_link_next(f->store, "r/h1", &pos, &b));
    fail_twice(f, "r/h1");
    expect_told(f, "h1-x:closed>open(unhealthy) shared:closed>open(unhealthy) ");
    fail_twice(f, "r/h2");
    expect_told(f, "h2-x=closed/1 h2-x:closed>open(unhealthy) ");
    assert_int_equal(status(f).auto_breakers, 2);
}

static void the_router_template_that_says_most_wins(void **state)
{
    struct fixture *f = *state;

    add_route(f, "{host}", "{host}-any", NULL);
    add_route(f, "api-{host}", "{host}-api", NULL);
    add_route(f, "api-{host}", "{host}-more", NULL);
    configure(f);
    sample(f, "api-h", "latency", true);
    expect_told(f, "h-api=closed/1 h-more=closed/1 ");
    sample(f, "web-h", "latency", true);
    expect_told(f, "web-h-any=closed/1 ");
}

static void beyond_the_limit_samples_are_taken_and_ignored(void **state)
{
    static const struct {
        const char *host;
        const char *want;
        uint64_t refused;
    } cases[] = {
        { "h1", "h1=closed/1 ", 0 },
        { "h2", "h2=closed/1 ", 0 },
        { "h3", "h3=closed/1 ", 0 },
        { "h4", "", 1 },
        { "h4", "", 2 },
        { "h3", "h3:closed>open(unhealthy) ", 2 },
    };
    struct fixture *f = *state;

    add_route(f, "{host}", "{host}", NULL);
    configure(f);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_true(store_knows_router(f->store, cases[i].host));
        sample(f, cases[i].host, "latency", false);
        expect_told(f, cases[i].want);
        if (status(f).auto_refused != cases[i].refused)
            fail_msg("sample %zu: %llu refused", i, (unsigned long long)status(f).auto_refused);
    }
    assert_int_equal(status(f).auto_breakers, 3);
}

static void a_host_gets_all_its_breakers_or_none(void **state)
{
    struct fixture *f = *state;

    add_route(f, "{host}", "{host}-a", "{host}-b");
    configure(f);
    sample(f, "h1", "latency", true);
    expect_told(f, "h1-a=closed/1 h1-b=closed/1 ");
    sample(f, "h2", "latency", true); /* one place is left, two are needed */
    expect_told(f, "");
    assert_int_equal(status(f).auto_breakers, 2);
    assert_int_equal(status(f).auto_refused, 1);
}

static void a_breaker_that_several_routes_give_a_host_takes_one_place(void **state)
{
    struct fixture *f = *state;

    add_route(f, "{host}", "{host}", NULL);
    add_route(f, "{host}", "{host}", NULL);
    add_route(f, "{host}", "{host}", NULL);
    configure(f);
    sample(f, "h1", "latency", true);
    sample(f, "h2", "latency", true);
    sample(f, "h3", "latency", true);
    expect_told(f, "h1=closed/1 h2=closed/1 h3=closed/1 ");
    assert_int_equal(status(f).auto_refused, 0);
}

static void a_definition_of_a_template_rules_all_that_is_made_from_it(void **state)
{
    struct fixture *f = *state;

    f->defs[0] = run_def();
    f->defs[0].name = "{host}-x";
    f->defs[0].metric = "tokens";
    f->defs[0].threshold = 1;
    f->defs[1] = run_def();
    f->defs[1].name = "h2-x";
    f->cfg.embedded.breaker_count = 2;
    add_route(f, "{host}", "{host}-x", NULL);
    configure(f);
    expect_told(f, "h2-x=closed/1 ");
    sample(f, "h1", "latency", false);
    expect_told(f, "h1-x=closed/1 ");
    sample(f, "h1", "tokens", false);
    expect_told(f, "h1-x:closed>open(unhealthy) ");
    fail_twice(f, "h2"); /* a definition in full comes first */
    expect_told(f, "h2-x:closed>open(unhealthy) ");
}

static void a_defined_router_may_be_a_template(void **state)
{
    struct fixture *f = *state;

    f->listed[0] = "{host}-r";
    f->listed[1] = "shared";
    f->routers[0] = (struct router_def){ .id = "r-{host}", .name = "r" };
    f->routers[0].breakers.items = f->listed;
    f->routers[0].breakers.count = 2;
    f->cfg.embedded.router_count = 1;
    add_route(f, "r-{host}", "{host}-route", "shared");
    add_route(f, NULL, "{host}-r", NULL);
    configure(f);
    expect_told(f, "shared=closed/1 ");
    sample(f, "r-h", "latency", false);
    expect_told(f, "h-r=closed/1 h-route=closed/1 ");
    sample(f, "r-h", "latency", false);
    expect_told(f, "h-r:closed>open(unhealthy) shared:closed>open(unhealthy) "
                   "h-route:closed>open(unhealthy) ");
}

static void routers_without_breakers_of_their_own_meet_the_limit_too(void **state)
{
    struct fixture *f = *state;

    add_route(f, "{host}", "shared", NULL);
    configure(f);
    for (char host[] = "h1"; host[1] <= '9'; host[1]++)
        sample(f, host, "latency", true);
    assert_true(store_has_router(f->store, "h3"));
    assert_false(store_has_router(f->store, "h4"));
    assert_int_equal(status(f).auto_refused, 6);
    assert_int_equal(status(f).auto_breakers, 0);
}

static void names_that_cannot_be_a_host_are_ignored(void **state)
{
    char longest[STORE_NAME_MAX + 2];
    static const char *const bad[] = { "a b", "a\nb", "a\x7f", "\x01" };
    struct fixture *f = *state;

    add_route(f, "{host}", "{host}", NULL);
    configure(f);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        sample(f, bad[i], "latency", false);
    memset(longest, 'a', sizeof(longest));
    longest[STORE_NAME_MAX + 1] = '\0';
    sample(f, longest, "latency", false);
    expect_told(f, "");
    longest[STORE_NAME_MAX] = '\0';
    sample(f, longest, "latency", false);
    assert_int_equal(store_breaker_count(f->store), 1);
}

static void a_breaker_made_for_a_route_watches_its_latency_or_else_its_first_metric(void **state)
{
    static const struct {
        struct metric metrics[2];
        size_t count;
        const char *want;
    } cases[] = {
        { { { .name = "size", .kind = METRIC_RESPONSE_BYTES },
            { .name = "latency", .kind = METRIC_LATENCY } },
          2,
          "latency" },
        { { { .name = "size", .kind = METRIC_RESPONSE_BYTES },
            { .name = "took", .kind = METRIC_LATENCY } },
          2,
          "took" },
        { { { .name = "size", .kind = METRIC_RESPONSE_BYTES } }, 1, "size" },
        { { { .name = "unused" } }, 0, "latency" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture *f;
        struct route *r;

        teardown(state);
        setup(state);
        f = *state;
        r = add_route(f, "r1", "a", NULL);
        memcpy(r->metrics, cases[i].metrics, sizeof(cases[i].metrics));
        r->metric_count = cases[i].count;
        configure(f);
        assert_string_equal(store_breaker_at(f->store, 0).metric, cases[i].want);
    }
}

static void without_routes_the_fallback_makes_a_breaker_for_each_host(void **state)
{
    struct fixture *f = *state;

    f->cfg.fallback = add_route(f, "{host}", "{host}", NULL);
    f->cfg.route_count = 0;
    configure(f);
    fail_twice(f, "a.example:8080");
    expect_told(f, "a.example:8080=closed/1 a.example:8080:closed>open(unhealthy) ");
}

static void time_alone_moves_a_breaker_and_says_when_to_look_again(void **state)
{
    struct fixture *f = *state;

    assert_true(store_next_ms(f->store) == INT64_MAX);
    add_route(f, "r1", "a", NULL);
    configure(f);
    assert_int_equal(store_next_ms(f->store), 100500);
    fail_twice(f, "r1");
    strbuf_clear(&f->told);
    while (f->told.len == 0) {
        f->now_ms = store_next_ms(f->store);
        store_tick(f->store, at(f));
        assert_true(store_next_ms(f->store) > f->now_ms);
    }
    assert_int_equal(f->now_ms, 105000);
    expect_told(f, "a:open>half_open(cooldown_over) ");
    assert_int_equal(status(f).last_eval_wall_ms, WALL + 105000);
    assert_int_equal(status(f).open, 0);
    assert_int_equal(status(f).closed, 0); /* half-open counts as neither */
    assert_int_equal(store_breaker_at(f->store, 0).updated_wall_ms, WALL + 105000);
}

static void late_and_early_time_stamps_do_no_harm(void **state)
{
    struct fixture *f = *state;
    struct store_sample s = { .router_id = "r1", .metric = "latency", .ok = true };

    add_route(f, "r1", "a", NULL);
    configure(f);
    fail_twice(f, "r1");
    while (status(f).open > 0) {
        f->now_ms = store_next_ms(f->store);
        store_tick(f->store, at(f));
    }
    strbuf_clear(&f->told);
    s.ts_ms = WALL + f->now_ms - 3000; /* begun while it was open */
    store_sample(f->store, &s, at(f));
    f->now_ms += 500;
    store_tick(f->store, at(f));
    expect_told(f, "");
    s.ts_ms = WALL + f->now_ms + 60000; /* a client whose clock is ahead */
    store_sample(f->store, &s, at(f));
    f->now_ms += 500;
    store_tick(f->store, at(f));
    expect_told(f, "a=half_open/1 ");
}

static void a_new_configuration_keeps_the_state_of_names_that_stay(void **state)
{
    struct fixture *f = *state;
    char id[32];

    add_route(f, "r1", "a", "b");
    configure(f);
    fail_twice(f, "r1");
    snprintf(id, sizeof(id), "%s", store_breaker_at(f->store, 0).id);
    f->names[0][1] = "c";
    configure(f);
    expect_told(f, "c=closed/1 b:open>closed(removed) ");
    assert_int_equal(store_breaker_count(f->store), 2);
    assert_string_equal(store_breaker_at(f->store, 0).name, "a");
    assert_string_equal(store_breaker_at(f->store, 0).id, id);
    assert_string_equal(store_breaker_at(f->store, 0).state, "open");
    assert_string_equal(store_breaker_at(f->store, 1).name, "c");
}

static void a_new_configuration_keeps_hosts_whose_template_stays(void **state)
{
    struct fixture *f = *state;

    add_route(f, "{host}", "{host}", NULL);
    configure(f);
    fail_twice(f, "h1");
    sample(f, "h2", "latency", true);
    configure(f);
    expect_told(f, "");
    assert_string_equal(store_breaker_at(f->store, 0).state, "open");
    assert_int_equal(store_breaker_count(f->store), 2);
    assert_int_equal(status(f).auto_breakers, 2); /* not counted again */
    f->cfg.limits.auto_breakers = 1;
    configure(f);
    assert_int_equal(store_breaker_count(f->store), 1);
    assert_string_equal(store_breaker_at(f->store, 0).name, "h1");
}

static void expect_gone(const struct fixture *f, const char *want, const char *when)
{
    struct strbuf got = STRBUF_INIT;
    struct store_breaker b;

    for (size_t pos = 0; store_gone_next(f->store, &pos, &b);)
        strbuf_addf(&got, "%s=%s/%g ", b.name, b.state, b.allow_rate);
    if (strcmp(strbuf_str(&got), want) != 0)
        fail_msg("%s: gone are \"%s\", not \"%s\"", when, strbuf_str(&got), want);
    strbuf_free(&got);
}

static void a_breaker_of_a_host_that_goes_is_told_to_be_closed(void **state)
{
    struct fixture *f = *state;
    uint64_t moves;

    add_route(f, "{host}", "{host}", NULL);
    configure(f);
    fail_twice(f, "h1");
    sample(f, "h2", "latency", true);
    moves = status(f).transitions;
    f->routes[0].router = "r";
    f->names[0][0] = "a";
    configure(f);
    expect_told(f, "a=closed/1 h1:open>closed(removed) ");
    assert_int_equal(status(f).transitions, moves + 1);
    configure(f);
    expect_told(f, ""); /* once */
}

static void a_half_open_breaker_that_goes_is_told_to_be_closed(void **state)
{
    struct fixture *f = *state;

    add_route(f, "r", "a", NULL);
    configure(f);
    fail_twice(f, "r");
    f->now_ms += 5500;
    store_tick(f->store, at(f));
    f->names[0][0] = "b";
    configure(f);
    expect_told(f, "b=closed/1 a:half_open>closed(removed) ");
}

static void a_host_beyond_a_lowered_limit_is_told_to_be_closed(void **state)
{
    struct fixture *f = *state;

    add_route(f, "{host}", "{host}", NULL);
    configure(f);
    sample(f, "h1", "latency", true);
    fail_twice(f, "h2");
    fail_twice(f, "h3");
    f->cfg.limits.auto_breakers = 1;
    configure(f);
    expect_told(f, "h2:open>closed(removed) h3:open>closed(removed) ");
    expect_gone(f, "h2=closed/1 h3=closed/1 ", "more than the new limit at once");
}

static void names_that_went_are_remembered_until_they_are_back(void **state)
{
    struct fixture *f = *state;

    add_route(f, "r", "a", "b");
    configure(f);
    expect_gone(f, "", "nothing went");
    fail_twice(f, "r");
    f->names[0][0] = "c";
    configure(f);
    expect_gone(f, "a=closed/1 ", "a went while open");
    configure(f);
    expect_gone(f, "a=closed/1 ", "nothing changed");
    f->names[0][0] = "a";
    configure(f);
    expect_gone(f, "", "a is back, and c never moved");
    f->names[0][0] = "c";
    configure(f);
    expect_gone(f, "a=closed/1 ", "gone again, and a client may have missed its return");
}

static void a_host_that_comes_back_is_no_longer_gone(void **state)
{
    struct fixture *f = *state;
    static const char *const gone[] = { "", "h1=closed/1 " };

    add_route(f, "{host}", "{host}", NULL);
    for (size_t round = 0; round < 2; round++) {
        f->routes[0].router = "{host}";
        f->names[0][0] = "{host}";
        configure(f);
        expect_gone(f, gone[round], "before its first sample");
        fail_twice(f, "h1");
        expect_gone(f, "", "made anew");
        f->routes[0].router = "r";
        f->names[0][0] = "a";
        configure(f); /* forgets the router at the second time */
        configure(f);
        expect_gone(f, "h1=closed/1 ", "one entry for a name");
    }
}

static void of_many_names_that_went_the_latest_are_remembered(void **state)
{
    struct fixture *f = *state;
    char *const names[] = { "a", "b", "c", "d", "e" };

    add_route(f, "r", names[0], NULL);
    for (size_t i = 1; i < 5; i++) {
        configure(f);
        fail_twice(f, "r");
        f->names[0][0] = names[i];
    }
    configure(f);
    expect_gone(f, "b=closed/1 c=closed/1 d=closed/1 ", "limits.auto_breakers is 3");
}

static void a_router_that_went_is_remembered_for_one_configuration(void **state)
{
    struct fixture *f = *state;
    uint64_t version;

    add_route(f, "r1", "a", NULL);
    configure(f);
    version = status(f).list_version;
    configure(f);
    assert_int_equal(status(f).list_version, version); /* nothing changed */
    f->routes[0].router = "r2";
    configure(f);
    assert_true(status(f).list_version != version);
    assert_true(store_knows_router(f->store, "r1")); /* samples may be under way */
    assert_false(store_has_router(f->store, "r1"));
    fail_twice(f, "r1");
    expect_told(f, "");
    configure(f);
    assert_false(store_knows_router(f->store, "r1"));
    fail_twice(f, "r2");
    expect_told(f, "a:closed>open(unhealthy) ");
}

int main(void)
{
#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(templates_find_the_host_in_a_name),
        WITH_STORE(defined_breakers_get_the_samples_of_their_routers_and_metric),
        WITH_STORE(routes_make_what_nobody_defined_and_link_it),
        WITH_STORE(a_defined_router_keeps_its_links_and_gets_breakers_that_none_lists),
        WITH_STORE(the_first_sample_of_a_host_makes_its_router_and_breakers),
        WITH_STORE(the_router_template_that_says_most_wins),
        WITH_STORE(beyond_the_limit_samples_are_taken_and_ignored),
        WITH_STORE(a_host_gets_all_its_breakers_or_none),
        WITH_STORE(a_breaker_that_several_routes_give_a_host_takes_one_place),
        WITH_STORE(a_definition_of_a_template_rules_all_that_is_made_from_it),
        WITH_STORE(a_defined_router_may_be_a_template),
        WITH_STORE(routers_without_breakers_of_their_own_meet_the_limit_too),
        WITH_STORE(names_that_cannot_be_a_host_are_ignored),
        WITH_STORE(a_breaker_made_for_a_route_watches_its_latency_or_else_its_first_metric),
        WITH_STORE(without_routes_the_fallback_makes_a_breaker_for_each_host),
        WITH_STORE(time_alone_moves_a_breaker_and_says_when_to_look_again),
        WITH_STORE(late_and_early_time_stamps_do_no_harm),
        WITH_STORE(a_new_configuration_keeps_the_state_of_names_that_stay),
        WITH_STORE(a_new_configuration_keeps_hosts_whose_template_stays),
        WITH_STORE(a_breaker_of_a_host_that_goes_is_told_to_be_closed),
        WITH_STORE(a_half_open_breaker_that_goes_is_told_to_be_closed),
        WITH_STORE(a_host_beyond_a_lowered_limit_is_told_to_be_closed),
        WITH_STORE(names_that_went_are_remembered_until_they_are_back),
        WITH_STORE(a_host_that_comes_back_is_no_longer_gone),
        WITH_STORE(of_many_names_that_went_the_latest_are_remembered),
        WITH_STORE(a_router_that_went_is_remembered_for_one_configuration),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
