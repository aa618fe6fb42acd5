/* Heads as they leave: start line and framing anew, everything else byte for byte. */
#include "proxy/rewrite.h"

#include "base/base.h"
#include "base/prng.h"
#include "proxy/authority.h"
#include "tests/unit/show.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct http1_head head;

/* The caller frees.  The memory is exactly rewrite_bound() bytes. */
static char *rewritten_request(struct slice in, struct rewrite_request o, size_t *len)
{
    enum http1_error err = http1_parse_request(&head, in.p, in.len, HTTP1_FIELDS_MAX);

    if (err)
        fail_msg("\"%s\": %s", show(in), http1_error_text(err));
    size_t bound = rewrite_bound(&head, in.len, o.via, o.authority);
    char *out = xmalloc(bound);
    *len = rewrite_request(&head, &o, (uint8_t *)out, bound);
    return out;
}

static char *rewritten_response(struct slice in, bool to_head, struct rewrite_response o,
                                size_t *len)
{
    enum http1_error err = http1_parse_response(&head, in.p, in.len, HTTP1_FIELDS_MAX, to_head);

    if (err)
        fail_msg("\"%s\": %s", show(in), http1_error_text(err));
    size_t bound = rewrite_bound(&head, in.len, o.via, SLICE(""));
    char *out = xmalloc(bound);
    *len = rewrite_response(&head, &o, (uint8_t *)out, bound);
    return out;
}

static void expect(const char *name, struct slice in, char *out, size_t len, struct slice want)
{
    if (!slice_eq((struct slice){ out, len }, want))
        fail_msg("%s: \"%s\"\n   got \"%s\"\n  want \"%s\"", name, show(in),
                 show((struct slice){ out, len }), show(want));
    free(out);
}

struct request_case {
    const char *name;
    struct slice in, want;
    const char *path, *via, *upgrade;
    int64_t max_forwards;
};

static void check_requests(const struct request_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct request_case *c = &cases[i];
        size_t len;
        struct rewrite_request o = { .authority = SLICE("b.example:81"),
                                     .path = slice_of(c->path),
                                     .via = c->via,
                                     .upgrade = c->upgrade,
                                     .max_forwards = c->max_forwards };
        char *out = rewritten_request(c->in, o, &len);
        expect(c->name, c->in, out, len, c->want);
    }
}

static void the_request_line_is_a_path_and_our_version(void **state)
{
    (void)state;
    static const struct request_case cases[] = {
        { "plain", SLICE("GET x HTTP/1.1\r\nHost: b.example:81\r\n\r\n"),
          SLICE("GET /a?b=c HTTP/1.1\r\nHost: b.example:81\r\n\r\n"), "/a?b=c", NULL, NULL, -1 },
        { "1.0 becomes 1.1", SLICE("GET x HTTP/1.0\r\nHost: b.example:81\r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\nHost: b.example:81\r\n\r\n"), "/", NULL, NULL, -1 },
        { "an empty path is a slash", SLICE("POST x HTTP/1.1\r\nHost: b.example:81\r\n\r\n"),
          SLICE("POST / HTTP/1.1\r\nHost: b.example:81\r\n\r\n"), "", NULL, NULL, -1 },
        { "or a star for OPTIONS", SLICE("OPTIONS x HTTP/1.1\r\nHost: b.example:81\r\n\r\n"),
          SLICE("OPTIONS * HTTP/1.1\r\nHost: b.example:81\r\n\r\n"), "", NULL, NULL, -1 },
        { "OPTIONS with a path", SLICE("OPTIONS x HTTP/1.1\r\nHost: b.example:81\r\n\r\n"),
          SLICE("OPTIONS / HTTP/1.1\r\nHost: b.example:81\r\n\r\n"), "/", NULL, NULL, -1 },
        { "a query without a path", SLICE("GET x HTTP/1.1\r\nHost: b.example:81\r\n\r\n"),
          SLICE("GET /?q HTTP/1.1\r\nHost: b.example:81\r\n\r\n"), "?q", NULL, NULL, -1 },
        { "the same for OPTIONS", SLICE("OPTIONS x HTTP/1.1\r\nHost: b.example:81\r\n\r\n"),
          SLICE("OPTIONS /?q HTTP/1.1\r\nHost: b.example:81\r\n\r\n"), "?q", NULL, NULL, -1 },
        { "nothing is decoded or merged", SLICE("xYz x HTTP/1.1\r\nHost: b.example:81\r\n\r\n"),
          SLICE("xYz //a/../%2e%2E/./\xff;x HTTP/1.1\r\nHost: b.example:81\r\n\r\n"),
          "//a/../%2e%2E/./\xff;x", NULL, NULL, -1 },
    };

    check_requests(cases, ARRAY_LEN(cases));
}

static void host_is_the_authority_of_the_target_in_place(void **state)
{
    (void)state;
    static const struct request_case cases[] = {
        { "a different Host is ignored",
          SLICE("GET x HTTP/1.1\r\nA: 1\r\nhOsT:  evil \r\nB: 2\r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\nA: 1\r\nhOsT: b.example:81\r\nB: 2\r\n\r\n"), "/", NULL, NULL,
          -1 },
        { "an equal one keeps its line", SLICE("GET x HTTP/1.1\r\nhost:b.example:81\t\r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\nhost:b.example:81\t\r\n\r\n"), "/", NULL, NULL, -1 },
        { "an empty one is filled", SLICE("GET x HTTP/1.1\r\nHost:\r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\nHost: b.example:81\r\n\r\n"), "/", NULL, NULL, -1 },
        { "a missing one comes first", SLICE("GET x HTTP/1.0\r\nA: 1\r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\nHost: b.example:81\r\nA: 1\r\n\r\n"), "/", NULL, NULL, -1 },
        { "Connection cannot remove it",
          SLICE("GET x HTTP/1.1\r\nConnection: host\r\nHost: b.example:81\r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\nHost: b.example:81\r\n\r\n"), "/", NULL, NULL, -1 },
        { "nor is X-Host one", SLICE("GET x HTTP/1.0\r\nX-Host: a\r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\nHost: b.example:81\r\nX-Host: a\r\n\r\n"), "/", NULL, NULL, -1 },
    };

    check_requests(cases, ARRAY_LEN(cases));
}

static void hop_by_hop_fields_of_a_request_stay_here(void **state)
{
    (void)state;
#define H "Host: b.example:81\r\n"
    static const struct request_case cases[] = {
        { "the usual ones",
          SLICE("GET x HTTP/1.1\r\n" H "Connection: keep-alive\r\nKeep-Alive: 5\r\n"
                "Proxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\n"
                "Proxy-Authorization: Basic x\r\nA: 1\r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\n" H "A: 1\r\n\r\n"), "/", NULL, NULL, -1 },
        { "all lines of what Connection names, wherever they stand",
          SLICE("GET x HTTP/1.1\r\nX-A: 1\r\n" H "Connection: x-a\r\nx-A: 2\r\nX-AB: 3\r\n"
                "CONNECTION: close, X-B\r\nx-b: 4\r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\n" H "X-AB: 3\r\n\r\n"), "/", NULL, NULL, -1 },
        { "but never the framing",
          SLICE("POST x HTTP/1.1\r\n" H "Connection: Content-Length\r\nContent-Length: 5\r\n\r\n"),
          SLICE("POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\n"), "/", NULL, NULL, -1 },
        { "of either kind",
          SLICE("POST x HTTP/1.1\r\n" H
                "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n"),
          SLICE("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"), "/", NULL, NULL,
          -1 },
        { "what only looks like one passes",
          SLICE("GET x HTTP/1.1\r\n" H "Connections: a\r\nProxy-Authenticate: b\r\nTrailer: c\r\n"
                "Expect: 100-continue\r\nVia: 1.0 d\r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\n" H "Connections: a\r\nProxy-Authenticate: b\r\nTrailer: c\r\n"
                "Expect: 100-continue\r\nVia: 1.0 d\r\n\r\n"),
          "/", NULL, NULL, -1 },
    };

    check_requests(cases, ARRAY_LEN(cases));
}

static void framing_of_a_request_has_one_spelling(void **state)
{
    (void)state;
    static const struct request_case cases[] = {
        { "a length passes as it is", SLICE("POST x HTTP/1.1\r\n" H "content-LENGTH:5\r\n\r\n"),
          SLICE("POST / HTTP/1.1\r\n" H "content-LENGTH:5\r\n\r\n"), "/", NULL, NULL, -1 },
        { "white space behind it goes",
          SLICE("POST x HTTP/1.1\r\n" H "content-length:\t5\t\r\nA: 1 \r\n\r\n"),
          SLICE("POST / HTTP/1.1\r\n" H "content-length: 5\r\nA: 1 \r\n\r\n"), "/", NULL, NULL,
          -1 },
        { "zero too", SLICE("POST x HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n"),
          SLICE("POST / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n"), "/", NULL, NULL, -1 },
        { "leading zeros go, the name stays",
          SLICE("POST x HTTP/1.1\r\n" H "content-length: 0010\r\nA: 1\r\n\r\n"),
          SLICE("POST / HTTP/1.1\r\n" H "content-length: 10\r\nA: 1\r\n\r\n"), "/", NULL, NULL,
          -1 },
        { "many zeros are one", SLICE("POST x HTTP/1.1\r\n" H "Content-Length: 00\r\n\r\n"),
          SLICE("POST / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n"), "/", NULL, NULL, -1 },
        { "chunked is written once, the name stays",
          SLICE("POST x HTTP/1.1\r\n" H "TRANSFER-encoding: , Chunked\r\n\r\n"),
          SLICE("POST / HTTP/1.1\r\n" H "TRANSFER-encoding: chunked\r\n\r\n"), "/", NULL, NULL,
          -1 },
        { "even of two lines",
          SLICE("POST x HTTP/1.1\r\n" H
                "Transfer-Encoding:\r\nA: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
          SLICE("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nA: 1\r\n\r\n"), "/", NULL,
          NULL, -1 },
    };

    check_requests(cases, ARRAY_LEN(cases));
}

static void other_request_fields_pass_unchanged_and_in_order(void **state)
{
    (void)state;
    static const struct request_case cases[] = {
        { "names, blanks, high bytes, duplicates, empty values",
          SLICE("GET x HTTP/1.1\r\nb:1\r\nA:  2 \t\r\n" H "a:\r\nCookie: x\r\ncookie: y\r\n"
                "X: \xff\xfe\tz\r\nB: \r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\nb:1\r\nA:  2 \t\r\n" H "a:\r\nCookie: x\r\ncookie: y\r\n"
                "X: \xff\xfe\tz\r\nB: \r\n\r\n"),
          "/", NULL, NULL, -1 },
        { "Via behind the others, with the received version",
          SLICE("GET x HTTP/1.0\r\n" H "Via: 1.1 first\r\nA: 1\r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\n" H "Via: 1.1 first\r\nA: 1\r\nVia: 1.0 me\r\n\r\n"), "/", "me",
          NULL, -1 },
        { "and 1.1", SLICE("GET x HTTP/1.1\r\n" H "\r\n"),
          SLICE("GET / HTTP/1.1\r\n" H "Via: 1.1 me\r\n\r\n"), "/", "me", NULL, -1 },
        { "Max-Forwards, if it is to change",
          SLICE("TRACE x HTTP/1.1\r\n" H "max-Forwards: 10\r\nA: 1\r\n\r\n"),
          SLICE("TRACE / HTTP/1.1\r\n" H "max-Forwards: 9\r\nA: 1\r\n\r\n"), "/", NULL, NULL, 9 },
        { "and not otherwise", SLICE("GET x HTTP/1.1\r\n" H "Max-Forwards:  010\r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\n" H "Max-Forwards:  010\r\n\r\n"), "/", NULL, NULL, -1 },
        { "a listed Upgrade, with a Connection of ours",
          SLICE("GET x HTTP/1.1\r\n" H "Connection: keep-alive, Upgrade\r\nupgrade: h2c, "
                "websocket\r\nSec-WebSocket-Key: x\r\n\r\n"),
          SLICE("GET / HTTP/1.1\r\n" H
                "upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n"),
          "/", NULL, "websocket", -1 },
    };

    check_requests(cases, ARRAY_LEN(cases));
}

struct response_case {
    const char *name;
    struct slice in, want;
    struct rewrite_response o;
    bool to_head;
};

static void check_responses(const struct response_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t len;
        char *out = rewritten_response(cases[i].in, cases[i].to_head, cases[i].o, &len);
        expect(cases[i].name, cases[i].in, out, len, cases[i].want);
    }
}

#define NOTHING                                                                                    \
    {                                                                                              \
        NULL, false, false, false                                                                  \
    }
#define CHUNKED                                                                                    \
    {                                                                                              \
        NULL, true, false, false                                                                   \
    }
#define CLOSE                                                                                      \
    {                                                                                              \
        NULL, false, true, false                                                                   \
    }
#define UPGRADE                                                                                    \
    {                                                                                              \
        NULL, false, false, true                                                                   \
    }
#define VIA                                                                                        \
    {                                                                                              \
        "me", false, false, false                                                                  \
    }

static void a_response_has_our_version_and_its_own_status_and_reason(void **state)
{
    (void)state;
    static const struct response_case cases[] = {
        { "plain", SLICE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
          SLICE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), NOTHING, false },
        { "1.0 becomes 1.1", SLICE("HTTP/1.0 404 Gone  fishing\xe9\r\nContent-Length: 0\r\n\r\n"),
          SLICE("HTTP/1.1 404 Gone  fishing\xe9\r\nContent-Length: 0\r\n\r\n"), NOTHING, false },
        { "no reason", SLICE("HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"),
          SLICE("HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"), NOTHING, false },
        { "nor the space before it", SLICE("HTTP/1.1 299\r\nContent-Length: 0\r\n\r\n"),
          SLICE("HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"), NOTHING, false },
    };

    check_responses(cases, ARRAY_LEN(cases));
}

static void hop_by_hop_fields_of_a_response_stay_here(void **state)
{
    (void)state;
    static const struct response_case cases[] = {
        { "the usual ones",
          SLICE("HTTP/1.1 200 OK\r\nConnection: close, X-A\r\nKeep-Alive: 5\r\nX-A: 1\r\nUpgrade: "
                "h2c\r\nProxy-Connection: close\r\nContent-Length: 1\r\nB: 2\r\n\r\n"),
          SLICE("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nB: 2\r\n\r\n"), NOTHING, false },
        { "from an interim one too",
          SLICE("HTTP/1.1 103 Early Hints\r\nConnection: X-A\r\nX-A: 1\r\nLink: </a>\r\n\r\n"),
          SLICE("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), NOTHING, false },
        { "but never the framing",
          SLICE("HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 1\r\n\r\n"),
          SLICE("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"), NOTHING, false },
        { "nor behind two Hosts",
          SLICE("HTTP/1.1 200 OK\r\nHost: a\r\nHost: b\r\nConnection: X-A\r\nX-A: "
                "1\r\nContent-Length: 1\r\n\r\n"),
          SLICE("HTTP/1.1 200 OK\r\nHost: a\r\nHost: b\r\nContent-Length: 1\r\n\r\n"), NOTHING,
          false },
        { "an upgraded one keeps both lines of its Upgrade",
          SLICE("HTTP/1.1 101 Switching\r\nUpgrade: a\r\nConnection: upgrade\r\nUpgrade: b\r\n"
                "\r\n"),
          SLICE("HTTP/1.1 101 Switching\r\nUpgrade: a\r\nUpgrade: b\r\nConnection: Upgrade\r\n"
                "\r\n"),
          UPGRADE, false },
        { "an upgraded one keeps its Upgrade",
          SLICE("HTTP/1.1 101 Switching\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\nA: "
                "1\r\n\r\n"),
          SLICE("HTTP/1.1 101 Switching\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nA: "
                "1\r\n\r\n"),
          UPGRADE, false },
    };

    check_responses(cases, ARRAY_LEN(cases));
}

static void framing_of_a_response_can_be_read_in_one_way(void **state)
{
    (void)state;
    static const struct response_case cases[] = {
        { "chunked stays chunked",
          SLICE("HTTP/1.1 200 OK\r\ntransfer-encoding: CHUNKED\r\nA: 1\r\n\r\n"),
          SLICE("HTTP/1.1 200 OK\r\nA: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), CHUNKED, false },
        { "or ends with the connection, for HTTP/1.0",
          SLICE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: 1\r\n\r\n"),
          SLICE("HTTP/1.1 200 OK\r\nA: 1\r\n\r\n"), NOTHING, false },
        { "a length beside it goes",
          SLICE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
          SLICE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), CHUNKED, false },
        { "leading zeros go", SLICE("HTTP/1.1 200 OK\r\nContent-Length: 007\r\n\r\n"),
          SLICE("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"), NOTHING, false },
        { "close is announced", SLICE("HTTP/1.1 200 OK\r\nA: 1\r\n\r\n"),
          SLICE("HTTP/1.1 200 OK\r\nA: 1\r\nConnection: close\r\n\r\n"), CLOSE, false },
        { "the length in an answer to HEAD is kept",
          SLICE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
          SLICE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), NOTHING, true },
        { "in 304 too", SLICE("HTTP/1.1 304 x\r\nContent-Length: 5\r\nETag: y\r\n\r\n"),
          SLICE("HTTP/1.1 304 x\r\nContent-Length: 5\r\nETag: y\r\n\r\n"), NOTHING, false },
        { "no two framings in an answer to HEAD",
          SLICE("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nA: "
                "1\r\n\r\n"),
          SLICE("HTTP/1.1 200 OK\r\nA: 1\r\n\r\n"), NOTHING, true },
        { "no framing where no body can be (RFC 9110 8.6, RFC 9112 6.1)",
          SLICE("HTTP/1.1 204 x\r\nContent-Length: 5\r\nA: 1\r\n\r\n"),
          SLICE("HTTP/1.1 204 x\r\nA: 1\r\n\r\n"), NOTHING, false },
        { "of either kind", SLICE("HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\nA: 1\r\n\r\n"),
          SLICE("HTTP/1.1 204 x\r\nA: 1\r\n\r\n"), NOTHING, false },
        { "nor in an interim response",
          SLICE("HTTP/1.1 100 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
          SLICE("HTTP/1.1 100 x\r\n\r\n"), NOTHING, false },
    };

    check_responses(cases, ARRAY_LEN(cases));
}

static void other_response_fields_pass_unchanged_and_in_order(void **state)
{
    (void)state;
    static const struct response_case cases[] = {
        { "Set-Cookie lines are never joined",
          SLICE("HTTP/1.1 200 OK\r\nset-cookie:a=1; b\r\nX:\xff \r\nSet-Cookie: a=2\r\n"
                "Content-Length: 0\r\nEmpty:\r\nContent-Encoding: zzz\r\n\r\n"),
          SLICE("HTTP/1.1 200 OK\r\nset-cookie:a=1; b\r\nX:\xff \r\nSet-Cookie: a=2\r\n"
                "Content-Length: 0\r\nEmpty:\r\nContent-Encoding: zzz\r\n\r\n"),
          NOTHING, false },
        { "Via behind the others",
          SLICE("HTTP/1.0 200 OK\r\nVia: 1.1 x\r\nContent-Length: 0\r\n\r\n"),
          SLICE("HTTP/1.1 200 OK\r\nVia: 1.1 x\r\nContent-Length: 0\r\nVia: 1.0 me\r\n\r\n"), VIA,
          false },
    };

    check_responses(cases, ARRAY_LEN(cases));
}

/* ---- The bound, and random heads ---- */

static void the_bound_holds_when_everything_is_added(void **state)
{
    (void)state;
    char host[1024], via[256], upgrade[128], many[2048];
    size_t len;

    memset(host, 'h', sizeof(host));
    memset(via, 'v', sizeof(via) - 1);
    via[sizeof(via) - 1] = '\0';
    memset(upgrade, 'u', 120);
    upgrade[120] = '\0';
    int n = snprintf(many, sizeof(many),
                     "O x HTTP/1.0\r\nConnection:upgrade\r\nUpgrade:%s\r\nMax-Forwards:1\r\n"
                     "Content-Length:00\r\n\r\n",
                     upgrade);
    struct rewrite_request o = { .authority = { host, sizeof(host) },
                                 .path = SLICE("?"),
                                 .via = via,
                                 .upgrade = upgrade,
                                 .max_forwards = 999999999 };
    free(rewritten_request((struct slice){ many, (size_t)n }, o, &len));

    struct slice small = SLICE("HTTP/1.1 204\r\n\r\n");
    struct rewrite_response all = { .via = via, .chunked = true, .close = true };
    free(rewritten_response(small, false, all, &len));
}

static const struct slice names[] = {
    SLICE("A"),
    SLICE("x-b"),
    SLICE("Cookie"),
    SLICE("cookie"),
    SLICE("Connection"),
    SLICE("keep-alive"),
    SLICE("TE"),
    SLICE("Via"),
    SLICE("Upgrade"),
    SLICE("Expect"),
    SLICE("Proxy-Connection"),
    SLICE("Trailer"),
};
static const struct slice values[] = {
    SLICE(""),          SLICE(" "),           SLICE(" x-b"),
    SLICE(" close, A"), SLICE("\t\xff\xfe "), SLICE(" cookie"),
    SLICE(" upgrade"),  SLICE(" v, w; x"),    SLICE(" \"q,q\""),
    SLICE(" host"),
};

/* Whether a Connection or Proxy-Connection line of the text names it: a second opinion. */
static bool named_away(const unsigned *picks, size_t count, struct slice name)
{
    for (size_t i = 0; i < count; i++) {
        struct slice line = names[picks[2 * i]];
        if (!slice_eq(line, SLICE("Connection")) && !slice_eq(line, SLICE("Proxy-Connection")))
            continue;
        const char *list[] = { "", "", "x-b", "A", "", "cookie", "upgrade", "", "", "host" };
        if (strcasecmp(list[picks[2 * i + 1]], name.p) == 0)
            return true;
    }
    return false;
}

static void of_random_fields_all_but_the_hop_by_hop_ones_pass_byte_for_byte(void **state)
{
    (void)state;
    static const char *const hops[] = { "Connection", "keep-alive", "TE", "Upgrade",
                                        "Proxy-Connection" };
    struct prng prng;

    prng_seed_fixed(&prng, 99);
    for (unsigned round = 0; round < 20000; round++) {
        unsigned picks[40];
        size_t count = prng_u32(&prng) % 20, len;
        char in[2048], want[2048];
        int n = snprintf(in, sizeof(in), "GET x HTTP/1.1\r\nHost: h\r\n");
        int m = snprintf(want, sizeof(want), "GET /p HTTP/1.1\r\nHost: h\r\n");
        for (size_t i = 0; i < count; i++) {
            picks[2 * i] = prng_u32(&prng) % ARRAY_LEN(names);
            picks[2 * i + 1] = prng_u32(&prng) % ARRAY_LEN(values);
        }
        for (size_t i = 0; i < count; i++) {
            struct slice name = names[picks[2 * i]], value = values[picks[2 * i + 1]];
            bool hop = named_away(picks, count, name);
            for (size_t k = 0; k < ARRAY_LEN(hops); k++)
                hop |= strcmp(hops[k], name.p) == 0;
            n += snprintf(in + n, sizeof(in) - (size_t)n, "%s:%s\r\n", name.p, value.p);
            if (!hop)
                m += snprintf(want + m, sizeof(want) - (size_t)m, "%s:%s\r\n", name.p, value.p);
        }
        n += snprintf(in + n, sizeof(in) - (size_t)n, "\r\n");
        m += snprintf(want + m, sizeof(want) - (size_t)m, "\r\n");
        struct slice text = { in, (size_t)n };
        struct rewrite_request o = { .authority = SLICE("h"),
                                     .path = SLICE("/p"),
                                     .max_forwards = -1 };
        char *out = rewritten_request(text, o, &len);
        expect("random", text, out, len, (struct slice){ want, (size_t)m });
    }
}

static void what_leaves_reads_as_what_came(void **state)
{
    (void)state;
    static const struct slice cases[] = {
        SLICE("GET http://h/ HTTP/1.0\r\n\r\n"),
        SLICE("POST http://h/ HTTP/1.1\r\nHost: x\r\nContent-Length: 00012\r\n\r\n"),
        SLICE("POST http://h/ HTTP/1.1\r\nHost:\r\nTransfer-Encoding: ,chunked\r\nConnection: "
              "a,b\r\n\r\n"),
        SLICE("PUT http://h HTTP/1.0\r\nContent-Length: 3\r\nConnection: content-length\r\n\r\n"),
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t len;
        struct rewrite_request o = { .authority = SLICE("h"),
                                     .path = SLICE(""),
                                     .max_forwards = -1 };
        char *out = rewritten_request(cases[i], o, &len);
        enum http1_framing framing = head.framing;
        uint64_t length = head.content_length;
        struct slice text = { out, len };
        enum http1_error err = http1_parse_request(&head, out, len, 128);
        if (err || head.framing != framing || head.content_length != length || !head.host ||
            !slice_eq(head.host->value, SLICE("h")) || head.close)
            fail_msg("\"%s\" left as \"%s\": %s", show(cases[i]), show(text),
                     http1_error_text(err));
        free(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_request_line_is_a_path_and_our_version),
        cmocka_unit_test(host_is_the_authority_of_the_target_in_place),
        cmocka_unit_test(hop_by_hop_fields_of_a_request_stay_here),
        cmocka_unit_test(framing_of_a_request_has_one_spelling),
        cmocka_unit_test(other_request_fields_pass_unchanged_and_in_order),
        cmocka_unit_test(a_response_has_our_version_and_its_own_status_and_reason),
        cmocka_unit_test(hop_by_hop_fields_of_a_response_stay_here),
        cmocka_unit_test(framing_of_a_response_can_be_read_in_one_way),
        cmocka_unit_test(other_response_fields_pass_unchanged_and_in_order),
        cmocka_unit_test(the_bound_holds_when_everything_is_added),
        cmocka_unit_test(of_random_fields_all_but_the_hop_by_hop_ones_pass_byte_for_byte),
        cmocka_unit_test(what_leaves_reads_as_what_came),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
