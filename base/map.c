#include "base/map.h"

#include "base/base.h"
#include "base/prng.h"

#include <endian.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* SipHash with one compression and three finalization rounds (Aumasson and Bernstein). */

struct sip {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static inline void sip_round(struct sip *s)
{
    s->v0 += s->v1;
    s->v1 = rotl(s->v1, 13) ^ s->v0;
    s->v0 = rotl(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotl(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotl(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotl(s->v1, 17) ^ s->v2;
    s->v2 = rotl(s->v2, 32);
}

static inline void sip_word(struct sip *s, uint64_t m)
{
    s->v3 ^= m;
    sip_round(s);
    s->v0 ^= m;
}

static inline uint64_t load_le64(const unsigned char *p)
{
    uint64_t m;

    memcpy(&m, p, sizeof(m));
    return le64toh(m);
}

uint64_t siphash13(const void *data, size_t len, uint64_t k0, uint64_t k1)
{
    const unsigned char *p = data;
    struct sip s = {
        .v0 = k0 ^ UINT64_C(0x736f6d6570736575),
        .v1 = k1 ^ UINT64_C(0x646f72616e646f6d),
        .v2 = k0 ^ UINT64_C(0x6c7967656e657261),
        .v3 = k1 ^ UINT64_C(0x7465646279746573),
    };

    for (size_t words = len / 8; words > 0; words--, p += 8)
        sip_word(&s, load_le64(p));

    uint64_t last = (uint64_t)len << 56;
    for (size_t i = 0; i < len % 8; i++)
        last |= (uint64_t)p[i] << (8 * i);
    sip_word(&s, last);

    s.v2 ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

static uint64_t process_key[2];
static pthread_once_t process_key_once = PTHREAD_ONCE_INIT;

static void draw_process_key(void)
{
    random_bytes(process_key, sizeof(process_key));
}

uint64_t keyed_hash(const void *data, size_t len)
{
    pthread_once(&process_key_once, draw_process_key);
    return siphash13(data, len, process_key[0], process_key[1]);
}

/*
 * Linear probing over a power of two.  An entry without a value is free.  Removal
 * moves later entries back instead of leaving marks, so lookups never slow down.
 */
struct entry {
    uint64_t hash;
    char *key; /* owned, NUL-terminated */
    size_t len;
    void *value; /* borrowed; NULL: this place is free */
};

struct map {
    struct entry *entries; /* NULL until the first put */
    size_t mask;           /* places - 1 */
    size_t count;
};

#define MAP_FIRST_SIZE 8

struct map *map_new(void)
{
    return xcalloc(1, sizeof(struct map));
}

void map_free(struct map *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; m->entries != NULL && i <= m->mask; i++)
        free(m->entries[i].key);
    free(m->entries);
    free(m);
}

/* The place that holds the key, or the free one where it would go. */
static struct entry *find_place(const struct map *m, const char *key, size_t len, uint64_t hash)
{
    for (size_t i = hash & m->mask;; i = (i + 1) & m->mask) {
        struct entry *e = &m->entries[i];
        if (e->value == NULL)
            return e;
        if (e->hash == hash && e->len == len && memcmp(e->key, key, len) == 0)
            return e;
    }
}

void *map_get(const struct map *m, const char *key, size_t len)
{
    if (m->count == 0)
        return NULL;
    return find_place(m, key, len, keyed_hash(key, len))->value;
}

static void grow(struct map *m)
{
    struct map bigger = { .mask = m->entries == NULL ? MAP_FIRST_SIZE - 1 : m->mask * 2 + 1 };

    bigger.entries = xcalloc(bigger.mask + 1, sizeof(struct entry));
    for (size_t i = 0; m->entries != NULL && i <= m->mask; i++) {
        const struct entry *e = &m->entries[i];
        if (e->value == NULL)
            continue;
        size_t to = e->hash & bigger.mask;
        while (bigger.entries[to].value != NULL) /* keys are distinct: no need to compare */
            to = (to + 1) & bigger.mask;
        bigger.entries[to] = *e;
    }
    free(m->entries);
    m->entries = bigger.entries;
    m->mask = bigger.mask;
}

static bool is_full(const struct map *m)
{
    return m->entries == NULL || m->count >= (m->mask + 1) / 8 * 7;
}

void map_put(struct map *m, const char *key, size_t len, void *value)
{
    if (BUG(value == NULL))
        return;

    uint64_t hash = keyed_hash(key, len);
    struct entry *e = m->entries == NULL ? NULL : find_place(m, key, len, hash);

    if (e != NULL && e->value != NULL) {
        e->value = value;
        return;
    }
    if (is_full(m)) {
        grow(m);
        e = find_place(m, key, len, hash);
    }
    char *copy = xmalloc(len + 1);
    memcpy(copy, key, len);
    copy[len] = '\0';
    *e = (struct entry){ .hash = hash, .key = copy, .len = len, .value = value };
    m->count++;
}

/* Entries after the hole move into it unless that would put them before their home. */
static void close_hole(struct map *m, size_t hole)
{
    for (size_t i = (hole + 1) & m->mask; m->entries[i].value != NULL; i = (i + 1) & m->mask) {
        size_t home = m->entries[i].hash & m->mask;
        if (((i - home) & m->mask) < ((i - hole) & m->mask))
            continue;
        m->entries[hole] = m->entries[i];
        hole = i;
    }
    m->entries[hole] = (struct entry){ 0 };
}

void *map_remove(struct map *m, const char *key, size_t len)
{
    if (m->count == 0)
        return NULL;

    struct entry *e = find_place(m, key, len, keyed_hash(key, len));
    void *value = e->value;

    if (value != NULL) {
        free(e->key);
        close_hole(m, (size_t)(e - m->entries));
        m->count--;
    }
    return value;
}

size_t map_count(const struct map *m)
{
    return m->count;
}

bool map_next(const struct map *m, size_t *pos, const char **key, size_t *len, void **value)
{
    for (; m->entries != NULL && *pos <= m->mask; ++*pos) {
        const struct entry *e = &m->entries[*pos];
        if (e->value == NULL)
            continue;
        if (key != NULL)
            *key = e->key;
        if (len != NULL)
            *len = e->len;
        if (value != NULL)
            *value = e->value;
        ++*pos;
        return true;
    }
    return false;
}
