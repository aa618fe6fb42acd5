#include "proxy/worker.h"
#include "base/base.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/ring.h"
#include "base/thread.h"
#include "proxy/conn.h"
#include "proxy/dns.h"
#include "proxy/downstream.h"
#include "proxy/exchange.h"
#include "proxy/listener.h"
#include "proxy/proxy.h"
#include "proxy/snapshot.h"
#include "proxy/target.h"
#include "proxy/tunnel_way.h"
#include "proxy/tunnels.h"
#include "proxy/upstream.h"
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Blocks kept warm through a quiet second. */
#define KEEP_BLOCKS 16

void list_init(struct list *head)
{
    head->next = head->prev = head;
}

void list_add_tail(struct list *head, struct list *item)
{
    item->next = head;
    item->prev = head->prev;
    head->prev->next = item;
    head->prev = item;
}

void list_remove(struct list *item)
{
    if (!item->next)
        return;
    item->next->prev = item->prev;
    item->prev->next = item->next;
    item->next = item->prev = NULL;
}

int64_t worker_now_us(struct worker *w)
{
    if (w->turn_of_clock != w->turn) {
        w->turn_of_clock = w->turn;
        w->now_us_cached = clock_mono_us();
        w->now_wall_ms_cached = clock_wall_ms();
    }
    return w->now_us_cached;
}

/* ---- What a turn knows ---- */

#define SHORT_TURN_EVENTS 64

void worker_begin_batch(struct worker *w)
{
    if (w->batch_served > w->batch_largest)
        w->batch_largest = w->batch_served; /* all of one turn, so of one fetch */
    w->batch_served = 0;
    w->batch_turn = w->turn;
    w->batch = (unsigned)event_base_get_num_events(w->base, EVENT_BASE_COUNT_ACTIVE) + 1;
}

/* The loop fetches no more events at once than its array holds, which grows and never shrinks:
 * fewer than it has once fetched are all there were.  In a long turn they grow old. */
bool worker_knows_all(const struct worker *w)
{
    return w->batch_turn == w->turn && w->batch < w->batch_largest && w->batch <= SHORT_TURN_EVENTS;
}

/* ---- What a turn does besides events ---- */

static void adopt_snapshot(struct worker *w)
{
    struct snapshot *newest = atomic_load_explicit(&w->proxy->snapshot, memory_order_acquire);
    if (newest == w->snap)
        return;
    w->snap = newest;
    if (w->dns)
        dns_reconfigure(w->dns);
    for (unsigned i = 0; i < w->listener_count; i++)
        listener_reconfigure(&w->listeners[i]);
    atomic_store(&w->adopted_generation, newest->generation);
    tunnels_look(w); /* it may say otherwise about those that stand */
    upstream_close_denied(w);
}

static void serve_again(struct worker *w)
{
    /* Only those queued before now: what queues itself meanwhile waits its turn. */
    struct list batch;
    if (list_empty(&w->runq))
        return;
    list_init(&batch);
    while (!list_empty(&w->runq)) {
        struct list *l = w->runq.next;
        list_remove(l);
        list_add_tail(&batch, l);
    }
    while (!list_empty(&batch)) {
        struct conn *c = CONTAINER(batch.next, struct conn, run);
        list_remove(&c->run);
        c->ops->on_ready(c);
    }
}

static void feed_starved(struct worker *w)
{
    size_t limit = w->blocks.limit - w->blocks.limit / 4; /* as block_get */
    size_t room = limit > w->blocks.in_use ? (limit - w->blocks.in_use) / BLOCK_SIZE : 0;
    while (room-- > 0 && !list_empty(&w->starved)) {
        struct list *l = w->starved.next;
        list_remove(l);
        list_add_tail(&w->runq, l);
    }
}

static void bury(struct worker *w)
{
    while (!list_empty(&w->graveyard)) {
        struct conn *c = CONTAINER(w->graveyard.next, struct conn, run);
        list_remove(&c->run);
        c->ops->free(c);
    }
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    uint64_t n;
    worker_note_event(arg);
    while (read(fd, &n, sizeof(n)) > 0)
        continue;
    tunnels_look(arg); /* a breaker may have opened */
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct worker *w = arg;
    atomic_store(&w->tick_ms, worker_now_ms(w));
    dns_tick(w->dns);
    tunnels_look(w);
    block_pool_trim(&w->blocks, KEEP_BLOCKS);
}

static void run_turns(struct worker *w)
{
    while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
        bool more = !list_empty(&w->runq);
        w->turn++;
        /* The kernel is asked once a turn; NONBLOCK alone would go on as long as it has something,
         * and let what is queued wait. */
        event_base_loop(w->base, more ? EVLOOP_ONCE | EVLOOP_NONBLOCK : EVLOOP_ONCE);
        serve_again(w);
        if (!list_empty(&w->starved))
            feed_starved(w);
        bury(w);
        atomic_store_explicit(&w->c.buffered_bytes, w->blocks.in_use, memory_order_relaxed);
        adopt_snapshot(w);
    }
}

static void close_everything(struct worker *w)
{
    w->turn++;
    for (unsigned i = 0; i < w->listener_count; i++)
        listener_detach(&w->listeners[i]);
    w->listener_count = 0;
    while (!list_empty(&w->downstreams))
        downstream_close(CONTAINER(w->downstreams.next, struct downstream, link));
    upstream_close_idle(w);
    bury(w);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    char name[24];
    snprintf(name, sizeof(name), "worker-%u", w->index);
    pthread_setname_np(pthread_self(), name);
    log_thread_init(name);
    atomic_store(&w->tick_ms, clock_mono_ms());
    run_turns(w);
    close_everything(w);
    return NULL;
}

/* ---- Life ---- */

struct worker *worker_new(struct proxy *p, unsigned index, struct ring *ring)
{
    struct worker *w = xcalloc(1, sizeof(*w));
    w->proxy = p;
    w->index = index;
    w->ring = ring;
    w->turn = 1;
    prng_seed(&w->prng);
    struct event_config *ec = event_config_new();
    event_config_require_features(ec, EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE);
    event_config_set_flag(ec, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
    w->base = event_base_new_with_config(ec);
    event_config_free(ec);
    if (!w->base) {
        free(w);
        return NULL;
    }
    list_init(&w->target_lru);
    list_init(&w->pool_lru);
    list_init(&w->runq);
    list_init(&w->starved);
    list_init(&w->graveyard);
    list_init(&w->downstreams);
    list_init(&w->tunnel_routes);
    w->tunnels_of = map_new();
    w->targets = map_new();
    adopt_snapshot(w);
    block_pool_init(&w->blocks, (size_t)w->snap->cfg->limits.buffered_total / p->worker_count);
    w->dns = dns_new(w);
    w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    w->wake_event = event_new(w->base, w->wake_fd, EV_READ | EV_PERSIST, on_wake, w);
    event_add(w->wake_event, NULL);
    static const struct timeval second = { .tv_sec = 1 };
    w->tick_event = event_new(w->base, -1, EV_PERSIST, on_tick, w);
    event_add(w->tick_event, &second);
    return w;
}

int worker_start(struct worker *w)
{
    return thread_start(&w->thread, worker_main, w) ? -1 : 0;
}

void worker_wake(struct worker *w)
{
    uint64_t one = 1;
    if (write(w->wake_fd, &one, sizeof(one)) < 0)
        return; /* the counter is full: it is awake */
}

void worker_stop(struct worker *w)
{
    atomic_store(&w->stop, true);
    worker_wake(w);
}

void worker_join(struct worker *w)
{
    pthread_join(w->thread, NULL);
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    close_everything(w);
    exchanges_free(w);
    connect_jobs_free(w);
    tunnel_pipes_free(w);
    tunnels_free(w);
    dns_free(w->dns);
    targets_free(w);
    block_pool_trim(&w->blocks, 0);
    event_free(w->wake_event);
    event_free(w->tick_event);
    close(w->wake_fd);
    event_base_free(w->base);
    reply_kept_free(&w->reply);
    free(w->listeners);
    free(w);
}
