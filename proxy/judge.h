/*
 * judge.h - one verdict per attempt: counted once, sampled once.
 *
 * classify.c says what an attempt was; here it meets the books (DESIGN promise 3) and
 * becomes a record for the sync thread.
 */
#ifndef PROXY_JUDGE_H
#define PROXY_JUDGE_H
#include "config/config.h"
#include <stddef.h>
struct exchange;
struct http1_head;

void judge_begin(struct exchange *ex);                            /* an attempt starts */
void judge_failed(struct exchange *ex, enum outcome outcome);     /* no-op before judge_begin */
void judge_head(struct exchange *ex, const struct http1_head *h); /* a final one, or 101 */
/* What the rules and metrics of the route see of the response's body, just before it is
 * passed on; arg is a struct exchange.  judge_looks: whether they want to see any. */
void judge_observe(void *arg, const uint8_t *bytes, size_t len);
bool judge_looks(const struct exchange *ex);
void judge_body(struct exchange *ex); /* after judge_observe: has a rule matched? */
void judge_end(struct exchange *ex);  /* the response, or what a tunnel shows of it, is whole */
void judge_client_gone(struct exchange *ex, int64_t at_ms); /* no-op before judge_begin */
void judge_tick(struct exchange *ex);   /* a deadline of the attempt may have come */
void judge_record(struct exchange *ex); /* once the attempt is fixed: count and sample it */
void judge_free(struct exchange *ex);   /* what only the judgement needed */

void judge_shadow(struct exchange *ex); /* would the refusal have been right? counted once */

#endif
