/* When states are polled, and when the control plane is asked again: with time and draws given. */
#include "base/base.h"
#include "sync/backoff.h"
#include "sync/source.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define START    1000
#define INTERVAL 30000

static struct source made(enum state_source wanted)
{
    struct source s = { 0 };
    source_configure(&s, &(struct source_options){ wanted, INTERVAL }, true, START);
    return s;
}

static void the_wanted_source_decides_what_happens_at_first(void **state)
{
    (void)state;
    static const struct {
        enum state_source wanted;
        bool polling;
        int64_t poll_ms;
    } cases[] = {
        { SOURCE_STREAM, false, INT64_MAX },
        { SOURCE_POLL, true, START },
        { SOURCE_AUTO, false, INT64_MAX },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct source s = made(cases[i].wanted);
        if (s.polling != cases[i].polling || source_poll_ms(&s) != cases[i].poll_ms ||
            source_look_ms(&s) != INT64_MAX)
            fail_msg("source %d: polling %d, next %lld", (int)cases[i].wanted, s.polling,
                     (long long)source_poll_ms(&s));
    }
    struct source none = { 0 };
    source_look(&none, SOURCE_STREAM_GONE, 100, INT64_MAX - 1, 0);
    assert_false(source_poll_due(&none, INT64_MAX - 1));
}

static void auto_falls_back_after_three_failed_opens_and_a_minute(void **state)
{
    (void)state;
    static const struct {
        enum state_source wanted;
        unsigned failed_opens;
        int64_t after_ms; /* without the stream */
        bool polling;
    } cases[] = {
        { SOURCE_AUTO, 3, 60000, true },    { SOURCE_AUTO, 3, 59999, false },
        { SOURCE_AUTO, 2, 60000, false },   { SOURCE_AUTO, 2, 600000, false },
        { SOURCE_AUTO, 100, 59999, false }, { SOURCE_AUTO, 4, 61000, true },
        { SOURCE_STREAM, 3, 60000, false }, { SOURCE_STREAM, 100, 600000, false },
        { SOURCE_POLL, 0, 0, true },
    };
    for (int was_up = 0; was_up < 2; was_up++) {
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            struct source s = made(cases[i].wanted);
            int64_t since = START;
            if (was_up && cases[i].wanted != SOURCE_POLL) { /* the minute starts at its loss */
                source_look(&s, SOURCE_STREAM_DELIVERS, 0, START + 5, 0);
                since = START + 500000;
                source_look(&s, SOURCE_STREAM_GONE, 0, since, 0);
            }
            source_look(&s, SOURCE_STREAM_GONE, cases[i].failed_opens, since + cases[i].after_ms,
                        0);
            if (s.polling != cases[i].polling)
                fail_msg("source %d, %u failed, %lld ms, was up %d: polling %d",
                         (int)cases[i].wanted, cases[i].failed_opens, (long long)cases[i].after_ms,
                         was_up, s.polling);
        }
    }
}

static void auto_falls_back_after_a_minute_with_a_mute_stream(void **state)
{
    (void)state;
    struct source s = made(SOURCE_AUTO);
    source_look(&s, SOURCE_STREAM_MUTE, 0, START + 5, 0);
    assert_int_equal(source_look_ms(&s), START + 60000);
    source_look(&s, SOURCE_STREAM_MUTE, 0, START + 59999, 0);
    assert_false(s.polling);
    source_look(&s, SOURCE_STREAM_GONE, 2, START + 60000, 0); /* perhaps the next one speaks */
    assert_false(s.polling);
    source_look(&s, SOURCE_STREAM_MUTE, 2, START + 60001, 0);
    assert_true(s.polling);
    struct source only = made(SOURCE_STREAM);
    source_look(&only, SOURCE_STREAM_MUTE, 0, START + 600000, 0);
    assert_false(only.polling);
}

static void it_says_when_to_look_again(void **state)
{
    (void)state;
    struct source s = made(SOURCE_AUTO);
    source_look(&s, SOURCE_STREAM_GONE, 2, START + 100, 0);
    assert_int_equal(source_look_ms(&s), INT64_MAX); /* another failed open is news of the stream */
    source_look(&s, SOURCE_STREAM_GONE, 3, START + 200, 0);
    assert_int_equal(source_look_ms(&s), START + 60000);
    source_look(&s, SOURCE_STREAM_GONE, 3, START + 60000, 0.5);
    assert_true(s.polling);
    assert_int_equal(source_look_ms(&s), INT64_MAX);
    /* the first poll comes within a tenth of the interval */
    assert_int_equal(source_poll_ms(&s), START + 60000 + INTERVAL / 20);
}

static void polling_ends_as_soon_as_the_stream_delivers(void **state)
{
    (void)state;
    struct source s = made(SOURCE_AUTO);
    source_look(&s, SOURCE_STREAM_GONE, 3, START + 60000, 0);
    assert_true(source_poll_due(&s, START + 60000));
    source_poll_begun(&s);
    assert_false(source_poll_due(&s, START + 90000)); /* one at a time */
    source_look(&s, SOURCE_STREAM_DELIVERS, 0, START + 70000, 0);
    assert_false(s.polling);
    assert_false(source_poll_due(&s, INT64_MAX - 1));
    /* and a minute counts anew from the next loss */
    source_look(&s, SOURCE_STREAM_GONE, 0, START + 80000, 0);
    source_look(&s, SOURCE_STREAM_GONE, 3, START + 139999, 0);
    assert_false(s.polling);
    source_look(&s, SOURCE_STREAM_GONE, 3, START + 140000, 0);
    assert_true(s.polling);
}

static void polls_follow_each_other_at_the_interval_give_or_take_a_tenth(void **state)
{
    (void)state;
    static const struct {
        double draw;
        int64_t want_ms;
    } cases[] = { { 0, 27000 }, { 0.5, 30000 }, { 0.999999, 32999 } };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct source s = made(SOURCE_POLL);
        source_poll_begun(&s);
        source_poll_ended(&s, ASK_OK, -1, START + 50, cases[i].draw);
        if (source_poll_ms(&s) != START + 50 + cases[i].want_ms)
            fail_msg("draw %f: %lld", cases[i].draw, (long long)source_poll_ms(&s) - START - 50);
    }
}

static void a_hurried_poll_comes_a_second_after_the_last_unless_that_failed(void **state)
{
    (void)state;
    static const struct {
        enum ask_result r;
        double draw;
        int64_t want_ms; /* after the last one ended */
    } cases[] = {
        { ASK_OK, 0.5, SOURCE_HURRIED_MS },
        { ASK_HTTP, 1, 100 },
        { ASK_AUTH, 0, BACKOFF_REST_MS },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct source s = made(SOURCE_POLL);
        source_hurry(&s); /* the first is not earlier than at once */
        assert_int_equal(source_poll_ms(&s), START);
        source_poll_begun(&s);
        source_hurry(&s);
        assert_int_equal(source_poll_ms(&s), INT64_MAX);
        source_poll_ended(&s, cases[i].r, -1, START + 50, cases[i].draw);
        source_hurry(&s);
        source_hurry(&s);
        if (source_poll_ms(&s) != START + 50 + cases[i].want_ms)
            fail_msg("case %zu: %lld", i, (long long)source_poll_ms(&s) - START - 50);
    }
    struct source s = made(SOURCE_AUTO); /* a fleet that lost its stream does not ask in step */
    source_look(&s, SOURCE_STREAM_GONE, 3, START + 60000, 0.5);
    source_hurry(&s);
    assert_int_equal(source_poll_ms(&s), START + 60000 + INTERVAL / 20);
}

static void failures_back_off_and_retry_after_is_honoured(void **state)
{
    (void)state;
    static const struct {
        enum ask_result r;
        unsigned before; /* failures */
        int64_t asked_ms;
        double draw;
        int64_t want_ms;
    } cases[] = {
        { ASK_NETWORK, 0, -1, 0.5, 100 },
        { ASK_HTTP, 1, -1, 0.5, 400 },
        { ASK_INVALID, 2, -1, 0.5, 1000 },
        { ASK_HTTP, 3, -1, 0, 1000 },
        { ASK_HTTP, 3, -1, 1, 2000 },
        { ASK_HTTP, 50, -1, 1, 30000 },
        { ASK_AUTH, 0, -1, 0, BACKOFF_REST_MS },
        { ASK_AUTH, 9, -1, 1, BACKOFF_REST_MS * 3 / 2 },
        { ASK_HTTP, 0, 7000, 0.5, 7000 },
        { ASK_HTTP, 0, 50, 0.5, 100 }, /* never sooner than our own delay */
        { ASK_HTTP, 0, SCHEDULE_ASKED_MAX_MS, 0.5, SCHEDULE_ASKED_MAX_MS },
        { ASK_HTTP, 0, SCHEDULE_ASKED_MAX_MS + 1, 0.5, SCHEDULE_ASKED_MAX_MS },
        { ASK_SAME, 5, -1, 0.5, INTERVAL },
        { ASK_OK, 5, -1, 0.5, INTERVAL },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct schedule s = { .failures = cases[i].before };
        schedule_after(&s, cases[i].r, INTERVAL, cases[i].asked_ms, START, cases[i].draw);
        bool ok = cases[i].r == ASK_OK || cases[i].r == ASK_SAME;
        if (s.at_ms - START != cases[i].want_ms || s.failures != (ok ? 0 : cases[i].before + 1))
            fail_msg("case %zu: %lld ms, %u failures", i, (long long)s.at_ms - START, s.failures);
    }
}

static void a_reload_keeps_what_goes_on_and_applies_the_rest(void **state)
{
    (void)state;
    struct source s = made(SOURCE_POLL);
    source_poll_begun(&s);
    source_poll_ended(&s, ASK_OK, -1, START, 0.5);
    source_configure(&s, &(struct source_options){ SOURCE_POLL, INTERVAL }, true, START + 10);
    assert_int_equal(source_poll_ms(&s), START + INTERVAL);
    source_configure(&s, &(struct source_options){ SOURCE_POLL, 2000 }, true, START + 20);
    assert_int_equal(source_poll_ms(&s), START + 2020); /* shorter holds at once */
    source_configure(&s, &(struct source_options){ SOURCE_POLL, 60000 }, true, START + 30);
    assert_int_equal(source_poll_ms(&s), START + 2020);
    source_poll_ended(&s, ASK_HTTP, 120000, START + 2020, 0.5);
    source_configure(&s, &(struct source_options){ SOURCE_POLL, 60000 }, false, START + 2025);
    assert_int_equal(source_poll_ms(&s), START + 122020); /* nobody has mended anything */
    source_configure(&s, &(struct source_options){ SOURCE_POLL, 60000 }, true, START + 2030);
    assert_int_equal(source_poll_ms(&s), START + 2030); /* a new key, perhaps */
    source_configure(&s, &(struct source_options){ SOURCE_STREAM, 60000 }, true, START + 40);
    assert_false(s.polling);

    s = made(SOURCE_AUTO);
    source_look(&s, SOURCE_STREAM_GONE, 3, START + 60000, 0);
    source_configure(&s, &(struct source_options){ SOURCE_AUTO, INTERVAL }, true, START + 60001);
    assert_true(s.polling);
    source_configure(&s, &(struct source_options){ SOURCE_POLL, INTERVAL }, true, START + 60002);
    assert_true(s.polling);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_wanted_source_decides_what_happens_at_first),
        cmocka_unit_test(auto_falls_back_after_three_failed_opens_and_a_minute),
        cmocka_unit_test(auto_falls_back_after_a_minute_with_a_mute_stream),
        cmocka_unit_test(it_says_when_to_look_again),
        cmocka_unit_test(polling_ends_as_soon_as_the_stream_delivers),
        cmocka_unit_test(polls_follow_each_other_at_the_interval_give_or_take_a_tenth),
        cmocka_unit_test(a_hurried_poll_comes_a_second_after_the_last_unless_that_failed),
        cmocka_unit_test(failures_back_off_and_retry_after_is_honoured),
        cmocka_unit_test(a_reload_keeps_what_goes_on_and_applies_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
