/*
 * authority.h - from a request target to a host, a port and a path (pure).
 *
 * Strict on purpose: what two parsers could read differently is refused
 * (RFC 9110 4.2, RFC 9112 3.2).
 */
#ifndef PROXY_AUTHORITY_H
#define PROXY_AUTHORITY_H
#include "base/slice.h"
#include <stdbool.h>
#include <stdint.h>

#define HOST_MAX 255

struct address;

struct authority {
    char host[HOST_MAX + 1]; /* lower case, no brackets, no trailing dot */
    size_t host_len;
    uint16_t port;
    bool has_port;
    bool is_ipv6;
    struct slice raw;            /* as received: what goes into Host */
    const struct address *fixed; /* NULL, or connect here whatever the name resolves to */
};

enum target_error {
    TARGET_OK,
    TARGET_NOT_ABSOLUTE, /* origin-form or asterisk-form on a proxy port */
    TARGET_HTTPS,        /* never fetched in clear */
    TARGET_BAD_SCHEME,
    TARGET_USERINFO,
    TARGET_BAD_HOST,
    TARGET_BAD_PORT,
    TARGET_FRAGMENT,
};
const char *target_error_text(enum target_error e);

/* host[:port]; default_port 0 means that a port is required (CONNECT).  An empty one is the
 * default. */
enum target_error authority_parse(struct authority *out, struct slice s, uint16_t default_port);
/* absolute-form; *path is what follows the authority ("" if nothing does). */
enum target_error target_parse_absolute(struct authority *out, struct slice *path,
                                        struct slice target);
/* Its first half: *authority is still to be parsed, with default port 80. */
enum target_error target_split_absolute(struct slice *authority, struct slice *path,
                                        struct slice target);
/* "host" or "host:port", the port left out for 80 and 443: the value of {host}. */
size_t authority_label(const struct authority *a, char *out, size_t size);
/* A name with each "{host}" replaced by that label.  -1: too long for out. */
int authority_expand(const char *name, struct slice label, char *out, size_t size, size_t *len);
/* "host:port" always: the key of targets and pools. */
size_t authority_key(const struct authority *a, char *out, size_t size);

#endif
