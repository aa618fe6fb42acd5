/*
 * log.h - one line per event, written by one thread that may block.
 *
 * Every other thread formats into its own ring of 256 KiB and goes on; a full ring
 * drops the line and counts it, so a stalled terminal or disk never delays traffic.
 * Operations lines go to stderr, access lines to stdout (or a file).  Until
 * log_start() and after log_stop() lines are written at once by the caller: for
 * start-up errors, subcommands and unit tests.
 *
 * A warning means an operator should act.  Lines carry no secrets.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };
enum log_format { LOG_FORMAT_AUTO, LOG_FORMAT_TEXT, LOG_FORMAT_JSON }; /* auto: text on a TTY */

/* access_path: "stdout", "stderr" or a file, opened for appending and reopened by
 * log_reopen().  -1: errno tells why it cannot be opened.  Starts the log thread. */
int log_start(enum log_format format, enum log_level level, const char *access_path);
void log_stop(void); /* writes what the rings hold, within 2 s, and joins the thread */
void log_stop_within(int limit_ms); /* the same with another limit */
/* Close and open the access file again, after it was rotated; on failure the old one stays
 * and an error line says so.  Any thread or signal handler; done soon, by the log thread. */
void log_reopen(void);
/* What "auto" came to for access lines: LOG_FORMAT_TEXT or LOG_FORMAT_JSON. */
enum log_format log_access_format(void);
void log_set_level(enum log_level level);                  /* any thread */
int log_level_parse(const char *s, enum log_level *out);   /* debug info warning error */
int log_format_parse(const char *s, enum log_format *out); /* auto text json */

/* Give the calling thread a ring, until it ends, and (but for the main thread) its name in
 * top and gdb; a thread that logs without one shares a locked ring. */
void log_thread_init(const char *thread_name);

/*
 * Foreign bytes in msg and fields cannot forge lines: they are escaped, and cut when long.
 * component: "proxy", "sync", ...; event: a stable id such as "config.reload_failed".
 * fields: further key=value pairs as varargs of const char *, ended by NULL:
 *     log_event(LOG_INFO, "sync", "breaker.transition", "breaker payments is open",
 *               "breaker", name, "from", "closed", "to", "open", NULL);
 */
void log_event(enum log_level level, const char *component, const char *event, const char *msg, ...)
    __attribute__((sentinel));
bool log_enabled(enum log_level level);

/* One access line, complete but for its newline; control bytes become '?', and what exceeds
 * LOG_ACCESS_MAX is cut off. */
#define LOG_ACCESS_MAX 8192
void log_access(const char *line, size_t len);

/* For messages that could repeat: true at most once per interval_ms; *suppressed is how
 * many were swallowed since the last time (may be NULL).  A zeroed limit lets the first pass. */
struct log_limit {
    int64_t next_ms;
    uint64_t suppressed;
};
bool log_limit_pass(struct log_limit *l, int64_t now_ms, int64_t interval_ms, uint64_t *suppressed);

/* Lines lost since the process started: a full ring, a stalled or failing descriptor. */
uint64_t log_dropped_access(void);
uint64_t log_dropped_ops(void);

#endif
