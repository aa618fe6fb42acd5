/*
 * reply.h - answers of our own: complete, and never to be taken for the upstream's.
 *
 * Each has Proxy-Status (RFC 9209) and an application/problem+json body (RFC 9457), or
 * no body for HEAD.  Names that came from a peer are made harmless first.
 */
#ifndef PROXY_REPLY_H
#define PROXY_REPLY_H
#include "base/strbuf.h"
#include "proxy/metrics.h"
#include "sync/breakers.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct name_value_list;

struct reply {
    int status;
    enum proxy_error error;
    const char *detail;  /* plain text, ours */
    const char *breaker; /* NULL: not a breaker's refusal */
    size_t breaker_len;
    const char *breaker_state; /* "open", "half_open", "unknown", "override" */
    const char *decision;      /* "reject" or "throttle" */
    const char *reason;        /* an operator's, of an override; NULL: none */
    int64_t retry_after_ms;    /* OFF: none */
    bool close;                /* announce Connection: close */
    bool no_body;              /* HEAD */
    bool authenticate;         /* 407: ask for a name and a token */
    const char *body_type;     /* with body: an answer that is not a problem */
    const char *body;
    size_t body_len;
    const struct name_value_list *headers; /* further ones; NULL: none */
};

const char *reply_reason(int status); /* "Bad Gateway" */
/* Bytes outside 0x21-0x7E become '_', at most 64 are kept. */
size_t reply_safe_name(const char *name, size_t len, char out[65]);
/* Appends to out; what scratch held is lost. */
void reply_write(const struct reply *r, struct strbuf *out, struct strbuf *scratch);

/* The last answer's text: an open breaker says the same to everybody. */
struct reply_kept {
    struct strbuf text, scratch;
    struct reply of;
    uint64_t generation; /* of the configuration that owns what the reply points at */
    bool lasts;          /* all of that lives as long as the configuration */
};

/* The text of r, written only if it is not the last one's; valid until the next call. */
const struct strbuf *reply_text(struct reply_kept *kept, const struct reply *r,
                                uint64_t generation);
void reply_kept_free(struct reply_kept *kept);

#endif
