"""Upstream connections: reused when that is safe, and only then (promise 5)."""

import threading

from harness import Case, SharedCase, request, wait_until


def echo_for_ever(conn):
    while True:
        got = conn.read_request()
        conn.respond(200, f"{conn.index}:{got.target}".encode())


class PoolTest(SharedCase):
    def test_the_next_request_reuses_the_upstream_connection(self):
        origin = self.origin(echo_for_ever)
        reuses = self.delta("upstream_connection_reuses_total")
        client = self.client()
        for i in range(5):
            self.assert_relayed(client.get(f"{origin.url}/{i}"), 200, b"0:/%d" % i)
        self.assertEqual(reuses(), 4)

    def test_another_client_reuses_it_too(self):
        origin = self.origin(echo_for_ever)
        for i in range(3):
            self.assert_relayed(self.get(f"{origin.url}/{i}"), 200, b"0:/%d" % i)

    def test_two_requests_at_once_never_share_one(self):
        go = threading.Event()

        def script(conn):
            while True:
                conn.read_request()
                conn.wait(go)
                conn.respond(200, b"%d" % conn.index)

        origin = self.origin(script)
        clients = [self.client().send(request("GET", origin.url + "/")) for _ in range(3)]
        origin.wait_requests(3)
        go.set()
        self.assertEqual({c.read_response().body for c in clients}, {b"0", b"1", b"2"})

    def test_a_connection_is_used_once_when_the_origin_says_so(self):
        cases = [("close", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
                 ("close in a list", b"HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\nContent-Length: 2\r\n\r\nok"),
                 ("HTTP/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")]
        for name, wire in cases:
            with self.subTest(name):
                def script(conn, wire=wire):
                    conn.read_request()
                    conn.send(wire)
                    assert conn.wait_for_end() == b"", "nothing more may come on this connection"

                origin = self.origin(script)
                client = self.client()
                for _ in range(3):
                    self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
                self.assertEqual(len(origin.connections), 3)

    def test_bytes_behind_a_response_never_reach_a_client(self):
        evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

        def at_once(conn):
            conn.read_request()
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + (evil if conn.index == 0 else b""))
            conn.wait_for_end()

        def later(conn):
            conn.read_request()
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            if conn.index == 0:
                conn.wait(first_read)
                conn.send(evil)
                sent.set()
            conn.wait_for_end()

        for name, script in (("at once", at_once), ("later, on the idle connection", later)):
            with self.subTest(name):
                first_read, sent = threading.Event(), threading.Event()
                origin = self.origin(script)
                client = self.client()
                self.assert_relayed(client.get(origin.url + "/1"), 200, b"ok")
                first_read.set()
                if script is later:
                    self.assertTrue(sent.wait(5))
                    origin.wait_ended(0)  # thrown away with the connection
                self.assert_relayed(client.get(origin.url + "/2"), 200, b"ok")
                client.expect_silence(0.1)
                self.assertEqual(len(origin.connections), 2)

    def test_an_idle_connection_closed_by_the_origin_costs_no_request(self):
        close = threading.Event()

        def script(conn):
            conn.read_request()
            conn.respond(200, b"%d" % conn.index)
            if conn.index == 0:
                conn.wait(close)

        origin = self.origin(script)
        retries = self.delta("retries_total")
        client = self.client()
        self.assert_relayed(client.get(origin.url + "/"), 200, b"0")
        idle = self.px.metric("upstream_connections_idle")
        close.set()
        origin.wait_ended(0)
        self.px.wait_metric(lambda v: v < idle, "upstream_connections_idle")
        self.assert_relayed(client.get(origin.url + "/", method="POST", body=b"x"), 200, b"1")
        self.assertEqual(retries(), 0)

    def test_a_post_is_not_sent_on_a_connection_whose_end_is_already_there(self):
        # The request and then the origin's end arrive while the proxy does not look, so that it
        # finds both at once, the request first.
        for name, end in (("FIN", lambda c: c.close()), ("RST", lambda c: c.reset())):
            with self.subTest(name):
                def script(conn, end=end):
                    conn.read_request()
                    conn.respond(200, b"%d" % conn.index)
                    if conn.index == 0:
                        conn.wait(leave)
                        end(conn)
                    else:
                        conn.wait_for_end()

                leave = threading.Event()
                origin = self.origin(script)
                stale = self.delta("attempts_total", outcome="stale")
                client = self.client()
                self.assert_relayed(client.get(origin.url + "/", method="POST", body=b"x"), 200, b"0")
                wait_until(lambda: self.px.metric("upstream_connections_idle") >= 1, 5, "the connection to be idle")
                with self.px.standing_still():
                    client.send(request("POST", origin.url + "/", body=b"pay once"))
                    leave.set()
                    origin.wait_ended(0)
                self.assert_relayed(client.read_response("POST"), 200, b"1")
                self.assertEqual([r.body for r in origin.requests], [b"x", b"pay once"])
                self.assertEqual(stale(), 0)

    def test_nothing_that_lies_in_a_pooled_connection_is_taken_for_an_answer(self):
        # The bytes come while the proxy does not look, so that it finds them and the request at once.
        stray = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray"
        cases = [(m, stray, False) for m in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST")]
        cases += [("GET", b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", True),
                  ("GET", b"garbage", False)]
        for parked in (False, True):
            for method, bogus, ends in cases:
                with self.subTest(method, bogus=bogus, ends=ends, parked=parked):
                    self.stray_bytes(method, bogus, ends, ["Authorization: NTLM TlRMTVNTUAAB"] if parked else [])

    def stray_bytes(self, method, bogus, ends, lines):
        go, sent = threading.Event(), threading.Event()

        def script(conn):
            conn.read_request()
            conn.respond(200, b"%d" % conn.index)
            if conn.index == 0:
                conn.wait(go)
                conn.send(bogus)
                if ends:
                    conn.half_close()
                sent.set()
            conn.wait_for_end()

        origin = self.origin(script)
        client = self.client()
        idle, reuses = self.px.metric("upstream_connections"), self.delta("upstream_connection_reuses_total")
        self.assert_relayed(client.get(origin.url + "/1", *lines), 200, b"0")
        wait_until(lambda: self.px.metric("upstream_connections") > idle, 5, "the connection to be kept")
        with self.px.standing_still():
            client.send(request(method, origin.url + "/2", *lines, body=b"x" if method == "POST" else b""))
            go.set()
            self.assertTrue(sent.wait(5))
        self.assert_relayed(client.read_response(method), 200, b"" if method == "HEAD" else b"1")
        self.assertEqual([[r.target for r in c.requests] for c in origin.connections], [["/1"], ["/2"]])
        self.assertEqual(reuses(), 0)
        client.close()

    def test_nor_what_the_loop_has_not_fetched_yet_among_many_events(self):
        # More events than the loop fetches at once; the strays are the last of them.
        for method in ("GET", "PUT", "POST"):
            for clients in (20, 60, 200):
                with self.subTest(method, clients=clients):
                    self.crowd_of_strays(method, clients)

    def crowd_of_strays(self, method, clients):
        warm, go, sent = threading.Event(), threading.Event(), []

        def script(conn):
            if not conn.read_request().target.startswith("/warm"):
                conn.respond(200, b"own")
                conn.wait_for_end()
                return
            conn.wait(warm)
            conn.respond(200, b"warm")
            conn.wait(go)
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray")
            sent.append(conn.index)
            conn.wait_for_end()

        origin = self.origin(script)
        proxy = self.proxy({"workers": 1, "limits": {"connections_per_client": 1000}}, warnings=True)
        crowd = [self.client(proxy).send(request("GET", f"{origin.url}/warm{i}")) for i in range(clients)]
        origin.wait_requests(clients)
        warm.set()
        for client in crowd:
            self.assertEqual(client.read_response().body, b"warm")
        proxy.expect_metric(clients, "upstream_connections_idle")
        with proxy.standing_still():
            for client in crowd:
                client.send(request(method, origin.url + "/mine", body=b"x" if method != "GET" else b""))
            go.set()
            wait_until(lambda: len(sent) == clients, 10, "the strays to be sent")
        for client in crowd:
            self.assert_relayed(client.read_response(method), 200, b"own")
            client.close()
        proxy.stop()

    def stale(self, end, answer_again=True):
        """An origin whose first connection serves once and then ends unanswered at its second request."""

        def script(conn):
            conn.read_request()
            conn.respond(200, b"first %d" % conn.index)
            if conn.index == 0 or not answer_again:
                conn.read_request(with_body=False)
                end(conn)

        return self.origin(script)

    def test_an_idempotent_request_on_a_stale_connection_is_sent_once_more(self):
        for name, end in (("FIN", lambda c: c.close()), ("RST", lambda c: c.reset())):
            for method in ("GET", "HEAD", "OPTIONS", "DELETE"):
                with self.subTest(name, method=method):
                    origin = self.stale(end)
                    attempts = self.delta("attempts_started_total")
                    retries = self.delta("retries_total", reason="stale_connection")
                    client = self.client()
                    self.assert_relayed(client.get(origin.url + "/1"), 200, b"first 0")
                    response = client.get(origin.url + "/2", "Max-Forwards: 5", method=method)
                    self.assert_relayed(response, 200, b"" if method == "HEAD" else b"first 1")
                    self.assertEqual([r.target for r in origin.requests], ["/1", "/2", "/2"])
                    self.assertEqual((attempts(), retries()), (2, 1), "it stays one attempt")

    def test_a_post_on_a_stale_connection_is_not_sent_again(self):
        stale = self.delta("attempts_total", outcome="stale")
        for name, end in (("FIN", lambda c: c.close()), ("RST", lambda c: c.reset())):
            with self.subTest(name):
                origin = self.stale(end)
                client = self.client()
                self.assert_relayed(client.get(origin.url + "/1"), 200, b"first 0")
                response = client.get(origin.url + "/2", method="POST", body=b"pay once")
                self.assert_self_made(response, 502, "connection_terminated")
                self.assertEqual([r.method for r in origin.requests], ["GET", "POST"])
                self.assertEqual(len(origin.connections), 1)
        self.assertEqual(stale(), 2)

    def test_a_request_is_sent_again_once_and_not_twice(self):
        def script(conn):
            if conn.index == 0:
                conn.read_request()
                conn.respond(200, b"ok")
            conn.read_request()  # and close

        origin = self.origin(script)
        reset = self.delta("attempts_total", outcome="reset")
        client = self.client()
        self.assert_relayed(client.get(origin.url + "/1"), 200, b"ok")
        self.assert_self_made(client.get(origin.url + "/2"), 502, ("connection_terminated", "http_response_incomplete"))
        self.assertEqual([r.target for r in origin.requests], ["/1", "/2", "/2"])
        self.assertEqual(reset(), 1)

    def test_nothing_is_sent_again_on_a_fresh_connection(self):
        origin = self.origin(lambda c: c.read_request())
        reset = self.delta("attempts_total", outcome="reset")
        self.assert_self_made(self.get(origin.url + "/"), 502, ("connection_terminated", "http_response_incomplete"))
        self.assertEqual(len(origin.requests), 1)
        self.assertEqual(reset(), 1)

    def test_nothing_is_sent_again_once_any_response_byte_came(self):
        for name, some in (("one byte", b"H"), ("an interim answer", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
                           ("half a head", b"HTTP/1.1 200 OK\r\nConte")):
            with self.subTest(name):
                origin = self.stale(lambda c, some=some: (c.send(some), c.close()))
                client = self.client()
                self.assert_relayed(client.get(origin.url + "/1"), 200, b"first 0")
                client.send(request("GET", origin.url + "/2"))
                self.assert_self_made(client.read_response(), 502)
                self.assertEqual([r.target for r in origin.requests], ["/1", "/2"])

    def test_a_connection_with_an_unfinished_response_is_never_reused(self):
        go = threading.Event()

        def script(conn):
            conn.read_request()
            if conn.index:
                conn.respond(200, b"fresh")
                conn.wait_for_end()
                return
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
            conn.wait(go)
            conn.wait_for_end()

        origin = self.origin(script)
        client = self.client().send(request("GET", origin.url + "/1"))
        self.assertEqual(client.read_response_head().status, 200)
        client.read_exactly(4)
        client.reset()
        go.set()
        origin.wait_ended(0)
        self.assert_relayed(self.get(origin.url + "/2"), 200, b"fresh")

    def test_a_connection_with_an_unfinished_request_is_never_reused(self):
        def script(conn):
            if conn.index:
                return echo_for_ever(conn)
            conn.read_request(with_body=False)
            conn.respond(200, b"early")
            conn.wait_for_end()

        origin = self.origin(script)
        client = self.client().send(request("POST", origin.url + "/1", "Content-Length: 100") + b"only this")
        self.assert_relayed(client.read_response("POST"), 200, b"early")
        client.close()
        origin.wait_ended(0)
        self.assert_relayed(self.get(origin.url + "/2"), 200, b"1:/2")


class PoolLimitTest(Case):
    def test_an_idle_upstream_connection_is_closed_after_upstream_idle(self):
        self.proxy({"timeouts": {"upstream_idle": "300ms"}}, self.control())
        origin = self.origin(echo_for_ever)
        self.assert_relayed(self.get(origin.url + "/1"), 200, b"0:/1")
        origin.wait_ended(0, timeout=5)
        self.assert_relayed(self.get(origin.url + "/2"), 200, b"1:/2")

    def test_no_more_than_limits_upstream_idle_are_kept(self):
        proxy = self.proxy({"limits": {"upstream_idle": 2}}, self.control())
        go = threading.Event()

        def script(conn):
            conn.read_request()
            conn.wait(go)
            conn.respond(200, b"ok")
            conn.wait_for_end()

        origin = self.origin(script)
        clients = [self.client(proxy).send(request("GET", origin.url + "/")) for _ in range(6)]
        origin.wait_requests(6)
        go.set()
        for client in clients:
            self.assert_relayed(client.read_response(), 200, b"ok")
        wait_until(lambda: sum(c.ended.is_set() for c in origin.connections) == 4, 3,
                   lambda: f"4 of 6 closed, {sum(c.ended.is_set() for c in origin.connections)} are")
        proxy.expect_metric(2, "upstream_connections_idle")
        proxy.expect_metric(4, "limit_rejections_total", limit="upstream_idle")

    def test_a_keep_alive_of_five_seconds_at_the_origin_never_meets_a_request(self):
        # The default upstream_idle of 4 s is below the 5 s of common servers.
        def script(conn):
            while True:
                conn.read_request()
                conn.respond(200, b"ok")
                conn.sock.settimeout(5.0)

        self.proxy({}, self.control())
        origin = self.origin(script)
        self.assert_relayed(self.get(origin.url + "/1"), 200, b"ok")
        origin.wait_ended(0, timeout=4.9)


class PrivateConnectionTest(SharedCase):
    """NTLM and Negotiate authenticate a connection, not a request."""

    def ntlm_origin(self, scheme, first_status=401):
        def script(conn):
            got = conn.read_request()
            while True:
                if got.get("authorization"):
                    conn.respond(200, b"user on %d" % conn.index)
                elif conn.requests[0] is not got and any(r.get("authorization") for r in conn.requests):
                    conn.respond(200, b"user on %d" % conn.index)  # the connection is authenticated
                elif got.target == "/open":
                    conn.respond(200, b"open")
                else:
                    conn.respond(first_status, b"who?", f"WWW-Authenticate: {scheme}")
                got = conn.read_request()

        return self.origin(script)

    def test_an_authenticated_upstream_connection_belongs_to_its_client(self):
        for scheme in ("NTLM", "Negotiate", "negotiate oYG2MIG"):
            with self.subTest(scheme):
                origin = self.ntlm_origin(scheme)
                alice = self.client()
                self.assert_relayed(alice.get(origin.url + "/"), 401)
                auth = "Authorization: " + scheme.split()[0] + " TlRMTVNTUAAB"
                self.assert_relayed(alice.get(origin.url + "/", auth), 200, b"user on 0")
                self.assert_relayed(alice.get(origin.url + "/"), 200, b"user on 0")
                bob = self.client()
                self.assert_relayed(bob.get(origin.url + "/"), 401)
                self.assert_relayed(alice.get(origin.url + "/"), 200, b"user on 0")
                alice.close()
                origin.wait_ended(0)
                bob.close()
                carol = self.client()
                response = carol.get(origin.url + "/")
                self.assert_relayed(response, 401)
                carol.close()

    def test_a_client_keeps_a_private_connection_to_each_of_two_hosts(self):
        origins = [self.ntlm_origin("NTLM"), self.ntlm_origin("NTLM")]
        alice = self.client()
        for name, lines, status, body in (("asked to authenticate", [], 401, b"who?"),
                                          ("authenticates", ["Authorization: NTLM TlRMTVNTUAAB"], 200, b"user on 0"),
                                          ("is authenticated", [], 200, b"user on 0"), ("still is", [], 200, b"user on 0")):
            for i, origin in enumerate(origins):
                with self.subTest(name, host=i):
                    self.assert_relayed(alice.get(origin.url + "/", *lines), status, body)
        for i, origin in enumerate(origins):
            with self.subTest("another client", host=i):
                self.assertEqual(len(origin.connections), 1)
                self.assert_relayed(self.client().get(origin.url + "/"), 401)
        alice.close()
        for origin in origins:
            origin.wait_ended(0)

    def test_a_client_that_begins_with_ntlm_gets_a_private_connection(self):
        origin = self.ntlm_origin("NTLM")
        alice = self.client()
        self.assert_relayed(alice.get(origin.url + "/", "Authorization: NTLM TlRMTVNTUAAB"), 200, b"user on 0")
        self.assert_relayed(self.client().get(origin.url + "/open"), 200, b"open")
        self.assertEqual(len(origin.connections), 2)
        self.assert_relayed(alice.get(origin.url + "/"), 200, b"user on 0")

    def test_a_private_connection_stays_where_it_is_whatever_dns_says(self):
        names, origin = self.dns(), self.ntlm_origin("NTLM")
        names.set("a.test", "127.0.0.1", ttl=1)
        proxy = self.proxy({"dns": {"min_ttl": "1s"}}, dns=names)
        alice, url = self.client(proxy), f"http://a.test:{origin.port}/"
        self.assert_relayed(alice.get(url), 401)
        names.set("a.test", "127.0.0.9", ttl=1)
        wait_until(lambda: self.moved(proxy, url), 5, "another address to be known", step=0.1)
        self.assert_relayed(alice.get(url, "Authorization: NTLM TlRMTVNTUAAB"), 200, b"user on 0")
        self.assert_relayed(alice.get(url), 200, b"user on 0")

    def moved(self, proxy, url):
        """Nobody listens at the new address."""
        return self.client(proxy).get(url).status == 502

    def test_basic_authentication_does_not_make_a_connection_private(self):
        origin = self.origin(echo_for_ever)
        self.assert_relayed(self.get(origin.url + "/1", "Authorization: Basic eDp5"), 200, b"0:/1")
        self.assert_relayed(self.get(origin.url + "/2"), 200, b"0:/2")
