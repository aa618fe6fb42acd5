#include "proxy/request.h"
#include "base/base.h"
#include "base/strbuf.h"
#include "proxy/answer.h"
#include "proxy/auth.h"
#include "proxy/decide.h"
#include "proxy/exchange.h"
#include "proxy/judge.h"
#include "proxy/proxy.h"
#include "proxy/rewrite.h"
#include "proxy/snapshot.h"
#include "proxy/tunnels.h"
#include <arpa/inet.h>
#include <stdio.h>

static bool request_has_header(void *ctx, struct slice name, struct slice value)
{
    const struct http1_head *h = ctx;
    for (size_t i = 0; i < h->field_count; i++)
        if (slice_eq_nocase(h->fields[i].name, name) && slice_eq(h->fields[i].value, value))
            return true;
    return false;
}

/* ---- From the parsed head ---- */

/* W3C Trace Context: version "-" trace-id "-" parent-id "-" flags; an id of zeros is none. */
static bool traceparent_id(struct slice *s)
{
    bool zeros = true;
    if (s->len < 55 || s->p[2] != '-' || s->p[35] != '-')
        return false;
    for (size_t i = 3; i < 35; i++) {
        char c = s->p[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f'))
            return false;
        zeros &= c == '0';
    }
    *s = (struct slice){ s->p + 3, 32 };
    return !zeros;
}

static void note_trace_id(struct exchange *ex, const struct http1_head *h)
{
    const char *wanted = exchange_config(ex)->samples.trace_header;
    const struct http1_field *f = wanted ? http1_find(h, slice_of(wanted)) : NULL;
    if (!f)
        return;
    struct slice id = f->value;
    if (strcasecmp(wanted, "traceparent") == 0 && !traceparent_id(&id))
        return;
    if (id.len > sizeof(ex->trace_id))
        return;
    for (size_t i = 0; i < id.len; i++)
        if (id.p[i] < 0x21 || id.p[i] > 0x7e)
            return;
    memcpy(ex->trace_id, id.p, id.len);
    ex->trace_len = (uint8_t)id.len;
}

static void copy_cut(char *out, size_t size, struct slice s)
{
    size_t n = s.len < size - 1 ? s.len : size - 1;
    memcpy(out, s.p, n);
    out[n] = '\0';
}

static void note_request(struct exchange *ex, const struct http1_head *h)
{
    copy_cut(ex->method, sizeof(ex->method), h->method);
    ex->client_http10 = h->minor == 0;
    ex->client_close = h->close;
    ex->is_head = slice_eq(h->method, SLICE("HEAD"));
    ex->idempotent = http1_method_idempotent(h->method);
    ex->expect_continue = h->expect_continue && h->minor > 0;
    ex->private_auth = h->auth_per_connection;
    http1_body_init(&ex->request_body, h->framing, h->content_length);
    http1_body_note_hops(&ex->request_body, h);
    ex->rq = ex->request_body.done ? RQ_NONE : RQ_STREAM;
}

static struct slice without_query(struct slice path)
{
    const char *q = memchr(path.p, '?', path.len);
    return q ? (struct slice){ path.p, (size_t)(q - path.p) } : path;
}

/* The value for Max-Forwards upstream, or what it means (RFC 9110 7.6.2). */
enum { FORWARDS_LEFT_ALONE = -1, FORWARDS_ENDED = -2, FORWARDS_MALFORMED = -3 };
#define MAX_FORWARDS_DIGITS 18

static int64_t max_forwards(const struct http1_head *h)
{
    bool counts = slice_eq(h->method, SLICE("TRACE")) || slice_eq(h->method, SLICE("OPTIONS"));
    if (!counts || !h->max_forwards)
        return FORWARDS_LEFT_ALONE;
    for (const struct http1_field *f = h->fields; f < h->max_forwards; f++)
        if (f->id == FIELD_MAX_FORWARDS)
            return FORWARDS_MALFORMED; /* the next hop may count by the other one */
    struct slice digits = h->max_forwards->value;
    if (digits.len == 0 || digits.len > MAX_FORWARDS_DIGITS)
        return FORWARDS_MALFORMED;
    int64_t n = 0;
    for (size_t i = 0; i < digits.len; i++) {
        if (digits.p[i] < '0' || digits.p[i] > '9')
            return FORWARDS_MALFORMED;
        n = n * 10 + (digits.p[i] - '0');
    }
    return n == 0 ? FORWARDS_ENDED : n - 1;
}

/* The head as it came, without what a script in a browser must not learn (RFC 9110 9.3.8). */
static void add_trace(struct strbuf *out, const struct http1_head *h, const char *head,
                      size_t head_len)
{
    size_t line_len = h->field_count ? (size_t)(h->fields[0].line.p - head) : head_len - 2;
    strbuf_add(out, head, line_len);
    for (size_t i = 0; i < h->field_count; i++) {
        const struct http1_field *f = &h->fields[i];
        if (f->id != FIELD_AUTHORIZATION && f->id != FIELD_PROXY_AUTHORIZATION &&
            f->id != FIELD_COOKIE)
            strbuf_add(out, f->line.p, f->line.len);
    }
    strbuf_adds(out, "\r\n");
}

static void reply_as_last_hop(struct exchange *ex, const struct http1_head *h, const char *head,
                              size_t head_len)
{
    bool trace = slice_eq(h->method, SLICE("TRACE"));
    struct strbuf text = STRBUF_INIT;
    if (trace)
        add_trace(&text, h, head, head_len);
    answer_send(ex, &(struct reply){ .status = 200,
                                     .detail = "",
                                     .retry_after_ms = OFF,
                                     .body_type = trace ? "message/http" : "text/plain",
                                     .body = strbuf_str(&text),
                                     .body_len = text.len });
    strbuf_free(&text);
}

/* Appends those of the tokens that may be passed on. */
static void add_listed(const struct string_list *listed, struct slice tokens, char out[UPGRADE_MAX],
                       size_t *len)
{
    struct slice item;
    while (http1_next_item(&tokens, &item)) {
        bool pass = false;
        for (size_t i = 0; i < listed->count; i++)
            pass |= slice_eq_nocase(item, slice_of(listed->items[i]));
        if (!pass || *len + item.len + 3 > UPGRADE_MAX)
            continue;
        *len += (size_t)snprintf(out + *len, UPGRADE_MAX - *len, "%s%.*s", *len ? ", " : "",
                                 (int)item.len, item.p);
    }
}

/* The tokens of Upgrade, in all its lines, that may be passed on; false: none (RFC 9110 7.8). */
static bool listed_upgrades(const struct exchange *ex, const struct http1_head *h,
                            char out[UPGRADE_MAX])
{
    size_t len = 0;
    if (!h->upgrade || h->minor == 0)
        return false;
    for (const struct http1_field *f = h->fields; f <= h->upgrade; f++)
        if (f->id == FIELD_UPGRADE)
            add_listed(&exchange_config(ex)->upgrades, f->value, out, &len);
    return len > 0;
}

/* Builds the head to send, with a small body that is already here behind it. */
static int build_request(struct exchange *ex, const struct http1_head *h, size_t head_len,
                         const struct rewrite_request *o)
{
    struct block_pool *pool = &ex->w->blocks;
    size_t bound = rewrite_bound(h, head_len, o->via, o->authority);
    struct block *b = bound <= BLOCK_BYTES - BLOCK_HEADROOM
                          ? block_get_reserved(pool)
                          : block_get_outsized(pool, (uint32_t)bound);
    if (!b) {
        COUNT(ex->w->c.limit_buffered_total);
        return -1;
    }
    b->end += (uint32_t)rewrite_request(h, o, b->data + b->end, block_space(b));
    struct block *in = ex->down->c.in;
    size_t body = (size_t)ex->request_body.left;
    if (ex->rq == RQ_STREAM && ex->request_body.framing == FRAMING_LENGTH &&
        ex->request_body.left <= block_len(in) && body <= block_space(b) &&
        block_len(b) + body <= EXCHANGE_REPLAY_MAX) {
        block_add(b, block_bytes(in), body);
        in->start += (uint32_t)body;
        ex->request_body.left = 0;
        ex->request_body.done = true;
        ex->request_bytes = body;
        ex->rq = RQ_DONE;
    }
    ex->head = b;
    ex->head_start = b->start;
    ex->replayable = ex->idempotent && ex->rq != RQ_STREAM;
    return 0;
}

static const char *turned_away_detail(enum turned_away why)
{
    switch (why) {
    case TURNED_AWAY_LIMIT:
        return "limits.connections is reached";
    case TURNED_AWAY_CLIENT_LIMIT:
        return "limits.connections_per_client is reached";
    case TURNED_AWAY_ADDRESS:
        return "this client address is not in allow_clients";
    case TURNED_AWAY_NO:
        break;
    }
    return "";
}

/* False: answered. */
static bool admit(struct exchange *ex)
{
    enum turned_away why = (enum turned_away)ex->down->turned_away;
    if (why == TURNED_AWAY_NO)
        return true;
    ex->close_after = true;
    if (why == TURNED_AWAY_ADDRESS)
        answer_error(ex, 403, PERR_HTTP_REQUEST_DENIED, turned_away_detail(why));
    else
        answer_error(ex, 503, PERR_CONNECTION_LIMIT_REACHED, turned_away_detail(why));
    return false;
}

static bool is_authenticated(const struct exchange *ex, const struct http1_head *h)
{
    const struct config *cfg = exchange_config(ex);
    const struct http1_field *credentials = NULL;
    for (size_t i = 0; i < h->field_count; i++) {
        if (h->fields[i].id != FIELD_PROXY_AUTHORIZATION)
            continue;
        if (credentials)
            return false; /* whose? */
        credentials = &h->fields[i];
    }
    return credentials && auth_check(cfg->access.users, cfg->access.user_count, credentials->value);
}

/* access.auth_file: on the explicit listeners only, as a redirected client knows of no proxy,
 * and once per tunnel.  False: answered. */
static bool authenticate(struct exchange *ex, const struct http1_head *h)
{
    const struct config *cfg = exchange_config(ex);
    if (!cfg->access.auth_file || ex->down->original || ex->down->inner || is_authenticated(ex, h))
        return true;
    COUNT(ex->w->c.client_errors_unauthenticated);
    ex->is_connect = slice_eq(h->method, SLICE("CONNECT")); /* what is behind it is no request */
    answer_send(ex, &(struct reply){ .status = 407,
                                     .error = PERR_HTTP_REQUEST_DENIED,
                                     .detail = "a name and token of access.auth_file are needed",
                                     .retry_after_ms = OFF,
                                     .authenticate = true });
    return false;
}

static void bad_request(struct exchange *ex, int status, const char *detail)
{
    COUNT(ex->w->c.client_errors_bad_request);
    /* What follows a head that we do not understand is not understood either. */
    ex->close_after = true;
    answer_error(ex, status, PERR_HTTP_REQUEST_ERROR, detail);
}

/* A tunnel's place is asked for before the gate, as a probe's turn spent on who then has none
 * would be lost; the gate's answer comes first all the same.  False: answered. */
static bool tunnel_passes(struct exchange *ex, struct slice method)
{
    ex->no_place = !tunnels_reserve(ex);
    if (!decide_pass(ex, method))
        return false;
    if (!ex->no_place)
        return true;
    COUNT(ex->w->c.limit_tunnels);
    ex->close_after |= ex->is_connect;
    answer_error(ex, 503, PERR_CONNECTION_LIMIT_REACHED, "limits.tunnels is reached");
    return false;
}

/* False: answered. */
static bool parse_connect(struct exchange *ex, const struct http1_head *h, struct authority *a)
{
    const struct config *cfg = exchange_config(ex);
    ex->is_connect = true;
    exchange_set_mode(ex, TRAFFIC_CONNECT);
    enum target_error err = authority_parse(a, h->target, 0);
    if (err) {
        bad_request(ex, 400, target_error_text(err));
        return false;
    }
    if (ex->rq != RQ_NONE) {
        bad_request(ex, 400, "a CONNECT request has no body");
        return false;
    }
    ex->close_after = true;
    if (!port_list_has(&cfg->access.connect_ports, a->port)) {
        COUNT(ex->w->c.client_errors_forbidden);
        answer_error(ex, 403, PERR_HTTP_REQUEST_DENIED, "the port is not in access.connect_ports");
        return false;
    }
    ex->close_after = ex->client_close;
    return true;
}

/* Inside a CONNECT that carries plain HTTP the target is a path; where it goes, and by which
 * route, the CONNECT has said.  False: answered. */
static bool parse_inner(struct exchange *ex, const struct http1_head *h, struct authority *a,
                        struct slice *path)
{
    *a = ex->down->inner->to;
    *path = h->target;
    if (h->host)
        a->raw = h->host->value;
    if (slice_eq(h->target, SLICE("*"))) {
        *path = (struct slice){ h->target.p, 0 };
    } else if (h->target.p[0] != '/') {
        bad_request(ex, 400, "inside this tunnel the request target must be a path");
        return false;
    }
    return true;
}

/* A redirected request: routed by its Host, sent to the address it was meant for.  False:
 * answered. */
static bool parse_redirected(struct exchange *ex, const struct http1_head *h, struct authority *a,
                             struct slice *path)
{
    const struct address *to = ex->down->original;
    uint16_t port = ntohs(to->sa.sa_family == AF_INET6 ? to->in6.sin6_port : to->in.sin_port);
    char ip[INET6_ADDRSTRLEN], text[INET6_ADDRSTRLEN + 2];
    enum target_error err = TARGET_OK;
    *path = h->target;
    if (h->target.p[0] != '/' && !slice_eq(h->target, SLICE("*"))) {
        err = target_parse_absolute(a, path, h->target);
    } else if (h->host && h->host->value.len > 0) {
        err = authority_parse(a, h->host->value, port);
    } else {
        address_text(to, ip, sizeof(ip));
        int n = snprintf(text, sizeof(text), to->sa.sa_family == AF_INET6 ? "[%s]" : "%s", ip);
        err = authority_parse(a, (struct slice){ text, (size_t)n }, port);
        a->raw = h->host ? h->host->value : (struct slice){ a->host, a->host_len };
    }
    if (err) {
        bad_request(ex, err == TARGET_HTTPS ? 501 : 400, target_error_text(err));
        return false;
    }
    if (h->target.p[0] == '*')
        path->len = 0;
    a->port = port; /* what the client says of the port does not change where it goes */
    a->fixed = to;
    return true;
}

/* Of a known target nothing but a->raw is set.  False: answered. */
static bool parse_target(struct exchange *ex, const struct http1_head *h, struct authority *a,
                         struct slice *path, struct target **known)
{
    struct authority host;
    *known = NULL;
    *path = (struct slice){ h->target.p, 0 };
    if (ex->down->original) {
        if (!parse_redirected(ex, h, a, path))
            return false;
    } else if (ex->down->inner) {
        if (!parse_inner(ex, h, a, path))
            return false;
    } else if (slice_eq(h->method, SLICE("CONNECT"))) {
        return parse_connect(ex, h, a);
    } else {
        enum target_error err = target_split_absolute(&a->raw, path, h->target);
        if (!err)
            *known = target_recall(ex->w, a->raw);
        if (!err && !*known)
            err = authority_parse(a, a->raw, 80);
        if (err) {
            bad_request(ex, err == TARGET_HTTPS ? 501 : 400, target_error_text(err));
            return false;
        }
        if (h->host && slice_eq(h->host->value, a->raw))
            return true; /* read a moment ago */
    }
    /* An empty Host names nobody (RFC 9112 3.2); here it is known otherwise where it goes. */
    bool told = ex->down->original || ex->down->inner;
    if (h->host && !(told && h->host->value.len == 0) &&
        authority_parse(&host, h->host->value, 80)) {
        bad_request(ex, 400, http1_error_text(HTTP1_BAD_HOST));
        return false;
    }
    return true;
}

static void find_route(struct exchange *ex, struct http1_head *h, struct target *target,
                       struct slice path)
{
    struct slice bare = without_query(path);
    if (bare.len == 0)
        bare = SLICE("/");
    if (!ex->is_connect)
        copy_cut(ex->path, sizeof(ex->path), bare);
    ex->target = target;
    struct route_request rq = { .method = h->method,
                                .path = bare,
                                .has_header = ex->is_connect ? NULL : request_has_header,
                                .ctx = h };
    ex->route = target_route(ex->target, ex->w, ex->snap, &rq);
    if (ex->route->cfg->router)
        note_trace_id(ex, h);
}

static void open_tunnel(struct exchange *ex)
{
    conn_release_empty(&ex->down->c);
    ex->opaque = true;
    judge_begin(ex);
    exchange_enter(ex, EX_CONNECT);
    exchange_connect(ex, true);
}

void request_begin_opaque(struct downstream *d, const struct authority *a)
{
    struct exchange *ex = exchange_new(d);
    struct authority to = *a;
    static struct http1_head none; /* no fields to match */
    ex->is_connect = ex->silent = ex->close_after = true;
    to.fixed = d->original;
    if (!admit(ex))
        return;
    find_route(ex, &none, target_get(ex->w, &to), SLICE("/"));
    if (tunnel_passes(ex, SLICE("CONNECT")))
        open_tunnel(ex);
}

void request_begin(struct downstream *d, struct http1_head *h, size_t head_len)
{
    struct exchange *ex = exchange_new(d);
    struct authority a;
    struct target *target;
    struct slice path;
    const char *head = (const char *)block_bytes(d->c.in);
    note_request(ex, h);
    /* The bytes stay where they are until the next read: h goes on pointing at them. */
    d->c.in->start += (uint32_t)head_len;
    if (!admit(ex) || !authenticate(ex, h) || !parse_target(ex, h, &a, &path, &target))
        return;
    int64_t forwards = max_forwards(h);
    if (forwards == FORWARDS_MALFORMED) {
        bad_request(ex, 400, "Max-Forwards must be one number of at most 18 digits");
        return;
    }
    if (forwards == FORWARDS_ENDED) {
        reply_as_last_hop(ex, h, head, head_len);
        return;
    }
    if (target)
        target_take(ex->w, target);
    else
        target = target_get(ex->w, &a);
    find_route(ex, h, target, path);
    ex->upgrade = !ex->is_connect && listed_upgrades(ex, h, ex->offered);
    bool passes =
        ex->is_connect || ex->upgrade ? tunnel_passes(ex, h->method) : decide_pass(ex, h->method);
    if (!passes)
        return;
    if (ex->is_connect) {
        open_tunnel(ex);
        return;
    }
    struct rewrite_request o = { .authority = a.raw,
                                 .path = path,
                                 .via = exchange_config(ex)->via,
                                 .max_forwards = forwards,
                                 .upgrade = ex->upgrade ? ex->offered : NULL };
    if (build_request(ex, h, head_len, &o) < 0) {
        answer_error(ex, 503, PERR_CONNECTION_LIMIT_REACHED, "limits.buffered_total is reached");
        return;
    }
    conn_release_empty(&d->c);
    if (ex->rq != RQ_STREAM)
        conn_settled(&d->c);
    judge_begin(ex);
    exchange_enter(ex, EX_CONNECT);
    exchange_connect(ex, false);
}

void request_begin_bad(struct downstream *d, int status, enum proxy_error error, const char *detail)
{
    struct exchange *ex = exchange_new(d);
    ex->close_after = true;
    answer_error(ex, status, error, detail);
}
