#include "proxy/pace.h"

bool pace_too_slow(struct pace *p, uint64_t total, bool held_up, int64_t rate)
{
    if (held_up || ++p->steps < PACE_STEPS)
        return false;
    bool slow = total - p->mark < (uint64_t)rate * (PACE_STEPS * PACE_STEP_MS / 1000);
    *p = (struct pace){ .mark = total };
    return slow;
}
