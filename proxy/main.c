/*
 * main.c - subcommands, start, signals, reload, drain, stop.
 *
 * Main opens every listening socket, starts the threads in the order log, control,
 * sync, workers, and ends them in the opposite one, so that the samples of the last
 * exchange are still sent.  Only this file exits.
 */
#include "base/base.h"
#include "base/clock.h"
#include "base/intern.h"
#include "base/log.h"
#include "base/ring.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "config/resolve.h"
#include "control/control.h"
#include "proxy/admin.h"
#include "proxy/cli.h"
#include "proxy/cpus.h"
#include "proxy/init_net.h"
#include "proxy/listener.h"
#include "proxy/own_conns.h"
#include "proxy/probe.h"
#include "proxy/proxy.h"
#include "proxy/selection.h"
#include "proxy/self.h"
#include "proxy/snapshot.h"
#include "proxy/switches.h"
#include "proxy/telemetry.h"
#include "proxy/worker.h"
#include "sync/attempt.h"
#include "sync/breakers.h"
#include "sync/sync.h"
#include <ares.h>
#include <curl/curl.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { /* sysexits, as far as we use them */
       EXIT_USAGE = 2,
       EXIT_UNAVAILABLE = 69,
       EXIT_OS = 71,
       EXIT_BIND = 73,
       EXIT_CONFIG = 78,
};

#define FINAL_FLUSH_MS       3000
#define ADOPTION_WAIT_MS     100
#define SECRETS_CHECK_MS     10000
#define DESCRIPTORS_RESERVED 64 /* listeners, control, resolver, logs */

struct runtime {
    struct proxy proxy;
    struct config_source source;
    struct config *boot; /* owned */
    struct event_base *base;
    struct telemetry *telemetry;
    struct admin *admin;
    struct event *signals[8];
    unsigned signal_count;
    struct event *tick;
    struct selection selection;
    struct ring *rings[WORKERS_MAX];
    int *listener_fds; /* worker-major; -1: none, or a worker's by now */
    size_t listener_fd_count;
    unsigned workers_running;
    int64_t secrets_checked_ms;
    int64_t drain_began_ms; /* 0: not draining */
    int64_t drain_min_ms;
    int64_t sync_wait_until_ms;
    int stop_code; /* -1: running */
    int stop_signal;
};

/* ---- Subcommands that need no runtime ---- */

static int print_help(void)
{
    struct strbuf sb = STRBUF_INIT;
    strbuf_adds(&sb, "tripswitch-proxy " TRIPSWITCH_VERSION
                     " - circuit breaking for programs that only know HTTP_PROXY\n\n"
                     "Usage: tripswitch-proxy [run] [--config FILE] [flags]\n"
                     "       tripswitch-proxy check [FILE] [flags]\n"
                     "       tripswitch-proxy init-net --apply | --print | --remove | --verify\n"
                     "       tripswitch-proxy override | bypass | explain | status ... [flags]\n"
                     "       tripswitch-proxy --help | --version\n\n"
                     "  run      serve (the default)\n"
                     "  check    read the configuration, list every mistake, exit 0 or 78\n"
                     "  init-net send outgoing connections to transparent_listen\n");
    cli_list(&sb);
    strbuf_adds(&sb, "\ntripswitch-proxy COMMAND --help says more of the last five.\n\n"
                     "Flags beat environment variables, which beat the file.\n\n");
    config_help(&sb);
    fputs(strbuf_str(&sb), stdout);
    strbuf_free(&sb);
    return 0;
}

/* Mistakes on the command line alone are usage errors. */
static int exit_code_of(const char *errors)
{
    for (const char *line = errors; *line; line = strchr(line, '\n') + 1) {
        if (strncmp(line, "--", 2) != 0)
            return EXIT_CONFIG;
        if (!strchr(line, '\n'))
            break;
    }
    return EXIT_USAGE;
}

/* 0 or an exit code. */
static int load(const struct config_source *src, struct config **cfg)
{
    struct strbuf errors = STRBUF_INIT, warnings = STRBUF_INIT;
    int code = 0;
    if (config_load(src, cfg, &errors, &warnings) < 0)
        code = exit_code_of(strbuf_str(&errors));
    if (warnings.len)
        fprintf(stderr, "%s", strbuf_str(&warnings));
    if (code)
        fprintf(stderr, "%s", strbuf_str(&errors));
    strbuf_free(&errors);
    strbuf_free(&warnings);
    return code;
}

static int check(const struct config_source *src)
{
    struct config *cfg;
    int code = load(src, &cfg);
    if (code)
        return code;
    printf("%s: valid (%zu routes, hash %s)\n", src->file ? src->file : "configuration",
           cfg->route_count, cfg->hash);
    config_free(cfg);
    return 0;
}

/* ---- Start ---- */

static void raise_descriptor_limit(struct proxy *p, const struct config *cfg)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
        return;
    rl.rlim_cur = rl.rlim_max;
    setrlimit(RLIMIT_NOFILE, &rl);
    getrlimit(RLIMIT_NOFILE, &rl);
    /* A fifth is kept for upstream connections, which idle clients do not need.  If more clients
     * than that are busy at one time, what does not fit is shed and counted as local. */
    int64_t fit = rl.rlim_cur == RLIM_INFINITY
                      ? INT64_MAX
                      : ((int64_t)rl.rlim_cur - DESCRIPTORS_RESERVED) / 5 * 4;
    p->connection_limit = fit < 1 ? 1 : fit;
    if (fit < cfg->limits.connections) {
        char text[32];
        snprintf(text, sizeof(text), "%lld", (long long)p->connection_limit);
        log_event(LOG_WARNING, "proxy", "limits.lowered",
                  "limits.connections is lowered to fit the descriptor limit (ulimit -n)",
                  "connections", text, NULL);
    }
}

/* Explicit listeners first, then transparent ones. */
static const struct listen_addr *listen_item(const struct config *cfg, size_t i)
{
    return i < cfg->listen.count ? &cfg->listen.items[i]
                                 : &cfg->transparent_listen.items[i - cfg->listen.count];
}

/* A listener of main's own, which no request through the proxy may reach. */
static int open_private(struct proxy *p, const struct listen_addr *addr, enum self_kind kind,
                        int *fd, struct strbuf *errors, int *code)
{
    struct sockaddr_storage bound;
    int err = listener_open(addr, fd, 1, &bound, errors, code);
    if (!err)
        self_add(p->self, (struct sockaddr *)&bound, kind);
    return err;
}

static int open_listeners(struct runtime *rt, const struct config *cfg, int *code)
{
    struct proxy *p = &rt->proxy;
    struct strbuf errors = STRBUF_INIT;
    size_t count = cfg->listen.count + cfg->transparent_listen.count;
    int fd;
    rt->listener_fd_count = count * p->worker_count;
    rt->listener_fds = xcalloc(rt->listener_fd_count + 1, sizeof(int));
    for (size_t i = 0; i < rt->listener_fd_count; i++)
        rt->listener_fds[i] = -1;
    int err = 0;
    for (size_t i = 0; i < count && !err; i++) {
        struct sockaddr_storage bound;
        int fds[WORKERS_MAX];
        if (count > 1 && listener_lacks_ipv6(listen_item(cfg, i))) {
            log_event(LOG_INFO, "proxy", "listen.skipped",
                      "this host has no IPv6: not listening there", "listen",
                      listen_item(cfg, i)->text, NULL);
            continue;
        }
        err = listener_open(listen_item(cfg, i), fds, p->worker_count, &bound, &errors, code);
        for (unsigned w = 0; w < p->worker_count && !err; w++)
            rt->listener_fds[w * count + i] = fds[w];
        if (!err)
            self_add(p->self, (struct sockaddr *)&bound,
                     i < cfg->listen.count ? SELF_PROXY : SELF_TRANSPARENT);
    }
    for (size_t i = 0; i < cfg->telemetry_listen.count && !err; i++) {
        err = open_private(p, &cfg->telemetry_listen.items[i], SELF_TELEMETRY, &fd, &errors, code);
        if (!err)
            err = telemetry_accept(rt->telemetry, fd);
    }
    for (size_t i = 0; i < cfg->admin_listen.count && !err; i++) {
        err = open_private(p, &cfg->admin_listen.items[i], SELF_ADMIN, &fd, &errors, code);
        if (!err)
            err = admin_accept(rt->admin, fd);
    }
    if (err)
        fprintf(stderr, "tripswitch-proxy: %s", strbuf_str(&errors));
    strbuf_free(&errors);
    return err;
}

static struct sync_endpoint endpoint_of(const struct proxy *p, const struct config *cfg)
{
    if (!p->control)
        return (struct sync_endpoint){ .base_url = cfg->control.url,
                                       .project_id = cfg->control.project_id,
                                       .api_key = cfg->api_key,
                                       .ingest_secret = cfg->ingest_secret };
    return (struct sync_endpoint){ .base_url = "http://embedded",
                                   .abstract_socket = control_socket(p->control),
                                   .peer_pid = getpid(),
                                   .project_id = control_project_id(p->control),
                                   .api_key = control_api_key(p->control),
                                   .ingest_secret = control_ingest_secret(p->control) };
}

/* Sync's thread.  Tunnels of that breaker may have to go now. */
static void wake_workers(void *arg)
{
    struct proxy *p = arg;
    for (unsigned i = 0; i < p->worker_count; i++)
        if (count_get(&p->workers[i]->c.tunnels) > 0)
            worker_wake(p->workers[i]);
}

static int start_control(struct runtime *rt, struct config *cfg)
{
    struct proxy *p = &rt->proxy;
    struct strbuf errors = STRBUF_INIT;
    int err = 0;
    if (cfg->control.embedded)
        err = control_start(&p->control, cfg, &errors);
    breakers_watch(p->breakers, wake_workers, p);
    struct sync_endpoint endpoint = endpoint_of(p, cfg);
    bool connected = cfg->control.embedded || cfg->control.project_id;
    if (!err)
        err = sync_new(&p->sync, cfg, connected ? &endpoint : NULL, p->breakers, p->auto_hosts,
                       rt->rings, p->worker_count, &errors);
    if (!err)
        err = sync_start(p->sync);
    if (err)
        fprintf(stderr, "tripswitch-proxy: %s\n", strbuf_str(&errors));
    strbuf_free(&errors);
    return err;
}

static int start_workers(struct runtime *rt, const struct config *cfg)
{
    struct proxy *p = &rt->proxy;
    size_t count = cfg->listen.count + cfg->transparent_listen.count;
    for (unsigned i = 0; i < p->worker_count; i++) {
        struct worker *w = p->workers[i];
        w->listeners = xcalloc(count ? count : 1, sizeof(*w->listeners));
        for (size_t l = 0; l < count; l++) {
            if (rt->listener_fds[i * count + l] < 0)
                continue;
            listener_attach(&w->listeners[w->listener_count++], w, rt->listener_fds[i * count + l],
                            l >= cfg->listen.count);
            rt->listener_fds[i * count + l] = -1;
        }
        if (worker_start(w) < 0) {
            perror("tripswitch-proxy: cannot start a thread");
            return -1;
        }
        rt->workers_running++;
    }
    return 0;
}

/* ---- Ready ---- */

/* Those of one kind, joined by commas; first: the first of them, or other. */
static void list_bound(const struct runtime *rt, enum self_kind kind, struct strbuf *all,
                       char first[SELF_TEXT_SIZE], const char *other)
{
    char text[SELF_TEXT_SIZE];
    snprintf(first, SELF_TEXT_SIZE, "%s", other);
    for (size_t pos = 0; self_next(rt->proxy.self, kind, &pos, text);) {
        if (all->len == 0)
            memcpy(first, text, sizeof(text));
        strbuf_addf(all, "%s%s", all->len ? "," : "", text);
    }
}

static void announce(struct runtime *rt)
{
    const struct config *cfg = atomic_load(&rt->proxy.snapshot)->cfg;
    struct strbuf listen = STRBUF_INIT, telemetry = STRBUF_INIT, admin = STRBUF_INIT;
    struct strbuf next = STRBUF_INIT; /* what to type now */
    char routes[32], workers[32], proxy[SELF_TEXT_SIZE], look[SELF_TEXT_SIZE], hold[SELF_TEXT_SIZE];
    list_bound(rt, SELF_PROXY, &listen, proxy, "");
    list_bound(rt, SELF_TELEMETRY, &telemetry, look, "-");
    list_bound(rt, SELF_ADMIN, &admin, hold, "-");
    bool tty = isatty(STDERR_FILENO) && listen.len;
    if (listen.len)
        strbuf_addf(&next, "curl -x http://%s http://example.com/", proxy);
    snprintf(routes, sizeof(routes), "%zu", cfg->route_count);
    snprintf(workers, sizeof(workers), "%u", rt->proxy.worker_count);
    log_event(LOG_INFO, "proxy", "ready", "tripswitch-proxy is ready", "version",
              TRIPSWITCH_VERSION, "config_hash", cfg->hash, "listen", strbuf_str(&listen),
              "telemetry", telemetry.len ? strbuf_str(&telemetry) : "off", "admin",
              admin.len ? strbuf_str(&admin) : "off", "control",
              cfg->control.embedded ? "embedded" : (cfg->control.url ? cfg->control.url : "none"),
              "mode", mode_name(cfg->mode), "fail_mode",
              cfg->fail_mode == FAIL_OPEN ? "open" : "closed", "routes", routes, "workers", workers,
              tty ? NULL : "try", strbuf_str(&next), NULL);
    if (tty)
        fprintf(stderr,
                "\n  Try it:   curl -x http://%s http://example.com/\n"
                "  Look:     curl http://%s/breakers\n"
                "  Use it:   export http_proxy=http://%s\n"
                "            export HTTP_PROXY=http://%s\n\n",
                proxy, look, proxy, proxy);
    strbuf_free(&listen);
    strbuf_free(&telemetry);
    strbuf_free(&admin);
    strbuf_free(&next);
}

/* The states are known, and which of them gate which route. */
static bool synced(const struct runtime *rt)
{
    return breakers_flags(rt->proxy.breakers) & STATE_SYNCED &&
           !config_unresolved(atomic_load(&rt->proxy.snapshot)->cfg);
}

static void stop(struct runtime *rt, int code)
{
    rt->stop_code = code;
    event_base_loopbreak(rt->base);
}

static void check_started(struct runtime *rt)
{
    const struct config *cfg = atomic_load(&rt->proxy.snapshot)->cfg;
    if (atomic_load(&rt->proxy.started))
        return;
    bool no_plane = !cfg->control.embedded && !cfg->control.project_id;
    bool waited = clock_mono_ms() >= rt->sync_wait_until_ms;
    if (!no_plane && !synced(rt) && !waited)
        return;
    if (cfg->control.require_sync && !no_plane && !synced(rt)) {
        log_event(LOG_ERROR, "proxy", "sync.required",
                  "the control plane gave no state within control.startup_sync_timeout and "
                  "control.require_sync is set",
                  NULL);
        stop(rt, EXIT_UNAVAILABLE);
        return;
    }
    atomic_store(&rt->proxy.started, true);
    announce(rt);
}

/* ---- Reload ---- */

static void log_lines(enum log_level level, const char *event, struct strbuf *text)
{
    char *save = NULL, *copy = xstrdup(strbuf_str(text));
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        log_event(level, "config", event, line, NULL);
    free(copy);
}

static void note_restart(struct runtime *rt, const struct config *next)
{
    struct proxy *p = &rt->proxy;
    const char *option = rt->boot ? config_restart_needed(rt->boot, next) : NULL;
    p->restart_required = option != NULL;
    snprintf(p->restart_option, sizeof(p->restart_option), "%s", option ? option : "");
    if (option)
        log_event(LOG_WARNING, "config", "config.restart_required",
                  "an option has changed that only a restart can apply", "option", option, NULL);
}

/* Once a reload is counted, it is in effect; a worker that is busy for longer follows. */
static void await_adoption(const struct proxy *p, uint64_t generation)
{
    int64_t until_ms = clock_mono_ms() + ADOPTION_WAIT_MS;
    for (unsigned i = 0; i < p->worker_count; i++)
        while (atomic_load(&p->workers[i]->adopted_generation) < generation &&
               clock_mono_ms() < until_ms)
            sched_yield();
}

/* Sync tells which names are awaited before a worker asks for them. */
static void await_sync(const struct proxy *p, const struct config *cfg)
{
    int64_t until_ms = clock_mono_ms() + ADOPTION_WAIT_MS;
    while (!sync_adopted(p->sync, cfg) && clock_mono_ms() < until_ms)
        sched_yield();
}

/* Puts a configuration into effect; what it selects is filled in already.  asked: an operator
 * wants it. */
static void adopt(struct runtime *rt, struct config *cfg, bool asked)
{
    struct proxy *p = &rt->proxy;
    enum log_level level;
    note_restart(rt, cfg);
    if (log_level_parse(cfg->log_level, &level) == 0)
        log_set_level(level);
    struct snapshot *next = snapshot_new(p, cfg);
    if (p->control)
        control_reconfigure(p->control, cfg);
    struct sync_endpoint endpoint = endpoint_of(p, cfg);
    bool connected = p->control || cfg->control.project_id;
    sync_reconfigure(p->sync, cfg, connected ? &endpoint : NULL, asked);
    await_sync(p, cfg);
    snapshot_publish(p, next);
    await_adoption(p, next->generation);
}

/* -1: the mistakes are in errors, and the running configuration stays. */
static int reload_into(void *arg, struct strbuf *errors, struct strbuf *warnings)
{
    struct runtime *rt = arg;
    struct proxy *p = &rt->proxy;
    struct config *cfg;
    int err = config_load(&rt->source, &cfg, errors, warnings);
    if (err) {
        log_lines(LOG_ERROR, "config.reload_failed", errors);
        p->last_reload_ok = false;
        p->reloads_failed++;
    } else {
        log_lines(LOG_WARNING, "config.warning", warnings);
        selection_apply(&rt->selection, p, cfg, endpoint_of(p, cfg).project_id);
        adopt(rt, cfg, true);
        p->last_reload_ok = true;
        p->reloads_ok++;
        p->last_reload_wall_ms = clock_wall_ms();
        log_event(LOG_INFO, "config", "config.reloaded", "configuration reloaded", "config_hash",
                  cfg->hash, NULL);
    }
    log_reopen();
    return err;
}

static void reload(struct runtime *rt)
{
    struct strbuf errors = STRBUF_INIT, warnings = STRBUF_INIT;
    reload_into(rt, &errors, &warnings);
    strbuf_free(&errors);
    strbuf_free(&warnings);
}

/* A list that routes select from has changed.  The file has no part in it. */
static void reselect(struct runtime *rt)
{
    struct proxy *p = &rt->proxy;
    struct config *current = atomic_load(&p->snapshot)->cfg;
    struct config *cfg = config_copy(current);
    selection_apply(&rt->selection, p, cfg, endpoint_of(p, cfg).project_id);
    if (config_same_selection(cfg, current)) {
        config_free(cfg);
        return;
    }
    adopt(rt, cfg, false);
    log_event(LOG_INFO, "config", "selection.changed",
              "routes follow the breakers and routers that their metadata selects now",
              "config_hash", cfg->hash, NULL);
}

/* ---- Signals, drain ---- */

static void begin_drain(struct runtime *rt, int64_t min_ms, int sig)
{
    if (rt->drain_began_ms) { /* the second signal means now */
        stop(rt, 128 + sig);
        return;
    }
    rt->drain_began_ms = clock_mono_ms();
    rt->drain_min_ms = min_ms;
    rt->stop_signal = sig;
    atomic_store(&rt->proxy.draining, true);
    log_event(LOG_INFO, "proxy", "drain.begun",
              "draining: new connections are still served until clients are gone", NULL);
}

static void check_drained(struct runtime *rt)
{
    const struct config *cfg = atomic_load(&rt->proxy.snapshot)->cfg;
    if (!rt->drain_began_ms)
        return;
    int64_t now_ms = clock_mono_ms(), since_ms = now_ms - rt->drain_began_ms;
    bool idle = atomic_load(&rt->proxy.connections) == 0 &&
                now_ms - atomic_load(&rt->proxy.last_client_gone_ms) >= cfg->drain.idle_ms;
    if ((idle && since_ms >= rt->drain_min_ms) || since_ms >= cfg->drain.max_ms)
        stop(rt, 0);
}

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    (void)what;
    struct runtime *rt = arg;
    switch (sig) {
    case SIGTERM:
        begin_drain(rt, atomic_load(&rt->proxy.snapshot)->cfg->drain.min_ms, SIGTERM);
        break;
    case SIGINT:
        begin_drain(rt, 0, SIGINT);
        break;
    case SIGQUIT:
        stop(rt, 128 + SIGQUIT);
        break;
    case SIGHUP:
        reload(rt);
        break;
    case SIGUSR1: {
        struct strbuf sb = STRBUF_INIT;
        telemetry_status(&rt->proxy, &sb);
        log_event(LOG_INFO, "proxy", "status", strbuf_str(&sb), NULL);
        strbuf_free(&sb);
        break;
    }
    default:
        break;
    }
}

static void catch_signals(struct runtime *rt)
{
    static const int caught[] = { SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1 };
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < ARRAY_LEN(caught); i++) {
        struct event *ev = evsignal_new(rt->base, caught[i], on_signal, rt);
        event_add(ev, NULL);
        rt->signals[rt->signal_count++] = ev;
    }
}

/* Every 20 ms while something is awaited, else once a second. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct runtime *rt = arg;
    check_started(rt);
    check_drained(rt);
    if (selection_is_due(&rt->selection, &rt->proxy))
        reselect(rt);
    bool retired = snapshot_reap(&rt->proxy);
    int64_t now_ms = clock_mono_ms();
    if (now_ms - rt->secrets_checked_ms >= SECRETS_CHECK_MS) {
        rt->secrets_checked_ms = now_ms;
        if (config_secrets_changed(atomic_load(&rt->proxy.snapshot)->cfg))
            reload(rt);
    }
    bool waiting = !atomic_load(&rt->proxy.started) || rt->drain_began_ms || retired;
    struct timeval next = { .tv_sec = waiting ? 0 : 1, .tv_usec = waiting ? 20000 : 0 };
    event_add(rt->tick, &next);
}

/* ---- Run ---- */

static int set_up(struct runtime *rt, struct config *cfg)
{
    struct proxy *p = &rt->proxy;
    int code = EXIT_OS;
    p->worker_count = cfg->workers ? (unsigned)cfg->workers : cpus_usable(4);
    p->breakers = breakers_new();
    p->probes = probes_new();
    p->switches = switches_new(p->breakers);
    p->route_names = intern_new(256);
    p->rule_names = intern_new(RULE_SLOTS);
    p->auto_hosts = intern_new(BREAKERS_CAPACITY);
    p->self = self_new();
    p->own_conns = cfg->transparent_listen.count ? own_conns_new() : NULL;
    p->start_wall_ms = clock_wall_ms();
    p->start_mono_ms = clock_mono_ms();
    p->last_reload_ok = true;
    p->last_reload_wall_ms = p->start_wall_ms;
    raise_descriptor_limit(p, cfg);
    selection_apply(&rt->selection, p, cfg, NULL);
    snapshot_publish(p, snapshot_new(p, cfg));
    rt->base = event_base_new();
    rt->telemetry = telemetry_new(p, rt->base);
    rt->admin = admin_new(p, rt->base, (struct admin_hooks){ reload_into, rt });
    if (!rt->base || !rt->telemetry || !rt->admin)
        return EXIT_OS;
    if (open_listeners(rt, cfg, &code) < 0)
        return code;
    for (unsigned i = 0; i < p->worker_count; i++) {
        rt->rings[i] = ring_new(sizeof(struct attempt_record), ATTEMPT_RING_CAPACITY);
        p->workers[i] = worker_new(p, i, rt->rings[i]);
        if (!p->workers[i])
            return EXIT_OS;
    }
    rt->sync_wait_until_ms = clock_mono_ms() + cfg->control.startup_sync_timeout_ms;
    if (start_control(rt, cfg) < 0 || start_workers(rt, cfg) < 0)
        return EXIT_OS;
    catch_signals(rt);
    rt->tick = evtimer_new(rt->base, on_tick, rt);
    on_tick(-1, 0, rt);
    return 0;
}

static void tear_down(struct runtime *rt)
{
    struct proxy *p = &rt->proxy;
    for (unsigned i = 0; i < rt->workers_running; i++)
        worker_stop(p->workers[i]);
    for (unsigned i = 0; i < rt->workers_running; i++)
        worker_join(p->workers[i]);
    for (size_t i = 0; i < rt->listener_fd_count; i++)
        if (rt->listener_fds[i] >= 0)
            close(rt->listener_fds[i]);
    if (p->sync)
        sync_stop(p->sync, FINAL_FLUSH_MS);
    telemetry_free(rt->telemetry);
    admin_free(rt->admin);
    for (unsigned i = 0; i < p->worker_count; i++)
        worker_free(p->workers[i]);
    sync_free(p->sync);
    control_stop(p->control);
    snapshot_reap_all(p);
    for (unsigned i = 0; i < p->worker_count; i++)
        ring_free(rt->rings[i]);
    for (unsigned i = 0; i < rt->signal_count; i++)
        event_free(rt->signals[i]);
    if (rt->tick)
        event_free(rt->tick);
    event_base_free(rt->base);
    switches_free(p->switches);
    breakers_free(p->breakers);
    probes_free(p->probes);
    intern_free(p->route_names);
    intern_free(p->rule_names);
    intern_free(p->auto_hosts);
    self_free(p->self);
    own_conns_free(p->own_conns);
    free(rt->listener_fds);
}

static int run(const struct config_source *src)
{
    struct config *cfg, *boot = NULL;
    int code = load(src, &cfg);
    if (code) {
        fprintf(stderr, "tripswitch-proxy: not started; mend the configuration and try again\n");
        return code;
    }
    enum log_level level = LOG_INFO;
    enum log_format format = LOG_FORMAT_AUTO;
    log_level_parse(cfg->log_level, &level);
    log_format_parse(cfg->log_format, &format);
    if (log_start(format, level, cfg->access_log.path) < 0) {
        fprintf(stderr, "tripswitch-proxy: cannot write the access log %s: %s\n",
                cfg->access_log.path, strerror(errno));
        config_free(cfg);
        return EXIT_BIND;
    }
    log_thread_init("main");
    struct runtime *rt = xcalloc(1, sizeof(*rt));
    rt->source = *src;
    rt->stop_code = -1;
    /* A copy of what the listeners and threads were made from, to compare reloads with. */
    struct strbuf ignored = STRBUF_INIT;
    if (config_load(src, &boot, &ignored, &ignored) == 0)
        rt->boot = boot;
    strbuf_free(&ignored);
    code = set_up(rt, cfg);
    if (code == 0) {
        if (rt->stop_code < 0)
            event_base_dispatch(rt->base);
        code = rt->stop_code;
        if (code == 0)
            log_event(LOG_INFO, "proxy", "stopped", "drained; flushing samples", NULL);
    }
    tear_down(rt);
    config_free(rt->boot);
    free(rt);
    log_stop();
    return code;
}

/* A closed standard stream would let a socket take its number, and get our logs. */
static void keep_standard_streams(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv, char **envp)
{
    struct config_source src = { .envp = envp };
    const char *command = "run";
    int at = 1;
    if (argc > 1 && argv[1][0] != '-')
        command = argv[at++];
    if (strcmp(command, "init-net") == 0)
        return init_net_main(argc - 1, argv + 1);
    if (cli_find(command))
        return cli_run(cli_find(command), argc - 1, argv + 1, envp);
    for (int i = at; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return print_help();
        if (strcmp(argv[i], "--version") == 0) {
            puts("tripswitch-proxy " TRIPSWITCH_VERSION);
            return 0;
        }
        if (strncmp(argv[i], "--config=", 9) == 0)
            src.file = argv[i] + 9;
        else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc)
            src.file = argv[i + 1];
    }
    bool is_check = strcmp(command, "check") == 0;
    if (is_check && at < argc && argv[at][0] != '-')
        src.file = argv[at++];
    if (!src.file)
        src.file = getenv("TRIPSWITCH_PROXY_CONFIG");
    if (src.file && !*src.file)
        src.file = NULL;
    src.argv = argv + at;
    src.argc = argc - at;
    if (!is_check && strcmp(command, "run") != 0) {
        const char *near = cli_suggest(command);
        fprintf(stderr, "tripswitch-proxy: unknown command \"%s\"; %s%s%s\n", command,
                near ? "did you mean \"" : "try --help", near ? near : "", near ? "\"?" : "");
        return EXIT_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    keep_standard_streams();
    curl_global_init(CURL_GLOBAL_DEFAULT);
    ares_library_init(ARES_LIB_INIT_ALL);
    int code = is_check ? check(&src) : run(&src);
    ares_library_cleanup();
    curl_global_cleanup();
    return code;
}
