/* Answers of our own: well-formed whatever the names in them, and unmistakably ours. */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "proxy/http1.h"
#include "proxy/reply.h"
#include "tests/unit/show.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

static struct reply plain(int status)
{
    return (struct reply){
        .status = status, .error = PERR_HTTP_REQUEST_ERROR, .detail = "why", .retry_after_ms = OFF
    };
}

static struct reply refusal(const char *name, size_t len)
{
    return (struct reply){ .status = 503,
                           .error = PERR_DESTINATION_UNAVAILABLE,
                           .detail = "circuit breaker is open",
                           .breaker = name,
                           .breaker_len = len,
                           .breaker_state = "open",
                           .decision = "reject",
                           .retry_after_ms = OFF };
}

static void expect_text(const struct reply *r, const char *want)
{
    struct strbuf out = STRBUF_INIT;

    struct strbuf scratch = STRBUF_INIT;
    reply_write(r, &out, &scratch);
    strbuf_free(&scratch);
    if (strcmp(strbuf_str(&out), want) != 0)
        fail_msg("got\n%s\nwant\n%s", strbuf_str(&out), want);
    strbuf_free(&out);
}

static void an_error_is_a_problem_with_a_proxy_status(void **state)
{
    (void)state;
    struct reply r = plain(400);

    r.close = true;
    expect_text(&r, "HTTP/1.1 400 Bad Request\r\n"
                    "Proxy-Status: tripswitch-proxy; error=http_request_error; details=\"why\"\r\n"
                    "Content-Type: application/problem+json\r\n"
                    "Content-Length: 102\r\n"
                    "Cache-Control: no-store\r\n"
                    "Connection: close\r\n"
                    "\r\n"
                    "{\"type\":\"about:blank\",\"title\":\"Bad Request\",\"status\":400,"
                    "\"detail\":\"why\",\"error\":\"http_request_error\"}\n");
}

static void a_refusal_names_its_breaker_in_the_reason_phrase(void **state)
{
    (void)state;
    struct reply r = refusal("payment-gateway", 15);

    r.retry_after_ms = 1500;
    expect_text(&r, "HTTP/1.1 503 Circuit breaker open: payment-gateway\r\n"
                    "Proxy-Status: tripswitch-proxy; error=destination_unavailable; "
                    "details=\"circuit breaker is open\"\r\n"
                    "X-Tripswitch-Breaker: payment-gateway\r\n"
                    "X-Tripswitch-State: open\r\n"
                    "X-Tripswitch-Decision: reject\r\n"
                    "Retry-After: 2\r\n"
                    "Content-Type: application/problem+json\r\n"
                    "Content-Length: 218\r\n"
                    "Cache-Control: no-store\r\n"
                    "\r\n"
                    "{\"type\":\"about:blank\",\"title\":\"Circuit breaker open: payment-gateway\","
                    "\"status\":503,\"detail\":\"circuit breaker is open\","
                    "\"error\":\"destination_unavailable\",\"breaker\":\"payment-gateway\","
                    "\"state\":\"open\",\"retry_after_ms\":1500}\n");
}

static void an_answer_with_a_body_of_its_own_carries_no_error(void **state)
{
    (void)state;
    struct reply r = { .status = 200,
                       .detail = "",
                       .retry_after_ms = OFF,
                       .body_type = "message/http",
                       .body = "TRACE / HTTP/1.1\r\n\r\n",
                       .body_len = 20 };

    expect_text(&r, "HTTP/1.1 200 OK\r\n"
                    "Proxy-Status: tripswitch-proxy\r\n"
                    "Content-Type: message/http\r\n"
                    "Content-Length: 20\r\n"
                    "Cache-Control: no-store\r\n"
                    "\r\n"
                    "TRACE / HTTP/1.1\r\n\r\n");
}

static void the_reason_of_an_override_is_in_the_details_whatever_the_body(void **state)
{
    (void)state;
    static const char *const bodies[] = { NULL, "<p>later" };

    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        struct reply r = refusal("b", 1);
        struct strbuf out = STRBUF_INIT;
        r.reason = "\"7\"\r\nX: caf\xc3\xa9";
        r.body = bodies[i];
        r.body_len = bodies[i] ? strlen(bodies[i]) : 0;
        r.body_type = "text/html";
        struct strbuf scratch = STRBUF_INIT;
        reply_write(&r, &out, &scratch);
        strbuf_free(&scratch);
        assert_non_null(strstr(strbuf_str(&out),
                               "; details=\"circuit breaker is open: \\\"7\\\"__X: caf__\"\r\n"));
        strbuf_free(&out);
    }
}

static void a_refusal_of_the_routes_own_still_says_who_refused(void **state)
{
    (void)state;
    struct reply r = refusal("b", 1);
    struct name_value further[] = { { (char *)"X-Why", (char *)"tired" },
                                    { (char *)"Link", (char *)"<http://x/>; rel=help" } };
    struct name_value_list headers = { further, 2 };

    r.status = 429;
    r.retry_after_ms = 1000;
    r.close = true;
    r.headers = &headers;
    r.body_type = "text/html";
    r.body = "<p>later";
    r.body_len = 8;
    expect_text(&r, "HTTP/1.1 429 Circuit breaker open: b\r\n"
                    "Proxy-Status: tripswitch-proxy; error=destination_unavailable; "
                    "details=\"circuit breaker is open\"\r\n"
                    "X-Tripswitch-Breaker: b\r\n"
                    "X-Tripswitch-State: open\r\n"
                    "X-Tripswitch-Decision: reject\r\n"
                    "Retry-After: 1\r\n"
                    "Content-Type: text/html\r\n"
                    "Content-Length: 8\r\n"
                    "Cache-Control: no-store\r\n"
                    "X-Why: tired\r\n"
                    "Link: <http://x/>; rel=help\r\n"
                    "Connection: close\r\n"
                    "\r\n"
                    "<p>later");
}

/* Reads the answer as a client would; the body is what follows the head. */
static const char *read_back(const struct strbuf *out, struct http1_head *head, bool to_head)
{
    size_t scanned = 0, end = 0;

    if (http1_find_end(strbuf_str(out), out->len, &scanned, &end) != 1)
        fail_msg("no head: \"%s\"", strbuf_str(out));
    enum http1_error err = http1_parse_response(head, strbuf_str(out), end, 128, to_head);
    if (err)
        fail_msg("\"%s\": %s", strbuf_str(out), http1_error_text(err));
    size_t body = out->len - end;
    if (body != (to_head ? 0 : head->content_length))
        fail_msg("\"%s\": a body of %zu bytes, announced %llu", strbuf_str(out), body,
                 (unsigned long long)head->content_length);
    return strbuf_str(out) + end;
}

static struct http1_head head;

static void every_status_is_a_complete_response_with_or_without_a_body(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *reason;
    } cases[] = {
        { 400, "Bad Request" },
        { 403, "Forbidden" },
        { 407, "Proxy Authentication Required" },
        { 408, "Request Timeout" },
        { 413, "Content Too Large" },
        { 414, "URI Too Long" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 502, "Bad Gateway" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
        { 599, "Error" }, /* a configured one */
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t length = 0;
        for (int to_head = 0; to_head < 2; to_head++) {
            struct strbuf out = STRBUF_INIT;
            struct reply r = plain(cases[i].status);
            r.no_body = to_head;
            struct strbuf scratch = STRBUF_INIT;
            reply_write(&r, &out, &scratch);
            strbuf_free(&scratch);
            read_back(&out, &head, to_head);
            if (head.status != (unsigned)cases[i].status ||
                !slice_eq(head.reason, slice_of(cases[i].reason)))
                fail_msg("%d: got %u %s", cases[i].status, head.status, show(head.reason));
            if (to_head && head.content_length != length)
                fail_msg("%d: HEAD announces %llu bytes, GET %llu", cases[i].status,
                         (unsigned long long)head.content_length, (unsigned long long)length);
            length = head.content_length;
            strbuf_free(&out);
        }
    }
}

static void names_from_a_peer_cannot_break_out_of_their_place(void **state)
{
    (void)state;
    static const struct {
        struct slice name;
        const char *safe;
    } cases[] = {
        { SLICE("a"), "a" },
        { SLICE(""), "" },
        { SLICE("a b"), "a_b" },
        { SLICE("a\r\nSet-Cookie: x"), "a__Set-Cookie:_x" },
        { SLICE("a\0b"), "a_b" },
        { SLICE("\x7f\x80\xff"), "___" },
        { SLICE("caf\xc3\xa9"), "caf__" },
        { SLICE("\"\\;,{}<>"), "\"\\;,{}<>" },
        { SLICE("%s%n"), "%s%n" },
        { SLICE("!~"), "!~" },
        { SLICE("0123456789012345678901234567890123456789012345678901234567890123"),
          "0123456789012345678901234567890123456789012345678901234567890123" },
        { SLICE("01234567890123456789012345678901234567890123456789012345678901234"),
          "0123456789012345678901234567890123456789012345678901234567890123" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf out = STRBUF_INIT;
        char safe[65], reason[128];
        char *copy = copy_of(cases[i].name);
        size_t n = reply_safe_name(copy, cases[i].name.len, safe);
        if (strcmp(safe, cases[i].safe) != 0 || n != strlen(safe))
            fail_msg("\"%s\": made \"%s\"", show(cases[i].name), safe);

        struct reply r = refusal(copy, cases[i].name.len);
        struct strbuf scratch = STRBUF_INIT;
        reply_write(&r, &out, &scratch);
        strbuf_free(&scratch);
        const char *body = read_back(&out, &head, false);
        snprintf(reason, sizeof(reason), "Circuit breaker open: %s", cases[i].safe);
        const struct http1_field *f = http1_find(&head, SLICE("X-Tripswitch-Breaker"));
        if (head.field_count != 7 || !slice_eq(head.reason, slice_of(reason)) || !f ||
            !slice_eq(f->value, slice_of(cases[i].safe)))
            fail_msg("\"%s\": %zu fields, reason \"%s\"", show(cases[i].name), head.field_count,
                     show(head.reason));
        cJSON *tree = cJSON_Parse(body);
        const char *breaker = cJSON_GetStringValue(cJSON_GetObjectItem(tree, "breaker"));
        if (!breaker || strcmp(breaker, cases[i].safe) != 0)
            fail_msg("\"%s\": the body says \"%s\"", show(cases[i].name), body);
        cJSON_Delete(tree);
        free(copy);
        strbuf_free(&out);
    }
}

static void details_are_a_structured_field_string(void **state)
{
    (void)state;
    static const struct {
        const char *detail, *want;
    } cases[] = {
        { "", "details=\"\"" },
        { "plain", "details=\"plain\"" },
        { "say \"no\"", "details=\"say \\\"no\\\"\"" },
        { "a\\b", "details=\"a\\\\b\"" },
        { "a\r\nb", "details=\"a__b\"" },
        { "caf\xc3\xa9\x7f", "details=\"caf___\"" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf out = STRBUF_INIT;
        struct reply r = plain(502);
        r.detail = cases[i].detail;
        struct strbuf scratch = STRBUF_INIT;
        reply_write(&r, &out, &scratch);
        strbuf_free(&scratch);
        read_back(&out, &head, false);
        const struct http1_field *f = http1_find(&head, SLICE("Proxy-Status"));
        size_t n = strlen(cases[i].want);
        if (!f || f->value.len < n || memcmp(f->value.p + f->value.len - n, cases[i].want, n) != 0)
            fail_msg("\"%s\": got \"%s\"", cases[i].detail, f ? show(f->value) : "no Proxy-Status");
        strbuf_free(&out);
    }
}

static void retry_after_is_whole_seconds_rounded_up(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *want; /* NULL: no field */
    } cases[] = {
        { OFF, NULL }, { 0, "0" },    { 1, "1" },      { 999, "1" },
        { 1000, "1" }, { 1001, "2" }, { 60000, "60" }, { 86400000, "86400" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf out = STRBUF_INIT;
        struct reply r = refusal("b", 1);
        r.retry_after_ms = cases[i].ms;
        struct strbuf scratch = STRBUF_INIT;
        reply_write(&r, &out, &scratch);
        strbuf_free(&scratch);
        read_back(&out, &head, false);
        const struct http1_field *f = http1_find(&head, SLICE("Retry-After"));
        if ((f != NULL) != (cases[i].want != NULL) ||
            (f && !slice_eq(f->value, slice_of(cases[i].want))))
            fail_msg("%lld ms: got \"%s\"", (long long)cases[i].ms, f ? show(f->value) : "none");
        strbuf_free(&out);
    }
}

/* ---- The text that is kept ---- */

static void expect_kept(struct reply_kept *kept, const struct reply *r, uint64_t generation,
                        const char *what)
{
    struct strbuf want = STRBUF_INIT, scratch = STRBUF_INIT;

    reply_write(r, &want, &scratch);
    const struct strbuf *got = reply_text(kept, r, generation);
    if (got->len != want.len || memcmp(strbuf_str(got), strbuf_str(&want), want.len) != 0)
        fail_msg("%s: got\n%s\nwant\n%s", what, strbuf_str(got), strbuf_str(&want));
    strbuf_free(&want);
    strbuf_free(&scratch);
}

static void a_kept_text_is_always_that_of_the_reply(void **state)
{
    (void)state;
    struct name_value header = { (char *)"X-A", (char *)"b" };
    struct name_value_list headers = { &header, 1 };
    struct reply first = refusal("b", 1);
    enum { CHANGES = 15 };
    struct reply changed[CHANGES];
    struct reply_kept kept = { 0 };

    for (size_t i = 0; i < CHANGES; i++)
        changed[i] = first;
    changed[0].status = 429;
    changed[1].error = PERR_PROXY_INTERNAL_ERROR;
    changed[2].detail = "circuit breaker is elsewhere";
    changed[3].breaker = "c";
    changed[4].breaker_len = 0;
    changed[5].breaker_state = "half_open";
    changed[6].decision = "throttle";
    changed[7].reason = "because";
    changed[8].retry_after_ms = 2000;
    changed[9].close = true;
    changed[10].no_body = true;
    changed[11].authenticate = true;
    changed[12].body = "sorry";
    changed[12].body_len = 5;
    changed[12].body_type = "text/plain";
    changed[13] = changed[12];
    changed[13].body_len = 4;
    changed[14].headers = &headers;
    for (size_t i = 0; i < CHANGES; i++) {
        char what[32];
        snprintf(what, sizeof(what), "change %zu", i);
        expect_kept(&kept, &first, 1, what);
        expect_kept(&kept, &first, 1, what);
        expect_kept(&kept, &changed[i], 1, what);
        expect_kept(&kept, &changed[i], 1, what);
        expect_kept(&kept, &first, 1, what);
    }
    reply_kept_free(&kept);
}

static void what_may_have_changed_in_place_is_written_anew(void **state)
{
    (void)state;
    char body[] = "one", name[] = "a";
    struct reply_kept kept = { 0 };
    struct reply of_configuration = refusal("b", 1), of_override = refusal("b", 1),
                 ours = plain(502);

    of_configuration.body = body;
    of_configuration.body_len = 3;
    of_configuration.body_type = "text/plain";
    expect_kept(&kept, &of_configuration, 1, "as it was");
    memcpy(body, "two", 3);
    expect_kept(&kept, &of_configuration, 2, "another configuration");

    of_override.reason = name;
    expect_kept(&kept, &of_override, 2, "as it was");
    name[0] = 'b';
    expect_kept(&kept, &of_override, 2, "another reason");

    ours.detail = name;
    expect_kept(&kept, &ours, 2, "as it was");
    name[0] = 'c';
    expect_kept(&kept, &ours, 2, "another detail");
    reply_kept_free(&kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_is_a_problem_with_a_proxy_status),
        cmocka_unit_test(a_refusal_names_its_breaker_in_the_reason_phrase),
        cmocka_unit_test(a_kept_text_is_always_that_of_the_reply),
        cmocka_unit_test(what_may_have_changed_in_place_is_written_anew),
        cmocka_unit_test(an_answer_with_a_body_of_its_own_carries_no_error),
        cmocka_unit_test(the_reason_of_an_override_is_in_the_details_whatever_the_body),
        cmocka_unit_test(a_refusal_of_the_routes_own_still_says_who_refused),
        cmocka_unit_test(every_status_is_a_complete_response_with_or_without_a_body),
        cmocka_unit_test(names_from_a_peer_cannot_break_out_of_their_place),
        cmocka_unit_test(details_are_a_structured_field_string),
        cmocka_unit_test(retry_after_is_whole_seconds_rounded_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
