/*
 * net_probe.h - who listens on the proxy's port, and is a connection captured.
 *
 * Reads /proc/net/tcp and tcp6 (proc(5)), which show this network namespace, with the owner
 * of each socket.  Whether a connection was captured is seen at its other end: a socket
 * of this namespace on the proxy's port whose peer is our own address and port.  The
 * parsers are pure.
 */
#ifndef PROXY_NET_PROBE_H
#define PROXY_NET_PROBE_H
#include "config/config.h"
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

struct strbuf;

/* Sockets that listen where redirected connections arrive: 127.0.0.1 and ::1. */
struct net_listeners {
    bool v4, v6;
    uint32_t uid; /* of one of them */
};

/* Texts of /proc/net/tcp and /proc/net/tcp6; NULL is like empty. */
void net_listeners_read(const char *tcp, const char *tcp6, uint16_t port,
                        struct net_listeners *out);
/* Is there a socket on the local port whose other end is peer (IPv4 or IPv6)? */
bool net_peer_read(const char *tcp, const char *tcp6, uint16_t port, const struct sockaddr *peer);

void net_listeners_find(uint16_t port, struct net_listeners *out);

enum net_capture {
    NET_CAPTURED,
    NET_NOT_CAPTURED,
    NET_UNTESTED, /* why tells what kept us from it */
};

/* Connect to an address of documentation (RFC 5737, RFC 3849), where nobody answers, unless
 * the connection is captured; takes at most 2 s.  excluded addresses are avoided. */
enum net_capture net_probe(bool v6, uint16_t captured_port, uint16_t proxy_port,
                           const struct cidr_list *excluded, struct strbuf *why);

#endif
