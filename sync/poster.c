#include "sync/poster.h"
#include "base/base.h"
#include "base/clock.h"
#include "sync/client.h"
#include "sync/settings.h"
#include <cjson/cJSON.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POST_TIMEOUT_MS 30000L
#define BODY_KEPT       2048         /* of an answer; an error object is far smaller */
#define BODY_MAX        (256 * 1024) /* an answer longer than this is cut off */
#define CODE_MAX        40

struct transfer {
    struct client client;
    size_t body_total;
    size_t body_len;
    char body[BODY_KEPT + 1];
};

struct poster {
    CURLM *multi;
    struct reporter *reporter;
    struct stats *stats;
    struct prng *prng;
    const struct settings *settings;
    struct transfer transfer[REPORTER_POSTS]; /* by the post's slot */
};

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    size_t len = size * n;
    size_t room = BODY_KEPT - t->body_len;
    size_t keep = len < room ? len : room;
    memcpy(t->body + t->body_len, bytes, keep);
    t->body_len += keep;
    t->body_total += len;
    return t->body_total <= BODY_MAX ? len : 0;
}

static int add_headers(struct client *c, const struct post *post)
{
    char stamp[64];
    char signature[BATCH_SIG_SIZE + 32];
    snprintf(stamp, sizeof(stamp), "X-EB-Timestamp: %" PRId64, post->timestamp_ms);
    snprintf(signature, sizeof(signature), "X-EB-Signature: v1=%s", post->signature);
    if (client_add_header(c, "Content-Type: application/json") || client_add_header(c, stamp))
        return -1;
    if (post->gzip && client_add_header(c, "Content-Encoding: gzip"))
        return -1;
    if (post->signature[0] && client_add_header(c, signature))
        return -1;
    return client_add_header(c, "Expect:"); /* no waiting for 100 Continue */
}

static int start(struct poster *p, const struct post *post)
{
    struct transfer *t = &p->transfer[post->slot];
    t->body_len = 0;
    t->body_total = 0;
    if (client_open(&t->client, p->settings, p->settings->ingest_url) != 0)
        return -1;
    t->client.once = true;
    CURL *e = t->client.easy;
    if (curl_easy_setopt(e, CURLOPT_POST, 1L) ||
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)post->len) ||
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, post->wire) ||
        curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, POST_TIMEOUT_MS) ||
        curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body) ||
        curl_easy_setopt(e, CURLOPT_WRITEDATA, t) || add_headers(&t->client, post))
        return -1;
    return curl_multi_add_handle(p->multi, e) == CURLM_OK ? 0 : -1;
}

/* The error object's code (PROTOCOL section 2), if it is a plain word. */
static void read_code(const struct transfer *t, char out[CODE_MAX + 1])
{
    out[0] = '\0';
    cJSON *root = cJSON_ParseWithLength(t->body, t->body_len);
    const cJSON *code = cJSON_GetObjectItemCaseSensitive(root, "code");
    if (cJSON_IsString(code) && strlen(code->valuestring) <= CODE_MAX) {
        size_t n = 0;
        for (const char *s = code->valuestring; isalnum((unsigned char)*s) || *s == '_'; s++)
            out[n++] = *s;
        out[n] = '\0';
    }
    cJSON_Delete(root);
}

static void tell(struct poster *p, const struct transfer *t, enum post_result result, int status,
                 CURLcode rc, int64_t now_ms)
{
    char text[STATS_ERROR_MAX];
    char code[CODE_MAX + 1];
    read_code(t, code);
    switch (result) {
    case POST_OK:
        atomic_store_explicit(&p->stats->last_flush_wall_ms, clock_wall_ms(), memory_order_relaxed);
        stats_well(p->stats, STATS_INGEST);
        return;
    case POST_AUTH:
        snprintf(text, sizeof(text), "ingest: the server refused the signature (HTTP %d) %s",
                 status, code);
        break;
    case POST_CLOCK_SKEW:
        snprintf(text, sizeof(text),
                 "ingest: this host's clock and the server's differ (HTTP %d) %s", status, code);
        break;
    case POST_HTTP:
        snprintf(text, sizeof(text), "ingest: HTTP %d %s", status, code);
        break;
    case POST_NETWORK:
        snprintf(text, sizeof(text), "ingest: %s", client_error(&t->client, rc));
        break;
    }
    stats_trouble(p->stats, STATS_INGEST, text, now_ms);
}

static void finish(struct poster *p, unsigned slot, CURLcode rc, int64_t now_ms)
{
    struct transfer *t = &p->transfer[slot];
    bool has_head = t->client.easy != NULL;
    /* a status that was seen counts, even if the rest of the answer was lost */
    const struct post_answer answer = {
        .status = has_head ? client_status(&t->client) : 0,
        .retry_after = has_head ? client_header(&t->client, "Retry-After") : NULL,
        .date = has_head ? client_header(&t->client, "Date") : NULL,
        .body = t->body,
        .body_len = t->body_len,
    };
    enum post_result result =
        reporter_answer(p->reporter, slot, &answer, now_ms, clock_wall_ms(), prng_unit(p->prng));
    tell(p, t, result, answer.status, rc, now_ms);
}

static void drop(struct poster *p, struct transfer *t)
{
    if (!t->client.easy)
        return;
    curl_multi_remove_handle(p->multi, t->client.easy);
    client_close(&t->client);
}

struct poster *poster_new(CURLM *multi, struct reporter *reporter, struct stats *stats,
                          struct prng *prng)
{
    struct poster *p = xcalloc(1, sizeof(*p));
    p->multi = multi;
    p->reporter = reporter;
    p->stats = stats;
    p->prng = prng;
    return p;
}

void poster_free(struct poster *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < REPORTER_POSTS; i++)
        drop(p, &p->transfer[i]);
    free(p);
}

void poster_configure(struct poster *p, const struct settings *settings)
{
    p->settings = settings;
    for (size_t i = 0; i < REPORTER_POSTS; i++)
        p->transfer[i].client.settings = settings;
    if (settings->enabled)
        return;
    reporter_abandon(p->reporter); /* nowhere to send them any more */
    for (size_t i = 0; i < REPORTER_POSTS; i++)
        drop(p, &p->transfer[i]);
}

void poster_tick(struct poster *p, int64_t now_ms)
{
    struct post post;
    if (!p->settings->enabled)
        return;
    while (reporter_take(p->reporter, now_ms, clock_wall_ms(), &post)) {
        if (start(p, &post) == 0)
            continue;
        finish(p, post.slot, CURLE_OUT_OF_MEMORY, now_ms);
        drop(p, &p->transfer[post.slot]);
    }
}

bool poster_done(struct poster *p, CURL *easy, CURLcode rc, int64_t now_ms)
{
    for (unsigned i = 0; i < REPORTER_POSTS; i++) {
        if (!easy || p->transfer[i].client.easy != easy)
            continue;
        finish(p, i, rc, now_ms);
        drop(p, &p->transfer[i]);
        return true;
    }
    return false;
}
