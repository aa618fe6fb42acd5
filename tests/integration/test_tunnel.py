"""CONNECT: tunnels, how they are refused, judged and closed, and plain HTTP inside them."""

import os
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
import unittest

from harness import (Case, Ended, SharedCase, clean_environment, free_port, has_ipv6, pattern, build_cost, slowdown, stays, tool,
                     variant, wait_until)
from harness.tunnels import Certificates, Flood, HttpsOrigin, client_hello, connect, echo, greeting, sink, tunnel

ALERT_HANDSHAKE_FAILURE = bytes.fromhex("15030300020228")
WARNING = bytes.fromhex("15030300020170")  # unrecognized_name
CLOSE_NOTIFY = bytes.fromhex("15030300020100")


def keepalive_seconds(client):
    """How soon the proxy's end of this connection asks whether the client is there; None: it does not."""
    near, far = (f":{port:04X}" for port in (client.sock.getpeername()[1], client.sock.getsockname()[1]))
    with open("/proc/net/tcp", encoding="ascii") as f:
        timer, ticks = next(fields[5].split(":") for fields in map(str.split, f)
                            if fields[1].endswith(near) and fields[2].endswith(far))
    return int(ticks, 16) / os.sysconf("SC_CLK_TCK") if timer == "02" else None


class TunnelTest(SharedCase):
    workers = 2

    def open(self, origin, *lines, **kw):
        return tunnel(self.client(), origin.authority, *lines, **kw)

    def test_bytes_go_both_ways_and_nothing_of_the_head_reaches_the_target(self):
        origin = self.origin(echo)
        client = self.open(origin, "X-Secret: of the head", "Proxy-Authorization: Basic eDp5")
        for data in (b"\x00\x01\x02", b"GET", b"\xff" * 1000, pattern(300_000)):
            client.send(data)
            self.assertTrue(client.read_exactly(len(data)) == data, data[:20])
        client.half_close()
        self.assertEqual(client.read_to_eof(), b"")

    def test_the_answer_is_the_proxys_own_and_has_no_body(self):
        origin = self.origin(sink)
        head = connect(self.client(), origin.authority)
        self.assertEqual((head.status, head.version), (200, "HTTP/1.1"))
        self.assertTrue(head.get("proxy-status").startswith("tripswitch-proxy"), head.fields)
        self.assertEqual(head.get_all("content-length") + head.get_all("transfer-encoding"), [])

    def test_the_target_comes_from_the_request_line_alone(self):
        cases = [
            ("no header at all, HTTP/1.0", b"CONNECT %s HTTP/1.0\r\n\r\n"),
            ("Host without a port", b"CONNECT %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
            ("another Host", b"CONNECT %s HTTP/1.1\r\nHost: elsewhere.invalid:1\r\n\r\n"),
            ("no Host in HTTP/1.1", b"CONNECT %s HTTP/1.1\r\n\r\n"),
            ("Java", b"CONNECT %s HTTP/1.1\r\nUser-Agent: Java/17\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
                     b"Proxy-Connection: keep-alive\r\n\r\n"),
        ]
        for what, head in cases:
            with self.subTest(what):
                origin = self.origin(echo)
                client = self.client()
                client.send(head % origin.authority.encode())
                self.assertEqual(client.read_response_head().status, 200)
                client.send(b"\x01ping")
                self.assertEqual(client.read_exactly(5), b"\x01ping")

    def test_what_is_no_host_and_port_is_refused(self):
        port = self.origin(sink).port
        cases = ["127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:+80", "127.0.0.1:80x", ":80",
                 f"u@127.0.0.1:{port}", f"u:p@127.0.0.1:{port}", f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}/",
                 f"::1:{port}", f"[::1:{port}", f"[::1]{port}", "[::1]", f"[::g]:{port}", f"/127.0.0.1:{port}", "*", "/"]
        for target in cases:
            with self.subTest(target):
                client = self.client()
                client.send(f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assert_self_made(client.read_response(), 400, "http_request_error")
                client.expect_eof()
        client = self.client()
        client.send(f"connect 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n")
        self.assert_self_made(client.read_response(), 400)
        self.px.expect_metric(0, "tunnels")

    def test_an_ipv6_literal_in_every_spelling(self):
        if not has_ipv6():
            self.skipTest("NOT TESTED: no IPv6 on loopback")
        origin = self.origin(echo, host="::1")
        for host in ("[::1]", "[0:0:0:0:0:0:0:1]", "[0::0:01]"):
            with self.subTest(host):
                client = tunnel(self.client(), f"{host}:{origin.port}")
                client.send(b"\x01")
                self.assertEqual(client.read_exactly(1), b"\x01")

    def test_a_mapped_ipv4_address_is_reached(self):
        origin = self.origin(echo)
        client = tunnel(self.client(), f"[::ffff:127.0.0.1]:{origin.port}")
        client.send(b"\x01")
        self.assertEqual(client.read_exactly(1), b"\x01")

    def test_bytes_right_behind_the_head_arrive_once_and_in_order(self):
        for what, early in (("binary", b"\x16\x03\x01 and more"), ("a line of text", b"HELO me\r\n"),
                            ("part of a line", b"HEL"), ("large", b"\x00" + pattern(40_000))):
            with self.subTest(what):
                origin = self.origin(sink)
                client = tunnel(self.client(), origin.authority, behind=early)
                client.send(b"then this")
                client.half_close()
                origin.wait_ended()
                self.assertTrue(origin.received() == early + b"then this", origin.received()[:100])

    def test_a_server_that_speaks_first_is_heard_without_delay(self):
        origin = self.origin(greeting(b"220 mail.test ready\r\n"))
        times = []
        for _ in range(7):
            client = self.client()
            began = time.monotonic()
            tunnel(client, origin.authority)
            self.assertEqual(client.read_until(b"\n"), b"220 mail.test ready\r\n")
            times.append(time.monotonic() - began)
            client.send(b"QUIT\r\n")
            self.assertEqual(client.read_until(b"\n"), b"QUIT\r\n")
        self.assertLess(statistics.median(times), 0.1, "the greeting waits for the look at the client's bytes")

    def test_a_client_that_speaks_something_else_is_heard_without_delay(self):
        origin = self.origin(echo)
        for first in (b"\x00", b"EHLO me\r\n", b"\x16\x03\x01\x00\x05", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b" GET / HTTP/1.1\r\n"):
            with self.subTest(first):
                times = []
                for _ in range(5):
                    client = self.open(origin)
                    began = time.monotonic()
                    client.send(first)
                    self.assertEqual(client.read_exactly(len(first)), first)
                    times.append(time.monotonic() - began)
                self.assertLess(statistics.median(times), 0.1)

    def test_two_hundred_ms_of_silence_make_it_opaque(self):
        origin = self.origin(echo)
        client = self.open(origin)
        client.send(b"HEL")
        began = time.monotonic()
        self.assertEqual(client.read_exactly(3), b"HEL")
        self.assertGreater(time.monotonic() - began, 0.15)
        late = self.open(origin)
        time.sleep(0.5)
        line = b"GET / HTTP/1.1\r\n"  # too late to be looked at: and only half a head
        late.send(line)
        self.assertEqual(late.read_exactly(len(line)), line)

    # -- ends ------------------------------------------------------------------------

    def test_a_client_may_end_first_and_still_hear_the_answer(self):
        asked = pattern(700_000)

        def script(conn):
            got = conn.read_to_eof()
            conn.send(b"%d:" % len(got) + got[::-1])

        origin = self.origin(script)
        client = self.open(origin)
        client.send(b"\x00" + asked)
        client.half_close()
        self.assertTrue(client.read_to_eof() == b"%d:" % (len(asked) + 1) + asked[::-1] + b"\x00")

    def test_a_client_may_end_before_the_tunnel_stands(self):
        origin = self.origin(echo)
        self.names.behaviour["slow.test"] = 2.0
        client = self.client()
        client.send(f"CONNECT slow.test:{origin.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + b"\x01ping")
        client.half_close()
        self.assertEqual(client.read_response_head().status, 200)
        self.assertEqual(client.read_to_eof(), b"\x01ping")

    def test_a_server_may_end_first_and_still_hear_the_client(self):
        heard = []

        def script(conn):
            conn.send(pattern(700_000))
            conn.half_close()
            heard.append(conn.read_to_eof())

        origin = self.origin(script)
        client = self.open(origin)
        self.assertTrue(client.read_to_eof() == pattern(700_000))
        client.send(pattern(900_000))
        client.half_close()
        origin.wait_ended()
        self.assertTrue(heard == [pattern(900_000)])

    def test_everything_is_delivered_to_a_slow_reader_before_the_end(self):
        data = pattern(6_000_000)
        origin = self.origin(lambda conn: (conn.send(data), conn.close()))
        client = tunnel(self.client(rcvbuf=8192), origin.authority)
        time.sleep(0.5)
        self.assertTrue(client.read_to_eof() == data)

    def test_a_reset_ends_the_other_side_with_a_reset(self):
        def by_server(conn):
            conn.send(b"\x01" * 10)
            conn.expect(b"\x02")
            conn.reset()

        client = self.open(self.origin(by_server))
        client.read_exactly(10)
        client.send(b"\x02")
        client.expect_reset()

        seen = []

        def by_client(conn):
            conn.send(b"\x01")
            try:
                seen.append(conn.sock.recv(100))
            except ConnectionResetError:
                seen.append("reset")

        origin = self.origin(by_client)
        client = self.open(origin)
        client.read_exactly(1)
        client.reset()
        origin.wait_ended()
        self.assertEqual(seen, ["reset"])

    def test_a_reset_after_the_end_of_one_side_is_noticed_too(self):
        done = threading.Event()

        def script(conn):
            conn.read_to_eof()
            conn.wait(done)

        origin = self.origin(script)
        client = self.open(origin)
        client.send(b"\x01")
        client.half_close()
        wait_until(lambda: self.px.metric("tunnels") == 1, 5, "one tunnel")
        client.reset()
        self.px.wait_metric(lambda n: n == 0, "tunnels")
        done.set()

    def test_names_with_several_addresses_are_all_tried(self):
        origin = self.origin(echo)
        self.names.set("several.test", "127.0.0.9", "127.0.0.8", "127.0.0.1")
        client = tunnel(self.client(), f"several.test:{origin.port}")
        client.send(b"\x01")
        self.assertEqual(client.read_exactly(1), b"\x01")

    def test_failures_to_connect_open_no_tunnel_and_end_the_connection(self):
        free = self.origin(sink)
        free.stop()
        cases = [(f"127.0.0.1:{free.port}", 502, "connection_refused"), ("nobody.invalid:443", 502, "dns_error"),
                 ("169.254.1.1:80", 502, "destination_ip_prohibited")]
        for authority, status, error in cases:
            with self.subTest(authority):
                client = self.client().send(f"CONNECT {authority} HTTP/1.1\r\nHost: x\r\n\r\n")
                response = client.read_response()
                self.assert_self_made(response, status, error)
                self.assertEqual(response.head.tokens("connection"), ["close"])
                client.expect_eof()

    # -- pressure --------------------------------------------------------------------

    def test_each_direction_flows_while_the_other_is_blocked(self):
        got = []

        def script(conn):
            flood = threading.Thread(target=conn.send, args=(pattern(30_000_000),), daemon=True)
            flood.start()
            got.append(len(conn.read_exactly(2_000_000)))
            conn.origin.heard.set()
            flood.join(20)

        origin = self.origin(script)
        origin.heard = threading.Event()
        client = self.open(origin)
        client.send(b"\x00" + pattern(1_999_999))  # and it reads nothing
        self.assertTrue(origin.heard.wait(10), "the client's bytes are stuck behind the server's")
        self.assertEqual(len(client.read_exactly(30_000_000)), 30_000_000)

    def test_a_reader_that_stops_stops_the_writer(self):
        sent = [0]

        def script(conn):
            conn.sock.settimeout(None)
            block = pattern(1 << 16)
            while True:
                sent[0] += conn.sock.send(block)

        origin = self.origin(script)
        client = tunnel(self.client(rcvbuf=16384), origin.authority)
        stopped = [-1]

        def stands():
            last, stopped[0] = stopped[0], sent[0]
            time.sleep(0.3)
            return last == sent[0] > 0

        wait_until(stands, 20, "the writer to be stopped")
        self.assertLess(sent[0], 64 << 20)
        self.px.wait_metric(lambda n: n < 256 * 1024, "buffered_bytes")
        client.close()

    def test_an_idle_tunnel_that_has_worked_holds_no_buffer(self):
        origin = self.origin(echo)
        client = self.open(origin)
        for size in (10, 200_000, 5):
            client.send(b"\x00" * size)
            client.read_exactly(size)
        self.px.wait_metric(lambda n: n == 0, "buffered_bytes")


class GateTest(Case):
    def setUp(self):
        super().setUp()
        self.cp = self.control({"pay": "open", "api": "closed", "probe": "closed"})
        self.names = self.dns()
        routes = [
            {"name": "pay", "match": {"hosts": ["pay.test"]}, "breakers": ["pay"], "router": "rtr"},
            {"name": "paths", "match": {"hosts": ["paths.test"], "paths": ["/x"]}, "breakers": ["pay"], "router": "rtr"},
            {"name": "probe", "match": {"hosts": ["probe.test"]}, "breakers": ["probe"], "router": "rtr"},
            {"name": "api", "breakers": ["api"], "router": "rtr"},
        ]
        self.px = self.proxy({"routes": routes, "workers": 2, "limits": {"tunnels": 3}}, self.cp, dns=self.names,
                             warnings=["a tunnel (HTTPS) never matches"])

    def test_an_open_breaker_refuses_before_any_dns_or_connect(self):
        origin = self.origin(echo)
        client = self.client()
        for version in ("HTTP/1.1", "HTTP/1.1", "HTTP/1.0"):
            client.send(f"CONNECT pay.test:{origin.port} {version}\r\n" + ("" if version == "HTTP/1.0" else "Host: x\r\n") + "\r\n")
            response = client.read_response()
            self.assert_self_made(response, 503, "destination_unavailable")
            self.assertEqual(response.reason, "Circuit breaker open: pay")
            self.assertEqual(response.get("x-tripswitch-breaker"), "pay")
            self.assertEqual(response.get("x-tripswitch-state"), "open")
        client.expect_eof("a close after HTTP/1.0")
        self.assertEqual(self.names.asked("pay.test"), 0)
        self.assertEqual(len(origin.connections), 0)
        self.px.expect_metric(0, "attempts_started_total")
        self.px.expect_metric(3, "requests_total", mode="connect", outcome="rejected")

    def test_what_follows_a_refused_connect_never_reaches_anybody(self):
        origin = self.origin(echo)
        client = self.client()
        head = connect(client, f"pay.test:{origin.port}", behind=client_hello())
        self.assertEqual(head.status, 503)
        client.read_exactly(head.content_length())
        client.expect_eof()
        self.assertEqual(len(origin.connections), 0)

    def test_the_breaker_is_asked_for_each_tunnel_and_half_open_admits_none_at_rate_zero(self):
        origin = self.origin(echo)
        for state, rate, want in (("closed", None, 200), ("open", None, 503), ("half_open", 0, 503), ("half_open", 1, 200)):
            with self.subTest(state, rate=rate):
                self.cp.set("probe", state, rate)
                self.px.wait_breaker("probe", state)
                wait_until(lambda: rate is None or self.px.metric("breaker_allow_ratio", breaker="probe") == rate, 5)
                self.assertEqual(connect(self.client(), f"probe.test:{origin.port}").status, want)

    def test_a_route_with_paths_never_matches_a_tunnel(self):
        origin = self.origin(echo)
        tunnel(self.client(), f"paths.test:{origin.port}")

    def test_past_limits_tunnels_a_connect_gets_a_503_and_is_counted(self):
        origin = self.origin(echo)
        kept = [tunnel(self.client(), origin.authority) for _ in range(3)]
        client = self.client()
        client.send(f"CONNECT {origin.authority} HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assert_self_made(client.read_response(), 503, "connection_limit_reached")
        self.px.expect_metric(1, "limit_rejections_total", limit="tunnels")
        self.px.expect_metric(3, "tunnels")
        refused = self.client()
        refused.send(f"CONNECT pay.test:{origin.port} HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(refused.read_response().reason, "Circuit breaker open: pay", "the gate comes first")
        kept[0].close()
        self.px.wait_metric(lambda n: n == 2, "tunnels")
        tunnel(self.client(), origin.authority)

    def test_a_connect_that_still_connects_has_its_place_already(self):
        origin = self.origin(echo)
        for name in ("mute1.test", "mute2.test"):
            self.names.behaviour[name] = "silent"
        waiting = [self.client() for _ in range(2)]
        for i, client in enumerate(waiting):
            client.send(f"CONNECT mute{i + 1}.test:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        self.px.wait_metric(lambda n: n == 2, "attempts_in_flight")
        kept = tunnel(self.client(), origin.authority)
        refused = self.client()
        refused.send(f"CONNECT {origin.authority} HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assert_self_made(refused.read_response(), 503, "connection_limit_reached")
        self.px.expect_metric(1, "tunnels")
        for client in waiting:  # each way to end gives the place back
            client.close()
        self.px.wait_metric(lambda n: n == 1, "attempts_in_flight")
        gone = self.origin(sink)
        gone.stop()
        for _ in range(4):
            self.assertEqual(connect(self.client(), gone.authority).status, 502)
            self.assertEqual(connect(self.client(), f"pay.test:{origin.port}").status, 503)
        more = [tunnel(self.client(), origin.authority) for _ in range(2)]
        self.assertEqual(connect(self.client(), origin.authority).status, 503)
        for client in (kept, *more):
            client.close()
        self.px.wait_metric(lambda n: n == 0, "tunnels")
        self.px.expect_metric(2, "limit_rejections_total", limit="tunnels")


class PortsTest(Case):
    def test_connect_ports_decide_before_the_gate(self):
        origin, other = self.origin(echo), self.origin(echo)
        control = self.control({"b": "closed"})
        px = self.proxy({"access": {"connect_ports": ["443", f"{origin.port}-{origin.port}"]}}, control)
        tunnel(self.client(px), origin.authority)
        client = self.client(px)
        for port in (other.port, 442, 444, 22):
            client = self.client(px)
            client.send(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assert_self_made(client.read_response(), 403, "http_request_denied", msg=f"port {port}")
            client.expect_eof()
        self.assertEqual(len(other.connections), 0)
        px.expect_metric(1, "attempts_started_total")


class JudgeTest(SharedCase):
    """Each test looks at the counters of its own outcome; the samples carry the tier as a tag."""

    config = {"routes": [
        {"name": "hasty", "match": {"hosts": ["hasty.test"]}, "breakers": ["b"], "router": "rtr",
         "tags": {"tier": "{tier}", "outcome": "{outcome}", "host": "{host}"},
         "failure": {"no_response_after": "300ms"}},
        {"name": "patient", "match": {"hosts": ["patient.test"]}, "breakers": ["b"], "router": "rtr",
         "tags": {"tier": "{tier}", "outcome": "{outcome}", "host": "{host}"}, "failure": {"client_abort_after": "1s"}},
        {"name": "idle", "match": {"hosts": ["idle.test"]}, "breakers": ["b"], "router": "rtr",
         "timeouts": {"tunnel_idle": "400ms"}},
        {"name": "all", "breakers": ["b"], "router": "rtr",
         "metrics": {"latency": "latency", "connect": "connect"},
         "tags": {"tier": "{tier}", "outcome": "{outcome}", "host": "{host}", "status": "{status}"}},
    ]}

    def judged(self, outcome, n=1):
        """A function that waits until n more attempts ended like this, and none otherwise."""
        before = self.px.metrics().by("attempts_total", "outcome")

        def changes():
            after = self.px.metrics().by("attempts_total", "outcome")
            return {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)}

        return lambda: wait_until(lambda: changes() == {outcome: n}, 5, lambda: f"{n} {outcome}, there are {changes()}")

    def sample(self, origin, host, outcome, ok):
        """The one sample about this host, which must say so."""
        label = f"{host}:{origin.port}"
        found = self.cp.wait_samples(1, where=lambda s: s["metric"] == "latency" and s["tags"]["host"] == label)
        self.assertEqual([(s["ok"], s["tags"]["tier"], s["tags"]["outcome"]) for s in found], [(ok, "opaque", outcome)])
        return found[0]

    def open(self, origin, host, **kw):
        return tunnel(self.client(), f"{host}:{origin.port}", **kw)

    def test_success_at_the_first_upstream_byte_while_the_tunnel_stays(self):
        judged, origin = self.judged("success"), self.origin(echo)
        client = self.open(origin, "first.test")
        self.px.expect_metric(1, "attempts_in_flight")
        client.send(b"\x01")
        client.read_exactly(1)
        judged()
        self.px.expect_metric(0, "attempts_in_flight")
        self.px.expect_metric(1, "tunnels")
        self.sample(origin, "first.test", "success", True)
        client.send(b"\x02" * 100)
        client.read_exactly(100)
        client.reset()  # changes nothing any more
        self.px.wait_metric(lambda n: n == 0, "tunnels")
        judged()

    def test_a_greeting_is_a_first_byte(self):
        judged, origin = self.judged("success"), self.origin(greeting(b"hello"))
        self.open(origin, "greets.test").read_exactly(5)
        judged()
        self.sample(origin, "greets.test", "success", True)

    def test_latency_counts_from_the_clients_first_byte(self):
        def late(conn):
            first = conn.read_exactly(1)
            time.sleep(0.3)
            conn.send(first)
            conn.wait_for_end()

        origin = self.origin(late)
        client = self.open(origin, "late.test")
        time.sleep(0.6)
        client.send(b"\x01")
        client.read_exactly(1)
        value = self.sample(origin, "late.test", "success", True)["value"]
        self.assertGreaterEqual(value, 299)
        self.assertLess(value, 550, "the client's own pause is not the upstream's")

    def test_a_reset_or_an_end_before_any_byte_is_a_reset(self):
        def reset_at_once(conn):
            conn.read_exactly(1)
            conn.reset()

        def end_at_once(conn):
            conn.read_exactly(1)

        for host, script in (("reset.test", reset_at_once), ("ended.test", end_at_once)):
            with self.subTest(host):
                judged, origin = self.judged("reset"), self.origin(script)
                client = self.open(origin, host)
                client.try_send(b"\x01")
                client.expect_eof()
                client.close()
                judged()
                self.sample(origin, host, "reset", False)

    def test_a_server_that_hangs_up_at_once_is_a_reset_although_the_client_was_silent(self):
        judged, origin = self.judged("reset"), self.origin(lambda conn: None)
        self.open(origin, "hangs-up.test").expect_eof()
        judged()

    def test_failures_before_the_tunnel_are_judged_as_opaque_too(self):
        gone = self.origin(sink)
        gone.stop()
        judged = self.judged("connect")
        self.assertEqual(connect(self.client(), f"refused.test:{gone.port}").status, 502)
        judged()
        self.sample(gone, "refused.test", "connect", False)
        judged = self.judged("dns")
        self.assertEqual(connect(self.client(), f"nobody.invalid:{gone.port}").status, 502)
        judged()
        self.sample(gone, "nobody.invalid", "dns", False)

    def test_a_tls_alert_instead_of_a_server_hello_is_a_tls_failure(self):
        def alert(conn):
            conn.read_some()
            conn.send(ALERT_HANDSHAKE_FAILURE)
            conn.wait_for_end()

        judged, origin = self.judged("tls"), self.origin(alert)
        client = self.open(origin, "alert.test")
        client.send(client_hello())
        self.assertEqual(client.read_exactly(7), ALERT_HANDSHAKE_FAILURE, "relayed all the same")
        judged()
        self.sample(origin, "alert.test", "tls", False)

    def alerting(self, *parts, end=sink):
        """An origin that reads a whole ClientHello, sends the parts as the client takes them, and ends so."""
        taken = threading.Semaphore(0)

        def script(conn):
            conn.read_exactly(len(client_hello()))
            for i, part in enumerate(parts):
                if i:
                    taken.acquire(timeout=10)
                conn.send(part)
            taken.acquire(timeout=10)
            end(conn)

        return self.origin(script), taken

    def hear(self, client, taken, *parts):
        for part in parts:
            self.assertEqual(client.read_exactly(len(part)), part, "passed on at once")
            taken.release()

    def test_an_alert_in_pieces_is_a_tls_failure_and_passes_by_without_delay(self):
        for cut in range(1, 7):
            with self.subTest(cut):
                parts = ALERT_HANDSHAKE_FAILURE[:cut], ALERT_HANDSHAKE_FAILURE[cut:]
                judged = self.judged("tls")
                origin, taken = self.alerting(*parts)
                client = self.open(origin, f"pieces-{cut}.test").send(client_hello())
                self.hear(client, taken, *parts)
                judged()
                self.sample(origin, f"pieces-{cut}.test", "tls", False)
        parts = [bytes([b]) for b in ALERT_HANDSHAKE_FAILURE]
        judged = self.judged("tls")
        origin, taken = self.alerting(*parts)
        client = self.open(origin, "bytes.test").send(client_hello())
        self.hear(client, taken, *parts)
        judged()

    def test_a_client_hello_in_pieces_is_one(self):
        hello = client_hello()
        for cut in (1, 2, 5, 6, 50):
            with self.subTest(cut):
                judged = self.judged("tls")
                origin, _ = self.alerting(ALERT_HANDSHAKE_FAILURE)
                client = self.open(origin, "begun.test").send(hello[:cut])
                wait_until(lambda: origin.connections and origin.received() == hello[:cut], 5, "the first piece")
                client.send(hello[cut:])
                client.read_exactly(7)
                judged()

    def test_what_begins_like_an_alert_and_goes_on_otherwise_is_a_success(self):
        for parts in ((b"\x15", b"EHLO"), (b"\x15\x03", b"\x03\x00\x13\x02\x28"), (b"\x15\x03\x03\x00\x02", b"\x03\x00")):
            with self.subTest(parts):
                judged = self.judged("success")
                origin, taken = self.alerting(*parts)
                client = self.open(origin, "begins.test").send(client_hello())
                self.assertEqual(client.read_exactly(len(parts[0])), parts[0])
                self.px.expect_metric(1, "attempts_in_flight", why="not yet known")
                time.sleep(0.6)
                taken.release()
                self.hear(client, taken, *parts[1:])
                judged()
                value = self.sample(origin, "begins.test", "success", True)["value"]
                self.assertLess(value, 550, "latency is that of the first byte")

    def test_an_alert_that_is_never_completed_is_a_tls_failure(self):
        for what, end in (("FIN", lambda conn: None), ("RST", lambda conn: conn.reset()), ("silence", sink)):
            with self.subTest(what):
                judged = self.judged("tls")
                origin, taken = self.alerting(b"\x15\x03\x03", end=end)
                client = self.open(origin, f"half-{what.lower()}.test").send(client_hello())
                self.hear(client, taken, b"\x15\x03\x03")
                judged()
                self.sample(origin, f"half-{what.lower()}.test", "tls", False)
        judged = self.judged("tls")
        origin, taken = self.alerting(b"\x15")
        client = self.open(origin, "half-left.test").send(client_hello())
        client.read_exactly(1)
        client.close()
        judged()

    def test_a_reset_after_the_clients_end_is_a_reset_and_an_end_is_not(self):
        def reset(conn):
            conn.read_to_eof()
            conn.reset()

        for host, script, outcome in (("broke.test", reset, "reset"), ("followed.test", sink, "client_abort")):
            with self.subTest(host):
                judged, origin = self.judged(outcome), self.origin(script)
                client = self.open(origin, host).send(b"\x01")
                client.half_close()
                client.expect_eof() if outcome == "client_abort" else client.expect_reset()
                judged()
                if outcome == "reset":
                    self.sample(origin, host, "reset", False)

    def test_metrics_tell_a_tunnels_bytes_from_http(self):
        origin = self.origin(echo)
        opaque = self.delta("attempts_total", tier="opaque", outcome="success")
        http = self.delta("attempts_total", tier="http")
        tunnels = self.delta("tunnels_total")
        client = self.open(origin, "tiers.test").send(b"\x01")
        client.read_exactly(1)
        self.assertEqual((opaque(), http()), (1, 0))
        self.assertEqual((self.px.metric("client_connections", mode="connect"),
                          self.px.metric("requests_in_flight", mode="connect")), (1, 1))
        client.close()
        wait_until(lambda: tunnels() == 1, 5, "one tunnel counted")
        self.assert_relayed(self.get(self.http_origin().url + "/", proxy=self.px), 200, b"ok")
        wait_until(lambda: http() == 1, 5, "one HTTP attempt")
        self.assertEqual((opaque(), tunnels()), (1, 1))
        self.assertEqual((self.px.metric("client_connections", mode="connect"),
                          self.px.metric("requests_in_flight", mode="connect")), (0, 0))

    def test_the_same_bytes_without_a_client_hello_are_no_alert(self):
        judged, origin = self.judged("success"), self.origin(greeting(ALERT_HANDSHAKE_FAILURE))
        self.open(origin, "no-alert.test").read_exactly(7)
        judged()

    def test_a_warning_alert_is_judged_by_what_follows_it(self):
        hello = bytes.fromhex("160303007a020000")
        cases = [
            ("hello", [hello], sink, "success"),
            ("hello-end", [hello], None, "success"),
            ("warning-hello", [WARNING + hello], sink, "success"),
            ("warning-pause-hello", [WARNING, hello], sink, "success"),
            ("warning-silence", [WARNING], sink, "success"),
            ("warning-end", [WARNING], None, "tls"),
            ("warning-reset", [WARNING], lambda conn: conn.reset(), "tls"),
            ("warning-fatal", [WARNING + ALERT_HANDSHAKE_FAILURE], sink, "tls"),
            ("warning-pause-fatal", [WARNING, ALERT_HANDSHAKE_FAILURE], sink, "tls"),
            ("warning-part-end", [WARNING + WARNING[:3]], None, "tls"),
            ("close-notify-end", [CLOSE_NOTIFY], None, "tls"),
            ("close-notify", [CLOSE_NOTIFY], sink, "tls"),
        ]
        for name, parts, end, outcome in cases:
            with self.subTest(name):
                judged = self.judged(outcome)
                origin, taken = self.alerting(*parts, end=end or (lambda conn: None))
                client = self.open(origin, f"{name}.test").send(client_hello())
                self.hear(client, taken, *parts)
                judged()
                self.sample(origin, f"{name}.test", outcome, outcome == "success")
        judged = self.judged("tls")
        origin, _ = self.alerting(WARNING)
        client = self.open(origin, "warned-and-left.test").send(client_hello())
        client.read_exactly(len(WARNING))
        client.reset()
        judged()

    def test_silence_after_the_clients_bytes_is_no_response_and_cuts_nothing(self):
        go = threading.Event()

        def script(conn):
            conn.read_exactly(1)
            conn.wait(go)
            conn.send(b"late")
            conn.wait_for_end()

        judged, origin = self.judged("no_response"), self.origin(script)
        late = self.delta("late_answers_total")
        client = self.open(origin, "hasty.test")
        stays(lambda: self.px.metric("attempts_in_flight") == 1, 0.7, "an attempt that owes nothing yet")
        client.send(b"\x01")
        judged()
        self.sample(origin, "hasty.test", "no_response", False)
        go.set()
        self.assertEqual(client.read_exactly(4), b"late")
        wait_until(lambda: late() == 1, 5, "the late answer to be counted")

    def test_a_client_that_leaves_early_is_neutral_and_one_that_waited_blames_the_upstream(self):
        cases = [
            ("nothing was sent, FIN", "idle-a.test", b"", 0, "close"),
            ("nothing was sent, RST", "idle-b.test", b"", 0.3, "reset"),
            ("asked, left at once, FIN", "patient.test", b"\x01", 0, "close"),
            ("asked, left at once, RST", "patient.test", b"\x01", 0, "reset"),
            ("asked, waited, FIN", "patient.test", b"\x01", 1.05, "close"),
            ("asked, waited, RST", "patient.test", b"\x01", 1.05, "reset"),
        ]
        for what, host, first, wait, how in cases:
            with self.subTest(what):
                origin = self.origin(sink)
                judged = self.judged("client_abort")
                recorded = self.delta("samples_recorded_total")
                client = self.open(origin, host)
                if first:
                    client.send(first)
                    origin.wait_connections(1)
                    wait_until(lambda: origin.received(), 5, "the byte at the origin")
                time.sleep(wait)
                client.reset() if how == "reset" else client.close()
                judged()
                if host == "patient.test" and wait:
                    self.sample(origin, host, "client_abort", False)
                else:
                    self.assertEqual(recorded(), 0)

    def test_tunnel_idle_cuts_a_quiet_tunnel_and_leaves_a_slow_one(self):
        origin = self.origin(echo)
        client = self.open(origin, "idle.test")
        for _ in range(8):
            time.sleep(0.15)
            client.send(b"\x01")
            client.read_exactly(1)
        began = time.monotonic()
        client.expect_eof()
        self.assertGreater(time.monotonic() - began, 0.3)
        origin.wait_ended()

    def test_tunnel_idle_blames_only_an_upstream_that_was_asked(self):
        judged, origin = self.judged("local"), self.origin(sink)
        self.open(origin, "idle.test").expect_eof()
        judged()
        judged = self.judged("timeout")
        client = self.open(origin, "idle.test")
        client.send(b"\x01")
        client.expect_eof()
        judged()


class TierTest(Case):
    def test_samples_and_access_log_say_that_a_tunnel_is_opaque_without_being_asked(self):
        control, origin = self.control(), self.origin(echo)
        proxy = self.proxy({"access_log": {"mode": "all"}, "routes": [
            {"name": "own", "match": {"hosts": ["localhost"]}, "breakers": ["b"], "router": "rtr", "tags": {"tier": "gold"}},
            {"name": "all", "breakers": ["b"], "router": "rtr"}]}, control)
        for i, (authority, tier) in enumerate([(origin.authority, "opaque"), (f"localhost:{origin.port}", "gold")]):
            client = tunnel(self.client(proxy), authority).send(b"\x01")
            client.read_exactly(1)
            self.assertEqual(control.wait_samples(i + 1)[i]["tags"], {"tier": tier})
            client.close()
            wait_until(lambda n=i: len(proxy.access_log()) == n + 1, 5, "the access line")
        self.assertEqual([line["tier"] for line in proxy.access_log()], ["opaque", "opaque"])
        web = self.http_origin()
        self.assert_relayed(self.get(web.url + "/"), 200)
        self.assertNotIn("tags", control.wait_samples(3)[2])
        wait_until(lambda: len(proxy.access_log()) == 3, 5, "the access line")
        self.assertNotIn("tier", proxy.access_log()[2])


class OpenBreakerTest(Case):
    def setUp(self):
        super().setUp()
        self.cp = self.control({"b": "closed"})

        def route(rule):
            return {"name": rule, "match": {"hosts": [rule.replace("_", "-") + ".test"]}, "breakers": ["b"],
                    "router": "rtr", "tunnels_on_open": rule}

        self._names = self.dns()
        self.px = self.proxy({"routes": [route(r) for r in ("keep", "close_idle", "close")], "workers": 2}, self.cp,
                             dns=self._names)
        self.origin_ = self.origin(self.serve)

    @staticmethod
    def serve(conn):
        """A WebSocket if that is asked for, then an echo."""
        conn.sock.settimeout(None)
        data = conn.sock.recv(65536)
        if data.startswith(b"GET "):
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        else:
            conn.send(data)
        echo(conn)

    def open(self, host, upgraded):
        client = self.client()
        if upgraded:
            client.send(f"GET http://{host}:{self.origin_.port}/ HTTP/1.1\r\nHost: {host}:{self.origin_.port}\r\n"
                        "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            self.assertEqual(client.read_response_head().status, 101)
        else:
            tunnel(client, f"{host}:{self.origin_.port}")
        self.exchange(client)
        return client

    @staticmethod
    def exchange(client):
        client.send(b"\x01ping")
        if client.read_exactly(5) != b"\x01ping":
            raise AssertionError("no echo")

    def test_open_tunnels_obey_tunnels_on_open(self):
        for upgraded in (False, True):
            with self.subTest(upgraded=upgraded):
                closed = self.px.metric("tunnels_closed_on_open_total")
                keep, idle, busy, close = (self.open(h, upgraded) for h in ("keep.test", "close-idle.test",
                                                                            "close-idle.test", "close.test"))
                time.sleep(1.3)  # idle for longer than it takes: only an open breaker closes
                for client in (keep, idle, busy, close):
                    self.exchange(client)
                stop = threading.Event()
                errors = []

                def work():
                    try:
                        while not stop.wait(0.05):
                            self.exchange(busy)
                    except (AssertionError, OSError, Ended) as e:
                        errors.append(e)

                worker = threading.Thread(target=work)
                worker.start()
                try:
                    self.cp.set("b", "open")
                    close.expect_eof()
                    idle.expect_eof()
                    self.exchange(keep)
                    self.assertEqual(errors, [], "a busy tunnel is left alone by close_idle")
                finally:
                    stop.set()
                    worker.join()
                busy.expect_eof()
                self.exchange(keep)
                self.px.expect_metric(closed + 3, "tunnels_closed_on_open_total")
                self.cp.set("b", "closed")
                self.px.wait_breaker("b", "closed")
                self.exchange(keep)
                keep.close()
                self.px.wait_metric(lambda n: n == 0, "tunnels")

    def test_an_opening_breaker_closes_tunnels_at_once_and_is_counted_by_route(self):
        for upgraded in (False, True):
            times = []
            for _ in range(6):
                client = self.open("close.test", upgraded)
                began = time.monotonic()
                self.cp.set("b", "open")
                client.expect_eof()
                times.append(time.monotonic() - began)
                self.cp.set("b", "closed")
                self.px.wait_breaker("b", "closed")
            self.assertLess(max(times), 0.3 * slowdown(), f"upgraded {upgraded}: nobody waits for a tick")
        by_route = self.px.metrics().by("tunnels_closed_on_open_total", "route")
        self.assertEqual({k: v for k, v in by_route.items() if v}, {"close": 12})

    def test_a_tunnel_that_falls_idle_while_the_breaker_is_open_goes_then(self):
        client = self.open("close-idle.test", False)
        self.cp.set("b", "open")
        self.px.wait_breaker("b", "open")
        for _ in range(8):
            time.sleep(0.3)
            self.exchange(client)
        began = time.monotonic()
        client.expect_eof()
        self.assertGreater(time.monotonic() - began, 0.9)

    def test_a_tunnel_whose_breaker_opened_while_it_connected_goes_too(self):
        names = self._names
        names.behaviour["close.test"] = "silent"
        client = self.client()
        client.send(f"CONNECT close.test:{self.origin_.port} HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: names.asked("close.test"), 5, "the question")
        self.cp.set("b", "open")
        self.px.wait_breaker("b", "open")
        del names.behaviour["close.test"]  # the resolver asks again
        self.assertEqual(client.read_response_head().status, 200)
        client.expect_eof()
        self.px.expect_metric(1, "tunnels_closed_on_open_total", route="close")

    def test_a_tunnel_that_heard_nothing_yet_ends_neutral(self):
        tunnel(self.client(), f"close.test:{self.origin_.port}")
        self.cp.set("b", "open")
        self.px.wait_metric(lambda n: n == 1, "attempts_total", outcome="local")
        self.px.expect_metric(0, "samples_recorded_total")

    def test_half_open_and_stale_close_nothing(self):
        client = self.open("close.test", False)
        self.cp.set("b", "half_open", 0)
        self.px.wait_breaker("b", "half_open")
        time.sleep(2.2)
        self.exchange(client)


class StandingTunnelTest(Case):
    """What holds for a tunnel is the configuration of now, not the one it was opened under."""

    def start(self, breakers, **route):
        self.cp = self.control(breakers)
        self.px = self.proxy(self.config(**route), self.cp)
        self.origin_ = self.origin(echo)

    @staticmethod
    def config(name="a", bypass=(), **route):
        return {"bypass": list(bypass), "routes": [{"name": name, "breakers": ["b"], "router": "rtr", **route}]}

    def open(self):
        return self.exchange(tunnel(self.client(), self.origin_.authority))

    @staticmethod
    def exchange(client):
        client.send(b"\x01ping")
        if client.read_exactly(5) != b"\x01ping":
            raise AssertionError("no echo")
        return client

    def reload(self, **route):
        self.px.write_config({**self.px.config, **self.config(**route)})
        self.px.reload()
        self.px.expect_metric(0, "config_reloads_total", result="error")

    def state(self, name, state):
        self.cp.set(name, state)
        self.px.wait_breaker(name, state)

    def stays(self, client):
        for _ in range(5):
            time.sleep(0.3)
            self.exchange(client)

    def test_a_reload_may_spare_tunnels(self):
        cases = [{"tunnels_on_open": "keep"}, {"mode": "off", "tunnels_on_open": "close"},
                 {"mode": "shadow", "tunnels_on_open": "close"}, {"bypass": ["127.0.0.1"], "match": {"hosts": ["*"]}},
                 {"breakers": ["other"], "tunnels_on_open": "close"}]
        self.start({"b": "closed", "other": "closed"}, tunnels_on_open="close")
        for case in cases:
            with self.subTest(case):
                self.reload(tunnels_on_open="close")
                client = self.open()
                self.reload(**{"tunnels_on_open": "close", **case})
                self.state("b", "open")
                self.stays(client)
                client.close()
                self.state("b", "closed")
        self.px.expect_metric(0, "tunnels_closed_on_open_total")

    def test_a_reload_may_condemn_tunnels(self):
        before = [{"tunnels_on_open": "keep"}, {"mode": "off"}, {"mode": "shadow"}, {"bypass": ["127.0.0.1"]},
                  {"breakers": ["other"]}]
        self.start({"b": "closed", "other": "closed"})
        for case in before:
            for opens_first in (False, True):
                with self.subTest(case, opens_first=opens_first):
                    self.reload(**{"tunnels_on_open": "close", **case})
                    client = self.open()
                    if opens_first:
                        self.state("b", "open")
                        self.exchange(client)
                        self.reload(tunnels_on_open="close")
                    else:
                        self.reload(tunnels_on_open="close")
                        self.exchange(client)
                        self.cp.set("b", "open")
                    client.expect_eof()
                    self.state("b", "closed")
        by_route = self.px.metrics().by("tunnels_closed_on_open_total", "route")
        self.assertEqual({k: v for k, v in by_route.items() if v}, {"a": 2 * len(before)})

    def test_a_route_that_is_gone_holds_for_its_tunnels_as_it_was(self):
        self.start({"b": "closed"}, tunnels_on_open="close")
        client = self.open()
        self.reload(name="another", tunnels_on_open="keep")
        self.exchange(client)
        self.cp.set("b", "open")
        client.expect_eof()
        self.reload()  # the books are kept by the routes of the file

    def test_the_configurations_that_standing_tunnels_keep_are_counted(self):
        self.start({"b": "closed"})
        self.px.expect_metric(1, "config_snapshots")
        clients = []
        for n in (2, 3):
            clients.append(self.open())
            self.reload(tunnels_on_open="keep")
            self.px.expect_metric(n, "config_snapshots")
        for n in (2, 1):
            clients.pop().close()
            self.px.expect_metric(n, "config_snapshots")

    def test_a_client_that_is_silent_is_asked_for_by_tcp_keepalive(self):
        self.start({"b": "closed"})
        for interval, seconds in ((None, 60), ("7s", 7), ("off", None)):
            with self.subTest(interval):
                if interval:
                    self.px.write_config({**self.px.config, "timeouts": {"keepalive": interval}})
                    self.px.reload()
                client = self.open()
                wait_until(lambda c=client: keepalive_seconds(c) is None if seconds is None
                           else seconds - 3 < (keepalive_seconds(c) or 0) <= seconds, 5,
                           lambda c=client: f"{seconds} s to the next probe: {keepalive_seconds(c)}")

    def test_a_list_of_breakers_that_comes_later_or_changes_holds_for_standing_tunnels(self):
        self.cp = self.control({"b": "open", "x": "closed"})
        self.cp.metadata = {"b": {"region": "x"}}
        self.cp.list_fault = 500
        config = self.config(breakers={"metadata": {"region": "x"}}, tunnels_on_open="close")
        self.px = self.proxy({**config, "control": {"metadata_interval": "1s"}}, self.cp, warnings=True)
        self.origin_ = self.origin(echo)
        client = self.open()
        self.cp.list_fault = None
        client.expect_eof("the breaker that the list names is open")
        self.state("b", "closed")
        self.state("x", "open")
        client = self.open()
        self.cp.metadata = {**self.cp.metadata, "x": {"region": "x"}}
        client.expect_eof("so is the one that has joined it")


class InnerHttpTest(SharedCase):
    """Plain HTTP inside a CONNECT is as explicit HTTP."""

    breakers = {"b": "closed", "off": "open"}
    config = {"routes": [
        {"name": "off", "match": {"hosts": ["off.test"]}, "breakers": ["off"], "router": "rtr", "mode": "off"},
        {"name": "free", "match": {"hosts": ["free.test"]}, "breakers": ["b"]},
        {"name": "timed", "match": {"hosts": ["timed.test"]}, "breakers": ["b"], "router": "rtr",
         "metrics": {"latency": "latency", "connect": "connect"}, "tags": {"host": "{host}"}},
        {"name": "charge", "match": {"hosts": ["pay.test"], "ports": ["1024-65535"], "paths": ["/v1/*"]}, "breakers": ["off"]},
        {"name": "all", "breakers": ["b"], "router": "rtr",
         "tags": {"tier": "{tier}", "status": "{status}", "host": "{host}"}},
    ]}

    def tearDown(self):
        self.cp.set("b", "closed")
        self.px.wait_breaker("b", "closed")

    def inner(self, client, path, *lines, method="GET", host="x.test", body=b"", version="HTTP/1.1"):
        head = [f"{method} {path} {version}", f"Host: {host}", *lines]
        if body:
            head.append(f"Content-Length: {len(body)}")
        return client.request("\r\n".join(head).encode() + b"\r\n\r\n" + body, method)

    def test_the_verdict_on_a_connect_covers_only_requests_of_its_own_route(self):
        origin = self.http_origin()
        client = tunnel(self.client(), f"pay.test:{origin.port}")
        self.assert_self_made(self.inner(client, "/v1/a", host="pay.test"), 503)
        self.assert_relayed(self.inner(client, "/other", host="pay.test"), 200)
        self.assertEqual(origin.hits, 1)

    def test_http_behind_a_refused_connect_is_no_request_of_its_own(self):
        origin = self.http_origin()
        self.cp.set("b", "open")
        self.px.wait_breaker("b", "open")
        client = self.client().send(f"CONNECT x.test:{origin.port} HTTP/1.1\r\n\r\n"
                                    f"GET http://free.test:{origin.port}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        self.assert_self_made(client.read_response(), 503)
        client.expect_eof()
        self.assertEqual(origin.hits, 0)

    def test_requests_are_relayed_on_kept_connections_and_sampled_one_by_one(self):
        origin = self.http_origin()
        detected, tunnels = self.delta("connect_plaintext_http_total"), self.delta("tunnels_total")
        opaque, http = (self.delta("attempts_total", tier=t) for t in ("opaque", "http"))
        authority = f"kept.test:{origin.port}"
        client = tunnel(self.client(), authority)
        for i, (path, status) in enumerate((("/bytes/3", 200), ("/status/404", 404), ("/status/500", 500), ("/dump", 200))):
            self.assertEqual(self.inner(client, path, host="any.host").status, status, path)
        self.assert_relayed(self.inner(client, "/echo", method="POST", body=b"inner"), 200, b"inner")
        self.assertEqual(len(origin.connections), 1)
        self.assertEqual(detected(), 1)
        found = self.cp.wait_samples(5, where=lambda s: s.get("tags", {}).get("host") == authority)
        self.assertEqual([(s["ok"], s["tags"]["status"]) for s in found],
                         [(True, "200"), (True, "404"), (False, "500"), (True, "200"), (True, "200")])
        self.assertEqual({s["tags"]["tier"] for s in found}, {"http"})
        self.px.expect_metric(0, "tunnels", why="it is a tunnel no longer")
        self.assertEqual((tunnels(), opaque(), http()), (0, 0, 6), "nor was it one; its CONNECT's attempt is neutral")
        self.px.expect_metric(1, "client_connections", mode="connect")

    def test_the_first_request_tells_how_long_the_connect_took(self):
        origin = self.http_origin()
        client = tunnel(self.client(), f"timed.test:{origin.port}")
        for n, metrics in ((1, ["connect", "latency"]), (2, ["connect", "latency", "latency"])):
            self.assert_relayed(self.inner(client, "/"), 200)
            found = self.cp.wait_samples(n + 1, where=lambda s: s["tags"].get("host") == f"timed.test:{origin.port}")
            self.assertEqual(sorted(s["metric"] for s in found), metrics)

    def test_what_arrives_at_the_origin_is_what_the_client_said(self):
        origin = self.http_origin()
        client = tunnel(self.client(), f"dump.test:{origin.port}")
        response = self.inner(client, "/dump?a=b", "X-One: 1", "Connection: x-two", "X-Two: gone", host="said.test")
        self.assertEqual(response.body, b"GET /dump?a=b HTTP/1.1\r\nHost: said.test\r\nX-One: 1\r\n\r\n")
        client = tunnel(self.client(), f"dump.test:{origin.port}")
        response = client.request(b"GET /dump HTTP/1.0\r\n\r\n")
        self.assertIn(f"Host: dump.test:{origin.port}\r\n".encode(), response.body)

    def test_each_request_asks_the_gate_and_the_first_goes_by_the_connect(self):
        origin = self.http_origin()
        decisions = self.delta("breaker_decisions_total", breaker="b", decision="allow")
        client = tunnel(self.client(), f"gate.test:{origin.port}")
        self.cp.set("b", "open")
        self.px.wait_breaker("b", "open")
        self.assert_relayed(self.inner(client, "/"), 200, b"ok", "covered by its CONNECT")
        for _ in range(2):
            self.assert_self_made(self.inner(client, "/"), 503, "destination_unavailable")
        self.cp.set("b", "closed")
        self.px.wait_breaker("b", "closed")
        self.assert_relayed(self.inner(client, "/"), 200, b"ok")
        self.assertEqual(decisions(), 2)
        self.assertEqual(origin.hits, 2)

    def test_a_head_in_pieces_and_behind_the_connect_is_seen(self):
        origin = self.http_origin()
        request = b"GET /bytes/7 HTTP/1.1\r\nHost: x\r\n\r\n"
        for cut in (1, 3, 4, 5, 20, len(b"GET /bytes/7 HTTP/1.1"), len(request) - 1):
            with self.subTest(cut):
                client = tunnel(self.client(), f"cut.test:{origin.port}", behind=request[:cut])
                time.sleep(0.05)
                self.assert_relayed(client.request(request[cut:]), 200, pattern(7))
        client = tunnel(self.client(), f"cut.test:{origin.port}", behind=request * 3)
        for _ in range(3):
            self.assert_relayed(client.read_response(), 200, pattern(7))

    def test_a_faulty_request_gets_its_error(self):
        origin = self.http_origin()
        client = tunnel(self.client(), f"bad.test:{origin.port}")
        client.send(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
        self.assert_self_made(client.read_response(), 400, "http_request_error")
        client.expect_eof()

    def test_the_target_cannot_be_changed_from_inside(self):
        origin, other = self.http_origin(), self.http_origin()
        client = tunnel(self.client(), f"fixed.test:{origin.port}")
        self.assert_relayed(self.inner(client, "/", host=other.authority), 200, b"ok")
        self.assertEqual((origin.hits, other.hits), (1, 0))

    def test_an_absolute_target_or_a_connect_is_for_the_next_proxy_and_stays_opaque(self):
        origin = self.origin(sink)
        for line in (b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", b"CONNECT a.test:1 HTTP/1.1\r\n\r\n"):
            with self.subTest(line):
                n = len(origin.connections)
                client = tunnel(self.client(), f"chain.test:{origin.port}")
                client.send(line)
                client.half_close()
                origin.wait_ended(n)
                self.assertEqual(origin.received(n), line)

    def test_mode_off_makes_no_samples_inside_either(self):
        origin = self.http_origin()
        self.px.wait_balance(settled=True)
        recorded = self.delta("samples_recorded_total")
        client = tunnel(self.client(), f"off.test:{origin.port}")
        self.assert_relayed(self.inner(client, "/"), 200, b"ok")
        self.px.wait_balance(settled=True)
        self.assertEqual(recorded(), 0)

    def test_a_websocket_inside_is_upgraded(self):
        def script(conn):
            request = conn.read_request()
            if request.get("upgrade") != "websocket":
                raise AssertionError(request.head.fields)
            conn.send("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            echo(conn)

        origin = self.origin(script)
        client = tunnel(self.client(), f"ws.test:{origin.port}")
        client.send(b"GET / HTTP/1.1\r\nHost: ws.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        self.assertEqual(client.read_response_head().status, 101)
        client.send(b"frame")
        self.assertEqual(client.read_exactly(5), b"frame")


class LoopTest(Case):
    LOOP, PRIVATE = "proxy_loop_detected", "destination_ip_prohibited"

    def refused(self, px, host, port, errors, status=502):
        client = self.client(px)
        client.send(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assert_self_made(client.read_response(), status, errors)

    def start(self, hosts, telemetry, **more):
        self.names = self.dns()
        for name, address in (("me.test", "127.0.0.1"), ("me6.test", "::1"), ("mapped.test", "::ffff:127.0.0.1"),
                              ("any.test", "0.0.0.0"), ("any6.test", "::")):
            self.names.set(name, address)
        port, private = free_port(hosts), free_port(hosts)
        listen = [f"[{h}]:{port}" if ":" in h else f"{h}:{port}" for h in hosts]
        return self.proxy({"listen": listen, "telemetry_listen": f"{telemetry}:{private}", "workers": 2, **more},
                          self.control({"b": "closed"}), dns=self.names, warnings=True)

    V4 = ["127.0.0.1", "localhost", "LOCALHOST", "localhost.", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]",
          "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::ffff:0.0.0.0]", "me.test", "ME.test.", "any.test"]
    # Addresses to some resolvers and names to others: no host at all for us, whatever they would say.
    ODD = ["127.1", "127.0.1", "0177.0.0.1", "2130706433", "0x7f000001", "0X7F000001", "0x7f.1", "017700000001", "0",
           "127.1.", "me.test.1"]

    def test_a_connect_to_ourselves_is_refused_in_every_spelling(self):
        px = self.start(["127.0.0.1", "::1"] if has_ipv6() else ["127.0.0.1"], "127.0.0.1")
        for port, error in ((px.port, self.LOOP), (px.telemetry_port, self.PRIVATE)):
            for host in self.V4:
                with self.subTest(host, error=error):
                    self.refused(px, host, port, error)
            for host in self.ODD:
                with self.subTest(host, port=port):
                    self.refused(px, host, port, "http_request_error", 400)
        if has_ipv6():
            for host in ("[::1]", "[0:0:0:0:0:0:0:1]", "me6.test", "any6.test"):
                with self.subTest(host):
                    self.refused(px, host, px.port, self.LOOP)
        px.expect_metric(0, "tunnels_total")
        px.wait_metric(lambda n: n > 25, "attempts_total", outcome="local")
        self.assertEqual(px.metric("client_connections_total"), px.metric("requests_total"), "nobody came around")

    def test_a_listener_on_every_address_is_found_at_all_of_them(self):
        px = self.start(["0.0.0.0"], "0.0.0.0", allow_clients=["127.0.0.0/8"], access={"connect_ports": ["1-65535"]})
        for port, error in ((px.port, self.LOOP), (px.telemetry_port, self.PRIVATE)):
            for host in [*self.V4, "127.0.0.2", "127.255.255.254", *self.own_addresses()]:
                with self.subTest(host, error=error):
                    self.refused(px, host, port, error)

    @staticmethod
    def own_addresses():
        """What this host is called from outside, if it has such a name."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.connect(("192.0.2.1", 9))  # sends nothing
                return [s.getsockname()[0]]
            except OSError:
                return []


class SoakTest(Case):
    """Both directions at once, every byte hashed; gigabytes by make test-large."""

    heavy = True
    time_limit_s = 3600 if os.environ.get("TRIPSWITCH_TEST_SOAK_MB") else 120

    @staticmethod
    def pipes(px):
        folder = f"/proc/{px.pid}/fd"
        count = 0
        for name in os.listdir(folder):
            try:
                count += os.readlink(os.path.join(folder, name)).startswith("pipe:")
            except FileNotFoundError:
                continue  # closed since the listing
        return count

    def tell_progress(self, megabytes, ends):
        """Returns when all is moved, or nothing has been for 60 s."""
        began = told = moved = time.monotonic()
        before = -1
        while any(t.is_alive() for end in ends for t in end.threads) and time.monotonic() - moved < 60:
            time.sleep(0.05)
            now, got = time.monotonic(), sum(end.got_bytes for end in ends)
            moved, before = (moved, before) if got == before else (now, got)
            if now - told >= 5:
                told = now
                print(f"soak: {got >> 20} of {megabytes} MiB in {now - began:.0f} s", file=sys.stderr, flush=True)
        took = time.monotonic() - began
        print(f"soak: {sum(end.got_bytes for end in ends) >> 20} of {megabytes} MiB in both directions, hashed, in {took:.0f} s",
              file=sys.stderr, flush=True)

    def test_a_direction_that_finds_no_pipe_is_copied_and_counted(self):
        tunnels, size = 70, 3_000_000  # of one worker, which has 64
        px = self.proxy({"workers": 1}, self.control({"b": "closed"}))
        go = threading.Event()
        got = {}

        def script(conn):
            conn.keep_received = False
            conn.wait(go, 60)
            got[conn.index] = 0
            while data := conn.sock.recv(1 << 16):
                got[conn.index] += len(data)

        origin = self.origin(script, rcvbuf=4096)
        clients = [tunnel(self.client(px), origin.authority) for _ in range(tunnels)]
        senders = [threading.Thread(target=lambda c=c: (c.send(b"\x01" * size), c.half_close()), daemon=True) for c in clients]
        for t in senders:
            t.start()
        px.wait_metric(lambda n: n > 0, "limit_rejections_total", limit="tunnel_pipes", timeout=20)
        self.assertLessEqual(px.metric("limit_rejections_total", limit="tunnel_pipes"), tunnels)
        go.set()
        for t in senders:
            t.join(60)
        wait_until(lambda: sorted(got.values()) == [size] * tunnels, 30, lambda: f"all bytes, {got}")

    def test_bytes_are_the_same_through_splice_and_through_copying(self):
        megabytes = int(os.environ.get("TRIPSWITCH_TEST_SOAK_MB", 240 // build_cost()))
        tunnels = 80  # both directions of each: more than there are pipes
        control = self.control({"b": "closed"})
        px = self.proxy({"workers": 2}, control)
        idle_pipes = self.pipes(px)
        size = (megabytes << 20) // tunnels // 2
        lock, servers = threading.Lock(), {}

        def script(conn):
            conn.keep_received = False
            seed = conn.read_exactly(4)
            with lock:
                servers[seed] = flood = Flood(conn, size, b"server" + seed)
            for t in flood.threads:
                t.join()

        origin = self.origin(script)
        clients = {}
        for i in range(tunnels):
            seed = b"\x00%03d" % i
            client = tunnel(self.client(px), origin.authority, behind=seed)
            clients[seed] = client
        wait_until(lambda: len(servers) == tunnels, 10, "every tunnel")
        floods = {seed: Flood(client, size, b"client" + seed) for seed, client in clients.items()}
        self.tell_progress(megabytes, [*floods.values(), *servers.values()])
        for seed, flood in floods.items():
            flood.join(self.time_limit_s - 30)
            server = servers[seed].join(20)
            self.assertEqual(flood.got_bytes, size)
            self.assertEqual(server.got_bytes, size)
            self.assertEqual(flood.got.digest(), server.sent.digest(), seed)
            self.assertEqual(server.got.digest(), flood.sent.digest(), seed)
        px.wait_metric(lambda n: n == 0, "tunnels")
        pipes = self.pipes(px) - idle_pipes
        self.assertGreaterEqual(pipes, 2, "nothing went by splice")
        self.assertLessEqual(pipes, 2 * 64 * 2, "64 pipes per worker at most, each with two ends")
        px.expect_metric(tunnels * size, "tunnel_bytes_total", direction="down")
        px.expect_metric(tunnels * (size + 4), "tunnel_bytes_total", direction="up")
        px.expect_metric(0, "buffered_bytes")


class IdleTest(Case):
    """8 000 by make test-large: they want 16 200 descriptors, for both ends and for the proxy each."""

    heavy = True
    time_limit_s = 240

    def test_thousands_of_idle_tunnels_hold_no_buffer_and_do_not_disturb(self):
        wanted = int(os.environ.get("TRIPSWITCH_TEST_TUNNELS", 2000))
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < 2 * wanted + 200:
            if "TRIPSWITCH_TEST_TUNNELS" in os.environ:
                self.fail(f"{wanted} tunnels need {2 * wanted + 200} descriptors, {hard} are allowed")
            self.skipTest(f"NOT TESTED: {wanted} tunnels need {2 * wanted + 200} descriptors, {hard} are allowed")
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        control = self.control({"b": "closed"})
        px = self.proxy({"workers": 2, "limits": {"connections": wanted + 100, "tunnels": wanted + 100}}, control)
        held = []
        self.addCleanup(lambda: [s.close() for s in held])
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen(4096)

        def accept():
            try:
                while True:
                    sock, _ = listener.accept()
                    held.append(sock)
                    sock.sendall(sock.recv(10))
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        head = b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % listener.getsockname()[1]
        resident = px.metric("process_resident_memory_bytes")
        began = time.monotonic()
        for _ in range(wanted):
            sock = socket.create_connection(px.address, timeout=20)
            held.append(sock)
            sock.sendall(head + b"\x01")
            got = b""
            while not got.endswith(b"\r\n\r\n\x01"):
                data = sock.recv(4096)
                self.assertTrue(data, f"after {len(held)}: {got}")
                got += data
            if len(held) % 2000 < 2:
                print(f"idle tunnels: {px.metric('tunnels'):.0f} of {wanted}", file=sys.stderr, flush=True)
        took = time.monotonic() - began
        px.expect_metric(wanted, "tunnels")
        px.wait_metric(lambda n: n == 0, "buffered_bytes")
        per_tunnel = (px.metric("process_resident_memory_bytes") - resident) / wanted
        print(f"{wanted} idle tunnels: {per_tunnel:.0f} bytes of the proxy's memory each, set up in {took:.1f} s",
              file=sys.stderr)
        if variant() == "release":
            self.assertLess(per_tunnel, 3584)  # docs/behaviour.md; the fewer there are, the more each has of what all share
        for sock in held[::max(1, wanted // 20)]:  # they still work
            sock.settimeout(5)
        origin = self.http_origin()
        times = []
        for _ in range(20):
            began = time.monotonic()
            self.assert_relayed(self.get(origin.url + "/", proxy=px), 200, b"ok")
            times.append(time.monotonic() - began)
        self.assertLess(statistics.median(times), 0.05 * slowdown())
        for sock in list(held):
            sock.close()
        px.wait_metric(lambda n: n == 0, "tunnels", timeout=20)


PYTHON = """
import sys, urllib.request, urllib.error, ssl
context = ssl.create_default_context(cafile=sys.argv[2])
opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context),
                                     urllib.request.ProxyHandler({"https": sys.argv[3]}))
for body in (None, b"from python"):
    try:
        r = opener.open(urllib.request.Request(sys.argv[1], data=body), timeout=10)
        print(r.status, r.read().decode())
    except urllib.error.URLError as e:
        print(e.reason)
"""

NODE = """
const http = require('http'), https = require('https'), fs = require('fs');
const [, , url, ca, proxy] = process.argv, u = new URL(url), p = new URL(proxy);
http.request({ host: p.hostname, port: p.port, method: 'CONNECT', path: u.host }).on('connect', (res, socket) => {
  if (res.statusCode !== 200) { console.log(res.statusCode, res.statusMessage); socket.destroy(); return; }
  const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
  const ask = (body, done) => {
    const r = https.request({ host: u.hostname, servername: u.hostname, path: u.pathname, method: 'POST', socket,
                              agent: false, ca: fs.readFileSync(ca) }, (a) => {
      let data = ''; a.on('data', (d) => data += d); a.on('end', () => done(a.statusCode, data));
    });
    r.on('error', (e) => { console.log('error ' + e.message); process.exit(1); });
    r.end(body);
  };
  ask('from node', (code, data) => { console.log(code, data); process.exit(0); });
}).on('error', (e) => { console.log('error ' + e.message); }).end();
"""

JAVA = """
import java.io.*;
import java.net.*;
import java.security.*;
import java.security.cert.*;
import javax.net.ssl.*;
public class Client {
    public static void main(String[] args) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (InputStream in = new FileInputStream(args[1])) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(null, trust.getTrustManagers(), null);
        HttpsURLConnection.setDefaultSSLSocketFactory(tls.getSocketFactory());
        for (int i = 0; i < 2; i++) {
            HttpsURLConnection c = (HttpsURLConnection) new URL(args[0]).openConnection();
            if (i == 1) {
                c.setDoOutput(true);
                c.getOutputStream();
            }
            try {
                if (i == 1) c.getOutputStream().write("from java".getBytes());
                int code = c.getResponseCode();
                System.out.println(code + " " + new String(c.getInputStream().readAllBytes()));
            } catch (IOException e) {
                System.out.println(e.getMessage());
            }
        }
    }
}
"""

GO = """
package main
import ("crypto/tls"; "crypto/x509"; "fmt"; "io"; "net/http"; "net/url"; "os"; "strings")
func main() {
	pem, _ := os.ReadFile(os.Args[2])
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	proxy, _ := url.Parse(os.Args[3])
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: pool}}}
	for i := 0; i < 2; i++ {
		r, err := client.Post(os.Args[1], "text/plain", strings.NewReader("from go"))
		if err != nil { fmt.Println(err); continue }
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		fmt.Println(r.StatusCode, string(b))
	}
}
"""


class TlsClientTest(SharedCase):
    """Programs that people have, through CONNECT to a real TLS origin."""

    time_limit_s = 90
    workers = 2
    breakers = {"payments": "closed"}
    config = {"access_log": {"mode": "all"},
              "routes": [{"name": "payments", "breakers": ["payments"], "router": "rtr",
                          "tags": {"tier": "{tier}", "outcome": "{outcome}", "host": "{host}"}}]}
    REFUSED = "Circuit breaker open: payments"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.certificates = Certificates("payments.test", "127.0.0.1")
        cls.addClassCleanup(cls.certificates.remove)

    def setUp(self):
        super().setUp()
        self.origin_ = HttpsOrigin(self.certificates)
        self.addCleanup(self._end_origin, self.origin_)
        self.url = f"https://payments.test:{self.origin_.port}/echo"
        self.state("closed")

    def tearDown(self):
        self.state("closed")

    def state(self, state):
        self.cp.set("payments", state)
        self.px.wait_breaker("payments", state)

    def ask(self, *command, env=None):
        done = subprocess.run(command, env=env or clean_environment(), capture_output=True, text=True, timeout=80, check=False)
        return done.stdout + done.stderr

    def closed_then_open(self, command, wanted, refused=REFUSED):
        out = self.ask(*command)
        self.assertEqual([line for line in out.splitlines() if line], wanted, out)
        self.assertEqual(set(self.origin_.names), {"payments.test"}, "the ClientHello arrived as it was sent")
        hits = len(self.origin_.connections)
        self.state("open")
        out = self.ask(*command)
        self.assertIn(refused, out)
        self.assertEqual(len(self.origin_.connections), hits)
        label = f"payments.test:{self.origin_.port}"
        for s in self.cp.wait_samples(1, where=lambda s: s["tags"]["host"] == label):
            self.assertEqual((s["ok"], s["tags"]["tier"], s["tags"]["outcome"]), (True, "opaque", "success"))
        names = {line.get("tls_sni") for line in self.px.access_log() if line["result"] == "forwarded"}
        self.assertEqual(names, {"payments.test"}, "the access log tells the server name")

    def test_curl(self):
        command = [tool("curl"), "-sS", "-v", "--cacert", self.certificates.ca, "-x", self.px.url, "-d", "from curl", self.url]
        out = self.ask(*command)
        self.assertIn("200 Connection established", out)
        self.assertTrue(out.startswith("from curl"), out)
        self.state("open")
        out = self.ask(*command)
        self.assertIn("503 " + self.REFUSED, out)
        self.assertIn("response 503", out)

    def test_wget(self):
        command = [tool("wget"), "-O", "-", "--tries=1", "-nv", "--ca-certificate", self.certificates.ca,
                   "--post-data=from wget", self.url]
        env = clean_environment(https_proxy=self.px.url)
        self.assertTrue(self.ask(*command, env=env).startswith("from wget"))
        self.state("open")
        self.assertIn(self.REFUSED, self.ask(*command, env=env))

    def test_python(self):
        command = [sys.executable, "-c", PYTHON, self.url, self.certificates.ca, self.px.url]
        self.closed_then_open(command, ["200 ", "200 from python"])

    def program(self, name, text):
        path = os.path.join(self.temp_dir(), name)
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
        return path

    def test_node(self):
        command = [tool("node"), self.program("client.js", NODE), self.url, self.certificates.ca, self.px.url]
        self.closed_then_open(command, ["200 from node"])

    def test_java(self):
        java, javac = tool("java"), tool("javac")
        path = self.program("Client.java", JAVA)
        folder = os.path.dirname(path)
        self.ask(javac, "-d", folder, path)
        host, port = self.px.address
        # Java asks a resolver of its own only without a proxy: the name goes into the CONNECT.
        self.closed_then_open([java, "-Xshare:auto", "-XX:TieredStopAtLevel=1", f"-Dhttps.proxyHost={host}",
                               f"-Dhttps.proxyPort={port}", "-Dhttp.nonProxyHosts=", "-cp", folder, "Client", self.url,
                               self.certificates.ca], ["200 ", "200 from java"])

    def test_go(self):
        go = tool("go")
        path = self.program("client.go", GO)
        folder = os.path.dirname(path)
        env = clean_environment(GO111MODULE="off", GOPATH=folder, CGO_ENABLED="0", GOPROXY="off",
                                GOCACHE=os.environ.get("TRIPSWITCH_TEST_GOCACHE", os.path.expanduser("~/.cache/go-build")))
        program = os.path.join(folder, "client")
        subprocess.run([go, "build", "-p", "1", "-o", program, path], env=env, check=True, timeout=85, capture_output=True)
        self.closed_then_open([program, self.url, self.certificates.ca, self.px.url], ["200 from go"] * 2)

    def test_the_server_name_is_told_however_the_hello_is_cut(self):
        hello = client_hello("cut.test")
        message = hello[5:]
        half = [b"\x16\x03\x01" + len(m).to_bytes(2, "big") + m for m in (message[:30], message[30:90], message[90:])]
        names = []
        for pieces in ([hello], [hello[i:i + 50] for i in range(0, len(hello), 50)], [b"".join(half)], half,
                       [bytes([b]) for b in b"".join(half)]):
            with self.subTest(len(pieces)):
                origin = self.origin(echo)
                client = tunnel(self.client(), f"cut.test:{origin.port}")
                for piece in pieces:
                    client.send(piece)
                    self.assertEqual(client.read_exactly(len(piece)), piece, "never held back")
                client.close()
                origin.wait_ended()
                names.append("cut.test")
                wait_until(lambda: [line["tls_sni"] for line in self.px.access_log()
                                    if line.get("tls_sni") == "cut.test"] == names, 5, "the name in the access log")

    def test_a_server_that_refuses_the_handshake_is_outcome_tls(self):
        strict = self.certificates.server()
        strict.minimum_version = ssl.TLSVersion.TLSv1_3
        self.origin_.context = strict
        context = self.certificates.client()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        failures = self.delta("attempts_total", outcome="tls")
        client = tunnel(self.client(), f"payments.test:{self.origin_.port}")
        with self.assertRaises(ssl.SSLError):
            context.wrap_socket(client.sock, server_hostname="payments.test")
        wait_until(lambda: failures() == 1, 5, "outcome tls")


if __name__ == "__main__":
    unittest.main()
