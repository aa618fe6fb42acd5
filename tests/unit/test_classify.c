/* How attempts end: every row and every clock of the table of outcomes. */
#include "proxy/classify.h"

#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define START 1000000

static void add_status(struct status_set *s, unsigned first, unsigned last)
{
    for (unsigned i = first; i <= last; i++)
        s->bits[i / 8] |= (uint8_t)(1u << (i % 8));
}

/* The defaults of DESIGN. */
static struct route default_route(void)
{
    struct route r = { .name = (char *)"r" };

    add_status(&r.failure.status, 500, 599);
    r.failure.on = BIT(OUTCOME_CONNECT) | BIT(OUTCOME_DNS) | BIT(OUTCOME_TLS) |
                   BIT(OUTCOME_TIMEOUT) | BIT(OUTCOME_RESET) | BIT(OUTCOME_PROTOCOL);
    r.failure.no_response_after_ms = 30000;
    r.failure.client_abort_after_ms = 2000;
    r.failure.slower_than_ms = OFF;
    r.half_open.no_response_after_ms = 5000;
    return r;
}

/* What happens to an attempt, and when.  "at" counts from the attempt's start. */
enum what {
    STEP_END, /* of the script */
    STEP_FAILED,
    STEP_CLOCK, /* the upstream took a byte of the request */
    STEP_STOP,  /* we wait for the client */
    STEP_BYTE,
    STEP_HEAD,
    STEP_STREAM_HEAD,
    STEP_RULE_HEAD,    /* the second of failure.headers matches */
    STEP_WATCHED_HEAD, /* an event stream that is looked into */
    STEP_WHOLE_HEAD,
    STEP_BODY,
    STEP_LAST_BODY, /* that rule of failure.body matches */
    STEP_DONE,
    STEP_GONE,
    STEP_TICK,
};

struct step {
    enum what what;
    int64_t at;
    unsigned arg; /* status, or outcome */
};

#define END                                                                                        \
    {                                                                                              \
        STEP_END, 0, 0                                                                             \
    }
#define FAILED(outcome)                                                                            \
    {                                                                                              \
        STEP_FAILED, 0, outcome                                                                    \
    }
#define CLOCK(at)                                                                                  \
    {                                                                                              \
        STEP_CLOCK, at, 0                                                                          \
    }
#define STOP                                                                                       \
    {                                                                                              \
        STEP_STOP, 0, 0                                                                            \
    }
#define BYTE                                                                                       \
    {                                                                                              \
        STEP_BYTE, 0, 0                                                                            \
    }
#define HEAD(at, status)                                                                           \
    {                                                                                              \
        STEP_HEAD, at, status                                                                      \
    }
#define STREAM_HEAD(at, status)                                                                    \
    {                                                                                              \
        STEP_STREAM_HEAD, at, status                                                               \
    }
#define RULE_HEAD(at, status)                                                                      \
    {                                                                                              \
        STEP_RULE_HEAD, at, status                                                                 \
    }
#define WATCHED_HEAD(at, status)                                                                   \
    {                                                                                              \
        STEP_WATCHED_HEAD, at, status                                                              \
    }
#define WHOLE_HEAD(at, status)                                                                     \
    {                                                                                              \
        STEP_WHOLE_HEAD, at, status                                                                \
    }
#define LAST_BODY(rule)                                                                            \
    {                                                                                              \
        STEP_LAST_BODY, 0, rule                                                                    \
    }
#define BODY(rule)                                                                                 \
    {                                                                                              \
        STEP_BODY, 0, rule                                                                         \
    }
#define DONE_AT(at)                                                                                \
    {                                                                                              \
        STEP_DONE, at, 0                                                                           \
    }
#define DONE DONE_AT(0)
#define GONE(at)                                                                                   \
    {                                                                                              \
        STEP_GONE, at, 0                                                                           \
    }
#define TICK(at)                                                                                   \
    {                                                                                              \
        STEP_TICK, at, 0                                                                           \
    }

static void play(struct attempt *a, const struct step *s)
{
    for (; s->what != STEP_END; s++) {
        switch (s->what) {
        case STEP_END:
            break;
        case STEP_FAILED:
            attempt_failed(a, (enum outcome)s->arg);
            break;
        case STEP_CLOCK:
            attempt_clock(a, START + s->at);
            break;
        case STEP_STOP:
            attempt_clock_stop(a);
            break;
        case STEP_BYTE:
            attempt_response_byte(a);
            break;
        case STEP_HEAD:
        case STEP_STREAM_HEAD:
        case STEP_RULE_HEAD:
        case STEP_WATCHED_HEAD:
        case STEP_WHOLE_HEAD:
            attempt_head(
                a,
                &(struct attempt_head){
                    .status = s->arg,
                    .rule = s->what == STEP_RULE_HEAD ? RULE_HEADERS + 1 : RULE_NONE,
                    .event_stream = s->what == STEP_STREAM_HEAD || s->what == STEP_WATCHED_HEAD,
                    .inspected = s->what == STEP_WATCHED_HEAD,
                    .whole = s->what == STEP_WHOLE_HEAD,
                    .took_us = s->at * 1000 },
                START + s->at);
            break;
        case STEP_BODY:
        case STEP_LAST_BODY:
            attempt_body(a, RULE_BODY + s->arg, s->what == STEP_LAST_BODY);
            break;
        case STEP_DONE:
            attempt_end(a, s->at * 1000);
            break;
        case STEP_GONE:
            attempt_client_gone(a, START + s->at, s->at * 1000);
            break;
        case STEP_TICK:
            attempt_tick(a, START + s->at, s->at * 1000);
            break;
        }
    }
}

enum verdict { OPEN, GOOD, BAD, NEUTRAL };

static const char *verdict_name(enum verdict v)
{
    static const char *const names[] = { "not fixed", "ok", "failure", "neutral" };
    return names[v];
}

static enum verdict verdict_of(const struct attempt *a)
{
    return !a->fixed ? OPEN : a->neutral ? NEUTRAL : a->ok ? GOOD : BAD;
}

struct story {
    const char *name;
    struct step steps[8];
    enum verdict want;
    enum outcome outcome; /* unless OPEN */
    bool half_open;
};

static void check(const struct route *route, const struct story *stories, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct attempt a;
        attempt_start(&a, route, stories[i].half_open, START);
        play(&a, stories[i].steps);
        enum verdict got = verdict_of(&a);
        if (got != stories[i].want || (got != OPEN && a.outcome != stories[i].outcome))
            fail_msg("%s: got %s (%s), want %s (%s)", stories[i].name, verdict_name(got),
                     a.fixed ? outcome_name(a.outcome) : "-", verdict_name(stories[i].want),
                     stories[i].want == OPEN ? "-" : outcome_name(stories[i].outcome));
    }
}

static void each_outcome_has_its_default_verdict(void **state)
{
    (void)state;
    struct route r = default_route();
    static const struct story stories[] = {
        { "nothing happened yet", { END }, OPEN, 0, false },
        { "200 and its end", { HEAD(1, 200), DONE }, GOOD, OUTCOME_SUCCESS, false },
        { "200, still going", { HEAD(1, 200) }, OPEN, 0, false },
        { "499 is no failure", { HEAD(1, 499), DONE }, GOOD, OUTCOME_SUCCESS, false },
        { "500 at the head", { HEAD(1, 500) }, BAD, OUTCOME_STATUS, false },
        { "599 at the head", { HEAD(1, 599) }, BAD, OUTCOME_STATUS, false },
        { "999, which counts as a 5xx", { HEAD(1, 999) }, BAD, OUTCOME_STATUS, false },
        { "101 at the head", { HEAD(1, 101) }, GOOD, OUTCOME_SUCCESS, false },
        { "event stream at the head", { STREAM_HEAD(1, 200) }, GOOD, OUTCOME_SUCCESS, false },
        { "failed event stream", { STREAM_HEAD(1, 503) }, BAD, OUTCOME_STATUS, false },
        { "connect", { FAILED(OUTCOME_CONNECT) }, BAD, OUTCOME_CONNECT, false },
        { "dns", { FAILED(OUTCOME_DNS) }, BAD, OUTCOME_DNS, false },
        { "tls", { FAILED(OUTCOME_TLS) }, BAD, OUTCOME_TLS, false },
        { "timeout", { FAILED(OUTCOME_TIMEOUT) }, BAD, OUTCOME_TIMEOUT, false },
        { "reset", { FAILED(OUTCOME_RESET) }, BAD, OUTCOME_RESET, false },
        { "protocol", { FAILED(OUTCOME_PROTOCOL) }, BAD, OUTCOME_PROTOCOL, false },
        { "truncated body", { HEAD(1, 200), FAILED(OUTCOME_RESET) }, BAD, OUTCOME_RESET, false },
        { "local", { FAILED(OUTCOME_LOCAL) }, NEUTRAL, OUTCOME_LOCAL, false },
        { "stale", { FAILED(OUTCOME_STALE) }, NEUTRAL, OUTCOME_STALE, false },
        { "neutral", { FAILED(OUTCOME_NEUTRAL) }, NEUTRAL, OUTCOME_NEUTRAL, false },
    };

    check(&r, stories, ARRAY_LEN(stories));
}

static void the_first_of_them_fixes_the_outcome(void **state)
{
    (void)state;
    struct route r = default_route();
    static const struct story stories[] = {
        { "reset after a 500",
          { HEAD(1, 500), FAILED(OUTCOME_RESET) },
          BAD,
          OUTCOME_STATUS,
          false },
        { "end after a 500", { HEAD(1, 500), DONE }, BAD, OUTCOME_STATUS, false },
        { "cut event stream",
          { STREAM_HEAD(1, 200), FAILED(OUTCOME_RESET) },
          GOOD,
          OUTCOME_SUCCESS,
          false },
        { "cut websocket", { HEAD(1, 101), FAILED(OUTCOME_RESET) }, GOOD, OUTCOME_SUCCESS, false },
        { "200 after no_response",
          { CLOCK(0), TICK(30000), HEAD(30001, 200), DONE },
          BAD,
          OUTCOME_NO_RESPONSE,
          false },
        { "500 after no_response",
          { CLOCK(0), TICK(30000), HEAD(30001, 500) },
          BAD,
          OUTCOME_NO_RESPONSE,
          false },
        { "reset after no_response",
          { CLOCK(0), TICK(30000), FAILED(OUTCOME_RESET) },
          BAD,
          OUTCOME_NO_RESPONSE,
          false },
        { "client gone after no_response",
          { CLOCK(0), TICK(30000), GONE(40000) },
          BAD,
          OUTCOME_NO_RESPONSE,
          false },
        { "client gone after the end",
          { HEAD(1, 200), DONE, GONE(5000) },
          GOOD,
          OUTCOME_SUCCESS,
          false },
        { "local cut after a 200's end",
          { HEAD(1, 200), DONE, FAILED(OUTCOME_LOCAL) },
          GOOD,
          OUTCOME_SUCCESS,
          false },
        { "end after a local cut",
          { HEAD(1, 200), FAILED(OUTCOME_LOCAL), DONE },
          NEUTRAL,
          OUTCOME_LOCAL,
          false },
        { "reset after the client went",
          { HEAD(1, 200), GONE(9), FAILED(OUTCOME_RESET) },
          NEUTRAL,
          OUTCOME_CLIENT_ABORT,
          false },
    };

    check(&r, stories, ARRAY_LEN(stories));
}

static void no_response_counts_from_the_last_byte_that_the_upstream_took(void **state)
{
    (void)state;
    struct route r = default_route();
    static const struct story stories[] = {
        { "one millisecond early", { CLOCK(0), TICK(29999) }, OPEN, 0, false },
        { "on the dot", { CLOCK(0), TICK(30000) }, BAD, OUTCOME_NO_RESPONSE, false },
        { "no clock while connecting", { TICK(100000) }, OPEN, 0, false },
        { "each byte restarts it", { CLOCK(0), CLOCK(20000), TICK(49999) }, OPEN, 0, false },
        { "and it ends from there",
          { CLOCK(0), CLOCK(20000), TICK(50000) },
          BAD,
          OUTCOME_NO_RESPONSE,
          false },
        { "not while the client owes a body", { CLOCK(0), STOP, TICK(100000) }, OPEN, 0, false },
        { "again when the client went on",
          { CLOCK(0), STOP, CLOCK(50000), TICK(80000) },
          BAD,
          OUTCOME_NO_RESPONSE,
          false },
        { "a first byte stops it", { CLOCK(0), BYTE, TICK(100000) }, OPEN, 0, false },
        { "a head stops it", { CLOCK(0), HEAD(10, 200), TICK(30000) }, OPEN, 0, false },
        { "half-open: early", { CLOCK(0), TICK(4999) }, OPEN, 0, true },
        { "half-open: its shorter one", { CLOCK(0), TICK(5000) }, BAD, OUTCOME_NO_RESPONSE, true },
    };

    check(&r, stories, ARRAY_LEN(stories));
}

static void the_shorter_no_response_wins_in_half_open_only(void **state)
{
    (void)state;
    static const struct {
        int64_t normal, probe;
        bool half_open;
        int64_t want; /* from the clock; OFF: never */
    } cases[] = {
        { 30000, 5000, false, 30000 }, { 30000, 5000, true, 5000 }, { 3000, 5000, true, 3000 },
        { 5000, 5000, true, 5000 },    { OFF, 5000, true, 5000 },   { OFF, 5000, false, OFF },
        { 30000, OFF, true, 30000 },   { OFF, OFF, true, OFF },     { OFF, OFF, false, OFF },
        { 0, 5000, true, 0 },          { 30000, 0, true, 0 },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct route r = default_route();
        struct attempt a;
        r.failure.no_response_after_ms = cases[i].normal;
        r.half_open.no_response_after_ms = cases[i].probe;
        attempt_start(&a, &r, cases[i].half_open, START);
        attempt_clock(&a, START + 7);
        int64_t got = attempt_deadline(&a);
        int64_t want = cases[i].want == OFF ? OFF : START + 7 + cases[i].want;
        if (got != want)
            fail_msg("normal %lld, half-open %lld, in half-open %d: got %lld, want %lld",
                     (long long)cases[i].normal, (long long)cases[i].probe, cases[i].half_open,
                     (long long)got, (long long)want);
    }
}

static void a_long_answer_is_a_success_sixty_seconds_after_its_head(void **state)
{
    (void)state;
    struct route r = default_route();
    static const struct story stories[] = {
        { "59.999 s", { HEAD(100, 200), TICK(60099) }, OPEN, 0, false },
        { "60 s", { HEAD(100, 200), TICK(60100) }, GOOD, OUTCOME_SUCCESS, false },
        { "reset at 59 s",
          { HEAD(100, 200), TICK(59000), FAILED(OUTCOME_RESET) },
          BAD,
          OUTCOME_RESET,
          false },
        { "reset at 61 s",
          { HEAD(100, 200), TICK(61000), FAILED(OUTCOME_RESET) },
          GOOD,
          OUTCOME_SUCCESS,
          false },
        { "half-open does not shorten it", { HEAD(100, 200), TICK(60099) }, OPEN, 0, true },
    };

    check(&r, stories, ARRAY_LEN(stories));
}

static void a_client_that_leaves_blames_the_upstream_only_after_a_long_silence(void **state)
{
    (void)state;
    struct route r = default_route();
    static const struct story stories[] = {
        { "at once", { CLOCK(0), GONE(1) }, NEUTRAL, OUTCOME_CLIENT_ABORT, false },
        { "just before", { CLOCK(0), GONE(1999) }, NEUTRAL, OUTCOME_CLIENT_ABORT, false },
        { "its own timeout", { CLOCK(0), GONE(2000) }, BAD, OUTCOME_CLIENT_ABORT, false },
        { "while connecting, early", { GONE(1999) }, NEUTRAL, OUTCOME_CLIENT_ABORT, false },
        { "while connecting, late", { GONE(2000) }, BAD, OUTCOME_CLIENT_ABORT, false },
        { "late, but bytes had come",
          { CLOCK(0), BYTE, GONE(9000) },
          NEUTRAL,
          OUTCOME_CLIENT_ABORT,
          false },
        { "late, in the body",
          { CLOCK(0), HEAD(5, 200), GONE(9000) },
          NEUTRAL,
          OUTCOME_CLIENT_ABORT,
          false },
        { "late, but its body was missing",
          { CLOCK(0), STOP, GONE(9000) },
          NEUTRAL,
          OUTCOME_CLIENT_ABORT,
          false },
        { "bytes were taken just now",
          { CLOCK(0), CLOCK(8000), GONE(9000) },
          NEUTRAL,
          OUTCOME_CLIENT_ABORT,
          false },
    };
    check(&r, stories, ARRAY_LEN(stories));

    static const struct story never = {
        "off", { CLOCK(0), GONE(20000) }, NEUTRAL, OUTCOME_CLIENT_ABORT, false
    };
    r.failure.client_abort_after_ms = OFF;
    check(&r, &never, 1);

    static const struct story always = {
        "0s", { CLOCK(0), GONE(0) }, BAD, OUTCOME_CLIENT_ABORT, false
    };
    r.failure.client_abort_after_ms = 0;
    check(&r, &always, 1);
}

static void a_transport_failure_counts_only_if_failure_on_names_it(void **state)
{
    (void)state;
    static const enum outcome all[] = { OUTCOME_CONNECT, OUTCOME_DNS,   OUTCOME_TLS,
                                        OUTCOME_TIMEOUT, OUTCOME_RESET, OUTCOME_PROTOCOL };

    for (size_t named = 0; named < ARRAY_LEN(all); named++) {
        for (size_t i = 0; i < ARRAY_LEN(all); i++) {
            struct route r = default_route();
            struct attempt a;
            r.failure.on = BIT(all[named]);
            attempt_start(&a, &r, false, START);
            attempt_failed(&a, all[i]);
            enum verdict want = i == named ? BAD : GOOD;
            if (verdict_of(&a) != want || a.outcome != all[i])
                fail_msg("on %s, outcome %s: got %s, want %s", outcome_name(all[named]),
                         outcome_name(all[i]), verdict_name(verdict_of(&a)), verdict_name(want));
        }
    }
}

static void status_rules_look_at_every_status(void **state)
{
    (void)state;
    struct route r = default_route();
    add_status(&r.failure.status, 429, 429);
    add_status(&r.neutral, 404, 404);
    add_status(&r.neutral, 503, 503); /* named twice: neutral wins, no sample */

    for (unsigned status = 200; status <= 999; status++) {
        struct attempt a;
        attempt_start(&a, &r, false, START);
        attempt_head(&a, &(struct attempt_head){ .status = status }, START + 1);
        enum verdict want = status == 404 || status == 503   ? NEUTRAL
                            : status == 429 || status >= 500 ? BAD
                                                             : OPEN;
        if (verdict_of(&a) != want || a.status != status)
            fail_msg("status %u: got %s, want %s", status, verdict_name(verdict_of(&a)),
                     verdict_name(want));
    }
}

static void no_response_is_a_failure_whatever_failure_on_says(void **state)
{
    (void)state;
    struct route r = default_route();
    r.failure.on = 0;
    static const struct story s = {
        "on = []", { CLOCK(0), TICK(30000) }, BAD, OUTCOME_NO_RESPONSE, false
    };

    check(&r, &s, 1);
}

static void the_deadline_is_when_the_next_tick_does_something(void **state)
{
    (void)state;
    struct route r = default_route();
    static const struct {
        const char *name;
        struct step steps[4];
        int64_t want; /* from START; OFF */
    } cases[] = {
        { "connecting", { END }, OFF },
        { "waiting", { CLOCK(5) }, 30005 },
        { "waiting for the client", { CLOCK(5), STOP }, OFF },
        { "a byte, no head", { CLOCK(5), BYTE }, OFF },
        { "head", { CLOCK(5), HEAD(40, 200) }, 60040 },
        { "fixed at the head", { CLOCK(5), HEAD(40, 500) }, OFF },
        { "ended", { HEAD(40, 200), DONE }, OFF },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct attempt a;
        attempt_start(&a, &r, false, START);
        play(&a, cases[i].steps);
        int64_t got = attempt_deadline(&a),
                want = cases[i].want == OFF ? OFF : START + cases[i].want;
        if (got != want)
            fail_msg("%s: got %lld, want %lld", cases[i].name, (long long)got, (long long)want);
        if (want == OFF)
            continue;
        attempt_tick(&a, want - 1, 0);
        if (a.fixed)
            fail_msg("%s: fixed before its deadline", cases[i].name);
        attempt_tick(&a, want, 0);
        if (!a.fixed || attempt_deadline(&a) != OFF)
            fail_msg("%s: not fixed at its deadline", cases[i].name);
    }
}

static void clocks_work_at_the_zero_of_time(void **state)
{
    (void)state;
    struct route r = default_route();
    struct attempt a;

    attempt_start(&a, &r, false, 0);
    attempt_clock(&a, 0);
    assert_int_equal(attempt_deadline(&a), 30000);
    attempt_head(&a, &(struct attempt_head){ .status = 200 }, 0);
    assert_int_equal(attempt_deadline(&a), JUDGE_AFTER_HEAD_MS);
}

/* Rules "headers-0" "headers-1" "body-0" "body-1", 404 neutral. */
static struct route route_with_rules(void)
{
    static struct response_rule headers[] = { { .name = (char *)"headers-0" },
                                              { .name = (char *)"headers-1" } };
    static struct response_rule body[] = { { .name = (char *)"body-0" },
                                           { .name = (char *)"body-1" } };
    struct route r = default_route();

    r.failure.headers = (struct rule_list){ headers, ARRAY_LEN(headers) };
    r.failure.body = (struct rule_list){ body, ARRAY_LEN(body) };
    r.failure.slower_than_ms = 1000;
    add_status(&r.neutral, 404, 404);
    return r;
}

static void what_is_judged_before_the_responses_end_is_early(void **state)
{
    (void)state;
    struct route r = route_with_rules();
    static const struct {
        const char *name;
        struct step steps[4];
        bool early;
    } cases[] = {
        { "a failing status", { HEAD(5, 500), DONE, END }, true },
        { "a failing status that has no body", { WHOLE_HEAD(5, 500), DONE, END }, false },
        { "a header rule", { RULE_HEAD(5, 200), DONE, END }, true },
        { "an event stream", { STREAM_HEAD(5, 200), DONE, END }, true },
        { "an event stream that is looked into", { WATCHED_HEAD(5, 200), DONE, END }, false },
        { "switched protocols", { HEAD(5, 101), END }, true },
        { "a body rule", { HEAD(5, 200), BODY(0), DONE, END }, true },
        { "a body rule at the end", { HEAD(5, 200), LAST_BODY(0), DONE, END }, false },
        { "a minute", { HEAD(5, 200), TICK(5 + JUDGE_AFTER_HEAD_MS), DONE, END }, true },
        { "an end", { HEAD(5, 200), DONE, END }, false },
        { "a cut", { HEAD(5, 200), FAILED(OUTCOME_RESET), END }, false },
        { "a client that left", { HEAD(5, 200), GONE(9), END }, false },
        { "silence", { CLOCK(0), TICK(30000), HEAD(31000, 500), END }, true },
        { "no connection", { FAILED(OUTCOME_CONNECT), END }, false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct attempt a;
        attempt_start(&a, &r, false, START);
        play(&a, cases[i].steps);
        if (!a.fixed || a.early != cases[i].early)
            fail_msg("%s: fixed %d, early %d", cases[i].name, a.fixed, a.early);
    }
}

static void only_local_stale_and_neutral_are_always_neutral(void **state)
{
    (void)state;
    for (int o = 0; o < OUTCOME_COUNT; o++) {
        bool want = o == OUTCOME_LOCAL || o == OUTCOME_STALE || o == OUTCOME_NEUTRAL;
        if (outcome_is_neutral((enum outcome)o) != want)
            fail_msg("%s: want %d", outcome_name((enum outcome)o), want);
    }
}

static void the_rule_that_decides_is_noted_with_the_outcome(void **state)
{
    (void)state;
    struct route r = route_with_rules();
    static const struct {
        struct story story;
        const char *rule;
    } cases[] = {
        { { "no rule", { HEAD(1, 200), DONE }, GOOD, OUTCOME_SUCCESS, false }, "" },
        { { "status before header", { RULE_HEAD(1, 500) }, BAD, OUTCOME_STATUS, false }, "status" },
        { { "neutral before header", { RULE_HEAD(1, 404) }, NEUTRAL, OUTCOME_NEUTRAL, false }, "" },
        { { "header", { RULE_HEAD(1, 200) }, BAD, OUTCOME_HEADER, false }, "headers-1" },
        { { "header before 101", { RULE_HEAD(1, 101) }, BAD, OUTCOME_HEADER, false }, "headers-1" },
        { { "header before body", { RULE_HEAD(1, 200), BODY(0) }, BAD, OUTCOME_HEADER, false },
          "headers-1" },
        { { "body", { HEAD(1, 200), BODY(1) }, BAD, OUTCOME_BODY, false }, "body-1" },
        { { "first body rule only", { HEAD(1, 200), BODY(1), BODY(0) }, BAD, OUTCOME_BODY, false },
          "body-1" },
        { { "body before reset",
            { HEAD(1, 200), BODY(0), FAILED(OUTCOME_RESET) },
            BAD,
            OUTCOME_BODY,
            false },
          "body-0" },
        { { "reset before body",
            { HEAD(1, 200), FAILED(OUTCOME_RESET), BODY(0) },
            BAD,
            OUTCOME_RESET,
            false },
          "" },
        { { "body before the client's leave",
            { HEAD(1, 200), BODY(0), GONE(9) },
            BAD,
            OUTCOME_BODY,
            false },
          "body-0" },
        { { "body after a minute",
            { HEAD(0, 200), TICK(60000), BODY(0) },
            BAD,
            OUTCOME_SLOW,
            false },
          "slower_than" },
        { { "no_response is no rule",
            { CLOCK(0), TICK(30000), RULE_HEAD(30001, 500) },
            BAD,
            OUTCOME_NO_RESPONSE,
            false },
          "" },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct attempt a;
        check(&r, &cases[i].story, 1);
        attempt_start(&a, &r, false, START);
        play(&a, cases[i].story.steps);
        if (strcmp(rule_name(&r, a.rule), cases[i].rule) != 0)
            fail_msg("%s: got rule \"%s\", want \"%s\"", cases[i].story.name, rule_name(&r, a.rule),
                     cases[i].rule);
    }
}

static void a_success_that_took_too_long_is_slow(void **state)
{
    (void)state;
    struct route r = route_with_rules();
    static const struct story stories[] = {
        { "exactly the limit", { HEAD(1, 200), DONE_AT(1000) }, GOOD, OUTCOME_SUCCESS, false },
        { "just over", { HEAD(1, 200), DONE_AT(1001) }, BAD, OUTCOME_SLOW, false },
        { "a failing status stays one", { HEAD(2000, 500) }, BAD, OUTCOME_STATUS, false },
        { "a slow reset is a reset",
          { HEAD(1, 200), FAILED(OUTCOME_RESET), DONE_AT(5000) },
          BAD,
          OUTCOME_RESET,
          false },
        { "an upgrade is measured at its head", { HEAD(1001, 101) }, BAD, OUTCOME_SLOW, false },
        { "an upgrade in time", { HEAD(1000, 101) }, GOOD, OUTCOME_SUCCESS, false },
        { "an event stream is measured at its head",
          { STREAM_HEAD(1001, 200) },
          BAD,
          OUTCOME_SLOW,
          false },
        { "unless it is looked into",
          { WATCHED_HEAD(1001, 200), DONE_AT(1002) },
          BAD,
          OUTCOME_SLOW,
          false },
        { "a tunnel's first byte", { DONE_AT(1001) }, BAD, OUTCOME_SLOW, false },
        { "an event stream that its reader leaves in time",
          { WATCHED_HEAD(1, 200), GONE(1000) },
          GOOD,
          OUTCOME_SUCCESS,
          false },
        { "and too late", { WATCHED_HEAD(1, 200), GONE(1001) }, BAD, OUTCOME_SLOW, false },
    };

    check(&r, stories, ARRAY_LEN(stories));
    r.failure.slower_than_ms = OFF;
    check(
        &r,
        &(struct story){ "off", { HEAD(1, 200), DONE_AT(3600000) }, GOOD, OUTCOME_SUCCESS, false },
        1);
}

static void an_event_stream_that_is_looked_into_is_judged_at_its_end(void **state)
{
    (void)state;
    struct route r = route_with_rules();
    r.failure.slower_than_ms = OFF;
    static const struct story stories[] = {
        { "its head says nothing", { WATCHED_HEAD(1, 200) }, OPEN, 0, false },
        { "its end", { WATCHED_HEAD(1, 200), DONE }, GOOD, OUTCOME_SUCCESS, false },
        { "a rule", { WATCHED_HEAD(1, 200), BODY(0), DONE }, BAD, OUTCOME_BODY, false },
        { "59.999 s", { WATCHED_HEAD(0, 200), TICK(59999) }, OPEN, 0, false },
        { "60 s", { WATCHED_HEAD(0, 200), TICK(60000) }, GOOD, OUTCOME_SUCCESS, false },
        { "cut off", { WATCHED_HEAD(1, 200), FAILED(OUTCOME_RESET) }, BAD, OUTCOME_RESET, false },
        { "its reader left", { WATCHED_HEAD(1, 200), GONE(9) }, GOOD, OUTCOME_SUCCESS, false },
        { "its reader left before the head",
          { CLOCK(0), GONE(9) },
          NEUTRAL,
          OUTCOME_CLIENT_ABORT,
          false },
        { "a failing status", { WATCHED_HEAD(1, 503) }, BAD, OUTCOME_STATUS, false },
    };

    check(&r, stories, ARRAY_LEN(stories));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_outcome_has_its_default_verdict),
        cmocka_unit_test(the_first_of_them_fixes_the_outcome),
        cmocka_unit_test(no_response_counts_from_the_last_byte_that_the_upstream_took),
        cmocka_unit_test(the_shorter_no_response_wins_in_half_open_only),
        cmocka_unit_test(a_long_answer_is_a_success_sixty_seconds_after_its_head),
        cmocka_unit_test(a_client_that_leaves_blames_the_upstream_only_after_a_long_silence),
        cmocka_unit_test(a_transport_failure_counts_only_if_failure_on_names_it),
        cmocka_unit_test(status_rules_look_at_every_status),
        cmocka_unit_test(no_response_is_a_failure_whatever_failure_on_says),
        cmocka_unit_test(the_deadline_is_when_the_next_tick_does_something),
        cmocka_unit_test(clocks_work_at_the_zero_of_time),
        cmocka_unit_test(the_rule_that_decides_is_noted_with_the_outcome),
        cmocka_unit_test(a_success_that_took_too_long_is_slow),
        cmocka_unit_test(an_event_stream_that_is_looked_into_is_judged_at_its_end),
        cmocka_unit_test(what_is_judged_before_the_responses_end_is_early),
        cmocka_unit_test(only_local_stale_and_neutral_are_always_neutral),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
