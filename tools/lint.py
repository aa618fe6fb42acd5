#!/usr/bin/env python3
"""Hold the sources against the rules of the house.

    tools/lint.py [--jobs N] [CHECK...]

arrows     includes between rooms go one way, and so do the symbols of the built archives
pure       pure parts reach neither libevent nor libcurl, no clock and no randomness
headers    every header compiles alone, with gcc and with clang
clang      everything compiles with clang without a warning
tidy       clang-tidy with .clang-tidy
cppcheck   cppcheck
scripts    shellcheck; Python compiles
All by default; a release build must exist.  What is found although it is right stands in
tools/lint-exceptions.txt, with a reason; an exception that nothing needs is an error.
"""

import argparse
import concurrent.futures
import glob
import os
import re
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOMS = ["base", "config", "sync", "control", "proxy"]

# room: the rooms it may use
ARROWS = {
    "base": {"base"},
    "config": {"config", "base"},
    "sync": {"sync", "config", "base"},
    "control": {"control", "config", "base"},
    "proxy": {"proxy", "sync", "config", "base"},
}
# The one door between proxy/ and control/: main starts it, telemetry reads its counters.
CONTROL_DOOR = "control/control.h"
CONTROL_DOOR_USERS = {"proxy/main.c", "proxy/status.c", "proxy/families.h"}

PURE = ["proxy/route", "proxy/gate", "proxy/probe", "proxy/switches", "proxy/explain", "proxy/classify", "proxy/rewrite",
        "proxy/http1", "proxy/http1_body", "proxy/auth", "proxy/pace", "proxy/authority", "proxy/tls_hello", "proxy/json_scan", "proxy/inspect",
        "control/evaluator", "control/machine", "control/persist", "control/store", "sync/sse", "sync/state_event", "sync/batch",
        "sync/sample", "sync/backoff", "sync/schedule", "sync/source"]
PURE_ROOM = "config"
READS_FILES = "config/read.c"  # waits for a pipe, so it needs a clock
IMPURE_HEADERS = re.compile(r"^(event2/|event\.h|curl/|ares\.h|base/clock\.h)")
IMPURE_SYMBOLS = re.compile(r"^(event_|evhttp_|bufferevent_|evbuffer_|curl_|ares_|clock_(mono|wall)_|clock_gettime$|gettimeofday$|time$|"
                            r"rand$|random$|rand_r$|drand48$|getrandom$|random_bytes$|RAND_|prng_seed$|sleep$|usleep$|nanosleep$)")

WARN = "-std=gnu11 -Wall -Wextra -Wshadow -Werror -Wstrict-prototypes -Wmissing-prototypes -Wvla".split()
DEFINES = ["-I.", "-D_GNU_SOURCE", '-DTRIPSWITCH_VERSION="0"']
TIDY_LINE = re.compile(r"^(?P<path>[^:\s]+):(?P<line>\d+):\d+: (?:error|warning): (?P<text>.*) \[(?P<check>[\w.,-]+)\]$")


def run(*command, **kw):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, **kw)


def sources(*suffixes, rooms=None):
    return sorted(p for r in rooms or ROOMS for s in suffixes for p in glob.glob(f"{r}/*.{s}"))


def in_parallel(jobs, work, items):
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(work, items))


# ---- Exceptions ----

class Exceptions:
    """Lines of path, check, a piece of the source line, reason; parted by " | "."""

    PATH = "tools/lint-exceptions.txt"

    def __init__(self):
        self.entries = []
        self.used = set()
        if os.path.exists(self.PATH):
            for line in open(self.PATH, encoding="utf-8"):
                if line.strip() and not line.startswith("#"):
                    path, check, piece, _reason = (f.strip() for f in line.split(" | ", 3))
                    self.entries.append((path, check, piece))

    def cover(self, path, number, check):
        with open(path, encoding="utf-8") as f:
            line = f.read().splitlines()[number - 1]
        for entry in self.entries:
            if (entry[0], entry[1]) == (path, check) and entry[2] in line:
                self.used.add(entry)
                return True
        return False

    def unused(self, of_cppcheck):
        left = [e for e in self.entries if e not in self.used and e[1].startswith("cppcheck:") == of_cppcheck]
        return [f"{self.PATH}: nothing needs this any more: {' | '.join(e)}" for e in left]


# ---- Checks: each returns a list of findings ----

INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.M)


def includes(path):
    with open(path, encoding="utf-8") as f:
        return [(quote == '"', name) for quote, name in INCLUDE.findall(f.read())]


def arrow_findings(path, name):
    room, target = path.split("/")[0], name.split("/")[0]
    if "/" not in name or target not in ROOMS:
        return [f'{path}: "{name}" is not of the form "room/file.h"']
    if not os.path.exists(name):
        return [f'{path}: "{name}" does not exist']
    if room == "proxy" and name == CONTROL_DOOR and path in CONTROL_DOOR_USERS:
        return []
    if target not in ARROWS[room]:
        return [f'{path}: {room}/ must not include "{name}"']
    return []


def symbols(path, *flags):
    return {line.split()[-1] for line in run("nm", *flags, path).stdout.splitlines() if line and not line.endswith(":")}


def link_findings():
    """What the includes do not show: a symbol of a forbidden room, declared by hand."""
    built = {r: f"build/lib{r}.a" for r in ROOMS}
    if not all(os.path.exists(p) for p in built.values()):
        return ["build/lib*.a are missing: build the release variant first"]
    defined = {r: symbols(p, "--defined-only", "-g") for r, p in built.items()}
    out = []
    for room, path in built.items():
        wanted = symbols(path, "--undefined-only")
        for other in set(ROOMS) - ARROWS[room]:
            for name in sorted(wanted & defined[other]):
                if not (room == "proxy" and other == "control"):  # the door: includes tell
                    out.append(f"{path} uses {name}() of {other}/")
    for path in sorted(glob.glob("build/obj/proxy/*.o")):
        if "control_start" in symbols(path, "--undefined-only") and not path.endswith("/main.o"):
            out.append(f"{path} starts control/; only main does")
    return out


def check_arrows(_args):
    out = []
    for path in sources("c", "h"):
        for quoted, name in includes(path):
            if quoted:
                out += arrow_findings(path, name)
            elif name.split("/")[0] in ROOMS:
                out.append(f"{path}: <{name}> is ours and wants quotes")
    return out + link_findings()


def reach(path, seen):
    """(header, by way of) for everything that path includes, through our own headers too."""
    for quoted, name in includes(path):
        yield name, path
        if quoted and os.path.exists(name) and name not in seen:
            seen.add(name)
            yield from reach(name, seen)


def check_pure(_args):
    names = PURE + sorted(p[:-2] for p in glob.glob(f"{PURE_ROOM}/*.c") if p != READS_FILES)
    out = []
    for name in names:
        if not os.path.exists(name + ".c"):
            out.append(f"{name}.c: named as a pure part, but it does not exist")
            continue
        for header, by in reach(name + ".c", set()):
            if IMPURE_HEADERS.match(header):
                out.append(f"{name}.c is a pure part but includes {header} (in {by})")
        for symbol in sorted(symbols(f"build/obj/{name}.o", "--undefined-only")):
            if IMPURE_SYMBOLS.match(symbol):
                out.append(f"{name}.c is a pure part but calls {symbol}()")
    return out


def check_headers(args):
    flags = run("pkg-config", "--cflags", "libevent_core", "libcurl", "libcjson", "openssl", "libcares").stdout.split()

    def compile_alone(job):
        compiler, path = job
        done = subprocess.run([compiler, *WARN, *DEFINES, *flags, "-fsyntax-only", "-x", "c", "-"],
                              input=f'#include "{path}"\n', capture_output=True, text=True, check=False)
        return [] if done.returncode == 0 else [f"{path} does not compile alone with {compiler}:\n{done.stderr.strip()}"]

    jobs = [(c, p) for p in sources("h") for c in ("gcc", "clang")]
    return sum(in_parallel(args.jobs, compile_alone, jobs), [])


def check_clang(args):
    done = run("make", "--no-print-directory", f"-j{args.jobs}", "VARIANT=clang", "all", "units")
    return [] if done.returncode == 0 else [done.stderr[-8000:].strip()]


def check_tidy(args):
    exceptions = Exceptions()
    version = run("clang-tidy", "--version").stdout

    def tidy(path):
        done = run("clang-tidy", "--quiet", path, "--", *DEFINES, "-std=gnu11")
        return path, done.stdout, done.stderr if "Error while" in done.stderr or "Found compiler error" in done.stderr else ""

    found = {}
    for path, text, broken in in_parallel(args.jobs, tidy, sources("c")):
        if broken and not TIDY_LINE.search(text):
            found[(path, 0, "")] = f"{path}: {text}{broken}"
        for line in text.splitlines():
            m = TIDY_LINE.match(line)
            if not m:
                continue
            where, check = os.path.relpath(m["path"], ROOT), m["check"].split(",")[0]
            if not exceptions.cover(where, int(m["line"]), check):
                found[(where, int(m["line"]), check)] = f"{where}:{m['line']}: {m['text']} [{check}]"
    if not version:
        return ["clang-tidy does not run"]
    return [found[k] for k in sorted(found)] + exceptions.unused(False)


def check_cppcheck(args):
    done = run("cppcheck", "-q", f"-j{args.jobs}", "--enable=warning,performance,portability", "--inline-suppr", "--std=c11",
               "--library=posix,gnu", "--template={file}:{line}: {message} [{id}]", "-I.",
               "-D_GNU_SOURCE", '-DTRIPSWITCH_VERSION="0"', "--suppress=missingIncludeSystem",
               "--suppress=varFuncNullUB",  # NULL is a pointer in C on Linux
               "--suppress=duplicateAssignExpression",  # two lengths may begin alike
               "--suppress=compareBoolExpressionWithInt",  # comparing truth values is meant
               "--suppress=readdirCalled",  # glibc's readdir is safe on a stream of one's own
               *ROOMS)
    exceptions, out = Exceptions(), []
    for line in (done.stdout + done.stderr).splitlines():
        m = re.match(r"^([^:]+):(\d+): .* \[(\w+)\]$", line)
        if not (m and exceptions.cover(m[1], int(m[2]), f"cppcheck:{m[3]}")):
            out.append(line)
    return out + exceptions.unused(True)


def check_scripts(_args):
    scripts = sorted(glob.glob("tools/*.sh")) + [".ci/run"]
    scripts += [p for p in sorted(glob.glob("docker/**/*.sh", recursive=True))]
    done = run("shellcheck", *scripts)
    out = [done.stdout + done.stderr] if done.returncode else []
    for path in sorted(glob.glob("tools/*.py") + glob.glob("docker/**/*.py", recursive=True) + glob.glob("tests/**/*.py", recursive=True)):
        with open(path, encoding="utf-8") as f:
            try:
                compile(f.read(), path, "exec")
            except SyntaxError as e:
                out.append(f"{path}:{e.lineno}: {e.msg}")
    return out


CHECKS = {"arrows": check_arrows, "pure": check_pure, "headers": check_headers, "clang": check_clang,
          "tidy": check_tidy, "cppcheck": check_cppcheck, "scripts": check_scripts}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=", ".join(CHECKS))
    args = parser.parse_args()
    unknown = set(args.checks) - set(CHECKS)
    if unknown:
        parser.error(f"no such check: {', '.join(sorted(unknown))}")
    os.chdir(ROOT)
    failed = []
    for name in args.checks or CHECKS:
        began = time.monotonic()
        findings = CHECKS[name](args)
        state = f"{len(findings)} found" if findings else "ok"
        print(f"lint: {name + ' ':.<20} {state:>10} {time.monotonic() - began:6.1f} s", flush=True)
        for finding in findings:
            print("  " + finding.replace("\n", "\n  "), flush=True)
        if findings:
            failed.append(name)
    if failed:
        print(f"lint: FAILED: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
