#include "proxy/explain.h"
#include "base/base.h"
#include "base/intern.h"
#include "base/strbuf.h"
#include "proxy/gate.h"
#include "proxy/probe.h"
#include "proxy/route.h"
#include "proxy/self.h"
#include "proxy/switches.h"
#include <arpa/inet.h>
#include <math.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <strings.h>

#define PASSED_OVER_MAX 20

const char *explain_verdict_name(enum explain_verdict v)
{
    switch (v) {
    case EXPLAIN_ALLOWED:
        return "allowed";
    case EXPLAIN_BY_CHANCE:
        return "by_chance";
    case EXPLAIN_REJECTED:
        return "rejected";
    case EXPLAIN_UNKNOWN:
        return "unknown";
    }
    return "?";
}

/* ---- What is asked ---- */

static bool has_prefix(struct slice s, struct slice prefix)
{
    return s.len >= prefix.len && slice_eq_nocase((struct slice){ s.p, prefix.len }, prefix);
}

static size_t authority_end(struct slice s)
{
    size_t n = 0;
    while (n < s.len && s.p[n] != '/' && s.p[n] != '?' && s.p[n] != '#')
        n++;
    return n;
}

/* path: without query and fragment. */
static enum target_error parse(const struct explain_question *q, struct explanation *e,
                               struct slice *path)
{
    static const struct slice https = SLICE("https://"), http = SLICE("http://");
    bool tls = has_prefix(q->url, https), plain = has_prefix(q->url, http);
    *path = SLICE("/");
    e->is_connect = tls || slice_eq(q->method, SLICE("CONNECT"));
    if (!tls && !plain && e->is_connect)
        return authority_parse(&e->to, q->url, 0);
    if (!tls && !plain)
        return TARGET_BAD_SCHEME;
    size_t skip = tls ? https.len : http.len;
    struct slice rest = { q->url.p + skip, q->url.len - skip };
    size_t n = authority_end(rest), end = n;
    while (end < rest.len && rest.p[end] != '?' && rest.p[end] != '#')
        end++;
    if (end > n)
        *path = (struct slice){ rest.p + n, end - n };
    return authority_parse(&e->to, (struct slice){ rest.p, n }, tls ? 443 : 80);
}

struct asked_headers {
    const struct name_value_list *given;
    struct slice authority; /* of the URL: what clients send as Host, unless it is given */
};

/* They leave out the port of the scheme, written in the URL or not. */
static struct slice without_default_port(struct slice authority)
{
    static const struct slice port = SLICE(":80");
    size_t n = authority.len < port.len ? 0 : authority.len - port.len;
    bool ends = slice_eq((struct slice){ authority.p + n, authority.len - n }, port);
    return ends ? (struct slice){ authority.p, n } : authority;
}

static bool question_has_header(void *ctx, struct slice name, struct slice value)
{
    const struct asked_headers *h = ctx;
    bool given = false;
    for (size_t i = 0; i < h->given->count; i++) {
        if (!slice_eq_nocase(slice_of(h->given->items[i].name), name))
            continue;
        if (slice_eq(slice_of(h->given->items[i].value), value))
            return true;
        given = true;
    }
    return !given && slice_eq_nocase(name, SLICE("host")) && slice_eq(h->authority, value);
}

/* ---- The way ---- */

static void pass_over(struct explanation *e, const struct route_candidates *c)
{
    for (size_t i = 0; i < c->count && c->items[i] != e->route; i++) {
        if (e->passed_over.count == PASSED_OVER_MAX)
            return;
        e->passed_over.items = xrealloc(e->passed_over.items,
                                        (e->passed_over.count + 1) * sizeof(*e->passed_over.items));
        e->passed_over.items[e->passed_over.count++] = c->items[i]->name;
    }
}

static void find_route(const struct explain_world *w, const struct explain_question *q,
                       struct slice path, struct explanation *e)
{
    struct slice host = { e->to.host, e->to.host_len };
    struct asked_headers headers = { q->headers, without_default_port(e->to.raw) };
    struct route_candidates c;
    struct route_request rq = { .method = e->is_connect ? SLICE("CONNECT") : q->method,
                                .path = path,
                                .has_header = e->is_connect ? NULL : question_has_header,
                                .ctx = &headers };
    route_candidates_init(w->table, host, e->to.port, &c);
    e->route = route_match(&c, &rq);
    pass_over(e, &c);
    e->is_fallback = e->route == NULL;
    if (e->is_fallback)
        e->route = w->cfg->fallback;
    else
        e->host_pattern = route_host_pattern(e->route, host);
    if (!c.named)
        e->bypass_entry = bypass_find(&w->cfg->bypass, host, e->to.port);
    route_candidates_free(&c);
}

/* limits.auto_breakers is reached, and this host is not among them. */
static bool has_no_place(const struct explain_world *w, struct slice label)
{
    return w->hosts && !intern_find(w->hosts, label.p, label.len) &&
           intern_count(w->hosts) >= w->cfg->limits.auto_breakers;
}

static bool has_long_name(const struct route *r, struct slice label)
{
    char name[HOST_MAX + 1];
    size_t len;
    for (size_t i = 0; i < r->breakers.count; i++)
        if (authority_expand(r->breakers.items[i], label, name, sizeof(name), &len) < 0)
            return true;
    return false;
}

static void find_breakers(const struct explain_world *w, struct explanation *e)
{
    char text[HOST_MAX + 10];
    struct slice label = { text, authority_label(&e->to, text, sizeof(text)) };
    e->host_left_out = has_no_place(w, label) || has_long_name(e->route, label);
    for (size_t i = 0; i < e->route->breakers.count; i++) {
        const char *name = e->route->breakers.items[i];
        struct explained_breaker *b = &e->breakers[e->breaker_count];
        if ((e->host_left_out && strstr(name, "{host}")) ||
            authority_expand(name, label, b->name, sizeof(b->name), &b->len) < 0)
            continue; /* as for a request: only the names that hold no {host} are left */
        b->name[b->len] = '\0';
        b->id = w->breakers ? breakers_find(w->breakers, b->name, b->len) : 0;
        e->breaker_count++;
    }
}

/* ---- The verdict ---- */

static void conclude(struct explanation *e, enum explain_verdict v, double probability,
                     const char *why)
{
    e->verdict = v;
    e->probability = probability;
    e->why = why;
}

/* By its method; the size of its body is not known. */
static bool may_probe(const struct explain_question *q, const struct explanation *e)
{
    struct probe_limits l = probe_limits_of(e->route);
    struct slice method = e->is_connect ? SLICE("CONNECT") : q->method;
    l.max_body = OFF;
    return probe_eligible(&l, method.p, method.len, -1);
}

static struct gate_result ask_gate(const struct explain_world *w, const struct explain_question *q,
                                   const struct explanation *e, uint32_t draw)
{
    uint64_t words[MAX_BREAKERS] = { 0 }, locals[MAX_BREAKERS] = { 0 };
    for (unsigned i = 0; i < e->breaker_count; i++) {
        if (!e->breakers[i].id)
            continue;
        words[i] = breakers_load(w->breakers, e->breakers[i].id);
        locals[i] = breakers_local(w->breakers, e->breakers[i].id);
    }
    return gate_check(&(struct gate_input){ .words = words,
                                            .locals = locals,
                                            .now_ms = w->now_ms,
                                            .count = e->breaker_count,
                                            .flags = e->flags,
                                            .fail_closed = e->route->fail_mode == FAIL_CLOSED,
                                            .ineligible = !may_probe(q, e),
                                            .unresolved = e->unresolved,
                                            .draw = draw });
}

static const char *half_open_why(const struct explanation *e)
{
    return e->bound_count ? "half-open, and bounds limit admission further"
                          : "half-open, and every request may pass";
}

static const char *verdict_why(const struct explanation *e, const struct gate_result *r)
{
    switch (r->verdict) {
    case GATE_ALLOW:
        return r->bypassed       ? "bypass is on, so nothing is gated"
               : r->half_open    ? half_open_why(e)
               : r->unknown_name ? "no breaker is open, and one the control plane does not have"
                                 : "every breaker is closed";
    case GATE_ALLOW_FAIL_OPEN:
        return e->unresolved ? "the breakers are selected by metadata, not loaded yet, and "
                               "fail_mode is open"
                             : "the state is not known, and fail_mode is open";
    case GATE_ALLOW_OVERRIDE:
        return "an override holds the breaker closed";
    case GATE_DENY_OPEN:
        return "the breaker is open";
    case GATE_DENY_HALF_OPEN:
        return r->bound == BOUND_ELIGIBLE
                   ? "the breaker is half-open, and half_open.eligible.methods leaves this out"
                   : "the breaker is half-open and admits nobody";
    case GATE_DENY_UNKNOWN:
        return e->unresolved ? "the breakers are selected by metadata, not loaded yet, and "
                               "fail_mode is closed"
                             : "the state is not known, and fail_mode is closed";
    case GATE_DENY_OVERRIDE:
        return "an override holds the breaker open";
    }
    return "?";
}

/* What the route sets beyond the server's allow_rate. */
static void find_bounds(struct explanation *e)
{
    const struct route *r = e->route;
    const struct {
        const char *key;
        bool set;
    } bounds[EXPLAIN_BOUNDS_MAX] = {
        { "half_open.eligible.max_body", r->half_open.eligible.max_body != OFF },
        { "half_open.max_concurrent", r->half_open.max_concurrent != OFF },
        { "half_open.max_per_second", r->half_open.max_per_second != OFF },
        { "half_open.fleet.max_per_second", r->half_open.fleet.max_per_second != OFF },
    };
    for (size_t i = 0; i < ARRAY_LEN(bounds); i++)
        if (bounds[i].set)
            e->bounds[e->bound_count++] = bounds[i].key;
}

static void ask(const struct explain_world *w, const struct explain_question *q,
                struct explanation *e)
{
    struct gate_result luckiest = ask_gate(w, q, e, 0), unluckiest = ask_gate(w, q, e, UINT32_MAX);
    bool allowed = gate_allows(luckiest.verdict);
    bool by_chance = allowed != gate_allows(unluckiest.verdict);
    const struct explained_breaker *by =
        &e->breakers[by_chance ? unluckiest.breaker : luckiest.breaker];
    if (!luckiest.bypassed && (luckiest.verdict != GATE_ALLOW || luckiest.half_open))
        e->decided_by = e->unresolved ? GATE_UNRESOLVED_NAME : by->name;
    if (allowed && luckiest.half_open && e->route->mode == MODE_ENFORCE)
        find_bounds(e);
    if (!by_chance) {
        conclude(e, allowed ? EXPLAIN_ALLOWED : EXPLAIN_REJECTED, allowed,
                 verdict_why(e, &luckiest));
    } else {
        struct breaker_view v = breaker_unpack(breakers_load(w->breakers, by->id));
        conclude(e, EXPLAIN_BY_CHANCE, (double)v.rate / (double)BREAKER_RATE_ONE,
                 e->bound_count ? "the breaker is half-open, and bounds limit admission further"
                                : "the breaker is half-open");
    }
    if (e->route->mode == MODE_SHADOW && e->verdict != EXPLAIN_ALLOWED)
        conclude(e, EXPLAIN_ALLOWED, 1, "mode is shadow: a refusal would only be counted");
}

/* Where the URL has an address, what a connection to it would meet; NULL: nothing. */
static const char *forbidden(const struct explain_world *w, const struct authority *to)
{
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } a = { 0 };
    if (inet_pton(AF_INET, to->host, &a.in.sin_addr) == 1) {
        a.in.sin_family = AF_INET;
        a.in.sin_port = htons(to->port);
    } else if (inet_pton(AF_INET6, to->host, &a.in6.sin6_addr) == 1) {
        a.in6.sin6_family = AF_INET6;
        a.in6.sin6_port = htons(to->port);
    } else {
        return NULL;
    }
    switch (w->self ? self_check(w->self, &a.sa) : SELF_NO) {
    case SELF_PROXY:
    case SELF_TRANSPARENT:
        return "the destination is this proxy (502)";
    case SELF_TELEMETRY:
    case SELF_ADMIN:
        return "the destination is a private port of this proxy (502)";
    case SELF_NO:
        break;
    }
    return cidr_contains_destination(&w->cfg->access.deny_destinations, &a.sa)
               ? "the destination is in access.deny_destinations (502)"
               : NULL;
}

/* After the gate, as for a request. */
static void consider_address(const struct explain_world *w, struct explanation *e)
{
    const char *why = e->verdict == EXPLAIN_REJECTED ? NULL : forbidden(w, &e->to);
    if (!why)
        return;
    conclude(e, EXPLAIN_REJECTED, 0, why);
    e->decided_by = NULL;
    e->bound_count = 0;
}

static void judge(const struct explain_world *w, const struct explain_question *q,
                  struct explanation *e)
{
    if (e->is_connect && !port_list_has(&w->cfg->access.connect_ports, e->to.port))
        conclude(e, EXPLAIN_REJECTED, 0, "the port is not in access.connect_ports");
    else if (e->bypass_entry)
        conclude(e, EXPLAIN_ALLOWED, 1, "the host is in the bypass list: ungated, no samples");
    else if (e->route->mode == MODE_OFF)
        conclude(e, EXPLAIN_ALLOWED, 1, "mode is off: ungated, no samples");
    else if (e->breaker_count == 0 && !e->unresolved)
        conclude(e, EXPLAIN_ALLOWED, 1,
                 e->host_left_out && e->route->breakers.count
                     ? "no breaker of its own: limits.auto_breakers is reached, or a name too long"
                 : e->is_fallback ? "no route matches, so no breaker guards it"
                                  : "the route names no breaker");
    else if (!w->breakers)
        conclude(e, EXPLAIN_UNKNOWN, NAN, "it depends on breaker states, which are not known here");
    else
        ask(w, q, e);
    consider_address(w, e);
}

int explain(const struct explain_world *w, const struct explain_question *q,
            struct explanation *out, const char **why)
{
    struct slice path;
    memset(out, 0, sizeof(*out));
    enum target_error err = parse(q, out, &path);
    if (err) {
        *why = err == TARGET_BAD_SCHEME ? "the URL must begin with http:// or https://"
                                        : target_error_text(err);
        return -1;
    }
    out->flags = w->breakers ? breakers_flags(w->breakers) : 0;
    find_route(w, q, path, out);
    find_breakers(w, out);
    /* Without a proxy no list has come, whatever the configuration says of it. */
    out->unresolved = out->route->breakers_unresolved ||
                      (!w->breakers && out->route->breakers_metadata.count > 0);
    judge(w, q, out);
    return 0;
}

void explanation_free(struct explanation *e)
{
    free(e->passed_over.items); /* the names are the configuration's */
    e->passed_over = (struct string_list){ 0 };
}

/* ---- As JSON ---- */

static bool any_awaited(const struct explain_world *w, const struct explanation *e)
{
    for (unsigned i = 0; i < e->breaker_count; i++) {
        uint32_t id = e->breakers[i].id;
        struct breaker_view v = breaker_unpack(id ? breakers_load(w->breakers, id) : 0);
        if (v.state == BREAKER_UNKNOWN && (breaker_is_awaited(v) || e->flags & STATE_AWAITED))
            return true;
    }
    return false;
}

static const char *states_name(const struct explain_world *w, const struct explanation *e)
{
    unsigned flags = e->flags;
    if (!w->breakers)
        return "not asked";
    return !(flags & STATE_SYNCED) ? "never synced"
           : e->unresolved         ? "metadata not loaded"
           : flags & STATE_STALE   ? "stale"
           : any_awaited(w, e)     ? "awaited"
                                   : "known";
}

static void write_override(struct json *j, const struct explain_world *w, uint32_t id)
{
    const struct held *h = w->switches && id ? switches_of(w->switches, id) : NULL;
    if (!h || h->until_ms <= w->now_ms) {
        json_null(j, "override");
        return;
    }
    json_open(j, "override", '{');
    json_str(j, "state", breaker_state_name(h->state));
    json_int(j, "ends_in_ms", h->until_ms - w->now_ms);
    json_str(j, "reason", h->reason);
    json_close(j);
}

static void write_breaker(struct json *j, const struct explain_world *w,
                          const struct explained_breaker *b)
{
    struct breaker_view v = breaker_unpack(b->id ? breakers_load(w->breakers, b->id) : 0);
    json_open(j, NULL, '{');
    json_strn(j, "name", b->name, b->len);
    json_str(j, "state", breaker_state_name(v.state));
    if (v.state == BREAKER_HALF_OPEN && !v.rate_null)
        json_num(j, "allow_rate", (double)v.rate / (double)BREAKER_RATE_ONE);
    else
        json_null(j, "allow_rate");
    write_override(j, w, b->id);
    json_close(j);
}

static void write_router(struct json *j, const struct explanation *e)
{
    char text[HOST_MAX + 10], name[2 * HOST_MAX];
    struct slice label = { text, authority_label(&e->to, text, sizeof(text)) };
    size_t len;
    if (!e->route->router)
        json_null(j, "router");
    else if (authority_expand(e->route->router, label, name, sizeof(name), &len) == 0)
        json_strn(j, "router", name, len);
    else
        json_str(j, "router", e->route->router);
}

static void write_selector(struct json *j, const struct name_value_list *pairs)
{
    if (pairs->count == 0) {
        json_null(j, "breakers_metadata");
        return;
    }
    json_open(j, "breakers_metadata", '{');
    for (size_t i = 0; i < pairs->count; i++)
        json_str(j, pairs->items[i].name, pairs->items[i].value);
    json_close(j);
}

static void write_route(struct json *j, const struct explanation *e)
{
    json_open(j, "route", '{');
    json_str(j, "name", e->route->name);
    if (e->is_fallback)
        json_null(j, "index");
    else
        json_int(j, "index", (int64_t)e->route->index);
    json_str(j, "host_pattern", e->host_pattern);
    json_open(j, "passed_over", '[');
    for (size_t i = 0; i < e->passed_over.count; i++)
        json_str(j, NULL, e->passed_over.items[i]);
    json_close(j);
    write_selector(j, &e->route->breakers_metadata);
    json_bool(j, "breakers_loaded", !e->unresolved);
    write_router(j, e);
    json_str(j, "mode", mode_name(e->route->mode));
    json_str(j, "fail_mode", e->route->fail_mode == FAIL_CLOSED ? "closed" : "open");
    json_close(j);
}

void explain_write(const struct explain_world *w, const struct explain_question *q,
                   const struct explanation *e, struct strbuf *out)
{
    struct json j = { .sb = out };
    char target[HOST_MAX + 10];
    struct slice method = e->is_connect ? SLICE("CONNECT") : q->method;
    json_open(&j, NULL, '{');
    json_strn(&j, "url", q->url.p, q->url.len);
    json_strn(&j, "method", method.p, method.len);
    json_strn(&j, "target", target, authority_key(&e->to, target, sizeof(target)));
    write_route(&j, e);
    json_str(&j, "bypass_entry", e->bypass_entry);
    json_bool(&j, "bypass_on", e->flags & STATE_BYPASS);
    json_str(&j, "states", states_name(w, e));
    json_open(&j, "breakers", '[');
    for (unsigned i = 0; i < e->breaker_count; i++)
        write_breaker(&j, w, &e->breakers[i]);
    json_close(&j);
    json_str(&j, "verdict", explain_verdict_name(e->verdict));
    json_num(&j, "probability", e->probability);
    json_str(&j, "why", e->why);
    json_open(&j, "bounded_by", '[');
    for (unsigned i = 0; i < e->bound_count; i++)
        json_str(&j, NULL, e->bounds[i]);
    json_close(&j);
    json_str(&j, "decided_by", e->decided_by);
    json_close(&j);
}
