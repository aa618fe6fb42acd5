/* One state event: refused, or values within their ranges that keep their meaning when they
 * are written and read again. */
#include "base/strbuf.h"
#include "sync/state_event.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>

static void check_again(const struct state_event *ev)
{
    struct strbuf text = STRBUF_INIT;
    struct json j = { .sb = &text };
    struct state_event back;
    json_open(&j, NULL, '{');
    json_strn(&j, "breaker", ev->breaker, ev->breaker_len);
    json_str(&j, "state", breaker_state_name(ev->state));
    if (ev->rate_null)
        json_null(&j, "allow_rate");
    else
        json_num(&j, "allow_rate", ev->allow_rate);
    json_close(&j);
    enum state_event_result r = state_event_parse(strbuf_str(&text), text.len, &back);
    bool longer = r == STATE_EVENT_NAME; /* what is not UTF-8 is written as three bytes */
    CHECK(r == STATE_EVENT_OK || longer, "\"%s\": %s", strbuf_str(&text),
          state_event_result_text(r));
    if (r == STATE_EVENT_OK) {
        CHECK(back.state == ev->state && back.rate_null == ev->rate_null, "another state");
        CHECK(back.allow_rate == ev->allow_rate, "%.17g became %.17g", ev->allow_rate,
              back.allow_rate);
    }
    strbuf_free(&text);
}

void fuzz_state_event(const uint8_t *data, size_t len)
{
    char *json = fuzz_copy(data, len);
    struct state_event ev;
    enum state_event_result r = state_event_parse(json, len, &ev);
    CHECK(r < STATE_EVENT_RESULT_COUNT, "result %d", (int)r);
    if (r == STATE_EVENT_OK) {
        CHECK(ev.breaker_len > 0 && ev.breaker_len <= STATE_EVENT_NAME_MAX, "%zu bytes of name",
              ev.breaker_len);
        CHECK(strlen(ev.breaker) == ev.breaker_len, "a NUL in the name");
        CHECK(ev.state == BREAKER_CLOSED || ev.state == BREAKER_OPEN ||
                  ev.state == BREAKER_HALF_OPEN,
              "state %d", (int)ev.state);
        CHECK(ev.allow_rate >= 0 && ev.allow_rate <= 1, "rate %g", ev.allow_rate);
        CHECK(breaker_rate_from_double(ev.allow_rate) <= BREAKER_RATE_ONE, "rate %g",
              ev.allow_rate);
        check_again(&ev);
    }
    free(json);
}
