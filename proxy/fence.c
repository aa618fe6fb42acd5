#include "proxy/fence.h"

#include <sys/socket.h>
#include <sys/stat.h>

void fence_init(struct fence *f)
{
    for (unsigned i = 0; i < FENCE_PLACES; i++)
        f->notes[i].fd = -1;
}

static bool lives(int fd, ino_t inode)
{
    struct stat st;

    return fd >= 0 && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == inode;
}

static void note(struct fence *f, unsigned place, int fd, int64_t now_ms)
{
    struct stat st;

    if (fstat(fd, &st) != 0)
        return;
    f->notes[place].fd = fd;
    f->notes[place].inode = st.st_ino;
    f->notes[place].since_ms = now_ms;
}

bool fence_admit(struct fence *f, int fd, int64_t now_ms)
{
    unsigned oldest = 0;

    for (unsigned i = 0; i < FENCE_PLACES; i++) {
        if (!lives(f->notes[i].fd, f->notes[i].inode)) {
            note(f, i, fd, now_ms);
            return true;
        }
        if (f->notes[i].since_ms < f->notes[oldest].since_ms)
            oldest = i;
    }
    if (now_ms - f->notes[oldest].since_ms <= FENCE_OLD_MS) {
        shutdown(fd, SHUT_RDWR);
        return false;
    }
    shutdown(f->notes[oldest].fd, SHUT_RDWR);
    note(f, oldest, fd, now_ms);
    return false;
}
