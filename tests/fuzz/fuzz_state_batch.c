/* The answer to a poll: refused as a whole, or entries that are refused one by one, or have
 * values within their ranges. */
#include "sync/state_event.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>
#include <string.h>

static void on_state(void *arg, enum state_event_result r, const struct state_event *ev)
{
    size_t *entries = arg;
    ++*entries;
    CHECK(r < STATE_EVENT_RESULT_COUNT, "result %d", (int)r);
    if (r != STATE_EVENT_OK)
        return;
    CHECK(ev->breaker_len > 0 && ev->breaker_len <= STATE_EVENT_NAME_MAX, "%zu bytes of id",
          ev->breaker_len);
    CHECK(strlen(ev->breaker) == ev->breaker_len, "a NUL in the id");
    CHECK(ev->state == BREAKER_CLOSED || ev->state == BREAKER_OPEN ||
              ev->state == BREAKER_HALF_OPEN,
          "state %d", (int)ev->state);
    CHECK(ev->allow_rate >= 0 && ev->allow_rate <= 1, "rate %g", ev->allow_rate);
}

void fuzz_state_batch(const uint8_t *data, size_t len)
{
    char *json = fuzz_copy(data, len);
    size_t entries = 0;
    int rc = state_batch_parse(json, len, on_state, &entries);
    CHECK(rc == 0 || entries == 0, "%zu entries of what is refused", entries);
    free(json);
}
