"""The process itself: no capability, any user, nothing written, and the system calls that the documentation lists."""

import ctypes
import os
import random
import re
import socket
import subprocess
import threading
import unittest

from harness import ROOT, Case, Raw, chunk, free_port, pattern, request, tool, wait_until
from harness.tunnels import echo, tunnel

# A root of its own: the real one read-only, an empty /tmp, and in /mnt the binary and its file.
CONFINED = r"""
set -e
root=$1 uid=$2 gid=$3 binary=$4 config=$6
shift 6
mkdir -p "$root"
mount --bind / "$root"
mount -o remount,bind,ro "$root"
mount --rbind /proc "$root/proc"
mount -t tmpfs -o ro,size=4k none "$root/tmp"
mount -t tmpfs -o size=64m none "$root/mnt"
cp "$binary" "$root/mnt/tripswitch-proxy"
cp "$config" "$root/mnt/config.json"
chmod 755 "$root/mnt/tripswitch-proxy"
chmod 644 "$root/mnt/config.json"
mount -o remount,ro "$root/mnt"
cd /
exec chroot "$root" setpriv --reuid="$uid" --regid="$gid" --clear-groups --no-new-privs --inh-caps=-all \
    --bounding-set=-all /mnt/tripswitch-proxy --config /mnt/config.json "$@"
"""
# Whatever changes a file or makes a name, but for what is open already.
FILE_CALLS = ("open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,"
              "symlink,symlinkat,truncate,ftruncate,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,utimensat,setxattr,mount")

PIDFD_GETFD = 438  # the same on every architecture


def connections_of(pid):
    """Copies of the sockets of a child that have an internet peer."""
    libc, found = ctypes.CDLL(None, use_errno=True), []
    whole = os.pidfd_open(pid)
    for fd in map(int, os.listdir(f"/proc/{pid}/fd")):
        copy = libc.syscall(PIDFD_GETFD, whole, fd, 0)
        if copy < 0:
            continue  # closed meanwhile
        if not os.readlink(f"/proc/self/fd/{copy}").startswith("socket:"):
            os.close(copy)
            continue
        sock = socket.socket(fileno=copy)
        try:
            has_peer = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getpeername()
        except OSError:
            has_peer = False
        if has_peer:
            found.append(sock)
        else:
            sock.close()
    os.close(whole)
    return found


class ProcessTest(Case):
    time_limit_s = 120

    def test_every_connection_sends_at_once_what_it_has(self):
        origin, server, proxy = self.http_origin(), self.origin(echo), self.proxy()
        kept = self.client(proxy)
        self.assertEqual(kept.get(origin.url + "/").status, 200)
        through = tunnel(self.client(proxy), server.authority)
        sockets = connections_of(proxy.pid)
        wanted = {kept.sock.getsockname()[1], through.sock.getsockname()[1], origin.port, server.port}
        self.assertLessEqual(wanted, {sock.getpeername()[1] for sock in sockets})
        for sock in sockets:
            if sock.getpeername()[1] in wanted:
                self.assertEqual(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1, sock.getpeername())
            sock.close()

    def everything(self, control, proxy):
        """Something of all that the proxy does."""
        origin, server = self.http_origin(), self.origin(echo)
        client = self.client(proxy)
        for path in ("/", "/bytes/300000", "/chunked/30000", "/status/500"):
            self.assertEqual(client.get(origin.url + path).status, 500 if "500" in path else 200)
        self.assert_relayed(client.get(f"http://name.test:{origin.port}/echo", method="POST", body=pattern(100_000)), 200, pattern(100_000))
        wire = request("POST", origin.url + "/echo", "Transfer-Encoding: chunked") + chunk(b"hello") + b"0\r\n\r\n"
        self.assert_relayed(client.request(wire, "POST"), 200, b"hello")
        through = tunnel(self.client(proxy), server.authority)
        data = b"\x01" + pattern(3_000_000)
        through.sock.settimeout(30)
        sender = threading.Thread(target=through.send, args=(data,))
        sender.start()
        self.assertTrue(through.read_exactly(len(data)) == data)
        sender.join()
        through.close()
        self.assert_self_made(self.get("http://127.0.0.1:1/", proxy=proxy), 502)
        self.assert_self_made(self.get("http://nowhere.invalid/", proxy=proxy), 502)
        self.client(proxy).send(b"garbage\r\n\r\n").read_to_eof()
        control.set("b", "open")
        proxy.wait_breaker("b", "open")
        self.assertEqual(self.get(origin.url + "/", proxy=proxy).status, 503)
        control.set("b", "closed")
        proxy.wait_breaker("b", "closed")
        for path in ("/metrics", "/status", "/", "/readyz"):
            self.assertEqual(proxy.telemetry(path).status, 200)
        proxy.reload()
        control.cut()
        control.wait_samples(5)
        wait_until(lambda: proxy.metric("control_stream_connected") == 1, 10, "the stream to come back")

    def test_without_capabilities_as_any_user_with_a_read_only_root_everything_works(self):
        for name in ("unshare", "setpriv", "chroot"):
            tool(name)
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
            self.skipTest("NOT TESTED: mount namespaces are not permitted here")
        rng = random.Random()
        uid, gid = rng.randrange(20_000, 60_000), rng.randrange(20_000, 60_000)
        control = self.control()
        root = os.path.join(self.temp_dir(), "root")
        proxy = self.proxy({"workers": 2, "access_log": {"mode": "all"}}, control, dns=self.dns(),
                           prefix=["unshare", "--mount", "--propagation", "private", "sh", "-c", CONFINED, "sh", root, str(uid), str(gid)])
        with open(f"/proc/{proxy.pid}/status", encoding="ascii") as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        self.assertEqual(set(status["Uid"].split()), {str(uid)})
        self.assertEqual(set(status["Gid"].split()), {str(gid)})
        self.assertEqual(status["Groups"].strip(), "")
        for which in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(status[which], 16), 0, which)
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertEqual(os.listdir(f"/proc/{proxy.pid}/root/tmp"), [])
        self.everything(control, proxy)
        self.assertEqual(os.listdir(f"/proc/{proxy.pid}/root/tmp"), [])
        proxy.stop()

    # -- strace ----------------------------------------------------------------------

    def traced(self, *options, config=None, embedded=False, **kw):
        """(control plane, proxy, file): a proxy that strace looks at; not the proxy's parent, so that signals reach it."""
        strace = tool("strace")
        path = os.path.join(self.temp_dir(), "trace")
        if subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
            self.skipTest("NOT TESTED: strace may not trace here")
        control = None if embedded else self.control()
        asan = "ASAN_OPTIONS=abort_on_error=0:exitcode=99:log_path=stderr:detect_leaks=0"  # only one may trace
        proxy = self.proxy({"workers": 2, "access_log": {"mode": "all"}, **(config or {})}, control, dns=self.dns(), **kw,
                           prefix=["env", asan, strace, "-D", "-f", *options, "-o", path])
        return control, proxy, path

    def trace_of(self, proxy, path, complete):
        """The trace once strace has written all of it."""
        proxy.stop()

        def read():
            with open(path, encoding="utf-8", errors="replace") as f:
                text = f.read()
            return text if complete(text) else None

        return wait_until(read, 10, "strace to end")

    def test_nothing_is_opened_for_writing_and_no_file_is_made(self):
        control, proxy, path = self.traced("-e", "trace=" + FILE_CALLS, "-e", "signal=none")
        self.everything(control, proxy)
        text = self.trace_of(proxy, path, lambda t: re.search(rf"^{proxy.pid} +\+\+\+ exited", t, re.M))
        calls = re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)\((.*)$", text, re.M)
        self.assertGreater(len(calls), 10, text[-2000:])
        opened = [args for name, args in calls if name in ("open", "openat", "openat2")]
        self.assertTrue(any(proxy.config_path in args for args in opened), "what it reads is seen")
        writing = [args for args in opened if re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND|O_TMPFILE", args) and "/dev/null" not in args]
        self.assertEqual(writing, [])
        self.assertEqual([c for c in calls if c[0] not in ("open", "openat", "openat2")], [])

    def test_a_refusal_on_a_kept_connection_takes_one_receive_and_one_send(self):
        config = {"workers": 1, "access_log": {"mode": "off"}, "routes": [{"name": "all", "breakers": ["b"], "router": "r"}]}
        control, proxy, path = self.traced("-e", "trace=recvfrom,sendto,recvmsg,sendmsg,writev", "-e", "signal=none", config=config)
        control.set("b", "open")
        proxy.wait_breaker("b", "open")
        worker = proxy.thread("worker-0")
        client = self.client(proxy)
        for _ in range(100):
            self.assert_self_made(client.get("http://refused.test/"), 503)
        text = self.trace_of(proxy, path, lambda t: re.search(rf"^{proxy.pid} +\+\+\+ exited", t, re.M))
        calls = re.findall(rf"^{worker} +(?:<\.\.\. )?(\w+)[( ]", text, re.M)
        self.assertEqual(calls.count("sendto"), 100, text[-2000:])
        self.assertIn(calls.count("recvfrom"), (100, 101), "and the client's end")
        self.assertEqual(set(calls), {"sendto", "recvfrom"})

    def assert_listed(self, text):
        """Every call that strace counted stands in the documentation."""
        with open(os.path.join(ROOT, "docs/reliability.md"), encoding="utf-8") as f:
            block = re.search(r"<!-- system calls -->\n(.*?)\n<!-- -->", f.read(), re.S)
        listed = set(re.findall(r"`(\w+)`", block[1]))
        seen = set(re.findall(r"^ *(\w+) +\d+$", text, re.M)) - {"total"}
        self.assertGreater(len(seen), 20, text)
        self.assertEqual(sorted(seen - listed), [], "not in docs/reliability.md; tools/syscalls.py makes the list")

    def counted(self, **kw):
        if "/asan/" in os.environ.get("TRIPSWITCH_PROXY_BIN", "") or "/tsan/" in os.environ.get("TRIPSWITCH_PROXY_BIN", ""):
            raise unittest.SkipTest("the sanitizers make calls of their own")
        return self.traced("-c", "-U", "name,calls", **kw)

    def test_every_system_call_is_one_that_the_documentation_lists(self):
        control, proxy, path = self.counted()
        self.everything(control, proxy)
        self.assert_listed(self.trace_of(proxy, path, lambda t: "total" in t))

    def test_every_system_call_is_listed_also_with_a_state_file_and_the_admin_listener(self):
        file = os.path.join(self.temp_dir(), "states")
        with open(file, "w", encoding="utf-8") as f:
            f.write("damaged")  # it is put aside
        admin = free_port()
        embedded = {"state_file": file, "auto_breaker": {"cooldown_ms": 60000, "eval_interval_ms": 100}}
        config = {"samples": None, "embedded": embedded, "admin_listen": f"127.0.0.1:{admin}"}
        _, proxy, path = self.counted(config=config, embedded=True, warnings=["embedded.state_file"])
        origin = self.http_origin()
        origin.down = True
        client = self.client(proxy)
        for _ in range(5):
            self.assertEqual(client.get(origin.url + "/").status, 503)
        proxy.wait_breaker(f"127.0.0.1:{origin.port}", "open")
        operator = Raw(("127.0.0.1", admin))
        self.addCleanup(operator.close)
        body = b'{"ttl":"60s","reason":"a test"}'
        for method, target, status in (("GET", "/explain?url=http://a/", 200), ("PUT", "/bypass", 200), ("DELETE", "/bypass", 200),
                                       ("POST", "/reload", 200)):
            operator.send(f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{admin}\r\nX-Tripswitch-Admin: 1\r\n"
                          f"Content-Length: {len(body) if method == 'PUT' else 0}\r\n\r\n".encode() + (body if method == "PUT" else b""))
            self.assertEqual(operator.read_response(method).status, status, target)
        text = self.trace_of(proxy, path, lambda t: "total" in t)
        self.assertEqual(sorted(os.listdir(os.path.dirname(file))), ["states", "states.bad"])
        self.assertIn("rename", text)
        self.assert_listed(text)
