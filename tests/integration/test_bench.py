"""The benchmark's judgement: what it may call met, and what it must not."""

import os
import sys

from harness import Case

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import cases  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402
import targets  # noqa: E402
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


class Named:
    def __init__(self, name):
        self.name = name


def answers(ops=1000, errors=0, **classes):
    return {"ops": ops, "errors": errors, **{f"{n}xx": 0 for n in range(1, 6)}, **{k.strip("_"): v for k, v in classes.items()}}


class FaultTest(Case):
    def test_answers_of_another_class_than_those_wanted_spoil_the_figures(self):
        for got, wanted, sound in (
                (answers(_2xx=1000), (2,), True),
                (answers(_2xx=999, _5xx=1), (2,), False),
                (answers(_2xx=1000), (5,), False),  # a closed breaker in the case of refusals
                (answers(_5xx=1000), (5,), True),
                (answers(_5xx=1000), (2,), False),  # forwarding, while the origin is down
                (answers(_2xx=500, _5xx=500), (2, 5), True),
                (answers(_2xx=600, _5xx=400), (2, 5), True),
                (answers(_2xx=610, _5xx=390), (2, 5), False),
                (answers(_2xx=1000), (2, 5), False),
                (answers(_2xx=1000, errors=1), (2,), True),
                (answers(_2xx=1000, errors=2), (2,), False),
                ({**answers(_2xx=1000), "wanted_rate": 2000}, (2,), False)):
            found = cases.faults_of(Named("x"), got, wanted)
            self.assertEqual(found.get("sound", True), sound, f"{got} {wanted}: {found}")
            self.assertEqual("note" in found, not sound or got["errors"] > 0, f"{got} {wanted}: {found}")


class TargetTest(Case):
    def result(self, name, **rounds):
        result = report.CaseResult(next(c for c in cases.CASES if c.name == name))
        for peer, values in rounds.items():
            for v in values:
                result.add(peer.replace("_", "-"), v)
        return result

    def verdicts(self, result):
        return [t["verdict"] for t in targets.judged([result])]

    def test_a_target_is_met_up_to_its_limit(self):
        for us, verdict in ((50, "met"), (50.1, "MISSED"), (49, "met")):
            got = self.verdicts(self.result("refuse", tripswitch=[{"cpu_us": us}] * 3, ts_forwards=[{"cpu_us": 100}] * 3))
            self.assertEqual(got, [verdict], us)

    def test_what_was_not_measured_is_said_and_never_met(self):
        ours, nginx = {"cpu_us": 8, "rps": 2}, {"cpu_us": 10, "rps": 1}
        for rounds, verdicts in (
                ({"tripswitch": [ours], "nginx": [nginx]}, ["met", "met"]),
                ({"tripswitch": [ours]}, ["not measured: no nginx"] * 2),
                ({"tripswitch": [None], "nginx": [nginx]}, ["not measured"] * 2),
                ({"tripswitch": [ours, {**ours, "sound": False}], "nginx": [nginx] * 2},
                 ["not measured: see the note on tripswitch"] * 2),
                ({"tripswitch": [ours], "nginx": [{**nginx, "sound": False}]}, ["not measured: see the note on nginx"] * 2),
                ({"tripswitch": [ours], "nginx": [nginx], "squid": [{**nginx, "sound": False}]}, ["met", "met"])):
            self.assertEqual(self.verdicts(self.result("kv64", **rounds)), verdicts, rounds)

    def test_half_load_is_not_judged_when_either_was_overloaded(self):
        fine, late = {"p99_us": 5}, {"p99_us": 9000, "sound": False}
        for ours, nginx in ((late, fine), (fine, late)):
            got = self.verdicts(self.result("p99half", tripswitch=[ours], nginx=[nginx]))
            self.assertTrue(got[0].startswith("not measured"), got)

    def test_every_target_has_a_limit(self):
        self.assertEqual([t[1] for t in targets.TARGETS if not isinstance(t[4], (int, float))], [])


class FakeLoad:
    """Answers as the load generator does."""

    def __init__(self, got):
        self.got = got
        self.load, self.window = self, {}

    def run(self, *_, **__):
        return self.got


class FakePeer(Named):
    def __init__(self, name, count):
        super().__init__(name)
        self.workers = count

    def request(self, *_):
        return b""

    def pids(self):
        return []


class WorkersTest(Case):
    def run_of(self, name, cpu_s, ops=1000):
        threads = {f"worker-{i}": s for i, s in enumerate(cpu_s)}
        got = {**answers(ops=ops, _2xx=ops), "seconds": 1, "p50": 1, "p99": 1, "cpu_s": sum(cpu_s), "threads": threads}
        return cases.workers(FakeLoad(got), FakePeer(name, 1 if name == "tripswitch" else 2))

    def result(self, two, two_ops=1000, direct_ops=10000):
        result = report.CaseResult(next(c for c in cases.CASES if c.name == "workers2"))
        result.add("tripswitch", self.run_of("tripswitch", [0.5]))
        result.add("ts-2workers", self.run_of("ts-2workers", two, two_ops))
        result.add("direct", {"rps": direct_ops})
        return result

    def verdict(self, result):
        return targets.judged([result])[0]["verdict"]

    def test_a_second_worker_that_does_not_work_is_no_success(self):
        for two, good in (([0.25, 0.25], True), ([0.3, 0.2], True), ([0.34, 0.16], False), ([0.5, 0.0], False), ([0.5], False)):
            result = self.result(two)
            self.assertEqual("sound" in result.rounds["ts-2workers"][0], not good, two)
            if not good:
                self.assertEqual(self.verdict(result), "not measured: see the note on ts-2workers", two)

    def test_two_workers_by_cpu_of_a_request_and_by_rate_where_nothing_else_is_the_limit(self):
        for roomy, two_ops, direct_ops, want in ((False, 1900, 10000, "by CPU per request"),
                                                 (True, 1900, 10000, "by requests/s"),
                                                 (True, 1900, 2000, "by CPU per request")):
            got, how = cases.two_workers(self.result([0.5, 0.5], two_ops, direct_ops), roomy)
            self.assertEqual((round(got, 2), how), (1.9, want), (roomy, two_ops, direct_ops))


class PeersTest(Case):
    def test_what_users_run_is_a_row_of_each_case_or_has_a_reason(self):
        for case in cases.CASES:
            self.assertEqual(set(peers.USUAL) - set(case.peers), set(), case.name)
            for name in case.peers:
                cls = peers.PEERS[name]
                if case.flavour not in cls.flavours:
                    self.assertTrue(case.without.get(name) or cls.cannot[case.flavour], f"{case.name}: {name}")

    def test_ours_and_the_direct_connection_stay_whoever_is_asked_for(self):
        for name, only, want in (("direct", ["nginx"], True), ("tripswitch", ["nginx"], True), ("nginx", ["nginx"], True),
                                 ("haproxy", ["nginx"], False), ("haproxy-2", ["nginx"], False), ("nginx-2", ["nginx"], True),
                                 ("ts-forwards", ["nginx"], True), ("haproxy-2", [], True)):
            self.assertEqual(peers.is_asked_for(name, only), want, f"{name} of {only}")
