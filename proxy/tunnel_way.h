/*
 * tunnel_way.h - one direction of a tunnel.
 *
 * Bytes are copied through buffer blocks; after two full reads in a row they go by
 * splice(2), while one of the worker's pipes is free, and by copying while none is.  An idle
 * direction holds neither.
 */
#ifndef PROXY_TUNNEL_WAY_H
#define PROXY_TUNNEL_WAY_H
#include "proxy/conn.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TUNNEL_PIPES_MAX 64 /* per worker: pipe pages are limited per user */

struct tunnel_pipe {
    struct tunnel_pipe *next; /* in the worker's free list */
    int fds[2];
    size_t bytes;
};

struct tunnel_way {
    struct tunnel_pipe *pipe; /* NULL: copying */
    uint8_t full_reads;       /* in a row */
    bool looking;             /* its first bytes are looked at: pass them on one read at a time */
    bool pipeless;            /* it wanted one and there was none: counted */
    bool eof;                 /* the source has ended */
    bool shut;                /* and the sink has been told */
};

enum way_result { WAY_OPEN, WAY_ENDED, WAY_BROKEN };

struct way_run {
    struct worker *w;
    struct tunnel_way *way;
    struct conn *from, *to;
    uint64_t moved; /* out: bytes that came from the source */
    bool wrote;     /* out: the sink took some */
};

/* Does what can be done now.  BROKEN: by r->from->error, behind what the source sent before, or
 * by r->to->write_error.  It may be run again, to deliver the rest. */
enum way_result tunnel_way_run(struct way_run *r);

/* The block that comes next, read if need be; NULL: nothing now. */
const struct block *tunnel_way_peek(struct way_run *r);
/* Queues that block as it is; tunnel_way_run writes it.  False: none, or the sink is behind. */
bool tunnel_way_pass(struct way_run *r);

/* The sink's kernel has taken all that was read. */
bool tunnel_way_delivered(const struct way_run *r);

/* The source has ended: once everything is delivered the sink is told. */
void tunnel_way_end(struct way_run *r);

void tunnel_way_free(struct worker *w, struct tunnel_way *way); /* gives its pipe back */
void tunnel_pipes_free(struct worker *w);

#endif
