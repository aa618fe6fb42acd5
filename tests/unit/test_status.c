#include "proxy/status.h"

#include "base/strbuf.h"
#include "proxy/page.h"
#include "tests/unit/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

static int set_up(void **state)
{
    *state = world_new();
    return 0;
}

static int tear_down(void **state)
{
    world_free(*state);
    return 0;
}

static cJSON *parse(struct strbuf *text)
{
    assert_true(strbuf_ok(text));
    cJSON *tree = cJSON_ParseWithLengthOpts(strbuf_str(text), text->len + 1, NULL, true);
    if (tree == NULL)
        fail_msg("not JSON: %s", strbuf_str(text));
    strbuf_free(text);
    return tree;
}

static cJSON *status_of(const struct world *w)
{
    struct strbuf out = STRBUF_INIT;

    status_write(&w->p, &out);
    return parse(&out);
}

static cJSON *breakers_of(const struct world *w)
{
    struct strbuf out = STRBUF_INIT;

    status_breakers(&w->p, &out);
    return parse(&out);
}

/* path: "control.url"; an element of an array by its number. */
static const cJSON *at(const cJSON *tree, const char *path)
{
    char name[64];

    while (tree != NULL && *path != '\0') {
        size_t len = strcspn(path, ".");
        snprintf(name, sizeof(name), "%.*s", (int)len, path);
        tree = cJSON_IsArray(tree) ? cJSON_GetArrayItem(tree, atoi(name))
                                   : cJSON_GetObjectItemCaseSensitive(tree, name);
        path += len + (path[len] == '.');
    }
    return tree;
}

/* want: the value as JSON. */
static void expect(const cJSON *tree, const char *path, const char *want)
{
    const cJSON *item = at(tree, path);

    if (item == NULL)
        fail_msg("%s: absent, want %s", path, want);
    char *got = cJSON_PrintUnformatted(item);
    if (strcmp(got, want) != 0)
        fail_msg("%s: got %s, want %s", path, got, want);
    free(got);
}

static void status_tells_what_runs(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *path, *want;
    } cases[] = {
        { "version", "\"" TRIPSWITCH_VERSION "\"" },
        { "config_hash", "\"0123456789abcdef\"" },
        { "mode", "\"shadow\"" },
        { "fail_mode", "\"closed\"" },
        { "started", "true" },
        { "ready", "false" },
        { "draining", "true" },
        { "bypass", "false" },
        { "listeners.proxy", "[\"127.0.0.1:3128\"]" },
        { "listeners.admin", "[]" },
        { "reload.ok", "4" },
        { "reload.last_ok", "true" },
        { "reload.restart_required_by", "\"workers\"" },
        { "workers.1.index", "1" },
        { "workers.1.live", "true" },
        { "workers.1.client_connections", "7" },
        { "workers.1.tunnels", "5" },
        { "connections.tunnels", "6" },
        { "connections.client", "9" },
        { "connections.client_limit", "4096" },
        { "breakers.open", "1" },
        { "breakers.closed", "0" },
    };

    w->cfg.mode = MODE_SHADOW;
    w->cfg.fail_mode = FAIL_CLOSED;
    atomic_store(&w->p.started, true);
    atomic_store(&w->p.draining, true);
    w->p.reloads_ok = 4;
    w->p.last_reload_ok = true;
    w->p.restart_required = true;
    strcpy(w->p.restart_option, "workers");
    count_add(&w->p.workers[1]->c.client_connections[TRAFFIC_HTTP], 4);
    count_add(&w->p.workers[0]->c.tunnels, 1);
    count_add(&w->p.workers[1]->c.tunnels, 5);
    count_add(&w->p.workers[1]->c.client_connections[TRAFFIC_CONNECT], 3);
    atomic_store(&w->p.connections, 9);
    w->p.connection_limit = 9000;
    w->cfg.limits.connections = 4096;
    world_breaker(w, "b", BREAKER_OPEN, 0);
    cJSON *tree = status_of(w);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        expect(tree, cases[i].path, cases[i].want);
    assert_true(at(tree, "uptime_seconds")->valuedouble >= 0);
    cJSON_Delete(tree);
}

static void a_route_tells_its_mode_and_how_shadow_mode_did(void **state)
{
    struct world *w = *state;
    struct route modes[] = { { .mode = MODE_SHADOW },
                             { .mode = MODE_SHADOW },
                             { .mode = MODE_ENFORCE },
                             { .mode = MODE_OFF } };
    /* Names past the cap share a slot. */
    struct live_route live[] = { { .cfg = &modes[0], .slot = 1 },
                                 { .cfg = &modes[1], .slot = 2 },
                                 { .cfg = &modes[2], .slot = 2 },
                                 { .cfg = &modes[3], .slot = 3 } };
    static const struct {
        const char *path, *want;
    } cases[] = {
        { "routes.0.mode", "\"enforce\"" },
        { "routes.1.mode", "\"shadow\"" },
        { "routes.2.mode", "\"mixed\"" },
        { "routes.3.mode", "\"off\"" },
        { "routes.4.mode", "null" }, /* no longer in the file */
        { "routes.1.shadow_refusals", "{\"right\":3,\"wrong\":1,\"neutral\":0}" },
        { "routes.2.shadow_refusals", "{\"right\":0,\"wrong\":0,\"neutral\":0}" },
    };

    for (unsigned slot = 1; slot <= 4; slot++)
        w->route_names[slot] = "name";
    w->cfg.routes = modes;
    w->cfg.route_count = ARRAY_LEN(live);
    w->snap.routes = live;
    count_add(&w->p.workers[0]->c.routes[1].shadow_refusals[SHADOW_RIGHT], 2);
    count_add(&w->p.workers[1]->c.routes[1].shadow_refusals[SHADOW_RIGHT], 1);
    count_add(&w->p.workers[1]->c.routes[1].shadow_refusals[SHADOW_WRONG], 1);
    cJSON *tree = status_of(w);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        expect(tree, cases[i].path, cases[i].want);
    cJSON_Delete(tree);
}

static void the_connection_limit_is_the_lower_one(void **state)
{
    struct world *w = *state;
    static const struct {
        int64_t configured, possible, want;
    } cases[] = { { 10, 11, 10 }, { 10, 10, 10 }, { 11, 10, 10 } };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        w->cfg.limits.connections = cases[i].configured;
        w->p.connection_limit = cases[i].possible;
        if (status_connection_limit(&w->p) != cases[i].want)
            fail_msg("case %u: %lld", i, (long long)status_connection_limit(&w->p));
    }
}

static void status_has_what_the_official_clients_call_stats(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *path, *want;
    } cases[] = {
        { "stats.dropped_samples", "11111" },
        { "stats.buffer_size", "5" },
        { "stats.buffer_capacity", "10000" },
        { "stats.sse_connected", "true" },
        { "stats.sse_reconnects", "6" },
        { "stats.last_successful_flush", "null" },
        { "stats.last_sse_event", "\"2023-11-14T22:13:20.123000Z\"" },
        { "stats.flush_failures", "8" },
        { "stats.cached_breakers", "12" },
        { "stats.recorded_samples", "10077" },
        { "stats.sent_samples", "77" },
        { "control.connected", "true" },
        { "control.synced", "true" },
        { "control.stale", "false" },
        { "control.last_event", "\"2023-11-14T22:13:20.123000Z\"" },
        { "control.reconnects", "6" },
        { "control.last_error", "\"connection refused\"" },
        { "control.embedded.streams", "1" },
        { "control.embedded.state_file", "\"/var/lib/states\"" },
        { "control.embedded.state_file_writes", "7" },
        { "control.embedded.state_file_write_errors", "2" },
    };

    w->sync[SYNC_SAMPLES_RECORDED] = 77;
    w->sync[SYNC_SAMPLES_SENT] = 77;
    w->sync[SYNC_DROPPED_BUFFER_FULL] = 1;
    w->sync[SYNC_DROPPED_REJECTED] = 10;
    w->sync[SYNC_DROPPED_EXPIRED] = 100;
    w->sync[SYNC_DROPPED_SHUTDOWN] = 1000;
    count_add(&w->p.workers[0]->c.samples_ring_full_values_total, 10000);
    w->gauges = (struct sync_gauges){ .connected = true,
                                      .reconnects = 6,
                                      .samples_buffered = 2,
                                      .samples_in_flight = 3,
                                      .samples_capacity = 10000,
                                      .last_event_wall_ms = 1700000000123,
                                      .flush_failures = 8,
                                      .cached_breakers = 12,
                                      .last_error = "connection refused" };
    w->control.streams = 1;
    w->control.state_written = 7;
    w->control.state_failed = 2;
    w->cfg.embedded.state_file = "/var/lib/states";
    breakers_set_flags(w->p.breakers, STATE_SYNCED | STATE_CONNECTED, 0);
    cJSON *tree = status_of(w);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        expect(tree, cases[i].path, cases[i].want);
    cJSON_Delete(tree);
}

static void routes_show_what_they_counted(void **state)
{
    struct world *w = *state;
    struct route_counters *first = &w->p.workers[0]->c.routes[3];
    struct route_counters *second = &w->p.workers[1]->c.routes[3];

    w->route_names[3] = "pay\"ments";
    count_add(&first->requests[TRAFFIC_HTTP][2][RESULT_FORWARDED], 5);
    count_add(&second->requests[TRAFFIC_HTTP][4][RESULT_FORWARDED], 2);
    count_add(&second->requests[TRAFFIC_HTTP][5][RESULT_REJECTED], 1);
    count_add(&second->attempts[TIER_HTTP][OUTCOME_SUCCESS], 3);
    count_add(&first->attempts[TIER_OPAQUE][OUTCOME_SUCCESS], 1);
    count_add(&first->errors[PERR_DESTINATION_UNAVAILABLE], 1);
    count_add(&first->response_body_bytes, 1000);
    count_add(&second->tunnels_closed_on_open, 2);
    cJSON *tree = status_of(w);
    assert_int_equal(cJSON_GetArraySize(at(tree, "routes")), 2);
    expect(tree, "routes.1.name", "\"pay\\\"ments\"");
    expect(tree, "routes.1.requests", "{\"forwarded\":7,\"rejected\":1}");
    expect(tree, "routes.1.attempts", "{\"success\":4}");
    expect(tree, "routes.1.errors", "{\"destination_unavailable\":1}");
    expect(tree, "routes.1.response_body_bytes", "1000");
    expect(tree, "routes.1.tunnels_closed_on_open", "2");
    cJSON_Delete(tree);
}

static void the_url_is_shown_without_secrets(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *url, *want;
    } cases[] = {
        { "https://api.test", "\"https://api.test\"" },
        { "https://api.test:8443/base", "\"https://api.test:8443/base\"" },
        { "https://user:secret@api.test/x", "\"https://api.test/x\"" },
        { "https://u@ser:secret@api.test", "\"https://api.test\"" },
        { "https://api.test/x@y", "\"https://api.test/x@y\"" },
        { "https://api.test?key=secret", "\"https://api.test\"" },
        { "https://api.test/a?key=secret@x#secret", "\"https://api.test/a\"" },
        { "https://user:secret@", "\"https://\"" },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        free(w->cfg.control.url);
        w->cfg.control.url = xstrdup(cases[i].url);
        cJSON *tree = status_of(w);
        expect(tree, "control.url", cases[i].want);
        cJSON_Delete(tree);
    }
    w->cfg.control.embedded = true;
    cJSON *tree = status_of(w);
    expect(tree, "control.url", "\"embedded\"");
    cJSON_Delete(tree);
}

static void secrets_are_in_no_output(void **state)
{
    struct world *w = *state;
    struct strbuf out = STRBUF_INIT;
    char key[] = "eb_pk_tellnobody";
    char secret[] = "5ec7e75ec7e75ec7e75ec7e7";

    w->cfg.api_key = key;
    w->cfg.ingest_secret = secret;
    status_write(&w->p, &out);
    status_breakers(&w->p, &out);
    status_version(&out);
    page_write(&w->p, false, &out);
    assert_null(strstr(strbuf_str(&out), key));
    assert_null(strstr(strbuf_str(&out), secret));
    strbuf_free(&out);
}

static void status_works_before_anything_is_loaded(void **state)
{
    struct world *w = *state;

    atomic_store(&w->p.snapshot, NULL);
    w->p.sync = NULL;
    w->p.control = NULL;
    cJSON *tree = status_of(w);
    expect(tree, "started", "false");
    expect(tree, "control.url", "null");
    expect(tree, "stats.last_sse_event", "null");
    assert_null(at(tree, "control.embedded"));
    cJSON_Delete(tree);
}

static void breakers_show_state_rate_and_decisions(void **state)
{
    struct world *w = *state;

    world_breaker(w, "idle", BREAKER_UNKNOWN, 0);
    uint32_t id = world_breaker(w, "slow \"db\"\n\xff", BREAKER_HALF_OPEN, 0.25);
    uint32_t null = world_breaker(w, "null", BREAKER_UNKNOWN, 0);
    breakers_store(w->p.breakers, null, BREAKER_HALF_OPEN, 0, true, 1700000000123);
    count_add(&w->p.workers[0]->c.decisions[id][DECISION_THROTTLE], 3);
    count_add(&w->p.workers[1]->c.decisions[id][DECISION_THROTTLE], 4);
    cJSON *tree = breakers_of(w);
    assert_int_equal(cJSON_GetArraySize(tree), 3);
    expect(tree, "0.name", "\"idle\"");
    expect(tree, "0.state", "\"unknown\"");
    expect(tree, "0.known", "false");
    expect(tree, "0.allow_rate", "null");
    expect(tree, "0.since", "null");
    expect(tree, "0.changes", "0");
    expect(tree, "1.name", "\"slow \\\"db\\\"\\n\xef\xbf\xbd\"");
    expect(tree, "1.state", "\"half_open\"");
    expect(tree, "1.known", "true");
    expect(tree, "1.allow_rate", "0.25");
    expect(tree, "1.since", "\"2023-11-14T22:13:20.123000Z\"");
    expect(tree, "1.changes", "1");
    expect(tree, "1.decisions.throttle", "7");
    expect(tree, "1.decisions.allow", "0");
    expect(tree, "2.allow_rate", "null");
    cJSON_Delete(tree);
}

static void breakers_past_the_cap_have_no_decisions_of_their_own(void **state)
{
    struct world *w = *state;

    for (unsigned i = 1; i <= BREAKER_SLOTS; i++) {
        char name[16];
        snprintf(name, sizeof(name), "b%u", i);
        world_breaker(w, name, BREAKER_CLOSED, 1);
    }
    count_add(&w->p.workers[0]->c.decisions[BREAKER_SLOTS - 2][DECISION_ALLOW], 1);
    count_add(&w->p.workers[0]->c.decisions[BREAKER_SLOTS - 1][DECISION_ALLOW], 5);
    cJSON *tree = breakers_of(w);
    expect(tree, "198.name", "\"b199\"");
    expect(tree, "198.decisions.allow", "1");
    expect(tree, "199.name", "\"b200\"");
    expect(tree, "199.decisions", "null");
    expect(tree, "200.decisions", "null");
    cJSON_Delete(tree);
}

static void the_list_of_breakers_is_bounded(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i <= STATUS_BREAKERS_MAX; i++) {
        char name[16];
        snprintf(name, sizeof(name), "b%u", i);
        world_breaker(w, name, BREAKER_CLOSED, 1);
    }
    cJSON *tree = breakers_of(w);
    assert_int_equal(cJSON_GetArraySize(tree), STATUS_BREAKERS_MAX);
    cJSON_Delete(tree);
}

static void one_breaker_is_found_by_its_whole_name(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *name;
        bool found;
    } cases[] = {
        { "payments", true }, { "payment", false }, { "payments2", false }, { "", false }
    };

    world_breaker(w, "x", BREAKER_OPEN, 0);
    world_breaker(w, "payments", BREAKER_CLOSED, 1);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf out = STRBUF_INIT;
        bool found = status_breaker(&w->p, cases[i].name, strlen(cases[i].name), &out);
        if (found != cases[i].found || (out.len > 0) != cases[i].found)
            fail_msg("\"%s\": %s", cases[i].name, found ? strbuf_str(&out) : "not found");
        if (found) {
            cJSON *tree = parse(&out);
            expect(tree, "name", "\"payments\"");
            cJSON_Delete(tree);
        }
        strbuf_free(&out);
    }
    assert_int_equal(breakers_count(w->p.breakers), 2); /* asking makes none */
}

static void a_worker_is_live_for_ten_seconds_after_its_tick(void **state)
{
    struct world *w = *state;
    int64_t start_ms = w->p.start_mono_ms;
    const struct {
        int64_t tick_ms, now_ms;
        bool want;
    } cases[] = {
        { 0, start_ms, true }, /* has not ticked yet */
        { 0, start_ms + 10000, true },
        { 0, start_ms + 10001, false },
        { start_ms + 5000, start_ms + 15000, true },
        { start_ms + 5000, start_ms + 15001, false },
        { start_ms + 5000, start_ms + 4999, true },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        atomic_store(&w->p.workers[0]->tick_ms, cases[i].now_ms);
        atomic_store(&w->p.workers[1]->tick_ms, cases[i].tick_ms);
        if (status_live(&w->p, cases[i].now_ms) != cases[i].want)
            fail_msg("case %u", i);
    }
}

static void ready_is_started_and_not_draining(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i < 4; i++) {
        atomic_store(&w->p.started, (i & 1) != 0);
        atomic_store(&w->p.draining, (i & 2) != 0);
        if (status_ready(&w->p) != (i == 1))
            fail_msg("started %u draining %u", i & 1, i >> 1);
    }
}

/* The page. */

static char *page_of(const struct world *w, bool paused)
{
    struct strbuf out = STRBUF_INIT;

    page_write(&w->p, paused, &out);
    assert_true(strbuf_ok(&out));
    return strbuf_take(&out);
}

static void expect_on_page(const struct world *w, const char *text, bool want)
{
    char *page = page_of(w, false);

    if ((strstr(page, text) != NULL) != want)
        fail_msg("%s on the page: %s", text, want ? "missing" : "there");
    free(page);
}

static void the_banner_says_in_words_what_is_wrong(void **state)
{
    struct world *w = *state;

    expect_on_page(w, "<b>AMBER</b>: still starting; breaker states are not known yet", true);
    atomic_store(&w->p.started, true);
    breakers_set_flags(w->p.breakers, STATE_SYNCED | STATE_CONNECTED, 0);
    world_breaker(w, "b", BREAKER_CLOSED, 1);
    expect_on_page(w, "<b>GREEN</b>: all is well", true);
    breakers_set_flags(w->p.breakers, 0, STATE_CONNECTED);
    expect_on_page(w, "<b>AMBER</b>: the state stream is down", true);
    breakers_set_flags(w->p.breakers, STATE_STALE, 0);
    expect_on_page(w, "<b>AMBER</b>: breaker states are stale", true);
    breakers_set_flags(w->p.breakers, STATE_CONNECTED, STATE_STALE);
    world_breaker(w, "b", BREAKER_HALF_OPEN, 0.5);
    expect_on_page(w, "<b>AMBER</b>: breakers half open: 1", true);
    world_breaker(w, "c", BREAKER_OPEN, 0);
    expect_on_page(w, "<b>RED</b>: breakers open: 1; breakers half open: 1", true);
}

static void names_on_the_page_stay_text(void **state)
{
    struct world *w = *state;

    world_breaker(w, "<script>alert('1')</script>&\"", BREAKER_OPEN, 0);
    expect_on_page(w, "<script", false);
    expect_on_page(w, "&#60;script&#62;alert(&#39;1&#39;)&#60;/script&#62;&#38;&#34;</a>", true);
    expect_on_page(w, "href=\"/breakers/%3Cscript%3Ealert%28%271%27%29%3C%2Fscript%3E%26%22\"",
                   true);
}

static void the_page_shows_open_breakers_first_and_counts_the_rest(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i < PAGE_BREAKERS_MAX; i++) {
        char name[16];
        snprintf(name, sizeof(name), "b%u", i);
        world_breaker(w, name, BREAKER_CLOSED, 1);
    }
    expect_on_page(w, "more in", false);
    world_breaker(w, "troubled", BREAKER_OPEN, 0);
    expect_on_page(w, ">troubled<", true);
    expect_on_page(w, "<p>1 more in", true);
}

static void the_page_refreshes_unless_it_is_paused(void **state)
{
    struct world *w = *state;
    char *page = page_of(w, true);

    assert_null(strstr(page, "http-equiv"));
    free(page);
    expect_on_page(w, "http-equiv=\"refresh\" content=\"5\"", true);
}

static void the_page_lists_our_own_answers_most_frequent_first(void **state)
{
    struct world *w = *state;

    count_add(&w->p.workers[0]->c.routes[0].errors[PERR_DNS_ERROR], 2);
    count_add(&w->p.workers[0]->c.routes[1].errors[PERR_DNS_TIMEOUT], 1);
    count_add(&w->p.workers[1]->c.routes[ROUTE_SLOTS - 1].errors[PERR_DNS_TIMEOUT], 2);
    expect_on_page(w,
                   "<tr><th>dns_timeout</th><td>3</td></tr>\n"
                   "<tr><th>dns_error</th><td>2</td></tr>\n</table>",
                   true);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(status_tells_what_runs),
        TEST(a_route_tells_its_mode_and_how_shadow_mode_did),
        TEST(the_connection_limit_is_the_lower_one),
        TEST(status_has_what_the_official_clients_call_stats),
        TEST(routes_show_what_they_counted),
        TEST(the_url_is_shown_without_secrets),
        TEST(secrets_are_in_no_output),
        TEST(status_works_before_anything_is_loaded),
        TEST(breakers_show_state_rate_and_decisions),
        TEST(breakers_past_the_cap_have_no_decisions_of_their_own),
        TEST(the_list_of_breakers_is_bounded),
        TEST(one_breaker_is_found_by_its_whole_name),
        TEST(a_worker_is_live_for_ten_seconds_after_its_tick),
        TEST(ready_is_started_and_not_draining),
        TEST(the_banner_says_in_words_what_is_wrong),
        TEST(names_on_the_page_stay_text),
        TEST(the_page_shows_open_breakers_first_and_counts_the_rest),
        TEST(the_page_refreshes_unless_it_is_paused),
        TEST(the_page_lists_our_own_answers_most_frequent_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
