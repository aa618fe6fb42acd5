/*
 * pace.h - whether a body arrives at limits.min_body_rate (pure).
 *
 * Looked at once a second.  A second in which the other side held the sender up does not
 * count; after ten that do, what they brought must be enough.
 */
#ifndef PROXY_PACE_H
#define PROXY_PACE_H
#include <stdbool.h>
#include <stdint.h>

#define PACE_STEP_MS 1000
#define PACE_STEPS   10

struct pace {      /* zeroed: a body begins */
    uint64_t mark; /* bytes that had come when the present ten steps began */
    unsigned steps;
};

/* A step has passed, and `total` bytes have come so far.  rate: bytes per second.  True: less
 * than that came in ten steps. */
bool pace_too_slow(struct pace *p, uint64_t total, bool held_up, int64_t rate);

#endif
