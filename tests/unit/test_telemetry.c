#include "proxy/telemetry.h"

#include "base/strbuf.h"
#include "proxy/fence.h"
#include "tests/unit/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

/* The listener on a loopback port, and its clients, on one event loop. */
struct bench {
    struct world *w;
    struct event_base *base;
    struct telemetry *t;
    struct sockaddr_in address;
};

static int set_up(void **state)
{
    struct bench *b = xcalloc(1, sizeof(*b));
    socklen_t len = sizeof(b->address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    b->w = world_new();
    b->base = event_base_new();
    b->t = telemetry_new(&b->w->p, b->base);
    b->address =
        (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    assert_non_null(b->t);
    assert_int_equal(bind(fd, (struct sockaddr *)&b->address, sizeof(b->address)), 0);
    assert_int_equal(listen(fd, 128), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&b->address, &len), 0);
    assert_int_equal(telemetry_accept(b->t, fd), 0);
    *state = b;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *b = *state;

    telemetry_free(b->t);
    event_base_free(b->base);
    world_free(b->w);
    free(b);
    return 0;
}

static int dial(struct bench *b)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&b->address, sizeof(b->address)), 0);
    return fd;
}

/* Everything up to the end of the connection, which this closes. */
static char *read_all(struct bench *b, int fd, size_t *len)
{
    struct strbuf in = STRBUF_INIT;
    char block[16384];

    for (;;) {
        ssize_t n = recv(fd, block, sizeof(block), MSG_DONTWAIT);
        if (n > 0)
            strbuf_add(&in, block, (size_t)n);
        else if (n == 0 || errno != EAGAIN)
            break;
        else
            event_base_loop(b->base, EVLOOP_ONCE);
    }
    close(fd);
    if (len != NULL)
        *len = in.len;
    return strbuf_take(&in);
}

static char *ask(struct bench *b, const char *method, const char *target, const char *fields)
{
    struct strbuf out = STRBUF_INIT;
    int fd = dial(b);

    strbuf_addf(&out, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", method, target,
                fields);
    assert_int_equal(send(fd, strbuf_str(&out), out.len, 0), out.len);
    strbuf_free(&out);
    return read_all(b, fd, NULL);
}

static const char *body_of(const char *response)
{
    const char *end = strstr(response, "\r\n\r\n");
    return end != NULL ? end + 4 : "";
}

static void expect(struct bench *b, const char *method, const char *target, int status,
                   const char *has)
{
    char *response = ask(b, method, target, "");
    char line[16];

    snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
    if (strncmp(response, line, strlen(line)) != 0 || strstr(response, has) == NULL)
        fail_msg("%s %s: want %d with \"%s\", got:\n%s", method, target, status, has, response);
    free(response);
}

static void endpoints_answer_with_their_type(void **state)
{
    static const struct {
        const char *target;
        int status;
        const char *has;
    } cases[] = {
        { "/", 200, "Content-Type: text/html; charset=utf-8\r\n" },
        { "/?pause", 200, "Paused" },
        { "/livez", 200, "\r\n\r\nok\n" },
        { "/healthz", 200, "\r\n\r\nok\n" },
        { "/livez?verbose", 200, "[+] worker 1 ticks\nok\n" },
        { "/livez?x=1&verbose=1", 200, "[+] worker 1 ticks\nok\n" },
        { "/livez?verbosely", 200, "\r\n\r\nok\n" },
        { "/metrics", 200, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n" },
        { "/metrics", 200, "\ntripswitch_proxy_series " },
        { "/breakers", 200, "Content-Type: application/json\r\n" },
        { "/breakers/payments", 200, "\"state\":\"open\"" },
        { "/breakers/a%2Fb%20c", 200, "\"name\":\"a/b c\"" },
        { "/breakers/absent", 404, "{\"error\":\"no such breaker\"}" },
        { "/breakers/", 404, "not found" },
        { "/status", 200, "\"config_hash\":\"0123456789abcdef\"" },
        { "/version", 200, "\"libevent\":\"" },
        { "/nothing", 404, "not found" },
        { "/metrics/", 404, "not found" },
        { "/livez/../metrics", 404, "not found" },
    };
    struct bench *b = *state;

    world_breaker(b->w, "payments", BREAKER_OPEN, 0);
    world_breaker(b->w, "a/b c", BREAKER_CLOSED, 1);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++)
        expect(b, "GET", cases[i].target, cases[i].status, cases[i].has);
}

static void answers_are_not_cached_sniffed_or_scripted(void **state)
{
    struct bench *b = *state;

    expect(b, "GET", "/status", 200, "Cache-Control: no-store\r\n");
    expect(b, "GET", "/", 200, "X-Content-Type-Options: nosniff\r\n");
    expect(b, "GET", "/", 200,
           "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n");
}

static void only_get_and_head_are_allowed(void **state)
{
    static const char *const methods[] = { "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE" };
    struct bench *b = *state;

    for (unsigned i = 0; i < ARRAY_LEN(methods); i++)
        expect(b, methods[i], "/livez", 405, "Allow: GET, HEAD\r\n");
}

static void head_is_get_without_the_body(void **state)
{
    static const char *const targets[] = { "/livez", "/version", "/nothing" };
    struct bench *b = *state;

    for (unsigned i = 0; i < ARRAY_LEN(targets); i++) {
        char *get = ask(b, "GET", targets[i], "");
        char *head = ask(b, "HEAD", targets[i], "");
        size_t len = (size_t)(body_of(get) - get);
        if (strlen(head) != len || *body_of(get) == '\0' ||
            strncmp(head, get, strcspn(get, "\r")) != 0)
            fail_msg("%s: GET\n%s\nHEAD\n%s", targets[i], get, head);
        const char *length = strstr(get, "Content-Length: ");
        if (length == NULL || strstr(head, "Content-Length: ") == NULL ||
            strtoul(length + 16, NULL, 10) != strlen(body_of(get)))
            fail_msg("%s: length", targets[i]);
        free(get);
        free(head);
    }
}

static void health_follows_the_process(void **state)
{
    struct bench *b = *state;
    struct proxy *p = &b->w->p;

    expect(b, "GET", "/startupz", 503, "[-] listeners accept");
    expect(b, "GET", "/readyz", 503, "[-] started\n");
    atomic_store(&p->started, true);
    expect(b, "GET", "/startupz", 200, "\r\n\r\nok\n");
    expect(b, "GET", "/readyz", 200, "\r\n\r\nok\n");
    expect(b, "GET", "/ready", 200, "\r\n\r\nok\n");
    expect(b, "GET", "/readyz?verbose", 200, "[ ] control plane: states not known yet\nok\n");
    breakers_set_flags(p->breakers, STATE_SYNCED, 0);
    expect(b, "GET", "/readyz?verbose", 200, "[ ] control plane: states known\nok\n");
    breakers_set_flags(p->breakers, STATE_STALE, 0);
    expect(b, "GET", "/readyz?verbose", 200, "[ ] control plane: states stale\nok\n");
    breakers_set_flags(p->breakers, STATE_AWAITED, STATE_STALE);
    expect(b, "GET", "/readyz?verbose", 200,
           "[ ] control plane: states known, but not yet of every name\nok\n");
    atomic_store(&p->draining, true);
    expect(b, "GET", "/readyz", 503, "[-] not draining\n");
    expect(b, "GET", "/startupz", 200, "ok\n");
    expect(b, "GET", "/livez", 200, "ok\n");
    p->start_mono_ms -= 60000;
    atomic_store(&p->workers[0]->tick_ms, clock_mono_ms());
    atomic_store(&p->workers[1]->tick_ms, clock_mono_ms() - 11000);
    expect(b, "GET", "/livez", 503, "[+] worker 0 ticks\n[-] worker 1 ticks\nnot ok\n");
}

static void metrics_are_packed_for_those_who_can_unpack(void **state)
{
    static const struct {
        const char *fields;
        bool packed;
    } cases[] = {
        { "", false },
        { "Accept-Encoding: gzip\r\n", true },
        { "Accept-Encoding: br, GZIP;q=0.5\r\n", true },
        { "Accept-Encoding: gzip;q=0\r\n", false },
        { "Accept-Encoding: gzip; q=0.000, br\r\n", false },
        { "Accept-Encoding: x-gzip, identity\r\n", false },
    };
    struct bench *b = *state;

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        char *response = ask(b, "GET", "/metrics", cases[i].fields);
        bool packed = strstr(response, "Content-Encoding: gzip\r\n") != NULL;
        if (packed != cases[i].packed || strstr(response, "Vary: Accept-Encoding\r\n") == NULL ||
            (strstr(response, "\n# HELP") != NULL) == packed)
            fail_msg("%s: %s", cases[i].fields, packed ? "packed" : "plain");
        free(response);
    }
}

static void packed_metrics_unpack_to_the_text(void **state)
{
    static const char request[] =
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n";
    static char text[1 << 20];
    struct bench *b = *state;
    size_t len;
    int fd = dial(b);

    assert_int_equal(send(fd, request, sizeof(request) - 1, 0), sizeof(request) - 1);
    char *response = read_all(b, fd, &len);
    z_stream z = { .next_in = (Bytef *)body_of(response),
                   .avail_in = (uInt)(len - (size_t)(body_of(response) - response)),
                   .next_out = (Bytef *)text,
                   .avail_out = sizeof(text) - 1 };
    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    inflateEnd(&z);
    assert_non_null(strstr(text, "\ntripswitch_proxy_series "));
    assert_int_equal(text[z.total_out - 1], '\n');
    free(response);
}

static void heads_and_bodies_are_bounded(void **state)
{
    struct bench *b = *state;
    struct strbuf field = STRBUF_INIT;

    strbuf_adds(&field, "X: ");
    for (unsigned i = 0; i < 9000; i++)
        strbuf_addc(&field, 'x');
    strbuf_adds(&field, "\r\n");
    char *response = ask(b, "GET", "/livez", strbuf_str(&field));
    if (strncmp(response, "HTTP/1.1 4", 10) != 0)
        fail_msg("a head of 9 KB: %s", response);
    free(response);
    strbuf_free(&field);

    response = ask(b, "POST", "/livez", "Content-Length: 1048577\r\n");
    if (strncmp(response, "HTTP/1.1 413", 12) != 0)
        fail_msg("a body above 1 MiB: %s", response);
    free(response);
}

static void a_connection_serves_several_requests(void **state)
{
    static const char request[] = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
                                  "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    struct bench *b = *state;
    int fd = dial(b);

    assert_int_equal(send(fd, request, sizeof(request) - 1, 0), sizeof(request) - 1);
    char *response = read_all(b, fd, NULL);
    const char *second = strstr(response + 1, "HTTP/1.1 200");
    assert_non_null(second);
    assert_null(strstr(second + 1, "HTTP/1.1 200"));
    free(response);
}

static void a_connection_too_many_is_closed_and_counted(void **state)
{
    struct bench *b = *state;
    int fds[FENCE_PLACES];
    char byte;

    for (unsigned i = 0; i < FENCE_PLACES; i++)
        fds[i] = dial(b);
    int extra = dial(b);
    char *nothing = read_all(b, extra, NULL);
    assert_string_equal(nothing, "");
    free(nothing);
    for (unsigned i = 0; i < FENCE_PLACES; i++) {
        if (recv(fds[i], &byte, 1, MSG_DONTWAIT) != -1 || errno != EAGAIN)
            fail_msg("connection %u of %u was closed", i, FENCE_PLACES);
    }

    close(fds[0]); /* its place is free once evhttp has seen the end */
    event_base_loop(b->base, EVLOOP_ONCE);
    event_base_loop(b->base, EVLOOP_NONBLOCK);
    expect(b, "GET", "/metrics", 200,
           "tripswitch_proxy_limit_rejections_total{limit=\"telemetry_connections\"} 1\n");
    for (unsigned i = 1; i < FENCE_PLACES; i++)
        close(fds[i]);
}

/* The fence by itself, with a clock of its own. */

static void fill(struct fence *f, int (*pairs)[2], int64_t since_ms)
{
    fence_init(f);
    for (unsigned i = 0; i < FENCE_PLACES + 1; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]), 0);
        if (i < FENCE_PLACES)
            assert_true(fence_admit(f, pairs[i][0], since_ms + i));
    }
}

static bool is_shut(int fd)
{
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static void the_oldest_gives_way_only_when_it_is_old(void **state)
{
    static const struct {
        int64_t now_ms;
        bool newcomer_stays;
    } cases[] = { { 1000, false }, { 1000 + FENCE_OLD_MS, false }, { 1001 + FENCE_OLD_MS, true } };

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct fence f;
        int pairs[FENCE_PLACES + 1][2];
        fill(&f, pairs, 1000);
        if (fence_admit(&f, pairs[FENCE_PLACES][0], cases[i].now_ms))
            fail_msg("case %u: somebody had to go", i);
        if (is_shut(pairs[FENCE_PLACES][1]) == cases[i].newcomer_stays ||
            is_shut(pairs[0][1]) != cases[i].newcomer_stays || is_shut(pairs[1][1]))
            fail_msg("case %u: the wrong one was shut down", i);
        for (unsigned k = 0; k < FENCE_PLACES + 1; k++) {
            close(pairs[k][0]);
            close(pairs[k][1]);
        }
    }
}

static void a_place_is_free_when_its_descriptor_is_another_socket(void **state)
{
    struct fence f;
    int pairs[FENCE_PLACES + 1][2];
    int other[2];

    (void)state;
    fill(&f, pairs, 1000);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, other), 0);
    assert_int_equal(dup2(other[0], pairs[5][0]), pairs[5][0]);
    assert_true(fence_admit(&f, pairs[FENCE_PLACES][0], 1000));
    assert_false(is_shut(pairs[FENCE_PLACES][1]));
    assert_false(is_shut(other[1]));
    close(other[0]);
    close(other[1]);
    for (unsigned k = 0; k < FENCE_PLACES + 1; k++) {
        close(pairs[k][0]);
        close(pairs[k][1]);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(endpoints_answer_with_their_type),
        TEST(answers_are_not_cached_sniffed_or_scripted),
        TEST(only_get_and_head_are_allowed),
        TEST(head_is_get_without_the_body),
        TEST(health_follows_the_process),
        TEST(metrics_are_packed_for_those_who_can_unpack),
        TEST(packed_metrics_unpack_to_the_text),
        TEST(heads_and_bodies_are_bounded),
        TEST(a_connection_serves_several_requests),
        TEST(a_connection_too_many_is_closed_and_counted),
        cmocka_unit_test(the_oldest_gives_way_only_when_it_is_old),
        cmocka_unit_test(a_place_is_free_when_its_descriptor_is_another_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
