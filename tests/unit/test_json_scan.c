/* Values by pointer, out of JSON in any pieces. */
#include "proxy/json_scan.h"

#include "base/base.h"
#include "base/strbuf.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What was told, as text: "0=12.5@7 1=\"text\"@20". */
struct heard {
    struct strbuf text;
    struct strbuf strings[JSON_SCAN_POINTERS];
};

static void note(struct heard *h, unsigned pointer, const struct json_found *f)
{
    static const char *const words[] = { "null", "false", "true", NULL, "{}" };
    struct strbuf *s = &h->strings[pointer];

    if (f->what == JSON_STRING) {
        strbuf_clear(s);
        return;
    }
    if (f->what == JSON_STRING_PIECE) {
        strbuf_add(s, f->piece, f->len);
        return;
    }
    strbuf_addf(&h->text, "%s%u=", h->text.len ? " " : "", pointer);
    if (f->what == JSON_NUMBER && isnan(f->number))
        strbuf_adds(&h->text, "nan");
    else if (f->what == JSON_NUMBER)
        strbuf_json_number(&h->text, f->number);
    else if (f->what == JSON_STRING_END)
        strbuf_addf(&h->text, "'%s'", strbuf_str(s));
    else
        strbuf_adds(&h->text, words[f->what]);
    strbuf_addf(&h->text, "@%llu", (unsigned long long)f->at);
}

static bool hear(void *arg, const struct json_found *f)
{
    for (unsigned i = 0; i < JSON_SCAN_POINTERS; i++)
        if (f->pointers & BIT(i))
            note(arg, i, f);
    return false;
}

/* pointers are parted by spaces; cut: one cut there, or 0: byte by byte. */
static char *scan(const char *pointers, const char *json, size_t len, size_t cut)
{
    struct json_pointer read[JSON_SCAN_POINTERS];
    struct heard h = { .text = STRBUF_INIT };
    struct json_scan s;
    unsigned count = 0;

    for (const char *p = pointers;; p += strcspn(p, " ") + 1) {
        char one[RULE_TEXT_MAX + 1];
        snprintf(one, sizeof(one), "%.*s", (int)strcspn(p, " "), p);
        json_pointer_read(&read[count++], one);
        if (!p[strcspn(p, " ")])
            break;
    }
    json_scan_init(&s, read, count, hear, &h);
    if (cut) {
        json_scan_feed(&s, json, cut);
        json_scan_feed(&s, json + cut, len - cut);
    } else {
        for (size_t i = 0; i < len; i++)
            json_scan_feed(&s, json + i, 1);
    }
    if (!json_scan_end(&s))
        strbuf_adds(&h.text, h.text.len ? " broken" : "broken");
    for (unsigned i = 0; i < JSON_SCAN_POINTERS; i++)
        strbuf_free(&h.strings[i]);
    return strbuf_take(&h.text);
}

struct reading {
    const char *pointers, *json, *want;
};

static void check(const struct reading *readings, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct reading *r = &readings[i];
        size_t len = strlen(r->json);
        for (size_t cut = 0; cut <= len; cut++) {
            char *got = scan(r->pointers, r->json, len, cut);
            if (strcmp(got, r->want) != 0)
                fail_msg("%s in %s, cut at %zu: got \"%s\", want \"%s\"", r->pointers, r->json, cut,
                         got, r->want);
            free(got);
        }
    }
}

static void a_pointer_leads_to_its_value(void **state)
{
    (void)state;
    static const struct reading readings[] = {
        { "/a", "{\"a\":1}", "0=1@7" },
        { "/a", "{\"b\":1}", "" },
        { "/a", "{\"aa\":1,\"A\":2,\"\":3}", "" },
        { "/aa", "{\"a\":1}", "" },
        { "/a/b", "{\"a\":{\"b\":true}}", "0=true@14" },
        { "/a/b", "{\"a\":[{\"b\":1}],\"b\":2}", "" },
        { "/a", "{\"x\":{\"a\":1},\"a\":2}", "0=2@19" },
        { "/a", "{\"a\":{\"a\":1}}", "0={}@6" },
        { "/a /a/0 /a/1", "{\"a\":[null,false]}", "0={}@6 1=null@10 2=false@16" },
        { "/0", "{\"0\":5}", "0=5@7" },
        { "/01 /-", "[1,2,3]", "" },
        { "/2/1", "[[1,2],[3,4],[5,6]]", "0=6@18" },
        { "/a", "[{\"a\":1}]", "" },
        { "/", "{\"\":7}", "0=7@6" },
        { "//x", "{\"\":{\"x\":7}}", "0=7@11" },
        { "/a~1b /m~0n", "{\"a/b\":1,\"m~n\":2}", "0=1@9 1=2@17" },
        { "/a~01", "{\"a~1\":1}", "0=1@9" },
        { "/a /a", "{\"a\":3}", "0=3@7 1=3@7" },
        { "/a", "{\"a\":1,\"a\":2}", "0=1@7 0=2@13" },
        { "/usage/total", "{\"usage\":{\"in\":[1,{\"total\":9}],\"total\":4}}", "0=4@41" },
        { "/a", " \t\r\n{ \"a\" \n:\t1 } \n", "0=1@15" },
        { "/a", "\xEF\xBB\xBF{\"a\":1}", "0=1@10" },
        { "/n", "{\"n\":1}\n{\"n\":2}\n", "0=1@7 0=2@15" },
    };
    check(readings, ARRAY_LEN(readings));
}

static void the_empty_pointer_is_the_whole_document(void **state)
{
    (void)state;
    struct json_pointer p;
    json_pointer_read(&p, "");
    assert_int_equal(p.count, 0);
    static const struct reading readings[] = {
        { "", "42", "0=42@2" },        { "", "42 ", "0=42@3" },    { "", "\"x\"", "0='x'@3" },
        { "", "{\"a\":1}", "0={}@1" }, { "", "null", "0=null@4" }, { "", "[", "0={}@1 broken" },
    };
    check(readings, ARRAY_LEN(readings));
}

static void strings_are_told_unescaped(void **state)
{
    (void)state;
    static const struct reading readings[] = {
        { "/a", "{\"a\":\"\"}", "0=''@7" },
        { "/a", "{\"a\":\"x y\"}", "0='x y'@10" },
        { "/a", "{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", "0='\"\\/\b\f\n\r\t'@23" },
        { "/a", "{\"a\":\"\\u0041\\u00e9\\u20AC\"}", "0='A\xC3\xA9\xE2\x82\xAC'@25" },
        { "/a", "{\"a\":\"\\uD83D\\uDE00\"}", "0='\xF0\x9F\x98\x80'@19" },
        { "/a", "{\"a\":\"\\uD83Dx\"}", "0='\xEF\xBF\xBDx'@14" },
        { "/a", "{\"a\":\"\\uD83D\"}", "0='\xEF\xBF\xBD'@13" },
        { "/a", "{\"a\":\"\\uDE00\"}", "0='\xEF\xBF\xBD'@13" },
        { "/a", "{\"a\":\"\\uD83D\\uD83D\\uDE00\"}", "0='\xEF\xBF\xBD\xF0\x9F\x98\x80'@25" },
        { "/\xC3\xA9", "{\"\\u00e9\":1}", "0=1@12" },
        { "/a", "{\"\\u0061\":1}", "0=1@12" },
        { "/a", "{\"a\":\"line\nbreak\"}", "0='line\nbreak'@17" }, /* sloppy writers */
        { "/a", "{\"a\":\"\xFF\"}", "0='\xFF'@8" },
        { "/a", "{\"a\":\"\\x\"}", "broken" },
        { "/a", "{\"a\":\"\\u00g0\"}", "broken" },
        { "/a", "{\"a\":\"cut", "broken" },
    };
    check(readings, ARRAY_LEN(readings));
}

static void numbers_follow_the_grammar(void **state)
{
    (void)state;
    static const struct reading readings[] = {
        { "/0", "[0]", "0=0@3" },
        { "/0", "[-0.5e+2]", "0=-50@9" },
        { "/0", "[1E3 ]", "0=1000@5" },
        { "/0", "[12.25,1]", "0=12.25@7" },
        { "/0", "[1e999]", "0=nan@7" },
        { "/0", "[01]", "broken" },
        { "/0", "[+1]", "broken" },
        { "/0", "[.5]", "broken" },
        { "/0", "[1.]", "broken" },
        { "/0", "[-]", "broken" },
        { "/0", "[1e]", "broken" },
        { "/0", "[1-2]", "broken" },
        { "/0", "[NaN]", "broken" },
        { "", "-", "broken" },
        { "/0", "[123456789012345678901234567890123456789012345678901234567890123]", /* 63 */
          "0=1.2345678901234569e+62@65" },
        { "/0", "[1234567890123456789012345678901234567890123456789012345678901234]", /* 64 */
          "0=nan@66" },
    };
    check(readings, ARRAY_LEN(readings));
}

static void what_is_no_json_breaks_off(void **state)
{
    (void)state;
    static const struct reading readings[] = {
        { "/a", "<html>", "broken" },
        { "/a", "{\"a\":1,}", "0=1@7 broken" },
        { "/a", "{\"a\":1", "broken" },
        { "/a", "{\"a\" 1}", "broken" },
        { "/a", "{a:1}", "broken" },
        { "/a", "{,\"a\":1}", "broken" },
        { "/a", "{\"a\":1]", "0=1@7 broken" },
        { "/a", "{\"x\":nul}", "broken" },
        { "/a", "{\"x\":nulll,\"a\":1}", "broken" },
        { "/a", "{\"x\":1}x{\"a\":1}", "broken" },
        { "/a", "{\"a\":1}}", "0=1@7 broken" },
        { "/1", "[1,,2]", "broken" },
        { "/a", "\xEF\xBBx{\"a\":1}", "broken" },
        { "/a", "{\"x\":1 \"a\":2}", "broken" },
        { "/a", "{\"x\":[1 2],\"a\":2}", "broken" },
        { "/a", "{\"a\":1}[", "0=1@7 broken" },
    };
    check(readings, ARRAY_LEN(readings));
}

static char *nested(size_t depth, const char *inside)
{
    struct strbuf sb = STRBUF_INIT;
    for (size_t i = 0; i < depth; i++)
        strbuf_addc(&sb, '[');
    strbuf_adds(&sb, inside);
    for (size_t i = 0; i < depth; i++)
        strbuf_addc(&sb, ']');
    return strbuf_take(&sb);
}

static void depth_is_bounded(void **state)
{
    (void)state;
    static const struct {
        size_t depth;
        const char *want;
    } cases[] = { { JSON_SCAN_DEPTH - 1, "" },
                  { JSON_SCAN_DEPTH, "" },
                  { JSON_SCAN_DEPTH + 1, "broken" } };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *json = nested(cases[i].depth, "");
        char *got = scan("/a", json, strlen(json), 0);
        if (strcmp(got, cases[i].want) != 0)
            fail_msg("depth %zu: got \"%s\", want \"%s\"", cases[i].depth, got, cases[i].want);
        free(got);
        free(json);
    }
}

static void a_pointer_of_sixteen_steps_is_followed(void **state)
{
    (void)state;
    char *json = nested(16, "5"), *deeper = nested(17, "5");
    static const char pointer[] = "/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0";

    char *got = scan(pointer, json, strlen(json), 0);
    assert_string_equal(got, "0=5@18");
    free(got);
    got = scan(pointer, deeper, strlen(deeper), 0);
    assert_string_equal(got, "0={}@17");
    free(got);
    free(json);
    free(deeper);
}

static bool stop_at_first(void *arg, const struct json_found *f)
{
    unsigned *count = arg;
    (void)f;
    ++*count;
    return true;
}

static void a_handler_can_stop_it(void **state)
{
    (void)state;
    struct json_pointer p;
    struct json_scan s;
    unsigned count = 0;

    json_pointer_read(&p, "/0");
    json_scan_init(&s, &p, 1, stop_at_first, &count);
    assert_false(json_scan_feed(&s, "[\"a\"]", 5));
    assert_false(json_scan_feed(&s, "[1]", 3));
    assert_int_equal(count, 1);
    assert_int_equal(s.offset, 2);
    json_scan_begin(&s);
    assert_false(json_scan_feed(&s, "[1]", 3));
    assert_int_equal(count, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pointer_leads_to_its_value),
        cmocka_unit_test(the_empty_pointer_is_the_whole_document),
        cmocka_unit_test(strings_are_told_unescaped),
        cmocka_unit_test(numbers_follow_the_grammar),
        cmocka_unit_test(what_is_no_json_breaks_off),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(a_pointer_of_sixteen_steps_is_followed),
        cmocka_unit_test(a_handler_can_stop_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
