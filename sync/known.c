#include "sync/known.h"
#include "base/base.h"
#include "config/config.h"
#include "sync/known_own.h"
#include "sync/state_event.h"
#include <stdlib.h>
#include <string.h>

struct known *known_new(struct breakers *b, _Atomic uint64_t *counters)
{
    struct known *k = xcalloc(1, sizeof(*k));
    k->breakers = b;
    k->counters = counters;
    k->state_max_age_ms = OFF;
    k->adopted_ms = INT64_MAX;
    return k;
}

void known_free(struct known *k)
{
    if (!k)
        return;
    free(k->used);
    free(k);
}

void known_look_for_missing(struct known *k)
{
    k->missing = k->awaited = 0;
    if (!k->synced)
        return;
    uint32_t *ids = xcalloc(k->used_count + 1, sizeof(*ids));
    size_t n = 0;
    for (size_t i = 0; i < k->used_count; i++) {
        if (is_awaited(k, k->used[i]))
            k->awaited++;
        else if (state_of(k, k->used[i]) == BREAKER_UNKNOWN)
            ids[n++] = k->used[i];
    }
    k->missing = n;
    known_log_missing(&k->log, k->breakers, ids, n);
    free(ids);
}

static void count_pending(struct known *k)
{
    k->pending = 0;
    for (size_t i = 0; i < k->used_count; i++)
        k->pending += !has_bit(k->is_seen, k->used[i]);
}

/* -- snapshots --------------------------------------------------------------------------- */

void known_refresh(struct known *k)
{
    if (k->stale)
        known_log_fresh(&k->log);
    k->synced = true;
    k->stale = false;
    known_keep_hosts_awaited(k);
    breakers_set_flags(k->breakers, STATE_SYNCED, STATE_STALE);
    known_look_for_missing(k);
}

static void trust(struct known *k)
{
    if (k->trusted)
        return;
    k->trusted = true;
    known_refresh(k);
}

/* A stream that says nothing has no breakers, unless anybody ever said anything else. */
static bool may_be_silent(const struct known *k)
{
    return k->spoke || !(k->told || k->stale || k->polling);
}

/* Every name the routes use has been seen; without any fixed name there is nothing to
 * wait for, and with names yet to come no list to go by. */
static void trust_if_complete(struct known *k)
{
    if (k->connected && k->pending == 0 && !k->templated && !k->unresolved && may_be_silent(k))
        trust(k);
}

static void snapshot_ended(struct known *k)
{
    if (k->whole)
        return;
    k->whole = true;
    k->by_polls = false;
    if (!k->polling)
        known_await_all(k, false);
    trust(k);
    known_look_for_missing(k);
}

void known_configure(struct known *k, const struct known_options *options, int64_t now_ms)
{
    uint32_t *former = k->used;
    size_t former_count = k->used_count;
    bool was_templated = k->templated;
    uint8_t was_used[sizeof(k->is_used)];
    memcpy(was_used, k->is_used, sizeof(was_used));
    k->used = xcalloc(options->used_count + 1, sizeof(*k->used));
    k->used_count = options->used_count;
    k->templated = options->templated;
    k->unresolved = options->unresolved;
    k->state_max_age_ms = options->state_max_age_ms;
    k->log.server_logs = options->server_logs;
    memset(k->is_used, 0, sizeof(k->is_used));
    for (size_t i = 0; i < options->used_count; i++) {
        k->used[i] = options->used[i];
        set_bit(k->is_used, options->used[i]);
    }
    known_leave(k, former, former_count);
    free(former);
    known_await_joined(k, was_used, was_templated);
    k->adopted_ms = now_ms + KNOWN_ADOPTED_MS;
    count_pending(k);
    trust_if_complete(k);
    known_look_for_missing(k);
    known_tick(k, now_ms);
}

/* As before the first sync. */
static void unsync(struct known *k)
{
    breakers_set_flags(k->breakers, 0, STATE_SYNCED | STATE_STALE);
    k->synced = false;
    k->stale = false;
    k->told = false;
    k->trusted = false;
    k->whole = false;
    k->missing = 0;
    known_await_all(k, true);
}

void known_forget(struct known *k, int64_t wall_ms)
{
    unsync(k);
    for (uint32_t id = 1; id <= breakers_count(k->breakers); id++) {
        if (state_of(k, id) != BREAKER_UNKNOWN)
            breakers_store(k->breakers, id, BREAKER_UNKNOWN, 0, has_bit(k->is_used, id), wall_ms);
    }
    memset(k->is_listed, 0, sizeof(k->is_listed));
    k->poll_ok = false;
    k->must_compare = false;
    k->wants_list = false;
    k->polling = false;
    k->by_polls = false;
    k->cached = 0;
    k->log.missing = 0;
}

void known_connected(struct known *k, int64_t now_ms)
{
    k->connected = true;
    k->spoke = false;
    k->whole = false;
    k->begun_ms = now_ms;
    k->event_ms = now_ms;
    k->must_compare = k->cached > 0;
    memset(k->is_seen, 0, sizeof(k->is_seen));
    count_pending(k);
    breakers_set_flags(k->breakers, STATE_CONNECTED, 0);
    trust_if_complete(k);
}

void known_lost(struct known *k, int64_t now_ms)
{
    if (!k->connected)
        return;
    /* one that never got as far as its snapshot does not renew what is known */
    if (k->trusted)
        k->lost_ms = now_ms;
    k->connected = false;
    k->must_compare = false;
    k->trusted = false;
    k->whole = false;
    breakers_set_flags(k->breakers, 0, STATE_CONNECTED);
    known_tick(k, now_ms);
}

/* A used name was seen: one less to wait for, and perhaps no longer missing.  True: for the
 * first time on this connection. */
static bool mark_seen(struct known *k, uint32_t id, enum breaker_state before)
{
    if (has_bit(k->is_seen, id))
        return false;
    set_bit(k->is_seen, id);
    if (!has_bit(k->is_used, id))
        return true;
    k->pending--;
    if (k->synced && before == BREAKER_UNKNOWN)
        known_look_for_missing(k);
    return true;
}

/* The slot of that name; 0: the table is full. */
static uint32_t slot_of(struct known *k, const struct state_event *ev, int64_t now_ms)
{
    uint32_t id = breakers_intern(k->breakers, ev->breaker, ev->breaker_len);
    if (id == 0)
        known_log_full(&k->log, now_ms);
    return id;
}

/* True if state or rate differ from before. */
static bool store(struct known *k, uint32_t id, const struct state_event *ev, const char *source,
                  int64_t now_ms, int64_t wall_ms)
{
    enum breaker_state from = state_of(k, id);
    bool news = breakers_store(k->breakers, id, ev->state, breaker_rate_from_double(ev->allow_rate),
                               ev->rate_null, wall_ms);
    k->cached += from == BREAKER_UNKNOWN;
    set_bit(k->is_heard, id);
    if (news)
        known_log_change(&k->log, ev, from, source, now_ms);
    return news;
}

static enum known_result take_event(struct known *k, const struct state_event *ev, int64_t now_ms,
                                    int64_t wall_ms)
{
    uint32_t id = slot_of(k, ev, now_ms);
    if (id == 0)
        return KNOWN_SAME;
    enum breaker_state from = state_of(k, id);
    bool news = store(k, id, ev, "stream", now_ms, wall_ms);
    bool first = mark_seen(k, id, from);
    return news || first ? KNOWN_NEWS : KNOWN_SAME;
}

/* The first word after a long silence is where the snapshot begins. */
static void hear(struct known *k, int64_t now_ms)
{
    if (!k->spoke && now_ms > k->begun_ms + KNOWN_QUIET_MS)
        k->begun_ms = now_ms;
    k->spoke = k->told = true;
}

enum known_result known_event(struct known *k, const char *json, size_t len, int64_t now_ms,
                              int64_t wall_ms)
{
    struct state_event ev;
    enum state_event_result r = state_event_parse(json, len, &ev);
    hear(k, now_ms);
    k->event_ms = now_ms;
    if (r != STATE_EVENT_OK) {
        bool unknown = r == STATE_EVENT_STATE;
        count(k, unknown ? SYNC_EVENTS_UNKNOWN : SYNC_EVENTS_INVALID);
        known_log_skipped(&k->log, state_event_result_text(r), now_ms);
        return unknown ? KNOWN_UNKNOWN : KNOWN_INVALID;
    }
    count(k, k->trusted ? SYNC_EVENTS_STATE : SYNC_EVENTS_SNAPSHOT);
    enum known_result result = take_event(k, &ev, now_ms, wall_ms);
    trust_if_complete(k);
    return result;
}

void known_too_long(struct known *k, int64_t now_ms)
{
    hear(k, now_ms);
    k->event_ms = now_ms;
    count(k, SYNC_EVENTS_INVALID);
    known_log_skipped(&k->log, "longer than 64 KiB", now_ms);
}

void known_other(struct known *k, int64_t now_ms)
{
    hear(k, now_ms);
}

void known_comment(struct known *k, int64_t now_ms)
{
    if (!k->connected)
        return;
    hear(k, now_ms);
    snapshot_ended(k);
}

/* -- polls ---------------------------------------------------------------------------- */

void known_polled(struct known *k, enum state_event_result r, const struct state_event *ev,
                  int64_t now_ms, int64_t wall_ms)
{
    if (r != STATE_EVENT_OK) {
        count(k, r == STATE_EVENT_STATE ? SYNC_POLLED_UNKNOWN : SYNC_POLLED_INVALID);
        known_log_skipped(&k->log, state_event_result_text(r), now_ms);
        return;
    }
    count(k, SYNC_POLLED_STATES);
    uint32_t id = slot_of(k, ev, now_ms);
    if (id == 0)
        return;
    set_bit(k->in_poll, id);
    store(k, id, ev, "poll", now_ms, wall_ms);
}

static void compare_snapshot(struct known *k)
{
    k->must_compare = false;
    for (uint32_t id = 1; id <= breakers_count(k->breakers) && !k->wants_list; id++)
        k->wants_list = state_of(k, id) != BREAKER_UNKNOWN && !has_bit(k->is_seen, id);
}

static int64_t compare_at_ms(const struct known *k)
{
    return k->must_compare && k->whole ? k->begun_ms + KNOWN_SETTLE_MS : INT64_MAX;
}

/* -- the other source ------------------------------------------------------------------ */

/* Where there is nothing to go by but a stream's silence, that has proved to say nothing. */
static void polling_began(struct known *k)
{
    k->polling = true;
    if (k->synced && !k->told)
        unsync(k);
}

static void polling_ended(struct known *k, int64_t now_ms)
{
    k->poll_ok = false;
    k->polling = false;
    if (k->connected && k->whole) {
        k->by_polls = false;
        known_await_all(k, false);
        known_look_for_missing(k);
    }
    known_tick(k, now_ms);
}

void known_set_polling(struct known *k, bool polling, int64_t now_ms)
{
    if (polling && !k->polling)
        polling_began(k);
    else if (!polling && k->polling)
        polling_ended(k, now_ms);
}

/* -- time ------------------------------------------------------------------------------ */

static int64_t stale_at_ms(const struct known *k)
{
    if (!k->synced || k->trusted || k->poll_ok || k->stale || k->state_max_age_ms == OFF)
        return INT64_MAX;
    int64_t last_ms = k->lost_ms > k->polled_ms ? k->lost_ms : k->polled_ms;
    return last_ms + k->state_max_age_ms;
}

static int64_t whole_at_ms(const struct known *k)
{
    if (!k->connected || k->whole || !may_be_silent(k))
        return INT64_MAX;
    int64_t quiet = k->event_ms + KNOWN_QUIET_MS;
    int64_t settled = k->begun_ms + KNOWN_SETTLE_MS;
    return quiet < settled ? quiet : settled;
}

void known_tick(struct known *k, int64_t now_ms)
{
    if (now_ms >= k->adopted_ms)
        known_end_adoption(k);
    if (now_ms >= whole_at_ms(k))
        snapshot_ended(k);
    if (now_ms >= compare_at_ms(k))
        compare_snapshot(k);
    if (now_ms < stale_at_ms(k))
        return;
    k->stale = true;
    breakers_set_flags(k->breakers, STATE_STALE, 0);
    known_log_stale(&k->log, now_ms);
}

int64_t known_next_ms(const struct known *k)
{
    int64_t stale = stale_at_ms(k);
    int64_t whole = whole_at_ms(k);
    int64_t compare = compare_at_ms(k);
    int64_t next = stale < whole ? stale : whole;
    next = next < compare ? next : compare;
    return next < k->adopted_ms ? next : k->adopted_ms;
}

bool known_trusted(const struct known *k)
{
    return k->trusted;
}

bool known_unresolved(const struct known *k)
{
    return k->unresolved;
}

uint64_t known_awaited(const struct known *k)
{
    return k->awaited;
}

uint64_t known_cached(const struct known *k)
{
    return k->cached;
}

uint64_t known_missing(const struct known *k)
{
    return k->missing;
}
