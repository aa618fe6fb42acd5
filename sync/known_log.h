/*
 * known_log.h - what the operations log says of breaker states: moves, and what is wrong.
 *
 * Whatever a peer can repeat has a limit on its lines.
 */
#ifndef SYNC_KNOWN_LOG_H
#define SYNC_KNOWN_LOG_H
#include "base/log.h"
#include "sync/breakers.h"
#include "sync/state_event.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero: nothing was logged yet. */
struct known_log {
    bool server_logs; /* the server has a line for each move: ours are for debugging */
    int64_t lines_ms; /* start of the second that `lines` counts */
    unsigned lines;
    uint64_t missing; /* what the last warning about missing names listed */
    bool stale_told;  /* the line was written, so its end is worth one too */
    struct log_limit more_limit;
    struct log_limit invalid_limit;
    struct log_limit null_limit;
    struct log_limit full_limit;
    struct log_limit stale_limit;
};

/* A transition, or a step of a half-open breaker's ramp.  source: "stream" or "poll". */
void known_log_change(struct known_log *l, const struct state_event *ev, enum breaker_state from,
                      const char *source, int64_t now_ms);
void known_log_gone(struct known_log *l, const char *name, int64_t now_ms);
void known_log_skipped(struct known_log *l, const char *reason, int64_t now_ms);
void known_log_full(struct known_log *l, int64_t now_ms); /* the table of names is */
/* One warning per set of missing names; another set warns again. */
void known_log_missing(struct known_log *l, const struct breakers *b, const uint32_t *ids,
                       size_t n);
void known_log_stale(struct known_log *l, int64_t now_ms);
void known_log_fresh(struct known_log *l); /* no more */

#endif
