/*
 * judge.h - one verdict per attempt: counted once, sampled once.
 *
 * classify.c says what an attempt was; here it meets the books (DESIGN promise 3) and
 * becomes a record for the sync thread.
 */
#ifndef PROXY_JUDGE_H
#define PROXY_JUDGE_H
#include "config/config.h"
struct exchange;

void judge_begin(struct exchange *ex);                        /* an attempt starts */
void judge_failed(struct exchange *ex, enum outcome outcome); /* no-op before judge_begin */
void judge_record(struct exchange *ex); /* once the attempt is fixed: count and sample it */

void judge_shadow(struct exchange *ex); /* would the refusal have been right? counted once */

#endif
