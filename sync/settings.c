#include "sync/settings.h"
#include "base/base.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "config/resolve.h"
#include "sync/breakers.h"
#include "sync/sync.h"
#include <ctype.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* RFC 3986 section 2.3: an id is opaque, it must not end the path segment. */
static void add_escaped(struct strbuf *sb, const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (isalnum(c) || strchr("-._~", c))
            strbuf_addc(sb, (char)c);
        else
            strbuf_addf(sb, "%%%02X", c);
    }
}

static char *joined(const char *a, const char *b)
{
    struct strbuf sb = STRBUF_INIT;
    strbuf_adds(&sb, a);
    strbuf_adds(&sb, b);
    return strbuf_take(&sb);
}

static char *copy(const char *s)
{
    return s ? xstrdup(s) : NULL;
}

static void set_urls(struct settings *s, const struct sync_endpoint *e)
{
    struct strbuf url = STRBUF_INIT;
    strbuf_adds(&url, e->base_url);
    while (url.len > 0 && url.data[url.len - 1] == '/')
        strbuf_truncate(&url, url.len - 1);
    strbuf_adds(&url, "/v1/projects/");
    add_escaped(&url, e->project_id);
    s->project_url = strbuf_take(&url);
    s->project_id = xstrdup(e->project_id);
    s->stream_url = joined(s->project_url, "/breakers/state:stream");
    s->ingest_url = joined(s->project_url, "/ingest");
    s->breakers_url = joined(s->project_url, "/breakers/metadata");
    s->routers_url = joined(s->project_url, "/routers/metadata");
    s->batch_url = joined(s->project_url, "/breakers/state:batch");
}

static int set_endpoint(struct settings *s, const struct config *cfg, const struct sync_endpoint *e,
                        struct strbuf *errors)
{
    if (!e->base_url || !e->project_id) {
        strbuf_adds(errors, "control: url and project_id are required\n");
        return -1;
    }
    if (e->ingest_secret && batch_key_parse(e->ingest_secret, s->report.key) != 0) {
        strbuf_adds(errors, "ingest_secret: not 64 hex digits\n");
        return -1;
    }
    struct sockaddr_un un;
    if (e->abstract_socket && strlen(e->abstract_socket) > sizeof(un.sun_path) - 1) {
        strbuf_adds(errors, "control: the socket's name is too long\n");
        return -1;
    }
    s->enabled = true;
    s->report.has_key = e->ingest_secret != NULL;
    set_urls(s, e);
    if (e->api_key)
        s->authorization = joined("Authorization: Bearer ", e->api_key);
    s->abstract_socket = copy(e->abstract_socket);
    s->peer_pid = e->peer_pid;
    s->proxy = e->abstract_socket ? NULL : copy(cfg->control.proxy);
    s->ca_file = copy(cfg->control.ca_file);
    return 0;
}

struct used_names {
    struct breakers *breakers;
    uint32_t *ids;
    size_t count;
    size_t room;
    bool templated;
    uint8_t *have; /* bit per id */
};

static void add_name(struct used_names *u, const char *name)
{
    if (strstr(name, "{host}")) {
        u->templated = true;
        return;
    }
    uint32_t id = breakers_intern(u->breakers, name, strlen(name));
    if (id == 0 || (u->have[id / 8] >> (id % 8) & 1))
        return;
    u->have[id / 8] = (uint8_t)(u->have[id / 8] | 1u << (id % 8));
    if (u->count == u->room) {
        u->room = u->room ? u->room * 2 : 16;
        u->ids = xrealloc(u->ids, u->room * sizeof(*u->ids));
    }
    u->ids[u->count++] = id;
}

static void add_route(struct used_names *u, const struct route *route)
{
    for (size_t i = 0; route && i < route->breakers.count; i++)
        add_name(u, route->breakers.items[i]);
}

static void set_known(struct settings *s, const struct config *cfg, struct breakers *b)
{
    struct used_names u = { .breakers = b, .have = xcalloc(BREAKERS_CAPACITY / 8, 1) };
    for (size_t i = 0; i < cfg->route_count; i++)
        add_route(&u, &cfg->routes[i]);
    add_route(&u, cfg->fallback);
    free(u.have);
    s->known = (struct known_options){
        .used = u.ids,
        .used_count = u.count,
        .templated = u.templated,
        .unresolved = config_breakers_unresolved(cfg),
        .state_max_age_ms = cfg->control.state_max_age_ms,
        .server_logs = s->abstract_socket != NULL,
    };
}

static size_t at_least_one(int64_t n)
{
    return n > 1 ? (size_t)n : 1;
}

static void set_report(struct settings *s, const struct config *cfg)
{
    size_t batch = at_least_one(cfg->samples.batch);
    /* a sample must leave before it is too old, with time for a second try */
    int64_t latest = cfg->samples.max_age_ms / 2;
    int64_t flush = cfg->samples.flush_interval_ms;
    s->report.flush_interval_ms = flush < latest ? flush : latest;
    s->report.urgent_interval_ms = cfg->samples.urgent_interval_ms;
    s->report.max_age_ms = cfg->samples.max_age_ms;
    s->report.batch = batch < BATCH_SAMPLES_MAX ? batch : BATCH_SAMPLES_MAX;
    s->report.buffer = at_least_one(cfg->samples.buffer);
    s->report.max_posts_per_second =
        cfg->samples.max_posts_per_second == OFF ? 0 : cfg->samples.max_posts_per_second;
    s->report.gzip = cfg->samples.gzip;
}

int settings_new(struct settings **out, const struct config *cfg,
                 const struct sync_endpoint *endpoint, struct breakers *b, struct strbuf *errors)
{
    struct settings *s = xcalloc(1, sizeof(*s));
    s->cfg = cfg;
    if (endpoint && set_endpoint(s, cfg, endpoint, errors) != 0) {
        settings_free(s);
        return -1;
    }
    set_known(s, cfg, b);
    set_report(s, cfg);
    s->source = (struct source_options){ cfg->control.state_source, cfg->control.poll_interval_ms };
    s->metadata_interval_ms = cfg->control.metadata_interval_ms;
    s->selects_breakers = config_selects_breakers(cfg);
    s->selects_router = config_selects_router(cfg);
    *out = s;
    return 0;
}

void settings_free(struct settings *s)
{
    if (!s)
        return;
    if (s->authorization)
        OPENSSL_cleanse(s->authorization, strlen(s->authorization));
    free(s->project_url);
    free(s->project_id);
    free(s->stream_url);
    free(s->ingest_url);
    free(s->breakers_url);
    free(s->routers_url);
    free(s->batch_url);
    free(s->authorization);
    free(s->abstract_socket);
    if (s->proxy) /* may hold a password */
        OPENSSL_cleanse(s->proxy, strlen(s->proxy));
    free(s->proxy);
    free(s->ca_file);
    free((void *)s->known.used);
    OPENSSL_cleanse(&s->report, sizeof(s->report));
    free(s);
}

static bool same(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

bool settings_same_project(const struct settings *a, const struct settings *b)
{
    return same(a->project_url, b->project_url) && same(a->abstract_socket, b->abstract_socket);
}

bool settings_same_stream(const struct settings *a, const struct settings *b)
{
    return settings_same_project(a, b) && a->peer_pid == b->peer_pid &&
           same(a->authorization, b->authorization) && same(a->proxy, b->proxy) &&
           same(a->ca_file, b->ca_file) &&
           (a->source.wanted == SOURCE_POLL) == (b->source.wanted == SOURCE_POLL);
}
