"""Configuration: three sources, one truth, errors with a place (DESIGN "Configuration")."""

import json
import os
import re
import signal
import socket
import subprocess
import time

from harness import ROOT, Case, binary, clean_environment, free_port, merge, run_binary, tool, wait_until

SECRET = "ab" * 32


class CheckTest(Case):
    def setUp(self):
        super().setUp()
        self.dir = self.temp_dir()

    def file(self, content, name="config.json"):
        path = os.path.join(self.dir, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(content if isinstance(content, str) else json.dumps(content, indent=2))
        return path

    def check(self, content, code, *words, env=None, args=()):
        path = self.file(content)
        done = run_binary("check", "--config", path, *args, env=env)
        text = done.stdout + done.stderr
        self.assertEqual(done.returncode, code, text)
        for word in words:
            self.assertRegex(text, word)
        return text

    def test_an_empty_object_is_valid(self):
        self.check("{}", 0)

    def test_the_file_may_be_named_behind_check(self):
        path = self.file("{ \"wrokers\": 1 }")
        done = run_binary("check", path)
        self.assertEqual(done.returncode, 78, done.stderr)
        self.assertIn(path + ":1:", done.stderr + done.stdout)

    def test_comments_are_allowed(self):
        self.check('{ // a line\n /* a\n block */ "workers": 2, // "://" inside\n "via": "a//b" }', 78, r":4:\d+: /via")
        self.check('{ // a line\n /* a\n block */ "workers": 2 /* end */ }', 0)

    def test_every_error_has_file_line_column_and_pointer(self):
        content = '{\n  "workers": 2,\n  "limits": {\n    "buffer": "nonsense"\n  }\n}\n'
        text = self.check(content, 78)
        self.assertRegex(text, r"config\.json:4:\d+: /limits/buffer: ")

    def test_all_errors_are_listed_not_only_the_first(self):
        content = '{\n"workers": "many",\n"mode": "sometimes",\n"listen": ["127.0.0.1:99999"],\n"nonsense": 1,\n' \
                  '"routes": [\n{"name": "a", "reject": {"status": 42}}\n]\n}'
        text = self.check(content, 78, "/workers", "/mode", "/listen", "/nonsense", "/routes/0/reject/status")
        for line in (2, 3, 4, 5, 7):
            self.assertRegex(text, rf"config\.json:{line}:\d+: /")

    def test_a_misspelt_key_comes_with_the_right_suggestion(self):
        cases = [("wrokers", "workers"), ("lisen", "listen"), ("fail_mod", "fail_mode"), ("timeout", "timeouts"),
                 ("limts", "limits"), ("sample", "samples"), ("route", "routes"), ("globaltags", "global_tags")]
        for wrong, right in cases:
            with self.subTest(wrong):
                self.check({wrong: {}}, 78, f'/{wrong}.*"?{right}"?')
        for section, wrong, right in [("timeouts", "conect", "connect"), ("limits", "header_byte", "header_bytes"),
                                      ("drain", "maxx", "max"), ("control", "project_ids", "project_id"),
                                      ("samples", "flush_intervall", "flush_interval")]:
            with self.subTest(f"{section}.{wrong}"):
                self.check({section: {wrong: 1}}, 78, rf"/{section}/{wrong}: .*{right}")

    def test_bad_values_are_refused(self):
        cases = [
            {"workers": -1}, {"workers": 1.5}, {"workers": "two"}, {"timeouts": {"connect": 10}}, {"timeouts": {"connect": "10"}},
            {"timeouts": {"connect": "ten seconds"}}, {"timeouts": {"connect": "-1s"}}, {"limits": {"buffer": 65536}},
            {"limits": {"buffer": "64 elephants"}}, {"limits": {"connections": 0}}, {"limits": {"header_fields": 1025}}, {"mode": "enforced"},
            {"listen": ["127.0.0.1"]}, {"listen": ["localhost:1"]}, {"listen": ["127.0.0.1:0x50"]},
            {"allow_clients": ["10.0.0.0/33"]}, {"allow_clients": ["10.0.0.0/8/8"]}, {"global_tags": {"a": 1}},
            {"samples": {"batch": 0}}, {"samples": {"batch": 1001}}, {"drain": {"max": "forever"}},
            {"dns": {"servers": ["nonsense"]}}, {"access": {"connect_ports": ["443-80"]}}, {"routes": {}},
            {"routes": [{"name": "a", "match": {"hosts": ["http://x"]}}]}, {"routes": [{"name": "a", "match": {"ports": [70000]}}]},
            {"routes": [{"name": "a", "match": {"paths": ["/a*b"]}}]}, {"routes": [{"name": "a", "breakers": "b"}]},
            {"routes": [{"name": "a"}, {"name": "a"}]}, {"routes": [{"name": "a", "failure": {"on": ["bad luck"]}}]},
            {"routes": [{"name": "a", "failure": {"status": ["9xx"]}}]}, {"routes": [{"name": "a", "metrics": {"x": "nonsense"}}]},
            {"routes": [{"name": "a", "breakers": [f"b{i}" for i in range(17)]}]},
            {"routes": [{"name": "a", "metrics": {f"m{i}": i for i in range(9)}}]},
        ]
        for content in cases:
            with self.subTest(content):
                self.check(content, 78, r"config\.json:\d+:\d+: /")
        self.check({"limits": {"header_fields": 1024}}, 0)

    def test_broken_json_is_refused_with_its_place(self):
        for content in ("", "{", "[]", "{\"a\": }", "{\"workers\": 1,}", "{\"workers\": 1} x", "{\"workers\": 1 \"mode\": 2}",
                        "{\"workers\": 1, \"workers\": 2}", "\x00", "{\"via\": \"\xff"):
            with self.subTest(content):
                self.check(content, 78, r"config\.json:\d+:\d+: ")

    def test_deep_or_huge_files_are_refused_not_crashed_on(self):
        self.check("[" * 100_000, 78)
        self.check("{\"a\":" * 50_000, 78)
        self.check('{"x": "' + "y" * (8 << 20) + '"}', 78)

    def test_asking_for_tls_origination_or_interception_says_that_it_is_not_there(self):
        for tls in ("originate", "intercept"):
            with self.subTest(tls):
                self.check({"routes": [{"name": "a", "tls": tls}]}, 78, rf"/routes/0/tls: .*{tls}")
        self.check({"routes": [{"name": "a", "tls": "tunnel"}]}, 0)

    def test_a_bind_beyond_loopback_needs_allow_clients(self):
        self.check({"listen": ["0.0.0.0:3128"]}, 78, "allow_clients")
        self.check({"listen": ["[::]:3128"]}, 78, "allow_clients")
        self.check({"listen": ["0.0.0.0:3128"], "allow_clients": ["10.0.0.0/8"]}, 0)

    def test_a_breaker_that_success_opens_or_no_sample_reaches_is_warned_of(self):
        content = {"routes": [{"name": "a", "breakers": ["b-{host}"], "router": "fixed"}],
                   "embedded": {"auto_breaker": {"op": "lt", "threshold": 3}}}
        self.check(content, 0, r"config\.json:\d+:\d+: /routes/0/router: .*b-\{host\}",
                   r"config\.json:\d+:\d+: /embedded/auto_breaker/op: .*opens on success")
        text = self.check({**content, "control": {"project_id": "p"}}, 0,
                          env={"TRIPSWITCH_API_KEY": "eb_pk_x", "TRIPSWITCH_INGEST_SECRET": SECRET})
        self.assertNotIn("/routes/0", text, "a remote control plane has rules of its own")
        self.assertNotIn("auto_breaker", text)

    def test_the_example_is_as_good_for_the_embedded_control_plane(self):
        with open(os.path.join(ROOT, "config", "example.json"), encoding="utf-8") as f:
            content = f.read()
        embedded = content.replace('"project_id": "proj_abc123"', '"project_id": null').replace(
            '"url": "https://api.tripswitch.dev"', '"url": "embedded"')
        self.assertEqual(len(self.check(embedded, 0).splitlines()), 1, "a warning")

    def test_a_pipe_is_read_but_not_waited_for(self):
        fifo = os.path.join(self.dir, "fifo.json")
        os.mkfifo(fifo)
        done = run_binary("check", "--config", fifo, timeout=5)
        self.assertEqual(done.returncode, 78, done.stderr)
        self.assertRegex(done.stderr, r"fifo\.json: a pipe .*regular file")
        holder = os.open(fifo, os.O_RDWR)
        self.addCleanup(os.close, holder)
        began = time.monotonic()
        done = run_binary("check", "--config", fifo, timeout=10)
        self.assertEqual(done.returncode, 78, done.stderr)
        self.assertRegex(done.stderr, r"fifo\.json: .*2 s; .*regular file")
        self.assertGreater(time.monotonic() - began, 1.8)
        os.write(holder, b'{"workers": ')
        done = run_binary("check", "--config", fifo, timeout=10)
        self.assertRegex(done.stderr, "2 s", "the writer never ends")

    def test_process_substitution_works_for_a_slow_writer(self):
        bash = tool("bash")
        script = '"$0" check --config <(sleep 0.5; echo \'{"workers":\'; sleep 0.5; echo "%s}")'
        for value, code in (("2", 0), ("-1", 78)):
            done = subprocess.run([bash, "-c", script % value, binary()], env=clean_environment(), capture_output=True,
                                  text=True, timeout=20, check=False)
            self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertRegex(done.stderr, r":2:1: /workers")

    def test_a_missing_file_is_told(self):
        done = run_binary("check", "--config", os.path.join(self.dir, "nowhere.json"))
        self.assertEqual(done.returncode, 78, done.stderr)
        self.assertIn("nowhere.json", done.stdout + done.stderr)

    def test_the_documented_defaults_are_a_valid_file(self):
        content = {
            "listen": ["127.0.0.1:3128", "[::1]:3128"], "transparent_listen": [], "telemetry_listen": "127.0.0.1:3130",
            "admin_listen": "127.0.0.1:3131", "allow_clients": ["127.0.0.0/8", "::1/128"], "workers": 0, "mode": "enforce",
            "fail_mode": "open", "via": None, "upgrades": ["websocket"],
            "control": {"url": "https://api.tripswitch.dev", "project_id": "proj_abc123", "ca_file": None, "proxy": None,
                        "state_source": "auto", "poll_interval": "30s", "startup_sync_timeout": "5s", "require_sync": False,
                        "state_max_age": "60s", "metadata_interval": "30s"},
            "samples": {"flush_interval": "15s", "urgent_interval": "1s", "batch": 500, "buffer": 10000, "max_age": "2m",
                        "max_posts_per_second": 10, "trace_header": "traceparent"},
            "global_tags": {"service": "checkout"},
            "timeouts": {"connect": "10s", "tls": "10s", "first_byte": "off", "idle": "off", "total": "off",
                         "client_header": "10s", "client_idle": "1h", "upstream_idle": "4s", "tunnel_idle": "off",
                         "keepalive": "60s"},
            "limits": {"connections": 4096, "connections_per_client": "off", "tunnels": 4096, "header_bytes": "64KiB",
                       "header_fields": 128, "buffer": "64KiB", "buffered_total": "32MiB", "upstream_idle": 256,
                       "dns_queue": 1000, "auto_breakers": 1000},
            "dns": {"min_ttl": "1s", "max_ttl": "60s", "stale": "60s", "timeout": "5s"},
            "access": {"connect_ports": ["1-65535"], "deny_destinations": ["169.254.0.0/16", "fe80::/10"]},
            "drain": {"min": "5s", "idle": "1s", "max": "25s"}, "access_log": {"mode": "errors", "path": "stdout"},
            "bypass": [], "defaults": {},
            "routes": [{
                "name": "payments",
                "match": {"hosts": ["payments.example.com", "*.payments.example.com"], "ports": [80, 443], "methods": ["POST"],
                          "paths": ["/v1/charge", "/v1/refunds/*"], "headers": {"x-tenant": "blue"}},
                "breakers": ["payment-gateway"], "router": "550e8400-e29b-41d4-a716-446655440000",
                "metrics": {"latency": "latency"}, "tags": {"tier": "premium", "status": "{status}", "method": "{method}"},
                "failure": {"status": ["5xx"], "except_status": [],
                            "on": ["connect", "dns", "tls", "timeout", "reset", "protocol"], "no_response_after": "30s",
                            "slower_than": "off", "client_abort_after": "2s", "body_limit": "64KiB", "headers": [], "body": []},
                "neutral": {"status": []},
                "half_open": {"no_response_after": "5s", "timeout": "off", "max_concurrent": "off", "max_per_second": "off",
                              "eligible": {"methods": [], "max_body": "off"}, "fleet": {"size": 1, "max_per_second": "off"}},
                "reject": {"status": 503, "retry_after": "off", "content_type": None, "body": None, "headers": {}},
                "tunnels_on_open": "close_idle", "timeouts": {}, "mode": "enforce", "fail_mode": "open", "tls": "tunnel"}],
            "embedded": {"auto_breaker": {"kind": "consecutive_failures", "op": "gte", "threshold": 5, "cooldown_ms": 5000,
                                          "recovery_allow_rate_ramp_steps": 3, "eval_interval_ms": 500},
                         "breakers": [], "routers": [], "state_file": None},
        }
        self.check(content, 0, env={"TRIPSWITCH_API_KEY": "eb_pk_x", "TRIPSWITCH_INGEST_SECRET": SECRET})

    def test_a_misspelling_of_any_key_is_noticed(self):
        sample = {"workers": 1, "mode": "enforce", "control": {"startup_sync_timeout": "5s"}, "samples": {"batch": 5},
                  "timeouts": {"connect": "1s", "client_header": "2s"}, "limits": {"connections": 5, "header_bytes": "8KiB"},
                  "drain": {"idle": "1s"}, "routes": [{"name": "a", "match": {"hosts": ["a.test"]}, "breakers": ["b"],
                                                       "failure": {"no_response_after": "1s"}, "reject": {"retry_after": "2s"}}]}
        text = json.dumps(sample)
        keys = sorted(set(re.findall(r'"([a-z_]+)":', text)))
        right = 0
        for key in keys:
            wrong = key[:-1] + ("x" if key[-1] != "x" else "y")
            done = run_binary("check", "--config", self.file(text.replace(f'"{key}":', f'"{wrong}":')))
            out = done.stdout + done.stderr
            with self.subTest(wrong):
                self.assertEqual(done.returncode, 78, out)
                self.assertRegex(out, rf"config\.json:1:\d+: /\S*{wrong}: ")
            right += f'"{key}"' in out
        self.assertGreaterEqual(right / len(keys), 0.9, f"suggestions: {right} of {len(keys)}")

    def test_checking_opens_no_socket(self):
        port = free_port()
        with socket.create_server(("127.0.0.1", port)) as s:
            s.settimeout(0.2)
            self.check({"listen": [f"127.0.0.1:{port}"], "control": {"url": f"http://127.0.0.1:{port}", "project_id": "p"}}, 0,
                       env={"TRIPSWITCH_API_KEY": "eb_pk_x", "TRIPSWITCH_INGEST_SECRET": SECRET})
            with self.assertRaises(TimeoutError):
                s.accept()


class SourceTest(Case):
    """Flag beats environment beats file."""

    def seen(self, *, file=None, env=None, args=()):
        """The status that a refusal has: observable from outside."""
        control = self.control()
        config = merge({"timeouts": {"first_byte": file}} if file else {}, {})
        proxy = self.proxy(config, control, env={"TRIPSWITCH_PROXY_TIMEOUTS_FIRST_BYTE": env} if env else {}, args=args)
        origin = self.http_origin()
        return self.client(proxy).get(origin.url + "/slow/500").status

    def test_flag_beats_environment_beats_file(self):
        self.assertEqual(self.seen(), 200)
        self.assertEqual(self.seen(file="100ms"), 504)
        self.assertEqual(self.seen(file="100ms", env="5s"), 200)
        self.assertEqual(self.seen(file="5s", env="100ms"), 504)
        self.assertEqual(self.seen(file="5s", env="5s", args=["--timeouts-first-byte", "100ms"]), 504)
        self.assertEqual(self.seen(file="100ms", env="100ms", args=["--timeouts-first-byte=off"]), 200)

    def test_a_wrong_flag_is_a_usage_error_with_a_suggestion(self):
        for args, word in [(["--wrokers", "2"], "--workers"), (["--timeouts-conect=1s"], "--timeouts-connect"),
                           (["chekc"], "check"), (["--workers"], "workers")]:
            with self.subTest(args):
                done = run_binary(*args)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn(word, done.stderr)
                self.assertEqual(done.stdout, "")

    def test_a_wrong_value_of_a_flag_or_variable_is_a_configuration_error(self):
        done = run_binary("check", "--workers", "many")
        self.assertIn(done.returncode, (2, 78), done.stderr)
        done = run_binary("check", env={"TRIPSWITCH_PROXY_WORKERS": "many"})
        self.assertEqual(done.returncode, 78, done.stderr)
        self.assertIn("TRIPSWITCH_PROXY_WORKERS", done.stdout + done.stderr)

    def test_an_unknown_variable_of_ours_is_an_error_but_service_links_are_not(self):
        done = run_binary("check", env={"TRIPSWITCH_PROXY_WROKERS": "1"})
        self.assertEqual(done.returncode, 78, done.stderr)
        self.assertIn("TRIPSWITCH_PROXY_WORKERS", done.stdout + done.stderr)
        links = {"TRIPSWITCH_PROXY_SERVICE_HOST": "10.0.0.1", "TRIPSWITCH_PROXY_SERVICE_PORT": "3128",
                 "TRIPSWITCH_PROXY_SERVICE_PORT_HTTP": "3128", "TRIPSWITCH_PROXY_PORT": "tcp://10.0.0.1:3128",
                 "TRIPSWITCH_PROXY_PORT_3128_TCP": "tcp://10.0.0.1:3128", "TRIPSWITCH_PROXY_PORT_3128_TCP_PROTO": "tcp",
                 "TRIPSWITCH_PROXY_PORT_3128_TCP_PORT": "3128", "TRIPSWITCH_PROXY_PORT_3128_TCP_ADDR": "10.0.0.1"}
        done = run_binary("check", env=links)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_an_empty_variable_is_as_if_unset(self):
        self.assertEqual(run_binary("check", env={"TRIPSWITCH_PROXY_WORKERS": "", "TRIPSWITCH_API_KEY": ""}).returncode, 0)

    def test_lists_in_variables_are_joined_by_commas(self):
        a, b = free_port(), free_port()
        proxy = self.proxy({"listen": [f"127.0.0.1:{a}"]}, self.control(),
                           env={"TRIPSWITCH_PROXY_LISTEN": f"127.0.0.1:{a},127.0.0.1:{b}"})
        origin = self.http_origin()
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")
        proxy.address = ("127.0.0.1", b)
        self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")

    def test_the_file_may_be_named_by_the_environment(self):
        path = os.path.join(self.temp_dir(), "c.json")
        with open(path, "w", encoding="utf-8") as f:
            f.write('{"wrokers": 1}')
        done = run_binary("check", env={"TRIPSWITCH_PROXY_CONFIG": path})
        self.assertEqual(done.returncode, 78)
        self.assertIn("wrokers", done.stdout + done.stderr)

    def test_base_url_is_the_same_option_as_control_url(self):
        control = self.control()
        proxy = self.proxy({"control": {"url": None}}, control, env={"TRIPSWITCH_BASE_URL": control.url + "/"})
        proxy.expect_metric(1, "control_state_synced")
        path = os.path.join(self.temp_dir(), "c.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"control": {"url": "http://127.0.0.1:1", "project_id": "p"}}, f)
        env = {"TRIPSWITCH_BASE_URL": "http://127.0.0.1:2", "TRIPSWITCH_API_KEY": "eb_pk_x", "TRIPSWITCH_INGEST_SECRET": SECRET}
        done = run_binary("check", "--config", path, env=env)
        self.assertEqual(done.returncode, 78, done.stdout + done.stderr)
        self.assertIn("TRIPSWITCH_BASE_URL", done.stdout + done.stderr)


class SecretTest(Case):
    def secret_file(self, text, name="secret"):
        path = os.path.join(self.temp_dir(), name)
        with open(path, "w", encoding="latin-1", newline="") as f:
            f.write(text)
        os.chmod(path, 0o600)
        return path

    def test_secrets_may_come_from_files_with_or_without_a_newline(self):
        for end in ("", "\n", "\r\n"):
            with self.subTest(repr(end)):
                control = self.control()
                env = {"TRIPSWITCH_API_KEY": None, "TRIPSWITCH_INGEST_SECRET": None,
                       "TRIPSWITCH_API_KEY_FILE": self.secret_file(control.api_key + end),
                       "TRIPSWITCH_INGEST_SECRET_FILE": self.secret_file(control.ingest_secret + end)}
                proxy = self.proxy({}, control, env=env)
                proxy.expect_metric(1, "control_state_synced")
                self.assert_relayed(self.get(self.http_origin().url + "/"), 200)
                control.wait_samples(1)

    def check(self, env):
        path = self.secret_file('{"control": {"url": "http://127.0.0.1:1", "project_id": "p"}}', "c.json")
        base = {"TRIPSWITCH_API_KEY": "eb_pk_x", "TRIPSWITCH_INGEST_SECRET": SECRET}
        done = run_binary("check", "--config", path, env={**base, **env})
        return done.returncode, done.stdout + done.stderr

    def test_bad_secrets_are_errors_that_do_not_show_them(self):
        hidden = "s3cr3t-v4lue"
        cases = [
            {"TRIPSWITCH_INGEST_SECRET": hidden},
            {"TRIPSWITCH_INGEST_SECRET": "zz" * 32},
            {"TRIPSWITCH_INGEST_SECRET": None, "TRIPSWITCH_INGEST_SECRET_FILE": "/nowhere/at/all"},
            {"TRIPSWITCH_INGEST_SECRET": None, "TRIPSWITCH_INGEST_SECRET_FILE": self.secret_file(hidden + "\n")},
            {"TRIPSWITCH_API_KEY": None, "TRIPSWITCH_API_KEY_FILE": self.secret_file("two\n" + hidden)},
            {"TRIPSWITCH_API_KEY_FILE": self.secret_file("eb_pk_both")},
            {"TRIPSWITCH_API_KEY": None},
        ]
        for env in cases:
            with self.subTest(env):
                code, text = self.check(env)
                self.assertEqual(code, 78, text)
                self.assertNotIn(hidden, text)
                self.assertNotIn("zz" * 32, text)

    def test_no_flag_takes_a_secret(self):
        for flag in ("--api-key", "--ingest-secret"):
            self.assertEqual(run_binary(flag, "x").returncode, 2)


class PipeReloadTest(Case):
    def test_a_file_that_became_a_pipe_neither_stops_the_proxy_nor_replaces_its_configuration(self):
        for writer in (False, True):
            with self.subTest(writer=writer):
                proxy = self.proxy({}, self.control(), warnings=True)
                origin = self.http_origin()
                os.unlink(proxy.config_path)
                os.mkfifo(proxy.config_path)
                if writer:
                    self.addCleanup(os.close, os.open(proxy.config_path, os.O_RDWR))
                proxy.reload()
                proxy.expect_metric(0, "config_last_reload_successful")
                proxy.expect_metric(1, "config_reloads_total", result="error")
                self.assertIn("name a regular file", proxy.stderr())
                self.assert_relayed(self.get(origin.url + "/", proxy=proxy), 200, b"ok")
                proxy.stop()

    def test_a_proxy_starts_from_process_substitution_and_says_why_it_cannot_reload(self):
        bash = tool("bash")
        stderr = os.path.join(self.temp_dir(), "stderr")
        content = json.dumps({"listen": [f"127.0.0.1:{free_port()}"], "telemetry_listen": "off", "admin_listen": "off",
                              "drain": {"min": "0s", "idle": "0s"}})
        with open(stderr, "wb") as err:
            process = subprocess.Popen([bash, "-c", 'exec "$0" --config <(sleep 0.3; echo "$1")', binary(), content],
                                       env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def text():
            with open(stderr, encoding="utf-8", errors="replace") as f:
                return f.read()

        wait_until(lambda: '"event":"ready"' in text() or process.poll() is not None, 20, "the line that says ready")
        self.assertIsNone(process.poll(), text())
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "config.reload_failed" in text(), 10, "the failed reload")
        self.assertIn("was read before; name a regular file", text())
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), 0, text())


class ProgramTest(Case):
    def test_help_goes_to_stdout_fits_eighty_columns_and_names_every_flag(self):
        for args in (["--help"], ["run", "--help"], ["check", "--help"]):
            with self.subTest(args):
                done = run_binary(*args)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertLessEqual(max(len(line) for line in done.stdout.splitlines()), 80)
        text = run_binary("--help").stdout
        for flag in ("--listen", "--config", "--control-state-max-age", "--drain-min", "--workers", "--log-level"):
            self.assertIn(flag, text)

    def test_version_is_one_line(self):
        done = run_binary("--version")
        self.assertEqual(done.returncode, 0)
        with open(os.path.join(ROOT, "VERSION"), encoding="ascii") as f:
            self.assertRegex(done.stdout, rf"\Atripswitch-proxy {re.escape(f.read().strip())}\n\Z")

    def test_run_is_the_default_subcommand_and_may_be_said(self):
        for sub in ([], ["run"]):
            with self.subTest(sub):
                self.proxy({}, self.control(), subcommand=sub)
                self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")

    def test_an_invalid_file_never_starts(self):
        path = os.path.join(self.temp_dir(), "c.json")
        with open(path, "w", encoding="utf-8") as f:
            f.write('{"wrokers": 1}')
        done = run_binary("--config", path)
        self.assertEqual(done.returncode, 78)
        self.assertIn("workers", done.stderr)

    def test_a_second_copy_gets_a_clear_error(self):
        proxy = self.proxy({}, self.control())
        done = subprocess.run([binary(), "--config", proxy.config_path], env=clean_environment(**proxy.env),
                              capture_output=True, text=True, timeout=20, check=False)
        self.assertEqual(done.returncode, 73, done.stderr)
        self.assertRegex(done.stderr, rf"127\.0\.0\.1:({proxy.port}|{proxy.telemetry_port})")
        self.assertIn("in use", done.stderr.lower())
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")

    def test_with_a_remote_control_plane_and_no_routes_traffic_passes_and_a_warning_says_so(self):
        control = self.control({"b": "open"})
        proxy = self.proxy({"routes": []}, control, warnings=["route"])
        self.assert_relayed(self.get(self.http_origin().url + "/"), 200, b"ok")
        wait_until(proxy.warning_lines, 5, "the warning")
        self.assertEqual(len(proxy.warning_lines()), 1, proxy.warning_lines())

    def test_ready_says_where_it_listens(self):
        proxy = self.proxy({}, self.control())
        wait_until(lambda: f"127.0.0.1:{proxy.port}" in proxy.stderr(), 5, "the start line")
        self.assertIn(str(proxy.telemetry_port), proxy.stderr())

    def test_several_listeners_ipv6_included_serve(self):
        a, b = free_port(), free_port(("127.0.0.1", "::1"))
        proxy = self.proxy({"listen": [f"127.0.0.1:{a}", f"[::1]:{b}", f"127.0.0.1:{b}"]}, self.control())
        origin = self.http_origin()
        for address in (("127.0.0.1", a), ("::1", b), ("127.0.0.1", b)):
            proxy.address = address
            self.assert_relayed(self.get(origin.url + "/"), 200, b"ok")
