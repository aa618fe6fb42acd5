#!/usr/bin/env python3
"""The system calls that the proxy makes, for docs/reliability.md.

    tools/syscalls.py [--seconds S]

Runs the soak (tests/integration/soak.py) against the release binary under strace, and then a
start with the embedded control plane, its state file and the admin listener, and prints the names between the marks that the document
has.  Calls before main(), which the dynamic loader makes, are among them.
"""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARY = os.path.join(ROOT, "build", "tripswitch-proxy")
NEVER_RETURN = {"exit", "exit_group", "restart_syscall"}  # strace -c leaves them out
STRACE = ["strace", "-f", "-c", "-U", "name,calls"]


def names(path):
    with open(path, encoding="utf-8") as f:
        return set(re.findall(r"^ *(\w+) +\d+$", f.read(), re.M)) - {"total"}


def soak(seconds, path):
    command = [sys.executable, os.path.join(ROOT, "tests/integration/soak.py"), "--seconds", str(seconds), "--clients", "4", "--quiet",
               "--bin", BINARY, "--prefix", " ".join([*STRACE, "-D", "-o", path])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def embedded(where, path):
    """With an access log in a file and the control plane inside; an admin's question; a state file that is put aside, then written."""
    log, states, config = (os.path.join(where, name) for name in ("access.log", "states", "config.json"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        admin = probe.getsockname()[1]
    with open(states, "w", encoding="utf-8") as f:
        f.write("damaged")
    with open(config, "w", encoding="utf-8") as f:
        json.dump({"embedded": {"state_file": states}}, f)
    flags = ["--config", config, "--listen", "127.0.0.1:0", "--telemetry-listen", "off", "--admin-listen", f"127.0.0.1:{admin}",
             "--access-log-path", log, "--drain-min", "0s", "--drain-idle", "0s"]
    env = {k: v for k, v in os.environ.items() if not k.startswith("TRIPSWITCH_")}
    with subprocess.Popen([*STRACE, "-D", "-o", path, BINARY, *flags], env=env, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "ready" in line:
                break
        with socket.create_connection(("127.0.0.1", admin), 5) as operator:
            for method, target in (("GET", "/explain?url=http://a/"), ("POST", "/reload")):
                operator.sendall(f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{admin}\r\nX-Tripswitch-Admin: 1\r\n"
                                 "Content-Length: 0\r\n\r\n".encode())
                operator.recv(65536)
        process.send_signal(signal.SIGHUP)
        time.sleep(1)  # the reload; nothing tells that it is over
        process.send_signal(signal.SIGTERM)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    found = set()
    with tempfile.TemporaryDirectory(prefix="tsp-syscalls-") as where:
        for number, run in enumerate((lambda path: soak(args.seconds, path), lambda path: embedded(where, path))):
            path = os.path.join(where, str(number))
            run(path)
            end = time.monotonic() + 10
            while not (os.path.exists(path) and "total" in open(path, encoding="utf-8").read()):
                if time.monotonic() > end:
                    sys.exit("strace wrote nothing")
                time.sleep(0.05)
            found |= names(path)
    print("<!-- system calls -->")
    print(textwrap.fill(", ".join(f"`{n}`" for n in sorted(found | NEVER_RETURN)), 88))
    print("<!-- -->")


if __name__ == "__main__":
    main()
