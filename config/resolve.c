#include "config/resolve.h"
#include "base/base.h"
#include "base/strbuf.h"
#include "config/catalog.h"
#include "config/loader.h"
#include <string.h>

static bool has_pair(const struct name_value_list *have, const struct name_value *want)
{
    for (size_t i = 0; i < have->count; i++)
        if (strcmp(have->items[i].name, want->name) == 0)
            return strcmp(have->items[i].value, want->value) == 0;
    return false;
}

static bool matches(const struct catalog_entry *e, const struct name_value_list *want)
{
    for (size_t i = 0; i < want->count; i++)
        if (!has_pair(&e->metadata, &want->items[i]))
            return false;
    /* a template belongs to the operator; the control plane does not get to write one */
    return !strstr(e->name, "{host}") && !strstr(e->id, "{host}");
}

static void add_selector(struct strbuf *out, const struct name_value_list *want)
{
    for (size_t i = 0; i < want->count; i++)
        strbuf_addf(out, "%s%s=%s", i ? ", " : "", want->items[i].name, want->items[i].value);
}

static void resolve_breakers(struct arena *a, struct route *r, const struct catalog *list)
{
    r->breakers = (struct string_list){ .items = arena_alloc(a, MAX_BREAKERS * sizeof(char *)) };
    for (size_t i = 0; i < list->count; i++) {
        const char *name = list->items[i].name;
        if (!matches(&list->items[i], &r->breakers_metadata))
            continue;
        if (r->breakers.count > 0 && strcmp(name, r->breakers.items[r->breakers.count - 1]) == 0)
            continue; /* names are unique within a project; twice in the list is once here */
        r->breakers_found++;
        if (r->breakers.count < MAX_BREAKERS)
            r->breakers.items[r->breakers.count++] = arena_strdup(a, name);
    }
}

static void resolve_router(struct arena *a, struct route *r, const struct catalog *list)
{
    const char *first = NULL;
    for (size_t i = 0; i < list->count; i++) {
        const char *id = list->items[i].id;
        if (!matches(&list->items[i], &r->router_metadata))
            continue;
        r->routers_found++;
        if (!first || strcmp(id, first) < 0)
            first = id;
    }
    r->router = first ? arena_strdup(a, first) : NULL;
}

static void warn_breakers(const struct route *r, struct strbuf *out)
{
    if (r->breakers_unresolved || (r->breakers_found > 0 && r->breakers_found <= MAX_BREAKERS))
        return;
    strbuf_addf(out, "route \"%s\": ", r->name);
    if (r->breakers_found == 0)
        strbuf_adds(out, "no breaker has the metadata ");
    else
        strbuf_addf(out, "%zu breakers have the metadata ", r->breakers_found);
    add_selector(out, &r->breakers_metadata);
    if (r->breakers_found == 0)
        strbuf_adds(out, "; nothing gates it\n");
    else
        strbuf_addf(out, "; only the first %d by name gate it\n", MAX_BREAKERS);
}

static void warn_router(const struct route *r, struct strbuf *out)
{
    if (r->router_unresolved || r->routers_found == 1)
        return;
    strbuf_addf(out, "route \"%s\": ", r->name);
    if (r->routers_found == 0)
        strbuf_adds(out, "no router has the metadata ");
    else
        strbuf_addf(out, "%zu routers have the metadata ", r->routers_found);
    add_selector(out, &r->router_metadata);
    if (r->routers_found == 0)
        strbuf_adds(out, "; it makes no samples\n");
    else
        strbuf_addf(out, "; samples go to the first by id, %s\n", r->router);
}

void config_resolve(struct config *cfg, const struct catalog *breakers,
                    const struct catalog *routers, struct strbuf *warnings)
{
    struct arena *a = &((struct loaded *)(void *)cfg)->arena;

    for (size_t i = 0; i < cfg->route_count; i++) {
        struct route *r = &cfg->routes[i];
        r->breakers_unresolved = r->breakers_metadata.count > 0 && !breakers;
        r->router_unresolved = r->router_metadata.count > 0 && !routers;
        if (r->breakers_metadata.count > 0 && breakers)
            resolve_breakers(a, r, breakers);
        if (r->router_metadata.count > 0 && routers)
            resolve_router(a, r, routers);
        if (warnings && r->breakers_metadata.count > 0)
            warn_breakers(r, warnings);
        if (warnings && r->router_metadata.count > 0)
            warn_router(r, warnings);
    }
}

bool config_selects_breakers(const struct config *cfg)
{
    for (size_t i = 0; i < cfg->route_count; i++)
        if (cfg->routes[i].breakers_metadata.count > 0)
            return true;
    return false;
}

bool config_selects_router(const struct config *cfg)
{
    for (size_t i = 0; i < cfg->route_count; i++)
        if (cfg->routes[i].router_metadata.count > 0)
            return true;
    return false;
}

bool config_breakers_unresolved(const struct config *cfg)
{
    for (size_t i = 0; i < cfg->route_count; i++)
        if (cfg->routes[i].breakers_unresolved)
            return true;
    return false;
}

bool config_unresolved(const struct config *cfg)
{
    for (size_t i = 0; i < cfg->route_count; i++)
        if (cfg->routes[i].router_unresolved)
            return true;
    return config_breakers_unresolved(cfg);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_found(const struct route *a, const struct route *b)
{
    if (a->breakers_unresolved != b->breakers_unresolved ||
        a->router_unresolved != b->router_unresolved || a->breakers_found != b->breakers_found ||
        a->routers_found != b->routers_found || a->breakers.count != b->breakers.count ||
        !same_text(a->router, b->router))
        return false;
    for (size_t i = 0; i < a->breakers.count; i++)
        if (strcmp(a->breakers.items[i], b->breakers.items[i]) != 0)
            return false;
    return true;
}

bool config_same_selection(const struct config *a, const struct config *b)
{
    if (strcmp(a->hash, b->hash) != 0 || a->route_count != b->route_count)
        return false;
    for (size_t i = 0; i < a->route_count; i++)
        if (!same_found(&a->routes[i], &b->routes[i]))
            return false;
    return true;
}

const char *selection_name(enum selector_result s)
{
    switch (s) {
    case SELECTION_OK:
        return "ok";
    case SELECTION_NOT_LOADED:
        return "not_loaded";
    case SELECTION_NO_BREAKER:
        return "no_breaker";
    case SELECTION_TOO_MANY_BREAKERS:
        return "too_many_breakers";
    case SELECTION_NO_ROUTER:
        return "no_router";
    case SELECTION_SEVERAL_ROUTERS:
        return "several_routers";
    case SELECTION_COUNT:
        break;
    }
    return "?";
}

static enum selector_result breakers_came_to(const struct route *r)
{
    if (r->breakers_unresolved)
        return SELECTION_NOT_LOADED;
    if (r->breakers_found == 0)
        return SELECTION_NO_BREAKER;
    return r->breakers_found > MAX_BREAKERS ? SELECTION_TOO_MANY_BREAKERS : SELECTION_OK;
}

static enum selector_result router_came_to(const struct route *r)
{
    if (r->router_unresolved)
        return SELECTION_NOT_LOADED;
    if (r->routers_found == 0)
        return SELECTION_NO_ROUTER;
    return r->routers_found > 1 ? SELECTION_SEVERAL_ROUTERS : SELECTION_OK;
}

size_t config_selections(const struct config *cfg, enum selector_result s)
{
    size_t n = 0;
    for (size_t i = 0; i < cfg->route_count; i++) {
        const struct route *r = &cfg->routes[i];
        n += r->breakers_metadata.count > 0 && breakers_came_to(r) == s;
        n += r->router_metadata.count > 0 && router_came_to(r) == s;
    }
    return n;
}
