/* Our own listeners are recognised by any spelling of their address. */
#include "base/base.h"
#include "proxy/self.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct sockaddr_storage address(const char *text, uint16_t port)
{
    struct sockaddr_storage ss = { 0 };
    struct sockaddr_in *in = (struct sockaddr_in *)&ss;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;

    if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
    } else {
        if (inet_pton(AF_INET6, text, &in6->sin6_addr) != 1)
            fail_msg("%s is no address", text);
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
    }
    return ss;
}

static const char *kind_name(enum self_kind k)
{
    static const char *const names[] = {
        [SELF_NO] = "no",
        [SELF_PROXY] = "proxy",
        [SELF_TRANSPARENT] = "transparent",
        [SELF_TELEMETRY] = "telemetry",
        [SELF_ADMIN] = "admin",
    };
    return names[k];
}

static void a_listener_is_found_by_every_address_that_reaches_it(void **state)
{
    (void)state;
    static const struct {
        const char *bound, *destination;
        uint16_t port; /* bound to 3128 */
        enum self_kind want;
    } cases[] = {
        { "127.0.0.1", "127.0.0.1", 3128, SELF_PROXY },
        { "127.0.0.1", "127.0.0.1", 3129, SELF_NO },
        { "127.0.0.1", "127.0.0.1", 14348, SELF_NO }, /* 3128 with its bytes swapped */
        { "127.0.0.1", "127.0.0.2", 3128, SELF_NO },
        { "127.0.0.1", "192.0.2.1", 3128, SELF_NO },
        { "127.0.0.1", "::ffff:127.0.0.1", 3128, SELF_PROXY },
        { "127.0.0.1", "0.0.0.0", 3128, SELF_PROXY },
        { "127.0.0.1", "::ffff:0.0.0.0", 3128, SELF_PROXY },
        { "127.0.0.1", "0.0.0.0", 3129, SELF_NO },
        { "127.0.0.1", "::1", 3128, SELF_NO },
        { "::1", "::1", 3128, SELF_PROXY },
        { "::1", "::", 3128, SELF_PROXY },
        { "::1", "127.0.0.1", 3128, SELF_NO },
        { "::1", "2001:db8::1", 3128, SELF_NO },
        { "::ffff:127.0.0.1", "127.0.0.1", 3128, SELF_PROXY },
        { "192.0.2.1", "192.0.2.1", 3128, SELF_PROXY },
        { "192.0.2.1", "127.0.0.1", 3128, SELF_NO },
        { "0.0.0.0", "127.0.0.1", 3128, SELF_PROXY },
        { "0.0.0.0", "127.9.9.9", 3128, SELF_PROXY },
        { "0.0.0.0", "0.0.0.0", 3128, SELF_PROXY },
        { "0.0.0.0", "127.0.0.1", 3129, SELF_NO },
        { "::", "::1", 3128, SELF_PROXY },
        { "::", "127.0.0.1", 3128, SELF_PROXY },
        { "::", "::ffff:127.0.0.1", 3128, SELF_PROXY },
        { "0.0.0.0", "192.0.2.77", 3128, SELF_NO }, /* TEST-NET: nobody's address */
        { "::", "2001:db8::77", 3128, SELF_NO },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct self_addrs *s = self_new();
        struct sockaddr_storage bound = address(cases[i].bound, 3128);
        struct sockaddr_storage to = address(cases[i].destination, cases[i].port);
        self_add(s, (struct sockaddr *)&bound, SELF_PROXY);
        enum self_kind got = self_check(s, (struct sockaddr *)&to);
        self_free(s);
        if (got != cases[i].want)
            fail_msg("bound to %s, asked for %s port %u: got %s, want %s", cases[i].bound,
                     cases[i].destination, cases[i].port, kind_name(got), kind_name(cases[i].want));
    }
}

static void each_listener_has_its_kind(void **state)
{
    (void)state;
    struct self_addrs *s = self_new();
    struct sockaddr_storage proxy = address("127.0.0.1", 3128);
    struct sockaddr_storage telemetry = address("127.0.0.1", 3130);
    struct sockaddr_storage admin = address("::1", 3131);
    struct sockaddr_storage other = address("127.0.0.1", 3131);

    assert_int_equal(self_check(s, (struct sockaddr *)&proxy), SELF_NO);
    self_add(s, (struct sockaddr *)&proxy, SELF_PROXY);
    self_add(s, (struct sockaddr *)&telemetry, SELF_TELEMETRY);
    self_add(s, (struct sockaddr *)&admin, SELF_ADMIN);
    assert_int_equal(self_check(s, (struct sockaddr *)&proxy), SELF_PROXY);
    assert_int_equal(self_check(s, (struct sockaddr *)&telemetry), SELF_TELEMETRY);
    assert_int_equal(self_check(s, (struct sockaddr *)&admin), SELF_ADMIN);
    assert_int_equal(self_check(s, (struct sockaddr *)&other), SELF_NO);
    self_free(s);
    self_free(NULL);
}

static void listeners_are_told_by_kind_as_they_were_bound(void **state)
{
    (void)state;
    static const struct {
        enum self_kind kind;
        const char *host;
        uint16_t port;
        const char *want;
    } cases[] = {
        { SELF_PROXY, "127.0.0.1", 3128, "127.0.0.1:3128" },
        { SELF_PROXY, "::1", 65535, "[::1]:65535" },
        { SELF_TELEMETRY, "0.0.0.0", 1, "0.0.0.0:1" },
        { SELF_PROXY, "::", 80, "[::]:80" },
        { SELF_PROXY, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535,
          "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535" },
    };
    struct self_addrs *s = self_new();
    char text[SELF_TEXT_SIZE];
    size_t telemetry = 0, proxy = 0;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct sockaddr_storage bound = address(cases[i].host, cases[i].port);
        self_add(s, (struct sockaddr *)&bound, cases[i].kind);
    }
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t *pos = cases[i].kind == SELF_PROXY ? &proxy : &telemetry;
        assert_true(self_next(s, cases[i].kind, pos, text));
        assert_string_equal(text, cases[i].want);
    }
    assert_false(self_next(s, SELF_PROXY, &proxy, text));
    assert_false(self_next(s, SELF_TELEMETRY, &telemetry, text));
    assert_false(self_next(s, SELF_ADMIN, &(size_t){ 0 }, text));
    self_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_listener_is_found_by_every_address_that_reaches_it),
        cmocka_unit_test(each_listener_has_its_kind),
        cmocka_unit_test(listeners_are_told_by_kind_as_they_were_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
