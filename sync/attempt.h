/*
 * attempt.h - what a worker tells the sync thread about one judged attempt.
 *
 * One fixed record per attempt goes into the worker's ring.  It borrows its route
 * from the configuration snapshot, which main keeps until sync has passed the
 * record's ring position.
 */
#ifndef SYNC_ATTEMPT_H
#define SYNC_ATTEMPT_H
#include "config/config.h"
#include <stdbool.h>
#include <stdint.h>

#define ATTEMPT_RING_CAPACITY 4096
#define ATTEMPT_TRACE_MAX     64
#define ATTEMPT_METHOD_MAX    16

struct attempt_record {
    const struct route *route; /* borrowed from the snapshot; has a router */
    uint32_t host;             /* {host}, by its id in the table that sync_new got; 0: none */
    uint8_t outcome;           /* enum outcome; never a neutral one */
    uint8_t rule;              /* what decided, for rule_name() */
    bool ok;
    bool urgent;     /* a failure, or a breaker of the route is not closed */
    bool opaque;     /* tier "opaque" (a tunnel's bytes) rather than "http" */
    uint16_t status; /* 0: no response head */
    uint8_t trace_len;
    char method[ATTEMPT_METHOD_MAX]; /* NUL-terminated, cut */
    int64_t ts_ms;                   /* wall clock, Unix epoch */
    double values[MAX_METRICS]; /* one per metric of the route; NaN: absent, skipped, counted */
    char trace_id[ATTEMPT_TRACE_MAX]; /* trace_len bytes, not terminated */
};

#endif
