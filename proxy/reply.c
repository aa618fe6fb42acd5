#include "proxy/reply.h"
#include "base/strbuf.h"
#include "config/config.h"
#include <string.h>

const char *reply_reason(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 403:
        return "Forbidden";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 407:
        return "Proxy Authentication Required";
    case 408:
        return "Request Timeout";
    case 409:
        return "Conflict";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 422:
        return "Unprocessable Content";
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
    case 500:
        return "Internal Server Error";
    case 501:
        return "Not Implemented";
    case 502:
        return "Bad Gateway";
    case 503:
        return "Service Unavailable";
    case 504:
        return "Gateway Timeout";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Error";
    }
}

size_t reply_safe_name(const char *name, size_t len, char out[65])
{
    if (len > 64)
        len = 64;
    for (size_t i = 0; i < len; i++)
        out[i] = name[i] >= 0x21 && name[i] <= 0x7e ? name[i] : '_';
    out[len] = '\0';
    return len;
}

/* The inside of a structured-field string (RFC 9651 3.3.3): printable ASCII, quote and backslash
 * escaped. */
static void add_sf_text(struct strbuf *out, const char *s)
{
    while (*s) {
        size_t plain = strbuf_plain_prefix(s, strlen(s));
        const char *del = memchr(s, 0x7f, plain);
        if (del)
            plain = (size_t)(del - s);
        strbuf_add(out, s, plain);
        s += plain;
        if (!*s)
            break;
        if (*s == '"' || *s == '\\')
            strbuf_addc(out, '\\');
        strbuf_addc(out, *s >= 0x20 && *s <= 0x7e ? *s : '_');
        s++;
    }
}

/* With the reason, which the body says only where the route has none of its own. */
static void add_details(struct strbuf *out, const struct reply *r)
{
    strbuf_adds(out, "; details=\"");
    add_sf_text(out, r->detail);
    if (r->reason) {
        strbuf_adds(out, ": ");
        add_sf_text(out, r->reason);
    }
    strbuf_addc(out, '"');
}

static void add_string(struct strbuf *body, const char *s)
{
    strbuf_json_string(body, s, strlen(s));
}

/* problem+json (RFC 9457), by hand: it is most of what a refusal costs. */
static void add_body(const struct reply *r, const char *name, const char *title,
                     struct strbuf *body)
{
    strbuf_adds(body, "{\"type\":\"about:blank\",\"title\":");
    add_string(body, title);
    strbuf_adds(body, ",\"status\":");
    strbuf_addu(body, (uint64_t)r->status);
    strbuf_adds(body, ",\"detail\":");
    add_string(body, r->detail);
    strbuf_adds(body, ",\"error\":");
    add_string(body, proxy_error_name(r->error));
    if (r->breaker) {
        strbuf_adds(body, ",\"breaker\":");
        add_string(body, name);
        strbuf_adds(body, ",\"state\":");
        add_string(body, r->breaker_state);
        if (r->reason) {
            strbuf_adds(body, ",\"reason\":");
            add_string(body, r->reason);
        }
        if (r->retry_after_ms != OFF) {
            strbuf_adds(body, ",\"retry_after_ms\":");
            strbuf_addu(body, (uint64_t)r->retry_after_ms);
        }
    }
    strbuf_adds(body, "}\n");
}

static inline void add_field(struct strbuf *out, const char *name_colon, const char *value)
{
    strbuf_adds(out, name_colon);
    strbuf_adds(out, value);
    strbuf_adds(out, "\r\n");
}

void reply_write(const struct reply *r, struct strbuf *out, struct strbuf *scratch)
{
    char name[65] = "", title[96];
    const char *reason = reply_reason(r->status);
    if (r->breaker) {
        reply_safe_name(r->breaker, r->breaker_len, name);
        /* All that some clients show of a refused CONNECT is this phrase. */
        size_t n = sizeof("Circuit breaker open: ") - 1;
        memcpy(title, "Circuit breaker open: ", n);
        memcpy(title + n, name, strlen(name) + 1);
        reason = title;
    }
    const char *body = r->body, *type = r->body_type;
    size_t body_len = r->body_len;
    if (!body) {
        strbuf_clear(scratch);
        add_body(r, name, reason, scratch);
        body = strbuf_str(scratch);
        body_len = scratch->len;
        type = "application/problem+json";
    }
    strbuf_adds(out, "HTTP/1.1 ");
    strbuf_addu(out, (uint64_t)r->status);
    strbuf_addc(out, ' ');
    strbuf_adds(out, reason);
    strbuf_adds(out, "\r\nProxy-Status: tripswitch-proxy");
    if (r->error != PERR_NONE) {
        strbuf_adds(out, "; error=");
        strbuf_adds(out, proxy_error_name(r->error));
        add_details(out, r);
    }
    strbuf_adds(out, "\r\n");
    if (r->authenticate)
        add_field(out, "Proxy-Authenticate: ", "Basic realm=\"tripswitch-proxy\"");
    if (r->breaker) {
        add_field(out, "X-Tripswitch-Breaker: ", name);
        add_field(out, "X-Tripswitch-State: ", r->breaker_state);
        add_field(out, "X-Tripswitch-Decision: ", r->decision);
    }
    if (r->retry_after_ms != OFF)
        strbuf_addf(out, "Retry-After: %lld\r\n", (long long)((r->retry_after_ms + 999) / 1000));
    add_field(out, "Content-Type: ", type);
    strbuf_adds(out, "Content-Length: ");
    strbuf_addu(out, body_len);
    strbuf_adds(out, "\r\nCache-Control: no-store\r\n");
    for (size_t i = 0; r->headers && i < r->headers->count; i++) {
        strbuf_adds(out, r->headers->items[i].name);
        add_field(out, ": ", r->headers->items[i].value);
    }
    if (r->close)
        strbuf_adds(out, "Connection: close\r\n");
    strbuf_adds(out, "\r\n");
    if (!r->no_body)
        strbuf_add(out, body, body_len);
}

/* Strings by their place: as long as a configuration lives, no other string comes there. */
static bool is_same(const struct reply *a, const struct reply *b)
{
    return a->status == b->status && a->error == b->error && a->detail == b->detail &&
           a->breaker == b->breaker && a->breaker_len == b->breaker_len &&
           a->breaker_state == b->breaker_state && a->decision == b->decision &&
           a->retry_after_ms == b->retry_after_ms && a->close == b->close &&
           a->no_body == b->no_body && a->body_type == b->body_type && a->body == b->body &&
           a->body_len == b->body_len && a->headers == b->headers;
}

const struct strbuf *reply_text(struct reply_kept *kept, const struct reply *r, uint64_t generation)
{
    /* Only of a breaker's refusal is all but an override's reason the configuration's. */
    bool lasts = r->breaker && !r->reason && !r->authenticate;
    if (lasts && kept->lasts && kept->generation == generation && is_same(&kept->of, r))
        return &kept->text;
    strbuf_clear(&kept->text);
    reply_write(r, &kept->text, &kept->scratch);
    kept->of = *r;
    kept->generation = generation;
    kept->lasts = lasts;
    return &kept->text;
}

void reply_kept_free(struct reply_kept *kept)
{
    strbuf_free(&kept->text);
    strbuf_free(&kept->scratch);
}
