"""For random routes and random responses every attempt has exactly one outcome, told alike everywhere."""

import gzip
import json
import os
import random
import threading
import zlib

from harness import JUDGED, Case, Origin, Raw, chunk, request, wait_until

SEED = int(os.environ.get("TRIPSWITCH_TEST_SEED", "1"))
REQUESTS = int(os.environ.get("TRIPSWITCH_TEST_RESPONSES", "600"))
NEUTRAL = ("local", "stale", "neutral")
ROUTES = 24
THREADS = 6
POINTERS = ["/error", "/error/code", "/items/0/n", "/n", "/usage/total", ""]
TEXTS = ["ERR-", "fail", "\u20ac", "n"]


# ---- Random routes ----

def header_rule(rng):
    test = rng.choice([{"exists": True}, {"equals": rng.choice(["0", "1"])}, {"contains": rng.choice(["1", "slow"])}])
    return {"header": rng.choice(["x-error", "warning"]), **test}


def body_rule(rng):
    kind = rng.randrange(4)
    if kind == 0:
        return {"contains": rng.choice(TEXTS)}
    if kind == 1:
        return {"sse_event": rng.choice(["error", "message", "usage"])}
    test = rng.choice([{"exists": True}, {"equals": rng.choice([0, 7, "fail", True, None])}, {"contains": rng.choice(TEXTS)}])
    return {"json_pointer": rng.choice(POINTERS), **test}


def random_route(rng, i):
    failure = {"status": rng.sample([500, 503, 404, "4xx", 418], rng.randrange(3)), "body_limit": rng.choice(["64B", "1KiB", "64KiB"]),
               "slower_than": rng.choice(["off", "off", "30ms"]), "no_response_after": rng.choice(["50ms", "30s"]),
               "client_abort_after": rng.choice(["off", "0s", "2s"]),
               "on": rng.sample(["connect", "reset", "protocol", "timeout"], 3)}
    if rng.random() < 0.5:
        failure["headers"] = [header_rule(rng) for _ in range(rng.randrange(1, 4))]
    if rng.random() < 0.7:
        failure["body"] = [body_rule(rng) for _ in range(rng.randrange(1, 5))]
    metrics = {"latency": "latency"}
    if rng.random() < 0.6:
        metrics["value"] = {"json_pointer": rng.choice(POINTERS)}
    if rng.random() < 0.4:
        metrics["left"] = {"header": "x-left"}
    return {"name": f"r{i}", "match": {"hosts": [f"r{i}.test"]}, "breakers": ["b"], "router": f"rtr{i}", "metrics": metrics,
            "tags": {"outcome": "{outcome}", "rule": "{rule}"}, "failure": failure,
            "neutral": {"status": rng.sample([204, 418, 500], rng.randrange(2))},
            "timeouts": {"total": rng.choice(["off", "off", "150ms"])}}


# ---- Random responses, made from the number in the path ----

def random_json(rng):
    doc = {}
    for key, values in [("error", [None, {"code": 7}, "fail ERR-", False]), ("items", [[{"n": 7}], [{"n": 0}], []]),
                        ("n", [1, 7, 1e3, "7", True]), ("usage", [{"total": 12}, {}, None]), ("note", ["\u20ac", "x" * 900, "ERR"])]:
        if rng.random() < 0.4:
            doc[key] = rng.choice(values)
    return json.dumps(doc, ensure_ascii=rng.random() < 0.5).encode()


def random_body(rng, events):
    if events:
        parts = []
        for _ in range(rng.randrange(6)):
            name = rng.choice([b"", b"", b"event: error\n", b"event: usage\n"])
            parts.append(name + b"data: " + rng.choice([random_json(rng), b"[DONE]", b"ERR-1"]) + rng.choice([b"\n\n", b"\r\n\r\n"]))
        return b"".join(parts)
    return rng.choice([random_json(rng), random_json(rng), b"plain ERR- text", b"", b"<html>fail</html>", random_json(rng)[:-1]])


def encode(rng, body):
    coding = rng.choice([None, None, "gzip", "deflate", "br", "broken"])
    if coding == "gzip":
        return gzip.compress(body), ["Content-Encoding: gzip"]
    if coding == "deflate":
        return zlib.compress(body), ["Content-Encoding: deflate"]
    if coding:
        return body, ["Content-Encoding: " + ("gzip" if coding == "broken" else coding)]
    return body, []


def respond(conn, rng):
    """False: the connection is over."""
    status = rng.choice([200, 200, 200, 200, 404, 418, 500, 503, 204])
    events = rng.random() < 0.3
    body, lines = encode(rng, random_body(rng, events))
    if events:
        lines.append("Content-Type: text/event-stream")
    lines += [line for line in ("X-Error: 1", "X-Error: 0", "Warning: slow", "X-Left: 5", "X-Left: none") if rng.random() < 0.25]
    end = rng.choice(["", "", "", "", "truncate", "garbage", "reset"])
    if rng.random() < 0.2:
        conn.origin.stopping.wait(rng.choice([0.04, 0.08]))
    if end == "garbage" and rng.random() < 0.3:
        conn.send(b"no http\r\n\r\n")
        return False
    chunked = rng.random() < 0.6
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    if status == 204:
        framing, body = "X-Nothing: 1", b""
    conn.send("\r\n".join([f"HTTP/1.1 {status} X", framing, *lines]) + "\r\n\r\n")
    size = rng.choice([1, 5, 4096]) if len(body) < 400 else 4096
    for at in range(0, len(body), size):
        if end and at >= len(body) // 2:
            break
        piece = body[at:at + size]
        conn.send(chunk(piece) if chunked else piece)
        if rng.random() < 0.05:
            conn.origin.stopping.wait(0.01)
    if end == "reset":
        conn.reset()
    if end or status == 204:
        return status == 204 and not end
    if chunked:
        conn.send(b"0\r\n\r\n")
    return True


def script(conn):
    while True:
        req = conn.read_request()
        conn.requests.clear()
        if not respond(conn, random.Random(f"{SEED} {req.path}")):
            return


class JudgingPropertyTest(Case):
    time_limit_s = 150
    heavy = True

    def run_client(self, first, errors):
        rng = random.Random(f"{SEED} client {first}")
        client = None
        for n in range(first, REQUESTS, THREADS):
            try:
                client = client or Raw(self.px.address, timeout=30)
                client.keep_received = False
                host = f"r{rng.randrange(ROUTES)}.test:{self.origin_.port}"
                client.send(request("GET", f"http://{host}/{n}", f"X-Trace: t{n}"))
                if rng.random() < 0.1:
                    threading.Event().wait(rng.choice([0, 0.01, 0.05]))
                    client.reset() if rng.random() < 0.5 else client.close()
                    client = None
                    continue
                response = client.read_response(allow_truncated=True)
                if not response.complete or "close" in response.head.tokens("connection"):
                    client.close()
                    client = None
            except Exception as e:  # noqa: BLE001 - shown by the test
                errors.append(f"request {n}: {e!r}")
                client = None
        if client:
            client.close()

    def check_attempt(self, route, entry, samples):
        """One exchange's line in the log against the samples that carry its trace id."""
        judged = "ok" in entry
        outcome, rule = entry["outcome"], entry.get("rule")
        self.assertIn(outcome, JUDGED + NEUTRAL + ("client_abort",))
        self.assertEqual({(s["tags"]["outcome"], s["tags"].get("rule"), s["ok"]) for s in samples},
                         {(outcome, rule, entry["ok"])} if judged else set(), f"{entry}: {samples}")
        self.assertEqual(len({s["metric"] for s in samples}), len(samples), samples)
        self.assertTrue({s["metric"] for s in samples} <= set(route["metrics"]), samples)
        self.assertEqual("latency" in {s["metric"] for s in samples}, judged, entry)
        rules = {"status": ["status"], "slow": ["slower_than"],
                 "header": [f"headers-{i}" for i in range(len(route["failure"].get("headers", [])))],
                 "body": [f"body-{i}" for i in range(len(route["failure"].get("body", [])))]}
        self.assertIn(rule, rules.get(outcome, [None]), entry)
        if rule:
            self.assertFalse(entry["ok"], entry)
        return len(route["metrics"]) - len(samples) if judged else 0

    def test_every_attempt_has_one_outcome_and_the_books_balance(self):
        rng = random.Random(SEED)
        routes = [random_route(rng, i) for i in range(ROUTES)]
        self.origin_ = Origin(script)
        self.addCleanup(self.origin_.stop)
        control = self.control({"b": "closed"})
        self.px = self.proxy({"workers": 2, "access_log": {"mode": "all"}, "samples": {"trace_header": "x-trace"}, "routes": routes},
                             control, dns=self.dns(), warnings=True)
        errors = []
        clients = [threading.Thread(target=self.run_client, args=(i, errors)) for i in range(THREADS)]
        for t in clients:
            t.start()
        for t in clients:
            t.join()
        self.assertEqual(errors, [])
        wait_until(lambda: self.px.metric("requests_in_flight") == 0, 10, "every exchange to end")
        started = self.px.metric("attempts_started_total")
        wait_until(lambda: sum("outcome" in e for e in self.px.access_log()) >= started, 10, "the log's lines")
        judged = sum("ok" in e for e in self.px.access_log())
        wait_until(lambda: sum(s["metric"] == "latency" for s in list(control.samples)) >= judged, 20, "the samples")
        m = self.px.wait_balance(timeout=20, settled=True).metrics
        self.assertEqual(m.sum("attempts_in_flight"), 0)
        by_trace = {}
        for s in control.samples:
            by_trace.setdefault(s["trace_id"], []).append(s)
        log = [e for e in self.px.access_log() if "outcome" in e]
        self.assertEqual(len(log), started)
        self.assertEqual(len({e["trace_id"] for e in log}), started)
        skipped = sum(self.check_attempt(routes[int(e["route"][1:])], e, by_trace.pop(e["trace_id"], [])) for e in log)
        self.assertEqual(by_trace, {}, "samples without an attempt")
        self.assertEqual(m.sum("samples_skipped_total"), skipped)
        outcomes = {}
        for e in log:
            outcomes[e["outcome"]] = outcomes.get(e["outcome"], 0) + 1
        print(f"{started:g} attempts: {outcomes}")
        self.assertEqual(outcomes, {k: v for k, v in m.by("attempts_total", "outcome").items() if v})
        for wanted in ("success", "status", "header", "body", "slow", "reset", "no_response", "neutral"):
            self.assertIn(wanted, outcomes, f"seed {SEED} never made one")
