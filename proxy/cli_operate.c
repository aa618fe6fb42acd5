/* override and bypass: what an operator holds by hand, over the admin listener. */
#include "config/suggest.h"
#include "config/value.h"
#include "proxy/cli.h"
#include "proxy/cli_call.h"
#include "proxy/switches.h"
#include <stdio.h>
#include <string.h>

/* --for and --reason, checked here so that a mistake is found without a proxy.  0 or CLI_USAGE. */
static int check_terms(const struct cli_call *call, bool wanted)
{
    const char *span = cli_flag(call, "for"), *reason = cli_flag(call, "reason");
    struct strbuf why = STRBUF_INIT;
    int64_t ms;
    int code = 0;
    if (!wanted && (span || reason))
        code = cli_misuse(call, "ending takes neither --for nor --reason");
    else if (wanted && !span)
        code = cli_misuse(call, "--for TIME is missing: everything held by hand has an end");
    else if (wanted && !reason)
        code = cli_misuse(call, "--reason TEXT is missing: who comes later wants to know why");
    else if (wanted && value_duration(span, &ms, &why) < 0)
        code = cli_misuse(call, "--for: %s", strbuf_str(&why));
    else if (wanted && (ms < 1 || ms > SWITCHES_TTL_MAX_MS))
        code = cli_misuse(call, "--for must be above 0 and at most 24h");
    strbuf_free(&why);
    return code;
}

static void write_order(const struct cli_call *call, const char *state, struct strbuf *out)
{
    struct json j = { .sb = out };
    json_open(&j, NULL, '{');
    if (state)
        json_str(&j, "state", state);
    json_str(&j, "ttl", cli_flag(call, "for"));
    json_str(&j, "reason", cli_flag(call, "reason"));
    json_close(&j);
}

/* The answer's root, or NULL with *code set. */
static cJSON *order(const struct cli_call *call, const char *method, const char *path,
                    const char *body, int *code)
{
    struct strbuf why = STRBUF_INIT;
    struct cli_answer a;
    cJSON *root = NULL;
    *code = cli_ask(call, CLI_ADMIN, method, path, body, &a, &why);
    if (*code == CLI_UNREACHABLE)
        cli_say(call, "%s", strbuf_str(&why));
    else if (!*code)
        root = cli_read(call, &a, code);
    strbuf_free(&a.body);
    strbuf_free(&why);
    return root;
}

/* ---- override ---- */

static int wrong_word(const struct cli_call *call, const char *word, const char *const *words)
{
    struct suggestion s;
    suggest_start(&s, word);
    for (; *words; words++)
        suggest_offer(&s, *words);
    if (!s.best)
        return cli_misuse(call, "\"%s\" is not understood", word);
    cli_say(call, "\"%s\" is not understood; did you mean \"%s\"?", word, s.best);
    return CLI_USAGE;
}

static void print_override(const char *name, const cJSON *root)
{
    const cJSON *held = cJSON_GetObjectItemCaseSensitive(root, "override");
    struct strbuf line = STRBUF_INIT, safe = STRBUF_INIT;
    strbuf_addf(&line, "%s is held %s here until ", name, cli_text(held, "state"));
    cli_add_time(&line, cli_text(held, "until"));
    cli_add_safe(&safe, strbuf_str(&line));
    printf("%s\nThe control plane says %s.\n", strbuf_str(&safe), cli_text(root, "state"));
    strbuf_free(&line);
    strbuf_free(&safe);
}

static void print_ended(const char *name, const cJSON *root)
{
    struct strbuf safe = STRBUF_INIT;
    cli_add_safe(&safe, name);
    printf("%s %s\n", strbuf_str(&safe),
           cli_true(root, "ended") ? "goes by the control plane's state again"
                                   : "was not overridden");
    strbuf_free(&safe);
}

int cli_override(const struct cli_call *call)
{
    static const char *const states[] = { "open", "closed", "auto", NULL };
    const char *name = call->args[0], *state = call->args[1];
    bool ends = strcmp(state, "auto") == 0;
    struct strbuf path = STRBUF_INIT, body = STRBUF_INIT;
    if (!ends && strcmp(state, "open") != 0 && strcmp(state, "closed") != 0)
        return wrong_word(call, state, states);
    int code = check_terms(call, !ends);
    if (code)
        return code;
    strbuf_adds(&path, "/breakers/");
    cli_add_encoded(&path, name);
    strbuf_adds(&path, "/override");
    if (!ends)
        write_order(call, state, &body);
    cJSON *root = order(call, ends ? "DELETE" : "PUT", strbuf_str(&path),
                        ends ? NULL : strbuf_str(&body), &code);
    if (root && ends)
        print_ended(name, root);
    else if (root)
        print_override(name, root);
    cJSON_Delete(root);
    strbuf_free(&path);
    strbuf_free(&body);
    return code;
}

/* ---- bypass ---- */

static void print_bypass(const cJSON *root)
{
    struct strbuf until = STRBUF_INIT;
    cli_add_time(&until, cli_text(root, "until"));
    printf("bypass is on until %s: no breaker refuses anything here\n", strbuf_str(&until));
    strbuf_free(&until);
}

int cli_bypass(const struct cli_call *call)
{
    static const char *const words[] = { "off", "on", NULL };
    const char *word = call->args[0];
    bool on = strcmp(word, "on") == 0;
    struct strbuf body = STRBUF_INIT;
    if (!on && strcmp(word, "off") != 0)
        return wrong_word(call, word, words);
    int code = check_terms(call, on);
    if (code)
        return code;
    if (on)
        write_order(call, NULL, &body);
    cJSON *root =
        order(call, on ? "PUT" : "DELETE", "/bypass", on ? strbuf_str(&body) : NULL, &code);
    if (root && on)
        print_bypass(root);
    else if (root)
        puts(cli_true(root, "ended") ? "bypass is off: breakers gate again" : "bypass was not on");
    cJSON_Delete(root);
    strbuf_free(&body);
    return code;
}
