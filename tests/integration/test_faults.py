"""Faults of everything around the proxy: traffic goes on, the books balance, nothing is left behind."""

import concurrent.futures
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

from harness import Case, ROUTE_ALL, Raw, SharedCase, chunk, pattern, request, slowdown, tool, variant, wait_until
from harness.tunnels import Namespace, connect, sink

SMALL = 40  # requests that pass during a fault


def unacknowledged(conn):
    """Bytes that the peer's kernel does not have yet."""
    return struct.unpack("i", fcntl.ioctl(conn.sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0]


class Traffic:
    """Clients that ask one request after the other until told to stop."""

    def __init__(self, case, url, clients=3, proxy=None):
        self.case, self.url = case, url
        self.address = (proxy or case._proxies[-1]).address
        self.stopping = threading.Event()
        self.answers, self.slowest, self.errors = 0, 0.0, []
        self.lock = threading.Lock()
        case.addCleanup(self.stopping.set)
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]
        for t in self.threads:
            t.start()

    def _run(self):
        try:
            client = Raw(self.address, 20)
            while not self.stopping.is_set():
                began = time.monotonic()
                response = client.get(self.url)
                with self.lock:
                    self.slowest = max(self.slowest, time.monotonic() - began)
                    self.answers += 1
                    if response.status != 200:
                        self.errors.append(repr(response))
            client.close()
        except (OSError, AssertionError) as e:
            self.errors.append(repr(e))

    def more(self, n=SMALL, timeout=20):
        goal = self.answers + n
        wait_until(lambda: self.answers >= goal or self.errors, timeout, lambda: f"{n} more answers, {self.answers} so far")

    def end(self):
        self.stopping.set()
        for t in self.threads:
            t.join(25)
        self.case.assertEqual(self.errors, [])
        return self


class ControlPlaneTest(Case):
    """A control plane in every bad mood, each while requests are on their way."""

    time_limit_s = 240
    heavy = True

    def moods(self):
        """name -> (begin, end): what happens to the control plane, and how it ends"""
        def stream(mode):
            return (lambda c: (setattr(c, "stream_mode", mode), c.cut()), lambda c: setattr(c, "stream_mode", "ok"))

        def ingest(answer):
            return (lambda c: setattr(c, "default_answer", answer), lambda c: setattr(c, "default_answer", 202))

        half = b"event: state\ndata: {\"breaker\":\"b\",\"sta"
        return {
            "refused": (lambda c: c.go_away(), lambda c: c.come_back()),
            "the stream is a black hole": stream("hole"), "401": stream(401), "500": stream(500), "429": stream(429),
            "garbage instead of HTTP": stream("garbage"), "another content type": stream("wrong-type"),
            "a slow trickle": stream("trickle"),
            "a stall within an event": (lambda c: (c.heartbeats.clear(), c.send_raw(half)), lambda c: (c.cut(), c.heartbeats.set())),
            "a cut within an event": (lambda c: (c.send_raw(half), c.cut()), lambda c: None),
            "garbage in the stream": (lambda c: c.send_raw(b"\x00\xff\xfe{]\n\ndata: \xc3\x28\n\nevent: state\ndata: {}\n\n"), lambda c: None),
            "its clock is an hour off: 401 for every batch": ingest(401),
            "413": ingest(413), "422": ingest(422), "429 for every batch": ingest((429, 1)), "500 for every batch": ingest(500),
            "ingest is a black hole": ingest("hole"), "ingest hangs up": ingest("close"), "ingest is slow": ingest(("slow", 0.3)),
        }

    def test_traffic_goes_on_in_every_mood_of_the_control_plane_and_the_books_balance(self):
        origin = self.http_origin()
        origin.record = False
        for name, (begin, end) in self.moods().items():
            with self.subTest(name):
                control = self.control(heartbeat_s=0.3)
                proxy = self.proxy({}, control, warnings=True)
                traffic = Traffic(self, origin.url + "/", proxy=proxy)
                traffic.more()
                begin(control)
                traffic.more(3 * SMALL)
                wait_until(lambda: len(control.batches) >= 2 or "ingest" not in name, 5, "batches meanwhile")
                traffic.more()
                self.assertEqual(proxy.telemetry("/readyz").status, 200)
                end(control)
                traffic.more()
                traffic.end()
                self.assertLess(traffic.slowest, 1.0 * slowdown())
                proxy.expect_metric(0, "requests_in_flight")
                proxy.stop()  # holds the books to account

    def test_a_stream_that_trickles_its_state_is_obeyed(self):
        control = self.control({"b": "open"})
        control.stream_mode = "trickle"
        proxy = self.proxy({}, control)
        proxy.wait_breaker("b", "open")
        self.assertEqual(self.get(self.http_origin().url + "/").status, 503)

    RELAY = ("import socket,sys,threading\n"
             "l=socket.create_server(('127.0.0.1',0));print(l.getsockname()[1],flush=True)\n"
             "def pump(a,b):\n"
             "  try:\n"
             "    while d:=a.recv(65536): b.sendall(d)\n"
             "  except OSError: pass\n"
             "  for s in (a,b):\n"
             "    try: s.shutdown(2)\n"
             "    except OSError: pass\n"
             "while True:\n"
             "  c,_=l.accept();u=socket.create_connection(('127.0.0.1',int(sys.argv[1])))\n"
             "  for p in ((c,u),(u,c)): threading.Thread(target=pump,args=p,daemon=True).start()\n")

    def test_a_control_plane_that_is_stopped_and_continued_costs_nothing(self):
        # The proxy talks to it through a process of its own, which is what SIGSTOP stops.
        control = self.control({"b": "closed"}, heartbeat_s=0.3)
        relay = subprocess.Popen([sys.executable, "-c", self.RELAY, str(control.port)], stdout=subprocess.PIPE, text=True)
        self.addCleanup(relay.stdout.close)
        self.addCleanup(relay.wait)
        self.addCleanup(relay.kill)
        control.port = int(relay.stdout.readline())
        control.url = f"http://127.0.0.1:{control.port}"
        proxy = self.proxy({}, control)
        traffic = Traffic(self, self.http_origin().url + "/")
        traffic.more()
        for _ in range(2):
            os.kill(relay.pid, signal.SIGSTOP)
            control.set("b", "half_open", 1.0)
            traffic.more(4 * SMALL)
            control.set("b", "closed")
            os.kill(relay.pid, signal.SIGCONT)
            traffic.more()
        control.set("b", "half_open", 1.0)
        proxy.wait_breaker("b", "half_open")
        traffic.end()
        proxy.wait_balance(settled=True)
        self.assertLess(traffic.slowest, 1.0 * slowdown())


class StoppedTest(Case):
    def test_a_proxy_that_is_stopped_and_continued_fails_nothing_and_still_knows_its_state(self):
        control = self.control({"b": "closed", "o": "open"}, heartbeat_s=0.3)
        routes = [{"name": "o", "match": {"hosts": ["open.test"]}, "breakers": ["o"], "router": "rtr"}, ROUTE_ALL]
        proxy = self.proxy({"routes": routes, "control": {"state_max_age": "1s"}, "workers": 2}, control, warnings=True)
        origin = self.http_origin()
        traffic = Traffic(self, origin.url + "/", 6)
        traffic.more()
        for seconds in (0.2, 2.0):
            proxy.signal(signal.SIGSTOP)
            time.sleep(seconds)  # this is the fault itself
            proxy.signal(signal.SIGCONT)
            self.assertEqual(self.get("http://open.test/").status, 503, "the stream was never lost: nothing is stale")
            traffic.more()
        traffic.end()
        self.assertEqual(proxy.telemetry("/livez").status, 200)
        proxy.wait_balance(settled=True)


    def test_a_pause_of_the_proxy_is_blamed_on_nobody(self):
        limits = {"first_byte": "1s", "idle": "1s", "client_header": "1s"}
        routes = [{**ROUTE_ALL, "failure": {"no_response_after": "1s"}}]
        proxy = self.proxy({"timeouts": limits, "routes": routes}, self.control(), warnings=True)
        asked, answer = threading.Semaphore(0), threading.Event()

        def script(conn):
            conn.read_request()
            asked.release()
            self.assertTrue(answer.wait(10))
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            conn.wait_for_end()

        waiting, slow = self.origin(script), self.http_origin()
        clients = [self.client(proxy) for _ in range(4)]
        for client in clients:
            client.send(request("GET", waiting.url + "/"))
            self.assertTrue(asked.acquire(timeout=10))
        half = self.client(proxy)
        head = request("GET", slow.url + "/")
        half.send(head[:20])
        proxy.wait_metric(lambda v: v == 5, "client_connections", mode="http")
        with proxy.standing_still():
            answer.set()
            half.send(head[20:])
            time.sleep(1.6)  # this is the fault itself
        for client in [*clients, half]:
            self.assert_relayed(client.read_response(), 200, b"ok")
        proxy.expect_metric(5, "attempts_total", outcome="success")
        proxy.wait_balance(settled=True)


class DyingUpstreamTest(SharedCase):
    """An upstream that dies at each byte of its response, by FIN and by RST."""

    HEAD = b"HTTP/1.1 200 OK\r\nX: y\r\n"
    RESPONSES = {
        "length": HEAD + b"Content-Length: 12\r\n\r\n0123456789ab",
        "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"01234") + chunk(b"56789ab") + b"0\r\nT: 1\r\n\r\n",
        "close": HEAD + b"\r\n0123456789ab",
    }

    def one(self, origin, framing, at, how, version):
        """Outcome as the client sees it: an own 502, "cut" or "whole"."""
        client = Raw(self.px.address, 10)
        try:
            client.send(request("GET", f"{origin.url}/{framing}/{at}/{how}", version=version))
            response = client.read_response(allow_truncated=True)
            if response.status == 502:
                self.assert_self_made(response, 502, ("connection_terminated", "http_response_incomplete"))
                return "502", b""
            self.assertTrue(b"0123456789ab".startswith(response.body), response)
            return ("whole" if response.complete else "cut"), response.body
        except ConnectionResetError:
            return "cut", b""
        except AssertionError as e:
            return str(e), b""
        finally:
            client.close()

    def serve(self, conn):
        head = conn.read_request()
        _, framing, at, how = head.target.split("/")
        conn.send(self.RESPONSES[framing][:int(at)])
        if how == "reset":
            if int(at):
                # a reset takes along what the peer has not read yet
                wait_until(lambda: unacknowledged(conn) == 0, 5, "the bytes to arrive")
                time.sleep(0.002)
            conn.reset()

    def test_the_client_sees_a_response_that_died_at_any_byte_as_cut_or_as_a_502(self):
        origin = self.origin(self.serve)
        files = self.px.open_files()
        reset, success = self.delta("attempts_total", outcome="reset"), self.delta("attempts_total", outcome="success")
        cases = [(f, at, how, v) for f, wire in self.RESPONSES.items() for at in range(len(wire) + 1)
                 for how in ("fin", "reset") for v in ("HTTP/1.1", "HTTP/1.0")]
        wrong, whole = [], 0
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda case: self.one(origin, *case), cases))
        for (framing, at, how, version), (seen, body) in zip(cases, results):
            wire = self.RESPONSES[framing]
            head = wire.index(b"\r\n\r\n") + 4
            if at < head:
                want = ("502",)
            elif framing == "close":
                want = ("whole",) if how == "fin" else ("cut",)  # only the way it ends can tell
            elif at < len(wire):
                want = ("cut",)
            else:
                want = ("whole",)
            if seen not in want:
                wrong.append((framing, at, how, version, seen, body))
            whole += want == ("whole",)
        self.assertEqual(wrong, [])
        self.wait_until(lambda: reset() + success() == len(cases), 5, lambda: f"{len(cases)} verdicts: {reset()}, {success()}")
        self.assertEqual((reset(), success()), (len(cases) - whole, whole))
        self.px.expect_metric(0, "requests_in_flight")
        self.px.wait_balance(settled=True)
        self.wait_until(lambda: self.px.open_files() <= files + 1, 10, "every descriptor to be given back")

    def test_an_upstream_that_dies_at_each_byte_of_its_request_reading_is_a_502_or_answers(self):
        body = pattern(3000)
        for take in (0, 1, 30, 100, 1000, 3000):
            for how in ("fin", "reset"):
                with self.subTest(take, how=how):
                    def script(conn, take=take, how=how):
                        if take:
                            conn.read_exactly(take)
                        conn.reset() if how == "reset" else conn.close()

                    origin = self.origin(script)
                    response = self.client().get(origin.url + "/", method="POST", body=body)
                    self.assert_self_made(response, 502, ("connection_terminated", "http_response_incomplete"))
        self.px.wait_balance(settled=True)

    def test_a_reset_as_soon_as_it_stands_is_a_reset_even_if_the_connect_learns_of_it(self):
        reset, others = self.delta("attempts_total", outcome="reset"), self.delta("attempts_total", outcome="connect")
        origin = self.origin(lambda conn: conn.reset())
        for _ in range(100):
            self.assert_self_made(self.client().get(origin.url + "/", method="POST", body=b"x"), 502, "connection_terminated")
        self.wait_until(lambda: reset() == 100, 5, lambda: f"100 resets: {reset()}")
        self.assertEqual(others(), 0)


class CoincidenceTest(SharedCase):
    """Bytes and a reset behind them that the proxy learns of in one and the same event."""

    WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def send_and_reset(self, conn, data):
        with self.px.standing_still():
            conn.send(data)
            wait_until(lambda: unacknowledged(conn) == 0, 5, "the bytes to arrive")
            conn.reset()

    def test_a_response_that_stops_half_way_with_a_reset_is_cut_or_a_502(self):
        for wire, want in ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "cut"), (b"HTTP/1.1 200 OK\r\nA: b", 502), (b"H", 502),
                           (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"x"), "cut"), (self.WHOLE, 200),
                           (b"HTTP/1.1 103 Hint\r\n\r\n", 502), (b"HTTP/1.1 200 OK\r\n\r\nhello", "cut")):
            with self.subTest(wire):
                origin = self.origin(lambda c, wire=wire: (c.read_request(), self.send_and_reset(c, wire)))
                client = self.client(timeout=5).send(request("GET", origin.url + "/"))
                try:
                    response = client.read_response(allow_truncated=True)
                    self.assertEqual(response.status if response.complete else "cut", want)
                except ConnectionResetError:
                    self.assertEqual(want, "cut")

    def test_a_pooled_connection_that_was_reset_with_its_last_response_costs_no_request(self):
        for method, body in (("GET", b""), ("POST", b"x")):
            with self.subTest(method):
                def script(conn):
                    conn.read_request()
                    if conn.index == 0:
                        self.send_and_reset(conn, self.WHOLE)
                    else:
                        conn.send(self.WHOLE)
                        conn.wait_for_end()

                origin = self.origin(script)
                client = self.client(timeout=5)
                self.assert_relayed(client.get(origin.url + "/"), 200, b"ok")
                self.assert_relayed(client.get(origin.url + "/", method=method, body=body), 200, b"ok")

    def test_a_client_that_resets_with_its_request_is_noticed_while_the_upstream_is_silent(self):
        for name, wire in (("whole", request("GET", "http://ORIGIN/")), ("half a body", request("POST", "http://ORIGIN/", "Content-Length: 9") + b"x"),
                           ("half a chunk", request("POST", "http://ORIGIN/", "Transfer-Encoding: chunked") + b"5\r\nhe")):
            with self.subTest(name):
                aborted = self.delta("client_errors_total", reason="aborted")
                origin = self.origin(lambda c: c.wait_for_end())
                client = Raw(self.px.address)
                self.send_and_reset(client, wire.replace(b"ORIGIN", origin.authority.encode()))
                self.wait_until(lambda: aborted() == 1, 5, "the client's leave")
                origin.wait_ended(timeout=5)
        self.px.expect_metric(0, "requests_in_flight")

    def test_a_client_that_resets_half_a_head_is_forgotten_at_once(self):
        before = self.px.metric("client_connections")
        client = Raw(self.px.address)
        self.send_and_reset(client, b"GET http://x.test/ HT")
        self.wait_until(lambda: self.px.metric("client_connections") == before, 5, "the connection to be closed")

    def test_a_tunnel_ends_when_either_side_resets_behind_its_bytes(self):
        for side in ("client", "server"):
            for rounds in (0, 2):
                with self.subTest(side, rounds=rounds):
                    go, gone = threading.Event(), threading.Event()

                    def script(conn, side=side, rounds=rounds, go=go, gone=gone):
                        for _ in range(rounds):
                            conn.send(conn.read_exactly(5))
                        if side == "client":
                            conn.read_exactly(4)
                            try:
                                conn.read_to_eof()
                            except ConnectionResetError:
                                pass
                            gone.set()
                        else:
                            conn.wait(go)
                            self.send_and_reset(conn, b"last")

                    origin = self.origin(script)
                    client = self.client(timeout=5)
                    self.assertEqual(connect(client, origin.authority).status, 200)
                    for _ in range(rounds):
                        client.send(b"\x01ping")
                        self.assertEqual(client.read_exactly(5), b"\x01ping")
                    if side == "client":
                        self.send_and_reset(client, b"\x01end")
                        self.assertTrue(gone.wait(5), "the server has to hear of it")
                    else:
                        go.set()
                        with self.assertRaises((ConnectionResetError, AssertionError)) as caught:
                            client.read_exactly(4)
                            client.expect_reset()
                            raise ConnectionResetError
                        self.assertIsInstance(caught.exception, ConnectionResetError)
                    self.wait_until(lambda: self.px.metric("tunnels") == 0, 5, "the tunnel to end")


class LyingDnsTest(SharedCase):
    config = {"dns": {"timeout": "600ms", "min_ttl": "0s", "stale": "0s"}}

    LIES = {
        "another id": lambda a: bytes([a[0] ^ 1]) + a[1:],
        "cut within the header": lambda a: a[:7],
        "cut within the question": lambda a: a[:15],
        "cut within the answer": lambda a: a[:-3],
        "more answers announced than there are": lambda a: a[:7] + b"\xff" + a[8:],
        "a name that points at itself": lambda a: a[:12] + b"\xc0\x0c" + a[14:],
        "a pointer beyond the end": lambda a: a[:-16] + b"\xff\xff" + a[-14:],
        "an address of three bytes": lambda a: a[:-6] + b"\x00\x03" + a[-4:-1],
        "no answers in it": lambda a: a[:7] + b"\x00" + a[8:-16],
        "random bytes": lambda a: bytes(range(200)),
        "one byte": lambda a: b"\x00",
        "64 KiB of zeros behind it": lambda a: a + bytes(60000),
    }

    def test_whatever_the_resolver_says_is_an_answer_or_one_error_and_the_next_name_works(self):
        origin = self.http_origin()
        for number, (lie, change) in enumerate(self.LIES.items()):
            with self.subTest(lie):
                name = f"liar-{number}.test"
                self.names.behaviour[name] = change
                response = self.get(f"http://{name}:{origin.port}/")
                if lie == "64 KiB of zeros behind it" and response.status == 200:
                    continue
                self.assertIn(response.status, (502, 504), response)
                self.assert_self_made(response, response.status, ("dns_error", "dns_timeout"))
                self.assert_relayed(self.get(f"http://honest-{number}.test:{origin.port}/"), 200, b"ok")
        self.px.wait_balance(settled=True)

    def test_an_answer_for_another_name_is_not_believed(self):
        origin = self.http_origin()
        self.names.behaviour["forged.test"] = lambda a: a.replace(b"\x06forged", b"\x06target", 1)
        response = self.get(f"http://forged.test:{origin.port}/")
        self.assert_self_made(response, 504, "dns_timeout")
        self.assertEqual(origin.hits, 0)

    def test_an_answer_truncated_over_udp_and_broken_over_tcp_is_one_error(self):
        origin = self.http_origin()
        self.names.behaviour["short.test"] = lambda a: a[:2] + bytes([a[2] | 2]) + a[3:]  # TC everywhere
        response = self.get(f"http://short.test:{origin.port}/")
        if response.status != 200:  # over TCP the bit means nothing
            self.assert_self_made(response, response.status, ("dns_error", "dns_timeout"))
        self.assertGreater(self.names.asked("short.test", "tcp"), 0)


class ExhaustionTest(Case):
    def test_without_descriptors_for_an_upstream_a_request_is_refused_as_local_and_later_ones_pass(self):
        proxy = self.proxy({"timeouts": {"upstream_idle": "0s"}}, self.control(), warnings=True,
                           prefix=["/bin/sh", "-c", 'ulimit -n 90; exec "$@"', "sh"])
        origin = self.http_origin()
        origin.record = False
        asking = self.client(proxy)
        self.assert_relayed(asking.get(origin.url + "/"), 200, b"ok")
        local = proxy.metric("attempts_total", outcome="local")
        holders = []
        for _ in range(60):  # each takes two descriptors, until there are none
            client = self.client(proxy)
            client.send(request("GET", origin.url + "/hang"))
            holders.append(client)
        wait_until(lambda: len(os.listdir(f"/proc/{proxy.pid}/fd")) >= 88, 10, lambda: f"{proxy.open_files()} descriptors")
        refused = asking.get(origin.url + "/")
        self.assert_self_made(refused, 503, "connection_limit_reached")
        for client in holders:
            client.reset()
        wait_until(lambda: self.get(origin.url + "/", proxy=proxy).status == 200, 10, "service as before")
        proxy.wait_metric(lambda n: n > local, "attempts_total", outcome="local")
        proxy.expect_metric(0, "attempts_total", why="the upstream is not to blame", outcome="connect")
        wait_until(lambda: proxy.metric("requests_in_flight") == 0, 10, "nothing in flight")

    def test_without_ports_to_the_upstream_a_request_is_refused_as_local_and_later_ones_pass(self):
        tool("ip")
        space = Namespace()
        self.addCleanup(space.leave)
        proxy = self.proxy({"timeouts": {"upstream_idle": "0s"}, "listen": ["127.0.0.1:3128"],
                            "telemetry_listen": "127.0.0.1:3130"}, self.control())
        origin = self.origin(sink)
        clients = [self.client(proxy) for _ in range(30)]  # they have their ports already
        with open("/proc/sys/net/ipv4/ip_local_port_range", "r+", encoding="ascii") as f:
            f.write("50000 50009")
        tunnels = []
        for client in clients:
            head = connect(client, origin.authority)
            if head.status != 200:
                break
            tunnels.append(client)
        self.assertEqual((len(tunnels), head.status), (10, 503), head.fields)
        self.assertIn("error=connection_limit_reached", head.get("proxy-status"))
        for client in tunnels:
            client.reset()
        wait_until(lambda: connect(clients.pop(), origin.authority).status == 200, 10, "a port again")
        with open("/proc/sys/net/ipv4/ip_local_port_range", "r+", encoding="ascii") as f:
            f.write("32768 60999")
        proxy.wait_metric(lambda n: n >= 1, "attempts_total", outcome="local")
        proxy.expect_metric(0, "attempts_total", outcome="connect")

    def test_a_full_disk_under_the_access_log_costs_lines_and_nothing_else(self):
        proxy = self.proxy({"access_log": {"mode": "all", "path": "/dev/full"}}, self.control(), warnings=True)
        traffic = Traffic(self, self.http_origin().url + "/")
        traffic.more(100)
        traffic.end()
        proxy.wait_metric(lambda v: v > 0, "log_lines_dropped_total")
        self.assertEqual(proxy.telemetry("/livez").status, 200)
        self.assertLessEqual(len(proxy.warning_lines()), 3, proxy.warning_lines())
        proxy.wait_balance(settled=True)


class ClockTest(Case):
    """The wall clock is moved by a library loaded before the C library; the monotonic one is not."""

    SHIM = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long *offset;
__attribute__((constructor)) static void begin(void)
{
    int fd = open(getenv("CLOCK_OFFSET_FILE"), O_RDONLY);
    offset = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
}
int clock_gettime(clockid_t id, struct timespec *ts)
{
    int r = (int)syscall(SYS_clock_gettime, id, ts);
    if (id == CLOCK_REALTIME && offset)
        ts->tv_sec += *offset;
    return r;
}
time_t time(time_t *t)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (t)
        *t = ts.tv_sec;
    return ts.tv_sec;
}
int gettimeofday(struct timeval *tv, void *tz)
{
    struct timespec ts;
    (void)tz;
    clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}
"""

    def test_steps_of_the_wall_clock_cut_nothing_and_lose_no_sample(self):
        if variant() == "tsan":
            self.skipTest("ThreadSanitizer has its own clock_gettime")
        where = self.temp_dir()
        library, offset = os.path.join(where, "clock.so"), os.path.join(where, "offset")
        subprocess.run([tool("gcc"), "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", library], input=self.SHIM, text=True, check=True)

        def step(seconds):
            with open(offset, "r+b" if os.path.exists(offset) else "w+b") as f:
                f.write(seconds.to_bytes(8, "little", signed=True))

        step(0)
        control = self.control()
        control.check_clock = False
        asan = "abort_on_error=0:exitcode=99:log_path=stderr:verify_asan_link_order=0:detect_leaks=0"
        proxy = self.proxy({"samples": {"max_age": "20s"}}, control,
                           prefix=["env", f"LD_PRELOAD={library}", f"CLOCK_OFFSET_FILE={offset}", f"ASAN_OPTIONS={asan}"])
        traffic = Traffic(self, self.http_origin().url + "/")
        for seconds in (3600, -3600, 86400 * 400, -1000, 0):
            traffic.more()
            step(seconds)
            now, since = time.time() + seconds, len(control.samples)
            traffic.more()
            wait_until(lambda now=now, since=since: any(abs(s["ts_ms"] / 1000 - now) < 60 for s in control.samples[since:]), 10,
                       "a sample of the new time")
            for sample in control.samples[since:]:
                self.assertTrue(0 <= sample["value"] < 10_000, sample)  # milliseconds of the monotonic clock
        traffic.end()
        books = proxy.wait_balance(settled=True)
        self.assertEqual(sum(books.dropped.values()), 0, books)
