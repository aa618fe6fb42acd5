#include "proxy/page.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "config/resolve.h"
#include "proxy/proxy.h"
#include "proxy/snapshot.h"
#include "proxy/status.h"
#include "proxy/switches.h"
#include "sync/sync.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#define NAME_SHOWN_MAX 120

static const char style[] = "body{font:15px sans-serif;margin:1.5em;max-width:70em}"
                            "table{border-collapse:collapse;margin:.5em 0 1.5em}"
                            "td,th{border:1px solid #bbb;padding:.2em .6em;text-align:left}"
                            ".GREEN{background:#cfc}.AMBER{background:#fe9}.RED{background:#fbb}"
                            ".banner{padding:.5em}";

/* Text from anywhere, so that it stays text. */
static void add_text(struct strbuf *out, const char *s, size_t len)
{
    size_t shown = len > NAME_SHOWN_MAX ? NAME_SHOWN_MAX : len;

    for (size_t i = 0; i < shown;) {
        bool valid;
        size_t n = utf8_sequence(s + i, len - i, &valid);

        if (!valid)
            strbuf_adds(out, "&#xfffd;");
        else if (n > 1)
            strbuf_add(out, s + i, n);
        else if (s[i] == '&' || s[i] == '<' || s[i] == '>' || s[i] == '"' || s[i] == '\'')
            strbuf_addf(out, "&#%d;", s[i]);
        else
            strbuf_addc(out, (unsigned char)s[i] < 0x20 || s[i] == 0x7f ? '?' : s[i]);
        i += n;
    }
    if (shown < len)
        strbuf_adds(out, "...");
}

static void add_percent_encoded(struct strbuf *out, const char *s, size_t len)
{
    static const char hex[] = "0123456789ABCDEF";

    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];

        if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-' ||
            c == '_' || c == '~')
            strbuf_addc(out, (char)c);
        else
            strbuf_add(out, (char[]){ '%', hex[c >> 4], hex[c & 15] }, 3);
    }
}

/* A table row of a name and a value; the value is made of numbers and our own words. */
__attribute__((format(printf, 3, 4))) static void row(struct strbuf *out, const char *name,
                                                      const char *fmt, ...)
{
    va_list ap;

    strbuf_addf(out, "<tr><th>%s</th><td>", name);
    va_start(ap, fmt);
    strbuf_addv(out, fmt, ap);
    va_end(ap);
    strbuf_adds(out, "</td></tr>\n");
}

static void add_time(struct strbuf *out, const char *name, int64_t wall_ms)
{
    char text[CLOCK_RFC3339_SIZE] = "never";

    if (wall_ms != 0)
        clock_rfc3339(wall_ms * 1000, text);
    row(out, name, "%s", text);
}

/* What an operator holds, beside what the server says. */
static void add_held(struct strbuf *out, const char *what, const struct held *h)
{
    char until[CLOCK_RFC3339_SIZE];

    clock_rfc3339(h->until_wall_ms * 1000, until);
    strbuf_addf(out, "<b>held %s</b> until %s: ", what, until);
    add_text(out, h->reason, strlen(h->reason));
}

struct facts {
    const struct proxy *p;
    const struct config *cfg; /* NULL: none yet */
    struct sync_gauges sync;
    unsigned flags;
    uint32_t breaker_count;
    uint64_t open, half_open;
    uint64_t dropped;
    const char *route_modes[ROUTE_SLOTS];
    bool shadow; /* of any route */
};

static bool is_shadow(const struct facts *f, unsigned slot)
{
    const char *mode = f->route_modes[slot];
    return mode != NULL && strcmp(mode, mode_name(MODE_SHADOW)) == 0;
}

static void collect(struct facts *f, const struct proxy *p)
{
    const struct snapshot *snap = atomic_load(&p->snapshot);

    *f = (struct facts){ .p = p, .cfg = snap != NULL ? snap->cfg : NULL };
    if (p->sync != NULL)
        sync_gauges(p->sync, &f->sync);
    f->flags = breakers_flags(p->breakers);
    status_route_modes(snap, f->route_modes);
    for (unsigned slot = 0; slot < ROUTE_SLOTS; slot++)
        f->shadow |= is_shadow(f, slot);
    f->dropped = status_samples_dropped(p);
    f->breaker_count = breakers_count(p->breakers);
    for (uint32_t id = 1; id <= f->breaker_count; id++) {
        enum breaker_state state = breaker_unpack(breakers_load(p->breakers, id)).state;
        f->open += state == BREAKER_OPEN;
        f->half_open += state == BREAKER_HALF_OPEN;
    }
}

/* One banner in words, for those who cannot see the colour. */
static void write_banner(struct strbuf *out, const struct facts *f)
{
    struct strbuf red = STRBUF_INIT;
    struct strbuf amber = STRBUF_INIT;

    if (!status_live(f->p, clock_mono_ms()))
        strbuf_adds(&red, "; a worker has stalled");
    if (f->open > 0)
        strbuf_addf(&red, "; breakers open: %" PRIu64, f->open);
    if (f->half_open > 0)
        strbuf_addf(&amber, "; breakers half open: %" PRIu64, f->half_open);
    if (!atomic_load(&f->p->started))
        strbuf_adds(&amber, "; still starting");
    if (atomic_load(&f->p->draining))
        strbuf_adds(&amber, "; draining");
    if (f->flags & STATE_BYPASS)
        strbuf_adds(&amber, "; bypass is on, nothing is gated");
    if (f->shadow)
        strbuf_adds(&amber, "; shadow mode, nothing is refused where it is on");
    if (switches_count(f->p->switches) > 0)
        strbuf_addf(&amber, "; overrides by hand: %zu", switches_count(f->p->switches));
    if (!(f->flags & STATE_SYNCED))
        strbuf_adds(&amber, "; breaker states are not known yet");
    else if (f->flags & STATE_STALE)
        strbuf_adds(&amber, "; breaker states are stale");
    else if (!(f->flags & STATE_CONNECTED) && !f->sync.polling)
        strbuf_adds(&amber, "; the state stream is down");
    else if (f->sync.polling && f->cfg != NULL && f->cfg->control.state_source != SOURCE_POLL)
        strbuf_adds(&amber, "; the state stream is down, states are polled");
    if (f->cfg != NULL && config_unresolved(f->cfg))
        strbuf_adds(&amber, "; routes wait for the metadata that they select by");
    if (!f->p->last_reload_ok && f->p->reloads_ok + f->p->reloads_failed > 0)
        strbuf_adds(&amber, "; the last reload was refused");
    if (f->p->restart_required)
        strbuf_adds(&amber, "; a changed option waits for a restart");
    if (f->dropped > 0)
        strbuf_addf(&amber, "; samples dropped since start: %" PRIu64, f->dropped);

    const char *colour = red.len > 0 ? "RED" : amber.len > 0 ? "AMBER" : "GREEN";
    strbuf_adds(&red, strbuf_str(&amber));
    strbuf_addf(out, "<p class=\"banner %s\"><b>%s</b>: %s</p>\n", colour, colour,
                red.len > 0 ? strbuf_str(&red) + strlen("; ") : "all is well");
    strbuf_free(&red);
    strbuf_free(&amber);
}

static void write_head(struct strbuf *out, const struct facts *f, bool paused)
{
    strbuf_adds(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                     "<title>tripswitch-proxy</title>");
    if (!paused)
        strbuf_addf(out, "<meta http-equiv=\"refresh\" content=\"%d\">", PAGE_REFRESH_S);
    strbuf_addf(out, "<style>%s</style></head><body>\n<h1>tripswitch-proxy %s</h1>\n", style,
                TRIPSWITCH_VERSION);
    write_banner(out, f);
    if (paused)
        strbuf_adds(out, "<p>Paused. <a href=\"/\">Refresh again</a></p>\n");
    else
        strbuf_addf(out, "<p>Refreshes every %d s. <a href=\"/?pause\">Pause</a></p>\n",
                    PAGE_REFRESH_S);
}

static void write_process(struct strbuf *out, const struct facts *f)
{
    int64_t up_s = (clock_mono_ms() - f->p->start_mono_ms) / 1000;

    strbuf_adds(out, "<h2>Process</h2>\n<table>\n");
    row(out, "up", "%" PRId64 " d %" PRId64 " h %" PRId64 " min %" PRId64 " s", up_s / 86400,
        up_s / 3600 % 24, up_s / 60 % 60, up_s % 60);
    if (f->cfg != NULL) {
        row(out, "mode", "%s", mode_name(f->cfg->mode));
        row(out, "fail mode", "%s", f->cfg->fail_mode == FAIL_OPEN ? "open" : "closed");
        row(out, "configuration", "%s", f->cfg->hash != NULL ? f->cfg->hash : "-");
    }
    if (switches_bypass_held(f->p->switches) != NULL) {
        strbuf_adds(out, "<tr><th>bypass</th><td>");
        add_held(out, "on", switches_bypass_held(f->p->switches));
        strbuf_adds(out, "</td></tr>\n");
    }
    row(out, "client connections", "%" PRId64 " of %" PRId64, atomic_load(&f->p->connections),
        status_connection_limit(f->p));
    row(out, "requests in flight", "%" PRIu64, SUM_MODES(f->p, requests_in_flight));
    row(out, "upstream connections", "%" PRIu64 ", %" PRIu64 " of them idle",
        SUM(f->p, upstream_connections), SUM(f->p, upstream_connections_idle));
    strbuf_adds(out, "</table>\n");
}

static void write_breaker(struct strbuf *out, const struct proxy *p, uint32_t id)
{
    struct breaker_view v = breaker_unpack(breakers_load(p->breakers, id));
    double ratio = status_allow_ratio(v);
    unsigned slot = status_decision_slot(id);
    int64_t since_ms = breakers_changed_ms(p->breakers, id);
    char since[CLOCK_RFC3339_SIZE] = "";
    size_t len;
    const char *name = breakers_name(p->breakers, id, &len);
    const struct held *h = switches_of(p->switches, id);

    if (since_ms != 0)
        clock_rfc3339(since_ms * 1000, since);
    strbuf_adds(out, "<tr><td><a href=\"/breakers/");
    add_percent_encoded(out, name, len);
    strbuf_adds(out, "\">");
    add_text(out, name, len);
    strbuf_addf(out, "</a></td><td>%s", breaker_state_name(v.state));
    if (h != NULL) {
        strbuf_adds(out, "; ");
        add_held(out, breaker_state_name(h->state), h);
    }
    strbuf_adds(out, "</td><td>");
    if (!isnan(ratio))
        strbuf_addf(out, "%.2f", ratio);
    strbuf_addf(out, "</td><td>%s</td>", since);
    if (slot == BREAKER_SLOTS - 1)
        strbuf_adds(out, "<td>-</td><td>-</td>");
    else
        strbuf_addf(
            out, "<td>%" PRIu64 "</td><td>%" PRIu64 "</td>",
            SUM(p, decisions[slot][DECISION_ALLOW]) + SUM(p, decisions[slot][DECISION_FAIL_OPEN]) +
                SUM(p, decisions[slot][DECISION_OVERRIDE_ALLOW]),
            SUM(p, decisions[slot][DECISION_REJECT]) + SUM(p, decisions[slot][DECISION_THROTTLE]) +
                SUM(p, decisions[slot][DECISION_OVERRIDE_REJECT]));
    strbuf_adds(out, "</tr>\n");
}

static void write_breakers(struct strbuf *out, const struct facts *f)
{
    static const enum breaker_state order[] = { BREAKER_OPEN, BREAKER_HALF_OPEN, BREAKER_CLOSED,
                                                BREAKER_UNKNOWN };
    uint32_t rows = 0;

    strbuf_adds(out, "<h2>Breakers</h2>\n");
    if (f->breaker_count == 0) {
        strbuf_adds(out, "<p>None yet.</p>\n");
        return;
    }
    strbuf_adds(out, "<table>\n<tr><th>breaker</th><th>state</th><th>allow rate</th>"
                     "<th>since</th><th>let through</th><th>refused</th></tr>\n");
    for (unsigned i = 0; i < ARRAY_LEN(order); i++) {
        for (uint32_t id = 1; id <= f->breaker_count && rows < PAGE_BREAKERS_MAX; id++) {
            uint64_t word = breakers_load(f->p->breakers, id);
            if (breaker_unpack(word).state != order[i])
                continue;
            write_breaker(out, f->p, id);
            rows++;
        }
    }
    strbuf_adds(out, "</table>\n");
    if (rows < f->breaker_count)
        strbuf_addf(out, "<p>%u more in <a href=\"/breakers\">/breakers</a>.</p>\n",
                    f->breaker_count - rows);
}

static void write_control(struct strbuf *out, const struct facts *f)
{
    strbuf_adds(out, "<h2>Control plane</h2>\n<table>\n");
    row(out, "state stream", "%s", f->flags & STATE_CONNECTED ? "connected" : "down");
    row(out, "states", "%s", status_states(f->flags, f->sync.awaited_names));
    add_time(out, "last event", f->sync.last_event_wall_ms);
    row(out, "reconnects", "%" PRIu64, f->sync.reconnects);
    strbuf_adds(out, "<tr><th>last error</th><td>");
    add_text(out, f->sync.last_error, strlen(f->sync.last_error));
    strbuf_adds(out, "</td></tr>\n");
    row(out, "samples waiting", "%" PRIu64 " of %" PRIu64,
        (f->sync.samples_buffered + f->sync.samples_in_flight), f->sync.samples_capacity);
    row(out, "samples dropped", "%" PRIu64, f->dropped);
    add_time(out, "last batch accepted", f->sync.last_flush_wall_ms);
    strbuf_adds(out, "</table>\n");
}

/* Routes in shadow mode, and those that were. */
static void write_shadow(struct strbuf *out, const struct facts *f)
{
    bool begun = false;

    for (unsigned slot = 0; slot < ROUTE_SLOTS; slot++) {
        const char *name = route_slot_name(f->p, slot);
        uint64_t n[SHADOW_RESULTS];

        status_shadow(f->p, slot, n);
        uint64_t all = n[SHADOW_RIGHT] + n[SHADOW_WRONG] + n[SHADOW_NEUTRAL];
        if (name == NULL || (all == 0 && !is_shadow(f, slot)))
            continue;
        if (!begun)
            strbuf_adds(out, "<h2>Shadow mode</h2>\n<p>What would have been refused: rightly if it "
                             "failed anyway.</p>\n<table>\n<tr><th>route</th><th>rightly</th>"
                             "<th>wrongly</th><th>not judged</th></tr>\n");
        begun = true;
        strbuf_adds(out, "<tr><td>");
        add_text(out, name, strlen(name));
        strbuf_addf(out, "</td><td>%" PRIu64 "</td><td>%" PRIu64 "</td><td>%" PRIu64 "</td></tr>\n",
                    n[SHADOW_RIGHT], n[SHADOW_WRONG], n[SHADOW_NEUTRAL]);
    }
    if (begun)
        strbuf_adds(out, "</table>\n");
}

static void write_errors(struct strbuf *out, const struct facts *f)
{
    uint64_t sums[PERR_COUNT];

    status_errors(f->p, sums);
    strbuf_adds(out, "<h2>Answers made by the proxy</h2>\n<table>\n");
    for (;;) {
        unsigned top = 0;
        for (unsigned e = 1; e < PERR_COUNT; e++) {
            if (sums[e] > sums[top] || top == PERR_NONE)
                top = e;
        }
        if (sums[top] == 0)
            break;
        row(out, proxy_error_name((enum proxy_error)top), "%" PRIu64, sums[top]);
        sums[top] = 0;
    }
    strbuf_adds(out, "</table>\n");
}

void page_write(const struct proxy *p, bool paused, struct strbuf *out)
{
    struct facts f;

    collect(&f, p);
    write_head(out, &f, paused);
    write_breakers(out, &f);
    write_shadow(out, &f);
    write_control(out, &f);
    write_process(out, &f);
    write_errors(out, &f);
    strbuf_adds(out, "<p>");
    static const char *const links[] = { "/status",        "/breakers",       "/metrics",
                                         "/livez?verbose", "/readyz?verbose", "/startupz?verbose",
                                         "/version" };
    for (unsigned i = 0; i < ARRAY_LEN(links); i++)
        strbuf_addf(out, "<a href=\"%s\">%s</a>\n", links[i], links[i]);
    strbuf_adds(out, "</p>\n</body></html>\n");
}
