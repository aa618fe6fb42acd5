/* Message bodies: framing taken out, whatever the pieces they come in. */
#include "proxy/http1.h"

#include "base/base.h"
#include "base/prng.h"
#include "base/strbuf.h"
#include "tests/unit/show.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What came out of a body that was read in pieces. */
struct reading {
    enum http1_error error;
    bool done;
    size_t used; /* of the whole input */
    struct strbuf payload;
    char trailers[HTTP1_TRAILER_MAX];
    size_t trailer_len;
    enum http1_error trailer_error;
};

/* Pieces end at first, and then after every step bytes; each in memory of its own. */
static void read_body(struct reading *r, enum http1_framing framing, uint64_t length,
                      struct slice in, size_t first, size_t step)
{
    struct http1_body b;

    *r = (struct reading){ 0 };
    http1_body_init(&b, framing, length);
    for (size_t at = 0, end = first; !r->error && !b.done; end += step) {
        size_t n = (end < in.len ? end : in.len) - at, used, payload;
        char *piece = copy_of((struct slice){ in.p + at, n });
        r->error = http1_body_decode(&b, (uint8_t *)piece, n, &used, &payload);
        if (!r->error) {
            if (payload > used || used > n || (used < n && !b.done))
                fail_msg("\"%s\": %zu bytes of payload, %zu used of %zu, done %d", show(in),
                         payload, used, n, b.done);
            if (memcmp(piece + used, in.p + at + used, n - used) != 0)
                fail_msg("\"%s\": the bytes behind the body were moved", show(in));
            strbuf_add(&r->payload, piece, payload);
            r->used += used;
        }
        free(piece);
        at += n;
        if (at == in.len)
            break;
    }
    r->done = b.done && !r->error;
    if (r->done)
        r->trailer_error = http1_body_trailers(&b, r->trailers, &r->trailer_len);
    http1_body_free(&b);
}

struct body_case {
    struct slice in;
    struct slice payload;
    struct slice rest; /* behind the body: the next message */
    struct slice trailers;
};

static void expect_body(const struct body_case *c, enum http1_framing framing, uint64_t length,
                        size_t first, size_t step)
{
    struct reading r;

    read_body(&r, framing, length, c->in, first, step);
    struct slice payload = { strbuf_str(&r.payload), r.payload.len };
    struct slice trailers = { r.trailers, r.trailer_len };
    if (r.error || !r.done || r.trailer_error)
        fail_msg("\"%s\" in pieces of %zu, then %zu: %s, done %d, trailers %s", show(c->in), first,
                 step, http1_error_text(r.error), r.done, http1_error_text(r.trailer_error));
    if (!slice_eq(payload, c->payload) || !slice_eq(trailers, c->trailers) ||
        r.used != c->in.len - c->rest.len)
        fail_msg("\"%s\" in pieces of %zu, then %zu: payload \"%s\", trailers \"%s\", %zu used",
                 show(c->in), first, step, show(payload), show(trailers), r.used);
    strbuf_free(&r.payload);
}

static void a_chunked_body_reads_the_same_in_any_pieces(void **state)
{
    (void)state;
    static const struct body_case cases[] = {
        { SLICE("0\r\n\r\n"), SLICE(""), SLICE(""), SLICE("") },
        { SLICE("5\r\nhello\r\n0\r\n\r\n"), SLICE("hello"), SLICE(""), SLICE("") },
        { SLICE("5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"), SLICE("hello!"), SLICE(""), SLICE("") },
        { SLICE("A\r\n0123456789\r\na\r\nabcdefghij\r\n0\r\n\r\n"), SLICE("0123456789abcdefghij"),
          SLICE(""), SLICE("") },
        { SLICE("5\r\n\r\n0\r\n\r\n0\r\n\r\n"), SLICE("\r\n0\r\n"), SLICE(""), SLICE("") },
        { SLICE("5\r\n\0\r\n\xff\0\r\n0\r\n\r\n"), SLICE("\0\r\n\xff\0"), SLICE(""), SLICE("") },
        { SLICE("0\r\n\r\nGET / HTTP/1.1\r\n\r\n"), SLICE(""), SLICE("GET / HTTP/1.1\r\n\r\n"),
          SLICE("") },
        { SLICE("1\r\na\r\n0\r\n\r\n0\r\n\r\n"), SLICE("a"), SLICE("0\r\n\r\n"), SLICE("") },
        /* sizes */
        { SLICE("00005\r\nhello\r\n000\r\n\r\n"), SLICE("hello"), SLICE(""), SLICE("") },
        { SLICE("0000000000000000000000000000000001\r\na\r\n0\r\n\r\n"), SLICE("a"), SLICE(""),
          SLICE("") },
        { SLICE("5 \r\nhello\r\n0\t \r\n\r\n"), SLICE("hello"), SLICE(""), SLICE("") },
        /* extensions */
        { SLICE("5;a\r\nhello\r\n0;b=c\r\n\r\n"), SLICE("hello"), SLICE(""), SLICE("") },
        { SLICE("5;a=\"b;\\\"c\";d\r\nhello\r\n0\r\n\r\n"), SLICE("hello"), SLICE(""), SLICE("") },
        { SLICE("5 ; a\t=\xc3\xa9\r\nhello\r\n0;\r\n\r\n"), SLICE("hello"), SLICE(""), SLICE("") },
        /* trailers */
        { SLICE("0\r\nA: b\r\n\r\n"), SLICE(""), SLICE(""), SLICE("A: b\r\n") },
        { SLICE("1\r\nx\r\n0\r\na:b\r\nA:  c\t\r\nEmpty:\r\n\r\nrest"), SLICE("x"), SLICE("rest"),
          SLICE("a:b\r\nA:  c\t\r\nEmpty:\r\n") },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (size_t first = 0; first <= cases[i].in.len; first++)
            for (size_t step = 1; step <= 4; step++)
                expect_body(&cases[i], FRAMING_CHUNKED, 0, first, step);
}

static void a_malformed_chunk_is_refused_in_any_pieces(void **state)
{
    (void)state;
    static const struct slice cases[] = {
        SLICE("\r\n"),
        SLICE("\n"),
        SLICE(" 5\r\nhello\r\n0\r\n\r\n"),
        SLICE("\t5\r\nhello\r\n0\r\n\r\n"),
        SLICE("+5\r\nhello\r\n0\r\n\r\n"),
        SLICE("-5\r\nhello\r\n0\r\n\r\n"),
        SLICE("0x5\r\nhello\r\n0\r\n\r\n"),
        SLICE("5h\r\nhello\r\n0\r\n\r\n"),
        SLICE("5_0\r\nhello\r\n0\r\n\r\n"),
        SLICE("5,5\r\nhello\r\n0\r\n\r\n"),
        SLICE("g\r\n"),
        SLICE(";a\r\n"),
        SLICE("5 5\r\nhello\r\n0\r\n\r\n"), /* white space, but no extension behind it */
        SLICE("5 a\r\nhello\r\n0\r\n\r\n"),
        SLICE("5\nhello\r\n0\r\n\r\n"),
        SLICE("5\r\rhello\r\n0\r\n\r\n"),
        SLICE("5\rhello\r\n0\r\n\r\n"),
        SLICE("5;a\nhello\r\n0\r\n\r\n"),
        SLICE("5;a\rb\r\nhello\r\n0\r\n\r\n"),
        SLICE("5;a\0b\r\nhello\r\n0\r\n\r\n"),
        SLICE("5;a\x7f\r\nhello\r\n0\r\n\r\n"),
        SLICE("5\0\r\nhello\r\n0\r\n\r\n"),
        SLICE("5\r\nhello0\r\n\r\n"),
        SLICE("5\r\nhello\n0\r\n\r\n"),
        SLICE("5\r\nhello\r0\r\n\r\n"),
        SLICE("5\r\nhello \r\n0\r\n\r\n"),
        SLICE("5\r\nhelloo\r\n0\r\n\r\n"),
        SLICE("5\r\nhell\r\n0\r\n\r\n"),
        SLICE("5\r\nhello\r\n\r\n0\r\n\r\n"),
        SLICE("0\n\n"),
        SLICE("0\r\n\n"),
        SLICE("0\r\n\r\r\n"),
        SLICE("0\r\n\rX"),
        SLICE("0\r\n A: b\r\n\r\n"),
        SLICE("0\r\n\tA: b\r\n\r\n"),
        SLICE("0\r\nA: b\n\r\n"),
        SLICE("0\r\nA: b\rc\r\n\r\n"),
        SLICE("0\r\nA: b\r\n c\r\n\r\n"),
        /* sizes that no counter of 64 bits, or of 63, holds */
        SLICE("10000000000000000\r\n"),
        SLICE("10000000000000005\r\nhello\r\n0\r\n\r\n"),
        SLICE("ffffffffffffffff\r\n"),
        SLICE("fffffffffffffffff\r\n"),
        SLICE("8000000000000000\r\n"),
        SLICE("100000000000000000000000000000000000000\r\n"),
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (size_t first = 0; first <= cases[i].len; first++)
            for (size_t step = 1; step <= 3; step++) {
                struct reading r;
                read_body(&r, FRAMING_CHUNKED, 0, cases[i], first, step);
                if (r.error != HTTP1_BAD_CHUNK)
                    fail_msg("\"%s\" in pieces of %zu, then %zu: %s, done %d", show(cases[i]),
                             first, step, http1_error_text(r.error), r.done);
                strbuf_free(&r.payload);
            }
}

static void a_malformed_chunk_never_leaves_a_body_that_looks_complete(void **state)
{
    (void)state;
    static const struct slice cases[] = { SLICE("0\r\n\rX"), SLICE("0\r\n\r\r\n"), SLICE("x") };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct http1_body b;
        size_t used, payload;
        char *copy = copy_of(cases[i]);
        http1_body_init(&b, FRAMING_CHUNKED, 0);
        assert_int_equal(http1_body_decode(&b, (uint8_t *)copy, cases[i].len, &used, &payload),
                         HTTP1_BAD_CHUNK);
        if (b.done)
            fail_msg("\"%s\": done", show(cases[i]));
        http1_body_free(&b);
        free(copy);
    }
}

static void an_unfinished_chunked_body_is_never_done(void **state)
{
    (void)state;
    struct slice whole = SLICE("5;x\r\nhello\r\n3\r\nabc\r\n0;y\r\nA: b\r\n\r\n");

    for (size_t n = 0; n <= whole.len; n++) {
        struct reading r;
        read_body(&r, FRAMING_CHUNKED, 0, (struct slice){ whole.p, n }, n, 1);
        if (r.error || r.done != (n == whole.len))
            fail_msg("the first %zu bytes: %s, done %d", n, http1_error_text(r.error), r.done);
        strbuf_free(&r.payload);
    }
}

static void each_byte_is_legal_in_a_chunk_line_exactly_where_it_should_be(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        struct reading r;
        char size[] = "00@\r\n"; /* behind a digit; a digit itself makes the size grow */
        size[2] = (char)c;
        bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        bool want = hex || c == ';' || c == ' ' || c == '\t';
        read_body(&r, FRAMING_CHUNKED, 0, (struct slice){ size, 5 }, 5, 1);
        strbuf_free(&r.payload);
        if ((r.error == HTTP1_OK) != want)
            fail_msg("byte %#04x behind a size: %s", c, http1_error_text(r.error));

        char extension[] = "0;a@b\r\n";
        extension[3] = (char)c;
        want = c == '\t' || (c >= ' ' && c != 0x7f);
        read_body(&r, FRAMING_CHUNKED, 0, (struct slice){ extension, 7 }, 7, 1);
        if ((r.error == HTTP1_OK) != want)
            fail_msg("byte %#04x in an extension: %s", c, http1_error_text(r.error));
        strbuf_free(&r.payload);
    }
}

static void huge_chunks_are_announced_up_to_a_size_that_cannot_overflow(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        uint64_t size;
    } cases[] = {
        { "7fffffff\r\n", 0x7fffffff },
        { "80000000\r\n", UINT64_C(0x80000000) },
        { "ffffffff\r\n", UINT64_C(0xffffffff) },
        { "100000000\r\n", UINT64_C(0x100000000) },
        { "ffffffffffffff\r\n", UINT64_C(0xffffffffffffff) },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct http1_body b;
        size_t used, payload;
        char *copy = copy_of(slice_of(cases[i].line));
        http1_body_init(&b, FRAMING_CHUNKED, 0);
        enum http1_error err =
            http1_body_decode(&b, (uint8_t *)copy, strlen(cases[i].line), &used, &payload);
        if (err || b.left != cases[i].size)
            fail_msg("%s: %s, %llu bytes to come", cases[i].line, http1_error_text(err),
                     (unsigned long long)b.left);
        free(copy);
    }
}

/* A chunk line of n bytes with its CR, made of zeros or of an extension. */
static enum http1_error read_chunk_line(size_t n, bool extension)
{
    struct reading r;
    char *line = xmalloc(n + 3);

    memset(line, extension ? 'x' : '0', n);
    line[0] = '0';
    if (extension)
        line[1] = ';';
    memcpy(line + n - 1, "\r\n\r\n", 4);
    read_body(&r, FRAMING_CHUNKED, 0, (struct slice){ line, n + 3 }, n + 3, 1);
    if (!r.error && !r.done)
        fail_msg("a chunk line of %zu bytes: not done", n);
    free(line);
    strbuf_free(&r.payload);
    return r.error;
}

static void chunk_lines_are_bounded(void **state)
{
    (void)state;
    for (int extension = 0; extension < 2; extension++) {
        assert_int_equal(read_chunk_line(HTTP1_CHUNK_LINE_MAX, extension), HTTP1_OK);
        assert_int_equal(read_chunk_line(HTTP1_CHUNK_LINE_MAX + 1, extension), HTTP1_BAD_CHUNK);
        assert_int_equal(read_chunk_line(10 * HTTP1_CHUNK_LINE_MAX, extension), HTTP1_BAD_CHUNK);
    }
}

static void the_bound_of_a_chunk_line_holds_for_each_of_many(void **state)
{
    (void)state;
    struct strbuf in = STRBUF_INIT;
    struct reading r;

    for (int i = 0; i < 50; i++) {
        strbuf_adds(&in, "1;");
        for (int k = 0; k < HTTP1_CHUNK_LINE_MAX - 3; k++)
            strbuf_addc(&in, 'x');
        strbuf_adds(&in, "\r\ny\r\n");
    }
    strbuf_adds(&in, "0\r\n\r\n");
    read_body(&r, FRAMING_CHUNKED, 0, (struct slice){ strbuf_str(&in), in.len }, in.len, 1);
    assert_int_equal(r.error, HTTP1_OK);
    assert_true(r.done);
    assert_int_equal(r.payload.len, 50);
    strbuf_free(&r.payload);
    strbuf_free(&in);
}

static void the_trailer_section_is_bounded_as_a_whole(void **state)
{
    (void)state;
    static const struct {
        size_t bytes;
        enum http1_error want;
    } cases[] = {
        { HTTP1_TRAILER_MAX, HTTP1_OK },
        { HTTP1_TRAILER_MAX + 1, HTTP1_BAD_CHUNK },
        { 3 * HTTP1_TRAILER_MAX, HTTP1_BAD_CHUNK },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (int one_line = 0; one_line < 2; one_line++) {
            struct strbuf in = STRBUF_INIT;
            struct reading r;
            strbuf_adds(&in, "0\r\n");
            size_t left = cases[i].bytes, line = one_line ? left : 64;
            while (left > 0) {
                size_t n = left < 2 * line ? left : line;
                strbuf_adds(&in, "A:");
                for (size_t k = 0; k < n - 4; k++)
                    strbuf_addc(&in, 'v');
                strbuf_adds(&in, "\r\n");
                left -= n;
            }
            strbuf_adds(&in, "\r\n");
            read_body(&r, FRAMING_CHUNKED, 0, (struct slice){ strbuf_str(&in), in.len }, in.len, 1);
            if (r.error != cases[i].want ||
                (!r.error && (r.trailer_error || r.trailer_len != cases[i].bytes)))
                fail_msg("%zu bytes%s: %s, then %s and %zu bytes", cases[i].bytes,
                         one_line ? " in one line" : "", http1_error_text(r.error),
                         http1_error_text(r.trailer_error), r.trailer_len);
            strbuf_free(&r.payload);
            strbuf_free(&in);
        }
    }
}

static void trailers_are_checked_and_never_frame_route_or_authenticate(void **state)
{
    (void)state;
    static const struct {
        struct slice lines;
        bool refused;
        struct slice want;
    } cases[] = {
        { SLICE("A: b\r\nX-Checksum: 1\r\n"), false, SLICE("A: b\r\nX-Checksum: 1\r\n") },
        { SLICE("Via: 1.1 x\r\n"), false, SLICE("Via: 1.1 x\r\n") },
        { SLICE("Content-Length: 5\r\nA: b\r\n"), false, SLICE("A: b\r\n") },
        { SLICE("Transfer-Encoding: chunked\r\nA: b\r\n"), false, SLICE("A: b\r\n") },
        { SLICE("transfer-encoding: gzip\r\n"), false, SLICE("") },
        { SLICE("A: b\r\nHOST: evil\r\n"), false, SLICE("A: b\r\n") },
        { SLICE("Authorization: x\r\nProxy-Authorization: y\r\nWWW-Authenticate: z\r\n"), false,
          SLICE("") },
        { SLICE("Connection: close\r\nKeep-Alive: 1\r\nUpgrade: x\r\nTE: y\r\n"), false,
          SLICE("") },
        { SLICE("Trailer: a\r\nExpect: 100-continue\r\nMax-Forwards: 0\r\n"), false, SLICE("") },
        { SLICE("Content-Type: text/html\r\n"), false, SLICE("") },
        { SLICE("Cookie: a=b\r\nSET-COOKIE: c=d\r\nCookies: 1\r\n"), false,
          SLICE("Cookies: 1\r\n") },
        /* hop-by-hop, named by a Connection among the trailers */
        { SLICE("A: b\r\nConnection: a, x-hop\r\nX-Hop: 1\r\nC: d\r\n"), false, SLICE("C: d\r\n") },
        { SLICE("A : b\r\n"), true, SLICE("") },
        { SLICE(": b\r\n"), true, SLICE("") },
        { SLICE("A\r\n"), true, SLICE("") },
        { SLICE("A(: b\r\n"), true, SLICE("") },
        { SLICE("A: b\0c\r\n"), true, SLICE("") },
        { SLICE("A: b\x7f\r\n"), true, SLICE("") },
        { SLICE("A: b\r\nB: \x01\r\n"), true, SLICE("") },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char in[256];
        struct reading r;
        size_t n = cases[i].lines.len;
        memcpy(in, "0\r\n", 3);
        memcpy(in + 3, cases[i].lines.p, n);
        memcpy(in + 3 + n, "\r\n", 2);
        read_body(&r, FRAMING_CHUNKED, 0, (struct slice){ in, n + 5 }, n + 5, 1);
        bool refused = r.error || r.trailer_error;
        struct slice got = { r.trailers, r.trailer_len };
        if (refused != cases[i].refused || (!refused && !slice_eq(got, cases[i].want)))
            fail_msg("\"%s\": %s %s, \"%s\"", show(cases[i].lines), http1_error_text(r.error),
                     http1_error_text(r.trailer_error), show(got));
        strbuf_free(&r.payload);
    }
}

static void a_body_of_known_length_ends_with_its_last_byte(void **state)
{
    (void)state;
    static const struct {
        uint64_t length;
        struct body_case body;
    } cases[] = {
        { 0, { SLICE("rest"), SLICE(""), SLICE("rest"), SLICE("") } },
        { 1, { SLICE("arest"), SLICE("a"), SLICE("rest"), SLICE("") } },
        { 5, { SLICE("hello"), SLICE("hello"), SLICE(""), SLICE("") } },
        { 5, { SLICE("\r\n0\r\nGET"), SLICE("\r\n0\r\n"), SLICE("GET"), SLICE("") } },
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (size_t first = 0; first <= cases[i].body.in.len; first++)
            for (size_t step = 1; step <= 3; step++)
                expect_body(&cases[i].body, FRAMING_LENGTH, cases[i].length, first, step);
}

static void a_body_of_huge_length_is_not_done_early(void **state)
{
    (void)state;
    struct http1_body b;
    uint8_t data[16] = { 0 };
    size_t used, payload;

    http1_body_init(&b, FRAMING_LENGTH, UINT64_C(0x100000010)); /* 4 GiB and one piece */
    for (uint64_t left = UINT64_C(0x100000010); left > UINT64_C(0x100000000); left -= 16) {
        assert_int_equal(http1_body_decode(&b, data, 16, &used, &payload), HTTP1_OK);
        assert_int_equal(used, 16);
        assert_false(b.done);
    }
    assert_int_equal(b.left, UINT64_C(0x100000000));
    http1_body_free(&b);
}

static void a_body_delimited_by_close_takes_everything_and_is_never_done_by_itself(void **state)
{
    (void)state;
    struct reading r;
    struct slice in = SLICE("0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");

    read_body(&r, FRAMING_CLOSE, 0, in, 3, 2);
    assert_int_equal(r.error, HTTP1_OK);
    assert_false(r.done);
    assert_int_equal(r.used, in.len);
    assert_int_equal(r.payload.len, in.len);
    strbuf_free(&r.payload);
}

static void a_message_without_a_body_uses_no_byte(void **state)
{
    (void)state;
    struct http1_body b;
    uint8_t data[4] = "abc";
    size_t used = 9, payload = 9;

    http1_body_init(&b, FRAMING_NONE, 77);
    assert_true(b.done);
    assert_int_equal(http1_body_decode(&b, data, 4, &used, &payload), HTTP1_OK);
    assert_int_equal(used, 0);
    assert_int_equal(payload, 0);
}

static void what_the_heads_connection_names_is_no_trailer_either(void **state)
{
    (void)state;
    static const struct {
        struct slice lines; /* of the head */
        struct slice want;
    } cases[] = {
        { SLICE("A: b\r\n"), SLICE("X-One: 1\r\nx-two: 2\r\nOne: 3\r\n") },
        { SLICE("Connection: close, keep-alive, TE\r\n"),
          SLICE("X-One: 1\r\nx-two: 2\r\nOne: 3\r\n") },
        { SLICE("Connection: X-ONE\r\n"), SLICE("x-two: 2\r\nOne: 3\r\n") },
        { SLICE("connection: ,X-Two, ,one\r\n"), SLICE("X-One: 1\r\n") },
        { SLICE("Connection: x-one\r\nA: b\r\nCONNECTION: close,x-two\r\n"), SLICE("One: 3\r\n") },
        { SLICE("Proxy-Connection: x-one\r\n"), SLICE("x-two: 2\r\nOne: 3\r\n") },
    };
    static struct http1_head h;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf text = STRBUF_INIT;
        struct http1_body b;
        char body[] = "0\r\nX-One: 1\r\nx-two: 2\r\nOne: 3\r\n\r\n", out[64];
        size_t used, payload, len;
        strbuf_addf(&text, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%.*s\r\n",
                    (int)cases[i].lines.len, cases[i].lines.p);
        assert_int_equal(http1_parse_response(&h, text.data, text.len, 16, false), HTTP1_OK);
        http1_body_init(&b, h.framing, 0);
        http1_body_note_hops(&b, &h);
        strbuf_free(&text); /* the body keeps nothing of the head's bytes */
        assert_int_equal(http1_body_decode(&b, (uint8_t *)body, strlen(body), &used, &payload),
                         HTTP1_OK);
        assert_int_equal(http1_body_trailers(&b, out, &len), HTTP1_OK);
        if (!slice_eq((struct slice){ out, len }, cases[i].want))
            fail_msg("\"%s\": got \"%s\"", show(cases[i].lines), show((struct slice){ out, len }));
        http1_body_free(&b);
    }
}

/* ---- Random bodies ---- */

static void encode(struct prng *prng, const char *data, size_t len, struct strbuf *out)
{
    while (len > 0) {
        size_t n = 1 + prng_u32(prng) % (prng_u32(prng) % 4 ? 40 : 4000);
        n = n < len ? n : len;
        strbuf_addf(out, prng_u32(prng) % 2 ? "%zx" : "%06zX", n);
        if (prng_u32(prng) % 4 == 0)
            strbuf_adds(out, prng_u32(prng) % 2 ? ";ext=\"1\"" : " ;e");
        strbuf_adds(out, "\r\n");
        strbuf_add(out, data, n);
        strbuf_adds(out, "\r\n");
        data += n;
        len -= n;
    }
    strbuf_adds(out, prng_u32(prng) % 2 ? "0\r\n\r\n" : "0\r\nT: 1\r\n\r\n");
}

static void what_was_encoded_is_decoded_whatever_the_chunks_and_the_pieces(void **state)
{
    (void)state;
    struct prng prng;

    prng_seed_fixed(&prng, 7);
    for (unsigned round = 0; round < 3000; round++) {
        char data[3000];
        size_t len = prng_u32(&prng) % (round % 2 ? 40 : sizeof(data));
        for (size_t i = 0; i < len; i++)
            data[i] = prng_u32(&prng) % 3 ? (char)prng_u32(&prng) : "\r\n0;"[prng_u32(&prng) % 4];
        struct strbuf in = STRBUF_INIT, out = STRBUF_INIT;
        encode(&prng, data, len, &in);
        size_t body = in.len;
        strbuf_adds(&in, "NEXT");

        struct http1_body b;
        http1_body_init(&b, FRAMING_CHUNKED, 0);
        for (size_t at = 0; at < in.len && !b.done;) {
            size_t n = 1 + prng_u32(&prng) % (round % 3 ? 9 : 900), used, payload;
            n = n < in.len - at ? n : in.len - at;
            char *piece = copy_of((struct slice){ strbuf_str(&in) + at, n });
            enum http1_error err = http1_body_decode(&b, (uint8_t *)piece, n, &used, &payload);
            if (err)
                fail_msg("round %u: %s at byte %zu", round, http1_error_text(err), at);
            strbuf_add(&out, piece, payload);
            free(piece);
            at += used;
            if (b.done && at != body)
                fail_msg("round %u: ended at byte %zu of %zu", round, at, body);
        }
        if (!b.done || out.len != len || memcmp(strbuf_str(&out), data, len) != 0)
            fail_msg("round %u: done %d, %zu bytes, want %zu", round, b.done, out.len, len);
        http1_body_free(&b);
        strbuf_free(&in);
        strbuf_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chunked_body_reads_the_same_in_any_pieces),
        cmocka_unit_test(a_malformed_chunk_is_refused_in_any_pieces),
        cmocka_unit_test(a_malformed_chunk_never_leaves_a_body_that_looks_complete),
        cmocka_unit_test(an_unfinished_chunked_body_is_never_done),
        cmocka_unit_test(each_byte_is_legal_in_a_chunk_line_exactly_where_it_should_be),
        cmocka_unit_test(huge_chunks_are_announced_up_to_a_size_that_cannot_overflow),
        cmocka_unit_test(chunk_lines_are_bounded),
        cmocka_unit_test(the_bound_of_a_chunk_line_holds_for_each_of_many),
        cmocka_unit_test(the_trailer_section_is_bounded_as_a_whole),
        cmocka_unit_test(trailers_are_checked_and_never_frame_route_or_authenticate),
        cmocka_unit_test(what_the_heads_connection_names_is_no_trailer_either),
        cmocka_unit_test(a_body_of_known_length_ends_with_its_last_byte),
        cmocka_unit_test(a_body_of_huge_length_is_not_done_early),
        cmocka_unit_test(a_body_delimited_by_close_takes_everything_and_is_never_done_by_itself),
        cmocka_unit_test(a_message_without_a_body_uses_no_byte),
        cmocka_unit_test(what_was_encoded_is_decoded_whatever_the_chunks_and_the_pieces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
