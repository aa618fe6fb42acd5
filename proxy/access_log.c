#include "proxy/access_log.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "proxy/exchange.h"
#include "proxy/snapshot.h"
#include "proxy/tunnel.h"
#include "sync/breakers.h"
#include <arpa/inet.h>

/* A line is made on the stack: writing one allocates nothing. */
#define LINE_MAX_BYTES 8000

static bool wanted(const struct exchange *ex, enum request_result result)
{
    switch (ex->snap->cfg->access_log.mode) {
    case ACCESS_OFF:
        return false;
    case ACCESS_ALL:
        return true;
    case ACCESS_ERRORS:
        break;
    }
    bool judged_bad = ex->recorded && !ex->attempt.ok;
    return (result != RESULT_FORWARDED && result != RESULT_BYPASSED) || ex->status >= 500 ||
           judged_bad;
}

/* The worker's number, then the request's own in hexadecimal. */
static void add_request_id(struct json *j, const struct exchange *ex)
{
    static const char hex[] = "0123456789abcdef";
    char data[32];
    struct strbuf id = { .data = data, .cap = sizeof(data), .max = sizeof(data) - 1 };
    strbuf_addu(&id, ex->w->index);
    strbuf_addc(&id, '-');
    int shift = 60;
    while (shift > 0 && ex->serial >> shift == 0)
        shift -= 4;
    for (; shift >= 0; shift -= 4)
        strbuf_addc(&id, hex[ex->serial >> shift & 15]);
    json_strn(j, "request_id", id.data, id.len);
}

static void add_client(struct json *j, const struct address *a)
{
    char data[INET6_ADDRSTRLEN + sizeof("[]:65535")];
    struct strbuf text = { .data = data, .cap = sizeof(data), .max = sizeof(data) - 1 };
    char ip[INET6_ADDRSTRLEN];
    address_text(a, ip, sizeof(ip));
    bool v6 = a->sa.sa_family == AF_INET6;
    if (v6)
        strbuf_addc(&text, '[');
    strbuf_adds(&text, ip);
    strbuf_adds(&text, v6 ? "]:" : ":");
    strbuf_addu(&text, ntohs(v6 ? a->in6.sin6_port : a->in.sin_port));
    json_strn(j, "client", text.data, text.len);
}

static void add_upstream(struct json *j, const struct exchange *ex)
{
    char ip[INET6_ADDRSTRLEN];
    if (!ex->upstream_known)
        return;
    address_text(&ex->upstream_address, ip, sizeof(ip));
    json_str(j, "upstream_ip", ip);
    json_int(j, "upstream_port", ex->target ? ex->target->port : 0);
    json_bool(j, "upstream_reused", ex->reused);
}

static void add_gate(struct json *j, const struct exchange *ex)
{
    if (ex->route)
        json_str(j, "route", ex->route->cfg->name);
    if (ex->gate.doubt != DOUBT_NONE)
        json_str(j, "state_unknown", gate_doubt_name(ex->gate.doubt));
    else if (ex->gate.unknown_name)
        json_str(j, "state_unknown", "unknown_name");
    if (!ex->breaker) {
        if (ex->gate.doubt != DOUBT_NONE) {
            json_str(j, "breaker", GATE_UNRESOLVED_NAME);
            json_str(j, "decision", gate_verdict_name(ex->verdict));
        }
        return;
    }
    size_t len;
    const char *name = breakers_name(ex->w->proxy->breakers, ex->breaker, &len);
    struct breaker_view v = breaker_unpack(breakers_load(ex->w->proxy->breakers, ex->breaker));
    json_strn(j, "breaker", name, len);
    json_str(j, "breaker_state", breaker_state_name(v.state));
    json_str(j, "decision", gate_verdict_name(ex->verdict));
    if (ex->gate.overridden)
        json_bool(j, "override", true);
}

static void add_times(struct json *j, const struct exchange *ex)
{
    int64_t now_us = worker_now_us(ex->w);
    json_num(j, "duration_ms", (double)(now_us - ex->start_us) / 1000);
    if (ex->connected_us > 0)
        json_num(j, "connect_ms", (double)ex->connected_us / 1000);
    if (ex->first_byte_us)
        json_num(j, "ttfb_ms", (double)(ex->first_byte_us - ex->start_us) / 1000);
}

void access_log_exchange(const struct exchange *ex, enum request_result result)
{
    if (!wanted(ex, result))
        return;
    char line[LINE_MAX_BYTES + 1];
    struct strbuf sb = { .data = line, .cap = sizeof(line), .max = LINE_MAX_BYTES };
    struct json j = { .sb = &sb };
    char time[CLOCK_RFC3339_SIZE];
    clock_rfc3339(ex->start_wall_ms * 1000, time);
    json_open(&j, NULL, '{');
    add_request_id(&j, ex);
    json_str(&j, "time", time);
    json_str(&j, "type", "access");
    json_str(&j, "mode", traffic_mode_name(ex->mode));
    json_str(&j, "method", ex->method);
    if (ex->target)
        json_strn(&j, "authority", ex->target->key, ex->target->authority_len);
    if (ex->tunnel && ex->tunnel->sni)
        json_str(&j, "tls_sni", ex->tunnel->sni);
    if (ex->path[0])
        json_str(&j, "path", ex->path);
    json_int(&j, "status", (int64_t)ex->status);
    if (ex->opaque)
        json_str(&j, "tier", "opaque");
    json_str(&j, "result", request_result_name(result));
    if (ex->attempt_begun && ex->attempt.fixed) {
        json_str(&j, "outcome", outcome_name(ex->attempt.outcome));
        if (!ex->attempt.neutral)
            json_bool(&j, "ok", ex->attempt.ok);
        if (ex->attempt.rule != RULE_NONE)
            json_str(&j, "rule", rule_name(ex->route->cfg, ex->attempt.rule));
    }
    if (ex->error != PERR_NONE) {
        json_str(&j, "error", proxy_error_name(ex->error));
        json_str(&j, "detail", ex->detail);
    }
    json_str(&j, "origin", ex->error != PERR_NONE || !ex->head_sent ? "proxy" : "upstream");
    add_gate(&j, ex);
    add_upstream(&j, ex);
    add_times(&j, ex);
    json_int(&j, "bytes_up", (int64_t)ex->request_bytes);
    json_int(&j, "bytes_down", (int64_t)ex->response_bytes);
    add_client(&j, &ex->down->client);
    if (ex->trace_len)
        json_strn(&j, "trace_id", ex->trace_id, ex->trace_len);
    json_close(&j);
    if (strbuf_ok(&sb))
        log_access(strbuf_str(&sb), sb.len);
}
