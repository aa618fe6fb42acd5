/*
 * rewrite.h - the head that leaves, written anew from the head that came (pure).
 *
 * Start line and framing are ours; every other field line passes byte for byte and in
 * order, except hop-by-hop ones and Host, which gets the target's authority in place
 * (DESIGN promise 6).
 */
#ifndef PROXY_REWRITE_H
#define PROXY_REWRITE_H
#include "proxy/http1.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rewrite_request {
    struct slice authority; /* for Host, as the client spelt it in the target */
    struct slice path;      /* what followed the authority; may be empty or start with '?' */
    const char *via;        /* NULL: none */
    int64_t max_forwards;   /* new value; -1: leave */
    const char *upgrade;    /* tokens to pass on with a Connection of our own; NULL: none */
};

struct rewrite_response {
    const char *via;
    bool chunked; /* we send chunked */
    bool close;   /* we announce that we close */
    bool upgrade; /* a 101 that answers a relayed Upgrade */
};

/* The result never exceeds this many bytes. */
size_t rewrite_bound(const struct http1_head *h, size_t head_len, const char *via,
                     struct slice authority);
/* Bytes written to out; cap is at least rewrite_bound(). */
size_t rewrite_request(const struct http1_head *h, const struct rewrite_request *o, uint8_t *out,
                       size_t cap);
size_t rewrite_response(const struct http1_head *h, const struct rewrite_response *o, uint8_t *out,
                        size_t cap);

#endif
