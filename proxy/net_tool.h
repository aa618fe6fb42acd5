/*
 * net_tool.h - run nft or iptables: no shell, the script on its standard input.
 *
 * The program is looked for in PATH, then in /usr/sbin and /sbin, which a service's
 * PATH may lack.  It gets a small environment of its own, with LC_ALL=C because we read what
 * it says.  A program that takes longer than NET_TOOL_LIMIT_MS is killed.
 */
#ifndef PROXY_NET_TOOL_H
#define PROXY_NET_TOOL_H
#include <stdbool.h>

struct strbuf;

#define NET_TOOL_LIMIT_MS 30000

enum net_tool_end {
    NET_TOOL_OK,
    NET_TOOL_FAILED, /* why has what it said on standard error, or what befell it */
    NET_TOOL_DENIED, /* the same; the kernel said that we may not */
    NET_TOOL_ABSENT, /* not installed */
};

/* argv ends with NULL.  input may be NULL.  out receives its standard output; may be NULL.
 * why is one line, with the program's name. */
enum net_tool_end net_tool_run(const char *const argv[], const char *input, struct strbuf *out,
                               struct strbuf *why);
bool net_tool_installed(const char *name);

#endif
