"""Upstream servers for the tests: one scripted byte by byte, one that speaks plain HTTP.

An Origin runs its script once per accepted connection, in a thread.  A script is a
function of one OriginConn.  What a script did not expect is an error that the test
case reports at its end.
"""

import re
import socket
import threading
import traceback

from .http import Ended, Stream
from .raw import chunk, reset
from .wait import wait_until


class Request:
    """One request as an origin read it."""

    def __init__(self, head):
        self.head = head
        self.body = b""
        self.trailers = []
        self.chunks = []

    method = property(lambda self: self.head.method)
    target = property(lambda self: self.head.target)
    path = property(lambda self: self.head.target.partition("?")[0])

    def get(self, name, default=None):
        return self.head.get(name, default)

    def get_all(self, name):
        return self.head.get_all(name)


class OriginConn(Stream):
    def __init__(self, origin, sock, index, peer):
        super().__init__(sock, origin.timeout)
        self.keep_received = origin.keep_received
        self.origin = origin
        self.index = index  # 0 for the first connection the origin accepted
        self.peer = peer
        self.requests = []
        self.ended = threading.Event()  # the script is over and the socket closed

    def send(self, data):
        if isinstance(data, str):
            data = data.encode("latin-1")
        self.sock.sendall(data)

    def expect(self, data):
        got = self.read_exactly(len(data), repr(data))
        if got != data:
            raise AssertionError(f"wanted {data!r}, got {got!r}")

    def read_request(self, with_body=True):
        head = self.read_request_head()
        request = Request(head)
        self.requests.append(request)
        if with_body:
            self.read_body(request)
        return request

    def read_body(self, request):
        if request.head.chunked():
            while True:
                data = self.read_chunk()
                if not data:
                    break
                request.body += data
                request.chunks.append(len(data))
            request.trailers = self.read_trailers()
        else:
            request.body = self.read_exactly(request.head.content_length() or 0, "a request body")
        return request

    def respond(self, status=200, body=b"", *lines, reason="X"):
        if isinstance(body, str):
            body = body.encode("latin-1")
        head = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}", *lines]
        self.send("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body)

    def wait(self, event, timeout=15.0):
        """Wait for an event of the test; also ends when the origin is being stopped."""
        wait_until(lambda: event.is_set() or self.origin.stopping.is_set(), timeout, "the test's event")

    def wait_for_end(self):
        """Read until the peer ends the connection; returns what came before that."""
        try:
            return self.read_to_eof()
        except ConnectionResetError:
            return b""

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        reset(self.sock)

    def close(self):
        self.sock.close()


class Origin:
    def __init__(self, script=None, host="127.0.0.1", port=0, timeout=15.0, backlog=1024, rcvbuf=None):
        self.script = script
        self.timeout = timeout
        self.keep_received = True
        self.connections = []
        self.errors = []
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if rcvbuf:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.listener.bind((host, port))
        self.listener.listen(backlog)
        self.host = host
        self.port = self.listener.getsockname()[1]
        self.authority = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.url = f"http://{self.authority}"
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                sock, peer = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                conn = OriginConn(self, sock, len(self.connections), peer)
                self.connections.append(conn)
            threading.Thread(target=self._run, args=(conn,), daemon=True).start()

    def _run(self, conn):
        try:
            self.serve(conn)
        except (Ended, ConnectionResetError, BrokenPipeError):
            pass  # the peer left: what the test wants to know of that, it asks
        except Exception as e:  # noqa: BLE001 - reported by the test case
            if not self.stopping.is_set():
                self.errors.append(f"connection {conn.index}: {e}\n{traceback.format_exc()}")
        finally:
            conn.sock.close()
            conn.ended.set()

    def serve(self, conn):
        self.script(conn)

    @property
    def requests(self):
        """Every request read so far, by connection, then in order."""
        return [r for c in list(self.connections) for r in list(c.requests)]

    def received(self, index=0):
        return bytes(self.connections[index].received)

    def wait_connections(self, n, timeout=10.0):
        wait_until(lambda: len(self.connections) >= n, timeout,
                   lambda: f"{n} connections at the origin, there are {len(self.connections)}")

    def wait_requests(self, n, timeout=10.0):
        wait_until(lambda: len(self.requests) >= n, timeout,
                   lambda: f"{n} requests at the origin, there are {len(self.requests)}")

    def wait_ended(self, index=0, timeout=10.0):
        self.wait_connections(index + 1, timeout)
        if not self.connections[index].ended.wait(timeout):
            raise AssertionError(f"connection {index} did not end within {timeout:g} s")

    def stop(self):
        self.stopping.set()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.thread.join(5)
        for conn in list(self.connections):
            try:
                conn.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def in_turn(*scripts):
    """The nth connection runs the nth script; one more is an error."""

    def run(conn):
        if conn.index >= len(scripts):
            raise AssertionError(f"connection {conn.index} was not expected, received {bytes(conn.received[:200])!r}")
        scripts[conn.index](conn)

    return run


def answering(*answers):
    """A script that reads a request and sends the next of the answers, as raw bytes."""

    def run(conn):
        for answer in answers:
            conn.read_request()
            conn.send(answer)
        conn.wait_for_end()

    return run


def pattern(n):
    """n bytes that show where they belong: a lost or doubled block is noticed."""
    block = b"".join(b"%07x\n" % i for i in range(8192))
    return (block * (n // len(block) + 1))[:n] if n > len(block) else block[:n]


class HttpOrigin(Origin):
    """An ordinary HTTP/1.1 server whose behaviour is chosen by the path.

    /status/503         that status, a short body
    /bytes/N            N bytes with Content-Length
    /chunked/N          N bytes, chunked
    /close-delimited/N  N bytes, then a close
    /slow/MS            200 after so many ms
    /drip/N/MS          N bytes, one every MS ms
    /echo               the request's body
    /dump               the request's head, byte for byte
    /sse                three events, then it stays open
    /reset /close /garbage /truncate/N /hang
    anything else       200 "ok"
    """

    def __init__(self, **kw):
        self.down = False  # True: every answer is a 503
        self.hits = 0
        self.paths = []
        self.record = True
        super().__init__(**kw)
        self.keep_received = False

    def serve(self, conn):
        conn.keep_received = False
        while True:
            request = conn.read_request()
            if not self.record:
                conn.requests.clear()
            with self.lock:
                self.hits += 1
                if self.record:
                    self.paths.append(request.target)
            if not self.answer(conn, request):
                return
            if "close" in request.head.tokens("connection"):
                return

    def answer(self, conn, request):
        if self.down:
            conn.respond(503, b"down\n", reason="Service Unavailable")
            return True
        name, _, rest = request.path[1:].partition("/")
        handler = getattr(self, "do_" + re.sub("-", "_", name), None)
        if handler:
            return handler(conn, request, rest) is not False
        conn.respond(200, b"" if request.method == "HEAD" else b"ok", reason="OK")
        return True

    def do_status(self, conn, _request, rest):
        code = int(rest.split("/")[0])
        if code in (204, 304):
            conn.send(f"HTTP/1.1 {code} Nothing\r\n\r\n")
        else:
            conn.respond(code, f"status {code}\n", reason="Scripted")

    def do_bytes(self, conn, request, rest):
        n = int(rest)
        conn.send(f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {n}\r\n\r\n")
        if request.method != "HEAD":
            conn.send(pattern(n))

    def do_chunked(self, conn, _request, rest):
        data = pattern(int(rest))
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(data), 10000):
            conn.send(chunk(data[at:at + 10000]))
        conn.send("0\r\n\r\n")

    def do_close_delimited(self, conn, _request, rest):
        conn.send("HTTP/1.1 200 OK\r\n\r\n")
        conn.send(pattern(int(rest)))
        return False

    def do_slow(self, conn, _request, rest):
        self.stopping.wait(int(rest) / 1000)
        conn.respond(200, b"late", reason="OK")

    def do_drip(self, conn, _request, rest):
        n, ms = (int(x) for x in rest.split("/"))
        conn.send(f"HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n")
        for byte in pattern(n):
            self.stopping.wait(ms / 1000)
            conn.send(bytes([byte]))

    def do_echo(self, conn, request, _rest):
        conn.respond(200, request.body, reason="OK")

    def do_dump(self, conn, request, _rest):
        conn.respond(200, request.head.raw, reason="OK")

    def do_sse(self, conn, _request, _rest):
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(3):
            conn.send(chunk(b"data: %d\n\n" % i))
        conn.wait_for_end()
        return False

    def do_reset(self, conn, _request, _rest):
        conn.reset()
        return False

    def do_close(self, _conn, _request, _rest):
        return False

    def do_garbage(self, conn, _request, _rest):
        conn.send("220 mail.example ESMTP ready\r\n\r\n")
        return False

    def do_truncate(self, conn, _request, rest):
        n = int(rest)
        conn.send(f"HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n")
        conn.send(pattern(n // 2))
        return False

    def do_hang(self, conn, _request, _rest):
        conn.wait_for_end()
        return False


class BlackHole:
    """An address where a connect neither succeeds nor fails: a listener whose queue is full."""

    def __init__(self, host="127.0.0.7", port=0):
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(0)
        self.host = host
        self.port = self.listener.getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        self.fillers = []
        while True:
            filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            filler.settimeout(0.15)
            self.fillers.append(filler)
            try:
                filler.connect((host, self.port))
            except TimeoutError:
                break

    def stop(self):
        for s in [self.listener, *self.fillers]:
            s.close()
