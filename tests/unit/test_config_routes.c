#include "tests/unit/test_config.h"

/* A file with this text inside the one route it has, or inside "defaults". */
static struct outcome_of_load load_route(const char *route, const char *defaults)
{
    struct strbuf json = STRBUF_INIT;

    strbuf_addf(&json, "{\"defaults\": {%s},\n\"routes\": [{%s}]}", defaults ? defaults : "",
                route);
    struct outcome_of_load r = load_all(strbuf_str(&json), json.len, NULL, NULL);
    strbuf_free(&json);
    return r;
}

static const char *tag(const struct route *r, const char *name)
{
    for (size_t i = 0; i < r->tags.count; i++)
        if (strcmp(r->tags.items[i].name, name) == 0)
            return r->tags.items[i].value;
    return NULL;
}

static void an_empty_route_has_the_defaults(void **state)
{
    (void)state;
    struct outcome_of_load r = load_route("", NULL);
    expect_errors("empty", &r, NULL);
    const struct route *route = &r.cfg->routes[0];

    assert_int_equal(r.cfg->route_count, 1);
    assert_string_equal(route->name, "route-0");
    assert_int_equal(route->index, 0);
    assert_int_equal(route->match.hosts.count + route->match.ports.count +
                         route->match.methods.count + route->match.paths.count +
                         route->match.headers.count,
                     0);
    assert_int_equal(route->breakers.count, 0);
    assert_null(route->router);
    assert_int_equal(route->metric_count, 1);
    assert_string_equal(route->metrics[0].name, "latency");
    assert_int_equal(route->metrics[0].kind, METRIC_LATENCY);
    assert_int_equal(route->tags.count, 0);
    for (unsigned s = 100; s < 600; s++) {
        assert_int_equal(status_set_has(&route->failure.status, s), s >= 500);
        assert_false(status_set_has(&route->neutral, s));
    }
    assert_int_equal(route->failure.on, BIT(OUTCOME_CONNECT) | BIT(OUTCOME_DNS) | BIT(OUTCOME_TLS) |
                                            BIT(OUTCOME_TIMEOUT) | BIT(OUTCOME_RESET) |
                                            BIT(OUTCOME_PROTOCOL) | BIT(OUTCOME_NO_RESPONSE));
    assert_int_equal(route->failure.no_response_after_ms, 30000);
    assert_int_equal(route->failure.client_abort_after_ms, 2000);
    assert_int_equal(route->half_open.no_response_after_ms, 5000);
    assert_int_equal(route->reject.status, 503);
    assert_int_equal(route->half_open.timeout_ms, OFF);
    assert_int_equal(route->half_open.max_concurrent, OFF);
    assert_int_equal(route->half_open.max_per_second, OFF);
    assert_int_equal(route->half_open.eligible.methods.count, 0);
    assert_int_equal(route->half_open.eligible.max_body, OFF);
    assert_int_equal(route->half_open.fleet.size, 1);
    assert_int_equal(route->half_open.fleet.max_per_second, OFF);
    assert_int_equal(route->reject.retry_after_ms, OFF);
    assert_null(route->reject.content_type);
    assert_null(route->reject.body);
    assert_int_equal(route->reject.headers.count, 0);
    assert_int_equal(route->tunnels_on_open, TUNNELS_CLOSE_IDLE);
    assert_int_equal(route->mode, MODE_ENFORCE);
    assert_int_equal(route->fail_mode, FAIL_OPEN);
    assert_memory_equal(&route->timeouts, &r.cfg->timeouts, sizeof(route->timeouts));
    load_free(&r);
}

static void a_route_says_everything_itself(void **state)
{
    (void)state;
    struct outcome_of_load r = load_route(
        "\"name\": \"payments\","
        "\"match\": {\"hosts\": [\"Pay.example\", \"*.pay.example\", \"[::1]\"],"
        "           \"ports\": [80, \"8000-8099\"], \"methods\": [\"POST\"],"
        "           \"paths\": [\"/v1/*\"], \"headers\": {\"X-Tenant\": \"blue\"}},"
        "\"breakers\": [\"gateway\", \"pay-{host}\"], \"router\": \"r-{host}\","
        "\"metrics\": {\"l\": \"latency\", \"f\": \"first_byte\", \"c\": \"connect\","
        "             \"q\": \"request_bytes\", \"s\": \"response_bytes\", \"n\": -1.5},"
        "\"tags\": {\"tier\": \"premium\"},"
        "\"failure\": {\"status\": [\"5xx\", 429, \"400-404\"], \"except_status\": [501, \"403\"],"
        "             \"on\": [\"dns\"], \"no_response_after\": \"off\","
        "             \"client_abort_after\": \"0s\", \"body_limit\": \"1MiB\"},"
        "\"neutral\": {\"status\": [404]},"
        "\"half_open\": {\"no_response_after\": \"1s\", \"timeout\": \"4s\","
        "               \"max_concurrent\": 1000, \"max_per_second\": 5,"
        "               \"eligible\": {\"methods\": [\"GET\", \"CONNECT\"], \"max_body\": "
        "\"1KiB\"},"
        "               \"fleet\": {\"size\": 30, \"max_per_second\": 10}},"
        "\"reject\": {\"status\": 429, \"retry_after\": \"7s\", \"content_type\": \"text/x\","
        "            \"body\": \"later\\n\", \"headers\": {\"X-Why\": \"tired\"}},"
        "\"tunnels_on_open\": \"keep\","
        "\"timeouts\": {\"connect\": \"1s\", \"first_byte\": \"2s\"},"
        "\"mode\": \"off\", \"fail_mode\": \"closed\", \"tls\": \"tunnel\"",
        NULL);
    expect_errors("all", &r, NULL);
    const struct route *route = &r.cfg->routes[0];
    static const char *const metrics[] = { "l", "f", "c", "q", "s", "n" };

    assert_string_equal(route->name, "payments");
    assert_string_equal(route->match.hosts.items[0], "pay.example");
    assert_string_equal(route->match.hosts.items[1], "*.pay.example");
    assert_string_equal(route->match.hosts.items[2], "::1");
    assert_int_equal(route->match.ports.items[1].first, 8000);
    assert_int_equal(route->match.ports.items[1].last, 8099);
    assert_string_equal(route->match.methods.items[0], "POST");
    assert_string_equal(route->match.paths.items[0], "/v1/*");
    assert_string_equal(route->match.headers.items[0].name, "X-Tenant");
    assert_string_equal(route->match.headers.items[0].value, "blue");
    assert_string_equal(route->breakers.items[1], "pay-{host}");
    assert_string_equal(route->router, "r-{host}");
    assert_int_equal(route->metric_count, 6);
    for (unsigned i = 0; i < 6; i++) {
        assert_string_equal(route->metrics[i].name, metrics[i]);
        assert_int_equal(route->metrics[i].kind, METRIC_LATENCY + i);
    }
    assert_true(route->metrics[5].constant == -1.5);
    assert_string_equal(tag(route, "tier"), "premium");
    static const unsigned failures[] = { 400, 401, 402, 404, 429, 500, 502, 599 };
    static const unsigned fine[] = { 399, 403, 405, 428, 430, 499, 501 };
    for (size_t i = 0; i < ARRAY_LEN(failures); i++)
        assert_true(status_set_has(&route->failure.status, failures[i]));
    for (size_t i = 0; i < ARRAY_LEN(fine); i++)
        assert_false(status_set_has(&route->failure.status, fine[i]));
    assert_true(status_set_has(&route->neutral, 404));
    assert_int_equal(route->failure.on, BIT(OUTCOME_DNS) | BIT(OUTCOME_NO_RESPONSE));
    assert_int_equal(route->failure.no_response_after_ms, OFF);
    assert_int_equal(route->failure.client_abort_after_ms, 0);
    assert_int_equal(route->half_open.no_response_after_ms, 1000);
    assert_int_equal(route->reject.status, 429);
    assert_int_equal(route->half_open.timeout_ms, 4000);
    assert_int_equal(route->half_open.max_concurrent, 1000);
    assert_int_equal(route->half_open.max_per_second, 5);
    assert_string_equal(route->half_open.eligible.methods.items[1], "CONNECT");
    assert_int_equal(route->half_open.eligible.max_body, 1024);
    assert_int_equal(route->half_open.fleet.size, 30);
    assert_int_equal(route->half_open.fleet.max_per_second, 10);
    assert_int_equal(route->reject.retry_after_ms, 7000);
    assert_string_equal(route->reject.content_type, "text/x");
    assert_string_equal(route->reject.body, "later\n");
    assert_string_equal(route->reject.headers.items[0].name, "X-Why");
    assert_string_equal(route->reject.headers.items[0].value, "tired");
    assert_int_equal(route->tunnels_on_open, TUNNELS_KEEP);
    assert_int_equal(route->timeouts.connect_ms, 1000);
    assert_int_equal(route->timeouts.first_byte_ms, 2000);
    assert_int_equal(route->timeouts.tls_ms, 10000);
    assert_int_equal(route->mode, MODE_OFF);
    assert_int_equal(route->fail_mode, FAIL_CLOSED);
    load_free(&r);
}

static void a_route_is_laid_over_defaults_and_these_over_the_global_values(void **state)
{
    (void)state;
    static const char json[] =
        "{\"fail_mode\": \"closed\", \"global_tags\": {\"a\": \"global\", \"b\": \"global\","
        "                                            \"c\": \"global\"},"
        " \"timeouts\": {\"connect\": \"1s\", \"tls\": \"1s\", \"idle\": \"1s\"},"
        " \"defaults\": {\"tags\": {\"b\": \"defaults\", \"c\": \"defaults\"}, \"router\": \"r\","
        "               \"timeouts\": {\"tls\": \"2s\", \"idle\": \"2s\"},"
        "               \"failure\": {\"status\": [\"4xx\"], \"except_status\": [404]},"
        "               \"match\": {\"ports\": [80]}, \"metrics\": {\"m\": 1}},"
        " \"routes\": ["
        "  {\"name\": \"quiet\"},"
        "  {\"name\": \"loud\", \"tags\": {\"c\": \"route\"}, \"router\": null, \"fail_mode\": "
        "\"open\","
        "   \"timeouts\": {\"idle\": \"3s\"}, \"failure\": {\"status\": [404, 500]},"
        "   \"match\": {\"hosts\": [\"h\"]}, \"metrics\": {\"n\": \"connect\"}},"
        "  {\"name\": \"except\", \"failure\": {\"except_status\": []}}]}";
    struct outcome_of_load r = load_json(json);
    expect_errors("layers", &r, NULL);
    const struct route *quiet = &r.cfg->routes[0], *loud = quiet + 1, *except = quiet + 2;

    assert_string_equal(tag(quiet, "a"), "global");
    assert_string_equal(tag(quiet, "b"), "defaults");
    assert_string_equal(tag(quiet, "c"), "defaults");
    assert_string_equal(tag(loud, "a"), "global");
    assert_string_equal(tag(loud, "b"), "defaults");
    assert_string_equal(tag(loud, "c"), "route");
    assert_int_equal(loud->tags.count, 3);
    assert_string_equal(quiet->router, "r");
    assert_null(loud->router);
    assert_int_equal(quiet->timeouts.connect_ms, 1000);
    assert_int_equal(quiet->timeouts.tls_ms, 2000);
    assert_int_equal(quiet->timeouts.idle_ms, 2000);
    assert_int_equal(loud->timeouts.idle_ms, 3000);
    assert_int_equal(quiet->fail_mode, FAIL_CLOSED);
    assert_int_equal(loud->fail_mode, FAIL_OPEN);
    assert_true(status_set_has(&quiet->failure.status, 403));
    assert_false(status_set_has(&quiet->failure.status, 404));
    assert_false(status_set_has(&quiet->failure.status, 500));
    assert_false(status_set_has(&loud->failure.status, 403)); /* a list replaces */
    assert_false(status_set_has(&loud->failure.status, 404)); /* still excepted by the defaults */
    assert_true(status_set_has(&loud->failure.status, 500));
    assert_true(status_set_has(&except->failure.status, 404));
    assert_int_equal(quiet->match.ports.count, 1);
    assert_int_equal(loud->match.ports.count, 1);
    assert_int_equal(loud->match.hosts.count, 1);
    assert_int_equal(quiet->match.hosts.count, 0);
    assert_int_equal(loud->metric_count, 1);
    assert_string_equal(loud->metrics[0].name, "n");
    assert_string_equal(quiet->metrics[0].name, "m");
    assert_int_equal(r.cfg->global_tags.count, 3);
    assert_string_equal(r.cfg->global_tags.items[1].value, "global");
    load_free(&r);
}

static void hosts_without_a_route_get_the_fallback(void **state)
{
    (void)state;
    static char *remote[] = { "TRIPSWITCH_PROJECT_ID=p", "TRIPSWITCH_API_KEY=k", NULL };
    static const char none[] = "{\"defaults\": {\"failure\": {\"status\": [429]},"
                               " \"breakers\": [\"x\"], \"match\": {\"ports\": [80]}}}";
    static const char some[] = "{\"routes\": [{\"match\": {\"hosts\": [\"h\"]}}]}";
    static const struct {
        const char *json;
        char **env;
        const char *name;
        bool automatic;
    } cases[] = {
        { none, NULL, "_auto", true },
        { some, NULL, "_default", false },
        { none, remote, "_default", false },
        { some, remote, "_default", false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r =
            load_all(cases[i].json, strlen(cases[i].json), NULL, cases[i].env);
        expect_errors("fallback", &r, NULL);
        const struct route *f = r.cfg->fallback;
        assert_string_equal(f->name, cases[i].name);
        assert_int_equal(f->index, r.cfg->route_count);
        assert_int_equal(f->match.ports.count, 0);
        assert_int_equal(f->breakers.count, cases[i].automatic);
        assert_int_equal(f->router != NULL, cases[i].automatic);
        if (cases[i].automatic) {
            assert_string_equal(f->breakers.items[0], "{host}");
            assert_string_equal(f->router, "{host}");
            assert_true(status_set_has(&f->failure.status, 429));
        }
        load_free(&r);
    }
}

static void what_looks_wrong_is_warned_about(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        const char *warnings;
    } cases[] = {
        { "{\"routes\": [{\"breakers\": [\"a\"], \"router\": \"r\"}]}", "" },
        { "{\"routes\": [{\"breakers\": [\"a\"]}]}", "FILE:1:26: /routes/0/breakers: no sample can "
                                                     "reach breaker \"a\", so it cannot trip: this "
                                                     "route has no router\n" },
        { "{\"routes\": [{\"match\": {\"hosts\": [\"a\", \"A.\"]}}]}",
          "FILE:1:33: /routes/0/match/hosts: host \"a\" is listed twice\n" },
        { "{\"routes\": [{\"match\": {\"paths\": [\"/a\"]}}]}",
          "FILE:1:33: /routes/0/match/paths: a tunnel (HTTPS) never matches a route with methods, "
          "paths or headers; this one covers port 443\n" },
        { "{\"routes\": [{\"match\": {\"methods\": [\"GET\"], \"ports\": [\"400-443\"]}}]}",
          "FILE:1:35: /routes/0/match/methods: a tunnel (HTTPS) never matches a route with "
          "methods, paths or headers; this one covers port 443\n" },
        { "{\"routes\": [{\"match\": {\"headers\": {\"a\": \"b\"}, \"ports\": [442, 444]}}]}", "" },
        { "{\"routes\": [{\"match\": {\"ports\": [443]}}]}", "" },
        { "{\"routes\": [{\"match\": {\"methods\": [\"post\"], \"ports\": [80]}}]}",
          "FILE:1:35: /routes/0/match/methods: methods are compared with case; did you mean "
          "\"POST\"?\n" },
        { "{\"routes\": [{\"name\": \"all\"}, {\"match\": {\"hosts\": [\"a\"]}}]}",
          "FILE:1:30: /routes/1: no request gets here: route \"all\" before it matches every "
          "one\n" },
        { "{\"routes\": [{\"match\": {\"hosts\": [\"*\"]}}, {}]}",
          "FILE:1:42: /routes/1: no request gets here: route \"route-0\" before it matches every "
          "one\n" },
        { "{\"bypass\": [\"a\", \"b\"], \"routes\": [{\"name\": \"r\", \"match\": {\"hosts\": "
          "[\"b\"]}}]}",
          "FILE:1:12: /bypass: \"b\" is not bypassed, because route \"r\" names it\n" },
        { "{\"routes\": [{\"breakers\": [\"a-{host}\"], \"router\": \"r\"}]}",
          "FILE:1:50: /routes/0/router: no sample can reach breaker \"a-{host}\", because the "
          "router does not hold {host}; write for example \"r-{host}\"\n" },
        { "{\"routes\": [{\"breakers\": [\"a\"]}, {\"match\": {\"hosts\": [\"b\"]}, "
          "\"breakers\": [\"a\"], \"router\": \"r\"}]}",
          "FILE:1:34: /routes/1: no request gets here: route \"route-0\" before it matches every "
          "one\n" },
        { "{\"routes\": [{\"breakers\": [\"a\", \"b-{host}\"]}], \"embedded\": {\"routers\": "
          "[{\"id\": "
          "\"{host}\", \"breakers\": [\"a\", \"b-{host}\"]}]}}",
          "" },
        { "{\"routes\": [{\"breakers\": [\"a-{host}\"]}], \"embedded\": {\"routers\": [{\"id\": "
          "\"r\", \"breakers\": [\"a-{host}\"]}]}}",
          "FILE:1:26: /routes/0/breakers: no sample can reach breaker \"a-{host}\", so it cannot "
          "trip: this route has no router\n" },
        { "{\"embedded\": {\"state_file\": \"/x\"}}", "" },
        { "{\"routes\": [{\"half_open\": {\"fleet\": {\"size\": 2}}}]}",
          "FILE:1:37: /routes/0/half_open/fleet: half_open.fleet.size has no effect without "
          "half_open.fleet.max_per_second\n" },
        { "{\"allow_clients\": []}",
          "FILE:1:19: /allow_clients: nobody can use the explicit listeners\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_json(cases[i].json);
        expect_errors(cases[i].json, &r, NULL);
        expect_warnings(cases[i].json, &r, cases[i].warnings);
        load_free(&r);
    }
}

static void a_remote_control_plane_without_routes_or_secret_is_warned_about(void **state)
{
    (void)state;
    static char *env[] = { "TRIPSWITCH_PROJECT_ID=p", "TRIPSWITCH_API_KEY=k", NULL };
    static const struct {
        const char *json; /* NULL: no file */
        const char *warnings;
    } cases[] = {
        { NULL, "there are no routes: traffic passes ungated and unreported\n" },
        { "{}", "FILE:1:1: /: there are no routes: traffic passes ungated and unreported\n" },
        { "{\"routes\": []}",
          "FILE:1:1: /: there are no routes: traffic passes ungated and unreported\n" },
        { "{\"routes\": [{\"breakers\": [\"a\"]}]}", "" }, /* no samples: nothing to sign */
        { "{\"routes\": [{\"breakers\": [\"a\"]}], \"embedded\": {\"state_file\": \"/x\"}}",
          "FILE:1:62: /embedded/state_file: this is not used, because the control plane is not "
          "the embedded one\n" },
        { "{\"routes\": [{\"router\": \"r\"}]}",
          "TRIPSWITCH_INGEST_SECRET is not set: samples go unsigned, which projects with signed "
          "ingest refuse\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *json = cases[i].json;
        struct outcome_of_load r = load_all(json, json ? strlen(json) : 0, NULL, env);
        expect_errors("remote", &r, NULL);
        expect_warnings("remote", &r, cases[i].warnings);
        load_free(&r);
    }
}

static void rules_on_responses_are_read_and_replace_those_of_defaults(void **state)
{
    (void)state;
    struct outcome_of_load r = load_route(
        "\"metrics\": {\"tokens\": {\"json_pointer\": \"/usage/total\"}, "
        "\"left\": {\"header\": \"X-Left\"}},"
        "\"failure\": {\"slower_than\": \"2s\", \"body_limit\": \"1KiB\","
        "\"headers\": [{\"header\": \"X-Error\", \"exists\": true}],"
        "\"body\": [{\"name\": \"app\", \"json_pointer\": \"\", \"equals\": null},"
        "{\"contains\": \"a\"}, {\"sse_event\": \"error\"}]}",
        "\"failure\": {\"headers\": [{\"name\": \"x\", \"header\": \"a\", \"equals\": \"1\"},"
        "{\"name\": \"y\", \"header\": \"b\", \"equals\": \"\"}]}");
    expect_errors("rules", &r, NULL);
    const struct route *route = &r.cfg->routes[0], *fallback = r.cfg->fallback;
    static const struct {
        unsigned rule;
        const char *name;
    } names[] = { { RULE_NONE, "" },
                  { RULE_STATUS, "status" },
                  { RULE_SLOWER_THAN, "slower_than" },
                  { RULE_HEADERS, "headers-0" },
                  { RULE_BODY, "app" },
                  { RULE_BODY + 1, "body-1" },
                  { RULE_BODY + 2, "body-2" } };

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        assert_string_equal(rule_name(route, names[i].rule), names[i].name);
    assert_int_equal(route->failure.slower_than_ms, 2000);
    assert_int_equal(route->failure.body_limit, 1024);
    assert_int_equal(route->failure.headers.count, 1);
    assert_int_equal(route->failure.body.count, 3);
    assert_int_equal(route->failure.body.items[0].subject, SUBJECT_JSON);
    assert_string_equal(route->failure.body.items[0].where, "");
    assert_int_equal(route->failure.body.items[0].wanted.type, SCALAR_NULL);
    assert_int_equal(route->failure.body.items[1].subject, SUBJECT_TEXT);
    assert_int_equal(route->failure.body.items[2].subject, SUBJECT_EVENT);
    assert_int_equal(route->metrics[0].kind, METRIC_JSON);
    assert_string_equal(route->metrics[0].source, "/usage/total");
    assert_int_equal(route->metrics[1].kind, METRIC_HEADER);
    assert_string_equal(route->metrics[1].source, "X-Left");
    assert_int_equal(fallback->failure.headers.count, 2);
    assert_string_equal(rule_name(fallback, RULE_HEADERS + 1), "y");
    assert_int_equal(fallback->failure.slower_than_ms, OFF);
    assert_int_equal(fallback->failure.body_limit, 65536);
    load_free(&r);
}

static void no_more_than_sixteen_rules_of_a_kind(void **state)
{
    (void)state;
    for (unsigned count = MAX_RULES; count <= MAX_RULES + 1; count++) {
        struct strbuf text = STRBUF_INIT;
        strbuf_adds(&text, "\"failure\": {\"body\": [{\"contains\": \"a\"}");
        for (unsigned i = 1; i < count; i++)
            strbuf_adds(&text, ",{\"contains\": \"a\"}");
        strbuf_adds(&text, "]}");
        struct outcome_of_load r = load_route(strbuf_str(&text), NULL);
        bool refused = strstr(strbuf_str(&r.errors), "/failure/body: more than 16 rules") != NULL;
        if (refused != (count > MAX_RULES))
            fail_msg("%u rules: %s", count, strbuf_str(&r.errors));
        strbuf_free(&text);
        load_free(&r);
    }
}

static void later_versions_settings_are_taken_at_their_default_only(void **state)
{
    (void)state;
    static const struct {
        const char *route; /* text within a route */
        const char *error; /* its end; NULL: accepted */
    } cases[] = {
        { "\"tls\": \"tunnel\"", NULL },
        { "\"tls\": \"originate\"",
          "/routes/0/tls: \"originate\" is not available in this version" },
        { "\"tls\": \"intercept\"",
          "/routes/0/tls: \"intercept\" is not available in this version" },
        { "\"tls\": \"tunel\"", "did you mean \"tunnel\"?" },
        { "\"failure\": {\"slower_than\": \"off\"}", NULL },
        { "\"failure\": {\"slower_than\": \"2\"}", "has no unit" },
        { "\"failure\": {\"headers\": [], \"body\": [], \"body_limit\": \"1KiB\"}", NULL },
        { "\"failure\": {\"body\": {}}", "expected a list of objects" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_route(cases[i].route, NULL);
        if (!cases[i].error)
            expect_errors(cases[i].route, &r, NULL);
        else if (!strstr(strbuf_str(&r.errors), cases[i].error))
            fail_msg("%s: %s", cases[i].route, strbuf_str(&r.errors));
        load_free(&r);
    }
}

static void later_versions_global_settings_are_too(void **state)
{
    (void)state;
    static const struct {
        char *argv[2];
        const char *errors;
    } cases[] = {
        { { "--transparent-listen=" }, NULL },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_flags((char **)cases[i].argv);
        expect_errors(cases[i].argv[0], &r, cases[i].errors);
        load_free(&r);
    }
}

static void a_state_file_is_a_file_by_its_name(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        const char *errors; /* NULL: taken */
        const char *file;
    } cases[] = {
        { "{\"embedded\": {\"state_file\": \"/no/such/dir/file\"}}", NULL, "/no/such/dir/file" },
        { "{\"embedded\": {\"state_file\": \"states\"}}", NULL, "states" },
        { "{\"embedded\": {\"state_file\": null}}", NULL, NULL },
        { "{\"embedded\": {\"state_file\": \"/tmp\"}}",
          "FILE:1:29: /embedded/state_file: \"/tmp\" is a directory; name a file in it\n", NULL },
        { "{\"embedded\": {\"state_file\": \"/no/such/\"}}",
          "FILE:1:29: /embedded/state_file: \"/no/such/\" is a directory; name a file in it\n",
          NULL },
        { "{\"embedded\": {\"state_file\": \"/a\\nb\"}}",
          "FILE:1:29: /embedded/state_file: \"/a\\nb\" holds a control character\n", NULL },
        { "{\"embedded\": {\"state_file\": 1}}",
          "FILE:1:29: /embedded/state_file: expected text in quotes\n", NULL },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_json(cases[i].json);
        expect_errors(cases[i].json, &r, cases[i].errors);
        if (r.cfg && (r.cfg->embedded.state_file == NULL) != (cases[i].file == NULL))
            fail_msg("%s: %s", cases[i].json, r.cfg->embedded.state_file);
        if (r.cfg && cases[i].file) {
            struct strbuf all = STRBUF_INIT;
            assert_string_equal(r.cfg->embedded.state_file, cases[i].file);
            config_write(r.cfg, &all);
            assert_non_null(strstr(strbuf_str(&all), cases[i].file));
            strbuf_free(&all);
        }
        load_free(&r);
    }
}

static void a_refusal_may_say_what_does_not_break_or_imitate_the_proxys_own_answer(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        const char *error; /* its end; NULL: accepted */
    } cases[] = {
        { "X-Reason", NULL },
        { "Location", NULL },
        { "X-Tripswitch", NULL },
        { "Link", NULL },
        { "content-length", "is a header that only the proxy itself may write" },
        { "Transfer-Encoding", "is a header that only the proxy itself may write" },
        { "CONNECTION", "is a header that only the proxy itself may write" },
        { "Proxy-Status", "is a header that only the proxy itself may write" },
        { "X-Tripswitch-State", "is a header that only the proxy itself may write" },
        { "x-tripswitch-", "is a header that only the proxy itself may write" },
        { "Date", "is a header that only the proxy itself may write" },
        { "Cache-Control", "is a header that only the proxy itself may write" },
        { "Content-Type", "has a key of its own in reject" },
        { "Retry-After", "has a key of its own in reject" },
        { "X Y", "is not a token" },
        { "", "is not a token" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf route = STRBUF_INIT;
        strbuf_addf(&route, "\"reject\": {\"headers\": {\"%s\": \"v\"}}", cases[i].header);
        struct outcome_of_load r = load_route(strbuf_str(&route), NULL);
        if (!cases[i].error)
            expect_errors(cases[i].header, &r, NULL);
        else if (!strstr(strbuf_str(&r.errors), cases[i].error))
            fail_msg("%s: %s", cases[i].header, strbuf_str(&r.errors));
        load_free(&r);
        strbuf_free(&route);
    }
}

static void a_refusals_body_has_64_kib_at_most(void **state)
{
    (void)state;

    for (size_t len = 65536; len <= 65537; len++) {
        struct strbuf route = STRBUF_INIT;
        strbuf_adds(&route, "\"reject\": {\"body\": \"");
        for (size_t i = 0; i < len; i++)
            strbuf_addc(&route, 'x');
        strbuf_adds(&route, "\"}");
        struct outcome_of_load r = load_route(strbuf_str(&route), NULL);
        expect_errors("body", &r,
                      len == 65536 ? NULL
                                   : "FILE:2:32: /routes/0/reject/body: the body is longer than "
                                     "64 KiB\n");
        load_free(&r);
        strbuf_free(&route);
    }
}

static void defaults_count_when_a_refusal_is_put_together(void **state)
{
    (void)state;
    static const char type[] = "\"reject\": {\"content_type\": \"a/b\"}";
    struct outcome_of_load r = load_route("\"reject\": {\"body\": \"x\"}", type);
    expect_errors("body in the route", &r, NULL);
    assert_string_equal(r.cfg->routes[0].reject.content_type, "a/b");
    load_free(&r);

    r = load_route("\"name\": \"x\"", type);
    expect_errors("no body at all", &r,
                  "FILE:2:12: /routes/0: reject.content_type has no effect without reject.body\n");
    load_free(&r);

    r = load_json("{\"defaults\": {\"reject\": {\"content_type\": \"a/b\"}}}");
    expect_errors("no route at all", &r,
                  "FILE:1:42: /defaults/reject/content_type: reject.content_type has no effect "
                  "without reject.body\n");
    load_free(&r);
}

static void wrong_routes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        const char *errors;
    } cases[] = {
        { "{\"routes\": [{\"name\": \"a\"}, {\"name\": \"a\"}]}",
          "FILE:1:37: /routes/1/name: an earlier route is called \"a\" as well\n" },
        { "{\"routes\": [{\"name\": \"route-1\"}, {}]}",
          "FILE:1:34: /routes/1: an earlier route is called \"route-1\" as well\n" },
        { "{\"routes\": [{\"name\": \"\"}]}", "FILE:1:22: /routes/0/name: \"\" is empty\n" },
        { "{\"routes\": [{\"name\": \"_auto\"}]}",
          "FILE:1:22: /routes/0/name: \"_auto\" is the name of a built-in route\n" },
        { "{\"routes\": [{\"name\": null}]}",
          "FILE:1:22: /routes/0/name: null is no value here; expected text in quotes\n" },
        { "{\"defaults\": {\"name\": \"a\"}, \"routes\": [{}, {}]}",
          "FILE:1:15: /defaults/name: a name belongs to one route\n" },
        { "{\"defaults\": {\"breakrs\": []}, \"routes\": [{}, {}]}", /* said once */
          "FILE:1:15: /defaults/breakrs: unknown key; did you mean \"breakers\"?\n" },
        { "{\"routes\": [{\"match\": {\"hosts\": [\"a:80\"]}}]}",
          "FILE:1:34: /routes/0/match/hosts/0: \"a:80\" has a port; write the host alone and its "
          "port under \"ports\"\n" },
        { "{\"routes\": [{\"match\": {\"headers\": {\"A\": \"x\", \"a\": \"y\"}, \"ports\": "
          "[80]}}]}",
          "FILE:1:35: /routes/0/match/headers: \"A\" and \"a\" are the same header\n" },
        { "{\"routes\": [{\"match\": {\"headers\": {\"a b\": \"x\"}, \"ports\": [80]}}]}",
          "FILE:1:36: /routes/0/match/headers/a b: \"a b\" is not a token: letters, digits and "
          "!#$%&'*+-.^_`|~\n" },
        { "{\"routes\": [{\"tags\": {\"a\": \"{path}\"}}]}",
          "FILE:1:28: /routes/0/tags/a: \"{path}\" has an unknown placeholder; known are {status} "
          "{method} {host} {outcome} {rule} {tier} {route} {instance}\n" },
        { "{\"routes\": [{\"metrics\": {\"a\": \"latensy\"}}]}",
          "FILE:1:31: /routes/0/metrics/a: \"latensy\" is not latency, first_byte, connect, "
          "request_bytes, response_bytes or a number; did you mean \"latency\"?\n" },
        { "{\"routes\": [{\"metrics\": {\"a\": true}}]}",
          "FILE:1:31: /routes/0/metrics/a: expected the name of a measure in quotes, a "
          "number, or an object with \"json_pointer\" or \"header\"\n" },
        { "{\"routes\": [{\"metrics\": {\"a\": 1e999}}]}",
          "FILE:1:31: /routes/0/metrics/a: expected the name of a measure in quotes, a "
          "number, or an object with \"json_pointer\" or \"header\"\n" },
        { "{\"routes\": [{\"failure\": {\"on\": [\"no_response\"]}}]}",
          "FILE:1:33: /routes/0/failure/on/0: \"no_response\" is always a failure; turn it off "
          "with failure.no_response_after\n" },
        { "{\"routes\": [{\"failure\": {\"status\": [50, \"6xx\"]}}]}",
          "FILE:1:37: /routes/0/failure/status/0: \"50\" is not a status from 100 to 599, a class "
          "such as \"5xx\" or a range such as \"500-599\"\n"
          "FILE:1:41: /routes/0/failure/status/1: \"6xx\" is not a status from 100 to 599, a "
          "class such as \"5xx\" or a range such as \"500-599\"\n" },
        { "{\"routes\": [{\"reject\": {\"status\": 200}}]}",
          "FILE:1:35: /routes/0/reject/status: 200 is below 400\n" },
        { "{\"routes\": [{\"reject\": {\"status\": 401}}]}",
          "FILE:1:35: /routes/0/reject/status: 401 asks clients for a name and password; a "
          "refusal must not, take 503 or 429\n" },
        { "{\"defaults\": {\"reject\": {\"status\": 407}}, \"routes\": [{\"name\": \"a\"}]}",
          "FILE:1:54: /routes/0: 407 asks clients for a name and password for the proxy; a "
          "refusal must not, take 503 or 429\n" },
        { "{\"routes\": [{\"reject\": {\"status\": 408}}]}",
          "FILE:1:35: /routes/0/reject/status: 408 makes clients repeat the request at once; a "
          "refusal must not, take 503 or 429\n" },
        { "{\"routes\": [{\"reject\": {\"status\": 421}}]}",
          "FILE:1:35: /routes/0/reject/status: 421 makes clients repeat the request on another "
          "connection; a refusal must not, take 503 or 429\n" },
        { "{\"routes\": [{\"reject\": {\"status\": 426}}]}",
          "FILE:1:35: /routes/0/reject/status: 426 asks clients to change the protocol; a "
          "refusal must not, take 503 or 429\n" },
        { "{\"routes\": [{\"reject\": {\"retry_after\": \"500ms\"}}]}",
          "FILE:1:40: /routes/0/reject/retry_after: 500ms is below 1s\n" },
        { "{\"routes\": [{\"timeouts\": {\"client_idle\": \"1s\"}}]}",
          "FILE:1:27: /routes/0/timeouts/client_idle: unknown key; did you mean "
          "\"/timeouts/client_idle\"?\n" },
        { "{\"routes\": [{\"breakers\": \"a\"}]}",
          "FILE:1:26: /routes/0/breakers: expected a list of texts: [\"...\", \"...\"]\n" },
        { "{\"routes\": [{\"breakers\": [\"{hots}\"]}]}",
          "FILE:1:27: /routes/0/breakers/0: \"{hots}\" has an unknown placeholder; known are "
          "{host}\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_json(cases[i].json);
        expect_errors(cases[i].json, &r, cases[i].errors);
        load_free(&r);
    }
}

/* {"routes": [{KEY: OPEN item, item, ... CLOSE}]} with count items, printed by form. */
static struct outcome_of_load load_many(const char *open, const char *form, unsigned count,
                                        const char *close)
{
    struct strbuf json = STRBUF_INIT;

    strbuf_addf(&json, "{\"routes\": [{%s", open);
    for (unsigned i = 0; i < count; i++) {
        strbuf_adds(&json, i ? "," : "");
        for (const char *p = form; *p; p++) {
            if (*p == '#')
                strbuf_addu(&json, i);
            else
                strbuf_addc(&json, *p);
        }
    }
    strbuf_addf(&json, "%s}]}", close);
    struct outcome_of_load r = load_all(strbuf_str(&json), json.len, NULL, NULL);
    strbuf_free(&json);
    return r;
}

static void lists_of_a_route_have_limits(void **state)
{
    (void)state;
    static const struct {
        const char *open, *form, *close;
        unsigned max;
        const char *error;
    } cases[] = {
        { "\"router\": \"r\", \"breakers\": [", "\"b#\"", "]", MAX_BREAKERS, "more than 16 items" },
        { "\"metrics\": {", "\"m#\": #", "}", MAX_METRICS, "more than 8 metrics" },
        { "\"tags\": {", "\"t#\": \"x\"", "}", MAX_TAGS, "more than 32 entries" },
        { "\"match\": {\"hosts\": [", "\"h#\"", "]}", 1024, "more than 1024 items" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r =
            load_many(cases[i].open, cases[i].form, cases[i].max, cases[i].close);
        expect_errors(cases[i].open, &r, NULL);
        load_free(&r);
        r = load_many(cases[i].open, cases[i].form, cases[i].max + 1, cases[i].close);
        if (!strstr(strbuf_str(&r.errors), cases[i].error))
            fail_msg("%s: %s", cases[i].open, strbuf_str(&r.errors));
        load_free(&r);
    }
}

static void global_tags_count_among_those_of_a_route(void **state)
{
    (void)state;
    for (unsigned own = MAX_TAGS - 1; own <= MAX_TAGS; own++) {
        struct strbuf json = STRBUF_INIT;
        strbuf_adds(&json, "{\"global_tags\": {\"g\": \"x\"}, \"routes\": [{\"tags\": {");
        for (unsigned i = 0; i < own; i++)
            strbuf_addf(&json, "%s\"t%u\": \"x\"", i ? "," : "", i);
        strbuf_adds(&json, "}}]}");
        struct outcome_of_load r = load_all(strbuf_str(&json), json.len, NULL, NULL);
        assert_int_equal(r.cfg != NULL, own < MAX_TAGS);
        if (r.cfg)
            assert_int_equal(r.cfg->routes[0].tags.count, MAX_TAGS);
        strbuf_free(&json);
        load_free(&r);
    }
}

/* -- embedded ------------------------------------------------------------------------ */

static void breakers_of_the_embedded_control_plane_have_defaults(void **state)
{
    (void)state;
    struct outcome_of_load r = load_json(
        "{\"embedded\": {\"breakers\": [{\"name\": \"a\", \"kind\": \"error_rate\","
        "                              \"threshold\": 0.5, \"op\": \"gt\"}],"
        "               \"routers\": [{\"id\": \"r\", \"breakers\": [\"a\", \"of-route\"]}]},"
        " \"routes\": [{\"breakers\": [\"of-route\"], \"router\": \"r\"}]}");
    expect_errors("embedded", &r, NULL);
    const struct breaker_def *own = &r.cfg->embedded.auto_breaker;
    const struct breaker_def *a = r.cfg->embedded.breakers;

    assert_null(own->name);
    assert_null(own->metric);
    assert_string_equal(own->kind, "consecutive_failures");
    assert_string_equal(own->op, "gte");
    assert_true(own->threshold == 5);
    assert_int_equal(own->cooldown_ms, 5000);
    assert_int_equal(own->recovery_allow_rate_ramp_steps, 3);
    assert_int_equal(own->eval_interval_ms, 500);
    assert_int_equal(own->window_ms, 60000);
    assert_int_equal(own->min_count, 1);
    assert_int_equal(own->min_state_duration_ms, 0);
    assert_true(own->half_open_backoff_enabled);
    assert_int_equal(own->half_open_backoff_cap_ms, 60000);
    assert_string_equal(own->half_open_indeterminate_policy, "conservative");
    assert_int_equal(r.cfg->embedded.breaker_count, 1);
    assert_string_equal(a->name, "a");
    assert_string_equal(a->metric, "latency");
    assert_string_equal(a->kind, "error_rate");
    assert_string_equal(a->op, "gt");
    assert_true(a->threshold == 0.5);
    assert_int_equal(a->cooldown_ms, 5000);
    assert_int_equal(r.cfg->embedded.router_count, 1);
    assert_string_equal(r.cfg->embedded.routers[0].id, "r");
    assert_string_equal(r.cfg->embedded.routers[0].name, "r");
    assert_int_equal(r.cfg->embedded.routers[0].breakers.count, 2);
    load_free(&r);
}

static void wrong_embedded_definitions_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *embedded;
        const char *error;
    } cases[] = {
        { "\"auto_breaker\": {\"threshold\": 1}", NULL },
        { "\"auto_breaker\": {\"threshold\": 0.5}", "/embedded/auto_breaker/threshold: the "
                                                    "threshold of consecutive_failures is at "
                                                    "least 1, and not 0.5\n" },
        { "\"auto_breaker\": {\"kind\": \"error_rate\"}",
          "/embedded/auto_breaker: the threshold of an error_rate is 0 to 1, and not 5\n" },
        { "\"auto_breaker\": {\"kind\": \"error_rate\", \"threshold\": 1}", NULL },
        { "\"auto_breaker\": {\"kind\": \"error_rate\", \"threshold\": 0}", NULL },
        { "\"auto_breaker\": {\"kind\": \"error_rate\", \"threshold\": 1.01}", "is 0 to 1" },
        { "\"auto_breaker\": {\"threshold\": -1}", "-1 is below 0\n" },
        { "\"auto_breaker\": {\"kind\": \"avg\"}",
          "\"avg\" is not one of error_rate, consecutive_failures\n" },
        { "\"auto_breaker\": {\"name\": \"x\"}", "auto_breaker/name: this is filled in" },
        { "\"auto_breaker\": {\"cooldwn_ms\": 1}", "did you mean \"cooldown_ms\"?\n" },
        { "\"auto_breaker\": {\"cooldown_ms\": \"5s\"}", "expected a whole number" },
        { "\"auto_breaker\": {\"cooldown_ms\": 86400000}", NULL },
        { "\"auto_breaker\": {\"cooldown_ms\": 86400001}", "86400001 is above 86400000\n" },
        { "\"breakers\": [{}]", "/embedded/breakers/0: the key \"name\" is missing\n" },
        { "\"breakers\": [{}]", "/embedded/breakers/0: the key \"kind\" is missing\n" },
        { "\"breakers\": [{}]", "/embedded/breakers/0: the key \"threshold\" is missing\n" },
        { "\"breakers\": [{\"name\": \"a\", \"kind\": \"error_rate\", \"threshold\": 1},"
          "{\"name\": \"a\", \"kind\": \"error_rate\", \"threshold\": 1}]",
          "/embedded/breakers/1/name: \"a\" is defined twice\n" },
        { "\"routers\": [{\"name\": \"x\"}]", "/embedded/routers/0: the key \"id\" is missing\n" },
        { "\"routers\": [{\"id\": \"a\"}, {\"id\": \"a\"}]", "\"a\" is defined twice\n" },
        { "\"breakers\": [{\"name\": \"payment\", \"kind\": \"error_rate\", \"threshold\": 1}],"
          "\"routers\": [{\"id\": \"a\", \"breakers\": [\"paymnet\"]}]",
          "/embedded/routers/0/breakers: neither \"breakers\" nor a route has a breaker "
          "\"paymnet\"; did you mean \"payment\"?\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf json = STRBUF_INIT;
        strbuf_addf(&json, "{\"embedded\": {%s}}", cases[i].embedded);
        struct outcome_of_load r = load_all(strbuf_str(&json), json.len, NULL, NULL);
        if (!cases[i].error)
            expect_errors(cases[i].embedded, &r, NULL);
        else if (!strstr(strbuf_str(&r.errors), cases[i].error))
            fail_msg("%s: %s", cases[i].embedded, strbuf_str(&r.errors));
        strbuf_free(&json);
        load_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_route_has_the_defaults),
        cmocka_unit_test(a_route_says_everything_itself),
        cmocka_unit_test(a_route_is_laid_over_defaults_and_these_over_the_global_values),
        cmocka_unit_test(hosts_without_a_route_get_the_fallback),
        cmocka_unit_test(what_looks_wrong_is_warned_about),
        cmocka_unit_test(a_remote_control_plane_without_routes_or_secret_is_warned_about),
        cmocka_unit_test(rules_on_responses_are_read_and_replace_those_of_defaults),
        cmocka_unit_test(no_more_than_sixteen_rules_of_a_kind),
        cmocka_unit_test(later_versions_settings_are_taken_at_their_default_only),
        cmocka_unit_test(later_versions_global_settings_are_too),
        cmocka_unit_test(a_state_file_is_a_file_by_its_name),
        cmocka_unit_test(a_refusal_may_say_what_does_not_break_or_imitate_the_proxys_own_answer),
        cmocka_unit_test(a_refusals_body_has_64_kib_at_most),
        cmocka_unit_test(defaults_count_when_a_refusal_is_put_together),
        cmocka_unit_test(wrong_routes_are_refused),
        cmocka_unit_test(lists_of_a_route_have_limits),
        cmocka_unit_test(global_tags_count_among_those_of_a_route),
        cmocka_unit_test(breakers_of_the_embedded_control_plane_have_defaults),
        cmocka_unit_test(wrong_embedded_definitions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
