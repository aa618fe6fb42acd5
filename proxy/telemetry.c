#include "proxy/telemetry.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "proxy/exposition.h"
#include "proxy/fence.h"
#include "proxy/page.h"
#include "proxy/proxy.h"
#include "proxy/status.h"
#include "proxy/worker.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <zlib.h>

#define HEAD_MAX      8192
#define BODY_MAX      (1 << 20)
#define TIMEOUT_S     10
#define ANSWER_MAX    ((size_t)64 << 20)
#define GZIP_MIN      1024
#define LISTENERS_MAX 64
#define LOG_EVERY_MS  60000
#define ALL_METHODS                                                                                \
    (EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |     \
     EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE | EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH)

struct telemetry {
    struct proxy *p;         /* borrowed */
    struct event_base *base; /* borrowed */
    struct evhttp *http;
    struct exposition *exposition;
    struct evconnlistener *listeners[LISTENERS_MAX]; /* owned by http */
    unsigned listener_count;
    struct fence fence;
    struct bufferevent *newcomer; /* a reference; accepted, not yet noted */
    struct event *settle;         /* notes the newcomer at the end of this turn */
    struct event *tick;           /* resumes listeners that ran out of descriptors */
};

/* One answer. */

struct request {
    struct telemetry *t;
    struct evhttp_request *http;
    const char *query; /* "" without one */
};

static bool query_has(const struct request *rq, const char *flag)
{
    size_t len = strlen(flag);

    for (const char *s = rq->query; *s != '\0'; s += strspn(s, "&")) {
        size_t n = strcspn(s, "&");
        if (strncmp(s, flag, len) == 0 && (n == len || (n > len && s[len] == '=')))
            return true;
        s += n;
    }
    return false;
}

static void free_body(const void *data, size_t len, void *extra)
{
    (void)data;
    (void)len;
    free(extra);
}

static void add_header(struct request *rq, const char *name, const char *value)
{
    evhttp_add_header(evhttp_request_get_output_headers(rq->http), name, value);
}

/* Takes the body over. */
static void answer(struct request *rq, int status, const char *type, struct strbuf *body)
{
    struct evbuffer *payload = evbuffer_new();
    char length[24];

    if (!strbuf_ok(body) || payload == NULL) {
        strbuf_free(body);
        if (payload != NULL)
            evbuffer_free(payload);
        evhttp_send_error(rq->http, HTTP_INTERNAL, NULL);
        return;
    }
    snprintf(length, sizeof(length), "%zu", body->len);
    add_header(rq, "Content-Type", type);
    add_header(rq, "Content-Length", length);
    add_header(rq, "Cache-Control", "no-store");
    add_header(rq, "X-Content-Type-Options", "nosniff");
    if (body->len > 0 && evhttp_request_get_command(rq->http) != EVHTTP_REQ_HEAD) {
        size_t len = body->len;
        char *data = strbuf_take(body);
        evbuffer_add_reference(payload, data, len, free_body, data);
    }
    strbuf_free(body);
    evhttp_send_reply(rq->http, status, NULL, payload);
    evbuffer_free(payload);
}

static void answer_text(struct request *rq, int status, const char *text)
{
    struct strbuf body = STRBUF_INIT;

    strbuf_adds(&body, text);
    answer(rq, status, "text/plain; charset=utf-8", &body);
}

static void answer_json(struct request *rq, int status, struct strbuf *body)
{
    strbuf_addc(body, '\n');
    answer(rq, status, "application/json", body);
}

/* Health. */

/* One line of a check; returns ok. */
static bool check(struct strbuf *out, bool ok, const char *what)
{
    strbuf_adds(out, ok ? "[+] " : "[-] ");
    strbuf_adds(out, what);
    strbuf_addc(out, '\n');
    return ok;
}

/* "ok", or why not; with ?verbose every check. */
static void answer_health(struct request *rq, bool ok, struct strbuf *checks)
{
    struct strbuf body = STRBUF_INIT;

    if (!ok || query_has(rq, "verbose"))
        strbuf_add(&body, strbuf_str(checks), checks->len);
    strbuf_adds(&body, ok ? "ok\n" : "not ok\n");
    strbuf_free(checks);
    answer(rq, ok ? HTTP_OK : HTTP_SERVUNAVAIL, "text/plain; charset=utf-8", &body);
}

static void serve_livez(struct request *rq)
{
    const struct proxy *p = rq->t->p;
    struct strbuf checks = STRBUF_INIT;
    int64_t now_ms = clock_mono_ms();
    bool ok = true;

    for (unsigned i = 0; i < p->worker_count; i++) {
        char what[64];
        snprintf(what, sizeof(what), "worker %u ticks", i);
        ok &= check(&checks, status_worker_live(p, i, now_ms), what);
    }
    answer_health(rq, ok, &checks);
}

/* The control plane is reported, not required: a proxy without one still serves. */
static void report_control(struct strbuf *checks, const struct proxy *p)
{
    unsigned flags = breakers_flags(p->breakers);

    strbuf_adds(checks, !(flags & STATE_SYNCED) ? "[ ] control plane: states not known yet\n"
                        : flags & STATE_STALE   ? "[ ] control plane: states are stale\n"
                                                : "[ ] control plane: states known\n");
}

static void serve_readyz(struct request *rq)
{
    const struct proxy *p = rq->t->p;
    struct strbuf checks = STRBUF_INIT;

    check(&checks, atomic_load(&p->started), "started");
    check(&checks, !atomic_load(&p->draining), "not draining");
    report_control(&checks, p);
    answer_health(rq, status_ready(p), &checks);
}

static void serve_startupz(struct request *rq)
{
    const struct proxy *p = rq->t->p;
    struct strbuf checks = STRBUF_INIT;
    bool ok = check(&checks, atomic_load(&p->started),
                    "listeners accept, and breaker states are known or waited for long enough");

    report_control(&checks, p);
    answer_health(rq, ok, &checks);
}

/* Metrics. */

/* RFC 9110 12.5.3, as far as gzip goes: named, and not with a weight of zero. */
static bool accepts_gzip(const char *header)
{
    for (const char *s = header; s != NULL && *s != '\0'; s += strspn(s, ", \t")) {
        size_t len = strcspn(s, ",");
        size_t name = strcspn(s, ",; \t");

        if (name == 4 && strncasecmp(s, "gzip", 4) == 0) {
            const char *q = memmem(s, len, "q=", 2);
            return q == NULL || strtod(q + 2, NULL) > 0;
        }
        s += len;
    }
    return false;
}

/* False: body is as it was. */
static bool compress_body(struct strbuf *body)
{
    z_stream z = { 0 };

    if (deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return false;
    size_t cap = deflateBound(&z, body->len);
    char *packed = xmalloc(cap);
    z.next_in = (Bytef *)body->data;
    z.avail_in = (uInt)body->len;
    z.next_out = (Bytef *)packed;
    z.avail_out = (uInt)cap;
    bool done = deflate(&z, Z_FINISH) == Z_STREAM_END;
    if (done) {
        strbuf_clear(body);
        strbuf_add(body, packed, z.total_out);
    }
    deflateEnd(&z);
    free(packed);
    return done;
}

static void serve_metrics(struct request *rq)
{
    struct strbuf body = { .max = ANSWER_MAX };
    const char *encodings =
        evhttp_find_header(evhttp_request_get_input_headers(rq->http), "Accept-Encoding");

    telemetry_metrics(rq->t, &body);
    if (strbuf_ok(&body) && body.len > GZIP_MIN && accepts_gzip(encodings) && compress_body(&body))
        add_header(rq, "Content-Encoding", "gzip");
    add_header(rq, "Vary", "Accept-Encoding");
    answer(rq, HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", &body);
}

/* The rest. */

static void serve_status(struct request *rq)
{
    struct strbuf body = { .max = ANSWER_MAX };

    telemetry_status(rq->t->p, &body);
    answer_json(rq, HTTP_OK, &body);
}

static void serve_breakers(struct request *rq)
{
    struct strbuf body = { .max = ANSWER_MAX };

    telemetry_breakers(rq->t->p, &body);
    answer_json(rq, HTTP_OK, &body);
}

static void serve_breaker(struct request *rq, const char *encoded)
{
    struct strbuf body = { .max = ANSWER_MAX };
    size_t len = 0;
    char *name = evhttp_uridecode(encoded, 0, &len);
    int status = HTTP_OK;

    if (name == NULL || !status_breaker(rq->t->p, name, len, &body)) {
        struct json j = { .sb = &body };
        status = HTTP_NOTFOUND;
        json_open(&j, NULL, '{');
        json_str(&j, "error", "no such breaker");
        json_close(&j);
    }
    free(name);
    answer_json(rq, status, &body);
}

static void serve_version(struct request *rq)
{
    struct strbuf body = STRBUF_INIT;

    status_version(&body);
    answer_json(rq, HTTP_OK, &body);
}

static void serve_page(struct request *rq)
{
    struct strbuf body = { .max = ANSWER_MAX };

    page_write(rq->t->p, query_has(rq, "pause"), &body);
    add_header(rq, "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'");
    answer(rq, HTTP_OK, "text/html; charset=utf-8", &body);
}

static const struct {
    const char *path;
    void (*serve)(struct request *rq);
} endpoints[] = {
    { "/", serve_page },           { "/livez", serve_livez },
    { "/healthz", serve_livez },   { "/readyz", serve_readyz },
    { "/ready", serve_readyz },    { "/startupz", serve_startupz },
    { "/metrics", serve_metrics }, { "/status", serve_status },
    { "/version", serve_version }, { "/breakers", serve_breakers },
};

static void on_request(struct evhttp_request *http, void *arg)
{
    static const char one_breaker[] = "/breakers/";
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(http);
    const char *path = uri != NULL ? evhttp_uri_get_path(uri) : NULL;
    const char *query = uri != NULL ? evhttp_uri_get_query(uri) : NULL;
    enum evhttp_cmd_type method = evhttp_request_get_command(http);
    struct request rq = { .t = arg, .http = http, .query = query != NULL ? query : "" };

    if (method != EVHTTP_REQ_GET && method != EVHTTP_REQ_HEAD) {
        add_header(&rq, "Allow", "GET, HEAD");
        answer_text(&rq, HTTP_BADMETHOD, "only GET and HEAD\n");
        return;
    }
    if (path == NULL)
        path = "";
    for (unsigned i = 0; i < ARRAY_LEN(endpoints); i++) {
        if (strcmp(path, endpoints[i].path) == 0) {
            endpoints[i].serve(&rq);
            return;
        }
    }
    if (strncmp(path, one_breaker, sizeof(one_breaker) - 1) == 0 &&
        path[sizeof(one_breaker) - 1] != '\0')
        serve_breaker(&rq, path + sizeof(one_breaker) - 1);
    else
        answer_text(&rq, HTTP_NOTFOUND, "not found; / lists what there is\n");
}

/* Connections. */

static void settle_newcomer(struct telemetry *t)
{
    struct bufferevent *bev = t->newcomer;

    if (bev == NULL)
        return;
    t->newcomer = NULL;
    int fd = bufferevent_getfd(bev);
    if (fd >= 0 && !fence_admit(&t->fence, fd, clock_mono_ms()))
        exposition_count_refused(t->exposition);
    bufferevent_decref(bev);
}

/* evhttp asks for the bufferevent before it gives it the descriptor. */
static struct bufferevent *on_connection(struct event_base *base, void *arg)
{
    struct telemetry *t = arg;
    struct bufferevent *bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);

    settle_newcomer(t);
    if (bev == NULL)
        return NULL;
    bufferevent_incref(bev);
    t->newcomer = bev;
    event_active(t->settle, EV_TIMEOUT, 0);
    return bev;
}

static void on_settle(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    settle_newcomer(arg);
}

/* Out of descriptors: the backlog keeps the client, the next tick tries again. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    static struct log_limit limit; /* main's thread alone */
    uint64_t suppressed;

    (void)arg;
    evconnlistener_disable(listener);
    if (log_limit_pass(&limit, clock_mono_ms(), LOG_EVERY_MS, &suppressed))
        log_event(LOG_WARNING, "telemetry", "telemetry.accept_paused",
                  "the telemetry listener cannot accept: descriptors ran out", NULL);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct telemetry *t = arg;

    (void)fd;
    (void)what;
    for (unsigned i = 0; i < t->listener_count; i++)
        evconnlistener_enable(t->listeners[i]);
}

static struct evhttp *make_http(struct telemetry *t, struct event_base *base)
{
    struct evhttp *http = evhttp_new(base);

    if (http == NULL)
        return NULL;
    evhttp_set_max_headers_size(http, HEAD_MAX);
    evhttp_set_max_body_size(http, BODY_MAX);
    evhttp_set_timeout(http, TIMEOUT_S);
    evhttp_set_allowed_methods(http, ALL_METHODS); /* so that the 405 is ours */
    evhttp_set_default_content_type(http, NULL);
    evhttp_set_bevcb(http, on_connection, t);
    evhttp_set_gencb(http, on_request, t);
    return http;
}

struct telemetry *telemetry_new(struct proxy *p, struct event_base *base)
{
    static const struct timeval second = { .tv_sec = 1 };
    struct telemetry *t = xcalloc(1, sizeof(*t));

    t->p = p;
    t->base = base;
    t->exposition = exposition_new();
    fence_init(&t->fence);
    t->http = make_http(t, base);
    t->settle = event_new(base, -1, 0, on_settle, t);
    t->tick = event_new(base, -1, EV_PERSIST, on_tick, t);
    if (t->http == NULL || t->settle == NULL || t->tick == NULL ||
        event_add(t->tick, &second) != 0) {
        telemetry_free(t);
        return NULL;
    }
    return t;
}

int telemetry_accept(struct telemetry *t, int fd)
{
    struct evconnlistener *listener = NULL;

    if (t->listener_count < LISTENERS_MAX && evutil_make_socket_nonblocking(fd) == 0)
        listener = evconnlistener_new(t->base, NULL, NULL,
                                      LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (listener == NULL) {
        close(fd);
        return -1;
    }
    if (evhttp_bind_listener(t->http, listener) == NULL) {
        evconnlistener_free(listener);
        return -1;
    }
    evconnlistener_set_error_cb(listener, on_accept_error);
    t->listeners[t->listener_count++] = listener;
    return 0;
}

void telemetry_free(struct telemetry *t)
{
    if (t == NULL)
        return;
    if (t->newcomer != NULL)
        bufferevent_decref(t->newcomer);
    if (t->settle != NULL)
        event_free(t->settle);
    if (t->tick != NULL)
        event_free(t->tick);
    if (t->http != NULL)
        evhttp_free(t->http);
    exposition_free(t->exposition);
    free(t);
}

void telemetry_metrics(struct telemetry *t, struct strbuf *out)
{
    exposition_write(t->exposition, t->p, out);
}

void telemetry_status(struct proxy *p, struct strbuf *out)
{
    status_write(p, out);
}

void telemetry_breakers(struct proxy *p, struct strbuf *out)
{
    status_breakers(p, out);
}
