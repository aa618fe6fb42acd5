"""Reading /metrics, and the arithmetic of DESIGN promise 3 on it."""

import re

PREFIX = "tripswitch_proxy_"

# Every outcome of DESIGN "Judging an attempt"; client_abort is a failure or neutral.
JUDGED = ("success", "status", "connect", "dns", "tls", "timeout", "reset", "protocol", "no_response", "slow",
          "header", "body")
NEUTRAL = ("local", "stale", "neutral")
DROP_REASONS = ("buffer_full", "rejected", "expired", "auth", "shutdown", "ring_full")

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)')


class Metrics(dict):
    """{(name, ((label, value), ...)): number}, names without the product's prefix."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        self.types = {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                self.types[name] = kind
            if not line or line.startswith("#"):
                continue
            m = _LINE.fullmatch(line)
            if not m:
                raise AssertionError(f"not a metric line: {line!r}")
            labels = tuple(sorted((k, _unescape(v)) for k, v in _LABEL.findall(m[2] or "")))
            name = m[1].removeprefix(PREFIX)
            if (name, labels) in self:
                raise AssertionError(f"a series twice: {line!r}")
            self[name, labels] = float(m[3])

    def names(self):
        return {name for name, _ in self}

    def sum(self, name, **labels):
        """The sum over every series of that name that carries these labels; 0 if there is none."""
        want = set(labels.items())
        return sum(v for (n, ls), v in self.items() if n == name and want <= set(ls))

    def one(self, name, **labels):
        """Exactly one series must fit."""
        want = set(labels.items())
        found = [v for (n, ls), v in self.items() if n == name and want <= set(ls)]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} series for {name} {labels}")
        return found[0]

    def by(self, name, label):
        """{label value: sum}"""
        out = {}
        for (n, ls), v in self.items():
            if n == name and label in dict(ls):
                out[dict(ls)[label]] = out.get(dict(ls)[label], 0) + v
        return out


def _unescape(text):
    return re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), text)


class Books:
    """Both equations of promise 3.  `routes` maps the routes that have a router to their
    number of metrics; `neutral_aborts`: how many client_abort attempts made no sample, or
    None when the test cannot know.  What is judged and, by mode, bypass or a limit, makes no
    sample is counted as skipped."""

    def __init__(self, metrics, routes, neutral_aborts=None):
        self.metrics = m = metrics
        outcomes = m.by("attempts_total", "outcome")
        self.started = m.sum("attempts_started_total")
        self.ended = sum(outcomes.values())
        self.in_flight = m.sum("attempts_in_flight")
        unknown = set(outcomes) - set(JUDGED) - set(NEUTRAL) - {"client_abort"}
        if unknown:
            raise AssertionError(f"outcomes that DESIGN does not know: {unknown}")
        judged = aborts = 0
        for route, metric_count in routes.items():
            judged += metric_count * sum(m.sum("attempts_total", route=route, outcome=o) for o in JUDGED)
            aborts += metric_count * m.sum("attempts_total", route=route, outcome="client_abort")
        if neutral_aborts is None:
            self.want_low, self.want_high = judged, judged + aborts
        else:
            self.want_low = self.want_high = judged + aborts - neutral_aborts
        self.dropped = m.by("samples_dropped_total", "reason")
        self.sent = m.sum("samples_sent_total")
        self.buffered = m.sum("samples_buffered")
        self.batch = m.sum("samples_in_flight")
        self.skipped = m.sum("samples_skipped_total")
        self.recorded = m.sum("samples_recorded_total")
        self.accounted = self.sent + sum(self.dropped.values()) + self.buffered + self.batch + self.skipped

    def faults(self):
        out = []
        if self.started != self.ended + self.in_flight:
            out.append(f"attempts started {self.started:g} != ended {self.ended:g} + in flight {self.in_flight:g}")
        if not self.want_low <= self.accounted <= self.want_high:
            out.append(f"samples of judged attempts {self.want_low:g}..{self.want_high:g} != {self.accounted:g} accounted")
        after_ring = self.accounted - self.skipped - self.dropped.get("ring_full", 0)
        if self.recorded != after_ring:
            out.append(f"samples recorded {self.recorded:g} != {after_ring:g} sent, dropped, buffered and in flight")
        unknown = set(self.dropped) - set(DROP_REASONS)
        if unknown:
            out.append(f"unknown reasons of drops: {unknown}")
        return out

    def __str__(self):
        return (f"started {self.started:g}, ended {self.ended:g}, in flight {self.in_flight:g}; "
                f"outcomes {self.metrics.by('attempts_total', 'outcome')}; "
                f"sent {self.sent:g}, dropped {self.dropped}, buffered {self.buffered:g}, "
                f"in a batch {self.batch:g}, skipped {self.skipped:g}, recorded {self.recorded:g}")
