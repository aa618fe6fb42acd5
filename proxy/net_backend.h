/*
 * net_backend.h - put the rules in place, take them away, look at them: with nft or with one
 * of the two kinds of iptables.
 *
 * Applying is all or nothing, for both versions of IP, and replaces rules of ours that are
 * there; doing it twice is like doing it once.  Removing leaves what was there before: a table
 * nat that iptables-nft made for us goes too, unless others use it by now.  (A legacy table
 * stays; it is empty and the kernel has no way to drop it.)  Without IPv6 in the kernel,
 * iptables is asked for IPv4 only.
 */
#ifndef PROXY_NET_BACKEND_H
#define PROXY_NET_BACKEND_H
#include "proxy/net_options.h"
#include "proxy/net_tool.h"
#include <stdbool.h>

struct strbuf;

/* All: why says what went wrong, in one line. */
enum net_tool_end net_backend_apply(enum net_backend b, const struct net_options *o,
                                    struct strbuf *why);
/* NET_TOOL_OK also when there was nothing to remove. */
enum net_tool_end net_backend_remove(enum net_backend b, bool *removed, struct strbuf *why);
/* found: anything of ours is there; in_place: exactly these rules are, else why says more. */
enum net_tool_end net_backend_check(enum net_backend b, const struct net_options *o, bool *found,
                                    bool *in_place, struct strbuf *why);

#endif
