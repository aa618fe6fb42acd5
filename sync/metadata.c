#include "sync/metadata.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/log.h"
#include "config/catalog.h"
#include "sync/call.h"
#include "sync/known.h"
#include "sync/settings.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ETAG_MAX 256 /* a longer one is not sent back */

struct fetch {
    struct call call;
    bool wanted;
    bool once;
    bool closed;
    struct schedule schedule;
    char *etag;           /* owned; of list; NULL: none */
    struct catalog *list; /* one reference; NULL: has not come yet */
    size_t skipped;       /* entries of the last answer: another number is worth a line */
};

struct metadata {
    CURLM *multi;
    struct known *known;
    struct stats *stats;
    struct prng *prng;
    const struct settings *settings;
    struct fetch fetches[METADATA_LISTS];
    uint64_t version;
};

static const char *const keys[METADATA_LISTS] = { "breakers", "routers" };

static void forget(struct fetch *f)
{
    call_close(&f->call);
    catalog_unref(f->list);
    free(f->etag);
    *f = (struct fetch){ .closed = f->closed };
}

struct metadata *metadata_new(CURLM *multi, struct known *known, struct stats *stats,
                              struct prng *prng)
{
    struct metadata *m = xcalloc(1, sizeof(*m));
    m->multi = multi;
    m->known = known;
    m->stats = stats;
    m->prng = prng;
    return m;
}

void metadata_free(struct metadata *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < METADATA_LISTS; i++)
        forget(&m->fetches[i]);
    free(m);
}

static void publish(struct metadata *m)
{
    const struct catalog *b = m->fetches[METADATA_BREAKERS].list;
    const struct catalog *r = m->fetches[METADATA_ROUTERS].list;
    m->version++;
    atomic_store_explicit(&m->stats->listed_breakers, b ? (int64_t)b->count : -1,
                          memory_order_relaxed);
    atomic_store_explicit(&m->stats->listed_routers, r ? (int64_t)r->count : -1,
                          memory_order_relaxed);
}

void metadata_configure(struct metadata *m, const struct settings *settings, bool same_project,
                        int64_t now_ms)
{
    int64_t latest_ms = now_ms + settings->metadata_interval_ms;
    bool forgotten = false;
    m->settings = settings;
    for (unsigned i = 0; i < METADATA_LISTS; i++) {
        struct fetch *f = &m->fetches[i];
        f->call.client.settings = settings;
        bool stays = same_project && settings->enabled;
        forgotten = forgotten || (f->list && !stays);
        if (!stays)
            forget(f);
        else if (f->schedule.failures > 0 && settings->retry)
            schedule_now(&f->schedule, now_ms);
        else if (f->schedule.failures == 0 && f->schedule.at_ms > latest_ms)
            f->schedule.at_ms = latest_ms; /* a shorter interval holds at once */
    }
    if (forgotten)
        publish(m);
}

void metadata_want(struct metadata *m, enum metadata_list which, bool wanted, int64_t now_ms)
{
    struct fetch *f = &m->fetches[which];
    if (wanted && !f->wanted && !f->once)
        schedule_now(&f->schedule, now_ms);
    f->wanted = wanted;
}

void metadata_want_once(struct metadata *m, enum metadata_list which, int64_t now_ms)
{
    struct fetch *f = &m->fetches[which];
    if (!f->once && f->schedule.failures == 0)
        schedule_now(&f->schedule, now_ms);
    f->once = true;
}

void metadata_close(struct metadata *m)
{
    for (unsigned i = 0; i < METADATA_LISTS; i++) {
        call_close(&m->fetches[i].call);
        m->fetches[i].closed = true;
    }
}

/* -- one request ----------------------------------------------------------------------- */

static void count(struct metadata *m, enum ask_result r)
{
    static const enum sync_counter counters[ASK_RESULT_COUNT] = {
        [ASK_OK] = SYNC_METADATA_OK,           [ASK_SAME] = SYNC_METADATA_SAME,
        [ASK_AUTH] = SYNC_METADATA_AUTH,       [ASK_HTTP] = SYNC_METADATA_HTTP,
        [ASK_NETWORK] = SYNC_METADATA_NETWORK, [ASK_INVALID] = SYNC_METADATA_INVALID,
    };
    stats_count(m->stats, counters[r]);
}

static void ended(struct metadata *m, struct fetch *f, enum ask_result r, const char *text,
                  int64_t now_ms)
{
    bool ok = r == ASK_OK || r == ASK_SAME;
    count(m, r);
    schedule_after(&f->schedule, r, m->settings->metadata_interval_ms,
                   call_under_way(&f->call) ? call_asked_ms(&f->call) : -1, now_ms,
                   prng_unit(m->prng));
    call_close(&f->call);
    if (ok || r != ASK_NETWORK)
        f->once = false; /* a server that refuses is not asked again for curiosity's sake */
    if (ok) {
        stats_well(m->stats, STATS_METADATA);
        atomic_store_explicit(&m->stats->last_metadata_wall_ms, clock_wall_ms(),
                              memory_order_relaxed);
    } else {
        stats_trouble(m->stats, STATS_METADATA, text, now_ms);
    }
}

static void start(struct metadata *m, enum metadata_list which, int64_t now_ms)
{
    struct fetch *f = &m->fetches[which];
    const struct settings *s = m->settings;
    const char *url = which == METADATA_BREAKERS ? s->breakers_url : s->routers_url;
    if (which == METADATA_BREAKERS)
        known_list_asked(m->known);
    if (call_get(&f->call, m->multi, s, url, f->etag, METADATA_MAX_BYTES) != 0)
        ended(m, f, ASK_NETWORK, "metadata: out of memory", now_ms);
}

static void keep_etag(struct fetch *f)
{
    const char *etag = client_header(&f->call.client, "ETag");
    free(f->etag);
    f->etag = etag && strlen(etag) <= ETAG_MAX ? xstrdup(etag) : NULL;
}

static void tell_skipped(struct metadata *m, enum metadata_list which, size_t skipped)
{
    struct fetch *f = &m->fetches[which];
    char count[24];
    atomic_fetch_add_explicit(&m->stats->counters[SYNC_METADATA_SKIPPED], skipped,
                              memory_order_relaxed);
    snprintf(count, sizeof(count), "%zu", skipped);
    if (skipped > 0 && skipped != f->skipped)
        log_event(LOG_WARNING, "sync", "metadata.entries_skipped",
                  "entries of a metadata list have no usable id or name; no route can select them",
                  "list", keys[which], "entries", count, NULL);
    f->skipped = skipped;
}

/* False: it is no list. */
static bool take_list(struct metadata *m, enum metadata_list which, char text[STATS_ERROR_MAX])
{
    struct fetch *f = &m->fetches[which];
    struct catalog *list;
    const char *why;
    const struct strbuf *body = &f->call.body;
    if (catalog_parse(strbuf_str(body), body->len, keys[which], &list, &why) != 0) {
        snprintf(text, STATS_ERROR_MAX, "metadata of %s: %s", keys[which], why);
        return false;
    }
    keep_etag(f);
    tell_skipped(m, which, list->skipped);
    if (f->list && catalog_same(f->list, list)) {
        catalog_unref(list);
        return true;
    }
    catalog_unref(f->list);
    f->list = list;
    publish(m);
    return true;
}

static void finish(struct metadata *m, enum metadata_list which, CURLcode rc, int64_t now_ms)
{
    struct fetch *f = &m->fetches[which];
    char text[STATS_ERROR_MAX], what[32];
    snprintf(what, sizeof(what), "metadata of %s", keys[which]);
    enum ask_result r = call_result(&f->call, rc, what, text);
    if (r == ASK_OK && !take_list(m, which, text))
        r = ASK_INVALID;
    ended(m, f, r, text, now_ms);
    if (which == METADATA_BREAKERS && (r == ASK_OK || r == ASK_SAME))
        known_listed(m->known, f->list, now_ms, clock_wall_ms());
}

bool metadata_done(struct metadata *m, CURL *easy, CURLcode rc, int64_t now_ms)
{
    for (unsigned i = 0; i < METADATA_LISTS; i++) {
        if (!call_is(&m->fetches[i].call, easy))
            continue;
        finish(m, (enum metadata_list)i, rc, now_ms);
        return true;
    }
    return false;
}

static int64_t due_ms(const struct metadata *m, const struct fetch *f)
{
    bool needed = m->settings->enabled && !f->closed && (f->wanted || f->once);
    return needed && !call_under_way(&f->call) ? f->schedule.at_ms : INT64_MAX;
}

void metadata_tick(struct metadata *m, int64_t now_ms)
{
    for (unsigned i = 0; i < METADATA_LISTS; i++)
        if (now_ms >= due_ms(m, &m->fetches[i]))
            start(m, (enum metadata_list)i, now_ms);
}

int64_t metadata_next_ms(const struct metadata *m)
{
    int64_t a = due_ms(m, &m->fetches[METADATA_BREAKERS]);
    int64_t b = due_ms(m, &m->fetches[METADATA_ROUTERS]);
    return a < b ? a : b;
}

struct catalog *metadata_get(const struct metadata *m, enum metadata_list which)
{
    return m->fetches[which].list;
}

uint64_t metadata_version(const struct metadata *m)
{
    return m->version;
}
