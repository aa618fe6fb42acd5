"""Upgraded connections: WebSocket is relayed and judged at the 101, other tokens are removed."""

import base64
import hashlib
import select
import threading

from harness import Case, SharedCase, pattern, request, wait_until
from harness.tunnels import Flood, connect, echo, tunnel

SWITCH = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-More: 1\r\n\r\n"
ASK = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")


def switching(behind=b""):
    """Agrees to a WebSocket, with the first bytes in the same write, then echoes."""

    def run(conn):
        conn.read_request()
        conn.send(SWITCH.encode() + behind)
        echo(conn)

    return run


class UpgradeTest(SharedCase):
    config = {"upgrades": ["websocket", "x-ours"], "routes": [
        {"name": "all", "breakers": ["b"], "router": "rtr",
         "tags": {"tier": "{tier}", "status": "{status}", "outcome": "{outcome}", "host": "{host}"},
         "failure": {"no_response_after": "600ms"}}]}

    def ask(self, client, url, *lines):
        client.send(request("GET", url, *(lines or ASK)))
        return client.read_response_head()

    def test_a_websocket_is_relayed_and_judged_at_the_101(self):
        origin = self.origin(switching())
        success = self.delta("attempts_total", outcome="success")
        client = self.client()
        head = self.ask(client, origin.url + "/chat")
        self.assertEqual((head.status, head.get("upgrade"), head.tokens("connection"), head.get("x-more")),
                         (101, "websocket", ["upgrade"], "1"))
        self.assertEqual(head.get_all("proxy-status"), [])
        wait_until(lambda: success() == 1, 5, "the verdict")
        self.px.expect_metric(0, "attempts_in_flight")
        self.px.expect_metric(1, "tunnels")
        sample = self.cp.wait_samples(1, where=lambda s: s["tags"]["host"] == origin.authority)[0]
        self.assertEqual((sample["ok"], sample["tags"]["tier"], sample["tags"]["status"]), (True, "http", "101"))
        for data in (b"\x81\x05hello", b"GET / HTTP/1.1\r\n\r\n", pattern(300_000)):
            client.send(data)
            self.assertTrue(client.read_exactly(len(data)) == data)
        client.half_close()
        self.assertEqual(client.read_to_eof(), b"")
        self.px.wait_metric(lambda n: n == 0, "tunnels")
        self.assertEqual(success(), 1, "one attempt, one verdict")

    def test_the_origin_sees_the_offer_and_a_real_handshake_works(self):
        def script(conn):
            asked = conn.read_request()
            if asked.head.tokens("connection") != ["upgrade"] or asked.get("upgrade") != "websocket":
                raise AssertionError(asked.head.fields)
            accept = hashlib.sha1((asked.get("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode())
            conn.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: upgrade\r\n"
                      f"Sec-WebSocket-Accept: {base64.b64encode(accept.digest()).decode()}\r\n\r\n")
            echo(conn)

        origin = self.origin(script)
        client = self.client()
        head = self.ask(client, origin.url + "/", *ASK, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
        self.assertEqual((head.status, head.get("sec-websocket-accept")), (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
        client.send(b"\x81\x80\x01\x02\x03\x04")
        self.assertEqual(client.read_exactly(6), b"\x81\x80\x01\x02\x03\x04")

    def test_bytes_sent_with_the_101_arrive_first(self):
        for behind in (b"first frame", pattern(100_000)):
            client = self.client()
            self.ask(client, self.origin(switching(behind)).url + "/")
            self.assertTrue(client.read_exactly(len(behind)) == behind)
            client.send(b"next")
            self.assertEqual(client.read_exactly(4), b"next")

    def test_bytes_sent_ahead_of_the_101_wait_for_it(self):
        def script(conn):
            conn.read_request()
            if conn.buffer or select.select([conn.sock], [], [], 0.2)[0]:
                raise AssertionError("something came ahead of the 101")
            conn.send(SWITCH)
            echo(conn)

        client = self.client()
        client.send(request("GET", self.origin(script).url + "/", *ASK) + b"too early")
        self.assertEqual(client.read_response_head().status, 101)
        self.assertEqual(client.read_exactly(9), b"too early")

    def test_bytes_ahead_of_a_refused_upgrade_are_no_request_to_the_origin(self):
        origin = self.http_origin()
        client = self.client()
        client.send(request("GET", origin.url + "/bytes/3", *ASK) + b"\x81\x05hello\r\n\r\n")
        self.assert_relayed(client.read_response(), 200, pattern(3))
        self.assert_self_made(client.read_response(), 400)
        client.expect_eof()
        self.assertEqual(origin.hits, 1)

    def test_after_any_other_answer_the_connection_stays_http(self):
        origin = self.http_origin()
        client = self.client()
        for path, status in (("/bytes/5", 200), ("/status/426", 426), ("/status/404", 404)):
            self.assert_relayed(client.get(origin.url + path, *ASK), status)
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")

    def test_only_listed_tokens_are_passed_on(self):
        origin = self.http_origin()
        cases = [
            (["Connection: Upgrade", "Upgrade: websocket"], ["websocket"]),
            (["Connection: upgrade", "upgrade: WebSocket"], ["websocket"]),
            (["Connection: Upgrade", "Upgrade: h2c, websocket, TLS/1.0, x-ours"], ["websocket", "x-ours"]),
            (["Connection: Upgrade", "Upgrade: X-Ours"], ["x-ours"]),
            (["Upgrade: websocket", "Connection: Upgrade", "Upgrade: h2c"], ["websocket"]),
            (["Upgrade: h2c", "Upgrade: websocket", "Connection: Upgrade", "Upgrade: x-ours"], ["websocket", "x-ours"]),
            (["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"], []),
            (["Connection: Upgrade", "Upgrade: TLS/1.2"], []),
            (["Connection: Upgrade", "Upgrade: websockets"], []),
            (["Connection: Upgrade", "Upgrade: "], []),
        ]
        for lines, want in cases:
            with self.subTest(lines):
                response = self.get(origin.url + "/dump", *lines)
                head = response.body.decode().lower()
                got = [v.strip() for line in head.split("\r\n") if line.startswith("upgrade:")
                       for v in line[8:].split(",")]
                self.assertEqual(got, want)
                self.assertEqual("connection: upgrade" in head, bool(want), head)
                self.assertNotIn("http2-settings", head)

    def test_upgrade_in_http_1_0_is_ignored(self):
        origin = self.http_origin()
        client = self.client()
        client.send(request("GET", origin.url + "/dump", *ASK, version="HTTP/1.0"))
        self.assertNotIn(b"pgrade", client.read_response().body)

    def test_a_101_nobody_asked_for_is_a_protocol_failure(self):
        protocol = self.delta("attempts_total", outcome="protocol")
        for lines in ((), ("Connection: Upgrade", "Upgrade: h2c")):
            with self.subTest(lines):
                origin = self.origin(switching())
                self.assert_self_made(self.get(origin.url + "/", *lines), 502, "http_protocol_error")
        self.assertEqual(protocol(), 2)

    def test_a_101_before_the_whole_request_is_a_protocol_failure(self):
        # The origin would read what is meant for the tunnel as the rest of the body.
        for lines, sent, rest in ((["Transfer-Encoding: chunked"], b"1f\r\nAAAA", b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
                                  (["Content-Length: 20"], b"only ten..", b"and ten..."),
                                  (["Content-Length: 20", "Expect: 100-continue"], b"", b"x" * 20)):
            with self.subTest(lines):
                def script(conn, sent=sent):
                    conn.read_request(with_body=False)
                    conn.expect(b"4\r\nAAAA\r\n" if sent[:2] == b"1f" else sent)
                    conn.send(SWITCH)
                    conn.wait_for_end()

                protocol = self.delta("attempts_total", outcome="protocol")
                origin = self.origin(script)
                client = self.client()
                client.send(request("POST", origin.url + "/", *ASK, *lines) + sent)
                self.assert_self_made(client.read_response("POST"), 502, "http_protocol_error")
                client.send(rest)
                origin.wait_ended()
                self.assertTrue(origin.received().endswith(b"\r\n\r\n" if not sent else b"AAAA\r\n" if sent[:2] == b"1f" else sent))
                self.assertEqual(protocol(), 1)

    def test_a_101_behind_a_whole_body_opens_the_tunnel(self):
        for lines, body in ((["Content-Length: 5"], b"hello"), (["Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n")):
            with self.subTest(lines):
                client = self.client()
                client.send(request("POST", self.origin(switching()).url + "/", *ASK, *lines))
                client.send(body)
                self.assertEqual(client.read_response_head().status, 101)
                client.send(b"frame")
                self.assertEqual(client.read_exactly(5), b"frame")

    def test_silence_before_the_101_is_no_response_and_cuts_nothing(self):
        go = threading.Event()
        silent = self.delta("attempts_total", outcome="no_response")

        def script(conn):
            conn.read_request()
            conn.wait(go)
            conn.send(SWITCH)
            echo(conn)

        client = self.client()
        client.send(request("GET", self.origin(script).url + "/", *ASK))
        wait_until(lambda: silent() == 1, 5, "no_response")
        go.set()
        self.assertEqual(client.read_response_head().status, 101)
        client.send(b"late but well")
        self.assertEqual(client.read_exactly(13), b"late but well")

    def test_resets_and_ends_pass_through(self):
        def resets(conn):
            conn.read_request()
            conn.send(SWITCH + "x")
            conn.expect(b"y")
            conn.reset()

        client = self.client()
        self.ask(client, self.origin(resets).url + "/")
        client.read_exactly(1)
        client.send(b"y")
        client.expect_reset()
        origin = self.origin(switching())
        client = self.client()
        self.ask(client, origin.url + "/")
        client.half_close()
        client.expect_eof()
        origin.wait_ended()

    def test_a_flood_in_both_directions_stays_whole(self):
        size, servers = 8 << 20, []

        def script(conn):
            conn.read_request()
            conn.send(SWITCH)
            conn.keep_received = False
            servers.append(Flood(conn, size, "server"))
            for t in servers[0].threads:
                t.join()

        client = self.client()
        self.ask(client, self.origin(script).url + "/")
        flood = Flood(client, size, "client").join(30)
        server = servers[0].join(30)
        self.assertEqual((flood.got.digest(), server.got.digest()), (server.sent.digest(), flood.sent.digest()))

    def test_the_time_before_the_101_counts(self):
        def slow_head(conn):
            conn.read_request()
            conn.origin.stopping.wait(0.2)
            conn.send(SWITCH[:20])
            conn.origin.stopping.wait(0.2)
            conn.send(SWITCH[20:])
            echo(conn)

        first, whole = self.delta("upstream_first_byte_seconds_sum"), self.delta("request_duration_seconds_sum")
        late = self.delta("late_answers_total")
        client = self.client()
        self.ask(client, self.origin(slow_head).url + "/")
        client.send(b"x")
        client.read_exactly(1)
        client.close()
        self.px.wait_metric(lambda n: n == 0, "tunnels")
        self.assertEqual(late(), 0, "the first frame is no late answer")
        self.assertGreater(first(), 0.19)
        self.assertGreater(whole(), 0.39)


class LimitTest(Case):
    def test_upgrades_share_limits_tunnels_with_connect(self):
        control = self.control({"b": "closed"})
        px = self.proxy({"limits": {"tunnels": 2}}, control)
        origin = self.origin(switching())
        first = self.client(px)
        self.assertEqual(first.request(request("GET", origin.url + "/", *ASK)).status, 101)
        tunnel(self.client(px), origin.authority)
        last = self.client(px)
        self.assert_self_made(last.get(origin.url + "/", *ASK), 503, "connection_limit_reached")
        self.assertEqual(connect(self.client(px), origin.authority).status, 503)
        px.expect_metric(2, "limit_rejections_total", limit="tunnels")
        first.close()
        px.wait_metric(lambda n: n == 1, "tunnels")
        self.assertEqual(last.request(request("GET", origin.url + "/", *ASK)).status, 101)
