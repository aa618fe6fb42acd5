/*
 * Log lines: their two forms, foreign bytes, and what happens when nobody reads them.
 *
 * stdout and stderr are swapped for files or pipes while lines are written; nothing is
 * asserted until they are back.
 */
#include "base/base.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/log_ring.h"
#include "base/log_sink.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- Standard streams, swapped ---- */

static int real_fd[3] = { -1, -1, -1 };

static void swap_in(int std_fd, int fd)
{
    fflush(NULL);
    real_fd[std_fd] = dup(std_fd);
    dup2(fd, std_fd);
    close(fd);
}

static void swap_back(void)
{
    for (int i = 1; i <= 2; i++) {
        if (real_fd[i] < 0)
            continue;
        dup2(real_fd[i], i);
        close(real_fd[i]);
        real_fd[i] = -1;
    }
}

/* Both streams into memory files. */
static void capture(void)
{
    swap_in(1, memfd_create("stdout", 0));
    swap_in(2, memfd_create("stderr", 0));
}

static char *file_text(int fd)
{
    struct stat st;
    fstat(fd, &st);
    char *text = xcalloc(1, (size_t)st.st_size + 1);
    ssize_t n = pread(fd, text, (size_t)st.st_size, 0);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

/* Ends the capture; the caller frees both. */
static void captured(char **out, char **err)
{
    *out = file_text(1);
    *err = file_text(2);
    swap_back();
}

static char *captured_err(void)
{
    char *out;
    char *err;

    captured(&out, &err);
    free(out);
    return err;
}

/* A pipe in place of a standard stream; the reading end is returned. */
static int swap_in_pipe(int std_fd)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0)
        abort();
    swap_in(std_fd, ends[1]);
    return ends[0];
}

/* Reads a pipe to its end in a thread of its own. */
struct collector {
    int fd;
    pthread_t thread;
    char *text; /* valid after collector_join() */
};

static void *collect(void *arg)
{
    struct collector *c = arg;
    size_t len = 0;
    size_t cap = 1 << 16;
    ssize_t n;

    c->text = xmalloc(cap);
    while ((n = read(c->fd, c->text + len, cap - len - 1)) > 0) {
        len += (size_t)n;
        if (cap - len < 1 << 15)
            c->text = xrealloc(c->text, cap *= 2);
    }
    c->text[len] = '\0';
    return NULL;
}

static void collector_start(struct collector *c, int fd)
{
    c->fd = fd;
    if (pthread_create(&c->thread, NULL, collect, c) != 0)
        abort();
}

static void collector_join(struct collector *c)
{
    pthread_join(c->thread, NULL);
    close(c->fd);
}

static unsigned count_lines(const char *text)
{
    unsigned lines = 0;

    for (; *text != '\0'; text++)
        lines += *text == '\n';
    return lines;
}

/* ---- The two forms ---- */

static void log_the_example(void)
{
    log_event(LOG_INFO, "sync", "breaker.transition", "breaker payments is open", "from", "closed",
              "to", "open", NULL);
}

/* Whether the text has digits where the pattern has '0' and else the same characters. */
static bool looks_like(const char *text, const char *pattern)
{
    for (; *pattern != '\0'; pattern++, text++)
        if (*pattern == '0' ? *text < '0' || *text > '9' : *text != *pattern)
            return false;
    return true;
}

static void a_json_line_has_the_documented_fields_in_order(void **state)
{
    (void)state;
    capture();
    int rc = log_start(LOG_FORMAT_JSON, LOG_INFO, "stdout");
    log_the_example();
    log_stop();
    char *err = captured_err();

    assert_int_equal(rc, 0);
    const char *time = "{\"time\":\"0000-00-00T00:00:00.000000Z\"";
    assert_true(looks_like(err, time));
    assert_string_equal(err + strlen(time),
                        ",\"level\":\"info\",\"severity\":\"info\",\"component\":\"sync\","
                        "\"event\":\"breaker.transition\",\"msg\":\"breaker payments is open\","
                        "\"from\":\"closed\",\"to\":\"open\"}\n");
    free(err);
}

static void a_text_line_is_for_people(void **state)
{
    (void)state;
    capture();
    int rc = log_start(LOG_FORMAT_TEXT, LOG_INFO, NULL);
    log_the_example();
    log_event(LOG_WARNING, "proxy", "x", "no fields", NULL);
    log_stop();
    char *err = captured_err();
    char *second = strchr(err, '\n') + 1;

    assert_int_equal(rc, 0);
    const char *time = "0000-00-00T00:00:00.000Z ";
    assert_true(looks_like(err, time));
    assert_true(looks_like(second, time));
    assert_string_equal(second + strlen(time), "warning proxy no fields\n");
    *second = '\0';
    assert_string_equal(err + strlen(time),
                        "info  sync  breaker payments is open  from=closed to=open\n");
    free(err);
}

static void foreign_bytes_cannot_forge_lines_or_fields(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        const char *msg;   /* text form */
        const char *value; /* text form */
        const char *json;
    } cases[] = {
        { "open", "open", "open", "\"open\"" },
        { "", "", "\"\"", "\"\"" },
        { "a b", "a b", "\"a b\"", "\"a b\"" },
        { "a=b", "a=b", "\"a=b\"", "\"a=b\"" },
        { "a\\b", "a\\b", "\"a\\\\b\"", "\"a\\\\b\"" },
        { "a\"b", "a\"b", "\"a\\\"b\"", "\"a\\\"b\"" },
        { "a\nb\r\t", "a\\nb\\r\\t", "\"a\\nb\\r\\t\"", "\"a\\nb\\r\\t\"" },
        { "\x1b[2J\x7f", "\\x1b[2J\\x7f", "\"\\x1b[2J\\x7f\"", "\"\\u001b[2J\x7f\"" },
        { "\xc2\x9b", "\\xc2\\x9b", "\"\\xc2\\x9b\"", "\"\xc2\x9b\"" }, /* C1: CSI in one */
        { "\xc2\xa0\xc3\xa9", "\xc2\xa0\xc3\xa9", "\"\xc2\xa0\xc3\xa9\"", "\"\xc2\xa0\xc3\xa9\"" },
        { "\xff", "\\xff", "\"\\xff\"", "\"\xef\xbf\xbd\"" },
        { "\xe2\x82", "\\xe2\\x82", "\"\\xe2\\x82\"", "\"\xef\xbf\xbd\"" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char want[2][256];
        snprintf(want[0], sizeof(want[0]), " error test  %s  v=%s\n", cases[i].msg, cases[i].value);
        snprintf(want[1], sizeof(want[1]), ",\"msg\":%s,\"v\":%s}\n", cases[i].json, cases[i].json);
        for (int json = 0; json < 2; json++) {
            capture();
            log_start(json ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT, LOG_INFO, "stdout");
            log_event(LOG_ERROR, "test", "x", cases[i].in, "v", cases[i].in, NULL);
            log_stop();
            char *err = captured_err();
            if (strstr(err, want[json]) == NULL || count_lines(err) != 1)
                fail_msg("case %zu, %s: got %s, want %s", i, json ? "json" : "text", err,
                         want[json]);
            free(err);
        }
    }
}

static void a_missing_value_is_null(void **state)
{
    (void)state;
    for (int json = 0; json < 2; json++) {
        capture();
        log_start(json ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT, LOG_INFO, "stdout");
        log_event(LOG_ERROR, "test", "x", "m", "a", NULL, "b", "2", NULL);
        log_stop();
        char *err = captured_err();
        if (strstr(err, json ? "\"a\":null,\"b\":\"2\"}\n" : "  a=\"\" b=2\n") == NULL)
            fail_msg("%s: got %s", json ? "json" : "text", err);
        free(err);
    }
}

static void a_long_line_is_cut_and_says_so(void **state)
{
    (void)state;
    static char controls[5000];
    static char accents[4000];
    memset(controls, '\x01', sizeof(controls) - 1); /* six bytes each once escaped */
    for (size_t i = 0; i + 2 < sizeof(accents); i += 2)
        memcpy(accents + i + 1, "\xc3\xa9", 2); /* the cut falls into a sequence */
    accents[0] = '.';
    accents[sizeof(accents) - 1] = '\0';

    for (int json = 0; json < 2; json++) {
        capture();
        log_start(json ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT, LOG_INFO, "stdout");
        log_event(LOG_ERROR, "test", "x", controls, "a", controls, "b", controls, "c", controls,
                  "d", controls, NULL);
        log_event(LOG_ERROR, "test", "x", accents, "a", accents, NULL);
        log_stop();
        char *err = captured_err();
        char *second = strchr(err, '\n') + 1;
        if (count_lines(err) != 2 || second - err > 16 * 1024)
            fail_msg("%s: %u lines, the first has %td bytes", json ? "json" : "text",
                     count_lines(err), second - err);
        if (strstr(second, json ? "\"truncated\":true}" : " truncated=true\n") == NULL ||
            strstr(second, json ? "\xef\xbf\xbd" : "\\x") != NULL)
            fail_msg("%s: not cut between characters: %s", json ? "json" : "text", second);
        second[-1] = '\0';
        if (strstr(err, "truncated") == NULL)
            fail_msg("%s: cut without saying so", json ? "json" : "text");
        cJSON *tree = json ? cJSON_Parse(err) : NULL;
        if (json && tree == NULL)
            fail_msg("the cut line is no JSON: %s", err);
        cJSON_Delete(tree);
        free(err);
    }
}

static void lines_below_the_level_are_not_written(void **state)
{
    (void)state;
    for (enum log_level least = LOG_DEBUG; least <= LOG_ERROR; least++) {
        capture();
        log_start(LOG_FORMAT_TEXT, LOG_ERROR, "stdout");
        log_set_level(least);
        for (enum log_level l = LOG_DEBUG; l <= LOG_ERROR; l++)
            log_event(l, "test", "x", "m", NULL);
        log_stop();
        char *err = captured_err();
        if (count_lines(err) != (unsigned)(LOG_ERROR - least + 1))
            fail_msg("level %d: %u lines", least, count_lines(err));
        for (enum log_level l = LOG_DEBUG; l <= LOG_ERROR; l++)
            if (log_enabled(l) != (l >= least))
                fail_msg("level %d: enabled(%d) is wrong", least, l);
        free(err);
    }
    log_set_level(LOG_INFO);
}

static void levels_and_formats_are_parsed_by_their_exact_names(void **state)
{
    (void)state;
    static const struct {
        const char *s;
        int level;  /* -1: refused */
        int format; /* -1: refused */
    } cases[] = {
        { "debug", LOG_DEBUG, -1 },
        { "info", LOG_INFO, -1 },
        { "warning", LOG_WARNING, -1 },
        { "error", LOG_ERROR, -1 },
        { "auto", -1, LOG_FORMAT_AUTO },
        { "text", -1, LOG_FORMAT_TEXT },
        { "json", -1, LOG_FORMAT_JSON },
        { "", -1, -1 },
        { "Info", -1, -1 },
        { "warn", -1, -1 },
        { "jsonl", -1, -1 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        enum log_level level = LOG_DEBUG;
        enum log_format format = LOG_FORMAT_AUTO;
        int got_level = log_level_parse(cases[i].s, &level) == 0 ? (int)level : -1;
        int got_format = log_format_parse(cases[i].s, &format) == 0 ? (int)format : -1;
        if (got_level != cases[i].level || got_format != cases[i].format)
            fail_msg("\"%s\": level %d, format %d", cases[i].s, got_level, got_format);
    }
}

static void without_the_log_thread_lines_are_written_at_once(void **state)
{
    (void)state;
    char *out;
    char *err;
    capture();
    log_event(LOG_ERROR, "config", "config.invalid", "bad\nfile", NULL);
    log_access("GET /\n200", 9);
    captured(&out, &err);

    assert_int_equal(count_lines(err), 1);
    assert_non_null(strstr(err, "bad\\nfile"));
    assert_string_equal(out, "GET /?200\n");
    free(out);
    free(err);
}

static void logging_keeps_errno(void **state)
{
    (void)state;
    capture();
    close(2);
    errno = EXDEV;
    log_event(LOG_ERROR, "test", "x", "m", NULL); /* its write fails with EBADF */
    int after = errno;
    swap_back();

    assert_int_equal(after, EXDEV);
}

static void auto_is_json_where_no_terminal_reads(void **state)
{
    (void)state;
    capture();
    log_start(LOG_FORMAT_AUTO, LOG_INFO, "stdout");
    enum log_format access = log_access_format();
    log_the_example();
    log_stop();
    char *err = captured_err();

    assert_int_equal(access, LOG_FORMAT_JSON);
    assert_int_equal(err[0], '{');
    free(err);
}

static void auto_is_text_on_a_terminal(void **state)
{
    (void)state;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0)
        skip(); /* no pseudo-terminals here */
    grantpt(master);
    unlockpt(master);
    char *out;
    char *err;
    capture();
    int rc = log_start(LOG_FORMAT_AUTO, LOG_INFO, ptsname(master));
    enum log_format access = log_access_format();
    log_stop();
    captured(&out, &err);
    close(master);
    free(out);
    free(err);

    assert_int_equal(rc, 0);
    assert_int_equal(access, LOG_FORMAT_TEXT);
}

/* ---- The access log ---- */

static void access_lines_are_scrubbed_and_cut_at_their_limit(void **state)
{
    (void)state;
    static char line[LOG_ACCESS_MAX + 100];
    char *out;
    char *err;
    memset(line, 'u', sizeof(line));
    capture();
    log_start(LOG_FORMAT_JSON, LOG_INFO, "stdout");
    log_access("GET /a\r\n\x1b[2J\x7f\xc3\xa9", 15);
    log_access("", 0);
    log_access(line, LOG_ACCESS_MAX);
    log_access(line, LOG_ACCESS_MAX + 1);
    log_stop();
    captured(&out, &err);

    const char *first = "GET /a???[2J?\xc3\xa9\n\n";
    assert_int_equal(strncmp(out, first, strlen(first)), 0);
    assert_int_equal(strlen(out), strlen(first) + 2 * (LOG_ACCESS_MAX + 1));
    assert_string_equal(err, "");
    free(out);
    free(err);
}

static void log_start_reports_what_it_cannot_open(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_log_dir.XXXXXX";
    assert_non_null(mkdtemp(dir));
    char path[128];
    snprintf(path, sizeof(path), "%s/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);

    assert_int_equal(log_start(LOG_FORMAT_JSON, LOG_INFO, "/nonexistent/access.log"), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(log_start(LOG_FORMAT_JSON, LOG_INFO, path), -1); /* nobody reads: no hang */
    assert_int_equal(errno, ENXIO);
    assert_int_equal(log_start(LOG_FORMAT_JSON, LOG_INFO, "stderr"), 0);
    assert_int_equal(log_start(LOG_FORMAT_JSON, LOG_INFO, "stderr"), -1);
    assert_int_equal(errno, EBUSY);
    log_stop();
    log_stop();
    unlink(path);
    rmdir(dir);
}

/* Lets other threads run until the file has something in it, or 20 s have passed. */
static bool wait_for_file(const char *path, off_t at_least)
{
    int64_t give_up_ms = clock_mono_ms() + 20000;
    struct stat st;

    while (stat(path, &st) != 0 || st.st_size < at_least) {
        if (clock_mono_ms() > give_up_ms)
            return false;
        sched_yield();
    }
    return true;
}

static char *text_of_path(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = file_text(fd);

    close(fd);
    return text;
}

static void reopening_follows_a_rotated_file(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_log_dir.XXXXXX";
    assert_non_null(mkdtemp(dir));
    char path[128];
    char old[128];
    snprintf(path, sizeof(path), "%s/access.log", dir);
    snprintf(old, sizeof(old), "%s/access.log.1", dir);

    assert_int_equal(log_start(LOG_FORMAT_JSON, LOG_INFO, path), 0);
    log_access("one", 3);
    bool written = wait_for_file(path, 4);
    rename(path, old);
    log_reopen();
    bool reopened = wait_for_file(path, 0);
    log_access("two", 3);
    log_stop();

    char *old_text = text_of_path(old);
    char *new_text = text_of_path(path);
    assert_true(written);
    assert_true(reopened);
    assert_string_equal(old_text, "one\n");
    assert_string_equal(new_text, "two\n");
    free(old_text);
    free(new_text);
    unlink(path);
    unlink(old);
    rmdir(dir);
}

static void a_failed_reopening_keeps_the_old_file(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_log_dir.XXXXXX";
    assert_non_null(mkdtemp(dir));
    char path[128];
    char moved[64];
    snprintf(path, sizeof(path), "%s/access.log", dir);
    snprintf(moved, sizeof(moved), "%s.moved", dir);
    char *out;
    char *err;

    capture();
    log_start(LOG_FORMAT_JSON, LOG_INFO, path);
    rename(dir, moved);
    log_reopen();
    /* The complaint is written in the same round that asked for the new file. */
    bool complained = wait_for_file("/proc/self/fd/2", 1);
    log_access("still here", 10);
    log_stop();
    captured(&out, &err);

    snprintf(path, sizeof(path), "%s/access.log", moved);
    char *text = text_of_path(path);
    assert_true(complained);
    assert_string_equal(text, "still here\n");
    assert_non_null(strstr(err, "\"event\":\"log.reopen_failed\""));
    assert_non_null(strstr(err, "No such file"));
    free(text);
    free(out);
    free(err);
    unlink(path);
    rmdir(moved);
}

/* ---- When nobody reads ---- */

static void a_full_disk_costs_its_own_lines_only(void **state)
{
    (void)state;
    char *out;
    char *err;
    uint64_t access_before = log_dropped_access();
    uint64_t ops_before = log_dropped_ops();

    capture();
    int rc = log_start(LOG_FORMAT_JSON, LOG_INFO, "/dev/full"); /* every write is ENOSPC */
    log_access("lost", 4);
    log_access("lost", 4);
    log_event(LOG_INFO, "test", "x", "kept", NULL);
    log_stop();
    captured(&out, &err);

    assert_int_equal(rc, 0);
    assert_int_equal(log_dropped_access() - access_before, 2);
    assert_int_equal(log_dropped_ops() - ops_before, 0);
    assert_non_null(strstr(err, "kept"));
    free(out);
    free(err);
}

static void a_reader_that_left_costs_its_own_lines_only(void **state)
{
    (void)state;
    uint64_t before = log_dropped_access();

    close(swap_in_pipe(1));
    swap_in(2, memfd_create("stderr", 0));
    log_start(LOG_FORMAT_JSON, LOG_INFO, "stdout");
    for (int i = 0; i < 10; i++)
        log_access("lost", 4);
    log_event(LOG_INFO, "test", "x", "kept", NULL);
    log_stop();
    char *err = captured_err();

    assert_int_equal(log_dropped_access() - before, 10);
    assert_non_null(strstr(err, "kept"));
    free(err);
}

/* Far more than the rings, the sink and the pipe hold together. */
#define FLOOD_LINES 10000

static void flood(void)
{
    char line[200];

    memset(line, 'a', sizeof(line));
    for (int i = 0; i < FLOOD_LINES; i++)
        log_access(line, sizeof(line));
}

/* Reads until the text has appeared; what was read is in buf. */
static bool read_until(int fd, const char *text, char *buf, size_t size)
{
    size_t len = 0;
    struct pollfd pfd = { .fd = fd, .events = POLLIN };

    while (len < size - 1 && poll(&pfd, 1, 20000) == 1) {
        ssize_t n = read(fd, buf + len, size - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
        buf[len] = '\0';
        if (strstr(buf, text) != NULL)
            return true;
    }
    return false;
}

static void a_stalled_access_reader_never_hides_operations_lines(void **state)
{
    (void)state;
    char err[16384] = "";
    struct collector late;
    uint64_t before = log_dropped_access();
    int out_fd = swap_in_pipe(1);
    int err_fd = swap_in_pipe(2);

    log_start(LOG_FORMAT_JSON, LOG_INFO, "stdout");
    log_thread_init("test");
    flood();
    /* The ring may be full of lines just now: ask until one gets through. */
    uint64_t ops_before;
    do {
        ops_before = log_dropped_ops();
        log_event(LOG_INFO, "test", "x", "all well", NULL);
    } while (log_dropped_ops() != ops_before);
    bool seen = read_until(err_fd, "all well", err, sizeof(err));
    bool reported =
        strstr(err, "log.dropped") != NULL || read_until(err_fd, "log.dropped", err, sizeof(err));
    uint64_t dropped_while_stalled = log_dropped_access() - before;
    collector_start(&late, out_fd); /* the reader comes back */
    log_stop();
    swap_back();
    collector_join(&late);
    close(err_fd);

    assert_true(seen);
    assert_true(reported);
    assert_true(dropped_while_stalled > 0);
    unsigned received = count_lines(late.text);
    if (received + (log_dropped_access() - before) != FLOOD_LINES)
        fail_msg("%u lines received and %llu dropped of %d", received,
                 (unsigned long long)(log_dropped_access() - before), FLOOD_LINES);
    if (strlen(late.text) != received * 201ul)
        fail_msg("%u lines have %zu bytes", received, strlen(late.text));
    free(late.text);
}

static void stopping_does_not_wait_for_a_stalled_reader(void **state)
{
    (void)state;
    struct collector late;
    uint64_t before = log_dropped_access();
    int out_fd = swap_in_pipe(1);
    char *out;
    char *err;

    swap_in(2, memfd_create("stderr", 0));
    log_start(LOG_FORMAT_JSON, LOG_INFO, "stdout");
    flood();
    int64_t start_ms = clock_mono_ms();
    log_stop_within(50);
    int64_t took_ms = clock_mono_ms() - start_ms;
    collector_start(&late, out_fd);
    captured(&out, &err);
    collector_join(&late);
    unsigned received = count_lines(late.text);
    bool torn = strlen(late.text) != received * 201ul;
    free(late.text);
    free(out);
    free(err);

    assert_true(took_ms < 5000);
    assert_false(torn);
    assert_int_equal(received + (log_dropped_access() - before), FLOOD_LINES);
}

/* ---- Many threads ---- */

#define WRITERS          6
#define LINES_PER_WRITER 3000

static _Atomic int writer_ids;

static void *write_lines(void *arg)
{
    int me = atomic_fetch_add(&writer_ids, 1);
    char id[16];
    char seq[16];
    char access[64];

    (void)arg;
    if (me % 3 != 0) /* the others share a ring */
        log_thread_init("writer");
    snprintf(id, sizeof(id), "%d", me);
    for (int i = 0; i < LINES_PER_WRITER; i++) {
        snprintf(seq, sizeof(seq), "%d", i);
        log_event(LOG_INFO, "test", "x", "m", "w", id, "seq", seq, NULL);
        log_access(access, (size_t)snprintf(access, sizeof(access), "w=%d seq=%d.", me, i));
    }
    return NULL;
}

/* Every line whole and, per writer, in order.  Returns how many; -1: something is wrong. */
static int check_lines(char *text, const char *pattern)
{
    int next[WRITERS] = { 0 };
    int lines = 0;
    char *rest = NULL;

    for (char *l = strtok_r(text, "\n", &rest); l != NULL; l = strtok_r(NULL, "\n", &rest)) {
        int w = -1;
        int seq = -1;
        char end = '\0';
        const char *from = pattern[0] == 'w' ? l : strstr(l, "\"w\":");
        if (strstr(l, "log.dropped") != NULL)
            continue;
        if (from == NULL || sscanf(from, pattern, &w, &seq, &end) != 3 ||
            (end != '}' && end != '.') || w < 0 || w >= WRITERS || seq < next[w])
            return -1;
        next[w] = seq + 1;
        lines++;
    }
    return lines;
}

static void lines_of_many_threads_stay_whole_and_in_order(void **state)
{
    (void)state;
    struct collector out;
    struct collector err;
    pthread_t threads[WRITERS];
    uint64_t access_before = log_dropped_access();
    uint64_t ops_before = log_dropped_ops();

    collector_start(&out, swap_in_pipe(1));
    collector_start(&err, swap_in_pipe(2));
    log_start(LOG_FORMAT_JSON, LOG_INFO, "stdout");
    for (int i = 0; i < WRITERS; i++)
        pthread_create(&threads[i], NULL, write_lines, NULL);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    log_stop();
    swap_back();
    collector_join(&out);
    collector_join(&err);

    int access = check_lines(out.text, "w=%d seq=%d%c");
    int ops = check_lines(err.text, "\"w\":\"%d\",\"seq\":\"%d\"%c");
    free(out.text);
    free(err.text);
    assert_int_equal((uint64_t)access + log_dropped_access() - access_before,
                     WRITERS * LINES_PER_WRITER);
    assert_int_equal((uint64_t)ops + log_dropped_ops() - ops_before, WRITERS * LINES_PER_WRITER);
}

/* More threads alive at once than there are rings; then as many again. */
#define CROWD 80

static pthread_barrier_t crowd_present;

static void *join_crowd(void *arg)
{
    (void)arg;
    log_thread_init("crowd");
    pthread_barrier_wait(&crowd_present);
    log_access("here", 4);
    return NULL;
}

static void more_threads_than_rings_lose_nothing(void **state)
{
    (void)state;
    char *out;
    char *err;
    uint64_t before = log_dropped_access();

    capture();
    log_start(LOG_FORMAT_JSON, LOG_INFO, "stdout");
    for (int round = 0; round < 3; round++) {
        pthread_t threads[CROWD];
        pthread_barrier_init(&crowd_present, NULL, CROWD);
        for (int i = 0; i < CROWD; i++)
            pthread_create(&threads[i], NULL, join_crowd, NULL);
        for (int i = 0; i < CROWD; i++)
            pthread_join(threads[i], NULL);
        pthread_barrier_destroy(&crowd_present);
    }
    log_stop();
    captured(&out, &err);

    assert_int_equal(count_lines(out), 3 * CROWD);
    assert_int_equal(log_dropped_access(), before);
    free(out);
    free(err);
}

/* ---- The parts ---- */

static void a_limit_passes_once_per_interval_and_counts_the_rest(void **state)
{
    (void)state;
    static const struct {
        int64_t now_ms;
        bool pass;
        uint64_t suppressed;
    } steps[] = {
        { 5, true, 0 },     { 5, false, 0 },    { 1004, false, 0 },
        { 1005, true, 2 },  { 1006, false, 0 }, { 9000, true, 1 },
        { 9999, false, 0 }, { 10000, true, 1 }, { 11000, true, 0 },
    };
    struct log_limit limit = { 0 };

    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        uint64_t suppressed = 0;
        bool pass = log_limit_pass(&limit, steps[i].now_ms, 1000, &suppressed);
        if (pass != steps[i].pass || suppressed != steps[i].suppressed)
            fail_msg("step %zu at %lld ms: pass %d, %llu suppressed", i, (long long)steps[i].now_ms,
                     pass, (unsigned long long)suppressed);
    }
}

static void a_byte_ring_keeps_lines_of_any_length_across_its_end(void **state)
{
    (void)state;
    static char in[LOG_RING_MAX_LINE];
    static char out[LOG_RING_MAX_LINE + 1];
    struct log_ring *r = log_ring_new();
    unsigned tag;
    size_t len;
    bool half;

    for (unsigned i = 0; i < 2000; i++) {
        size_t size = i * 7919 % (LOG_RING_MAX_LINE + 1); /* 0 up to the maximum */
        memset(in, (int)('a' + i % 26), size);
        if (!log_ring_push(r, i % 2, in, size, &half))
            fail_msg("line %u of %zu bytes was refused", i, size);
        if (!log_ring_peek(r, &tag, &len) || tag != i % 2 || len != size + 1)
            fail_msg("line %u: tag %u, %zu bytes, want %zu", i, tag, len, size + 1);
        log_ring_take(r, out);
        if (memcmp(in, out, size) != 0 || out[size] != '\n')
            fail_msg("line %u of %zu bytes came out changed", i, size);
    }
    assert_false(log_ring_peek(r, &tag, &len));
    assert_false(log_ring_push(r, 0, in, LOG_RING_MAX_LINE + 1, &half));
    log_ring_free(r);
    log_ring_free(NULL);
}

static void a_full_byte_ring_refuses_and_tells_its_half_once(void **state)
{
    (void)state;
    enum { LINE = 1024 - 8 - 1, FITS = LOG_RING_BYTES / 1024 };
    char line[LINE];
    struct log_ring *r = log_ring_new();
    unsigned tag;
    size_t len;
    bool half;

    memset(line, 'x', sizeof(line));
    for (int lap = 0; lap < 3; lap++) {
        for (int i = 0; i < FITS; i++) {
            if (!log_ring_push(r, 0, line, LINE, &half))
                fail_msg("lap %d: full after %d lines", lap, i);
            if (half != (i == FITS / 2)) /* the first line past the half */
                fail_msg("lap %d: half_full is %d at line %d", lap, half, i);
        }
        if (log_ring_push(r, 0, "", 0, &half))
            fail_msg("lap %d: took one more", lap);
        for (int i = 0; i < FITS; i++) {
            if (!log_ring_peek(r, &tag, &len))
                fail_msg("lap %d: line %d is gone", lap, i);
            log_ring_take(r, NULL);
        }
    }
    log_ring_free(r);
}

static bool sink_add(struct log_sink *s, const char *line)
{
    size_t len = strlen(line);
    char *room = log_sink_room(s, len, 0);

    if (room == NULL)
        return false;
    memcpy(room, line, len);
    log_sink_commit(s, len);
    return true;
}

static void after_a_torn_line_the_next_starts_on_its_own(void **state)
{
    (void)state;
    _Atomic uint64_t lost = 0;
    struct rlimit old;
    getrlimit(RLIMIT_FSIZE, &old);
    struct rlimit tiny = { .rlim_cur = 10, .rlim_max = old.rlim_max };
    void (*old_handler)(int) = signal(SIGXFSZ, SIG_IGN);
    int fd = memfd_create("sink", 0);
    struct log_sink *s = log_sink_new(fd, &lost);

    setrlimit(RLIMIT_FSIZE, &tiny); /* the eleventh byte: a short write, then EFBIG */
    sink_add(s, "first\n");
    sink_add(s, "second\n");
    sink_add(s, "third\n");
    log_sink_flush(s);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, old_handler);
    uint64_t lost_then = lost;
    size_t pending_then = log_sink_pending(s);
    sink_add(s, "fourth\n");
    log_sink_flush(s);
    char *text = file_text(fd);
    log_sink_free(s);
    close(fd);

    assert_int_equal(lost_then, 2);
    assert_int_equal(pending_then, 0);
    assert_int_equal(lost, 2);
    assert_string_equal(text, "first\nseco\nfourth\n");
    free(text);
}

static void a_sink_holds_what_a_full_pipe_does_not_take(void **state)
{
    (void)state;
    static char line[1000 + 1];
    static char got[4 * LOG_SINK_BYTES];
    static const int flags[] = { 0, O_NONBLOCK };
    memset(line, 'x', sizeof(line) - 1);
    line[sizeof(line) - 2] = '\n';

    for (size_t f = 0; f < ARRAY_LEN(flags); f++) {
        _Atomic uint64_t lost = 0;
        unsigned added = 0;
        unsigned refused = 0;
        int ends[2];
        size_t len = 0;
        assert_int_equal(pipe2(ends, flags[f]), 0);
        struct log_sink *s = log_sink_new(ends[1], &lost);
        while (refused < 3)
            sink_add(s, line) ? added++ : refused++;
        if (lost != 3 || log_sink_pending(s) == 0 || !log_sink_can_poll(s))
            fail_msg("flags %x: %llu lost, %zu pending", (unsigned)flags[f],
                     (unsigned long long)lost, log_sink_pending(s));
        while (log_sink_pending(s) > 0) {
            len += (size_t)read(ends[0], got + len, 65536);
            log_sink_flush(s);
        }
        log_sink_free(s);
        close(ends[1]);
        for (ssize_t n; (n = read(ends[0], got + len, sizeof(got) - len)) > 0;)
            len += (size_t)n;
        close(ends[0]);
        if (lost != 3 || len != added * 1000ul)
            fail_msg("flags %x: %u lines added, %zu bytes read", (unsigned)flags[f], added, len);
    }
}

static void freeing_a_sink_counts_what_it_holds(void **state)
{
    (void)state;
    _Atomic uint64_t lost = 0;
    struct log_sink *s = log_sink_new(-1, &lost);

    sink_add(s, "one\n");
    sink_add(s, "two\n");
    log_sink_free(s);
    log_sink_free(NULL);
    assert_int_equal(lost, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_the_log_thread_lines_are_written_at_once),
        cmocka_unit_test(logging_keeps_errno),
        cmocka_unit_test(a_json_line_has_the_documented_fields_in_order),
        cmocka_unit_test(a_text_line_is_for_people),
        cmocka_unit_test(foreign_bytes_cannot_forge_lines_or_fields),
        cmocka_unit_test(a_missing_value_is_null),
        cmocka_unit_test(a_long_line_is_cut_and_says_so),
        cmocka_unit_test(lines_below_the_level_are_not_written),
        cmocka_unit_test(levels_and_formats_are_parsed_by_their_exact_names),
        cmocka_unit_test(auto_is_json_where_no_terminal_reads),
        cmocka_unit_test(auto_is_text_on_a_terminal),
        cmocka_unit_test(access_lines_are_scrubbed_and_cut_at_their_limit),
        cmocka_unit_test(log_start_reports_what_it_cannot_open),
        cmocka_unit_test(reopening_follows_a_rotated_file),
        cmocka_unit_test(a_failed_reopening_keeps_the_old_file),
        cmocka_unit_test(a_full_disk_costs_its_own_lines_only),
        cmocka_unit_test(a_reader_that_left_costs_its_own_lines_only),
        cmocka_unit_test(a_stalled_access_reader_never_hides_operations_lines),
        cmocka_unit_test(stopping_does_not_wait_for_a_stalled_reader),
        cmocka_unit_test(lines_of_many_threads_stay_whole_and_in_order),
        cmocka_unit_test(more_threads_than_rings_lose_nothing),
        cmocka_unit_test(a_limit_passes_once_per_interval_and_counts_the_rest),
        cmocka_unit_test(a_byte_ring_keeps_lines_of_any_length_across_its_end),
        cmocka_unit_test(a_full_byte_ring_refuses_and_tells_its_half_once),
        cmocka_unit_test(after_a_torn_line_the_next_starts_on_its_own),
        cmocka_unit_test(a_sink_holds_what_a_full_pipe_does_not_take),
        cmocka_unit_test(freeing_a_sink_counts_what_it_holds),
    };
    alarm(120); /* a hang is a failure too */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
