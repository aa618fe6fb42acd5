"""Samples: batched, signed, retried, dropped only with a count (DESIGN "Samples")."""

import threading
import time

from harness import Case, request, slowdown, wait_until


class SampleTest(Case):
    def pair(self, samples=None, control=None, **kw):
        """A control plane and a proxy; `samples` is laid over quick intervals."""
        control = control or self.control()
        config = {"samples": {"flush_interval": "150ms", "urgent_interval": "150ms", **(samples or {})}, **kw.pop("config", {})}
        return control, self.proxy(config, control, **kw)

    def send(self, n, path="/", **kw):
        origin = self.http_origin()
        client = self.client()
        for _ in range(n):
            client.get(origin.url + path, **kw)
        client.close()

    def settled(self, proxy):
        return proxy.wait_balance(settled=True, timeout=20)

    def test_every_sample_arrives_once_compressed_and_signed(self):
        control, proxy = self.pair()
        self.send(300)
        control.wait_samples(300)
        books = self.settled(proxy)
        self.assertEqual((len(control.samples), books.sent), (300, 300))
        self.assertEqual({b.encoding for b in control.batches}, {"gzip"})

    def test_tags_are_the_global_ones_with_the_routes_laid_over(self):
        route = {"name": "all", "breakers": ["b"], "router": "rtr", "tags": {"tier": "premium", "m": "{method}", "both": "route"}}
        control, _ = self.pair(config={"global_tags": {"service": "checkout", "both": "global"}, "routes": [route]})
        self.send(1)
        self.assertEqual(control.wait_samples(1)[0]["tags"],
                         {"service": "checkout", "both": "route", "tier": "premium", "m": "GET"})

    def test_without_tags_and_trace_the_fields_are_left_out(self):
        control, _ = self.pair()
        self.send(1)
        self.assertEqual(set(control.wait_samples(1)[0]), {"router_id", "metric", "ts_ms", "value", "ok"})

    def test_the_trace_id_comes_from_traceparent_and_the_field_passes_unchanged(self):
        control, _ = self.pair()
        origin = self.http_origin()
        parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        response = self.get(origin.url + "/dump", f"traceparent: {parent}")
        self.assertIn(f"traceparent: {parent}\r\n".encode(), response.body)
        self.assertEqual(control.wait_samples(1)[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736")

    def test_a_broken_traceparent_makes_no_trace_id(self):
        control, _ = self.pair()
        origin = self.http_origin()
        for value in ("", "garbage", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "x" * 5000):
            self.assert_relayed(self.get(origin.url + "/", f"traceparent: {value}"), 200)
        for sample in control.wait_samples(4):
            self.assertNotIn("trace_id", sample)

    def test_a_batch_leaves_when_it_is_full(self):
        control, proxy = self.pair({"batch": 20, "flush_interval": "1m", "urgent_interval": "1m", "max_posts_per_second": 1000})
        self.send(65)
        control.wait_samples(60)
        sizes = [len(b.samples) for b in control.batches]
        self.assertTrue(all(s >= 20 for s in sizes), sizes)
        proxy.wait_balance()

    def test_a_batch_leaves_when_its_oldest_sample_is_flush_interval_old(self):
        control, _ = self.pair({"flush_interval": "1s", "urgent_interval": "100ms"})
        began = time.monotonic()
        self.send(3)
        control.wait_samples(3)
        took = time.monotonic() - began
        self.assertTrue(0.9 <= took < 3, f"{took:.2f} s")
        self.assertEqual(len(control.batches), 1)

    def test_a_failure_is_urgent(self):
        control, _ = self.pair({"flush_interval": "1m", "urgent_interval": "200ms"})
        self.send(1, "/status/500")
        control.wait_samples(1, timeout=3)

    def test_a_sample_of_a_breaker_that_is_not_closed_is_urgent(self):
        control, proxy = self.pair({"flush_interval": "1m", "urgent_interval": "200ms"},
                                   self.control({"b": ("half_open", 1.0)}))
        proxy.wait_breaker("b", "half_open")
        self.send(1)
        control.wait_samples(1, timeout=3)

    def test_urgent_batches_leave_at_most_once_per_urgent_interval(self):
        control, _ = self.pair({"flush_interval": "1m", "urgent_interval": "500ms"})
        origin, client = self.http_origin(), self.client()
        pause = threading.Event()
        sent = 40  # over 1.6 s; far fewer than a full batch
        for _ in range(sent):
            client.get(origin.url + "/status/500")
            pause.wait(0.04)
        control.wait_samples(sent)
        gaps = [b.at - a.at for a, b in zip(control.batches, control.batches[1:])]
        self.assertTrue(all(g > 0.4 for g in gaps), gaps)

    def test_a_batch_that_failed_is_sent_again_with_a_fresh_timestamp_and_signature(self):
        control = self.control()
        control.answers = [500, 503, "close", "lost"]
        _, proxy = self.pair(control=control, warnings=True)
        self.send(5)
        wait_until(lambda: proxy.metric("samples_sent_total") == 5, 20, "the batch to be accepted")
        self.assertEqual(len(control.batches), 5)
        # An HTTP library may by itself repeat a post whose kept connection died without an answer.
        attempts = [b for a, b in zip([None, *control.batches], control.batches)
                    if not (a and a.action == "close" and a.timestamp == b.timestamp)]
        self.assertGreaterEqual(len(attempts), 4)
        self.assertEqual(len({b.timestamp for b in attempts}), len(attempts), "a fresh timestamp each time")
        self.assertEqual(len({b.signature for b in attempts}), len(attempts))
        self.assertEqual({len(b.samples) for b in control.batches}, {5}, "it stays first and whole")
        gaps = [b.at - a.at for a, b in zip(control.batches, control.batches[1:])]
        self.assertGreater(gaps[0], 0.05)
        self.assertGreater(gaps[1], 0.25)
        self.assertEqual(len(control.samples), 10, "the answer that was lost counts twice at the server")
        self.settled(proxy)

    def test_samples_keep_their_order_behind_a_failing_batch(self):
        control = self.control()
        control.answers = [500, 500]
        route = {"name": "all", "breakers": ["b"], "router": "rtr", "tags": {"s": "{status}"}}
        _, proxy = self.pair({"batch": 10}, control, config={"routes": [route]}, warnings=True)
        self.send(10, "/status/201")
        control.wait_batches(1)
        self.send(10, "/status/202")
        control.wait_samples(20)
        self.assertEqual(self.settled(proxy).sent, 20)

    def test_retry_after_on_429_is_honoured(self):
        control = self.control()
        control.answers = [(429, 2)]
        _, proxy = self.pair(control=control, warnings=True)
        self.send(1)
        control.wait_samples(1, timeout=8)
        gap = control.batches[1].at - control.batches[0].at
        self.assertTrue(1.9 <= gap < 5, f"{gap:.2f} s between the two")
        self.settled(proxy)

    def test_a_permanent_4xx_drops_the_batch_once_and_counts_it(self):
        for status in (400, 403, 404, 422):
            with self.subTest(status):
                control = self.control()
                control.default_answer = status
                _, proxy = self.pair(control=control, warnings=True)
                self.send(3, "/status/500")
                wait_until(lambda: proxy.metric("samples_dropped_total", reason="rejected") == 3, 5,
                           lambda: f"3 dropped, {proxy.books()}")
                refused = len(control.batches)
                self.assertEqual(sum(len(b.samples) for b in control.batches), 3, "each was sent once")
                control.default_answer = 202
                self.send(2)
                control.wait_samples(2)
                self.assertLessEqual(len(control.batches), refused + 2)
                self.settled(proxy)

    def test_401_is_tried_once_more_with_a_fresh_timestamp_then_rests(self):
        control = self.control()
        control.default_answer = 401
        _, proxy = self.pair(control=control, warnings=True)
        self.send(3)
        control.wait_batches(2)
        self.assertNotEqual(control.batches[0].timestamp, control.batches[1].timestamp)
        self.send(2)
        pause = threading.Event()
        pause.wait(1.5)
        self.assertEqual(len(control.batches), 2, "30 s of rest")
        self.assertTrue(proxy.warning_lines(), "wrong credentials are the operator's business")
        proxy.wait_metric(lambda n: n >= 1, "sample_batches_total", result="auth")
        proxy.wait_balance()

    def test_401_once_costs_nothing(self):
        control = self.control()
        control.answers = [401]
        _, proxy = self.pair(control=control, warnings=True)
        self.send(3)
        control.wait_samples(3)
        self.assertEqual(self.settled(proxy).sent, 3)

    def test_413_splits_the_batch(self):
        control = self.control()
        control.answers = [413]
        _, proxy = self.pair({"batch": 40, "flush_interval": "1m", "urgent_interval": "1m"}, control, warnings=True)
        self.send(40)
        control.wait_samples(40)
        self.assertEqual(self.settled(proxy).sent, 40)
        sizes = [len(b.samples) for b in control.batches]
        self.assertEqual(sizes[0], 40)
        self.assertTrue(all(s < 40 for s in sizes[1:]), sizes)

    def test_a_batch_older_than_max_age_is_dropped_as_expired(self):
        control = self.control()
        control.default_answer = 500
        _, proxy = self.pair({"max_age": "1s"}, control, warnings=True)
        self.send(4)
        wait_until(lambda: proxy.metric("samples_dropped_total", reason="expired") == 4, 20, lambda: str(proxy.books()))
        control.default_answer = 202
        self.send(2)
        wait_until(lambda: control.accepted == 2, 35, "samples to flow again")
        self.settled(proxy)

    def test_a_full_buffer_drops_its_oldest_samples(self):
        control = self.control()
        control.default_answer = 500
        route = {"name": "all", "breakers": ["b"], "router": "rtr", "tags": {"s": "{status}"}}
        _, proxy = self.pair({"buffer": 100, "batch": 10}, control, config={"routes": [route]}, warnings=True)
        self.send(100, "/status/201")
        self.send(100, "/status/202")
        wait_until(lambda: proxy.metric("samples_dropped_total", reason="buffer_full") > 0, 10, lambda: str(proxy.books()))
        proxy.wait_balance()
        control.default_answer = 202
        wait_until(lambda: proxy.books().sent + sum(proxy.books().dropped.values()) == 200, 40, lambda: str(proxy.books()))
        self.settled(proxy)
        newest = [s for s in control.samples if s["tags"]["s"] == "202"]
        self.assertGreaterEqual(len(newest), 90, "it is the old ones that go")

    def test_max_posts_per_second_bounds_the_posts_and_batches_grow(self):
        control, proxy = self.pair({"max_posts_per_second": 2, "batch": 10, "flush_interval": "100ms"})
        self.send(400)
        control.wait_samples(400, timeout=20)
        times = [b.at for b in control.batches]
        for at in times:
            self.assertLessEqual(sum(at <= t < at + 1.0 for t in times), 4, "2 per second, two of them may be ahead")
        self.assertGreater(max(len(b.samples) for b in control.batches), 10)
        self.assertLessEqual(max(len(b.samples) for b in control.batches), 1000)
        self.settled(proxy)

    def test_a_slow_ingest_never_delays_a_request(self):
        control = self.control()
        control.default_answer = ("slow", 2)
        _, proxy = self.pair(control=control)
        origin, client = self.http_origin(), self.client()
        began = time.monotonic()
        for _ in range(200):
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        self.assertLess(time.monotonic() - began, 2 * slowdown())
        control.default_answer = 202

    def test_at_most_two_posts_are_in_flight(self):
        control = self.control()
        control.default_answer = ("slow", 0.3)
        _, proxy = self.pair({"batch": 10, "max_posts_per_second": 1000}, control)
        self.send(200)
        control.wait_samples(200, timeout=20)
        self.assertLessEqual(control.most_posts, 2)
        self.settled(proxy)

    def test_what_is_queued_is_flushed_at_shutdown(self):
        control, proxy = self.pair({"flush_interval": "1m", "urgent_interval": "1m"})
        self.send(150)
        wait_until(lambda: proxy.metric("samples_recorded_total") == 150, 5, "150 samples made")
        self.assertEqual(len(control.batches), 0)
        proxy.check_books = False
        self.assertEqual(proxy.terminate(), 0)
        self.assertEqual(len(control.samples), 150)

    def test_shutdown_does_not_wait_longer_than_three_seconds_for_ingest(self):
        control = self.control()
        control.default_answer = "hole"
        _, proxy = self.pair({"flush_interval": "1m", "urgent_interval": "1m"}, control, warnings=True)
        self.send(20)
        wait_until(lambda: proxy.metric("samples_recorded_total") == 20, 5, "20 samples made")
        began = time.monotonic()
        self.assertEqual(proxy.terminate(), 0)
        self.assertLess(time.monotonic() - began, 4 + 1.5 * slowdown(), "1 s of drain and 3 s of flush at most")

    def test_without_an_ingest_secret_samples_go_unsigned(self):
        control, proxy = self.pair(control=self.control(signed=False), warnings=True)
        self.send(3)
        control.wait_samples(3)
        self.settled(proxy)

    def test_a_route_without_a_router_makes_no_samples(self):
        control, proxy = self.pair(config={"routes": [{"name": "all", "breakers": ["b"]}]})
        self.send(5)
        proxy.expect_metric(0, "samples_recorded_total")
        proxy.expect_metric(5, "attempts_total", outcome="success")

    def test_a_restarted_ingest_connection_is_noticed(self):
        control, proxy = self.pair(warnings=True)
        self.send(2)
        control.wait_samples(2)
        control.go_away()
        self.send(2)
        control.come_back()
        control.wait_samples(4, timeout=35)
        self.settled(proxy)

    def test_secrets_never_show(self):
        control, proxy = self.pair(args=["--log-level", "debug"], warnings=True)
        control.answers = [401, 500, 422]
        control.stream_mode = 401
        control.cut()
        self.send(5, "/status/500")
        control.wait_batches(2)
        texts = {"stderr": proxy.stderr(), "stdout": proxy.stdout(),
                 "cmdline": open(f"/proc/{proxy.pid}/cmdline", encoding="latin-1").read()}
        for path in ("/", "/metrics", "/status", "/breakers", "/readyz?verbose", "/config"):
            texts[path] = proxy.telemetry(path).body.decode("latin-1")
        for where, text in texts.items():
            for secret in (control.api_key, control.ingest_secret):
                self.assertNotIn(secret, text, where)


class RingTest(Case):
    heavy = True

    def test_a_burst_larger_than_the_ring_loses_nothing_uncounted(self):
        control = self.control()
        control.keep_samples = False
        proxy = self.proxy({"workers": 2}, control)
        origin = self.http_origin()
        origin.record = False
        clients = [self.client(proxy) for _ in range(4)]
        n = 1500

        def run(client):
            for _ in range(n // 10):
                client.send(request("GET", origin.url + "/") * 10)
                for _ in range(10):
                    client.read_response()

        threads = [threading.Thread(target=run, args=(c,)) for c in clients]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        books = proxy.wait_balance(settled=True, timeout=20)
        self.assertEqual(books.started, 4 * n)
        self.assertEqual(control.accepted, books.sent)
