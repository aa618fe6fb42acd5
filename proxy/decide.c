#include "proxy/decide.h"
#include "base/base.h"
#include "base/log.h"
#include "proxy/answer.h"
#include "proxy/exchange.h"
#include "proxy/proxy.h"
#include "proxy/snapshot.h"
#include "proxy/switches.h"

/* breaker 0: which one it is nobody knows yet; such decisions are among those of "_other". */
static void count_decision(struct exchange *ex, uint32_t breaker, enum decision d)
{
    bool own = breaker != 0 && breaker < BREAKER_SLOTS - 1;
    unsigned slot = own ? breaker : BREAKER_SLOTS - 1;
    COUNT(ex->w->c.decisions[slot][d]);
}

/* The reasons of requests_without_state_total. */
static void count_doubt(struct exchange *ex)
{
    switch (ex->gate.doubt) {
    case DOUBT_NEVER_SYNCED:
        COUNT(ex->w->c.doubt_never_synced);
        break;
    case DOUBT_NOT_LOADED:
        COUNT(ex->w->c.doubt_not_loaded);
        break;
    case DOUBT_STALE:
        COUNT(ex->w->c.doubt_stale);
        break;
    case DOUBT_NONE:
    case DOUBT_COUNT:
        break;
    }
}

static void count_allowed(struct exchange *ex, const uint32_t *ids, unsigned count)
{
    enum decision d = ex->verdict == GATE_ALLOW_FAIL_OPEN ? DECISION_FAIL_OPEN : DECISION_ALLOW;
    for (unsigned i = 0; i < count; i++)
        count_decision(ex, ids[i], ex->gate.overridden & BIT(i) ? DECISION_OVERRIDE_ALLOW : d);
    if (count == 0)
        count_decision(ex, 0, d);
    if (ex->verdict == GATE_ALLOW_FAIL_OPEN)
        COUNT(ex->w->c.fail_open_requests_total);
    if (ex->gate.unknown_name)
        COUNT(ex->w->c.unknown_breaker_requests_total);
}

static void warn_null_rate(struct exchange *ex)
{
    static _Thread_local struct log_limit limit;
    uint64_t more;
    if (!log_limit_pass(&limit, worker_now_ms(ex->w), 60000, &more))
        return;
    const char *name = breakers_name(ex->w->proxy->breakers, ex->breaker, NULL);
    log_event(LOG_WARNING, "proxy", "breaker.null_rate",
              "a breaker is half-open without an allow_rate and admits nobody", "breaker", name,
              NULL);
}

static const char *half_open_detail(enum half_open_bound bound)
{
    switch (bound) {
    case BOUND_ELIGIBLE:
        return "the circuit breaker is half-open and half_open.eligible leaves this request out";
    case BOUND_PER_SECOND:
        return "the circuit breaker is half-open and half_open.max_per_second, or the share of "
               "fleet.max_per_second, is used up";
    case BOUND_CONCURRENT:
        return "the circuit breaker is half-open and half_open.max_concurrent is reached";
    case BOUND_NONE:
    case BOUND_ALLOW_RATE:
        break;
    }
    return "the circuit breaker is half-open and admits few requests";
}

/* How the gate's refusals look to clients and in the counters. */
static const struct refusal {
    enum decision decision;
    const char *name, *state, *detail; /* NULL: half_open_detail() */
} refusals[] = {
    [GATE_DENY_OPEN] = { DECISION_REJECT, "reject", "open",
                         "the circuit breaker of this upstream is open" },
    [GATE_DENY_HALF_OPEN] = { DECISION_THROTTLE, "throttle", "half_open", NULL },
    [GATE_DENY_UNKNOWN] = { DECISION_REJECT, "reject", "unknown",
                            "the state of the circuit breaker is not known and fail_mode is "
                            "closed" },
    [GATE_DENY_OVERRIDE] = { DECISION_OVERRIDE_REJECT, "reject", "override",
                             "an operator's override holds the circuit breaker of this upstream "
                             "open" },
};

static void refuse(struct exchange *ex)
{
    const struct route *r = ex->route->cfg;
    const struct breakers *breakers = ex->w->proxy->breakers;
    const struct refusal *how = &refusals[ex->verdict];
    size_t len = 0;
    const char *name = ex->breaker ? breakers_name(breakers, ex->breaker, &len) : NULL;
    if (!name) {
        name = GATE_UNRESOLVED_NAME; /* which one it would be nobody knows yet */
        len = strlen(name);
    }
    const char *body = r->reject.body, *type = r->reject.content_type;
    char reason[SWITCHES_REASON_MAX + 1];
    bool has_reason = ex->verdict == GATE_DENY_OVERRIDE &&
                      switches_reason(ex->w->proxy->switches, ex->breaker, reason);
    count_decision(ex, ex->breaker, how->decision);
    answer_send(
        ex, &(struct reply){ .status = r->reject.status,
                             .error = PERR_DESTINATION_UNAVAILABLE,
                             .detail = how->detail ? how->detail : half_open_detail(ex->gate.bound),
                             .breaker = name,
                             .breaker_len = len,
                             .breaker_state = how->state,
                             .decision = how->name,
                             .reason = has_reason ? reason : NULL,
                             .retry_after_ms = r->reject.retry_after_ms,
                             .body_type = type ? type : "text/plain; charset=utf-8",
                             .body = body,
                             .body_len = body ? strlen(body) : 0,
                             .headers = &r->reject.headers });
}

static int64_t request_body_bytes(const struct exchange *ex)
{
    switch (ex->request_body.framing) {
    case FRAMING_NONE:
        return 0;
    case FRAMING_LENGTH:
        return (int64_t)ex->request_body.left;
    case FRAMING_CHUNKED:
    case FRAMING_CLOSE:
        break;
    }
    return -1;
}

static bool may_probe(const struct exchange *ex, struct slice method)
{
    return probe_eligible(&ex->route->probe, method.p, method.len, request_body_bytes(ex));
}

/* The draw has admitted; now every half-open breaker must have room within the route's bounds. */
static void take_probe(struct exchange *ex, const uint32_t *ids, unsigned count)
{
    uint32_t probed[MAX_BREAKERS];
    unsigned n = 0, at;
    for (unsigned i = 0; i < count; i++) {
        bool wanted = ex->gate.half_open_set >> i & 1;
        for (unsigned k = 0; k < n; k++)
            wanted &= probed[k] != ids[i]; /* listed twice, it counts once */
        if (wanted)
            probed[n++] = ids[i];
    }
    enum half_open_bound bound = probe_admit(ex->w->proxy->probes, &ex->route->probe, probed, n,
                                             worker_now_us(ex->w), &ex->pass, &at);
    if (bound == BOUND_NONE)
        return;
    ex->verdict = GATE_DENY_HALF_OPEN;
    ex->gate.bound = bound;
    ex->breaker = probed[at];
}

static void count_bound(struct exchange *ex)
{
    switch (ex->gate.bound) {
    case BOUND_ELIGIBLE:
        COUNT(ex->w->c.half_open_limited_eligible);
        break;
    case BOUND_PER_SECOND:
        COUNT(ex->w->c.half_open_limited_rate);
        break;
    case BOUND_CONCURRENT:
        COUNT(ex->w->c.half_open_limited_concurrent);
        break;
    case BOUND_ALLOW_RATE:
        if (ex->gate.null_rate)
            warn_null_rate(ex);
        break;
    case BOUND_NONE:
        break;
    }
}

/* The verdict on a CONNECT goes for its first request too, if that takes the same route of the
 * same snapshot: with it come leases and time limit. */
static bool take_cover(struct exchange *ex)
{
    struct inner *inner = ex->down->inner;
    if (!inner || !inner->covered)
        return false;
    inner->covered = false;
    if (inner->route != ex->route->cfg->index || inner->generation != ex->snap->generation) {
        probe_release(&inner->pass);
        return false;
    }
    ex->gate = inner->gate;
    ex->verdict = inner->verdict;
    ex->breaker = inner->breaker;
    ex->bypassed = ex->gate.bypassed;
    ex->shadow = inner->shadow;
    ex->probe_until_ms = inner->probe_left_ms ? worker_now_ms(ex->w) + inner->probe_left_ms : 0;
    ex->pass = inner->pass;
    inner->pass.count = 0;
    return true;
}

/* The CONNECT had to be eligible itself, and says nothing of the request that came in it. */
static bool is_covered(struct exchange *ex, struct slice method)
{
    bool probes = gate_allows(ex->verdict) && ex->gate.half_open;
    if (!probes || may_probe(ex, method))
        return true;
    unsigned count = 0, first = (unsigned)__builtin_ctz(ex->gate.half_open_set);
    const uint32_t *ids = target_breakers(ex->target, ex->w, ex->snap, ex->route, &count);
    if (first < count)
        ex->breaker = ids[first]; /* with fail_mode open it is the one that is not known */
    probe_release(&ex->pass);
    ex->verdict = GATE_DENY_HALF_OPEN;
    ex->gate.bound = BOUND_ELIGIBLE;
    return false;
}

/* What the gate, and then the bounds of probes, make of the breakers of a route now. */
static void ask_gate(struct exchange *ex, struct slice method, const uint32_t *ids, unsigned count)
{
    const struct breakers *b = ex->w->proxy->breakers;
    uint64_t words[MAX_BREAKERS], locals[MAX_BREAKERS];
    struct gate_input in = { .words = words,
                             .locals = locals,
                             .count = count,
                             .flags = breakers_flags(b),
                             .fail_closed = ex->route->cfg->fail_mode == FAIL_CLOSED,
                             .ineligible = ex->route->probe.chooses && !may_probe(ex, method),
                             .unresolved = ex->route->unresolved,
                             .draw = prng_u32(&ex->w->prng) };
    for (unsigned i = 0; i < count; i++)
        words[i] = breakers_load(b, ids[i]);
    if (in.flags & STATE_OVERRIDES) {
        in.now_ms = worker_now_ms(ex->w);
        for (unsigned i = 0; i < count; i++)
            locals[i] = breakers_local(b, ids[i]);
    }
    ex->gate = gate_check(&in);
    ex->verdict = ex->gate.verdict;
    ex->bypassed = ex->gate.bypassed;
    if (ex->bypassed)
        return;
    ex->breaker = count > 0 ? ids[ex->gate.breaker] : 0;
    count_doubt(ex);
    if (gate_allows(ex->verdict) && ex->gate.half_open && !ex->no_place)
        take_probe(ex, ids, count);
}

/* True: only in shadow mode would it have been. */
static bool turn_away(struct exchange *ex)
{
    count_bound(ex);
    if (ex->route->cfg->mode == MODE_SHADOW) {
        ex->shadow = true;
        count_decision(ex, ex->breaker, DECISION_SHADOW_REJECT);
        return true;
    }
    refuse(ex);
    return false;
}

bool decide_pass(struct exchange *ex, struct slice method)
{
    const struct route *r = ex->route->cfg;
    ex->gate = (struct gate_result){ .all_closed = true };
    ex->verdict = GATE_ALLOW;
    bool covered = take_cover(ex);
    if (target_bypassed(ex->target, ex->snap)) {
        ex->bypassed = ex->ungated = true;
        return true;
    }
    if (r->mode == MODE_OFF) {
        ex->ungated = true;
        return true;
    }
    if (covered)
        return is_covered(ex, method) || turn_away(ex);
    unsigned count = 0;
    const uint32_t *ids = target_breakers(ex->target, ex->w, ex->snap, ex->route, &count);
    if (count == 0 && !ex->route->unresolved)
        return true;
    ask_gate(ex, method, ids, count);
    if (ex->bypassed)
        return true;
    if (gate_allows(ex->verdict)) {
        count_allowed(ex, ids, count);
        if (ex->gate.half_open && r->half_open.timeout_ms != OFF && r->mode == MODE_ENFORCE)
            ex->probe_until_ms = worker_now_ms(ex->w) + r->half_open.timeout_ms;
        return true;
    }
    return turn_away(ex);
}
