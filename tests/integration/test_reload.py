"""Reload: a new snapshot for new requests, the old one for those that run (DESIGN "Reload")."""

import copy
import json
import os
import re
import signal
import threading
import time

from harness import ROUTE_ALL, Case, Raw, merge, request, slowdown, stays, variant, wait_until
from harness.tunnels import echo, tunnel

# Under TSan a reload takes long, and a race needs no ten thousand to show.
RELOADS = int(os.environ.get("TRIPSWITCH_TEST_RELOADS", "4000" if variant() == "tsan" else "10000"))


class ReloadTest(Case):
    def test_a_new_file_holds_for_new_requests_on_kept_connections(self):
        control = self.control({"b": "closed", "c": "open"})
        proxy = self.proxy({}, control)
        origin = self.http_origin()
        client = self.client(proxy)
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        routes = [{"name": "all", "breakers": ["c"], "router": "rtr"}]
        proxy.write_config(merge(proxy.config, {"routes": routes}))
        proxy.reload()
        response = client.get(origin.url + "/")
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual(response.get("x-tripswitch-breaker"), "c")
        m = proxy.metrics()
        self.assertEqual(m.one("config_last_reload_successful"), 1)
        self.assertEqual(m.sum("config_reloads_total", result="ok"), 1)

    def test_a_broken_file_never_replaces_a_running_one(self):
        proxy = self.proxy({}, self.control(), warnings=True)
        origin, client = self.http_origin(), self.client()
        good = copy.deepcopy(proxy.config)
        for i, text in enumerate(["{", "", json.dumps({**good, "wrokers": 1}), json.dumps({**good, "mode": "maybe"}),
                                  json.dumps({**good, "routes": [{"name": "x", "breakers": 7}]})]):
            with self.subTest(text[:40]):
                proxy.write_config(text)
                proxy.reload()
                m = proxy.metrics()
                self.assertEqual(m.one("config_last_reload_successful"), 0)
                self.assertEqual(m.sum("config_reloads_total", result="error"), i + 1)
                self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        self.assertRegex(proxy.stderr(), r"config\.json:1:\d+: /\S*wrokers")
        proxy.config = good
        proxy.write_config()
        proxy.reload()
        proxy.expect_metric(1, "config_last_reload_successful")
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")

    def test_a_missing_file_never_replaces_a_running_one(self):
        proxy = self.proxy({}, self.control(), warnings=True)
        os.unlink(proxy.config_path)
        proxy.reload()
        proxy.expect_metric(0, "config_last_reload_successful")
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")
        proxy.write_config()

    def test_what_needs_a_restart_is_told_and_the_rest_is_applied(self):
        control = self.control({"b": "closed", "c": "open"})
        proxy = self.proxy({}, control, warnings=True)
        changes = {"workers": 2, "routes": [{"name": "all", "breakers": ["c"], "router": "rtr"}]}
        old = copy.deepcopy(proxy.config)
        proxy.write_config(merge(proxy.config, changes))
        proxy.reload()
        proxy.expect_metric(1, "config_restart_required")
        proxy.expect_metric(1, "config_last_reload_successful")
        self.assert_self_made(self.get(self.http_origin().url + "/"), 503)
        proxy.config = old
        proxy.write_config()
        proxy.reload()
        proxy.expect_metric(0, "config_restart_required")

    def test_running_exchanges_keep_the_configuration_they_began_with(self):
        control = self.control()
        go = threading.Event()
        origin = self.origin(lambda c: (c.read_request(), c.wait(go), c.respond(503, b"late"), c.wait_for_end()))
        route = {"name": "all", "breakers": ["b"], "router": "old-router", "tags": {"gen": "old"}}
        proxy = self.proxy({"routes": [route]}, control)
        client = self.client(proxy).send(request("GET", origin.url + "/"))
        origin.wait_requests(1)
        new = {"name": "all", "breakers": ["b"], "router": "new-router", "tags": {"gen": "new"}, "failure": {"status": [404]}}
        proxy.write_config(merge(proxy.config, {"routes": [new]}))
        for _ in range(3):
            proxy.reload()
        go.set()
        self.assert_relayed(client.read_response(), 503, b"late")
        sample = control.wait_samples(1)[0]
        self.assertEqual((sample["router_id"], sample["ok"], sample["tags"]), ("old-router", False, {"gen": "old"}))
        self.assert_relayed(self.get(self.http_origin().url + "/status/503"), 503)
        sample = control.wait_samples(2)[1]
        self.assertEqual((sample["router_id"], sample["ok"], sample["tags"]), ("new-router", True, {"gen": "new"}))

    def test_counters_survive_a_reload_and_belong_to_the_routes_name(self):
        proxy = self.proxy({}, self.control())
        origin = self.http_origin()
        self.assert_relayed(self.get(origin.url + "/"), 200)
        other = {"name": "other", "match": {"hosts": ["other.test"]}, "breakers": ["b"], "router": "rtr"}
        proxy.write_config(merge(proxy.config, {"routes": [other, ROUTE_ALL]}))
        proxy.reload()
        self.assert_relayed(self.get(origin.url + "/"), 200)
        proxy.expect_metric(2, "attempts_total", route="all", outcome="success")

    def test_the_stream_is_not_reopened_by_a_reload_that_does_not_concern_it(self):
        control = self.control()
        proxy = self.proxy({}, control)
        for _ in range(5):
            proxy.reload()
        self.assertEqual(len(control.stream_opens), 1)
        proxy.expect_metric(1, "control_stream_connected")

    def test_a_rotated_secret_is_used_without_a_restart(self):
        control = self.control()
        folder = self.temp_dir()

        def publish(generation, key, secret):
            """As the kubelet does: a new folder, then the link is swapped."""
            data = os.path.join(folder, f"..gen{generation}")
            os.mkdir(data)
            for name, value in (("key", key), ("secret", secret)):
                with open(os.path.join(data, name), "w", encoding="ascii") as f:
                    f.write(value + "\n")
                os.chmod(os.path.join(data, name), 0o400)
            link = os.path.join(folder, "..data_tmp")
            os.symlink(data, link)
            os.rename(link, os.path.join(folder, "..data"))

        publish(1, control.api_key, control.ingest_secret)
        for name in ("key", "secret"):
            os.symlink(os.path.join("..data", name), os.path.join(folder, name))
        env = {"TRIPSWITCH_API_KEY": None, "TRIPSWITCH_INGEST_SECRET": None,
               "TRIPSWITCH_API_KEY_FILE": os.path.join(folder, "key"),
               "TRIPSWITCH_INGEST_SECRET_FILE": os.path.join(folder, "secret")}
        proxy = self.proxy({}, control, env=env, warnings=True)
        origin = self.http_origin()
        self.assert_relayed(self.get(origin.url + "/"), 200)
        control.wait_samples(1)
        opened = len(control.stream_opens)
        control.api_key = "eb_pk_" + "9" * 32
        control.ingest_secret = "12" * 32
        publish(2, control.api_key, control.ingest_secret)
        wait_until(lambda: len(control.stream_opens) > opened, 16, "the stream to be opened with the new key")
        self.assert_relayed(self.get(origin.url + "/"), 200)
        control.wait_samples(2)


class DeniedLaterTest(Case):
    """What a reload denies is reached no more, over nothing that stands from before."""

    ASK = ("Connection: Upgrade", "Upgrade: websocket")

    def start(self, **kw):
        return self.proxy({"timeouts": {"upstream_idle": "off"}}, **kw)

    def deny(self, *networks):
        self._proxies[-1].write_config(merge(self._proxies[-1].config, {"access": {"deny_destinations": list(networks)}}))
        self._proxies[-1].reload()

    def assert_denied(self, response):
        self.assert_self_made(response, 502, "destination_ip_prohibited")

    @staticmethod
    def ping(client):
        client.send(b"\x01ping")
        if client.read_exactly(5) != b"\x01ping":
            raise AssertionError("no echo")
        return client

    def test_idle_connections_are_closed(self):
        proxy, origin, other = self.start(), self.http_origin(), self.http_origin(host="127.0.0.2")
        client = self.client()
        for o in (origin, other):
            self.assert_relayed(client.get(o.url + "/"), 200)
        proxy.expect_metric(2, "upstream_connections_idle")
        self.deny("127.0.0.1/32")
        origin.wait_ended(0)
        proxy.expect_metric(1, "upstream_connections_idle")
        self.assert_denied(client.get(origin.url + "/"))
        self.assert_relayed(client.get(other.url + "/"), 200)
        self.assertEqual((len(origin.connections), len(other.connections)), (1, 1))

    def test_a_request_under_way_ends_as_it_began_and_its_connection_with_it(self):
        go = threading.Event()
        origin = self.origin(lambda c: (c.read_request(), c.wait(go), c.respond(200, b"late"), c.wait_for_end()))
        self.start()
        client = self.client().send(request("GET", origin.url + "/"))
        origin.wait_requests(1)
        self.deny("127.0.0.0/8")
        go.set()
        self.assert_relayed(client.read_response(), 200, b"late")
        origin.wait_ended(0)
        self.assert_denied(client.get(origin.url + "/"))

    def test_a_connection_that_belongs_to_its_client_is_used_no_more(self):
        self.start()
        origin, client = self.http_origin(), self.client()
        for wanted in (200, 502):
            self.assertEqual(client.get(origin.url + "/", "Authorization: NTLM TlRMTVNTUAAB").status, wanted)
            self.deny("127.0.0.0/8")
        origin.wait_ended(0)
        self.assertEqual(len(origin.connections), 1)

    def test_http_in_a_tunnel_is_refused(self):
        self.start()
        origin = self.http_origin()
        client = tunnel(self.client(), origin.authority)
        ask = f"GET / HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n"
        self.assert_relayed(client.request(ask), 200)
        self.deny("127.0.0.0/8")
        self.assert_denied(client.request(ask))
        origin.wait_ended(0)
        self.assertEqual(len(origin.connections), 1)

    def test_tunnels_and_upgraded_connections_are_closed(self):
        def script(conn):
            conn.read_request()
            conn.send(b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            echo(conn)

        proxy = self.start()
        origin, other, upgrading = self.origin(echo), self.origin(echo, host="127.0.0.2"), self.origin(script)
        tunnels = [tunnel(self.client(), o.authority) for o in (origin, origin, other)]
        upgraded = self.client().send(request("GET", upgrading.url + "/", *self.ASK))
        self.assertEqual(upgraded.read_response_head().status, 101)
        for client in (*tunnels, upgraded):
            self.ping(client)
        self.deny("127.0.0.1/32", "169.254.0.0/16")
        for client in (*tunnels[:2], upgraded):
            client.expect_eof()
        proxy.expect_metric(3, "tunnels_closed_on_deny_total")
        self.ping(tunnels[2])
        self.deny("127.0.0.2/32")
        tunnels[2].expect_eof()
        proxy.expect_metric(4, "tunnels_closed_on_deny_total")
        proxy.expect_metric(0, "tunnels")

    def test_a_tunnel_that_was_being_connected_meanwhile_is_closed_too(self):
        names = self.dns()
        proxy = self.start(dns=names)
        origin = self.origin(echo)
        names.set("late.test", "127.0.0.1")
        names.behaviour["late.test"] = "silent"
        client = self.client()
        client.send(f"CONNECT late.test:{origin.port} HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: names.asked("late.test"), 5, "the question")
        self.deny("127.0.0.0/8")
        del names.behaviour["late.test"]  # the resolver asks again
        self.assertEqual(client.read_response_head().status, 200)
        client.expect_eof()
        proxy.expect_metric(1, "tunnels_closed_on_deny_total")


class ReloadUnderLoadTest(Case):
    heavy = True
    time_limit_s = 480

    def test_thousands_of_reloads_under_load_fail_no_request(self):
        control = self.control({"b": "closed", "c": "closed"})
        control.keep_samples = False
        proxy = self.proxy({"workers": 2}, control, dns=self.dns())
        origin = self.http_origin()
        origin.record = False
        configs = [merge(proxy.config, {"routes": [ROUTE_ALL]}),
                   merge(proxy.config, {"routes": [
                       {"name": "other", "match": {"hosts": ["other.test"]}, "breakers": ["c"], "router": "r2"},
                       {"name": "all", "breakers": ["b", "c"], "router": "rtr", "tags": {"x": "{status}"}}]})]
        stop, errors, served = threading.Event(), [], [0, 0]

        def load(which):
            try:
                client = Raw(proxy.address, 30)
                client.keep_received = False
                while not stop.is_set():
                    response = client.get(origin.url + ("/slow/5" if served[which] % 10 == 0 else "/bytes/200"))
                    if response.status != 200:
                        errors.append(repr(response))
                        return
                    served[which] += 1
                client.close()
            except Exception as e:  # noqa: BLE001
                errors.append(repr(e))

        threads = [threading.Thread(target=load, args=(i,)) for i in range(2)]
        for t in threads:
            t.start()
        counter = re.compile(rb'config_reloads_total\{result="ok"\} (\d+)')

        def count():
            return int(counter.search(proxy.telemetry("/metrics").body)[1])

        done, began = count(), time.monotonic()
        wanted = done + RELOADS
        while done < wanted and not errors:
            if (done // 50) % 2 != (done - 1) // 50 % 2:
                proxy.write_config(configs[(done // 50) % 2])
            before, limit = done, time.monotonic() + 20  # for one of them, however slow the machine
            for _ in range(4):  # those that arrive together become one; the counter tells
                proxy.signal(signal.SIGHUP)
            while done == before:
                done = count()
                self.assertLess(time.monotonic(), limit, f"{done} reloads so far")
        stop.set()
        for t in threads:
            t.join()
        print(f"{done} reloads in {time.monotonic() - began:.1f} s, {sum(served)} requests")
        self.assertEqual(errors, [])
        self.assertGreater(min(served), 50)
        books = proxy.wait_balance(settled=True, timeout=20)
        m = books.metrics
        self.assertEqual(m.sum("config_reloads_total", result="error"), 0)
        self.assertEqual(m.sum("attempts_total", outcome="success"), sum(served))
        self.assertEqual(books.started, sum(served))
        self.assertEqual(len(control.stream_opens), 1)

    def test_reloads_do_not_leak(self):
        proxy = self.proxy({}, self.control())
        origin = self.http_origin()
        self.assert_relayed(self.get(origin.url + "/"), 200)
        for _ in range(600):  # until the allocator has found its size
            proxy.reload()
        memory, files = proxy.memory_kib(), proxy.open_files()
        for _ in range(300):
            proxy.reload()
        stays(lambda: proxy.open_files() <= files + 1, 0.05, lambda: f"{proxy.open_files()} files, {files} before")
        if variant() == "release":
            self.assertLess(proxy.memory_kib(), memory + 1536, "KiB: a snapshot lost each time would be more")
