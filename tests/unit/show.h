/*
 * show.h - bytes as a failure message can print them, and copies that end where the
 * memory ends, so that reading one byte too many is noticed.
 */
#ifndef TESTS_UNIT_SHOW_H
#define TESTS_UNIT_SHOW_H
#include "base/base.h"
#include "base/slice.h"

#include <stdio.h>
#include <stdlib.h>

/* "GET\r\n" with the control bytes spelt out, cut at 400 bytes.  Four may be in use at once. */
__attribute__((unused)) static const char *show(struct slice s)
{
    static char texts[4][1800];
    static unsigned turn;
    char *text = texts[turn++ % 4];
    size_t n = 0;

    for (size_t i = 0; i < s.len && i < 400; i++) {
        unsigned char c = (unsigned char)s.p[i];
        const char *format = c == '\r'                ? "\\r"
                             : c == '\n'              ? "\\n"
                             : c == '\\' || c == '"'  ? "\\%c"
                             : c >= 0x20 && c <= 0x7e ? "%c"
                                                      : "\\x%02x";
        n += (size_t)snprintf(text + n, 1800 - n, format, c);
    }
    if (s.len > 400)
        snprintf(text + n, 1800 - n, "... (%zu bytes)", s.len);
    else
        text[n] = '\0';
    return text;
}

/* The caller frees; never NULL. */
__attribute__((unused)) static char *copy_of(struct slice s)
{
    char *copy = xmalloc(s.len ? s.len : 1);

    memcpy(copy, s.p, s.len);
    return copy;
}

#endif
