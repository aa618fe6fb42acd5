/*
 * text.h - the operator's file: JSON with comments, and where everything stands in it.
 *
 * Comments (// and slash-star) are blanked, so offsets stay.  The text is then checked strictly
 * (RFC 8259: UTF-8, no trailing commas, nothing after the value; no NUL, no key twice
 * in one object, at most 32 levels, 8 MiB) and handed to cJSON.  Keys are compared
 * with case: use cJSON's CaseSensitive getters only.
 *
 * Each node's valueint is the number of its place in the text; numbers are read from
 * valuedouble.
 */
#ifndef CONFIG_TEXT_H
#define CONFIG_TEXT_H
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

struct strbuf;
struct text; /* opaque */

#define TEXT_MAX_BYTES ((size_t)8 * 1024 * 1024)
#define TEXT_MAX_DEPTH 32
#define TEXT_PIPE_MS   2000 /* what a pipe has for all of the text */

/* 0, or -1 with the errors appended, one per line.  A file with duplicate keys only gives
 * 0 and errors: it can still be checked for others.  name is how errors call the file.
 * text_read() never waits for the writer of a pipe to come, and at most TEXT_PIPE_MS for one
 * that is there (a shell's process substitution) to be done. */
int text_read(const char *path, struct text **out, struct strbuf *errors);
int text_parse(const char *name, const char *data, size_t len, struct text **out,
               struct strbuf *errors);
void text_free(struct text *t); /* NULL is fine */

const cJSON *text_root(const struct text *t);
/* Line and column (in characters) of a node, from 1; of its key if key is set and it has one. */
void text_where(const struct text *t, const cJSON *node, bool key, unsigned *line,
                unsigned *column);
/* Appends the JSON pointer of a node; "/" for the root, so that it can be seen. */
void text_pointer(const struct text *t, const cJSON *node, struct strbuf *out);

#endif
