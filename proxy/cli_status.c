/* status: one screen from /status of the telemetry listener; an image's health check. */
#include "base/base.h"
#include "proxy/cli.h"
#include "proxy/cli_call.h"
#include <stdio.h>
#include <string.h>

static const cJSON *member(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

/* What keeps the proxy from serving as it should, or "".  Nothing that depends on the network. */
static const char *ailment(const cJSON *root)
{
    for (const cJSON *w = cli_first(root, "workers"); w; w = w->next) {
        if (!cli_true(w, "live"))
            return "a worker has stalled";
    }
    if (!cli_true(root, "started"))
        return "still starting";
    if (cli_true(root, "draining"))
        return "draining";
    return cli_true(root, "ready") ? "" : "not ready";
}

static void add_listeners(struct strbuf *out, const cJSON *root)
{
    static const char *const kinds[] = { "proxy", "transparent", "telemetry", "admin" };
    bool first = true;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct strbuf text = STRBUF_INIT;
        strbuf_adds(&text, kinds[i]);
        for (const cJSON *item = cli_first(member(root, "listeners"), kinds[i]); item;
             item = item->next)
            strbuf_addf(&text, " %s", cJSON_IsString(item) ? item->valuestring : "?");
        if (strcmp(strbuf_str(&text), kinds[i]) != 0) {
            cli_add_row(out, first ? "listening" : "", strbuf_str(&text));
            first = false;
        }
        strbuf_free(&text);
    }
}

/* A route waits for the list of breakers that it selects from. */
static bool waits_for_metadata(const cJSON *root)
{
    for (const cJSON *s = cli_first(root, "selected"); s; s = s->next)
        if (cJSON_IsFalse(member(s, "breakers_loaded")))
            return true;
    return false;
}

static const char *states(const cJSON *control)
{
    bool awaits = cli_number(control, "awaited_breakers") > 0 || cli_true(control, "awaited_hosts");
    return !cli_true(control, "synced") ? "not known yet"
           : cli_true(control, "stale") ? "stale"
           : awaits                     ? "known, but not yet of every name"
                                        : "known";
}

static void add_control(struct strbuf *out, const cJSON *root)
{
    const cJSON *control = member(root, "control"), *stats = member(root, "stats");
    struct strbuf text = STRBUF_INIT;
    strbuf_addf(&text, "%s, %s, states %s%s",
                *cli_text(control, "url") ? cli_text(control, "url") : "none",
                cli_true(control, "connected") ? "connected" : "not connected", states(control),
                waits_for_metadata(root) ? ", metadata not loaded" : "");
    if (*cli_text(control, "last_error") && !cli_true(control, "connected"))
        strbuf_addf(&text, ": %s", cli_text(control, "last_error"));
    cli_add_row(out, "control", strbuf_str(&text));
    strbuf_clear(&text);
    strbuf_addf(&text, "%.0f sent, %.0f waiting, %.0f dropped", cli_number(stats, "sent_samples"),
                cli_number(stats, "buffer_size"), cli_number(stats, "dropped_samples"));
    cli_add_row(out, "samples", strbuf_str(&text));
    strbuf_free(&text);
}

static void add_held(struct strbuf *out, const char *what, const cJSON *held)
{
    struct strbuf text = STRBUF_INIT;
    strbuf_addf(&text, "%s until ", what);
    cli_add_time(&text, cli_text(held, "until"));
    strbuf_addf(&text, ": %s", cli_text(held, "reason"));
    cli_add_row(out, "by hand", strbuf_str(&text));
    strbuf_free(&text);
}

static void add_breakers(struct strbuf *out, const cJSON *root)
{
    const cJSON *counts = member(root, "breakers");
    struct strbuf text = STRBUF_INIT;
    strbuf_addf(&text, "%.0f open, %.0f half-open, %.0f closed, %.0f unknown",
                cli_number(counts, "open"), cli_number(counts, "half_open"),
                cli_number(counts, "closed"), cli_number(counts, "unknown"));
    cli_add_row(out, "breakers", strbuf_str(&text));
    if (cJSON_IsObject(member(root, "bypass_held")))
        add_held(out, "bypass is on,", member(root, "bypass_held"));
    for (const cJSON *item = cli_first(root, "overrides"); item; item = item->next) {
        const cJSON *held = member(item, "override");
        strbuf_clear(&text);
        strbuf_addf(&text, "%s is %s,", cli_text(item, "breaker"), cli_text(held, "state"));
        add_held(out, strbuf_str(&text), held);
    }
    strbuf_free(&text);
}

static void add_configuration(struct strbuf *out, const cJSON *root)
{
    const cJSON *reload = member(root, "reload");
    struct strbuf text = STRBUF_INIT;
    strbuf_addf(&text, "%s, fail_mode %s", cli_text(root, "mode"), cli_text(root, "fail_mode"));
    cli_add_row(out, "mode", strbuf_str(&text));
    strbuf_clear(&text);
    strbuf_addf(&text, "%s, hash %s",
                *cli_text(root, "config_file") ? cli_text(root, "config_file") : "no file",
                cli_text(root, "config_hash"));
    if (!cli_true(reload, "last_ok"))
        strbuf_adds(&text, "; the last reload was refused");
    if (*cli_text(reload, "restart_required_by"))
        strbuf_addf(&text, "; %s waits for a restart", cli_text(reload, "restart_required_by"));
    cli_add_row(out, "config", strbuf_str(&text));
    strbuf_free(&text);
}

static void print_for_people(const cJSON *root, const char *ails)
{
    struct strbuf out = STRBUF_INIT, text = STRBUF_INIT;
    strbuf_addf(&text, "%s%s", *ails ? "degraded: " : "healthy", ails);
    cli_add_row(&out, "health", strbuf_str(&text));
    strbuf_clear(&text);
    strbuf_addf(&text, "%s, up ", cli_text(root, "version"));
    cli_add_duration(&text, cli_number(root, "uptime_seconds") * 1000);
    cli_add_row(&out, "version", strbuf_str(&text));
    add_listeners(&out, root);
    add_configuration(&out, root);
    add_control(&out, root);
    add_breakers(&out, root);
    fputs(strbuf_str(&out), stdout);
    strbuf_free(&out);
    strbuf_free(&text);
}

int cli_status(const struct cli_call *call)
{
    struct strbuf why = STRBUF_INIT;
    struct cli_answer a;
    bool quiet = cli_flag(call, "quiet") != NULL;
    int code = cli_ask(call, CLI_TELEMETRY, "GET", "/status", NULL, &a, &why);
    if (code == CLI_UNREACHABLE && !quiet)
        cli_say(call, "%s", strbuf_str(&why));
    cJSON *root = code ? NULL : cli_read(call, &a, &code);
    if (root) {
        const char *ails = ailment(root);
        if (cli_flag(call, "json") && !quiet)
            fwrite(a.body.data, 1, a.body.len, stdout);
        else if (!quiet)
            print_for_people(root, ails);
        code = *ails ? CLI_REFUSED : CLI_OK;
    }
    cJSON_Delete(root);
    strbuf_free(&a.body);
    strbuf_free(&why);
    return code;
}
