"""What operators see: probes, metrics, status, logs (ECOSYSTEM sections 2.2, 6, 7)."""

import json
import re
import threading

from harness import Case, Metrics, Raw, SharedCase, request, wait_until

# Names that exist in this version, with their types.
METRICS = {
    "build_info": "gauge", "ready": "gauge", "draining": "gauge", "config_last_reload_successful": "gauge",
    "config_last_reload_success_timestamp_seconds": "gauge", "config_reloads_total": "counter",
    "config_restart_required": "gauge", "enforcement_mode": "gauge", "requests_total": "counter",
    "requests_in_flight": "gauge", "request_duration_seconds": "histogram", "attempts_total": "counter",
    "attempts_started_total": "counter", "attempts_in_flight": "gauge",
    "client_errors_total": "counter", "retries_total": "counter", "limit_rejections_total": "counter",
    "client_connections_total": "counter", "client_connections": "gauge", "upstream_connections_total": "counter",
    "upstream_connections": "gauge", "upstream_connections_idle": "gauge", "upstream_connection_reuses_total": "counter",
    "breaker_state": "gauge", "breaker_allow_ratio": "gauge", "breaker_decisions_total": "counter",
    "breaker_transitions_total": "counter", "breakers": "gauge", "control_stream_connected": "gauge",
    "control_stream_connects_total": "counter", "control_stream_disconnects_total": "counter",
    "control_stream_events_total": "counter", "control_stream_last_event_timestamp_seconds": "gauge",
    "control_state_synced": "gauge", "fail_open_active": "gauge", "samples_recorded_total": "counter",
    "samples_sent_total": "counter", "samples_dropped_total": "counter", "samples_skipped_total": "counter",
    "samples_buffered": "gauge", "samples_in_flight": "gauge", "samples_buffer_capacity": "gauge",
    "sample_batches_total": "counter", "dns_lookups_total": "counter", "log_lines_dropped_total": "counter",
}
STANDARD = ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds",
            "process_start_time_seconds"]


class TelemetryTest(SharedCase):
    warnings = ["transitions_suppressed"]
    breakers = {"b": "closed", "half": ("half_open", 0.25), "open": "open"}
    config = {"routes": [{"name": "all", "breakers": ["b"], "router": "rtr"}]}

    def test_probes_answer_get_and_head(self):
        for path in ("/livez", "/readyz", "/startupz", "/healthz", "/ready"):
            for method in ("GET", "HEAD"):
                with self.subTest(path, method=method):
                    response = self.px.telemetry(path, method)
                    self.assertEqual(response.status, 200)
                    if method == "GET":
                        self.assertIn(b"ok", response.body)
                    else:
                        self.assertEqual(response.body, b"")

    def test_verbose_lists_the_checks(self):
        plain, verbose = (self.px.telemetry(p).body for p in ("/readyz", "/readyz?verbose"))
        self.assertGreater(len(verbose), len(plain))

    def test_an_unknown_path_is_404_and_other_methods_are_405(self):
        self.assertEqual(self.px.telemetry("/nowhere").status, 404)
        for method in ("POST", "PUT", "DELETE"):
            with self.subTest(method):
                response = self.px.telemetry("/metrics", method, headers=["Content-Length: 0"])
                self.assertEqual(response.status, 405)
                self.assertIn("GET", response.get("allow", ""))

    def test_metrics_have_the_content_type_that_prometheus_wants(self):
        response = self.px.telemetry("/metrics")
        self.assertEqual(response.get("content-type"), "text/plain; version=0.0.4; charset=utf-8")

    def test_every_metric_of_this_version_is_there_with_its_type_from_the_start(self):
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200)
        m = self.px.metrics()
        names = m.names()
        for name, kind in METRICS.items():
            with self.subTest(name):
                full = "tripswitch_proxy_" + name
                self.assertEqual(m.types.get(full), kind)
                shown = name + "_count" if kind == "histogram" else name
                self.assertIn(shown, names)
        for name in STANDARD:
            with self.subTest(name):
                self.assertIn(name, names)

    def test_metrics_are_well_formed(self):
        text = self.px.telemetry("/metrics").body.decode()
        m = Metrics(text)  # refuses bad lines and doubled series
        helps = re.findall(r"^# HELP (\S+) (.+)$", text, re.M)
        self.assertEqual(len({h for h, _ in helps}), len(helps))
        self.assertEqual(set(m.types) - {h for h, _ in helps}, set(), "a type without help")
        self.assertTrue(text.endswith("\n"))
        for name, kind in m.types.items():
            if kind == "counter":
                self.assertTrue(name.endswith("_total"), name)
        # All lines of one metric stand together.
        order = [re.sub(r"(_bucket|_sum|_count)$", "", re.split(r"[{ ]", x)[0]) if not x.startswith("#") else x.split(" ")[2]
                 for x in text.splitlines() if x]
        seen, last = set(), None
        for name in order:
            base = name if name in m.types else name
            if base != last:
                self.assertNotIn(base, seen, f"{base} is in two places")
                seen.add(base)
            last = base

    def test_exactly_one_state_of_each_breaker_is_one_at_every_scrape(self):
        stop = threading.Event()

        def change():
            states = [("open", None), ("closed", None), ("half_open", 0.5)]
            i = 0
            while not stop.wait(0.002):
                self.cp.set("b", *states[i % 3])
                i += 1

        changing = threading.Thread(target=change)
        changing.start()
        try:
            for _ in range(50):
                m = self.px.metrics()
                for breaker in ("b", "half", "open"):
                    states = {dict(ls)["state"]: v for (n, ls), v in m.items()
                              if n == "breaker_state" and ("breaker", breaker) in ls}
                    self.assertEqual(set(states), {"closed", "open", "half_open", "unknown"})
                    self.assertEqual(sum(states.values()), 1, states)
        finally:
            stop.set()
            changing.join()
        self.cp.set("b", "closed")
        self.px.wait_breaker("b", "closed")

    def test_all_names_of_the_project_are_kept_used_by_a_route_or_not(self):
        self.px.expect_metric(0.25, "breaker_allow_ratio", breaker="half")
        self.assertEqual(self.px.breaker_state("open"), "open")
        self.px.expect_metric(3, "breakers")
        self.assertEqual(set(self.px.breakers()), {"b", "half", "open"})

    def test_breakers_are_listed_as_json(self):
        entry = self.px.breakers()["half"]
        self.assertEqual(entry["state"], "half_open")
        self.assertIn(0.25, entry.values())
        self.assertEqual(self.px.telemetry("/breakers").get("content-type").split(";")[0], "application/json")

    def test_status_tells_what_the_sdks_call_stats(self):
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200)
        self.cp.wait_samples(1)
        text = json.dumps(self.px.status()).lower()
        for word in ("dropped", "buffer", "connected", "reconnects", "last", "flush", "event", "failures", "cached"):
            with self.subTest(word):
                self.assertIn(word, text)

    def test_requests_are_counted_by_route_class_and_outcome(self):
        origin = self.http_origin()
        before = {c: self.px.metric("requests_total", route="all", code_class=c) for c in ("2xx", "4xx", "5xx")}
        for status in (200, 200, 404, 500):
            self.get(f"{origin.url}/status/{status}")
        after = {c: self.px.metric("requests_total", route="all", code_class=c) - before[c] for c in before}
        self.assertEqual(after, {"2xx": 2, "4xx": 1, "5xx": 1})

    def test_our_own_answers_are_counted_by_their_error(self):
        self.get(self.http_origin().url + "/reset")
        m = self.px.metrics()
        self.assertEqual(m.types.get("tripswitch_proxy_errors_total"), "counter")
        self.assertEqual(m.sum("errors_total", route="all"), 1)

    def test_the_telemetry_listener_is_fenced(self):
        address = ("127.0.0.1", self.px.telemetry_port)
        with self.subTest("a head of more than 8 KiB"):
            client = Raw(address)
            client.try_send("GET /livez HTTP/1.1\r\nHost: x\r\nX: " + "v" * 20000 + "\r\n\r\n")
            try:
                rest = client.read_to_eof()
            except ConnectionResetError:
                rest = b""
            client.close()
            self.assertFalse(rest.startswith(b"HTTP/1.1 200"), rest[:60])
        with self.subTest("a hundred idle connections"):
            crowd = [Raw(address) for _ in range(100)]
            self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")
            for client in crowd:
                client.close()
        wait_until(lambda: self.live(), 15, "the listener to answer again")

    def live(self):
        try:
            return self.px.telemetry("/livez").status == 200
        except (OSError, AssertionError):
            return False

    def test_a_scrape_in_pieces_and_pipelined_scrapes_are_served(self):
        client = Raw(("127.0.0.1", self.px.telemetry_port))
        wire = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
        for byte in wire:
            client.send(bytes([byte]))
        self.assertEqual(client.read_response().status, 200)
        client.close()


class CardinalityTest(Case):
    def test_hosts_and_paths_are_no_labels(self):
        control = self.control()
        proxy = self.proxy({}, control, dns=self.dns())
        origin = self.http_origin()
        client = self.client(proxy)
        for i in range(20):
            client.get(f"http://h{i}.test:{origin.port}/p{i}")
        before = len(proxy.metrics())
        for i in range(300):
            client.get(f"http://host{i}.test:{origin.port}/path{i}")
        self.assertEqual(len(proxy.metrics()), before)

    def test_breakers_of_a_hostile_control_plane_are_capped_as_labels(self):
        control = self.control({f"breaker-{i}": "closed" for i in range(1500)} | {"b": "closed"})
        proxy = self.proxy({}, control)
        proxy.wait_metric(lambda v: v >= 1501, "breakers")
        self.assertLess(len(proxy.metrics()), 5500)
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")
        proxy.wait_metric(lambda n: n > 0, "label_overflows_total", label="breaker")

    def test_names_with_odd_characters_are_escaped(self):
        control = self.control({"quo\"te\\back": "open", "new\nline": "open", "b": "closed"})
        proxy = self.proxy({}, control)
        proxy.metrics()  # parses
        json.loads(proxy.telemetry("/breakers").body)
        json.loads(proxy.telemetry("/status").body)


class LogTest(Case):
    def test_the_access_log_has_one_line_per_request_and_agrees_with_the_answer(self):
        control = self.control({"b": "closed", "open": "open"})
        routes = [{"name": "open", "match": {"hosts": ["open.test"]}, "breakers": ["open"], "router": "rtr"},
                  {"name": "all", "breakers": ["b"], "router": "rtr"}]
        proxy = self.proxy({"access_log": {"mode": "all"}, "routes": routes}, control)
        origin = self.http_origin()
        client = self.client(proxy)
        for path in ("/a?secret=1", "/status/404", "/status/500"):
            client.get(origin.url + path)
        client.get("http://open.test/x")
        wait_until(lambda: len(proxy.access_log()) >= 4, 5, lambda: f"four lines: {proxy.stdout()}")
        lines = [x for x in proxy.access_log() if x.get("type") == "access"]
        self.assertEqual([x["status"] for x in lines], [200, 404, 500, 503])
        self.assertEqual([x["route"] for x in lines], ["all", "all", "all", "open"])
        self.assertEqual(lines[0]["path"], "/a", "no query in the log")
        self.assertEqual(lines[0]["method"], "GET")
        self.assertEqual(lines[0]["authority"], origin.authority)
        self.assertEqual([x["origin"] for x in lines], ["upstream", "upstream", "upstream", "proxy"])
        self.assertEqual((lines[3]["breaker"], lines[3]["error"]), ("open", "destination_unavailable"))

    def test_by_default_only_errors_are_logged(self):
        proxy = self.proxy({}, self.control())
        origin, client = self.http_origin(), self.client()
        for path in ("/", "/status/200", "/reset"):
            client.get(origin.url + path)
        wait_until(lambda: len(proxy.access_log()) >= 1, 5, "the line of the failed one")
        self.assertEqual([x["status"] for x in proxy.access_log()], [502])

    def test_off_writes_nothing_and_probes_are_never_logged(self):
        proxy = self.proxy({"access_log": {"mode": "off"}}, self.control())
        self.get(self.http_origin().url + "/reset")
        other = self.proxy({"access_log": {"mode": "all"}}, self.control())
        for _ in range(30):
            other.telemetry("/livez")
        self.assert_relayed(self.get(self.http_origin().url + "/", proxy=other), 200)
        wait_until(lambda: len(other.access_log()) >= 1, 5, "one line")
        self.assertEqual(len(other.access_log()), 1)
        self.assertEqual(proxy.stdout(), "")

    def test_a_log_file_is_reopened_on_reload(self):
        import os
        path = os.path.join(self.temp_dir(), "access.log")
        proxy = self.proxy({"access_log": {"mode": "all", "path": path}}, self.control())
        origin = self.http_origin()

        def lines(p):
            return open(p, encoding="utf-8").read().count("\n") if os.path.exists(p) else 0

        self.get(origin.url + "/")
        wait_until(lambda: lines(path) == 1, 5, "a line")
        os.rename(path, path + ".1")
        proxy.reload()
        self.get(origin.url + "/")
        wait_until(lambda: lines(path) == 1, 5, "a line in the new file")
        self.assertEqual(lines(path + ".1"), 1)

    def test_client_bytes_cannot_forge_log_lines(self):
        proxy = self.proxy({"access_log": {"mode": "all"}}, self.control())
        origin, client = self.http_origin(), self.client()
        for path in ("/%0a{\"forged\":1}", "/\"quote\"\\", "/caf\xe9\xff"):
            client.send(request("GET", origin.url + path))
            client.read_response()
        wait_until(lambda: proxy.stdout().count("\n") >= 3, 5, "three lines")
        for line in proxy.stdout().splitlines():
            self.assertEqual(json.loads(line)["type"], "access")

    def test_transitions_are_info_lines(self):
        control = self.control()
        proxy = self.proxy({}, control)
        control.set("b", "open")
        proxy.wait_breaker("b", "open")
        wait_until(lambda: any(e.get("event") == "breaker.transition" and e.get("to") == "open" for e in proxy.log()), 5,
                   lambda: f"the line: {proxy.stderr()[-2000:]}")
        line = next(e for e in proxy.log() if e.get("event") == "breaker.transition" and e.get("to") == "open")
        self.assertEqual(str(line["level"]).lower(), "info")
        self.assertEqual(line["breaker"], "b")
