#include "sync/rhythm.h"

#define SAME_BEAT_MS 1000

void rhythm_start(struct rhythm *r, int64_t now_ms)
{
    *r = (struct rhythm){ .seen_ms = now_ms };
}

void rhythm_alive(struct rhythm *r, int64_t now_ms)
{
    r->seen_ms = now_ms;
}

/* The larger gap is at most half as long again as the smaller. */
static bool repeats(int64_t a, int64_t b)
{
    int64_t low = a < b ? a : b;
    int64_t high = a < b ? b : a;
    return high * 2 <= low * 3;
}

void rhythm_beat(struct rhythm *r, enum rhythm_kind kind, int64_t now_ms)
{
    rhythm_alive(r, now_ms);
    int64_t gap = now_ms - r->kind[kind].last_ms;
    if (r->kind[kind].beats > 0 && gap < SAME_BEAT_MS)
        return;
    if (r->kind[kind].beats < 3)
        r->kind[kind].beats++;
    r->kind[kind].last_ms = now_ms;
    if (r->kind[kind].beats == 1)
        return;
    int64_t before = r->kind[kind].gap_ms;
    r->kind[kind].gap_ms = gap;
    if (r->kind[kind].found) {
        if (gap > r->kind[kind].longest_ms)
            r->kind[kind].longest_ms = gap;
    } else if (r->kind[kind].beats == 3 && repeats(before, gap)) {
        r->kind[kind].found = true;
        r->kind[kind].longest_ms = before > gap ? before : gap;
    }
}

int64_t rhythm_deadline_ms(const struct rhythm *r)
{
    int64_t limit = INT64_MAX;
    for (int i = 0; i < RHYTHM_KIND_COUNT; i++) {
        if (!r->kind[i].found)
            continue;
        int64_t own = 3 * r->kind[i].longest_ms;
        if (own < limit)
            limit = own;
    }
    if (limit == INT64_MAX)
        return INT64_MAX;
    if (limit < RHYTHM_MIN_MS)
        limit = RHYTHM_MIN_MS;
    if (limit > RHYTHM_MAX_MS)
        limit = RHYTHM_MAX_MS;
    return r->seen_ms + limit;
}
