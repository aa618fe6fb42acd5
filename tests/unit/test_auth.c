/* Proxy-Authorization against the users of access.auth_file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants these before it */
#include "base/base.h"
#include "proxy/auth.h"
#include "tests/unit/show.h"
#include <cmocka.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN  "f3d0c2a1b49e8d77f3d0c2a1b49e8d77"
#define TOKEN2 "00112233445566778899aabbccddeeff"

static struct proxy_user users[4];

static int set_up(void **state)
{
    (void)state;
    static char *const names[] = { "shop", "pay", "shop", "a" };
    static const char *const tokens[] = { TOKEN, TOKEN2, "new:with:colons", "" };
    for (size_t i = 0; i < ARRAY_LEN(users); i++) {
        users[i].name = names[i];
        SHA256((const unsigned char *)tokens[i], strlen(tokens[i]), users[i].token_sha256);
    }
    return 0;
}

/* In memory of its own, so that a read behind its end is noticed. */
static bool check(const char *value)
{
    size_t len = strlen(value);
    char *copy = malloc(len ? len : 1);
    memcpy(copy, value, len);
    bool ok = auth_check(users, ARRAY_LEN(users), (struct slice){ copy, len });
    free(copy);
    return ok;
}

static char *base64(const char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static char out[2048];
    size_t len = strlen(text), n = 0;
    for (size_t i = 0; i < len; i += 3) {
        uint32_t b = (uint32_t)(uint8_t)text[i] << 16;
        b |= i + 1 < len ? (uint32_t)(uint8_t)text[i + 1] << 8 : 0;
        b |= i + 2 < len ? (uint8_t)text[i + 2] : 0;
        out[n++] = digits[b >> 18];
        out[n++] = digits[b >> 12 & 63];
        out[n++] = i + 1 < len ? digits[b >> 6 & 63] : '=';
        out[n++] = i + 2 < len ? digits[b & 63] : '=';
    }
    out[n] = '\0';
    return out;
}

static void a_name_and_its_own_token_are_let_in_and_no_others(void **state)
{
    (void)state;
    static const struct {
        const char *credentials;
        bool want;
    } cases[] = {
        { "shop:" TOKEN, true },
        { "pay:" TOKEN2, true },
        { "shop:new:with:colons",
          true },                  /* a second line of the same name; the first colon parts */
        { "a:", true },            /* the file is what forbids an empty token */
        { "shop:" TOKEN2, false }, /* somebody else's */
        { "pay:" TOKEN, false },
        { "Shop:" TOKEN, false },
        { "sho:" TOKEN, false },
        { "shopp:" TOKEN, false },
        { ":" TOKEN, false },
        { "shop:", false },
        { "shop:" TOKEN "0", false },
        { "shop:f3d0c2a1b49e8d77f3d0c2a1b49e8d7", false },
        { "shop:F3D0C2A1B49E8D77F3D0C2A1B49E8D77", false },
        { "shop", false },
        { "", false },
        { ":", false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char value[256];
        snprintf(value, sizeof(value), "Basic %s", base64(cases[i].credentials));
        if (check(value) != cases[i].want)
            fail_msg("\"%s\": want %d", cases[i].credentials, cases[i].want);
    }
}

static void the_field_is_read_in_one_spelling(void **state)
{
    (void)state;
    /* a: is YTo= */
    static const struct {
        const char *value;
        bool want;
    } cases[] = {
        { "Basic YTo=", true },      { "basic YTo=", true },    { "BASIC   YTo=", true },
        { "Basic", false },          { "Basic ", false },       { "", false },
        { "BasicYTo=", false },      { "Bearer YTo=", false },  { "Basic\tYTo=", false },
        { "Basic YTo", false },      { "Basic YTo==", false },  { "Basic YTo=====", false },
        { "Basic YTo= ", false },    { "Basic YTo=,x", false }, { "Basic YT=o", false },
        { "Basic Y=o=", false },     { "Basic YTp=", false }, /* bits left over */
        { "Basic YTo-", false },     { "Basic ====", false },   { "Basic YQ==", false },
        { "Basic \"YTo=\"", false }, { "Basic =", false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (check(cases[i].value) != cases[i].want)
            fail_msg("\"%s\": want %d", cases[i].value, cases[i].want);
}

static void every_single_bit_of_the_token_counts(void **state)
{
    (void)state;
    for (size_t bit = 0; bit < 8 * (sizeof("shop:" TOKEN) - 1); bit++) {
        char text[] = "shop:" TOKEN, value[256];
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
        snprintf(value, sizeof(value), "Basic %s", base64(text));
        if (check(value))
            fail_msg("bit %zu does not matter", bit);
    }
}

static void credentials_are_bounded(void **state)
{
    (void)state;
    static const size_t lengths[] = { 300, 384, 385, 386, 387, 388, 400, 1000 };
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        char text[1024], value[2048];
        memset(text, 'x', lengths[i]);
        memcpy(text, "shop:", 5);
        text[lengths[i]] = '\0';
        snprintf(value, sizeof(value), "Basic %s", base64(text));
        struct proxy_user user = { .name = (char[]){ "shop" } };
        SHA256((const unsigned char *)text + 5, lengths[i] - 5, user.token_sha256);
        bool want = lengths[i] <= 384;
        if (auth_check(&user, 1, slice_of(value)) != want)
            fail_msg("%zu bytes: want %d", lengths[i], want);
    }
}

static void without_users_nobody_is_let_in(void **state)
{
    (void)state;
    assert_false(auth_check(NULL, 0, SLICE("Basic YTo=")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_and_its_own_token_are_let_in_and_no_others),
        cmocka_unit_test(the_field_is_read_in_one_spelling),
        cmocka_unit_test(every_single_bit_of_the_token_counts),
        cmocka_unit_test(credentials_are_bounded),
        cmocka_unit_test(without_users_nobody_is_let_in),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
