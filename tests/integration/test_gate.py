"""The gate: who is let through (DESIGN: check, decide; "Known state")."""

import concurrent.futures
import math
import time

from harness import Case, SharedCase, chunk, request, wait_until


def route(name, match=None, breakers=None, **more):
    out = {"name": name, "breakers": breakers if breakers is not None else [name], "router": "rtr-" + name}
    if match:
        out["match"] = match
    out.update(more)
    return out


class RouteTest(SharedCase):
    warnings = ["a tunnel (HTTPS) never matches"]
    NAMES = ["exact", "suffix", "port", "method", "path", "path-star", "header", "both", "later", "rest"]
    breakers = {n: "open" for n in NAMES}
    config = {"routes": [
        route("exact", {"hosts": ["exact.test"]}),
        route("suffix", {"hosts": ["*.suffix.test"]}),
        route("port", {"hosts": ["port.test"], "ports": [81, "1000-1002"]}),
        route("method", {"hosts": ["shop.test"], "methods": ["POST", "PUT"]}),
        route("path", {"hosts": ["shop.test"], "paths": ["/v1/charge"]}),
        route("path-star", {"hosts": ["shop.test"], "paths": ["/v1/refunds/*", "/%41*"]}),
        route("header", {"hosts": ["shop.test"], "headers": {"x-tenant": "blue"}}),
        route("both", {"hosts": ["a.test", "b.test"], "methods": ["GET"]}),
        route("later", {"hosts": ["a.test", "exact.test"]}),
    ]}

    def refused_by(self, url, *lines, method="GET"):
        """The breaker that refused the request, or None if the proxy let it through (there is nobody there)."""
        response = self.get(url, *lines, method=method)
        return response.get("x-tripswitch-breaker") if response.status == 503 else None

    def test_the_first_route_that_matches_decides(self):
        port = self.http_origin().port
        cases = [
            # host
            ("http://exact.test/", [], "GET", "exact"),
            ("http://EXACT.Test/", [], "GET", "exact"),
            ("http://exact.test./", [], "GET", "exact"),
            (f"http://not-exact.test:{port}/", [], "GET", None),
            (f"http://exact.test.test:{port}/", [], "GET", None),
            ("http://a.suffix.test/", [], "GET", "suffix"),
            ("http://a.b.suffix.test/", [], "GET", "suffix"),
            (f"http://suffix.test:{port}/", [], "GET", None),
            (f"http://asuffix.test:{port}/", [], "GET", None),
            # port
            ("http://port.test:81/", [], "GET", "port"),
            ("http://port.test:1000/", [], "GET", "port"),
            ("http://port.test:1002/", [], "GET", "port"),
            (f"http://port.test:{port}/", [], "GET", None),
            # method
            ("http://shop.test/", [], "POST", "method"),
            ("http://shop.test/", [], "PUT", "method"),
            (f"http://shop.test:{port}/", [], "post", None),
            (f"http://shop.test:{port}/", [], "GET", None),
            # path: raw bytes up to the question mark
            ("http://shop.test/v1/charge", [], "GET", "path"),
            ("http://shop.test/v1/charge?x=1", [], "GET", "path"),
            (f"http://shop.test:{port}/v1/charge/", [], "GET", None),
            (f"http://shop.test:{port}/v1/Charge", [], "GET", None),
            (f"http://shop.test:{port}/v1/%63harge", [], "GET", None),
            (f"http://shop.test:{port}/x?/v1/charge", [], "GET", None),
            ("http://shop.test/v1/refunds/", [], "GET", "path-star"),
            ("http://shop.test/v1/refunds/7/x?y", [], "GET", "path-star"),
            (f"http://shop.test:{port}/v1/refunds", [], "GET", None),
            ("http://shop.test/%41bc", [], "GET", "path-star"),
            # header: name without case, value exactly
            ("http://shop.test/", ["X-Tenant: blue"], "GET", "header"),
            ("http://shop.test/", ["x-TENANT:   blue  "], "GET", "header"),
            (f"http://shop.test:{port}/", ["X-Tenant: Blue"], "GET", None),
            (f"http://shop.test:{port}/", ["X-Tenant: blue2"], "GET", None),
            # order of the file
            ("http://shop.test/v1/charge", ["X-Tenant: blue"], "POST", "method"),
            ("http://shop.test/v1/charge", ["X-Tenant: blue"], "GET", "path"),
            ("http://a.test/", [], "GET", "both"),
            ("http://a.test/", [], "POST", "later"),
            ("http://b.test/", [], "GET", "both"),
        ]
        for url, lines, method, want in cases:
            with self.subTest(url=url, lines=lines, method=method):
                self.assertEqual(self.refused_by(url, *lines, method=method), want)

    def test_a_host_no_route_matches_passes_ungated_and_unreported(self):
        origin = self.http_origin()
        recorded = self.delta("samples_recorded_total")
        self.assert_relayed(self.get(f"http://nobody.test:{origin.port}/"), 200, b"ok")
        self.assertEqual(recorded(), 0)
        self.px.wait_metric(lambda n: n > 0, "attempts_total", route="_default", outcome="success")


class StateTest(SharedCase):
    warnings = True  # an unknown state is one

    def test_open_refuses_and_closed_lets_through(self):
        origin = self.http_origin()
        client = self.client()
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        self.cp.set("b", "open")
        self.px.wait_breaker("b", "open")
        self.assert_self_made(client.get(origin.url + "/"), 503, "destination_unavailable")
        self.cp.set("b", "closed")
        self.px.wait_breaker("b", "closed")
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        self.assertEqual(origin.hits, 2)

    def test_an_unknown_state_is_dropped_and_the_last_one_stays(self):
        self.cp.set("b", "open")
        self.px.wait_breaker("b", "open")
        unknown = self.delta("control_stream_events_total", type="unknown")
        self.cp.send_raw(b'event: state\ndata: {"breaker":"b","state":"ajar","allow_rate":null}\n\n')
        self.wait_until(lambda: unknown() == 1, 5, "the event to be counted")
        self.assertEqual(self.px.breaker_state("b"), "open")
        self.cp.set("b", "closed")
        self.px.wait_breaker("b", "closed")

    def test_a_change_takes_effect_at_once_on_a_kept_connection(self):
        origin = self.http_origin()
        client = self.client()
        for state, want in [("open", 503), ("closed", 200), ("open", 503), ("closed", 200)] * 3:
            self.cp.set("b", state)
            self.px.wait_breaker("b", state)
            self.assertEqual(client.get(origin.url + "/").status, want)


class HalfOpenTest(SharedCase):
    """Statistics within five standard deviations: a wrong rule is far outside of them."""

    N = 1500
    breakers = {"b": "closed", "one": "closed", "two": "closed"}
    workers = 2
    warnings = True  # null in half_open is warned about
    config = {"routes": [
        {"name": "pair", "match": {"hosts": ["pair.test"]}, "breakers": ["one", "two"], "router": "rtr"},
        {"name": "all", "breakers": ["b"], "router": "rtr"},
    ]}

    def admitted(self, host):
        origin = self.http_origin()
        origin.record = False
        per_thread = self.N // 4

        def run():
            client = self.px.client()
            statuses = [client.get(f"http://{host}:{origin.port}/").status for _ in range(per_thread)]
            client.close()
            return statuses

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            statuses = [s for f in [pool.submit(run) for _ in range(4)] for s in f.result()]
        self.assertEqual(set(statuses) - {200, 503}, set())
        self.assertEqual(statuses.count(200), origin.hits, "a refused request never reaches the origin")
        return statuses.count(200), len(statuses)

    def assert_rate(self, host, rate, msg):
        got, n = self.admitted(host)
        slack = 5 * math.sqrt(n * rate * (1 - rate))
        self.assertLessEqual(abs(got - n * rate), slack, f"{msg}: {got} of {n} let through, wanted {rate} of them")

    def test_half_open_lets_the_given_share_through(self):
        for rate in (0.2, 0.75):
            self.cp.set("b", "half_open", rate)
            self.wait_rate("b", rate)
            self.assert_rate("all.test", rate, f"allow_rate {rate}")

    def wait_rate(self, name, rate):
        wait_until(lambda: abs(self.px.metric("breaker_allow_ratio", breaker=name) - rate) < 1e-6 and
                   self.px.breaker_state(name) == "half_open", 5, f"{name} half open at {rate}")

    def test_zero_admits_nobody_and_one_admits_all(self):
        for rate, want in ((0, 0), (1, self.N)):
            self.cp.set("b", "half_open", rate)
            self.wait_rate("b", rate)
            got, n = self.admitted("all.test")
            self.assertEqual(got, want if want == 0 else n, f"allow_rate {rate}")

    def test_several_breakers_share_one_draw_against_the_lowest_rate(self):
        self.cp.set("one", "half_open", 0.5)
        self.cp.set("two", "half_open", 0.6)
        self.wait_rate("one", 0.5)
        self.wait_rate("two", 0.6)
        self.assert_rate("pair.test", 0.5, "two draws would admit 0.3")

    def test_null_in_half_open_admits_nobody_and_is_warned_about(self):
        self.cp.set("b", "half_open", None)
        self.px.wait_breaker("b", "half_open")
        self.assertEqual(self.admitted("all.test")[0], 0)
        self.wait_until(lambda: any("b" in w and "null" in w for w in self.px.warning_lines()), 5, "a warning that names it")
        self.cp.set("b", "closed")
        self.px.wait_breaker("b", "closed")

    def test_any_open_breaker_refuses_whatever_the_others_say(self):
        origin = self.http_origin()
        for one, two, who in [("open", "closed", "one"), ("closed", "open", "two"), ("open", "half_open", "one")]:
            with self.subTest(one=one, two=two):
                self.cp.set("one", one)
                self.cp.set("two", two, 1.0 if two == "half_open" else None)
                self.px.wait_breaker("one", one)
                self.px.wait_breaker("two", two)
                response = self.get(f"http://pair.test:{origin.port}/")
                self.assert_self_made(response, 503, "destination_unavailable")
                self.assertEqual(response.get("x-tripswitch-breaker"), who)
        self.assertEqual(origin.hits, 0)
        for name in ("one", "two"):
            self.cp.set(name, "closed")
            self.px.wait_breaker(name, "closed")

    def test_a_throttled_request_is_refused_like_an_open_one(self):
        self.cp.set("b", "half_open", 0)
        self.px.wait_breaker("b", "half_open")
        response = self.get("http://all.test:9/")
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual(response.get("x-tripswitch-state"), "half_open")
        self.assertEqual(response.get("x-tripswitch-breaker"), "b")
        self.cp.set("b", "closed")
        self.px.wait_breaker("b", "closed")


class BeforeAnythingTest(Case):
    def test_a_refused_request_causes_no_dns_query_no_connect_and_no_sample(self):
        dns, control = self.dns(), self.control({"b": "open"})
        origin = self.origin(lambda c: None)
        proxy = self.proxy({}, control, dns=dns)
        proxy.wait_breaker("b", "open")
        client = self.client(proxy)
        for i in range(20):
            self.assert_self_made(client.get(f"http://host{i}.test:{origin.port}/"), 503, "destination_unavailable")
            self.assert_self_made(client.get(f"{origin.url}/"), 503, "destination_unavailable")
        self.assertEqual(dns.queries, [])
        self.assertEqual(origin.connections, [])
        m = proxy.metrics()
        self.assertEqual((m.sum("attempts_started_total"), m.sum("samples_recorded_total")), (0, 0))
        self.assertEqual(m.sum("breaker_decisions_total", breaker="b", decision="reject"), 40)


class KnownStateTest(Case):
    def closed_and_open_routes(self):
        return [{"name": "careful", "match": {"hosts": ["careful.test"]}, "breakers": ["b"], "router": "rtr",
                 "fail_mode": "closed"},
                {"name": "all", "breakers": ["b"], "router": "rtr"}]

    def test_never_synced_follows_fail_mode(self):
        control = self.control()
        control.stream_mode = 500
        origin = self.http_origin()
        proxy = self.proxy({"routes": self.closed_and_open_routes(), "control": {"startup_sync_timeout": "200ms"}},
                           control, dns=self.dns(), warnings=True)
        self.assert_relayed(self.get(f"http://other.test:{origin.port}/"), 200, b"ok")
        response = self.get(f"http://careful.test:{origin.port}/")
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual(response.get("x-tripswitch-state"), "unknown")
        self.assertEqual(origin.hits, 1)
        proxy.expect_metric(0, "control_state_synced")
        control.stream_mode = "ok"
        wait_until(lambda: proxy.metric("control_state_synced") == 1, 20, "to be synced at last")
        self.assert_relayed(self.get(f"http://careful.test:{origin.port}/"), 200, b"ok")

    def test_a_snapshot_that_never_ends_is_no_known_state_whatever_it_named(self):
        for state, host, status in (("open", "other.test", 200), ("closed", "careful.test", 503)):
            with self.subTest(named=state, host=host):
                control = self.control({"b": state})
                control._stream = lambda conn, head, c=control, s=state: self.cut_snapshot(c, conn, s)
                origin = self.http_origin()
                routes = [route("waited-for", {"hosts": ["unused.test"]}), *self.closed_and_open_routes()]
                proxy = self.proxy({"routes": routes, "control": {"startup_sync_timeout": "200ms"}}, control,
                                   dns=self.dns(), warnings=True)
                wait_until(lambda: proxy.breaker_state("b") == state, 5, "the breaker to be named")
                proxy.wait_metric(lambda v: v == 0, "control_stream_connected")
                proxy.expect_metric(0, "control_state_synced")
                for _ in range(3):
                    response = self.get(f"http://{host}:{origin.port}/")
                    if status == 200:
                        self.assert_relayed(response, 200, b"ok")
                    else:
                        self.assert_self_made(response, 503, "destination_unavailable")
                        self.assertEqual(response.get("x-tripswitch-state"), "unknown")

    @staticmethod
    def cut_snapshot(control, conn, state):
        """The first stream names one breaker of two and ends; then there is none."""
        control.stream_opens.append(time.monotonic())
        if len(control.stream_opens) > 1:
            control._answer(conn, 503)
            return True
        conn.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" +
                          chunk(control.event("b", state)))
        return False

    def test_stale_state_follows_fail_mode_and_recovers(self):
        control = self.control({"b": "open"})
        origin = self.http_origin()
        proxy = self.proxy({"routes": self.closed_and_open_routes(), "control": {"state_max_age": "1s"}}, control,
                           dns=self.dns(), warnings=True)
        proxy.wait_breaker("b", "open")
        control.go_away()
        proxy.wait_metric(lambda v: v == 0, "control_stream_connected")
        self.assert_self_made(self.get(f"http://other.test:{origin.port}/"), 503)  # not stale yet: obeyed
        wait_until(lambda: self.get(f"http://other.test:{origin.port}/").status == 200, 5, "stale state to be let go")
        response = self.get(f"http://careful.test:{origin.port}/")
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual(response.get("x-tripswitch-state"), "unknown")
        control.come_back()
        wait_until(lambda: self.get(f"http://other.test:{origin.port}/").status == 503, 20, "state to be known again")

    def test_state_max_age_off_obeys_the_last_state_for_ever(self):
        control = self.control({"b": "open"})
        origin = self.http_origin()
        proxy = self.proxy({"control": {"state_max_age": "off"}}, control, warnings=True)
        proxy.wait_breaker("b", "open")
        control.go_away()
        proxy.wait_metric(lambda v: v == 0, "control_stream_connected")
        proxy.wait_metric(lambda v: v >= 2, "control_stream_connects_total", 20, result="network")
        self.assert_self_made(self.get(origin.url + "/"), 503)

    def test_state_max_age_zero_is_stale_at_once(self):
        control = self.control({"b": "open"})
        origin = self.http_origin()
        proxy = self.proxy({"control": {"state_max_age": "0s"}}, control, warnings=True)
        self.assert_self_made(self.get(origin.url + "/"), 503)
        control.go_away()
        wait_until(lambda: self.get(origin.url + "/").status == 200, 3, "stale at once")
        proxy.expect_metric(0, "control_stream_connected")

    def test_a_name_the_server_does_not_have_is_allowed_in_both_fail_modes_and_warned_about_once(self):
        control = self.control({"other": "closed"})
        origin = self.http_origin()
        for mode in ("open", "closed"):
            with self.subTest(mode):
                proxy = self.proxy({"fail_mode": mode}, control, warnings=["b"])
                proxy.expect_metric(1, "control_state_synced")
                for _ in range(3):
                    self.assert_relayed(self.get(origin.url + "/", proxy=proxy), 200, b"ok")
                wait_until(proxy.warning_lines, 5, "the warning")
                self.assertEqual(len(proxy.warning_lines()), 1, proxy.warning_lines())

    def test_a_project_without_breakers_is_synced_by_a_comment(self):
        control = self.control({})
        proxy = self.proxy({"routes": [{"name": "all", "router": "rtr"}], "fail_mode": "closed"}, control)
        proxy.expect_metric(1, "control_state_synced")
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")

    def test_a_silent_stream_is_synced_after_a_moment(self):
        control = self.control({}, heartbeat_s=None)
        control.stream_mode = "silent"
        proxy = self.proxy({"routes": [{"name": "all", "router": "rtr"}], "fail_mode": "closed"}, control)
        wait_until(lambda: proxy.metric("control_state_synced") == 1, 3, "250 ms to pass without an event")
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")


class ModeTest(Case):
    def test_mode_off_gates_nothing_and_makes_no_samples(self):
        control = self.control({"b": "open"})
        proxy = self.proxy({"mode": "off"}, control, warnings=True)
        proxy.wait_breaker("b", "open")
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")
        proxy.expect_metric(0, "samples_recorded_total")

    def test_a_bypassed_host_is_forwarded_ungated_unless_a_route_names_it(self):
        control = self.control({"b": "open"})
        config = {"bypass": ["free.test", "named.test"], "routes": [
            {"name": "named", "match": {"hosts": ["named.test"]}, "breakers": ["b"], "router": "rtr"},
            {"name": "all", "breakers": ["b"], "router": "rtr"}]}
        origin = self.http_origin()
        proxy = self.proxy(config, control, dns=self.dns(), warnings=True)
        proxy.wait_breaker("b", "open")
        self.assert_relayed(self.get(f"http://free.test:{origin.port}/"), 200, b"ok")
        self.assert_self_made(self.get(f"http://named.test:{origin.port}/"), 503)
        self.assert_self_made(self.get(f"http://other.test:{origin.port}/"), 503)

    def test_a_template_gives_every_host_its_own_breaker_and_router(self):
        origin = self.http_origin()
        control = self.control({f"up-a.test:{origin.port}": "open", f"up-b.test:{origin.port}": "closed"})
        proxy = self.proxy({"routes": [{"name": "all", "breakers": ["up-{host}"], "router": "rtr-{host}"}]}, control,
                           dns=self.dns(), warnings=True)
        proxy.wait_breaker(f"up-a.test:{origin.port}", "open")
        response = self.get(f"http://A.test.:{origin.port}/")
        self.assert_self_made(response, 503)
        self.assertEqual(response.get("x-tripswitch-breaker"), f"up-a.test:{origin.port}")
        self.assert_relayed(self.get(f"http://b.test:{origin.port}/"), 200, b"ok")
        sample = control.wait_samples(1)[0]
        self.assertEqual(sample["router_id"], f"rtr-b.test:{origin.port}")

    def test_the_main_job_from_end_to_end(self):
        control = self.control({"payments": "closed"}, routers={"rtr-pay"})
        origin = self.http_origin()
        proxy = self.proxy({"routes": [{"name": "payments", "match": {"hosts": ["payments.test"]},
                                        "breakers": ["payments"], "router": "rtr-pay"}]}, control, dns=self.dns())
        url = f"http://payments.test:{origin.port}"
        client = self.client(proxy)
        relayed = 0
        for _ in range(10):
            self.assert_relayed(client.get(url + "/"), 200, b"ok")
            self.assert_relayed(client.get(url + "/status/500"), 500)
            relayed += 2
        control.wait_samples(relayed)
        control.set("payments", "open")
        proxy.wait_breaker("payments", "open")
        for _ in range(10):
            response = client.get(url + "/")
            self.assert_self_made(response, 503, "destination_unavailable")
            self.assertEqual(response.reason, "Circuit breaker open: payments")
        control.set("payments", "half_open", 0.5)
        proxy.wait_breaker("payments", "half_open")
        statuses = [client.get(url + "/").status for _ in range(200)]
        self.assertTrue(60 < statuses.count(200) < 140, statuses.count(200))
        relayed += statuses.count(200)
        control.set("payments", "closed")
        proxy.wait_breaker("payments", "closed")
        self.assert_relayed(client.get(url + "/"), 200, b"ok")
        relayed += 1
        samples = control.wait_samples(relayed)
        books = proxy.wait_balance(settled=True)
        self.assertEqual(len(control.samples), relayed)
        self.assertEqual((books.started, books.sent), (relayed, relayed))
        self.assertEqual(sum(not s["ok"] for s in samples), 10)
        self.assertEqual({s["router_id"] for s in samples}, {"rtr-pay"})
        self.assertEqual({s["metric"] for s in samples}, {"latency"})
        self.assertEqual(origin.hits, relayed)
