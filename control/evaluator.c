#include "control/evaluator.h"

#include "base/base.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#define NO_SLOT INT64_MIN

static const struct {
    const char *name;
    const char *sign;
} ops[] = {
    [EVALUATOR_GT] = { "gt", ">" },
    [EVALUATOR_GTE] = { "gte", ">=" },
    [EVALUATOR_LT] = { "lt", "<" },
    [EVALUATOR_LTE] = { "lte", "<=" },
};

static const char *const kinds[] = {
    [EVALUATOR_ERROR_RATE] = "error_rate",
    [EVALUATOR_CONSECUTIVE_FAILURES] = "consecutive_failures",
};

int evaluator_kind_parse(const char *s, enum evaluator_kind *out)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(kinds[i], s) == 0) {
            *out = (enum evaluator_kind)i;
            return 0;
        }
    }
    return -1;
}

int evaluator_op_parse(const char *s, enum evaluator_op *out)
{
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        if (strcmp(ops[i].name, s) == 0) {
            *out = (enum evaluator_op)i;
            return 0;
        }
    }
    return -1;
}

void evaluator_init(struct evaluator *e, const struct evaluator_rule *rule)
{
    memset(e, 0, sizeof(*e));
    e->rule = *rule;
    if (e->rule.min_count < 1)
        e->rule.min_count = 1;
    if (e->rule.window_ms < 1)
        e->rule.window_ms = 1;
    e->width_ms = (e->rule.window_ms - 1) / EVALUATOR_BUCKETS + 1;
    evaluator_restart(e);
}

void evaluator_restart(struct evaluator *e)
{
    for (size_t i = 0; i < EVALUATOR_BUCKETS; i++)
        e->buckets[i] = (struct evaluator_bucket){ .slot = NO_SLOT };
    e->newest_slot = NO_SLOT;
    e->count = 0;
    e->failed = 0;
}

static int64_t slot_at(const struct evaluator *e, int64_t now_ms)
{
    int64_t slot = (now_ms < 0 ? 0 : now_ms) / e->width_ms;

    return slot < e->newest_slot ? e->newest_slot : slot;
}

void evaluator_add(struct evaluator *e, int64_t now_ms, bool ok)
{
    int64_t slot = slot_at(e, now_ms);
    struct evaluator_bucket *b = &e->buckets[slot % EVALUATOR_BUCKETS];

    e->newest_slot = slot;
    if (b->slot != slot)
        *b = (struct evaluator_bucket){ .slot = slot };
    b->count++;
    b->failed += !ok;
    e->count++;
    e->failed += !ok;
    e->run = ok ? 0 : e->run + 1;
}

static bool is_unhealthy(const struct evaluator_rule *rule, double aggregate)
{
    switch (rule->op) {
    case EVALUATOR_GT:
        return aggregate > rule->threshold;
    case EVALUATOR_GTE:
        return aggregate >= rule->threshold;
    case EVALUATOR_LT:
        return aggregate < rule->threshold;
    case EVALUATOR_LTE:
        return aggregate <= rule->threshold;
    }
    return false;
}

static struct evaluator_reading read_rate(const struct evaluator *e, uint64_t count,
                                          uint64_t failed)
{
    struct evaluator_reading r = {
        .verdict = VERDICT_INDETERMINATE,
        .aggregate = count ? (double)failed / (double)count : NAN,
        .count = count,
        .failed = failed,
    };

    if (count >= (uint64_t)e->rule.min_count)
        r.verdict = is_unhealthy(&e->rule, r.aggregate) ? VERDICT_UNHEALTHY : VERDICT_HEALTHY;
    return r;
}

/* A run that has begun but is below the threshold proves neither health nor the lack of it;
 * only a success as the last word does ("one success is a healthy verdict"). */
static struct evaluator_reading read_run(const struct evaluator *e)
{
    struct evaluator_reading r = {
        .verdict = VERDICT_INDETERMINATE,
        .aggregate = e->count ? (double)e->run : NAN,
        .count = e->count,
        .failed = e->failed,
    };

    if (e->count == 0)
        return r;
    if (is_unhealthy(&e->rule, r.aggregate))
        r.verdict = VERDICT_UNHEALTHY;
    else if (e->run == 0)
        r.verdict = VERDICT_HEALTHY;
    return r;
}

struct evaluator_reading evaluator_read(const struct evaluator *e, int64_t now_ms)
{
    int64_t oldest = slot_at(e, now_ms) - (EVALUATOR_BUCKETS - 1);
    uint64_t count = 0;
    uint64_t failed = 0;

    if (e->rule.kind == EVALUATOR_CONSECUTIVE_FAILURES)
        return read_run(e);
    for (size_t i = 0; i < EVALUATOR_BUCKETS; i++) {
        if (e->buckets[i].slot >= oldest) {
            count += e->buckets[i].count;
            failed += e->buckets[i].failed;
        }
    }
    return read_rate(e, count, failed);
}

struct evaluator_reading evaluator_read_all(const struct evaluator *e)
{
    if (e->rule.kind == EVALUATOR_CONSECUTIVE_FAILURES)
        return read_run(e);
    return read_rate(e, e->count, e->failed);
}

void evaluator_describe(const struct evaluator_rule *rule, const struct evaluator_reading *r,
                        char out[EVALUATOR_TEXT_SIZE])
{
    if (rule->kind == EVALUATOR_CONSECUTIVE_FAILURES)
        snprintf(out, EVALUATOR_TEXT_SIZE, "%.0f consecutive failure%s %s %g", r->aggregate,
                 r->aggregate == 1 ? "" : "s", ops[rule->op].sign, rule->threshold);
    else
        snprintf(out, EVALUATOR_TEXT_SIZE, "error rate %.4g %s %g (%llu of %llu samples)",
                 r->aggregate, ops[rule->op].sign, rule->threshold, (unsigned long long)r->failed,
                 (unsigned long long)r->count);
}
