/*
 * base.h - what every file may assume: array lengths, bug reports, memory.
 *
 * BUG(cond) reports a broken assumption of ours and returns cond, so the caller
 * can lose one exchange instead of the process.  Test builds abort.  A peer must
 * never be able to make one true.
 */
#ifndef BASE_BASE_H
#define BASE_BASE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n)       (1u << (n))

#define BUG(cond) (__builtin_expect(!!(cond), 0) && bug_report(__FILE__, __LINE__, #cond))

bool bug_report(const char *file, int line, const char *what); /* returns true */
uint64_t bug_count(void);                                      /* since start, for /metrics */

/* Abort on exhaustion.  A size that came from a peer meets a limit first. */
void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size); /* zeroed, overflow-checked */
void *xrealloc(void *old, size_t size);
char *xstrdup(const char *s);
char *xstrndup(const char *s, size_t len);

#endif
