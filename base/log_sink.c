#include "base/log_sink.h"

#include "base/base.h"
#include "base/clock.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct log_sink {
    int fd; /* borrowed */
    bool is_file;
    bool mid_line; /* the last byte written was not a newline */
    bool torn;     /* the rest of that line is lost: the next one needs a newline first */
    bool stalled;  /* waited in vain, and nothing was taken since */
    bool refused;  /* EAGAIN although poll() said writable */
    size_t start;  /* pending: bytes[start] up to bytes[end] */
    size_t end;
    _Atomic uint64_t *dropped; /* borrowed */
    char *bytes;               /* LOG_SINK_BYTES */
};

void log_sink_set_fd(struct log_sink *s, int fd)
{
    struct stat st;

    s->fd = fd;
    s->is_file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    s->mid_line = false;
    s->torn = false;
    s->stalled = false;
    s->refused = false;
}

struct log_sink *log_sink_new(int fd, _Atomic uint64_t *dropped)
{
    struct log_sink *s = xcalloc(1, sizeof(*s));

    s->bytes = xcalloc(1, LOG_SINK_BYTES); /* large enough to come as untouched pages */
    s->dropped = dropped;
    log_sink_set_fd(s, fd);
    return s;
}

static void drop_pending(struct log_sink *s)
{
    uint64_t lines = 0;

    for (size_t i = s->start; i < s->end; i++)
        lines += s->bytes[i] == '\n';
    atomic_fetch_add_explicit(s->dropped, lines, memory_order_relaxed);
    s->start = s->end = 0;
    s->torn = s->torn || s->mid_line;
    s->mid_line = false;
}

void log_sink_free(struct log_sink *s)
{
    if (s == NULL)
        return;
    drop_pending(s);
    free(s->bytes);
    free(s);
}

int log_sink_fd(const struct log_sink *s)
{
    return s->fd;
}

size_t log_sink_pending(const struct log_sink *s)
{
    return s->end - s->start;
}

bool log_sink_can_poll(const struct log_sink *s)
{
    return !s->refused;
}

/*
 * How much to write at once.  A pipe that poll() calls writable takes PIPE_BUF bytes
 * without blocking, and takes them in one piece, so whole lines of up to that length do
 * not mix with those of another writer.
 */
static size_t piece_size(const struct log_sink *s)
{
    const char *p = s->bytes + s->start;
    size_t len = log_sink_pending(s);

    if (s->is_file || len <= PIPE_BUF)
        return len;
    const char *newline = memrchr(p, '\n', PIPE_BUF);
    return newline != NULL ? (size_t)(newline - p) + 1 : PIPE_BUF;
}

static bool wait_writable(int fd, int timeout_ms)
{
    struct pollfd pfd = { .fd = fd, .events = POLLOUT };

    return poll(&pfd, 1, timeout_ms) > 0; /* an error counts: write() will name it */
}

/* False: stop for now, either not writable or everything pending is lost. */
static bool write_piece(struct log_sink *s, const char *p, size_t len, size_t *written)
{
    ssize_t n;

    *written = 0;
    do
        n = write(s->fd, p, len);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        *written = (size_t)n;
        s->stalled = false;
        return true;
    }
    if (n == 0 || errno == EAGAIN || errno == EWOULDBLOCK)
        s->refused = true;
    else
        drop_pending(s);
    return false;
}

void log_sink_flush(struct log_sink *s)
{
    size_t n;

    s->refused = false;
    while (log_sink_pending(s) > 0 && wait_writable(s->fd, 0)) {
        if (s->torn) {
            if (!write_piece(s, "\n", 1, &n))
                return;
            s->torn = false;
        }
        if (!write_piece(s, s->bytes + s->start, piece_size(s), &n))
            return;
        s->start += n;
        s->mid_line = s->bytes[s->start - 1] != '\n';
    }
    if (s->start == s->end)
        s->start = s->end = 0; /* keep to the pages already touched */
}

static char *room_now(struct log_sink *s, size_t len)
{
    if (LOG_SINK_BYTES - s->end < len && LOG_SINK_BYTES - log_sink_pending(s) >= len) {
        memmove(s->bytes, s->bytes + s->start, log_sink_pending(s));
        s->end -= s->start;
        s->start = 0;
    }
    return LOG_SINK_BYTES - s->end < len ? NULL : s->bytes + s->end;
}

char *log_sink_room(struct log_sink *s, size_t len, int64_t wait_until_ms)
{
    for (;;) {
        char *room = room_now(s, len);
        if (room == NULL) {
            log_sink_flush(s);
            room = room_now(s, len);
        }
        if (room != NULL)
            return room;

        int64_t patience_ms = wait_until_ms > 0 ? wait_until_ms - clock_mono_ms() : 0;
        if (s->stalled || s->refused || patience_ms <= 0)
            break;
        s->stalled = !wait_writable(s->fd, (int)patience_ms);
    }
    atomic_fetch_add_explicit(s->dropped, 1, memory_order_relaxed);
    return NULL;
}

void log_sink_commit(struct log_sink *s, size_t len)
{
    s->end += len;
}

int log_write_all(int fd, const char *data, size_t len, int limit_ms)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n > 0) {
            data += n;
            len -= (size_t)n;
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
            return -1;
        if (!wait_writable(fd, limit_ms)) {
            errno = ETIMEDOUT;
            return -1;
        }
    }
    return 0;
}
