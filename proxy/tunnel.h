/*
 * tunnel.h - bytes both ways: CONNECT, and connections that were upgraded.
 *
 * Starts with read and write through buffer blocks; a direction that fills two reads in
 * a row turns to splice(2) while a pipe is free (64 per worker).  An idle tunnel holds
 * neither block nor pipe.  Each direction ends on its own (half-close); a reset ends
 * both.  An opaque tunnel is one attempt, judged at the first upstream byte or at the
 * failure before it.
 */
#ifndef PROXY_TUNNEL_H
#define PROXY_TUNNEL_H
#include "proxy/worker.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct exchange;

#define TUNNEL_PIPES_MAX    64 /* per worker: pipe pages are limited per user */
#define TUNNEL_SNIFF_MS     200
#define TUNNEL_SNIFF_MAX    8192
#define TUNNEL_IDLE_OPEN_MS 1000 /* close_idle: idle for this long while a breaker is open */

struct tunnel_pipe {
    struct tunnel_pipe *next; /* in the worker's free list */
    int fds[2];
    size_t bytes;
};

struct tunnel_way {
    struct tunnel_pipe *pipe; /* NULL: copying */
    uint8_t full_reads;       /* in a row */
    bool eof;                 /* the source has ended */
    bool shut;                /* and the sink has been told */
};

struct tunnel {
    struct list link; /* in worker->tunnels */
    struct exchange *ex;
    struct tunnel_way up, down; /* client to upstream, upstream to client */
    bool sniffing;              /* is it plain HTTP? the client's bytes wait in its input block */
    bool client_hello;
    int64_t sniff_until_ms;
};

/* ex->up stands.  CONNECT: the 200 has been queued; sniff: look for plain HTTP first. */
void tunnel_begin(struct exchange *ex, bool sniff);
void tunnel_run(struct exchange *ex); /* any event; may end the exchange */
void tunnel_on_deadline(struct exchange *ex);
int64_t tunnel_deadline(const struct exchange *ex); /* OFF: none */
void tunnel_free(struct exchange *ex);              /* gives pipes back; fine without a tunnel */

/* Every second: closes tunnels whose breaker is open, as tunnels_on_open says. */
void tunnels_tick(struct worker *w);
void tunnel_pipes_free(struct worker *w);

/* Do the client's first bytes begin a plain HTTP/1 request? (pure) */
enum sniff { SNIFF_MORE, SNIFF_HTTP, SNIFF_OPAQUE };
enum sniff tunnel_sniff(const uint8_t *data, size_t len);

#endif
