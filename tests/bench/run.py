#!/usr/bin/env python3
"""Ours and what users would otherwise run, side by side on one core.

    tests/bench/run.py [--cases A,B] [--peers A,B] [--rounds N] [--seconds S] [--docs] [--list]

The program under test has a core to itself, load generator and origin the others.  Rounds
alternate between the peers (A B C, A B C), so that none has the better minute.  On a busy
machine look at the ratios and their spread, not at the figures.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import sys
import tempfile

from cases import CASES, NAMES
from load import Load, LoadError, Origin
from measure import CORES, raise_descriptors
from peers import PEERS, Absent, is_asked_for
from plot import plot
from report import CaseResult, as_json, table
from targets import judged, verdicts

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Bench:
    """What every case needs; used in a `with`, which ends what it started."""

    def __init__(self, options):
        os.sched_setaffinity(0, CORES.rest)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: sys.exit("ended by a signal"))  # and stop what was started
        os.makedirs(options.out, exist_ok=True)
        self.folder = tempfile.mkdtemp(prefix="tsp-bench-")
        os.chmod(self.folder, 0o755)
        self.rounds = options.rounds
        self.window = {"seconds": options.seconds, "warmup": min(0.3, options.seconds / 4)}
        self.only = options.peers
        self.room = raise_descriptors()  # connections
        self.half_rate = 0  # of the case p99half, once known
        self.running = {}  # peers of the case, by name
        self.origin = Origin(options.programs, self.folder)
        self.load = Load(options.programs, self.folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.origin.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def progress(text):
    print(text, file=sys.stderr, flush=True)


def start_peers(bench, case, result, started):
    """Into `started`, each before it is started, so that whatever happens it will be stopped."""
    for name in case.peers:
        cls = PEERS[name]
        if not is_asked_for(name, bench.only):
            result.absent[name] = "was not asked for"
            continue
        if case.flavour not in cls.flavours or name in case.without:
            result.absent[name] = case.without.get(name) or cls.cannot[case.flavour]
            continue
        peer = cls(bench.origin, bench.folder, case.flavour, case.room)
        started.append(peer)
        try:
            peer.start()
        except (Absent, OSError, AssertionError) as e:
            started.remove(peer)
            peer.stop()
            result.absent[name] = " ".join(str(e).split())
            progress(f"{case.name}: {name} ABSENT: {result.absent[name]}")


def run_case(bench, case):
    result, peers = CaseResult(case), []
    try:
        start_peers(bench, case, result, peers)
        bench.running = {p.name: p for p in peers}
        for n in range(bench.rounds):
            for peer in peers:
                try:
                    peer.settle()
                    values = case.run(bench, peer)
                    first = next((k for k in case.measures if values.get(k) is not None), None)
                    shown = f"{values[first]:.0f} {first}" if first else "nothing"
                except (LoadError, AssertionError, OSError) as e:
                    values, shown = None, f"FAILED: {e}"
                    result.notes.append(f"{peer.name} failed: {e}")
                result.add(peer.name, values)
                progress(f"{case.name} round {n + 1}/{bench.rounds} {peer.name:<12} {shown} {(values or {}).get('note', '')}")
    finally:
        for peer in peers:
            peer.stop()
    result.notes += case.conclude(result)
    return result


def words(text):
    return [w for w in text.replace(",", " ").split() if w]


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=words, default=[])
    parser.add_argument("--peers", type=words, default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--programs", default=os.path.join(ROOT, "build", "bench"), help="where load and origin are")
    parser.add_argument("--out", default=os.path.join(ROOT, "build", "bench"))
    parser.add_argument("--docs", action="store_true", help="put table and plot into docs/performance.*")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    unknown = [c for c in options.cases if c not in NAMES] + [p for p in options.peers if p not in PEERS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; cases: {' '.join(NAMES)}; peers: {' '.join(PEERS)}")
    return options


def describe(options):
    revision = os.popen(f"git -C {ROOT} rev-parse --short=12 HEAD 2>/dev/null").read().strip()
    return (f"{datetime.date.today()}, revision {revision or 'unknown'}, {CORES.count} cores, Linux {platform.release()},\n"
            f"{options.rounds} rounds of {options.seconds:g} s; program under test on core {CORES.test}, "
            f"load and origin on {','.join(map(str, sorted(CORES.rest)))}."
            + (f"\nLOAD AVERAGE {os.getloadavg()[0]:.1f} AT THE START: others use the machine, look at the ratios only."
               if os.getloadavg()[0] > 0.5 else "")
            + ("\nONE CORE ONLY: load, origin and proxy share it." if CORES.count < 2 else ""))


def save(options, name, text):
    path = os.path.join(options.out, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return os.path.relpath(path)


def into_docs(text, drawing):
    """The table replaces the one block of docs/performance.md that is fenced."""
    docs = os.path.join(ROOT, "docs", "performance")
    with open(docs + ".md", encoding="utf-8") as f:
        before, _, behind = f.read().split("```\n")
    with open(docs + ".md", "w", encoding="utf-8") as f:
        f.write(f"{before}```\n{text.rstrip()}\n```\n{behind}")
    with open(docs + ".svg", "w", encoding="utf-8") as f:
        f.write(drawing)


def main():
    options = read_options()
    if options.list:
        for case in CASES:
            print(f"{case.name:<18} {case.title}")
        return
    results, about = [], describe(options)
    try:
        with Bench(options) as bench:
            for case in CASES:
                if not options.cases or case.name in options.cases:
                    results.append(run_case(bench, case))
    finally:
        if results:
            text, drawing = table(results, about) + verdicts(results), plot(results, about)
            print(text)
            if options.docs:
                into_docs(text, drawing)
            paths = [save(options, "table.txt", text), save(options, "plot.svg", drawing),
                     save(options, "results.json", json.dumps(as_json(results, about, judged(results)), indent=1))]
            progress("written: " + ", ".join(paths))


if __name__ == "__main__":
    main()
