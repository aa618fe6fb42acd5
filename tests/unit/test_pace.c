/* limits.min_body_rate: what a body brings in ten seconds that count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants these before it */
#include "base/base.h"
#include "proxy/pace.h"
#include <cmocka.h>
#include <string.h>

/* One letter per second: digits bring so many bytes, h is held up, and H too but brings 9. */
static int cut_at(const char *seconds, int64_t rate)
{
    struct pace p = { 0 };
    uint64_t total = 0;
    for (int i = 0; seconds[i]; i++) {
        bool held_up = seconds[i] == 'h' || seconds[i] == 'H';
        total += held_up ? (seconds[i] == 'H' ? 9 : 0) : (uint64_t)(seconds[i] - '0');
        if (pace_too_slow(&p, total, held_up, rate))
            return i + 1;
    }
    return 0;
}

static void a_body_is_cut_when_ten_seconds_bring_less_than_the_rate(void **state)
{
    (void)state;
    static const struct {
        const char *seconds;
        int64_t rate;
        int want; /* second; 0: never */
    } cases[] = {
        { "000000000", 1, 0 },
        { "0000000000", 1, 10 },
        { "1111111111", 1, 0 },
        { "1111111110", 1, 10 },
        { "0000000009", 1, 10 },
        { "9100000000", 1, 0 }, /* the average counts */
        { "0000000091", 1, 0 },
        { "11111111111111111110", 1, 20 }, /* the next ten are judged by themselves */
        { "99999999990000000000", 1, 20 },
        { "22222222222222222222", 2, 0 },
        { "22222222221222222222", 2, 20 },
        { "hhhhhhhhhhhhhhhhhhhhhhhhhhhhhh", 1, 0 }, /* the other side is to blame */
        { "00000h00000", 1, 11 },
        { "000000000hhhhhhhhhhhh0", 1, 22 },
        { "000000000HHHHHHHHHHHH0", 1, 0 }, /* what came meanwhile counts in its favour */
        { "0000000000", INT64_C(1) << 30, 10 },
        { "9999999999", INT64_C(1) << 30, 10 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int got = cut_at(cases[i].seconds, cases[i].rate);
        if (got != cases[i].want)
            fail_msg("\"%s\" at %lld: cut at %d, want %d", cases[i].seconds,
                     (long long)cases[i].rate, got, cases[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_is_cut_when_ten_seconds_bring_less_than_the_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
