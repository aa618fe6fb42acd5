/* embedded.state_file on a real disk, and the thread that keeps it. */
#include "control/state_file.h"

#include "base/base.h"
#include "base/strbuf.h"
#include "control/keeper.h"
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MAX 64

struct place {
    char dir[32];
    char path[64], beside[64], bad[64], other[64];
};

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof(*p));

    strcpy(p->dir, "/tmp/tsp-unit-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->path, sizeof(p->path), "%s/states", p->dir);
    snprintf(p->beside, sizeof(p->beside), "%s/states.new", p->dir);
    snprintf(p->bad, sizeof(p->bad), "%s/states.bad", p->dir);
    snprintf(p->other, sizeof(p->other), "%s/other", p->dir);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;

    unlink(p->path);
    unlink(p->beside);
    unlink(p->bad);
    unlink(p->other);
    assert_int_equal(rmdir(p->dir), 0); /* nothing else is left there */
    free(p);
    return 0;
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/* text: NULL if there must be no such file. */
static void expect_file(const char *path, const char *text)
{
    struct strbuf got = STRBUF_INIT, why = STRBUF_INIT;
    int rc = state_file_read(path, MAX, &got, &why);

    if (rc != (text ? 0 : 1) || (text && strcmp(strbuf_str(&got), text) != 0))
        fail_msg("%s: %d, \"%s\", %s; want \"%s\"", path, rc, strbuf_str(&got), strbuf_str(&why),
                 text ? text : "no file");
    strbuf_free(&got);
    strbuf_free(&why);
}

static void expect_write(const char *path, const char *text, const char *error)
{
    struct strbuf why = STRBUF_INIT;
    int rc = state_file_write(path, text, strlen(text), &why);

    if (rc != (error ? -1 : 0) || strcmp(strbuf_str(&why), error ? error : "") != 0)
        fail_msg("%s: %d, %s; want %s", path, rc, strbuf_str(&why), error ? error : "success");
    strbuf_free(&why);
}

static void expect_read_error(const char *path, const char *error)
{
    struct strbuf got = STRBUF_INIT, why = STRBUF_INIT;

    assert_int_equal(state_file_read(path, MAX, &got, &why), -1);
    assert_string_equal(strbuf_str(&why), error);
    strbuf_free(&got);
    strbuf_free(&why);
}

static void a_write_replaces_the_file_and_only_the_owner_can_read_it(void **state)
{
    struct place *p = *state;
    struct stat st;

    expect_file(p->path, NULL);
    expect_write(p->path, "one", NULL);
    expect_file(p->path, "one");
    put(p->beside, "of a run that was killed");
    expect_write(p->path, "two", NULL);
    expect_file(p->path, "two");
    expect_file(p->beside, NULL);
    assert_int_equal(stat(p->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    expect_write(p->path, "", NULL);
    expect_file(p->path, "");
}

static void what_is_no_regular_file_is_neither_read_nor_replaced(void **state)
{
    struct place *p = *state;
    struct stat st;

    put(p->other, "somebody's");
    assert_int_equal(symlink(p->other, p->path), 0);
    expect_read_error(p->path, "it cannot be opened: Too many levels of symbolic links");
    expect_write(p->path, "mine", "it is not a regular file");
    assert_int_equal(state_file_put_aside(p->path), -1);
    expect_file(p->other, "somebody's");
    expect_file(p->beside, NULL);
    unlink(p->path);
    assert_int_equal(mkfifo(p->path, 0600), 0);
    expect_read_error(p->path, "it is not a regular file"); /* and does not wait for a writer */
    expect_write(p->path, "mine", "it is not a regular file");
    assert_int_equal(state_file_put_aside(p->path), -1);
    assert_int_equal(lstat(p->path, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
}

static void reading_ends_at_its_limit(void **state)
{
    struct place *p = *state;
    char text[MAX + 2];

    memset(text, 'x', sizeof(text));
    text[MAX] = '\0';
    put(p->path, text);
    expect_file(p->path, text);
    text[MAX] = 'x';
    text[MAX + 1] = '\0';
    put(p->path, text);
    expect_read_error(p->path, "it is over 64 bytes");
}

static void a_failed_write_leaves_what_was_there(void **state)
{
    struct place *p = *state;
    struct rlimit before, small = { 0 };
    char missing[96];

    snprintf(missing, sizeof(missing), "%s/no/such/states", p->dir);
    expect_write(missing, "x", "a file beside it cannot be made: No such file or directory");
    expect_write(p->path, "old", NULL);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    small.rlim_cur = 4;
    setrlimit(RLIMIT_FSIZE, &small);
    expect_write(p->path, "a new one", "a file beside it cannot be written: File too large");
    setrlimit(RLIMIT_FSIZE, &before);
    expect_file(p->path, "old");
    expect_file(p->beside, NULL);
    assert_int_equal(mkdir(p->other, 0700), 0);
    expect_write(p->other, "x", "it is not a regular file");
    rmdir(p->other);
}

static void a_damaged_file_is_put_aside(void **state)
{
    struct place *p = *state;

    assert_int_equal(state_file_put_aside(p->path), -1);
    assert_int_equal(errno, ENOENT);
    put(p->path, "damaged");
    put(p->bad, "of last time");
    assert_int_equal(state_file_put_aside(p->path), 0);
    expect_file(p->path, NULL);
    expect_file(p->bad, "damaged");
}

/* The keeper: a loop that turns until what is awaited has come. */

struct kept {
    struct event_base *base;
    struct keeper *keeper;
    const char *text;
    unsigned asked;
};

static void give(void *arg, struct strbuf *out)
{
    struct kept *k = arg;

    k->asked++;
    strbuf_adds(out, k->text);
}

/* Turns the loop until that many writes have been counted; no more than 10 s. */
static void turn_until(struct kept *k, uint64_t written, uint64_t failed)
{
    for (int i = 0; i < 1000; i++) {
        struct keeper_counts c = keeper_counts(k->keeper);
        struct timeval step = { .tv_usec = 10000 };

        if (c.written >= written && c.failed >= failed)
            return;
        event_base_loopexit(k->base, &step);
        event_base_loop(k->base, EVLOOP_NO_EXIT_ON_EMPTY);
    }
    fail_msg("waited in vain for %d writes and %d failures", (int)written, (int)failed);
}

static void begin(struct kept *k)
{
    *k = (struct kept){ .base = event_base_new(), .text = "first" };
    assert_non_null(k->base);
    k->keeper = keeper_new(k->base, give, k);
}

static void end(struct kept *k)
{
    keeper_free(k->keeper);
    event_base_free(k->base);
}

static void a_change_is_written_and_what_changes_often_once_a_second(void **state)
{
    struct place *p = *state;
    struct kept k;

    begin(&k);
    keeper_note_change(k.keeper); /* nowhere to write to: nobody is asked */
    assert_int_equal(k.asked, 0);
    keeper_configure(k.keeper, p->path);
    turn_until(&k, 1, 0);
    expect_file(p->path, "first");
    k.text = "second";
    for (int i = 0; i < 100; i++)
        keeper_note_change(k.keeper);
    keeper_configure(k.keeper, p->path); /* the same: no reason to write */
    turn_until(&k, 2, 0);
    expect_file(p->path, "second");
    assert_int_equal(k.asked, 2);
    k.text = "third";
    keeper_note_change(k.keeper);
    end(&k);
    assert_int_equal(k.asked, 3);
    expect_file(p->path, "third");
}

static void another_path_is_written_at_once_and_none_ends_it(void **state)
{
    struct place *p = *state;
    struct kept k;

    begin(&k);
    keeper_configure(k.keeper, p->path);
    turn_until(&k, 1, 0);
    k.text = "moved";
    keeper_configure(k.keeper, p->other);
    turn_until(&k, 2, 0);
    expect_file(p->path, "first");
    expect_file(p->other, "moved");
    keeper_configure(k.keeper, NULL);
    k.text = "never";
    keeper_note_change(k.keeper);
    end(&k);
    expect_file(p->path, "first");
    expect_file(p->other, "moved");
}

static void what_failed_is_tried_again_until_the_end(void **state)
{
    struct place *p = *state;
    struct kept k;
    char later[80], file[96];

    snprintf(later, sizeof(later), "%s/later", p->dir);
    snprintf(file, sizeof(file), "%s/states", later);
    begin(&k);
    keeper_configure(k.keeper, file);
    turn_until(&k, 0, 1);
    assert_int_equal(mkdir(later, 0700), 0);
    end(&k); /* does not wait for the time of the retry */
    expect_file(file, "first");
    unlink(file);
    rmdir(later);
}

static void a_keeper_that_was_never_told_where_has_no_thread(void **state)
{
    (void)state;
    struct kept k;

    begin(&k);
    keeper_configure(k.keeper, NULL);
    keeper_note_change(k.keeper);
    assert_int_equal(keeper_counts(k.keeper).written, 0);
    end(&k);
    assert_int_equal(k.asked, 0);
    keeper_free(NULL);
}

int main(void)
{
#define WITH_PLACE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_PLACE(a_write_replaces_the_file_and_only_the_owner_can_read_it),
        WITH_PLACE(what_is_no_regular_file_is_neither_read_nor_replaced),
        WITH_PLACE(reading_ends_at_its_limit),
        WITH_PLACE(a_failed_write_leaves_what_was_there),
        WITH_PLACE(a_damaged_file_is_put_aside),
        WITH_PLACE(a_change_is_written_and_what_changes_often_once_a_second),
        WITH_PLACE(another_path_is_written_at_once_and_none_ends_it),
        WITH_PLACE(what_failed_is_tried_again_until_the_end),
        WITH_PLACE(a_keeper_that_was_never_told_where_has_no_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
