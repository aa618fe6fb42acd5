"""What tests of tunnels need besides: CONNECT, TLS origins, an echo, hash-checked floods, and
a network namespace with rules that redirect."""

import ctypes
import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import unittest

from .origin import HttpOrigin
from .raw import Raw

# -- CONNECT ---------------------------------------------------------------------------


def connect(client, authority, *lines, version="HTTP/1.1", behind=b"", host=True):
    """Send a CONNECT (with bytes right behind it); its response head."""
    fields = [f"Host: {authority}"] if host else []
    head = "\r\n".join([f"CONNECT {authority} {version}", *fields, *lines]) + "\r\n\r\n"
    client.send(head.encode("latin-1") + behind)
    return client.read_response_head()


def tunnel(client, authority, *lines, **kw):
    """The same, and it must be granted; the client is then a plain stream."""
    head = connect(client, authority, *lines, **kw)
    if head.status != 200:
        raise AssertionError(f"CONNECT {authority}: {head.first!r} {head.fields}")
    for name in ("content-length", "transfer-encoding"):
        if head.get_all(name):
            raise AssertionError(f"{name} in the answer to CONNECT: {head.fields}")
    return client


# -- Scripts of origins ----------------------------------------------------------------


def echo(conn):
    """Sends back what comes; passes the end on."""
    conn.keep_received = False
    conn.sock.settimeout(None)
    while data := conn.sock.recv(65536):
        conn.sock.sendall(data)
    conn.sock.shutdown(socket.SHUT_WR)


def sink(conn):
    """Reads to the end and says nothing."""
    conn.wait_for_end()


def greeting(text):
    """Speaks first, then echoes."""

    def run(conn):
        conn.send(text)
        echo(conn)

    return run


# -- TLS -------------------------------------------------------------------------------


class Certificates:
    """A CA of its own and one certificate for the names, in a directory of files."""

    def __init__(self, *names):
        self.dir = tempfile.mkdtemp(prefix="tsp-test-")
        self.ca = os.path.join(self.dir, "ca.pem")
        self.cert = os.path.join(self.dir, "cert.pem")
        self.key = os.path.join(self.dir, "key.pem")
        ca_key, request, extensions = (os.path.join(self.dir, n) for n in ("ca.key", "request.pem", "extensions"))
        alt = ",".join(("IP:" if n.replace(".", "").isdigit() or ":" in n else "DNS:") + n for n in names)
        with open(extensions, "w", encoding="ascii") as f:
            f.write(f"subjectAltName={alt}\nextendedKeyUsage=serverAuth\n")
        ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        self._openssl("req", "-x509", *ec, "-keyout", ca_key, "-out", self.ca, "-days", "2", "-subj", "/CN=Test CA")
        self._openssl("req", *ec, "-keyout", self.key, "-out", request, "-subj", "/CN=" + names[0])
        self._openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-CAcreateserial",
                      "-out", self.cert, "-days", "2", "-extfile", extensions)

    @staticmethod
    def _openssl(*args):
        done = subprocess.run(["openssl", *args], capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise RuntimeError(f"openssl {args[0]}: {done.stderr}")

    def server(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context

    def client(self):
        return ssl.create_default_context(cafile=self.ca)

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)


class HttpsOrigin(HttpOrigin):
    """An HttpOrigin behind TLS; `names` are the server names that clients asked for."""

    def __init__(self, certificates, **kw):
        self.names = []
        self.context = certificates.server()
        self.context.sni_callback = lambda _sock, name, _context: self.names.append(name)
        super().__init__(**kw)
        self.url = f"https://{self.authority}"

    def serve(self, conn):
        try:
            conn.sock = self.context.wrap_socket(conn.sock, server_side=True)
        except (ssl.SSLError, OSError):
            return  # the client's business
        conn.sock.settimeout(self.timeout)
        try:
            super().serve(conn)
        except ssl.SSLError:
            pass


def client_hello(name="origin.test"):
    """The bytes that a real TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    session = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


# -- Floods ----------------------------------------------------------------------------


class Flood:
    """Sends and receives at once over one stream, and hashes both."""

    BLOCK = 1 << 18

    def __init__(self, stream, size, seed):
        self.sock = sock = stream.sock
        self.size = size
        self.block = hashlib.shake_128(str(seed).encode()).digest(self.BLOCK + 4096)
        self.sent, self.got = hashlib.blake2b(), hashlib.blake2b()
        self.got.update(stream.buffer)  # what was read along with the head
        self.got_bytes = len(stream.buffer)
        self.error = None
        sock.settimeout(60)
        self.threads = [threading.Thread(target=self._guard, args=(f,), daemon=True) for f in (self._send, self._receive)]
        for t in self.threads:
            t.start()

    def _guard(self, f):
        try:
            f()
        except OSError as e:
            self.error = self.error or e

    def _send(self):
        left, at = self.size, 0
        view = memoryview(self.block)
        while left > 0:
            part = view[at:at + min(left, self.BLOCK)]  # a different place each time: a lost block is noticed
            self.sock.sendall(part)
            self.sent.update(part)
            left -= len(part)
            at = (at + 61) % 4096
        self.sock.shutdown(socket.SHUT_WR)

    def _receive(self):
        buffer = bytearray(self.BLOCK)
        view = memoryview(buffer)
        while n := self.sock.recv_into(buffer):
            self.got.update(view[:n])
            self.got_bytes += n

    def join(self, timeout):
        for t in self.threads:
            t.join(timeout)
            if t.is_alive():
                raise AssertionError(f"the flood stands still: {self.got_bytes} of about {self.size} bytes came")
        if self.error:
            raise self.error
        return self


# -- Namespaces ------------------------------------------------------------------------

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """This thread, and all threads and processes that it starts, in a network of their own.

    The proxy is told from the rest by its group, so that its own connections are not redirected.
    """

    GROUP = 3199
    PREFIX = ("setpriv", f"--regid={GROUP}", "--keep-groups")

    def __init__(self, *addresses):
        self.old = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        if libc.unshare(CLONE_NEWNET) != 0:
            os.close(self.old)
            raise unittest.SkipTest("NOT TESTED: network namespaces are not permitted here: "
                                    + os.strerror(ctypes.get_errno()))
        self.left = False
        try:
            self.run("ip", "link", "set", "lo", "up")
            for address in addresses:
                more = ["nodad"] if ":" in address else []
                self.run("ip", "addr", "add", address, "dev", "lo", *more)
        except (OSError, subprocess.CalledProcessError) as e:
            self.leave()
            raise unittest.SkipTest(f"NOT TESTED: a network namespace could not be furnished: {e}") from None

    @staticmethod
    def run(*command, stdin=None):
        subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=20, check=True)

    def redirect(self, ports, to):
        """What init-net does, in a table of the test's own."""
        rules = (f"table inet test {{\n chain out {{\n  type nat hook output priority -100; policy accept;\n"
                 f"  meta skgid {self.GROUP} return\n  tcp dport {{ {', '.join(map(str, ports))} }} redirect to :{to}\n"
                 " }\n}\n")
        try:
            self.run("nft", "-f", "-", stdin=rules)
        except (OSError, subprocess.CalledProcessError) as e:
            text = getattr(e, "stderr", "") or str(e)
            raise unittest.SkipTest(f"NOT TESTED: nft rules are not permitted here: {text.strip()}") from None

    def leave(self):
        if self.left:
            return
        self.left = True
        if libc.setns(self.old, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "cannot leave the namespace")
        os.close(self.old)


def direct(host, port, timeout=15.0):
    """A client that knows nothing of a proxy."""
    return Raw((host, port), timeout)
