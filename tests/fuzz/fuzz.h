/*
 * fuzz.h - what the fuzz targets share.
 *
 * A target is one function of bytes.  It never returns an error: what must hold is
 * CHECKed, and a CHECK that fails aborts with the reason, as a sanitizer's finding
 * would.  With clang each target becomes a libFuzzer program; with any compiler
 * replay.c runs them all over their seeds.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H
#include "base/slice.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FUZZ_TARGETS(X)                                                                            \
    X(request_head)                                                                                \
    X(response_head)                                                                               \
    X(chunked)                                                                                     \
    X(trailers)                                                                                    \
    X(sniff)                                                                                       \
    X(authority)                                                                                   \
    X(bypass)                                                                                      \
    X(sse)                                                                                         \
    X(state_event)                                                                                 \
    X(state_batch)                                                                                 \
    X(catalog)                                                                                     \
    X(config_text)                                                                                 \
    X(config_file)                                                                                 \
    X(persist)                                                                                     \
    X(ingest)                                                                                      \
    X(ingest_verify)                                                                               \
    X(sample)                                                                                      \
    X(http_date)                                                                                   \
    X(auth_file)                                                                                   \
    X(proxy_auth)                                                                                  \
    X(tls_hello)                                                                                   \
    X(admin)                                                                                       \
    X(json_scan)                                                                                   \
    X(inspect)                                                                                     \
    X(script)

#define FUZZ_DECLARE(name) void fuzz_##name(const uint8_t *data, size_t len);
FUZZ_TARGETS(FUZZ_DECLARE)

/* Aborts with place and reason. */
_Noreturn void fuzz_failed(const char *file, int line, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond))                                                                               \
            fuzz_failed(__FILE__, __LINE__, #cond, __VA_ARGS__);                                   \
    } while (0)

/* A copy of exactly len bytes, so that a sanitizer sees one byte too many; the caller frees. */
void *fuzz_copy(const void *data, size_t len);
/* A copy with a NUL behind it; the caller frees. */
char *fuzz_string(const void *data, size_t len);

/* How to cut an input: in one piece, byte by byte, or in lengths drawn from its own bytes. */
#define FUZZ_CUTS 5
size_t fuzz_cut(unsigned way, const uint8_t *data, size_t len, size_t at); /* 1 to len - at */

/* Takes values from the front; zeros when it is empty. */
struct fuzz_reader {
    const uint8_t *p;
    size_t len;
};
uint8_t fuzz_byte(struct fuzz_reader *r);
struct slice fuzz_rest(struct fuzz_reader *r);
/* Up to the next newline, which is taken too. */
struct slice fuzz_line(struct fuzz_reader *r);

#endif
