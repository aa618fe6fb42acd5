/* The keyed hash and the table on top of it. */
#include "base/base.h"
#include "base/map.h"
#include "base/prng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/*
 * SipHash-c-d written a second time, byte by byte from the paper's definition: slow, with
 * the rounds as parameters, so that the paper's SipHash-2-4 vector vouches for it.
 */
static void slow_round(uint64_t v[4])
{
    static const struct {
        int add_to, add, rotate_by;
        bool halves; /* also swap the halves of the sum */
    } steps[] = {
        { 0, 1, 13, true },
        { 2, 3, 16, false },
        { 0, 3, 21, false },
        { 2, 1, 17, true },
    };

    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        int a = steps[i].add_to;
        int b = steps[i].add;
        v[a] += v[b];
        v[b] = (v[b] << steps[i].rotate_by | v[b] >> (64 - steps[i].rotate_by)) ^ v[a];
        if (steps[i].halves)
            v[a] = v[a] << 32 | v[a] >> 32;
    }
}

static uint64_t slow_siphash(int c, int d, const uint8_t *in, size_t len, uint64_t k0, uint64_t k1)
{
    uint8_t padded[512] = { 0 };
    size_t words = len / 8 + 1;
    uint64_t v[4] = { k0, k1, k0, k1 };
    const char *constants = "somepseudorandomlygeneratedbytes";

    for (int i = 0; i < 32; i++) /* big-endian words */
        v[i / 8] ^= (uint64_t)(uint8_t)constants[i] << (56 - 8 * (i % 8));
    memcpy(padded, in, len);
    padded[words * 8 - 1] = (uint8_t)len;
    for (size_t w = 0; w < words; w++) {
        uint64_t m = 0;
        for (int b = 7; b >= 0; b--)
            m = m << 8 | padded[w * 8 + (size_t)b];
        v[3] ^= m;
        for (int i = 0; i < c; i++)
            slow_round(v);
        v[0] ^= m;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < d; i++)
        slow_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* Key 00..0f as two little-endian words, as in the paper's appendix. */
#define PAPER_K0 UINT64_C(0x0706050403020100)
#define PAPER_K1 UINT64_C(0x0f0e0d0c0b0a0908)

static void the_slow_siphash_gives_the_papers_vector(void **state)
{
    (void)state;
    uint8_t in[15];

    for (size_t i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)i;
    assert_true(slow_siphash(2, 4, in, sizeof(in), PAPER_K0, PAPER_K1) ==
                UINT64_C(0xa129ca6149be45e5));
}

static void siphash13_agrees_with_the_slow_one_at_every_length_and_alignment(void **state)
{
    (void)state;
    uint8_t in[320];
    struct prng p;
    prng_seed_fixed(&p, 13);
    for (size_t i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)prng_u32(&p);

    for (size_t len = 0; len <= 300; len++) { /* past 255: the length byte wraps */
        size_t offset = len % 8;
        uint64_t k0 = prng_u64(&p);
        uint64_t k1 = prng_u64(&p);
        uint64_t got = siphash13(in + offset, len, k0, k1);
        uint64_t want = slow_siphash(1, 3, in + offset, len, k0, k1);
        if (got != want)
            fail_msg("length %zu: got %016llx, want %016llx", len, (unsigned long long)got,
                     (unsigned long long)want);
    }
}

static void siphash13_gives_the_known_vector_of_the_empty_string(void **state)
{
    (void)state;
    assert_true(siphash13("", 0, PAPER_K0, PAPER_K1) == UINT64_C(0xabac0158050fc4dc));
}

static void keyed_hash_keeps_its_key_and_tells_strings_apart(void **state)
{
    (void)state;
    assert_true(keyed_hash("payments", 8) == keyed_hash("payments", 8));
    assert_true(keyed_hash("payments", 8) != keyed_hash("payment", 7));
    assert_true(keyed_hash("payments", 8) != siphash13("payments", 8, 0, 0)); /* a key was drawn */
}

static void keys_are_bytes_of_any_kind_and_length(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        size_t len;
    } keys[] = {
        { "", 0 },        { "\0", 1 },       { "\0\0", 2 },      { "a", 1 },
        { "a\0b", 3 },    { "a\0c", 3 },     { "A", 1 },         { "\xff\xfe", 2 },
        { "abcdefg", 7 }, { "abcdefgh", 8 }, { "abcdefghi", 9 },
    };
    static int values[ARRAY_LEN(keys)];
    struct map *m = map_new();

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        if (map_get(m, keys[i].key, keys[i].len) != NULL)
            fail_msg("key %zu is there before it was put", i);
        map_put(m, keys[i].key, keys[i].len, &values[i]);
    }
    assert_int_equal(map_count(m), ARRAY_LEN(keys));
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (map_get(m, keys[i].key, keys[i].len) != &values[i])
            fail_msg("key %zu has another value", i);
    map_free(m);
}

static void the_map_copies_keys_and_replaces_values(void **state)
{
    (void)state;
    char key[] = "host";
    int first, second;
    struct map *m = map_new();

    map_put(m, key, 4, &first);
    key[0] = 'm';
    assert_ptr_equal(map_get(m, "host", 4), &first);
    map_put(m, "host", 4, &second);
    assert_ptr_equal(map_get(m, "host", 4), &second);
    assert_int_equal(map_count(m), 1);
    assert_ptr_equal(map_remove(m, "host", 4), &second);
    assert_null(map_remove(m, "host", 4));
    assert_null(map_get(m, "host", 4));
    assert_int_equal(map_count(m), 0);
    map_free(m);
}

static void an_empty_map_answers_everything(void **state)
{
    (void)state;
    struct map *m = map_new();
    size_t pos = 0;

    assert_null(map_get(m, "x", 1));
    assert_null(map_remove(m, "x", 1));
    assert_int_equal(map_count(m), 0);
    assert_false(map_next(m, &pos, NULL, NULL, NULL));
    map_free(m);
    map_free(NULL);
}

/* A plain array says what the map must hold; few keys so that they meet all the time. */
static void random_puts_and_removes_agree_with_an_array(void **state)
{
    (void)state;
    enum { KEYS = 300, STEPS = 100000 };
    static char values[KEYS][2];
    char *want[KEYS] = { NULL };
    size_t count = 0;
    struct map *m = map_new();
    struct prng p;
    prng_seed(&p); /* so is the hash key: every run meets other collisions */

    for (int step = 0; step < STEPS; step++) {
        /* Waves: nearly full around each doubling, then nearly empty. */
        unsigned range = step / 5000 % 2 == 0 ? KEYS : 10;
        unsigned i = prng_u32(&p) % range;
        unsigned which = prng_u32(&p) & 1;
        char key[16];
        size_t len = (size_t)snprintf(key, sizeof(key), "h%u.example", i);
        if (prng_u32(&p) % 3 != 0) {
            count += want[i] == NULL;
            want[i] = &values[i][which];
            map_put(m, key, len, want[i]);
        } else {
            if (map_remove(m, key, len) != want[i])
                fail_msg("step %d: removing %s gave another value", step, key);
            count -= want[i] != NULL;
            want[i] = NULL;
        }
        i = prng_u32(&p) % KEYS;
        len = (size_t)snprintf(key, sizeof(key), "h%u.example", i);
        if (map_get(m, key, len) != want[i])
            fail_msg("step %d: %s is %s", step, key, want[i] == NULL ? "still there" : "lost");
        if (map_count(m) != count)
            fail_msg("step %d: count is %zu, want %zu", step, map_count(m), count);
    }
    map_free(m);
}

static void iteration_visits_every_entry_once(void **state)
{
    (void)state;
    enum { KEYS = 1000 };
    static int seen[KEYS];
    struct map *m = map_new();
    char key[16];

    memset(seen, 0, sizeof(seen));
    for (int i = 0; i < KEYS; i++)
        map_put(m, key, (size_t)snprintf(key, sizeof(key), "%d", i), &seen[i]);

    size_t pos = 0;
    const char *k;
    size_t len;
    void *value;
    while (map_next(m, &pos, &k, &len, &value)) {
        int i = (int)((int *)value - seen);
        snprintf(key, sizeof(key), "%d", i);
        if (len != strlen(key) || strcmp(k, key) != 0)
            fail_msg("entry %d came with key %s", i, k);
        seen[i]++;
    }
    for (int i = 0; i < KEYS; i++)
        if (seen[i] != 1)
            fail_msg("entry %d was visited %d times", i, seen[i]);
    map_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_slow_siphash_gives_the_papers_vector),
        cmocka_unit_test(siphash13_agrees_with_the_slow_one_at_every_length_and_alignment),
        cmocka_unit_test(siphash13_gives_the_known_vector_of_the_empty_string),
        cmocka_unit_test(keyed_hash_keeps_its_key_and_tells_strings_apart),
        cmocka_unit_test(keys_are_bytes_of_any_kind_and_length),
        cmocka_unit_test(the_map_copies_keys_and_replaces_values),
        cmocka_unit_test(an_empty_map_answers_everything),
        cmocka_unit_test(random_puts_and_removes_agree_with_an_array),
        cmocka_unit_test(iteration_visits_every_entry_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
