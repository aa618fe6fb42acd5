"""What RFC 9112 and RFC 9110 ask of an intermediary, where no other file tests it.

The table at the top of docs/reliability.md says for each point of the list which tests show
it; names here begin with the section.  MapTest holds that table to the tests there are.
"""

import glob
import os
import re
import threading

from harness import ROOT, BlackHole, Case, SharedCase, chunk, request

HELLO = "\r\n5\r\nhello\r\n0\r\n\r\n"


class RequestTest(SharedCase):
    def test_9112_2_3_we_send_our_own_version_whatever_the_clients_was(self):
        origin = self.http_origin()
        for version in ("HTTP/1.0", "HTTP/1.1", "HTTP/1.2", "HTTP/1.9"):
            with self.subTest(version):
                response = self.client().request(request("GET", origin.url + "/dump", version=version))
                self.assert_relayed(response, 200)
                self.assertTrue(response.body.startswith(b"GET /dump HTTP/1.1\r\n"), response.body)
                self.assertEqual(response.version, "HTTP/1.1")

    def test_9110_7_7_what_looks_like_a_path_to_tidy_is_left_alone_also_in_the_query(self):
        origin = self.http_origin()
        for target in ("/a/../../b", "/%2e%2e/%2F", "/.//./", "/a?../b//c/./%2e", "/\\..\\x", "//other.test/x", "/%", "/a;b=c/../d"):
            with self.subTest(target):
                self.assert_relayed(self.get(origin.url + target), 200)
                self.assertEqual(origin.paths[-1], target)

    def test_9110_4_2_4_userinfo_never_decides_where_a_request_goes(self):
        victim, decoy = self.http_origin(), self.http_origin()
        for authority in (f"{decoy.authority}@{victim.authority}", f"a:b@{victim.authority}", f"{victim.authority}#@{decoy.authority}",
                          f"{victim.authority}\\@{decoy.authority}", f"{victim.authority}%40{decoy.authority}"):
            with self.subTest(authority):
                response = self.client().request(f"GET http://{authority}/ HTTP/1.1\r\nHost: {decoy.authority}\r\n\r\n")
                self.assert_self_made(response, 400, "http_request_error")
        self.assertEqual(victim.hits + decoy.hits, 0)

    def test_9112_3_2_2_the_target_decides_and_host_follows_it(self):
        right, wrong = self.http_origin(), self.http_origin()
        for host in (wrong.authority, "elsewhere.test", "", right.authority.upper(), "127.0.0.1"):
            with self.subTest(host):
                wire = f"GET {right.url}/dump HTTP/1.1\r\nHost: {host}\r\n\r\n"
                response = self.client().request(wire)
                if host == "" and response.status == 400:
                    continue  # no valid Host: refused
                self.assert_relayed(response, 200)
                self.assertIn(f"Host: {right.authority}\r\n".encode(), response.body)
        self.assertEqual(wrong.hits, 0)

    def test_9112_6_3_a_length_is_forwarded_with_one_meaning_or_refused(self):
        # what a client says -> the length the origin is told; None: refused
        cases = [("5", 5), ("05", 5), ("0000000000000000000000000000005", 5), ("5 ", 5), ("\t5", 5),
                 ("9223372036854775808", None), ("18446744073709551615", None), ("18446744073709551616", None),
                 ("18446744073709551621", None), ("5,5", None), ("5;", None), ("5.0", None), ("\"5\"", None), ("5_0", None),
                 ("\xb2", None), ("5\x0b", None), ("٥", None)]
        for value, want in cases:
            with self.subTest(value):
                origin = self.http_origin()
                client = self.client()
                client.send(f"POST {origin.url}/echo HTTP/1.1\r\nHost: {origin.authority}\r\nContent-Length: ".encode() +
                            value.encode("utf-8") + b"\r\n\r\nhello")
                response = client.read_response("POST")
                if want is None:
                    self.assert_self_made(response, 400, "http_request_error")
                    client.expect_eof()
                    self.assertEqual(origin.hits, 0)
                else:
                    self.assert_relayed(response, 200, b"hello")

    def test_9112_6_1_every_way_to_disguise_the_coding_is_refused_and_closes(self):
        lines = ["Transfer-Encoding: xchunked", "Transfer-Encoding: chunked;q=1", "Transfer-Encoding: \"chunked\"",
                 "Transfer-Encoding: chunked, identity", "Transfer-Encoding: identity, chunked",
                 "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
                 "Transfer-Encoding:", "Transfer-Encoding: chunk", "Transfer-Encoding: chunked\x00", "Transfer-Encoding: \x0bchunked",
                 "Transfer-Encoding : chunked", " Transfer-Encoding: chunked", "X: y\r\n Transfer-Encoding: chunked",
                 "Transfer-Encoding:\r\n chunked", "X: y\nTransfer-Encoding: chunked", "X: y\rTransfer-Encoding: chunked",
                 "Transfer-Encoding: chunked\r\nContent-Length: 3", "Content-Length: 3\r\nTransfer-Encoding: chunked",
                 "Content-Length: 3\r\ntransfer-encoding: CHUNKED", "Transfer-Encoding: chunked\r\nContent-Length:"]
        for line in lines:
            with self.subTest(line):
                origin = self.http_origin()
                behind = f"GET {origin.url}/smuggled HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n"
                client = self.client()
                client.send(f"POST {origin.url}/echo HTTP/1.1\r\nHost: {origin.authority}\r\n{line}\r\n{HELLO}{behind}")
                response = client.read_response("POST")
                self.assertIn(response.status, (400, 501), response)
                self.assert_self_made(response, response.status, "http_request_error")
                client.expect_eof()
                self.assertEqual(origin.hits, 0)

    def test_9112_6_1_a_coding_in_http_1_0_is_refused_and_closes(self):
        origin = self.http_origin()
        client = self.client()
        client.send(f"POST {origin.url}/echo HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n{HELLO}"
                    f"GET {origin.url}/smuggled HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n")
        self.assert_self_made(client.read_response("POST"), 400, "http_request_error")
        client.expect_eof()
        self.assertEqual(origin.hits, 0)

    def test_9112_7_1_1_chunks_are_written_anew_and_nothing_of_their_lines_passes(self):
        # the wire from the client -> the data the origin reads
        cases = [(b"5;a=b\r\nhello\r\n0;c=d\r\n\r\n", b"hello"), (b"005\r\nhello\r\n000\r\n\r\n", b"hello"),
                 (b"5 \t\r\nhello\r\n0\r\n\r\n", b"hello"), (b"5 ; a=\"\xff;\"\r\nhello\r\n0\r\n\r\n", b"hello"),
                 (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2)]
        for wire, want in cases:
            with self.subTest(wire):
                origin = self.origin(lambda c: (c.read_request(), c.respond(200, b"ok"), c.wait_for_end()))
                client = self.client()
                client.send(request("POST", origin.url + "/", "Transfer-Encoding: chunked") + wire)
                self.assert_relayed(client.read_response("POST"), 200, b"ok")
                self.assertEqual(origin.requests[0].body, want)
                lines = origin.received().split(b"\r\n\r\n", 1)[1]
                self.assertNotIn(b";", lines.replace(want, b""))

    BAD_CHUNKS = [b"5;a=b\nhello\r\n0\r\n\r\n", b"5;a\rb\r\nhello\r\n0\r\n\r\n", b"5;a\x00b\r\nhello\r\n0\r\n\r\n",
                  b" 5\r\nhello\r\n0\r\n\r\n", b"5 5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n", b"5h\r\nhello\r\n", b"0x0\r\n\r\n",
                  b"fffffffffffffffff\r\nhello", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\r0\r\n\r\n", b"5\r\nhello0\r\n\r\n",
                  b"0\r\nX\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"0\r\n X: y\r\n\r\n", b"0\r\nX: y\n\r\n", b"0\r\nX: \x00\r\n\r\n",
                  b"0\r\nX: y\r\n z\r\n\r\n", b"0\r\n: y\r\n\r\n", b"0\r\nX: y\rZ: a\r\n\r\n", b"0\n\r\n", b"0\r\n\n"]

    def test_9112_7_1_a_malformed_chunk_or_trailer_never_completes_a_request(self):
        for wire in self.BAD_CHUNKS:
            with self.subTest(wire):
                origin = self.origin(lambda c: c.wait_for_end())
                client = self.client()
                client.send(request("POST", origin.url + "/", "Transfer-Encoding: chunked") + chunk(b"good") + wire)
                client.try_send(request("GET", origin.url + "/smuggled"))
                self.assert_self_made(client.read_response("POST"), 400, "http_request_error")
                client.expect_eof()
                if origin.connections:
                    origin.wait_ended()
                    self.assertNotIn(b"\r\n0\r\n", origin.received())
                    self.assertNotIn(b"/smuggled", origin.received())

    def test_9110_7_6_1_a_trailer_that_connection_names_is_removed(self):
        origin = self.origin(lambda c: (c.read_request(), c.respond(200), c.wait_for_end()))
        client = self.client()
        client.send(request("POST", origin.url + "/", "Transfer-Encoding: chunked", "Connection: X-Hop", "connection: close, x-two") +
                    chunk(b"hello") + b"0\r\nX-HOP: 1\r\nX-Stay: 2\r\nx-two: 3\r\nX-Two: 4\r\n\r\n")
        self.assert_relayed(client.read_response("POST"), 200)
        self.assertEqual(origin.requests[0].trailers, [("X-Stay", "2")])

    def test_9110_6_5_1_a_trailer_never_frames_routes_or_authenticates(self):
        names = ["Content-Length", "Transfer-Encoding", "Host", "Authorization", "Proxy-Authorization", "Connection", "TE", "Trailer",
                 "Expect", "Max-Forwards", "Keep-Alive", "Upgrade", "Content-Type", "Cookie", "Set-Cookie"]
        for name in names:
            with self.subTest(name):
                origin = self.origin(lambda c: (c.read_request(), c.respond(200), c.wait_for_end()))
                client = self.client()
                client.send(request("POST", origin.url + "/", "Transfer-Encoding: chunked") + chunk(b"hello") +
                            f"0\r\nX-Sum: 1\r\n{name}: 7\r\n\r\n".encode())
                response = client.read_response("POST")
                if name == "Transfer-Encoding" and response.status == 400:
                    continue
                self.assert_relayed(response, 200)
                self.assertEqual(origin.requests[0].trailers, [("X-Sum", "1")])
                self.assertEqual(origin.requests[0].head.names(), ["host", "transfer-encoding"])

    def test_9112_9_3_2_answers_keep_their_order_across_origins_and_a_fault_behind_them(self):
        slow, fast = self.http_origin(), self.http_origin()
        client = self.client()
        client.send(request("GET", slow.url + "/slow/300") + request("GET", fast.url + "/") + request("HEAD", slow.url + "/bytes/9") +
                    request("POST", fast.url + "/echo", body=b"abc") + b"GET http://x.test/ HTTP/1.1\r\nno colon\r\n\r\n" +
                    request("GET", fast.url + "/after"))
        self.assert_relayed(client.read_response(), 200, b"late")
        self.assert_relayed(client.read_response(), 200, b"ok")
        self.assert_relayed(client.read_response("HEAD"), 200, b"")
        self.assert_relayed(client.read_response("POST"), 200, b"abc")
        self.assert_self_made(client.read_response(), 400, "http_request_error")
        client.expect_eof()
        self.assertNotIn("/after", fast.paths)

    def test_9112_9_6_nothing_behind_a_close_is_served(self):
        for lines in (["Connection: close"], ["Connection: foo, CLOSE"], ["connection: x", "CONNECTION:close,y"],
                      ["Proxy-Connection: close"]):
            with self.subTest(lines):
                origin = self.http_origin()
                client = self.client()
                client.send(request("GET", origin.url + "/first", *lines) + request("GET", origin.url + "/second"))
                self.assert_relayed(client.read_response(), 200, b"ok")
                client.expect_eof()
                self.assertEqual(origin.paths, ["/first"])

    def test_9110_9_3_6_what_is_behind_a_failed_connect_is_no_request(self):
        origin = self.http_origin()
        eager = request("GET", origin.url + "/eager")
        head = b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n"
        for name, at_once, later in (("in the same segment", eager, b""), ("in a later one", b"", eager), ("nothing", b"", b"")):
            with self.subTest(name):
                client = self.client()
                client.send(head + at_once)
                response = client.read_response("CONNECT")
                self.assert_self_made(response, 502, "connection_refused")
                self.assertEqual(response.head.tokens("connection"), ["close"])
                client.send(later)
                client.expect_eof()
        self.assertEqual(origin.paths, [])


class WaitingConnectTest(Case):
    def test_9110_9_3_6_what_comes_while_a_connect_waits_is_no_request_if_it_fails(self):
        px = self.proxy({"timeouts": {"connect": "500ms"}}, self.control())
        origin = self.http_origin()
        hole = BlackHole()
        self.addCleanup(hole.stop)
        client = self.client(px)
        client.send(f"CONNECT {hole.host}:{hole.port} HTTP/1.1\r\nHost: x\r\n\r\n")
        px.wait_metric(lambda n: n == 1, "attempts_in_flight")
        client.send(request("GET", origin.url + "/eager"))
        self.assert_self_made(client.read_response("CONNECT"), 504, "connection_timeout")
        client.expect_eof()
        self.assertEqual(origin.paths, [])


class ResponseTest(SharedCase):
    def answer(self, wire, method="GET", *lines, version="HTTP/1.1", end="wait"):
        """One response, byte for byte; what the client reads, and the origin."""
        def script(conn):
            conn.read_request()
            conn.send(wire)
            if end == "wait":
                conn.wait_for_end()

        origin = self.origin(script)
        client = self.client()
        client.send(request(method, origin.url + "/", *lines, version=version))
        return client, origin

    def test_9112_2_3_an_answer_of_any_minor_version_leaves_as_ours(self):
        for version in ("HTTP/1.0", "HTTP/1.1", "HTTP/1.2", "HTTP/1.9"):
            with self.subTest(version):
                client, _ = self.answer(f"{version} 200 Fine\r\nContent-Length: 2\r\n\r\nok".encode())
                response = client.read_response()
                self.assert_relayed(response, 200, b"ok")
                self.assertEqual((response.version, response.reason), ("HTTP/1.1", "Fine"))

    def test_9112_4_what_is_no_status_line_is_a_502_and_never_wrapped(self):
        for line in (b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b"http/1.1 200 OK", b"HTTP/1.1 200OK", b"HTTP/1.1 099 x", b"HTTP/1.1 1000 x",
                     b"HTTP/1.1 -20 x", b"HTTP/1.1 200 a\x00b", b"HTTP/1.1 200 a\x1bb", b"HTTP/2.0 200 OK", b"\r\nHTTP/1.1 200 OK",
                     b" HTTP/1.1 200 OK", b"<html>hello</html>", b"* OK IMAP4 ready", b"\x15\x03\x01\x00\x02\x02\x28"):
            with self.subTest(line):
                client, origin = self.answer(line + b"\r\nContent-Length: 2\r\n\r\nok")
                self.assert_self_made(client.read_response(), 502, "http_protocol_error")
                origin.wait_ended()

    def test_9110_15_an_unlisted_status_passes_and_counts_as_a_server_error(self):
        for status in (599, 600, 777, 999):
            with self.subTest(status):
                judged = self.delta("attempts_total", outcome="status")
                client, _ = self.answer(f"HTTP/1.1 {status} Made Up\r\nContent-Length: 2\r\n\r\nno".encode())
                self.assert_relayed(client.read_response(), status, b"no")
                self.wait_until(lambda: judged() == 1, 5, "the verdict")

    def test_9110_8_6_equal_lengths_are_merged_and_others_are_a_502(self):
        cases = [("Content-Length: 2\r\nContent-Length: 2", True), ("Content-Length: 2\r\nX: y\r\ncontent-length: 02", True),
                 ("Content-Length: 2\r\nContent-Length: 3", False), ("Content-Length: 2\r\nContent-Length:", False),
                 ("Content-Length: 2\r\nContent-Length: 2\r\nContent-Length: 1", False), ("Content-Length: 2, 2", False),
                 ("Content-Length: +2", False), ("Content-Length: 18446744073709551618", False)]
        for lines, fine in cases:
            with self.subTest(lines):
                client, origin = self.answer(f"HTTP/1.1 200 OK\r\n{lines}\r\n\r\nok".encode())
                response = client.read_response()  # strict: one Content-Length
                if fine:
                    self.assert_relayed(response, 200, b"ok")
                    continue
                self.assert_self_made(response, 502, "http_protocol_error")
                origin.wait_ended()

    def test_9112_6_3_chunked_beats_a_length_and_the_connection_is_not_used_again(self):
        for head in (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                     b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"):
            with self.subTest(head):
                client, origin = self.answer(head + chunk(b"hello") + b"0\r\n\r\n")
                response = client.read_response()
                self.assert_relayed(response, 200, b"hello")
                self.assertEqual(response.get_all("content-length"), [])
                origin.wait_ended()

    def test_9112_7_codings_we_do_not_undo_are_a_502(self):
        # "identity" too: beside a length one reader takes the length, another reads to the end
        for coding in ("gzip", "gzip, chunked", "identity", "chunked, gzip", "chunked, chunked", "x-custom", ""):
            with self.subTest(coding):
                client, origin = self.answer(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\nContent-Length: 2\r\n\r\nok".encode())
                self.assert_self_made(client.read_response(), 502, "http_protocol_error")
                origin.wait_ended()

    def test_9112_6_3_bytes_behind_an_answer_without_a_body_reach_nobody(self):
        evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        cases = [("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), ("HEAD", b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n"),
                 ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"), ("GET", b"HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n"),
                 ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"), ("GET", b"HTTP/1.1 304 N\r\nTransfer-Encoding: chunked\r\n\r\n"),
                 ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")]
        for method, head in cases:
            with self.subTest(head, method=method):
                client, origin = self.answer(head + evil, method)
                response = client.read_response(method)
                self.assertEqual((response.status, response.body), (int(head[9:12]), b""))
                origin.wait_ended()
                other = self.http_origin()
                self.assert_relayed(client.get(other.url + "/"), 200, b"ok")
                self.assertNotIn(b"evil", bytes(client.received))

    def test_9110_15_2_an_interim_answer_ends_with_its_head(self):
        wire = (b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nLink: </a>\r\n\r\n"
                b"HTTP/1.1 102 P\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        client, _ = self.answer(wire)
        response = client.read_response()
        self.assert_relayed(response, 200, b"ok")
        self.assertEqual([h.status for h in response.interim], [103, 102])
        for head in response.interim:
            self.assertEqual(head.get_all("content-length") + head.get_all("transfer-encoding"), [])

    def test_9110_15_2_interim_answers_are_bounded_by_number(self):
        for count, want in ((16, 200), (17, 502)):
            with self.subTest(count):
                limit = self.delta("limit_rejections_total", limit="interim_responses")
                client, _ = self.answer(b"HTTP/1.1 102 P\r\n\r\n" * count + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                self.assertEqual(client.read_response().status, want)
                self.assertEqual(limit(), 1 if want == 502 else 0)

    def test_9110_7_8_a_101_is_passed_on_only_to_who_offered_that_upgrade(self):
        switch = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        offer = ["Connection: Upgrade", "Upgrade: websocket"]
        cases = [("no offer", switch, [], "HTTP/1.1", 502), ("Upgrade not named in Connection", switch, offer[1:], "HTTP/1.1", 502),
                 ("a token that is not listed", switch, ["Connection: Upgrade", "Upgrade: h2c"], "HTTP/1.1", 502),
                 ("HTTP/1.0", switch, offer, "HTTP/1.0", 502), ("offered", switch, offer, "HTTP/1.1", 101),
                 ("offered beside one that is not listed", switch, ["Connection: Upgrade", "Upgrade: h2c, WebSocket"], "HTTP/1.1", 101),
                 ("an answer without Upgrade", b"HTTP/1.1 101 Switching\r\n\r\n", offer, "HTTP/1.1", 502),
                 ("an empty one", switch.replace(b"websocket", b""), offer, "HTTP/1.1", 502),
                 ("another protocol", switch.replace(b"websocket", b"h2c"), offer, "HTTP/1.1", 502),
                 ("one that was not passed on", switch.replace(b"websocket", b"h2c"),
                  ["Connection: Upgrade", "Upgrade: websocket, h2c"], "HTTP/1.1", 502),
                 ("two, one not offered", switch.replace(b"websocket", b"websocket, h2c"), offer, "HTTP/1.1", 502),
                 ("two fields", switch.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\n\r\n"), offer, "HTTP/1.1", 502)]
        for name, wire, lines, version, want in cases:
            with self.subTest(name):
                client, _ = self.answer(wire, "GET", *lines, version=version)
                self.assertEqual(client.read_response_head().status, want)
                client.close()

    def test_9110_7_6_1_an_answers_connection_removes_what_it_names_but_no_framing(self):
        head = (b"HTTP/1.1 200 OK\r\nConnection: content-length, X-Gone, TRANSFER-ENCODING\r\nconnection: x-also\r\nX-Gone: 1\r\n"
                b"X-Also: 2\r\nx-gone: 3\r\nSet-Cookie: a=1\r\nX-Stay: 4\r\nSet-Cookie: b=2\r\n")
        for name, framing in (("length", b"Content-Length: 5\r\n\r\nhello"), ("chunked", b"Transfer-Encoding: chunked\r\n" + HELLO.encode())):
            with self.subTest(name):
                client, _ = self.answer(head + framing)
                response = client.read_response()
                self.assert_relayed(response, 200, b"hello")
                self.assertEqual([f for f in response.head.fields if f[0].lower() not in ("content-length", "transfer-encoding")],
                                 [("Set-Cookie", "a=1"), ("X-Stay", "4"), ("Set-Cookie", "b=2")])

    def test_9110_7_6_1_an_answers_trailer_that_connection_names_is_removed(self):
        client, _ = self.answer(b"HTTP/1.1 200 OK\r\nConnection: x-hop\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"hello") +
                                b"0\r\nX-Hop: 1\r\nX-Sum: 2\r\nContent-Length: 9\r\nWWW-Authenticate: NTLM\r\n\r\n")
        response = client.read_response()
        self.assert_relayed(response, 200, b"hello")
        self.assertEqual(response.trailers, [("X-Sum", "2")])

    def test_9112_8_a_malformed_chunk_or_trailer_never_completes_a_response(self):
        for wire in RequestTest.BAD_CHUNKS:
            for version in ("HTTP/1.1", "HTTP/1.0"):
                with self.subTest(wire, version=version):
                    client, origin = self.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"good") + wire,
                                                 version=version)
                    try:
                        response = client.read_response(allow_truncated=True)
                        self.assertFalse(response.complete, "it looks whole")
                    except ConnectionResetError:
                        pass
                    self.assertFalse(bytes(client.received).endswith(b"0\r\n\r\n"))
                    origin.wait_ended()

    def test_9112_9_3_an_origins_close_is_honoured_in_lists_and_any_case(self):
        for lines in (b"Connection: CLOSE", b"Connection: x, Close", b"connection: y\r\nCONNECTION: ,close,"):
            with self.subTest(lines):
                origin = self.origin(lambda c, lines=lines: (c.read_request(), c.send(
                    b"HTTP/1.1 200 OK\r\n" + lines + b"\r\nContent-Length: 2\r\n\r\nok"), c.wait_for_end()))
                client = self.client()
                self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
                self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
                self.assertEqual([len(c.requests) for c in origin.connections], [1, 1])

    def test_9112_9_3_bytes_that_come_later_on_an_idle_connection_reach_nobody(self):
        go = threading.Event()

        def script(conn):
            conn.read_request()
            conn.respond(200, b"first")
            if conn.index == 0:
                conn.wait(go)
                conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            conn.wait_for_end()

        origin = self.origin(script)
        client = self.client()
        self.assert_relayed(client.get(origin.url + "/"), 200, b"first")
        go.set()
        origin.wait_ended()  # given up as soon as they come
        self.assert_relayed(client.get(origin.url + "/"), 200, b"first")
        self.assertEqual(len(origin.connections), 2)

    def test_9110_15_every_status_of_ours_belongs_to_its_fault(self):
        port = self.http_origin().authority
        cases = [(b"GET http://%s/ HTTP/1.1\r\n\r\n", 400), (b"GET http://%s/ HTTP/3.0\r\nHost: a\r\n\r\n", 505),
                 (b"GET https://%s/ HTTP/1.1\r\nHost: a\r\n\r\n", 501), (b"GET http://%s/" + b"a" * 70000 + b" HTTP/1.1\r\n", 414),
                 (b"GET http://%s/ HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70000, 431),
                 (b"POST http://%s/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: br\r\n\r\n", 501),
                 (b"GET http://nowhere.invalid/ HTTP/1.1\r\nHost: a\r\n\r\n", 502), (b"GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: a\r\n\r\n", 502)]
        for wire, want in cases:
            with self.subTest(wire[:60], want=want):
                client = self.client()
                client.try_send(wire.replace(b"%s", port.encode()))
                response = client.read_response()
                self.assert_self_made(response, want)
                self.assertEqual(response.delimited_by, "length")


class MapTest(Case):
    """docs/reliability.md says which test shows which point; this keeps it true."""

    def test_every_point_of_the_checklist_names_tests_that_exist(self):
        with open(os.path.join(ROOT, "docs/reliability.md"), encoding="utf-8") as f:
            rows = re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", f.read(), re.M)
        self.assertEqual([int(n) for n, _ in rows], list(range(1, 33)))
        known = set()
        for path in glob.glob(os.path.join(ROOT, "tests/*/test_*.*")):
            name = os.path.basename(path)[5:].rpartition(".")[0]
            with open(path, encoding="utf-8") as f:
                text = f.read()
            kind = r"^    def test_(\w+)" if path.endswith(".py") else r"^static void (\w+)\(void \*\*state\)"
            known |= {f"{name}:{test}" for test in re.findall(kind, text, re.M)}
        for number, cell in rows:
            named = re.findall(r"`(\w+:[\w*]+)`", cell)
            self.assertTrue(named, f"point {number} names no test")
            for test in named:
                start = test.rstrip("*")
                found = any(k.startswith(start) for k in known) if test.endswith("*") else test in known
                self.assertTrue(found, f"point {number}: there is no test {test}")

    def test_every_fuzz_target_has_its_row(self):
        with open(os.path.join(ROOT, "docs/reliability.md"), encoding="utf-8") as f:
            section = f.read().partition("\n## Fuzzing\n")[2].partition("What seeds and corpora reached")[0]
        with open(os.path.join(ROOT, "tests/fuzz/fuzz.h"), encoding="utf-8") as f:
            targets = re.findall(r"^ +X\((\w+)\)", f.read(), re.M)
        self.assertGreater(len(targets), 20)
        self.assertEqual(re.findall(r"^\| (\w+) \| [\d ]+ \|", section, re.M), sorted(targets))
