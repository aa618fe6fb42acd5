/*
 * set.h - one piece of text into one field of a structure.
 *
 * The field must have the C type that options.h gives for the option's type.
 */
#ifndef CONFIG_SET_H
#define CONFIG_SET_H
#include "config/options.h"

/* A scalar is replaced, a list gets one item more.  -1: why says what is wrong. */
int set_piece(struct arena *a, const struct config_option *o, char *text, void *field,
              struct strbuf *why);
void set_control_url(struct config *cfg, char *url);                /* url NULL: unset */
void set_clear(const struct config_option *o, void *field);         /* empties a list */
size_t set_count(const struct config_option *o, const void *field); /* sets of bits: 0 */

#endif
