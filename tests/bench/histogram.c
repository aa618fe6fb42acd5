#include "tests/bench/load.h"
#include <string.h>

#define MANTISSA 7

void histogram_reset(struct histogram *h)
{
    memset(h, 0, sizeof *h);
}

static size_t slot_of(uint64_t ns)
{
    if (ns < (1u << MANTISSA))
        return ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - MANTISSA;
    return ((size_t)(shift + 1) << MANTISSA) + ((ns >> shift) & ((1u << MANTISSA) - 1));
}

static uint64_t middle_of(size_t slot)
{
    if (slot < (1u << MANTISSA))
        return slot;
    unsigned shift = (unsigned)(slot >> MANTISSA) - 1;
    uint64_t low = ((uint64_t)(1u << MANTISSA) + (slot & ((1u << MANTISSA) - 1))) << shift;
    return low + ((1ULL << shift) >> 1);
}

void histogram_add(struct histogram *h, uint64_t ns)
{
    h->count++;
    h->slots[slot_of(ns)]++;
}

uint64_t histogram_at(const struct histogram *h, double quantile)
{
    uint64_t want = (uint64_t)(quantile * (double)h->count), seen = 0;
    for (size_t i = 0; i < sizeof h->slots / sizeof *h->slots; i++) {
        seen += h->slots[i];
        if (seen > want)
            return middle_of(i);
    }
    return 0;
}
