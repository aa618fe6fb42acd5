/*
 * quiet.h - keep a day without a control plane below 1500 log lines.
 *
 * Every line about the connection (connected, lost, cannot post) takes one from a
 * budget of 20, which regains one a minute: 1440 + 20 a day at most, and the first
 * lines of a new trouble never wait.  A repeating error, besides, speaks once a
 * minute.  Pure.
 */
#ifndef SYNC_QUIET_H
#define SYNC_QUIET_H
#include <stdbool.h>
#include <stdint.h>

#define QUIET_BURST     20
#define QUIET_MINUTE_MS 60000

struct quiet {              /* zero: full budget */
    int64_t spent_until_ms; /* when the budget will be full again */
    int64_t error_next_ms;
    uint64_t suppressed; /* lines swallowed since the last one that passed */
};

/* True: write the line; *suppressed says how many were swallowed before it. */
bool quiet_line(struct quiet *q, int64_t now_ms, uint64_t *suppressed);
bool quiet_error(struct quiet *q, int64_t now_ms, uint64_t *suppressed);

#endif
