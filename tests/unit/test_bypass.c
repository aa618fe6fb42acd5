/* The bypass list, by the rules of Go's httpproxy. */
#include "base/base.h"
#include "proxy/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static bool matches(const char *entry, const char *host, unsigned port)
{
    char *items[] = { (char *)entry };

    return bypass_match(&(struct string_list){ items, 1 }, slice_of(host), (uint16_t)port);
}

static void an_entry_is_a_name_a_domain_an_address_or_a_network(void **state)
{
    (void)state;
    static const struct {
        const char *entry, *host;
        unsigned port;
        bool want;
    } cases[] = {
        { "*", "anything", 1, true },
        { "a.b", "a.b", 80, true },
        { "a.b", "x.a.b", 80, true },
        { "a.b", "y.x.a.b", 80, true },
        { "a.b", "xa.b", 80, false },
        { "a.b", "a.bc", 80, false },
        { "a.b", "b", 80, false },
        { "A.B", "a.b", 80, true },
        { "A.B", "x.a.b", 80, true },
        { ".a.b", "x.a.b", 80, true },
        { ".a.b", "a.b", 80, false },
        { ".a.b", "xa.b", 80, false },
        { "*.a.b", "x.a.b", 80, true },
        { "*.a.b", "a.b", 80, false },
        { "a.b:8080", "a.b", 8080, true },
        { "a.b:8080", "x.a.b", 8080, true },
        { "a.b:8080", "a.b", 80, false },
        { ".a.b:8080", "x.a.b", 8080, true },
        { ".a.b:8080", "x.a.b", 80, false },
        { "*.a.b:8080", "x.a.b", 8080, true },
        { "localhost", "localhost", 80, true },
        { "", "a", 80, false },
        { ".", "a", 80, false },
        { ":80", "a", 80, false },
        /* addresses */
        { "192.0.2.1", "192.0.2.1", 80, true },
        { "192.0.2.1", "192.0.2.10", 80, false },
        { "192.0.2.1", "1192.0.2.1", 80, false },
        { "192.0.2.1:81", "192.0.2.1", 81, true },
        { "192.0.2.1:81", "192.0.2.1", 80, false },
        { "::1", "::1", 80, true },
        { "::1", "::11", 80, false },
        { "[::1]", "::1", 80, true },
        { "[::1]:81", "::1", 81, true },
        { "[::1]:81", "::1", 80, false },
        { "2001:DB8::1", "2001:db8::1", 80, true },
        { "::", "::", 80, true },
        { "[::]:81", "::", 81, true },
        /* networks */
        { "10.0.0.0/8", "10.255.255.255", 80, true },
        { "10.0.0.0/8", "11.0.0.0", 80, false },
        { "10.0.0.0/8", "9.255.255.255", 80, false },
        { "10.128.0.0/9", "10.127.255.255", 80, false },
        { "10.128.0.0/9", "10.128.0.0", 80, true },
        { "192.0.2.4/30", "192.0.2.7", 80, true },
        { "192.0.2.4/30", "192.0.2.8", 80, false },
        { "192.0.2.4/31", "192.0.2.6", 80, false },
        { "192.0.2.4/32", "192.0.2.4", 80, true },
        { "192.0.2.4/32", "192.0.2.5", 80, false },
        { "0.0.0.0/0", "192.0.2.4", 80, true },
        { "0.0.0.0/0", "::1", 80, false },
        { "0.0.0.0/0", "a.b", 80, false },
        { "10.0.0.0/33", "10.0.0.0", 80, false },
        { "10.0.0.0/-1", "10.0.0.0", 80, false },
        { "fd00::/8", "fdff::1", 80, true },
        { "fd00::/8", "fe00::1", 80, false },
        { "fd00::/8", "10.0.0.1", 80, false },
        { "2001:db8::/33", "2001:db8:7fff::", 80, true },
        { "2001:db8::/33", "2001:db8:8000::", 80, false },
        { "::1/128", "::1", 80, true },
        { "::1/128", "::2", 80, false },
        { "::/0", "::2", 80, true },
        { "::/129", "::2", 80, false },
        /* a network without its length is no network: least of all the whole of it */
        { "10.0.0.0/", "192.0.2.1", 80, false },
        { "10.0.0.0/x", "192.0.2.1", 80, false },
        { "10.0.0.0/8x", "10.0.0.1", 80, false },
        { "a.b/8", "a.b", 80, false },
        { "/8", "a.b", 80, false },
        /* a port that is none */
        { "a.b:", "a.b", 80, false },
        { "a.b:x", "a.b", 80, false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (matches(cases[i].entry, cases[i].host, cases[i].port) != cases[i].want)
            fail_msg("\"%s\" and %s:%u: want %d", cases[i].entry, cases[i].host, cases[i].port,
                     cases[i].want);
}

static void any_of_several_entries_is_enough_and_none_is_not(void **state)
{
    (void)state;
    char *items[] = { (char *)"a", (char *)"10.0.0.0/8", (char *)".b" };
    struct string_list three = { items, 3 }, none = { NULL, 0 };

    assert_true(bypass_match(&three, SLICE("a"), 80));
    assert_true(bypass_match(&three, SLICE("10.1.1.1"), 80));
    assert_true(bypass_match(&three, SLICE("x.b"), 80));
    assert_false(bypass_match(&three, SLICE("b"), 80));
    assert_false(bypass_match(&none, SLICE("a"), 80));
}

static void a_host_of_any_length_is_compared(void **state)
{
    (void)state;
    char host[255];

    memset(host, 'a', sizeof(host));
    assert_true(bypass_match(&(struct string_list){ (char *[]){ (char *)"*" }, 1 },
                             (struct slice){ host, sizeof(host) }, 80));
    assert_false(bypass_match(&(struct string_list){ (char *[]){ (char *)"10.0.0.0/8" }, 1 },
                              (struct slice){ host, sizeof(host) }, 80));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_is_a_name_a_domain_an_address_or_a_network),
        cmocka_unit_test(any_of_several_entries_is_enough_and_none_is_not),
        cmocka_unit_test(a_host_of_any_length_is_compared),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
