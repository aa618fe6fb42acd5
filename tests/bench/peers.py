"""The programs under test: how each is configured, started, found ready and stopped by pid.

A peer is started anew for each case, with room for its connections, and with a flavour of
its configuration:

    plain      every request goes to the one origin
    refuse     every request is answered with 503, without the origin
    half_open  one request in two is (ours only)
    routes     10 000 hosts with a route each
    tunnel     CONNECT, or plain TCP to the origin's raw port

Our own runs as it would: a route matches, two breakers are asked, attempts are judged and
recorded.  Its control plane is remote and outside the measured core (`tripswitch`, the one
the ratios refer to) or inside the process and on the measured core (`ts-embedded`).
"""

import contextlib
import glob
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib

from measure import CORES, children, listeners, memory_bytes, pin, strangers

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "integration"))
from harness import ControlPlane, Proxy, clean_environment, free_port  # noqa: E402

ROUTES = 10000
PIPE = 1024 * 1024  # bytes, as ours has them for its tunnels
START_S = 30
PORT_TRIES = 4


class Absent(Exception):
    """Why a peer takes no part."""


def route_host(i):
    """A host of its own for each route, that needs no DNS."""
    return f"127.1.{i // 250}.{i % 250 + 1}"


def last_words(log):
    with open(log, encoding="utf-8", errors="replace") as f:
        lines = f.read().strip().splitlines()
    return next((w for w in lines if re.search("fatal|alert|emerg|error", w, re.I)), lines[-1] if lines else "no word")


def first_answer(port, request):
    """The status of the answer to a request; 0: a connection stood, and nothing was asked; None: not yet."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as s:
            if not request:
                return 0
            s.settimeout(5)
            s.sendall(request)
            found = re.match(rb"HTTP/1\.[01] (\d{3}) ", s.recv(4096))
            return int(found[1]) if found else None
    except OSError:
        return None


def wait_answer(process, log, port, request=b"", statuses=range(600)):
    """Until this process itself answers."""
    end, status = time.monotonic() + START_S, None
    while time.monotonic() < end:
        if process.poll() is not None:
            raise Absent(f"ended at start with {process.returncode}: {last_words(log)}")
        status = first_answer(port, request)
        if status in statuses:
            if strangers(port, [process.pid, *children(process.pid)]):
                raise Absent(f"port {port} is another program's")
            return
        time.sleep(0.002)
    raise Absent(f"answers with {status} after {START_S} s" if status else f"does not answer after {START_S} s")


def start_on_free_ports(start, stop, ports):
    """start() takes ports; where somebody else has one of them meanwhile it is tried with others."""
    for attempt in range(PORT_TRIES):
        try:
            start()
            return
        except (Absent, AssertionError, OSError):
            stop()
            if attempt == PORT_TRIES - 1 or not any(listeners(p) for p in ports()):
                raise


class Peer:
    """A program in front of the origin; subclasses say how it is configured."""

    name = program = package = ""
    flavours = ("plain",)
    cannot = "is not set up for this case"  # which is not to say that it could not be
    keeps = True  # connections outlive their request
    workers, cores = 1, CORES.test
    fail_mode = "open"  # of ours: what becomes of requests before the breakers' states are here

    def __init__(self, origin, folder, flavour, room):
        self.origin, self.flavour, self.room = origin, flavour, room
        self.folder = os.path.join(folder, self.name)
        self.port = self.process = self.log = None
        self.began = self.idle_bytes = self.ready_ms = 0

    @classmethod
    def find(cls):
        path = shutil.which(cls.program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if not path:
            raise Absent(f"{cls.program} is not installed (package {cls.package}): make bench-deps")
        return path

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
        return path

    def command(self, program):
        raise NotImplementedError

    def environment(self):
        return clean_environment()

    def launch(self):
        program = self.find()
        os.makedirs(self.folder, exist_ok=True)
        os.chmod(self.folder, 0o1777)  # some give up root for a user of their own
        command = ["taskset", "-c", self.cores, *self.command(program)]
        self.log = os.path.join(self.folder, "log")
        with open(self.log, "wb") as out:
            self.began = time.monotonic()
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            env=self.environment(), cwd=self.folder)

    def first_request(self):
        """(request, statuses) by which it shows that it works; none of a tunnel."""
        if self.flavour == "tunnel":
            return b"", range(600)
        host = route_host(0) if self.flavour == "routes" else None
        return self.request("/1k", host, close=True), range(600) if self.flavour in ("refuse", "half_open") else range(200, 300)

    def try_start(self):
        self.port = free_port()
        self.launch()
        wait_answer(self.process, self.log, self.port, *self.first_request())
        self.ready_ms = (time.monotonic() - self.began) * 1e3

    def start(self):
        start_on_free_ports(self.try_start, self.stop, lambda: [self.port])
        pin(self.pids(), self.cores)  # also those that chose cores themselves
        self.settle()
        self.idle_bytes = self.memory()

    def stop(self):
        if self.process and self.process.poll() is None:
            left = children(self.process.pid)
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
                for pid in left:  # they do not learn of that
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)

    def check(self):
        """What is measured is this process, alive."""
        if self.process and self.process.poll() is not None:
            raise Absent(f"ended with {self.process.returncode}")

    def settle(self):
        """Wait until it is in the state to be measured."""

    def metrics(self):
        """What it tells of itself; None where nobody asks."""
        return None

    def pids(self):
        return [self.process.pid, *children(self.process.pid)]

    def memory(self):
        return sum(memory_bytes(p) for p in self.pids())

    def request(self, path, host=None, method="GET", body=0, close=False):
        """Origin-form, as for a reverse proxy."""
        fields = [f"{method} {path} HTTP/1.1", f"Host: {host or '127.0.0.1'}:{self.origin.http_port}",
                  "User-Agent: bench/1", "Accept: */*"]
        fields += [f"Content-Length: {body}"] if body else []
        fields += ["Connection: close"] if close else []
        return "\r\n".join(fields).encode() + b"\r\n\r\n" + b"x" * body

    def tunnel_head(self):
        """What opens a tunnel; empty where the connection is one."""
        return b""


class Forward(Peer):
    """A forward proxy: absolute-form and CONNECT."""

    flavours = ("plain", "tunnel")

    def request(self, path, host=None, **kw):
        url = f"http://{host or '127.0.0.1'}:{self.origin.http_port}{path}"
        return super().request(url, host, **kw)

    def tunnel_head(self):
        to = f"127.0.0.1:{self.origin.raw_port}"
        return f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n".encode()


class Direct(Peer):
    name = "direct"
    flavours = ("plain", "routes", "tunnel")
    cannot = "has nothing that refuses"

    def try_start(self):
        self.port = self.origin.raw_port if self.flavour == "tunnel" else self.origin.http_port

    def pids(self):
        return []


class Nginx(Peer):
    name, program, package = "nginx", "nginx", "nginx-light"
    flavours = ("plain", "refuse", "routes")

    def servers(self):
        if self.flavour == "refuse":
            return f"server {{ listen 127.0.0.1:{self.port} reuseport backlog=4096; location / {{ return 503; }} }}\n"
        listen = f"listen 127.0.0.1:{self.port}"
        plain = f"server {{ {listen} default_server backlog=4096; location / {{ proxy_pass http://origin; }} }}\n"
        if self.flavour == "plain":
            return plain
        return plain + "".join(f"server {{ {listen}; server_name {route_host(i)}; location / {{ proxy_pass http://origin; }} }}\n"
                               for i in range(ROUTES))

    def command(self, program):
        temporary = "".join(f" {kind}_temp_path {self.folder}/{kind};\n"
                            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        path = self.write("nginx.conf", f"""{'user root;' if os.geteuid() == 0 else ''}
daemon off; worker_processes {self.workers}; pid {self.folder}/pid; error_log {self.folder}/error.log error;
worker_rlimit_nofile {resource.getrlimit(resource.RLIMIT_NOFILE)[1]};
events {{ worker_connections {self.room * 2}; }}
http {{
 access_log off; client_body_buffer_size 64k; keepalive_timeout 1h; keepalive_requests 1000000000; tcp_nodelay on; sendfile on;
 server_names_hash_max_size 65536; client_max_body_size 0;
{temporary}
 proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
 upstream origin {{ server 127.0.0.1:{self.origin.http_port}; keepalive 512; keepalive_requests 1000000000; }}
{self.servers()}
}}
""")
        return [program, "-p", self.folder, "-e", f"{self.folder}/error.log", "-c", path]


class Haproxy(Peer):
    name, program, package = "haproxy", "haproxy", "haproxy"
    flavours = ("plain", "refuse", "routes", "tunnel")

    def sections(self):
        bind = f" bind 127.0.0.1:{self.port} backlog 4096\n"
        if self.flavour == "tunnel":
            return (" mode tcp\n option splice-request\n option splice-response\n"
                    f"listen tunnel\n{bind} server origin 127.0.0.1:{self.origin.raw_port}\n")
        http = " mode http\n http-reuse always\n option http-keep-alive\n"
        backend = f"backend origin\n server origin 127.0.0.1:{self.origin.http_port} pool-max-conn 512\n"
        if self.flavour == "refuse":
            return f"{http}frontend in\n{bind} http-request deny status 503\n"
        if self.flavour == "plain":
            return f"{http}frontend in\n{bind} default_backend origin\n{backend}"
        hosts = self.write("hosts.map", "".join(f"{route_host(i)} origin\n" for i in range(ROUTES)))
        return f"{http}frontend in\n{bind} use_backend %[req.hdr(host),field(1,:),lower,map({hosts})]\n{backend}"

    def command(self, program):
        path = self.write("haproxy.cfg", f"""global
 nbthread {self.workers}
 maxconn {self.room}
 no strict-limits
 maxpipes 1000
 tune.pipesize {PIPE}
defaults
 timeout connect 10s
 timeout client 1h
 timeout server 1h
{self.sections()}""")
        return [program, "-f", path, "-db"]


class Squid(Forward):
    name, program, package = "squid", "squid", "squid"

    def command(self, program):
        path = self.write("squid.conf", f"""http_port 127.0.0.1:{self.port}
http_access allow all
cache deny all
memory_pools on
access_log none
cache_store_log none
cache_log {self.folder}/cache.log
pid_filename none
pinger_enable off
workers 1
max_filedescriptors {resource.getrlimit(resource.RLIMIT_NOFILE)[1]}
client_idle_pconn_timeout 1 hour
shutdown_lifetime 0 seconds
visible_hostname bench
""")
        return [program, "-n", self.service, "-N", "-d", "0", "-f", path]

    @property
    def service(self):
        """Names its shared memory, which it leaves behind when it fails."""
        return f"tspbench{self.port}"

    def stop(self):
        super().stop()
        for path in glob.glob(f"/dev/shm/{self.service}-*"):
            os.unlink(path)


class Tinyproxy(Forward):
    """A thread per connection, and no connection outlives its request."""

    name, program, package = "tinyproxy", "tinyproxy", "tinyproxy-bin"
    keeps = False

    def command(self, program):
        path = self.write("tinyproxy.conf", f"""Port {self.port}
Listen 127.0.0.1
Timeout 3600
MaxClients {self.room}
LogFile "{self.folder}/tinyproxy.log"
LogLevel Critical
DisableViaHeader Yes
""")
        return [program, "-d", "-c", path]


class TrafficServer(Forward):
    name, program, package = "ats", "traffic_server", "trafficserver"

    def launch(self):
        self.find()
        for name in ("etc", "run", "log", "cache"):
            os.makedirs(os.path.join(self.folder, "root", name), exist_ok=True)
        super().launch()

    def environment(self):
        return clean_environment(TS_RUNROOT=os.path.join(self.folder, "root", "runroot.yaml"))

    def command(self, program):
        root = os.path.join(self.folder, "root")
        share = "/usr/share/trafficserver"
        self.write("root/runroot.yaml", f"""prefix: {root}
exec_prefix: {root}
bindir: /usr/bin
sbindir: /usr/bin
sysconfdir: {root}/etc
datadir: {share}
libexecdir: /usr/lib/trafficserver/modules
localstatedir: {root}/run
runtimedir: {root}/run
logdir: {root}/log
cachedir: {root}/cache
""")
        settings = [
            ("exec_thread.autoconfig", "INT 0"), ("exec_thread.limit", "INT 1"), ("exec_thread.affinity", "INT 0"),
            ("accept_threads", "INT 0"), ("admin.user_id", "STRING #-1"), ("diags.output.status", "STRING L"),
            ("http.server_ports", f"STRING {self.port}:ip-in=127.0.0.1"), ("http.connect_ports", "STRING *"),
            ("http.cache.http", "INT 0"), ("log.logging_enabled", "INT 0"), ("http.insert_request_via_str", "INT 0"),
            ("url_remap.remap_required", "INT 0"), ("reverse_proxy.enabled", "INT 0"),
            ("net.connections_throttle", f"INT {self.room * 2}"), ("net.max_connections_in", f"INT {self.room}"),
            ("http.keep_alive_no_activity_timeout_in", "INT 3600"),
            ("http.transaction_no_activity_timeout_in", "INT 3600"),
            ("http.transaction_no_activity_timeout_out", "INT 3600"),
        ]
        self.write("root/etc/records.config", "".join(f"CONFIG proxy.config.{k} {v}\n" for k, v in settings))
        self.write("root/etc/ip_allow.yaml", "ip_allow:\n  - apply: in\n    ip_addrs: 0/0\n    action: allow\n    methods: ALL\n")
        self.write("root/etc/storage.config", f"{root}/cache 16M\n")
        for name in ("remap", "plugin", "cache", "hosting", "parent", "volume", "splitdns", "ssl_multicert", "socks"):
            self.write(f"root/etc/{name}.config", "")
        return [program, f"--run-root={root}/runroot.yaml"]


# ---- Ours ----

class CheapControlPlane(ControlPlane):
    """Counts samples and does not judge them: it shares a core with the load generator."""

    keep_samples = False

    def _check(self, head, body):
        self.batches.clear()
        self.requests.clear()
        text = zlib.decompress(body, 31) if head.get("content-encoding") == "gzip" else body
        return range(text.count(b'"router_id"'))

    def _accept_samples(self, samples):
        with self.lock:
            self.accepted += len(samples)


STATES = {"refuse": ("open", 0.0), "half_open": ("half_open", 0.5)}


class Ours(Forward):
    """A remote control plane: what it costs to judge is not ours to pay."""

    name = "tripswitch"
    flavours = ("plain", "refuse", "half_open", "routes", "tunnel")
    remote, router = True, "bench"
    logging = {"access_log": {"mode": "off"}}
    under = ()  # a command to run it under

    def __init__(self, origin, folder, flavour, room):
        super().__init__(origin, folder, flavour, room)
        self.proxy = self.control = None

    @classmethod
    def find(cls):
        return None

    def routes(self):
        common = {"breakers": ["bench-a", "bench-b"], **({"router": self.router} if self.router else {})}
        if self.flavour != "routes":
            return [{"name": "bench", "match": {"hosts": ["127.0.0.1"]}, **common}]
        return [{"name": f"r{i}", "match": {"hosts": [route_host(i)]}, **common} for i in range(ROUTES)]

    def idle_upstreams(self):
        """A host has connections of its own, where the peers have one origin behind all of them."""
        return {"upstream_idle": self.room} if self.flavour == "routes" else {}

    def launch(self):
        config = {"listen": [f"127.0.0.1:{self.port}"], "workers": self.workers, **self.logging, "fail_mode": self.fail_mode,
                  "limits": {"connections": self.room, "tunnels": self.room, **self.idle_upstreams()},
                  "routes": self.routes(), "samples": None, "timeouts": {"client_idle": "1h"}}
        if self.remote:
            state = STATES.get(self.flavour, ("closed", None))
            self.control = CheapControlPlane(breakers={"bench-a": "closed", "bench-b": state}, routers={"bench"})
        self.proxy = Proxy(config, control=self.control, prefix=("taskset", "-c", self.cores, *self.under),
                           warnings=True, check_books=False, wait=False, stdout=subprocess.DEVNULL)
        self.process, self.log, self.began = self.proxy.process, self.proxy.stderr_path, self.proxy.started_at

    def settle(self):
        self.proxy.wait_started()
        if self.control:
            self.control.wait_stream()

    def metrics(self):
        return self.proxy.metrics()

    def stop(self):
        proxy, control, self.proxy, self.control = self.proxy, self.control, None, None
        try:
            if proxy and proxy.process.poll() is None:
                proxy.terminate(30 if self.under else 10)  # callgrind writes first
        finally:
            if proxy:
                proxy.cleanup()  # kills, where asking was not enough
            if control:
                control.stop()


class Embedded(Ours):
    """Evaluates every sample itself, on the measured core."""

    name, remote = "ts-embedded", False
    flavours = ("plain", "routes", "tunnel")
    cannot = "its breakers follow from samples, not from us"


class TwoWorkers(Ours):
    name, workers, cores = "ts-2workers", 2, CORES.two


class Nginx2(Nginx):
    name, workers, cores = "nginx-2", 2, CORES.two


class Haproxy2(Haproxy):
    name, workers, cores = "haproxy-2", 2, CORES.two


class NoSamples(Ours):
    """The same, without a router: gated, judged, not reported."""

    name, router = "ts-nosamples", None


class Logged(Ours):
    """With the access log as it is by default: every refusal is a line."""

    name, logging = "ts-logged", {}


class Forwarding(Ours):
    """Ours with closed breakers, beside one with open ones."""

    name = "ts-forwards"

    def __init__(self, origin, folder, flavour, room):
        super().__init__(origin, folder, "plain", room)


PEERS = {p.name: p for p in (Ours, Embedded, Direct, Nginx, Haproxy, Squid, Tinyproxy, TrafficServer,
                             TwoWorkers, Nginx2, Haproxy2, NoSamples, Logged, Forwarding)}
BASE = Ours.name
USUAL = [p.name for p in (Ours, Embedded, Direct, Nginx, Haproxy, Squid, Tinyproxy, TrafficServer)]
ALWAYS = (BASE, Direct.name)  # whatever was asked for


def is_asked_for(name, only):
    """only: the names that the user gave; none: all.  What a case needs besides goes with its like."""
    like = {"nginx-2": "nginx", "haproxy-2": "haproxy"}.get(name, name)
    return not only or like in ALWAYS or like in only or like not in USUAL
