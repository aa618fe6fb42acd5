/*
 * The real thread against a scripted control plane in this process: loopback TCP, or an
 * abstract Unix socket.  Nothing here waits for a time, only for a condition.
 */
#include "base/base.h"
#include "base/intern.h"
#include "base/log.h"
#include "base/ring.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "sync/attempt.h"
#include "sync/backoff.h"
#include "sync/breakers.h"
#include "sync/known.h"
#include "sync/settings.h"
#include "sync/stats.h"
#include "sync/stream.h"
#include "sync/sync.h"
#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#define API_KEY   "eb_pk_test_key_1"
#define API_KEY_2 "eb_pk_test_key_2"
#define SECRET    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define LONGEST_S 20

/* ---- the scripted control plane ---- */

struct answer {
    int status;
    const char *headers; /* further lines, each with CRLF */
    const char *body;
};

struct post_seen {
    int status; /* what we answered */
    int samples;
    bool valid; /* signature and schema */
    char timestamp[32];
    int64_t at_ms;
};

#define POSTS_MAX 4096
#define CONNS_MAX 256

struct server {
    int listener;
    char url[64];
    pthread_t acceptor;
    pthread_t conns[CONNS_MAX];
    int fds[CONNS_MAX];
    size_t conn_count;

    pthread_mutex_t lock; /* everything below */
    bool stopping;
    struct answer stream; /* for the next stream request; 200 stands */
    const char *stream_type;
    const char *snapshot;
    int stream_fd; /* the standing stream, or -1 */
    unsigned stream_requests;
    char stream_head[2048];      /* the last stream request's head */
    const struct answer *ingest; /* one by one, then 202 */
    size_t ingest_count;
    size_t bytes_in;
    struct post_seen posts[POSTS_MAX];
    size_t post_count;
    int accepted; /* samples answered with 202 */
};

static int64_t mono_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        bytes += n;
        len -= (size_t)n;
    }
}

static void write_chunk(int fd, const char *text)
{
    char size[16];
    write_all(fd, size, (size_t)snprintf(size, sizeof(size), "%zx\r\n", strlen(text)));
    write_all(fd, text, strlen(text));
    write_all(fd, "\r\n", 2);
}

static void header_value(const char *head, const char *name, char *out, size_t size)
{
    const char *at = strcasestr(head, name);
    out[0] = '\0';
    if (!at)
        return;
    at += strlen(name);
    at += strspn(at, " ");
    size_t len = strcspn(at, "\r\n");
    snprintf(out, size, "%.*s", (int)len, at);
}

static char *unzip(const char *bytes, size_t len, size_t *out_len)
{
    size_t room = 4 * 1024 * 1024;
    char *out = malloc(room);
    z_stream z = { .next_in = (Bytef *)(uintptr_t)bytes,
                   .avail_in = (uInt)len,
                   .next_out = (Bytef *)out,
                   .avail_out = (uInt)room };
    inflateInit2(&z, 15 + 16);
    int rc = inflate(&z, Z_FINISH);
    *out_len = rc == Z_STREAM_END ? z.total_out : 0;
    inflateEnd(&z);
    return out;
}

static bool signature_is_right(const char *head, const char *body, size_t len)
{
    char ts[32], sig[128], want[80] = "v1=";
    header_value(head, "X-EB-Timestamp:", ts, sizeof(ts));
    header_value(head, "X-EB-Signature:", sig, sizeof(sig));
    unsigned char key[32], sum[32];
    for (size_t i = 0; i < 32; i++)
        key[i] = (unsigned char)i; /* SECRET */
    size_t ts_len = strlen(ts);
    unsigned char *message = malloc(ts_len + 1 + len);
    memcpy(message, ts, ts_len);
    message[ts_len] = '.';
    memcpy(message + ts_len + 1, body, len);
    unsigned sum_len = 0;
    HMAC(EVP_sha256(), key, sizeof(key), message, ts_len + 1 + len, sum, &sum_len);
    free(message);
    for (size_t i = 0; i < sum_len; i++)
        snprintf(want + 3 + 2 * i, 3, "%02x", sum[i]);
    return strcmp(sig, want) == 0;
}

static bool sample_is_right(const cJSON *s)
{
    return cJSON_IsString(cJSON_GetObjectItem(s, "router_id")) &&
           cJSON_IsString(cJSON_GetObjectItem(s, "metric")) &&
           cJSON_IsNumber(cJSON_GetObjectItem(s, "ts_ms")) &&
           cJSON_IsNumber(cJSON_GetObjectItem(s, "value")) &&
           cJSON_IsBool(cJSON_GetObjectItem(s, "ok"));
}

static void read_post(struct post_seen *post, const char *head, const char *body, size_t len)
{
    char coding[16];
    header_value(head, "Content-Encoding:", coding, sizeof(coding));
    header_value(head, "X-EB-Timestamp:", post->timestamp, sizeof(post->timestamp));
    bool zipped = strcmp(coding, "gzip") == 0;
    size_t plain_len = len;
    char *plain = zipped ? unzip(body, len, &plain_len) : NULL;
    cJSON *root = cJSON_ParseWithLength(zipped ? plain : body, plain_len);
    cJSON *samples = cJSON_GetObjectItem(root, "samples");
    post->samples = cJSON_GetArraySize(samples);
    post->valid = post->samples > 0 && signature_is_right(head, body, len) &&
                  !strcasestr(head, "\nAuthorization:") &&
                  strcasestr(head, "Content-Type: application/json");
    const cJSON *s;
    cJSON_ArrayForEach(s, samples) post->valid = post->valid && sample_is_right(s);
    cJSON_Delete(root);
    free(plain);
    post->at_ms = mono_ms();
}

enum after { KEEP, CUT, STREAMS }; /* what becomes of the connection */

static enum after answer_post(struct server *s, int fd, const char *head, const char *body,
                              size_t len)
{
    static const struct answer accepted = { 202, "", "{\"accepted\":1}" };
    struct post_seen post = { 0 };
    read_post(&post, head, body, len);
    pthread_mutex_lock(&s->lock);
    const struct answer *a = s->ingest_count > 0 ? s->ingest : &accepted;
    if (s->ingest_count > 0) {
        s->ingest++;
        s->ingest_count--;
    }
    post.status = a->status;
    if (s->post_count < POSTS_MAX)
        s->posts[s->post_count++] = post;
    if (a->status == 202)
        s->accepted += post.samples;
    pthread_mutex_unlock(&s->lock);
    if (a->status == 0)
        return CUT;
    char out[512];
    int n = snprintf(out, sizeof(out), "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n%s\r\n%s",
                     a->status, strlen(a->body), a->headers, a->body);
    write_all(fd, out, (size_t)n);
    return KEEP;
}

static enum after answer_stream(struct server *s, int fd, const char *head)
{
    pthread_mutex_lock(&s->lock);
    s->stream_requests++;
    snprintf(s->stream_head, sizeof(s->stream_head), "%s", head);
    struct answer a = s->stream;
    s->stream = (struct answer){ 200, "", "" };
    if (a.status == 200) {
        char out[256];
        int n = snprintf(out, sizeof(out),
                         "HTTP/1.1 200 OK\r\nContent-Type: %s\r\n"
                         "Transfer-Encoding: chunked\r\n\r\n",
                         s->stream_type);
        write_all(fd, out, (size_t)n);
        if (s->snapshot[0])
            write_chunk(fd, s->snapshot);
        s->stream_fd = fd;
    } else if (a.status > 0) {
        char out[512];
        int n = snprintf(out, sizeof(out), "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n%s\r\n%s",
                         a.status, strlen(a.body), a.headers, a.body);
        write_all(fd, out, (size_t)n);
    } else {
        write_all(fd, a.body, strlen(a.body));
    }
    pthread_mutex_unlock(&s->lock);
    return a.status == 200 ? STREAMS : a.status > 0 ? KEEP : CUT;
}

struct conn {
    struct server *server;
    int fd;
    size_t index;
};

/* A request's head and body into buf; 0: the connection has ended. */
static size_t read_request(struct server *s, int fd, char *buf, size_t room, char **body,
                           size_t *body_len)
{
    size_t len = 0;
    for (;;) {
        buf[len] = '\0';
        char *end = strstr(buf, "\r\n\r\n");
        if (end) {
            char value[32];
            end[2] = '\0'; /* the head ends here */
            header_value(buf, "Content-Length:", value, sizeof(value));
            *body = end + 4;
            *body_len = strtoul(value, NULL, 10);
            size_t whole = (size_t)(*body - buf) + *body_len;
            while (len < whole) {
                ssize_t n = recv(fd, buf + len, whole - len, 0);
                if (n <= 0)
                    return 0;
                len += (size_t)n;
            }
            return whole;
        }
        ssize_t n = recv(fd, buf + len, room - 1 - len, 0);
        if (n <= 0)
            return 0;
        len += (size_t)n;
        pthread_mutex_lock(&s->lock);
        s->bytes_in += (size_t)n;
        pthread_mutex_unlock(&s->lock);
    }
}

static void *serve(void *arg)
{
    struct conn *c = arg;
    struct server *s = c->server;
    size_t room = 4 * 1024 * 1024;
    char *buf = malloc(room);
    char *body;
    size_t body_len;
    enum after after = KEEP;
    while (after == KEEP && read_request(s, c->fd, buf, room, &body, &body_len) > 0) {
        bool get = strncmp(buf, "GET ", 4) == 0;
        after = get ? answer_stream(s, c->fd, buf) : answer_post(s, c->fd, buf, body, body_len);
    }
    if (after != STREAMS)
        shutdown(c->fd, SHUT_RDWR);
    free(buf);
    free(c);
    return NULL;
}

static void *accept_all(void *arg)
{
    struct server *s = arg;
    for (;;) {
        int fd = accept(s->listener, NULL, NULL);
        pthread_mutex_lock(&s->lock);
        bool stop = s->stopping || fd < 0 || s->conn_count == CONNS_MAX;
        pthread_mutex_unlock(&s->lock);
        if (stop) {
            if (fd >= 0)
                close(fd);
            return NULL;
        }
        struct conn *c = malloc(sizeof(*c));
        *c = (struct conn){ s, fd, s->conn_count };
        s->fds[s->conn_count] = fd;
        pthread_create(&s->conns[s->conn_count++], NULL, serve, c);
    }
}

static char abstract_name[64];

static void server_start(struct server *s, bool abstract)
{
    *s = (struct server){
        .stream = { 200, "", "" },
        .stream_type = "text/event-stream",
        .snapshot = "",
        .stream_fd = -1,
    };
    pthread_mutex_init(&s->lock, NULL);
    if (abstract) {
        static unsigned n;
        struct sockaddr_un un = { .sun_family = AF_UNIX };
        int len = snprintf(abstract_name, sizeof(abstract_name), "test-sync-%d-%u", getpid(), n++);
        memcpy(un.sun_path + 1, abstract_name, (size_t)len);
        s->listener = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(
            bind(s->listener, (struct sockaddr *)&un,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len)),
            0);
        snprintf(s->url, sizeof(s->url), "http://embedded");
    } else {
        struct sockaddr_in in = { .sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t len = sizeof(in);
        s->listener = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(bind(s->listener, (struct sockaddr *)&in, sizeof(in)), 0);
        getsockname(s->listener, (struct sockaddr *)&in, &len);
        snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%d", ntohs(in.sin_port));
    }
    listen(s->listener, 64);
    pthread_create(&s->acceptor, NULL, accept_all, s);
}

static void server_stop(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_mutex_unlock(&s->lock);
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->acceptor, NULL);
    for (size_t i = 0; i < s->conn_count; i++)
        shutdown(s->fds[i], SHUT_RDWR);
    for (size_t i = 0; i < s->conn_count; i++) {
        pthread_join(s->conns[i], NULL);
        close(s->fds[i]);
    }
    close(s->listener);
    pthread_mutex_destroy(&s->lock);
}

static void server_send(struct server *s, const char *text)
{
    pthread_mutex_lock(&s->lock);
    write_chunk(s->stream_fd, text);
    pthread_mutex_unlock(&s->lock);
}

enum cut { CUT_CLEAN, CUT_FIN, CUT_RESET };

static void server_cut(struct server *s, enum cut how)
{
    pthread_mutex_lock(&s->lock);
    if (how == CUT_CLEAN)
        write_all(s->stream_fd, "0\r\n\r\n", 5);
    if (how == CUT_RESET) {
        const struct linger now = { .l_onoff = 1, .l_linger = 0 };
        setsockopt(s->stream_fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
        int gone = open("/dev/null", 0);
        dup2(gone, s->stream_fd); /* closes it with a reset; the number stays ours */
        close(gone);
    } else {
        shutdown(s->stream_fd, SHUT_RDWR);
    }
    s->stream_fd = -1;
    pthread_mutex_unlock(&s->lock);
}

static void server_script(struct server *s, const struct answer *answers, size_t n)
{
    pthread_mutex_lock(&s->lock);
    s->ingest = answers;
    s->ingest_count = n;
    pthread_mutex_unlock(&s->lock);
}

static size_t posts_seen(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    size_t n = s->post_count;
    pthread_mutex_unlock(&s->lock);
    return n;
}

static int samples_accepted(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    int n = s->accepted;
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* ---- the client under test ---- */

#define RINGS 2

static struct server server;
static struct config cfg;
static struct route route;
static struct breakers *table;
static struct intern *hosts;
static struct ring *rings[RINGS];
static struct sync *sync_thread;
static struct sync_endpoint endpoint;
static char *breaker_names[] = { (char *)"payments" };

static void pause_briefly(void)
{
    const struct timespec t = { .tv_nsec = 2000000 };
    nanosleep(&t, NULL);
}

#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        int64_t give_up_ms = mono_ms() + LONGEST_S * 1000;                                         \
        while (!(condition)) {                                                                     \
            if (mono_ms() > give_up_ms)                                                            \
                fail_msg("line %d: never came true: %s", __LINE__, #condition);                    \
            pause_briefly();                                                                       \
        }                                                                                          \
    } while (0)

static void build_config(void)
{
    route = (struct route){
        .name = "payments",
        .router = (char *)"rtr-1",
        .breakers = { breaker_names, 1 },
        .metrics = { { .name = (char *)"latency" } },
        .metric_count = 1,
    };
    cfg = (struct config){
        .routes = &route,
        .route_count = 1,
        .fallback = &route,
    };
    cfg.control.state_max_age_ms = 60000;
    cfg.samples.flush_interval_ms = 100;
    cfg.samples.urgent_interval_ms = 100;
    cfg.samples.batch = 500;
    cfg.samples.buffer = 10000;
    cfg.samples.max_age_ms = 120000;
    cfg.samples.max_posts_per_second = OFF;
    cfg.samples.gzip = true;
}

static void set_up_on(bool abstract)
{
    server_start(&server, abstract);
    server.snapshot =
        "event: state\n"
        "data: {\"breaker\":\"payments\",\"state\":\"closed\",\"allow_rate\":null}\n\n";
    build_config();
    table = breakers_new();
    hosts = intern_new(16);
    for (size_t i = 0; i < RINGS; i++)
        rings[i] = ring_new(sizeof(struct attempt_record), ATTEMPT_RING_CAPACITY);
    endpoint = (struct sync_endpoint){
        .base_url = server.url,
        .abstract_socket = abstract ? abstract_name : NULL,
        .peer_pid = abstract ? getpid() : 0,
        .project_id = "proj/1",
        .api_key = API_KEY,
        .ingest_secret = SECRET,
    };
}

static int set_up(void **state)
{
    (void)state;
    set_up_on(false);
    return 0;
}

static int set_up_abstract(void **state)
{
    (void)state;
    set_up_on(true);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    sync_free(sync_thread);
    sync_thread = NULL;
    server_stop(&server);
    for (size_t i = 0; i < RINGS; i++)
        ring_free(rings[i]);
    breakers_free(table);
    intern_free(hosts);
    return 0;
}

static void record_on(size_t ring, unsigned n, bool urgent)
{
    for (unsigned i = 0; i < n; i++) {
        const struct attempt_record rec = {
            .route = &route,
            .outcome = urgent ? OUTCOME_STATUS : OUTCOME_SUCCESS,
            .ok = !urgent,
            .urgent = urgent,
            .status = 200,
            .method = "GET",
            .ts_ms = INT64_C(1705312200000),
            .values = { i * 0.5 },
        };
        bool was_empty;
        while (!ring_push(rings[ring], &rec, &was_empty))
            pause_briefly();
        if (was_empty)
            sync_wake(sync_thread);
    }
}

static void create(const struct sync_endpoint *e)
{
    struct strbuf errors = STRBUF_INIT;
    if (sync_new(&sync_thread, &cfg, e, table, hosts, rings, RINGS, &errors) != 0)
        fail_msg("%s", strbuf_str(&errors));
    strbuf_free(&errors);
}

static void start(const struct sync_endpoint *e)
{
    create(e);
    assert_int_equal(sync_start(sync_thread), 0);
}

/* Its first look at the rings finds exactly these. */
static void start_with(unsigned n, bool urgent)
{
    create(&endpoint);
    record_on(0, n, urgent);
    assert_int_equal(sync_start(sync_thread), 0);
}

static uint64_t counter(enum sync_counter c)
{
    return sync_counter(sync_thread, c);
}

static struct sync_gauges gauges(void)
{
    struct sync_gauges g;
    sync_gauges(sync_thread, &g);
    return g;
}

static uint64_t lost_samples(void)
{
    uint64_t n = 0;
    for (enum sync_counter c = SYNC_DROPPED_BUFFER_FULL; c <= SYNC_DROPPED_SHUTDOWN; c++)
        n += counter(c);
    return n;
}

static enum breaker_state state_of(const char *name)
{
    return breaker_unpack(breakers_load(table, breakers_intern(table, name, strlen(name)))).state;
}

static void want_in_head(const char *line)
{
    pthread_mutex_lock(&server.lock);
    bool found = strcasestr(server.stream_head, line) != NULL;
    pthread_mutex_unlock(&server.lock);
    if (!found)
        fail_msg("the stream request lacks \"%s\"", line);
}

static void states_come_by_the_stream(void **state)
{
    (void)state;
    start(&endpoint);
    WAIT_FOR(breakers_flags(table) == (STATE_SYNCED | STATE_CONNECTED));
    assert_int_equal(state_of("payments"), BREAKER_CLOSED);
    server_send(&server, ": tick\n\ndata: {\"breaker\":\"payments\",\"state\":\"half_open\","
                         "\"allow_rate\":0.5}\n\n");
    WAIT_FOR(state_of("payments") == BREAKER_HALF_OPEN);
    server_send(&server, "event: other\ndata: 1\n\ndata: junk\n\n");
    for (const char *c = "event: state\r\ndata: {\"breaker\":\"x\",\"state\":\"open\"}\r\n\r\n"; *c;
         c++)
        server_send(&server, (char[]){ *c, '\0' });
    WAIT_FOR(state_of("x") == BREAKER_OPEN);
    assert_int_equal(counter(SYNC_EVENTS_HEARTBEAT), 1);
    assert_int_equal(counter(SYNC_EVENTS_UNKNOWN), 1);
    assert_int_equal(counter(SYNC_EVENTS_INVALID), 1);
    assert_int_equal(counter(SYNC_EVENTS_SNAPSHOT), 1);
    assert_int_equal(counter(SYNC_EVENTS_STATE), 2);
    want_in_head("GET /v1/projects/proj%2F1/breakers/state:stream HTTP/1.1\r\n");
    want_in_head("\r\nAuthorization: Bearer " API_KEY "\r\n");
    want_in_head("\r\nAccept: text/event-stream\r\n");
    want_in_head("\r\nCache-Control: no-cache\r\n");
    want_in_head("\r\nUser-Agent: tripswitch-proxy/");
    struct sync_gauges g = gauges();
    assert_true(g.connected && g.synced && !g.stale && g.last_event_wall_ms > 0);
    assert_string_equal(g.last_error, "");
    WAIT_FOR(gauges().cached_breakers == 2);
}

static void a_stranger_on_the_socket_gets_no_byte(void **state)
{
    (void)state;
    endpoint.peer_pid = getppid();
    start(&endpoint);
    WAIT_FOR(counter(SYNC_STREAM_CONNECTS_NETWORK) >= 1);
    record_on(0, 1, true);
    WAIT_FOR(counter(SYNC_BATCHES_NETWORK) >= 1);
    assert_non_null(strstr(gauges().last_error, "another process"));
    sync_stop(sync_thread, 0);
    pthread_mutex_lock(&server.lock);
    assert_int_equal(server.bytes_in, 0);
    pthread_mutex_unlock(&server.lock);
}

static void a_stream_that_ends_is_opened_again(void **state)
{
    (void)state;
    static const struct {
        enum cut how;
        enum sync_counter counted;
    } cases[] = { { CUT_CLEAN, SYNC_STREAM_DISCONNECTS_EOF },
                  { CUT_FIN, SYNC_STREAM_DISCONNECTS_EOF },
                  { CUT_RESET, SYNC_STREAM_DISCONNECTS_ERROR } };
    start(&endpoint);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        WAIT_FOR(counter(SYNC_STREAM_CONNECTS_OK) == i + 1 && gauges().connected);
        server_send(&server, "data: {\"breaker\":\"b\",\"state\":\"open\"}\n\n");
        WAIT_FOR(state_of("b") == BREAKER_OPEN);
        uint64_t before = counter(cases[i].counted);
        server_cut(&server, cases[i].how);
        WAIT_FOR(!gauges().connected);
        assert_true(gauges().synced && !gauges().stale);
        assert_int_equal(state_of("b"), BREAKER_OPEN); /* the last state stands */
        if (counter(cases[i].counted) != before + 1)
            fail_msg("case %zu: counted under something else", i);
    }
    WAIT_FOR(gauges().reconnects == ARRAY_LEN(cases));
}

static void a_stream_that_cannot_be_opened_is_classified(void **state)
{
    (void)state;
    static const struct {
        struct answer answer;
        const char *type;
        enum sync_counter counted;
        const char *error;
    } cases[] = {
        { { 500, "", "oops" }, NULL, SYNC_STREAM_CONNECTS_HTTP, "HTTP 500" },
        { { 301, "Location: http://127.0.0.1:1/\r\n", "" },
          NULL,
          SYNC_STREAM_CONNECTS_HTTP,
          "HTTP 301" },
        { { 0, NULL, "SSH-2.0-OpenSSH\r\n\r\n" }, NULL, SYNC_STREAM_CONNECTS_PROTOCOL, "" },
        { { 0, NULL, "" }, NULL, SYNC_STREAM_CONNECTS_NETWORK, "" },
        { { 200, "", "" }, "text/html", SYNC_STREAM_CONNECTS_PROTOCOL, "text/event-stream" },
        { { 401, "", "" }, NULL, SYNC_STREAM_CONNECTS_AUTH, "HTTP 401" },
        { { 403, "", "" }, NULL, SYNC_STREAM_CONNECTS_AUTH, "HTTP 403" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        server.stream = cases[i].answer;
        if (cases[i].type)
            server.stream_type = cases[i].type;
        start(&endpoint);
        WAIT_FOR(counter(cases[i].counted) == 1);
        WAIT_FOR(strstr(gauges().last_error, cases[i].error) && gauges().last_error[0]);
        if (strstr(gauges().last_error, API_KEY) || strstr(gauges().last_error, SECRET))
            fail_msg("case %zu: a secret in \"%s\"", i, gauges().last_error);
        assert_int_equal(breakers_flags(table), 0);
        if (i == 0) { /* and tried again; the error is then forgotten */
            WAIT_FOR(gauges().connected);
            assert_string_equal(gauges().last_error, "");
            assert_int_equal(counter(SYNC_STREAM_CONNECTS_HTTP), 1);
        }
        tear_down(NULL);
        set_up(NULL);
    }
    start(&endpoint);
}

static void a_stream_is_not_asked_for_sooner_than_the_server_said(void **state)
{
    (void)state;
    server.stream = (struct answer){ 503, "Retry-After: 1\r\n", "" };
    int64_t begun = mono_ms();
    start(&endpoint);
    WAIT_FOR(gauges().connected);
    if (mono_ms() - begun < 990)
        fail_msg("opened again after %" PRId64 " ms", mono_ms() - begun);
}

/* Runs the one transfer to its end, then tells the stream. */
static void run_to_end(CURLM *multi, struct stream *s, int64_t now_ms)
{
    int64_t give_up_ms = mono_ms() + LONGEST_S * 1000;
    CURLMsg *msg = NULL;
    int n;
    while (!msg && mono_ms() < give_up_ms) {
        curl_multi_perform(multi, &n);
        curl_multi_poll(multi, NULL, 0, 10, NULL);
        msg = curl_multi_info_read(multi, &n);
    }
    assert_non_null(msg);
    assert_true(stream_done(s, msg->easy_handle, msg->data.result, now_ms));
}

static void a_stream_waits_half_a_minute_at_most_whatever_the_server_said(void **state)
{
    static const struct {
        const char *after;
        int64_t least, most;
    } cases[] = {
        { "Retry-After: 3600\r\n", BACKOFF_STREAM_MAX_MS, BACKOFF_STREAM_MAX_MS },
        { "Retry-After: 31\r\n", BACKOFF_STREAM_MAX_MS, BACKOFF_STREAM_MAX_MS },
        { "Retry-After: 29\r\n", 29000, 29000 },
        { "", BACKOFF_STREAM_MIN_MS, 2 * BACKOFF_STREAM_MIN_MS },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf errors = STRBUF_INIT;
        struct settings *settings;
        struct stats stats;
        struct prng prng;
        CURLM *multi = curl_multi_init();
        server.stream = (struct answer){ 503, cases[i].after, "" };
        stats_init(&stats);
        prng_seed_fixed(&prng, 1);
        assert_int_equal(settings_new(&settings, &cfg, &endpoint, table, &errors), 0);
        struct known *known = known_new(table, stats.counters);
        struct stream *s = stream_new(multi, known, &stats, &prng);
        stream_configure(s, settings, false, 1000);
        stream_tick(s, 1000);
        run_to_end(multi, s, 2000);
        int64_t delay = stream_next_ms(s) - 2000;
        stream_free(s);
        known_free(known);
        settings_free(settings);
        stats_destroy(&stats);
        curl_multi_cleanup(multi);
        if (delay < cases[i].least || delay > cases[i].most)
            fail_msg("%s: opens again after %" PRId64 " ms", cases[i].after, delay);
    }
}

static void only_an_embedded_server_has_lines_for_moves(void **state)
{
    struct strbuf errors = STRBUF_INIT;
    struct settings *settings;
    (void)state;
    assert_int_equal(settings_new(&settings, &cfg, &endpoint, table, &errors), 0);
    bool server_logs = settings->known.server_logs;
    settings_free(settings);
    assert_int_equal(server_logs, endpoint.abstract_socket != NULL);
}

static void an_event_too_long_is_skipped(void **state)
{
    (void)state;
    start(&endpoint);
    WAIT_FOR(gauges().connected);
    static char big[70000];
    memset(big, 'x', sizeof(big) - 1);
    memcpy(big, "data: ", 6);
    server_send(&server, big);
    server_send(&server, "\n\ndata: {\"breaker\":\"b\",\"state\":\"open\"}\n\n");
    WAIT_FOR(state_of("b") == BREAKER_OPEN);
    assert_int_equal(counter(SYNC_EVENTS_INVALID), 1);
}

static void samples_arrive_signed(void **state)
{
    (void)state;
    for (int gzip = 0; gzip < 2; gzip++) {
        cfg.samples.gzip = gzip;
        start(&endpoint);
        record_on(0, 700, false);
        record_on(1, 7, true);
        WAIT_FOR(samples_accepted(&server) == 707);
        WAIT_FOR(counter(SYNC_SAMPLES_SENT) == 707);
        assert_int_equal(counter(SYNC_SAMPLES_RECORDED), 707);
        WAIT_FOR(gauges().samples_in_flight == 0);
        assert_true(gauges().last_flush_wall_ms > 0);
        assert_int_equal(counter(SYNC_BATCH_BYTES_GZIP) > 0, gzip);
        for (size_t i = 0; i < posts_seen(&server); i++) {
            if (!server.posts[i].valid)
                fail_msg("gzip %d: post %zu is not as it should be", gzip, i);
        }
        tear_down(NULL);
        set_up(NULL);
    }
    start(&endpoint);
}

static void a_413_is_split(void **state)
{
    (void)state;
    static const struct answer script[] = { { 413, "", "" }, { 413, "", "" } };
    server_script(&server, script, ARRAY_LEN(script));
    start_with(8, false);
    WAIT_FOR(counter(SYNC_SAMPLES_SENT) == 8);
    assert_int_equal(samples_accepted(&server), 8);
    assert_int_equal(server.posts[0].samples, 8);
    assert_int_equal(posts_seen(&server), 5);
    assert_int_equal(lost_samples(), 0);
}

static void a_429_waits_as_long_as_asked(void **state)
{
    (void)state;
    static const struct answer script[] = { { 429, "Retry-After: 1\r\n", "{}" } };
    server_script(&server, script, ARRAY_LEN(script));
    start_with(1, true);
    WAIT_FOR(counter(SYNC_SAMPLES_SENT) == 1);
    assert_int_equal(posts_seen(&server), 2);
    int64_t gap = server.posts[1].at_ms - server.posts[0].at_ms;
    if (gap < 990)
        fail_msg("tried again after %" PRId64 " ms", gap);
}

static void failures_are_tried_again_with_a_fresh_timestamp(void **state)
{
    (void)state;
    static const struct answer script[] = {
        { 503, "", "" },
        { 401, "", "" },
        { 0, "", "" },
    };
    server_script(&server, script, ARRAY_LEN(script));
    start_with(3, true);
    WAIT_FOR(counter(SYNC_SAMPLES_SENT) == 3);
    assert_int_equal(posts_seen(&server), 4);
    for (size_t i = 0; i < 4; i++) {
        assert_true(server.posts[i].valid);
        assert_int_equal(server.posts[i].samples, 3);
    }
    assert_string_not_equal(server.posts[0].timestamp, server.posts[1].timestamp);
    assert_int_equal(counter(SYNC_BATCHES_HTTP), 1);
    assert_int_equal(counter(SYNC_BATCHES_AUTH), 1);
    assert_int_equal(counter(SYNC_BATCHES_NETWORK), 1);
    assert_int_equal(gauges().flush_failures, 3);
}

static void a_rejected_batch_says_why(void **state)
{
    (void)state;
    static const struct answer script[] = {
        { 422, "", "{\"code\":\"invalid_router_id\",\"message\":\"no such router\"}" },
    };
    server_script(&server, script, ARRAY_LEN(script));
    start_with(2, true);
    WAIT_FOR(counter(SYNC_DROPPED_REJECTED) == 2);
    WAIT_FOR(strstr(gauges().last_error, "HTTP 422 invalid_router_id"));
}

static void stopping_sends_what_is_left(void **state)
{
    (void)state;
    cfg.samples.flush_interval_ms = 60000;
    start(&endpoint);
    WAIT_FOR(gauges().connected);
    record_on(0, 30, false);
    record_on(1, 20, false);
    int64_t begun = mono_ms();
    sync_stop(sync_thread, 10000);
    assert_true(mono_ms() - begun < 9000);
    assert_int_equal(samples_accepted(&server), 50);
    assert_int_equal(counter(SYNC_SAMPLES_SENT), 50);
    assert_int_equal(lost_samples(), 0);
    assert_false(gauges().connected);
}

static void stopping_is_bounded_and_counts_what_it_loses(void **state)
{
    (void)state;
    static const struct answer script[] = { { 429, "Retry-After: 3000\r\n", "" } };
    server_script(&server, script, ARRAY_LEN(script));
    start(&endpoint);
    record_on(0, 4, true);
    WAIT_FOR(counter(SYNC_BATCHES_HTTP) == 1);
    record_on(0, 5, true);
    int64_t begun = mono_ms();
    sync_stop(sync_thread, 10000);
    assert_true(mono_ms() - begun < 9000); /* the server asked for more time than there is */
    assert_int_equal(counter(SYNC_DROPPED_SHUTDOWN), 9);
    assert_int_equal(gauges().samples_buffered + gauges().samples_in_flight, 0);
}

static void a_server_that_is_not_there_costs_only_samples(void **state)
{
    (void)state;
    endpoint.base_url = "http://127.0.0.1:1";
    start(&endpoint);
    record_on(0, 4, true);
    WAIT_FOR(counter(SYNC_BATCHES_NETWORK) >= 2);
    assert_true(counter(SYNC_STREAM_CONNECTS_NETWORK) >= 1);
    int64_t begun = mono_ms();
    sync_stop(sync_thread, 300);
    assert_true(mono_ms() - begun < 5000);
    assert_int_equal(counter(SYNC_DROPPED_SHUTDOWN), 4);
}

static void a_new_key_reconnects_the_stream(void **state)
{
    (void)state;
    start(&endpoint);
    WAIT_FOR(gauges().connected);
    struct config same_again = cfg;
    sync_reconfigure(sync_thread, &same_again, &endpoint, true);
    WAIT_FOR(sync_adopted(sync_thread, &same_again));
    assert_int_equal(counter(SYNC_STREAM_DISCONNECTS_RELOAD), 0); /* nothing that matters to it */
    struct config next = cfg;
    next.samples.buffer = 77;
    endpoint.api_key = API_KEY_2;
    sync_reconfigure(sync_thread, &next, &endpoint, true);
    WAIT_FOR(sync_adopted(sync_thread, &next));
    WAIT_FOR(counter(SYNC_STREAM_CONNECTS_OK) == 2);
    assert_int_equal(counter(SYNC_STREAM_DISCONNECTS_RELOAD), 1);
    assert_int_equal(gauges().samples_capacity, 77);
    want_in_head("Authorization: Bearer " API_KEY_2 "\r\n");
    assert_false(sync_adopted(sync_thread, &cfg));
}

static void another_project_forgets_the_states_of_the_former(void **state)
{
    (void)state;
    start(&endpoint);
    WAIT_FOR(gauges().synced);
    server_send(&server, "data: {\"breaker\":\"old\",\"state\":\"open\"}\n\n");
    WAIT_FOR(state_of("old") == BREAKER_OPEN);
    struct config next = cfg;
    endpoint.project_id = "proj2";
    sync_reconfigure(sync_thread, &next, &endpoint, true);
    WAIT_FOR(sync_adopted(sync_thread, &next));
    WAIT_FOR(state_of("old") == BREAKER_UNKNOWN);
    WAIT_FOR(gauges().synced && gauges().cached_breakers == 1);
    want_in_head("/v1/projects/proj2/");
}

static void records_are_passed_once_they_are_text(void **state)
{
    (void)state;
    start(&endpoint);
    record_on(0, 100, false);
    WAIT_FOR(sync_passed(sync_thread, 0, 100));
    assert_false(sync_passed(sync_thread, 0, 101));
    assert_true(sync_passed(sync_thread, 1, 0));
    assert_int_equal(counter(SYNC_SAMPLES_RECORDED), 100);
}

static void without_a_control_plane_records_are_taken_and_skipped(void **state)
{
    (void)state;
    start(NULL);
    record_on(0, 10, true);
    WAIT_FOR(counter(SYNC_SAMPLES_SKIPPED) == 10);
    assert_int_equal(counter(SYNC_SAMPLES_RECORDED), 0);
    assert_int_equal(breakers_flags(table), 0);
    sync_stop(sync_thread, 1000);
    pthread_mutex_lock(&server.lock);
    assert_int_equal(server.bytes_in, 0);
    pthread_mutex_unlock(&server.lock);
}

static void a_bad_endpoint_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *secret, *socket, *error;
    } cases[] = {
        { "ik_123", NULL, "64 hex" },
        { NULL,
          "0123456789012345678901234567890123456789012345678901234567890123456789"
          "0123456789012345678901234567890123456789",
          "too long" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct strbuf errors = STRBUF_INIT;
        endpoint.ingest_secret = cases[i].secret;
        endpoint.abstract_socket = cases[i].socket;
        struct sync *s = NULL;
        if (sync_new(&s, &cfg, &endpoint, table, hosts, rings, RINGS, &errors) != -1 ||
            !strstr(strbuf_str(&errors), cases[i].error))
            fail_msg("case %zu: \"%s\"", i, strbuf_str(&errors));
        if (cases[i].secret && strstr(strbuf_str(&errors), cases[i].secret))
            fail_msg("case %zu: the secret is shown", i);
        strbuf_free(&errors);
    }
}

static void *produce(void *arg)
{
    record_on(*(size_t *)arg, 20000, false);
    return NULL;
}

/* Two workers as fast as they can against a server in changing moods, reloads in between;
 * nothing is lost without a trace. */
static void the_books_balance_under_load(void **state)
{
    (void)state;
    static struct answer script[40];
    static const int moods[] = { 202, 503, 202, 413, 202, 401, 202, 422 };
    for (size_t i = 0; i < ARRAY_LEN(script); i++)
        script[i] = (struct answer){ moods[i % ARRAY_LEN(moods)], "", "" };
    server_script(&server, script, ARRAY_LEN(script));
    cfg.samples.buffer = 3000;
    start(&endpoint);
    pthread_t workers[RINGS];
    size_t index[RINGS] = { 0, 1 };
    for (size_t i = 0; i < RINGS; i++)
        pthread_create(&workers[i], NULL, produce, &index[i]);
    static struct config reloads[20];
    for (size_t i = 0; i < ARRAY_LEN(reloads); i++) {
        reloads[i] = cfg;
        sync_reconfigure(sync_thread, &reloads[i], &endpoint, true);
        WAIT_FOR(sync_adopted(sync_thread, &reloads[i]));
        (void)gauges();
    }
    for (size_t i = 0; i < RINGS; i++)
        pthread_join(workers[i], NULL);
    sync_stop(sync_thread, 15000);
    assert_int_equal(counter(SYNC_SAMPLES_RECORDED), 40000);
    assert_int_equal(counter(SYNC_SAMPLES_SENT) + lost_samples(), 40000);
    assert_int_equal(counter(SYNC_SAMPLES_SENT), samples_accepted(&server));
    assert_int_equal(counter(SYNC_DROPPED_SHUTDOWN), 0);
}

int main(void)
{
    /* must not matter: libcurl would otherwise go through these */
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("all_proxy", "http://127.0.0.1:1", 1);
    setenv("no_proxy", "", 1);
    log_set_level(LOG_ERROR);
#define SYNC_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define SYNC_TEST_ABSTRACT(f)                                                                      \
    {                                                                                              \
#f " (abstract socket)", f, set_up_abstract, tear_down, NULL                               \
    }
    const struct CMUnitTest tests[] = {
        SYNC_TEST(states_come_by_the_stream),
        SYNC_TEST_ABSTRACT(states_come_by_the_stream),
        SYNC_TEST_ABSTRACT(a_stranger_on_the_socket_gets_no_byte),
        SYNC_TEST(a_stream_that_ends_is_opened_again),
        SYNC_TEST(a_stream_that_cannot_be_opened_is_classified),
        SYNC_TEST(a_stream_is_not_asked_for_sooner_than_the_server_said),
        SYNC_TEST(a_stream_waits_half_a_minute_at_most_whatever_the_server_said),
        SYNC_TEST(only_an_embedded_server_has_lines_for_moves),
        SYNC_TEST_ABSTRACT(only_an_embedded_server_has_lines_for_moves),
        SYNC_TEST(an_event_too_long_is_skipped),
        SYNC_TEST(samples_arrive_signed),
        SYNC_TEST_ABSTRACT(samples_arrive_signed),
        SYNC_TEST(a_413_is_split),
        SYNC_TEST(a_429_waits_as_long_as_asked),
        SYNC_TEST(failures_are_tried_again_with_a_fresh_timestamp),
        SYNC_TEST(a_rejected_batch_says_why),
        SYNC_TEST(stopping_sends_what_is_left),
        SYNC_TEST_ABSTRACT(stopping_sends_what_is_left),
        SYNC_TEST(stopping_is_bounded_and_counts_what_it_loses),
        SYNC_TEST(a_server_that_is_not_there_costs_only_samples),
        SYNC_TEST(a_new_key_reconnects_the_stream),
        SYNC_TEST(another_project_forgets_the_states_of_the_former),
        SYNC_TEST(records_are_passed_once_they_are_text),
        SYNC_TEST(without_a_control_plane_records_are_taken_and_skipped),
        SYNC_TEST(a_bad_endpoint_is_told),
        SYNC_TEST(the_books_balance_under_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
