/*
 * template.h - names that hold "{host}", forwards and backwards.  Pure.
 */
#ifndef CONTROL_TEMPLATE_H
#define CONTROL_TEMPLATE_H
#include "base/slice.h"
#include <stdbool.h>
#include <stddef.h>

struct strbuf;

bool template_has_host(const char *tmpl);
/* Bytes outside the "{host}"s: the more there are, the more a match says. */
size_t template_literal_len(const char *tmpl);
/* Appends tmpl with each "{host}" replaced. */
void template_expand(const char *tmpl, struct slice host, struct strbuf *out);
/* True if some non-empty host turns tmpl into name; *host then borrows from name. */
bool template_match(const char *tmpl, const char *name, struct slice *host);

#endif
