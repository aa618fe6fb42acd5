/*
 * load.c - a load generator for the benchmarks: one thread, epoll, connections that are
 * always busy or a fixed rate.
 *
 *     load --port P [--mode http|setup|flood|hold] [options]
 *
 * http   requests from --requests FILE (whole ones, one after the other; they take turns,
 *        whichever connection is free), each answered before the next; times are those of the
 * answer's last byte.  With --rate they run from when a request was due, so that a stall counts for
 * everything that waited behind it. setup  a connection, the CONNECT of --requests if given, one
 * byte echoed, closed. flood  tunnels that the origin fills; bytes are counted. hold   connections
 * that have had one answer each (a request's, or with --raw an echo) and then stay: prints "ready",
 * and ends at the end of its input.
 *
 * The measured time begins after --warmup; the CPU time of --pids is read at its begin
 * and its end.  The result is one line of JSON.
 */
#include "tests/bench/load.h"
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define REQUESTS    1024
#define OPEN_AT_ONE 64    /* connections being set up, for hold */
#define TOO_MANY    20000 /* errors: nothing is measured any more */
#define SOURCES     64    /* loopback addresses to connect from: each has its own ports */
#define READ_SIZE   (1 << 20)
#define NS          1000000000ULL

enum mode { MODE_HTTP, MODE_SETUP, MODE_FLOOD, MODE_HOLD };

enum stage {
    IDLE,    /* nothing to do; connected or not */
    CONNECT, /* waits for the connection */
    SEND,    /* a request is going out */
    ANSWER,  /* its response is coming in */
    ECHO,    /* one byte is out and comes back */
    FLOOD,   /* bytes come in */
    LEAVE,   /* waits for the server's FIN */
};

struct request {
    const char *text;
    size_t len;
};

struct client {
    int fd; /* -1: not connected */
    int index;
    enum stage stage;
    bool tunnel; /* set up: the request is over, now come raw bytes */
    const struct request *request;
    size_t sent;
    uint64_t due_ns;
    struct response response;
};

static struct {
    int port, connections, pids[CPU_PIDS], pid_count;
    enum mode mode;
    double seconds, warmup, rate;
    bool close, raw;
} opt = { .connections = 1, .seconds = 1, .warmup = 0.2 };

static struct {
    uint64_t ops, errors, reconnects, bytes, status[6];
    struct histogram times;
} result;

static struct request requests[REQUESTS];
static int request_count, poller;
static struct client *clients, **idle;
static int idle_count, held;
static uint64_t started_ns, issued; /* of a fixed rate */
static char buffer[READ_SIZE];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

/* ---- One client ---- */

static void client_send(struct client *c);

static void watch(struct client *c, uint32_t events, int how)
{
    struct epoll_event ev = { .events = events, .data.ptr = c };
    if (epoll_ctl(poller, how, c->fd, &ev))
        die("epoll_ctl");
}

static void client_close(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->tunnel = false;
}

static void become_idle(struct client *c)
{
    c->stage = IDLE;
    idle[idle_count++] = c;
}

static void client_fail(struct client *c)
{
    result.errors++;
    client_close(c);
    become_idle(c);
}

static void client_connect(struct client *c)
{
    static unsigned next;
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    struct sockaddr_in from = { .sin_family = AF_INET };
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + next++ % SOURCES);
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port) };
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from))
        die("bind");
    c->stage = CONNECT;
    if (!connect(c->fd, (struct sockaddr *)&to, sizeof to)) {
        watch(c, EPOLLIN, EPOLL_CTL_ADD);
        client_send(c);
    } else if (errno == EINPROGRESS) {
        watch(c, EPOLLOUT, EPOLL_CTL_ADD);
    } else {
        client_fail(c);
    }
}

static void client_begin(struct client *c, uint64_t due_ns)
{
    static unsigned next;
    c->due_ns = due_ns;
    if (request_count)
        c->request = &requests[next++ % (unsigned)request_count];
    if (c->fd < 0)
        client_connect(c);
    else
        client_send(c);
}

static void client_raw(struct client *c)
{
    char first = opt.mode == MODE_FLOOD   ? RAW_FLOOD
                 : opt.mode == MODE_SETUP ? RAW_ECHO_AND_CLOSE
                                          : RAW_ECHO;
    c->tunnel = true;
    c->stage = opt.mode == MODE_FLOOD ? FLOOD : ECHO;
    if (send(c->fd, &first, 1, MSG_NOSIGNAL) != 1)
        client_fail(c);
}

static void client_send(struct client *c)
{
    if (c->stage != SEND) {
        if (!request_count) {
            client_raw(c);
            return;
        }
        c->stage = SEND;
        c->sent = 0;
        response_reset(&c->response, opt.raw);
    }
    while (c->sent < c->request->len) {
        ssize_t n =
            send(c->fd, c->request->text + c->sent, c->request->len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            return;
        }
        if (n < 0) {
            client_fail(c);
            return;
        }
        c->sent += (size_t)n;
    }
    c->stage = ANSWER;
}

/* The operation has ended well. */
static void client_done(struct client *c)
{
    result.ops++;
    histogram_add(&result.times, now_ns() - c->due_ns);
    if (opt.mode == MODE_HOLD) {
        held++;
        c->stage = IDLE;
    } else if (opt.mode == MODE_SETUP || opt.close || c->response.close) {
        result.reconnects += opt.mode != MODE_SETUP && !opt.close;
        c->stage = LEAVE;
    } else {
        become_idle(c);
    }
}

static void answer_complete(struct client *c)
{
    int status = c->response.status;
    result.status[status >= 100 && status < 600 ? status / 100 : 0]++;
    if (opt.mode == MODE_HOLD && status / 100 != 2)
        client_fail(c);
    else if (!opt.raw)
        client_done(c);
    else if (status / 100 == 2)
        client_raw(c);
    else
        client_fail(c);
}

static void client_ended(struct client *c)
{
    enum stage stage = c->stage;
    bool complete = stage == ANSWER && c->response.state == RESPONSE_TO_EOF;
    if (complete)
        answer_complete(c); /* which waits for the FIN that is here */
    if (complete || stage == LEAVE) {
        client_close(c);
        become_idle(c);
    } else if (stage == IDLE && opt.mode != MODE_HOLD) {
        result.reconnects++;
        client_close(c);
    } else {
        client_fail(c);
    }
}

static void client_bytes(struct client *c, size_t len)
{
    result.bytes += len;
    if (c->stage == ECHO) {
        client_done(c);
    } else if (c->stage == ANSWER || c->stage == SEND) {
        ptrdiff_t n = response_feed(&c->response, buffer, len);
        if (n < 0)
            client_fail(c);
        else if (c->response.state == RESPONSE_DONE)
            answer_complete(c);
    }
}

static void client_readable(struct client *c)
{
    /* Bytes of which only the number counts are not even copied. */
    bool skip = c->stage == FLOOD || (c->stage == ANSWER && c->response.state == RESPONSE_LENGTH &&
                                      c->response.left > READ_SIZE);
    ssize_t n = recv(c->fd, buffer, READ_SIZE, skip ? MSG_TRUNC : 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n < 0) {
        c->stage == LEAVE ? client_ended(c) : client_fail(c);
    } else if (n == 0) {
        client_ended(c);
    } else if (skip && c->stage == ANSWER) {
        result.bytes += (uint64_t)n;
        c->response.left -= (uint64_t)n;
    } else {
        client_bytes(c, (size_t)n);
    }
}

static void client_event(struct client *c, uint32_t events)
{
    if (c->fd < 0)
        return;
    if (c->stage == CONNECT) {
        if (events & (EPOLLERR | EPOLLHUP)) {
            client_fail(c);
            return;
        }
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
        client_send(c);
    } else if (c->stage == SEND && (events & EPOLLOUT)) {
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
        client_send(c);
    }
    if (c->fd >= 0 && (events & ~(uint32_t)EPOLLOUT))
        client_readable(c);
}

/* ---- All of them ---- */

/* When the next one is due; 0: at once. */
static uint64_t next_due_ns(void)
{
    return opt.rate > 0 ? started_ns + (uint64_t)((double)issued * (double)NS / opt.rate) : 0;
}

static void begin_due(void)
{
    uint64_t now = now_ns();
    int failing =
        result.errors > TOO_MANY ? 0 : idle_count; /* those that fail at once wait a turn */
    while (failing-- > 0 && idle_count && next_due_ns() <= now) {
        if (opt.mode == MODE_HOLD && opt.connections - held - idle_count >= OPEN_AT_ONE)
            return;
        uint64_t due = next_due_ns();
        issued++;
        struct client *c = idle[--idle_count];
        client_begin(c, due ? due : now);
    }
}

static void turn(uint64_t until_ns)
{
    struct epoll_event events[256];
    uint64_t now = now_ns(), wake = until_ns;
    if (idle_count && result.errors <= TOO_MANY && opt.mode != MODE_HOLD && next_due_ns() < wake)
        wake = next_due_ns();
    uint64_t wait = wake > now ? wake - now : 0;
    struct timespec t = { .tv_sec = (time_t)(wait / NS), .tv_nsec = (long)(wait % NS) };
    int n = epoll_pwait2(poller, events, 256, &t, NULL);
    for (int i = 0; i < n; i++)
        client_event(events[i].data.ptr, events[i].events);
    begin_due();
}

static void run_until(uint64_t end_ns)
{
    while (now_ns() < end_ns)
        turn(end_ns);
}

static void print_result(double seconds, const struct cpu *before, const struct cpu *after)
{
    static const double quantiles[] = { 0.5, 0.9, 0.99, 0.999 };
    static const char *const names[] = { "p50", "p90", "p99", "p999" };
    printf("{\"seconds\": %.6f, \"connections\": %d, \"ops\": %llu, \"errors\": %llu, "
           "\"reconnects\": %llu, \"bytes\": %llu, \"cpu_s\": %.6f",
           seconds, opt.connections, (unsigned long long)result.ops,
           (unsigned long long)result.errors, (unsigned long long)result.reconnects,
           (unsigned long long)result.bytes, after->seconds - before->seconds);
    for (int i = 0; i < 4; i++)
        printf(", \"%s\": %.2f", names[i], (double)histogram_at(&result.times, quantiles[i]) / 1e3);
    for (int i = 1; i < 6; i++)
        printf(", \"%dxx\": %llu", i, (unsigned long long)result.status[i]);
    printf(", \"threads\": {");
    for (int i = 0; i < after->threads; i++) {
        double was = 0;
        for (int k = 0; k < before->threads; k++)
            if (!strcmp(before->thread[k].name, after->thread[i].name))
                was = before->thread[k].seconds;
        printf("%s\"%s\": %.6f", i ? ", " : "", after->thread[i].name,
               after->thread[i].seconds - was);
    }
    printf("}}\n");
}

static void read_cpu(struct cpu *cpu)
{
    int gone = cpu_read(cpu, opt.pids, opt.pid_count);
    if (gone) {
        fprintf(stderr, "load: process %d is gone\n", gone);
        exit(1);
    }
}

static void measure(void)
{
    struct cpu before, after;
    run_until(started_ns + (uint64_t)(opt.warmup * (double)NS));
    memset(&result, 0, sizeof result);
    uint64_t begin = now_ns();
    read_cpu(&before);
    run_until(begin + (uint64_t)(opt.seconds * (double)NS));
    uint64_t end = now_ns();
    read_cpu(&after);
    print_result((double)(end - begin) / (double)NS, &before, &after);
}

static int hold(void)
{
    uint64_t limit = started_ns + (uint64_t)(opt.seconds * (double)NS);
    while (held < opt.connections && now_ns() < limit && result.errors <= TOO_MANY)
        turn(limit < now_ns() + NS / 10 ? limit : now_ns() + NS / 10);
    if (held < opt.connections) {
        fprintf(stderr, "load: %d of %d connections, %llu errors\n", held, opt.connections,
                (unsigned long long)result.errors);
        return 1;
    }
    puts("ready");
    fflush(stdout);
    while (read(STDIN_FILENO, buffer, sizeof buffer) > 0)
        ;
    return 0;
}

/* ---- Start ---- */

static void read_requests(const char *path)
{
    static char text[1 << 20];
    FILE *f = fopen(path, "rb");
    size_t len = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (!len)
        die(path);
    fclose(f);
    for (char *p = text; p < text + len && request_count < REQUESTS;) {
        char *end = strstr(p, "\r\n\r\n"), *field = strcasestr(p, "\nContent-Length:");
        if (!end) {
            fprintf(stderr, "load: %s: no end of a head\n", path);
            exit(2);
        }
        end += 4;
        if (field && field < end)
            end += strtoul(field + 16, NULL, 10);
        requests[request_count++] = (struct request){ p, (size_t)(end - p) };
        p = end;
    }
}

static void read_pids(char *list)
{
    for (char *p = strtok(list, ","); p; p = strtok(NULL, ",")) {
        if (opt.pid_count == CPU_PIDS) {
            fprintf(stderr, "load: more than %d processes\n", CPU_PIDS);
            exit(2);
        }
        opt.pids[opt.pid_count++] = atoi(p);
    }
}

static enum mode read_mode(const char *text)
{
    static const char *const names[] = { "http", "setup", "flood", "hold" };
    for (int i = 0; i < 4; i++)
        if (!strcmp(text, names[i]))
            return (enum mode)i;
    fprintf(stderr, "load: no mode %s\n", text);
    exit(2);
}

static void read_options(int argc, char **argv)
{
    static const struct option names[] = {
        { "port", 1, NULL, 'p' },     { "mode", 1, NULL, 'm' },   { "connections", 1, NULL, 'c' },
        { "seconds", 1, NULL, 's' },  { "warmup", 1, NULL, 'w' }, { "rate", 1, NULL, 'r' },
        { "requests", 1, NULL, 'q' }, { "pids", 1, NULL, 'i' },   { "close", 0, NULL, 'x' },
        { "raw", 0, NULL, 't' },      { NULL, 0, NULL, 0 },
    };
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (o) {
        case 'p':
            opt.port = atoi(optarg);
            break;
        case 'm':
            opt.mode = read_mode(optarg);
            break;
        case 'c':
            opt.connections = atoi(optarg);
            break;
        case 's':
            opt.seconds = atof(optarg);
            break;
        case 'w':
            opt.warmup = atof(optarg);
            break;
        case 'r':
            opt.rate = atof(optarg);
            break;
        case 'q':
            read_requests(optarg);
            break;
        case 'i':
            read_pids(optarg);
            break;
        case 'x':
            opt.close = true;
            break;
        case 't':
            opt.raw = true;
            break;
        default:
            exit(2);
        }
    }
    opt.raw = opt.raw || opt.mode == MODE_SETUP || opt.mode == MODE_FLOOD;
    if (!opt.port || opt.connections < 1) {
        fputs("load: --port and at least one of --connections\n", stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1); /* a rate is kept to the microsecond */
    raise_descriptors();
    poller = epoll_create1(EPOLL_CLOEXEC);
    clients = calloc((size_t)opt.connections, sizeof *clients);
    idle = calloc((size_t)opt.connections, sizeof *idle);
    if (poller < 0 || !clients || !idle)
        die("start");
    for (int i = opt.connections - 1; i >= 0; i--) {
        clients[i].fd = -1;
        become_idle(&clients[i]);
    }
    started_ns = now_ns();
    begin_due();
    if (opt.mode == MODE_HOLD)
        return hold();
    measure();
    return 0;
}
