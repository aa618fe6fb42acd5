/*
 * origin.c - an origin server that costs less than any proxy in front of it.
 *
 *     origin HTTP_PORT RAW_PORT
 *
 * One thread, epoll, no configuration.  HTTP: /1k, /1m, /100m (a Content-Length), /chunked
 * (64 chunks of 1 KB), and anything with a body, which is read, dropped and answered
 * with 1 KB.  Raw, for tunnels: the first byte decides (load.h): data without end, echo,
 * or one echo and a close.  It answers what load.c and the proxies of a benchmark send
 * and closes on everything else.
 */
#include "tests/bench/load.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_MAX  8192
#define BLOB      (1 << 20)
#define PER_TURN  (4 << 20) /* bytes of one connection before the others have their turn */
#define CHUNKS    64
#define ENDLESS   INT64_MAX
#define NO_LENGTH (-1)

struct peer {
    int fd;
    bool raw, started, close_after, echo_once;
    bool wants_out;     /* EPOLLOUT is asked for */
    int64_t to_discard; /* bytes of the request's body still to come */
    int64_t to_send;    /* bytes of the blob still to go out */
    const char *rest;   /* of an answer that did not fit in one write; static text */
    size_t rest_len;
    size_t used; /* of head */
    char head[HEAD_MAX];
};

static int poller, blob = -1;
static char scratch[BLOB];
static char answer_1k[2048], answer_chunked[CHUNKS * 1100];
static size_t answer_1k_len, answer_chunked_len;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void make_answers(void)
{
    char kilo[1024];
    memset(kilo, 'x', sizeof kilo);
    int n = snprintf(answer_1k, sizeof answer_1k,
                     "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\n"
                     "Content-Length: 1024\r\n\r\n");
    memcpy(answer_1k + n, kilo, sizeof kilo);
    answer_1k_len = (size_t)n + sizeof kilo;

    char *p = answer_chunked;
    p += sprintf(p, "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < CHUNKS; i++) {
        p += sprintf(p, "400\r\n");
        memcpy(p, kilo, sizeof kilo);
        p += sizeof kilo;
        p += sprintf(p, "\r\n");
    }
    p += sprintf(p, "0\r\n\r\n");
    answer_chunked_len = (size_t)(p - answer_chunked);
}

static void make_blob(void)
{
    blob = memfd_create("blob", MFD_CLOEXEC);
    if (blob < 0)
        die("memfd_create");
    memset(scratch, 'x', sizeof scratch);
    if (write(blob, scratch, BLOB) != BLOB)
        die("write");
}

static void peer_close(struct peer *p)
{
    close(p->fd); /* leaves the epoll set by itself */
    free(p);
}

static void want_out(struct peer *p, bool want)
{
    if (p->wants_out == want)
        return;
    p->wants_out = want;
    struct epoll_event ev = { .events = EPOLLIN | (want ? EPOLLOUT : 0), .data.ptr = p };
    epoll_ctl(poller, EPOLL_CTL_MOD, p->fd, &ev);
}

/* false: the connection is over and freed. */
static bool peer_flush(struct peer *p)
{
    while (p->rest_len) {
        ssize_t n = send(p->fd, p->rest, p->rest_len, MSG_NOSIGNAL | (p->to_send ? MSG_MORE : 0));
        if (n < 0 && errno == EAGAIN) {
            want_out(p, true);
            return true;
        }
        if (n < 0) {
            peer_close(p);
            return false;
        }
        p->rest += n;
        p->rest_len -= (size_t)n;
    }
    for (int64_t turn = 0; p->to_send > 0;) {
        off_t at = 0;
        size_t most = p->to_send < BLOB ? (size_t)p->to_send : BLOB;
        ssize_t n = turn < PER_TURN ? sendfile(p->fd, blob, &at, most) : (errno = EAGAIN, -1);
        if (n < 0 && errno == EAGAIN) {
            want_out(p, true);
            return true;
        }
        if (n <= 0) {
            peer_close(p);
            return false;
        }
        turn += n;
        if (p->to_send != ENDLESS)
            p->to_send -= n;
    }
    want_out(p, false);
    if (p->close_after) {
        peer_close(p);
        return false;
    }
    return true;
}

static bool answer(struct peer *p, const char *text, size_t len, int64_t body)
{
    p->rest = text;
    p->rest_len = len;
    p->to_send = body;
    return peer_flush(p);
}

static bool answer_body(struct peer *p, int64_t bytes, const char *head)
{
    return answer(p, head, strlen(head), bytes);
}

static bool answer_path(struct peer *p, const char *path)
{
    static const char head_1m[] = "HTTP/1.1 200 OK\r\nServer: bench\r\n"
                                  "Content-Length: 1048576\r\n\r\n";
    static const char head_100m[] = "HTTP/1.1 200 OK\r\nServer: bench\r\n"
                                    "Content-Length: 104857600\r\n\r\n";
    if (!strncmp(path, "/1m ", 4))
        return answer_body(p, BLOB, head_1m);
    if (!strncmp(path, "/100m ", 6))
        return answer_body(p, 100LL * BLOB, head_100m);
    if (!strncmp(path, "/chunked ", 9))
        return answer(p, answer_chunked, answer_chunked_len, 0);
    return answer(p, answer_1k, answer_1k_len, 0);
}

/* p->head holds a whole head of head_len bytes, NUL-terminated at its last CRLF. */
static bool serve_request(struct peer *p, size_t head_len)
{
    const char *path = strchr(p->head, ' ');
    if (!path) {
        peer_close(p);
        return false;
    }
    p->close_after = strcasestr(p->head, "\nConnection: close") || strstr(p->head, " HTTP/1.0\r\n");
    int64_t length = 0;
    if (p->head[0] == 'P') {
        const char *field = strcasestr(p->head, "\nContent-Length:");
        length = field ? strtoll(field + 16, NULL, 10) : NO_LENGTH;
    }
    if (length == NO_LENGTH) {
        peer_close(p);
        return false;
    }
    int64_t here = (int64_t)(p->used - head_len);
    p->used = 0;
    p->to_discard = length > here ? length - here : 0;
    if (p->to_discard)
        return true; /* answered when the body is here */
    return answer_path(p, path + 1);
}

static bool http_readable(struct peer *p)
{
    if (p->to_discard) {
        size_t most = p->to_discard < BLOB ? (size_t)p->to_discard : BLOB;
        ssize_t n = recv(p->fd, scratch, most, MSG_TRUNC); /* counted, not copied */
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n <= 0) {
            peer_close(p);
            return false;
        }
        p->to_discard -= n;
        return p->to_discard ? true : answer(p, answer_1k, answer_1k_len, 0);
    }
    ssize_t n = recv(p->fd, p->head + p->used, HEAD_MAX - 1 - p->used, 0);
    if (n < 0 && errno == EAGAIN)
        return true;
    if (n <= 0 || p->rest_len || p->to_send) { /* pipelining is not for us */
        peer_close(p);
        return false;
    }
    p->used += (size_t)n;
    p->head[p->used] = 0;
    char *end = memmem(p->head, p->used, "\r\n\r\n", 4);
    if (end) {
        end[2] = 0;
        return serve_request(p, (size_t)(end + 4 - p->head));
    }
    if (p->used < HEAD_MAX - 1)
        return true;
    peer_close(p);
    return false;
}

static bool raw_readable(struct peer *p)
{
    ssize_t n = recv(p->fd, p->head, HEAD_MAX, 0);
    if (n < 0 && errno == EAGAIN)
        return true;
    if (n <= 0) {
        peer_close(p);
        return false;
    }
    if (!p->started) {
        p->started = true;
        if (p->head[0] == RAW_FLOOD)
            return answer(p, "", 0, ENDLESS);
        p->close_after = p->head[0] == RAW_ECHO_AND_CLOSE;
    }
    if (p->to_send)
        return true;                         /* a flooded client has nothing to say */
    return answer(p, p->head, (size_t)n, 0); /* echoes are short: they fit in the socket's buffer */
}

static void accept_all(int listener, bool raw)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct peer *p = calloc(1, sizeof *p);
        if (!p)
            die("calloc");
        p->fd = fd;
        p->raw = raw;
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = p };
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &ev))
            die("epoll_ctl");
    }
}

static int listen_on(const char *text, void *mark)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(text)) };
    at.sin_addr.s_addr = htonl(INADDR_ANY); /* all of 127.0.0.0/8, for many hosts without DNS */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2)) /* and nobody from outside */
        die("SO_BINDTODEVICE");
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 4096))
        die("listen");
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = mark };
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &ev);
    return fd;
}

int main(int argc, char **argv)
{
    static char http_mark, raw_mark;
    if (argc != 3) {
        fputs("origin HTTP_PORT RAW_PORT\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    raise_descriptors();
    make_answers();
    make_blob();
    poller = epoll_create1(EPOLL_CLOEXEC);
    int http = listen_on(argv[1], &http_mark), raw = listen_on(argv[2], &raw_mark);
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < n; i++) {
            struct peer *p = events[i].data.ptr;
            if ((void *)p == &http_mark) {
                accept_all(http, false);
            } else if ((void *)p == &raw_mark) {
                accept_all(raw, true);
            } else if (!(events[i].events & EPOLLOUT) || peer_flush(p)) {
                if (events[i].events & ~EPOLLOUT)
                    (void)(p->raw ? raw_readable(p) : http_readable(p));
            }
        }
    }
}
