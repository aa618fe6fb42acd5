#include "sync/known.h"
#include "base/base.h"
#include "config/catalog.h"
#include "config/config.h"
#include "sync/breakers.h"
#include "sync/known_log.h"
#include "sync/state_event.h"
#include "sync/sync.h"
#include <stdlib.h>
#include <string.h>

struct known {
    struct breakers *breakers;
    _Atomic uint64_t *counters;
    uint32_t *used; /* owned */
    size_t used_count;
    bool templated;
    bool unresolved;
    int64_t state_max_age_ms;
    struct known_log log;

    bool connected;
    bool trusted; /* this connection has named all used breakers, or its snapshot is whole */
    bool whole;   /* what this connection's snapshot lacks the server lacks */
    bool synced;  /* one was, at some time */
    bool stale;
    bool poll_ok;      /* the last poll went well, and polls are still made */
    bool must_compare; /* this connection's snapshot with what was known before it */
    bool wants_list;
    bool polling; /* the stream is not what counts, even if it stands */
    bool wants_poll;
    bool hosts_awaited; /* names of hosts are used, and nobody was asked about them */
    bool hosts_in_poll;
    int64_t polled_ms;    /* the last poll that went well */
    int64_t connected_ms; /* valid while connected */
    int64_t event_ms;     /* last event of this connection, or its start */
    int64_t lost_ms;      /* when a trusted connection was last lost; 0: never */
    size_t pending;       /* used names not seen on this connection */
    uint64_t cached;
    uint64_t missing;
    uint64_t awaited;
    uint8_t is_used[BREAKERS_CAPACITY / 8];
    uint8_t is_seen[BREAKERS_CAPACITY / 8];   /* on this connection */
    uint8_t is_heard[BREAKERS_CAPACITY / 8];  /* since the list was asked for */
    uint8_t is_listed[BREAKERS_CAPACITY / 8]; /* in the last list */
    uint8_t in_poll[BREAKERS_CAPACITY / 8];   /* the last poll to begin asks for it */
    uint8_t in_list[BREAKERS_CAPACITY / 8];   /* used when the list was asked for */
};

static bool has_bit(const uint8_t *bits, uint32_t id)
{
    return bits[id / 8] >> (id % 8) & 1;
}

static void set_bit(uint8_t *bits, uint32_t id)
{
    bits[id / 8] = (uint8_t)(bits[id / 8] | 1u << (id % 8));
}

static void clear_bit(uint8_t *bits, uint32_t id)
{
    bits[id / 8] = (uint8_t)(bits[id / 8] & ~(1u << (id % 8)));
}

static void count(struct known *k, enum sync_counter c)
{
    atomic_fetch_add_explicit(&k->counters[c], 1, memory_order_relaxed);
}

struct known *known_new(struct breakers *b, _Atomic uint64_t *counters)
{
    struct known *k = xcalloc(1, sizeof(*k));
    k->breakers = b;
    k->counters = counters;
    k->state_max_age_ms = OFF;
    return k;
}

void known_free(struct known *k)
{
    if (!k)
        return;
    free(k->used);
    free(k);
}

static enum breaker_state state_of(const struct known *k, uint32_t id)
{
    return breaker_unpack(breakers_load(k->breakers, id)).state;
}

static bool is_awaited(const struct known *k, uint32_t id)
{
    return breaker_is_awaited(breaker_unpack(breakers_load(k->breakers, id)));
}

static void look_for_missing(struct known *k)
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

/* -- names that nobody has been asked about ---------------------------------------------- */

static void set_hosts_awaited(struct known *k, bool awaited)
{
    unsigned flag = awaited && k->synced ? STATE_AWAITED : 0;
    k->hosts_awaited = awaited;
    if ((breakers_flags(k->breakers) & STATE_AWAITED) != flag)
        breakers_set_flags(k->breakers, flag, STATE_AWAITED & ~flag);
}

static void await_all(struct known *k, bool awaited)
{
    for (size_t i = 0; i < k->used_count; i++)
        breakers_await(k->breakers, k->used[i], awaited);
    k->wants_poll = awaited;
    set_hosts_awaited(k, awaited && k->templated);
}

/* Routes use names that they did not.  The stream would have told. */
static void await_joined(struct known *k, const uint8_t *was_used, bool was_templated)
{
    if (k->connected && k->whole && !k->polling)
        return;
    for (size_t i = 0; i < k->used_count; i++) {
        if (has_bit(was_used, k->used[i]) || state_of(k, k->used[i]) != BREAKER_UNKNOWN)
            continue;
        breakers_await(k->breakers, k->used[i], true);
        k->wants_poll = true;
    }
    if (k->templated && !was_templated) {
        set_hosts_awaited(k, true);
        k->wants_poll = true;
    }
}

/* Routes use some no more. */
static void forget_left(struct known *k, const uint32_t *former, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!has_bit(k->is_used, former[i]))
            breakers_await(k->breakers, former[i], false);
    if (!k->templated)
        set_hosts_awaited(k, false);
}

/* Those in the set have been asked about: the server has them, or lacks them. */
static void settle(struct known *k, const uint8_t *set)
{
    for (size_t i = 0; i < k->used_count; i++)
        if (has_bit(set, k->used[i]))
            breakers_await(k->breakers, k->used[i], false);
}

/* -- snapshots --------------------------------------------------------------------------- */

/* What the slots say is the state of now. */
static void refresh(struct known *k)
{
    if (k->stale)
        known_log_fresh(&k->log);
    k->synced = true;
    k->stale = false;
    set_hosts_awaited(k, k->hosts_awaited);
    breakers_set_flags(k->breakers, STATE_SYNCED, STATE_STALE);
    look_for_missing(k);
}

static void trust(struct known *k)
{
    if (k->trusted)
        return;
    k->trusted = true;
    refresh(k);
}

/* Every name the routes use has been seen; without any fixed name there is nothing to
 * wait for, and with names yet to come no list to go by. */
static void trust_if_complete(struct known *k)
{
    if (k->connected && k->pending == 0 && !k->templated && !k->unresolved)
        trust(k);
}

static void snapshot_ended(struct known *k)
{
    if (k->whole)
        return;
    k->whole = true;
    if (!k->polling)
        await_all(k, false);
    trust(k);
    look_for_missing(k);
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
    forget_left(k, former, former_count);
    free(former);
    await_joined(k, was_used, was_templated);
    count_pending(k);
    trust_if_complete(k);
    look_for_missing(k);
    known_tick(k, now_ms);
}

void known_forget(struct known *k, int64_t wall_ms)
{
    for (uint32_t id = 1; id <= breakers_count(k->breakers); id++) {
        if (state_of(k, id) != BREAKER_UNKNOWN)
            breakers_store(k->breakers, id, BREAKER_UNKNOWN, 0, false, wall_ms);
    }
    breakers_set_flags(k->breakers, 0, STATE_SYNCED | STATE_STALE);
    memset(k->is_listed, 0, sizeof(k->is_listed));
    k->poll_ok = false;
    k->must_compare = false;
    k->wants_list = false;
    k->synced = false;
    k->trusted = false;
    k->whole = false;
    k->polling = false;
    k->stale = false;
    k->cached = 0;
    k->missing = 0;
    k->log.missing = 0;
    await_all(k, true);
}

void known_connected(struct known *k, int64_t now_ms)
{
    k->connected = true;
    k->whole = false;
    k->connected_ms = now_ms;
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
    /* one that never got as far as its snapshot does not renew what we know */
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
        look_for_missing(k);
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

enum known_result known_event(struct known *k, const char *json, size_t len, int64_t now_ms,
                              int64_t wall_ms)
{
    struct state_event ev;
    enum state_event_result r = state_event_parse(json, len, &ev);
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
    k->event_ms = now_ms;
    count(k, SYNC_EVENTS_INVALID);
    known_log_skipped(&k->log, "longer than 64 KiB", now_ms);
}

void known_comment(struct known *k)
{
    if (k->connected)
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
    if (id != 0)
        store(k, id, ev, "poll", now_ms, wall_ms);
}

void known_poll_ended(struct known *k, bool ok, int64_t now_ms)
{
    k->poll_ok = ok;
    if (ok) {
        k->polled_ms = now_ms;
        settle(k, k->in_poll);
        if (k->hosts_in_poll)
            set_hosts_awaited(k, false);
        refresh(k);
    }
    known_tick(k, now_ms);
}

void known_poll_stopped(struct known *k, int64_t now_ms)
{
    k->poll_ok = false;
    k->polling = false;
    if (k->connected && k->whole) {
        await_all(k, false);
        look_for_missing(k);
    }
    known_tick(k, now_ms);
}

void known_poll_begun(struct known *k, const struct catalog *list)
{
    memset(k->in_poll, 0, sizeof(k->in_poll));
    for (size_t i = 0; i < list->count; i++) {
        const char *name = list->items[i].name;
        uint32_t id = breakers_find(k->breakers, name, strlen(name));
        if (id != 0 && (k->templated || has_bit(k->is_used, id)))
            set_bit(k->in_poll, id);
    }
    for (size_t i = 0; i < k->used_count && !k->wants_list; i++)
        k->wants_list = is_awaited(k, k->used[i]) && !has_bit(k->in_poll, k->used[i]);
    k->polling = true;
    k->wants_poll = false;
    k->hosts_in_poll = k->templated;
}

bool known_wants_poll(const struct known *k)
{
    return k->wants_poll;
}

bool known_polls(const struct known *k, const char *name)
{
    uint32_t id = k->templated ? 0 : breakers_find(k->breakers, name, strlen(name));
    return k->templated || (id != 0 && has_bit(k->is_used, id));
}

/* -- the list -------------------------------------------------------------------------- */

void known_list_asked(struct known *k)
{
    memset(k->is_heard, 0, sizeof(k->is_heard));
    memcpy(k->in_list, k->is_used, sizeof(k->in_list));
}

static void take_back(struct known *k, uint32_t id, int64_t now_ms, int64_t wall_ms)
{
    known_log_gone(&k->log, breakers_name(k->breakers, id, NULL), now_ms);
    breakers_store(k->breakers, id, BREAKER_UNKNOWN, 0, false, wall_ms);
    k->cached--;
    count(k, SYNC_BREAKERS_GONE);
    if (!has_bit(k->is_seen, id))
        return;
    clear_bit(k->is_seen, id);
    k->pending += has_bit(k->is_used, id);
}

/* A list that was asked for since then lacks them, or the next poll will tell. */
static void look_at_awaited(struct known *k)
{
    for (size_t i = 0; i < k->used_count; i++) {
        uint32_t id = k->used[i];
        if (!is_awaited(k, id))
            continue;
        if (has_bit(k->is_listed, id))
            k->wants_poll = true;
        else if (has_bit(k->in_list, id))
            breakers_await(k->breakers, id, false);
    }
}

void known_listed(struct known *k, const struct catalog *list, int64_t now_ms, int64_t wall_ms)
{
    uint8_t *now_listed = xcalloc(sizeof(k->is_listed), 1);
    for (size_t i = 0; i < list->count; i++) {
        const char *name = list->items[i].name;
        uint32_t id = breakers_find(k->breakers, name, strlen(name));
        if (id != 0)
            set_bit(now_listed, id);
    }
    for (uint32_t id = 1; id <= breakers_count(k->breakers); id++) {
        bool was_listed = has_bit(k->is_listed, id);
        if (state_of(k, id) == BREAKER_UNKNOWN || has_bit(now_listed, id) ||
            has_bit(k->is_heard, id) || (has_bit(k->is_seen, id) && !was_listed))
            continue;
        take_back(k, id, now_ms, wall_ms);
    }
    memcpy(k->is_listed, now_listed, sizeof(k->is_listed));
    free(now_listed);
    look_at_awaited(k);
    look_for_missing(k);
}

bool known_wants_list(struct known *k)
{
    bool wants = k->wants_list;
    k->wants_list = false;
    return wants;
}

static void compare_snapshot(struct known *k)
{
    k->must_compare = false;
    for (uint32_t id = 1; id <= breakers_count(k->breakers) && !k->wants_list; id++)
        k->wants_list = state_of(k, id) != BREAKER_UNKNOWN && !has_bit(k->is_seen, id);
}

static int64_t compare_at_ms(const struct known *k)
{
    return k->must_compare ? k->connected_ms + KNOWN_SETTLE_MS : INT64_MAX;
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
    if (!k->connected || k->whole)
        return INT64_MAX;
    int64_t quiet = k->event_ms + KNOWN_QUIET_MS;
    int64_t settled = k->connected_ms + KNOWN_SETTLE_MS;
    return quiet < settled ? quiet : settled;
}

void known_tick(struct known *k, int64_t now_ms)
{
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
    return next < compare ? next : compare;
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
