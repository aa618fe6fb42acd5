#include "proxy/classify.h"
#include "base/base.h"

void attempt_start(struct attempt *a, const struct route *route, bool half_open, int64_t now_ms)
{
    *a = (struct attempt){
        .route = route, .half_open = half_open, .clock_ms = -1, .wait_ms = now_ms, .head_ms = -1
    };
}

bool outcome_is_neutral(enum outcome o)
{
    return o == OUTCOME_LOCAL || o == OUTCOME_STALE || o == OUTCOME_NEUTRAL;
}

/* The one place where an outcome is fixed. */
static void fix(struct attempt *a, enum outcome outcome, bool ok, bool neutral)
{
    if (a->fixed)
        return;
    a->fixed = true;
    a->outcome = outcome;
    a->ok = ok;
    a->neutral = neutral || outcome_is_neutral(outcome);
}

/* What decided is noted with the decision. */
static void fix_by_rule(struct attempt *a, enum outcome outcome, unsigned rule)
{
    if (!a->fixed)
        a->rule = (uint8_t)rule;
    fix(a, outcome, false, false);
}

static void fix_success(struct attempt *a, int64_t took_us)
{
    int64_t limit_ms = a->route->failure.slower_than_ms;
    if (limit_ms != OFF && took_us > limit_ms * 1000)
        fix_by_rule(a, OUTCOME_SLOW, RULE_SLOWER_THAN);
    else
        fix(a, OUTCOME_SUCCESS, true, false);
}

/* What is still to come of the response is not counted in its bytes. */
static void note_early(struct attempt *a, bool too_late)
{
    if (a->fixed && !too_late)
        a->early = true;
}

void attempt_failed(struct attempt *a, enum outcome outcome)
{
    fix(a, outcome, !(a->route->failure.on & BIT(outcome)), false);
}

void attempt_clock(struct attempt *a, int64_t now_ms)
{
    a->clock_ms = a->wait_ms = now_ms;
}

void attempt_clock_stop(struct attempt *a)
{
    a->clock_ms = a->wait_ms = -1;
}

void attempt_response_byte(struct attempt *a)
{
    attempt_clock_stop(a);
}

void attempt_head(struct attempt *a, const struct attempt_head *h, int64_t now_ms)
{
    bool was_fixed = a->fixed;
    a->status = h->status;
    a->head_ms = now_ms;
    a->event_stream = h->event_stream;
    attempt_clock_stop(a);
    if (status_set_has(&a->route->neutral, h->status))
        fix(a, OUTCOME_NEUTRAL, true, true);
    else if (status_set_has(&a->route->failure.status, h->status))
        fix_by_rule(a, OUTCOME_STATUS, RULE_STATUS);
    else if (h->rule != RULE_NONE)
        fix_by_rule(a, OUTCOME_HEADER, h->rule);
    else if (h->status == 101 || (h->event_stream && !h->inspected))
        fix_success(a, h->took_us);
    note_early(a, was_fixed || h->whole);
}

void attempt_body(struct attempt *a, unsigned rule, bool at_end)
{
    bool was_fixed = a->fixed;
    fix_by_rule(a, OUTCOME_BODY, rule);
    note_early(a, was_fixed || at_end);
}

void attempt_end(struct attempt *a, int64_t took_us)
{
    fix_success(a, took_us);
}

void attempt_client_gone(struct attempt *a, int64_t now_ms, int64_t took_us)
{
    int64_t patience = a->route->failure.client_abort_after_ms;
    bool upstream_was_late = a->wait_ms >= 0 && patience != OFF && now_ms - a->wait_ms >= patience;
    /* Readers of event streams leave when they have heard enough. */
    if (a->event_stream)
        fix_success(a, took_us);
    fix(a, OUTCOME_CLIENT_ABORT, false, !upstream_was_late);
}

static int64_t no_response_after(const struct attempt *a)
{
    int64_t normal = a->route->failure.no_response_after_ms;
    int64_t probe = a->route->half_open.no_response_after_ms;
    if (!a->half_open || probe == OFF)
        return normal;
    return normal == OFF || probe < normal ? probe : normal;
}

int64_t attempt_deadline(const struct attempt *a)
{
    if (a->fixed)
        return OFF;
    if (a->head_ms >= 0)
        return a->head_ms + JUDGE_AFTER_HEAD_MS;
    int64_t after = no_response_after(a);
    return after == OFF || a->clock_ms < 0 ? OFF : a->clock_ms + after;
}

void attempt_tick(struct attempt *a, int64_t now_ms, int64_t took_us)
{
    int64_t at = attempt_deadline(a);
    if (at == OFF || now_ms < at)
        return;
    if (a->head_ms >= 0)
        fix_success(a, took_us);
    else
        fix(a, OUTCOME_NO_RESPONSE, false, false);
    note_early(a, false); /* a late answer is relayed all the same */
}
