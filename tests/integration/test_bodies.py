"""Bodies: streamed both ways, bounded in memory, complete or visibly cut."""

import hashlib
import threading

from harness import BlackHole, Case, Raw, SharedCase, chunk, free_port, pattern, request, variant, wait_until

MIB = 1 << 20
BIG = 8 * MIB


def post_head(url, *lines):
    return request("POST", url, *lines)


class BodyTest(SharedCase):
    workers = 2

    def test_eight_mebibytes_with_content_length_arrive_unchanged_both_ways(self):
        origin = self.http_origin()
        data = pattern(BIG)
        client = self.client(timeout=40)
        sender = threading.Thread(target=client.send, args=(request("POST", origin.url + "/echo", body=data),))
        sender.start()
        response = client.read_response("POST")
        sender.join()
        self.assert_relayed(response)
        self.assertEqual(hashlib.sha256(response.body).digest(), hashlib.sha256(data).digest())

    def test_eight_mebibytes_chunked_arrive_unchanged_both_ways(self):
        origin = self.http_origin()
        data = pattern(BIG)
        client = self.client(timeout=40)
        client.send(post_head(origin.url + "/echo", "Transfer-Encoding: chunked"))

        def send():
            for at in range(0, BIG, 77_777):
                client.send(chunk(data[at:at + 77_777]))
            client.send(b"0\r\n\r\n")

        sender = threading.Thread(target=send)
        sender.start()
        response = client.read_response("POST")
        sender.join()
        self.assertTrue(response.body == data, "the echo differs")
        response = self.client(timeout=40).get(origin.url + f"/chunked/{BIG}")
        self.assertTrue(response.body == data, "the chunked download differs")
        self.assertEqual(response.delimited_by, "chunked")

    def test_eight_mebibytes_ended_by_a_close_arrive_unchanged(self):
        origin = self.http_origin()
        response = self.client(timeout=40).get(origin.url + f"/close-delimited/{BIG}")
        self.assert_relayed(response)
        self.assertTrue(response.body == pattern(BIG), "the download differs")

    def test_every_size_around_a_buffers_edge_arrives_unchanged(self):
        origin = self.http_origin()
        client = self.client()
        edges = [n + d for n in (1 << 14, 1 << 16, 1 << 18) for d in (-1, 0, 1)]
        for n in [0, 1, 2, 4095, 4096, 4097, *edges]:
            for path in ("bytes", "chunked"):
                with self.subTest(n=n, path=path):
                    response = client.get(f"{origin.url}/{path}/{n}")
                    self.assertTrue(response.body == pattern(n))
            with self.subTest(n=n, path="echo"):
                self.assertTrue(client.get(origin.url + "/echo", body=pattern(n), method="POST").body == pattern(n))

    def test_a_body_is_allowed_on_any_method(self):
        origin = self.http_origin()
        client = self.client()
        for method in ("GET", "DELETE", "OPTIONS", "PROPFIND", "BREW"):
            with self.subTest(method):
                response = client.get(origin.url + "/echo", "Max-Forwards: 5", method=method, body=b"a body")
                self.assert_relayed(response, 200, b"a body")

    def test_a_body_that_looks_like_a_request_stays_a_body(self):
        origin = self.http_origin()
        inner = request("GET", origin.url + "/inner")
        client = self.client()
        self.assert_relayed(client.get(origin.url + "/echo", method="POST", body=inner), 200, inner)
        self.assert_relayed(client.get(origin.url + "/after"), 200, b"ok")
        self.assertEqual(origin.paths, ["/echo", "/after"])

    def test_one_byte_chunks_and_extensions_do_not_change_the_data(self):
        origin = self.http_origin()
        data = pattern(300)
        wire = b"".join(chunk(bytes([b]), b";name=value" if i % 3 else b"") for i, b in enumerate(data)) + b"0;last\r\n\r\n"
        client = self.client()
        response = client.request(post_head(origin.url + "/echo", "Transfer-Encoding: chunked") + wire, "POST")
        self.assert_relayed(response, 200, data)

    def test_a_request_that_arrives_byte_by_byte_is_read(self):
        origin = self.http_origin()
        client = self.client()
        wire = post_head(origin.url + "/echo", "Transfer-Encoding: Chunked") + chunk(b"hello") + b"0\r\nX-T: 1\r\n\r\n"
        for byte in wire:
            client.send(bytes([byte]))
        self.assert_relayed(client.read_response("POST"), 200, b"hello")

    def test_a_response_that_arrives_byte_by_byte_is_read(self):
        wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n" + chunk(b"hel") + chunk(b"lo") + b"0\r\n\r\n"

        def script(conn):
            conn.read_request()
            for byte in wire:
                conn.send(bytes([byte]))
            conn.wait_for_end()

        origin = self.origin(script)
        self.assert_relayed(self.get(origin.url + "/"), 200, b"hello")

    def test_request_trailers_stay_trailers_or_are_dropped(self):
        origin = self.http_origin()
        scripted = self.origin(lambda c: (c.read_request(), c.respond(200), c.wait_for_end()))
        client = self.client()
        wire = post_head(scripted.url + "/", "Transfer-Encoding: chunked", "Trailer: X-Sum") + chunk(b"hello")
        wire += b"0\r\nX-Sum: 42\r\nContent-Length: 3\r\nHost: evil.test\r\nTransfer-Encoding: gzip\r\n\r\n"
        self.assertIn(client.request(wire, "POST").status, (200, 400))
        if scripted.requests and scripted.requests[0].body:
            got = scripted.requests[0]
            self.assertNotIn("x-sum", got.head.names())
            self.assertEqual(got.body, b"hello")
            self.assertIn(dict(got.trailers).get("X-Sum"), (None, "42"))
            self.assertFalse({"host", "content-length", "transfer-encoding"} & {n.lower() for n, _ in got.trailers})
        self.assert_relayed(self.get(origin.url + "/"))

    def test_response_trailers_stay_trailers_or_are_dropped(self):
        origin = self.origin(lambda c: (c.read_request(), c.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" + chunk(b"hello") +
            b"0\r\nX-Sum: 42\r\n\r\n"), c.wait_for_end()))
        response = self.get(origin.url + "/")
        self.assert_relayed(response, 200, b"hello")
        self.assertNotIn("x-sum", response.head.names())
        self.assertIn(response.trailers, ([], [("X-Sum", "42")]))

    def test_a_response_is_relayed_as_it_arrives_head_first(self):
        steps = [threading.Event() for _ in range(4)]

        def script(conn):
            conn.read_request()
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for i, step in enumerate(steps):
                conn.wait(step)
                conn.send(chunk(b"%d" % i))
            conn.send("0\r\n\r\n")
            conn.wait_for_end()

        origin = self.origin(script)
        client = self.client().send(request("GET", origin.url + "/"))
        self.assertEqual(client.read_response_head().status, 200)
        for i, step in enumerate(steps):
            step.set()
            self.assertEqual(client.read_chunk(), b"%d" % i)
        self.assertEqual(client.read_chunk(), b"")

    def test_server_sent_events_are_not_held_back(self):
        origin = self.http_origin()
        client = self.client().send(request("GET", origin.url + "/sse"))
        self.assertEqual(client.read_response_head().get("content-type"), "text/event-stream")
        data = b""
        while data.count(b"\n\n") < 3:
            data += client.read_chunk()
        self.assertEqual(data, b"data: 0\n\ndata: 1\n\ndata: 2\n\n")

    def test_a_request_body_is_relayed_as_it_arrives(self):
        seen = []
        parts = [threading.Event() for _ in range(3)]

        def script(conn):
            request_head = conn.read_request(with_body=False)
            for i, part in enumerate(parts):
                seen.append(conn.read_exactly(10))
                part.set()
            conn.respond(200, b"".join(seen))
            conn.wait_for_end()
            del request_head

        origin = self.origin(script)
        client = self.client().send(post_head(origin.url + "/", "Content-Length: 30"))
        for i, part in enumerate(parts):
            client.send(b"%d" % i * 10)
            self.assertTrue(part.wait(5), f"part {i} has to arrive before the next one is sent")
        self.assert_relayed(client.read_response("POST"), 200, b"0" * 10 + b"1" * 10 + b"2" * 10)

    def test_a_final_answer_during_an_upload_is_relayed_while_the_upload_goes_on(self):
        done = threading.Event()

        def script(conn):
            got = conn.read_request(with_body=False)
            conn.read_exactly(1000)
            conn.respond(200, b"early")
            rest = conn.read_exactly(int(got.get("content-length")) - 1000)
            assert len(rest) == 99_000
            done.set()
            conn.wait_for_end()

        origin = self.origin(script)
        client = self.client().send(post_head(origin.url + "/", "Content-Length: 100000") + b"x" * 1000)
        self.assert_relayed(client.read_response("POST"), 200, b"early")
        client.send(b"x" * 99_000)
        self.assertTrue(done.wait(5), "the origin has to get the rest of the upload")

    def test_an_early_refusal_longer_than_the_clients_buffer_arrives_whole(self):
        # The client reads nothing before all of its body has been sent, most of which nobody wants.
        def script(conn):
            conn.read_request_head()
            conn.respond(413, pattern(300_000))
            conn.wait_for_end()

        origin = self.origin(script)
        for size in (1_000_000, 8 * MIB):
            with self.subTest(size):
                client = self.client(rcvbuf=8192).send(post_head(origin.url + "/", f"Content-Length: {size}"))
                wait_until(client.readable, 5, "the answer to come")
                client.send(bytes(size))
                self.assertTrue(client.read_response("POST").body == pattern(300_000))
                client.close()

    def test_a_short_response_looks_cut_to_the_client(self):
        cases = [("length", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 40, "close"),
                 ("length, reset", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 40, "reset"),
                 ("chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"x" * 40), "close"),
                 ("inside a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nxxxx", "close"),
                 ("bad chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"x" * 40) + b"zz\r\n", "close"),
                 ("no CRLF after a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX\r\n0\r\n\r\n", "close")]
        for name, wire, end in cases:
            with self.subTest(name):
                def script(conn, wire=wire, end=end):
                    conn.read_request()
                    conn.send(wire)
                    if end == "reset":
                        conn.wait(head_seen)
                        conn.reset()

                head_seen = threading.Event()
                origin = self.origin(script)
                client = self.client().send(request("GET", origin.url + "/"))
                client.read_until(b"\r\n\r\n")
                head_seen.set()
                rest = self.read_until_closed(client)
                self.assertFalse(rest.endswith(b"0\r\n\r\n"), rest)
                self.assertLess(rest.count(b"x"), 100)

    @staticmethod
    def read_until_closed(client):
        try:
            return client.read_to_eof()
        except ConnectionResetError:
            return bytes(client.buffer)

    def test_a_client_that_leaves_inside_its_body_never_completes_the_request(self):
        cases = [("length", ["Content-Length: 100"], b"x" * 40), ("chunked", ["Transfer-Encoding: chunked"], chunk(b"x" * 40)),
                 ("before the last chunk's end", ["Transfer-Encoding: chunked"], chunk(b"x" * 40) + b"0\r\n")]
        for name, lines, body in cases:
            for how in ("close", "reset"):
                with self.subTest(name, how=how):
                    got_body = threading.Event()

                    def script(conn):
                        conn.read_request(with_body=False)
                        while b"x" * 40 not in conn.received:
                            conn._fill("the body's beginning")
                        got_body.set()
                        conn.wait_for_end()

                    origin = self.origin(script)
                    client = Raw(self.px.address)
                    client.send(post_head(origin.url + "/", *lines) + body)
                    self.assertTrue(got_body.wait(5))
                    client.reset() if how == "reset" else client.close()
                    origin.wait_ended()
                    self.assertFalse(origin.received().endswith(b"0\r\n\r\n"), origin.received())
                    self.assertEqual(len(origin.connections), 1)

    def test_a_fault_inside_a_chunked_body_ends_both_sides(self):
        for name, bad in [("not hexadecimal", b"xyz\r\n"), ("sign", b"+5\r\nhello\r\n"), ("prefix", b"0x5\r\nhello\r\n"),
                          ("no CRLF behind the data", b"5\r\nhelloXX0\r\n\r\n"), ("overflow", b"1" * 17 + b"\r\n"),
                          ("bare LF", b"5\nhello\r\n0\r\n\r\n"), ("empty size", b"\r\nhello\r\n")]:
            with self.subTest(name):
                def script(conn):
                    conn.read_request(with_body=False)
                    conn.wait_for_end()

                origin = self.origin(script)
                client = self.client()
                client.send(post_head(origin.url + "/", "Transfer-Encoding: chunked") + chunk(b"good"))
                origin.wait_connections(1)
                client.send(bad)
                response = client.read_response("POST")
                self.assert_self_made(response, 400, "http_request_error", name)
                client.expect_eof()
                origin.wait_ended()
                self.assertNotIn(b"\r\n0\r\n", origin.received(), "the origin must not see a complete message")

    def test_an_http_1_0_client_gets_the_data_without_chunks(self):
        origin = self.http_origin()
        client = self.client()
        response = client.request(request("GET", origin.url + "/chunked/30000", version="HTTP/1.0"))
        self.assertEqual(response.get_all("transfer-encoding"), [])
        self.assertTrue(response.body == pattern(30000))
        client.expect_eof()

    def test_an_http_1_0_client_can_tell_a_cut_chunked_answer_from_a_complete_one(self):
        # Without chunks only the way the connection ends can tell: a FIN would say "complete".
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"hello")
        cases = [("complete", b"0\r\n\r\n", "close", False), ("complete, with trailers", b"0\r\nA: b\r\n\r\n", "close", False),
                 ("no last chunk", b"", "close", True), ("no last chunk, reset", b"", "reset", True),
                 ("inside a chunk", b"50\r\nxxxx", "close", True), ("inside the last chunk", b"0\r\n", "close", True),
                 ("bad chunk", b"zz\r\n", "wait", True)]
        for name, rest, end, cut in cases:
            with self.subTest(name):
                def script(conn, rest=rest, end=end):
                    conn.read_request()
                    conn.send(head)
                    conn.wait(begun)
                    conn.send(rest)
                    conn.reset() if end == "reset" else conn.close() if end == "close" else conn.wait_for_end()

                begun = threading.Event()
                origin = self.origin(script)
                client = self.client().send(request("GET", origin.url + "/", version="HTTP/1.0"))
                client.read_until(b"hello")
                begun.set()
                if cut:
                    with self.assertRaises(ConnectionResetError, msg="a FIN makes the answer look complete"):
                        client.read_to_eof()
                else:
                    self.assertEqual(client.read_to_eof(), b"")

    def test_a_coded_body_passes_untouched(self):
        data = bytes(range(256)) * 20
        origin = self.origin(lambda c: (c.read_request(), c.respond(200, data, "Content-Encoding: gzip"), c.wait_for_end()))
        response = self.get(origin.url + "/", "Accept-Encoding: gzip")
        self.assert_relayed(response, 200, data)
        self.assertEqual(response.get("content-encoding"), "gzip")

    def test_a_slow_but_steady_transfer_is_not_cut(self):
        origin = self.http_origin()
        response = self.get(origin.url + "/drip/15/100")
        self.assert_relayed(response, 200, pattern(15))

    def test_an_answer_without_any_delimiter_reaches_an_http_1_0_client(self):
        origin = self.http_origin()
        client = self.client()
        response = client.request(request("GET", origin.url + "/close-delimited/5000", version="HTTP/1.0"))
        self.assert_relayed(response, 200, pattern(5000))
        client.expect_eof()


class ExpectTest(SharedCase):
    HEAD = ["Expect: 100-continue", "Content-Length: 5"]

    def test_the_origins_100_is_relayed_before_the_body_is_sent(self):
        def script(conn):
            got = conn.read_request(with_body=False)
            assert got.get("expect") == "100-continue", got.head.fields
            conn.send("HTTP/1.1 100 Continue\r\n\r\n")
            conn.read_body(got)
            conn.respond(200, got.body)
            conn.wait_for_end()

        for more in ([], ["Connection: Expect"]):  # which cannot take it away: the body waits for the answer
            with self.subTest(more):
                origin = self.origin(script)
                client = self.client().send(post_head(origin.url + "/", *self.HEAD, *more))
                self.assertEqual(client.read_response_head().status, 100)
                client.send(b"hello")
                self.assert_relayed(client.read_response("POST"), 200, b"hello")

    def test_a_final_refusal_is_relayed_without_waiting_for_the_body(self):
        for status in (417, 401, 413):
            with self.subTest(status):
                def script(conn, status=status):
                    if conn.index == 0:
                        conn.read_request(with_body=False)
                        conn.respond(status, b"no")
                        conn.wait_for_end()
                    else:
                        conn.read_request()
                        conn.respond(200, b"fresh")
                        conn.wait_for_end()

                origin = self.origin(script)
                client = self.client().send(post_head(origin.url + "/", *self.HEAD))
                self.assert_relayed(client.read_response("POST"), status, b"no")
                # The body was never sent: what comes next must not be taken for it, nor may the
                # origin's connection, which still waits for it, be used again.
                client.close()
                self.assert_relayed(self.get(origin.url + "/next"), 200, b"fresh")
                self.assertEqual(len(origin.connections), 2)
                self.assertEqual(origin.connections[0].requests[0].method, "POST")
                self.assertEqual(len(origin.connections[0].requests), 1)

    def test_a_body_sent_after_a_refusal_is_never_parsed_as_a_request(self):
        origin = self.origin(lambda c: (c.read_request(with_body=False), c.respond(417, b"no"), c.wait_for_end()))
        victim = self.http_origin()
        body = request("GET", victim.url + "/smuggled")
        client = self.client().send(post_head(origin.url + "/", "Expect: 100-continue", f"Content-Length: {len(body)}"))
        self.assert_relayed(client.read_response("POST"), 417, b"no")
        client.try_send(body)
        client.try_send(request("GET", victim.url + "/honest"))
        client.half_close() if client.try_send(b"") else None
        try:
            client.read_to_eof()
        except ConnectionResetError:
            pass
        self.assertNotIn("/smuggled", victim.paths)

    def test_a_client_that_does_not_wait_is_not_stalled(self):
        origin = self.origin(lambda c: (c.read_request(), c.respond(200, b"got it"), c.wait_for_end()))
        client = self.client().send(post_head(origin.url + "/", *self.HEAD) + b"hello")
        self.assert_relayed(client.read_response("POST"), 200, b"got it")
        self.assertEqual(origin.requests[0].body, b"hello")

    def test_an_origin_that_says_nothing_gets_the_body_once_the_client_sends_it(self):
        head_seen = threading.Event()

        def script(conn):
            got = conn.read_request(with_body=False)
            head_seen.set()
            conn.read_body(got)
            conn.respond(200, got.body)
            conn.wait_for_end()

        origin = self.origin(script)
        client = self.client().send(post_head(origin.url + "/", *self.HEAD))
        self.assertTrue(head_seen.wait(5), "the head goes out before the body comes")
        client.expect_silence(0.1)
        client.send(b"hello")
        self.assert_relayed(client.read_response("POST"), 200, b"hello")


class BackPressureTest(Case):
    SIZE = 96 * MIB

    def test_a_client_that_stops_reading_stops_the_origin_and_costs_no_memory(self):
        sent = [0]

        def script(conn):
            conn.read_request()
            conn.send(f"HTTP/1.1 200 OK\r\nContent-Length: {self.SIZE}\r\n\r\n")
            block = pattern(MIB)
            for _ in range(self.SIZE // MIB):
                conn.send(block)
                sent[0] += MIB
            conn.wait_for_end()

        proxy = self.proxy({}, self.control())
        origin = self.origin(script, timeout=50)
        self.assert_relayed(self.get(self.http_origin().url + "/"))
        before = proxy.memory_kib()
        client = self.client(proxy, timeout=50, rcvbuf=65536).send(request("GET", origin.url + "/"))
        client.keep_received = False
        client.read_until(b"\r\n\r\n")
        self.wait_still(sent)
        self.assertLess(sent[0], 64 * MIB, "the sockets' buffers and a little of the proxy's are all that may fill")
        if variant() == "release":
            self.assertLess(proxy.memory_kib() - before, 1500, "KiB more than before")
        digest, want = hashlib.sha256(), hashlib.sha256()
        left = self.SIZE
        while left:
            got = client.read_some()
            digest.update(got)
            left -= len(got)
        for _ in range(self.SIZE // MIB):
            want.update(pattern(MIB))
        self.assertEqual(digest.digest(), want.digest())

    @staticmethod
    def wait_still(counter):
        last = [-1, 0]

        def still():
            last[1] = last[1] + 1 if counter[0] == last[0] else 0
            last[0] = counter[0]
            return last[1] >= 8

        wait_until(still, 20, "the sender to be stopped", step=0.1)

    def test_an_origin_that_stops_reading_stops_the_client(self):
        go = threading.Event()
        got = hashlib.sha256()

        def script(conn):
            conn.keep_received = False
            conn.read_request(with_body=False)
            conn.wait(go, 50)
            left = self.SIZE
            while left:
                data = conn.read_some()
                got.update(data)
                left -= len(data)
            conn.respond(200, b"all here")
            conn.wait_for_end()

        proxy = self.proxy({}, self.control())
        origin = self.origin(script, timeout=50, rcvbuf=65536)
        self.assert_relayed(self.get(self.http_origin().url + "/"))
        before = proxy.memory_kib()
        client = self.client(proxy, timeout=50).send(request("POST", origin.url + "/", f"Content-Length: {self.SIZE}"))
        sent, want = [0], hashlib.sha256()

        def send():
            block = pattern(MIB)
            for _ in range(self.SIZE // MIB):
                client.send(block)
                want.update(block)
                sent[0] += MIB

        sender = threading.Thread(target=send)
        sender.start()
        self.wait_still(sent)
        self.assertLess(sent[0], 64 * MIB)
        if variant() == "release":
            self.assertLess(proxy.memory_kib() - before, 1500, "KiB more than before")
        go.set()
        self.assert_relayed(client.read_response("POST"), 200, b"all here")
        sender.join()
        self.assertEqual(got.digest(), want.digest())


class RefusedUploadTest(SharedCase):
    """An error answer of ours, while the request's body is still under way."""

    warnings = True
    config = {"timeouts": {"connect": "300ms"}}

    def test_a_small_body_that_arrives_after_our_answer_keeps_the_connection(self):
        hole = BlackHole()
        self.addCleanup(hole.stop)
        origin = self.http_origin()
        cases = [("504", f"{hole.url}/", 504), ("502", f"http://127.0.0.1:{free_port()}/", 502)]
        for name, url, status in cases:
            with self.subTest(name):
                client = self.client(timeout=5).send(post_head(url, "Content-Length: 10") + b"abc")
                response = client.read_response("POST")
                self.assert_self_made(response, status)
                self.assertNotIn("close", [v.lower() for v in response.get_all("connection")])
                client.send(b"defghij")
                self.assert_relayed(client.get(origin.url + "/next"), 200, b"ok")
