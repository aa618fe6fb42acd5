/* What no option can be judged by alone: the control plane, listeners, limits. */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include "config/value.h"
#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#define HOSTED_URL           "https://api.tripswitch.dev"
#define EMBEDDED_INTERVAL_MS 200

static const struct place_of nowhere = { 0 };

static bool was_set(struct loader *l, const char *name)
{
    return origin_of(l, name)->layer != LAYER_DEFAULT;
}

static bool is_bad(struct loader *l, const char *name)
{
    return origin_of(l, name)->bad;
}

/* -- control plane ------------------------------------------------------------------- */

static bool names_loopback(struct loader *l, const char *url)
{
    char *host = value_url_host(l->arena, url);
    struct cidr c;
    struct strbuf ignored = STRBUF_INIT;
    bool loopback = host && (strcasecmp(host, "localhost") == 0 ||
                             (value_cidr(host, &c, &ignored) == 0 && value_cidr_is_loopback(&c)));
    strbuf_free(&ignored);
    return loopback;
}

static void forget_project(struct config *cfg)
{
    cfg->control.url = NULL;
    cfg->control.project_id = NULL;
    cfg->api_key = NULL;
    cfg->ingest_secret = NULL;
}

static void check_remote(struct loader *l)
{
    struct config *cfg = &l->loaded->config;
    struct place_of project = origin_of(l, "control.project_id")->at;

    if (!cfg->control.project_id)
        report_error(&l->report, cfg->control.url ? origin_of(l, "control.url")->at : nowhere,
                     "no project is configured; set TRIPSWITCH_PROJECT_ID, or control.url to "
                     "\"embedded\"");
    if (!cfg->api_key)
        report_error(&l->report, cfg->control.project_id ? project : nowhere,
                     "there is no key for the project; set TRIPSWITCH_API_KEY or "
                     "TRIPSWITCH_API_KEY_FILE");
    if (!cfg->control.url)
        cfg->control.url = arena_strdup(l->arena, HOSTED_URL);
    if (strncmp(cfg->control.url, "http://", 7) == 0 && !names_loopback(l, cfg->control.url))
        report_warning(&l->report, origin_of(l, "control.url")->at,
                       "http:// sends the project key in clear; use https://");
}

static void finish_control(struct loader *l)
{
    struct config *cfg = &l->loaded->config;
    bool project = cfg->control.project_id || cfg->api_key || cfg->ingest_secret;

    if (cfg->control.embedded && project)
        report_warning(&l->report, origin_of(l, "control.url")->at,
                       "the project and its keys are not used, because the control plane is the "
                       "embedded one");
    if (!cfg->control.url && !project)
        cfg->control.embedded = true;
    if (!cfg->control.embedded && cfg->embedded.state_file)
        report_warning(&l->report, origin_of(l, "embedded.state_file")->at,
                       "this is not used, because the control plane is not the embedded one");
    if (cfg->control.embedded)
        forget_project(cfg);
    else if (!is_bad(l, "control.url") && !is_bad(l, "control.project_id"))
        check_remote(l);
}

/* The embedded control plane is near and free of charge: tell it at once. */
static void finish_samples(struct loader *l)
{
    struct config *cfg = &l->loaded->config;

    if (cfg->control.embedded) {
        if (!was_set(l, "samples.flush_interval"))
            cfg->samples.flush_interval_ms = EMBEDDED_INTERVAL_MS;
        if (!was_set(l, "samples.urgent_interval"))
            cfg->samples.urgent_interval_ms = EMBEDDED_INTERVAL_MS;
        if (!was_set(l, "samples.max_posts_per_second"))
            cfg->samples.max_posts_per_second = OFF;
        if (!was_set(l, "samples.gzip"))
            cfg->samples.gzip = false;
    }
    if (cfg->samples.buffer < cfg->samples.batch)
        report_error(&l->report, origin_of(l, "samples.buffer")->at,
                     "samples.buffer (%lld) is smaller than samples.batch (%lld)",
                     (long long)cfg->samples.buffer, (long long)cfg->samples.batch);
}

static void warn_unsigned(struct loader *l)
{
    const struct config *cfg = &l->loaded->config;

    if (cfg->control.embedded || cfg->ingest_secret)
        return;
    for (size_t i = 0; i < cfg->route_count; i++) {
        if (cfg->routes[i].router || cfg->routes[i].router_metadata.count) {
            report_warning(&l->report, nowhere,
                           "TRIPSWITCH_INGEST_SECRET is not set: samples go unsigned, which "
                           "projects with signed ingest refuse");
            return;
        }
    }
}

/* -- listeners ----------------------------------------------------------------------- */

static bool only_loopback(const struct listen_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        if (!value_is_loopback((const struct sockaddr *)&list->items[i].sa))
            return false;
    return true;
}

static bool same_address(const struct listen_addr *a, const struct listen_addr *b)
{
    const struct sockaddr_in *a4 = (const void *)&a->sa, *b4 = (const void *)&b->sa;
    const struct sockaddr_in6 *a6 = (const void *)&a->sa, *b6 = (const void *)&b->sa;

    if (a->sa.ss_family != b->sa.ss_family || a4->sin_port != b4->sin_port || !a4->sin_port)
        return false; /* port 0: the system chooses another one each time */
    return a->sa.ss_family == AF_INET
               ? a4->sin_addr.s_addr == b4->sin_addr.s_addr
               : memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0;
}

struct named_listeners {
    const char *name;
    const struct listen_list *list;
};

static void check_same(struct loader *l, const struct named_listeners *a,
                       const struct named_listeners *b)
{
    struct origin *x = origin_of(l, a->name), *y = origin_of(l, b->name);

    for (size_t i = 0; i < a->list->count; i++) {
        for (size_t k = 0; k < (a == b ? i : b->list->count); k++) {
            if (!same_address(&a->list->items[i], &b->list->items[k]))
                continue;
            if (a == b)
                report_error(&l->report, x->at, "%s has %s twice", a->name, a->list->items[i].text);
            else
                report_error(&l->report, x->layer > y->layer ? x->at : y->at,
                             "%s and %s both want %s", b->name, a->name, a->list->items[i].text);
        }
    }
}

static void check_listeners(struct loader *l)
{
    const struct config *cfg = &l->loaded->config;
    const struct named_listeners all[] = {
        { "listen", &cfg->listen },
        { "transparent_listen", &cfg->transparent_listen },
        { "telemetry_listen", &cfg->telemetry_listen },
        { "admin_listen", &cfg->admin_listen },
    };

    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        for (size_t k = 0; k <= i; k++)
            check_same(l, &all[i], &all[k]);
    if (!cfg->listen.count && !cfg->transparent_listen.count && !is_bad(l, "listen") &&
        !is_bad(l, "transparent_listen"))
        report_error(&l->report, origin_of(l, "listen")->at, "there is nothing to listen on");
    if (!only_loopback(&cfg->listen) && !was_set(l, "allow_clients"))
        report_error(&l->report, origin_of(l, "listen")->at,
                     "an address beyond loopback needs allow_clients, or anybody could use the "
                     "proxy");
    if (!only_loopback(&cfg->admin_listen))
        report_error(&l->report, origin_of(l, "admin_listen")->at,
                     "must be on loopback, or \"off\"");
    if (!cfg->allow_clients.count && cfg->listen.count && !is_bad(l, "allow_clients"))
        report_warning(&l->report, origin_of(l, "allow_clients")->at,
                       "nobody can use the explicit listeners");
}

static void finish_access(struct loader *l)
{
    struct config *cfg = &l->loaded->config;
    struct strbuf why = STRBUF_INIT;
    bool loopback = true;

    if (was_set(l, "access.connect_ports"))
        return;
    for (size_t i = 0; i < cfg->allow_clients.count; i++)
        loopback = loopback && value_cidr_is_loopback(&cfg->allow_clients.items[i]);
    cfg->access.connect_ports.items = arena_alloc(l->arena, sizeof(struct port_range));
    cfg->access.connect_ports.count = 1;
    value_port_range(loopback ? "1-65535" : "443", cfg->access.connect_ports.items, &why);
    strbuf_free(&why);
}

/* -- pairs --------------------------------------------------------------------------- */

static void check_order(struct loader *l, const char *low, int64_t low_ms, const char *high,
                        int64_t high_ms)
{
    struct origin *a = origin_of(l, low), *b = origin_of(l, high);

    if (low_ms > high_ms && !a->bad && !b->bad)
        report_error(&l->report, b->layer > a->layer ? b->at : a->at, "%s is above %s", low, high);
}

static void check_pairs(struct loader *l)
{
    const struct config *cfg = &l->loaded->config;

    check_order(l, "dns.min_ttl", cfg->dns.min_ttl_ms, "dns.max_ttl", cfg->dns.max_ttl_ms);
    check_order(l, "drain.min", cfg->drain.min_ms, "drain.max", cfg->drain.max_ms);
    check_order(l, "limits.buffer", cfg->limits.buffer, "limits.buffered_total",
                cfg->limits.buffered_total);
}

void cross_check(struct loader *l)
{
    finish_control(l);
    finish_samples(l);
    check_listeners(l);
    finish_access(l);
    check_pairs(l);
}

void cross_check_routes(struct loader *l)
{
    warn_unsigned(l);
}
