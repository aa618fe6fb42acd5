#!/usr/bin/env python3
"""Where the instructions of a request go: ours under callgrind, case by case.

    tests/bench/callgrind.py [--cases A,B] [--seconds S] [--top N]

The workers' instructions in user space; what the kernel does shows only as the calls that
lead there (perf record -g sees it, on machines that let it).  The dump is kept for kcachegrind.
"""

import argparse
import glob
import os
import re
import subprocess

from cases import CASES, NAMES
from peers import Ours
from run import ROOT, Bench, words

UNDER = ("valgrind", "-q", "--tool=callgrind", "--toggle-collect=worker_main")


def annotate(path, top, inclusive):
    done = subprocess.run(["callgrind_annotate", f"--inclusive={'yes' if inclusive else 'no'}", "--threshold=100", path],
                          capture_output=True, text=True, check=True)
    rows = re.findall(r"^\s*([\d,]+) \(\s*[\d.]+%\)\s+(\S+?):(\S+)", done.stdout, re.M)
    return [(int(n.replace(",", "")), f"{function} ({os.path.basename(file)})") for n, file, function in rows][:top]


def total_of(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return int(re.search(r"^(?:totals|summary): (\d+)", f.read(), re.M)[1])


def run_under(bench, case, dump):
    """How many operations the dump is about."""
    for old in glob.glob(dump + "*"):
        os.unlink(old)
    peer = Ours(bench.origin, bench.folder, case.flavour, case.room)
    peer.under = (*UNDER, f"--callgrind-out-file={dump}")
    try:
        peer.start()
        values = case.run(bench, peer)
    finally:
        peer.stop()
    return (values.get("rps") or 0) * sum(bench.window.values())


def profile(bench, case, options):
    dump = os.path.join(options.out, f"callgrind.{case.name}")
    count = run_under(bench, case, dump)
    if not count:
        print(f"{case.name}: no request that could be counted\n")
        return
    print(f"{case.name}: {case.title}\n{total_of(dump) / count:.0f} instructions a request, over {count:.0f} of them "
          f"({os.path.relpath(dump)})")
    for inclusive in (False, True):
        print("\n  with what they call" if inclusive else "\n  by themselves")
        for n, where in annotate(dump, options.top, inclusive):
            print(f"{n / count:>10.1f}  {where}"[:80])
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=words, default=["kv64"])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--programs", default=os.path.join(ROOT, "build", "bench"))
    parser.add_argument("--out", default=os.path.join(ROOT, "build", "bench"))
    options = parser.parse_args()
    if set(options.cases) - set(NAMES):
        parser.error(f"cases: {' '.join(NAMES)}")
    options.rounds, options.peers = 1, []
    with Bench(options) as bench:
        for case in CASES:
            if case.name in options.cases:
                profile(bench, case, options)


if __name__ == "__main__":
    main()
