/*
 * resume.h - a store goes on where the last run stood: from embedded.state_file and to it.
 */
#ifndef CONTROL_RESUME_H
#define CONTROL_RESUME_H
#include "control/store.h"

struct strbuf;

/* Before the first sample; reads the file, at start only.  A file that cannot be taken is put
 * aside with a warning, and every breaker starts closed. */
void resume_from_file(struct store *s, const char *path, struct store_now now);

/* A keeper_text: store is a struct store. */
void resume_write(void *store, struct strbuf *out);

#endif
