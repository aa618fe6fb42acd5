"""access.auth_file: a name and a token for every use of the explicit listeners."""

import base64
import hashlib
import os
import secrets
import signal
import subprocess
import sys

from harness import Case, StartError, chunk, clean_environment, pattern, request, tool, wait_until
from harness.tunnels import Certificates, HttpsOrigin, connect, echo, tunnel

URLLIB = """
import ssl, sys, urllib.request, urllib.error
context = ssl.create_default_context(cafile=sys.argv[3]) if sys.argv[3] else None
handlers = [urllib.request.ProxyHandler({"http": sys.argv[1], "https": sys.argv[1]})]
if context:
    handlers.append(urllib.request.HTTPSHandler(context=context))
opener = urllib.request.build_opener(*handlers)
for body in (None, b"from urllib"):
    try:
        r = opener.open(urllib.request.Request(sys.argv[2], data=body), timeout=10)
        print(r.status, r.read().decode())
    except urllib.error.HTTPError as e:
        print(e.code, e.headers["Proxy-Authenticate"])
    except urllib.error.URLError as e:
        print(e.reason)
"""


def basic(name, token):
    return "Proxy-Authorization: Basic " + base64.b64encode(f"{name}:{token}".encode()).decode()


class AuthCase(Case):
    def setUp(self):
        super().setUp()
        self.folder = self.temp_dir()
        self.users = os.path.join(self.folder, "users")
        self.token = secrets.token_hex(16)
        self.write(shop=self.token)

    def write(self, **users):
        """Replaced at once, as an editor does."""
        with open(self.users + ".new", "w", encoding="ascii") as f:
            f.write("# made by the test\n\n")
            f.writelines(f"{n}:{hashlib.sha256(t.encode()).hexdigest()}\n" for n, t in users.items())
        os.rename(self.users + ".new", self.users)

    def start(self, config=None, **kw):
        config = {"access": {"auth_file": self.users}, "access_log": {"mode": "all"}, **(config or {})}
        proxy = self.proxy(config, self.control(), args=["--log-level", "debug"], **kw)
        self.addCleanup(self.nothing_shown, proxy)
        return proxy

    def nothing_shown(self, proxy):
        coded = base64.b64encode(f"shop:{self.token}".encode()).decode()
        digest = hashlib.sha256(self.token.encode()).hexdigest()
        for text in (proxy.stderr(), proxy.stdout()):
            for word in (self.token, coded, digest):
                self.assertNotIn(word, text)


class AuthTest(AuthCase):
    def test_without_credentials_or_with_wrong_ones_it_is_407_and_nothing_is_forwarded(self):
        proxy = self.start()
        origin = self.http_origin()
        client = self.client()
        good = basic("shop", self.token)
        cases = [[], [basic("shop", "wrong")], [basic("pay", self.token)], [basic("", self.token)], [basic("shop", "")],
                 ["Proxy-Authorization: Bearer " + self.token], ["Proxy-Authorization:"], [good, good], [good, basic("shop", "x")],
                 ["Authorization: " + good.split(": ")[1]], [good + "="], [good[:-1]]]
        for lines in cases:
            with self.subTest(lines):
                response = client.get(origin.url + "/", *lines)
                self.assert_self_made(response, 407, "http_request_denied")
                self.assertEqual(response.get("proxy-authenticate"), 'Basic realm="tripswitch-proxy"')
        self.assertEqual(len(origin.connections), 0)
        proxy.expect_metric(len(cases), "client_errors_total", reason="unauthenticated")
        proxy.expect_metric(0, "attempts_started_total")
        self.assert_relayed(client.get(origin.url + "/", good), 200, b"ok")  # on the same connection

    def test_each_request_of_a_connection_is_asked(self):
        self.start()
        origin = self.http_origin()
        client = self.client()
        self.assert_relayed(client.get(origin.url + "/", basic("shop", self.token)), 200)
        self.assert_self_made(client.get(origin.url + "/"), 407)
        client.send(request("GET", origin.url + "/1", basic("shop", self.token)) + request("GET", origin.url + "/2") +
                    request("GET", origin.url + "/3", basic("shop", self.token)))
        self.assertEqual([client.read_response().status for _ in range(3)], [200, 407, 200])
        self.assertEqual(origin.paths, ["/", "/1", "/3"])

    def test_the_credentials_never_leave_the_proxy(self):
        self.start()
        origin = self.http_origin()
        good = basic("shop", self.token)
        for lines in ([good], ["Connection: x-a", good, "X-A: 1"], ["pROXY-aUTHORIZATION: " + good.split(": ")[1]]):
            response = self.get(origin.url + "/dump", *lines, "Authorization: Basic b3JpZ2luOng=")
            self.assert_relayed(response, 200)
            self.assertNotIn(b"proxy-authorization", response.body.lower())
            self.assertNotIn(good.split(" ")[2].encode(), response.body)
            self.assertIn(b"Authorization: Basic b3JpZ2luOng=", response.body, "the origin's own")
        client = self.client()
        wire = request("POST", origin.url + "/echo", good, "Transfer-Encoding: chunked") + chunk(b"x") + f"0\r\n{good}\r\n\r\n".encode()
        self.assert_relayed(client.request(wire, "POST"), 200, b"x")

    def test_trace_answered_here_shows_no_credentials(self):
        self.start()
        response = self.client().get("http://x.test/", basic("shop", self.token), "Cookie: a=secret", "Authorization: Basic c2VjcmV0", "X-A: b",
                                     "Max-Forwards: 0", method="TRACE")
        self.assertEqual(response.status, 200)
        self.assertTrue(response.body.startswith(b"TRACE http://x.test/ HTTP/1.1\r\nHost: x.test\r\nX-A: b\r\n"), response.body)
        for word in (b"authorization", b"cookie", b"c2VjcmV0"):
            self.assertNotIn(word, response.body.lower())

    def test_connect_is_asked_once_and_covers_what_is_inside(self):
        self.start()
        server = self.origin(echo)
        client = self.client()
        head = connect(client, server.authority)
        self.assertEqual((head.status, head.get("proxy-authenticate")), (407, 'Basic realm="tripswitch-proxy"'))
        client.read_exactly(head.content_length())
        tunnel(client, server.authority, basic("shop", self.token))  # on the same connection
        client.send(b"\x01ping")
        self.assertEqual(client.read_exactly(5), b"\x01ping")
        origin = self.http_origin()
        inner = tunnel(self.client(), origin.authority, basic("shop", self.token))
        for path in ("/1", "/2"):
            inner.send(f"GET {path} HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n")
            self.assertEqual(inner.read_response().body, b"ok")
        self.assertEqual(origin.paths, ["/1", "/2"])

    def test_what_follows_a_connect_that_is_refused_is_no_request(self):
        self.start()
        origin, client = self.http_origin(), self.client()
        head = f"CONNECT {origin.authority} HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n".encode()
        client.send(head + request("GET", origin.url + "/", basic("shop", self.token)))
        response = client.read_response()
        self.assertEqual((response.status, response.get("connection")), (407, "close"))
        client.expect_eof()
        self.assertEqual(origin.hits, 0)

    def test_a_refused_upload_leaves_the_connection_in_order(self):
        self.start()
        origin = self.http_origin()
        client = self.client()
        self.assert_self_made(client.get(origin.url + "/echo", method="POST", body=pattern(1000)), 407)
        self.assert_relayed(client.get(origin.url + "/echo", basic("shop", self.token), method="POST", body=b"again"), 200, b"again")
        waiting = self.client().send(request("POST", origin.url + "/echo", "Content-Length: 5", "Expect: 100-continue"))
        self.assert_self_made(waiting.read_response("POST"), 407)
        self.assertEqual(origin.paths, ["/echo"])

    def test_telemetry_and_the_health_of_the_proxy_need_no_token(self):
        proxy = self.start()
        self.assertEqual(proxy.telemetry("/readyz").status, 200)

    def test_a_changed_file_is_picked_up_by_itself_and_by_a_reload(self):
        proxy = self.start(warnings=True)
        origin = self.http_origin()
        new = secrets.token_hex(16)
        self.write(shop=self.token, fresh=new)
        wait_until(lambda: self.get(origin.url + "/", basic("fresh", new)).status == 200, 15, "the new name to be known")
        self.assert_relayed(self.get(origin.url + "/", basic("shop", self.token)), 200)
        self.write(fresh=new)
        proxy.reload()
        wait_until(lambda: self.get(origin.url + "/", basic("shop", self.token)).status == 407, 5, "the old name to be forgotten")
        with open(self.users, "w", encoding="ascii") as f:
            f.write(f"fresh:{new}\n")  # the token itself by mistake
        failed = proxy.metric("config_reloads_total", result="failure")
        proxy.signal(signal.SIGHUP)
        wait_until(lambda: proxy.metric("config_reloads_total") and proxy.metric("config_last_reload_successful") == 0, 10, "a refused reload")
        proxy.wait_metric(lambda n: n >= failed, "config_reloads_total", result="failure")
        self.assert_relayed(self.get(origin.url + "/", basic("fresh", new)), 200, b"ok", "what worked goes on")
        self.assertNotIn(new, proxy.stderr())

    def test_a_malformed_file_stops_the_start_and_is_not_shown(self):
        with open(self.users, "w", encoding="ascii") as f:
            f.write(f"shop:{self.token}\n")
        with self.assertRaises(StartError) as caught:
            self.proxy({"access": {"auth_file": self.users}}, self.control())
        self.assertEqual(caught.exception.code, 78)
        self.assertIn("line 1 is not name:SHA-256", caught.exception.stderr)
        self.assertNotIn(self.token, caught.exception.stderr)

    def test_it_guards_a_proxy_that_anybody_may_reach(self):
        self.start({"allow_clients": ["0.0.0.0/0"]})
        origin = self.http_origin()
        for source in ("127.0.0.1", "127.0.0.9"):
            client = self.client(source=source)
            self.assert_self_made(client.get(origin.url + "/"), 407)
            self.assert_relayed(client.get(origin.url + "/", basic("shop", self.token)), 200, b"ok")

    def test_the_recipe_of_the_documentation_makes_a_line_that_works(self):
        tool("openssl")
        recipe = ('token=$(openssl rand -hex 16); printf %s "$token" | openssl dgst -sha256 -r | sed "s/ .*//; s/^/shop:/" > "$1"; '
                  'echo "$token"')
        with open(os.path.join(os.path.dirname(__file__), "../../docs/behaviour.md"), encoding="utf-8") as f:
            text = f.read()
        for piece in ("openssl rand -hex 16", "openssl dgst -sha256 -r"):
            self.assertIn(piece, text)
        done = subprocess.run(["sh", "-c", recipe, "sh", self.users], capture_output=True, text=True, check=True)
        self.token = done.stdout.strip()
        self.start()
        self.assert_relayed(self.get(self.http_origin().url + "/", basic("shop", self.token)), 200, b"ok")


class AuthClientTest(AuthCase):
    """Real programs, http and https."""

    def setUp(self):
        super().setUp()
        self.certificates = Certificates("127.0.0.1")
        self.addCleanup(self.certificates.remove)
        self.secure = HttpsOrigin(self.certificates)
        self.addCleanup(self._end_origin, self.secure)
        self.plain = self.http_origin()

    def ask(self, *command):
        done = subprocess.run(command, env=clean_environment(no_proxy=""), capture_output=True, text=True, timeout=50, check=False)
        return done.stdout + done.stderr

    def test_curl(self):
        proxy = self.start()
        for origin in (self.plain, self.secure):
            with self.subTest(origin.url):
                ask = [tool("curl"), "-sS", "-i", "--cacert", self.certificates.ca, "-x", proxy.url, "-d", "from curl", origin.url + "/echo"]
                for how in ([], ["--proxy-anyauth"]):
                    out = self.ask(*ask, *how, "-U", "shop:" + self.token)
                    self.assertTrue(out.endswith("from curl"), out)
                for how in ([], ["-U", "shop:no"]):
                    self.assertIn("407", self.ask(*ask, *how))
                url = proxy.url.replace("://", f"://shop:{self.token}@")
                self.assertTrue(self.ask(*[url if a == proxy.url else a for a in ask]).endswith("from curl"))

    def test_urllib(self):
        proxy = self.start()
        url = proxy.url.replace("://", f"://shop:{self.token}@")
        for origin, ca in ((self.plain, ""), (self.secure, self.certificates.ca)):
            with self.subTest(origin.url):
                program = [sys.executable, "-c", URLLIB]
                self.assertEqual(self.ask(*program, url, origin.url + "/echo", ca).splitlines(), ["200 ", "200 from urllib"])
                out = self.ask(*program, proxy.url, origin.url + "/echo", ca)
                self.assertEqual(out.count('407 Basic realm="tripswitch-proxy"' if not ca else "407 Proxy Authentication Required"), 2, out)
