#include "base/intern.h"

#include "base/base.h"
#include "base/map.h"

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A name never moves or changes once its pointer is published in by_id. */
struct name {
    size_t len;
    char text[]; /* NUL-terminated */
};

/* Names are packed into chunks; one that does not fit gets a chunk of its own size. */
#define CHUNK_BYTES (16 * 1024)

struct chunk {
    struct chunk *next;
    size_t used;
    size_t size;
    alignas(struct name) char bytes[];
};

/*
 * Both tables have their full size from the start, in pages the kernel provides on first
 * use, so readers never meet a table that moves.  The index is at most half full.
 */
struct intern {
    pthread_mutex_t adding;
    uint32_t capacity;
    uint32_t index_mask;
    _Atomic uint32_t count;
    _Atomic(const struct name *) *by_id; /* capacity entries; [0] stays NULL */
    _Atomic uint32_t *index;             /* hash -> id by linear probing; 0: free */
    struct chunk *chunks;                /* newest first; under the mutex */
};

static uint32_t index_size(uint32_t capacity)
{
    uint32_t size = 8;

    while (size / 2 < capacity)
        size *= 2;
    return size;
}

struct intern *intern_new(uint32_t capacity)
{
    if (BUG(capacity == 0 || capacity > UINT32_C(1) << 30))
        abort(); /* a constant of ours is wrong: nothing to go on with */

    struct intern *t = xcalloc(1, sizeof(*t));
    pthread_mutex_init(&t->adding, NULL);
    t->capacity = capacity;
    t->index_mask = index_size(capacity) - 1;
    t->by_id = xcalloc(capacity, sizeof(t->by_id[0]));
    t->index = xcalloc((size_t)t->index_mask + 1, sizeof(t->index[0]));
    return t;
}

void intern_free(struct intern *t)
{
    if (t == NULL)
        return;
    for (struct chunk *c = t->chunks, *next; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    free(t->by_id);
    free(t->index);
    pthread_mutex_destroy(&t->adding);
    free(t);
}

static struct name *name_alloc(struct intern *t, size_t len)
{
    size_t align = alignof(struct name);
    size_t size = (sizeof(struct name) + len + 1 + align - 1) / align * align;
    struct chunk *c = t->chunks;

    if (c == NULL || c->size - c->used < size) {
        size_t chunk_size = size > CHUNK_BYTES ? size : CHUNK_BYTES;
        c = xmalloc(sizeof(*c) + chunk_size);
        *c = (struct chunk){ .next = t->chunks, .size = chunk_size };
        t->chunks = c;
    }
    struct name *n = (struct name *)(void *)(c->bytes + c->used);
    c->used += size;
    return n;
}

/* The id of the name, or 0 and in *place where in the index it would go. */
static uint32_t lookup(const struct intern *t, const char *name, size_t len, uint32_t *place)
{
    uint32_t i = (uint32_t)keyed_hash(name, len) & t->index_mask;

    for (;; i = (i + 1) & t->index_mask) {
        uint32_t id = atomic_load_explicit(&t->index[i], memory_order_acquire);
        *place = i;
        if (id == 0)
            return 0;
        const struct name *n = atomic_load_explicit(&t->by_id[id], memory_order_relaxed);
        if (n->len == len && memcmp(n->text, name, len) == 0)
            return id;
    }
}

static uint32_t add_at(struct intern *t, uint32_t place, const char *name, size_t len)
{
    uint32_t id = atomic_load_explicit(&t->count, memory_order_relaxed) + 1;

    if (id >= t->capacity)
        return 0;
    struct name *n = name_alloc(t, len);
    n->len = len;
    memcpy(n->text, name, len);
    n->text[len] = '\0';
    atomic_store_explicit(&t->by_id[id], n, memory_order_release);
    atomic_store_explicit(&t->count, id, memory_order_release);
    atomic_store_explicit(&t->index[place], id, memory_order_release);
    return id;
}

uint32_t intern_add(struct intern *t, const char *name, size_t len)
{
    uint32_t place;
    uint32_t id = lookup(t, name, len, &place); /* names already there cost no lock */

    if (id != 0)
        return id;
    pthread_mutex_lock(&t->adding);
    id = lookup(t, name, len, &place); /* again: another thread may have just added it */
    if (id == 0)
        id = add_at(t, place, name, len);
    pthread_mutex_unlock(&t->adding);
    return id;
}

uint32_t intern_find(struct intern *t, const char *name, size_t len)
{
    uint32_t place;

    return lookup(t, name, len, &place);
}

const char *intern_name(const struct intern *t, uint32_t id, size_t *len)
{
    const struct name *n = NULL;

    if (id < t->capacity)
        n = atomic_load_explicit(&t->by_id[id], memory_order_acquire);
    if (len != NULL)
        *len = n == NULL ? 0 : n->len;
    return n == NULL ? "" : n->text;
}

uint32_t intern_count(const struct intern *t)
{
    return atomic_load_explicit(&t->count, memory_order_acquire);
}
