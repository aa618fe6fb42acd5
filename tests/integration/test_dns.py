"""Names: TTLs, truncated answers, both families, the next address (UX 8)."""

import threading
import time

from harness import BlackHole, Case, HttpOrigin, Origin, free_port, request, slowdown, wait_until
from harness.tunnels import connect


class DnsTest(Case):
    def setUp(self):
        super().setUp()
        self.server = self.dns()

    def start(self, config=None, **kw):
        return self.proxy(config or {}, self.control(), dns=self.server, **kw)

    def origins(self, *hosts):
        """Origins on one port of several addresses, each answering with its address."""
        for _ in range(20):
            port = free_port(hosts)
            made = []
            try:
                for host in hosts:
                    made.append(Origin(self.say(host), host=host, port=port))
            except OSError:
                for o in made:
                    o.stop()
                continue
            for o in made:
                self.addCleanup(o.stop)
            return port, made
        raise AssertionError("no port free on all addresses")

    @staticmethod
    def say(host):
        def run(conn):
            while True:
                conn.read_request()
                conn.respond(200, host.encode(), "Connection: close")

        return run

    def test_an_answer_is_kept_for_its_ttl_and_asked_again_after_it(self):
        self.start()
        port, _ = self.origins("127.0.0.1")
        self.server.set("a.test", "127.0.0.1", ttl=2)
        began = time.monotonic()
        while time.monotonic() - began < 1.4:
            self.assert_relayed(self.get(f"http://a.test:{port}/"), 200)
        first = self.server.asked("a.test")
        self.assertIn(first, (1, 2), "one A and one AAAA query at most")
        wait_until(lambda: time.monotonic() - began > 2.2, 3, "the TTL to pass", step=0.1)
        self.assert_relayed(self.get(f"http://a.test:{port}/"), 200)
        self.assertGreater(self.server.asked("a.test"), first)

    def test_a_ttl_of_zero_is_raised_to_min_ttl_and_a_long_one_cut_to_max_ttl(self):
        self.start({"dns": {"min_ttl": "1s", "max_ttl": "1s"}})
        port, _ = self.origins("127.0.0.1")
        for name, ttl in (("zero.test", 0), ("long.test", 86400)):
            with self.subTest(name):
                self.server.set(name, "127.0.0.1", ttl=ttl)
                began = time.monotonic()
                for _ in range(10):
                    self.assert_relayed(self.get(f"http://{name}:{port}/"), 200)
                if time.monotonic() - began < 0.8:
                    self.assertLessEqual(self.server.asked(name), 2)
                first = self.server.asked(name)
                wait_until(lambda: time.monotonic() - began > 1.2, 3, "a second to pass", step=0.1)
                self.assert_relayed(self.get(f"http://{name}:{port}/"), 200)
                self.assertGreater(self.server.asked(name), first)

    def test_a_changed_address_is_followed_within_its_ttl_also_by_pooled_connections(self):
        self.start()
        hosts = ("127.0.0.1", "127.0.0.2")
        port = free_port(hosts)
        kept = []
        for host in hosts:
            def script(conn, host=host):
                while True:
                    conn.read_request()
                    conn.respond(200, host.encode())

            kept.append(Origin(script, host=host, port=port))
            self.addCleanup(kept[-1].stop)
        self.server.set("move.test", "127.0.0.1", ttl=1)
        client = self.client()
        self.assertEqual(client.get(f"http://move.test:{port}/").body, b"127.0.0.1")
        self.server.set("move.test", "127.0.0.2", ttl=1)

        def moved():
            response = client.get(f"http://move.test:{port}/")
            self.assertEqual(response.status, 200)
            return response.body == b"127.0.0.2"

        wait_until(moved, 4, "the new address to be used")

    def test_an_address_that_refuses_is_followed_by_the_next(self):
        self.start()
        port, _ = self.origins("127.0.0.2")
        self.server.set("two.test", "127.0.0.1", "127.0.0.2")
        self.server.set("two-other-way.test", "127.0.0.2", "127.0.0.1")
        for name in ("two.test", "two-other-way.test"):
            for _ in range(5):
                self.assert_relayed(self.get(f"http://{name}:{port}/"), 200, b"127.0.0.2")
        m = self._proxies[-1].metrics()
        self.assertEqual(m.sum("attempts_total", outcome="success"), 10)
        self.assertEqual(m.sum("attempts_total"), 10, "it is one attempt")

    def test_an_address_that_stays_silent_is_overtaken_by_the_next_after_300_ms(self):
        hole = BlackHole("127.0.0.7")
        self.addCleanup(hole.stop)
        origin = Origin(self.say("127.0.0.2"), host="127.0.0.2", port=hole.port)
        self.addCleanup(origin.stop)
        self.start()
        self.server.set("slow.test", "127.0.0.7", "127.0.0.2")
        self.server.set("slow-other-way.test", "127.0.0.2", "127.0.0.7")
        for name in ("slow.test", "slow-other-way.test"):
            began = time.monotonic()
            self.assert_relayed(self.get(f"http://{name}:{hole.port}/"), 200, b"127.0.0.2")
            self.assertLess(time.monotonic() - began, 1.5 * slowdown())

    def test_all_addresses_refusing_is_one_502(self):
        self.start()
        self.server.set("none.test", "127.0.0.1", "127.0.0.2", "::1")
        port = free_port(("127.0.0.1", "127.0.0.2", "::1"))
        self.assert_self_made(self.get(f"http://none.test:{port}/"), 502, "connection_refused")
        self._proxies[-1].expect_metric(1, "attempts_total", outcome="connect")

    def test_ipv6_only_and_ipv4_only_names_work(self):
        self.start()
        port, _ = self.origins("127.0.0.1", "::1")
        self.server.set("six.test", "::1")
        self.server.set("four.test", "127.0.0.1")
        self.assert_relayed(self.get(f"http://six.test:{port}/"), 200, b"::1")
        self.assert_relayed(self.get(f"http://four.test:{port}/"), 200, b"127.0.0.1")

    def test_a_broken_family_is_left_for_the_other(self):
        self.start()
        port, _ = self.origins("127.0.0.1")
        self.server.set("both.test", "::1", "127.0.0.1")  # nobody at ::1
        for _ in range(3):
            self.assert_relayed(self.get(f"http://both.test:{port}/"), 200, b"127.0.0.1")

    def test_a_truncated_answer_is_asked_again_over_tcp(self):
        self.start()
        port, _ = self.origins("127.0.0.1")
        self.server.behaviour["big.test"] = "truncate"
        self.assert_relayed(self.get(f"http://big.test:{port}/"), 200)
        self.assertGreaterEqual(self.server.asked("big.test", "tcp"), 1)

    def test_a_name_that_does_not_exist_is_502_and_not_asked_for_each_request(self):
        self.start()
        self.server.behaviour["gone.test"] = "nxdomain"
        for _ in range(5):
            self.assert_self_made(self.get("http://gone.test/"), 502, "dns_error")
        self._proxies[-1].wait_metric(lambda n: n > 0, "dns_lookups_total", result="nxdomain")

    def test_a_silent_resolver_is_504_after_dns_timeout(self):
        self.start({"dns": {"timeout": "400ms"}})
        self.server.behaviour["mute.test"] = "silent"
        began = time.monotonic()
        response = self.get("http://mute.test/")
        self.assert_self_made(response, 504, "dns_timeout")
        self.assertLess(time.monotonic() - began, 3 * slowdown())
        self._proxies[-1].expect_metric(1, "attempts_total", outcome="dns")

    def test_an_expired_answer_serves_while_the_resolver_fails(self):
        self.start({"dns": {"timeout": "500ms", "stale": "30s"}})
        port, _ = self.origins("127.0.0.1")
        self.server.set("stale.test", "127.0.0.1", ttl=1)
        self.assert_relayed(self.get(f"http://stale.test:{port}/"), 200)
        self.server.behaviour["stale.test"] = "servfail"
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 1.3, 3, "the TTL to pass", step=0.1)
        self.assert_relayed(self.get(f"http://stale.test:{port}/"), 200)
        self._proxies[-1].wait_metric(lambda n: n > 0, "dns_stale_answers_total")

    def test_an_expired_answer_serves_no_longer_than_dns_stale(self):
        self.start({"dns": {"timeout": "300ms", "stale": "1s"}})
        port, _ = self.origins("127.0.0.1")
        self.server.set("stale.test", "127.0.0.1", ttl=1)
        self.assert_relayed(self.get(f"http://stale.test:{port}/"), 200)
        self.server.behaviour["stale.test"] = "nxdomain"
        wait_until(lambda: self.get(f"http://stale.test:{port}/").status == 502, 6, "the old answer to be given up")

    def test_a_killed_address_is_looked_up_again_at_once(self):
        self.start()
        port, made = self.origins("127.0.0.1", "127.0.0.2")
        self.server.set("kill.test", "127.0.0.1", ttl=60)
        self.assert_relayed(self.get(f"http://kill.test:{port}/"), 200, b"127.0.0.1")
        made[0].stop()
        self.server.set("kill.test", "127.0.0.2", ttl=60)
        self.get(f"http://kill.test:{port}/")  # may fail: that address is dead
        self.assert_relayed(self.get(f"http://kill.test:{port}/"), 200, b"127.0.0.2")

    def test_many_requests_for_one_name_share_one_lookup(self):
        proxy = self.start()
        origin = HttpOrigin()
        self.addCleanup(origin.stop)
        self.server.behaviour["shared.test"] = 0.3  # held back
        clients = [self.client(proxy).send(request("GET", f"http://shared.test:{origin.port}/")) for _ in range(30)]
        for client in clients:
            self.assert_relayed(client.read_response(), 200, b"ok")
        self.assertLessEqual(self.server.asked("shared.test"), 4)

    def test_a_slow_name_does_not_hold_up_others(self):
        proxy = self.start()
        origin = HttpOrigin()
        self.addCleanup(origin.stop)
        self.server.behaviour["slow.test"] = 3
        waiting = self.client(proxy).send(request("GET", f"http://slow.test:{origin.port}/"))
        wait_until(lambda: self.server.asked("slow.test"), 5, "the query")
        began = time.monotonic()
        for i in range(10):
            self.assert_relayed(self.get(f"http://fast{i}.test:{origin.port}/"), 200, b"ok")
        self.assertLess(time.monotonic() - began, 2.7)
        self.assert_relayed(waiting.read_response(), 200, b"ok")

    def test_a_client_that_leaves_during_a_lookup_does_no_harm(self):
        proxy = self.start()
        self.server.behaviour["slow.test"] = 0.5
        for _ in range(10):
            client = proxy.client()
            client.send(request("GET", "http://slow.test:9/"))
            client.reset()
        wait_until(lambda: self.server.asked("slow.test"), 5, "the query")
        origin = HttpOrigin()
        self.addCleanup(origin.stop)
        self.assert_relayed(self.get(f"http://other.test:{origin.port}/"), 200, b"ok")
        proxy.wait_metric(lambda v: v == 0, "attempts_in_flight", 5)

    def test_the_queue_of_lookups_is_bounded(self):
        proxy = self.start({"limits": {"dns_queue": 5}, "dns": {"timeout": "2s"}}, warnings=True)
        for i in range(10):
            self.server.behaviour[f"mute{i}.test"] = "silent"
        clients = [self.client(proxy).send(request("GET", f"http://mute{i}.test/")) for i in range(10)]
        refused = []

        def read(client):
            refused.append(client.read_response().status)

        threads = [threading.Thread(target=read, args=(c,)) for c in clients]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(refused.count(503), 5, refused)
        self.assertEqual(refused.count(504), 5, refused)
        proxy.expect_metric(5, "limit_rejections_total", limit="dns_queue")
        proxy.expect_metric(5, "attempts_total", outcome="local")

    def test_denied_destinations_are_checked_after_resolution(self):
        self.start({"access": {"deny_destinations": ["127.0.0.8/32"]}})
        port, made = self.origins("127.0.0.8", "127.0.0.1")
        self.server.set("sneaky.test", "127.0.0.8")
        response = self.get(f"http://sneaky.test:{port}/")
        self.assertIn(response.status, (403, 502))
        self.assertEqual(len(response.get_all("proxy-status")), 1)
        self.assertEqual(made[0].connections, [])
        self._proxies[-1].expect_metric(1, "attempts_total", outcome="local")

    def test_an_unspecified_address_is_denied_as_the_loopback_that_is_reached_by_it(self):
        self.start({"access": {"deny_destinations": ["127.0.0.0/8", "::1/128"]}})
        origin = self.http_origin()
        self.server.set("four.test", "0.0.0.0")
        self.server.set("six.test", "::", "::ffff:0.0.0.0")
        for host in ("127.0.0.1", "0.0.0.0", "[::]", "[::ffff:0.0.0.0]", "four.test", "six.test"):
            to = f"{host}:{origin.port}"
            with self.subTest(host):
                self.assert_self_made(self.get(f"http://{to}/"), 502, "destination_ip_prohibited")
                self.assertEqual(connect(self.client(), to).status, 502)
        self.assertEqual(origin.connections, [])
