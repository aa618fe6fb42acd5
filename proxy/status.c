#include "proxy/status.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "config/resolve.h"
#include "control/control.h"
#include "proxy/procstat.h"
#include "proxy/proxy.h"
#include "proxy/self.h"
#include "proxy/snapshot.h"
#include "proxy/switches.h"
#include "proxy/worker.h"
#include "sync/sync.h"

#include <ares.h>
#include <curl/curl.h>
#include <event2/event.h>
#include <math.h>
#include <openssl/crypto.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#ifndef TRIPSWITCH_REVISION
#define TRIPSWITCH_REVISION "unknown"
#endif

#define BREAKERS_BYTES_MAX ((size_t)8 << 20)

bool status_worker_live(const struct proxy *p, unsigned worker, int64_t now_ms)
{
    int64_t tick_ms = atomic_load_explicit(&p->workers[worker]->tick_ms, memory_order_relaxed);

    if (tick_ms < p->start_mono_ms) /* has not ticked yet */
        tick_ms = p->start_mono_ms;
    return now_ms - tick_ms <= STATUS_STALL_MS;
}

bool status_live(const struct proxy *p, int64_t now_ms)
{
    for (unsigned i = 0; i < p->worker_count; i++) {
        if (!status_worker_live(p, i, now_ms))
            return false;
    }
    return true;
}

bool status_ready(const struct proxy *p)
{
    return atomic_load(&p->started) && !atomic_load(&p->draining);
}

int64_t status_connection_limit(const struct proxy *p)
{
    const struct snapshot *snap = atomic_load(&p->snapshot);

    if (snap != NULL && snap->cfg->limits.connections < p->connection_limit)
        return snap->cfg->limits.connections;
    return p->connection_limit;
}

static uint64_t of_sync(const struct proxy *p, enum sync_counter c)
{
    return p->sync != NULL ? sync_counter(p->sync, c) : 0;
}

uint64_t status_samples_recorded(const struct proxy *p)
{
    return of_sync(p, SYNC_SAMPLES_RECORDED) + SUM(p, samples_ring_full_values_total);
}

uint64_t status_samples_dropped(const struct proxy *p)
{
    return of_sync(p, SYNC_DROPPED_BUFFER_FULL) + of_sync(p, SYNC_DROPPED_REJECTED) +
           of_sync(p, SYNC_DROPPED_EXPIRED) + of_sync(p, SYNC_DROPPED_SHUTDOWN) +
           SUM(p, samples_ring_full_values_total);
}

uint64_t status_samples_skipped(const struct proxy *p)
{
    return of_sync(p, SYNC_SAMPLES_SKIPPED) + SUM(p, samples_skipped_total_w);
}

void status_errors(const struct proxy *p, uint64_t sums[PERR_COUNT])
{
    for (unsigned e = 0; e < PERR_COUNT; e++) {
        sums[e] = 0;
        for (unsigned slot = 0; slot < ROUTE_SLOTS; slot++)
            sums[e] += SUM(p, routes[slot].errors[e]);
    }
}

const char *status_states(unsigned flags, uint64_t awaited_names)
{
    bool all = awaited_names == 0 && !(flags & STATE_AWAITED);
    return !(flags & STATE_SYNCED) ? "not known yet"
           : flags & STATE_STALE   ? "stale"
           : all                   ? "known"
                                   : "known, but not yet of every name";
}

double status_allow_ratio(struct breaker_view v)
{
    switch (v.state) {
    case BREAKER_UNKNOWN:
        break;
    case BREAKER_CLOSED:
        return 1;
    case BREAKER_OPEN:
        return 0;
    case BREAKER_HALF_OPEN:
        return (double)v.rate / (double)BREAKER_RATE_ONE;
    }
    return NAN;
}

unsigned status_decision_slot(uint32_t id)
{
    return id < BREAKER_SLOTS - 1 ? id : BREAKER_SLOTS - 1;
}

void status_build(struct status_build *out)
{
    out->version = TRIPSWITCH_VERSION;
    out->revision = TRIPSWITCH_REVISION;
    out->openssl = OpenSSL_version(OPENSSL_VERSION_STRING);
    out->libcurl = curl_version_info(CURLVERSION_NOW)->version;
    out->libevent = event_get_version();
    out->cares = ares_version(NULL);
    out->zlib = zlibVersion();
}

void status_version(struct strbuf *out)
{
    struct status_build build;
    struct json j = { .sb = out };

    status_build(&build);
    json_open(&j, NULL, '{');
    json_str(&j, "version", build.version);
    json_str(&j, "revision", build.revision);
    json_str(&j, "openssl", build.openssl);
    json_str(&j, "libcurl", build.libcurl);
    json_str(&j, "libevent", build.libevent);
    json_str(&j, "c-ares", build.cares);
    json_str(&j, "zlib", build.zlib);
    json_close(&j);
}

/* RFC 3339, or null for "never". */
static void json_time(struct json *j, const char *name, int64_t wall_ms)
{
    char text[CLOCK_RFC3339_SIZE];

    if (wall_ms == 0) {
        json_null(j, name);
        return;
    }
    clock_rfc3339(wall_ms * 1000, text);
    json_str(j, name, text);
}

static void json_u64(struct json *j, const char *name, uint64_t n)
{
    json_int(j, name, n > INT64_MAX ? INT64_MAX : (int64_t)n);
}

/* The URL without user, password, query and fragment. */
static void json_url(struct json *j, const char *name, const char *url)
{
    struct strbuf text = STRBUF_INIT;
    const char *host = strstr(url, "://");

    host = host != NULL ? host + 3 : url;
    size_t len = strcspn(host, "?#");
    size_t authority = strcspn(host, "/?#");
    strbuf_add(&text, url, (size_t)(host - url));
    for (size_t i = authority; i > 0; i--) { /* the last '@' ends the user part */
        if (host[i - 1] == '@') {
            host += i;
            len -= i;
            break;
        }
    }
    strbuf_add(&text, host, len);
    json_strn(j, name, strbuf_str(&text), text.len);
    strbuf_free(&text);
}

static void json_listeners(struct json *j, const char *name, const struct proxy *p,
                           enum self_kind kind)
{
    char text[SELF_TEXT_SIZE];

    json_open(j, name, '[');
    for (size_t pos = 0; self_next(p->self, kind, &pos, text);)
        json_str(j, NULL, text);
    json_close(j);
}

static void write_config(struct json *j, const struct proxy *p, const struct config *cfg)
{
    json_str(j, "config_file", cfg->file);
    json_str(j, "config_hash", cfg->hash);
    json_str(j, "mode", mode_name(cfg->mode));
    json_str(j, "fail_mode", cfg->fail_mode == FAIL_OPEN ? "open" : "closed");
    json_open(j, "listeners", '{');
    json_listeners(j, "proxy", p, SELF_PROXY);
    json_listeners(j, "transparent", p, SELF_TRANSPARENT);
    json_listeners(j, "telemetry", p, SELF_TELEMETRY);
    json_listeners(j, "admin", p, SELF_ADMIN);
    json_close(j);
    json_open(j, "reload", '{');
    json_u64(j, "ok", p->reloads_ok);
    json_u64(j, "failed", p->reloads_failed);
    json_bool(j, "last_ok", p->last_reload_ok || p->reloads_ok + p->reloads_failed == 0);
    json_time(j, "last", p->last_reload_wall_ms);
    json_str(j, "restart_required_by", p->restart_required ? p->restart_option : NULL);
    json_close(j);
}

static uint64_t of_modes(const counter *by_mode)
{
    uint64_t sum = 0;
    for (unsigned m = 0; m < COUNTED_MODES; m++)
        sum += count_get(&by_mode[m]);
    return sum;
}

static void write_workers(struct json *j, const struct proxy *p)
{
    int64_t now_ms = clock_mono_ms();

    json_open(j, "workers", '[');
    for (unsigned i = 0; i < p->worker_count; i++) {
        const struct worker *w = p->workers[i];
        int64_t tick_ms = atomic_load_explicit(&w->tick_ms, memory_order_relaxed);

        json_open(j, NULL, '{');
        json_int(j, "index", i);
        json_bool(j, "live", status_worker_live(p, i, now_ms));
        if (tick_ms == 0)
            json_null(j, "last_tick_ms_ago");
        else
            json_int(j, "last_tick_ms_ago", now_ms > tick_ms ? now_ms - tick_ms : 0);
        json_u64(j, "config_generation", atomic_load(&w->adopted_generation));
        json_u64(j, "client_connections", of_modes(w->c.client_connections));
        json_u64(j, "requests_in_flight", of_modes(w->c.requests_in_flight));
        json_u64(j, "upstream_connections", count_get(&w->c.upstream_connections));
        json_u64(j, "tunnels", count_get(&w->c.tunnels));
        json_u64(j, "buffered_bytes", count_get(&w->c.buffered_bytes));
        json_close(j);
    }
    json_close(j);
}

static void write_embedded(struct json *j, const struct control *c, const struct config *cfg)
{
    struct control_stats stats;

    control_stats(c, &stats);
    json_open(j, "embedded", '{');
    json_u64(j, "samples_accepted", stats.samples_accepted);
    json_u64(j, "samples_refused", stats.samples_refused);
    json_u64(j, "auto_breakers", stats.auto_breakers);
    json_u64(j, "auto_breakers_refused", stats.auto_refused);
    json_u64(j, "transitions", stats.transitions);
    json_u64(j, "streams", stats.streams);
    json_str(j, "state_file", cfg ? cfg->embedded.state_file : NULL);
    json_u64(j, "state_file_writes", stats.state_written);
    json_u64(j, "state_file_write_errors", stats.state_failed);
    json_close(j);
}

static const char *source_name(enum state_source s)
{
    switch (s) {
    case SOURCE_STREAM:
        return "stream";
    case SOURCE_POLL:
        return "poll";
    case SOURCE_AUTO:
        return "auto";
    }
    return "?";
}

struct result_count {
    const char *result;
    enum sync_counter counter;
};

static const struct result_count poll_results[] = {
    { "ok", SYNC_POLLS_OK },           { "auth", SYNC_POLLS_AUTH },
    { "http", SYNC_POLLS_HTTP },       { "network", SYNC_POLLS_NETWORK },
    { "invalid", SYNC_POLLS_INVALID },
};
static const struct result_count metadata_results[] = {
    { "ok", SYNC_METADATA_OK },           { "not_modified", SYNC_METADATA_SAME },
    { "auth", SYNC_METADATA_AUTH },       { "http", SYNC_METADATA_HTTP },
    { "network", SYNC_METADATA_NETWORK }, { "invalid", SYNC_METADATA_INVALID },
};

static void write_by_result(struct json *j, const char *name, const struct proxy *p,
                            const struct result_count *results, size_t count)
{
    json_open(j, name, '{');
    for (size_t i = 0; i < count; i++)
        json_u64(j, results[i].result, of_sync(p, results[i].counter));
    json_close(j);
}

static void json_listed(struct json *j, const char *name, int64_t count)
{
    if (count < 0)
        json_null(j, name);
    else
        json_int(j, name, count);
}

static void write_metadata(struct json *j, const struct proxy *p, const struct config *cfg,
                           const struct sync_gauges *g)
{
    json_open(j, "metadata", '{');
    json_listed(j, "breakers", g->listed_breakers);
    json_listed(j, "routers", g->listed_routers);
    json_time(j, "last", g->last_metadata_wall_ms);
    write_by_result(j, "syncs", p, metadata_results, ARRAY_LEN(metadata_results));
    json_u64(j, "entries_skipped", of_sync(p, SYNC_METADATA_SKIPPED));
    json_open(j, "selectors", '{');
    for (unsigned i = 0; cfg != NULL && i < SELECTION_COUNT; i++)
        json_u64(j, selection_name((enum selector_result)i),
                 config_selections(cfg, (enum selector_result)i));
    json_close(j);
    json_close(j);
}

/* What each selector came to; routes without one are not listed. */
static void write_selected(struct json *j, const struct config *cfg)
{
    json_open(j, "selected", '[');
    for (size_t i = 0; cfg != NULL && i < cfg->route_count; i++) {
        const struct route *r = &cfg->routes[i];
        if (r->breakers_metadata.count + r->router_metadata.count == 0)
            continue;
        json_open(j, NULL, '{');
        json_str(j, "route", r->name);
        if (r->breakers_metadata.count > 0) {
            json_bool(j, "breakers_loaded", !r->breakers_unresolved);
            json_u64(j, "breakers_found", r->breakers_found);
            json_open(j, "breakers", '[');
            for (size_t k = 0; k < r->breakers.count; k++)
                json_str(j, NULL, r->breakers.items[k]);
            json_close(j);
        }
        if (r->router_metadata.count > 0) {
            json_bool(j, "router_loaded", !r->router_unresolved);
            json_u64(j, "routers_found", r->routers_found);
            json_str(j, "router", r->router);
        }
        json_close(j);
    }
    json_close(j);
}

static void write_control(struct json *j, const struct proxy *p, const struct config *cfg,
                          const struct sync_gauges *g)
{
    unsigned flags = breakers_flags(p->breakers);

    json_open(j, "control", '{');
    if (cfg != NULL && cfg->control.embedded)
        json_str(j, "url", "embedded");
    else if (cfg != NULL && cfg->control.url != NULL)
        json_url(j, "url", cfg->control.url);
    else
        json_null(j, "url");
    json_str(j, "project_id", cfg != NULL ? cfg->control.project_id : NULL);
    json_bool(j, "connected", (flags & STATE_CONNECTED) != 0);
    json_bool(j, "synced", (flags & STATE_SYNCED) != 0);
    json_bool(j, "stale", (flags & STATE_STALE) != 0);
    json_time(j, "last_event", g->last_event_wall_ms);
    json_u64(j, "reconnects", g->reconnects);
    json_u64(j, "missing_breakers", g->unknown_names);
    json_u64(j, "awaited_breakers", g->awaited_names);
    json_bool(j, "awaited_hosts", (flags & STATE_AWAITED) != 0);
    json_str(j, "state_source", cfg != NULL ? source_name(cfg->control.state_source) : NULL);
    json_str(j, "states_from", g->polling ? "poll" : "stream");
    json_time(j, "last_poll", g->last_poll_wall_ms);
    write_by_result(j, "polls", p, poll_results, ARRAY_LEN(poll_results));
    write_metadata(j, p, cfg, g);
    json_u64(j, "breakers_gone", of_sync(p, SYNC_BREAKERS_GONE));
    json_str(j, "last_error", g->last_error[0] != '\0' ? g->last_error : NULL);
    if (p->control != NULL)
        write_embedded(j, p->control, cfg);
    json_close(j);
}

/* Under the names that the official clients use. */
static void write_stats(struct json *j, const struct proxy *p, const struct sync_gauges *g)
{
    json_open(j, "stats", '{');
    json_u64(j, "dropped_samples", status_samples_dropped(p));
    json_u64(j, "buffer_size", g->samples_buffered + g->samples_in_flight);
    json_u64(j, "buffer_capacity", g->samples_capacity);
    json_bool(j, "sse_connected", g->connected);
    json_u64(j, "sse_reconnects", g->reconnects);
    json_time(j, "last_successful_flush", g->last_flush_wall_ms);
    json_time(j, "last_sse_event", g->last_event_wall_ms);
    json_u64(j, "flush_failures", g->flush_failures);
    json_u64(j, "cached_breakers", g->cached_breakers);
    json_u64(j, "recorded_samples", status_samples_recorded(p));
    json_u64(j, "sent_samples", of_sync(p, SYNC_SAMPLES_SENT));
    json_u64(j, "skipped_samples", status_samples_skipped(p));
    json_close(j);
}

static void write_connections(struct json *j, const struct proxy *p)
{
    json_open(j, "connections", '{');
    json_int(j, "client", atomic_load(&p->connections));
    json_int(j, "client_limit", status_connection_limit(p));
    json_u64(j, "client_total",
             SUM(p, client_connections_total_http) + SUM(p, client_connections_total_transparent));
    json_u64(j, "tunnels", SUM(p, tunnels));
    json_u64(j, "upstream", SUM(p, upstream_connections));
    json_u64(j, "upstream_idle", SUM(p, upstream_connections_idle));
    json_u64(j, "upstream_reuses", SUM(p, upstream_connection_reuses_total));
    json_u64(j, "requests_in_flight", SUM_MODES(p, requests_in_flight));
    json_u64(j, "attempts_in_flight", SUM(p, attempts_in_flight));
    json_close(j);
}

/* Those of the counts that are not zero, by name. */
static void write_counts(struct json *j, const char *name, unsigned count, const uint64_t *sums,
                         const char *(*value)(unsigned i))
{
    json_open(j, name, '{');
    for (unsigned i = 0; i < count; i++) {
        if (sums[i] > 0)
            json_u64(j, value(i), sums[i]);
    }
    json_close(j);
}

static const char *result_text(unsigned i)
{
    return request_result_name((enum request_result)i);
}
static const char *outcome_text(unsigned i)
{
    return outcome_name((enum outcome)i);
}
static const char *error_text(unsigned i)
{
    return i == PERR_NONE ? "none" : proxy_error_name((enum proxy_error)i);
}

void status_route_modes(const struct snapshot *snap, const char *modes[ROUTE_SLOTS])
{
    for (unsigned slot = 0; slot < ROUTE_SLOTS; slot++)
        modes[slot] = NULL;
    for (size_t i = 0; snap != NULL && i <= snap->cfg->route_count; i++) {
        const struct live_route *r =
            i < snap->cfg->route_count ? &snap->routes[i] : &snap->fallback;
        const char *mode = mode_name(r->cfg->mode);
        bool differs = modes[r->slot] != NULL && strcmp(modes[r->slot], mode) != 0;
        modes[r->slot] = differs ? "mixed" : mode;
    }
}

void status_shadow(const struct proxy *p, unsigned slot, uint64_t sums[SHADOW_RESULTS])
{
    for (unsigned i = 0; i < SHADOW_RESULTS; i++)
        sums[i] = SUM(p, routes[slot].shadow_refusals[i]);
}

/* Of the requests that only shadow mode let through. */
static void write_shadow(struct json *j, const struct proxy *p, unsigned slot)
{
    uint64_t sums[SHADOW_RESULTS];

    status_shadow(p, slot, sums);
    json_open(j, "shadow_refusals", '{');
    for (unsigned i = 0; i < SHADOW_RESULTS; i++)
        json_u64(j, shadow_result_name((enum shadow_result)i), sums[i]);
    json_close(j);
}

/* What decided about attempts of the route, by name. */
static void write_rules(struct json *j, const struct proxy *p, unsigned route)
{
    json_open(j, "rules", '{');
    for (unsigned slot = 0; slot < RULE_SLOTS; slot++) {
        const char *name = rule_slot_name(p, slot);
        uint64_t sum = SUM(p, rule_matches[route][slot]);
        if (name != NULL && sum > 0)
            json_u64(j, name, sum);
    }
    json_close(j);
}

static void write_route(struct json *j, const struct proxy *p, unsigned slot, const char *name,
                        const char *mode)
{
    uint64_t results[RESULT_COUNT] = { 0 };
    uint64_t outcomes[OUTCOME_COUNT];
    uint64_t errors[PERR_COUNT];

    for (unsigned m = 0; m < TRAFFIC_MODES; m++) {
        for (unsigned c = 0; c < CODE_CLASSES; c++) {
            for (unsigned r = 0; r < RESULT_COUNT; r++)
                results[r] += SUM(p, routes[slot].requests[m][c][r]);
        }
    }
    for (unsigned i = 0; i < OUTCOME_COUNT; i++)
        outcomes[i] = SUM(p, routes[slot].attempts[TIER_HTTP][i]) +
                      SUM(p, routes[slot].attempts[TIER_OPAQUE][i]);
    for (unsigned i = 0; i < PERR_COUNT; i++)
        errors[i] = SUM(p, routes[slot].errors[i]);

    json_open(j, NULL, '{');
    json_str(j, "name", name);
    json_str(j, "mode", mode);
    write_counts(j, "requests", RESULT_COUNT, results, result_text);
    write_counts(j, "attempts", OUTCOME_COUNT, outcomes, outcome_text);
    write_counts(j, "errors", PERR_COUNT, errors, error_text);
    write_shadow(j, p, slot);
    write_rules(j, p, slot);
    json_u64(j, "request_body_bytes", SUM(p, routes[slot].request_body_bytes));
    json_u64(j, "response_body_bytes", SUM(p, routes[slot].response_body_bytes));
    json_u64(j, "tunnels_closed_on_open", SUM(p, routes[slot].tunnels_closed_on_open));
    json_close(j);
}

static void write_routes(struct json *j, const struct proxy *p)
{
    const char *modes[ROUTE_SLOTS];

    status_route_modes(atomic_load(&p->snapshot), modes);
    json_open(j, "routes", '[');
    for (unsigned slot = 0; slot < ROUTE_SLOTS; slot++) {
        const char *name = route_slot_name(p, slot);
        if (name != NULL)
            write_route(j, p, slot, name, modes[slot]);
    }
    json_close(j);
}

static void write_breaker_counts(struct json *j, const struct proxy *p)
{
    uint64_t by_state[BREAKER_HALF_OPEN + 1] = { 0 };
    uint32_t count = breakers_count(p->breakers);

    for (uint32_t id = 1; id <= count; id++)
        by_state[breaker_unpack(breakers_load(p->breakers, id)).state]++;
    json_open(j, "breakers", '{');
    for (unsigned i = 0; i < ARRAY_LEN(by_state); i++)
        json_u64(j, breaker_state_name((enum breaker_state)i), by_state[i]);
    json_close(j);
}

/* Null: nothing is held. */
static void write_held(struct json *j, const char *name, const struct held *h)
{
    if (h == NULL) {
        json_null(j, name);
        return;
    }
    json_open(j, name, '{');
    if (h->breaker != 0)
        json_str(j, "state", breaker_state_name(h->state));
    json_time(j, "until", h->until_wall_ms);
    json_str(j, "reason", h->reason);
    json_close(j);
}

static void write_overrides(struct json *j, const struct proxy *p)
{
    json_open(j, "overrides", '[');
    for (size_t i = 0; i < switches_count(p->switches); i++) {
        const struct held *h = switches_at(p->switches, i);
        size_t len;
        const char *name = breakers_name(p->breakers, h->breaker, &len);

        json_open(j, NULL, '{');
        json_strn(j, "breaker", name, len);
        write_held(j, "override", h);
        json_close(j);
    }
    json_close(j);
}

static void write_process(struct json *j)
{
    struct procstat process;

    procstat_read(&process);
    json_open(j, "process", '{');
    json_int(j, "pid", getpid());
    json_int(j, "resident_bytes", process.resident_bytes);
    json_int(j, "threads", process.threads);
    json_int(j, "open_fds", process.open_fds);
    json_int(j, "max_fds", process.max_fds);
    json_num(j, "cpu_seconds", process.cpu_seconds);
    json_close(j);
}

void status_write(const struct proxy *p, struct strbuf *out)
{
    const struct snapshot *snap = atomic_load(&p->snapshot);
    const struct config *cfg = snap != NULL ? snap->cfg : NULL;
    struct sync_gauges gauges = { 0 };
    struct json j = { .sb = out };

    if (p->sync != NULL)
        sync_gauges(p->sync, &gauges);
    json_open(&j, NULL, '{');
    json_str(&j, "version", TRIPSWITCH_VERSION);
    json_time(&j, "started_at", p->start_wall_ms);
    json_num(&j, "uptime_seconds", (double)(clock_mono_ms() - p->start_mono_ms) / 1000);
    json_bool(&j, "started", atomic_load(&p->started));
    json_bool(&j, "ready", status_ready(p));
    json_bool(&j, "draining", atomic_load(&p->draining));
    json_bool(&j, "bypass", (breakers_flags(p->breakers) & STATE_BYPASS) != 0);
    write_held(&j, "bypass_held", switches_bypass_held(p->switches));
    write_overrides(&j, p);
    if (cfg != NULL)
        write_config(&j, p, cfg);
    write_control(&j, p, cfg, &gauges);
    write_stats(&j, p, &gauges);
    write_breaker_counts(&j, p);
    write_connections(&j, p);
    write_workers(&j, p);
    write_routes(&j, p);
    write_selected(&j, cfg);
    write_process(&j);
    json_close(&j);
}

static void write_decisions(struct json *j, const struct proxy *p, uint32_t id)
{
    unsigned slot = status_decision_slot(id);

    if (slot == BREAKER_SLOTS - 1) { /* counted together with others */
        json_null(j, "decisions");
        return;
    }
    json_open(j, "decisions", '{');
    for (unsigned i = 0; i < DECISION_COUNT; i++)
        json_u64(j, decision_name((enum decision)i), SUM(p, decisions[slot][i]));
    json_close(j);
}

static void write_breaker(struct json *j, const struct proxy *p, uint32_t id)
{
    struct breaker_view v = breaker_unpack(breakers_load(p->breakers, id));
    size_t len;
    const char *name = breakers_name(p->breakers, id, &len);

    json_open(j, NULL, '{');
    json_strn(j, "name", name, len);
    json_str(j, "state", breaker_state_name(v.state));
    if (v.state == BREAKER_UNKNOWN || v.rate_null)
        json_null(j, "allow_rate");
    else
        json_num(j, "allow_rate", (double)v.rate / (double)BREAKER_RATE_ONE);
    json_bool(j, "known", v.state != BREAKER_UNKNOWN);
    json_time(j, "since", breakers_changed_ms(p->breakers, id));
    json_int(j, "changes", v.changes);
    write_held(j, "override", switches_of(p->switches, id));
    write_decisions(j, p, id);
    json_close(j);
}

void status_breakers(const struct proxy *p, struct strbuf *out)
{
    struct json j = { .sb = out };
    uint32_t count = breakers_count(p->breakers);
    size_t full = out->len + BREAKERS_BYTES_MAX;

    json_open(&j, NULL, '[');
    for (uint32_t id = 1; id <= count && id <= STATUS_BREAKERS_MAX; id++) {
        if (out->len > full)
            break;
        write_breaker(&j, p, id);
    }
    json_close(&j);
}

bool status_breaker(const struct proxy *p, const char *name, size_t len, struct strbuf *out)
{
    uint32_t id = breakers_find(p->breakers, name, len);
    struct json j = { .sb = out };

    if (id != 0)
        write_breaker(&j, p, id);
    return id != 0;
}
