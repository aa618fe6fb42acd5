"""What a peer said before it left still arrives: tunnels and upgraded connections, of which one side breaks."""

import os
import signal
import socket
import threading
import time

from harness import SharedCase, pattern, request, slowdown, wait_until
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


class LastWordsTest(SharedCase):
    workers = 1
    config = {"routes": [{"name": "all", "breakers": ["b"], "router": "rtr", "timeouts": {"tunnel_idle": "2s"},
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
                        conn.sock.recv(1000)
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
                    stop = threading.Event()
                    sender = keep_sending(conn.sock, stop)
                    try:
                        while data := conn.sock.recv(65536):
                            heard.append(data)
                    except ConnectionResetError:
                        heard.append("reset")
                    stop.set()
                    sender.join()

                client, origin = self.open(kind, script)
                client.send(b"\x01")
                client.read_exactly(1)
                time.sleep(0.1)  # both ways are full
                client.send(b"QUIT, and commit 42")
                client.close()
                origin.wait_ended()
                self.assertEqual(b"".join(h for h in heard if h != "reset"), b"QUIT, and commit 42")

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
