/* Samples of attempts with foreign bytes in them (host, method, trace id, tags): strict JSON
 * that the other end takes, with the same numbers. */
#include "base/strbuf.h"
#include "config/text.h"
#include "control/ingest.h"
#include "sync/sample.h"
#include "tests/fuzz/fuzz.h"
#include <math.h>
#include <stdlib.h>

#define NOW_MS INT64_C(1700000000000)

static bool knows(const void *arg, const char *router)
{
    (void)arg;
    return *router != '\0';
}

static void check_sample(const struct sample_writer *w, const struct attempt_record *rec, size_t i)
{
    struct strbuf errors = STRBUF_INIT, body = STRBUF_INIT;
    struct ingest_error err = { 0 };
    struct ingest_batch batch;
    struct text *t = NULL;
    const char *text = strbuf_str(&w->text);
    CHECK(w->text.len <= SAMPLE_MAX, "%zu bytes", w->text.len);
    CHECK(text_parse("sample", text, w->text.len, &t, &errors) == 0, "%s in %s",
          strbuf_str(&errors), text);
    strbuf_addf(&body, "{\"samples\":[%s]}", text);
    CHECK(ingest_parse(strbuf_str(&body), body.len, NOW_MS, knows, NULL, &batch, &err) == 0,
          "refused: %s: %s", err.message, text);
    CHECK(batch.count == 1 && batch.samples[0].value == rec->values[i], "%.17g became %.17g",
          rec->values[i], batch.samples[0].value);
    CHECK(batch.samples[0].ok == rec->ok && batch.samples[0].ts_ms == rec->ts_ms, "%s", text);
    ingest_free(&batch);
    text_free(t);
    strbuf_free(&errors);
    strbuf_free(&body);
}

static double take_value(struct fuzz_reader *r)
{
    double d = 0;
    uint8_t bytes[sizeof(d)];
    uint8_t kind = fuzz_byte(r);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = fuzz_byte(r);
    memcpy(&d, bytes, sizeof(d));
    if (kind & 1)
        d = (double)(bytes[0] | bytes[1] << 8 | bytes[2] << 16) / 1000;
    return d;
}

/* Lines: router, host, method, trace id, tag name, tag value; none holds a NUL, neither in the
 * operator's file nor in a head that was taken. */
void fuzz_sample(const uint8_t *data, size_t len)
{
    struct fuzz_reader r = { data, len };
    uint8_t flags = fuzz_byte(&r);
    struct attempt_record rec = { .ok = flags & 1,
                                  .opaque = flags & 2,
                                  .status = (uint16_t)(flags & 4 ? 503 : 0),
                                  .outcome = (uint8_t)(flags >> 3) % OUTCOME_COUNT,
                                  .ts_ms = NOW_MS };
    rec.values[0] = take_value(&r);
    char *text[6];
    for (size_t i = 0; i < 6; i++) {
        struct slice line = fuzz_line(&r);
        text[i] = fuzz_string(line.p, line.len);
    }
    struct name_value tag = { .name = text[4], .value = text[5] };
    struct route route = { .name = "route",
                           .router = text[0],
                           .metric_count = 1,
                           .metrics = { { .name = "latency" } },
                           .tags = { &tag, 1 } };
    rec.route = &route;
    strncpy(rec.method, text[2], sizeof(rec.method) - 1);
    rec.trace_len = (uint8_t)strnlen(text[3], ATTEMPT_TRACE_MAX);
    memcpy(rec.trace_id, text[3], rec.trace_len);

    struct sample_writer w = { .instance = "instance" };
    if (sample_begin(&w, &rec, text[1], strlen(text[1]))) {
        enum sample_result result = sample_metric(&w, 0);
        CHECK((result == SAMPLE_ABSENT) == !isfinite(rec.values[0]), "%g", rec.values[0]);
        if (result == SAMPLE_OK)
            check_sample(&w, &rec, 0);
        CHECK(sample_metric(&w, 1) == SAMPLE_ABSENT, "a metric that the route lacks");
    }
    sample_writer_free(&w);
    for (size_t i = 0; i < 6; i++)
        free(text[i]);
}
