#include "proxy/local_http.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "proxy/fence.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEAD_MAX      8192
#define BODY_MAX      (1 << 20)
#define TIMEOUT_S     10
#define LISTENERS_MAX 64
#define LOG_EVERY_MS  60000
#define ALL_METHODS                                                                                \
    (EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |     \
     EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE | EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH)

struct local_http {
    struct event_base *base; /* borrowed */
    void (*serve)(struct local_request *rq);
    void *ctx;
    uint64_t *refused; /* borrowed */
    struct evhttp *http;
    struct evconnlistener *listeners[LISTENERS_MAX]; /* owned by http */
    unsigned listener_count;
    struct fence fence;
    struct bufferevent *newcomer; /* a reference; accepted, not yet noted */
    struct event *settle;         /* notes the newcomer at the end of this turn */
    struct event *tick;           /* resumes listeners that ran out of descriptors */
};

/* One answer. */

bool local_query_has(const struct local_request *rq, const char *flag)
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

void local_add_header(struct local_request *rq, const char *name, const char *value)
{
    evhttp_add_header(evhttp_request_get_output_headers(rq->http), name, value);
}

void local_answer(struct local_request *rq, int status, const char *type, struct strbuf *body)
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
    local_add_header(rq, "Content-Type", type);
    local_add_header(rq, "Content-Length", length);
    local_add_header(rq, "Cache-Control", "no-store");
    local_add_header(rq, "X-Content-Type-Options", "nosniff");
    if (body->len > 0 && evhttp_request_get_command(rq->http) != EVHTTP_REQ_HEAD) {
        size_t len = body->len;
        char *data = strbuf_take(body);
        evbuffer_add_reference(payload, data, len, free_body, data);
    }
    strbuf_free(body);
    evhttp_send_reply(rq->http, status, NULL, payload);
    evbuffer_free(payload);
}

void local_answer_text(struct local_request *rq, int status, const char *text)
{
    struct strbuf body = STRBUF_INIT;

    strbuf_adds(&body, text);
    local_answer(rq, status, "text/plain; charset=utf-8", &body);
}

void local_answer_json(struct local_request *rq, int status, struct strbuf *body)
{
    strbuf_addc(body, '\n');
    local_answer(rq, status, "application/json", body);
}

/* Connections. */

static void settle_newcomer(struct local_http *h)
{
    struct bufferevent *bev = h->newcomer;

    if (bev == NULL)
        return;
    h->newcomer = NULL;
    int fd = bufferevent_getfd(bev);
    if (fd >= 0 && !fence_admit(&h->fence, fd, clock_mono_ms()))
        ++*h->refused;
    bufferevent_decref(bev);
}

/* evhttp asks for the bufferevent before it gives it the descriptor. */
static struct bufferevent *on_connection(struct event_base *base, void *arg)
{
    struct local_http *h = arg;
    struct bufferevent *bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);

    settle_newcomer(h);
    if (bev == NULL)
        return NULL;
    bufferevent_incref(bev);
    h->newcomer = bev;
    event_active(h->settle, EV_TIMEOUT, 0);
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

    (void)arg; /* evhttp's */
    evconnlistener_disable(listener);
    if (log_limit_pass(&limit, clock_mono_ms(), LOG_EVERY_MS, &suppressed))
        log_event(LOG_WARNING, "proxy", "telemetry.accept_paused",
                  "the telemetry or admin listener cannot accept: descriptors ran out", NULL);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct local_http *h = arg;

    (void)fd;
    (void)what;
    for (unsigned i = 0; i < h->listener_count; i++)
        evconnlistener_enable(h->listeners[i]);
}

static void on_request(struct evhttp_request *http, void *arg)
{
    struct local_http *h = arg;
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(http);
    const char *path = uri != NULL ? evhttp_uri_get_path(uri) : NULL;
    const char *query = uri != NULL ? evhttp_uri_get_query(uri) : NULL;

    h->serve(&(struct local_request){ .ctx = h->ctx,
                                      .http = http,
                                      .method = evhttp_request_get_command(http),
                                      .path = path != NULL ? path : "",
                                      .query = query != NULL ? query : "" });
}

static struct evhttp *make_http(struct local_http *h, struct event_base *base)
{
    struct evhttp *http = evhttp_new(base);

    if (http == NULL)
        return NULL;
    evhttp_set_max_headers_size(http, HEAD_MAX);
    evhttp_set_max_body_size(http, BODY_MAX);
    evhttp_set_timeout(http, TIMEOUT_S);
    evhttp_set_allowed_methods(http, ALL_METHODS); /* so that the 405 is ours */
    evhttp_set_default_content_type(http, NULL);
    evhttp_set_bevcb(http, on_connection, h);
    evhttp_set_gencb(http, on_request, h);
    return http;
}

struct local_http *local_http_new(struct event_base *base, uint64_t *refused,
                                  void (*serve)(struct local_request *rq), void *ctx)
{
    static const struct timeval second = { .tv_sec = 1 };
    struct local_http *h = xcalloc(1, sizeof(*h));

    h->base = base;
    h->refused = refused;
    h->serve = serve;
    h->ctx = ctx;
    fence_init(&h->fence);
    h->http = make_http(h, base);
    h->settle = event_new(base, -1, 0, on_settle, h);
    h->tick = event_new(base, -1, EV_PERSIST, on_tick, h);
    if (h->http == NULL || h->settle == NULL || h->tick == NULL ||
        event_add(h->tick, &second) != 0) {
        local_http_free(h);
        return NULL;
    }
    return h;
}

int local_http_accept(struct local_http *h, int fd)
{
    struct evconnlistener *listener = NULL;

    if (h->listener_count < LISTENERS_MAX && evutil_make_socket_nonblocking(fd) == 0)
        listener = evconnlistener_new(h->base, NULL, NULL,
                                      LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (listener == NULL) {
        close(fd);
        return -1;
    }
    if (evhttp_bind_listener(h->http, listener) == NULL) {
        evconnlistener_free(listener);
        return -1;
    }
    evconnlistener_set_error_cb(listener, on_accept_error);
    h->listeners[h->listener_count++] = listener;
    return 0;
}

void local_http_free(struct local_http *h)
{
    if (h == NULL)
        return;
    if (h->newcomer != NULL)
        bufferevent_decref(h->newcomer);
    if (h->settle != NULL)
        event_free(h->settle);
    if (h->tick != NULL)
        event_free(h->tick);
    if (h->http != NULL)
        evhttp_free(h->http);
    free(h);
}
