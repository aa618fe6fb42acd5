/*
 * self.h - is this address one of our own listeners?
 *
 * Asked with the address that would really be connected to, so that no spelling and no
 * DNS name gets around it: a proxy that talks to itself loops, and our telemetry and
 * admin ports are not for the applications behind us.
 */
#ifndef PROXY_SELF_H
#define PROXY_SELF_H
#include <sys/socket.h>

struct self_addrs; /* opaque; filled before the workers start, then read-only */

enum self_kind { SELF_NO, SELF_PROXY, SELF_PRIVATE /* telemetry, admin */ };

struct self_addrs *self_new(void);
void self_free(struct self_addrs *s);
void self_add(struct self_addrs *s, const struct sockaddr *bound, enum self_kind kind);
enum self_kind self_check(const struct self_addrs *s, const struct sockaddr *destination);

#endif
