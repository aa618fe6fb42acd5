/*
 * micro.c - what single steps of the request path and of sync cost, in instructions.
 *
 *     valgrind --tool=callgrind --instr-atstart=no --collect-atstart=no ... micro
 *
 * Each row is done once unobserved, so that what is allocated at first use exists, then
 * a number of times while callgrind counts; its figures are dumped under the row's name.
 * Run alone it does the same work and counts nothing.  micro.py reads the dumps.
 */
#include "base/base.h"
#include "base/map.h"
#include "base/prng.h"
#include "base/ring.h"
#include "control/evaluator.h"
#include "proxy/exchange.h"
#include "proxy/gate.h"
#include "proxy/http1.h"
#include "proxy/judge.h"
#include "proxy/reply.h"
#include "proxy/rewrite.h"
#include "proxy/route.h"
#include "proxy/snapshot.h"
#include "proxy/target.h"
#include "proxy/worker.h"
#include "sync/attempt.h"
#include "sync/batch.h"
#include "sync/breakers.h"
#include "sync/sample.h"
#include "sync/sse.h"
#include "sync/state_event.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <valgrind/callgrind.h>

/* Keyed hashes draw their key here: the same in every run, or no two runs were alike. */
ssize_t getrandom(void *out, size_t len, unsigned flags)
{
    (void)flags;
    memset(out, 0x5a, len);
    return (ssize_t)len;
}

static volatile uint64_t sink; /* results go here, so that no step is optimised away */

static void fail(const char *what)
{
    fprintf(stderr, "micro: %s\n", what);
    exit(1);
}

/* ---- Gate: as a request asks, two breakers ---- */

static struct breakers *breakers;
static uint32_t ids[2];
static struct prng prng;

static void gate_setup(void)
{
    breakers = breakers_new();
    static const char *const names[] = { "payments", "region" };
    for (int i = 0; i < 2; i++) {
        ids[i] = breakers_intern(breakers, names[i], strlen(names[i]));
        breakers_store(breakers, ids[i], BREAKER_CLOSED, BREAKER_RATE_ONE, false, 1);
    }
    breakers_set_flags(breakers, STATE_SYNCED | STATE_CONNECTED, 0);
    prng_seed(&prng);
}

static void gate_half_open_setup(void)
{
    gate_setup();
    breakers_store(breakers, ids[1], BREAKER_HALF_OPEN, BREAKER_RATE_ONE / 2, false, 1);
}

static void gate_op(void)
{
    uint64_t words[2] = { breakers_load(breakers, ids[0]), breakers_load(breakers, ids[1]) };
    sink += gate_check(&(struct gate_input){ .words = words,
                                             .count = 2,
                                             .flags = breakers_flags(breakers),
                                             .draw = prng_u32(&prng) })
                .verdict;
}

static void gate_teardown(void)
{
    breakers_free(breakers);
}

/* ---- Route: a host's first request, and a later one ---- */

#define HOSTS_MAX 100000
static struct route routes[HOSTS_MAX];
static char host_names[HOSTS_MAX][24];
static char *host_items[HOSTS_MAX];
static struct route_table *table;
static struct route_candidates candidates;
static size_t route_count, asked;

static void routes_setup(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        snprintf(host_names[i], sizeof host_names[i], "host-%zu.example.com", i);
        host_items[i] = host_names[i];
        routes[i] = (struct route){ .index = i, .match.hosts = { &host_items[i], 1 } };
    }
    route_count = count;
    asked = 0;
    table = route_table_new(routes, count);
    route_candidates_init(table, slice_of(host_names[count / 2]), 80, &candidates);
}

static void routes_10(void)
{
    routes_setup(10);
}

static void routes_1000(void)
{
    routes_setup(1000);
}

static void routes_100000(void)
{
    routes_setup(100000);
}

static void lookup_op(void)
{
    struct route_candidates c;
    struct route_request rq = { .method = SLICE("GET"), .path = SLICE("/v1/charge") };
    asked = (asked + 7919) % route_count;
    route_candidates_init(table, slice_of(host_names[asked]), 80, &c);
    const struct route *r = route_match(&c, &rq);
    if (r != &routes[asked])
        fail("the wrong route");
    route_candidates_free(&c);
}

static void match_op(void)
{
    struct route_request rq = { .method = SLICE("GET"), .path = SLICE("/v1/charge") };
    sink += route_match(&candidates, &rq)->index;
}

static void routes_teardown(void)
{
    route_candidates_free(&candidates);
    route_table_free(table);
}

/* ---- Heads ---- */

static const char request_head[] =
    "GET http://payments.example.com/v1/charge?id=12345 HTTP/1.1\r\n"
    "Host: payments.example.com\r\n"
    "User-Agent: python-requests/2.28.1\r\n"
    "Accept-Encoding: gzip, deflate\r\n"
    "Accept: */*\r\n"
    "Connection: keep-alive\r\n"
    "Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n"
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
    "\r\n";
static const char response_head[] = "HTTP/1.1 200 OK\r\n"
                                    "Server: nginx/1.22.1\r\n"
                                    "Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
                                    "Content-Type: application/json\r\n"
                                    "Content-Length: 1024\r\n"
                                    "Connection: keep-alive\r\n"
                                    "Cache-Control: no-store\r\n"
                                    "X-Request-Id: 7f3a9c1e5b\r\n"
                                    "\r\n";
static struct http1_head head;
static uint8_t out[16384];

static size_t head_length(const char *data, size_t len)
{
    size_t scanned = 0, end = 0;
    if (http1_find_end(data, len, &scanned, &end) != 1)
        fail("no end of the head");
    return end;
}

static void request_parse_op(void)
{
    size_t len = head_length(request_head, sizeof request_head - 1);
    if (http1_parse_request(&head, request_head, len, 128) != HTTP1_OK)
        fail("the request does not parse");
}

static void request_rewrite_op(void)
{
    struct rewrite_request o = { .authority = SLICE("payments.example.com"),
                                 .path = SLICE("/v1/charge?id=12345"),
                                 .max_forwards = -1 };
    sink += rewrite_request(&head, &o, out, sizeof out);
}

static void response_parse_op(void)
{
    size_t len = head_length(response_head, sizeof response_head - 1);
    if (http1_parse_response(&head, response_head, len, 128, false) != HTTP1_OK)
        fail("the response does not parse");
}

static void response_rewrite_op(void)
{
    struct rewrite_response o = { 0 };
    sink += rewrite_response(&head, &o, out, sizeof out);
}

static struct worker worker;

/* ---- The host of a request, asked for lately ---- */

#define AUTHORITY SLICE("payments.example.com")

static void recall_setup(void)
{
    struct authority a;
    worker.targets = map_new();
    list_init(&worker.target_lru);
    if (authority_parse(&a, AUTHORITY, 80) != TARGET_OK)
        fail("no authority");
    target_unref(target_get(&worker, &a));
}

static void recall_op(void)
{
    if (!target_recall(&worker, AUTHORITY))
        fail("the host is not recalled");
}

static void recall_teardown(void)
{
    targets_free(&worker);
}

/* ---- The text of a refusal, the last one's again ---- */

static void refusal_op(void)
{
    struct reply r = { .status = 503,
                       .error = PERR_DESTINATION_UNAVAILABLE,
                       .detail = "a breaker is open",
                       .breaker = "payments",
                       .breaker_len = 8,
                       .breaker_state = "open",
                       .decision = "reject",
                       .retry_after_ms = 1000 };
    sink += reply_text(&worker.reply, &r, 1)->len;
}

static void refusal_teardown(void)
{
    reply_kept_free(&worker.reply);
}

/* ---- Samples: record, text, batch ---- */

static struct name_value tags[] = { { "tier", "premium" }, { "status", "{status}" } };
static struct route sampled = { .router = "550e8400-e29b-41d4-a716-446655440000",
                                .name = "payments",
                                .metrics = { { .name = "latency", .kind = METRIC_LATENCY } },
                                .metric_count = 1,
                                .tags = { tags, 2 } };
static struct attempt_record record = {
    .route = &sampled,
    .ok = true,
    .status = 200,
    .method = "GET",
    .ts_ms = 1704067200000,
    .values = { 12.5 },
};
static struct sample_writer writer = { .instance = "host" };
static struct queue queue;

/* ---- Recording: what judge.c does once the verdict on an attempt is there ---- */

static struct target target;
static struct live_route live = { .cfg = &sampled };
static struct exchange attempt = { .w = &worker, .route = &live, .target = &target };

static void record_setup(void)
{
    worker.ring = ring_new(sizeof record, ATTEMPT_RING_CAPACITY);
    if (!ring_push(worker.ring, &record, NULL)) /* or the next one would wake a sync thread */
        fail("the ring is full");
    memcpy(attempt.method, "GET", 4);
    worker.now_us_cached = 5000000;
    attempt.start_us = 4000000;
    judge_begin(&attempt);
    attempt.attempt.fixed = attempt.attempt.ok = true;
}

static void record_op(void)
{
    attempt.last_upstream_us = 4001000 + (int64_t)(sink++ % 1000);
    attempt.recorded = false;
    judge_record(&attempt);
}

static void record_teardown(void)
{
    if (ring_pushed(worker.ring) != 1 + 1 + 1000)
        fail("an attempt was not recorded");
    ring_free(worker.ring);
}

static void sample_op(void)
{
    record.ts_ms++;
    record.values[0] = (double)(record.ts_ms % 10007) / 8;
    if (!sample_begin(&writer, &record, "", 0) || sample_metric(&writer, 0) != SAMPLE_OK)
        fail("no sample");
}

static void sample_teardown(void)
{
    sample_writer_free(&writer);
}

#define BATCH       500
#define BATCH_TIMES 5

/* The texts of all batches to come: sample_text counts what those cost. */
static void batch_setup(void)
{
    for (int i = 0; i < BATCH * (1 + BATCH_TIMES); i++) {
        sample_op();
        queue_push(&queue, writer.text.data, writer.text.len, 1, false);
    }
}

/* As reporter.c does with a full queue: take, gzip, sign. */
static void batch_op(void)
{
    static const uint8_t key[BATCH_KEY_SIZE] = { 1, 2, 3 };
    char signature[BATCH_SIG_SIZE];
    struct batch *b = batch_take(&queue, BATCH);
    if (b->count != BATCH || batch_seal(b, true) ||
        batch_sign(key, record.ts_ms, b->wire, b->wire_len, signature))
        fail("no batch");
    sink += b->wire_len;
    batch_free(b);
}

static void batch_teardown(void)
{
    queue_clear(&queue);
    sample_writer_free(&writer);
}

/* ---- The stream: one event as stream.c reads it ---- */

static struct sse *stream;
static uint64_t events;

static void on_event(void *arg, const struct sse_event *ev)
{
    (void)arg;
    struct state_event e;
    if (ev->kind != SSE_EVENT || state_event_parse(ev->data, ev->data_len, &e) != STATE_EVENT_OK)
        fail("not a state event");
    events++;
}

static void sse_setup(void)
{
    stream = sse_new(on_event, NULL);
}

static void sse_op(void)
{
    static const char text[] =
        "event: state\n"
        "data: {\"breaker\":\"checkout-latency\",\"state\":\"half_open\",\"allow_rate\":0.2}\n\n";
    sse_feed(stream, text, sizeof text - 1);
}

static void sse_teardown(void)
{
    sse_free(stream);
}

/* ---- The embedded control plane: a sample of a second full of them ---- */

static struct evaluator evaluator;
static int64_t evaluator_ms;

static void evaluator_setup(void)
{
    struct evaluator_rule rule = { .kind = EVALUATOR_ERROR_RATE,
                                   .op = EVALUATOR_GT,
                                   .threshold = 0.5,
                                   .window_ms = 60000,
                                   .min_count = 20 };
    evaluator_init(&evaluator, &rule);
}

static void evaluator_op(void)
{
    evaluator_ms += 100; /* crosses a bucket now and then */
    evaluator_add(&evaluator, evaluator_ms, evaluator_ms % 700 != 0);
}

static void nothing(void)
{
}

/* ---- All of them ---- */

static const struct row {
    const char *name;
    void (*setup)(void);
    void (*op)(void);
    void (*teardown)(void);
    unsigned times;
} rows[] = {
    { "gate_closed", gate_setup, gate_op, gate_teardown, 1000 },
    { "gate_half_open", gate_half_open_setup, gate_op, gate_teardown, 1000 },
    { "route_lookup_10", routes_10, lookup_op, routes_teardown, 1000 },
    { "route_lookup_1000", routes_1000, lookup_op, routes_teardown, 1000 },
    { "route_lookup_100000", routes_100000, lookup_op, routes_teardown, 1000 },
    { "route_match_known_host", routes_1000, match_op, routes_teardown, 1000 },
    { "target_recall", recall_setup, recall_op, recall_teardown, 1000 },
    { "request_head_parse", nothing, request_parse_op, nothing, 1000 },
    { "request_head_rewrite", request_parse_op, request_rewrite_op, nothing, 1000 },
    { "response_head_parse", nothing, response_parse_op, nothing, 1000 },
    { "response_head_rewrite", response_parse_op, response_rewrite_op, nothing, 1000 },
    { "refusal_kept", nothing, refusal_op, refusal_teardown, 1000 },
    { "attempt_record", record_setup, record_op, record_teardown, 1000 },
    { "sample_text", nothing, sample_op, sample_teardown, 1000 },
    { "batch_of_500", batch_setup, batch_op, batch_teardown, BATCH_TIMES },
    { "sse_event", sse_setup, sse_op, sse_teardown, 1000 },
    { "evaluator_insert", evaluator_setup, evaluator_op, nothing, 1000 },
};

int main(void)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *r = &rows[i];
        r->setup();
        CALLGRIND_START_INSTRUMENTATION;
        r->op();
        CALLGRIND_ZERO_STATS;
        CALLGRIND_TOGGLE_COLLECT;
        for (unsigned n = 0; n < r->times; n++)
            r->op();
        CALLGRIND_TOGGLE_COLLECT;
        char text[64];
        snprintf(text, sizeof text, "%s %u", r->name, r->times);
        CALLGRIND_DUMP_STATS_AT(text);
        CALLGRIND_STOP_INSTRUMENTATION; /* what is not counted runs faster */
        r->teardown();
    }
    return 0;
}
