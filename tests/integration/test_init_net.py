"""init-net in network namespaces, with real rules: ECOSYSTEM section 10.2, UX T9d.

Every test has two namespaces joined by a cable: "inside", where a program and the proxy's
transparent listener would run, and "outside", where the servers are.  Sockets are opened
by this process in a thread that has entered a namespace, with the user that the test wants.
"""

import ctypes
import functools
import itertools
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import urllib.request

from harness import Case, binary, clean_environment, wait_until
from harness.proxy import SANITIZER
from harness.tunnels import Certificates

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
SO_ORIGINAL_DST = 80
PROXY_UID = 65532
APP_UID = 1234
BACKENDS = ("nft", "iptables-nft", "iptables-legacy")
INSIDE4, OUTSIDE4 = "10.199.0.1", "10.199.0.2"
INSIDE6, OUTSIDE6 = "fd99::1", "fd99::2"
LINK_LOCAL4, LINK_LOCAL6 = "169.254.7.7", "fe80::7"
NUMBERS = itertools.count()


def sh(*command, stdin=None, check=True):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.returncode}: {done.stderr}")
    return done


def within(namespace, what, uid=0, gid=0):
    """The result of what(), called by a thread in a namespace and with these file-system ids,
    which are what sockets are owned by; both are the thread's alone."""
    result = []

    def work():
        try:
            with open(f"/run/netns/{namespace}", "rb") as f:
                if LIBC.setns(f.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            LIBC.setfsgid(gid)
            LIBC.setfsuid(uid)
            result.append((what(), None))
        except BaseException as e:  # carried to the caller's thread
            result.append((None, e))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    value, error = result[0]
    if error:
        raise error
    return value


def original_destination(conn):
    if conn.family == socket.AF_INET:
        raw = conn.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        return f"{socket.inet_ntop(socket.AF_INET, raw[4:8])} {struct.unpack('!H', raw[2:4])[0]}"
    raw = conn.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
    return f"{socket.inet_ntop(socket.AF_INET6, raw[8:24])} {struct.unpack('!H', raw[2:4])[0]}"


class Server:
    """Says who it is to everyone who connects, and closes."""

    def __init__(self, namespace, host, port, greet, uid=0):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = within(namespace, lambda: socket.socket(family, socket.SOCK_STREAM), uid)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.sock.bind((host, port))
        self.sock.listen(16)
        self.greet = greet
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            with conn:
                try:
                    conn.sendall(self.greet(conn).encode())
                except OSError:
                    pass

    def stop(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join(5)
        self.sock.close()


@functools.cache
def why_not():
    """What keeps these tests from running here; None: nothing."""
    for name in ("ip", "nft", "iptables-nft", "iptables-legacy", "setpriv", "unshare"):
        if not shutil.which(name):
            return f"{name} is not installed"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    name = f"tsp-try-{os.getpid()}"
    done = sh("ip", "netns", "add", name, check=False)
    if done.returncode:
        return done.stderr.strip()
    try:
        return sh("ip", "netns", "exec", name, "nft", "list", "ruleset", check=False).stderr.strip() or None
    finally:
        sh("ip", "netns", "del", name, check=False)


def works(backend):
    """Has this kernel what the backend needs?  Asked in a namespace of its own."""
    name = f"tsp-try-{os.getpid()}"
    rule = ["-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "1", "-m", "owner", "--uid-owner", "1",
            "-m", "comment", "--comment", "x", "-j", "REDIRECT", "--to-ports", "2"]
    sh("ip", "netns", "add", name)
    try:
        if backend == "nft":
            script = "table inet t { chain c { type nat hook output priority -100; tcp dport 1 redirect to :2; }; }\n"
            return sh("ip", "netns", "exec", name, "nft", "-f", "-", stdin=script, check=False).returncode == 0
        return all(sh("ip", "netns", "exec", name, backend.replace("iptables", tables), *rule, check=False).returncode == 0
                   for tables in ("iptables", "ip6tables"))
    finally:
        sh("ip", "netns", "del", name)


@functools.cache
def usable_backends():
    found = tuple(b for b in BACKENDS if works(b))
    if found != BACKENDS:
        print(f"NOTICE: init-net IS TESTED ONLY WITH {', '.join(found) or 'nothing'}: the kernel lacks the rest", flush=True)
    return found


class NetCase(Case):
    backend = "auto"  # which one is being tested, for messages

    def setUp(self):
        super().setUp()
        reason = why_not()
        if reason:
            self.skipTest(f"NETWORK NAMESPACES CANNOT BE USED HERE, init-net IS NOT TESTED: {reason}")
        self.backends = usable_backends()
        if not self.backends:
            self.skipTest("THE KERNEL REDIRECTS NEITHER WITH nft NOR WITH iptables, init-net IS NOT TESTED")
        self.inside, self.outside = self.namespaces()

    def namespaces(self):
        n = f"tsp-{os.getpid()}-{next(NUMBERS)}"
        inside, outside = n + "-in", n + "-out"
        for name in (inside, outside):
            sh("ip", "netns", "add", name)
            self.addCleanup(sh, "ip", "netns", "del", name, check=False)
            sh("ip", "-n", name, "link", "set", "lo", "up")
        sh("ip", "link", "add", "cable", "netns", inside, "type", "veth", "peer", "name", "cable", "netns", outside)
        for name, v4, v6 in ((inside, INSIDE4, INSIDE6), (outside, OUTSIDE4, OUTSIDE6)):
            sh("ip", "-n", name, "addr", "add", v4 + "/24", "dev", "cable")
            sh("ip", "-n", name, "addr", "add", v6 + "/64", "dev", "cable", "nodad")
        sh("ip", "-n", outside, "addr", "add", LINK_LOCAL4 + "/16", "dev", "cable")
        sh("ip", "-n", outside, "addr", "add", LINK_LOCAL6 + "/64", "dev", "cable", "nodad")
        for name in (inside, outside):
            sh("ip", "-n", name, "link", "set", "cable", "up")
        sh("ip", "-n", inside, "route", "add", "default", "via", OUTSIDE4)
        sh("ip", "-n", inside, "-6", "route", "add", "default", "via", OUTSIDE6)
        return inside, outside

    # -- the command -------------------------------------------------------------------

    def init_net(self, *args, code=0, prefix=(), env=None):
        """Its standard error (and output), after the exit code was what it should be."""
        done = subprocess.run(["ip", "netns", "exec", self.inside, *prefix, binary(), "init-net", *args],
                              env=clean_environment(**(env or {})), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=60, check=False)
        text = done.stdout + done.stderr
        self.assertIsNone(SANITIZER.search(text), text)
        self.assertEqual(done.returncode, code, f"{self.backend}: init-net {' '.join(args)}: {text}")
        return text

    def rules(self):
        """All rules of the namespace, of every kind, without counters, dates and remarks."""
        out = [sh("ip", "netns", "exec", self.inside, "nft", "-s", "list", "ruleset").stdout]
        for program in ("iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"):
            text = sh("ip", "netns", "exec", self.inside, program).stdout
            text = re.sub(r"^#.*\n", "", text, flags=re.M)
            text = re.sub(r"\[\d+:\d+\]", "", text)
            out.append(f"{program}:\n{text}")
        return "\n".join(out)

    def inside_sh(self, *command, stdin=None):
        return sh("ip", "netns", "exec", self.inside, *command, stdin=stdin)

    # -- the world ---------------------------------------------------------------------

    def serve(self, namespace, host, port, greet, uid=0):
        server = Server(namespace, host, port, greet, uid)
        self.addCleanup(server.stop)
        return server

    def listener(self, port=3129, uid=PROXY_UID, hosts=("127.0.0.1", "::1")):
        """Stands where the proxy's transparent listener would, and says where a connection wanted to go."""
        for host in hosts:
            self.serve(self.inside, host, port, lambda c: "captured " + original_destination(c), uid)

    def origin(self, host, port):
        return self.serve(self.outside, host, port, lambda c: f"origin {c.getsockname()[0]} {c.getsockname()[1]}")

    def open(self, host, port, uid=APP_UID, gid=APP_UID):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        s = within(self.inside, lambda: socket.socket(family, socket.SOCK_STREAM), uid, gid)
        s.settimeout(5)
        scope = (0, within(self.inside, lambda: socket.if_nametoindex("cable"))) if host.startswith("fe80") else ()
        try:
            s.connect((host, port, *scope))
        except OSError:
            s.close()
            raise
        return s

    def connect(self, host, port, uid=APP_UID, gid=APP_UID):
        """What answers a program that connects: "captured ADDRESS PORT", "origin ADDRESS PORT" or the error."""
        try:
            with self.open(host, port, uid, gid) as s:
                return s.makefile("rb").read().decode()
        except OSError as e:
            return type(e).__name__


class RulesTest(NetCase):
    FOREIGN = {
        "nothing": [],
        "rules of others": [
            (("nft", "-f", "-"), "table inet other { chain out { type filter hook output priority 0; tcp dport 81 accept; }; }\n"),
            (("iptables-nft-restore", "--noflush"), "*nat\n:MINE - [0:0]\n-A OUTPUT -p tcp --dport 81 -j MINE\n"
             "-A MINE -j RETURN\n-A POSTROUTING -s 10.3.0.0/16 -j MASQUERADE\nCOMMIT\n"),
            (("ip6tables-nft-restore", "--noflush"), "*nat\n-A OUTPUT -p tcp --dport 81 -j RETURN\nCOMMIT\n"),
        ],
        "legacy rules of others": [
            (("iptables-legacy-restore", "--noflush"), "*nat\n:MINE - [0:0]\n-A OUTPUT -p tcp --dport 81 -j MINE\n"
             "-A MINE -j RETURN\nCOMMIT\n"),
            (("ip6tables-legacy-restore", "--noflush"), "*nat\n-A OUTPUT -p tcp --dport 81 -j RETURN\nCOMMIT\n"),
        ],
        "tables that are empty": [
            (("iptables-nft-restore", "--noflush"), "*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"),
            (("nft", "-f", "-"), "table ip nat { chain OUTPUT { type nat hook output priority -100; }; }\n"),
        ],
    }

    def test_applied_twice_is_like_once_and_remove_restores_the_start(self):
        for backend in self.backends:
            for start, commands in self.FOREIGN.items():
                if "legacy" in start and "iptables-legacy" not in self.backends:
                    continue
                if "legacy" not in start and backend == "iptables-legacy" and start != "nothing":
                    continue  # both kinds of iptables at once are nobody's setup
                with self.subTest(f"{backend}, {start}"):
                    self.inside, self.outside = self.namespaces()
                    for command, script in commands:
                        self.inside_sh(*command, stdin=script)
                    if backend == "iptables-legacy":  # makes its tables for good, even if only asked
                        for program in ("iptables-legacy", "ip6tables-legacy"):
                            self.inside_sh(program, "-t", "nat", "-L", "-n")
                    before = self.rules()
                    self.init_net("--apply", "--backend", backend)
                    once = self.rules()
                    self.assertNotEqual(before, once)
                    self.init_net("--apply", "--backend", backend)
                    self.assertEqual(once, self.rules())
                    self.init_net("--apply", "--backend", backend, "--ports", "8000-8100", "--exclude-cidr", "10.0.0.0/8,fd00::/8")
                    self.assertNotEqual(once, self.rules())
                    self.init_net("--apply", "--backend", backend)
                    self.assertEqual(once, self.rules())
                    self.assertIn("removed the rules made with " + backend, self.init_net("--remove"))
                    self.assertEqual(before, self.rules())
                    self.assertIn("no rules to remove", self.init_net("--remove"))
                    self.assertEqual(before, self.rules())

    def test_rules_that_others_added_later_survive_the_removal(self):
        later = "*nat\n-A POSTROUTING -s 10.3.0.0/16 -j MASQUERADE\nCOMMIT\n"
        for backend in [b for b in self.backends if b != "nft"]:
            with self.subTest(backend):
                self.inside, self.outside = self.namespaces()
                self.init_net("--apply", "--backend", backend)
                self.inside_sh(backend + "-restore", "--noflush", stdin=later)
                self.init_net("--remove")
                text = self.rules()
                self.assertIn("-A POSTROUTING -s 10.3.0.0/16 -j MASQUERADE", text)
                self.assertNotIn("TRIPSWITCH", text)

    def test_another_backend_takes_the_place_of_the_first(self):
        before = self.rules()
        for first in [b for b in self.backends if b != "nft"]:
            with self.subTest(first):
                self.init_net("--apply", "--backend", first)
                text = self.init_net("--apply")
                self.assertIn(f"removed the rules of an earlier run made with {first}", text)
                self.assertIn("applied with nft", text)
                self.assertNotIn("TRIPSWITCH", self.rules())
                self.init_net("--remove")
        text = re.sub(r"\*nat\n(:\w+ ACCEPT \n)*COMMIT\n", "", self.rules())  # what legacy leaves: empty tables
        self.assertEqual(before, text)

    def test_what_is_printed_is_what_apply_does(self):
        self.init_net("--apply", "--backend", "nft", "--gid", "77", "--exclude-ports", "81")
        applied = self.rules()
        self.init_net("--remove")
        script = self.init_net("--print", "--gid", "77", "--exclude-ports", "81")
        self.inside_sh("nft", "-f", "-", stdin=script)
        self.assertEqual(applied, self.rules())
        self.listener()
        self.init_net("--verify", "--gid", "77", "--exclude-ports", "81")

    def test_many_networks_and_ports_fit(self):
        networks = ",".join(f"10.{i}.0.0/16" for i in range(128)) + "," + ",".join(f"fd00:{i:x}::/32" for i in range(1, 129))
        ports = ",".join(str(p) for p in range(5000, 5512, 2))
        flags = ("--exclude-cidr", networks, "--ports", ports, "--exclude-ports", "1-79,81-1000")
        self.listener()
        for backend in self.backends:
            with self.subTest(backend):
                self.init_net("--apply", "--verify", "--backend", backend, *flags)
                self.init_net("--remove")


class BackendTest(NetCase):
    HIDE = 'for f in $HIDE; do mount --bind "${BY:-/dev/null}" /usr/sbin/$f || exit 99; done; exec "$@"'

    def hidden(self, *names, by=None):
        """A prefix that runs a command where programs are missing, or replaced by one."""
        self.real_sbin()
        return {"prefix": ("unshare", "--mount", "sh", "-c", self.HIDE, "sh"),
                "env": {"HIDE": " ".join(names), "BY": by}}

    def real_sbin(self):
        """The iptables programs are names of one file, so each has to be hidden by its name's end."""
        for name in ("nft", "xtables-nft-multi", "xtables-legacy-multi"):
            if not os.path.exists(f"/usr/sbin/{name}"):
                self.skipTest(f"/usr/sbin/{name} is not where Debian has it")

    def program(self, text):
        path = os.path.join(self.temp_dir(), "program")
        with open(path, "w", encoding="ascii") as f:
            f.write("#!/bin/sh\n" + text)
        os.chmod(path, 0o755)
        return path

    def test_the_first_backend_that_works_is_taken_and_said(self):
        cases = [
            ((), None, "nft", ()),
            (("nft",), None, "iptables-nft", ("nft: not installed",)),
            (("nft", "xtables-nft-multi"), None, "iptables-legacy", ("nft: not installed", "iptables-nft-save: not installed")),
            (("nft",), "echo 'Error: Could not process rule: No such file or directory' >&2; exit 1", "iptables-nft",
             ("Could not process rule",)),
        ]
        for names, script, want, said in cases:
            if want not in self.backends:
                continue
            with self.subTest(want, hidden=names):
                self.inside, self.outside = self.namespaces()
                self.listener()
                text = self.init_net("--apply", "--verify", **self.hidden(*names, by=script and self.program(script)))
                for words in (*said, f"applied with {want}:", "verified: the rules are in place, an IPv4 connection is captured"):
                    self.assertIn(words, text)
                self.init_net("--remove")

    def test_without_any_program_it_is_an_error_of_the_system(self):
        names = ("nft", "xtables-nft-multi", "xtables-legacy-multi")
        for action in ("--apply", "--remove"):
            with self.subTest(action):
                self.assertIn("nstalled", self.init_net(action, code=71, **self.hidden(*names)))

    def test_programs_that_fail_leave_nothing_behind(self):
        before = self.rules()
        by = self.program("cat >/dev/null; echo 'out of order' >&2; exit 3\n")
        names = ("nft", "xtables-nft-multi", "xtables-legacy-multi")
        text = self.init_net("--apply", code=71, **self.hidden(*names, by=by))
        self.assertIn("out of order", text)
        self.assertIn("nothing was changed", text)
        self.assertEqual(before, self.rules())

    def test_iptables_for_one_version_of_ip_only_is_undone(self):
        before = self.rules()
        by = self.program('case $0 in *ip6*restore*) echo broken >&2; exit 1;; esac; exec /usr/sbin/xtables-nft-multi.real "$(basename "$0")" "$@"\n')
        where = self.temp_dir()
        real = os.path.join(where, "multi")
        shutil.copy2("/usr/sbin/xtables-nft-multi", real)
        with open(by, encoding="ascii") as f:
            text = f.read().replace("/usr/sbin/xtables-nft-multi.real", real)
        with open(by, "w", encoding="ascii") as f:
            f.write(text)
        text = self.init_net("--apply", "--backend", "iptables-nft", code=71, **self.hidden("xtables-nft-multi", by=by))
        self.assertIn("ip6tables-nft-restore: broken", text)
        self.assertEqual(before, self.rules())


class RightsTest(NetCase):
    def test_a_missing_capability_is_77_and_print_needs_none(self):
        cases = [
            ("no capability", ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")),
            ("one that counts elsewhere", ("unshare", "--user", "--map-root-user")),
        ]
        before = self.rules()
        for what, prefix in cases:
            for action in ("--apply", "--remove", "--verify"):
                with self.subTest(what, action=action):
                    self.init_net(action, code=77, prefix=prefix)
        self.assertEqual(before, self.rules())
        nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs")
        if sh(*nobody, "test", "-x", binary(), check=False).returncode == 0:
            self.assertIn("redirect to :3129", self.init_net("--print", prefix=nobody))

    def test_rules_that_would_capture_the_proxy_itself_are_not_made(self):
        self.listener(uid=1000)
        before = self.rules()
        self.assertIn("say --uid 1000", self.init_net("--apply", code=2))
        self.assertEqual(before, self.rules())
        for flags in (("--uid", "1000"), ("--gid", "1000")):
            with self.subTest(flags):
                self.init_net("--apply", "--verify", *flags)
        self.assertEqual(self.init_net("--apply", "--uid", "1001").count("belongs to user 1000"), 1)


class CaptureTest(NetCase):
    PORTS = (80, 443, 81, 8080)

    def setUp(self):
        super().setUp()
        for host in (OUTSIDE4, OUTSIDE6, LINK_LOCAL4):
            for port in self.PORTS:
                self.origin(host, port)
        self.listener()

    def check(self, cases):
        for what, host, port, owner, want in cases:
            with self.subTest(what, backend=self.backend, host=host, port=port):
                self.assertEqual(self.connect(host, port, *owner), f"{want} {host} {port}")

    def each(self, *flags):
        for self.backend in self.backends:
            self.init_net("--apply", "--backend", self.backend, *flags)
            yield self.backend
            self.init_net("--remove")

    def test_web_ports_of_everyone_but_the_proxy_are_captured(self):
        app, proxy, group = (APP_UID, APP_UID), (PROXY_UID, APP_UID), (APP_UID, PROXY_UID)
        cases = [(f"{who}", host, port, owner, "captured" if port in (80, 443) and who != "the proxy" else "origin")
                 for host in (OUTSIDE4, OUTSIDE6) for port in self.PORTS
                 for who, owner in (("a program", app), ("root", (0, 0)), ("the proxy", proxy), ("its group", group))]
        cases.append(("link-local", LINK_LOCAL4, 80, app, "origin"))
        for _ in self.each():
            self.check(cases)
        self.check([(f"{what}, removed", host, port, owner, "origin") for what, host, port, owner, _ in cases])

    def test_a_group_may_tell_the_proxy_apart_too(self):
        for _ in self.each("--gid", "77"):
            self.check([("its group", OUTSIDE4, 80, (APP_UID, 77), "origin"), ("its group", OUTSIDE6, 443, (APP_UID, 77), "origin"),
                        ("another", OUTSIDE4, 80, (APP_UID, 78), "captured"), ("no user", OUTSIDE4, 80, (PROXY_UID, 78), "captured")])
        for _ in self.each("--uid", "5", "--gid", "77"):
            self.check([("its group", OUTSIDE4, 80, (APP_UID, 77), "origin"), ("its user", OUTSIDE4, 80, (5, 5), "origin"),
                        ("neither", OUTSIDE4, 80, (APP_UID, APP_UID), "captured")])

    def test_ports_and_networks_can_be_chosen_and_excluded(self):
        app = (APP_UID, APP_UID)
        for _ in self.each("--ports", "81,8000-9000", "--exclude-ports", "8080-8090"):
            self.check([("not chosen", OUTSIDE4, 80, app, "origin"), ("chosen", OUTSIDE4, 81, app, "captured"),
                        ("chosen", OUTSIDE6, 81, app, "captured"), ("excluded", OUTSIDE4, 8080, app, "origin"),
                        ("excluded", OUTSIDE6, 8080, app, "origin")])
        for _ in self.each("--ports", "1-65535"):
            self.check([("all", host, port, app, "captured") for host in (OUTSIDE4, OUTSIDE6) for port in self.PORTS])
        for _ in self.each("--exclude-cidr", "10.199.0.0/25"):
            self.check([("excluded", OUTSIDE4, 80, app, "origin"), ("other", OUTSIDE6, 80, app, "captured")])
        for _ in self.each("--exclude-cidr", f"{OUTSIDE6},10.199.0.4/30"):
            self.check([("excluded", OUTSIDE6, 80, app, "origin"), ("other", OUTSIDE4, 80, app, "captured")])

    def test_what_stays_on_the_machine_is_not_captured(self):
        for host in ("127.0.0.1", "127.9.9.9", "::1", INSIDE4, INSIDE6):
            self.serve(self.inside, host, 80, lambda c: f"origin {c.getsockname()[0]} {c.getsockname()[1]}")
        for _ in self.each():
            self.check([("local", host, 80, (APP_UID, APP_UID), "origin") for host in ("127.0.0.1", "127.9.9.9", "::1", INSIDE4, INSIDE6)])

    def test_link_local_ipv6_is_not_captured(self):
        scope = within(self.outside, lambda: socket.if_nametoindex("cable"))
        server = within(self.outside, lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
        self.addCleanup(server.close)
        server.settimeout(5)
        server.bind((LINK_LOCAL6, 80, 0, scope))
        server.listen(4)
        for _ in self.each():
            self.open(LINK_LOCAL6, 80).close()
            server.accept()[0].close()  # fails when it went elsewhere

    def test_connections_that_stand_already_are_left_alone(self):
        for self.backend in self.backends:
            # New each time: it matters that nothing has tracked connections before.
            self.inside, self.outside = self.namespaces()
            self.listener()
            self.serve(self.outside, OUTSIDE4, 4430, lambda c: c.recv(100).decode() + " answered")
            with self.subTest(self.backend), self.open(OUTSIDE4, 4430) as conn:
                self.init_net("--apply", "--backend", self.backend, "--ports", "1-65535")
                conn.sendall(b"still")
                self.assertEqual(conn.makefile("rb").read(), b"still answered")
                self.assertEqual(self.connect(OUTSIDE4, 4430), f"captured {OUTSIDE4} 4430")


class VerifyTest(NetCase):
    def each(self, *flags):
        for self.backend in self.backends:
            self.inside, self.outside = self.namespaces()
            self.assertIn("no rules of ours are in place", self.init_net("--verify", code=1))
            self.init_net("--apply", "--backend", self.backend, *flags)
            yield self.backend

    def test_rules_that_lead_to_nobody_are_not_verified(self):
        for _ in self.each():
            for flags in (("--verify",), ("--apply", "--verify")):
                text = self.init_net(*flags, code=1)
                self.assertIn("not verified: the rules are in place, but nothing listens on port 3129", text)
            self.serve(self.inside, INSIDE4, 3129, lambda c: "", PROXY_UID)  # where no captured connection arrives
            self.assertIn("nothing listens on port 3129", self.init_net("--verify", code=1))
            self.init_net("--apply")  # alone it is no error: the proxy may come later
            self.listener()
            self.init_net("--verify")

    def test_rules_that_capture_the_proxy_itself_are_not_verified(self):
        for _ in self.each():
            self.listener(uid=1000)  # came after the rules
            text = self.init_net("--verify", code=1)
            self.assertIn("not verified: the proxy on port 3129 runs as user 1000", text)
            self.assertIn("--uid 1000", text)
            for flags in (("--apply", "--verify", "--uid", "2000"), ("--verify", "--uid", "2000")):
                text = self.init_net(*flags, code=1)
                self.assertEqual(text.count("user 1000"), 1, text)
                self.assertNotIn(": verified", text)
            self.init_net("--apply", "--uid", "1000")
            self.assertNotIn("not tested", self.init_net("--verify", "--uid", "1000"))
            for flags in (("--gid", "77"), ("--gid", "77", "--uid", "2000")):
                self.init_net("--apply", *flags)
                self.assertIn(", the proxy's group not tested", self.init_net("--verify", *flags))
            self.init_net("--apply", "--gid", "77", "--uid", "1000")
            self.assertNotIn("not tested", self.init_net("--verify", "--gid", "77", "--uid", "1000"))

    def test_it_tells_whether_the_rules_are_in_place_and_capture(self):
        for _ in self.each():
            self.listener()
            self.assertIn("an IPv4 connection is captured, an IPv6 connection is captured", self.init_net("--verify"))
            for flags in (("--uid", "7"), ("--gid", "7"), ("--port", "3139"), ("--ports", "80"), ("--exclude-ports", "81"),
                          ("--exclude-cidr", "10.0.0.0/8")):
                self.assertIn("other flags", self.init_net("--verify", *flags, code=1))
            self.init_net("--remove")
            self.assertIn("no rules of ours", self.init_net("--verify", code=1))

    def test_rules_changed_by_hand_are_noticed(self):
        for backend in self.each():
            self.listener()
            if backend == "nft":
                listing = self.inside_sh("nft", "-a", "list", "table", "inet", "tripswitch_proxy").stdout
                handle = re.search(r'oifname "lo".*# handle (\d+)', listing)[1]
                self.inside_sh("nft", "delete", "rule", "inet", "tripswitch_proxy", "output", "handle", handle)
                self.assertIn("not as we made them", self.init_net("--verify", code=1))
                self.init_net("--apply")
                self.inside_sh("nft", "insert", "rule", "inet", "tripswitch_proxy", "output", "tcp", "dport", "80", "return")
                self.assertIn("not as we made them", self.init_net("--verify", code=1))
                continue
            ip6 = backend.replace("iptables", "ip6tables")
            for command in ((backend, "-t", "nat", "-D", "TRIPSWITCH_PROXY", "2"),
                            (ip6, "-t", "nat", "-D", "TRIPSWITCH_PROXY", "2"),
                            (ip6, "-t", "nat", "-I", "TRIPSWITCH_PROXY", "1", "-j", "RETURN"),
                            (backend, "-t", "nat", "-D", "OUTPUT", "1")):
                self.inside_sh(*command)
                self.assertIn("not as we made them", self.init_net("--verify", code=1))
                self.init_net("--apply", "--backend", backend)
                self.init_net("--verify")

    def test_rules_of_others_that_come_first_are_noticed(self):
        self.listener()
        self.init_net("--apply")
        self.init_net("--verify")
        self.inside_sh("nft", "-f", "-", stdin="table ip first { chain out { type nat hook output priority -150; "
                                               "tcp dport 80 redirect to :9; }; }\n")
        self.assertIn("not verified: an IPv4 connection to 192.0.2.1:80: Connection refused", self.init_net("--verify", code=1))
        self.inside_sh("nft", "delete", "table", "ip", "first")
        self.serve(self.inside, "127.0.0.1", 9, lambda c: "not the proxy")
        self.inside_sh("nft", "-f", "-", stdin="table ip first { chain out { type nat hook output priority -150; "
                                               "tcp dport 80 redirect to :9; }; }\n")
        self.assertIn("accepted by something else than port 3129", self.init_net("--verify", code=1))

    def test_a_proxy_deaf_to_ipv6_is_noticed_only_where_ipv6_has_a_route(self):
        self.listener(hosts=("127.0.0.1",))
        self.assertIn("does not listen on [::1]", self.init_net("--apply", "--verify", code=1))
        sh("ip", "-n", self.inside, "-6", "route", "del", "default")
        self.assertIn("IPv6 not tested", self.init_net("--verify"))

    def test_without_routes_it_says_that_capture_was_not_tested(self):
        self.listener()
        sh("ip", "-n", self.inside, "route", "del", "default")
        sh("ip", "-n", self.inside, "-6", "route", "del", "default")
        text = self.init_net("--apply", "--verify")
        self.assertIn("IPv4 not tested (connection to 192.0.2.1:80: Network is unreachable)", text)

    def test_an_excluded_process_says_that_it_cannot_test(self):
        self.listener(uid=0)
        self.assertIn("this process is itself excluded", self.init_net("--apply", "--verify", "--uid", "0"))

    def test_it_avoids_excluded_networks_and_ports(self):
        self.listener()
        text = self.init_net("--apply", "--verify", "--exclude-cidr", "192.0.0.0/8", "--ports", "80-90", "--exclude-ports", "70-85")
        self.assertIn("an IPv4 connection is captured", text)
        text = self.init_net("--apply", "--verify", "--exclude-cidr", "0.0.0.0/0")
        self.assertIn("IPv4 not tested (the addresses of documentation are excluded), an IPv6 connection is captured", text)

    def test_it_ends_soon_when_a_captured_connection_gets_no_answer(self):
        stuck = within(self.inside, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM), PROXY_UID)
        self.addCleanup(stuck.close)
        stuck.bind(("127.0.0.1", 3129))
        stuck.listen(16)  # and never accepts: what arrived in its queue counts
        sh("ip", "-n", self.inside, "-6", "route", "del", "default")
        wait_until(lambda: "IPv4 connection is captured" in self.init_net("--apply", "--verify"), 20, "a capture")


class WholeTest(NetCase):
    def start_proxy(self, *prefix):
        """The real proxy inside, so not on the free ports of this machine: nobody else is there."""
        path = os.path.join(self.temp_dir(), "config.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"transparent_listen": ["127.0.0.1:3129", "[::1]:3129"], "access_log": {"mode": "all"}}, f)
        out = open(path + ".out", "w+", encoding="utf-8")
        self.addCleanup(out.close)
        process = subprocess.Popen(["ip", "netns", "exec", self.inside, *prefix, binary(), "--config", path],
                                   env=clean_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        self.addCleanup(process.wait, 30)
        self.addCleanup(process.kill)
        return lambda: open(path + ".out", encoding="utf-8").read()

    def test_the_real_proxy_gets_what_is_captured_and_reaches_the_origin(self):
        answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
        for host in (OUTSIDE4, OUTSIDE6):
            self.serve(self.outside, host, 80, lambda c: c.recv(4096) and answer)
        said = self.start_proxy("setpriv", "--regid=77", "--clear-groups")
        for self.backend in self.backends:
            with self.subTest(self.backend):
                wait_until(lambda: self.connect("127.0.0.1", 3129) != "ConnectionRefusedError", 20, said)
                self.init_net("--apply", "--verify", "--backend", self.backend, "--gid", "77")
                for host in (OUTSIDE4, OUTSIDE6):
                    name = f"{self.backend}.example"
                    with self.open(host, 80) as s:
                        s.sendall(f"GET /{'six' if ':' in host else 'four'} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                        self.assertTrue(s.makefile("rb").read().endswith(b"hello"), said())
                wait_until(lambda: said().count(name) >= 2, 5, said)
                self.init_net("--remove")

    def test_verifying_makes_the_proxy_attempt_nothing(self):
        def metric(name):
            with within(self.inside, lambda: urllib.request.urlopen("http://127.0.0.1:3130/metrics", timeout=10)) as answer:
                text = answer.read().decode()
            return sum(float(v) for v in re.findall(rf"^tripswitch_proxy_{name}(?:{{.*}})? (\S+)$", text, re.M))

        said = self.start_proxy("setpriv", "--regid=77", "--clear-groups")
        wait_until(lambda: self.connect("127.0.0.1", 3129) != "ConnectionRefusedError", 20, said)
        self.init_net("--apply", "--verify", "--gid", "77")
        self.init_net("--verify", "--gid", "77")
        wait_until(lambda: metric("client_errors_total") + metric("attempts_in_flight") + metric("attempts_total") >= 4, 5, said)
        self.assertEqual(metric("attempts_in_flight") + metric("attempts_total"), 0, said())

    def test_tls_that_is_captured_reaches_the_origin_unaltered_and_is_routed_by_its_name(self):
        certificates = Certificates("four.test", "six.test")
        self.addCleanup(certificates.remove)

        def greet(conn):
            with certificates.server().wrap_socket(conn, server_side=True) as tls:
                tls.sendall(tls.recv(100).upper())
            return ""

        hosts = {"four.test": OUTSIDE4, "six.test": OUTSIDE6}
        for host in hosts.values():
            self.serve(self.outside, host, 443, greet)
        said = self.start_proxy("setpriv", "--regid=77", "--clear-groups")
        wait_until(lambda: self.connect("127.0.0.1", 3129) != "ConnectionRefusedError", 20, said)
        for n, self.backend in enumerate(self.backends):
            with self.subTest(self.backend):
                self.init_net("--apply", "--verify", "--backend", self.backend, "--gid", "77")
                for name, host in hosts.items():
                    with certificates.client().wrap_socket(self.open(host, 443), server_hostname=name) as s:
                        s.sendall(b"hello")
                        self.assertEqual(s.recv(100), b"HELLO", said())
                    wait_until(lambda name=name, n=n: said().count(f'"tls_sni":"{name}"') == n + 1, 5, said)
                self.init_net("--remove")


class UsageTest(Case):
    """These need no rights at all."""

    def test_mistakes_on_the_command_line_are_usage_errors(self):
        cases = [
            ((), "one of --apply"), (("--apply", "--remove"), "one of --apply"), (("--print", "--verify"), "one of --apply"),
            (("--aply",), "did you mean --apply"), (("apply",), "not a flag"), (("--apply", "--uid"), "needs a value"),
            (("--apply=1",), "takes no value"), (("--apply", "--uid", "root"), "--uid: "), (("--print", "--port", "0"), "--port: "),
            (("--print", "--ports", "80;reboot"), "--ports: "), (("--print", "--exclude-cidr", "10.0.0.0/33"), "--exclude-cidr: "),
        ]
        for args, words in cases:
            with self.subTest(args):
                done = subprocess.run([binary(), "init-net", *args], env=clean_environment(), stdin=subprocess.DEVNULL,
                                      capture_output=True, text=True, timeout=20, check=False)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn(words, done.stderr)
                self.assertEqual(done.stdout, "")
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
