"""Runs the libFuzzer programs one after the other, or sums up the coverage of their corpora.

What a run reaches is kept and where it left off the next one goes on; the corpus is
merged with the seeds at each start.  Ends with a table, and 1 if anything was found.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
SEEDS = HERE / "seeds"
MAX_LEN = {"config_file": 4096, "config_text": 4096, "sse": 4096, "ingest": 4096, "script": 2048}


def dictionary(target):
    path = HERE / "dictionaries" / f"{target}.dict"
    return [f"-dict={path}"] if path.exists() else []


def counts(log):
    """Executions, edges and features as libFuzzer tells them."""
    ran = re.findall(r"stat::number_of_executed_units:\s*(\d+)", log) or re.findall(r"^#(\d+)", log, re.M)
    cov = re.findall(r"cov: (\d+)", log)
    features = re.findall(r"ft: (\d+)", log)
    last = lambda found: int(found[-1]) if found else 0
    return last(ran), last(cov), last(features)


def fuzz_one(programs, target, seconds):
    corpus, found = programs / "corpus" / target, programs / "found"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    command = [str(programs / f"fuzz_{target}"), str(corpus), str(SEEDS / target), f"-max_total_time={seconds}",
               f"-max_len={MAX_LEN.get(target, 1024)}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
               f"-artifact_prefix={found}/{target}-", *dictionary(target)]
    done = subprocess.run(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace",
                          check=False, env={**os.environ, "ASAN_OPTIONS": "allocator_may_return_null=1"})
    (programs / f"{target}.log").write_text(done.stderr)
    new = sorted(set(found.iterdir()) - before)
    if done.returncode and not new:
        print(done.stderr[-3000:], file=sys.stderr)
    executions, edges, features = counts(done.stderr)
    return {"target": target, "executions": executions, "edges": edges, "features": features,
            "corpus": len(list(corpus.iterdir())), "found": [str(p) for p in new], "status": done.returncode}


def fuzz(programs, targets, seconds):
    rows = []
    print(f"{'target':16} {'executions':>12} {'per second':>10} {'edges':>7} {'features':>8} {'corpus':>7}  found")
    for target in targets:
        row = fuzz_one(programs, target, seconds)
        rows.append(row)
        found = ", ".join(row["found"]) or ("failed, see the log" if row["status"] else "nothing")
        print(f"{target:16} {row['executions']:12} {row['executions'] // max(seconds, 1):10} {row['edges']:7} "
              f"{row['features']:8} {row['corpus']:7}  {found}", flush=True)
    (programs / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    return any(row["status"] for row in rows)


def coverage(build, programs, targets):
    """Lines of each file that seeds and corpora reach, each target by itself and in its own process."""
    profiles = []
    for target in targets:
        corpora = [SEEDS] + ([programs / "corpus"] if (programs / "corpus" / target).is_dir() else [])
        for number, root in enumerate(corpora):
            pattern = build / f"{target}-{number}-%p.profraw"
            subprocess.run([str(build / "replay"), str(root), target], check=False, stdout=subprocess.DEVNULL,
                           env={**os.environ, "LLVM_PROFILE_FILE": str(pattern)})
            profiles += [str(p) for p in build.glob(f"{target}-{number}-*.profraw")]
    data = build / "all.profdata"
    subprocess.run(["llvm-profdata-14", "merge", "-sparse", "-o", str(data), *profiles], check=True)
    for profile in profiles:
        os.unlink(profile)
    report = subprocess.run(["llvm-cov-14", "export", "-summary-only", f"-instr-profile={data}", str(build / "replay")],
                            check=True, capture_output=True, text=True).stdout
    print(f"{'file':28} {'lines':>14} {'branches':>16}")
    for entry in sorted(json.loads(report)["data"][0]["files"], key=lambda e: e["filename"]):
        name, lines, branches = entry["filename"], entry["summary"]["lines"], entry["summary"]["branches"]
        if lines["covered"] and "tests/" not in name:
            print(f"{os.path.relpath(name):28} {lines['covered']:5}/{lines['count']:<5}{lines['percent']:4.0f}% "
                  f"{branches['covered']:6}/{branches['count']:<5}{branches['percent']:4.0f}%")
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--programs", type=pathlib.Path, default=pathlib.Path("build/fuzz"))
    parser.add_argument("--coverage", type=pathlib.Path)
    parser.add_argument("targets", nargs="+")
    args = parser.parse_args()
    if args.coverage:
        return coverage(args.coverage, args.programs, args.targets)
    return fuzz(args.programs, args.targets, args.seconds)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
