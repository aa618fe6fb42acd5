#include "proxy/rewrite.h"
#include "base/base.h"
#include <inttypes.h>
#include <stdio.h>

struct writer {
    uint8_t *p, *end;
};

static void put(struct writer *w, const char *data, size_t len)
{
    if (BUG(len > (size_t)(w->end - w->p)))
        return;
    memcpy(w->p, data, len);
    w->p += len;
}

static void put_slice(struct writer *w, struct slice s)
{
    put(w, s.p, s.len);
}

#define PUT(w, literal) put((w), (literal), sizeof(literal) - 1)

size_t rewrite_bound(const struct http1_head *h, size_t head_len, const char *via,
                     struct slice authority)
{
    (void)h;
    /* Host written anew, a Content-Length or Transfer-Encoding re-spelt, Connection, Via. */
    return head_len + authority.len + 256 + (via ? strlen(via) + 16 : 0);
}

/* One canonical spelling, with nothing behind it: what cannot be read in two ways can be copied. */
static bool length_is_canonical(const struct http1_head *h)
{
    struct slice v = h->content_length_field->value;
    return (v.len == 1 || v.p[0] != '0') && v.p[v.len] == '\r';
}

static void put_length(struct writer *w, const struct http1_head *h)
{
    if (length_is_canonical(h)) {
        put_slice(w, h->content_length_field->line);
        return;
    }
    char text[32];
    int n = snprintf(text, sizeof(text), ": %" PRIu64 "\r\n", h->content_length);
    put_slice(w, h->content_length_field->name);
    put(w, text, (size_t)n);
}

static void put_via(struct writer *w, const char *via, int minor)
{
    if (!via)
        return;
    PUT(w, "Via: 1.");
    put(w, minor ? "1 " : "0 ", 2);
    put(w, via, strlen(via));
    PUT(w, "\r\n");
}

static void put_request_line(struct writer *w, const struct http1_head *h, struct slice path)
{
    put_slice(w, h->method);
    PUT(w, " ");
    if (path.len == 0 && slice_eq(h->method, SLICE("OPTIONS")))
        PUT(w, "*"); /* RFC 9112 3.2.4 */
    else if (path.len == 0 || path.p[0] != '/')
        PUT(w, "/");
    put_slice(w, path);
    PUT(w, " HTTP/1.1\r\n");
}

static void put_host(struct writer *w, const struct http1_head *h, struct slice authority)
{
    if (h->host && slice_eq(h->host->value, authority)) {
        put_slice(w, h->host->line);
        return;
    }
    if (h->host)
        put_slice(w, h->host->name);
    else
        PUT(w, "Host");
    PUT(w, ": ");
    put_slice(w, authority);
    PUT(w, "\r\n");
}

size_t rewrite_request(const struct http1_head *h, const struct rewrite_request *o, uint8_t *out,
                       size_t cap)
{
    struct writer w = { out, out + cap };
    bool coding_written = false;
    put_request_line(&w, h, o->path);
    if (!h->host)
        put_host(&w, h, o->authority);
    for (size_t i = 0; i < h->field_count; i++) {
        const struct http1_field *f = &h->fields[i];
        if (f == h->host) {
            put_host(&w, h, o->authority);
        } else if (f->id == FIELD_CONTENT_LENGTH) {
            if (f == h->content_length_field)
                put_length(&w, h);
        } else if (f->id == FIELD_TRANSFER_ENCODING) {
            if (!coding_written) {
                put_slice(&w, f->name);
                PUT(&w, ": chunked\r\n");
            }
            coding_written = true;
        } else if (f == h->upgrade && o->upgrade) {
            put_slice(&w, f->name);
            PUT(&w, ": ");
            put(&w, o->upgrade, strlen(o->upgrade));
            PUT(&w, "\r\nConnection: Upgrade\r\n");
        } else if (f == h->max_forwards && o->max_forwards >= 0) {
            char text[32];
            int n = snprintf(text, sizeof(text), ": %" PRId64 "\r\n", o->max_forwards);
            put_slice(&w, f->name);
            put(&w, text, (size_t)n);
        } else if (!f->hop) {
            put_slice(&w, f->line);
        }
    }
    put_via(&w, o->via, h->minor);
    PUT(&w, "\r\n");
    return (size_t)(w.p - out);
}

size_t rewrite_response(const struct http1_head *h, const struct rewrite_response *o, uint8_t *out,
                        size_t cap)
{
    struct writer w = { out, out + cap };
    const char digits[] = { (char)('0' + h->status / 100 % 10), (char)('0' + h->status / 10 % 10),
                            (char)('0' + h->status % 10), ' ' };
    PUT(&w, "HTTP/1.1 ");
    put(&w, digits, sizeof(digits));
    put_slice(&w, h->reason);
    PUT(&w, "\r\n");
    for (size_t i = 0; i < h->field_count; i++) {
        const struct http1_field *f = &h->fields[i];
        if (f->id == FIELD_CONTENT_LENGTH) {
            /* A head without a body may announce the length of one (HEAD, 304). */
            if (f == h->content_length_field && h->framing != FRAMING_CHUNKED)
                put_length(&w, h);
        } else if (f->id == FIELD_TRANSFER_ENCODING) {
            continue; /* written below, if we use it: it speaks of one connection only */
        } else if (f->id == FIELD_UPGRADE && o->upgrade) {
            put_slice(&w, f->line);
            if (f == h->upgrade)
                PUT(&w, "Connection: Upgrade\r\n");
        } else if (!f->hop) {
            put_slice(&w, f->line);
        }
    }
    if (o->chunked)
        PUT(&w, "Transfer-Encoding: chunked\r\n");
    if (o->close)
        PUT(&w, "Connection: close\r\n");
    put_via(&w, o->via, h->minor);
    PUT(&w, "\r\n");
    return (size_t)(w.p - out);
}
