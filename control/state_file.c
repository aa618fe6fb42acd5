#include "control/state_file.h"

#include "base/base.h"
#include "base/strbuf.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_STEP ((size_t)64 << 10)

static char *with_suffix(const char *path, const char *suffix)
{
    struct strbuf sb = STRBUF_INIT;

    strbuf_adds(&sb, path);
    strbuf_adds(&sb, suffix);
    return strbuf_take(&sb);
}

static int fail_with(struct strbuf *why, const char *doing, int err)
{
    strbuf_addf(why, "%s: %s", doing, strerror(err));
    return -1;
}

/* Reading. */

static int read_all(int fd, size_t max, struct strbuf *out, struct strbuf *why)
{
    char *piece = xmalloc(READ_STEP);
    ssize_t n;

    while ((n = read(fd, piece, READ_STEP)) > 0 && out->len <= max)
        strbuf_add(out, piece, (size_t)n);
    free(piece);
    if (n < 0)
        return fail_with(why, "it cannot be read", errno);
    if (out->len <= max)
        return 0;
    strbuf_addf(why, "it is over %zu bytes", max);
    return -1;
}

/* O_NONBLOCK: opening a pipe waits for nobody. */
int state_file_read(const char *path, size_t max, struct strbuf *out, struct strbuf *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    int rc = -1;

    if (fd < 0 && errno == ENOENT)
        return 1;
    if (fd < 0)
        return fail_with(why, "it cannot be opened", errno);
    if (fstat(fd, &st) < 0)
        fail_with(why, "it cannot be read", errno);
    else if (!S_ISREG(st.st_mode))
        strbuf_adds(why, "it is not a regular file");
    else
        rc = read_all(fd, max, out, why);
    close(fd);
    return rc;
}

int state_file_put_aside(const char *path)
{
    struct stat st;
    char *aside;
    int rc;

    if (lstat(path, &st) < 0)
        return -1;
    if (!S_ISREG(st.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    aside = with_suffix(path, ".bad");
    rc = rename(path, aside);
    free(aside);
    return rc;
}

/* Writing. */

static int write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        text += n;
        len -= (size_t)n;
    }
    return fsync(fd);
}

/* What a run that was killed left behind goes first: one name, so that nothing piles up. */
static int write_beside(const char *beside, const char *text, size_t len, struct strbuf *why)
{
    int fd;
    int err = 0;

    unlink(beside);
    fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fail_with(why, "a file beside it cannot be made", errno);
    if (write_all(fd, text, len) < 0)
        err = errno;
    if (close(fd) < 0 && err == 0)
        err = errno;
    if (err == 0)
        return 0;
    unlink(beside);
    return fail_with(why, "a file beside it cannot be written", err);
}

/* The rename is on the disk once its directory is. */
static int sync_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash == NULL   ? xstrdup(".")
                : slash == path ? xstrdup("/")
                                : xstrndup(path, (size_t)(slash - path));
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? -1 : fsync(fd);
    int saved = errno;

    if (fd >= 0)
        close(fd);
    free(dir);
    errno = saved;
    return rc;
}

static int replace(const char *path, const char *beside, struct strbuf *why)
{
    struct stat st;

    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        strbuf_adds(why, "it is not a regular file");
        return -1;
    }
    if (rename(beside, path) < 0)
        return fail_with(why, "it cannot be replaced", errno);
    if (sync_directory(path) < 0)
        return fail_with(why, "its directory cannot be synced", errno);
    return 0;
}

int state_file_write(const char *path, const char *text, size_t len, struct strbuf *why)
{
    char *beside = with_suffix(path, ".new");
    int rc = write_beside(beside, text, len, why);

    if (rc == 0) {
        rc = replace(path, beside, why);
        if (rc < 0)
            unlink(beside);
    }
    free(beside);
    return rc;
}
