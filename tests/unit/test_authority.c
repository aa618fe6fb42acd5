/* Request targets and authorities: one reading of each, or a refusal. */
#include "proxy/authority.h"

#include "base/base.h"
#include "tests/unit/show.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define L10(x)  x x x x x x x x x x
#define LABEL63 L10("abcdef") "ghi"

static void an_authority_is_a_host_and_perhaps_a_port(void **state)
{
    (void)state;
    static const struct {
        struct slice text;
        enum target_error want;
        const char *host;
        unsigned port; /* with 80 as the default */
        bool has_port, is_ipv6;
    } cases[] = {
        { SLICE("a"), TARGET_OK, "a", 80, false, false },
        { SLICE("Example.COM"), TARGET_OK, "example.com", 80, false, false },
        { SLICE("example.com."), TARGET_OK, "example.com", 80, false, false },
        { SLICE("example.com.:8080"), TARGET_OK, "example.com", 8080, true, false },
        { SLICE("a-b_c~d.e"), TARGET_OK, "a-b_c~d.e", 80, false, false },
        { SLICE("192.0.2.1:1"), TARGET_OK, "192.0.2.1", 1, true, false },
        { SLICE("a:65535"), TARGET_OK, "a", 65535, true, false },
        { SLICE("a:00080"), TARGET_OK, "a", 80, true, false },
        { SLICE("[::1]"), TARGET_OK, "::1", 80, false, true },
        { SLICE("[2001:DB8:0:0:0:0:0:1]:443"), TARGET_OK, "2001:db8::1", 443, true, true },
        { SLICE("[::ffff:192.0.2.1]:1"), TARGET_OK, "::ffff:192.0.2.1", 1, true, true },
        { SLICE("a:"), TARGET_OK, "a", 80, false, false },
        { SLICE("[::1]:"), TARGET_OK, "::1", 80, false, true },
        /* ports */
        { SLICE("a::"), TARGET_BAD_PORT, "", 0, false, false },
        { SLICE("a:0"), TARGET_BAD_PORT, "", 0, false, false },
        { SLICE("a:65536"), TARGET_BAD_PORT, "", 0, false, false },
        { SLICE("a:99999"), TARGET_BAD_PORT, "", 0, false, false },
        { SLICE("a:4294967376"), TARGET_BAD_PORT, "", 0, false, false }, /* 80 in 32 bits */
        { SLICE("a:65616"), TARGET_BAD_PORT, "", 0, false, false },      /* 80 in 16 bits */
        { SLICE("a:18446744073709551696"), TARGET_BAD_PORT, "", 0, false, false },
        { SLICE("a:+80"), TARGET_BAD_PORT, "", 0, false, false },
        { SLICE("a:-80"), TARGET_BAD_PORT, "", 0, false, false },
        { SLICE("a: 80"), TARGET_BAD_PORT, "", 0, false, false },
        { SLICE("a:80 "), TARGET_BAD_PORT, "", 0, false, false },
        { SLICE("a:8o"), TARGET_BAD_PORT, "", 0, false, false },
        { SLICE("a:0x50"), TARGET_BAD_PORT, "", 0, false, false },
        { SLICE("a:80:80"), TARGET_BAD_PORT, "", 0, false, false },
        { SLICE("[::1]:0"), TARGET_BAD_PORT, "", 0, false, false },
        /* hosts */
        { SLICE(""), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE(":80"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("."), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE(".."), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE(".a"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("a..b"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("a.."), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("a..:80"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("0177.0.0.1"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("127.1"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("2130706433"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("0x7f000001"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("0x7f.1"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("127.0.0.256"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("1.2.3.4.5"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("a.1"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("0x"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("a b"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("a\tb"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE(" a"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("a/b"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("a\\b"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("a%2eb"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("a,b"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("a\0b"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("caf\xc3\xa9"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("*"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("::1"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[::1"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[]"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[]:80"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[a]"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[192.0.2.1]"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[::1]x"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[::1]80"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("x[::1]"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[[::1]]"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[::1%25lo]"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[fe80::1%eth0]"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[::1\0]"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[:::]"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[1:2:3:4:5:6:7:8:9]"), TARGET_BAD_HOST, "", 0, false, false },
        { SLICE("[v1.x]"), TARGET_BAD_HOST, "", 0, false, false },
        /* userinfo */
        { SLICE("u@a"), TARGET_USERINFO, "", 0, false, false },
        { SLICE("u:p@a:80"), TARGET_USERINFO, "", 0, false, false },
        { SLICE("@a"), TARGET_USERINFO, "", 0, false, false },
        { SLICE("a:80@b"), TARGET_USERINFO, "", 0, false, false },
        { SLICE("[::1]@b"), TARGET_USERINFO, "", 0, false, false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct authority a;
        char *copy = copy_of(cases[i].text);
        struct slice text = { copy, cases[i].text.len };
        memset(&a, 0xa5, sizeof(a));
        enum target_error got = authority_parse(&a, text, 80);
        if (got != cases[i].want)
            fail_msg("\"%s\": got \"%s\", want \"%s\"", show(text), target_error_text(got),
                     target_error_text(cases[i].want));
        if (got == TARGET_OK &&
            (strcmp(a.host, cases[i].host) != 0 || a.host_len != strlen(cases[i].host) ||
             a.port != cases[i].port || a.has_port != cases[i].has_port ||
             a.is_ipv6 != cases[i].is_ipv6 || a.raw.p != copy || a.raw.len != text.len))
            fail_msg("\"%s\": got host \"%s\" (%zu) port %u has_port %d ipv6 %d", show(text),
                     a.host, a.host_len, (unsigned)a.port, a.has_port, a.is_ipv6);
        free(copy);
    }
}

static void without_a_default_the_port_is_required(void **state)
{
    (void)state;
    static const struct {
        struct slice text;
        enum target_error want;
    } cases[] = {
        { SLICE("a:443"), TARGET_OK },
        { SLICE("[::1]:443"), TARGET_OK },
        { SLICE("a"), TARGET_BAD_PORT },
        { SLICE("a:"), TARGET_BAD_PORT },
        { SLICE("[::1]"), TARGET_BAD_PORT },
        { SLICE("::1:443"), TARGET_BAD_HOST },
        { SLICE("2001:db8::1"), TARGET_BAD_HOST },
        { SLICE("a:443/"), TARGET_BAD_PORT },
        { SLICE("http://a:443"), TARGET_BAD_PORT },
        { SLICE("http://a:443/"), TARGET_BAD_PORT },
        { SLICE("u@a:443"), TARGET_USERINFO },
        { SLICE("/"), TARGET_BAD_HOST },
        { SLICE("*"), TARGET_BAD_HOST },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct authority a;
        enum target_error got = authority_parse(&a, cases[i].text, 0);
        if (got != cases[i].want)
            fail_msg("\"%s\": got \"%s\", want \"%s\"", show(cases[i].text), target_error_text(got),
                     target_error_text(cases[i].want));
    }
}

static void a_host_has_at_most_255_bytes(void **state)
{
    (void)state;
    static const struct {
        size_t len;
        bool dot; /* one more byte, which does not count */
        enum target_error want;
    } cases[] = {
        { 254, false, TARGET_OK },          { HOST_MAX, false, TARGET_OK },
        { HOST_MAX, true, TARGET_OK },      { HOST_MAX + 1, false, TARGET_BAD_HOST },
        { 100000, false, TARGET_BAD_HOST },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct authority a;
        size_t n = cases[i].len;
        char *text = xmalloc(n + 1);
        memset(text, 'a', n);
        text[n] = '.';
        enum target_error got = authority_parse(&a, (struct slice){ text, n + cases[i].dot }, 80);
        if (got != cases[i].want || (!got && a.host_len != n))
            fail_msg("%zu bytes, dot %d: \"%s\"", n, cases[i].dot, target_error_text(got));
        free(text);
    }
}

static void each_byte_is_legal_in_a_host_exactly_where_it_should_be(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        struct authority a;
        char text[] = "a@b";
        text[1] = (char)c;
        bool legal = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     (c && strchr("-._~", (int)c));
        enum target_error want = legal      ? TARGET_OK
                                 : c == '@' ? TARGET_USERINFO
                                 : c == ':' ? TARGET_BAD_PORT
                                            : TARGET_BAD_HOST;
        enum target_error got = authority_parse(&a, (struct slice){ text, 3 }, 80);
        if (got != want)
            fail_msg("byte %#04x: got \"%s\", want \"%s\"", c, target_error_text(got),
                     target_error_text(want));
    }
}

static void a_proxy_target_is_an_absolute_http_url(void **state)
{
    (void)state;
    static const struct {
        struct slice text;
        enum target_error want;
        const char *host;
        unsigned port;
        struct slice path;
    } cases[] = {
        { SLICE("http://a"), TARGET_OK, "a", 80, SLICE("") },
        { SLICE("http://a/"), TARGET_OK, "a", 80, SLICE("/") },
        { SLICE("HtTp://A/B"), TARGET_OK, "a", 80, SLICE("/B") },
        { SLICE("http://a:81"), TARGET_OK, "a", 81, SLICE("") },
        { SLICE("http://a?q"), TARGET_OK, "a", 80, SLICE("?q") },
        { SLICE("http://a/?q=/://b@c:1"), TARGET_OK, "a", 80, SLICE("/?q=/://b@c:1") },
        { SLICE("http://a/b@c"), TARGET_OK, "a", 80, SLICE("/b@c") },
        { SLICE("http://a/../%2e%2E//./x;y=1"), TARGET_OK, "a", 80, SLICE("/../%2e%2E//./x;y=1") },
        { SLICE("http://a/\\"), TARGET_OK, "a", 80, SLICE("/\\") },
        { SLICE("http://a/http://b/"), TARGET_OK, "a", 80, SLICE("/http://b/") },
        { SLICE("http://[::1]:81/x"), TARGET_OK, "::1", 81, SLICE("/x") },
        { SLICE("http://a/\xff"), TARGET_OK, "a", 80, SLICE("/\xff") },
        { SLICE("https://a/"), TARGET_HTTPS, "", 0, SLICE("") },
        { SLICE("HTTPS://a/"), TARGET_HTTPS, "", 0, SLICE("") },
        { SLICE("ftp://a/"), TARGET_BAD_SCHEME, "", 0, SLICE("") },
        { SLICE("ws://a/"), TARGET_BAD_SCHEME, "", 0, SLICE("") },
        { SLICE("httpx://a/"), TARGET_BAD_SCHEME, "", 0, SLICE("") },
        { SLICE("xhttp://a/"), TARGET_BAD_SCHEME, "", 0, SLICE("") },
        { SLICE("://a/"), TARGET_BAD_SCHEME, "", 0, SLICE("") },
        { SLICE("/"), TARGET_NOT_ABSOLUTE, "", 0, SLICE("") },
        { SLICE("/http://a/"), TARGET_NOT_ABSOLUTE, "", 0, SLICE("") },
        { SLICE("//a/"), TARGET_NOT_ABSOLUTE, "", 0, SLICE("") },
        { SLICE("*"), TARGET_NOT_ABSOLUTE, "", 0, SLICE("") },
        { SLICE("a"), TARGET_NOT_ABSOLUTE, "", 0, SLICE("") },
        { SLICE("a:80"), TARGET_NOT_ABSOLUTE, "", 0, SLICE("") },
        { SLICE("http:"), TARGET_NOT_ABSOLUTE, "", 0, SLICE("") },
        { SLICE("http:/a"), TARGET_NOT_ABSOLUTE, "", 0, SLICE("") },
        { SLICE("http:a"), TARGET_NOT_ABSOLUTE, "", 0, SLICE("") },
        { SLICE("http://"), TARGET_BAD_HOST, "", 0, SLICE("") },
        { SLICE("http:///"), TARGET_BAD_HOST, "", 0, SLICE("") },
        { SLICE("http:////a/"), TARGET_BAD_HOST, "", 0, SLICE("") },
        { SLICE("http://?q"), TARGET_BAD_HOST, "", 0, SLICE("") },
        { SLICE("http://:80/"), TARGET_BAD_HOST, "", 0, SLICE("") },
        { SLICE("http://a\\@b/"), TARGET_USERINFO, "", 0, SLICE("") },
        { SLICE("http://a\\b/"), TARGET_BAD_HOST, "", 0, SLICE("") },
        { SLICE("http://a:b@c/"), TARGET_USERINFO, "", 0, SLICE("") },
        { SLICE("http://a@b@c/"), TARGET_USERINFO, "", 0, SLICE("") },
        { SLICE("http://a:80x/"), TARGET_BAD_PORT, "", 0, SLICE("") },
        { SLICE("http://a:/"), TARGET_OK, "a", 80, SLICE("/") },
        { SLICE("http://:/"), TARGET_BAD_HOST, "", 0, SLICE("") },
        { SLICE("http://a/#f"), TARGET_FRAGMENT, "", 0, SLICE("") },
        { SLICE("http://a#f"), TARGET_FRAGMENT, "", 0, SLICE("") },
        { SLICE("http://a?b#c"), TARGET_FRAGMENT, "", 0, SLICE("") },
        { SLICE("http://a#@b/"), TARGET_FRAGMENT, "", 0, SLICE("") },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct authority a;
        struct slice path;
        char *copy = copy_of(cases[i].text);
        struct slice text = { copy, cases[i].text.len };
        enum target_error got = target_parse_absolute(&a, &path, text);
        if (got != cases[i].want)
            fail_msg("\"%s\": got \"%s\", want \"%s\"", show(text), target_error_text(got),
                     target_error_text(cases[i].want));
        if (got == TARGET_OK && (strcmp(a.host, cases[i].host) != 0 || a.port != cases[i].port ||
                                 !slice_eq(path, cases[i].path)))
            fail_msg("\"%s\": got host \"%s\" port %u path \"%s\"", show(text), a.host,
                     (unsigned)a.port, show(path));
        free(copy);
    }
}

static void labels_leave_out_80_and_443_and_keys_leave_out_nothing(void **state)
{
    (void)state;
    static const struct {
        struct slice text;
        const char *label, *key;
    } cases[] = {
        { SLICE("A.b"), "a.b", "a.b:80" },
        { SLICE("a.b.:80"), "a.b", "a.b:80" },
        { SLICE("a.b:443"), "a.b", "a.b:443" },
        { SLICE("a.b:8080"), "a.b:8080", "a.b:8080" },
        { SLICE("a.b:1"), "a.b:1", "a.b:1" },
        { SLICE("[0::1]"), "[::1]", "[::1]:80" },
        { SLICE("[::1]:443"), "[::1]", "[::1]:443" },
        { SLICE("[::1]:8080"), "[::1]:8080", "[::1]:8080" },
        { SLICE("192.0.2.1:81"), "192.0.2.1:81", "192.0.2.1:81" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct authority a;
        char label[HOST_MAX + 10], key[HOST_MAX + 10];
        assert_int_equal(authority_parse(&a, cases[i].text, 80), TARGET_OK);
        size_t l = authority_label(&a, label, sizeof(label));
        size_t k = authority_key(&a, key, sizeof(key));
        if (strcmp(label, cases[i].label) != 0 || strcmp(key, cases[i].key) != 0 ||
            l != strlen(label) || k != strlen(key))
            fail_msg("\"%s\": label \"%s\", key \"%s\"", show(cases[i].text), label, key);
    }
}

static void the_longest_name_fits_into_label_and_key(void **state)
{
    (void)state;
    struct authority a;
    char key[HOST_MAX + 10];
    struct slice text = SLICE(LABEL63 "." LABEL63 "." LABEL63 "." LABEL63 ":65535");

    assert_int_equal(authority_parse(&a, text, 80), TARGET_OK);
    assert_int_equal(a.host_len, HOST_MAX);
    assert_int_equal(authority_key(&a, key, sizeof(key)), HOST_MAX + 6);
    assert_string_equal(key + HOST_MAX, ":65535");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_authority_is_a_host_and_perhaps_a_port),
        cmocka_unit_test(without_a_default_the_port_is_required),
        cmocka_unit_test(a_host_has_at_most_255_bytes),
        cmocka_unit_test(each_byte_is_legal_in_a_host_exactly_where_it_should_be),
        cmocka_unit_test(a_proxy_target_is_an_absolute_http_url),
        cmocka_unit_test(labels_leave_out_80_and_443_and_keys_leave_out_nothing),
        cmocka_unit_test(the_longest_name_fits_into_label_and_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
