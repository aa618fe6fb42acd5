#!/usr/bin/env python3
"""Mixed traffic for a chosen time while everything around the proxy changes.

    tests/integration/soak.py [--seconds S] [--bin PATH] [--clients N] [--quiet]

Clients send plain, chunked and pipelined requests, uploads, tunnels, plain HTTP in tunnels and
upgrades, and leave in the middle of some; meanwhile the configuration is reloaded, the keys
rotate, the control plane restarts, breakers trip and upstreams go and come back.  Once a second
a line tells how it goes.  At the end nothing may be stuck, the books must balance, and a
sanitizer must have had nothing to say.  The first third warms up; from the second to the last
the medians of memory and of descriptors must stay where they are.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import ControlPlane, DnsServer, HttpOrigin, Origin, Proxy, Raw, chunk, merge, pattern, request, variant, wait_until  # noqa: E402
from harness.tunnels import connect, echo  # noqa: E402

GAUGES = ("requests_in_flight", "attempts_in_flight", "tunnels", "samples_buffered", "samples_in_flight")
TAGS = {"outcome": "{outcome}"}
SAMPLE_S = 0.25
# How much the medians may grow from the second third to the last; half of it in a long run, where
# the rings of samples, which take memory as they are written for the first time, have gone round.
GROWTH_KIB = {"release": 2048, "asan": 6 * 1024, "tsan": 5 * 1024}
LONG_S = 90
GROWTH_FILES = 10
# What ASan would hold on to, although it was freed, hides what we do.
ASAN = ("ASAN_OPTIONS=abort_on_error=0:exitcode=99:log_path=stderr:detect_stack_use_after_return=1:"
        "quarantine_size_mb=1:thread_local_quarantine_size_kb=64")


def upgrade(conn):
    """A websocket without its handshake: 101, then an echo."""
    head = conn.read_request()
    if "websocket" not in head.head.tokens("upgrade"):
        conn.respond(400)
        return
    conn.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    echo(conn)


class Flapping:
    """An upstream that is there, is not there, or answers 503."""

    def __init__(self):
        self.origin = HttpOrigin()
        self.origin.record = False
        self.port = self.origin.port

    def turn(self, rng):
        what = rng.choice(["down", "up", "errors"])
        if what == "down":
            self.origin.stop()
        elif self.origin.stopping.is_set():
            self.origin = HttpOrigin(port=self.port)
            self.origin.record = False
        self.origin.down = what == "errors"
        return what

    def stop(self):
        self.origin.stop()


class Soak:
    def __init__(self, seconds, clients, quiet, prefix):
        self.seconds, self.quiet, self.prefix = seconds, quiet, prefix
        self.rng = random.Random(os.getpid())
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.counts, self.errors, self.events = {}, [], {}
        self.folder = tempfile.TemporaryDirectory(prefix="tsp-soak-")
        self.control = ControlPlane({"b": "closed", "flap": "closed", "half": ("half_open", 0.5)}, heartbeat_s=0.5)
        self.control.keep_samples = False
        self.dns = DnsServer()
        self.steady = HttpOrigin()
        self.steady.record = False
        self.flapping = Flapping()
        self.echo, self.socket = Origin(echo), Origin(upgrade)
        self.publish()
        self.proxy = self.start()
        self.threads = [threading.Thread(target=self.client, args=(i,), daemon=True) for i in range(clients)]
        self.threads.append(threading.Thread(target=self.trouble, daemon=True))

    # -- the proxy -----------------------------------------------------------------------

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def publish(self):
        for name, value in (("key", self.control.api_key), ("secret", self.control.ingest_secret)):
            with open(os.open(self.path(name + ".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as f:
                f.write(value + "\n")
            os.rename(self.path(name + ".new"), self.path(name))

    def start(self):
        def route(name, *hosts, **more):
            return {"name": name, "breakers": [name], "router": "rtr", "tags": TAGS, "match": {"hosts": list(hosts)}, **more}

        config = {"workers": 2, "limits": {"min_body_rate": "16B"}, "timeouts": {"upstream_idle": "1s"},
                  "routes": [route("flap", "flap.test"), route("half", "half.test"),
                             {"name": "b", "breakers": ["b"], "router": "rtr", "tags": TAGS}]}
        env = {"TRIPSWITCH_API_KEY": None, "TRIPSWITCH_INGEST_SECRET": None, "TRIPSWITCH_API_KEY_FILE": self.path("key"),
               "TRIPSWITCH_INGEST_SECRET_FILE": self.path("secret")}
        leaks = [] if "detect_leaks=0" not in os.environ.get("LSAN_OPTIONS", "") else ["LSAN_OPTIONS=detect_leaks=0"]
        return Proxy(config, self.control, dns=self.dns, env=env, warnings=True, prefix=["env", ASAN, *leaks, *self.prefix])

    # -- clients -------------------------------------------------------------------------

    def hosts(self, rng):
        return rng.choice([self.steady.url, self.steady.url, f"http://steady.test:{self.steady.port}",
                           f"http://half.test:{self.steady.port}", f"http://flap.test:{self.flapping.port}"])

    def one(self, client, rng):
        """One exchange; a word for the count.  False: the connection is used up."""
        base = self.hosts(rng)
        roll = rng.random()
        if roll < 0.40:
            return self.answer(client, request("GET", base + rng.choice(["/", "/bytes/3000", "/chunked/20000", "/status/404", "/bytes/200000"])))
        if roll < 0.50:
            return self.answer(client, request("POST", base + "/echo", body=pattern(rng.randrange(1, 40000))), "POST")
        if roll < 0.60:
            body = b"".join(chunk(pattern(rng.randrange(1, 5000)), b";x=y") for _ in range(rng.randrange(1, 8)))
            lines = ["Transfer-Encoding: chunked", "Connection: x-hop"]
            return self.answer(client, request("POST", base + "/echo", *lines) + body + b"0\r\nX-Hop: 1\r\nX-Sum: 2\r\n\r\n", "POST")
        if roll < 0.66:
            count = rng.randrange(2, 6)
            client.send(b"".join(request("GET", self.steady.url + "/bytes/100") for _ in range(count)))
            return all(self.read(client) for _ in range(count))
        if roll < 0.70:
            return self.answer(client, request("HEAD", base + "/bytes/5000"), "HEAD")
        if roll < 0.76:
            return self.tunnel(client, rng)
        if roll < 0.80:
            return self.inner(client, rng)
        if roll < 0.85:
            return self.upgraded(client, rng)
        if roll < 0.92:
            return self.leave(client, rng, base)
        if roll < 0.95:
            return self.answer(client, request("GET", self.steady.url + rng.choice(["/reset", "/close", "/truncate/999", "/garbage"])))
        if roll < 0.97:
            return self.answer(client, request("GET", self.steady.url + f"/slow/{rng.randrange(200)}"))
        self.count("garbage")
        client.try_send(rng.choice([b"\x00\xff\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", request("POST", base, "Content-Length: x"),
                                    request("POST", base, "Transfer-Encoding: chunked") + b"zz\r\n"]))
        client.half_close()
        try:
            client.read_to_eof()
        except ConnectionResetError:
            pass
        return False

    def answer(self, client, wire, method="GET"):
        client.send(wire)
        return self.read(client, method)

    def read(self, client, method="GET"):
        response = client.read_response(method, allow_truncated=True)
        self.count(str(response.status) if response.complete else "cut")
        return response.complete and "close" not in response.head.tokens("connection")

    def tunnel(self, client, rng):
        head = connect(client, self.echo.authority)
        self.count(f"tunnel {head.status}")
        if head.status == 200:
            data = b"\x01" + pattern(rng.randrange(1, 100_000))
            sender = threading.Thread(target=client.try_send, args=(data,), daemon=True)
            sender.start()
            if client.read_exactly(len(data)) != data:
                self.fault("a tunnel changed its bytes")
            sender.join()
            client.reset() if rng.random() < 0.3 else client.half_close()
        return False

    def inner(self, client, rng):
        head = connect(client, self.steady.authority)
        self.count(f"inner {head.status}")
        for _ in range(rng.randrange(1, 4) if head.status == 200 else 0):
            client.send(f"GET /bytes/500 HTTP/1.1\r\nHost: {self.steady.authority}\r\n\r\n")
            if not self.read(client):
                break
        return False

    def upgraded(self, client, rng):
        client.send(request("GET", self.socket.url + "/", "Connection: Upgrade", "Upgrade: websocket"))
        head = client.read_response_head()
        self.count(f"upgrade {head.status}")
        if head.status == 101:
            data = pattern(rng.randrange(1, 5000))
            client.send(data)
            if client.read_exactly(len(data)) != data:
                self.fault("an upgraded connection changed its bytes")
        return False

    def leave(self, client, rng, base):
        """In the middle of a request or of a response."""
        self.count("left")
        wire = rng.choice([request("GET", base + "/bytes/500000"), request("GET", self.steady.url + "/slow/100"),
                           request("POST", base + "/echo", "Content-Length: 90000") + b"x" * rng.randrange(90000), b"GET http://x"])
        client.send(wire)
        if rng.random() < 0.5 and client.readable(0.02):
            client.sock.recv(rng.randrange(1, 10000))
        if rng.random() < 0.5:
            client.reset()
        return False

    def client(self, seed):
        rng, client = random.Random(seed * 7919 + self.rng.randrange(1 << 30)), None
        while not self.stopping.is_set():
            try:
                client = client or Raw(self.proxy.address, 30)
                client.keep_received = False
                if not self.one(client, rng):
                    client.close()
                    client = None
            except (ConnectionError, OSError):  # a reset is a legal end while upstreams flap
                self.count("reset")
                client.close() if client else None
                client = None
            except Exception as e:  # noqa: BLE001 - shown at the end
                self.fault(f"client {seed}: {e!r}")
                client = None
        if client:
            client.close()

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def fault(self, text):
        with self.lock:
            self.errors.append(text)

    # -- trouble -------------------------------------------------------------------------

    def trouble(self):
        rng = random.Random(self.rng.randrange(1 << 30))
        gone = 0
        while not self.stopping.wait(0.1):
            what = rng.choice(["reload", "reload", "keys", "control plane", "upstream", "upstream", "breaker", "breaker", "ingest"])
            if what == "reload":
                tags = {"generation": str(rng.randrange(1000))}
                self.proxy.write_config(merge(self.proxy.config, {"global_tags": tags}))
                self.proxy.signal(signal.SIGHUP)
            elif what == "keys":
                self.control.rotate()
                self.publish()
                self.proxy.signal(signal.SIGHUP)
            elif what == "control plane":
                self.control.go_away()
                self.stopping.wait(rng.random())
                self.control.come_back()
                gone += 1
            elif what == "upstream":
                what += " " + self.flapping.turn(rng)
            elif what == "breaker":
                state = rng.choice(["open", "closed", "half_open"])
                self.control.set(rng.choice(["flap", "flap", "b"]), state, 0.5 if state == "half_open" else None)
                self.stopping.wait(0.2)
                self.control.set("b", "closed")
            else:
                with self.control.lock:
                    self.control.answers += [rng.choice([500, 503, "close", (429, 0), "lost"])]
            self.events[what] = self.events.get(what, 0) + 1

    def forget(self):
        """The harness remembers for tests what would fill its memory here."""
        for origin in (self.steady, self.echo, self.socket, self.flapping.origin):
            with origin.lock:
                origin.connections[:] = [c for c in origin.connections if not c.ended.is_set()]
        with self.control.lock:
            del self.control.batches[:-10], self.control.requests[:-10], self.control.stream_opens[:-10]
        del self.dns.queries[:-10]

    # -- the whole -----------------------------------------------------------------------

    def say(self, text):
        if not self.quiet:
            print(text, flush=True)

    def watch(self):
        """By third of the time: samples of (KiB, descriptors)."""
        began, thirds, shown = time.monotonic(), ([], [], []), 0
        while (now := time.monotonic() - began) < self.seconds and not self.errors:
            time.sleep(min(SAMPLE_S, self.seconds - now))
            if self.proxy.process.poll() is not None:
                self.errors.append(f"the proxy ended with {self.proxy.process.returncode}")
                break
            self.forget()
            memory, files = self.proxy.memory_kib(), self.proxy.open_files()
            thirds[int(3 * now / self.seconds)].append((memory, files))
            if now - shown >= max(2, self.seconds / 60):
                shown = now
                self.say(f"{now:6.0f} s  {sum(self.counts.values()):8} exchanges  {memory // 1024:4} MiB  {files:4} files  "
                         f"{sum(self.events.values()):5} troubles")
        return thirds

    def compare(self, thirds):
        """Memory and descriptors are where they were."""
        medians = [[statistics.median(s) for s in zip(*third)] for third in thirds]
        self.say("medians of each third: " + "; ".join(f"{kib:.0f} KiB, {files:.0f} files" for kib, files in medians))
        (_, _), (memory, files), (memory_now, files_now) = medians
        if memory_now > memory + GROWTH_KIB[variant()] / (2 if self.seconds >= LONG_S else 1):
            self.errors.append(f"memory grew from {memory:.0f} KiB in the second third to {memory_now:.0f} KiB in the last")
        if files_now > files + GROWTH_FILES:
            self.errors.append(f"{files:.0f} descriptors in the second third, {files_now:.0f} in the last")

    def settle(self):
        """Everybody has gone: nothing may be left."""
        proxy = self.proxy
        self.control.answers.clear()
        wait_until(lambda: all(proxy.metric(g) == 0 for g in GAUGES) and proxy.metric("client_connections") == 0, 40,
                   lambda: f"nothing in flight: { {g: proxy.metric(g) for g in (*GAUGES, 'client_connections')} }")
        return proxy.wait_balance(timeout=20, settled=True)

    def run(self):
        for t in self.threads:
            t.start()
        thirds = self.watch()
        self.stopping.set()
        for t in self.threads:
            t.join(40)
            if t.is_alive():
                self.errors.append("a client hangs")
        books = None
        try:
            if not self.errors:
                books = self.settle()
                self.compare(thirds)
            self.proxy.stop()
        except (AssertionError, OSError) as e:
            self.errors.append(str(e))
        finally:
            self.proxy.cleanup()
            for thing in (self.control, self.dns, self.steady, self.flapping, self.echo, self.socket):
                thing.stop()
            self.folder.cleanup()
        self.errors += self.control.violations
        self.say(f"exchanges: {dict(sorted(self.counts.items()))}")
        self.say(f"troubles: {dict(sorted(self.events.items()))}")
        if books:
            self.say(f"books: {books}")
        return self.errors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--bin", help="the binary (or TRIPSWITCH_PROXY_BIN; build/tripswitch-proxy)")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--prefix", default="", help="a command that runs the binary, such as a tracer")
    args = parser.parse_args()
    if args.bin:
        os.environ["TRIPSWITCH_PROXY_BIN"] = os.path.abspath(args.bin)
    soak = Soak(args.seconds, args.clients, args.quiet, args.prefix.split())
    errors = soak.run()
    for text in errors[:10]:
        print(text, file=sys.stderr)
    print(f"soak, {variant()}: {args.seconds:g} s, {sum(soak.counts.values())} exchanges, {sum(soak.events.values())} troubles: "
          f"{'FAILED' if errors else 'nothing leaked, nothing stuck, the books balance'}", flush=True)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
