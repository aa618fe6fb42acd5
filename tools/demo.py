#!/usr/bin/env python3
"""Watch a breaker trip and recover: a flaky origin, the proxy, a client, one row a second.

    tools/demo.py [--bin build/tripswitch-proxy]

The exit code is 0 only if every phase was seen: closed and passing, tripped, refusing while
the origin sees nothing, half-open and probing, closed again.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RATE = 20  # requests a second: one mark each
LIMIT_S = 55
HEALTHY_S = 3
COOLDOWN_MS = 3000
MARKS = {"passed": (".", "32"), "failed": ("x", "31;1"), "refused": ("-", "33"), "error": ("?", "35")}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(port, method, path, timeout=5):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        conn.request(method, path)
        response = conn.getresponse()
        return response.status, response.read()
    finally:
        conn.close()


class Stage:
    """The three actors: an origin and a proxy as processes of their own, a client as a thread."""

    def __init__(self, binary):
        self.dir = tempfile.TemporaryDirectory(prefix="tripswitch-demo-")
        self.processes = []
        self.log_path = os.path.join(self.dir.name, "proxy.log")
        self.lock = threading.Lock()
        self.results = []
        self.refusal = None  # (reason phrase, Proxy-Status) of the last one
        self.stopped = threading.Event()
        self.binary = binary

    def start(self):
        self.origin_port = self.start_origin()
        for attempt in range(4):
            self.proxy_port, self.telemetry_port = free_port(), free_port()
            if self.start_proxy():
                break
            if attempt == 3:
                raise RuntimeError("the proxy did not start:\n" + self.log())
        self.client = threading.Thread(target=self.run_client, daemon=True)
        self.client.start()

    def start_origin(self):
        origin = subprocess.Popen([sys.executable, os.path.join(ROOT, "docker/compose/flaky.py"), "--listen", "127.0.0.1:0"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.processes.append(origin)
        return int(origin.stdout.readline().rpartition(":")[2])

    def start_proxy(self):
        config = {
            "listen": [f"127.0.0.1:{self.proxy_port}"],
            "telemetry_listen": f"127.0.0.1:{self.telemetry_port}",
            "admin_listen": "off",
            "drain": {"min": "0s"},
            "embedded": {"auto_breaker": {"threshold": 5, "cooldown_ms": COOLDOWN_MS, "recovery_allow_rate_ramp_steps": 3}},
        }
        path = os.path.join(self.dir.name, "config.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(config, f, indent=2)
        env = {k: v for k, v in os.environ.items() if not k.upper().startswith("TRIPSWITCH_")}
        with open(self.log_path, "wb") as log:
            proxy = subprocess.Popen([self.binary, "--config", path], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        self.processes.append(proxy)
        deadline = time.monotonic() + 10
        while proxy.poll() is None and time.monotonic() < deadline:
            try:
                if ask(self.telemetry_port, "GET", "/startupz")[0] == 200:
                    return True
            except OSError:
                pass
            time.sleep(0.02)
        return False

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()[-2000:]

    def one_request(self, conn):
        conn.request("GET", f"http://127.0.0.1:{self.origin_port}/", headers={"User-Agent": "demo"})
        response = conn.getresponse()
        response.read()
        if response.getheader("X-Tripswitch-Breaker"):
            self.refusal = (f"{response.status} {response.reason}", response.getheader("Proxy-Status") or "")
            return "refused" if response.status == 503 else "error"
        return "passed" if response.status == 200 else "failed"

    def run_client(self):
        conn = http.client.HTTPConnection("127.0.0.1", self.proxy_port, timeout=5)
        due = time.monotonic()
        while not self.stopped.wait(max(0, due - time.monotonic())):
            due += 1 / RATE
            try:
                outcome = self.one_request(conn)
            except (OSError, http.client.HTTPException):
                conn.close()
                outcome = "error"
            with self.lock:
                self.results.append(outcome)
        conn.close()

    def take_results(self):
        with self.lock:
            taken, self.results = self.results, []
        return taken

    def breaker(self):
        """(state, allow_rate) of the origin's breaker."""
        _, body = ask(self.telemetry_port, "GET", "/breakers")
        for breaker in json.loads(body):
            if breaker["name"] == f"127.0.0.1:{self.origin_port}":
                return breaker["state"], breaker["allow_rate"]
        return "unknown", None

    def seen(self):
        return json.loads(ask(self.origin_port, "GET", "/seen")[1])["seen"]

    def set_broken(self, broken):
        ask(self.origin_port, "POST", "/break" if broken else "/mend")

    def end(self):
        self.stopped.set()
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(8)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.dir.cleanup()


class Picture:
    """One row a second, 80 columns; colours only on a terminal."""

    def __init__(self):
        self.colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def paint(self, text, code):
        return f"\033[{code}m{text}\033[0m" if self.colours and text else text

    def head(self, stage):
        print(f"client, {RATE} requests a second -> proxy 127.0.0.1:{stage.proxy_port} -> "
              f"origin 127.0.0.1:{stage.origin_port}")
        legend = "   ".join(f"{self.paint(m, c)} {name}" for name, (m, c) in MARKS.items() if name != "error")
        print(f"each mark is one request:   {legend}\n")
        print(f"{'time':>5}  {'breaker':<14} {'requests':<{RATE + 2}} {'origin':>6}  what happens", flush=True)

    def row(self, seconds, state, rate, results, reached, news):
        label = f"{state} {rate:.0%}" if state == "half_open" and rate is not None else state
        colour = {"closed": "32", "open": "31;1", "half_open": "33"}.get(state, "0")
        marks = "".join(self.paint(*MARKS[r]) for r in results[:RATE + 2]) + " " * (RATE + 2 - len(results))
        print(f"{seconds:4.0f}s  {self.paint(f'{label:<14}', colour)} {marks} {reached:6}  {news}".rstrip(), flush=True)


class Story:
    """What has been seen, and what the origin does next."""

    PHASES = ["closed, and requests pass",
              "tripped by failures",
              "refusing with 503 while the origin sees nothing",
              "half-open: probes reach the origin",
              "closed again, and requests pass"]

    def __init__(self, stage):
        self.stage = stage
        self.state = "unknown"
        self.seen = [False] * len(self.PHASES)
        self.failed = 0
        self.opened = 0
        self.quiet_from = None  # what the origin had seen a moment after the breaker opened
        self.closed_at = None
        self.broken = self.mended = False

    def moved(self, state, now):
        """The breaker is in another state: a word about it."""
        before, self.state, self.quiet_from = self.state, state, None
        if state == "open":
            self.opened += 1
            self.opened_at = now
            return "it trips" if before == "closed" else "the probe failed"
        if state == "half_open":
            self.probes_from = self.stage.seen()
            return "probing"
        if state == "closed" and before == "half_open":
            self.closed_at = now
            return "recovered"
        return ""

    def watch(self, now):
        """Called often; facts that lie between two rows."""
        if self.state == "open" and now - self.opened_at > 0.3 and self.quiet_from is None:
            self.quiet_from = self.stage.seen()
        if self.state == "half_open" and self.seen[2] and self.stage.seen() > self.probes_from:
            self.seen[3] = True

    def count(self, results):
        passed, refused = results.count("passed"), results.count("refused")
        self.failed += results.count("failed")
        if self.opened and self.failed >= 5:
            self.seen[1] = True
        if passed >= RATE // 2 and self.state == "closed":
            self.seen[4 if self.closed_at else 0] = True
        if self.state == "open" and self.quiet_from is not None and refused >= RATE // 2:
            if self.stage.seen() == self.quiet_from:
                self.seen[2] = True

    def direct(self, now):
        """Break and mend the origin: a word about it."""
        if not self.broken and now >= HEALTHY_S and self.seen[0]:
            self.broken = True
            self.stage.set_broken(True)
            return "the origin breaks"
        if self.opened >= 2 and not self.mended and now - self.opened_at > 1.5:
            self.mended = True
            self.stage.set_broken(False)
            return "origin is mended"
        return ""

    def over(self, now):
        return self.closed_at is not None and self.seen[4] and now - self.closed_at > 2


def play(stage, picture):
    picture.head(stage)
    story, began, row_at, news, before = Story(stage), time.monotonic(), 1, [], stage.seen()
    while True:
        now = time.monotonic() - began
        state, rate = stage.breaker()
        if state != story.state:
            news.append(story.moved(state, now))
        story.watch(now)
        if now >= row_at:
            results, seen = stage.take_results(), stage.seen()
            story.count(results)
            picture.row(row_at, state, rate, results, seen - before, ", ".join(n for n in news if n))
            row_at, news, before = row_at + 1, [story.direct(now)], seen
        if story.over(now) or now > LIMIT_S:
            return story
        time.sleep(0.04)


def conclude(stage, story):
    print("\na refusal:  " + (stage.refusal[0] if stage.refusal else "none came"))
    if stage.refusal:
        for line in textwrap.wrap(f"Proxy-Status: {stage.refusal[1]}", 66, subsequent_indent="  "):
            print(f"            {line}")
    for what, seen in zip(story.PHASES, story.seen):
        print(f"  [{'x' if seen else ' '}] {what}")
    if all(story.seen):
        return 0
    print("not every phase was seen; the proxy wrote:\n" + stage.log())
    return 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(ROOT, "build", "tripswitch-proxy"))
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stage = Stage(args.bin)
    try:
        stage.start()
        return conclude(stage, play(stage, Picture()))
    except KeyboardInterrupt:
        return 130
    except (OSError, RuntimeError) as e:
        print(f"demo: {e}", file=sys.stderr)
        return 1
    finally:
        stage.end()


if __name__ == "__main__":
    sys.exit(main())
