/*
 * metadata.h - the lists of breakers and routers with their metadata, kept up to date.
 *
 * Asked for only when somebody needs them: a route selects by metadata, states are polled
 * (which goes by id), or the stream came back without a breaker that was known.  ETags save
 * the bytes; the last good list stays whatever happens later.  Runs on the sync thread's
 * curl multi handle.
 */
#ifndef SYNC_METADATA_H
#define SYNC_METADATA_H
#include "base/prng.h"
#include "sync/stats.h"
#include <curl/curl.h>
#include <stdbool.h>
#include <stdint.h>

struct catalog;
struct known;
struct settings;
struct metadata; /* opaque, sync thread only */

#define METADATA_MAX_BYTES ((size_t)8 << 20)

enum metadata_list { METADATA_BREAKERS, METADATA_ROUTERS, METADATA_LISTS };

/* All borrowed; known hears of every list of breakers. */
struct metadata *metadata_new(CURLM *multi, struct known *known, struct stats *stats,
                              struct prng *prng);
void metadata_free(struct metadata *m); /* NULL is fine */

/* same_project false: forget the lists.  Without a control plane nothing is asked. */
void metadata_configure(struct metadata *m, const struct settings *settings, bool same_project,
                        int64_t now_ms);
/* At every turn: whether that list is needed all the time. */
void metadata_want(struct metadata *m, enum metadata_list which, bool wanted, int64_t now_ms);
void metadata_want_once(struct metadata *m, enum metadata_list which, int64_t now_ms);
void metadata_close(struct metadata *m); /* for good */

bool metadata_done(struct metadata *m, CURL *easy, CURLcode rc, int64_t now_ms);
void metadata_tick(struct metadata *m, int64_t now_ms);
int64_t metadata_next_ms(const struct metadata *m);

/* Borrowed; NULL: has not come yet. */
struct catalog *metadata_get(const struct metadata *m, enum metadata_list which);
uint64_t metadata_version(const struct metadata *m); /* changes when a list does */

#endif
