#include "base/base.h"
#include "base/log.h"
#include "config/config.h"
#include "sync/breakers.h"
#include "sync/known.h"
#include "sync/sync.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static _Atomic uint64_t counters[SYNC_COUNTER_COUNT];
static struct breakers *table;
static struct known *known;
static int64_t now;

static uint32_t id_of(const char *name)
{
    return breakers_intern(table, name, strlen(name));
}

static void configure(const char *a, const char *b, bool templated, int64_t max_age_ms)
{
    uint32_t used[2];
    size_t n = 0;
    if (a)
        used[n++] = id_of(a);
    if (b)
        used[n++] = id_of(b);
    const struct known_options o = { used, n, templated, false, max_age_ms, false };
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

static enum known_result event(const char *name, const char *s, const char *rate)
{
    char json[400];
    int len = snprintf(json, sizeof(json),
                       "{\"breaker\":\"%s\",\"state\":\"%s\",\"allow_rate\":%s}", name, s, rate);
    return known_event(known, json, (size_t)len, now, 1000000 + now);
}

static void flags_are(unsigned want, const char *why)
{
    unsigned got = breakers_flags(table);
    if (got != want)
        fail_msg("%s: flags %#x, want %#x", why, got, want);
}

/* Sleep like the thread does: tick exactly when asked to. */
static void run_until(int64_t t)
{
    while (known_next_ms(known) <= t) {
        if (known_next_ms(known) > now)
            now = known_next_ms(known);
        int64_t before = known_next_ms(known);
        known_tick(known, now);
        if (known_next_ms(known) <= before)
            fail_msg("a tick at %lld leaves itself due", (long long)now);
    }
    now = t;
}

enum { UP = STATE_CONNECTED, UP_SYNCED = STATE_CONNECTED | STATE_SYNCED };

static void synced_when_all_used_names_were_seen(void **state)
{
    (void)state;
    configure("a", "b", false, 60000);
    flags_are(0, "before");
    known_connected(known, now);
    flags_are(UP, "connected");
    event("a", "closed", "null");
    event("other", "open", "null");
    event("a", "closed", "null");
    flags_are(UP, "b is not seen yet");
    event("b", "open", "null");
    flags_are(UP_SYNCED, "both are seen");
    assert_int_equal(counters[SYNC_EVENTS_SNAPSHOT], 4);
    event("b", "closed", "null");
    assert_int_equal(counters[SYNC_EVENTS_STATE], 1);
    assert_int_equal(known_cached(known), 3); /* names that no route uses are kept too */
    assert_int_equal(known_missing(known), 0);
}

static void synced_by_a_comment(void **state)
{
    (void)state;
    configure("a", NULL, false, 60000);
    known_comment(known, now); /* cannot be: not connected */
    flags_are(0, "not connected");
    known_connected(known, now);
    known_comment(known, now);
    flags_are(UP_SYNCED, "comment");
    assert_int_equal(known_missing(known), 1);
    event("a", "closed", "null"); /* created later */
    assert_int_equal(known_missing(known), 0);
}

static void synced_after_a_quarter_second_without_an_event(void **state)
{
    (void)state;
    configure("a", "b", false, 60000);
    known_connected(known, now);
    int64_t start = now;
    run_until(start + 200);
    event("a", "closed", "null");
    run_until(start + 449);
    flags_are(UP, "249 ms of silence");
    run_until(start + 450);
    flags_are(UP_SYNCED, "250 ms of silence");
    assert_int_equal(known_missing(known), 1);
}

static void a_stream_that_never_falls_quiet_is_synced_after_five_seconds(void **state)
{
    (void)state;
    configure("a", NULL, false, 60000);
    known_connected(known, now);
    int64_t start = now;
    while (now < start + 4900) {
        run_until(now + 100);
        event("busy", now % 200 ? "open" : "closed", "null");
        flags_are(UP, "busy");
    }
    run_until(start + 5000);
    flags_are(UP_SYNCED, "five seconds");
}

static void names_from_hosts_cannot_be_waited_for(void **state)
{
    (void)state;
    configure(NULL, NULL, true, 60000);
    known_connected(known, now);
    event("example.com", "open", "null");
    flags_are(UP, "there may be more");
    run_until(now + 250);
    flags_are(UP_SYNCED, "quiet");
    assert_int_equal(known_missing(known), 0);
}

static void without_names_there_is_nothing_to_wait_for(void **state)
{
    (void)state;
    configure(NULL, NULL, false, 60000);
    known_connected(known, now);
    flags_are(UP_SYNCED, "connected");
    run_until(now + KNOWN_QUIET_MS); /* the snapshot is whole then, for names that join later */
    run_until(now + KNOWN_ADOPTED_MS);
    assert_int_equal(known_next_ms(known), INT64_MAX);
}

static void while_breakers_are_to_be_selected_a_snapshot_may_hold_more(void **state)
{
    (void)state;
    const struct known_options none = { NULL, 0, false, true, OFF, false };
    known_configure(known, &none, now);
    known_connected(known, now);
    int64_t start = now;
    while (now < start + 1000) {
        run_until(now + 50);
        event("one of many", "closed", "null");
        flags_are(UP, "it is still coming");
    }
    configure("a", NULL, false, OFF); /* the list has come */
    run_until(now + KNOWN_QUIET_MS - 1);
    flags_are(UP, "a is not seen yet");
    event("a", "open", "null");
    flags_are(UP_SYNCED, "now it is");
    assert_int_equal(known_missing(known), 0);
}

static void a_name_that_joins_while_the_snapshot_comes_is_awaited_like_all_others(void **state)
{
    (void)state;
    static const struct {
        int64_t gap_ms;   /* between events */
        int64_t lasts_ms; /* awaited, from the start */
    } cases[] = { { 100, KNOWN_SETTLE_MS }, { 1000, 10 + KNOWN_QUIET_MS } };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        tear_down(NULL);
        set_up(NULL);
        configure("a", NULL, false, OFF);
        known_connected(known, now);
        int64_t start = now;
        run_until(start + 10);
        event("a", "closed", "null");
        flags_are(UP_SYNCED, "all were seen");
        configure("a", "b", false, OFF);
        int64_t next = start + 10 + cases[i].gap_ms;
        for (; next < start + cases[i].lasts_ms; next += cases[i].gap_ms) {
            run_until(next);
            event("one of many", "closed", "null");
        }
        run_until(start + cases[i].lasts_ms - 1);
        assert_int_equal(known_awaited(known), 1);
        assert_int_equal(known_missing(known), 0);
        assert_true(breaker_is_awaited(breaker_unpack(breakers_load(table, id_of("b")))));
        run_until(start + cases[i].lasts_ms);
        assert_int_equal(known_awaited(known), 0);
        assert_int_equal(known_missing(known), 1);
        flags_are(UP_SYNCED, "as before");
    }
}

static void a_name_that_joins_while_the_stream_is_lost_is_awaited_until_it_is_back(void **state)
{
    (void)state;
    configure("a", NULL, false, OFF);
    known_connected(known, now);
    event("a", "closed", "null");
    known_comment(known, now);
    known_lost(known, now);
    configure("a", "b", false, OFF);
    assert_int_equal(known_awaited(known), 1);
    assert_int_equal(known_missing(known), 0);
    configure("a", NULL, true, OFF); /* b leaves, and any host may come */
    run_until(now + KNOWN_ADOPTED_MS);
    assert_false(breaker_is_awaited(breaker_unpack(breakers_load(table, id_of("b")))));
    flags_are(STATE_SYNCED | STATE_AWAITED, "hosts");
    known_connected(known, now);
    flags_are(UP_SYNCED | STATE_AWAITED, "its snapshot has yet to come");
    known_comment(known, now);
    flags_are(UP_SYNCED, "it has");
    configure("a", "b", true, OFF);
    assert_int_equal(known_awaited(known), 0);
    assert_int_equal(known_missing(known), 1);
}

static void state_is_stale_when_the_stream_is_lost_for_max_age(void **state)
{
    (void)state;
    static const struct {
        int64_t max_age_ms;
        bool stale_at_once, stale_in_time;
    } cases[] = { { 60000, false, true }, { 0, true, true }, { OFF, false, false } };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        tear_down(NULL);
        set_up(NULL);
        configure("a", NULL, false, cases[i].max_age_ms);
        known_connected(known, now);
        event("a", "open", "null");
        known_lost(known, now);
        int64_t lost = now;
        flags_are(STATE_SYNCED | (cases[i].stale_at_once ? STATE_STALE : 0), "lost");
        run_until(lost + 59999);
        flags_are(STATE_SYNCED | (cases[i].stale_at_once ? STATE_STALE : 0), "almost");
        run_until(lost + 60000);
        flags_are(STATE_SYNCED | (cases[i].stale_in_time ? STATE_STALE : 0), "a minute later");
        /* the last state stays, the flag says what it is worth */
        assert_int_equal(breaker_unpack(breakers_load(table, id_of("a"))).state, BREAKER_OPEN);
        known_connected(known, now);
        flags_are(UP_SYNCED | (cases[i].stale_in_time ? STATE_STALE : 0),
                  "connected is not synced");
        event("a", "open", "null");
        flags_are(UP_SYNCED, "synced again");
    }
}

static void never_synced_is_not_stale(void **state)
{
    (void)state;
    configure("a", NULL, false, 1000);
    known_lost(known, now);
    known_connected(known, now);
    known_lost(known, now);
    run_until(now + 100000);
    flags_are(0, "never synced");
}

static void connections_without_a_snapshot_do_not_renew_what_is_known(void **state)
{
    (void)state;
    configure("a", NULL, false, 60000);
    known_connected(known, now);
    event("a", "open", "null");
    int64_t lost = now;
    known_lost(known, now);
    for (int i = 1; i < 60; i++) { /* accepted and cut, again and again */
        run_until(lost + i * 1000);
        known_connected(known, now);
        run_until(now + 100);
        known_lost(known, now);
    }
    run_until(lost + 59999);
    flags_are(STATE_SYNCED, "not yet");
    run_until(lost + 60000);
    flags_are(STATE_SYNCED | STATE_STALE, "a minute after the last good one");
}

static void a_connection_that_says_nothing_does_not_renew_what_is_known(void **state)
{
    (void)state;
    enum known_before { EVENT, COMMENT };
    for (enum known_before before = EVENT; before <= COMMENT; before++) {
        tear_down(NULL);
        set_up(NULL);
        configure("a", NULL, false, 60000);
        known_connected(known, now);
        if (before == EVENT)
            event("a", "open", "null");
        else
            known_comment(known, now);
        int64_t lost = now;
        known_lost(known, now);
        known_connected(known, now);
        run_until(lost + 30000);
        assert_false(known_trusted(known));
        known_lost(known, now);
        known_connected(known, now);
        run_until(lost + 59999);
        flags_are(UP_SYNCED, "not yet");
        run_until(lost + 60000);
        flags_are(UP_SYNCED | STATE_STALE, "a minute after the last word");
        known_lost(known, now);
        known_connected(known, now);
        run_until(now + 100000);
        flags_are(UP_SYNCED | STATE_STALE, "silence makes nothing fresh");
        known_other(known, now); /* an event of another name */
        run_until(now + KNOWN_QUIET_MS);
        flags_are(UP_SYNCED, "it works");
        assert_true(known_trusted(known));
    }
}

static void a_snapshot_begins_with_its_first_word_however_late_that_comes(void **state)
{
    (void)state;
    configure("a", NULL, true, OFF);
    known_connected(known, now);
    event("a", "open", "null");
    known_lost(known, now);
    known_connected(known, now);
    run_until(now + 3 * KNOWN_SETTLE_MS);
    event("b", "closed", "null");
    run_until(now + KNOWN_QUIET_MS - 1);
    assert_false(known_trusted(known));
    run_until(now + 1);
    assert_true(known_trusted(known));
    assert_false(known_wants_list(known)); /* a may yet come */
    run_until(now + KNOWN_SETTLE_MS);
    assert_true(known_wants_list(known));
}

static void where_nobody_has_said_anything_silence_counts_until_polls_begin(void **state)
{
    (void)state;
    configure("a", NULL, true, 1000);
    for (int i = 0; i < 2; i++) { /* again, as after a deployment of the control plane */
        known_connected(known, now);
        run_until(now + KNOWN_QUIET_MS);
        flags_are(UP_SYNCED, "no breakers, it seems");
        assert_int_equal(known_missing(known), 1);
        known_lost(known, now);
    }
    known_connected(known, now);
    run_until(now + KNOWN_QUIET_MS);
    known_set_polling(known, true, now);
    flags_are(UP, "the stream does not work");
    assert_int_equal(known_missing(known), 0);
    assert_true(breaker_is_awaited(breaker_unpack(breakers_load(table, id_of("a")))));
    known_lost(known, now);
    known_connected(known, now);
    run_until(now + 100000);
    flags_are(UP, "nor does another one that is mute");
    known_poll_ended(known, true, now);
    flags_are(UP_SYNCED | STATE_AWAITED, "a poll works, though this one was not for hosts");
    known_comment(known, now);
    known_set_polling(known, false, now);
    flags_are(UP_SYNCED, "the stream works");
    assert_int_equal(known_missing(known), 1);
}

static bool is_awaited(const char *name)
{
    return breaker_is_awaited(breaker_unpack(breakers_load(table, id_of(name))));
}

static void a_name_that_leaves_stays_awaited_until_no_worker_goes_by_it(void **state)
{
    (void)state;
    configure("v", NULL, true, OFF);
    known_poll_ended(known, true, now);
    flags_are(STATE_SYNCED | STATE_AWAITED, "neither v nor hosts were polled");
    configure("w", NULL, false, OFF);
    run_until(now + KNOWN_ADOPTED_MS - 1);
    assert_true(is_awaited("v"));
    flags_are(STATE_SYNCED | STATE_AWAITED, "nor are hosts known");
    configure("v", NULL, false, OFF); /* back in time */
    run_until(now + KNOWN_ADOPTED_MS - 1);
    assert_true(is_awaited("v"));
    assert_true(is_awaited("w"));
    run_until(now + 1);
    assert_true(is_awaited("v"));
    assert_false(is_awaited("w"));
    flags_are(STATE_SYNCED, "no route has hosts");
}

static void a_name_that_is_new_to_the_embedded_control_plane_is_not_missing_at_once(void **state)
{
    (void)state;
    const uint32_t used[] = { id_of("a"), id_of("b") };
    struct known_options o = { used, 1, false, false, OFF, true };
    known_configure(known, &o, now);
    known_connected(known, now);
    event("a", "closed", "null");
    run_until(now + KNOWN_ADOPTED_MS);
    for (int comes = 1; comes >= 0; comes--) {
        o.used_count = 2;
        known_configure(known, &o, now);
        assert_int_equal(known_missing(known), 0);
        assert_int_equal(known_awaited(known), 1);
        if (comes)
            event("b", "closed", "null");
        assert_int_equal(known_awaited(known), !comes);
        run_until(now + KNOWN_ADOPTED_MS);
        assert_int_equal(known_awaited(known), 0);
        assert_int_equal(known_missing(known), !comes);
        known_forget(known, now);
        o.used_count = 1;
        known_configure(known, &o, now);
        event("a", "closed", "null");
        known_comment(known, now);
    }
}

static void a_breaker_absent_from_a_later_snapshot_keeps_its_state(void **state)
{
    (void)state;
    configure("a", NULL, false, 60000);
    known_connected(known, now);
    event("a", "half_open", "0.25");
    known_lost(known, now);
    known_connected(known, now);
    known_comment(known, now);
    struct breaker_view v = breaker_unpack(breakers_load(table, id_of("a")));
    assert_int_equal(v.state, BREAKER_HALF_OPEN);
    assert_int_equal(v.rate, BREAKER_RATE_ONE / 4);
    assert_int_equal(known_missing(known), 0);
}

static void bad_events_change_nothing_and_are_counted(void **state)
{
    (void)state;
    configure("a", NULL, false, 60000);
    known_connected(known, now);
    assert_int_equal(event("a", "open", "null"), KNOWN_NEWS);
    uint64_t word = breakers_load(table, id_of("a"));
    static const struct {
        const char *s, *rate;
        enum known_result want;
    } cases[] = {
        { "ajar", "null", KNOWN_UNKNOWN },       { "half_open", "1.5", KNOWN_INVALID },
        { "half_open", "\"x\"", KNOWN_INVALID }, { "half_open", "", KNOWN_INVALID },
        { "open", "null", KNOWN_SAME },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        enum known_result got = event("a", cases[i].s, cases[i].rate);
        if (got != cases[i].want || breakers_load(table, id_of("a")) != word)
            fail_msg("%s %s: got %d", cases[i].s, cases[i].rate, got);
    }
    assert_int_equal(counters[SYNC_EVENTS_UNKNOWN], 1);
    assert_int_equal(counters[SYNC_EVENTS_INVALID], 3);
    assert_int_equal(counters[SYNC_EVENTS_STATE] + counters[SYNC_EVENTS_SNAPSHOT], 2);
}

static void a_null_rate_admits_nobody(void **state)
{
    (void)state;
    configure("a", NULL, false, 60000);
    known_connected(known, now);
    event("a", "half_open", "null");
    struct breaker_view v = breaker_unpack(breakers_load(table, id_of("a")));
    assert_true(v.rate_null);
    assert_int_equal(v.rate, 0);
    event("a", "half_open", "0");
    v = breaker_unpack(breakers_load(table, id_of("a")));
    assert_false(v.rate_null);
}

static void a_reload_that_names_more_breakers_judges_them_at_once(void **state)
{
    (void)state;
    configure("a", NULL, false, 60000);
    known_connected(known, now);
    event("b", "open", "null"); /* no route uses it yet */
    event("a", "closed", "null");
    configure("a", "b", false, 60000);
    assert_int_equal(known_missing(known), 0);
    known_comment(known, now);
    configure("a", "c", false, 60000);
    assert_int_equal(known_missing(known), 1);
    flags_are(UP_SYNCED, "still synced");
    configure("a", NULL, false, 60000);
    assert_int_equal(known_missing(known), 0);
}

static void another_project_starts_from_nothing(void **state)
{
    (void)state;
    configure("a", NULL, false, 60000);
    known_connected(known, now);
    event("a", "open", "null");
    known_lost(known, now);
    known_forget(known, now);
    flags_are(0, "forgotten");
    assert_int_equal(breaker_unpack(breakers_load(table, id_of("a"))).state, BREAKER_UNKNOWN);
    assert_int_equal(known_cached(known), 0);
    known_connected(known, now);
    event("a", "closed", "null");
    assert_int_equal(known_cached(known), 1);
    flags_are(UP_SYNCED, "the new project's");
}

/* Standard error as a file, and the lines above that level. */
struct capture {
    int real, file;
    char text[8192];
};

static void capture_begin(struct capture *c, bool server_logs, enum log_level level)
{
    const struct known_options o = { NULL, 0, false, false, OFF, server_logs };
    known_configure(known, &o, now);
    known_connected(known, now);
    c->real = dup(STDERR_FILENO);
    c->file = memfd_create("stderr", MFD_CLOEXEC);
    dup2(c->file, STDERR_FILENO);
    log_set_level(level);
}

static void capture_end(struct capture *c)
{
    log_set_level(LOG_ERROR);
    dup2(c->real, STDERR_FILENO);
    ssize_t n = pread(c->file, c->text, sizeof(c->text) - 1, 0);
    c->text[n > 0 ? n : 0] = '\0';
    close(c->real);
    close(c->file);
}

static int count_of(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
        n++;
    return n;
}

static void
a_move_is_an_info_line_unless_the_server_has_it_and_a_step_is_for_debugging(void **state)
{
    static const struct {
        bool server_logs;
        enum log_level level;
        int moves, steps;
    } cases[] = {
        { false, LOG_INFO, 2, 0 },
        { false, LOG_DEBUG, 2, 1 },
        { true, LOG_INFO, 0, 0 },
        { true, LOG_DEBUG, 2, 1 },
    };
    struct capture c;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        tear_down(NULL);
        set_up(state);
        capture_begin(&c, cases[i].server_logs, cases[i].level);
        event("a", "half_open", "0.25");
        event("a", "half_open", "0.5");
        event("a", "closed", "null");
        capture_end(&c);
        int moves = count_of(c.text, "\"breaker.transition\"");
        int steps = count_of(c.text, "\"breaker.allow_rate\"");
        if (moves != cases[i].moves || steps != cases[i].steps)
            fail_msg("case %zu: %d moves, %d steps in %s", i, moves, steps, c.text);
    }
}

static void moves_that_are_not_written_do_not_count_as_too_many(void **state)
{
    struct capture c;
    (void)state;
    capture_begin(&c, true, LOG_INFO);
    for (int i = 0; i < 100; i++)
        event("a", i % 2 ? "closed" : "open", "null");
    capture_end(&c);
    assert_string_equal(c.text, "");
}

int main(void)
{
#define KNOWN_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        KNOWN_TEST(synced_when_all_used_names_were_seen),
        KNOWN_TEST(synced_by_a_comment),
        KNOWN_TEST(synced_after_a_quarter_second_without_an_event),
        KNOWN_TEST(a_stream_that_never_falls_quiet_is_synced_after_five_seconds),
        KNOWN_TEST(names_from_hosts_cannot_be_waited_for),
        KNOWN_TEST(without_names_there_is_nothing_to_wait_for),
        KNOWN_TEST(while_breakers_are_to_be_selected_a_snapshot_may_hold_more),
        KNOWN_TEST(a_name_that_joins_while_the_snapshot_comes_is_awaited_like_all_others),
        KNOWN_TEST(a_name_that_joins_while_the_stream_is_lost_is_awaited_until_it_is_back),
        KNOWN_TEST(state_is_stale_when_the_stream_is_lost_for_max_age),
        KNOWN_TEST(never_synced_is_not_stale),
        KNOWN_TEST(connections_without_a_snapshot_do_not_renew_what_is_known),
        KNOWN_TEST(a_connection_that_says_nothing_does_not_renew_what_is_known),
        KNOWN_TEST(a_snapshot_begins_with_its_first_word_however_late_that_comes),
        KNOWN_TEST(where_nobody_has_said_anything_silence_counts_until_polls_begin),
        KNOWN_TEST(a_name_that_leaves_stays_awaited_until_no_worker_goes_by_it),
        KNOWN_TEST(a_name_that_is_new_to_the_embedded_control_plane_is_not_missing_at_once),
        KNOWN_TEST(a_breaker_absent_from_a_later_snapshot_keeps_its_state),
        KNOWN_TEST(bad_events_change_nothing_and_are_counted),
        KNOWN_TEST(a_null_rate_admits_nobody),
        KNOWN_TEST(a_reload_that_names_more_breakers_judges_them_at_once),
        KNOWN_TEST(another_project_starts_from_nothing),
        KNOWN_TEST(a_move_is_an_info_line_unless_the_server_has_it_and_a_step_is_for_debugging),
        KNOWN_TEST(moves_that_are_not_written_do_not_count_as_too_many),
    };
    log_set_level(LOG_ERROR); /* transitions are not what is tested */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
