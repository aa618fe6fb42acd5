/* Values from TRIPSWITCH_PROXY_* and from flags. */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/loader.h"
#include "config/suggest.h"
#include "config/value.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX     "TRIPSWITCH_PROXY_"
#define PREFIX_LEN (sizeof(PREFIX) - 1)

static const char *const other_variables[] = { PREFIX "CONFIG", PREFIX "DISABLED" };

/* -- secrets in the wrong place ------------------------------------------------------ */

static const struct {
    const char *name;
    const char *refusal;
} secret_names[] = {
#define API_KEY_ADVICE                                                                             \
    "a secret does not belong here; set TRIPSWITCH_API_KEY, or name its file with "                \
    "TRIPSWITCH_API_KEY_FILE or api_key_file"
#define INGEST_SECRET_ADVICE                                                                       \
    "a secret does not belong here; set TRIPSWITCH_INGEST_SECRET, or name its file with "          \
    "TRIPSWITCH_INGEST_SECRET_FILE or ingest_secret_file"
    { "api_key", API_KEY_ADVICE },
    { "project_key", API_KEY_ADVICE },
    { "control.api_key", API_KEY_ADVICE },
    { "control.project_key", API_KEY_ADVICE },
    { "ingest_secret", INGEST_SECRET_ADVICE },
    { "control.ingest_secret", INGEST_SECRET_ADVICE },
};

const char *secret_refusal(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(secret_names); i++)
        if (strcmp(secret_names[i].name, name) == 0)
            return secret_names[i].refusal;
    return NULL;
}

/* The same for the form a flag or variable has: lower case, one sign between words. */
static const char *spelled_refusal(const char *spelled)
{
    for (size_t i = 0; i < ARRAY_LEN(secret_names); i++) {
        const char *a = secret_names[i].name, *b = spelled;
        for (; *a && *b; a++, b++)
            if (*a != tolower((unsigned char)*b) && !(strchr("._", *a) && strchr("-_", *b)))
                break;
        if (!*a && !*b)
            return secret_names[i].refusal;
    }
    return NULL;
}

/* -- variables ----------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end)
{
    size_t len = strlen(s), n = strlen(end);
    return len >= n && strcmp(s + len - n, end) == 0;
}

/* "PORT_<digits>_TCP", and with _PROTO, _PORT or _ADDR behind, at p? */
static bool is_port_link(const char *p)
{
    static const char *const protocols[] = { "_TCP", "_UDP", "_SCTP" };

    size_t digits = strspn(p, "0123456789");
    for (size_t i = 0; digits && i < ARRAY_LEN(protocols); i++) {
        size_t n = strlen(protocols[i]);
        const char *rest = p + digits + n;
        if (strncmp(p + digits, protocols[i], n) == 0 &&
            (!*rest || strcmp(rest, "_PROTO") == 0 || strcmp(rest, "_PORT") == 0 ||
             strcmp(rest, "_ADDR") == 0))
            return true;
    }
    return false;
}

/* Kubernetes sets these for each Service whose name begins with "tripswitch-proxy". */
static bool is_service_link(const char *name)
{
    const char *rest = name + PREFIX_LEN - 1; /* from the last "_" of the prefix */

    if (ends_with(rest, "_SERVICE_HOST") || ends_with(rest, "_PORT"))
        return true;
    for (const char *p = strstr(rest, "_SERVICE_PORT"); p; p = strstr(p + 1, "_SERVICE_PORT"))
        if (p[13] == 0 || p[13] == '_')
            return true;
    for (const char *p = strstr(rest, "_PORT_"); p; p = strstr(p + 1, "_PORT_"))
        if (is_port_link(p + 6))
            return true;
    return false;
}

typedef void name_writer(const struct config_option *o, struct strbuf *out);

/* text: only what can be a flag or variable, else only what cannot. */
static const struct config_option *find_spelled(const char *name, name_writer *spell, bool text)
{
    const struct config_option *found = NULL;
    struct strbuf spelled = STRBUF_INIT;

    for (size_t i = 0; i < global_options.count && !found; i++) {
        const struct config_option *o = &global_options.rows[i];
        strbuf_clear(&spelled);
        spell(o, &spelled);
        if (option_is_text(o) == text && strcmp(strbuf_str(&spelled), name) == 0)
            found = o;
    }
    strbuf_free(&spelled);
    return found;
}

/* The known name that is nearest, or that ends like this one: its section was forgotten. */
static const char *find_near(struct loader *l, const char *name, size_t prefix_len,
                             name_writer *spell)
{
    struct suggestion near;
    const char *longer = NULL, *tail = name + prefix_len - 1;

    suggest_start(&near, name);
    for (size_t i = 0; i < global_options.count; i++) {
        struct strbuf spelled = STRBUF_INIT;
        spell(&global_options.rows[i], &spelled);
        const char *known = arena_strdup(l->arena, strbuf_str(&spelled));
        strbuf_free(&spelled);
        if (!option_is_text(&global_options.rows[i]))
            continue;
        suggest_offer(&near, known);
        if (!longer && strlen(known) > strlen(name) && ends_with(known, tail))
            longer = known;
    }
    for (size_t i = 0; spell == option_env_name && i < ARRAY_LEN(other_variables); i++)
        suggest_offer(&near, other_variables[i]);
    if (spell == option_flag_name)
        suggest_offer(&near, "--config");
    return near.best ? near.best : longer;
}

static void refuse_unknown(struct loader *l, const char *name, size_t prefix_len,
                           name_writer *spell, const char *what)
{
    struct place_of at = { .name = name };
    const char *near = find_near(l, name, prefix_len, spell);

    if (find_spelled(name, spell, false))
        report_error(&l->report, at, "this can be set in the file only");
    else if (near)
        report_error(&l->report, at, "unknown %s; did you mean \"%s\"?", what, near);
    else
        report_error(&l->report, at, "unknown %s", what);
}

static void apply_variable(struct loader *l, const char *name, const char *value)
{
    const struct config_option *o = find_spelled(name, option_env_name, true);
    const char *refusal = spelled_refusal(name + PREFIX_LEN);

    for (size_t i = 0; i < ARRAY_LEN(other_variables); i++)
        if (strcmp(name, other_variables[i]) == 0)
            return;
    if (o)
        apply_text(l, &global_options, o, l->loaded, value, (struct place_of){ .name = name },
                   false);
    else if (refusal)
        report_error(&l->report, (struct place_of){ .name = name }, "%s", refusal);
    else if (!is_service_link(name))
        refuse_unknown(l, name, PREFIX_LEN, option_env_name, "variable");
}

void environment_apply(struct loader *l, char **envp)
{
    l->layer = LAYER_ENV;
    for (; envp && *envp; envp++) {
        const char *equals = strchr(*envp, '=');
        if (!equals || !equals[1] || strncmp(*envp, PREFIX, PREFIX_LEN) != 0)
            continue;
        apply_variable(l, arena_strndup(l->arena, *envp, (size_t)(equals - *envp)), equals + 1);
    }
}

/* -- flags --------------------------------------------------------------------------- */

static bool has_password(const char *url)
{
    return strchr(url, '@') != NULL;
}

static void apply_flag(struct loader *l, const struct config_option *o, const char *name,
                       const char *value)
{
    struct place_of at = { .name = name };
    struct origin *origin = &l->origins[o - global_options.rows];

    if (o->flags & OPTION_SECRET && has_password(value)) {
        report_error(&l->report, at,
                     "every local user can read flags; a password belongs into the file or the "
                     "environment");
        origin->bad = true;
    } else if (!*value && !option_is_list(o) && !(o->flags & OPTION_NULL)) {
        report_error(&l->report, at, "the value is empty");
        origin->bad = true;
    } else {
        apply_text(l, &global_options, o, l->loaded, value, at, origin->layer == LAYER_FLAG);
    }
}

static bool is_bool_word(const char *s)
{
    return strcmp(s, "true") == 0 || strcmp(s, "false") == 0 || strcmp(s, "1") == 0 ||
           strcmp(s, "0") == 0;
}

/* The value of a flag without "=": the next argument, unless the flag can do without or that is
 * a flag itself.  NULL: there is none. */
static const char *next_value(char **argv, int argc, int *i, bool is_bool)
{
    const char *next = *i + 1 < argc ? argv[*i + 1] : NULL;

    if (!next || strncmp(next, "--", 2) == 0 || (is_bool && !is_bool_word(next)))
        return is_bool ? "true" : NULL;
    ++*i;
    return next;
}

static void read_flag(struct loader *l, char **argv, int argc, int *i)
{
    const char *equals = strchr(argv[*i], '=');
    size_t len = equals ? (size_t)(equals - argv[*i]) : strlen(argv[*i]);
    const char *name = arena_strndup(l->arena, argv[*i], len);
    struct place_of at = { .name = name };
    const struct config_option *o = find_spelled(name, option_flag_name, true);
    const char *refusal = spelled_refusal(name + 2);
    const char *value = equals ? equals + 1 : next_value(argv, argc, i, o && o->type == TYPE_BOOL);

    if (strcmp(name, "--config") == 0) {
        if (!value || !*value)
            report_error(&l->report, at, "the name of a file is missing");
    } else if (refusal) {
        report_error(&l->report, at, "every local user can read flags: %s", refusal);
    } else if (!o) {
        refuse_unknown(l, name, 2, option_flag_name, "flag");
    } else if (!value) {
        report_error(&l->report, at, "the value is missing");
        l->origins[o - global_options.rows].bad = true;
    } else {
        apply_flag(l, o, name, value);
    }
}

void flags_apply(struct loader *l, char **argv, int argc)
{
    l->layer = LAYER_FLAG;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) == 0 && argv[i][2])
            read_flag(l, argv, argc, &i);
        else
            report_error(&l->report, (struct place_of){ .name = argv[i] },
                         "this is not a flag; flags begin with \"--\"");
    }
}

const char *config_file(char **argv, int argc, char **envp)
{
    static const char flag[] = "--config", variable[] = PREFIX "CONFIG=";
    const size_t len = sizeof(flag) - 1;
    const char *file = NULL;

    for (; envp && *envp; envp++)
        if (strncmp(*envp, variable, sizeof(variable) - 1) == 0 && (*envp)[sizeof(variable) - 1])
            file = *envp + sizeof(variable) - 1;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], flag) == 0 && i + 1 < argc)
            file = argv[++i];
        else if (strncmp(argv[i], flag, len) == 0 && argv[i][len] == '=' && argv[i][len + 1])
            file = argv[i] + len + 1;
    }
    return file;
}
