/* The gate's truth table, with the draw and the words given. */
#include "proxy/gate.h"

#include "base/base.h"
#include "base/prng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RATE(n) UINT64_C(n)
#define HALF    RATE(0x80000000)
#define SYNCED  (STATE_SYNCED | STATE_CONNECTED)

static uint64_t word(enum breaker_state state, uint64_t rate, bool rate_null)
{
    return breaker_pack((struct breaker_view){
        .state = state, .rate = rate, .rate_null = rate_null, .changes = 12345 });
}

/* Closed, open, unknown, awaited, null rate, or half-open with n / 2^32 in hex. */
static unsigned words_of(const char *text, uint64_t words[16])
{
    unsigned count = 0;
    char copy[256], *save = NULL;

    strncpy(copy, text, sizeof(copy) - 1);
    copy[sizeof(copy) - 1] = '\0';
    for (char *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save)) {
        if (strcmp(t, "closed") == 0)
            words[count++] = word(BREAKER_CLOSED, BREAKER_RATE_ONE, false);
        else if (strcmp(t, "open") == 0)
            words[count++] = word(BREAKER_OPEN, 0, false);
        else if (strcmp(t, "unknown") == 0)
            words[count++] = 0;
        else if (strcmp(t, "awaited") == 0)
            words[count++] = word(BREAKER_UNKNOWN, 0, true);
        else if (strcmp(t, "null") == 0)
            words[count++] = word(BREAKER_HALF_OPEN, 0, true);
        else
            words[count++] = word(BREAKER_HALF_OPEN, strtoull(t, NULL, 16), false);
    }
    return count;
}

struct gate_case {
    const char *words;
    unsigned flags;
    uint32_t draw;
    enum gate_verdict open, closed; /* verdicts with fail_mode open, and closed */
    unsigned breaker;
};

static void check(const struct gate_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (int fail_closed = 0; fail_closed < 2; fail_closed++) {
            uint64_t words[16];
            unsigned count = words_of(cases[i].words, words);
            enum gate_verdict want = fail_closed ? cases[i].closed : cases[i].open;
            struct gate_result r = gate_check(&(struct gate_input){ .words = words,
                                                                    .count = count,
                                                                    .flags = cases[i].flags,
                                                                    .fail_closed = fail_closed,
                                                                    .draw = cases[i].draw });
            if (r.verdict != want || r.breaker != cases[i].breaker)
                fail_msg("[%s] flags %#x draw %#x fail_mode %s: got %s by %u, want %s by %u",
                         cases[i].words, cases[i].flags, cases[i].draw,
                         fail_closed ? "closed" : "open", gate_verdict_name(r.verdict), r.breaker,
                         gate_verdict_name(want), cases[i].breaker);
        }
    }
}

static void with_known_state_open_refuses_and_half_open_draws(void **state)
{
    (void)state;
    static const struct gate_case cases[] = {
        { "", SYNCED, 0, GATE_ALLOW, GATE_ALLOW, 0 },
        { "closed", SYNCED, UINT32_MAX, GATE_ALLOW, GATE_ALLOW, 0 },
        { "open", SYNCED, 0, GATE_DENY_OPEN, GATE_DENY_OPEN, 0 },
        { "closed open", SYNCED, 0, GATE_DENY_OPEN, GATE_DENY_OPEN, 1 },
        { "ffffffff open", SYNCED, 0, GATE_DENY_OPEN, GATE_DENY_OPEN, 1 },
        { "null open", SYNCED, 0, GATE_DENY_OPEN, GATE_DENY_OPEN, 1 },
        { "open open", SYNCED, 0, GATE_DENY_OPEN, GATE_DENY_OPEN, 0 },
        { "unknown open", SYNCED, 0, GATE_DENY_OPEN, GATE_DENY_OPEN, 1 },
        /* the lowest rate counts, wherever it stands */
        { "80000000 40000000", SYNCED, 0x3fffffff, GATE_ALLOW, GATE_ALLOW, 1 },
        { "80000000 40000000", SYNCED, 0x40000000, GATE_DENY_HALF_OPEN, GATE_DENY_HALF_OPEN, 1 },
        { "40000000 80000000", SYNCED, 0x40000000, GATE_DENY_HALF_OPEN, GATE_DENY_HALF_OPEN, 0 },
        { "closed 40000000", SYNCED, 0x40000000, GATE_DENY_HALF_OPEN, GATE_DENY_HALF_OPEN, 1 },
        { "unknown 40000000", SYNCED, 0x40000000, GATE_DENY_HALF_OPEN, GATE_DENY_HALF_OPEN, 1 },
        { "80000000 null", SYNCED, 0, GATE_DENY_HALF_OPEN, GATE_DENY_HALF_OPEN, 1 },
        { "100000000 closed", SYNCED, UINT32_MAX, GATE_ALLOW, GATE_ALLOW, 0 },
        { "closed 100000000", SYNCED, UINT32_MAX, GATE_ALLOW, GATE_ALLOW, 1 },
        { "closed closed 80000000", SYNCED, 0, GATE_ALLOW, GATE_ALLOW, 2 },
    };

    check(cases, ARRAY_LEN(cases));
}

static void a_draw_below_the_rate_is_admitted_and_one_at_the_rate_is_not(void **state)
{
    (void)state;
    static const struct {
        uint64_t rate;
        uint32_t draw;
        bool admitted;
    } cases[] = {
        { 0, 0, false },
        { 0, UINT32_MAX, false },
        { 1, 0, true },
        { 1, 1, false },
        { HALF, (uint32_t)HALF - 1, true },
        { HALF, (uint32_t)HALF, false },
        { UINT32_MAX, UINT32_MAX - 1, true },
        { UINT32_MAX, UINT32_MAX, false },
        { BREAKER_RATE_ONE, 0, true },
        { BREAKER_RATE_ONE, UINT32_MAX, true }, /* 1.0 admits every draw there is */
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t w = word(BREAKER_HALF_OPEN, cases[i].rate, false);
        struct gate_result r = gate_check(&(struct gate_input){
            .words = &w, .count = 1, .flags = SYNCED, .draw = cases[i].draw });
        enum gate_verdict want = cases[i].admitted ? GATE_ALLOW : GATE_DENY_HALF_OPEN;
        if (r.verdict != want)
            fail_msg("rate %#llx draw %#x: got %s, want %s", (unsigned long long)cases[i].rate,
                     cases[i].draw, gate_verdict_name(r.verdict), gate_verdict_name(want));
    }
}

static void a_null_rate_admits_nobody_and_is_reported(void **state)
{
    (void)state;
    static const uint32_t draws[] = { 0, 1, (uint32_t)HALF, UINT32_MAX };

    for (size_t i = 0; i < ARRAY_LEN(draws); i++) {
        uint64_t w = word(BREAKER_HALF_OPEN, 0, true);
        struct gate_result r = gate_check(
            &(struct gate_input){ .words = &w, .count = 1, .flags = SYNCED, .draw = draws[i] });
        if (r.verdict != GATE_DENY_HALF_OPEN || !r.null_rate)
            fail_msg("draw %#x: got %s, null_rate %d", draws[i], gate_verdict_name(r.verdict),
                     r.null_rate);
    }
}

static void who_may_not_probe_is_refused_whatever_the_draw_but_only_while_half_open(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        unsigned flags;
        uint32_t draw;
        bool ineligible;
        enum gate_verdict want;
        enum half_open_bound bound;
    } cases[] = {
        { "80000000", SYNCED, 0, false, GATE_ALLOW, BOUND_NONE },
        { "80000000", SYNCED, (uint32_t)HALF, false, GATE_DENY_HALF_OPEN, BOUND_ALLOW_RATE },
        { "80000000", SYNCED, 0, true, GATE_DENY_HALF_OPEN, BOUND_ELIGIBLE },
        { "100000000", SYNCED, 0, true, GATE_DENY_HALF_OPEN, BOUND_ELIGIBLE },
        { "closed 80000000", SYNCED, 0, true, GATE_DENY_HALF_OPEN, BOUND_ELIGIBLE },
        { "closed", SYNCED, 0, true, GATE_ALLOW, BOUND_NONE },
        { "unknown", SYNCED, 0, true, GATE_ALLOW, BOUND_NONE },
        { "80000000 open", SYNCED, 0, true, GATE_DENY_OPEN, BOUND_NONE },
        { "80000000", STATE_SYNCED | STATE_STALE, 0, true, GATE_ALLOW_FAIL_OPEN, BOUND_NONE },
        { "80000000", SYNCED | STATE_BYPASS, 0, true, GATE_ALLOW, BOUND_NONE },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t words[16];
        unsigned count = words_of(cases[i].words, words);
        struct gate_result r = gate_check(&(struct gate_input){ .words = words,
                                                                .count = count,
                                                                .flags = cases[i].flags,
                                                                .ineligible = cases[i].ineligible,
                                                                .draw = cases[i].draw });
        if (r.verdict != cases[i].want || r.bound != cases[i].bound)
            fail_msg("case %zu [%s]: got %s by bound %d", i, cases[i].words,
                     gate_verdict_name(r.verdict), r.bound);
    }
}

/* 10 000 draws of the generator that the workers use. */
static void the_share_that_is_admitted_is_the_rate(void **state)
{
    (void)state;
    static const double rates[] = {
        0.001, 0.01, 0.05, 0.1, 0.2, 0.25, 1.0 / 3, 0.5, 0.75, 0.9, 0.99
    };

    for (unsigned seed = 1; seed <= 3; seed++) {
        for (size_t i = 0; i < ARRAY_LEN(rates); i++) {
            struct prng random;
            uint64_t w = word(BREAKER_HALF_OPEN, breaker_rate_from_double(rates[i]), false);
            unsigned admitted = 0, draws = 10000;
            prng_seed_fixed(&random, seed * 1000 + i);
            for (unsigned n = 0; n < draws; n++)
                admitted += gate_check(&(struct gate_input){ .words = &w,
                                                             .count = 1,
                                                             .flags = SYNCED,
                                                             .draw = prng_u32(&random) })
                                .verdict == GATE_ALLOW;
            double error = sqrt(rates[i] * (1 - rates[i]) / draws);
            if (fabs((double)admitted / draws - rates[i]) > 4 * error)
                fail_msg("seed %u: %u of %u admitted at %g", seed, admitted, draws, rates[i]);
        }
    }
}

static void state_that_is_not_known_follows_the_fail_mode(void **state)
{
    (void)state;
    static const struct gate_case cases[] = {
        /* never synced: what has been named already says nothing about the rest */
        { "unknown", 0, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0 },
        { "unknown", STATE_CONNECTED, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0 },
        { "closed unknown", 0, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0 },
        { "closed", 0, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0 },
        { "open", STATE_CONNECTED, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0 },
        { "null", 0, 1, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0 },
        /* synced: a name that the server lacks is allowed in both modes */
        { "unknown", STATE_SYNCED, UINT32_MAX, GATE_ALLOW, GATE_ALLOW, 0 },
        { "unknown closed", SYNCED, 0, GATE_ALLOW, GATE_ALLOW, 0 },
        /* a name that nobody was asked about is as good as never synced; the others count */
        { "awaited", SYNCED, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0 },
        { "closed awaited unknown", SYNCED, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 1 },
        { "awaited open", SYNCED, 0, GATE_DENY_OPEN, GATE_DENY_OPEN, 1 },
        { "awaited 80000000", SYNCED, 0x7fffffff, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0 },
        { "unknown", SYNCED | STATE_AWAITED, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0 },
        { "closed", SYNCED | STATE_AWAITED, 0, GATE_ALLOW, GATE_ALLOW, 0 },
        /* lost for less than state_max_age: the last state holds */
        { "open", STATE_SYNCED, 0, GATE_DENY_OPEN, GATE_DENY_OPEN, 0 },
        /* stale: nothing that was known counts any more */
        { "closed", STATE_SYNCED | STATE_STALE, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0 },
        { "open", STATE_SYNCED | STATE_STALE, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0 },
        { "null", STATE_SYNCED | STATE_STALE, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0 },
        { "unknown", STATE_STALE, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0 },
        { "", STATE_STALE, 0, GATE_ALLOW, GATE_ALLOW, 0 }, /* nothing to know about */
        { "", 0, 0, GATE_ALLOW, GATE_ALLOW, 0 },
    };

    check(cases, ARRAY_LEN(cases));
}

static void routes_whose_breakers_are_not_known_yet_follow_the_fail_mode(void **state)
{
    (void)state;
    static const struct {
        unsigned flags;
        bool unresolved;
        enum gate_verdict open, closed;
        enum gate_doubt doubt;
    } cases[] = {
        { SYNCED, true, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, DOUBT_NOT_LOADED },
        { SYNCED, false, GATE_ALLOW, GATE_ALLOW, DOUBT_NONE },
        { 0, true, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, DOUBT_NEVER_SYNCED },
        { 0, false, GATE_ALLOW, GATE_ALLOW, DOUBT_NONE },
        { SYNCED | STATE_STALE, true, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, DOUBT_NOT_LOADED },
        { SYNCED | STATE_BYPASS, true, GATE_ALLOW, GATE_ALLOW, DOUBT_NONE },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (int fail_closed = 0; fail_closed < 2; fail_closed++) {
            struct gate_result r =
                gate_check(&(struct gate_input){ .flags = cases[i].flags,
                                                 .fail_closed = fail_closed,
                                                 .unresolved = cases[i].unresolved });
            if (r.verdict != (fail_closed ? cases[i].closed : cases[i].open) ||
                r.doubt != cases[i].doubt || r.breaker != 0)
                fail_msg("case %zu, fail_closed %d: %s for %s", i, fail_closed,
                         gate_verdict_name(r.verdict), gate_doubt_name(r.doubt));
        }
    }
}

static void the_reason_of_a_doubt_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *word;
        unsigned flags;
        enum gate_doubt doubt;
        bool unknown_name;
    } cases[] = {
        { "closed", 0, DOUBT_NEVER_SYNCED, false },
        { "closed", STATE_STALE, DOUBT_NEVER_SYNCED, false },
        { "closed", STATE_SYNCED, DOUBT_NONE, false },
        { "closed", STATE_SYNCED | STATE_STALE, DOUBT_STALE, false },
        { "closed", SYNCED, DOUBT_NONE, false },
        { "unknown", SYNCED, DOUBT_NONE, true },
        { "unknown", SYNCED | STATE_AWAITED, DOUBT_NEVER_SYNCED, false },
        { "awaited", SYNCED, DOUBT_NEVER_SYNCED, false },
        { "awaited", SYNCED | STATE_STALE, DOUBT_STALE, false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t words[16];
        unsigned count = words_of(cases[i].word, words);
        struct gate_result r = gate_check(
            &(struct gate_input){ .words = words, .count = count, .flags = cases[i].flags });
        if (r.doubt != cases[i].doubt || r.unknown_name != cases[i].unknown_name)
            fail_msg("%s, flags %#x: %s", cases[i].word, cases[i].flags, gate_doubt_name(r.doubt));
    }
}

static void bypass_allows_whatever_the_state(void **state)
{
    (void)state;
    static const char *const words[] = { "", "closed", "open", "null", "unknown", "1 open" };
    static const unsigned flags[] = { 0, STATE_SYNCED, STATE_SYNCED | STATE_STALE, STATE_STALE };

    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        for (size_t f = 0; f < ARRAY_LEN(flags); f++) {
            struct gate_case c = { words[i],   flags[f] | STATE_BYPASS,
                                   UINT32_MAX, GATE_ALLOW,
                                   GATE_ALLOW, 0 };
            check(&c, 1);
        }
}

static void the_result_tells_what_the_route_looks_like(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        unsigned flags;
        unsigned half_open; /* a set */
        bool all_closed, unknown_name, null_rate;
    } cases[] = {
        { "closed closed", SYNCED, 0, true, false, false },
        { "closed unknown", SYNCED, 0, false, true, false },
        { "closed unknown", 0, 0, false, false, false },
        { "80000000", SYNCED, 1, false, false, false },
        { "80000000 unknown", SYNCED, 1, false, true, false },
        { "100000000 closed", SYNCED, 1, false, false, false },
        { "closed 1 unknown 2", SYNCED, 2 + 8, false, true, false },
        { "null", SYNCED, 1, false, false, true },
        { "closed", SYNCED | STATE_STALE, 0, false, false, false },
        { "open", SYNCED, 0, false, false, false },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t words[16];
        unsigned count = words_of(cases[i].words, words);
        struct gate_result r = gate_check(
            &(struct gate_input){ .words = words, .count = count, .flags = cases[i].flags });
        if (r.half_open != (cases[i].half_open != 0) || r.half_open_set != cases[i].half_open ||
            r.all_closed != cases[i].all_closed || r.unknown_name != cases[i].unknown_name ||
            r.null_rate != cases[i].null_rate)
            fail_msg("[%s] flags %#x: half_open %d all_closed %d unknown_name %d null_rate %d",
                     cases[i].words, cases[i].flags, r.half_open, r.all_closed, r.unknown_name,
                     r.null_rate);
    }
}

static void every_combination_agrees_with_the_rules_in_words(void **state)
{
    (void)state;
    static const char *const kinds[] = {
        "closed", "open", "unknown", "awaited", "null", "80000000"
    };
    static const uint32_t draws[] = { 0, 0x7fffffff, 0x80000000, UINT32_MAX };

    /* Three breakers of six kinds, all flags, both modes, draws around the rate. */
    for (unsigned n = 0; n < 6 * 6 * 6 * 16 * 2 * 4; n++) {
        unsigned x = n, kind[3];
        uint64_t words[3], lowest = BREAKER_RATE_ONE;
        bool open = false, awaited = false;
        for (unsigned i = 0; i < 3; i++, x /= 6) {
            kind[i] = x % 6;
            uint64_t one[16];
            words_of(kinds[kind[i]], one);
            words[i] = one[0];
            open |= kind[i] == 1;
            awaited |= kind[i] == 3;
            if (kind[i] >= 4)
                lowest = kind[i] == 4 || lowest == 0 ? 0 : HALF;
        }
        unsigned flags = x % 16;
        bool fail_closed = x / 16 % 2;
        uint32_t draw = draws[x / 32];
        enum gate_verdict not_known = fail_closed ? GATE_DENY_UNKNOWN : GATE_ALLOW_FAIL_OPEN;
        bool known = (flags & STATE_SYNCED) && !(flags & STATE_STALE);
        enum gate_verdict want = flags & STATE_BYPASS     ? GATE_ALLOW
                                 : !known                 ? not_known
                                 : open                   ? GATE_DENY_OPEN
                                 : awaited && fail_closed ? GATE_DENY_UNKNOWN
                                 : draw >= lowest         ? GATE_DENY_HALF_OPEN
                                 : awaited                ? GATE_ALLOW_FAIL_OPEN
                                                          : GATE_ALLOW;
        struct gate_result r = gate_check(&(struct gate_input){
            .words = words, .count = 3, .flags = flags, .fail_closed = fail_closed, .draw = draw });
        if (r.verdict != want || r.breaker >= 3)
            fail_msg("%s %s %s flags %#x draw %#x fail_closed %d: got %s by %u, want %s",
                     kinds[kind[0]], kinds[kind[1]], kinds[kind[2]], flags, draw, fail_closed,
                     gate_verdict_name(r.verdict), r.breaker, gate_verdict_name(want));
    }
}

/* "- open closed ended": none, what an override says, or an open one that ended just now. */
static void locals_of(const char *text, int64_t now_ms, uint64_t locals[16])
{
    char copy[256], *save = NULL;
    unsigned count = 0;

    strncpy(copy, text, sizeof(copy) - 1);
    copy[sizeof(copy) - 1] = '\0';
    for (char *t = strtok_r(copy, " ", &save); t; t = strtok_r(NULL, " ", &save)) {
        if (strcmp(t, "open") == 0)
            locals[count++] = breaker_local_pack(BREAKER_OPEN, 7, now_ms + 1);
        else if (strcmp(t, "closed") == 0)
            locals[count++] = breaker_local_pack(BREAKER_CLOSED, 7, now_ms + 1);
        else if (strcmp(t, "ended") == 0)
            locals[count++] = breaker_local_pack(BREAKER_OPEN, 7, now_ms);
        else
            locals[count++] = 0;
    }
}

static void an_override_stands_in_for_the_state_of_its_breaker(void **state)
{
    (void)state;
    static const struct {
        const char *words, *locals;
        unsigned flags;
        uint32_t draw;
        enum gate_verdict open, closed; /* with fail_mode open, and closed */
        unsigned breaker;
        uint32_t overridden;
    } cases[] = {
        { "closed", "open", SYNCED, 0, GATE_DENY_OVERRIDE, GATE_DENY_OVERRIDE, 0, 1 },
        { "open", "closed", SYNCED, 0, GATE_ALLOW_OVERRIDE, GATE_ALLOW_OVERRIDE, 0, 1 },
        { "null", "closed", SYNCED, 9, GATE_ALLOW_OVERRIDE, GATE_ALLOW_OVERRIDE, 0, 1 },
        { "unknown", "open", SYNCED, 0, GATE_DENY_OVERRIDE, GATE_DENY_OVERRIDE, 0, 1 },
        /* at its end it is gone, although nobody took it away */
        { "closed", "ended", SYNCED, 0, GATE_ALLOW, GATE_ALLOW, 0, 0 },
        { "open", "ended", SYNCED, 0, GATE_DENY_OPEN, GATE_DENY_OPEN, 0, 0 },
        /* the other breakers of the route go by their own state */
        { "open closed", "closed open", SYNCED, 0, GATE_DENY_OVERRIDE, GATE_DENY_OVERRIDE, 1, 3 },
        { "open open", "closed -", SYNCED, 0, GATE_DENY_OPEN, GATE_DENY_OPEN, 1, 1 },
        { "open 80000000", "closed -", SYNCED, 0x7fffffff, GATE_ALLOW, GATE_ALLOW, 1, 1 },
        { "open 80000000", "closed -", SYNCED, 0x80000000, GATE_DENY_HALF_OPEN, GATE_DENY_HALF_OPEN,
          1, 1 },
        { "closed open", "- closed", SYNCED, 0, GATE_ALLOW_OVERRIDE, GATE_ALLOW_OVERRIDE, 1, 2 },
        { "80000000 closed", "- open", SYNCED, 0, GATE_DENY_OVERRIDE, GATE_DENY_OVERRIDE, 1, 2 },
        { "open closed", "- open", SYNCED, 0, GATE_DENY_OPEN, GATE_DENY_OPEN, 0, 0 },
        /* never synced, stale: an override is known */
        { "unknown", "closed", 0, 0, GATE_ALLOW_OVERRIDE, GATE_ALLOW_OVERRIDE, 0, 1 },
        { "open", "closed", STATE_SYNCED | STATE_STALE, 0, GATE_ALLOW_OVERRIDE, GATE_ALLOW_OVERRIDE,
          0, 1 },
        { "closed", "open", STATE_STALE, 0, GATE_DENY_OVERRIDE, GATE_DENY_OVERRIDE, 0, 1 },
        { "closed unknown", "closed -", 0, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 1, 1 },
        { "unknown closed", "- open", 0, 0, GATE_DENY_OVERRIDE, GATE_DENY_OVERRIDE, 1, 2 },
        { "unknown", "ended", 0, 0, GATE_ALLOW_FAIL_OPEN, GATE_DENY_UNKNOWN, 0, 0 },
        /* bypass beats everything */
        { "open", "open", SYNCED | STATE_BYPASS, 0, GATE_ALLOW, GATE_ALLOW, 0, 0 },
    };
    static const int64_t times[] = { 0, 1, INT64_C(1) << 40 };

    for (size_t n = 0; n < ARRAY_LEN(cases) * 2 * ARRAY_LEN(times); n++) {
        size_t i = n / 2 / ARRAY_LEN(times);
        bool fail_closed = n % 2;
        int64_t now_ms = times[n / 2 % ARRAY_LEN(times)];
        uint64_t words[16], locals[16];
        unsigned count = words_of(cases[i].words, words);
        locals_of(cases[i].locals, now_ms, locals);
        struct gate_result r =
            gate_check(&(struct gate_input){ .words = words,
                                             .locals = locals,
                                             .now_ms = now_ms,
                                             .count = count,
                                             .flags = cases[i].flags | STATE_OVERRIDES,
                                             .fail_closed = fail_closed,
                                             .draw = cases[i].draw });
        enum gate_verdict want = fail_closed ? cases[i].closed : cases[i].open;
        if (r.verdict != want || r.breaker != cases[i].breaker ||
            r.overridden != cases[i].overridden || r.bypassed != !!(cases[i].flags & STATE_BYPASS))
            fail_msg("[%s] held [%s] flags %#x fail_closed %d: got %s by %u overridden %#x, want "
                     "%s by %u overridden %#x",
                     cases[i].words, cases[i].locals, cases[i].flags, fail_closed,
                     gate_verdict_name(r.verdict), r.breaker, r.overridden, gate_verdict_name(want),
                     cases[i].breaker, cases[i].overridden);
    }
}

static void without_the_flag_nobody_looks_for_overrides(void **state)
{
    (void)state;
    uint64_t w = word(BREAKER_CLOSED, BREAKER_RATE_ONE, false);
    struct gate_result r = gate_check(
        &(struct gate_input){ .words = &w, .locals = NULL, .count = 1, .flags = SYNCED });

    assert_int_equal(r.verdict, GATE_ALLOW);
    assert_true(r.all_closed);
}

static void an_override_does_not_hide_from_samples_that_a_breaker_is_not_closed(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        bool all_closed, half_open;
    } cases[] = { { "closed", true, false },
                  { "open", false, false },
                  { "80000000", false, false } };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint64_t words[16], locals[16];
        unsigned count = words_of(cases[i].words, words);
        locals_of("closed", 5, locals);
        struct gate_result r =
            gate_check(&(struct gate_input){ .words = words,
                                             .locals = locals,
                                             .now_ms = 5,
                                             .count = count,
                                             .flags = SYNCED | STATE_OVERRIDES });
        if (r.all_closed != cases[i].all_closed || r.half_open != cases[i].half_open)
            fail_msg("[%s]: all_closed %d half_open %d", cases[i].words, r.all_closed, r.half_open);
    }
}

static void a_verdict_allows_or_denies_as_its_name_says(void **state)
{
    (void)state;
    for (int v = GATE_ALLOW; v <= GATE_DENY_OVERRIDE; v++) {
        const char *name = gate_verdict_name((enum gate_verdict)v);
        if (gate_allows((enum gate_verdict)v) != (strncmp(name, "allow", 5) == 0))
            fail_msg("%s", name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_known_state_open_refuses_and_half_open_draws),
        cmocka_unit_test(a_draw_below_the_rate_is_admitted_and_one_at_the_rate_is_not),
        cmocka_unit_test(a_null_rate_admits_nobody_and_is_reported),
        cmocka_unit_test(who_may_not_probe_is_refused_whatever_the_draw_but_only_while_half_open),
        cmocka_unit_test(the_share_that_is_admitted_is_the_rate),
        cmocka_unit_test(state_that_is_not_known_follows_the_fail_mode),
        cmocka_unit_test(routes_whose_breakers_are_not_known_yet_follow_the_fail_mode),
        cmocka_unit_test(the_reason_of_a_doubt_is_told),
        cmocka_unit_test(bypass_allows_whatever_the_state),
        cmocka_unit_test(the_result_tells_what_the_route_looks_like),
        cmocka_unit_test(every_combination_agrees_with_the_rules_in_words),
        cmocka_unit_test(an_override_stands_in_for_the_state_of_its_breaker),
        cmocka_unit_test(without_the_flag_nobody_looks_for_overrides),
        cmocka_unit_test(an_override_does_not_hide_from_samples_that_a_breaker_is_not_closed),
        cmocka_unit_test(a_verdict_allows_or_denies_as_its_name_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
