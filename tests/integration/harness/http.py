"""A strict and small reading of HTTP/1 messages, shared by clients and origins.

Nothing here is forgiving: the tests look at what the proxy writes, so anything that
could be read in two ways is an error.
"""

import re

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


class BadMessage(AssertionError):
    """The peer wrote something that is not a well-formed HTTP/1 message."""


class Ended(ConnectionError):
    """The peer ended the connection (FIN) before what was expected had arrived."""

    def __init__(self, text, data=b""):
        super().__init__(text)
        self.data = data


class Head:
    """The first line and the fields of a message; `raw` is every byte up to the empty line."""

    def __init__(self, raw):
        self.raw = bytes(raw)
        if not self.raw.endswith(b"\r\n\r\n"):
            raise BadMessage(f"head does not end in an empty line: {self.raw[-80:]!r}")
        lines = self.raw[:-4].split(b"\r\n")
        for line in lines:
            if b"\n" in line or b"\r" in line or b"\0" in line:
                raise BadMessage(f"a bare CR, LF or NUL in the head: {line!r}")
        self.first = lines[0]
        self.lines = lines[1:]
        self.fields = []
        for line in self.lines:
            name, colon, value = line.partition(b":")
            if not colon or not TOKEN.match(name):
                raise BadMessage(f"not a field line: {line!r}")
            self.fields.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))

    def get_all(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.get_all(name)
        if len(values) > 1:
            raise BadMessage(f"{len(values)} fields {name}: {values}")
        return values[0] if values else default

    def tokens(self, name):
        """The members of a comma-separated field over all its lines, lower case."""
        return [t.strip().lower() for v in self.get_all(name) for t in v.split(",") if t.strip()]

    def names(self):
        return [n.lower() for n, _ in self.fields]

    def content_length(self):
        values = self.get_all("content-length")
        if not values:
            return None
        if len(values) > 1 or not re.fullmatch(r"[0-9]+", values[0]):
            raise BadMessage(f"Content-Length {values}")
        return int(values[0])

    def chunked(self):
        codings = self.tokens("transfer-encoding")
        if not codings:
            return False
        if codings != ["chunked"]:
            raise BadMessage(f"Transfer-Encoding {codings}")
        if self.get_all("content-length"):
            raise BadMessage("Content-Length beside Transfer-Encoding")
        return True


class RequestHead(Head):
    def __init__(self, raw):
        super().__init__(raw)
        parts = self.first.split(b" ")
        if len(parts) != 3 or not TOKEN.match(parts[0]) or not re.fullmatch(rb"HTTP/1\.[01]", parts[2]):
            raise BadMessage(f"not a request line: {self.first!r}")
        self.method, self.target, self.version = (p.decode("latin-1") for p in parts)


class ResponseHead(Head):
    def __init__(self, raw):
        super().__init__(raw)
        m = re.fullmatch(rb"(HTTP/1\.[01]) ([1-9][0-9][0-9]) ?([^\r\n]*)", self.first)
        if not m:
            raise BadMessage(f"not a status line: {self.first!r}")
        self.version = m[1].decode()
        self.status = int(m[2])
        self.reason = m[3].decode("latin-1")


class Response:
    """One final response. `interim` are the 1xx heads before it; `complete` is False when
    the connection ended before the message did (only seen with allow_truncated)."""

    def __init__(self, head, interim):
        self.head = head
        self.interim = interim
        self.body = b""
        self.chunks = []  # sizes, when chunked
        self.trailers = []
        self.complete = True
        self.delimited_by = "none"  # none, length, chunked, close

    status = property(lambda self: self.head.status)
    reason = property(lambda self: self.head.reason)
    version = property(lambda self: self.head.version)

    def get(self, name, default=None):
        return self.head.get(name, default)

    def get_all(self, name):
        return self.head.get_all(name)

    def __repr__(self):
        return f"<{self.head.first.decode('latin-1')} {self.head.fields} {len(self.body)} B {self.body[:200]!r}>"


class Stream:
    """Reading HTTP from a socket with a time limit on every step."""

    def __init__(self, sock, timeout=10.0):
        self.sock = sock
        self.timeout = timeout
        self.buffer = bytearray()
        self.received = bytearray()  # every byte that came, ever
        self.keep_received = True
        sock.settimeout(timeout)

    def _fill(self, what):
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            raise AssertionError(
                f"nothing for {self.timeout:g} s while waiting for {what}; so far {bytes(self.buffer[-300:])!r}"
            ) from None
        if not data:
            raise Ended(f"connection ended while waiting for {what}; so far {bytes(self.buffer[-300:])!r}",
                        bytes(self.buffer))
        self.buffer += data
        if self.keep_received:
            self.received += data

    def read_until(self, mark, what=None):
        start = 0
        while True:
            at = self.buffer.find(mark, start)
            if at >= 0:
                return self._take(at + len(mark))
            start = max(0, len(self.buffer) - len(mark) + 1)
            self._fill(what or repr(mark))

    def read_exactly(self, n, what=None):
        while len(self.buffer) < n:
            self._fill(what or f"{n} bytes")
        return self._take(n)

    def read_some(self, what="any byte"):
        if not self.buffer:
            self._fill(what)
        return self._take(len(self.buffer))

    def read_to_eof(self):
        try:
            while True:
                self._fill("the end")
        except Ended:
            return self._take(len(self.buffer))

    def _take(self, n):
        out = bytes(self.buffer[:n])
        del self.buffer[:n]
        return out

    def read_request_head(self):
        return RequestHead(self.read_until(b"\r\n\r\n", "a request head"))

    def read_response_head(self):
        return ResponseHead(self.read_until(b"\r\n\r\n", "a response head"))

    def read_chunk(self):
        """One chunk: its data, or b"" for the last one, whose trailers are then read by read_trailers."""
        line = self.read_until(b"\r\n", "a chunk-size line")[:-2]
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", line.split(b";")[0]):
            raise BadMessage(f"chunk-size line {line!r}")
        size = int(line.split(b";")[0], 16)
        if size == 0:
            return b""
        data = self.read_exactly(size, f"a chunk of {size}")
        if self.read_exactly(2, "CRLF after a chunk") != b"\r\n":
            raise BadMessage("a chunk does not end in CRLF")
        return data

    def read_trailers(self):
        fields = []
        while True:
            line = self.read_until(b"\r\n", "a trailer line")[:-2]
            if not line:
                return fields
            name, colon, value = line.partition(b":")
            if not colon or not TOKEN.match(name):
                raise BadMessage(f"not a trailer line: {line!r}")
            fields.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
