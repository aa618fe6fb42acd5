/* access.auth_file: refused without a word of what it holds, or users each of whom a line of
 * the file names, in its order. */
#include "base/strbuf.h"
#include "config/config.h"
#include "tests/fuzz/fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DIGITS          64
#define SECRET_BYTES    12 /* so long a piece of a line is no accident in an error */
#define FILE_BYTES_MAX  65536
#define MEMFD(fd, name) fd = fd < 0 ? memfd_create(name, MFD_CLOEXEC) : fd

static int write_users(const uint8_t *data, size_t len)
{
    static int fd = -1;
    MEMFD(fd, "users");
    CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, len, 0) == (ssize_t)len, "memfd");
    return fd;
}

static int load(int users_fd, struct config **out, struct strbuf *errors)
{
    static int fd = -1;
    char path[32], text[80];
    char *environment[] = { NULL };
    struct strbuf warnings = STRBUF_INIT;
    MEMFD(fd, "config");
    int n =
        snprintf(text, sizeof(text), "{\"access\":{\"auth_file\":\"/proc/self/fd/%d\"}}", users_fd);
    CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)n, 0) == n, "memfd");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct config_source src = { .file = path, .envp = environment };
    int result = config_load(&src, out, errors, &warnings);
    strbuf_free(&warnings);
    return result;
}

/* The next line that is to name a user. */
static bool next_line(struct slice *rest, struct slice *line)
{
    while (rest->len > 0) {
        const char *lf = memchr(rest->p, '\n', rest->len);
        size_t n = lf ? (size_t)(lf - rest->p) : rest->len, skip = lf ? n + 1 : n;
        *line = (struct slice){ rest->p, n > 0 && rest->p[n - 1] == '\r' ? n - 1 : n };
        rest->p += skip;
        rest->len -= skip;
        if (line->len > 0 && *line->p != '#')
            return true;
    }
    return false;
}

static void check_user(const struct proxy_user *u, struct slice line)
{
    char hex[DIGITS + 1];
    size_t name_len = strlen(u->name);
    for (size_t i = 0; i < DIGITS / 2; i++)
        snprintf(hex + 2 * i, 3, "%02x", u->token_sha256[i]);
    CHECK(name_len > 0 && name_len <= 64, "a name of %zu characters", name_len);
    CHECK(line.len == name_len + 1 + DIGITS && line.p[name_len] == ':', "line of %zu bytes",
          line.len);
    CHECK(memcmp(line.p, u->name, name_len) == 0, "another name");
    CHECK(strncasecmp(line.p + name_len + 1, hex, DIGITS) == 0, "another token");
}

static void check_silence(struct slice file, const struct strbuf *errors)
{
    struct slice line;
    while (next_line(&file, &line))
        for (size_t i = 0; i + SECRET_BYTES <= line.len; i += SECRET_BYTES)
            CHECK(!memmem(errors->data, errors->len, line.p + i, SECRET_BYTES), "said aloud: %s",
                  errors->data);
}

void fuzz_auth_file(const uint8_t *data, size_t len)
{
    struct config *cfg = NULL;
    struct strbuf errors = STRBUF_INIT;
    struct slice rest = { (const char *)data, len }, line;
    int result = load(write_users(data, len), &cfg, &errors);

    CHECK((result == 0) == (errors.len == 0), "result %d and \"%s\"", result, strbuf_str(&errors));
    if (result != 0) {
        check_silence(rest, &errors);
    } else {
        CHECK(cfg->access.user_count > 0 && len <= FILE_BYTES_MAX, "%zu users of %zu bytes",
              cfg->access.user_count, len);
        for (size_t i = 0; i < cfg->access.user_count; i++) {
            CHECK(next_line(&rest, &line), "user %zu has no line", i);
            check_user(&cfg->access.users[i], line);
        }
        CHECK(!next_line(&rest, &line), "a line that names nobody");
        config_free(cfg);
    }
    strbuf_free(&errors);
}
