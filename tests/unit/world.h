/*
 * world.h - a struct proxy made by hand, with counters that a test can set, for the tests
 * of what telemetry says.  Sync, the embedded control plane and route names are played
 * here.  Included by one file of a test program, as it defines functions.
 */
#ifndef TESTS_UNIT_WORLD_H
#define TESTS_UNIT_WORLD_H
#include "base/base.h"
#include "base/clock.h"
#include "config/config.h"
#include "control/control.h"
#include "proxy/probe.h"
#include "proxy/proxy.h"
#include "proxy/self.h"
#include "proxy/snapshot.h"
#include "proxy/switches.h"
#include "proxy/worker.h"
#include "sync/breakers.h"
#include "sync/sync.h"
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define WORLD_WORKERS 2

struct world {
    struct proxy p;
    struct snapshot snap;
    struct config cfg;
    struct route fallback;
    const char *route_names[ROUTE_SLOTS];
    const char *rule_names[RULE_SLOTS];
    uint64_t sync[SYNC_COUNTER_COUNT];
    struct sync_gauges gauges;
    struct control_stats control;
};

static struct world *world; /* what the functions below answer from */

uint64_t sync_counter(const struct sync *s, enum sync_counter c)
{
    (void)s;
    return world->sync[c];
}

void sync_gauges(const struct sync *s, struct sync_gauges *out)
{
    (void)s;
    *out = world->gauges;
}

void control_stats(const struct control *c, struct control_stats *out)
{
    (void)c;
    *out = world->control;
}

const char *route_slot_name(const struct proxy *p, unsigned slot)
{
    (void)p;
    return world->route_names[slot];
}

const char *rule_slot_name(const struct proxy *p, unsigned slot)
{
    (void)p;
    return world->rule_names[slot];
}

static struct world *world_new(void)
{
    struct world *w = xcalloc(1, sizeof(*w));
    const struct sockaddr_in bound = { .sin_family = AF_INET,
                                       .sin_port = htons(3128),
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

    w->cfg.hash = xstrdup("0123456789abcdef");
    w->cfg.control.url = xstrdup("https://control.test");
    w->p.self = self_new();
    self_add(w->p.self, (const struct sockaddr *)(const void *)&bound, SELF_PROXY);
    w->snap.cfg = &w->cfg;
    w->cfg.fallback = &w->fallback;
    w->snap.fallback.cfg = &w->fallback;
    w->p.breakers = breakers_new();
    w->p.switches = switches_new(w->p.breakers);
    w->p.probes = probes_new();
    w->p.sync = (struct sync *)w;       /* only ever handed back to the functions above */
    w->p.control = (struct control *)w; /* the same */
    w->p.start_mono_ms = clock_mono_ms();
    w->p.start_wall_ms = clock_wall_ms();
    w->p.worker_count = WORLD_WORKERS;
    for (unsigned i = 0; i < WORLD_WORKERS; i++) {
        w->p.workers[i] = xcalloc(1, sizeof(struct worker));
        w->p.workers[i]->index = i;
    }
    atomic_store(&w->p.snapshot, &w->snap);
    w->route_names[0] = "_default";
    return world = w;
}

static void world_free(struct world *w)
{
    for (unsigned i = 0; i < WORLD_WORKERS; i++)
        free(w->p.workers[i]);
    switches_free(w->p.switches);
    probes_free(w->p.probes);
    breakers_free(w->p.breakers);
    free(w->cfg.hash);
    free(w->cfg.control.url);
    self_free(w->p.self);
    free(w);
    world = NULL;
}

static uint32_t world_breaker(struct world *w, const char *name, enum breaker_state state,
                              double rate)
{
    uint32_t id = breakers_intern(w->p.breakers, name, strlen(name));

    if (state != BREAKER_UNKNOWN)
        breakers_store(w->p.breakers, id, state, breaker_rate_from_double(rate), false,
                       1700000000123);
    return id;
}

#endif
