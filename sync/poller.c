#include "sync/poller.h"
#include "base/base.h"
#include "base/clock.h"
#include "config/catalog.h"
#include "sync/call.h"
#include "sync/known.h"
#include "sync/settings.h"
#include "sync/source.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX_BYTES ((size_t)1 << 20) /* of one part; an entry has some 150 */

struct poller {
    CURLM *multi;
    struct known *known;
    struct source *source;
    struct stats *stats;
    struct prng *prng;
    const struct settings *settings;

    /* One poll.  list NULL: none under way. */
    struct call call;
    struct catalog *list; /* one reference */
    size_t *wanted;       /* owned: places in list of what is asked for */
    size_t count;
    size_t asked; /* of these, in parts that were answered */
    size_t part;  /* in the part under way */
    size_t hint;  /* where the next entry of the answer probably stands */
    int64_t now_ms;
};

struct poller *poller_new(CURLM *multi, struct known *known, struct source *source,
                          struct stats *stats, struct prng *prng)
{
    struct poller *p = xcalloc(1, sizeof(*p));
    p->multi = multi;
    p->known = known;
    p->source = source;
    p->stats = stats;
    p->prng = prng;
    return p;
}

void poller_cancel(struct poller *p)
{
    call_close(&p->call);
    catalog_unref(p->list);
    free(p->wanted);
    p->list = NULL;
    p->wanted = NULL;
    p->count = p->asked = p->part = 0;
}

void poller_free(struct poller *p)
{
    if (!p)
        return;
    poller_cancel(p);
    free(p);
}

void poller_configure(struct poller *p, const struct settings *settings)
{
    p->settings = settings;
    p->call.client.settings = settings;
}

static void ended(struct poller *p, enum ask_result r, const char *text, int64_t now_ms)
{
    static const enum sync_counter counters[ASK_RESULT_COUNT] = {
        [ASK_OK] = SYNC_POLLS_OK,           [ASK_SAME] = SYNC_POLLS_INVALID,
        [ASK_AUTH] = SYNC_POLLS_AUTH,       [ASK_HTTP] = SYNC_POLLS_HTTP,
        [ASK_NETWORK] = SYNC_POLLS_NETWORK, [ASK_INVALID] = SYNC_POLLS_INVALID,
    };
    int64_t asked_ms = call_under_way(&p->call) ? call_asked_ms(&p->call) : -1;
    stats_count(p->stats, counters[r]);
    if (r == ASK_OK) {
        stats_well(p->stats, STATS_POLL);
        atomic_store_explicit(&p->stats->last_poll_wall_ms, clock_wall_ms(), memory_order_relaxed);
    } else {
        stats_trouble(p->stats, STATS_POLL, text, now_ms);
    }
    poller_cancel(p);
    source_poll_ended(p->source, r, asked_ms, now_ms, prng_unit(p->prng));
    known_poll_ended(p->known, r == ASK_OK, now_ms);
}

/* Those that routes name, or the others that they may use.  Returns how many are too many. */
static size_t choose_some(struct poller *p, bool named)
{
    size_t left_out = 0;
    for (size_t i = 0; i < p->list->count; i++) {
        const char *name = p->list->items[i].name;
        if (!known_polls(p->known, name) || known_uses(p->known, name) != named)
            continue;
        if (p->count < POLLER_BREAKERS_MAX) {
            p->wanted[p->count++] = i;
        } else {
            known_poll_leaves_out(p->known, name);
            left_out++;
        }
    }
    return left_out;
}

static void choose(struct poller *p)
{
    p->wanted = xcalloc(p->list->count + 1, sizeof(*p->wanted));
    size_t left_out = choose_some(p, true) + choose_some(p, false);
    atomic_fetch_add_explicit(&p->stats->counters[SYNC_POLLED_LEFT_OUT], left_out,
                              memory_order_relaxed);
}

static const struct catalog_entry *entry_at(const struct poller *p, size_t i)
{
    return &p->list->items[p->wanted[p->asked + i]];
}

static void ask_part(struct poller *p, int64_t now_ms)
{
    struct strbuf body = STRBUF_INIT;
    struct json j = { .sb = &body };
    size_t left = p->count - p->asked;
    p->part = left < POLLER_CHUNK ? left : POLLER_CHUNK;
    p->hint = 0;
    json_open(&j, NULL, '{');
    json_open(&j, "breaker_ids", '[');
    for (size_t i = 0; i < p->part; i++)
        json_str(&j, NULL, entry_at(p, i)->id);
    json_close(&j);
    json_close(&j);
    if (call_post(&p->call, p->multi, p->settings, p->settings->batch_url, &body,
                  ANSWER_MAX_BYTES) != 0)
        ended(p, ASK_NETWORK, "poll: out of memory", now_ms);
    strbuf_free(&body);
}

/* The entry of that id in the part under way: mostly the next one, as they are answered in
 * the order in which they were asked. */
static const struct catalog_entry *find_asked(struct poller *p, const char *id)
{
    for (size_t n = 0; n < p->part; n++) {
        size_t i = (p->hint + n) % p->part;
        if (strcmp(entry_at(p, i)->id, id) != 0)
            continue;
        p->hint = i + 1;
        return entry_at(p, i);
    }
    return NULL;
}

static void on_state(void *arg, enum state_event_result r, const struct state_event *ev)
{
    struct poller *p = arg;
    struct state_event named = *ev;
    const struct catalog_entry *e = r == STATE_EVENT_OK ? find_asked(p, ev->breaker) : NULL;
    if (r == STATE_EVENT_OK && !e)
        r = STATE_EVENT_NAME;
    if (e) {
        named.breaker_len = strlen(e->name);
        memcpy(named.breaker, e->name, named.breaker_len + 1);
    }
    known_polled(p->known, r, &named, p->now_ms, clock_wall_ms());
}

static void take_part(struct poller *p, CURLcode rc, int64_t now_ms)
{
    char text[STATS_ERROR_MAX];
    enum ask_result r = call_result(&p->call, rc, "poll", text);
    const struct strbuf *body = &p->call.body;
    p->now_ms = now_ms;
    if (r == ASK_OK && state_batch_parse(strbuf_str(body), body->len, on_state, p) != 0) {
        snprintf(text, sizeof(text), "poll: the answer is not a list of states");
        r = ASK_INVALID;
    }
    if (r == ASK_OK && p->asked + p->part < p->count) {
        call_close(&p->call);
        p->asked += p->part;
        ask_part(p, now_ms);
        return;
    }
    ended(p, r, text, now_ms);
}

bool poller_done(struct poller *p, CURL *easy, CURLcode rc, int64_t now_ms)
{
    if (!call_is(&p->call, easy))
        return false;
    take_part(p, rc, now_ms);
    return true;
}

void poller_tick(struct poller *p, struct catalog *list, int64_t now_ms)
{
    if (!p->source->polling && p->list)
        poller_cancel(p); /* the stream is back */
    if (!list || !p->settings->enabled || !source_poll_due(p->source, now_ms))
        return;
    source_poll_begun(p->source);
    p->list = catalog_ref(list);
    known_poll_begun(p->known, list);
    choose(p);
    if (p->count == 0)
        ended(p, ASK_OK, "", now_ms); /* the list has none of them */
    else
        ask_part(p, now_ms);
}
