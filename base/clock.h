/*
 * clock.h - the two clocks.  Pure parts never include this: they take the time.
 *
 * Monotonic time is for every deadline and duration; wall time goes to the wire
 * and to logs only.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H
#include <stddef.h>
#include <stdint.h>

int64_t clock_mono_us(void);
int64_t clock_mono_ms(void);
int64_t clock_wall_ms(void); /* Unix epoch */
int64_t clock_wall_us(void);

/* RFC 3339, UTC, microseconds: 2026-01-02T03:04:05.678901Z (27 bytes and a NUL). */
#define CLOCK_RFC3339_SIZE 28
void clock_rfc3339(int64_t wall_us, char out[CLOCK_RFC3339_SIZE]);

#endif
