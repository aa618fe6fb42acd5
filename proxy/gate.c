#include "proxy/gate.h"
#include "base/base.h"

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
    case GATE_ALLOW_OVERRIDE:
        return "allow_override";
    case GATE_DENY_OVERRIDE:
        return "deny_override";
    }
    return "?";
}

bool gate_allows(enum gate_verdict v)
{
    switch (v) {
    case GATE_ALLOW:
    case GATE_ALLOW_FAIL_OPEN:
    case GATE_ALLOW_OVERRIDE:
        return true;
    case GATE_DENY_OPEN:
    case GATE_DENY_HALF_OPEN:
    case GATE_DENY_UNKNOWN:
    case GATE_DENY_OVERRIDE:
        break;
    }
    return false;
}

const char *gate_doubt_name(enum gate_doubt d)
{
    switch (d) {
    case DOUBT_NONE:
        return "none";
    case DOUBT_NEVER_SYNCED:
        return "never_synced";
    case DOUBT_NOT_LOADED:
        return "not_loaded";
    case DOUBT_STALE:
        return "stale";
    case DOUBT_COUNT:
        break;
    }
    return "?";
}

/* Before the first snapshot is whole, what came of it says nothing about the rest. */
static enum gate_doubt doubt_of(const struct gate_input *in)
{
    if (!(in->flags & STATE_SYNCED))
        return DOUBT_NEVER_SYNCED;
    if (in->unresolved)
        return DOUBT_NOT_LOADED;
    return in->flags & STATE_STALE ? DOUBT_STALE : DOUBT_NONE;
}

/* What is kept while the breakers of a route are looked at, one after the other. */
struct look {
    struct gate_result r;
    uint64_t lowest; /* rate of the half-open ones */
    unsigned lowest_at;
    bool not_known; /* of a breaker that no override speaks for */
    unsigned not_known_at;
};

static enum breaker_state override_of(const struct gate_input *in, unsigned i)
{
    return in->flags & STATE_OVERRIDES ? breaker_local_state(in->locals[i], in->now_ms)
                                       : BREAKER_UNKNOWN;
}

/* True: it refuses, whatever the others say. */
static bool look_at_override(struct look *l, const struct gate_input *in, unsigned i,
                             enum breaker_state state)
{
    l->r.overridden |= BIT(i);
    if (breaker_unpack(in->words[i]).state != BREAKER_CLOSED)
        l->r.all_closed = false;
    if (state != BREAKER_OPEN)
        return false;
    l->r.verdict = GATE_DENY_OVERRIDE;
    l->r.breaker = i;
    return true;
}

static void look_at_doubt(struct look *l, unsigned i)
{
    if (!l->not_known)
        l->not_known_at = i;
    l->not_known = true;
}

/* The same for what the server says. */
static bool look_at_state(struct look *l, const struct gate_input *in, unsigned i)
{
    struct breaker_view v = breaker_unpack(in->words[i]);
    if (v.state != BREAKER_CLOSED)
        l->r.all_closed = false;
    switch (v.state) {
    case BREAKER_OPEN:
        l->r.verdict = GATE_DENY_OPEN;
        l->r.breaker = i;
        return true;
    case BREAKER_HALF_OPEN:
        l->r.half_open = true;
        l->r.half_open_set |= BIT(i);
        l->r.null_rate |= v.rate_null;
        if (v.rate < l->lowest) {
            l->lowest = v.rate;
            l->lowest_at = i;
        }
        break;
    case BREAKER_UNKNOWN:
        if (breaker_is_awaited(v) || in->flags & STATE_AWAITED)
            look_at_doubt(l, i);
        else
            l->r.unknown_name = true; /* synced, so the server does not have it */
        break;
    case BREAKER_CLOSED:
        break;
    }
    return false;
}

/* No breaker refuses outright. */
static struct gate_result conclude(struct look *l, const struct gate_input *in)
{
    bool throttles = l->r.half_open && (in->ineligible || in->draw >= l->lowest);
    if (l->not_known && (in->fail_closed || !throttles)) {
        enum gate_doubt doubt = doubt_of(in);
        l->r.doubt = doubt == DOUBT_NONE ? DOUBT_NEVER_SYNCED : doubt;
        l->r.verdict = in->fail_closed ? GATE_DENY_UNKNOWN : GATE_ALLOW_FAIL_OPEN;
        l->r.breaker = l->not_known_at;
        l->r.all_closed = false;
    } else if (l->r.half_open) {
        l->r.breaker = l->lowest_at;
        if (throttles) {
            l->r.verdict = GATE_DENY_HALF_OPEN;
            l->r.bound = in->ineligible ? BOUND_ELIGIBLE : BOUND_ALLOW_RATE;
        }
    } else if (l->r.overridden) {
        l->r.verdict = GATE_ALLOW_OVERRIDE;
        l->r.breaker = (unsigned)__builtin_ctz(l->r.overridden);
    }
    return l->r;
}

struct gate_result gate_check(const struct gate_input *in)
{
    struct look l = { .r = { .verdict = GATE_ALLOW, .all_closed = true },
                      .lowest = BREAKER_RATE_ONE + 1,
                      .not_known = in->unresolved };
    bool known = doubt_of(in) == DOUBT_NONE;
    l.r.bypassed = (in->count > 0 || in->unresolved) && in->flags & STATE_BYPASS;
    if (l.r.bypassed)
        return l.r;
    for (unsigned i = 0; i < in->count; i++) {
        enum breaker_state local = override_of(in, i);
        if (local != BREAKER_UNKNOWN) {
            if (look_at_override(&l, in, i, local))
                return l.r;
        } else if (!known) {
            look_at_doubt(&l, i);
        } else if (look_at_state(&l, in, i)) {
            return l.r;
        }
    }
    return conclude(&l, in);
}
