"""The tests' own tools, held against an ordinary client: a tool that sees nothing proves nothing."""

import gzip
import hashlib
import hmac
import json
import socket
import struct
import subprocess
import time

from harness import Case, ControlPlane, DnsServer, Ended, Metrics, Raw, chunk, pattern, tool, wait_until
from harness.control import check_sample
from harness.metrics import Books


def address(server):
    return ("127.0.0.1", server.port)


class HarnessTest(Case):
    def plane(self, **kw):
        control = ControlPlane({"b": "closed", "h": ("half_open", 0.25)}, **kw)
        self.addCleanup(control.stop)
        return control

    def post(self, control, samples, *, secret=None, stamp=None, zip_it=True, change=b""):
        body = json.dumps({"samples": samples}).encode()
        if zip_it:
            body = gzip.compress(body)
        stamp = stamp or str(int(time.time() * 1000))
        key = bytes.fromhex(secret or control.ingest_secret)
        signature = hmac.new(key, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        body += change
        head = [f"POST /v1/projects/{control.project_id}/ingest HTTP/1.1", f"Host: 127.0.0.1:{control.port}",
                "Content-Type: application/json", f"X-EB-Timestamp: {stamp}", f"X-EB-Signature: v1={signature}",
                f"Content-Length: {len(body)}"]
        if zip_it:
            head.append("Content-Encoding: gzip")
        client = Raw(address(control))
        self.addCleanup(client.close)
        return client.request("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    @staticmethod
    def sample(**change):
        good = {"router_id": "r", "metric": "latency", "ts_ms": int(time.time() * 1000), "value": 1.5, "ok": True}
        good.update(change)
        return {k: v for k, v in good.items() if v is not None}

    def test_the_control_plane_accepts_a_good_batch_and_keeps_its_samples(self):
        control = self.plane()
        answer = self.post(control, [self.sample(), self.sample(ok=False, tags={"a": "b"}, trace_id="t")])
        self.assertEqual(answer.status, 202)
        self.assertEqual([s["ok"] for s in control.samples], [True, False])
        self.assertEqual(control.violations, [])

    def test_the_control_plane_notices_every_kind_of_bad_batch(self):
        cases = [
            ("wrong secret", [self.sample()], {"secret": "00" * 32}),
            ("a byte more than was signed", [self.sample()], {"change": b" "}),
            ("stale timestamp", [self.sample()], {"stamp": str(int(time.time() * 1000) - 60_000)}),
            ("no samples", [], {}),
            ("too many samples", [self.sample()] * 1001, {}),
            ("no router", [self.sample(router_id=None)], {}),
            ("empty metric", [self.sample(metric="")], {}),
            ("fractional ts_ms", [self.sample(ts_ms=1.5)], {}),
            ("ts_ms in the future", [self.sample(ts_ms=int(time.time() * 1000) + 60_000)], {}),
            ("value is a string", [self.sample(value="1")], {}),
            ("value is a boolean", [self.sample(value=True)], {}),
            ("ok is a number", [self.sample(ok=1)], {}),
            ("empty tags", [self.sample(tags={})], {}),
            ("tag is a number", [self.sample(tags={"a": 1})], {}),
            ("empty trace id", [self.sample(trace_id="")], {}),
            ("a field nobody knows", [self.sample(extra=1)], {}),
        ]
        for name, samples, how in cases:
            with self.subTest(name):
                control = self.plane()
                self.assertEqual(self.post(control, samples, **how).status, 400)
                self.assertEqual(len(control.violations), 1, control.violations)
                self.assertEqual(control.accepted, 0)

    def test_a_good_sample_passes_the_schema(self):
        check_sample(self.sample(), {"r"})

    def test_the_stream_gives_a_snapshot_then_changes_and_can_be_cut_or_ended(self):
        control = self.plane()

        def open_stream():
            client = Raw(address(control))
            self.addCleanup(client.close)
            client.send(f"GET /v1/projects/{control.project_id}/breakers/state:stream HTTP/1.1\r\n"
                        f"Host: 127.0.0.1:{control.port}\r\nAuthorization: Bearer {control.api_key}\r\n"
                        "Accept: text/event-stream\r\n\r\n")
            self.assertEqual(client.read_response_head().status, 200)
            return client

        client = open_stream()
        first = client.read_chunk()
        self.assertIn(b'{"breaker":"h","state":"half_open","allow_rate":0.25}', first)
        control.wait_stream()
        control.set("b", "open")
        self.assertEqual(client.read_chunk(), b'event: state\ndata: {"breaker":"b","state":"open","allow_rate":null}\n\n')
        control.cut()
        with self.assertRaises(Ended):
            client.read_chunk()
        client = open_stream()
        client.read_chunk()
        control.wait_stream()
        control.close_cleanly()
        self.assertEqual(client.read_chunk(), b"")
        self.assertEqual(control.violations, [])

    def test_the_origin_is_an_ordinary_server_to_curl(self):
        curl = tool("curl")
        origin = self.http_origin()
        cases = [("/bytes/100000", pattern(100000)), ("/chunked/50000", pattern(50000)),
                 ("/close-delimited/3000", pattern(3000)), ("/slow/30", b"late"), ("/status/404", b"status 404\n"),
                 ("/drip/5/2", pattern(5))]
        for path, want in cases:
            with self.subTest(path):
                got = subprocess.run([curl, "-sS", "--noproxy", "*", origin.url + path], capture_output=True, check=True,
                                     timeout=10)
                self.assertEqual(got.stdout, want)
        echo = subprocess.run([curl, "-sS", "--noproxy", "*", "--data-binary", "hello", origin.url + "/echo"],
                              capture_output=True, check=True, timeout=10)
        self.assertEqual(echo.stdout, b"hello")

    def test_a_scripted_origin_records_exactly_what_it_received(self):
        origin = self.origin(lambda c: (c.expect(b"ping"), c.send(b"pong"), c.reset()))
        client = Raw(address(origin))
        client.send(b"ping")
        self.assertEqual(client.read_exactly(4), b"pong")
        client.expect_reset()
        self.assertEqual(origin.received(), b"ping")

    def test_a_script_that_meets_something_else_is_an_error(self):
        origin = self.origin(lambda c: c.expect(b"ping"))
        client = Raw(address(origin))
        client.send(b"pong")
        origin.wait_ended()
        self.assertEqual(len(origin.errors), 1)
        origin.errors.clear()
        client.close()

    def test_the_client_reads_strictly(self):
        cases = [b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
                 b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
                 b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\nA: b\r\n\r\n"]
        for data in cases:
            with self.subTest(data):
                origin = self.origin(lambda c, data=data: c.send(data))
                client = Raw(address(origin))
                with self.assertRaises(AssertionError):
                    client.read_response()
                client.close()

    def test_chunks_and_trailers_are_read_apart(self):
        origin = self.origin(lambda c: c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"abc") +
                                              chunk(b"de") + b"0\r\nT: v\r\n\r\n"))
        client = Raw(address(origin))
        response = client.read_response()
        client.close()
        self.assertEqual((response.body, response.chunks, response.trailers), (b"abcde", [3, 2], [("T", "v")]))

    def test_the_dns_server_answers_over_udp_and_tcp(self):
        dns = DnsServer()
        self.addCleanup(dns.stop)
        dns.set("big.test", "127.0.0.5", ttl=7)
        dns.behaviour["big.test"] = "truncate"
        query = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + b"\x03big\x04test\0" + struct.pack("!HH", 1, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(5)
            udp.sendto(query, address(dns))
            answer = udp.recv(512)
        self.assertTrue(answer[2] & 0x02, "TC")
        with socket.create_connection(address(dns), 5) as tcp:
            tcp.sendall(struct.pack("!H", len(query)) + query)
            answer = tcp.recv(512)[2:]
        self.assertEqual(answer[-4:], bytes([127, 0, 0, 5]))
        self.assertEqual(answer[-10:-6], struct.pack("!I", 7))
        self.assertEqual((dns.asked("big.test", "udp"), dns.asked("big.test", "tcp")), (1, 1))

    def test_the_books_notice_a_single_missing_sample(self):
        text = """# TYPE tripswitch_proxy_attempts_total counter
tripswitch_proxy_attempts_started_total 12
tripswitch_proxy_attempts_in_flight 1
tripswitch_proxy_attempts_total{route="all",outcome="success"} 7
tripswitch_proxy_attempts_total{route="all",outcome="status"} 2
tripswitch_proxy_attempts_total{route="all",outcome="local"} 1
tripswitch_proxy_attempts_total{route="other",outcome="success"} 1
tripswitch_proxy_samples_recorded_total 9
tripswitch_proxy_samples_sent_total %d
tripswitch_proxy_samples_dropped_total{reason="expired"} 2
tripswitch_proxy_samples_buffered 1
tripswitch_proxy_samples_in_flight 0
tripswitch_proxy_samples_skipped_total 0
"""
        self.assertEqual(Books(Metrics(text % 6), {"all": 1}).faults(), [])
        self.assertEqual(len(Books(Metrics(text % 5), {"all": 1}).faults()), 2)
        self.assertEqual(len(Books(Metrics(text % 7), {"all": 1}).faults()), 2)

    def test_waiting_ends_when_the_condition_comes_true_and_fails_when_it_does_not(self):
        self.assertEqual(wait_until(lambda: 7, 1), 7)
        with self.assertRaisesRegex(AssertionError, "the moon"):
            wait_until(lambda: False, 0.05, "the moon")
