/*
 * map.h - byte string -> pointer, open addressing, SipHash-1-3 with a random key.
 *
 * The key is drawn once per process, so a peer who chooses the strings (host names)
 * cannot choose the buckets.  Not thread-safe.  Keys are copied in; values are
 * borrowed: the map never frees them.
 */
#ifndef BASE_MAP_H
#define BASE_MAP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map; /* opaque */

struct map *map_new(void);
void map_free(struct map *m); /* NULL is fine; values are left alone */
void *map_get(const struct map *m, const char *key, size_t len);       /* NULL: absent */
void map_put(struct map *m, const char *key, size_t len, void *value); /* value must not be NULL */
void *map_remove(struct map *m, const char *key, size_t len); /* the removed value or NULL */
size_t map_count(const struct map *m);

/* Visit every entry in no particular order; the map must not change meanwhile.
 * Start with *pos = 0; false when there is none left.  key may be NULL. */
bool map_next(const struct map *m, size_t *pos, const char **key, size_t *len, void **value);

/* The keyed hash itself, same key for the whole process. */
uint64_t keyed_hash(const void *data, size_t len);
/* SipHash-1-3 with a given 128-bit key (k0, k1), for the test vectors. */
uint64_t siphash13(const void *data, size_t len, uint64_t k0, uint64_t k1);

#endif
