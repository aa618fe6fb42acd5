#include "control/keeper.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "base/thread.h"
#include "control/state_file.h"
#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WARN_EVERY_MS 60000

struct job {
    char *path; /* owned */
    char *text; /* owned; NULL: there is no job */
    size_t len;
};

/* What both threads know.  It goes with the last of them. */
struct writer {
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct job next; /* not yet taken */
    bool forget;     /* the job at hand is wanted no more */
    bool stopping;
    bool ended;     /* the thread has nothing left to do */
    bool abandoned; /* nobody waits for that any more: the thread frees this */

    bool failing; /* the writer thread's own, as is the next */
    struct log_limit warnings;
    _Atomic uint64_t written;
    _Atomic uint64_t failed;
};

struct keeper {
    struct writer *writer;
    pthread_t thread;
    bool running;
    struct event *due;
    keeper_text *text;
    void *arg;
    char *path; /* owned; NULL: keep nothing */
    bool changed;
    int64_t last_ms; /* when a text was last made */
    struct log_limit too_large;
};

/* The writer thread. */

static void drop_job(struct job *job)
{
    free(job->path);
    free(job->text);
    *job = (struct job){ 0 };
}

static struct timespec deadline_in(int64_t ms)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += ms / 1000;
    ts.tv_nsec += ms % 1000 * 1000000;
    ts.tv_sec += ts.tv_nsec / 1000000000;
    ts.tv_nsec %= 1000000000;
    return ts;
}

static void report(struct writer *w, const char *path, int rc, const struct strbuf *why)
{
    bool was_failing = w->failing;

    w->failing = rc < 0;
    if (rc < 0 && log_limit_pass(&w->warnings, clock_mono_ms(), WARN_EVERY_MS, NULL))
        log_event(LOG_WARNING, "control", "state_file.write_failed",
                  "embedded.state_file cannot be written: a restart would forget which breakers "
                  "are open",
                  "path", path, "error", strbuf_str(why), NULL);
    if (rc == 0 && was_failing) {
        w->warnings = (struct log_limit){ 0 };
        log_event(LOG_INFO, "control", "state_file.written_again",
                  "embedded.state_file is written again", "path", path, NULL);
    }
}

static int do_job(struct writer *w, const struct job *job)
{
    struct strbuf why = STRBUF_INIT;
    int rc = state_file_write(job->path, job->text, job->len, &why);

    atomic_fetch_add_explicit(rc == 0 ? &w->written : &w->failed, 1, memory_order_relaxed);
    report(w, job->path, rc, &why);
    strbuf_free(&why);
    return rc;
}

/* Waits for a newer job; the one at hand failed and waits for its retry, unless it is empty.
 * False: stop, and there is nothing left to try. */
static bool await_job(struct writer *w, struct job *job)
{
    struct timespec retry = deadline_in(KEEPER_RETRY_MS);
    bool more = true;
    int rc = 0;

    pthread_mutex_lock(&w->lock);
    while (w->next.text == NULL && !w->stopping && rc != ETIMEDOUT) {
        if (w->forget)
            drop_job(job);
        w->forget = false;
        rc = job->text ? pthread_cond_timedwait(&w->changed, &w->lock, &retry)
                       : pthread_cond_wait(&w->changed, &w->lock);
    }
    if (w->next.text) {
        drop_job(job);
        *job = w->next;
        w->next = (struct job){ 0 };
    } else if (w->stopping) {
        more = false;
    }
    pthread_mutex_unlock(&w->lock);
    return more;
}

static void writer_free(struct writer *w)
{
    drop_job(&w->next);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static void *run(void *arg)
{
    struct writer *w = arg;
    struct job job = { 0 };
    bool abandoned;

    log_thread_init("state-file");
    while (await_job(w, &job)) {
        if (do_job(w, &job) == 0)
            drop_job(&job);
    }
    drop_job(&job);
    pthread_mutex_lock(&w->lock);
    w->ended = true;
    abandoned = w->abandoned;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (abandoned)
        writer_free(w);
    return NULL;
}

/* The event loop's thread. */

static struct writer *writer_new(void)
{
    struct writer *w = xcalloc(1, sizeof(*w));
    pthread_condattr_t attr;

    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->changed, &attr);
    pthread_condattr_destroy(&attr);
    return w;
}

static void start_thread(struct keeper *k)
{
    int rc = thread_start(&k->thread, run, k->writer);
    k->running = rc == 0;
    if (rc != 0)
        log_event(LOG_WARNING, "control", "state_file.write_failed",
                  "embedded.state_file is not written: no thread", "error", strerror(rc), NULL);
}

static void hand_over(struct keeper *k, struct job job)
{
    struct writer *w = k->writer;

    pthread_mutex_lock(&w->lock);
    drop_job(&w->next);
    w->next = job;
    w->forget = false;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

static void forget_job(struct writer *w)
{
    pthread_mutex_lock(&w->lock);
    drop_job(&w->next);
    w->forget = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

static void make_job(struct keeper *k)
{
    struct strbuf text = STRBUF_INIT;
    size_t len;

    k->changed = false;
    k->last_ms = clock_mono_ms();
    k->text(k->arg, &text);
    if (strbuf_ok(&text)) {
        len = text.len;
        hand_over(k, (struct job){ xstrdup(k->path), strbuf_take(&text), len });
        return;
    }
    strbuf_free(&text);
    atomic_fetch_add_explicit(&k->writer->failed, 1, memory_order_relaxed);
    if (log_limit_pass(&k->too_large, k->last_ms, WARN_EVERY_MS, NULL))
        log_event(LOG_WARNING, "control", "state_file.write_failed",
                  "embedded.state_file is not written: too many breakers are open", "path", k->path,
                  NULL);
}

static void on_due(evutil_socket_t unused, short what, void *arg)
{
    struct keeper *k = arg;

    (void)unused;
    (void)what;
    if (k->running && k->changed)
        make_job(k);
}

struct keeper *keeper_new(struct event_base *base, keeper_text *text, void *arg)
{
    struct keeper *k = xcalloc(1, sizeof(*k));

    k->writer = writer_new();
    k->due = event_new(base, -1, 0, on_due, k);
    if (k->due == NULL)
        abort(); /* out of memory, as xmalloc would */
    k->text = text;
    k->arg = arg;
    return k;
}

void keeper_note_change(struct keeper *k)
{
    int64_t wait_ms;
    struct timeval tv;

    k->changed = true;
    if (!k->running || k->path == NULL || event_pending(k->due, EV_TIMEOUT, NULL))
        return;
    wait_ms = k->last_ms + KEEPER_EVERY_MS - clock_mono_ms();
    if (wait_ms < 0)
        wait_ms = 0;
    tv = (struct timeval){ .tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000 };
    event_add(k->due, &tv);
}

void keeper_configure(struct keeper *k, const char *path)
{
    if (path && k->path && strcmp(path, k->path) == 0)
        return;
    event_del(k->due);
    free(k->path);
    k->path = path ? xstrdup(path) : NULL;
    if (path == NULL) {
        forget_job(k->writer);
        return;
    }
    if (!k->running)
        start_thread(k);
    if (k->running)
        make_job(k);
}

/* True: the thread is gone and joined. */
static bool stop_thread(struct keeper *k)
{
    struct writer *w = k->writer;
    struct timespec limit = deadline_in(KEEPER_STOP_MS);
    bool ended;
    int rc = 0;

    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_signal(&w->changed);
    while (!w->ended && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&w->changed, &w->lock, &limit);
    ended = w->ended;
    w->abandoned = !ended;
    if (!ended)
        pthread_detach(k->thread); /* before it can free what it works with */
    pthread_mutex_unlock(&w->lock);
    if (ended)
        pthread_join(k->thread, NULL);
    return ended;
}

void keeper_free(struct keeper *k)
{
    bool ended = true;

    if (k == NULL)
        return;
    if (k->running && k->path)
        make_job(k);
    if (k->running)
        ended = stop_thread(k);
    if (ended)
        writer_free(k->writer);
    else
        log_event(LOG_WARNING, "control", "state_file.write_failed",
                  "embedded.state_file: the disk does not answer; not waiting for it any longer",
                  "path", k->path ? k->path : "", NULL);
    event_free(k->due);
    free(k->path);
    free(k);
}

struct keeper_counts keeper_counts(const struct keeper *k)
{
    return (struct keeper_counts){
        .written = atomic_load_explicit(&k->writer->written, memory_order_relaxed),
        .failed = atomic_load_explicit(&k->writer->failed, memory_order_relaxed),
    };
}
