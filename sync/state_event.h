/*
 * state_event.h - the JSON of one `state` event (PROTOCOL section 3).
 *
 *     {"breaker":"checkout-latency","state":"half_open","allow_rate":0.2}
 *
 * Fields we do not know are ignored.  A missing allow_rate is the same as null, as
 * every SDK has it.  Polled states have the same fields but for the breaker's id in place
 * of its name.  Pure.
 */
#ifndef SYNC_STATE_EVENT_H
#define SYNC_STATE_EVENT_H
#include "sync/breakers.h"
#include <stdbool.h>
#include <stddef.h>

#define STATE_EVENT_NAME_MAX 255

enum state_event_result {
    STATE_EVENT_OK,
    STATE_EVENT_NOT_JSON, /* or not one object and nothing else */
    STATE_EVENT_MISSING,  /* no breaker or no state */
    STATE_EVENT_TYPE,     /* a field of the wrong JSON type */
    STATE_EVENT_NAME,     /* breaker is empty, over 255 bytes or holds a NUL */
    STATE_EVENT_STATE,    /* a state value we do not know */
    STATE_EVENT_RATE,     /* allow_rate outside 0 to 1 */
    STATE_EVENT_RESULT_COUNT,
};
const char *state_event_result_text(enum state_event_result r); /* a phrase for the log */

struct state_event {
    char breaker[STATE_EVENT_NAME_MAX + 1];
    size_t breaker_len;
    enum breaker_state state;
    double allow_rate; /* 0 when null */
    bool rate_null;
};

/* *out is complete only with STATE_EVENT_OK. */
enum state_event_result state_event_parse(const char *json, size_t len, struct state_event *out);

/*
 * The answer of state:batch (PROTOCOL section 6): an array of {"breaker_id","state","allow_rate"},
 * or the same under "states".  on_state gets each entry, with the id in place of the name; what
 * is not STATE_EVENT_OK is to be counted.  -1: the answer is neither.
 */
typedef void state_batch_cb(void *arg, enum state_event_result r, const struct state_event *ev);
int state_batch_parse(const char *json, size_t len, state_batch_cb *on_state, void *arg);

#endif
