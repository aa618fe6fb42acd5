"""The benchmark's judgement: what it may call met, and what it must not."""

import contextlib
import importlib.util
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from harness import Case
from harness.ports import free_port

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench")
sys.path.append(BENCH)
import cases  # noqa: E402
import measure  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402
import targets  # noqa: E402
import watch  # noqa: E402

_spec = importlib.util.spec_from_file_location("bench_run", os.path.join(BENCH, "run.py"))  # the tests have a run.py too
run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(run)


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

    def test_drops_of_the_first_second_miss_the_target_also_when_one_round_has_them(self):
        rows = [(0, 0, 0, 0)] + [(t / 10, 500 * t, 7, 0) for t in range(1, 60)]
        self.assertEqual((watch.rates(rows)["dropped_s"], watch.dropped(rows)), (0, 7))
        result = report.CaseResult(next(c for c in cases.CASES if c.name == "samples"))
        for row in (rows[1:], rows, rows[1:]):
            result.add("tripswitch", {"dropped": watch.dropped(row)})
        verdicts = {t["what"]: (t["value"], t["verdict"]) for t in targets.judged([result])}
        self.assertEqual(verdicts["samples dropped in the worst round"], (7, "MISSED"))

    def test_what_we_call_sent_is_held_against_what_was_accepted(self):
        for ours, theirs, timeout, want in (([5, 6, 7], [7, 7, 7], 10, None), ([5], [5], 0, None), ([5], [4], 0, (5, 4))):
            self.assertEqual(watch.agreed(iter(ours).__next__, iter(theirs).__next__, timeout), want)

    def test_without_samples_or_looks_nothing_is_claimed(self):
        self.assertEqual((watch.rates([]), watch.dropped([])), ({}, None))
        self.assertIsNone(watch.rates([(t / 10, 0, 0, 0) for t in range(60)])["sent_share"])


class Named:
    def __init__(self, name):
        self.name = name


def answers(ops=1000, errors=0, reconnects=0, size=1200, connections=0, **classes):
    return {"ops": ops, "errors": errors, "reconnects": reconnects, "bytes": ops * size, "connections": connections, **{f"{n}xx": 0 for n in range(1, 6)}, **{k.strip("_"): v for k, v in classes.items()}}


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


    def test_answers_without_their_bodies_or_with_more_than_twice_as_much_spoil_the_figures(self):
        for size, connections, sound in ((1024, 0, True), (2048, 0, True), (1023, 0, False), (2049, 0, False),
                                         (1023, 1, True), (1014, 10, True), (1013, 10, False), (0, 64, False)):
            found = cases.faults_of(Named("x"), answers(_2xx=1000, size=size, connections=connections), (2,))
            self.assertEqual(found.get("sound", True), sound, f"{size} bytes each, {connections} connections: {found}")
        self.assertEqual(cases.faults_of(Named("x"), answers(_5xx=1000, size=500), (5,)), {})
        self.assertEqual(cases.faults_of(Named("x"), answers(_2xx=1000, size=40), (2,), body=0), {})

    def test_connections_that_were_not_kept_are_told_and_spoil_nothing(self):
        self.assertEqual(cases.faults_of(Named("x"), answers(_2xx=1000, reconnects=7), (2,)), {"note": "x: 7 connections not kept"})


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


class HalfLoadTest(Case):
    def test_the_rate_is_half_of_the_median_of_three_windows(self):
        bench, asked = Named("bench"), []
        peer, taken = FakePeer("nginx", 1), [1000, 100, 3000]
        peer.keeps, bench.window, bench.half_rate, bench.running, bench.load = True, {"seconds": 1}, 0, {"nginx": peer}, bench

        def once(_, __, *options, **___):
            rate = options[options.index("--rate") + 1] if "--rate" in options else None
            asked.append(rate)
            ops = rate or taken[len(asked) - 1]
            return {**answers(ops=ops, _2xx=ops), "seconds": 1, "p50": 1, "p99": 1, "cpu_s": 1}

        bench.run = once
        for _ in range(2):
            self.assertNotIn("note", cases.half_load(bench, peer))
        self.assertEqual(asked, [None, None, None, 500, 500])


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
                    self.assertTrue(case.without.get(name) or cls.cannot, f"{case.name}: {name}")

    def test_ours_and_the_direct_connection_stay_whoever_is_asked_for(self):
        for name, only, want in (("direct", ["nginx"], True), ("tripswitch", ["nginx"], True), ("nginx", ["nginx"], True),
                                 ("haproxy", ["nginx"], False), ("haproxy-2", ["nginx"], False), ("nginx-2", ["nginx"], True),
                                 ("ts-forwards", ["nginx"], True), ("haproxy-2", [], True)):
            self.assertEqual(peers.is_asked_for(name, only), want, f"{name} of {only}")


class SetUpTest(Case):
    def setUp(self):
        super().setUp()
        self.folder, self.configs, self.proxy = tempfile.mkdtemp(), [], peers.Proxy
        self.addCleanup(shutil.rmtree, self.folder)
        self.addCleanup(setattr, peers, "Proxy", self.proxy)
        peers.Proxy = self.started
        self.origin = Named("origin")
        self.origin.http_port = self.origin.raw_port = 1

    def started(self, config, **_):
        self.configs.append(config)
        proxy = Named("proxy")
        proxy.process = proxy.stderr_path = proxy.started_at = None
        return proxy

    def peer(self, name, flavour="plain"):
        peer = peers.PEERS[name](self.origin, self.folder, flavour, 100)
        peer.port = 1
        return peer

    def test_only_one_row_of_ours_writes_lines_of_refusals(self):
        for name in ("tripswitch", "ts-forwards", "ts-logged"):
            peer = self.peer(name, "refuse")
            peer.launch()
            self.addCleanup(peer.control.stop)
        self.assertEqual([c.get("access_log") for c in self.configs], [{"mode": "off"}, {"mode": "off"}, None])

    def test_the_first_answer_at_a_start_is_a_gated_one(self):
        peer = self.peer("ts-embedded")
        peer.stop, peer.start, peer.pids = (lambda: None), peer.launch, list
        peer.start()
        cases.started(None, peer)
        self.assertEqual([c["fail_mode"] for c in self.configs], ["open", "closed"])

    def test_haproxy_has_pipes_like_ours_for_tunnels(self):
        peer = self.peer("haproxy", "tunnel")
        os.makedirs(peer.folder)
        with open(peer.command("haproxy")[2], encoding="ascii") as f:
            self.assertIn("tune.pipesize 1048576\n", f.read())

    def test_whoever_takes_no_part_is_not_said_to_be_unable(self):
        self.assertEqual({peers.PEERS[p].cannot for p in ("nginx", "haproxy", "squid", "tinyproxy", "ats")},
                         {"is not set up for this case"})


SERVER = """import socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    c, _ = s.accept()
    c.sendall(b"HTTP/1.1 " + sys.argv[2].encode() + b" x\\r\\n\\r\\n")
    c.close()
"""


class PortTest(Case):
    def serve(self, port, status=200):
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(port), str(status)], stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_an_answer_counts_only_from_the_process_that_was_started(self):
        port, sleeper = free_port(), subprocess.Popen(["sleep", "60"])
        self.addCleanup(sleeper.wait)
        self.addCleanup(sleeper.kill)
        server = self.serve(port)
        peers.wait_answer(server, os.devnull, port, b"GET / HTTP/1.1\r\n\r\n", [200])
        with self.assertRaisesRegex(peers.Absent, "another program's"):
            peers.wait_answer(sleeper, os.devnull, port, b"GET / HTTP/1.1\r\n\r\n", [200])
        with self.assertRaisesRegex(peers.Absent, "ended at start with -9"):
            server.kill()
            server.wait()
            peers.wait_answer(server, os.devnull, port)

    def test_a_port_that_somebody_has_is_left_for_another_one(self):
        taken, free = free_port(), free_port()
        listener = socket.create_server(("127.0.0.1", taken))
        self.addCleanup(listener.close)
        ports, used, stops = [taken, free], [], []

        def start():
            used.append(ports[len(used)])
            server = self.serve(used[-1])
            peers.wait_answer(server, os.devnull, used[-1])

        peers.start_on_free_ports(start, lambda: stops.append(1), lambda: [used[-1]])
        self.assertEqual((used, len(stops)), ([taken, free], 1))
        self.assertEqual(measure.strangers(taken, [os.getpid()]), set())

    def test_what_fails_on_a_port_of_its_own_is_not_tried_again(self):
        tries = []

        def start():
            tries.append(free_port())
            raise peers.Absent("does not like its file")

        with self.assertRaisesRegex(peers.Absent, "does not like its file"):
            peers.start_on_free_ports(start, lambda: None, lambda: [tries[-1]])
        self.assertEqual(len(tries), 1)


class Failing(Named):
    """A peer of which a part of its life fails."""

    def __init__(self, name, where, log):
        super().__init__(name)
        self.where, self.log = where, log

    def did(self, what):
        self.log.append((self.name, what))
        if what == self.where:
            raise RuntimeError("broken")

    def check(self):
        self.did("check")

    def settle(self):
        self.did("settle")

    def stop(self):
        self.did("stop")


class RunTest(Case):
    def setUp(self):
        super().setUp()
        self.ending, run.ENDING = run.ENDING, run.Ending()
        self.addCleanup(setattr, run, "ENDING", self.ending)
        self.said = io.StringIO()

    def bench(self, ended=None):
        bench = Named("bench")
        bench.rounds, bench.origin = 2, Named("origin")
        bench.origin.ended = lambda: ended
        return bench

    def case(self, failing=None):
        def once(_, peer):
            if peer.name == failing:
                raise OSError("no answer")
            return {"rps": 1}

        return cases.Case("x", "a case", once)

    def test_a_peer_that_fails_leaves_the_others_their_rounds_and_their_end(self):
        for where in ("check", "settle", "stop", None):
            log = []
            broken, fine = Failing("broken", where, log), Failing("fine", "", log)
            result, case = report.CaseResult(self.case()), self.case(failing=None if where else "broken")
            with contextlib.redirect_stderr(self.said):
                run.run_rounds(self.bench(), case, result, [broken, fine])
                for peer in (broken, fine):
                    run.stop(peer)
            self.assertEqual(result.values("fine", "rps"), [1, 1], where)
            self.assertEqual(result.values("broken", "rps"), [1, 1] if where == "stop" else [None, None], where)
            self.assertEqual([who for who, what in log if what == "stop"], ["broken", "fine"], where)

    def test_every_round_begins_with_another_program_and_the_rows_stay_in_order(self):
        log, bench, result = [], self.bench(), report.CaseResult(self.case())
        bench.rounds = 4
        with contextlib.redirect_stderr(self.said):
            run.run_rounds(bench, self.case(), result, [Failing(name, None, log) for name in "abc"])
        self.assertEqual("".join(who for who, what in log if what == "settle"), "abc" "bca" "cab" "abc")
        self.assertEqual(result.peers(), ["a", "b", "c"])

    def test_an_origin_that_died_ends_the_run(self):
        with self.assertRaisesRegex(SystemExit, "origin ended with -9"), contextlib.redirect_stderr(self.said):
            run.run_rounds(self.bench(ended=-9), self.case(), report.CaseResult(self.case()), [Failing("fine", "", [])])

    def test_a_signal_waits_for_the_end_of_the_cleaning_and_a_second_one_changes_nothing(self):
        ending, done = run.Ending(), []
        with self.assertRaises(SystemExit):
            with ending.held():
                for n in range(3):
                    ending.on_signal(signal.SIGTERM, None)
                    done.append(n)
        self.assertEqual(done, [0, 1, 2])
        ending.on_signal(signal.SIGTERM, None)  # it ends already
        with ending.held():
            ending.on_signal(signal.SIGINT, None)

    def test_what_makes_no_whole_run_is_refused(self):
        for args, word in ((["--rounds", "0"], "at least one round"), (["--seconds", "0"], "at least one round"),
                           (["--docs", "--cases", "kv1"], "every case"), (["--docs", "--peers", "nginx"], "every case"),
                           (["--cases", "kv0"], "unknown: kv0")):
            done = subprocess.run([sys.executable, os.path.join(BENCH, "run.py"), *args], capture_output=True, text=True,
                                  check=False)
            self.assertEqual(done.returncode, 2, args)
            self.assertIn(word, done.stderr, args)

    def test_the_page_is_written_only_after_a_run_of_everything(self):
        options, written, whole, part = Named("options"), [], report.CaseResult(self.case()), report.CaseResult(self.case())
        options.docs, part.failed = True, ["squid"]
        saved = run.into_docs, run.save
        self.addCleanup(lambda: (setattr(run, "into_docs", saved[0]), setattr(run, "save", saved[1])))
        run.into_docs, run.save = (lambda *_: written.append(1)), (lambda *_: "")
        with contextlib.redirect_stdout(self.said), contextlib.redirect_stderr(self.said):
            for result, complete in ((part, True), (whole, False), (part, False)):
                with self.assertRaisesRegex(SystemExit, "stays as it was"):
                    run.report(options, [result], "about", complete)
            self.assertEqual(written, [])
            run.report(options, [whole], "about", True)
        self.assertEqual(written, [1])
