"""A scripted Tripswitch control plane that checks everything a client sends it.

It verifies each request as the real service would, more strictly where a sloppy client
would go unnoticed: signature over the bytes on the wire, freshness of the timestamp,
the schema of every sample.  What is wrong lands in `violations`; the test case fails on
any that is left there.
"""

import gzip
import hashlib
import hmac
import json
import math
import os
import re
import socket
import threading
import time

from .http import BadMessage, Ended, Stream
from .raw import chunk
from .wait import wait_until

MAX_SAMPLES = 1000
FRESH_S = 30.0  # how far a timestamp may be from our clock: the client runs on the same one


class Batch:
    """One POST to ingest, however it was answered."""

    def __init__(self, at, samples, encoding, timestamp, signature, action, body):
        self.at = at  # monotonic
        self.samples = samples
        self.encoding = encoding
        self.timestamp = timestamp
        self.signature = signature
        self.action = action
        self.body = body  # as it was on the wire


class ControlPlane:
    """
    Streams: `set()` changes a breaker and tells every open stream; `stream_mode` decides
    what the next openings get: "ok", an int (that status), "hole" (accepted, never
    answered), "garbage", "silent" (200 and heartbeats), "no-snapshot" (200 and a comment), "trickle" (the
    snapshot byte by byte, one a millisecond, then the heartbeats), "one-by-one" (the snapshot event by event, one
    in 50 ms, then the heartbeats), "mute" (200 and nothing more), or "wrong-type".

    Ingest: `answers` is a list consumed one per POST, then `default_answer` holds:
      202 400 401 413 422 429 500 503   that status; (429, seconds) adds Retry-After
      "close"    read, then close without an answer: not accepted
      "lost"     accepted, then closed without an answer
      "hole"     never answered
      ("slow", seconds)   202 after that time

    Lists: `metadata` and `router_metadata` are {name: {key: value}}; every breaker is listed,
    as "id-NAME", and every router.  `list_fault` and `poll_fault` are what all requests for
    lists and for state:batch get: None (a proper answer) or
      an int     that status; (429, seconds) adds Retry-After
      "hole"     never answered
      "close"    closed without an answer
      "garbage"  200 with something else
      "huge"     200 and more than anybody wants
    """

    def __init__(self, breakers=None, routers=None, heartbeat_s=2.0, signed=True, port=0):
        self.project_id = "proj_" + os.urandom(4).hex()
        self.api_key = "eb_pk_" + os.urandom(16).hex()
        self.ingest_secret = os.urandom(32).hex()
        self.signed = signed
        self.breakers = {}  # name -> (state, allow_rate)
        for name, state in (breakers or {}).items():
            self.breakers[name] = state if isinstance(state, tuple) else (state, None)
        self.routers = routers  # a set: only these router ids are known; None: any
        self.heartbeat_s = heartbeat_s
        self.stream_mode = "ok"
        self.stream_opens = []  # monotonic time of every attempt to open a stream
        self.streams = []  # open ones
        self.answers = []
        self.default_answer = 202
        self.samples = []  # accepted ones
        self.batches = []
        self.requests = []  # first line of everything
        self.metadata = {}
        self.router_metadata = {}
        self.list_fault = None
        self.poll_fault = None
        self.lists = []  # (what, its If-None-Match, status) of every request for a list
        self.etags = set()  # all that were ever sent
        self.polls = []  # (monotonic time, ids) of every state:batch
        self.violations = []
        self.former = []  # (api key, ingest secret) of before a rotation, still good
        self.check_clock = True  # False: a test moves the client's wall clock
        self.keep_samples = True
        self.accepted = 0
        self.posts = 0  # being answered now
        self.most_posts = 0  # at one time
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        self.heartbeats = threading.Event()
        self.heartbeats.set()
        self.listener = None
        self.connections = set()
        self._listen(port)

    # -- life ------------------------------------------------------------------------

    def _listen(self, port):
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", port))
        self.listener.listen(128)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()
        threading.Thread(target=self._beat, args=(self.listener,), daemon=True).start()

    def _beat(self, listener):
        while not self.stopping.wait(self.heartbeat_s or 3600):
            if listener is not self.listener:
                return
            if self.heartbeats.is_set():
                self.heartbeat()

    def go_away(self):
        """Refuse connections and cut those that stand, as if the service were down."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()
        with self.lock:
            for sock in list(self.connections):
                try:
                    sock.shutdown(socket.SHUT_RDWR)  # also wakes the thread that reads from it
                except OSError:
                    pass

    def come_back(self):
        self._listen(self.port)

    def stop(self):
        self.stopping.set()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        with self.lock:
            for sock in list(self.connections):
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.connections.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def violation(self, text):
        with self.lock:
            self.violations.append(text)

    def _serve(self, sock):
        conn = Stream(sock, timeout=120)
        conn.keep_received = False
        try:
            while self._serve_one(conn):
                pass
        except (Ended, ConnectionError, OSError):
            pass
        except (BadMessage, AssertionError) as e:
            if not self.stopping.is_set():
                self.violation(f"{e}")
        finally:
            with self.lock:
                self.connections.discard(sock)
                if sock in self.streams:
                    self.streams.remove(sock)
            sock.close()

    def _serve_one(self, conn):
        head = conn.read_request_head()
        with self.lock:
            self.requests.append(head.first.decode("latin-1"))
        if head.version != "HTTP/1.1":
            self.violation(f"not HTTP/1.1: {head.first!r}")
        if head.get("host") != f"127.0.0.1:{self.port}":
            self.violation(f"Host {head.get('host')!r}")
        prefix = f"/v1/projects/{self.project_id}/"
        if not head.target.startswith(prefix):
            self.violation(f"unknown target {head.target!r}")
            self._answer(conn, 404)
            return True
        what = head.target[len(prefix):]
        if head.method == "GET" and what == "breakers/state:stream":
            return self._stream(conn, head)
        if head.method == "POST" and what == "ingest":
            return self._ingest(conn, head)
        if head.method == "GET" and what == "status":
            return self._status(conn, head)
        if head.method == "GET" and what in ("breakers/metadata", "routers/metadata"):
            return self._list(conn, head, what.split("/")[0])
        if head.method == "POST" and what == "breakers/state:batch":
            return self._poll(conn, head)
        self.violation(f"unknown call {head.first!r}")
        self._answer(conn, 404)
        return True

    def _answer(self, conn, status, body=b"", *lines):
        if status >= 400 and not body:
            body = json.dumps({"code": f"scripted_{status}", "message": "scripted answer"}).encode()
        head = [f"HTTP/1.1 {status} Scripted", "Content-Type: application/json", f"Content-Length: {len(body)}", *lines]
        conn.sock.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    def _authorized(self, head):
        if head.get("authorization") in [f"Bearer {key}" for key in (self.api_key, *(k for k, _ in self.former))]:
            return True
        self.violation(f"wrong Authorization on {head.first!r}")
        return False

    # -- reads -----------------------------------------------------------------------

    def rotate(self):
        """New keys; the last few old ones stay good: the client may be slow to notice."""
        self.former = [(self.api_key, self.ingest_secret), *self.former][:8]
        self.api_key = "eb_pk_" + os.urandom(16).hex()
        self.ingest_secret = os.urandom(32).hex()

    def _status(self, conn, head):
        if not self._authorized(head):
            self._answer(conn, 401)
            return True
        with self.lock:
            states = [s for s, _ in self.breakers.values()]
        body = {"open_count": states.count("open"), "closed_count": states.count("closed")}
        self._answer(conn, 200, json.dumps(body).encode())
        return True

    def _fault(self, conn, fault):
        """Whether the connection may go on."""
        if fault == "hole":
            conn.read_to_eof()
            return False
        if fault == "close":
            return False
        if fault == "garbage":
            self._answer(conn, 200, b"<html>welcome to the captive portal</html>")
        elif fault == "huge":
            conn.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
            while True:  # until the other side has had enough
                conn.sock.sendall(b" " * 65536)
        elif isinstance(fault, tuple):
            self._answer(conn, fault[0], b"", f"Retry-After: {fault[1]}")
        else:
            self._answer(conn, fault)
        return True

    def _list(self, conn, head, what):
        authorized = self._authorized(head)
        known = head.get("if-none-match")
        if known is not None and known not in self.etags:
            self.violation(f"If-None-Match {known!r} was never sent")
        if self.list_fault is not None or not authorized:
            fault = self.list_fault if authorized else 401
            with self.lock:
                self.lists.append((what, known, fault))
            return self._fault(conn, fault)
        with self.lock:
            if what == "breakers":
                items = [{"id": f"id-{n}", "name": n, "metadata": self.metadata.get(n, {})} for n in self.breakers]
            else:
                items = [{"id": r, "name": f"router {r}", "metadata": self.router_metadata.get(r)}
                         for r in {**dict.fromkeys(sorted(self.routers or ())), **self.router_metadata}]
            body = json.dumps({"project_id": self.project_id, what: items}).encode()
            etag = f'W/"{hashlib.sha256(body).hexdigest()[:16]}"'
            self.etags.add(etag)
            same = known == etag
            self.lists.append((what, known, 304 if same else 200))
        if same:
            conn.sock.sendall(f"HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\n\r\n".encode())
        else:
            self._answer(conn, 200, body, f"ETag: {etag}")
        return True

    def _poll(self, conn, head):
        body = conn.read_exactly(head.content_length() or 0, "the body of a poll")
        ids = json.loads(body, object_pairs_hook=_no_duplicates)["breaker_ids"]
        with self.lock:
            self.polls.append((time.monotonic(), ids))
            states = {f"id-{n}": s for n, s in self.breakers.items()}
        if head.get("content-type") != "application/json":
            self.violation(f"Content-Type {head.get('content-type')!r} of a poll")
        if not ids or len(set(ids)) != len(ids) or not all(isinstance(i, str) for i in ids):
            self.violation(f"breaker_ids {ids!r}")
        if not self._authorized(head):
            self._answer(conn, 401)
        elif self.poll_fault is not None:
            return self._fault(conn, self.poll_fault)
        else:
            answer = [{"breaker_id": i, "state": states[i][0], "allow_rate": states[i][1],
                       "updated_at": "2026-01-01T00:00:00Z"} for i in ids if i in states]
            self._answer(conn, 200, json.dumps(answer).encode())
        return True

    # -- stream ----------------------------------------------------------------------

    @staticmethod
    def event(name, state, allow_rate=None):
        data = json.dumps({"breaker": name, "state": state, "allow_rate": allow_rate}, separators=(",", ":"))
        return f"event: state\ndata: {data}\n\n".encode()

    def _stream(self, conn, head):
        self.stream_opens.append(time.monotonic())
        ok = self._authorized(head)
        if head.get("accept") != "text/event-stream":
            self.violation(f"stream without Accept: text/event-stream: {head.fields}")
        mode = self.stream_mode
        if isinstance(mode, int):
            self._answer(conn, mode)
            return True
        if not ok:
            self._answer(conn, 401)
            return True
        sock = conn.sock
        if mode == "hole":
            conn.read_to_eof()
            return False
        if mode == "wrong-type":
            self._answer(conn, 200, b"{}")
            return True
        if mode == "garbage":
            sock.sendall(b"\x00\x01\x02 this is not HTTP\r\n\r\n\xff\xfe")
            return False
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n")
        if mode == "one-by-one":
            for name, (state, rate) in list(self.breakers.items()):
                sock.sendall(chunk(self.event(name, state, rate)))
                time.sleep(0.05)
        with self.lock:
            if mode == "ok":
                snapshot = b"".join(self.event(n, s, r) for n, (s, r) in self.breakers.items())
                sock.sendall(chunk(snapshot + b": snapshot complete\n\n"))
            elif mode == "trickle":
                for byte in b"".join(self.event(n, s, r) for n, (s, r) in self.breakers.items()):
                    sock.sendall(chunk(bytes([byte])))
                    time.sleep(0.001)
            elif mode == "no-snapshot":
                sock.sendall(chunk(b": hello\n\n"))
            if mode != "mute":
                self.streams.append(sock)
        conn.sock.settimeout(None)
        conn.read_to_eof()
        return False

    def send_raw(self, data):
        """Put bytes into every open stream, as one chunk."""
        with self.lock:
            for sock in list(self.streams):
                try:
                    sock.sendall(chunk(data))
                except OSError:
                    pass

    def set(self, name, state, allow_rate=None):
        with self.lock:
            self.breakers[name] = (state, allow_rate)
            self.send_raw(self.event(name, state, allow_rate))

    def remove(self, name):
        """Without a word on the stream: the protocol has none."""
        with self.lock:
            del self.breakers[name]

    def heartbeat(self):
        self.send_raw(b": heartbeat\n\n")

    def _end_streams(self, end):
        with self.lock:
            for sock in self.streams:
                try:
                    end(sock)
                except OSError:
                    pass
            self.streams.clear()

    def cut(self):
        """End every stream without its last chunk, as the real service does."""
        self._end_streams(lambda sock: sock.shutdown(socket.SHUT_RDWR))

    def close_cleanly(self):
        def end(sock):
            sock.sendall(b"0\r\n\r\n")
            sock.shutdown(socket.SHUT_WR)

        self._end_streams(end)

    def wait_stream(self, n=1, timeout=10.0):
        wait_until(lambda: len(self.streams) >= n, timeout, f"{n} open state stream(s)")

    # -- ingest ----------------------------------------------------------------------

    def _next_answer(self):
        with self.lock:
            return self.answers.pop(0) if self.answers else self.default_answer

    def _ingest(self, conn, head):
        if head.get("expect"):
            conn.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.chunked():
            parts = []
            while data := conn.read_chunk():
                parts.append(data)
            conn.read_trailers()
            body = b"".join(parts)
        else:
            body = conn.read_exactly(head.content_length() or 0, "an ingest body")
        action = self._next_answer()
        samples = self._check(head, body)
        batch = Batch(time.monotonic(), samples or [], head.get("content-encoding"), head.get("x-eb-timestamp"),
                      head.get("x-eb-signature"), action, body)
        with self.lock:
            self.batches.append(batch)
            self.posts += 1
            self.most_posts = max(self.most_posts, self.posts)
        try:
            if samples is None and action == 202:
                self._answer(conn, 400)  # the violation is on record already
                return True
            return self._act(conn, action, samples or [])
        finally:
            with self.lock:
                self.posts -= 1

    def _accept_samples(self, samples):
        with self.lock:
            self.accepted += len(samples)
            if self.keep_samples:
                self.samples.extend(samples)

    def _act(self, conn, action, samples):
        if action == "hole":
            conn.read_to_eof()
            return False
        if action == "close":
            return False
        if action == "lost":
            self._accept_samples(samples)
            return False
        if isinstance(action, tuple) and action[0] == "slow":
            self.stopping.wait(action[1])
            action = 202
        if isinstance(action, tuple):
            self._answer(conn, action[0], b"", f"Retry-After: {action[1]}")
        elif action == 202:
            self._accept_samples(samples)
            self._answer(conn, 202, json.dumps({"accepted": len(samples)}).encode())
        else:
            self._answer(conn, action)
        return True

    def _check(self, head, body):
        """The samples, or None after a violation."""
        try:
            return self._verify(head, body)
        except ValueError as e:
            self.violation(f"ingest: {e}")
            return None

    def _verify(self, head, body):
        if head.get("content-type") != "application/json":
            raise ValueError(f"Content-Type {head.get('content-type')!r}")
        stamp = head.get("x-eb-timestamp")
        if not stamp or not re.fullmatch(r"[1-9][0-9]{12}", stamp):
            raise ValueError(f"X-EB-Timestamp {stamp!r}")
        if self.check_clock and abs(int(stamp) / 1000 - time.time()) > FRESH_S:
            raise ValueError(f"X-EB-Timestamp {stamp} is not fresh")
        signature = head.get("x-eb-signature")
        if self.signed:
            good = [hmac.new(bytes.fromhex(secret), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
                    for secret in (self.ingest_secret, *(s for _, s in self.former))]
            if signature not in [f"v1={want}" for want in good]:
                raise ValueError(f"X-EB-Signature {signature!r} does not fit the bytes on the wire")
        elif signature is not None:
            raise ValueError("signed although no secret is configured")
        encoding = head.get("content-encoding")
        if encoding == "gzip":
            text = gzip.decompress(body)
        elif encoding is None:
            text = body
        else:
            raise ValueError(f"Content-Encoding {encoding!r}")
        message = json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        if not isinstance(message, dict) or set(message) != {"samples"} or not isinstance(message["samples"], list):
            raise ValueError("the body is not {\"samples\": [...]}")
        samples = message["samples"]
        if not 1 <= len(samples) <= MAX_SAMPLES:
            raise ValueError(f"{len(samples)} samples in a batch")
        for sample in samples:
            check_sample(sample, self.routers, self.check_clock)
        return samples

    # -- for tests -------------------------------------------------------------------

    def wait_samples(self, n, timeout=10.0, where=lambda s: True):
        def enough():
            with self.lock:
                found = [s for s in self.samples if where(s)]
            return found if len(found) >= n else None

        return wait_until(enough, timeout,
                          lambda: f"{n} samples, there are {len([s for s in self.samples if where(s)])}: {self.samples[-5:]}")

    def wait_polls(self, n, timeout=10.0):
        wait_until(lambda: len(self.polls) >= n, timeout, lambda: f"{n} polls, there are {len(self.polls)}")

    def wait_lists(self, n, timeout=10.0):
        wait_until(lambda: len(self.lists) >= n, timeout, lambda: f"{n} requests for lists: {self.lists}")

    def wait_batches(self, n, timeout=10.0):
        wait_until(lambda: len(self.batches) >= n, timeout, lambda: f"{n} batches, there are {len(self.batches)}")


def _no_duplicates(pairs):
    keys = [k for k, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError(f"duplicate key in {keys}")
    return dict(pairs)


def _no_constant(text):
    raise ValueError(f"{text} is not JSON")


def check_sample(sample, routers=None, check_clock=True):
    """PROTOCOL section 4; raises ValueError with the first fault."""
    if not isinstance(sample, dict):
        raise ValueError(f"a sample is not an object: {sample!r}")
    unknown = set(sample) - {"router_id", "metric", "ts_ms", "value", "ok", "tags", "trace_id"}
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)} in {sample}")
    for key in ("router_id", "metric"):
        if not isinstance(sample.get(key), str) or not sample[key]:
            raise ValueError(f"{key} in {sample}")
    if routers is not None and sample["router_id"] not in routers:
        raise ValueError(f"unknown router in {sample}")
    ts = sample.get("ts_ms")
    if type(ts) is not int:
        raise ValueError(f"ts_ms in {sample}")
    age = time.time() * 1000 - ts
    if check_clock and not -2000 <= age <= 300_000:
        raise ValueError(f"ts_ms is {age:.0f} ms old in {sample}")
    value = sample.get("value")
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"value in {sample}")
    if type(sample.get("ok")) is not bool:
        raise ValueError(f"ok in {sample}")
    if "tags" in sample:
        tags = sample["tags"]
        if not isinstance(tags, dict) or not tags:
            raise ValueError(f"tags in {sample}")
        for k, v in tags.items():
            if not isinstance(k, str) or not isinstance(v, str):
                raise ValueError(f"tag {k!r} in {sample}")
    if "trace_id" in sample and (not isinstance(sample["trace_id"], str) or not sample["trace_id"]):
        raise ValueError(f"trace_id in {sample}")
