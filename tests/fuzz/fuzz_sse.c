/* An event stream: the same events in whatever pieces it comes, and those that a reader of
 * whole lines finds (HTML standard 9.2.6). */
#include "base/strbuf.h"
#include "sync/sse.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>

/* Events as text that can be compared; lengths keep them apart. */
static void add_event(struct strbuf *out, const char *name, size_t name_len, const char *data,
                      size_t len)
{
    strbuf_addf(out, "event %zu ", name_len);
    strbuf_add(out, name, name_len);
    strbuf_addf(out, " %zu ", len);
    strbuf_add(out, data, len);
}

static void on_event(void *arg, const struct sse_event *ev)
{
    struct strbuf *out = arg;
    CHECK(ev->data_len <= SSE_EVENT_MAX, "%zu bytes of data", ev->data_len);
    CHECK(ev->data[ev->data_len] == '\0', "data is not terminated");
    CHECK(strlen(ev->name) <= SSE_NAME_MAX, "a name of %zu bytes", strlen(ev->name));
    if (ev->kind == SSE_COMMENT)
        strbuf_adds(out, "comment ");
    else if (ev->kind == SSE_TOO_LONG)
        strbuf_adds(out, "too long ");
    else
        add_event(out, ev->name, strlen(ev->name), ev->data, ev->data_len);
}

static void feed(struct sse *p, const uint8_t *data, size_t len, unsigned way)
{
    for (size_t at = 0; at < len;) {
        size_t n = fuzz_cut(way, data, len, at);
        char *piece = fuzz_copy(data + at, n);
        sse_feed(p, piece, n);
        free(piece);
        at += n;
    }
}

/* ---- The reader of whole lines ---- */

struct reference {
    struct strbuf data, name, *out;
    bool any_data;
};

static void end_event(struct reference *r)
{
    if (r->any_data)
        /* a name that holds a NUL reads as cut there, as C strings do */
        add_event(r->out, strbuf_str(&r->name), strlen(strbuf_str(&r->name)), strbuf_str(&r->data),
                  r->data.len - 1);
    strbuf_clear(&r->data);
    strbuf_clear(&r->name);
    r->any_data = false;
}

static void take_line(struct reference *r, struct slice line)
{
    if (line.len == 0) {
        end_event(r);
        return;
    }
    if (line.p[0] == ':') {
        strbuf_adds(r->out, "comment ");
        return;
    }
    const char *colon = memchr(line.p, ':', line.len);
    struct slice field = { line.p, colon ? (size_t)(colon - line.p) : line.len };
    struct slice value = { NULL, 0 };
    if (colon)
        value = (struct slice){ colon + 1, line.len - field.len - 1 };
    if (value.len > 0 && value.p[0] == ' ')
        value.p++, value.len--;
    if (slice_eq(field, SLICE("data"))) {
        if (value.len > 0)
            strbuf_add(&r->data, value.p, value.len);
        strbuf_addc(&r->data, '\n');
        r->any_data = true;
    } else if (slice_eq(field, SLICE("event"))) {
        strbuf_clear(&r->name);
        if (value.len > 0)
            strbuf_add(&r->name, value.p, value.len < SSE_NAME_MAX ? value.len : SSE_NAME_MAX);
    }
}

static void read_lines(const char *p, size_t len, struct strbuf *out)
{
    struct reference r = { .out = out };
    const char *end = p + len;
    if (len >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0)
        p += 3;
    while (p < end) {
        const char *stop = p;
        while (stop < end && *stop != '\r' && *stop != '\n')
            stop++;
        if (stop == end)
            break; /* cut short: not a line */
        take_line(&r, (struct slice){ p, (size_t)(stop - p) });
        p = stop + (*stop == '\r' && stop + 1 < end && stop[1] == '\n' ? 2 : 1);
    }
    strbuf_free(&r.data);
    strbuf_free(&r.name);
}

void fuzz_sse(const uint8_t *data, size_t len)
{
    struct strbuf want = STRBUF_INIT;
    bool short_enough = len <= SSE_EVENT_MAX;
    struct strbuf got = STRBUF_INIT, first = STRBUF_INIT;
    struct sse *p = sse_new(on_event, &got);
    if (short_enough)
        read_lines((const char *)data, len, &want);
    for (unsigned way = 0; way < FUZZ_CUTS; way++) {
        strbuf_clear(&got);
        feed(p, data, len, way);
        sse_reset(p);
        if (way == 0)
            strbuf_add(&first, strbuf_str(&got), got.len);
        CHECK(got.len == first.len && memcmp(strbuf_str(&got), strbuf_str(&first), got.len) == 0,
              "cut in way %u: \"%s\", in one piece \"%s\"", way, strbuf_str(&got),
              strbuf_str(&first));
    }
    CHECK(!short_enough || (want.len == first.len &&
                            memcmp(strbuf_str(&want), strbuf_str(&first), want.len) == 0),
          "\"%s\", by lines \"%s\"", strbuf_str(&first), strbuf_str(&want));
    sse_free(p);
    strbuf_free(&want);
    strbuf_free(&got);
    strbuf_free(&first);
}
