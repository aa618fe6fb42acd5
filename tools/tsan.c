/*
 * tsan.c - what ThreadSanitizer should know; linked into the tsan variant only.
 *
 * libevent, libcurl and c-ares are not instrumented.  Each descriptor they touch counts as
 * memory, and the kernel gives a number that one thread closed to the next that asks, so
 * their reads and writes would be reported as races.  Locks in them are still seen.
 */
const char *__tsan_default_options(void);
const char *__tsan_default_suppressions(void);

const char *__tsan_default_options(void)
{
    return "ignore_noninstrumented_modules=1";
}

const char *__tsan_default_suppressions(void)
{
    /* the same, where the call is ours: /proc/self/fd is listed with a descriptor that a
     * worker had before; the fence asks about a number that may be another's by now and
     * compares inodes for that very reason */
    return "race:count_fds\n"
           "race:^lives$\n";
}
