/*
 * persist.h - what the next run must know of the breakers, as JSON.
 *
 * Pure.  A closed breaker needs no entry, samples are not kept:
 *
 *   { "format": "tripswitch-proxy breakers", "version": 1, "written_wall_ms": ...,
 *     "breakers": [ { "name": "...", "state": "open", "since_wall_ms": ...,
 *                     "failed_recoveries": 0, "router": "..." } ] }
 *
 * "router" is the id of a router that feeds a breaker made for a host: the next run makes both
 * from it.  People may edit the file, so whatever is wrong is named; the first thing wrong
 * refuses the whole of it.  Keys that are not known are passed over.
 */
#ifndef CONTROL_PERSIST_H
#define CONTROL_PERSIST_H
#include "control/machine.h"
#include <stddef.h>
#include <stdint.h>

struct cJSON;
struct strbuf;

#define PERSIST_BYTES_MAX   ((size_t)16 << 20)
#define PERSIST_ENTRIES_MAX 100000
#define PERSIST_AHEAD_MS    5000 /* a wall clock that was set back by less is not worth a word */

struct persist_entry {
    const char *name;
    const char *router; /* NULL: the configuration names the breaker in full */
    enum machine_state state;
    int64_t since_wall_ms;
    uint32_t failed_recoveries;
};

/* False at the end; entry's strings live until the next call. */
typedef bool persist_source(void *arg, struct persist_entry *entry);
/* Appends; out has failed when that is more than PERSIST_BYTES_MAX. */
void persist_encode(persist_source *next, void *arg, int64_t now_wall_ms, struct strbuf *out);

struct persist_states {
    struct cJSON *root;            /* owned */
    struct persist_entry *entries; /* owned; their strings borrow from root */
    size_t count;
};

/* 0: free it with persist_free.  -1: why says what is wrong, nothing to free. */
int persist_decode(const char *text, size_t len, int64_t now_wall_ms, struct persist_states *out,
                   struct strbuf *why);
void persist_free(struct persist_states *states);

#endif
