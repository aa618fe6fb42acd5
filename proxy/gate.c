#include "proxy/gate.h"

const char *gate_verdict_name(enum gate_verdict v)
{
    switch (v) {
    case GATE_ALLOW:
        return "allow";
    case GATE_ALLOW_FAIL_OPEN:
        return "allow_fail_open";
    case GATE_DENY_OPEN:
        return "deny_open";
    case GATE_DENY_HALF_OPEN:
        return "deny_half_open";
    case GATE_DENY_UNKNOWN:
        return "deny_unknown";
    }
    return "?";
}

static struct gate_result not_known(const struct gate_input *in, struct gate_result r, unsigned i)
{
    r.verdict = in->fail_closed ? GATE_DENY_UNKNOWN : GATE_ALLOW_FAIL_OPEN;
    r.breaker = i;
    r.all_closed = false;
    return r;
}

struct gate_result gate_check(const struct gate_input *in)
{
    struct gate_result r = { .verdict = GATE_ALLOW, .all_closed = true };
    if (in->count == 0 || in->flags & STATE_BYPASS)
        return r;
    /* Before the first snapshot is whole, what came of it says nothing about the rest. */
    if (in->flags & STATE_STALE || !(in->flags & STATE_SYNCED))
        return not_known(in, r, 0);

    uint64_t lowest = BREAKER_RATE_ONE + 1;
    unsigned lowest_at = 0;
    for (unsigned i = 0; i < in->count; i++) {
        struct breaker_view v = breaker_unpack(in->words[i]);
        if (v.state != BREAKER_CLOSED)
            r.all_closed = false;
        switch (v.state) {
        case BREAKER_OPEN:
            r.verdict = GATE_DENY_OPEN;
            r.breaker = i;
            return r;
        case BREAKER_HALF_OPEN:
            r.half_open = true;
            r.half_open_set |= 1u << i;
            r.null_rate |= v.rate_null;
            if (v.rate < lowest) {
                lowest = v.rate;
                lowest_at = i;
            }
            break;
        case BREAKER_UNKNOWN:
            r.unknown_name = true; /* synced, so the server does not have it */
            break;
        case BREAKER_CLOSED:
            break;
        }
    }
    r.breaker = r.half_open ? lowest_at : 0;
    if (r.half_open && (in->ineligible || in->draw >= lowest)) {
        r.verdict = GATE_DENY_HALF_OPEN;
        r.bound = in->ineligible ? BOUND_ELIGIBLE : BOUND_ALLOW_RATE;
    }
    return r;
}
