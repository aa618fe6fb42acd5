/*
 * poster.h - carries the reporter's posts to the ingest endpoint and brings the
 * answers back.  Runs on the sync thread's curl multi handle.
 */
#ifndef SYNC_POSTER_H
#define SYNC_POSTER_H
#include "base/prng.h"
#include "sync/reporter.h"
#include "sync/stats.h"
#include <curl/curl.h>
#include <stdint.h>

struct settings;
struct poster; /* opaque, sync thread only */

/* All borrowed. */
struct poster *poster_new(CURLM *multi, struct reporter *reporter, struct stats *stats,
                          struct prng *prng);
/* Drops posts on their way without telling the reporter: reporter_abandon() first. */
void poster_free(struct poster *p); /* NULL is fine */

/* Posts on their way go on; they no longer refer to the former settings.  Without a control
 * plane everything that waits is given up. */
void poster_configure(struct poster *p, const struct settings *settings);
void poster_tick(struct poster *p, int64_t now_ms); /* send what is due */
/* The transfer with this easy handle is over; false: it is not ours. */
bool poster_done(struct poster *p, CURL *easy, CURLcode rc, int64_t now_ms);

#endif
