/* access.auth_file: lines of name:SHA-256. */
#include "tests/unit/test_config.h"
#include <fcntl.h>
#include <sys/stat.h>

#define HASH  "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
#define UPPER "5E884898DA28047151D0E56F8DC6292773603D0D6AABBDD62A11EF721D1542D8"
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static char path[64];

static struct outcome_of_load load_users(const char *text, size_t len, mode_t mode)
{
    char json[128];
    strcpy(path, "/tmp/tsp-users-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, len) == (ssize_t)len && fchmod(fd, mode) == 0);
    close(fd);
    snprintf(json, sizeof(json), "{\"access\": {\"auth_file\": \"%s\"}}", path);
    struct outcome_of_load r = load_json(json);
    replace_all(&r.errors, path, "USERS");
    replace_all(&r.warnings, path, "USERS");
    return r;
}

static void forget(struct outcome_of_load *r)
{
    unlink(path);
    config_free(r->cfg);
    strbuf_free(&r->errors);
    strbuf_free(&r->warnings);
}

static void names_comments_and_both_line_ends_are_read(void **state)
{
    (void)state;
    static const char text[] = "# clients\n\nshop:" HASH "\r\n\n#pay:" HASH "\npay:" UPPER;
    struct outcome_of_load r = load_users(text, sizeof(text) - 1, 0600);
    if (!r.cfg)
        fail_msg("%s", strbuf_str(&r.errors));
    assert_int_equal(r.cfg->access.user_count, 2);
    assert_string_equal(r.cfg->access.users[0].name, "shop");
    assert_string_equal(r.cfg->access.users[1].name, "pay");
    assert_memory_equal(r.cfg->access.users[0].token_sha256, "\x5e\x88\x48\x98", 4);
    assert_memory_equal(r.cfg->access.users[0].token_sha256, r.cfg->access.users[1].token_sha256,
                        32);
    assert_string_equal(strbuf_str(&r.warnings), "");
    forget(&r);
}

#define NAME64 "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
#define SHAPE  "is not name:SHA-256, the latter in 64 hexadecimal digits"

static void a_malformed_line_is_an_error_that_shows_nothing_of_it(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want; /* behind "USERS: "; NULL: fine */
    } cases[] = {
        { NAME64 ":" HASH "\n", NULL },
        { "shop:" HASH, NULL },
        { "", "names nobody, so nobody could use the proxy" },
        { "# nobody\n", "names nobody, so nobody could use the proxy" },
        { "shop\n", "line 1 " SHAPE },
        { "shop:hunter2\n", "line 1 " SHAPE },
        { "a:" HASH "\nshop:" HASH "0\n", "line 2 " SHAPE },
        { "shop:" HASH " \n", "line 1 " SHAPE },
        { "shop:g" HASH "\n", "line 1 " SHAPE },
        { "shop:x:" HASH "\n", "line 1 " SHAPE },
        { "a:" HASH "\n\n#\n:" HASH "\n", "line 4 has a name that is not of 1 to 64 characters" },
        { NAME64 "n:" HASH "\n", "line 1 has a name that is not of 1 to 64 characters" },
        { "a b:" HASH "\n",
          "line 1 has a name with a space or a character other than visible ASCII" },
        { " # x\n", "line 1 " SHAPE },
        { "shop:" EMPTY "\n",
          "line 1 has the SHA-256 of nothing; the token was empty when it was made" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_users(cases[i].text, strlen(cases[i].text), 0600);
        char want[256] = "";
        if (cases[i].want)
            snprintf(want, sizeof(want), "FILE:1:26: /access/auth_file: USERS: %s\n",
                     cases[i].want);
        if (strcmp(strbuf_str(&r.errors), want) != 0)
            fail_msg("\"%s\": got \"%s\", want \"%s\"", cases[i].text, strbuf_str(&r.errors), want);
        forget(&r);
    }
}

static void the_file_is_bounded(void **state)
{
    (void)state;
    static const struct {
        size_t lines, padding;
        const char *want;
    } cases[] = {
        { 256, 0, "" },
        { 257, 0, "FILE:1:26: /access/auth_file: USERS: has more than 256 lines\n" },
        { 1, 65536 - 68, "" },
        { 1, 65536, "FILE:1:26: /access/auth_file: USERS: is larger than 64 KiB\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf text = STRBUF_INIT;
        for (size_t k = 0; k < cases[i].lines; k++)
            strbuf_adds(&text, "u:" HASH "\n");
        for (size_t k = 0; k < cases[i].padding; k++)
            strbuf_adds(&text, "\n");
        struct outcome_of_load r = load_users(text.data, text.len, 0600);
        if (strcmp(strbuf_str(&r.errors), cases[i].want) != 0)
            fail_msg("%zu lines, %zu bytes: got \"%s\"", cases[i].lines, text.len,
                     strbuf_str(&r.errors));
        forget(&r);
        strbuf_free(&text);
    }
}

static void what_is_no_file_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *json, *want;
    } cases[] = {
        { "{\"access\": {\"auth_file\": \"/nonexistent/x\"}}",
          "FILE:1:26: /access/auth_file: /nonexistent/x: No such file or directory\n" },
        { "{\"access\": {\"auth_file\": \"/dev/null\"}}",
          "FILE:1:26: /access/auth_file: /dev/null: is not a regular file\n" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_json(cases[i].json);
        assert_string_equal(strbuf_str(&r.errors), cases[i].want);
        config_free(r.cfg);
        strbuf_free(&r.errors);
        strbuf_free(&r.warnings);
    }
}

static void a_file_that_others_can_change_is_warned_about(void **state)
{
    (void)state;
    static const struct {
        mode_t mode;
        bool warned;
    } cases[] = { { 0600, false }, { 0644, false }, { 0664, true }, { 0646, true } };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct outcome_of_load r = load_users("a:" HASH, 2 + 64, cases[i].mode);
        if ((strstr(strbuf_str(&r.warnings), "can be changed by others") != NULL) !=
            cases[i].warned)
            fail_msg("mode %o: \"%s\"", cases[i].mode, strbuf_str(&r.warnings));
        forget(&r);
    }
}

static void a_change_of_the_file_is_noticed(void **state)
{
    (void)state;
    struct outcome_of_load r = load_users("a:" HASH, 2 + 64, 0600);
    assert_false(config_secrets_changed(r.cfg));
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_true(fd >= 0 && write(fd, "\n", 1) == 1);
    close(fd);
    assert_true(config_secrets_changed(r.cfg));
    forget(&r);
}

static void the_effective_configuration_has_the_path_and_no_hash(void **state)
{
    (void)state;
    struct outcome_of_load r = load_users("a:" HASH, 2 + 64, 0600);
    struct strbuf text = STRBUF_INIT;
    config_write(r.cfg, &text);
    assert_non_null(strstr(strbuf_str(&text), path));
    assert_null(strstr(strbuf_str(&text), "5e884898"));
    strbuf_free(&text);
    forget(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_comments_and_both_line_ends_are_read),
        cmocka_unit_test(a_malformed_line_is_an_error_that_shows_nothing_of_it),
        cmocka_unit_test(the_file_is_bounded),
        cmocka_unit_test(what_is_no_file_is_told),
        cmocka_unit_test(a_file_that_others_can_change_is_warned_about),
        cmocka_unit_test(a_change_of_the_file_is_noticed),
        cmocka_unit_test(the_effective_configuration_has_the_path_and_no_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
