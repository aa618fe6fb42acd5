"""What is measured, by name.  A case runs one peer once and returns {measure: value}."""

from peers import ROUTES, USUAL, route_host

# key: (heading, unit, format); for all of them but the rates less is better
MEASURES = {
    "rps": ("requests/s", "", "{:.0f}"),
    "cpu_us": ("CPU", "us/req", "{:.2f}"),
    "p50_us": ("p50", "us", "{:.0f}"),
    "p99_us": ("p99", "us", "{:.0f}"),
    "memory_mb": ("memory", "MB", "{:.1f}"),
    "mb_s": ("MB/s", "", "{:.0f}"),
    "cpu_gb": ("CPU", "s/GB", "{:.3f}"),
    "bytes_each": ("memory", "B/conn", "{:.0f}"),
}
HTTP = ("rps", "cpu_us", "p50_us", "p99_us", "memory_mb")
BODY = ("mb_s", "cpu_gb", "p50_us", "p99_us", "memory_mb")


class Case:
    def __init__(self, name, title, run, measures=HTTP, peers=None, flavour="plain", without=()):
        self.name, self.title, self.run, self.measures, self.flavour = name, title, run, measures, flavour
        self.peers = [p for p in peers or USUAL if p not in without]


def judged(peer, got, wanted):
    """Notes on what should not be: errors, answers of another class than those wanted."""
    odd = sum(got[f"{n}xx"] for n in range(1, 6) if n not in wanted)
    faults = [f"{got['errors']} errors"] if got["errors"] else []
    faults += [f"{odd} unexpected answers"] if odd else []
    return {"note": f"{peer.name}: " + ", ".join(faults)} if faults else {}


def per_request(peer, got, wanted=(2,)):
    ops = got["ops"] or None
    return {
        "rps": ops and ops / got["seconds"],
        "cpu_us": got["cpu_s"] * 1e6 / ops if ops and peer.pids() else None,
        "p50_us": ops and got["p50"], "p99_us": ops and got["p99"],
        "memory_mb": peer.memory() / 1e6 if peer.pids() else None,
        "threads": got["threads"], "seconds": got["seconds"], "ops": got["ops"],
        **judged(peer, got, wanted),
    }


def per_byte(peer, got):
    out = per_request(peer, got)
    moved = got["bytes"] / 1e9
    return {**out, "mb_s": moved * 1e3 / got["seconds"],
            "cpu_gb": got["cpu_s"] / moved if moved and peer.pids() else None}


def http(connections, path="/1k", wanted=(2,), result=per_request, **request):
    def run(bench, peer):
        options = ["--close"] if request.get("close") else []
        got = bench.load.run(peer, [peer.request(path, **request)], "--connections", connections, *options, **bench.window)
        return result(peer, got) if result is per_byte else result(peer, got, wanted)

    return run


CASES = [
    Case("kv1", "1 KB, keep-alive, 1 connection", http(1)),
    Case("kv64", "1 KB, keep-alive, 64 connections", http(64)),
    Case("kv512", "1 KB, keep-alive, 512 connections", http(512)),
]
NAMES = [c.name for c in CASES]
