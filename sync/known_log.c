#include "sync/known_log.h"
#include "base/strbuf.h"
#include <inttypes.h>
#include <stdio.h>

#define LISTED_NAMES     10
#define LINES_PER_SECOND 50 /* moves beyond this are counted in one line */
#define MINUTE_MS        60000

static bool line_allowed(struct known_log *l, int64_t now_ms)
{
    if (now_ms - l->lines_ms >= 1000) {
        l->lines_ms = now_ms;
        l->lines = 0;
    }
    if (l->lines++ < LINES_PER_SECOND)
        return true;
    uint64_t suppressed;
    if (log_limit_pass(&l->more_limit, now_ms, MINUTE_MS, &suppressed))
        log_event(LOG_WARNING, "sync", "breaker.transitions_suppressed",
                  "breakers change faster than is worth a line each", NULL);
    return false;
}

void known_log_change(struct known_log *l, const struct state_event *ev, enum breaker_state from,
                      const char *source, int64_t now_ms)
{
    bool step = from == ev->state;
    enum log_level level = step || l->server_logs ? LOG_DEBUG : LOG_INFO;
    uint64_t suppressed;
    if (ev->state == BREAKER_HALF_OPEN && ev->rate_null &&
        log_limit_pass(&l->null_limit, now_ms, MINUTE_MS, &suppressed))
        log_event(LOG_WARNING, "sync", "breaker.null_rate",
                  "a half-open breaker without allow_rate admits nobody", "breaker", ev->breaker,
                  NULL);
    /* finding a breaker closed at first sight is no news */
    if (from == BREAKER_UNKNOWN && ev->state == BREAKER_CLOSED)
        return;
    if (!log_enabled(level) || !line_allowed(l, now_ms))
        return;
    char rate[32] = "null";
    if (!ev->rate_null)
        snprintf(rate, sizeof(rate), "%.4g", ev->allow_rate);
    char msg[STATE_EVENT_NAME_MAX + 64];
    snprintf(msg, sizeof(msg), "breaker %s is %s", ev->breaker, breaker_state_name(ev->state));
    if (step)
        log_event(level, "sync", "breaker.allow_rate", msg, "breaker", ev->breaker, "state",
                  breaker_state_name(ev->state), "allow_rate", rate, "source", source, NULL);
    else
        log_event(level, "sync", "breaker.transition", msg, "breaker", ev->breaker, "from",
                  breaker_state_name(from), "to", breaker_state_name(ev->state), "allow_rate", rate,
                  "source", source, NULL);
}

void known_log_gone(struct known_log *l, const char *name, int64_t now_ms)
{
    if (line_allowed(l, now_ms))
        log_event(LOG_INFO, "sync", "breaker.gone",
                  "the control plane has this breaker no more; it lets everything pass", "breaker",
                  name, NULL);
}

void known_log_skipped(struct known_log *l, const char *reason, int64_t now_ms)
{
    uint64_t suppressed = 0;
    if (!log_limit_pass(&l->invalid_limit, now_ms, MINUTE_MS, &suppressed))
        return;
    char more[24];
    snprintf(more, sizeof(more), "%" PRIu64, suppressed);
    log_event(LOG_WARNING, "sync", "stream.event_skipped",
              "the control plane sent a state that makes no sense; it is skipped", "reason", reason,
              "suppressed", more, NULL);
}

void known_log_full(struct known_log *l, int64_t now_ms)
{
    uint64_t suppressed;
    if (log_limit_pass(&l->full_limit, now_ms, MINUTE_MS, &suppressed))
        log_event(LOG_WARNING, "sync", "breakers.table_full",
                  "the table of breaker names is full; further breakers let everything pass", NULL);
}

void known_log_missing(struct known_log *l, const struct breakers *b, const uint32_t *ids, size_t n)
{
    /* FNV-1a; 0 is kept for "nothing missing", which needs no warning */
    uint64_t set = n ? UINT64_C(0xcbf29ce484222325) : 0;
    for (size_t i = 0; i < n; i++)
        set = (set ^ ids[i]) * UINT64_C(0x100000001b3);
    if (set == l->missing)
        return;
    l->missing = set;
    if (n == 0)
        return;
    struct strbuf names = STRBUF_INIT;
    for (size_t i = 0; i < n && i < LISTED_NAMES; i++) {
        size_t len;
        const char *name = breakers_name(b, ids[i], &len);
        strbuf_adds(&names, i ? ", " : "");
        strbuf_add(&names, name, len);
    }
    if (n > LISTED_NAMES)
        strbuf_addf(&names, " and %zu more", n - LISTED_NAMES);
    log_event(LOG_WARNING, "sync", "breakers.unknown",
              "the control plane does not have breakers that routes name; "
              "they let everything pass",
              "names", strbuf_str(&names), NULL);
    strbuf_free(&names);
}

void known_log_stale(struct known_log *l, int64_t now_ms)
{
    uint64_t suppressed;
    l->stale_told = log_limit_pass(&l->stale_limit, now_ms, MINUTE_MS, &suppressed);
    if (l->stale_told)
        log_event(
            LOG_WARNING, "sync", "state.stale",
            "the control plane has been out of reach for state_max_age; fail_mode decides now",
            NULL);
}

void known_log_fresh(struct known_log *l)
{
    if (l->stale_told)
        log_event(LOG_INFO, "sync", "state.fresh", "breaker states are up to date again", NULL);
    l->stale_told = false;
}
