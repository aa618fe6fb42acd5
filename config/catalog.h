/*
 * catalog.h - the control plane's breakers, or its routers, with their metadata.
 *
 * PROTOCOL section 6: {"breakers":[{"id","name","metadata":{}}]}.  Made once, shared by
 * reference between threads, never changed.  Pure.
 */
#ifndef CONFIG_CATALOG_H
#define CONFIG_CATALOG_H
#include "config/config.h"

#define CATALOG_NAME_MAX 255 /* bytes; an entry whose id or name is longer is skipped */

struct catalog_entry {
    char *id;
    char *name;
    struct name_value_list metadata; /* texts only; other values are passed over */
};

struct catalog {
    struct catalog_entry *items; /* by name, then by id */
    size_t count;
    size_t skipped; /* entries without a usable id or name */
};

/* key: "breakers" or "routers".  0 and *out with one reference, or -1 and why it is no list. */
int catalog_parse(const char *json, size_t len, const char *key, struct catalog **out,
                  const char **why);
struct catalog *catalog_ref(struct catalog *c); /* any thread; NULL is fine */
void catalog_unref(struct catalog *c);          /* any thread; NULL is fine */

bool catalog_same(const struct catalog *a, const struct catalog *b);

#endif
