/* A response head: refused, or passed on as one head that can be read in one way only. */
#include "proxy/http1.h"
#include "proxy/rewrite.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/strict.h"
#include <stdlib.h>

static struct http1_head head, again;
static struct strict_head source, seen;

/* As a reader of the narrowest kind frames what came (RFC 9112 6.3). */
static void check_reading(const struct http1_head *h, bool no_body)
{
    bool bodyless = no_body || h->status < 200 || h->status == 204 || h->status == 304;
    if (bodyless) {
        CHECK(h->framing == FRAMING_NONE, "a body where none can be");
        return;
    }
    if (source.codings > 0)
        CHECK(h->framing == FRAMING_CHUNKED, "chunked was not seen");
    else if (source.lengths > 0)
        CHECK(h->framing == FRAMING_LENGTH && h->content_length == source.length,
              "the length was not seen");
    else
        CHECK(h->framing == FRAMING_CLOSE, "a length from nowhere");
}

static void check_framing(const struct http1_head *h, const struct rewrite_response *o)
{
    CHECK(seen.lengths + seen.codings <= 1, "%zu lengths and %zu codings", seen.lengths,
          seen.codings);
    CHECK((seen.codings == 1) == o->chunked, "%zu codings", seen.codings);
    if (h->framing == FRAMING_LENGTH)
        CHECK(seen.lengths == 1 && seen.length == h->content_length, "another length");
    if (h->framing == FRAMING_CLOSE || h->framing == FRAMING_CHUNKED)
        CHECK(seen.lengths == 0, "a length beside another framing");
    if (h->status < 200 || h->status == 204)
        CHECK(seen.lengths == 0, "a length on a %u", h->status); /* RFC 9110 8.6 */
}

/* No field that speaks of one connection only passes, whatever else stands in the head. */
static void check_hops(const struct http1_head *h, const struct rewrite_response *o)
{
    CHECK(!strict_find(&seen, "keep-alive").p, "Keep-Alive passed");
    CHECK(!strict_find(&seen, "proxy-connection").p, "Proxy-Connection passed");
    for (size_t i = 0; i < seen.count; i++) {
        struct slice name = seen.fields[i].name, value = seen.fields[i].value;
        if (slice_eq_nocase(name, SLICE("connection"))) {
            bool want = o->close ? slice_eq(value, SLICE("close"))
                                 : o->upgrade && slice_eq(value, SLICE("Upgrade"));
            CHECK(want, "a Connection that is not ours");
        }
        if (slice_eq_nocase(name, SLICE("upgrade")))
            CHECK(o->upgrade && h->upgrade, "Upgrade passed");
    }
}

static void check_again(const struct http1_head *h, const struct rewrite_response *o,
                        const char *out, size_t len, bool no_body)
{
    enum http1_error err = http1_parse_response(&again, out, len, HTTP1_FIELDS_MAX, no_body);
    if (err == HTTP1_TOO_MANY_FIELDS)
        return;
    CHECK(err == HTTP1_OK, "what was written is refused: %s", http1_error_text(err));
    enum http1_framing want = h->framing;
    if (want == FRAMING_CHUNKED && !o->chunked)
        want = FRAMING_CLOSE;
    CHECK(again.framing == want, "framing %d, want %d", (int)again.framing, (int)want);
    CHECK(slice_eq(again.reason, h->reason), "another reason");
}

static void pass_on(const struct http1_head *h, size_t head_len, const struct rewrite_response *o,
                    bool no_body)
{
    size_t bound = rewrite_bound(h, head_len, o->via, (struct slice){ "", 0 });
    uint8_t *out = malloc(bound);
    size_t n = rewrite_response(h, o, out, bound);
    char *text = fuzz_copy(out, n);
    unsigned status;
    free(out);
    const char *wrong = strict_read(&seen, text, n);
    CHECK(!wrong, "what was written has %s", wrong);
    wrong = strict_status_line(seen.start, &status);
    CHECK(!wrong, "what was written has %s", wrong);
    CHECK(status == h->status, "another status");
    check_framing(h, o);
    check_hops(h, o);
    check_again(h, o, text, n, no_body);
    free(text);
}

static void read_and_pass(const char *text, size_t end, bool no_body)
{
    enum http1_error err = http1_parse_response(&head, text, end, 100, no_body);
    if (err) {
        CHECK(*http1_error_text(err) != '?', "error %d has no text", (int)err);
        return;
    }
    CHECK(!http1_response_hopeless(text, end), "a head that was called hopeless");
    if (!strict_read(&source, text, end))
        check_reading(&head, no_body);
    bool close = head.framing == FRAMING_CLOSE, chunked = head.framing == FRAMING_CHUNKED;
    struct rewrite_response o = { .chunked = chunked, .close = close };
    pass_on(&head, end, &o, no_body);
    if (chunked) /* to an HTTP/1.0 client */
        pass_on(&head, end, &(struct rewrite_response){ .close = true }, no_body);
    o.via = "proxy.example";
    pass_on(&head, end, &o, no_body);
    if (head.status == 101 && head.upgrade)
        pass_on(&head, end, &(struct rewrite_response){ .upgrade = true }, no_body);
}

void fuzz_response_head(const uint8_t *data, size_t len)
{
    size_t scanned = 0, end;
    if (http1_find_end((const char *)data, len, &scanned, &end) != 1)
        return;
    char *text = fuzz_copy(data, end);
    read_and_pass(text, end, false);
    read_and_pass(text, end, true);
    free(text);
}
