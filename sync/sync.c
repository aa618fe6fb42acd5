#include "sync/sync.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/intern.h"
#include "base/log.h"
#include "base/prng.h"
#include "base/ring.h"
#include "base/strbuf.h"
#include "base/thread.h"
#include "config/catalog.h"
#include "sync/attempt.h"
#include "sync/breakers.h"
#include "sync/known.h"
#include "sync/metadata.h"
#include "sync/poller.h"
#include "sync/poster.h"
#include "sync/reporter.h"
#include "sync/settings.h"
#include "sync/stats.h"
#include "sync/stream.h"
#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DRAIN_MS 100   /* between two looks at the rings while they fill */
#define SLEEP_MS 60000 /* longest sleep of an idle thread */

struct sync {
    struct breakers *breakers;  /* borrowed */
    const struct intern *hosts; /* borrowed */
    struct ring **rings;        /* owned array of borrowed rings */
    unsigned ring_count;
    _Atomic uint64_t *passed; /* by ring: records that are text by now */
    char instance[256];       /* this host's name */

    struct stats stats;
    pthread_t thread;
    bool running;       /* main only */
    _Atomic bool woken; /* a wake-up is under way */
    _Atomic bool stopping;
    _Atomic int64_t stop_ms; /* monotonic; valid once stopping */

    pthread_mutex_t lock;     /* pending */
    struct settings *pending; /* owned; NULL: nothing new */
    _Atomic bool has_pending;
    _Atomic(const struct config *) adopted; /* compared, never followed */

    pthread_mutex_t lists_lock;            /* the next two; no worker ever takes it */
    struct catalog *lists[METADATA_LISTS]; /* a reference each; NULL: not come yet */
    char *lists_project;                   /* owned: whose they are */
    _Atomic uint64_t lists_version;

    /* From here on the thread's own. */
    CURLM *multi;
    struct settings *settings;
    struct known *known;
    struct reporter *reporter;
    struct stream *stream;
    struct poster *poster;
    struct metadata *metadata;
    struct poller *poller;
    struct source source;
    struct prng prng;
    int64_t drained_ms; /* when the rings were last looked at */
    bool drain_again;   /* they held something then: look again in DRAIN_MS */
    bool flushing;      /* nothing is asked any more, samples still leave */
};

/* ---- the thread ---- */

static void publish_lists(struct sync *s)
{
    uint64_t version = metadata_version(s->metadata);
    if (version == atomic_load_explicit(&s->lists_version, memory_order_relaxed))
        return;
    pthread_mutex_lock(&s->lists_lock);
    for (unsigned i = 0; i < METADATA_LISTS; i++) {
        catalog_unref(s->lists[i]);
        s->lists[i] = catalog_ref(metadata_get(s->metadata, (enum metadata_list)i));
    }
    free(s->lists_project);
    s->lists_project = s->settings->project_id ? xstrdup(s->settings->project_id) : NULL;
    pthread_mutex_unlock(&s->lists_lock);
    atomic_store_explicit(&s->lists_version, version, memory_order_release);
}

static void adopt(struct sync *s, struct settings *next, int64_t now_ms)
{
    struct settings *former = s->settings;
    bool keep = former && next->enabled && settings_same_stream(former, next);
    bool same_project = former && settings_same_project(former, next);
    s->settings = next;
    stream_configure(s->stream, next, keep, now_ms);
    if (former && !same_project) {
        known_forget(s->known, clock_wall_ms());
        poller_cancel(s->poller);
        s->source = (struct source){ 0 };
    }
    source_configure(&s->source, &next->source, next->retry, now_ms);
    metadata_configure(s->metadata, next, same_project, now_ms);
    poller_configure(s->poller, next);
    known_configure(s->known, &next->known, now_ms);
    reporter_configure(s->reporter, &next->report);
    poster_configure(s->poster, next);
    settings_free(former);
    atomic_store_explicit(&s->stats.capacity, next->report.buffer, memory_order_relaxed);
    atomic_store_explicit(&s->adopted, next->cfg, memory_order_release);
}

static void adopt_pending(struct sync *s, int64_t now_ms)
{
    if (!atomic_load_explicit(&s->has_pending, memory_order_acquire) || atomic_load(&s->stopping))
        return;
    pthread_mutex_lock(&s->lock);
    struct settings *next = s->pending;
    s->pending = NULL;
    atomic_store_explicit(&s->has_pending, false, memory_order_relaxed);
    pthread_mutex_unlock(&s->lock);
    if (next)
        adopt(s, next, now_ms);
}

static void take_record(struct sync *s, const struct attempt_record *rec, int64_t now_ms)
{
    if (!s->settings->enabled) {
        atomic_fetch_add_explicit(&s->stats.counters[SYNC_SAMPLES_SKIPPED],
                                  rec->route->metric_count, memory_order_relaxed);
        return;
    }
    size_t host_len = 0;
    const char *host = rec->host ? intern_name(s->hosts, rec->host, &host_len) : "";
    reporter_add(s->reporter, rec, host, host_len, now_ms);
}

static size_t drain_ring(struct sync *s, unsigned i, int64_t now_ms)
{
    struct attempt_record rec;
    size_t n = 0;
    /* one ringful: a producer as fast as we are must not hold up the other rings */
    while (n < ATTEMPT_RING_CAPACITY && ring_pop(s->rings[i], &rec)) {
        take_record(s, &rec, now_ms);
        atomic_store_explicit(&s->passed[i], ring_popped(s->rings[i]), memory_order_release);
        n++;
    }
    return n;
}

static void drain(struct sync *s, int64_t now_ms)
{
    size_t n = 0;
    for (unsigned i = 0; i < s->ring_count; i++)
        n += drain_ring(s, i, now_ms);
    s->drained_ms = now_ms;
    s->drain_again = n > 0;
}

/* At most one look per DRAIN_MS, however often workers wake us. */
static void drain_if_due(struct sync *s, int64_t now_ms)
{
    if (now_ms - s->drained_ms < DRAIN_MS)
        return;
    /* cleared before looking: a record pushed after the look wakes us again */
    bool woken = atomic_exchange(&s->woken, false);
    if (woken || s->drain_again)
        drain(s, now_ms);
}

static void read_answers(struct sync *s, int64_t now_ms)
{
    CURLMsg *msg;
    int left;
    while ((msg = curl_multi_info_read(s->multi, &left))) {
        if (msg->msg != CURLMSG_DONE)
            continue;
        CURL *easy = msg->easy_handle;
        CURLcode rc = msg->data.result;
        bool known = stream_done(s->stream, easy, rc, now_ms) ||
                     poster_done(s->poster, easy, rc, now_ms) ||
                     metadata_done(s->metadata, easy, rc, now_ms) ||
                     poller_done(s->poller, easy, rc, now_ms);
        if (BUG(!known))
            curl_multi_remove_handle(s->multi, easy);
    }
}

static void publish(struct sync *s)
{
    struct stats *st = &s->stats;
    atomic_store_explicit(&st->buffered, reporter_buffered(s->reporter), memory_order_relaxed);
    atomic_store_explicit(&st->in_flight, reporter_in_flight(s->reporter), memory_order_relaxed);
    atomic_store_explicit(&st->cached_breakers, known_cached(s->known), memory_order_relaxed);
    atomic_store_explicit(&st->unknown_names, known_missing(s->known), memory_order_relaxed);
    atomic_store_explicit(&st->awaited_names, known_awaited(s->known), memory_order_relaxed);
    atomic_store_explicit(&st->polling, s->source.polling, memory_order_relaxed);
    publish_lists(s);
}

/* What polls go by; NULL: they wait. */
static struct catalog *poll_list(const struct sync *s)
{
    return known_unresolved(s->known) ? NULL : metadata_get(s->metadata, METADATA_BREAKERS);
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t next_ms(const struct sync *s)
{
    int64_t next = sooner(stream_next_ms(s->stream), known_next_ms(s->known));
    if (s->settings->enabled && !s->flushing) {
        next = sooner(next, sooner(metadata_next_ms(s->metadata), source_look_ms(&s->source)));
        if (poll_list(s))
            next = sooner(next, source_poll_ms(&s->source));
    }
    if (s->settings->enabled)
        next = sooner(next, reporter_next_ms(s->reporter));
    if (s->drain_again || atomic_load(&s->woken))
        next = sooner(next, s->drained_ms + DRAIN_MS);
    return next;
}

static void sleep_until(struct sync *s, int64_t until_ms)
{
    int64_t ms = until_ms - clock_mono_ms();
    if (until_ms == INT64_MIN || ms < 0)
        ms = 0;
    curl_multi_poll(s->multi, NULL, 0, (int)sooner(ms, SLEEP_MS), NULL);
}

/* Stream or polls. */
static void look_at_source(struct sync *s, int64_t now_ms)
{
    bool polling = s->source.polling;
    enum source_stream stream = SOURCE_STREAM_GONE;
    if (stream_delivers(s->stream) && known_trusted(s->known))
        stream = SOURCE_STREAM_DELIVERS;
    else if (stream_stands(s->stream))
        stream = SOURCE_STREAM_MUTE;
    source_look(&s->source, stream, stream_failed_opens(s->stream), now_ms, prng_unit(&s->prng));
    if (s->source.polling != polling)
        stats_line(&s->stats, "control.state_source",
                   polling ? "breaker states come from the stream again"
                           : "the stream does not work; breaker states are polled",
                   polling ? "stream" : "poll", now_ms);
    known_set_polling(s->known, s->source.polling, now_ms);
    if (known_wants_poll(s->known))
        source_hurry(&s->source);
}

/* The lists that polls and the routes need. */
static void want_lists(struct sync *s, int64_t now_ms)
{
    if (known_wants_list(s->known))
        metadata_want_once(s->metadata, METADATA_BREAKERS, now_ms);
    metadata_want(s->metadata, METADATA_BREAKERS,
                  s->settings->selects_breakers || s->source.polling, now_ms);
    metadata_want(s->metadata, METADATA_ROUTERS, s->settings->selects_router, now_ms);
}

static void read_states(struct sync *s, int64_t now_ms)
{
    stream_tick(s->stream, now_ms);
    known_tick(s->known, now_ms);
    if (s->flushing || !s->settings->enabled)
        return;
    look_at_source(s, now_ms);
    poller_tick(s->poller, poll_list(s), now_ms);
    want_lists(s, now_ms);
    metadata_tick(s->metadata, now_ms);
}

static void turn(struct sync *s)
{
    int running;
    curl_multi_perform(s->multi, &running);
    int64_t now_ms = clock_mono_ms();
    adopt_pending(s, now_ms);
    read_answers(s, now_ms);
    read_states(s, now_ms);
    drain_if_due(s, now_ms);
    poster_tick(s->poster, now_ms);
    publish(s);
}

/* Everything out, or nothing more that could go out before the end. */
static bool flushed(const struct sync *s, int64_t end_ms)
{
    if (!s->settings->enabled)
        return true;
    if (reporter_posting(s->reporter) > 0)
        return false;
    return reporter_buffered(s->reporter) + reporter_in_flight(s->reporter) == 0 ||
           reporter_next_ms(s->reporter) > end_ms;
}

static void flush(struct sync *s)
{
    int64_t now_ms = clock_mono_ms();
    int64_t end_ms = atomic_load(&s->stop_ms);
    s->flushing = true;
    stream_close(s->stream, now_ms);
    metadata_close(s->metadata);
    poller_cancel(s->poller);
    drain(s, now_ms);
    reporter_flush(s->reporter, now_ms);
    while (now_ms < end_ms) {
        turn(s);
        if (flushed(s, end_ms))
            break;
        sleep_until(s, sooner(next_ms(s), end_ms));
        now_ms = clock_mono_ms();
    }
    drain(s, now_ms);
    reporter_abandon(s->reporter);
    publish(s);
}

static void *run(void *arg)
{
    struct sync *s = arg;
    log_thread_init("sync");
    while (!atomic_load(&s->stopping)) {
        turn(s);
        sleep_until(s, next_ms(s));
    }
    flush(s);
    return NULL;
}

/* ---- main's side ---- */

/* libcurl wants its one-time set-up done before any thread uses it. */
static void init_libcurl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void global_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_libcurl);
}

static void take_instance(struct sync *s)
{
    if (gethostname(s->instance, sizeof(s->instance) - 1) != 0)
        s->instance[0] = '\0';
}

int sync_new(struct sync **out, const struct config *cfg, const struct sync_endpoint *endpoint,
             struct breakers *breakers, const struct intern *hosts, struct ring **rings,
             unsigned ring_count, struct strbuf *errors)
{
    struct settings *settings;
    if (settings_new(&settings, cfg, endpoint, breakers, errors) != 0)
        return -1;
    global_init();
    struct sync *s = xcalloc(1, sizeof(*s));
    s->multi = curl_multi_init();
    if (!s->multi) {
        strbuf_adds(errors, "sync: libcurl cannot be set up\n");
        settings_free(settings);
        free(s);
        return -1;
    }
    s->hosts = hosts;
    s->breakers = breakers;
    s->ring_count = ring_count;
    s->rings = xcalloc(ring_count + 1, sizeof(*s->rings));
    for (unsigned i = 0; i < ring_count; i++)
        s->rings[i] = rings[i];
    s->passed = xcalloc(ring_count + 1, sizeof(*s->passed));
    take_instance(s);
    stats_init(&s->stats);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->lists_lock, NULL);
    prng_seed(&s->prng);
    s->known = known_new(breakers, s->stats.counters);
    s->reporter = reporter_new(&settings->report, s->stats.counters, s->instance);
    s->stream = stream_new(s->multi, s->known, &s->stats, &s->prng);
    s->poster = poster_new(s->multi, s->reporter, &s->stats, &s->prng);
    s->metadata = metadata_new(s->multi, s->known, &s->stats, &s->prng);
    s->poller = poller_new(s->multi, s->known, &s->source, &s->stats, &s->prng);
    adopt(s, settings, clock_mono_ms());
    *out = s;
    return 0;
}

int sync_start(struct sync *s)
{
    s->running = thread_start(&s->thread, run, s) == 0;
    return s->running ? 0 : -1;
}

void sync_stop(struct sync *s, int64_t flush_ms)
{
    if (!s->running)
        return;
    atomic_store(&s->stop_ms, clock_mono_ms() + flush_ms);
    atomic_store(&s->stopping, true);
    curl_multi_wakeup(s->multi);
    pthread_join(s->thread, NULL);
    s->running = false;
}

void sync_free(struct sync *s)
{
    if (!s)
        return;
    sync_stop(s, 0);
    poller_free(s->poller);
    metadata_free(s->metadata);
    poster_free(s->poster);
    stream_free(s->stream);
    reporter_free(s->reporter);
    known_free(s->known);
    curl_multi_cleanup(s->multi);
    settings_free(s->settings);
    settings_free(s->pending);
    for (unsigned i = 0; i < METADATA_LISTS; i++)
        catalog_unref(s->lists[i]);
    free(s->lists_project);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->lists_lock);
    stats_destroy(&s->stats);
    free(s->rings);
    free(s->passed);
    free(s);
}

void sync_wake(struct sync *s)
{
    if (!atomic_exchange(&s->woken, true))
        curl_multi_wakeup(s->multi);
}

void sync_reconfigure(struct sync *s, const struct config *cfg,
                      const struct sync_endpoint *endpoint, bool retry)
{
    struct settings *next;
    struct strbuf errors = STRBUF_INIT;
    if (settings_new(&next, cfg, endpoint, s->breakers, &errors) != 0) {
        log_event(LOG_ERROR, "sync", "sync.reconfigure_failed", strbuf_str(&errors), NULL);
        strbuf_free(&errors);
        atomic_store_explicit(&s->adopted, cfg, memory_order_release);
        return;
    }
    pthread_mutex_lock(&s->lock);
    struct settings *never_used = s->pending;
    next->retry = retry || (never_used && never_used->retry);
    s->pending = next;
    atomic_store_explicit(&s->has_pending, true, memory_order_release);
    pthread_mutex_unlock(&s->lock);
    settings_free(never_used);
    curl_multi_wakeup(s->multi);
}

bool sync_adopted(const struct sync *s, const struct config *cfg)
{
    return !s->running || atomic_load_explicit(&s->adopted, memory_order_acquire) == cfg;
}

bool sync_passed(const struct sync *s, unsigned ring, uint64_t position)
{
    return ring < s->ring_count &&
           atomic_load_explicit(&s->passed[ring], memory_order_acquire) >= position;
}

uint64_t sync_lists_version(const struct sync *s)
{
    return atomic_load_explicit(&s->lists_version, memory_order_acquire);
}

void sync_lists(struct sync *s, const char *project_id, struct catalog **breakers,
                struct catalog **routers)
{
    pthread_mutex_lock(&s->lists_lock);
    bool ours = project_id && s->lists_project && strcmp(project_id, s->lists_project) == 0;
    *breakers = ours ? catalog_ref(s->lists[METADATA_BREAKERS]) : NULL;
    *routers = ours ? catalog_ref(s->lists[METADATA_ROUTERS]) : NULL;
    pthread_mutex_unlock(&s->lists_lock);
}

uint64_t sync_counter(const struct sync *s, enum sync_counter c)
{
    return atomic_load_explicit(&s->stats.counters[c], memory_order_relaxed);
}

static uint64_t failures(const struct sync *s)
{
    return sync_counter(s, SYNC_BATCHES_AUTH) + sync_counter(s, SYNC_BATCHES_CLOCK_SKEW) +
           sync_counter(s, SYNC_BATCHES_HTTP) + sync_counter(s, SYNC_BATCHES_NETWORK);
}

void sync_gauges(const struct sync *s, struct sync_gauges *out)
{
    const struct stats *st = &s->stats;
    unsigned flags = breakers_flags(s->breakers);
    uint64_t connects = sync_counter(s, SYNC_STREAM_CONNECTS_OK);
    *out = (struct sync_gauges){
        .connected = flags & STATE_CONNECTED,
        .synced = flags & STATE_SYNCED,
        .stale = flags & STATE_STALE,
        .reconnects = connects > 0 ? connects - 1 : 0,
        .samples_buffered = atomic_load_explicit(&st->buffered, memory_order_relaxed),
        .samples_in_flight = atomic_load_explicit(&st->in_flight, memory_order_relaxed),
        .samples_capacity = atomic_load_explicit(&st->capacity, memory_order_relaxed),
        .last_event_wall_ms = atomic_load_explicit(&st->last_event_wall_ms, memory_order_relaxed),
        .last_flush_wall_ms = atomic_load_explicit(&st->last_flush_wall_ms, memory_order_relaxed),
        .flush_failures = failures(s),
        .cached_breakers = atomic_load_explicit(&st->cached_breakers, memory_order_relaxed),
        .unknown_names = atomic_load_explicit(&st->unknown_names, memory_order_relaxed),
        .awaited_names = atomic_load_explicit(&st->awaited_names, memory_order_relaxed),
        .polling = atomic_load_explicit(&st->polling, memory_order_relaxed),
        .last_poll_wall_ms = atomic_load_explicit(&st->last_poll_wall_ms, memory_order_relaxed),
        .last_metadata_wall_ms =
            atomic_load_explicit(&st->last_metadata_wall_ms, memory_order_relaxed),
        .listed_breakers = atomic_load_explicit(&st->listed_breakers, memory_order_relaxed),
        .listed_routers = atomic_load_explicit(&st->listed_routers, memory_order_relaxed),
    };
    stats_last_error((struct stats *)st, out->last_error); /* its lock is the only thing written */
}
