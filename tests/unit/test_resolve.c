/* Selection by metadata: what the file may say, what a list of the control plane may be, and
 * which names come of both. */
#include "config/catalog.h"
#include "config/resolve.h"
#include "tests/unit/test_config.h"

static struct outcome_of_load load_route(const char *route, const char *defaults)
{
    struct strbuf json = STRBUF_INIT;

    strbuf_addf(&json, "{\"defaults\":{%s},\"routes\":[{\"name\":\"r\"%s%s}]}",
                defaults ? defaults : "", *route ? "," : "", route);
    struct outcome_of_load r = load_json(strbuf_str(&json));
    strbuf_free(&json);
    return r;
}

static struct catalog *parse(const char *key, const char *json)
{
    struct catalog *c = NULL;
    const char *why;

    if (catalog_parse(json, strlen(json), key, &c, &why) != 0)
        fail_msg("%s: %s", json, why);
    return c;
}

static void selectors_are_read_and_written_back(void **state)
{
    (void)state;
    static const struct {
        const char *route, *defaults;
        const char *breakers, *router; /* as config_write has them; NULL: refused */
        const char *error;
    } cases[] = {
        { "\"breakers\":{\"metadata\":{\"region\":\"eu\"}}", NULL,
          "\"breakers\":{\"metadata\":{\"region\":\"eu\"}}", "\"router\":null", NULL },
        { "\"router\":{\"metadata\":{\"a\":\"1\",\"b\":\"\"}}", NULL, "\"breakers\":[]",
          "\"router\":{\"metadata\":{\"a\":\"1\",\"b\":\"\"}}", NULL },
        /* the last word counts, whole */
        { "\"breakers\":[\"x\"],\"router\":\"y\"",
          "\"breakers\":{\"metadata\":{\"a\":\"1\"}},\"router\":{\"metadata\":{\"a\":\"1\"}}",
          "\"breakers\":[\"x\"]", "\"router\":\"y\"", NULL },
        { "\"breakers\":[],\"router\":null",
          "\"breakers\":{\"metadata\":{\"a\":\"1\"}},\"router\":{\"metadata\":{\"a\":\"1\"}}",
          "\"breakers\":[]", "\"router\":null", NULL },
        { "\"breakers\":{\"metadata\":{\"b\":\"2\"}},\"router\":{\"metadata\":{\"b\":\"2\"}}",
          "\"breakers\":{\"metadata\":{\"a\":\"1\"}},\"router\":\"y\"",
          "\"breakers\":{\"metadata\":{\"b\":\"2\"}}", "\"router\":{\"metadata\":{\"b\":\"2\"}}",
          NULL },
        { "", "\"breakers\":{\"metadata\":{\"a\":\"1\"}}",
          "\"breakers\":{\"metadata\":{\"a\":\"1\"}}", "\"router\":null", NULL },
        { "\"breakers\":{}", NULL, NULL, NULL, "or { \"metadata\": { ... } }" },
        { "\"router\":{}", NULL, NULL, NULL, "or { \"metadata\": { ... } }" },
        { "\"breakers\":{\"metadata\":{}}", NULL, NULL, NULL, "at least one pair" },
        { "\"breakers\":{\"metadata\":[\"a\"]}", NULL, NULL, NULL, "at least one pair" },
        { "\"breakers\":{\"metadata\":{\"a\":1}}", NULL, NULL, NULL, "expected text in quotes" },
        { "\"router\":{\"metadata\":{\"\":\"1\"}}", NULL, NULL, NULL, "is empty" },
        { "\"router\":{\"meta\":{\"a\":\"1\"}}", NULL, NULL, NULL, "did you mean \"metadata\"?" },
        { "\"router\":{\"metadata\":{\"a\":\"1\"},\"x\":1}", NULL, NULL, NULL, "unknown key" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_route(cases[i].route, cases[i].defaults);
        if (cases[i].error) {
            if (!strstr(strbuf_str(&r.errors), cases[i].error))
                fail_msg("%s: %s", cases[i].route, strbuf_str(&r.errors));
        } else {
            expect_errors(cases[i].route, &r, NULL);
            struct strbuf text = STRBUF_INIT;
            config_write(r.cfg, &text);
            if (!strstr(strbuf_str(&text), cases[i].breakers) ||
                !strstr(strbuf_str(&text), cases[i].router))
                fail_msg("%s: %s", cases[i].route, strbuf_str(&text));
            strbuf_free(&text);
        }
        load_free(&r);
    }
}

static void a_selector_has_twenty_pairs_at_most(void **state)
{
    (void)state;
    for (int n = 20; n <= 21; n++) {
        struct strbuf route = STRBUF_INIT;
        strbuf_adds(&route, "\"breakers\":{\"metadata\":{");
        for (int i = 0; i < n; i++)
            strbuf_addf(&route, "%s\"k%d\":\"v\"", i ? "," : "", i);
        strbuf_adds(&route, "}}");
        struct outcome_of_load r = load_route(strbuf_str(&route), NULL);
        if ((r.cfg != NULL) != (n == 20))
            fail_msg("%d pairs: %s", n, strbuf_str(&r.errors));
        strbuf_free(&route);
        load_free(&r);
    }
}

static void hosts_without_a_route_select_nothing(void **state)
{
    (void)state;
    struct outcome_of_load r = load_route("", "\"breakers\":{\"metadata\":{\"a\":\"1\"}},"
                                              "\"router\":{\"metadata\":{\"a\":\"1\"}}");
    assert_int_equal(r.cfg->fallback->breakers_metadata.count, 0);
    assert_int_equal(r.cfg->fallback->router_metadata.count, 0);
    load_free(&r);
}

static void lists_are_read_whatever_else_they_hold(void **state)
{
    (void)state;
    char longest[CATALOG_NAME_MAX + 2], json[1024];
    static const struct {
        const char *json;
        int count, skipped; /* count -1: no list */
    } cases[] = {
        { "{\"breakers\":[]}", 0, 0 },
        { "{\"project_id\":\"p\",\"breakers\":[{\"id\":\"1\",\"name\":\"a\",\"metadata\":{}}]}", 1,
          0 },
        { "{\"breakers\":[{\"id\":\"1\",\"name\":\"a\"}]}", 1, 0 },
        { "{\"breakers\":[{\"id\":\"1\",\"name\":\"a\",\"metadata\":null}]}", 1, 0 },
        { "{\"breakers\":[{\"id\":\"1\",\"name\":\"a\",\"metadata\":{\"n\":7,\"o\":{}}}]}", 1, 0 },
        { "{\"breakers\":[{\"id\":\"1\"},{\"name\":\"a\"},{\"id\":1,\"name\":\"a\"},7,null,"
          "{\"id\":\"\",\"name\":\"a\"},{\"id\":\"1\",\"name\":\"\"}]}",
          0, 7 },
        { "", -1, 0 },
        { "[]", -1, 0 },
        { "{}", -1, 0 },
        { "{\"breakers\":{}}", -1, 0 },
        { "{\"routers\":[]}", -1, 0 },
        { "{\"breakers\":[", -1, 0 },
        { "{\"breakers\":[{\"id\":\"1\",\"name\":\"a\\u0000b\"}]}", -1, 0 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct catalog *c = NULL;
        const char *why = NULL;
        int rc = catalog_parse(cases[i].json, strlen(cases[i].json), "breakers", &c, &why);
        int count = rc == 0 ? (int)c->count : -1, skipped = rc == 0 ? (int)c->skipped : 0;
        if (count != cases[i].count || skipped != cases[i].skipped)
            fail_msg("%s: %d entries, %d skipped", cases[i].json, count, skipped);
        catalog_unref(c);
    }
    memset(longest, 'n', sizeof(longest));
    for (size_t len = CATALOG_NAME_MAX; len <= CATALOG_NAME_MAX + 1; len++) {
        snprintf(json, sizeof(json), "{\"breakers\":[{\"id\":\"1\",\"name\":\"%.*s\"}]}", (int)len,
                 longest);
        struct catalog *c = parse("breakers", json);
        assert_int_equal(c->count, len == CATALOG_NAME_MAX);
        catalog_unref(c);
    }
}

static void lists_are_the_same_in_any_order_and_differ_in_any_text(void **state)
{
    (void)state;
#define BASE                                                                                       \
    "{\"breakers\":[{\"id\":\"1\",\"name\":\"a\",\"metadata\":{\"k\":\"v\"}},"                     \
    "{\"id\":\"2\",\"name\":\"b\"}]}"
    static const struct {
        const char *json;
        bool same;
    } cases[] = {
        { BASE, true },
        { "{\"breakers\":[{\"id\":\"2\",\"name\":\"b\",\"metadata\":{}},"
          "{\"name\":\"a\",\"id\":\"1\",\"metadata\":{\"k\":\"v\"}}]}",
          true },
        { "{\"breakers\":[{\"id\":\"1\",\"name\":\"a\",\"metadata\":{\"k\":\"v\"}}]}", false },
        { "{\"breakers\":[{\"id\":\"1\",\"name\":\"a\",\"metadata\":{\"k\":\"w\"}},"
          "{\"id\":\"2\",\"name\":\"b\"}]}",
          false },
        { "{\"breakers\":[{\"id\":\"1\",\"name\":\"a\",\"metadata\":{\"j\":\"v\"}},"
          "{\"id\":\"2\",\"name\":\"b\"}]}",
          false },
        { "{\"breakers\":[{\"id\":\"1\",\"name\":\"a\"},{\"id\":\"2\",\"name\":\"b\"}]}", false },
        { "{\"breakers\":[{\"id\":\"1\",\"name\":\"a\",\"metadata\":{\"k\":\"v\"}},"
          "{\"id\":\"3\",\"name\":\"b\"}]}",
          false },
        { "{\"breakers\":[{\"id\":\"1\",\"name\":\"a\",\"metadata\":{\"k\":\"v\"}},"
          "{\"id\":\"2\",\"name\":\"c\"}]}",
          false },
    };
    struct catalog *base = parse("breakers", BASE);

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct catalog *c = parse("breakers", cases[i].json);
        if (catalog_same(base, c) != cases[i].same)
            fail_msg("%s", cases[i].json);
        catalog_unref(c);
    }
    catalog_unref(base);
}

#define REGION "\"breakers\":{\"metadata\":{\"region\":\"eu\",\"tier\":\"1\"}}"

static void breakers_match_with_all_their_pairs_in_the_order_of_names(void **state)
{
    (void)state;
    static const struct {
        const char *list;
        const char *names; /* joined by spaces */
        size_t found;
        const char *warning; /* NULL: none */
    } cases[] = {
        { "{\"id\":\"1\",\"name\":\"z\",\"metadata\":{\"region\":\"eu\",\"tier\":\"1\"}},"
          "{\"id\":\"2\",\"name\":\"a\",\"metadata\":{\"x\":\"y\",\"tier\":\"1\",\"region\":\"eu\"}"
          "}",
          "a z", 2, NULL },
        { "{\"id\":\"1\",\"name\":\"a\",\"metadata\":{\"region\":\"eu\"}},"
          "{\"id\":\"2\",\"name\":\"b\",\"metadata\":{\"region\":\"eu\",\"tier\":\"10\"}},"
          "{\"id\":\"3\",\"name\":\"c\",\"metadata\":{\"region\":\"EU\",\"tier\":\"1\"}},"
          "{\"id\":\"4\",\"name\":\"d\",\"metadata\":{\"region\":\"eu\",\"tier\":1}},"
          "{\"id\":\"5\",\"name\":\"e\"}",
          "", 0, "no breaker has the metadata region=eu, tier=1; nothing gates it" },
        { "", "", 0, "no breaker has the metadata" },
        /* twice in the list is once here */
        { "{\"id\":\"1\",\"name\":\"a\",\"metadata\":{\"region\":\"eu\",\"tier\":\"1\"}},"
          "{\"id\":\"2\",\"name\":\"a\",\"metadata\":{\"region\":\"eu\",\"tier\":\"1\"}}",
          "a", 1, NULL },
        /* templates are the operator's */
        { "{\"id\":\"1\",\"name\":\"a-{host}\",\"metadata\":{\"region\":\"eu\",\"tier\":\"1\"}}",
          "", 0, "no breaker has the metadata" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_route(REGION, NULL);
        struct strbuf json = STRBUF_INIT, warnings = STRBUF_INIT, names = STRBUF_INIT;
        strbuf_addf(&json, "{\"breakers\":[%s]}", cases[i].list);
        struct catalog *list = parse("breakers", strbuf_str(&json));
        config_resolve(r.cfg, list, NULL, &warnings);
        catalog_unref(list); /* nothing of it is borrowed */
        const struct route *route = &r.cfg->routes[0];
        for (size_t k = 0; k < route->breakers.count; k++)
            strbuf_addf(&names, "%s%s", k ? " " : "", route->breakers.items[k]);
        if (strcmp(strbuf_str(&names), cases[i].names) != 0 ||
            route->breakers_found != cases[i].found || route->breakers_unresolved)
            fail_msg("%s: \"%s\", %zu found", cases[i].list, strbuf_str(&names),
                     route->breakers_found);
        if (cases[i].warning ? !strstr(strbuf_str(&warnings), cases[i].warning) : warnings.len > 0)
            fail_msg("%s: %s", cases[i].list, strbuf_str(&warnings));
        strbuf_free(&json);
        strbuf_free(&warnings);
        strbuf_free(&names);
        load_free(&r);
    }
}

static struct catalog *many(size_t count)
{
    struct strbuf json = STRBUF_INIT;

    strbuf_adds(&json, "{\"breakers\":[");
    for (size_t i = count; i > 0; i--)
        strbuf_addf(&json,
                    "%s{\"id\":\"i%zu\",\"name\":\"b%02zu\",\"metadata\":{\"region\":\"eu\","
                    "\"tier\":\"1\"}}",
                    i < count ? "," : "", i, i);
    strbuf_adds(&json, "]}");
    struct catalog *c = parse("breakers", strbuf_str(&json));
    strbuf_free(&json);
    return c;
}

static void of_too_many_breakers_the_first_sixteen_by_name_gate(void **state)
{
    (void)state;
    for (size_t n = MAX_BREAKERS; n <= MAX_BREAKERS + 1; n++) {
        struct outcome_of_load r = load_route(REGION, NULL);
        struct strbuf warnings = STRBUF_INIT;
        struct catalog *list = many(n);
        config_resolve(r.cfg, list, NULL, &warnings);
        const struct route *route = &r.cfg->routes[0];
        assert_int_equal(route->breakers.count, MAX_BREAKERS);
        assert_int_equal(route->breakers_found, n);
        assert_string_equal(route->breakers.items[0], "b01");
        assert_string_equal(route->breakers.items[MAX_BREAKERS - 1], "b16");
        assert_int_equal(warnings.len > 0, n > MAX_BREAKERS);
        assert_int_equal(config_selections(r.cfg, SELECTION_TOO_MANY_BREAKERS), n > MAX_BREAKERS);
        assert_int_equal(config_selections(r.cfg, SELECTION_OK), n <= MAX_BREAKERS);
        catalog_unref(list);
        strbuf_free(&warnings);
        load_free(&r);
    }
}

static void of_several_routers_the_first_by_id_gets_the_samples(void **state)
{
    (void)state;
    static const struct {
        const char *list;
        const char *router; /* NULL: none */
        enum selector_result came_to;
    } cases[] = {
        { "{\"id\":\"r9\",\"name\":\"x\",\"metadata\":{\"t\":\"1\"}}", "r9", SELECTION_OK },
        { "{\"id\":\"r9\",\"name\":\"a\",\"metadata\":{\"t\":\"1\"}},"
          "{\"id\":\"r1\",\"name\":\"z\",\"metadata\":{\"t\":\"1\"}}",
          "r1", SELECTION_SEVERAL_ROUTERS },
        { "{\"id\":\"r9\",\"name\":\"a\",\"metadata\":{\"t\":\"2\"}}", NULL, SELECTION_NO_ROUTER },
        { "", NULL, SELECTION_NO_ROUTER },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_route("\"router\":{\"metadata\":{\"t\":\"1\"}}", NULL);
        struct strbuf json = STRBUF_INIT, warnings = STRBUF_INIT;
        strbuf_addf(&json, "{\"routers\":[%s]}", cases[i].list);
        struct catalog *list = parse("routers", strbuf_str(&json));
        config_resolve(r.cfg, NULL, list, &warnings);
        const char *router = r.cfg->routes[0].router;
        if (strcmp(router ? router : "-", cases[i].router ? cases[i].router : "-") != 0 ||
            config_selections(r.cfg, cases[i].came_to) != 1)
            fail_msg("%s: %s", cases[i].list, router ? router : "none");
        assert_int_equal(warnings.len > 0, cases[i].came_to != SELECTION_OK);
        catalog_unref(list);
        strbuf_free(&json);
        strbuf_free(&warnings);
        load_free(&r);
    }
}

static void a_copy_selects_anew_and_outlives_what_it_was_made_of(void **state)
{
    (void)state;
    for (int last = 0; last < 3; last++) {
        struct outcome_of_load r =
            load_route(REGION ",\"router\":{\"metadata\":{\"t\":\"1\"}}", NULL);
        struct catalog *three = many(3), *two = many(2);
        config_resolve(r.cfg, three, NULL, NULL);
        struct config *copies[3] = { r.cfg, config_copy(r.cfg), NULL };
        assert_int_equal(copies[1]->routes[0].breakers.count, 0);
        config_resolve(copies[1], two, NULL, NULL);
        copies[2] = config_copy(copies[1]);
        config_resolve(copies[2], three, NULL, NULL);
        assert_int_equal(r.cfg->routes[0].breakers.count, 3);
        assert_int_equal(copies[1]->routes[0].breakers.count, 2);
        assert_false(config_same_selection(copies[0], copies[1]));
        assert_true(config_same_selection(copies[0], copies[2]));
        for (int i = 0; i < 3; i++)
            if (i != last)
                config_free(copies[i]);
        assert_string_equal(copies[last]->routes[0].name, "r");
        assert_non_null(copies[last]->fallback);
        config_free(copies[last]);
        r.cfg = NULL;
        load_free(&r);
        catalog_unref(three);
        catalog_unref(two);
    }
}

static void what_has_not_come_yet_is_unresolved_and_no_news(void **state)
{
    (void)state;
    struct outcome_of_load a = load_route(REGION ",\"router\":{\"metadata\":{\"t\":\"1\"}}", NULL);
    struct outcome_of_load b = load_route(REGION ",\"router\":{\"metadata\":{\"t\":\"1\"}}", NULL);
    struct outcome_of_load plain = load_route("\"breakers\":[\"a\"]", NULL);
    struct strbuf warnings = STRBUF_INIT;
    struct catalog *list = many(3);

    config_resolve(a.cfg, NULL, NULL, &warnings);
    assert_true(a.cfg->routes[0].breakers_unresolved && a.cfg->routes[0].router_unresolved);
    assert_true(config_unresolved(a.cfg) && config_breakers_unresolved(a.cfg));
    assert_int_equal(config_selections(a.cfg, SELECTION_NOT_LOADED), 2);
    assert_int_equal(warnings.len, 0);
    config_resolve(b.cfg, list, NULL, &warnings);
    assert_int_equal(config_selections(b.cfg, SELECTION_NOT_LOADED), 1);
    assert_true(config_unresolved(b.cfg) && !config_breakers_unresolved(b.cfg));
    assert_false(config_same_selection(a.cfg, b.cfg));
    assert_true(config_same_selection(b.cfg, b.cfg));

    config_resolve(plain.cfg, NULL, NULL, &warnings);
    assert_false(config_unresolved(plain.cfg));
    assert_false(config_selects_breakers(plain.cfg) || config_selects_router(plain.cfg));
    assert_true(config_selects_breakers(a.cfg) && config_selects_router(a.cfg));
    assert_int_equal(plain.cfg->routes[0].breakers.count, 1);
    catalog_unref(list);
    strbuf_free(&warnings);
    load_free(&a);
    load_free(&b);
    load_free(&plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(selectors_are_read_and_written_back),
        cmocka_unit_test(a_selector_has_twenty_pairs_at_most),
        cmocka_unit_test(hosts_without_a_route_select_nothing),
        cmocka_unit_test(lists_are_read_whatever_else_they_hold),
        cmocka_unit_test(lists_are_the_same_in_any_order_and_differ_in_any_text),
        cmocka_unit_test(breakers_match_with_all_their_pairs_in_the_order_of_names),
        cmocka_unit_test(of_too_many_breakers_the_first_sixteen_by_name_gate),
        cmocka_unit_test(of_several_routers_the_first_by_id_gets_the_samples),
        cmocka_unit_test(a_copy_selects_anew_and_outlives_what_it_was_made_of),
        cmocka_unit_test(what_has_not_come_yet_is_unresolved_and_no_news),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
