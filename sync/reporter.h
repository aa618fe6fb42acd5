/*
 * reporter.h - decides which samples leave when, and what an answer means for them.
 *
 * Records become text in a queue of at most `buffer` samples, which drops its oldest.
 * A batch leaves when full, when its oldest sample is flush_interval old, or, at most
 * once per urgent_interval, when it holds an urgent sample.  It stays first until a
 * 2xx, a permanent 4xx, or until its oldest sample is max_age old.  Two posts at a
 * time, one while the server fails.  Pure: no I/O, no clock, no chance of its own.
 *
 * The books, at every moment between two calls:
 *   recorded = sent + dropped (all reasons) + reporter_buffered + reporter_in_flight
 */
#ifndef SYNC_REPORTER_H
#define SYNC_REPORTER_H
#include "sync/attempt.h"
#include "sync/batch.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REPORTER_POSTS 2 /* in flight at once */

struct reporter_options {
    int64_t flush_interval_ms;
    int64_t urgent_interval_ms;
    int64_t max_age_ms;
    size_t batch;                 /* full at this many; 1 to 1000 */
    size_t buffer;                /* queued samples at most */
    int64_t max_posts_per_second; /* 0: unlimited */
    bool gzip;
    bool has_key; /* false: posts carry no signature */
    uint8_t key[BATCH_KEY_SIZE];
};

struct reporter; /* opaque, sync thread only */

/* counters: SYNC_COUNTER_COUNT of them, borrowed; instance: for {instance}, borrowed. */
struct reporter *reporter_new(const struct reporter_options *options, _Atomic uint64_t *counters,
                              const char *instance);
void reporter_free(struct reporter *r); /* NULL is fine; wipes the key */
/* A smaller buffer drops the oldest at once. */
void reporter_configure(struct reporter *r, const struct reporter_options *options);

/* Take in one record: its samples are text when this returns. */
void reporter_add(struct reporter *r, const struct attempt_record *rec, const char *host,
                  size_t host_len, int64_t now_ms);

/* One attempt to post. */
struct post {
    unsigned slot;    /* name it in reporter_answer() */
    const char *wire; /* borrowed until then */
    size_t len;
    size_t samples;
    bool gzip;
    int64_t timestamp_ms;           /* X-EB-Timestamp */
    char signature[BATCH_SIG_SIZE]; /* "" when unsigned */
};
/* The next post that is due, if any; the caller sends it and gives its answer.  Also drops
 * what has become too old. */
bool reporter_take(struct reporter *r, int64_t now_ms, int64_t wall_ms, struct post *out);

struct post_answer {
    int status;              /* 0: no response head came; then the rest is void */
    const char *retry_after; /* header values; NULL: absent */
    const char *date;
    const char *body; /* the beginning of it */
    size_t body_len;
};
enum post_result { POST_OK, POST_AUTH, POST_CLOCK_SKEW, POST_HTTP, POST_NETWORK };
enum post_result reporter_answer(struct reporter *r, unsigned slot,
                                 const struct post_answer *answer, int64_t now_ms, int64_t wall_ms,
                                 double draw);

/* When reporter_take() may next have something; INT64_MAX: not before a record or an
 * answer comes. */
int64_t reporter_next_ms(const struct reporter *r);

size_t reporter_buffered(const struct reporter *r);  /* queued, not in a batch */
size_t reporter_in_flight(const struct reporter *r); /* in a batch that has not ended */
size_t reporter_posting(const struct reporter *r);   /* posts that await their answer */

/* Shutdown: everything is due now, a running back-off ends (a rest the server asked for
 * does not). */
void reporter_flush(struct reporter *r, int64_t now_ms);
/* Give up: whatever is left, posts without an answer included, is dropped as "shutdown". */
void reporter_abandon(struct reporter *r);

#endif
