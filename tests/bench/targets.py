"""The targets of the product, held against a run.  Told, not enforced: machines are noisy."""

from cases import two_workers
from peers import BASE


def ours_against(peer, key):
    """Median of ours/peer, round by round."""
    def value(result):
        mine, theirs = result.values(BASE, key), result.values(peer, key)
        found = sorted(a / b for a, b in zip(mine, theirs) if a and b)
        return found[len(found) // 2] if found else None

    return value


def ours(key):
    def value(result):
        figures, _ = result.summary(BASE, key)
        return figures[0] if figures else None

    return value


# case, what, value, "at most" or "at least", limit
TARGETS = [
    ("kv64", "CPU per request, of nginx's", ours_against("nginx", "cpu_us"), "at most", 0.85),
    ("kv64", "requests/s, of nginx's", ours_against("nginx", "rps"), "at least", 1.15),
    ("p99half", "p99 at half load, of nginx's", ours_against("nginx", "p99_us"), "at most", 1.0),
    ("refuse", "CPU of a refusal, of forwarding", ours_against("ts-forwards", "cpu_us"), "at most", 0.5),
    ("tunnel_throughput", "MB/s, of HAProxy's with splice", ours_against("haproxy", "mb_s"), "at least", 1.0),
    ("idle15000", "bytes for an idle connection", ours("bytes_each"), "at most", 1536),
    ("workers2", "two workers, of one", two_workers, "at least", 1.8),
    ("samples", "samples sent, of those made", ours("sent_share"), "at least", 0.99),
    ("samples", "samples dropped a second", ours("dropped_s"), "at most", 0),
    ("samples", "sync thread, % of a core", ours("sync_pct"), "at most", 5),
    ("samples_excess", "worker CPU, of that without samples", ours_against("ts-nosamples", "worker_us"), "at most", None),
    ("start", "resident memory, MB", ours("resident_mb"), "at most", 16.8),
    ("start", "ready, ms", ours("ready_ms"), "at most", 100),
]


def verdicts(results):
    """Lines for the targets whose cases were run."""
    by_name, out = {r.case.name: r for r in results}, []
    overloaded = {r.case.name for r in results if False in r.values(BASE, "kept")}
    for case, what, value, sense, limit in TARGETS:
        got = value(by_name[case]) if case in by_name else None
        if got is None:
            continue
        if case in overloaded:
            verdict, wanted = "", "(overloaded)"
        elif limit is None:
            verdict, wanted = "", "near 1"
        else:
            met = got <= limit if sense == "at most" else got >= limit
            verdict, wanted = "met" if met else "MISSED", f"{sense} {limit:g}"
        out.append(f"{case:<18}{what:<34}{got:>7.2f} {wanted} {verdict}".rstrip())
    return "\n".join(["Targets", *out, ""]) if out else ""
