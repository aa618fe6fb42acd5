#include "control/ingest.h"

#include "base/base.h"
#include "base/prng.h"
#include "base/strbuf.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1705312200000)

/* Key 00 01 .. 1f; the MACs were computed apart from this program (Python's hmac). */
static const char signed_body[] = "{\"samples\":[]}";
#define SIGNED_AT "1705312200000"
#define SIGNATURE                                                                                  \
    "03a97ea05ddc04e56b3fd61827239694"                                                             \
    "942ea544b7972c027cf9e5ce5c5e4c94"

static void the_key(uint8_t key[INGEST_KEY_BYTES])
{
    for (size_t i = 0; i < INGEST_KEY_BYTES; i++)
        key[i] = (uint8_t)i;
}

static void a_signature_covers_timestamp_and_body(void **state)
{
    static const struct {
        const char *timestamp;
        const char *signature;
        int64_t now_ms;
        const char *want; /* code; NULL: accepted */
    } cases[] = {
        { SIGNED_AT, "v1=" SIGNATURE, NOW, NULL },
        { SIGNED_AT, "v1=" SIGNATURE, NOW + 300000, NULL },
        { SIGNED_AT, "v1=" SIGNATURE, NOW - 300000, NULL },
        { SIGNED_AT, "v1=" SIGNATURE, NOW + 300001, "timestamp_out_of_range" },
        { SIGNED_AT, "v1=" SIGNATURE, NOW - 300001, "timestamp_out_of_range" },
        { "1705312200001", "v1=" SIGNATURE, NOW, "invalid_signature" },
        { SIGNED_AT, SIGNATURE, NOW, "invalid_signature" },
        { SIGNED_AT, "v2=" SIGNATURE, NOW, "invalid_signature" },
        { SIGNED_AT, "v1=", NOW, "invalid_signature" },
        { SIGNED_AT, "v1=" SIGNATURE "0", NOW, "invalid_signature" },
        { SIGNED_AT, NULL, NOW, "signature_required" },
        { NULL, "v1=" SIGNATURE, NOW, "signature_required" },
        { "", "v1=" SIGNATURE, NOW, "invalid_timestamp" },
        { "-1", "v1=" SIGNATURE, NOW, "invalid_timestamp" },
        { "1705312200000 ", "v1=" SIGNATURE, NOW, "invalid_timestamp" },
        { "9999999999999999999999999", "v1=" SIGNATURE, NOW, "invalid_timestamp" },
    };
    uint8_t key[INGEST_KEY_BYTES];

    (void)state;
    the_key(key);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct ingest_error err = { 0 };
        int rc = ingest_verify(key, cases[i].timestamp, cases[i].signature, signed_body,
                               strlen(signed_body), cases[i].now_ms, &err);

        if (rc == 0 ? cases[i].want != NULL
                    : cases[i].want == NULL || strcmp(err.code, cases[i].want) != 0)
            fail_msg("case %zu: %s, want %s", i, rc == 0 ? "accepted" : err.code,
                     cases[i].want ? cases[i].want : "accepted");
        if (rc < 0 && err.status != 401)
            fail_msg("case %zu: status %d", i, err.status);
    }
}

static bool knows(const void *arg, const char *router_id)
{
    return strcmp(arg, router_id) == 0;
}

static int parse(const char *body, size_t len, struct ingest_batch *batch, struct ingest_error *err)
{
    return ingest_parse(body, len, NOW, knows, "r", batch, err);
}

/* One sample with this in place of one field. */
#define SAMPLE(router, metric, ts, value, ok, more)                                                \
    "{\"router_id\":" router ",\"metric\":" metric ",\"ts_ms\":" ts ",\"value\":" value            \
    ",\"ok\":" ok more "}"
#define TS "1705312200000"

static void a_sample_needs_every_field_in_its_type(void **state)
{
    static const struct {
        const char *sample;
        const char *want; /* code; NULL: accepted */
    } cases[] = {
        { SAMPLE("\"r\"", "\"m\"", TS, "1", "true", ""), NULL },
        { SAMPLE("\"r\"", "\"m\"", TS, "-1.5e3", "false", ",\"more\":[{}]"), NULL },
        { SAMPLE("\"r\"", "\"m\"", TS, "1", "true", ",\"tags\":{\"a\":\"b\"},\"trace_id\":\"x\""),
          NULL },
        { SAMPLE("\"r\"", "\"m\"", TS, "1", "true", ",\"tags\":null,\"trace_id\":null"), NULL },
        { SAMPLE("\"q\"", "\"m\"", TS, "1", "true", ""), "invalid_router_id" },
        { SAMPLE("\"\"", "\"m\"", TS, "1", "true", ""), "invalid_router_id" },
        { SAMPLE("7", "\"m\"", TS, "1", "true", ""), "invalid_router_id" },
        { SAMPLE("null", "\"m\"", TS, "1", "true", ""), "invalid_router_id" },
        { SAMPLE("\"r\"", "\"\"", TS, "1", "true", ""), "invalid_metric" },
        { SAMPLE("\"r\"", "true", TS, "1", "true", ""), "invalid_metric" },
        { SAMPLE("\"r\"", "\"m\"", "\"" TS "\"", "1", "true", ""), "invalid_ts_ms" },
        { SAMPLE("\"r\"", "\"m\"", TS ".5", "1", "true", ""), "invalid_ts_ms" },
        { SAMPLE("\"r\"", "\"m\"", "1e300", "1", "true", ""), "invalid_ts_ms" },
        { SAMPLE("\"r\"", "\"m\"", "1e999", "1", "true", ""), "invalid_ts_ms" },
        { SAMPLE("\"r\"", "\"m\"", TS ".0", "1", "true", ""), NULL },
        { SAMPLE("\"r\"", "\"m\"", "1705225800000", "1", "true", ""), NULL }, /* 24 h old */
        { SAMPLE("\"r\"", "\"m\"", "1705225799999", "1", "true", ""), "ts_ms_too_old" },
        { SAMPLE("\"r\"", "\"m\"", "1705312500000", "1", "true", ""), NULL }, /* 5 min ahead */
        { SAMPLE("\"r\"", "\"m\"", "1705312500001", "1", "true", ""), "ts_ms_in_future" },
        { SAMPLE("\"r\"", "\"m\"", TS, "\"1\"", "true", ""), "invalid_value" },
        { SAMPLE("\"r\"", "\"m\"", TS, "null", "true", ""), "invalid_value" },
        { SAMPLE("\"r\"", "\"m\"", TS, "1e999", "true", ""), "invalid_value" },
        { SAMPLE("\"r\"", "\"m\"", TS, "1", "1", ""), "invalid_ok" },
        { SAMPLE("\"r\"", "\"m\"", TS, "1", "\"true\"", ""), "invalid_ok" },
        { SAMPLE("\"r\"", "\"m\"", TS, "1", "true", ",\"tags\":[]"), "invalid_tags" },
        { SAMPLE("\"r\"", "\"m\"", TS, "1", "true", ",\"tags\":{\"a\":1}"), "invalid_tags" },
        { SAMPLE("\"r\"", "\"m\"", TS, "1", "true", ",\"trace_id\":1"), "invalid_trace_id" },
        { "{}", "invalid_router_id" },
        { "{\"Router_id\":\"r\"}", "invalid_router_id" },
        { "{\"router_id\":\"r\"}", "invalid_metric" },
        { "{\"router_id\":\"r\",\"metric\":\"m\"}", "invalid_ts_ms" },
        { "{\"router_id\":\"r\",\"metric\":\"m\",\"ts_ms\":" TS "}", "invalid_value" },
        { "{\"router_id\":\"r\",\"metric\":\"m\",\"ts_ms\":" TS ",\"value\":1}", "invalid_ok" },
        { "7", "malformed" },
        { "[]", "malformed" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf body = STRBUF_INIT;
        struct ingest_batch batch;
        struct ingest_error err = { 0 };
        int rc;

        strbuf_addf(&body, "{\"samples\":[" SAMPLE("\"r\"", "\"m\"", TS, "1", "true", "") ",%s]}",
                    cases[i].sample);
        rc = parse(body.data, body.len, &batch, &err);
        if (rc == 0 ? cases[i].want != NULL
                    : cases[i].want == NULL || strcmp(err.code, cases[i].want) != 0)
            fail_msg("%s: %s, want %s", cases[i].sample, rc == 0 ? "accepted" : err.message,
                     cases[i].want ? cases[i].want : "accepted");
        if (batch.count != 2)
            fail_msg("%s: %zu samples", cases[i].sample, batch.count);
        if (rc < 0 && (err.status != (strcmp(err.code, "malformed") == 0 ? 400 : 422) ||
                       strstr(err.message, "samples[1]") == NULL))
            fail_msg("%s: %d %s", cases[i].sample, err.status, err.message);
        if (rc == 0)
            ingest_free(&batch);
        strbuf_free(&body);
    }
}

static void the_fields_arrive_as_they_were_sent(void **state)
{
    static const char body[] =
        " [" SAMPLE("\"r\"", "\"la\\u0074ency\"", TS, "245.5", "false", "") "]\r\n\t ";
    struct ingest_batch batch;
    struct ingest_error err = { 0 };

    (void)state;
    if (parse(body, strlen(body), &batch, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(batch.count, 1); /* a bare array will do */
    assert_string_equal(batch.samples[0].router_id, "r");
    assert_string_equal(batch.samples[0].metric, "latency");
    assert_int_equal(batch.samples[0].ts_ms, NOW);
    assert_true(batch.samples[0].value == 245.5);
    assert_false(batch.samples[0].ok);
    ingest_free(&batch);
}

static void what_is_not_a_batch_is_malformed(void **state)
{
    static const char *const cases[] = {
        "",
        " ",
        "{",
        "}",
        "[",
        "null",
        "7",
        "{}",
        "{\"samples\":{}}",
        "{\"samples\":null}",
        "[] []",
        "[]x",
        "[\"",
        "[\"\\",
        "[\"\\u12",
        "{\"samples\":[]",
        "\xff\xfe",
        "[1,]",
        "[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]", /* 17 deep */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct ingest_batch batch;
        struct ingest_error err = { 0 };
        char *exact = malloc(strlen(cases[i]) + 1); /* so that reading past the end is seen */
        size_t len = strlen(cases[i]);
        int rc;

        memcpy(exact, cases[i], len + 1);
        rc = parse(exact, len, &batch, &err);
        if (rc == 0 || err.status != 400 || strcmp(err.code, "malformed") != 0)
            fail_msg("\"%s\": %s", cases[i], rc == 0 ? "accepted" : err.code);
        free(exact);
    }
}

static void an_empty_batch_is_fine(void **state)
{
    struct ingest_batch batch;
    struct ingest_error err = { 0 };

    (void)state;
    assert_int_equal(parse(signed_body, strlen(signed_body), &batch, &err), 0);
    assert_int_equal(batch.count, 0);
    ingest_free(&batch);
}

/* count elements, comma-separated, in an array. */
static char *array_of(const char *element, size_t count)
{
    struct strbuf sb = STRBUF_INIT;

    strbuf_addc(&sb, '[');
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            strbuf_addc(&sb, ',');
        strbuf_adds(&sb, element);
    }
    strbuf_addc(&sb, ']');
    return strbuf_take(&sb);
}

static void numbers_of_samples_and_of_values_have_limits(void **state)
{
    static const struct {
        const char *element;
        size_t count;
        int status; /* 0: accepted */
        const char *code;
    } cases[] = {
        { SAMPLE("\"r\"", "\"m\"", TS, "1", "true", ""), INGEST_SAMPLES_MAX, 0, "" },
        { SAMPLE("\"r\"", "\"m\"", TS, "1", "true", ""), INGEST_SAMPLES_MAX + 1, 413,
          "too_many_samples" },
        { "0", INGEST_VALUES_MAX - 1, 413, "too_many_samples" },
        { "0", INGEST_VALUES_MAX, 413, "body_too_large" },
        { "\",,,,[[[[{{{{\"", 1, 400, "malformed" }, /* inside a string nothing counts */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *body = array_of(cases[i].element, cases[i].count);
        struct ingest_batch batch;
        struct ingest_error err = { 0 };
        int rc = parse(body, strlen(body), &batch, &err);

        if (rc == 0 ? cases[i].status != 0
                    : err.status != cases[i].status || strcmp(err.code, cases[i].code) != 0)
            fail_msg("case %zu: %d %s", i, err.status, err.message);
        if (rc == 0)
            ingest_free(&batch);
        free(body);
    }
}

static void unpacking_takes_the_encodings_of_the_protocol(void **state)
{
    /* "[]" and its gzip form, made apart from this program */
    static const unsigned char packed[] = { 0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00,
                                            0x02, 0x03, 0x8b, 0x8e, 0x05, 0x00, 0x29, 0xbb,
                                            0x4c, 0x0d, 0x02, 0x00, 0x00, 0x00 };
    unsigned char twice[2 * sizeof(packed)];
    unsigned char broken[sizeof(packed)];
    const struct {
        const char *encoding;
        const void *wire;
        size_t len;
        const char *want; /* the body, or the code */
    } cases[] = {
        { NULL, "[]", 2, "[]" },
        { "", "[]", 2, "[]" },
        { "identity", "[]", 2, "[]" },
        { "gzip", packed, sizeof(packed), "[]" },
        { "GZIP", packed, sizeof(packed), "[]" },
        { "gzip", packed, sizeof(packed) - 1, "invalid_gzip" },
        { "gzip", packed, 0, "invalid_gzip" },
        { "gzip", twice, sizeof(twice), "invalid_gzip" },
        { "gzip", broken, sizeof(broken), "invalid_gzip" }, /* wrong checksum */
        { "gzip", "[]", 2, "invalid_gzip" },
        { "deflate", packed, sizeof(packed), "unsupported_encoding" },
        { "gzip, gzip", packed, sizeof(packed), "unsupported_encoding" },
    };

    (void)state;
    memcpy(twice, packed, sizeof(packed));
    memcpy(twice + sizeof(packed), packed, sizeof(packed));
    memcpy(broken, packed, sizeof(packed));
    broken[sizeof(broken) - 8] ^= 1;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf body = STRBUF_INIT;
        struct ingest_error err = { 0 };
        int rc = ingest_unpack(cases[i].encoding, cases[i].wire, cases[i].len, &body, &err);
        const char *got = rc == 0 ? strbuf_str(&body) : err.code;

        if (strcmp(got, cases[i].want) != 0)
            fail_msg("case %zu: got %s, want %s", i, got, cases[i].want);
        strbuf_free(&body);
    }
}

/* Damaged bodies are refused or accepted, but never read or written out of bounds. */
static void damaged_bodies_do_no_harm(void **state)
{
    static const char seed_body[] =
        "{\"samples\":[" SAMPLE("\"r\"", "\"m\"", TS, "1.5", "true",
                                ",\"tags\":{\"a\":\"\\u00e9\\n\"},\"trace_id\":\"x\"") "]}";
    static const char spice[] = "{}[]\",:\\0eE+-.u \x80\xff";
    struct prng rng;
    size_t accepted = 0;

    (void)state;
    prng_seed_fixed(&rng, 7);
    for (int round = 0; round < 20000; round++) {
        size_t len = prng_u32(&rng) % 4 ? strlen(seed_body) : prng_u32(&rng) % sizeof(seed_body);
        char *body = malloc(len ? len : 1);
        struct ingest_batch batch;
        struct ingest_error err = { 0 };

        memcpy(body, seed_body, len);
        for (uint32_t n = prng_u32(&rng) % 4; n > 0 && len > 0; n--)
            body[prng_u32(&rng) % len] = spice[prng_u32(&rng) % (sizeof(spice) - 1)];
        if (parse(body, len, &batch, &err) == 0) {
            accepted++;
            ingest_free(&batch);
        } else if (err.status < 400 || err.code == NULL || err.message[0] == '\0') {
            fail_msg("round %d: refused without a reason", round);
        }
        free(body);
    }
    assert_true(accepted > 1000); /* else the damage hides everything behind the first check */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signature_covers_timestamp_and_body),
        cmocka_unit_test(a_sample_needs_every_field_in_its_type),
        cmocka_unit_test(the_fields_arrive_as_they_were_sent),
        cmocka_unit_test(what_is_not_a_batch_is_malformed),
        cmocka_unit_test(an_empty_batch_is_fine),
        cmocka_unit_test(numbers_of_samples_and_of_values_have_limits),
        cmocka_unit_test(unpacking_takes_the_encodings_of_the_protocol),
        cmocka_unit_test(damaged_bodies_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
