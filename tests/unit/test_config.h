/*
 * test_config.h - a configuration from text, flags and variables, for unit tests.
 */
#ifndef TESTS_UNIT_TEST_CONFIG_H
#define TESTS_UNIT_TEST_CONFIG_H
/* cmocka.h wants these before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/config.h"
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct outcome_of_load {
    struct config *cfg;     /* NULL: refused */
    struct strbuf errors;   /* the file is called FILE */
    struct strbuf warnings; /* likewise */
};

static inline void replace_all(struct strbuf *text, const char *what, const char *by)
{
    struct strbuf result = STRBUF_INIT;
    const char *p = strbuf_str(text);

    for (const char *hit; (hit = strstr(p, what)); p = hit + strlen(what)) {
        strbuf_add(&result, p, (size_t)(hit - p));
        strbuf_adds(&result, by);
    }
    strbuf_adds(&result, p);
    strbuf_free(text);
    *text = result;
}

/* json may be NULL: no file.  argv and envp end with NULL, or are NULL. */
static inline struct outcome_of_load load_all(const char *json, size_t len, char **argv,
                                              char **envp)
{
    struct outcome_of_load r = { .errors = STRBUF_INIT, .warnings = STRBUF_INIT };
    struct config_source src = { .argv = argv, .envp = envp };
    char path[64];
    int fd = -1;

    for (; argv && argv[src.argc]; src.argc++)
        ;
    if (json) {
        fd = memfd_create("config", MFD_CLOEXEC);
        assert_true(fd >= 0 && write(fd, json, len) == (ssize_t)len);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        src.file = path;
    }
    int result = config_load(&src, &r.cfg, &r.errors, &r.warnings);
    if (fd >= 0) {
        replace_all(&r.errors, path, "FILE");
        replace_all(&r.warnings, path, "FILE");
        close(fd);
    }
    assert_int_equal(result, r.cfg ? 0 : -1);
    assert_int_equal(result == 0, r.errors.len == 0);
    return r;
}

static inline struct outcome_of_load load_json(const char *json)
{
    return load_all(json, strlen(json), NULL, NULL);
}

static inline struct outcome_of_load load_flags(char **argv)
{
    return load_all(NULL, 0, argv, NULL);
}

static inline struct outcome_of_load load_env(char **envp)
{
    return load_all(NULL, 0, NULL, envp);
}

static inline void load_free(struct outcome_of_load *r)
{
    config_free(r->cfg);
    strbuf_free(&r->errors);
    strbuf_free(&r->warnings);
}

/* errors: NULL if there must be none, else all of them. */
static inline void expect_errors(const char *name, const struct outcome_of_load *r,
                                 const char *errors)
{
    if (strcmp(strbuf_str(&r->errors), errors ? errors : "") != 0)
        fail_msg("%s:\n got: %s\nwant: %s", name, strbuf_str(&r->errors), errors ? errors : "");
}

static inline void expect_warnings(const char *name, const struct outcome_of_load *r,
                                   const char *warnings)
{
    if (strcmp(strbuf_str(&r->warnings), warnings) != 0)
        fail_msg("%s:\n got: %s\nwant: %s", name, strbuf_str(&r->warnings), warnings);
}

#endif
