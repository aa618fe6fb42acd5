"""The real binary, started on free ports with a configuration made for the test."""

import contextlib
import copy
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from .metrics import Books, Metrics
from .ports import free_port
from .raw import Raw
from .wait import busyness, wait_until

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
SANITIZER = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|UndefinedBehaviorSanitizer|runtime error:|"
                       r"MemorySanitizer|BUG:|BUG at|stack smashing|double free|Assertion .* failed")


def binary():
    path = os.environ.get("TRIPSWITCH_PROXY_BIN") or os.path.join(ROOT, "build", "tripswitch-proxy")
    return os.path.abspath(path)


def variant():
    """"asan", "tsan" or "release": for tests of speed and memory, which only the last one is held to."""
    path = binary()
    return next((v for v in ("asan", "tsan") if f"/{v}/" in path), "release")


def build_cost():
    """Of the sanitizers, for how much a test does."""
    return {"release": 1, "asan": 2, "tsan": 4}[variant()]


def slowdown():
    """What a limit on a duration is multiplied by."""
    return build_cost() * busyness()


def merge(base, extra):
    """extra laid over base: objects key by key, everything else as a whole; None removes a key."""
    out = copy.deepcopy(base)
    for key, value in extra.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merge(out[key], value)
        else:
            out[key] = copy.deepcopy(value)
    return out


def clean_environment(**extra):
    env = {k: v for k, v in os.environ.items()
           if not k.upper().startswith(("TRIPSWITCH_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"))}
    env["ASAN_OPTIONS"] = "abort_on_error=0:exitcode=99:detect_stack_use_after_return=1:log_path=stderr"
    env["UBSAN_OPTIONS"] = "print_stacktrace=1:halt_on_error=1:exitcode=99"
    env["TSAN_OPTIONS"] = "exitcode=99:second_deadlock_stack=1"
    env.update({k: v for k, v in extra.items() if v is not None})
    return env


def run_binary(*args, env=None, stdin=None, timeout=20, cwd=None):
    """A subcommand that ends by itself: CompletedProcess with text output."""
    done = subprocess.run([binary(), *args], env=clean_environment(**(env or {})), input=stdin, capture_output=True,
                          text=True, errors="replace", timeout=timeout, cwd=cwd, check=False)
    found = SANITIZER.search(done.stderr)
    if found:
        raise AssertionError(f"{found[0]} in:\n{done.stderr}")
    return done


class StartError(AssertionError):
    def __init__(self, text, code, stderr):
        super().__init__(text)
        self.code = code
        self.stderr = stderr


DEFAULTS = {
    "workers": 1,
    "admin_listen": "off",
    "samples": {"flush_interval": "100ms", "urgent_interval": "100ms"},
    "drain": {"min": "0s", "idle": "0s", "max": "1s"},
}


class Proxy:
    """
    config        laid over DEFAULTS; `routes` decide what the books count
    control       a ControlPlane, or None: whatever the config says
    warnings      False: none allowed; True: any; a list: only lines that contain one of these
    """

    def __init__(self, config=None, control=None, dns=None, env=None, args=(), warnings=False, wait=True,
                 prefix=(), stdout=None, check_books=True, subcommand=()):
        self.control = control
        self.warnings = warnings
        self.check_books = check_books
        self.neutral_aborts = None
        self.dir = tempfile.mkdtemp(prefix="tsp-test-")
        self.config_path = os.path.join(self.dir, "config.json")
        self.args = list(args)
        self.prefix = list(prefix)
        self.subcommand = list(subcommand)
        self.stdout_to = stdout
        self.process = None
        self.stopped = False
        self.final_metrics = None
        base = merge(DEFAULTS, {})
        self.env = {}
        if control is not None:
            base = merge(base, {"control": {"url": control.url, "project_id": control.project_id}})
            self.env["TRIPSWITCH_API_KEY"] = control.api_key
            if control.signed:
                self.env["TRIPSWITCH_INGEST_SECRET"] = control.ingest_secret
        if dns is not None:
            base = merge(base, {"dns": {"servers": [dns.address]}})
        self.env.update(env or {})
        self.base = base
        self.config = merge(base, config or {})
        self._own_ports = "listen" not in self.config
        self._own_telemetry = "telemetry_listen" not in self.config
        for attempt in range(4):
            try:
                self._start(wait)
                break
            except StartError as e:
                if not self._own_ports or attempt == 3 or "in use" not in e.stderr:
                    raise

    # -- start -----------------------------------------------------------------------

    def _start(self, wait):
        if self._own_ports:
            self.port = free_port()
            self.config["listen"] = [f"127.0.0.1:{self.port}"]
        else:
            first = self.config["listen"][0]
            self.port = int(first.rsplit(":", 1)[1])
        if self._own_telemetry:
            self.telemetry_port = free_port()
            self.config["telemetry_listen"] = f"127.0.0.1:{self.telemetry_port}"
        else:
            text = self.config["telemetry_listen"]
            text = text if isinstance(text, str) else text[0]
            self.telemetry_port = int(text.rsplit(":", 1)[1]) if ":" in text else None
        self.address = ("127.0.0.1", self.port)
        self.url = f"http://127.0.0.1:{self.port}"
        self.write_config()
        self.stderr_path = os.path.join(self.dir, "stderr")
        self.stdout_path = os.path.join(self.dir, "stdout")
        out = self.stdout_to if self.stdout_to is not None else open(self.stdout_path, "wb")
        err = open(self.stderr_path, "wb")
        self.started_at = time.monotonic()
        try:
            self.process = subprocess.Popen(
                [*self.prefix, binary(), *self.subcommand, "--config", self.config_path, *self.args],
                env=clean_environment(**self.env), stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        finally:
            err.close()
            if self.stdout_to is None:
                out.close()
        if wait:
            self.wait_started()

    def wait_started(self, timeout=20):
        def started():
            code = self.process.poll()
            if code is not None:
                raise StartError(f"exit code {code} at start:\n{self.stderr()[-3000:]}", code, self.stderr())
            try:
                return self.telemetry("/startupz").status == 200
            except OSError:
                return False

        wait_until(started, timeout, lambda: f"/startupz to be 200; stderr:\n{self.stderr()[-3000:]}")

    def write_config(self, config=None):
        """Replace the file at once, as an editor or a kubelet does."""
        if config is not None:
            self.config = config
        text = config if isinstance(config, str) else json.dumps(self.config, indent=2)
        with open(self.config_path + ".new", "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(self.config_path + ".new", self.config_path)

    # -- looking inside ----------------------------------------------------------------

    @property
    def pid(self):
        return self.process.pid

    def stderr(self):
        with open(self.stderr_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def stdout(self):
        if self.stdout_to is not None:
            return ""
        with open(self.stdout_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def log(self):
        """The operations log as a list of dicts; lines that are not JSON are {"raw": line}."""
        out = []
        for line in self.stderr().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"raw": line}
            out.append(entry if isinstance(entry, dict) else {"raw": line})
        return out

    def warning_lines(self):
        return [line for line, entry in zip(self.stderr().splitlines(), self.log())
                if str(entry.get("level", "")).lower() in ("warning", "warn", "error", "critical", "fatal")
                or re.search(r"\b(warning|error)\b[: ]|:\d+:\d+: /", entry.get("raw", ""))]

    def access_log(self):
        return [json.loads(line) for line in self.stdout().splitlines() if line.startswith("{")]

    def telemetry(self, path, method="GET", timeout=10.0, headers=()):
        conn = Raw(("127.0.0.1", self.telemetry_port), timeout)
        try:
            lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.telemetry_port}", "Connection: close", *headers]
            conn.send("\r\n".join(lines) + "\r\n\r\n")
            return conn.read_response(method)
        finally:
            conn.close()

    def metrics(self):
        response = self.telemetry("/metrics")
        if response.status != 200:
            raise AssertionError(f"/metrics: {response}")
        return Metrics(response.body.decode())

    def metric(self, name, **labels):
        return self.metrics().sum(name, **labels)

    def status(self):
        return json.loads(self.telemetry("/status").body)

    def breakers(self):
        """{name: entry} of /breakers, whether that is a list or an object."""
        got = json.loads(self.telemetry("/breakers").body)
        if isinstance(got, dict):
            got = got.get("breakers", got)
        if isinstance(got, dict):
            return got
        return {b["name"]: b for b in got}

    def breaker_state(self, name):
        """By the gauge that DESIGN names: exactly one state is 1; None while it is not listed."""
        m = self.metrics()
        states = {dict(ls)["state"]: v for (n, ls), v in m.items() if n == "breaker_state" and ("breaker", name) in ls}
        on = [s for s, v in states.items() if v]
        if states and len(on) != 1:
            raise AssertionError(f"breaker_state of {name}: {states}")
        return on[0] if on else None

    def wait_breaker(self, name, state, timeout=10.0):
        wait_until(lambda: self.breaker_state(name) == state, timeout,
                   lambda: f"breaker {name} to be {state}, it is {self.breaker_state(name)}")

    def wait_metric(self, cond, name, timeout=10.0, **labels):
        """cond(value) over the summed series."""
        wait_until(lambda: cond(self.metric(name, **labels)), timeout,
                   lambda: f"{name}{labels or ''} is {self.metric(name, **labels):g}")

    def expect_metric(self, wanted, name, why="", timeout=10.0, **labels):
        """The summed series settles at this value: a client may have its answer before it is counted."""
        wait_until(lambda: self.metric(name, **labels) == wanted, timeout,
                   lambda: f"{name}{labels or ''} is {self.metric(name, **labels):g}, not {wanted:g} {why}")

    def memory_kib(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])

    def open_files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    # -- doing -------------------------------------------------------------------------

    def client(self, timeout=15.0, source=None, rcvbuf=None):
        return Raw(self.address, timeout, source, rcvbuf)

    def signal(self, sig):
        os.kill(self.pid, sig)

    def thread(self, name):
        """Its id."""
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/comm", encoding="ascii") as f:
                if f.read().strip() == name:
                    return int(task)
        raise AssertionError(f"the proxy has no thread {name}")

    @contextlib.contextmanager
    def standing_still(self):
        """SIGSTOP, in force for every thread when the body begins; SIGCONT at its end."""
        def stopped():
            tasks = f"/proc/{self.pid}/task"
            states = []
            for task in os.listdir(tasks):
                with open(f"{tasks}/{task}/stat", encoding="ascii") as f:
                    states.append(f.read().rpartition(")")[2].split()[0])
            return set(states) == {"T"}

        self.signal(signal.SIGSTOP)
        try:
            wait_until(stopped, 5, "the proxy to stand still")
            yield
        finally:
            self.signal(signal.SIGCONT)

    def reload(self, timeout=10.0):
        """SIGHUP, and wait until the proxy has counted it, as good or bad."""
        before = self.metric("config_reloads_total")
        self.signal(signal.SIGHUP)
        wait_until(lambda: self.metric("config_reloads_total") > before, timeout, "the reload to be counted")

    def wait_exit(self, timeout=20):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no exit within {timeout} s; stderr:\n{self.stderr()[-3000:]}") from None

    # -- books -------------------------------------------------------------------------

    def router_routes(self):
        """{route name: number of metrics} of the routes with a router, from the config."""
        out = {}
        defaults = self.config.get("defaults", {})
        for route in self.config.get("routes", []):
            whole = merge(defaults, route)
            if whole.get("router"):
                metrics = whole.get("metrics", {"latency": "latency"})
                out[route["name"]] = len(metrics)
        if not self.config.get("routes") and "url" not in self.config.get("control", {}):
            out["_auto"] = 1
        return out

    def books(self, neutral_aborts=None):
        return Books(self.metrics(), self.router_routes(), neutral_aborts)

    def wait_balance(self, neutral_aborts=None, timeout=10.0, settled=False):
        """Counters of several threads are read one after the other, so a busy moment may look
        unbalanced; a moment of balance must come.  settled: nothing in flight or buffered."""
        last = [None]

        def balanced():
            last[0] = self.books(neutral_aborts)
            quiet = not settled or not (last[0].in_flight or last[0].buffered or last[0].batch)
            return quiet and not last[0].faults()

        wait_until(balanced, timeout, lambda: f"the books to balance: {last[0].faults()}\n{last[0]}", step=0.05)
        return last[0]

    # -- end ---------------------------------------------------------------------------

    def terminate(self, timeout=30):
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_exit(timeout)

    def stop(self, expect=0):
        """End it and hold it to account: the books, the exit code, what it wrote."""
        if self.stopped:
            return
        self.stopped = True
        faults = []
        try:
            if self.process.poll() is None:
                if self.check_books:
                    try:
                        self.wait_balance(self.neutral_aborts)
                    except (AssertionError, OSError) as e:
                        faults.append(str(e))
                code = self.terminate()
            else:
                code = self.process.returncode
            if code != expect:
                faults.append(f"exit code {code}, not {expect}")
            faults += self.complaints()
        except AssertionError as e:
            faults.append(str(e))
        finally:
            self.kill()
        if faults:
            raise AssertionError("; ".join(faults))

    def complaints(self):
        out = []
        text = self.stderr()
        found = SANITIZER.search(text)
        if found:
            out.append(f"{found[0]} on stderr:\n{text[max(0, found.start() - 300):found.start() + 5000]}")
        if self.warnings is not True:
            allowed = self.warnings or []
            bad = [w for w in self.warning_lines() if not any(a in w for a in allowed)]
            if bad:
                out.append("warnings: " + "\n".join(bad[:10]))
        for name, secret in (("api key", self.env.get("TRIPSWITCH_API_KEY")),
                             ("ingest secret", self.env.get("TRIPSWITCH_INGEST_SECRET"))):
            if secret and (secret in text or secret in self.stdout()):
                out.append(f"the {name} is in the log")
        return out

    def kill(self):
        """Whatever happened, leave no process."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.stopped = True

    def cleanup(self):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False
