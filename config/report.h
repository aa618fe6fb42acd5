/*
 * report.h - errors and warnings, each with its place.
 *
 * A place is a node of the file (FILE:LINE:COL: /pointer: message), or the name of a
 * flag or variable (NAME: message), or nothing.
 */
#ifndef CONFIG_REPORT_H
#define CONFIG_REPORT_H
#include <cjson/cJSON.h>
#include <stdbool.h>

struct strbuf;
struct text;

struct place_of {
    const cJSON *node; /* NULL: not in the file */
    bool key;          /* the node's key is meant rather than its value */
    const char *name;  /* borrowed; NULL: none */
};

struct report {
    const char *file;
    const struct text *text;
    struct strbuf *errors;
    struct strbuf *warnings;
    unsigned error_count;
    bool muted; /* what is said now has been said already */
};

void report_error(struct report *r, struct place_of at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void report_warning(struct report *r, struct place_of at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts the lines from that offset on into the order of the file; those without a place in it
 * follow as they are. */
void report_sort(const struct report *r, struct strbuf *lines, size_t from);

/* What the operator wrote, in quotes, cut at 60 bytes and fit for a line of text. */
void report_quote(struct strbuf *out, const char *value);

#endif
