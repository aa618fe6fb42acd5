/*
 * fence.h - at most so many connections, for a server that does not count them itself.
 *
 * evhttp neither limits its connections nor tells of their end, so the fence keeps a weak
 * note of each socket: as long as the descriptor still is that socket, it lives.  A
 * connection too many is shut down; evhttp reads the end and closes it.
 */
#ifndef PROXY_FENCE_H
#define PROXY_FENCE_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define FENCE_PLACES 64
#define FENCE_OLD_MS 60000

struct fence {
    struct {
        int fd; /* -1: never used */
        ino_t inode;
        int64_t since_ms;
    } notes[FENCE_PLACES];
};

void fence_init(struct fence *f);

/*
 * A connected socket has come.  True: nobody had to go.  When all places are taken, the
 * oldest connection gives way if it is older than FENCE_OLD_MS, so that nobody can keep
 * the probes out by holding connections; else the new one goes.
 */
bool fence_admit(struct fence *f, int fd, int64_t now_ms);

#endif
