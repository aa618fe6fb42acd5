"""Which cores, what memory, and how figures of several rounds are told."""

import os
import re
import resource
import statistics


class Cores:
    """The program under test has the first core, load and origin the last ones; from four
    cores on the second is kept for a second worker."""

    def __init__(self):
        cpus = sorted(os.sched_getaffinity(0))
        self.count = len(cpus)
        self.test = str(cpus[0])
        self.roomy = self.count >= 4
        self.rest = set(cpus[2 if self.roomy else 1:]) or set(cpus)
        self.two = f"{cpus[0]},{cpus[1]}" if self.count > 1 else self.test


CORES = Cores()


def raise_descriptors(wanted=65536):
    """Both ends of every connection; returns how many connections a proxy has room for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError):  # only root may raise the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1000) // 2


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            return [int(p) for p in f.read().split()]
    except OSError:
        return []


def pin(pids, cores):
    """Every thread of these processes to the cores; threads to come inherit it."""
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), {int(c) for c in cores.split(",")})


def listeners(port):
    """Sockets, by inode, that take connections to this port of 127.0.0.1."""
    here, found = {"0100007F", "00000000", "0" * 32}, set()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{table}", encoding="ascii") as f:
                rows = [line.split() for line in f.readlines()[1:]]
        except OSError:  # no IPv6
            continue
        for row in rows:
            host, _, number = row[1].partition(":")
            if row[3] == "0A" and host in here and int(number, 16) == port:
                found.add(row[9])
    return found


def strangers(port, pids):
    """Those of them that none of these processes has open: somebody else would answer."""
    own = set()
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:  # has ended
            continue
        for name in names:
            try:
                own.add(os.readlink(f"/proc/{pid}/fd/{name}").removeprefix("socket:[").removesuffix("]"))
            except OSError:
                pass
    return listeners(port) - own


def memory_bytes(pid):
    """Proportional set size: what this process would give back, shared pages by share."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return int(re.search(r"^Pss:\s+(\d+) kB", f.read(), re.M)[1]) * 1024


def resident_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return int(re.search(r"^VmRSS:\s+(\d+) kB", f.read(), re.M)[1]) * 1024


def ratios(values, base):
    """Round by round; where either is missing or nought, nothing."""
    return [v / b for v, b in zip(values, base) if v and b]


def spread(values):
    """(median, least, most), or None"""
    values = [v for v in values if v is not None]
    return (statistics.median(values), min(values), max(values)) if values else None
