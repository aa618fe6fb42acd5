/* HTTP/1 heads: what is taken, what is refused and as what, and what it means. */
#include "proxy/http1.h"

#include "base/base.h"
#include "base/prng.h"
#include "tests/unit/show.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct http1_head head; /* of the newest parse */
static char *bytes;            /* what it points into */

/* Parses a copy that ends where the memory ends. */
static enum http1_error parse_request(struct slice text, size_t max_fields)
{
    free(bytes);
    bytes = copy_of(text);
    memset(&head, 0xa5, sizeof(head));
    return http1_parse_request(&head, bytes, text.len, max_fields);
}

static enum http1_error parse_response(struct slice text, bool no_body)
{
    free(bytes);
    bytes = copy_of(text);
    memset(&head, 0xa5, sizeof(head));
    return http1_parse_response(&head, bytes, text.len, 128, no_body);
}

static int free_bytes(void **state)
{
    (void)state;
    free(bytes);
    bytes = NULL;
    return 0;
}

static void expect_error(struct slice text, enum http1_error got, enum http1_error want)
{
    if (got != want)
        fail_msg("\"%s\": got \"%s\", want \"%s\"", show(text), http1_error_text(got),
                 http1_error_text(want));
}

static void expect_slice(struct slice text, const char *what, struct slice got, struct slice want)
{
    if (!slice_eq(got, want))
        fail_msg("\"%s\": %s is \"%s\", want \"%s\"", show(text), what, show(got), show(want));
}

/* ---- The end of a head ---- */

static void the_end_of_a_head_is_found_wherever_its_bytes_are_split(void **state)
{
    (void)state;
    static const struct {
        struct slice text;
        int want;
        size_t end;
    } cases[] = {
        { SLICE(""), 0, 0 },
        { SLICE("G"), 0, 0 },
        { SLICE("\r"), 0, 0 },
        { SLICE("\r\n"), 1, 2 },
        { SLICE("\n"), -1, 0 },
        { SLICE("GET / HTTP/1.1\r\n\r\n"), 1, 18 },
        { SLICE("GET / HTTP/1.1\r\nA: b\r\n\r\n"), 1, 24 },
        { SLICE("GET / HTTP/1.1\r\nA: b\r\n\r\nbody\n"), 1, 24 },
        { SLICE("GET / HTTP/1.1\r\nA: b\r\n"), 0, 0 },
        { SLICE("GET / HTTP/1.1\r\nA: b\r\n\r"), 0, 0 },
        { SLICE("GET / HTTP/1.1\nA: b\r\n\r\n"), -1, 0 },
        { SLICE("GET / HTTP/1.1\r\nA: b\n\r\n"), -1, 0 },
        { SLICE("GET / HTTP/1.1\r\nA: b\r\n\n"), -1, 0 },
        { SLICE("GET / HTTP/1.1\r\nA: b\r\r\n\r\n"), 1, 25 }, /* refused when it is read */
        { SLICE("\r\r\n"), 0, 0 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct slice t = cases[i].text;
        for (size_t first = 0; first <= t.len; first++) {
            for (size_t step = 1; step <= 3; step++) {
                size_t scanned = 0, end = 0;
                int got = 0;
                for (size_t n = first; got == 0; n = n + step < t.len ? n + step : t.len) {
                    char *part = copy_of((struct slice){ t.p, n });
                    got = http1_find_end(part, n, &scanned, &end);
                    free(part);
                    if (n == t.len)
                        break;
                }
                if (got != cases[i].want || (got == 1 && end != cases[i].end))
                    fail_msg("\"%s\" in pieces of %zu, then %zu: got %d at %zu, want %d at %zu",
                             show(t), first, step, got, end, cases[i].want, cases[i].end);
            }
        }
    }
}

static void finding_the_end_is_linear_however_slowly_a_line_comes(void **state)
{
    (void)state;
    size_t scanned = 0, end = 0;
    char *line = xmalloc(65536);

    memset(line, 'a', 65536);
    for (size_t n = 1; n <= 65536; n++) {
        assert_int_equal(http1_find_end(line, n, &scanned, &end), 0);
        if (scanned + 2 < n)
            fail_msg("after %zu bytes of one line %zu would be looked at again", n, n - scanned);
    }
    free(line);
}

static void empty_lines_before_a_request_stay_at_the_start_of_what_was_scanned(void **state)
{
    (void)state;
    size_t scanned = 0, end;

    /* The reader drops "\r\n" as long as nothing of a line has been scanned. */
    assert_int_equal(http1_find_end("\r", 1, &scanned, &end), 0);
    assert_int_equal(scanned, 0);
}

/* ---- Request lines ---- */

static void a_request_line_has_three_parts_and_single_spaces(void **state)
{
    (void)state;
    static const struct {
        struct slice line;
        enum http1_error want;
    } cases[] = {
        { SLICE("GET http://a/ HTTP/1.1"), HTTP1_OK },
        { SLICE("GET http://a/ HTTP/1.0"), HTTP1_OK },
        { SLICE("GET http://a/ HTTP/1.9"), HTTP1_OK },
        { SLICE("M-SEARCH * HTTP/1.1"), HTTP1_OK },
        { SLICE("get http://a/ HTTP/1.1"), HTTP1_OK },
        { SLICE("!#$%&'*+-.^_`|~09azAZ / HTTP/1.1"), HTTP1_OK },
        { SLICE("GET /\xc3\xa9 HTTP/1.1"), HTTP1_OK },
        { SLICE("GET /%00%0d%0a HTTP/1.1"), HTTP1_OK },
        { SLICE(""), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET /"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET / "), HTTP1_BAD_REQUEST_LINE },
        { SLICE(" GET / HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET  / HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET /  HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET / HTTP/1.1 "), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET / a HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET\t/\tHTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET /\tHTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET\v/ HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("G(T / HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("G\0T / HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("G\xc3\xa9T / HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET /\0 HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET /\x7f HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET /a\tb HTTP/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET /a\rb HTTP/1.1"), HTTP1_BAD_LINE_END },
        { SLICE("\rGET / HTTP/1.1"), HTTP1_BAD_LINE_END },
        { SLICE("GET / HTTP/1.1\r"), HTTP1_BAD_LINE_END },
        { SLICE("GET / http/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET / HTTP/1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET / HTTP/1."), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET / HTTP/1.10"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET / HTTP/1.x"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET / HTTP/1,1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET / HTTP/+1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET / HTTP/01.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET / ICY/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET / HTTPS/1.1"), HTTP1_BAD_REQUEST_LINE },
        { SLICE("GET / HTTP/2.0"), HTTP1_BAD_VERSION },
        { SLICE("GET / HTTP/0.9"), HTTP1_BAD_VERSION },
        { SLICE("PRI * HTTP/2.0"), HTTP1_BAD_VERSION },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[256];
        size_t n = cases[i].line.len;
        memcpy(text, cases[i].line.p, n);
        memcpy(text + n, "\r\nHost: a\r\n\r\n", 13);
        expect_error(cases[i].line, parse_request((struct slice){ text, n + 13 }, 128),
                     cases[i].want);
    }
}

static void a_request_line_is_taken_apart_byte_for_byte(void **state)
{
    (void)state;
    struct slice text = SLICE("OPTIONS http://A.b:1/%7e/../x//?q=a?b&c HTTP/1.0\r\n\r\n");

    expect_error(text, parse_request(text, 128), HTTP1_OK);
    expect_slice(text, "method", head.method, SLICE("OPTIONS"));
    expect_slice(text, "target", head.target, SLICE("http://A.b:1/%7e/../x//?q=a?b&c"));
    assert_int_equal(head.minor, 0);
    assert_int_equal(head.field_count, 0);
}

static void only_printable_bytes_may_stand_in_a_target(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        char text[] = "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n";
        text[6] = (char)c;
        enum http1_error want = c == '\r'                ? HTTP1_BAD_LINE_END
                                : c <= 0x20 || c == 0x7f ? HTTP1_BAD_REQUEST_LINE
                                                         : HTTP1_OK;
        enum http1_error got = parse_request((struct slice){ text, sizeof(text) - 1 }, 128);
        if (got != want)
            fail_msg("byte %#04x: got \"%s\", want \"%s\"", c, http1_error_text(got),
                     http1_error_text(want));
    }
}

/* ---- Field lines ---- */

static void field_lines_have_one_reading_or_are_refused(void **state)
{
    (void)state;
    static const struct {
        struct slice lines;
        enum http1_error want;
        struct slice value; /* of the first field, if it is taken */
    } cases[] = {
        { SLICE("A: b\r\n"), HTTP1_OK, SLICE("b") },
        { SLICE("A:b\r\n"), HTTP1_OK, SLICE("b") },
        { SLICE("A: \t b \t \r\n"), HTTP1_OK, SLICE("b") },
        { SLICE("A:\r\n"), HTTP1_OK, SLICE("") },
        { SLICE("A: \t \r\n"), HTTP1_OK, SLICE("") },
        { SLICE("A: b c\td\r\n"), HTTP1_OK, SLICE("b c\td") },
        { SLICE("A: :b:\r\n"), HTTP1_OK, SLICE(":b:") },
        { SLICE("A: caf\xe9 \xc3\xa9\r\n"), HTTP1_OK, SLICE("caf\xe9 \xc3\xa9") },
        { SLICE("A:\r\nB: c\r\n"), HTTP1_OK, SLICE("") },
        { SLICE("A: b\r\nA: c\r\n"), HTTP1_OK, SLICE("b") },
        { SLICE("!#$%&'*+-.^_`|~09azAZ: b\r\n"), HTTP1_OK, SLICE("b") },
        { SLICE("A : b\r\n"), HTTP1_BAD_FIELD, SLICE("") },
        { SLICE("A\t: b\r\n"), HTTP1_BAD_FIELD, SLICE("") },
        { SLICE(" A: b\r\n"), HTTP1_BAD_FIELD, SLICE("") },
        { SLICE("\tA: b\r\n"), HTTP1_BAD_FIELD, SLICE("") },
        { SLICE(": b\r\n"), HTTP1_BAD_FIELD, SLICE("") },
        { SLICE("A\r\n"), HTTP1_BAD_FIELD, SLICE("") },
        { SLICE("A b\r\n"), HTTP1_BAD_FIELD, SLICE("") },
        { SLICE("A b: c\r\n"), HTTP1_BAD_FIELD, SLICE("") },
        { SLICE("A(: b\r\n"), HTTP1_BAD_FIELD, SLICE("") },
        { SLICE("A\0: b\r\n"), HTTP1_BAD_FIELD, SLICE("") },
        { SLICE("\xc3\xa9: b\r\n"), HTTP1_BAD_FIELD, SLICE("") },
        { SLICE("A: b\r\n c\r\n"), HTTP1_BAD_FIELD, SLICE("") },  /* folded */
        { SLICE("A: b\r\n\tc\r\n"), HTTP1_BAD_FIELD, SLICE("") }, /* folded */
        { SLICE("A:\r\n b\r\n"), HTTP1_BAD_FIELD, SLICE("") },    /* folded at once */
        { SLICE("A:\r\n \r\n"), HTTP1_BAD_FIELD, SLICE("") },     /* folded, nothing in it */
        { SLICE("A: b\r\n \r\n"), HTTP1_BAD_FIELD, SLICE("") },
        { SLICE("A: b\r\n \r\nB: c\r\n"), HTTP1_BAD_FIELD, SLICE("") },
        { SLICE("A:\r\n\t\r\nB: c\r\n"), HTTP1_BAD_FIELD, SLICE("") },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (int response = 0; response < 2; response++) {
            struct slice start =
                response ? SLICE("HTTP/1.1 200 OK\r\n") : SLICE("GET http://a/ HTTP/1.0\r\n");
            char text[256];
            size_t n = start.len + cases[i].lines.len;
            memcpy(text, start.p, start.len);
            memcpy(text + start.len, cases[i].lines.p, cases[i].lines.len);
            memcpy(text + n, "\r\n", 2);
            struct slice all = { text, n + 2 };
            expect_error(all, response ? parse_response(all, false) : parse_request(all, 128),
                         cases[i].want);
            if (cases[i].want == HTTP1_OK)
                expect_slice(all, "the first value", head.fields[0].value, cases[i].value);
        }
    }
}

static void bare_line_ends_inside_a_value_are_refused(void **state)
{
    (void)state;
    static const struct slice cases[] = {
        SLICE("GET / HTTP/1.0\r\nA: b\rc\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\nA: b\r\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\nA: \rb\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\nA:\r\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\nA: b\nB: c\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\nA: b\n c\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\nA:\nB: c\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\nA: b\r\n\rB: c\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\n\rA: b\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\nA: b\r\n\r\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\nA: b\r\n\r\r\nB: c\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\r\nB: c\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\n\nA: b\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\nA\r: b\r\n\r\n"),
        SLICE("GET / HTTP/1.0\r\nA\n: b\r\n\r\n"),
        SLICE("GET / HTTP/1.0\nA: b\r\n\r\n"),
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        enum http1_error got = parse_request(cases[i], 128);
        if (got != HTTP1_BAD_LINE_END && got != HTTP1_BAD_FIELD && got != HTTP1_BAD_REQUEST_LINE)
            fail_msg("\"%s\": got \"%s\"", show(cases[i]), http1_error_text(got));
    }
}

static bool is_tchar(unsigned c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != 0 && strchr("!#$%&'*+-.^_`|~", (int)c));
}

static void each_byte_is_legal_in_names_and_values_exactly_where_it_should_be(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        /* Also behind 60 other bytes: a parser may take long runs another way. */
        static const char *const values[] = {
            "GET / HTTP/1.0\r\nA: b@d\r\n\r\n",
            ("GET / HTTP/1.0\r\nA: "
             "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb@d\r\n\r\n"),
            "GET / HTTP/1.0\r\nHost: b@d\r\n\r\n",
            "GET / HTTP/1.0\r\nUpgrade: b@d\r\n\r\n",
            "GET / HTTP/1.0\r\nConnection: b@d\r\n\r\n",
            "GET / HTTP/1.0\r\nConnection: close@d\r\n\r\n",
            "GET / HTTP/1.0\r\nConnection: keep-alive, @d\r\n\r\n",
        };
        for (size_t v = 0; v < ARRAY_LEN(values); v++) {
            size_t len = strlen(values[v]);
            char *text = xstrndup(values[v], len);
            *strchr(text, '@') = (char)c;
            bool want = c == '\t' || (c >= 0x20 && c != 0x7f);
            bool got = parse_request((struct slice){ text, len }, 128) == HTTP1_OK;
            if (got != want)
                fail_msg("byte %#04x in \"%s\": %s", c, show(slice_of(values[v])),
                         got ? "taken" : "refused");
            free(text);
        }
        char name[] = "GET / HTTP/1.0\r\na@b: c\r\n\r\n";
        name[17] = (char)c;
        bool want = is_tchar(c) || c == ':'; /* a colon just ends the name */
        bool got = parse_request((struct slice){ name, sizeof(name) - 1 }, 128) == HTTP1_OK;
        if (got != want)
            fail_msg("byte %#04x in a name: %s", c, got ? "taken" : "refused");
        bool token = http1_is_token((struct slice){ (char[]){ (char)c }, 1 });
        if (token != is_tchar(c))
            fail_msg("byte %#04x as a token: got %d", c, token);
    }
    assert_false(http1_is_token(SLICE("")));
}

static void a_reason_phrase_is_checked_at_each_of_its_bytes(void **state)
{
    (void)state;
    static const char start[] = "HTTP/1.1 200 ";
    for (size_t at = 0; at < 20; at++) {
        for (unsigned c = 0; c < 256; c++) {
            char text[] = "HTTP/1.1 200 abcdefghij\tl\xe9nopqrst\r\n\r\n";
            text[sizeof(start) - 1 + at] = (char)c;
            bool want = c == '\t' || (c >= 0x20 && c != 0x7f);
            bool got = parse_response((struct slice){ text, sizeof(text) - 1 }, false) == HTTP1_OK;
            if (got != want)
                fail_msg("byte %#04x at %zu: %s", c, at, got ? "taken" : "refused");
        }
    }
}

static void lines_names_and_ids_are_as_received(void **state)
{
    (void)state;
    struct slice text = SLICE("GET / HTTP/1.1\r\nHOST:  a \r\nx-Y:\r\nset-cookie: 1\r\n"
                              "Set-Cookie: 2\r\n\r\n");
    static const struct {
        struct slice name, value, line;
        enum http1_field_id id;
    } want[] = {
        { SLICE("HOST"), SLICE("a"), SLICE("HOST:  a \r\n"), FIELD_HOST },
        { SLICE("x-Y"), SLICE(""), SLICE("x-Y:\r\n"), FIELD_OTHER },
        { SLICE("set-cookie"), SLICE("1"), SLICE("set-cookie: 1\r\n"), FIELD_SET_COOKIE },
        { SLICE("Set-Cookie"), SLICE("2"), SLICE("Set-Cookie: 2\r\n"), FIELD_SET_COOKIE },
    };

    expect_error(text, parse_request(text, 128), HTTP1_OK);
    assert_int_equal(head.field_count, ARRAY_LEN(want));
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        expect_slice(text, "name", head.fields[i].name, want[i].name);
        expect_slice(text, "value", head.fields[i].value, want[i].value);
        expect_slice(text, "line", head.fields[i].line, want[i].line);
        assert_int_equal(head.fields[i].id, want[i].id);
    }
    assert_ptr_equal(head.host, &head.fields[0]);
    assert_ptr_equal(http1_find(&head, SLICE("SET-COOKIE")), &head.fields[2]);
    assert_null(http1_find(&head, SLICE("set-cooki")));
}

static void every_field_that_we_look_at_is_recognised_in_any_case(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum http1_field_id id;
    } cases[] = {
        { "te", FIELD_TE },
        { "Via", FIELD_VIA },
        { "HOST", FIELD_HOST },
        { "eXpect", FIELD_EXPECT },
        { "Upgrade", FIELD_UPGRADE },
        { "Trailer", FIELD_TRAILER },
        { "CONNECTION", FIELD_CONNECTION },
        { "Keep-Alive", FIELD_KEEP_ALIVE },
        { "Content-Type", FIELD_CONTENT_TYPE },
        { "Cookie", FIELD_COOKIE },
        { "SET-cookie", FIELD_SET_COOKIE },
        { "Set-Cookie2", FIELD_OTHER },
        { "Max-Forwards", FIELD_MAX_FORWARDS },
        { "Authorization", FIELD_AUTHORIZATION },
        { "WWW-Authenticate", FIELD_WWW_AUTHENTICATE },
        { "Proxy-Connection", FIELD_PROXY_CONNECTION },
        { "Proxy-Authorization", FIELD_PROXY_AUTHORIZATION },
        { "t", FIELD_OTHER },
        { "tee", FIELD_OTHER },
        { "Hosts", FIELD_OTHER },
        { "Content-Lengt", FIELD_OTHER },
        { "Content_Length", FIELD_OTHER },
        { "Content-Length2", FIELD_OTHER },
        { "Transfer_Encoding", FIELD_OTHER },
        { "X-Transfer-Encoding", FIELD_OTHER },
        { "X-Proxy-Authorization", FIELD_OTHER },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[128];
        int n = snprintf(text, sizeof(text), "GET / HTTP/1.0\r\n%s: 1\r\n\r\n", cases[i].name);
        struct slice all = { text, (size_t)n };
        expect_error(all, parse_request(all, 128), HTTP1_OK);
        if (head.fields[0].id != cases[i].id)
            fail_msg("%s: got id %u, want %u", cases[i].name, head.fields[0].id, cases[i].id);
    }
}

/* ---- Framing of requests ---- */

struct framing_case {
    struct slice lines;
    enum http1_error want;
    enum http1_framing framing;
    uint64_t length;
};

static void check_request_framing(const struct framing_case *cases, size_t n, const char *start)
{
    for (size_t i = 0; i < n; i++) {
        char text[512];
        int len = snprintf(text, sizeof(text), "%s\r\n%.*s\r\n", start, (int)cases[i].lines.len,
                           cases[i].lines.p);
        struct slice all = { text, (size_t)len };
        expect_error(all, parse_request(all, 128), cases[i].want);
        if (cases[i].want)
            continue;
        if (head.framing != cases[i].framing || head.content_length != cases[i].length)
            fail_msg("\"%s\": got framing %d of %llu bytes, want %d of %llu", show(all),
                     (int)head.framing, (unsigned long long)head.content_length,
                     (int)cases[i].framing, (unsigned long long)cases[i].length);
    }
}

static void content_length_is_digits_and_nothing_else(void **state)
{
    (void)state;
    static const struct framing_case cases[] = {
        { SLICE(""), HTTP1_OK, FRAMING_NONE, 0 },
        { SLICE("Content-Length: 0\r\n"), HTTP1_OK, FRAMING_LENGTH, 0 },
        { SLICE("Content-Length: 5\r\n"), HTTP1_OK, FRAMING_LENGTH, 5 },
        { SLICE("content-length:5\r\n"), HTTP1_OK, FRAMING_LENGTH, 5 },
        { SLICE("CONTENT-LENGTH: \t5  \r\n"), HTTP1_OK, FRAMING_LENGTH, 5 },
        { SLICE("Content-Length:\t5\t\r\n"), HTTP1_OK, FRAMING_LENGTH, 5 },
        { SLICE("Content-Length: 12 \t \r\n"), HTTP1_OK, FRAMING_LENGTH, 12 },
        { SLICE("Content-Length: 1\t2\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 007\r\n"), HTTP1_OK, FRAMING_LENGTH, 7 },
        { SLICE("Content-Length: 00000000000000000000000000000000012\r\n"), HTTP1_OK,
          FRAMING_LENGTH, 12 },
        { SLICE("Content-Length: 4294967296\r\n"), HTTP1_OK, FRAMING_LENGTH, UINT64_C(4294967296) },
        { SLICE("Content-Length: 922337203685477579\r\n"), HTTP1_OK, FRAMING_LENGTH,
          UINT64_C(922337203685477579) },
        { SLICE("Content-Length: 9223372036854775808\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 18446744073709551615\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 18446744073709551616\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 18446744073709551621\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 99999999999999999999999999999999\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length:\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: \t\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: +5\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: -5\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 5a\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 0x5\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 5.0\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 5e1\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 1_000\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: \"5\"\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 5;\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 5 5\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 5,5\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 5, 6\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 5,\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: ,5\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: \xc2\xb2\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 5\r\nContent-Length: 6\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 6\r\nA: b\r\ncontent-length: 5\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 5\r\nContent-Length: 5\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length: 5\r\nContent-Length:\r\n"), HTTP1_BAD_LENGTH, 0, 0 },
        { SLICE("Content-Length : 5\r\n"), HTTP1_BAD_FIELD, 0, 0 },
        { SLICE("Content-Length: 5\r\n 6\r\n"), HTTP1_BAD_FIELD, 0, 0 },
        { SLICE("Content-Length:\r\n 5\r\n"), HTTP1_BAD_FIELD, 0, 0 },
        { SLICE("X-Content-Length: 5\r\n"), HTTP1_OK, FRAMING_NONE, 0 },
    };

    check_request_framing(cases, ARRAY_LEN(cases), "GET / HTTP/1.0");
    check_request_framing(cases, ARRAY_LEN(cases), "POST / HTTP/1.1\r\nHost: a");
}

static void the_only_transfer_coding_of_a_request_is_chunked(void **state)
{
    (void)state;
    static const struct framing_case cases[] = {
        { SLICE("Transfer-Encoding: chunked\r\n"), HTTP1_OK, FRAMING_CHUNKED, 0 },
        { SLICE("transfer-encoding:CHUNKED\r\n"), HTTP1_OK, FRAMING_CHUNKED, 0 },
        { SLICE("Transfer-Encoding: \tChunked \t\r\n"), HTTP1_OK, FRAMING_CHUNKED, 0 },
        { SLICE("Transfer-Encoding: , chunked,,\r\n"), HTTP1_OK, FRAMING_CHUNKED, 0 },
        { SLICE("Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n"), HTTP1_OK, FRAMING_CHUNKED,
          0 },
        { SLICE("Transfer-Encoding:\r\n"), HTTP1_BAD_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: ,\r\n"), HTTP1_BAD_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: chunked, gzip\r\n"), HTTP1_BAD_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: chunked, identity\r\n"), HTTP1_BAD_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n"), HTTP1_BAD_CODING, 0,
          0 },
        { SLICE("Transfer-Encoding: chunked, chunked\r\n"), HTTP1_BAD_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), HTTP1_BAD_CODING,
          0, 0 },
        { SLICE("Transfer-Encoding: chunked, gzip, chunked\r\n"), HTTP1_BAD_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: gzip, chunked\r\n"), HTTP1_UNKNOWN_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"), HTTP1_UNKNOWN_CODING,
          0, 0 },
        { SLICE("Transfer-Encoding: identity\r\n"), HTTP1_UNKNOWN_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: gzip\r\n"), HTTP1_UNKNOWN_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: xchunked\r\n"), HTTP1_UNKNOWN_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: chunkedx\r\n"), HTTP1_UNKNOWN_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: chunke\r\n"), HTTP1_UNKNOWN_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: chunked;a=b\r\n"), HTTP1_UNKNOWN_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: \"chunked\"\r\n"), HTTP1_UNKNOWN_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: chunked chunked\r\n"), HTTP1_UNKNOWN_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: chu nked\r\n"), HTTP1_UNKNOWN_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: \xc2\xa0"
                "chunked\r\n"),
          HTTP1_UNKNOWN_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: chunked\v\r\n"), HTTP1_BAD_FIELD, 0, 0 },
        { SLICE("Transfer-Encoding : chunked\r\n"), HTTP1_BAD_FIELD, 0, 0 },
        { SLICE("Transfer-Encoding\t: chunked\r\n"), HTTP1_BAD_FIELD, 0, 0 },
        { SLICE("Transfer-Encoding:\r\n chunked\r\n"), HTTP1_BAD_FIELD, 0, 0 },
        { SLICE("A: b\r\n Transfer-Encoding: chunked\r\n"), HTTP1_BAD_FIELD, 0, 0 },
        { SLICE("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), HTTP1_BAD_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), HTTP1_BAD_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"), HTTP1_BAD_CODING, 0, 0 },
    };

    check_request_framing(cases, ARRAY_LEN(cases), "POST http://a/ HTTP/1.1\r\nHost: a");
    check_request_framing(cases, ARRAY_LEN(cases), "GET http://a/ HTTP/1.1\r\nHost: a");
}

static void a_length_beside_an_unknown_coding_is_refused(void **state)
{
    (void)state;
    struct slice text = SLICE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
                              "Transfer-Encoding: gzip\r\n\r\n");
    enum http1_error got = parse_request(text, 128);

    if (got != HTTP1_BAD_LENGTH && got != HTTP1_UNKNOWN_CODING && got != HTTP1_BAD_CODING)
        fail_msg("got \"%s\"", http1_error_text(got));
}

static void http_1_0_has_no_transfer_codings(void **state)
{
    (void)state;
    static const struct framing_case cases[] = {
        { SLICE("Transfer-Encoding: chunked\r\n"), HTTP1_BAD_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: gzip\r\n"), HTTP1_UNKNOWN_CODING, 0, 0 },
        { SLICE("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), HTTP1_BAD_CODING, 0, 0 },
    };

    check_request_framing(cases, ARRAY_LEN(cases), "POST http://a/ HTTP/1.0");
}

static void there_is_one_host_in_1_1_and_at_most_one_in_1_0(void **state)
{
    (void)state;
    static const struct {
        struct slice text;
        enum http1_error want;
    } cases[] = {
        { SLICE("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), HTTP1_OK },
        { SLICE("GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n"), HTTP1_OK }, /* its value: authority.c */
        { SLICE("GET http://a/ HTTP/1.1\r\n\r\n"), HTTP1_BAD_HOST },
        { SLICE("GET http://a/ HTTP/1.2\r\n\r\n"), HTTP1_BAD_HOST },
        { SLICE("GET http://a/ HTTP/1.1\r\nX-Host: a\r\n\r\n"), HTTP1_BAD_HOST },
        { SLICE("GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), HTTP1_BAD_HOST },
        { SLICE("GET http://a/ HTTP/1.1\r\nHost: a\r\nB: c\r\nhOST: b\r\n\r\n"), HTTP1_BAD_HOST },
        { SLICE("GET http://a/ HTTP/1.0\r\n\r\n"), HTTP1_OK },
        { SLICE("GET http://a/ HTTP/1.0\r\nHost: a\r\n\r\n"), HTTP1_OK },
        { SLICE("GET http://a/ HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), HTTP1_BAD_HOST },
        { SLICE("CONNECT a:1 HTTP/1.1\r\n\r\n"), HTTP1_OK },
        { SLICE("CONNECT a:1 HTTP/1.0\r\n\r\n"), HTTP1_OK },
        { SLICE("connect a:1 HTTP/1.1\r\n\r\n"), HTTP1_BAD_HOST }, /* another method */
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        expect_error(cases[i].text, parse_request(cases[i].text, 128), cases[i].want);
}

/* ---- Connection and what it names ---- */

static void connection_names_what_stays_here(void **state)
{
    (void)state;
    static const struct {
        const char *lines;
        const char *forwarded; /* names of the fields that are not hop-by-hop */
        bool close, keep_alive;
    } cases[] = {
        { "A: 1\r\n", "A", false, false },
        { "Connection: close\r\n", "", true, false },
        { "Connection: CLOSE\r\n", "", true, false },
        { "Connection: x, close ,y\r\n", "", true, false },
        { "Connection: x\r\nConnection: close\r\n", "", true, false },
        { "Connection: closed\r\n", "", false, false },
        { "Connection: \"close\"\r\n", "", false, false },
        { "Connection: keep-alive\r\n", "", false, true },
        { "Proxy-Connection: keep-alive\r\n", "", false, true },
        { "Proxy-Connection: close\r\n", "", true, false },
        { "Connection: A\r\nA: 1\r\nB: 2\r\n", "B", false, false },
        { "A: 1\r\nB: 2\r\nConnection: b , a\r\n", "", false, false },
        { "A: 1\r\na: 2\r\nConnection: A\r\nA: 3\r\n", "", false, false },
        { "A: 1\r\nB: 2\r\nC: 3\r\nConnection: A\r\nConnection: C\r\n", "B", false, false },
        { "A: 1\r\nProxy-Connection: A\r\n", "", false, false },
        { "Keep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Authorization: x\r\nA: 1\r\n",
          "A", false, false },
        { "Connection:\r\nA: 1\r\n", "A", false, false },
        { "Connection: ,,\r\nA: 1\r\n", "A", false, false },
        { "A-B: 1\r\nA: 2\r\nConnection: A-B\r\n", "A", false, false },
        /* framing and routing cannot be named away */
        { "Connection: Content-Length\r\nContent-Length: 5\r\n", "Content-Length", false, false },
        { "Content-Length: 5\r\nConnection: content-length, close\r\n", "Content-Length", true,
          false },
        { "Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding\r\n", "Transfer-Encoding",
          false, false },
        { "Connection: Expect\r\nExpect: 100-continue\r\n", "Expect", false, false },
        { "Expect: 100-continue\r\nConnection: A, expect\r\nA: 1\r\n", "Expect", false, false },
        /* end-to-end fields that look like hop-by-hop ones */
        { "Trailer: a\r\nVia: b\r\nProxy-Authenticate: c\r\nExpect: d\r\n",
          "Trailer Via Proxy-Authenticate Expect", false, false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[512], names[256] = "";
        int n = snprintf(text, sizeof(text),
                         "POST http://a/ HTTP/1.1\r\nConnection: Host\r\nHost: a\r\n%s\r\n",
                         cases[i].lines);
        struct slice all = { text, (size_t)n };
        expect_error(all, parse_request(all, 128), HTTP1_OK);
        for (size_t f = 0; f < head.field_count; f++)
            if (!head.fields[f].hop && head.fields[f].id != FIELD_HOST)
                snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%.*s",
                         names[0] ? " " : "", (int)head.fields[f].name.len, head.fields[f].name.p);
        if (strcmp(names, cases[i].forwarded) != 0)
            fail_msg("\"%s\": forwarded [%s], want [%s]", show(all), names, cases[i].forwarded);
        if (!head.host || head.host->hop)
            fail_msg("\"%s\": Host was named away", show(all));
        if (head.close != cases[i].close || head.keep_alive != cases[i].keep_alive)
            fail_msg("\"%s\": close %d keep-alive %d", show(all), head.close, head.keep_alive);
    }
}

static void http_1_0_clients_are_closed_after_the_answer(void **state)
{
    (void)state;
    struct slice text = SLICE("GET http://a/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");

    expect_error(text, parse_request(text, 128), HTTP1_OK);
    assert_true(head.close);
}

static void an_upgrade_counts_only_if_connection_names_it(void **state)
{
    (void)state;
    static const struct {
        struct slice text;
        bool want;
    } cases[] = {
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"), false },
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
          true },
        { SLICE(
              "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, UPGRADE\r\nUpgrade: websocket\r\n\r\n"),
          true },
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n"), false },
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrades\r\nUpgrade: x\r\n\r\n"), false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        expect_error(cases[i].text, parse_request(cases[i].text, 128), HTTP1_OK);
        if ((head.upgrade != NULL) != cases[i].want)
            fail_msg("\"%s\": got %d", show(cases[i].text), head.upgrade != NULL);
    }
}

static void expectations_and_connection_bound_logins_are_noticed(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        bool expect, private_auth;
    } cases[] = {
        { "A: b", false, false },
        { "Expect: 100-continue", true, false },
        { "expect: 100-Continue", true, false },
        { "Expect: x, 100-continue", true, false },
        { "Expect: 100-continued", false, false },
        { "Expect: 200-ok", false, false },
        { "Authorization: NTLM TlRM", false, true },
        { "Authorization: negotiate YII=", false, true },
        { "Authorization: NTLM\tTlRM", false, true },
        { "Authorization:\tNegotiate\t YII=", false, true },
        { "Authorization: Bearer\tntlm", false, false },
        { "Authorization: Basic bnRsbQ==", false, false },
        { "Authorization: Bearer ntlm", false, false },
        { "Authorization: Digest username=\"x\", realm=\"negotiates\"", false, false },
        { "WWW-Authenticate: Basic realm=\"x\", NTLM", false, true },
        { "WWW-Authenticate: Negotiate", false, true },
        { "WWW-Authenticate: Basic realm=\"x\",NTLM\tTlRM", false, true },
        { "WWW-Authenticate: NTLMv9", false, false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[256];
        int n =
            snprintf(text, sizeof(text), "PUT / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", cases[i].line);
        struct slice all = { text, (size_t)n };
        expect_error(all, parse_request(all, 128), HTTP1_OK);
        if (head.expect_continue != cases[i].expect ||
            head.auth_per_connection != cases[i].private_auth)
            fail_msg("%s: expect_continue %d, auth_per_connection %d", cases[i].line,
                     head.expect_continue, head.auth_per_connection);
    }
}

/* ---- Status lines ---- */

static void status_lines_are_read_strictly(void **state)
{
    (void)state;
    static const struct {
        struct slice line;
        enum http1_error want;
        unsigned status;
        struct slice reason;
    } cases[] = {
        { SLICE("HTTP/1.1 200 OK"), HTTP1_OK, 200, SLICE("OK") },
        { SLICE("HTTP/1.0 200 OK"), HTTP1_OK, 200, SLICE("OK") },
        { SLICE("HTTP/1.9 200 OK"), HTTP1_OK, 200, SLICE("OK") },
        { SLICE("HTTP/1.1 100 "), HTTP1_OK, 100, SLICE("") },
        { SLICE("HTTP/1.1 599 "), HTTP1_OK, 599, SLICE("") },
        { SLICE("HTTP/1.1 600 Made Up"), HTTP1_OK, 600, SLICE("Made Up") },
        { SLICE("HTTP/1.1 999 Request Denied"), HTTP1_OK, 999, SLICE("Request Denied") },
        { SLICE("HTTP/1.1 404"), HTTP1_OK, 404, SLICE("") }, /* the space is often left out */
        { SLICE("HTTP/1.1 404 Not Found, \"really\"\t\xe9"), HTTP1_OK, 404,
          SLICE("Not Found, \"really\"\t\xe9") },
        { SLICE("HTTP/1.1 200  two"), HTTP1_OK, 200, SLICE(" two") },
        { SLICE("HTTP/1.1 099 x"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 000 x"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 20 OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 2000 OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 200OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 20x OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 +20 OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 -20 OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 2 0 OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1  200 OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1\t200 OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 200\tOK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 "), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/2 200 OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/2.0 200 OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/0.9 200 OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/11 200 OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("http/1.1 200 OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE(" HTTP/1.1 200 OK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("ICY 200 OK xxxxxx"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("220 mail.example ESMTP"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("SSH-2.0-OpenSSH_9.2"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("<html>"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE(""), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 200 O\0K"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 200 O\x1bK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 200 O\x7fK"), HTTP1_BAD_STATUS_LINE, 0, SLICE("") },
        { SLICE("HTTP/1.1 200 O\rK"), HTTP1_BAD_LINE_END, 0, SLICE("") },
        { SLICE("HTTP/1.1 200 OK\r"), HTTP1_BAD_LINE_END, 0, SLICE("") },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[128];
        size_t n = cases[i].line.len;
        memcpy(text, cases[i].line.p, n);
        memcpy(text + n, "\r\n\r\n", 4);
        expect_error(cases[i].line, parse_response((struct slice){ text, n + 4 }, false),
                     cases[i].want);
        if (cases[i].want)
            continue;
        if (head.status != cases[i].status)
            fail_msg("\"%s\": status %u", show(cases[i].line), head.status);
        expect_slice(cases[i].line, "reason", head.reason, cases[i].reason);
    }
}

static void what_cannot_become_a_status_line_is_known_from_its_first_bytes(void **state)
{
    (void)state;
    static const struct {
        struct slice text;
        bool want;
    } cases[] = {
        { SLICE(""), false },        { SLICE("H"), false },        { SLICE("HTTP/1"), false },
        { SLICE("HTTP/1."), false }, { SLICE("HTTP/1.x"), false }, { SLICE("h"), true },
        { SLICE("HTTP/2"), true },   { SLICE("\r"), true },        { SLICE("220 "), true },
        { SLICE("HTTPS"), true },    { SLICE("\x15\x03"), true },  { SLICE("\0"), true },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *copy = copy_of(cases[i].text);
        if (http1_response_hopeless(copy, cases[i].text.len) != cases[i].want)
            fail_msg("\"%s\": want %d", show(cases[i].text), cases[i].want);
        free(copy);
    }
}

/* ---- Framing of responses ---- */

static void a_response_body_is_framed_in_the_order_of_rfc_9112(void **state)
{
    (void)state;
    static const struct {
        struct slice text;
        bool to_head;
        enum http1_error want;
        enum http1_framing framing;
        uint64_t length;
        bool close;
    } cases[] = {
#define R11 "HTTP/1.1 200 OK\r\n"
#define R10 "HTTP/1.0 200 OK\r\n"
        { SLICE(R11 "\r\n"), false, HTTP1_OK, FRAMING_CLOSE, 0, true },
        { SLICE(R11 "Content-Length: 5\r\n\r\n"), false, HTTP1_OK, FRAMING_LENGTH, 5, false },
        { SLICE(R11 "Content-Length: 0\r\n\r\n"), false, HTTP1_OK, FRAMING_LENGTH, 0, false },
        { SLICE(R11 "Connection: close\r\nContent-Length: 5\r\n\r\n"), false, HTTP1_OK,
          FRAMING_LENGTH, 5, true },
        { SLICE(R11 "Transfer-Encoding: chunked\r\n\r\n"), false, HTTP1_OK, FRAMING_CHUNKED, 0,
          false },
        { SLICE(R11 "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"), false, HTTP1_OK,
          FRAMING_CHUNKED, 5, true },
        { SLICE(R11 "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), false, HTTP1_OK,
          FRAMING_CHUNKED, 5, true },
        { SLICE(R11 "Transfer-Encoding: gzip\r\n\r\n"), false, HTTP1_UNKNOWN_CODING, 0, 0, false },
        { SLICE(R11 "Transfer-Encoding: gzip, chunked\r\n\r\n"), false, HTTP1_UNKNOWN_CODING, 0, 0,
          false },
        { SLICE(R11 "Transfer-Encoding: chunked, gzip\r\n\r\n"), false, HTTP1_BAD_CODING, 0, 0,
          false },
        { SLICE(R11 "Transfer-Encoding: identity\r\n\r\n"), false, HTTP1_UNKNOWN_CODING, 0, 0,
          false },
        { SLICE(R11 "Transfer-Encoding:\r\n\r\n"), false, HTTP1_BAD_CODING, 0, 0, false },
        { SLICE(R11 "Content-Length: x\r\n\r\n"), false, HTTP1_BAD_LENGTH, 0, 0, false },
        { SLICE(R11 "Content-Length: -1\r\n\r\n"), false, HTTP1_BAD_LENGTH, 0, 0, false },
        { SLICE(R11 "Content-Length:\r\n\r\n"), false, HTTP1_BAD_LENGTH, 0, 0, false },
        { SLICE(R11 "Content-Length: 5, 5\r\n\r\n"), false, HTTP1_BAD_LENGTH, 0, 0, false },
        { SLICE(R11 "Content-Length: 5\r\nContent-Length: 6\r\n\r\n"), false, HTTP1_BAD_LENGTH, 0,
          0, false },
        { SLICE(R11 "Content-Length: 6\r\nA: b\r\ncontent-length: 5\r\n\r\n"), false,
          HTTP1_BAD_LENGTH, 0, 0, false },
        /* the same said twice is merged */
        { SLICE(R11 "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"), false, HTTP1_OK,
          FRAMING_LENGTH, 5, false },
        { SLICE(R11 "Content-Length: 5\r\nA: b\r\ncontent-length: 005\r\n\r\n"), false, HTTP1_OK,
          FRAMING_LENGTH, 5, false },
        { SLICE(R11 "Content-Length: 5\r\nContent-Length:\r\n\r\n"), false, HTTP1_BAD_LENGTH, 0, 0,
          false },
        { SLICE(R11 "Content-Length: 18446744073709551616\r\n\r\n"), false, HTTP1_BAD_LENGTH, 0, 0,
          false },
        { SLICE(R11 "Content-Length: 5\t\r\nA: b\r\nContent-Length: \t5\r\n\r\n"), false, HTTP1_OK,
          FRAMING_LENGTH, 5, false },
        /* answers without a body, whatever they announce */
        { SLICE(R11 "Content-Length: 5\r\n\r\n"), true, HTTP1_OK, FRAMING_NONE, 5, false },
        { SLICE(R11 "Transfer-Encoding: chunked\r\n\r\n"), true, HTTP1_OK, FRAMING_NONE, 0, false },
        { SLICE(R11 "\r\n"), true, HTTP1_OK, FRAMING_NONE, 0, false },
        { SLICE("HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n"), false, HTTP1_OK, FRAMING_NONE, 5,
          false },
        { SLICE("HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n"), false, HTTP1_OK, FRAMING_NONE, 5,
          false },
        { SLICE("HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\n\r\n"), false, HTTP1_OK,
          FRAMING_NONE, 0, false },
        { SLICE("HTTP/1.1 100 x\r\nContent-Length: 5\r\n\r\n"), false, HTTP1_OK, FRAMING_NONE, 5,
          false },
        { SLICE("HTTP/1.1 103 x\r\nLink: y\r\n\r\n"), false, HTTP1_OK, FRAMING_NONE, 0, false },
        { SLICE("HTTP/1.1 205 x\r\n\r\n"), false, HTTP1_OK, FRAMING_CLOSE, 0, true },
        /* HTTP/1.0 */
        { SLICE(R10 "Content-Length: 5\r\n\r\n"), false, HTTP1_OK, FRAMING_LENGTH, 5, true },
        { SLICE(R10 "Connection: keep-alive\r\nContent-Length: 5\r\n\r\n"), false, HTTP1_OK,
          FRAMING_LENGTH, 5, false },
        { SLICE(R10 "Connection: keep-alive\r\n\r\n"), false, HTTP1_OK, FRAMING_CLOSE, 0, true },
        { SLICE(R10 "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"), false,
          HTTP1_OK, FRAMING_CHUNKED, 0, true }, /* RFC 9112 6.1: closed, whatever it says */
        /* a Host in a response means nothing, and hides nothing */
        { SLICE(R11 "Host: a\r\nHost: b\r\nContent-Length: 5\r\n\r\n"), false, HTTP1_OK,
          FRAMING_LENGTH, 5, false },
        { SLICE(R11 "Host: a\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n"), false, HTTP1_OK,
          FRAMING_CHUNKED, 0, false },
        { SLICE(R11 "Host: a\r\nHost: b\r\nConnection: close\r\nContent-Length: 5\r\n\r\n"), false,
          HTTP1_OK, FRAMING_LENGTH, 5, true },
        { SLICE(R11 "Host: a\r\nHost: b\r\nContent-Length: x\r\n\r\n"), false, HTTP1_BAD_LENGTH, 0,
          0, false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        expect_error(cases[i].text, parse_response(cases[i].text, cases[i].to_head), cases[i].want);
        if (cases[i].want)
            continue;
        if (head.framing != cases[i].framing || head.content_length != cases[i].length ||
            head.close != cases[i].close)
            fail_msg("\"%s\"%s: got framing %d of %llu bytes, close %d; want %d of %llu, %d",
                     show(cases[i].text), cases[i].to_head ? " to HEAD" : "", (int)head.framing,
                     (unsigned long long)head.content_length, head.close, (int)cases[i].framing,
                     (unsigned long long)cases[i].length, cases[i].close);
    }
}

static void a_coding_beats_a_length_whichever_comes_first(void **state)
{
    (void)state;
    static const struct {
        const char *coding; /* the field's value */
        const char *start;
        bool to_head;
        enum http1_error want;
        enum http1_framing framing;
    } cases[] = {
        { "chunked", "200 x", false, HTTP1_OK, FRAMING_CHUNKED },
        { "chunked\t", "200 x", false, HTTP1_OK, FRAMING_CHUNKED },
        { "\tCHUNKED \t", "200 x", false, HTTP1_OK, FRAMING_CHUNKED },
        { ",chunked,", "200 x", false, HTTP1_OK, FRAMING_CHUNKED },
        { "chunked\r\nTransfer-Encoding:", "200 x", false, HTTP1_OK, FRAMING_CHUNKED },
        { "identity", "200 x", false, HTTP1_UNKNOWN_CODING, 0 },
        { "gzip, chunked", "200 x", false, HTTP1_UNKNOWN_CODING, 0 },
        { "chunked, gzip", "200 x", false, HTTP1_BAD_CODING, 0 },
        { "", "200 x", false, HTTP1_BAD_CODING, 0 },
        { "chunked", "200 x", true, HTTP1_OK, FRAMING_NONE },
        { "identity", "200 x", true, HTTP1_OK, FRAMING_NONE },
        { "identity", "103 x", false, HTTP1_OK, FRAMING_NONE },
        { "identity", "204 x", false, HTTP1_OK, FRAMING_NONE },
        { "identity", "304 x", false, HTTP1_OK, FRAMING_NONE },
        { "gzip, chunked", "304 x", false, HTTP1_OK, FRAMING_NONE },
        { "", "304 x", false, HTTP1_OK, FRAMING_NONE },
    };
    static const char *const orders[] = {
        "HTTP/1.1 %s\r\nTransfer-Encoding: %s\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 %s\r\nTransfer-Encoding: %s\r\nContent-Length: 5\r\nA: b\r\n\r\n",
        "HTTP/1.1 %s\r\nContent-Length: 5\r\nTransfer-Encoding: %s\r\n\r\n",
        "HTTP/1.1 %s\r\nContent-Length: 5\r\nA: b\r\nTransfer-Encoding: %s\r\nA: b\r\n\r\n",
    };

    for (size_t i = 0; i < ARRAY_LEN(cases) * ARRAY_LEN(orders); i++) {
        size_t c = i / ARRAY_LEN(orders);
        char text[256];
        int len = snprintf(text, sizeof(text), orders[i % ARRAY_LEN(orders)], cases[c].start,
                           cases[c].coding);
        struct slice all = { text, (size_t)len };
        expect_error(all, parse_response(all, cases[c].to_head), cases[c].want);
        if (cases[c].want)
            continue;
        if (head.framing != cases[c].framing || head.content_length_field)
            fail_msg("\"%s\": got framing %d, a length %d", show(all), (int)head.framing,
                     head.content_length_field != NULL);
        if (head.framing == FRAMING_CHUNKED && !head.close)
            fail_msg("\"%s\": not closed", show(all));
    }
}

/* ---- Limits ---- */

static struct slice head_of_fields(size_t count, size_t value_len, char **text)
{
    size_t n = 0, cap = 64 + count * (value_len + 16);
    char *t = xmalloc(cap);

    n += (size_t)snprintf(t, cap, "GET http://a/ HTTP/1.0\r\n");
    for (size_t i = 0; i < count; i++) {
        n += (size_t)snprintf(t + n, cap - n, "A%zu: ", i);
        memset(t + n, 'v', value_len);
        n += value_len;
        n += (size_t)snprintf(t + n, cap - n, "\r\n");
    }
    n += (size_t)snprintf(t + n, cap - n, "\r\n");
    *text = t;
    return (struct slice){ t, n };
}

static void the_number_of_fields_is_bounded(void **state)
{
    (void)state;
    static const struct {
        size_t fields, max;
        enum http1_error want;
    } cases[] = {
        { 1, 1, HTTP1_OK },
        { 2, 1, HTTP1_TOO_MANY_FIELDS },
        { 128, 128, HTTP1_OK },
        { 129, 128, HTTP1_TOO_MANY_FIELDS },
        { HTTP1_FIELDS_MAX, HTTP1_FIELDS_MAX, HTTP1_OK },
        { HTTP1_FIELDS_MAX + 1, HTTP1_FIELDS_MAX, HTTP1_TOO_MANY_FIELDS },
        { HTTP1_FIELDS_MAX + 1, 10000, HTTP1_TOO_MANY_FIELDS }, /* never past the array */
        { 5000, 10000, HTTP1_TOO_MANY_FIELDS },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *text;
        struct slice all = head_of_fields(cases[i].fields, 1, &text);
        enum http1_error got = parse_request(all, cases[i].max);
        if (got != cases[i].want)
            fail_msg("%zu fields, at most %zu: got \"%s\", want \"%s\"", cases[i].fields,
                     cases[i].max, http1_error_text(got), http1_error_text(cases[i].want));
        if (got == HTTP1_OK && head.field_count != cases[i].fields)
            fail_msg("%zu fields: counted %zu", cases[i].fields, head.field_count);
        free(text);
    }
}

static void heads_up_to_the_largest_limit_are_read(void **state)
{
    (void)state;
    static const struct {
        size_t fields, value_len;
    } cases[] = {
        { 1, 60000 }, { 1, 80 * 1024 - 40 }, { 1, 80 * 1024 }, { 1, 1024 * 1024 },
        { 100, 800 }, { 100, 1000 },         { 1000, 1000 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *text;
        struct slice all = head_of_fields(cases[i].fields, cases[i].value_len, &text);
        enum http1_error got = parse_request(all, HTTP1_FIELDS_MAX);
        if (got != HTTP1_OK)
            fail_msg("%zu fields of %zu bytes: \"%s\"", cases[i].fields, cases[i].value_len,
                     http1_error_text(got));
        assert_int_equal(head.fields[0].value.len, cases[i].value_len);
        free(text);
    }
}

static void long_request_lines_are_read(void **state)
{
    (void)state;
    static const size_t lengths[] = { 8000, 70000, 100000 };

    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        char *t = xmalloc(lengths[i] + 64);
        size_t n = (size_t)sprintf(t, "GET http://a/");
        memset(t + n, 'x', lengths[i]);
        n += lengths[i];
        n += (size_t)sprintf(t + n, " HTTP/1.0\r\n\r\n");
        enum http1_error got = parse_request((struct slice){ t, n }, 128);
        if (got != HTTP1_OK || head.target.len != lengths[i] + 9)
            fail_msg("a target of %zu bytes: \"%s\"", lengths[i], http1_error_text(got));
        free(t);
    }
}

/* ---- Lists, methods, statuses ---- */

static void list_items_are_trimmed_and_empty_ones_skipped(void **state)
{
    (void)state;
    static const struct {
        struct slice list;
        const char *want;
    } cases[] = {
        { SLICE(""), "" },          { SLICE(","), "" },
        { SLICE(" \t, ,\t"), "" },  { SLICE("a"), "<a>" },
        { SLICE("a,b"), "<a><b>" }, { SLICE(" a , b\t,,c d "), "<a><b><c d>" },
        { SLICE(",a"), "<a>" },     { SLICE("a,"), "<a>" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *copy = copy_of(cases[i].list), got[64] = "";
        struct slice rest = { copy, cases[i].list.len }, item;
        while (http1_next_item(&rest, &item))
            snprintf(got + strlen(got), sizeof(got) - strlen(got), "<%.*s>", (int)item.len, item.p);
        if (strcmp(got, cases[i].want) != 0)
            fail_msg("\"%s\": got %s, want %s", show(cases[i].list), got, cases[i].want);
        free(copy);
    }
    assert_true(http1_list_has(SLICE("gzip, Chunked"), SLICE("chunked")));
    assert_false(http1_list_has(SLICE("gzip, xchunked"), SLICE("chunked")));
    assert_false(http1_list_has(SLICE(""), SLICE("chunked")));
}

static void idempotent_methods_are_those_of_rfc_9110(void **state)
{
    (void)state;
    static const struct {
        struct slice method;
        bool want;
    } cases[] = {
        { SLICE("GET"), true },   { SLICE("HEAD"), true },   { SLICE("OPTIONS"), true },
        { SLICE("TRACE"), true }, { SLICE("PUT"), true },    { SLICE("DELETE"), true },
        { SLICE("POST"), false }, { SLICE("PATCH"), false }, { SLICE("CONNECT"), false },
        { SLICE("get"), false },  { SLICE("GETX"), false },  { SLICE(""), false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (http1_method_idempotent(cases[i].method) != cases[i].want)
            fail_msg("%s: want %d", show(cases[i].method), cases[i].want);
}

static void each_fault_has_its_status(void **state)
{
    (void)state;
    static const struct {
        enum http1_error error;
        int status;
    } cases[] = {
        { HTTP1_BAD_REQUEST_LINE, 400 }, { HTTP1_BAD_VERSION, 505 }, { HTTP1_URI_TOO_LONG, 414 },
        { HTTP1_BAD_LINE_END, 400 },     { HTTP1_BAD_FIELD, 400 },   { HTTP1_HEAD_TOO_LARGE, 431 },
        { HTTP1_TOO_MANY_FIELDS, 431 },  { HTTP1_BAD_LENGTH, 400 },  { HTTP1_BAD_CODING, 400 },
        { HTTP1_UNKNOWN_CODING, 501 },   { HTTP1_BAD_HOST, 400 },    { HTTP1_BAD_CHUNK, 400 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (http1_error_status(cases[i].error) != cases[i].status)
            fail_msg("%s: got %d, want %d", http1_error_text(cases[i].error),
                     http1_error_status(cases[i].error), cases[i].status);
}

/* ---- Random heads ---- */

/* A head that was taken is its start line and its field lines, and nothing between them. */
static void expect_whole(struct slice text)
{
    const char *at = (const char *)memchr(bytes, '\n', text.len) + 1;

    for (size_t i = 0; i < head.field_count; i++) {
        const struct http1_field *f = &head.fields[i];
        if (f->line.p != at)
            fail_msg("\"%s\": field %zu begins at byte %td, want %td", show(text), i,
                     f->line.p - bytes, at - bytes);
        if (!http1_is_token(f->name) || f->name.p != f->line.p || f->line.p[f->name.len] != ':')
            fail_msg("\"%s\": the name of field %zu is \"%s\"", show(text), i, show(f->name));
        for (size_t k = 0; k < f->value.len; k++) {
            unsigned char c = (unsigned char)f->value.p[k];
            if ((c < ' ' && c != '\t') || c == 0x7f)
                fail_msg("\"%s\": byte %#x in the value of field %zu", show(text), c, i);
        }
        at += f->line.len;
        if (memcmp(at - 2, "\r\n", 2) != 0)
            fail_msg("\"%s\": line %zu does not end with CRLF", show(text), i);
    }
    if (at + 2 != bytes + text.len || memcmp(at, "\r\n", 2) != 0)
        fail_msg("\"%s\": %td bytes belong to no field", show(text), bytes + text.len - at - 2);
}

static void a_mutated_head_that_is_taken_is_made_of_its_lines_alone(void **state)
{
    (void)state;
    static const struct slice seeds[] = {
        SLICE("GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\nX: y\r\n\r\n"),
        SLICE("POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nA:\r\nB: \t c \r\n\r\n"),
        SLICE("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nUpgrade: ws\r\n\r\n"),
        SLICE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n"),
        SLICE("HTTP/1.0 200\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n"),
    };
    static const char splice[] =
        "\r\n\r\n \t:,;\0\x7f\x80 Content-Length: 5\r\nTransfer-Encoding: ";
    struct prng prng;
    unsigned taken = 0;

    prng_seed_fixed(&prng, 20240601);
    for (unsigned round = 0; round < 60000; round++) {
        struct slice seed = seeds[prng_u32(&prng) % ARRAY_LEN(seeds)];
        char text[512];
        size_t len = seed.len, end = 0, scanned = 0;
        memcpy(text, seed.p, len);
        for (unsigned edits = 1 + prng_u32(&prng) % 3; edits > 0; edits--) {
            size_t at = prng_u32(&prng) % len, from = prng_u32(&prng) % (sizeof(splice) - 1);
            size_t n = 1 + prng_u32(&prng) % 4;
            switch (prng_u32(&prng) % 4) {
            case 0:
                text[at] = (char)prng_u32(&prng);
                break;
            case 1:
                text[at] = splice[from];
                break;
            case 2: /* insert */
                if (from + n > sizeof(splice) - 1 || len + n > sizeof(text))
                    break;
                memmove(text + at + n, text + at, len - at);
                memcpy(text + at, splice + from, n);
                len += n;
                break;
            default: /* delete */
                if (at + n >= len)
                    break;
                memmove(text + at, text + at + n, len - at - n);
                len -= n;
                break;
            }
        }
        if (http1_find_end(text, len, &scanned, &end) != 1)
            continue;
        struct slice t = { text, end };
        enum http1_error err = seed.p[0] == 'H' ? parse_response(t, false) : parse_request(t, 128);
        if (err != HTTP1_OK)
            continue;
        taken++;
        expect_whole(t);
    }
    assert_true(taken > 5000); /* else the mutations are too wild to say anything */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_end_of_a_head_is_found_wherever_its_bytes_are_split),
        cmocka_unit_test(finding_the_end_is_linear_however_slowly_a_line_comes),
        cmocka_unit_test(empty_lines_before_a_request_stay_at_the_start_of_what_was_scanned),
        cmocka_unit_test(a_request_line_has_three_parts_and_single_spaces),
        cmocka_unit_test(a_request_line_is_taken_apart_byte_for_byte),
        cmocka_unit_test(only_printable_bytes_may_stand_in_a_target),
        cmocka_unit_test(field_lines_have_one_reading_or_are_refused),
        cmocka_unit_test(bare_line_ends_inside_a_value_are_refused),
        cmocka_unit_test(each_byte_is_legal_in_names_and_values_exactly_where_it_should_be),
        cmocka_unit_test(a_reason_phrase_is_checked_at_each_of_its_bytes),
        cmocka_unit_test(lines_names_and_ids_are_as_received),
        cmocka_unit_test(every_field_that_we_look_at_is_recognised_in_any_case),
        cmocka_unit_test(content_length_is_digits_and_nothing_else),
        cmocka_unit_test(the_only_transfer_coding_of_a_request_is_chunked),
        cmocka_unit_test(a_length_beside_an_unknown_coding_is_refused),
        cmocka_unit_test(http_1_0_has_no_transfer_codings),
        cmocka_unit_test(there_is_one_host_in_1_1_and_at_most_one_in_1_0),
        cmocka_unit_test(connection_names_what_stays_here),
        cmocka_unit_test(http_1_0_clients_are_closed_after_the_answer),
        cmocka_unit_test(an_upgrade_counts_only_if_connection_names_it),
        cmocka_unit_test(expectations_and_connection_bound_logins_are_noticed),
        cmocka_unit_test(status_lines_are_read_strictly),
        cmocka_unit_test(what_cannot_become_a_status_line_is_known_from_its_first_bytes),
        cmocka_unit_test(a_response_body_is_framed_in_the_order_of_rfc_9112),
        cmocka_unit_test(a_coding_beats_a_length_whichever_comes_first),
        cmocka_unit_test(the_number_of_fields_is_bounded),
        cmocka_unit_test(heads_up_to_the_largest_limit_are_read),
        cmocka_unit_test(long_request_lines_are_read),
        cmocka_unit_test(list_items_are_trimmed_and_empty_ones_skipped),
        cmocka_unit_test(idempotent_methods_are_those_of_rfc_9110),
        cmocka_unit_test(each_fault_has_its_status),
        cmocka_unit_test(a_mutated_head_that_is_taken_is_made_of_its_lines_alone),
    };

    return cmocka_run_group_tests(tests, NULL, free_bytes);
}
