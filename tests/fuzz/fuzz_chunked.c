/* A chunked body: refused, or the same bytes in whatever pieces it comes; written again it is
 * the same body, and nothing behind it is touched. */
#include "base/strbuf.h"
#include "proxy/http1.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>

struct decoded {
    enum http1_error err;
    bool done;
    size_t used;
    struct strbuf payload;
    char *trailers;
    size_t trailer_len;
};

static void decode(struct decoded *d, const uint8_t *data, size_t len, unsigned way)
{
    struct http1_body b;
    http1_body_init(&b, FRAMING_CHUNKED, 0);
    *d = (struct decoded){ 0 };
    while (d->used < len && !b.done && !d->err) {
        size_t n = fuzz_cut(way, data, len, d->used), used, payload;
        uint8_t *piece = fuzz_copy(data + d->used, n);
        d->err = http1_body_decode(&b, piece, n, &used, &payload);
        if (!d->err) {
            CHECK(used <= n && payload <= used, "used %zu, payload %zu of %zu", used, payload, n);
            CHECK(used == n || b.done, "%zu of %zu bytes and no end", used, n);
            CHECK(memcmp(piece + used, data + d->used + used, n - used) == 0,
                  "bytes behind the body were touched");
            strbuf_add(&d->payload, piece, payload);
            d->used += used;
        }
        free(piece);
    }
    d->done = b.done && !d->err;
    d->trailers = fuzz_copy(b.trailers ? b.trailers : "", b.trailer_len);
    d->trailer_len = b.trailer_len;
    CHECK(b.trailer_len <= HTTP1_TRAILER_MAX, "%u bytes of trailers", b.trailer_len);
    http1_body_free(&b);
}

static void drop(struct decoded *d)
{
    strbuf_free(&d->payload);
    free(d->trailers);
}

static void check_same(const struct decoded *a, const struct decoded *b, const char *how)
{
    CHECK(a->done == b->done, "%s: done %d and %d", how, a->done, b->done);
    CHECK((a->err != 0) == (b->err != 0), "%s: %s and %s", how, http1_error_text(a->err),
          http1_error_text(b->err));
    if (a->err)
        return;
    CHECK(slice_eq((struct slice){ strbuf_str(&a->payload), a->payload.len },
                   (struct slice){ strbuf_str(&b->payload), b->payload.len }),
          "%s: another payload", how);
    CHECK(a->trailer_len == b->trailer_len && memcmp(a->trailers, b->trailers, a->trailer_len) == 0,
          "%s: other trailers", how);
}

/* Chunks of other sizes, as the relay writes them. */
static void encode(const struct decoded *d, unsigned way, struct strbuf *out)
{
    const uint8_t *payload = (const uint8_t *)strbuf_str(&d->payload);
    for (size_t at = 0; at < d->payload.len;) {
        size_t n = fuzz_cut(way, payload, d->payload.len, at);
        strbuf_addf(out, "%zx\r\n", n);
        strbuf_add(out, payload + at, n);
        strbuf_adds(out, "\r\n");
        at += n;
    }
    strbuf_adds(out, "0\r\n");
    strbuf_add(out, d->trailers, d->trailer_len);
    strbuf_adds(out, "\r\n");
}

void fuzz_chunked(const uint8_t *data, size_t len)
{
    struct decoded whole;
    decode(&whole, data, len, 0);
    for (unsigned way = 1; way < FUZZ_CUTS; way++) {
        struct decoded cut;
        decode(&cut, data, len, way);
        check_same(&whole, &cut, "in pieces");
        CHECK(whole.err || cut.used == whole.used, "used %zu and %zu", cut.used, whole.used);
        drop(&cut);
    }
    for (unsigned way = 0; whole.done && way < FUZZ_CUTS; way++) {
        struct strbuf text = STRBUF_INIT;
        struct decoded back;
        encode(&whole, way, &text);
        decode(&back, (const uint8_t *)strbuf_str(&text), text.len, FUZZ_CUTS - 1 - way);
        check_same(&whole, &back, "written again");
        CHECK(back.used == text.len, "%zu of %zu bytes", back.used, text.len);
        strbuf_free(&text);
        drop(&back);
    }
    drop(&whole);
}
