/* Names that nobody has been asked about, and those who are asked: polls and lists. */
#include "base/base.h"
#include "config/catalog.h"
#include "sync/known_own.h"
#include <stdlib.h>
#include <string.h>

/* -- names that nobody has been asked about ---------------------------------------------- */

static void set_hosts_awaited(struct known *k, bool awaited)
{
    unsigned flag = awaited && k->synced ? STATE_AWAITED : 0;
    k->hosts_awaited = awaited;
    if ((breakers_flags(k->breakers) & STATE_AWAITED) != flag)
        breakers_set_flags(k->breakers, flag, STATE_AWAITED & ~flag);
}

void known_keep_hosts_awaited(struct known *k)
{
    set_hosts_awaited(k, k->hosts_awaited);
}

void known_await_all(struct known *k, bool awaited)
{
    for (size_t i = 0; i < k->used_count; i++)
        breakers_await(k->breakers, k->used[i], awaited);
    k->wants_poll = awaited;
    set_hosts_awaited(k, awaited && k->templated);
}

/* What the slot says is as fresh as what those say that were used all along. */
static bool is_current(const struct known *k, uint32_t id)
{
    return !k->by_polls || has_bit(k->is_polled, id) || (k->connected && has_bit(k->is_seen, id));
}

/* Nobody has kept it up to date. */
static void forget_state(struct known *k, uint32_t id, bool awaited)
{
    breakers_store(k->breakers, id, BREAKER_UNKNOWN, 0, awaited,
                   breakers_changed_ms(k->breakers, id));
    k->cached--;
}

bool known_stream_tells(const struct known *k)
{
    return k->connected && k->whole && !k->polling;
}

/* What the stream would have told is known, but the embedded control plane hears of new names
 * when we do. */
static void await_name(struct known *k, uint32_t id)
{
    if (state_of(k, id) == BREAKER_UNKNOWN) {
        if (known_stream_tells(k) && !k->log.server_logs)
            return;
        breakers_await(k->breakers, id, true);
    } else if (!is_current(k, id)) {
        forget_state(k, id, true);
    } else if (!k->polling || has_bit(k->in_poll, id)) {
        return;
    }
    k->wants_poll = true;
}

/* First the flag: what is forgotten then must not look like what the server lacks. */
static void await_hosts(struct known *k)
{
    if (known_stream_tells(k))
        return;
    set_hosts_awaited(k, true);
    k->wants_poll = true;
    for (uint32_t id = 1; id <= breakers_count(k->breakers); id++)
        if (!has_bit(k->is_used, id) && state_of(k, id) != BREAKER_UNKNOWN && !is_current(k, id))
            forget_state(k, id, false);
}

/* Routes use names that they did not. */
void known_await_joined(struct known *k, const uint8_t *was_used, bool was_templated)
{
    for (size_t i = 0; i < k->used_count; i++)
        if (!has_bit(was_used, k->used[i]))
            await_name(k, k->used[i]);
    if (k->templated && !was_templated)
        await_hosts(k);
}

void known_leave(struct known *k, const uint32_t *former, size_t count)
{
    for (size_t i = 0; i < count; i++)
        set_bit(k->is_left, former[i]);
    for (size_t i = 0; i < k->used_count; i++)
        clear_bit(k->is_left, k->used[i]);
}

static void forget_left(struct known *k)
{
    for (uint32_t id = 1; id <= breakers_count(k->breakers); id++)
        if (has_bit(k->is_left, id))
            breakers_await(k->breakers, id, false);
    memset(k->is_left, 0, sizeof(k->is_left));
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

/* The workers have the routes, and a server in this process has their breakers. */
void known_end_adoption(struct known *k)
{
    k->adopted_ms = INT64_MAX;
    forget_left(k);
    if (!known_stream_tells(k))
        return;
    known_await_all(k, false);
    known_look_for_missing(k);
}

/* -- polls ------------------------------------------------------------------------------ */

void known_poll_ended(struct known *k, bool ok, int64_t now_ms)
{
    k->poll_ok = ok;
    if (ok) {
        k->polled_ms = now_ms;
        k->told = true;
        k->by_polls = true;
        memcpy(k->is_polled, k->in_poll, sizeof(k->is_polled));
        settle(k, k->in_poll);
        if (k->hosts_in_poll)
            set_hosts_awaited(k, false);
        known_refresh(k);
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
    k->wants_poll = false;
    k->hosts_in_poll = k->templated;
}

void known_poll_leaves_out(struct known *k, const char *name)
{
    uint32_t id = breakers_find(k->breakers, name, strlen(name));
    k->hosts_in_poll = false;
    if (k->templated)
        set_hosts_awaited(k, true);
    if (id == 0)
        return;
    clear_bit(k->in_poll, id);
    if (state_of(k, id) != BREAKER_UNKNOWN && !is_current(k, id))
        forget_state(k, id, has_bit(k->is_used, id));
}

bool known_wants_poll(const struct known *k)
{
    return k->wants_poll;
}

bool known_polls(const struct known *k, const char *name)
{
    return k->templated || known_uses(k, name);
}

bool known_uses(const struct known *k, const char *name)
{
    uint32_t id = breakers_find(k->breakers, name, strlen(name));
    return id != 0 && has_bit(k->is_used, id);
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
    known_look_for_missing(k);
}

bool known_wants_list(struct known *k)
{
    bool wants = k->wants_list;
    k->wants_list = false;
    return wants;
}
