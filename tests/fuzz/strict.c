#include "tests/fuzz/strict.h"

bool strict_token(struct slice s)
{
    static const char others[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < s.len; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool digit = c >= '0' && c <= '9';
        if (!letter && !digit && (c == '\0' || !strchr(others, c)))
            return false;
    }
    return s.len > 0;
}

/* Printable, or a tab where it is allowed, or a byte above ASCII. */
static bool visible(char c, bool tab_too)
{
    unsigned char u = (unsigned char)c;
    return (u >= 0x20 && u != 0x7f) || (tab_too && u == '\t');
}

static const char *read_number(struct slice s, uint64_t *out)
{
    uint64_t n = 0;
    if (s.len == 0)
        return "an empty Content-Length";
    if (s.len > 1 && s.p[0] == '0')
        return "a Content-Length with leading zeros";
    for (size_t i = 0; i < s.len; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return "a Content-Length that is not a number";
        if (n > (UINT64_MAX - 9) / 10)
            return "a Content-Length beyond 64 bits";
        n = n * 10 + (uint64_t)(s.p[i] - '0');
    }
    *out = n;
    return NULL;
}

static bool is(struct slice name, const char *what)
{
    return slice_eq_nocase(name, slice_of(what));
}

static const char *note_field(struct strict_head *h, struct slice name, struct slice value)
{
    if (is(name, "content-length")) {
        h->lengths++;
        return read_number(value, &h->length);
    }
    if (is(name, "transfer-encoding")) {
        h->codings++;
        return is(value, "chunked") ? NULL : "a coding other than chunked";
    }
    if (is(name, "host"))
        h->hosts++;
    return NULL;
}

static const char *read_field(struct strict_head *h, struct slice line)
{
    const char *colon = memchr(line.p, ':', line.len);
    if (!colon)
        return "a field line without a colon";
    struct slice name = { line.p, (size_t)(colon - line.p) };
    struct slice value = { colon + 1, line.len - name.len - 1 };
    if (!strict_token(name))
        return "a field name that is no token";
    for (size_t i = 0; i < value.len; i++)
        if (!visible(value.p[i], true))
            return "a control byte in a field value";
    while (value.len > 0 && (value.p[0] == ' ' || value.p[0] == '\t'))
        value.p++, value.len--;
    while (value.len > 0 && (value.p[value.len - 1] == ' ' || value.p[value.len - 1] == '\t'))
        value.len--;
    if (h->count == STRICT_LINES_MAX)
        return "too many lines";
    h->fields[h->count].name = name;
    h->fields[h->count++].value = value;
    return note_field(h, name, value);
}

/* The next line, which must end in CRLF and hold neither byte otherwise. */
static const char *next_line(const char **p, const char *end, struct slice *line)
{
    const char *start = *p;
    for (const char *c = start; c < end; c++) {
        if (*c == '\n')
            return "a line feed alone";
        if (*c != '\r')
            continue;
        if (c + 1 == end || c[1] != '\n')
            return "a carriage return alone";
        *line = (struct slice){ start, (size_t)(c - start) };
        *p = c + 2;
        return NULL;
    }
    return "a line without an end";
}

static void reset(struct strict_head *h)
{
    memset(h, 0, offsetof(struct strict_head, fields));
    h->lengths = h->codings = h->hosts = 0;
    h->length = 0;
}

const char *strict_fields(struct strict_head *h, const char *data, size_t len)
{
    const char *p = data, *end = data + len, *wrong = NULL;
    struct slice line;
    reset(h);
    while (p < end && !wrong) {
        wrong = next_line(&p, end, &line);
        if (!wrong)
            wrong = line.len ? read_field(h, line) : "an empty line inside";
    }
    return wrong;
}

const char *strict_read(struct strict_head *h, const char *data, size_t len)
{
    const char *p = data, *end = data + len;
    struct slice line;
    reset(h);
    const char *wrong = next_line(&p, end, &h->start);
    while (!wrong) {
        wrong = next_line(&p, end, &line);
        if (wrong)
            return wrong;
        if (line.len == 0)
            return p == end ? NULL : "bytes behind the head";
        wrong = read_field(h, line);
    }
    return wrong;
}

const char *strict_request_line(struct slice line, struct slice *method, struct slice *target)
{
    const char *sp1 = memchr(line.p, ' ', line.len);
    const char *sp2 = sp1 ? memrchr(line.p, ' ', line.len) : NULL;
    if (!sp1 || sp1 == sp2)
        return "a request line of fewer than three parts";
    *method = (struct slice){ line.p, (size_t)(sp1 - line.p) };
    *target = (struct slice){ sp1 + 1, (size_t)(sp2 - sp1 - 1) };
    if (!strict_token(*method))
        return "a method that is no token";
    if (target->len == 0)
        return "an empty target";
    for (size_t i = 0; i < target->len; i++)
        if (!visible(target->p[i], false) || target->p[i] == ' ')
            return "a space or control byte in the target";
    struct slice version = { sp2 + 1, line.len - (size_t)(sp2 + 1 - line.p) };
    return slice_eq(version, SLICE("HTTP/1.1")) ? NULL : "another version than ours";
}

const char *strict_status_line(struct slice line, unsigned *status)
{
    if (line.len < 13 || memcmp(line.p, "HTTP/1.1 ", 9) != 0 || line.p[12] != ' ')
        return "a malformed status line";
    *status = 0;
    for (size_t i = 9; i < 12; i++) {
        if (line.p[i] < '0' || line.p[i] > '9')
            return "a status that is not a number";
        *status = *status * 10 + (unsigned)(line.p[i] - '0');
    }
    for (size_t i = 13; i < line.len; i++)
        if (!visible(line.p[i], true))
            return "a control byte in the reason";
    return NULL;
}

struct slice strict_find(const struct strict_head *h, const char *name)
{
    for (size_t i = 0; i < h->count; i++)
        if (is(h->fields[i].name, name))
            return h->fields[i].value;
    return (struct slice){ NULL, 0 };
}
