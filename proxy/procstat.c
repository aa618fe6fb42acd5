#include "proxy/procstat.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* proc(5): behind the program's name, which may hold anything, come plain numbers. */
static void read_stat(struct procstat *out)
{
    char text[1024];
    FILE *f = fopen("/proc/self/stat", "re");

    if (f == NULL)
        return;
    size_t len = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    text[len] = '\0';

    unsigned long utime, stime, vsize;
    long threads, rss;
    const char *rest = strrchr(text, ')');
    if (rest == NULL || sscanf(rest + 1,
                               " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d "
                               "%*d %ld %*d %*u %lu %ld",
                               &utime, &stime, &threads, &vsize, &rss) != 5)
        return;
    out->cpu_seconds = (double)(utime + stime) / (double)sysconf(_SC_CLK_TCK);
    out->threads = threads;
    out->virtual_bytes = (int64_t)vsize;
    out->resident_bytes = (int64_t)rss * sysconf(_SC_PAGESIZE);
}

static int64_t count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int64_t count = -1; /* the directory itself is open, too */

    if (dir == NULL)
        return -1;
    for (const struct dirent *e; (e = readdir(dir)) != NULL;)
        count += e->d_name[0] != '.';
    closedir(dir);
    return count;
}

void procstat_read(struct procstat *out)
{
    struct rlimit limit;

    *out = (struct procstat){ -1, -1, -1, -1, count_fds(), -1 };
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        out->max_fds = (int64_t)limit.rlim_cur;
    read_stat(out);
}
