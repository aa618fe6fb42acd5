/* "defaults" and "routes": each route is built from its defaults upwards. */
#include "base/base.h"
#include "base/map.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include "config/value.h"
#include <string.h>

#define ROUTES_MAX 100000

static const struct place_of nowhere = { 0 };

static struct place_of at_section(const cJSON *route, const char *section, const char *key)
{
    const cJSON *node = child_of(route, section);
    return node ? at_child(node, key) : at_node(route);
}

static struct place_of at_match(const cJSON *route, const char *key)
{
    return at_section(route, "match", key);
}

static void apply_muted(struct loader *l, struct route_draft *d, const cJSON *node)
{
    unsigned errors = l->report.error_count;

    l->report.muted = true;
    apply_object(l, &route_options, d, node);
    l->report.muted = false;
    l->report.error_count = errors; /* they were counted when "defaults" was read by itself */
}

/* Everything a route has before it says a word: built-in, then global, then "defaults". */
static void start_draft(struct loader *l, struct route_draft *d, const cJSON *defaults)
{
    const struct config *cfg = &l->loaded->config;
    enum layer layer = l->layer;

    memset(d, 0, sizeof(*d));
    l->layer = LAYER_DEFAULT;
    apply_defaults(l, &route_options, d);
    l->layer = layer;
    d->route.timeouts = cfg->timeouts;
    d->route.mode = cfg->mode;
    d->route.fail_mode = cfg->fail_mode;
    d->route.metrics[0] =
        (struct metric){ .name = arena_strdup(l->arena, "latency"), .kind = METRIC_LATENCY };
    d->route.metric_count = 1;
    for (size_t i = 0; i < cfg->global_tags.count; i++)
        map_set(l->arena, &d->route.tags, cfg->global_tags.items[i].name,
                cfg->global_tags.items[i].value);
    if (cJSON_IsObject(defaults))
        apply_muted(l, d, defaults);
    d->route.name = NULL; /* the one thing that no two may share */
}

static struct route finish_draft(struct route_draft *d)
{
    struct status_set *failures = &d->route.failure.status;

    for (size_t i = 0; i < sizeof(failures->bits); i++)
        failures->bits[i] &= (uint8_t)~d->except_status.bits[i];
    d->route.failure.on |= BIT(OUTCOME_NO_RESPONSE);
    d->route.reject.status = (int)d->reject_status;
    return d->route;
}

/* -- what is wrong or odd about one route --------------------------------------------- */

static void check_duplicates(struct loader *l, const struct string_list *items, struct place_of at,
                             const char *what)
{
    struct map *seen = map_new();

    for (size_t i = 0; i < items->count; i++) {
        size_t len = strlen(items->items[i]);
        if (map_get(seen, items->items[i], len))
            report_warning(&l->report, at, "%s \"%s\" is listed twice", what, items->items[i]);
        else
            map_put(seen, items->items[i], len, l);
    }
    map_free(seen);
}

static bool ports_cover(const struct port_list *ports, uint16_t port)
{
    for (size_t i = 0; i < ports->count; i++)
        if (ports->items[i].first <= port && port <= ports->items[i].last)
            return true;
    return ports->count == 0;
}

static void warn_tunnels(struct loader *l, const struct route *r, const cJSON *node)
{
    const struct match *m = &r->match;
    const char *key = m->methods.count ? "methods" : m->paths.count ? "paths" : "headers";

    if ((m->methods.count || m->paths.count || m->headers.count) && ports_cover(&m->ports, 443))
        report_warning(&l->report, at_match(node, key),
                       "a tunnel (HTTPS) never matches a route with methods, paths or headers; "
                       "this one covers port 443");
}

static void warn_methods(struct loader *l, const struct route *r, const cJSON *node)
{
    static const char *const known[] = { "GET",    "HEAD",    "POST",  "PUT",
                                         "DELETE", "OPTIONS", "PATCH", "TRACE" };

    for (size_t i = 0; i < r->match.methods.count; i++)
        for (size_t k = 0; k < ARRAY_LEN(known); k++)
            if (strcasecmp(r->match.methods.items[i], known[k]) == 0 &&
                strcmp(r->match.methods.items[i], known[k]) != 0)
                report_warning(&l->report, at_match(node, "methods"),
                               "methods are compared with case; did you mean \"%s\"?", known[k]);
}

static void check_headers(struct loader *l, const struct name_value_list *h, struct place_of at)
{
    for (size_t i = 0; i < h->count; i++)
        for (size_t k = 0; k < i; k++)
            if (strcasecmp(h->items[i].name, h->items[k].name) == 0)
                report_error(&l->report, at, "\"%s\" and \"%s\" are the same header",
                             h->items[k].name, h->items[i].name);
}

/* Of these the client would make something else than a refusal. */
static void check_reject_status(struct loader *l, const struct route *r, const cJSON *node)
{
    static const struct {
        int status;
        const char *why;
    } refused[] = {
        { 401, "asks clients for a name and password" },
        { 407, "asks clients for a name and password for the proxy" },
        { 408, "makes clients repeat the request at once" },
        { 421, "makes clients repeat the request on another connection" },
        { 426, "asks clients to change the protocol" },
    };

    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        if (r->reject.status == refused[i].status)
            report_error(&l->report, at_section(node, "reject", "status"),
                         "%d %s; a refusal must not, take 503 or 429", refused[i].status,
                         refused[i].why);
}

static void check_refusal(struct loader *l, const struct route *r, const cJSON *node)
{
    check_reject_status(l, r, node);
    check_headers(l, &r->reject.headers, at_section(node, "reject", "headers"));
    if (r->reject.content_type && !r->reject.body)
        report_error(&l->report, at_section(node, "reject", "content_type"),
                     "reject.content_type has no effect without reject.body");
}

static void warn_fleet(struct loader *l, const struct route *r, const cJSON *node)
{
    if (r->half_open.fleet.size > 1 && r->half_open.fleet.max_per_second == OFF)
        report_warning(&l->report, at_section(node, "half_open", "fleet"),
                       "half_open.fleet.size has no effect without "
                       "half_open.fleet.max_per_second");
}

static void check_route(struct loader *l, const struct route *r, const cJSON *node)
{
    if (r->tags.count > MAX_TAGS)
        report_error(&l->report, at_child(node, "tags"),
                     "more than %d tags together with the global ones", MAX_TAGS);
    check_headers(l, &r->match.headers, at_match(node, "headers"));
    check_refusal(l, r, node);
    warn_fleet(l, r, node);
    rules_check(l, r, node);
    check_duplicates(l, &r->match.hosts, at_match(node, "hosts"), "host");
    check_duplicates(l, &r->breakers, at_child(node, "breakers"), "breaker");
    warn_tunnels(l, r, node);
    warn_methods(l, r, node);
}

static bool matches_everything(const struct match *m)
{
    bool any_host = m->hosts.count == 0;

    for (size_t i = 0; i < m->hosts.count; i++)
        any_host |= strcmp(m->hosts.items[i], "*") == 0;
    return any_host && !m->ports.count && !m->methods.count && !m->paths.count && !m->headers.count;
}

/* -- all routes ---------------------------------------------------------------------- */

static void set_name(struct loader *l, struct route *r, struct map *names, const cJSON *node)
{
    const cJSON *given = child_of(node, "name");

    if (!r->name)
        r->name = arena_printf(l->arena, "route-%zu", r->index);
    else if (strcmp(r->name, "_auto") == 0 || strcmp(r->name, "_default") == 0)
        report_error(&l->report, at_node(given), "\"%s\" is the name of a built-in route", r->name);
    size_t len = strlen(r->name);
    if (map_get(names, r->name, len))
        report_error(&l->report, at_node(given ? given : node),
                     "an earlier route is called \"%s\" as well", r->name);
    else
        map_put(names, r->name, len, r);
}

static void read_routes(struct loader *l, const cJSON *defaults, const cJSON *routes)
{
    struct config *cfg = &l->loaded->config;
    size_t count = (size_t)cJSON_GetArraySize(routes);
    const struct route *catch_all = NULL;
    struct map *names = map_new();
    struct route_draft draft;

    if (count > ROUTES_MAX) {
        report_error(&l->report, at_node(routes), "more than %d routes", ROUTES_MAX);
        count = 0;
    }
    cfg->routes = arena_alloc(l->arena, count * sizeof(*cfg->routes) + 1);
    const cJSON *node = routes->child;
    for (size_t i = 0; i < count; i++, node = node->next) {
        struct route *r = &cfg->routes[cfg->route_count++];
        start_draft(l, &draft, defaults);
        apply_object(l, &route_options, &draft, node);
        *r = finish_draft(&draft);
        r->index = i;
        set_name(l, r, names, node);
        check_route(l, r, node);
        if (catch_all)
            report_warning(&l->report, at_node(node),
                           "no request gets here: route \"%s\" before it matches every one",
                           catch_all->name);
        else if (matches_everything(&r->match))
            catch_all = r;
    }
    map_free(names);
}

static void check_defaults(struct loader *l, const cJSON *defaults)
{
    struct route_draft draft;

    start_draft(l, &draft, NULL);
    apply_object(l, &route_options, &draft, defaults);
    const cJSON *name = child_of(defaults, "name");
    if (name)
        report_error(&l->report, at_key(name), "a name belongs to one route");
}

static struct string_list one_string(struct loader *l, const char *s)
{
    struct string_list list = { .items = arena_alloc(l->arena, sizeof(char *)), .count = 1 };
    list.items[0] = arena_strdup(l->arena, s);
    return list;
}

static struct route *make_fallback(struct loader *l, const cJSON *defaults)
{
    struct config *cfg = &l->loaded->config;
    struct route *r = arena_alloc(l->arena, sizeof(*r));
    bool automatic = cfg->control.embedded && cfg->route_count == 0;
    struct route_draft draft;

    start_draft(l, &draft, defaults);
    *r = finish_draft(&draft);
    r->match = (struct match){ 0 };
    r->index = cfg->route_count;
    r->name = arena_strdup(l->arena, automatic ? "_auto" : "_default");
    r->breakers_metadata = r->router_metadata = (struct name_value_list){ 0 };
    r->breakers = automatic ? one_string(l, "{host}") : (struct string_list){ 0 };
    r->router = automatic ? arena_strdup(l->arena, "{host}") : NULL;
    if (automatic)
        check_refusal(l, r, defaults);
    return r;
}

static void warn_bypass(struct loader *l)
{
    const struct config *cfg = &l->loaded->config;
    struct map *hosts = map_new();

    for (size_t i = 0; i < cfg->bypass.count; i++)
        map_put(hosts, cfg->bypass.items[i], strlen(cfg->bypass.items[i]), cfg->bypass.items);
    for (size_t i = 0; cfg->bypass.count && i < cfg->route_count; i++) {
        const struct string_list *list = &cfg->routes[i].match.hosts;
        for (size_t k = 0; k < list->count; k++)
            if (map_get(hosts, list->items[k], strlen(list->items[k])))
                report_warning(&l->report, origin_of(l, "bypass")->at,
                               "\"%s\" is not bypassed, because route \"%s\" names it",
                               list->items[k], cfg->routes[i].name);
    }
    map_free(hosts);
}

/* A remote control plane knows its breakers by names that only routes can tell. */
static void warn_unused_control(struct loader *l, const cJSON *root)
{
    const struct config *cfg = &l->loaded->config;

    if (cfg->control.embedded || cfg->route_count)
        return;
    report_warning(&l->report, root ? at_node(root) : nowhere,
                   "there are no routes: traffic passes ungated and unreported");
}

void routes_apply(struct loader *l, const cJSON *root)
{
    const cJSON *defaults = child_of(root, "defaults"), *routes = child_of(root, "routes");

    l->layer = LAYER_FILE;
    if (cJSON_IsObject(defaults))
        check_defaults(l, defaults);
    if (cJSON_IsArray(routes))
        read_routes(l, defaults, routes);
    l->loaded->config.fallback = make_fallback(l, defaults);
    warn_bypass(l);
    warn_unused_control(l, root);
}
