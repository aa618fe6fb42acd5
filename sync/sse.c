#include "sync/sse.h"
#include "base/base.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FIELD_MAX 5 /* "event"; a longer field name is none of ours */

enum sse_state {
    SSE_BOM,         /* the first bytes of the stream */
    SSE_LINE_START,  /* nothing of this line seen */
    SSE_FIELD,       /* inside the field name */
    SSE_VALUE_START, /* behind the colon: one space may be skipped */
    SSE_VALUE,       /* inside the value */
    SSE_IN_COMMENT,  /* ignored up to the end of the line */
};

enum sse_field { FIELD_IGNORED, FIELD_DATA, FIELD_EVENT };

struct sse {
    sse_handler handler;
    void *arg;
    enum sse_state state;
    enum sse_field field;
    unsigned bom_seen; /* bytes of the mark matched so far */
    bool after_cr;     /* an LF now belongs to the CR before it */
    bool too_long;
    size_t event_bytes; /* of all field lines of this event */
    size_t field_len;   /* may exceed FIELD_MAX; only that much is kept */
    size_t name_len;
    size_t data_len;
    char field_name[FIELD_MAX];
    char name[SSE_NAME_MAX + 1];
    char data[SSE_EVENT_MAX + 2]; /* the last line's LF and a NUL */
};

struct sse *sse_new(sse_handler handler, void *arg)
{
    struct sse *p = xmalloc(sizeof(*p));
    p->handler = handler;
    p->arg = arg;
    sse_reset(p);
    return p;
}

void sse_free(struct sse *p)
{
    free(p);
}

static void clear_event(struct sse *p)
{
    p->event_bytes = 0;
    p->name_len = 0;
    p->data_len = 0;
    p->too_long = false;
}

void sse_reset(struct sse *p)
{
    p->state = SSE_BOM;
    p->bom_seen = 0;
    p->after_cr = false;
    p->field_len = 0;
    clear_event(p);
}

static void dispatch(struct sse *p)
{
    struct sse_event ev = { .kind = SSE_EVENT, .name = p->name, .data = p->data };
    if (p->too_long) {
        ev.kind = SSE_TOO_LONG;
        p->name_len = 0;
        p->data_len = 0;
    } else if (p->data_len == 0) {
        clear_event(p); /* no data line at all: not an event */
        return;
    } else {
        ev.data_len = p->data_len - 1; /* less the last line's LF */
    }
    p->name[p->name_len] = '\0';
    p->data[ev.data_len] = '\0';
    p->handler(p->arg, &ev);
    clear_event(p);
}

static bool field_is(const struct sse *p, const char *name)
{
    return p->field_len == strlen(name) && memcmp(p->field_name, name, p->field_len) == 0;
}

static void field_done(struct sse *p)
{
    p->field = FIELD_IGNORED;
    if (field_is(p, "data")) {
        p->field = FIELD_DATA;
    } else if (field_is(p, "event")) {
        p->field = FIELD_EVENT;
        p->name_len = 0; /* the last one counts */
    }
}

static void end_of_line(struct sse *p)
{
    switch (p->state) {
    case SSE_BOM:
    case SSE_LINE_START:
        dispatch(p);
        break;
    case SSE_IN_COMMENT: {
        struct sse_event ev = { .kind = SSE_COMMENT, .name = "", .data = "" };
        p->handler(p->arg, &ev);
        break;
    }
    case SSE_FIELD: /* a line without a colon: a field with an empty value */
        field_done(p);
        /* fall through */
    case SSE_VALUE_START:
    case SSE_VALUE:
        if (p->field == FIELD_DATA && !p->too_long)
            p->data[p->data_len++] = '\n';
        break;
    }
    p->state = SSE_LINE_START;
}

/* How much of a run of plain bytes belongs to the line: up to its CR or LF. */
static size_t line_span(const char *bytes, size_t len)
{
    const char *lf = memchr(bytes, '\n', len);
    size_t span = lf ? (size_t)(lf - bytes) : len;
    const char *cr = memchr(bytes, '\r', span);
    return cr ? (size_t)(cr - bytes) : span;
}

static void add_value(struct sse *p, const char *bytes, size_t len)
{
    if (p->too_long)
        return;
    if (p->field == FIELD_DATA) {
        memcpy(p->data + p->data_len, bytes, len);
        p->data_len += len;
    } else if (p->field == FIELD_EVENT) {
        size_t room = SSE_NAME_MAX - p->name_len;
        size_t n = len < room ? len : room;
        memcpy(p->name + p->name_len, bytes, n);
        p->name_len += n;
    }
}

/* Count bytes of field lines; line ends count too, so that data always has room for
 * its LFs: each is one byte that was counted. */
static void count_bytes(struct sse *p, size_t len)
{
    p->event_bytes += len;
    if (p->event_bytes > SSE_EVENT_MAX) {
        p->event_bytes = SSE_EVENT_MAX; /* cannot wrap */
        p->too_long = true;
    }
}

/* One byte that is no line end; returns how many bytes it used. */
static size_t in_line(struct sse *p, const char *bytes, size_t len)
{
    size_t n = 1;
    switch (p->state) {
    case SSE_BOM:
    case SSE_LINE_START:
        p->field_len = 0;
        p->state = *bytes == ':' ? SSE_IN_COMMENT : SSE_FIELD;
        if (p->state == SSE_FIELD)
            n = 0;
        break;
    case SSE_FIELD:
        count_bytes(p, 1);
        if (*bytes == ':') {
            field_done(p);
            p->state = SSE_VALUE_START;
        } else {
            if (p->field_len < FIELD_MAX)
                p->field_name[p->field_len] = *bytes;
            p->field_len++;
        }
        break;
    case SSE_VALUE_START:
        p->state = SSE_VALUE;
        if (*bytes != ' ')
            n = 0;
        else
            count_bytes(p, 1);
        break;
    case SSE_VALUE:
        n = line_span(bytes, len);
        count_bytes(p, n);
        add_value(p, bytes, n);
        break;
    case SSE_IN_COMMENT:
        n = line_span(bytes, len);
        break;
    }
    return n;
}

/* A byte order mark is skipped; what only began like one is text after all. */
static size_t skip_bom(struct sse *p, const char *bytes)
{
    static const char mark[] = "\xEF\xBB\xBF";
    if (*bytes == mark[p->bom_seen]) {
        if (++p->bom_seen == 3)
            p->state = SSE_LINE_START;
        return 1;
    }
    p->state = SSE_LINE_START;
    for (unsigned i = 0; i < p->bom_seen; i++) {
        while (in_line(p, &mark[i], 1) == 0)
            ;
    }
    return 0;
}

void sse_feed(struct sse *p, const char *bytes, size_t len)
{
    while (len > 0) {
        size_t used = 1;
        bool lf_of_crlf = p->after_cr && *bytes == '\n';
        p->after_cr = false;
        if (lf_of_crlf) {
            /* its line has ended already */
        } else if (p->state == SSE_BOM) {
            used = skip_bom(p, bytes);
        } else if (*bytes == '\n' || *bytes == '\r') {
            p->after_cr = *bytes == '\r';
            if (p->state != SSE_IN_COMMENT && p->state != SSE_LINE_START)
                count_bytes(p, 1);
            end_of_line(p);
        } else {
            used = in_line(p, bytes, len);
        }
        bytes += used;
        len -= used;
    }
}
