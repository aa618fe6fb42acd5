/* explain: asks a running proxy; without one, the configuration alone. */
#include "proxy/admin_body.h"
#include "proxy/cli.h"
#include "proxy/cli_call.h"
#include "proxy/explain.h"
#include "proxy/route.h"
#include <stdio.h>
#include <string.h>

#define NAME_COLUMNS_MAX 40

/* ---- For people ---- */

static const cJSON *member(const cJSON *object, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static void add_route(struct strbuf *out, const cJSON *root)
{
    const cJSON *route = member(root, "route"), *over = cli_first(route, "passed_over");
    const char *pattern = cli_text(route, "host_pattern");
    struct strbuf text = STRBUF_INIT;
    if (cJSON_IsNull(member(route, "index")))
        strbuf_addf(&text, "%s, as none matches", cli_text(route, "name"));
    else
        strbuf_addf(&text, "%s (number %d), %s%s", cli_text(route, "name"),
                    (int)cli_number(route, "index") + 1,
                    *pattern ? "by the host pattern " : "which takes every host", pattern);
    cli_add_row(out, "route", strbuf_str(&text));
    strbuf_clear(&text);
    for (const cJSON *item = over; item; item = item->next)
        strbuf_addf(&text, "%s%s", item == over ? "" : ", ",
                    cJSON_IsString(item) ? item->valuestring : "?");
    strbuf_adds(&text, ": host and port fit, method, path or headers do not");
    if (over)
        cli_add_row(out, "not taken", strbuf_str(&text));
    strbuf_clear(&text);
    strbuf_addf(&text, "%s, fail_mode %s", cli_text(route, "mode"), cli_text(route, "fail_mode"));
    cli_add_row(out, "mode", strbuf_str(&text));
    cli_add_row(out, "router",
                *cli_text(route, "router") ? cli_text(route, "router") : "none: no samples");
    strbuf_free(&text);
}

static size_t name_column(const cJSON *first)
{
    size_t most = 0;
    for (const cJSON *b = first; b; b = b->next) {
        size_t width = cli_width(cli_text(b, "name"));
        if (width > most && width <= NAME_COLUMNS_MAX)
            most = width;
    }
    return most;
}

static void add_breaker(struct strbuf *out, const cJSON *b, size_t column, bool known, bool first)
{
    const cJSON *held = member(b, "override");
    const char *name = cli_text(b, "name");
    size_t width = cli_width(name);
    struct strbuf text = STRBUF_INIT;
    strbuf_addf(&text, "%s%*s  %s", name, (int)(width < column ? column - width : 0), "",
                known ? cli_text(b, "state") : "(state not known)");
    if (cJSON_IsNumber(member(b, "allow_rate")))
        strbuf_addf(&text, ", allow_rate %.3g", cli_number(b, "allow_rate"));
    if (cJSON_IsObject(held)) {
        strbuf_addf(&text, "; held %s by hand for ", cli_text(held, "state"));
        cli_add_duration(&text, cli_number(held, "ends_in_ms"));
        strbuf_addf(&text, " more: %s", cli_text(held, "reason"));
    }
    cli_add_row(out, first ? "breakers" : "", strbuf_str(&text));
    strbuf_free(&text);
}

static void add_selector(struct strbuf *out, const cJSON *pairs)
{
    struct strbuf text = STRBUF_INIT;
    strbuf_adds(&text, "selected by metadata, not loaded yet: ");
    for (const cJSON *p = pairs ? pairs->child : NULL; p; p = p->next)
        strbuf_addf(&text, "%s%s=%s", p == pairs->child ? "" : ", ", p->string,
                    cJSON_IsString(p) ? p->valuestring : "?");
    cli_add_row(out, "breakers", strbuf_str(&text));
    strbuf_free(&text);
}

static void add_breakers(struct strbuf *out, const cJSON *root)
{
    const cJSON *first = cli_first(root, "breakers");
    bool known = strcmp(cli_text(root, "states"), "not asked") != 0;
    bool loaded = cli_true(member(root, "route"), "breakers_loaded");
    if (!loaded)
        add_selector(out, member(member(root, "route"), "breakers_metadata"));
    else if (!first)
        cli_add_row(out, "breakers", "none");
    for (const cJSON *b = first; b; b = b->next)
        add_breaker(out, b, name_column(first), known, b == first);
}

static void add_verdict(struct strbuf *out, const cJSON *root)
{
    const char *verdict = cli_text(root, "verdict"), *by = cli_text(root, "decided_by");
    struct strbuf text = STRBUF_INIT;
    if (strcmp(verdict, "by_chance") == 0)
        strbuf_addf(&text, "would be allowed with probability %.3g",
                    cli_number(root, "probability"));
    else if (strcmp(verdict, "unknown") == 0)
        strbuf_adds(&text, "not known");
    else
        strbuf_addf(&text, "would be %s", verdict);
    strbuf_addf(&text, ": %s", cli_text(root, "why"));
    if (*by)
        strbuf_addf(&text, " (%s)", by);
    cli_add_row(out, "verdict", strbuf_str(&text));
    strbuf_free(&text);
}

static void add_bounds(struct strbuf *out, const cJSON *root)
{
    const cJSON *first = cli_first(root, "bounded_by");
    struct strbuf text = STRBUF_INIT;
    for (const cJSON *b = first; b; b = b->next)
        strbuf_addf(&text, "%s%s", b == first ? "" : ", ",
                    cJSON_IsString(b) ? b->valuestring : "?");
    if (first)
        cli_add_row(out, "bounds", strbuf_str(&text));
    strbuf_free(&text);
}

static void print_for_people(const cJSON *root)
{
    struct strbuf out = STRBUF_INIT, text = STRBUF_INIT;
    strbuf_addf(&text, "%s %s", cli_text(root, "method"), cli_text(root, "target"));
    cli_add_row(&out, "request", strbuf_str(&text));
    add_route(&out, root);
    if (*cli_text(root, "bypass_entry"))
        cli_add_row(&out, "bypass", cli_text(root, "bypass_entry"));
    if (cli_true(root, "bypass_on"))
        cli_add_row(&out, "bypass", "on, for every host");
    cli_add_row(&out, "states", cli_text(root, "states"));
    add_breakers(&out, root);
    add_verdict(&out, root);
    add_bounds(&out, root);
    fputs(strbuf_str(&out), stdout);
    strbuf_free(&out);
    strbuf_free(&text);
}

/* ---- Asking ---- */

static void write_question(const struct cli_call *call, struct strbuf *path)
{
    strbuf_adds(path, "/explain");
    cli_add_query(path, "url", call->args[0]);
    for (size_t i = 0; i < call->flags.count; i++) {
        const struct name_value *f = &call->flags.items[i];
        if (strcmp(f->name, "method") == 0 || strcmp(f->name, "header") == 0)
            cli_add_query(path, f->name, f->value);
    }
}

/* As the admin listener would, without states.  0, or an exit code after saying why. */
static int explain_file(const struct cli_call *call, const struct admin_question *q,
                        struct strbuf *out)
{
    struct config *cfg;
    struct explanation e;
    const char *why;
    int code = cli_config(call, &cfg);
    if (code)
        return code;
    struct explain_world w = { .cfg = cfg,
                               .table = route_table_new(cfg->routes, cfg->route_count) };
    if (explain(&w, &q->question, &e, &why) < 0) {
        code = cli_misuse(call, "%s", why);
    } else {
        explain_write(&w, &q->question, &e, out);
        explanation_free(&e);
    }
    route_table_free((struct route_table *)w.table);
    config_free(cfg);
    return code;
}

static int tell(const struct cli_call *call, struct cli_answer *a)
{
    int code = CLI_OK;
    cJSON *root = cli_read(call, a, &code);
    if (!root)
        return a->status == 400 ? CLI_USAGE : code;
    if (cli_flag(call, "json"))
        fwrite(a->body.data, 1, a->body.len, stdout);
    else
        print_for_people(root);
    if (strcmp(cli_text(root, "verdict"), "rejected") == 0)
        code = CLI_REJECTED;
    cJSON_Delete(root);
    return code;
}

int cli_explain(const struct cli_call *call)
{
    struct strbuf path = STRBUF_INIT, why = STRBUF_INIT;
    struct admin_question q;
    struct cli_answer a = { .status = 200 };
    write_question(call, &path);
    const char *wrong = admin_parse_question(strchr(strbuf_str(&path), '?') + 1, &q);
    int code = CLI_UNREACHABLE;
    if (wrong)
        code = cli_misuse(call, "%s", wrong);
    else if (!cli_flag(call, "offline"))
        code = cli_ask(call, CLI_ADMIN, "GET", strbuf_str(&path), NULL, &a, &why);
    if (code == CLI_UNREACHABLE) {
        if (why.len)
            cli_say(call, "%s; explained from the configuration alone", strbuf_str(&why));
        strbuf_clear(&a.body);
        a.status = 200;
        code = explain_file(call, &q, &a.body);
        strbuf_addc(&a.body, '\n');
    }
    if (!code)
        code = tell(call, &a);
    admin_question_free(&q);
    strbuf_free(&a.body);
    strbuf_free(&path);
    strbuf_free(&why);
    return code;
}
