/*
 * status.h - the state of the process as JSON, and the few sums that /metrics and the
 * status page show as well.
 *
 * Called by main; reads counters of running threads.  No secrets: of the control plane's
 * URL neither user, password nor query is shown.
 */
#ifndef PROXY_STATUS_H
#define PROXY_STATUS_H
#include "proxy/metrics.h"
#include "sync/breakers.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct proxy;
struct snapshot;
struct strbuf;

/* Liveness never depends on the network: every worker has ticked within this time. */
#define STATUS_STALL_MS 10000
bool status_live(const struct proxy *p, int64_t now_ms); /* monotonic */
bool status_worker_live(const struct proxy *p, unsigned worker, int64_t now_ms);
bool status_ready(const struct proxy *p); /* started, and not draining */

/* Client connections that are let in: the configured limit, or what descriptors allow. */
int64_t status_connection_limit(const struct proxy *p);

/* Exactly, at quiet moments: recorded = sent + dropped + buffered + in flight. */
uint64_t status_samples_recorded(const struct proxy *p);
uint64_t status_samples_dropped(const struct proxy *p);
uint64_t status_samples_skipped(const struct proxy *p);
/* Our own answers by type, all routes. */
void status_errors(const struct proxy *p, uint64_t sums[PERR_COUNT]);

/* The mode of the routes that count in each slot; "mixed", or NULL: no such route any more. */
void status_route_modes(const struct snapshot *snap, const char *modes[ROUTE_SLOTS]);
/* Of one route's requests that only shadow mode let through. */
void status_shadow(const struct proxy *p, unsigned slot, uint64_t sums[SHADOW_RESULTS]);

/* How far breaker states are known, in words. */
const char *status_states(unsigned flags, uint64_t awaited_names);

/* The share of requests let through; NaN while the state is unknown. */
double status_allow_ratio(struct breaker_view v);
/* The slot of a breaker in worker_counters.decisions; those past the cap share the last. */
unsigned status_decision_slot(uint32_t id);

struct status_build { /* borrowed for ever */
    const char *version, *revision, *openssl, *libcurl, *libevent, *cares, *zlib;
};
void status_build(struct status_build *out);

void status_version(struct strbuf *out);
void status_write(const struct proxy *p, struct strbuf *out);
/* An array of at most STATUS_BREAKERS_MAX, in the order in which names became known. */
#define STATUS_BREAKERS_MAX 10000
void status_breakers(const struct proxy *p, struct strbuf *out);
/* One of them; false: nobody has named it. */
bool status_breaker(const struct proxy *p, const char *name, size_t len, struct strbuf *out);

#endif
