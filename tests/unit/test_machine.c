#include "control/machine.h"

#include "base/base.h"
#include "base/prng.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* As `embedded.auto_breaker` has it by default. */
static struct machine_rule run_rule(void)
{
    return (struct machine_rule){
        .metric = { .kind = EVALUATOR_CONSECUTIVE_FAILURES,
                    .op = EVALUATOR_GTE,
                    .threshold = 5,
                    .window_ms = 60000,
                    .min_count = 1 },
        .eval_interval_ms = 500,
        .cooldown_ms = 5000,
        .backoff = true,
        .backoff_cap_ms = 60000,
        .policy = MACHINE_CONSERVATIVE,
        .ramp_steps = 3,
    };
}

static struct machine_rule rate_rule(void)
{
    struct machine_rule r = run_rule();

    r.metric = (struct evaluator_rule){
        .kind = EVALUATOR_ERROR_RATE,
        .op = EVALUATOR_GT,
        .threshold = 0.5,
        .window_ms = 10000,
        .min_count = 10,
    };
    return r;
}

static struct machine_rule rule_of(enum evaluator_kind kind, enum machine_policy policy)
{
    struct machine_rule r = kind == EVALUATOR_ERROR_RATE ? rate_rule() : run_rule();

    r.policy = policy;
    return r;
}

static void samples(struct machine *m, int64_t now_ms, bool ok, int count)
{
    for (int i = 0; i < count; i++)
        machine_sample(m, now_ms, now_ms, ok);
}

/* Ticks in steps of the evaluation interval up to and including until_ms. */
static void run_to(struct machine *m, int64_t *now_ms, int64_t until_ms)
{
    while (*now_ms < until_ms) {
        *now_ms = m->next_eval_ms < until_ms ? m->next_eval_ms : until_ms;
        machine_tick(m, *now_ms);
    }
}

/* A tripped breaker: 20 failures at 1000, evaluated by 1500. */
static int64_t trip(struct machine *m, const struct machine_rule *rule)
{
    int64_t now = 1000;

    machine_init(m, rule, now);
    samples(m, now, false, 20);
    run_to(m, &now, 1500);
    assert_int_equal(m->state, MACHINE_OPEN);
    return now;
}

static int64_t half_open(struct machine *m, const struct machine_rule *rule)
{
    int64_t now = trip(m, rule);

    while (m->state != MACHINE_HALF_OPEN)
        run_to(m, &now, m->next_eval_ms);
    return now;
}

static void check_state(const struct machine *m, enum machine_state want, const char *when)
{
    if (m->state != want)
        fail_msg("%s: %s, want %s (%s)", when, machine_state_name(m->state),
                 machine_state_name(want), m->reason_text);
}

static void five_failures_in_a_row_open_it_as_the_fifth_arrives(void **state)
{
    struct machine_rule rule = run_rule();
    struct machine m;

    (void)state;
    machine_init(&m, &rule, 0);
    samples(&m, 10, false, 4);
    samples(&m, 11, true, 1);
    samples(&m, 12, false, 4);
    check_state(&m, MACHINE_CLOSED, "four, a success, four");
    assert_int_equal(machine_sample(&m, 13, 13, false), MACHINE_MOVED);
    check_state(&m, MACHINE_OPEN, "the fifth");
    assert_int_equal(m.from, MACHINE_CLOSED);
    assert_int_equal(m.reason, MACHINE_REASON_UNHEALTHY);
    assert_string_equal(m.reason_text, "5 consecutive failures >= 5");
    assert_true(machine_allow_rate(&m) == 0.0);
}

static void error_rate_opens_it_at_the_next_tick(void **state)
{
    struct machine_rule rule = rate_rule();
    struct machine m;

    (void)state;
    machine_init(&m, &rule, 1000);
    samples(&m, 1001, true, 4);
    samples(&m, 1001, false, 6);
    check_state(&m, MACHINE_CLOSED, "before the tick");
    assert_int_equal(machine_tick(&m, 1499), MACHINE_SAME);
    assert_int_equal(machine_tick(&m, 1500), MACHINE_MOVED);
    check_state(&m, MACHINE_OPEN, "at the tick");
    assert_string_equal(m.reason_text, "error rate 0.6 > 0.5 (6 of 10 samples)");
}

static void too_few_samples_never_open_it(void **state)
{
    struct machine_rule rule = rate_rule();
    struct machine m;
    int64_t now = 0;

    (void)state;
    for (enum machine_policy p = MACHINE_OPTIMISTIC; p <= MACHINE_PESSIMISTIC; p++) {
        rule.policy = p;
        machine_init(&m, &rule, now);
        samples(&m, now, false, 9);
        run_to(&m, &now, now + 20000);
        check_state(&m, MACHINE_CLOSED, "nine of ten");
    }
}

static void open_lasts_for_the_cooldown_and_ignores_samples(void **state)
{
    struct machine_rule rule = run_rule();
    struct machine m;
    int64_t now;

    (void)state;
    now = trip(&m, &rule); /* open since 1000 */
    samples(&m, now, true, 100);
    run_to(&m, &now, 5999);
    check_state(&m, MACHINE_OPEN, "1 ms before the end of the cooldown");
    run_to(&m, &now, 6000);
    check_state(&m, MACHINE_HALF_OPEN, "at the end of the cooldown");
    assert_int_equal(m.reason, MACHINE_REASON_COOLDOWN_OVER);
    assert_string_equal(m.reason_text, "cooldown of 5000 ms is over, failed recoveries so far: 0");
    assert_true(machine_allow_rate(&m) == 0.25);
}

static void a_healthy_breaker_climbs_one_step_a_tick_and_then_closes(void **state)
{
    static const double rates[] = { 0.5, 0.75, 1.0 };
    struct machine_rule rule = run_rule();
    struct machine m;
    int64_t now;

    (void)state;
    now = half_open(&m, &rule);
    samples(&m, now, true, 1);
    for (size_t i = 0; i < ARRAY_LEN(rates); i++) {
        now += 500;
        assert_int_equal(machine_tick(&m, now), MACHINE_STEPPED);
        if (machine_allow_rate(&m) != rates[i])
            fail_msg("step %zu: rate %g, want %g", i, machine_allow_rate(&m), rates[i]);
        check_state(&m, MACHINE_HALF_OPEN, "on the ramp");
    }
    now += 500; /* four healthy ticks: (ramp_steps + 1) x eval_interval_ms */
    assert_int_equal(machine_tick(&m, now), MACHINE_MOVED);
    check_state(&m, MACHINE_CLOSED, "past the last step");
    assert_int_equal(m.reason, MACHINE_REASON_RECOVERED);
    assert_string_equal(m.reason_text, "all 4 recovery steps were healthy");
    assert_true(machine_allow_rate(&m) == 1.0);
}

static void a_failing_probe_reopens_a_run_breaker_at_once(void **state)
{
    struct machine_rule rule = run_rule();
    struct machine m;
    int64_t now;

    (void)state;
    now = half_open(&m, &rule);
    assert_int_equal(machine_sample(&m, now + 1, now + 1, false), MACHINE_MOVED);
    check_state(&m, MACHINE_OPEN, "after one failing probe");
    assert_int_equal(m.from, MACHINE_HALF_OPEN);
    assert_int_equal(m.reason, MACHINE_REASON_PROBES_FAILED);
    assert_string_equal(m.reason_text, "6 consecutive failures >= 5 while half open");
}

static void the_step_holds_while_a_new_run_is_below_the_threshold(void **state)
{
    struct machine_rule rule = run_rule();
    struct machine m;
    int64_t now;

    (void)state;
    now = half_open(&m, &rule);
    samples(&m, now, true, 1);
    run_to(&m, &now, now + 500);
    assert_true(machine_allow_rate(&m) == 0.5);
    samples(&m, now, false, 4);
    run_to(&m, &now, now + 5000);
    check_state(&m, MACHINE_HALF_OPEN, "four failures");
    assert_true(machine_allow_rate(&m) == 0.5);
    samples(&m, now, true, 1);
    run_to(&m, &now, now + 500);
    assert_true(machine_allow_rate(&m) == 0.75);
}

static void every_failed_recovery_doubles_the_cooldown_up_to_the_cap(void **state)
{
    static const struct {
        int64_t cooldown_ms;
        int64_t cap_ms;
        int64_t min_state_ms;
        bool backoff;
        uint32_t failed;
        int64_t want_ms;
    } cases[] = {
        { 5000, 60000, 0, true, 0, 5000 },
        { 5000, 60000, 0, true, 1, 10000 },
        { 5000, 60000, 0, true, 3, 40000 },
        { 5000, 60000, 0, true, 4, 60000 },
        { 5000, 60000, 0, true, UINT32_MAX, 60000 },
        { 5000, 60000, 0, false, 9, 5000 },
        { 5000, 1000, 0, true, 2, 5000 },                  /* the cap never shortens the cooldown */
        { 5000, 0, 0, true, 100, MACHINE_BACKOFF_CAP_MS }, /* no cap given */
        { 0, 60000, 0, true, 5, 0 },
        { 0, 60000, 7000, true, 5, 7000 },
        { 5000, 60000, 7000, true, 0, 7000 },
        { INT64_MAX, INT64_MAX, 0, true, 99, INT64_C(30) * 24 * 3600 * 1000 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct machine_rule rule = run_rule();
        struct machine m;

        rule.cooldown_ms = cases[i].cooldown_ms;
        rule.backoff_cap_ms = cases[i].cap_ms;
        rule.backoff = cases[i].backoff;
        rule.min_state_duration_ms = cases[i].min_state_ms;
        machine_init(&m, &rule, 0);
        m.failed_recoveries = cases[i].failed;
        if (machine_open_ms(&m) != cases[i].want_ms)
            fail_msg("case %zu: %lld ms, want %lld", i, (long long)machine_open_ms(&m),
                     (long long)cases[i].want_ms);
    }
}

static void closing_forgets_the_failed_recoveries(void **state)
{
    struct machine_rule rule = run_rule();
    struct machine m;
    int64_t now;

    (void)state;
    now = half_open(&m, &rule);
    samples(&m, now, false, 1);
    assert_int_equal(machine_open_ms(&m), 10000);
    run_to(&m, &now, now + 10500);
    check_state(&m, MACHINE_HALF_OPEN, "after the doubled cooldown");
    samples(&m, now, true, 1);
    run_to(&m, &now, now + 2000);
    check_state(&m, MACHINE_CLOSED, "recovered");
    samples(&m, now, false, 5);
    check_state(&m, MACHINE_OPEN, "tripped again");
    assert_int_equal(machine_open_ms(&m), 5000);
}

static void samples_that_began_before_the_phase_do_not_count(void **state)
{
    static const struct {
        int64_t began_after_ms; /* half-open began */
        bool counts;
    } cases[] = {
        { -30000, false }, { -2, false }, { -1, true }, /* the grain of two clocks */
        { 0, true },       { 1, true },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct machine_rule rule = run_rule();
        struct machine m;
        int64_t now = half_open(&m, &rule);
        int64_t began = now + cases[i].began_after_ms;
        bool moved;

        machine_sample(&m, now + 100, began, true);
        moved = machine_tick(&m, now + 500) == MACHINE_STEPPED;
        if (moved != cases[i].counts)
            fail_msg("a success begun %+lld ms: %s", (long long)cases[i].began_after_ms,
                     moved ? "counted" : "ignored");
        now = half_open(&m, &rule);
        moved = machine_sample(&m, now + 100, began, false) == MACHINE_MOVED;
        if (moved != cases[i].counts)
            fail_msg("a failure begun %+lld ms: %s", (long long)cases[i].began_after_ms,
                     moved ? "counted" : "ignored");
    }
}

static void failures_from_before_the_trip_do_not_open_a_breaker_that_has_recovered(void **state)
{
    struct machine_rule rule = run_rule();
    struct machine m;
    int64_t now;

    (void)state;
    now = half_open(&m, &rule);
    samples(&m, now, true, 1);
    run_to(&m, &now, now + 2000);
    check_state(&m, MACHINE_CLOSED, "recovered");
    for (int i = 0; i < 10; i++)
        machine_sample(&m, now, 900, false); /* timeouts of 30 s, reported only now */
    run_to(&m, &now, now + 1000);
    check_state(&m, MACHINE_CLOSED, "after the late failures");
}

static void nothing_moves_before_min_state_duration_is_over(void **state)
{
    struct machine_rule rule = run_rule();
    struct machine m;
    int64_t now;

    (void)state;
    rule.min_state_duration_ms = 8000;
    now = trip(&m, &rule); /* the first move waits for nothing */
    run_to(&m, &now, 8999);
    check_state(&m, MACHINE_OPEN, "cooldown over, 7999 ms open");
    run_to(&m, &now, 9000);
    check_state(&m, MACHINE_HALF_OPEN, "8000 ms open");
    samples(&m, now, true, 1);
    run_to(&m, &now, 16999);
    check_state(&m, MACHINE_HALF_OPEN, "ramp over, 7999 ms half open");
    assert_true(machine_allow_rate(&m) == 1.0);
    run_to(&m, &now, 17000);
    check_state(&m, MACHINE_CLOSED, "8000 ms half open");
    samples(&m, now, false, 5);
    run_to(&m, &now, 24999);
    check_state(&m, MACHINE_CLOSED, "unhealthy, 7999 ms closed");
    run_to(&m, &now, 25000);
    check_state(&m, MACHINE_OPEN, "unhealthy, 8000 ms closed");
}

static void the_indeterminate_policy_says_what_too_little_data_means(void **state)
{
    static const struct {
        enum machine_policy policy;
        int64_t in_phase_ms;
        enum evaluator_verdict want;
    } cases[] = {
        { MACHINE_OPTIMISTIC, 0, VERDICT_HEALTHY },
        { MACHINE_OPTIMISTIC, 99999, VERDICT_HEALTHY },
        { MACHINE_CONSERVATIVE, 0, VERDICT_INDETERMINATE },
        { MACHINE_CONSERVATIVE, 99999, VERDICT_INDETERMINATE },
        { MACHINE_PESSIMISTIC, 0, VERDICT_INDETERMINATE },
        { MACHINE_PESSIMISTIC, 9999, VERDICT_INDETERMINATE },
        { MACHINE_PESSIMISTIC, 10000, VERDICT_UNHEALTHY },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        enum evaluator_verdict got =
            machine_indeterminate(cases[i].policy, cases[i].in_phase_ms, 10000);

        if (got != cases[i].want)
            fail_msg("policy %d after %lld ms: got %d, want %d", (int)cases[i].policy,
                     (long long)cases[i].in_phase_ms, (int)got, (int)cases[i].want);
    }
}

static void half_open_without_samples_ends_as_the_policy_says(void **state)
{
    static const struct {
        enum machine_policy policy;
        int64_t after_ms;
        enum machine_state want;
    } cases[] = {
        { MACHINE_OPTIMISTIC, 1500, MACHINE_HALF_OPEN },
        { MACHINE_OPTIMISTIC, 2000, MACHINE_CLOSED },
        { MACHINE_CONSERVATIVE, 3600000, MACHINE_HALF_OPEN },
        { MACHINE_PESSIMISTIC, 9500, MACHINE_HALF_OPEN },
        { MACHINE_PESSIMISTIC, 10000, MACHINE_OPEN }, /* the window: its patience */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct machine_rule rule = rule_of(EVALUATOR_ERROR_RATE, cases[i].policy);
        struct machine m;
        int64_t now = half_open(&m, &rule);

        run_to(&m, &now, now + cases[i].after_ms);
        if (m.state != cases[i].want)
            fail_msg("case %zu: %s, want %s", i, machine_state_name(m.state),
                     machine_state_name(cases[i].want));
        if (m.state == MACHINE_OPEN) {
            assert_int_equal(m.reason, MACHINE_REASON_NO_DATA);
            assert_string_equal(m.reason_text,
                                "no verdict from 0 samples in 10000 ms, policy pessimistic");
        }
    }
}

static void rare_samples_of_a_half_open_phase_add_up_beyond_the_window(void **state)
{
    struct machine_rule rule = rate_rule();
    struct machine m;
    int64_t now;

    (void)state;
    now = half_open(&m, &rule);
    for (int i = 0; i < 9; i++) {
        samples(&m, now, true, 1);
        run_to(&m, &now, now + 20000); /* twice the window */
        assert_true(machine_allow_rate(&m) == 0.25);
    }
    samples(&m, now, true, 1); /* min_count */
    run_to(&m, &now, now + 2000);
    check_state(&m, MACHINE_CLOSED, "ten successes, 20 s apart");
}

static void samples_add_up_over_phases_that_ended_for_lack_of_data(void **state)
{
    struct machine_rule rule = rule_of(EVALUATOR_ERROR_RATE, MACHINE_PESSIMISTIC);
    struct machine m;
    int64_t now;

    (void)state;
    rule.backoff = false;
    now = half_open(&m, &rule);
    for (int i = 0; i < 9; i++) {
        samples(&m, now, true, 1);
        run_to(&m, &now, now + 10000);
        check_state(&m, MACHINE_OPEN, "patience is over");
        run_to(&m, &now, now + 5000);
        check_state(&m, MACHINE_HALF_OPEN, "cooldown is over");
    }
    samples(&m, now, true, 1);
    run_to(&m, &now, now + 2000);
    check_state(&m, MACHINE_CLOSED, "ten successes in ten phases");
}

static void a_phase_after_failed_probes_starts_from_nothing(void **state)
{
    struct machine_rule rule = rate_rule();
    struct machine m;
    int64_t now;

    (void)state;
    now = half_open(&m, &rule);
    samples(&m, now, false, 10);
    run_to(&m, &now, now + 500);
    check_state(&m, MACHINE_OPEN, "ten failing probes");
    run_to(&m, &now, now + 10000);
    check_state(&m, MACHINE_HALF_OPEN, "doubled cooldown is over");
    samples(&m, now, true, 9);
    run_to(&m, &now, now + 500);
    assert_true(machine_allow_rate(&m) == 0.25);
    samples(&m, now, true, 1);
    run_to(&m, &now, now + 500);
    assert_true(machine_allow_rate(&m) == 0.5);
}

static void another_rule_keeps_the_state(void **state)
{
    struct machine_rule rule = run_rule();
    struct machine m;
    int64_t now;

    (void)state;
    now = half_open(&m, &rule);
    rule.ramp_steps = 1;
    assert_int_equal(machine_set_rule(&m, &rule, now), MACHINE_STEPPED);
    check_state(&m, MACHINE_HALF_OPEN, "shorter ramp");
    assert_true(machine_allow_rate(&m) == 0.5);
    rule.metric.threshold = 1;
    assert_int_equal(machine_set_rule(&m, &rule, now), MACHINE_SAME);
    samples(&m, now, true, 1);
    run_to(&m, &now, now + 1000);
    check_state(&m, MACHINE_CLOSED, "recovered on the shorter ramp");
    samples(&m, now, false, 1);
    check_state(&m, MACHINE_OPEN, "by the new threshold");
}

/* The property: whatever happened before, an upstream that is healthy and asked gets its
 * breaker closed again. */

struct world {
    struct machine m;
    struct prng rng;
    int64_t now_ms;
    struct {
        int64_t arrives_ms;
        int64_t began_ms;
        bool ok;
    } flying[64];
    size_t flying_count;
};

static int64_t between(struct prng *p, int64_t lo, int64_t hi)
{
    return lo + (int64_t)(prng_u64(p) % (uint64_t)(hi - lo + 1));
}

static struct machine_rule random_rule(struct prng *p, enum evaluator_kind kind,
                                       enum machine_policy policy)
{
    struct machine_rule r = {
        .metric = { .kind = kind,
                    .op = prng_u32(p) % 2 ? EVALUATOR_GT : EVALUATOR_GTE,
                    .window_ms = between(p, 100, 60000),
                    .min_count = between(p, 0, 25) },
        .eval_interval_ms = between(p, 100, 1000),
        .min_state_duration_ms = prng_u32(p) % 2 ? 0 : between(p, 0, 10000),
        .cooldown_ms = prng_u32(p) % 4 == 0 ? 0 : between(p, 1, 10000),
        .backoff = prng_u32(p) % 2,
        .backoff_cap_ms = between(p, 1, 30000),
        .policy = policy,
        .ramp_steps = between(p, 0, 7),
    };

    r.metric.threshold =
        kind == EVALUATOR_ERROR_RATE ? (double)between(p, 1, 9) / 10 : (double)between(p, 1, 10);
    return r;
}

static void fly(struct world *w, int64_t began_ms, int64_t arrives_ms, bool ok)
{
    if (w->flying_count == ARRAY_LEN(w->flying))
        return;
    w->flying[w->flying_count].began_ms = began_ms;
    w->flying[w->flying_count].arrives_ms = arrives_ms;
    w->flying[w->flying_count++].ok = ok;
}

static void land(struct world *w)
{
    for (size_t i = 0; i < w->flying_count;) {
        if (w->flying[i].arrives_ms > w->now_ms) {
            i++;
            continue;
        }
        machine_sample(&w->m, w->now_ms, w->flying[i].began_ms, w->flying[i].ok);
        w->flying[i] = w->flying[--w->flying_count];
    }
}

static void chaos(struct world *w)
{
    for (int i = 0; i < 300; i++) {
        bool bad_times = i / 30 % 2;

        if (prng_u32(&w->rng) % 4 == 0)
            w->now_ms += between(&w->rng, 0, 20000);
        if (prng_u32(&w->rng) % 8 != 0)
            machine_tick(&w->m, w->now_ms);
        fly(w, w->now_ms - between(&w->rng, 0, 40000), w->now_ms + between(&w->rng, 0, 40000),
            prng_unit(&w->rng) < (bad_times ? 0.05 : 0.9));
        land(w);
    }
}

static bool admitted(struct world *w)
{
    return prng_unit(&w->rng) < machine_allow_rate(&w->m);
}

/* Clients ask every gap_ms or so; the upstream answers well within two seconds. */
static bool recovers(struct world *w, int64_t gap_ms, int64_t limit_ms)
{
    int64_t end_ms = w->now_ms + limit_ms;
    int64_t ask_ms = w->now_ms;
    int64_t closed_since_ms = -1;
    /* What chaos left in the window or in the air may trip it once more. */
    int64_t settled_ms = w->m.rule.metric.window_ms + 60000;

    while (w->now_ms < end_ms) {
        w->now_ms = w->m.next_eval_ms < ask_ms ? w->m.next_eval_ms : ask_ms;
        machine_tick(&w->m, w->now_ms);
        land(w);
        if (w->now_ms >= ask_ms) {
            ask_ms = w->now_ms + between(&w->rng, gap_ms / 2, gap_ms * 3 / 2);
            if (admitted(w))
                fly(w, w->now_ms, w->now_ms + between(&w->rng, 0, 2000), true);
        }
        if (w->m.state != MACHINE_CLOSED)
            closed_since_ms = -1;
        else if (closed_since_ms < 0)
            closed_since_ms = w->now_ms;
        else if (w->now_ms - closed_since_ms > settled_ms)
            return true;
    }
    return false;
}

static void a_healthy_upstream_that_is_asked_always_gets_its_breaker_closed(void **state)
{
    static const int64_t gaps_ms[] = { 20, 1000, 15000 };
    enum { SEEDS = 200 };

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        for (unsigned i = 0; i < 2 * 3 * ARRAY_LEN(gaps_ms); i++) {
            enum evaluator_kind kind = (enum evaluator_kind)(i % 2);
            enum machine_policy policy = (enum machine_policy)(i / 2 % 3);
            int64_t gap_ms = gaps_ms[i / 6];
            struct world w = { .now_ms = 1000000 };
            struct machine_rule rule;

            prng_seed_fixed(&w.rng, seed * 1000 + i);
            rule = random_rule(&w.rng, kind, policy);
            machine_init(&w.m, &rule, w.now_ms);
            chaos(&w);
            if (!recovers(&w, gap_ms, INT64_C(7) * 24 * 3600 * 1000))
                fail_msg("seed %llu, kind %d, policy %d, asked every %lld ms: stuck in %s (%s)",
                         (unsigned long long)seed, (int)kind, (int)policy, (long long)gap_ms,
                         machine_state_name(w.m.state), w.m.reason_text);
        }
    }
}

/* The same, with numbers: the default breaker, at a rate of 0.25, asked once a second. */
static void a_client_that_asks_once_a_second_recovers_within_seconds(void **state)
{
    int64_t worst_ms = 0;
    int64_t sum_ms = 0;
    enum { RUNS = 200 };

    (void)state;
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        struct machine_rule rule = run_rule();
        struct world w = { .now_ms = 0 };
        int64_t from_ms;

        prng_seed_fixed(&w.rng, seed);
        w.now_ms = half_open(&w.m, &rule);
        for (from_ms = w.now_ms; w.m.state != MACHINE_CLOSED; w.now_ms += 1000) {
            if (admitted(&w))
                machine_sample(&w.m, w.now_ms, w.now_ms, true);
            machine_tick(&w.m, w.now_ms + 500);
            machine_tick(&w.m, w.now_ms + 1000);
            if (w.now_ms - from_ms > 120000)
                fail_msg("seed %llu: still %s after 2 minutes", (unsigned long long)seed,
                         machine_state_name(w.m.state));
        }
        sum_ms += w.now_ms - from_ms;
        if (w.now_ms - from_ms > worst_ms)
            worst_ms = w.now_ms - from_ms;
    }
    if (sum_ms / RUNS > 10000 || worst_ms > 60000)
        fail_msg("recovery took %lld ms on average, %lld at worst", (long long)(sum_ms / RUNS),
                 (long long)worst_ms);
}

static void the_state_never_leaves_the_table_of_legal_moves(void **state)
{
    static const bool legal[3][3] = {
        [MACHINE_CLOSED] = { [MACHINE_OPEN] = true },
        [MACHINE_OPEN] = { [MACHINE_HALF_OPEN] = true },
        [MACHINE_HALF_OPEN] = { [MACHINE_OPEN] = true, [MACHINE_CLOSED] = true },
    };

    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct prng rng;
        struct machine_rule rule;
        struct machine m;
        int64_t now = 0;

        prng_seed_fixed(&rng, seed);
        rule = random_rule(&rng, (enum evaluator_kind)(seed % 2), (enum machine_policy)(seed % 3));
        machine_init(&m, &rule, now);
        for (int i = 0; i < 2000; i++) {
            enum machine_state before = m.state;
            double rate = machine_allow_rate(&m);
            enum machine_news news;

            now += between(&rng, 0, 700);
            news = prng_u32(&rng) % 2
                       ? machine_tick(&m, now)
                       : machine_sample(&m, now, now - between(&rng, 0, 3000), i / 100 % 2);
            if (news == MACHINE_MOVED &&
                (!legal[before][m.state] || m.from != before || m.reason_text[0] == '\0'))
                fail_msg("seed %llu: %s -> %s (%s)", (unsigned long long)seed,
                         machine_state_name(before), machine_state_name(m.state), m.reason_text);
            if (news != MACHINE_MOVED && m.state != before)
                fail_msg("seed %llu: moved without saying so", (unsigned long long)seed);
            if (news == MACHINE_SAME && machine_allow_rate(&m) != rate)
                fail_msg("seed %llu: another rate without saying so", (unsigned long long)seed);
            if (news == MACHINE_STEPPED && machine_allow_rate(&m) <= rate)
                fail_msg("seed %llu: the ratchet slipped from %g to %g", (unsigned long long)seed,
                         rate, machine_allow_rate(&m));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_failures_in_a_row_open_it_as_the_fifth_arrives),
        cmocka_unit_test(error_rate_opens_it_at_the_next_tick),
        cmocka_unit_test(too_few_samples_never_open_it),
        cmocka_unit_test(open_lasts_for_the_cooldown_and_ignores_samples),
        cmocka_unit_test(a_healthy_breaker_climbs_one_step_a_tick_and_then_closes),
        cmocka_unit_test(a_failing_probe_reopens_a_run_breaker_at_once),
        cmocka_unit_test(the_step_holds_while_a_new_run_is_below_the_threshold),
        cmocka_unit_test(every_failed_recovery_doubles_the_cooldown_up_to_the_cap),
        cmocka_unit_test(closing_forgets_the_failed_recoveries),
        cmocka_unit_test(samples_that_began_before_the_phase_do_not_count),
        cmocka_unit_test(failures_from_before_the_trip_do_not_open_a_breaker_that_has_recovered),
        cmocka_unit_test(nothing_moves_before_min_state_duration_is_over),
        cmocka_unit_test(the_indeterminate_policy_says_what_too_little_data_means),
        cmocka_unit_test(half_open_without_samples_ends_as_the_policy_says),
        cmocka_unit_test(rare_samples_of_a_half_open_phase_add_up_beyond_the_window),
        cmocka_unit_test(samples_add_up_over_phases_that_ended_for_lack_of_data),
        cmocka_unit_test(a_phase_after_failed_probes_starts_from_nothing),
        cmocka_unit_test(another_rule_keeps_the_state),
        cmocka_unit_test(a_healthy_upstream_that_is_asked_always_gets_its_breaker_closed),
        cmocka_unit_test(a_client_that_asks_once_a_second_recovers_within_seconds),
        cmocka_unit_test(the_state_never_leaves_the_table_of_legal_moves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
