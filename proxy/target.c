#include "proxy/target.h"
#include "base/base.h"
#include "base/intern.h"
#include "base/log.h"
#include "base/map.h"
#include "base/strbuf.h"
#include "proxy/snapshot.h"
#include "sync/breakers.h"
#include <arpa/inet.h>
#include <stdlib.h>

#define TARGETS_MAX 4096

/* ---- Those asked for lately ---- */

static struct target **recent_place(struct target *const *recent, struct slice authority)
{
    const uint64_t mix = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t hash = authority.len, part;
    size_t i = 0;
    for (; authority.len - i >= sizeof(part); i += sizeof(part)) {
        memcpy(&part, authority.p + i, sizeof(part));
        hash = (hash ^ part) * mix;
        hash ^= hash >> 32;
    }
    for (; i < authority.len; i++)
        hash = (hash ^ (unsigned char)authority.p[i]) * mix;
    return (struct target **)&recent[hash >> 32 & (TARGETS_RECENT - 1)];
}

/* As its key, or without port 80: so spelled, it would be parsed to this very key. */
static bool is_spelled(const struct target *t, struct slice authority)
{
    size_t len = t->authority_len;
    if (t->port == 80 && authority.len != len)
        len -= sizeof(":80") - 1;
    return authority.len == len && memcmp(authority.p, t->key, len) == 0;
}

struct target *target_recall(const struct worker *w, struct slice authority)
{
    struct target *t = *recent_place(w->recent_targets, authority);
    return t && is_spelled(t, authority) ? t : NULL;
}

static void remember(struct worker *w, struct target *t, struct slice authority)
{
    if (!t->is_fixed && is_spelled(t, authority))
        *recent_place(w->recent_targets, authority) = t;
}

static void target_forget(struct worker *w, struct target *t)
{
    for (size_t i = 0; i < TARGETS_RECENT; i++)
        if (w->recent_targets[i] == t)
            w->recent_targets[i] = NULL;
    list_remove(&t->lru);
    map_remove(w->targets, t->key, t->key_len);
    route_candidates_free(&t->candidates);
    free(t->names);
    free(t);
}

static void make_room(struct worker *w)
{
    struct list *l = w->target_lru.next;
    while (map_count(w->targets) >= TARGETS_MAX && l != &w->target_lru) {
        struct target *t = CONTAINER(l, struct target, lru);
        l = l->next;
        if (t->refs == 0)
            target_forget(w, t);
    }
}

static bool is_literal(const char *host)
{
    uint8_t addr[16];
    return inet_pton(AF_INET, host, addr) == 1 || inet_pton(AF_INET6, host, addr) == 1;
}

struct target *target_get(struct worker *w, const struct authority *a)
{
    char key[HOST_MAX + 10 + INET6_ADDRSTRLEN + 1];
    size_t len = authority_key(a, key, sizeof(key));
    size_t authority_len = len;
    if (a->fixed) {
        key[len++] = '@';
        address_text(a->fixed, key + len, sizeof(key) - len);
        len += strlen(key + len);
    }
    struct target *t = map_get(w->targets, key, len);
    if (!t) {
        make_room(w);
        t = xcalloc(1, sizeof(*t) + len + 1);
        memcpy(t->key, key, len + 1);
        t->key_len = len;
        t->authority_len = authority_len;
        memcpy(t->host, a->host, a->host_len + 1);
        t->label_len = authority_label(a, t->label, sizeof(t->label));
        t->port = a->port;
        t->is_fixed = a->fixed != NULL;
        if (a->fixed)
            t->fixed = *a->fixed;
        t->is_literal = t->is_fixed || is_literal(t->host);
        list_init(&t->idle);
        map_put(w->targets, key, len, t);
    }
    remember(w, t, a->raw);
    target_take(w, t);
    return t;
}

void target_take(struct worker *w, struct target *t)
{
    list_remove(&t->lru);
    list_add_tail(&w->target_lru, &t->lru);
    t->refs++;
}

void target_ref(struct target *t)
{
    t->refs++;
}

void target_unref(struct target *t)
{
    if (!BUG(t->refs == 0))
        t->refs--;
}

void targets_free(struct worker *w)
{
    while (!list_empty(&w->target_lru))
        target_forget(w, CONTAINER(w->target_lru.next, struct target, lru));
    map_free(w->targets);
    w->targets = NULL;
}

static void adopt(struct target *t, const struct snapshot *snap)
{
    if (t->generation == snap->generation)
        return;
    route_candidates_free(&t->candidates);
    route_candidates_init(snap->table, slice_of(t->host), t->port, &t->candidates);
    t->name_count = 0;
    t->bypassed =
        !t->candidates.named && bypass_match(&snap->cfg->bypass, slice_of(t->host), t->port);
    t->host_refused = false;
    t->generation = snap->generation;
}

const struct live_route *target_route(struct target *t, struct worker *w,
                                      const struct snapshot *snap, const struct route_request *rq)
{
    (void)w;
    adopt(t, snap);
    const struct route *r = route_match(&t->candidates, rq);
    return r ? snapshot_route(snap, r) : &snap->fallback;
}

bool target_bypassed(struct target *t, const struct snapshot *snap)
{
    adopt(t, snap);
    return t->bypassed;
}

static void warn_ungated(const struct target *t, struct worker *w)
{
    static _Thread_local struct log_limit limit;
    uint64_t more;
    if (log_limit_pass(&limit, worker_now_ms(w), 3600000, &more))
        log_event(
            LOG_WARNING, "proxy", "hosts.ungated",
            "limits.auto_breakers is reached: further hosts pass without a breaker; raise it, "
            "or name the hosts that matter in routes",
            "host", t->label, NULL);
}

/* A host takes a place among limits.auto_breakers once, whatever the number of workers. */
static bool host_admitted(struct target *t, struct worker *w, const struct snapshot *snap,
                          bool gates)
{
    struct intern *hosts = w->proxy->auto_hosts;
    if (t->host_id)
        return true;
    if (t->host_refused)
        return false;
    if (!intern_find(hosts, t->label, t->label_len) &&
        (intern_count(hosts) >= snap->cfg->limits.auto_breakers ||
         !intern_add(hosts, t->label, t->label_len))) {
        COUNT(w->c.limit_auto_breakers);
        t->host_refused = true;
        if (gates) /* else only a tag is missing, or a sample */
            warn_ungated(t, w);
        return false;
    }
    t->host_id = intern_find(hosts, t->label, t->label_len);
    return true;
}

const uint32_t *target_breakers(struct target *t, struct worker *w, const struct snapshot *snap,
                                const struct live_route *r, unsigned *count)
{
    adopt(t, snap);
    bool admitted = (!r->templated && !r->tells_host) || host_admitted(t, w, snap, r->templated);
    *count = r->fixed_count;
    if (!r->templated)
        return r->fixed;
    if (!admitted) { /* what guards every host guards this one too */
        COUNT(w->c.ungated_hosts_total);
        return r->fixed;
    }
    for (size_t i = 0; i < t->name_count; i++) {
        if (t->names[i].route == r) {
            *count = r->breaker_count;
            return t->names[i].breakers;
        }
    }
    t->names = xrealloc(t->names, (t->name_count + 1) * sizeof(*t->names));
    struct target_names *n = &t->names[t->name_count];
    n->route = r;
    for (unsigned i = 0; i < r->breaker_count; i++) {
        char name[HOST_MAX + 1];
        size_t len;
        struct slice label = { t->label, t->label_len };
        uint32_t id = authority_expand(r->cfg->breakers.items[i], label, name, sizeof(name), &len)
                          ? 0
                          : breakers_intern(w->proxy->breakers, name, len);
        if (!id) {
            COUNT(w->c.ungated_hosts_total);
            return r->fixed;
        }
        n->breakers[i] = id;
    }
    t->name_count++;
    *count = r->breaker_count;
    return n->breakers;
}
