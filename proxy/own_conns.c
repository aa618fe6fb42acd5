#include "proxy/own_conns.h"
#include "base/base.h"
#include "base/map.h"
#include "proxy/dns.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PLACES 65536
#define WINDOW 16 /* places that one pair of addresses may take */
#define MET    1U /* in a place, besides the hash */

struct own_conns {
    _Atomic uint64_t places[PLACES]; /* 0: free */
};

struct own_conns *own_conns_new(void)
{
    return xcalloc(1, sizeof(struct own_conns));
}

void own_conns_free(struct own_conns *o)
{
    free(o);
}

/* 18 bytes; an IPv4 address is the same in either family. */
static void add_address(uint8_t *out, const struct address *a)
{
    if (a->sa.sa_family == AF_INET6) {
        memcpy(out, &a->in6.sin6_addr, 16);
        memcpy(out + 16, &a->in6.sin6_port, 2);
        return;
    }
    memset(out, 0, 10);
    memset(out + 10, 0xff, 2);
    memcpy(out + 12, &a->in.sin_addr, 4);
    memcpy(out + 16, &a->in.sin_port, 2);
}

static uint64_t hash_of(const struct address *from, const struct address *to)
{
    uint8_t pair[36];
    add_address(pair, from);
    add_address(pair + 18, to);
    return (keyed_hash(pair, sizeof(pair)) | 2) & ~(uint64_t)MET;
}

static uint32_t nth_place(uint64_t hash, unsigned i)
{
    return (uint32_t)((hash >> 32) + i) % PLACES;
}

uint32_t own_conns_add(struct own_conns *o, const struct address *local, const struct address *to)
{
    if (!o)
        return 0;
    uint64_t hash = hash_of(local, to);
    for (unsigned i = 0; i < WINDOW; i++) {
        uint64_t unused = 0;
        uint32_t place = nth_place(hash, i);
        if (atomic_compare_exchange_strong(&o->places[place], &unused, hash))
            return place + 1;
    }
    return 0;
}

void own_conns_remove(struct own_conns *o, uint32_t place)
{
    if (o && place)
        atomic_store(&o->places[place - 1], 0);
}

bool own_conns_meet(struct own_conns *o, const struct address *peer, const struct address *original)
{
    if (!o)
        return false;
    uint64_t hash = hash_of(peer, original);
    for (unsigned i = 0; i < WINDOW; i++) {
        uint64_t found = hash;
        _Atomic uint64_t *place = &o->places[nth_place(hash, i)];
        /* It may be closed, and its place taken by another one, at any time. */
        if (atomic_compare_exchange_strong(place, &found, hash | MET) || found == (hash | MET))
            return true;
    }
    return false;
}

bool own_conns_met(const struct own_conns *o, uint32_t place)
{
    return o && place && (atomic_load(&o->places[place - 1]) & MET);
}
