#include "config/text.h"
#include "tests/unit/test_config.h"
#include <fcntl.h>

static struct text *parse(const char *json)
{
    struct strbuf errors = STRBUF_INIT;
    struct text *t;

    if (text_parse("f", json, strlen(json), &t, &errors))
        fail_msg("%s\n%s", json, strbuf_str(&errors));
    strbuf_free(&errors);
    return t;
}

static void syntax_errors_name_line_and_column(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        const char *error;
    } cases[] = {
        { "", "f:1:1: the file ends where a value should be\n" },
        { "// only a comment\n", "f:2:1: the file ends where a value should be\n" },
        { "{", "f:1:1: this \"{\" is never closed\n" },
        { "[1,", "f:1:1: this \"[\" is never closed\n" },
        { "[{\"a\":", "f:1:7: the file ends where a value should be\n" },
        { "{\"a\": 1", "f:1:1: this \"{\" is never closed\n" },
        { "[1, [2", "f:1:5: this \"[\" is never closed\n" },
        { "{\"a\": 1,}", "f:1:9: a comma too many\n" },
        { "[1,]", "f:1:4: a comma too many\n" },
        { "[,1]", "f:1:2: a comma too many\n" },
        { "{,}", "f:1:2: a comma too many\n" },
        { "{\"a\" 1}", "f:1:6: expected \":\" after the key\n" },
        { "{a: 1}", "f:1:2: expected a key in double quotes\n" },
        { "{'a': 1}", "f:1:2: expected a key in double quotes\n" },
        { "{\"a\": 'b'}", "f:1:7: text needs double quotes\n" },
        { "{\"a\": b}", "f:1:7: this is not a value; text needs double quotes\n" },
        { "{\"a\": truex}", "f:1:7: this is not a value; text needs double quotes\n" },
        { "{\"a\": True}", "f:1:7: this is not a value; text needs double quotes\n" },
        { "{\"a\":\n 1 \"b\": 2}", "f:2:4: expected \",\" or \"}\" after the value\n" },
        { "[1 2]", "f:1:4: expected \",\" or \"]\" after the value\n" },
        { "{} {}", "f:1:4: nothing may follow the closing bracket\n" },
        { "{}}", "f:1:3: nothing may follow the closing bracket\n" },
        { "\"a", "f:1:1: this string has no end\n" },
        { "[\"a\n\"]", "f:1:2: this string has no end\n" },
        { "[\"a\tb\"]", "f:1:4: a control character in a string; write it as an escape\n" },
        { "[\"\\x\"]", "f:1:3: there is no such escape; write \\\\ for a backslash\n" },
        { "[\"\\u12g4\"]", "f:1:3: \\u needs four hexadecimal digits\n" },
        { "[\"\\u0000\"]", "f:1:3: a NUL character is not allowed\n" },
        { "[\"\\ud800\"]", "f:1:3: half of a surrogate pair\n" },
        { "[\"\\udc00\"]", "f:1:3: half of a surrogate pair\n" },
        { "[\"\\ud800\\u0041\"]", "f:1:3: half of a surrogate pair\n" },
        { "[\"\\", "f:1:3: there is no such escape; write \\\\ for a backslash\n" },
        { "[\"\\ud800\\", "f:1:3: half of a surrogate pair\n" },
        { "[\"\303\"]", "f:1:3: these bytes are not UTF-8\n" },
        { "[\"\300\200\"]", "f:1:3: these bytes are not UTF-8\n" },         /* overlong NUL */
        { "[\"\355\240\200\"]", "f:1:3: these bytes are not UTF-8\n" },     /* U+D800 */
        { "[\"\364\220\200\200\"]", "f:1:3: these bytes are not UTF-8\n" }, /* U+110000 */
        { "[\"\303\274\", x]", "f:1:7: this is not a value; text needs double quotes\n" },
        { "[-]", "f:1:2: this is not a value\n" },
        { "[01]", "f:1:2: a number must not begin with 0\n" },
        { "[1.]", "f:1:2: a digit is missing after the decimal point\n" },
        { "[1e]", "f:1:2: a digit is missing in the exponent\n" },
        { "[.5]", "f:1:2: this is not a value; text needs double quotes\n" },
        { "[+1]", "f:1:2: this is not a value; text needs double quotes\n" },
        { "[0x1]", "f:1:3: expected \",\" or \"]\" after the value\n" },
        { "[1000000000000000000000000000000000000000000000000000000000000]",
          "f:1:2: this number is too long\n" },
        { "{ /* never ends", "f:1:3: this comment has no end\n" },
        { "{ /*/", "f:1:3: this comment has no end\n" },
        { "[1, /* \303\274\303\274 */ x]",
          "f:1:14: this is not a value; text needs double quotes\n" },
        { "[ # comment\n]", "f:1:3: this is not a value; text needs double quotes\n" },
        { "[ / ]", "f:1:3: this is not a value; text needs double quotes\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf errors = STRBUF_INIT;
        struct text *t = NULL;
        if (text_parse("f", cases[i].json, strlen(cases[i].json), &t, &errors) != -1)
            fail_msg("accepted: %s", cases[i].json);
        assert_null(t);
        if (strcmp(strbuf_str(&errors), cases[i].error) != 0)
            fail_msg("%s\n got: %swant: %s", cases[i].json, strbuf_str(&errors), cases[i].error);
        strbuf_free(&errors);
    }
}

static void a_nul_byte_is_refused_wherever_it_stands(void **state)
{
    (void)state;
    static const char *const texts[] = { "{}@", "[@]", "[\"@\"]", "{} // @", "@{}" };

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct strbuf errors = STRBUF_INIT;
        struct text *t;
        char *json = strdup(texts[i]);
        size_t len = strlen(json);
        *strchr(json, '@') = 0;
        assert_int_equal(text_parse("f", json, len, &t, &errors), -1);
        assert_non_null(strstr(strbuf_str(&errors), "a NUL byte is not allowed"));
        strbuf_free(&errors);
        free(json);
    }
}

static void comments_are_blank_except_in_strings(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        const char *value; /* of "a" */
    } cases[] = {
        { "{\"a\": \"// no comment\"}", "// no comment" },
        { "{\"a\": \"/* no */ comment\"}", "/* no */ comment" },
        { "{\"a\": \"quote \\\" // still text\"}", "quote \" // still text" },
        { "{\"a\": \"x\" // \"a\": \"y\"\n}", "x" },
        { "{\"a\": /* \"y\" */ \"x\"}", "x" },
        { "/**/{\"a\"/**/:/***/\"x\"/* * / */}//", "x" },
        { "// \"\n{\"a\": \"x\"}", "x" },
        { "/* \" */{\"a\": \"x\"}", "x" },
        { "{\"a\": \"x\"} // \351 is Latin-1", "x" },
        { "{\"a\": \"http://x/\"}\r\n// end\r\n", "http://x/" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct text *t = parse(cases[i].json);
        const cJSON *a = cJSON_GetObjectItemCaseSensitive(text_root(t), "a");
        assert_non_null(a);
        assert_string_equal(a->valuestring, cases[i].value);
        text_free(t);
    }
}

static const cJSON *follow(const struct text *t, const char *path)
{
    const cJSON *node = text_root(t);

    for (const char *p = path; *p && node; p++)
        node = *p >= '0' && *p <= '9' ? cJSON_GetArrayItem(node, *p - '0')
                                      : cJSON_GetObjectItemCaseSensitive(node, (char[]){ *p, 0 });
    return node;
}

static void every_node_has_its_place_and_pointer(void **state)
{
    (void)state;
    static const char json[] =
        "// head\n"
        "{\n"
        "  \"a\": [1, {\"b\": null}, []],\n"
        "\t\"c\": \"\303\274\", \"d\": true, /* \303\274 */ \"~\": {\"/\": 1},\n"
        "  \"e\"\n"
        "  :\n"
        "    -1.5e3\n"
        "}";
    static const struct {
        const char *path; /* one letter a step */
        const char *pointer;
        unsigned value_line, value_column, key_line, key_column;
    } cases[] = {
        { "", "/", 2, 1, 2, 1 },        { "a", "/a", 3, 8, 3, 3 },
        { "a0", "/a/0", 3, 9, 3, 9 }, /* no key: the value */
        { "a1", "/a/1", 3, 12, 3, 12 }, { "a1b", "/a/1/b", 3, 18, 3, 13 },
        { "a2", "/a/2", 3, 25, 3, 25 }, { "c", "/c", 4, 7, 4, 2 },
        { "d", "/d", 4, 17, 4, 12 }, /* characters, not bytes */
        { "~", "/~0", 4, 36, 4, 31 },   { "~/", "/~0/~1", 4, 42, 4, 37 },
        { "e", "/e", 7, 5, 5, 3 },
    };
    struct text *t = parse(json);

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf pointer = STRBUF_INIT;
        unsigned line, column;
        const cJSON *node = follow(t, cases[i].path);
        assert_non_null(node);
        text_pointer(t, node, &pointer);
        assert_string_equal(strbuf_str(&pointer), cases[i].pointer);
        text_where(t, node, false, &line, &column);
        if (line != cases[i].value_line || column != cases[i].value_column)
            fail_msg("value of %s: %u:%u", cases[i].pointer, line, column);
        text_where(t, node, true, &line, &column);
        if (line != cases[i].key_line || column != cases[i].key_column)
            fail_msg("key of %s: %u:%u", cases[i].pointer, line, column);
        strbuf_free(&pointer);
    }
    text_free(t);
}

static void each_second_key_of_a_name_is_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        const char *errors;
    } cases[] = {
        { "{\"a\": 1, \"A\": 2}", "" },
        { "{\"a\": {\"b\": 1}, \"c\": {\"b\": 1}}", "" },
        { "{\"a\": 1,\n \"a\": 2}", "f:2:2: /a: this key is already in line 1\n" },
        { "{\"a\": 1, \"\\u0061\": 2}", "f:1:10: /\\u0061: this key is already in line 1\n" },
        { "{\"a\": 1,\n\"b\": [{\"x\": 1,\n\"x\": 1}],\n\"a\": 2,\n\"a\": 3}",
          "f:4:1: /a: this key is already in line 1\n"
          "f:5:1: /a: this key is already in line 4\n"
          "f:3:1: /b/0/x: this key is already in line 2\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf errors = STRBUF_INIT;
        struct text *t;
        assert_int_equal(text_parse("f", cases[i].json, strlen(cases[i].json), &t, &errors), 0);
        assert_string_equal(strbuf_str(&errors), cases[i].errors);
        strbuf_free(&errors);
        text_free(t);
    }
}

static void nesting_ends_at_its_limit(void **state)
{
    (void)state;
    for (size_t depth = TEXT_MAX_DEPTH - 1; depth <= TEXT_MAX_DEPTH + 1; depth++) {
        struct strbuf json = STRBUF_INIT, errors = STRBUF_INIT;
        struct text *t;
        for (size_t i = 0; i < depth; i++)
            strbuf_addc(&json, '[');
        for (size_t i = 0; i < depth; i++)
            strbuf_addc(&json, ']');
        int result = text_parse("f", strbuf_str(&json), json.len, &t, &errors);
        if ((result == 0) != (depth <= TEXT_MAX_DEPTH))
            fail_msg("depth %zu: %d %s", depth, result, strbuf_str(&errors));
        if (result)
            assert_string_equal(strbuf_str(&errors), "f:1:33: nested too deeply\n");
        text_free(t);
        strbuf_free(&json);
        strbuf_free(&errors);
    }
}

static void a_file_is_at_most_8_mib(void **state)
{
    (void)state;
    for (int extra = 0; extra <= 1; extra++) {
        struct strbuf errors = STRBUF_INIT;
        struct text *t;
        char path[64];
        size_t len = TEXT_MAX_BYTES + (size_t)extra;
        char *json = malloc(len);
        memset(json, ' ', len);
        memcpy(json, "{}", 2);
        int fd = memfd_create("big", MFD_CLOEXEC);
        assert_true(fd >= 0 && write(fd, json, len) == (ssize_t)len);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        assert_int_equal(text_read(path, &t, &errors), -extra);
        if (extra)
            assert_non_null(strstr(strbuf_str(&errors), ": larger than 8 MiB\n"));
        text_free(t);
        strbuf_free(&errors);
        close(fd);
        free(json);
    }
}

static void a_file_that_cannot_be_read_says_why(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        const char *error;
    } cases[] = {
        { "/nonexistent/config.json", "/nonexistent/config.json: No such file or directory\n" },
        { "/tmp", "/tmp: Is a directory\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf errors = STRBUF_INIT;
        struct text *t;
        assert_int_equal(text_read(cases[i].path, &t, &errors), -1);
        assert_null(t);
        assert_string_equal(strbuf_str(&errors), cases[i].error);
        strbuf_free(&errors);
    }
}

/* A pipe is what a shell's process substitution gives.  One that is silent fails at its limit of
 * real time, which a unit test does not wait for. */
static void a_pipe_is_read_to_its_end_or_refused_at_once(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *content;
        const char *error; /* behind the path */
    } cases[] = {
        { "with a text", "{}", "" },
        { "without one", "",
          ": a pipe that nobody writes to, or that was read before; name a "
          "regular file\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf errors = STRBUF_INIT;
        struct text *t;
        char path[64];
        int fd[2];
        assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
        ssize_t len = (ssize_t)strlen(cases[i].content);
        assert_int_equal(write(fd[1], cases[i].content, (size_t)len), len);
        close(fd[1]);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd[0]);
        int result = text_read(path, &t, &errors);
        replace_all(&errors, path, "");
        if (strcmp(strbuf_str(&errors), cases[i].error) != 0 || result != (len ? 0 : -1))
            fail_msg("%s: %d %s", cases[i].name, result, strbuf_str(&errors));
        text_free(t);
        strbuf_free(&errors);
        close(fd[0]);
    }
}

/* Every prefix and every changed byte of a text is refused or read, never worse. */
static void damaged_text_is_never_worse_than_refused(void **state)
{
    (void)state;
    static const char json[] =
        "{\"a\": [1.5e-3, \"\\ud83d\\ude00 \\n\", {}], // c\n\"b\": /* */ null}";
    static const char bytes[] = "{}[]\",:\\/*u0e-\n\377\200 ";

    for (size_t len = 0; len < sizeof(json); len++) {
        for (size_t b = 0; b < sizeof(bytes); b++) {
            struct strbuf errors = STRBUF_INIT;
            struct text *t;
            char *damaged = malloc(sizeof(json));
            memcpy(damaged, json, sizeof(json));
            damaged[len] = bytes[b];
            size_t n = b + 1 == sizeof(bytes) ? len : sizeof(json) - 1;
            int result = text_parse("f", damaged, n, &t, &errors);
            assert_true((t != NULL) == (result == 0));
            assert_true(result == 0 || errors.len > 0);
            text_free(t);
            strbuf_free(&errors);
            free(damaged);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(syntax_errors_name_line_and_column),
        cmocka_unit_test(a_nul_byte_is_refused_wherever_it_stands),
        cmocka_unit_test(comments_are_blank_except_in_strings),
        cmocka_unit_test(every_node_has_its_place_and_pointer),
        cmocka_unit_test(each_second_key_of_a_name_is_an_error),
        cmocka_unit_test(nesting_ends_at_its_limit),
        cmocka_unit_test(a_file_is_at_most_8_mib),
        cmocka_unit_test(a_file_that_cannot_be_read_says_why),
        cmocka_unit_test(a_pipe_is_read_to_its_end_or_refused_at_once),
        cmocka_unit_test(damaged_text_is_never_worse_than_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
