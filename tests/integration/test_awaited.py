"""What nobody has said lately: names that come, leave and come back, and streams without a word."""

import threading

from harness import Case, merge, stays, wait_until
from harness.tunnels import tunnel

ROUTE = {"name": "all", "router": "rtr", "fail_mode": "closed"}


class AwaitedCase(Case):
    def polled(self, breakers, states=None, **kw):
        """A control plane that is polled, and a proxy whose only route names these breakers."""
        control = self.control(states or {b: "closed" for b in breakers})
        options = {"state_source": "poll", "poll_interval": "30s", **kw}
        proxy = self.proxy({"control": options, "routes": [{**ROUTE, "breakers": breakers}]}, control, warnings=True)
        return control, proxy

    def rename(self, proxy, *breakers, **route):
        proxy.write_config(merge(proxy.config, {"routes": [{**ROUTE, "breakers": list(breakers), **route}]}))
        proxy.reload()

    def state(self, client, url):
        """Of the breaker that refuses; None: it passes."""
        response = client.get(url)
        if response.status == 200:
            return None
        self.assert_self_made(response, 503)
        return response.get("x-tripswitch-state")


class NameTest(AwaitedCase):
    def test_a_name_that_comes_back_is_polled_before_its_old_state_counts(self):
        control, proxy = self.polled(["b", "z"], poll_interval="1s")
        origin, client = self.http_origin(), self.client(proxy)
        self.assertIsNone(self.state(client, origin.url + "/"))
        self.rename(proxy, "z")
        control.breakers["b"] = ("open", None)
        polls = len(control.polls)
        control.wait_polls(polls + 2)
        self.assertEqual(control.polls[-1][1], ["id-z"])
        control.poll_fault = 500
        proxy.wait_metric(lambda n: n >= 1, "control_polls_total", result="http")
        self.rename(proxy, "b")
        proxy.expect_metric(1, "breakers_awaited")
        self.assertEqual(self.state(client, origin.url + "/"), "unknown")
        control.poll_fault = None
        states = []
        wait_until(lambda: states.append(self.state(client, origin.url + "/")) or states[-1] == "open", 25, "b to be polled")
        self.assertNotIn(None, states)

    def test_what_metadata_selects_again_is_polled_at_once(self):
        control = self.control({"b": "closed", "z": "closed"})
        control.metadata = {"b": {"g": "1"}, "z": {"g": "1"}}
        proxy = self.proxy({"control": {"state_source": "poll", "poll_interval": "2s", "metadata_interval": "1s"},
                            "routes": [{**ROUTE, "breakers": {"metadata": {"g": "1"}}}]}, control)
        origin, client = self.http_origin(), self.client(proxy)
        self.assertIsNone(self.state(client, origin.url + "/"))
        control.metadata["b"] = {}
        wait_until(lambda: control.polls[-1][1] == ["id-z"], 15, "b to be polled no more")
        proxy.write_config(merge(proxy.config, {"control": {"poll_interval": "60s"}}))
        proxy.reload()
        polls = len(control.polls)
        control.wait_polls(polls + 1)  # the last one at the short interval
        control.breakers["b"] = ("open", None)
        control.metadata["b"] = {"g": "1"}
        wait_until(lambda: self.state(client, origin.url + "/") == "open", 15, "b to be polled")

    def test_no_reload_lets_a_request_through_where_no_state_is_known(self):
        control, proxy = self.polled(["b"])
        origin = self.http_origin()
        control.poll_fault = control.list_fault = 500
        self.rename(proxy, "v")
        wait_until(lambda: self.state(self.client(proxy), origin.url + "/") == "unknown", 10, "v to be awaited")
        stop, states = threading.Event(), set()

        def load():
            client = self.client(proxy)
            while not stop.is_set():
                states.add(self.state(client, origin.url + "/"))

        threads = [threading.Thread(target=load) for _ in range(2)]
        for t in threads:
            t.start()
        for i in range(100):
            self.rename(proxy, "wv"[i % 2])
        stop.set()
        for t in threads:
            t.join()
        self.assertEqual(states, {"unknown"})
        proxy.expect_metric(0, "unknown_breaker_requests_total")

    def test_names_of_hosts_that_are_awaited_are_told(self):
        control, proxy = self.polled(["b"])
        control.poll_fault = 500
        self.rename(proxy, "{host}", fail_mode="open")
        proxy.expect_metric(1, "fail_open_active")
        self.assertTrue(proxy.status()["control"]["awaited_hosts"])
        self.assertIn("known, but not yet of every name", proxy.telemetry("/readyz?verbose").body.decode())
        control.poll_fault = None
        proxy.wait_metric(lambda v: v == 0, "fail_open_active", 25)
        self.assertFalse(proxy.status()["control"]["awaited_hosts"])

    def test_breakers_beyond_the_limit_of_a_poll_are_not_taken_for_absent(self):
        origin = self.http_origin()
        host = f"localhost:{origin.port}"
        control, proxy = self.polled(["{host}", "z"], {**{f"a{i:05}": "closed" for i in range(9999)}, host: "open",
                                                       "z": "closed"})
        proxy.wait_metric(lambda v: v == 1, "control_state_synced", 30)
        self.assertEqual(self.state(self.client(proxy), f"http://{host}/"), "unknown")
        self.assertEqual(proxy.breaker_state("z"), "closed", "what a route names comes first")
        proxy.expect_metric(1, "control_polled_states_total", type="left_out")

    def test_retry_after_holds_however_often_the_list_changes(self):
        control = self.control({"b": "closed", "z": "closed"})
        control.metadata = {"b": {"g": "1"}}
        proxy = self.proxy({"control": {"state_source": "poll", "poll_interval": "1s", "metadata_interval": "1s"},
                            "routes": [{**ROUTE, "breakers": {"metadata": {"g": "1"}}}]}, control, warnings=True)
        control.wait_polls(1)
        control.poll_fault = (429, 120)
        proxy.wait_metric(lambda n: n == 1, "control_polls_total", result="http")
        polls = len(control.polls)
        for select in ["b", "z"], ["b"]:
            control.metadata["z"] = {"g": "1"} if "z" in select else {}
            wait_until(lambda: proxy.status()["selected"][0]["breakers"] == select, 10, "the list to be followed")
        stays(lambda: len(control.polls) == polls, 1.5, "no poll")
        control.poll_fault = None
        proxy.reload()  # somebody may have mended something
        control.wait_polls(polls + 1)

    def test_a_reload_of_the_embedded_control_plane_names_breakers_that_it_has(self):
        proxy = self.proxy({"routes": [{**ROUTE, "breakers": ["b"]}]})
        for i in range(20):
            routes = [{**ROUTE, "name": f"r{r}", "match": {"hosts": [f"h{r}.test"]},
                       "breakers": [f"n{i}-{r}-{b}" for b in range(16)]} for r in range(20)]
            proxy.write_config({**proxy.config, "routes": routes})
            proxy.reload()
        wait_until(lambda: proxy.breakers()["n19-19-15"]["state"] == "closed", 10, "the last one to be known")
        proxy.expect_metric(0, "breakers_missing")
        self.assertEqual(proxy.warning_lines(), [])

    def test_the_first_request_in_a_tunnel_must_be_eligible_though_a_breaker_is_awaited(self):
        control, proxy = self.polled(["h"], {"h": ("half_open", 1.0)})
        origin = self.http_origin()
        control.poll_fault = control.list_fault = 500
        self.rename(proxy, "w", "h", fail_mode="open", half_open={"eligible": {"max_body": "1KiB"}})
        proxy.expect_metric(1, "breakers_awaited")
        client = tunnel(self.client(proxy), origin.authority)
        for which in "first", "second":
            response = client.send(f"POST / HTTP/1.1\r\nHost: {origin.authority}\r\nContent-Length: 2000\r\n\r\n"
                                   .encode() + b"x" * 2000).read_response()
            self.assert_self_made(response, 503)
            self.assertEqual((which, response.get("x-tripswitch-breaker")), (which, "h"))
        proxy.wait_metric(lambda n: n == 2, "half_open_limited_total", bound="eligible")


class MuteTest(AwaitedCase):
    def test_a_stream_that_is_back_without_a_word_does_not_make_states_fresh(self):
        control = self.control({"b": "closed"})
        proxy = self.proxy({"control": {"state_max_age": "1s"}, "routes": [{**ROUTE, "breakers": ["b"]}]}, control,
                           warnings=True)
        origin, client = self.http_origin(), self.client(proxy)
        self.assertIsNone(self.state(client, origin.url + "/"))
        control.breakers["b"] = ("open", None)
        control.stream_mode = "mute"
        opens = len(control.stream_opens)
        control.cut()
        wait_until(lambda: len(control.stream_opens) > opens, 15, "the stream to be opened again")
        proxy.wait_metric(lambda v: v == 1, "control_stream_connected")
        proxy.wait_metric(lambda v: v == 1, "control_state_stale")
        stays(lambda: self.state(client, origin.url + "/") == "unknown", 1, "refused, as the state is stale")
        control.go_away()
        control.stream_mode = "ok"
        control.come_back()
        proxy.wait_metric(lambda v: v == 0, "control_state_stale", 25)
        self.assertEqual(self.state(client, origin.url + "/"), "open")
