#include "control/control.h"

#include "base/base.h"
#include "base/log.h"
#include "base/prng.h"
#include "base/strbuf.h"
#include "base/thread.h"
#include "control/server.h"
#include <errno.h>
#include <event2/event.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PROJECT_ID "embedded"
#define KEY_PREFIX "eb_pk_"
#define KEY_BYTES  32

struct control {
    struct server_keys keys;
    char ingest_secret[2 * INGEST_KEY_BYTES + 1];
    char socket[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
    struct event_base *base; /* the thread's, once it runs */
    struct server *server;   /* likewise, but for server_counters */
    struct event *wake;
    int wake_fd;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t adopted;
    const struct config *next; /* handed over, not yet taken; NULL: none */
    bool stopping;
};

static void to_hex(const uint8_t *in, size_t len, char *out)
{
    for (size_t i = 0; i < len; i++)
        snprintf(out + 2 * i, 3, "%02x", in[i]);
}

static void draw_keys(struct control *c)
{
    uint8_t key[KEY_BYTES];

    snprintf(c->keys.project_id, sizeof(c->keys.project_id), "%s", PROJECT_ID);
    random_bytes(key, sizeof(key));
    memcpy(c->keys.api_key, KEY_PREFIX, sizeof(KEY_PREFIX));
    to_hex(key, sizeof(key), c->keys.api_key + strlen(KEY_PREFIX));
    OPENSSL_cleanse(key, sizeof(key));
    random_bytes(c->keys.ingest, sizeof(c->keys.ingest));
    to_hex(c->keys.ingest, sizeof(c->keys.ingest), c->ingest_secret);
}

/* A Unix socket bound with nothing but its family gets a free abstract name from the kernel
 * (unix(7), "autobind").  The name is NUL and five hex digits. */
static int bind_somewhere(struct control *c)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    socklen_t len = sizeof(sa);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&sa, sizeof(sa_family_t)) < 0 ||
        getsockname(fd, (struct sockaddr *)&sa, &len) < 0) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    len -= (socklen_t)offsetof(struct sockaddr_un, sun_path);
    memcpy(c->socket, sa.sun_path + 1, len - 1);
    c->socket[len - 1] = '\0';
    return fd;
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct control *c = arg;
    const struct config *next;
    bool stopping;
    uint64_t count;

    (void)what;
    if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        (void)BUG("eventfd cannot be read");
    pthread_mutex_lock(&c->lock);
    next = c->next;
    stopping = c->stopping;
    pthread_mutex_unlock(&c->lock);
    if (stopping) {
        event_base_loopbreak(c->base);
        return;
    }
    if (next == NULL)
        return;
    server_configure(c->server, next);
    pthread_mutex_lock(&c->lock);
    c->next = NULL;
    pthread_cond_broadcast(&c->adopted);
    pthread_mutex_unlock(&c->lock);
}

static void wake(struct control *c)
{
    uint64_t one = 1;

    /* EAGAIN means that a wake-up is due already. */
    if (write(c->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        (void)BUG("eventfd cannot be written");
}

static void *run(void *arg)
{
    struct control *c = arg;

    log_thread_init("control");
    event_base_loop(c->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

static int open_all(struct control *c)
{
    int fd = bind_somewhere(c);

    if (fd < 0)
        return -1;
    c->base = event_base_new();
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->base == NULL || c->wake_fd < 0) {
        close(fd);
        return -1;
    }
    c->server = server_new(c->base, fd, &c->keys);
    if (c->server == NULL)
        return -1;
    c->wake = event_new(c->base, c->wake_fd, EV_READ | EV_PERSIST, on_wake, c);
    return c->wake && event_add(c->wake, NULL) == 0 ? 0 : -1;
}

static void free_all(struct control *c)
{
    server_free(c->server);
    if (c->wake)
        event_free(c->wake);
    if (c->base)
        event_base_free(c->base);
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    pthread_cond_destroy(&c->adopted);
    pthread_mutex_destroy(&c->lock);
    OPENSSL_cleanse(&c->keys, sizeof(c->keys));
    OPENSSL_cleanse(c->ingest_secret, sizeof(c->ingest_secret));
    free(c);
}

int control_start(struct control **out, const struct config *cfg, struct strbuf *errors)
{
    struct control *c = xcalloc(1, sizeof(*c));

    c->wake_fd = -1;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->adopted, NULL);
    draw_keys(c);
    if (open_all(c) < 0) {
        strbuf_addf(errors, "embedded control plane: cannot listen: %s\n", strerror(errno));
        free_all(c);
        return -1;
    }
    server_configure(c->server, cfg);
    int rc = thread_start(&c->thread, run, c);
    if (rc != 0) {
        strbuf_addf(errors, "embedded control plane: no thread: %s\n", strerror(rc));
        free_all(c);
        return -1;
    }
    *out = c;
    return 0;
}

void control_stop(struct control *c)
{
    if (c == NULL)
        return;
    pthread_mutex_lock(&c->lock);
    c->stopping = true;
    pthread_mutex_unlock(&c->lock);
    wake(c);
    pthread_join(c->thread, NULL);
    free_all(c);
}

void control_reconfigure(struct control *c, const struct config *cfg)
{
    pthread_mutex_lock(&c->lock);
    c->next = cfg;
    wake(c);
    while (c->next != NULL)
        pthread_cond_wait(&c->adopted, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

const char *control_socket(const struct control *c)
{
    return c->socket;
}

const char *control_project_id(const struct control *c)
{
    return c->keys.project_id;
}

const char *control_api_key(const struct control *c)
{
    return c->keys.api_key;
}

const char *control_ingest_secret(const struct control *c)
{
    return c->ingest_secret;
}

void control_stats(const struct control *c, struct control_stats *out)
{
    server_counters(c->server, out);
}
