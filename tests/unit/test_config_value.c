#include "config/arena.h"
#include "config/value.h"
#include "tests/unit/test_config.h"
#include <arpa/inet.h>
#include <math.h>

/* Fails unless the parser refused, and said the word that matters. */
static void expect_refusal(const char *text, int result, struct strbuf *why, const char *says)
{
    if (result != -1)
        fail_msg("\"%s\" was accepted", text);
    if (!strstr(strbuf_str(why), says))
        fail_msg("\"%s\": \"%s\" does not say \"%s\"", text, strbuf_str(why), says);
    strbuf_free(why);
}

static void expect_acceptance(const char *text, int result, struct strbuf *why)
{
    if (result != 0)
        fail_msg("\"%s\" was refused: %s", text, strbuf_str(why));
    strbuf_free(why);
}

static void durations_are_a_number_and_a_unit(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms; /* -1: refused */
        const char *says;
    } cases[] = {
        { "0s", 0, NULL },
        { "1ms", 1, NULL },
        { "500ms", 500, NULL },
        { "2s", 2000, NULL },
        { "5m", 300000, NULL },
        { "1h", 3600000, NULL },
        { "1d", 86400000, NULL },
        { "0", -1, "has no unit" },
        { "30", -1, "has no unit" },
        { "", -1, "is not a duration" },
        { "s", -1, "is not a duration" },
        { "1.5s", -1, "is not a duration" },
        { "-1s", -1, "is not a duration" },
        { "+1s", -1, "is not a duration" },
        { "1 s", -1, "is not a duration" },
        { " 1s", -1, "is not a duration" },
        { "1s ", -1, "is not a duration" },
        { "1S", -1, "is not a duration" },
        { "1sec", -1, "is not a duration" },
        { "1m30s", -1, "is not a duration" },
        { "999999999999999ms", INT64_C(999999999999999), NULL },
        { "1000000000000000ms", -1, "is too large" },
        { "999999999999999d", -1, "is too large" },
        { "99999999999999999999s", -1, "is too large" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf why = STRBUF_INIT;
        int64_t ms = -2;
        int result = value_duration(cases[i].text, &ms, &why);
        if (cases[i].says) {
            expect_refusal(cases[i].text, result, &why, cases[i].says);
            continue;
        }
        expect_acceptance(cases[i].text, result, &why);
        if (ms != cases[i].ms)
            fail_msg("\"%s\": got %lld", cases[i].text, (long long)ms);
    }
}

static void sizes_are_a_number_and_a_unit(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t bytes;
        const char *says;
    } cases[] = {
        { "0B", 0, NULL },
        { "1B", 1, NULL },
        { "1KB", 1000, NULL },
        { "1kB", 1000, NULL },
        { "1KiB", 1024, NULL },
        { "64KiB", 65536, NULL },
        { "10MB", 10000000, NULL },
        { "1MiB", 1048576, NULL },
        { "1GB", 1000000000, NULL },
        { "1GiB", 1073741824, NULL },
        { "65536", 0, "has no unit" },
        { "64K", 0, "is not a size" },
        { "64kib", 0, "is not a size" },
        { "KiB", 0, "is not a size" },
        { "1.5MiB", 0, "is not a size" },
        { "-1B", 0, "is not a size" },
        { "999999999999999GiB", 0, "is too large" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf why = STRBUF_INIT;
        int64_t bytes = -2;
        int result = value_size(cases[i].text, &bytes, &why);
        if (cases[i].says) {
            expect_refusal(cases[i].text, result, &why, cases[i].says);
            continue;
        }
        expect_acceptance(cases[i].text, result, &why);
        if (bytes != cases[i].bytes)
            fail_msg("\"%s\": got %lld", cases[i].text, (long long)bytes);
    }
}

static void durations_and_sizes_are_written_in_the_largest_whole_unit(void **state)
{
    (void)state;
    static const struct {
        int64_t n;
        const char *duration;
        const char *size;
    } cases[] = {
        { OFF, "off", "off" },
        { 0, "0s", "0B" },
        { 1, "1ms", "1B" },
        { 999, "999ms", "999B" },
        { 1000, "1s", "1KB" },
        { 1024, "1024ms", "1KiB" },
        { 60000, "1m", "60KB" },
        { 65536, "65536ms", "64KiB" },
        { 90000, "90s", "90KB" },
        { 3600000, "1h", "3600KB" },
        { 86400000, "1d", "84375KiB" },
        { 1048576, "1048576ms", "1MiB" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf duration = STRBUF_INIT, size = STRBUF_INIT;
        value_format_duration(&duration, cases[i].n);
        value_format_size(&size, cases[i].n);
        assert_string_equal(strbuf_str(&duration), cases[i].duration);
        assert_string_equal(strbuf_str(&size), cases[i].size);
        strbuf_free(&duration);
        strbuf_free(&size);
    }
}

static void numbers_and_booleans_are_taken_literally(void **state)
{
    (void)state;
    static const char *const not_int[] = { "", "-", "1.0", "0x10", "1e3", " 1", "1 ", "one", "+1" };
    static const char *const not_bool[] = { "", "yes", "on", "TRUE", "True", "2", "01" };
    static const char *const not_number[] = { "", "nan", "inf", "1e999", "1x", "-", " 1" };
    struct strbuf why = STRBUF_INIT;
    int64_t n;
    double d;
    bool b;

    assert_int_equal(value_int("-5", &n, &why), 0);
    assert_int_equal(n, -5);
    assert_int_equal(value_int("999999999999999999", &n, &why), 0);
    assert_true(n == INT64_C(999999999999999999));
    assert_int_equal(value_number("0.25", &d, &why), 0);
    assert_true(d == 0.25);
    assert_int_equal(value_bool("1", &b, &why), 0);
    assert_true(b);
    assert_int_equal(value_bool("false", &b, &why), 0);
    assert_false(b);
    expect_refusal("10^18", value_int("1000000000000000000", &n, &why), &why, "too large");
    for (size_t i = 0; i < ARRAY_LEN(not_int); i++)
        expect_refusal(not_int[i], value_int(not_int[i], &n, &why), &why, "not a whole number");
    for (size_t i = 0; i < ARRAY_LEN(not_bool); i++)
        expect_refusal(not_bool[i], value_bool(not_bool[i], &b, &why), &why, "neither true nor");
    for (size_t i = 0; i < ARRAY_LEN(not_number); i++)
        expect_refusal(not_number[i], value_number(not_number[i], &d, &why), &why, "number");
}

static void ports_run_from_1_to_65535(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned first, last; /* 0: refused */
        const char *says;
    } cases[] = {
        { "1", 1, 1, NULL },
        { "443", 443, 443, NULL },
        { "65535", 65535, 65535, NULL },
        { "1-65535", 1, 65535, NULL },
        { "80-80", 80, 80, NULL },
        { "0", 0, 0, "is not a port" },
        { "65536", 0, 0, "is not a port" },
        { "0-10", 0, 0, "is not a port" },
        { "1-65536", 0, 0, "is not a port" },
        { "", 0, 0, "is not a port" },
        { "-5", 0, 0, "is not a port" },
        { "80-", 0, 0, "is not a port" },
        { "http", 0, 0, "is not a port" },
        { "81-80", 0, 0, "ends before it begins" },
        { "99999999999", 0, 0, "is not a port" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf why = STRBUF_INIT;
        struct port_range r = { 0 };
        int result = value_port_range(cases[i].text, &r, &why);
        if (cases[i].says) {
            expect_refusal(cases[i].text, result, &why, cases[i].says);
            continue;
        }
        expect_acceptance(cases[i].text, result, &why);
        if (r.first != cases[i].first || r.last != cases[i].last)
            fail_msg("\"%s\": got %u-%u", cases[i].text, r.first, r.last);
    }
}

static void networks_need_their_host_bits_clear(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *normal; /* NULL: refused */
        const char *says;
    } cases[] = {
        { "10.0.0.0/8", "10.0.0.0/8", NULL },
        { "0.0.0.0/0", "0.0.0.0/0", NULL },
        { "192.0.2.7", "192.0.2.7/32", NULL },
        { "192.0.2.7/32", "192.0.2.7/32", NULL },
        { "192.0.2.6/31", "192.0.2.6/31", NULL },
        { "::/0", "::/0", NULL },
        { "fe80::/10", "fe80::/10", NULL },
        { "2001:DB8::1", "2001:db8::1/128", NULL },
        { "::ffff:10.0.0.0/104", "10.0.0.0/8", NULL },
        { "10.0.0.1/8", NULL, "did you mean \"10.0.0.0/8\"?" },
        { "192.0.2.7/31", NULL, "did you mean \"192.0.2.6/31\"?" },
        { "fe80::1/10", NULL, "did you mean \"fe80::/10\"?" },
        { "10.0.0.0/33", NULL, "not 0 to 32" },
        { "::/129", NULL, "not 0 to 128" },
        { "10.0.0.0/", NULL, "not 0 to 32" },
        { "10.0.0.0/-1", NULL, "not 0 to 32" },
        { "10.0.0/8", NULL, "is not an address" },
        { "localhost", NULL, "is not an address" },
        { "", NULL, "is not an address" },
        { "256.0.0.1", NULL, "is not an address" },
        { "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa", NULL, "is not an address" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf why = STRBUF_INIT, normal = STRBUF_INIT;
        struct cidr c;
        int result = value_cidr(cases[i].text, &c, &why);
        if (cases[i].says) {
            expect_refusal(cases[i].text, result, &why, cases[i].says);
            continue;
        }
        expect_acceptance(cases[i].text, result, &why);
        value_format_cidr(&normal, &c);
        assert_string_equal(strbuf_str(&normal), cases[i].normal);
        strbuf_free(&normal);
    }
}

static struct sockaddr_storage address(const char *text)
{
    struct sockaddr_storage sa = { 0 };
    struct sockaddr_in *in = (void *)&sa;
    struct sockaddr_in6 *in6 = (void *)&sa;

    if (inet_pton(AF_INET, text, &in->sin_addr) == 1)
        in->sin_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1)
        in6->sin6_family = AF_INET6;
    else
        sa.ss_family = AF_UNIX;
    return sa;
}

static void a_network_contains_its_first_and_last_address_and_no_neighbour(void **state)
{
    (void)state;
    static const struct {
        const char *network;
        const char *address;
        bool inside;
    } cases[] = {
        { "127.0.0.0/8", "127.0.0.0", true },
        { "127.0.0.0/8", "127.255.255.255", true },
        { "127.0.0.0/8", "126.255.255.255", false },
        { "127.0.0.0/8", "128.0.0.0", false },
        { "127.0.0.0/8", "::ffff:127.0.0.1", true },
        { "127.0.0.0/8", "::1", false },
        { "192.0.2.4/30", "192.0.2.3", false },
        { "192.0.2.4/30", "192.0.2.4", true },
        { "192.0.2.4/30", "192.0.2.7", true },
        { "192.0.2.4/30", "192.0.2.8", false },
        { "0.0.0.0/0", "203.0.113.9", true },
        { "0.0.0.0/0", "2001:db8::1", false },
        { "fe80::/10", "febf:ffff::1", true },
        { "fe80::/10", "fec0::1", false },
        { "::1/128", "::1", true },
        { "::1/128", "::2", false },
        { "::/0", "2001:db8::1", true },
        { "::/0", "unix", false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf why = STRBUF_INIT;
        struct cidr c;
        struct cidr_list list = { &c, 1 };
        struct sockaddr_storage sa = address(cases[i].address);
        expect_acceptance(cases[i].network, value_cidr(cases[i].network, &c, &why), &why);
        if (cidr_contains(&list, (struct sockaddr *)&sa) != cases[i].inside)
            fail_msg("%s in %s", cases[i].address, cases[i].network);
    }
    struct sockaddr_storage any = address("192.0.2.1");
    assert_false(cidr_contains(&(struct cidr_list){ 0 }, (struct sockaddr *)&any));
}

static void an_unspecified_destination_is_the_loopback_that_the_kernel_makes_of_it(void **state)
{
    (void)state;
    static const struct {
        const char *network;
        const char *address;
        bool inside;
    } cases[] = {
        { "127.0.0.0/8", "0.0.0.0", true },  { "127.0.0.0/8", "::ffff:0.0.0.0", true },
        { "127.0.0.0/8", "::", false }, /* that is ::1 */
        { "127.0.0.0/8", "0.0.0.1", false }, { "127.0.0.0/8", "127.0.0.2", true },
        { "127.0.0.1/32", "0.0.0.0", true }, { "127.0.0.2/32", "0.0.0.0", false },
        { "::1/128", "::", true },           { "::1/128", "0.0.0.0", false },
        { "::1/128", "::2", false },         { "::ffff:127.0.0.0/104", "0.0.0.0", true },
        { "0.0.0.0/8", "0.0.0.0", true },    { "::/128", "::", true },
        { "10.0.0.0/8", "0.0.0.0", false },  { "fe80::/10", "::", false },
        { "::/0", "unix", false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf why = STRBUF_INIT;
        struct cidr c;
        struct cidr_list list = { &c, 1 };
        struct sockaddr_storage sa = address(cases[i].address);
        expect_acceptance(cases[i].network, value_cidr(cases[i].network, &c, &why), &why);
        if (cidr_contains_destination(&list, (struct sockaddr *)&sa) != cases[i].inside)
            fail_msg("%s in %s", cases[i].address, cases[i].network);
    }
}

static void listen_addresses_are_literal(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int family;
        unsigned port;
        const char *says;
    } cases[] = {
        { "127.0.0.1:3128", AF_INET, 3128, NULL },
        { "0.0.0.0:1", AF_INET, 1, NULL },
        { "127.0.0.1:0", AF_INET, 0, NULL },
        { "127.0.0.1:65535", AF_INET, 65535, NULL },
        { "[::1]:3128", AF_INET6, 3128, NULL },
        { "[::]:80", AF_INET6, 80, NULL },
        { "[::ffff:127.0.0.1]:80", AF_INET6, 80, NULL },
        { "localhost:3128", 0, 0, "write \"127.0.0.1:3128\" or \"[::1]:3128\"" },
        { "LOCALHOST:80", 0, 0, "write \"127.0.0.1:80\" or \"[::1]:80\"" },
        { ":3128", 0, 0, "write \"0.0.0.0:3128\" or \"[::]:3128\"" },
        { "*:3128", 0, 0, "write \"0.0.0.0:3128\" or \"[::]:3128\"" },
        { "proxy.example:3128", 0, 0, "host names are not resolved here" },
        { "127.0.0.1", 0, 0, "has no port" },
        { "3128", 0, 0, "has no port" },
        { "::1", 0, 0, "with brackets" },
        { "::1:3128", 0, 0, "with brackets" }, /* an address by itself */
        { "127.0.0.1:65536", 0, 0, "no port from 0 to 65535" },
        { "127.0.0.1:", 0, 0, "no port from 0 to 65535" },
        { "127.0.0.1:http", 0, 0, "no port from 0 to 65535" },
        { "[127.0.0.1]:3128", 0, 0, "not an address and port" },
        { "[::1%lo]:3128", 0, 0, "not an address and port" },
        { "unix:/run/proxy", 0, 0, "no port from 0 to 65535" },
        { "", 0, 0, "has no port" },
        { "[]:1", 0, 0, "for every address" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf why = STRBUF_INIT;
        struct arena a = { 0 };
        struct listen_addr l;
        int result = value_listen(cases[i].text, &a, &l, &why);
        if (cases[i].says) {
            expect_refusal(cases[i].text, result, &why, cases[i].says);
        } else {
            expect_acceptance(cases[i].text, result, &why);
            assert_int_equal(l.sa.ss_family, cases[i].family);
            assert_int_equal(ntohs(((struct sockaddr_in *)&l.sa)->sin_port), cases[i].port);
            assert_int_equal(l.sa_len, l.sa.ss_family == AF_INET ? sizeof(struct sockaddr_in)
                                                                 : sizeof(struct sockaddr_in6));
            assert_string_equal(l.text, cases[i].text);
        }
        arena_free(&a);
    }
}

static void statuses_are_codes_classes_or_ranges(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned first, last; /* 0: refused */
    } cases[] = {
        { "100", 100, 100 },     { "599", 599, 599 }, { "5xx", 500, 599 },
        { "5XX", 500, 599 },     { "1xx", 100, 199 }, { "500-599", 500, 599 },
        { "500-500", 500, 500 }, { "99", 0, 0 },      { "600", 0, 0 },
        { "6xx", 0, 0 },         { "0xx", 0, 0 },     { "5x", 0, 0 },
        { "xx", 0, 0 },          { "", 0, 0 },        { "599-500", 0, 0 },
        { "500-600", 0, 0 },     { "50-500", 0, 0 },  { "5xx-599", 0, 0 },
        { "+50", 0, 0 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf why = STRBUF_INIT;
        struct status_set set = { 0 };
        int result = value_status(cases[i].text, &set, &why);
        if (!cases[i].first) {
            expect_refusal(cases[i].text, result, &why, "");
            continue;
        }
        expect_acceptance(cases[i].text, result, &why);
        for (unsigned s = 0; s < 1000; s++) {
            unsigned as = s > 599 ? 599 : s; /* what is above counts as a 5xx */
            if (status_set_has(&set, s) != (as >= cases[i].first && as <= cases[i].last))
                fail_msg("\"%s\": %u", cases[i].text, s);
        }
    }
}

static void only_transport_failures_can_be_chosen(void **state)
{
    (void)state;
    static const char *const good[] = { "connect", "dns", "tls", "timeout", "reset", "protocol" };
    static const char *const bad[] = { "", "success", "status", "slow", "client_abort", "Connect" };
    struct strbuf why = STRBUF_INIT;
    uint32_t bits = 0;

    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        expect_acceptance(good[i], value_failure(good[i], &bits, &why), &why);
    assert_int_equal(bits, BIT(OUTCOME_CONNECT) | BIT(OUTCOME_DNS) | BIT(OUTCOME_TLS) |
                               BIT(OUTCOME_TIMEOUT) | BIT(OUTCOME_RESET) | BIT(OUTCOME_PROTOCOL));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        expect_refusal(bad[i], value_failure(bad[i], &bits, &why), &why, "is not one of");
    expect_refusal("no_response", value_failure("no_response", &bits, &why), &why, "always");
    expect_refusal("timeuot", value_failure("timeuot", &bits, &why), &why, "mean \"timeout\"?");
}

static void every_outcome_has_its_own_name(void **state)
{
    (void)state;
    for (int a = 0; a < OUTCOME_COUNT; a++)
        for (int b = 0; b < a; b++)
            assert_string_not_equal(outcome_name((enum outcome)a), outcome_name((enum outcome)b));
    assert_string_equal(outcome_name(OUTCOME_NO_RESPONSE), "no_response");
    assert_string_equal(outcome_name(OUTCOME_CLIENT_ABORT), "client_abort");
}

/* One table for all checks of strings. */
typedef int string_check(struct arena *a, char **text, struct strbuf *why);

struct string_case {
    string_check *check;
    const char *text;
    const char *normal; /* NULL: refused */
    const char *says;
};

static void run_string_cases(const struct string_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct string_case *c = &cases[i];
        struct strbuf why = STRBUF_INIT;
        struct arena a = { 0 };
        char *text = arena_strdup(&a, c->text);
        int result = c->check(&a, &text, &why);
        if (c->says) {
            expect_refusal(c->text, result, &why, c->says);
        } else {
            expect_acceptance(c->text, result, &why);
            assert_string_equal(text, c->normal);
        }
        arena_free(&a);
    }
}

static void hosts_get_one_form(void **state)
{
    (void)state;
    static const char label63[] =
        "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk.x";
    static const char label64[] =
        "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl.x";
    static const struct string_case cases[] = {
        { check_host, "a.example", "a.example", NULL },
        { check_host, "A.Example.", "a.example", NULL },
        { check_host, "*.A.example", "*.a.example", NULL },
        { check_host, "*", "*", NULL },
        { check_host, "localhost", "localhost", NULL },
        { check_host, "under_score.example", "under_score.example", NULL },
        { check_host, "xn--bcher-kva.example", "xn--bcher-kva.example", NULL },
        { check_host, "192.0.2.1", "192.0.2.1", NULL },
        { check_host, "[::1]", "::1", NULL },
        { check_host, "::1", "::1", NULL },
        { check_host, "[2001:DB8:0:0::1]", "2001:db8::1", NULL },
        { check_host, label63, label63, NULL },
        { check_host, label64, NULL, "more than 63" },
        { check_host, "", NULL, "every host write \"*\"" },
        { check_host, "a.example:80", NULL, "its port under \"ports\"" },
        { check_host, "http://a.example", NULL, "is a URL" },
        { check_host, "a.example/x", NULL, "path" },
        { check_host, "10.0.0.0/8", NULL, "prefix length" },
        { check_host, "b\303\274cher.example", NULL, "xn--" },
        { check_host, "a..example", NULL, "empty label" },
        { check_host, ".example", NULL, "empty label" },
        { check_host, "*.", NULL, "is not a host" },
        { check_host, "*.*.example", NULL, "is not a host" },
        { check_host, "a*.example", NULL, "is not a host" },
        { check_host, "a b", NULL, "is not a host" },
        { check_host, "256.1.1.1", NULL, "not an IPv4 address" },
        { check_host, "1.2.3", NULL, "not an IPv4 address" },
    };
    run_string_cases(cases, ARRAY_LEN(cases));
}

static void paths_hold_a_star_only_at_the_end(void **state)
{
    (void)state;
    static const struct string_case cases[] = {
        { check_path, "/", "/", NULL },
        { check_path, "/v1/charge", "/v1/charge", NULL },
        { check_path, "/v1/refunds/*", "/v1/refunds/*", NULL },
        { check_path, "/v1*", "/v1*", NULL },
        { check_path, "*", "*", NULL },
        { check_path, "/%C3%BC", "/%C3%BC", NULL },
        { check_path, "", NULL, "does not begin" },
        { check_path, "v1", NULL, "does not begin" },
        { check_path, "/*/x", NULL, "before its end" },
        { check_path, "/**", NULL, "before its end" },
        { check_path, "/a?b=1", NULL, "query" },
        { check_path, "/a b", NULL, "%XX" },
    };
    run_string_cases(cases, ARRAY_LEN(cases));
}

static void names_and_templates_are_checked(void **state)
{
    (void)state;
    static const char name64[] = "0123456789012345678901234567890123456789012345678901234567890123";
    static const char name65[] =
        "01234567890123456789012345678901234567890123456789012345678901234";
    static const struct string_case cases[] = {
        { check_name, "payments", "payments", NULL },
        { check_name, "a b", "a b", NULL },
        { check_name, name64, name64, NULL },
        { check_name, name65, NULL, "longer than 64" },
        { check_name, "", NULL, "empty" },
        { check_name, "b\303\274", NULL, "printable ASCII" },
        { check_host_name, "payment-gateway", "payment-gateway", NULL },
        { check_host_name, "{host}", "{host}", NULL },
        { check_host_name, "pre-{host}-post", "pre-{host}-post", NULL },
        { check_host_name, "{method}", NULL, "known are {host}" },
        { check_host_name, "{host", NULL, "without its \"}\"" },
        { check_host_name, "", NULL, "empty" },
        { check_host_name, "a\nb", NULL, "control character" },
        { check_tag, "{status}-{method}-{host}-{outcome}-{tier}-{route}-{instance}",
          "{status}-{method}-{host}-{outcome}-{tier}-{route}-{instance}", NULL },
        { check_tag, "", "", NULL },
        { check_tag, "{}", NULL, "unknown placeholder" },
        { check_tag, "{Status}", NULL,
          "known are {status} {method} {host} {outcome} {rule} {tier} {route} {instance}" },
        { check_tag, "{status", NULL, "without its \"}\"" },
        { check_tag, "a{b{status}", NULL, "without its \"}\"" },
        { check_token, "websocket", "websocket", NULL },
        { check_token, "M-SEARCH", "M-SEARCH", NULL },
        { check_token, "", NULL, "is not a token" },
        { check_token, "a b", NULL, "is not a token" },
        { check_token, "a:b", NULL, "is not a token" },
        { check_via, "egress-1", "egress-1", NULL },
        { check_via, "proxy.example:3128", "proxy.example:3128", NULL },
        { check_via, "a b", NULL, "Via" },
        { check_via, "a:", NULL, "Via" },
        { check_field_value, "a\tb", "a\tb", NULL },
        { check_field_value, "a\rb", NULL, "control character" },
        { check_project_id, "proj_abc123", "proj_abc123", NULL },
        { check_project_id, "", NULL, "1 to 128" },
        { check_project_id, "a/b", NULL, "no other characters" },
        { check_project_id, "eb_pk_123", NULL, "this is a key" },
        { check_dns_server, "10.0.0.53", "10.0.0.53:53", NULL },
        { check_dns_server, "10.0.0.53:5353", "10.0.0.53:5353", NULL },
        { check_dns_server, "::1", "[::1]:53", NULL },
        { check_dns_server, "[::1]", "[::1]:53", NULL },
        { check_dns_server, "[::1]:5353", "[::1]:5353", NULL },
        { check_dns_server, "dns.example", NULL, "name server" },
        { check_readable, "/dev/null", "/dev/null", NULL },
        { check_readable, "/nonexistent/file", NULL, "No such file" },
    };
    run_string_cases(cases, ARRAY_LEN(cases));
}

static void urls_are_checked_and_never_repeated_with_a_password(void **state)
{
    (void)state;
    static const struct string_case cases[] = {
        { check_control_url, "https://api.tripswitch.dev", "https://api.tripswitch.dev", NULL },
        { check_control_url, "https://api.tripswitch.dev//", "https://api.tripswitch.dev", NULL },
        { check_control_url, "http://127.0.0.1:8080/base/", "http://127.0.0.1:8080/base", NULL },
        { check_control_url, "https://[::1]:8443", "https://[::1]:8443", NULL },
        { check_control_url, "http://h:65535", "http://h:65535", NULL },
        { check_control_url, "embedded", "embedded", NULL },
        { check_control_url, "embeded", NULL, "neither \"embedded\" nor" },
        { check_control_url, "", NULL, "neither \"embedded\" nor" },
        { check_control_url, "ftp://h", NULL, "neither \"embedded\" nor" },
        { check_control_url, "https://", NULL, "and a host" },
        { check_control_url, "https:///x", NULL, "and a host" },
        { check_control_url, "https://h:0", NULL, "no port" },
        { check_control_url, "https://h:65536", NULL, "no port" },
        { check_control_url, "https://h:x", NULL, "no port" },
        { check_control_url, "https://h:", NULL, "no port" },
        { check_control_url, "https://[h]", NULL, "no IPv6 address" },
        { check_control_url, "https://[::1", NULL, "and a host" },
        { check_control_url, "https://[::1]x", NULL, "no port" },
        { check_control_url, "https://h?x", NULL, "query" },
        { check_control_url, "https://h/a b", NULL, "%XX" },
        { check_control_url, "https://u:hunter2@h", NULL, "TRIPSWITCH_API_KEY" },
        { check_proxy_url, "http://u:hunter2@proxy.example:3128",
          "http://u:hunter2@proxy.example:3128", NULL },
        { check_proxy_url, "http://u:hunter2@h:0", NULL, "no port" },
        { check_proxy_url, "proxy.example:3128", NULL, "not a URL" },
    };
    run_string_cases(cases, ARRAY_LEN(cases));

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf why = STRBUF_INIT;
        struct arena a = { 0 };
        char *text = arena_strdup(&a, cases[i].text);
        cases[i].check(&a, &text, &why);
        assert_null(strstr(strbuf_str(&why), "hunter2"));
        strbuf_free(&why);
        arena_free(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_are_a_number_and_a_unit),
        cmocka_unit_test(sizes_are_a_number_and_a_unit),
        cmocka_unit_test(durations_and_sizes_are_written_in_the_largest_whole_unit),
        cmocka_unit_test(numbers_and_booleans_are_taken_literally),
        cmocka_unit_test(ports_run_from_1_to_65535),
        cmocka_unit_test(networks_need_their_host_bits_clear),
        cmocka_unit_test(a_network_contains_its_first_and_last_address_and_no_neighbour),
        cmocka_unit_test(an_unspecified_destination_is_the_loopback_that_the_kernel_makes_of_it),
        cmocka_unit_test(listen_addresses_are_literal),
        cmocka_unit_test(statuses_are_codes_classes_or_ranges),
        cmocka_unit_test(only_transport_failures_can_be_chosen),
        cmocka_unit_test(every_outcome_has_its_own_name),
        cmocka_unit_test(hosts_get_one_form),
        cmocka_unit_test(paths_hold_a_star_only_at_the_end),
        cmocka_unit_test(names_and_templates_are_checked),
        cmocka_unit_test(urls_are_checked_and_never_repeated_with_a_password),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
