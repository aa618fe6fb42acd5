/* Random draws: the generator is the published one and its edges stay in range. */
#include "base/base.h"
#include "base/prng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void xoshiro_gives_its_published_sequence(void **state)
{
    (void)state;
    struct prng p = { { 1, 2, 3, 4 } };
    static const uint64_t want[] = {
        /* the reference code's output from this state */
        UINT64_C(11520),
        UINT64_C(0),
        UINT64_C(1509978240),
        UINT64_C(1215971899390074240),
        UINT64_C(1216172134540287360),
        UINT64_C(607988272756665600),
        UINT64_C(16172922978634559625),
        UINT64_C(8476171486693032832),
    };

    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        uint64_t got = prng_u64(&p);
        if (got != want[i])
            fail_msg("draw %zu: got %llu, want %llu", i, (unsigned long long)got,
                     (unsigned long long)want[i]);
    }
}

static void a_fixed_seed_fills_the_state_by_splitmix64(void **state)
{
    (void)state;
    struct prng p;
    static const uint64_t want[4] = {
        /* the reference code's output from seed 0 */
        UINT64_C(0xe220a8397b1dcdaf),
        UINT64_C(0x6e789e6aa1b965f4),
        UINT64_C(0x06c45d188009454f),
        UINT64_C(0xf88bb8a8724c81ec),
    };

    prng_seed_fixed(&p, 0);
    assert_memory_equal(p.s, want, sizeof(want));
}

/* The first output depends on s[1] alone: result = rotl(s[1] * 5, 7) * 9. */
static struct prng about_to_draw(uint64_t result)
{
    const uint64_t inverse_of_5 = UINT64_C(0xcccccccccccccccd);
    const uint64_t inverse_of_9 = UINT64_C(0x8e38e38e38e38e39);
    uint64_t x = result * inverse_of_9;
    struct prng p = { { 1, ((x >> 7) | (x << 57)) * inverse_of_5, 3, 4 } };

    return p;
}

static void unit_draws_stay_below_one(void **state)
{
    (void)state;
    static const struct {
        uint64_t draw;
        double want;
    } cases[] = {
        { 0, 0.0 },
        { (UINT64_C(1) << 11) - 1, 0.0 },
        { UINT64_C(1) << 11, 0x1p-53 },
        { UINT64_C(1) << 63, 0.5 },
        { UINT64_MAX, 1.0 - 0x1p-53 }, /* the largest: still not 1 */
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct prng p = about_to_draw(cases[i].draw);
        struct prng same = p;
        if (prng_u64(&same) != cases[i].draw)
            fail_msg("draw %llx: the test's own state is wrong", (unsigned long long)cases[i].draw);
        double got = prng_unit(&p);
        if (got != cases[i].want)
            fail_msg("draw %llx: got %.17g, want %.17g", (unsigned long long)cases[i].draw, got,
                     cases[i].want);
    }
}

static void a_32_bit_draw_takes_the_upper_half(void **state)
{
    (void)state;
    struct prng p = about_to_draw(UINT64_C(0x0123456789abcdef));

    assert_int_equal(prng_u32(&p), 0x01234567);
}

static void unit_draws_fill_ten_bins_evenly(void **state)
{
    (void)state;
    enum { DRAWS = 100000, BINS = 10 };
    unsigned hits[BINS] = { 0 };
    struct prng p;
    prng_seed_fixed(&p, 42);

    for (int i = 0; i < DRAWS; i++)
        hits[(int)(prng_unit(&p) * BINS)]++;
    for (int i = 0; i < BINS; i++)
        if (hits[i] < 9500 || hits[i] > 10500) /* five standard deviations */
            fail_msg("bin %d has %u of %d draws", i, hits[i], DRAWS);
}

static void seeds_from_the_kernel_differ(void **state)
{
    (void)state;
    struct prng a;
    struct prng b;

    prng_seed(&a);
    prng_seed(&b);
    assert_memory_not_equal(a.s, b.s, sizeof(a.s));
}

static void random_bytes_fills_exactly_what_is_asked(void **state)
{
    (void)state;
    static const size_t lengths[] = { 0, 1, 16, 256, 257, 4096 }; /* 256: one kernel answer */

    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        size_t len = lengths[i];
        unsigned char buf[4096 + 1];
        bool changed = false;
        memset(buf, 0xa5, sizeof(buf));
        for (int round = 0; round < 8; round++) { /* the last byte keeps its value 1 in 256 times */
            random_bytes(buf, len);
            changed = changed || (len > 0 && buf[len - 1] != 0xa5);
        }
        if (len > 0 && !changed)
            fail_msg("%zu bytes: the last one was never written", len);
        if (buf[len] != 0xa5)
            fail_msg("%zu bytes: one more was written", len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xoshiro_gives_its_published_sequence),
        cmocka_unit_test(a_fixed_seed_fills_the_state_by_splitmix64),
        cmocka_unit_test(unit_draws_stay_below_one),
        cmocka_unit_test(a_32_bit_draw_takes_the_upper_half),
        cmocka_unit_test(unit_draws_fill_ten_bins_evenly),
        cmocka_unit_test(seeds_from_the_kernel_differ),
        cmocka_unit_test(random_bytes_fills_exactly_what_is_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
