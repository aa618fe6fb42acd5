/* What the figures of the benchmarks rest on: where an answer ends, percentiles, and
 * processor time. */
#include "tests/bench/load.h"

#include "base/base.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* Feeds text in pieces; how much was taken until it was complete, or -1. */
static ptrdiff_t feed(struct response *r, const char *text, size_t piece, bool bare)
{
    size_t len = strlen(text), at = 0;
    response_reset(r, bare);
    while (at < len && r->state != RESPONSE_DONE) {
        ptrdiff_t n = response_feed(r, text + at, len - at < piece ? len - at : piece);
        if (n < 0)
            return -1;
        at += (size_t)n;
    }
    return r->state == RESPONSE_DONE ? (ptrdiff_t)at : -1;
}

static void an_answer_ends_where_its_framing_says_however_it_arrives(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t behind; /* bytes that belong to the next answer */
        int status;
        bool close, bare;
    } cases[] = {
        { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP", 4, 200, false, false },
        { "HTTP/1.1 503 Open\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", 0, 503, true,
          false },
        { "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 0, 200, true, false },
        { "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n", 0, 204, false, false },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP", 4, 200, false,
          false },
        { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
          "1a;x=1\r\nabcdefghijklmnopqrstuvwxyz\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n!",
          1, 200, false, false },
        { "HTTP/1.1 200 Connection established\r\n\r\n\1", 1, 200, false, true },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t want = strlen(cases[i].text) - cases[i].behind;
        for (size_t piece = 1; piece <= want; piece++) {
            struct response r;
            ptrdiff_t got = feed(&r, cases[i].text, piece, cases[i].bare);
            if (got != (ptrdiff_t)want || r.status != cases[i].status || r.close != cases[i].close)
                fail_msg("case %zu in pieces of %zu: took %td of %zu, status %d, close %d", i,
                         piece, got, want, r.status, r.close);
        }
    }
}

static void what_is_not_http_is_an_error(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy",
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct response r;
        if (feed(&r, cases[i], 1000, false) != -1)
            fail_msg("case %zu passed", i);
    }
}

static void a_percentile_is_within_one_percent(void **state)
{
    (void)state;
    static struct histogram h;
    static const struct {
        double quantile;
        uint64_t want;
    } cases[] = { { 0.0, 1000 }, { 0.5, 50000000 }, { 0.99, 99000000 }, { 0.999, 99900000 } };

    histogram_reset(&h);
    assert_int_equal(histogram_at(&h, 0.5), 0);
    for (uint64_t us = 1; us <= 100000; us++)
        histogram_add(&h, us * 1000);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t got = histogram_at(&h, cases[i].quantile), off = cases[i].want / 100;
        if (got < cases[i].want - off || got > cases[i].want + off)
            fail_msg("quantile %.3f: got %llu, want %llu", cases[i].quantile,
                     (unsigned long long)got, (unsigned long long)cases[i].want);
    }
}

static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *work(void *arg)
{
    double *seconds = arg;
    while ((*seconds = thread_seconds()) < 0.015)
        ;
    return NULL;
}

/* A proxy may have a thread for each connection. */
static void processor_time_includes_threads_that_began_and_ended_meanwhile(void **state)
{
    (void)state;
    struct cpu before, after;
    int pid = getpid();
    pthread_t thread;
    double ours = thread_seconds(), theirs = 0;
    assert_int_equal(cpu_read(&before, &pid, 1), 0);
    assert_int_equal(pthread_create(&thread, NULL, work, &theirs), 0);
    pthread_join(thread, NULL);
    assert_int_equal(cpu_read(&after, &pid, 1), 0);
    ours = thread_seconds() - ours;
    double got = after.seconds - before.seconds;
    if (got < theirs || got > theirs + ours + 0.005)
        fail_msg("%.6f s of %.6f s in a thread and at most %.6f s elsewhere", got, theirs, ours);
}

/* Its processor time is lost, and a smaller figure would flatter. */
static void a_process_that_is_gone_is_told(void **state)
{
    (void)state;
    struct cpu cpu;
    int pids[] = { getpid(), fork() };
    if (!pids[1])
        _exit(0);
    assert_int_equal(waitpid(pids[1], NULL, 0), pids[1]);
    assert_int_equal(cpu_read(&cpu, pids, 1), 0);
    assert_int_equal(cpu_read(&cpu, pids, 2), pids[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_ends_where_its_framing_says_however_it_arrives),
        cmocka_unit_test(what_is_not_http_is_an_error),
        cmocka_unit_test(a_percentile_is_within_one_percent),
        cmocka_unit_test(processor_time_includes_threads_that_began_and_ended_meanwhile),
        cmocka_unit_test(a_process_that_is_gone_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
