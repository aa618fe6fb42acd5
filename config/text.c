#include "config/text.h"
#include "base/base.h"
#include "base/strbuf.h"
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NO_KEY     SIZE_MAX
#define NUMBER_MAX 60 /* cJSON reads no longer ones */
#define PLACES_MAX (INT_MAX / 2)

struct place {
    size_t key; /* offset of the opening quote, or NO_KEY */
    size_t key_len;
    size_t value;
    int parent;     /* -1: this is the root */
    unsigned index; /* within an array */
};

struct text {
    char *name;   /* owned, as is all below */
    char *source; /* as read */
    char *bytes;  /* comments blanked, NUL-terminated */
    size_t len;
    size_t *lines; /* offset of the first byte of each */
    size_t line_count;
    cJSON *root;
    struct place *places; /* in the order of the text, which is the order of the tree */
    size_t count, cap;
};

/* One walk over the text.  The first error ends it. */
struct scan {
    struct text *t;
    size_t at;
    struct strbuf *errors;
    bool failed;
};

static void find_lines(struct text *t)
{
    size_t count = 1;

    for (size_t i = 0; i < t->len; i++)
        count += t->source[i] == '\n';
    t->lines = xcalloc(count, sizeof(*t->lines));
    t->line_count = 1; /* the first begins at 0 */
    for (size_t i = 0; i < t->len; i++)
        if (t->source[i] == '\n')
            t->lines[t->line_count++] = i + 1;
}

static void line_column(const struct text *t, size_t offset, unsigned *line, unsigned *column)
{
    size_t low = 0, high = t->line_count; /* the line is in [low, high) */

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (t->lines[middle] <= offset)
            low = middle;
        else
            high = middle;
    }
    *line = (unsigned)low + 1;
    *column = 1;
    for (size_t i = t->lines[low]; i < offset && i < t->len; i++)
        *column += ((unsigned char)t->source[i] & 0xc0) != 0x80; /* a character's first byte */
}

static int fail(struct scan *s, size_t offset, const char *what)
{
    unsigned line, column;

    if (!s->failed) {
        s->failed = true;
        line_column(s->t, offset, &line, &column);
        strbuf_addf(s->errors, "%s:%u:%u: %s\n", s->t->name, line, column, what);
    }
    return -1;
}

/* -- comments ------------------------------------------------------------------------ */

static size_t skip_string(const struct text *t, size_t i)
{
    for (i++; i < t->len && t->bytes[i] != '"' && t->bytes[i] != '\n'; i++)
        if (t->bytes[i] == '\\')
            i++;
    return i + 1;
}

/* Offset of the first byte behind the comment. */
static size_t comment_end(struct scan *s, size_t start)
{
    const struct text *t = s->t;
    size_t i = start + 2;

    if (t->bytes[start + 1] == '/') {
        while (i < t->len && t->bytes[i] != '\n')
            i++;
        return i;
    }
    for (; i + 1 < t->len; i++)
        if (t->bytes[i] == '*' && t->bytes[i + 1] == '/')
            return i + 2;
    fail(s, start, "this comment has no end");
    return t->len;
}

static void blank_comments(struct scan *s)
{
    struct text *t = s->t;

    for (size_t i = 0; i < t->len && !s->failed;) {
        if (t->bytes[i] == '"') {
            i = skip_string(t, i);
        } else if (t->bytes[i] == '/' && i + 1 < t->len &&
                   (t->bytes[i + 1] == '/' || t->bytes[i + 1] == '*')) {
            for (size_t end = comment_end(s, i); i < end; i++)
                if (t->bytes[i] != '\n')
                    t->bytes[i] = ' ';
        } else {
            i++;
        }
    }
}

/* -- the strict scanner -------------------------------------------------------------- */

static int peek(const struct scan *s)
{
    return s->at < s->t->len ? (unsigned char)s->t->bytes[s->at] : -1;
}

static void skip_space(struct scan *s)
{
    for (int c = peek(s); c == ' ' || c == '\t' || c == '\n' || c == '\r'; c = peek(s))
        s->at++;
}

/* Length of the UTF-8 character at p, 0 if it is none (RFC 3629: no overlong forms, no
 * surrogates, nothing above U+10FFFF). */
static size_t utf8_length(const unsigned char *p, size_t left)
{
    unsigned char c = p[0];
    size_t n = c < 0x80                ? 1
               : c >= 0xc2 && c < 0xe0 ? 2
               : (c & 0xf0) == 0xe0    ? 3
               : c >= 0xf0 && c < 0xf5 ? 4
                                       : 0;

    if (n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) || (c == 0xf0 && p[1] < 0x90) ||
        (c == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

/* The four hex digits behind \u, or -1. */
static int hex4(const struct scan *s, size_t at)
{
    int value = 0;

    for (size_t i = at; i < at + 4; i++) {
        int c = i < s->t->len ? s->t->bytes[i] : 0;
        int digit = c >= '0' && c <= '9'                 ? c - '0'
                    : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                         : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static int scan_escape(struct scan *s)
{
    size_t start = s->at++;
    int c = peek(s);

    if (c != 'u') {
        if (c <= 0 || !strchr("\"\\/bfnrt", c))
            return fail(s, start, "there is no such escape; write \\\\ for a backslash");
        s->at++;
        return 0;
    }
    int unit = hex4(s, s->at + 1);
    s->at += 5;
    if (unit < 0)
        return fail(s, start, "\\u needs four hexadecimal digits");
    if (unit == 0)
        return fail(s, start, "a NUL character is not allowed");
    if (unit >= 0xdc00 && unit <= 0xdfff)
        return fail(s, start, "half of a surrogate pair");
    if (unit >= 0xd800 && unit <= 0xdbff) {
        int low = peek(s) == '\\' && s->t->bytes[s->at + 1] == 'u' ? hex4(s, s->at + 2) : -1;
        if (low < 0xdc00 || low > 0xdfff)
            return fail(s, start, "half of a surrogate pair");
        s->at += 6;
    }
    return 0;
}

static int scan_string(struct scan *s)
{
    size_t start = s->at++;

    for (int c = peek(s); c != '"'; c = peek(s)) {
        if (c < 0 || c == '\n')
            return fail(s, start, "this string has no end");
        if (c < 0x20)
            return fail(s, s->at, "a control character in a string; write it as an escape");
        if (c == '\\') {
            if (scan_escape(s))
                return -1;
            continue;
        }
        size_t n = utf8_length((const unsigned char *)s->t->bytes + s->at, s->t->len - s->at);
        if (!n)
            return fail(s, s->at, "these bytes are not UTF-8");
        s->at += n;
    }
    s->at++;
    return 0;
}

static size_t scan_digits(struct scan *s)
{
    size_t n = 0;
    for (int c = peek(s); c >= '0' && c <= '9'; c = peek(s), n++)
        s->at++;
    return n;
}

static int scan_number(struct scan *s)
{
    size_t start = s->at;

    if (peek(s) == '-')
        s->at++;
    size_t first = s->at, whole = scan_digits(s);
    if (!whole)
        return fail(s, start, "this is not a value");
    if (whole > 1 && s->t->bytes[first] == '0')
        return fail(s, start, "a number must not begin with 0");
    if (peek(s) == '.') {
        s->at++;
        if (!scan_digits(s))
            return fail(s, start, "a digit is missing after the decimal point");
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-')
            s->at++;
        if (!scan_digits(s))
            return fail(s, start, "a digit is missing in the exponent");
    }
    return s->at - start > NUMBER_MAX ? fail(s, start, "this number is too long") : 0;
}

static int scan_word(struct scan *s)
{
    static const char *const words[] = { "true", "false", "null" };
    size_t start = s->at;
    size_t left = s->t->len - start;

    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        size_t n = strlen(words[i]);
        if (left >= n && memcmp(s->t->bytes + start, words[i], n) == 0) {
            s->at += n;
            int c = peek(s);
            if (c < 0 || strchr(" \t\r\n,]}", c))
                return 0;
            break;
        }
    }
    return fail(s, start, "this is not a value; text needs double quotes");
}

static size_t place_add(struct scan *s, int parent, unsigned index)
{
    struct text *t = s->t;

    if (t->count == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 256;
        t->places = xrealloc(t->places, t->cap * sizeof(*t->places));
    }
    t->places[t->count] = (struct place){ .key = NO_KEY, .parent = parent, .index = index };
    return t->count++;
}

static int scan_value(struct scan *s, size_t self, unsigned depth);

/* "key": before an object's member. */
static int scan_key(struct scan *s, size_t self)
{
    size_t start = s->at;

    if (peek(s) == '}' || peek(s) == ',')
        return fail(s, start, "a comma too many");
    if (peek(s) != '"')
        return fail(s, start, "expected a key in double quotes");
    if (scan_string(s))
        return -1;
    s->t->places[self].key = start;
    s->t->places[self].key_len = s->at - start - 2;
    skip_space(s);
    if (peek(s) != ':')
        return fail(s, s->at, "expected \":\" after the key");
    s->at++;
    skip_space(s);
    return 0;
}

static int fail_open(struct scan *s, size_t opening, int closing)
{
    return fail(s, opening,
                closing == '}' ? "this \"{\" is never closed" : "this \"[\" is never closed");
}

static int scan_members(struct scan *s, size_t parent, int closing, unsigned depth)
{
    size_t opening = s->at++;

    skip_space(s);
    if (peek(s) == closing) {
        s->at++;
        return 0;
    }
    for (unsigned index = 0;; index++) {
        size_t self = place_add(s, (int)parent, index);
        if (self > PLACES_MAX)
            return fail(s, s->at, "too many values");
        if (peek(s) < 0)
            return fail_open(s, opening, closing);
        if (closing == '}' && scan_key(s, self))
            return -1;
        if (closing == ']' && (peek(s) == ']' || peek(s) == ','))
            return fail(s, s->at, "a comma too many");
        if (scan_value(s, self, depth + 1))
            return -1;
        skip_space(s);
        int c = peek(s);
        if (c != ',' && c != closing && c >= 0)
            return fail(s, s->at,
                        closing == '}' ? "expected \",\" or \"}\" after the value"
                                       : "expected \",\" or \"]\" after the value");
        if (c < 0)
            return fail_open(s, opening, closing);
        s->at++;
        if (c == closing)
            return 0;
        skip_space(s);
    }
}

static int scan_value(struct scan *s, size_t self, unsigned depth)
{
    int c = peek(s);

    s->t->places[self].value = s->at;
    if (depth > TEXT_MAX_DEPTH)
        return fail(s, s->at, "nested too deeply");
    switch (c) {
    case -1:
        return fail(s, s->at, "the file ends where a value should be");
    case '{':
        return scan_members(s, self, '}', depth);
    case '[':
        return scan_members(s, self, ']', depth);
    case '"':
        return scan_string(s);
    case '\'':
        return fail(s, s->at, "text needs double quotes");
    default:
        return c == '-' || (c >= '0' && c <= '9') ? scan_number(s) : scan_word(s);
    }
}

static void scan_all(struct scan *s)
{
    const char *nul = memchr(s->t->source, 0, s->t->len);

    if (nul) {
        fail(s, (size_t)(nul - s->t->source), "a NUL byte is not allowed");
        return;
    }
    blank_comments(s);
    skip_space(s);
    if (s->failed || scan_value(s, place_add(s, -1, 0), 1))
        return;
    skip_space(s);
    if (s->at < s->t->len)
        fail(s, s->at, "nothing may follow the closing bracket");
}

/* -- the tree ------------------------------------------------------------------------ */

static void number_nodes(cJSON *node, int *next)
{
    for (; node; node = node->next) {
        node->valueint = (*next)++;
        number_nodes(node->child, next);
    }
}

static int compare_keys(const void *a, const void *b)
{
    const cJSON *x = *(cJSON *const *)a, *y = *(cJSON *const *)b;
    int order = strcmp(x->string, y->string);
    return order ? order : (x->valueint > y->valueint) - (x->valueint < y->valueint);
}

static void report_duplicate(const struct text *t, const cJSON *first, const cJSON *again,
                             struct strbuf *errors)
{
    unsigned line, column, first_line;

    text_where(t, first, true, &first_line, &column);
    text_where(t, again, true, &line, &column);
    strbuf_addf(errors, "%s:%u:%u: ", t->name, line, column);
    text_pointer(t, again, errors);
    strbuf_addf(errors, ": this key is already in line %u\n", first_line);
}

/* cJSON keeps both of two equal keys, and readers see the first. */
static void check_members(const struct text *t, const cJSON *object, struct strbuf *errors)
{
    size_t count = 0;
    const cJSON **keys = xcalloc((size_t)cJSON_GetArraySize(object) + 1, sizeof(const cJSON *));

    for (const cJSON *c = object->child; c; c = c->next)
        keys[count++] = c;
    qsort(keys, count, sizeof(const cJSON *), compare_keys);
    for (size_t i = 1; i < count; i++)
        if (strcmp(keys[i - 1]->string, keys[i]->string) == 0)
            report_duplicate(t, keys[i - 1], keys[i], errors);
    free(keys);
}

static void find_duplicates(const struct text *t, const cJSON *node, struct strbuf *errors)
{
    if (cJSON_IsObject(node))
        check_members(t, node, errors);
    for (const cJSON *c = node->child; c; c = c->next)
        find_duplicates(t, c, errors);
}

int text_parse(const char *name, const char *data, size_t len, struct text **out,
               struct strbuf *errors)
{
    struct text *t = xcalloc(1, sizeof(*t));
    struct scan s = { .t = t, .errors = errors };

    *out = NULL;
    t->name = xstrdup(name);
    t->len = len;
    t->source = xmalloc(len + 1);
    memcpy(t->source, data, len);
    t->source[len] = 0;
    t->bytes = xmalloc(len + 1);
    memcpy(t->bytes, t->source, len + 1);
    find_lines(t);
    scan_all(&s);
    if (!s.failed) {
        t->root = cJSON_ParseWithLength(t->bytes, len);
        int numbered = 0;
        number_nodes(t->root, &numbered);
        if (BUG(!t->root || (size_t)numbered != t->count))
            fail(&s, 0, "this file could not be read as JSON");
    }
    if (s.failed) {
        text_free(t);
        return -1;
    }
    find_duplicates(t, t->root, errors);
    *out = t;
    return 0;
}

/* -- the file ------------------------------------------------------------------------ */

void text_free(struct text *t)
{
    if (!t)
        return;
    cJSON_Delete(t->root);
    free(t->bytes);
    free(t->source);
    free(t->lines);
    free(t->places);
    free(t->name);
    free(t);
}

const cJSON *text_root(const struct text *t)
{
    return t->root;
}

void text_where(const struct text *t, const cJSON *node, bool key, unsigned *line, unsigned *column)
{
    const struct place *p = &t->places[node->valueint];
    line_column(t, key && p->key != NO_KEY ? p->key : p->value, line, column);
}

static void add_step(const struct text *t, const struct place *p, struct strbuf *out)
{
    if (p->parent < 0)
        return;
    add_step(t, &t->places[p->parent], out);
    strbuf_addc(out, '/');
    if (p->key == NO_KEY) {
        strbuf_addu(out, p->index);
        return;
    }
    for (size_t i = 0; i < p->key_len; i++) { /* RFC 6901 section 3 */
        char c = t->bytes[p->key + 1 + i];
        if (c == '~')
            strbuf_adds(out, "~0");
        else if (c == '/')
            strbuf_adds(out, "~1");
        else
            strbuf_addc(out, c);
    }
}

void text_pointer(const struct text *t, const cJSON *node, struct strbuf *out)
{
    const struct place *p = &t->places[node->valueint];
    if (p->parent < 0)
        strbuf_addc(out, '/');
    add_step(t, p, out);
}
