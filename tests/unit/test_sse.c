#include "base/base.h"
#include "base/prng.h"
#include "base/strbuf.h"
#include "sync/sse.h"
#include "sync/state_event.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What the parser said, as text: "name[data]" per event, ":" per comment, "!" too long. */
static void note(void *arg, const struct sse_event *ev)
{
    struct strbuf *out = arg;
    switch (ev->kind) {
    case SSE_COMMENT:
        strbuf_addc(out, ':');
        break;
    case SSE_TOO_LONG:
        strbuf_addc(out, '!');
        break;
    case SSE_EVENT:
        strbuf_addf(out, "%s[", ev->name);
        strbuf_add(out, ev->data, ev->data_len);
        strbuf_addc(out, ']');
        if (ev->data[ev->data_len] != '\0')
            fail_msg("data is not NUL-terminated");
        break;
    }
}

struct stream_case {
    const char *what;
    const char *bytes;
    const char *want;
};

static const struct stream_case cases[] = {
    { "hosted form", "event: state\ndata: {\"a\":1}\n\n", "state[{\"a\":1}]" },
    { "unnamed", "data: x\n\n", "[x]" },
    { "two events", "data: x\n\ndata: y\n\n", "[x][y]" },
    { "CRLF", "event: state\r\ndata: x\r\n\r\ndata: y\r\n\r\n", "state[x][y]" },
    { "CR", "event: state\rdata: x\r\rdata: y\r\r", "state[x][y]" },
    { "mixed ends", "data: a\rdata: b\ndata: c\r\n\ndata: d\n\r\n", "[a\nb\nc][d]" },
    { "several data lines", "data: a\ndata: b\ndata:\ndata: c\n\n", "[a\nb\n\nc]" },
    { "one space is skipped", "data:  x\ndata:y\n\n", "[ x\ny]" },
    { "a space after an empty colon", "data: \ndata:  \n\n", "[\n ]" },
    { "empty data line is data", "data\n\n", "[]" },
    { "data without colon", "data\ndata\n\n", "[\n]" },
    { "no data, no event", "event: state\n\ndata: x\n\n", "[x]" },
    { "last name counts", "event: a\nevent: b\ndata: x\n\n", "b[x]" },
    { "name does not last", "event: a\ndata: x\n\ndata: y\n\n", "a[x][y]" },
    { "comments", ": hello\n:\n\n:\r\n", ":::" },
    { "comment inside an event", "data: a\n: tick\ndata: b\n\n", ":[a\nb]" },
    { "id and retry", "id: 7\nretry: 10\ndata: x\n\n", "[x]" },
    { "id only", "id: 7\n\nretry: 5\n\n", "" },
    { "unknown fields", "foo: bar\ndatum: 1\ndat: 2\ndata2: 3\n data: 4\n\ndata: x\n\n", "[x]" },
    { "field names keep their case", "Data: x\nDATA: y\n\n", "" },
    { "cut off", "data: x\n", "" },
    { "cut off after an event", "data: x\n\ndata: y", "[x]" },
    { "byte order mark",
      "\xEF\xBB\xBF"
      "data: x\n\n",
      "[x]" },
    { "mark only at the start",
      "\n\xEF\xBB\xBF"
      "data: x\n\n",
      "" },
    { "half a mark",
      "\xEF\xBB"
      "data: x\n\ndata: y\n\n",
      "[y]" },
    { "half a mark and the end of a line", "\xEF\ndata: y\n\n", "[y]" },
    { "mark twice",
      "\xEF\xBB\xBF\xEF\xBB\xBF"
      "data: x\n\ndata: y\n\n",
      "[y]" },
    { "blank lines", "\n\n\r\r\r\n\r\ndata: x\n\n", "[x]" },
    { "colon in the value", "data: a:b: c\n\n", "[a:b: c]" },
    { "colons only", "::\n: :\n", "::" },
    { "long name is cut",
      "event: 0123456789012345678901234567890123456789012345678901234567890123456789\n"
      "data: x\n\n",
      "0123456789012345678901234567890123456789012345678901234567890123[x]" },
};

static struct sse *fresh(struct sse *p, struct strbuf *out)
{
    strbuf_clear(out);
    sse_reset(p);
    return p;
}

static void compare(const struct stream_case *c, const struct strbuf *got, size_t split)
{
    if (strcmp(strbuf_str(got), c->want) != 0)
        fail_msg("%s, split at %zu: got \"%s\", want \"%s\"", c->what, split, strbuf_str(got),
                 c->want);
}

static void any_split_of_the_bytes_gives_the_same_events(void **state)
{
    (void)state;
    struct strbuf got = STRBUF_INIT;
    struct sse *p = sse_new(note, &got);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct stream_case *c = &cases[i];
        size_t len = strlen(c->bytes);
        for (size_t split = 0; split <= len; split++) {
            fresh(p, &got);
            sse_feed(p, c->bytes, split);
            sse_feed(p, c->bytes + split, len - split);
            compare(c, &got, split);
        }
        fresh(p, &got);
        for (size_t at = 0; at < len; at++)
            sse_feed(p, c->bytes + at, 1);
        compare(c, &got, len + 1);
    }
    sse_free(p);
    strbuf_free(&got);
}

/* Bytes that mean something to the grammar, in any order. */
static void random_bytes_in_random_pieces_agree_with_one_piece(void **state)
{
    (void)state;
    static const char *const words[] = {
        "data", "event", ":",     " ",    "\n",   "\r",   "\r\n",
        "\n\n", "x",     "id: 1", "\xEF", "\xBB", "\xBF", "state"
    };
    struct prng rng;
    prng_seed_fixed(&rng, 42);
    struct strbuf whole = STRBUF_INIT;
    struct strbuf pieces = STRBUF_INIT;
    struct strbuf input = STRBUF_INIT;
    struct sse *a = sse_new(note, &whole);
    struct sse *b = sse_new(note, &pieces);
    for (unsigned round = 0; round < 3000; round++) {
        strbuf_clear(&input);
        for (unsigned n = prng_u32(&rng) % 60; n > 0; n--)
            strbuf_adds(&input, words[prng_u32(&rng) % ARRAY_LEN(words)]);
        sse_feed(fresh(a, &whole), strbuf_str(&input), input.len);
        fresh(b, &pieces);
        for (size_t at = 0; at < input.len;) {
            size_t n = 1 + prng_u32(&rng) % 7;
            n = n < input.len - at ? n : input.len - at;
            sse_feed(b, input.data + at, n);
            at += n;
        }
        if (strcmp(strbuf_str(&whole), strbuf_str(&pieces)) != 0)
            fail_msg("round %u: \"%s\" against \"%s\"", round, strbuf_str(&whole),
                     strbuf_str(&pieces));
    }
    sse_free(a);
    sse_free(b);
    strbuf_free(&whole);
    strbuf_free(&pieces);
    strbuf_free(&input);
}

/* An event of exactly `bytes` field-line bytes; the line end counts as one. */
static void build(struct strbuf *out, size_t bytes, const char *line_end)
{
    strbuf_clear(out);
    strbuf_adds(out, "data:");
    for (size_t i = 6; i < bytes; i++)
        strbuf_addc(out, 'x');
    strbuf_adds(out, line_end);
    strbuf_adds(out, line_end);
    strbuf_adds(out, "data: next\n\n");
}

static void an_event_may_hold_64_kib_and_not_a_byte_more(void **state)
{
    (void)state;
    static const struct {
        size_t bytes;
        bool fits;
    } sizes[] = {
        { 1000, true },
        { SSE_EVENT_MAX - 1, true },
        { SSE_EVENT_MAX, true },
        { SSE_EVENT_MAX + 1, false },
        { SSE_EVENT_MAX * 5, false },
    };
    static const char *const line_ends[] = { "\n", "\r", "\r\n" };
    struct strbuf input = STRBUF_INIT;
    struct strbuf got = STRBUF_INIT;
    struct sse *p = sse_new(note, &got);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (size_t e = 0; e < ARRAY_LEN(line_ends); e++) {
            build(&input, sizes[i].bytes, line_ends[e]);
            fresh(p, &got);
            for (size_t at = 0; at < input.len; at += 1000)
                sse_feed(p, input.data + at, input.len - at < 1000 ? input.len - at : 1000);
            size_t want =
                sizes[i].fits ? sizes[i].bytes - 6 + strlen("[][next]") : strlen("![next]");
            if (got.len != want || strcmp(got.data + got.len - 6, "[next]") != 0)
                fail_msg("%zu bytes, line end %zu: %zu bytes came out, want %zu", sizes[i].bytes, e,
                         got.len, want);
        }
    }
    sse_free(p);
    strbuf_free(&input);
    strbuf_free(&got);
}

static void endless_lines_of_no_use_are_one_invalid_event(void **state)
{
    (void)state;
    struct strbuf got = STRBUF_INIT;
    struct sse *p = sse_new(note, &got);
    static const char *const filler[] = { "data\n", "foo: bar\n", "event: x\n", "data:\r" };
    for (size_t f = 0; f < ARRAY_LEN(filler); f++) {
        fresh(p, &got);
        for (size_t n = 0; n < 100000; n++)
            sse_feed(p, filler[f], strlen(filler[f]));
        sse_feed(p, "\n\ndata: y\n\n", 11); /* the first LF may belong to a CR */
        if (strcmp(strbuf_str(&got), "![y]") != 0)
            fail_msg("filler %zu: got \"%.40s\"", f, strbuf_str(&got));
    }
    /* a comment without an end costs nothing and hurts nobody */
    fresh(p, &got);
    sse_feed(p, ":", 1);
    for (size_t n = 0; n < 100000; n++)
        sse_feed(p, "comment", 7);
    sse_feed(p, "\ndata: y\n\n", 10);
    assert_string_equal(strbuf_str(&got), ":[y]");
    sse_free(p);
    strbuf_free(&got);
}

static void a_nul_in_the_data_is_kept(void **state)
{
    (void)state;
    struct strbuf got = STRBUF_INIT;
    struct sse *p = sse_new(note, &got);
    sse_feed(p, "data: a\0b\n\n", 11);
    assert_int_equal(got.len, 5);
    assert_memory_equal(got.data, "[a\0b]", 5);
    sse_free(p);
    strbuf_free(&got);
}

/* ---- the JSON inside ---- */

#define NAME_51  "123456789012345678901234567890123456789012345678901"
#define NAME_255 NAME_51 NAME_51 NAME_51 NAME_51 NAME_51

static void state_events_are_read_or_classified(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        enum state_event_result want;
        enum breaker_state s;
        double rate;
        bool null;
    } rows[] = {
        { "{\"breaker\":\"b\",\"state\":\"half_open\",\"allow_rate\":0.2}", STATE_EVENT_OK,
          BREAKER_HALF_OPEN, 0.2, false },
        { "{\"breaker\":\"b\",\"state\":\"open\",\"allow_rate\":null}", STATE_EVENT_OK,
          BREAKER_OPEN, 0, true },
        { "{\"breaker\":\"b\",\"state\":\"closed\"}", STATE_EVENT_OK, BREAKER_CLOSED, 0, true },
        { " {\"x\":[{\"breaker\":1}],\"state\":\"closed\",\"breaker\":\"b\",\"allow_rate\":1}\n",
          STATE_EVENT_OK, BREAKER_CLOSED, 1, false },
        { "{\"breaker\":\"b\",\"state\":\"open\",\"allow_rate\":0}", STATE_EVENT_OK, BREAKER_OPEN,
          0, false },
        { "{\"breaker\":\"b\",\"state\":\"half_open\",\"allow_rate\":1.0000001}", STATE_EVENT_RATE,
          0, 0, false },
        { "{\"breaker\":\"b\",\"state\":\"half_open\",\"allow_rate\":-0.01}", STATE_EVENT_RATE, 0,
          0, false },
        { "{\"breaker\":\"b\",\"state\":\"half_open\",\"allow_rate\":1e999}", STATE_EVENT_RATE, 0,
          0, false },
        { "{\"breaker\":\"b\",\"state\":\"half_open\",\"allow_rate\":\"0.2\"}", STATE_EVENT_TYPE, 0,
          0, false },
        { "{\"breaker\":\"b\",\"state\":\"half_open\",\"allow_rate\":true}", STATE_EVENT_TYPE, 0, 0,
          false },
        { "{\"breaker\":7,\"state\":\"open\"}", STATE_EVENT_TYPE, 0, 0, false },
        { "{\"breaker\":\"b\",\"state\":null}", STATE_EVENT_TYPE, 0, 0, false },
        { "{\"state\":\"open\"}", STATE_EVENT_MISSING, 0, 0, false },
        { "{\"breaker\":\"b\"}", STATE_EVENT_MISSING, 0, 0, false },
        { "{\"Breaker\":\"b\",\"state\":\"open\"}", STATE_EVENT_MISSING, 0, 0, false },
        { "{}", STATE_EVENT_MISSING, 0, 0, false },
        { "{\"breaker\":\"\",\"state\":\"open\"}", STATE_EVENT_NAME, 0, 0, false },
        { "{\"breaker\":\"a\\u0000b\",\"state\":\"open\"}", STATE_EVENT_NAME, 0, 0, false },
        { "{\"breaker\":\"" NAME_255 "\",\"state\":\"open\"}", STATE_EVENT_OK, BREAKER_OPEN, 0,
          true },
        { "{\"breaker\":\"" NAME_255 "6\",\"state\":\"open\"}", STATE_EVENT_NAME, 0, 0, false },
        { "{\"breaker\":\"b\",\"state\":\"ajar\"}", STATE_EVENT_STATE, 0, 0, false },
        { "{\"breaker\":\"b\",\"state\":\"unknown\"}", STATE_EVENT_STATE, 0, 0, false },
        { "{\"breaker\":\"b\",\"state\":\"\"}", STATE_EVENT_STATE, 0, 0, false },
        { "{\"breaker\":\"b\",\"state\":\"open\"", STATE_EVENT_NOT_JSON, 0, 0, false },
        { "{\"breaker\":\"b\",\"state\":\"open\"} x", STATE_EVENT_NOT_JSON, 0, 0, false },
        { "[{\"breaker\":\"b\",\"state\":\"open\"}]", STATE_EVENT_NOT_JSON, 0, 0, false },
        { "\"open\"", STATE_EVENT_NOT_JSON, 0, 0, false },
        { "", STATE_EVENT_NOT_JSON, 0, 0, false },
        { "ping", STATE_EVENT_NOT_JSON, 0, 0, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct state_event ev;
        enum state_event_result got = state_event_parse(rows[i].json, strlen(rows[i].json), &ev);
        if (got != rows[i].want)
            fail_msg("%s: got \"%s\", want \"%s\"", rows[i].json, state_event_result_text(got),
                     state_event_result_text(rows[i].want));
        if (got == STATE_EVENT_OK && (ev.state != rows[i].s || ev.rate_null != rows[i].null ||
                                      ev.allow_rate < rows[i].rate || ev.allow_rate > rows[i].rate))
            fail_msg("%s: read as %s %g", rows[i].json, breaker_state_name(ev.state),
                     ev.allow_rate);
    }
}

static void json_is_read_only_up_to_its_length(void **state)
{
    (void)state;
    struct state_event ev;
    static const char json[] = "{\"breaker\":\"b\",\"state\":\"open\"}";
    for (size_t len = 0; len < sizeof(json) - 1; len++) {
        char *exact = malloc(len + 1); /* one byte too many would be noticed behind it */
        memcpy(exact, json, len);
        exact[len] = '}';
        if (state_event_parse(exact, len, &ev) == STATE_EVENT_OK)
            fail_msg("%zu bytes were enough", len);
        free(exact);
    }
    assert_int_equal(state_event_parse(json, sizeof(json) - 1, &ev), STATE_EVENT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split_of_the_bytes_gives_the_same_events),
        cmocka_unit_test(random_bytes_in_random_pieces_agree_with_one_piece),
        cmocka_unit_test(an_event_may_hold_64_kib_and_not_a_byte_more),
        cmocka_unit_test(endless_lines_of_no_use_are_one_invalid_event),
        cmocka_unit_test(a_nul_in_the_data_is_kept),
        cmocka_unit_test(state_events_are_read_or_classified),
        cmocka_unit_test(json_is_read_only_up_to_its_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
