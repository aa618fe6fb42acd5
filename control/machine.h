/*
 * machine.h - one breaker: closed, open, half_open, and why it moved.
 *
 * Pure: times are monotonic milliseconds given by the caller.  The rules are those
 * PROTOCOL section 7 proposes:
 *
 *   closed     samples are judged every eval_interval_ms (consecutive_failures also as
 *              each sample arrives); unhealthy -> open
 *   open       samples count for nothing; after the cooldown, doubled for every failed
 *              recovery up to the cap, and never before min_state_duration_ms -> half_open
 *   half_open  allow_rate = step / (ramp_steps + 1), step 1 at first; each healthy tick is
 *              one step up, unhealthy -> open, past the last step -> closed.  The ratchet
 *              never steps down.
 *
 * Three things keep a half-open breaker from being stuck while a healthy upstream is
 * asked, however rarely:
 *   - where the window holds fewer than min_count samples, all samples of the phase are
 *     judged instead, so that those which little traffic brings add up;
 *   - "pessimistic" gives a phase machine_patience_ms() before lack of data reopens it;
 *   - a phase that ended for lack of data leaves its samples to the next one.
 *
 * A sample counts only if its attempt began after the last half-open phase did: what was
 * sent before the trip says nothing about the upstream of now.
 */
#ifndef CONTROL_MACHINE_H
#define CONTROL_MACHINE_H
#include "control/evaluator.h"
#include <stdbool.h>
#include <stdint.h>

enum machine_state {
    MACHINE_CLOSED,    /* everything passes */
    MACHINE_OPEN,      /* nothing passes */
    MACHINE_HALF_OPEN, /* a share of allow_rate passes */
};
const char *machine_state_name(enum machine_state s);            /* as on the wire */
int machine_state_parse(const char *s, enum machine_state *out); /* -1: not one of them */

/* half_open_indeterminate_policy: what too little data means. */
enum machine_policy { MACHINE_OPTIMISTIC, MACHINE_CONSERVATIVE, MACHINE_PESSIMISTIC };
int machine_policy_parse(const char *s, enum machine_policy *out); /* -1: not one of them */

enum machine_reason {
    MACHINE_REASON_NONE,          /* never moved */
    MACHINE_REASON_UNHEALTHY,     /* closed -> open: the rule is met */
    MACHINE_REASON_COOLDOWN_OVER, /* open -> half_open */
    MACHINE_REASON_PROBES_FAILED, /* half_open -> open: the rule is met */
    MACHINE_REASON_NO_DATA,       /* half_open -> open: too few samples, policy pessimistic */
    MACHINE_REASON_RECOVERED,     /* half_open -> closed */
    MACHINE_REASON_RESUMED,       /* not a move: machine_resume */
};
const char *machine_reason_name(enum machine_reason r); /* "unhealthy", "cooldown_over", ... */

struct machine_rule {
    struct evaluator_rule metric;
    int64_t eval_interval_ms;      /* at least MACHINE_EVAL_MIN_MS */
    int64_t min_state_duration_ms; /* no move sooner than this after the last one */
    int64_t cooldown_ms;
    bool backoff;
    int64_t backoff_cap_ms; /* 0: MACHINE_BACKOFF_CAP_MS; never shortens the cooldown */
    enum machine_policy policy;
    int64_t ramp_steps; /* 0: all or nothing */
};

#define MACHINE_EVAL_MIN_MS    10
#define MACHINE_BACKOFF_CAP_MS INT64_C(300000)
#define MACHINE_REASON_SIZE    160

struct machine {
    struct machine_rule rule;
    struct evaluator evaluator;
    enum machine_state state;
    int64_t since_ms;      /* when it entered the state */
    int64_t fresh_from_ms; /* attempts begun before this count for nothing */
    int64_t next_eval_ms;  /* a multiple of eval_interval_ms, so that breakers share ticks */
    int64_t step;          /* half_open: 1 to ramp_steps + 1 */
    uint32_t failed_recoveries;
    enum machine_state from; /* of the last move, as is the reason */
    enum machine_reason reason;
    char reason_text[MACHINE_REASON_SIZE]; /* for people: "5 consecutive failures >= 5" */
};

enum machine_news {
    MACHINE_SAME,
    MACHINE_STEPPED, /* same state, another allow_rate */
    MACHINE_MOVED,   /* another state; from, reason and reason_text tell */
};

/* Values out of range are brought into it. */
void machine_init(struct machine *m, const struct machine_rule *rule, int64_t now_ms);
/* Only right after machine_init: goes on where a former run stood, open or half-open since
 * since_ms (not after now, may be negative).  Samples of that run are not known, so a half-open
 * phase begins anew: give it now. */
void machine_resume(struct machine *m, enum machine_state state, int64_t since_ms,
                    uint32_t failed_recoveries);
/* Goes on in its state under another rule; samples are kept if the metric's rule is the same. */
enum machine_news machine_set_rule(struct machine *m, const struct machine_rule *rule,
                                   int64_t now_ms);

/* One sample, received now, of an attempt that began at started_ms on the same clock. */
enum machine_news machine_sample(struct machine *m, int64_t now_ms, int64_t started_ms, bool ok);
/* Evaluates if next_eval_ms has come; may be called at any other time too. */
enum machine_news machine_tick(struct machine *m, int64_t now_ms);

double machine_allow_rate(const struct machine *m); /* closed 1, open 0 */
int64_t machine_open_ms(const struct machine *m);   /* how long open lasts, this time */
int64_t machine_patience_ms(const struct machine_rule *rule);

/*
 * The indeterminate policy: the verdict of a half-open tick with too little data.
 *   optimistic    healthy
 *   conservative  indeterminate, which holds the step
 *   pessimistic   unhealthy, once the phase has lasted patience_ms; until then it holds,
 *                 because the first tick of a phase comes before any probe can have ended
 */
enum evaluator_verdict machine_indeterminate(enum machine_policy policy, int64_t in_phase_ms,
                                             int64_t patience_ms);

#endif
