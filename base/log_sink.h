/*
 * log_sink.h - the log thread's end of one file descriptor.
 *
 * Holds lines until the descriptor takes them.  A descriptor that takes nothing costs its
 * own lines, counted, and never those of another sink; a write error (disk full, reader
 * gone) costs what was pending.  A line is written whole or the next one starts on a new
 * line.  Not thread-safe.  Only log.c includes this.
 */
#ifndef BASE_LOG_SINK_H
#define BASE_LOG_SINK_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_SINK_BYTES (256 * 1024)

struct log_sink; /* opaque */

/* fd is borrowed.  Every line the sink loses is counted in *dropped, which outlives it. */
struct log_sink *log_sink_new(int fd, _Atomic uint64_t *dropped);
void log_sink_free(struct log_sink *s); /* NULL is fine; what is pending is lost */
int log_sink_fd(const struct log_sink *s);
void log_sink_set_fd(struct log_sink *s, int fd); /* what is pending goes to the new one */

/* Room for a whole line of len bytes, its newline included; then log_sink_commit() makes it
 * pending.  When full, flushes, and waits for a descriptor that has lately taken something
 * until the monotonic time wait_until_ms (0: no waiting).  NULL: no room, the line is lost. */
char *log_sink_room(struct log_sink *s, size_t len, int64_t wait_until_ms);
void log_sink_commit(struct log_sink *s, size_t len);

/* Write what the descriptor takes now, without blocking. */
void log_sink_flush(struct log_sink *s);
size_t log_sink_pending(const struct log_sink *s); /* bytes */
/* Whether poll() tells when to flush again; false: ask again in a moment. */
bool log_sink_can_poll(const struct log_sink *s);

/* Write everything, waiting for the descriptor up to limit_ms: lines without a log thread.
 * -1: errno tells why, some of it may have been written. */
int log_write_all(int fd, const char *data, size_t len, int limit_ms);

#endif
