#include "proxy/admin.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "config/suggest.h"
#include "proxy/admin_body.h"
#include "proxy/authority.h"
#include "proxy/explain.h"
#include "proxy/local_http.h"
#include "proxy/proxy.h"
#include "proxy/reply.h"
#include "proxy/snapshot.h"
#include "proxy/status.h"
#include "proxy/switches.h"
#include "sync/breakers.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>

#define ANSWER_MAX ((size_t)16 << 20)

struct admin {
    struct proxy *p; /* borrowed */
    struct admin_hooks hooks;
    struct local_http *http;
    struct event *end; /* when the next override or bypass ends */
};

struct request {
    struct admin *a;
    struct local_request *rq;
    const char *name; /* of a breaker in the path, decoded; owned; NULL: none */
    size_t name_len;
};

/* ---- Answers ---- */

static void write_lines(struct json *j, const char *name, const char *lines)
{
    json_open(j, name, '[');
    while (*lines != '\0') {
        size_t len = strcspn(lines, "\n");
        json_strn(j, NULL, lines, len);
        lines += len + (lines[len] == '\n');
    }
    json_close(j);
}

/* RFC 9457, as the proxy's own answers; errors: one per line, or NULL. */
static void problem(struct local_request *rq, int status, const char *detail, const char *errors)
{
    struct strbuf body = STRBUF_INIT;
    struct json j = { .sb = &body };

    json_open(&j, NULL, '{');
    json_str(&j, "type", "about:blank");
    json_str(&j, "title", reply_reason(status));
    json_int(&j, "status", status);
    json_str(&j, "detail", detail);
    if (errors != NULL)
        write_lines(&j, "errors", errors);
    json_close(&j);
    strbuf_addc(&body, '\n');
    local_answer(rq, status, "application/problem+json", &body);
}

static const struct snapshot *snapshot_of(const struct request *r)
{
    return atomic_load(&r->a->p->snapshot);
}

/* ---- The guard ---- */

static bool is_loopback_name(const struct authority *a)
{
    static const char mapped[] = "::ffff:"; /* before an IPv4 address */
    const char *host = a->host;
    struct in_addr v4;

    if (a->is_ipv6 && strncmp(host, mapped, sizeof(mapped) - 1) == 0)
        host += sizeof(mapped) - 1;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    return strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0;
}

/* The port that the client has connected to; 0: it is gone. */
static uint16_t own_port(struct local_request *rq)
{
    struct evhttp_connection *c = evhttp_request_get_connection(rq->http);
    struct sockaddr_in6 sa = { 0 };
    socklen_t len = sizeof(sa);
    int fd = c != NULL ? bufferevent_getfd(evhttp_connection_get_bufferevent(c)) : -1;

    if (fd < 0 || getsockname(fd, (struct sockaddr *)&sa, &len) != 0)
        return 0;
    return ntohs(sa.sin6_port); /* sin_port of IPv4 stands at the same place */
}

/* How often a field comes; *value is its last one. */
static unsigned count_field(struct local_request *rq, const char *name, const char **value)
{
    struct evkeyval *field;
    unsigned n = 0;

    TAILQ_FOREACH(field, evhttp_request_get_input_headers(rq->http), next)
    {
        if (strcasecmp(field->key, name) == 0) {
            *value = field->value;
            n++;
        }
    }
    return n;
}

static bool host_is_ours(struct local_request *rq)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(rq->http);
    const char *host = NULL;
    struct authority a;

    if (uri == NULL || evhttp_uri_get_host(uri) != NULL) /* absolute-form: meant for a proxy */
        return false;
    return count_field(rq, "Host", &host) == 1 && authority_parse(&a, slice_of(host), 80) == 0 &&
           is_loopback_name(&a) && a.port == own_port(rq);
}

/* Why this request may not do anything here; NULL: it may. */
static const char *guard(struct local_request *rq)
{
    const char *value = NULL;

    if (count_field(rq, "Origin", &value) > 0)
        return "a request with an Origin comes from a web page; none is served";
    if (!host_is_ours(rq))
        return "Host must be a loopback address or localhost, with the port of this listener";
    if (count_field(rq, "X-Tripswitch-Admin", &value) != 1 || strcmp(value, "1") != 0)
        return "the header \"X-Tripswitch-Admin: 1\" is missing";
    return NULL;
}

/* ---- Looking ---- */

static void get_config(struct request *r)
{
    struct strbuf body = { .max = ANSWER_MAX };

    config_write(snapshot_of(r)->cfg, &body);
    local_answer_json(r->rq, HTTP_OK, &body);
}

static void write_list(struct json *j, const char *name, const struct string_list *list)
{
    json_open(j, name, '[');
    for (size_t i = 0; i < list->count; i++)
        json_str(j, NULL, list->items[i]);
    json_close(j);
}

static void write_route(struct json *j, const struct route *r)
{
    json_open(j, NULL, '{');
    json_str(j, "name", r->name);
    json_int(j, "index", (int64_t)r->index);
    write_list(j, "hosts", &r->match.hosts);
    json_open(j, "ports", '[');
    for (size_t i = 0; i < r->match.ports.count; i++) {
        char range[16];
        snprintf(range, sizeof(range), "%u-%u", r->match.ports.items[i].first,
                 r->match.ports.items[i].last);
        json_str(j, NULL, range);
    }
    json_close(j);
    write_list(j, "methods", &r->match.methods);
    write_list(j, "paths", &r->match.paths);
    write_list(j, "breakers", &r->breakers);
    json_str(j, "router", r->router);
    json_close(j);
}

static void get_routes(struct request *r)
{
    const struct config *cfg = snapshot_of(r)->cfg;
    struct strbuf body = { .max = ANSWER_MAX };
    struct json j = { .sb = &body };

    json_open(&j, NULL, '[');
    for (size_t i = 0; i < cfg->route_count; i++)
        write_route(&j, &cfg->routes[i]);
    json_close(&j);
    local_answer_json(r->rq, HTTP_OK, &body);
}

static void get_explain(struct request *r)
{
    const struct snapshot *snap = snapshot_of(r);
    struct admin_question q;
    struct explain_world w = { .cfg = snap->cfg,
                               .table = snap->table,
                               .breakers = r->a->p->breakers,
                               .switches = r->a->p->switches,
                               .self = r->a->p->self,
                               .hosts = r->a->p->auto_hosts,
                               .now_ms = clock_mono_ms() };
    struct explanation e;
    const char *why = admin_parse_question(r->rq->query, &q);

    if (why == NULL && explain(&w, &q.question, &e, &why) == 0) {
        struct strbuf body = { .max = ANSWER_MAX };
        explain_write(&w, &q.question, &e, &body);
        explanation_free(&e);
        local_answer_json(r->rq, HTTP_OK, &body);
    } else {
        problem(r->rq, HTTP_BADREQUEST, why, NULL);
    }
    admin_question_free(&q);
}

/* ---- Changing ---- */

/* The timer for the end that comes first. */
static void arm(struct admin *a)
{
    int64_t now_ms = clock_mono_ms(), next_ms = switches_tick(a->p->switches, now_ms);
    int64_t left_ms = next_ms - now_ms;
    struct timeval tv = { .tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000 };

    if (next_ms < 0)
        event_del(a->end);
    else
        event_add(a->end, &tv);
}

static void on_end(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    arm(arg);
}

static struct switch_times now(void)
{
    return (struct switch_times){ clock_mono_ms(), clock_wall_ms() };
}

/* False: answered. */
static bool read_order(struct request *r, bool with_state, struct admin_order *order)
{
    struct evbuffer *in = evhttp_request_get_input_buffer(r->rq->http);
    size_t len = evbuffer_get_length(in);
    struct strbuf why = STRBUF_INIT;
    const char *text = len > 0 ? (const char *)evbuffer_pullup(in, -1) : "";
    int err = admin_parse_order(text, len, with_state, order, &why);

    if (err != 0)
        problem(r->rq, HTTP_BADREQUEST, strbuf_str(&why), NULL);
    strbuf_free(&why);
    return err == 0;
}

static void no_such_breaker(struct request *r)
{
    const struct breakers *b = r->a->p->breakers;
    struct strbuf text = STRBUF_INIT;
    struct suggestion near;
    uint32_t count = breakers_count(b);

    suggest_start(&near, r->name);
    for (uint32_t id = 1; id <= count && id <= STATUS_BREAKERS_MAX; id++)
        suggest_offer(&near, breakers_name(b, id, NULL));
    strbuf_adds(&text,
                "neither a route, nor the control plane, nor a request has named this breaker");
    if (near.best != NULL)
        strbuf_addf(&text, "; did you mean \"%s\"?", near.best);
    problem(r->rq, HTTP_NOTFOUND, strbuf_str(&text), NULL);
    strbuf_free(&text);
}

static void put_override(struct request *r)
{
    struct proxy *p = r->a->p;
    uint32_t id = breakers_find(p->breakers, r->name, r->name_len);
    struct strbuf body = STRBUF_INIT;
    struct admin_order order;

    if (id == 0) {
        no_such_breaker(r);
        return;
    }
    if (!read_order(r, true, &order))
        return;
    if (switches_override(p->switches, id, order.state, order.ttl_ms, order.reason, now()) < 0) {
        problem(r->rq, 409, "1000 overrides are in effect, and more are not taken", NULL);
        return;
    }
    arm(r->a);
    status_breaker(p, r->name, r->name_len, &body);
    local_answer_json(r->rq, HTTP_OK, &body);
}

static void answer_ended(struct request *r, bool was_on)
{
    struct strbuf body = STRBUF_INIT;
    struct json j = { .sb = &body };

    arm(r->a);
    json_open(&j, NULL, '{');
    json_bool(&j, "ended", was_on);
    json_close(&j);
    local_answer_json(r->rq, HTTP_OK, &body);
}

static void delete_override(struct request *r)
{
    struct proxy *p = r->a->p;
    uint32_t id = breakers_find(p->breakers, r->name, r->name_len);

    if (id == 0)
        no_such_breaker(r);
    else
        answer_ended(r, switches_end_override(p->switches, id));
}

static void put_bypass(struct request *r)
{
    struct switches *s = r->a->p->switches;
    struct strbuf body = STRBUF_INIT;
    struct json j = { .sb = &body };
    struct admin_order order;
    char until[CLOCK_RFC3339_SIZE];

    if (!read_order(r, false, &order))
        return;
    switches_bypass(s, order.ttl_ms, order.reason, now());
    arm(r->a);
    clock_rfc3339((clock_wall_ms() + order.ttl_ms) * 1000, until);
    json_open(&j, NULL, '{');
    json_bool(&j, "bypass", true);
    json_str(&j, "until", until);
    json_str(&j, "reason", order.reason);
    json_close(&j);
    local_answer_json(r->rq, HTTP_OK, &body);
}

static void delete_bypass(struct request *r)
{
    answer_ended(r, switches_end_bypass(r->a->p->switches));
}

static void post_reload(struct request *r)
{
    const struct admin_hooks *h = &r->a->hooks;
    struct strbuf errors = STRBUF_INIT, warnings = STRBUF_INIT, body = STRBUF_INIT;
    struct json j = { .sb = &body };

    if (h->reload(h->ctx, &errors, &warnings) < 0) {
        problem(r->rq, 422, "the configuration has mistakes; the running one stays",
                strbuf_str(&errors));
    } else {
        json_open(&j, NULL, '{');
        json_str(&j, "config_hash", snapshot_of(r)->cfg->hash);
        json_str(&j, "restart_required_by",
                 r->a->p->restart_required ? r->a->p->restart_option : NULL);
        write_lines(&j, "warnings", strbuf_str(&warnings));
        json_close(&j);
        local_answer_json(r->rq, HTTP_OK, &body);
    }
    strbuf_free(&errors);
    strbuf_free(&warnings);
}

/* ---- Endpoints ---- */

#define NAME_IN_PATH "/breakers/{name}/override"

static void get_index(struct request *r);

static const struct endpoint {
    const char *path;
    enum evhttp_cmd_type method;
    void (*serve)(struct request *r);
} endpoints[] = {
    { "/", EVHTTP_REQ_GET, get_index },
    { "/config", EVHTTP_REQ_GET, get_config },
    { "/explain", EVHTTP_REQ_GET, get_explain },
    { "/routes", EVHTTP_REQ_GET, get_routes },
    { "/reload", EVHTTP_REQ_POST, post_reload },
    { NAME_IN_PATH, EVHTTP_REQ_PUT, put_override },
    { NAME_IN_PATH, EVHTTP_REQ_DELETE, delete_override },
    { "/bypass", EVHTTP_REQ_PUT, put_bypass },
    { "/bypass", EVHTTP_REQ_DELETE, delete_bypass },
};

static const char *method_name(enum evhttp_cmd_type m)
{
    return m == EVHTTP_REQ_GET    ? "GET, HEAD"
           : m == EVHTTP_REQ_PUT  ? "PUT"
           : m == EVHTTP_REQ_POST ? "POST"
                                  : "DELETE";
}

static void get_index(struct request *r)
{
    struct strbuf body = STRBUF_INIT;

    for (size_t i = 0; i < ARRAY_LEN(endpoints); i++)
        strbuf_addf(&body, "%-9s %s\n", method_name(endpoints[i].method), endpoints[i].path);
    local_answer(r->rq, HTTP_OK, "text/plain; charset=utf-8", &body);
}

/* Decodes the name inside /breakers/NAME/override. */
static bool take_name(struct request *r)
{
    static const char before[] = "/breakers/", after[] = "/override";
    const char *path = r->rq->path;
    size_t len = strlen(path), outer = sizeof(before) - 1 + sizeof(after) - 1;
    char *part;

    if (len <= outer || strncmp(path, before, sizeof(before) - 1) != 0 ||
        strcmp(path + len - (sizeof(after) - 1), after) != 0)
        return false;
    part = xstrndup(path + sizeof(before) - 1, len - outer);
    if (strchr(part, '/') == NULL)
        r->name = evhttp_uridecode(part, 0, &r->name_len);
    free(part);
    return r->name != NULL;
}

static bool is_here(struct request *r, const struct endpoint *e)
{
    if (strcmp(e->path, NAME_IN_PATH) == 0)
        return r->name != NULL;
    return strcmp(e->path, r->rq->path) == 0;
}

static void dispatch(struct request *r)
{
    struct strbuf allow = STRBUF_INIT;
    enum evhttp_cmd_type method = r->rq->method == EVHTTP_REQ_HEAD ? EVHTTP_REQ_GET : r->rq->method;
    const struct endpoint *found = NULL;

    for (size_t i = 0; i < ARRAY_LEN(endpoints); i++) {
        if (!is_here(r, &endpoints[i]))
            continue;
        if (endpoints[i].method == method)
            found = &endpoints[i];
        strbuf_addf(&allow, "%s%s", allow.len > 0 ? ", " : "", method_name(endpoints[i].method));
    }
    const char *refusal = found != NULL ? guard(r->rq) : NULL;
    if (allow.len == 0) {
        problem(r->rq, HTTP_NOTFOUND, "there is nothing at this path; / lists what there is", NULL);
    } else if (found == NULL) {
        local_add_header(r->rq, "Allow", strbuf_str(&allow));
        problem(r->rq, HTTP_BADMETHOD, "not by this method", NULL);
    } else if (refusal != NULL) {
        problem(r->rq, 403, refusal, NULL);
    } else {
        found->serve(r);
    }
    strbuf_free(&allow);
}

static void serve(struct local_request *rq)
{
    struct request r = { .a = rq->ctx, .rq = rq };

    take_name(&r);
    dispatch(&r);
    free((char *)r.name);
}

/* ---- Life ---- */

struct admin *admin_new(struct proxy *p, struct event_base *base, struct admin_hooks hooks)
{
    struct admin *a = xcalloc(1, sizeof(*a));

    a->p = p;
    a->hooks = hooks;
    a->http = local_http_new(base, &p->admin_refused, serve, a);
    a->end = event_new(base, -1, 0, on_end, a);
    if (a->http != NULL && a->end != NULL)
        return a;
    admin_free(a);
    return NULL;
}

int admin_accept(struct admin *a, int fd)
{
    return local_http_accept(a->http, fd);
}

void admin_free(struct admin *a)
{
    if (a == NULL)
        return;
    local_http_free(a->http);
    if (a->end != NULL)
        event_free(a->end);
    free(a);
}
