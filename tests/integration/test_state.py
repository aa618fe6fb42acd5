"""Where states come from and which breakers a route uses: metadata, polls, and what is not known."""

import json
import os
import time

from harness import Case, StartError, merge, stays, slowdown, wait_until

EU = {"metadata": {"region": "eu", "tier": "1"}}
GOLD = {"metadata": {"plan": "gold"}}
SELECTED = {"name": "all", "breakers": EU, "router": GOLD}
FAST = {"metadata_interval": "1s", "poll_interval": "1s"}


def config(*routes, **control):
    return {"routes": list(routes or [SELECTED]), "control": {**FAST, **control}}


class SelectionCase(Case):
    def plane(self, **kw):
        control = self.control({"eu-1": "closed", "eu-2": "closed", "us-1": "open"}, **kw)
        control.metadata = {"eu-1": {"region": "eu", "tier": "1"}, "eu-2": {"region": "eu", "tier": "1", "x": "y"},
                            "us-1": {"region": "us", "tier": "1"}}
        control.router_metadata = {"rtr-gold": {"plan": "gold"}, "rtr-tin": {"plan": "tin"}}
        return control

    def selected(self, proxy):
        return {s["route"]: s for s in proxy.status()["selected"]}


class SelectionTest(SelectionCase):
    def test_breakers_and_router_are_those_that_have_every_pair(self):
        control, origin = self.plane(), self.http_origin()
        proxy = self.proxy(config(), control)
        client = self.client(proxy)
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        self.assertEqual({s["router_id"] for s in control.wait_samples(1)}, {"rtr-gold"})
        got = self.selected(proxy)["all"]
        self.assertEqual((got["breakers"], got["router"]), (["eu-1", "eu-2"], "rtr-gold"))
        proxy.expect_metric(2, "metadata_selectors", selection="ok")
        control.set("eu-2", "open")
        proxy.wait_breaker("eu-2", "open")
        response = client.get(origin.url + "/")
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual(response.get("x-tripswitch-breaker"), "eu-2")

    def test_nothing_is_asked_while_no_route_needs_it(self):
        control = self.control()
        proxy = self.proxy({"control": {**FAST}}, control)
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200)
        stays(lambda: not control.lists and not control.polls, 2.5, lambda: f"{control.lists} {control.polls}")
        proxy.expect_metric(0, "metadata_syncs_total")

    def test_only_the_list_that_is_needed_is_asked_for(self):
        control = self.plane()
        self.proxy(config({"name": "all", "breakers": ["eu-1"], "router": GOLD}), control)
        control.wait_lists(2)
        self.assertEqual({what for what, _, _ in control.lists}, {"routers"})

    def test_an_unchanged_list_costs_a_304_and_no_reload(self):
        control = self.plane()
        proxy = self.proxy(config(), control)
        generation = proxy.status()["workers"][0]["config_generation"]
        proxy.wait_metric(lambda v: v >= 3, "metadata_syncs_total", result="not_modified")
        proxy.expect_metric(2, "metadata_syncs_total", why="each list once", result="ok")
        self.assertGreaterEqual(len([1 for _, known, status in control.lists if known and status == 304]), 3)
        self.assertEqual(proxy.status()["workers"][0]["config_generation"], generation)

    def test_a_changed_list_takes_effect_quietly(self):
        control, origin = self.plane(), self.http_origin()
        proxy = self.proxy(config(), control)
        client = self.client(proxy)
        self.assert_relayed(client.get(origin.url + "/"), 200)
        control.metadata["us-1"] = {"region": "eu", "tier": "1"}
        wait_until(lambda: client.get(origin.url + "/").status == 503, 10, "us-1 to gate")
        self.assertEqual(client.get(origin.url + "/").get("x-tripswitch-breaker"), "us-1")
        control.router_metadata = {"rtr-new": {"plan": "gold"}}
        control.metadata["us-1"] = {}
        wait_until(lambda: client.get(origin.url + "/").status == 200, 10, "us-1 to gate no more")
        wait_until(lambda: (client.get(origin.url + "/"), control.wait_samples(1))[1][-1]["router_id"] == "rtr-new", 10,
                   "samples of the new router")
        m = proxy.metrics()
        self.assertEqual(m.sum("config_reloads_total"), 0, "nobody asked for a reload")
        self.assertEqual(m.one("config_last_reload_successful"), 1)
        self.assertIn("selection.changed", proxy.stderr())

    def test_other_routes_and_requests_under_way_notice_nothing_of_a_changed_list(self):
        control = self.plane()
        origin = self.http_origin()
        proxy = self.proxy(config({"name": "sel", "match": {"hosts": ["localhost"]}, "breakers": EU, "router": GOLD},
                                  {"name": "rest", "breakers": ["eu-1"], "router": "rtr-tin"}), control)
        client = self.client(proxy)
        for i in range(3):
            control.metadata["us-1"] = {"region": "eu", "tier": "1"} if i % 2 == 0 else {}
            names = ["eu-1", "eu-2"] + (["us-1"] if i % 2 == 0 else [])
            while self.selected(proxy)["sel"]["breakers"] != names:
                self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        proxy.expect_metric(origin.hits, "attempts_total", route="rest", outcome="success")

    def test_what_selects_nothing_is_said_once_and_passes(self):
        control, origin = self.plane(), self.http_origin()
        control.metadata = {}
        control.router_metadata = {}
        proxy = self.proxy(config(), control, warnings=["no breaker has the metadata", "no router has the metadata"])
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")
        proxy.wait_metric(lambda v: v >= 2, "metadata_syncs_total", result="not_modified")
        self.assertEqual(len(proxy.warning_lines()), 2, proxy.warning_lines())
        m = proxy.metrics()
        self.assertEqual((m.sum("metadata_selectors", selection="no_breaker"),
                          m.sum("metadata_selectors", selection="no_router"), m.sum("samples_skipped_total")), (1, 1, 1))
        got = self.selected(proxy)["all"]
        self.assertEqual((got["breakers_loaded"], got["breakers"], got["router"]), (True, [], None))
        self.assertEqual(control.samples, [])

    def test_entries_that_cannot_be_selected_are_told_once_and_counted(self):
        control = self.plane()
        names = ("", "n" * 256, "n" * 257)
        for name in names:
            control.breakers[name] = ("closed", None)
            control.metadata[name] = EU["metadata"]
        proxy = self.proxy(config(state_source="poll"), control, warnings=["no usable id or name"])
        proxy.wait_metric(lambda v: v >= 2, "metadata_syncs_total", result="not_modified")
        proxy.expect_metric(3, "metadata_entries_skipped_total")
        self.assertEqual(proxy.status()["control"]["metadata"]["entries_skipped"], 3)
        self.assertEqual(self.selected(proxy)["all"]["breakers"], ["eu-1", "eu-2"])
        del control.breakers[names[0]]
        proxy.wait_metric(lambda v: v == 5, "metadata_entries_skipped_total")
        self.assertEqual([json.loads(w)["entries"] for w in proxy.warning_lines()], ["3", "2"])

    def test_of_too_many_matches_the_first_by_name_count(self):
        names = [f"b{i:02}" for i in range(18)]
        control = self.control({n: "closed" for n in reversed(names)})
        control.metadata = {n: EU["metadata"] for n in names}
        control.router_metadata = {"r2": GOLD["metadata"], "r1": GOLD["metadata"]}
        proxy = self.proxy(config(), control, warnings=["18 breakers have the metadata", "2 routers have the metadata"])
        origin, client = self.http_origin(), self.client(proxy)
        self.assert_relayed(client.get(origin.url + "/"), 200)
        self.assertEqual(control.wait_samples(1)[0]["router_id"], "r1")
        got = self.selected(proxy)["all"]
        self.assertEqual((got["breakers"], got["breakers_found"], got["routers_found"]), (names[:16], 18, 2))
        proxy.expect_metric(1, "metadata_selectors", selection="too_many_breakers")
        control.set("b16", "open")
        proxy.wait_breaker("b16", "open")
        self.assert_relayed(client.get(origin.url + "/"), 200)
        control.set("b15", "open")
        proxy.wait_breaker("b15", "open")
        self.assert_self_made(client.get(origin.url + "/"), 503, "destination_unavailable")

    def test_a_changed_list_holds_whatever_became_of_the_file(self):
        control, origin = self.plane(), self.http_origin()
        broken, edited = "{ broken", {"routes": []}
        for file in (broken, edited, None):
            with self.subTest(str(file)):
                control.metadata["us-1"] = {}
                proxy = self.proxy(config(), control)
                client = self.client(proxy)
                self.assert_relayed(client.get(origin.url + "/"), 200)
                if file is None:
                    os.unlink(proxy.config_path)
                else:
                    good = proxy.config
                    proxy.write_config(file)
                    proxy.config = good  # what the books go by
                control.metadata["us-1"] = EU["metadata"]
                wait_until(lambda: client.get(origin.url + "/").status == 503, 10, "us-1 to gate")
                self.assertEqual(self.selected(proxy)["all"]["breakers"], ["eu-1", "eu-2", "us-1"])
                control.metadata["us-1"] = {}
                wait_until(lambda: client.get(origin.url + "/").status == 200, 10, "us-1 to gate no more")
                proxy.expect_metric(0, "config_reloads_total")
                proxy.stop()

    def test_a_configuration_that_can_be_read_only_once_selects_by_metadata(self):
        control, origin = self.plane(), self.http_origin()
        control.set("eu-1", "open")
        piped = ["bash", "-c", 'exec "$1" --config /dev/stdin < <(cat "$3")', "bash"]
        proxy = self.proxy(config(), control, prefix=piped)
        self.assert_self_made(self.get(origin.url + "/", proxy=proxy), 503, "destination_unavailable")

    def test_a_reload_may_select_something_else(self):
        control, origin = self.plane(), self.http_origin()
        proxy = self.proxy(config(), control)
        client = self.client(proxy)
        self.assert_relayed(client.get(origin.url + "/"), 200)
        route = {**SELECTED, "breakers": {"metadata": {"region": "us"}}}
        proxy.write_config(merge(proxy.config, {"routes": [route]}))
        proxy.reload()
        self.assert_self_made(client.get(origin.url + "/"), 503, "destination_unavailable")

    def test_another_project_selects_from_its_own_lists(self):
        control = self.plane()
        proxy = self.proxy(config(), control, warnings=True)
        self.assertEqual(self.selected(proxy)["all"]["breakers"], ["eu-1", "eu-2"])
        proxy.write_config(merge(proxy.config, {"control": {"project_id": "proj_other"}}))
        proxy.reload()
        got = self.selected(proxy)["all"]
        self.assertEqual((got["breakers_loaded"], got["breakers"], got["router"]), (False, [], None))
        wait_until(lambda: any("proj_other/breakers/metadata" in line for line in control.requests), 10, "its own lists")
        self.assertEqual(self.selected(proxy)["all"]["breakers"], [])
        proxy.stop()
        control.violations.clear()  # it knows nothing of that project

    def test_the_embedded_control_plane_has_metadata_too(self):
        rule = {"kind": "consecutive_failures", "threshold": 2, "cooldown_ms": 60000}
        proxy = self.proxy({
            "control": {"url": "embedded", **FAST},
            "routes": [SELECTED],
            "embedded": {
                "breakers": [{"name": "x", **rule, "metadata": EU["metadata"]}, {"name": "y", **rule}],
                "routers": [{"id": "gold", "breakers": ["x"], "metadata": GOLD["metadata"]}, {"id": "tin", "breakers": ["y"]}],
            }})
        origin = self.origin(lambda conn: conn.close())
        got = self.selected(proxy)["all"]
        self.assertEqual((got["breakers"], got["router"]), (["x"], "gold"))
        client = self.client(proxy)
        wait_until(lambda: client.get(origin.url + "/").status == 503, 10, "x to trip")
        self.assertEqual(proxy.breaker_state("x"), "open")


class SnapshotTest(SelectionCase):
    def test_a_snapshot_that_is_still_coming_is_awaited_for_what_metadata_selects_too(self):
        control, origin = self.control({f"b{i:02}": "closed" for i in range(40)}), self.http_origin()
        control.breakers["last"] = ("open", None)
        control.metadata = {"last": EU["metadata"]}
        control.stream_mode = "one-by-one"
        for breakers in (EU, ["last"]):
            route = {"name": "all", "breakers": breakers, "fail_mode": "closed"}
            control.list_fault = 503  # the list comes second
            proxy = self.proxy(config(route, startup_sync_timeout="100ms"), control, warnings=True)
            client = self.client(proxy)
            control.list_fault = None

            def refused():
                response = client.get(origin.url + "/")
                self.assert_self_made(response, 503, "destination_unavailable", str(breakers))
                return response.get("x-tripswitch-state")

            wait_until(lambda: refused() == "open", 15, "the last breaker to come")
            self.assertNotIn("breakers.unknown", proxy.stderr())
            proxy.stop()


class NotLoadedTest(SelectionCase):
    FAULTS = ("hole", "close", 500, 401, "garbage", "huge")

    def test_until_the_list_has_come_the_fail_mode_decides_whatever_keeps_it(self):
        origin = self.http_origin()
        for fault in self.FAULTS:
            with self.subTest(fault):
                control = self.plane()
                control.list_fault = fault
                routes = [{**SELECTED, "name": "closed", "match": {"hosts": ["localhost"]}, "fail_mode": "closed"},
                          {**SELECTED, "name": "open"}]
                proxy = self.proxy(config(*routes, startup_sync_timeout="300ms"), control, warnings=True)
                client = self.client(proxy)
                proxy.expect_metric(1, "control_state_synced", why="the stream has nothing to do with it")
                took = []
                for _ in range(50):
                    began = time.monotonic()
                    self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
                    took.append(time.monotonic() - began)
                self.assertLess(sorted(took)[len(took) // 2], 0.05 * slowdown())
                response = client.get(origin.url.replace("127.0.0.1", "localhost") + "/")
                self.assert_self_made(response, 503, "destination_unavailable")
                self.assertEqual(response.get("x-tripswitch-state"), "unknown")
                m = proxy.metrics()
                self.assertEqual(m.sum("requests_without_state_total", reason="not_loaded"), 51)
                self.assertEqual(m.sum("fail_open_requests_total"), 50)
                self.assertEqual(m.sum("metadata_selectors", selection="not_loaded"), 4)
                self.assertEqual(m.one("fail_open_active"), 1)
                line = wait_until(lambda: [e for e in proxy.access_log() if e["status"] == 503], 5, "an access line")[0]
                self.assertEqual((line["state_unknown"], line["breaker"], line["decision"]),
                                 ("not_loaded", "selected-by-metadata", "deny_unknown"))
                self.assertEqual(m.one("breaker_decisions_total", breaker="_other", decision="reject"), 1)
                self.assertEqual(m.one("breaker_decisions_total", breaker="_other", decision="fail_open"), 50)
                self.assertFalse(self.selected(proxy)["open"]["breakers_loaded"])
                proxy.stop()

    def test_shadow_mode_counts_what_it_would_have_refused_before_the_list(self):
        control, origin = self.plane(), self.http_origin()
        control.list_fault = 503
        proxy = self.proxy({**config({**SELECTED, "mode": "shadow", "fail_mode": "closed"}, startup_sync_timeout="300ms"),
                            "access_log": {"mode": "all"}}, control, warnings=True)
        proxy.expect_metric(0, "breaker_decisions_total", breaker="_other")
        self.assert_relayed(self.get(origin.url + "/"), 200)
        self.assertEqual(proxy.metrics().one("breaker_decisions_total", breaker="_other", decision="shadow_reject"), 1)
        line = wait_until(proxy.access_log, 5, "an access line")[0]
        self.assertEqual((line["breaker"], line["decision"], line["result"]),
                         ("selected-by-metadata", "deny_unknown", "shadow_rejected"))

    def test_when_the_list_comes_at_last_it_gates(self):
        control, origin = self.plane(), self.http_origin()
        control.set("eu-1", "open")
        control.list_fault = 503
        proxy = self.proxy(config(startup_sync_timeout="300ms"), control, warnings=True)
        client = self.client(proxy)
        self.assert_relayed(client.get(origin.url + "/"), 200)
        control.list_fault = None
        wait_until(lambda: client.get(origin.url + "/").status == 503, 15, "eu-1 to gate")
        proxy.expect_metric(0, "fail_open_active")

    def test_start_up_waits_for_the_lists_as_for_the_states(self):
        control = self.plane()
        control.list_fault = "hole"
        with self.assertRaises(StartError) as caught:
            self.proxy(config(startup_sync_timeout="500ms", require_sync=True), control, warnings=True)
        self.assertEqual(caught.exception.code, 69)

    def test_the_last_good_lists_stay_when_later_requests_fail(self):
        control, origin = self.plane(), self.http_origin()
        control.set("eu-1", "open")
        proxy = self.proxy(config(), control, warnings=True)
        client = self.client(proxy)
        for fault in ("garbage", 500, "close"):
            control.list_fault = fault
            before = len(control.lists)
            control.wait_lists(before + 2, 15)
            self.assert_self_made(client.get(origin.url + "/"), 503, "destination_unavailable", str(fault))
        proxy.wait_metric(lambda n: n >= 1, "metadata_syncs_total", result="invalid")
        proxy.wait_metric(lambda n: n >= 1, "metadata_syncs_total", result="http")
        self.assertLessEqual(len(proxy.warning_lines()), 3, proxy.warning_lines())

    def test_a_refused_key_rests_and_retry_after_is_honoured(self):
        for fault, result in ((401, "auth"), (403, "auth"), ((429, 30), "http")):
            with self.subTest(fault):
                control = self.plane()
                control.list_fault = fault
                proxy = self.proxy(config(startup_sync_timeout="100ms"), control, warnings=True)
                proxy.wait_metric(lambda v: v == 2, "metadata_syncs_total", result=result)
                stays(lambda: len(control.lists) == 2, 2.5, lambda: f"{control.lists}")


class PollTest(SelectionCase):
    def test_polled_states_gate_and_the_stream_is_not_opened(self):
        control, origin = self.control({"b": "open", "unused": "open"}), self.http_origin()
        proxy = self.proxy({"control": {**FAST, "state_source": "poll"}}, control)
        client = self.client(proxy)
        self.assert_self_made(client.get(origin.url + "/"), 503, "destination_unavailable")
        control.breakers["b"] = ("closed", None)
        proxy.wait_breaker("b", "closed")
        self.assert_relayed(client.get(origin.url + "/"), 200)
        control.breakers["b"] = ("half_open", 0.25)
        proxy.wait_breaker("b", "half_open")
        proxy.expect_metric(0.25, "breaker_allow_ratio", breaker="b")
        self.assertEqual(control.stream_opens, [])
        self.assertEqual({i for _, ids in control.polls for i in ids}, {"id-b"}, "only what routes use")
        m = proxy.metrics()
        self.assertEqual((m.sum("control_state_source", source="poll"), m.sum("control_state_source", source="stream"),
                          m.one("control_state_synced"), m.one("control_stream_connected")), (1, 0, 1, 0))
        self.assertGreaterEqual(m.sum("control_polls_total", result="ok"), 3)
        status = proxy.status()["control"]
        self.assertEqual((status["state_source"], status["states_from"]), ("poll", "poll"))
        self.assertGreaterEqual(status["polls"]["ok"], 3)
        self.assertIsNotNone(status["last_poll"])

    def test_polls_come_at_the_interval_with_jitter(self):
        control = self.control()
        self.proxy({"control": {**FAST, "state_source": "poll"}}, control)
        control.wait_polls(6, 15)
        times = [at for at, _ in control.polls]
        gaps = [b - a for a, b in zip(times, times[1:])]
        self.assertTrue(all(0.85 < g < 2.5 for g in gaps), gaps)
        self.assertGreater(len({round(g, 2) for g in gaps}), 1, gaps)

    def test_names_of_hosts_are_polled_once_there_are_many_in_parts(self):
        control = self.control({f"h{i}": "closed" for i in range(1203)})
        control.breakers["127.0.0.1:1"] = ("open", None)
        proxy = self.proxy({"control": {**FAST, "state_source": "poll"},
                            "routes": [{"name": "all", "breakers": ["{host}"]}]}, control)
        control.wait_polls(3)
        self.assertEqual([len(ids) for _, ids in control.polls[:3]], [500, 500, 204])
        self.assert_self_made(self.get("http://127.0.0.1:1/"), 503, "destination_unavailable")
        proxy.expect_metric(1204, "breakers")

    def test_a_name_that_the_project_lacks_passes_and_is_told(self):
        control, origin = self.control({"other": "closed"}), self.http_origin()
        proxy = self.proxy({"control": {**FAST, "state_source": "poll"}, "fail_mode": "closed"}, control,
                           warnings=["let everything pass"])
        self.assert_relayed(self.get(origin.url + "/"), 200)
        proxy.expect_metric(1, "breakers_missing")
        proxy.expect_metric(1, "requests_without_state_total", reason="unknown_name")
        control.breakers["b"] = ("open", None)  # made later
        proxy.wait_breaker("b", "open")
        proxy.expect_metric(0, "breakers_missing")

    def test_a_breaker_that_leaves_the_list_is_unknown_again(self):
        control, origin = self.control({"b": "open", "c": "closed"}), self.http_origin()
        proxy = self.proxy({"control": {**FAST, "state_source": "poll"}}, control, warnings=["let everything pass"])
        self.assert_self_made(self.get(origin.url + "/"), 503)
        control.remove("b")
        proxy.wait_breaker("b", "unknown")
        self.assert_relayed(self.get(origin.url + "/"), 200)
        proxy.expect_metric(1, "breakers_gone_total")

    def test_unknown_states_and_nonsense_are_dropped_and_counted(self):
        control = self.control({"b": "open", "c": "closed"})
        proxy = self.proxy({"control": {**FAST, "state_source": "poll"},
                            "routes": [{"name": "all", "breakers": ["b", "c"], "router": "rtr"}]}, control,
                           warnings=["makes no sense"])
        control.breakers["b"] = ("ajar", None)
        control.breakers["c"] = ("half_open", 7)
        proxy.wait_metric(lambda v: v >= 2, "control_polled_states_total", type="unknown")
        proxy.wait_metric(lambda v: v >= 2, "control_polled_states_total", type="invalid")
        self.assertEqual((proxy.breaker_state("b"), proxy.breaker_state("c")), ("open", "closed"))

    def test_no_request_waits_for_a_poll_whatever_becomes_of_it_and_state_goes_stale(self):
        origin = self.http_origin()
        for fault, result in (("hole", None), ("close", "network"), (500, "http"), ("garbage", "invalid"),
                              ("huge", "invalid"), (401, "auth")):
            with self.subTest(fault):
                control = self.control({"b": "open"})
                proxy = self.proxy({"control": {**FAST, "state_source": "poll", "state_max_age": "2s"}}, control,
                                   warnings=True)
                client = self.client(proxy)
                self.assert_self_made(client.get(origin.url + "/"), 503)
                control.poll_fault = fault
                if result is None:  # the time limit of a poll is 10 s
                    control.wait_polls(len(control.polls) + 1)
                else:
                    proxy.wait_metric(lambda v: v >= 1, "control_polls_total", result=result)
                for _ in range(20):
                    began = time.monotonic()
                    self.assertIn(client.get(origin.url + "/").status, (503, 200))
                    self.assertLess(time.monotonic() - began, slowdown())
                wait_until(lambda: client.get(origin.url + "/").status == 200, 20, "the state to be stale")
                m = proxy.metrics()
                self.assertEqual((m.one("control_state_stale"), m.one("control_state_synced")), (1, 1))
                self.assertGreaterEqual(m.sum("requests_without_state_total", reason="stale"), 1)
                proxy.stop()

    def test_after_an_outage_polls_go_on_and_retry_after_is_honoured(self):
        control = self.control({"b": "open"})
        proxy = self.proxy({"control": {**FAST, "state_source": "poll", "state_max_age": "0s"}}, control, warnings=True)
        control.poll_fault = (429, 3)
        proxy.wait_metric(lambda v: v == 1, "control_polls_total", result="http")
        asked = control.polls[-1][0]
        control.poll_fault = None
        proxy.wait_metric(lambda v: v == 1, "control_state_stale")
        proxy.wait_metric(lambda v: v == 0, "control_state_stale")
        later = next(at for at, _ in control.polls if at > asked)
        self.assertGreaterEqual(later - asked, 2.9)

    def test_required_states_may_come_from_polls(self):
        options = {**FAST, "state_source": "poll", "require_sync": True, "startup_sync_timeout": "1s"}
        proxy = self.proxy({"control": options}, self.control())
        proxy.expect_metric(1, "control_state_synced")
        for fault in ("list_fault", "poll_fault"):
            with self.subTest(fault):
                control = self.control()
                setattr(control, fault, 500)
                with self.assertRaises(StartError) as caught:
                    self.proxy({"control": options}, control, warnings=True)
                self.assertEqual(caught.exception.code, 69)
                self.assertIn("sync.required", caught.exception.stderr)

    def test_states_that_lists_and_polls_have_yet_to_bring_are_required_too(self):
        control = self.plane()
        control.poll_fault = 500
        with self.assertRaises(StartError) as caught:
            self.proxy(config(state_source="poll", require_sync=True, startup_sync_timeout="1s"), control, warnings=True)
        self.assertEqual(caught.exception.code, 69)
        self.assertGreaterEqual(len(control.polls), 1, "the list has come, so what it selects was asked for")

    def assert_never_unknown(self, proxy):
        """No name was taken for one that the control plane lacks."""
        proxy.expect_metric(0, "requests_without_state_total", reason="unknown_name")
        self.assertEqual(proxy.warning_lines(), [])

    def test_what_metadata_selects_at_the_start_is_polled_before_anything_passes(self):
        control, origin = self.plane(), self.http_origin()
        control.set("eu-2", "open")
        proxy = self.proxy(config({**SELECTED, "fail_mode": "closed"}, state_source="poll", poll_interval="30s"), control)
        response = self.get(origin.url + "/")
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual(response.get("x-tripswitch-state"), "open")
        self.assertEqual(len(control.polls), 1)
        self.assert_never_unknown(proxy)

    def test_what_a_changed_list_adds_is_polled_at_once_and_not_known_until_then(self):
        control, origin = self.plane(), self.http_origin()
        proxy = self.proxy(config({**SELECTED, "fail_mode": "closed"}, state_source="poll", poll_interval="30s"), control,
                           warnings=["poll: HTTP 500"])
        client = self.client(proxy)
        self.assert_relayed(client.get(origin.url + "/"), 200)
        control.poll_fault = 500
        control.metadata["us-1"] = EU["metadata"]
        wait_until(lambda: client.get(origin.url + "/").get("x-tripswitch-state") == "unknown", 10, "us-1 to be awaited")
        proxy.expect_metric(1, "breakers_awaited")
        self.assertEqual(proxy.status()["control"]["awaited_breakers"], 1)
        self.assertTrue(proxy.status()["control"]["synced"])
        proxy.wait_metric(lambda v: v >= 1, "requests_without_state_total", reason="never_synced")
        control.poll_fault = None
        wait_until(lambda: client.get(origin.url + "/").get("x-tripswitch-state") == "open", 25, "us-1 to be polled")
        proxy.expect_metric(0, "breakers_awaited")
        proxy.expect_metric(0, "requests_without_state_total", reason="unknown_name")

    def test_what_a_reload_names_is_polled_at_once_even_if_the_list_is_older(self):
        control, origin = self.control({"a": "closed"}), self.http_origin()
        route = {"name": "all", "breakers": ["a"], "fail_mode": "closed"}
        proxy = self.proxy(config(route, state_source="poll", poll_interval="30s", metadata_interval="30s"), control,
                           warnings=True)
        client = self.client(proxy)
        self.assert_relayed(client.get(origin.url + "/"), 200)
        control.breakers["b"] = ("open", None)
        for names in (["b"], ["a", "b"]):
            proxy.write_config(merge(proxy.config, {"routes": [{**route, "breakers": names}]}))
            proxy.reload()

            def refused():
                response = client.get(origin.url + "/")
                self.assert_self_made(response, 503, "destination_unavailable")
                return response.get("x-tripswitch-state")

            wait_until(lambda: refused() == "open", 10, "b to be polled")
        self.assert_never_unknown(proxy)
        proxy.write_config(merge(proxy.config, {"routes": [{**route, "breakers": ["ghost"]}]}))
        proxy.reload()
        wait_until(lambda: client.get(origin.url + "/").status == 200, 10, "nobody to have it")
        proxy.expect_metric(1, "breakers_missing")

    def test_hosts_are_polled_before_they_pass_once_a_reload_names_them(self):
        control, origin = self.control({"a": "closed"}), self.http_origin()
        control.breakers[origin.authority] = ("open", None)
        route = {"name": "all", "breakers": ["a"], "fail_mode": "closed"}
        proxy = self.proxy(config(route, state_source="poll", poll_interval="30s"), control)
        self.assert_relayed(self.get(origin.url + "/"), 200)
        proxy.write_config(merge(proxy.config, {"routes": [{**route, "breakers": ["{host}"]}]}))
        proxy.reload()
        client = self.client(proxy)

        def refused():
            response = client.get(origin.url + "/")
            self.assert_self_made(response, 503, "destination_unavailable")
            return response.get("x-tripswitch-state")

        wait_until(lambda: refused() == "open", 10, "the host to be polled")
        self.assert_never_unknown(proxy)

    def test_a_reload_switches_between_stream_and_polls(self):
        control = self.control({"b": "closed"})
        proxy = self.proxy({"control": {**FAST, "state_source": "stream"}}, control)
        control.wait_stream()
        proxy.write_config(merge(proxy.config, {"control": {"state_source": "poll"}}))
        proxy.reload()
        control.wait_polls(1)
        wait_until(lambda: not control.streams, 10, "the stream to end")
        control.breakers["b"] = ("open", None)
        proxy.wait_breaker("b", "open")
        proxy.write_config(merge(proxy.config, {"control": {"state_source": "stream"}}))
        proxy.reload()
        control.wait_stream()
        proxy.wait_metric(lambda v: v == 1, "control_state_source", source="stream")
        polls = len(control.polls)
        control.set("b", "closed")
        proxy.wait_breaker("b", "closed")
        stays(lambda: len(control.polls) <= polls, 2, "no poll any more")

    def test_the_embedded_control_plane_can_be_polled(self):
        proxy = self.proxy({"control": {**FAST, "state_source": "poll"}})
        origin, client = self.origin(lambda conn: conn.close()), self.client(proxy)
        wait_until(lambda: client.get(origin.url + "/").status == 503, 15, "the breaker to trip")
        proxy.wait_metric(lambda n: n >= 1, "control_polls_total", result="ok")


class AutoTest(Case):
    time_limit_s = 150

    def test_without_the_stream_for_a_minute_states_are_polled_until_it_delivers_again(self):
        mute = self.control({"b": "open"}, heartbeat_s=0.5)
        mute.stream_mode = "mute"
        waiting = self.proxy({"control": {**FAST, "startup_sync_timeout": "100ms"}}, mute, warnings=True)
        unheard = self.control({"b": "open"})
        unheard.stream_mode, unheard.poll_fault = "mute", 500
        strict = self.proxy({"control": FAST, "fail_mode": "closed"}, unheard, warnings=True)
        control, origin = self.control({"b": "open"}), self.http_origin()
        control.stream_mode = 503
        proxy = self.proxy({"control": {**FAST, "startup_sync_timeout": "100ms"}}, control, warnings=True)
        client = self.client(proxy)
        began = control.stream_opens[0] if control.stream_opens else time.monotonic()
        while not control.polls:
            self.assertLess(time.monotonic() - began, 70 + 5 * slowdown())
            self.assert_relayed(client.get(origin.url + "/"), 200)
            time.sleep(0.2)
        self.assertGreaterEqual(control.polls[0][0] - began, 59)
        self.assertGreaterEqual(len(control.stream_opens), 3)
        proxy.wait_breaker("b", "open")
        self.assert_self_made(client.get(origin.url + "/"), 503)
        proxy.expect_metric(1, "control_state_source", source="poll")
        # So it is with a stream that is accepted, and then says nothing.
        waiting.wait_breaker("b", "open")
        self.assertEqual(len(mute.stream_opens), 1)
        self.assertGreaterEqual(mute.polls[0][0] - mute.stream_opens[0], 59)
        self.assert_self_made(self.get(origin.url + "/", proxy=waiting), 503)
        # Where polls fail too, its silence is no reason to let anything pass.
        wait_until(lambda: unheard.polls, 20, "the third to be polled")
        self.assertEqual(self.get(origin.url + "/", proxy=strict).get("x-tripswitch-state"), "unknown")
        strict.expect_metric(0, "control_state_synced")
        opens = len(control.stream_opens)
        control.stream_mode = "ok"
        wait_until(lambda: len(control.stream_opens) > opens, 40, "the stream goes on being tried")
        proxy.wait_metric(lambda v: v == 1, "control_state_source", source="stream")
        control.set("b", "closed")
        proxy.wait_breaker("b", "closed")
        polls = len(control.polls)
        stays(lambda: len(control.polls) <= polls, 2.5, "polling ends")
        self.assertEqual(len([e for e in proxy.log() if e.get("event") == "control.state_source"]), 2)


class AgeTest(Case):
    def lose(self, max_age, state="open"):
        control, origin = self.control({"b": state}), self.http_origin()
        proxy = self.proxy({"control": {"state_max_age": max_age}}, control, warnings=True)
        client = self.client(proxy)
        self.assert_self_made(client.get(origin.url + "/"), 503)
        control.go_away()
        proxy.wait_metric(lambda v: v == 0, "control_stream_connected")
        return proxy, lambda: client.get(origin.url + "/").status

    def test_off_obeys_the_last_state_for_ever(self):
        proxy, status = self.lose("off")
        stays(lambda: status() == 503, 3, "refused by the last state")
        proxy.expect_metric(0, "control_state_stale")

    def test_zero_is_stale_at_once(self):
        proxy, status = self.lose("0s")
        proxy.wait_metric(lambda v: v == 1, "control_state_stale", 1)
        self.assertEqual(status(), 200)
        proxy.expect_metric(1, "fail_open_active")
        proxy.expect_metric(1, "requests_without_state_total", reason="stale")

    def test_never_synced_stale_and_unknown_name_are_told_apart(self):
        control, origin = self.control({"other": "closed"}), self.http_origin()
        control.stream_mode = 503
        proxy = self.proxy({"control": {"startup_sync_timeout": "100ms", "state_max_age": "0s"},
                            "access_log": {"mode": "all"}}, control, warnings=True)
        client = self.client(proxy)
        reasons = ("never_synced", "stale", "unknown_name", "not_loaded")

        def counts():
            m = proxy.metrics()
            return [m.sum("requests_without_state_total", reason=r) for r in reasons]

        self.assert_relayed(client.get(origin.url + "/"), 200)
        self.assertEqual(counts(), [1, 0, 0, 0])
        status = proxy.status()["control"]
        self.assertEqual((status["synced"], status["stale"], status["missing_breakers"]), (False, False, 0))
        control.stream_mode = "ok"
        proxy.wait_metric(lambda v: v == 1, "control_state_synced")
        self.assert_relayed(client.get(origin.url + "/"), 200)
        self.assertEqual(counts(), [1, 0, 1, 0])
        status = proxy.status()["control"]
        self.assertEqual((status["synced"], status["stale"], status["missing_breakers"]), (True, False, 1))
        control.go_away()
        proxy.wait_metric(lambda v: v == 1, "control_state_stale")
        self.assert_relayed(client.get(origin.url + "/"), 200)
        self.assertEqual(counts(), [1, 1, 1, 0])
        self.assertTrue(proxy.status()["control"]["stale"])
        wait_until(lambda: [e.get("state_unknown") for e in proxy.access_log()] ==
                   ["never_synced", "unknown_name", "stale"], 5, lambda: f"{proxy.access_log()}")

    def test_a_breaker_that_a_reconnection_and_the_list_lack_is_unknown_again(self):
        control, origin = self.control({"b": "open", "c": "open", "new": "closed"}), self.http_origin()
        proxy = self.proxy({}, control, warnings=True)
        client = self.client(proxy)
        self.assert_self_made(client.get(origin.url + "/"), 503)
        control.remove("b")
        control.cut()
        proxy.wait_breaker("b", "unknown", 20)
        self.assert_relayed(client.get(origin.url + "/"), 200)
        self.assertEqual(proxy.breaker_state("c"), "open", "it is there still")
        self.assertEqual(control.lists[0][0], "breakers")
        self.assertEqual(len(control.lists), 1, "asked once")
        proxy.expect_metric(1, "breakers_missing")

    def test_a_reconnection_that_has_all_breakers_asks_for_no_list(self):
        control = self.control({"b": "open", "c": "open"})
        self.proxy({}, control, warnings=True)
        opened = len(control.stream_opens)
        control.cut()
        wait_until(lambda: len(control.stream_opens) > opened, 10, "a new stream")
        stays(lambda: not control.lists, 6.5, lambda: f"{control.lists}")
