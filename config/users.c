/*
 * access.auth_file: who may use the explicit listeners.
 *
 * Lines of name:hex, where hex is the SHA-256 of a token; empty lines and those that begin
 * with # are passed over.  A plain hash is enough because the tokens are random: nobody
 * guesses 128 bits, whatever one guess costs, so that salt and slowness buy nothing.  Two
 * lines may name the same client while its token is being changed.
 */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define USERS_MAX      256
#define USERS_FILE_MAX 65536
#define NAME_MAX_BYTES 64
#define DIGEST_BYTES   32

/* What an unset variable hashes to. */
static const uint8_t of_nothing[DIGEST_BYTES] = {
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
};

/* -- one line ------------------------------------------------------------------------ */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool read_digest(const char *hex, size_t len, uint8_t out[DIGEST_BYTES])
{
    if (len != 2 * (size_t)DIGEST_BYTES)
        return false;
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* What is wrong with the line, without any of it, or NULL. */
static const char *read_user(struct loader *l, const char *line, size_t len, struct proxy_user *u)
{
    const char *colon = memchr(line, ':', len);
    size_t name_len = colon ? (size_t)(colon - line) : 0;

    if (!colon || !read_digest(colon + 1, len - name_len - 1, u->token_sha256))
        return "is not name:SHA-256, the latter in 64 hexadecimal digits";
    if (!name_len || name_len > NAME_MAX_BYTES)
        return "has a name that is not of 1 to 64 characters";
    for (size_t i = 0; i < name_len; i++)
        if (line[i] <= 0x20 || line[i] > 0x7e)
            return "has a name with a space or a character other than visible ASCII";
    if (memcmp(u->token_sha256, of_nothing, DIGEST_BYTES) == 0)
        return "has the SHA-256 of nothing; the token was empty when it was made";
    u->name = arena_strndup(l->arena, line, name_len);
    return NULL;
}

/* -- the file ------------------------------------------------------------------------ */

static void read_lines(struct loader *l, const char *path, const struct strbuf *data,
                       struct place_of at)
{
    struct config *cfg = &l->loaded->config;
    const char *p = strbuf_str(data), *end = p + data->len;

    cfg->access.users = arena_alloc(l->arena, USERS_MAX * sizeof(struct proxy_user));
    for (unsigned number = 1; p < end; number++) {
        const char *lf = memchr(p, '\n', (size_t)(end - p));
        const char *next = lf ? lf + 1 : end;
        size_t len = (size_t)((lf ? lf : end) - p);
        if (len > 0 && p[len - 1] == '\r')
            len--;
        const char *line = p;
        p = next;
        if (len == 0 || *line == '#')
            continue;
        if (cfg->access.user_count == USERS_MAX) {
            report_error(&l->report, at, "%s: has more than %d lines", path, USERS_MAX);
            return;
        }
        const char *problem = read_user(l, line, len, &cfg->access.users[cfg->access.user_count++]);
        if (problem)
            report_error(&l->report, at, "%s: line %u %s", path, number, problem);
    }
    if (!cfg->access.user_count)
        report_error(&l->report, at, "%s: names nobody, so nobody could use the proxy", path);
}

/* What is wrong, or NULL. */
static const char *read_users_file(int fd, struct strbuf *data, struct stat *st)
{
    char chunk[4096];
    ssize_t n = 0;

    if (fd < 0 || fstat(fd, st))
        return strerror(errno);
    if (!S_ISREG(st->st_mode))
        return "is not a regular file";
    while (data->len <= USERS_FILE_MAX && (n = read(fd, chunk, sizeof(chunk))) > 0)
        strbuf_add(data, chunk, (size_t)n);
    if (n < 0)
        return strerror(errno);
    return data->len > USERS_FILE_MAX ? "is larger than 64 KiB" : NULL;
}

void users_apply(struct loader *l)
{
    const char *path = l->loaded->config.access.auth_file;
    struct place_of at = origin_of(l, "access.auth_file")->at;
    struct strbuf data = STRBUF_INIT;
    struct stat st = { 0 };

    if (!path)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    const char *problem = read_users_file(fd, &data, &st);
    if (problem) {
        report_error(&l->report, at, "%s: %s", path, problem);
    } else {
        watch_file(l, path, &st);
        if (st.st_mode & 022)
            report_warning(&l->report, at, "%s can be changed by others; chmod 0644 or less", path);
        read_lines(l, path, &data, at);
    }
    if (fd >= 0)
        close(fd);
    strbuf_free(&data);
}
