#include "proxy/families.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/log.h"
#include "config/resolve.h"
#include "proxy/probe.h"
#include "proxy/proxy.h"
#include "proxy/snapshot.h"
#include "proxy/status.h"
#include "proxy/switches.h"
#include "proxy/worker.h"
#include "sync/breakers.h"

#include <math.h>

/* Values of labels with a fixed set. */

static const char *mode_value(unsigned i)
{
    return traffic_mode_name((enum traffic_mode)i);
}
static const char *class_value(unsigned i)
{
    static const char *const names[CODE_CLASSES] = { "none", "1xx", "2xx", "3xx", "4xx", "5xx" };
    return names[i];
}
static const char *result_value(unsigned i)
{
    return request_result_name((enum request_result)i);
}
static const char *error_value(unsigned i)
{
    return proxy_error_name((enum proxy_error)i);
}
static const char *tier_value(unsigned i)
{
    return attempt_tier_name((enum attempt_tier)i);
}
static const char *outcome_value(unsigned i)
{
    return outcome_name((enum outcome)i);
}
static const char *shadow_value(unsigned i)
{
    return shadow_result_name((enum shadow_result)i);
}
static const char *transition_value(unsigned i)
{
    return breaker_state_name((enum breaker_state)(BREAKER_CLOSED + i));
}

static const char *state_value(unsigned i)
{
    return breaker_state_name((enum breaker_state)i);
}
static const char *decision_value(unsigned i)
{
    return decision_name((enum decision)i);
}

static const char *phase_value(unsigned i)
{
    (void)i;
    return "tcp";
}

/* Single numbers that are no counter of a worker or of sync. */

static double get_ready(const struct scrape *s)
{
    return status_ready(s->p);
}
static double get_draining(const struct scrape *s)
{
    return atomic_load(&s->p->draining);
}
static double get_reload_ok(const struct scrape *s)
{
    return s->p->last_reload_ok || s->p->reloads_ok + s->p->reloads_failed == 0;
}
static double get_reload_time(const struct scrape *s)
{
    int64_t ms = s->p->last_reload_wall_ms;
    return (double)(ms != 0 ? ms : s->p->start_wall_ms) / 1000;
}
static double get_reloads_ok(const struct scrape *s)
{
    return (double)s->p->reloads_ok;
}
static double get_reloads_failed(const struct scrape *s)
{
    return (double)s->p->reloads_failed;
}
static double get_restart_required(const struct scrape *s)
{
    return s->p->restart_required;
}
static double get_snapshots(const struct scrape *s)
{
    return s->p->snapshots;
}
static double mode_is(const struct scrape *s, enum mode mode)
{
    return s->snap == NULL ? NAN : s->snap->cfg->mode == mode;
}
static double get_enforce(const struct scrape *s)
{
    return mode_is(s, MODE_ENFORCE);
}
static double get_shadow(const struct scrape *s)
{
    return mode_is(s, MODE_SHADOW);
}
static double get_off(const struct scrape *s)
{
    return mode_is(s, MODE_OFF);
}
static bool flag(const struct scrape *s, unsigned bit)
{
    return (breakers_flags(s->p->breakers) & bit) != 0;
}
static double get_bypass(const struct scrape *s)
{
    return flag(s, STATE_BYPASS);
}
static double get_connected(const struct scrape *s)
{
    return flag(s, STATE_CONNECTED);
}
static double get_synced(const struct scrape *s)
{
    return flag(s, STATE_SYNCED);
}
static double get_stale(const struct scrape *s)
{
    return flag(s, STATE_STALE);
}
static double get_fail_open(const struct scrape *s)
{
    if (s->snap == NULL || s->snap->cfg->fail_mode != FAIL_OPEN)
        return 0;
    return !flag(s, STATE_SYNCED) || flag(s, STATE_STALE) || flag(s, STATE_AWAITED) ||
           s->sync.awaited_names > 0 || config_breakers_unresolved(s->snap->cfg);
}
static double get_streaming(const struct scrape *s)
{
    return !s->sync.polling;
}
static double get_polling(const struct scrape *s)
{
    return s->sync.polling;
}
static double get_last_poll(const struct scrape *s)
{
    return (double)s->sync.last_poll_wall_ms / 1000;
}
static double get_last_event(const struct scrape *s)
{
    return (double)s->sync.last_event_wall_ms / 1000;
}
static double get_last_flush(const struct scrape *s)
{
    return (double)s->sync.last_flush_wall_ms / 1000;
}
static double get_buffered(const struct scrape *s)
{
    return (double)s->sync.samples_buffered;
}
static double get_in_flight(const struct scrape *s)
{
    return (double)s->sync.samples_in_flight;
}
static double get_capacity(const struct scrape *s)
{
    return (double)s->sync.samples_capacity;
}
static double get_recorded(const struct scrape *s)
{
    return (double)status_samples_recorded(s->p);
}
static double get_skipped(const struct scrape *s)
{
    return (double)status_samples_skipped(s->p);
}
static double get_breakers(const struct scrape *s)
{
    return s->breakers_known;
}
static double get_awaited_names(const struct scrape *s)
{
    return (double)s->sync.awaited_names;
}
static double get_unknown_names(const struct scrape *s)
{
    return (double)s->sync.unknown_names;
}
static double get_dropped_access(const struct scrape *s)
{
    (void)s;
    return (double)log_dropped_access();
}
static double get_dropped_ops(const struct scrape *s)
{
    (void)s;
    return (double)log_dropped_ops();
}
static double get_bugs(const struct scrape *s)
{
    (void)s;
    return (double)bug_count();
}
static double get_telemetry_refused(const struct scrape *s)
{
    return (double)s->p->telemetry_refused;
}
static double get_admin_refused(const struct scrape *s)
{
    return (double)s->p->admin_refused;
}
static double get_overrides(const struct scrape *s)
{
    return (double)switches_count(s->p->switches);
}
static double get_half_open_leases(const struct scrape *s)
{
    return (double)probes_held_sum(s->p->probes, breakers_count(s->p->breakers), clock_mono_us());
}
static double get_overrides_refused(const struct scrape *s)
{
    return (double)switches_refused(s->p->switches);
}

static double or_nan(int64_t n)
{
    return n < 0 ? NAN : (double)n;
}
static double get_cpu(const struct scrape *s)
{
    return s->process.cpu_seconds < 0 ? NAN : s->process.cpu_seconds;
}
static double get_resident(const struct scrape *s)
{
    return or_nan(s->process.resident_bytes);
}
static double get_virtual(const struct scrape *s)
{
    return or_nan(s->process.virtual_bytes);
}
static double get_open_fds(const struct scrape *s)
{
    return or_nan(s->process.open_fds);
}
static double get_max_fds(const struct scrape *s)
{
    return or_nan(s->process.max_fds);
}
static double get_threads(const struct scrape *s)
{
    return or_nan(s->process.threads);
}
static double get_start_time(const struct scrape *s)
{
    return (double)s->p->start_wall_ms / 1000;
}

static double embedded(const struct scrape *s, uint64_t n)
{
    return s->p->control == NULL ? NAN : (double)n;
}
static double get_embedded_accepted(const struct scrape *s)
{
    return embedded(s, s->control.samples_accepted);
}
static double get_embedded_refused(const struct scrape *s)
{
    return embedded(s, s->control.samples_refused);
}
static double get_embedded_auto(const struct scrape *s)
{
    return embedded(s, s->control.auto_breakers);
}
static double get_embedded_auto_refused(const struct scrape *s)
{
    return embedded(s, s->control.auto_refused);
}
static double get_embedded_transitions(const struct scrape *s)
{
    return embedded(s, s->control.transitions);
}
static double get_embedded_streams(const struct scrape *s)
{
    return embedded(s, s->control.streams);
}
static double get_state_written(const struct scrape *s)
{
    return embedded(s, s->control.state_written);
}
static double get_state_failed(const struct scrape *s)
{
    return embedded(s, s->control.state_failed);
}

/* Names that share "_other" because no slot was left. */
static double get_route_overflow(const struct scrape *s)
{
    uint64_t nameless = 0;

    for (size_t i = 0; s->snap != NULL && i < s->snap->cfg->route_count; i++)
        nameless += s->snap->routes[i].slot == OTHER_ROUTE;
    return (double)(nameless + s->routes_folded);
}
static double get_breaker_overflow(const struct scrape *s)
{
    uint32_t all = breakers_count(s->p->breakers);
    return (double)(all >= OTHER_BREAKER ? all - (OTHER_BREAKER - 1) : 0) +
           (double)breakers_table_full(s->p->breakers);
}
static double get_host_overflow(const struct scrape *s)
{
    return (double)SUM(s->p, limit_auto_breakers);
}

/* The tables. */

#define WORKERS(value, field)                                                                      \
    {                                                                                              \
        value, FROM_WORKERS, offsetof(struct worker_counters, field), NULL                         \
    }
#define SYNC(value, counter)                                                                       \
    {                                                                                              \
        value, FROM_SYNC, counter, NULL                                                            \
    }
#define GET(value, function)                                                                       \
    {                                                                                              \
        value, FROM_GET, 0, function                                                               \
    }

static const struct point reloads[] = { GET("ok", get_reloads_ok),
                                        GET("error", get_reloads_failed) };
static const struct point state_writes[] = { GET("ok", get_state_written),
                                             GET("error", get_state_failed) };
static const struct point enforcement[] = { GET("enforce", get_enforce), GET("shadow", get_shadow),
                                            GET("off", get_off) };
static const struct point log_lines[] = { GET("access", get_dropped_access),
                                          GET("ops", get_dropped_ops) };
/* Nobody can tell at accept whether a CONNECT will come. */
static const struct point connections_opened[] = {
    WORKERS("http", client_connections_total_http),
    WORKERS("transparent", client_connections_total_transparent),
};
static const struct point connections_open[] = {
    WORKERS("http", client_connections[TRAFFIC_HTTP]),
    WORKERS("connect", client_connections[TRAFFIC_CONNECT]),
    WORKERS("transparent", client_connections[TRAFFIC_TRANSPARENT]),
};
static const struct point requests_open[] = {
    WORKERS("http", requests_in_flight[TRAFFIC_HTTP]),
    WORKERS("connect", requests_in_flight[TRAFFIC_CONNECT]),
    WORKERS("transparent", requests_in_flight[TRAFFIC_TRANSPARENT]),
};
static const struct point client_errors[] = {
    WORKERS("bad_request", client_errors_bad_request),
    WORKERS("header_too_large", client_errors_header_too_large),
    WORKERS("timeout", client_errors_timeout),
    WORKERS("aborted", client_errors_aborted),
    WORKERS("forbidden", client_errors_forbidden),
    WORKERS("unauthenticated", client_errors_unauthenticated),
};
static const struct point retries[] = { WORKERS("stale_connection", retries_stale_connection) };
static const struct point limits[] = {
    WORKERS("connections", limit_connections),
    WORKERS("connections_per_client", limit_connections_per_client),
    WORKERS("tunnels", limit_tunnels),
    WORKERS("tunnel_pipes", limit_tunnel_pipes),
    WORKERS("headers", limit_headers),
    WORKERS("buffered_total", limit_buffered_total),
    WORKERS("dns_queue", limit_dns_queue),
    WORKERS("auto_breakers", limit_auto_breakers),
    WORKERS("upstream_idle", limit_upstream_idle),
    WORKERS("interim_responses", limit_interim_responses),
    WORKERS("min_body_rate", limit_min_body_rate),
    GET("telemetry_connections", get_telemetry_refused),
    GET("admin_connections", get_admin_refused),
    GET("overrides", get_overrides_refused),
};
static const struct point upstream_connects[] = {
    WORKERS("ok", upstream_connects_ok),           WORKERS("refused", upstream_connects_refused),
    WORKERS("timeout", upstream_connects_timeout), WORKERS("dns", upstream_connects_dns),
    WORKERS("tls", upstream_connects_tls),         WORKERS("other", upstream_connects_other),
};
static const struct point half_open_limited[] = {
    WORKERS("eligible", half_open_limited_eligible),
    WORKERS("rate", half_open_limited_rate),
    WORKERS("concurrent", half_open_limited_concurrent),
};
static const struct point unread_responses[] = {
    WORKERS("unknown_encoding", uninspected[TROUBLE_UNKNOWN_ENCODING]),
    WORKERS("bad_encoding", uninspected[TROUBLE_BAD_ENCODING]),
    WORKERS("bad_json", uninspected[TROUBLE_BAD_JSON]),
    WORKERS("event_too_long", uninspected[TROUBLE_EVENT_TOO_LONG]),
    WORKERS("inflated_max", uninspected[TROUBLE_INFLATED_MAX]),
    WORKERS("body_limit", uninspected[TROUBLE_BODY_LIMIT]),
};
static const struct point tunnel_bytes[] = { WORKERS("up", tunnel_bytes_up),
                                             WORKERS("down", tunnel_bytes_down) };
static const struct point dns_lookups[] = {
    WORKERS("ok", dns_lookups_ok),           WORKERS("nxdomain", dns_lookups_nxdomain),
    WORKERS("timeout", dns_lookups_timeout), WORKERS("servfail", dns_lookups_servfail),
    WORKERS("other", dns_lookups_other),
};
static const struct point stream_connects[] = {
    SYNC("ok", SYNC_STREAM_CONNECTS_OK),
    SYNC("auth", SYNC_STREAM_CONNECTS_AUTH),
    SYNC("network", SYNC_STREAM_CONNECTS_NETWORK),
    SYNC("http", SYNC_STREAM_CONNECTS_HTTP),
    SYNC("protocol", SYNC_STREAM_CONNECTS_PROTOCOL),
};
static const struct point stream_disconnects[] = {
    SYNC("eof", SYNC_STREAM_DISCONNECTS_EOF),
    SYNC("timeout", SYNC_STREAM_DISCONNECTS_TIMEOUT),
    SYNC("error", SYNC_STREAM_DISCONNECTS_ERROR),
    SYNC("reload", SYNC_STREAM_DISCONNECTS_RELOAD),
};
static const struct point stream_events[] = {
    SYNC("state", SYNC_EVENTS_STATE),         SYNC("snapshot", SYNC_EVENTS_SNAPSHOT),
    SYNC("heartbeat", SYNC_EVENTS_HEARTBEAT), SYNC("unknown", SYNC_EVENTS_UNKNOWN),
    SYNC("invalid", SYNC_EVENTS_INVALID),
};
static const struct point state_sources[] = { GET("stream", get_streaming),
                                              GET("poll", get_polling) };
static const struct point metadata_syncs[] = {
    SYNC("ok", SYNC_METADATA_OK),           SYNC("not_modified", SYNC_METADATA_SAME),
    SYNC("auth", SYNC_METADATA_AUTH),       SYNC("http", SYNC_METADATA_HTTP),
    SYNC("network", SYNC_METADATA_NETWORK), SYNC("invalid", SYNC_METADATA_INVALID),
};
static const struct point metadata_skipped[] = { SYNC(NULL, SYNC_METADATA_SKIPPED) };
#define SELECTORS(value, result)                                                                   \
    {                                                                                              \
        value, FROM_SELECTORS, result, NULL                                                        \
    }
static const struct point selectors[] = {
    SELECTORS("ok", SELECTION_OK),
    SELECTORS("not_loaded", SELECTION_NOT_LOADED),
    SELECTORS("no_breaker", SELECTION_NO_BREAKER),
    SELECTORS("too_many_breakers", SELECTION_TOO_MANY_BREAKERS),
    SELECTORS("no_router", SELECTION_NO_ROUTER),
    SELECTORS("several_routers", SELECTION_SEVERAL_ROUTERS),
};
static const struct point polls[] = {
    SYNC("ok", SYNC_POLLS_OK),           SYNC("auth", SYNC_POLLS_AUTH),
    SYNC("http", SYNC_POLLS_HTTP),       SYNC("network", SYNC_POLLS_NETWORK),
    SYNC("invalid", SYNC_POLLS_INVALID),
};
static const struct point polled_states[] = {
    SYNC("state", SYNC_POLLED_STATES),
    SYNC("unknown", SYNC_POLLED_UNKNOWN),
    SYNC("invalid", SYNC_POLLED_INVALID),
    SYNC("left_out", SYNC_POLLED_LEFT_OUT),
};
static const struct point breakers_gone[] = { SYNC(NULL, SYNC_BREAKERS_GONE) };
static const struct point without_state[] = {
    WORKERS("never_synced", doubt_never_synced),
    WORKERS("not_loaded", doubt_not_loaded),
    WORKERS("stale", doubt_stale),
    WORKERS("unknown_name", unknown_breaker_requests_total),
};
static const struct point samples_sent[] = { SYNC(NULL, SYNC_SAMPLES_SENT) };
static const struct point samples_dropped[] = {
    SYNC("buffer_full", SYNC_DROPPED_BUFFER_FULL),
    SYNC("rejected", SYNC_DROPPED_REJECTED),
    SYNC("expired", SYNC_DROPPED_EXPIRED),
    SYNC("shutdown", SYNC_DROPPED_SHUTDOWN),
    WORKERS("ring_full", samples_ring_full_values_total),
};
static const struct point batches[] = {
    SYNC("ok", SYNC_BATCHES_OK),
    SYNC("auth", SYNC_BATCHES_AUTH),
    SYNC("clock_skew", SYNC_BATCHES_CLOCK_SKEW),
    SYNC("http", SYNC_BATCHES_HTTP),
    SYNC("network", SYNC_BATCHES_NETWORK),
};
static const struct point batch_bytes[] = { SYNC("raw", SYNC_BATCH_BYTES_RAW),
                                            SYNC("gzip", SYNC_BATCH_BYTES_GZIP) };
static const struct point overflows[] = { GET("route", get_route_overflow),
                                          GET("breaker", get_breaker_overflow),
                                          GET("host", get_host_overflow) };

#define NAMED(label)                                                                               \
    {                                                                                              \
        .name = (label)                                                                            \
    }
#define FIXED(label, text, n)                                                                      \
    {                                                                                              \
        .name = (label), .value = (text), .count = (n)                                             \
    }
#define N(name)           "tripswitch_proxy_" name
#define POINTS(array)     .points = (array), .point_count = ARRAY_LEN(array)
#define ONE(function)     .points = (const struct point[]){ GET(NULL, function) }, .point_count = 1
#define WORKER_ONE(field) .points = (const struct point[]){ WORKERS(NULL, field) }, .point_count = 1
#define IN_WORKERS(field) .where = offsetof(struct worker_counters, field)
#define PER_ROUTE(field)  IN_WORKERS(routes[0].field), .stride = sizeof(struct route_counters)

const struct family families[] = {
    { "process_cpu_seconds_total", COUNTER, "User and system CPU time", ONE(get_cpu) },
    { "process_resident_memory_bytes", GAUGE, "Resident memory", ONE(get_resident) },
    { "process_virtual_memory_bytes", GAUGE, "Virtual memory", ONE(get_virtual) },
    { "process_open_fds", GAUGE, "Open file descriptors", ONE(get_open_fds) },
    { "process_max_fds", GAUGE, "Limit of open file descriptors", ONE(get_max_fds) },
    { "process_start_time_seconds", GAUGE, "Start time, Unix epoch", ONE(get_start_time) },
    { "process_threads", GAUGE, "Threads", ONE(get_threads) },
    { N("build_info"),
      GAUGE,
      "Always 1; the labels tell what runs",
      { NAMED("version"), NAMED("revision"), NAMED("openssl"), NAMED("libcurl"),
        NAMED("libevent") },
      .write = write_build_info },
    { N("ready"), GAUGE, "1 while /readyz answers 200", ONE(get_ready) },
    { N("draining"), GAUGE, "1 while the process drains before it ends", ONE(get_draining) },
    { N("config_last_reload_successful"), GAUGE, "1 unless the last reload was refused",
      ONE(get_reload_ok) },
    { N("config_last_reload_success_timestamp_seconds"), GAUGE,
      "When the running configuration was loaded", ONE(get_reload_time) },
    { N("config_reloads_total"), COUNTER, "Reloads", { NAMED("result") }, POINTS(reloads) },
    { N("config_restart_required"), GAUGE,
      "1 if a reload changed an option that only a restart applies", ONE(get_restart_required) },
    { N("config_snapshots"), GAUGE,
      "Configurations in memory: the present one, and those of requests and tunnels that began "
      "before it",
      ONE(get_snapshots) },
    { N("enforcement_mode"),
      GAUGE,
      "1 for the mode of the configuration",
      { NAMED("mode") },
      POINTS(enforcement) },
    { N("bypass_active"), GAUGE, "1 while nothing is gated", ONE(get_bypass) },
    { N("log_lines_dropped_total"),
      COUNTER,
      "Log lines dropped because a log was too slow",
      { NAMED("log") },
      POINTS(log_lines) },
    { N("bugs_total"), COUNTER, "Broken assumptions inside the proxy; please report them",
      ONE(get_bugs) },

    { N("requests_total"),
      COUNTER,
      "Requests, by what became of them",
      { NAMED("route"), FIXED("mode", mode_value, TRAFFIC_MODES),
        FIXED("code_class", class_value, CODE_CLASSES),
        FIXED("outcome", result_value, RESULT_COUNT) },
      .write = write_route_cells,
      PER_ROUTE(requests),
      .cells = CELLS_REQUESTS },
    { N("errors_total"),
      COUNTER,
      "Answers made by the proxy, by RFC 9209 type",
      { NAMED("route"), FIXED("error", error_value, PERR_COUNT) },
      .write = write_route_cells,
      PER_ROUTE(errors),
      .cells = PERR_COUNT,
      .first_cell = CELLS_REQUESTS },
    { N("attempts_total"),
      COUNTER,
      "Upstream attempts that ended, by outcome; tier: opaque if it was a tunnel's bytes",
      { NAMED("route"), FIXED("tier", tier_value, TIER_COUNT),
        FIXED("outcome", outcome_value, OUTCOME_COUNT) },
      .write = write_route_cells,
      PER_ROUTE(attempts),
      .cells = CELLS_ATTEMPTS,
      .first_cell = CELLS_REQUESTS + PERR_COUNT },
    { N("tunnels_total"),
      COUNTER,
      "Tunnels that stood, by what became of them; without those that turned out to carry HTTP",
      { NAMED("route"), FIXED("outcome", result_value, RESULT_COUNT) },
      .write = write_route_cells,
      IN_WORKERS(tunnels_total),
      .stride = RESULT_COUNT * sizeof(counter),
      .cells = RESULT_COUNT,
      .first_cell = CELLS_TUNNELS },
    { N("shadow_refusals_total"),
      COUNTER,
      "Requests that only shadow mode let through: right, if they failed anyway",
      { NAMED("route"), FIXED("result", shadow_value, SHADOW_RESULTS) },
      .write = write_route_cells,
      PER_ROUTE(shadow_refusals),
      .cells = SHADOW_RESULTS,
      .first_cell = CELLS_SHADOW },
    { N("rule_matches_total"),
      COUNTER,
      "Attempts that a failure rule decided",
      { NAMED("route"), { .name = "rule", .count = RULE_SLOTS } },
      .write = write_route_cells,
      IN_WORKERS(rule_matches),
      .stride = RULE_SLOTS * sizeof(counter),
      .cells = RULE_SLOTS,
      .first_cell = CELLS_RULES },
    { N("uninspected_responses_total"),
      COUNTER,
      "Responses that rules and metrics could not read to their end",
      { NAMED("reason") },
      POINTS(unread_responses) },
    { N("request_body_bytes_total"),
      COUNTER,
      "Bytes of request bodies sent upstream",
      { NAMED("route") },
      .write = write_route_total,
      PER_ROUTE(request_body_bytes) },
    { N("response_body_bytes_total"),
      COUNTER,
      "Bytes of response bodies received",
      { NAMED("route") },
      .write = write_route_total,
      PER_ROUTE(response_body_bytes) },
    { N("request_duration_seconds"), HISTOGRAM,
      "From the first byte of a request to the last one of its response", .write = write_histogram,
      IN_WORKERS(request_duration) },
    { N("upstream_first_byte_seconds"), HISTOGRAM,
      "From the request being sent to the first byte of its response", .write = write_histogram,
      IN_WORKERS(upstream_first_byte) },
    { N("upstream_connect_seconds"),
      HISTOGRAM,
      "Time to connect upstream",
      { FIXED("phase", phase_value, 1) },
      .write = write_histogram,
      IN_WORKERS(upstream_connect) },
    { N("dns_lookup_seconds"), HISTOGRAM, "Time of lookups that were not in the cache",
      .write = write_histogram, IN_WORKERS(dns_lookup) },
    { N("requests_in_flight"),
      GAUGE,
      "Requests being served",
      { NAMED("mode") },
      POINTS(requests_open) },
    { N("client_connections_total"),
      COUNTER,
      "Client connections accepted, by kind of listener",
      { NAMED("mode") },
      POINTS(connections_opened) },
    { N("client_connections"),
      GAUGE,
      "Client connections open; mode connect: a CONNECT was granted on it",
      { NAMED("mode") },
      POINTS(connections_open) },
    { N("client_errors_total"),
      COUNTER,
      "Requests that failed by the client's doing",
      { NAMED("reason") },
      POINTS(client_errors) },
    { N("retries_total"),
      COUNTER,
      "Requests sent once more on a fresh connection",
      { NAMED("reason") },
      POINTS(retries) },
    { N("limit_rejections_total"),
      COUNTER,
      "What a limit turned away",
      { NAMED("limit") },
      POINTS(limits) },
    { N("upstream_connections_total"),
      COUNTER,
      "Connects upstream",
      { NAMED("result") },
      POINTS(upstream_connects) },
    { N("half_open_limited_total"),
      COUNTER,
      "Half-open attempts that a bound of the route turned away",
      { NAMED("bound") },
      POINTS(half_open_limited) },
    { N("tunnel_bytes_total"),
      COUNTER,
      "Bytes relayed in tunnels",
      { NAMED("direction") },
      POINTS(tunnel_bytes) },
    { N("tunnels_closed_on_open_total"),
      COUNTER,
      "Tunnels and upgraded connections closed because a breaker opened",
      { NAMED("route") },
      .write = write_route_total,
      PER_ROUTE(tunnels_closed_on_open) },
    { N("dns_lookups_total"),
      COUNTER,
      "Lookups that were not in the cache",
      { NAMED("result") },
      POINTS(dns_lookups) },
#define X(name, help) { N(#name), COUNTER, help, WORKER_ONE(name) },
    WORKER_PLAIN_COUNTERS(X)
#undef X
#define X(name, help) { N(#name), GAUGE, help, WORKER_ONE(name) },
        WORKER_PLAIN_GAUGES(X)
#undef X

            { N("half_open_leases"), GAUGE, "Places that half-open attempts hold",
              ONE(get_half_open_leases) },
    { N("breaker_state"),
      GAUGE,
      "1 for the state of the breaker",
      { NAMED("breaker"), FIXED("state", state_value, BREAKER_HALF_OPEN + 1) },
      .write = write_breaker_state },
    { N("breaker_allow_ratio"),
      GAUGE,
      "Share of requests that the breaker lets through",
      { NAMED("breaker") },
      .write = write_breaker_ratio },
    { N("breaker_decisions_total"),
      COUNTER,
      "Decisions about requests, by breaker",
      { NAMED("breaker"), FIXED("decision", decision_value, DECISION_COUNT) },
      .write = write_breaker_decisions },
    { N("breaker_transitions_total"),
      COUNTER,
      "Moves into a state, by the control plane",
      { NAMED("breaker"), FIXED("to", transition_value, BREAKER_HALF_OPEN) },
      .write = write_breaker_transitions },
    { N("breaker_last_transition_timestamp_seconds"),
      GAUGE,
      "When the control plane last moved it into another state",
      { NAMED("breaker") },
      .write = write_breaker_last_transition },
    { N("breaker_override_active"),
      GAUGE,
      "1 while a local override decides",
      { NAMED("breaker") },
      .write = write_breaker_override },
    { N("overrides"), GAUGE, "Local overrides in effect", ONE(get_overrides) },
    { N("breakers"), GAUGE, "Breakers that the control plane has named", ONE(get_breakers) },
    { N("breakers_missing"), GAUGE, "Breakers that routes name and the control plane lacks",
      ONE(get_unknown_names) },
    { N("breakers_awaited"), GAUGE, "Breakers that routes name since, so that no state came yet",
      ONE(get_awaited_names) },

    { N("breakers_gone_total"), COUNTER,
      "Breakers whose state was forgotten because the control plane has them no more",
      POINTS(breakers_gone) },
    { N("requests_without_state_total"),
      COUNTER,
      "Requests decided without a breaker's state, by why it was not known",
      { NAMED("reason") },
      POINTS(without_state) },

    { N("control_state_source"),
      GAUGE,
      "1 for where breaker states come from",
      { NAMED("source") },
      POINTS(state_sources) },
    { N("control_polls_total"),
      COUNTER,
      "Polls of breaker states",
      { NAMED("result") },
      POINTS(polls) },
    { N("control_polled_states_total"),
      COUNTER,
      "States in the answers to polls; left_out: breakers beyond the limit of one poll",
      { NAMED("type") },
      POINTS(polled_states) },
    { N("control_poll_last_success_timestamp_seconds"), GAUGE,
      "When a poll last went well; 0: never", ONE(get_last_poll) },
    { N("metadata_syncs_total"),
      COUNTER,
      "Requests for the lists of breakers and routers",
      { NAMED("result") },
      POINTS(metadata_syncs) },
    { N("metadata_entries_skipped_total"), COUNTER,
      "Entries of lists of breakers and routers without a usable id or name",
      POINTS(metadata_skipped) },
    { N("metadata_selectors"),
      GAUGE,
      "Selectors of routes, by what they came to",
      { NAMED("selection") },
      POINTS(selectors) },
    { N("control_stream_connected"), GAUGE, "1 while the state stream stands", ONE(get_connected) },
    { N("control_stream_connects_total"),
      COUNTER,
      "Attempts to open the state stream",
      { NAMED("result") },
      POINTS(stream_connects) },
    { N("control_stream_disconnects_total"),
      COUNTER,
      "Ends of the state stream",
      { NAMED("reason") },
      POINTS(stream_disconnects) },
    { N("control_stream_events_total"),
      COUNTER,
      "Events of the state stream",
      { NAMED("type") },
      POINTS(stream_events) },
    { N("control_stream_last_event_timestamp_seconds"), GAUGE,
      "When something last came on the state stream; 0: never", ONE(get_last_event) },
    { N("control_state_synced"), GAUGE, "1 once breaker states are known", ONE(get_synced) },
    { N("control_state_stale"), GAUGE, "1 while breaker states are too old to go by",
      ONE(get_stale) },
    { N("fail_open_active"), GAUGE, "1 while requests pass because states are not known",
      ONE(get_fail_open) },
    { N("samples_recorded_total"), COUNTER,
      "Samples made: sent, dropped, buffered and in flight together", ONE(get_recorded) },
    { N("samples_sent_total"), COUNTER, "Samples that the control plane accepted",
      POINTS(samples_sent) },
    { N("samples_dropped_total"),
      COUNTER,
      "Samples that were lost",
      { NAMED("reason") },
      POINTS(samples_dropped) },
    { N("samples_skipped_total"), COUNTER, "Metrics without a value, so without a sample",
      ONE(get_skipped) },
    { N("samples_buffered"), GAUGE, "Samples waiting for a batch", ONE(get_buffered) },
    { N("samples_in_flight"), GAUGE, "Samples in batches not yet answered", ONE(get_in_flight) },
    { N("samples_buffer_capacity"), GAUGE, "Samples that may wait", ONE(get_capacity) },
    { N("sample_batches_total"),
      COUNTER,
      "Posts of samples",
      { NAMED("result") },
      POINTS(batches) },
    { N("sample_batch_bytes_total"),
      COUNTER,
      "Bytes of batches before and after compression",
      { NAMED("encoding") },
      POINTS(batch_bytes) },
    { N("sample_batch_last_success_timestamp_seconds"), GAUGE,
      "When a batch was last accepted; 0: never", ONE(get_last_flush) },

    { N("embedded_samples_accepted_total"), COUNTER, "Samples the embedded control plane took",
      ONE(get_embedded_accepted) },
    { N("embedded_samples_refused_total"), COUNTER, "Samples the embedded control plane refused",
      ONE(get_embedded_refused) },
    { N("embedded_auto_breakers"), GAUGE, "Breakers made for hosts that no file names",
      ONE(get_embedded_auto) },
    { N("embedded_auto_breakers_refused_total"), COUNTER,
      "Breakers not made because limits.auto_breakers was reached",
      ONE(get_embedded_auto_refused) },
    { N("embedded_transitions_total"), COUNTER, "State changes of embedded breakers",
      ONE(get_embedded_transitions) },
    { N("embedded_streams"), GAUGE, "State streams the embedded control plane serves",
      ONE(get_embedded_streams) },
    { N("embedded_state_file_writes_total"),
      COUNTER,
      "Times embedded.state_file was written",
      { NAMED("result") },
      POINTS(state_writes) },

    { N("label_overflows_total"),
      COUNTER,
      "Names and series that share the label \"_other\"",
      { NAMED("label") },
      POINTS(overflows) },
    { N("series"), GAUGE, "Series of this scrape", .write = write_series },
};

const size_t family_count = ARRAY_LEN(families);
