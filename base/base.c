#include "base/base.h"

#include "base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Atomic uint64_t bugs;

/* A bug on a hot path must not flood the log: past this many, only every 2^n-th is told. */
#define BUGS_ALWAYS_LOGGED 100

bool bug_report(const char *file, int line, const char *what)
{
    uint64_t n = atomic_fetch_add_explicit(&bugs, 1, memory_order_relaxed) + 1;

    if (n <= BUGS_ALWAYS_LOGGED || (n & (n - 1)) == 0) {
        char place[160];
        char count[24];
        snprintf(place, sizeof(place), "%s:%d", file, line);
        snprintf(count, sizeof(count), "%llu", (unsigned long long)n);
        log_event(LOG_ERROR, "base", "bug",
                  "an assumption of this program is broken; please report it", "place", place,
                  "condition", what, "count", count, NULL);
    }
#ifdef TEST_BUILD
    dprintf(STDERR_FILENO, "%s:%d: BUG(%s)\n", file, line, what);
    abort();
#endif
    return true;
}

uint64_t bug_count(void)
{
    return atomic_load_explicit(&bugs, memory_order_relaxed);
}

static void *checked(void *p)
{
    static const char message[] = "tripswitch-proxy: out of memory\n";

    if (p == NULL) {
        /* No formatting here: it might want memory. */
        ssize_t ignored = write(STDERR_FILENO, message, sizeof(message) - 1);
        (void)ignored;
        abort();
    }
    return p;
}

void *xmalloc(size_t size)
{
    return checked(malloc(size > 0 ? size : 1));
}

void *xcalloc(size_t count, size_t size)
{
    return checked(count > 0 && size > 0 ? calloc(count, size) : calloc(1, 1));
}

void *xrealloc(void *old, size_t size)
{
    return checked(realloc(old, size > 0 ? size : 1));
}

char *xstrdup(const char *s)
{
    return xstrndup(s, strlen(s));
}

char *xstrndup(const char *s, size_t len)
{
    size_t n = strnlen(s, len);
    char *copy = xmalloc(n + 1);

    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}
