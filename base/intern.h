/*
 * intern.h - names to small numbers, for the life of the process.
 *
 * Ids start at 1 and are never freed or reused; 0 means "no name" or "table full".
 * Adding takes a mutex; reading a name by its id takes none and any thread may.
 */
#ifndef BASE_INTERN_H
#define BASE_INTERN_H
#include <stddef.h>
#include <stdint.h>

struct intern; /* opaque */

struct intern *intern_new(uint32_t capacity); /* at most capacity - 1 names */
void intern_free(struct intern *t);           /* NULL is fine */
uint32_t intern_add(struct intern *t, const char *name, size_t len);  /* 0: full */
uint32_t intern_find(struct intern *t, const char *name, size_t len); /* 0: absent */
const char *intern_name(const struct intern *t, uint32_t id,
                        size_t *len);          /* "" for 0; len may be NULL */
uint32_t intern_count(const struct intern *t); /* highest id given out */

#endif
