#include "control/store.h"

#include "base/base.h"
#include "base/map.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "control/machine.h"
#include "control/persist.h"
#include "control/template.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_METRIC "latency"

struct breaker {
    char id[24];
    char *name;
    char *metric;
    struct machine machine;
    int64_t updated_wall_ms;
    const struct name_value_list *metadata; /* borrowed from the configuration */
    struct router *made_by; /* borrowed: the host's router that brought it; NULL: none did */
    uint64_t epoch;         /* of the last store_configure that wanted it */
};

struct router {
    char *id;
    char *name;
    struct breaker **links; /* borrowed from the store */
    size_t link_count;
    bool retired; /* gone with the last configuration: known, feeds nothing */
    uint64_t epoch;
};

/* The name of a breaker that went. */
struct gone {
    char *name;
    int64_t wall_ms;
};

struct store {
    store_listener *listener;
    void *arg;
    const struct config *cfg; /* borrowed, as are the values of the next four */
    struct map *defs;         /* name -> struct breaker_def of embedded.breakers */
    struct map *router_defs;  /* id -> struct router_def of embedded.routers */
    struct map *listed;       /* name -> struct router_def, the first that lists it */
    struct map *users;        /* name -> struct route, the first that uses it */
    uint64_t epoch;
    struct breaker **breakers; /* owned, in the order of their making */
    size_t breaker_count, breaker_cap;
    struct router **routers; /* owned; retired ones too */
    size_t router_count, router_cap;
    struct gone *gone; /* owned, the oldest first */
    size_t gone_count, gone_cap;
    size_t gone_max; /* the most breakers there ever were, or limits.auto_breakers */
    struct map *breakers_by_name;
    struct map *breakers_by_id;
    struct map *routers_by_id;
    uint64_t metadata_hash; /* of all definitions */
    uint64_t next_id;
    uint64_t auto_live; /* slots of limits.auto_breakers in use */
    int64_t next_eval_ms;
    struct store_status status; /* open and closed are counted when asked */
};

static void *by_name(const struct map *m, const char *name)
{
    return map_get(m, name, strlen(name));
}

struct store *store_new(store_listener *listener, void *arg)
{
    struct store *s = xcalloc(1, sizeof(*s));

    s->listener = listener;
    s->arg = arg;
    s->breakers_by_name = map_new();
    s->breakers_by_id = map_new();
    s->routers_by_id = map_new();
    s->next_eval_ms = INT64_MAX;
    return s;
}

static void breaker_free(struct breaker *b)
{
    free(b->name);
    free(b->metric);
    free(b);
}

static void router_free(struct router *r)
{
    free(r->id);
    free(r->name);
    free(r->links);
    free(r);
}

static void drop_index(struct store *s)
{
    map_free(s->defs);
    map_free(s->router_defs);
    map_free(s->listed);
    map_free(s->users);
}

void store_free(struct store *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->breaker_count; i++)
        breaker_free(s->breakers[i]);
    for (size_t i = 0; i < s->router_count; i++)
        router_free(s->routers[i]);
    for (size_t i = 0; i < s->gone_count; i++)
        free(s->gone[i].name);
    free(s->breakers);
    free(s->routers);
    free(s->gone);
    drop_index(s);
    map_free(s->breakers_by_name);
    map_free(s->breakers_by_id);
    map_free(s->routers_by_id);
    free(s);
}

static void *grow(void *array, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return array;
    *cap = *cap ? *cap * 2 : 16;
    return xrealloc(array, *cap * size);
}

/* Telling the listener. */

static struct store_breaker view_of(const struct breaker *b)
{
    return (struct store_breaker){
        .id = b->id,
        .name = b->name,
        .metric = b->metric,
        .state = machine_state_name(b->machine.state),
        .allow_rate = machine_allow_rate(&b->machine),
        .updated_wall_ms = b->updated_wall_ms,
        .metadata = b->metadata,
    };
}

static void tell(struct store *s, struct breaker *b, bool moved, struct store_now now)
{
    struct store_change change = { 0 };

    b->updated_wall_ms = now.wall_ms;
    change.breaker = view_of(b);
    if (moved) {
        change.from = machine_state_name(b->machine.from);
        change.reason = machine_reason_name(b->machine.reason);
        change.reason_text = b->machine.reason_text;
        s->status.transitions++;
    }
    s->listener(s->arg, &change);
}

static void pass_on(struct store *s, struct breaker *b, enum machine_news news,
                    struct store_now now)
{
    if (news != MACHINE_SAME)
        tell(s, b, news == MACHINE_MOVED, now);
}

static void expect_eval(struct store *s, const struct breaker *b)
{
    if (b->machine.next_eval_ms < s->next_eval_ms)
        s->next_eval_ms = b->machine.next_eval_ms;
}

/* Making breakers and routers. */

/* The configuration has been checked: a word it does not know is our mistake, and the default
 * of that word is the mildest answer. */
static struct machine_rule rule_of(const struct breaker_def *def)
{
    struct machine_rule r = {
        .metric = { .kind = EVALUATOR_CONSECUTIVE_FAILURES,
                    .op = EVALUATOR_GTE,
                    .threshold = def->threshold,
                    .window_ms = def->window_ms,
                    .min_count = def->min_count },
        .eval_interval_ms = def->eval_interval_ms,
        .min_state_duration_ms = def->min_state_duration_ms,
        .cooldown_ms = def->cooldown_ms,
        .backoff = def->half_open_backoff_enabled,
        .backoff_cap_ms = def->half_open_backoff_cap_ms,
        .policy = MACHINE_CONSERVATIVE,
        .ramp_steps = def->recovery_allow_rate_ramp_steps,
    };

    if (def->kind)
        (void)BUG(evaluator_kind_parse(def->kind, &r.metric.kind) < 0);
    if (def->op)
        (void)BUG(evaluator_op_parse(def->op, &r.metric.op) < 0);
    if (def->half_open_indeterminate_policy)
        (void)BUG(machine_policy_parse(def->half_open_indeterminate_policy, &r.policy) < 0);
    return r;
}

static struct breaker *make_breaker(struct store *s, const char *name,
                                    const struct machine_rule *rule, struct store_now now)
{
    struct breaker *b = xcalloc(1, sizeof(*b));

    snprintf(b->id, sizeof(b->id), "br_%llu", (unsigned long long)++s->next_id);
    b->name = xstrdup(name);
    machine_init(&b->machine, rule, now.mono_ms);
    s->breakers = grow(s->breakers, s->breaker_count, &s->breaker_cap, sizeof(struct breaker *));
    s->breakers[s->breaker_count++] = b;
    map_put(s->breakers_by_name, b->name, strlen(b->name), b);
    map_put(s->breakers_by_id, b->id, strlen(b->id), b);
    s->status.list_version++;
    return b;
}

/* The metric that a breaker made for a route watches: its latency, else its first. */
static const char *route_metric(const struct route *route)
{
    for (size_t i = 0; i < route->metric_count; i++) {
        if (strcmp(route->metrics[i].name, DEFAULT_METRIC) == 0)
            return DEFAULT_METRIC;
    }
    for (size_t i = 0; i < route->metric_count; i++) {
        if (route->metrics[i].kind == METRIC_LATENCY)
            return route->metrics[i].name;
    }
    return route->metric_count ? route->metrics[0].name : DEFAULT_METRIC;
}

static const char *metric_of(const struct store *s, const struct breaker_def *def, const char *tmpl)
{
    const struct route *user = by_name(s->users, tmpl);

    if (def && def->metric)
        return def->metric;
    return user ? route_metric(user) : DEFAULT_METRIC;
}

/*
 * The breaker of that name; a new one is told, as is a changed rate.  tmpl is the name as it
 * was configured, with its "{host}": a definition may be of a template.
 */
static struct breaker *want_breaker(struct store *s, const char *name, const char *tmpl,
                                    struct store_now now)
{
    const struct breaker_def *def = by_name(s->defs, tmpl);
    const struct breaker_def *ruling = def ? def : &s->cfg->embedded.auto_breaker;
    struct machine_rule rule = rule_of(ruling);
    struct breaker *b = by_name(s->breakers_by_name, name);
    enum machine_news news = MACHINE_STEPPED;

    if (b && b->epoch == s->epoch)
        return b; /* what the configuration names in full comes before any host's */
    if (b)
        news = machine_set_rule(&b->machine, &rule, now.mono_ms);
    else
        b = make_breaker(s, name, &rule, now);
    b->made_by = NULL;
    b->epoch = s->epoch;
    b->metadata = &ruling->metadata;
    free(b->metric);
    b->metric = xstrdup(metric_of(s, def, tmpl));
    expect_eval(s, b);
    pass_on(s, b, news, now);
    return b;
}

static struct router *want_router(struct store *s, const char *id, const char *name)
{
    struct router *r = by_name(s->routers_by_id, id);

    if (r == NULL) {
        r = xcalloc(1, sizeof(*r));
        r->id = xstrdup(id);
        s->routers = grow(s->routers, s->router_count, &s->router_cap, sizeof(struct router *));
        s->routers[s->router_count++] = r;
        map_put(s->routers_by_id, r->id, strlen(r->id), r);
        s->status.list_version++;
    } else if (r->epoch == s->epoch) {
        return r;
    }
    r->epoch = s->epoch;
    r->retired = false;
    r->link_count = 0;
    free(r->name);
    r->name = xstrdup(name ? name : id);
    return r;
}

static void link_up(struct router *r, struct breaker *b)
{
    for (size_t i = 0; i < r->link_count; i++) {
        if (r->links[i] == b)
            return;
    }
    r->links = xrealloc(r->links, (r->link_count + 1) * sizeof(struct breaker *));
    r->links[r->link_count++] = b;
}

/* Routes in file order, the fallback last. */
static const struct route *route_at(const struct config *cfg, size_t i)
{
    if (i < cfg->route_count)
        return &cfg->routes[i];
    return i == cfg->route_count ? cfg->fallback : NULL;
}

/* What a router feeds. */

struct wish {
    char *name;       /* owned */
    const char *tmpl; /* the same as configured */
};

struct wishes {
    struct wish *items; /* owned */
    size_t count, cap;
    struct map *seen;
};

static void wish_for(struct wishes *w, const char *tmpl, struct slice host)
{
    struct strbuf name = STRBUF_INIT;

    if (host.p == NULL && template_has_host(tmpl))
        return;
    template_expand(tmpl, host, &name);
    if (map_get(w->seen, strbuf_str(&name), name.len) == NULL) {
        w->items = grow(w->items, w->count, &w->cap, sizeof(*w->items));
        map_put(w->seen, strbuf_str(&name), name.len, w);
        w->items[w->count++] = (struct wish){ strbuf_take(&name), tmpl };
    }
    strbuf_free(&name);
}

/* The breakers of a router, by the name it has in the configuration.  host.p NULL: it holds no
 * "{host}", and breakers that do are left out. */
static struct wishes wishes_of(const struct store *s, const char *router, struct slice host)
{
    const struct router_def *def = by_name(s->router_defs, router);
    struct wishes w = { .seen = map_new() };
    const struct route *route;

    for (size_t i = 0; def && i < def->breakers.count; i++)
        wish_for(&w, def->breakers.items[i], host);
    for (size_t i = 0; (route = route_at(s->cfg, i)) != NULL; i++) {
        if (route->router == NULL || strcmp(route->router, router) != 0)
            continue;
        for (size_t k = 0; k < route->breakers.count; k++) {
            if (def == NULL || by_name(s->listed, route->breakers.items[k]) == NULL)
                wish_for(&w, route->breakers.items[k], host);
        }
    }
    return w;
}

static void wishes_free(struct wishes *w)
{
    for (size_t i = 0; i < w->count; i++)
        free(w->items[i].name);
    free(w->items);
    map_free(w->seen);
}

/* Routers for a host, made at its first sample. */

/* The router template that fits this id: the one with most literal text, then the first of
 * the file.  NULL: none. */
static const char *find_template(const struct store *s, const char *router_id, struct slice *host)
{
    const struct route *route;
    const char *best = NULL;
    struct slice found;

    if (s->cfg == NULL)
        return NULL;
    for (size_t i = 0; (route = route_at(s->cfg, i)) != NULL; i++) {
        if (route->router && template_match(route->router, router_id, &found) &&
            (!best || template_literal_len(route->router) > template_literal_len(best))) {
            best = route->router;
            *host = found;
        }
    }
    for (size_t i = 0; i < s->cfg->embedded.router_count; i++) {
        const char *id = s->cfg->embedded.routers[i].id;

        if (template_match(id, router_id, &found) &&
            (!best || template_literal_len(id) > template_literal_len(best))) {
            best = id;
            *host = found;
        }
    }
    return best;
}

static bool is_nameable(const char *router_id)
{
    size_t len = strlen(router_id);

    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)router_id[i] < 0x21 || router_id[i] == 0x7f)
            return false;
    }
    return len > 0 && len <= STORE_NAME_MAX;
}

/* How many of limits.auto_breakers it takes; a router alone takes memory too. */
static uint64_t places_needed(const struct store *s, const struct wishes *w)
{
    uint64_t missing = 0;

    for (size_t i = 0; i < w->count; i++) {
        const struct breaker *b = by_name(s->breakers_by_name, w->items[i].name);

        missing += b == NULL || b->epoch != s->epoch;
    }
    return missing ? missing : 1;
}

/* NULL: no template fits, or (refused) the limit is met. */
static struct router *make_for_host(struct store *s, const char *router_id, struct store_now now,
                                    bool *refused)
{
    struct slice host;
    const char *tmpl = find_template(s, router_id, &host);
    struct router *r = NULL;
    struct wishes w;
    uint64_t limit;
    uint64_t places;

    *refused = false;
    if (tmpl == NULL)
        return NULL;
    w = wishes_of(s, tmpl, host);
    limit = (uint64_t)s->cfg->limits.auto_breakers;
    places = places_needed(s, &w);
    *refused = !is_nameable(router_id) || places > limit || s->auto_live > limit - places;
    if (!*refused) {
        s->auto_live += places;
        r = want_router(s, router_id, NULL);
        for (size_t i = 0; i < w.count; i++) {
            struct breaker *b = want_breaker(s, w.items[i].name, w.items[i].tmpl, now);

            link_up(r, b);
            if (b->made_by == NULL)
                b->made_by = r;
        }
    }
    wishes_free(&w);
    return r;
}

/* Configuration. */

static void put_first(struct map *m, const char *name, const void *value)
{
    if (by_name(m, name) == NULL)
        map_put(m, name, strlen(name), (void *)(uintptr_t)value);
}

static void build_index(struct store *s)
{
    const struct config *cfg = s->cfg;
    const struct route *route;

    drop_index(s);
    s->defs = map_new();
    s->router_defs = map_new();
    s->listed = map_new();
    s->users = map_new();
    for (size_t i = 0; i < cfg->embedded.breaker_count; i++)
        put_first(s->defs, cfg->embedded.breakers[i].name, &cfg->embedded.breakers[i]);
    for (size_t i = 0; i < cfg->embedded.router_count; i++) {
        const struct router_def *def = &cfg->embedded.routers[i];

        put_first(s->router_defs, def->id, def);
        for (size_t k = 0; k < def->breakers.count; k++)
            put_first(s->listed, def->breakers.items[k], def);
    }
    for (size_t i = 0; (route = route_at(cfg, i)) != NULL; i++) {
        for (size_t k = 0; k < route->breakers.count; k++)
            put_first(s->users, route->breakers.items[k], route);
    }
}

/* A breaker named in full exists from the start, whether a router feeds it or not. */
static void configure_breaker(struct store *s, const char *name, struct store_now now)
{
    if (!template_has_host(name))
        want_breaker(s, name, name, now);
}

static void configure_breakers(struct store *s, struct store_now now)
{
    const struct config *cfg = s->cfg;
    const struct route *route;

    for (size_t i = 0; i < cfg->embedded.breaker_count; i++)
        configure_breaker(s, cfg->embedded.breakers[i].name, now);
    for (size_t i = 0; i < cfg->embedded.router_count; i++) {
        for (size_t k = 0; k < cfg->embedded.routers[i].breakers.count; k++)
            configure_breaker(s, cfg->embedded.routers[i].breakers.items[k], now);
    }
    for (size_t i = 0; (route = route_at(cfg, i)) != NULL; i++) {
        for (size_t k = 0; k < route->breakers.count; k++)
            configure_breaker(s, route->breakers.items[k], now);
    }
}

/* A router named in full exists from the start; of a template only its breakers are noted. */
static void configure_router(struct store *s, const char *router, const char *name,
                             struct store_now now)
{
    bool per_host = template_has_host(router);
    const struct router *made = by_name(s->routers_by_id, router);
    struct router *r = NULL;
    struct wishes w;

    if (!per_host && made && made->epoch == s->epoch)
        return;
    if (!per_host)
        r = want_router(s, router, name);
    w = wishes_of(s, router, (struct slice){ NULL, 0 });
    for (size_t i = 0; i < w.count; i++) {
        struct breaker *b = want_breaker(s, w.items[i].name, w.items[i].tmpl, now);

        if (r)
            link_up(r, b);
    }
    wishes_free(&w);
}

static void configure_routers(struct store *s, struct store_now now)
{
    const struct route *route;

    for (size_t i = 0; i < s->cfg->embedded.router_count; i++)
        configure_router(s, s->cfg->embedded.routers[i].id, s->cfg->embedded.routers[i].name, now);
    for (size_t i = 0; (route = route_at(s->cfg, i)) != NULL; i++) {
        if (route->router)
            configure_router(s, route->router, route->name, now);
    }
}

/* Routers that samples made: make them again by the new templates. */
static void configure_hosts(struct store *s, struct store_now now)
{
    size_t count = s->router_count; /* make_for_host finds the old entries and adds none */

    s->auto_live = 0;
    for (size_t i = 0; i < count; i++) {
        struct router *r = s->routers[i];
        bool refused;

        if (r->epoch != s->epoch && !r->retired)
            make_for_host(s, r->id, now, &refused);
    }
}

static bool has_moved(const struct breaker *b)
{
    return b->machine.reason != MACHINE_REASON_NONE;
}

/* There is no word for "gone" (PROTOCOL section 3) and clients obey the last state they heard
 * for ever: so the last word is closed, or a host's breaker would stay open with nobody left
 * to close it. */
static void tell_gone(struct store *s, const struct breaker *b, struct store_now now)
{
    struct store_change change = { .breaker = view_of(b) };

    if (b->machine.state == MACHINE_CLOSED)
        return;
    change.from = change.breaker.state;
    change.reason = "removed";
    change.reason_text = "the configuration no longer has it";
    change.breaker.state = machine_state_name(MACHINE_CLOSED);
    change.breaker.allow_rate = 1.0;
    change.breaker.updated_wall_ms = now.wall_ms;
    s->status.transitions++;
    s->listener(s->arg, &change);
}

/* Makes room for those that sweep_breakers is about to add again.  One that is back stays: it
 * may go once more before a client that missed it all is there again. */
static void sweep_gone(struct store *s)
{
    size_t kept = 0;

    for (size_t i = 0; i < s->gone_count; i++) {
        const struct breaker *b = by_name(s->breakers_by_name, s->gone[i].name);

        if (b && b->epoch != s->epoch && has_moved(b))
            free(s->gone[i].name);
        else
            s->gone[kept++] = s->gone[i];
    }
    s->gone_count = kept;
}

static void trim_gone(struct store *s)
{
    size_t extra = s->gone_count > s->gone_max ? s->gone_count - s->gone_max : 0;

    if (extra == 0)
        return;
    for (size_t i = 0; i < extra; i++)
        free(s->gone[i].name);
    s->gone_count -= extra;
    memmove(s->gone, s->gone + extra, s->gone_count * sizeof(*s->gone));
}

/* A client whose stream is down may have heard of any of its moves, and of none since. */
static void remember_gone(struct store *s, struct breaker *b, struct store_now now)
{
    if (!has_moved(b))
        return;
    s->gone = grow(s->gone, s->gone_count, &s->gone_cap, sizeof(*s->gone));
    s->gone[s->gone_count++] = (struct gone){ b->name, now.wall_ms };
    b->name = NULL;
}

static void sweep_breakers(struct store *s, struct store_now now)
{
    size_t kept = 0;

    s->next_eval_ms = INT64_MAX;
    for (size_t i = 0; i < s->breaker_count; i++) {
        struct breaker *b = s->breakers[i];

        if (b->epoch == s->epoch) {
            expect_eval(s, b);
            s->breakers[kept++] = b;
            continue;
        }
        map_remove(s->breakers_by_name, b->name, strlen(b->name));
        map_remove(s->breakers_by_id, b->id, strlen(b->id));
        tell_gone(s, b, now);
        remember_gone(s, b, now);
        breaker_free(b);
        s->status.list_version++;
    }
    s->breaker_count = kept;
}

static void sweep_routers(struct store *s)
{
    size_t kept = 0;

    for (size_t i = 0; i < s->router_count; i++) {
        struct router *r = s->routers[i];

        if (r->epoch != s->epoch) {
            s->status.list_version++;
            if (r->retired) {
                map_remove(s->routers_by_id, r->id, strlen(r->id));
                router_free(r);
                continue;
            }
            r->retired = true;
            r->link_count = 0;
        }
        s->routers[kept++] = r;
    }
    s->router_count = kept;
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

static uint64_t hash_pairs(uint64_t hash, const struct name_value_list *pairs)
{
    for (size_t i = 0; i < pairs->count; i++)
        hash = hash * 31 + keyed_hash(pairs->items[i].name, strlen(pairs->items[i].name)) * 7 +
               keyed_hash(pairs->items[i].value, strlen(pairs->items[i].value));
    return hash * 31;
}

/* Clients keep a list until its version changes. */
static void note_metadata(struct store *s, const struct config *cfg)
{
    uint64_t hash = hash_pairs(0, &cfg->embedded.auto_breaker.metadata);

    for (size_t i = 0; i < cfg->embedded.breaker_count; i++)
        hash = hash_pairs(hash, &cfg->embedded.breakers[i].metadata);
    for (size_t i = 0; i < cfg->embedded.router_count; i++)
        hash = hash_pairs(hash, &cfg->embedded.routers[i].metadata);
    s->status.list_version += hash != s->metadata_hash;
    s->metadata_hash = hash;
}

void store_configure(struct store *s, const struct config *cfg, struct store_now now)
{
    s->cfg = cfg;
    s->epoch++;
    s->gone_max = max_size(s->gone_max, s->breaker_count);
    s->gone_max = max_size(s->gone_max, (size_t)cfg->limits.auto_breakers);
    build_index(s);
    note_metadata(s, cfg);
    configure_breakers(s, now);
    configure_routers(s, now);
    configure_hosts(s, now);
    sweep_routers(s);
    sweep_gone(s);
    sweep_breakers(s, now);
    trim_gone(s);
}

/* Samples and time. */

bool store_knows_router(const struct store *s, const char *router_id)
{
    struct slice host;

    return by_name(s->routers_by_id, router_id) != NULL ||
           find_template(s, router_id, &host) != NULL;
}

static struct router *make_counted(struct store *s, const char *router_id, struct store_now now,
                                   bool *refused)
{
    size_t before = s->breaker_count;
    struct router *r = make_for_host(s, router_id, now, refused);

    s->status.auto_breakers += s->breaker_count - before;
    return r;
}

static struct router *router_for(struct store *s, const char *router_id, struct store_now now)
{
    struct router *r = by_name(s->routers_by_id, router_id);
    bool refused;

    if (r)
        return r;
    r = make_counted(s, router_id, now, &refused);
    s->status.auto_refused += refused;
    return r;
}

void store_sample(struct store *s, const struct store_sample *sample, struct store_now now)
{
    struct router *r = router_for(s, sample->router_id, now);
    int64_t age_ms = now.wall_ms - sample->ts_ms;
    int64_t started_ms = now.mono_ms - (age_ms > 0 ? age_ms : 0);

    if (r == NULL)
        return;
    for (size_t i = 0; i < r->link_count; i++) {
        struct breaker *b = r->links[i];

        if (strcmp(b->metric, sample->metric) == 0)
            pass_on(s, b, machine_sample(&b->machine, now.mono_ms, started_ms, sample->ok), now);
    }
}

bool store_resume(struct store *s, const struct persist_entry *entry, struct store_now now)
{
    struct breaker *b = by_name(s->breakers_by_name, entry->name);
    int64_t ago_ms = now.wall_ms - entry->since_wall_ms;
    bool refused;

    if (b == NULL && entry->router && by_name(s->routers_by_id, entry->router) == NULL) {
        make_counted(s, entry->router, now, &refused);
        b = by_name(s->breakers_by_name, entry->name);
    }
    if (b == NULL || has_moved(b))
        return false;
    if (ago_ms < 0 || entry->state == MACHINE_HALF_OPEN)
        ago_ms = 0;
    machine_resume(&b->machine, entry->state, now.mono_ms - ago_ms, entry->failed_recoveries);
    now.wall_ms -= ago_ms;
    tell(s, b, false, now);
    return true;
}

bool store_unclosed_next(const struct store *s, size_t *pos, struct store_now now,
                         struct persist_entry *out)
{
    while (*pos < s->breaker_count) {
        const struct breaker *b = s->breakers[(*pos)++];
        int64_t since_wall_ms = now.wall_ms - (now.mono_ms - b->machine.since_ms);

        if (b->machine.state == MACHINE_CLOSED)
            continue;
        *out = (struct persist_entry){
            .name = b->name,
            .router = b->made_by ? b->made_by->id : NULL,
            .state = b->machine.state,
            .since_wall_ms = since_wall_ms > 0 ? since_wall_ms : 0,
            .failed_recoveries = b->machine.failed_recoveries,
        };
        return true;
    }
    return false;
}

void store_tick(struct store *s, struct store_now now)
{
    s->next_eval_ms = INT64_MAX;
    for (size_t i = 0; i < s->breaker_count; i++) {
        struct breaker *b = s->breakers[i];

        if (now.mono_ms >= b->machine.next_eval_ms)
            s->status.last_eval_wall_ms = now.wall_ms;
        pass_on(s, b, machine_tick(&b->machine, now.mono_ms), now);
        expect_eval(s, b);
    }
}

int64_t store_next_ms(const struct store *s)
{
    return s->next_eval_ms;
}

/* Reading. */

size_t store_breaker_count(const struct store *s)
{
    return s->breaker_count;
}

struct store_breaker store_breaker_at(const struct store *s, size_t i)
{
    return view_of(s->breakers[i]);
}

bool store_breaker_by_id(const struct store *s, const char *id, struct store_breaker *out)
{
    const struct breaker *b = by_name(s->breakers_by_id, id);

    if (b)
        *out = view_of(b);
    return b != NULL;
}

bool store_gone_next(const struct store *s, size_t *pos, struct store_breaker *out)
{
    while (*pos < s->gone_count) {
        const struct gone *g = &s->gone[(*pos)++];

        if (by_name(s->breakers_by_name, g->name))
            continue; /* a host's, and made anew */
        *out = (struct store_breaker){
            .name = g->name,
            .state = machine_state_name(MACHINE_CLOSED),
            .allow_rate = 1.0,
            .updated_wall_ms = g->wall_ms,
        };
        return true;
    }
    return false;
}

bool store_router_next(const struct store *s, size_t *pos, const char **id, const char **name)
{
    while (*pos < s->router_count) {
        const struct router *r = s->routers[(*pos)++];

        if (r->retired)
            continue;
        *id = r->id;
        *name = r->name;
        return true;
    }
    return false;
}

const struct name_value_list *store_router_metadata(const struct store *s, const char *router_id)
{
    const struct router_def *def = by_name(s->router_defs, router_id);

    return def ? &def->metadata : NULL;
}

bool store_has_router(const struct store *s, const char *router_id)
{
    const struct router *r = by_name(s->routers_by_id, router_id);

    return r && !r->retired;
}

bool store_link_next(const struct store *s, const char *router_id, size_t *pos,
                     struct store_breaker *out)
{
    const struct router *r = by_name(s->routers_by_id, router_id);

    if (r == NULL || *pos >= r->link_count)
        return false;
    *out = view_of(r->links[(*pos)++]);
    return true;
}

void store_status(const struct store *s, struct store_status *out)
{
    *out = s->status;
    out->open = 0;
    out->closed = 0;
    for (size_t i = 0; i < s->breaker_count; i++) {
        out->open += s->breakers[i]->machine.state == MACHINE_OPEN;
        out->closed += s->breakers[i]->machine.state == MACHINE_CLOSED;
    }
}
