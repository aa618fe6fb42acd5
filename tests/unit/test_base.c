/* Bug reports and the allocating helpers. */
#include "base/base.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void a_bug_that_is_none_costs_nothing(void **state)
{
    (void)state;
    uint64_t before = bug_count();

    assert_false(BUG(1 + 1 == 3));
    assert_int_equal(bug_count(), before);
}

/* In a child, because a test build dies of it.  The child's stderr comes back in out. */
static int status_of_child_with_a_bug(char *out, size_t size)
{
    int ends[2];
    size_t len = 0;
    ssize_t n;
    int status;

    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        bool reported = BUG("apples" != NULL);
        _exit(reported && bug_count() == 1 ? 0 : 1);
    }
    close(ends[1]);
    while (len < size - 1 && (n = read(ends[0], out + len, size - 1 - len)) > 0)
        len += (size_t)n;
    out[len] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void a_bug_is_logged_with_its_place_and_aborts_test_builds_only(void **state)
{
    (void)state;
    char err[4096];
    int status = status_of_child_with_a_bug(err, sizeof(err));

#ifdef TEST_BUILD
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
#else
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
#endif
    if (strstr(err, "test_base.c:") == NULL || strstr(err, "apples") == NULL ||
        strstr(err, "\"level\":\"error\"") == NULL)
        fail_msg("the report has no place, condition or level: %s", err);
}

static void memory_of_no_size_is_still_memory(void **state)
{
    (void)state;
    void *blocks[] = { xmalloc(0), xcalloc(0, 8), xcalloc(8, 0), xrealloc(NULL, 0) };

    for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
        assert_non_null(blocks[i]);
        free(blocks[i]);
    }
}

static void copies_end_at_the_length_or_the_nul(void **state)
{
    (void)state;
    static const struct {
        const char *s;
        size_t len;
        const char *want;
    } cases[] = {
        { "breaker", 0, "" },          { "breaker", 5, "break" }, { "breaker", 7, "breaker" },
        { "breaker", 100, "breaker" }, { "a\0b", 3, "a" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *got = xstrndup(cases[i].s, cases[i].len);
        if (strcmp(got, cases[i].want) != 0)
            fail_msg("%s up to %zu: got %s", cases[i].s, cases[i].len, got);
        free(got);
    }
    char *whole = xstrdup("payments");
    assert_string_equal(whole, "payments");
    free(whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bug_that_is_none_costs_nothing),
        cmocka_unit_test(a_bug_is_logged_with_its_place_and_aborts_test_builds_only),
        cmocka_unit_test(memory_of_no_size_is_still_memory),
        cmocka_unit_test(copies_end_at_the_length_or_the_nul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
