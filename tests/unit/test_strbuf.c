/* Bounded text and the JSON written into it. */
#include "base/base.h"
#include "base/prng.h"
#include "base/strbuf.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void text_is_always_terminated(void **state)
{
    (void)state;
    struct strbuf sb = STRBUF_INIT;

    assert_string_equal(strbuf_str(&sb), "");
    assert_true(strbuf_ok(&sb));
    strbuf_add(&sb, "", 0);
    assert_string_equal(strbuf_str(&sb), "");
    strbuf_adds(&sb, "one ");
    strbuf_add(&sb, "two and more", 3);
    strbuf_addc(&sb, ' ');
    strbuf_addf(&sb, "%s-%d", "three", 4);
    assert_string_equal(strbuf_str(&sb), "one two three-4");
    assert_int_equal(sb.len, 15);
    strbuf_clear(&sb);
    assert_string_equal(strbuf_str(&sb), "");
    assert_int_equal(sb.len, 0);
    strbuf_free(&sb);
    assert_null(sb.data);
    strbuf_free(&sb);
}

static void a_bound_fails_once_and_stays_failed(void **state)
{
    (void)state;
    struct strbuf sb = { .max = 5 };

    strbuf_adds(&sb, "12345"); /* exactly the bound fits */
    assert_true(strbuf_ok(&sb));
    strbuf_addc(&sb, '6');
    assert_false(strbuf_ok(&sb));
    assert_string_equal(strbuf_str(&sb), "12345");
    strbuf_clear(&sb);
    assert_true(strbuf_ok(&sb));
    strbuf_adds(&sb, "123456"); /* nothing of what does not fit is kept */
    assert_false(strbuf_ok(&sb));
    assert_string_equal(strbuf_str(&sb), "");
    strbuf_addc(&sb, 'a'); /* would fit, but the text would have a hole */
    assert_string_equal(strbuf_str(&sb), "");
    strbuf_free(&sb);
}

static void every_way_of_adding_meets_the_bound(void **state)
{
    (void)state;
    for (int way = 0; way < 6; way++) {
        struct strbuf sb = { .max = 3 };
        strbuf_adds(&sb, "ab");
        switch (way) {
        case 0:
            strbuf_add(&sb, "xy", 2);
            break;
        case 1:
            strbuf_adds(&sb, "xy");
            break;
        case 2:
            strbuf_addf(&sb, "%s", "xy");
            break;
        case 3:
            strbuf_addu(&sb, 10);
            break;
        case 4:
            strbuf_json_string(&sb, "", 0);
            break;
        case 5:
            strbuf_json_number(&sb, 0.5);
            break;
        }
        if (strbuf_ok(&sb) || sb.len > 3)
            fail_msg("way %d: ok %d, %zu bytes", way, strbuf_ok(&sb), sb.len);
        strbuf_free(&sb);
    }
}

static void truncating_takes_back_a_failure(void **state)
{
    (void)state;
    struct strbuf sb = { .max = 8 };

    strbuf_adds(&sb, "keep");
    strbuf_adds(&sb, "too long");
    assert_false(strbuf_ok(&sb));
    strbuf_truncate(&sb, 4);
    assert_true(strbuf_ok(&sb));
    strbuf_adds(&sb, "!");
    assert_string_equal(strbuf_str(&sb), "keep!");
    strbuf_free(&sb);
}

static void taking_leaves_an_empty_builder(void **state)
{
    (void)state;
    struct strbuf sb = { .max = 4 };

    char *taken = strbuf_take(&sb);
    assert_string_equal(taken, "");
    free(taken);
    strbuf_adds(&sb, "text");
    taken = strbuf_take(&sb);
    assert_string_equal(taken, "text");
    assert_string_equal(strbuf_str(&sb), "");
    strbuf_adds(&sb, "12345");
    assert_false(strbuf_ok(&sb)); /* the bound is still there */
    free(taken);
    strbuf_free(&sb);
}

static void decimals_need_no_printf(void **state)
{
    (void)state;
    static const uint64_t cases[] = { 0, 9, 10, 99, 100, UINT32_MAX, INT64_MAX, UINT64_MAX };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf sb = STRBUF_INIT;
        char want[32];
        snprintf(want, sizeof(want), "%llu", (unsigned long long)cases[i]);
        strbuf_addu(&sb, cases[i]);
        if (strcmp(strbuf_str(&sb), want) != 0)
            fail_msg("got %s, want %s", strbuf_str(&sb), want);
        strbuf_free(&sb);
    }
}

#define FFFD "\xef\xbf\xbd"

static void json_strings_are_exact(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        size_t len;
        const char *want;
    } cases[] = {
#define TEXT(s) s, sizeof(s) - 1
        { TEXT(""), "\"\"" },
        { TEXT("plain"), "\"plain\"" },
        { TEXT("a\"b\\c/d"), "\"a\\\"b\\\\c/d\"" },
        { TEXT("\b\t\n\f\r"), "\"\\b\\t\\n\\f\\r\"" },
        { TEXT("\0\x01\x0b\x1f\x20\x7f"), "\"\\u0000\\u0001\\u000b\\u001f \x7f\"" },
        { TEXT("\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xef\xbf\xbf \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf"),
          "\"\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xef\xbf\xbf \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf\"" },
        { TEXT("\xed\x9f\xbf\xee\x80\x80"),
          "\"\xed\x9f\xbf\xee\x80\x80\"" },           /* around surrogates */
        { TEXT("\xe2\x80\xa8"), "\"\xe2\x80\xa8\"" }, /* U+2028 is legal JSON */
        { TEXT("\x80"), "\"" FFFD "\"" },
        { TEXT("\xc1\xbf"), "\"" FFFD FFFD "\"" },
        { TEXT("\xc2"), "\"" FFFD "\"" }, /* cut off: one for the whole prefix */
        { TEXT("\xe1\x80"), "\"" FFFD "\"" },
        { TEXT("\xf1\x80\x80"), "\"" FFFD "\"" },
        { TEXT("\xf5\x80\x80\x80"), "\"" FFFD FFFD FFFD FFFD "\"" },
        /* The Unicode standard's own examples, tables 3-8 to 3-11. */
        { TEXT("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"),
          "\"" FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD "A\"" },
        { TEXT("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"),
          "\"" FFFD FFFD FFFD FFFD FFFD FFFD FFFD FFFD "A\"" },
        { TEXT("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"),
          "\"" FFFD FFFD FFFD FFFD FFFD "A" FFFD FFFD "B\"" },
        { TEXT("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), "\"" FFFD FFFD FFFD FFFD "A\"" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf sb = STRBUF_INIT;
        /* An exact copy, so that the sanitizer sees a read past the end. */
        char *in = malloc(cases[i].len > 0 ? cases[i].len : 1);
        memcpy(in, cases[i].in, cases[i].len);
        strbuf_json_string(&sb, in, cases[i].len);
        if (strcmp(strbuf_str(&sb), cases[i].want) != 0)
            fail_msg("case %zu: got %s, want %s", i, strbuf_str(&sb), cases[i].want);
        free(in);
        strbuf_free(&sb);
    }
}

/* What one byte between ASCII letters must become. */
static void want_of_lone_byte(unsigned c, char out[8])
{
    static const char *const named[0x80] = {
        ['\b'] = "\\b", ['\t'] = "\\t", ['\n'] = "\\n",  ['\f'] = "\\f",
        ['\r'] = "\\r", ['"'] = "\\\"", ['\\'] = "\\\\",
    };

    if (c >= 0x80)
        strcpy(out, FFFD);
    else if (named[c] != NULL)
        strcpy(out, named[c]);
    else if (c < 0x20)
        snprintf(out, 8, "\\u%04x", c);
    else
        snprintf(out, 8, "%c", (int)c);
}

static void expect_escaped(const char *around, size_t len, size_t at, unsigned c)
{
    char escaped[8], want[64];
    struct strbuf sb = STRBUF_INIT;
    char *in = malloc(len); /* exactly: the sanitizer sees a read past the end */

    memcpy(in, around, len);
    in[at] = (char)c;
    want_of_lone_byte(c, escaped);
    snprintf(want, sizeof(want), "\"%.*s%s%.*s\"", (int)at, around, escaped, (int)(len - at - 1),
             around + at + 1);
    strbuf_json_string(&sb, in, len);
    if (strcmp(strbuf_str(&sb), want) != 0)
        fail_msg("byte %02x at %zu of %zu: got %s, want %s", c, at, len, strbuf_str(&sb), want);
    free(in);
    strbuf_free(&sb);
}

static void every_byte_is_right_at_every_place_of_words_of_every_length(void **state)
{
    (void)state;
    const char *around = "\x7fZ !#[]azAZ09{}~-."; /* neighbours of what is escaped */

    for (size_t len = 1; len <= strlen(around); len++)
        for (size_t at = 0; at < len; at++)
            for (unsigned c = 0; c < 256; c++)
                expect_escaped(around, len, at, c);
}

static void json_numbers_are_short_and_exact(void **state)
{
    (void)state;
    static const struct {
        double in;
        const char *want;
    } cases[] = {
        { 0.0, "0" },
        { -0.0, "0" },
        { 1.0, "1" },
        { -42.0, "-42" },
        { 0.1, "0.1" },
        { 0.1 + 0.2, "0.30000000000000004" },
        { 1.0 / 3.0, "0.3333333333333333" }, /* sixteen digits do */
        { 1234567.891, "1234567.891" },
        { 9007199254740991.0, "9007199254740991" },
        { -9007199254740991.0, "-9007199254740991" },
        { 9007199254740992.0, "9007199254740992" }, /* 2^53, by %.16g */
        { 1e15, "1000000000000000" },
        { 1e20, "1e+20" },
        { 5e-324, "4.94065645841247e-324" },
        { 1.7976931348623157e308, "1.7976931348623157e+308" },
        { INFINITY, "null" },
        { -INFINITY, "null" },
        { NAN, "null" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf sb = STRBUF_INIT;
        strbuf_json_number(&sb, cases[i].in);
        if (strcmp(strbuf_str(&sb), cases[i].want) != 0)
            fail_msg("%.17g: got %s, want %s", cases[i].in, strbuf_str(&sb), cases[i].want);
        strbuf_free(&sb);
    }
}

static void any_finite_double_survives_the_round_trip(void **state)
{
    (void)state;
    struct prng p;
    struct strbuf sb = STRBUF_INIT;
    prng_seed_fixed(&p, 17);

    for (int i = 0; i < 50000; i++) {
        uint64_t bits = prng_u64(&p);
        double in;
        memcpy(&in, &bits, sizeof(in));
        if (!isfinite(in))
            continue;
        strbuf_clear(&sb);
        strbuf_json_number(&sb, in);
        if (strtod(strbuf_str(&sb), NULL) != in)
            fail_msg("%.17g was written as %s", in, strbuf_str(&sb));
    }
    strbuf_free(&sb);
}

static void the_writer_places_commas_and_names(void **state)
{
    (void)state;
    struct strbuf sb = STRBUF_INIT;
    struct json j = { .sb = &sb };

    json_open(&j, NULL, '{');
    json_str(&j, "s", "a\nb");
    json_str(&j, "absent", NULL);
    json_strn(&j, "n\"1", "xyz", 2);
    json_num(&j, "half", 0.5);
    json_int(&j, "min", INT64_MIN);
    json_bool(&j, "yes", true);
    json_open(&j, "list", '[');
    json_int(&j, NULL, 1);
    json_open(&j, NULL, '{');
    json_close(&j);
    json_open(&j, NULL, '[');
    json_close(&j);
    json_bool(&j, NULL, false);
    json_close(&j);
    json_raw(&j, "raw", "[1,2]", 5);
    json_open(&j, "o", '{');
    json_null(&j, "x");
    json_close(&j);
    json_close(&j);
    assert_true(strbuf_ok(&sb));
    assert_string_equal(strbuf_str(&sb),
                        "{\"s\":\"a\\nb\",\"absent\":null,\"n\\\"1\":\"xy\",\"half\":0.5,"
                        "\"min\":-9223372036854775808,\"yes\":true,\"list\":[1,{},[],false],"
                        "\"raw\":[1,2],\"o\":{\"x\":null}}");
    strbuf_free(&sb);
}

static void the_writer_nests_31_deep(void **state)
{
    (void)state;
    struct strbuf sb = STRBUF_INIT;
    struct json j = { .sb = &sb };
    char want[31 * 5 + 1] = "";

    for (int i = 0; i < 31; i++)
        json_open(&j, NULL, '[');
    for (int i = 0; i < 31; i++) {
        if (i > 0)
            json_int(&j, NULL, 7); /* after an inner list: the comma of each depth is its own */
        json_close(&j);
    }
    for (int i = 0; i < 31; i++)
        strcat(want, "[");
    strcat(want, "]");
    for (int i = 1; i < 31; i++)
        strcat(want, ",7]");
    assert_true(strbuf_ok(&sb));
    assert_string_equal(strbuf_str(&sb), want);
    strbuf_free(&sb);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_always_terminated),
        cmocka_unit_test(a_bound_fails_once_and_stays_failed),
        cmocka_unit_test(every_way_of_adding_meets_the_bound),
        cmocka_unit_test(truncating_takes_back_a_failure),
        cmocka_unit_test(taking_leaves_an_empty_builder),
        cmocka_unit_test(decimals_need_no_printf),
        cmocka_unit_test(json_strings_are_exact),
        cmocka_unit_test(every_byte_is_right_at_every_place_of_words_of_every_length),
        cmocka_unit_test(json_numbers_are_short_and_exact),
        cmocka_unit_test(any_finite_double_survives_the_round_trip),
        cmocka_unit_test(the_writer_places_commas_and_names),
        cmocka_unit_test(the_writer_nests_31_deep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
