#include "control/persist.h"

#include "base/base.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "control/store.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1800000000000)

/* The text. */

struct list {
    const struct persist_entry *entries;
    size_t count, pos;
};

static bool next_of(void *arg, struct persist_entry *e)
{
    struct list *l = arg;

    if (l->pos == l->count)
        return false;
    *e = l->entries[l->pos++];
    return true;
}

static void what_is_written_is_read_again(void **state)
{
    (void)state;
    static const struct persist_entry entries[] = {
        { "payments", NULL, MACHINE_OPEN, NOW - 1000, 0 },
        { "a \"quoted\" \\ name\n", NULL, MACHINE_HALF_OPEN, NOW, 3 },
        { "h\xc3\xb6st.example:8080", "r-h\xc3\xb6st.example:8080", MACHINE_OPEN, 0, UINT32_MAX },
    };
    struct list list = { entries, ARRAY_LEN(entries), 0 };
    struct strbuf text = STRBUF_INIT, why = STRBUF_INIT;
    struct persist_states got;

    persist_encode(next_of, &list, NOW, &text);
    assert_true(strbuf_ok(&text));
    if (persist_decode(text.data, text.len, NOW, &got, &why) < 0)
        fail_msg("%s in %s", strbuf_str(&why), text.data);
    assert_int_equal(got.count, ARRAY_LEN(entries));
    for (size_t i = 0; i < got.count; i++) {
        const struct persist_entry *a = &entries[i], *b = &got.entries[i];

        assert_string_equal(a->name, b->name);
        assert_int_equal(a->router == NULL, b->router == NULL);
        if (a->router)
            assert_string_equal(a->router, b->router);
        assert_int_equal(a->state, b->state);
        assert_int_equal(a->since_wall_ms, b->since_wall_ms);
        assert_int_equal(a->failed_recoveries, b->failed_recoveries);
    }
    persist_free(&got);
    strbuf_free(&text);
}

static bool forever(void *arg, struct persist_entry *e)
{
    size_t *count = arg;

    *e = (struct persist_entry){ .name = "a name of some length", .state = MACHINE_OPEN };
    return ++*count <= 1000000;
}

static void more_than_the_reader_takes_is_not_written(void **state)
{
    (void)state;
    struct strbuf text = STRBUF_INIT;
    size_t count = 0;

    persist_encode(forever, &count, NOW, &text);
    assert_false(strbuf_ok(&text));
    assert_true(text.len <= PERSIST_BYTES_MAX);
    strbuf_free(&text);
}

#define HEAD(version, written)                                                                     \
    "{\"format\": \"tripswitch-proxy breakers\", \"version\": " version                            \
    ", \"written_wall_ms\": " written ", \"breakers\": "
#define FILE_OF(entries) HEAD("1", "1800000000000") "[" entries "]}"
#define ENTRY(name, state, since, failed)                                                          \
    "{\"name\": " name ", \"state\": " state ", \"since_wall_ms\": " since                         \
    ", \"failed_recoveries\": " failed "}"
#define GOOD ENTRY("\"a\"", "\"open\"", "1800000000000", "0")

static void a_damaged_file_is_refused_with_its_reason(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *why; /* NULL: taken */
    } cases[] = {
        { FILE_OF(""), NULL },
        { FILE_OF(GOOD) " \r\n\t", NULL },
        { FILE_OF("{\"later\": [1, {}]," /* a key of a later version */
                  "\"name\": \"a\", \"state\": \"closed\", \"since_wall_ms\": 0, "
                  "\"failed_recoveries\": 4294967295, \"router\": \"r\"}"),
          NULL },
        { HEAD("1", "1800000005000") "[]}", NULL },
        { HEAD("1", "1800000005001") "[]}",
          "it was written 5 s in the future: the clock was set back" },
        { "", "it is not JSON, from byte 0 on" },
        { "not json", "it is not JSON, from byte 0 on" },
        { FILE_OF(GOOD) "}", "it is not JSON, from byte 189 on" },
        { "{\"format\": \"tripswitch-proxy breakers\", \"ver", "it is not JSON, from byte 41 on" },
        { "[[[[[[[[[", "it holds more than a file of breakers can" },
        { "[]", "it does not say that its format is \"tripswitch-proxy breakers\"" },
        { "{\"format\": 1}", "it does not say that its format is \"tripswitch-proxy breakers\"" },
        { "127.0.0.1 localhost\n", "it is not JSON, from byte 5 on" },
        { HEAD("2", "0") "[]}", "its version is 2, and this program knows 1" },
        { HEAD("0", "0") "[]}", "its version is 0, and this program knows 1" },
        { HEAD("\"1\"", "0") "[]}", "version is not a number" },
        { HEAD("1.5", "0") "[]}", "version is not a number" },
        { HEAD("1", "-1") "[]}", "written_wall_ms is not a time" },
        { HEAD("1", "1e300") "[]}", "written_wall_ms is not a time" },
        { HEAD("1", "0") "{}}", "breakers is not an array" },
        { FILE_OF(GOOD ", 1"), "breakers[1] is not an object" },
        { FILE_OF(GOOD ", " GOOD), "breakers[1].name is there twice" },
        { FILE_OF(ENTRY("\"\"", "\"open\"", "0", "0")), "breakers[0].name is not a text" },
        { FILE_OF(ENTRY("7", "\"open\"", "0", "0")), "breakers[0].name is not a text" },
        { FILE_OF(ENTRY("\"a\"", "\"opne\"", "0", "0")),
          "breakers[0].state is not open, half_open or closed" },
        { FILE_OF(ENTRY("\"a\"", "null", "0", "0")),
          "breakers[0].state is not open, half_open or closed" },
        { FILE_OF(ENTRY("\"a\"", "\"open\"", "1800000000001", "0")),
          "breakers[0].since_wall_ms is not a time before written_wall_ms" },
        { FILE_OF(ENTRY("\"a\"", "\"open\"", "-1", "0")),
          "breakers[0].since_wall_ms is not a time before written_wall_ms" },
        { FILE_OF(ENTRY("\"a\"", "\"open\"", "0.5", "0")),
          "breakers[0].since_wall_ms is not a time before written_wall_ms" },
        { FILE_OF(ENTRY("\"a\"", "\"open\"", "0", "4294967296")),
          "breakers[0].failed_recoveries is not a count" },
        { FILE_OF(ENTRY("\"a\"", "\"open\"", "0", "-1")),
          "breakers[0].failed_recoveries is not a count" },
        { FILE_OF("{\"name\": \"a\", \"state\": \"open\", \"since_wall_ms\": 0, "
                  "\"failed_recoveries\": 0, \"router\": 1}"),
          "breakers[0].router is not a text" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf why = STRBUF_INIT;
        struct persist_states got;
        int rc = persist_decode(cases[i].text, strlen(cases[i].text), NOW, &got, &why);

        if ((rc == 0) != (cases[i].why == NULL) ||
            strcmp(strbuf_str(&why), cases[i].why ? cases[i].why : "") != 0)
            fail_msg("%s:\n got %s\nwant %s", cases[i].text, strbuf_str(&why), cases[i].why);
        if (rc == 0)
            persist_free(&got);
        strbuf_free(&why);
    }
}

static void a_file_of_a_whole_limit_is_taken_and_one_byte_more_is_not(void **state)
{
    (void)state;
    struct strbuf text = STRBUF_INIT, why = STRBUF_INIT;
    struct persist_states got;

    strbuf_adds(&text, FILE_OF(GOOD));
    while (text.len < PERSIST_BYTES_MAX)
        strbuf_addc(&text, ' ');
    assert_int_equal(persist_decode(text.data, text.len, NOW, &got, &why), 0);
    persist_free(&got);
    strbuf_addc(&text, ' ');
    assert_int_equal(persist_decode(text.data, text.len, NOW, &got, &why), -1);
    assert_string_equal(strbuf_str(&why), "it is over 16777216 bytes");
    strbuf_free(&text);
    strbuf_free(&why);
}

static void a_file_of_too_many_values_is_refused_before_it_is_parsed(void **state)
{
    (void)state;
    struct strbuf text = STRBUF_INIT, why = STRBUF_INIT;
    struct persist_states got;

    strbuf_adds(&text, "[0");
    for (size_t i = 0; i < 8 * PERSIST_ENTRIES_MAX; i++)
        strbuf_adds(&text, ",0");
    strbuf_adds(&text, "]");
    assert_int_equal(persist_decode(text.data, text.len, NOW, &got, &why), -1);
    assert_string_equal(strbuf_str(&why), "it holds more than a file of breakers can");
    strbuf_free(&text);
    strbuf_free(&why);
}

/* Two runs: the second store reads what the first one wrote. */

struct world {
    struct config cfg;
    struct route routes[2];
    struct breaker_def def;
    struct store *store;
    int64_t mono_ms, wall_ms;
    size_t pos;
};

static char *const host_names[] = { "{host}", "{host}-slow" };
static char *const full_name[] = { "payments" };

static void ignore(void *arg, const struct store_change *change)
{
    (void)arg;
    (void)change;
}

static struct store_now now_of(const struct world *w)
{
    return (struct store_now){ w->mono_ms, w->wall_ms };
}

static void begin(struct world *w)
{
    store_free(w->store);
    w->store = store_new(ignore, NULL);
    store_configure(w->store, &w->cfg, now_of(w));
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    w->cfg.limits.auto_breakers = 4;
    w->cfg.embedded.auto_breaker = (struct breaker_def){
        .kind = "consecutive_failures",
        .op = "gte",
        .threshold = 1,
        .window_ms = 60000,
        .eval_interval_ms = 100,
        .cooldown_ms = 5000,
        .half_open_backoff_enabled = true,
        .half_open_backoff_cap_ms = 60000,
        .half_open_indeterminate_policy = "conservative",
        .recovery_allow_rate_ramp_steps = 3,
    };
    w->routes[0] = (struct route){ .name = "full", .router = "r" };
    w->routes[0].breakers.items = (char **)full_name;
    w->routes[0].breakers.count = 1;
    w->routes[1] = (struct route){ .name = "hosts", .router = "{host}" };
    w->routes[1].breakers.items = (char **)host_names;
    w->routes[1].breakers.count = 2;
    w->cfg.routes = w->routes;
    w->cfg.route_count = 2;
    w->mono_ms = 1000000;
    w->wall_ms = NOW;
    begin(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    store_free(w->store);
    free(w);
    return 0;
}

static void fail_once(struct world *w, const char *router)
{
    const struct store_sample s = {
        .router_id = router, .metric = "latency", .ts_ms = w->wall_ms, .ok = false
    };

    store_sample(w->store, &s, now_of(w));
}

static void pass(struct world *w, int64_t ms)
{
    for (int64_t i = 0; i < ms; i += 100) {
        w->mono_ms += 100;
        w->wall_ms += 100;
        store_tick(w->store, now_of(w));
    }
}

static bool next_unclosed(void *arg, struct persist_entry *e)
{
    struct world *w = arg;

    return store_unclosed_next(w->store, &w->pos, now_of(w), e);
}

/* The process ends, and another starts away_ms later on a machine that was up for mono_ms. */
static size_t restart(struct world *w, int64_t away_ms, int64_t mono_ms)
{
    struct strbuf text = STRBUF_INIT, why = STRBUF_INIT;
    struct persist_states states;
    size_t resumed = 0;

    w->pos = 0;
    persist_encode(next_unclosed, w, w->wall_ms, &text);
    w->wall_ms += away_ms;
    w->mono_ms = mono_ms;
    begin(w);
    if (persist_decode(text.data, text.len, w->wall_ms, &states, &why) < 0)
        fail_msg("%s in %s", strbuf_str(&why), text.data);
    for (size_t i = 0; i < states.count; i++)
        resumed += store_resume(w->store, &states.entries[i], now_of(w));
    persist_free(&states);
    strbuf_free(&text);
    return resumed;
}

static void expect_state(const struct world *w, const char *name, const char *want)
{
    for (size_t i = 0; i < store_breaker_count(w->store); i++) {
        struct store_breaker b = store_breaker_at(w->store, i);

        if (strcmp(b.name, name) == 0) {
            if (strcmp(b.state, want) != 0)
                fail_msg("%s is %s, not %s", name, b.state, want);
            return;
        }
    }
    fail_msg("there is no breaker %s", name);
}

static void an_open_breaker_stays_open_for_the_rest_of_its_cooldown(void **state)
{
    struct world *w = *state;

    fail_once(w, "r");
    pass(w, 2000);
    assert_int_equal(restart(w, 1000, 200), 1); /* the machine was started anew */
    expect_state(w, "payments", "open");
    pass(w, 1900);
    expect_state(w, "payments", "open");
    pass(w, 200);
    expect_state(w, "payments", "half_open");
}

static void a_cooldown_that_ended_meanwhile_is_over_at_the_first_look(void **state)
{
    struct world *w = *state;

    fail_once(w, "r");
    restart(w, INT64_C(30) * 24 * 3600 * 1000, 200);
    expect_state(w, "payments", "open");
    pass(w, 100);
    expect_state(w, "payments", "half_open");
}

static void failed_recoveries_go_on_doubling_the_cooldown(void **state)
{
    struct world *w = *state;

    fail_once(w, "r");
    pass(w, 5100);
    expect_state(w, "payments", "half_open");
    fail_once(w, "r"); /* a failed recovery: 10 s from now on */
    expect_state(w, "payments", "open");
    assert_int_equal(restart(w, 0, 5000000), 1);
    pass(w, 9900);
    expect_state(w, "payments", "open");
    pass(w, 200);
    expect_state(w, "payments", "half_open");
}

static void a_half_open_breaker_begins_its_phase_anew(void **state)
{
    struct world *w = *state;

    fail_once(w, "r");
    pass(w, 5100);
    assert_int_equal(restart(w, 60000, 5000000), 1);
    expect_state(w, "payments", "half_open");
    assert_true(store_breaker_at(w->store, 0).allow_rate == 0.25);
    fail_once(w, "r");
    pass(w, 9900);
    expect_state(w, "payments", "open"); /* it was the first failed recovery */
}

static void breakers_of_hosts_are_made_again_with_what_feeds_them(void **state)
{
    struct world *w = *state;

    fail_once(w, "b.example");
    assert_int_equal(restart(w, 100, 5000000), 2);
    expect_state(w, "b.example", "open");
    expect_state(w, "b.example-slow", "open");
    assert_true(store_has_router(w->store, "b.example"));
    pass(w, 5000);
    fail_once(w, "b.example");
    expect_state(w, "b.example-slow", "open"); /* its samples arrive: a failed recovery */
    pass(w, 9900);
    expect_state(w, "b.example-slow", "open");
}

static void hosts_beyond_the_limit_and_names_nobody_has_are_dropped(void **state)
{
    struct world *w = *state;
    struct store_status st;

    fail_once(w, "b.example");
    fail_once(w, "c.example");
    fail_once(w, "r");
    w->cfg.limits.auto_breakers = 3; /* one host of two breakers fits */
    w->routes[0].breakers.count = 0;
    assert_int_equal(restart(w, 0, 5000000), 2);
    assert_int_equal(store_breaker_count(w->store), 2);
    expect_state(w, "b.example", "open");
    store_status(w->store, &st);
    assert_int_equal(st.auto_breakers, 2);
    assert_int_equal(st.auto_refused, 0); /* counts samples */
    assert_int_equal(st.transitions, 0);
}

static void closed_breakers_are_not_written(void **state)
{
    struct world *w = *state;
    struct persist_entry e;

    w->pos = 0;
    assert_false(next_unclosed(w, &e));
    fail_once(w, "r");
    w->pos = 0;
    assert_true(next_unclosed(w, &e));
    assert_string_equal(e.name, "payments");
    assert_null(e.router);
    assert_false(next_unclosed(w, &e));
}

static void a_clock_set_back_a_little_starts_the_cooldown_anew(void **state)
{
    struct world *w = *state;

    fail_once(w, "r");
    assert_int_equal(restart(w, -PERSIST_AHEAD_MS, 5000000), 1);
    pass(w, 4900);
    expect_state(w, "payments", "open");
    pass(w, 200);
    expect_state(w, "payments", "half_open");
}

int main(void)
{
#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(more_than_the_reader_takes_is_not_written),
        cmocka_unit_test(a_damaged_file_is_refused_with_its_reason),
        cmocka_unit_test(a_file_of_a_whole_limit_is_taken_and_one_byte_more_is_not),
        cmocka_unit_test(a_file_of_too_many_values_is_refused_before_it_is_parsed),
        WITH_WORLD(an_open_breaker_stays_open_for_the_rest_of_its_cooldown),
        WITH_WORLD(a_cooldown_that_ended_meanwhile_is_over_at_the_first_look),
        WITH_WORLD(failed_recoveries_go_on_doubling_the_cooldown),
        WITH_WORLD(a_half_open_breaker_begins_its_phase_anew),
        WITH_WORLD(breakers_of_hosts_are_made_again_with_what_feeds_them),
        WITH_WORLD(hosts_beyond_the_limit_and_names_nobody_has_are_dropped),
        WITH_WORLD(closed_breakers_are_not_written),
        WITH_WORLD(a_clock_set_back_a_little_starts_the_cooldown_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
