#!/usr/bin/env python3
"""Instructions per step, counted by callgrind, held against the committed figures.

    tests/bench/micro.py [--check | --update] --program build/bench/micro

Figures are for one compiler, C library and valgrind, named in micro.json; with others the
comparison is shown and marked, and no growth fails.  --check fails when a step has grown by
over 5 %, or when the rows are not those of the file; --update writes the file anew.
"""

import argparse
import glob
import json
import os
import platform
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
FIGURES = os.path.join(HERE, "micro.json")
GROWTH = 0.05


def first_line(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()


def toolchain(compiler):
    """What else decides how many instructions it takes; the C library has other ways with AVX2."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        avx2 = " avx2 " in f.read().replace("\n", " ")
    return {"compiler": first_line(*compiler.split(), "--version"), "libc": " ".join(platform.libc_ver()),
            "valgrind": first_line("valgrind", "--version"), "machine": platform.machine() + (" avx2" if avx2 else "")}


def read_dump(path):
    """(row, instructions of one step), or None for a dump that is not one of ours."""
    with open(path, encoding="utf-8", errors="replace") as f:
        text = f.read()
    name = re.search(r"^desc: Trigger: Client Request: (\S+) (\d+)$", text, re.M)
    total = re.search(r"^(?:totals|summary): (\d+)", text, re.M)
    return (name[1], int(total[1]) / int(name[2])) if name and total else None


def count(program):
    with tempfile.TemporaryDirectory(prefix="tsp-micro-") as folder:
        done = subprocess.run(
            ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no",
             f"--callgrind-out-file={folder}/out", program],
            env={"PATH": os.environ["PATH"]}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            sys.exit(f"micro: {done.stderr.strip()}")
        found = [read_dump(p) for p in sorted(glob.glob(f"{folder}/out.*"), key=lambda p: int(p.rsplit(".", 1)[1]))]
        return {name: round(each, 1) for name, each in filter(None, found)}


def load():
    try:
        with open(FIGURES, encoding="utf-8") as f:
            return json.load(f)
    except FileNotFoundError:
        return {"toolchain": {}, "instructions": {}}


def compare(now, before):
    """Prints the table; (rows that have grown too much, rows that are not in both)."""
    grown, odd = [], []
    print(f"{'instructions per step':<26}{'now':>12}{'file':>12}{'change':>10}")
    for name in list(now) + [n for n in before if n not in now]:
        if name not in now or name not in before:
            odd.append(f"{name} is {'not in micro.json' if name in now else 'no longer measured'}")
            print(f"{name:<26}{now.get(name, '-'):>12}{before.get(name, '-'):>12}")
            continue
        change = now[name] / before[name] - 1
        if change > GROWTH:
            grown.append(f"{name} takes {change:.1%} more instructions")
        print(f"{name:<26}{now[name]:>12.1f}{before[name]:>12.1f}{change:>+10.1%}{'  GROWN' if change > GROWTH else ''}")
    return grown, odd


def check(now, here, file):
    grown, odd = compare(now, file["instructions"])
    other = [f"{k}: {here[k]} here, {file['toolchain'].get(k)} in the file" for k in here if here[k] != file["toolchain"].get(k)]
    if other:
        print("\nNOTICE: THE FIGURES OF THE FILE ARE FROM ANOTHER TOOLCHAIN; growth is told and fails nobody:")
        print("\n".join("  " + line for line in other))
        grown = []
    for line in grown + odd:
        print(f"bench-check: {line}", file=sys.stderr)
    if grown + odd:
        print("bench-check: mend it, or, if it is meant: make bench-micro UPDATE=1, and say why in the commit", file=sys.stderr)
    return 1 if grown + odd else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--compiler", default="gcc")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    now, here, file = count(options.program), toolchain(options.compiler), load()
    if options.check:
        sys.exit(check(now, here, file))
    compare(now, file["instructions"])
    if options.update:
        with open(FIGURES, "w", encoding="utf-8") as f:
            json.dump({"toolchain": here, "instructions": now}, f, indent=2)
            f.write("\n")
        print(f"written: {os.path.relpath(FIGURES)}")


if __name__ == "__main__":
    main()
