#include "proxy/switches.h"
#include "base/base.h"
#include "base/log.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One for each override that can be in effect, and one for the next, which takes its place only
 * once its reason is there to be read. */
#define PLACES (SWITCHES_OVERRIDES_MAX + 1)
_Static_assert(PLACES <= BREAKER_REASON_MAX, "a local word can name every place");

/* What refusals quote.  Workers read it while main may already write the next one's. */
struct reason {
    _Atomic uint64_t words[SWITCHES_REASON_MAX / 8 + 1];
};

struct switches {
    struct breakers *breakers; /* borrowed */
    struct reason *reasons;    /* by the number in a local word, from 1 on */
    unsigned free[PLACES];     /* numbers that no local word holds */
    size_t free_count;
    struct held *overrides; /* SWITCHES_OVERRIDES_MAX places, oldest first */
    size_t count;
    struct held bypass; /* reason NULL: off */
    uint64_t refused;
};

struct switches *switches_new(struct breakers *b)
{
    struct switches *s = xcalloc(1, sizeof(*s));
    s->breakers = b;
    s->reasons = xcalloc(PLACES + 1, sizeof(*s->reasons));
    while (s->free_count < PLACES) {
        s->free[s->free_count] = PLACES - (unsigned)s->free_count;
        s->free_count++;
    }
    s->overrides = xcalloc(SWITCHES_OVERRIDES_MAX, sizeof(*s->overrides));
    return s;
}

void switches_free(struct switches *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->count; i++)
        free(s->overrides[i].reason);
    free(s->overrides);
    free(s->bypass.reason);
    free(s->reasons);
    free(s);
}

/* ---- The log ---- */

static void log_begun(const struct switches *s, const struct held *h, int64_t ttl_ms)
{
    char ttl[32];
    snprintf(ttl, sizeof(ttl), "%lld", (long long)ttl_ms);
    if (h->breaker)
        log_event(LOG_INFO, "proxy", "override.begun",
                  "an operator overrides a breaker's state here, until it ends", "breaker",
                  breakers_name(s->breakers, h->breaker, NULL), "state",
                  breaker_state_name(h->state), "for_ms", ttl, "reason", h->reason, NULL);
    else
        log_event(LOG_INFO, "proxy", "bypass.begun",
                  "bypass is on: every request passes, whatever its breakers say", "for_ms", ttl,
                  "reason", h->reason, NULL);
}

static void log_ended(const struct switches *s, const struct held *h, const char *why)
{
    if (h->breaker)
        log_event(LOG_INFO, "proxy", "override.ended",
                  "the control plane's state of a breaker holds again", "breaker",
                  breakers_name(s->breakers, h->breaker, NULL), "state",
                  breaker_state_name(h->state), "why", why, "reason", h->reason, NULL);
    else
        log_event(LOG_INFO, "proxy", "bypass.ended", "bypass is off: breakers gate again", "why",
                  why, "reason", h->reason, NULL);
}

/* ---- Overrides ---- */

static struct held *find(const struct switches *s, uint32_t breaker)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->overrides[i].breaker == breaker)
            return &s->overrides[i];
    return NULL;
}

static void hold(struct held *h, int64_t ttl_ms, const char *reason, struct switch_times now)
{
    h->until_ms = now.mono_ms + ttl_ms;
    h->until_wall_ms = now.wall_ms + ttl_ms;
    h->reason = xstrdup(reason);
}

static unsigned write_reason(struct switches *s, const char *text)
{
    unsigned number = s->free[--s->free_count];
    uint64_t words[ARRAY_LEN(s->reasons->words)] = { 0 };
    memcpy(words, text, strnlen(text, SWITCHES_REASON_MAX));
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        atomic_store_explicit(&s->reasons[number].words[i], words[i], memory_order_release);
    return number;
}

/* Its reason may be overwritten as soon as no word names it any more. */
static void set_word(struct switches *s, uint32_t breaker, uint64_t word)
{
    unsigned before = breaker_local_reason(breakers_local(s->breakers, breaker));
    breakers_set_local(s->breakers, breaker, word);
    if (before)
        s->free[s->free_count++] = before;
}

static void end(struct switches *s, struct held *h, const char *why)
{
    size_t at = (size_t)(h - s->overrides);
    set_word(s, h->breaker, 0);
    log_ended(s, h, why);
    free(h->reason);
    memmove(h, h + 1, (s->count - at - 1) * sizeof(*h));
    if (--s->count == 0)
        breakers_set_flags(s->breakers, 0, STATE_OVERRIDES);
}

int switches_override(struct switches *s, uint32_t breaker, enum breaker_state state,
                      int64_t ttl_ms, const char *reason, struct switch_times now)
{
    struct held *h = find(s, breaker);
    if (h) {
        log_ended(s, h, "replaced");
        free(h->reason);
    } else if (s->count < SWITCHES_OVERRIDES_MAX) {
        h = &s->overrides[s->count++];
    } else {
        s->refused++;
        return -1;
    }
    *h = (struct held){ .breaker = breaker, .state = state };
    hold(h, ttl_ms, reason, now);
    set_word(s, breaker, breaker_local_pack(state, write_reason(s, reason), h->until_ms));
    breakers_set_flags(s->breakers, STATE_OVERRIDES, 0);
    log_begun(s, h, ttl_ms);
    return 0;
}

bool switches_end_override(struct switches *s, uint32_t breaker)
{
    struct held *h = find(s, breaker);
    if (h)
        end(s, h, "removed");
    return h != NULL;
}

/* ---- Bypass ---- */

static void end_bypass(struct switches *s, const char *why)
{
    breakers_set_flags(s->breakers, 0, STATE_BYPASS);
    log_ended(s, &s->bypass, why);
    free(s->bypass.reason);
    s->bypass = (struct held){ 0 };
}

void switches_bypass(struct switches *s, int64_t ttl_ms, const char *reason,
                     struct switch_times now)
{
    if (s->bypass.reason) { /* goes on, by the new terms */
        log_ended(s, &s->bypass, "replaced");
        free(s->bypass.reason);
    }
    hold(&s->bypass, ttl_ms, reason, now);
    breakers_set_flags(s->breakers, STATE_BYPASS, 0);
    log_begun(s, &s->bypass, ttl_ms);
}

bool switches_end_bypass(struct switches *s)
{
    bool on = s->bypass.reason != NULL;
    if (on)
        end_bypass(s, "removed");
    return on;
}

/* ---- Time ---- */

int64_t switches_tick(struct switches *s, int64_t now_ms)
{
    int64_t next_ms = -1;
    for (size_t i = s->count; i-- > 0;) {
        if (s->overrides[i].until_ms <= now_ms)
            end(s, &s->overrides[i], "expired");
        else if (next_ms < 0 || s->overrides[i].until_ms < next_ms)
            next_ms = s->overrides[i].until_ms;
    }
    if (s->bypass.reason && s->bypass.until_ms <= now_ms)
        end_bypass(s, "expired");
    else if (s->bypass.reason && (next_ms < 0 || s->bypass.until_ms < next_ms))
        next_ms = s->bypass.until_ms;
    return next_ms;
}

/* ---- Looking ---- */

size_t switches_count(const struct switches *s)
{
    return s->count;
}

const struct held *switches_at(const struct switches *s, size_t i)
{
    return &s->overrides[i];
}

const struct held *switches_of(const struct switches *s, uint32_t breaker)
{
    return find(s, breaker);
}

const struct held *switches_bypass_held(const struct switches *s)
{
    return s->bypass.reason ? &s->bypass : NULL;
}

uint64_t switches_refused(const struct switches *s)
{
    return s->refused;
}

bool switches_reason(const struct switches *s, uint32_t breaker, char out[SWITCHES_REASON_MAX + 1])
{
    uint64_t local = breakers_local(s->breakers, breaker);
    const struct reason *r = &s->reasons[breaker_local_reason(local)];
    uint64_t words[ARRAY_LEN(r->words)];
    if (!breaker_local_reason(local))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        words[i] = atomic_load_explicit(&r->words[i], memory_order_acquire);
    memcpy(out, words, SWITCHES_REASON_MAX);
    out[SWITCHES_REASON_MAX] = '\0';
    /* Whoever has seen a byte of what comes next sees that the word has gone, too. */
    return breakers_local(s->breakers, breaker) == local;
}
