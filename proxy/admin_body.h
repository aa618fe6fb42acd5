/*
 * admin_body.h - what a request to the admin listener asks for, in words and checked.
 */
#ifndef PROXY_ADMIN_BODY_H
#define PROXY_ADMIN_BODY_H
#include "proxy/explain.h"
#include "proxy/switches.h"
#include "sync/breakers.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct strbuf;

/* {"state": "open", "ttl": "10m", "reason": "..."}; without state for bypass. */
struct admin_order {
    enum breaker_state state; /* open or closed */
    int64_t ttl_ms;
    char reason[SWITCHES_REASON_MAX + 1];
};

/* -1: why says which member is missing, unknown or wrong. */
int admin_parse_order(const char *text, size_t len, bool with_state, struct admin_order *out,
                      struct strbuf *why);

/* url=&method=&header=&header=, percent-encoded.  What is wrong with it, or NULL; free it in
 * either case. */
struct evkeyvalq;
struct admin_question {
    struct explain_question question;
    struct name_value_list headers;
    struct evkeyvalq *parsed; /* owned; what the rest points into */
};
const char *admin_parse_question(const char *query, struct admin_question *out);
void admin_question_free(struct admin_question *q);

#endif
