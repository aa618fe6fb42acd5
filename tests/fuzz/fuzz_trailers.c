/* A trailer section: refused, or passed on without what frames, routes or authenticates. */
#include "base/strbuf.h"
#include "proxy/http1.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/strict.h"
#include <stdlib.h>

static struct strict_head seen;

static void check_lines(const char *out, size_t len)
{
    static const char *const forbidden[] = {
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "max-forwards",
        "proxy-connection",
        "proxy-authorization",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "www-authenticate",
    };
    const char *wrong = strict_fields(&seen, out, len);
    CHECK(!wrong, "the trailers have %s", wrong);
    for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
        CHECK(!strict_find(&seen, forbidden[i]).p, "%s passed in a trailer", forbidden[i]);
}

void fuzz_trailers(const uint8_t *data, size_t len)
{
    struct http1_body b;
    struct strbuf text = STRBUF_INIT;
    size_t used, payload;
    strbuf_adds(&text, "0\r\n");
    strbuf_add(&text, data, len);
    strbuf_adds(&text, "\r\n");
    http1_body_init(&b, FRAMING_CHUNKED, 0);
    enum http1_error err = http1_body_decode(&b, (uint8_t *)text.data, text.len, &used, &payload);
    if (!err && b.done) {
        char *out = malloc(b.trailer_len ? b.trailer_len : 1);
        size_t n = 0;
        err = http1_body_trailers(&b, out, &n);
        CHECK(n <= b.trailer_len, "%zu bytes out of %u", n, b.trailer_len);
        if (!err)
            check_lines(out, n);
        free(out);
    }
    http1_body_free(&b);
    strbuf_free(&text);
}
