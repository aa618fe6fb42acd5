"""Forwarding: what leaves the proxy is what came in, except what must change (promise 6)."""

import difflib
import random

from harness import Case, SharedCase, request, wait_until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "REPORT", "M-SEARCH",
           "PURGE", "BREW", "get", "X", "FOO.BAR", "!#$%&'*+-.^_`|~"]

TARGETS = [  # path and query as sent, byte for byte as they must arrive
    "/", "/a", "/a/b/c", "//a//b", "/a/./b/../c", "/%41%2f%2F%zz", "/a;p=1;q", "/?q", "/?", "/a?b?c", "/a?x=/../y",
    "/~user/!$&'()*+,;=:@", "/\"quoted\"<>[]{}|\\^`", "/a%00b", "/" + "x" * 4000, "/?" + "k=v&" * 900, "/caf%C3%A9",
]


def answer_all(conn):
    while True:
        conn.read_request()
        conn.send(OK)


def normal(lines):
    """Field lines without Transfer-Encoding, which belongs to the hop, and with Host in one spelling."""
    out = []
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"host":
            line = b"host: " + value.strip(b" \t")
        if name.lower() != b"transfer-encoding":
            out.append(line)
    return out


def difference(got, want):
    return "\n".join(["", *difflib.unified_diff([repr(x)[:200] for x in want], [repr(x)[:200] for x in got], "wanted", "got",
                                                lineterm="", n=1)])


class ForwardTest(SharedCase):
    def send_one(self, data, method="GET"):
        """One request through the proxy to a fresh origin; the origin's view and the response."""
        origin = self.origin(answer_all)
        client = self.client()
        response = client.request(data.replace(b"ORIGIN", origin.authority.encode()), method)
        return origin, response

    def test_every_method_is_forwarded_as_it_is_even_an_unknown_one(self):
        origin = self.origin(answer_all)
        client = self.client()
        for method in METHODS:
            with self.subTest(method):
                lines = ["Max-Forwards: 9"] if method in ("TRACE", "OPTIONS") else []
                self.assert_relayed(client.get(origin.url + "/m", *lines, method=method))
                self.assertEqual(origin.requests[-1].method, method)

    def test_path_and_query_are_forwarded_byte_for_byte(self):
        origin = self.origin(answer_all)
        client = self.client()
        for target in TARGETS:
            with self.subTest(target[:60]):
                self.assert_relayed(client.get(origin.url + target))
                self.assertEqual(origin.requests[-1].target, target)

    def test_an_empty_path_becomes_a_slash(self):
        for target, want in [("", "/"), ("?q=1", "/?q=1")]:
            with self.subTest(target):
                origin, response = self.send_one(request("GET", "http://ORIGIN" + target))
                self.assert_relayed(response)
                self.assertEqual(origin.requests[0].target, want)

    def test_an_empty_path_becomes_a_star_for_options(self):
        origin, response = self.send_one(request("OPTIONS", "http://ORIGIN"))
        self.assert_relayed(response)
        self.assertEqual(origin.requests[0].target, "*")

    def test_the_scheme_is_read_without_case(self):
        for scheme in ("HTTP", "Http", "hTTp"):
            with self.subTest(scheme):
                origin, response = self.send_one(request("GET", f"{scheme}://ORIGIN/x"))
                self.assert_relayed(response)
                self.assertEqual(origin.requests[0].target, "/x")

    def test_two_hundred_request_shapes_arrive_unchanged(self):
        rng = random.Random(20)
        pool = [
            "User-Agent: Legacy/1.0 (compatible; so they say)", "X-Lower: a", "x-lower: b", "X-LOWER: C",
            "X-Empty:", "X-Empty-Space: ", "X-NoSpace:tight", "X-Two:  two spaces", "X-Tab:\tvalue", "X-Trail: value  ",
            "X-Inner: a   b\tc", "X-Quoted: \"a, b\"; c=\"d\\\"e\"", "X-High: caf\xe9 \xff\x80", "Cookie: a=1; b=2",
            "Cookie: c=3", "Authorization: Basic dXNlcjpwYXNz", "Accept: */*", "Accept-Encoding: gzip, deflate, br",
            "Accept-Encoding: identity", "Referer: http://elsewhere.test/", "X-Forwarded-For: 192.0.2.1",
            "Via: 1.0 fred", "Cache-Control: no-cache", "Pragma: no-cache", "Trailer: X-Sum", "Range: bytes=0-1",
            "If-None-Match: W/\"x\"", "Origin: null", "X-" + "n" * 120 + ": long name", "X-Long: " + "v" * 6000,
            "!#$%&'*+-.^_`|~: odd name", "X-Colon: a:b::c", "X-Comma: ,,a,,b,", "traceparent: 00-" + "1" * 32 + "-" + "2" * 16 + "-01",
            "Content-Type: text/plain; charset=utf-8", "Max-Forwards: 3", "Content-Language: en", "DNT: 1", "X_Under: y",
            "SOAPAction: \"urn:do\"", "Date: Thu, 01 Jan 1970 00:00:00 GMT", "Warning: 199 - \"x\"", "From: a@b.test",
        ]
        origin = self.origin(answer_all)
        client = self.client()
        for i in range(200):
            method = rng.choice([m for m in METHODS if m not in ("TRACE", "OPTIONS")])
            target = rng.choice([t for t in TARGETS if len(t) < 100])
            lines = rng.sample(pool, rng.randrange(0, 20))
            if i % 20 == 0:
                lines = [f"X-Many-{n}: {n}" for n in range(100)]
            host_at = rng.randrange(len(lines) + 1)
            lines.insert(host_at, rng.choice(["Host: ", "host: ", "HOST:", "hOsT:  "]) + origin.authority)
            body = b""
            framing = rng.choice(["none", "none", "length", "zero", "chunked"])
            if framing == "length":
                body = rng.randbytes(rng.randrange(1, 5000))
                lines.append(f"content-LENGTH: {len(body)}")
            elif framing == "zero":
                lines.append("Content-Length: 0")
            elif framing == "chunked":
                body = rng.randbytes(rng.randrange(1, 5000))
                lines.append("Transfer-Encoding: chunked")
            wire = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if framing == "chunked" else body
            head = (f"{method} {origin.url}{target} HTTP/1.1\r\n" + "".join(x + "\r\n" for x in lines) + "\r\n").encode("latin-1")
            response = client.request(head + wire, method)
            with self.subTest(shape=i, head=head[:400]):
                self.assert_relayed(response)
                got = origin.requests[-1]
                self.assertEqual((got.method, got.target, got.head.version), (method, target, "HTTP/1.1"))
                seen, want = normal(got.head.lines), normal(x.encode("latin-1") for x in lines)
                if seen != want:
                    self.fail(difference(seen, want))
                self.assertEqual(got.head.chunked(), framing == "chunked")
                self.assertEqual(got.body, body)

    def test_sixty_response_shapes_arrive_unchanged(self):
        rng = random.Random(30)
        pool = [
            "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "set-cookie: c=3",
            "Server: Legacy", "server: twice", "Date: Thu, 01 Jan 1970 00:00:00 GMT", "X-Empty:", "X-Two:  two",
            "X-Tab:\tt", "X-Trail: t \t", "ETag: W/\"1\"", "Vary: *", "Vary: Accept", "Content-Type: text/html",
            "Content-Encoding: gzip", "X-High: \xe9\xff", "WWW-Authenticate: Basic realm=\"a, b\"", "Location: http://x.test/",
            "Proxy-Status: somebody-else; error=dns_error", "Via: 1.1 varnish", "Age: 5", "X-nOrMaL: CaSe", "P3P: CP=\"x\"",
            "Proxy-Authenticate: Basic", "Link: </a>; rel=preload", "Trailer: X-Sum", "Retry-After: 9", "X-Long: " + "z" * 5000,
        ]
        for i in range(60):
            lines = rng.sample(pool, rng.randrange(0, 12))
            status = rng.choice(["200 OK", "200 ", "404 Not Here", "500 Oh \"no\": \xe9", "299 Made Up", "302 Found", "599 x"])
            body = rng.randbytes(rng.randrange(0, 3000))
            chunked = rng.random() < 0.4
            lines.insert(rng.randrange(len(lines) + 1),
                         "Transfer-Encoding: chunked" if chunked else f"Content-length: {len(body)}")
            wire = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n" if chunked else body
            head = (f"HTTP/1.1 {status}\r\n" + "".join(x + "\r\n" for x in lines) + "\r\n").encode("latin-1")
            origin = self.origin(lambda c, head=head, wire=wire: (c.read_request(), c.send(head + wire), c.wait_for_end()))
            client = self.client()
            response = client.get(origin.url + "/")
            client.close()
            with self.subTest(shape=i, head=head[:400]):
                self.assertEqual(f"{response.status} {response.reason}", status)
                seen, want = normal(response.head.lines), normal(x.encode("latin-1") for x in lines)
                if seen != want:
                    self.fail(difference(seen, want))
                self.assertEqual(response.body, body)
                self.assertEqual(response.version, "HTTP/1.1")

    def test_host_is_made_from_the_target_in_its_place(self):
        origin, response = self.send_one(b"GET http://ORIGIN/ HTTP/1.1\r\nA: 1\r\nHost: elsewhere.test\r\nB: 2\r\n\r\n")
        self.assert_relayed(response)
        self.assertEqual(origin.requests[0].head.fields, [("A", "1"), ("Host", origin.authority), ("B", "2")])

    def test_an_http_1_0_request_without_host_gets_one(self):
        origin, response = self.send_one(b"GET http://ORIGIN/ HTTP/1.0\r\nA: 1\r\n\r\n")
        self.assert_relayed(response)
        self.assertEqual(origin.requests[0].get("host"), origin.authority)
        self.assertEqual(origin.requests[0].head.version, "HTTP/1.1")

    def test_a_name_in_the_target_is_used_for_host_as_it_was_written(self):
        origin = self.origin(answer_all)
        self.assert_relayed(self.client().get(f"http://Some-Name.test:{origin.port}/"))
        self.assertEqual(origin.requests[0].get("host").lower(), f"some-name.test:{origin.port}")

    def test_hop_by_hop_fields_are_removed_and_all_others_stay(self):
        cases = [
            (["Connection: keep-alive"], ["connection"]),
            (["Connection: X-One, x-two", "X-One: 1", "X-TWO: 2"], ["connection", "x-one", "x-two"]),
            (["Connection: x-one", "connection: X-TWO", "X-One: 1", "X-Two: 2"], ["connection", "x-one", "x-two"]),
            (["X-One: 1", "CONNECTION: ,, x-one ,"], ["connection", "x-one"]),
            (["Connection: x-one", "X-One: 1", "X-Stay: 0", "X-One: 2"], ["connection", "x-one"]),
            (["Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: trailers"],
             ["keep-alive", "proxy-connection", "te"]),
            (["Upgrade: h2c, foo/2", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk"],
             ["upgrade", "connection", "http2-settings"]),
        ]
        for lines, gone in cases:
            with self.subTest(lines):
                origin, response = self.send_one(request("GET", "http://ORIGIN/", "X-Keep: me", *lines))
                self.assert_relayed(response)
                names = origin.requests[0].head.names()
                self.assertEqual(origin.requests[0].get("x-keep"), "me")
                self.assertEqual([n for n in gone if n in names], [], "should be gone")
                stay = [x.split(":")[0].lower() for x in lines if x.split(":")[0].lower() not in gone]
                self.assertEqual([n for n in stay if n not in names], [], "should stay")

    def test_a_peer_cannot_make_host_or_framing_disappear_by_naming_them_in_connection(self):
        data = (b"POST http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\nConnection: host, content-length, transfer-encoding\r\n"
                b"Content-Length: 5\r\n\r\nhello")
        origin, response = self.send_one(data, "POST")
        self.assert_relayed(response)
        self.assertEqual(origin.requests[0].body, b"hello")
        self.assertEqual(origin.requests[0].get("host"), origin.authority)

    def test_hop_by_hop_fields_of_a_response_are_removed(self):
        head = (b"HTTP/1.1 200 OK\r\nConnection: X-Gone, keep-alive\r\nX-Gone: 1\r\nKeep-Alive: timeout=5\r\n"
                b"X-Stay: 2\r\nContent-Length: 2\r\n\r\nok")
        origin = self.origin(lambda c: (c.read_request(), c.send(head), c.wait_for_end()))
        response = self.get(origin.url + "/")
        self.assert_relayed(response, 200, b"ok")
        self.assertEqual(response.get("x-stay"), "2")
        self.assertNotIn("x-gone", response.head.names())
        self.assertNotIn("x-gone", response.head.tokens("connection"))

    def test_nothing_is_added_to_a_request(self):
        origin, response = self.send_one(b"GET http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\n\r\n")
        self.assert_relayed(response)
        self.assertEqual(origin.requests[0].head.names(), ["host"])

    def test_nothing_is_added_to_a_response(self):
        _, response = self.send_one(b"GET http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\n\r\n")
        self.assertEqual(response.head.names(), ["content-length"])

    def test_max_forwards_zero_is_answered_here_and_a_larger_one_is_lowered(self):
        for method in ("TRACE", "OPTIONS"):
            with self.subTest(method):
                origin = self.origin(answer_all)
                client = self.client()
                response = client.get(origin.url + "/", "Max-Forwards: 0", method=method)
                self.assertEqual(len(origin.connections), 0, "nothing may reach the origin")
                self.assertIn(response.status, range(200, 600))
                client = self.client()
                self.assert_relayed(client.get(origin.url + "/", "Max-Forwards: 10", method=method))
                self.assertEqual(origin.requests[0].get("max-forwards"), "9")

    def test_max_forwards_that_could_be_read_in_two_ways_is_refused(self):
        largest = "9" * 18
        cases = [(["Max-Forwards: 5", "Max-Forwards: 5"], None), (["Max-Forwards: 5", "X: y", "max-forwards: 0"], None),
                 (["Max-Forwards: 0", "Max-Forwards: 5"], None), (["Max-Forwards: 5, 5"], None), (["Max-Forwards: 1" + "0" * 18], None),
                 (["Max-Forwards: -1"], None), (["Max-Forwards: 0x5"], None), (["Max-Forwards:"], None),
                 ([f"Max-Forwards: {largest}"], str(int(largest) - 1)), (["Max-Forwards: 1000000000"], "999999999"),
                 (["Max-Forwards: 0010"], "9"), (["Connection: max-forwards", "Max-Forwards: 7"], "6")]
        origin = self.http_origin()
        for method in ("TRACE", "OPTIONS"):
            for lines, want in cases:
                with self.subTest(method, lines=lines):
                    hits = origin.hits
                    response = self.client().get(origin.url + "/dump", *lines, method=method)
                    if want is None:
                        self.assert_self_made(response, 400, "http_request_error")
                        self.assertEqual(origin.hits, hits)
                    else:
                        self.assert_relayed(response, 200)
                        got = [line[13:].strip() for line in response.body.decode().lower().split("\r\n") if line.startswith("max-forwards:")]
                        self.assertEqual(got, [want])

    def test_max_forwards_means_nothing_on_other_methods(self):
        origin, response = self.send_one(request("GET", "http://ORIGIN/", "Max-Forwards: 0"))
        self.assert_relayed(response)
        self.assertEqual(origin.requests[0].get("max-forwards"), "0")

    def test_every_1xx_is_forwarded_at_once_and_in_order(self):
        go = [self.new_event(), self.new_event()]

        def script(conn):
            conn.read_request()
            conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n")
            conn.wait(go[0])
            conn.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\nConnection: x-gone\r\nX-Gone: 1\r\n\r\n")
            conn.wait(go[1])
            conn.respond(200, b"done")

        origin = self.origin(script)
        client = self.client().send(request("GET", origin.url + "/"))
        head = client.read_response_head()
        self.assertEqual((head.status, head.get("link")), (103, "</a>; rel=preload"))
        go[0].set()
        self.assertEqual(client.read_response_head().status, 102)
        head = client.read_response_head()
        self.assertEqual((head.status, head.get("link")), (103, "</b>"))
        self.assertNotIn("x-gone", head.names())
        go[1].set()
        self.assert_relayed(client.read_response(), 200, b"done")

    @staticmethod
    def new_event():
        import threading
        return threading.Event()

    def test_an_http_1_0_client_gets_no_1xx(self):
        origin = self.origin(lambda c: (c.read_request(), c.send(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), c.wait_for_end()))
        client = self.client()
        response = client.request(request("GET", origin.url + "/", version="HTTP/1.0"))
        self.assertEqual(response.interim, [])
        self.assert_relayed(response, 200, b"ok")
        client.expect_eof()

    def test_answers_without_a_body_end_with_their_head_whatever_length_they_announce(self):
        cases = [("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 4711\r\n\r\n", 200, "4711"),
                 ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, None),
                 ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, None),
                 ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"a\"\r\n\r\n", 304, "99")]
        for method, head, status, length in cases:
            with self.subTest(head):
                origin = self.origin(lambda c, head=head: (c.read_request(), c.send(head), c.read_request(),
                                                           c.respond(200, b"next"), c.wait_for_end()))
                client = self.client()
                response = client.get(origin.url + "/", method=method)
                self.assert_relayed(response, status, b"")
                if length:
                    self.assertEqual(response.get("content-length"), length)
                client.expect_silence(0.05)
                if origin.connections[0].ended.is_set():
                    continue
                self.assert_relayed(client.get(origin.url + "/next"), 200, b"next")

    def test_an_http_1_0_origin_is_served_to_an_http_1_1_client(self):
        origin = self.origin(lambda c: (c.read_request(), c.send(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nold body")))
        response = self.get(origin.url + "/")
        self.assert_relayed(response, 200, b"old body")
        self.assertEqual(response.version, "HTTP/1.1")

    def test_an_unencrypted_fetch_of_an_https_url_is_refused(self):
        response = self.get("https://127.0.0.1:9/secret")
        self.assert_self_made(response, 501)

    def test_an_ipv6_literal_keeps_its_brackets(self):
        origin = self.origin(answer_all, host="::1")
        response = self.get(origin.url + "/six")
        self.assert_relayed(response)
        self.assertEqual(origin.requests[0].get("host"), origin.authority)

    def test_two_connections_at_once_do_not_wait_for_each_other(self):
        slow, fast = self.http_origin(), self.http_origin()
        waiting = self.client().send(request("GET", slow.url + "/hang"))
        wait_until(lambda: slow.hits == 1, 5, "the slow request to arrive")
        self.assert_relayed(self.get(fast.url + "/"), 200, b"ok")
        waiting.close()


class UpgradeTest(SharedCase):
    HELLO = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="]

    def test_an_accepted_upgrade_becomes_a_tunnel_both_ways(self):
        def script(conn):
            got = conn.read_request()
            assert got.get("upgrade") == "websocket" and "upgrade" in got.head.tokens("connection"), got.head.fields
            conn.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst words")
            conn.expect(b"\x81\x05hello")
            conn.send(b"\x81\x05world")
            conn.wait_for_end()

        origin = self.origin(script)
        client = self.client().send(request("GET", origin.url + "/chat", *self.HELLO))
        head = client.read_response_head()
        self.assertEqual((head.status, head.get("upgrade")), (101, "websocket"))
        self.assertEqual(client.read_exactly(11), b"first words")
        client.send(b"\x81\x05hello")
        self.assertEqual(client.read_exactly(7), b"\x81\x05world")
        client.close()
        origin.wait_ended()

    def test_a_refused_upgrade_stays_http(self):
        origin = self.origin(lambda c: (c.read_request(), c.respond(403, b"no"), c.read_request(), c.respond(200, b"yes"),
                                        c.wait_for_end()))
        client = self.client()
        self.assert_relayed(client.get(origin.url + "/", *self.HELLO), 403, b"no")
        self.assert_relayed(client.get(origin.url + "/"), 200, b"yes")

    def test_only_the_listed_tokens_are_relayed(self):
        origin = self.origin(answer_all)
        response = self.get(origin.url + "/", "Connection: Upgrade", "Upgrade: h2c, websocket")
        self.assert_relayed(response)
        self.assertEqual(origin.requests[0].head.tokens("upgrade"), ["websocket"])

    def test_a_101_nobody_asked_for_is_a_502(self):
        origin = self.origin(lambda c: (c.read_request(), c.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), c.wait_for_end()))
        self.assert_self_made(self.get(origin.url + "/"), 502, "http_protocol_error")

    def test_upgrade_in_http_1_0_is_ignored(self):
        origin = self.origin(answer_all)
        client = self.client()
        self.assert_relayed(client.request(request("GET", origin.url + "/", *self.HELLO, version="HTTP/1.0")))
        self.assertEqual(origin.requests[0].head.tokens("upgrade"), [])


class ViaTest(Case):
    def test_a_configured_via_is_added_after_existing_ones_in_both_directions(self):
        proxy = self.proxy({"via": "tripswitch"}, self.control())
        origin = self.origin(lambda c: (c.read_request(), c.send(
            "HTTP/1.1 200 OK\r\nVia: 1.0 origin-side\r\nContent-Length: 0\r\n\r\n"), c.wait_for_end()))
        response = self.client(proxy).request(request("GET", origin.url + "/", "Via: 1.0 client-side", version="HTTP/1.0"))
        members = [t.strip() for v in origin.requests[0].get_all("via") for t in v.split(",")]
        self.assertEqual([m.lower() for m in members], ["1.0 client-side", "1.0 tripswitch"])
        members = [t.strip() for v in response.get_all("via") for t in v.split(",")]
        self.assertEqual([m.lower() for m in members], ["1.0 origin-side", "1.1 tripswitch"])


class LoopTest(Case):
    def test_a_request_for_our_own_listeners_ends_in_one_error(self):
        dns = self.dns()
        proxy = self.proxy({}, self.control(), dns=dns)
        odd = ["2130706433", "0x7f000001", "127.1", "0177.0.0.1"]  # no hosts, whatever a resolver would say
        hosts = ["127.0.0.1", "localhost", "me.test", "[::ffff:127.0.0.1]", "0.0.0.0", *odd]
        for host in hosts:
            for port, error in ((proxy.port, "proxy_loop_detected"), (proxy.telemetry_port, "destination_ip_prohibited")):
                with self.subTest(host=host, port=error):
                    response = self.client(proxy).get(f"http://{host}:{port}/metrics")
                    self.assertNotEqual(response.status, 200)
                    self.assertEqual(len(response.get_all("proxy-status")), 1, response)
                    if host in ("127.0.0.1", "localhost", "me.test"):
                        self.assert_self_made(response, 502, error)
                    elif host in odd:
                        self.assert_self_made(response, 400, "http_request_error")
        proxy.expect_metric(0, "attempts_total", outcome="success")
