/*
 * probe.h - how many half-open attempts a breaker may have, at one time and per second.
 *
 * Shared by all workers, without a lock.  A lease is a slot that holds when it expires:
 * whoever ends gives it back, and one that is not given back frees itself.  The rate
 * keeps attempts at a distance, without bursts.  Both are the breaker's, whatever route
 * or configuration asks; each caller brings its own limits, and one without any counts for
 * the others all the same, as far as there are slots.  They act after the server's draw has
 * admitted, so they only ever lower it.
 *
 * The place of a breaker is made when it first is half-open for a request, and kept.  Times are
 * the caller's: monotonic, and workers may differ by a turn of their loops.
 */
#ifndef PROXY_PROBE_H
#define PROXY_PROBE_H
#include "config/config.h"
#include "proxy/gate.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define PROBE_LEASE_MS 60000 /* without half_open.timeout */
#define PROBE_GRACE_MS 1000  /* with it: what was cut in time has ended by then */

struct probes; /* opaque, one per process */

struct probe_limits {
    bool chooses;        /* false: everybody is eligible */
    unsigned concurrent; /* 0: off */
    uint64_t spacing_us; /* between two attempts; 0: off */
    int64_t lease_ms;
    const struct string_list *methods; /* borrowed from the route; none: every method */
    int64_t max_body;                  /* OFF */
};
/* The lower of max_per_second and this proxy's share of fleet.max_per_second counts. */
struct probe_limits probe_limits_of(const struct route *r);

/* body_bytes: -1 if its size is not known. */
bool probe_eligible(const struct probe_limits *l, const char *method, size_t method_len,
                    int64_t body_bytes);

struct probe_lease {
    _Atomic uint64_t *slot;
    uint64_t value; /* what we put there; another's is never the same */
};

/* What one attempt holds: a lease of each half-open breaker of its route; without a limit on
 * their number, of those that have a slot left. */
struct probe_pass {
    unsigned count;
    struct probe_lease leases[MAX_BREAKERS];
};

struct probes *probes_new(void);
void probes_free(struct probes *p);

/* Every one of the breakers (by slot id) must grant a lease and its turn.  BOUND_NONE: pass is
 * filled; else the bound that refused, and *breaker is the index of the one that did: then
 * nothing has been taken from any. */
enum half_open_bound probe_admit(struct probes *p, const struct probe_limits *l,
                                 const uint32_t *breakers, unsigned count, int64_t now_us,
                                 struct probe_pass *pass, unsigned *breaker);
/* Gives back what has not expired and gone to somebody else; once more does nothing. */
void probe_release(struct probe_pass *pass);
/* Leases that neither ended nor expired. */
unsigned probes_held(const struct probes *p, uint32_t breaker, int64_t now_us);
uint64_t probes_held_sum(const struct probes *p, uint32_t last,
                         int64_t now_us); /* slots 0 to last */

#endif
