#include "control/streams.h"

#include "base/base.h"
#include "base/strbuf.h"
#include "control/door.h"
#include "control/store.h"
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define COMMENT      ": keep-alive\n\n"
#define STALLED_S    60   /* a peer that takes no byte for this long is gone */
#define CLIENT_BYTES 4096 /* of what a client sends on a stream, and nobody reads */

struct stream {
    struct streams *all;
    struct evhttp_request *req; /* owned once its connection is gone */
    size_t pending_max;
    struct stream *next;
};

struct streams {
    struct event *beat;
    struct stream *list;
    _Atomic uint64_t count;
    _Atomic uint64_t cut;
};

/* Our own name for "append to the reply"; evhttp takes buffers only. */
static void send_text(struct stream *s, const char *text, size_t len)
{
    struct evbuffer *chunk = evbuffer_new();

    if (chunk == NULL || evbuffer_add(chunk, text, len) < 0)
        abort(); /* out of memory, as xmalloc would */
    evhttp_send_reply_chunk(s->req, chunk);
    evbuffer_free(chunk);
}

static struct bufferevent *transport(const struct stream *s)
{
    return evhttp_connection_get_bufferevent(evhttp_request_get_connection(s->req));
}

static void send_to_all(struct streams *st, const char *text, size_t len)
{
    struct stream *next;

    for (struct stream *s = st->list; s; s = next) {
        next = s->next;
        if (evbuffer_get_length(bufferevent_get_output(transport(s))) + len <= s->pending_max) {
            send_text(s, text, len);
            continue;
        }
        atomic_fetch_add_explicit(&st->cut, 1, memory_order_relaxed);
        evhttp_connection_free(evhttp_request_get_connection(s->req)); /* frees s, see on_gone */
    }
}

static void on_beat(evutil_socket_t unused, short what, void *arg)
{
    (void)unused;
    (void)what;
    send_to_all(arg, COMMENT, strlen(COMMENT));
}

struct streams *streams_new(struct event_base *base)
{
    struct streams *st = xcalloc(1, sizeof(*st));
    struct timeval period = { STREAM_COMMENT_MS / 1000, STREAM_COMMENT_MS % 1000 * 1000 };

    st->beat = event_new(base, -1, EV_PERSIST, on_beat, st);
    if (st->beat == NULL || event_add(st->beat, &period) < 0)
        abort(); /* out of memory, as xmalloc would */
    return st;
}

void streams_free(struct streams *st)
{
    if (st == NULL)
        return;
    event_free(st->beat);
    free(st);
}

/* The connection is closing.  If evhttp noticed that itself it has let go of the request. */
static void on_gone(void *arg)
{
    struct stream *s = arg;
    struct stream **at = &s->all->list;

    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    atomic_fetch_sub_explicit(&s->all->count, 1, memory_order_relaxed);
    if (evhttp_request_get_connection(s->req) == NULL)
        evhttp_request_free(s->req);
    free(s);
}

void streams_open(struct streams *st, struct evhttp_request *req, struct guest *guest,
                  const struct strbuf *snapshot)
{
    struct stream *s = xcalloc(1, sizeof(*s));
    struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
    struct timeval stalled = { .tv_sec = STALLED_S };

    s->all = st;
    s->req = req;
    s->pending_max = snapshot->len + STREAM_PENDING_MAX;
    s->next = st->list;
    st->list = s;
    atomic_fetch_add_explicit(&st->count, 1, memory_order_relaxed);
    guest_on_gone(guest, on_gone, s);
    evhttp_add_header(headers, "Content-Type", "text/event-stream");
    evhttp_add_header(headers, "Cache-Control", "no-store");
    evhttp_send_reply_start(req, 200, NULL);
    /* evhttp goes on reading to notice a close, which must neither time out nor pile up. */
    bufferevent_set_timeouts(transport(s), NULL, &stalled);
    bufferevent_setwatermark(transport(s), EV_READ, 0, CLIENT_BYTES);
    if (snapshot->len > 0)
        send_text(s, snapshot->data, snapshot->len);
    send_text(s, COMMENT, strlen(COMMENT));
}

void streams_send(struct streams *st, const struct strbuf *text)
{
    if (text->len > 0)
        send_to_all(st, text->data, text->len);
}

void streams_event(struct strbuf *out, const struct store_breaker *b)
{
    struct json j = { .sb = out };

    strbuf_adds(out, "event: state\ndata: ");
    json_open(&j, NULL, '{');
    json_str(&j, "breaker", b->name);
    json_str(&j, "state", b->state);
    if (strcmp(b->state, "half_open") == 0)
        json_num(&j, "allow_rate", b->allow_rate);
    else
        json_null(&j, "allow_rate"); /* only half-open has a rate on the wire */
    json_close(&j);
    strbuf_adds(out, "\n\n");
}

uint64_t streams_count(const struct streams *st)
{
    return atomic_load_explicit(&st->count, memory_order_relaxed);
}

uint64_t streams_cut(const struct streams *st)
{
    return atomic_load_explicit(&st->cut, memory_order_relaxed);
}
