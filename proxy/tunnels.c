#include "proxy/tunnels.h"
#include "base/base.h"
#include "base/map.h"
#include "proxy/exchange.h"
#include "proxy/judge.h"
#include "proxy/proxy.h"
#include "proxy/snapshot.h"
#include "proxy/tunnel.h"
#include "proxy/upstream.h"
#include "sync/breakers.h"
#include <stdlib.h>

struct tunnel_route {
    struct list link; /* in worker->tunnel_routes */
    struct list tunnels;
    const struct live_route *route; /* lives as long as one of the tunnels */
    const struct live_route *now;   /* of the snapshot of that generation: of the same name, or
                                       route if there is none */
    uint64_t generation;            /* 0: not asked yet */
    size_t users;                   /* tunnels, and a look in progress */
};

/* ---- How many ---- */

bool tunnels_reserve(struct exchange *ex)
{
    _Atomic int64_t *places = &ex->w->proxy->tunnels;
    if (atomic_fetch_add(places, 1) >= exchange_config(ex)->limits.tunnels) {
        atomic_fetch_sub(places, 1);
        return false;
    }
    ex->holds_tunnel = true;
    return true;
}

void tunnels_release(struct exchange *ex)
{
    if (!ex->holds_tunnel)
        return;
    ex->holds_tunnel = false;
    atomic_fetch_sub(&ex->w->proxy->tunnels, 1);
}

/* ---- Open breakers ---- */

/* What decides about a breaker now: an override, else what the server last said. */
static enum breaker_state effective_state(const struct worker *w, uint32_t id, unsigned flags,
                                          int64_t now_ms)
{
    const struct breakers *b = w->proxy->breakers;
    enum breaker_state local = flags & STATE_OVERRIDES
                                   ? breaker_local_state(breakers_local(b, id), now_ms)
                                   : BREAKER_UNKNOWN;
    if (local != BREAKER_UNKNOWN || flags & STATE_STALE)
        return local;
    return breaker_unpack(breakers_load(b, id)).state;
}

static bool is_open(struct worker *w, const uint32_t *ids, unsigned count)
{
    unsigned flags = breakers_flags(w->proxy->breakers);
    int64_t now_ms = worker_now_ms(w);
    if (flags & STATE_BYPASS)
        return false;
    for (unsigned i = 0; i < count; i++)
        if (effective_state(w, ids[i], flags, now_ms) == BREAKER_OPEN)
            return true;
    return false;
}

/* The route as the configuration has it now: what a reload or a new list of breakers says
 * holds for tunnels that stand too. */
static const struct live_route *route_now(const struct worker *w, struct tunnel_route *g)
{
    if (g->generation != w->snap->generation) {
        g->now = snapshot_route_named(w->snap, g->route->cfg->name);
        if (!g->now)
            g->now = g->route;
        g->generation = w->snap->generation;
    }
    return g->now;
}

static bool breaker_open(const struct tunnel *t)
{
    unsigned count;
    struct exchange *ex = t->ex;
    struct worker *w = ex->w;
    const struct live_route *r = route_now(w, t->group);
    if (r->cfg->mode != MODE_ENFORCE || target_bypassed(ex->target, w->snap))
        return false;
    const uint32_t *ids = target_breakers(ex->target, w, w->snap, r, &count);
    return is_open(w, ids, count);
}

/* Whether a tunnel of this route may have to go. */
static bool concerned(struct worker *w, const struct live_route *r)
{
    if (r->cfg->tunnels_on_open == TUNNELS_KEEP || r->cfg->mode != MODE_ENFORCE)
        return false;
    return r->templated || is_open(w, r->fixed, r->fixed_count);
}

static void group_put(struct worker *w, struct tunnel_route *g)
{
    if (--g->users > 0)
        return;
    map_remove(w->tunnels_of, (const char *)&g->route, sizeof(g->route));
    list_remove(&g->link);
    free(g);
}

/* True: tunnels stay that may have to go later. */
static bool look_at_route(struct worker *w, struct tunnel_route *g)
{
    int64_t now_ms = worker_now_ms(w);
    bool wait = route_now(w, g)->cfg->tunnels_on_open == TUNNELS_CLOSE_IDLE, left = false;
    g->users++;
    for (struct list *l = g->tunnels.next, *next; l != &g->tunnels; l = next) {
        next = l->next;
        struct tunnel *t = CONTAINER(l, struct tunnel, link);
        struct exchange *ex = t->ex;
        if (!breaker_open(t))
            continue;
        if (wait && now_ms - ex->last_move_ms < TUNNEL_IDLE_OPEN_MS)
            left = true;
        else {
            COUNT(w->c.routes[exchange_slot(ex)].tunnels_closed_on_open);
            tunnel_cut(ex);
        }
    }
    group_put(w, g);
    return left;
}

/* ---- Denied destinations ---- */

static void cut_denied(struct worker *w, struct tunnel_route *g)
{
    g->users++;
    for (struct list *l = g->tunnels.next, *next; l != &g->tunnels; l = next) {
        next = l->next;
        struct exchange *ex = CONTAINER(l, struct tunnel, link)->ex;
        if (!upstream_is_denied(ex->up, w->snap->cfg))
            continue;
        COUNT(w->c.tunnels_closed_on_deny_total);
        tunnel_cut(ex);
    }
    group_put(w, g);
}

/* After a reload, and after a tunnel that began under an older configuration. */
static void look_for_denied(struct worker *w)
{
    if (w->tunnels_generation == w->snap->generation)
        return;
    for (struct list *l = w->tunnel_routes.next, *next; l != &w->tunnel_routes; l = next) {
        next = l->next;
        cut_denied(w, CONTAINER(l, struct tunnel_route, link));
    }
}

/* ---- Now and then ---- */

void tunnels_look(struct worker *w)
{
    if (list_empty(&w->tunnel_routes))
        return;
    look_for_denied(w);
    const struct breakers *b = w->proxy->breakers;
    uint64_t version = breakers_version(b), generation = w->snap->generation;
    unsigned flags = breakers_flags(b);
    /* What any other flag stands for may change the state that counts at any time. */
    bool plain = !(flags & ~(unsigned)(STATE_SYNCED | STATE_CONNECTED));
    if (plain && version == w->breakers_version && generation == w->tunnels_generation &&
        !w->tunnels_left)
        return;
    w->breakers_version = plain ? version : 0;
    w->tunnels_generation = generation;
    w->tunnels_left = false;
    if (flags & STATE_BYPASS || (flags & STATE_STALE && !(flags & STATE_OVERRIDES)))
        return;
    for (struct list *l = w->tunnel_routes.next, *next; l != &w->tunnel_routes; l = next) {
        next = l->next;
        struct tunnel_route *g = CONTAINER(l, struct tunnel_route, link);
        if (concerned(w, route_now(w, g)))
            w->tunnels_left |= look_at_route(w, g);
    }
}

/* ---- The lists ---- */

void tunnels_add(struct tunnel *t)
{
    const struct live_route *route = t->ex->route;
    struct worker *w = t->ex->w;
    struct tunnel_route *g = map_get(w->tunnels_of, (const char *)&route, sizeof(route));
    if (!g) {
        g = xcalloc(1, sizeof(*g));
        g->route = route;
        list_init(&g->tunnels);
        list_add_tail(&w->tunnel_routes, &g->link);
        map_put(w->tunnels_of, (const char *)&route, sizeof(route), g);
    }
    g->users++;
    t->group = g;
    list_add_tail(&g->tunnels, &t->link);
    /* It may have opened while we connected. */
    w->tunnels_left |= breaker_open(t);
    if (t->ex->snap != w->snap)
        w->tunnels_generation = 0;
}

void tunnels_remove(struct tunnel *t)
{
    list_remove(&t->link);
    group_put(t->ex->w, t->group);
}

void tunnels_free(struct worker *w)
{
    if (BUG(!list_empty(&w->tunnel_routes)))
        return;
    map_free(w->tunnels_of);
}
