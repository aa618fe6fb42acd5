/*
 * rhythm.h - notice a stalled stream from its own heartbeat (DESIGN "Known state").
 *
 * No heartbeat period is documented, so we learn it: after three comments (or events
 * that bring no news) whose gaps repeat, silence for three times the longest gap means
 * a stall, within 15 s and 5 min.  A stream that shows no rhythm is never judged;
 * TCP keepalive alone decides then.  Pure.
 */
#ifndef SYNC_RHYTHM_H
#define SYNC_RHYTHM_H
#include <stdbool.h>
#include <stdint.h>

#define RHYTHM_MIN_MS 15000
#define RHYTHM_MAX_MS 300000

/* Comments and events beat apart: a server may send both, each at its own pace. */
enum rhythm_kind { RHYTHM_COMMENT, RHYTHM_EVENT, RHYTHM_KIND_COUNT };

struct rhythm {
    struct {
        unsigned beats;     /* how many so far, counted up to 3 */
        int64_t last_ms;    /* the last beat */
        int64_t gap_ms;     /* the last gap */
        int64_t longest_ms; /* the longest since the rhythm was found */
        bool found;
    } kind[RHYTHM_KIND_COUNT];
    int64_t seen_ms; /* last sign of life of any sort */
};

void rhythm_start(struct rhythm *r, int64_t now_ms); /* a new connection stands */
/* Any byte: the stream lives. */
void rhythm_alive(struct rhythm *r, int64_t now_ms);
/* A comment or an event without news.  Several within a second are one beat, so that a
 * snapshot's burst is no rhythm.  News (a breaker changed) is only a sign of life: a
 * breaker that ramps up at even steps, or a slow snapshot, must not pass for a heartbeat. */
void rhythm_beat(struct rhythm *r, enum rhythm_kind kind, int64_t now_ms);
/* When silence will mean a stall; INT64_MAX: no rhythm is known. */
int64_t rhythm_deadline_ms(const struct rhythm *r);

#endif
