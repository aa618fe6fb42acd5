#include "tests/bench/load.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void response_reset(struct response *r, bool bare)
{
    r->state = RESPONSE_HEAD;
    r->used = 0;
    r->bare = bare;
}

static void enter_body(struct response *r)
{
    const char *length = strcasestr(r->head, "\nContent-Length:");
    r->close = strcasestr(r->head, "\nConnection: close") || !memcmp(r->head, "HTTP/1.0", 8);
    r->matched = 0;
    r->left = length ? strtoull(length + 16, NULL, 10) : 0;
    if (r->status / 100 == 1) {
        response_reset(r, r->bare); /* the final one follows */
    } else if (r->status == 204 || r->status == 304 || (r->bare && r->status / 100 == 2)) {
        r->close = false;
        r->state = RESPONSE_DONE;
    } else if (strcasestr(r->head, "\nTransfer-Encoding: chunked")) {
        r->state = RESPONSE_CHUNK_SIZE;
    } else if (!length) {
        r->state = RESPONSE_TO_EOF;
        r->close = true;
    } else {
        r->state = r->left ? RESPONSE_LENGTH : RESPONSE_DONE;
    }
}

static ptrdiff_t feed_head(struct response *r, const char *data, size_t len)
{
    size_t room = sizeof r->head - 1 - r->used, before = r->used;
    size_t n = len < room ? len : room;
    memcpy(r->head + r->used, data, n);
    r->used += n;
    size_t from = before > 3 ? before - 3 : 0;
    char *end = memmem(r->head + from, r->used - from, "\r\n\r\n", 4);
    if (!end)
        return r->used < sizeof r->head - 1 ? (ptrdiff_t)n : -1;
    end[2] = 0;
    if (strncmp(r->head, "HTTP/1.", 7))
        return -1;
    r->status = atoi(r->head + 9);
    ptrdiff_t taken = end + 4 - r->head - (ptrdiff_t)before;
    enter_body(r);
    return taken;
}

static ptrdiff_t feed_left(struct response *r, size_t len, int next)
{
    size_t n = len < r->left ? len : (size_t)r->left;
    r->left -= n;
    if (!r->left)
        r->state = next;
    return (ptrdiff_t)n;
}

/* One byte of the lines between chunks. */
static int feed_byte(struct response *r, char c)
{
    switch (r->state) {
    case RESPONSE_CHUNK_SIZE:
        if (c == '\n') {
            r->state = r->left ? RESPONSE_CHUNK_DATA : RESPONSE_TRAILER;
            r->matched = 0;
        } else if (c == '\r' || c == ';') {
            r->matched = 1; /* an extension: skipped */
        } else if (!r->matched) {
            const char *hex = memchr("0123456789abcdefABCDEF", c, 22);
            if (!hex)
                return -1;
            int digit = (int)(hex - "0123456789abcdefABCDEF");
            r->left = r->left * 16 + (uint64_t)(digit > 15 ? digit - 6 : digit);
        }
        return 0;
    case RESPONSE_CHUNK_END:
        if (c == '\n')
            r->state = RESPONSE_CHUNK_SIZE;
        return c == '\n' || c == '\r' ? 0 : -1;
    default: /* trailer: done at the first empty line */
        if (c == '\n' && !r->matched)
            r->state = RESPONSE_DONE;
        else if (c != '\r')
            r->matched = c != '\n';
        return 0;
    }
}

ptrdiff_t response_feed(struct response *r, const char *data, size_t len)
{
    size_t at = 0;
    while (at < len && r->state != RESPONSE_DONE) {
        ptrdiff_t n = 1;
        if (r->state == RESPONSE_HEAD)
            n = feed_head(r, data + at, len - at);
        else if (r->state == RESPONSE_LENGTH)
            n = feed_left(r, len - at, RESPONSE_DONE);
        else if (r->state == RESPONSE_CHUNK_DATA)
            n = feed_left(r, len - at, RESPONSE_CHUNK_END);
        else if (r->state == RESPONSE_TO_EOF)
            n = (ptrdiff_t)(len - at);
        else if (feed_byte(r, data[at]))
            n = -1;
        if (n < 0)
            return -1;
        at += (size_t)n;
    }
    return (ptrdiff_t)at;
}
