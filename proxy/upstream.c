#include "proxy/upstream.h"
#include "base/base.h"
#include "config/config.h"
#include "proxy/downstream.h"
#include "proxy/exchange.h"
#include "proxy/own_conns.h"
#include "proxy/proxy.h"
#include "proxy/self.h"
#include "proxy/snapshot.h"
#include <errno.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- One connection ---- */

static void idle_remove(struct upstream *up)
{
    if (!list_linked(&up->pool_link))
        return;
    list_remove(&up->idle_link);
    list_remove(&up->pool_link);
    up->c.w->idle_upstreams--;
    count_sub(&up->c.w->c.upstream_connections_idle, 1);
}

void upstream_close(struct upstream *up)
{
    if (up->c.dead)
        return;
    idle_remove(up);
    if (up->owner) {
        list_remove(&up->parked_link);
        up->owner = NULL;
    }
    count_sub(&up->c.w->c.upstream_connections, 1);
    own_conns_remove(up->c.w->proxy->own_conns, up->own_place);
    target_unref(up->target);
    conn_close(&up->c);
}

static void on_upstream_ready(struct conn *c)
{
    struct upstream *up = CONTAINER(c, struct upstream, c);
    if (up->ex) {
        exchange_on_upstream(up->ex);
        return;
    }
    /* Idle: a FIN, a reset, or bytes that nobody asked for (RFC 9112 9.2). The write edge that
     * comes with every event alone means nothing. */
    if (c->readable)
        upstream_close(up);
}

static void on_upstream_deadline(struct conn *c)
{
    struct upstream *up = CONTAINER(c, struct upstream, c);
    if (!up->ex)
        upstream_close(up);
}

static void upstream_free(struct conn *c)
{
    free(CONTAINER(c, struct upstream, c));
}

static const struct conn_ops upstream_ops = {
    .on_ready = on_upstream_ready,
    .on_deadline = on_upstream_deadline,
    .free = upstream_free,
};

/* No byte has been sent on it. */
static void note_as_own(struct upstream *up)
{
    struct own_conns *own = up->c.w->proxy->own_conns;
    struct address local = { 0 };
    socklen_t len = sizeof(local);
    if (own && getsockname(up->c.fd, &local.sa, &len) == 0)
        up->own_place = own_conns_add(own, &local, &up->address);
}

bool upstream_is_loop(const struct upstream *up)
{
    return own_conns_met(up->c.w->proxy->own_conns, up->own_place);
}

static struct upstream *upstream_new(struct exchange *ex, int fd, const struct address *address)
{
    struct upstream *up = xcalloc(1, sizeof(*up));
    struct worker *w = ex->w;
    conn_init(&up->c, w, fd, &upstream_ops, false);
    up->c.writable = true;
    up->target = ex->target;
    target_ref(up->target);
    up->address = *address;
    up->allowed_in = ex->snap->generation;
    up->ex = ex;
    note_as_own(up);
    conn_send_at_once(fd);
    conn_keepalive(fd, ex->route->cfg->timeouts.keepalive_ms);
    COUNT(w->c.upstream_connections);
    COUNT(w->c.upstream_connects_ok);
    return up;
}

/* ---- The pool ---- */

/* Asks the kernel: a FIN, or bytes that nobody asked for, may be there whose event has not been
 * served yet.  A request that could be sent again would still take such bytes for its answer. */
static bool is_quiet_now(struct upstream *up)
{
    char byte;
    if (up->c.dead || up->c.in || recv(up->c.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != -1 ||
        errno != EAGAIN)
        return false;
    up->c.readable = false;
    return true;
}

/* Asking is a system call beside the four that move a request and its answer.  It is left out
 * where the loop would know, and the request could be sent again if it did not: then only what
 * comes within this short turn is missed, as is what is still on the wire. */
static bool may_go_unasked(const struct exchange *ex)
{
    return ex->replayable && worker_knows_all(ex->w);
}

/* What has come since it was read the loop would know of from the next turn on. */
static bool rested(const struct upstream *up)
{
    return up->released_in != up->c.w->turn;
}

static bool is_fit_for(const struct exchange *ex, struct upstream *up)
{
    bool known = may_go_unasked(ex) && rested(up) && !up->c.readable && !conn_has_news(&up->c);
    return known ? !up->c.dead && !up->c.in : is_quiet_now(up);
}

/* Nothing unread: bytes behind the end of a response belong to nobody (RFC 9112 6.3). */
static bool is_quiet(struct upstream *up)
{
    if (up->c.dead || up->c.eof || up->c.error || up->c.hangup || up->c.in || up->c.out_bytes)
        return false;
    /* Unless the last read was not a short one: then the socket has not been seen empty. */
    return !up->c.readable || is_quiet_now(up);
}

static bool is_denied(const struct target *t, const struct address *a, const struct config *cfg)
{
    /* Whom the application could reach without us it may reach through us. */
    return !t->is_fixed && cidr_contains_destination(&cfg->access.deny_destinations, &a->sa);
}

bool upstream_is_denied(const struct upstream *up, const struct config *cfg)
{
    return is_denied(up->target, &up->address, cfg);
}

/* Asked once for each configuration, not for each request. */
static bool is_allowed(struct upstream *up, const struct snapshot *snap)
{
    if (up->allowed_in == snap->generation)
        return true;
    if (upstream_is_denied(up, snap->cfg))
        return false;
    up->allowed_in = snap->generation;
    return true;
}

/* The one used last, but sooner one that need not be asked.  There is one. */
static struct upstream *first_idle(const struct exchange *ex)
{
    const struct list *idle = &ex->target->idle;
    if (may_go_unasked(ex)) /* so in a short turn: few have been released in it */
        for (struct list *l = idle->next; l != idle; l = l->next)
            if (rested(CONTAINER(l, struct upstream, idle_link)))
                return CONTAINER(l, struct upstream, idle_link);
    return CONTAINER(idle->next, struct upstream, idle_link);
}

static struct upstream *take_idle(struct exchange *ex)
{
    struct target *t = ex->target;
    while (!list_empty(&t->idle)) {
        struct upstream *up = first_idle(ex);
        if (!t->is_literal && !dns_still_answers(ex->w->dns, t->host, &up->address)) {
            upstream_close(up);
            continue;
        }
        idle_remove(up);
        if (is_allowed(up, ex->snap) && is_fit_for(ex, up))
            return up;
        upstream_close(up);
    }
    return NULL;
}

static void lend(struct exchange *ex, struct upstream *up)
{
    up->ex = ex;
    conn_set_deadline(&up->c, CONN_NO_DEADLINE);
    COUNT(ex->w->c.upstream_connection_reuses_total);
}

static void list_add_head(struct list *head, struct list *item)
{
    list_add_tail(head->next, item); /* before the first is at the head */
}

/* The client's own connection to this target, if it has one.  Whatever DNS says by now: what
 * was agreed on over it holds for it alone, and a client that is sent elsewhere between two
 * steps of NTLM never gets to the last. */
static struct upstream *take_parked(struct exchange *ex)
{
    struct list *parked = &ex->down->parked;
    for (struct list *l = parked->next, *next; l != parked; l = next) {
        struct upstream *up = CONTAINER(l, struct upstream, parked_link);
        next = l->next;
        if (up->target != ex->target || up->ex || up->c.dead)
            continue;
        if (is_allowed(up, ex->snap) && is_fit_for(ex, up))
            return up;
        upstream_close(up);
    }
    return NULL;
}

void upstream_park(struct upstream *up, struct downstream *owner)
{
    struct list *first = owner->parked.next;
    unsigned count = 0;
    for (struct list *l = first; l != &owner->parked; l = l->next)
        count++;
    if (count >= PARKED_MAX)
        upstream_close(CONTAINER(first, struct upstream, parked_link));
    up->owner = owner;
    list_add_tail(&owner->parked, &up->parked_link);
}

void upstream_release(struct upstream *up, bool reusable)
{
    struct worker *w = up->c.w;
    const struct config *cfg = w->snap->cfg;
    int64_t idle_ms = up->ex->route->cfg->timeouts.upstream_idle_ms;
    up->ex = NULL;
    up->served++;
    up->released_in = w->turn;
    bool anywhere = up->owner || up->target->is_literal; /* see take_parked */
    if (!reusable || !is_quiet(up) || idle_ms == 0 || !is_allowed(up, w->snap) ||
        (!anywhere && !dns_still_answers(w->dns, up->target->host, &up->address))) {
        COUNT(w->c.upstream_pool_discards_total);
        upstream_close(up);
        return;
    }
    conn_set_deadline(&up->c, idle_ms == OFF ? CONN_NO_DEADLINE : worker_now_ms(w) + idle_ms);
    if (up->owner)
        return; /* parked with its client */
    if (w->idle_upstreams >= (size_t)cfg->limits.upstream_idle) {
        COUNT(w->c.limit_upstream_idle);
        if (list_empty(&w->pool_lru)) { /* limit 0 */
            upstream_close(up);
            return;
        }
        upstream_close(CONTAINER(w->pool_lru.next, struct upstream, pool_link));
    }
    list_add_head(&up->target->idle, &up->idle_link);
    list_add_tail(&w->pool_lru, &up->pool_link);
    w->idle_upstreams++;
    COUNT(w->c.upstream_connections_idle);
}

void upstream_close_idle(struct worker *w)
{
    while (!list_empty(&w->pool_lru))
        upstream_close(CONTAINER(w->pool_lru.next, struct upstream, pool_link));
}

void upstream_close_denied(struct worker *w)
{
    for (struct list *l = w->pool_lru.next, *next; l != &w->pool_lru; l = next) {
        next = l->next;
        struct upstream *up = CONTAINER(l, struct upstream, pool_link);
        if (!is_allowed(up, w->snap))
            upstream_close(up);
    }
}

/* ---- Opening one ---- */

static void try_next(struct connect_job *job);

static void job_stop(struct connect_job *job)
{
    if (job->asking)
        dns_cancel(&job->query);
    for (unsigned i = 0; i < CONNECT_PARALLEL; i++) {
        if (job->tries[i].fd < 0)
            continue;
        event_del(&job->tries[i].ev);
        close(job->tries[i].fd);
        job->tries[i].fd = -1;
    }
    if (job->stagger_armed)
        event_del(&job->stagger);
    job->asking = job->stagger_armed = job->active = false;
    job->in_flight = 0;
}

/* ---- Jobs are kept for the next exchange that connects ---- */

#define FREE_JOBS_MAX 256

static struct connect_job *job_take(struct exchange *ex)
{
    struct worker *w = ex->w;
    struct connect_job *job = w->free_jobs;
    if (job) {
        w->free_jobs = job->next_free;
        w->free_job_count--;
    } else {
        job = xcalloc(1, sizeof(*job));
    }
    job->ex = ex;
    ex->job = job;
    return job;
}

void upstream_cancel(struct exchange *ex)
{
    struct connect_job *job = ex->job;
    struct worker *w = ex->w;
    if (!job)
        return;
    ex->job = NULL;
    if (job->active)
        job_stop(job);
    if (w->free_job_count >= FREE_JOBS_MAX) {
        free(job);
        return;
    }
    job->ex = NULL;
    job->next_free = w->free_jobs;
    w->free_jobs = job;
    w->free_job_count++;
}

void connect_jobs_free(struct worker *w)
{
    while (w->free_jobs) {
        struct connect_job *job = w->free_jobs;
        w->free_jobs = job->next_free;
        free(job);
    }
    w->free_job_count = 0;
}

/* ---- Trying addresses ---- */

/* Of several failures the one that says most is reported: a refusal beats a denied address. */
static void note_failure(struct connect_job *job, enum connect_failure failure, int error)
{
    /* From what says least to what says most. */
    static const uint8_t weight[] = {
        [CONNECT_SELF] = 1,  [CONNECT_LOOP] = 1,    [CONNECT_DENIED] = 1,  [CONNECT_LOCAL] = 2,
        [CONNECT_ERROR] = 3, [CONNECT_TIMEOUT] = 4, [CONNECT_REFUSED] = 5, [CONNECT_RESET] = 6,
    };
    struct worker *w = job->ex->w;
    if (job->failure == CONNECT_OK || weight[failure] > weight[job->failure]) {
        job->failure = failure;
        job->error = error;
    }
    if (failure == CONNECT_REFUSED)
        COUNT(w->c.upstream_connects_refused);
    else if (failure != CONNECT_OK)
        COUNT(w->c.upstream_connects_other);
}

static enum connect_failure failure_of(int error)
{
    switch (error) {
    case ECONNREFUSED:
        return CONNECT_REFUSED;
    case ECONNRESET:
    case EPIPE:
        return CONNECT_RESET;
    case ETIMEDOUT:
        return CONNECT_TIMEOUT;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EADDRNOTAVAIL:
    case EAGAIN:
        return CONNECT_LOCAL;
    default:
        return CONNECT_ERROR;
    }
}

static enum connect_failure forbidden(struct exchange *ex, const struct address *a)
{
    switch (self_check(ex->w->proxy->self, &a->sa)) {
    case SELF_PROXY:
    case SELF_TRANSPARENT:
        return CONNECT_LOOP;
    case SELF_TELEMETRY:
    case SELF_ADMIN:
        return CONNECT_SELF;
    case SELF_NO:
        break;
    }
    return is_denied(ex->target, a, ex->snap->cfg) ? CONNECT_DENIED : CONNECT_OK;
}

static void job_connected(struct connect_job *job, unsigned slot)
{
    struct exchange *ex = job->ex;
    int fd = job->tries[slot].fd;
    unsigned address = job->tries[slot].address;
    event_del(&job->tries[slot].ev);
    job->tries[slot].fd = -1;
    job_stop(job);
    histogram_observe(&ex->w->c.upstream_connect, worker_now_us(ex->w) - job->began_us);
    exchange_on_connected(ex, upstream_new(ex, fd, &job->answer.addresses[address]));
}

static void try_failed(struct connect_job *job, unsigned slot, int error)
{
    event_del(&job->tries[slot].ev);
    close(job->tries[slot].fd);
    job->tries[slot].fd = -1;
    job->in_flight--;
    note_failure(job, failure_of(error), error);
    dns_expire(job->ex->w->dns, job->ex->target->host);
}

static void on_try_event(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct connect_job *job = arg;
    worker_note_event(job->ex->w);
    unsigned slot = 0;
    while (slot < CONNECT_PARALLEL && job->tries[slot].fd != fd)
        slot++;
    if (BUG(slot == CONNECT_PARALLEL))
        return;
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
        error = errno;
    if (error == 0) {
        job_connected(job, slot);
        return;
    }
    try_failed(job, slot, error);
    try_next(job);
    if (job->in_flight == 0) {
        job_stop(job);
        exchange_on_connect_failed(job->ex);
    }
}

static void on_stagger(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct connect_job *job = arg;
    job->stagger_armed = false;
    try_next(job);
}

static void stagger_arm(struct connect_job *job)
{
    static const struct timeval wait = { .tv_usec = CONNECT_NEXT_MS * 1000 };
    if (job->stagger_armed)
        event_del(&job->stagger);
    job->stagger_armed = job->next < job->answer.count && job->in_flight < CONNECT_PARALLEL;
    if (job->stagger_armed)
        event_add(&job->stagger, &wait);
}

/* 0: under way; else an errno. */
static int try_begin(struct connect_job *job, unsigned slot, unsigned address)
{
    const struct address *a = &job->answer.addresses[address];
    int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    if (connect(fd, &a->sa, address_len(a)) < 0 && errno != EINPROGRESS) {
        int error = errno;
        close(fd);
        return error;
    }
    job->tries[slot].fd = fd;
    job->tries[slot].address = address;
    event_assign(&job->tries[slot].ev, job->ex->w->base, fd, EV_WRITE, on_try_event, job);
    event_add(&job->tries[slot].ev, NULL);
    job->in_flight++;
    return 0;
}

/* Starts the next address that can be started, if a slot is free. */
static void try_next(struct connect_job *job)
{
    unsigned slot = 0;
    while (slot < CONNECT_PARALLEL && job->tries[slot].fd >= 0)
        slot++;
    while (slot < CONNECT_PARALLEL && job->next < job->answer.count) {
        unsigned address = job->next++;
        struct address *a = &job->answer.addresses[address];
        address_set_port(a, job->ex->target->port);
        enum connect_failure no = forbidden(job->ex, a);
        if (no != CONNECT_OK) {
            note_failure(job, no, 0);
            continue;
        }
        int error = try_begin(job, slot, address);
        if (error == 0)
            break;
        note_failure(job, failure_of(error), error);
        if (failure_of(error) != CONNECT_LOCAL)
            dns_expire(job->ex->w->dns, job->ex->target->host);
    }
    stagger_arm(job);
}

/* The answer is in job->answer. */
static enum upstream_start job_connect(struct connect_job *job)
{
    if (job->answer.result != DNS_OK) {
        COUNT(job->ex->w->c.upstream_connects_dns);
        job->failure = job->answer.result == DNS_TIMEOUT ? CONNECT_DNS_TIMEOUT : CONNECT_DNS_FAILED;
        job_stop(job);
        return UPSTREAM_FAILED;
    }
    exchange_on_resolved(job->ex);
    try_next(job);
    if (job->in_flight > 0)
        return UPSTREAM_PENDING;
    job_stop(job);
    return UPSTREAM_FAILED;
}

static void on_resolved(struct dns_query *q, const struct dns_answer *answer)
{
    struct connect_job *job = CONTAINER(q, struct connect_job, query);
    job->asking = false;
    job->answer = *answer;
    if (job_connect(job) == UPSTREAM_FAILED)
        exchange_on_connect_failed(job->ex);
}

static enum upstream_start job_start(struct exchange *ex)
{
    struct connect_job *job = job_take(ex);
    job->active = true;
    job->asking = job->stagger_armed = false;
    job->query = (struct dns_query){ .done = on_resolved };
    job->next = job->in_flight = 0;
    job->failure = CONNECT_OK;
    job->error = 0;
    job->began_us = worker_now_us(ex->w);
    for (unsigned i = 0; i < CONNECT_PARALLEL; i++)
        job->tries[i].fd = -1;
    evtimer_assign(&job->stagger, ex->w->base, on_stagger, job);
    if (ex->target->is_fixed) {
        job->answer = (struct dns_answer){ .result = DNS_OK, .count = 1 };
        job->answer.addresses[0] = ex->target->fixed;
        return job_connect(job);
    }
    switch (dns_resolve(ex->w->dns, ex->target->host, &job->query, &job->answer)) {
    case DNS_ANSWERED:
        return job_connect(job);
    case DNS_PENDING:
        job->asking = true;
        return UPSTREAM_PENDING;
    case DNS_REFUSED:
        break;
    }
    job->failure = CONNECT_DNS_QUEUE_FULL;
    job_stop(job);
    return UPSTREAM_FAILED;
}

enum upstream_start upstream_acquire(struct exchange *ex, bool fresh, struct upstream **out)
{
    struct upstream *up = fresh ? NULL : take_parked(ex);
    if (!up && !fresh)
        up = take_idle(ex);
    if (up) {
        lend(ex, up);
        *out = up;
        return UPSTREAM_READY;
    }
    return job_start(ex);
}
