/*
 * backoff.h - how long to wait before the next try.  Pure: draws come from the caller.
 *
 * A draw is uniform in [0, 1).  Jitter keeps a fleet that lost the same server from
 * coming back in step.
 */
#ifndef SYNC_BACKOFF_H
#define SYNC_BACKOFF_H
#include <stdbool.h>
#include <stdint.h>

#define BACKOFF_STREAM_MIN_MS 500
#define BACKOFF_STREAM_MAX_MS 30000
#define BACKOFF_REST_MS       30000 /* after 401 or 403: only the operator can mend it */

/* The stream's reconnections.  Zero is a fresh start. */
struct backoff {
    unsigned level;   /* the next delay lies between 0.5 s and 1 s * 2^level, at most 30 s */
    int64_t delay_ms; /* the last one drawn */
};

/*
 * A connection ended, or never came about.  How long it stood counts: one that outlived
 * the delay before it (and a second) starts afresh.  One that said something, but not for
 * long, keeps the delays at 2 s at most: often enough to follow the state, and on average
 * 48 a minute, below the smallest rate limit (PROTOCOL section 9).  Anything else doubles.
 */
void backoff_ended(struct backoff *b, int64_t stood_ms, bool delivered);
/* Draws the delay before the next connection. */
int64_t backoff_next_ms(struct backoff *b, double draw);

/* 30 s, and up to half as much again. */
int64_t backoff_rest_ms(double draw);

/* After the n-th failed post in a row, n from 1: 100 ms, 400 ms, 1 s, then between half
 * and all of 2 s, 4 s, ... 30 s. */
int64_t backoff_ingest_ms(unsigned n, double draw);

#endif
