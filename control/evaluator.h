/*
 * evaluator.h - one breaker's aggregate over its samples, and what it says.
 *
 * Pure: the caller gives the time, in monotonic milliseconds.  Memory is fixed and
 * an insert costs the same whatever the traffic: the window is 32 buckets of
 * window_ms / 32 each (rounded up, at least 1 ms), so a sample leaves the window up
 * to one bucket early and never late.  Its place in the window is the time at which
 * it was received, because an attempt may last longer than the window.
 *
 * Kinds (PROTOCOL section 7):
 *   error_rate            failed / all over the window; below min_count no verdict
 *   consecutive_failures  the current run of failures; knows neither window nor
 *                         min_count, and one success ends the run
 */
#ifndef CONTROL_EVALUATOR_H
#define CONTROL_EVALUATOR_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EVALUATOR_BUCKETS 32

enum evaluator_kind { EVALUATOR_ERROR_RATE, EVALUATOR_CONSECUTIVE_FAILURES };
enum evaluator_op { EVALUATOR_GT, EVALUATOR_GTE, EVALUATOR_LT, EVALUATOR_LTE };

/* Names as on the wire.  -1: not one of them. */
int evaluator_kind_parse(const char *s, enum evaluator_kind *out);
int evaluator_op_parse(const char *s, enum evaluator_op *out);

struct evaluator_rule {
    enum evaluator_kind kind;
    enum evaluator_op op; /* aggregate op threshold: unhealthy */
    double threshold;
    int64_t window_ms;
    int64_t min_count; /* below 1 counts as 1: nothing is said about no samples */
};

enum evaluator_verdict {
    VERDICT_INDETERMINATE, /* too few samples, or a run of failures still below the threshold */
    VERDICT_HEALTHY,
    VERDICT_UNHEALTHY,
};

struct evaluator_reading {
    enum evaluator_verdict verdict;
    double aggregate; /* NaN without samples */
    uint64_t count;   /* samples it was made from */
    uint64_t failed;
};

struct evaluator_bucket {
    int64_t slot; /* time / width_ms */
    uint32_t count;
    uint32_t failed;
};

struct evaluator {
    struct evaluator_rule rule;
    int64_t width_ms;
    int64_t newest_slot;
    struct evaluator_bucket buckets[EVALUATOR_BUCKETS];
    uint64_t count; /* since evaluator_restart, whatever their age */
    uint64_t failed;
    uint64_t run; /* failures since the last success; survives a restart */
};

void evaluator_init(struct evaluator *e, const struct evaluator_rule *rule);

/* Forgets the samples, but not the run: a failure after a restart lengthens it. */
void evaluator_restart(struct evaluator *e);

/* now_ms: when it was received.  A time before the last one counts as the last one. */
void evaluator_add(struct evaluator *e, int64_t now_ms, bool ok);

/* Over the window that ends now. */
struct evaluator_reading evaluator_read(const struct evaluator *e, int64_t now_ms);
/* Over everything since the restart, whatever its age. */
struct evaluator_reading evaluator_read_all(const struct evaluator *e);

/* The rule with the numbers in it: "5 consecutive failures >= 5". */
#define EVALUATOR_TEXT_SIZE 96
void evaluator_describe(const struct evaluator_rule *rule, const struct evaluator_reading *r,
                        char out[EVALUATOR_TEXT_SIZE]);

#endif
