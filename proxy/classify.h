/*
 * classify.h - how did the attempt end, and does that count as a failure? (pure)
 *
 * One outcome per attempt, fixed by the first of: transport failure; status rule, then
 * header rules, at the head; 101, or an event stream that nobody looks into: success at
 * the head; a body rule, when it matches; the end of the response; 60 s after the head,
 * by what is known then (DESIGN "Judging an attempt").  Where success would be fixed, the
 * answer may have been too slow.  What comes later changes nothing.
 */
#ifndef PROXY_CLASSIFY_H
#define PROXY_CLASSIFY_H
#include "config/config.h"
#include <stdbool.h>
#include <stdint.h>

#define JUDGE_AFTER_HEAD_MS 60000

struct attempt {
    const struct route *route;
    bool half_open; /* a breaker was half-open: its shorter no_response_after applies */
    bool fixed;
    bool ok;      /* valid if fixed and not neutral */
    bool neutral; /* no sample */
    enum outcome outcome;
    bool event_stream; /* known since its head, and looked into */
    uint8_t rule;      /* what decided, for rule_name() */
    bool early;        /* fixed while the response was still coming */
    unsigned status;   /* 0: no final response head */
    int64_t clock_ms;  /* no_response_after counts from here; -1: not running */
    int64_t wait_ms;   /* client_abort_after counts from here; -1: the upstream owes nothing */
    int64_t head_ms;   /* when the final head came; -1 */
};

void attempt_start(struct attempt *a, const struct route *route, bool half_open, int64_t now_ms);
/* A failure of transport: OUTCOME_CONNECT DNS TLS TIMEOUT RESET PROTOCOL, or the neutral
 * OUTCOME_LOCAL, OUTCOME_STALE and OUTCOME_NEUTRAL. */
void attempt_failed(struct attempt *a, enum outcome outcome);
/* The upstream took a byte of the request, or all of it has been sent: the clock starts anew. */
void attempt_clock(struct attempt *a, int64_t now_ms);
void attempt_clock_stop(struct attempt *a); /* we wait for the client, not for the upstream */
/* The first byte of a final status line (or of 101) has come. */
void attempt_response_byte(struct attempt *a);

struct attempt_head {
    unsigned status;
    unsigned rule; /* of failure.headers; RULE_NONE: no match */
    bool event_stream;
    bool inspected; /* its body is going to be looked at */
    bool whole;     /* no body follows */
    int64_t took_us;
};
void attempt_head(struct attempt *a, const struct attempt_head *h, int64_t now_ms);
/* A rule of failure.body matches; at the response's end, or while it is still coming. */
void attempt_body(struct attempt *a, unsigned rule, bool at_end);
/* The whole response was read; took_us is its latency. */
void attempt_end(struct attempt *a, int64_t took_us);
/* The client left; for a FIN, now_ms is when it came.  took_us: latency so far. */
void attempt_client_gone(struct attempt *a, int64_t now_ms, int64_t took_us);
/* When attempt_tick next has something to do; OFF: never. */
int64_t attempt_deadline(const struct attempt *a);
void attempt_tick(struct attempt *a, int64_t now_ms, int64_t took_us); /* so far */

bool outcome_is_neutral(enum outcome o);

#endif
