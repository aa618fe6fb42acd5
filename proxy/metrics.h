/*
 * metrics.h - counters: one writer per set, readable by main at any time.
 *
 * Each worker counts in its own set without atomic read-modify-write; telemetry
 * adds the sets up.  Names are those of the exposition; they are public interface.
 */
#ifndef PROXY_METRICS_H
#define PROXY_METRICS_H
#include "config/config.h"
#include "proxy/inspect.h"
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef _Atomic uint64_t counter; /* the one typedef: it marks "single writer" */

static inline void count_add(counter *c, uint64_t n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
                          memory_order_relaxed);
}
static inline void count_sub(counter *c, uint64_t n)
{
    count_add(c, (uint64_t)0 - n);
}
static inline uint64_t count_get(const counter *c)
{
    return atomic_load_explicit(c, memory_order_relaxed);
}
#define COUNT(c) count_add(&(c), 1)

enum traffic_mode {
    TRAFFIC_HTTP,
    TRAFFIC_CONNECT,
    TRAFFIC_TRANSPARENT,
    TRAFFIC_INTERCEPT,
    TRAFFIC_MODES
};
const char *traffic_mode_name(enum traffic_mode m);

/* The modes that connections and requests in flight are counted by. */
#define COUNTED_MODES (TRAFFIC_TRANSPARENT + 1)

/* How much of an attempt we could see (label "tier" of attempts_total, {tier} in tags). */
enum attempt_tier { TIER_HTTP, TIER_OPAQUE, TIER_COUNT };
const char *attempt_tier_name(enum attempt_tier t);

/* What became of a request (label "outcome" of requests_total). */
enum request_result {
    RESULT_FORWARDED,
    RESULT_REJECTED,
    RESULT_THROTTLED,
    RESULT_SHADOW_REJECTED,
    RESULT_BYPASSED,
    RESULT_FAILED,
    RESULT_CLIENT_ABORTED,
    RESULT_COUNT,
};
const char *request_result_name(enum request_result r);

/* RFC 9209 error types of our own answers (label "error" of errors_total). */
enum proxy_error {
    PERR_NONE,
    PERR_DESTINATION_UNAVAILABLE,
    PERR_CONNECTION_LIMIT_REACHED,
    PERR_DNS_TIMEOUT,
    PERR_DNS_ERROR,
    PERR_CONNECTION_REFUSED,
    PERR_CONNECTION_TIMEOUT,
    PERR_CONNECTION_TERMINATED,
    PERR_TLS_CERTIFICATE_ERROR,
    PERR_TLS_PROTOCOL_ERROR,
    PERR_TLS_ALERT_RECEIVED,
    PERR_HTTP_RESPONSE_TIMEOUT,
    PERR_HTTP_RESPONSE_INCOMPLETE,
    PERR_HTTP_PROTOCOL_ERROR,
    PERR_HTTP_REQUEST_DENIED,
    PERR_DESTINATION_IP_PROHIBITED,
    PERR_DESTINATION_IP_UNROUTABLE,
    PERR_PROXY_LOOP_DETECTED,
    PERR_HTTP_REQUEST_ERROR,
    PERR_PROXY_INTERNAL_ERROR,
    PERR_PROXY_CONFIGURATION_ERROR,
    PERR_COUNT,
};
const char *proxy_error_name(enum proxy_error e); /* "" for PERR_NONE */

#define CODE_CLASSES 6 /* none, 1xx to 5xx */

enum decision {
    DECISION_ALLOW,
    DECISION_REJECT,
    DECISION_THROTTLE,
    DECISION_SHADOW_REJECT,
    DECISION_OVERRIDE_ALLOW,
    DECISION_OVERRIDE_REJECT,
    DECISION_FAIL_OPEN,
    DECISION_COUNT,
};
const char *decision_name(enum decision d);

/* What became of a request that would have been refused but for shadow mode. */
enum shadow_result {
    SHADOW_RIGHT, /* it failed anyway */
    SHADOW_WRONG, /* it succeeded */
    SHADOW_NEUTRAL,
    SHADOW_RESULTS,
};
const char *shadow_result_name(enum shadow_result r);

/* Per route; routes past the cap share the slot of "_other". */
struct route_counters {
    counter requests[TRAFFIC_MODES][CODE_CLASSES][RESULT_COUNT];
    counter errors[PERR_COUNT];
    counter attempts[TIER_COUNT][OUTCOME_COUNT];
    counter shadow_refusals[SHADOW_RESULTS];
    counter request_body_bytes;
    counter response_body_bytes;
    counter tunnels_closed_on_open;
};

#define RULE_SLOTS    64  /* 61 names; none, "status", "slower_than"; and "_other" */
#define ROUTE_SLOTS   102 /* 100 names, "_default", "_other" */
#define BREAKER_SLOTS 201 /* 200 names and "_other" */

#define HISTOGRAM_BUCKETS 14
struct histogram { /* upper bounds are the exposition's; the last bucket is +Inf */
    counter buckets[HISTOGRAM_BUCKETS + 1];
    counter sum_us;
};

/* X(name, help): counters that are exposed as they are, "tripswitch_proxy_<name>". */
#define WORKER_PLAIN_COUNTERS(X)                                                                   \
    X(attempts_started_total, "Upstream attempts begun")                                           \
    X(upstream_connection_reuses_total, "Requests sent on a pooled upstream connection")           \
    X(upstream_pool_discards_total, "Upstream connections not returned to the pool")               \
    X(fail_open_requests_total, "Requests let through because state was not known")                \
    X(unknown_breaker_requests_total, "Requests that named a breaker the server does not have")    \
    X(ungated_hosts_total, "Requests to hosts past limits.auto_breakers or the breaker table")     \
    X(late_answers_total, "Answers that came after their attempt was judged")                      \
    X(samples_ring_full_total, "Attempt records dropped because the worker's ring was full")       \
    X(not_redirected_total, "Connections to a transparent listener that nothing redirected")       \
    X(accept_pauses_total, "Times accept paused because descriptors ran out")                      \
    X(dns_cache_hits_total, "Lookups answered from the cache")                                     \
    X(dns_stale_answers_total, "Lookups answered from an expired entry")                           \
    X(tunnels_closed_on_deny_total, "Tunnels closed because a reload denied their destination")    \
    X(connect_plaintext_http_total, "HTTP found inside CONNECT")

/* X(name): counters that become a label value of another metric, or part of a sum; the
 * tables of exposition.c say of which. */
/* clang-format off */
#define WORKER_LABELLED_COUNTERS(X) \
    X(client_connections_total_http) \
    X(client_connections_total_transparent) \
    X(doubt_never_synced) \
    X(doubt_not_loaded) \
    X(doubt_stale) \
    X(samples_ring_full_values_total) \
    X(samples_skipped_total_w) \
    X(dns_lookups_ok) \
    X(dns_lookups_nxdomain) \
    X(dns_lookups_timeout) \
    X(dns_lookups_servfail) \
    X(dns_lookups_other) \
    X(upstream_connects_ok) \
    X(upstream_connects_refused) \
    X(upstream_connects_timeout) \
    X(upstream_connects_dns) \
    X(upstream_connects_tls) \
    X(upstream_connects_other) \
    X(retries_stale_connection) \
    X(limit_connections) \
    X(limit_connections_per_client) \
    X(limit_tunnels) \
    X(limit_tunnel_pipes) \
    X(limit_headers) \
    X(limit_buffered_total) \
    X(limit_dns_queue) \
    X(limit_auto_breakers) \
    X(limit_upstream_idle) \
    X(limit_interim_responses) \
    X(limit_min_body_rate) \
    X(client_errors_bad_request) \
    X(client_errors_header_too_large) \
    X(client_errors_timeout) \
    X(client_errors_aborted) \
    X(client_errors_forbidden) \
    X(half_open_limited_eligible) \
    X(half_open_limited_rate) \
    X(half_open_limited_concurrent) \
    X(client_errors_unauthenticated) \
    X(tunnel_bytes_up) \
    X(tunnel_bytes_down)
/* clang-format on */

/* Gauges that go up and down in one worker. */
#define WORKER_PLAIN_GAUGES(X)                                                                     \
    X(attempts_in_flight, "Upstream attempts neither judged nor neutral yet")                      \
    X(upstream_connections, "Upstream connections open")                                           \
    X(upstream_connections_idle, "Upstream connections in the pool")                               \
    X(dns_cache_entries, "Names in the resolver cache")                                            \
    X(tunnels, "Tunnels open")                                                                     \
    X(buffered_bytes, "Bytes of buffer blocks in use")

struct worker_counters {
#define PLAIN(name, help) counter name;
#define LABELLED(name)    counter name;
    WORKER_PLAIN_COUNTERS(PLAIN)
    WORKER_PLAIN_GAUGES(PLAIN)
    WORKER_LABELLED_COUNTERS(LABELLED)
#undef PLAIN
#undef LABELLED
    counter client_connections[COUNTED_MODES]; /* gauges; one that carries a CONNECT is "connect" */
    counter requests_in_flight[COUNTED_MODES];
    struct route_counters routes[ROUTE_SLOTS]; /* by interned route slot */
    counter decisions[BREAKER_SLOTS][DECISION_COUNT];
    counter tunnels_total[ROUTE_SLOTS][RESULT_COUNT];
    counter rule_matches[ROUTE_SLOTS][RULE_SLOTS]; /* attempts that a rule decided */
    counter uninspected[TROUBLE_COUNT];
    struct histogram request_duration;
    struct histogram upstream_first_byte;
    struct histogram upstream_connect;
    struct histogram dns_lookup;
};

/* Upper bounds in microseconds of the histograms above (all the same). */
extern const int64_t histogram_bounds_us[HISTOGRAM_BUCKETS];
void histogram_observe(struct histogram *h, int64_t us);

/* One counter, added up over the workers; where: its offset in struct worker_counters. */
struct proxy;
uint64_t counters_sum(const struct proxy *p, size_t where);
#define SUM(p, field) counters_sum((p), offsetof(struct worker_counters, field))
#define SUM_MODES(p, field)                                                                        \
    (SUM(p, field[TRAFFIC_HTTP]) + SUM(p, field[TRAFFIC_CONNECT]) +                                \
     SUM(p, field[TRAFFIC_TRANSPARENT]))

#endif
