/*
 * net_options.h - the flags of init-net.
 *
 * Pure: text in, values out.  Numbers and networks are parsed strictly here, so that
 * nothing but them ever reaches a rule.
 */
#ifndef PROXY_NET_OPTIONS_H
#define PROXY_NET_OPTIONS_H
#include "config/config.h"
#include <stdbool.h>
#include <stdint.h>

struct strbuf;

#define NET_DEFAULT_UID  65532 /* the user of our image and of our manifests */
#define NET_DEFAULT_PORT 3129  /* where a transparent listener usually is */
#define NET_LIST_MAX     256   /* entries of a list */

enum net_action {
    NET_APPLY = 1,
    NET_PRINT = 2,
    NET_REMOVE = 4,
    NET_VERIFY = 8,
    NET_HELP = 16,
};

enum net_backend {
    NET_NFT,
    NET_IPTABLES_NFT,
    NET_IPTABLES_LEGACY,
    NET_BACKEND_COUNT, /* as a choice: the first that works */
};

struct net_options {
    unsigned actions;         /* of enum net_action */
    enum net_backend backend; /* NET_BACKEND_COUNT unless chosen */
    bool uid_given, gid_given;
    bool by_uid, by_gid; /* which of the two below exclude the proxy; at least one */
    uint32_t uid, gid;
    uint16_t port;             /* captured connections arrive here */
    struct port_list ports;    /* owned, sorted, merged: what is captured */
    struct port_list kept;     /* owned, sorted, merged: our own and --exclude-ports */
    struct cidr_list excluded; /* owned: --exclude-cidr, as given */
};

/* argv[0] is the subcommand.  -1: why says what is wrong, one line without newline. */
int net_options_parse(int argc, char **argv, struct net_options *out, struct strbuf *why);
void net_options_free(struct net_options *o);

const char *net_backend_name(enum net_backend b);
/* The lowest port that is captured and not excluded; 0: there is none. */
uint16_t net_options_first_port(const struct net_options *o);
void net_options_usage(struct strbuf *out);

#endif
