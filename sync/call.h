/*
 * call.h - one question to the control plane with a short answer: GET or POST of JSON.
 *
 * At most CALL_TIMEOUT_MS, at most as many bytes as the caller allows.  Runs on the sync
 * thread's curl multi handle.
 */
#ifndef SYNC_CALL_H
#define SYNC_CALL_H
#include "base/strbuf.h"
#include "sync/client.h"
#include "sync/schedule.h"
#include "sync/stats.h"
#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>

#define CALL_TIMEOUT_MS 10000L

/* Zero: none under way. */
struct call {
    CURLM *multi; /* borrowed; valid while under way */
    struct client client;
    struct strbuf sent; /* the body of a POST */
    struct strbuf body; /* of the answer, if it is a 200 */
    size_t passed_over; /* bytes of another answer */
    bool conditional;   /* an ETag was sent */
};

/* -1: out of memory; then nothing is under way.  etag NULL: none. */
int call_get(struct call *c, CURLM *multi, const struct settings *s, const char *url,
             const char *etag, size_t max_bytes);
/* Takes what json holds. */
int call_post(struct call *c, CURLM *multi, const struct settings *s, const char *url,
              struct strbuf *json, size_t max_bytes);
bool call_under_way(const struct call *c);
bool call_is(const struct call *c, const CURL *easy);

/* When it is over: how it ended, and in words without secrets that start with `what`. */
enum ask_result call_result(const struct call *c, CURLcode rc, const char *what,
                            char text[STATS_ERROR_MAX]);
int64_t call_asked_ms(const struct call *c); /* Retry-After; -1: none */
void call_close(struct call *c);             /* also while under way; twice is fine */

#endif
