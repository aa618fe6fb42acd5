#include "proxy/telemetry.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "proxy/exposition.h"
#include "proxy/local_http.h"
#include "proxy/page.h"
#include "proxy/proxy.h"
#include "proxy/status.h"
#include "proxy/worker.h"
#include "sync/sync.h"

#include <event2/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#define ANSWER_MAX ((size_t)64 << 20)
#define GZIP_MIN   1024

struct telemetry {
    struct proxy *p; /* borrowed */
    struct exposition *exposition;
    struct local_http *http;
};

static struct telemetry *telemetry_of(const struct local_request *rq)
{
    return rq->ctx;
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
static void answer_health(struct local_request *rq, bool ok, struct strbuf *checks)
{
    struct strbuf body = STRBUF_INIT;

    if (!ok || local_query_has(rq, "verbose"))
        strbuf_add(&body, strbuf_str(checks), checks->len);
    strbuf_adds(&body, ok ? "ok\n" : "not ok\n");
    strbuf_free(checks);
    local_answer(rq, ok ? HTTP_OK : HTTP_SERVUNAVAIL, "text/plain; charset=utf-8", &body);
}

static void serve_livez(struct local_request *rq)
{
    const struct proxy *p = telemetry_of(rq)->p;
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
    struct sync_gauges g = { 0 };

    if (p->sync)
        sync_gauges(p->sync, &g);
    strbuf_addf(checks, "[ ] control plane: states %s\n",
                status_states(breakers_flags(p->breakers), g.awaited_names));
}

static void serve_readyz(struct local_request *rq)
{
    const struct proxy *p = telemetry_of(rq)->p;
    struct strbuf checks = STRBUF_INIT;

    check(&checks, atomic_load(&p->started), "started");
    check(&checks, !atomic_load(&p->draining), "not draining");
    report_control(&checks, p);
    answer_health(rq, status_ready(p), &checks);
}

static void serve_startupz(struct local_request *rq)
{
    const struct proxy *p = telemetry_of(rq)->p;
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

static void serve_metrics(struct local_request *rq)
{
    struct strbuf body = { .max = ANSWER_MAX };
    const char *encodings =
        evhttp_find_header(evhttp_request_get_input_headers(rq->http), "Accept-Encoding");

    telemetry_metrics(telemetry_of(rq), &body);
    if (strbuf_ok(&body) && body.len > GZIP_MIN && accepts_gzip(encodings) && compress_body(&body))
        local_add_header(rq, "Content-Encoding", "gzip");
    local_add_header(rq, "Vary", "Accept-Encoding");
    local_answer(rq, HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", &body);
}

/* The rest. */

static void serve_status(struct local_request *rq)
{
    struct strbuf body = { .max = ANSWER_MAX };

    telemetry_status(telemetry_of(rq)->p, &body);
    local_answer_json(rq, HTTP_OK, &body);
}

static void serve_breakers(struct local_request *rq)
{
    struct strbuf body = { .max = ANSWER_MAX };

    telemetry_breakers(telemetry_of(rq)->p, &body);
    local_answer_json(rq, HTTP_OK, &body);
}

static void serve_breaker(struct local_request *rq, const char *encoded)
{
    struct strbuf body = { .max = ANSWER_MAX };
    size_t len = 0;
    char *name = evhttp_uridecode(encoded, 0, &len);
    int status = HTTP_OK;

    if (name == NULL || !status_breaker(telemetry_of(rq)->p, name, len, &body)) {
        struct json j = { .sb = &body };
        status = HTTP_NOTFOUND;
        json_open(&j, NULL, '{');
        json_str(&j, "error", "no such breaker");
        json_close(&j);
    }
    free(name);
    local_answer_json(rq, status, &body);
}

static void serve_version(struct local_request *rq)
{
    struct strbuf body = STRBUF_INIT;

    status_version(&body);
    local_answer_json(rq, HTTP_OK, &body);
}

static void serve_page(struct local_request *rq)
{
    struct strbuf body = { .max = ANSWER_MAX };

    page_write(telemetry_of(rq)->p, local_query_has(rq, "pause"), &body);
    local_add_header(rq, "Content-Security-Policy",
                     "default-src 'none'; style-src 'unsafe-inline'");
    local_answer(rq, HTTP_OK, "text/html; charset=utf-8", &body);
}

static const struct {
    const char *path;
    void (*serve)(struct local_request *rq);
} endpoints[] = {
    { "/", serve_page },           { "/livez", serve_livez },
    { "/healthz", serve_livez },   { "/readyz", serve_readyz },
    { "/ready", serve_readyz },    { "/startupz", serve_startupz },
    { "/metrics", serve_metrics }, { "/status", serve_status },
    { "/version", serve_version }, { "/breakers", serve_breakers },
};

static void serve(struct local_request *rq)
{
    static const char one_breaker[] = "/breakers/";

    if (rq->method != EVHTTP_REQ_GET && rq->method != EVHTTP_REQ_HEAD) {
        local_add_header(rq, "Allow", "GET, HEAD");
        local_answer_text(rq, HTTP_BADMETHOD, "only GET and HEAD\n");
        return;
    }
    for (unsigned i = 0; i < ARRAY_LEN(endpoints); i++) {
        if (strcmp(rq->path, endpoints[i].path) == 0) {
            endpoints[i].serve(rq);
            return;
        }
    }
    if (strncmp(rq->path, one_breaker, sizeof(one_breaker) - 1) == 0 &&
        rq->path[sizeof(one_breaker) - 1] != '\0')
        serve_breaker(rq, rq->path + sizeof(one_breaker) - 1);
    else
        local_answer_text(rq, HTTP_NOTFOUND, "not found; / lists what there is\n");
}

struct telemetry *telemetry_new(struct proxy *p, struct event_base *base)
{
    struct telemetry *t = xcalloc(1, sizeof(*t));

    t->p = p;
    t->exposition = exposition_new();
    t->http = local_http_new(base, &p->telemetry_refused, serve, t);
    if (t->http != NULL)
        return t;
    telemetry_free(t);
    return NULL;
}

int telemetry_accept(struct telemetry *t, int fd)
{
    return local_http_accept(t->http, fd);
}

void telemetry_free(struct telemetry *t)
{
    if (t == NULL)
        return;
    local_http_free(t->http);
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
