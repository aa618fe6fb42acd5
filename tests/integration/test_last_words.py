"""What a peer said before it left still arrives: tunnels and upgraded connections, of which one side breaks."""

import contextlib
import os
import signal
import socket
import threading
import time

from harness import Case, SharedCase, pattern, request, slowdown, wait_until
from harness.tunnels import tunnel

SWITCH = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
KINDS = ("tunnel", "upgrade")


def keep_sending(sock, stop):
    """In a thread of its own, whatever becomes of it."""
    def run():
        try:
            while not stop.is_set():
                sock.send(b"\x01" * 65536)
        except OSError:
            pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def fill(sock):
    """Send for as long as somebody takes it; it does not block any more."""
    sock.setblocking(False)
    last = time.monotonic()
    while time.monotonic() < last + 0.5:
        try:
            sock.send(b"x" * 65536)
            last = time.monotonic()
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:
            return


class LastWordsTest(SharedCase):
    workers = 1
    config = {"routes": [{"name": "all", "breakers": ["b"], "router": "rtr",
                          "tags": {"outcome": "{outcome}", "host": "{host}"}}]}

    def tearDown(self):
        os.kill(self.px.pid, signal.SIGCONT)
        super().tearDown()

    def open(self, kind, script, **kw):
        """A client whose bytes reach the script, and the origin."""
        def run(conn):
            conn.keep_received = False
            if kind == "upgrade":
                conn.read_request()
                conn.send(SWITCH)
            script(conn)

        origin, client = self.origin(run), self.client(**kw)
        if kind == "tunnel":
            return tunnel(client, origin.authority), origin
        client.send(request("GET", origin.url + "/", "Connection: Upgrade", "Upgrade: websocket"))
        self.assertEqual(client.read_response_head().status, 101)
        return client, origin

    def read_all(self, client):
        """All that comes, and how it ended."""
        got = bytearray(client.buffer)
        try:
            while data := client.sock.recv(65536):
                got += data
        except ConnectionResetError:
            return bytes(got), "reset"
        return bytes(got), "end"

    def outcomes(self, origin):
        found = self.cp.wait_samples(1, where=lambda s: s["tags"]["host"] == origin.authority)
        return [s["tags"]["outcome"] for s in found]

    def test_an_answer_that_is_here_already_is_heard_although_the_upload_breaks(self):
        for kind in KINDS:
            for unread in (1000, 0):
                with self.subTest(kind, unread=unread):
                    answered = threading.Event()
                    go = threading.Event()

                    def script(conn, unread=unread, go=go, answered=answered):
                        left = 1000
                        while left:
                            left -= len(conn.sock.recv(left))
                        wait_until(lambda: len(conn.sock.recv(2000, socket.MSG_PEEK)) == unread if unread else True, 5, "the rest")
                        conn.wait(go)
                        conn.send(b"answer" * 50)
                        conn.close()  # a reset, if anything is unread
                        answered.set()

                    client, origin = self.open(kind, script)
                    client.send(b"\x01" * (1000 + unread))
                    time.sleep(0.1)  # it has been passed on: nothing tells when the last of it has
                    os.kill(self.px.pid, signal.SIGSTOP)
                    client.send(b"\x02" * 100)
                    time.sleep(0.05)  # looked at first
                    go.set()
                    self.assertTrue(answered.wait(5))
                    os.kill(self.px.pid, signal.SIGCONT)
                    got, end = self.read_all(client)
                    self.assertEqual(got, b"answer" * 50)
                    self.assertEqual(end, "reset" if unread else "end")
                    self.assertEqual(self.outcomes(origin), ["success"])

    def test_a_large_answer_is_heard_to_its_end_by_a_client_that_goes_on_sending(self):
        for kind in KINDS:
            for eaten in (1000, 5_000_000):  # copied; spliced
                for orderly in (True, False):
                    with self.subTest(kind, eaten=eaten, orderly=orderly):
                        # A reset takes along what the origin's kernel could not send yet.
                        answer = pattern(400_000 if orderly else 50_000)

                        def script(conn, eaten=eaten, orderly=orderly, answer=answer):
                            left = eaten
                            while left > 0:
                                left -= len(conn.sock.recv(min(left, 65536)))
                            conn.send(answer)
                            if orderly:
                                conn.half_close()
                                time.sleep(0.3)
                            conn.close()

                        client, origin = self.open(kind, script, rcvbuf=16384)
                        stop = threading.Event()
                        sender = keep_sending(client.sock, stop)
                        time.sleep(0.5)
                        got, end = self.read_all(client)
                        stop.set()
                        sender.join()
                        self.assertTrue(got == answer, f"{len(got)} bytes came, then {end}")
                        if orderly:
                            self.assertEqual(end, "end")
                        self.assertEqual(self.outcomes(origin), ["success"])
                        client.close()
        self.px.expect_metric(0, "tunnels")

    def test_a_reset_without_a_byte_stays_a_reset(self):
        client, origin = self.open("tunnel", lambda conn: (conn.sock.recv(10), conn.reset()))
        client.try_send(b"\x01" * 100_000)
        self.assertEqual(self.read_all(client), (b"", "reset"))
        self.assertEqual(self.outcomes(origin), ["reset"])

    def test_the_last_words_of_a_client_are_heard_and_followed_by_a_reset(self):
        for kind in KINDS:
            with self.subTest(kind):
                heard = []

                def script(conn, heard=heard):
                    conn.sock.recv(10)
                    conn.send(pattern(300_000))  # much of it waits in the proxy, so that a FIN would be no reset
                    try:
                        while data := conn.sock.recv(65536):
                            heard.append(data)
                    except ConnectionResetError:
                        heard.append("reset")

                client, origin = self.open(kind, script, rcvbuf=16384)
                client.send(b"\x01")
                client.read_exactly(1)
                time.sleep(0.1)  # that way is full
                client.send(b"QUIT, and commit 42")
                client.close()
                origin.wait_ended()
                self.assertEqual(heard, [b"QUIT, and commit 42", "reset"])

    def test_a_server_that_answers_to_nobody_is_told_all_that_a_client_had_said(self):
        for kind in KINDS:
            with self.subTest(kind):
                heard = []

                def script(conn, heard=heard):
                    conn.sock.settimeout(60)
                    while data := conn.sock.recv(65536):
                        heard.append(len(data))
                        with contextlib.suppress(OSError):  # what came before the reset may still be read
                            conn.sock.sendall(data)

                sent = self.delta("tunnel_bytes_total", direction="up")
                client, origin = self.open(kind, script)
                fill(client.sock)
                client.reset()
                origin.wait_ended()
                self.px.expect_metric(0, "tunnels")
                self.assertEqual(sum(heard), sent())

    def test_a_tunnel_of_which_one_side_is_gone_ends_although_the_other_takes_nothing(self):
        stop = threading.Event()
        self.addCleanup(stop.set)

        def deaf_speaker(conn):
            conn.sock.recv(10)
            while not stop.is_set():
                fill(conn.sock)

        def deaf_and_dumb(conn):
            conn.sock.recv(10)
            conn.wait(stop, 60)

        def leaves(conn):
            conn.sock.recv(10)
            fill(conn.sock)
            conn.reset()

        clients = []
        for kind in KINDS:
            for script in (deaf_speaker, deaf_and_dumb, leaves):
                client, _ = self.open(kind, script)
                threading.Thread(target=fill, args=(client.sock,), daemon=True).start()
                clients.append((client, script))
        time.sleep(3)  # all ways are full
        self.assertGreaterEqual(self.px.metric("tunnels"), 4)
        for client, script in clients:
            if script is not leaves:
                client.reset()
        self.px.wait_metric(lambda n: n == 0, "tunnels", timeout=20 * slowdown())
        self.px.wait_metric(lambda n: n == 0, "client_connections", timeout=5)
        self.px.wait_balance(settled=True)

    def test_who_sends_for_ever_and_reads_nothing_costs_nothing_and_is_cut_in_the_end(self):
        go = threading.Event()

        def script(conn):
            conn.sock.recv(1000)
            conn.wait(go)
            conn.sock.settimeout(2)
            try:
                conn.send(pattern(8_000_000))
            except TimeoutError:
                pass
            conn.close()

        client, _ = self.open("tunnel", script, rcvbuf=8192)
        stop = threading.Event()
        sender = keep_sending(client.sock, stop)
        go.set()
        time.sleep(3)
        cpu = self.px.metric("process_cpu_seconds_total")
        time.sleep(1)
        self.assertLess(self.px.metric("process_cpu_seconds_total") - cpu, 0.2 * slowdown())
        self.px.wait_metric(lambda n: n == 0, "tunnels", timeout=20)
        self.px.wait_metric(lambda n: n == 0, "client_connections", timeout=20)
        self.px.expect_metric(0, "attempts_in_flight")
        stop.set()
        sender.join()
        client.close()


class SlowReaderTest(Case):
    def test_who_reads_slowly_is_not_idle_although_the_other_side_is_gone(self):
        answer = pattern(2_000_000)

        def script(conn):
            conn.sock.recv(1000)
            conn.send(answer)
            conn.half_close()
            time.sleep(0.3)
            conn.close()

        route = {"name": "all", "breakers": ["b"], "router": "rtr", "timeouts": {"tunnel_idle": "1s"}}
        self.proxy({"workers": 1, "routes": [route]}, self.control())
        client = tunnel(self.client(rcvbuf=16384), self.origin(script).authority)
        stop = threading.Event()
        self.addCleanup(stop.set)
        keep_sending(client.sock, stop)
        got = bytearray(client.buffer)
        while data := client.sock.recv(40_000):
            got += data
            time.sleep(0.05)
        self.assertTrue(got == answer, f"{len(got)} bytes came")


class StarvedTest(Case):
    def test_a_tunnel_both_of_whose_sides_left_while_there_is_no_memory_ends_and_blames_nobody(self):
        go = threading.Event()
        answered = threading.Event()

        def script(conn):
            conn.sock.recv(1000)
            conn.wait(go)
            conn.send(b"answer")
            conn.close()  # a reset, for one byte is unread
            answered.set()

        proxy = self.proxy({"workers": 1, "limits": {"buffered_total": "1MiB"}}, self.control(), warnings=True)
        client = tunnel(self.client(), self.origin(script).authority)
        client.send(b"\x01" * 1001)
        url = self.http_origin(timeout=60).url
        for _ in range(60):
            self.client(rcvbuf=4096).send(request("GET", url + "/bytes/8000000"))
        proxy.wait_metric(lambda n: n > 0, "limit_rejections_total", limit="buffered_total")
        time.sleep(1)  # the others have come to rest
        go.set()
        self.assertTrue(answered.wait(5))
        client.send(b"\x02")  # so the upstream is found to be gone: nothing tells when
        time.sleep(0.3)
        client.reset()
        proxy.expect_metric(0, "tunnels", timeout=15)
        # Success, if its turn to read came in spite of all.
        outcomes = {k: v for k, v in proxy.metrics().by("attempts_total", "outcome").items() if v}
        self.assertIn(outcomes, [{"local": 1}, {"client_abort": 1}, {"success": 1}])
