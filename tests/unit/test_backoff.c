#include "base/base.h"
#include "base/prng.h"
#include "sync/backoff.h"
#include "sync/http_date.h"
#include "sync/quiet.h"
#include "sync/rhythm.h"
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define ALMOST_ONE 0.999999999

static void stream_delays_grow_from_half_a_second_to_thirty(void **state)
{
    (void)state;
    static const struct {
        int64_t low, high;
    } want[] = { { 500, 1000 },  { 500, 2000 },  { 500, 4000 },  { 500, 8000 },
                 { 500, 16000 }, { 500, 30000 }, { 500, 30000 }, { 500, 30000 } };
    struct backoff low = { 0 };
    struct backoff high = { 0 };
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        backoff_ended(&low, 0, false);
        backoff_ended(&high, 0, false);
        int64_t a = backoff_next_ms(&low, 0);
        int64_t b = backoff_next_ms(&high, ALMOST_ONE);
        if (a != want[i].low || b < want[i].high - 1 || b > want[i].high)
            fail_msg("try %zu: between %" PRId64 " and %" PRId64, i + 1, a, b);
    }
}

static void what_the_connection_did_decides_the_next_delay(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        unsigned level;
        int64_t delay_ms, stood_ms;
        bool delivered;
        unsigned want;
    } cases[] = {
        { "first failure", 0, 0, 0, false, 0 },
        { "second failure", 0, 700, 0, false, 1 },
        { "at the top", 5, 20000, 0, false, 5 },
        { "stood as long as the delay", 4, 9000, 9000, false, 0 },
        { "stood a little less", 4, 9000, 8999, false, 5 },
        { "stood a little less, said something", 4, 9000, 8999, true, 1 },
        { "a short delay needs a second", 3, 500, 999, false, 4 },
        { "a second is enough for a short one", 3, 500, 1000, false, 0 },
        { "the first connection, cut at once", 0, 0, 10, true, 1 },
        { "stood long", 5, 30000, 3600000, true, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct backoff b = { cases[i].level, cases[i].delay_ms };
        backoff_ended(&b, cases[i].stood_ms, cases[i].delivered);
        if (b.level != cases[i].want)
            fail_msg("%s: level %u, want %u", cases[i].what, b.level, cases[i].want);
    }
}

static void a_server_that_closes_after_every_snapshot_is_asked_below_60_times_a_minute(void **state)
{
    (void)state;
    struct prng rng;
    prng_seed_fixed(&rng, 1);
    struct backoff b = { 0 };
    int64_t total = 0;
    for (int i = 0; i < 1000; i++) {
        backoff_ended(&b, 20, true);
        total += backoff_next_ms(&b, prng_unit(&rng)) + 20;
    }
    int64_t per_minute = 1000 * INT64_C(60000) / total;
    if (per_minute >= 60 || per_minute < 40)
        fail_msg("%" PRId64 " connections a minute", per_minute);
}

static void a_thousand_proxies_spread_over_more_than_ten_seconds(void **state)
{
    (void)state;
    struct prng rng;
    prng_seed_fixed(&rng, 7);
    unsigned histogram[30] = { 0 };
    for (int i = 0; i < 1000; i++) {
        struct backoff b = { .level = 5, .delay_ms = 1 };
        histogram[backoff_next_ms(&b, prng_unit(&rng)) / 1000]++;
    }
    for (size_t s = 1; s < 29; s++) {
        if (histogram[s] < 10 || histogram[s] > 70) /* 34 expected */
            fail_msg("%u of 1000 come back in second %zu", histogram[s], s);
    }
}

static void a_refused_key_rests_half_a_minute(void **state)
{
    (void)state;
    assert_int_equal(backoff_rest_ms(0), 30000);
    assert_in_range(backoff_rest_ms(ALMOST_ONE), 44990, 45000);
}

static void ingest_delays_are_the_sdks_and_then_double(void **state)
{
    (void)state;
    static const struct {
        unsigned n;
        int64_t low, high;
    } cases[] = {
        { 1, 100, 100 },
        { 2, 400, 400 },
        { 3, 1000, 1000 },
        { 4, 1000, 2000 },
        { 5, 2000, 4000 },
        { 6, 4000, 8000 },
        { 7, 8000, 16000 },
        { 8, 15000, 30000 },
        { 9, 15000, 30000 },
        { 100, 15000, 30000 },
        { 4000000000u, 15000, 30000 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t low = backoff_ingest_ms(cases[i].n, 0);
        int64_t high = backoff_ingest_ms(cases[i].n, ALMOST_ONE);
        if (low != cases[i].low || high > cases[i].high || high < cases[i].high - 1)
            fail_msg("failure %u: between %" PRId64 " and %" PRId64, cases[i].n, low, high);
    }
}

/* ---- Retry-After and Date ---- */

static void retry_after_is_seconds_or_a_date(void **state)
{
    (void)state;
    const int64_t wall = INT64_C(784111777) * 1000; /* Sun, 06 Nov 1994 08:49:37 GMT */
    static const struct {
        const char *text;
        int64_t want;
    } cases[] = {
        { "0", 0 },
        { "1", 1000 },
        { "120", 120000 },
        { "3600", 3600000 },
        { "3601", 3600000 }, /* an hour is the longest we wait */
        { "99999999999999999999999", 3600000 },
        { "Sun, 06 Nov 1994 08:49:47 GMT", 10000 },
        { "Sunday, 06-Nov-94 08:49:47 GMT", 10000 },
        { "Sun Nov  6 08:49:47 1994", 10000 },
        { "Sun, 06 Nov 1994 08:49:37 GMT", 0 },
        { "Sun, 06 Nov 1994 08:49:27 GMT", 0 }, /* passed */
        { "Sun, 06 Nov 1994 20:49:37 GMT", 3600000 },
        { "Sun, 06 Nov 1994 08:49:47 CET", -1 },
        { "Sun, 06 Nov 1994 08:49:47 GMT x", -1 },
        { "-1", -1 },
        { "1.5", -1 },
        { " 1", -1 },
        { "soon", -1 },
        { "", -1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int64_t got = retry_after_ms(cases[i].text, wall);
        if (got != cases[i].want)
            fail_msg("\"%s\": got %" PRId64 ", want %" PRId64, cases[i].text, got, cases[i].want);
    }
}

/* ---- stalls ---- */

struct beat {
    char kind; /* 'c' comment, 'e' event without news, 'a' any byte */
    int64_t at_ms;
};

static void a_stall_is_three_times_the_longest_gap_of_a_rhythm(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct beat beats[10];
        int64_t want; /* deadline; -1: none */
    } cases[] = {
        { "silence from the start", { { 0, 0 } }, -1 },
        { "two beats are no rhythm", { { 'c', 1000 }, { 'c', 11000 } }, -1 },
        { "three at ten seconds", { { 'c', 1000 }, { 'c', 11000 }, { 'c', 21000 } }, 51000 },
        { "five seconds: the floor", { { 'c', 0 }, { 'c', 5000 }, { 'c', 10000 } }, 25000 },
        { "four minutes: the ceiling", { { 'c', 0 }, { 'c', 240000 }, { 'c', 480000 } }, 780000 },
        { "the longest gap counts",
          { { 'c', 0 }, { 'c', 10000 }, { 'c', 20000 }, { 'c', 34000 }, { 'c', 44000 } },
          86000 },
        { "gaps half as long again repeat", { { 'c', 0 }, { 'c', 10000 }, { 'c', 25000 } }, 70000 },
        { "longer ones do not", { { 'c', 0 }, { 'c', 10000 }, { 'c', 25001 } }, -1 },
        { "later it does", { { 'c', 0 }, { 'c', 10000 }, { 'c', 40000 }, { 'c', 70000 } }, 160000 },
        { "a burst is one beat",
          { { 'e', 0 }, { 'e', 1 }, { 'e', 2 }, { 'e', 900 }, { 'e', 999 } },
          -1 },
        { "events without news beat too", { { 'e', 0 }, { 'e', 10000 }, { 'e', 20000 } }, 50000 },
        { "kinds do not mix", { { 'c', 0 }, { 'e', 10000 }, { 'c', 20000 }, { 'e', 30000 } }, -1 },
        { "events between comments do not disturb",
          { { 'c', 0 }, { 'e', 1 }, { 'c', 10000 }, { 'e', 13000 }, { 'c', 20000 } },
          50000 },
        { "any byte is a sign of life",
          { { 'c', 0 }, { 'c', 10000 }, { 'c', 20000 }, { 'a', 27000 } },
          57000 },
        { "bytes alone are no rhythm",
          { { 'a', 1 }, { 'a', 10000 }, { 'a', 20000 }, { 'a', 30000 } },
          -1 },
        { "heartbeats faster than a second",
          { { 'c', 0 }, { 'c', 600 }, { 'c', 1200 }, { 'c', 1800 }, { 'c', 2400 } },
          17400 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct rhythm r;
        rhythm_start(&r, 0);
        for (const struct beat *b = cases[i].beats; b->kind; b++) {
            if (b->kind == 'a')
                rhythm_alive(&r, b->at_ms);
            else
                rhythm_beat(&r, b->kind == 'c' ? RHYTHM_COMMENT : RHYTHM_EVENT, b->at_ms);
        }
        int64_t want = cases[i].want < 0 ? INT64_MAX : cases[i].want;
        int64_t got = rhythm_deadline_ms(&r);
        if (got != want)
            fail_msg("%s: got %" PRId64 ", want %" PRId64, cases[i].what, got, want);
    }
}

/* ---- log lines ---- */

static void a_day_of_trouble_is_at_most_1500_lines(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        int64_t error_every_ms, line_every_ms;
    } cases[] = {
        { "stream and posts fail twice a minute", 15000, 86400000 },
        { "failing all the time", 100, 86400000 },
        { "connecting and losing it, and posts fail", 5000, 700 },
        { "connecting and losing it", 86400000, 700 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct quiet q = { 0 };
        uint64_t lines = 0, told = 0, swallowed = 0, suppressed;
        for (int64_t now = 0; now < 86400000; now += 100) {
            bool error = now % cases[i].error_every_ms == 0;
            bool line = now % cases[i].line_every_ms == 0;
            for (int kind = 0; kind < 2; kind++) {
                if (!(kind ? line : error))
                    continue;
                bool pass =
                    kind ? quiet_line(&q, now, &suppressed) : quiet_error(&q, now, &suppressed);
                lines += pass;
                swallowed += !pass;
                told += pass ? suppressed : 0;
            }
        }
        if (lines > 1500 || lines < 1400)
            fail_msg("%s: %" PRIu64 " lines", cases[i].what, lines);
        assert_int_equal(told + q.suppressed, swallowed); /* what is swallowed is told */
    }
}

static void the_first_lines_of_a_trouble_pass_at_once(void **state)
{
    (void)state;
    struct quiet q = { 0 };
    uint64_t suppressed;
    assert_true(quiet_line(&q, 1000, &suppressed));  /* connected */
    assert_true(quiet_line(&q, 2000, &suppressed));  /* lost */
    assert_true(quiet_error(&q, 2100, &suppressed)); /* cannot reconnect */
    assert_false(quiet_error(&q, 2200, &suppressed));
    assert_false(quiet_error(&q, 62099, &suppressed));
    assert_true(quiet_error(&q, 62100, &suppressed));
    assert_int_equal(suppressed, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_delays_grow_from_half_a_second_to_thirty),
        cmocka_unit_test(what_the_connection_did_decides_the_next_delay),
        cmocka_unit_test(
            a_server_that_closes_after_every_snapshot_is_asked_below_60_times_a_minute),
        cmocka_unit_test(a_thousand_proxies_spread_over_more_than_ten_seconds),
        cmocka_unit_test(a_refused_key_rests_half_a_minute),
        cmocka_unit_test(ingest_delays_are_the_sdks_and_then_double),
        cmocka_unit_test(retry_after_is_seconds_or_a_date),
        cmocka_unit_test(a_stall_is_three_times_the_longest_gap_of_a_rhythm),
        cmocka_unit_test(a_day_of_trouble_is_at_most_1500_lines),
        cmocka_unit_test(the_first_lines_of_a_trouble_pass_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
