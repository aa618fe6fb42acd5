"""Protection with no account and no configuration: the embedded control plane at work."""

import threading
import time

from harness import Case, Raw, free_port, request, slowdown, wait_until


class EmbeddedCase(Case):
    """cooldown and ramp short enough for a test, where a test does not want the defaults."""

    QUICK = {"embedded": {"auto_breaker": {"cooldown_ms": 700, "eval_interval_ms": 100, "recovery_allow_rate_ramp_steps": 2}}}

    def start(self, config=None, dns=None, **kw):
        # No control plane, no project, no routes; the harness's usual sample intervals are left away too.
        return self.proxy({"samples": None, **(config or {})}, None, dns=dns, **kw)

    @staticmethod
    def breaker(origin, host="127.0.0.1"):
        return f"{host}:{origin.port}"

    def trip(self, client, origin, url=None):
        url = url or origin.url
        origin.down = True
        for _ in range(5):
            self.assert_relayed(client.get(url + "/"), 503, b"down\n")


class ZeroConfigurationTest(EmbeddedCase):
    def test_five_failing_answers_open_the_breaker_within_a_second_and_it_closes_without_help(self):
        proxy = self.start()
        origin = self.http_origin()
        name = self.breaker(origin)
        client = self.client(proxy)
        for _ in range(3):
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        self.trip(client, origin)
        tripped = time.monotonic()
        hits = origin.hits

        def refused():
            response = client.get(origin.url + "/")
            return response if response.get("x-tripswitch-breaker") else None

        response = wait_until(refused, 3, "the breaker to open")
        took = time.monotonic() - tripped
        self.assertLess(took, 1.0 * slowdown(), "five failing answers in a row open it within a second")
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual(response.reason, f"Circuit breaker open: {name}")
        self.assertEqual(response.get("x-tripswitch-state"), "open")
        opened = time.monotonic()
        hits = origin.hits
        while time.monotonic() - opened < 3.5:  # well within the cooldown of 5 s
            self.assertEqual(client.get(origin.url + "/").status, 503)
            threading.Event().wait(0.01)
        self.assertEqual(origin.hits, hits, "the origin sees nothing until the cooldown ends")
        origin.down = False

        def closed():
            client.get(origin.url + "/")
            return proxy.breaker_state(name) == "closed"

        wait_until(closed, 15, "it to close without help", step=0.02)
        for _ in range(10):
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")

    def test_with_nothing_at_all_configured_it_listens_on_its_ports_and_protects(self):
        ports = free_port(), free_port()
        proxy = self.proxy({"samples": None, "drain": None, "workers": None, "admin_listen": None,
                            "listen": [f"127.0.0.1:{ports[0]}"], "telemetry_listen": f"127.0.0.1:{ports[1]}"}, None,
                           args=["--drain-min=0s", "--drain-idle=0s", "--admin-listen=off"])
        origin = self.http_origin()
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")
        proxy.expect_metric(1, "control_state_synced")

    def test_a_refused_connect_trips_as_well(self):
        proxy = self.start()
        port = free_port()
        client = self.client(proxy)
        for _ in range(5):
            self.assert_self_made(client.get(f"http://127.0.0.1:{port}/"), 502, "connection_refused")
        wait_until(lambda: client.get(f"http://127.0.0.1:{port}/").status == 503, 2, "the breaker to open")

    def test_four_failures_and_a_success_do_not_trip(self):
        proxy = self.start(self.QUICK)
        origin, client = self.http_origin(), self.client(proxy)
        for _ in range(6):
            for _ in range(4):
                self.assert_relayed(client.get(origin.url + "/status/500"), 500)
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        threading.Event().wait(0.8)
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        self.assertEqual(proxy.breaker_state(self.breaker(origin)), "closed")

    def test_client_errors_do_not_trip(self):
        proxy = self.start(self.QUICK)
        origin, client = self.http_origin(), self.client(proxy)
        for _ in range(20):
            self.assert_relayed(client.get(origin.url + "/status/404"), 404)
        threading.Event().wait(0.8)
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")

    def test_each_host_has_a_breaker_of_its_own(self):
        proxy = self.start(self.QUICK, dns=self.dns())
        origin = self.http_origin()
        client = self.client(proxy)
        self.trip(client, origin, f"http://bad.test:{origin.port}")
        wait_until(lambda: client.get(f"http://bad.test:{origin.port}/").get("x-tripswitch-breaker"), 3, "it to open")
        origin.down = False
        self.assert_relayed(client.get(f"http://good.test:{origin.port}/"), 200, b"ok")
        proxy.wait_breaker(f"good.test:{origin.port}", "closed", 5)

    def test_half_open_lets_some_through_and_a_failing_probe_opens_it_again(self):
        proxy = self.start(self.QUICK)
        origin, client = self.http_origin(), self.client(proxy)
        name = self.breaker(origin)
        self.trip(client, origin)
        wait_until(lambda: proxy.breaker_state(name) == "open", 3, "open")
        proxy.wait_breaker(name, "half_open", 5)

        def opened_again():
            client.get(origin.url + "/")
            return proxy.breaker_state(name) == "open"

        wait_until(opened_again, 5, "a failing probe to open it again", step=0.01)
        origin.down = False

        def closed():
            client.get(origin.url + "/")
            return proxy.breaker_state(name) == "closed"

        wait_until(closed, 15, "it to close", step=0.01)

    def test_six_clients_at_once_see_the_same(self):
        proxy = self.start({"workers": 2, **self.QUICK})
        origin = self.http_origin()
        origin.record = False
        name = self.breaker(origin)
        stop, errors = threading.Event(), []
        answers = [[] for _ in range(6)]

        def run(mine):
            try:
                client = Raw(proxy.address)
                while not stop.wait(0.004):
                    response = client.get(origin.url + "/")
                    mine.append((time.monotonic(), response.status, bool(response.get("x-tripswitch-breaker"))))
                client.close()
            except Exception as e:  # noqa: BLE001
                errors.append(repr(e))

        threads = [threading.Thread(target=run, args=(a,)) for a in answers]
        for t in threads:
            t.start()
        try:
            wait_until(lambda: all(len(a) > 20 for a in answers), 10, "everybody to be served")
            origin.down = True
            went_down = time.monotonic()
            proxy.wait_breaker(name, "open", 5)
            self.assertLess(time.monotonic() - went_down, 1.5 * slowdown())
            origin.down = False
            proxy.wait_breaker(name, "closed", 15)
            closed_at = time.monotonic()
            wait_until(lambda: all(a[-1][0] > closed_at + 0.2 for a in answers), 5, "everybody to go on")
        finally:
            stop.set()
            for t in threads:
                t.join()
        self.assertEqual(errors, [])
        for mine in answers:
            self.assertTrue(any(refused for _, _, refused in mine), "each client was refused for a while")
            self.assertEqual(mine[-1][1:], (200, False))
        proxy.wait_balance()


class MistakeTest(EmbeddedCase):
    def test_a_breaker_that_cannot_work_is_warned_about_once_at_start_and_once_at_a_reload(self):
        mistakes = ("no sample can reach breaker", "opens on success and cannot recover")
        proxy = self.start({"routes": [{"breakers": ["lost"]}],
                            "embedded": {"breakers": [{"name": "hopeless", "kind": "error_rate", "threshold": 0}]}}, warnings=mistakes)

        def counts():
            return [sum(m in line for line in proxy.stderr().splitlines()) for m in mistakes]

        self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")
        self.assertEqual(counts(), [1, 1])
        proxy.reload()
        wait_until(lambda: counts() == [2, 2], 5, lambda: f"one more each: {counts()}")


class ManyHostsTest(EmbeddedCase):
    heavy = True

    def test_fifteen_hundred_hosts_fail_nothing_and_the_limit_is_counted(self):
        dns = self.dns()
        proxy = self.start({"workers": 2}, dns=dns, warnings=True)
        origin = self.http_origin()
        origin.record = False
        errors = []

        def run(first):
            try:
                client = Raw(proxy.address, 30)
                for i in range(first, first + 375):
                    response = client.get(f"http://host-{i}.test:{origin.port}/")
                    if response.status != 200:
                        errors.append(f"host-{i}: {response}")
                client.close()
            except Exception as e:  # noqa: BLE001
                errors.append(repr(e))

        threads = [threading.Thread(target=run, args=(n * 375,)) for n in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(errors, [])
        proxy.wait_balance(settled=True, timeout=20)
        m = proxy.metrics()
        self.assertEqual(m.sum("attempts_total", outcome="success"), 1500)
        self.assertLessEqual(m.sum("breakers"), 1000)
        counted = {k: v for k, v in m.items() if v >= 400 and ("auto" in k[0] or "refused" in k[0] or "rejected" in str(k) or
                                                               "limit" in str(k))}
        self.assertTrue(counted, "limits.auto_breakers turned 500 hosts away: that is counted")
        # Those that have a breaker are still protected.
        client = self.client(proxy)
        self.trip(client, origin, f"http://host-0.test:{origin.port}")

    def test_a_small_limit_protects_the_first_hosts_and_passes_the_others(self):
        dns = self.dns()
        proxy = self.start({"limits": {"auto_breakers": 3}, **self.QUICK}, dns=dns, warnings=True)
        origin, client = self.http_origin(), self.client(proxy)
        for i in range(3):
            self.assert_relayed(client.get(f"http://h{i}.test:{origin.port}/"), 200, b"ok")
        proxy.expect_metric(0, "limit_rejections_total", limit="auto_breakers")
        for i in (3, 4, 5, 4):
            self.assert_relayed(client.get(f"http://h{i}.test:{origin.port}/"), 200, b"ok")
        proxy.wait_balance(settled=True)
        proxy.expect_metric(3, "limit_rejections_total", limit="auto_breakers")
        ungated = [e for e in proxy.log() if e.get("event") == "hosts.ungated"]
        self.assertEqual([(e["level"], e["host"]) for e in ungated], [("warning", f"h3.test:{origin.port}")],
                         "one warning an hour, for the first host that has no place")
        self.assertIn("limits.auto_breakers is reached", ungated[0]["msg"])
        self.trip(client, origin, f"http://h0.test:{origin.port}")
        wait_until(lambda: client.get(f"http://h0.test:{origin.port}/").get("x-tripswitch-breaker"), 3, "h0 is protected")
        for _ in range(10):
            self.assert_relayed(client.get(f"http://h5.test:{origin.port}/"), 503, b"down\n")
        threading.Event().wait(0.5)
        self.assert_relayed(client.get(f"http://h5.test:{origin.port}/"), 503, b"down\n")
        proxy.expect_metric(3, "breakers")


class EmbeddedRoutesTest(EmbeddedCase):
    def test_a_route_may_name_breakers_that_nobody_defined(self):
        config = {**self.QUICK, "routes": [{"name": "pay", "match": {"hosts": ["pay.test"]}, "breakers": ["payments"],
                                            "router": "pay-router"}]}
        proxy = self.start(config, dns=self.dns())
        origin, client = self.http_origin(), self.client(proxy)
        self.assert_relayed(client.get(f"http://pay.test:{origin.port}/"), 200, b"ok")
        self.trip(client, origin, f"http://pay.test:{origin.port}")
        response = wait_until(lambda: next((r for r in [client.get(f"http://pay.test:{origin.port}/")]
                                            if r.get("x-tripswitch-breaker")), None), 3, "payments to open")
        self.assertEqual(response.reason, "Circuit breaker open: payments")
        # With routes present, a host that matches none passes ungated.
        for _ in range(8):
            self.assert_relayed(client.get(f"http://free.test:{origin.port}/"), 503, b"down\n")
        threading.Event().wait(0.4)
        self.assert_relayed(client.get(f"http://free.test:{origin.port}/"), 503, b"down\n")
        self.assertIsNone(proxy.breaker_state(f"free.test:{origin.port}"))

    def test_an_error_rate_breaker_of_ones_own_trips_by_its_rate(self):
        config = {"embedded": {"breakers": [{"name": "rate", "metric": "latency", "kind": "error_rate", "op": "gte",
                                             "threshold": 0.5, "window_ms": 60000, "min_count": 10, "eval_interval_ms": 100,
                                             "cooldown_ms": 60000}],
                               "routers": [{"id": "rtr", "breakers": ["rate"]}]},
                  "routes": [{"name": "all", "breakers": ["rate"], "router": "rtr"}]}
        proxy = self.start(config)
        origin, client = self.http_origin(), self.client(proxy)
        for _ in range(6):
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        for _ in range(3):
            self.assert_relayed(client.get(origin.url + "/status/500"), 500)
        threading.Event().wait(0.7)
        self.assertEqual(proxy.breaker_state("rate"), "closed", "3 of 9")
        for _ in range(4):
            self.assert_relayed(client.get(origin.url + "/status/500"), 500)
        proxy.wait_breaker("rate", "open", 3)

    def test_states_survive_a_reload(self):
        proxy = self.start({"embedded": {"auto_breaker": {"cooldown_ms": 60000}}})
        origin, client = self.http_origin(), self.client(proxy)
        self.trip(client, origin)
        name = self.breaker(origin)
        proxy.wait_breaker(name, "open", 3)
        proxy.reload()
        self.assertEqual(proxy.breaker_state(name), "open")
        self.assert_self_made(client.send(request("GET", origin.url + "/")).read_response(), 503, "destination_unavailable")

    def test_the_embedded_control_plane_opens_no_port_and_shows_no_key(self):
        proxy = self.start()
        with open(f"/proc/{proxy.pid}/net/tcp", encoding="ascii") as f:
            lines = [x.split() for x in f.readlines()[1:]]
        import os
        inodes = set()
        for fd in os.listdir(f"/proc/{proxy.pid}/fd"):
            try:
                target = os.readlink(f"/proc/{proxy.pid}/fd/{fd}")
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        ports = {int(x[1].split(":")[1], 16) for x in lines if x[3] == "0A" and x[9] in inodes}
        self.assertEqual(ports, {proxy.port, proxy.telemetry_port})
        self.assertNotIn("eb_pk_", proxy.stderr())
