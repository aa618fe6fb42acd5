/*
 * schedule.h - when to ask the control plane again.  Pure: time and draws come from the caller.
 *
 * After a success one interval later, give or take a tenth, so that a fleet does not ask in
 * step.  After failures sooner, with growing delays; after 401 or 403 when the operator may
 * have mended it.  What Retry-After asks for is honoured, up to SCHEDULE_ASKED_MAX_MS.
 */
#ifndef SYNC_SCHEDULE_H
#define SYNC_SCHEDULE_H
#include <stdint.h>

#define SCHEDULE_ASKED_MAX_MS 300000

/* How a question ended; the names are label values. */
enum ask_result {
    ASK_OK,
    ASK_SAME,    /* 304 */
    ASK_AUTH,    /* 401, 403 */
    ASK_HTTP,    /* another status */
    ASK_NETWORK, /* no answer, or not all of it, within the time limit */
    ASK_INVALID, /* an answer that is not what was asked for, or larger than its limit */
    ASK_RESULT_COUNT,
};

struct schedule {
    int64_t at_ms;
    unsigned failures; /* in a row */
};

void schedule_now(struct schedule *s, int64_t now_ms);
/* Something happens once per interval, the first time within its first tenth. */
void schedule_soon(struct schedule *s, int64_t interval_ms, int64_t now_ms, double draw);
/* asked_ms: what Retry-After says; -1: nothing. */
void schedule_after(struct schedule *s, enum ask_result r, int64_t interval_ms, int64_t asked_ms,
                    int64_t now_ms, double draw);

#endif
