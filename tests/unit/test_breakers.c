#include "base/base.h"
#include "sync/breakers.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void a_word_holds_a_view_without_loss(void **state)
{
    (void)state;
    static const struct breaker_view cases[] = {
        { BREAKER_UNKNOWN, 0, false, 0 },
        { BREAKER_CLOSED, BREAKER_RATE_ONE, false, 1 },
        { BREAKER_OPEN, 0, true, 0xfffffff },
        { BREAKER_HALF_OPEN, 858993459, false, 77 },
        { BREAKER_HALF_OPEN, BREAKER_RATE_ONE - 1, false, 0xffffffe },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct breaker_view got = breaker_unpack(breaker_pack(cases[i]));
        if (got.state != cases[i].state || got.rate != cases[i].rate ||
            got.rate_null != cases[i].rate_null || got.changes != cases[i].changes)
            fail_msg("case %zu: a field changed on the way", i);
    }
}

static void allow_rate_becomes_a_share_of_2_to_the_32(void **state)
{
    (void)state;
    static const struct {
        double rate;
        uint64_t want;
    } cases[] = {
        { 0, 0 },
        { -0.5, 0 },
        { NAN, 0 },
        { 1e-12, 1 }, /* not zero: somebody must get through */
        { 0.2, 858993459 },
        { 0.5, UINT64_C(1) << 31 },
        { 0.99999999999, BREAKER_RATE_ONE - 1 }, /* not one: somebody must be refused */
        { 1, BREAKER_RATE_ONE },
        { 7, BREAKER_RATE_ONE },
        { INFINITY, BREAKER_RATE_ONE },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t got = breaker_rate_from_double(cases[i].rate);
        if (got != cases[i].want)
            fail_msg("%g: got %llu, want %llu", cases[i].rate, (unsigned long long)got,
                     (unsigned long long)cases[i].want);
    }
}

static void only_the_three_wire_states_parse(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int rc;
        enum breaker_state want;
    } cases[] = {
        { "closed", 0, BREAKER_CLOSED },       { "open", 0, BREAKER_OPEN },
        { "half_open", 0, BREAKER_HALF_OPEN }, { "unknown", -1, BREAKER_UNKNOWN },
        { "Open", -1, BREAKER_UNKNOWN },       { "", -1, BREAKER_UNKNOWN },
        { "half-open", -1, BREAKER_UNKNOWN },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        enum breaker_state got = BREAKER_UNKNOWN;
        int rc = breaker_state_parse(cases[i].text, &got);
        if (rc != cases[i].rc || got != cases[i].want)
            fail_msg("\"%s\": got %d, %s", cases[i].text, rc, breaker_state_name(got));
        if (rc == 0)
            assert_string_equal(breaker_state_name(got), cases[i].text);
    }
}

static void a_store_tells_news_from_repetition(void **state)
{
    (void)state;
    struct breakers *b = breakers_new();
    uint32_t id = breakers_intern(b, "payments", 8);
    static const struct {
        enum breaker_state state;
        uint64_t rate;
        bool null;
        bool news;
    } steps[] = {
        { BREAKER_CLOSED, 0, true, true },      { BREAKER_CLOSED, 0, true, false },
        { BREAKER_HALF_OPEN, 5, false, true },  { BREAKER_HALF_OPEN, 6, false, true },
        { BREAKER_HALF_OPEN, 6, false, false }, { BREAKER_HALF_OPEN, 6, true, true },
        { BREAKER_OPEN, 0, true, true },
    };
    uint32_t changes = 0;
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        uint64_t version = breakers_version(b);
        int64_t at = breakers_changed_ms(b, id);
        bool news =
            breakers_store(b, id, steps[i].state, steps[i].rate, steps[i].null, 1000 + (int64_t)i);
        changes += news;
        struct breaker_view v = breaker_unpack(breakers_load(b, id));
        if (news != steps[i].news || (breakers_version(b) != version) != news)
            fail_msg("step %zu: news %d", i, news);
        if (v.state != steps[i].state || v.rate_null != steps[i].null || v.changes != changes ||
            v.rate != (steps[i].null ? 0 : steps[i].rate))
            fail_msg("step %zu: the slot does not hold what was stored", i);
        if (breakers_changed_ms(b, id) != (news ? 1000 + (int64_t)i : at))
            fail_msg("step %zu: time of change", i);
    }
    assert_int_equal(breakers_local(b, id), 0);
    breakers_free(b);
}

struct watcher {
    struct breakers *b;
    uint32_t id;
    unsigned told;
};

static void on_opened(void *arg)
{
    struct watcher *w = arg;
    w->told++;
    assert_int_equal(breaker_unpack(breakers_load(w->b, w->id)).state, BREAKER_OPEN);
}

static void only_a_move_into_open_is_told(void **state)
{
    (void)state;
    static const struct {
        enum breaker_state state;
        uint64_t rate;
        unsigned told;
    } steps[] = {
        { BREAKER_CLOSED, 0, 0 },  { BREAKER_OPEN, 0, 1 },      { BREAKER_OPEN, 0, 1 },
        { BREAKER_OPEN, 7, 1 },    { BREAKER_HALF_OPEN, 7, 1 }, { BREAKER_OPEN, 0, 2 },
        { BREAKER_UNKNOWN, 0, 2 }, { BREAKER_OPEN, 0, 3 },
    };
    struct watcher w = { .b = breakers_new() };
    w.id = breakers_intern(w.b, "payments", 8);
    breakers_watch(w.b, on_opened, &w);
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        breakers_store(w.b, w.id, steps[i].state, steps[i].rate, false, 1);
        if (w.told != steps[i].told)
            fail_msg("step %zu: told %u times", i, w.told);
    }
    breakers_free(w.b);
}

static void flags_are_set_and_cleared_in_one_step(void **state)
{
    (void)state;
    struct breakers *b = breakers_new();
    assert_int_equal(breakers_flags(b), 0);
    breakers_set_flags(b, STATE_SYNCED | STATE_CONNECTED, 0);
    breakers_set_flags(b, STATE_BYPASS, STATE_CONNECTED);
    assert_int_equal(breakers_flags(b), STATE_SYNCED | STATE_BYPASS);
    breakers_set_flags(b, STATE_STALE, STATE_STALE); /* both: set wins */
    assert_int_equal(breakers_flags(b), STATE_SYNCED | STATE_BYPASS | STATE_STALE);
    breakers_free(b);
}

static void names_keep_their_ids_until_the_table_is_full(void **state)
{
    (void)state;
    struct breakers *b = breakers_new();
    char name[16];
    for (uint32_t i = 1; i < BREAKERS_CAPACITY; i++) {
        int len = snprintf(name, sizeof(name), "b%u", i);
        if (breakers_intern(b, name, (size_t)len) != i)
            fail_msg("name %u got another id", i);
    }
    assert_int_equal(breakers_table_full(b), 0);
    assert_int_equal(breakers_intern(b, "one more", 8), 0);
    assert_int_equal(breakers_table_full(b), 1);
    assert_int_equal(breakers_intern(b, "b65535", 6), 65535); /* known ones still work */
    size_t len;
    assert_string_equal(breakers_name(b, 4711, &len), "b4711");
    assert_int_equal(len, 5);
    assert_int_equal(breakers_count(b), BREAKERS_CAPACITY - 1);
    assert_true(breakers_store(b, 65535, BREAKER_OPEN, 0, true, 1));
    breakers_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_word_holds_a_view_without_loss),
        cmocka_unit_test(allow_rate_becomes_a_share_of_2_to_the_32),
        cmocka_unit_test(only_the_three_wire_states_parse),
        cmocka_unit_test(a_store_tells_news_from_repetition),
        cmocka_unit_test(only_a_move_into_open_is_told),
        cmocka_unit_test(flags_are_set_and_cleared_in_one_step),
        cmocka_unit_test(names_keep_their_ids_until_the_table_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
