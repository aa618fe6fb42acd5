/*
 * arena.h - memory that lives as long as one configuration.
 *
 * Everything is freed at once.  Abort on exhaustion, like xmalloc.
 */
#ifndef CONFIG_ARENA_H
#define CONFIG_ARENA_H
#include <stddef.h>

struct arena {
    struct arena_block *blocks; /* owned */
};

void *arena_alloc(struct arena *a, size_t size); /* zeroed, aligned for any type */
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t len);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void arena_free(struct arena *a); /* wipes first: a secret may be inside */

#endif
