/* The project id, the keys and the base URL, from their own variables and files. */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include "config/value.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECRET_MAX    4096
#define INGEST_DIGITS 64

/* Where a value was found.  Nothing of it but its name may be shown. */
struct found {
    const char *source; /* variable or option; NULL: nowhere */
    struct place_of at;
    char *value; /* NULL: it could not be had, which has been reported */
};

static const char *lookup(char **envp, const char *name)
{
    size_t len = strlen(name);

    for (; envp && *envp; envp++)
        if (strncmp(*envp, name, len) == 0 && (*envp)[len] == '=' && (*envp)[len + 1])
            return *envp + len + 1;
    return NULL;
}

void watch_file(struct loader *l, const char *path, const struct stat *st)
{
    struct loaded *c = l->loaded;

    if (BUG(c->watched_count == WATCHED_MAX))
        return;
    c->watched[c->watched_count++] = (struct watched_file){ .path = path,
                                                            .dev = st->st_dev,
                                                            .ino = st->st_ino,
                                                            .size = st->st_size,
                                                            .mtime = st->st_mtim };
}

/* One line ending at the end is the editor's; any other is a mistake. */
static const char *trim_line(char *data, size_t *len)
{
    if (*len > 0 && data[*len - 1] == '\n')
        --*len;
    if (*len > 0 && data[*len - 1] == '\r')
        --*len;
    if (memchr(data, '\n', *len) || memchr(data, '\r', *len))
        return "holds more than one line";
    if (memchr(data, 0, *len))
        return "holds a NUL byte";
    return *len ? NULL : "is empty";
}

static char *read_open_file(struct loader *l, int fd, const char *path, const char **problem)
{
    char data[SECRET_MAX + 1];
    struct stat st;
    size_t len = 0;
    ssize_t n = 0;
    char *value = NULL;

    if (fstat(fd, &st)) {
        *problem = strerror(errno);
        return NULL;
    }
    if (!S_ISREG(st.st_mode)) {
        *problem = "is not a regular file";
        return NULL;
    }
    while (len < sizeof(data) && (n = read(fd, data + len, sizeof(data) - len)) > 0)
        len += (size_t)n;
    *problem = n < 0 ? strerror(errno) : len > SECRET_MAX ? "is too large" : trim_line(data, &len);
    if (!*problem) {
        value = arena_strndup(l->arena, data, len);
        watch_file(l, path, &st);
    }
    explicit_bzero(data, sizeof(data));
    return value;
}

static char *read_secret_file(struct loader *l, const char *path, struct place_of at)
{
    const char *problem = NULL;
    struct stat st;
    char *value = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0)
        problem = strerror(errno);
    else
        value = read_open_file(l, fd, path, &problem);
    if (fd >= 0 && value && fstat(fd, &st) == 0 && st.st_mode & 037)
        report_warning(&l->report, at, "%s can be read by others; chmod 0640 or less", path);
    if (fd >= 0)
        close(fd);
    if (!value)
        report_error(&l->report, at, "%s: %s", path, problem);
    return value;
}

static char *read_plain(struct loader *l, const char *plain, struct place_of at)
{
    char *value = arena_strdup(l->arena, plain);
    size_t len = strlen(value);
    const char *problem = trim_line(value, &len);

    value[len] = 0;
    if (!problem)
        return value;
    report_error(&l->report, at, "the value %s", problem);
    return NULL;
}

/* Looks at NAME and NAME_FILE.  Both, or a second name with another value: an error. */
static void find_variable(struct loader *l, char **envp, const char *name, struct found *f)
{
    const char *file_name = arena_printf(l->arena, "%s_FILE", name);
    const char *plain = lookup(envp, name), *path = lookup(envp, file_name);

    if (plain && path) {
        struct place_of both = { .name = name };
        report_error(&l->report, both, "%s is set as well; keep one of them", file_name);
        *f = (struct found){ .source = name, .at = both };
        return;
    }
    const char *source = plain ? name : path ? file_name : NULL;
    if (!source)
        return;
    struct place_of at = { .name = source };
    char *value =
        plain ? read_plain(l, plain, at) : read_secret_file(l, arena_strdup(l->arena, path), at);
    if (f->source && (!f->value || !value || strcmp(f->value, value) != 0)) {
        report_error(&l->report, at, "%s is set as well; keep one of them", f->source);
        return;
    }
    *f = (struct found){ arena_strdup(l->arena, source), at, value };
}

/* A secret may also be in a file that an option names; a flag beats a variable. */
static void find_in_option(struct loader *l, const char *option, const char *path, struct found *f)
{
    struct origin *origin = origin_of(l, option);

    if (!path || (f->source && origin->layer < LAYER_ENV))
        return;
    if (f->source && origin->layer == LAYER_ENV) {
        report_error(&l->report, origin->at, "%s is set as well; keep one of them", f->source);
        return;
    }
    *f = (struct found){ option, origin->at, read_secret_file(l, path, origin->at) };
}

static bool is_visible_ascii(const char *s)
{
    for (; *s; s++)
        if (*s <= 0x20 || *s > 0x7e)
            return false;
    return true;
}

static void set_api_key(struct loader *l, char **envp)
{
    struct found f = { 0 };

    find_variable(l, envp, "TRIPSWITCH_API_KEY", &f);
    find_variable(l, envp, "TRIPSWITCH_PROJECT_KEY", &f);
    find_in_option(l, "api_key_file", l->loaded->api_key_file, &f);
    if (f.value && !is_visible_ascii(f.value))
        report_error(&l->report, f.at,
                     "the key has a space or a character other than visible ASCII");
    else if (f.value && strncmp(f.value, "eb_admin_", 9) == 0)
        report_warning(&l->report, f.at,
                       "this is an admin key; the proxy needs the project key only, eb_pk_...");
    l->loaded->config.api_key = f.value;
}

static void set_ingest_secret(struct loader *l, char **envp)
{
    struct found f = { 0 };

    find_variable(l, envp, "TRIPSWITCH_INGEST_SECRET", &f);
    find_in_option(l, "ingest_secret_file", l->loaded->ingest_secret_file, &f);
    if (f.value && (strlen(f.value) != INGEST_DIGITS ||
                    strspn(f.value, "0123456789abcdefABCDEF") != INGEST_DIGITS))
        report_error(&l->report, f.at, "the secret is not 64 hexadecimal digits");
    l->loaded->config.ingest_secret = f.value;
}

/* control.project_id under its other name, which like any variable beats the file and is
 * beaten by a flag. */
static void set_project_id(struct loader *l, char **envp)
{
    struct origin *origin = origin_of(l, "control.project_id");
    struct config *cfg = &l->loaded->config;
    struct found f = { 0 };

    find_variable(l, envp, "TRIPSWITCH_PROJECT_ID", &f);
    if (!f.value || origin->layer == LAYER_FLAG)
        return;
    if (origin->layer == LAYER_ENV && cfg->control.project_id &&
        strcmp(cfg->control.project_id, f.value) != 0)
        report_error(&l->report, origin->at, "%s names another project; keep one of them",
                     f.source);
    else
        apply_text(l, &global_options, option_find(&global_options, "control.project_id"),
                   l->loaded, f.value, f.at, false);
}

/* control.url under its other name. */
static void set_base_url(struct loader *l, char **envp)
{
    struct origin *origin = origin_of(l, "control.url");
    struct origin before = *origin;
    struct config *cfg = &l->loaded->config;
    const char *url = cfg->control.url;
    struct found f = { 0 };

    find_variable(l, envp, "TRIPSWITCH_BASE_URL", &f);
    if (!f.value)
        return;
    if (apply_text(l, &global_options, option_find(&global_options, "control.url"), l->loaded,
                   f.value, f.at, false))
        return;
    if (url && strcmp(url, cfg->control.url) != 0) {
        report_error(&l->report, before.at, "%s is set to another value; keep one of them",
                     f.source);
        origin->bad = true;
    }
}

void secrets_apply(struct loader *l, char **envp)
{
    l->layer = LAYER_ENV;
    set_api_key(l, envp);
    set_ingest_secret(l, envp);
    set_project_id(l, envp);
    set_base_url(l, envp);
}

bool config_secrets_changed(const struct config *cfg)
{
    const struct loaded *c = (const struct loaded *)(const void *)cfg;
    struct stat st;

    for (size_t i = 0; i < c->watched_count; i++) {
        const struct watched_file *w = &c->watched[i];
        if (stat(w->path, &st) || st.st_dev != w->dev || st.st_ino != w->ino ||
            st.st_size != w->size || st.st_mtim.tv_sec != w->mtime.tv_sec ||
            st.st_mtim.tv_nsec != w->mtime.tv_nsec)
            return true;
    }
    return false;
}
