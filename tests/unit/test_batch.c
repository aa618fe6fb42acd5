#include "base/base.h"
#include "base/prng.h"
#include "sync/batch.h"
#include "sync/queue.h"
#include "sync/sample.h"
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

/* ---- samples ---- */

static struct name_value tags[8];
static struct route route;
static struct attempt_record rec;

/* A route with one metric and one attempt on it; each test changes what it needs. */
static int set_up(void **state)
{
    (void)state;
    memset(tags, 0, sizeof(tags));
    route = (struct route){
        .name = "payments",
        .router = "rtr-1",
        .metrics = { { .name = "latency" } },
        .metric_count = 1,
        .tags = { .items = tags },
    };
    rec = (struct attempt_record){
        .route = &route,
        .outcome = OUTCOME_SUCCESS,
        .ok = true,
        .status = 200,
        .method = "GET",
        .ts_ms = INT64_C(1705312200000),
        .values = { 245.5 },
    };
    return 0;
}

static void tag(const char *name, const char *value)
{
    tags[route.tags.count++] = (struct name_value){ (char *)name, (char *)value };
}

/* The sample of metric i, or "absent", "too large", "no router". */
static const char *sample_of(const char *host, size_t i)
{
    static char out[SAMPLE_MAX + 1];
    struct sample_writer w = { .instance = "pod-7" };
    const char *text = "no router";
    if (sample_begin(&w, &rec, host, strlen(host))) {
        enum sample_result r = sample_metric(&w, i);
        text = r == SAMPLE_OK ? strbuf_str(&w.text) : r == SAMPLE_ABSENT ? "absent" : "too large";
    }
    snprintf(out, sizeof(out), "%s", text);
    sample_writer_free(&w);
    return out;
}

static void a_sample_has_the_fields_of_the_wire(void **state)
{
    (void)state;
    tag("service", "check\"out");
    memcpy(rec.trace_id, "0af7651916cd43dd", 16);
    rec.trace_len = 16;
    assert_string_equal(sample_of("", 0),
                        "{\"router_id\":\"rtr-1\",\"metric\":\"latency\",\"ts_ms\":1705312200000,"
                        "\"value\":245.5,\"ok\":true,\"tags\":{\"service\":\"check\\\"out\"},"
                        "\"trace_id\":\"0af7651916cd43dd\"}");
    rec.ok = false;
    rec.trace_len = 0;
    route.tags.count = 0;
    assert_string_equal(sample_of("", 0),
                        "{\"router_id\":\"rtr-1\",\"metric\":\"latency\",\"ts_ms\":1705312200000,"
                        "\"value\":245.5,\"ok\":false}");
}

static void a_tunnel_says_that_it_is_one_unless_a_tag_does(void **state)
{
    (void)state;
    static const struct {
        const char *name; /* NULL: no tag */
        const char *value;
        bool opaque;
        const char *want; /* NULL: no tags */
    } cases[] = {
        { NULL, NULL, true, "\"tags\":{\"tier\":\"opaque\"}" },
        { NULL, NULL, false, NULL },
        { "a", "b", true, "\"tags\":{\"tier\":\"opaque\",\"a\":\"b\"}" },
        { "a", "b", false, "\"tags\":{\"a\":\"b\"}" },
        { "a", "{status}", true, "\"tags\":{\"tier\":\"opaque\"}" },
        { "tier", "premium", true, "\"tags\":{\"tier\":\"premium\"}" },
        { "tier", "t-{tier}", true, "\"tags\":{\"tier\":\"t-opaque\"}" },
        { "tier", "{status}", true, NULL },
        { "Tier", "x", true, "\"tags\":{\"tier\":\"opaque\",\"Tier\":\"x\"}" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        route.tags.count = 0;
        if (cases[i].name)
            tag(cases[i].name, cases[i].value);
        rec.opaque = cases[i].opaque;
        rec.status = 0;
        const char *got = sample_of("", 0);
        if (cases[i].want ? !strstr(got, cases[i].want) : strstr(got, "tags") != NULL)
            fail_msg("case %zu: %s", i, got);
    }
}

static void tag_templates_are_filled_in(void **state)
{
    (void)state;
    static const struct {
        const char *template;
        uint16_t status;
        bool opaque;
        const char *want; /* NULL: the tag is left out */
    } cases[] = {
        { "{status}", 503, false, "503" },
        { "{status}", 0, false, NULL },
        { "s{status}", 0, false, "s" },
        { "{method}", 200, false, "GET" },
        { "{host}", 200, false, "api.example:8443" },
        { "{outcome}", 200, false, "success" },
        { "{tier}", 200, false, "http" },
        { "{tier}", 200, true, "opaque" },
        { "{route}", 200, false, "payments" },
        { "{instance}", 200, false, "pod-7" },
        { "{method} {host}/{status}!", 200, false, "GET api.example:8443/200!" },
        { "{nothing}", 200, false, "{nothing}" },
        { "{status", 200, false, "{status" },
        { "{{status}}", 200, false, "{200}" },
        { "{}", 200, false, "{}" },
        { "plain", 200, false, "plain" },
        { "", 200, false, NULL },
    };
    tag("t", NULL);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        tags[0].value = (char *)cases[i].template;
        rec.status = cases[i].status;
        rec.opaque = cases[i].opaque;
        cJSON *json = cJSON_Parse(sample_of("api.example:8443", 0));
        const char *got =
            cJSON_GetStringValue(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "tags"), "t"));
        if ((got == NULL) != (cases[i].want == NULL) || (got && strcmp(got, cases[i].want) != 0))
            fail_msg("\"%s\": got \"%s\"", cases[i].template, got ? got : "(left out)");
        cJSON_Delete(json);
    }
}

static void the_rule_that_decided_is_a_placeholder(void **state)
{
    (void)state;
    static struct response_rule headers[] = { { .name = (char *)"quota" } };
    static struct response_rule body[] = { { .name = (char *)"app" } };
    static const struct {
        unsigned rule;
        const char *want;
    } cases[] = {
        { RULE_STATUS, "\"tags\":{\"in\":\"by status\",\"bare\":\"status\"}" },
        { RULE_SLOWER_THAN, "\"tags\":{\"in\":\"by slower_than\",\"bare\":\"slower_than\"}" },
        { RULE_HEADERS, "\"tags\":{\"in\":\"by quota\",\"bare\":\"quota\"}" },
        { RULE_BODY, "\"tags\":{\"in\":\"by app\",\"bare\":\"app\"}" },
        { RULE_NONE, "\"tags\":{\"in\":\"by \"}" },
    };
    route.failure.headers = (struct rule_list){ headers, 1 };
    route.failure.body = (struct rule_list){ body, 1 };
    tag("in", "by {rule}");
    tag("bare", "{rule}");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        rec.rule = (uint8_t)cases[i].rule;
        if (!strstr(sample_of("", 0), cases[i].want))
            fail_msg("want %s, got %s", cases[i].want, sample_of("", 0));
    }
}

static void empty_tags_leave_no_trace(void **state)
{
    (void)state;
    tag("a", "{status}");
    tag("b", "x");
    tag("c", "{status}");
    rec.status = 0;
    assert_non_null(strstr(sample_of("", 0), ",\"ok\":true,\"tags\":{\"b\":\"x\"}}"));
    route.tags.count = 1;
    assert_null(strstr(sample_of("", 0), "tags"));
}

static void the_router_may_be_the_host(void **state)
{
    (void)state;
    route.router = "{host}";
    assert_non_null(strstr(sample_of("a.example", 0), "{\"router_id\":\"a.example\","));
    assert_string_equal(sample_of("", 0), "no router");
    route.router = NULL;
    assert_string_equal(sample_of("a.example", 0), "no router");
}

static void values_are_written_exactly(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *want;
    } cases[] = {
        { 0, "0" },
        { 1, "1" },
        { 245.5, "245.5" },
        { 0.001, "0.001" },
        { 12.34, "12.34" },
        { 12.345, "12.345" },
        { 1234567.089, "1234567.089" },
        { 999999999999.0, "999999999999" },
        { 12.3456, "12.3456" },
        { -3, "-3" },
        { -2.5, "-2.5" },
        { 1e12, "1000000000000" },
        { 1e-7, NULL },
        { 1e300, NULL },
        { 0.1 + 0.2, NULL },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        rec.values[0] = cases[i].value;
        const char *text = strstr(sample_of("", 0), "\"value\":") + strlen("\"value\":");
        size_t len = strcspn(text, ",");
        if (cases[i].want &&
            (strlen(cases[i].want) != len || memcmp(text, cases[i].want, len) != 0))
            fail_msg("%.17g: got %.*s", cases[i].value, (int)len, text);
        double back = strtod(text, NULL);
        if (back < cases[i].value || back > cases[i].value)
            fail_msg("%.17g: reads back as %.17g", cases[i].value, back);
    }
}

static void random_values_read_back_unchanged(void **state)
{
    (void)state;
    struct prng rng;
    prng_seed_fixed(&rng, 3);
    for (unsigned i = 0; i < 20000; i++) {
        double scale = pow(10, (double)(prng_u32(&rng) % 15));
        double value = prng_unit(&rng) * scale;
        if (i % 2)
            value = nearbyint(value * 1000) / 1000;
        rec.values[0] = value;
        double back = strtod(strstr(sample_of("", 0), "\"value\":") + strlen("\"value\":"), NULL);
        if (back < value || back > value)
            fail_msg("%.17g reads back as %.17g", value, back);
    }
}

static void a_metric_without_a_number_is_absent(void **state)
{
    (void)state;
    route.metrics[1].name = "first_byte";
    route.metrics[2].name = "connect";
    route.metric_count = 3;
    rec.values[0] = NAN;
    rec.values[1] = INFINITY;
    rec.values[2] = 1;
    assert_string_equal(sample_of("", 0), "absent");
    assert_string_equal(sample_of("", 1), "absent");
    assert_non_null(strstr(sample_of("", 2), "\"metric\":\"connect\""));
    assert_string_equal(sample_of("", 3), "absent"); /* beyond the last */
}

static void a_sample_over_its_limit_is_refused(void **state)
{
    (void)state;
    char *big = malloc(SAMPLE_MAX + 1);
    memset(big, 'x', SAMPLE_MAX);
    big[SAMPLE_MAX] = '\0';
    tag("big", big);
    assert_string_equal(sample_of("", 0), "too large");
    big[SAMPLE_MAX - 200] = '\0';
    assert_non_null(strstr(sample_of("", 0), "xxx\"}}"));
    tags[0].value = (char *)"{host}{host}"; /* too large only once it is filled in */
    big[SAMPLE_MAX - 200] = 'x';
    assert_string_equal(sample_of(big, 0), "too large");
    free(big);
}

/* ---- the queue ---- */

static void a_queue_gives_back_what_went_in_oldest_first(void **state)
{
    (void)state;
    struct queue q = { 0 };
    struct queue_sample s;
    char text[3000];
    memset(text, 'q', sizeof(text));
    assert_false(queue_peek(&q, &s));
    queue_pop(&q); /* nothing there: harmless */
    unsigned in = 0, out = 0;
    struct prng rng;
    prng_seed_fixed(&rng, 5);
    while (out < 5000) {
        if (in < 5000 && prng_u32(&rng) % 3) {
            memcpy(text, &in, sizeof(in));
            assert_true(queue_push(&q, text, sizeof(in) + in % 2900, in, in % 3 == 0));
            in++;
            continue;
        }
        if (!queue_peek(&q, &s))
            continue;
        unsigned got;
        memcpy(&got, s.text, sizeof(got));
        if (got != out || s.len != sizeof(out) + out % 2900 || s.at_ms != out ||
            s.urgent != (out % 3 == 0))
            fail_msg("sample %u came out as %u", out, got);
        queue_pop(&q);
        out++;
        assert_int_equal(q.count, in - out);
    }
    assert_int_equal(q.urgent, 0);
    assert_null(q.first); /* an empty queue holds no memory */
    queue_push(&q, "x", 1, 0, true);
    queue_clear(&q);
    assert_int_equal(q.count, 0);
}

/* ---- batches ---- */

static void fill(struct queue *q, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        char text[32];
        int len = snprintf(text, sizeof(text), "{\"n\":%u}", i);
        queue_push(q, text, (size_t)len, 100 + i, i == 3);
    }
}

static void check_numbers(const struct batch *b, unsigned from, unsigned to)
{
    cJSON *root = cJSON_ParseWithLength(b->body.data, b->body.len);
    cJSON *samples = cJSON_GetObjectItem(root, "samples");
    if (cJSON_GetArraySize(samples) != (int)(to - from) || b->count != to - from)
        fail_msg("%d samples in the body, %zu counted, want %u", cJSON_GetArraySize(samples),
                 b->count, to - from);
    for (unsigned i = from; i < to; i++) {
        cJSON *n = cJSON_GetObjectItem(cJSON_GetArrayItem(samples, (int)(i - from)), "n");
        assert_int_equal((unsigned)n->valuedouble, i);
    }
    cJSON_Delete(root);
}

static void a_batch_takes_the_oldest_up_to_its_size(void **state)
{
    (void)state;
    struct queue q = { 0 };
    fill(&q, 0, 10);
    struct batch *b = batch_take(&q, 4);
    check_numbers(b, 0, 4);
    assert_int_equal(b->oldest_ms, 100);
    assert_true(b->urgent);
    batch_free(b);
    b = batch_take(&q, 400);
    check_numbers(b, 4, 10);
    assert_int_equal(b->oldest_ms, 104);
    assert_false(b->urgent);
    assert_int_equal(q.count, 0);
    batch_free(b);
    fill(&q, 0, 1500);
    b = batch_take(&q, 5000);
    check_numbers(b, 0, BATCH_SAMPLES_MAX); /* the server's limit, whatever we ask */
    batch_free(b);
    queue_clear(&q);
}

static void a_batch_stops_at_its_size_in_bytes(void **state)
{
    (void)state;
    struct queue q = { 0 };
    char *text = malloc(QUEUE_SAMPLE_MAX);
    memset(text, 'x', QUEUE_SAMPLE_MAX);
    for (int i = 0; i < 40; i++)
        queue_push(&q, text, QUEUE_SAMPLE_MAX, i, false);
    struct batch *b = batch_take(&q, 1000);
    assert_in_range(b->body.len, BATCH_BYTES_MAX - QUEUE_SAMPLE_MAX, BATCH_BYTES_MAX + 100);
    assert_int_equal(b->count + q.count, 40);
    batch_free(b);
    queue_clear(&q);
    free(text);
}

static void a_split_keeps_every_sample_once_and_in_order(void **state)
{
    (void)state;
    for (unsigned n = 2; n < 40; n++) {
        struct queue q = { 0 };
        fill(&q, 0, n);
        struct batch *b = batch_take(&q, 1000);
        batch_seal(b, true);
        struct batch *rest = batch_split(b);
        assert_null(b->wire); /* it was the whole's */
        check_numbers(b, 0, n / 2);
        check_numbers(rest, n / 2, n);
        assert_int_equal(rest->oldest_ms, b->oldest_ms);
        if (rest->count >= 2) {
            struct batch *last = batch_split(rest);
            check_numbers(rest, n / 2, n / 2 + (n - n / 2) / 2);
            check_numbers(last, n / 2 + (n - n / 2) / 2, n);
            batch_free(last);
        }
        batch_free(rest);
        batch_free(b);
    }
}

static void gzip_unpacks_to_the_body(void **state)
{
    (void)state;
    struct queue q = { 0 };
    fill(&q, 0, 1000);
    struct batch *b = batch_take(&q, 1000);
    assert_int_equal(batch_seal(b, true), 0);
    assert_true(b->gzip && b->wire_len < b->body.len / 2);
    char *plain = malloc(b->body.len + 1);
    z_stream z = { .next_in = (Bytef *)b->wire,
                   .avail_in = (uInt)b->wire_len,
                   .next_out = (Bytef *)plain,
                   .avail_out = (uInt)b->body.len + 1 };
    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    assert_int_equal(z.total_out, b->body.len);
    assert_memory_equal(plain, b->body.data, b->body.len);
    inflateEnd(&z);
    free(plain);
    batch_free(b);
    fill(&q, 0, 3);
    b = batch_take(&q, 3);
    assert_int_equal(batch_seal(b, false), 0);
    assert_int_equal(b->wire_len, b->body.len);
    assert_memory_equal(b->wire, b->body.data, b->body.len);
    batch_free(b);
}

#define KEY_1 "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F"
#define KEY_F "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"

static void signatures_match_an_independent_hmac(void **state)
{
    (void)state;
    char all[256];
    for (size_t i = 0; i < sizeof(all); i++)
        all[i] = (char)i;
    const struct {
        const char *key;
        int64_t ts_ms;
        const char *wire;
        size_t len;
        const char *want;
    } cases[] = {
        { KEY_1, INT64_C(1705312200000), "{\"samples\":[]}", 14,
          "03a97ea05ddc04e56b3fd61827239694942ea544b7972c027cf9e5ce5c5e4c94" },
        { KEY_1, 0, "", 0, "0e80838223869e9517439e639ad55157d90d439a465b4e569e67014750fa80da" },
        { KEY_1, INT64_C(1700000000123), all, sizeof(all),
          "cc82e34b3e05b98872f2c9d79898db465d36c8411e58f8be639fc7a35caa2052" },
        { KEY_F, 1, "x", 1, "5ee8e1874212dc4b650027c60008cc90d3ae7fefb1b008cbaa29f93f1877c7fb" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint8_t key[BATCH_KEY_SIZE];
        char sig[BATCH_SIG_SIZE];
        assert_int_equal(batch_key_parse(cases[i].key, key), 0);
        assert_int_equal(batch_sign(key, cases[i].ts_ms, cases[i].wire, cases[i].len, sig), 0);
        if (strcmp(sig, cases[i].want) != 0)
            fail_msg("case %zu: %s", i, sig);
    }
}

static void a_key_is_64_hex_digits(void **state)
{
    (void)state;
    uint8_t key[BATCH_KEY_SIZE];
    char text[70];
    for (size_t len = 60; len < 68; len++) {
        memset(text, 'a', len);
        text[len] = '\0';
        if ((batch_key_parse(text, key) == 0) != (len == 64))
            fail_msg("%zu digits", len);
    }
    static const char bad[] = "gG/:@`xX \n-.";
    for (size_t i = 0; i < sizeof(bad); i++) {
        memset(text, '0', 64);
        text[64] = '\0';
        text[i * 5] = bad[i];
        if (batch_key_parse(text, key) == 0)
            fail_msg("'%c' taken for a digit", bad[i]);
    }
}

int main(void)
{
#define SAMPLE_TEST(f) cmocka_unit_test_setup(f, set_up)
    const struct CMUnitTest tests[] = {
        SAMPLE_TEST(a_sample_has_the_fields_of_the_wire),
        SAMPLE_TEST(a_tunnel_says_that_it_is_one_unless_a_tag_does),
        SAMPLE_TEST(tag_templates_are_filled_in),
        SAMPLE_TEST(the_rule_that_decided_is_a_placeholder),
        SAMPLE_TEST(empty_tags_leave_no_trace),
        SAMPLE_TEST(the_router_may_be_the_host),
        SAMPLE_TEST(values_are_written_exactly),
        SAMPLE_TEST(random_values_read_back_unchanged),
        SAMPLE_TEST(a_metric_without_a_number_is_absent),
        SAMPLE_TEST(a_sample_over_its_limit_is_refused),
        cmocka_unit_test(a_queue_gives_back_what_went_in_oldest_first),
        cmocka_unit_test(a_batch_takes_the_oldest_up_to_its_size),
        cmocka_unit_test(a_batch_stops_at_its_size_in_bytes),
        cmocka_unit_test(a_split_keeps_every_sample_once_and_in_order),
        cmocka_unit_test(gzip_unpacks_to_the_body),
        cmocka_unit_test(signatures_match_an_independent_hmac),
        cmocka_unit_test(a_key_is_64_hex_digits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
