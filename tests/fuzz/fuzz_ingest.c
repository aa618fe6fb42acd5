/* Ingest bodies, plain or gzipped: refused with a status and a word, or samples within their
 * ranges. */
#include "base/strbuf.h"
#include "control/ingest.h"
#include "tests/fuzz/fuzz.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>

#define NOW_MS INT64_C(1700000000000)

static bool knows(const void *arg, const char *router)
{
    (void)arg;
    return router[0] != 'x';
}

static void check_error(const struct ingest_error *err)
{
    CHECK(err->status == 400 || err->status == 401 || err->status == 413 || err->status == 415 ||
              err->status == 422,
          "status %d", err->status);
    CHECK(err->code && *err->code && *err->message, "status %d without words", err->status);
}

static void check_batch(const struct ingest_batch *batch)
{
    CHECK(batch->count <= INGEST_SAMPLES_MAX, "%zu samples", batch->count);
    for (size_t i = 0; i < batch->count; i++) {
        const struct ingest_sample *s = &batch->samples[i];
        CHECK(*s->router_id && *s->router_id != 'x', "samples[%zu]: router \"%s\"", i,
              s->router_id);
        CHECK(*s->metric, "samples[%zu]: no metric", i);
        CHECK(isfinite(s->value), "samples[%zu]: value %g", i, s->value);
        CHECK(s->ts_ms >= NOW_MS - INGEST_AGE_MAX_MS && s->ts_ms <= NOW_MS + INGEST_SKEW_MS,
              "samples[%zu]: time %lld", i, (long long)s->ts_ms);
    }
}

static void parse(const char *body, size_t len)
{
    struct ingest_error err = { 0 };
    struct ingest_batch batch;
    char *copy = fuzz_copy(body, len);
    if (ingest_parse(copy, len, NOW_MS, knows, NULL, &batch, &err) == 0) {
        check_batch(&batch);
        ingest_free(&batch);
    } else {
        check_error(&err);
    }
    cJSON *root = ingest_json(copy, len, &err);
    cJSON_Delete(root);
    free(copy);
}

static void unpack(const char *encoding, const uint8_t *data, size_t len)
{
    struct ingest_error err = { 0 };
    struct strbuf body = STRBUF_INIT;
    uint8_t *wire = fuzz_copy(data, len);
    if (ingest_unpack(encoding, wire, len, &body, &err) < 0) {
        check_error(&err);
    } else {
        CHECK(body.len <= INGEST_BODY_MAX, "%zu bytes", body.len);
        parse(strbuf_str(&body), body.len);
    }
    strbuf_free(&body);
    free(wire);
}

void fuzz_ingest(const uint8_t *data, size_t len)
{
    if (len >= 2 && data[0] == 0x1f && data[1] == 0x8b)
        unpack("gzip", data, len);
    else
        unpack(NULL, data, len);
}
