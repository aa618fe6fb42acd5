/*
 * control.h - the embedded control plane: the API of PROTOCOL.md on a private socket.
 *
 * One thread with evhttp on an autobound abstract Unix socket.  Keys are drawn anew
 * at each start and both ends check that the other one is this very process.  The
 * sync module talks to it as to any control plane.
 */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H
#include <stdbool.h>
#include <stdint.h>

struct config;
struct control; /* opaque */
struct strbuf;

/* -1: errors says why.  Borrows cfg until control_reconfigure or control_stop. */
int control_start(struct control **out, const struct config *cfg, struct strbuf *errors);
/* Joins the thread, writes embedded.state_file, frees; NULL is fine. */
void control_stop(struct control *c);

/* Breakers and routers of the new file; those that stay keep their state.  Returns when the
 * thread has taken it over: the former cfg is no longer borrowed. */
void control_reconfigure(struct control *c, const struct config *cfg);

/* How to reach it; valid until control_stop. */
const char *control_socket(const struct control *c); /* abstract name, without the NUL */
const char *control_project_id(const struct control *c);
const char *control_api_key(const struct control *c);       /* secret */
const char *control_ingest_secret(const struct control *c); /* secret, 64 hex digits */

/* Counters for /metrics, any thread. */
struct control_stats {
    uint64_t samples_accepted;
    uint64_t samples_refused; /* in batches answered 4xx */
    uint64_t auto_breakers;   /* created so far */
    uint64_t auto_refused;    /* not created: limits.auto_breakers was reached */
    uint64_t transitions;
    uint64_t streams;       /* open now */
    uint64_t streams_cut;   /* readers that fell too far behind */
    uint64_t strangers;     /* connections of other processes, shut out */
    uint64_t turned_away;   /* connections beyond the limit, shut out */
    uint64_t state_written; /* embedded.state_file */
    uint64_t state_failed;  /* likewise; what was there before still is */
};
void control_stats(const struct control *c, struct control_stats *out);

#endif
