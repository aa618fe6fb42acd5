"""The state stream: every legal spelling, every way to fail, and traffic that never notices."""

import json
import threading
import time

from harness import Case, SharedCase, stays, slowdown, wait_until


class SpellingTest(SharedCase):
    """Each case drives breaker "b" to open by its own spelling; a closed follows in the plain one."""

    def check(self, data, want="open"):
        self.cp.set("b", "closed")
        self.px.wait_breaker("b", "closed")
        parts = data if isinstance(data, list) else [data]
        for part in parts:
            self.cp.send_raw(part)
        if want == "open":
            self.px.wait_breaker("b", "open")
        else:
            # A later event proves that the former one has been read.
            self.cp.send_raw(self.cp.event("fence", "open"))
            self.px.wait_breaker("fence", "open")
            self.cp.send_raw(self.cp.event("fence", "closed"))
            self.px.wait_breaker("fence", "closed")
            self.assertEqual(self.px.breaker_state("b"), "closed")

    breakers = {"b": "closed", "fence": "closed"}
    config = {"routes": [{"name": "all", "breakers": ["b", "fence"], "router": "rtr"}]}
    warnings = True
    JSON = b'{"breaker":"b","state":"open","allow_rate":null}'

    def test_named_and_unnamed_events_count(self):
        self.check(b"event: state\ndata: " + self.JSON + b"\n\n")
        self.check(b"data: " + self.JSON + b"\n\n")
        self.check(b"event:state\ndata:" + self.JSON + b"\n\n")
        self.check(b"data: " + self.JSON + b"\nevent: state\n\n")

    def test_every_line_end_counts(self):
        self.check(b"event: state\r\ndata: " + self.JSON + b"\r\n\r\n")
        self.check(b"event: state\rdata: " + self.JSON + b"\r\r")
        self.check(b"event: state\r\ndata: " + self.JSON + b"\n\r\n")
        self.check([b"event: state\r", b"\ndata: " + self.JSON + b"\r", b"\n\r", b"\n"])

    def test_comments_other_fields_and_other_json_keys_are_passed_over(self):
        self.check(b": a comment\n:\n: {\"breaker\":\"x\"}\nevent: state\n: inside\ndata: " + self.JSON + b"\n\n")
        self.check(b"id: 7\nretry: 100\nfoo: bar\nfoo\nevent: state\ndata: " + self.JSON + b"\n\n")
        self.check(b'event: state\ndata: {"x":{"state":"closed"},"breaker":"b","new":[1,2],"state":"open"}\n\n')

    def test_data_may_come_in_several_lines(self):
        self.check(b'event: state\ndata: {"breaker":"b",\ndata:   "state":"open",\ndata: "allow_rate":null}\n\n')

    def test_any_split_of_the_bytes_is_read(self):
        event = b": hi\r\nevent: state\r\ndata: " + self.JSON + b"\r\n\r\n"
        self.check([bytes([b]) for b in event])
        for at in range(1, len(event), 7):
            self.check([event[:at], event[at:]])

    def test_many_events_in_one_piece_are_all_read(self):
        burst = b"".join(self.cp.event("b", s) for s in ["open", "closed"] * 500 + ["open"])
        self.check(burst)

    def test_events_of_another_name_are_no_state(self):
        self.check(b"event: statement\ndata: " + self.JSON + b"\n\n", want="closed")
        self.check(b"event: ping\ndata: {}\n\n", want="closed")

    def test_an_event_without_its_empty_line_is_no_event_yet(self):
        self.cp.set("b", "closed")
        self.px.wait_breaker("b", "closed")
        self.cp.send_raw(b"event: state\ndata: " + self.JSON + b"\n")
        stays(lambda: self.px.breaker_state("b") == "closed", 0.2, "half an event is nothing")
        self.cp.send_raw(b"\n")
        self.px.wait_breaker("b", "open")

    def test_malformed_events_are_skipped_counted_and_logged_once(self):
        bad = [b"not json", b"{", b"[]", b'"b"', b"null", b"{}", b'{"breaker":"b"}', b'{"state":"open"}',
               b'{"breaker":7,"state":"open"}', b'{"breaker":"b","state":3}', b'{"breaker":"","state":"open"}',
               b'{"breaker":"b","state":"open"} trailing', b'{"breaker":"b","state":"open","allow_rate":"much"}',
               b"\xff\xfe{", b'{"breaker":"' + b"[" * 5000]
        invalid = self.delta("control_stream_events_total", type="invalid")
        before = len(self.px.warning_lines())
        for data in bad:
            with self.subTest(data[:60]):
                self.check(b"event: state\ndata: " + data + b"\n\n", want="closed")
        self.assertGreaterEqual(invalid(), len(bad) - 2, "an allow_rate of the wrong type may pass or not")
        self.assertLessEqual(len(self.px.warning_lines()) - before, 2, self.px.warning_lines())
        self.px.expect_metric(1, "control_stream_connected")

    def test_an_endless_event_is_given_up_and_the_next_one_read(self):
        self.cp.set("b", "closed")
        self.px.wait_breaker("b", "closed")
        opens = len(self.cp.stream_opens)
        self.cp.send_raw(b"data: " + b"x" * 300_000)
        for _ in range(10):
            self.cp.send_raw(b"y" * 300_000)
        self.cp.send_raw(b"\n\n")
        # Either the rest of it is skipped, or the connection is given up and opened anew.
        wait_until(lambda: len(self.cp.streams) >= 1, 10, "a stream")
        self.cp.set("b", "open")
        self.px.wait_breaker("b", "open", timeout=15)
        self.assertLessEqual(len(self.cp.stream_opens) - opens, 1)

    def test_rates_out_of_range_are_clamped_or_refused_but_never_admit_more(self):
        for rate, most in ((1.5, 1), (-0.5, 0)):
            with self.subTest(rate):
                self.cp.set("b", "open")  # what stays if the event is refused
                self.px.wait_breaker("b", "open")
                self.cp.send_raw(self.cp.event("b", "half_open", rate))
                self.cp.send_raw(self.cp.event("fence", "open"))
                self.px.wait_breaker("fence", "open")
                self.px.wait_metric(lambda n: n <= most, "breaker_allow_ratio", breaker="b")
                self.cp.set("fence", "closed")
                self.px.wait_breaker("fence", "closed")
        self.cp.set("b", "closed")
        self.px.wait_breaker("b", "closed")


class ReconnectTest(Case):
    def test_after_a_cut_the_stream_comes_back_with_the_state_of_now(self):
        for how in ("cut", "close_cleanly"):
            with self.subTest(how):
                control = self.control({"b": "closed"})
                proxy = self.proxy({}, control, warnings=True)
                proxy.expect_metric(1, "control_stream_connected")
                control.breakers["b"] = ("open", None)  # while nobody listens
                getattr(control, how)()
                proxy.wait_breaker("b", "open", timeout=10)
                self.assertEqual(len(control.stream_opens), 2)
                proxy.expect_metric(1, "control_stream_connected")
                proxy.wait_metric(lambda n: n >= 1, "control_stream_disconnects_total")
                gap = control.stream_opens[1] - control.stream_opens[0]
                self.assertGreater(gap, 0.1, "never at once: there may be thousands of us")

    def test_a_service_that_ends_every_stream_at_once_is_not_hammered(self):
        control = self.control()
        proxy = self.proxy({}, control, warnings=True)
        end = time.monotonic() + 4
        while time.monotonic() < end:
            control.wait_stream(timeout=10)
            control.close_cleanly()
        opens = len(control.stream_opens)
        self.assertLessEqual(opens, 12, "in four seconds")
        self.assertEqual(proxy.telemetry("/livez").status, 200)

    def test_delays_grow_and_are_jittered(self):
        control = self.control()
        control.stream_mode = 500
        config = {"control": {"startup_sync_timeout": "100ms"}}
        proxies = [self.proxy(config, control, warnings=True) for _ in range(3)]
        wait_until(lambda: all(p.metric("control_stream_connects_total", result="http") >= 4 for p in proxies), 30,
                   "four attempts of each")
        opens = sorted(control.stream_opens)
        self.assertLessEqual(len([t for t in opens if t < opens[0] + 3]), 21, "0.5 s, doubling")
        self.assertGreaterEqual(len({round(t - opens[0], 3) for t in opens}), len(opens) - 2, "never in step, but by chance")

    def test_401_and_403_are_reported_clearly_and_retried_slowly(self):
        for status in (401, 403):
            with self.subTest(status):
                control = self.control()
                control.stream_mode = status
                proxy = self.proxy({"control": {"startup_sync_timeout": "100ms"}}, control, warnings=True)
                wait_until(lambda: any(str(status) in w for w in proxy.warning_lines()), 5, "a warning with the status")
                proxy.wait_metric(lambda n: n >= 1, "control_stream_connects_total", result="auth")
                stays(lambda: len(control.stream_opens) <= 2, 2.5, lambda: f"{len(control.stream_opens)} attempts")
                self.assertLessEqual(len(proxy.warning_lines()), 3, proxy.warning_lines())

    def test_a_stream_that_goes_silent_against_its_own_rhythm_is_given_up(self):
        control = self.control(heartbeat_s=1.2)
        proxy = self.proxy({}, control, warnings=True)
        wait_until(lambda: proxy.metric("control_stream_events_total", type="heartbeat") >= 6, 15, "a rhythm")
        control.heartbeats.clear()
        opened = len(control.stream_opens)
        wait_until(lambda: len(control.stream_opens) > opened, 25, "a new stream after 15 s of silence")
        proxy.wait_metric(lambda n: n >= 1, "control_stream_disconnects_total", reason="timeout")

    def test_an_environment_proxy_is_ignored(self):
        control = self.control()
        env = {k: "http://127.0.0.1:9" for k in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY",
                                                 "all_proxy")}
        proxy = self.proxy({}, control, env=env)
        proxy.expect_metric(1, "control_state_synced")
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")
        control.wait_samples(1)


class DeadControlPlaneTest(Case):
    """UX 4: six ways to be gone, none of which a request notices."""

    FAULTS = ("refused", "hole", 401, 500, "garbage", "stalled mid-event", "wrong-type")

    def test_no_request_fails_or_waits_whatever_the_control_plane_does(self):
        origin = self.http_origin()
        for fault in self.FAULTS:
            with self.subTest(fault):
                control = self.control()
                control.default_answer = 500 if fault == 500 else 202
                if fault == "refused":
                    control.go_away()
                elif fault != "stalled mid-event":
                    control.stream_mode = fault
                proxy = self.proxy({"control": {"startup_sync_timeout": "200ms"}}, control, warnings=True)
                if fault == "stalled mid-event":
                    control.heartbeats.clear()
                    control.send_raw(b"event: state\ndata: {\"breaker\":\"b\",\"sta")
                client = self.client(proxy)
                took = []
                for _ in range(150):
                    began = time.monotonic()
                    self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
                    took.append(time.monotonic() - began)
                self.assertLess(sorted(took)[len(took) // 2], 0.05 * slowdown())
                self.assertLess(max(took), slowdown())
                for path in ("/livez", "/readyz", "/startupz"):
                    self.assertEqual(proxy.telemetry(path).status, 200, path)
                proxy.stop()

    def test_an_open_breaker_stays_open_while_the_control_plane_is_gone(self):
        control = self.control({"b": "open"})
        proxy = self.proxy({"control": {"state_max_age": "2s"}}, control, warnings=True)
        proxy.wait_breaker("b", "open")
        control.go_away()
        gone = time.monotonic()
        proxy.wait_metric(lambda v: v == 0, "control_stream_connected", 5)
        client, origin = self.client(proxy), self.http_origin()
        while True:
            status = client.get(origin.url + "/").status
            age = time.monotonic() - gone
            if status == 200:
                break
            self.assertLess(age, 4, "state_max_age has passed")
            threading.Event().wait(0.05)
        self.assertGreater(age, 1.5, "obeyed as long as it is not stale")

    def test_an_outage_is_one_warning_not_a_flood(self):
        control = self.control()
        proxy = self.proxy({}, control, warnings=True)
        control.go_away()
        proxy.wait_metric(lambda v: v >= 3, "control_stream_connects_total", 15, result="network")
        self.assertLessEqual(len(proxy.warning_lines()), 2, proxy.warning_lines())

    def test_unreadable_json_in_ingest_answers_is_no_problem(self):
        control = self.control()
        proxy = self.proxy({}, control)
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200)
        control.wait_samples(1)
        self.assertEqual(json.loads(proxy.telemetry("/status").body).__class__, dict)
