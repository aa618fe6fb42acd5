/*
 * streams.h - the open state streams (PROTOCOL section 3).
 *
 * A stream never ends cleanly: official SDKs take a clean end for the end of all news.
 * A reader that falls STREAM_PENDING_MAX behind is cut; it reconnects to a snapshot.
 */
#ifndef CONTROL_STREAMS_H
#define CONTROL_STREAMS_H
#include <stddef.h>
#include <stdint.h>

struct event_base;
struct evhttp_request;
struct guest;
struct store_breaker;
struct strbuf;
struct streams; /* opaque; event loop thread only, but for the counters */

#define STREAM_PENDING_MAX ((size_t)1 << 20) /* bytes, beyond the stream's own snapshot */
#define STREAM_COMMENT_MS  4000              /* clients want one every 5 s at the latest */

struct streams *streams_new(struct event_base *base);
void streams_free(struct streams *st); /* after the connections; NULL is fine */

/* Answers req, which the streams own from now on: head, snapshot, comment. */
void streams_open(struct streams *st, struct evhttp_request *req, struct guest *guest,
                  const struct strbuf *snapshot);
void streams_send(struct streams *st, const struct strbuf *text); /* to all; empty is fine */

/* Appends one event in the exact form that every official SDK copes with. */
void streams_event(struct strbuf *out, const struct store_breaker *b);

uint64_t streams_count(const struct streams *st); /* open now; any thread */
uint64_t streams_cut(const struct streams *st);   /* slow readers so far */

#endif
