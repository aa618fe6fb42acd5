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
    case 407:
        return "Proxy Authentication Required";
    case 408:
        return "Request Timeout";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
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

/* A structured-field string (RFC 9651 3.3.3): printable ASCII, quote and backslash escaped. */
static void add_sf_string(struct strbuf *out, const char *s)
{
    strbuf_addc(out, '"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            strbuf_addc(out, '\\');
        strbuf_addc(out, *s >= 0x20 && *s <= 0x7e ? *s : '_');
    }
    strbuf_addc(out, '"');
}

static void add_body(const struct reply *r, const char *name, const char *title,
                     struct strbuf *body)
{
    struct json j = { .sb = body };
    json_open(&j, NULL, '{');
    json_str(&j, "type", "about:blank");
    json_str(&j, "title", title);
    json_int(&j, "status", r->status);
    json_str(&j, "detail", r->detail);
    json_str(&j, "error", proxy_error_name(r->error));
    if (r->breaker) {
        json_str(&j, "breaker", name);
        json_str(&j, "state", r->breaker_state);
        if (r->retry_after_ms != OFF)
            json_int(&j, "retry_after_ms", r->retry_after_ms);
    }
    json_close(&j);
    strbuf_addc(body, '\n');
}

void reply_write(const struct reply *r, struct strbuf *out)
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
    struct strbuf problem = STRBUF_INIT;
    const char *body = r->body, *type = r->body_type;
    size_t body_len = r->body_len;
    if (!body) {
        add_body(r, name, reason, &problem);
        body = strbuf_str(&problem);
        body_len = problem.len;
        type = "application/problem+json";
    }
    strbuf_addf(out, "HTTP/1.1 %d %s\r\nProxy-Status: tripswitch-proxy", r->status, reason);
    if (r->error != PERR_NONE) {
        strbuf_addf(out, "; error=%s; details=", proxy_error_name(r->error));
        add_sf_string(out, r->detail);
    }
    strbuf_adds(out, "\r\n");
    if (r->breaker)
        strbuf_addf(out,
                    "X-Tripswitch-Breaker: %s\r\nX-Tripswitch-State: %s\r\n"
                    "X-Tripswitch-Decision: %s\r\n",
                    name, r->breaker_state, r->decision);
    if (r->retry_after_ms != OFF)
        strbuf_addf(out, "Retry-After: %lld\r\n", (long long)((r->retry_after_ms + 999) / 1000));
    strbuf_addf(out, "Content-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n", type,
                body_len);
    if (r->close)
        strbuf_adds(out, "Connection: close\r\n");
    strbuf_adds(out, "\r\n");
    if (!r->no_body)
        strbuf_add(out, body, body_len);
    strbuf_free(&problem);
}
