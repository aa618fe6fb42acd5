/* The keeper and a disk that takes its time: state_file_write is played here. */
#include "control/keeper.h"

#include "base/base.h"
#include "base/strbuf.h"
#include "control/state_file.h"
#include <event2/event.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool hangs;
    unsigned begun, ended;
    char text[32]; /* of the write that ended last */
} disk = { .lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER };

int state_file_write(const char *path, const char *text, size_t len, struct strbuf *why)
{
    (void)path;
    (void)len;
    (void)why;
    pthread_mutex_lock(&disk.lock);
    disk.begun++;
    pthread_cond_broadcast(&disk.moved);
    while (disk.hangs)
        pthread_cond_wait(&disk.moved, &disk.lock);
    snprintf(disk.text, sizeof(disk.text), "%s", text);
    disk.ended++;
    pthread_cond_broadcast(&disk.moved);
    pthread_mutex_unlock(&disk.lock);
    return 0;
}

static void disk_reset(bool hangs)
{
    pthread_mutex_lock(&disk.lock);
    disk.hangs = hangs;
    disk.begun = disk.ended = 0;
    pthread_mutex_unlock(&disk.lock);
}

static void disk_release(void)
{
    pthread_mutex_lock(&disk.lock);
    disk.hangs = false;
    pthread_cond_broadcast(&disk.moved);
    pthread_mutex_unlock(&disk.lock);
}

static void await_writes(unsigned begun, unsigned ended)
{
    pthread_mutex_lock(&disk.lock);
    while (disk.begun < begun || disk.ended < ended)
        pthread_cond_wait(&disk.moved, &disk.lock);
    pthread_mutex_unlock(&disk.lock);
}

static unsigned texts_made;

static void make_text(void *arg, struct strbuf *out)
{
    (void)arg;
    strbuf_addf(out, "text %u", ++texts_made);
}

/* Turns the loop until the keeper has asked so often: it must not wait for the disk. */
static void turn_until(struct event_base *base, unsigned asked)
{
    for (int i = 0; i < 1000 && texts_made < asked; i++) {
        struct timeval step = { .tv_usec = 10000 };

        event_base_loopexit(base, &step);
        event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY);
    }
    assert_int_equal(texts_made, asked);
}

static struct keeper *start(struct event_base *base, bool hangs)
{
    struct keeper *k = keeper_new(base, make_text, NULL);

    texts_made = 0;
    disk_reset(hangs);
    keeper_configure(k, "/nowhere/states");
    await_writes(1, 0);
    return k;
}

static void while_the_disk_hangs_the_loop_goes_on_and_the_newest_text_waits(void **state)
{
    (void)state;
    struct event_base *base = event_base_new();
    struct keeper *k = start(base, true);

    for (unsigned asked = 2; asked <= 3; asked++) {
        keeper_note_change(k);
        turn_until(base, asked);
    }
    assert_int_equal(disk.begun, 1);
    disk_release();
    await_writes(2, 2);
    assert_string_equal(disk.text, "text 3");
    keeper_free(k); /* which writes once more */
    assert_int_equal(disk.ended, 3);
    assert_string_equal(disk.text, "text 4");
    event_base_free(base);
}

static void the_end_does_not_wait_for_a_disk_that_hangs(void **state)
{
    (void)state;
    struct event_base *base = event_base_new();
    struct keeper *k = start(base, true);

    keeper_free(k); /* else this test would not end */
    assert_int_equal(disk.ended, 0);
    event_base_free(base);
    disk_release();
    await_writes(2, 2); /* the thread finishes what it has, and frees it */
    assert_string_equal(disk.text, "text 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(while_the_disk_hangs_the_loop_goes_on_and_the_newest_text_waits),
        cmocka_unit_test(the_end_does_not_wait_for_a_disk_that_hangs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
