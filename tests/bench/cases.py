"""What is measured, by name.  A case runs one peer once and returns {measure: value}."""

import statistics

from measure import CORES, resident_bytes
from peers import BASE, ROUTES, USUAL, route_host
from watch import SampleWatch, agreed, dropped, rates

# key: (heading, unit, format); less is better, except of the rates
MEASURES = {
    "rps": ("requests/s", "", "{:.0f}"),
    "cpu_us": ("CPU", "us/req", "{:.2f}"),
    "p50_us": ("p50", "us", "{:.0f}"),
    "p99_us": ("p99", "us", "{:.0f}"),
    "memory_mb": ("memory", "MB", "{:.1f}"),
    "resident_mb": ("resident", "MB", "{:.1f}"),
    "mb_s": ("MB/s", "", "{:.0f}"),
    "cpu_gb": ("CPU", "s/GB", "{:.3f}"),
    "bytes_each": ("memory", "B/conn", "{:.0f}"),
    "ready_ms": ("ready", "ms", "{:.1f}"),
    "sent_s": ("sent/s", "", "{:.0f}"),
    "unsent_s": ("unsent/s", "", "{:.0f}"),
    "sync_pct": ("sync", "% of core", "{:.2f}"),
    "worker_us": ("worker", "us/req", "{:.2f}"),
}
HTTP = ("rps", "cpu_us", "p50_us", "p99_us", "memory_mb")
BODY = ("mb_s", "cpu_gb", "p50_us", "p99_us", "memory_mb")
SAMPLES = ("rps", "worker_us", "sync_pct", "sent_s", "unsent_s")
BODIES = {"/1k": 1024, "/1m": 1 << 20, "/100m": 100 << 20, "/chunked": 64 * 1024, "/post": 1024}  # of origin.c
ROOM = 2000  # connections that a peer must be ready for
HOSTS = 1024  # that are asked for; load.c takes no more
SAMPLES_S = 5  # many posts, or a line through them says nothing


class Case:
    def __init__(self, name, title, run, measures=HTTP, also=(), flavour="plain", without=None, conclude=None,
                 room=ROOM):
        self.name, self.title, self.run, self.measures, self.flavour = name, title, run, measures, flavour
        self.peers, self.room = [BASE, *also, *(p for p in USUAL if p != BASE)], room
        self.without = without or {}  # peer: why it takes no part
        self.conclude = conclude or (lambda result: [])  # notes on the whole


def told(peer, faults, sound=True):
    """A note on what should not be; where it spoils the figures, no target is judged by them."""
    note = {"note": f"{peer.name}: " + ", ".join(faults)} if faults else {}
    return note if sound else {**note, "sound": False}


def wrong_bytes(got, body):
    """Whether the bytes that came cannot be those of the answers: less than their bodies, or twice as many.
    Each connection may have begun an answer before the window, and another one in it."""
    least, most = got["2xx"] - got["connections"], 2 * (got["ops"] + got["connections"])
    return bool(body) and not least * body <= got["bytes"] <= most * body


def faults_of(peer, got, wanted, body=BODIES["/1k"]):
    """Errors, and answers of another class than those wanted; of two wanted ones about half each.  Each
    has a body of so many bytes, with a 5xx at most that; 0: who knows."""
    odd = sum(got[f"{n}xx"] for n in range(1, 6) if n not in wanted)
    faults = [f"{got['errors']} errors"] if got["errors"] else []
    faults += [f"{odd} unexpected answers"] if odd else []
    share = got[f"{wanted[-1]}xx"] / max(1, got["ops"])
    uneven = len(wanted) > 1 and not 0.4 <= share <= 0.6
    faults += [f"{share:.0%} of the answers were {wanted[-1]}xx"] if uneven else []
    wrong = wrong_bytes(got, body)
    faults += [f"{got['bytes']} bytes of {got['ops']} answers with {body} each"] if wrong else []
    faults += [f"{got['reconnects']} connections not kept"] if got["reconnects"] else []
    faults += [f"overloaded at {got['wanted_rate']} requests/s"] if "wanted_rate" in got else []
    sound = not (odd or uneven or wrong or "wanted_rate" in got) and got["errors"] <= got["ops"] / 1000
    return told(peer, faults, sound)


def per_request(peer, got, wanted=(2,), body=BODIES["/1k"]):
    ops, measured = got["ops"] or None, bool(peer.pids())
    return {
        "rps": ops and ops / got["seconds"],
        "cpu_us": got["cpu_s"] * 1e6 / ops if ops and measured else None,
        "p50_us": ops and got["p50"], "p99_us": ops and got["p99"],
        "memory_mb": peer.memory() / 1e6 if measured else None,
        **faults_of(peer, got, wanted, body),
    }


def per_byte(peer, got, wanted=(2,), body=0):
    moved = got["bytes"] / 1e9
    return {**per_request(peer, got, wanted, body), "mb_s": moved * 1e3 / got["seconds"],
            "cpu_gb": got["cpu_s"] / moved if moved and peer.pids() else None}


def http(connections, path="/1k", wanted=None, result=per_request, **request):
    """wanted: {peer: classes of answers}; 2xx of those that it does not name."""
    def run(bench, peer):
        options = [] if peer.keeps and not request.get("close") else ["--close"]
        got = bench.load.run(peer, [peer.request(path, **request)], "--connections", connections, *options, **bench.window)
        return result(peer, got, (wanted or {}).get(peer.name, (2,)), BODIES[path])

    return run


def many_hosts(bench, peer):
    requests = [peer.request("/1k", host=route_host(i * ROUTES // HOSTS)) for i in range(HOSTS)]
    return per_request(peer, bench.load.run(peer, requests, "--connections", 64, **bench.window))


# ---- Tunnels ----

def opening(peer):
    head = peer.tunnel_head()
    return [head] if head else []


def set_up(bench, peer):
    got = bench.load.run(peer, opening(peer), "--mode", "setup", "--connections", 64, **bench.window)
    return per_request(peer, got, body=0)


def flood(bench, peer):
    got = bench.load.run(peer, opening(peer), "--mode", "flood", "--connections", 4, **bench.window)
    return per_byte(peer, got)


# ---- Connections that wait ----

def waiting(wanted, tunnels=False):
    """Memory of so many connections that have had one answer, against that at the start."""
    def run(bench, peer):
        n = min(wanted, bench.room if tunnels else bench.room * 8 // 5)  # idle ones have no other end
        if tunnels:
            held = bench.load.hold(peer, opening(peer), n, "--raw")
        else:
            held = bench.load.hold(peer, [peer.request("/1k")], n)
        note = {"note": f"{n} connections only: the descriptor limit"} if n < wanted else {}
        return {"bytes_each": (held - peer.idle_bytes) / n, "memory_mb": held / 1e6, **note}

    return run


def started(bench, peer):
    peer.fail_mode = "closed"  # or the first 2xx could be one that no breaker was asked about
    peer.stop()
    peer.start()
    return {"ready_ms": peer.ready_ms, "resident_mb": sum(resident_bytes(p) for p in peer.pids()) / 1e6}


# ---- A fixed rate ----

def at_rate(bench, peer, rate, seconds=None):
    """What load.c found; where the rate was not kept it says little, and faults_of() says so."""
    window = {**bench.window, "seconds": max(seconds or 0, bench.window["seconds"])}
    options = [] if peer.keeps else ["--close"]
    got = bench.load.run(peer, [peer.request("/1k")], "--connections", 64, "--rate", rate, *options, **window)
    return got if got["ops"] >= 0.95 * rate * got["seconds"] else {**got, "wanted_rate": rate}


def half_load(bench, peer):
    """Half of what nginx takes (or ours, without nginx): the median of three windows, found once."""
    if not bench.half_rate:
        first = bench.running.get("nginx") or bench.running[BASE]
        found = [bench.load.run(first, [first.request("/1k")], "--connections", 64, **bench.window) for _ in range(3)]
        bench.half_rate = max(1, round(statistics.median(got["ops"] / got["seconds"] for got in found) / 2))
    return per_request(peer, at_rate(bench, peer, bench.half_rate))


def samples(rate):
    """What becomes of the samples of so many requests a second, and what that costs whom."""
    def run(bench, peer):
        with SampleWatch(peer) as watch:
            got = at_rate(bench, peer, rate, SAMPLES_S)
        found, faults = rates(watch.rows), faults_of(peer, got, (2,))
        differ = agreed(lambda: peer.metrics().sum("samples_sent_total"), lambda: peer.control.accepted)
        if differ:
            faults |= told(peer, [f"says that it sent {differ[0]:.0f} samples, {differ[1]} were accepted"], sound=False)
        return {"rps": got["ops"] / got["seconds"], "worker_us": got["threads"]["worker-0"] * 1e6 / max(1, got["ops"]),
                "sync_pct": got["threads"]["sync"] * 100 / got["seconds"], **found,
                "unsent_s": found["dropped_s"] + found["grown_s"] if found else None, "dropped": dropped(watch.rows),
                **faults}

    return run


# ---- Workers ----

def workers(bench, peer):
    """Also how the work is shared: that there are two of them does not say that both work."""
    got = bench.load.run(peer, [peer.request("/1k")], "--connections", 64, **bench.window)
    each = [got["threads"].get(f"worker-{i}", 0) for i in range(peer.workers)]
    values = per_request(peer, got)
    if not sum(each):  # not ours: threads have other names
        return values
    values |= {"worker_us": sum(each) * 1e6 / max(1, got["ops"]), "least_share": min(each) / sum(each)}
    if values["least_share"] < 0.7 / peer.workers:
        values |= told(peer, [f"one worker did {values['least_share']:.0%} of the work"], sound=False)
    return values


def two_workers(result, roomy=CORES.roomy):
    """(how much more two workers do than one, how that was found), or None.  By requests/s where load
    and origin have cores of their own and could do more, as they do without a proxy; else by the
    workers' CPU time for a request."""
    rates_of = {p: result.summary(p, "rps")[0] for p in ("direct", "ts-2workers") if p in result.rounds}
    direct, two = (rates_of.get(p) for p in ("direct", "ts-2workers"))
    _, seen = result.summary("ts-2workers", "rps")
    _, cost = result.summary("ts-2workers", "worker_us")
    if roomy and seen and direct and two[0] < 0.8 * direct[0]:
        return seen[0], "by requests/s"
    return (2 / cost[0], "by CPU per request") if cost else None


def tell_two_workers(result):
    got = two_workers(result)
    return [f"two workers do {got[0]:.2f} times the work of one, {got[1]}"] if got else []


REFUSED = {name: (5,) for name in (BASE, "ts-logged", "nginx", "haproxy")}
NO_KEEP = {"tinyproxy": "keeps no connection"}
NO_MEMORY = {"direct": "has no memory of its own"}
NO_SAMPLES = {p: "sends no samples" for p in USUAL if p not in (BASE, "ts-embedded")}
NO_SAMPLES |= {"ts-embedded": "sends them to itself, without a limit"}
ONE_WORKER = {"ts-embedded": "has its control plane on a core as well", "squid": "is measured with one thread",
              "tinyproxy": "has a thread for each connection", "ats": "is measured with one thread"}
TWO = ["ts-2workers", "nginx-2", "haproxy-2"]
ONE_CORE = {p: "this machine lets us use one core only" for p in TWO if CORES.count < 2}

CASES = [
    Case("kv1", "1 KB, keep-alive, 1 connection", http(1)),
    Case("kv64", "1 KB, keep-alive, 64 connections", http(64)),
    Case("kv512", "1 KB, keep-alive, 512 connections", http(512)),
    Case("newconn", "1 KB, a new connection for each request, 64 at once", http(64, close=True)),
    Case("body1m", "1 MB down, 16 connections", http(16, "/1m", result=per_byte), BODY),
    Case("body100m", "100 MB down, 4 connections", http(4, "/100m", result=per_byte), BODY),
    Case("chunked", "64 chunks of 1 KB down, 64 connections", http(64, "/chunked")),
    Case("post", "16 KB up, 64 connections", http(64, "/post", method="POST", body=16384)),
    Case("connect_rate", "CONNECT, one byte there and back, close; 64 at once", set_up, flavour="tunnel"),
    Case("tunnel_throughput", "4 tunnels, data down", flood, ("mb_s", "cpu_gb", "memory_mb"), flavour="tunnel"),
    Case("idle15000", "15 000 idle client connections", waiting(15000), ("bytes_each", "memory_mb"),
         without={**NO_KEEP, **NO_MEMORY}, room=16000),
    Case("tunnels8000", "8 000 idle tunnels", waiting(8000, tunnels=True), ("bytes_each", "memory_mb"),
         flavour="tunnel", without=NO_MEMORY, room=9000),
    Case("refuse", "an open breaker refuses, 64 connections; nginx and HAProxy: a fixed 503", http(64, wanted=REFUSED),
         also=["ts-logged", "ts-forwards"], flavour="refuse"),
    Case("halfopen", "a half-open breaker admits half, 64 connections", http(64, wanted={BASE: (2, 5)}),
         also=["ts-forwards"], flavour="half_open"),
    Case("routes10000", "1 KB, 64 connections to 1024 of 10 000 routed hosts", many_hosts, flavour="routes"),
    Case("p99half", "1 KB at half of what nginx takes at most; from when a request was due", half_load),
    Case("workers2", "1 KB, 64 connections, two workers on two cores beside one on one", workers, also=TWO,
         without={**ONE_WORKER, **ONE_CORE}, conclude=tell_two_workers),
    Case("samples", "10 000 samples a second, which can all be sent", samples(10000), SAMPLES, also=["ts-nosamples"],
         without=NO_SAMPLES),
    Case("samples_excess", "20 000 samples a second, of which half can be sent", samples(20000), SAMPLES,
         also=["ts-nosamples"], without=NO_SAMPLES),
    Case("start", "from the start to the first answer; memory then", started, ("ready_ms", "resident_mb"),
         without=NO_MEMORY),
]
NAMES = [c.name for c in CASES]
