#include "proxy/inspect.h"
#include "base/base.h"
#include "proxy/http1.h"
#include "proxy/json_scan.h"
#include "sync/sse.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define INFLATE_STEP 4096

/* What a pointer is followed for: a rule of failure.body, or a metric. */
struct purpose {
    bool metric;
    uint8_t index;
};

struct inspect_plan {
    const struct route *route;
    unsigned pointer_count;
    bool looks_at_texts, looks_at_events, reads_body;
    uint16_t *skip[MAX_RULES]; /* of a rule that contains: see find_text() */
    struct purpose purposes[JSON_SCAN_POINTERS];
    struct json_pointer pointers[]; /* rules in file order, then metrics */
};

struct inspector {
    const struct inspect_plan *plan;
    double *values;
    struct json_scan json;
    struct sse *events; /* NULL: no event stream */
    enum trouble trouble;
    uint8_t coding;
    bool done;       /* nothing more can be learned */
    bool json_over;  /* the document broke off */
    bool rules_over; /* an event stream went past body_limit */
    bool inflating, inflated_whole;
    bool padding;  /* what follows the compressed data belongs to nothing */
    unsigned rule; /* RULE_NONE: no match yet */
    uint64_t rule_at;
    uint64_t seen; /* decoded bytes */
    unsigned header_len;
    uint8_t header[2];            /* of the compressed data, until there are two bytes */
    uint16_t text_at[MAX_RULES];  /* bytes of the rule's text matched so far */
    bool text_differs[MAX_RULES]; /* equals: not this string */
    z_stream z;
};

enum coding { CODING_NONE, CODING_GZIP, CODING_DEFLATE, CODING_UNKNOWN };

const char *trouble_name(enum trouble t)
{
    switch (t) {
    case TROUBLE_NONE:
        return "none";
    case TROUBLE_UNKNOWN_ENCODING:
        return "unknown_encoding";
    case TROUBLE_BAD_ENCODING:
        return "bad_encoding";
    case TROUBLE_BAD_JSON:
        return "bad_json";
    case TROUBLE_EVENT_TOO_LONG:
        return "event_too_long";
    case TROUBLE_INFLATED_MAX:
        return "inflated_max";
    case TROUBLE_BODY_LIMIT:
        return "body_limit";
    case TROUBLE_COUNT:
        break;
    }
    return "?";
}

/* ---- The plan ---- */

/* skip[n]: if the byte behind n matching ones differs, so many of them match in any case
 * (Knuth, Morris and Pratt). */
static uint16_t *make_skip(const char *text)
{
    size_t len = strlen(text);
    uint16_t *skip = xcalloc(len + 1, sizeof(*skip));
    for (size_t i = 1, k = 0; i < len; i++) {
        while (k > 0 && text[i] != text[k])
            k = skip[k];
        k += text[i] == text[k];
        skip[i + 1] = (uint16_t)k;
    }
    return skip;
}

static void add_pointer(struct inspect_plan *p, const char *text, bool metric, size_t index)
{
    unsigned at = p->pointer_count++;
    json_pointer_read(&p->pointers[at], text);
    p->purposes[at] = (struct purpose){ metric, (uint8_t)index };
}

static void add_body_rules(struct inspect_plan *p)
{
    const struct rule_list *list = &p->route->failure.body;
    for (size_t i = 0; i < list->count; i++) {
        const struct response_rule *r = &list->items[i];
        if (r->subject == SUBJECT_JSON)
            add_pointer(p, r->where, false, i);
        p->looks_at_texts |= r->subject == SUBJECT_TEXT;
        p->looks_at_events |= r->subject == SUBJECT_EVENT;
        if (r->test == TEST_CONTAINS)
            p->skip[i] = make_skip(r->wanted.text);
    }
}

struct inspect_plan *inspect_plan_new(const struct route *r)
{
    bool fields = r->failure.headers.count > 0, body = r->failure.body.count > 0;
    for (size_t i = 0; i < r->metric_count; i++) {
        fields |= r->metrics[i].kind == METRIC_HEADER;
        body |= r->metrics[i].kind == METRIC_JSON;
    }
    if (!fields && !body)
        return NULL;
    _Static_assert(MAX_RULES + MAX_METRICS <= JSON_SCAN_POINTERS, "a pointer for each of them");
    struct inspect_plan *p =
        xcalloc(1, sizeof(*p) + (MAX_RULES + MAX_METRICS) * sizeof(struct json_pointer));
    p->route = r;
    add_body_rules(p);
    for (size_t i = 0; i < r->metric_count; i++) {
        if (r->metrics[i].kind == METRIC_JSON) {
            add_pointer(p, r->metrics[i].source, true, i);
            p->reads_body = true;
        }
    }
    return p;
}

void inspect_plan_free(struct inspect_plan *p)
{
    for (size_t i = 0; p && i < MAX_RULES; i++)
        free(p->skip[i]);
    free(p);
}

bool inspect_wants_events(const struct inspect_plan *p)
{
    return p->looks_at_events || p->reads_body;
}

/* ---- The head ---- */

static bool field_matches(const struct response_rule *r, struct slice value)
{
    switch (r->test) {
    case TEST_EXISTS:
        return true;
    case TEST_EQUALS:
        return slice_eq(value, slice_of(r->wanted.text));
    case TEST_CONTAINS:
        return memmem(value.p, value.len, r->wanted.text, strlen(r->wanted.text)) != NULL;
    }
    return false;
}

static bool head_matches(const struct response_rule *r, const struct http1_head *h)
{
    struct slice name = slice_of(r->where);
    for (size_t i = 0; i < h->field_count; i++)
        if (slice_eq_nocase(h->fields[i].name, name) && field_matches(r, h->fields[i].value))
            return true;
    return false;
}

/* Digits with at most a sign before and one point within; else NaN. */
static double plain_number(struct slice s)
{
    char text[64];
    size_t at = s.len > 0 && (s.p[0] == '-' || s.p[0] == '+'), digits = 0, points = 0;
    if (s.len >= sizeof(text))
        return NAN;
    for (; at < s.len; at++) {
        bool digit = s.p[at] >= '0' && s.p[at] <= '9';
        if (!digit && s.p[at] != '.')
            return NAN;
        digits += digit;
        points += !digit;
    }
    if (digits == 0 || points > 1)
        return NAN;
    memcpy(text, s.p, s.len);
    text[s.len] = '\0';
    return strtod(text, NULL);
}

unsigned inspect_head(const struct inspect_plan *p, const struct http1_head *h,
                      double values[MAX_METRICS])
{
    const struct route *r = p->route;
    for (size_t i = 0; i < MAX_METRICS; i++)
        values[i] = NAN;
    for (size_t i = 0; i < r->metric_count; i++) {
        const struct http1_field *f = NULL;
        if (r->metrics[i].kind == METRIC_HEADER)
            f = http1_find(h, slice_of(r->metrics[i].source));
        if (f)
            values[i] = plain_number(f->value);
    }
    for (size_t i = 0; i < r->failure.headers.count; i++)
        if (head_matches(&r->failure.headers.items[i], h))
            return RULE_HEADERS + (unsigned)i;
    return RULE_NONE;
}

/* ---- Matching ---- */

static const struct response_rule *body_rule(const struct inspector *in, size_t i)
{
    return &in->plan->route->failure.body.items[i];
}

/* The earliest byte wins, then the first in the file. */
static void hit(struct inspector *in, size_t i, uint64_t at)
{
    unsigned rule = RULE_BODY + (unsigned)i;
    if (in->rules_over)
        return;
    if (in->events)
        at = 0; /* a whole event is one moment, and the first that matches is the last */
    if (in->rule && (in->rule_at < at || (in->rule_at == at && in->rule <= rule)))
        return;
    in->rule = rule;
    in->rule_at = at;
    in->done = true;
}

/* How many of these bytes lead to the first place where the text ends; 0: to none. */
static size_t find_text(struct inspector *in, size_t i, const char *bytes, size_t len)
{
    const char *text = body_rule(in, i)->wanted.text;
    const uint16_t *skip = in->plan->skip[i];
    unsigned k = in->text_at[i];
    for (size_t n = 0; n < len; n++) {
        while (k > 0 && text[k] != bytes[n])
            k = skip[k];
        k += text[k] == bytes[n];
        if (text[k])
            continue;
        in->text_at[i] = 0;
        return n + 1;
    }
    in->text_at[i] = (uint16_t)k;
    return 0;
}

/* Rules on text, in bytes that stand at offset base; cuts *len behind a match. */
static void match_texts(struct inspector *in, const char *bytes, size_t *len, uint64_t base)
{
    const struct rule_list *list = &in->plan->route->failure.body;
    for (size_t i = 0; in->plan->looks_at_texts && i < list->count; i++) {
        if (list->items[i].subject != SUBJECT_TEXT)
            continue;
        size_t end = find_text(in, i, bytes, *len);
        if (end == 0)
            continue;
        hit(in, i, base + end);
        *len = end;
    }
}

/* Compares a piece of a string with the text of an "equals". */
static void compare_piece(struct inspector *in, size_t i, const struct json_found *f)
{
    const char *text = body_rule(in, i)->wanted.text;
    size_t at = in->text_at[i], left = strlen(text) - at;
    if (in->text_differs[i])
        return;
    in->text_differs[i] = f->len > left || memcmp(text + at, f->piece, f->len) != 0;
    if (!in->text_differs[i])
        in->text_at[i] = (uint16_t)(at + f->len);
}

static bool scalar_equals(const struct scalar *s, const struct json_found *f)
{
    switch (s->type) {
    case SCALAR_NULL:
        return f->what == JSON_NULL;
    case SCALAR_FALSE:
        return f->what == JSON_FALSE;
    case SCALAR_TRUE:
        return f->what == JSON_TRUE;
    case SCALAR_NUMBER:
        return f->what == JSON_NUMBER && s->number == f->number;
    case SCALAR_NONE:
    case SCALAR_STRING:
        break;
    }
    return false;
}

static void match_string(struct inspector *in, size_t i, const struct json_found *f)
{
    const struct response_rule *r = body_rule(in, i);
    size_t end;
    switch (f->what) {
    case JSON_STRING:
        in->text_at[i] = 0;
        in->text_differs[i] = false;
        break;
    case JSON_STRING_PIECE:
        if (r->test == TEST_EQUALS)
            compare_piece(in, i, f);
        else if ((end = find_text(in, i, f->piece, f->len)) > 0)
            hit(in, i, f->at - (f->len - end));
        break;
    case JSON_STRING_END:
        if (r->test == TEST_EQUALS && !in->text_differs[i] && !r->wanted.text[in->text_at[i]])
            hit(in, i, f->at);
        break;
    case JSON_NULL:
    case JSON_FALSE:
    case JSON_TRUE:
    case JSON_NUMBER:
    case JSON_CONTAINER:
        break;
    }
}

static void match_json(struct inspector *in, size_t i, const struct json_found *f)
{
    const struct response_rule *r = body_rule(in, i);
    bool begins = f->what != JSON_STRING_PIECE && f->what != JSON_STRING_END;
    if (r->test == TEST_EXISTS) {
        if (begins && f->what != JSON_NULL)
            hit(in, i, f->at);
    } else if (r->wanted.type == SCALAR_STRING) {
        match_string(in, i, f);
    } else if (scalar_equals(&r->wanted, f)) {
        hit(in, i, f->at);
    }
}

static bool on_found(void *arg, const struct json_found *f)
{
    struct inspector *in = arg;
    for (unsigned n = 0; n < in->plan->pointer_count; n++) {
        const struct purpose *p = &in->plan->purposes[n];
        if (!(f->pointers & BIT(n)))
            continue;
        if (!p->metric)
            match_json(in, p->index, f);
        else if (f->what == JSON_NUMBER && !isnan(f->number))
            in->values[p->index] = f->number;
    }
    /* Within an event all rules are heard before one wins; and a rule on text may have matched
     * already that wins only further on. */
    return in->rule && !in->events && in->rule_at <= f->at;
}

/* ---- Plain bodies ---- */

static void note_trouble(struct inspector *in, enum trouble t)
{
    if (!in->trouble)
        in->trouble = t;
}

static void read_body(struct inspector *in, const char *bytes, size_t len)
{
    uint64_t limit = (uint64_t)in->plan->route->failure.body_limit;
    size_t n = len < limit - in->seen ? len : (size_t)(limit - in->seen);
    bool more = len > n;
    match_texts(in, bytes, &n, in->seen);
    if (in->plan->pointer_count > 0 && !in->json_over && !json_scan_feed(&in->json, bytes, n) &&
        !in->json.stopped) {
        in->json_over = true;
        note_trouble(in, TROUBLE_BAD_JSON);
    }
    in->seen += n;
    if (in->rule)
        return;
    if (more)
        note_trouble(in, TROUBLE_BODY_LIMIT);
    in->done = more || (in->json_over && !in->plan->looks_at_texts);
}

/* ---- Event streams ---- */

static void read_event(struct inspector *in, const struct sse_event *ev)
{
    const struct rule_list *list = &in->plan->route->failure.body;
    const char *name = *ev->name ? ev->name : "message";
    size_t len = ev->data_len;
    for (size_t i = 0; i < list->count; i++) {
        in->text_at[i] = 0;
        if (list->items[i].subject == SUBJECT_EVENT && strcmp(name, list->items[i].where) == 0)
            hit(in, i, 0);
        else if (list->items[i].subject == SUBJECT_TEXT && find_text(in, i, ev->data, len) > 0)
            hit(in, i, 0);
    }
    if (in->plan->pointer_count == 0)
        return;
    json_scan_begin(&in->json);
    json_scan_feed(&in->json, ev->data, len);
    json_scan_end(&in->json);
}

static void on_event(void *arg, const struct sse_event *ev)
{
    struct inspector *in = arg;
    bool too_long =
        ev->kind == SSE_TOO_LONG || ev->data_len > (uint64_t)in->plan->route->failure.body_limit;
    if (in->rule || ev->kind == SSE_COMMENT)
        return;
    if (too_long)
        note_trouble(in, TROUBLE_EVENT_TOO_LONG);
    else
        read_event(in, ev);
}

static void read_events(struct inspector *in, const char *bytes, size_t len)
{
    uint64_t limit = (uint64_t)in->plan->route->failure.body_limit;
    size_t n = in->seen >= limit ? 0 : len < limit - in->seen ? len : (size_t)(limit - in->seen);
    sse_feed(in->events, bytes, n);
    in->seen += len;
    if (n == len || in->rule)
        return;
    in->rules_over = true;
    if (in->plan->reads_body) {
        sse_feed(in->events, bytes + n, len - n);
        return;
    }
    note_trouble(in, TROUBLE_BODY_LIMIT);
    in->done = true;
}

/* ---- Codings ---- */

static void decoded(struct inspector *in, const char *bytes, size_t len)
{
    if (in->done || len == 0)
        return;
    if (in->events)
        read_events(in, bytes, len);
    else
        read_body(in, bytes, len);
}

static void give_up(struct inspector *in, enum trouble t)
{
    note_trouble(in, t);
    in->done = true;
}

/* zlib says nothing of raw deflate, which some servers send: its two bytes are no header. */
static int window_bits(const struct inspector *in)
{
    unsigned cmf = in->header[0], flg = in->header[1];
    if (in->coding == CODING_GZIP)
        return 16 + MAX_WBITS;
    bool zlib = (cmf & 15) == Z_DEFLATED && (cmf * 256 + flg) % 31 == 0;
    return zlib ? MAX_WBITS : -MAX_WBITS;
}

/* One call of zlib.  False: it wants more bytes, or nothing will come of it. */
static bool inflate_some(struct inspector *in)
{
    char out[INFLATE_STEP];
    if (in->inflated_whole) { /* gzip members may follow each other; else it is padding */
        if (in->z.avail_in == 0)
            return false;
        in->padding |= in->coding != CODING_GZIP || in->z.next_in[0] != 0x1f;
        if (in->padding)
            return false;
        inflateReset(&in->z);
        in->inflated_whole = false;
    }
    in->z.next_out = (Bytef *)out;
    in->z.avail_out = sizeof(out);
    int result = inflate(&in->z, Z_NO_FLUSH);
    size_t len = sizeof(out) - in->z.avail_out;
    uint64_t room = INSPECT_INFLATED_MAX - (in->seen < INSPECT_INFLATED_MAX ? in->seen : 0);
    bool full = in->events && len >= room;
    decoded(in, out, full ? (size_t)room : len);
    if (in->done)
        return false;
    if (full)
        give_up(in, TROUBLE_INFLATED_MAX);
    else if (result == Z_STREAM_END)
        in->inflated_whole = true;
    else if (result != Z_OK && result != Z_BUF_ERROR)
        give_up(in, TROUBLE_BAD_ENCODING);
    return !in->done && (in->z.avail_in > 0 || in->z.avail_out == 0);
}

static void inflate_bytes(struct inspector *in, const uint8_t *bytes, size_t len)
{
    in->z.next_in = (Bytef *)(uintptr_t)bytes; /* zlib's interface lacks the const */
    in->z.avail_in = (uInt)len;
    while (inflate_some(in))
        ;
}

static void begin_inflate(struct inspector *in)
{
    if (inflateInit2(&in->z, window_bits(in)) != Z_OK) {
        give_up(in, TROUBLE_BAD_ENCODING);
        return;
    }
    in->inflating = true;
    inflate_bytes(in, in->header, in->header_len);
}

void inspector_feed(struct inspector *in, const uint8_t *bytes, size_t len)
{
    if (in->done)
        return;
    if (in->coding == CODING_NONE) {
        decoded(in, (const char *)bytes, len);
        return;
    }
    while (!in->inflating && len > 0) {
        in->header[in->header_len++] = *bytes++;
        len--;
        if (in->header_len == sizeof(in->header))
            begin_inflate(in);
        if (in->done)
            return;
    }
    if (len > 0)
        inflate_bytes(in, bytes, len);
}

void inspector_end(struct inspector *in)
{
    if (in->done)
        return;
    bool coded = in->coding != CODING_NONE && in->header_len > 0;
    if (coded && !in->inflated_whole)
        note_trouble(in, TROUBLE_BAD_ENCODING);
    bool document = !in->events && !in->json_over && in->plan->pointer_count > 0 && in->seen > 0;
    if (document && !json_scan_end(&in->json))
        note_trouble(in, TROUBLE_BAD_JSON);
    in->done = true;
}

/* ---- Life ---- */

static void add_coding(struct slice token, enum coding *coding)
{
    if (slice_eq_nocase(token, SLICE("identity")))
        return;
    bool gzip = slice_eq_nocase(token, SLICE("gzip")) || slice_eq_nocase(token, SLICE("x-gzip"));
    bool deflate = slice_eq_nocase(token, SLICE("deflate"));
    *coding = *coding != CODING_NONE ? CODING_UNKNOWN /* one upon the other */
              : gzip                 ? CODING_GZIP
              : deflate              ? CODING_DEFLATE
                                     : CODING_UNKNOWN;
}

static enum coding read_coding(const struct http1_head *h)
{
    enum coding coding = CODING_NONE;
    for (size_t i = 0; i < h->field_count; i++) {
        struct slice list = h->fields[i].value, token;
        if (!slice_eq_nocase(h->fields[i].name, SLICE("content-encoding")))
            continue;
        while (http1_next_item(&list, &token))
            if (token.len > 0)
                add_coding(token, &coding);
    }
    return coding;
}

static bool has_body(const struct http1_head *h)
{
    return h->framing != FRAMING_NONE && !(h->framing == FRAMING_LENGTH && h->content_length == 0);
}

struct inspector *inspector_new(const struct inspect_plan *p, const struct http1_head *h,
                                bool event_stream, double values[MAX_METRICS],
                                enum trouble *trouble)
{
    *trouble = TROUBLE_NONE;
    bool wanted =
        p->pointer_count > 0 || p->looks_at_texts || (event_stream && inspect_wants_events(p));
    if (!wanted || !has_body(h) || p->route->failure.body_limit == 0)
        return NULL;
    enum coding coding = read_coding(h);
    if (coding == CODING_UNKNOWN) {
        *trouble = TROUBLE_UNKNOWN_ENCODING;
        return NULL;
    }
    struct inspector *in = xcalloc(1, sizeof(*in));
    in->plan = p;
    in->values = values;
    in->coding = coding;
    json_scan_init(&in->json, p->pointers, p->pointer_count, on_found, in);
    if (event_stream)
        in->events = sse_new(on_event, in);
    return in;
}

void inspector_free(struct inspector *in)
{
    if (!in)
        return;
    if (in->inflating)
        inflateEnd(&in->z);
    sse_free(in->events);
    free(in);
}

unsigned inspector_rule(const struct inspector *in)
{
    return in->rule;
}

bool inspector_is_done(const struct inspector *in)
{
    return in->done;
}

enum trouble inspector_trouble(const struct inspector *in)
{
    return in->trouble;
}
