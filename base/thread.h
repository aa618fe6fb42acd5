/*
 * thread.h - a thread of ours.  Linux.
 *
 * It starts with every signal blocked: signals are the main thread's, and a write to a
 * connection that the peer has closed must be an errno, not the end of the process.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H
#include <pthread.h>

/* 0, or the error of pthread_create(3).  The caller joins it. */
int thread_start(pthread_t *thread, void *(*run)(void *), void *arg);

#endif
