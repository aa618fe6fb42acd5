/* Orders and questions to the admin listener: what is taken, and what is said of the rest. */
#include "proxy/admin_body.h"

#include "base/base.h"
#include "base/strbuf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LONGEST                                                                                    \
    "12345678901234567890123456789012345678901234567890"                                           \
    "12345678901234567890123456789012345678901234567890"                                           \
    "12345678901234567890123456789012345678901234567890"                                           \
    "12345678901234567890123456789012345678901234567890"

static void an_order_needs_a_state_an_end_and_a_reason(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why; /* NULL: taken */
    } cases[] = {
        { "{\"state\":\"open\",\"ttl\":\"10m\",\"reason\":\"x\"}", NULL },
        { " {\"reason\":\"\xc3\xa9\",\"ttl\":\"24h\",\"state\":\"closed\"}\r\n", NULL },
        { "{\"state\":\"open\",\"ttl\":\"1ms\",\"reason\":\"" LONGEST "\"}", NULL },
        { "", "must be a JSON object" },
        { "[]", "must be a JSON object" },
        { "{\"state\":\"open\",\"ttl\":\"10m\",\"reason\":\"x\"} {}", "must be a JSON object" },
        { "{\"state\":\"open\",\"ttl\":\"10m\",\"reason\":\"x\"", "must be a JSON object" },
        { "{\"ttl\":\"10m\",\"reason\":\"x\"}", "\"state\" must be" },
        { "{\"state\":\"half_open\",\"ttl\":\"10m\",\"reason\":\"x\"}", "\"state\" must be" },
        { "{\"State\":\"open\",\"ttl\":\"10m\",\"reason\":\"x\"}", "unknown member \"State\"" },
        { "{\"state\":\"open\",\"reason\":\"x\"}", "\"ttl\" is missing" },
        { "{\"state\":\"open\",\"ttl\":600,\"reason\":\"x\"}", "\"ttl\" is missing" },
        { "{\"state\":\"open\",\"ttl\":\"10\",\"reason\":\"x\"}", "\"ttl\": " },
        { "{\"state\":\"open\",\"ttl\":\"off\",\"reason\":\"x\"}", "\"ttl\": " },
        { "{\"state\":\"open\",\"ttl\":\"0s\",\"reason\":\"x\"}", "at most 24h" },
        { "{\"state\":\"open\",\"ttl\":\"86400001ms\",\"reason\":\"x\"}", "at most 24h" },
        { "{\"state\":\"open\",\"ttl\":\"1d\",\"reason\":\"x\"}", NULL },
        { "{\"state\":\"open\",\"ttl\":\"1m\"}", "\"reason\" is missing" },
        { "{\"state\":\"open\",\"ttl\":\"1m\",\"reason\":\"\"}", "\"reason\" is missing" },
        { "{\"state\":\"open\",\"ttl\":\"1m\",\"reason\":\"  \"}", "one line of text" },
        { "{\"state\":\"open\",\"ttl\":\"1m\",\"reason\":\"a\\nb\"}", "one line of text" },
        { "{\"state\":\"open\",\"ttl\":\"1m\",\"reason\":\"a\x80\"}", "one line of text" },
        { "{\"state\":\"open\",\"ttl\":\"1m\",\"reason\":\"" LONGEST "1\"}", "longer than 200" },
        { "{\"state\":\"open\",\"ttl\":\"1m\",\"reason\":\"x\",\"for\":\"1m\"}",
          "unknown member \"for\"" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct admin_order o;
        struct strbuf why = STRBUF_INIT;
        int err = admin_parse_order(cases[i].text, strlen(cases[i].text), true, &o, &why);
        if ((err == 0) != (cases[i].why == NULL) ||
            (cases[i].why != NULL && strstr(strbuf_str(&why), cases[i].why) == NULL) ||
            (err == 0 && why.len > 0))
            fail_msg("%s: %d, \"%s\"", cases[i].text, err, strbuf_str(&why));
        strbuf_free(&why);
    }
}

static void an_order_is_read_as_written(void **state)
{
    (void)state;
    static const char text[] = "{\"state\":\"closed\",\"ttl\":\"90s\",\"reason\":\"deploy 7\"}";
    static const char bypass[] = "{\"ttl\":\"90s\",\"reason\":\"deploy 7\"}";
    struct admin_order o;
    struct strbuf why = STRBUF_INIT;

    assert_int_equal(admin_parse_order(text, sizeof(text) - 1, true, &o, &why), 0);
    assert_int_equal(o.state, BREAKER_CLOSED);
    assert_int_equal(o.ttl_ms, 90000);
    assert_string_equal(o.reason, "deploy 7");
    assert_int_equal(admin_parse_order(bypass, sizeof(bypass) - 1, false, &o, &why), 0);
    assert_int_equal(admin_parse_order(text, sizeof(text) - 1, false, &o, &why), -1);
    assert_non_null(strstr(strbuf_str(&why), "unknown member \"state\""));
    strbuf_free(&why);
}

static void a_question_is_decoded(void **state)
{
    (void)state;
    struct admin_question q;

    assert_null(admin_parse_question("url=http%3A%2F%2Fa.test%2F%3Fx%3D1%26y&method=POST"
                                     "&header=X-A%3A%20%20b%20&header=C:d",
                                     &q));
    assert_true(slice_eq(q.question.url, SLICE("http://a.test/?x=1&y")));
    assert_true(slice_eq(q.question.method, SLICE("POST")));
    assert_int_equal(q.headers.count, 2);
    assert_string_equal(q.headers.items[0].name, "X-A");
    assert_string_equal(q.headers.items[0].value, "b");
    assert_string_equal(q.headers.items[1].name, "C");
    assert_string_equal(q.headers.items[1].value, "d");
    admin_question_free(&q);
}

static void a_question_without_sense_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *query, *why;
    } cases[] = {
        { "", "url is missing" },
        { "url=", "url is missing" },
        { "method=GET", "url is missing" },
        { "url=http://a/&header=x", "header must be" },
        { "url=http://a/&header=:x", "header must be" },
        { "url=http://a/&headers=a:b", "only url, method and header" },
        { "url", "malformed" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct admin_question q;
        const char *why = admin_parse_question(cases[i].query, &q);
        if (why == NULL || strstr(why, cases[i].why) == NULL)
            fail_msg("%s: %s", cases[i].query, why);
        admin_question_free(&q);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_order_needs_a_state_an_end_and_a_reason),
        cmocka_unit_test(an_order_is_read_as_written),
        cmocka_unit_test(a_question_is_decoded),
        cmocka_unit_test(a_question_without_sense_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
