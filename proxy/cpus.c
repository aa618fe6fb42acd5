#include "proxy/cpus.h"
#include <sched.h>
#include <stdio.h>
#include <string.h>

static unsigned by_affinity(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

/* "max 100000" or "150000 100000": microseconds per period (cgroup v2), or the two files of v1.
 * 0: no quota. */
static unsigned by_quota(void)
{
    long quota = -1, period = 100000;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (f) {
        if (fscanf(f, "%ld %ld", &quota, &period) != 2)
            quota = -1;
        fclose(f);
    } else if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re"))) {
        if (fscanf(f, "%ld", &quota) != 1)
            quota = -1;
        fclose(f);
        if ((f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re"))) {
            if (fscanf(f, "%ld", &period) != 1)
                period = 100000;
            fclose(f);
        }
    }
    return quota > 0 && period > 0 ? (unsigned)((quota + period - 1) / period) : 0;
}

unsigned cpus_usable(unsigned max)
{
    unsigned n = by_affinity(), quota = by_quota();
    if (quota && quota < n)
        n = quota;
    if (n > max)
        n = max;
    return n ? n : 1;
}
