#include "base/log.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/log_ring.h"
#include "base/log_sink.h"
#include "base/slice.h"
#include "base/strbuf.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum line_kind { LINE_OPS, LINE_ACCESS, LINE_KINDS };

/* Slot 0 is the ring that threads without their own share under a lock. */
#define LOG_SLOTS 64

#define BUSY_POLL_MS     10 /* while lines keep coming, they are collected this often */
#define SINK_PATIENCE_MS 20 /* per round, for a slow reader; then its lines are dropped */
#define DIRECT_WAIT_MS   1000
#define STOP_LIMIT_MS    2000
#define STOP_GRACE_MS    500 /* for a write() that is stuck in the kernel */
#define DROP_REPORT_MS   60000

/* The longest operations line, and the longest parts of one, before escaping. */
#define OPS_LINE_MAX  (16 * 1024)
#define OPS_MSG_MAX   2048
#define OPS_VALUE_MAX 1024

/* Never freed: a thread may still log while the process ends. */
static struct {
    _Atomic(struct log_ring *) ring;
    _Atomic bool taken;
} slots[LOG_SLOTS];
static pthread_mutex_t shared_ring_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local struct log_ring *my_ring;

static _Atomic int min_level = LOG_INFO;
static _Atomic int formats[LINE_KINDS] = { LOG_FORMAT_AUTO, LOG_FORMAT_AUTO };
static _Atomic uint64_t dropped[LINE_KINDS];

static _Atomic bool running;       /* lines go to the rings */
static _Atomic bool stopping;      /* the log thread finishes before stop_by_ms */
static _Atomic int64_t stop_by_ms; /* monotonic */
static _Atomic bool asleep;        /* the log thread needs a wake-up for the next line */
static _Atomic bool reopen_asked;
static int wake_fd = -1; /* eventfds, open for good: a late wake-up must not hit another file */
static int done_fd = -1;
static bool thread_stuck; /* an earlier log thread never came back from a write() */

static pthread_t log_thread;
static _Thread_local bool on_log_thread;
/* The log thread's own, between log_start() and its end. */
static struct log_sink *sinks[LINE_KINDS];
static char *access_file; /* NULL: a standard stream */
static int64_t next_drop_report_ms;
static uint64_t reported[LINE_KINDS];

static const char *level_name(enum log_level level)
{
    switch (level) {
    case LOG_DEBUG:
        return "debug";
    case LOG_INFO:
        return "info";
    case LOG_WARNING:
        return "warning";
    case LOG_ERROR:
        return "error";
    }
    return "error";
}

int log_level_parse(const char *s, enum log_level *out)
{
    for (enum log_level l = LOG_DEBUG; l <= LOG_ERROR; l++) {
        if (strcmp(s, level_name(l)) == 0) {
            *out = l;
            return 0;
        }
    }
    return -1;
}

int log_format_parse(const char *s, enum log_format *out)
{
    static const char *const names[] = {
        [LOG_FORMAT_AUTO] = "auto",
        [LOG_FORMAT_TEXT] = "text",
        [LOG_FORMAT_JSON] = "json",
    };

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(s, names[i]) == 0) {
            *out = (enum log_format)i;
            return 0;
        }
    }
    return -1;
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&min_level, (int)level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&min_level, memory_order_relaxed);
}

uint64_t log_dropped_access(void)
{
    return atomic_load_explicit(&dropped[LINE_ACCESS], memory_order_relaxed);
}

uint64_t log_dropped_ops(void)
{
    return atomic_load_explicit(&dropped[LINE_OPS], memory_order_relaxed);
}

static void count_dropped(enum line_kind kind)
{
    atomic_fetch_add_explicit(&dropped[kind], 1, memory_order_relaxed);
}

bool log_limit_pass(struct log_limit *l, int64_t now_ms, int64_t interval_ms, uint64_t *suppressed)
{
    if (now_ms < l->next_ms) {
        l->suppressed++;
        return false;
    }
    if (suppressed != NULL)
        *suppressed = l->suppressed;
    l->suppressed = 0;
    l->next_ms = now_ms + interval_ms;
    return true;
}

static enum log_format resolve_format(enum log_format format, int fd)
{
    if (format != LOG_FORMAT_AUTO)
        return format;
    return isatty(fd) ? LOG_FORMAT_TEXT : LOG_FORMAT_JSON;
}

static enum log_format format_of(enum line_kind kind)
{
    enum log_format f = (enum log_format)atomic_load_explicit(&formats[kind], memory_order_relaxed);

    return resolve_format(f, kind == LINE_OPS ? STDERR_FILENO : STDOUT_FILENO);
}

enum log_format log_access_format(void)
{
    return format_of(LINE_ACCESS);
}

/* ---- From the calling thread to its ring ---- */

static void wake_log_thread(void)
{
    uint64_t one = 1;
    ssize_t n = write(wake_fd, &one, sizeof(one));

    (void)n; /* only a counter at its end fails, and that one is readable already */
}

static struct log_ring *slot_ring(size_t i)
{
    struct log_ring *r = atomic_load(&slots[i].ring);

    if (r == NULL) {
        r = log_ring_new();
        atomic_store(&slots[i].ring, r);
    }
    return r;
}

static pthread_key_t slot_key;
static pthread_once_t slot_key_once = PTHREAD_ONCE_INIT;

static void on_thread_exit(void *taken)
{
    my_ring = NULL;
    atomic_store_explicit((_Atomic bool *)taken, false, memory_order_release);
}

static void create_slot_key(void)
{
    if (pthread_key_create(&slot_key, on_thread_exit) != 0)
        abort();
}

void log_thread_init(const char *thread_name)
{
    if (getpid() != gettid()) {
        char name[16]; /* the kernel's limit */
        strncpy(name, thread_name, sizeof(name) - 1);
        name[sizeof(name) - 1] = '\0';
        pthread_setname_np(pthread_self(), name);
    }
    pthread_once(&slot_key_once, create_slot_key);
    for (size_t i = 1; my_ring == NULL && i < LOG_SLOTS; i++) {
        if (atomic_exchange_explicit(&slots[i].taken, true, memory_order_acquire))
            continue;
        my_ring = slot_ring(i);
        pthread_setspecific(slot_key, &slots[i].taken);
    }
}

static void push_line(enum line_kind kind, const char *line, size_t len)
{
    bool half_full;
    bool stored;

    if (my_ring != NULL) {
        stored = log_ring_push(my_ring, kind, line, len, &half_full);
    } else {
        pthread_mutex_lock(&shared_ring_lock);
        stored = log_ring_push(slot_ring(0), kind, line, len, &half_full);
        pthread_mutex_unlock(&shared_ring_lock);
    }
    if (!stored)
        count_dropped(kind);
    else if (half_full || (atomic_load(&asleep) && atomic_exchange(&asleep, false)))
        wake_log_thread();
}

static void scrub(char *line, size_t len)
{
    size_t i = 0;
    while (len - i >= 8) {
        unsigned at = eight_find_control(line + i);
        i += at;
        if (at < 8)
            line[i++] = '?';
    }
    for (; i < len; i++) {
        unsigned char c = (unsigned char)line[i];
        if (c < 0x20 || c == 0x7f)
            line[i] = '?';
    }
}

static void write_directly(enum line_kind kind, const char *line, size_t len)
{
    int fd = kind == LINE_OPS ? STDERR_FILENO : STDOUT_FILENO;
    char *copy = xmalloc(len + 1);

    memcpy(copy, line, len);
    if (kind == LINE_ACCESS)
        scrub(copy, len);
    copy[len] = '\n';
    if (log_write_all(fd, copy, len + 1, DIRECT_WAIT_MS) != 0)
        count_dropped(kind);
    free(copy);
}

static void put_in_sink(enum line_kind kind, const char *line, size_t len)
{
    char *room = log_sink_room(sinks[kind], len + 1, 0);

    if (room == NULL)
        return;
    memcpy(room, line, len);
    room[len] = '\n';
    log_sink_commit(sinks[kind], len + 1);
}

static void submit(enum line_kind kind, const char *line, size_t len)
{
    if (on_log_thread)
        put_in_sink(kind, line, len);
    else if (atomic_load_explicit(&running, memory_order_acquire))
        push_line(kind, line, len);
    else
        write_directly(kind, line, len);
}

void log_access(const char *line, size_t len)
{
    submit(LINE_ACCESS, line, len < LOG_ACCESS_MAX ? len : LOG_ACCESS_MAX);
}

/* ---- One operations line ---- */

struct event {
    int64_t wall_us;
    enum log_level level;
    const char *component;
    const char *id;
    const char *msg;
};

/* The length of s up to max, not in the middle of a UTF-8 sequence. */
static size_t cut_length(const char *s, size_t max, bool *cut)
{
    size_t len = strnlen(s, max + 1);

    if (len <= max)
        return len;
    *cut = true;
    for (len = max; len > max - 3 && ((unsigned char)s[len] & 0xc0) == 0x80;)
        len--;
    return len;
}

static void format_json(struct strbuf *sb, const struct event *e, va_list fields)
{
    struct json j = { .sb = sb };
    char time[CLOCK_RFC3339_SIZE];
    const char *key;
    bool cut = false;

    clock_rfc3339(e->wall_us, time);
    json_open(&j, NULL, '{');
    json_str(&j, "time", time);
    json_str(&j, "level", level_name(e->level));
    json_str(&j, "severity", level_name(e->level));
    json_str(&j, "component", e->component);
    json_str(&j, "event", e->id);
    json_strn(&j, "msg", e->msg, cut_length(e->msg, OPS_MSG_MAX, &cut));
    while ((key = va_arg(fields, const char *)) != NULL) {
        const char *value = va_arg(fields, const char *);
        size_t before = sb->len;
        if (value == NULL)
            json_null(&j, key);
        else
            json_strn(&j, key, value, cut_length(value, OPS_VALUE_MAX, &cut));
        if (!strbuf_ok(sb) || sb->len > OPS_LINE_MAX - 32) {
            strbuf_truncate(sb, before);
            cut = true;
            break;
        }
    }
    if (cut)
        json_bool(&j, "truncated", true);
    json_close(&j);
}

/*
 * Foreign text for a terminal: control characters (C1 too, which terminals obey) and what
 * is not UTF-8 become visible, so that no peer can start a line or an escape sequence.
 */
static void add_visible(struct strbuf *sb, const char *s, size_t len, bool quoted)
{
    for (size_t i = 0, n; i < len; i += n) {
        unsigned char c = (unsigned char)s[i];
        bool valid;
        n = utf8_sequence(s + i, len - i, &valid);
        if (quoted && (c == '"' || c == '\\'))
            strbuf_addf(sb, "\\%c", c);
        else if (c == '\n')
            strbuf_adds(sb, "\\n");
        else if (c == '\r')
            strbuf_adds(sb, "\\r");
        else if (c == '\t')
            strbuf_adds(sb, "\\t");
        else if (!valid || c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)s[i + 1] < 0xa0))
            for (size_t k = 0; k < n; k++)
                strbuf_addf(sb, "\\x%02x", (unsigned char)s[i + k]);
        else
            strbuf_add(sb, s + i, n);
    }
}

static bool needs_quotes(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '=' || c == '\\')
            return true;
    }
    return len == 0;
}

static void add_pair(struct strbuf *sb, const char *key, const char *value, bool *cut)
{
    size_t len = value == NULL ? 0 : cut_length(value, OPS_VALUE_MAX, cut);

    strbuf_addf(sb, " %s=", key);
    if (!needs_quotes(value, len)) {
        strbuf_add(sb, value, len);
        return;
    }
    strbuf_addc(sb, '"');
    add_visible(sb, value, len, true);
    strbuf_addc(sb, '"');
}

static void format_text(struct strbuf *sb, const struct event *e, va_list fields)
{
    char time[CLOCK_RFC3339_SIZE];
    const char *key;
    bool cut = false;
    bool first = true;

    clock_rfc3339(e->wall_us, time);
    strbuf_addf(sb, "%.23sZ %-5s %-5s ", time, level_name(e->level), e->component);
    add_visible(sb, e->msg, cut_length(e->msg, OPS_MSG_MAX, &cut), false);
    while ((key = va_arg(fields, const char *)) != NULL) {
        const char *value = va_arg(fields, const char *);
        size_t before = sb->len;
        if (first)
            strbuf_addc(sb, ' ');
        first = false;
        add_pair(sb, key, value, &cut);
        if (!strbuf_ok(sb) || sb->len > OPS_LINE_MAX - 32) {
            strbuf_truncate(sb, before);
            cut = true;
            break;
        }
    }
    if (cut)
        strbuf_adds(sb, " truncated=true");
}

void log_event(enum log_level level, const char *component, const char *event, const char *msg, ...)
{
    if (!log_enabled(level))
        return;

    int saved_errno = errno; /* callers log between a failure and its strerror() */
    struct strbuf sb = { .max = OPS_LINE_MAX };
    const struct event e = { clock_wall_us(), level, component, event, msg };
    va_list fields;

    va_start(fields, msg);
    if (format_of(LINE_OPS) == LOG_FORMAT_JSON)
        format_json(&sb, &e, fields);
    else
        format_text(&sb, &e, fields);
    va_end(fields);
    submit(LINE_OPS, strbuf_str(&sb), sb.len);
    strbuf_free(&sb);
    errno = saved_errno;
}

/* ---- The log thread ---- */

/* False: it was empty. */
static bool drain_ring(struct log_ring *r, int64_t wait_until_ms)
{
    unsigned kind;
    size_t len;
    size_t moved = 0;

    /* At most what the ring holds, so that a busy producer cannot keep us from the others. */
    while (moved < LOG_RING_BYTES && log_ring_peek(r, &kind, &len)) {
        char *room = log_sink_room(sinks[kind], len, wait_until_ms);
        log_ring_take(r, room);
        moved += len;
        if (room == NULL)
            continue;
        if (kind == LINE_ACCESS)
            scrub(room, len - 1);
        log_sink_commit(sinks[kind], len);
    }
    return moved > 0;
}

static bool drain_all(void)
{
    int64_t wait_until_ms = clock_mono_ms() + SINK_PATIENCE_MS;
    bool moved = false;

    for (size_t i = 0; i < LOG_SLOTS; i++) {
        struct log_ring *r = atomic_load(&slots[i].ring);
        if (r != NULL && drain_ring(r, wait_until_ms))
            moved = true;
    }
    return moved;
}

static bool any_ring_holds_lines(void)
{
    for (size_t i = 0; i < LOG_SLOTS; i++) {
        struct log_ring *r = atomic_load(&slots[i].ring);
        unsigned kind;
        size_t len;
        if (r != NULL && log_ring_peek(r, &kind, &len))
            return true;
    }
    return false;
}

/* O_NONBLOCK: a FIFO without a reader is an error to report, not a place to hang. */
static int open_access_file(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
}

static void reopen_if_asked(void)
{
    if (!atomic_exchange(&reopen_asked, false) || access_file == NULL)
        return;

    int fd = open_access_file(access_file);
    if (fd < 0) {
        log_event(LOG_ERROR, "log", "log.reopen_failed",
                  "the access log cannot be opened again; the old file stays in use", "path",
                  access_file, "error", strerror(errno), NULL);
        return;
    }
    struct log_sink *s = sinks[LINE_ACCESS];
    int old = log_sink_fd(s);
    log_sink_flush(s);
    log_sink_set_fd(s, fd);
    close(old);
}

/* How long until report_drops() has something to say; -1: no need. */
static int drop_report_due_ms(void)
{
    if (log_dropped_ops() == reported[LINE_OPS] && log_dropped_access() == reported[LINE_ACCESS])
        return -1;
    if (log_sink_pending(sinks[LINE_OPS]) > LOG_SINK_BYTES / 2)
        return -1; /* the report would be lost too; asked again once these lines are out */
    int64_t left = next_drop_report_ms - clock_mono_ms();
    return left > 0 ? (int)left : 0;
}

static void report_drops(void)
{
    if (drop_report_due_ms() != 0)
        return;

    uint64_t ops = log_dropped_ops();
    uint64_t access = log_dropped_access();
    char ops_text[24];
    char access_text[24];
    snprintf(ops_text, sizeof(ops_text), "%llu", (unsigned long long)(ops - reported[LINE_OPS]));
    snprintf(access_text, sizeof(access_text), "%llu",
             (unsigned long long)(access - reported[LINE_ACCESS]));
    log_event(LOG_WARNING, "log", "log.dropped",
              "log lines were lost: their reader or disk is too slow, full or gone", "ops",
              ops_text, "access", access_text, NULL);
    reported[LINE_OPS] = ops;
    reported[LINE_ACCESS] = access;
    next_drop_report_ms = clock_mono_ms() + DROP_REPORT_MS;
}

static int shorter(int a_ms, int b_ms)
{
    if (a_ms < 0 || b_ms < 0)
        return a_ms < 0 ? b_ms : a_ms;
    return a_ms < b_ms ? a_ms : b_ms;
}

/*
 * After a round that moved lines we look again soon without being told, so a busy worker
 * pays for no wake-up.  Only after an empty round do we ask for one, and then look once
 * more: see log_ring_push() for why no line is missed.
 */
static void wait_for_work(bool moved)
{
    struct pollfd fds[1 + LINE_KINDS] = { { .fd = wake_fd, .events = POLLIN } };
    nfds_t count = 1;
    int timeout_ms = moved ? BUSY_POLL_MS : drop_report_due_ms();

    for (int kind = 0; kind < LINE_KINDS; kind++) {
        if (log_sink_pending(sinks[kind]) == 0)
            continue;
        if (log_sink_can_poll(sinks[kind]))
            fds[count++] = (struct pollfd){ .fd = log_sink_fd(sinks[kind]), .events = POLLOUT };
        else
            timeout_ms = shorter(timeout_ms, BUSY_POLL_MS);
    }
    if (!moved) {
        atomic_store(&asleep, true);
        if (any_ring_holds_lines())
            timeout_ms = 0;
        if (atomic_load(&stopping))
            timeout_ms = shorter(timeout_ms, BUSY_POLL_MS);
    }
    poll(fds, count, timeout_ms);
    atomic_store(&asleep, false);

    uint64_t wakes;
    ssize_t n = read(wake_fd, &wakes, sizeof(wakes));
    (void)n; /* EAGAIN: nobody called */
}

static bool finished(bool moved)
{
    if (!atomic_load(&stopping))
        return false;
    if (clock_mono_ms() >= atomic_load(&stop_by_ms))
        return true;
    return !moved && log_sink_pending(sinks[LINE_OPS]) == 0 &&
           log_sink_pending(sinks[LINE_ACCESS]) == 0;
}

static void *log_main(void *arg)
{
    bool moved;

    (void)arg;
    on_log_thread = true;
    pthread_setname_np(pthread_self(), "log");
    for (;;) {
        reopen_if_asked();
        moved = drain_all();
        report_drops();
        for (int kind = 0; kind < LINE_KINDS; kind++)
            log_sink_flush(sinks[kind]);
        if (finished(moved))
            break;
        wait_for_work(moved);
    }
    uint64_t one = 1;
    ssize_t n = write(done_fd, &one, sizeof(one));
    (void)n; /* cannot fail: nobody else writes it */
    return NULL;
}

/* ---- Start and stop ---- */

static int open_access(const char *path, int *fd)
{
    access_file = NULL;
    if (path == NULL || strcmp(path, "stdout") == 0) {
        *fd = STDOUT_FILENO;
        return 0;
    }
    if (strcmp(path, "stderr") == 0) {
        *fd = STDERR_FILENO;
        return 0;
    }
    *fd = open_access_file(path);
    if (*fd < 0)
        return -1;
    access_file = xstrdup(path);
    return 0;
}

static int open_eventfds(void)
{
    if (wake_fd < 0)
        wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (done_fd < 0)
        done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return wake_fd < 0 || done_fd < 0 ? -1 : 0;
}

static void close_sinks(void)
{
    int fd = log_sink_fd(sinks[LINE_ACCESS]);

    for (int kind = 0; kind < LINE_KINDS; kind++) {
        log_sink_free(sinks[kind]);
        sinks[kind] = NULL;
    }
    if (access_file != NULL)
        close(fd);
    free(access_file);
    access_file = NULL;
}

int log_start(enum log_format format, enum log_level level, const char *access_path)
{
    int access_fd;

    if (atomic_load(&running) || thread_stuck) {
        errno = EBUSY;
        return -1;
    }
    if (open_eventfds() != 0 || open_access(access_path, &access_fd) != 0)
        return -1;

    sinks[LINE_OPS] = log_sink_new(STDERR_FILENO, &dropped[LINE_OPS]);
    sinks[LINE_ACCESS] = log_sink_new(access_fd, &dropped[LINE_ACCESS]);
    atomic_store(&formats[LINE_OPS], (int)resolve_format(format, STDERR_FILENO));
    atomic_store(&formats[LINE_ACCESS], (int)resolve_format(format, access_fd));
    log_set_level(level);
    atomic_store(&stopping, false);
    atomic_store(&reopen_asked, false);
    reported[LINE_OPS] = log_dropped_ops();
    reported[LINE_ACCESS] = log_dropped_access();
    next_drop_report_ms = 0;

    int error = thread_start(&log_thread, log_main, NULL);
    if (error != 0) {
        close_sinks();
        errno = error;
        return -1;
    }
    slot_ring(0); /* here, so that the threads that share it need not */
    atomic_store(&running, true);
    return 0;
}

void log_reopen(void)
{
    int saved_errno = errno; /* may be called from a signal handler */

    atomic_store(&reopen_asked, true);
    if (atomic_load(&running))
        wake_log_thread();
    errno = saved_errno;
}

void log_stop_within(int limit_ms)
{
    struct pollfd done = { .fd = done_fd, .events = POLLIN };
    uint64_t ignored;

    if (!atomic_exchange(&running, false))
        return;
    atomic_store(&stop_by_ms, clock_mono_ms() + limit_ms);
    atomic_store(&stopping, true);
    wake_log_thread();

    int64_t give_up_ms = clock_mono_ms() + limit_ms + STOP_GRACE_MS;
    int64_t left_ms = limit_ms + STOP_GRACE_MS;
    while (left_ms > 0 && poll(&done, 1, (int)left_ms) < 0 && errno == EINTR)
        left_ms = give_up_ms - clock_mono_ms();

    if (read(done_fd, &ignored, sizeof(ignored)) != (ssize_t)sizeof(ignored)) {
        /* Stuck in a write() to a dead disk.  What it uses stays; the process can end. */
        thread_stuck = true;
        pthread_detach(log_thread);
        return;
    }
    pthread_join(log_thread, NULL);
    close_sinks();
}

void log_stop(void)
{
    log_stop_within(STOP_LIMIT_MS);
}
