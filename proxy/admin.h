/*
 * admin.h - the listener that changes the running proxy: loopback only, and guarded.
 *
 * The same fenced server as telemetry's, on main's loop.  A request must carry
 * "X-Tripswitch-Admin: 1", no Origin, and a Host that is a loopback address or localhost with
 * our port; so neither a page in a browser, nor a name that somebody points at 127.0.0.1, nor
 * a program that can be made to fetch a URL gets anything done.  What changes something is
 * PUT, POST or DELETE; GET on it is 405.  No secret is shown.
 */
#ifndef PROXY_ADMIN_H
#define PROXY_ADMIN_H

struct admin; /* opaque */
struct event_base;
struct proxy;
struct strbuf;

struct admin_hooks {
    /* Reads the configuration again: 0, or -1 with the mistakes in errors, one per line. */
    int (*reload)(void *ctx, struct strbuf *errors, struct strbuf *warnings);
    void *ctx;
};

/* Also ends overrides and bypass when their time has come. */
struct admin *admin_new(struct proxy *p, struct event_base *base, struct admin_hooks hooks);
int admin_accept(struct admin *a, int fd); /* takes over a bound, listening socket */
void admin_free(struct admin *a);          /* closes connections and sockets; NULL is fine */

#endif
