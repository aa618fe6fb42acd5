#include "proxy/snapshot.h"
#include "base/base.h"
#include "base/intern.h"
#include "base/ring.h"
#include "proxy/inspect.h"
#include "proxy/metrics.h"
#include "proxy/route.h"
#include "proxy/worker.h"
#include "sync/sync.h"
#include <stdlib.h>
#include <string.h>

#define ROUTE_NAMES_MAX (ROUTE_SLOTS - 2) /* then "_default" and "_other" */

static bool has_template(const char *s)
{
    return s && strstr(s, "{host}");
}

static bool has_templated_tag(const struct route *r)
{
    for (size_t i = 0; i < r->tags.count; i++)
        if (has_template(r->tags.items[i].value))
            return true;
    return false;
}

unsigned route_slot(struct proxy *p, const char *name)
{
    if (strcmp(name, "_default") == 0)
        return ROUTE_SLOTS - 2;
    uint32_t id = intern_find(p->route_names, name, strlen(name));
    if (!id && intern_count(p->route_names) < ROUTE_NAMES_MAX)
        id = intern_add(p->route_names, name, strlen(name));
    return id ? id - 1 : ROUTE_SLOTS - 1;
}

const char *route_slot_name(const struct proxy *p, unsigned slot)
{
    if (slot == ROUTE_SLOTS - 1)
        return "_other";
    if (slot == ROUTE_SLOTS - 2)
        return "_default";
    return slot < intern_count(p->route_names) ? intern_name(p->route_names, slot + 1, NULL) : NULL;
}

/* ---- Rules ---- */

#define RULE_NAMES_AT  (RULE_SLOWER_THAN + 1)
#define RULE_NAMES_MAX (RULE_SLOTS - RULE_NAMES_AT - 1) /* then "_other" */

static uint8_t intern_rule(struct proxy *p, const char *name)
{
    uint32_t id = intern_find(p->rule_names, name, strlen(name));
    if (!id && intern_count(p->rule_names) < RULE_NAMES_MAX)
        id = intern_add(p->rule_names, name, strlen(name));
    return (uint8_t)(id ? RULE_NAMES_AT + id - 1 : RULE_SLOTS - 1);
}

static uint8_t *intern_rules(struct proxy *p, const struct route *r)
{
    size_t headers = r->failure.headers.count, body = r->failure.body.count;
    if (headers + body == 0)
        return NULL;
    uint8_t *slots = xcalloc(RULE_COUNT - RULE_HEADERS, 1);
    for (size_t i = 0; i < headers; i++)
        slots[i] = intern_rule(p, r->failure.headers.items[i].name);
    for (size_t i = 0; i < body; i++)
        slots[MAX_RULES + i] = intern_rule(p, r->failure.body.items[i].name);
    return slots;
}

unsigned rule_slot(const struct live_route *lr, unsigned rule)
{
    if (rule < RULE_HEADERS)
        return rule;
    return BUG(!lr->rule_slots) ? RULE_SLOTS - 1 : lr->rule_slots[rule - RULE_HEADERS];
}

const char *rule_slot_name(const struct proxy *p, unsigned slot)
{
    if (slot < RULE_NAMES_AT)
        return slot == RULE_STATUS ? "status" : slot == RULE_SLOWER_THAN ? "slower_than" : NULL;
    if (slot == RULE_SLOTS - 1)
        return "_other";
    uint32_t id = slot - RULE_NAMES_AT + 1;
    return id <= intern_count(p->rule_names) ? intern_name(p->rule_names, id, NULL) : NULL;
}

static void free_live(struct live_route *lr)
{
    inspect_plan_free(lr->plan);
    free(lr->rule_slots);
}

static void go_live(struct proxy *p, struct live_route *lr, const struct route *r)
{
    *lr = (struct live_route){ .cfg = r,
                               .slot = route_slot(p, r->name),
                               .templated_router = has_template(r->router),
                               .gates = r->breakers.count > 0 || r->breakers_unresolved,
                               .unresolved = r->breakers_unresolved,
                               .breaker_count = (unsigned)r->breakers.count,
                               .probe = probe_limits_of(r),
                               .plan = inspect_plan_new(r),
                               .rule_slots = intern_rules(p, r) };
    lr->tells_host = lr->templated_router || has_templated_tag(r);
    for (size_t i = 0; i < r->breakers.count; i++) {
        const char *name = r->breakers.items[i];
        if (has_template(name))
            lr->templated = true;
        else
            lr->fixed[lr->fixed_count++] = breakers_intern(p->breakers, name, strlen(name));
    }
}

struct snapshot *snapshot_new(struct proxy *p, struct config *cfg)
{
    static uint64_t generation; /* main only */
    struct snapshot *s = xcalloc(1, sizeof(*s));
    s->cfg = cfg;
    s->generation = ++generation;
    s->table = route_table_new(cfg->routes, cfg->route_count);
    s->routes = xcalloc(cfg->route_count ? cfg->route_count : 1, sizeof(*s->routes));
    for (size_t i = 0; i < cfg->route_count; i++)
        go_live(p, &s->routes[i], &cfg->routes[i]);
    go_live(p, &s->fallback, cfg->fallback);
    return s;
}

void snapshot_free(struct snapshot *s)
{
    if (!s)
        return;
    route_table_free(s->table);
    for (size_t i = 0; i < s->cfg->route_count; i++)
        free_live(&s->routes[i]);
    free_live(&s->fallback);
    free(s->routes);
    config_free(s->cfg);
    free(s);
}

const struct live_route *snapshot_route(const struct snapshot *s, const struct route *r)
{
    return &s->routes[r->index];
}

const struct live_route *snapshot_route_named(const struct snapshot *s, const char *name)
{
    for (size_t i = 0; i < s->cfg->route_count; i++)
        if (strcmp(s->routes[i].cfg->name, name) == 0)
            return &s->routes[i];
    return strcmp(s->fallback.cfg->name, name) == 0 ? &s->fallback : NULL;
}

/* ---- Retirement, all on main ---- */

static struct snapshot *retired;

void snapshot_publish(struct proxy *p, struct snapshot *next)
{
    struct snapshot *old = atomic_exchange(&p->snapshot, next);
    p->snapshots++;
    if (!old)
        return; /* the first: no worker runs yet */
    for (unsigned i = 0; i < p->worker_count; i++)
        worker_wake(p->workers[i]);
    old->next_retired = retired;
    retired = old;
}

/* No worker can make a record of it any more. */
static bool left_by_workers(const struct proxy *p, struct snapshot *s)
{
    for (unsigned i = 0; i < p->worker_count; i++) {
        if (atomic_load(&p->workers[i]->adopted_generation) <= s->generation ||
            atomic_load(&s->use[i].exchanges) > 0)
            return false;
    }
    if (!s->marked) {
        for (unsigned i = 0; i < p->worker_count; i++)
            s->ring_mark[i] = ring_pushed(p->workers[i]->ring);
        s->marked = true;
    }
    return true;
}

static bool left_by_sync(const struct proxy *p, const struct snapshot *s)
{
    for (unsigned i = 0; i < p->worker_count; i++)
        if (!sync_passed(p->sync, i, s->ring_mark[i]))
            return false;
    return true; /* the sync thread itself copies what it needs of a configuration */
}

bool snapshot_reap(struct proxy *p)
{
    for (struct snapshot **at = &retired; *at;) {
        struct snapshot *s = *at;
        if (left_by_workers(p, s) && left_by_sync(p, s)) {
            *at = s->next_retired;
            p->snapshots--;
            snapshot_free(s);
        } else {
            at = &s->next_retired;
        }
    }
    return retired != NULL;
}

void snapshot_reap_all(struct proxy *p)
{
    while (retired) {
        struct snapshot *s = retired;
        retired = s->next_retired;
        snapshot_free(s);
    }
    snapshot_free(atomic_exchange(&p->snapshot, NULL));
}
