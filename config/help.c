/* --help: what follows the usage lines. */
#include "base/base.h"
#include "base/strbuf.h"
#include "config/options.h"
#include <string.h>

#define WIDTH  80
#define INDENT 6

static const struct {
    const char *section;
    const char *title;
} titles[] = {
    { "", "General" },          { "control", "Control plane" }, { "samples", "Samples" },
    { "timeouts", "Timeouts" }, { "limits", "Limits" },         { "dns", "DNS" },
    { "access", "Access" },     { "drain", "Draining" },        { "access_log", "Access log" },
};

static const char *placeholder(const struct config_option *o)
{
    switch (o->type) {
    case TYPE_BOOL:
        return "true|false";
    case TYPE_INT:
        return o->flags & OPTION_OFF ? "N|off" : "N";
    case TYPE_NUMBER:
        return "NUMBER";
    case TYPE_DURATION:
        return o->flags & OPTION_OFF ? "TIME|off" : "TIME";
    case TYPE_SIZE:
        return "SIZE";
    case TYPE_ENUM:
    case TYPE_WORD:
        return o->choices;
    case TYPE_CONTROL_URL:
        return "URL|embedded";
    case TYPE_LISTEN:
        return o->flags & OPTION_OFF ? "ADDRESS:PORT,...|off" : "ADDRESS:PORT,...";
    case TYPE_CIDRS:
        return "NETWORK,...";
    case TYPE_PORTS:
        return "PORT,...";
    case TYPE_STRINGS:
        return "TEXT,...";
    default:
        return strstr(o->name, "_file") || strstr(o->name, ".path") ? "FILE"
               : strstr(o->name, "proxy")                           ? "URL"
                                                                    : "TEXT";
    }
}

/* text in lines of at most WIDTH bytes, each indented. */
static void add_wrapped(struct strbuf *out, const char *text)
{
    size_t column = 0;

    for (const char *p = text; *p;) {
        size_t len = strcspn(p, " ");
        if (column && column + 1 + len > WIDTH) {
            strbuf_addc(out, '\n');
            column = 0;
        }
        if (!column) {
            strbuf_addf(out, "%*s", INDENT, "");
            column = INDENT;
        } else {
            strbuf_addc(out, ' ');
            column++;
        }
        strbuf_add(out, p, len);
        column += len;
        p += len;
        p += *p == ' ';
    }
    strbuf_addc(out, '\n');
}

static void add_option(struct strbuf *out, const struct config_option *o)
{
    struct strbuf sentence = STRBUF_INIT;

    strbuf_adds(out, "  ");
    option_flag_name(o, out);
    strbuf_addf(out, " %s\n", placeholder(o));
    strbuf_adds(&sentence, o->help);
    if (o->def && *o->def) {
        strbuf_adds(&sentence, " [");
        for (const char *p = o->def; *p; p++) {
            strbuf_addc(&sentence, *p);
            if (*p == ',')
                strbuf_addc(&sentence, ' ');
        }
        strbuf_addc(&sentence, ']');
    }
    if (o->flags & OPTION_RESTART)
        strbuf_adds(&sentence, " Not reloadable.");
    add_wrapped(out, strbuf_str(&sentence));
    strbuf_free(&sentence);
}

static bool in_section(const struct config_option *o, const char *section)
{
    size_t len = strlen(section);

    if (!option_is_text(o))
        return false;
    return len ? strncmp(o->name, section, len) == 0 && o->name[len] == '.' : !strchr(o->name, '.');
}

void config_help(struct strbuf *out)
{
    static const char rules[] =
        "Each flag is also a variable (--drain-min: TRIPSWITCH_PROXY_DRAIN_MIN) and a key of the "
        "file (drain.min); a flag beats a variable, a variable beats the file. Lists are parted "
        "by commas, or the flag is repeated. TIME is a number and ms, s, m, h or d; SIZE a "
        "number and B, KiB, MiB or GiB.";
    static const char secrets[] =
        "TRIPSWITCH_PROJECT_ID, TRIPSWITCH_API_KEY, TRIPSWITCH_INGEST_SECRET and "
        "TRIPSWITCH_BASE_URL say who the proxy is for its control plane. Each may be a file "
        "instead: TRIPSWITCH_API_KEY_FILE. No flag takes a secret.";

    for (size_t s = 0; s < ARRAY_LEN(titles); s++) {
        strbuf_addf(out, "%s%s:\n", s ? "\n" : "", titles[s].title);
        for (size_t i = 0; i < global_options.count; i++)
            if (in_section(&global_options.rows[i], titles[s].section))
                add_option(out, &global_options.rows[i]);
        if (!s) {
            strbuf_adds(out, "  --config FILE\n");
            add_wrapped(out, "The configuration, JSON with // comments; also "
                             "TRIPSWITCH_PROXY_CONFIG.");
        }
    }
    strbuf_adds(out, "\nRules:\n");
    add_wrapped(out, rules);
    strbuf_adds(out, "\nEnvironment:\n");
    add_wrapped(out, secrets);
}
