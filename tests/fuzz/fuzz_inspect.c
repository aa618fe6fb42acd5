/* A response's body under rules and metrics: the same verdict in whatever pieces it comes.
 * The first byte says how the rest is meant: bits 0-1 coding (none, gzip, deflate, none), 2 the
 * rest is to be compressed first, 3 event stream, 4-5 body_limit. */
#include "base/base.h"
#include "proxy/http1.h"
#include "proxy/inspect.h"
#include "tests/fuzz/fuzz.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#define TEXT(s)                                                                                    \
    {                                                                                              \
        .type = SCALAR_STRING, .text = (char *)(s)                                                 \
    }
#define JSON(pointer) .subject = SUBJECT_JSON, .where = (char *)(pointer)

static struct response_rule rules[] = {
    { .name = (char *)"text",
      .subject = SUBJECT_TEXT,
      .test = TEST_CONTAINS,
      .wanted = TEXT("aab") },
    { .name = (char *)"exists", JSON("/e"), .test = TEST_EXISTS },
    { .name = (char *)"equals", JSON("/s"), .test = TEST_EQUALS, .wanted = TEXT("ab\xC3\xA9") },
    { .name = (char *)"contains",
      JSON("/s"),
      .test = TEST_CONTAINS,
      .wanted = TEXT("abab\xC3\xA9") },
    { .name = (char *)"number",
      JSON("/l/1"),
      .test = TEST_EQUALS,
      .wanted = { .type = SCALAR_NUMBER, .number = 7 } },
    { .name = (char *)"null", JSON("/z"), .test = TEST_EQUALS, .wanted = { .type = SCALAR_NULL } },
    { .name = (char *)"event", .subject = SUBJECT_EVENT, .where = (char *)"err" },
};

struct verdict {
    unsigned rule;
    enum trouble trouble;
    double values[MAX_METRICS];
};

static struct http1_head head;

static struct route make_route(uint8_t flags)
{
    static const int64_t limits[] = { 65536, 64, 17, 1024 };
    struct route r = { .name = (char *)"r", .metric_count = 2 };
    r.metrics[0] =
        (struct metric){ .name = (char *)"n", .kind = METRIC_JSON, .source = (char *)"/n" };
    r.metrics[1] =
        (struct metric){ .name = (char *)"m", .kind = METRIC_JSON, .source = (char *)"" };
    r.failure.body = (struct rule_list){ rules, ARRAY_LEN(rules) };
    r.failure.body_limit = limits[flags >> 4 & 3];
    return r;
}

static bool read_head(uint8_t flags)
{
    static const char *const codings[] = { "identity", "gzip", "deflate", "identity" };
    static char text[200]; /* the head points into it */
    int n =
        snprintf(text, sizeof(text),
                 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: %s\r\n\r\n",
                 codings[flags & 3]);
    CHECK(http1_parse_response(&head, text, (size_t)n, 64, false) == HTTP1_OK, "%s", text);
    return flags & 8;
}

static struct slice compressed(struct slice body, uint8_t flags, uint8_t *room, size_t size)
{
    z_stream z = { .next_in = (Bytef *)(uintptr_t)body.p,
                   .avail_in = (uInt)body.len,
                   .next_out = room,
                   .avail_out = (uInt)size };
    int bits = (flags & 3) == 1 ? 31 : flags & 64 ? -15 : 15;
    CHECK(deflateInit2(&z, 6, Z_DEFLATED, bits, 8, Z_DEFAULT_STRATEGY) == Z_OK, "deflate");
    deflate(&z, Z_FINISH); /* cut short if it does not fit: fine as well */
    deflateEnd(&z);
    return (struct slice){ (const char *)room, size - z.avail_out };
}

static struct verdict inspect(const struct inspect_plan *plan, struct slice body, uint8_t flags,
                              unsigned way)
{
    struct verdict v = { 0 };
    bool events = read_head(flags);
    inspect_head(plan, &head, v.values);
    struct inspector *in = inspector_new(plan, &head, events, v.values, &v.trouble);
    CHECK(in, "no inspector");
    for (size_t at = 0; at < body.len && !inspector_rule(in);) {
        size_t n = fuzz_cut(way, (const uint8_t *)body.p, body.len, at);
        uint8_t *piece = fuzz_copy(body.p + at, n);
        inspector_feed(in, piece, n);
        free(piece);
        at += n;
    }
    if (!inspector_rule(in))
        inspector_end(in);
    v.rule = inspector_rule(in);
    v.trouble = inspector_trouble(in);
    inspector_free(in);
    return v;
}

static bool same(const struct verdict *a, const struct verdict *b)
{
    for (unsigned i = 0; i < 2; i++)
        if (a->values[i] != b->values[i] && !(isnan(a->values[i]) && isnan(b->values[i])))
            return false;
    return a->rule == b->rule && a->trouble == b->trouble;
}

/* What a rule on plain text finds needs no streaming to be found. */
static void check_text(const struct verdict *v, struct slice body, size_t limit)
{
    size_t len = body.len < limit ? body.len : limit;
    bool there = memmem(body.p, len, "aab", 3) != NULL;
    CHECK(!there || v->rule, "the text is there and no rule matched");
    CHECK(there || v->rule != RULE_BODY, "the text is not there");
}

void fuzz_inspect(const uint8_t *data, size_t len)
{
    static uint8_t room[65536];
    struct fuzz_reader reader = { data, len };
    uint8_t flags = fuzz_byte(&reader);
    struct slice body = fuzz_rest(&reader);
    bool plain = (flags & 3) == 0 || (flags & 3) == 3;
    if (!plain && flags & 4)
        body = compressed(body, flags, room, sizeof(room));
    struct route route = make_route(flags);
    struct inspect_plan *plan = inspect_plan_new(&route);
    struct verdict first = inspect(plan, body, flags, 0);
    for (unsigned way = 1; way < FUZZ_CUTS; way++) {
        struct verdict v = inspect(plan, body, flags, way);
        CHECK(same(&v, &first),
              "cut in way %u: rule %u, %s, %g %g; in one piece rule %u, %s, %g %g", way, v.rule,
              trouble_name(v.trouble), v.values[0], v.values[1], first.rule,
              trouble_name(first.trouble), first.values[0], first.values[1]);
    }
    if (plain && !(flags & 8))
        check_text(&first, body, (size_t)route.failure.body_limit);
    inspect_plan_free(plan);
}
