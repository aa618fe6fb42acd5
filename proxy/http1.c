#include "proxy/http1.h"
#include "base/base.h"
#include <http_parser.h>
#include <stdlib.h>
#include <string.h>

const char *http1_error_text(enum http1_error e)
{
    switch (e) {
    case HTTP1_OK:
        return "ok";
    case HTTP1_BAD_REQUEST_LINE:
        return "malformed request line";
    case HTTP1_BAD_VERSION:
        return "unsupported HTTP version";
    case HTTP1_URI_TOO_LONG:
        return "request target too long";
    case HTTP1_BAD_LINE_END:
        return "bare CR or LF in the message head";
    case HTTP1_BAD_FIELD:
        return "malformed header field";
    case HTTP1_HEAD_TOO_LARGE:
        return "message head too large";
    case HTTP1_TOO_MANY_FIELDS:
        return "too many header fields";
    case HTTP1_BAD_LENGTH:
        return "invalid or conflicting Content-Length";
    case HTTP1_BAD_CODING:
        return "invalid Transfer-Encoding";
    case HTTP1_UNKNOWN_CODING:
        return "unknown transfer coding";
    case HTTP1_BAD_HOST:
        return "missing, repeated or invalid Host";
    case HTTP1_BAD_STATUS_LINE:
        return "malformed status line";
    case HTTP1_BAD_CHUNK:
        return "malformed chunked body";
    }
    return "?";
}

int http1_error_status(enum http1_error e)
{
    switch (e) {
    case HTTP1_BAD_VERSION:
        return 505;
    case HTTP1_URI_TOO_LONG:
        return 414;
    case HTTP1_HEAD_TOO_LARGE:
    case HTTP1_TOO_MANY_FIELDS:
        return 431;
    case HTTP1_UNKNOWN_CODING:
        return 501;
    case HTTP1_OK:
    case HTTP1_BAD_REQUEST_LINE:
    case HTTP1_BAD_LINE_END:
    case HTTP1_BAD_FIELD:
    case HTTP1_BAD_LENGTH:
    case HTTP1_BAD_CODING:
    case HTTP1_BAD_HOST:
    case HTTP1_BAD_STATUS_LINE:
    case HTTP1_BAD_CHUNK:
        break;
    }
    return 400;
}

/* ---- Lexical helpers ---- */

/* RFC 9110 5.6.2 */
static const bool token_char[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1,         ['&'] = 1,         ['\''] = 1,
    ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1,         ['^'] = 1,         ['_'] = 1,
    ['`'] = 1, ['|'] = 1, ['~'] = 1, ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
};

bool http1_is_token(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!token_char[(unsigned char)s.p[i]])
            return false;
    return s.len > 0;
}

static struct slice trim(struct slice s)
{
    while (s.len > 0 && (s.p[0] == ' ' || s.p[0] == '\t'))
        s.p++, s.len--;
    while (s.len > 0 && (s.p[s.len - 1] == ' ' || s.p[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* The first control byte, or the end.  Eight at a time: every byte of every head comes along
 * here. */
static const char *find_control(const char *p, const char *end)
{
    while (end - p >= 8) {
        unsigned at = eight_find_control(p);
        p += at;
        if (at < 8)
            return p;
    }
    while (p < end && (unsigned char)*p >= ' ' && *p != 0x7f)
        p++;
    return p;
}

/* Tabs are text (RFC 9110 5.5). */
static const char *text_end(const char *p, const char *end)
{
    while ((p = find_control(p, end)) < end && *p == '\t')
        p++;
    return p;
}

static bool is_text(struct slice s)
{
    return text_end(s.p, s.p + s.len) == s.p + s.len;
}

bool http1_next_item(struct slice *rest, struct slice *item)
{
    while (rest->len > 0) {
        const char *comma = memchr(rest->p, ',', rest->len);
        size_t n = comma ? (size_t)(comma - rest->p) : rest->len;
        *item = trim((struct slice){ rest->p, n });
        size_t skip = comma ? n + 1 : n;
        rest->p += skip;
        rest->len -= skip;
        if (item->len > 0)
            return true;
    }
    return false;
}

bool http1_list_has(struct slice list, struct slice token)
{
    struct slice item;
    while (http1_next_item(&list, &item))
        if (slice_eq_nocase(item, token))
            return true;
    return false;
}

bool http1_method_idempotent(struct slice m)
{
    static const struct slice methods[] = { SLICE("GET"),   SLICE("HEAD"), SLICE("OPTIONS"),
                                            SLICE("TRACE"), SLICE("PUT"),  SLICE("DELETE") };
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (slice_eq(m, methods[i]))
            return true;
    return false;
}

static enum http1_field_id field_id(struct slice name)
{
#define IS(text, id)                                                                               \
    if ((name.p[0] | 0x20) == (text)[0] && slice_eq_nocase(name, SLICE(text)))                     \
    return id
    switch (name.len) {
    case 2:
        IS("te", FIELD_TE);
        break;
    case 3:
        IS("via", FIELD_VIA);
        break;
    case 4:
        IS("host", FIELD_HOST);
        break;
    case 6:
        IS("cookie", FIELD_COOKIE);
        IS("expect", FIELD_EXPECT);
        break;
    case 7:
        IS("upgrade", FIELD_UPGRADE);
        IS("trailer", FIELD_TRAILER);
        break;
    case 10:
        IS("connection", FIELD_CONNECTION);
        IS("keep-alive", FIELD_KEEP_ALIVE);
        IS("set-cookie", FIELD_SET_COOKIE);
        break;
    case 12:
        IS("content-type", FIELD_CONTENT_TYPE);
        IS("max-forwards", FIELD_MAX_FORWARDS);
        break;
    case 13:
        IS("authorization", FIELD_AUTHORIZATION);
        break;
    case 14:
        IS("content-length", FIELD_CONTENT_LENGTH);
        break;
    case 16:
        IS("www-authenticate", FIELD_WWW_AUTHENTICATE);
        IS("proxy-connection", FIELD_PROXY_CONNECTION);
        break;
    case 17:
        IS("transfer-encoding", FIELD_TRANSFER_ENCODING);
        break;
    case 19:
        IS("proxy-authorization", FIELD_PROXY_AUTHORIZATION);
        break;
    }
#undef IS
    return FIELD_OTHER;
}

int http1_find_end(const char *data, size_t len, size_t *scanned, size_t *end)
{
    size_t at = *scanned;
    while (at < len) {
        const char *lf = memchr(data + at, '\n', len - at);
        if (!lf) {
            /* Never looked at again; the last byte may be the CR of an empty line that the
             * caller skips. */
            *scanned = len - 1;
            break;
        }
        size_t i = (size_t)(lf - data);
        if (i == 0 || data[i - 1] != '\r')
            return -1;
        *scanned = at = i + 1;
        /* CRLF right behind a CRLF, or at the very start: an empty line. */
        if (i == 1 || data[i - 2] == '\n') {
            *end = i + 1;
            return 1;
        }
    }
    return 0;
}

/* ---- Fields ---- */

/* fields: the lines behind the start line, with the empty one, which ends at end.  Every byte
 * belongs to exactly one line: no folding (RFC 9112 5.2), no space before the colon (5.1). */
static enum http1_error read_fields(struct http1_head *h, const char *fields, const char *end,
                                    size_t max_fields)
{
    const char *at = fields, *last = end - 2;
    if (max_fields > HTTP1_FIELDS_MAX)
        max_fields = HTTP1_FIELDS_MAX;
    h->field_count = 0;
    while (at < last) {
        const char *colon = at;
        while (token_char[(unsigned char)*colon])
            colon++;
        if (colon == at || *colon != ':')
            return HTTP1_BAD_FIELD;
        const char *cr = text_end(colon + 1, end);
        if (cr == end || *cr != '\r')
            return HTTP1_BAD_FIELD;
        if (cr >= last || cr[1] != '\n')
            return HTTP1_BAD_LINE_END;
        if (h->field_count >= max_fields)
            return HTTP1_TOO_MANY_FIELDS;
        struct http1_field *f = &h->fields[h->field_count++];
        f->name = (struct slice){ at, (size_t)(colon - at) };
        f->value = trim((struct slice){ colon + 1, (size_t)(cr - colon - 1) });
        f->line = (struct slice){ at, (size_t)(cr + 2 - at) };
        f->id = (uint8_t)field_id(f->name);
        f->hop = false;
        at = cr + 2;
    }
    return at == last && at[0] == '\r' && at[1] == '\n' ? HTTP1_OK : HTTP1_BAD_LINE_END;
}

/* ---- Meaning of the fields ---- */

static enum http1_error read_length(struct http1_head *h, const struct http1_field *f, bool *have)
{
    uint64_t n = 0;
    if (f->value.len == 0)
        return HTTP1_BAD_LENGTH;
    for (size_t i = 0; i < f->value.len; i++) {
        char c = f->value.p[i];
        if (c < '0' || c > '9' || n > (UINT64_MAX >> 1) / 10 - 1)
            return HTTP1_BAD_LENGTH;
        n = n * 10 + (uint64_t)(c - '0');
    }
    if (*have && n != h->content_length)
        return HTTP1_BAD_LENGTH;
    if (!*have)
        h->content_length_field = f;
    *have = true;
    h->content_length = n;
    return HTTP1_OK;
}

/* Exactly one coding, chunked, over all lines (RFC 9112 6.1). */
static enum http1_error read_coding(const struct http1_head *h, bool *chunked)
{
    size_t codings = 0, chunkeds = 0;
    bool last_is_chunked = false;
    for (size_t i = 0; i < h->field_count; i++) {
        if (h->fields[i].id != FIELD_TRANSFER_ENCODING)
            continue;
        struct slice rest = h->fields[i].value, item;
        while (http1_next_item(&rest, &item)) {
            codings++;
            last_is_chunked = slice_eq_nocase(item, SLICE("chunked"));
            chunkeds += last_is_chunked;
        }
    }
    *chunked = codings == 1 && last_is_chunked;
    if (*chunked)
        return HTTP1_OK;
    /* Chunked before the end leaves the length open; what is unknown is merely unknown. */
    bool misplaced = chunkeds > last_is_chunked;
    return codings == 0 || misplaced ? HTTP1_BAD_CODING : HTTP1_UNKNOWN_CODING;
}

/* Each name is looked for in every field, so there must not be many.  False: there are. */
static bool mark_named_hops(struct http1_head *h, struct slice list)
{
    struct slice name;
    while (http1_next_item(&list, &name)) {
        if (++h->hop_names > HTTP1_HOP_NAMES_MAX)
            return false;
        if (slice_eq_nocase(name, SLICE("close")))
            h->close = true;
        else if (slice_eq_nocase(name, SLICE("keep-alive")))
            h->keep_alive = true;
        for (size_t i = 0; i < h->field_count; i++) {
            struct http1_field *f = &h->fields[i];
            if (f->id == FIELD_UPGRADE && slice_eq_nocase(name, f->name))
                h->upgrade = f;
            if (slice_eq_nocase(name, f->name))
                f->hop = true;
        }
    }
    return true;
}

static bool names_connection_auth(struct slice value)
{
    static const struct slice schemes[] = { SLICE("ntlm"), SLICE("negotiate") };
    struct slice rest = value, item;
    while (http1_next_item(&rest, &item)) {
        struct slice scheme = { item.p, 0 };
        while (scheme.len < item.len && item.p[scheme.len] != ' ' && item.p[scheme.len] != '\t')
            scheme.len++;
        for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
            if (slice_eq_nocase(scheme, schemes[i]))
                return true;
    }
    return false;
}

/* Sets every derived member but framing; counts lengths and codings. */
static enum http1_error read_meaning(struct http1_head *h, bool request, bool *has_length,
                                     bool *has_coding)
{
    *has_length = *has_coding = false;
    for (size_t i = 0; i < h->field_count; i++) {
        struct http1_field *f = &h->fields[i];
        enum http1_error err = HTTP1_OK;
        switch ((enum http1_field_id)f->id) {
        case FIELD_HOST:
            if (request && h->host)
                return HTTP1_BAD_HOST;
            h->host = f; /* in a response it means nothing */
            break;
        case FIELD_CONTENT_LENGTH:
            err = read_length(h, f, has_length);
            break;
        case FIELD_TRANSFER_ENCODING:
            *has_coding = true;
            break;
        case FIELD_CONNECTION:
        case FIELD_PROXY_CONNECTION:
            f->hop = true;
            if (!mark_named_hops(h, f->value))
                err = HTTP1_BAD_FIELD;
            break;
        case FIELD_KEEP_ALIVE:
        case FIELD_PROXY_AUTHORIZATION:
        case FIELD_TE:
        case FIELD_UPGRADE:
            f->hop = true;
            break;
        case FIELD_EXPECT:
            h->expect_continue |= http1_list_has(f->value, SLICE("100-continue"));
            break;
        case FIELD_MAX_FORWARDS:
            h->max_forwards = f;
            break;
        case FIELD_AUTHORIZATION:
        case FIELD_WWW_AUTHENTICATE:
            h->auth_per_connection |= names_connection_auth(f->value);
            break;
        case FIELD_OTHER:
        case FIELD_CONTENT_TYPE:
        case FIELD_COOKIE:
        case FIELD_SET_COOKIE:
        case FIELD_TRAILER:
        case FIELD_VIA:
            break;
        }
        if (err)
            return err;
    }
    /* Framing and routing fields are ours to write; a peer cannot name them away.  Nor Expect:
     * its sender would wait for an answer that nobody was asked for. */
    for (size_t i = 0; h->hop_names > 0 && i < h->field_count; i++) {
        struct http1_field *f = &h->fields[i];
        if (f->id == FIELD_HOST || f->id == FIELD_CONTENT_LENGTH || f->id == FIELD_EXPECT ||
            f->id == FIELD_TRANSFER_ENCODING)
            f->hop = false;
    }
    return HTTP1_OK;
}

/* ---- Framing, by http-parser ---- */

static const http_parser_settings no_callbacks;

static void feed(http_parser *parser, const char *text, size_t len)
{
    http_parser_execute(parser, &no_callbacks, text, len);
}

/* http-parser behind a start line of our own making, so that any method, and any status line
 * that we took, may stand there, and behind the name that every framing field of the message
 * has: [true] of a request, [true] of a coding. */
static http_parser behind_name[2][2];

/* limits.header_bytes alone bounds a head: http-parser's own 80 KiB would refuse some that
 * are within it.  The limit is one for the process, so it is set before any thread runs. */
__attribute__((constructor)) static void prepare_parsers(void)
{
    static const char *const lines[2] = { "HTTP/1.1 200 OK\r\n", "POST / HTTP/1.1\r\n" };
    static const char *const names[2] = { "Content-Length:", "Transfer-Encoding:" };
    http_parser_set_max_header_size(UINT32_MAX);
    for (int request = 0; request < 2; request++) {
        for (int coding = 0; coding < 2; coding++) {
            http_parser *p = &behind_name[request][coding];
            http_parser_init(p, request ? HTTP_REQUEST : HTTP_RESPONSE);
            feed(p, lines[request], strlen(lines[request]));
            feed(p, names[coding], strlen(names[coding]));
        }
    }
}

static enum http1_error framing_error(const http_parser *parser)
{
    switch (HTTP_PARSER_ERRNO(parser)) {
    case HPE_OK:
        return HTTP1_OK;
    case HPE_INVALID_TRANSFER_ENCODING:
        return HTTP1_BAD_CODING;
    case HPE_INVALID_CONTENT_LENGTH:
    case HPE_UNEXPECTED_CONTENT_LENGTH:
        return HTTP1_BAD_LENGTH;
    default:
        return HTTP1_BAD_FIELD;
    }
}

/* One field that says this and nothing else.  Whatever case it is in, it has been compared. */
static bool is_plainly_chunked(const struct http1_head *h)
{
    size_t fields = 0;
    bool plain = true;
    for (size_t i = 0; i < h->field_count; i++) {
        if (h->fields[i].id != FIELD_TRANSFER_ENCODING)
            continue;
        fields++;
        plain &= h->fields[i].value.len == sizeof("chunked") - 1;
    }
    return plain && fields == 1;
}

/* What frames a message is read a second time, by a parser that many programs read it with: one
 * on which the two differ is refused.  What frames nothing is not asked for, such as a length
 * that chunked beats: where it stands must not matter; nor for a coding spelled as a list with
 * empty elements (RFC 9110 5.6.1), which that parser does not know and nobody is sent. */
static enum http1_error confirm_framing(const struct http1_head *h, bool request)
{
    if (h->framing == FRAMING_NONE || h->framing == FRAMING_CLOSE)
        return HTTP1_OK;
    bool chunked = h->framing == FRAMING_CHUNKED;
    if (chunked && !is_plainly_chunked(h))
        return HTTP1_OK;
    uint8_t id = chunked ? FIELD_TRANSFER_ENCODING : FIELD_CONTENT_LENGTH;
    http_parser parser = behind_name[request][chunked];
    bool first = true;
    for (size_t i = 0; i < h->field_count; i++) {
        const struct http1_field *f = &h->fields[i];
        if (f->id != id)
            continue;
        const char *from = f->value.p, *to = f->value.p + f->value.len;
        if (!first) {
            feed(&parser, "\r\n", 2);
            from = f->line.p;
        }
        first = false;
        /* In a response a repeated Content-Length is no error if it says the same: read_length()
         * has seen to that (RFC 9110 8.6). */
        if (!request)
            parser.flags &= ~(unsigned)F_CONTENTLENGTH;
        feed(&parser, from, (size_t)(to - from));
    }
    if (chunked) /* of a length all digits have been read */
        feed(&parser, "\r\n\r\n", 4);
    enum http1_error err = framing_error(&parser); /* the first: it read nothing after it */
    if (!err && chunked && !(parser.flags & F_CHUNKED))
        return HTTP1_BAD_CODING;
    if (!err && !chunked && parser.content_length != h->content_length)
        return HTTP1_BAD_LENGTH;
    return err;
}

static void head_reset(struct http1_head *h)
{
    memset(h, 0, offsetof(struct http1_head, fields));
}

/* "HTTP/1.x" at p; -1: not an HTTP version, -2: another major version. */
static int read_version(const char *p, size_t len)
{
    if (len != 8 || memcmp(p, "HTTP/", 5) != 0 || p[6] != '.' || p[5] < '0' || p[5] > '9' ||
        p[7] < '0' || p[7] > '9')
        return -1;
    return p[5] == '1' ? p[7] - '0' : -2;
}

static enum http1_error read_request_line(struct http1_head *h, const char *data, size_t len)
{
    const char *sp1 = memchr(data, ' ', len);
    if (!sp1)
        return HTTP1_BAD_REQUEST_LINE;
    h->method = (struct slice){ data, (size_t)(sp1 - data) };
    const char *target = sp1 + 1;
    const char *sp2 = memchr(target, ' ', len - h->method.len - 1);
    if (!sp2)
        return HTTP1_BAD_REQUEST_LINE;
    h->target = (struct slice){ target, (size_t)(sp2 - target) };
    if (!http1_is_token(h->method) || h->target.len == 0)
        return HTTP1_BAD_REQUEST_LINE;
    if (find_control(target, sp2) != sp2)
        return HTTP1_BAD_REQUEST_LINE;
    int minor = read_version(sp2 + 1, len - (size_t)(sp2 + 1 - data));
    if (minor < 0)
        return minor == -2 ? HTTP1_BAD_VERSION : HTTP1_BAD_REQUEST_LINE;
    h->minor = minor;
    return HTTP1_OK;
}

enum http1_error http1_parse_request(struct http1_head *h, const char *data, size_t len,
                                     size_t max_fields)
{
    head_reset(h);
    const char *cr = memchr(data, '\r', len);
    if (!cr || cr[1] != '\n')
        return HTTP1_BAD_LINE_END;
    enum http1_error err = read_request_line(h, data, (size_t)(cr - data));
    if (err)
        return err;
    err = read_fields(h, cr + 2, data + len, max_fields);
    if (err)
        return err;
    bool has_length, has_coding, chunked = false;
    err = read_meaning(h, true, &has_length, &has_coding);
    if (err)
        return err;
    if (has_coding) {
        err = read_coding(h, &chunked);
        if (err)
            return err;
        /* Refused rather than repaired: a length beside a coding, or a coding in HTTP/1.0,
         * is how requests are smuggled (RFC 9112 6.1). */
        if (has_length || h->minor == 0)
            return HTTP1_BAD_CODING;
        h->framing = FRAMING_CHUNKED;
    } else if (has_length) {
        h->framing = FRAMING_LENGTH;
    }
    err = confirm_framing(h, true);
    if (err)
        return err;
    if (!h->host && h->minor >= 1 && !slice_eq(h->method, SLICE("CONNECT")))
        return HTTP1_BAD_HOST;
    if (h->minor == 0)
        h->close = true;
    return HTTP1_OK;
}

bool http1_response_hopeless(const char *data, size_t len)
{
    static const char want[] = "HTTP/1.";
    size_t n = len < sizeof(want) - 1 ? len : sizeof(want) - 1;
    return memcmp(data, want, n) != 0;
}

static enum http1_error read_status_line(struct http1_head *h, const char *data, size_t len)
{
    /* "HTTP/1.1 200 OK"; the space and reason behind the code are often left out. */
    if (len < 12 || data[8] != ' ' || (len > 12 && data[12] != ' '))
        return HTTP1_BAD_STATUS_LINE;
    h->minor = read_version(data, 8);
    if (h->minor < 0)
        return HTTP1_BAD_STATUS_LINE;
    for (size_t i = 9; i < 12; i++) {
        if (data[i] < '0' || data[i] > '9')
            return HTTP1_BAD_STATUS_LINE;
        h->status = h->status * 10 + (unsigned)(data[i] - '0');
    }
    /* 600 and above are used by some, and are not ours to forbid (RFC 9110 15). */
    if (h->status < 100)
        return HTTP1_BAD_STATUS_LINE;
    h->reason = (struct slice){ data + len, 0 };
    if (len > 13)
        h->reason = (struct slice){ data + 13, len - 13 };
    return is_text(h->reason) ? HTTP1_OK : HTTP1_BAD_STATUS_LINE;
}

/* RFC 9112 6.3, in its order. */
static enum http1_error response_framing(struct http1_head *h, bool has_length, bool has_coding,
                                         bool no_body)
{
    if (no_body || h->status < 200 || h->status == 204 || h->status == 304) {
        h->framing = FRAMING_NONE;
        /* Such a head may say how long the body of a GET would be (RFC 9110 8.6), but not if
         * it says so twice, and not where no body can ever be. */
        if (has_coding || h->status < 200 || h->status == 204)
            h->content_length_field = NULL;
        return HTTP1_OK;
    }
    if (has_coding) {
        bool chunked;
        enum http1_error err = read_coding(h, &chunked);
        if (err)
            return err;
        h->framing = FRAMING_CHUNKED;
        /* Chunked beats a length; what came with both, or in HTTP/1.0, is not trusted for
         * more (RFC 9112 6.1). */
        if (has_length)
            h->content_length_field = NULL;
        if (has_length || h->minor == 0)
            h->close = true;
        return HTTP1_OK;
    }
    h->framing = has_length ? FRAMING_LENGTH : FRAMING_CLOSE;
    return HTTP1_OK;
}

enum http1_error http1_parse_response(struct http1_head *h, const char *data, size_t len,
                                      size_t max_fields, bool no_body)
{
    head_reset(h);
    const char *cr = memchr(data, '\r', len);
    if (!cr || cr[1] != '\n')
        return HTTP1_BAD_LINE_END;
    enum http1_error err = read_status_line(h, data, (size_t)(cr - data));
    if (err)
        return err;
    err = read_fields(h, cr + 2, data + len, max_fields);
    if (err)
        return err;
    bool has_length, has_coding;
    err = read_meaning(h, false, &has_length, &has_coding);
    if (err)
        return err;
    err = response_framing(h, has_length, has_coding, no_body);
    if (err)
        return err;
    err = confirm_framing(h, false);
    if (err)
        return err;
    if (h->minor == 0 && !h->keep_alive)
        h->close = true;
    if (h->framing == FRAMING_CLOSE)
        h->close = true;
    return HTTP1_OK;
}

const struct http1_field *http1_find(const struct http1_head *h, struct slice name)
{
    for (size_t i = 0; i < h->field_count; i++)
        if (slice_eq_nocase(h->fields[i].name, name))
            return &h->fields[i];
    return NULL;
}

/* ---- Trailers ---- */

/* Fields that mean something only in a head (RFC 9110 6.5.1). */
static bool trailer_forbidden(enum http1_field_id id)
{
    return id != FIELD_OTHER && id != FIELD_VIA;
}

/* Rarely is there anything to note: "close", "keep-alive" and "TE" name no trailer. */
void http1_body_note_hops(struct http1_body *b, const struct http1_head *h)
{
    size_t len = 0;
    if (b->framing != FRAMING_CHUNKED || h->hop_names == 0)
        return;
    for (size_t i = 0; i < h->field_count; i++) {
        const struct http1_field *f = &h->fields[i];
        if (f->id != FIELD_CONNECTION && f->id != FIELD_PROXY_CONNECTION)
            continue;
        struct slice rest = f->value, name;
        while (http1_next_item(&rest, &name)) {
            if (slice_eq_nocase(name, SLICE("close")) || trailer_forbidden(field_id(name)))
                continue;
            b->hop_names = xrealloc(b->hop_names, len + name.len + 2);
            memcpy(b->hop_names + len, name.p, name.len);
            memcpy(b->hop_names + len + name.len, ",", 2);
            len += name.len + 1;
        }
    }
}

enum http1_error http1_body_trailers(const struct http1_body *b, char *out, size_t *len)
{
    *len = 0;
    if (b->trailer_len == 0)
        return HTTP1_OK;
    struct http1_head *h = xmalloc(sizeof(*h));
    head_reset(h);
    char *text = xmalloc(b->trailer_len + 2);
    memcpy(text, b->trailers, b->trailer_len);
    memcpy(text + b->trailer_len, "\r\n", 2);
    enum http1_error err = read_fields(h, text, text + b->trailer_len + 2, HTTP1_FIELDS_MAX);
    for (size_t i = 0; !err && i < h->field_count; i++)
        if (h->fields[i].id == FIELD_CONNECTION && !mark_named_hops(h, h->fields[i].value))
            err = HTTP1_BAD_FIELD;
    if (!err && b->hop_names && !mark_named_hops(h, slice_of(b->hop_names)))
        err = HTTP1_BAD_FIELD;
    for (size_t i = 0; !err && i < h->field_count; i++) {
        if (h->fields[i].hop || trailer_forbidden((enum http1_field_id)h->fields[i].id))
            continue;
        memcpy(out + *len, h->fields[i].line.p, h->fields[i].line.len);
        *len += h->fields[i].line.len;
    }
    free(text);
    free(h);
    return err;
}
