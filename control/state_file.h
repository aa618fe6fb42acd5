/*
 * state_file.h - embedded.state_file on the disk: read it, replace it.
 *
 * Both may block for as long as the disk likes.  A reader never sees half a file: what is new
 * is written beside it, synced, and renamed over it.  Neither follows a symbolic link nor
 * touches what is not a regular file.
 */
#ifndef CONTROL_STATE_FILE_H
#define CONTROL_STATE_FILE_H
#include <stddef.h>

struct strbuf;

/* The whole file, of at most max bytes, appended to out.  1: there is none.  -1: why tells. */
int state_file_read(const char *path, size_t max, struct strbuf *out, struct strbuf *why);
/* -1: why tells, and what was there before still is. */
int state_file_write(const char *path, const char *text, size_t len, struct strbuf *why);
/* Renames it to path.bad, so that nothing is lost.  -1: errno. */
int state_file_put_aside(const char *path);

#endif
