/*
 * cli_call.h - what the subcommands of cli.h share: their arguments, asking the proxy, and
 * text for people.
 */
#ifndef PROXY_CLI_CALL_H
#define PROXY_CLI_CALL_H
#include "base/strbuf.h"
#include "config/config.h"
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#define CLI_ARGS_MAX 2

struct cli_call {
    const char *command;
    const char *args[CLI_ARGS_MAX];
    unsigned arg_count;
    struct name_value_list flags; /* own ones, "for" -> "10m"; a switch has the value "" */
    struct config_source source;  /* all others are those of `run` */
};

/* The value of a flag, the last one if it is repeated; NULL: not given. */
const char *cli_flag(const struct cli_call *call, const char *name);

/* To stderr: "tripswitch-proxy COMMAND: ...". */
void cli_say(const struct cli_call *call, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* The same for a mistake on the command line: points to --help; returns CLI_USAGE. */
int cli_misuse(const struct cli_call *call, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* The configuration as `run` would read it; keys need not be there.  0, or an exit code after
 * saying why. */
int cli_config(const struct cli_call *call, struct config **out);

/* ---- cli_ask.c ---- */

enum cli_listener { CLI_ADMIN, CLI_TELEMETRY };

struct cli_answer {
    int status; /* of HTTP */
    struct strbuf body;
    char address[80]; /* who answered */
};

/* One request.  body: JSON, or NULL.  CLI_OK, or an exit code; for CLI_UNREACHABLE *why says what
 * happened and what to do, other codes have been explained already. */
int cli_ask(const struct cli_call *call, enum cli_listener to, const char *method, const char *path,
            const char *body, struct cli_answer *out, struct strbuf *why);
/* Parses a 2xx answer.  NULL: a message has been printed, and *code is set. */
cJSON *cli_read(const struct cli_call *call, const struct cli_answer *a, int *code);
/* Appends name=value percent-encoded to a query. */
void cli_add_query(struct strbuf *path, const char *name, const char *value);
void cli_add_encoded(struct strbuf *path, const char *text);

const cJSON *cli_first(const cJSON *object, const char *name); /* of an array; NULL: it is empty */
const char *cli_text(const cJSON *object, const char *name);   /* "" without one */
double cli_number(const cJSON *object, const char *name);      /* 0 without one */
bool cli_true(const cJSON *object, const char *name);

/* ---- cli_text.c ---- */

#define CLI_LABEL_WIDTH 11
#define CLI_COLUMNS     80

/* "label      text", folded at CLI_COLUMNS, continued below the text.  What could steer a
 * terminal is replaced. */
void cli_add_row(struct strbuf *out, const char *label, const char *text);
/* What could steer a terminal is replaced. */
void cli_add_safe(struct strbuf *out, const char *text);
size_t cli_width(const char *text); /* in columns */
/* RFC 3339 without the fraction of a second. */
void cli_add_time(struct strbuf *out, const char *time);
/* 90000 ms -> "1m 30s". */
void cli_add_duration(struct strbuf *out, double ms);

/* ---- the commands ---- */

int cli_override(const struct cli_call *call);
int cli_bypass(const struct cli_call *call);
int cli_explain(const struct cli_call *call);
int cli_status(const struct cli_call *call);

#endif
