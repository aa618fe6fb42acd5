#include "proxy/cli.h"
#include "base/base.h"
#include "base/strbuf.h"
#include "config/options.h"
#include "config/suggest.h"
#include "proxy/cli_call.h"
#include <curl/curl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cli_command {
    const char *name, *summary;
    const char *flags; /* " for= reason= json ": those with "=" take a value */
    unsigned min_args, max_args;
    int (*run)(const struct cli_call *call);
    const char *usage;
};

#define WHERE                                                                                      \
    "  --admin ADDR      the admin listener, such as 127.0.0.1:3131; else what\n"                  \
    "                    --config FILE, the variables and the flags of `run` say\n"

static const struct cli_command commands[] = {
    { "override", "hold a breaker open or closed here, for some time", " admin= for= reason= help ",
      2, 2, cli_override,
      "Usage: tripswitch-proxy override NAME open|closed --for TIME --reason TEXT\n"
      "       tripswitch-proxy override NAME auto\n\n"
      "Holds a breaker open or closed in this proxy alone, whatever the control plane\n"
      "says; the control plane is not told.  It ends by itself; auto ends it now.\n\n"
      "  --for TIME        how long: 30s, 10m, 2h; at most 24h\n"
      "  --reason TEXT     why, for those who see its effect; one line, 200 bytes\n" WHERE
      "\nExit codes: 0 done, 1 the proxy refused, 2 usage, 69 no proxy answers.\n" },
    { "bypass", "let every request pass ungated, for some time", " admin= for= reason= help ", 1, 1,
      cli_bypass,
      "Usage: tripswitch-proxy bypass on --for TIME --reason TEXT\n"
      "       tripswitch-proxy bypass off\n\n"
      "While bypass is on no request is refused by a breaker; requests are counted and\n"
      "reported as ever.  It ends by itself; off ends it now.\n\n"
      "  --for TIME        how long: 30s, 10m, 2h; at most 24h\n"
      "  --reason TEXT     why, for those who see its effect; one line, 200 bytes\n" WHERE
      "\nExit codes: 0 done, 1 the proxy refused, 2 usage, 69 no proxy answers.\n" },
    { "explain", "which route and breakers a URL meets, and the verdict",
      " admin= method= header= json offline help ", 1, 1, cli_explain,
      "Usage: tripswitch-proxy explain URL [--method M] [--header 'NAME: VALUE']...\n\n"
      "Says which route a request would take and why, its breakers and their states,\n"
      "and whether it would pass.  Nothing is sent to URL.  An https:// URL is taken as\n"
      "the CONNECT that clients make of it.  When no proxy answers, the configuration\n"
      "alone is explained; breaker states are not known then.\n\n"
      "  --method M        GET unless you say otherwise\n"
      "  --header H        a request header, may be repeated\n"
      "  --json            for programs\n"
      "  --offline         ask no proxy\n" WHERE
      "\nExit codes: 0 would pass (or may), 1 the proxy refused to say, 2 usage,\n"
      "3 would be rejected, 78 no proxy answers and the configuration has mistakes.\n" },
    { "status", "one screen: is it well, what is open, what is held",
      " telemetry= json quiet help ", 0, 0, cli_status,
      "Usage: tripswitch-proxy status [--json] [--quiet]\n\n"
      "Degraded is a proxy that starts, drains, or has a worker that does not answer.\n"
      "Open breakers and a lost control plane are shown, but are no fault of the proxy.\n\n"
      "  --json            all of /status, for programs\n"
      "  --quiet           say nothing; the exit code tells\n"
      "  --telemetry ADDR  the telemetry listener, such as 127.0.0.1:3130; else what\n"
      "                    --config FILE, the variables and the flags of `run` say\n"
      "\nExit codes: 0 healthy, 1 degraded, 2 usage, 69 no proxy answers.\n" },
};

const struct cli_command *cli_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

void cli_list(struct strbuf *out)
{
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        strbuf_addf(out, "  %-8s %s\n", commands[i].name, commands[i].summary);
}

const char *cli_suggest(const char *word)
{
    static const char *const others[] = { "run", "check", "init-net" };
    struct suggestion s;
    suggest_start(&s, word);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        suggest_offer(&s, commands[i].name);
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        suggest_offer(&s, others[i]);
    return s.best;
}

/* ---- Messages ---- */

static void say(const struct cli_call *call, const char *fmt, va_list ap, const char *end)
{
    struct strbuf text = STRBUF_INIT;
    strbuf_addv(&text, fmt, ap);
    fprintf(stderr, "tripswitch-proxy %s: %s%s\n", call->command, strbuf_str(&text), end);
    strbuf_free(&text);
}

void cli_say(const struct cli_call *call, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(call, fmt, ap, "");
    va_end(ap);
}

int cli_misuse(const struct cli_call *call, const char *fmt, ...)
{
    struct strbuf end = STRBUF_INIT;
    va_list ap;
    strbuf_addf(&end, "; try %s --help", call->command);
    va_start(ap, fmt);
    say(call, fmt, ap, strbuf_str(&end));
    va_end(ap);
    strbuf_free(&end);
    return CLI_USAGE;
}

/* ---- Arguments ---- */

const char *cli_flag(const struct cli_call *call, const char *name)
{
    for (size_t i = call->flags.count; i-- > 0;)
        if (strcmp(call->flags.items[i].name, name) == 0)
            return call->flags.items[i].value;
    return NULL;
}

enum flag_kind { FLAG_UNKNOWN, FLAG_OWN, FLAG_OWN_SWITCH, FLAG_RUN, FLAG_RUN_SWITCH };

/* name: without "--" and value. */
static enum flag_kind kind_of(const struct cli_command *c, const char *name)
{
    struct strbuf want = STRBUF_INIT;
    enum flag_kind kind = FLAG_UNKNOWN;
    strbuf_addf(&want, " %s= ", name);
    if (strstr(c->flags, strbuf_str(&want)))
        kind = FLAG_OWN;
    strbuf_clear(&want);
    strbuf_addf(&want, " %s ", name);
    if (strstr(c->flags, strbuf_str(&want)))
        kind = FLAG_OWN_SWITCH;
    strbuf_clear(&want);
    strbuf_addf(&want, "--%s", name);
    if (kind == FLAG_UNKNOWN && strcmp(name, "config") == 0)
        kind = FLAG_RUN;
    for (size_t i = 0; i < global_options.count && kind == FLAG_UNKNOWN; i++) {
        const struct config_option *o = &global_options.rows[i];
        struct strbuf flag = STRBUF_INIT;
        option_flag_name(o, &flag);
        if (option_is_text(o) && strcmp(strbuf_str(&flag), strbuf_str(&want)) == 0)
            kind = o->type == TYPE_BOOL ? FLAG_RUN_SWITCH : FLAG_RUN;
        strbuf_free(&flag);
    }
    strbuf_free(&want);
    return kind;
}

static int unknown_flag(const struct cli_call *call, const struct cli_command *c, const char *name)
{
    struct suggestion s;
    char *copy = xstrdup(c->flags), *save = NULL;
    suggest_start(&s, name);
    for (char *f = strtok_r(copy, " =", &save); f; f = strtok_r(NULL, " =", &save))
        suggest_offer(&s, f);
    int code = s.best ? CLI_USAGE : cli_misuse(call, "unknown flag --%s", name);
    if (s.best)
        cli_say(call, "unknown flag --%s; did you mean --%s?", name, s.best);
    free(copy);
    return code;
}

static void add_flag(struct cli_call *call, const char *name, const char *value)
{
    struct name_value_list *l = &call->flags;
    l->items = xrealloc(l->items, (l->count + 1) * sizeof(*l->items));
    l->items[l->count++] = (struct name_value){ xstrdup(name), (char *)value };
}

/* One argument that begins with "--", and its value.  0, or CLI_USAGE after saying why. */
static int take_flag(struct cli_call *call, const struct cli_command *c, char **argv, int argc,
                     int *i)
{
    char *whole = argv[*i], *equals = strchr(whole, '=');
    char *name = equals ? xstrndup(whole + 2, (size_t)(equals - whole - 2)) : xstrdup(whole + 2);
    enum flag_kind kind = kind_of(c, name);
    bool wants = kind == FLAG_OWN || kind == FLAG_RUN;
    const char *value = equals ? equals + 1 : NULL;
    int code = 0;
    if (kind == FLAG_RUN || kind == FLAG_RUN_SWITCH)
        call->source.argv[call->source.argc++] = whole;
    if (wants && !value && *i + 1 < argc) {
        value = argv[++*i];
        if (kind == FLAG_RUN)
            call->source.argv[call->source.argc++] = argv[*i];
    }
    if (kind == FLAG_UNKNOWN)
        code = unknown_flag(call, c, name);
    else if (wants && (!value || !*value))
        code = cli_misuse(call, "the value of --%s is missing", name);
    else if (kind == FLAG_OWN_SWITCH && equals)
        code = cli_misuse(call, "--%s takes no value", name);
    else if (kind == FLAG_OWN || kind == FLAG_OWN_SWITCH)
        add_flag(call, name, value ? value : "");
    free(name);
    return code;
}

static int take_arguments(struct cli_call *call, const struct cli_command *c, int argc, char **argv)
{
    int code = 0;
    for (int i = 1; i < argc && !code; i++) {
        if (strcmp(argv[i], "-h") == 0)
            add_flag(call, "help", "");
        else if (strncmp(argv[i], "--", 2) == 0 && argv[i][2])
            code = take_flag(call, c, argv, argc, &i);
        else if (call->arg_count == c->max_args)
            code = cli_misuse(call, "\"%s\" is one argument too many", argv[i]);
        else
            call->args[call->arg_count++] = argv[i];
    }
    return code;
}

/* ---- Running ---- */

int cli_run(const struct cli_command *c, int argc, char **argv, char **envp)
{
    struct cli_call call = { .command = c->name,
                             .source = { .argv = xcalloc((size_t)argc + 1, sizeof(char *)),
                                         .envp = envp } };
    int code = take_arguments(&call, c, argc, argv);
    signal(SIGPIPE, SIG_IGN);
    if (!code && cli_flag(&call, "help")) {
        fputs(c->usage, stdout);
    } else if (!code && call.arg_count < c->min_args) {
        code = cli_misuse(&call, "an argument is missing");
    } else if (!code) {
        call.source.file = config_file(call.source.argv, call.source.argc, envp);
        curl_global_init(CURL_GLOBAL_DEFAULT);
        code = c->run(&call);
        curl_global_cleanup();
    }
    for (size_t i = 0; i < call.flags.count; i++)
        free(call.flags.items[i].name);
    free(call.flags.items);
    free(call.source.argv);
    return code;
}

/* ---- The configuration ---- */

static bool has_variable(char **envp, const char *name)
{
    size_t len = strlen(name);
    for (; *envp; envp++)
        if (strncmp(*envp, name, len) == 0 && ((*envp)[len] == '=' || (*envp)[len] == '_'))
            return true;
    return false;
}

/* Who asks a proxy need not have its keys: a made-up one lets the rest be read. */
static int load_without_key(const struct cli_call *call, struct config **out)
{
    static char key[] = "TRIPSWITCH_API_KEY=eb_pk_any";
    struct config_source source = call->source;
    struct strbuf ignored = STRBUF_INIT;
    size_t n = 0;
    if (has_variable(source.envp, "TRIPSWITCH_API_KEY"))
        return -1;
    while (source.envp[n])
        n++;
    char **envp = xcalloc(n + 2, sizeof(*envp));
    memcpy(envp, source.envp, n * sizeof(*envp));
    envp[n] = key;
    source.envp = envp;
    int err = config_load(&source, out, &ignored, &ignored);
    strbuf_free(&ignored);
    free(envp);
    return err;
}

int cli_config(const struct cli_call *call, struct config **out)
{
    struct strbuf errors = STRBUF_INIT, warnings = STRBUF_INIT;
    int err = config_load(&call->source, out, &errors, &warnings);
    if (err)
        err = load_without_key(call, out);
    if (err) {
        fputs(strbuf_str(&errors), stderr);
        cli_say(call, "the configuration has mistakes");
    }
    strbuf_free(&errors);
    strbuf_free(&warnings);
    return err ? CLI_CONFIG : 0;
}
