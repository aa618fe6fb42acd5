#include "control/machine.h"

#include "base/base.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Bounds that keep every sum and product below far from overflow. */
#define DURATION_MAX_MS (INT64_C(30) * 24 * 3600 * 1000)
#define RAMP_MAX        1000

/* Two clocks cut to milliseconds may disagree by one about when an attempt began. */
#define CLOCK_GRAIN_MS 1

/* Where a breaker may go next. */
static const unsigned next_ok[] = {
    [MACHINE_CLOSED] = BIT(MACHINE_OPEN),
    [MACHINE_OPEN] = BIT(MACHINE_HALF_OPEN),
    [MACHINE_HALF_OPEN] = BIT(MACHINE_CLOSED) | BIT(MACHINE_OPEN),
};

const char *machine_state_name(enum machine_state s)
{
    switch (s) {
    case MACHINE_CLOSED:
        return "closed";
    case MACHINE_OPEN:
        return "open";
    case MACHINE_HALF_OPEN:
        return "half_open";
    }
    return "?";
}

int machine_state_parse(const char *s, enum machine_state *out)
{
    static const enum machine_state all[] = { MACHINE_CLOSED, MACHINE_OPEN, MACHINE_HALF_OPEN };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (strcmp(machine_state_name(all[i]), s) == 0) {
            *out = all[i];
            return 0;
        }
    }
    return -1;
}

const char *machine_reason_name(enum machine_reason r)
{
    switch (r) {
    case MACHINE_REASON_NONE:
        return "none";
    case MACHINE_REASON_UNHEALTHY:
        return "unhealthy";
    case MACHINE_REASON_COOLDOWN_OVER:
        return "cooldown_over";
    case MACHINE_REASON_PROBES_FAILED:
        return "probes_failed";
    case MACHINE_REASON_NO_DATA:
        return "no_data";
    case MACHINE_REASON_RECOVERED:
        return "recovered";
    case MACHINE_REASON_RESUMED:
        return "resumed";
    }
    return "?";
}

static const char *policy_name(enum machine_policy p)
{
    switch (p) {
    case MACHINE_OPTIMISTIC:
        return "optimistic";
    case MACHINE_CONSERVATIVE:
        return "conservative";
    case MACHINE_PESSIMISTIC:
        return "pessimistic";
    }
    return "?";
}

int machine_policy_parse(const char *s, enum machine_policy *out)
{
    static const enum machine_policy all[] = { MACHINE_OPTIMISTIC, MACHINE_CONSERVATIVE,
                                               MACHINE_PESSIMISTIC };

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (strcmp(policy_name(all[i]), s) == 0) {
            *out = all[i];
            return 0;
        }
    }
    return -1;
}

static int64_t clamp(int64_t v, int64_t lo, int64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

static struct machine_rule within_bounds(const struct machine_rule *rule)
{
    struct machine_rule r = *rule;

    r.metric.window_ms = clamp(r.metric.window_ms, 1, DURATION_MAX_MS);
    r.metric.min_count = clamp(r.metric.min_count, 1, INT64_MAX);
    r.eval_interval_ms = clamp(r.eval_interval_ms, MACHINE_EVAL_MIN_MS, DURATION_MAX_MS);
    r.min_state_duration_ms = clamp(r.min_state_duration_ms, 0, DURATION_MAX_MS);
    r.cooldown_ms = clamp(r.cooldown_ms, 0, DURATION_MAX_MS);
    if (r.backoff_cap_ms <= 0)
        r.backoff_cap_ms = MACHINE_BACKOFF_CAP_MS;
    r.backoff_cap_ms = clamp(r.backoff_cap_ms, 1, DURATION_MAX_MS);
    r.ramp_steps = clamp(r.ramp_steps, 0, RAMP_MAX);
    return r;
}

static int64_t next_eval(const struct machine *m, int64_t now_ms)
{
    return (now_ms / m->rule.eval_interval_ms + 1) * m->rule.eval_interval_ms;
}

void machine_init(struct machine *m, const struct machine_rule *rule, int64_t now_ms)
{
    memset(m, 0, sizeof(*m));
    m->rule = within_bounds(rule);
    evaluator_init(&m->evaluator, &m->rule.metric);
    m->state = MACHINE_CLOSED;
    m->from = MACHINE_CLOSED;
    m->since_ms = now_ms;
    m->fresh_from_ms = INT64_MIN + CLOCK_GRAIN_MS;
    m->next_eval_ms = next_eval(m, now_ms);
}

void machine_resume(struct machine *m, enum machine_state state, int64_t since_ms,
                    uint32_t failed_recoveries)
{
    if (BUG(m->reason != MACHINE_REASON_NONE || state == MACHINE_CLOSED))
        return;
    m->state = state;
    m->from = state;
    m->reason = MACHINE_REASON_RESUMED;
    m->since_ms = since_ms;
    m->failed_recoveries = failed_recoveries;
    if (state == MACHINE_HALF_OPEN) {
        m->fresh_from_ms = since_ms;
        m->step = 1;
    }
}

static bool same_metric(const struct evaluator_rule *a, const struct evaluator_rule *b)
{
    return a->kind == b->kind && a->op == b->op && a->threshold == b->threshold &&
           a->window_ms == b->window_ms && a->min_count == b->min_count;
}

enum machine_news machine_set_rule(struct machine *m, const struct machine_rule *rule,
                                   int64_t now_ms)
{
    double before = machine_allow_rate(m);
    struct machine_rule next = within_bounds(rule);

    if (!same_metric(&m->rule.metric, &next.metric)) {
        uint64_t run = m->evaluator.run;

        evaluator_init(&m->evaluator, &next.metric);
        m->evaluator.run = run;
    }
    m->rule = next;
    m->step = clamp(m->step, 0, next.ramp_steps + 1);
    m->next_eval_ms = next_eval(m, now_ms);
    return machine_allow_rate(m) == before ? MACHINE_SAME : MACHINE_STEPPED;
}

double machine_allow_rate(const struct machine *m)
{
    switch (m->state) {
    case MACHINE_CLOSED:
        return 1.0;
    case MACHINE_OPEN:
        return 0.0;
    case MACHINE_HALF_OPEN:
        return (double)m->step / (double)(m->rule.ramp_steps + 1);
    }
    return 1.0;
}

int64_t machine_open_ms(const struct machine *m)
{
    const struct machine_rule *r = &m->rule;
    int64_t wait = r->cooldown_ms;

    if (r->backoff && wait > 0) {
        for (uint32_t i = 0; i < m->failed_recoveries && wait < r->backoff_cap_ms; i++)
            wait *= 2;
        wait = clamp(wait, r->cooldown_ms,
                     r->backoff_cap_ms > r->cooldown_ms ? r->backoff_cap_ms : r->cooldown_ms);
    }
    return wait > r->min_state_duration_ms ? wait : r->min_state_duration_ms;
}

int64_t machine_patience_ms(const struct machine_rule *rule)
{
    int64_t confirmation = (rule->ramp_steps + 1) * rule->eval_interval_ms;

    return rule->metric.window_ms > confirmation ? rule->metric.window_ms : confirmation;
}

enum evaluator_verdict machine_indeterminate(enum machine_policy policy, int64_t in_phase_ms,
                                             int64_t patience_ms)
{
    switch (policy) {
    case MACHINE_OPTIMISTIC:
        return VERDICT_HEALTHY;
    case MACHINE_CONSERVATIVE:
        return VERDICT_INDETERMINATE;
    case MACHINE_PESSIMISTIC:
        return in_phase_ms < patience_ms ? VERDICT_INDETERMINATE : VERDICT_UNHEALTHY;
    }
    return VERDICT_INDETERMINATE;
}

/* A breaker that has never moved has nothing to settle from: it may trip at once. */
static bool is_settled(const struct machine *m, int64_t now_ms)
{
    return m->reason == MACHINE_REASON_NONE ||
           now_ms - m->since_ms >= m->rule.min_state_duration_ms;
}

/* The one place that moves it to another state. */
__attribute__((format(printf, 5, 6))) static enum machine_news
machine_enter(struct machine *m, enum machine_state next, int64_t now_ms,
              enum machine_reason reason, const char *fmt, ...)
{
    va_list ap;

    if (BUG(!(next_ok[m->state] & BIT(next))))
        return MACHINE_SAME;
    m->from = m->state;
    m->state = next;
    m->since_ms = now_ms;
    m->reason = reason;
    va_start(ap, fmt);
    vsnprintf(m->reason_text, sizeof(m->reason_text), fmt, ap);
    va_end(ap);
    return MACHINE_MOVED;
}

static enum machine_news trip(struct machine *m, int64_t now_ms, const struct evaluator_reading *r)
{
    char text[EVALUATOR_TEXT_SIZE];

    if (!is_settled(m, now_ms))
        return MACHINE_SAME;
    evaluator_describe(&m->rule.metric, r, text);
    if (m->state == MACHINE_CLOSED)
        return machine_enter(m, MACHINE_OPEN, now_ms, MACHINE_REASON_UNHEALTHY, "%s", text);
    if (m->failed_recoveries < UINT32_MAX)
        m->failed_recoveries++;
    return machine_enter(m, MACHINE_OPEN, now_ms, MACHINE_REASON_PROBES_FAILED,
                         "%s while half open", text);
}

static enum machine_news give_up_waiting(struct machine *m, int64_t now_ms, uint64_t seen)
{
    if (!is_settled(m, now_ms))
        return MACHINE_SAME;
    if (m->failed_recoveries < UINT32_MAX)
        m->failed_recoveries++;
    return machine_enter(m, MACHINE_OPEN, now_ms, MACHINE_REASON_NO_DATA,
                         "no verdict from %" PRIu64 " samples in %" PRId64 " ms, policy %s", seen,
                         now_ms - m->since_ms, policy_name(m->rule.policy));
}

static enum machine_news step_up(struct machine *m, int64_t now_ms)
{
    int64_t last = m->rule.ramp_steps + 1;

    if (m->step < last) {
        m->step++;
        return MACHINE_STEPPED;
    }
    if (!is_settled(m, now_ms))
        return MACHINE_SAME;
    m->failed_recoveries = 0;
    return machine_enter(m, MACHINE_CLOSED, now_ms, MACHINE_REASON_RECOVERED,
                         "all %" PRId64 " recovery steps were healthy", last);
}

static enum machine_news tick_closed(struct machine *m, int64_t now_ms)
{
    struct evaluator_reading r = evaluator_read(&m->evaluator, now_ms);

    return r.verdict == VERDICT_UNHEALTHY ? trip(m, now_ms, &r) : MACHINE_SAME;
}

static enum machine_news tick_open(struct machine *m, int64_t now_ms)
{
    int64_t wait = machine_open_ms(m);

    if (now_ms - m->since_ms < wait)
        return MACHINE_SAME;
    if (m->reason != MACHINE_REASON_NO_DATA)
        evaluator_restart(&m->evaluator);
    m->fresh_from_ms = now_ms;
    m->step = 1;
    return machine_enter(m, MACHINE_HALF_OPEN, now_ms, MACHINE_REASON_COOLDOWN_OVER,
                         "cooldown of %" PRId64 " ms is over, failed recoveries so far: %" PRIu32,
                         wait, m->failed_recoveries);
}

static enum machine_news tick_half_open(struct machine *m, int64_t now_ms)
{
    struct evaluator_reading r = evaluator_read(&m->evaluator, now_ms);

    if (r.verdict == VERDICT_INDETERMINATE)
        r = evaluator_read_all(&m->evaluator);
    switch (r.verdict) {
    case VERDICT_HEALTHY:
        return step_up(m, now_ms);
    case VERDICT_UNHEALTHY:
        return trip(m, now_ms, &r);
    case VERDICT_INDETERMINATE:
        break;
    }
    switch (machine_indeterminate(m->rule.policy, now_ms - m->since_ms,
                                  machine_patience_ms(&m->rule))) {
    case VERDICT_HEALTHY:
        return step_up(m, now_ms);
    case VERDICT_UNHEALTHY:
        return give_up_waiting(m, now_ms, r.count);
    case VERDICT_INDETERMINATE:
        break;
    }
    return MACHINE_SAME;
}

enum machine_news machine_tick(struct machine *m, int64_t now_ms)
{
    if (now_ms < m->next_eval_ms)
        return MACHINE_SAME;
    m->next_eval_ms = next_eval(m, now_ms);
    switch (m->state) {
    case MACHINE_CLOSED:
        return tick_closed(m, now_ms);
    case MACHINE_OPEN:
        return tick_open(m, now_ms);
    case MACHINE_HALF_OPEN:
        return tick_half_open(m, now_ms);
    }
    return MACHINE_SAME;
}

enum machine_news machine_sample(struct machine *m, int64_t now_ms, int64_t started_ms, bool ok)
{
    struct evaluator_reading r;

    if (m->state == MACHINE_OPEN || started_ms < m->fresh_from_ms - CLOCK_GRAIN_MS)
        return MACHINE_SAME;
    evaluator_add(&m->evaluator, now_ms, ok);
    if (m->rule.metric.kind != EVALUATOR_CONSECUTIVE_FAILURES)
        return MACHINE_SAME;
    r = evaluator_read(&m->evaluator, now_ms);
    return r.verdict == VERDICT_UNHEALTHY ? trip(m, now_ms, &r) : MACHINE_SAME;
}
