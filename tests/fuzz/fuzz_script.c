/*
 * Whole connections: a client and an origin say what the input scripts, to a real worker.
 *
 * The input is what the client sends, with these marks: "|>" the client goes on, "|<" the
 * origin says what follows on its newest connection, "|)" the client sends no more, "|("
 * the origin closes, "|]" the client is gone.  "@O" stands for the origin's address.
 *
 * What must hold: everything ends, the books balance, a request that was refused leaves
 * nothing at an origin, and both sides receive only whole messages that can be read in one
 * way, at most one answer to each request.
 */
#include "base/base.h"
#include "base/intern.h"
#include "base/ring.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "proxy/downstream.h"
#include "proxy/exchange.h"
#include "proxy/http1.h"
#include "proxy/proxy.h"
#include "proxy/self.h"
#include "proxy/snapshot.h"
#include "proxy/worker.h"
#include "sync/attempt.h"
#include "sync/breakers.h"
#include "sync/sync.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/strict.h"
#include <ares.h>
#include <arpa/inet.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define ORIGINS_MAX 16
#define QUIET_TURNS 4 /* nothing has moved for so many turns: the next step */
#define TURNS_MAX   4000

static struct {
    struct proxy proxy;
    struct ring *ring;
    int listener;
    char origin[32]; /* "127.0.0.1:port" */
} stage;

struct origin {
    int fd; /* -1: closed */
    struct strbuf got;
};

struct play {
    struct worker *w;
    struct fuzz_reader script;
    int client;                /* -1: gone */
    struct strbuf said, heard; /* by the client */
    struct origin origins[ORIGINS_MAX];
    unsigned origin_count;
    struct event *turn;
    unsigned quiet, turns;
    bool last_act;
};

/* ---- The stage, built once ---- */

static struct config *read_config(void)
{
    static const char text[] =
        "{\"listen\":[\"127.0.0.1:0\"],\"workers\":1,\"access_log\":{\"mode\":\"off\"},"
        "\"embedded\":{\"breakers\":[{\"name\":\"open\",\"kind\":\"error_rate\","
        "\"threshold\":0.5}],\"routers\":[{\"id\":\"r\",\"breakers\":[\"open\"]}]},"
        "\"routes\":[{\"name\":\"open\",\"match\":{\"paths\":[\"/open*\"]},"
        "\"breakers\":[\"open\"],\"router\":\"r\"},"
        "{\"name\":\"all\",\"router\":\"r\"}]}";
    char path[32];
    char *nothing[] = { NULL };
    struct strbuf errors = STRBUF_INIT, warnings = STRBUF_INIT;
    struct config *cfg = NULL;
    int fd = memfd_create("config", MFD_CLOEXEC);
    CHECK(write(fd, text, sizeof(text) - 1) == (ssize_t)sizeof(text) - 1, "memfd");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct config_source src = { .file = path, .envp = nothing };
    CHECK(config_load(&src, &cfg, &errors, &warnings) == 0, "%s", strbuf_str(&errors));
    close(fd);
    strbuf_free(&errors);
    strbuf_free(&warnings);
    return cfg;
}

static void open_origin(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET };
    socklen_t len = sizeof(at);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    stage.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(bind(stage.listener, (struct sockaddr *)&at, sizeof(at)) == 0 &&
              listen(stage.listener, 64) == 0 &&
              getsockname(stage.listener, (struct sockaddr *)&at, &len) == 0,
          "the origin's socket");
    snprintf(stage.origin, sizeof(stage.origin), "127.0.0.1:%u", ntohs(at.sin_port));
}

static void set_stage(void)
{
    struct proxy *p = &stage.proxy;
    struct strbuf errors = STRBUF_INIT;
    if (stage.ring)
        return;
    signal(SIGPIPE, SIG_IGN);
    ares_library_init(ARES_LIB_INIT_ALL);
    struct config *cfg = read_config();
    p->worker_count = 1;
    p->breakers = breakers_new();
    p->route_names = intern_new(256);
    p->rule_names = intern_new(RULE_SLOTS);
    p->auto_hosts = intern_new(BREAKERS_CAPACITY);
    p->self = self_new();
    p->connection_limit = 1000;
    snapshot_publish(p, snapshot_new(p, cfg));
    stage.ring = ring_new(sizeof(struct attempt_record), ATTEMPT_RING_CAPACITY);
    CHECK(sync_new(&p->sync, cfg, NULL, p->breakers, p->auto_hosts, &stage.ring, 1, &errors) == 0,
          "%s", strbuf_str(&errors));
    breakers_store(p->breakers, breakers_intern(p->breakers, "open", 4), BREAKER_OPEN, 0, false, 1);
    breakers_set_flags(p->breakers, STATE_SYNCED | STATE_CONNECTED, 0);
    open_origin();
}

/* ---- The play ---- */

static bool receive(int fd, struct strbuf *into)
{
    char buf[4096];
    ssize_t n;
    bool moved = false;
    while (fd >= 0 && (n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
        strbuf_add(into, buf, (size_t)n);
        moved = true;
    }
    return moved;
}

static bool collect(struct play *p)
{
    bool moved = receive(p->client, &p->heard);
    int fd;
    while (p->origin_count < ORIGINS_MAX &&
           (fd = accept4(stage.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        p->origins[p->origin_count++].fd = fd;
        moved = true;
    }
    for (unsigned i = 0; i < p->origin_count; i++)
        moved |= receive(p->origins[i].fd, &p->origins[i].got);
    return moved;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* No connection lingers in the kernel: there would soon be no port left. */
static void reset_fd(int *fd)
{
    const struct linger now = { .l_onoff = 1 };
    if (*fd >= 0)
        setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close_fd(fd);
}

static struct strbuf take_speech(struct fuzz_reader *r)
{
    struct strbuf text = STRBUF_INIT;
    while (r->len > 0) {
        bool mark = r->len >= 2 && r->p[0] == '|' && strchr("><)(]", r->p[1]) && r->p[1];
        if (mark)
            break;
        if (r->len >= 2 && memcmp(r->p, "@O", 2) == 0) {
            strbuf_adds(&text, stage.origin);
            fuzz_byte(r);
            fuzz_byte(r);
        } else {
            strbuf_addc(&text, (char)fuzz_byte(r));
        }
    }
    return text;
}

static void say(int fd, const struct strbuf *text)
{
    if (fd >= 0 && text->len > 0 && send(fd, text->data, text->len, MSG_NOSIGNAL) < 0)
        return; /* the other end is gone, which it may be */
}

static void act(struct play *p)
{
    char mark = '>';
    struct origin *newest = p->origin_count ? &p->origins[p->origin_count - 1] : NULL;
    if (p->script.len >= 2 && p->script.p[0] == '|') {
        fuzz_byte(&p->script);
        mark = (char)fuzz_byte(&p->script);
    }
    struct strbuf text = take_speech(&p->script);
    if (mark == '<') {
        say(newest ? newest->fd : -1, &text);
    } else {
        if (mark == ')' && p->client >= 0)
            shutdown(p->client, SHUT_WR);
        else if (mark == '(' && newest)
            close_fd(&newest->fd);
        else if (mark == ']')
            close_fd(&p->client);
        if (mark == '>' && p->client >= 0) {
            say(p->client, &text);
            strbuf_add(&p->said, strbuf_str(&text), text.len);
        }
    }
    strbuf_free(&text);
}

/* ---- What must hold ---- */

static struct strict_head seen;

/* The bytes of a body at p; more than there are: it is cut short. */
static size_t body_span(const char *p, size_t len, bool until_close)
{
    struct http1_body b;
    size_t used, payload;
    if (seen.lengths)
        return seen.length < SIZE_MAX ? (size_t)seen.length : SIZE_MAX;
    if (!seen.codings)
        return until_close ? len : 0;
    http1_body_init(&b, FRAMING_CHUNKED, 0);
    uint8_t *copy = fuzz_copy(p, len);
    enum http1_error err = http1_body_decode(&b, copy, len, &used, &payload);
    CHECK(err == HTTP1_OK, "a chunked body that cannot be read left us");
    if (!b.done)
        used = SIZE_MAX;
    http1_body_free(&b);
    free(copy);
    return used;
}

/* How many heads an origin got. */
static unsigned read_requests(const struct strbuf *got)
{
    const char *p = strbuf_str(got);
    size_t left = got->len, end;
    unsigned heads = 0;
    for (size_t scanned = 0; http1_find_end(p, left, &scanned, &end) == 1; scanned = 0) {
        struct slice method, target;
        const char *wrong = strict_read(&seen, p, end);
        CHECK(!wrong, "an origin got %s", wrong);
        wrong = strict_request_line(seen.start, &method, &target);
        CHECK(!wrong, "an origin got %s", wrong);
        CHECK(seen.hosts == 1 && seen.lengths + seen.codings <= 1, "%zu hosts, %zu lengths",
              seen.hosts, seen.lengths);
        heads++;
        size_t body = body_span(p + end, left - end, false);
        if (body > left - end)
            return heads;
        p += end + body;
        left -= end + body;
    }
    return heads;
}

/* How many final answers the client got, and whether bytes that belong to none are left. */
static unsigned read_answers(const struct strbuf *heard, bool *rest)
{
    const char *p = strbuf_str(heard);
    size_t left = heard->len, end;
    unsigned finals = 0;
    for (size_t scanned = 0; http1_find_end(p, left, &scanned, &end) == 1; scanned = 0) {
        unsigned status;
        const char *wrong = strict_read(&seen, p, end);
        CHECK(!wrong, "the client got %s", wrong);
        wrong = strict_status_line(seen.start, &status);
        CHECK(!wrong, "the client got %s", wrong);
        bool bodyless = status < 200 || status == 204 || status == 304;
        size_t body = bodyless ? 0 : body_span(p + end, left - end, true);
        finals += status >= 200;
        if (body > left - end)
            body = left - end; /* cut short */
        p += end + body;
        left -= end + body;
    }
    *rest = left > 0;
    return finals;
}

static bool client_said(const struct play *p, const char *word)
{
    return p->said.len && memmem(p->said.data, p->said.len, word, strlen(word));
}

static void check_wire(const struct play *p)
{
    uint64_t attempts = count_get(&p->w->c.attempts_started_total);
    unsigned heads = 0;
    bool rest;
    if (client_said(p, "CONNECT") || client_said(p, "pgrade") || client_said(p, "PGRADE"))
        return; /* tunnels carry anything */
    for (unsigned i = 0; i < p->origin_count; i++) {
        CHECK(attempts > 0 || p->origins[i].got.len == 0, "bytes of a refused request got out");
        heads += read_requests(&p->origins[i].got);
    }
    CHECK(heads <= 2 * attempts, "%u requests out of %llu attempts", heads,
          (unsigned long long)attempts);
    if (client_said(p, "HEAD"))
        return; /* whose answers end with their heads */
    unsigned finals = read_answers(&p->heard, &rest);
    CHECK(finals <= p->w->exchange_serial, "%u answers to %llu requests", finals,
          (unsigned long long)p->w->exchange_serial);
    CHECK(!rest || finals < p->w->exchange_serial, "bytes behind the last answer");
}

static void check_books(struct worker *w)
{
    uint64_t requests = 0, attempts = 0;
    for (unsigned r = 0; r < ROUTE_SLOTS; r++) {
        struct route_counters *rc = &w->c.routes[r];
        for (unsigned m = 0; m < TRAFFIC_MODES; m++)
            for (unsigned c = 0; c < CODE_CLASSES; c++)
                for (unsigned k = 0; k < RESULT_COUNT; k++)
                    requests += count_get(&rc->requests[m][c][k]);
        for (unsigned o = 0; o < OUTCOME_COUNT; o++)
            attempts +=
                count_get(&rc->attempts[TIER_HTTP][o]) + count_get(&rc->attempts[TIER_OPAQUE][o]);
    }
    CHECK(requests == w->exchange_serial, "%llu requests counted, %llu served",
          (unsigned long long)requests, (unsigned long long)w->exchange_serial);
    CHECK(attempts == count_get(&w->c.attempts_started_total), "%llu attempts judged, %llu begun",
          (unsigned long long)attempts,
          (unsigned long long)count_get(&w->c.attempts_started_total));
    for (unsigned m = 0; m < COUNTED_MODES; m++) {
        CHECK(count_get(&w->c.requests_in_flight[m]) == 0, "requests in flight");
        CHECK(count_get(&w->c.client_connections[m]) == 0, "client connections");
    }
    CHECK(count_get(&w->c.attempts_in_flight) == 0, "attempts in flight");
    CHECK(atomic_load(&stage.proxy.tunnels) == 0, "places for tunnels");
    CHECK(atomic_load(&stage.proxy.connections) == 0, "connections of the process");
    CHECK(atomic_load(&w->snap->use[0].exchanges) == 0, "exchanges hold the snapshot");
}

static void drain_ring(void)
{
    struct attempt_record rec;
    while (ring_pop(stage.ring, &rec)) {
        CHECK(rec.route && rec.route->router, "a record without a route");
        CHECK(rec.outcome < OUTCOME_COUNT, "outcome %u", rec.outcome);
        CHECK(memchr(rec.method, '\0', sizeof(rec.method)), "a method without an end");
    }
}

/* ---- One run ---- */

static void finish(struct play *p)
{
    struct worker *w = p->w;
    while (!list_empty(&w->downstreams))
        downstream_close(CONTAINER(w->downstreams.next, struct downstream, link));
    collect(p);
    check_wire(p);
    check_books(w);
    drain_ring();
    worker_stop(w);
}

static void next_turn(struct play *p)
{
    static const struct timeval at_once = { 0 };
    event_add(p->turn, &at_once);
}

/* Runs on the worker's thread, between its events. */
static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct play *p = arg;
    p->quiet = collect(p) ? 0 : p->quiet + 1;
    if (p->quiet >= QUIET_TURNS) {
        p->quiet = 0;
        if (p->script.len > 0) {
            act(p);
        } else if (!p->last_act) {
            p->last_act = true;
            close_fd(&p->client);
            for (unsigned i = 0; i < p->origin_count; i++)
                reset_fd(&p->origins[i].fd);
        } else {
            finish(p);
            return;
        }
    }
    CHECK(++p->turns < TURNS_MAX, "no end of it");
    next_turn(p);
}

static void on_start(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct play *p = arg;
    struct address client = { .in = { .sin_family = AF_INET } };
    int pair[2];
    client.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0,
          "socketpair");
    p->client = pair[0];
    atomic_fetch_add(&stage.proxy.connections, 1);
    event_free(p->turn);
    p->turn = evtimer_new(p->w->base, on_turn, p);
    next_turn(p);
    downstream_new(p->w, pair[1], &client, NULL, TURNED_AWAY_NO, 0);
}

void fuzz_script(const uint8_t *data, size_t len)
{
    set_stage();
    struct play p = { .script = { data, len }, .client = -1 };
    p.w = worker_new(&stage.proxy, 0, stage.ring);
    CHECK(p.w, "no worker");
    stage.proxy.workers[0] = p.w;
    p.turn = evtimer_new(p.w->base, on_start, &p);
    next_turn(&p);
    CHECK(worker_start(p.w) == 0, "no thread");
    worker_join(p.w);
    event_free(p.turn);
    worker_free(p.w);
    close_fd(&p.client);
    for (unsigned i = 0; i < p.origin_count; i++) {
        reset_fd(&p.origins[i].fd);
        strbuf_free(&p.origins[i].got);
    }
    strbuf_free(&p.said);
    strbuf_free(&p.heard);
}
