/*
 * request.h - from a parsed head to an attempt: admission, target, route, gate.
 *
 * What is refused here has caused no DNS query, no connect and no byte upstream.
 */
#ifndef PROXY_REQUEST_H
#define PROXY_REQUEST_H
#include "proxy/metrics.h"
#include <stddef.h>
struct authority;
struct downstream;
struct http1_head;

/* A parsed head of head_len bytes stands at the front of d->c.in. */
void request_begin(struct downstream *d, struct http1_head *head, size_t head_len);
/* A head that cannot be served at all gets its answer; the connection closes behind it. */
void request_begin_bad(struct downstream *d, int status, enum proxy_error error,
                       const char *detail);

/* Redirected bytes that are no HTTP: a tunnel to d->original, routed by this name. */
void request_begin_opaque(struct downstream *d, const struct authority *a);

#endif
