#include "sync/stream.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/log.h"
#include "sync/backoff.h"
#include "sync/client.h"
#include "sync/http_date.h"
#include "sync/known.h"
#include "sync/rhythm.h"
#include "sync/settings.h"
#include "sync/sse.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ANSWER_TIMEOUT_MS 30000 /* from the start to the response head */

enum stream_state {
    STREAM_OFF,     /* no control plane, or closed for good */
    STREAM_WAIT,    /* not connected; opens at retry_ms */
    STREAM_OPENING, /* no acceptable response head yet */
    STREAM_OPEN,    /* events may come */
    STREAM_STATE_COUNT,
};

/* Where it may go next. */
static const unsigned next_ok[STREAM_STATE_COUNT] = {
    [STREAM_OFF] = BIT(STREAM_WAIT),
    [STREAM_WAIT] = BIT(STREAM_OPENING) | BIT(STREAM_WAIT) | BIT(STREAM_OFF),
    [STREAM_OPENING] = BIT(STREAM_OPEN) | BIT(STREAM_WAIT) | BIT(STREAM_OFF),
    [STREAM_OPEN] = BIT(STREAM_WAIT) | BIT(STREAM_OFF),
};

/* How an attempt to open it ended. */
enum open_failure { OPEN_AUTH, OPEN_HTTP, OPEN_PROTOCOL, OPEN_NETWORK };

struct stream {
    CURLM *multi;
    struct known *known;
    struct stats *stats;
    struct prng *prng;
    const struct settings *settings;
    struct client client;
    struct sse *sse;
    struct backoff backoff;
    struct rhythm rhythm;
    enum stream_state state;
    bool bad_type;  /* 200, but not an event stream */
    bool delivered; /* an event or a comment came on this connection */
    bool ever_open;
    unsigned failed_opens;
    int64_t retry_ms;    /* STREAM_WAIT */
    int64_t started_ms;  /* STREAM_OPENING: since when */
    int64_t standing_ms; /* STREAM_OPEN: since when */
};

static void stream_enter(struct stream *s, enum stream_state next)
{
    if (BUG(!(next_ok[s->state] & BIT(next))))
        return;
    s->state = next;
}

static void on_state_event(struct stream *s, const struct sse_event *ev, int64_t now_ms)
{
    enum known_result r = known_event(s->known, ev->data, ev->data_len, now_ms, clock_wall_ms());
    if (r == KNOWN_SAME)
        rhythm_beat(&s->rhythm, RHYTHM_EVENT, now_ms);
}

/* PROTOCOL section 3: named "state" by the hosted service, unnamed by others. */
static bool is_state(const char *name)
{
    return name[0] == '\0' || strcmp(name, "state") == 0 || strcmp(name, "message") == 0;
}

static void on_event(void *arg, const struct sse_event *ev)
{
    struct stream *s = arg;
    int64_t now_ms = clock_mono_ms();
    s->delivered = true;
    s->failed_opens = 0;
    atomic_store_explicit(&s->stats->last_event_wall_ms, clock_wall_ms(), memory_order_relaxed);
    switch (ev->kind) {
    case SSE_COMMENT:
        stats_count(s->stats, SYNC_EVENTS_HEARTBEAT);
        rhythm_beat(&s->rhythm, RHYTHM_COMMENT, now_ms);
        known_comment(s->known, now_ms);
        break;
    case SSE_TOO_LONG:
        known_too_long(s->known, now_ms);
        break;
    case SSE_EVENT:
        if (is_state(ev->name)) {
            on_state_event(s, ev, now_ms);
        } else {
            stats_count(s->stats, SYNC_EVENTS_UNKNOWN);
            known_other(s->known, now_ms);
            rhythm_beat(&s->rhythm, RHYTHM_EVENT, now_ms);
        }
        break;
    }
}

static bool is_event_stream(const char *type)
{
    static const char want[] = "text/event-stream";
    size_t len = sizeof(want) - 1;
    return type && strncasecmp(type, want, len) == 0 &&
           (type[len] == '\0' || strchr("; \t", type[len]));
}

static void opened(struct stream *s)
{
    int64_t now_ms = clock_mono_ms();
    stream_enter(s, STREAM_OPEN);
    s->standing_ms = now_ms;
    rhythm_start(&s->rhythm, now_ms);
    stats_count(s->stats, SYNC_STREAM_CONNECTS_OK);
    stats_well(s->stats, STATS_STREAM);
    stats_line(s->stats, "control.connected", "the state stream is connected",
               s->ever_open ? "reconnected" : "first", now_ms);
    s->ever_open = true;
    known_connected(s->known, now_ms);
}

/* The empty line that ends a head decides; anything but an event stream is cut there,
 * so that an error page of any size costs nothing. */
static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
    struct stream *s = arg;
    size_t len = size * n;
    bool end_of_head = len <= 2 && (line[0] == '\r' || line[0] == '\n');
    int status = end_of_head ? client_status(&s->client) : 0;
    if (status == 0 || s->state != STREAM_OPENING)
        return len; /* inside a head, an interim answer, or trailers */
    if (status != 200)
        return 0;
    s->bad_type = !is_event_stream(client_header(&s->client, "Content-Type"));
    if (s->bad_type)
        return 0;
    opened(s);
    return len;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct stream *s = arg;
    if (s->state != STREAM_OPEN)
        return 0;
    rhythm_alive(&s->rhythm, clock_mono_ms());
    sse_feed(s->sse, bytes, size * n);
    return size * n;
}

static int prepare(struct stream *s)
{
    struct client *c = &s->client;
    if (client_open(c, s->settings, s->settings->stream_url) != 0)
        return -1;
    CURL *e = c->easy;
    if (curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header) ||
        curl_easy_setopt(e, CURLOPT_HEADERDATA, s) ||
        curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body) ||
        curl_easy_setopt(e, CURLOPT_WRITEDATA, s) ||
        client_add_header(c, "Accept: text/event-stream") ||
        client_add_header(c, "Cache-Control: no-cache"))
        return -1;
    if (s->settings->authorization && client_add_header(c, s->settings->authorization))
        return -1;
    return curl_multi_add_handle(s->multi, e) == CURLM_OK ? 0 : -1;
}

static void drop_transfer(struct stream *s)
{
    if (!s->client.easy)
        return;
    curl_multi_remove_handle(s->multi, s->client.easy);
    client_close(&s->client);
}

static void wait_for(struct stream *s, int64_t delay_ms, int64_t now_ms)
{
    stream_enter(s, STREAM_WAIT);
    s->retry_ms = now_ms + delay_ms;
}

static void open_stream(struct stream *s, int64_t now_ms)
{
    sse_reset(s->sse);
    s->bad_type = false;
    s->delivered = false;
    s->started_ms = now_ms;
    stream_enter(s, STREAM_OPENING);
    if (prepare(s) == 0)
        return;
    drop_transfer(s);
    stats_trouble(s->stats, STATS_STREAM, "stream: out of memory", now_ms);
    wait_for(s, BACKOFF_STREAM_MAX_MS, now_ms);
}

static enum open_failure classify(const struct stream *s, CURLcode rc, int status)
{
    if (status == 401 || status == 403)
        return OPEN_AUTH;
    if (s->bad_type || rc == CURLE_WEIRD_SERVER_REPLY || rc == CURLE_UNSUPPORTED_PROTOCOL)
        return OPEN_PROTOCOL; /* libcurl names an answer that is not HTTP either way */
    return status ? OPEN_HTTP : OPEN_NETWORK;
}

static int64_t asked_delay_ms(const struct stream *s, int status)
{
    const char *after =
        status == 429 || status == 503 ? client_header(&s->client, "Retry-After") : NULL;
    int64_t asked = after ? retry_after_ms(after, clock_wall_ms()) : -1;
    /* an hour without news of any breaker is worse than a few requests too many */
    return asked < BACKOFF_STREAM_MAX_MS ? asked : BACKOFF_STREAM_MAX_MS;
}

static int64_t retry_delay_ms(struct stream *s, enum open_failure why, int status)
{
    backoff_ended(&s->backoff, 0, false);
    int64_t delay = why == OPEN_AUTH ? backoff_rest_ms(prng_unit(s->prng))
                                     : backoff_next_ms(&s->backoff, prng_unit(s->prng));
    int64_t asked = asked_delay_ms(s, status);
    return asked > delay ? asked : delay;
}

static void open_failed(struct stream *s, CURLcode rc, int64_t now_ms)
{
    static const enum sync_counter counters[] = {
        [OPEN_AUTH] = SYNC_STREAM_CONNECTS_AUTH,
        [OPEN_HTTP] = SYNC_STREAM_CONNECTS_HTTP,
        [OPEN_PROTOCOL] = SYNC_STREAM_CONNECTS_PROTOCOL,
        [OPEN_NETWORK] = SYNC_STREAM_CONNECTS_NETWORK,
    };
    int status = client_status(&s->client);
    enum open_failure why = classify(s, rc, status);
    char text[STATS_ERROR_MAX];
    if (why == OPEN_AUTH)
        snprintf(text, sizeof(text), "stream: the server refused the API key (HTTP %d)", status);
    else if (s->bad_type)
        snprintf(text, sizeof(text), "stream: the answer is not text/event-stream");
    else if (why == OPEN_HTTP)
        snprintf(text, sizeof(text), "stream: HTTP %d", status);
    else
        snprintf(text, sizeof(text), "stream: %s", client_error(&s->client, rc));
    s->failed_opens++;
    stats_count(s->stats, counters[why]);
    stats_trouble(s->stats, STATS_STREAM, text, now_ms);
    int64_t delay = retry_delay_ms(s, why, status);
    drop_transfer(s);
    wait_for(s, delay, now_ms);
}

static void lost(struct stream *s, enum sync_counter how, const char *reason, int64_t now_ms)
{
    s->failed_opens += !s->delivered;
    stats_count(s->stats, how);
    stats_line(s->stats, "control.disconnected", "the state stream has ended", reason, now_ms);
    known_lost(s->known, now_ms);
    drop_transfer(s);
    backoff_ended(&s->backoff, now_ms - s->standing_ms, s->delivered);
    wait_for(s, backoff_next_ms(&s->backoff, prng_unit(s->prng)), now_ms);
}

static void ended(struct stream *s, CURLcode rc, int64_t now_ms)
{
    switch (rc) {
    case CURLE_OK:
    case CURLE_PARTIAL_FILE: /* closed without the last chunk, as a stream should be */
        lost(s, SYNC_STREAM_DISCONNECTS_EOF, "eof", now_ms);
        break;
    case CURLE_OPERATION_TIMEDOUT:
        lost(s, SYNC_STREAM_DISCONNECTS_TIMEOUT, "timeout", now_ms);
        break;
    default:
        lost(s, SYNC_STREAM_DISCONNECTS_ERROR, client_error(&s->client, rc), now_ms);
        break;
    }
}

struct stream *stream_new(CURLM *multi, struct known *known, struct stats *stats, struct prng *prng)
{
    struct stream *s = xcalloc(1, sizeof(*s));
    s->multi = multi;
    s->known = known;
    s->stats = stats;
    s->prng = prng;
    s->sse = sse_new(on_event, s);
    return s;
}

void stream_free(struct stream *s)
{
    if (!s)
        return;
    drop_transfer(s);
    sse_free(s->sse);
    free(s);
}

void stream_close(struct stream *s, int64_t now_ms)
{
    if (s->state == STREAM_OFF)
        return;
    known_lost(s->known, now_ms);
    drop_transfer(s);
    stream_enter(s, STREAM_OFF);
}

void stream_configure(struct stream *s, const struct settings *settings, bool keep, int64_t now_ms)
{
    s->settings = settings;
    s->client.settings = settings;
    if (keep && (s->state != STREAM_OFF || settings->source.wanted == SOURCE_POLL))
        return;
    if (s->state == STREAM_OPEN) {
        stats_count(s->stats, SYNC_STREAM_DISCONNECTS_RELOAD);
        stats_line(s->stats, "control.disconnected", "the state stream has ended", "reload",
                   now_ms);
    }
    stream_close(s, now_ms);
    if (!settings->enabled || settings->source.wanted == SOURCE_POLL)
        return;
    s->backoff = (struct backoff){ 0 };
    s->failed_opens = 0;
    wait_for(s, 0, now_ms);
}

bool stream_stands(const struct stream *s)
{
    return s->state == STREAM_OPEN;
}

bool stream_delivers(const struct stream *s)
{
    return s->state == STREAM_OPEN && s->delivered;
}

unsigned stream_failed_opens(const struct stream *s)
{
    return s->failed_opens;
}

bool stream_done(struct stream *s, CURL *easy, CURLcode rc, int64_t now_ms)
{
    if (!easy || easy != s->client.easy)
        return false;
    if (s->state == STREAM_OPEN)
        ended(s, rc, now_ms);
    else
        open_failed(s, rc, now_ms);
    return true;
}

void stream_tick(struct stream *s, int64_t now_ms)
{
    if (now_ms < stream_next_ms(s))
        return;
    switch (s->state) {
    case STREAM_WAIT:
        open_stream(s, now_ms);
        break;
    case STREAM_OPENING:
        open_failed(s, CURLE_OPERATION_TIMEDOUT, now_ms);
        break;
    case STREAM_OPEN:
        lost(s, SYNC_STREAM_DISCONNECTS_TIMEOUT, "timeout", now_ms);
        break;
    case STREAM_OFF:
    case STREAM_STATE_COUNT:
        break;
    }
}

int64_t stream_next_ms(const struct stream *s)
{
    switch (s->state) {
    case STREAM_WAIT:
        return s->retry_ms;
    case STREAM_OPENING:
        return s->started_ms + ANSWER_TIMEOUT_MS;
    case STREAM_OPEN:
        return rhythm_deadline_ms(&s->rhythm);
    case STREAM_OFF:
    case STREAM_STATE_COUNT:
        break;
    }
    return INT64_MAX;
}
