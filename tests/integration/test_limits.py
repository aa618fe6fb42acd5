"""Limits: every one is enforced, counted, clear to the client, and over when the excess is (promise 7)."""

import concurrent.futures
import time

from harness import Case, Raw, SharedCase, chunk, merge, pattern, request, slowdown, variant, wait_until


class HeadLimitTest(SharedCase):
    config = {"limits": {"header_bytes": "16KiB", "header_fields": 50}}

    def refused(self, wire, status):
        client = self.client()
        client.try_send(wire)
        response = client.read_response()
        self.assert_self_made(response, status, "http_request_error")
        client.expect_eof()

    def test_heads_within_the_limits_pass(self):
        origin = self.http_origin()
        client = self.client()
        self.assert_relayed(client.get(origin.url + "/", *[f"X-{i}: {i}" for i in range(49)]), 200, b"ok")
        self.assert_relayed(client.get(origin.url + "/", "X: " + "v" * 15000), 200, b"ok")
        self.assert_relayed(client.get(origin.url + "/" + "p" * 8000), 200)

    def test_a_field_too_many_is_431(self):
        self.refused(request("GET", "http://x.test/", *[f"X-{i}: {i}" for i in range(50)]), 431)

    def test_a_head_too_large_is_431(self):
        self.refused(request("GET", "http://x.test/", "X: " + "v" * 17000), 431)
        self.refused(request("GET", "http://x.test/", *[f"X-{i}: {'v' * 1000}" for i in range(20)]), 431)

    def test_a_target_too_long_is_414(self):
        self.refused(request("GET", "http://x.test/" + "p" * 17000), 414)

    def test_the_excess_need_not_arrive_completely(self):
        client = self.client()
        client.send(b"GET http://x.test/ HTTP/1.1\r\nHost: x.test\r\nX: " + b"v" * 17000)
        self.assert_self_made(client.read_response(), 431, "http_request_error")

    def test_it_is_counted_and_the_next_client_is_served(self):
        before = self.px.metric("client_errors_total", reason="header_too_large")
        limit = self.px.metric("limit_rejections_total", limit="headers")
        self.refused(request("GET", "http://x.test/", "X: " + "v" * 17000), 431)
        self.assertEqual(self.px.metric("client_errors_total", reason="header_too_large") - before +
                         self.px.metric("limit_rejections_total", limit="headers") - limit >= 1, True)
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")

    def test_a_response_head_too_large_is_502(self):
        for name, lines in (("bytes", ["X: " + "v" * 17000]), ("fields", [f"X-{i}: {i}" for i in range(60)])):
            with self.subTest(name):
                origin = self.origin(lambda c, lines=lines: (c.read_request(), c.respond(200, b"", *lines), c.wait_for_end()))
                counted = self.delta("limit_rejections_total", limit="headers")
                self.assert_self_made(self.get(origin.url + "/"), 502)
                wait_until(lambda: counted() == 1, 5, "the limit to be counted")

    def test_endless_chunk_extensions_and_trailers_of_a_request_are_bounded(self):
        for name, wire in (("extension", b"5;" + b"e" * 100_000), ("trailers", b"0\r\n" + b"X-T: vvvvvvvvvv\r\n" * 10_000),
                           ("size line", b"0" * 100_000)):
            with self.subTest(name):
                origin = self.origin(lambda c: c.wait_for_end())
                client = self.client()
                client.try_send(request("POST", origin.url + "/", "Transfer-Encoding: chunked") + wire)
                response = client.read_response("POST")
                self.assertIn(response.status, (400, 413, 431), response)
                self.assertEqual(len(response.get_all("proxy-status")), 1)
                origin.wait_ended()

    def test_a_large_head_in_single_bytes_takes_linear_time(self):
        wire = request("GET", self.http_origin().url + "/", *[f"X-{i}: {'v' * 300}" for i in range(45)])
        client = self.client()
        began = time.monotonic()
        for byte in wire:
            client.send(bytes([byte]))
        self.assert_relayed(client.read_response(), 200, b"ok")
        self.assertLess(time.monotonic() - began, 5 * slowdown())


class ClientLimitTest(Case):
    def test_only_allowed_clients_are_served(self):
        proxy = self.proxy({"allow_clients": ["127.0.0.1/32"]}, self.control(), warnings=True)
        origin = self.http_origin()
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")
        for _ in range(3):
            stranger = proxy.client(source="127.0.0.2")
            self.assert_self_made(stranger.get(origin.url + "/"), 403, "http_request_denied")
            stranger.expect_eof()
            stranger.close()
        self.assertEqual(origin.hits, 1)
        proxy.wait_metric(lambda n: n >= 3, "client_errors_total", reason="forbidden")

    def test_connections_per_client_leave_room_for_others(self):
        proxy = self.proxy({"limits": {"connections_per_client": 3}}, self.control(), warnings=True)
        origin = self.http_origin()
        greedy = [self.client(proxy, source="127.0.0.2") for _ in range(3)]
        for client in greedy:
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        extra = self.client(proxy, source="127.0.0.2")
        self.assert_turned_away(extra, origin)
        proxy.expect_metric(1, "limit_rejections_total", limit="connections_per_client")
        self.assert_relayed(self.client(proxy, source="127.0.0.3").get(origin.url + "/"), 200, b"ok")
        for client in greedy:
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        greedy[0].close()

        def again():
            client = proxy.client(source="127.0.0.2")
            try:
                return client.get(origin.url + "/").status == 200
            except (OSError, AssertionError):
                return False
            finally:
                client.close()

        wait_until(again, 5, "a free place for the greedy one")

    def assert_turned_away(self, client, origin):
        response = client.get(origin.url + "/")
        self.assert_self_made(response, 503, "connection_limit_reached")
        self.assertIn(b"limits.connections_per_client is reached", response.body)
        client.expect_eof()

    def test_connections_from_before_a_reload_count_for_the_limit_that_it_brings(self):
        proxy = self.proxy({"limits": {"connections_per_client": "off"}}, self.control(), warnings=True)
        origin = self.http_origin()
        before = [self.client(proxy, source="127.0.0.2") for _ in range(3)]
        for client in before:
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        for limit in (2, 3):
            proxy.write_config(merge(proxy.config, {"limits": {"connections_per_client": limit}}))
            proxy.reload()
            self.assert_turned_away(self.client(proxy, source="127.0.0.2"), origin)
        proxy.expect_metric(2, "limit_rejections_total", limit="connections_per_client")
        self.assert_relayed(self.client(proxy, source="127.0.0.3").get(origin.url + "/"), 200, b"ok")
        for client in before:
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")


class MinBodyRateTest(Case):
    """limits.min_body_rate looks at ten seconds that count; all cases pass theirs at the same time."""

    HOLD_S = 13.5

    def scripts(self):
        """name -> (origin's script, what the client does); the latter returns what it saw"""
        hold, small, big = self.HOLD_S, b"x" * 25, pattern(6_000_000)

        def drip(conn, head, piece, seconds, tail=b""):
            conn.send(head)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                conn.send(piece)
                time.sleep(0.25)
            conn.send(tail)
            conn.wait_for_end()

        def ask(client, url):
            client.send(request("GET", url))
            return client.read_response(allow_truncated=True)

        def upload(piece, seconds, tail=b"", lines=("Content-Length: 90000",)):
            def run(client, url):
                client.send(request("POST", url, *lines))
                end = time.monotonic() + seconds
                while time.monotonic() < end and client.try_send(piece):
                    if client.readable(0.25):
                        break
                client.try_send(tail)
                return client.read_response("POST")
            return run

        def take(conn):
            conn.read_request()
            conn.respond(200, b"taken")
            conn.wait_for_end()

        def never_done(conn):
            conn.wait_for_end()

        def late_reader(client, url):
            client.send(request("GET", url))
            time.sleep(hold)
            return client.read_response()

        def take_late(conn):
            got = conn.read_request(with_body=False)
            time.sleep(hold)
            conn.read_body(got)
            conn.respond(200, b"taken")
            conn.wait_for_end()

        def ask_late(conn):
            got = conn.read_request(with_body=False)
            time.sleep(hold)
            conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            conn.read_body(got)
            conn.respond(200, b"taken")
            conn.wait_for_end()

        def expecting(client, url):
            client.send(request("POST", url, "Content-Length: 5", "Expect: 100-continue"))
            head = client.read_response_head()
            if head.status != 100:
                raise AssertionError(head.first)
            client.send(b"hello")
            return client.read_response("POST")

        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        length = b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n"
        quick = b"y" * 500  # four times a second: 2000 bytes
        rounds = 180
        return {
            "slow upload": (never_done, upload(small, hold)),
            "slow chunked upload": (never_done, upload(chunk(small), hold, b"", ("Transfer-Encoding: chunked",))),
            "quick enough upload": (take, upload(chunk(quick), hold, b"0\r\n\r\n", ("Transfer-Encoding: chunked",))),
            "slow response": (lambda c: (c.read_request(), drip(c, length, small, 2 * hold)), ask),
            "slow chunked response": (lambda c: (c.read_request(), drip(c, chunked, chunk(small), 2 * hold)), ask),
            "quick enough response": (lambda c: (c.read_request(), drip(c, chunked, chunk(quick), hold, b"0\r\n\r\n")), ask),
            "event stream": (lambda c: (c.read_request(), drip(c, events, chunk(b":\n"), hold, b"0\r\n\r\n")), ask),
            "slow reader": (lambda c: (c.read_request(), c.respond(200, big), c.wait_for_end()), late_reader),
            "slow taker": (take_late, upload(b"z" * 33_000, 0.01, b"z" * 33_000 * (rounds - 1), (f"Content-Length: {33_000 * rounds}",))),
            "slow to ask": (ask_late, expecting),
        }

    def test_bodies_below_the_rate_are_cut_and_nobody_is_blamed_for_the_other_side(self):
        proxy = self.proxy({"limits": {"min_body_rate": "1KiB"}, "access_log": {"mode": "all"}}, self.control())
        scripts = self.scripts()
        origins = {name: self.origin(script, timeout=40) for name, (script, _) in scripts.items()}

        def run(name):
            client = self.client(proxy, timeout=40)
            began = time.monotonic()
            try:
                response = scripts[name][1](client, f"{origins[name].url}/")
                return (response.status, response.complete), time.monotonic() - began
            except ConnectionResetError:
                return "reset", time.monotonic() - began

        with concurrent.futures.ThreadPoolExecutor(len(scripts)) as pool:
            seen = dict(zip(scripts, pool.map(run, scripts)))
        for name, (what, took) in seen.items():
            with self.subTest(name):
                if "upload" in name and "slow" in name:
                    self.assertEqual(what, (408, True))
                elif "slow" in name and "response" in name:
                    self.assertEqual(what, (200, False))
                else:
                    self.assertEqual(what, (200, True))
                    continue
                self.assertTrue(9.5 < took < 13, took)
        for name in ("slow upload", "slow chunked upload"):
            origins[name].wait_ended()
            self.assertFalse(origins[name].received().endswith(b"0\r\n\r\n"))
        proxy.expect_metric(4, "limit_rejections_total", limit="min_body_rate")
        proxy.expect_metric(2, "client_errors_total", reason="timeout")
        proxy.expect_metric(2, "attempts_total", outcome="local")
        proxy.expect_metric(2, "attempts_total", outcome="timeout")
        proxy.expect_metric(len(scripts) - 4, "attempts_total", outcome="success")


class DescriptorTest(Case):
    def test_running_out_of_descriptors_pauses_accepting_and_loses_nobody_for_ever(self):
        # A limit so low that clients and origins together pass it.
        proxy = self.proxy({}, self.control(), warnings=True,
                           prefix=["/bin/sh", "-c", 'ulimit -n 70; exec "$@"', "sh"])
        origin = self.http_origin()
        origin.record = False
        clients = [Raw(proxy.address, 20) for _ in range(150)]
        for client in clients:
            client.try_send(request("GET", origin.url + "/slow/100", "Connection: close"))
        answered = 0
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            for status in pool.map(self.outcome, clients):
                answered += status in (200, 503, 502)
        self.assertGreater(answered, 60, "most get an answer, some after a wait")
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")
        self.assertEqual(proxy.telemetry("/livez").status, 200)

    @staticmethod
    def outcome(client):
        try:
            return client.read_response().status
        except (OSError, AssertionError):
            return None
        finally:
            client.close()


class IdleCrowdTest(Case):
    def test_hundreds_of_unfinished_heads_do_not_keep_others_waiting(self):
        proxy = self.proxy({"workers": 2}, self.control())
        origin = self.http_origin()
        crowd = [self.client(proxy) for _ in range(400)]
        for client in crowd:
            client.send(b"GET http://x.test/ HTTP/1.1\r\nHost: x.test\r\nX: unfinis")
        took = []
        for _ in range(50):
            began = time.monotonic()
            self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")
            took.append(time.monotonic() - began)
        self.assertLess(sorted(took)[25], 0.1 * slowdown())

    def test_an_idle_connection_costs_next_to_nothing(self):
        if variant() != "release":
            self.skipTest("memory is measured on the release build only")
        proxy = self.proxy({}, self.control())
        origin = self.http_origin()
        origin.record = False
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")
        before = proxy.memory_kib()
        self.assertLess(before, 16 * 1024, "KiB resident while idle")
        crowd = [self.client(proxy) for _ in range(1000)]
        for client in crowd:
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        self.assertLess(proxy.memory_kib() - before, 2 * 1024, "KiB for 1000 idle connections")


class BufferLimitTest(Case):
    def test_a_head_for_which_no_memory_is_left_is_503_and_not_blamed_on_its_size(self):
        limits = {"buffered_total": "1MiB", "header_bytes": "256KiB"}
        proxy = self.proxy({"limits": limits}, self.control(), warnings=True)
        url = self.http_origin().url + "/"
        large = request("GET", url, "X-Large: " + "a" * 40_000)
        self.assert_relayed(self.client(proxy).send(large).read_response(), 200, b"ok")
        hoard = []
        # Each unfinished head of more than a block holds header_bytes; a few fill the total.
        while proxy.metric("limit_rejections_total", limit="buffered_total") == 0:
            self.assertLess(len(hoard), 20)
            client = self.client(proxy)
            seen = sum(w["buffered_bytes"] for w in proxy.status()["workers"])
            client.send(large[:-2])
            hoard.append(client)
            wait_until(lambda: sum(w["buffered_bytes"] for w in proxy.status()["workers"]) > seen
                       or proxy.metric("limit_rejections_total", limit="buffered_total"), 5, "the head to arrive")
        response = hoard.pop().read_response()
        self.assert_self_made(response, 503, "connection_limit_reached")
        self.assertIn(b"limits.buffered_total is reached", response.body)
        proxy.expect_metric(0, "limit_rejections_total", limit="headers")
        self.assert_relayed(self.client(proxy).get(url), 200, b"ok", "a small head still finds room")
        hoard.pop().close()

        def served():
            client = proxy.client()
            try:
                return client.send(large).read_response().status == 200
            finally:
                client.close()

        wait_until(served, 5, "a large head to find room again")

    def test_buffered_total_bounds_the_memory_of_many_stalled_readers(self):
        proxy = self.proxy({"limits": {"buffered_total": "1MiB"}}, self.control(), warnings=True)
        origin = self.http_origin()
        origin.record = False
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")
        before = proxy.memory_kib()
        crowd = [self.client(proxy, rcvbuf=4096) for _ in range(60)]
        for client in crowd:
            client.send(request("GET", origin.url + "/bytes/8000000"))
        proxy.wait_metric(lambda v: v > 0, "limit_rejections_total", limit="buffered_total")
        if variant() == "release":
            self.assertLess(proxy.memory_kib() - before, 4 * 1024)
        response = self.get(origin.url + "/")  # the others are served, or told at once
        if response.status != 200:
            self.assert_self_made(response, 503, "connection_limit_reached")
        for client in crowd:
            client.reset()
        wait_until(lambda: self.get(origin.url + "/").status == 200, 10, "service as before")
