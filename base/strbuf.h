/*
 * strbuf.h - text that grows, up to a bound; and JSON written into it.
 *
 * A builder remembers its first failure (the bound was met) and is asked once at
 * the end: strbuf_ok().  The text is always NUL-terminated.
 */
#ifndef BASE_STRBUF_H
#define BASE_STRBUF_H
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct strbuf {
    char *data; /* owned; NULL until the first byte */
    size_t len;
    size_t cap;
    size_t max; /* 0: SIZE_MAX / 2 */
    bool failed;
};

#define STRBUF_INIT                                                                                \
    {                                                                                              \
        0                                                                                          \
    }

void strbuf_free(struct strbuf *sb);  /* back to STRBUF_INIT */
void strbuf_clear(struct strbuf *sb); /* keeps the memory */
bool strbuf_ok(const struct strbuf *sb);
const char *strbuf_str(const struct strbuf *sb); /* never NULL */
char *strbuf_take(struct strbuf *sb);            /* the caller frees; never NULL */

void strbuf_add(struct strbuf *sb, const void *data, size_t len);
/* Mostly of a literal: where its length is known and there is room, a few moves. */
static inline void strbuf_adds(struct strbuf *sb, const char *s)
{
    size_t len = strlen(s);
    if (!__builtin_constant_p(len) || sb->failed || len >= sb->cap - sb->len) {
        strbuf_add(sb, s, len);
        return;
    }
    memcpy(sb->data + sb->len, s, len + 1);
    sb->len += len;
}
void strbuf_addc(struct strbuf *sb, char c);
void strbuf_addf(struct strbuf *sb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void strbuf_addv(struct strbuf *sb, const char *fmt, va_list ap);
void strbuf_addu(struct strbuf *sb, uint64_t n); /* decimal, without printf's cost */

/* Drop what follows the first len bytes, and with it a failure met since. */
void strbuf_truncate(struct strbuf *sb, size_t len);

/*
 * The length of the UTF-8 sequence that starts at s; len is at least 1.  When it is not
 * well-formed (overlong, a surrogate, above U+10FFFF, cut off) *valid is false and the
 * result is how many bytes one U+FFFD replaces (Unicode, "maximal subpart"), at least 1.
 */
size_t utf8_sequence(const char *s, size_t len, bool *valid);

/* How many bytes at the front are printable ASCII, or DEL, but no quote and no backslash. */
size_t strbuf_plain_prefix(const char *s, size_t len);
/* A JSON string with its quotes.  Bytes that are not UTF-8 become U+FFFD. */
void strbuf_json_string(struct strbuf *sb, const char *s, size_t len);
/* A JSON number; NaN and infinities, which JSON lacks, become null. */
void strbuf_json_number(struct strbuf *sb, double n);

/*
 * A streaming JSON writer: places commas and quotes, keeps no tree.
 *
 *     struct json j = { .sb = &sb };
 *     json_open(&j, NULL, '{');
 *     json_str(&j, "state", "open");
 *     json_close(&j);
 *
 * name is NULL inside arrays and at the top.
 */
struct json {
    struct strbuf *sb;
    unsigned depth;    /* at most 31 */
    uint32_t nonempty; /* bit per depth: a comma is due */
    uint32_t is_object;
};

void json_open(struct json *j, const char *name, char brace); /* '{' or '[' */
void json_close(struct json *j);
void json_str(struct json *j, const char *name, const char *s); /* NULL writes null */
void json_strn(struct json *j, const char *name, const char *s, size_t len);
void json_num(struct json *j, const char *name, double n);
void json_int(struct json *j, const char *name, int64_t n);
void json_bool(struct json *j, const char *name, bool b);
void json_null(struct json *j, const char *name);
void json_raw(struct json *j, const char *name, const char *json, size_t len); /* already JSON */

#endif
