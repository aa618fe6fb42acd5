/*
 * telemetry.h - the read-only HTTP listener: health, metrics, status page.
 *
 * Runs on main's event loop with evhttp, fenced: heads of 8 KiB, bodies of 1 MiB,
 * 10 s, 64 connections.  Never touches a worker: it reads counters.  GET and HEAD only,
 * no secrets, nothing in the access log.
 */
#ifndef PROXY_TELEMETRY_H
#define PROXY_TELEMETRY_H

struct event_base;
struct proxy;
struct strbuf;
struct telemetry; /* opaque */

struct telemetry *telemetry_new(struct proxy *p, struct event_base *base);
int telemetry_accept(struct telemetry *t, int fd); /* takes over a bound, listening socket */
void telemetry_free(struct telemetry *t); /* closes connections and sockets; NULL is fine */

/* What the endpoints say, also for SIGUSR1 and subcommands. */
void telemetry_metrics(struct telemetry *t, struct strbuf *out); /* Prometheus text 0.0.4 */
void telemetry_status(struct proxy *p, struct strbuf *out);      /* JSON */
void telemetry_breakers(struct proxy *p, struct strbuf *out);    /* JSON */

#endif
