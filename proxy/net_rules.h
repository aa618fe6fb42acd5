/*
 * net_rules.h - the redirecting rules as text, for nft and for iptables, and reading them back.
 *
 * Pure.  Only outgoing TCP of this network namespace is redirected (hook OUTPUT), the first
 * rule that fits decides: connections that stand already, the proxy itself, what stays on the
 * machine, excluded addresses and ports go their way, then the captured ports are redirected to the
 * proxy.
 *
 * nft: one table of the inet family for both versions of IP; one script that deletes the old
 * and makes the new one, so the kernel applies all of it or nothing.  iptables: a chain of our
 * own in the table nat and one jump to it, once for each version of IP; a restore
 * is atomic too.  Each rule carries a comment "tripswitch-proxy HASH 3/9" by which we
 * know it again, however a version of the tools formats the rest; HASH is that of the flags.
 */
#ifndef PROXY_NET_RULES_H
#define PROXY_NET_RULES_H
#include "base/strbuf.h"
#include "proxy/net_options.h"
#include <stdbool.h>

#define NET_TABLE "tripswitch_proxy" /* nft */
#define NET_CHAIN "TRIPSWITCH_PROXY" /* iptables */

/* What iptables-save says about the table nat. */
struct net_saved {
    bool table;         /* it exists */
    bool chain;         /* and our chain in it */
    bool made;          /* our jump says that the table came into being with it */
    bool others;        /* there are rules, chains or policies besides ours */
    unsigned jumps;     /* from OUTPUT to our chain */
    struct strbuf undo; /* owned: lines that delete every jump to our chain */
};

void net_saved_read(const char *text, struct net_saved *out); /* out: uninitialized before */
void net_saved_free(struct net_saved *s);

/* Scripts: for "nft -f -" ... */
void net_rules_nft(const struct net_options *o, struct strbuf *out);
void net_rules_nft_remove(struct strbuf *out);
/* ... and for "iptables-restore --noflush", given what is there.  A jump that exists stays
 * where it is; a new one goes to the end of OUTPUT, behind what others have decided. */
void net_rules_iptables(const struct net_options *o, bool v6, const struct net_saved *before,
                        struct strbuf *out);
void net_rules_iptables_remove(const struct net_saved *before, struct strbuf *out);

/* Are exactly these rules in place?  listing: of "nft list table", of iptables-save.
 * -1: why says what is wrong. */
int net_rules_check_nft(const struct net_options *o, const char *listing, struct strbuf *why);
int net_rules_check_iptables(const struct net_options *o, bool v6, const char *listing,
                             struct strbuf *why);

/* "TCP ports 80,443 go to port 3129, except what user 65532 opens" */
void net_rules_describe(const struct net_options *o, struct strbuf *out);

#endif
