/*
 * ring.h - single-producer single-consumer ring of fixed-size records.
 *
 * One thread pushes, one other thread pops; no lock, no allocation after ring_new.
 * A full ring refuses the new record and the producer counts it.
 */
#ifndef BASE_RING_H
#define BASE_RING_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ring; /* opaque */

struct ring *ring_new(size_t record_size, uint32_t capacity); /* capacity: a power of two */
void ring_free(struct ring *r);                               /* NULL is fine */

/* Producer.  False: full, nothing stored.  *was_empty (may be NULL) tells whether the
 * consumer had taken everything, so that it may need a wake-up. */
bool ring_push(struct ring *r, const void *record, bool *was_empty);
/* Consumer.  False: empty. */
bool ring_pop(struct ring *r, void *record);

/* Any thread.  Positions count records ever pushed and ever popped, so "the consumer
 * has passed the position of that moment" is popped >= the pushed of then. */
uint64_t ring_pushed(const struct ring *r);
uint64_t ring_popped(const struct ring *r);

#endif
