"""A client that writes exactly the bytes it is told to, and reads strictly."""

import select
import socket
import struct

from .http import Ended, Response, Stream


def reset(sock):
    """Close with RST instead of FIN."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    sock.close()


class Raw(Stream):
    def __init__(self, address, timeout=15.0, source=None, rcvbuf=None):
        host, port = address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if source:
            sock.bind((source, 0))
        sock.connect((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock, timeout)

    def send(self, data):
        if isinstance(data, str):
            data = data.encode("latin-1")
        self.sock.sendall(data)
        return self

    def try_send(self, data):
        """Send what goes; False when the peer has closed already."""
        if isinstance(data, str):
            data = data.encode("latin-1")
        try:
            self.sock.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        reset(self.sock)

    def close(self):
        self.sock.close()

    def readable(self, seconds=0.0):
        """True if something has arrived (or the end) within the time."""
        return bool(self.buffer) or bool(select.select([self.sock], [], [], seconds)[0])

    def read_response(self, method="GET", allow_truncated=False):
        interim = []
        while True:
            head = self.read_response_head()
            if head.status >= 200 or head.status == 101:
                break
            interim.append(head)
        response = Response(head, interim)
        try:
            self._read_body(response, method)
        except (Ended, ConnectionResetError) as e:
            if not allow_truncated:
                raise
            response.complete = False
            response.body += getattr(e, "data", b"")
        return response

    def _read_body(self, response, method):
        head = response.head
        if method == "HEAD" or head.status in (101, 204, 304):
            return
        if head.chunked():
            response.delimited_by = "chunked"
            parts = []
            try:
                while True:
                    data = self.read_chunk()
                    if not data:
                        break
                    parts.append(data)
                    response.chunks.append(len(data))
                response.trailers = self.read_trailers()
            finally:
                response.body = b"".join(parts)
            return
        length = head.content_length()
        if length is not None:
            response.delimited_by = "length"
            response.body = self.read_exactly(length, f"a body of {length}")
            return
        response.delimited_by = "close"
        response.body = self.read_to_eof()

    def request(self, data, method="GET", **kw):
        self.send(data)
        return self.read_response(method, **kw)

    def get(self, url, *lines, method="GET", body=b"", **kw):
        """A plain absolute-form request; `lines` are further field lines without CRLF."""
        return self.request(request(method, url, *lines, body=body), method, **kw)

    def expect_eof(self, what="a close"):
        """The peer must close now (FIN or RST) without another byte."""
        if self.buffer:
            raise AssertionError(f"wanted {what}, got bytes: {bytes(self.buffer[:300])!r}")
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return
        except TimeoutError:
            raise AssertionError(f"no {what} within {self.timeout:g} s") from None
        if data:
            self.received += data
            raise AssertionError(f"wanted {what}, got bytes: {data[:300]!r}")

    def expect_reset(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return
        raise AssertionError(f"wanted a reset, got {data[:300]!r}" if data else "wanted a reset, got a FIN")

    def expect_silence(self, seconds=0.3):
        if self.readable(seconds):
            data = self.sock.recv(65536) if not self.buffer else bytes(self.buffer)
            raise AssertionError(f"wanted silence, got {data[:300]!r}" if data else "wanted silence, got a close")


def authority_of(url):
    return url.split("://", 1)[1].split("/", 1)[0].split("?", 1)[0]


def request(method, url, *lines, body=b"", version="HTTP/1.1"):
    """The bytes of a request in absolute-form, with Host first and Content-Length last."""
    out = [f"{method} {url} {version}", f"Host: {authority_of(url)}", *lines]
    if body:
        out.append(f"Content-Length: {len(body)}")
    return "\r\n".join(out).encode("latin-1") + b"\r\n\r\n" + body


def chunk(data, extension=b""):
    return b"%x%s\r\n%s\r\n" % (len(data), extension, data)
