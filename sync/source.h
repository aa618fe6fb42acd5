/*
 * source.h - where breaker states come from: the stream, or polls.  Pure.
 *
 * control.state_source: "stream" never polls; "poll" never streams; "auto" polls once
 * SOURCE_WITHOUT_STREAM_MS have passed without states from the stream, and either the last
 * SOURCE_FAILED_OPENS attempts to open it have come to nothing or it stands and is mute (a
 * proxy on the way that holds it back answers 200 like the service).  The stream goes on
 * being tried meanwhile, and polling ends as soon as it delivers.
 */
#ifndef SYNC_SOURCE_H
#define SYNC_SOURCE_H
#include "config/config.h"
#include "sync/schedule.h"
#include <stdbool.h>
#include <stdint.h>

#define SOURCE_FAILED_OPENS      3
#define SOURCE_WITHOUT_STREAM_MS 60000
#define SOURCE_HURRIED_MS        1000 /* from one poll to the next, however hurried */

enum source_stream {
    SOURCE_STREAM_GONE, /* does not stand: being opened, or waiting for the next attempt */
    SOURCE_STREAM_MUTE, /* stands, and has not said what the states are */
    SOURCE_STREAM_DELIVERS,
};

struct source_options {
    enum state_source wanted;
    int64_t poll_interval_ms;
};

/* Zero: not configured, nothing happens. */
struct source {
    bool configured;
    struct source_options options;
    bool polling;              /* polls are what states come from now */
    bool asking;               /* a poll is under way */
    enum source_stream stream; /* when last looked at */
    unsigned failed_opens;     /* likewise */
    int64_t without_ms;        /* since when the stream does not deliver; valid while it does not */
    struct schedule poll;      /* valid while polling */
    int64_t ended_ms;          /* when the last poll ended; valid with poll_ended */
    bool poll_ended;           /* one has since polling began */
};

/* retry: what failed may have been mended, so it is not waited for any longer. */
void source_configure(struct source *s, const struct source_options *o, bool retry, int64_t now_ms);
/* At every turn: how is the stream, and how many attempts in a row to open it came to nothing? */
void source_look(struct source *s, enum source_stream stream, unsigned failed_opens, int64_t now_ms,
                 double draw);

bool source_poll_due(const struct source *s, int64_t now_ms);
void source_poll_begun(struct source *s);
void source_poll_ended(struct source *s, enum ask_result r, int64_t asked_ms, int64_t now_ms,
                       double draw);

/* The next poll shall not wait for its interval.  One that is under way, or tried again after a
 * failure, or the first, is not brought forward. */
void source_hurry(struct source *s);

/* When the next poll is due, or source_look() may change its mind without news of the stream;
 * INT64_MAX: neither. */
int64_t source_poll_ms(const struct source *s);
int64_t source_look_ms(const struct source *s);

#endif
