/*
 * cli.h - the subcommands that talk to a running proxy: override, bypass, explain, status.
 *
 * One table with each one's flags and help.  Where the proxy listens they learn as `run`
 * does, from file, environment and flags, unless --admin (or --telemetry) says it; no key
 * is needed for that.  The proxy variables of the environment are ignored.
 */
#ifndef PROXY_CLI_H
#define PROXY_CLI_H

struct cli_command; /* opaque */
struct strbuf;

enum { /* exit codes */
       CLI_OK = 0,
       CLI_REFUSED = 1, /* the proxy said no; status: degraded */
       CLI_USAGE = 2,
       CLI_REJECTED = 3, /* explain: would be refused */
       CLI_UNREACHABLE = 69,
       CLI_CONFIG = 78,
};

const struct cli_command *cli_find(const char *name); /* NULL: not one of these */
/* argv[0] is the subcommand.  The exit code. */
int cli_run(const struct cli_command *c, int argc, char **argv, char **envp);

void cli_list(struct strbuf *out); /* one line each, for --help */
/* The command that was meant, of these and of others, or NULL. */
const char *cli_suggest(const char *word);

#endif
