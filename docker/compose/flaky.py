#!/usr/bin/env python3
"""A small HTTP server that can be broken: the upstream of the demo and of the compose file.

    flaky.py [--listen 127.0.0.1:8080] [--cycle HEALTHY,BROKEN]

GET /        200, or 500 while broken
POST /break, POST /mend      change that; with --cycle it also changes by itself, after so
                             many seconds each
GET /seen    how many requests for / have arrived, and how it is
"""

import argparse
import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Health:
    def __init__(self):
        self.lock = threading.Lock()
        self.broken = False
        self.seen = 0

    def take(self):
        """One more request; whether it shall fail."""
        with self.lock:
            self.seen += 1
            return self.broken

    def as_json(self):
        with self.lock:
            return {"seen": self.seen, "broken": self.broken}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    health = Health()

    def answer(self, status, body, kind="text/plain"):
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/seen":
            self.answer(200, json.dumps(self.health.as_json()) + "\n", "application/json")
        elif self.health.take():
            self.answer(500, "broken\n")
        else:
            self.answer(200, "hello\n")

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path in ("/break", "/mend"):
            self.health.broken = self.path == "/break"
            self.answer(200, self.path[1:] + "\n")
        else:
            self.answer(404, "no such thing\n")

    def log_message(self, format, *args):
        pass


def cycle(health, healthy_s, broken_s, stopped):
    while not stopped.wait(broken_s if health.broken else healthy_s):
        health.broken = not health.broken
        print("broken" if health.broken else "healthy", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1:8080")
    parser.add_argument("--cycle", metavar="HEALTHY,BROKEN", help="seconds")
    args = parser.parse_args()
    host, _, port = args.listen.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Handler)
    server.daemon_threads = True
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if args.cycle:
        healthy_s, broken_s = (float(s) for s in args.cycle.split(","))
        threading.Thread(target=cycle, args=(Handler.health, healthy_s, broken_s, stopped), daemon=True).start()
    print(f"listening on {host}:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
