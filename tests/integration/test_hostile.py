"""Clients that mean no good, or hang: they cost little, and others are served beside them."""

import resource
import select
import unittest

from harness import Case, SharedCase, request, stays, wait_until


def room_for_files(n):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < n:
        raise unittest.SkipTest(f"NOT TESTED: this needs {n} open files, {hard} are allowed")
    if soft != resource.RLIM_INFINITY and soft < n:
        resource.setrlimit(resource.RLIMIT_NOFILE, (n, hard))


def still_open(clients):
    """Those that the proxy has neither ended nor told anything."""
    poll = select.poll()
    for client in clients:
        poll.register(client.sock, select.POLLIN)
    heard = {fd for fd, _ in poll.poll(0)}
    return [c for c in clients if c.sock.fileno() not in heard]


class TurnedAwayTest(Case):
    """Connections that are told no, and say nothing themselves."""

    LIMIT, AT_MOST = 20, 256  # the second is the room for those that wait for their refusal

    def crowd(self, proxy, n, **kw):
        return [self.client(proxy, **kw) for _ in range(n)]

    def full(self, **more):
        """A proxy whose limits.connections is reached by clients that are served."""
        proxy = self.proxy({"limits": {"connections": self.LIMIT}, **more}, self.control(), warnings=True)
        origin = self.http_origin()
        admitted = self.crowd(proxy, self.LIMIT)
        for client in admitted:
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
        return proxy, origin, admitted

    def test_clients_that_are_not_allowed_take_no_place_of_those_that_are(self):
        proxy = self.proxy({"allow_clients": ["127.0.0.2/32"], "limits": {"connections": self.LIMIT}}, self.control(),
                           warnings=True)
        origin = self.http_origin()
        self.crowd(proxy, self.LIMIT + 10)
        for i in range(self.LIMIT):
            client = self.client(proxy, source="127.0.0.2")
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok", f"allowed client {i}")

    def test_clients_above_the_limit_take_no_place_of_those_that_come_after_them(self):
        proxy, origin, admitted = self.full()
        above = self.crowd(proxy, self.LIMIT + 10)
        self.assert_self_made(above[-1].get(origin.url + "/"), 503, "connection_limit_reached")
        for client in admitted:
            client.close()

        def served():
            return self.get(origin.url + "/", proxy=proxy).status == 200

        wait_until(served, 5, "a place to be free once the admitted clients have left")

    def test_only_so_many_wait_for_their_refusal(self):
        proxy, origin, admitted = self.full()
        files = proxy.open_files()
        above = self.crowd(proxy, self.AT_MOST + 150)
        wait_until(lambda: len(still_open(above)) <= self.AT_MOST, 5,
                   lambda: f"at most {self.AT_MOST} of {len(above)} to be kept, {len(still_open(above))} are")
        wait_until(lambda: proxy.open_files() <= files + self.AT_MOST + 10, 5,
                   lambda: f"the files to be given back: {files} before, {proxy.open_files()} now")
        for client in admitted:
            self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")

    def test_one_that_says_nothing_is_closed_after_client_header(self):
        for what, config, source in (("above the limit", {"limits": {"connections": 1}}, "127.0.0.1"),
                                     ("not allowed", {"allow_clients": ["127.0.0.1/32"]}, "127.0.0.2")):
            with self.subTest(what):
                proxy = self.proxy({"timeouts": {"client_header": "600ms"}, **config}, self.control(), warnings=True)
                admitted = self.client(proxy)
                self.assert_relayed(admitted.get(self.http_origin().url + "/"), 200, b"ok")
                silent = self.crowd(proxy, 10, source=source)
                stays(lambda: len(still_open(silent)) == 10, 0.3, "10 that may still ask")
                wait_until(lambda: not still_open(silent), 3, lambda: f"10 to be closed, {len(still_open(silent))} are not")
                self.assertEqual(len(still_open([admitted])), 1, "an idle client that was served has more time")


class MemoryTest(Case):
    """limits.buffered_total is for bodies that wait; a new request needs little, and gets it."""

    def test_unfinished_heads_do_not_keep_others_from_being_served(self):
        room_for_files(5000)
        proxy = self.proxy({}, self.control())
        origin = self.http_origin()
        hanging = [self.client(proxy).send(b"G") for _ in range(2300)]
        proxy.wait_metric(lambda v: v >= len(hanging), "client_connections")
        for path, length in (("/", 2), ("/bytes/1000", 1000)):
            response = self.get(origin.url + path, proxy=proxy)
            self.assert_relayed(response, 200, msg=path)
            self.assertEqual(len(response.body), length)
        proxy.expect_metric(0, "limit_rejections_total", limit="buffered_total")

    def test_readers_that_stall_do_not_keep_small_requests_from_being_answered(self):
        proxy = self.proxy({"limits": {"buffered_total": "1MiB"}}, self.control(), warnings=True)
        origin = self.http_origin()
        origin.record = False
        for _ in range(60):
            self.client(proxy, rcvbuf=4096).send(request("GET", origin.url + "/bytes/8000000"))
        self.wait_steady(proxy)
        for _ in range(5):
            # a connection serves one request, so each one has an origin of its own
            whole = self.origin(lambda c: (c.read_request(), c.respond(200, b"ok"), c.wait_for_end()))
            self.assert_relayed(self.client(proxy, timeout=5).get(whole.url + "/"), 200, b"ok", "head and body at once")
            apart = self.client(proxy, timeout=5).get(origin.url + "/bytes/1000")
            self.assert_relayed(apart, 200, msg="the body behind the head")
            echo = self.client(proxy, timeout=5).get(origin.url + "/echo", method="POST", body=b"small")
            self.assert_relayed(echo, 200, b"small")

    def wait_steady(self, proxy):
        """Until what is buffered has not changed for a moment: everybody stalls."""
        seen = []

        def steady():
            seen.append(sum(w["buffered_bytes"] for w in proxy.status()["workers"]))
            return len(seen) > 8 and seen[-1] > 0 and len(set(seen[-8:])) == 1

        wait_until(steady, 10, lambda: f"buffered_bytes to stand still: {seen[-10:]}")


class ConnectionListTest(SharedCase):
    """Each name in Connection is looked for among all fields."""

    FIELDS = [f"X{i}: a" for i in range(120)]
    LIST = ",".join(["a"] * 31_000)

    def test_a_connection_list_of_tens_of_thousands_of_names_is_refused(self):
        origin = self.http_origin()
        for what, lines in (("one field", [f"Connection: {self.LIST}"]),
                            ("many fields", ["Connection: " + ",".join(["a"] * 300)] * 100)):
            with self.subTest(what):
                client = self.client()
                client.try_send(request("GET", origin.url + "/", *lines))
                self.assert_self_made(client.read_response(), 400, "http_request_error")
        self.assertEqual(origin.hits, 0)

    def test_such_a_list_in_a_response_is_a_502(self):
        def script(conn):
            conn.read_request()
            conn.respond(200, b"ok", f"Connection: {self.LIST}")
            conn.wait_for_end()

        self.assert_self_made(self.get(self.origin(script).url + "/"), 502, "http_protocol_error")

    def test_a_list_of_some_names_works_and_as_large_a_field_of_another_name_passes(self):
        origin = self.http_origin()
        names = [f"x-hop-{i}" for i in range(20)]
        head = self.get(origin.url + "/dump", "Connection: " + ", ".join(names), *[f"{n}: 1" for n in names], "X-Kept: 1")
        self.assert_relayed(head, 200)
        self.assertNotIn(b"x-hop-", head.body.lower())
        self.assertIn(b"x-kept: 1", head.body.lower())
        self.assert_relayed(self.get(origin.url + "/", *self.FIELDS, "XX: " + self.LIST), 200, b"ok")
