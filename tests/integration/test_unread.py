"""Answers that their client does not take: they end, once, and the books agree on how."""

import time

from harness import Case, chunk, request, slowdown, wait_until

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = chunk(b"x" * 16384)
LINGER = 5  # seconds that a client has to take some of the last


class UnreadTest(Case):
    def stalled(self, config, end, fill=True):
        """A client that does not read, and an origin whose part ends with `end`, once some of it waits in the proxy."""
        def script(conn):
            conn.read_request()
            conn.send(HEAD + PIECE * 64)
            while fill and not self.is_stuck(proxy):
                conn.send(PIECE)
                self.pieces += 1
            self.told = True
            end(conn)
            conn.wait_for_end()

        self.pieces, self.told = 64, False
        proxy = self.proxy({"access_log": {"mode": "all"}, **config}, self.control())
        origin = self.origin(script)
        client = self.client(proxy, rcvbuf=4096).send(request("GET", origin.url + "/"))
        wait_until(lambda: self.told, 20, "the origin to have said its last")
        return proxy, client

    def is_stuck(self, proxy):
        """Some waits in the proxy, and goes on to."""
        def waits():
            return proxy.metric("buffered_bytes") > 0

        return waits() and all(not time.sleep(0.03) and waits() for _ in range(8))

    def logged(self, proxy):
        lines = wait_until(proxy.access_log, 5, "the access log's line")
        self.assertEqual(len(lines), 1, lines)
        return lines[0]

    def test_a_cut_answer_that_nobody_reads_ends_and_counts_once(self):
        cases = [("nothing moved", {"timeouts": {"idle": "2s"}}, lambda c: None, "timeout", "http_response_timeout", 0),
                 ("cut off by the origin", {}, lambda c: c.half_close(), "reset", "http_response_incomplete", 0),
                 ("total, the client being slow", {"timeouts": {"total": "1s"}}, lambda c: c.send(PIECE * 2000), "local",
                  "http_response_timeout", 1)]
        cut = []
        for name, config, end, outcome, error, timeouts in cases:
            with self.subTest(name):
                proxy, client = self.stalled(config, end, fill=not timeouts)
                proxy.wait_metric(lambda v: v == 1, "attempts_total", outcome=outcome)
                cut.append((name, proxy, client, ("failed", error, outcome), timeouts))
                for _ in range(5):  # each is an event, and none is a reason to do it all again
                    client.send(b"G")
                    time.sleep(0.05)
        for name, proxy, client, wanted, timeouts in cut:
            with self.subTest(name):
                proxy.expect_metric(0, "requests_in_flight", timeout=LINGER + 3)
                proxy.expect_metric(timeouts, "client_errors_total")
                proxy.expect_metric(0, "client_connections")
                line = self.logged(proxy)
                self.assertEqual((line["result"], line["error"], line["outcome"]), wanted)
                with self.assertRaises(ConnectionResetError, msg="a FIN could make it look complete"):
                    client.read_to_eof()

    def test_whoever_reads_on_gets_the_rest_of_a_cut_answer(self):
        proxy, client = self.stalled({}, lambda c: c.half_close())
        proxy.wait_metric(lambda v: v == 1, "attempts_total", outcome="reset")
        got = client.read_response(allow_truncated=True)
        self.assertEqual(len(got.body), self.pieces * 16384)
        self.assertFalse(got.complete)
        proxy.expect_metric(0, "requests_in_flight")
        proxy.expect_metric(0, "client_errors_total")

    def test_a_whole_answer_not_taken_within_total_is_the_clients_failure_in_every_book(self):
        total = 3 * slowdown()
        proxy, client = self.stalled({"timeouts": {"total": f"{int(total * 1000)}ms"}}, lambda c: c.send(b"0\r\n\r\n"))
        proxy.wait_metric(lambda v: v == 1, "attempts_total", outcome="success")
        proxy.expect_metric(1, "requests_in_flight")
        proxy.expect_metric(0, "requests_in_flight", timeout=total + 5)
        proxy.expect_metric(1, "client_errors_total", reason="timeout")
        line = self.logged(proxy)
        self.assertEqual((line["result"], line["error"], line["outcome"]), ("failed", "http_response_timeout", "success"))
        with self.assertRaises(ConnectionResetError, msg="the answer has failed, so it must not arrive"):
            client.read_to_eof()

    def test_answers_of_ours_that_nobody_reads_end(self):
        proxy = self.proxy({}, self.control({"b": "open"}))
        client = self.client(proxy, rcvbuf=4096)
        many = request("GET", "http://127.0.0.1:9/") * 1000

        client.sock.settimeout(0)
        with self.assertRaises(BlockingIOError):
            while True:
                client.sock.send(many)
        wait_until(lambda: self.is_stuck(proxy), 20, "an answer that does not go out")
        proxy.expect_metric(1, "requests_in_flight")
        proxy.expect_metric(0, "requests_in_flight", timeout=LINGER + 3)
        proxy.expect_metric(0, "client_connections")
        proxy.expect_metric(0, "buffered_bytes")
