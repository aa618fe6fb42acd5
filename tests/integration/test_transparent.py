"""Redirected connections: real nft rules in a network namespace, IPv4 and IPv6, HTTP and TLS.

The test process and all it starts live in a namespace of their own; the proxy is told from
its clients by its group, as init-net does.  Where that is not permitted the tests say so.
"""

import socket
import ssl
import statistics
import subprocess
import sys
import time
import unittest

from harness import Case, ControlPlane, DnsServer, Proxy, Raw, clean_environment, pattern, tool, wait_until
from harness.tunnels import (Certificates, HttpsOrigin, Namespace, client_hello, connect, direct, echo, greeting, sink)

V4, V6 = "192.0.2.10", "2001:db8::10"
HTTP, TLS, OTHER, FREE = 80, 443, 2525, 8080  # FREE is not redirected
ALERT = bytes.fromhex("15030300020228")

# Fills the backlog of a listener; once told to, takes from it and echoes, each connection to its end.
BUSY = r"""
import socket, sys
listener = socket.socket(fileno=int(sys.argv[3]))
listener.listen(0)
fill = [socket.socket() for _ in range(2)]
for s in fill:
    s.setblocking(False)
    s.connect_ex((sys.argv[1], int(sys.argv[2])))
print("busy", flush=True)
sys.stdin.readline()
for s in fill:
    s.close()
while True:
    conn = listener.accept()[0]
    got = b""
    while data := conn.recv(65536):
        conn.sendall(data)
        got += data
    conn.close()
    if got:
        break
"""


class TransparentTest(Case):
    """One namespace, control plane and proxy for the class; each test brings its own origins."""

    @classmethod
    def setUpClass(cls):
        cls.space = Namespace(V4, V6, "192.0.2.11")
        cls.addClassCleanup(cls.space.leave)
        cls.space.redirect([HTTP, TLS, OTHER], 3129)
        cls.cp = ControlPlane({"http": "closed", "tls": "closed", "rest": "closed"})
        cls.addClassCleanup(cls._end_control_plane)
        cls.names = DnsServer()
        cls.addClassCleanup(cls.names.stop)
        tags = {"tier": "{tier}", "outcome": "{outcome}", "host": "{host}", "route": "{route}"}

        def route(name, *hosts):
            return {"name": name, "match": {"hosts": list(hosts)}, "breakers": [name], "router": "rtr", "tags": tags}

        rest = {"name": "rest", "breakers": ["rest"], "router": "rtr", "tags": tags}
        cls.px = Proxy({"transparent_listen": ["127.0.0.1:3129", "[::1]:3129"], "workers": 2, "timeouts": {"client_header": "5s"},
                        "routes": [route("http", "shop.test"), route("tls", "pay.test"), rest]},
                       cls.cp, dns=cls.names, prefix=Namespace.PREFIX)
        cls.addClassCleanup(cls.px.cleanup)
        cls.addClassCleanup(cls.px.stop)
        cls.certificates = Certificates("pay.test", V4, V6)
        cls.addClassCleanup(cls.certificates.remove)

    @classmethod
    def _end_control_plane(cls):
        cls.cp.stop()
        if cls.cp.violations:
            raise AssertionError("\n".join(cls.cp.violations[:10]))

    def setUp(self):
        super().setUp()
        self._proxies = [self.px]

    def tearDown(self):
        for name in ("http", "tls", "rest"):
            if self.cp.breakers[name] != ("closed", None):
                self.state(name, "closed")

    def state(self, name, state):
        self.cp.set(name, state)
        self.px.wait_breaker(name, state)

    def reach(self, host, port, **kw):
        client = direct(host, port, **kw)
        self.addCleanup(client.close)
        return client

    def delta(self, name, **labels):
        before = self.px.metric(name, **labels)
        return lambda: self.px.metric(name, **labels) - before

    def https(self, host, **kw):
        origin = HttpsOrigin(self.certificates, host=host, port=TLS, **kw)
        self.addCleanup(self._end_origin, origin)
        return origin

    def samples(self):
        """A function that waits for n samples made after now: (route, host, tier, outcome) of each, sorted."""
        self.px.wait_balance(settled=True)
        since = len(self.cp.samples)

        def get(n=1):
            wait_until(lambda: len(self.cp.samples) >= since + n, 5, lambda: f"{n} samples: {self.cp.samples[since:]}")
            return sorted(tuple(s["tags"][k] for k in ("route", "host", "tier", "outcome")) for s in self.cp.samples[since:])

        return get

    # -- HTTP ------------------------------------------------------------------------

    def test_http_is_routed_by_host_and_goes_to_the_original_address(self):
        for address in (V4, V6):
            with self.subTest(address):
                samples = self.samples()
                origin = self.http_origin(host=address, port=HTTP)
                client = self.reach(address, HTTP)
                for path, status in (("/bytes/9", 200), ("/status/404", 404), ("/dump", 200)):
                    client.send(f"GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n")
                    response = client.read_response()
                    self.assert_relayed(response, status)
                self.assertEqual(response.body, b"GET /dump HTTP/1.1\r\nHost: shop.test\r\n\r\n")
                self.assertEqual(samples(3), [("http", "shop.test", "http", "success")] * 3)
                self.assertEqual(self.names.asked("shop.test"), 0, "the name is not asked for")
                origin.stop()

    def test_an_open_breaker_answers_for_the_host_and_nothing_reaches_the_origin(self):
        origin = self.http_origin(host=V4, port=HTTP)
        self.state("http", "open")
        client = self.reach(V4, HTTP)
        client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        response = client.read_response()
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual(response.reason, "Circuit breaker open: http")
        self.assertEqual(len(origin.connections), 0)
        client.send("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n")
        self.assert_relayed(client.read_response(), 200, b"ok", "the next request may be for another host")
        self.state("http", "closed")
        client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        self.assert_relayed(client.read_response(), 200, b"ok")

    def test_a_port_in_host_or_a_missing_host_change_nothing_about_where_it_goes(self):
        origin = self.http_origin(host=V4, port=HTTP)
        cases = [
            ("GET /dump HTTP/1.1\r\nHost: shop.test:9999\r\n\r\n", b"Host: shop.test:9999"),
            ("GET /dump HTTP/1.0\r\n\r\n", b"Host: 192.0.2.10"),
            ("GET http://shop.test/dump HTTP/1.1\r\nHost: shop.test\r\n\r\n", b"Host: shop.test"),
            ("GET /dump HTTP/1.1\r\nHost: shop.test:\r\n\r\n", b"Host: shop.test:"),
            ("GET /dump HTTP/1.1\r\nHost:\r\n\r\n", b"Host:"),
            ("GET /dump HTTP/1.1\r\nHost: \r\n\r\n", b"Host: "),
        ]
        for head, want in cases:
            with self.subTest(head):
                client = self.reach(V4, HTTP)
                client.send(head)
                self.assertIn(want + b"\r\n", client.read_response().body)
        self.assertEqual(origin.hits, len(cases))

    def test_host_routes_by_its_name_or_if_it_is_empty_by_the_address(self):
        self.http_origin(host=V4, port=HTTP)
        for host, want in ((" shop.test:", ("http", "shop.test")), ("", ("rest", V4)), (" ", ("rest", V4))):
            with self.subTest(host):
                samples = self.samples()
                client = self.reach(V4, HTTP)
                client.send(f"GET / HTTP/1.1\r\nHost:{host}\r\n\r\n")
                self.assert_relayed(client.read_response(), 200)
                self.assertEqual(samples(), [(*want, "http", "success")])

    def test_a_malformed_host_is_refused_although_the_address_is_known(self):
        origin = self.http_origin(host=V4, port=HTTP)
        for host in ("Host: a b\r\n", "Host: :\r\n", "Host: :80\r\n", "Host: shop.test:x\r\n", "Host: u@shop.test\r\n",
                     "Host: a\r\nHost: a\r\n", ""):
            with self.subTest(host):
                client = self.reach(V4, HTTP)
                client.send(f"GET / HTTP/1.1\r\n{host}\r\n")
                self.assert_self_made(client.read_response(), 400)
        self.assertEqual(origin.hits, 0)

    def test_two_addresses_behind_one_name_are_kept_apart(self):
        one, two = self.http_origin(host=V4, port=HTTP), self.http_origin(host="192.0.2.11", port=HTTP)
        for _ in range(3):
            for address in (V4, "192.0.2.11"):
                client = self.reach(address, HTTP)
                client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
                self.assert_relayed(client.read_response(), 200, b"ok")
        self.assertEqual((one.hits, two.hits), (3, 3))

    def test_metrics_say_that_they_came_this_way(self):
        self.http_origin(host=V4, port=HTTP)
        accepted, http = (self.delta("client_connections_total", mode=m) for m in ("transparent", "http"))
        client = self.reach(V4, HTTP)
        client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        self.assert_relayed(client.read_response(), 200, b"ok")
        self.assertEqual((accepted(), http()), (1, 0))
        self.px.wait_metric(lambda n: n >= 1, "client_connections", mode="transparent")

    def test_http_in_small_pieces_is_still_http(self):
        self.http_origin(host=V4, port=HTTP)
        client = self.reach(V4, HTTP)
        for byte in b"GET /bytes/4 HTTP/1.1\r\nHost: shop.test\r\n\r\n":
            client.send(bytes([byte]))
            time.sleep(0.01)  # longer than 200 ms together, never silent for as long
        self.assert_relayed(client.read_response(), 200, pattern(4))

    def test_a_request_line_may_be_as_long_as_that_of_an_explicit_request(self):
        origin = self.http_origin(host=V4, port=HTTP)
        for state, status in (("closed", 200), ("open", 503)):
            self.state("http", state)
            for n in (8100, 8190, 9000, 16300, 16400, 40_000, 65_000):
                for pieces in (1, 7):
                    with self.subTest(state, n=n, pieces=pieces):
                        head = f"GET /{'a' * n} HTTP/1.1\r\nHost: shop.test\r\n\r\n"
                        client = self.reach(V4, HTTP)
                        for i in range(pieces):
                            client.send(head[i * len(head) // pieces:(i + 1) * len(head) // pieces])
                            time.sleep(0.02 * (pieces > 1))
                        self.assertEqual(client.read_response().status, status)
        self.assertEqual(origin.hits, 14, "only what the closed breaker let through")
        client = self.reach(V4, HTTP)
        client.send(f"GET /{'a' * 70_000} HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        self.assertIn(client.read_response().status, (414, 431))
        self.assertEqual(origin.hits, 14)

    def test_an_empty_line_before_a_request_hides_it_from_no_breaker(self):
        origin = self.http_origin(host=V4, port=HTTP)
        self.state("http", "open")
        for lines in ("\r\n", "\r\n\r\n"):
            client = self.reach(V4, HTTP)
            client.send(lines + "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            self.assert_self_made(client.read_response(), 503, "destination_unavailable")
        self.assertEqual(origin.hits, 0)

    def test_a_request_line_that_comes_slowly_is_waited_for(self):
        origin = self.http_origin(host=V4, port=HTTP)
        self.state("http", "open")
        client = self.reach(V4, HTTP)
        for piece in ("G", "ET /a", " HTTP/1.1\r", "\nHost: shop.test\r\n\r\n"):
            client.send(piece)
            time.sleep(0.5)
        self.assert_self_made(client.read_response(), 503, "destination_unavailable")
        self.assertEqual(len(origin.connections), 0)

    # -- TLS -------------------------------------------------------------------------

    def test_tls_is_routed_by_its_server_name_and_never_altered(self):
        for address in (V4, V6):
            with self.subTest(address):
                samples = self.samples()
                origin = self.https(address)
                client = self.reach(address, TLS)
                client.sock = self.certificates.client().wrap_socket(client.sock, server_hostname="pay.test")
                client.sock.settimeout(10)
                client.send("GET /bytes/100000 HTTP/1.1\r\nHost: pay.test\r\n\r\n")
                self.assert_relayed(client.read_response(), 200, pattern(100_000))
                self.assertEqual(origin.names, ["pay.test"])
                self.assertEqual(samples(), [("tls", "pay.test", "opaque", "success")])
                client.close()
                origin.stop()

    def test_tls_without_a_name_is_routed_by_its_address(self):
        self.https(V4)
        samples = self.samples()
        context = self.certificates.client()
        client = self.reach(V4, TLS)
        client.sock = context.wrap_socket(client.sock, server_hostname=V4)  # an address is not sent as a name
        self.assertEqual(samples(), [("rest", V4, "opaque", "success")])

    def test_curl_and_its_tls_know_nothing_of_a_proxy(self):
        curl = tool("curl")
        self.https(V4)
        for family, address in (("-4", V4), ("-6", V6)):
            with self.subTest(address):
                if address == V6:
                    self.https(V6)
                resolve = f"pay.test:443:{'[' + address + ']' if ':' in address else address}"
                done = subprocess.run([curl, "-sS", family, "--cacert", self.certificates.ca, "--resolve", resolve,
                                       "https://pay.test/bytes/20"], env=clean_environment(), capture_output=True,
                                      timeout=20, check=False)
                self.assertEqual((done.returncode, done.stdout), (0, pattern(20)), done.stderr)

    def test_an_open_breaker_resets_tls_without_a_byte(self):
        origin = self.https(V4)
        self.state("tls", "open")
        rejected = self.delta("requests_total", mode="transparent", outcome="rejected")
        client = self.reach(V4, TLS)
        with self.assertRaises((ssl.SSLError, ConnectionResetError)):
            self.certificates.client().wrap_socket(client.sock, server_hostname="pay.test")
        self.assertEqual(rejected(), 1)
        self.assertEqual(len(origin.connections), 0)

    def test_a_client_hello_in_pieces_is_still_routed_by_its_name(self):
        hello = client_hello("pay.test")
        got = []

        def script(conn):
            got.append(conn.read_exactly(len(hello)))
            conn.send(ALERT)
            conn.wait_for_end()

        self.origin(script, host=V4, port=TLS)
        samples = self.samples()
        client = self.reach(V4, TLS)
        for at in range(0, len(hello), 40):
            client.send(hello[at:at + 40])
            time.sleep(0.02)
        self.assertEqual(client.read_exactly(7), ALERT)
        self.assertEqual(got, [hello])
        self.assertEqual(samples(), [("tls", "pay.test", "opaque", "tls")])

    def test_a_client_hello_in_several_records_is_routed_by_its_name(self):
        hello = client_hello("pay.test")
        message = hello[5:]
        for sizes in ((1, 3, len(message)), (60, 60, len(message)), (len(message) - 1, 1)):
            with self.subTest(sizes):
                records, at = b"", 0
                for n in sizes:
                    part, at = message[at:at + n], at + n
                    records += b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part
                origin = self.origin(lambda conn, n=len(records): (conn.read_exactly(n), conn.send(ALERT), conn.wait_for_end()),
                                     host=V4, port=TLS)
                samples = self.samples()
                client = self.reach(V4, TLS)
                for i in range(0, len(records), 100):
                    client.send(records[i:i + 100])
                    time.sleep(0.01)
                self.assertEqual(client.read_exactly(7), ALERT)
                self.assertEqual(samples(), [("tls", "pay.test", "opaque", "tls")])
                origin.stop()

    def test_a_client_hello_that_comes_slowly_hides_its_name_from_no_breaker(self):
        origin = self.origin(sink, host=V4, port=TLS)
        self.state("tls", "open")
        hello = client_hello("pay.test")
        for at in (1, 5, 50, hello.index(b"pay.test") + 7):
            with self.subTest(at):
                client = self.reach(V4, TLS)
                client.send(hello[:at])
                time.sleep(0.5)
                client.send(hello[at:])
                client.expect_eof()
        self.assertEqual(len(origin.connections), 0)

    def test_a_client_hello_that_stops_half_way_goes_on_by_address(self):
        hello = client_hello("pay.test")
        origin = self.origin(sink, host=V4, port=TLS)
        client = self.reach(V4, TLS)
        client.send(hello[:50])
        origin.wait_connections(1)
        client.half_close()
        origin.wait_ended()
        self.assertEqual(origin.received(), hello[:50])

    def test_a_client_that_resets_before_it_is_clear_what_it_speaks_is_counted(self):
        aborted = self.delta("client_errors_total", reason="aborted")
        client = self.reach(V4, TLS)
        client.send(client_hello("pay.test")[:50])
        time.sleep(0.1)
        client.reset()
        wait_until(lambda: aborted() == 1, 5, "the client that left")

    # -- anything else ---------------------------------------------------------------

    def test_anything_else_is_routed_by_address_and_relayed(self):
        for address, label in ((V4, f"{V4}:{OTHER}"), (V6, f"[{V6}]:{OTHER}")):
            with self.subTest(address):
                samples = self.samples()
                origin = self.origin(echo, host=address, port=OTHER)
                client = self.reach(address, OTHER)
                for data in (b"\x00\x01binary", b"EHLO me\r\n", pattern(200_000)):
                    client.send(data)
                    self.assertTrue(client.read_exactly(len(data)) == data)
                self.assertEqual(samples(), [("rest", label, "opaque", "success")])
                client.half_close()
                client.expect_eof()
                origin.stop()

    def test_a_word_that_begins_no_request_is_not_waited_for(self):
        self.origin(echo, host=V4, port=OTHER)
        for word in (b"HELLO", b"auth secret", b"get"):
            with self.subTest(word):
                client = self.reach(V4, OTHER)
                began = time.monotonic()
                client.send(word)
                self.assertEqual(client.read_exactly(len(word)), word)
                self.assertLess(time.monotonic() - began, 4)  # client_header is 5 s
                client.close()

    def test_a_server_that_speaks_first_waits_for_the_look_and_is_heard(self):
        self.origin(greeting(b"220 ready\r\n"), host=V4, port=OTHER)
        times = []
        for _ in range(3):
            began = time.monotonic()
            self.assertEqual(self.reach(V4, OTHER).read_exactly(11), b"220 ready\r\n")
            times.append(time.monotonic() - began)
        self.assertLess(statistics.median(times), 0.6)

    def test_a_few_bytes_and_an_end_arrive(self):
        origin = self.origin(sink, host=V4, port=OTHER)
        client = self.reach(V4, OTHER)
        client.send(b"GE")
        client.half_close()
        origin.wait_ended()
        self.assertEqual(origin.received(), b"GE")

    def test_a_client_that_ends_without_a_word_may_still_hear_the_server(self):
        self.origin(greeting(b"220 ready\r\n"), host=V4, port=OTHER)
        client = self.reach(V4, OTHER)
        client.half_close()
        self.assertEqual(client.read_to_eof(), b"220 ready\r\n")

    def test_an_end_of_the_client_while_it_is_being_connected_is_half_a_close(self):
        listener = socket.create_server((V4, OTHER), backlog=1)
        self.addCleanup(listener.close)
        origin = subprocess.Popen([*Namespace.PREFIX, sys.executable, "-c", BUSY, V4, str(OTHER), str(listener.fileno())],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[listener.fileno()])
        self.addCleanup(lambda: (origin.stdin.close(), origin.wait(), origin.stdout.close()))
        self.assertEqual(origin.stdout.readline(), b"busy\n")
        client = self.reach(V4, OTHER)
        client.send(b"\x01ping")
        client.half_close()
        self.assertFalse(client.readable(2), "it is waited for longer than a second")
        origin.stdin.write(b"go\n")
        origin.stdin.flush()
        self.assertEqual(client.read_to_eof(), b"\x01ping")

    def test_a_connect_to_another_proxy_passes_as_it_is(self):
        origin = self.origin(sink, host=V4, port=OTHER)
        client = self.reach(V4, OTHER)
        line = b"CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test:443\r\n\r\n"
        client.send(line)
        client.half_close()
        origin.wait_ended()
        self.assertEqual(origin.received(), line)

    def test_nobody_there_is_a_reset_for_tls_and_a_502_for_http(self):
        samples = self.samples()
        client = self.reach(V4, TLS)
        client.send(client_hello("pay.test"))
        client.expect_eof()
        client = self.reach(V4, HTTP)
        client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        self.assert_self_made(client.read_response(), 502, "connection_refused")
        self.assertEqual(samples(2), [("http", "shop.test", "http", "connect"), ("tls", "pay.test", "opaque", "connect")])

    # -- ourselves -------------------------------------------------------------------

    def test_a_connection_that_was_not_redirected_is_closed(self):
        counted = self.delta("not_redirected_total")
        for host in ("127.0.0.1", "::1"):
            client = self.reach(host, 3129)
            client.try_send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            client.expect_eof()
        self.assertEqual(counted(), 2)

    def test_the_transparent_port_is_ourselves_for_an_explicit_client(self):
        for host in ("127.0.0.1", "[::1]", "localhost"):
            with self.subTest(host):
                client = self.px.client()
                self.addCleanup(client.close)
                client.send(f"CONNECT {host}:3129 HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assert_self_made(client.read_response(), 502, "proxy_loop_detected")

    def test_both_kinds_of_listeners_share_the_proxy(self):
        origin = self.origin(echo, host=V4, port=FREE)
        client = self.px.client()
        self.addCleanup(client.close)
        self.assertEqual(connect(client, origin.authority).status, 200)
        client.send(b"\x01")
        self.assertEqual(client.read_exactly(1), b"\x01")
        self.assertIsInstance(client, Raw)


class LoopTest(Case):
    """The proxy is not in the group that the rules except: what it sends comes back to it."""

    def setUp(self):
        super().setUp()
        space = Namespace(V4, V6)
        self.addCleanup(space.leave)
        space.redirect([HTTP, TLS, OTHER], 3129)
        self.cp = self.control({"b": "closed"})
        self.px = self.proxy({"transparent_listen": ["127.0.0.1:3129", "[::1]:3129"], "routes": [
            {"name": "all", "breakers": ["b"], "router": "rtr", "tags": {"outcome": "{outcome}"}}]}, self.cp, warnings=True)

    def attempts(self):
        return {k: v for k, v in self.px.metrics().by("attempts_total", "outcome").items() if v}

    def test_a_request_ends_in_one_error_and_blames_nobody(self):
        for host in (V4, V6, None):
            with self.subTest(host):
                before = self.px.metric("client_connections_total")
                client = direct(host, HTTP) if host else self.client()
                self.addCleanup(client.close)
                client.send(f"GET http://{V4}/ HTTP/1.1\r\nHost: {V4}\r\n\r\n")
                self.assert_self_made(client.read_response(), 502, "proxy_loop_detected")
                self.assertLessEqual(self.px.metric("client_connections_total") - before, 2)
                client.close()
        self.px.wait_balance(settled=True)
        self.assertEqual((self.attempts(), self.cp.samples), ({"local": 3}, []))
        self.assertIn("transparent.loop", self.px.stderr(), "nobody is told")

    def test_a_tunnel_ends_in_one_reset_and_blames_nobody(self):
        for what, first in (("tls", client_hello("pay.test")), ("binary", b"\x01"), ("silence", b""), ("an end", None)):
            with self.subTest(what):
                before = self.px.metric("client_connections_total")
                client = direct(V4, TLS)
                self.addCleanup(client.close)
                if first:
                    client.send(first)
                elif first is None:
                    client.half_close()
                client.expect_eof()
                self.assertLessEqual(self.px.metric("client_connections_total") - before, 2)
        client = self.client()
        self.assertEqual(connect(client, f"{V4}:{TLS}").status, 200)
        client.send(client_hello("pay.test"))
        client.expect_eof()
        self.px.wait_balance(settled=True)
        self.assertEqual((self.attempts(), self.cp.samples), ({"local": 5}, []))
        self.px.wait_metric(lambda n: n == 0, "client_connections")


if __name__ == "__main__":
    unittest.main()
