"""Half-open, bounded: who may probe, how many at one time and per second, and for how long."""

import concurrent.futures
import math
import random
import select
import socket
import threading
import time

from harness import BlackHole, Case, HttpOrigin, Raw, chunk, free_port, merge, request, build_cost, wait_until
from harness.tunnels import connect, tunnel


def route(name="all", breakers=("b",), hosts=None, **half_open):
    out = {"name": name, "breakers": list(breakers), "router": "rtr", "half_open": half_open}
    if hosts:
        out["match"] = {"hosts": hosts}
    return out


def answer_after(event):
    """A script: every request is answered, none before the event."""

    def run(conn):
        while True:
            conn.read_request()
            conn.wait(event)
            conn.respond(200, b"ok")

    return run


class HalfOpenCase(Case):
    def half_open(self, *routes, rate=1.0, config=None, breakers=("b",), **kw):
        """A proxy with these routes whose breakers are half-open."""
        control = self.control({b: ("half_open", rate) for b in breakers})
        proxy = self.proxy(merge({"routes": list(routes)}, config or {}), control, **kw)
        for b in breakers:
            proxy.wait_breaker(b, "half_open")
        self.cp = control
        return proxy

    def assert_throttled(self, response, why, breaker="b"):
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual(response.get("x-tripswitch-breaker"), breaker)
        self.assertEqual(response.get("x-tripswitch-state"), "half_open")
        self.assertEqual(response.get("x-tripswitch-decision"), "throttle")
        self.assertIn(why, response.get("proxy-status"))

    def assert_free(self, proxy, url, msg=""):
        """No place is held, and a further probe is admitted at once."""
        proxy.wait_metric(lambda v: v == 0, "half_open_leases")
        response = self.get(url, proxy=proxy)
        self.assert_relayed(response, 200, b"ok", msg)


class ConcurrentTest(HalfOpenCase):
    def test_no_more_attempts_at_one_time_than_max_concurrent(self):
        go = threading.Event()
        origin = self.origin(answer_after(go))
        proxy = self.half_open(route(max_concurrent=2), config={"workers": 2})
        clients = [self.client(proxy).send(request("GET", origin.url + "/")) for _ in range(2)]
        origin.wait_requests(2)
        for _ in range(5):
            self.assert_throttled(self.get(origin.url + "/"), "half_open.max_concurrent")
        m = proxy.metrics()
        self.assertEqual(m.one("half_open_leases"), 2)
        self.assertEqual(m.one("half_open_limited_total", bound="concurrent"), 5)
        self.assertEqual(m.one("breaker_decisions_total", breaker="b", decision="throttle"), 5)
        go.set()
        for client in clients:
            self.assert_relayed(client.read_response(), 200, b"ok")
        self.assert_free(proxy, origin.url + "/")
        self.assertEqual(len(origin.requests), 3)

    def test_a_judged_attempt_that_still_runs_keeps_its_place(self):
        go = threading.Event()
        origin = self.origin(lambda c: (c.read_request(), c.send("HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n"),
                                        c.wait(go), c.send("ok"), c.wait_for_end()),
                             lambda c: (c.read_request(), c.respond(200, b"ok"), c.wait_for_end()))
        proxy = self.half_open(route(max_concurrent=1))
        client = self.client(proxy).send(request("GET", origin.url + "/"))
        proxy.wait_metric(lambda v: v == 1, "attempts_total", outcome="status")
        self.assert_throttled(self.get(origin.url + "/"), "max_concurrent")
        go.set()
        self.assert_relayed(client.read_response(), 500, b"ok")
        client.close()
        proxy.wait_metric(lambda v: v == 0, "half_open_leases")

    def test_while_closed_nothing_is_bounded(self):
        go = threading.Event()
        origin = self.origin(answer_after(go))
        proxy = self.proxy({"routes": [route(max_concurrent=1, max_per_second=1, eligible={"methods": ["PUT"]})]},
                           self.control())
        clients = [self.client(proxy).send(request("GET", origin.url + "/")) for _ in range(5)]
        origin.wait_requests(5)
        proxy.expect_metric(0, "half_open_leases")
        go.set()
        for client in clients:
            self.assert_relayed(client.read_response(), 200, b"ok")

    def test_bounds_only_lower_what_the_server_allows(self):
        origin = self.http_origin()
        proxy = self.half_open(route(max_concurrent=1000, max_per_second=1000000), rate=0.0)
        client = self.client(proxy)
        for _ in range(50):
            self.assert_throttled(client.get(origin.url + "/"), "admits few")
        self.assertEqual(origin.hits, 0)
        proxy.expect_metric(0, "half_open_limited_total")

    def test_each_half_open_breaker_of_a_route_must_have_room(self):
        go = threading.Event()
        origin = self.origin(answer_after(go))
        proxy = self.half_open(route("one", ["one"], ["one.test"], max_concurrent=1),
                               route("two", ["two"], ["two.test"], max_concurrent=1),
                               route("both", ["one", "one", "two"], ["both.test"], max_concurrent=1),
                               breakers=("one", "two"), dns=self.dns(), warnings=["listed twice"])
        url = {n: f"http://{n}.test:{origin.port}/" for n in ("one", "two", "both")}
        two = self.client(proxy).send(request("GET", url["two"]))
        origin.wait_requests(1)
        self.assert_throttled(self.get(url["both"]), "max_concurrent", "two")
        proxy.expect_metric(1, "half_open_leases", why="what was taken of the first is given back")
        one = self.client(proxy).send(request("GET", url["one"]))
        origin.wait_requests(2)
        self.assert_throttled(self.get(url["both"]), "max_concurrent", "one")
        go.set()
        for client in (one, two):
            self.assert_relayed(client.read_response(), 200, b"ok")
        proxy.wait_metric(lambda v: v == 0, "half_open_leases")
        self.assert_relayed(self.get(url["both"]), 200, b"ok")


    def test_attempts_without_the_bound_count_for_it(self):
        origin = self.http_origin()
        proxy = self.half_open(merge(route("one", max_concurrent=1), {"match": {"paths": ["/one"]}}), route(),
                               warnings=["a tunnel (HTTPS) never matches"])
        client = self.client(proxy).send(request("GET", origin.url + "/hang"))
        proxy.expect_metric(1, "half_open_leases")
        self.assert_throttled(self.get(origin.url + "/one"), "max_concurrent")
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")
        proxy.write_config(merge(proxy.config, {"routes": [route(max_concurrent=1)]}))
        proxy.reload()  # what ran before there was a bound counts too
        self.assert_throttled(self.get(origin.url + "/"), "max_concurrent")
        client.reset()
        self.assert_free(proxy, origin.url + "/")

    def test_a_place_that_has_expired_is_not_counted(self):
        go = threading.Event()
        origin = self.origin(lambda c: (c.read_request(), c.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                                                 "Content-Length: 2\r\n\r\n"), c.wait(go), c.send("ok")))
        proxy = self.half_open(route(max_concurrent=1, timeout="100ms"))
        clients = []
        for _ in range(2):
            clients.append(self.client(proxy).send(request("GET", origin.url + "/")))
            self.assertEqual(clients[-1].read_response_head().status, 200)
            proxy.expect_metric(1, "half_open_leases")
            proxy.expect_metric(0, "half_open_leases", why="the grace of its timeout is over")
        proxy.expect_metric(2, "requests_in_flight", mode="http")
        go.set()
        for client in clients:
            self.assertEqual(client.read_exactly(2), b"ok")


class RateTest(HalfOpenCase):
    def test_attempts_are_spaced_by_the_lowest_rate(self):
        cases = [("own", {"max_per_second": 4}, 0.25),
                 ("a share of the fleet's", {"fleet": {"size": 5, "max_per_second": 10}}, 0.5),
                 ("the lower one", {"max_per_second": 50, "fleet": {"size": 2, "max_per_second": 8}}, 0.25),
                 ("less than one per second", {"fleet": {"size": 3, "max_per_second": 2}}, 1.5)]
        for name, bounds, spacing in cases:
            with self.subTest(name):
                at = []
                origin = self.origin(lambda c, at=at: self.note_requests(c, at))
                proxy = self.half_open(route(**bounds), config={"workers": 2, "access_log": {"mode": "off"}})
                clients = [self.client(proxy) for _ in range(4)]
                begin = time.monotonic()
                while time.monotonic() < begin + 2:
                    for client in clients:
                        response = client.get(origin.url + "/")
                        if response.status != 200:
                            self.assert_throttled(response, "max_per_second")
                # What reaches the origin may have been held up on the way, so single gaps tell little.
                self.assertLessEqual(len(at), (time.monotonic() - begin) / spacing + 1, at)
                self.assertGreaterEqual(len(at), 2, at)
                proxy.wait_metric(lambda n: n > 0, "half_open_limited_total", bound="rate")
                proxy.expect_metric(0, "half_open_leases")

    @staticmethod
    def note_requests(conn, at):
        while True:
            conn.read_request()
            at.append(time.monotonic())
            conn.respond(200, b"ok")


    def test_what_the_limit_of_tunnels_turns_away_has_had_no_turn(self):
        origin = self.http_origin()
        proxy = self.half_open(route(hosts=["b.test"], fleet={"size": 1000, "max_per_second": 1}, max_concurrent=1),
                               dns=self.dns(), config={"limits": {"tunnels": 1}})
        tunnel(self.client(proxy), origin.authority)
        authority = f"b.test:{origin.port}"
        self.assertEqual(connect(self.client(proxy), authority).status, 503)
        upgrade = self.get(f"http://{authority}/", "Upgrade: websocket", "Connection: upgrade")
        self.assert_self_made(upgrade, 503, "connection_limit_reached")
        proxy.expect_metric(2, "limit_rejections_total", limit="tunnels")
        self.assert_relayed(self.get(f"http://{authority}/"), 200, b"ok")
        self.assert_throttled(self.get(f"http://{authority}/"), "max_per_second")


class EligibleTest(HalfOpenCase):
    def test_only_listed_methods_and_small_known_bodies_probe(self):
        origin = self.http_origin()
        proxy = self.half_open(route(eligible={"methods": ["GET", "POST"], "max_body": "10B"}))
        url = origin.url + "/echo"
        cases = [
            ("a GET", request("GET", url), "GET", True),
            ("a small body", request("POST", url, body=b"0123456789"), "POST", True),
            ("one byte too many", request("POST", url, body=b"01234567890"), "POST", False),
            ("unknown size", request("POST", url, "Transfer-Encoding: chunked") + b"0\r\n\r\n", "POST", False),
            ("another method", request("PUT", url, body=b"x"), "PUT", False),
            ("HEAD", request("HEAD", url), "HEAD", False),
        ]
        for name, wire, method, admitted in cases:
            with self.subTest(name):
                response = self.client(proxy).request(wire, method)
                if admitted:
                    self.assert_relayed(response, 200, msg=name)
                else:
                    self.assert_throttled(response, "half_open.eligible")
        self.assertEqual(origin.hits, 2)
        with self.subTest("a tunnel"):
            head = connect(self.client(proxy), origin.authority)
            self.assertEqual(head.status, 503)
        proxy.expect_metric(5, "half_open_limited_total", bound="eligible")

    def test_a_tunnel_goes_by_the_method_connect(self):
        origin = self.http_origin()
        proxy = self.half_open(route(eligible={"methods": ["CONNECT"], "max_body": "0B"}))
        tunnel(self.client(proxy), origin.authority).close()
        self.assert_throttled(self.get(origin.url + "/"), "half_open.eligible")


    def test_requests_inside_a_tunnel_must_be_eligible_themselves(self):
        origin = self.http_origin()
        small = f"GET / HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n"
        large = f"POST /echo HTTP/1.1\r\nHost: {origin.authority}\r\nContent-Length: 11\r\n\r\n01234567890"
        cases = [("a large body", {"max_body": "10B"}, large, "POST"),
                 ("only tunnels may probe", {"methods": ["CONNECT"]}, small, "GET")]
        for name, eligible, wire, method in cases:
            with self.subTest(name):
                proxy = self.half_open(route(eligible=eligible, max_concurrent=1))
                client = tunnel(self.client(proxy), origin.authority)
                for _ in range(2):  # the second one comes without a place of the tunnel's
                    self.assert_throttled(client.request(wire, method), "half_open.eligible")
                proxy.expect_metric(2, "half_open_limited_total", bound="eligible")
                proxy.expect_metric(0, "half_open_leases")
                self.assertEqual(origin.hits, 0)
                proxy.write_config(merge(proxy.config, {"mode": "shadow"}))
                proxy.reload()
                client = tunnel(self.client(proxy), origin.authority)
                self.assert_relayed(client.request(wire, method), 200)
                proxy.expect_metric(1, "requests_total", outcome="shadow_rejected")
                origin.hits = 0


class TimeoutTest(HalfOpenCase):
    def timeout(self, proxy):
        return proxy.metric("attempts_total", outcome="timeout")

    def test_an_attempt_without_an_answer_is_cut(self):
        hole = BlackHole()
        self.addCleanup(hole.stop)
        origin = self.http_origin()
        proxy = self.half_open(route(timeout="300ms", max_concurrent=1, no_response_after="off"))
        for i, url in enumerate((origin.url + "/hang", hole.url + "/")):
            began = time.monotonic()
            response = self.get(url)
            self.assert_self_made(response, 504, "http_response_timeout")
            self.assertIn("half_open.timeout", response.get("proxy-status"))
            self.assertGreater(time.monotonic() - began, 0.28)
            self.assertEqual(self.timeout(proxy), i + 1)
            self.assert_free(proxy, origin.url + "/")

    def test_a_body_that_takes_too_long_is_cut_visibly(self):
        origin = self.http_origin()
        proxy = self.half_open(route(timeout="300ms", max_concurrent=1))
        response = self.client(proxy).get(origin.url + "/drip/100/50", allow_truncated=True)
        self.assertEqual((response.status, response.complete), (200, False))
        self.assertEqual(self.timeout(proxy), 1)
        self.assert_free(proxy, origin.url + "/")

    def test_what_no_response_after_has_judged_is_cut_all_the_same(self):
        origin = self.http_origin()
        proxy = self.half_open(route(timeout="500ms", no_response_after="100ms"))
        self.assert_self_made(self.get(origin.url + "/hang"), 504, "http_response_timeout")
        proxy.expect_metric(1, "attempts_total", outcome="no_response")
        self.assertEqual(self.timeout(proxy), 0)

    def test_a_judged_answer_goes_on(self):
        go = threading.Event()
        origin = self.origin(
            lambda c: (c.read_request(), c.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                                "Transfer-Encoding: chunked\r\n\r\n"),
                       c.wait(go), c.send(chunk(b"data: 1\n\n") + b"0\r\n\r\n"), c.wait_for_end()),
            lambda c: (c.read_exactly(1), c.send("x"), c.wait(go), c.send("y"), c.wait_for_end()))
        proxy = self.half_open(route(timeout="200ms"))
        stream = self.client(proxy).send(request("GET", origin.url + "/"))
        proxy.wait_metric(lambda v: v == 1, "attempts_total", outcome="success")
        through = tunnel(self.client(proxy), origin.authority).send(b"\x01")
        self.assertEqual(through.read_exactly(1), b"x")
        through.expect_silence(0.4)
        go.set()
        self.assertEqual(through.read_exactly(1), b"y")
        self.assert_relayed(stream.read_response(), 200, b"data: 1\n\n")
        self.assertEqual(self.timeout(proxy), 0)

    def test_an_event_stream_that_is_looked_into_goes_on_too(self):
        go = threading.Event()
        origin = self.origin(lambda c: (
            c.read_request(), c.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 18\r\n\r\n"),
            c.wait(go), c.send(b"data: 1\n\n" * 2), c.wait_for_end()))
        wants = {"a rule": {"failure": {"body": [{"name": "e", "sse_event": "error"}]}},
                 "a metric": {"metrics": {"n": {"json_pointer": "/n"}}}}
        for name, want in wants.items():
            with self.subTest(name):
                go.clear()
                proxy = self.half_open(merge(route(timeout="200ms"), want))
                client = self.client(proxy).send(request("GET", origin.url + "/"))
                self.assertEqual(client.read_response_head().status, 200)
                client.expect_silence(0.5)
                go.set()
                self.assertEqual(client.read_exactly(18), b"data: 1\n\n" * 2)
                proxy.expect_metric(1, "attempts_total", outcome="success")

    def test_time_spent_waiting_for_the_client_does_not_count(self):
        origin = self.http_origin()
        proxy = self.half_open(route(timeout="400ms"))
        upload = self.client(proxy).send(request("POST", origin.url + "/echo", "Content-Length: 4") + b"a")
        reader = self.client(proxy, rcvbuf=4096).send(request("GET", origin.url + "/bytes/20000000"))
        reader.read_response_head()
        answers = self.origin(lambda c: (c.read_request_head(), c.respond(200, bytes(20000000)), c.wait_for_end()))
        unasked = self.client(proxy, rcvbuf=4096).send(request("POST", answers.url + "/", "Content-Length: 1",
                                                               "Expect: 100-continue"))
        upload.expect_silence(0.8)
        self.assert_relayed(upload.send(b"bcd").read_response("POST"), 200, b"abcd")
        self.assertEqual(len(reader.read_exactly(20000000)), 20000000)
        self.assertEqual(len(unasked.read_response("POST").body), 20000000)
        proxy.expect_metric(3, "attempts_total", outcome="success")
        late = self.client(proxy).send(request("POST", origin.url + "/hang", "Content-Length: 1"))
        late.expect_silence(0.6)
        sent = time.monotonic()
        self.assert_self_made(late.send(b"x").read_response("POST"), 504, "http_response_timeout")
        self.assertGreater(time.monotonic() - sent, 0.35)
        self.assertEqual(self.timeout(proxy), 1)

    def test_an_origin_that_never_asks_for_the_body_is_cut(self):
        origin = self.origin(lambda c: (c.read_request_head(), c.wait_for_end()))
        proxy = self.half_open(route(timeout="300ms"))
        client = self.client(proxy).send(request("POST", origin.url + "/", "Content-Length: 1", "Expect: 100-continue"))
        self.assert_self_made(client.read_response("POST"), 504, "http_response_timeout")
        self.assertEqual(self.timeout(proxy), 1)

    def test_in_a_tunnel_the_time_runs_from_when_the_client_has_asked(self):
        silent, http = self.origin(lambda c: c.wait_for_end()), self.http_origin()
        proxy = self.half_open(route(timeout="1s"))
        opaque = tunnel(self.client(proxy), silent.authority)
        inside = tunnel(self.client(proxy), http.authority).send("GET /hang HTTP/1.1\r\n")
        time.sleep(0.5)
        sent = time.monotonic()
        opaque.send(b"\x01")
        inside.send(f"Host: {http.authority}\r\n\r\n")
        self.assert_self_made(inside.read_response(), 504, "http_response_timeout")
        self.assertGreater(time.monotonic() - sent, 0.9)
        opaque.expect_reset()
        self.assertGreater(time.monotonic() - sent, 0.9)
        self.assertEqual(self.timeout(proxy), 2)

    def test_the_first_request_in_a_tunnel_has_what_its_connect_left_of_the_time(self):
        origin, names = self.http_origin(), self.dns()
        names.behaviour["slow.test"] = 2
        proxy = self.half_open(route(timeout="4s"), dns=names)
        authority = f"slow.test:{origin.port}"
        client = tunnel(self.client(proxy), authority)
        sent = time.monotonic()
        client.send(f"GET /hang HTTP/1.1\r\nHost: {authority}\r\n\r\n")
        self.assert_self_made(client.read_response(), 504, "http_response_timeout")
        took = time.monotonic() - sent
        self.assertTrue(1 < took < 3.5, took)
        self.assertEqual(self.timeout(proxy), 1)

    def test_a_tunnel_without_a_byte_from_upstream_is_cut(self):
        origin = self.origin(lambda c: c.wait_for_end())
        proxy = self.half_open(route(timeout="300ms", max_concurrent=1))
        asked = tunnel(self.client(proxy), origin.authority).send(b"\x01")
        asked.expect_reset()
        self.assertEqual(self.timeout(proxy), 1)
        proxy.wait_metric(lambda v: v == 0, "half_open_leases")
        silent = tunnel(self.client(proxy), origin.authority)
        silent.expect_reset()
        proxy.expect_metric(1, "attempts_total", why="who was asked nothing has missed nothing", outcome="local")

    def test_while_closed_and_in_shadow_mode_nothing_is_cut(self):
        origin = self.http_origin()
        for mode, state in (("enforce", "closed"), ("shadow", ("half_open", 1.0))):
            with self.subTest(mode):
                control = self.control({"b": state})
                proxy = self.proxy({"mode": mode, "routes": [route(timeout="100ms")]}, control)
                proxy.wait_breaker("b", state if isinstance(state, str) else state[0])
                self.assert_relayed(self.get(origin.url + "/slow/400", proxy=proxy), 200, b"late")


class ExitsTest(HalfOpenCase):
    """Whichever way an attempt ends, its place is free again."""

    time_limit_s = 120

    def test_every_way_to_end_gives_the_place_back(self):
        origin = self.http_origin()
        nobody = free_port()
        names = self.dns()
        names.behaviour["nxdomain.test"] = "nxdomain"
        tunnels = self.origin(lambda c: (c.read_some(), c.send("x"), c.wait_for_end()))
        upgrade = self.origin(lambda c: (c.read_request(), c.send("HTTP/1.1 101 X\r\nUpgrade: websocket\r\n"
                                                                  "Connection: upgrade\r\n\r\n"), c.wait_for_end()))
        stale = self.origin(self.close_after_the_first)
        proxy = self.half_open(
            merge(route(max_concurrent=1), {"timeouts": {"first_byte": "300ms", "total": "3s", "tunnel_idle": "500ms"}}),
            dns=names, config={"access": {"deny_destinations": ["127.0.0.66/32"]}}, warnings=["deny"])

        def get(url, *lines, status=200, **kw):
            return lambda c: self.assertEqual(c.get(url, *lines, allow_truncated=True, **kw).status, status)

        def abort(end, *wire):
            def run(c):
                before = origin.hits
                c.send(b"".join(wire))
                wait_until(lambda: proxy.metric("half_open_leases") == 1, 5, "the attempt")
                wait_until(lambda: origin.hits > before or b"Content-Length" in wire[0], 5, "the request to arrive")
                end(c)
            return run

        def through(then):
            def run(c):
                tunnel(c, tunnels.authority)
                proxy.expect_metric(1, "half_open_leases")
                then(c)
            return run

        hang = request("GET", origin.url + "/hang")
        ways = {
            "success": get(origin.url + "/"),
            "HEAD": lambda c: c.get(origin.url + "/", method="HEAD"),
            "a failure status": get(origin.url + "/status/500", status=500),
            "no content": get(origin.url + "/status/204", status=204),
            "chunked": get(origin.url + "/chunked/100000"),
            "ended by a close": get(origin.url + "/close-delimited/1000"),
            "truncated": get(origin.url + "/truncate/1000"),
            "reset": get(origin.url + "/reset", status=502),
            "closed": get(origin.url + "/close", status=502),
            "garbage": get(origin.url + "/garbage", status=502),
            "refused": get(f"http://127.0.0.1:{nobody}/", status=502),
            "no such name": get(f"http://nxdomain.test:{origin.port}/", status=502),
            "denied": get("http://127.0.0.66/", status=502),
            "ourselves": get(proxy.url + "/", status=502),
            "first byte too late": get(origin.url + "/hang", status=504),
            "total too long": get(origin.url + "/drip/1000/100"),
            "a reset by the client": abort(Raw.reset, hang),
            "a close by the client": abort(Raw.close, hang),
            "a half-close by the client": abort(Raw.half_close, hang),
            "an upload given up": abort(Raw.reset, request("POST", origin.url + "/", "Content-Length: 100000"), b"x" * 9),
            "a malformed upload": lambda c: c.request(request("POST", origin.url + "/", "Transfer-Encoding: chunked") +
                                                      b"zz\r\n", "POST"),
            "a client that leaves in the answer": self.leave_in_the_answer(origin),
            "a request sent twice": lambda c: [c.get(stale.url + "/") for _ in range(2)],
            "an upgrade": lambda c: (c.send(request("GET", upgrade.url + "/", "Upgrade: websocket", "Connection: upgrade")),
                                     c.read_response_head(), c.close()),
            "a tunnel": through(lambda c: (c.send(b"\x01"), c.read_exactly(1), c.close())),
            "a tunnel reset": through(lambda c: (c.send(b"\x01"), c.read_exactly(1), c.reset())),
            "a silent tunnel": through(lambda c: c.close()),
            "an idle tunnel": through(lambda c: (c.send(b"\x01"), c.read_exactly(1), c.expect_reset())),
            "HTTP in a tunnel": lambda c: self.inner(c, origin, True),
            "HTTP in a tunnel, given up": lambda c: self.inner(c, origin, False),
            "half a request in a tunnel": lambda c: (tunnel(c, origin.authority), c.send("GET / HTTP/1.1\r\nHo"),
                                                     proxy.wait_metric(lambda v: v > 0, "connect_plaintext_http_total"),
                                                     c.reset()),
        }
        for name, way in ways.items():
            with self.subTest(name):
                client = self.client(proxy)
                way(client)
                proxy.wait_metric(lambda v: v == 0, "half_open_leases")
                self.assert_free(proxy, origin.url + "/", name)
                client.close()
        proxy.wait_metric(lambda n: n > 0, "retries_total")

    @staticmethod
    def close_after_the_first(conn):
        conn.read_request()
        conn.respond(200, b"ok")
        if conn.index == 0:
            conn.read_request_head()  # closes instead of answering
        else:
            conn.wait_for_end()

    @staticmethod
    def leave_in_the_answer(origin):
        def run(c):
            c.send(request("GET", origin.url + "/bytes/20000000"))
            c.read_exactly(1000)
            c.reset()
        return run

    def inner(self, client, origin, wait):
        tunnel(client, origin.authority)
        client.send(f"GET {'/' if wait else '/hang'} HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n")
        if wait:
            self.assert_relayed(client.read_response(), 200, b"ok")
        else:
            client.reset()

    def test_the_first_request_in_a_tunnel_has_the_place_of_its_connect(self):
        go = threading.Event()
        origin = self.origin(lambda c: (c.read_request(), c.wait(go), c.respond(200, b"ok"), c.read_request(),
                                        c.respond(200, b"ok"), c.wait_for_end()))
        proxy = self.half_open(route(max_concurrent=1), config={"workers": 2})
        client = tunnel(self.client(proxy), origin.authority)
        self.assert_throttled(self.get(origin.url + "/"), "max_concurrent")
        client.send(f"GET / HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n")
        origin.wait_requests(1)
        proxy.expect_metric(1, "half_open_leases")
        self.assert_throttled(self.get(origin.url + "/"), "max_concurrent")
        go.set()
        self.assert_relayed(client.read_response(), 200, b"ok")
        proxy.wait_metric(lambda v: v == 0, "half_open_leases")
        self.assert_relayed(client.request(f"GET / HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n"), 200, b"ok")

    def test_after_a_reload_the_first_request_in_a_tunnel_is_decided_anew(self):
        origin = self.http_origin()
        cases = [("without", False, 200), ("with a reload", True, 503)]
        for name, reload, status in cases:
            with self.subTest(name):
                proxy = self.half_open(route(max_concurrent=1))
                client = tunnel(self.client(proxy), origin.authority).send("GET / HTTP/1.1\r\n")
                proxy.expect_metric(1, "connect_plaintext_http_total")
                self.cp.set("b", "open")
                proxy.wait_breaker("b", "open")
                if reload:
                    proxy.reload()
                response = client.send(f"Host: {origin.authority}\r\n\r\n").read_response()
                self.assertEqual(response.status, status)
                proxy.wait_metric(lambda v: v == 0, "half_open_leases")

    def test_a_first_request_of_another_route_gives_the_place_of_its_connect_back(self):
        go = threading.Event()
        origin = self.origin(answer_after(go))
        proxy = self.half_open(merge(route("deep", ["free"]), {"match": {"paths": ["/deep"]}}), route(max_concurrent=1),
                               breakers=("b", "free"), warnings=["a tunnel (HTTPS) never matches"])
        client = tunnel(self.client(proxy), origin.authority)
        proxy.expect_metric(1, "half_open_leases")
        client.send(f"GET /deep HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n")
        origin.wait_requests(1)
        next_one = self.client(proxy).send(request("GET", origin.url + "/"))
        origin.wait_requests(2)
        go.set()
        for each in (client, next_one):
            self.assert_relayed(each.read_response(), 200, b"ok")

    def test_a_lowered_limit_counts_the_attempts_that_run(self):
        go = threading.Event()
        origin = self.origin(answer_after(go))
        proxy = self.half_open(route(max_concurrent=3))
        clients = [self.client(proxy).send(request("GET", origin.url + "/")) for _ in range(3)]
        origin.wait_requests(3)
        proxy.write_config(merge(proxy.config, {"routes": [route(max_concurrent=2)]}))
        proxy.reload()
        clients[0].reset()
        proxy.wait_metric(lambda v: v == 2, "half_open_leases")
        self.assert_throttled(self.get(origin.url + "/"), "max_concurrent")
        clients[1].reset()
        proxy.wait_metric(lambda v: v == 1, "half_open_leases")
        clients.append(self.client(proxy).send(request("GET", origin.url + "/")))
        origin.wait_requests(4)
        self.assert_throttled(self.get(origin.url + "/"), "max_concurrent")
        go.set()
        for client in clients[2:]:
            self.assert_relayed(client.read_response(), 200, b"ok")
        self.assert_free(proxy, origin.url + "/")


class CountingOrigin(HttpOrigin):
    """Knows how many requests the proxy has under way, and how many it had at most."""

    def __init__(self, **kw):
        self.active = set()
        self.limit = None
        self.most = 0
        self.excess = []
        super().__init__(**kw)

    @staticmethod
    def is_gone(conn):
        try:
            return bool(select.select([conn.sock], [], [], 0)[0]) and conn.sock.recv(1, socket.MSG_PEEK) == b""
        except (OSError, ValueError):
            return True  # reset; or we have closed it ourselves

    def answer(self, conn, request):
        with self.lock:
            # What was given up, maybe before we read it, was closed before its place was free: the
            # end is here already.
            self.active = {c for c in self.active | {conn} if not self.is_gone(c)}
            self.most = max(self.most, len(self.active))
            if self.limit is not None and len(self.active) > self.limit:
                self.excess.append((len(self.active), self.limit, request.target))
        self.stopping.wait(random.uniform(0, 0.02))
        with self.lock:
            self.active.discard(conn)
        return super().answer(conn, request)

    def do_hang(self, conn, request, rest):
        with self.lock:
            self.active.add(conn)
        try:
            return super().do_hang(conn, request, rest)
        finally:
            with self.lock:
                self.active.discard(conn)


class StressTest(HalfOpenCase):
    time_limit_s = 120
    heavy = True
    SECONDS = 4
    WAYS = ["/", "/", "/", "/status/500", "/hang", "/hang", "/reset", "/close", "/garbage", "/truncate/1000", "/bytes/300000"]

    def test_places_never_exceed_the_limit_and_none_is_lost(self):
        origin = CountingOrigin()
        origin.record = False
        self.addCleanup(self._end_origin, origin)
        high, low = 3, 1
        whole = merge(route(max_concurrent=high, timeout="500ms"), {"timeouts": {"first_byte": "50ms"}})
        proxy = self.half_open(whole, config={"workers": 3})
        origin.limit = high
        stop = threading.Event()

        def run(seed):
            rng = random.Random(seed)
            while not stop.is_set():
                self.one_visit(proxy, origin, rng)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            visitors = [pool.submit(run, seed) for seed in range(8)]
            try:
                for _ in range(3):
                    time.sleep(self.SECONDS / 6)
                    proxy.write_config(merge(proxy.config, {"routes": [merge(whole, {"half_open": {"max_concurrent": low}})]}))
                    proxy.reload()
                    wait_until(lambda: proxy.metric("half_open_leases") <= low, 10, "the lower limit to hold")
                    origin.limit = low
                    time.sleep(self.SECONDS / 6)
                    origin.limit = high
                    proxy.write_config(merge(proxy.config, {"routes": [whole]}))
                    proxy.reload()
            finally:
                stop.set()
            for visitor in visitors:
                visitor.result()
        self.assertEqual(origin.excess, [])
        self.assertEqual(origin.most, high, "the limit was reached")
        m = proxy.metrics()
        self.assertGreater(m.one("half_open_limited_total", bound="concurrent"), 20)
        self.assertGreater(m.sum("requests_total", outcome="client_aborted"), 5)
        self.assertGreater(m.sum("attempts_total", outcome="timeout") + m.sum("attempts_total", outcome="reset"), 5)
        proxy.wait_metric(lambda v: v == 0, "half_open_leases")
        proxy.write_config(merge(proxy.config, {"routes": [route(max_concurrent=high)]}))
        proxy.reload()  # nothing cuts these any more
        for _ in range(high):  # all at once
            clients = [self.client(proxy).send(request("GET", origin.url + "/hang")) for _ in range(high)]
            proxy.wait_metric(lambda v: v == high, "half_open_leases")
            for client in clients:
                client.reset()
            proxy.wait_metric(lambda v: v == 0, "half_open_leases")

    @staticmethod
    def one_visit(proxy, origin, rng):
        client = proxy.client()
        try:
            if rng.random() < 0.2:
                client.send(f"CONNECT {origin.authority} HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n")
                if client.read_response_head().status != 200:
                    return
                client.send(f"GET {rng.choice(StressTest.WAYS)} HTTP/1.1\r\nHost: x\r\n\r\n")
            else:
                client.send(request("GET", origin.url + rng.choice(StressTest.WAYS)))
            if rng.random() < 0.4:
                client.readable(rng.uniform(0, 0.03))
                (client.reset if rng.random() < 0.5 else client.close)()
            else:
                client.read_response(allow_truncated=True)
        except (ConnectionError, AssertionError):
            pass  # cut before the head: only the places matter here
        finally:
            client.close()


class ShareTest(HalfOpenCase):
    """10 000 draws of a whole proxy, several workers and connections: within 4 standard errors."""

    time_limit_s = 150
    heavy = True
    CONNECTIONS, PIPELINED = 5, 50

    def test_the_share_that_reaches_the_origin_is_the_rate(self):
        draws = 10000 // build_cost()
        origin = self.http_origin()
        origin.record = False
        proxy = self.half_open(route(max_concurrent=1000), config={"workers": 3, "access_log": {"mode": "off"}})
        rounds = draws // (self.CONNECTIONS * self.PIPELINED)
        draws = rounds * self.CONNECTIONS * self.PIPELINED
        for rate in (0.2, 0.5):
            self.cp.set("b", "half_open", rate)
            wait_until(lambda r=rate: abs(proxy.metric("breaker_allow_ratio", breaker="b") - r) < 1e-6, 5, "the rate")
            before = origin.hits

            def run():
                client = proxy.client()
                got = 0
                for _ in range(rounds):
                    client.send(request("GET", origin.url + "/") * self.PIPELINED)
                    got += sum(client.read_response().status == 200 for _ in range(self.PIPELINED))
                client.close()
                return got

            with concurrent.futures.ThreadPoolExecutor(self.CONNECTIONS) as pool:
                admitted = sum(f.result() for f in [pool.submit(run) for _ in range(self.CONNECTIONS)])
            self.assertEqual(origin.hits - before, admitted)
            error = math.sqrt(rate * (1 - rate) / draws)
            self.assertLess(abs(admitted / draws - rate), 4 * error, f"{admitted} of {draws} at {rate}")
