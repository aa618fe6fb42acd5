/* A whole configuration: refused with errors that name their place, or values that, written
 * and read again, are the same. */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "tests/fuzz/fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Without a key the control plane is the embedded one; a project wants one. */
static char *environments[2][2] = { { NULL }, { "TRIPSWITCH_API_KEY=eb_pk_0123456789abcdef" } };

static int load(const void *data, size_t len, char **environment, struct config **out,
                struct strbuf *errors)
{
    static int fd = -1;
    static char path[32];
    struct strbuf warnings = STRBUF_INIT;
    if (fd < 0) {
        fd = memfd_create("config", MFD_CLOEXEC);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, len, 0) == (ssize_t)len, "memfd");
    struct config_source src = { .file = path, .envp = environment };
    int result = config_load(&src, out, errors, &warnings);
    CHECK(warnings.len == 0 || warnings.data[warnings.len - 1] == '\n', "a warning without an end");
    strbuf_free(&warnings);
    return result;
}

/* What is shown of a configuration is a configuration. */
static void check_written(const struct config *cfg, char **environment)
{
    struct strbuf text = STRBUF_INIT, again = STRBUF_INIT, errors = STRBUF_INIT;
    struct config *back = NULL;
    config_write(cfg, &text);
    if (!strstr(strbuf_str(&text), "***")) { /* a password that is not shown cannot be read */
        int result = load(strbuf_str(&text), text.len, environment, &back, &errors);
        CHECK(result == 0, "%s\n%s", strbuf_str(&text), strbuf_str(&errors));
        config_write(back, &again);
        CHECK(strcmp(strbuf_str(&text), strbuf_str(&again)) == 0, "%s\n became %s",
              strbuf_str(&text), strbuf_str(&again));
        CHECK(strcmp(cfg->hash, back->hash) == 0, "hash %s and %s", cfg->hash, back->hash);
        config_free(back);
    }
    strbuf_free(&text);
    strbuf_free(&again);
    strbuf_free(&errors);
}

static void load_in(const uint8_t *data, size_t len, char **environment)
{
    struct strbuf errors = STRBUF_INIT;
    struct config *cfg = NULL;
    int result = load(data, len, environment, &cfg, &errors);
    CHECK((result == 0) == (errors.len == 0), "result %d and \"%s\"", result, strbuf_str(&errors));
    CHECK(errors.len == 0 || errors.data[errors.len - 1] == '\n', "an error without an end");
    if (result == 0) {
        CHECK(cfg->fallback && cfg->hash, "a part is missing");
        CHECK(cfg->limits.header_fields <= 1024, "limits.header_fields");
        check_written(cfg, environment);
        config_free(cfg);
    }
    strbuf_free(&errors);
}

void fuzz_config_file(const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < ARRAY_LEN(environments); i++)
        load_in(data, len, environments[i]);
}
