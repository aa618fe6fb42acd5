#!/usr/bin/env python3
"""Tunnels side by side: directly, through HAProxy in TCP mode with splice, and through us.

    tests/bench/tunnel_bench.py [--seconds S] [--tunnels N] [--idle N] [--bin PATH]

Throughput is that of N tunnels from origin to client; the proxies have a processor of their
own where there are two.  "CPU" is the proxy's, user and system.  HAProxy gets no CONNECT: it
knows its one server, so set-up compares a whole exchange with a bare accept and connect.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CHUNK = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")
CPUS = sorted(os.sched_getaffinity(0))
FLOOD, PING = b"\1", b"\0"  # no beginning of HTTP: nobody waits for the rest of a line
STARTED = []  # processes to end


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_port(port, process):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"nobody listens on port {port}")


def run_origin(ready):
    """A process: FLOOD as first byte asks for data without end, anything else comes back."""
    with open(os.memfd_create("data"), "r+b", buffering=0) as data:
        data.write(os.urandom(CHUNK))
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        os.write(ready, b"%d\n" % listener.getsockname()[1])

        def serve(sock):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                first = sock.recv(1)
                while first == FLOOD:
                    os.sendfile(sock.fileno(), data.fileno(), 0, CHUNK)
                while first:
                    sock.sendall(first)
                    first = sock.recv(100)
            except OSError:
                pass
            sock.close()

        while True:
            sock, _ = listener.accept()
            threading.Thread(target=serve, args=(sock,), daemon=True).start()


class Way:
    """One way to the origin: a port to connect to and perhaps a CONNECT to send."""

    def __init__(self, name, port, head=b"", process=None):
        self.name, self.port, self.head, self.process = name, port, head, process

    def open(self):
        sock = socket.create_connection(("127.0.0.1", self.port), 20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.head:
            sock.sendall(self.head)
            got = b""
            while not got.endswith(b"\r\n\r\n"):
                data = sock.recv(1000)
                if not data:
                    raise OSError(f"CONNECT: {got!r}")
                got += data
            if b" 200 " not in got:
                raise OSError(f"CONNECT: {got!r}")
        return sock

    def cpu_s(self):
        if not self.process:
            return 0.0
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def throughput(way, tunnels, seconds):
    """(MB/s, CPU seconds of the proxy per GB)"""
    counts, stop = [0] * tunnels, threading.Event()
    socks = [way.open() for _ in range(tunnels)]
    buffer = bytearray(CHUNK)

    def drain(i):
        socks[i].sendall(FLOOD)
        while not stop.is_set():
            n = socks[i].recv_into(buffer, CHUNK, socket.MSG_TRUNC)  # counted, not copied
            if n == 0:
                return
            counts[i] += n

    threads = [threading.Thread(target=drain, args=(i,)) for i in range(tunnels)]
    for t in threads:
        t.start()
    time.sleep(0.5)
    before, cpu, began = sum(counts), way.cpu_s(), time.monotonic()
    time.sleep(seconds)
    moved, cpu, took = sum(counts) - before, way.cpu_s() - cpu, time.monotonic() - began
    stop.set()
    for t in threads:
        t.join()
    for s in socks:
        s.close()
    return moved / took / 1e6, cpu / (moved / 1e9)


def setup(way, seconds, threads=4):
    """(set-ups a second with one byte there and back, CPU microseconds of the proxy each)"""
    counts, end = [0] * threads, time.monotonic() + seconds

    def work(i):
        while time.monotonic() < end:
            sock = way.open()
            sock.sendall(PING)
            sock.recv(1)
            sock.close()
            counts[i] += 1

    cpu = way.cpu_s()
    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    return sum(counts) / seconds, (way.cpu_s() - cpu) * 1e6 / max(1, sum(counts))


def memory(way, idle):
    """Bytes of the proxy's resident memory per tunnel that has moved one byte and waits."""
    before, socks = way.resident(), []
    for _ in range(idle):
        sock = way.open()
        sock.sendall(PING)
        sock.recv(1)
        socks.append(sock)
    time.sleep(1.5)
    per = (way.resident() - before) / idle
    for s in socks:
        s.close()
    return per


def start(command, port, path, env=None):
    with open(path, "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
    if len(CPUS) > 1:
        os.sched_setaffinity(process.pid, CPUS[-1:])
    STARTED.append(process)
    wait_port(port, process)
    for thread in os.listdir(f"/proc/{process.pid}/task"):
        if len(CPUS) > 1:
            os.sched_setaffinity(int(thread), CPUS[-1:])
    return process


def start_haproxy(folder, origin, most):
    port, path = free_port(), os.path.join(folder, "haproxy.cfg")
    with open(path, "w", encoding="ascii") as f:
        f.write(f"global\n nbthread 1\n maxconn {most}\n maxpipes 128\n"
                "defaults\n mode tcp\n option splice-request\n option splice-response\n"
                " timeout connect 10s\n timeout client 10m\n timeout server 10m\n"
                f"listen tunnel\n bind 127.0.0.1:{port}\n server origin 127.0.0.1:{origin}\n")
    process = start([shutil.which("haproxy") or "/usr/sbin/haproxy", "-f", path, "-db"], port, path + ".log")
    return Way("haproxy, tcp, splice", port, process=process)


def wait_started(port):
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.sendall(b"GET /startupz HTTP/1.0\r\n\r\n")
            if b" 200 " in sock.recv(100):
                return
        time.sleep(0.05)
    sys.exit("the proxy does not become ready")


def start_proxy(folder, origin, binary, most):
    port, telemetry, path = free_port(), free_port(), os.path.join(folder, "proxy.json")
    config = {"listen": [f"127.0.0.1:{port}"], "telemetry_listen": f"127.0.0.1:{telemetry}", "admin_listen": "off",
              "workers": 1, "limits": {"connections": most, "tunnels": most}, "access_log": {"mode": "off"},
              "drain": {"min": "0s", "idle": "0s", "max": "1s"},
              "routes": [{"name": "all", "breakers": ["b"], "router": "rtr"}]}
    with open(path, "w", encoding="ascii") as f:
        json.dump(config, f)
    env = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith("TRIPSWITCH_")}
    process = start([binary, "--config", path], port, path + ".log", env)
    wait_started(telemetry)
    return Way("tripswitch-proxy", port, b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % origin, process)


def measure(ways, options):
    """{way: {what: median}}, the ways in turn, three times, so that none has the better minute."""
    rounds = {w.name: {} for w in ways}
    for _ in range(3):
        for w in ways:
            mbs, cpu = throughput(w, options.tunnels, options.seconds)
            rate, cost = setup(w, options.seconds)
            for what, value in (("mbs", mbs), ("cpu", cpu), ("rate", rate), ("cost", cost)):
                rounds[w.name].setdefault(what, []).append(value)
    out = {name: {k: statistics.median(v) for k, v in got.items()} for name, got in rounds.items()}
    for w in ways:
        if w.process:
            out[w.name]["memory"] = memory(w, options.idle)
    return out


def show(ways, got, options):
    base = next((w.name for w in ways if w.name.startswith("haproxy")), ways[0].name)
    rows = [("mbs", f"throughput, {options.tunnels} tunnels, MB/s", "{:.0f}"), ("cpu", "CPU s per GB", "{:.3f}"),
            ("rate", "set-ups per s", "{:.0f}"), ("cost", "CPU us per set-up", "{:.0f}"),
            ("memory", f"bytes per idle tunnel, {options.idle}", "{:.0f}")]
    print("".join([f"{'':34}", *(f"{w.name:>24}" for w in ways), f"{'ours / ' + base.split(',')[0]:>18}"]))
    for key, title, form in rows:
        cells = [form.format(got[w.name][key]) if key in got[w.name] and (key in ("mbs", "rate") or w.process) else "-"
                 for w in ways]
        ours, theirs = got[ways[-1].name].get(key), got[base].get(key)
        ratio = f"{ours / theirs:.2f}" if ours and theirs else "-"
        print("".join([f"{title:34}", *(f"{c:>24}" for c in cells), f"{ratio:>18}"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--tunnels", type=int, default=4)
    parser.add_argument("--idle", type=int, default=2000)
    parser.add_argument("--bin", default=os.path.join(ROOT, "build", "tripswitch-proxy"))
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    read, write = os.pipe()
    origin = os.fork()
    if origin == 0:
        try:
            run_origin(write)
        finally:
            os._exit(1)
    folder, ways = tempfile.mkdtemp(prefix="tsp-bench-"), []
    try:
        port = int(os.read(read, 100))
        if len(CPUS) > 1:
            os.sched_setaffinity(origin, CPUS[:-1])
            os.sched_setaffinity(0, CPUS[:-1])
        ways.append(Way("direct", port))
        if shutil.which("haproxy") or os.path.exists("/usr/sbin/haproxy"):
            ways.append(start_haproxy(folder, port, options.idle * 2 + 200))
        else:
            print("haproxy is not installed: compared with a direct connection only", file=sys.stderr)
        ways.append(start_proxy(folder, port, options.bin, options.idle + 200))
        show(ways, measure(ways, options), options)
    finally:
        for process in STARTED:
            process.terminate()
            process.wait(20)
        os.kill(origin, signal.SIGKILL)
        os.waitpid(origin, 0)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
