#include "proxy/net_tool.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXTRA_PATH "/usr/sbin:/sbin"
#define OUT_MAX    ((size_t)64 * 1024 * 1024) /* a large node's nat table has some megabytes */
#define SAID_MAX   ((size_t)2048)

enum { IN, OUT, ERR, PIPES };

struct tool {
    const char *name;
    pid_t pid;
    int fds[PIPES]; /* our ends; -1: closed */
    const char *input;
    size_t input_left;
    struct strbuf *out;
    struct strbuf said; /* owned: standard error */
    bool too_slow;
};

/* ---- Finding and starting ---- */

static bool is_program(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static int find(const char *name, struct strbuf *path)
{
    struct strbuf dirs = STRBUF_INIT;
    const char *env = getenv("PATH");
    strbuf_addf(&dirs, "%s:" EXTRA_PATH, env ? env : "");
    char *copy = strbuf_take(&dirs), *rest = copy, *dir;
    bool found = false;
    while (!found && (dir = strsep(&rest, ":")) != NULL) {
        if (*dir != '/') /* never from where we happen to stand */
            continue;
        strbuf_clear(path);
        strbuf_addf(path, "%s/%s", dir, name);
        found = is_program(strbuf_str(path));
    }
    free(copy);
    return found ? 0 : -1;
}

bool net_tool_installed(const char *name)
{
    struct strbuf path = STRBUF_INIT;
    bool found = find(name, &path) == 0;
    strbuf_free(&path);
    return found;
}

static int spawn(struct tool *t, const char *path, const char *const argv[], int theirs[PIPES])
{
    static const char *const passed[] = { "PATH", "XTABLES_LOCKFILE", "XTABLES_LIBDIR" };
    char *env[ARRAY_LEN(passed) + 2], lang[] = "LC_ALL=C";
    size_t count = 0;
    env[count++] = lang;
    for (size_t i = 0; i < ARRAY_LEN(passed); i++) {
        const char *value = getenv(passed[i]);
        struct strbuf pair = STRBUF_INIT;
        strbuf_addf(&pair, "%s=%s", passed[i], value ? value : "");
        if (value)
            env[count++] = strbuf_take(&pair);
        strbuf_free(&pair);
    }
    env[count] = NULL;

    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t normal;
    posix_spawn_file_actions_init(&actions);
    for (int i = 0; i < PIPES; i++)
        posix_spawn_file_actions_adddup2(&actions, theirs[i], i);
    posix_spawnattr_init(&attr);
    sigemptyset(&normal);
    sigaddset(&normal, SIGPIPE);
    posix_spawnattr_setsigdefault(&attr, &normal);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF);
    int err = posix_spawn(&t->pid, path, &actions, &attr, (char *const *)argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    for (size_t i = 1; i < count; i++)
        free(env[i]);
    return err;
}

static void close_all(int fds[PIPES])
{
    for (int i = 0; i < PIPES; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

/* 0 or an errno. */
static int start(struct tool *t, const char *path, const char *const argv[])
{
    int theirs[PIPES] = { -1, -1, -1 }, err = 0;
    for (int i = 0; i < PIPES && !err; i++) {
        int pair[2];
        if (pipe2(pair, O_CLOEXEC) < 0) {
            err = errno;
            break;
        }
        theirs[i] = pair[i == IN ? 0 : 1];
        t->fds[i] = pair[i == IN ? 1 : 0];
        fcntl(t->fds[i], F_SETFL, O_NONBLOCK);
    }
    if (!err)
        err = spawn(t, path, argv, theirs);
    close_all(theirs);
    return err;
}

/* ---- Talking ---- */

static void end_pipe(struct tool *t, int which)
{
    close(t->fds[which]);
    t->fds[which] = -1;
}

static void feed(struct tool *t)
{
    ssize_t n = write(t->fds[IN], t->input, t->input_left);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        t->input += n;
        t->input_left -= (size_t)n;
    }
    if (n < 0 || !t->input_left) /* EPIPE: it will say why */
        end_pipe(t, IN);
}

static void take(struct tool *t, int which)
{
    char buf[16384];
    ssize_t n = read(t->fds[which], buf, sizeof(buf));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        end_pipe(t, which);
        return;
    }
    if (which == ERR)
        strbuf_add(&t->said, buf, (size_t)n); /* bounded: the rest is dropped */
    else if (t->out)
        strbuf_add(t->out, buf, (size_t)n);
}

static void talk(struct tool *t)
{
    int64_t deadline_ms = clock_mono_ms() + NET_TOOL_LIMIT_MS;
    if (!t->input_left)
        end_pipe(t, IN);
    while (t->fds[OUT] >= 0 || t->fds[ERR] >= 0) {
        struct pollfd fds[PIPES];
        for (int i = 0; i < PIPES; i++)
            fds[i] = (struct pollfd){ .fd = t->fds[i], .events = i == IN ? POLLOUT : POLLIN };
        int64_t left_ms = deadline_ms - clock_mono_ms();
        if (left_ms <= 0) {
            t->too_slow = true;
            kill(t->pid, SIGKILL);
            break;
        }
        if (poll(fds, PIPES, (int)left_ms) <= 0)
            continue;
        for (int i = 0; i < PIPES; i++) {
            if (t->fds[i] < 0 || !fds[i].revents)
                continue;
            if (i == IN)
                feed(t);
            else
                take(t, i);
        }
    }
}

/* ---- Judging ---- */

/* The lines of standard error that tell something, joined into one. */
static void put_said(const struct tool *t, struct strbuf *why)
{
    char *copy = xstrdup(strbuf_str(&t->said)), *rest = copy, *line;
    const char *gap = "";
    while ((line = strsep(&rest, "\n")) != NULL) {
        line += strspn(line, " \t");
        if (!line[strspn(line, "^~ \t")] || *line == '#')
            continue;
        strbuf_addf(why, "%s%s", gap, line);
        gap = "; ";
    }
    free(copy);
}

static enum net_tool_end judge(const struct tool *t, int status, struct strbuf *why)
{
    if (t->out && !strbuf_ok(t->out)) {
        strbuf_addf(why, "%s: its output is above %zu bytes", t->name, OUT_MAX);
        return NET_TOOL_FAILED;
    }
    if (!t->too_slow && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return NET_TOOL_OK;
    strbuf_addf(why, "%s: ", t->name);
    if (t->too_slow)
        strbuf_addf(why, "still busy after %d s", NET_TOOL_LIMIT_MS / 1000);
    else if (WIFSIGNALED(status))
        strbuf_addf(why, "ended by signal %d", WTERMSIG(status));
    else if (t->said.len)
        put_said(t, why);
    else
        strbuf_addf(why, "exit code %d", WEXITSTATUS(status));
    const char *said = strbuf_str(&t->said);
    bool denied = strstr(said, "not permitted") || strstr(said, "Permission denied");
    return denied ? NET_TOOL_DENIED : NET_TOOL_FAILED;
}

enum net_tool_end net_tool_run(const char *const argv[], const char *input, struct strbuf *out,
                               struct strbuf *why)
{
    struct tool t = { .name = argv[0],
                      .fds = { -1, -1, -1 },
                      .input = input,
                      .input_left = input ? strlen(input) : 0,
                      .out = out,
                      .said = { .max = SAID_MAX } };
    struct strbuf path = STRBUF_INIT;
    if (find(argv[0], &path) < 0) {
        strbuf_addf(why, "%s: not installed", argv[0]);
        strbuf_free(&path);
        return NET_TOOL_ABSENT;
    }
    if (out)
        out->max = OUT_MAX;
    enum net_tool_end end = NET_TOOL_FAILED;
    int err = start(&t, strbuf_str(&path), argv);
    if (err) {
        strbuf_addf(why, "%s: %s", strbuf_str(&path), strerror(err));
    } else {
        int status = 0;
        talk(&t);
        while (waitpid(t.pid, &status, 0) < 0 && errno == EINTR)
            ;
        end = judge(&t, status, why);
    }
    close_all(t.fds);
    strbuf_free(&t.said);
    strbuf_free(&path);
    return end;
}
