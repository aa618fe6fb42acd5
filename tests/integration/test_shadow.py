"""Shadow mode: nothing is refused; what would have been is counted by what became of it."""

import threading

from harness import ROUTE_ALL, Case, free_port, merge, request, stays, wait_until
from harness.tunnels import tunnel


class ShadowTest(Case):
    def shadow(self, *routes, breakers, **kw):
        control = self.control(breakers)
        proxy = self.proxy({"mode": "shadow", "routes": list(routes), "access_log": {"mode": "all"}}, control,
                           dns=self.dns(), **kw)
        for name, state in breakers.items():
            proxy.wait_breaker(name, state if isinstance(state, str) else state[0])
        return proxy

    def test_with_every_breaker_open_nothing_is_refused_and_as_much_counted_as_enforce_refuses(self):
        origin = self.http_origin()
        breakers = {n: "open" for n in ("one", "two", "three")}
        routes = [{"name": n, "breakers": [n], "router": "rtr", "match": {"hosts": [f"{n}.test"]}} for n in breakers]
        paths = ["/", "/", "/status/500", "/reset", "/status/404", "/"]
        replay = [f"http://{n}.test:{origin.port}{path}" for n in breakers for path in paths]
        replay.append(f"http://none.test:{origin.port}/")
        decided = {}
        for mode in ("shadow", "enforce"):
            control = self.control(breakers)
            proxy = self.proxy({"mode": mode, "routes": routes}, control, dns=self.dns())
            for name in breakers:
                proxy.wait_breaker(name, "open")
            statuses = [self.get(url, proxy=proxy).status for url in replay]
            m = proxy.metrics()
            decision = "shadow_reject" if mode == "shadow" else "reject"
            outcome = "shadow_rejected" if mode == "shadow" else "rejected"
            decided[mode] = [m.one("breaker_decisions_total", breaker=n, decision=decision) for n in breakers]
            self.assertEqual(m.sum("requests_total", outcome=outcome), sum(decided[mode]))
            if mode == "shadow":
                self.assertEqual(statuses, [200, 200, 500, 502, 404, 200] * 3 + [200])
                for name in ("reject", "throttle"):
                    self.assertEqual(m.sum("breaker_decisions_total", decision=name), 0)
                self.assertEqual(m.sum("requests_total", outcome="rejected"), 0)
                control.wait_samples(len(paths) * 3)
            else:
                self.assertEqual(statuses, [503] * len(paths) * 3 + [200])
        self.assertEqual(decided["shadow"], decided["enforce"])
        self.assertEqual(sum(decided["shadow"]), len(replay) - 1)

    def test_a_refusal_would_have_been_right_if_the_request_failed_anyway(self):
        origin = self.http_origin()
        all_route = {"name": "all", "breakers": ["b"], "router": "rtr", "neutral": {"status": [418]}}
        proxy = self.shadow(all_route, breakers={"b": "open"})
        for path, n in (("/status/500", 3), ("/reset", 2), ("/", 4), ("/status/418", 1)):
            for _ in range(n):
                self.get(origin.url + path)
        self.get(f"http://127.0.0.1:{free_port()}/")
        m = proxy.metrics()
        self.assertEqual(m.by("shadow_refusals_total", "result"), {"right": 6, "wrong": 4, "neutral": 1})
        self.assertEqual(m.one("breaker_decisions_total", breaker="b", decision="shadow_reject"), 11)
        self.assertEqual(m.one("enforcement_mode", mode="shadow"), 1)
        by_name = {r["name"]: r for r in proxy.status()["routes"]}
        self.assertEqual(by_name["all"]["shadow_refusals"], {"right": 6, "wrong": 4, "neutral": 1})
        self.assertEqual(by_name["all"]["mode"], "shadow")
        page = proxy.telemetry("/").body.decode()
        self.assertIn("<tr><td>all</td><td>6</td><td>4</td><td>1</td></tr>", page)
        self.assertIn("shadow mode", page)
        lines = proxy.access_log()
        wait_until(lambda: len(proxy.access_log()) == 11, 5, "the log")
        lines = proxy.access_log()
        self.assertEqual({(e["result"], e["breaker"], e["decision"]) for e in lines},
                         {("shadow_rejected", "b", "deny_open")})
        self.assertEqual(sorted(e["status"] for e in lines), [200] * 4 + [418] + [500] * 3 + [502] * 3)

    def test_one_route_may_be_in_shadow_while_others_refuse(self):
        origin = self.http_origin()
        control = self.control({"b": "open"})
        routes = [{"name": "try", "breakers": ["b"], "router": "rtr", "mode": "shadow", "match": {"hosts": ["try.test"]}},
                  {"name": "all", "breakers": ["b"], "router": "rtr"}]
        proxy = self.proxy({"routes": routes}, control, dns=self.dns())
        proxy.wait_breaker("b", "open")
        self.assert_relayed(self.get(f"http://try.test:{origin.port}/"), 200, b"ok")
        self.assert_self_made(self.get(f"http://all.test:{origin.port}/"), 503)
        m = proxy.metrics()
        self.assertEqual(m.sum("shadow_refusals_total", route="try", result="wrong"), 1)
        self.assertEqual(m.sum("shadow_refusals_total", route="all"), 0)
        self.assertEqual({r["name"]: r["mode"] for r in proxy.status()["routes"] if r["name"] in ("try", "all")},
                         {"try": "shadow", "all": "enforce"})

    def test_what_a_bound_or_a_missing_state_would_refuse_is_counted_too(self):
        go = threading.Event()
        origin = self.origin(lambda c: (c.read_request(), c.wait(go), c.respond(200, b"ok")))
        proxy = self.shadow(merge(ROUTE_ALL, {"half_open": {"max_concurrent": 1}}), breakers={"b": ("half_open", 1.0)})
        clients = [self.client(proxy).send(request("GET", origin.url + "/")) for _ in range(3)]
        origin.wait_requests(3)
        m = proxy.metrics()
        self.assertEqual(m.one("half_open_limited_total", bound="concurrent"), 2)
        self.assertEqual(m.one("breaker_decisions_total", breaker="b", decision="shadow_reject"), 2)
        go.set()
        for client in clients:
            self.assert_relayed(client.read_response(), 200, b"ok")
        proxy.wait_metric(lambda v: v == 2, "shadow_refusals_total", result="wrong")

    def test_what_only_shadow_mode_lets_through_is_not_judged_as_a_probe(self):
        go = threading.Event()
        origin = self.origin(lambda c: (c.read_request(), c.wait(go), c.respond(200, b"ok")))
        bounds = {"no_response_after": "100ms", "eligible": {"methods": ["HEAD"]}}
        proxy = self.shadow(merge(ROUTE_ALL, {"half_open": bounds}), breakers={"b": ("half_open", 1.0)})
        probe = self.client(proxy).send(request("HEAD", origin.url + "/"))
        proxy.wait_metric(lambda v: v == 1, "attempts_total", outcome="no_response")
        other = self.client(proxy).send(request("GET", origin.url + "/"))
        origin.wait_requests(2)
        stays(lambda: proxy.metric("attempts_total", outcome="no_response") == 1, 0.5, "the probe alone is judged")
        go.set()
        self.assert_relayed(probe.read_response("HEAD"), 200)
        self.assert_relayed(other.read_response(), 200, b"ok")

    def test_tunnels_stay_whatever_tunnels_on_open_says(self):
        origin = self.origin(lambda c: (c.read_exactly(1), c.send("x"), c.read_exactly(1), c.send("y"), c.wait_for_end()))
        control = self.control()
        whole = {"name": "all", "breakers": ["b"], "router": "rtr", "mode": "shadow", "tunnels_on_open": "close"}
        proxy = self.proxy({"routes": [whole]}, control)
        client = tunnel(self.client(proxy), origin.authority).send(b"\x01")
        self.assertEqual(client.read_exactly(1), b"x")
        control.set("b", "open")
        proxy.wait_breaker("b", "open")
        client.expect_silence(1.3)
        client.send(b"\x01")
        self.assertEqual(client.read_exactly(1), b"y")
        proxy.expect_metric(0, "tunnels_closed_on_open_total")
        late = tunnel(self.client(proxy), origin.authority)
        late.close()
        client.close()
        proxy.wait_metric(lambda v: v == 1, "shadow_refusals_total", result="neutral")

    def test_http_inside_a_tunnel_is_counted_once_by_what_became_of_it(self):
        origin = self.http_origin()
        proxy = self.shadow(ROUTE_ALL, breakers={"b": "open"})
        client = tunnel(self.client(proxy), origin.authority)
        response = client.request(f"GET /status/500 HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n")
        self.assert_relayed(response, 500)
        m = proxy.metrics()
        self.assertEqual(m.by("shadow_refusals_total", "result"), {"right": 1})
        self.assertEqual(m.one("breaker_decisions_total", breaker="b", decision="shadow_reject"), 1)
        response = client.request(f"GET / HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n")
        self.assert_relayed(response, 200, b"ok")
        self.assertEqual(proxy.metrics().by("shadow_refusals_total", "result"), {"right": 1, "wrong": 1})
