"""Refusals: what the client is told, and that it is told (DESIGN "Refusing", promise 8)."""

import json
import re
import subprocess
import sys
import threading
import time

from harness import BlackHole, Case, Raw, SharedCase, chunk, free_port, request, tool, slowdown, wait_until


class RefusalTest(SharedCase):
    breakers = {"b": "open", "quick": "open"}
    config = {"routes": [
        {"name": "quick", "match": {"hosts": ["quick.test"]}, "breakers": ["quick"], "router": "rtr",
         "reject": {"status": 429, "retry_after": "7s"}},
        {"name": "all", "breakers": ["b"], "router": "rtr"},
    ]}
    URL = "http://payments.test/x"

    def test_the_answer_says_who_refused_and_why(self):
        response = self.get(self.URL)
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual(response.reason, "Circuit breaker open: b")
        self.assertIn('details="', response.get("proxy-status"))
        self.assertEqual(response.get("x-tripswitch-breaker"), "b")
        self.assertEqual(response.get("x-tripswitch-state"), "open")
        self.assertIsNone(response.get("retry-after"))
        self.assertEqual(response.get("content-type"), "application/problem+json")
        problem = json.loads(response.body)
        self.assertEqual(problem["status"], 503)
        self.assertEqual((problem["breaker"], problem["state"]), ("b", "open"))
        self.assertTrue(problem["title"])
        self.assertTrue(problem["type"])
        self.assertEqual(response.delimited_by, "length")

    def test_status_and_retry_after_follow_the_route(self):
        response = self.get("http://quick.test/")
        self.assert_self_made(response, 429, "destination_unavailable")
        self.assertEqual(response.get("retry-after"), "7")
        self.assertEqual(json.loads(response.body)["status"], 429)

    def test_a_refused_head_request_has_no_body_and_keeps_the_connection(self):
        client = self.client()
        for _ in range(3):
            response = client.get(self.URL, method="HEAD")
            self.assert_self_made(response, 503, "destination_unavailable")
        client.expect_silence(0.05)

    def test_a_small_body_is_dropped_and_the_connection_kept(self):
        client = self.client()
        for n in (0, 1, 1000, 65536):
            with self.subTest(n=n):
                self.assert_self_made(client.get(self.URL, method="POST", body=b"x" * n), 503)
        with self.subTest("chunked"):
            wire = request("POST", self.URL, "Transfer-Encoding: chunked") + chunk(b"x" * 30000) + b"0\r\nT: 1\r\n\r\n"
            response = client.request(wire, "POST")
            self.assert_self_made(response, 503)
            if "close" in response.head.tokens("connection"):  # its size was not known when we answered
                client.expect_eof()
                client = self.client()
        with self.subTest("a body that looks like a request"):
            self.assert_self_made(client.get(self.URL, method="POST", body=request("GET", "http://evil.test/")), 503)
        self.assert_self_made(client.get(self.URL), 503)
        client.expect_silence(0.05)

    def test_a_small_body_that_comes_late_is_dropped_too(self):
        client = self.client().send(request("POST", self.URL, "Content-Length: 10"))
        pause = threading.Event()
        pause.wait(0.05)
        client.send(b"0123456789" + request("GET", self.URL))
        self.assert_self_made(client.read_response("POST"), 503)
        self.assert_self_made(client.read_response(), 503)

    def test_a_large_body_is_answered_at_once_with_a_close(self):
        for name, lines in (("length", ["Content-Length: 100000000"]), ("chunked", ["Transfer-Encoding: chunked"])):
            with self.subTest(name):
                client = self.client().send(request("POST", self.URL, *lines))
                if name == "chunked":
                    for _ in range(5):
                        client.send(chunk(b"x" * 20000))
                response = client.read_response("POST")
                self.assert_self_made(response, 503, "destination_unavailable")
                self.assertIn("close", response.head.tokens("connection"))
                client.expect_eof()

    def test_the_answer_reaches_a_client_in_the_middle_of_a_large_upload(self):
        # The client never looks up from its upload until it is done or broken off.
        block = b"x" * 65536
        for total in (300_000, 900_000, 8_000_000):
            with self.subTest(total):
                client = self.client()
                client.send(request("POST", self.URL, f"Content-Length: {total}"))
                sent = 0
                while sent < total and client.try_send(block[:total - sent]):
                    sent += len(block)
                response = client.read_response("POST")
                self.assert_self_made(response, 503, "destination_unavailable")
                client.close()

    def test_curl_sees_the_answer_to_a_refused_upload(self):
        curl = tool("curl")
        for method in (["-T", "-"], ["--data-binary", "@-"], ["--data-binary", "@-", "-H", "Expect: 100-continue"]):
            with self.subTest(method):
                done = subprocess.run([curl, "-sS", "-x", self.px.url, "-w", "\n%{http_code}", *method, self.URL],
                                      input=b"x" * 5_000_000, capture_output=True, timeout=20, check=False)
                self.assertIn(b'"b"', done.stdout, done)
                self.assertTrue(done.stdout.endswith(b"\n503"), done.stdout[-200:])

    def test_urllib_sees_the_answer_to_a_refused_upload(self):
        code = ("import urllib.request, urllib.error, sys\n"
                "opener = urllib.request.build_opener(urllib.request.ProxyHandler({'http': sys.argv[1]}))\n"
                "try:\n    opener.open(sys.argv[2], data=b'x' * 400000, timeout=10)\n"
                "except urllib.error.HTTPError as e:\n    print(e.code, e.reason)\n")
        done = subprocess.run([sys.executable, "-c", code, self.px.url, self.URL], capture_output=True, text=True,
                              timeout=20, check=False)
        self.assertEqual(done.stdout.strip(), "503 Circuit breaker open: b", done.stderr)

    def test_with_expect_100_continue_nothing_is_read_and_no_100_is_sent(self):
        client = self.client().send(request("POST", self.URL, "Expect: 100-continue", "Content-Length: 5000"))
        response = client.read_response("POST")
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual(response.interim, [])

    def test_a_pipelined_request_behind_a_refusal_is_answered(self):
        client = self.client().send(request("GET", self.URL) * 5)
        for _ in range(5):
            self.assert_self_made(client.read_response(), 503)

    def test_an_http_1_0_client_is_told_as_well(self):
        client = self.client()
        self.assert_self_made(client.request(request("GET", self.URL, version="HTTP/1.0")), 503, "destination_unavailable")
        client.expect_eof()

    def test_a_client_that_wants_no_json_gets_plain_text(self):
        response = self.get(self.URL, "Accept: text/plain")
        self.assert_self_made(response, 503)
        self.assertTrue(response.get("content-type").startswith(("text/plain", "application/problem+json")), response)

    def test_discarding_after_a_refusal_ends_after_a_mebibyte_or_five_seconds(self):
        client = self.client()
        client.send(request("POST", self.URL, "Content-Length: 1000000000"))
        self.assert_self_made(client.read_response("POST"), 503)
        sent, start = 0, time.monotonic()
        while client.try_send(b"x" * 65536):
            sent += 65536
            self.assertLess(sent, 64 << 20, "somebody reads without end")
        self.assertLess(time.monotonic() - start, 5 + 2 * slowdown())


class OwnRefusalTest(Case):
    """reject: status, body, content type, headers; what says that it is ours stays."""

    BODY = '{"error": "caf\u00e9 closed"}\n'

    def setUp(self):
        super().setUp()
        own = {"status": 502, "retry_after": "2s", "content_type": "application/vnd.shop+json", "body": self.BODY,
               "headers": {"X-Why": "tired", "Link": "<http://status.test/>; rel=help"}}
        control = self.control({"b": "open"})
        self.px = self.proxy({"routes": [
            {"name": "own", "breakers": ["b"], "router": "rtr", "match": {"hosts": ["own.test"]}, "reject": own},
            {"name": "text", "breakers": ["b"], "router": "rtr", "match": {"hosts": ["text.test"]},
             "reject": {"body": "x" * 65536}}]}, control)
        self.px.wait_breaker("b", "open")

    def assert_own(self, response, body=True):
        self.assert_self_made(response, 502, "destination_unavailable")
        self.assertEqual(response.reason, "Circuit breaker open: b")
        self.assertEqual(response.get("x-tripswitch-breaker"), "b")
        self.assertEqual(response.get("x-tripswitch-state"), "open")
        self.assertEqual(response.get("x-tripswitch-decision"), "reject")
        self.assertEqual(response.get("retry-after"), "2")
        self.assertEqual(response.get("content-type"), "application/vnd.shop+json")
        self.assertEqual(response.get("content-length"), str(len(self.BODY.encode())))
        self.assertEqual(response.get("x-why"), "tired")
        self.assertEqual(response.get("link"), "<http://status.test/>; rel=help")
        self.assertEqual(response.body, self.BODY.encode() if body else b"")

    def test_status_body_and_headers_are_the_routes(self):
        client = self.client()
        for _ in range(3):
            self.assert_own(client.get("http://own.test/"))
        self.assert_own(client.get("http://own.test/", method="POST", body=b"x" * 1000))
        self.assert_own(client.get("http://own.test/", method="HEAD"), body=False)
        self.assert_own(client.get("http://own.test/"))

    def test_connect_expect_and_http_1_0_are_told_the_same(self):
        with self.subTest("CONNECT"):
            client = self.client().send("CONNECT own.test:443 HTTP/1.1\r\nHost: own.test:443\r\n\r\n")
            self.assert_own(client.read_response("GET"))
        with self.subTest("Expect"):
            client = self.client().send(request("POST", "http://own.test/", "Expect: 100-continue", "Content-Length: 5000"))
            response = client.read_response("POST")
            self.assert_own(response)
            self.assertEqual(response.interim, [])
        with self.subTest("HTTP/1.0"):
            client = self.client()
            self.assert_own(client.request(request("GET", "http://own.test/", version="HTTP/1.0")))
            client.expect_eof()
        with self.subTest("a large upload"):
            client = self.client().send(request("POST", "http://own.test/", "Content-Length: 100000000"))
            response = client.read_response("POST")
            self.assert_own(response)
            self.assertIn("close", response.head.tokens("connection"))

    def test_the_largest_body_arrives_whole_as_plain_text(self):
        client = self.client()
        for _ in range(3):
            response = client.get("http://text.test/")
            self.assert_self_made(response, 503, "destination_unavailable")
            self.assertEqual(response.get("content-type"), "text/plain; charset=utf-8")
            self.assertEqual(response.body, b"x" * 65536)

    def test_only_a_breakers_refusal_looks_like_that(self):
        response = self.get(f"http://127.0.0.1:{free_port()}/")
        self.assert_self_made(response, 502, "connection_refused")
        self.assertEqual(json.loads(response.body)["status"], 502)
        self.assertIsNone(response.get("x-why"))


class BreakerNameTest(Case):
    NAMES = {  # what the server calls it -> what the reason phrase may show
        "plain-name_1.x": "plain-name_1.x",
        "has space": None,
        "quote\"and\\backslash": None,
        "caf\u00e9 \u2603": None,
        "semi;colon,comma": None,
        "x" * 200: "x" * 64,
    }

    def test_names_from_the_server_cannot_break_the_answer(self):
        control = self.control({n: "open" for n in self.NAMES})
        routes = [{"name": f"r{i}", "match": {"hosts": [f"h{i}.test"]}, "breakers": [n], "router": "rtr"}
                  for i, n in enumerate(self.NAMES)]
        self.proxy({"routes": routes}, control, warnings=True)
        for i, (name, shown) in enumerate(self.NAMES.items()):
            with self.subTest(name[:30]):
                response = self.get(f"http://h{i}.test/")
                self.assert_self_made(response, 503, "destination_unavailable")
                self.assertTrue(response.reason.startswith("Circuit breaker open: "), response.reason)
                said = response.reason.removeprefix("Circuit breaker open: ")
                if shown:
                    self.assertEqual(said, shown)
                for text in (said, response.get("x-tripswitch-breaker")):
                    self.assertLessEqual(len(text.strip('"')), 2 * 64)
                    self.assertTrue(re.fullmatch(r"[\x20-\x7e]+", text), text)
                self.assertIsNone(response.get("x-injected"))
                # RFC 8941: an item with parameters, a string is quoted and escapes only \ and ".
                self.assertTrue(re.fullmatch(r'tripswitch-proxy(; ?[a-z*][a-z0-9_.*-]*(=("([\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"|[A-Za-z0-9*][A-Za-z0-9_:./*+!#$%&\'^`|~-]*))?)*',
                                             response.get("proxy-status")), response.get("proxy-status"))
                json.loads(response.body)


class EverySelfMadeAnswerTest(SharedCase):
    """Promise 8: exactly one Proxy-Status on each answer of ours, none of ours on a relayed one."""

    breakers = {"b": "closed", "open": "open"}
    config = {
        "limits": {"header_bytes": "16KiB"},
        "timeouts": {"connect": "400ms", "first_byte": "300ms"},
        "access": {"deny_destinations": ["127.0.0.66/32"]},
        "routes": [{"name": "open", "match": {"hosts": ["open.test"]}, "breakers": ["open"], "router": "rtr"},
                   {"name": "all", "breakers": ["b"], "router": "rtr"}],
    }

    def test_every_answer_of_ours_says_so_and_is_complete(self):
        hole = BlackHole()
        self.addCleanup(hole.stop)
        origin = self.http_origin()
        self.names.behaviour["servfail.test"] = "servfail"
        self.names.behaviour["nxdomain.test"] = "nxdomain"
        nobody = free_port()
        cases = [
            ("breaker", request("GET", "http://open.test/"), 503, "destination_unavailable"),
            ("refused", request("GET", f"http://127.0.0.1:{nobody}/"), 502, "connection_refused"),
            ("connect timeout", request("GET", hole.url + "/"), 504, "connection_timeout"),
            ("no such name", request("GET", "http://nxdomain.test/"), 502, "dns_error"),
            ("resolver failure", request("GET", "http://servfail.test/"), 502, "dns_error"),
            ("reset", request("GET", origin.url + "/reset"), 502, ("connection_terminated", "http_response_incomplete")),
            ("closed", request("GET", origin.url + "/close"), 502, ("connection_terminated", "http_response_incomplete")),
            ("garbage", request("GET", origin.url + "/garbage"), 502, "http_protocol_error"),
            ("silence", request("GET", origin.url + "/hang"), 504, "http_response_timeout"),
            ("denied destination", request("GET", "http://127.0.0.66/"), 403, ("destination_ip_prohibited", "http_request_denied")),
            ("loop", request("GET", self.px.url + "/"), 502, "proxy_loop_detected"),
            ("telemetry", request("GET", f"http://127.0.0.1:{self.px.telemetry_port}/"), 502, "destination_ip_prohibited"),
            ("bad request", b"GET http://x/ HTTP/1.1\r\nHost : x\r\n\r\n", 400, "http_request_error"),
            ("origin form", b"GET / HTTP/1.1\r\nHost: x.test\r\n\r\n", 400, "http_request_error"),
            ("https", request("GET", "https://x.test/"), 501, None),
            ("version", b"GET http://x.test/ HTTP/2.0\r\nHost: x.test\r\n\r\n", 505, None),
            ("long target", request("GET", "http://x.test/" + "a" * 20000), 414, None),
            ("long head", request("GET", "http://x.test/", "X: " + "a" * 20000), 431, None),
            ("unknown coding", request("POST", "http://x.test/", "Transfer-Encoding: gzip, chunked"), 501, None),
        ]
        for name, wire, status, error in cases:
            with self.subTest(name):
                response = self.client().request(wire)
                if name == "denied destination":
                    self.assertIn(response.status, (403, 502), response)
                    status = response.status
                self.assert_self_made(response, status, error, name)
                self.assertEqual(response.delimited_by, "length")
                self.assertEqual(response.get("content-type"), "application/problem+json")
                problem = json.loads(response.body)
                self.assertEqual(problem["status"], status)
                self.assertTrue(problem["type"] and problem["title"], problem)

    def test_no_relayed_answer_carries_ours(self):
        origin = self.http_origin()
        for path in ("/", "/status/404", "/status/500", "/status/502", "/status/503", "/status/504", "/chunked/10"):
            with self.subTest(path):
                self.assertEqual(self.get(origin.url + path).get_all("proxy-status"), [])

    def test_the_origins_own_proxy_status_passes(self):
        origin = self.origin(lambda c: (c.read_request(), c.respond(503, b"", "Proxy-Status: other; error=dns_error"),
                                        c.wait_for_end()))
        self.assertEqual(self.get(origin.url + "/").get_all("proxy-status"), ["other; error=dns_error"])

    def test_answers_of_ours_to_head_have_no_body(self):
        nobody = free_port()
        client = self.client()
        response = client.get(f"http://127.0.0.1:{nobody}/", method="HEAD")
        self.assert_self_made(response, 502, "connection_refused")
        origin = self.http_origin()
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")

    def test_an_upstream_failure_during_an_upload_reaches_the_client(self):
        def script(conn):
            conn.read_request(with_body=False)
            conn.read_exactly(1000)
            conn.reset()

        for total in (200_000, 5_000_000):
            with self.subTest(total):
                origin = self.origin(script)
                client = self.client()
                client.send(request("POST", origin.url + "/", f"Content-Length: {total}"))
                sent = 0
                while sent < total and client.try_send(b"x" * min(65536, total - sent)):
                    sent += 65536
                self.assert_self_made(client.read_response("POST"), 502)
                client.close()


class LimitAnswerTest(Case):
    def test_past_the_connection_limit_a_client_is_told_and_the_others_are_served(self):
        proxy = self.proxy({"limits": {"connections": 10}}, self.control(), warnings=True)
        origin = self.http_origin()
        kept = [self.client(proxy) for _ in range(10)]
        for client in kept:
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        extra = self.client(proxy)
        extra.try_send(request("GET", origin.url + "/"))
        try:
            self.assert_self_made(extra.read_response(), 503, "connection_limit_reached")
        finally:
            extra.close()
        proxy.wait_metric(lambda n: n >= 1, "limit_rejections_total", limit="connections")
        for client in kept:
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        kept[0].close()

        def served_again():
            client = Raw(proxy.address)
            try:
                return client.get(origin.url + "/").status == 200
            except (OSError, AssertionError):
                return False
            finally:
                client.close()

        wait_until(served_again, 5, "a place to be free again")
