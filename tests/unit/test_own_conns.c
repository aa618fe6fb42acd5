/* A connection of ours is known again by both its addresses, and only by them. */
#include "base/base.h"
#include "proxy/dns.h"
#include "proxy/own_conns.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct address address(const char *text, uint16_t port)
{
    struct address a = { 0 };
    bool v4 = inet_pton(AF_INET, text, &a.in.sin_addr) == 1;
    if (!v4 && inet_pton(AF_INET6, text, &a.in6.sin6_addr) != 1)
        fail_msg("%s is no address", text);
    a.sa.sa_family = v4 ? AF_INET : AF_INET6;
    address_set_port(&a, port);
    return a;
}

static void a_connection_is_met_by_its_two_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *from;
        uint16_t from_port;
        const char *to;
        uint16_t to_port;
        bool want; /* noted: from 192.0.2.1:40000 to 192.0.2.9:80 */
    } cases[] = {
        { "192.0.2.1", 40000, "192.0.2.9", 80, true },
        { "::ffff:192.0.2.1", 40000, "::ffff:192.0.2.9", 80, true },
        { "192.0.2.1", 40001, "192.0.2.9", 80, false },
        { "192.0.2.2", 40000, "192.0.2.9", 80, false },
        { "192.0.2.1", 40000, "192.0.2.9", 443, false },
        { "192.0.2.1", 40000, "192.0.2.8", 80, false },
        { "192.0.2.9", 80, "192.0.2.1", 40000, false },
        { "::192.0.2.1", 40000, "::192.0.2.9", 80, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct own_conns *o = own_conns_new();
        struct address local = address("192.0.2.1", 40000), origin = address("192.0.2.9", 80);
        struct address from = address(cases[i].from, cases[i].from_port);
        struct address to = address(cases[i].to, cases[i].to_port);
        uint32_t place = own_conns_add(o, &local, &origin);
        assert_true(place > 0);
        assert_false(own_conns_met(o, place));
        if (own_conns_meet(o, &from, &to) != cases[i].want ||
            own_conns_met(o, place) != cases[i].want)
            fail_msg("case %zu: %s to %s", i, cases[i].from, cases[i].to);
        assert_int_equal(own_conns_meet(o, &from, &to), cases[i].want); /* and again */
        own_conns_remove(o, place);
        assert_false(own_conns_meet(o, &from, &to));
        assert_false(own_conns_met(o, place));
        own_conns_free(o);
    }
}

static void many_are_kept_apart_and_one_that_finds_no_place_is_not_noted(void **state)
{
    (void)state;
    enum { PORTS = 60000, HOSTS = 2 };
    static uint32_t places[HOSTS][PORTS];
    struct own_conns *o = own_conns_new();
    struct address origins[HOSTS] = { address("192.0.2.9", 443), address("2001:db8::9", 443) };
    unsigned noted = 0;
    for (unsigned h = 0; h < HOSTS; h++)
        for (unsigned i = 0; i < PORTS; i++) {
            struct address local = address("192.0.2.1", (uint16_t)(i + 1));
            places[h][i] = own_conns_add(o, &local, &origins[h]);
            noted += places[h][i] != 0;
        }
    assert_in_range(noted, 60000, 65536);
    for (unsigned h = 0; h < HOSTS; h++)
        for (unsigned i = 0; i < PORTS; i++) {
            struct address local = address("192.0.2.1", (uint16_t)(i + 1));
            assert_int_equal(own_conns_meet(o, &local, &origins[h]), places[h][i] != 0);
            own_conns_remove(o, places[h][i]);
            assert_false(own_conns_meet(o, &local, &origins[h]));
        }
    own_conns_free(o);
}

static void where_nothing_is_redirected_nothing_is_noted(void **state)
{
    (void)state;
    struct address a = address("192.0.2.1", 1);
    assert_int_equal(own_conns_add(NULL, &a, &a), 0);
    assert_false(own_conns_meet(NULL, &a, &a));
    assert_false(own_conns_met(NULL, 1));
    own_conns_remove(NULL, 1);
    own_conns_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_is_met_by_its_two_addresses),
        cmocka_unit_test(many_are_kept_apart_and_one_that_finds_no_place_is_not_noted),
        cmocka_unit_test(where_nothing_is_redirected_nothing_is_noted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
