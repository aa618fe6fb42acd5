/* Which rule matches a response and what its metrics read, however the bytes are cut. */
#include "tests/unit/test_config.h"
/* */
#include "proxy/http1.h"
#include "proxy/inspect.h"
#include <math.h>
#include <zlib.h>

enum coding { PLAIN, GZIP, ZLIB, RAW_DEFLATE };

struct response {
    const char *name;
    const char *fields; /* further ones of the head, each with its CRLF; NULL: none */
    const char *body;
    const char *rule; /* "": none */
    double values[3]; /* of the route's metrics, in order */
    enum trouble trouble;
};

/* ---- One route, one response ---- */

static struct outcome_of_load load_route(const char *route)
{
    struct strbuf json = STRBUF_INIT;
    strbuf_addf(&json, "{\"routes\": [{%s}]}", route);
    struct outcome_of_load r = load_json(strbuf_str(&json));
    expect_errors(route, &r, NULL);
    strbuf_free(&json);
    return r;
}

static void compress_to(struct strbuf *out, const char *body, size_t len, enum coding coding)
{
    static const int bits[] = { [GZIP] = 31, [ZLIB] = 15, [RAW_DEFLATE] = -15 };
    unsigned char block[512];
    z_stream z = { .next_in = (unsigned char *)(uintptr_t)body, .avail_in = (unsigned)len };
    int result;

    deflateInit2(&z, 6, Z_DEFLATED, bits[coding], 8, Z_DEFAULT_STRATEGY);
    do {
        z.next_out = block;
        z.avail_out = sizeof(block);
        result = deflate(&z, Z_FINISH);
        strbuf_add(out, block, sizeof(block) - z.avail_out);
    } while (result == Z_OK);
    deflateEnd(&z);
}

struct result {
    unsigned rule;
    enum trouble trouble;
    double values[MAX_METRICS];
};

static struct http1_head head;

/* step: so many bytes at a time; 0: first `cut` bytes, then the rest. */
static struct result inspect(const struct inspect_plan *plan, const char *fields, const void *body,
                             size_t len, size_t step, size_t cut)
{
    struct strbuf text = STRBUF_INIT;
    struct result r = { 0 };
    const uint8_t *bytes = body;
    strbuf_addf(&text, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%s\r\n",
                fields ? fields : "");
    assert_int_equal(http1_parse_response(&head, strbuf_str(&text), text.len, 64, false), HTTP1_OK);
    r.rule = inspect_head(plan, &head, r.values);
    const struct http1_field *type = http1_find(&head, SLICE("content-type"));
    bool events = type && slice_eq(type->value, SLICE("text/event-stream"));
    struct inspector *in = r.rule ? NULL : inspector_new(plan, &head, events, r.values, &r.trouble);
    for (size_t at = 0; in && at < len && !inspector_rule(in);) {
        size_t n = step ? step : at < cut ? cut : len;
        n = n < len - at ? n : len - at;
        uint8_t *piece = xmalloc(n); /* of just that size, for the sanitizer */
        memcpy(piece, bytes + at, n);
        inspector_feed(in, piece, n);
        free(piece);
        at += n;
    }
    if (in && !inspector_rule(in))
        inspector_end(in);
    if (in) {
        r.rule = inspector_rule(in);
        r.trouble = inspector_trouble(in);
    }
    inspector_free(in);
    strbuf_free(&text);
    return r;
}

static bool same_number(double a, double b)
{
    return isnan(a) ? isnan(b) : a == b;
}

static void expect(const struct route *route, const struct response *want, const struct result *got,
                   const char *how, size_t at)
{
    if (strcmp(rule_name(route, got->rule), want->rule) != 0)
        fail_msg("%s, %s %zu: got rule \"%s\", want \"%s\"", want->name, how, at,
                 rule_name(route, got->rule), want->rule);
    if (got->trouble != want->trouble)
        fail_msg("%s, %s %zu: got trouble %s, want %s", want->name, how, at,
                 trouble_name(got->trouble), trouble_name(want->trouble));
    for (size_t i = 0; i < route->metric_count; i++)
        if (!same_number(got->values[i], want->values[i]))
            fail_msg("%s, %s %zu: %s is %g, want %g", want->name, how, at, route->metrics[i].name,
                     got->values[i], want->values[i]);
}

static void check(const char *route, const struct response *cases, size_t n)
{
    struct outcome_of_load load = load_route(route);
    const struct route *r = &load.cfg->routes[0];
    struct inspect_plan *plan = inspect_plan_new(r);
    assert_non_null(plan);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(cases[i].body);
        for (size_t step = 1; step <= 7; step += 2) {
            struct result got = inspect(plan, cases[i].fields, cases[i].body, len, step, 0);
            expect(r, &cases[i], &got, "in pieces of", step);
        }
        for (size_t cut = 0; cut <= len; cut++) {
            struct result got = inspect(plan, cases[i].fields, cases[i].body, len, 0, cut);
            expect(r, &cases[i], &got, "cut at", cut);
        }
    }
    inspect_plan_free(plan);
    load_free(&load);
}

#define NO_METRICS "\"metrics\": {\"m\": 1},"
#define NO                                                                                         \
    {                                                                                              \
        NAN, NAN, NAN                                                                              \
    }
#define SSE "Content-Type: text/event-stream\r\n"

/* ---- Heads ---- */

static void a_header_rule_looks_at_every_line_of_that_name(void **state)
{
    (void)state;
    static const struct response cases[] = {
        { "absent", "X-Other: 1\r\n", "", "", NO, 0 },
        { "there", "x-quota: \r\n", "", "quota", NO, 0 },
        { "another value", "X-Error: 10\r\n", "", "", NO, 0 },
        { "that value", "X-ERROR:   1  \r\n", "", "headers-1", NO, 0 },
        { "in a second line", "X-Error: 0\r\nX-Error: 1\r\n", "", "headers-1", NO, 0 },
        { "with case", "Warning: 199 - SLOW\r\n", "", "", NO, 0 },
        { "contained", "Warning: 199 - slow path\r\n", "", "slow", NO, 0 },
        { "contained at its end", "Warning: slow\r\n", "", "slow", NO, 0 },
        { "the first in the file wins", "Warning: slow\r\nX-Error: 1\r\n", "", "headers-1", NO, 0 },
    };
    check(NO_METRICS "\"failure\": {\"headers\": ["
                     "{\"name\": \"quota\", \"header\": \"X-Quota\", \"exists\": true},"
                     "{\"header\": \"x-error\", \"equals\": \"1\"},"
                     "{\"name\": \"slow\", \"header\": \"warning\", \"contains\": \"slow\"}]}",
          cases, ARRAY_LEN(cases));
}

static void a_metric_from_a_header_is_a_plain_decimal_number(void **state)
{
    (void)state;
    static const struct response cases[] = {
        { "absent", NULL, "", "", NO, 0 },
        { "whole", "X-Left: 42\r\n", "", "", { 42, NAN, NAN }, 0 },
        { "with a sign and a point", "X-Left: \t-0.5 \r\n", "", "", { -0.5, NAN, NAN }, 0 },
        { "plus", "X-Left: +7\r\n", "", "", { 7, NAN, NAN }, 0 },
        { "trailing point", "X-Left: 7.\r\n", "", "", { 7, NAN, NAN }, 0 },
        { "empty", "X-Left:\r\n", "", "", NO, 0 },
        { "with a unit", "X-Left: 42ms\r\n", "", "", NO, 0 },
        { "exponent", "X-Left: 1e3\r\n", "", "", NO, 0 },
        { "hex", "X-Left: 0x10\r\n", "", "", NO, 0 },
        { "infinity", "X-Left: inf\r\n", "", "", NO, 0 },
        { "two", "X-Left: 1, 2\r\n", "", "", NO, 0 },
        { "two points", "X-Left: 1.2.3\r\n", "", "", NO, 0 },
        { "only a sign", "X-Left: -\r\n", "", "", NO, 0 },
        { "63 digits",
          "X-Left: 100000000000000000000000000000000000000000000000000000000000000\r\n",
          "",
          "",
          { 1e62, NAN, NAN },
          0 },
        { "64 digits",
          "X-Left: 1000000000000000000000000000000000000000000000000000000000000000\r\n", "", "",
          NO, 0 },
    };
    check("\"metrics\": {\"left\": {\"header\": \"x-left\"}}", cases, ARRAY_LEN(cases));
}

/* ---- Bodies ---- */

static void a_json_rule_compares_by_type(void **state)
{
    (void)state;
    static const struct {
        const char *test;
        const char *value; /* of /v */
        bool match;
    } cases[] = {
        { "\"exists\": true", "1", true },
        { "\"exists\": true", "\"\"", true },
        { "\"exists\": true", "{}", true },
        { "\"exists\": true", "false", true },
        { "\"exists\": true", "null", false },
        { "\"equals\": null", "null", true },
        { "\"equals\": null", "0", false },
        { "\"equals\": true", "true", true },
        { "\"equals\": true", "\"true\"", false },
        { "\"equals\": false", "false", true },
        { "\"equals\": false", "null", false },
        { "\"equals\": 0", "0.0", true },
        { "\"equals\": 100", "1e2", true },
        { "\"equals\": 100", "\"100\"", false },
        { "\"equals\": 100", "1000", false },
        { "\"equals\": \"\"", "\"\"", true },
        { "\"equals\": \"\"", "\"x\"", false },
        { "\"equals\": \"fail\"", "\"fail\"", true },
        { "\"equals\": \"fail\"", "\"f\\u0061il\"", true },
        { "\"equals\": \"fail\"", "\"failed\"", false },
        { "\"equals\": \"fail\"", "\"fai\"", false },
        { "\"equals\": \"fail\"", "\"FAIL\"", false },
        { "\"equals\": \"fail\"", "[\"fail\"]", false },
        { "\"equals\": \"a\\\"\\n\\u00e9\"", "\"a\\\"\\n\xC3\xA9\"", true },
        { "\"contains\": \"aab\"", "\"aaab\"", true },
        { "\"contains\": \"aab\"", "\"a\\u0061\\u0061b\"", true },
        { "\"contains\": \"aab\"", "\"abaa\"", false },
        { "\"contains\": \"aab\"", "[\"aab\"]", false },
        { "\"contains\": \"1\"", "1", false },
        { "\"contains\": \"\\u20ac\"", "\"3 \\u20AC\"", true },
        { "\"contains\": \"abcabd\"", "\"abcabcabd\"", true },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char route[256], body[256];
        snprintf(route, sizeof(route),
                 NO_METRICS "\"failure\": {\"body\": [{\"json_pointer\": \"/v\", %s}]}",
                 cases[i].test);
        snprintf(body, sizeof(body), "{\"u\": {\"v\": 100}, \"v\": %s}", cases[i].value);
        struct response r = { body, NULL, body, cases[i].match ? "body-0" : "", NO, 0 };
        check(route, &r, 1);
    }
}

static void a_text_rule_finds_its_text_anywhere(void **state)
{
    (void)state;
    static const struct response cases[] = {
        { "empty", NULL, "", "", NO, 0 },
        { "at the start", NULL, "ERR-5", "body-0", NO, 0 },
        { "at the end", NULL, "xERR-", "body-0", NO, 0 },
        { "overlapping", NULL, "ERERR-", "body-0", NO, 0 },
        { "nearly", NULL, "ERR ERR_ERR", "", NO, 0 },
        { "with case", NULL, "err-", "", NO, 0 },
    };
    check(NO_METRICS "\"failure\": {\"body\": [{\"contains\": \"ERR-\"}]}", cases,
          ARRAY_LEN(cases));
}

static void the_rule_that_is_true_earliest_wins(void **state)
{
    (void)state;
    static const struct response cases[] = {
        { "text first", NULL, "{\"x\":\"ERR-\",\"code\":7}", "text", NO, 0 },
        { "number first", NULL, "{\"code\":7,\"x\":\"ERR-\"}", "code", NO, 0 },
        { "in one string the text ends first", NULL, "{\"msg\":\"ERR-\"}", "text", NO, 0 },
        { "of two at one byte the first in the file", NULL, "{\"a\":1}", "a-is-1", NO, 0 },
        { "a number ends behind a text of its digits", NULL, "{\"code\":7 ERR-", "code", NO,
          TROUBLE_NONE },
    };
    check(NO_METRICS "\"failure\": {\"body\": ["
                     "{\"name\": \"code\", \"json_pointer\": \"/code\", \"equals\": 7},"
                     "{\"name\": \"a-is-1\", \"json_pointer\": \"/a\", \"equals\": 1},"
                     "{\"name\": \"a-is-one\", \"json_pointer\": \"/a\", \"equals\": 1.0},"
                     "{\"name\": \"msg\", \"json_pointer\": \"/msg\", \"equals\": \"ERR-\"},"
                     "{\"name\": \"text\", \"contains\": \"ERR-\"}]}",
          cases, ARRAY_LEN(cases));
}

static void values_behind_the_deciding_byte_are_not_read(void **state)
{
    (void)state;
    static const struct response cases[] = {
        { "before", NULL, "{\"n\":1,\"error\":2,\"n\":3}", "body-0", { 1, NAN, NAN }, 0 },
        { "behind", NULL, "{\"error\":2,\"n\":3}", "body-0", NO, 0 },
        { "no rule", NULL, "{\"n\":1,\"n\":3}", "", { 3, NAN, NAN }, 0 },
        { "all before the text",
          NULL,
          "{\"n\":1,\"n\":2,\"n\":3,\"x\":\"ERR-\"}",
          "body-1",
          { 3, NAN, NAN },
          0 },
        { "broken before the text",
          NULL,
          "{\"n\":1,\"n\":2,,ERR-",
          "body-1",
          { 2, NAN, NAN },
          TROUBLE_BAD_JSON },
        { "text decides", NULL, "{\"n\":1,\"x\":\"ERR-\",\"n\":3}", "body-1", { 1, NAN, NAN }, 0 },
    };
    check("\"metrics\": {\"n\": {\"json_pointer\": \"/n\"}},"
          "\"failure\": {\"body\": [{\"json_pointer\": \"/error\", \"exists\": true},"
          "{\"contains\": \"ERR-\"}]}",
          cases, ARRAY_LEN(cases));
}

static void a_metric_from_the_body_is_a_json_number(void **state)
{
    (void)state;
    static const struct response cases[] = {
        { "there", NULL, "{\"usage\":{\"total\":17}}", "", { 17, NAN, NAN }, 0 },
        { "all", "X-N: 3\r\n", "{\"usage\":{\"total\":1.5},\"n\":[0,2]}", "", { 1.5, 2, 3 }, 0 },
        { "absent", NULL, "{\"usage\":{}}", "", NO, 0 },
        { "text", NULL, "{\"usage\":{\"total\":\"17\"}}", "", NO, 0 },
        { "null", NULL, "{\"usage\":{\"total\":null}}", "", NO, 0 },
        { "no JSON", NULL, "total=17", "", NO, TROUBLE_BAD_JSON },
        { "cut short", NULL, "{\"usage\":{\"total\":17}", "", { 17, NAN, NAN }, TROUBLE_BAD_JSON },
        { "lines", NULL, "{\"n\":[1]}\n{\"usage\":{\"total\":2}}\n", "", { 2, NAN, NAN }, 0 },
        { "empty", NULL, "", "", NO, 0 },
    };
    check("\"metrics\": {\"tokens\": {\"json_pointer\": \"/usage/total\"},"
          "\"n\": {\"json_pointer\": \"/n/1\"}, \"h\": {\"header\": \"x-n\"}}",
          cases, ARRAY_LEN(cases));
}

static void only_the_first_bytes_are_looked_at(void **state)
{
    (void)state;
    static const struct response cases[] = {
        { "ends at the limit", NULL, "{\"xxxx\":1,\"n\":5}", "", { 5, NAN, NAN }, 0 },
        { "goes past it", NULL, "{\"xxxxx\":1,\"n\":5}", "", NO, TROUBLE_BODY_LIMIT },
        { "match within", NULL, "{\"n\":1   , \"ERR-\":1}", "body-0", { 1, NAN, NAN }, 0 },
        { "match across",
          NULL,
          "{\"n\":1    , \"ERR-\":1}",
          "",
          { 1, NAN, NAN },
          TROUBLE_BODY_LIMIT },
    };
    check("\"metrics\": {\"n\": {\"json_pointer\": \"/n\"}},"
          "\"failure\": {\"body_limit\": \"16B\", \"body\": [{\"contains\": \"ERR-\"}]}",
          cases, ARRAY_LEN(cases));

    struct outcome_of_load none = load_route("\"failure\": {\"body_limit\": \"0B\", \"body\": "
                                             "[{\"contains\": \"ERR-\"}]}");
    struct inspect_plan *plan = inspect_plan_new(&none.cfg->routes[0]);
    struct result got = inspect(plan, NULL, "ERR-", 4, 4, 0);
    assert_int_equal(got.rule, RULE_NONE);
    inspect_plan_free(plan);
    load_free(&none);
}

/* ---- Codings ---- */

static void check_coded(const struct inspect_plan *plan, const struct route *r, enum coding coding,
                        const char *fields, const char *body, size_t body_len)
{
    struct response want = { fields, fields, "", "body-0", { 5, NAN, NAN }, 0 };
    struct strbuf out = STRBUF_INIT;
    compress_to(&out, body, body_len, coding);
    for (size_t cut = 0; cut <= out.len && cut < 200; cut++) {
        struct result got = inspect(plan, fields, out.data, out.len, 0, cut);
        expect(r, &want, &got, "cut at", cut);
    }
    struct result got = inspect(plan, fields, out.data, out.len, 1, 0);
    expect(r, &want, &got, "in pieces of", 1);
    strbuf_free(&out);
}

static const char coded_route[] = "\"metrics\": {\"n\": {\"json_pointer\": \"/n\"}},"
                                  "\"failure\": {\"body_limit\": \"20KiB\", \"body\": "
                                  "[{\"json_pointer\": \"/error\", \"exists\": true}]}";

static void compressed_bodies_are_inspected_too(void **state)
{
    (void)state;
    struct outcome_of_load load = load_route(coded_route);
    const struct route *r = &load.cfg->routes[0];
    struct inspect_plan *plan = inspect_plan_new(r);
    struct strbuf body = STRBUF_INIT;
    strbuf_adds(&body, "{\"n\":5,\"fill\":\"");
    for (unsigned i = 0; i < 10000; i++)
        strbuf_addc(&body, (char)('a' + i * i % 26));
    strbuf_adds(&body, "\",\"error\":{\"code\":7}}");

    check_coded(plan, r, GZIP, "Content-Encoding: gzip\r\n", body.data, body.len);
    check_coded(plan, r, GZIP, "Content-Encoding: X-GZIP\r\n", body.data, body.len);
    check_coded(plan, r, GZIP, "Content-Encoding: identity, gzip\r\n", body.data, body.len);
    check_coded(plan, r, ZLIB, "Content-Encoding: deflate\r\n", body.data, body.len);
    check_coded(plan, r, RAW_DEFLATE, "Content-Encoding: deflate\r\n", body.data, body.len);
    strbuf_free(&body);
    inspect_plan_free(plan);
    load_free(&load);
}

static void gzip_members_may_follow_each_other_and_padding_is_ignored(void **state)
{
    (void)state;
    struct outcome_of_load load = load_route(coded_route);
    const struct route *r = &load.cfg->routes[0];
    struct inspect_plan *plan = inspect_plan_new(r);
    struct strbuf two = STRBUF_INIT, padded = STRBUF_INIT;
    struct response error = { "two members", NULL, "", "body-0", { 5, NAN, NAN }, 0 };
    struct response fine = { "padding", NULL, "", "", { 5, NAN, NAN }, 0 };

    compress_to(&two, "{\"n\":5,", 7, GZIP);
    compress_to(&two, "\"error\":1}", 10, GZIP);
    compress_to(&padded, "{\"n\":5}", 7, GZIP);
    strbuf_add(&padded, "\0\0\0\0", 4);
    for (size_t cut = 0; cut <= two.len; cut++) {
        struct result got = inspect(plan, "Content-Encoding: gzip\r\n", two.data, two.len, 0, cut);
        expect(r, &error, &got, "cut at", cut);
    }
    for (size_t cut = 0; cut <= padded.len; cut++) {
        struct result got =
            inspect(plan, "Content-Encoding: gzip\r\n", padded.data, padded.len, 0, cut);
        expect(r, &fine, &got, "cut at", cut);
    }
    strbuf_free(&two);
    strbuf_free(&padded);
    inspect_plan_free(plan);
    load_free(&load);
}

static void a_body_that_cannot_be_decoded_matches_nothing_and_says_why(void **state)
{
    (void)state;
    struct outcome_of_load load = load_route(coded_route);
    const struct route *r = &load.cfg->routes[0];
    struct inspect_plan *plan = inspect_plan_new(r);
    static const struct {
        const char *fields;
        const char *body;
        enum trouble want;
    } cases[] = {
        { "Content-Encoding: br\r\n", "{\"error\":1}", TROUBLE_UNKNOWN_ENCODING },
        { "Content-Encoding: gzip, gzip\r\n", "{\"error\":1}", TROUBLE_UNKNOWN_ENCODING },
        { "Content-Encoding: gzip\r\nContent-Encoding: br\r\n", "x", TROUBLE_UNKNOWN_ENCODING },
        { "Content-Encoding: gzip\r\n", "{\"error\":1}", TROUBLE_BAD_ENCODING },
        { "Content-Encoding: gzip\r\n", "\x1f", TROUBLE_BAD_ENCODING },
        { "Content-Encoding: deflate\r\n", "\xff\xff\xff", TROUBLE_BAD_ENCODING },
        { "Content-Encoding: gzip\r\n", "", TROUBLE_NONE },
        { "Content-Encoding: identity\r\n", "{\"x\":1}", TROUBLE_NONE },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t len = strlen(cases[i].body);
        struct response want = { cases[i].fields, NULL, "", "", NO, cases[i].want };
        for (size_t cut = 0; cut <= len; cut++) {
            struct result got = inspect(plan, cases[i].fields, cases[i].body, len, 0, cut);
            expect(r, &want, &got, "cut at", cut);
        }
    }
    inspect_plan_free(plan);
    load_free(&load);
}

/* ---- Event streams ---- */

static void the_last_event_that_has_the_field_wins(void **state)
{
    (void)state;
    static const struct response cases[] = {
        { "last one",
          SSE,
          "data: {\"n\":1}\n\ndata: {\"n\":2}\n\ndata: {\"x\":3}\n\ndata: [DONE]\n\n",
          "",
          { 2, NAN, NAN },
          0 },
        { "null is absent",
          SSE,
          "data: {\"n\":1}\n\ndata: {\"n\":null}\n\n",
          "",
          { 1, NAN, NAN },
          0 },
        { "not ended", SSE, "data: {\"n\":1}\n\ndata: {\"n\":2}\n", "", { 1, NAN, NAN }, 0 },
        { "over two lines", SSE, "data: {\"n\":\r\ndata: 4}\r\n\r\n", "", { 4, NAN, NAN }, 0 },
        { "comments and names",
          SSE,
          ": hi\n\nevent: usage\nid: 1\ndata: {\"n\":9}\n\n",
          "",
          { 9, NAN, NAN },
          0 },
        { "no event stream", NULL, "data: {\"n\":1}\n\n", "", NO, TROUBLE_BAD_JSON },
    };
    check("\"metrics\": {\"n\": {\"json_pointer\": \"/n\"}}", cases, ARRAY_LEN(cases));
}

static void rules_hear_events_one_after_the_other(void **state)
{
    (void)state;
    static const struct response cases[] = {
        { "by name", SSE, "data: 1\n\nevent: error\ndata: x\n\n", "event", NO, 0 },
        { "another name", SSE, "event: errors\ndata: x\n\n", "", NO, 0 },
        { "without data it is none", SSE, "event: error\n\n", "", NO, 0 },
        { "not ended", SSE, "event: error\ndata: x\n", "", NO, 0 },
        { "pointer in its data", SSE, "data: {\"error\":{}}\n\n", "pointer", NO, 0 },
        { "text in its data", SSE, "data: an ERR-1\n\n", "text", NO, 0 },
        { "text over two events", SSE, "data: ER\n\ndata: R-\n\n", "", NO, 0 },
        { "text of a name", SSE, "event: ERR-1\ndata: x\n\n", "", NO, 0 },
        { "the first event wins", SSE, "data: ERR-\n\nevent: error\ndata: x\n\n", "text", NO, 0 },
        { "in one event the first rule", SSE, "event: error\ndata: {\"error\":\"ERR-\"}\n\n",
          "pointer", NO, 0 },
        { "no event stream, no event", NULL, "event: error\ndata: x\n\n", "", NO,
          TROUBLE_BAD_JSON },
    };
    check(NO_METRICS "\"failure\": {\"body\": ["
                     "{\"name\": \"pointer\", \"json_pointer\": \"/error\", \"exists\": true},"
                     "{\"name\": \"text\", \"contains\": \"ERR-\"},"
                     "{\"name\": \"event\", \"sse_event\": \"error\"}]}",
          cases, ARRAY_LEN(cases));
}

static void an_event_without_a_name_is_called_message(void **state)
{
    (void)state;
    static const struct response cases[] = {
        { "no name", SSE, "data: x\n\n", "body-0", NO, 0 },
        { "that name", SSE, "event: message\ndata: x\n\n", "body-0", NO, 0 },
        { "another", SSE, "event: ping\ndata: x\n\n", "", NO, 0 },
    };
    check(NO_METRICS "\"failure\": {\"body\": [{\"sse_event\": \"message\"}]}", cases,
          ARRAY_LEN(cases));
}

static void rules_stop_at_the_limit_of_an_event_stream_and_metrics_go_on(void **state)
{
    (void)state;
    static const struct response both[] = {
        { "rule within",
          SSE,
          "data: 12345678901\n\nevent: e\ndata: {\"n\":2}\n\n",
          "",
          { 2, NAN, NAN },
          0 },
        { "metric far behind",
          SSE,
          "data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\ndata: 5\n\ndata: {\"n\":6}\n\n",
          "",
          { 6, NAN, NAN },
          0 },
        { "event at the limit",
          SSE,
          "event: e\ndata: {\"n\":2345}\n\n\n\n",
          "body-0",
          { 2345, NAN, NAN },
          0 },
        { "event past the limit",
          SSE,
          "event: e\ndata: {\"n\":2345 }\n\n\n\n",
          "",
          { 2345, NAN, NAN },
          0 },
        { "data over the limit",
          SSE,
          "data: {\"n\":1,\"x\":\"1234567890\"}\n\n",
          "",
          { 1, NAN, NAN },
          0 },
        { "data too long", SSE, "data: {\"n\":1,\"x\":\"12345678901234\"}\n\n", "", NO,
          TROUBLE_EVENT_TOO_LONG },
    };
    check("\"metrics\": {\"n\": {\"json_pointer\": \"/n\"}}, \"failure\": {\"body_limit\": \"27B\","
          "\"body\": [{\"sse_event\": \"e\"}]}",
          both, ARRAY_LEN(both));
    static const struct response rules[] = {
        { "over", SSE, "data: 1\n\ndata: 2\n\ndata: 3\n\nevent: e\ndata: 4\n\n", "", NO,
          TROUBLE_BODY_LIMIT },
    };
    check(NO_METRICS "\"failure\": {\"body_limit\": \"27B\", \"body\": [{\"sse_event\": \"e\"}]}",
          rules, ARRAY_LEN(rules));
}

static void what_one_response_inflates_to_is_bounded(void **state)
{
    (void)state;
    struct outcome_of_load load = load_route("\"metrics\": {\"n\": {\"json_pointer\": \"/n\"}}");
    const struct route *r = &load.cfg->routes[0];
    struct inspect_plan *plan = inspect_plan_new(r);
    struct strbuf body = STRBUF_INIT, out = STRBUF_INIT;
    static const char event[] = "data: {\"n\":1}\n\n", last[] = "data: {\"n\":2}\n\n";
    struct response within = { "at the limit", NULL, "", "", { 2, NAN, NAN }, 0 };
    struct response beyond = { "past it", NULL, "", "", { 1, NAN, NAN }, TROUBLE_INFLATED_MAX };

    strbuf_adds(&body, event);
    while (body.len < INSPECT_INFLATED_MAX - sizeof(last))
        strbuf_addc(&body, ':');
    strbuf_adds(&body, "\n");
    strbuf_adds(&body, last);
    assert_int_equal(body.len, INSPECT_INFLATED_MAX);
    compress_to(&out, body.data, body.len, GZIP);
    struct result got = inspect(plan, SSE "Content-Encoding: gzip\r\n", out.data, out.len, 1000, 0);
    within.trouble = TROUBLE_INFLATED_MAX; /* there may be more */
    expect(r, &within, &got, "pieces of", 1000);
    strbuf_clear(&out);
    body.data[100] = 'x';
    memmove(body.data + 101, body.data + 100, body.len - 101); /* one byte more before it */
    strbuf_adds(&body, "\n");
    compress_to(&out, body.data, body.len, GZIP);
    got = inspect(plan, SSE "Content-Encoding: gzip\r\n", out.data, out.len, 1000, 0);
    expect(r, &beyond, &got, "pieces of", 1000);
    strbuf_free(&body);
    strbuf_free(&out);
    inspect_plan_free(plan);
    load_free(&load);
}

/* ---- Plans ---- */

static void a_route_that_asks_nothing_has_no_plan(void **state)
{
    (void)state;
    static const struct {
        const char *route;
        bool plan, events;
    } cases[] = {
        { "\"failure\": {\"slower_than\": \"1s\", \"status\": [500]}", false, false },
        { "\"metrics\": {\"a\": \"response_bytes\", \"b\": 2}", false, false },
        { "\"failure\": {\"headers\": [{\"header\": \"a\", \"exists\": true}]}", true, false },
        { "\"metrics\": {\"a\": {\"header\": \"a\"}}", true, false },
        { "\"failure\": {\"body\": [{\"contains\": \"a\"}]}", true, false },
        { "\"failure\": {\"body\": [{\"json_pointer\": \"/a\", \"equals\": 1}]}", true, false },
        { "\"failure\": {\"body\": [{\"sse_event\": \"a\"}]}", true, true },
        { "\"metrics\": {\"a\": {\"json_pointer\": \"/a\"}}", true, true },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load load = load_route(cases[i].route);
        struct inspect_plan *plan = inspect_plan_new(&load.cfg->routes[0]);
        if ((plan != NULL) != cases[i].plan)
            fail_msg("%s: plan %d", cases[i].route, plan != NULL);
        if (plan && inspect_wants_events(plan) != cases[i].events)
            fail_msg("%s: events %d", cases[i].route, !cases[i].events);
        inspect_plan_free(plan);
        load_free(&load);
    }
}

static void a_response_without_body_needs_no_inspector(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        bool no_body, want;
    } cases[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", false, true },
        { "HTTP/1.1 200 OK\r\n\r\n", false, true }, /* up to the close */
        { "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, false },
        { "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true, false }, /* to HEAD */
        { "HTTP/1.1 204 No\r\n\r\n", false, false },
        { "HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", false, false },
    };
    struct outcome_of_load load = load_route("\"failure\": {\"body\": [{\"contains\": \"a\"}]}");
    struct inspect_plan *plan = inspect_plan_new(&load.cfg->routes[0]);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        double values[MAX_METRICS];
        enum trouble trouble;
        assert_int_equal(
            http1_parse_response(&head, cases[i].head, strlen(cases[i].head), 64, cases[i].no_body),
            HTTP1_OK);
        struct inspector *in = inspector_new(plan, &head, false, values, &trouble);
        if ((in != NULL) != cases[i].want || trouble != TROUBLE_NONE)
            fail_msg("%s: %d", cases[i].head, in != NULL);
        inspector_free(in);
    }
    inspect_plan_free(plan);
    load_free(&load);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_rule_looks_at_every_line_of_that_name),
        cmocka_unit_test(a_metric_from_a_header_is_a_plain_decimal_number),
        cmocka_unit_test(a_json_rule_compares_by_type),
        cmocka_unit_test(a_text_rule_finds_its_text_anywhere),
        cmocka_unit_test(the_rule_that_is_true_earliest_wins),
        cmocka_unit_test(values_behind_the_deciding_byte_are_not_read),
        cmocka_unit_test(a_metric_from_the_body_is_a_json_number),
        cmocka_unit_test(only_the_first_bytes_are_looked_at),
        cmocka_unit_test(compressed_bodies_are_inspected_too),
        cmocka_unit_test(gzip_members_may_follow_each_other_and_padding_is_ignored),
        cmocka_unit_test(a_body_that_cannot_be_decoded_matches_nothing_and_says_why),
        cmocka_unit_test(the_last_event_that_has_the_field_wins),
        cmocka_unit_test(rules_hear_events_one_after_the_other),
        cmocka_unit_test(an_event_without_a_name_is_called_message),
        cmocka_unit_test(rules_stop_at_the_limit_of_an_event_stream_and_metrics_go_on),
        cmocka_unit_test(what_one_response_inflates_to_is_bounded),
        cmocka_unit_test(a_route_that_asks_nothing_has_no_plan),
        cmocka_unit_test(a_response_without_body_needs_no_inspector),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
