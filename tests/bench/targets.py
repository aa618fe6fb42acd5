"""The targets of the product, held against a run.  Told, not enforced: machines are noisy."""

from cases import two_workers
from measure import ratios, spread
from peers import BASE


def ours_against(peer, key):
    """Median of ours/peer, round by round."""
    def value(result):
        mine, theirs = result.values(BASE, key), result.values(peer, key)
        found = spread(ratios(mine, theirs))
        return found and found[0]

    return value, (BASE, peer)


def ours(key):
    def value(result):
        figures, _ = result.summary(BASE, key)
        return figures and figures[0]

    return value, (BASE,)


def worst(key):
    return lambda result: max((v for v in result.values(BASE, key) if v is not None), default=None), (BASE,)


# case, what, (value, whose figures it rests on), "at most" or "at least", limit
TARGETS = [
    ("kv64", "CPU per request, of nginx's", ours_against("nginx", "cpu_us"), "at most", 0.85),
    ("kv64", "requests/s, of nginx's", ours_against("nginx", "rps"), "at least", 1.15),
    ("p99half", "p99 at half load, of nginx's", ours_against("nginx", "p99_us"), "at most", 1.0),
    ("refuse", "CPU without its log line, of forwarding", ours_against("ts-forwards", "cpu_us"), "at most", 0.5),
    ("tunnel_throughput", "MB/s, of HAProxy's with splice", ours_against("haproxy", "mb_s"), "at least", 1.0),
    ("idle15000", "bytes for an idle connection", ours("bytes_each"), "at most", 1536),
    ("workers2", "two workers, of one", (lambda r: (two_workers(r) or [None])[0], (BASE, "ts-2workers")), "at least", 1.8),
    ("samples", "samples sent, of those made", ours("sent_share"), "at least", 0.99),
    ("samples", "samples dropped in the worst round", worst("dropped"), "at most", 0),
    ("samples", "sync thread, % of a core", ours("sync_pct"), "at most", 5),
    ("samples_excess", "worker CPU, of that without samples", ours_against("ts-nosamples", "worker_us"), "at most", 1.03),
    ("start", "resident memory, MB", ours("resident_mb"), "at most", 16.8),
    ("start", "ready, ms", ours("ready_ms"), "at most", 100),
]


def judge(result, value, whose, sense, limit):
    """(figure or None, "met", "MISSED" or why there is no verdict)"""
    got = value(result)
    missing = [p for p in whose if p not in result.rounds]
    unsound = [p for p in whose if False in result.values(p, "sound")]
    if missing or got is None:
        return None, "not measured" + (f": no {missing[0]}" if missing else "")
    if unsound:
        return got, f"not measured: see the note on {unsound[0]}"
    return got, "met" if (got <= limit if sense == "at most" else got >= limit) else "MISSED"


def judged(results):
    """The targets whose cases were run, as dicts."""
    by_name, out = {r.case.name: r for r in results}, []
    for case, what, (value, whose), sense, limit in TARGETS:
        if case in by_name:
            got, verdict = judge(by_name[case], value, whose, sense, limit)
            out.append({"case": case, "what": what, "value": got, "sense": sense, "limit": limit, "verdict": verdict})
    return out


def verdicts(results):
    """The same as lines."""
    out = [f"{t['case']:<18}{t['what']:<40}" + ("      -" if t["value"] is None else f"{t['value']:>7.2f}")
           + f" {t['sense']} {t['limit']:g} {t['verdict']}" for t in judged(results)]
    return "\n".join(["Targets", *out, ""]) if out else ""
