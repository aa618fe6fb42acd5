"""The origin and the load generator, both our own: tests/bench/origin.c and load.c."""

import json
import os
import subprocess
import time

from measure import CORES
from peers import free_port, start_on_free_ports, wait_answer


class LoadError(Exception):
    pass


PIN = ["taskset", "-c", ",".join(str(c) for c in sorted(CORES.rest))]


class Origin:
    def __init__(self, programs, folder):
        self.program, self.log = os.path.join(programs, "origin"), os.path.join(folder, "origin.log")
        self.http_port = self.raw_port = self.process = None

    def try_start(self):
        self.http_port, self.raw_port = free_port(), free_port()
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen([*PIN, self.program, str(self.http_port), str(self.raw_port)],
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        for port in (self.http_port, self.raw_port):
            wait_answer(self.process, self.log, port)

    def start(self):
        start_on_free_ports(self.try_start, self.stop, lambda: [self.http_port, self.raw_port])

    def ended(self):
        """How, or None while it lives."""
        return self.process.poll()

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait(10)


class Load:
    def __init__(self, programs, folder):
        self.program = os.path.join(programs, "load")
        self.folder = folder

    def _command(self, peer, requests, options):
        args = [*PIN, self.program, "--port", str(peer.port)]
        if requests:
            path = os.path.join(self.folder, "requests")
            with open(path, "wb") as f:
                f.write(b"".join(requests))
            args += ["--requests", path]
        if peer.pids():
            args += ["--pids", ",".join(str(p) for p in peer.pids())]
        return [*args, *(str(o) for o in options)]

    def run(self, peer, requests, *options, seconds, warmup):
        """What load.c prints, as a dict."""
        command = self._command(peer, requests, ["--seconds", seconds, "--warmup", warmup, *options])
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              timeout=seconds + warmup + 60)
        if done.returncode:
            raise LoadError(f"the load generator failed: {done.stderr.strip()[-200:]}")
        return json.loads(done.stdout)

    def hold(self, peer, requests, connections, *options, settle_s=1.5):
        """Bytes of the peer's memory while so many connections stand and wait."""
        command = self._command(peer, requests, ["--mode", "hold", "--connections", connections, "--seconds", 60, *options])
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
            if p.stdout.readline().strip() != "ready":
                raise LoadError(p.stderr.read().strip()[-200:])
            time.sleep(settle_s)
            held = peer.memory()
            p.stdin.close()
            p.wait(20)
        return held
