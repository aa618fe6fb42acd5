#include "tests/fuzz/fuzz.h"
#include "base/base.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef FUZZ_ENTRY
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    FUZZ_ENTRY(data, len);
    return 0;
}
#endif

void fuzz_failed(const char *file, int line, const char *what, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "%s:%d: does not hold: %s: ", file, line, what);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}

void *fuzz_copy(const void *data, size_t len)
{
    void *copy = xmalloc(len);
    if (len > 0)
        memcpy(copy, data, len);
    return copy;
}

char *fuzz_string(const void *data, size_t len)
{
    char *copy = xmalloc(len + 1);
    if (len > 0)
        memcpy(copy, data, len);
    copy[len] = '\0';
    return copy;
}

size_t fuzz_cut(unsigned way, const uint8_t *data, size_t len, size_t at)
{
    static const size_t strides[FUZZ_CUTS] = { SIZE_MAX, 1, 7, 31, 3 };
    size_t rest = len - at;
    size_t want = strides[way];
    if (way >= 2) /* the bytes themselves shift the cuts about */
        want = 1 + (data[at] + at * strides[way]) % (4 * strides[way]);
    return want < rest ? want : rest;
}

uint8_t fuzz_byte(struct fuzz_reader *r)
{
    if (r->len == 0)
        return 0;
    r->len--;
    return *r->p++;
}

struct slice fuzz_rest(struct fuzz_reader *r)
{
    struct slice s = { (const char *)r->p, r->len };
    r->p += r->len;
    r->len = 0;
    return s;
}

struct slice fuzz_line(struct fuzz_reader *r)
{
    const uint8_t *lf = r->len ? memchr(r->p, '\n', r->len) : NULL;
    if (!lf)
        return fuzz_rest(r);
    struct slice s = { (const char *)r->p, (size_t)(lf - r->p) };
    r->p += s.len + 1;
    r->len -= s.len + 1;
    return s;
}
