#include "tests/bench/load.h"
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static ssize_t slurp(char *out, size_t size, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);
    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = 0;
    return n;
}

/* Its own clock: to the nanosecond, and with the threads that have ended.  -1: it is gone. */
static double process_seconds(int pid)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
        return -1;
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void add_thread(struct cpu *cpu, const char *name, double seconds)
{
    int i = 0;
    while (i < cpu->threads && strcmp(cpu->thread[i].name, name))
        i++;
    if (i == CPU_THREADS)
        return;
    if (i == cpu->threads) {
        cpu->threads++;
        snprintf(cpu->thread[i].name, sizeof cpu->thread[i].name, "%s", name);
        cpu->thread[i].seconds = 0;
    }
    cpu->thread[i].seconds += seconds;
}

static void read_threads(struct cpu *cpu, int pid)
{
    char path[320], name[16], text[128];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (!isdigit((unsigned char)e->d_name[0]))
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/comm", pid, e->d_name);
        slurp(name, sizeof name, path);
        name[strcspn(name, "\n\"\\")] = 0;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, e->d_name);
        slurp(text, sizeof text, path);
        add_thread(cpu, name, (double)strtoull(text, NULL, 10) / 1e9);
    }
    if (dir)
        closedir(dir);
}

int cpu_read(struct cpu *cpu, const int *pids, int count)
{
    memset(cpu, 0, sizeof *cpu);
    for (int i = 0; i < count; i++) {
        double seconds = process_seconds(pids[i]);
        if (seconds < 0)
            return pids[i];
        cpu->seconds += seconds;
        read_threads(cpu, pids[i]);
    }
    return 0;
}
