/* The real thread, spoken to over its abstract Unix socket. */
#include "control/control.h"

#include "base/base.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "config/config.h"
#include <cjson/cJSON.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#define WAIT_MS 10000

/* Configurations by hand. */

static char *const host_name[] = { "{host}" };
static struct route auto_route = {
    .name = "_auto",
    .breakers = { .items = (char **)host_name, .count = 1 },
    .router = "{host}",
    .metrics = { { .name = "latency", .kind = METRIC_LATENCY } },
    .metric_count = 1,
};
static struct route no_route = { .name = "_default" };

static const struct breaker_def auto_breaker = {
    .kind = "consecutive_failures",
    .op = "gte",
    .threshold = 5,
    .window_ms = 60000,
    .min_count = 1,
    .eval_interval_ms = 50,
    .cooldown_ms = 200,
    .half_open_backoff_enabled = true,
    .half_open_backoff_cap_ms = 1000,
    .half_open_indeterminate_policy = "conservative",
    .recovery_allow_rate_ramp_steps = 3,
};

static struct config zero_config(void)
{
    struct config cfg = { .fallback = &auto_route };

    cfg.control.embedded = true;
    cfg.limits.auto_breakers = 1000;
    cfg.embedded.auto_breaker = auto_breaker;
    return cfg;
}

static struct breaker_def payments = {
    .name = "payments \"blue\"",
    .metric = "latency",
    .kind = "error_rate",
    .op = "gt",
    .threshold = 0.5,
    .window_ms = 60000,
    .min_count = 10,
    .eval_interval_ms = 50,
    .cooldown_ms = 600000,
    .half_open_indeterminate_policy = "conservative",
    .recovery_allow_rate_ramp_steps = 3,
};
static char *const payments_name[] = { "payments \"blue\"" };
static struct router_def payments_router = {
    .id = "r-1",
    .name = "payments router",
    .breakers = { .items = (char **)payments_name, .count = 1 },
};

static struct config payments_config(void)
{
    struct config cfg = zero_config();

    cfg.fallback = &no_route;
    cfg.embedded.breakers = &payments;
    cfg.embedded.breaker_count = 1;
    cfg.embedded.routers = &payments_router;
    cfg.embedded.router_count = 1;
    return cfg;
}

static struct control *start(const struct config *cfg)
{
    struct strbuf errors = STRBUF_INIT;
    struct control *c = NULL;

    if (control_start(&c, cfg, &errors) < 0)
        fail_msg("cannot start: %s", strbuf_str(&errors));
    strbuf_free(&errors);
    return c;
}

static struct control_stats stats_of(const struct control *c)
{
    struct control_stats st;

    control_stats(c, &st);
    return st;
}

/* An HTTP client of a few lines. */

static int dial_name(const char *name)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    size_t len = strlen(name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(sa.sun_path + 1, name, len);
    if (connect(fd, (struct sockaddr *)&sa,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + len)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int dial(const struct control *c)
{
    int fd = dial_name(control_socket(c));

    if (fd < 0)
        fail_msg("connect: %s", strerror(errno));
    return fd;
}

static bool send_all(int fd, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

/* Appends what comes within the time; 0 at the end of the connection, -1 if nothing came. */
static int read_some(int fd, struct strbuf *in, int timeout_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    char buf[65536];
    ssize_t n;

    if (poll(&p, 1, timeout_ms) <= 0)
        return -1;
    n = recv(fd, buf, sizeof(buf), 0);
    if (n <= 0)
        return 0;
    strbuf_add(in, buf, (size_t)n);
    return 1;
}

struct answer {
    int status;
    char *text; /* head and body, owned */
    const char *body;
};

static void answer_free(struct answer *a)
{
    free(a->text);
    *a = (struct answer){ 0 };
}

static const char *answer_header(const struct answer *a, const char *name, char *out, size_t size)
{
    char line[64];
    const char *p;

    snprintf(line, sizeof(line), "\r\n%s: ", name);
    p = strcasestr(a->text, line);
    if (p == NULL || p > a->body)
        return NULL;
    p += strlen(line);
    snprintf(out, size, "%.*s", (int)strcspn(p, "\r"), p);
    return out;
}

/* One request on its own connection, read until the server closes. */
static struct answer ask_raw(const struct control *c, const void *data, size_t len)
{
    struct strbuf in = STRBUF_INIT;
    struct answer a = { 0 };
    int fd = dial(c);

    send_all(fd, data, len); /* may fail half-way: the server answers a head that is too long */
    while (read_some(fd, &in, WAIT_MS) > 0)
        ;
    close(fd);
    a.text = strbuf_take(&in);
    if (sscanf(a.text, "HTTP/1.1 %d", &a.status) != 1)
        a.status = -1;
    a.body = strstr(a.text, "\r\n\r\n");
    a.body = a.body ? a.body + 4 : a.text + strlen(a.text);
    return a;
}

static struct answer ask(const struct control *c, const char *method, const char *path,
                         const char *headers, const void *body, size_t len)
{
    struct strbuf out = STRBUF_INIT;
    struct answer a;

    strbuf_addf(&out, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s", method, path,
                headers);
    if (body)
        strbuf_addf(&out, "Content-Length: %zu\r\n", len);
    strbuf_adds(&out, "\r\n");
    if (body)
        strbuf_add(&out, body, len);
    a = ask_raw(c, out.data, out.len);
    strbuf_free(&out);
    return a;
}

static const char *bearer(const struct control *c)
{
    static char line[200];

    snprintf(line, sizeof(line), "Authorization: Bearer %s\r\n", control_api_key(c));
    return line;
}

static struct answer get(const struct control *c, const char *path)
{
    return ask(c, "GET", path, bearer(c), NULL, 0);
}

/* Signing, apart from the code under test. */

static void sign(const struct control *c, int64_t ts, const void *body, size_t len, char out[256])
{
    const char *hex = control_ingest_secret(c);
    unsigned char key[32];
    unsigned char mac[32];
    unsigned int mac_len = sizeof(mac);
    struct strbuf text = STRBUF_INIT;
    int n;

    for (size_t i = 0; i < sizeof(key); i++) {
        unsigned byte = 0;

        sscanf(hex + 2 * i, "%2x", &byte);
        key[i] = (unsigned char)byte;
    }
    strbuf_addf(&text, "%lld.", (long long)ts);
    strbuf_add(&text, body, len);
    HMAC(EVP_sha256(), key, sizeof(key), (unsigned char *)text.data, text.len, mac, &mac_len);
    strbuf_free(&text);
    n = snprintf(out, 256, "X-EB-Timestamp: %lld\r\nX-EB-Signature: v1=", (long long)ts);
    for (size_t i = 0; i < sizeof(mac); i++)
        n += snprintf(out + n, 256 - (size_t)n, "%02x", mac[i]);
    snprintf(out + n, 256 - (size_t)n, "\r\n");
}

#define INGEST "/v1/projects/embedded/ingest"
#define STREAM "/v1/projects/embedded/breakers/state:stream"

static struct answer post_signed(const struct control *c, const char *extra, const void *body,
                                 size_t len)
{
    char headers[512];
    size_t n;

    sign(c, clock_wall_ms(), body, len, headers);
    n = strlen(headers);
    snprintf(headers + n, sizeof(headers) - n, "%s", extra);
    return ask(c, "POST", INGEST, headers, body, len);
}

static void add_sample(struct json *j, const char *router, bool ok)
{
    json_open(j, NULL, '{');
    json_str(j, "router_id", router);
    json_str(j, "metric", "latency");
    json_int(j, "ts_ms", clock_wall_ms());
    json_num(j, "value", 12.5);
    json_bool(j, "ok", ok);
    json_close(j);
}

static char *samples_json(const char *router, bool ok, int count)
{
    struct strbuf sb = STRBUF_INIT;
    struct json j = { .sb = &sb };

    json_open(&j, NULL, '{');
    json_open(&j, "samples", '[');
    for (int i = 0; i < count; i++)
        add_sample(&j, router, ok);
    json_close(&j);
    json_close(&j);
    return strbuf_take(&sb);
}

static void check_answer(struct answer a, int status, const char *text, const char *what)
{
    if (a.status != status || strstr(a.body, text) == NULL)
        fail_msg("%s: got %d %s; want %d with %s", what, a.status, a.body, status, text);
    answer_free(&a);
}

static void report(const struct control *c, const char *router, bool ok, int count)
{
    char *body = samples_json(router, ok, count);
    char want[40];

    snprintf(want, sizeof(want), "{\"accepted\":%d}", count);
    check_answer(post_signed(c, "", body, strlen(body)), 202, want, "report");
    free(body);
}

/* A stream, unchunked as it comes. */

struct stream {
    int fd;
    struct strbuf raw;
    struct strbuf text;
    size_t used; /* of text, by stream_expect */
};

static struct stream stream_open(const struct control *c)
{
    struct stream s = { .fd = dial(c) };
    char req[512];
    int n = snprintf(req, sizeof(req), "GET " STREAM " HTTP/1.1\r\nHost: x\r\n%s\r\n", bearer(c));

    assert_true(send_all(s.fd, req, (size_t)n));
    return s;
}

static void stream_close(struct stream *s)
{
    close(s->fd);
    strbuf_free(&s->raw);
    strbuf_free(&s->text);
}

/* False: an end chunk was seen, which must never be sent. */
static bool unchunk(struct stream *s)
{
    const char *p = strstr(strbuf_str(&s->raw), "\r\n\r\n");

    strbuf_clear(&s->text);
    if (p == NULL)
        return true;
    p += 4;
    while (strstr(p, "\r\n")) {
        size_t len = strtoul(p, NULL, 16);

        p = strstr(p, "\r\n") + 2;
        if (len == 0)
            return false;
        if (p + len + 2 > s->raw.data + s->raw.len)
            return true;
        strbuf_add(&s->text, p, len);
        p += len + 2;
    }
    return true;
}

static bool stream_find(struct stream *s, const char *text)
{
    const char *at;

    if (!unchunk(s))
        fail_msg("the stream ended cleanly");
    at = strstr(strbuf_str(&s->text) + (s->used < s->text.len ? s->used : s->text.len), text);
    if (at == NULL)
        return false;
    s->used = (size_t)(at - s->text.data) + strlen(text);
    return true;
}

static void stream_expect(struct stream *s, const char *text)
{
    int64_t end = clock_mono_ms() + WAIT_MS;

    while (!stream_find(s, text)) {
        if (clock_mono_ms() > end || read_some(s->fd, &s->raw, WAIT_MS) <= 0)
            fail_msg("waited for %s, got %s", text, strbuf_str(&s->raw));
    }
}

/* Tests. */

static void an_empty_project_sends_a_comment_at_once(void **state)
{
    struct config cfg = zero_config();
    struct control *c = start(&cfg);
    struct stream s = stream_open(c);

    (void)state;
    stream_expect(&s, ": ");
    assert_non_null(strstr(s.raw.data, "HTTP/1.1 200 "));
    assert_non_null(strstr(s.raw.data, "Content-Type: text/event-stream\r\n"));
    assert_null(strstr(s.text.data, "event:"));
    assert_int_equal(stats_of(c).streams, 1);
    stream_close(&s);
    control_stop(c);
}

static void the_snapshot_has_the_exact_form_of_an_event(void **state)
{
    struct config cfg = payments_config();
    struct control *c = start(&cfg);
    struct stream s = stream_open(c);
    static const char want[] = "event: state\n"
                               "data: {\"breaker\":\"payments "
                               "\\\"blue\\\"\",\"state\":\"closed\",\"allow_rate\":null}\n\n";

    (void)state;
    stream_expect(&s, want);
    if (strncmp(s.text.data, want, strlen(want)) != 0)
        fail_msg("the stream begins with %s", s.text.data);
    stream_close(&s);
    control_stop(c);
}

static void five_failures_open_a_breaker_made_for_their_host_and_successes_close_it(void **state)
{
    struct config cfg = zero_config();
    struct control *c = start(&cfg);
    struct stream s = stream_open(c);
    int64_t began;

    (void)state;
    stream_expect(&s, ": ");
    report(c, "api.example:8080", true, 1);
    stream_expect(&s, "data: {\"breaker\":\"api.example:8080\",\"state\":\"closed\","
                      "\"allow_rate\":null}\n\n");
    began = clock_mono_ms();
    report(c, "api.example:8080", false, 5);
    stream_expect(&s, "data: {\"breaker\":\"api.example:8080\",\"state\":\"open\","
                      "\"allow_rate\":null}\n\n");
    if (clock_mono_ms() - began > 1000)
        fail_msg("opened after %lld ms", (long long)(clock_mono_ms() - began));
    stream_expect(&s, "\"state\":\"half_open\",\"allow_rate\":0.25}\n\n");
    report(c, "api.example:8080", true, 1);
    stream_expect(&s, "\"state\":\"half_open\",\"allow_rate\":0.5}\n\n");
    stream_expect(&s, "\"state\":\"half_open\",\"allow_rate\":0.75}\n\n");
    stream_expect(&s, "\"state\":\"half_open\",\"allow_rate\":1}\n\n");
    stream_expect(&s, "\"state\":\"closed\",\"allow_rate\":null}\n\n");
    assert_int_equal(stats_of(c).transitions, 3);
    assert_int_equal(stats_of(c).auto_breakers, 1);
    assert_int_equal(stats_of(c).samples_accepted, 7);
    stream_close(&s);
    control_stop(c);
}

static void a_change_reaches_every_stream_and_a_later_snapshot(void **state)
{
    struct config cfg = payments_config();
    struct control *c = start(&cfg);
    struct stream s[3];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        s[i] = stream_open(c);
        stream_expect(&s[i], "\"closed\"");
    }
    report(c, "r-1", false, 10);
    for (size_t i = 0; i < 2; i++)
        stream_expect(&s[i], "\"state\":\"open\"");
    s[2] = stream_open(c);
    stream_expect(&s[2], "\"state\":\"open\"");
    for (size_t i = 0; i < ARRAY_LEN(s); i++)
        stream_close(&s[i]);
    control_stop(c);
}

static void a_comment_comes_at_least_every_five_seconds(void **state)
{
    struct config cfg = zero_config();
    struct control *c = start(&cfg);
    struct stream s = stream_open(c);
    int64_t began;

    (void)state;
    stream_expect(&s, ": ");
    began = clock_mono_ms();
    stream_expect(&s, ": ");
    if (clock_mono_ms() - began > 5000)
        fail_msg("silent for %lld ms", (long long)(clock_mono_ms() - began));
    stream_close(&s);
    control_stop(c);
}

static void stopping_cuts_the_streams_without_a_clean_end(void **state)
{
    struct config cfg = payments_config();
    struct control *c = start(&cfg);
    struct stream s = stream_open(c);

    (void)state;
    stream_expect(&s, "\"closed\"");
    control_stop(c);
    while (read_some(s.fd, &s.raw, WAIT_MS) > 0)
        ;
    if (!unchunk(&s))
        fail_msg("the stream ended cleanly: %s", s.raw.data);
    stream_close(&s);
}

static void a_reader_that_stops_reading_is_cut(void **state)
{
    struct config cfg = zero_config();
    struct control *c = start(&cfg);
    struct stream s;
    int small = 1024;
    int64_t end;

    (void)state;
    cfg.limits.auto_breakers = 1000000;
    control_reconfigure(c, &cfg);
    s = stream_open(c);
    setsockopt(s.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    stream_expect(&s, ": ");
    assert_int_equal(stats_of(c).streams, 1);
    end = clock_mono_ms() + 60000;
    for (int i = 0; stats_of(c).streams > 0; i++) {
        struct strbuf body = STRBUF_INIT;
        struct json j = { .sb = &body };

        json_open(&j, NULL, '[');
        for (int k = 0; k < 500; k++) {
            char host[400];

            snprintf(host, sizeof(host), "%0380d", i * 500 + k);
            add_sample(&j, host, true);
        }
        json_close(&j);
        check_answer(post_signed(c, "", body.data, body.len), 202, "500", "report");
        strbuf_free(&body);
        if (clock_mono_ms() > end)
            fail_msg("%d events of 400 bytes and it is not cut", i * 500);
    }
    assert_int_equal(stats_of(c).streams_cut, 1);
    while (read_some(s.fd, &s.raw, WAIT_MS) > 0)
        ;
    if (!unchunk(&s))
        fail_msg("the stream ended cleanly");
    stream_close(&s);
    control_stop(c);
}

static void a_client_that_hangs_up_frees_its_stream(void **state)
{
    struct config cfg = zero_config();
    struct control *c = start(&cfg);
    int64_t end = clock_mono_ms() + WAIT_MS;

    (void)state;
    for (int i = 0; i < 200; i++) { /* more than there may be connections at once */
        struct stream s = stream_open(c);

        stream_expect(&s, ": ");
        stream_close(&s);
    }
    while (stats_of(c).streams > 0 && clock_mono_ms() < end)
        poll(NULL, 0, 5);
    assert_int_equal(stats_of(c).streams, 0);
    control_stop(c);
}

static void ingest_refuses_what_is_not_signed_right(void **state)
{
    struct config cfg = payments_config();
    struct control *c = start(&cfg);
    char *body = samples_json("r-1", true, 1);
    size_t len = strlen(body);
    int64_t now = clock_wall_ms();
    char headers[256];
    const struct {
        const char *what;
        int64_t ts;
        int damage; /* index into the header text to flip, or -1 */
        int status;
        const char *want;
    } cases[] = {
        { "now", now, -1, 202, "{\"accepted\":1}" },
        { "4 m 59 s old", now - 299000, -1, 202, "{\"accepted\":1}" },
        { "4 m 59 s ahead", now + 299000, -1, 202, "{\"accepted\":1}" },
        { "5 m 1 s old", now - 301000, -1, 401, "\"timestamp_out_of_range\"" },
        { "5 m 1 s ahead", now + 301000, -1, 401, "\"timestamp_out_of_range\"" },
        { "last digit of the signature", now, 3, 401, "\"invalid_signature\"" },
        { "first digit of the signature", now, 66, 401, "\"invalid_signature\"" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        sign(c, cases[i].ts, body, len, headers);
        if (cases[i].damage >= 0) {
            char *digit = headers + strlen(headers) - cases[i].damage;

            *digit = *digit == '0' ? '1' : '0';
        }
        check_answer(ask(c, "POST", INGEST, headers, body, len), cases[i].status, cases[i].want,
                     cases[i].what);
    }
    snprintf(headers, sizeof(headers), "X-EB-Timestamp: %lld\r\n", (long long)now);
    check_answer(ask(c, "POST", INGEST, headers, body, len), 401, "\"signature_required\"",
                 "unsigned");
    check_answer(ask(c, "POST", INGEST, bearer(c), body, len), 401, "\"signature_required\"",
                 "with the project key instead");
    sign(c, now, body, len, headers);
    body[len - 1] = ' ';
    check_answer(ask(c, "POST", INGEST, headers, body, len), 401, "\"invalid_signature\"",
                 "another body");
    assert_int_equal(stats_of(c).samples_accepted, 3);
    free(body);
    control_stop(c);
}

static size_t gzip(const void *in, size_t len, unsigned char *out, size_t size)
{
    z_stream z = {
        .next_in = (Bytef *)in, .avail_in = (uInt)len, .next_out = out, .avail_out = (uInt)size
    };

    deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return z.total_out;
}

static void ingest_takes_gzip_and_nothing_that_unpacks_too_far(void **state)
{
    static unsigned char wire[1 << 20];
    struct config cfg = payments_config();
    struct control *c = start(&cfg);
    char *body = samples_json("r-1", true, 1000);
    char *bomb = calloc(1, 17 << 20);
    size_t len;

    (void)state;
    len = gzip(body, strlen(body), wire, sizeof(wire));
    check_answer(post_signed(c, "Content-Encoding: gzip\r\n", wire, len), 202,
                 "{\"accepted\":1000}", "gzip");
    check_answer(post_signed(c, "Content-Encoding: gzip\r\n", wire, len - 1), 400,
                 "\"invalid_gzip\"", "cut gzip");
    check_answer(post_signed(c, "Content-Encoding: br\r\n", wire, len), 415,
                 "\"unsupported_encoding\"", "br");
    len = gzip(bomb, 17 << 20, wire, sizeof(wire));
    check_answer(post_signed(c, "Content-Encoding: gzip\r\n", wire, len), 413, "\"body_too_large\"",
                 "17 MiB of nothing");
    free(body);
    free(bomb);
    control_stop(c);
}

static void ingest_is_all_or_nothing(void **state)
{
    struct config cfg = payments_config();
    struct control *c = start(&cfg);
    struct strbuf body = STRBUF_INIT;
    struct json j = { .sb = &body };
    char *many = samples_json("r-1", true, 1001);
    char *huge = malloc((8 << 20) + 1);

    (void)state;
    json_open(&j, NULL, '[');
    for (int i = 0; i < 20; i++)
        add_sample(&j, i == 19 ? "unknown" : "r-1", false);
    json_close(&j);
    check_answer(post_signed(c, "", body.data, body.len), 422, "\"invalid_router_id\"",
                 "last unknown");
    assert_int_equal(stats_of(c).samples_accepted, 0);
    assert_int_equal(stats_of(c).samples_refused, 20);
    check_answer(post_signed(c, "", many, strlen(many)), 413, "\"too_many_samples\"",
                 "1001 samples");
    check_answer(post_signed(c, "", "{", 1), 400, "\"malformed\"", "half an object");
    check_answer(post_signed(c, "", "", 0), 400, "\"malformed\"", "no body");
    memset(huge, ' ', (8 << 20) + 1);
    check_answer(post_signed(c, "", huge, 8 << 20), 400, "\"malformed\"", "8 MiB of blanks");
    check_answer(post_signed(c, "", huge, (8 << 20) + 1), 413, "\"body_too_large\"", "8 MiB + 1");
    strbuf_free(&body);
    free(many);
    free(huge);
    control_stop(c);
}

static void keys_paths_and_methods_are_checked(void **state)
{
    struct config cfg = payments_config();
    struct control *c = start(&cfg);
    char wrong[200];
    char key[200];
    const struct {
        const char *method;
        const char *path;
        const char *headers;
        int status;
        const char *want;
    } cases[] = {
        { "GET", "/v1/projects/embedded/status", "", 401, "\"unauthorized\"" },
        { "GET", STREAM, "", 401, "\"unauthorized\"" },
        { "GET", STREAM, wrong, 401, "\"unauthorized\"" },
        { "GET", STREAM, "Authorization: Bearer \r\n", 401, "\"unauthorized\"" },
        { "GET", STREAM, "Authorization: Bear\r\n", 401, "\"unauthorized\"" },
        { "GET", STREAM, "Authorization: Bearer eb_admin_1\r\n", 403, "\"forbidden\"" },
        { "GET", "/v1/projects/other/status", key, 403, "\"forbidden\"" },
        { "POST", "/v1/projects/other/ingest", "", 404, "\"not_found\"" },
        { "GET", "/v1/projects/embedded/other", key, 404, "\"not_found\"" },
        { "GET", "/v1/projects/embedded", key, 404, "\"not_found\"" },
        { "GET", "/", key, 404, "\"not_found\"" },
        { "GET", "/v1/projects/embedded/breakers/br_999/state", key, 404, "\"not_found\"" },
        { "GET", "/v1/projects/embedded/breakers//state", key, 404, "\"not_found\"" },
        { "GET", "/v1/projects/embedded/sta%00tus", key, 404, "\"not_found\"" },
        { "GET", "/v1/projects/embedded/s%74atus?x=1", key, 200, "\"open_count\"" },
        { "GET", INGEST, key, 405, "\"method_not_allowed\"" },
        { "DELETE", STREAM, key, 405, "\"method_not_allowed\"" },
        { "PATCH", "/v1/projects/embedded/status", key, 405, "\"method_not_allowed\"" },
        { "HEAD", "/v1/projects/embedded/status", key, 200, "" },
    };

    (void)state;
    snprintf(key, sizeof(key), "%s", bearer(c));
    snprintf(wrong, sizeof(wrong), "%s", key);
    wrong[strlen(wrong) - 3] ^= 1;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char what[200];

        snprintf(what, sizeof(what), "%s %s %s", cases[i].method, cases[i].path, cases[i].headers);
        check_answer(ask(c, cases[i].method, cases[i].path, cases[i].headers,
                         strcmp(cases[i].method, "POST") == 0 ? "{}" : NULL, 2),
                     cases[i].status, cases[i].want, what);
    }
    control_stop(c);
}

static void a_wrong_method_is_told_the_right_ones(void **state)
{
    struct config cfg = payments_config();
    struct control *c = start(&cfg);
    struct answer a =
        ask(c, "PUT", "/v1/projects/embedded/status", "X-Request-ID: abc-1\r\n", "", 0);
    char value[64];

    (void)state;
    assert_string_equal(answer_header(&a, "Allow", value, sizeof(value)), "GET, HEAD");
    assert_string_equal(answer_header(&a, "X-Request-ID", value, sizeof(value)), "abc-1");
    answer_free(&a);
    control_stop(c);
}

static void metadata_lists_what_exists_and_answers_304_until_it_changes(void **state)
{
    static const char *const paths[] = { "/v1/projects/embedded/breakers/metadata",
                                         "/v1/projects/embedded/routers/metadata" };
    struct config cfg = zero_config();
    struct control *c = start(&cfg);

    (void)state;
    report(c, "a.example", true, 1);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct answer a = get(c, paths[i]);
        char etag[80];
        char headers[512];
        char host[40];

        if (a.status != 200 || !strstr(a.body, "\"project_id\":\"embedded\"") ||
            !strstr(a.body, "\"name\":\"a.example\",\"metadata\":{}"))
            fail_msg("%s: %s", paths[i], a.text);
        assert_non_null(answer_header(&a, "ETag", etag, sizeof(etag)));
        answer_free(&a);
        snprintf(headers, sizeof(headers), "%sIf-None-Match: \"x\", %s\r\n", bearer(c), etag);
        a = ask(c, "GET", paths[i], headers, NULL, 0);
        if (a.status != 304 || *a.body != '\0')
            fail_msg("%s: %s", paths[i], a.text);
        answer_free(&a);
        snprintf(host, sizeof(host), "b%zu.example", i);
        report(c, host, true, 1);
        check_answer(ask(c, "GET", paths[i], headers, NULL, 0), 200, host, paths[i]);
    }
    control_stop(c);
}

static void metadata_is_that_of_the_definitions_also_after_a_reload(void **state)
{
    static char tier[] = "tier", gold[] = "go\"ld", tin[] = "tin";
    struct name_value first = { tier, gold }, then = { tier, tin };
    struct breaker_def breaker = payments;
    struct router_def router = payments_router;
    struct config cfg = payments_config(), next = payments_config();
    struct breaker_def changed = payments;

    (void)state;
    breaker.metadata = router.metadata = (struct name_value_list){ &first, 1 };
    changed.metadata = (struct name_value_list){ &then, 1 };
    cfg.embedded.breakers = &breaker;
    cfg.embedded.routers = &router;
    next.embedded.breakers = &changed;
    struct control *c = start(&cfg);
    struct answer a = get(c, "/v1/projects/embedded/breakers/metadata");
    char etag[80], headers[512];
    assert_non_null(strstr(a.body, "\"metadata\":{\"tier\":\"go\\\"ld\"}"));
    assert_non_null(answer_header(&a, "ETag", etag, sizeof(etag)));
    answer_free(&a);
    a = get(c, "/v1/projects/embedded/routers/metadata");
    assert_non_null(strstr(a.body, "\"metadata\":{\"tier\":\"go\\\"ld\"}"));
    answer_free(&a);
    control_reconfigure(c, &next);
    breaker.metadata.items = NULL; /* the former file is borrowed no more */
    snprintf(headers, sizeof(headers), "%sIf-None-Match: %s\r\n", bearer(c), etag);
    check_answer(ask(c, "GET", "/v1/projects/embedded/breakers/metadata", headers, NULL, 0), 200,
                 "\"metadata\":{\"tier\":\"tin\"}", "after the reload");
    control_stop(c);
}

static void states_can_be_read_one_by_one_and_in_batches(void **state)
{
    struct config cfg = payments_config();
    struct control *c = start(&cfg);
    struct answer a = get(c, "/v1/projects/embedded/breakers/metadata");
    cJSON *meta = cJSON_Parse(a.body);
    const char *id =
        cJSON_GetArrayItem(cJSON_GetObjectItem(meta, "breakers"), 0)->child->valuestring;
    char path[128];
    char body[128];
    char want[128];
#define BATCH "/v1/projects/embedded/breakers/state:batch"

    (void)state;
    snprintf(path, sizeof(path), "/v1/projects/embedded/breakers/%s/state", id);
    snprintf(want, sizeof(want),
             "{\"breaker_id\":\"%s\",\"state\":\"closed\",\"allow_rate\":1,\"updated_at\":\"20",
             id);
    check_answer(get(c, path), 200, want, path);
    snprintf(body, sizeof(body), "{\"breaker_ids\":[\"%s\",\"gone\",3]}", id);
    check_answer(ask(c, "POST", BATCH, bearer(c), body, strlen(body)), 200, want, body);
    check_answer(ask(c, "POST", BATCH, bearer(c), "{\"router_id\":\"r-1\"}", 19), 200, want,
                 "by router");
    check_answer(ask(c, "POST", BATCH, bearer(c), "{\"router_id\":\"r-2\"}", 19), 404,
                 "\"not_found\"", "unknown router");
    check_answer(ask(c, "POST", BATCH, bearer(c), "{}", 2), 422, "\"invalid_request\"", "neither");
    check_answer(ask(c, "POST", BATCH, bearer(c), "{", 1), 400, "\"malformed\"", "half");
    cJSON_Delete(meta);
    answer_free(&a);
    control_stop(c);
}

static void status_counts_open_and_closed(void **state)
{
    struct config cfg = payments_config();
    struct control *c = start(&cfg);
    struct stream s = stream_open(c);

    (void)state;
    check_answer(get(c, "/v1/projects/embedded/status"), 200,
                 "{\"open_count\":0,\"closed_count\":1", "closed");
    report(c, "r-1", false, 10);
    stream_expect(&s, "\"state\":\"open\"");
    check_answer(get(c, "/v1/projects/embedded/status"), 200,
                 "{\"open_count\":1,\"closed_count\":0,\"last_eval_ms\":1", "open");
    stream_close(&s);
    control_stop(c);
}

static void hosts_beyond_the_limit_are_counted_and_nothing_fails(void **state)
{
    struct config cfg = zero_config();
    struct control *c = start(&cfg);

    (void)state;
    for (int i = 0; i < 1500; i += 500) {
        struct strbuf body = STRBUF_INIT;
        struct json j = { .sb = &body };

        json_open(&j, NULL, '[');
        for (int k = i; k < i + 500; k++) {
            char host[40];

            snprintf(host, sizeof(host), "h%d.example", k);
            add_sample(&j, host, true);
        }
        json_close(&j);
        check_answer(post_signed(c, "", body.data, body.len), 202, "{\"accepted\":500}",
                     "500 hosts");
        strbuf_free(&body);
    }
    assert_int_equal(stats_of(c).auto_breakers, 1000);
    assert_int_equal(stats_of(c).auto_refused, 500);
    assert_int_equal(stats_of(c).samples_accepted, 1500);
    control_stop(c);
}

static void reconfiguring_keeps_the_state_of_what_stays(void **state)
{
    struct config cfg = payments_config();
    struct config more;
    struct control *c = start(&cfg);
    struct stream s = stream_open(c);
    struct breaker_def defs[2] = { payments, payments };

    (void)state;
    report(c, "r-1", false, 10);
    stream_expect(&s, "\"state\":\"open\"");
    defs[1].name = "second";
    more = cfg;
    more.embedded.breakers = defs;
    more.embedded.breaker_count = 2;
    control_reconfigure(c, &more);
    memset(&cfg, 0xa5, sizeof(cfg)); /* it is no longer borrowed */
    stream_expect(&s, "{\"breaker\":\"second\",\"state\":\"closed\"");
    check_answer(get(c, "/v1/projects/embedded/status"), 200,
                 "{\"open_count\":1,\"closed_count\":1", "both");
    stream_close(&s);
    control_stop(c);
}

static void a_breaker_that_goes_while_open_is_closed_for_every_stream(void **state)
{
    struct config cfg = payments_config();
    struct config none = zero_config();
    struct control *c = start(&cfg);
    struct stream s = stream_open(c);
    struct stream later;

    (void)state;
    report(c, "r-1", false, 10);
    stream_expect(&s, "\"state\":\"open\"");
    control_reconfigure(c, &none);
    stream_expect(&s, "{\"breaker\":\"payments \\\"blue\\\"\",\"state\":\"closed\"");
    later = stream_open(c); /* a client that was not connected meanwhile */
    stream_expect(&later, "{\"breaker\":\"payments \\\"blue\\\"\",\"state\":\"closed\"");
    check_answer(get(c, "/v1/projects/embedded/status"), 200, "{\"open_count\":0", "it is gone");
    stream_close(&s);
    stream_close(&later);
    control_stop(c);
}

/* What stderr got while it was that file; the real one is put back. */
static char *lines_of(int file, int real)
{
    static char text[16384];
    ssize_t n = pread(file, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    dup2(real, STDERR_FILENO);
    close(real);
    close(file);
    return text;
}

static int count_of(const char *text, const char *what)
{
    int n = 0;

    for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
        n++;
    return n;
}

static void strangers_are_worth_one_warning_a_minute(void **state)
{
    struct config cfg = payments_config();
    struct control *c = start(&cfg);
    int real = dup(STDERR_FILENO);
    int file = memfd_create("stderr", MFD_CLOEXEC);
    char pid[32];
    char *text;

    (void)state;
    dup2(file, STDERR_FILENO);
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();

        if (child == 0) {
            struct pollfd p = { .fd = dial_name(control_socket(c)), .events = POLLIN };

            _exit(poll(&p, 1, WAIT_MS) == 1 ? 0 : 1);
        }
        if (i == 0)
            snprintf(pid, sizeof(pid), "\"pid\":\"%d\"", (int)child);
        waitpid(child, NULL, 0);
    }
    check_answer(get(c, "/v1/projects/embedded/status"), 200, "open_count", "our own");
    text = lines_of(file, real);
    assert_int_equal(stats_of(c).strangers, 3);
    if (count_of(text, "control.stranger") != 1 || strstr(text, pid) == NULL)
        fail_msg("want one line with %s, got %s", pid, text);
    control_stop(c);
}

static void another_process_is_shut_out(void **state)
{
    struct config cfg = payments_config();
    struct control *c = start(&cfg);
    char name[64];
    char request[512];
    int status = -1;
    pid_t child;

    (void)state;
    snprintf(name, sizeof(name), "%s", control_socket(c));
    snprintf(request, sizeof(request),
             "GET /v1/projects/embedded/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n",
             bearer(c));
    child = fork();
    if (child == 0) {
        struct pollfd p = { .fd = dial_name(name), .events = POLLIN };
        char buf[16];

        send(p.fd, request, strlen(request), MSG_NOSIGNAL);
        if (p.fd < 0 || poll(&p, 1, WAIT_MS) != 1)
            _exit(2);
        _exit(recv(p.fd, buf, sizeof(buf), 0) > 0 ? 1 : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the stranger ended with %d", status);
    check_answer(get(c, "/v1/projects/embedded/status"), 200, "open_count", "our own");
    assert_int_equal(stats_of(c).strangers, 1);
    control_stop(c);
}

static void connections_beyond_the_limit_are_closed_and_the_others_go_on(void **state)
{
    struct config cfg = zero_config();
    struct control *c = start(&cfg);
    struct stream s[64];
    struct strbuf in = STRBUF_INIT;
    int fd;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(s); i++) {
        s[i] = stream_open(c);
        stream_expect(&s[i], ": ");
    }
    fd = dial(c);
    assert_int_equal(read_some(fd, &in, WAIT_MS), 0);
    close(fd);
    assert_int_equal(stats_of(c).turned_away, 1);
    stream_close(&s[0]);
    while (stats_of(c).streams == ARRAY_LEN(s))
        poll(NULL, 0, 5);
    report(c, "a.example", true, 1);
    for (size_t i = 1; i < ARRAY_LEN(s); i++) {
        stream_expect(&s[i], "a.example");
        stream_close(&s[i]);
    }
    strbuf_free(&in);
    control_stop(c);
}

static void a_request_head_has_a_limit(void **state)
{
    struct config cfg = zero_config();
    struct control *c = start(&cfg);
    char *line = malloc(10000);
    struct answer a;

    (void)state;
    memset(line, 'a', 10000);
    memcpy(line, "X: ", 3);
    memcpy(line + 9997, "\r\n", 3);
    a = ask(c, "GET", STREAM, line, NULL, 0);
    if (a.status >= 0 && a.status / 100 != 4)
        fail_msg("a head of 10 000 bytes: %s", a.text);
    answer_free(&a);
    check_answer(get(c, "/v1/projects/embedded/status"), 200, "open_count", "afterwards");
    free(line);
    control_stop(c);
}

static void keys_are_new_at_every_start(void **state)
{
    struct config cfg = zero_config();
    struct control *a = start(&cfg);
    struct control *b = start(&cfg);

    (void)state;
    assert_int_equal(strlen(control_ingest_secret(a)), 64);
    assert_int_equal(strspn(control_ingest_secret(a), "0123456789abcdef"), 64);
    assert_int_equal(strlen(control_api_key(a)), strlen("eb_pk_") + 64);
    assert_string_not_equal(control_ingest_secret(a), control_ingest_secret(b));
    assert_string_not_equal(control_api_key(a), control_api_key(b));
    assert_string_not_equal(control_socket(a), control_socket(b));
    control_stop(a);
    control_stop(b);
    control_stop(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_project_sends_a_comment_at_once),
        cmocka_unit_test(the_snapshot_has_the_exact_form_of_an_event),
        cmocka_unit_test(five_failures_open_a_breaker_made_for_their_host_and_successes_close_it),
        cmocka_unit_test(a_change_reaches_every_stream_and_a_later_snapshot),
        cmocka_unit_test(a_comment_comes_at_least_every_five_seconds),
        cmocka_unit_test(stopping_cuts_the_streams_without_a_clean_end),
        cmocka_unit_test(a_reader_that_stops_reading_is_cut),
        cmocka_unit_test(a_client_that_hangs_up_frees_its_stream),
        cmocka_unit_test(ingest_refuses_what_is_not_signed_right),
        cmocka_unit_test(ingest_takes_gzip_and_nothing_that_unpacks_too_far),
        cmocka_unit_test(ingest_is_all_or_nothing),
        cmocka_unit_test(keys_paths_and_methods_are_checked),
        cmocka_unit_test(a_wrong_method_is_told_the_right_ones),
        cmocka_unit_test(metadata_lists_what_exists_and_answers_304_until_it_changes),
        cmocka_unit_test(metadata_is_that_of_the_definitions_also_after_a_reload),
        cmocka_unit_test(states_can_be_read_one_by_one_and_in_batches),
        cmocka_unit_test(status_counts_open_and_closed),
        cmocka_unit_test(hosts_beyond_the_limit_are_counted_and_nothing_fails),
        cmocka_unit_test(reconfiguring_keeps_the_state_of_what_stays),
        cmocka_unit_test(a_breaker_that_goes_while_open_is_closed_for_every_stream),
        cmocka_unit_test(another_process_is_shut_out),
        cmocka_unit_test(strangers_are_worth_one_warning_a_minute),
        cmocka_unit_test(connections_beyond_the_limit_are_closed_and_the_others_go_on),
        cmocka_unit_test(a_request_head_has_a_limit),
        cmocka_unit_test(keys_are_new_at_every_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
