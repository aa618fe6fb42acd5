#!/usr/bin/env python3
"""Run the integration tests against the real binary.

    tests/integration/run.py [-j N] [-k WORD]... [--bin PATH] [--list] [FILE...]

Every test_*.py beside this file is loaded; classes run in parallel processes, the tests
of a class one after the other.  A test that passes its time limit is killed together with
what it started, and counts as failed.  The last line is the summary.

A few that failed are run once more, alone, when all others have ended: on a machine that
stood still for seconds a test of time may fail.  Whoever passes then is named as unsteady.
What a sanitizer found, or a crash, or books that do not balance, is never asked again.
"""

import argparse
import glob
import importlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import unittest

sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # for the test processes

HERE = os.path.dirname(os.path.abspath(__file__))
SETUP_LIMIT_S = 90
ONCE_MORE_MAX = 8  # more than these are no accident
# What is never an accident; of the logs that follow "--- stderr" only what sanitizers say.
FINAL = re.compile(r"Sanitizer|runtime error:|BUG:|BUG at|stack smashing|double free|Assertion .* failed")
FINAL_WORDS = re.compile(r"exit code|no exit|books to balance|leak|still runs")


def final(detail):
    return FINAL.search(detail) or FINAL_WORDS.search(detail.split("--- stderr")[0])


def discover(files, words):
    """[(unit, heavy, [test names])] in the order of files and classes."""
    sys.path.insert(0, HERE)
    units = []
    paths = files or sorted(glob.glob(os.path.join(HERE, "test_*.py")))
    for path in paths:
        module = importlib.import_module(os.path.basename(path).removesuffix(".py"))
        for name, cls in vars(module).items():
            if not (isinstance(cls, type) and issubclass(cls, unittest.TestCase)) or cls.__module__ != module.__name__:
                continue
            tests = [t for t in vars(cls) if t.startswith("test_")]
            if words:
                tests = [t for t in tests if any(w.lower() in f"{module.__name__}.{name}.{t}".lower() for w in words)]
            if tests:
                units.append((f"{module.__name__}.{name}", getattr(cls, "heavy", False), tests))
    return sorted(units, key=lambda u: not u[1])  # the long ones first, so that none is left alone at the end


def sentence(test_id):
    module, _, rest = test_id.partition(".")
    name = rest.rpartition(".")[2] if "setUpClass" not in rest and "tearDownClass" not in rest else rest
    words = re.sub(r"^test_", "", name).replace("_", " ")
    return f"{module.removeprefix('test_'):<11} {words}"


class Board:
    """Prints one line per test and counts."""

    WIDTH = 52  # of the sentence; with what stands around it 80 columns

    def __init__(self, total):
        self.total = total
        self.lock = threading.Lock()
        self.counts = {"ok": 0, "FAILED": 0, "skipped": 0}
        self.failures = []
        self.unsteady = []
        self.slow = []

    def add(self, test_id, outcome, seconds, detail):
        with self.lock:
            self.counts[outcome] += 1
            done = sum(self.counts.values())
            *above, last = textwrap.wrap(sentence(test_id), self.WIDTH, subsequent_indent=" " * 14)
            for line in above:
                print(f"          {line}")
            dots = "." * (self.WIDTH - len(last) + 1)
            print(f"[{done:3}/{self.total:3}] {last} {dots} {outcome:<6} {seconds:5.1f}s", flush=True)
            if outcome == "FAILED":
                self.failures.append((test_id, detail))
                print("    " + detail.strip().replace("\n", "\n    "), flush=True)
            elif outcome == "skipped":
                print(f"    skipped: {detail}", flush=True)
            self.slow.append((seconds, test_id))


    def take_back(self):
        """The failures that another run may mend, no longer counted."""
        again = [f for f in self.failures if not final(f[1])]
        if len(self.failures) > ONCE_MORE_MAX or not again:
            return []
        self.failures = [f for f in self.failures if f not in again]
        self.counts["FAILED"] -= len(again)
        return again


class Worker:
    """A test process and the watch over it; replaced when it has to be killed."""

    def __init__(self, board):
        self.board = board
        self.process = None

    def _start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.worker"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, start_new_session=True)
        self.events = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, self.events), daemon=True).start()

    @staticmethod
    def _read(process, events):
        for line in process.stdout:
            events.put(json.loads(line))
        events.put(None)

    def kill(self):
        if self.process:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
            self.process = None

    def run(self, unit, tests):
        left = list(tests)
        while left:
            if self.process is None:
                self._start()
            self.process.stdin.write(json.dumps({"unit": unit, "tests": left}) + "\n")
            self.process.stdin.flush()
            current, limit, began = None, SETUP_LIMIT_S, time.monotonic()
            while True:
                try:
                    event = self.events.get(timeout=max(0.01, began + limit - time.monotonic()))
                except queue.Empty:
                    self._lost(unit, current, f"time limit of {limit:g} s passed", began, left)
                    break
                if event is None:
                    self._lost(unit, current, "the test process died", began, left)
                    break
                if "start" in event:
                    current, limit, began = event["start"], event["limit"], time.monotonic()
                elif "end" in event:
                    self.board.add(event["end"], event["outcome"], event["seconds"], event["detail"])
                    name = event["end"].rpartition(".")[2]
                    if name in left:
                        left.remove(name)
                    elif event["end"].startswith("setUpClass"):
                        left = []  # nothing of this class can run; it has been counted as one failure
                    current, limit, began = None, SETUP_LIMIT_S, time.monotonic()
                elif "done" in event:
                    return

    def _lost(self, unit, current, why, began, left):
        self.kill()
        self.board.add(current or f"{unit}.setting up or clearing away", "FAILED", time.monotonic() - began, why)
        name = (current or "").rpartition(".")[2]
        if name in left:
            left.remove(name)
        else:
            left.clear()

    def end(self):
        if self.process:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


def once_more(board, units):
    """The rest has ended: the failures that may be accidents, one after the other."""
    known = {unit: tests for unit, _, tests in units}
    worker = Worker(board)
    for test_id, detail in board.take_back():
        unit, _, name = test_id.rpartition(".")
        if name not in known.get(unit, ()):  # its class could not be set up
            unit = next((u for u in known if u in test_id), None)
        if unit is None:
            board.failures.append((test_id, detail))
            board.counts["FAILED"] += 1
            continue
        before = len(board.failures)
        print(f"once more, alone: {sentence(test_id)}", flush=True)
        worker.run(unit, [name] if name in known[unit] else known[unit])
        if len(board.failures) == before:
            board.unsteady.append((test_id, detail))
    worker.end()


def tell(what, tests):
    if tests:
        print(f"\n{what}:")
    for test_id, detail in tests:
        print(f"  {sentence(test_id)}")
        for line in detail.strip().splitlines()[:4]:
            print(f"      {line.strip()[:200]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="test files; all by default")
    parser.add_argument("-j", type=int, default=2, metavar="N", help="processes (2)")
    parser.add_argument("-k", action="append", default=[], metavar="WORD", help="only tests whose name contains it")
    parser.add_argument("--bin", help="the binary (or TRIPSWITCH_PROXY_BIN; build/tripswitch-proxy)")
    parser.add_argument("--list", action="store_true", help="only name the tests")
    args = parser.parse_args()
    if args.bin:
        os.environ["TRIPSWITCH_PROXY_BIN"] = os.path.abspath(args.bin)
    units = discover(args.files, args.k)
    if args.list:
        for unit, _, tests in units:
            for test in tests:
                print(sentence(f"{unit}.{test}"))
        return 0
    from harness import binary
    if not os.access(binary(), os.X_OK):
        print(f"no binary at {binary()}: build it first, or say --bin", file=sys.stderr)
        return 2
    print(f"testing {binary()}", flush=True)
    began = time.monotonic()
    board = Board(sum(len(t) for _, _, t in units))
    work = queue.Queue()
    for unit, _, tests in units:
        work.put((unit, tests))
    workers = [Worker(board) for _ in range(max(1, args.j))]

    def drain(worker):
        while True:
            try:
                unit, tests = work.get_nowait()
            except queue.Empty:
                break
            worker.run(unit, tests)
        worker.end()

    threads = [threading.Thread(target=drain, args=(w,), daemon=True) for w in workers]
    try:
        for t in threads:
            t.start()
        for t in threads:
            while t.is_alive():
                t.join(0.5)
        once_more(board, units)
    except KeyboardInterrupt:
        for w in workers:
            w.kill()
        print("interrupted", flush=True)
    print(f"\n{time.monotonic() - began:.0f} s; the slowest:")
    for seconds, test_id in sorted(board.slow, reverse=True)[:8]:
        print(f"  {seconds:6.2f} s  {sentence(test_id)}")
    tell("unsteady, passed when run alone", board.unsteady)
    tell("failed", board.failures)
    ok, failed, skipped = (board.counts[k] for k in ("ok", "FAILED", "skipped"))
    missing = board.total - ok - failed - skipped
    if missing > 0 and not failed:
        failed = missing
    print(f"{ok} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
