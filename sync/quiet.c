#include "sync/quiet.h"

bool quiet_line(struct quiet *q, int64_t now_ms, uint64_t *suppressed)
{
    if (q->spent_until_ms < now_ms)
        q->spent_until_ms = now_ms;
    if (q->spent_until_ms - now_ms > (QUIET_BURST - 1) * (int64_t)QUIET_MINUTE_MS) {
        q->suppressed++;
        return false;
    }
    q->spent_until_ms += QUIET_MINUTE_MS;
    *suppressed = q->suppressed;
    q->suppressed = 0;
    return true;
}

bool quiet_error(struct quiet *q, int64_t now_ms, uint64_t *suppressed)
{
    if (now_ms < q->error_next_ms) {
        q->suppressed++;
        return false;
    }
    if (!quiet_line(q, now_ms, suppressed))
        return false;
    q->error_next_ms = now_ms + QUIET_MINUTE_MS;
    return true;
}
