/* "embedded": breakers and routers of the embedded control plane. */
#include "base/base.h"
#include "base/map.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include "config/suggest.h"
#include "config/value.h"
#include <string.h>

#define DEFINITIONS_MAX 10000

static void start_breaker(struct loader *l, struct breaker_def *b)
{
    l->layer = LAYER_DEFAULT;
    *b = (struct breaker_def){ 0 };
    apply_defaults(l, &breaker_options, b);
    l->layer = LAYER_FILE;
}

/* Both kinds measure 0 when everything succeeds. */
static bool success_meets(const struct breaker_def *b)
{
    if (strcmp(b->op, "gt") == 0)
        return 0 > b->threshold;
    if (strcmp(b->op, "gte") == 0)
        return 0 >= b->threshold;
    if (strcmp(b->op, "lt") == 0)
        return 0 < b->threshold;
    return 0 <= b->threshold;
}

static void warn_hopeless(struct loader *l, const struct breaker_def *b, const cJSON *node)
{
    if (l->loaded->config.control.embedded && success_meets(b))
        report_warning(&l->report, at_child(node, child_of(node, "op") ? "op" : "threshold"),
                       "\"%s\" %g holds even when nothing fails, so this breaker opens on success "
                       "and cannot recover; did you mean \"%s\"?",
                       b->op, b->threshold, b->threshold > 0 ? "gte" : "gt");
}

static void check_threshold(struct loader *l, const struct breaker_def *b, const cJSON *node)
{
    bool rate = strcmp(b->kind, "error_rate") == 0;

    if (rate && b->threshold > 1)
        report_error(&l->report, at_child(node, "threshold"),
                     "the threshold of an error_rate is 0 to 1, and not %g", b->threshold);
    else if (!rate && b->threshold < 1)
        report_error(&l->report, at_child(node, "threshold"),
                     "the threshold of consecutive_failures is at least 1, and not %g",
                     b->threshold);
    else
        warn_hopeless(l, b, node);
}

static void read_auto_breaker(struct loader *l, const cJSON *node)
{
    struct breaker_def *b = &l->loaded->config.embedded.auto_breaker;
    static const char *const per_breaker[] = { "name", "metric" };

    start_breaker(l, b);
    if (!cJSON_IsObject(node))
        return;
    apply_object(l, &breaker_options, b, node);
    check_threshold(l, b, node);
    for (size_t i = 0; i < ARRAY_LEN(per_breaker); i++) {
        const cJSON *extra = child_of(node, per_breaker[i]);
        if (extra)
            report_error(&l->report, at_key(extra), "this is filled in for each breaker");
    }
    b->name = b->metric = NULL;
}

/* What has no sensible default must be said. */
static void require_keys(struct loader *l, const cJSON *node, const char *const *keys, size_t count)
{
    for (size_t i = 0; cJSON_IsObject(node) && i < count; i++)
        if (!child_of(node, keys[i]))
            report_error(&l->report, at_node(node), "the key \"%s\" is missing", keys[i]);
}

static size_t item_count(struct loader *l, const cJSON *array)
{
    size_t count = cJSON_IsArray(array) ? (size_t)cJSON_GetArraySize(array) : 0;

    if (count <= DEFINITIONS_MAX)
        return count;
    report_error(&l->report, at_node(array), "more than %d items", DEFINITIONS_MAX);
    return 0;
}

static void check_unique(struct loader *l, struct map *seen, const char *name, struct place_of at)
{
    size_t len = strlen(name);

    if (map_get(seen, name, len))
        report_error(&l->report, at, "\"%s\" is defined twice", name);
    else
        map_put(seen, name, len, l);
}

/* names: gets the names of all breakers that exist */
static void read_breakers(struct loader *l, const cJSON *array, struct map *names)
{
    static const char *const required[] = { "name", "kind", "threshold" };
    struct config *cfg = &l->loaded->config;
    size_t count = item_count(l, array);

    cfg->embedded.breakers = arena_alloc(l->arena, count * sizeof(struct breaker_def) + 1);
    for (const cJSON *node = count ? array->child : NULL; node; node = node->next) {
        struct breaker_def *b = &cfg->embedded.breakers[cfg->embedded.breaker_count++];
        start_breaker(l, b);
        apply_object(l, &breaker_options, b, node);
        require_keys(l, node, required, ARRAY_LEN(required));
        if (child_of(node, "threshold"))
            check_threshold(l, b, node);
        if (!b->metric)
            b->metric = arena_strdup(l->arena, "latency");
        if (b->name)
            check_unique(l, names, b->name, at_child(node, "name"));
    }
}

/* The embedded control plane makes a breaker for each name that a route uses. */
static void add_route_breakers(struct loader *l, struct map *names)
{
    const struct config *cfg = &l->loaded->config;

    for (size_t i = 0; i < cfg->route_count; i++) {
        const struct string_list *list = &cfg->routes[i].breakers;
        for (size_t k = 0; k < list->count; k++)
            map_put(names, list->items[k], strlen(list->items[k]), l);
    }
}

static void refuse_breaker(struct loader *l, const struct map *names, const char *name,
                           struct place_of at)
{
    struct suggestion near;
    size_t pos = 0, len;
    const char *key;

    suggest_start(&near, name);
    while (map_next(names, &pos, &key, &len, NULL))
        suggest_offer(&near, arena_strndup(l->arena, key, len));
    report_error(&l->report, at, "neither \"breakers\" nor a route has a breaker \"%s\"%s%s%s",
                 name, near.best ? "; did you mean \"" : "", near.best ? near.best : "",
                 near.best ? "\"?" : "");
}

static void check_links(struct loader *l, const struct router_def *r, const struct map *names,
                        const cJSON *node)
{
    for (size_t i = 0; i < r->breakers.count; i++)
        if (!map_get(names, r->breakers.items[i], strlen(r->breakers.items[i])))
            refuse_breaker(l, names, r->breakers.items[i], at_child(node, "breakers"));
}

static void read_routers(struct loader *l, const cJSON *array, const struct map *breakers)
{
    static const char *const required[] = { "id" };
    struct config *cfg = &l->loaded->config;
    size_t count = item_count(l, array);
    struct map *ids = map_new();

    cfg->embedded.routers = arena_alloc(l->arena, count * sizeof(struct router_def) + 1);
    for (const cJSON *node = count ? array->child : NULL; node; node = node->next) {
        struct router_def *r = &cfg->embedded.routers[cfg->embedded.router_count++];
        apply_object(l, &router_options, r, node);
        require_keys(l, node, required, ARRAY_LEN(required));
        check_links(l, r, breakers, node);
        if (!r->name)
            r->name = r->id;
        if (r->id)
            check_unique(l, ids, r->id, at_child(node, "id"));
    }
    map_free(ids);
}

/* -- breakers that no sample can reach --------------------------------------------------- */

static bool has_host(const char *name)
{
    return strstr(name, "{host}") != NULL;
}

/* tells_host: samples of this router may tell their host, which they do by its id only. */
static void add_fed(struct map *fed, const struct string_list *breakers, bool tells_host)
{
    for (size_t i = 0; i < breakers->count; i++) {
        const char *name = breakers->items[i];
        if (tells_host || !has_host(name))
            map_put(fed, name, strlen(name), fed);
    }
}

static void warn_unfed(struct loader *l, const struct route *r, const struct map *fed,
                       const cJSON *node)
{
    for (size_t i = 0; i < r->breakers.count; i++) {
        const char *name = r->breakers.items[i];
        if (map_get(fed, name, strlen(name)))
            continue;
        if (r->router)
            report_warning(&l->report, at_child(node, "router"),
                           "no sample can reach breaker \"%s\", because the router does not hold "
                           "{host}; write for example \"%s-{host}\"",
                           name, r->router);
        else
            report_warning(&l->report, at_child(node, "breakers"),
                           "no sample can reach breaker \"%s\", so it cannot trip: this route "
                           "has no router",
                           name);
    }
}

static void warn_all_unfed(struct loader *l, const cJSON *routes)
{
    const struct config *cfg = &l->loaded->config;
    struct map *fed = map_new();
    const cJSON *node = routes ? routes->child : NULL;

    for (size_t i = 0; i < cfg->route_count; i++) {
        const struct route *r = &cfg->routes[i];
        bool selected = r->router_metadata.count > 0; /* which one, the lists will tell */
        if (r->router || selected)
            add_fed(fed, &r->breakers, selected || has_host(r->router));
    }
    for (size_t i = 0; i < cfg->embedded.router_count; i++)
        if (cfg->embedded.routers[i].id)
            add_fed(fed, &cfg->embedded.routers[i].breakers, has_host(cfg->embedded.routers[i].id));
    for (size_t i = 0; i < cfg->route_count && node; i++, node = node->next)
        warn_unfed(l, &cfg->routes[i], fed, node);
    map_free(fed);
}

void embedded_apply(struct loader *l, const cJSON *root)
{
    const cJSON *section = child_of(root, "embedded");
    struct map *breakers = map_new();

    l->layer = LAYER_FILE;
    read_auto_breaker(l, child_of(section, "auto_breaker"));
    read_breakers(l, child_of(section, "breakers"), breakers);
    add_route_breakers(l, breakers);
    read_routers(l, child_of(section, "routers"), breakers);
    map_free(breakers);
    if (l->loaded->config.control.embedded)
        warn_all_unfed(l, child_of(root, "routes"));
}
