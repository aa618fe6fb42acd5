/*
 * self.h - is this address one of our own listeners?
 *
 * Asked with the address that would really be connected to, so that no spelling and no
 * DNS name gets around it: a proxy that talks to itself loops, and our telemetry and
 * admin ports are not for the applications behind us.  And for people: where do we listen?
 */
#ifndef PROXY_SELF_H
#define PROXY_SELF_H
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

struct self_addrs; /* opaque; filled before the workers start, then read-only */

enum self_kind { SELF_NO, SELF_PROXY, SELF_TRANSPARENT, SELF_TELEMETRY, SELF_ADMIN };

struct self_addrs *self_new(void);
void self_free(struct self_addrs *s);
void self_add(struct self_addrs *s, const struct sockaddr *bound, enum self_kind kind);
enum self_kind self_check(const struct self_addrs *s, const struct sockaddr *destination);

/* Those of one kind as they were bound, with the port that the kernel chose for port 0, in the
 * order of self_add: "127.0.0.1:3128", "[::1]:3128".  Start with *pos = 0, false at the end. */
#define SELF_TEXT_SIZE 56
bool self_next(const struct self_addrs *s, enum self_kind kind, size_t *pos,
               char text[SELF_TEXT_SIZE]);

#endif
