"""Free ports on loopback, outside the range that the kernel hands out by itself.

Two suites may run at once: each process starts at its own random place, and whoever
starts a program on such a port is prepared to try another one.
"""

import os
import random
import socket
import threading

FIRST, LAST = 10000, 32000
_lock = threading.Lock()
_rng = random.Random(os.getpid() * 7919 ^ int.from_bytes(os.urandom(4), "big"))
_next = _rng.randrange(FIRST, LAST)


def is_free(port, hosts=("127.0.0.1",)):
    for host in hosts:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as s:
            try:
                s.bind((host, port))
            except OSError:
                return False
    return True


def free_port(hosts=("127.0.0.1",)):
    global _next
    with _lock:
        for _ in range(LAST - FIRST):
            port = _next
            _next = FIRST + (port + 1 - FIRST) % (LAST - FIRST)
            if is_free(port, hosts):
                return port
    raise RuntimeError("no free port")
