/* What polls and metadata lists do to the breaker table. */
#include "base/base.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "config/catalog.h"
#include "config/config.h"
#include "sync/breakers.h"
#include "sync/known.h"
#include "sync/state_event.h"
#include "sync/sync.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static _Atomic uint64_t counters[SYNC_COUNTER_COUNT];
static struct breakers *table;
static struct known *known;
static int64_t now;

static uint32_t id_of(const char *name)
{
    return breakers_intern(table, name, strlen(name));
}

static enum breaker_state state_of(const char *name)
{
    return breaker_unpack(breakers_load(table, id_of(name))).state;
}

static void configure(const char *used, bool templated, int64_t max_age_ms)
{
    uint32_t id = used ? id_of(used) : 0;
    const struct known_options o = { &id, used != NULL, templated, false, max_age_ms, false };
    known_configure(known, &o, now);
}

static int set_up(void **state)
{
    (void)state;
    memset(counters, 0, sizeof(counters));
    table = breakers_new();
    known = known_new(table, counters);
    now = 5000;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    known_free(known);
    breakers_free(table);
    return 0;
}

static void event(const char *name, const char *s)
{
    char json[400];
    int len = snprintf(json, sizeof(json), "{\"breaker\":\"%s\",\"state\":\"%s\"}", name, s);
    known_event(known, json, (size_t)len, now, 1000000 + now);
}

static void polled(const char *name, enum breaker_state s, double rate)
{
    struct state_event ev = { .breaker_len = strlen(name), .state = s, .allow_rate = rate };
    memcpy(ev.breaker, name, ev.breaker_len + 1);
    known_polled(known, STATE_EVENT_OK, &ev, now, 1000000 + now);
}

/* names: joined by spaces */
static struct catalog *list_of(const char *names)
{
    struct strbuf json = STRBUF_INIT;
    struct catalog *list;
    const char *why;
    strbuf_adds(&json, "{\"breakers\":[");
    for (const char *p = names; *p; p += strcspn(p, " "), p += *p == ' ')
        strbuf_addf(&json, "%s{\"id\":\"i\",\"name\":\"%.*s\"}", p == names ? "" : ",",
                    (int)strcspn(p, " "), p);
    strbuf_adds(&json, "]}");
    assert_int_equal(catalog_parse(strbuf_str(&json), json.len, "breakers", &list, &why), 0);
    strbuf_free(&json);
    return list;
}

static void listed(const char *names)
{
    struct catalog *list = list_of(names);
    known_listed(known, list, now, 1000000 + now);
    catalog_unref(list);
}

static void begun(const char *names)
{
    struct catalog *list = list_of(names);
    known_set_polling(known, true, now);
    known_poll_begun(known, list);
    catalog_unref(list);
}

static bool awaited(const char *name)
{
    return breaker_is_awaited(breaker_unpack(breakers_load(table, id_of(name))));
}

static void flags_are(unsigned want, const char *why)
{
    unsigned got = breakers_flags(table);
    if (got != want)
        fail_msg("%s: flags %#x, want %#x", why, got, want);
}

static void run_until(int64_t t)
{
    while (known_next_ms(known) <= t) {
        now = known_next_ms(known) > now ? known_next_ms(known) : now;
        int64_t before = known_next_ms(known);
        known_tick(known, now);
        if (known_next_ms(known) <= before)
            fail_msg("a tick at %lld leaves itself due", (long long)now);
    }
    now = t;
}

static void a_whole_poll_is_the_state_of_now(void **state)
{
    (void)state;
    configure("a", false, 60000);
    begun("a b");
    polled("a", BREAKER_OPEN, 0);
    flags_are(0, "half a poll");
    known_poll_ended(known, true, now);
    flags_are(STATE_SYNCED, "a whole one; the stream does not stand");
    assert_int_equal(state_of("a"), BREAKER_OPEN);
    assert_int_equal(known_cached(known), 1);
    assert_int_equal(known_missing(known), 0);
    configure("b", false, 60000);
    assert_int_equal(known_missing(known), 0);
    assert_int_equal(known_awaited(known), 1);
    begun("a b");
    polled("b", BREAKER_HALF_OPEN, 0.25);
    known_poll_ended(known, true, now);
    assert_int_equal(known_missing(known) + known_awaited(known), 0);
    assert_int_equal(breaker_unpack(breakers_load(table, id_of("b"))).rate, BREAKER_RATE_ONE / 4);
    assert_int_equal(counters[SYNC_POLLED_STATES], 2);
}

static void a_poll_that_fails_at_first_is_no_state(void **state)
{
    (void)state;
    configure("a", false, 0);
    known_poll_ended(known, false, now);
    run_until(now + 1000000);
    flags_are(0, "never synced is not stale");
}

static void polled_nonsense_is_dropped_and_counted(void **state)
{
    (void)state;
    configure("a", false, 60000);
    polled("a", BREAKER_OPEN, 0);
    static const struct state_event none;
    known_polled(known, STATE_EVENT_STATE, &none, now, now);
    known_polled(known, STATE_EVENT_RATE, &none, now, now);
    known_polled(known, STATE_EVENT_NAME, &none, now, now);
    assert_int_equal(state_of("a"), BREAKER_OPEN);
    assert_int_equal(counters[SYNC_POLLED_UNKNOWN], 1);
    assert_int_equal(counters[SYNC_POLLED_INVALID], 2);
    assert_int_equal(counters[SYNC_EVENTS_UNKNOWN] + counters[SYNC_EVENTS_INVALID], 0);
}

static void state_is_stale_when_neither_source_has_delivered_for_max_age(void **state)
{
    (void)state;
    static const struct {
        int64_t max_age_ms;
        int64_t failed_after_ms; /* the first poll that failed, after the last good one */
        int64_t stale_after_ms;  /* -1: never */
    } cases[] = {
        { 60000, 30000, 60000 }, { 60000, 90000, 90000 }, { 10000, 30000, 30000 },
        { 0, 30000, 30000 },     { OFF, 30000, -1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        tear_down(NULL);
        set_up(NULL);
        configure("a", false, cases[i].max_age_ms);
        polled("a", BREAKER_OPEN, 0);
        known_poll_ended(known, true, now);
        int64_t good = now;
        run_until(good + cases[i].failed_after_ms);
        flags_are(STATE_SYNCED, "while the last poll went well");
        known_poll_ended(known, false, now);
        int64_t stale = cases[i].stale_after_ms;
        if (stale > cases[i].failed_after_ms) {
            run_until(good + stale - 1);
            flags_are(STATE_SYNCED, "almost");
        }
        run_until(good + (stale < 0 ? 10000000 : stale));
        flags_are(STATE_SYNCED | (stale < 0 ? 0 : STATE_STALE), "in time");
        assert_int_equal(state_of("a"), BREAKER_OPEN);
        known_poll_ended(known, true, now);
        flags_are(STATE_SYNCED, "fresh again");
    }
}

static void a_poll_renews_what_the_lost_stream_said_and_the_stream_what_polls_said(void **state)
{
    (void)state;
    configure("a", false, 60000);
    known_connected(known, now);
    event("a", "open");
    known_lost(known, now);
    int64_t lost = now;
    run_until(lost + 50000);
    known_poll_ended(known, true, now);
    known_poll_ended(known, false, now);
    run_until(lost + 109999);
    flags_are(STATE_SYNCED, "a minute from the poll");
    run_until(lost + 110000);
    flags_are(STATE_SYNCED | STATE_STALE, "then stale");
    known_connected(known, now);
    event("a", "closed");
    flags_are(STATE_SYNCED | STATE_CONNECTED, "the stream is back");
    known_set_polling(known, false, now);
    flags_are(STATE_SYNCED | STATE_CONNECTED, "and polls end");
}

static void when_polls_stop_without_a_stream_state_ages(void **state)
{
    (void)state;
    configure("a", false, 1000);
    begun("a");
    known_poll_ended(known, true, now);
    int64_t good = now;
    run_until(good + 900);
    known_set_polling(known, false, now);
    run_until(good + 999);
    flags_are(STATE_SYNCED, "almost");
    run_until(good + 1000);
    flags_are(STATE_SYNCED | STATE_STALE, "stale");
}

static void only_what_routes_use_is_polled(void **state)
{
    (void)state;
    configure("a", false, OFF);
    id_of("other");
    assert_true(known_polls(known, "a"));
    assert_false(known_polls(known, "other"));
    assert_false(known_polls(known, "never heard of"));
    configure(NULL, true, OFF);
    assert_true(known_polls(known, "never heard of")); /* any host may bring it */
}

static void
a_name_is_awaited_until_a_poll_that_has_it_or_a_list_that_lacks_it_began_later(void **state)
{
    (void)state;
    enum asked { NOBODY, BEFORE, AFTER }; /* it joined */
    static const struct {
        enum asked poll;
        bool ok;
        bool in_polled_list;
        enum asked list;
        bool in_list;
        bool awaited, wants_poll, wants_list;
    } cases[] = {
        { NOBODY, false, false, NOBODY, false, true, true, false },
        { BEFORE, true, true, NOBODY, false, true, true, false },
        { AFTER, true, true, NOBODY, false, false, false, false },
        { AFTER, false, true, NOBODY, false, true, false, false }, /* it will be tried again */
        { AFTER, true, false, NOBODY, false, true, false, true },
        { AFTER, true, false, BEFORE, false, true, false, true },
        { AFTER, true, false, AFTER, false, false, false, true },
        { AFTER, true, false, AFTER, true, true, true, true },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *polled_list = cases[i].in_polled_list ? "a b" : "a";
        tear_down(NULL);
        set_up(NULL);
        configure("a", false, OFF);
        begun("a b");
        polled("a", BREAKER_CLOSED, 1);
        known_poll_ended(known, true, now);
        assert_false(known_wants_poll(known));
        if (cases[i].list == BEFORE)
            known_list_asked(known);
        if (cases[i].poll == BEFORE)
            begun(polled_list);
        configure("b", false, OFF);
        if (cases[i].poll == AFTER)
            begun(polled_list);
        if (cases[i].poll != NOBODY)
            known_poll_ended(known, cases[i].ok, now);
        if (cases[i].list == AFTER)
            known_list_asked(known);
        if (cases[i].list != NOBODY)
            listed(cases[i].in_list ? "a b" : "a");
        if (awaited("b") != cases[i].awaited || known_awaited(known) != cases[i].awaited ||
            known_missing(known) != !cases[i].awaited ||
            known_wants_poll(known) != cases[i].wants_poll ||
            known_wants_list(known) != cases[i].wants_list)
            fail_msg("case %zu: awaited %d (%d), %d missing, poll wanted %d", i, awaited("b"),
                     (int)known_awaited(known), (int)known_missing(known), known_wants_poll(known));
        polled("b", BREAKER_OPEN, 0);
        assert_false(awaited("b"));
    }
}

/* How b was known before it joins, while a was used all along. */
enum before {
    POLLED_LAST,      /* by the last good poll */
    POLLED_BEFORE,    /* but not by the last one */
    POLL_UNDER_WAY,   /* POLLED_LAST, and the next one, without it, has begun */
    POLL_FAILED,      /* POLLED_LAST, and the next one, without it, came to nothing */
    STREAM_LOST,      /* by the stream, and no poll has gone well since */
    STREAM_THEN_POLL, /* by the stream, and polls have taken over */
    STREAM_BACK,      /* polls took over, and by the stream that stands again */
    STREAM_SPEAKS,    /* it does, but polls have yet to end */
};

static void know(enum before how)
{
    bool streamed = how >= STREAM_LOST;
    const uint32_t both[] = { id_of("a"), id_of("b") };
    const struct known_options o = { both, streamed ? 1 : 2, false, false, OFF, false };
    known_configure(known, &o, now);
    if (streamed) {
        known_connected(known, now);
        event("a", "closed");
        event("b", "closed");
        known_comment(known, now);
        known_lost(known, now);
    } else {
        begun("a b");
        polled("a", BREAKER_CLOSED, 1);
        polled("b", BREAKER_CLOSED, 1);
        known_poll_ended(known, true, now);
        configure("a", false, OFF);
    }
    if (how == POLLED_LAST || how == STREAM_LOST)
        return;
    begun("a b");
    if (how == POLL_UNDER_WAY)
        return;
    known_poll_ended(known, how != POLL_FAILED, now);
    if (how < STREAM_BACK)
        return;
    known_connected(known, now);
    event("b", "closed");
    if (how == STREAM_SPEAKS)
        return;
    known_comment(known, now);
    known_set_polling(known, false, now);
}

static void a_known_name_that_joins_is_awaited_if_nobody_has_kept_it_up_to_date(void **state)
{
    (void)state;
    static const struct {
        bool awaited, wants_poll;
    } cases[] = {
        [POLLED_LAST] = { false, false },   [POLLED_BEFORE] = { true, true },
        [POLL_UNDER_WAY] = { false, true }, [POLL_FAILED] = { false, true },
        [STREAM_LOST] = { false, false },   [STREAM_THEN_POLL] = { true, true },
        [STREAM_BACK] = { false, false },   [STREAM_SPEAKS] = { false, true },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (int hosts = 0; hosts < 2; hosts++) {
            tear_down(NULL);
            set_up(NULL);
            know((enum before)i);
            uint64_t cached = known_cached(known);
            configure(hosts ? "a" : "b", hosts, OFF);
            unsigned flags = breakers_flags(table);
            bool is_awaited =
                hosts ? state_of("b") == BREAKER_UNKNOWN && flags & STATE_AWAITED : awaited("b");
            bool wants_poll = hosts ? i != STREAM_BACK : cases[i].wants_poll;
            if (is_awaited != cases[i].awaited || known_wants_poll(known) != wants_poll ||
                known_cached(known) != cached - cases[i].awaited)
                fail_msg("case %zu, hosts %d: %s, flags %#x, poll wanted %d", i, hosts,
                         breaker_state_name(state_of("b")), flags, known_wants_poll(known));
        }
    }
}

static void what_a_poll_leaves_out_is_not_taken_for_absent(void **state)
{
    (void)state;
    configure("a", true, OFF);
    known_connected(known, now);
    event("told", "closed");
    known_comment(known, now);
    known_lost(known, now);
    flags_are(STATE_SYNCED, "the stream has told all");
    for (int poll = 0; poll < 2; poll++) {
        begun("a told many");
        known_poll_leaves_out(known, "a");
        known_poll_leaves_out(known, "told");
        known_poll_leaves_out(known, "never heard of");
        polled("many", BREAKER_CLOSED, 1);
        known_poll_ended(known, true, now);
        flags_are(STATE_SYNCED | STATE_AWAITED, "nobody can say of every host");
    }
    assert_int_equal(state_of("told"), BREAKER_UNKNOWN); /* of the stream, which is long gone */
    assert_int_equal(state_of("many"), BREAKER_CLOSED);
    configure("b", true, OFF);
    begun("b");
    known_poll_leaves_out(known, "b");
    known_poll_ended(known, true, now);
    assert_true(awaited("b"));
    begun("b");
    known_poll_ended(known, true, now);
    assert_false(awaited("b"));
    flags_are(STATE_SYNCED, "all were asked for");
}

static void names_of_hosts_are_awaited_until_all_are_polled(void **state)
{
    (void)state;
    configure("a", false, OFF);
    begun("a h");
    known_poll_ended(known, true, now);
    begun("a h");
    configure("a", true, OFF);
    assert_true(known_wants_poll(known));
    flags_are(STATE_SYNCED | STATE_AWAITED, "no host was polled");
    known_poll_ended(known, true, now);
    flags_are(STATE_SYNCED | STATE_AWAITED, "that poll was not for hosts");
    begun("a h");
    known_poll_ended(known, true, now);
    flags_are(STATE_SYNCED, "all are polled");
}

static void a_stream_that_stands_beside_polls_settles_nothing_until_they_stop(void **state)
{
    (void)state;
    configure("a", false, OFF);
    begun("a b");
    known_poll_ended(known, true, now);
    known_connected(known, now); /* and says nothing */
    run_until(now + KNOWN_QUIET_MS);
    configure("b", false, OFF);
    assert_int_equal(known_awaited(known), 1);
    known_comment(known, now); /* it speaks, and has no b */
    assert_int_equal(known_awaited(known), 1);
    known_set_polling(known, false, now);
    assert_int_equal(known_awaited(known), 0);
    assert_int_equal(known_missing(known), 1);
}

static void another_project_is_asked_for_every_name_anew(void **state)
{
    (void)state;
    configure("a", false, OFF);
    begun("b");
    known_list_asked(known);
    listed("b");
    known_poll_ended(known, true, now);
    assert_int_equal(known_missing(known), 1);
    known_forget(known, now);
    configure("a", false, OFF);
    assert_true(awaited("a"));
}

enum how { FIRST_SEEN, SEEN_AGAIN, NOT_SEEN_AGAIN };

static void a_breaker_is_gone_when_the_list_lacks_it_and_nothing_else_speaks_for_it(void **state)
{
    (void)state;
    static const struct {
        enum how how;     /* what this connection's snapshot said of it */
        bool was_listed;  /* in an earlier list */
        bool heard_since; /* the list was asked for */
        bool in_list;
        bool gone;
    } cases[] = {
        { FIRST_SEEN, false, false, true, false },
        { FIRST_SEEN, false, false, false, false }, /* newer than the list, perhaps */
        { FIRST_SEEN, true, false, false, true },
        { FIRST_SEEN, true, true, false, false },
        { SEEN_AGAIN, false, false, false, false },
        { SEEN_AGAIN, true, false, false, true },
        { NOT_SEEN_AGAIN, false, false, true, false },
        { NOT_SEEN_AGAIN, false, false, false, true },
        { NOT_SEEN_AGAIN, false, true, false, false },
        { NOT_SEEN_AGAIN, true, false, false, true },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        tear_down(NULL);
        set_up(NULL);
        configure("a", false, OFF);
        known_connected(known, now);
        event("a", "open");
        if (cases[i].was_listed)
            listed("a b");
        if (cases[i].how != FIRST_SEEN) {
            known_lost(known, now);
            known_connected(known, now);
            if (cases[i].how == SEEN_AGAIN)
                event("a", "open");
            known_comment(known, now);
        }
        known_list_asked(known);
        if (cases[i].heard_since)
            event("a", "open");
        listed(cases[i].in_list ? "a" : "b c");
        if ((state_of("a") == BREAKER_UNKNOWN) != cases[i].gone ||
            known_missing(known) != cases[i].gone || known_cached(known) != !cases[i].gone ||
            counters[SYNC_BREAKERS_GONE] != cases[i].gone)
            fail_msg("case %zu: %s, %d missing", i, breaker_state_name(state_of("a")),
                     (int)known_missing(known));
        event("a", "closed"); /* made anew */
        assert_int_equal(state_of("a"), BREAKER_CLOSED);
        assert_int_equal(known_missing(known), 0);
    }
}

static void a_polled_breaker_that_leaves_the_list_is_gone(void **state)
{
    (void)state;
    configure("a", false, OFF);
    known_list_asked(known);
    listed("a");
    polled("a", BREAKER_OPEN, 0);
    known_poll_ended(known, true, now);
    known_list_asked(known);
    listed("a");
    assert_int_equal(state_of("a"), BREAKER_OPEN);
    known_list_asked(known);
    listed("");
    assert_int_equal(state_of("a"), BREAKER_UNKNOWN);
    assert_int_equal(known_missing(known), 1);
}

static void a_reconnection_that_lacks_a_known_breaker_asks_for_the_list_once(void **state)
{
    (void)state;
    configure("a", false, OFF);
    known_connected(known, now);
    event("a", "open");
    event("b", "open");
    run_until(now + 100000);
    assert_false(known_wants_list(known)); /* the first connection lacks nothing */
    for (int lacks = 0; lacks < 2; lacks++) {
        known_lost(known, now);
        known_connected(known, now);
        event("a", "open");
        if (!lacks)
            event("b", "open");
        run_until(now + KNOWN_SETTLE_MS - 1);
        assert_false(known_wants_list(known));
        run_until(now + 1);
        assert_int_equal(known_wants_list(known), lacks);
        assert_false(known_wants_list(known));
        assert_int_equal(known_next_ms(known), INT64_MAX);
    }
}

static char *seen;

static void note(void *arg, enum state_event_result r, const struct state_event *ev)
{
    (void)arg;
    char one[400];
    snprintf(one, sizeof(one), "%s %s %s %g%s; ", state_event_result_text(r), ev->breaker,
             breaker_state_name(ev->state), ev->allow_rate, ev->rate_null ? " null" : "");
    strcat(seen, r == STATE_EVENT_OK ? one : "bad; ");
}

static void answers_of_state_batch_are_read_in_both_forms(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        const char *seen; /* NULL: refused as a whole */
    } cases[] = {
        { "[]", "" },
        { "{\"states\":[]}", "" },
        { "[{\"breaker_id\":\"i\",\"state\":\"half_open\",\"allow_rate\":0.5,\"updated_at\":\"x\"}"
          "]",
          "ok i half_open 0.5; " },
        { "{\"states\":[{\"breaker_id\":\"i\",\"state\":\"open\"}]}", "ok i open 0 null; " },
        { "[{\"breaker_id\":\"i\",\"state\":\"closed\",\"allow_rate\":1},7,{},"
          "{\"breaker_id\":\"j\",\"state\":\"ajar\"},{\"breaker_id\":\"\",\"state\":\"open\"},"
          "{\"breaker_id\":\"k\",\"state\":\"open\",\"allow_rate\":2},"
          "{\"breaker\":\"l\",\"state\":\"open\"}]",
          "ok i closed 1; bad; bad; bad; bad; bad; bad; " },
        { "", NULL },
        { "{}", NULL },
        { "7", NULL },
        { "[", NULL },
        { "[] x", NULL },
        { "[{\"breaker_id\":\"i\\u0000\",\"state\":\"open\"}]", NULL },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[1024] = "";
        seen = text;
        int rc = state_batch_parse(cases[i].json, strlen(cases[i].json), note, NULL);
        if (rc != (cases[i].seen ? 0 : -1) || strcmp(text, cases[i].seen ? cases[i].seen : "") != 0)
            fail_msg("%s: %d, %s", cases[i].json, rc, text);
    }
}

int main(void)
{
#define KNOWN_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        KNOWN_TEST(a_whole_poll_is_the_state_of_now),
        KNOWN_TEST(a_poll_that_fails_at_first_is_no_state),
        KNOWN_TEST(polled_nonsense_is_dropped_and_counted),
        KNOWN_TEST(state_is_stale_when_neither_source_has_delivered_for_max_age),
        KNOWN_TEST(a_poll_renews_what_the_lost_stream_said_and_the_stream_what_polls_said),
        KNOWN_TEST(when_polls_stop_without_a_stream_state_ages),
        KNOWN_TEST(only_what_routes_use_is_polled),
        KNOWN_TEST(a_name_is_awaited_until_a_poll_that_has_it_or_a_list_that_lacks_it_began_later),
        KNOWN_TEST(a_known_name_that_joins_is_awaited_if_nobody_has_kept_it_up_to_date),
        KNOWN_TEST(what_a_poll_leaves_out_is_not_taken_for_absent),
        KNOWN_TEST(names_of_hosts_are_awaited_until_all_are_polled),
        KNOWN_TEST(a_stream_that_stands_beside_polls_settles_nothing_until_they_stop),
        KNOWN_TEST(another_project_is_asked_for_every_name_anew),
        KNOWN_TEST(a_breaker_is_gone_when_the_list_lacks_it_and_nothing_else_speaks_for_it),
        KNOWN_TEST(a_polled_breaker_that_leaves_the_list_is_gone),
        KNOWN_TEST(a_reconnection_that_lacks_a_known_breaker_asks_for_the_list_once),
        cmocka_unit_test(answers_of_state_batch_are_read_in_both_forms),
    };
    log_set_level(LOG_ERROR); /* what is logged is not what is tested */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
