"""The table: 80 columns, two lines for each peer, figures above and ratios to ours below."""

from cases import MEASURES
from measure import ratios, spread
from peers import BASE

WIDTH, CELL, FIRST = 80, 15, 20  # the first cell shares its room with the name


def short(value):
    """Three digits that matter, in at most four characters where possible."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class CaseResult:
    def __init__(self, case):
        self.case = case
        self.rounds = {}  # peer: a list, one dict a round (None: it failed)
        self.absent = {}  # peer: why
        self.failed = []  # those of them that should have taken part
        self.notes = []

    def add(self, peer, values):
        self.rounds.setdefault(peer, []).append(values)
        if values and values.get("note") and values["note"] not in self.notes:
            self.notes.append(values["note"])

    def fail(self, peer, why):
        self.absent[peer] = why
        self.failed.append(peer)

    def values(self, peer, key):
        return [v.get(key) if v else None for v in self.rounds.get(peer, [])]

    def summary(self, peer, key):
        """(spread of the values, spread of the ratios to ours)"""
        values = self.values(peer, key)
        return spread(values), spread(ratios(values, self.values(BASE, key)))

    def measured(self, peer):
        """Every figure there is, also those that the table has no column for."""
        found = {k for v in self.rounds[peer] if v for k in v if isinstance(v[k], (int, float)) and not isinstance(v[k], bool)}
        return [*self.case.measures, *sorted(found - set(self.case.measures))]

    def peers(self):
        return list(self.rounds)


def heading(case):
    cells = []
    for i, key in enumerate(case.measures):
        title, unit, _ = MEASURES[key]
        cells.append(f"{title}{' ' + unit if unit else ''}".rjust(FIRST if i == 0 else CELL))
    return "".join(cells)


def lines_of(result, peer):
    above, below = [], []
    for i, key in enumerate(result.case.measures):
        width = FIRST - len(peer) if i == 0 else CELL
        values, against = result.summary(peer, key)
        above.append((MEASURES[key][2].format(values[0]) if values else "-").rjust(width))
        text = f"{short(against[0])} {short(against[1])}-{short(against[2])}" if against else ""
        below.append(text.rjust(FIRST if i == 0 else CELL))
    yield peer + "".join(above)
    if peer != BASE and "".join(below).strip():
        yield "".join(below)


def table(results, about):
    """The whole report as text."""
    out = [about, f"Below each figure its ratio to {BASE}'s: median, least-most over the rounds.", ""]
    for result in results:
        out.append(f"{result.case.name}: {result.case.title}")
        out.append(heading(result.case))
        for peer in result.peers():
            out += lines_of(result, peer)
        out += [f"{peer} ABSENT: {why}"[:WIDTH] for peer, why in result.absent.items()]
        out += [f"note: {n}"[:WIDTH] for n in result.notes]
        out.append("")
    return "\n".join(line.rstrip() for line in out)


def as_json(results, about, targets):
    cases = {}
    for r in results:
        peers = {}
        for peer in r.peers():
            peers[peer] = {}
            for key in r.measured(peer):
                values, against = r.summary(peer, key)
                peers[peer][key] = {"rounds": r.values(peer, key), "median": values and values[0],
                                    "ratio": against and dict(zip(("median", "min", "max"), against))}
        cases[r.case.name] = {"title": r.case.title, "peers": peers, "absent": r.absent, "notes": r.notes}
    return {"about": about, "base": BASE, "cases": cases, "targets": targets}
