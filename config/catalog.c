#include "config/catalog.h"
#include "base/base.h"
#include "config/arena.h"
#include <cjson/cJSON.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* What a struct catalog * really points into. */
struct shared {
    struct catalog catalog; /* first */
    struct arena arena;
    _Atomic unsigned refs;
};

static const char *text_of(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    size_t len = cJSON_IsString(item) ? strlen(item->valuestring) : 0;
    return len > 0 && len <= CATALOG_NAME_MAX ? item->valuestring : NULL;
}

static size_t count_texts(const cJSON *metadata)
{
    size_t n = 0;
    for (const cJSON *p = metadata ? metadata->child : NULL; p; p = p->next)
        n += cJSON_IsString(p) && p->string;
    return n;
}

static void read_metadata(struct arena *a, struct name_value_list *out, const cJSON *metadata)
{
    size_t count = cJSON_IsObject(metadata) ? count_texts(metadata) : 0;
    if (count == 0)
        return;
    out->items = arena_alloc(a, count * sizeof(*out->items));
    for (const cJSON *p = metadata->child; p; p = p->next) {
        if (!cJSON_IsString(p) || !p->string)
            continue;
        out->items[out->count++] =
            (struct name_value){ arena_strdup(a, p->string), arena_strdup(a, p->valuestring) };
    }
}

static void read_entries(struct shared *s, const cJSON *list)
{
    struct catalog *c = &s->catalog;
    c->items = arena_alloc(&s->arena, ((size_t)cJSON_GetArraySize(list) + 1) * sizeof(*c->items));
    for (const cJSON *node = list ? list->child : NULL; node; node = node->next) {
        const char *id = text_of(node, "id"), *name = text_of(node, "name");
        if (!id || !name) {
            c->skipped++;
            continue;
        }
        struct catalog_entry *e = &c->items[c->count++];
        *e = (struct catalog_entry){ .id = arena_strdup(&s->arena, id),
                                     .name = arena_strdup(&s->arena, name) };
        read_metadata(&s->arena, &e->metadata, cJSON_GetObjectItemCaseSensitive(node, "metadata"));
    }
}

static int by_name(const void *a, const void *b)
{
    const struct catalog_entry *x = a, *y = b;
    int names = strcmp(x->name, y->name);
    return names ? names : strcmp(x->id, y->id);
}

int catalog_parse(const char *json, size_t len, const char *key, struct catalog **out,
                  const char **why)
{
    *why = "not a JSON object with that list";
    /* cJSON's strings end at a NUL, so "a\u0000b" would be taken for "a" */
    if (memmem(json, len, "\\u0000", 6)) {
        *why = "a text holds a NUL";
        return -1;
    }
    cJSON *root = cJSON_ParseWithLength(json, len);
    const cJSON *list = cJSON_IsObject(root) ? cJSON_GetObjectItemCaseSensitive(root, key) : NULL;
    if (!cJSON_IsArray(list)) {
        cJSON_Delete(root);
        return -1;
    }
    struct shared *s = xcalloc(1, sizeof(*s));
    atomic_init(&s->refs, 1);
    read_entries(s, list);
    cJSON_Delete(root);
    if (s->catalog.count > 1)
        qsort(s->catalog.items, s->catalog.count, sizeof(*s->catalog.items), by_name);
    *out = &s->catalog;
    return 0;
}

static struct shared *shared_of(struct catalog *c)
{
    return (struct shared *)(void *)c;
}

struct catalog *catalog_ref(struct catalog *c)
{
    if (c)
        atomic_fetch_add_explicit(&shared_of(c)->refs, 1, memory_order_relaxed);
    return c;
}

void catalog_unref(struct catalog *c)
{
    if (!c || atomic_fetch_sub_explicit(&shared_of(c)->refs, 1, memory_order_acq_rel) != 1)
        return;
    arena_free(&shared_of(c)->arena);
    free(shared_of(c));
}

static bool same_pairs(const struct name_value_list *a, const struct name_value_list *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->items[i].name, b->items[i].name) != 0 ||
            strcmp(a->items[i].value, b->items[i].value) != 0)
            return false;
    return true;
}

bool catalog_same(const struct catalog *a, const struct catalog *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->items[i].id, b->items[i].id) != 0 ||
            strcmp(a->items[i].name, b->items[i].name) != 0 ||
            !same_pairs(&a->items[i].metadata, &b->items[i].metadata))
            return false;
    return true;
}
