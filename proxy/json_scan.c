#include "proxy/json_scan.h"
#include "base/base.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum state {
    S_BOM, /* the first bytes */
    S_VALUE,
    S_ITEM_OR_END, /* behind '[' */
    S_KEY_OR_END,  /* behind '{' */
    S_KEY,         /* behind ',' in an object */
    S_COLON,
    S_AFTER, /* behind a value within a container */
    S_ROOT,  /* behind a whole document: white space, or another one */
    S_STRING,
    S_ESCAPE,
    S_HEX,
    S_NUMBER,
    S_LITERAL,
    S_BROKEN,
};

enum number_state { N_MINUS, N_ZERO, N_INT, N_DOT, N_FRACTION, N_E, N_SIGN, N_EXPONENT, N_BAD };

/* ---- Pointers ---- */

static uint32_t array_index(const char *key, size_t len)
{
    uint64_t n = 0;
    if (len == 0 || len > 9 || (key[0] == '0' && len > 1))
        return UINT32_MAX;
    for (size_t i = 0; i < len; i++) {
        if (key[i] < '0' || key[i] > '9')
            return UINT32_MAX;
        n = n * 10 + (uint64_t)(key[i] - '0');
    }
    return (uint32_t)n;
}

void json_pointer_read(struct json_pointer *p, const char *text)
{
    size_t out = 0;
    *p = (struct json_pointer){ 0 };
    if (BUG(strlen(text) > RULE_TEXT_MAX))
        return;
    while (*text == '/' && p->count < POINTER_MAX) {
        struct json_step *step = &p->steps[p->count++];
        step->start = (uint16_t)out;
        for (text++; *text && *text != '/'; text++) {
            bool escaped = *text == '~' && text[1];
            p->keys[out++] = !escaped ? *text : *++text == '1' ? '/' : '~';
        }
        step->len = (uint16_t)(out - step->start);
        step->index = array_index(p->keys + step->start, step->len);
    }
}

/* ---- Where we are ---- */

static bool in_object(const struct json_scan *s)
{
    unsigned at = s->depth - 1;
    return s->objects[at / 8] >> (at % 8) & 1;
}

/* Pointers that lead into the innermost container. */
static uint32_t live(const struct json_scan *s)
{
    return s->depth > 0 && s->depth <= POINTER_MAX ? s->live[s->depth - 1] : 0;
}

#define EACH_POINTER(i, mask)                                                                      \
    for (uint32_t left_ = (mask), i; left_ && (i = (uint32_t)__builtin_ctz(left_), true);          \
         left_ &= left_ - 1)

static uint32_t ending_at(const struct json_scan *s, uint32_t mask, unsigned steps)
{
    uint32_t ending = 0;
    EACH_POINTER(i, mask)
    {
        if (s->pointers[i].count == steps)
            ending |= BIT(i);
    }
    return ending;
}

/* The array's next item begins: which pointers name it? */
static void enter_item(struct json_scan *s)
{
    uint32_t candidates = live(s);
    s->here = 0;
    EACH_POINTER(i, candidates)
    {
        if (s->pointers[i].steps[s->depth - 1].index == s->index[s->depth - 1])
            s->here |= BIT(i);
    }
}

static void take_key(struct json_scan *s, const char *bytes, size_t len)
{
    for (size_t k = 0; k < len && s->here; k++, s->key_at++) {
        EACH_POINTER(i, s->here)
        {
            const struct json_pointer *p = &s->pointers[i];
            const struct json_step *step = &p->steps[s->depth - 1];
            if (s->key_at >= step->len || p->keys[step->start + s->key_at] != bytes[k])
                s->here &= ~BIT(i);
        }
    }
}

static void end_key(struct json_scan *s)
{
    EACH_POINTER(i, s->here)
    {
        if (s->pointers[i].steps[s->depth - 1].len != s->key_at)
            s->here &= ~BIT(i);
    }
}

/* ---- Telling ---- */

static void tell(struct json_scan *s, struct json_found found)
{
    if (!s->targets)
        return;
    found.pointers = s->targets;
    found.at = s->offset;
    if (s->handler(s->arg, &found))
        s->stopped = true;
}

static void tell_text(struct json_scan *s, const char *bytes, size_t len)
{
    if (s->in_key)
        take_key(s, bytes, len);
    else if (len > 0)
        tell(s, (struct json_found){ .what = JSON_STRING_PIECE, .piece = bytes, .len = len });
}

static void tell_number(struct json_scan *s)
{
    double n = NAN;
    if (s->targets && s->number_len < JSON_SCAN_NUMBER) {
        s->number[s->number_len] = '\0';
        n = strtod(s->number, NULL);
    }
    tell(s, (struct json_found){ .what = JSON_NUMBER, .number = isfinite(n) ? n : NAN });
}

/* ---- Values ---- */

static void end_value(struct json_scan *s)
{
    s->state = s->depth ? S_AFTER : S_ROOT;
}

static void open_container(struct json_scan *s, bool object)
{
    tell(s, (struct json_found){ .what = JSON_CONTAINER });
    if (s->depth == JSON_SCAN_DEPTH) {
        s->state = S_BROKEN;
        return;
    }
    unsigned at = s->depth++;
    uint8_t bit = (uint8_t)BIT(at % 8);
    s->objects[at / 8] = (uint8_t)(object ? s->objects[at / 8] | bit : s->objects[at / 8] & ~bit);
    if (at < POINTER_MAX) {
        s->live[at] = s->here & ~s->targets;
        s->index[at] = 0;
    }
    s->state = object ? S_KEY_OR_END : S_ITEM_OR_END;
}

static void close_container(struct json_scan *s, char c)
{
    if ((c == '}') != in_object(s)) {
        s->state = S_BROKEN;
        return;
    }
    s->depth--;
    end_value(s);
}

static void begin_string(struct json_scan *s, bool key)
{
    s->in_key = key;
    s->high = 0;
    s->key_at = 0;
    if (key)
        s->here = live(s);
    else
        tell(s, (struct json_found){ .what = JSON_STRING });
    s->state = S_STRING;
}

static void begin_literal(struct json_scan *s, enum json_find what)
{
    s->literal = (uint8_t)what;
    s->literal_at = 1;
    s->state = S_LITERAL;
}

static void begin_number(struct json_scan *s, char c)
{
    s->number[0] = c;
    s->number_len = 1;
    s->number_state = c == '-' ? N_MINUS : c == '0' ? N_ZERO : N_INT;
    s->state = S_NUMBER;
}

static void begin_value(struct json_scan *s, char c)
{
    s->targets = ending_at(s, s->here, s->depth);
    switch (c) {
    case '{':
    case '[':
        open_container(s, c == '{');
        break;
    case '"':
        begin_string(s, false);
        break;
    case 't':
        begin_literal(s, JSON_TRUE);
        break;
    case 'f':
        begin_literal(s, JSON_FALSE);
        break;
    case 'n':
        begin_literal(s, JSON_NULL);
        break;
    default:
        if (c == '-' || (c >= '0' && c <= '9'))
            begin_number(s, c);
        else
            s->state = S_BROKEN;
    }
}

static void begin_document(struct json_scan *s, char c)
{
    s->here = s->pointer_count == 32 ? UINT32_MAX : BIT(s->pointer_count) - 1;
    begin_value(s, c);
}

static void next_member(struct json_scan *s)
{
    if (in_object(s)) {
        s->state = S_KEY;
        return;
    }
    if (s->depth <= POINTER_MAX)
        s->index[s->depth - 1]++;
    enter_item(s);
    s->state = S_VALUE;
}

static void in_literal(struct json_scan *s, char c)
{
    static const char *const texts[] = {
        [JSON_NULL] = "null", [JSON_FALSE] = "false", [JSON_TRUE] = "true"
    };
    const char *text = texts[s->literal];
    if (c != text[s->literal_at]) {
        s->state = S_BROKEN;
        return;
    }
    if (text[++s->literal_at])
        return;
    tell(s, (struct json_found){ .what = (enum json_find)s->literal });
    end_value(s);
}

/* ---- Numbers ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static enum number_state next_number_state(enum number_state n, char c)
{
    switch (n) {
    case N_MINUS:
        return c == '0' ? N_ZERO : is_digit(c) ? N_INT : N_BAD;
    case N_ZERO:
        return c == '.' ? N_DOT : c == 'e' || c == 'E' ? N_E : N_BAD;
    case N_INT:
        return is_digit(c) ? N_INT : c == '.' ? N_DOT : c == 'e' || c == 'E' ? N_E : N_BAD;
    case N_DOT:
        return is_digit(c) ? N_FRACTION : N_BAD;
    case N_FRACTION:
        return is_digit(c) ? N_FRACTION : c == 'e' || c == 'E' ? N_E : N_BAD;
    case N_E:
        return is_digit(c) ? N_EXPONENT : c == '+' || c == '-' ? N_SIGN : N_BAD;
    case N_SIGN:
    case N_EXPONENT:
        return is_digit(c) ? N_EXPONENT : N_BAD;
    case N_BAD:
        break;
    }
    return N_BAD;
}

static bool number_may_end(const struct json_scan *s)
{
    return s->number_state == N_ZERO || s->number_state == N_INT || s->number_state == N_FRACTION ||
           s->number_state == N_EXPONENT;
}

static bool goes_on_number(char c)
{
    return is_digit(c) || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-';
}

/* False: the number has ended, c is not part of it. */
static bool in_number(struct json_scan *s, char c)
{
    if (goes_on_number(c)) {
        s->number_state = (uint8_t)next_number_state((enum number_state)s->number_state, c);
        if (s->number_state == N_BAD)
            s->state = S_BROKEN;
        if (s->number_len < JSON_SCAN_NUMBER)
            s->number[s->number_len++] = c;
        return true;
    }
    if (!number_may_end(s)) {
        s->state = S_BROKEN;
        return true;
    }
    tell_number(s);
    end_value(s);
    return false;
}

/* ---- Strings ---- */

static void put_code(struct json_scan *s, uint32_t c)
{
    char utf8[4];
    size_t len = 0;
    if (c < 0x80) {
        utf8[len++] = (char)c;
    } else if (c < 0x800) {
        utf8[len++] = (char)(0xc0 | c >> 6);
        utf8[len++] = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        utf8[len++] = (char)(0xe0 | c >> 12);
        utf8[len++] = (char)(0x80 | (c >> 6 & 0x3f));
        utf8[len++] = (char)(0x80 | (c & 0x3f));
    } else {
        utf8[len++] = (char)(0xf0 | c >> 18);
        utf8[len++] = (char)(0x80 | (c >> 12 & 0x3f));
        utf8[len++] = (char)(0x80 | (c >> 6 & 0x3f));
        utf8[len++] = (char)(0x80 | (c & 0x3f));
    }
    tell_text(s, utf8, len);
}

/* A high surrogate that stayed alone. */
static void flush_high(struct json_scan *s)
{
    if (s->high)
        put_code(s, 0xfffd);
    s->high = 0;
}

static void take_code(struct json_scan *s)
{
    uint32_t c = s->code;
    bool low = c >= 0xdc00 && c <= 0xdfff, high = c >= 0xd800 && c <= 0xdbff;
    if (low && s->high) {
        c = 0x10000 + ((uint32_t)(s->high - 0xd800) << 10) + (c - 0xdc00);
        s->high = 0;
        put_code(s, c);
        return;
    }
    flush_high(s);
    if (high)
        s->high = (uint16_t)c;
    else
        put_code(s, low ? 0xfffd : c);
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void in_hex(struct json_scan *s, char c)
{
    int digit = hex_value(c);
    if (digit < 0) {
        s->state = S_BROKEN;
        return;
    }
    s->code = (uint16_t)(s->code << 4 | digit);
    if (++s->hex_digits < 4)
        return;
    s->state = S_STRING;
    take_code(s);
}

static void in_escape(struct json_scan *s, char c)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *known = c ? strchr(from, c) : NULL;
    if (c == 'u') {
        s->code = s->hex_digits = 0;
        s->state = S_HEX;
        return;
    }
    if (!known) {
        s->state = S_BROKEN;
        return;
    }
    flush_high(s);
    s->state = S_STRING;
    tell_text(s, &to[known - from], 1);
}

static void end_string(struct json_scan *s)
{
    flush_high(s);
    if (s->stopped)
        return;
    if (s->in_key) {
        end_key(s);
        s->state = S_COLON;
        return;
    }
    tell(s, (struct json_found){ .what = JSON_STRING_END });
    end_value(s);
}

/* Returns how many bytes it took. */
static size_t in_string(struct json_scan *s, const char *bytes, size_t len)
{
    size_t n = 0;
    while (n < len && bytes[n] != '"' && bytes[n] != '\\')
        n++;
    if (n > 0) {
        flush_high(s);
        if (s->stopped)
            return 1;
        s->offset += n - 1; /* the first one is counted */
        tell_text(s, bytes, n);
        return n;
    }
    if (*bytes == '"')
        end_string(s);
    else
        s->state = S_ESCAPE;
    return 1;
}

/* ---- All of it ---- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Between tokens; c is no white space. */
static void between(struct json_scan *s, char c)
{
    bool end = c == '}' || c == ']';
    switch ((enum state)s->state) {
    case S_BOM:
    case S_ROOT:
        begin_document(s, c);
        return;
    case S_VALUE:
        begin_value(s, c);
        return;
    case S_ITEM_OR_END:
        if (end) {
            close_container(s, c);
        } else {
            enter_item(s);
            begin_value(s, c);
        }
        return;
    case S_KEY_OR_END:
    case S_KEY:
        if (end && s->state == S_KEY_OR_END)
            close_container(s, c);
        else if (c == '"')
            begin_string(s, true);
        else
            s->state = S_BROKEN;
        return;
    case S_COLON:
        s->state = c == ':' ? S_VALUE : S_BROKEN;
        return;
    case S_AFTER:
        if (end)
            close_container(s, c);
        else if (c == ',')
            next_member(s);
        else
            s->state = S_BROKEN;
        return;
    case S_STRING:
    case S_ESCAPE:
    case S_HEX:
    case S_NUMBER:
    case S_LITERAL:
    case S_BROKEN:
        break;
    }
    s->state = S_BROKEN;
}

/* Returns how many bytes it took; 0: the same one again. */
static size_t step(struct json_scan *s, const char *bytes, size_t len)
{
    static const char mark[] = "\xEF\xBB\xBF";
    switch ((enum state)s->state) {
    case S_STRING:
        return in_string(s, bytes, len);
    case S_ESCAPE:
        in_escape(s, *bytes);
        return 1;
    case S_HEX:
        in_hex(s, *bytes);
        return 1;
    case S_NUMBER:
        return in_number(s, *bytes);
    case S_LITERAL:
        in_literal(s, *bytes);
        return 1;
    case S_BOM:
        if (s->bom_seen < 3 && *bytes == mark[s->bom_seen]) {
            s->bom_seen++;
            return 1;
        }
        if (s->bom_seen == 1 || s->bom_seen == 2)
            s->state = S_BROKEN;
        s->bom_seen = 3;
        break;
    case S_VALUE:
    case S_ITEM_OR_END:
    case S_KEY_OR_END:
    case S_KEY:
    case S_COLON:
    case S_AFTER:
    case S_ROOT:
    case S_BROKEN:
        break;
    }
    if (!is_space(*bytes))
        between(s, *bytes);
    return 1;
}

bool json_scan_feed(struct json_scan *s, const char *bytes, size_t len)
{
    while (len > 0 && s->state != S_BROKEN && !s->stopped) {
        s->offset++;
        size_t used = step(s, bytes, len);
        if (used == 0)
            s->offset--;
        bytes += used;
        len -= used;
    }
    return s->state != S_BROKEN && !s->stopped;
}

bool json_scan_end(struct json_scan *s)
{
    if (s->stopped)
        return true;
    if (s->state == S_NUMBER && s->depth == 0 && number_may_end(s)) {
        tell_number(s);
        end_value(s);
    }
    return s->state == S_ROOT;
}

void json_scan_begin(struct json_scan *s)
{
    s->state = S_BOM;
    s->stopped = false;
    s->bom_seen = 0;
    s->depth = 0;
    s->offset = 0;
    s->here = s->targets = 0;
}

void json_scan_init(struct json_scan *s, const struct json_pointer *pointers, unsigned count,
                    json_handler handler, void *arg)
{
    *s = (struct json_scan){
        .pointers = pointers, .pointer_count = count, .handler = handler, .arg = arg
    };
    if (BUG(count > JSON_SCAN_POINTERS))
        s->pointer_count = 0;
    json_scan_begin(s);
}
