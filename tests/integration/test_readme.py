"""README, typed: its configuration, and every command of it that calls the program or curl."""

import json
import os
import re
import signal
import subprocess

from harness import ROOT, Case, binary, clean_environment, free_port, tool, wait_until

ASKS = re.compile(r"tripswitch-proxy +(?:override|bypass|explain|status)\b")
SERVES = re.compile(r"tripswitch-proxy(?! +(?:check|init-net|override|bypass|explain|status)\b)")


def read():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
        return f.read()


def json_blocks():
    return re.findall(r"```json\n(.*?)```", read(), re.S)


def command_blocks():
    """[[line]]: what is indented by four spaces, one list per block."""
    text = re.sub(r"```.*?```", "", read(), flags=re.S)
    return [[line[4:] for line in block.splitlines()] for block in re.findall(r"(?:^    .*\n)+", text, re.M)]


def commands(pattern):
    """[(the exports above it in its block, the command)]; `make run ARGS=...` stands for the program."""
    found = []
    for block in command_blocks():
        exports = []
        for line in block:
            line = re.sub(r"^make run ARGS='(.*)'", r"build/tripswitch-proxy \1", line)
            if line.startswith("export "):
                exports.append(line)
            elif re.match(rf"(?:\w+=\S+ )*{pattern}", line):
                found.append(("\n".join(exports), line))
    return found


class ReadmeTest(Case):
    def setUp(self):
        """A folder like the checkout, with the JSON block in it under the name that README gives it."""
        super().setUp()
        self.dir = self.temp_dir()
        os.mkdir(os.path.join(self.dir, "build"))
        os.symlink(binary(), os.path.join(self.dir, "build", "tripswitch-proxy"))
        os.symlink(os.path.join(ROOT, "config"), os.path.join(self.dir, "config"))
        name = re.search(r"^Saved as `([\w.]+)`", read(), re.M)
        with open(os.path.join(self.dir, name[1]), "w", encoding="utf-8") as f:
            f.write(json_blocks()[0])

    def start(self, script, env):
        """The program takes the place of the shell, so that the process is the program."""
        script, count = re.subn(r"^(?=build/tripswitch-proxy)", "exec ", script, flags=re.M)
        self.assertEqual(count, 1, script)
        self.stderr_path = os.path.join(self.dir, "stderr")
        with open(self.stderr_path, "wb") as err:
            process = subprocess.Popen(["sh", "-ec", script], cwd=self.dir, env=clean_environment(**env),
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def stderr(self):
        with open(self.stderr_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def run_script(self, script, env=None):
        return subprocess.run(["sh", "-ec", script], cwd=self.dir, env=clean_environment(**(env or {})),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)

    def test_its_configuration_is_valid_and_quiet(self):
        self.assertEqual(len(json_blocks()), 1)
        path = os.path.join(self.dir, "block.json")
        with open(path, "w", encoding="utf-8") as f:
            f.write(json_blocks()[0])
        done = self.run_script("build/tripswitch-proxy check block.json")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)

    def test_its_commands_that_end_by_themselves_succeed(self):
        found = [(e, c) for e, c in commands("build/tripswitch-proxy") if not SERVES.search(c) and not ASKS.search(c)]
        self.assertGreaterEqual(len(found), 3, found)
        for exports, command in found:
            with self.subTest(command):
                done = self.run_script(f"{exports}\n{command}")
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertNotEqual(done.stdout, "")

    def test_its_commands_that_serve_start_and_stop(self):
        found = [(e, c) for e, c in commands("build/tripswitch-proxy") if SERVES.search(c)]
        self.assertEqual(len(found), 2, found)
        control = self.control({"payment-gateway": "closed"})
        keys = {"api-key": control.api_key, "ingest-secret": control.ingest_secret}
        for name, key in keys.items():
            with open(os.open(os.path.join(self.dir, name), os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as f:
                f.write(key + "\n")
        for exports, command in found:
            remote = "TRIPSWITCH_PROJECT_ID" in exports
            with self.subTest(command, remote=remote):
                env = {"TRIPSWITCH_PROXY_LISTEN": f"127.0.0.1:{free_port()}", "TRIPSWITCH_PROXY_ADMIN_LISTEN": "off",
                       "TRIPSWITCH_PROXY_TELEMETRY_LISTEN": f"127.0.0.1:{free_port()}",
                       "TRIPSWITCH_PROXY_DRAIN_MIN": "0s", "TRIPSWITCH_PROXY_DRAIN_IDLE": "0s",
                       "TRIPSWITCH_BASE_URL": control.url if remote else None}
                exports = exports.replace("/run/secrets/", self.dir + "/").replace("proj_abc123", control.project_id)
                process = self.start(f"{exports}\n{command}", env)
                wait_until(lambda: process.poll() is not None or '"event":"ready"' in self.stderr(), 20,
                           "the line that says ready")
                self.assertIsNone(process.poll(), self.stderr())
                self.assertIn('"control":"embedded"' if not remote else control.url, self.stderr())
                self.assertNotRegex(self.stderr(), r'(?m)^[^{]|"level":"(warn|error)')
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(20), 0, self.stderr())

    def test_its_commands_for_a_running_proxy_succeed(self):
        found = [c for _, c in commands("build/tripswitch-proxy") if ASKS.search(c)]
        self.assertGreaterEqual(len(found), 4, found)
        admin = f"127.0.0.1:{free_port()}"
        config = json.loads(re.sub(r"(?m)^ *//.*", "", json_blocks()[0]))
        proxy = self.proxy({**config, "samples": None, "admin_listen": admin}, None, check_books=False)
        env = {"TRIPSWITCH_PROXY_ADMIN_LISTEN": admin,
               "TRIPSWITCH_PROXY_TELEMETRY_LISTEN": f"127.0.0.1:{proxy.telemetry_port}"}
        for command in found:
            with self.subTest(command):
                done = self.run_script(command, env)
                self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
                self.assertNotEqual(done.stdout, "")

    def test_its_curl_commands_get_an_answer(self):
        curl = tool("curl")
        found = commands("curl")
        self.assertGreaterEqual(len(found), 2, found)
        proxy = self.proxy({"samples": None}, None)
        origin = self.http_origin()
        for _, command in found:
            with self.subTest(command):
                typed = command.replace(":3128", f":{proxy.port}").replace(":3130", f":{proxy.telemetry_port}")
                typed = typed.replace("http://example.com/", origin.url + "/")
                self.assertNotEqual(typed, command)
                done = self.run_script(re.sub(r"^curl\b", f"{curl} -sS --fail --max-time 20", typed))
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertNotEqual(done.stdout, "")
        self.assertEqual(len(origin.requests), sum("example.com" in c for _, c in found))
