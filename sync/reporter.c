#include "sync/reporter.h"
#include "base/base.h"
#include "sync/backoff.h"
#include "sync/http_date.h"
#include "sync/queue.h"
#include "sync/sample.h"
#include "sync/sync.h"
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#define CLOCK_TOLERANCE_MS (INT64_C(5) * 60 * 1000) /* PROTOCOL section 4, assumed there */
#define CATCH_UP_US        20000

/* Why no post may start before hold_ms. */
enum hold {
    HOLD_NONE,
    HOLD_BACKOFF, /* a post failed: our own delay */
    HOLD_REST,    /* Retry-After, or the server does not know our key */
};

struct reporter {
    struct reporter_options opt;
    _Atomic uint64_t *counters;
    struct sample_writer writer;
    struct queue queue;
    struct batch *batches;              /* owned list, oldest first */
    struct batch *slot[REPORTER_POSTS]; /* borrowed from the list; NULL: free */
    size_t batch_size; /* of the next batch: grows from opt.batch while we are behind */
    unsigned failures; /* posts in a row that must be tried again */
    enum hold hold;
    int64_t hold_ms;        /* no post before this */
    int64_t urgent_next_ms; /* no urgent batch before this */
    int64_t post_next_us;   /* max_posts_per_second: no post before this */
    bool flushing;
};

static void count(struct reporter *r, enum sync_counter c, uint64_t n)
{
    atomic_fetch_add_explicit(&r->counters[c], n, memory_order_relaxed);
}

struct reporter *reporter_new(const struct reporter_options *options, _Atomic uint64_t *counters,
                              const char *instance)
{
    struct reporter *r = xcalloc(1, sizeof(*r));
    r->counters = counters;
    r->writer.instance = instance;
    r->opt = *options;
    return r;
}

void reporter_free(struct reporter *r)
{
    if (!r)
        return;
    while (r->batches) {
        struct batch *b = r->batches;
        r->batches = b->next;
        batch_free(b);
    }
    queue_clear(&r->queue);
    sample_writer_free(&r->writer);
    OPENSSL_cleanse(&r->opt, sizeof(r->opt));
    free(r);
}

static void shrink_queue(struct reporter *r)
{
    while (r->queue.count > r->opt.buffer) {
        queue_pop(&r->queue);
        count(r, SYNC_DROPPED_BUFFER_FULL, 1);
    }
}

void reporter_configure(struct reporter *r, const struct reporter_options *options)
{
    r->opt = *options;
    r->batch_size = options->batch;
    shrink_queue(r);
}

void reporter_add(struct reporter *r, const struct attempt_record *rec, const char *host,
                  size_t host_len, int64_t now_ms)
{
    size_t metrics = rec->route->metric_count;
    if (!sample_begin(&r->writer, rec, host, host_len)) {
        count(r, SYNC_SAMPLES_SKIPPED, metrics);
        return;
    }
    for (size_t i = 0; i < metrics; i++) {
        switch (sample_metric(&r->writer, i)) {
        case SAMPLE_OK:
            queue_push(&r->queue, r->writer.text.data, r->writer.text.len, now_ms, rec->urgent);
            count(r, SYNC_SAMPLES_RECORDED, 1);
            break;
        case SAMPLE_ABSENT:
            count(r, SYNC_SAMPLES_SKIPPED, 1);
            break;
        case SAMPLE_TOO_LARGE: /* no server would take it */
            count(r, SYNC_SAMPLES_RECORDED, 1);
            count(r, SYNC_DROPPED_REJECTED, 1);
            break;
        }
    }
    shrink_queue(r);
}

/* The batch has ended: out of the list, and its samples are booked under c. */
static void end_batch(struct reporter *r, struct batch *b, enum sync_counter c)
{
    for (struct batch **at = &r->batches; *at; at = &(*at)->next) {
        if (*at == b) {
            *at = b->next;
            break;
        }
    }
    count(r, c, b->count);
    batch_free(b);
}

static bool too_old(const struct reporter *r, int64_t at_ms, int64_t now_ms)
{
    return now_ms - at_ms >= r->opt.max_age_ms;
}

static void expire(struct reporter *r, int64_t now_ms)
{
    for (struct batch *b = r->batches, *next; b; b = next) {
        next = b->next;
        if (!b->posting && too_old(r, b->oldest_ms, now_ms))
            end_batch(r, b, SYNC_DROPPED_EXPIRED);
    }
    struct queue_sample s;
    while (queue_peek(&r->queue, &s) && too_old(r, s.at_ms, now_ms)) {
        queue_pop(&r->queue);
        count(r, SYNC_DROPPED_EXPIRED, 1);
    }
}

static struct batch *first_waiting(const struct reporter *r)
{
    struct batch *b = r->batches;
    while (b && b->posting)
        b = b->next;
    return b;
}

/* When the queue's head makes a batch; INT64_MAX: it is empty. */
static int64_t queue_due_ms(const struct reporter *r)
{
    struct queue_sample s;
    if (!queue_peek(&r->queue, &s))
        return INT64_MAX;
    if (r->flushing || r->queue.count >= r->opt.batch)
        return INT64_MIN;
    int64_t due = s.at_ms + r->opt.flush_interval_ms;
    if (r->queue.urgent > 0 && r->urgent_next_ms < due)
        due = r->urgent_next_ms;
    return due;
}

/* Another full batch left behind means that we do not keep up: fewer, larger posts. */
static struct batch *take_batch(struct reporter *r)
{
    if (r->batch_size < r->opt.batch)
        r->batch_size = r->opt.batch;
    struct batch *b = batch_take(&r->queue, r->batch_size);
    bool behind = r->queue.count >= r->opt.batch;
    r->batch_size = behind ? r->batch_size * 2 : r->opt.batch;
    if (r->batch_size > BATCH_SAMPLES_MAX)
        r->batch_size = BATCH_SAMPLES_MAX;
    return b;
}

static struct batch *next_batch(struct reporter *r, int64_t now_ms)
{
    struct batch *b = first_waiting(r);
    if (b)
        return b;
    if (queue_due_ms(r) > now_ms)
        return NULL;
    struct queue_sample s;
    queue_peek(&r->queue, &s);
    bool early = r->queue.count < r->opt.batch && now_ms < s.at_ms + r->opt.flush_interval_ms;
    b = take_batch(r);
    if (early)
        r->urgent_next_ms = now_ms + r->opt.urgent_interval_ms;
    struct batch **at = &r->batches;
    while (*at)
        at = &(*at)->next;
    *at = b;
    return b;
}

static size_t posts_allowed(const struct reporter *r)
{
    return r->failures > 0 ? 1 : REPORTER_POSTS; /* one probe is enough for a server in trouble */
}

/* Posts keep their distance.  Who comes late may catch up, or each late wake-up would be a
 * post less in the end: 20 ms at most, and never so that two are closer than half of it; but
 * a millisecond always, as the clock is no finer. */
static void count_post(struct reporter *r, int64_t now_ms)
{
    if (r->opt.max_posts_per_second <= 0)
        return;
    int64_t distance_us = 1000000 / r->opt.max_posts_per_second;
    int64_t late_us = distance_us / 2 < CATCH_UP_US ? distance_us / 2 : CATCH_UP_US;
    int64_t earliest = now_ms * 1000 - (late_us > 1000 ? late_us : 1000);
    if (r->post_next_us < earliest)
        r->post_next_us = earliest;
    r->post_next_us += distance_us;
}

static int64_t rate_next_ms(const struct reporter *r)
{
    return r->opt.max_posts_per_second > 0 ? (r->post_next_us + 999) / 1000 : INT64_MIN;
}

static int seal_and_sign(struct reporter *r, struct batch *b, int64_t wall_ms, struct post *out)
{
    out->signature[0] = '\0';
    if (batch_seal(b, r->opt.gzip) != 0)
        return -1;
    if (!r->opt.has_key)
        return 0;
    return batch_sign(r->opt.key, wall_ms, b->wire, b->wire_len, out->signature);
}

static unsigned free_slot(const struct reporter *r)
{
    unsigned i = 0;
    while (i < REPORTER_POSTS && r->slot[i])
        i++;
    return i;
}

bool reporter_take(struct reporter *r, int64_t now_ms, int64_t wall_ms, struct post *out)
{
    expire(r, now_ms);
    if (reporter_posting(r) >= posts_allowed(r))
        return false;
    if (now_ms < r->hold_ms || now_ms < rate_next_ms(r))
        return false;
    struct batch *b = next_batch(r, now_ms);
    if (!b)
        return false;
    if (seal_and_sign(r, b, wall_ms, out) != 0) { /* out of memory: like a failed post */
        r->hold = HOLD_BACKOFF;
        r->hold_ms = now_ms + backoff_ingest_ms(++r->failures, 0);
        return false;
    }
    out->slot = free_slot(r);
    r->slot[out->slot] = b;
    b->posting = true;
    out->wire = b->wire;
    out->len = b->wire_len;
    out->samples = b->count;
    out->gzip = b->gzip;
    out->timestamp_ms = wall_ms;
    count_post(r, now_ms);
    count(r, SYNC_BATCH_BYTES_RAW, b->body.len);
    if (b->gzip)
        count(r, SYNC_BATCH_BYTES_GZIP, b->wire_len);
    return true;
}

static bool body_has(const struct post_answer *a, const char *code)
{
    return a->body && memmem(a->body, a->body_len, code, strlen(code));
}

/* The server's clock and ours are too far apart for signatures or samples. */
static bool clocks_differ(const struct post_answer *a, int64_t wall_ms)
{
    int64_t server_ms;
    if (body_has(a, "ts_ms_in_future") || body_has(a, "ts_ms_too_old"))
        return true;
    if (a->status != 401 || !a->date || http_date_parse(a->date, &server_ms) != 0)
        return false;
    return llabs(server_ms - wall_ms) > CLOCK_TOLERANCE_MS;
}

static enum post_result classify(const struct post_answer *a, int64_t wall_ms)
{
    if (a->status == 0)
        return POST_NETWORK;
    if (a->status >= 200 && a->status < 300)
        return POST_OK;
    if (a->status >= 400 && a->status < 500 && clocks_differ(a, wall_ms))
        return POST_CLOCK_SKEW;
    return a->status == 401 || a->status == 403 ? POST_AUTH : POST_HTTP;
}

static void count_result(struct reporter *r, enum post_result result)
{
    switch (result) {
    case POST_OK:
        count(r, SYNC_BATCHES_OK, 1);
        break;
    case POST_AUTH:
        count(r, SYNC_BATCHES_AUTH, 1);
        break;
    case POST_CLOCK_SKEW:
        count(r, SYNC_BATCHES_CLOCK_SKEW, 1);
        break;
    case POST_HTTP:
        count(r, SYNC_BATCHES_HTTP, 1);
        break;
    case POST_NETWORK:
        count(r, SYNC_BATCHES_NETWORK, 1);
        break;
    }
}

static void hold_until(struct reporter *r, enum hold why, int64_t until_ms)
{
    if (until_ms <= r->hold_ms)
        return;
    r->hold = why;
    r->hold_ms = until_ms;
}

/* 5xx, a transport error, 429 and the like: again later, this batch first. */
static void try_again(struct reporter *r, const struct post_answer *a, int64_t now_ms,
                      int64_t wall_ms, double draw)
{
    /* two posts that fail together are one failure */
    if (r->failures == 0 || now_ms >= r->hold_ms)
        r->failures++;
    hold_until(r, HOLD_BACKOFF, now_ms + backoff_ingest_ms(r->failures, draw));
    bool asked = (a->status == 429 || a->status == 503) && a->retry_after;
    int64_t rest = asked ? retry_after_ms(a->retry_after, wall_ms) : -1;
    if (rest > 0)
        hold_until(r, HOLD_REST, now_ms + rest);
}

static void again_after_401(struct reporter *r, struct batch *b, int64_t now_ms, double draw)
{
    if (!b->auth_retried) { /* at once, with a fresh timestamp */
        b->auth_retried = true;
        return;
    }
    r->failures++;
    hold_until(r, HOLD_REST, now_ms + backoff_rest_ms(draw));
}

static void split(struct reporter *r, struct batch *b)
{
    if (b->count < 2) {
        end_batch(r, b, SYNC_DROPPED_REJECTED);
        return;
    }
    struct batch *rest = batch_split(b);
    rest->next = b->next;
    b->next = rest;
}

static void server_works(struct reporter *r)
{
    r->failures = 0;
    if (r->hold != HOLD_BACKOFF) /* what the server asked for stands */
        return;
    r->hold = HOLD_NONE;
    r->hold_ms = INT64_MIN;
}

/* 4xx that say nothing against the batch: the proxy on the way wants a password, the
 * request was slow or early, there were too many. */
static bool is_passing(int status)
{
    return status == 407 || status == 408 || status == 425 || status == 429;
}

static void settle(struct reporter *r, struct batch *b, const struct post_answer *a, int64_t now_ms,
                   int64_t wall_ms, double draw)
{
    if (a->status == 401) {
        again_after_401(r, b, now_ms, draw);
    } else if (a->status < 200 || (a->status >= 300 && a->status < 400) || a->status >= 500 ||
               is_passing(a->status)) {
        try_again(r, a, now_ms, wall_ms, draw);
    } else {
        server_works(r);
        if (a->status == 413)
            split(r, b);
        else
            end_batch(r, b, a->status < 300 ? SYNC_SAMPLES_SENT : SYNC_DROPPED_REJECTED);
    }
}

enum post_result reporter_answer(struct reporter *r, unsigned slot,
                                 const struct post_answer *answer, int64_t now_ms, int64_t wall_ms,
                                 double draw)
{
    if (BUG(slot >= REPORTER_POSTS || !r->slot[slot]))
        return POST_NETWORK;
    enum post_result result = classify(answer, wall_ms);
    struct batch *b = r->slot[slot];
    r->slot[slot] = NULL;
    b->posting = false;
    count_result(r, result);
    settle(r, b, answer, now_ms, wall_ms, draw);
    expire(r, now_ms);
    return result;
}

/* When the oldest sample that is not on its way gets too old. */
static int64_t expiry_ms(const struct reporter *r)
{
    int64_t oldest = INT64_MAX;
    struct queue_sample s;
    if (queue_peek(&r->queue, &s))
        oldest = s.at_ms;
    for (const struct batch *b = r->batches; b; b = b->next) {
        if (!b->posting && b->oldest_ms < oldest)
            oldest = b->oldest_ms;
    }
    return oldest == INT64_MAX ? INT64_MAX : oldest + r->opt.max_age_ms;
}

int64_t reporter_next_ms(const struct reporter *r)
{
    int64_t next = expiry_ms(r);
    if (reporter_posting(r) >= posts_allowed(r))
        return next;
    int64_t due = first_waiting(r) ? INT64_MIN : queue_due_ms(r);
    if (due == INT64_MAX)
        return next;
    if (due < r->hold_ms)
        due = r->hold_ms;
    if (due < rate_next_ms(r))
        due = rate_next_ms(r);
    return due < next ? due : next;
}

size_t reporter_buffered(const struct reporter *r)
{
    return r->queue.count;
}

size_t reporter_in_flight(const struct reporter *r)
{
    size_t n = 0;
    for (const struct batch *b = r->batches; b; b = b->next)
        n += b->count;
    return n;
}

size_t reporter_posting(const struct reporter *r)
{
    size_t n = 0;
    for (unsigned i = 0; i < REPORTER_POSTS; i++)
        n += r->slot[i] != NULL;
    return n;
}

void reporter_flush(struct reporter *r, int64_t now_ms)
{
    r->flushing = true;
    if (r->hold != HOLD_BACKOFF || r->hold_ms <= now_ms)
        return;
    r->hold_ms = now_ms;
    r->failures = 1; /* the short delays again, still one post at a time */
}

void reporter_abandon(struct reporter *r)
{
    memset(r->slot, 0, sizeof(r->slot));
    while (r->batches)
        end_batch(r, r->batches, SYNC_DROPPED_SHUTDOWN);
    count(r, SYNC_DROPPED_SHUTDOWN, r->queue.count);
    queue_clear(&r->queue);
}
