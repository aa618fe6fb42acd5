/*
 * stream.h - the state stream: opened, read, watched, and opened again.
 *
 * Runs on the sync thread's curl multi handle.  What it reads goes to known.h; every
 * way it can end is counted, and the next try is backoff.h's business.
 */
#ifndef SYNC_STREAM_H
#define SYNC_STREAM_H
#include "base/prng.h"
#include "sync/stats.h"
#include <curl/curl.h>
#include <stdint.h>

struct known;
struct settings;
struct stream; /* opaque, sync thread only */

/* All borrowed; settings NULL or without a control plane: nothing is opened. */
struct stream *stream_new(CURLM *multi, struct known *known, struct stats *stats,
                          struct prng *prng);
void stream_free(struct stream *s); /* NULL is fine; closes it first */

/* Use these settings from now on; a standing stream that may not go on under them is
 * closed (reason "reload") and, unless states are only to be polled, opened anew at once. */
void stream_configure(struct stream *s, const struct settings *settings, bool keep, int64_t now_ms);
void stream_close(struct stream *s, int64_t now_ms); /* for good */

/* For source.h: it stands; and has said something; attempts in a row that said nothing. */
bool stream_stands(const struct stream *s);
bool stream_delivers(const struct stream *s);
unsigned stream_failed_opens(const struct stream *s);

/* The transfer with this easy handle is over; false: it is not ours. */
bool stream_done(struct stream *s, CURL *easy, CURLcode rc, int64_t now_ms);
void stream_tick(struct stream *s, int64_t now_ms); /* opens, or notices a stall */
int64_t stream_next_ms(const struct stream *s);

#endif
