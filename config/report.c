#include "config/report.h"
#include "base/base.h"
#include "base/strbuf.h"
#include "config/text.h"
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUOTE_MAX 60

static void add_line(const struct report *r, struct strbuf *out, struct place_of at,
                     const char *fmt, va_list ap)
{
    unsigned line, column;

    if (at.node && r->text) {
        text_where(r->text, at.node, at.key, &line, &column);
        strbuf_addf(out, "%s:%u:%u: ", r->file, line, column);
        text_pointer(r->text, at.node, out);
        strbuf_adds(out, ": ");
    } else if (at.name) {
        strbuf_addf(out, "%s: ", at.name);
    }
    strbuf_addv(out, fmt, ap);
    strbuf_addc(out, '\n');
}

void report_error(struct report *r, struct place_of at, const char *fmt, ...)
{
    va_list ap;

    r->error_count++;
    if (r->muted)
        return;
    va_start(ap, fmt);
    add_line(r, r->errors, at, fmt, ap);
    va_end(ap);
}

void report_warning(struct report *r, struct place_of at, const char *fmt, ...)
{
    va_list ap;

    if (r->muted || !r->warnings)
        return;
    va_start(ap, fmt);
    add_line(r, r->warnings, at, fmt, ap);
    va_end(ap);
}

struct line {
    unsigned line, column; /* UINT_MAX: not in the file */
    size_t order;
    const char *text;
    size_t len;
};

static int compare_lines(const void *a, const void *b)
{
    const struct line *x = a, *y = b;

    if (x->line != y->line)
        return x->line < y->line ? -1 : 1;
    if (x->column != y->column)
        return x->column < y->column ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

static struct line read_line(const struct report *r, const char *text, size_t order)
{
    struct line l = { UINT_MAX, UINT_MAX, order, text, strcspn(text, "\n") + 1 };
    size_t n = r->file ? strlen(r->file) : 0;

    if (n && strncmp(text, r->file, n) == 0 && sscanf(text + n, ":%u:%u:", &l.line, &l.column) != 2)
        l.line = l.column = UINT_MAX;
    return l;
}

void report_sort(const struct report *r, struct strbuf *lines, size_t from)
{
    struct line *sorted = NULL;
    size_t count = 0;
    char *copy = xstrdup(strbuf_str(lines) + from);

    for (const char *p = copy; *p; p += sorted[count++].len) {
        sorted = xrealloc(sorted, (count + 1) * sizeof(*sorted));
        sorted[count] = read_line(r, p, count);
    }
    if (count)
        qsort(sorted, count, sizeof(*sorted), compare_lines);
    for (size_t i = 0, at = from; i < count; at += sorted[i++].len)
        memcpy(lines->data + at, sorted[i].text, sorted[i].len);
    free(sorted);
    free(copy);
}

void report_quote(struct strbuf *out, const char *value)
{
    size_t len = strlen(value);

    strbuf_json_string(out, value, len > QUOTE_MAX ? QUOTE_MAX : len);
    if (len > QUOTE_MAX)
        strbuf_adds(out, "...");
}
