#include "control/evaluator.h"

#include "base/base.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const char *verdict_name(enum evaluator_verdict v)
{
    static const char *const names[] = { "indeterminate", "healthy", "unhealthy" };

    return names[v];
}

static struct evaluator_rule rate_rule(void)
{
    return (struct evaluator_rule){
        .kind = EVALUATOR_ERROR_RATE,
        .op = EVALUATOR_GT,
        .threshold = 0.5,
        .window_ms = 3200, /* buckets of 100 ms */
        .min_count = 4,
    };
}

static void add_all(struct evaluator *e, int64_t now_ms, const char *samples)
{
    for (; *samples; samples++)
        evaluator_add(e, now_ms, *samples == '+');
}

static void error_rate_is_judged_by_op_and_threshold_once_there_are_min_count_samples(void **state)
{
    static const struct {
        const char *samples; /* '+' ok, '-' failed */
        enum evaluator_op op;
        double threshold;
        enum evaluator_verdict want;
    } cases[] = {
        { "", EVALUATOR_GT, 0.5, VERDICT_INDETERMINATE },
        { "---", EVALUATOR_GT, 0.5, VERDICT_INDETERMINATE }, /* one below min_count */
        { "---+", EVALUATOR_GT, 0.5, VERDICT_UNHEALTHY },
        { "--++", EVALUATOR_GT, 0.5, VERDICT_HEALTHY },
        { "--++", EVALUATOR_GTE, 0.5, VERDICT_UNHEALTHY },
        { "-+++", EVALUATOR_GTE, 0.5, VERDICT_HEALTHY },
        { "--++", EVALUATOR_LT, 0.5, VERDICT_HEALTHY },
        { "-+++", EVALUATOR_LT, 0.5, VERDICT_UNHEALTHY },
        { "--++", EVALUATOR_LTE, 0.5, VERDICT_UNHEALTHY },
        { "---+", EVALUATOR_LTE, 0.5, VERDICT_HEALTHY },
        { "++++", EVALUATOR_GT, 0.0, VERDICT_HEALTHY },
        { "----", EVALUATOR_GTE, 1.0, VERDICT_UNHEALTHY },
        { "----", EVALUATOR_GT, 1.0, VERDICT_HEALTHY },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct evaluator_rule rule = rate_rule();
        struct evaluator e;
        enum evaluator_verdict got;

        rule.op = cases[i].op;
        rule.threshold = cases[i].threshold;
        evaluator_init(&e, &rule);
        add_all(&e, 1000, cases[i].samples);
        got = evaluator_read(&e, 1000).verdict;
        if (got != cases[i].want)
            fail_msg("case %zu \"%s\": got %s, want %s", i, cases[i].samples, verdict_name(got),
                     verdict_name(cases[i].want));
    }
}

static void a_sample_leaves_the_window_up_to_one_bucket_early_and_never_late(void **state)
{
    static const struct {
        int64_t added_ms;
        int64_t read_ms;
        uint64_t want;
    } cases[] = {
        { 0, 0, 1 },      { 0, 3199, 1 },   { 0, 3200, 0 }, /* window_ms old */
        { 99, 3199, 1 }, /* the last ms of its bucket, 3100 ms old */
        { 99, 3200, 0 }, /* one bucket early: 3101 ms old */
        { 100, 3200, 1 }, { 100, 3299, 1 }, { 100, 3300, 0 }, { 0, 1000000, 0 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct evaluator_rule rule = rate_rule();
        struct evaluator e;
        struct evaluator_reading r;

        evaluator_init(&e, &rule);
        evaluator_add(&e, cases[i].added_ms, false);
        r = evaluator_read(&e, cases[i].read_ms);
        if (r.count != cases[i].want || r.failed != cases[i].want)
            fail_msg("added at %lld, read at %lld: %llu samples, want %llu",
                     (long long)cases[i].added_ms, (long long)cases[i].read_ms,
                     (unsigned long long)r.count, (unsigned long long)cases[i].want);
    }
}

static void buckets_agree_with_a_list_of_every_sample(void **state)
{
    static const int64_t windows[] = { 1, 7, 31, 32, 33, 1000, 3200, 60001 };
    enum { SAMPLES = 3000 };
    static int64_t at[SAMPLES];
    static bool ok[SAMPLES];

    (void)state;
    for (size_t w = 0; w < ARRAY_LEN(windows); w++) {
        struct evaluator_rule rule = rate_rule();
        struct evaluator e;
        uint32_t seed = 12345 + (uint32_t)w;
        int64_t now = 0;
        int64_t width = (windows[w] - 1) / EVALUATOR_BUCKETS + 1;

        rule.window_ms = windows[w];
        evaluator_init(&e, &rule);
        for (size_t i = 0; i < SAMPLES; i++) {
            struct evaluator_reading r;
            uint64_t count = 0;
            uint64_t failed = 0;

            seed = seed * 1664525u + 1013904223u;
            now += (int64_t)(seed >> 16) % (windows[w] / 8 + 2);
            at[i] = now;
            ok[i] = (seed >> 8) % 3 != 0;
            evaluator_add(&e, now, ok[i]);
            for (size_t k = 0; k <= i; k++) {
                if (at[k] / width > now / width - EVALUATOR_BUCKETS) {
                    count++;
                    failed += !ok[k];
                }
            }
            r = evaluator_read(&e, now);
            if (r.count != count || r.failed != failed)
                fail_msg("window %lld, sample %zu: %llu/%llu, want %llu/%llu",
                         (long long)windows[w], i, (unsigned long long)r.failed,
                         (unsigned long long)r.count, (unsigned long long)failed,
                         (unsigned long long)count);
        }
    }
}

static void time_that_runs_backwards_loses_no_sample(void **state)
{
    struct evaluator_rule rule = rate_rule();
    struct evaluator e;

    (void)state;
    evaluator_init(&e, &rule);
    add_all(&e, 5000, "--");
    add_all(&e, 100, "--");
    assert_int_equal(evaluator_read(&e, 5000).count, 4);
    assert_int_equal(evaluator_read(&e, -1).count, 4);
}

static void consecutive_failures_are_the_run_at_the_end(void **state)
{
    static const struct {
        const char *samples;
        double run;
        enum evaluator_verdict want;
    } cases[] = {
        { "", NAN, VERDICT_INDETERMINATE },
        { "+", 0, VERDICT_HEALTHY },
        { "----", 4, VERDICT_INDETERMINATE },
        { "-----", 5, VERDICT_UNHEALTHY },
        { "------", 6, VERDICT_UNHEALTHY },
        { "----+", 0, VERDICT_HEALTHY },
        { "----+----", 4, VERDICT_INDETERMINATE },
        { "-----+", 0, VERDICT_HEALTHY }, /* one success ends it */
        { "+-----", 5, VERDICT_UNHEALTHY },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct evaluator_rule rule = {
            .kind = EVALUATOR_CONSECUTIVE_FAILURES,
            .op = EVALUATOR_GTE,
            .threshold = 5,
            .window_ms = 1,    /* ignored */
            .min_count = 1000, /* ignored */
        };
        struct evaluator e;
        struct evaluator_reading r;

        evaluator_init(&e, &rule);
        for (size_t k = 0; cases[i].samples[k]; k++)
            evaluator_add(&e, (int64_t)k * 3600000, cases[i].samples[k] == '+');
        r = evaluator_read(&e, 3600000 * 100);
        if (r.verdict != cases[i].want)
            fail_msg("\"%s\": got %s, want %s", cases[i].samples, verdict_name(r.verdict),
                     verdict_name(cases[i].want));
        if (isnan(cases[i].run) ? !isnan(r.aggregate) : r.aggregate != cases[i].run)
            fail_msg("\"%s\": run %g, want %g", cases[i].samples, r.aggregate, cases[i].run);
    }
}

static void a_restart_forgets_the_samples_but_not_the_run(void **state)
{
    const struct evaluator_rule rule = {
        .kind = EVALUATOR_CONSECUTIVE_FAILURES,
        .op = EVALUATOR_GTE,
        .threshold = 5,
    };
    struct evaluator e;

    (void)state;
    evaluator_init(&e, &rule);
    add_all(&e, 0, "-----");
    evaluator_restart(&e);
    assert_int_equal(evaluator_read(&e, 0).verdict, VERDICT_INDETERMINATE);
    assert_int_equal(evaluator_read_all(&e).count, 0);
    add_all(&e, 0, "-");
    assert_true(evaluator_read(&e, 0).aggregate == 6);
    assert_int_equal(evaluator_read(&e, 0).verdict, VERDICT_UNHEALTHY);
}

static void everything_since_the_restart_is_judged_whatever_its_age(void **state)
{
    struct evaluator_rule rule = rate_rule();
    struct evaluator e;

    (void)state;
    evaluator_init(&e, &rule);
    for (int i = 0; i < 4; i++)
        evaluator_add(&e, (int64_t)i * 100000, false);
    assert_int_equal(evaluator_read(&e, 300000).verdict, VERDICT_INDETERMINATE);
    assert_int_equal(evaluator_read_all(&e).verdict, VERDICT_UNHEALTHY);
    assert_int_equal(evaluator_read_all(&e).count, 4);
}

static void no_samples_are_never_a_verdict(void **state)
{
    struct evaluator_rule rule = rate_rule();
    struct evaluator e;

    (void)state;
    rule.min_count = 0;
    rule.window_ms = 0;
    evaluator_init(&e, &rule);
    assert_int_equal(evaluator_read(&e, 10).verdict, VERDICT_INDETERMINATE);
    evaluator_add(&e, 10, true);
    assert_int_equal(evaluator_read(&e, 10).verdict, VERDICT_HEALTHY);
}

static void the_rule_is_described_with_its_numbers(void **state)
{
    static const struct {
        enum evaluator_kind kind;
        enum evaluator_op op;
        double threshold;
        const char *samples;
        const char *want;
    } cases[] = {
        { EVALUATOR_CONSECUTIVE_FAILURES, EVALUATOR_GTE, 5, "-----",
          "5 consecutive failures >= 5" },
        { EVALUATOR_CONSECUTIVE_FAILURES, EVALUATOR_GT, 0, "-", "1 consecutive failure > 0" },
        { EVALUATOR_ERROR_RATE, EVALUATOR_GT, 0.5, "--+",
          "error rate 0.6667 > 0.5 (2 of 3 samples)" },
        { EVALUATOR_ERROR_RATE, EVALUATOR_LTE, 0, "++", "error rate 0 <= 0 (0 of 2 samples)" },
        { EVALUATOR_ERROR_RATE, EVALUATOR_LT, 1, "+", "error rate 0 < 1 (0 of 1 samples)" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct evaluator_rule rule = {
            .kind = cases[i].kind,
            .op = cases[i].op,
            .threshold = cases[i].threshold,
            .window_ms = 1000,
        };
        struct evaluator e;
        struct evaluator_reading r;
        char text[EVALUATOR_TEXT_SIZE];

        evaluator_init(&e, &rule);
        add_all(&e, 0, cases[i].samples);
        r = evaluator_read(&e, 0);
        evaluator_describe(&rule, &r, text);
        assert_string_equal(text, cases[i].want);
    }
}

static void words_of_the_wire_are_parsed_and_others_refused(void **state)
{
    enum evaluator_kind kind = EVALUATOR_ERROR_RATE;
    enum evaluator_op op = EVALUATOR_GT;

    (void)state;
    assert_int_equal(evaluator_kind_parse("consecutive_failures", &kind), 0);
    assert_int_equal(kind, EVALUATOR_CONSECUTIVE_FAILURES);
    assert_int_equal(evaluator_kind_parse("error_rate", &kind), 0);
    assert_int_equal(kind, EVALUATOR_ERROR_RATE);
    assert_int_equal(evaluator_kind_parse("p95", &kind), -1);
    assert_int_equal(evaluator_kind_parse("", &kind), -1);
    assert_int_equal(evaluator_op_parse("lte", &op), 0);
    assert_int_equal(op, EVALUATOR_LTE);
    assert_int_equal(evaluator_op_parse("eq", &op), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_rate_is_judged_by_op_and_threshold_once_there_are_min_count_samples),
        cmocka_unit_test(a_sample_leaves_the_window_up_to_one_bucket_early_and_never_late),
        cmocka_unit_test(buckets_agree_with_a_list_of_every_sample),
        cmocka_unit_test(time_that_runs_backwards_loses_no_sample),
        cmocka_unit_test(consecutive_failures_are_the_run_at_the_end),
        cmocka_unit_test(a_restart_forgets_the_samples_but_not_the_run),
        cmocka_unit_test(everything_since_the_restart_is_judged_whatever_its_age),
        cmocka_unit_test(no_samples_are_never_a_verdict),
        cmocka_unit_test(the_rule_is_described_with_its_numbers),
        cmocka_unit_test(words_of_the_wire_are_parsed_and_others_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
