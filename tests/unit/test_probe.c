/* Leases and turns of half-open attempts, with the clock given, and with many threads. */
#include "proxy/probe.h"

#include "base/base.h"
#include "base/prng.h"
#include "sync/breakers.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000) /* in microseconds */
#define START  (1000 * SECOND)
#define LEASE  (10 * SECOND)
#define B      7 /* a breaker's slot id */

static int set_up(void **state)
{
    *state = probes_new();
    return 0;
}

static int tear_down(void **state)
{
    probes_free(*state);
    return 0;
}

static struct probe_limits at_one_time(unsigned concurrent)
{
    return (struct probe_limits){ .concurrent = concurrent, .lease_ms = 10000 };
}

static struct probe_limits spaced(int64_t spacing_us)
{
    return (struct probe_limits){ .spacing_us = (uint64_t)spacing_us, .lease_ms = 10000 };
}

static enum half_open_bound ask(struct probes *p, const struct probe_limits *l, int64_t now_us,
                                struct probe_pass *pass)
{
    static const uint32_t breaker = B;
    unsigned at = 99;
    return probe_admit(p, l, &breaker, 1, now_us, pass, &at);
}

static void the_lowest_rate_counts_and_a_fleet_shares_its(void **state)
{
    (void)state;
    static const struct {
        int64_t own, size, fleet;
        uint64_t spacing_us;
    } cases[] = {
        { OFF, 1, OFF, 0 },
        { 1, 1, OFF, 1000000 },
        { 4, 1, OFF, 250000 },
        { 3, 1, OFF, 333334 }, /* never more often than asked */
        { 1000000, 1, OFF, 1 },
        { OFF, 1, 10, 100000 },
        { OFF, 10, 10, 1000000 },
        { OFF, 30, 10, 3000000 }, /* less than one per second */
        { OFF, 1000000, 1, 1000000000000 },
        { 5, 10, 100, 200000 },  /* 5 against 10 */
        { 50, 10, 100, 100000 }, /* 50 against 10 */
        { OFF, 100, OFF, 0 },    /* a size alone limits nothing */
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct route r = { .half_open = { .timeout_ms = OFF,
                                          .max_concurrent = OFF,
                                          .max_per_second = cases[i].own,
                                          .eligible = { .max_body = OFF },
                                          .fleet = { cases[i].size, cases[i].fleet } } };
        struct probe_limits l = probe_limits_of(&r);
        if (l.spacing_us != cases[i].spacing_us)
            fail_msg("%lld, %lld for %lld: got %llu", (long long)cases[i].own,
                     (long long)cases[i].fleet, (long long)cases[i].size,
                     (unsigned long long)l.spacing_us);
    }
}

static void a_lease_outlives_the_timeout_that_cuts_its_attempt(void **state)
{
    (void)state;
    struct route r = { .half_open = { .timeout_ms = 5000,
                                      .max_concurrent = 3,
                                      .max_per_second = OFF,
                                      .eligible = { .max_body = OFF },
                                      .fleet = { 1, OFF } } };

    struct probe_limits l = probe_limits_of(&r);
    assert_int_equal(l.concurrent, 3);
    assert_int_equal(l.lease_ms, 5000 + PROBE_GRACE_MS);
    r.half_open.timeout_ms = OFF;
    assert_int_equal(probe_limits_of(&r).lease_ms, 60000);
}

static void methods_and_body_size_decide_who_may_probe(void **state)
{
    (void)state;
    static char *const get[] = { (char *)"GET", (char *)"CONNECT" };
    static const struct string_list none = { 0 }, some = { (char **)get, 2 };
    static const struct {
        const struct string_list *methods;
        int64_t max_body;
        const char *method;
        int64_t body;
        bool may;
    } cases[] = {
        { &none, OFF, "POST", -1, true },
        { &some, OFF, "GET", 0, true },
        { &some, OFF, "CONNECT", 0, true },
        { &some, OFF, "get", 0, false },
        { &some, OFF, "POST", 0, false },
        { &some, OFF, "GE", 0, false },
        { &some, OFF, "", 0, false },
        { &none, 0, "GET", 0, true },
        { &none, 0, "POST", 1, false },
        { &none, 1024, "POST", 1024, true },
        { &none, 1024, "POST", 1025, false },
        { &none, 1024, "POST", -1, false }, /* nobody knows its size */
        { &some, 1024, "POST", 10, false },
        { &some, 1024, "GET", 1025, false },
        { &some, 1024, "GET", 10, true },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct probe_limits l = { .methods = cases[i].methods, .max_body = cases[i].max_body };
        if (probe_eligible(&l, cases[i].method, strlen(cases[i].method), cases[i].body) !=
            cases[i].may)
            fail_msg("case %zu: %s with %lld bytes", i, cases[i].method, (long long)cases[i].body);
    }
}

static void as_many_leases_are_granted_as_the_limit_says_and_each_once(void **state)
{
    static const unsigned limits[] = { 1, 2, 49, 50, 51, 999, MAX_PROBES };
    static struct probe_pass passes[MAX_PROBES + 1];

    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        struct probes *p = *state;
        struct probe_limits l = at_one_time(limits[i]);
        for (unsigned n = 0; n < limits[i]; n++)
            if (ask(p, &l, START, &passes[n]) != BOUND_NONE)
                fail_msg("limit %u: the attempt after %u was refused", limits[i], n);
        assert_int_equal(probes_held(p, B, START), limits[i]);
        assert_int_equal(ask(p, &l, START, &passes[limits[i]]), BOUND_CONCURRENT);
        assert_int_equal(passes[limits[i]].count, 0);

        unsigned middle = limits[i] / 2;
        probe_release(&passes[middle]);
        assert_int_equal(ask(p, &l, START, &passes[middle]), BOUND_NONE);
        assert_int_equal(ask(p, &l, START, &passes[limits[i]]), BOUND_CONCURRENT);
        for (unsigned n = 0; n < limits[i]; n++) {
            probe_release(&passes[n]);
            probe_release(&passes[n]); /* once more does nothing */
        }
        assert_int_equal(probes_held(p, B, START), 0);
    }
}

static void a_lease_nobody_gave_back_expires(void **state)
{
    struct probe_limits l = at_one_time(1);
    struct probe_pass lost, next;

    assert_int_equal(ask(*state, &l, START, &lost), BOUND_NONE);
    assert_int_equal(ask(*state, &l, START + LEASE - 1000, &next), BOUND_CONCURRENT);
    assert_int_equal(probes_held(*state, B, START + LEASE - 1000), 1);
    assert_int_equal(probes_held(*state, B, START + LEASE), 0);
    assert_int_equal(ask(*state, &l, START + LEASE, &next), BOUND_NONE);
}

static void who_held_a_slot_before_does_not_give_back_its_successors_lease(void **state)
{
    struct probe_limits l = at_one_time(1);
    struct probe_limits brief = { .concurrent = 1, .lease_ms = 1 };
    struct probe_pass first, second, third;

    assert_int_equal(ask(*state, &l, START, &first), BOUND_NONE);
    assert_int_equal(ask(*state, &l, START + LEASE, &second), BOUND_NONE);
    probe_release(&first);
    assert_int_equal(ask(*state, &l, START + LEASE, &third), BOUND_CONCURRENT);
    probe_release(&second);

    /* Nor by the clock of another worker, which is a little late: the two expire alike. */
    assert_int_equal(ask(*state, &brief, START, &first), BOUND_NONE);
    assert_int_equal(ask(*state, &brief, START + 1000, &second), BOUND_NONE);
    probe_release(&second);
    assert_int_equal(ask(*state, &brief, START, &third), BOUND_NONE);
    probe_release(&first);
    assert_int_equal(probes_held(*state, B, START), 1);
}

static void a_lowered_limit_counts_the_leases_taken_under_the_higher_one(void **state)
{
    struct probe_limits ten = at_one_time(10), two = at_one_time(2);
    struct probe_pass held[10], more;

    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(ask(*state, &ten, START, &held[i]), BOUND_NONE);
    /* The first slots are free again, and yet there is room only when one attempt is left. */
    for (unsigned i = 0; i < 9; i++) {
        assert_int_equal(ask(*state, &two, START, &more), BOUND_CONCURRENT);
        assert_int_equal(probes_held(*state, B, START), 10 - i);
        probe_release(&held[i]);
    }
    assert_int_equal(ask(*state, &two, START, &more), BOUND_NONE);
    assert_int_equal(ask(*state, &two, START, &held[0]), BOUND_CONCURRENT);
    probe_release(&held[9]);
    assert_int_equal(ask(*state, &two, START, &held[0]), BOUND_NONE);
}

static void attempts_without_a_limit_count_for_the_others_as_far_as_there_are_slots(void **state)
{
    static struct probe_pass unbounded[MAX_PROBES + 1];
    struct probe_limits none = at_one_time(0), two = at_one_time(2), all = at_one_time(MAX_PROBES);
    struct probe_pass more;

    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(ask(*state, &none, START, &unbounded[i]), BOUND_NONE);
    assert_int_equal(ask(*state, &two, START, &more), BOUND_CONCURRENT);
    probe_release(&unbounded[0]);
    assert_int_equal(ask(*state, &two, START, &more), BOUND_CONCURRENT);
    probe_release(&unbounded[1]);
    assert_int_equal(ask(*state, &two, START, &more), BOUND_NONE);
    probe_release(&more);
    assert_int_equal(probes_held(*state, B, START), 1);
    assert_int_equal(probes_held_sum(*state, B, START), 1);
    assert_int_equal(probes_held_sum(*state, B - 1, START), 0);

    for (unsigned i = 0; i <= MAX_PROBES; i++)
        if (i != 2 && ask(*state, &none, START, &unbounded[i]) != BOUND_NONE)
            fail_msg("attempt %u was refused", i);
    assert_int_equal(unbounded[MAX_PROBES].count, 0); /* there was no slot left */
    assert_int_equal(probes_held(*state, B, START), MAX_PROBES);
    assert_int_equal(ask(*state, &all, START, &more), BOUND_CONCURRENT);
    assert_int_equal(probes_held(*state, B, START + LEASE), 0);
}

static void breakers_do_not_share_their_places(void **state)
{
    struct probe_limits l = at_one_time(1);
    struct probe_pass passes[3];
    static const uint32_t ids[] = { 1, 2, BREAKERS_CAPACITY - 1 };
    unsigned at;

    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        assert_int_equal(probe_admit(*state, &l, &ids[i], 1, START, &passes[i], &at), BOUND_NONE);
}

static void every_breaker_must_grant_and_a_refusal_takes_nothing_from_any(void **state)
{
    static const uint32_t all[] = { 1, 2, 3 };
    struct probes *p = *state;
    struct probe_limits l = { .concurrent = 1, .spacing_us = SECOND, .lease_ms = 10000 };
    struct probe_pass pass, other;
    unsigned at = 99;

    /* The last one has no place. */
    assert_int_equal(probe_admit(p, &l, &all[2], 1, START, &other, &at), BOUND_NONE);
    assert_int_equal(probe_admit(p, &l, all, 3, START, &pass, &at), BOUND_CONCURRENT);
    assert_int_equal(at, 2);
    assert_int_equal(pass.count, 0);
    assert_int_equal(probes_held(p, 1, START) + probes_held(p, 2, START), 0);
    /* It has a place, but it is not its turn; the others' turns are not used up. */
    probe_release(&other);
    assert_int_equal(probe_admit(p, &l, all, 3, START + SECOND / 2, &pass, &at), BOUND_PER_SECOND);
    assert_int_equal(at, 2);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(probes_held(p, all[i], START), 0);
    assert_int_equal(probe_admit(p, &l, all, 2, START + SECOND / 2, &pass, &at), BOUND_NONE);
    assert_int_equal(pass.count, 2);
    probe_release(&pass);
    /* A refusal for want of a place did not use up a turn either. */
    assert_int_equal(probe_admit(p, &l, all, 3, START + SECOND, &pass, &at), BOUND_PER_SECOND);
    assert_int_equal(at, 0);
    assert_int_equal(probe_admit(p, &l, all, 3, START + SECOND * 3 / 2, &pass, &at), BOUND_NONE);
    assert_int_equal(pass.count, 3);
    probe_release(&pass);
}

static void attempts_keep_their_distance(void **state)
{
    struct probe_limits l = spaced(SECOND / 4);
    static const struct {
        int64_t at_us;
        enum half_open_bound want;
    } cases[] = {
        { 0, BOUND_NONE }, /* the first one waits for nobody */
        { 0, BOUND_PER_SECOND },
        { SECOND / 4 - 1, BOUND_PER_SECOND },
        { SECOND / 4, BOUND_NONE },
        { SECOND / 4, BOUND_PER_SECOND },
        { SECOND / 8, BOUND_PER_SECOND }, /* another worker's clock */
        { 100 * SECOND, BOUND_NONE },     /* silence saves nothing up */
        { 100 * SECOND, BOUND_PER_SECOND },
        { 100 * SECOND + SECOND / 4, BOUND_NONE },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct probe_pass pass;
        if (ask(*state, &l, START + cases[i].at_us, &pass) != cases[i].want ||
            pass.count != (cases[i].want == BOUND_NONE))
            fail_msg("case %zu", i);
    }
}

static void no_second_sees_more_attempts_than_the_rate(void **state)
{
    static const unsigned rates[] = { 1, 3, 7, 100 };
    struct prng random;

    prng_seed_fixed(&random, 11);
    for (size_t r = 0; r < ARRAY_LEN(rates); r++) {
        struct route route = {
            .half_open = { .max_per_second = rates[r], .max_concurrent = OFF, .fleet = { 1, OFF } }
        };
        struct probe_limits l = probe_limits_of(&route);
        uint32_t breaker = (uint32_t)r + 1;
        int64_t granted[2000], now_us = START;
        unsigned count = 0, at;
        while (count < ARRAY_LEN(granted)) {
            struct probe_pass pass;
            now_us += (int64_t)(prng_unit(&random) * 2 * (double)SECOND / rates[r] / 5);
            if (probe_admit(*state, &l, &breaker, 1, now_us, &pass, &at) == BOUND_NONE)
                granted[count++] = now_us;
        }
        for (unsigned i = rates[r]; i < count; i++)
            if (granted[i] - granted[i - rates[r]] < SECOND)
                fail_msg("rate %u: more than that from %lld on", rates[r],
                         (long long)granted[i - rates[r]]);
    }
}

static void a_new_rate_holds_from_the_last_attempt_on(void **state)
{
    struct probe_limits never = spaced(1000000 * SECOND), soon = spaced(SECOND), none = spaced(0);
    struct probe_pass pass;

    assert_int_equal(ask(*state, &never, START, &pass), BOUND_NONE);
    assert_int_equal(ask(*state, &never, START + 2 * SECOND, &pass), BOUND_PER_SECOND);
    assert_int_equal(ask(*state, &soon, START + 2 * SECOND, &pass), BOUND_NONE);
    /* Nor is it lost who had no rate, by whatever worker's clock. */
    assert_int_equal(ask(*state, &none, START + 4 * SECOND, &pass), BOUND_NONE);
    assert_int_equal(ask(*state, &none, START + 4 * SECOND - 1, &pass), BOUND_NONE);
    assert_int_equal(ask(*state, &soon, START + 5 * SECOND - 1, &pass), BOUND_PER_SECOND);
    assert_int_equal(ask(*state, &soon, START + 5 * SECOND, &pass), BOUND_NONE);
}

/* ---- Threads ---- */

#define THREADS 4
#define ROUNDS  20000

struct crowd {
    struct probes *p;
    struct probe_limits limits;
    _Atomic int inside, most;
    _Atomic unsigned granted;
    _Atomic int64_t now_us;
    unsigned lost_every; /* 0: everybody gives back */
};

static void note_inside(struct crowd *c, int n)
{
    int most = atomic_load(&c->most);
    while (n > most && !atomic_compare_exchange_weak(&c->most, &most, n))
        ;
}

static void *visit(void *arg)
{
    struct crowd *c = arg;
    static const uint32_t breakers[] = { 3, B };
    for (unsigned i = 1; i <= ROUNDS; i++) {
        struct probe_pass pass;
        unsigned at;
        int64_t now_us = atomic_fetch_add(&c->now_us, 10);
        if (probe_admit(c->p, &c->limits, breakers, 2, now_us, &pass, &at) != BOUND_NONE)
            continue;
        atomic_fetch_add(&c->granted, 1);
        note_inside(c, atomic_fetch_add(&c->inside, 1) + 1);
        sched_yield();
        atomic_fetch_sub(&c->inside, 1);
        if (!c->lost_every || i % c->lost_every)
            probe_release(&pass);
    }
    return NULL;
}

static void run_crowd(struct crowd *c)
{
    pthread_t threads[THREADS];
    atomic_store(&c->now_us, START);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, visit, c), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void threads_never_hold_more_than_the_limit_and_leave_nothing_behind(void **state)
{
    struct crowd c = { .p = *state, .limits = at_one_time(2) };

    run_crowd(&c);
    int64_t now_us = atomic_load(&c.now_us);
    if (atomic_load(&c.most) > 2 || atomic_load(&c.granted) < 100)
        fail_msg("%d inside at one time, %u granted", atomic_load(&c.most),
                 atomic_load(&c.granted));
    assert_int_equal(probes_held(*state, 3, now_us) + probes_held(*state, B, now_us), 0);
}

static void what_threads_lose_comes_back_by_time(void **state)
{
    struct crowd c = { .p = *state, .limits = at_one_time(3), .lost_every = 5 };

    c.limits.lease_ms = 20;
    run_crowd(&c);
    int64_t now_us = atomic_load(&c.now_us);
    /* In these 800 ms three places would be lost for good in no time. */
    if (atomic_load(&c.granted) < 100)
        fail_msg("%u granted", atomic_load(&c.granted));
    assert_true(probes_held(*state, B, now_us) <= 3);
    assert_int_equal(probes_held(*state, B, now_us + 20 * 1000), 0);
}

static void *visit_once_with_two(void *arg)
{
    struct crowd *c = arg;
    struct probe_pass pass;
    if (ask(c->p, &c->limits, START, &pass) == BOUND_NONE)
        note_inside(c, atomic_fetch_add(&c->inside, 1) + 1);
    return NULL;
}

static void threads_that_come_under_a_lowered_limit_see_each_other(void **state)
{
    for (unsigned round = 0; round < 200; round++) {
        struct crowd c = { .p = *state, .limits = at_one_time(2) };
        struct probe_limits four = at_one_time(4);
        struct probe_pass held[4];
        pthread_t threads[THREADS];
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(ask(*state, &four, START, &held[i]), BOUND_NONE);
        for (unsigned i = 0; i < 3; i++)
            probe_release(&held[i]); /* one is left, past the new limit */
        for (unsigned i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, visit_once_with_two, &c), 0);
        for (unsigned i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        if (atomic_load(&c.inside) > 1)
            fail_msg("round %u: %d beside the one that was there", round, atomic_load(&c.inside));
        probes_free(*state);
        *state = probes_new();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_lowest_rate_counts_and_a_fleet_shares_its),
        cmocka_unit_test(a_lease_outlives_the_timeout_that_cuts_its_attempt),
        cmocka_unit_test(methods_and_body_size_decide_who_may_probe),
#define WITH_PROBES(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
        WITH_PROBES(as_many_leases_are_granted_as_the_limit_says_and_each_once),
        WITH_PROBES(a_lease_nobody_gave_back_expires),
        WITH_PROBES(who_held_a_slot_before_does_not_give_back_its_successors_lease),
        WITH_PROBES(a_lowered_limit_counts_the_leases_taken_under_the_higher_one),
        WITH_PROBES(attempts_without_a_limit_count_for_the_others_as_far_as_there_are_slots),
        WITH_PROBES(breakers_do_not_share_their_places),
        WITH_PROBES(every_breaker_must_grant_and_a_refusal_takes_nothing_from_any),
        WITH_PROBES(attempts_keep_their_distance),
        WITH_PROBES(no_second_sees_more_attempts_than_the_rate),
        WITH_PROBES(a_new_rate_holds_from_the_last_attempt_on),
        WITH_PROBES(threads_never_hold_more_than_the_limit_and_leave_nothing_behind),
        WITH_PROBES(what_threads_lose_comes_back_by_time),
        WITH_PROBES(threads_that_come_under_a_lowered_limit_see_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
