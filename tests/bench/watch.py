"""What ours tells of its samples while it works, and how fast each figure grows."""

import contextlib
import random
import threading
import time

STEP_S = 0.02, 0.08  # uneven: posts are even, and steps like theirs would see always the same of them
SETTLE_S = 1.0  # until batches have grown to what the rate asks for


def slope(points):
    """Of the line through (time, value) with the least squares; None of fewer than two times."""
    n = len(points)
    if n < 2:
        return None
    mean_t, mean_v = sum(t for t, _ in points) / n, sum(v for _, v in points) / n
    spread = sum((t - mean_t) ** 2 for t, _ in points)
    return sum((t - mean_t) * (v - mean_v) for t, v in points) / spread if spread else None


def rates(rows):
    """rows: (time, sent, dropped, waiting), in order.  Samples leave by a thousand: lines through
    many looks tell the rates better than the first and the last one."""
    rows = [r for r in rows if r[0] - rows[0][0] >= SETTLE_S]
    sent, dropped, grown = (slope([(r[0], r[i]) for r in rows]) for i in (1, 2, 3))
    if sent is None:
        return {}
    made = sent + dropped + grown
    return {"sent_s": sent, "dropped_s": dropped, "grown_s": grown, "sent_share": sent / made if made > 0 else None}


def dropped(rows):
    """Over the whole time, its first second too; rates() begins later."""
    return rows[-1][2] - rows[0][2] if rows else None


def agreed(ours, theirs, timeout=10.0):
    """Whether what we call sent and what they have accepted become the same number: posts
    under way end, and what waits is sent meanwhile.  (ours, theirs) when they do not."""
    end = time.monotonic() + timeout
    while True:
        sent, accepted = ours(), theirs()
        if sent == accepted:
            return None
        if time.monotonic() > end:
            return sent, accepted
        time.sleep(0.05)


class SampleWatch:
    """Used in a `with`, around the load: its first look is before it and its last one behind it."""

    def __init__(self, peer):
        self.peer, self.rows, self.ended = peer, [], threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def look(self):
        m = self.peer.metrics()
        self.rows.append((time.monotonic(), m.sum("samples_sent_total"), m.sum("samples_dropped_total"),
                          m.sum("samples_buffered") + m.sum("samples_in_flight")))

    def watch(self):
        while not self.ended.wait(random.uniform(*STEP_S)):
            with contextlib.suppress(OSError):  # the case says what became of the peer
                self.look()

    def __enter__(self):
        self.look()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join(15)
        with contextlib.suppress(OSError):
            self.look()
