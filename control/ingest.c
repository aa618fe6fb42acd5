#include "control/ingest.h"

#include "base/base.h"
#include "base/strbuf.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define SIGNATURE_PREFIX     "v1="
#define SIGNATURE_BYTES      32                 /* HMAC-SHA256 */
#define TIMESTAMP_DIGITS_MAX 15                 /* of milliseconds: the year 33658 */
#define EXACT_INTEGER_MAX    9007199254740991.0 /* 2^53 - 1 */

__attribute__((format(printf, 4, 5))) static int fail(struct ingest_error *err, int status,
                                                      const char *code, const char *fmt, ...)
{
    va_list ap;

    err->status = status;
    err->code = code;
    va_start(ap, fmt);
    vsnprintf(err->message, sizeof(err->message), fmt, ap);
    va_end(ap);
    return -1;
}

/* Signature. */

static int parse_timestamp(const char *s, int64_t *out)
{
    int64_t v = 0;
    size_t len = strlen(s);

    if (len == 0 || len > TIMESTAMP_DIGITS_MAX)
        return -1;
    for (; *s; s++) {
        if (*s < '0' || *s > '9')
            return -1;
        v = v * 10 + (*s - '0');
    }
    *out = v;
    return 0;
}

/* Lower-case hex of HMAC-SHA256 over "<timestamp>.<wire bytes>". */
static int expected_signature(const uint8_t *key, const char *timestamp, const void *wire,
                              size_t len, char hex[2 * SIGNATURE_BYTES + 1])
{
    unsigned char mac[SIGNATURE_BYTES];
    size_t mac_len = sizeof(mac);
    EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, key, INGEST_KEY_BYTES);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = pkey && ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, pkey) == 1 &&
              EVP_DigestSignUpdate(ctx, timestamp, strlen(timestamp)) == 1 &&
              EVP_DigestSignUpdate(ctx, ".", 1) == 1 && EVP_DigestSignUpdate(ctx, wire, len) == 1 &&
              EVP_DigestSignFinal(ctx, mac, &mac_len) == 1 && mac_len == sizeof(mac);

    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(pkey);
    for (size_t i = 0; ok && i < sizeof(mac); i++)
        snprintf(hex + 2 * i, 3, "%02x", mac[i]);
    return ok ? 0 : -1;
}

int ingest_verify(const uint8_t key[INGEST_KEY_BYTES], const char *timestamp, const char *signature,
                  const void *wire, size_t len, int64_t now_wall_ms, struct ingest_error *err)
{
    char want[2 * SIGNATURE_BYTES + 1];
    int64_t ts;

    if (timestamp == NULL || signature == NULL)
        return fail(err, 401, "signature_required", "%s is missing",
                    timestamp == NULL ? "X-EB-Timestamp" : "X-EB-Signature");
    if (parse_timestamp(timestamp, &ts) < 0)
        return fail(err, 401, "invalid_timestamp", "X-EB-Timestamp is not a time in milliseconds");
    if (ts < now_wall_ms - INGEST_SKEW_MS || ts > now_wall_ms + INGEST_SKEW_MS)
        return fail(err, 401, "timestamp_out_of_range",
                    "X-EB-Timestamp is more than 5 minutes from the server's clock");
    if (strncmp(signature, SIGNATURE_PREFIX, strlen(SIGNATURE_PREFIX)) != 0)
        return fail(err, 401, "invalid_signature", "X-EB-Signature does not begin with v1=");
    signature += strlen(SIGNATURE_PREFIX);
    if (expected_signature(key, timestamp, wire, len, want) < 0)
        return fail(err, 401, "invalid_signature", "the signature could not be computed");
    if (strlen(signature) != 2 * SIGNATURE_BYTES ||
        CRYPTO_memcmp(signature, want, 2 * SIGNATURE_BYTES) != 0)
        return fail(err, 401, "invalid_signature", "X-EB-Signature does not fit the body");
    return 0;
}

/* Compression. */

static int gunzip(const void *wire, size_t len, struct strbuf *body, struct ingest_error *err)
{
    char block[16384];
    z_stream z = { .next_in = (Bytef *)wire, .avail_in = (uInt)len };
    int rc = inflateInit2(&z, 16 + MAX_WBITS); /* gzip only */

    while (rc == Z_OK) {
        z.next_out = (Bytef *)block;
        z.avail_out = sizeof(block);
        rc = inflate(&z, Z_NO_FLUSH);
        if (body->len + sizeof(block) - z.avail_out > INGEST_BODY_MAX) {
            inflateEnd(&z);
            return fail(err, 413, "body_too_large", "the body is over %zu bytes when unpacked",
                        INGEST_BODY_MAX);
        }
        if (rc == Z_OK || rc == Z_STREAM_END)
            strbuf_add(body, block, sizeof(block) - z.avail_out);
    }
    inflateEnd(&z);
    if (rc != Z_STREAM_END || z.avail_in > 0)
        return fail(err, 400, "invalid_gzip", "the body is not one whole gzip stream");
    return 0;
}

int ingest_unpack(const char *encoding, const void *wire, size_t len, struct strbuf *body,
                  struct ingest_error *err)
{
    if (len > INGEST_WIRE_MAX)
        return fail(err, 413, "body_too_large", "the body is over %zu bytes", INGEST_WIRE_MAX);
    if (encoding && strcasecmp(encoding, "gzip") == 0)
        return gunzip(wire, len, body, err);
    if (encoding && *encoding && strcasecmp(encoding, "identity") != 0)
        return fail(err, 415, "unsupported_encoding", "Content-Encoding must be gzip or absent");
    strbuf_add(body, wire, len);
    return 0;
}

/* JSON. */

/* Counts values before anything is allocated for them: a tree costs some 40 times its text. */
static int fence_json(const char *body, size_t len, struct ingest_error *err)
{
    size_t values = 1;
    unsigned depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < len; i++) {
        char c = body[i];

        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        switch (c) {
        case '"':
            in_string = true;
            break;
        case '{':
        case '[':
            depth++;
            values++;
            break;
        case '}':
        case ']':
            depth -= depth > 0;
            break;
        case ',':
            values++;
            break;
        default:
            break;
        }
        if (depth > INGEST_DEPTH_MAX)
            return fail(err, 400, "malformed", "the JSON is nested more than %d deep",
                        INGEST_DEPTH_MAX);
        if (values > INGEST_VALUES_MAX)
            return fail(err, 413, "body_too_large", "the JSON holds more than %d values",
                        INGEST_VALUES_MAX);
    }
    return 0;
}

static bool only_space(const char *p, const char *end)
{
    for (; p < end; p++) {
        if (strchr(" \t\r\n", *p) == NULL || *p == '\0')
            return false;
    }
    return true;
}

cJSON *ingest_json(const char *body, size_t len, struct ingest_error *err)
{
    const char *end = NULL;
    cJSON *root;

    if (fence_json(body, len, err) < 0)
        return NULL;
    root = cJSON_ParseWithLengthOpts(body, len, &end, false);
    if (root && only_space(end, body + len))
        return root;
    cJSON_Delete(root);
    fail(err, 400, "malformed", "the body is not JSON");
    return NULL;
}

/* A bare array is allowed beside the object (PROTOCOL section 4). */
static const cJSON *find_samples(const cJSON *root)
{
    const cJSON *list =
        cJSON_IsObject(root) ? cJSON_GetObjectItemCaseSensitive(root, "samples") : root;

    return cJSON_IsArray(list) ? list : NULL;
}

static const cJSON *field(const cJSON *sample, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(sample, name);
}

static int read_ts(const cJSON *item, size_t i, int64_t now, int64_t *out, struct ingest_error *err)
{
    double v = cJSON_IsNumber(item) ? item->valuedouble : NAN;

    if (!(fabs(v) <= EXACT_INTEGER_MAX) || v != floor(v))
        return fail(err, 422, "invalid_ts_ms", "samples[%zu].ts_ms must be an integer", i);
    *out = (int64_t)v;
    if (*out < now - INGEST_AGE_MAX_MS)
        return fail(err, 422, "ts_ms_too_old", "samples[%zu].ts_ms is over 24 hours old", i);
    if (*out > now + INGEST_SKEW_MS)
        return fail(err, 422, "ts_ms_in_future", "samples[%zu].ts_ms is over 5 minutes ahead", i);
    return 0;
}

static int check_extras(const cJSON *sample, size_t i, struct ingest_error *err)
{
    const cJSON *tags = field(sample, "tags");
    const cJSON *trace = field(sample, "trace_id");
    const cJSON *tag;

    if (tags && !cJSON_IsObject(tags) && !cJSON_IsNull(tags))
        return fail(err, 422, "invalid_tags", "samples[%zu].tags must be an object", i);
    cJSON_ArrayForEach(tag, tags)
    {
        if (!cJSON_IsString(tag))
            return fail(err, 422, "invalid_tags", "samples[%zu].tags must hold strings", i);
    }
    if (trace && !cJSON_IsString(trace) && !cJSON_IsNull(trace))
        return fail(err, 422, "invalid_trace_id", "samples[%zu].trace_id must be a string", i);
    return 0;
}

static int read_sample(const cJSON *item, size_t i, int64_t now, ingest_knows_router *knows,
                       const void *arg, struct ingest_sample *out, struct ingest_error *err)
{
    const cJSON *router = field(item, "router_id");
    const cJSON *metric = field(item, "metric");
    const cJSON *value = field(item, "value");
    const cJSON *ok = field(item, "ok");

    if (!cJSON_IsObject(item))
        return fail(err, 400, "malformed", "samples[%zu] must be an object", i);
    if (!cJSON_IsString(router) || *router->valuestring == '\0')
        return fail(err, 422, "invalid_router_id", "samples[%zu].router_id must be a string", i);
    if (!knows(arg, router->valuestring))
        return fail(err, 422, "invalid_router_id", "samples[%zu].router_id is not known", i);
    if (!cJSON_IsString(metric) || *metric->valuestring == '\0')
        return fail(err, 422, "invalid_metric", "samples[%zu].metric must be a string", i);
    if (read_ts(field(item, "ts_ms"), i, now, &out->ts_ms, err) < 0)
        return -1;
    if (!cJSON_IsNumber(value) || !isfinite(value->valuedouble))
        return fail(err, 422, "invalid_value", "samples[%zu].value must be a number", i);
    if (!cJSON_IsBool(ok))
        return fail(err, 422, "invalid_ok", "samples[%zu].ok must be true or false", i);
    if (check_extras(item, i, err) < 0)
        return -1;
    out->router_id = router->valuestring;
    out->metric = metric->valuestring;
    out->value = value->valuedouble;
    out->ok = cJSON_IsTrue(ok);
    return 0;
}

static int read_samples(struct ingest_batch *batch, int64_t now, ingest_knows_router *knows,
                        const void *arg, struct ingest_error *err)
{
    const cJSON *list = find_samples(batch->root);
    const cJSON *item;
    size_t i = 0;

    if (list == NULL)
        return fail(err, 400, "malformed", "there is no array of samples");
    batch->count = (size_t)cJSON_GetArraySize(list);
    if (batch->count > INGEST_SAMPLES_MAX)
        return fail(err, 413, "too_many_samples", "%zu samples, at most %d are taken at once",
                    batch->count, INGEST_SAMPLES_MAX);
    batch->samples = xcalloc(batch->count + 1, sizeof(*batch->samples));
    cJSON_ArrayForEach(item, list)
    {
        if (read_sample(item, i, now, knows, arg, &batch->samples[i], err) < 0)
            return -1;
        i++;
    }
    return 0;
}

int ingest_parse(const char *body, size_t len, int64_t now_wall_ms, ingest_knows_router *knows,
                 const void *arg, struct ingest_batch *batch, struct ingest_error *err)
{
    size_t lost;

    *batch = (struct ingest_batch){ 0 };
    batch->root = ingest_json(body, len, err);
    if (batch->root == NULL)
        return -1;
    if (read_samples(batch, now_wall_ms, knows, arg, err) == 0)
        return 0;
    lost = batch->count;
    ingest_free(batch);
    batch->count = lost;
    return -1;
}

void ingest_free(struct ingest_batch *batch)
{
    cJSON_Delete(batch->root);
    free(batch->samples);
    *batch = (struct ingest_batch){ 0 };
}
