/* The one part of this room that reads a clock: a pipe may keep us waiting. */
#include "base/base.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "config/text.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Waits until a pipe has more, or its last writer is gone.  -1: errno says why. */
static int wait_readable(int fd, int64_t deadline_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    int64_t left_ms = deadline_ms - clock_mono_ms();
    int n = left_ms > 0 ? poll(&p, 1, (int)left_ms) : 0;

    if (n == 0)
        errno = ETIMEDOUT;
    return n > 0 || (n < 0 && errno == EINTR) ? 0 : -1;
}

/* Reads until there is more than TEXT_MAX_BYTES.  -1: errno says why. */
static int read_all(int fd, struct strbuf *data)
{
    int64_t deadline_ms = clock_mono_ms() + TEXT_PIPE_MS;
    char chunk[16384];

    while (data->len <= TEXT_MAX_BYTES) {
        ssize_t n = read(fd, chunk, sizeof(chunk));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && wait_readable(fd, deadline_ms) == 0)
            continue;
        if (n <= 0)
            return (int)n;
        strbuf_add(data, chunk, (size_t)n);
    }
    return 0;
}

/* Why what was read is not the text of a file, or NULL. */
static const char *read_problem(int fd, struct strbuf *data)
{
    struct stat st;

    if (fstat(fd, &st))
        return strerror(errno);
    bool pipe = S_ISFIFO(st.st_mode);
    if (read_all(fd, data))
        return errno == ETIMEDOUT ? "not read to its end within 2 s; name a regular file"
                                  : strerror(errno);
    if (pipe && !data->len)
        return "a pipe that nobody writes to, or that was read before; name a regular file";
    return data->len > TEXT_MAX_BYTES ? "larger than 8 MiB" : NULL;
}

int text_read(const char *path, struct text **out, struct strbuf *errors)
{
    struct strbuf data = STRBUF_INIT;
    int result = -1;
    /* Opening a pipe would wait for its writer, and a reload must not stop the main thread. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    *out = NULL;
    if (fd < 0) {
        strbuf_addf(errors, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    const char *problem = read_problem(fd, &data);
    if (problem)
        strbuf_addf(errors, "%s: %s\n", path, problem);
    else
        result = text_parse(path, strbuf_str(&data), data.len, out, errors);
    strbuf_free(&data);
    close(fd);
    return result;
}
