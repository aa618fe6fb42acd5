"""The admin listener and the subcommands that use it: overrides, bypass, explain, status."""

import json
import os
import re
import signal
import socket
import threading
import time

from harness import ROUTE_ALL, Case, Raw, free_port, has_ipv6, merge, run_binary, slowdown, wait_until
from harness.tunnels import connect, echo, tunnel

GUARD = "X-Tripswitch-Admin: 1"
READS = ["/", "/config", "/explain?url=http://a/", "/routes"]
CHANGES = [("POST", "/reload"), ("PUT", "/breakers/b/override"), ("DELETE", "/breakers/b/override"), ("PUT", "/bypass"),
           ("DELETE", "/bypass")]


class AdminCase(Case):
    """A proxy with an admin listener, and one to talk to it."""

    def start(self, config=None, control=None, **kw):
        self.port = free_port()
        return self.proxy(merge({"admin_listen": f"127.0.0.1:{self.port}"}, config or {}), control, **kw)

    def raw_admin(self, method, path, *lines, body=b"", version="HTTP/1.1", address="127.0.0.1"):
        """Exactly these header fields, Content-Length apart."""
        out = [f"{method} {path} {version}", *lines]
        if body or method in ("PUT", "POST"):
            out.append(f"Content-Length: {len(body)}")
        conn = Raw((address, self.port))
        try:
            conn.send("\r\n".join(out).encode() + b"\r\n\r\n" + body)
            return conn.read_response(method)
        finally:
            conn.close()

    def admin(self, method, path, body=None, status=200):
        data = json.dumps(body).encode() if isinstance(body, dict) else body or b""
        response = self.raw_admin(method, path, f"Host: 127.0.0.1:{self.port}", GUARD, "Connection: close", body=data)
        self.assertEqual(response.status, status, f"{method} {path}: {response} {response.body!r}")
        return json.loads(response.body) if response.body[:1] in (b"{", b"[") else response.body

    def hold(self, name, state, ttl="60s", reason="a test"):
        return self.admin("PUT", f"/breakers/{name}/override", {"state": state, "ttl": ttl, "reason": reason})

    def bypass(self, ttl="60s", reason="a test"):
        return self.admin("PUT", "/bypass", {"ttl": ttl, "reason": reason})

    def cli(self, *args, code=0, env=None):
        done = run_binary(*args, env=env)
        self.assertEqual(done.returncode, code, f"{args}: {done.stdout}{done.stderr}")
        self.assertEqual(done.stderr.count("\n") <= 1, True, done.stderr)
        for line in done.stdout.splitlines():
            self.assertLessEqual(len(line), 80, line)
        return done

    def events(self, proxy, name):
        return [e for e in proxy.log() if e.get("event") == name]


class GuardTest(AdminCase):
    def test_what_could_come_from_a_page_or_a_foreign_name_changes_nothing(self):
        proxy = self.start({}, self.control())
        ours = f"Host: 127.0.0.1:{self.port}"
        order = json.dumps({"state": "open", "ttl": "60s", "reason": "x"}).encode()
        bad = {
            "no header": [ours],
            "another value": [ours, "X-Tripswitch-Admin: 0"],
            "true": [ours, "X-Tripswitch-Admin: true"],
            "twice": [ours, GUARD, GUARD],
            "an Origin": [ours, GUARD, f"Origin: http://127.0.0.1:{self.port}"],
            "a null Origin": [ours, GUARD, "Origin: null"],
            "no Host": [GUARD],
            "a foreign Host": ["Host: evil.test", GUARD],
            "a foreign Host with our port": [f"Host: evil.test:{self.port}", GUARD],
            "a Host that begins as ours": [f"Host: 127.0.0.1.evil.test:{self.port}", GUARD],
            "localhost below a domain": [f"Host: localhost.evil.test:{self.port}", GUARD],
            "another port": ["Host: 127.0.0.1:1", GUARD],
            "no port": ["Host: 127.0.0.1", GUARD],
            "an address of the network": [f"Host: 192.0.2.1:{self.port}", GUARD],
            "the same as IPv6": [f"Host: [::ffff:192.0.2.1]:{self.port}", GUARD],
            "every address": [f"Host: 0.0.0.0:{self.port}", GUARD],
            "two Hosts": [ours, ours, GUARD],
        }
        for what, lines in bad.items():
            for method, path in [("GET", p) for p in READS] + CHANGES:
                with self.subTest(what, method=method, path=path):
                    response = self.raw_admin(method, path, *lines, "Connection: close", body=order if method == "PUT" else b"")
                    self.assertEqual(response.status, 403, response)
                    problem = json.loads(response.body)
                    self.assertEqual((problem["status"], response.get("content-type")), (403, "application/problem+json"))
        response = self.raw_admin("PUT", f"http://127.0.0.1:{self.port}/bypass", ours, GUARD, body=order)
        self.assertEqual(response.status, 403, "absolute-form is meant for a proxy")
        m = proxy.metrics()
        self.assertEqual((m.sum("overrides"), m.sum("bypass_active"), m.sum("config_reloads_total")), (0, 0, 0))

    def test_every_loopback_spelling_of_host_is_ours(self):
        self.start({}, self.control())
        for host in ("127.0.0.1", "127.9.8.7", "localhost", "LocalHost", "[::1]", "[::ffff:127.0.0.1]"):
            with self.subTest(host):
                response = self.raw_admin("GET", "/", f"Host: {host}:{self.port}", GUARD, "Connection: close")
                self.assertEqual(response.status, 200, response)

    def test_get_on_what_changes_something_is_405_and_says_what_is_allowed(self):
        proxy = self.start({}, self.control())
        for path, allow in (("/reload", "POST"), ("/breakers/b/override", "PUT, DELETE"), ("/bypass", "PUT, DELETE")):
            for method in ("GET", "HEAD", "PATCH", "OPTIONS"):
                for lines in ([], [f"Host: 127.0.0.1:{self.port}", GUARD]):
                    with self.subTest(path, method=method, lines=lines):
                        response = self.raw_admin(method, path, *lines, "Connection: close")
                        self.assertEqual((response.status, response.get("allow")), (405, allow), response)
        for path in READS:
            with self.subTest(path):
                response = self.raw_admin("POST", path, f"Host: 127.0.0.1:{self.port}", GUARD, "Connection: close")
                self.assertEqual((response.status, response.get("allow")), (405, "GET, HEAD"))
        proxy.expect_metric(0, "config_reloads_total")

    def test_unknown_paths_are_404(self):
        self.start({}, self.control())
        for path in ("/nowhere", "/config/", "/breakers", "/breakers/b", "/breakers//override", "/breakers/a/b/override",
                     "/bypass/x"):
            with self.subTest(path):
                self.admin("GET", path, status=404)

    def test_a_malformed_order_is_refused_and_says_why(self):
        proxy = self.start({}, self.control())
        cases = [
            (b"", "JSON object"), (b"x", "JSON object"), (b"[]", "JSON object"), (b"{}", "state"),
            ({"state": "ajar", "ttl": "1m", "reason": "x"}, "state"), ({"state": "open", "reason": "x"}, "ttl"),
            ({"state": "open", "ttl": "25h", "reason": "x"}, "24h"), ({"state": "open", "ttl": "0s", "reason": "x"}, "24h"),
            ({"state": "open", "ttl": "1m"}, "reason"), ({"state": "open", "ttl": "1m", "reason": "x" * 201}, "200"),
            ({"state": "open", "ttl": "1m", "reason": "x", "for": "1m"}, "for"),
        ]
        for body, word in cases:
            with self.subTest(body=body):
                self.assertIn(word, self.admin("PUT", "/breakers/b/override", body, status=400)["detail"])
        self.assertIn("did you mean \"b\"", self.admin("PUT", "/breakers/bb/override", {"state": "open", "ttl": "1m",
                      "reason": "x"}, status=404)["detail"])
        self.admin("PUT", "/bypass", {"ttl": "1m"}, status=400)
        proxy.expect_metric(0, "overrides")

    def test_a_body_too_large_and_a_head_too_long_are_refused(self):
        self.start({}, self.control())
        conn = Raw(("127.0.0.1", self.port))
        self.addCleanup(conn.close)
        conn.send(f"PUT /bypass HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{GUARD}\r\nContent-Length: 1048577\r\n\r\n")
        conn.try_send(b"x" * 1048577)
        self.assertEqual(conn.read_response("PUT").status, 413)
        response = self.raw_admin("GET", "/", f"Host: 127.0.0.1:{self.port}", GUARD, "X: " + "y" * 9000)
        self.assertEqual(response.status // 100, 4)

    def test_it_listens_on_loopback_only_or_not_at_all(self):
        for value, says in (("0.0.0.0:3131", "must be on loopback"), ("192.0.2.1:3131", "must be on loopback"),
                            ("[::]:3131", "must be on loopback"), ("unix:/tmp/x", "admin_listen"), ("localhost:3131", "127.0.0.1")):
            with self.subTest(value):
                done = run_binary("check", "--admin-listen", value)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(says, done.stderr.replace("--admin-listen", "admin_listen"))
        self.assertEqual(run_binary("check", "--admin-listen", "off").returncode, 0)


class PrivateTest(AdminCase):
    """Nobody reaches the admin or telemetry listener through the proxy, however it is spelt."""

    def test_every_spelling_of_our_private_listeners_is_refused(self):
        dns_names = {"us.test": "127.0.0.1", "every.test": "0.0.0.0"}
        dns = self.dns()
        for name, address in dns_names.items():
            dns.set(name, address)
        proxy = self.start({"routes": [ROUTE_ALL]}, self.control(), dns=dns, warnings=True)
        hosts = ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:0.0.0.0]",
                 "2130706433", "0x7f000001", "127.1", "0177.0.0.1", *dns_names]
        hosts += ["[::]"] if has_ipv6() else []
        asked = []
        for port in (self.port, proxy.telemetry_port):
            for host in hosts:
                for method in ("GET", "PUT", "CONNECT"):
                    with self.subTest(host, port=port, method=method):
                        client = self.client(proxy)
                        if method == "CONNECT":
                            response = connect(client, f"{host}:{port}")
                        else:
                            response = client.get(f"http://{host}:{port}/bypass", GUARD, method=method, body=b"{}")
                        client.close()
                        self.assert_self_made(response, response.status, ("destination_ip_prohibited", "http_request_error"))
                        self.assertIn(response.status, (400, 502))
                        asked.append(response.status)
        self.assertEqual(asked.count(502) >= 2 * 3 * 8, True, asked)
        self.assertEqual((proxy.metric("bypass_active"), proxy.metric("upstream_connections_total", result="ok")), (0, 0))

    def test_the_second_loopback_is_refused_as_well(self):
        if not has_ipv6():
            self.skipTest("no IPv6 here")
        self.port = free_port(("127.0.0.1", "::1"))
        proxy = self.proxy({"admin_listen": [f"127.0.0.1:{self.port}", f"[::1]:{self.port}"]}, self.control(), warnings=True)
        response = self.raw_admin("GET", "/", f"Host: [::1]:{self.port}", GUARD, "Connection: close", address="::1")
        self.assertEqual(response.status, 200)
        for host in ("[::1]", "[0:0::1]", "127.0.0.1", "localhost"):
            with self.subTest(host):
                self.assert_self_made(self.get(f"http://{host}:{self.port}/", GUARD, proxy=proxy), 502, "destination_ip_prohibited")

    def test_an_address_of_the_network_that_telemetry_listens_on_is_refused(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.connect(("192.0.2.1", 9))
                mine = s.getsockname()[0]
            except OSError:
                self.skipTest("this host has only loopback")
        port = free_port(("0.0.0.0",))
        proxy = self.start({"telemetry_listen": f"0.0.0.0:{port}"}, self.control(), warnings=True)
        self.assert_self_made(self.get(f"http://{mine}:{port}/metrics", proxy=proxy), 502, "destination_ip_prohibited")


class OverrideTest(AdminCase):
    def test_open_refuses_and_everybody_can_see_why(self):
        control = self.control()
        proxy = self.start({}, control)
        origin, client = self.http_origin(), self.client()
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        held = self.hold("b", "open", reason="the deploy of \"7\"")
        self.assertEqual((held["state"], held["override"]["state"]), ("closed", "open"))

        response = client.get(origin.url + "/")
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual((response.get("x-tripswitch-breaker"), response.get("x-tripswitch-state"),
                          response.get("x-tripswitch-decision")), ("b", "override", "reject"))
        self.assertIn('open: the deploy of \\"7\\""', response.get("proxy-status"))
        problem = json.loads(response.body)
        self.assertEqual((problem["state"], problem["reason"]), ("override", "the deploy of \"7\""))
        self.assertEqual(origin.hits, 1)

        m = proxy.metrics()
        self.assertEqual(m.sum("breaker_override_active", breaker="b"), 1)
        self.assertEqual(m.sum("breaker_decisions_total", breaker="b", decision="override_reject"), 1)
        self.assertEqual(m.sum("breaker_decisions_total", breaker="b", decision="reject"), 0)
        self.assertEqual(m.sum("requests_total", outcome="rejected"), 1)
        self.assertEqual(proxy.breaker_state("b"), "closed", "the server's state is shown beside it, unchanged")
        self.assertEqual(proxy.breakers()["b"]["override"]["reason"], "the deploy of \"7\"")
        self.assertEqual([o["breaker"] for o in proxy.status()["overrides"]], ["b"])
        page = proxy.telemetry("/").body.decode()
        self.assertIn("held open", page)
        self.assertIn("overrides by hand: 1", page)
        line = wait_until(lambda: next((a for a in proxy.access_log() if a["status"] == 503), None), 5, "the line")
        self.assertEqual((line["decision"], line["override"], line["result"]), ("deny_override", True, "rejected"))
        self.assertEqual(line["breaker_state"], "closed")
        wait_until(lambda: self.events(proxy, "override.begun"), 5, "the log to say so")
        self.assertEqual(self.events(proxy, "override.begun")[0]["reason"], "the deploy of \"7\"")

        self.assertEqual(self.admin("DELETE", "/breakers/b/override"), {"ended": True})
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        self.assertEqual(proxy.breakers()["b"]["override"], None)
        self.assertEqual(self.admin("DELETE", "/breakers/b/override"), {"ended": False})
        wait_until(lambda: [e["why"] for e in self.events(proxy, "override.ended")] == ["removed"], 5, "the log to say so")
        control.wait_samples(2)
        self.assertEqual([r for r in control.requests if "override" in r], [], "the control plane is not told")

    def test_closed_lets_through_what_the_server_has_open_and_samples_it(self):
        control = self.control({"b": "open"})
        proxy = self.start({"access_log": {"mode": "all"}}, control)
        origin, client = self.http_origin(), self.client()
        self.assert_self_made(client.get(origin.url + "/"), 503)
        self.hold("b", "closed")
        self.assert_relayed(client.get(origin.url + "/status/500"), 500)
        m = proxy.metrics()
        self.assertEqual(m.sum("breaker_decisions_total", breaker="b", decision="override_allow"), 1)
        self.assertEqual(m.sum("breaker_decisions_total", breaker="b", decision="allow"), 0)
        self.assertEqual(proxy.breaker_state("b"), "open")
        self.assertEqual(control.wait_samples(1)[0]["ok"], False)
        line = wait_until(lambda: next((a for a in proxy.access_log() if a["status"] == 500), None), 5, "the line")
        self.assertEqual((line["decision"], line["override"], line["result"]), ("allow_override", True, "forwarded"))

    def test_it_ends_by_itself_and_on_time(self):
        proxy = self.start({"access_log": {"mode": "off"}}, self.control())  # more lines than a test reads
        origin, client = self.http_origin(), self.client()
        began = time.monotonic()
        self.hold("b", "open", ttl="700ms")
        answered = time.monotonic()
        last = None
        while time.monotonic() - answered < 5:
            if client.get(origin.url + "/").status == 200:
                break
            last = time.monotonic()
        self.assertIsNotNone(last, "it never held")
        self.assertLess(last - answered, 0.75, "a request that began after the end was refused")
        self.assertGreater(time.monotonic() - began, 0.65, "it ended too early")
        wait_until(lambda: [e["why"] for e in self.events(proxy, "override.ended")] == ["expired"], 5, "the log to say so")
        proxy.expect_metric(0, "breaker_override_active", breaker="b")
        self.assertEqual(proxy.status()["overrides"], [])

    def test_a_reload_leaves_it_in_place(self):
        proxy = self.start({}, self.control({"b": "closed", "c": "closed"}))
        origin = self.http_origin()
        self.hold("b", "open")
        routes = [{"name": "renamed", "breakers": ["c", "b"], "router": "rtr"}]
        proxy.write_config(merge(proxy.config, {"routes": routes}))
        self.assertRegex(self.admin("POST", "/reload")["config_hash"], r"^[0-9a-f]{16}$")
        response = self.get(origin.url + "/")
        self.assertEqual((response.status, response.get("x-tripswitch-breaker"), response.get("x-tripswitch-state")),
                         (503, "b", "override"))

    def test_it_is_known_where_the_server_is_not(self):
        control = self.control({"b": "closed"})
        control.stream_mode = 500
        proxy = self.start({"fail_mode": "closed", "control": {"startup_sync_timeout": "0s"}}, control, warnings=True)
        origin, client = self.http_origin(), self.client()
        self.assertEqual(client.get(origin.url + "/").get("x-tripswitch-state"), "unknown")
        self.hold("b", "closed")
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        self.assertEqual(proxy.breaker_state("b"), "unknown")
        self.admin("DELETE", "/breakers/b/override")
        self.assertEqual(client.get(origin.url + "/").get("x-tripswitch-state"), "unknown")

    def test_other_breakers_of_a_route_go_on_by_themselves(self):
        control = self.control({"b": "open", "c": "closed"})
        proxy = self.start({"routes": [{"name": "all", "breakers": ["b", "c"], "router": "rtr"}]}, control)
        origin, client = self.http_origin(), self.client()
        self.hold("b", "closed")
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        control.set("c", "open")
        proxy.wait_breaker("c", "open")
        response = client.get(origin.url + "/")
        self.assertEqual((response.get("x-tripswitch-breaker"), response.get("x-tripswitch-state")), ("c", "open"))

    def test_names_from_the_server_with_odd_bytes_can_be_held(self):
        name = "a/b c?d\u00e9"
        proxy = self.start({"routes": [{"name": "all", "breakers": ["b"], "router": "rtr"}]}, self.control({"b": "closed", name: "closed"}))
        wait_until(lambda: name in proxy.breakers(), 5, "the name")
        self.hold("a%2Fb%20c%3Fd%C3%A9", "open")
        self.assertEqual(proxy.breakers()[name]["override"]["state"], "open")

    def test_holding_a_breaker_open_ends_idle_tunnels(self):
        proxy = self.start({}, self.control(), warnings=True)
        origin = self.origin(echo)
        client = self.client()
        tunnel(client, f"127.0.0.1:{origin.port}")
        client.send(b"\x00hello")
        self.assertEqual(client.read_exactly(6, "the echo"), b"\x00hello")
        self.hold("b", "open")
        client.expect_eof("the end of the tunnel")
        proxy.expect_metric(1, "tunnels_closed_on_open_total")

    def test_holding_a_breaker_closed_spares_tunnels_that_the_server_would_end(self):
        control = self.control()
        proxy = self.start({}, control, warnings=True)
        origin = self.origin(echo)
        client = self.client()
        tunnel(client, f"127.0.0.1:{origin.port}")
        client.send(b"\x00hello")
        self.assertEqual(client.read_exactly(6, "the echo"), b"\x00hello")
        self.hold("b", "closed")
        control.set("b", "open")
        proxy.wait_breaker("b", "open")
        client.expect_silence(2.5)
        self.admin("DELETE", "/breakers/b/override")
        client.expect_eof("the end of the tunnel")


class BypassTest(AdminCase):
    def test_everything_passes_within_100_ms_and_is_still_counted_and_sampled(self):
        control = self.control({"b": "open"})
        proxy = self.start({"access_log": {"mode": "all"}}, control)
        origin, client = self.http_origin(), self.client()
        self.assert_self_made(client.get(origin.url + "/"), 503)
        began = time.monotonic()
        self.assertEqual(self.bypass(reason="an incident")["bypass"], True)
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        self.assertLess(time.monotonic() - began, 0.2 * slowdown())

        m = proxy.metrics()
        self.assertEqual(m.sum("bypass_active"), 1)
        self.assertEqual(m.sum("requests_total", outcome="bypassed"), 1)
        self.assertEqual(m.sum("attempts_total", route="all", outcome="success"), 1)
        status = proxy.status()
        self.assertEqual((status["bypass"], status["bypass_held"]["reason"]), (True, "an incident"))
        self.assertIn("bypass is on", proxy.telemetry("/").body.decode())
        self.assertEqual(len(control.wait_samples(1)), 1)
        line = wait_until(lambda: next((a for a in proxy.access_log() if a["status"] == 200), None), 5, "the line")
        self.assertEqual(line["result"], "bypassed")
        self.assertNotIn("breaker", line)

        self.assertEqual(self.admin("DELETE", "/bypass"), {"ended": True})
        self.assert_self_made(client.get(origin.url + "/"), 503)
        self.assertEqual(self.admin("DELETE", "/bypass"), {"ended": False})
        wait_until(lambda: [e["why"] for e in self.events(proxy, "bypass.ended")] == ["removed"], 5, "the log to say so")
        self.assertEqual([e["reason"] for e in self.events(proxy, "bypass.begun")], ["an incident"])

    def test_it_ends_at_its_time_although_the_control_plane_is_down(self):
        control = self.control({"b": "open"})
        proxy = self.start({"control": {"state_max_age": "off"}}, control, warnings=True)
        origin, client = self.http_origin(), self.client()
        control.go_away()
        wait_until(lambda: proxy.metric("control_stream_connected") == 0, 10, "the stream to be lost")
        self.bypass(ttl="800ms")
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        wait_until(lambda: client.get(origin.url + "/").status == 503, 5, "bypass to end")
        proxy.expect_metric(0, "bypass_active")
        wait_until(lambda: [e["why"] for e in self.events(proxy, "bypass.ended")] == ["expired"], 5, "the log to say so")

    def test_a_tunnel_and_the_http_inside_are_bypassed_as_well(self):
        proxy = self.start({}, self.control({"b": "open"}), warnings=True)
        origin, client = self.http_origin(), self.client()
        self.assertEqual(connect(client, f"127.0.0.1:{origin.port}").status, 503)
        self.bypass()
        client = self.client()
        tunnel(client, f"127.0.0.1:{origin.port}")
        for n in (1, 2):
            response = client.request(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{origin.port}\r\n\r\n")
            self.assertEqual(response.status, 200)
            wait_until(lambda n=n: proxy.metric("requests_total", mode="connect", outcome="bypassed") >= n, 5, "the count")
        self.admin("DELETE", "/bypass")
        self.assertEqual(client.request(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{origin.port}\r\n\r\n").status, 503)

    def test_a_host_without_a_breaker_is_not_called_bypassed(self):
        proxy = self.start({"routes": [{"name": "other", "match": {"hosts": ["other.test"]}, "breakers": ["b"], "router": "r"}]},
                           self.control())
        self.bypass()
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")
        proxy.expect_metric(0, "requests_total", outcome="bypassed")


class EndpointsTest(AdminCase):
    def test_reload_tells_of_success_and_of_every_mistake(self):
        proxy = self.start({}, self.control({"b": "closed", "c": "open"}), warnings=True)
        origin = self.http_origin()
        good = merge(proxy.config, {"routes": [{"name": "all", "breakers": ["c"], "router": "rtr"}]})
        proxy.write_config(good)
        self.assertIsNone(self.admin("POST", "/reload")["restart_required_by"])
        self.assert_self_made(self.get(origin.url + "/"), 503)
        proxy.write_config(json.dumps({**good, "wrokers": 1, "mode": "maybe"}))
        problem = self.admin("POST", "/reload", status=422)
        self.assertEqual(len(problem["errors"]), 2, problem)
        self.assertRegex(problem["errors"][0], r"config\.json:1:\d+: /")
        proxy.expect_metric(0, "config_last_reload_successful")
        self.assert_self_made(self.get(origin.url + "/"), 503, msg="the running configuration stays")
        proxy.config = good
        proxy.write_config(merge(good, {"workers": 2}))
        self.assertEqual(self.admin("POST", "/reload")["restart_required_by"], "workers")

    def test_the_configuration_is_shown_without_secrets(self):
        control = self.control()
        proxy = self.start({"control": {"proxy": None}}, control)
        shown = self.admin("GET", "/config")
        self.assertEqual(shown["admin_listen"], [f"127.0.0.1:{self.port}"])
        self.assertEqual(shown["routes"][0]["breakers"], ["b"])
        text = json.dumps(shown)
        for secret in (control.api_key, control.ingest_secret):
            self.assertNotIn(secret, text)
        self.assertEqual([r["name"] for r in self.admin("GET", "/routes")], ["all"])
        self.assertIn(b"/breakers/{name}/override", self.admin("GET", "/"))
        self.assertEqual(proxy.access_log(), [], "the admin listener is not in the access log")

    def test_explain_asks_the_states_that_hold_now(self):
        control = self.control({"b": "closed"})
        proxy = self.start({}, control)

        def verdict():
            got = self.admin("GET", "/explain?url=http%3A%2F%2Fa.test%2F")
            return got["verdict"], round(got["probability"], 3), got["breakers"][0]["state"]

        self.assertEqual(verdict(), ("allowed", 1, "closed"))
        for state, rate, want in (("open", None, ("rejected", 0, "open")), ("half_open", 0.25, ("by_chance", 0.25, "half_open")),
                                  ("half_open", 0, ("rejected", 0, "half_open"))):
            control.set("b", state, rate)
            wait_until(lambda want=want: verdict() == want, 5, lambda want=want: f"{want}, it is {verdict()}")
        self.hold("b", "closed")
        self.assertEqual(verdict(), ("allowed", 1, "half_open"))
        proxy.expect_metric(0, "breaker_decisions_total", why="nothing was decided by asking")
        self.admin("GET", "/explain?url=a.test", status=400)
        self.admin("GET", "/explain", status=400)

    def test_many_ask_while_workers_decide(self):
        proxy = self.start({"workers": 2}, self.control())
        origin = self.http_origin()
        seen, stop = set(), threading.Event()

        def work():
            client = proxy.client()
            while not stop.is_set():
                seen.add(client.get(origin.url + "/").status)
            client.close()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        try:
            for _ in range(40):
                self.hold("b", "open", ttl="50ms")
                self.bypass(ttl="20ms")
                self.admin("DELETE", "/breakers/b/override")
        finally:
            stop.set()
            for t in threads:
                t.join()
        self.assertLessEqual(seen, {200, 503})
        wait_until(lambda: proxy.metric("bypass_active") == 0, 5, "bypass to end")
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")


class CommandTest(AdminCase):
    def test_override_holds_and_releases_with_one_line_each(self):
        proxy = self.start({}, self.control())
        origin = self.http_origin()
        where = ["--config", proxy.config_path]  # no key is needed to ask
        done = self.cli("override", "b", "open", "--for", "10m", "--reason", "ask Ann", *where)
        self.assertRegex(done.stdout, r"^b is held open here until 20[\d-]+T[\d:]+Z\nThe control plane says closed.\n$")
        self.assertEqual(json.loads(self.get(origin.url + "/").body)["reason"], "ask Ann")
        self.assertEqual(self.cli("override", "b", "auto", f"--admin=127.0.0.1:{self.port}").stdout,
                         "b goes by the control plane's state again\n")
        self.assertEqual(self.cli("override", "b", "auto", *where).stdout, "b was not overridden\n")
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")
        done = self.cli("override", "bb", "open", "--for=1m", "--reason=x", *where, code=1)
        self.assertIn('did you mean "b"', done.stderr)
        self.assertEqual(done.stdout, "")

    def test_bypass_goes_on_and_off(self):
        proxy = self.start({}, self.control({"b": "open"}))
        origin = self.http_origin()
        env = {"TRIPSWITCH_PROXY_ADMIN_LISTEN": f"127.0.0.1:{self.port}",
               "http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}
        self.assertRegex(self.cli("bypass", "on", "--for", "1m", "--reason", "x", env=env).stdout, "^bypass is on until 20")
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")
        self.assertEqual(self.cli("bypass", "off", env=env).stdout, "bypass is off: breakers gate again\n")
        self.assertEqual(self.cli("bypass", "off", env=env).stdout, "bypass was not on\n")
        proxy.expect_metric(0, "bypass_active")

    def test_mistakes_on_the_command_line_are_usage_errors_with_one_suggestion(self):
        cases = [
            (["override"], "missing"), (["override", "b"], "missing"), (["override", "b", "open", "x"], "too many"),
            (["override", "b", "opne", "--for", "1m", "--reason", "x"], 'did you mean "open"'),
            (["override", "b", "open"], "--for"), (["override", "b", "open", "--for", "1m"], "--reason"),
            (["override", "b", "open", "--for", "1", "--reason", "x"], "--for"),
            (["override", "b", "open", "--for", "25h", "--reason", "x"], "24h"),
            (["override", "b", "open", "--for"], "value of --for"), (["override", "b", "auto", "--for", "1m"], "neither"),
            (["override", "b", "open", "--fro", "1m"], "did you mean --for"),
            (["bypass", "no"], 'did you mean "on"'), (["bypass", "on", "--reason", "x"], "--for"),
            (["explain"], "missing"), (["explain", "a.test", "--offline"], "http://"),
            (["explain", "http://a/", "--offline", "--header", "x"], "Name: value"), (["status", "--json=1"], "no value"),
            (["status", "x"], "too many"), (["bypass", "off", "--admin", "nowhere"], "127.0.0.1:3131"),
            (["ovveride"], 'did you mean "override"'), (["status", "--xyzzy"], "status --help"),
        ]
        for args, says in cases:
            with self.subTest(args=args):
                done = self.cli(*args, code=2)
                self.assertIn(says, done.stderr)
                self.assertEqual(done.stdout, "")

    def test_help_fits_80_columns(self):
        for command in ("override", "bypass", "explain", "status"):
            for flag in ("--help", "-h"):
                with self.subTest(command, flag=flag):
                    done = self.cli(command, flag)
                    self.assertTrue(done.stdout.startswith(f"Usage: tripswitch-proxy {command}"))
                    self.assertIn("Exit codes:", done.stdout)
        listed = run_binary("--help").stdout
        for command in ("override", "bypass", "explain", "status"):
            self.assertRegex(listed, rf"(?m)^  {command}\b")

    def test_without_a_proxy_they_say_what_to_do(self):
        port = free_port()
        for args in (["override", "b", "auto"], ["bypass", "off"]):
            with self.subTest(args=args):
                done = self.cli(*args, f"--admin-listen=127.0.0.1:{port}", code=69)
                self.assertIn(f"no proxy answers on 127.0.0.1:{port}", done.stderr)
                self.assertIn("--admin", done.stderr)
        self.assertIn("admin_listen is off", self.cli("bypass", "off", "--admin-listen=off", code=69).stderr)
        self.assertIn("telemetry_listen", self.cli("status", f"--telemetry=127.0.0.1:{port}", code=69).stderr)
        self.assertEqual(self.cli("status", "--quiet", f"--telemetry=127.0.0.1:{port}", code=69).stderr, "")

    def test_explain_is_aligned_and_its_exit_code_is_the_verdict(self):
        long_name = "a-breaker-with-a-name-of-some-length"
        control = self.control({"b": "open", long_name: "closed"})
        proxy = self.start({"routes": [
            {"name": "post", "match": {"hosts": ["pay.test"], "methods": ["POST"], "headers": {"x-tenant": "blue"}}, "breakers": [long_name]},
            {"name": "pay", "match": {"hosts": ["*.pay.test", "pay.test"]}, "breakers": ["b", long_name], "router": "rtr"}]},
            control, warnings=True)
        proxy.wait_breaker("b", "open")
        where = ["--config", proxy.config_path]
        self.assertEqual(self.cli("explain", "http://a.pay.test/", *where, code=3).stdout.splitlines(), [
            "request    GET a.pay.test:80",
            "route      pay (number 2), by the host pattern *.pay.test",
            "mode       enforce, fail_mode open",
            "router     rtr",
            "states     known",
            "breakers   b                                     open",
            f"           {long_name}  closed",
            "verdict    would be rejected: the breaker is open (b)"])
        done = self.cli("explain", "http://pay.test/x", "--method", "POST", "--header", "X-Tenant: blue", *where)
        self.assertIn("post (number 1)", done.stdout)
        self.assertIn("not taken  post", self.cli("explain", "https://pay.test/", *where, code=3).stdout)
        self.assertIn("CONNECT pay.test:443", self.cli("explain", "https://pay.test/", *where, code=3).stdout)
        self.hold("b", "closed", reason="words enough to need a second line, and some more of them behind those")
        held = self.cli("explain", "http://a.pay.test/", *where).stdout
        self.assertRegex(held, r"breakers   b +open; held\s+closed\s+by\s+hand\s+for\s+(1m|\d+s)\s+more:\s+words")
        got = json.loads(run_binary("explain", "http://a.pay.test/", "--json", *where).stdout)
        self.assertEqual((got["verdict"], got["decided_by"]), ("allowed", "b"))
        control.set(long_name, "half_open", 0.125)
        proxy.wait_breaker(long_name, "half_open")
        self.assertIn("would be allowed with probability 0.125: the breaker is half-open",
                      self.cli("explain", "http://a.pay.test/", *where).stdout)
        self.bypass()
        self.assertIn("bypass is on", self.cli("explain", "http://a.pay.test/", *where).stdout)

    def test_explain_knows_hosts_that_have_no_breaker_of_their_own(self):
        origins = [self.http_origin() for _ in range(2)]
        hosts = [o.authority for o in origins]
        config = {"limits": {"auto_breakers": 1}, "routes": [{"name": "all", "breakers": ["{host}"], "router": "r"}]}
        self.start(config, self.control({h: "open" for h in hosts}), warnings=True)
        seen = [self.get(o.url + "/").status for o in origins]
        self.assertEqual(seen, [503, 200], "the second has no place")
        for origin, verdict in zip(origins, ("rejected", "allowed")):
            got = self.admin("GET", f"/explain?url=http%3A%2F%2F{origin.authority.replace(':', '%3A')}%2F")
            self.assertEqual(got["verdict"], verdict, got)

    def test_explain_and_status_tell_of_metadata_that_has_not_come(self):
        control, origin = self.control(), self.http_origin()
        control.list_fault = 503
        proxy = self.start({"routes": [{"name": "all", "breakers": {"metadata": {"region": "eu"}}, "fail_mode": "closed"}],
                            "control": {"startup_sync_timeout": "300ms"}}, control, warnings=True)
        self.assert_self_made(self.get(origin.url + "/"), 503)
        where = ["--config", proxy.config_path]
        shown = self.cli("explain", origin.url + "/", *where, code=3).stdout
        self.assertIn("breakers   selected by metadata, not loaded yet: region=eu\n", shown)
        self.assertRegex(shown, r"would be rejected: the breakers are selected by metadata, not loaded\s+yet, and")
        route = json.loads(run_binary("explain", origin.url + "/", "--json", *where).stdout)["route"]
        self.assertEqual((route["breakers_metadata"], route["breakers_loaded"]), ({"region": "eu"}, False))
        alone = self.cli("explain", origin.url + "/", "--offline", *where).stdout
        self.assertIn("not loaded yet: region=eu", alone)
        self.assertIn("verdict    not known", alone)
        self.assertIn("states known, metadata not loaded", self.cli("status", *where).stdout)

    def test_explain_refuses_addresses_that_the_proxy_would_not_connect_to(self):
        proxy = self.start({"access": {"deny_destinations": ["127.0.0.2/32"]}, "routes": [
            {"name": "bound", "match": {"hosts": ["bound.test"]}, "breakers": ["h"], "half_open": {"max_concurrent": 3}},
            {"name": "all", "breakers": ["c"]}]}, self.control({"h": ("half_open", 1.0), "c": "closed"}))
        proxy.wait_breaker("h", "half_open")
        where = ["--config", proxy.config_path]
        for url, why in (("http://127.0.0.2/", "access.deny_destinations"), (proxy.url + "/", "is this proxy"),
                         (f"http://127.0.0.1:{self.port}/", "a private port of this proxy")):
            with self.subTest(url):
                self.assert_self_made(self.get(url), 502)
                self.assertIn(f"{why} (502)", " ".join(self.cli("explain", url, *where, code=3).stdout.split()))
        shown = self.cli("explain", "http://bound.test/", *where).stdout
        self.assertIn("would be allowed: half-open, and bounds limit admission further", shown)
        self.assertIn("bounds     half_open.max_concurrent\n", shown)

    def test_explain_goes_by_the_configuration_when_no_proxy_answers(self):
        config = os.path.join(self.temp_dir(), "c.json")
        with open(config, "w", encoding="ascii") as f:
            json.dump({"control": {"project_id": "proj_x"}, "admin_listen": f"127.0.0.1:{free_port()}",
                       "access": {"connect_ports": [443]}, "bypass": ["plain.test"],
                       "routes": [{"name": "pay", "match": {"hosts": ["pay.test"]}, "breakers": ["b-{host}"], "router": "r-{host}"}]}, f)
        done = self.cli("explain", "https://pay.test/", "--config", config)
        self.assertIn("explained from the configuration alone", done.stderr)
        self.assertIn("b-pay.test  (state not known)", done.stdout)
        self.assertIn("router     r-pay.test", done.stdout)
        self.assertIn("verdict    not known", done.stdout)
        self.assertEqual(self.cli("explain", "https://pay.test/", "--config", config, "--offline").stderr, "")
        self.assertIn("bypass     plain.test", self.cli("explain", "http://plain.test/", "--config", config, "--offline").stdout)
        self.assertIn("connect_ports", self.cli("explain", "https://pay.test:1/", "--config", config, "--offline", code=3).stdout)
        done = run_binary("explain", "http://a/", "--config", config + ".absent")
        self.assertEqual(done.returncode, 78)

    def test_what_the_server_calls_its_breakers_cannot_steer_a_terminal(self):
        name = "evil\u001b[2J\u009b\u007f"
        proxy = self.start({}, self.control({"b": "closed", name: "closed"}))
        wait_until(lambda: name in proxy.breakers(), 5, "the name")
        done = self.cli("override", name, "open", "--for", "1m", "--reason", "x", "--config", proxy.config_path)
        self.assertTrue(done.stdout.startswith("evil?[2J?? is held"), done.stdout)
        self.assertRegex(self.cli("status", "--config", proxy.config_path).stdout, r"by hand +evil\?\[2J\?\? is open")

    def test_status_is_one_screen_and_its_exit_code_tells(self):
        control = self.control({"b": "open"})
        proxy = self.start({"drain": {"min": "20s", "max": "25s"}}, control)
        proxy.wait_breaker("b", "open")
        where = ["--config", proxy.config_path]
        self.hold("b", "closed", reason="a test")
        text = self.cli("status", *where).stdout
        self.assertLess(text.count("\n"), 24)
        for pattern in (r"^health     healthy$", r"^breakers   1 open, ", r"^by hand    b is closed, until \S+Z: a test$",
                        r"^control    \S+, connected, states known$", rf"admin 127\.0\.0\.1:{self.port}$"):
            self.assertRegex(text, "(?m)" + pattern)
        self.assertEqual(json.loads(run_binary("status", "--json", *where).stdout)["bypass"], False)
        self.assertEqual(self.cli("status", "--quiet", *where).stdout, "")
        proxy.signal(signal.SIGTERM)
        done = wait_until(lambda: next((d for d in [run_binary("status", *where)] if d.returncode == 1), None), 5, "the drain")
        self.assertIn("degraded: draining", done.stdout)
        self.assertEqual(run_binary("status", "--quiet", *where).returncode, 1)
        proxy.kill()

    def test_a_listener_on_every_address_is_asked_on_loopback(self):
        port = free_port()
        self.start({"telemetry_listen": f"0.0.0.0:{port}"}, self.control())
        self.cli("status", env={"TRIPSWITCH_PROXY_TELEMETRY_LISTEN": f"0.0.0.0:{port}"})
