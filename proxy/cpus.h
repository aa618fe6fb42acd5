/*
 * cpus.h - how many CPUs this process may really use.
 */
#ifndef PROXY_CPUS_H
#define PROXY_CPUS_H

/* By affinity and cgroup quota (rounded up), at least 1, at most max. */
unsigned cpus_usable(unsigned max);

#endif
