#include "base/strbuf.h"

#include "base/base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 512

void strbuf_free(struct strbuf *sb)
{
    free(sb->data);
    *sb = (struct strbuf)STRBUF_INIT;
}

void strbuf_clear(struct strbuf *sb)
{
    sb->len = 0;
    sb->failed = false;
    if (sb->data != NULL)
        sb->data[0] = '\0';
}

bool strbuf_ok(const struct strbuf *sb)
{
    return !sb->failed;
}

const char *strbuf_str(const struct strbuf *sb)
{
    return sb->data != NULL ? sb->data : "";
}

char *strbuf_take(struct strbuf *sb)
{
    char *data = sb->data != NULL ? sb->data : xstrdup("");

    *sb = (struct strbuf){ .max = sb->max };
    return data;
}

static bool grow(struct strbuf *sb, size_t len)
{
    size_t max = sb->max > 0 ? sb->max : SIZE_MAX / 2;

    if (sb->failed || len > max || sb->len > max - len) {
        sb->failed = true;
        return false;
    }
    size_t need = sb->len + len + 1;
    if (need <= sb->cap)
        return true;
    size_t cap = sb->cap > 0 ? sb->cap * 2 : FIRST_CAP;
    if (cap < need)
        cap = need;
    if (cap > max)
        cap = max + 1;
    sb->data = xrealloc(sb->data, cap);
    sb->cap = cap;
    return true;
}

/* Room for len more bytes and the NUL; false: the bound is met, now or before.  Almost
 * always there is, so that is seen without a call; the memory is never larger than max. */
static inline bool reserve(struct strbuf *sb, size_t len)
{
    bool there_is = !sb->failed && len < sb->cap - sb->len;

    return there_is || grow(sb, len);
}

void strbuf_add(struct strbuf *sb, const void *data, size_t len)
{
    if (!reserve(sb, len))
        return;
    if (len > 0)
        memcpy(sb->data + sb->len, data, len);
    sb->len += len;
    sb->data[sb->len] = '\0';
}

static inline void add_char(struct strbuf *sb, char c)
{
    if (!reserve(sb, 1))
        return;
    sb->data[sb->len++] = c;
    sb->data[sb->len] = '\0';
}

void strbuf_addc(struct strbuf *sb, char c)
{
    add_char(sb, c);
}

void strbuf_addf(struct strbuf *sb, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    strbuf_addv(sb, fmt, ap);
    va_end(ap);
}

void strbuf_addv(struct strbuf *sb, const char *fmt, va_list ap)
{
    if (!reserve(sb, 0))
        return;
    va_list again;
    va_copy(again, ap);
    size_t room = sb->cap - sb->len;
    int n = vsnprintf(sb->data + sb->len, room, fmt, ap);

    if (BUG(n < 0)) {
        sb->failed = true;
    } else if (reserve(sb, (size_t)n)) {
        if ((size_t)n >= room)
            vsnprintf(sb->data + sb->len, (size_t)n + 1, fmt, again);
        sb->len += (size_t)n;
    }
    sb->data[sb->len] = '\0'; /* nothing of what did not fit */
    va_end(again);
}

void strbuf_addu(struct strbuf *sb, uint64_t n)
{
    char digits[20];
    char *end = digits + sizeof(digits);
    char *p = end;

    do
        *--p = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    strbuf_add(sb, p, (size_t)(end - p));
}

void strbuf_truncate(struct strbuf *sb, size_t len)
{
    if (BUG(len > sb->len))
        return;
    sb->len = len;
    sb->failed = false;
    if (sb->data != NULL)
        sb->data[len] = '\0';
}

/*
 * UTF-8 by the table of well-formed sequences (Unicode, table 3-7): the second byte's
 * range depends on the first, which is what excludes overlong forms, surrogates and
 * everything above U+10FFFF.
 */
size_t utf8_sequence(const char *s, size_t len, bool *valid)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned char lead = p[0];
    unsigned char low = 0x80;
    unsigned char high = 0xbf;
    size_t need;

    *valid = false;
    if (lead < 0x80)
        need = 1;
    else if (lead < 0xc2 || lead > 0xf4)
        return 1;
    else if (lead < 0xe0)
        need = 2;
    else if (lead < 0xf0)
        need = 3;
    else
        need = 4;

    if (lead == 0xe0)
        low = 0xa0;
    else if (lead == 0xed)
        high = 0x9f;
    else if (lead == 0xf0)
        low = 0x90;
    else if (lead == 0xf4)
        high = 0x8f;

    for (size_t i = 1; i < need; i++) {
        if (i >= len || p[i] < low || p[i] > high)
            return i;
        low = 0x80;
        high = 0xbf;
    }
    *valid = true;
    return need;
}

/* Whether eight bytes are all ASCII that a JSON string holds as it is. */
static bool eight_are_plain(uint64_t x)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);

    /* Each term sets the top bit of a byte: not ASCII; below a space; '"'; '\\'.  A borrow
     * into the next byte needs a byte that is already refused. */
    uint64_t refused =
        x | (x - ones * ' ') | ((x ^ (ones * '"')) - ones) | ((x ^ (ones * '\\')) - ones);
    return (refused & (ones * 0x80)) == 0;
}

static bool is_plain(char c)
{
    unsigned char u = (unsigned char)c;

    return u >= 0x20 && u < 0x80 && u != '"' && u != '\\';
}

static uint64_t eight_at(const char *s)
{
    uint64_t x;

    memcpy(&x, s, sizeof(x));
    return x;
}

/* Of four to eight bytes each is there once or twice. */
static uint64_t both_ends(const char *s, size_t len)
{
    uint32_t first, last;

    memcpy(&first, s, sizeof(first));
    memcpy(&last, s + len - sizeof(last), sizeof(last));
    return (uint64_t)first << 32 | last;
}

size_t strbuf_plain_prefix(const char *s, size_t len)
{
    size_t n = 0;

    while (len - n >= 8 && eight_are_plain(eight_at(s + n)))
        n += 8;
    if (len - n < 8 && len >= 8 && eight_are_plain(eight_at(s + len - 8)))
        return len;
    if (len >= 4 && len < 8 && eight_are_plain(both_ends(s, len)))
        return len;
    while (n < len && is_plain(s[n]))
        n++;
    return n;
}

/* One quote, backslash or control character. */
static void add_escaped(struct strbuf *sb, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char short_form[0x20] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r',
    };

    if (c >= 0x20) {
        strbuf_add(sb, (char[]){ '\\', (char)c }, 2);
    } else if (short_form[c] != '\0') {
        strbuf_add(sb, (char[]){ '\\', short_form[c] }, 2);
    } else {
        strbuf_add(sb, (char[]){ '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] }, 6);
    }
}

static void add_json_bytes(struct strbuf *sb, const char *s, size_t len)
{
    size_t i = 0;

    while (i < len) {
        size_t n = strbuf_plain_prefix(s + i, len - i);
        strbuf_add(sb, s + i, n);
        i += n;
        if (i == len)
            break;
        if ((unsigned char)s[i] < 0x80) {
            add_escaped(sb, (unsigned char)s[i++]);
            continue;
        }
        bool valid;
        n = utf8_sequence(s + i, len - i, &valid);
        strbuf_add(sb, valid ? s + i : "\xef\xbf\xbd", valid ? n : 3);
        i += n;
    }
}

void strbuf_json_string(struct strbuf *sb, const char *s, size_t len)
{
    if (!reserve(sb, len + 2))
        return;
    sb->data[sb->len++] = '"';
    if (strbuf_plain_prefix(s, len) == len) { /* nearly every string, and its room is there */
        memcpy(sb->data + sb->len, s, len);
        sb->len += len;
        sb->data[sb->len++] = '"';
        sb->data[sb->len] = '\0';
        return;
    }
    add_json_bytes(sb, s, len);
    strbuf_addc(sb, '"');
}

static void add_signed(struct strbuf *sb, int64_t n)
{
    if (n < 0)
        strbuf_addc(sb, '-');
    strbuf_addu(sb, n < 0 ? -(uint64_t)n : (uint64_t)n);
}

/* Milliseconds mostly have up to three decimals; those are exact without printf's cost. */
static bool add_thousandths(struct strbuf *sb, double n)
{
    double thousandths = nearbyint(n * 1000);

    if (!(n >= 0 && n < 1e12) || thousandths / 1000 != n)
        return false;
    uint64_t t = (uint64_t)thousandths;
    unsigned rest = (unsigned)(t % 1000);
    const char digits[] = { '.', (char)('0' + rest / 100), (char)('0' + rest / 10 % 10),
                            (char)('0' + rest % 10) };
    size_t len = sizeof(digits);
    while (digits[len - 1] == '0')
        len--;
    strbuf_addu(sb, t / 1000);
    if (rest != 0)
        strbuf_add(sb, digits, len);
    return true;
}

void strbuf_json_number(struct strbuf *sb, double n)
{
    char text[32];

    if (!isfinite(n)) {
        strbuf_adds(sb, "null");
        return;
    }
    if (fabs(n) < 0x1.0p53 && n == trunc(n)) {
        add_signed(sb, (int64_t)n);
        return;
    }
    if (add_thousandths(sb, n))
        return;
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, n);
        if (strtod(text, NULL) == n)
            break;
    }
    strbuf_adds(sb, text);
}

#define JSON_MAX_DEPTH 31

/* Comma and name before the next value.  A misplaced name spoils the text for good. */
static void place_value(struct json *j, const char *name)
{
    uint32_t here = BIT(j->depth);

    if (BUG((name != NULL) != ((j->is_object & here) != 0))) {
        j->sb->failed = true;
        return;
    }
    if (j->nonempty & here)
        add_char(j->sb, ',');
    j->nonempty |= here;
    if (name == NULL)
        return;
    strbuf_json_string(j->sb, name, strlen(name));
    add_char(j->sb, ':');
}

void json_open(struct json *j, const char *name, char brace)
{
    place_value(j, name);
    if (BUG(j->depth >= JSON_MAX_DEPTH || (brace != '{' && brace != '['))) {
        j->sb->failed = true;
        return;
    }
    j->depth++;
    j->nonempty &= ~BIT(j->depth);
    j->is_object &= ~BIT(j->depth);
    if (brace == '{')
        j->is_object |= BIT(j->depth);
    add_char(j->sb, brace);
}

void json_close(struct json *j)
{
    if (BUG(j->depth == 0)) {
        j->sb->failed = true;
        return;
    }
    add_char(j->sb, j->is_object & BIT(j->depth) ? '}' : ']');
    j->depth--;
}

void json_str(struct json *j, const char *name, const char *s)
{
    if (s == NULL)
        json_null(j, name);
    else
        json_strn(j, name, s, strlen(s));
}

void json_strn(struct json *j, const char *name, const char *s, size_t len)
{
    place_value(j, name);
    strbuf_json_string(j->sb, s, len);
}

void json_num(struct json *j, const char *name, double n)
{
    place_value(j, name);
    strbuf_json_number(j->sb, n);
}

void json_int(struct json *j, const char *name, int64_t n)
{
    place_value(j, name);
    add_signed(j->sb, n);
}

void json_bool(struct json *j, const char *name, bool b)
{
    place_value(j, name);
    strbuf_adds(j->sb, b ? "true" : "false");
}

void json_null(struct json *j, const char *name)
{
    place_value(j, name);
    strbuf_adds(j->sb, "null");
}

void json_raw(struct json *j, const char *name, const char *json, size_t len)
{
    place_value(j, name);
    strbuf_add(j->sb, json, len);
}
