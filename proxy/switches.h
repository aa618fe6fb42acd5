/*
 * switches.h - what an operator holds by hand: overrides of single breakers, and bypass.
 *
 * Each has an end and a reason.  Changed by main alone, over the admin listener; the gate
 * reads the local words and the flags of sync/breakers.h and ends overrides by itself, bypass
 * ends with the next switches_tick().  Nothing here is ever told to the control plane.  The
 * clocks are arguments.
 */
#ifndef PROXY_SWITCHES_H
#define PROXY_SWITCHES_H
#include "sync/breakers.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SWITCHES_OVERRIDES_MAX 1000
#define SWITCHES_REASON_MAX    200                       /* bytes */
#define SWITCHES_TTL_MAX_MS    INT64_C(24 * 3600 * 1000) /* a day */

struct switches; /* opaque, one per process */

struct switch_times {
    int64_t mono_ms;
    int64_t wall_ms; /* for people to read */
};

struct held {         /* one override, or bypass */
    uint32_t breaker; /* 0: bypass */
    enum breaker_state state;
    int64_t until_ms; /* monotonic */
    int64_t until_wall_ms;
    char *reason; /* owned */
};

struct switches *switches_new(struct breakers *b); /* b must outlive it */
void switches_free(struct switches *s);            /* NULL is fine */

/* Puts an override in place of an earlier one of that breaker.  state: open or closed; ttl_ms:
 * 1 to SWITCHES_TTL_MAX_MS.  -1: SWITCHES_OVERRIDES_MAX are in effect (counted). */
int switches_override(struct switches *s, uint32_t breaker, enum breaker_state state,
                      int64_t ttl_ms, const char *reason, struct switch_times now);
bool switches_end_override(struct switches *s, uint32_t breaker); /* false: there was none */
void switches_bypass(struct switches *s, int64_t ttl_ms, const char *reason,
                     struct switch_times now);
bool switches_end_bypass(struct switches *s); /* false: it was not on */

/* Ends what has run out.  The time of the next end, or -1: nothing is held. */
int64_t switches_tick(struct switches *s, int64_t now_ms);

/* Main.  Borrowed until the next change. */
size_t switches_count(const struct switches *s);                    /* overrides in effect */
const struct held *switches_at(const struct switches *s, size_t i); /* oldest first */
const struct held *switches_of(const struct switches *s, uint32_t breaker); /* NULL: none */
const struct held *switches_bypass_held(const struct switches *s);          /* NULL: off */
uint64_t switches_refused(const struct switches *s); /* past the limit, ever */

/* Any thread: why there is an override of this breaker.  False: there is none, or it is being
 * replaced at this very moment. */
bool switches_reason(const struct switches *s, uint32_t breaker, char out[SWITCHES_REASON_MAX + 1]);

#endif
