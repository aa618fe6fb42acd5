"""What responses say: failure rules, metrics and tags (DESIGN "Configuration", "Judging an attempt")."""

import gzip
import json
import threading
import zlib

from harness import SharedCase, chunk, free_port, request, wait_until
from harness.tunnels import tunnel

TAGS = {"outcome": "{outcome}", "rule": "{rule}", "status": "{status}"}
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def route(name, **kw):
    return {"name": name, "match": {"hosts": [f"{name}.test"]}, "breakers": ["b"], "router": "rtr", "tags": TAGS, **kw}


class Inspected(SharedCase):
    def answer(self, *lines, body=b"", coding=None, pieces=None):
        """An origin that answers everything with that; pieces: the body in so many chunks."""
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        if coding:
            body = coding(body)
            name = "gzip" if coding is gzip.compress else "deflate"
            lines = (*lines, f"Content-Encoding: {name}")
        head = "".join(f"{line}\r\n" for line in lines).encode("latin-1")

        def script(conn):
            while True:
                conn.read_request()
                if pieces is None:
                    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (len(body), head) + body)
                    continue
                conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%s\r\n" % head)
                size = max(1, len(body) // pieces)
                for at in range(0, len(body), size):
                    conn.send(chunk(body[at:at + size]))
                conn.send(b"0\r\n\r\n")

        origin = self.origin(script)
        origin.body = body
        return origin

    def samples_of(self, act, count):
        """The samples that act() makes, by metric."""
        self.px.wait_balance(settled=True)
        wait_until(lambda: len(self.cp.samples) >= self.px.metric("samples_sent_total"), 5, "earlier samples")
        before = len(self.cp.samples)
        act()
        wait_until(lambda: len(self.cp.samples) >= before + count, 5,
                   lambda: f"{count} samples, there are {self.cp.samples[before:]}")
        self.px.wait_balance(settled=True)
        self.assertEqual(len(self.cp.samples), before + count, self.cp.samples[before:])
        return {s["metric"]: s for s in self.cp.samples[before:]}

    def url(self, name, origin):
        return f"http://{name}.test:{origin.port}/"

    def fetch(self, name, origin, *lines):
        """The response must come through byte for byte."""
        response = self.get(self.url(name, origin), *lines)
        self.assert_relayed(response, 200, origin.body)

    def judged(self, name, origin, outcome, rule=None):
        got = self.samples_of(lambda: self.fetch(name, origin), 1)
        (sample,) = got.values()
        self.assertEqual((sample["tags"]["outcome"], sample["tags"].get("rule"), sample["ok"]),
                         (outcome, rule, outcome == "success"))
        return sample


class FailureRulesTest(Inspected):
    """Failure and neutral rules: status, headers, body, slowness; the rule's name everywhere."""

    config = {
        "access_log": {"mode": "all"},
        "routes": [
            route("rules", neutral={"status": [404]}, failure={
                "status": ["5xx", 429], "except_status": [501], "slower_than": "400ms", "body_limit": "2KiB",
                "headers": [{"name": "quota", "header": "x-error", "equals": "1"},
                            {"header": "warning", "contains": "slow"}],
                "body": [{"name": "app-error", "json_pointer": "/error", "exists": True},
                         {"name": "code", "json_pointer": "/result/0/code", "equals": 17},
                         {"name": "text", "contains": "ERR-"}]}),
            route("stream", failure={"body": [{"name": "stream-error", "sse_event": "error"},
                                              {"name": "overloaded", "json_pointer": "/type", "equals": "overloaded"}]}),
        ],
    }

    def test_header_rules(self):
        cases = [(("X-Error: 0",), "success", None), (("X-Error: 1",), "header", "quota"),
                 (("Warning: 199 slow", "X-Error: 0"), "header", "headers-1"),
                 (("X-Error: 0", "X-Error: 1", "Warning: slow"), "header", "quota")]
        for lines, outcome, rule in cases:
            with self.subTest(lines):
                self.judged("rules", self.answer(*lines, body=b"ok"), outcome, rule)

    def test_body_rules_in_any_pieces_and_codings(self):
        def raw_deflate(data):
            c = zlib.compressobj(wbits=-15)
            return c.compress(data) + c.flush()

        bodies = [({"ok": True, "error": None}, "success", None), ({"error": {"code": 5}}, "body", "app-error"),
                  ({"result": [{"code": 17}], "error": "late"}, "body", "code"),
                  ({"note": "ERR-5", "error": 1}, "body", "text"), (b"not json: ERR-", "body", "text"),
                  (b"not json", "success", None), (b"", "success", None),
                  ({"fill": "x" * 3000, "error": 1}, "success", None)]  # behind body_limit
        for body, outcome, rule in bodies:
            for coding in (None, gzip.compress, zlib.compress, raw_deflate):
                for pieces in (None, 7):
                    with self.subTest(body=str(body)[:40], coding=getattr(coding, "__name__", None), pieces=pieces):
                        self.judged("rules", self.answer(body=body, coding=coding, pieces=pieces), outcome, rule)

    def test_the_order_of_rules_at_a_head(self):
        origin = self.http_origin()
        for status, outcome, rule in [(500, "status", "status"), (429, "status", "status"), (501, "success", None)]:
            with self.subTest(status):
                got = self.samples_of(lambda s=status: self.get(self.url("rules", origin) + f"status/{s}"), 1)
                self.assertEqual((got["latency"]["tags"]["outcome"], got["latency"]["tags"].get("rule")), (outcome, rule))
        self.samples_of(lambda: self.get(self.url("rules", origin) + "status/404"), 0)

    def test_a_slow_answer_is_slow_and_nothing_is_cut(self):
        origin = self.http_origin()
        for path, outcome, rule in [("slow/600", "slow", "slower_than"), ("drip/7/100", "slow", "slower_than"),
                                    ("slow/50", "success", None)]:
            with self.subTest(path):
                got = self.samples_of(lambda p=path: self.assert_relayed(self.get(self.url("rules", origin) + p), 200), 1)
                self.assertEqual((got["latency"]["tags"]["outcome"], got["latency"]["tags"].get("rule")), (outcome, rule))

    def test_a_body_rule_decides_before_a_later_reset_and_before_the_client_leaves(self):
        def script(conn):
            conn.read_request()
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"error\":1,")
            conn.wait(go)
            conn.close()

        for how in ("reset", "leave"):
            with self.subTest(how):
                go = threading.Event()
                origin = self.origin(script)
                client = self.client()
                got = self.samples_of(lambda: client.send(request("GET", self.url("rules", origin))).read_until(b":1,"), 1)
                self.assertEqual(got["latency"]["tags"]["rule"], "app-error")
                late = self.delta("attempts_total")
                go.set() if how == "reset" else client.close()
                go.set()
                origin.wait_ended(0)
                wait_until(lambda: self.px.metric("requests_in_flight") == 0, 5, "the exchange to end")
                self.assertEqual(late(), 0)

    def test_inspection_delays_no_byte(self):
        steps = [threading.Event() for _ in range(20)]

        def script(conn):
            conn.read_request()
            conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n")
            body = gzip.compress(b'{"fill": "0123456789"}')
            for i, step in enumerate(steps):
                conn.send(chunk(body[i:i + 1]))
                conn.wait(step)
            conn.send(chunk(body[len(steps):]) + b"0\r\n\r\n")

        origin = self.origin(script)
        client = self.client().send(request("GET", self.url("rules", origin)))
        client.read_response_head()
        for step in steps:  # each byte arrives before the next one is sent
            client.read_chunk()
            step.set()

    def test_events_of_a_stream(self):
        cases = [(b"data: 1\n\n", "success", None), (b"data: 1\n\nevent: error\ndata: {}\n\n", "body", "stream-error"),
                 (b"event: ping\ndata: {\"type\": \"overloaded\"}\n\n", "body", "overloaded"),
                 (b"event: error\n", "success", None)]
        for events, outcome, rule in cases:
            for size in (1, 5, len(events)):
                with self.subTest(events=events, size=size):
                    def script(conn, e=events, n=size):
                        conn.read_request()
                        conn.send(SSE_HEAD)
                        for at in range(0, len(e), n):
                            conn.send(chunk(e[at:at + n]))
                        conn.send(b"0\r\n\r\n")
                        conn.wait_for_end()

                    origin = self.origin(script)
                    origin.body = events
                    self.judged("stream", origin, outcome, rule)

    def test_the_rules_name_shows_in_log_status_and_metrics(self):
        origin = self.answer(body={"error": 1})
        before = self.delta("rule_matches_total", route="rules", rule="app-error")
        self.judged("rules", origin, "body", "app-error")
        self.assertEqual(before(), 1)
        mine = (f"rules.test:{origin.port}", "app-error")  # an earlier origin may have had the port
        lines = []
        wait_until(lambda: lines.extend(e for e in self.px.access_log() if (e["authority"], e.get("rule")) == mine) or lines,
                   5, "the line")
        self.assertEqual((lines[0]["outcome"], lines[0]["ok"]), ("body", False))
        status = next(r for r in self.px.status()["routes"] if r["name"] == "rules")
        self.assertEqual(status["rules"]["app-error"], self.px.metric("rule_matches_total", route="rules", rule="app-error"))

    def test_what_cannot_be_read_matches_nothing_and_is_counted(self):
        brotli = self.answer("Content-Encoding: br", body={"error": 1})
        broken = self.answer("Content-Encoding: gzip", body={"error": 1})
        text = self.answer(body=b"<html>")
        large = self.answer(body={"fill": "x" * 3000})
        for origin, reason in [(brotli, "unknown_encoding"), (broken, "bad_encoding"), (text, "bad_json"), (large, "body_limit")]:
            with self.subTest(reason):
                counted = self.delta("uninspected_responses_total", reason=reason)
                all_reasons = self.delta("uninspected_responses_total")
                self.judged("rules", origin, "success")
                self.assertEqual((counted(), all_reasons()), (1, 1))

    def test_head_answers_and_empty_ones_are_judged_by_their_head(self):
        origin = self.http_origin()
        got = self.samples_of(lambda: self.get(self.url("rules", origin) + "bytes/100", method="HEAD"), 1)
        self.assertEqual(got["latency"]["tags"]["outcome"], "success")


class MetricsOfTheResponseTest(Inspected):
    """Metrics: header values, values of a JSON body, values of the last event that has the field."""

    config = {
        "routes": [
            route("llm", metrics={"latency": "latency", "tokens": {"json_pointer": "/usage/total_tokens"},
                                  "left": {"header": "x-ratelimit-remaining"}},
                  failure={"body": [{"name": "error", "json_pointer": "/error", "exists": True}]}),
            route("every", metrics={"latency": "latency", "first": "first_byte", "connect": "connect", "up": "request_bytes",
                                    "down": "response_bytes", "one": 1}),
        ],
    }

    def llm(self, act, **want):
        skipped = self.delta("samples_skipped_total")
        got = self.samples_of(act, 1 + len(want))
        self.assertEqual({k: v["value"] for k, v in got.items() if k != "latency"}, want)
        self.assertEqual(skipped(), 2 - len(want), "a metric without a value is skipped and counted")
        return got

    def test_values_of_a_json_body_and_of_headers(self):
        usage = {"choices": ["..."], "usage": {"total_tokens": 42}}
        cases = [(("X-RateLimit-Remaining:  99.5 ",), usage, {"tokens": 42, "left": 99.5}), ((), usage, {"tokens": 42}),
                 (("X-RateLimit-Remaining: many",), usage, {"tokens": 42}),
                 (("X-RateLimit-Remaining: 0",), {"usage": {"total_tokens": "42"}}, {"left": 0}), ((), b"plain", {}),
                 ((), b"", {})]
        for lines, body, want in cases:
            for coding in (None, gzip.compress):
                with self.subTest(lines=lines, body=body, coding=coding):
                    origin = self.answer(*lines, body=body, coding=coding, pieces=5)
                    self.llm(lambda o=origin: self.fetch("llm", o), **want)

    def stream(self, *parts, end=b"0\r\n\r\n", gate=None):
        def script(conn):
            conn.read_request()
            conn.send(SSE_HEAD)
            for part in parts:
                conn.send(chunk(part))
            if gate:
                conn.wait(gate)
            conn.send(end)
            conn.wait_for_end()

        origin = self.origin(script)
        origin.body = b"".join(parts)
        return origin

    def test_the_last_event_that_has_the_field_wins_at_any_split(self):
        events = (b'data: {"choices":[1],"usage":null}\n\ndata: {"usage":{"total_tokens":7}}\r\n\r\n'
                  b': ping\n\ndata: {"usage":{"total_tokens":23}}\n\ndata: {"choices":[]}\n\ndata: [DONE]\n\n')
        for size in (1, 3, 17, len(events)):
            with self.subTest(size=size):
                origin = self.stream(*(events[i:i + size] for i in range(0, len(events), size)))
                got = self.llm(lambda o=origin: self.fetch("llm", o), tokens=23)
                self.assertTrue(got["latency"]["ok"])

    def test_token_counts_come_behind_more_than_body_limit(self):
        filler = b'data: {"delta":"' + b"x" * 900 + b'"}\n\n'
        origin = self.stream(*([filler] * 200), b'data: {"usage":{"total_tokens":5}}\n\n')
        self.llm(lambda: self.fetch("llm", origin), tokens=5)

    def test_a_reader_that_leaves_a_stream_is_a_success_with_what_is_known(self):
        gate = threading.Event()
        origin = self.stream(b'data: {"usage":{"total_tokens":9}}\n\n', gate=gate)
        client = self.client()

        def leave():
            client.send(request("GET", self.url("llm", origin))).read_until(b"9}}\n\n")
            client.close()

        got = self.llm(leave, tokens=9)
        self.assertTrue(got["latency"]["ok"])
        gate.set()

    def test_a_failing_status_is_recorded_at_its_head_without_body_metrics(self):
        def script(conn):
            conn.read_request()
            conn.respond(500, b'{"usage":{"total_tokens":1}}', "X-RateLimit-Remaining: 3")
            conn.wait_for_end()

        origin = self.origin(script)
        got = self.llm(lambda: self.get(self.url("llm", origin)), left=3)
        self.assertFalse(got["latency"]["ok"])

    def test_the_size_of_a_response_is_absent_where_it_is_judged_before_its_end(self):
        def answer(status, body):
            return self.origin(lambda c: (c.read_request(), c.respond(status, body), c.wait_for_end()))

        cut = self.origin(lambda c: (c.read_request(), c.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcd"), c.close()))
        cases = [("a whole answer", answer(200, b"x" * 50), 50), ("a failing status", answer(500, b"x" * 50), None),
                 ("a failing status without a body", answer(500, b""), 0)]
        for name, origin, want in cases:
            with self.subTest(name):
                skipped = self.delta("samples_skipped_total")
                got = self.samples_of(lambda o=origin: self.get(self.url("every", o)), 6 if want is not None else 5)
                self.assertEqual(got["down"]["value"] if "down" in got else None, want)
                self.assertEqual(skipped(), 0 if want is not None else 1)
        with self.subTest("a cut answer"):
            client = self.client()
            got = self.samples_of(lambda: client.send(request("GET", self.url("every", cut))).read_until(b"abcd"), 6)
            self.assertEqual(got["down"]["value"], 4)
        with self.subTest("no answer"):
            got = self.samples_of(lambda: self.get(f"http://every.test:{free_port()}/"), 4)
            self.assertEqual(got["down"]["value"], 0)
        with self.subTest("an event stream"):
            origin = self.stream(b"data: 1\n\n")
            self.assertNotIn("down", self.samples_of(lambda: self.fetch("every", origin), 5))
        with self.subTest("a tunnel"):
            origin = self.origin(lambda c: (c.read_exactly(1), c.send(b"xyz"), c.wait_for_end()))
            client = self.client()
            got = self.samples_of(lambda: tunnel(client, f"every.test:{origin.port}").send(b"\x01").read_exactly(3), 4)
            self.assertEqual(set(got) & {"down", "up"}, set())
            client.close()

    def test_the_other_measures(self):
        origin = self.http_origin()
        got = self.samples_of(lambda: self.get(self.url("every", origin) + "echo", method="POST", body=b"x" * 100), 6)
        self.assertEqual((got["up"]["value"], got["down"]["value"], got["one"]["value"]), (100, 100, 1))
        self.assertLessEqual(got["first"]["value"], got["latency"]["value"])
        self.assertLessEqual(got["connect"]["value"], got["first"]["value"])


class TagsTest(Inspected):
    """Tags and trace ids: global, per route, templates; the route's win; a chosen trace header."""

    config = {
        "global_tags": {"service": "checkout", "both": "global", "where": "{host}", "host": "{instance}"},
        "samples": {"trace_header": "X-Request-Id"},
        "routes": [
            {"name": "tagged", "match": {"hosts": ["tagged.test"]}, "breakers": ["b"], "router": "rtr",
             "failure": {"headers": [{"name": "quota", "header": "x-error", "exists": True}]},
             "tags": {"both": "route", "all": "{status} {method} {outcome} {rule} {tier} {route}", "rule": "{rule}"}},
            {"name": "plain", "breakers": ["b"], "router": "rtr"},
        ],
    }

    def tags(self, name, origin, *lines, method="GET"):
        got = self.samples_of(lambda: self.get(self.url(name, origin), *lines, method=method), 1)
        return got["latency"]

    def test_templates_and_precedence(self):
        origin = self.answer("X-Error: 1", body=b"ok")
        tags = self.tags("tagged", origin, method="PUT")["tags"]
        self.assertTrue(tags.pop("host"))
        self.assertEqual(tags, {"service": "checkout", "both": "route", "where": f"tagged.test:{origin.port}",
                                "all": "200 PUT header quota http tagged", "rule": "quota"})
        tags = self.tags("other", origin)["tags"]
        self.assertTrue(tags.pop("host"))
        self.assertEqual(tags, {"service": "checkout", "both": "global", "where": f"other.test:{origin.port}"})

    def test_a_rule_that_did_not_match_leaves_its_tag_out(self):
        sample = self.tags("tagged", self.answer(body=b"ok"))
        self.assertNotIn("rule", sample["tags"])
        self.assertEqual(sample["tags"]["all"], "200 GET success  http tagged")

    def test_the_trace_id_comes_from_the_chosen_header(self):
        origin = self.answer(body=b"ok")
        parent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        self.assertEqual(self.tags("plain", origin, "X-Request-ID: req-17", parent)["trace_id"], "req-17")
        self.assertNotIn("trace_id", self.tags("plain", origin, parent))
        self.assertNotIn("trace_id", self.tags("plain", origin, "X-Request-Id: " + "x" * 65))
        self.assertEqual(self.tags("plain", origin, "X-Request-Id: " + "x" * 64)["trace_id"], "x" * 64)
