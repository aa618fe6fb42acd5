/*
 * listener.h - listening sockets, and who may come in.
 *
 * Main opens every socket before any thread starts: the first one of an address
 * without SO_REUSEPORT, so that a second copy of the program gets a clear error; then one
 * more per further worker joins it.  Running out of descriptors pauses accept.
 */
#ifndef PROXY_LISTENER_H
#define PROXY_LISTENER_H
#include "proxy/worker.h"
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct listen_addr;
struct strbuf;

struct listener {
    struct worker *w;
    int fd;
    bool paused;
    bool transparent;
    struct event ev;
    struct event resume;
};

/* Opens count listening sockets of one address.  -1: errors says why and what to do;
 * *code is the exit code (73, 77). bound receives the real address (port 0 resolved). */
int listener_open(const struct listen_addr *addr, int *fds, unsigned count,
                  struct sockaddr_storage *bound, struct strbuf *errors, int *code);

/* ::1 on a host without IPv6, as containers often are: the defaults name both loopbacks. */
bool listener_lacks_ipv6(const struct listen_addr *addr);

/* Takes over fd. */
void listener_attach(struct listener *l, struct worker *w, int fd, bool transparent);
/* The worker has adopted another snapshot. */
void listener_reconfigure(struct listener *l);
void listener_detach(struct listener *l); /* closes it */

/* A client connection has closed: gives its places back. */
void listener_client_gone(struct worker *w, uint32_t client_slot, bool turned_away);

#endif
