#!/usr/bin/env python3
"""Run every test of a built tree and end with one total line.

    tools/test.py [--jobs N]
    tools/test.py --soak SECONDS    only the soak, for so long under each sanitizer

hardening    the release binary, by readelf
seeds        what the fuzzers know, replayed under asan
unit         every build/{asan,tsan}/unit/test_* (cmocka)
integration  tests/integration/run.py: all of it against the asan binary, the tests of what
             several threads share against the tsan binary, and those of speed and memory
             against the release binary
instructions tests/bench/micro.py: what single steps of the release build cost, against
             tests/bench/micro.json; with another toolchain growth fails nobody
soak         tests/integration/soak.py for 30 s under asan and 30 s under tsan

A sanitizer that cannot work on this machine is said so, here and again above the total.
"""

import argparse
import concurrent.futures
import glob
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
UNIT_LIMIT_S = 300
SOAK_S = 30
THREADED = ["books", "reload", "stream", "embedded", "half_open", "shadow", "admin"]  # tests/integration/test_<x>.py
MEASURING = ["costs_no_memory", "costs_next_to_nothing", "bounds_the_memory", "ready_quickly",
             "every_system_call"]  # with sanitizers they mean little
SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$")

LEAK = "#include <stdlib.h>\nint main(void) { volatile char *p = malloc(9); *p = 1; p = 0; return 0; }\n"
RACE = """#include <pthread.h>
static int n;
static void *add(void *arg) { (void)arg; for (int i = 0; i < 1000; i++) n++; return 0; }
int main(void)
{
    pthread_t a, b;
    pthread_create(&a, 0, add, 0);
    pthread_create(&b, 0, add, 0);
    pthread_join(a, 0);
    pthread_join(b, 0);
    return 0;
}
"""


class Tally:
    def __init__(self):
        self.rows = []
        self.notices = []
        self.told = []  # what failed or was unsteady, told again above the total

    def add(self, what, passed, failed, skipped, seconds):
        self.rows.append((what, passed, failed, skipped, seconds))

    def notice(self, text):
        self.notices.append(text)
        print(f"NOTICE: {text}", flush=True)

    def total(self):
        return sum(r[1] for r in self.rows), sum(r[2] for r in self.rows)

    def show(self):
        print("\n" + "-" * 72)
        for what, passed, failed, skipped, seconds in self.rows:
            extra = f", {skipped} skipped" if skipped else ""
            print(f"{what:<28} {passed:5} passed, {failed} failed{extra}  ({seconds:.0f} s)")
        for text in self.notices:
            print(f"NOTICE: {text}")
        for line in self.told:
            print(line)
        passed, failed = self.total()
        print(f"{passed} passed, {failed} failed", flush=True)
        return 1 if failed or not passed else 0


def headline(text):
    print(f"\n== {text}", flush=True)


# ---- What the machine allows ----

def probe(source, flag, prefix=(), env=None, also=()):
    """(exit code, output) of a program that has the fault the sanitizer should find."""
    with tempfile.TemporaryDirectory() as where:
        path = os.path.join(where, "probe")
        subprocess.run([os.environ.get("CC", "gcc"), "-g", flag, "-pthread", "-x", "c", "-", *also, "-o", path],
                       input=source, text=True, check=True)
        done = subprocess.run([*prefix, path], capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False)
        return done.returncode, done.stderr


def probe_leaks(tally):
    code, text = probe(LEAK, "-fsanitize=address")
    if code != 0 and "detected memory leaks" in text:
        return {}
    tally.notice("LeakSanitizer cannot work here (it needs ptrace): LEAKS ARE NOT LOOKED FOR")
    return {"LSAN_OPTIONS": "detect_leaks=0"}


def probe_races(tally):
    """The command prefix under which ThreadSanitizer works, or None."""
    found = {"TSAN_OPTIONS": "exitcode=99"}
    prefixes = [[]]
    if shutil.which("setarch"):
        prefixes.append(["setarch", platform.machine(), "-R"])  # it fears some address layouts
    for prefix in prefixes:
        code, text = probe(RACE, "-fsanitize=thread", prefix, found, ["tools/tsan.c"])
        if code == 99 and "data race" in text:
            return prefix
    print(text[-500:])
    tally.notice("ThreadSanitizer cannot work here: RACES ARE NOT LOOKED FOR")
    return None


# ---- Programs that speak TAP ----

def read_tap(text):
    """(passed, failed, skipped); a test that was planned and never reported has failed."""
    passed = failed = skipped = planned = 0
    for line in text.splitlines():
        if re.match(r"^1\.\.\d+$", line):
            planned += int(line[3:])
        elif re.match(r"^(not )?ok\b.*# SKIP", line):
            skipped += 1
        elif re.match(r"^not ok\b", line):
            failed += 1
        elif re.match(r"^ok\b", line):
            passed += 1
    failed += max(0, planned - passed - failed - skipped)
    return passed, failed, skipped


def run_tap(command, env):
    began = time.monotonic()
    try:
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", timeout=UNIT_LIMIT_S, env={**os.environ, **env}, check=False)
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired as e:
        code, text = "time limit", (e.stdout or b"").decode(errors="replace")
    passed, failed, skipped = read_tap(text)
    if code != 0 and not failed or not passed + failed + skipped:
        failed += 1  # a leak found at the end, a crash before the first test
    return passed, failed, skipped, time.monotonic() - began, code, text


def run_taps(tally, what, programs, jobs, env=None, prefix=()):
    headline(what)
    began, sums = time.monotonic(), [0, 0, 0]
    if not programs:
        print("nothing was built to test")
        sums[1] = 1
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        runs = [(p, pool.submit(run_tap, [*prefix, *p], env or {})) for p in programs]
        for program, run in runs:
            passed, failed, skipped, seconds, code, text = run.result()
            sums = [a + b for a, b in zip(sums, (passed, failed, skipped))]
            name = os.path.basename(program[-1] if len(program) == 1 else program[1])
            print(f"{name + ' ':.<44} {passed:4} passed, {failed} failed {seconds:6.2f} s", flush=True)
            if failed:
                tally.told.append(f"FAILED {what}: {name}")
                print(f"   exit code {code}:\n   " + text.strip().replace("\n", "\n   "), flush=True)
    tally.add(what, *sums, time.monotonic() - began)


def units(tally, variant, jobs, env, prefix=()):
    sources = sorted(glob.glob(os.path.join(ROOT, "tests/unit/test_*.c")))
    programs = [[os.path.join("build", variant, "unit", os.path.basename(s)[:-2])] for s in sources]
    run_taps(tally, f"unit, {variant}", programs, jobs, {**env, "CMOCKA_MESSAGE_OUTPUT": "TAP"}, prefix)


# ---- Seeds of the fuzzers ----

def seeds(tally, env):
    headline("fuzz seeds, asan")
    began = time.monotonic()
    done = subprocess.run(["build/asan/fuzz-replay", "tests/fuzz/seeds"], cwd=ROOT, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          timeout=UNIT_LIMIT_S, env={**os.environ, **env}, check=False)
    found = re.search(r"(\d+) passed, (\d+) failed$", done.stdout.strip())
    passed, failed = (int(n) for n in found.groups()) if found else (0, 1)
    if done.returncode != 0 and not failed:
        failed = 1
    if failed:
        tally.told.append("FAILED fuzz seeds, asan")
        print(done.stdout, flush=True)
    print(f"each seed of tests/fuzz once: {passed} passed, {failed} failed", flush=True)
    tally.add("fuzz seeds, asan", passed, failed, 0, time.monotonic() - began)


# ---- Integration ----

def integration(tally, variant, jobs, env, files=(), prefix=(), words=()):
    what = f"integration, {variant}"
    headline(what)
    binary = os.path.join("build", *([] if variant == "release" else [variant]), "tripswitch-proxy")
    command = [*prefix, sys.executable, "tests/integration/run.py", "-j", str(jobs), "--bin", binary, *files]
    for word in words:
        command += ["-k", word]
    began, found, naming = time.monotonic(), None, False
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace",
                          env={**os.environ, **env}) as process:
        for line in process.stdout:
            found = SUMMARY.match(line.strip()) or found
            if not SUMMARY.match(line.strip()):  # one total is enough
                print(line, end="", flush=True)
                if line in ("failed:\n", "unsteady, passed when run alone:\n"):
                    naming = True
                    tally.told.append(f"{what}, {line.rstrip()}")
                elif naming and line.strip():
                    tally.told.append(line.rstrip())
    passed, failed, skipped = (int(n or 0) for n in found.groups()) if found else (0, 1, 0)
    if process.returncode != 0 and not failed:
        failed = 1
    if not found:
        print(f"tests/integration/run.py ended with {process.returncode} and no summary", flush=True)
        tally.told.append(f"FAILED {what}: no summary, exit code {process.returncode}")
    tally.add(what, passed, failed, skipped, time.monotonic() - began)


# ---- Instructions of single steps ----

def instructions(tally):
    what = "instructions, release"
    headline(what)
    if not shutil.which("valgrind"):
        tally.notice("valgrind is not here: WHAT SINGLE STEPS COST IS NOT CHECKED")
        return
    began = time.monotonic()
    command = [sys.executable, "tests/bench/micro.py", "--check", "--program", "build/bench/micro", "--compiler",
               os.environ.get("CC", "gcc")]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=UNIT_LIMIT_S, check=False)
    print(done.stdout, end="", flush=True)
    if "ANOTHER TOOLCHAIN" in done.stdout:
        tally.notice("the toolchain is not that of tests/bench/micro.json: WHAT SINGLE STEPS COST IS NOT CHECKED")
    failed = re.findall(r"^bench-check: (.* (?:instructions|micro\.json|measured))$", done.stdout, re.M)
    if done.returncode != 0:
        tally.told += [f"FAILED {what}: {line}" for line in failed or [f"exit code {done.returncode}"]]
    rows = len(re.findall(r"^\w+ +[\d.]+ +[\d.]+ ", done.stdout, re.M))
    broken = max(len(failed), 1) if done.returncode != 0 else 0
    tally.add(what, max(0, rows - broken), broken, 0, time.monotonic() - began)


# ---- Soak ----

def soak(tally, variant, seconds, env, prefix=()):
    what = f"soak of {seconds:g} s, {variant}"
    headline(what)
    began = time.monotonic()
    command = [*prefix, sys.executable, "tests/integration/soak.py", "--seconds", str(seconds), "--bin",
               f"build/{variant}/tripswitch-proxy"]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, env={**os.environ, **env}, check=False)
    if done.returncode != 0:
        tally.told.append(f"FAILED {what}: exit code {done.returncode}")
    tally.add(what, int(done.returncode == 0), int(done.returncode != 0), 0, time.monotonic() - began)


def soaks(tally, seconds, leaks, tsan_prefix):
    soak(tally, "asan", seconds, leaks)
    if tsan_prefix is not None:
        soak(tally, "tsan", seconds, {}, tsan_prefix)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--soak", type=float, metavar="SECONDS")
    args = parser.parse_args()
    jobs = max(1, args.jobs)
    os.chdir(ROOT)
    tally = Tally()
    leaks = probe_leaks(tally)
    tsan_prefix = probe_races(tally)
    if args.soak:
        soaks(tally, args.soak, leaks, tsan_prefix)
        sys.exit(tally.show())
    run_taps(tally, "hardening, release", [[sys.executable, "tools/check_hardening.py", "build/tripswitch-proxy"]], 1)
    units(tally, "asan", jobs, leaks)
    seeds(tally, leaks)
    if tsan_prefix is not None:
        units(tally, "tsan", jobs, {}, tsan_prefix)
    instructions(tally)
    integration(tally, "asan", 2 * jobs + 1, leaks)  # most of a test is waiting
    if tsan_prefix is not None:
        integration(tally, "tsan", 2 * jobs, {}, [f"tests/integration/test_{t}.py" for t in THREADED], tsan_prefix)
    integration(tally, "release", jobs, {}, words=MEASURING)
    soaks(tally, SOAK_S, leaks, tsan_prefix)
    sys.exit(tally.show())


if __name__ == "__main__":
    main()
