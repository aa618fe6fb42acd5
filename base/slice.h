/*
 * slice.h - a borrowed run of bytes, not terminated.
 */
#ifndef BASE_SLICE_H
#define BASE_SLICE_H
#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct slice {
    const char *p;
    size_t len;
};

#define SLICE(literal) ((struct slice){ (literal), sizeof(literal) - 1 })

static inline struct slice slice_of(const char *s)
{
    return (struct slice){ s, strlen(s) };
}
static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.len == b.len && memcmp(a.p, b.p, a.len) == 0;
}
/* ASCII letters without case; nothing else folds. */
static inline bool slice_eq_nocase(struct slice a, struct slice b)
{
    return a.len == b.len && strncasecmp(a.p, b.p, a.len) == 0;
}
/* The index of the first of the eight bytes at p that is below a space, or DEL; 8: none is.
 * Exact: a borrow goes from a byte that is reported into those behind it. */
static inline unsigned eight_find_control(const char *p)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones * 0x80;
    uint64_t x;
    memcpy(&x, p, sizeof(x));
    x = le64toh(x);
    uint64_t low = (x - ones * ' ') & ~x, del = x ^ (ones * 0x7f);
    uint64_t found = (low | ((del - ones) & ~del)) & tops;
    return found ? (unsigned)__builtin_ctzll(found) / 8 : 8;
}

#endif
