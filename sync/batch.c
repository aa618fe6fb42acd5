#include "sync/batch.h"
#include "base/base.h"
#include <inttypes.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static const char head[] = "{\"samples\":[";
static const char foot[] = "]}";

static struct batch *batch_new(size_t max)
{
    struct batch *b = xcalloc(1, sizeof(*b));
    b->ends = xcalloc(max, sizeof(*b->ends));
    strbuf_adds(&b->body, head);
    return b;
}

static void add_sample(struct batch *b, const char *text, size_t len)
{
    if (b->count > 0)
        strbuf_addc(&b->body, ',');
    strbuf_add(&b->body, text, len);
    b->ends[b->count++] = (uint32_t)b->body.len;
}

struct batch *batch_take(struct queue *q, size_t max)
{
    if (max > BATCH_SAMPLES_MAX)
        max = BATCH_SAMPLES_MAX;
    struct batch *b = batch_new(max);
    struct queue_sample s;
    while (b->count < max && queue_peek(q, &s)) {
        if (b->count == 0)
            b->oldest_ms = s.at_ms;
        else if (b->body.len + s.len > BATCH_BYTES_MAX)
            break;
        add_sample(b, s.text, s.len);
        b->urgent |= s.urgent;
        queue_pop(q);
    }
    strbuf_adds(&b->body, foot);
    return b;
}

void batch_free(struct batch *b)
{
    if (!b)
        return;
    strbuf_free(&b->body);
    free(b->ends);
    free(b->wire);
    free(b);
}

static void unseal(struct batch *b)
{
    free(b->wire);
    b->wire = NULL;
    b->wire_len = 0;
}

struct batch *batch_split(struct batch *b)
{
    if (BUG(b->count < 2))
        return NULL;
    size_t keep = b->count / 2;
    struct batch *rest = batch_new(b->count - keep);
    rest->oldest_ms = b->oldest_ms;
    rest->urgent = b->urgent;
    for (size_t i = keep; i < b->count; i++) {
        size_t begin = b->ends[i - 1] + 1; /* behind the comma; keep is at least 1 */
        add_sample(rest, b->body.data + begin, b->ends[i] - begin);
    }
    strbuf_adds(&rest->body, foot);
    b->count = keep;
    strbuf_truncate(&b->body, b->ends[keep - 1]);
    strbuf_adds(&b->body, foot);
    unseal(b);
    return rest;
}

static int compress_body(struct batch *b)
{
    z_stream z = { 0 };
    /* 15 + 16: the largest window, gzip framing.  Level 1: samples resemble each other so
     * much that more effort buys little. */
    if (deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return -1;
    size_t room = deflateBound(&z, b->body.len);
    b->wire = xmalloc(room);
    z.next_in = (Bytef *)b->body.data;
    z.avail_in = (uInt)b->body.len;
    z.next_out = (Bytef *)b->wire;
    z.avail_out = (uInt)room;
    int rc = deflate(&z, Z_FINISH);
    b->wire_len = z.total_out;
    deflateEnd(&z);
    if (BUG(rc != Z_STREAM_END)) { /* deflateBound promised the room */
        unseal(b);
        return -1;
    }
    b->wire = xrealloc(b->wire, b->wire_len);
    return 0;
}

int batch_seal(struct batch *b, bool gzip)
{
    if (b->wire)
        return 0;
    b->gzip = gzip;
    if (gzip)
        return compress_body(b);
    b->wire = xstrndup(b->body.data, b->body.len);
    b->wire_len = b->body.len;
    return 0;
}

static void to_hex(const unsigned char *bytes, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * len] = '\0';
}

int batch_sign(const uint8_t key[BATCH_KEY_SIZE], int64_t ts_ms, const char *wire, size_t len,
               char out[BATCH_SIG_SIZE])
{
    char ts[24];
    int ts_len = snprintf(ts, sizeof(ts), "%" PRId64 ".", ts_ms);
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    unsigned char sum[32];
    size_t sum_len = 0;
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
    bool ok = ctx && EVP_MAC_init(ctx, key, BATCH_KEY_SIZE, params) &&
              EVP_MAC_update(ctx, (const unsigned char *)ts, (size_t)ts_len) &&
              EVP_MAC_update(ctx, (const unsigned char *)wire, len) &&
              EVP_MAC_final(ctx, sum, &sum_len, sizeof(sum)) && sum_len == sizeof(sum);
    EVP_MAC_CTX_free(ctx);
    EVP_MAC_free(mac);
    if (!ok)
        return -1;
    to_hex(sum, sizeof(sum), out);
    return 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int batch_key_parse(const char *hex, uint8_t key[BATCH_KEY_SIZE])
{
    if (strlen(hex) != BATCH_KEY_SIZE * 2)
        return -1;
    for (size_t i = 0; i < BATCH_KEY_SIZE; i++) {
        int high = hex_digit(hex[2 * i]);
        int low = hex_digit(hex[2 * i + 1]);
        if (high < 0 || low < 0)
            return -1;
        key[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}
