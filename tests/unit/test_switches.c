/* Overrides and bypass on a clock that the test turns. */
#include "proxy/switches.h"

#include "base/base.h"
#include "base/log.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct bench {
    struct breakers *b;
    struct switches *s;
};

static int set_up(void **state)
{
    struct bench *t = xcalloc(1, sizeof(*t));

    log_set_level(LOG_ERROR);
    t->b = breakers_new();
    t->s = switches_new(t->b);
    *state = t;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *t = *state;

    switches_free(t->s);
    breakers_free(t->b);
    free(t);
    return 0;
}

static struct switch_times at(int64_t mono_ms)
{
    return (struct switch_times){ mono_ms, 1700000000000 + mono_ms };
}

static enum breaker_state local(const struct bench *t, uint32_t id, int64_t now_ms)
{
    return breaker_local_state(breakers_local(t->b, id), now_ms);
}

static uint32_t name(struct bench *t, const char *text)
{
    return breakers_intern(t->b, text, strlen(text));
}

static const char *reason(const struct bench *t, uint32_t id)
{
    static char text[SWITCHES_REASON_MAX + 1];
    return switches_reason(t->s, id, text) ? text : "(none)";
}

static void a_local_word_holds_state_reason_and_end(void **state)
{
    (void)state;
    static const enum breaker_state states[] = { BREAKER_CLOSED, BREAKER_OPEN };
    static const unsigned reasons[] = { 0, 1, BREAKER_REASON_MAX };
    static const int64_t ends[] = { 1, 1000, INT64_C(1) << 32, (INT64_C(1) << 50) - 1 };

    for (size_t i = 0; i < ARRAY_LEN(states); i++)
        for (size_t r = 0; r < ARRAY_LEN(reasons); r++)
            for (size_t e = 0; e < ARRAY_LEN(ends); e++) {
                uint64_t w = breaker_local_pack(states[i], reasons[r], ends[e]);
                if (breaker_local_state(w, ends[e] - 1) != states[i] ||
                    breaker_local_state(w, 0) != states[i] ||
                    breaker_local_state(w, ends[e]) != BREAKER_UNKNOWN ||
                    breaker_local_state(w, INT64_MAX) != BREAKER_UNKNOWN ||
                    breaker_local_reason(w) != reasons[r])
                    fail_msg("state %d reason %u end %lld", (int)states[i], reasons[r],
                             (long long)ends[e]);
            }
    assert_int_equal(breaker_local_state(0, 0), BREAKER_UNKNOWN);
}

static void an_override_ends_on_time_whether_or_not_anybody_ticks(void **state)
{
    struct bench *t = *state;
    uint32_t id = name(t, "payments");

    assert_int_equal(switches_override(t->s, id, BREAKER_OPEN, 500, "deploy", at(1000)), 0);
    assert_true(breakers_flags(t->b) & STATE_OVERRIDES);
    assert_int_equal(local(t, id, 1000), BREAKER_OPEN);
    assert_int_equal(local(t, id, 1499), BREAKER_OPEN);
    assert_int_equal(local(t, id, 1500), BREAKER_UNKNOWN);

    assert_int_equal(switches_tick(t->s, 1499), 1500);
    assert_int_equal(switches_count(t->s), 1);
    assert_int_equal(switches_tick(t->s, 1500), -1);
    assert_int_equal(switches_count(t->s), 0);
    assert_int_equal(breakers_local(t->b, id), 0);
    assert_false(breakers_flags(t->b) & STATE_OVERRIDES);
}

static void the_server_state_is_left_as_it_is(void **state)
{
    struct bench *t = *state;
    uint32_t id = name(t, "b");

    breakers_store(t->b, id, BREAKER_HALF_OPEN, 77, false, 1);
    uint64_t before = breakers_load(t->b, id);
    switches_override(t->s, id, BREAKER_CLOSED, 10, "x", at(0));
    assert_int_equal(breakers_load(t->b, id), before);
    switches_tick(t->s, 10);
    assert_int_equal(breakers_load(t->b, id), before);
}

static void an_override_replaces_the_one_before_and_keeps_its_place(void **state)
{
    struct bench *t = *state;
    uint32_t a = name(t, "a"), b = name(t, "b");

    switches_override(t->s, a, BREAKER_OPEN, 100, "one", at(0));
    switches_override(t->s, b, BREAKER_OPEN, 200, "two", at(0));
    switches_override(t->s, a, BREAKER_CLOSED, 300, "three", at(50));
    assert_int_equal(switches_count(t->s), 2);
    assert_int_equal(local(t, a, 349), BREAKER_CLOSED);
    assert_int_equal(local(t, a, 350), BREAKER_UNKNOWN);
    assert_string_equal(switches_of(t->s, a)->reason, "three");
    assert_int_equal(switches_of(t->s, a)->until_wall_ms, 1700000000350);
    assert_string_equal(reason(t, a), "three");
    assert_ptr_equal(switches_at(t->s, 0), switches_of(t->s, a));
    assert_int_equal(switches_tick(t->s, 60), 200);
    assert_int_equal(switches_tick(t->s, 200), 350);
    assert_null(switches_of(t->s, b));
}

static void ending_by_hand_tells_whether_there_was_anything(void **state)
{
    struct bench *t = *state;
    uint32_t id = name(t, "a");

    assert_false(switches_end_override(t->s, id));
    assert_false(switches_end_bypass(t->s));
    switches_override(t->s, id, BREAKER_OPEN, 100, "x", at(0));
    switches_bypass(t->s, 100, "x", at(0));
    assert_int_equal(breakers_flags(t->b), STATE_OVERRIDES | STATE_BYPASS);
    assert_true(switches_end_override(t->s, id));
    assert_true(switches_end_bypass(t->s));
    assert_int_equal(breakers_flags(t->b), 0);
    assert_false(switches_end_override(t->s, id));
    assert_false(switches_end_bypass(t->s));
}

static void bypass_ends_with_the_tick_of_its_time(void **state)
{
    struct bench *t = *state;

    switches_bypass(t->s, 100, "incident", at(1000));
    assert_string_equal(switches_bypass_held(t->s)->reason, "incident");
    assert_int_equal(switches_tick(t->s, 1099), 1100);
    assert_true(breakers_flags(t->b) & STATE_BYPASS);
    switches_bypass(t->s, 100, "still", at(1050)); /* goes on for longer */
    assert_int_equal(switches_tick(t->s, 1100), 1150);
    assert_true(breakers_flags(t->b) & STATE_BYPASS);
    assert_int_equal(switches_tick(t->s, 1150), -1);
    assert_false(breakers_flags(t->b) & STATE_BYPASS);
    assert_null(switches_bypass_held(t->s));
}

static void one_override_too_many_is_refused_and_counted(void **state)
{
    struct bench *t = *state;
    char text[32];

    for (int i = 0; i < SWITCHES_OVERRIDES_MAX; i++) {
        snprintf(text, sizeof(text), "b%d", i);
        assert_int_equal(switches_override(t->s, name(t, text), BREAKER_OPEN, 10, "x", at(0)), 0);
    }
    uint32_t more = name(t, "more");
    assert_int_equal(switches_override(t->s, more, BREAKER_OPEN, 10, "x", at(0)), -1);
    assert_int_equal(switches_refused(t->s), 1);
    assert_int_equal(breakers_local(t->b, more), 0);
    /* one that stands can still be changed, and a place that becomes free is one */
    assert_int_equal(switches_override(t->s, name(t, "b7"), BREAKER_CLOSED, 10, "y", at(0)), 0);
    assert_true(switches_end_override(t->s, name(t, "b0")));
    assert_int_equal(switches_override(t->s, more, BREAKER_OPEN, 10, "x", at(0)), 0);
    assert_int_equal(switches_refused(t->s), 1);
    assert_int_equal(switches_tick(t->s, 10), -1);
    assert_int_equal(switches_count(t->s), 0);
}

static void every_override_tells_its_own_reason_however_many_there_have_been(void **state)
{
    struct bench *t = *state;
    uint32_t id = name(t, "a");
    char text[SWITCHES_REASON_MAX + 2];

    for (int i = 0; i < 3 * BREAKER_REASON_MAX; i++) {
        snprintf(text, sizeof(text), "reason %d", i);
        switches_override(t->s, id, BREAKER_OPEN, 10, text, at(0));
        assert_string_equal(reason(t, id), text);
        if (i % 3 == 0)
            switches_end_override(t->s, id);
    }
    switches_end_override(t->s, id);
    assert_string_equal(reason(t, id), "(none)");
    for (int i = 0; i < SWITCHES_OVERRIDES_MAX; i++) {
        snprintf(text, sizeof(text), "b%d", i);
        switches_override(t->s, name(t, text), BREAKER_OPEN, 10, text, at(0));
    }
    switches_override(t->s, name(t, "b7"), BREAKER_OPEN, 10, "another", at(0));
    for (int i = 0; i < SWITCHES_OVERRIDES_MAX; i++) {
        snprintf(text, sizeof(text), "b%d", i);
        assert_string_equal(reason(t, name(t, text)), i == 7 ? "another" : text);
    }
    memset(text, 'x', sizeof(text));
    text[SWITCHES_REASON_MAX] = '\0';
    switches_override(t->s, name(t, "b7"), BREAKER_OPEN, 10, text, at(0));
    assert_string_equal(reason(t, name(t, "b7")), text);
}

struct reading {
    const struct bench *t;
    uint32_t id;
    _Atomic bool stop;
    _Atomic unsigned read;
};

/* Each reason is one letter, repeated. */
static void *read_reasons(void *arg)
{
    struct reading *r = arg;
    char text[SWITCHES_REASON_MAX + 1];
    while (!atomic_load(&r->stop)) {
        if (!switches_reason(r->t->s, r->id, text))
            continue;
        if (strlen(text) != SWITCHES_REASON_MAX ||
            strspn(text, (char[]){ text[0], 0 }) != strlen(text))
            return r;
        atomic_fetch_add(&r->read, 1);
    }
    return NULL;
}

static void a_worker_never_reads_two_reasons_in_one(void **state)
{
    struct bench *t = *state;
    struct reading r = { .t = t, .id = name(t, "a") };
    char text[SWITCHES_REASON_MAX + 1] = { 0 };
    pthread_t reader;
    void *torn;

    assert_int_equal(pthread_create(&reader, NULL, read_reasons, &r), 0);
    for (int i = 0; i < 20000 || atomic_load(&r.read) < 100; i++) {
        memset(text, 'a' + i % 26, SWITCHES_REASON_MAX);
        switches_override(t->s, r.id, BREAKER_OPEN, 1000 + i, text, at(0));
        if (i % 100 == 0)
            sched_yield();
    }
    atomic_store(&r.stop, true);
    pthread_join(reader, &torn);
    assert_null(torn);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_local_word_holds_state_reason_and_end),
        TEST(an_override_ends_on_time_whether_or_not_anybody_ticks),
        TEST(the_server_state_is_left_as_it_is),
        TEST(an_override_replaces_the_one_before_and_keeps_its_place),
        TEST(ending_by_hand_tells_whether_there_was_anything),
        TEST(bypass_ends_with_the_tick_of_its_time),
        TEST(one_override_too_many_is_refused_and_counted),
        TEST(every_override_tells_its_own_reason_however_many_there_have_been),
        TEST(a_worker_never_reads_two_reasons_in_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
