/* A request head: refused, or forwarded as one head that can be read in one way only. */
#include "proxy/authority.h"
#include "proxy/http1.h"
#include "proxy/rewrite.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/strict.h"
#include <stdlib.h>

static struct http1_head head, again;
static struct strict_head seen;

/* The end of the head is found at the same place whatever pieces it comes in. */
static int find_end(const uint8_t *data, size_t len, size_t *end)
{
    size_t scanned = 0;
    int found = http1_find_end((const char *)data, len, &scanned, end);
    for (unsigned way = 1; way < FUZZ_CUTS; way++) {
        size_t at = 0, seen_end = 0;
        int seen_found = 0;
        scanned = 0;
        while (at < len && seen_found == 0) {
            at += fuzz_cut(way, data, len, at);
            seen_found = http1_find_end((const char *)data, at, &scanned, &seen_end);
        }
        CHECK(seen_found == found, "cut in way %u: %d, in one piece: %d", way, seen_found, found);
        CHECK(found != 1 || seen_end == *end, "cut in way %u: %zu, in one piece: %zu", way,
              seen_end, *end);
    }
    return found;
}

static bool hop_by_name(const struct http1_head *h, struct slice name)
{
    static const struct slice always[] = {
        SLICE("connection"), SLICE("keep-alive"), SLICE("proxy-connection"),
        SLICE("te"),         SLICE("upgrade"),    SLICE("proxy-authorization"),
    };
    for (size_t i = 0; i < sizeof(always) / sizeof(always[0]); i++)
        if (slice_eq_nocase(name, always[i]))
            return true;
    if (slice_eq_nocase(name, SLICE("expect")))
        return false; /* cannot be named away */
    for (size_t i = 0; i < h->field_count; i++) {
        const struct http1_field *f = &h->fields[i];
        if (slice_eq_nocase(f->name, SLICE("connection")) ||
            slice_eq_nocase(f->name, SLICE("proxy-connection")))
            if (http1_list_has(f->value, name))
                return true;
    }
    return false;
}

static bool ours(struct slice name)
{
    return slice_eq_nocase(name, SLICE("host")) || slice_eq_nocase(name, SLICE("content-length")) ||
           slice_eq_nocase(name, SLICE("transfer-encoding"));
}

/* End-to-end fields: all of them, in order, byte for byte. */
static void check_fields(const struct http1_head *h, const struct rewrite_request *o)
{
    size_t at = 0;
    for (size_t i = 0; i < h->field_count; i++) {
        const struct http1_field *f = &h->fields[i];
        if (ours(f->name) || hop_by_name(h, f->name))
            continue;
        while (at < seen.count &&
               (ours(seen.fields[at].name) || (o->upgrade && hop_by_name(h, seen.fields[at].name))))
            at++;
        CHECK(at < seen.count, "field %zu is lost", i);
        CHECK(slice_eq(seen.fields[at].name, f->name) || f == h->max_forwards,
              "field %zu: another name", i);
        CHECK(slice_eq(seen.fields[at].value, f->value) || f == h->max_forwards,
              "field %zu: another value", i);
        at++;
    }
    for (; at < seen.count; at++)
        CHECK(ours(seen.fields[at].name) || (o->via && at + 1 == seen.count) ||
                  (o->upgrade && hop_by_name(h, seen.fields[at].name)),
              "field %zu was not there", at);
}

static void check_target(const struct http1_head *h, const struct rewrite_request *o)
{
    struct slice method, target;
    const char *wrong = strict_request_line(seen.start, &method, &target);
    CHECK(!wrong, "%s", wrong);
    CHECK(slice_eq(method, h->method), "another method");
    if (o->path.len > 0 && o->path.p[0] == '/') {
        CHECK(slice_eq(target, o->path), "another path");
    } else if (o->path.len > 0) {
        CHECK(target.p[0] == '/' &&
                  slice_eq((struct slice){ target.p + 1, target.len - 1 }, o->path),
              "another query");
    } else {
        CHECK(target.len == 1 && (target.p[0] == '/' || target.p[0] == '*'), "another path");
    }
}

static void check_framing(const struct http1_head *h)
{
    CHECK(seen.hosts == 1, "%zu Host lines", seen.hosts);
    switch (h->framing) {
    case FRAMING_NONE:
        CHECK(seen.lengths == 0 && seen.codings == 0, "framing of a message without a body");
        break;
    case FRAMING_LENGTH:
        CHECK(seen.lengths == 1 && seen.codings == 0, "%zu lengths and %zu codings", seen.lengths,
              seen.codings);
        CHECK(seen.length == h->content_length, "another length");
        break;
    case FRAMING_CHUNKED:
        CHECK(seen.codings == 1 && seen.lengths == 0, "%zu codings and %zu lengths", seen.codings,
              seen.lengths);
        break;
    case FRAMING_CLOSE:
        CHECK(false, "a request cannot end with the connection");
        break;
    }
}

/* What leaves, read by ourselves once more. */
static void check_again(const struct http1_head *h, const char *out, size_t len)
{
    enum http1_error err = http1_parse_request(&again, out, len, HTTP1_FIELDS_MAX);
    if (err == HTTP1_TOO_MANY_FIELDS)
        return; /* ours came on top */
    CHECK(err == HTTP1_OK, "what was written is refused: %s", http1_error_text(err));
    CHECK(slice_eq(again.method, h->method), "another method");
    CHECK(again.framing == h->framing, "another framing");
    CHECK(h->framing != FRAMING_LENGTH || again.content_length == h->content_length,
          "another length");
}

static void forward(const struct http1_head *h, size_t head_len, const struct rewrite_request *o)
{
    size_t bound = rewrite_bound(h, head_len, o->via, o->authority);
    uint8_t *out = malloc(bound);
    size_t n = rewrite_request(h, o, out, bound);
    char *text = fuzz_copy(out, n);
    free(out);
    const char *wrong = strict_read(&seen, text, n);
    CHECK(!wrong, "what was written has %s", wrong);
    check_target(h, o);
    check_framing(h);
    check_fields(h, o);
    struct slice host = strict_find(&seen, "host");
    CHECK(slice_eq(host, o->authority), "another Host");
    check_again(h, text, n);
    free(text);
}

static void check_refusal(enum http1_error err)
{
    int status = http1_error_status(err);
    CHECK(status >= 400 && status <= 505, "%d", status);
    CHECK(*http1_error_text(err) != '?', "error %d has no text", (int)err);
}

void fuzz_request_head(const uint8_t *data, size_t len)
{
    size_t end;
    struct authority to, host;
    struct slice path;
    if (find_end(data, len, &end) != 1)
        return;
    char *text = fuzz_copy(data, end);
    enum http1_error err = http1_parse_request(&head, text, end, 100);
    if (err)
        check_refusal(err);
    else if (slice_eq(head.method, SLICE("CONNECT")))
        authority_parse(&to, head.target, 0);
    else if (target_parse_absolute(&to, &path, head.target) == TARGET_OK &&
             (!head.host || authority_parse(&host, head.host->value, 80) == TARGET_OK)) {
        struct rewrite_request o = { .authority = to.raw, .path = path, .max_forwards = -1 };
        forward(&head, end, &o);
        o.via = "proxy.example";
        o.max_forwards = 999999998;
        forward(&head, end, &o);
        if (head.upgrade) {
            o.upgrade = "websocket";
            forward(&head, end, &o);
        }
    }
    free(text);
}
