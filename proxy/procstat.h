/*
 * procstat.h - what the kernel says about this process.
 */
#ifndef PROXY_PROCSTAT_H
#define PROXY_PROCSTAT_H
#include <stdint.h>

struct procstat { /* -1: could not be read */
    double cpu_seconds;
    int64_t resident_bytes;
    int64_t virtual_bytes;
    int64_t threads;
    int64_t open_fds;
    int64_t max_fds; /* the soft limit */
};

void procstat_read(struct procstat *out);

#endif
