/*
 * known.h - how far the breaker table can be trusted (DESIGN "Known state").
 *
 * Turns the stream's events and polled states into slots and flags: synced, connected,
 * stale; tells which names the routes use and the server lacks, and which are awaited: no
 * whole snapshot, and neither poll nor list that was begun since routes use them, could say.
 * One that polls did without for a while is awaited when it is used again.
 *
 * A stream that has said nothing has told nothing.  Only while nobody ever said anything is its
 * silence taken for a snapshot without breakers, and not while polls are the source.
 *
 * The protocol has no removal message: a breaker is gone once the metadata list lacks it, see
 * known_listed().  Pure but for log lines.
 */
#ifndef SYNC_KNOWN_H
#define SYNC_KNOWN_H
#include "sync/state_event.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct breakers;
struct catalog;

#define KNOWN_QUIET_MS  250  /* no event for this long: the snapshot is complete */
#define KNOWN_SETTLE_MS 5000 /* a stream that never falls quiet counts as synced after this */

/* So long after a configuration nobody goes by the one before.  Until then names that it used stay
 * awaited, and one that is new to the embedded control plane is not taken for absent. */
#define KNOWN_ADOPTED_MS 1000

/* What the routes use; copied. */
struct known_options {
    const uint32_t *used; /* interned names, without duplicates */
    size_t used_count;
    bool templated;           /* some route has a "{host}" breaker: its names cannot be listed */
    bool unresolved;          /* some route's breakers have yet to be selected by metadata */
    int64_t state_max_age_ms; /* OFF: never stale; 0: at once */
    bool server_logs;         /* the embedded one: it has a line for each transition, with causes */
};

enum known_result {
    KNOWN_NEWS,    /* a state or rate changed, or its breaker is new on this connection */
    KNOWN_SAME,    /* a repetition */
    KNOWN_UNKNOWN, /* a state value we do not know: dropped, the last one stays */
    KNOWN_INVALID, /* malformed: skipped */
};

struct known; /* opaque, sync thread only */

/* Both borrowed; counters: SYNC_COUNTER_COUNT of them. */
struct known *known_new(struct breakers *b, _Atomic uint64_t *counters);
void known_free(struct known *k); /* NULL is fine */
void known_configure(struct known *k, const struct known_options *options, int64_t now_ms);
/* Another project: forget every state, as before the first sync. */
void known_forget(struct known *k, int64_t wall_ms);

void known_connected(struct known *k, int64_t now_ms); /* the stream answered 200 */
void known_lost(struct known *k, int64_t now_ms);      /* it ended; fine if it never stood */
enum known_result known_event(struct known *k, const char *json, size_t len, int64_t now_ms,
                              int64_t wall_ms);
void known_too_long(struct known *k, int64_t now_ms); /* an event that sse.h skipped */
void known_other(struct known *k, int64_t now_ms);    /* an event that is no state */
void known_comment(struct known *k, int64_t now_ms);

/* Whether polls are what states come from; at every turn. */
void known_set_polling(struct known *k, bool polling, int64_t now_ms);
/* The states of one poll, then how it ended.  While the last one went well nothing is stale,
 * however long ago it was. */
void known_polled(struct known *k, enum state_event_result r, const struct state_event *ev,
                  int64_t now_ms, int64_t wall_ms);
void known_poll_ended(struct known *k, bool ok, int64_t now_ms);
bool known_polls(const struct known *k, const char *name);          /* routes use it, or may */
bool known_uses(const struct known *k, const char *name);           /* a route names it */
void known_poll_begun(struct known *k, const struct catalog *list); /* for those of the list */
void known_poll_leaves_out(struct known *k, const char *name);      /* but not for this one */
bool known_wants_poll(const struct known *k); /* a name is awaited: until a poll begins */

/*
 * The metadata list: asked for, and come.  A breaker returns to unknown when it is not in the
 * list, nothing was heard of it since the list was asked for, and it was in the list before, or
 * was not in this connection's snapshot.
 */
void known_list_asked(struct known *k);
void known_listed(struct known *k, const struct catalog *list, int64_t now_ms, int64_t wall_ms);
/* Once after a reconnection whose snapshot lacks a breaker that was known, or a poll by a list
 * that lacks one which is awaited: look at the list. */
bool known_wants_list(struct known *k);

void known_tick(struct known *k, int64_t now_ms); /* when known_next_ms() has come */
int64_t known_next_ms(const struct known *k);     /* INT64_MAX: nothing to wait for */

bool known_trusted(const struct known *k);     /* the standing connection named all that is used */
bool known_unresolved(const struct known *k);  /* as configured */
uint64_t known_cached(const struct known *k);  /* breakers that the server named */
uint64_t known_missing(const struct known *k); /* used names the server lacks; 0 before sync */
uint64_t known_awaited(const struct known *k); /* used names that are awaited; 0 before sync */

#endif
