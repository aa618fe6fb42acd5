/* Is it plain HTTP inside a CONNECT?  Decided by the first bytes, as early as they allow. */
#include "base/base.h"
#include "proxy/tunnel.h"
#include "tests/unit/show.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *sniff_name(enum sniff s)
{
    return s == SNIFF_MORE ? "more" : s == SNIFF_HTTP ? "http" : "opaque";
}

static enum sniff sniff_on(struct slice s, size_t seen)
{
    char *copy = copy_of(s);
    enum sniff got = tunnel_sniff((const uint8_t *)copy, s.len, seen, TUNNEL_SNIFF_MAX);

    free(copy);
    return got;
}

static enum sniff sniff(struct slice s)
{
    return sniff_on(s, 0);
}

/* "after": how many bytes it takes to know; fewer say "more". */
static void the_decision_falls_at_the_first_byte_that_allows_it(void **state)
{
    (void)state;
    static const struct {
        struct slice text;
        enum sniff want;
        size_t after;
    } cases[] = {
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), SNIFF_HTTP, 15 },
        { SLICE("GET / HTTP/1.0\r\n"), SNIFF_HTTP, 15 },
        { SLICE("get / HTTP/1.1\r\n"), SNIFF_HTTP, 15 },
        { SLICE("M-SEARCH * HTTP/1.1\r\n"), SNIFF_HTTP, 20 },
        { SLICE("GET /\xc3\xa9 HTTP/1.1\r\n"), SNIFF_HTTP, 17 },
        { SLICE("GET / HTTP/1.1\n"), SNIFF_HTTP, 15 },
        { SLICE("POST http://a/ HTTP/1.1\r"), SNIFF_HTTP, 24 },
        /* another version, or none */
        { SLICE("GET / HTTP/1.2\r\n"), SNIFF_OPAQUE, 15 },
        { SLICE("GET / HTTP/2.0\r\n"), SNIFF_OPAQUE, 15 },
        { SLICE("GET / http/1.1\r\n"), SNIFF_OPAQUE, 15 },
        { SLICE("GET /\r\n"), SNIFF_OPAQUE, 6 },
        { SLICE("GET / HTTP/1.1 \r\n"), SNIFF_OPAQUE, 16 },
        { SLICE("GET /HTTP/1.1\r\n"), SNIFF_OPAQUE, 14 },
        { SLICE("HELO mail.example\r\n"), SNIFF_OPAQUE, 18 },
        { SLICE("SSH-2.0-OpenSSH_9.2\r\n"), SNIFF_OPAQUE, 20 },
        { SLICE("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), SNIFF_OPAQUE, 3 },
        /* the next proxy's business */
        { SLICE("CONNECT a:443 HTTP/1.1\r\n"), SNIFF_OPAQUE, 8 },
        { SLICE("connect a HTTP/1.1\r\n"), SNIFF_HTTP, 19 }, /* another method */
        { SLICE("CONNECTS a HTTP/1.1\r\n"), SNIFF_HTTP, 20 },
        /* bytes that rule it out */
        { SLICE("\x16\x03\x01\x02\x00\x01"), SNIFF_OPAQUE, 1 }, /* TLS */
        { SLICE("\x80\x2e\x01"), SNIFF_OPAQUE, 1 },
        { SLICE("\0"), SNIFF_OPAQUE, 1 },
        { SLICE(" GET / HTTP/1.1\r\n"), SNIFF_OPAQUE, 1 },
        { SLICE("\r\nGET / HTTP/1.1\r\n"), SNIFF_OPAQUE, 1 },
        { SLICE("\nGET / HTTP/1.1\r\n"), SNIFF_OPAQUE, 1 },
        { SLICE("GE\x01"), SNIFF_OPAQUE, 3 },
        { SLICE("GE(T / HTTP/1.1\r\n"), SNIFF_OPAQUE, 3 },
        { SLICE("GET /\x01 HTTP/1.1\r\n"), SNIFF_OPAQUE, 6 },
        { SLICE("GET /\t HTTP/1.1\r\n"), SNIFF_OPAQUE, 6 },
        { SLICE("GET /\x7f HTTP/1.1\r\n"), SNIFF_OPAQUE, 6 },
        { SLICE("{\"json\": 1}\n"), SNIFF_OPAQUE, 1 },
        { SLICE("*1\r\n$4\r\nPING\r\n"), SNIFF_OPAQUE, 3 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (size_t n = 0; n <= cases[i].text.len; n++) {
            enum sniff want = n < cases[i].after ? SNIFF_MORE : cases[i].want;
            for (size_t seen = 0; seen == 0 || (seen <= n && seen < cases[i].after); seen++) {
                enum sniff got = sniff_on((struct slice){ cases[i].text.p, n }, seen);
                if (got != want)
                    fail_msg("the first %zu bytes of \"%s\", %zu seen: got %s, want %s", n,
                             show(cases[i].text), seen, sniff_name(got), sniff_name(want));
            }
        }
    }
}

/* A request line of len bytes, and behind it what is given. */
static enum sniff sniff_line(size_t len, const char *behind, size_t max)
{
    char *text = xmalloc(len + strlen(behind) + 1);

    memset(text, 'x', len);
    memcpy(text, "GET /", 5);
    memcpy(text + len - 9, " HTTP/1.1", 9);
    strcpy(text + len, behind);
    enum sniff got = tunnel_sniff((const uint8_t *)text, len + strlen(behind), 0, max);
    free(text);
    return got;
}

static void a_first_line_that_is_too_long_is_opaque(void **state)
{
    (void)state;
    static const struct {
        size_t len;
        const char *behind;
        enum sniff want;
    } cases[] = {
        { 1000, "\r\n", SNIFF_HTTP },
        { TUNNEL_SNIFF_MAX - 2, "", SNIFF_MORE },
        { TUNNEL_SNIFF_MAX - 2, "\r\n", SNIFF_HTTP },
        { TUNNEL_SNIFF_MAX - 1, "\r\n", SNIFF_HTTP },
        { TUNNEL_SNIFF_MAX, "\r\n", SNIFF_OPAQUE },
        { TUNNEL_SNIFF_MAX, "xx", SNIFF_OPAQUE },
        { TUNNEL_SNIFF_MAX + 1, "\r\n", SNIFF_OPAQUE },
        { TUNNEL_SNIFF_MAX + 1000, "", SNIFF_OPAQUE },
        { 3 * TUNNEL_SNIFF_MAX, "\r\n", SNIFF_OPAQUE },
    };

    /* Of the lengths that count only the difference to the limit matters. */
    for (size_t max = TUNNEL_SNIFF_MAX; max <= 65536; max *= 2) {
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            size_t len = cases[i].len + max - TUNNEL_SNIFF_MAX;
            enum sniff got = sniff_line(len, cases[i].behind, max);
            if (got != cases[i].want)
                fail_msg("%zu bytes of %zu, then \"%s\": got %s, want %s", len, max,
                         show(slice_of(cases[i].behind)), sniff_name(got),
                         sniff_name(cases[i].want));
        }
    }
}

static void each_first_byte_is_taken_for_a_method_only_if_it_may_begin_one(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        char byte = (char)c;
        bool token = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     (c && strchr("!#$%&'*+-.^_`|~", (int)c));
        enum sniff want = token ? SNIFF_MORE : SNIFF_OPAQUE;
        enum sniff got = sniff((struct slice){ &byte, 1 });
        if (got != want)
            fail_msg("%#04x: got %s, want %s", c, sniff_name(got), sniff_name(want));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_decision_falls_at_the_first_byte_that_allows_it),
        cmocka_unit_test(a_first_line_that_is_too_long_is_opaque),
        cmocka_unit_test(each_first_byte_is_taken_for_a_method_only_if_it_may_begin_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
