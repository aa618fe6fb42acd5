"""From start to exit: ready in time, draining politely, gone with code 0 (UX 1, 3; ECOSYSTEM 8)."""

import os
import signal
import socket
import subprocess
import threading
import time

from harness import Case, Raw, StartError, has_ipv6, request, slowdown, stays, tool, variant, wait_until


class StartTest(Case):
    def test_at_the_first_startupz_200_a_request_succeeds(self):
        origin = self.http_origin()
        control = self.control()
        for _ in range(12):
            self.proxy({}, control)
            self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")

    def test_it_is_ready_quickly(self):
        control = self.control()
        took = []
        for _ in range(5):
            proxy = self.proxy({}, control)
            took.append(time.monotonic() - proxy.started_at)
        if variant() == "release":
            self.assertLess(min(took), 0.1, took)
        else:
            self.assertLess(min(took), 2, took)

    def test_a_black_holed_control_plane_delays_the_start_by_its_bound_only(self):
        control = self.control()
        control.stream_mode = "hole"
        proxy = self.proxy({"control": {"startup_sync_timeout": "700ms"}}, control, warnings=True, wait=False)
        early = []
        wait_until(lambda: self.probe(proxy, "/startupz", early) == 200, 10, "to be started")
        took = time.monotonic() - proxy.started_at
        self.assertTrue(0.6 < took < 1.5 + slowdown() * 0.5, took)
        self.assertIn(503, early, "not started before that")
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")
        proxy.expect_metric(1, "fail_open_active")

    @staticmethod
    def probe(proxy, path, seen):
        try:
            status = proxy.telemetry(path).status
        except OSError:
            return None
        seen.append(status)
        return status

    def test_require_sync_turns_a_missing_control_plane_into_exit_69(self):
        control = self.control()
        control.stream_mode = "hole"
        with self.assertRaises(StartError) as caught:
            self.proxy({"control": {"startup_sync_timeout": "300ms", "require_sync": True}}, control, warnings=True)
        self.assertEqual(caught.exception.code, 69)

    def test_liveness_and_readiness_do_not_depend_on_the_control_plane(self):
        control = self.control()
        proxy = self.proxy({}, control, warnings=True)
        control.go_away()
        proxy.wait_metric(lambda v: v == 0, "control_stream_connected")
        for path in ("/livez", "/readyz", "/startupz", "/healthz", "/ready"):
            self.assertEqual(proxy.telemetry(path).status, 200, path)


class ListenTest(Case):
    """The ready line and /status say where it really listens."""

    def ready(self, proxy):
        return wait_until(lambda: next((e for e in proxy.log() if e.get("event") == "ready"), None), 20,
                          lambda: f"the ready line; stderr:\n{proxy.stderr()[-3000:]}")

    def test_port_0_is_told_as_the_port_that_was_given(self):
        proxy = self.proxy({"workers": 2, "listen": ["127.0.0.1:0", "127.0.0.2:0"], "transparent_listen": ["127.0.0.1:0"],
                            "telemetry_listen": "127.0.0.1:0"}, self.control(), wait=False)
        ready = self.ready(proxy)
        proxy.telemetry_port = int(ready["telemetry"].rpartition(":")[2])
        told = proxy.status()["listeners"]
        self.assertEqual(",".join(told["proxy"]), ready["listen"])
        self.assertEqual(told["telemetry"], [ready["telemetry"]])
        self.assertEqual([t.rpartition(":")[0] for t in told["proxy"] + told["transparent"]], ["127.0.0.1", "127.0.0.2", "127.0.0.1"])
        url = self.http_origin().url + "/"
        for text in told["proxy"]:
            host, _, port = text.rpartition(":")
            client = Raw((host, int(port)))
            self.addCleanup(client.close)
            self.assert_relayed(client.get(url), 200, b"ok", text)
        self.assertIn(told["proxy"][0], ready["try"])

    def test_without_ipv6_the_ready_line_names_the_other_listener_alone(self):
        unshare, off = tool("unshare"), "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"
        sealed = [unshare or "unshare", "-n" if os.geteuid() == 0 else "-rn", "sh", "-c"]
        if not tool("ip") or not unshare or subprocess.run([*sealed, f"ip link set lo up && {off}"], capture_output=True, check=False).returncode:
            self.skipTest("NOT TESTED: A HOST WITHOUT IPv6, because no network namespace can be made here")
        for what, prepare, want in (("with", "ip link set lo up", "127.0.0.1:3128,[::1]:3128"),
                                    ("without", f"ip link set lo up && {off}", "127.0.0.1:3128")):
            if what == "with" and not has_ipv6():
                continue
            with self.subTest(what):
                # Where nobody outside can connect to, so the ports of the defaults are free.
                proxy = self.proxy({"listen": ["127.0.0.1:3128", "[::1]:3128"], "telemetry_listen": "off"}, None, wait=False,
                                   check_books=False, prefix=[*sealed, f'{prepare} && exec "$@"', "sh"])
                self.assertEqual(self.ready(proxy)["listen"], want)
                skipped = [e["listen"] for e in proxy.log() if e.get("event") == "listen.skipped"]
                self.assertEqual(skipped, [] if what == "with" else ["[::1]:3128"])
                proxy.stop()


class DrainTest(Case):
    def test_new_connections_are_served_while_draining_and_then_it_exits_with_0(self):
        control = self.control()
        proxy = self.proxy({"drain": {"min": "1500ms", "idle": "300ms", "max": "10s"}}, control)
        origin = self.http_origin()
        proxy.signal(signal.SIGTERM)
        began, last, n = time.monotonic(), 0, 0
        while time.monotonic() - began < 1.3:
            response = self.get(origin.url + "/")
            self.assert_relayed(response, 200, b"ok")
            self.assertNotIn("close", response.head.tokens("connection"))
            self.assertEqual(proxy.telemetry("/readyz").status, 503)
            self.assertEqual(proxy.telemetry("/livez").status, 200)
            proxy.expect_metric(1, "draining")
            last, n = time.monotonic(), n + 1
            threading.Event().wait(0.1)
        self.assertEqual(proxy.wait_exit(5), 0)
        self.assertLess(time.monotonic() - last, 2 + slowdown())
        self.assertEqual(len(control.samples), n, "flushed")

    def test_a_download_begun_before_sigterm_completes(self):
        control = self.control()
        proxy = self.proxy({"drain": {"min": "0s", "idle": "0s", "max": "15s"}}, control)
        origin = self.http_origin()
        client = self.client(proxy).send(request("GET", origin.url + "/drip/20/100"))
        client.read_until(b"\r\n\r\n")
        proxy.signal(signal.SIGTERM)
        self.assertEqual(len(client.read_exactly(20)), 20)
        client.close()
        self.assertEqual(proxy.wait_exit(10), 0)
        self.assertEqual([s["ok"] for s in control.samples], [True])

    def test_what_does_not_end_is_cut_at_drain_max_without_blaming_the_upstream(self):
        control = self.control()
        proxy = self.proxy({"drain": {"min": "0s", "idle": "0s", "max": "1s"}}, control)
        origin = self.http_origin()
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")
        client = self.client(proxy).send(request("GET", origin.url + "/drip/600/100"))
        client.read_until(b"\r\n\r\n")
        began = time.monotonic()
        proxy.signal(signal.SIGTERM)
        self.assertEqual(proxy.wait_exit(10), 0)
        took = time.monotonic() - began
        self.assertTrue(0.9 < took < 2 + slowdown(), took)
        self.assertEqual([s["ok"] for s in control.samples], [True], "a cut of ours makes no sample")

    def test_without_clients_and_drain_min_it_exits_at_once(self):
        proxy = self.proxy({"drain": {"min": "0s", "idle": "1s", "max": "25s"}}, self.control())
        began = time.monotonic()
        self.assertEqual(proxy.terminate(), 0)
        self.assertLess(time.monotonic() - began, 1.5 + slowdown() * 0.3)

    def test_it_serves_at_least_drain_min(self):
        proxy = self.proxy({"drain": {"min": "1s", "idle": "0s", "max": "25s"}}, self.control())
        began = time.monotonic()
        self.assertEqual(proxy.terminate(), 0)
        self.assertTrue(0.95 < time.monotonic() - began < 2.5, time.monotonic() - began)

    def test_an_idle_kept_client_connection_does_not_outlast_drain_max(self):
        proxy = self.proxy({"drain": {"min": "0s", "idle": "100ms", "max": "1500ms"}}, self.control())
        client = self.client(proxy)
        self.assert_relayed(client.get(self.http_origin().url + "/"), 200, b"ok")
        began = time.monotonic()
        self.assertEqual(proxy.terminate(), 0)
        self.assertLess(time.monotonic() - began, 2.5 + slowdown())

    def test_a_second_sigterm_means_now(self):
        proxy = self.proxy({"drain": {"min": "20s", "idle": "1s", "max": "25s"}}, self.control())
        proxy.signal(signal.SIGTERM)
        proxy.wait_metric(lambda v: v == 1, "draining")
        began = time.monotonic()
        proxy.signal(signal.SIGTERM)
        self.assertEqual(proxy.wait_exit(10), 143)
        self.assertLess(time.monotonic() - began, 1 + slowdown())
        proxy.stopped = True

    def test_sigint_drains_without_drain_min_and_exits_with_0(self):
        proxy = self.proxy({"drain": {"min": "20s", "idle": "0s", "max": "25s"}}, self.control())
        began = time.monotonic()
        proxy.signal(signal.SIGINT)
        self.assertEqual(proxy.wait_exit(10), 0)
        self.assertLess(time.monotonic() - began, 2 * slowdown())

    def test_a_second_sigint_is_130(self):
        proxy = self.proxy({"drain": {"min": "0s", "idle": "1s", "max": "25s"}}, self.control())
        client = self.client(proxy).send(request("GET", self.http_origin().url + "/hang"))
        proxy.wait_metric(lambda v: v == 1, "attempts_in_flight")
        proxy.signal(signal.SIGINT)
        proxy.wait_metric(lambda v: v == 1, "draining")
        proxy.signal(signal.SIGINT)
        self.assertEqual(proxy.wait_exit(10), 130)
        proxy.stopped = True
        client.close()

    def test_sigquit_stops_at_once(self):
        proxy = self.proxy({"drain": {"min": "20s", "idle": "1s", "max": "25s"}}, self.control())
        began = time.monotonic()
        proxy.signal(signal.SIGQUIT)
        proxy.wait_exit(10)
        self.assertLess(time.monotonic() - began, 1 + slowdown())
        proxy.stopped = True

    def test_sighup_during_the_drain_does_not_harm(self):
        proxy = self.proxy({"drain": {"min": "700ms", "idle": "0s", "max": "5s"}}, self.control())
        proxy.signal(signal.SIGTERM)
        for _ in range(20):
            try:
                proxy.signal(signal.SIGHUP)
            except ProcessLookupError:
                break
            threading.Event().wait(0.01)
        self.assertEqual(proxy.wait_exit(10), 0)


class RobustnessTest(Case):
    def test_sigpipe_and_vanishing_readers_do_no_harm(self):
        proxy = self.proxy({}, self.control())
        origin = self.http_origin()
        for _ in range(30):
            client = proxy.client()
            client.send(request("GET", origin.url + "/bytes/300000"))
            client.reset()
        proxy.signal(signal.SIGPIPE)
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")

    def test_a_stalled_log_reader_never_delays_traffic(self):
        read_end, write_end = os.pipe()
        self.addCleanup(os.close, read_end)
        proxy = self.proxy({"access_log": {"mode": "all"}}, self.control(), stdout=write_end, warnings=True)
        os.close(write_end)
        origin = self.http_origin()
        client = self.client(proxy)
        slowest = 0
        for _ in range(2500):
            began = time.monotonic()
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
            slowest = max(slowest, time.monotonic() - began)
        self.assertLess(slowest, slowdown())
        proxy.wait_metric(lambda n: n > 0, "log_lines_dropped_total")
        client.close()

    def test_a_closed_stdout_does_no_harm(self):
        read_end, write_end = os.pipe()
        proxy = self.proxy({"access_log": {"mode": "all"}}, self.control(), stdout=write_end, warnings=True)
        os.close(write_end)
        os.close(read_end)
        for _ in range(20):
            self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")
        self.assertEqual(proxy.telemetry("/livez").status, 200)

    def test_it_runs_without_a_writable_place_and_without_a_known_user(self):
        proxy = self.proxy({}, self.control(), env={"HOME": "/nonexistent", "TMPDIR": "/nonexistent"})
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")
        opened = []
        for fd in os.listdir(f"/proc/{proxy.pid}/fd"):
            try:
                opened.append(os.readlink(f"/proc/{proxy.pid}/fd/{fd}"))
            except FileNotFoundError:
                pass  # closed meanwhile
        files = [f for f in opened if f.startswith("/") and not f.startswith(("/dev/", "/proc/", proxy.dir))]
        self.assertEqual(files, [])

    def test_a_hung_worker_is_seen_by_livez_and_a_busy_one_is_not(self):
        proxy = self.proxy({"workers": 2}, self.control())
        stays(lambda: proxy.telemetry("/livez").status == 200, 0.5, "/livez")

    def test_its_own_proxy_variables_do_not_matter(self):
        origin = self.http_origin()
        port_holder = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(port_holder.close)
        url = f"http://127.0.0.1:{port_holder.getsockname()[1]}"
        self.proxy({}, self.control(), env={"HTTP_PROXY": url, "http_proxy": url})
        client = Raw(self._proxies[-1].address)
        self.addCleanup(client.close)
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
