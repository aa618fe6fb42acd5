#include "sync/schedule.h"
#include "sync/backoff.h"

void schedule_now(struct schedule *s, int64_t now_ms)
{
    *s = (struct schedule){ .at_ms = now_ms };
}

void schedule_soon(struct schedule *s, int64_t interval_ms, int64_t now_ms, double draw)
{
    *s = (struct schedule){ .at_ms = now_ms + (int64_t)((double)interval_ms / 10 * draw) };
}

static int64_t delay_ms(const struct schedule *s, enum ask_result r, double draw)
{
    return r == ASK_AUTH ? backoff_rest_ms(draw) : backoff_ingest_ms(s->failures, draw);
}

void schedule_after(struct schedule *s, enum ask_result r, int64_t interval_ms, int64_t asked_ms,
                    int64_t now_ms, double draw)
{
    if (r == ASK_OK || r == ASK_SAME) {
        s->failures = 0;
        s->at_ms = now_ms + (int64_t)((double)interval_ms * (0.9 + 0.2 * draw));
        return;
    }
    s->failures++;
    if (asked_ms > SCHEDULE_ASKED_MAX_MS)
        asked_ms = SCHEDULE_ASKED_MAX_MS;
    int64_t delay = delay_ms(s, r, draw);
    s->at_ms = now_ms + (asked_ms > delay ? asked_ms : delay);
}
