#include "proxy/judge.h"
#include "base/base.h"
#include "base/ring.h"
#include "proxy/exchange.h"
#include "proxy/inspect.h"
#include "proxy/proxy.h"
#include "proxy/snapshot.h"
#include "sync/attempt.h"
#include "sync/sync.h"
#include <math.h>

/* ---- Judging ---- */

/* From the head being taken up to that moment, less the time spent waiting for the client. */
static int64_t elapsed_us(const struct exchange *ex, int64_t end_us)
{
    int64_t waited_us = ex->client_wait_us;
    if (ex->waiting_client)
        waited_us += worker_now_us(ex->w) - ex->client_wait_began_us;
    int64_t us = end_us - ex->start_us - waited_us;
    return us > 0 ? us : 0;
}

static int64_t latency_us(const struct exchange *ex)
{
    return elapsed_us(ex, ex->last_upstream_us ? ex->last_upstream_us : worker_now_us(ex->w));
}

/* Judged before the end of the response: how much of it will have come nobody knows yet.  A
 * tunnel with its first byte goes on in any case. */
static bool is_still_coming(const struct exchange *ex)
{
    return ex->opaque ? ex->first_byte_us != 0 : ex->attempt.early;
}

static double metric_value(const struct exchange *ex, size_t i)
{
    const struct metric *m = &ex->route->cfg->metrics[i];
    switch (m->kind) {
    case METRIC_LATENCY:
        return (double)latency_us(ex) / 1000;
    case METRIC_FIRST_BYTE:
        return ex->first_byte_us ? (double)(ex->first_byte_us - ex->start_us) / 1000 : NAN;
    case METRIC_CONNECT:
        return ex->connected_us >= 0 ? (double)ex->connected_us / 1000 : NAN;
    case METRIC_REQUEST_BYTES: /* of a request that has ended */
        return ex->opaque || ex->rq == RQ_STREAM ? NAN : (double)ex->request_bytes;
    case METRIC_RESPONSE_BYTES:
        return is_still_coming(ex) ? NAN : (double)ex->response_bytes;
    case METRIC_CONSTANT:
        return m->constant;
    case METRIC_JSON:
    case METRIC_HEADER:
        return ex->values_known ? ex->values[i] : NAN;
    }
    return NAN;
}

static void push_record(struct exchange *ex)
{
    const struct route *r = ex->route->cfg;
    struct attempt_record rec = {
        .route = r,
        .host = ex->target->host_id,
        .outcome = (uint8_t)ex->attempt.outcome,
        .rule = ex->attempt.rule,
        .ok = ex->attempt.ok,
        .urgent = !ex->attempt.ok || !ex->gate.all_closed,
        .opaque = ex->opaque,
        .status = (uint16_t)ex->attempt.status,
        .trace_len = ex->trace_len,
        .ts_ms = ex->start_wall_ms,
    };
    int64_t wall_ms = worker_wall_ms(ex->w);
    if (wall_ms - rec.ts_ms > 60000)
        rec.ts_ms = wall_ms;
    memcpy(rec.method, ex->method, sizeof(rec.method));
    memcpy(rec.trace_id, ex->trace_id, ex->trace_len);
    for (size_t i = 0; i < r->metric_count; i++)
        rec.values[i] = metric_value(ex, i);
    bool was_empty;
    if (!ring_push(ex->w->ring, &rec, &was_empty)) {
        COUNT(ex->w->c.samples_ring_full_total);
        for (size_t i = 0; i < r->metric_count; i++) {
            if (isnan(rec.values[i]))
                COUNT(ex->w->c.samples_skipped_total_w);
            else
                COUNT(ex->w->c.samples_ring_full_values_total);
        }
    } else if (was_empty) {
        sync_wake(ex->w->proxy->sync);
    }
}

void judge_shadow(struct exchange *ex)
{
    enum shadow_result r = !ex->attempt_begun || ex->attempt.neutral ? SHADOW_NEUTRAL
                           : ex->attempt.ok                          ? SHADOW_WRONG
                                                                     : SHADOW_RIGHT;
    COUNT(ex->w->c.routes[exchange_slot(ex)].shadow_refusals[r]);
}

static void count_and_sample(struct exchange *ex)
{
    count_sub(&ex->w->c.attempts_in_flight, 1);
    enum attempt_tier tier = ex->opaque ? TIER_OPAQUE : TIER_HTTP;
    COUNT(ex->w->c.routes[exchange_slot(ex)].attempts[tier][ex->attempt.outcome]);
    if (ex->shadow)
        judge_shadow(ex);
    if (ex->attempt.rule != RULE_NONE)
        COUNT(ex->w->c.rule_matches[exchange_slot(ex)][rule_slot(ex->route, ex->attempt.rule)]);
    const struct route *r = ex->route->cfg;
    if (ex->attempt.neutral)
        return;
    if (!r->router) {
        if (r->router_metadata.count > 0) /* none matches, or their list has not come */
            count_add(&ex->w->c.samples_skipped_total_w, r->metric_count);
        return;
    }
    /* Bypassed, mode off, or a host past the limit, which has no name to report to. */
    if (ex->ungated || (ex->route->templated_router && !ex->target->host_id))
        count_add(&ex->w->c.samples_skipped_total_w, r->metric_count);
    else
        push_record(ex);
}

static void count_trouble(struct exchange *ex, enum trouble t)
{
    if (t != TROUBLE_NONE)
        COUNT(ex->w->c.uninspected[t]);
}

void judge_free(struct exchange *ex)
{
    if (!ex->inspector)
        return;
    count_trouble(ex, inspector_trouble(ex->inspector));
    inspector_free(ex->inspector);
    ex->inspector = NULL;
}

void judge_record(struct exchange *ex)
{
    if (!ex->attempt_begun || !ex->attempt.fixed || ex->recorded)
        return;
    ex->recorded = true;
    count_and_sample(ex);
    judge_free(ex);
}

void judge_failed(struct exchange *ex, enum outcome outcome)
{
    if (!ex->attempt_begun)
        return;
    attempt_failed(&ex->attempt, outcome);
    judge_record(ex);
}

void judge_begin(struct exchange *ex)
{
    /* What only shadow mode lets through is no probe. */
    attempt_start(&ex->attempt, ex->route->cfg, ex->gate.half_open && !ex->shadow,
                  worker_now_ms(ex->w));
    ex->attempt_begun = true;
    COUNT(ex->w->c.attempts_started_total);
    COUNT(ex->w->c.attempts_in_flight);
}

/* ---- What the response says ---- */

static bool is_event_stream(const struct http1_head *h)
{
    const struct http1_field *f = http1_find(h, SLICE("content-type"));
    static const struct slice want = SLICE("text/event-stream");
    return f && f->value.len >= want.len &&
           slice_eq_nocase((struct slice){ f->value.p, want.len }, want) &&
           (f->value.len == want.len || f->value.p[want.len] == ';' || f->value.p[want.len] == ' ');
}

/* 101: bytes of another protocol follow. */
static bool has_no_body(const struct http1_head *h)
{
    bool none =
        h->framing == FRAMING_NONE || (h->framing == FRAMING_LENGTH && h->content_length == 0);
    return none && h->status != 101;
}

/* Only if the body can still change something. */
static void begin_inspection(struct exchange *ex, const struct http1_head *h, bool event_stream)
{
    enum trouble trouble;
    if (ex->attempt.fixed)
        return;
    ex->inspector = inspector_new(ex->route->plan, h, event_stream, ex->values, &trouble);
    count_trouble(ex, trouble);
}

void judge_head(struct exchange *ex, const struct http1_head *h)
{
    /* Where nothing is gated or reported, nothing is looked at either. */
    const struct inspect_plan *plan = ex->ungated ? NULL : ex->route->plan;
    struct attempt_head head = { .status = h->status,
                                 .event_stream = is_event_stream(h),
                                 .whole = has_no_body(h),
                                 .took_us = latency_us(ex) };
    ex->event_stream = head.event_stream;
    if (ex->attempt.fixed)
        COUNT(ex->w->c.late_answers_total);
    if (plan && !ex->attempt.fixed) {
        head.rule = inspect_head(plan, h, ex->values);
        head.inspected = inspect_wants_events(plan);
        ex->values_known = true;
    }
    attempt_head(&ex->attempt, &head, worker_now_ms(ex->w));
    judge_record(ex);
    if (plan && h->status != 101)
        begin_inspection(ex, h, head.event_stream);
}

bool judge_looks(const struct exchange *ex)
{
    return ex->inspector && !inspector_is_done(ex->inspector);
}

void judge_observe(void *arg, const uint8_t *bytes, size_t len)
{
    struct exchange *ex = arg;
    inspector_feed(ex->inspector, bytes, len);
}

static void judge_rule(struct exchange *ex, bool at_end)
{
    if (!ex->inspector || inspector_rule(ex->inspector) == RULE_NONE)
        return;
    attempt_body(&ex->attempt, inspector_rule(ex->inspector), at_end);
    judge_record(ex);
}

void judge_body(struct exchange *ex)
{
    judge_rule(ex, false);
}

void judge_end(struct exchange *ex)
{
    if (ex->inspector)
        inspector_end(ex->inspector);
    judge_rule(ex, true);
    attempt_end(&ex->attempt, latency_us(ex));
    judge_record(ex);
}

void judge_client_gone(struct exchange *ex, int64_t at_ms)
{
    if (!ex->attempt_begun)
        return;
    attempt_client_gone(&ex->attempt, at_ms, latency_us(ex));
    judge_record(ex);
}

void judge_tick(struct exchange *ex)
{
    attempt_tick(&ex->attempt, worker_now_ms(ex->w), elapsed_us(ex, worker_now_us(ex->w)));
    judge_record(ex);
}
