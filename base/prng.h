/*
 * prng.h - fast random numbers for draws and jitter (xoshiro256**), one per thread.
 *
 * Not for secrets: those come from random_bytes(), which asks the kernel.
 */
#ifndef BASE_PRNG_H
#define BASE_PRNG_H
#include <stddef.h>
#include <stdint.h>

struct prng {
    uint64_t s[4];
};

void prng_seed(struct prng *p);                      /* from the kernel; aborts if it has none */
void prng_seed_fixed(struct prng *p, uint64_t seed); /* repeatable, for tests */
uint64_t prng_u64(struct prng *p);
uint32_t prng_u32(struct prng *p);
double prng_unit(struct prng *p); /* uniform in [0, 1) */

void random_bytes(void *out, size_t len); /* fit for keys; aborts if the kernel has none */

#endif
