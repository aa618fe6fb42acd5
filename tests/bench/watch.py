"""What ours tells of its samples while it works, and how fast each figure grows."""

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


class SampleWatch:
    """Used in a `with`, around the load."""

    def __init__(self, peer):
        self.peer, self.rows, self.ended = peer, [], threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def look(self):
        while not self.ended.wait(random.uniform(*STEP_S)):
            try:
                m = self.peer.metrics()
            except OSError:  # the case says what became of the peer
                continue
            self.rows.append((time.monotonic(), m.sum("samples_sent_total"), m.sum("samples_dropped_total"),
                              m.sum("samples_buffered") + m.sum("samples_in_flight")))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join(15)
