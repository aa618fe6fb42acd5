/*
 * poller.h - asks for breaker states when the stream is not what they come from.
 *
 * One poll: state:batch for the breakers that routes use, by the ids of the metadata list,
 * POLLER_CHUNK at a time, at most POLLER_BREAKERS_MAX, first those that routes name.  It went
 * well when every part did.
 * source.h says when; states go to known.h.  Runs on the sync thread's curl multi handle.
 */
#ifndef SYNC_POLLER_H
#define SYNC_POLLER_H
#include "base/prng.h"
#include "sync/stats.h"
#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>

#define POLLER_CHUNK        500
#define POLLER_BREAKERS_MAX 10000

struct catalog;
struct known;
struct settings;
struct source;
struct poller; /* opaque, sync thread only */

/* All borrowed. */
struct poller *poller_new(CURLM *multi, struct known *known, struct source *source,
                          struct stats *stats, struct prng *prng);
void poller_free(struct poller *p); /* NULL is fine */

void poller_configure(struct poller *p, const struct settings *settings);
void poller_cancel(struct poller *p); /* a poll under way ends uncounted */

bool poller_done(struct poller *p, CURL *easy, CURLcode rc, int64_t now_ms);
/* list: of breakers, borrowed; NULL: has not come, or what to ask for is not known: polls wait. */
void poller_tick(struct poller *p, struct catalog *list, int64_t now_ms);

#endif
