/*
 * transparent.h - connections that the kernel redirected to us.
 *
 * The original destination comes from the kernel (SO_ORIGINAL_DST); what is inside, from
 * the client's first bytes: HTTP is routed by Host, TLS by its server name, anything
 * else by address.  All of it goes to the original address, whatever the names say.
 */
#ifndef PROXY_TRANSPARENT_H
#define PROXY_TRANSPARENT_H
#include "proxy/dns.h"
#include <stdbool.h>

struct downstream;

/* Where the connection was going.  -1: it was not redirected (its destination is its local
 * address), or the kernel cannot tell. */
int transparent_destination(int fd, struct address *out);

/* Reads until it is clear what the client speaks.  d->original is set.  Ends with
 * d->undecided cleared, or the connection closed. */
void transparent_decide(struct downstream *d, bool waited_long_enough);

#endif
