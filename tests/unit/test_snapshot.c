/* When a retired configuration may be freed, with workers, rings and sync played by hand. */
#include "base/base.h"
#include "base/intern.h"
#include "base/ring.h"
#include "proxy/metrics.h"
#include "proxy/snapshot.h"
#include "proxy/worker.h"
#include "sync/breakers.h"
#include "sync/sync.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WORKERS 3

static unsigned wakes[WORKERS];
static uint64_t passed[WORKERS]; /* what sync has taken from each ring */
static char freed[64];           /* letters of the freed configurations, in order */

void worker_wake(struct worker *w)
{
    wakes[w->index]++;
}

bool sync_passed(const struct sync *s, unsigned ring, uint64_t position)
{
    (void)s;
    return passed[ring] >= position;
}

void config_free(struct config *cfg)
{
    if (!cfg)
        return;
    strncat(freed, cfg->hash, 1);
    free(cfg);
}

static struct route fallback = { .name = (char *)"_default" };

/* A configuration is known by one letter. */
static struct config *config_of(const char *letter)
{
    struct config *cfg = xcalloc(1, sizeof(*cfg));

    cfg->hash = (char *)letter;
    cfg->fallback = &fallback;
    return cfg;
}

static struct proxy p;

static int set_up(void **state)
{
    (void)state;
    memset(&p, 0, sizeof(p));
    memset(wakes, 0, sizeof(wakes));
    memset(passed, 0, sizeof(passed));
    freed[0] = '\0';
    p.breakers = breakers_new();
    p.route_names = intern_new(1000);
    p.rule_names = intern_new(RULE_SLOTS);
    p.worker_count = WORKERS;
    for (unsigned i = 0; i < WORKERS; i++) {
        p.workers[i] = xcalloc(1, sizeof(struct worker));
        p.workers[i]->index = i;
        p.workers[i]->ring = ring_new(8, 16);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    snapshot_reap_all(&p);
    for (unsigned i = 0; i < WORKERS; i++) {
        ring_free(p.workers[i]->ring);
        free(p.workers[i]);
    }
    breakers_free(p.breakers);
    intern_free(p.route_names);
    intern_free(p.rule_names);
    return 0;
}

static struct snapshot *publish(const char *letter)
{
    struct snapshot *s = snapshot_new(&p, config_of(letter));

    snapshot_publish(&p, s);
    return s;
}

static void adopt(unsigned worker, const struct snapshot *s)
{
    atomic_store(&p.workers[worker]->adopted_generation, s->generation);
}

static void adopt_all(const struct snapshot *s)
{
    for (unsigned i = 0; i < WORKERS; i++)
        adopt(i, s);
}

static void push(unsigned worker)
{
    uint64_t record = 1;

    assert_true(ring_push(p.workers[worker]->ring, &record, NULL));
}

static void expect_freed(const char *when, bool waiting, const char *want)
{
    bool got = snapshot_reap(&p);

    if (got != waiting || strcmp(freed, want) != 0)
        fail_msg("%s: freed \"%s\", still waiting %d; want \"%s\", %d", when, freed, got, want,
                 waiting);
}

static void the_first_snapshot_retires_nothing_and_wakes_nobody(void **state)
{
    (void)state;
    struct snapshot *a = publish("a");

    assert_ptr_equal(atomic_load(&p.snapshot), a);
    expect_freed("after the first", false, "");
    assert_int_equal(wakes[0] + wakes[1] + wakes[2], 0);
}

static void the_next_one_wakes_every_worker(void **state)
{
    (void)state;
    publish("a");
    struct snapshot *b = publish("b");

    assert_ptr_equal(atomic_load(&p.snapshot), b);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_int_equal(wakes[i], 1);
}

static void generations_only_grow(void **state)
{
    (void)state;
    uint64_t last = 0;

    for (int i = 0; i < 5; i++) {
        struct snapshot *s = publish("x");
        assert_true(s->generation > last);
        last = s->generation;
    }
}

static void it_waits_until_every_worker_has_adopted_a_newer_one(void **state)
{
    (void)state;
    struct snapshot *a = publish("a");
    adopt_all(a);
    struct snapshot *b = publish("b");

    expect_freed("nobody", true, "");
    adopt(0, b);
    expect_freed("one of three", true, "");
    adopt(2, b);
    expect_freed("two of three", true, "");
    adopt(1, b);
    expect_freed("all", false, "a");
}

static void a_worker_that_has_not_started_keeps_it(void **state)
{
    (void)state;
    publish("a");
    struct snapshot *b = publish("b");

    adopt(0, b);
    adopt(1, b); /* worker 2 has adopted nothing: it may be about to take a */
    expect_freed("two of three", true, "");
    adopt(2, b);
    expect_freed("all", false, "a");
}

static void it_waits_until_no_exchange_of_any_worker_holds_it(void **state)
{
    (void)state;
    struct snapshot *a = publish("a");
    adopt_all(a);
    atomic_store(&a->use[0].exchanges, 1);
    atomic_store(&a->use[2].exchanges, 2);
    struct snapshot *b = publish("b");
    adopt_all(b);

    expect_freed("three exchanges", true, "");
    atomic_store(&a->use[0].exchanges, 0);
    expect_freed("two of one worker", true, "");
    atomic_store(&a->use[2].exchanges, 1);
    expect_freed("one", true, "");
    atomic_store(&b->use[2].exchanges, 7); /* the newer one's are its own */
    atomic_store(&a->use[2].exchanges, 0);
    expect_freed("none", false, "a");
    atomic_store(&b->use[2].exchanges, 0);
}

static void it_waits_until_sync_has_read_the_records_of_that_moment(void **state)
{
    (void)state;
    struct snapshot *a = publish("a");
    adopt_all(a);
    push(0);
    push(0);
    push(2);
    struct snapshot *b = publish("b");
    adopt_all(b);

    expect_freed("three records", true, "");
    passed[0] = 1;
    expect_freed("two left", true, "");
    passed[0] = 2;
    expect_freed("one left, of another worker", true, "");
    push(1); /* made after the last worker had left it */
    push(2);
    passed[2] = 1;
    expect_freed("only newer ones left", false, "a");
}

static void records_made_while_an_exchange_still_held_it_count(void **state)
{
    (void)state;
    struct snapshot *a = publish("a");
    adopt_all(a);
    atomic_store(&a->use[1].exchanges, 1);
    struct snapshot *b = publish("b");
    adopt_all(b);
    expect_freed("an exchange", true, "");
    push(1); /* that exchange's record, after others had been looked at */
    atomic_store(&a->use[1].exchanges, 0);
    expect_freed("its record is in the ring", true, "");
    passed[1] = 1;
    expect_freed("read", false, "a");
}

static void several_wait_each_for_its_own_reasons(void **state)
{
    (void)state;
    struct snapshot *a = publish("a");
    adopt_all(a);
    atomic_store(&a->use[0].exchanges, 1);
    struct snapshot *b = publish("b");
    adopt_all(b);
    struct snapshot *c = publish("c");
    adopt(0, c);
    adopt(1, c);

    expect_freed("a is in use, b not left by worker 2", true, "");
    adopt(2, c);
    expect_freed("b goes first", true, "b");
    atomic_store(&a->use[0].exchanges, 0);
    expect_freed("then a", false, "ba");
    expect_freed("and nothing more", false, "ba");
}

static void a_burst_of_reloads_frees_all_but_the_newest(void **state)
{
    (void)state;
    static const char *const letters[] = { "a", "b", "c", "d", "e", "f" };
    struct snapshot *newest = NULL;

    for (size_t i = 0; i < ARRAY_LEN(letters); i++)
        newest = publish(letters[i]);
    adopt_all(newest);
    assert_false(snapshot_reap(&p));
    assert_int_equal(strlen(freed), ARRAY_LEN(letters) - 1);
    assert_null(strchr(freed, 'f'));
    snapshot_reap_all(&p);
    assert_int_equal(strlen(freed), ARRAY_LEN(letters));
    assert_null(atomic_load(&p.snapshot));
}

static void at_exit_everything_is_freed_whoever_used_it(void **state)
{
    (void)state;
    struct snapshot *a = publish("a");
    atomic_store(&a->use[0].exchanges, 3);
    publish("b");
    publish("c");
    snapshot_reap_all(&p);
    assert_int_equal(strlen(freed), 3);
    snapshot_reap_all(&p); /* twice is fine */
    snapshot_free(NULL);
}

static void routes_go_live_with_their_names_looked_up(void **state)
{
    (void)state;
    char *plain[] = { (char *)"one", (char *)"two" }, *templated[] = { (char *)"x-{host}" };
    struct name_value tag = { (char *)"t", (char *)"{host}" };
    struct route routes[] = {
        { .name = (char *)"p", .index = 0, .breakers = { plain, 2 } },
        { .name = (char *)"t", .index = 1, .breakers = { templated, 1 } },
        { .name = (char *)"r", .index = 2, .router = (char *)"{host}" },
        { .name = (char *)"g", .index = 3, .breakers = { plain, 1 }, .tags = { &tag, 1 } },
        { .name = (char *)"n", .index = 4, .router = (char *)"id" },
    };
    static const struct {
        bool templated, tells_host, gates;
        unsigned breakers;
    } want[] = { { false, false, true, 2 },
                 { true, false, true, 1 },
                 { false, true, false, 0 },
                 { false, true, true, 1 },
                 { false, false, false, 0 } };
    struct config *cfg = config_of("a");
    cfg->routes = routes;
    cfg->route_count = ARRAY_LEN(routes);
    struct snapshot *s = snapshot_new(&p, cfg);

    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        const struct live_route *r = snapshot_route(s, &routes[i]);
        if (r->cfg != &routes[i] || r->templated != want[i].templated ||
            r->tells_host != want[i].tells_host || r->gates != want[i].gates ||
            r->breaker_count != want[i].breakers)
            fail_msg("route %s: templated %d, gates %d, %u breakers", routes[i].name, r->templated,
                     r->gates, r->breaker_count);
    }
    assert_string_equal(breakers_name(p.breakers, s->routes[0].fixed[0], NULL), "one");
    assert_string_equal(breakers_name(p.breakers, s->routes[0].fixed[1], NULL), "two");
    assert_string_equal(route_slot_name(&p, s->routes[1].slot), "t");
    assert_string_equal(route_slot_name(&p, s->fallback.slot), "_default");
    snapshot_free(s);
}

static void a_route_name_keeps_its_slot_and_names_past_the_cap_share_one(void **state)
{
    (void)state;
    char name[16];

    for (unsigned i = 0; i < ROUTE_SLOTS + 20; i++) {
        snprintf(name, sizeof(name), "r%u", i);
        unsigned slot = route_slot(&p, name), want = i < ROUTE_SLOTS - 2 ? i : ROUTE_SLOTS - 1;
        if (slot != want || route_slot(&p, name) != slot)
            fail_msg("%s: got slot %u, want %u", name, slot, want);
        const char *shown = route_slot_name(&p, slot);
        if (strcmp(shown, i < ROUTE_SLOTS - 2 ? name : "_other") != 0)
            fail_msg("slot %u: shown as %s", slot, shown);
    }
    assert_int_equal(route_slot(&p, "_default"), ROUTE_SLOTS - 2);
    assert_int_equal(route_slot(&p, "r3"), 3);
}

static void an_unused_slot_has_no_name(void **state)
{
    (void)state;
    assert_null(route_slot_name(&p, 0));
    route_slot(&p, "a");
    assert_string_equal(route_slot_name(&p, 0), "a");
    assert_null(route_slot_name(&p, 1));
    assert_string_equal(route_slot_name(&p, ROUTE_SLOTS - 1), "_other");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_first_snapshot_retires_nothing_and_wakes_nobody),
        TEST(the_next_one_wakes_every_worker),
        TEST(generations_only_grow),
        TEST(it_waits_until_every_worker_has_adopted_a_newer_one),
        TEST(a_worker_that_has_not_started_keeps_it),
        TEST(it_waits_until_no_exchange_of_any_worker_holds_it),
        TEST(it_waits_until_sync_has_read_the_records_of_that_moment),
        TEST(records_made_while_an_exchange_still_held_it_count),
        TEST(several_wait_each_for_its_own_reasons),
        TEST(a_burst_of_reloads_frees_all_but_the_newest),
        TEST(at_exit_everything_is_freed_whoever_used_it),
        TEST(routes_go_live_with_their_names_looked_up),
        TEST(a_route_name_keeps_its_slot_and_names_past_the_cap_share_one),
        TEST(an_unused_slot_has_no_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
