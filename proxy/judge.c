#include "proxy/judge.h"
#include "base/base.h"
#include "base/ring.h"
#include "proxy/exchange.h"
#include "proxy/proxy.h"
#include "proxy/snapshot.h"
#include "sync/attempt.h"
#include "sync/sync.h"
#include <math.h>

/* ---- Judging ---- */

static double metric_value(const struct exchange *ex, const struct metric *m)
{
    int64_t waited = ex->client_wait_us;
    int64_t now_us = worker_now_us(ex->w);
    if (ex->waiting_client)
        waited += now_us - ex->client_wait_began_us;
    switch (m->kind) {
    case METRIC_LATENCY: {
        int64_t end_us = ex->last_upstream_us ? ex->last_upstream_us : now_us;
        int64_t us = end_us - ex->start_us - waited;
        return us > 0 ? (double)us / 1000 : 0;
    }
    case METRIC_FIRST_BYTE:
        return ex->first_byte_us ? (double)(ex->first_byte_us - ex->start_us) / 1000 : NAN;
    case METRIC_CONNECT:
        return ex->connected_us >= 0 ? (double)ex->connected_us / 1000 : NAN;
    case METRIC_REQUEST_BYTES:
        return (double)ex->request_bytes;
    case METRIC_RESPONSE_BYTES:
        return (double)ex->response_bytes;
    case METRIC_CONSTANT:
        return m->constant;
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
        rec.values[i] = metric_value(ex, &r->metrics[i]);
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

void judge_record(struct exchange *ex)
{
    if (!ex->attempt_begun || !ex->attempt.fixed || ex->recorded)
        return;
    ex->recorded = true;
    count_sub(&ex->w->c.attempts_in_flight, 1);
    enum attempt_tier tier = ex->opaque ? TIER_OPAQUE : TIER_HTTP;
    COUNT(ex->w->c.routes[exchange_slot(ex)].attempts[tier][ex->attempt.outcome]);
    if (ex->shadow)
        judge_shadow(ex);
    const struct route *r = ex->route->cfg;
    if (ex->attempt.neutral)
        return;
    if (!r->router) {
        if (r->router_metadata.count > 0) /* none matches, or their list has not come */
            count_add(&ex->w->c.samples_skipped_total_w, r->metric_count);
        return;
    }
    /* Bypassed, mode off, or a host past the limit, which has no name to report to. */
    if (ex->ungated || (ex->route->templated && !ex->target->host_id))
        count_add(&ex->w->c.samples_skipped_total_w, r->metric_count);
    else
        push_record(ex);
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
    attempt_start(&ex->attempt, ex->route->cfg, ex->gate.half_open, worker_now_ms(ex->w));
    ex->attempt_begun = true;
    COUNT(ex->w->c.attempts_started_total);
    COUNT(ex->w->c.attempts_in_flight);
}
