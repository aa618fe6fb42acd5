/*
 * load.h - what the programs of a benchmark share: the load generator and the origin.
 */
#ifndef TESTS_BENCH_LOAD_H
#define TESTS_BENCH_LOAD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

/* First byte to the origin's raw port.  None begins HTTP, so no proxy waits for a line. */
#define RAW_ECHO           '\0'
#define RAW_FLOOD          '\1' /* data without end */
#define RAW_ECHO_AND_CLOSE '\2' /* the origin closes first and keeps the TIME_WAIT */

static inline void raise_descriptors(void)
{
    struct rlimit limit;
    if (!getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* ---- One HTTP response, read from pieces (response.c) ---- */

struct response {
    enum {
        RESPONSE_HEAD,
        RESPONSE_LENGTH,
        RESPONSE_CHUNK_SIZE,
        RESPONSE_CHUNK_DATA,
        RESPONSE_CHUNK_END,
        RESPONSE_TRAILER,
        RESPONSE_TO_EOF,
        RESPONSE_DONE
    } state;
    int status;
    bool close;       /* the server will not keep the connection */
    bool bare;        /* set by the caller: a 2xx has no body (CONNECT) */
    uint64_t left;    /* of a length or a chunk */
    unsigned matched; /* bytes of the pattern the state waits for */
    size_t used;      /* of head */
    char head[4096];
};

void response_reset(struct response *r, bool bare);

/* Takes bytes up to the end of the response.  Returns how many, or -1: not HTTP. */
ptrdiff_t response_feed(struct response *r, const char *data, size_t len);

/* ---- A histogram of times, exact to 0.8 % (histogram.c) ---- */

struct histogram {
    uint64_t count, slots[64 * 128];
};

void histogram_reset(struct histogram *h);
void histogram_add(struct histogram *h, uint64_t ns);
uint64_t histogram_at(const struct histogram *h, double quantile); /* ns; 0 when empty */

/* ---- Processor time of other processes, to the nanosecond (cpu.c) ---- */

#define CPU_PIDS    16
#define CPU_THREADS 32

struct cpu {
    double seconds; /* user and system, also of threads that have ended */
    int threads;
    struct {
        char name[16];
        double seconds; /* of all living threads of that name */
    } thread[CPU_THREADS];
};

/* Returns 0, or the first of them that is gone: what is left says nothing. */
int cpu_read(struct cpu *cpu, const int *pids, int count);
#endif
