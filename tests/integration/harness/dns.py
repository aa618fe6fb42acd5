"""A tiny DNS server on loopback, UDP and TCP on one port, that answers what it is told."""

import socket
import struct
import threading
import time

A, AAAA = 1, 28
NAMES = {A: "A", AAAA: "AAAA"}


class DnsServer:
    """records: name -> list of addresses; a name nobody set is looked up in `wildcard`
    (suffix -> addresses), then it is NXDOMAIN.

    behaviour[name] may be "silent", "servfail", "nxdomain", "truncate" (UDP says TC, the
    answer comes over TCP), a number: seconds to hold the answer back, or a function from the
    honest answer's bytes to those that are sent (None: none).
    """

    def __init__(self, host="127.0.0.1"):
        self.records = {}
        self.ttls = {}
        self.wildcard = {".test": ["127.0.0.1"]}
        self.default_ttl = 30
        self.behaviour = {}
        self.queries = []  # (name, "A" or "AAAA", "udp" or "tcp", monotonic time)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        while True:
            self.udp.bind((host, 0))
            self.port = self.udp.getsockname()[1]
            self.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                self.tcp.bind((host, self.port))
                break
            except OSError:
                self.tcp.close()
                self.udp.close()
                self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.tcp.listen(64)
        self.address = f"{host}:{self.port}"
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._serve_udp, self._serve_tcp)]
        for t in self.threads:
            t.start()

    def set(self, name, *addresses, ttl=None):
        self.records[name] = list(addresses)
        if ttl is not None:
            self.ttls[name] = ttl

    def asked(self, name, proto=None):
        return sum(1 for q in list(self.queries) if q[0] == name and (proto is None or q[2] == proto))

    def _answer(self, query, proto):
        """(reply or None, seconds to wait first)"""
        if len(query) < 17:
            return None, 0
        ident, flags, questions = struct.unpack("!HHH", query[:6])
        if questions != 1 or flags & 0x8000:
            return None, 0
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode("latin-1"))
            at += 1 + query[at]
        question = query[12:at + 5]
        (qtype,) = struct.unpack("!H", query[at + 1:at + 3])
        name = ".".join(labels).lower()
        self.queries.append((name, NAMES.get(qtype, str(qtype)), proto, time.monotonic()))
        how = self.behaviour.get(name)
        if how == "silent":
            return None, 0
        delay = how if isinstance(how, (int, float)) else 0

        def reply(rcode, answers=b"", count=0, truncated=False):
            bits = 0x8000 | (flags & 0x0100) | 0x0080 | (0x0200 if truncated else 0) | rcode
            return struct.pack("!HHHHHH", ident, bits, 1, count, 0, 0) + question + answers, delay

        if how == "servfail":
            return reply(2)
        if how == "nxdomain":
            return reply(3)
        addresses = self.records.get(name)
        if addresses is None:
            addresses = next((a for suffix, a in self.wildcard.items() if name.endswith(suffix)), None)
        if addresses is None:
            return reply(3)
        if how == "truncate" and proto == "udp":
            return reply(0, truncated=True)
        ttl = self.ttls.get(name, self.default_ttl)
        answers, count = b"", 0
        for address in addresses:
            family = AAAA if ":" in address else A
            if family == qtype:
                data = socket.inet_pton(socket.AF_INET6 if family == AAAA else socket.AF_INET, address)
                answers += struct.pack("!HHHIH", 0xC00C, family, 1, ttl, len(data)) + data
                count += 1
        if callable(how):
            return how(reply(0, answers, count)[0]), 0
        return reply(0, answers, count)

    def _serve_udp(self):
        while True:
            try:
                query, peer = self.udp.recvfrom(4096)
            except OSError:
                return
            answer, delay = self._answer(query, "udp")
            if answer and delay:
                threading.Timer(delay, self._send_udp, (answer, peer)).start()
            elif answer:
                self._send_udp(answer, peer)

    def _send_udp(self, answer, peer):
        try:
            self.udp.sendto(answer, peer)
        except OSError:
            pass

    def _serve_tcp(self):
        while True:
            try:
                conn, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_tcp_conn, args=(conn,), daemon=True).start()

    def _serve_tcp_conn(self, conn):
        conn.settimeout(10)
        data = b""
        try:
            while True:
                while len(data) < 2 or len(data) < 2 + struct.unpack("!H", data[:2])[0]:
                    got = conn.recv(4096)
                    if not got:
                        return
                    data += got
                (n,) = struct.unpack("!H", data[:2])
                query, data = data[2:2 + n], data[2 + n:]
                answer, delay = self._answer(query, "tcp")
                time.sleep(delay)
                if answer:
                    conn.sendall(struct.pack("!H", len(answer)) + answer)
        except OSError:
            pass
        finally:
            conn.close()

    def stop(self):
        for s in (self.udp, self.tcp):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            s.close()
