/*
 * gate.h - may this request go? (pure)
 *
 * PROTOCOL section 5: any open breaker refuses; else one draw against the lowest
 * allow_rate of the half-open ones.  A name that the server does not have is allowed;
 * state that is not known, or stale, follows fail_mode.  We never derive state.
 *
 * An operator's override stands in for the server's state of one breaker, known or not,
 * until it ends; bypass lets everything pass.
 */
#ifndef PROXY_GATE_H
#define PROXY_GATE_H
#include "sync/breakers.h"
#include <stdbool.h>
#include <stdint.h>

enum gate_verdict {
    GATE_ALLOW,
    GATE_ALLOW_FAIL_OPEN, /* state not known: fail_mode open */
    GATE_ALLOW_OVERRIDE,  /* an override says closed, and nothing else had to be asked */
    GATE_DENY_OPEN,
    GATE_DENY_HALF_OPEN, /* throttled by the draw */
    GATE_DENY_UNKNOWN,   /* state not known: fail_mode closed */
    GATE_DENY_OVERRIDE,  /* an override says open */
};
/* Stands for the breaker's name while a route's breakers are selected from a list yet to come. */
#define GATE_UNRESOLVED_NAME "selected-by-metadata"

const char *gate_verdict_name(enum gate_verdict v);
bool gate_allows(enum gate_verdict v);

/* What turned a request away from a half-open breaker; the last two are probe.h's. */
enum half_open_bound {
    BOUND_NONE,
    BOUND_ALLOW_RATE, /* the server's */
    BOUND_ELIGIBLE,
    BOUND_PER_SECOND,
    BOUND_CONCURRENT,
};

struct gate_input {
    const uint64_t *words;  /* server words, one per breaker of the route */
    const uint64_t *locals; /* local words; looked at only with STATE_OVERRIDES in flags */
    int64_t now_ms;         /* monotonic: when overrides end */
    unsigned count;
    unsigned flags; /* breakers_flags() */
    bool fail_closed;
    bool ineligible; /* may not probe */
    bool unresolved; /* which breakers gate the route is not known yet */
    uint32_t draw;   /* uniform over 32 bits; one per request */
};

/* Why state was not known.  The names are label values: "never_synced", ... */
enum gate_doubt {
    DOUBT_NONE,
    DOUBT_NEVER_SYNCED, /* no snapshot or poll has come since the start, or since it is used */
    DOUBT_NOT_LOADED,   /* nor has the list that the route selects its breakers from */
    DOUBT_STALE,
    DOUBT_COUNT,
};
const char *gate_doubt_name(enum gate_doubt d);

struct gate_result {
    enum gate_verdict verdict;
    enum half_open_bound bound; /* of GATE_DENY_HALF_OPEN */
    enum gate_doubt doubt;      /* with GATE_ALLOW_FAIL_OPEN and GATE_DENY_UNKNOWN */
    unsigned breaker;           /* index of the one that decided; 0 if none did */
    uint32_t half_open_set;     /* BIT(index) of the half-open ones */
    uint32_t overridden;        /* BIT(index) of those an override spoke for */
    bool half_open;             /* a breaker of the route is half-open */
    bool all_closed;            /* every breaker known and closed */
    bool unknown_name;          /* synced, and the server lacks one of the names */
    bool null_rate;             /* half-open without a rate: a fault of the server's */
    bool bypassed;              /* nothing was asked, because bypass is on */
};

struct gate_result gate_check(const struct gate_input *in);

#endif
