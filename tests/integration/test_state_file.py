"""embedded.state_file: the embedded control plane goes on after a restart."""

import json
import os
import shutil
import stat
import subprocess
import time

from harness import Case, merge, build_cost, slowdown, wait_until

BAD = "embedded.state_file"


class StateFileCase(Case):
    RULE = {"cooldown_ms": 60000, "eval_interval_ms": 100, "recovery_allow_rate_ramp_steps": 2}

    def setUp(self):
        super().setUp()
        self.dir = self.temp_dir()
        self.file = os.path.join(self.dir, "states")
        self.origin_ = self.http_origin()
        self.name = f"127.0.0.1:{self.origin_.port}"

    def start(self, rule=None, file=None, **kw):
        embedded = {"state_file": file or self.file, "auto_breaker": {**self.RULE, **(rule or {})}}
        return self.proxy({"samples": None, "embedded": embedded}, None, **kw)

    def read(self, file=None):
        with open(file or self.file, encoding="utf-8") as f:
            return json.load(f)

    def states(self, file=None):
        try:
            return {b["name"]: b["state"] for b in self.read(file)["breakers"]}
        except FileNotFoundError:
            return None

    def trip(self, proxy):
        client = self.client(proxy)
        self.origin_.down = True
        for _ in range(5):
            self.assert_relayed(client.get(self.origin_.url + "/"), 503, b"down\n")
        proxy.wait_breaker(self.name, "open")

    def wait_states(self, want, timeout=10, file=None):
        wait_until(lambda: self.states(file) == want, timeout, lambda: f"the file to say {want}, it says {self.states(file)}")

    def kill(self, proxy):
        proxy.process.kill()
        proxy.process.wait(10)
        proxy.stopped = True

    def events(self, proxy, event):
        return [e for e in proxy.log() if e.get("event") == event]

    def write(self, text, file=None):
        with open(file or self.file, "w", encoding="utf-8") as f:
            f.write(text)

    def entry(self, state="open", ago_ms=0, **more):
        return {"name": self.name, "router": self.name, "state": state, "since_wall_ms": int(time.time() * 1000) - ago_ms,
                "failed_recoveries": 0, **more}

    @staticmethod
    def document(*entries, **more):
        return json.dumps({"format": "tripswitch-proxy breakers", "version": 1, "written_wall_ms": int(time.time() * 1000),
                           "breakers": list(entries), **more})


class RestartTest(StateFileCase):
    def test_killed_while_a_breaker_is_open_the_next_run_refuses_until_the_cooldown_ends(self):
        cooldown = 4 + 4 * build_cost()
        rule = {"cooldown_ms": int(cooldown * 1000)}
        first = self.start(rule)
        self.trip(first)
        opened = time.time()
        self.wait_states({self.name: "open"})
        self.kill(first)
        self.origin_.down = False
        hits = self.origin_.hits
        self.assertEqual(stat.S_IMODE(os.stat(self.file).st_mode), 0o600)
        second = self.start(rule)
        response = self.get(self.origin_.url + "/")
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual(response.get("x-tripswitch-breaker"), self.name)
        self.assertEqual(response.get("x-tripswitch-state"), "open")
        self.assertEqual(self.origin_.hits, hits)
        told = wait_until(lambda: self.events(second, "state_file.resumed"), 5, "it to be said")
        self.assertEqual([e["resumed"] for e in told], ["1"])
        client = self.client(second)

        def passes():
            return client.get(self.origin_.url + "/").status == 200

        wait_until(passes, cooldown + 10, "a request to pass", step=0.02)
        self.assertGreater(time.time() - opened, cooldown - 1)
        self.assertLess(time.time() - opened, cooldown + 3 * slowdown(), "time away counts")

        def closed():
            client.get(self.origin_.url + "/")
            return second.breaker_state(self.name) == "closed"

        wait_until(closed, 20, "it to close", step=0.02)
        self.wait_states({})

    def test_a_half_open_breaker_is_half_open_again_and_recovers(self):
        rule = {"cooldown_ms": 300, "half_open_backoff_cap_ms": 300}
        first = self.start(rule)
        self.trip(first)
        first.wait_breaker(self.name, "half_open")
        self.wait_states({self.name: "half_open"})
        first.stop()
        second = self.start(rule)
        self.assertEqual(second.breaker_state(self.name), "half_open")
        self.origin_.down = False
        client = self.client(second)

        def closed():
            client.get(self.origin_.url + "/")
            return second.breaker_state(self.name) == "closed"

        wait_until(closed, 20, "it to close", step=0.02)

    def test_what_changed_last_is_written_at_the_end(self):
        proxy = self.start()
        wait_until(lambda: self.states() == {}, 5, "the file to be written at start")
        self.trip(proxy)
        proxy.stop()
        self.assertEqual(self.states(), {self.name: "open"})
        self.assertEqual(os.listdir(self.dir), ["states"])

    def test_a_breaker_that_somebody_closed_in_the_file_is_closed(self):
        self.write(self.document(self.entry("closed"), self.entry(name="gone.test", router="gone.test")))
        proxy = self.start()
        self.assert_relayed(self.get(self.origin_.url + "/"), 200, b"ok")
        self.assertEqual(proxy.breaker_state("gone.test"), "open")

    def test_breakers_that_are_configured_no_more_are_dropped(self):
        payments = self.entry(name="payments")
        del payments["router"]
        self.write(self.document(payments, self.entry()))
        proxy = self.start()
        told = wait_until(lambda: self.events(proxy, "state_file.resumed"), 5, "it to be said")
        self.assertEqual([(e["resumed"], e["dropped"]) for e in told], [("1", "1")])
        self.assertEqual(list(proxy.breakers()), [self.name])

    def test_without_the_key_nothing_is_kept_and_a_reload_can_say_otherwise(self):
        proxy = self.proxy({"samples": None, "embedded": {"auto_breaker": self.RULE}}, None)
        self.trip(proxy)
        bare, other = proxy.config, os.path.join(self.dir, "other")
        self.assertIsNone(proxy.status()["control"]["embedded"]["state_file"])
        for file in (self.file, other):
            proxy.write_config(merge(bare, {"embedded": {"state_file": file}}))
            proxy.reload()
            self.wait_states({self.name: "open"}, file=file)
        self.assertEqual(proxy.status()["control"]["embedded"]["state_file"], other)
        os.unlink(other)
        proxy.write_config(bare)
        proxy.reload()
        proxy.stop()
        self.assertEqual(os.listdir(self.dir), ["states"], "the last configuration keeps nothing")

    def test_what_a_reload_asks_for_in_vain_is_tried_again(self):
        proxy = self.proxy({"samples": None, "embedded": {"auto_breaker": self.RULE}}, None, warnings=[BAD])
        file = os.path.join(self.dir, "later", "states")
        proxy.write_config(merge(proxy.config, {"embedded": {"state_file": file}}))
        proxy.reload()
        proxy.wait_metric(lambda n: n >= 1, "embedded_state_file_writes_total", result="error")
        os.mkdir(os.path.dirname(file))
        self.wait_states({}, 20, file)


class RefusedTest(StateFileCase):
    def test_a_file_that_cannot_be_taken_is_put_aside_and_every_breaker_starts_closed(self):
        good = self.document(self.entry())
        later = int(time.time() * 1000) + 3600 * 1000
        cases = {
            "damaged": (good[:-20], "it is not JSON, from byte"),
            "of somebody else": ("127.0.0.1 localhost\n", "it is not JSON"),
            "of a later version": (good.replace('"version": 1', '"version": 2'), "its version is 2, and this program knows 1"),
            "from the future": (self.document(self.entry(), written_wall_ms=later), "s in the future: the clock was set back"),
            "too large": (good + " " * (16 << 20), "it is over 16777216 bytes"),
        }
        for case, (text, why) in cases.items():
            with self.subTest(case):
                self.write(text)
                proxy = self.start(warnings=[BAD])
                self.assert_relayed(self.get(self.origin_.url + "/"), 200, b"ok")
                warnings = wait_until(lambda: self.events(proxy, "state_file.refused"), 5, "a warning")
                self.assertEqual(len(warnings), 1)
                self.assertIn(why, warnings[0]["msg"])
                self.assertIn("every breaker starts closed, and the file is kept with .bad behind its name", warnings[0]["msg"])
                with open(self.file + ".bad", encoding="utf-8") as f:
                    self.assertEqual(f.read(), text)
                self.wait_states({})
                proxy.stop()

    def test_an_empty_file_is_taken_for_none(self):
        self.write("")
        self.start()
        self.wait_states({})

    def test_what_is_not_a_regular_file_stays_as_it_is(self):
        os.mkfifo(self.file)
        proxy = self.start(warnings=[BAD])
        self.assert_relayed(self.get(self.origin_.url + "/"), 200, b"ok")
        proxy.wait_metric(lambda n: n >= 1, "embedded_state_file_writes_total", result="error")
        proxy.stop()
        self.assertTrue(stat.S_ISFIFO(os.lstat(self.file).st_mode))
        self.assertEqual(os.listdir(self.dir), ["states"])


class FailingDiskTest(StateFileCase):
    def errors(self, proxy):
        return proxy.metric("embedded_state_file_writes_total", result="error")

    def test_a_missing_directory_is_one_warning_and_traffic_goes_on(self):
        file = os.path.join(self.dir, "later", "states")
        proxy = self.start(file=file, warnings=[BAD])
        self.trip(proxy)
        self.assertEqual(self.get(self.origin_.url + "/").get("x-tripswitch-state"), "open")
        wait_until(lambda: self.errors(proxy) >= 2, 20, "a second try")
        warnings = wait_until(lambda: self.events(proxy, "state_file.write_failed"), 5, "a warning")
        self.assertEqual(len(warnings), 1, warnings)
        self.assertEqual((warnings[0]["path"], warnings[0]["level"]), (file, "warning"))
        self.assertIn("No such file or directory", warnings[0]["error"])
        status = proxy.status()["control"]["embedded"]
        self.assertGreaterEqual(status["state_file_write_errors"], 2)
        self.assertEqual(status["state_file_writes"], 0)
        os.mkdir(os.path.dirname(file))
        self.wait_states({self.name: "open"}, 20, file)
        wait_until(lambda: self.events(proxy, "state_file.written_again"), 5, "it to be said")
        proxy.expect_metric(1, "embedded_state_file_writes_total", result="ok")

    def test_a_full_disk_leaves_the_last_file_whole_and_is_written_once_there_is_room(self):
        unshare = shutil.which("unshare")
        mine = [unshare or "unshare", "--mount"] if os.geteuid() == 0 else [unshare or "unshare", "--user", "--map-root-user", "--mount"]
        mount = f"mount -t tmpfs -o size=16k tmpfs {self.dir}"
        if not unshare or subprocess.run([*mine, "sh", "-c", mount], capture_output=True, check=False).returncode:
            self.skipTest("NOT TESTED: A FULL DISK, because no file system can be mounted here")
        proxy = self.start(warnings=[BAD], prefix=[*mine, "sh", "-c", f"{mount} && exec \"$@\"", "sh"])
        inside = f"/proc/{proxy.pid}/root{self.dir}"  # as the proxy sees it
        file, filler = f"{inside}/states", f"{inside}/filler"
        self.wait_states({}, file=file)
        with open(filler, "wb", buffering=0) as f:
            with self.assertRaises(OSError):
                while True:
                    f.write(b"x" * 4096)
        self.trip(proxy)
        wait_until(lambda: self.errors(proxy) >= 1, 10, "a failed write")
        warnings = wait_until(lambda: self.events(proxy, "state_file.write_failed"), 5, "a warning")
        self.assertIn("No space left on device", warnings[0]["error"])
        self.assertEqual(self.states(file), {}, "what was there is still whole")
        self.assertEqual(sorted(os.listdir(inside)), ["filler", "states"])
        self.assertEqual(self.get(self.origin_.url + "/").get("x-tripswitch-state"), "open")
        os.unlink(filler)
        self.wait_states({self.name: "open"}, 20, file)
        wait_until(lambda: self.events(proxy, "state_file.written_again"), 5, "it to be said")
