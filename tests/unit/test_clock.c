/* Times as they appear in logs and on the wire. */
#include "base/base.h"
#include "base/clock.h"
#include "base/prng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void rfc3339_writes_utc_with_microseconds(void **state)
{
    (void)state;
    static const struct {
        int64_t wall_us;
        const char *want;
    } cases[] = {
        { 0, "1970-01-01T00:00:00.000000Z" },
        { 1, "1970-01-01T00:00:00.000001Z" },
        { -1, "1969-12-31T23:59:59.999999Z" },
        { 1767323045678901, "2026-01-02T03:04:05.678901Z" },
        { 951782399999999, "2000-02-28T23:59:59.999999Z" },
        { 951782400000000, "2000-02-29T00:00:00.000000Z" }, /* divisible by 400: a leap year */
        { 951868800000000, "2000-03-01T00:00:00.000000Z" },
        { 4107542400000000, "2100-03-01T00:00:00.000000Z" }, /* by 100 only: none */
        { 4107542399000000, "2100-02-28T23:59:59.000000Z" },
        { 253402300799999999, "9999-12-31T23:59:59.999999Z" },
        { 253402300800000000, "9999-12-31T23:59:59.999999Z" }, /* four digits: pinned */
        { INT64_MAX, "9999-12-31T23:59:59.999999Z" },
        { -62167219200000000, "0000-01-01T00:00:00.000000Z" },
        { -62167219200000001, "0000-01-01T00:00:00.000000Z" },
        { INT64_MIN, "0000-01-01T00:00:00.000000Z" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char got[CLOCK_RFC3339_SIZE];
        clock_rfc3339(cases[i].wall_us, got);
        if (strcmp(got, cases[i].want) != 0)
            fail_msg("%lld us: got %s, want %s", (long long)cases[i].wall_us, got, cases[i].want);
    }
}

static void rfc3339_agrees_with_the_c_library_on_any_second(void **state)
{
    (void)state;
    struct prng p;
    prng_seed_fixed(&p, 3339);

    for (int i = 0; i < 20000; i++) {
        time_t seconds = (time_t)(prng_u64(&p) % 315569520000) - 62167219200; /* years 0-9999 */
        struct tm tm;
        char got[CLOCK_RFC3339_SIZE];
        char want[64];
        gmtime_r(&seconds, &tm);
        snprintf(want, sizeof(want), "%04d-%02d-%02dT%02d:%02d:%02d.000000Z", tm.tm_year + 1900,
                 tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
        clock_rfc3339((int64_t)seconds * 1000000, got);
        if (strcmp(got, want) != 0)
            fail_msg("second %lld: got %s, want %s", (long long)seconds, got, want);
    }
}

static void the_units_of_each_clock_agree(void **state)
{
    (void)state;
    int64_t mono_before_us = clock_mono_us();
    int64_t mono_ms = clock_mono_ms();
    int64_t mono_after_us = clock_mono_us();

    assert_true(mono_before_us / 1000 <= mono_ms);
    assert_true(mono_ms <= mono_after_us / 1000);

    int64_t wall_ms = clock_wall_ms();
    int64_t wall_us = clock_wall_us();
    if (wall_us / 1000 - wall_ms > 60000 || wall_us / 1000 < wall_ms)
        fail_msg("wall clock: %lld ms but %lld us", (long long)wall_ms, (long long)wall_us);
    int64_t library_s = (int64_t)time(NULL);
    if (library_s - wall_ms / 1000 > 60 || library_s < wall_ms / 1000 - 1)
        fail_msg("wall clock: %lld ms but time() is %lld s", (long long)wall_ms,
                 (long long)library_s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc3339_writes_utc_with_microseconds),
        cmocka_unit_test(rfc3339_agrees_with_the_c_library_on_any_second),
        cmocka_unit_test(the_units_of_each_clock_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
