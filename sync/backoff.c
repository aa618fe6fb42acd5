#include "sync/backoff.h"
#include "base/base.h"

#define LEVEL_MAX       5 /* 1 s * 2^5 is beyond 30 s */
#define LEVEL_DELIVERED 1

/* min << level, never above max. */
static int64_t doubled_ms(int64_t min, unsigned level, int64_t max)
{
    if (level > 20)
        return max;
    int64_t v = min << level;
    return v < max ? v : max;
}

static int64_t between_ms(int64_t low, int64_t high, double draw)
{
    return low + (int64_t)((double)(high - low) * draw);
}

void backoff_ended(struct backoff *b, int64_t stood_ms, bool delivered)
{
    int64_t enough = b->delay_ms > 1000 ? b->delay_ms : 1000;
    if (stood_ms >= enough)
        b->level = 0;
    else if (delivered)
        b->level = LEVEL_DELIVERED;
    else if (b->delay_ms > 0 && b->level < LEVEL_MAX)
        b->level++;
}

int64_t backoff_next_ms(struct backoff *b, double draw)
{
    int64_t ceiling = doubled_ms(2 * BACKOFF_STREAM_MIN_MS, b->level, BACKOFF_STREAM_MAX_MS);
    b->delay_ms = between_ms(BACKOFF_STREAM_MIN_MS, ceiling, draw);
    return b->delay_ms;
}

int64_t backoff_rest_ms(double draw)
{
    return between_ms(BACKOFF_REST_MS, BACKOFF_REST_MS * 3 / 2, draw);
}

int64_t backoff_ingest_ms(unsigned n, double draw)
{
    static const int64_t first[] = { 100, 400, 1000 };
    if (n == 0)
        return 0;
    if (n <= ARRAY_LEN(first))
        return first[n - 1];
    int64_t ceiling = doubled_ms(1000, n - (unsigned)ARRAY_LEN(first), 30000);
    return between_ms(ceiling / 2, ceiling, draw);
}
