"""The benchmark's judgement: what it may call met, and what it must not."""

import os
import sys

from harness import Case

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import watch  # noqa: E402


def sending(posts_s, made_s=10000, seconds=6.0, step=0.043):
    """Looks at a program that makes so many samples a second and posts a thousand at a time."""
    rows = []
    for i in range(int(seconds / step)):
        t = i * step
        made, sent = made_s * t, 1000 * int(posts_s * t)
        rows.append((t, min(made, sent), 0, made - min(made, sent)))
    return rows


class SampleRateTest(Case):
    def test_nine_thousand_sent_are_told_from_ten_thousand(self):
        for posts_s, low, high in ((10, 0.99, 1.01), (9.9, 0.98, 1.0), (9.5, 0.94, 0.96), (9, 0.89, 0.91)):
            share = watch.rates(sending(posts_s))["sent_share"]
            self.assertTrue(low <= share <= high, f"{posts_s} posts of 1 000 a second: {share}")

    def test_what_waits_longer_and_longer_counts_as_not_sent(self):
        got = watch.rates([(t / 10, 500 * t, 100 * t, 400 * t) for t in range(60)])
        self.assertEqual({k: round(v, 3) for k, v in got.items()},
                         {"sent_s": 5000, "dropped_s": 1000, "grown_s": 4000, "sent_share": 0.5})

    def test_without_samples_or_looks_nothing_is_claimed(self):
        self.assertEqual(watch.rates([]), {})
        self.assertIsNone(watch.rates([(t / 10, 0, 0, 0) for t in range(60)])["sent_share"])
