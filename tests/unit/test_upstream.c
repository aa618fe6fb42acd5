/* When a kept connection is used again without asking the kernel, and when not. */
#include "proxy/upstream.h"

#include "base/base.h"
#include "base/map.h"
#include "proxy/downstream.h"
#include "proxy/exchange.h"
#include "proxy/self.h"
#include "proxy/snapshot.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct proxy p;
static struct worker *w;
static struct config cfg;
static struct snapshot snap;
static struct route route;
static struct live_route live;
static struct downstream client;

static void connection_free(struct conn *c)
{
    free(CONTAINER(c, struct upstream, c));
}

static const struct conn_ops no_events = { .free = connection_free };

static int set_up(void **state)
{
    (void)state;
    memset(&p, 0, sizeof(p));
    memset(&cfg, 0, sizeof(cfg));
    memset(&snap, 0, sizeof(snap));
    memset(&client, 0, sizeof(client));
    cfg.limits.upstream_idle = 10;
    route.timeouts.upstream_idle_ms = 4000;
    snap.cfg = &cfg;
    snap.generation = 1;
    live.cfg = &route;
    p.self = self_new();
    w = xcalloc(1, sizeof(*w));
    w->proxy = &p;
    w->snap = &snap;
    w->turn = 10;
    w->base = event_base_new();
    w->targets = map_new();
    list_init(&w->target_lru);
    list_init(&w->pool_lru);
    list_init(&w->graveyard);
    list_init(&client.parked);
    client.c.dead = true; /* no timer of its is armed */
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    upstream_close_idle(w);
    while (!list_empty(&client.parked))
        upstream_close(CONTAINER(client.parked.next, struct upstream, parked_link));
    while (!list_empty(&w->graveyard)) {
        struct conn *c = CONTAINER(w->graveyard.next, struct conn, run);
        list_remove(&c->run);
        c->ops->free(c);
    }
    connect_jobs_free(w);
    targets_free(w);
    block_pool_trim(&w->blocks, 0);
    event_base_free(w->base);
    free(w);
    self_free(p.self);
    return 0;
}

/* A request to an address that is the proxy's own: it gets a kept connection or none. */
static struct exchange *exchange(bool replayable)
{
    static struct exchange ex;
    struct sockaddr_in own = { .sin_family = AF_INET, .sin_port = htons(3128) };
    struct authority a;
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    self_add(p.self, (struct sockaddr *)&own, SELF_PROXY);
    if (authority_parse(&a, slice_of("127.0.0.1:3128"), 80))
        fail_msg("no authority");
    memset(&ex, 0, sizeof(ex));
    ex.w = w;
    ex.down = &client;
    ex.snap = &snap;
    ex.route = &live;
    ex.state = EX_CONNECT;
    ex.replayable = replayable;
    ex.target = target_get(w, &a);
    ex.target->is_fixed = true;
    ex.target->fixed.in = own;
    return &ex;
}

/* A connection that has served ex once, and the origin's end of it. */
static struct upstream *kept(struct exchange *ex, bool parked, int *origin)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends))
        fail_msg("no socket pair");
    struct upstream *up = xcalloc(1, sizeof(*up));
    conn_init(&up->c, w, ends[0], &no_events, false);
    up->target = ex->target;
    target_ref(up->target);
    up->allowed_in = snap.generation;
    up->ex = ex;
    COUNT(w->c.upstream_connections);
    if (parked)
        upstream_park(up, &client);
    upstream_release(up, true);
    *origin = ends[1];
    return up;
}

/* The loop has fetched all there was, in a turn of one event. */
static void next_turn(bool knows_all)
{
    w->turn++;
    w->batch_turn = w->turn;
    w->batch = 1;
    w->batch_largest = knows_all ? 2 : 1;
}

static struct upstream *acquire(struct exchange *ex)
{
    struct upstream *up = NULL;
    if (upstream_acquire(ex, false, &up) != UPSTREAM_READY)
        up = NULL;
    upstream_cancel(ex);
    return up;
}

static void what_came_since_the_release_is_no_answer(void **state)
{
    static const struct {
        const char *name;
        bool replayable, same_turn, knows_all, stray, want;
    } cases[] = {
        { "a stray, in the turn of the release", true, true, true, true, false },
        { "a stray, in that turn, not to be repeated", false, true, true, true, false },
        { "nothing, in that turn", true, true, true, false, true },
        { "a stray, a turn later, of which the loop need not know", true, false, false, true,
          false },
        { "a stray, a turn later, not to be repeated", false, false, true, true, false },
        { "nothing, a turn later", true, false, true, false, true },
        /* The loop would know of it: nobody asks, and that is all that shows it. */
        { "a stray within a turn that knows all", true, false, true, true, true },
    };
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        bool parked = i >= ARRAY_LEN(cases);
        size_t k = i % ARRAY_LEN(cases);
        int origin;
        set_up(state);
        struct exchange *ex = exchange(cases[k].replayable);
        next_turn(cases[k].knows_all);
        struct upstream *up = kept(ex, parked, &origin);
        if (!cases[k].same_turn)
            next_turn(cases[k].knows_all);
        if (cases[k].stray && write(origin, "stray", 5) != 5)
            fail_msg("no stray");
        bool got = acquire(ex) == up;
        if (got != cases[k].want)
            fail_msg("%s (%s): %s", cases[k].name, parked ? "parked" : "pooled",
                     got ? "used again" : "not used again");
        if (got) {
            up->ex = ex;
            upstream_close(up);
        }
        close(origin);
        target_unref(ex->target);
        tear_down(state);
    }
}

static void one_that_need_not_be_asked_comes_first(void **state)
{
    static const struct {
        const char *name;
        bool replayable, knows_all, want_older;
    } cases[] = {
        { "both would be asked: the one used last", false, true, false },
        { "likewise, as the loop may not know all", true, false, false },
        { "the older one has rested", true, true, true },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int origins[2];
        set_up(state);
        struct exchange *ex = exchange(cases[i].replayable);
        next_turn(cases[i].knows_all);
        struct upstream *older = kept(ex, false, &origins[0]);
        next_turn(cases[i].knows_all);
        struct upstream *newer = kept(ex, false, &origins[1]);
        struct upstream *first = acquire(ex), *second = acquire(ex);
        if (first != (cases[i].want_older ? older : newer))
            fail_msg("%s: not first", cases[i].name);
        if (second != (cases[i].want_older ? newer : older))
            fail_msg("%s: not second", cases[i].name);
        upstream_close(first);
        upstream_close(second);
        close(origins[0]);
        close(origins[1]);
        target_unref(ex->target);
        tear_down(state);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_came_since_the_release_is_no_answer),
        cmocka_unit_test(one_that_need_not_be_asked_comes_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
