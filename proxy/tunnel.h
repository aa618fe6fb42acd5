/*
 * tunnel.h - bytes both ways: CONNECT, and connections that were upgraded.
 *
 * Each direction ends on its own (half-close); a reset ends both, behind what the peer had
 * sent before it.  An opaque tunnel is one
 * attempt, judged at the first upstream byte or at the failure before it.  The first bytes
 * of a CONNECT are looked at as they pass, and never held back for it: the client's for a
 * TLS server name, the upstream's for TLS alerts in place of an answer.
 */
#ifndef PROXY_TUNNEL_H
#define PROXY_TUNNEL_H
#include "proxy/tls_hello.h"
#include "proxy/tunnel_way.h"
#include "proxy/worker.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct exchange;
struct tunnel_route;

#define TUNNEL_SNIFF_MS  200
#define TUNNEL_SNIFF_MAX 8192
#define TUNNEL_UNSENT_MS 20   /* with a broken side: between two looks at what is not sent yet */
#define TUNNEL_ALERT_MS  1000 /* for the rest of an alert, and for what follows a warning */
/* More than two kernels hold, so that who is not listened to goes on listening. */
#define TUNNEL_DISCARD_BYTES ((size_t)16 * 1024 * 1024)

/* What the first bytes said so far. */
struct tunnel_look {
    struct tls_hello hello; /* the client's */
    struct tls_answer answer;
    size_t noted_up, noted_down; /* bytes that have been looked at */
};

struct tunnel {
    struct list link; /* in group */
    struct tunnel_route *group;
    struct exchange *ex;
    struct tunnel_look *look;   /* owned; NULL once nothing is looked for */
    char *sni;                  /* owned; NULL: no TLS server name */
    struct tunnel_way up, down; /* client to upstream, upstream to client */
    struct conn *broken;        /* the peer that was reset or takes no more: the other one is
                                   sent what it had said before; NULL: both stand */
    size_t discard_left;        /* of what the other one still says, and nobody will hear */
    int unsent;                 /* bytes with our kernel, which a reset would throw away */
    bool sniffing;              /* is it plain HTTP? the client's bytes wait in its input block */
    int64_t sniff_until_ms;
};

/* ex->up stands.  CONNECT: the 200 has been queued; sniff: look for plain HTTP first. */
void tunnel_begin(struct exchange *ex, bool sniff);
void tunnel_run(struct exchange *ex); /* any event; may end the exchange */
void tunnel_on_deadline(struct exchange *ex);
int64_t tunnel_deadline(const struct exchange *ex); /* OFF: none */
void tunnel_cut(struct exchange *ex);               /* it must go: reset, no sample if not judged */
void tunnel_free(struct exchange *ex);              /* gives pipes back; fine without a tunnel */

/* Do the client's first bytes begin a plain HTTP/1 request, with a line of less than max bytes?
 * The first seen bytes have been looked at before and said MORE; 0 is always right. (pure) */
enum sniff { SNIFF_MORE, SNIFF_HTTP, SNIFF_OPAQUE };
enum sniff tunnel_sniff(const uint8_t *data, size_t len, size_t seen, size_t max);

#endif
