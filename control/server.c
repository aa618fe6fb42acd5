#include "control/server.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/prng.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "control/door.h"
#include "control/keeper.h"
#include "control/resume.h"
#include "control/store.h"
#include "control/streams.h"
#include <cjson/cJSON.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_MAX       8192
#define BODY_SLACK     (1 << 20) /* so that a body just over the limit still gets our own 413 */
#define BATCH_BODY_MAX ((size_t)1 << 20)
#define IDLE_S         60
#define ACCEPT_REST_MS 100
#define ALL_METHODS                                                                                \
    (EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |     \
     EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE | EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH)
#define PATH_PREFIX    "/v1/projects/"
#define ADMIN_KEY      "eb_admin_"
#define REQUEST_ID_MAX 128

/* Written by the loop's thread alone, read by any. */
struct counters {
    _Atomic uint64_t samples_accepted;
    _Atomic uint64_t samples_refused;
    _Atomic uint64_t auto_breakers;
    _Atomic uint64_t auto_refused;
    _Atomic uint64_t transitions;
};

struct server {
    const struct server_keys *keys; /* borrowed */
    struct evhttp *http;
    struct event *eval;
    struct door *door;
    struct streams *streams;
    struct store *store;
    struct keeper *keeper;
    bool configured;      /* once */
    struct strbuf events; /* state events not yet sent to the streams */
    uint64_t nonce;       /* tells our ETags from those of an earlier start */
    struct counters counters;
};

/* One request under way. */
struct call {
    struct server *srv;
    struct evhttp_request *req;
    struct guest *guest;
    const char *id; /* the {breaker} of the path, or NULL */
};

static struct store_now now_both(void)
{
    return (struct store_now){ .mono_ms = clock_mono_ms(), .wall_ms = clock_wall_ms() };
}

static void publish_counters(struct server *srv)
{
    struct store_status st;

    store_status(srv->store, &st);
    atomic_store_explicit(&srv->counters.auto_breakers, st.auto_breakers, memory_order_relaxed);
    atomic_store_explicit(&srv->counters.auto_refused, st.auto_refused, memory_order_relaxed);
    atomic_store_explicit(&srv->counters.transitions, st.transitions, memory_order_relaxed);
}

/* Replies. */

static const char *request_header(const struct call *c, const char *name)
{
    return evhttp_find_header(evhttp_request_get_input_headers(c->req), name);
}

static void reply_header(const struct call *c, const char *name, const char *value)
{
    evhttp_add_header(evhttp_request_get_output_headers(c->req), name, value);
}

static void reply_json(const struct call *c, int status, const struct strbuf *body)
{
    struct evbuffer *out = evbuffer_new();

    if (out == NULL || evbuffer_add(out, strbuf_str(body), body->len) < 0)
        abort(); /* out of memory, as xmalloc would */
    reply_header(c, "Content-Type", "application/json");
    evhttp_send_reply(c->req, status, NULL, out);
    evbuffer_free(out);
}

static void reply_error(const struct call *c, int status, const char *code, const char *message)
{
    struct strbuf body = STRBUF_INIT;
    struct json j = { .sb = &body };

    json_open(&j, NULL, '{');
    json_str(&j, "code", code);
    json_str(&j, "message", message);
    json_close(&j);
    reply_json(c, status, &body);
    strbuf_free(&body);
}

static bool etag_listed(const char *list, const char *etag)
{
    size_t len = strlen(etag);

    while (list && *list) {
        list += strspn(list, " \t,");
        if (*list == '*' || (strncmp(list, etag, len) == 0 && strchr(", \t", list[len])))
            return true;
        list += strcspn(list, ",");
    }
    return false;
}

/* 200 with the body, or 304 if the client has it already. */
static void reply_tagged(const struct call *c, const char *etag, const struct strbuf *body)
{
    reply_header(c, "ETag", etag);
    if (etag_listed(request_header(c, "If-None-Match"), etag))
        evhttp_send_reply(c->req, HTTP_NOTMODIFIED, NULL, NULL);
    else
        reply_json(c, HTTP_OK, body);
}

/* Who asks? */

static bool same_secret(const char *a, const char *b)
{
    size_t len = strlen(b);

    return strlen(a) == len && CRYPTO_memcmp(a, b, len) == 0;
}

/* False: answered already. */
static bool check_key(const struct call *c, const char *project)
{
    static const char scheme[] = "Bearer ";
    const char *auth = request_header(c, "Authorization");
    const char *key = auth ? auth + strlen(scheme) : NULL;

    if (auth == NULL || strncasecmp(auth, scheme, strlen(scheme)) != 0) {
        reply_header(c, "WWW-Authenticate", "Bearer");
        reply_error(c, 401, "unauthorized", "a project key is required");
    } else if (strncmp(key, ADMIN_KEY, strlen(ADMIN_KEY)) == 0) {
        reply_error(c, 403, "forbidden", "this needs a project key, not an admin key");
    } else if (!same_secret(key, c->srv->keys->api_key)) {
        reply_header(c, "WWW-Authenticate", "Bearer");
        reply_error(c, 401, "unauthorized", "the key is not known");
    } else if (strcmp(project, c->srv->keys->project_id) != 0) {
        reply_error(c, 403, "forbidden", "the key belongs to another project");
    } else {
        return true;
    }
    return false;
}

static bool check_project(const struct call *c, const char *project)
{
    if (strcmp(project, c->srv->keys->project_id) == 0)
        return true;
    reply_error(c, 404, "not_found", "there is no such project");
    return false;
}

/* State events. */

static void on_change(void *arg, const struct store_change *change)
{
    struct server *srv = arg;
    const struct store_breaker *b = &change->breaker;
    struct strbuf msg = STRBUF_INIT;

    streams_event(&srv->events, b);
    if (change->from == NULL)
        return;
    keeper_note_change(srv->keeper);
    strbuf_addf(&msg, "breaker %s is %s", b->name, b->state);
    log_event(LOG_INFO, "control", "breaker.transition", strbuf_str(&msg), "breaker", b->name,
              "from", change->from, "to", b->state, "cause", change->reason, "reason",
              change->reason_text, NULL);
    strbuf_free(&msg);
}

static void send_events(struct server *srv)
{
    streams_send(srv->streams, &srv->events);
    strbuf_clear(&srv->events);
}

static void arm_eval(struct server *srv)
{
    int64_t next_ms = store_next_ms(srv->store);
    int64_t wait_ms = next_ms == INT64_MAX ? 0 : next_ms - clock_mono_ms();
    struct timeval tv;

    if (next_ms == INT64_MAX) {
        event_del(srv->eval);
        return;
    }
    if (wait_ms < 0)
        wait_ms = 0;
    tv = (struct timeval){ .tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000 };
    event_add(srv->eval, &tv);
}

/* After anything that touched the store. */
static void settle(struct server *srv)
{
    send_events(srv);
    publish_counters(srv);
    arm_eval(srv);
}

static void on_eval(evutil_socket_t unused, short what, void *arg)
{
    struct server *srv = arg;

    (void)unused;
    (void)what;
    store_tick(srv->store, now_both());
    settle(srv);
}

/* Endpoints. */

static void get_stream(const struct call *c)
{
    struct strbuf snapshot = STRBUF_INIT;
    struct store_breaker gone;

    for (size_t pos = 0; store_gone_next(c->srv->store, &pos, &gone);)
        streams_event(&snapshot, &gone);
    for (size_t i = 0; i < store_breaker_count(c->srv->store); i++) {
        struct store_breaker b = store_breaker_at(c->srv->store, i);

        streams_event(&snapshot, &b);
    }
    streams_open(c->srv->streams, c->req, c->guest, &snapshot);
    strbuf_free(&snapshot);
}

static bool knows_router(const void *arg, const char *router_id)
{
    return store_knows_router(arg, router_id);
}

static void take_samples(struct server *srv, const struct ingest_batch *batch)
{
    struct store_now now = now_both();

    for (size_t i = 0; i < batch->count; i++) {
        const struct ingest_sample *in = &batch->samples[i];
        struct store_sample sample = {
            .router_id = in->router_id,
            .metric = in->metric,
            .ts_ms = in->ts_ms,
            .ok = in->ok,
        };

        store_sample(srv->store, &sample, now);
    }
    atomic_fetch_add_explicit(&srv->counters.samples_accepted, batch->count, memory_order_relaxed);
    settle(srv);
}

/* 0: batch is the caller's to free. */
static int read_ingest(const struct call *c, struct ingest_batch *batch, struct ingest_error *err)
{
    struct evbuffer *in = evhttp_request_get_input_buffer(c->req);
    size_t len = evbuffer_get_length(in);
    struct strbuf body = STRBUF_INIT;
    const void *wire = len > 0 ? evbuffer_pullup(in, -1) : (const unsigned char *)"";
    int64_t now_ms = clock_wall_ms();
    int rc;

    *batch = (struct ingest_batch){ 0 };
    if (wire == NULL)
        abort(); /* out of memory, as xmalloc would */
    rc = ingest_verify(c->srv->keys->ingest, request_header(c, "X-EB-Timestamp"),
                       request_header(c, "X-EB-Signature"), wire, len, now_ms, err);
    if (rc == 0)
        rc = ingest_unpack(request_header(c, "Content-Encoding"), wire, len, &body, err);
    if (rc == 0)
        rc = ingest_parse(strbuf_str(&body), body.len, now_ms, knows_router, c->srv->store, batch,
                          err);
    strbuf_free(&body);
    return rc;
}

static void post_ingest(const struct call *c)
{
    struct ingest_batch batch;
    struct ingest_error err;
    char answer[48];
    struct strbuf body = STRBUF_INIT;

    if (read_ingest(c, &batch, &err) < 0) {
        atomic_fetch_add_explicit(&c->srv->counters.samples_refused, batch.count,
                                  memory_order_relaxed);
        reply_error(c, err.status, err.code, err.message);
        return;
    }
    take_samples(c->srv, &batch);
    snprintf(answer, sizeof(answer), "{\"accepted\":%zu}", batch.count);
    ingest_free(&batch);
    strbuf_adds(&body, answer);
    reply_json(c, 202, &body);
    strbuf_free(&body);
}

static void list_etag(const struct server *srv, char *out, size_t size)
{
    struct store_status st;

    store_status(srv->store, &st);
    snprintf(out, size, "W/\"%016llx-%llu\"", (unsigned long long)srv->nonce,
             (unsigned long long)st.list_version);
}

static void metadata_entry(struct json *j, const char *id, const char *name,
                           const struct name_value_list *metadata)
{
    json_open(j, NULL, '{');
    json_str(j, "id", id);
    json_str(j, "name", name);
    json_open(j, "metadata", '{');
    for (size_t i = 0; metadata != NULL && i < metadata->count; i++)
        json_str(j, metadata->items[i].name, metadata->items[i].value);
    json_close(j);
    json_close(j);
}

static void reply_metadata(const struct call *c, struct strbuf *body, struct json *j)
{
    char etag[64];

    json_close(j);
    json_close(j);
    list_etag(c->srv, etag, sizeof(etag));
    reply_tagged(c, etag, body);
    strbuf_free(body);
}

static void get_breakers(const struct call *c)
{
    struct strbuf body = STRBUF_INIT;
    struct json j = { .sb = &body };

    json_open(&j, NULL, '{');
    json_str(&j, "project_id", c->srv->keys->project_id);
    json_open(&j, "breakers", '[');
    for (size_t i = 0; i < store_breaker_count(c->srv->store); i++) {
        struct store_breaker b = store_breaker_at(c->srv->store, i);

        metadata_entry(&j, b.id, b.name, b.metadata);
    }
    reply_metadata(c, &body, &j);
}

static void get_routers(const struct call *c)
{
    struct strbuf body = STRBUF_INIT;
    struct json j = { .sb = &body };
    const char *id;
    const char *name;

    json_open(&j, NULL, '{');
    json_str(&j, "project_id", c->srv->keys->project_id);
    json_open(&j, "routers", '[');
    for (size_t pos = 0; store_router_next(c->srv->store, &pos, &id, &name);)
        metadata_entry(&j, id, name, store_router_metadata(c->srv->store, id));
    reply_metadata(c, &body, &j);
}

static void get_status(const struct call *c)
{
    struct store_status st;
    struct strbuf body = STRBUF_INIT;
    struct json j = { .sb = &body };
    char etag[64];

    store_status(c->srv->store, &st);
    json_open(&j, NULL, '{');
    json_int(&j, "open_count", (int64_t)st.open);
    json_int(&j, "closed_count", (int64_t)st.closed);
    if (st.last_eval_wall_ms > 0)
        json_int(&j, "last_eval_ms", st.last_eval_wall_ms);
    json_close(&j);
    snprintf(etag, sizeof(etag), "W/\"%016llx\"",
             (unsigned long long)keyed_hash(body.data, body.len));
    reply_tagged(c, etag, &body);
    strbuf_free(&body);
}

static void state_entry(struct json *j, const struct store_breaker *b)
{
    char when[CLOCK_RFC3339_SIZE];

    clock_rfc3339(b->updated_wall_ms * 1000, when);
    json_open(j, NULL, '{');
    json_str(j, "breaker_id", b->id);
    json_str(j, "state", b->state);
    json_num(j, "allow_rate", b->allow_rate);
    json_str(j, "updated_at", when);
    json_close(j);
}

static void get_state(const struct call *c)
{
    struct store_breaker b;
    struct strbuf body = STRBUF_INIT;
    struct json j = { .sb = &body };

    if (!store_breaker_by_id(c->srv->store, c->id, &b)) {
        reply_error(c, 404, "not_found", "there is no such breaker");
        return;
    }
    state_entry(&j, &b);
    reply_json(c, 200, &body);
    strbuf_free(&body);
}

static void batch_by_ids(const struct call *c, const cJSON *ids)
{
    struct strbuf body = STRBUF_INIT;
    struct json j = { .sb = &body };
    struct store_breaker b;
    const cJSON *id;

    json_open(&j, NULL, '[');
    cJSON_ArrayForEach(id, ids)
    {
        /* Ids that went are left out: one of them must not hide the others. */
        if (cJSON_IsString(id) && store_breaker_by_id(c->srv->store, id->valuestring, &b))
            state_entry(&j, &b);
    }
    json_close(&j);
    reply_json(c, 200, &body);
    strbuf_free(&body);
}

static void batch_by_router(const struct call *c, const char *router_id)
{
    struct strbuf body = STRBUF_INIT;
    struct json j = { .sb = &body };
    struct store_breaker b;

    if (!store_has_router(c->srv->store, router_id)) {
        reply_error(c, 404, "not_found", "there is no such router");
        return;
    }
    json_open(&j, NULL, '[');
    for (size_t pos = 0; store_link_next(c->srv->store, router_id, &pos, &b);)
        state_entry(&j, &b);
    json_close(&j);
    reply_json(c, 200, &body);
    strbuf_free(&body);
}

static void post_batch(const struct call *c)
{
    struct evbuffer *in = evhttp_request_get_input_buffer(c->req);
    size_t len = evbuffer_get_length(in);
    struct ingest_error err;
    const cJSON *ids;
    const cJSON *router;
    cJSON *root;

    if (len > BATCH_BODY_MAX) {
        reply_error(c, 413, "body_too_large", "the body is over 1 MiB");
        return;
    }
    root = ingest_json(len > 0 ? (const char *)evbuffer_pullup(in, -1) : "", len, &err);
    if (root == NULL) {
        reply_error(c, err.status, err.code, err.message);
        return;
    }
    ids = cJSON_GetObjectItemCaseSensitive(root, "breaker_ids");
    router = cJSON_GetObjectItemCaseSensitive(root, "router_id");
    if (cJSON_IsArray(ids))
        batch_by_ids(c, ids);
    else if (cJSON_IsString(router))
        batch_by_router(c, router->valuestring);
    else
        reply_error(c, 422, "invalid_request", "breaker_ids or router_id is required");
    cJSON_Delete(root);
}

/* Paths. */

struct endpoint {
    const char *path; /* below the project; "*" stands for one segment */
    int methods;
    const char *allow;
    bool (*authorize)(const struct call *c, const char *project);
    void (*handle)(const struct call *c);
};

static const struct endpoint endpoints[] = {
    { "breakers/state:stream", EVHTTP_REQ_GET, "GET", check_key, get_stream },
    { "ingest", EVHTTP_REQ_POST, "POST", check_project, post_ingest },
    { "breakers/metadata", EVHTTP_REQ_GET, "GET", check_key, get_breakers },
    { "routers/metadata", EVHTTP_REQ_GET, "GET", check_key, get_routers },
    { "status", EVHTTP_REQ_GET | EVHTTP_REQ_HEAD, "GET, HEAD", check_key, get_status },
    { "breakers/state:batch", EVHTTP_REQ_POST, "POST", check_key, post_batch },
    { "breakers/*/state", EVHTTP_REQ_GET, "GET", check_key, get_state },
};

/* On a match the segment that stands for "*" is cut out of path. */
static bool path_matches(const char *pattern, char *path, const char **id)
{
    const char *star = strchr(pattern, '*');
    size_t head = star ? (size_t)(star - pattern) : 0;
    char *end;

    if (star == NULL)
        return strcmp(pattern, path) == 0;
    if (strncmp(pattern, path, head) != 0)
        return false;
    end = strchr(path + head, '/');
    if (end == NULL || end == path + head || strcmp(end, star + 1) != 0)
        return false;
    *end = '\0';
    *id = path + head;
    return true;
}

static void dispatch(struct call *c, char *path)
{
    int method = evhttp_request_get_command(c->req);
    char *project = path + strlen(PATH_PREFIX);
    char *rest = strncmp(path, PATH_PREFIX, strlen(PATH_PREFIX)) == 0 ? strchr(project, '/') : NULL;

    for (size_t i = 0; rest && i < ARRAY_LEN(endpoints); i++) {
        const struct endpoint *e = &endpoints[i];

        if (!path_matches(e->path, rest + 1, &c->id))
            continue;
        *rest = '\0';
        if (!(e->methods & method)) {
            reply_header(c, "Allow", e->allow);
            reply_error(c, 405, "method_not_allowed", "this path takes other methods");
        } else if (e->authorize(c, project)) {
            e->handle(c);
        }
        return;
    }
    reply_error(c, 404, "not_found", "there is no such path");
}

static void on_request(struct evhttp_request *req, void *arg)
{
    struct server *srv = arg;
    struct call c = { .srv = srv, .req = req, .guest = door_guest(srv->door, req) };
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(req);
    const char *raw = uri ? evhttp_uri_get_path(uri) : NULL;
    const char *request_id = request_header(&c, "X-Request-ID");
    size_t len = 0;
    char *path = raw ? evhttp_uridecode(raw, 0, &len) : NULL;

    if (request_id && strlen(request_id) <= REQUEST_ID_MAX)
        reply_header(&c, "X-Request-ID", request_id);
    if (path == NULL || strlen(path) != len)
        reply_error(&c, 404, "not_found", "there is no such path");
    else
        dispatch(&c, path);
    free(path);
}

/* Life. */

static void on_accept_again(evutil_socket_t unused, short what, void *arg)
{
    (void)unused;
    (void)what;
    evconnlistener_enable(arg);
}

/* Out of descriptors: without a rest the loop would spin on the waiting connection. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    struct timeval rest = { .tv_usec = ACCEPT_REST_MS * 1000 };

    (void)arg; /* evhttp's */
    if (event_base_once(evconnlistener_get_base(listener), -1, EV_TIMEOUT, on_accept_again,
                        listener, &rest) == 0)
        evconnlistener_disable(listener);
}

/* On success the descriptor is http's, which closes it. */
static int listen_on(struct evhttp *http, int fd)
{
    struct evhttp_bound_socket *bound = NULL;

    if (listen(fd, SERVER_CONNECTIONS_MAX) == 0)
        bound = evhttp_accept_socket_with_handle(http, fd);
    if (bound == NULL) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    evconnlistener_set_error_cb(evhttp_bound_socket_get_listener(bound), on_accept_error);
    return 0;
}

struct server *server_new(struct event_base *base, int listen_fd, const struct server_keys *keys)
{
    struct server *srv = xcalloc(1, sizeof(*srv));

    srv->keys = keys;
    srv->store = store_new(on_change, srv);
    srv->keeper = keeper_new(base, resume_write, srv->store);
    srv->streams = streams_new(base);
    random_bytes(&srv->nonce, sizeof(srv->nonce));
    srv->eval = event_new(base, -1, 0, on_eval, srv);
    srv->http = evhttp_new(base);
    if (srv->http == NULL || srv->eval == NULL)
        abort(); /* out of memory, as xmalloc would */
    srv->door = door_new(base, srv->http, SERVER_CONNECTIONS_MAX, (IDLE_S + 1) * 1000);
    evhttp_set_allowed_methods(srv->http, ALL_METHODS);
    evhttp_set_max_headers_size(srv->http, HEAD_MAX);
    evhttp_set_max_body_size(srv->http, (ev_ssize_t)INGEST_WIRE_MAX + BODY_SLACK);
    evhttp_set_timeout(srv->http, IDLE_S);
    evhttp_set_gencb(srv->http, on_request, srv);
    if (listen_on(srv->http, listen_fd) < 0) {
        int saved = errno;

        server_free(srv);
        errno = saved;
        return NULL;
    }
    return srv;
}

void server_free(struct server *srv)
{
    if (srv == NULL)
        return;
    evhttp_free(srv->http);
    door_free(srv->door);
    streams_free(srv->streams);
    event_free(srv->eval);
    keeper_free(srv->keeper); /* asks the store once more */
    store_free(srv->store);
    strbuf_free(&srv->events);
    free(srv);
}

void server_configure(struct server *srv, const struct config *cfg)
{
    const char *file = cfg->embedded.state_file;
    bool at_start = !srv->configured;
    struct store_now now = now_both();

    store_configure(srv->store, cfg, now);
    srv->configured = true;
    if (at_start && file)
        resume_from_file(srv->store, file, now);
    settle(srv);
    keeper_configure(srv->keeper, file);
}

void server_counters(const struct server *srv, struct control_stats *out)
{
    const struct counters *k = &srv->counters;

    out->samples_accepted = atomic_load_explicit(&k->samples_accepted, memory_order_relaxed);
    out->samples_refused = atomic_load_explicit(&k->samples_refused, memory_order_relaxed);
    out->auto_breakers = atomic_load_explicit(&k->auto_breakers, memory_order_relaxed);
    out->auto_refused = atomic_load_explicit(&k->auto_refused, memory_order_relaxed);
    out->transitions = atomic_load_explicit(&k->transitions, memory_order_relaxed);
    out->state_written = keeper_counts(srv->keeper).written;
    out->state_failed = keeper_counts(srv->keeper).failed;
    out->streams = streams_count(srv->streams);
    out->streams_cut = streams_cut(srv->streams);
    out->strangers = door_strangers(srv->door);
    out->turned_away = door_turned_away(srv->door);
}
