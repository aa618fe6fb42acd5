/*
 * local_http.h - the small HTTP server behind the telemetry and the admin listener.
 *
 * evhttp on main's loop, fenced: heads of 8 KiB, bodies of 1 MiB, 10 s, 64 connections.
 * It parses and answers; what an endpoint says, and to whom, is its owner's business.
 * Nothing here reaches the access log.
 */
#ifndef PROXY_LOCAL_HTTP_H
#define PROXY_LOCAL_HTTP_H
#include <event2/http.h>
#include <stdbool.h>
#include <stdint.h>

struct event_base;
struct local_http; /* opaque */
struct strbuf;

struct local_request {
    void *ctx;
    struct evhttp_request *http;
    enum evhttp_cmd_type method;
    const char *path;  /* "" without one */
    const char *query; /* "" without one */
};

/* refused counts connections past the limit.  serve answers before it returns. */
struct local_http *local_http_new(struct event_base *base, uint64_t *refused,
                                  void (*serve)(struct local_request *rq), void *ctx);
int local_http_accept(struct local_http *h, int fd); /* takes over a bound, listening socket */
void local_http_free(struct local_http *h); /* closes connections and sockets; NULL is fine */

/* Whether "flag" or "flag=..." is a part of the query. */
bool local_query_has(const struct local_request *rq, const char *flag);

void local_add_header(struct local_request *rq, const char *name, const char *value);
/* The one answer; takes the body over. */
void local_answer(struct local_request *rq, int status, const char *type, struct strbuf *body);
void local_answer_text(struct local_request *rq, int status, const char *text);
void local_answer_json(struct local_request *rq, int status, struct strbuf *body);

#endif
