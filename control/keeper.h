/*
 * keeper.h - keeps the breakers' states in a file, without waiting for the disk.
 *
 * The event loop's thread asks for the text, at most once per KEEPER_EVERY_MS and only after
 * a change; a thread of its own writes it, so that a disk that hangs delays neither evaluation
 * nor samples.  While a write lasts, newer texts replace each other: one waits at most.  What
 * failed is tried again every KEEPER_RETRY_MS with the newest text.  The first failure is a
 * warning, as is one a minute while it lasts; the first success after it is told too.
 */
#ifndef CONTROL_KEEPER_H
#define CONTROL_KEEPER_H
#include <stdint.h>

struct event_base;
struct keeper; /* opaque; event loop thread only, but for the counters */
struct strbuf;

#define KEEPER_EVERY_MS 1000
#define KEEPER_RETRY_MS 5000
#define KEEPER_STOP_MS  2000

/* Appends what the file shall hold; called on the event loop's thread, and by keeper_free. */
typedef void keeper_text(void *arg, struct strbuf *out);

struct keeper *keeper_new(struct event_base *base, keeper_text *text, void *arg);
/* Writes once more, and waits for it, KEEPER_STOP_MS at most: a disk that hangs longer keeps
 * its thread, with a warning.  NULL is fine. */
void keeper_free(struct keeper *k);

/* Where to; NULL: nowhere.  A path is written to at once, so that one that cannot be shows. */
void keeper_configure(struct keeper *k, const char *path);
void keeper_note_change(struct keeper *k);

struct keeper_counts {
    uint64_t written;
    uint64_t failed;
};
struct keeper_counts keeper_counts(const struct keeper *k); /* any thread */

#endif
