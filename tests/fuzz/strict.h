/*
 * strict.h - a second, independent reader of HTTP/1 messages, for the fuzz targets.
 *
 * It takes the narrowest reading of RFC 9112 and knows no leniency at all.  What the
 * proxy sends must pass it, and mean to it what the proxy meant.
 */
#ifndef TESTS_FUZZ_STRICT_H
#define TESTS_FUZZ_STRICT_H
#include "base/slice.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STRICT_LINES_MAX 2048

struct strict_head {
    struct slice start; /* the start line without its CRLF */
    size_t count;
    struct {
        struct slice name, value;
    } fields[STRICT_LINES_MAX];
    size_t lengths, codings, hosts; /* lines of Content-Length, Transfer-Encoding, Host */
    uint64_t length;
};

/* NULL, or what is wrong.  data must be one head and nothing behind it. */
const char *strict_read(struct strict_head *h, const char *data, size_t len);
/* NULL, or what is wrong: lines of a trailer section without the empty line. */
const char *strict_fields(struct strict_head *h, const char *data, size_t len);
/* Three parts, a token, no byte in the target that needs quoting, HTTP/1.1. */
const char *strict_request_line(struct slice line, struct slice *method, struct slice *target);
/* "HTTP/1.1 nnn reason" */
const char *strict_status_line(struct slice line, unsigned *status);
/* The first field of that name, or NULL-sliced. */
struct slice strict_find(const struct strict_head *h, const char *name);
bool strict_token(struct slice s);

#endif
