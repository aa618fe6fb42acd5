"""Client connections: kept, pipelined, closed when somebody says so."""

import threading

from harness import Case, Raw, SharedCase, request, slowdown


class KeepaliveTest(SharedCase):
    def test_many_requests_share_one_client_connection(self):
        origin = self.http_origin()
        client = self.client()
        for i in range(50):
            self.assert_relayed(client.get(f"{origin.url}/echo", method="POST", body=b"%d" % i), 200, b"%d" % i)

    def test_one_connection_may_ask_several_origins(self):
        origins = [self.origin(lambda c, i=i: self.answer(c, b"origin %d" % i)) for i in range(3)]
        client = self.client()
        for i in (0, 1, 2, 1, 0, 2, 2, 0):
            self.assert_relayed(client.get(origins[i].url + "/"), 200, b"origin %d" % i)

    @staticmethod
    def answer(conn, body):
        while True:
            conn.read_request()
            conn.respond(200, body)

    def test_pipelined_requests_are_answered_in_order(self):
        origin = self.http_origin()
        client = self.client()
        client.send(b"".join(request("POST", origin.url + "/echo", body=b"number %d" % i) for i in range(40)))
        for i in range(40):
            self.assert_relayed(client.read_response("POST"), 200, b"number %d" % i)

    def test_pipelined_requests_to_a_slow_and_a_fast_origin_are_answered_in_order(self):
        slow, fast = self.http_origin(), self.http_origin()
        client = self.client()
        client.send(request("GET", slow.url + "/slow/200") + request("GET", fast.url + "/bytes/10") +
                    request("GET", slow.url + "/status/404"))
        self.assert_relayed(client.read_response(), 200, b"late")
        self.assert_relayed(client.read_response(), 200)
        self.assert_relayed(client.read_response(), 404)

    def test_a_bad_request_behind_a_good_one_does_not_spoil_the_good_one(self):
        origin = self.http_origin()
        client = self.client()
        client.send(request("GET", origin.url + "/slow/100") + b"GET http://x/ HTTP/1.1\r\nHost : x\r\n\r\n" +
                    request("GET", origin.url + "/never"))
        self.assert_relayed(client.read_response(), 200, b"late")
        self.assert_self_made(client.read_response(), 400, "http_request_error")
        client.expect_eof()
        self.assertNotIn("/never", origin.paths)

    def test_who_asked_for_the_close_is_closed_without_waiting_for_its_own(self):
        """As soon as it has the answer: on loopback, unless the machine is busy, when it is written."""
        origin, proxy = self.http_origin(), self.proxy()
        for asks in (request("GET", origin.url + "/bytes/1000", "Connection: close"),
                     request("HEAD", origin.url + "/", "Connection: close"),
                     f"GET {origin.url}/bytes/1000 HTTP/1.0\r\n\r\n".encode()):
            with self.subTest(asks):
                clients = [self.client(proxy) for _ in range(20)]
                for client in clients:
                    self.assertEqual(client.request(asks, asks.split()[0].decode()).status, 200)
                    client.expect_eof()
                proxy.wait_metric(lambda n: n <= 10, "client_connections", timeout=2.0 * slowdown())
                for client in clients:
                    client.close()

    def test_a_line_behind_the_close_does_not_cost_a_slow_reader_its_answer(self):
        origin, proxy = self.http_origin(), self.proxy()
        for asks in (request("GET", origin.url + "/bytes/300000", "Connection: close"),
                     request("POST", origin.url + "/bytes/300000", "Connection: close", "Content-Length: 0"),
                     f"GET {origin.url}/bytes/300000 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode()):
            with self.subTest(asks):
                before = proxy.metric("response_body_bytes_total")
                client = Raw(proxy.address, rcvbuf=4096)
                self.addCleanup(client.close)
                client.send(asks)
                proxy.wait_metric(lambda n, b=before: n >= b + 300000, "response_body_bytes_total")
                client.send(b"\r\n")
                response = client.read_response("GET")
                self.assertEqual((response.status, len(response.body)), (200, 300000))
                client.close()

    def test_what_comes_behind_the_last_request_does_not_cost_the_answer(self):
        origin, proxy = self.http_origin(), self.proxy()
        for body in (b"", b"hello"):
            with self.subTest(body):
                client = self.client(proxy)
                client.send(request("POST", origin.url + "/slow/100", "Connection: close", body=body))
                proxy.wait_metric(lambda n: n == 1, "requests_in_flight")
                client.send(b"\r\n")
                self.assert_relayed(client.read_response("POST"), 200, b"late")
                client.expect_eof("the end, and no reset")

    def test_a_clients_close_is_honoured_in_lists_and_any_case(self):
        origin = self.http_origin()
        for line in ("Connection: close", "connection: CLOSE", "Connection: keep-alive, Close", "Connection: x-a,close ,"):
            with self.subTest(line):
                client = self.client()
                client.send(request("GET", origin.url + "/one", line) + request("GET", origin.url + "/two"))
                self.assert_relayed(client.read_response(), 200, b"ok")
                client.expect_eof("a close, and no second answer")
        self.assertNotIn("/two", origin.paths)

    def test_an_http_1_0_client_is_closed_after_its_answer(self):
        origin = self.http_origin()
        client = self.client()
        self.assert_relayed(client.request(request("GET", origin.url + "/", version="HTTP/1.0")), 200, b"ok")
        client.expect_eof()

    def test_an_origins_close_does_not_close_the_client(self):
        def script(conn):
            conn.read_request()
            conn.respond(200, b"bye", "Connection: close")

        origin = self.origin(script)
        client = self.client()
        for _ in range(3):
            self.assert_relayed(client.get(origin.url + "/"), 200, b"bye")
        self.assertEqual(len(origin.connections), 3)

    def test_empty_lines_before_a_request_are_skipped(self):
        origin = self.http_origin()
        client = self.client()
        for _ in range(2):
            self.assert_relayed(client.request(b"\r\n" + request("GET", origin.url + "/")), 200, b"ok")

    def test_a_client_that_sends_only_empty_lines_is_not_served_for_ever(self):
        client = self.client()
        try:
            for _ in range(200):
                client.send(b"\r\n" * 500)
        except (BrokenPipeError, ConnectionResetError):
            return  # closed: fine
        client.half_close()
        rest = client.read_to_eof()
        self.assertTrue(rest == b"" or rest.startswith(b"HTTP/1.1 4"), rest[:200])

    def test_a_client_may_half_close_after_its_request_and_still_read_a_quick_answer(self):
        origin = self.http_origin()
        client = self.client().send(request("GET", origin.url + "/slow/100"))
        client.half_close()
        self.assert_relayed(client.read_response(), 200, b"late")

    def test_a_client_that_closes_without_a_word_is_forgotten(self):
        before = self.px.metric("client_connections")  # some of an earlier test may be leaving
        clients = [self.px.client() for _ in range(20)]
        self.px.wait_metric(lambda v: v >= 20, "client_connections", 5)
        for i, client in enumerate(clients):
            client.reset() if i % 2 else client.close()
        self.px.wait_metric(lambda v: v <= before, "client_connections", 5)

    def test_a_hundred_connections_at_once_are_served(self):
        origin = self.http_origin()
        clients = [self.client() for _ in range(100)]
        for i, client in enumerate(clients):
            client.send(request("POST", origin.url + "/echo", body=b"%d" % i))
        for i, client in enumerate(clients):
            self.assert_relayed(client.read_response("POST"), 200, b"%d" % i)


class ClientTimeoutTest(SharedCase):
    config = {"timeouts": {"client_header": "400ms", "client_idle": "500ms"}}

    def test_an_idle_connection_is_closed_after_client_idle_without_a_word(self):
        origin = self.http_origin()
        client = self.client()
        self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        client.expect_eof()

    def test_a_head_must_be_complete_within_client_header_as_a_whole(self):
        client = self.client()
        stop = threading.Event()

        def drip():
            for byte in request("GET", "http://127.0.0.1:9/", "X-Long: " + "x" * 2000):
                if stop.wait(0.05) or not client.try_send(bytes([byte])):
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            self.assert_self_made(client.read_response(), 408, "http_request_error")
            client.expect_eof()
        finally:
            stop.set()
            dripping.join()

    def test_a_long_answer_is_not_idleness(self):
        origin = self.http_origin()
        client = self.client()
        self.assert_relayed(client.get(origin.url + "/slow/1200"), 200, b"late")


class NoInventedTimeoutTest(Case):
    def test_a_slow_body_is_not_a_slow_head(self):
        proxy = self.proxy({"timeouts": {"client_header": "300ms"}}, self.control())
        origin = self.http_origin()
        client = self.client(proxy).send(request("POST", origin.url + "/echo", "Content-Length: 6"))
        pause = threading.Event()
        for byte in b"abcdef":
            pause.wait(0.15)
            client.send(bytes([byte]))
        self.assert_relayed(client.read_response("POST"), 200, b"abcdef")
