"""Judging: one outcome per attempt, at one moment, and the sample that follows (DESIGN "Judging")."""

import threading
import time

from harness import BlackHole, Case, Raw, SharedCase, chunk, free_port, request, wait_until

TAGS = {"outcome": "{outcome}", "status": "{status}", "method": "{method}", "tier": "{tier}", "host": "{host}"}


class Judged(SharedCase):
    def judge(self, act, outcome, ok, *, count=1, status=None, timeout=10.0):
        """Runs act(); exactly one attempt with that outcome and, unless ok is None, one sample must follow."""
        self.px.wait_balance(settled=True)
        wait_until(lambda: len(self.cp.samples) >= self.px.metric("samples_sent_total"), 5, "earlier samples")
        started = self.delta("attempts_started_total")
        ended = self.delta("attempts_total")
        this = self.delta("attempts_total", outcome=outcome)
        recorded = self.delta("samples_recorded_total")
        before = len(self.cp.samples)
        result = act()
        wait_until(lambda: this() >= count, timeout,
                   lambda: f"an attempt judged {outcome}; {self.px.metrics().by('attempts_total', 'outcome')}")
        self.assertEqual((started(), ended()), (count, count), "one outcome per attempt")
        samples = count if ok is not None else 0
        wait_until(lambda: len(self.cp.samples) >= before + samples, 5, "the sample to arrive")
        self.assertEqual(recorded(), samples)
        self.assertEqual(len(self.cp.samples), before + samples)
        for sample in self.cp.samples[before:]:
            self.assertEqual(sample["ok"], ok, sample)
            self.assertEqual(sample["tags"]["outcome"], outcome)
            if status is not None:
                self.assertEqual(sample["tags"]["status"], str(status))
        return result


class OutcomeTest(Judged):
    warnings = True
    config = {
        "timeouts": {"connect": "400ms"},
        "access": {"deny_destinations": ["127.0.0.66/32"]},
        "routes": [
            {"name": "custom", "match": {"hosts": ["custom.test"]}, "breakers": ["b"], "router": "rtr", "tags": TAGS,
             "failure": {"status": ["5xx", "404", "429"], "except_status": [501]}, "neutral": {"status": [418, "3xx"]}},
            {"name": "first-byte", "match": {"hosts": ["first-byte.test"]}, "breakers": ["b"], "router": "rtr",
             "tags": TAGS, "timeouts": {"first_byte": "300ms"}},
            {"name": "idle", "match": {"hosts": ["idle.test"]}, "breakers": ["b"], "router": "rtr", "tags": TAGS,
             "timeouts": {"idle": "300ms"}},
            {"name": "total", "match": {"hosts": ["total.test"]}, "breakers": ["b"], "router": "rtr", "tags": TAGS,
             "timeouts": {"total": "400ms"}},
            {"name": "all", "breakers": ["b"], "router": "rtr", "tags": TAGS},
        ],
    }

    def test_a_status_decides_by_the_default_rule(self):
        origin = self.http_origin()
        for status in (200, 204, 301, 304, 400, 404, 418, 429, 499):
            with self.subTest(status):
                self.judge(lambda s=status: self.get(f"{origin.url}/status/{s}"), "success", True, status=status)
        for status in (500, 501, 503, 599):
            with self.subTest(status):
                self.judge(lambda s=status: self.get(f"{origin.url}/status/{s}"), "status", False, status=status)

    def test_a_status_decides_by_the_routes_rules(self):
        origin = self.http_origin()
        url = f"http://custom.test:{origin.port}/status"
        cases = [(200, "success", True), (403, "success", True), (404, "status", False), (429, "status", False),
                 (500, "status", False), (501, "success", True), (502, "status", False), (418, "neutral", None),
                 (302, "neutral", None)]
        for status, outcome, ok in cases:
            with self.subTest(status):
                self.judge(lambda s=status: self.get(f"{url}/{s}"), outcome, ok)

    def test_a_refused_connect_is_connect(self):
        port = free_port()
        self.judge(lambda: self.assert_self_made(self.get(f"http://127.0.0.1:{port}/"), 502, "connection_refused"),
                   "connect", False)

    def test_a_connect_that_times_out_is_a_failure(self):
        hole = BlackHole()
        self.addCleanup(hole.stop)
        timeouts = self.delta("attempts_total", outcome="timeout")
        connects = self.delta("attempts_total", outcome="connect")
        self.assert_self_made(self.get(hole.url + "/"), 504, "connection_timeout")
        self.assertEqual(timeouts() + connects(), 1)

    def test_a_name_that_does_not_resolve_is_dns(self):
        self.names.behaviour["gone.test"] = "nxdomain"
        self.judge(lambda: self.assert_self_made(self.get("http://gone.test/"), 502, "dns_error"), "dns", False)

    def test_a_reset_or_a_close_before_the_head_is_reset(self):
        origin = self.http_origin()
        for path in ("/reset", "/close"):
            with self.subTest(path):
                self.judge(lambda p=path: self.assert_self_made(self.get(origin.url + p), 502), "reset", False)

    def test_a_truncated_body_is_reset(self):
        origin = self.http_origin()
        self.judge(lambda: self.get(origin.url + "/truncate/1000", allow_truncated=True), "reset", False)

    def test_a_reset_that_comes_with_the_last_bytes_is_noticed(self):
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n"
        cases = [("in the head", head[:20]), ("in the body", head + b"01234"),
                 ("in a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n01234")]
        for where, wire in cases:
            for _ in range(5):  # whether the reset overtakes the bytes is chance
                with self.subTest(where):
                    origin = self.origin(lambda c, w=wire: (c.read_request(), c.send(w[:-3]), c.send(w[-3:]), c.reset()))
                    self.judge(lambda o=origin: self.get(o.url + "/", allow_truncated=True), "reset", False)

    def test_a_head_cut_short_is_a_failure_and_a_502(self):
        origin = self.origin(lambda c: (c.read_request(), c.send(b"HTTP/1.1 200 OK\r\nContent-Le")))
        reset = self.delta("attempts_total", outcome="reset")
        protocol = self.delta("attempts_total", outcome="protocol")
        self.assert_self_made(self.get(origin.url + "/"), 502, ("http_response_incomplete", "connection_terminated"))
        self.assertEqual(reset() + protocol(), 1)

    def test_a_malformed_head_is_protocol(self):
        origin = self.http_origin()
        self.judge(lambda: self.assert_self_made(self.get(origin.url + "/garbage"), 502, "http_protocol_error"),
                   "protocol", False)

    def test_a_malformed_chunk_is_protocol(self):
        origin = self.origin(lambda c: (c.read_request(), c.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"fine") + b"bad\r\r\n"), c.wait_for_end()))
        self.judge(lambda: self.get(origin.url + "/", allow_truncated=True), "protocol", False)

    def test_first_byte_idle_and_total_cut_when_they_are_set(self):
        origin = self.http_origin()
        port = origin.port
        self.judge(lambda: self.assert_self_made(self.get(f"http://first-byte.test:{port}/hang"), 504,
                                                 "http_response_timeout"), "timeout", False)
        self.judge(lambda: self.assert_self_made(self.get(f"http://total.test:{port}/hang"), 504,
                                                 "http_response_timeout"), "timeout", False)
        self.judge(lambda: self.assertFalse(self.get(f"http://idle.test:{port}/drip/3/900", allow_truncated=True).complete),
                   "timeout", False)
        self.judge(lambda: self.assertFalse(self.get(f"http://total.test:{port}/drip/50/50", allow_truncated=True).complete),
                   "timeout", False)
        self.judge(lambda: self.keep_waiting_for_100(port), "timeout", False)
        self.judge(lambda: self.assert_relayed(self.get(f"http://idle.test:{port}/drip/6/100"), 200), "success", True)
        self.judge(lambda: self.assert_relayed(self.get(f"http://first-byte.test:{port}/drip/5/100"), 200), "success", True)

    def answer_at_length(self, conn):
        conn.read_request_head()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n" + bytes(20000000))

    def keep_waiting_for_100(self, port):
        """For most of the time; then the body goes out all the same, and still nothing comes."""
        url = f"http://total.test:{port}/hang"
        client = self.client().send(request("POST", url, "Expect: 100-continue", "Content-Length: 1"))
        client.expect_silence(0.3)
        self.assert_self_made(client.send(b"x").read_response("POST"), 504, "http_response_timeout")

    def test_total_says_nothing_of_the_upstream_where_the_client_is_slow(self):
        port, unasked = self.http_origin().port, self.origin(self.answer_at_length)
        post = request("POST", f"http://total.test:{port}/hang", "Content-Length: 2") + b"a"
        cases = [("a body that does not come", post, 15),
                 ("one that took most of the time", post, 0.3),
                 ("an answer that is not read", request("GET", f"http://total.test:{port}/bytes/20000000"), 15),
                 ("nor asks for the body", request("POST", f"http://total.test:{unasked.port}/", "Content-Length: 2",
                                                   "Expect: 100-continue"), 15)]
        for name, wire, wait in cases:
            with self.subTest(name):
                client = self.client(rcvbuf=4096)
                slow = self.delta("client_errors_total", reason="timeout")

                def act(client=client, wire=wire, wait=wait):
                    client.send(wire)
                    if not client.readable(wait):
                        client.send(b"b")
                self.judge(act, "local", None)
                self.assertEqual(slow(), 1)
                client.close()

    def test_a_failing_status_is_judged_at_the_head_not_at_the_end(self):
        finish = threading.Event()

        def script(conn):
            conn.read_request()
            conn.send(b"HTTP/1.1 500 Oh\r\nContent-Length: 10\r\n\r\nhalf.")
            conn.wait(finish)
            conn.close()  # truncated: too late to change the verdict

        origin = self.origin(script)
        client = self.client()
        self.judge(lambda: client.send(request("GET", origin.url + "/")).read_until(b"half."), "status", False)
        resets = self.delta("attempts_total")
        finish.set()
        client.expect_eof()
        self.assertEqual(resets(), 0)

    def test_a_success_is_judged_at_the_end_of_the_response(self):
        finish = threading.Event()

        def script(conn):
            conn.read_request()
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.")
            conn.wait(finish)
            conn.send(b"done.")
            conn.wait_for_end()

        origin = self.origin(script)
        ended = self.delta("attempts_total")
        client = self.client().send(request("GET", origin.url + "/"))
        client.read_until(b"half.")
        self.assertEqual(ended(), 0)
        self.px.expect_metric(1, "attempts_in_flight")
        self.judge_late(client, finish)

    def judge_late(self, client, finish):
        success = self.delta("attempts_total", outcome="success")
        finish.set()
        self.assertEqual(client.read_exactly(5), b"done.")
        wait_until(lambda: success() == 1, 5, "the verdict")

    def test_an_event_stream_is_a_success_at_its_head(self):
        origin = self.http_origin()
        client = self.client()
        self.judge(lambda: client.send(request("GET", origin.url + "/sse")).read_response_head(), "success", True)
        client.close()

    def test_an_accepted_upgrade_is_a_success_at_once(self):
        origin = self.origin(lambda c: (c.read_request(), c.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), c.wait_for_end()))
        client = self.client()
        self.judge(lambda: client.send(request("GET", origin.url + "/", "Connection: Upgrade", "Upgrade: websocket"))
                   .read_response_head(), "success", True, status=101)
        client.close()

    def test_what_we_could_not_try_is_local_and_makes_no_sample(self):
        cases = [("a denied destination", "http://127.0.0.66/"), ("a loop", self.px.url + "/"),
                 ("our telemetry", f"http://127.0.0.1:{self.px.telemetry_port}/metrics")]
        for name, url in cases:
            with self.subTest(name):
                self.judge(lambda u=url: self.get(u), "local", None)

    def test_a_stale_connection_that_cannot_be_replayed_makes_no_sample(self):
        def script(conn):
            conn.read_request()
            conn.respond(200, b"ok")
            conn.read_request()

        origin = self.origin(script)
        client = self.client()
        self.judge(lambda: client.get(origin.url + "/"), "success", True)
        self.judge(lambda: self.assert_self_made(client.get(origin.url + "/", method="POST", body=b"x"), 502,
                                                 "connection_terminated"), "stale", None)

    def test_tags_carry_method_status_and_host(self):
        origin = self.http_origin()
        before = len(self.cp.samples)
        self.judge(lambda: self.get(f"http://Tagged.test:{origin.port}/status/404", method="PATCH"), "success", True)
        tags = self.cp.samples[before]["tags"]
        self.assertEqual((tags["method"], tags["status"], tags["host"], tags["tier"]),
                         ("PATCH", "404", f"tagged.test:{origin.port}", "http"))


class NoResponseTest(Judged):
    config = {
        "routes": [{"name": "all", "breakers": ["b"], "router": "rtr", "tags": TAGS,
                    "failure": {"no_response_after": "500ms"}, "half_open": {"no_response_after": "150ms"}}],
    }

    def test_silence_is_judged_in_time_and_the_late_answer_is_relayed(self):
        go = threading.Event()
        origin = self.origin(lambda c: (c.read_request(), c.wait(go), c.respond(500, b"late"), c.wait_for_end()))
        client = self.client()
        began = time.monotonic()
        self.judge(lambda: client.send(request("GET", origin.url + "/")), "no_response", False)
        self.assertGreater(time.monotonic() - began, 0.4)
        client.expect_silence(0.05)
        attempts, samples = self.delta("attempts_total"), len(self.cp.samples)
        go.set()
        self.assert_relayed(client.read_response(), 500, b"late")
        self.assert_relayed(client.get(self.http_origin().url + "/"), 200, b"ok")  # the connection goes on
        wait_until(lambda: len(self.cp.samples) == samples + 1, 5, "the second request's sample only")
        self.assertEqual(attempts(), 1)

    def test_an_interim_answer_is_not_a_response_byte(self):
        def script(conn):
            conn.read_request()
            conn.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            conn.wait_for_end()

        origin = self.origin(script)
        client = self.client()
        self.judge(lambda: client.send(request("GET", origin.url + "/")), "no_response", False)

    def test_the_value_of_a_judged_silence_is_the_time_it_lasted(self):
        cases = [("nothing at all", b""), ("behind a 100", b"HTTP/1.1 100 Continue\r\n\r\n"),
                 ("behind a 103", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")]
        for what, interim in cases:
            with self.subTest(what):
                origin = self.origin(lambda c, i=interim: (c.read_request(), c.send(i), c.wait_for_end()))
                before = len(self.cp.samples)
                client = self.client()
                self.judge(lambda c=client, o=origin: c.send(request("POST", o.url + "/", body=b"hello")),
                           "no_response", False)
                value = self.cp.samples[before]["value"]
                self.assertTrue(450 <= value < 2000, f"{what}: {value} ms of at least 500")
                client.close()

    def split(self, wire, at, pause):
        """An origin that answers with wire in two pieces, then is silent."""

        def script(conn):
            conn.read_request()
            conn.send(wire[:at])
            threading.Event().wait(pause)
            conn.send(wire[at:])
            conn.wait_for_end()

        return self.origin(script)

    def test_an_interim_head_in_two_pieces_is_not_a_response_byte_either(self):
        for at in (1, 8, 9, 10):
            with self.subTest(at=at):
                origin = self.split(b"HTTP/1.1 103 Early Hints\r\n\r\n", at, 0.1)
                client = self.client()
                self.judge(lambda c=client, o=origin: c.send(request("GET", o.url + "/")), "no_response", False)
                client.close()

    def test_the_beginning_of_a_final_head_is_a_response_byte(self):
        origin = self.split(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", len(b"HTTP/1.1 200 O"), 0.8)
        self.judge(lambda: self.assert_relayed(self.get(origin.url + "/"), 200, b"ok"), "success", True)

    def test_the_clock_starts_when_the_upstream_has_taken_the_whole_request(self):
        origin = self.http_origin()
        pause = threading.Event()

        def upload():
            client = self.client()
            client.send(request("POST", origin.url + "/echo", "Content-Length: 10"))
            for byte in b"0123456789":
                pause.wait(0.12)  # 1.2 s in all, more than no_response_after
                client.send(bytes([byte]))
            self.assert_relayed(client.read_response("POST"), 200, b"0123456789")

        self.judge(upload, "success", True)

    def test_an_answer_within_the_time_is_a_success(self):
        origin = self.http_origin()
        self.judge(lambda: self.get(origin.url + "/slow/200"), "success", True)

    def test_in_half_open_the_shorter_clock_holds(self):
        origin = self.http_origin()
        self.cp.set("b", "half_open", 1.0)
        self.px.wait_breaker("b", "half_open")
        try:
            self.judge(lambda: self.assert_relayed(self.get(origin.url + "/slow/350"), 200, b"late"), "no_response", False)
        finally:
            self.cp.set("b", "closed")
            self.px.wait_breaker("b", "closed")


class ClientAbortTest(Judged):
    config = {"routes": [{"name": "all", "breakers": ["b"], "router": "rtr", "tags": TAGS,
                          "failure": {"client_abort_after": "600ms", "no_response_after": "off"}}]}

    def hanging(self):
        origin = self.origin(lambda c: (c.read_request(), c.wait_for_end()))
        client = Raw(self.px.address)
        client.send(request("GET", origin.url + "/"))
        origin.wait_requests(1)
        return origin, client

    def test_a_client_that_leaves_early_is_neutral(self):
        for how in ("RST", "FIN"):
            with self.subTest(how):
                origin, client = self.hanging()
                neutral = self.delta("attempts_total")
                recorded = self.delta("samples_recorded_total")
                client.reset() if how == "RST" else client.close()
                wait_until(lambda: neutral() == 1, 5, "the attempt to end")
                origin.wait_ended(0)
                self.assertEqual(recorded(), 0, "judged by the time of the FIN, not by that of the cut")

    def test_a_client_that_gives_up_after_client_abort_after_speaks_for_a_timeout(self):
        for how in ("RST", "FIN"):
            with self.subTest(how):
                def give_up(how=how):
                    origin, client = self.hanging()
                    pause = threading.Event()
                    pause.wait(0.8)
                    client.reset() if how == "RST" else client.close()
                    origin.wait_ended(0)

                self.judge(give_up, "client_abort", False)

    def test_a_client_that_leaves_during_the_response_is_no_failure(self):
        def script(conn):
            conn.read_request()
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
            conn.wait_for_end()

        origin = self.origin(script)
        client = Raw(self.px.address)
        client.send(request("GET", origin.url + "/"))
        client.read_until(b"some")
        began = threading.Event()
        began.wait(0.8)  # past client_abort_after, but a response byte has come
        ended, recorded = self.delta("attempts_total"), self.delta("samples_recorded_total")
        client.reset()
        wait_until(lambda: ended() == 1, 5, "the attempt to end")
        origin.wait_ended(0)
        self.assertEqual(recorded(), 0)

    def test_after_a_half_close_an_answer_within_a_second_is_relayed(self):
        origin = self.http_origin()

        def ask():
            client = self.client().send(request("GET", origin.url + "/slow/500"))
            client.half_close()
            self.assert_relayed(client.read_response(), 200, b"late")

        self.judge(ask, "success", True)

    def test_after_a_half_close_silence_for_a_second_cuts_both_sides(self):
        origin, client = self.hanging()
        began = time.monotonic()
        client.half_close()
        client.expect_eof()
        took = time.monotonic() - began
        origin.wait_ended(0)
        self.assertTrue(0.8 < took < 3, f"{took:.2f} s")


class LatencyTest(Judged):
    config = {"routes": [{"name": "all", "breakers": ["b"], "router": "rtr", "tags": TAGS}]}

    def value(self, act):
        before = len(self.cp.samples)
        began = time.time() * 1000
        self.judge(act, "success", True)
        return self.cp.samples[before]["value"], self.cp.samples[before]["ts_ms"] - began

    def test_latency_runs_to_the_last_response_byte(self):
        origin = self.http_origin()
        value, _ = self.value(lambda: self.get(origin.url + "/drip/5/60"))
        self.assertTrue(290 <= value < 700, value)

    def test_latency_leaves_out_the_wait_for_the_clients_body(self):
        origin = self.http_origin()
        pause = threading.Event()

        def upload():
            client = self.client().send(request("POST", origin.url + "/slow/100", "Content-Length: 5"))
            for byte in b"12345":
                pause.wait(0.2)
                client.send(bytes([byte]))
            client.read_response("POST")

        value, _ = self.value(upload)
        self.assertTrue(95 <= value < 600, f"{value}: the upload alone took 1000 ms")

    def test_the_time_of_a_sample_is_the_attempts_start(self):
        origin = self.http_origin()
        _, offset = self.value(lambda: self.get(origin.url + "/slow/400"))
        self.assertTrue(-20 <= offset < 300, offset)


class MetricsOfARouteTest(Case):
    def test_every_metric_of_a_route_makes_a_sample_of_its_own(self):
        control = self.control()
        metrics = {"latency": "latency", "ttfb": "first_byte", "dial": "connect", "up": "request_bytes",
                   "down": "response_bytes", "one": 1, "half": 0.5}
        proxy = self.proxy({"routes": [{"name": "all", "breakers": ["b"], "router": "rtr", "metrics": metrics}]}, control)
        origin = self.http_origin()
        self.assert_relayed(self.get(origin.url + "/echo", method="POST", body=b"x" * 777), 200)
        samples = {s["metric"]: s for s in control.wait_samples(7)}
        self.assertEqual(set(samples), set(metrics))
        self.assertEqual(len({s["ts_ms"] for s in samples.values()}), 1)
        self.assertEqual((samples["one"]["value"], samples["half"]["value"]), (1, 0.5))
        self.assertEqual(samples["down"]["value"], 777)
        self.assertEqual(samples["up"]["value"], 777)
        for name in ("latency", "ttfb", "dial"):
            self.assertTrue(0 <= samples[name]["value"] < 2000, samples[name])
        self.assertLessEqual(samples["ttfb"]["value"], samples["latency"]["value"] + 1)
        proxy.wait_balance(settled=True)

    def test_a_metric_that_an_attempt_does_not_have_is_skipped_and_counted(self):
        control = self.control()
        proxy = self.proxy({"routes": [{"name": "all", "breakers": ["b"], "router": "rtr",
                                        "metrics": {"latency": "latency", "ttfb": "first_byte"}}]}, control)
        self.assert_self_made(self.get(f"http://127.0.0.1:{free_port()}/"), 502)
        wait_until(lambda: proxy.metric("attempts_total", outcome="connect") == 1, 5, "the verdict")
        proxy.wait_balance(settled=True)
        self.assertEqual({s["metric"] for s in control.samples} <= {"latency", "ttfb"}, True)
        proxy.wait_metric(lambda n: n >= 1, "samples_skipped_total")
