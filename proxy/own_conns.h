/*
 * own_conns.h - does a redirected connection come from ourselves?
 *
 * Rules that do not except the proxy send its own connections back to it, each time as a new
 * one.  So connections to origins are noted by their two addresses, where there are
 * transparent listeners; who accepts a noted one marks it and hangs up, and the end that
 * opened it learns that it has met itself.  Any thread, no lock; of a fixed size: what finds
 * no place is not noticed.  Nor is one whose source port the kernel has rewritten, which it does
 * where the redirect would make two connections the same: each costs a hop more, the next of
 * which has other ports.  Were no two of our sockets to share one, ports would be too few.
 */
#ifndef PROXY_OWN_CONNS_H
#define PROXY_OWN_CONNS_H
#include <stdbool.h>
#include <stdint.h>

struct address;
struct own_conns; /* opaque, one per process; NULL (nothing is redirected) is fine everywhere */

struct own_conns *own_conns_new(void);
void own_conns_free(struct own_conns *o);
/* A new connection, before its first byte is sent.  0: not noted. */
uint32_t own_conns_add(struct own_conns *o, const struct address *local, const struct address *to);
void own_conns_remove(struct own_conns *o, uint32_t place); /* 0 is fine */
/* Accepted: is it one of ours?  Then it is marked. */
bool own_conns_meet(struct own_conns *o, const struct address *peer,
                    const struct address *original);
bool own_conns_met(const struct own_conns *o, uint32_t place);

#endif
