#!/usr/bin/env python3
"""Hold a binary against the hardening it was built for; speaks TAP.

    tools/check_hardening.py BINARY
"""

import re
import subprocess
import sys


def readelf(*args):
    return subprocess.run(["readelf", "-W", *args], capture_output=True, text=True, check=True).stdout


def segment(headers, name):
    """The flags of a program header such as GNU_STACK, or None."""
    found = re.search(rf"^\s*{name}\s+(?:0x[0-9a-f]+\s+){{5}}([RWE ]{{3}})", headers, re.M)
    return found and found[1].replace(" ", "")


def checks(binary):
    """[(what must be so, whether it is)]"""
    headers, dynamic = readelf("-h", "-l", binary), readelf("-d", binary)
    imports = set(re.findall(r"\bUND ([\w.]+)", readelf("--dyn-syms", binary)))
    loads = re.findall(r"^\s*LOAD\s+(?:0x[0-9a-f]+\s+){5}([RWE ]{3})", headers, re.M)
    return [
        ("it is position-independent", "Type:" in headers and re.search(r"Type:\s+DYN", headers) and "PIE" in dynamic),
        ("relocations become read-only", segment(headers, "GNU_RELRO") == "R"),
        ("all symbols are bound at start", "BIND_NOW" in dynamic or re.search(r"FLAGS_1.*\bNOW\b", dynamic)),
        ("the stack is not executable", segment(headers, "GNU_STACK") == "RW"),
        ("no segment is writable and executable", loads and not any("W" in f and "E" in f for f in loads)),
        ("the stack is protected", "__stack_chk_fail" in imports),
        ("string functions are fortified", any(re.fullmatch(r"__\w+_chk", i) and "stack_chk" not in i for i in imports)),
        ("no search path for libraries is built in", not re.search(r"\((RPATH|RUNPATH)\)", dynamic)),
    ]


def main():
    results = checks(sys.argv[1])
    print(f"1..{len(results)}")
    for n, (what, holds) in enumerate(results, 1):
        print(f"{'ok' if holds else 'not ok'} {n} - {what}")
    return 0 if all(holds for _, holds in results) else 1


if __name__ == "__main__":
    sys.exit(main())
