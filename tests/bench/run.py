#!/usr/bin/env python3
"""Ours and what users would otherwise run, side by side on one core.

    tests/bench/run.py [--cases A,B] [--peers A,B] [--rounds N] [--seconds S] [--docs] [--list]

The program under test has a core to itself, load generator and origin the others.  Rounds
alternate between the peers (A B C, B C A), so that none has the better minute or place.  On a busy
machine look at the ratios and their spread, not at the figures.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile

from cases import CASES, NAMES
from load import Load, Origin
from measure import CORES, raise_descriptors
from peers import PEERS, is_asked_for
from plot import plot
from report import CaseResult, as_json, table
from targets import judged, verdicts

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Ending:
    """A signal ends the run, and what was started is stopped: the first one; no later one breaks that."""

    def __init__(self):
        self.asked = self.raised = False
        self.holds = 0

    def listen(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self.on_signal)

    def on_signal(self, *_):
        self.asked = True
        self.end()

    def end(self):
        if self.asked and not self.holds and not self.raised:
            self.raised = True
            sys.exit("ended by a signal")

    @contextlib.contextmanager
    def held(self):
        """What is in here is done to its end first."""
        self.holds += 1
        try:
            yield
        finally:
            self.holds -= 1
        self.end()


ENDING = Ending()


class Bench:
    """What every case needs; used in a `with`, which ends what it started."""

    def __init__(self, options):
        os.sched_setaffinity(0, CORES.rest)
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
        with ENDING.held():
            try:
                self.origin.start()
            except BaseException:
                self.clean()
                raise
        return self

    def __exit__(self, *_):
        with ENDING.held():
            self.clean()

    def clean(self):
        self.origin.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def one_line(error):
    return " ".join(str(error).split())[:200] or type(error).__name__


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
            result.absent[name] = case.without.get(name) or cls.cannot
            continue
        peer = cls(bench.origin, bench.folder, case.flavour, case.room)
        started.append(peer)
        try:
            peer.start()
        except Exception as e:
            stop(peer)
            started.remove(peer)
            result.fail(name, one_line(e))
            progress(f"{case.name}: {name} ABSENT: {result.absent[name]}")


def stop(peer):
    """Whatever comes of it: the others are to be stopped too."""
    with ENDING.held():
        try:
            peer.stop()
        except Exception as e:
            progress(f"{peer.name} had to be killed: {one_line(e)}")


def measure(bench, case, result, peer):
    """One peer, one round; None: it failed."""
    try:
        peer.check()
        peer.settle()
        values = case.run(bench, peer)
        peer.check()
    except Exception as e:
        result.notes.append(f"{peer.name} failed: {one_line(e)}")
        values = None
    if bench.origin.ended() is not None:
        sys.exit(f"the origin ended with {bench.origin.ended()}: {case.name} is not told")
    return values


def run_rounds(bench, case, result, peers):
    for n in range(bench.rounds):
        first = n % max(1, len(peers))
        for peer in peers[first:] + peers[:first]:
            values = measure(bench, case, result, peer)
            result.add(peer.name, values)
            key = next((k for k in case.measures if (values or {}).get(k) is not None), None)
            shown = f"{values[key]:.0f} {key}" if key else result.notes[-1] if result.notes else "nothing"
            progress(f"{case.name} round {n + 1}/{bench.rounds} {peer.name:<12} {shown} {(values or {}).get('note', '')}")


def run_case(bench, case):
    result, peers = CaseResult(case), []
    try:
        start_peers(bench, case, result, peers)
        bench.running = {p.name: p for p in peers}
        run_rounds(bench, case, result, peers)
    finally:
        with ENDING.held():
            for peer in peers:
                stop(peer)
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
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("at least one round, of more than no time")
    if options.docs and (options.cases or options.peers):
        parser.error("docs/performance.md tells of every case and of every peer: --docs goes without --cases and --peers")
    return options


def git(*words):
    done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def describe(options):
    busy = os.getloadavg()[0]
    lines = [
        f"{datetime.date.today()}, revision {git('rev-parse', '--short=12', 'HEAD') or 'unknown'}, "
        f"{CORES.count} cores, Linux {platform.release()},",
        f"{options.rounds} rounds of {options.seconds:g} s; program under test on core {CORES.test}, "
        f"load and origin on {','.join(map(str, sorted(CORES.rest)))}."]
    if git("status", "--porcelain", "--untracked-files=no"):
        lines.append("WITH CHANGES THAT ARE NOT COMMITTED.")
    if os.environ.get("TRIPSWITCH_PROXY_BIN"):
        lines.append(f"OURS IS {os.environ['TRIPSWITCH_PROXY_BIN']}, whatever that was made from.")
    if busy > 0.5:
        lines.append(f"LOAD AVERAGE {busy:.1f} AT THE START: others use the machine, look at the ratios only.")
    if CORES.count < 2:
        lines.append("ONE CORE ONLY: load, origin and proxy share it.")
    return "\n".join(lines)


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


def report(options, results, about, complete):
    text, drawing = table(results, about) + verdicts(results), plot(results, about)
    print(text)
    paths = [save(options, "table.txt", text), save(options, "plot.svg", drawing),
             save(options, "results.json", json.dumps(as_json(results, about, judged(results)), indent=1))]
    progress("written: " + ", ".join(paths))
    failed = sorted({name for r in results for name in r.failed})
    if options.docs and complete and not failed:
        into_docs(text, drawing)
    elif options.docs:
        sys.exit("docs/performance.md stays as it was: " + ("no " + ", ".join(failed) if complete else "the run did not end"))


def main():
    options = read_options()
    if options.list:
        for case in CASES:
            print(f"{case.name:<18} {case.title}")
        return
    results, about, complete = [], describe(options), False
    ENDING.listen()
    try:
        with Bench(options) as bench:
            for case in CASES:
                if not options.cases or case.name in options.cases:
                    results.append(run_case(bench, case))
        complete = True
    finally:
        if results:
            with ENDING.held():
                report(options, results, about, complete)


if __name__ == "__main__":
    main()
