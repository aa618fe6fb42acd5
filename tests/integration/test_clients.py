"""Programs that people have: each is relayed, and each is told who refused."""

import os
import subprocess
import sys

from harness import SharedCase, clean_environment, pattern, tool

NODE = """
const http = require('http');
const [proxy, url] = [new URL(process.argv[2]), process.argv[3]];
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
function ask(method, body, done) {
  const r = http.request({ host: proxy.hostname, port: proxy.port, path: url, method, agent,
                           headers: { Host: new URL(url).host } }, (res) => {
    let data = ''; res.on('data', (d) => data += d); res.on('end', () => done(res, data));
  });
  r.on('error', (e) => { console.log('error ' + e.message); process.exit(1); });
  r.end(body);
}
ask('POST', 'from node', (a, one) => ask('GET', undefined, (b, two) => {
  console.log(a.statusCode, a.statusMessage, one); console.log(b.statusCode, two.length);
  agent.destroy();
}));
"""

JAVA = """
import java.io.*;
import java.net.*;
public class Client {
    public static void main(String[] args) throws Exception {
        for (int i = 0; i < 3; i++) {
            HttpURLConnection c = (HttpURLConnection) new URL(args[0]).openConnection();
            if (i == 1) {
                c.setDoOutput(true);
                c.setRequestMethod("POST");
                c.getOutputStream().write("from java".getBytes());
            }
            int code = c.getResponseCode();
            InputStream in = code >= 400 ? c.getErrorStream() : c.getInputStream();
            String body = in == null ? "" : new String(in.readAllBytes());
            System.out.println(code + " " + c.getResponseMessage() + " " + body.strip());
        }
    }
}
"""

GO = """
package main
import ("fmt"; "io"; "net/http"; "os"; "strings")
func main() {
	for i := 0; i < 3; i++ {
		r, err := http.Post(os.Args[1], "text/plain", strings.NewReader("from go"))
		if err != nil { fmt.Println("error", err); os.Exit(1) }
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		fmt.Println(r.Status, strings.TrimSpace(string(b)))
	}
}
"""

URLLIB = """
import sys, urllib.request, urllib.error
for body in (None, b"from urllib"):
    try:
        r = urllib.request.urlopen(urllib.request.Request(sys.argv[1], data=body), timeout=10)
        print(r.status, r.reason, len(r.read()))
    except urllib.error.HTTPError as e:
        print(e.code, e.reason, "payments" in e.read().decode())
"""

HTTP_CLIENT = """
import sys, http.client
proxy, host, url = sys.argv[1].split("://")[1], sys.argv[2].split("/")[2], sys.argv[2]
c = http.client.HTTPConnection(proxy, timeout=10)
for i in range(3):
    c.request("PUT", url, body=iter([b"part one ", b"part two"]), headers={"Host": host}, encode_chunked=True)
    r = c.getresponse()
    print(r.status, r.reason, r.read().decode())
"""


class ClientTest(SharedCase):
    workers = 2
    time_limit_s = 90
    breakers = {"payments": "closed"}
    config = {"routes": [{"name": "payments", "match": {"hosts": ["*.test"]}, "breakers": ["payments"], "router": "rtr"}]}

    def setUp(self):
        super().setUp()
        self.origin_ = self.http_origin()
        self.base = f"http://payments.test:{self.origin_.port}"
        self.state("closed")

    def tearDown(self):
        self.state("closed")

    def state(self, state):
        self.cp.set("payments", state)
        self.px.wait_breaker("payments", state)

    def run_program(self, *command, env=None, stdin=None, timeout=60):
        variables = clean_environment(http_proxy=self.px.url, HTTP_PROXY=self.px.url, no_proxy="", **(env or {}))
        done = subprocess.run(command, env=variables, input=stdin, capture_output=True, timeout=timeout, check=False)
        return done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")

    # -- curl ------------------------------------------------------------------------

    def test_curl_is_relayed_refused_with_the_breakers_name_and_relayed_again(self):
        curl = tool("curl")
        ask = [curl, "-sS", "-i", "-x", self.px.url, self.base + "/bytes/20"]
        code, out, err = self.run_program(*ask)
        self.assertEqual(code, 0, err)
        self.assertTrue(out.startswith("HTTP/1.1 200 OK\r\n"), out)
        self.state("open")
        code, out, err = self.run_program(*ask)
        self.assertEqual(code, 0, err)
        self.assertTrue(out.startswith("HTTP/1.1 503 Circuit breaker open: payments\r\n"), out)
        self.assertIn("X-Tripswitch-Breaker: payments", out)
        self.state("closed")
        self.assertTrue(self.run_program(*ask)[1].startswith("HTTP/1.1 200 OK\r\n"))

    def test_curl_in_all_its_ways(self):
        curl = tool("curl")
        big = pattern(3_000_000)
        cases = [
            (["-d", "a=b"], "/echo", None, b"a=b"),
            (["-T", "-"], "/echo", big, big),  # chunked upload with Expect: 100-continue
            (["--data-binary", "@-"], "/echo", big, big),
            (["-0"], "/bytes/5000", None, pattern(5000)),
            (["--compressed"], "/chunked/70000", None, pattern(70000)),
            (["-X", "BREW", "-d", "tea"], "/echo", None, b"tea"),
            ([], "/close-delimited/99999", None, pattern(99999)),
            (["-H", "Proxy-Connection: keep-alive", "-H", "Connection: close"], "/bytes/3", None, pattern(3)),
        ]
        for args, path, stdin, want in cases:
            with self.subTest(args, path=path):
                done = subprocess.run([curl, "-sS", "-f", "-x", self.px.url, *args, self.base + path], input=stdin,
                                      env=clean_environment(), capture_output=True, timeout=30, check=False)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertTrue(done.stdout == want, done.stdout[:100])
        code, out, err = self.run_program(curl, "-sS", "-I", "-x", self.px.url, self.base + "/bytes/77")
        self.assertIn("Content-Length: 77", out, err)

    def test_curl_keeps_its_connection_over_many_urls(self):
        curl = tool("curl")
        urls = [f"{self.base}/bytes/{i}" for i in range(20)]
        code, out, err = self.run_program(curl, "-sS", "-v", "-o", "/dev/null", "-x", self.px.url, *urls)
        self.assertEqual(code, 0, err)
        self.assertEqual(err.count("Re-using existing connection"), 19, err[-500:])
        self.assertEqual(err.count("< HTTP/1.1 200"), 20)

    # -- wget ------------------------------------------------------------------------

    def test_wget_is_relayed_and_refused(self):
        wget = tool("wget")
        code, out, err = self.run_program(wget, "-q", "-O", "-", "--tries=1", self.base + "/chunked/50000")
        self.assertEqual((code, out.encode("latin-1") == pattern(50000)), (0, True), err)
        code, out, err = self.run_program(wget, "-q", "-O", "-", "--tries=1", "--post-data=x=y", self.base + "/echo")
        self.assertEqual((code, out), (0, "x=y"), err)
        self.state("open")
        code, out, err = self.run_program(wget, "-O", "-", "--tries=1", self.base + "/")
        self.assertEqual(code, 8)
        self.assertIn("503 Circuit breaker open: payments", err)

    # -- Python ----------------------------------------------------------------------

    def test_urllib_is_relayed_and_refused(self):
        code, out, err = self.run_program(sys.executable, "-c", URLLIB, self.base + "/echo")
        self.assertEqual((code, out), (0, "200 OK 0\n200 OK 11\n"), err)
        self.state("open")
        code, out, err = self.run_program(sys.executable, "-c", URLLIB, self.base + "/echo")
        self.assertEqual((code, out), (0, "503 Circuit breaker open: payments True\n" * 2), err)

    def test_http_client_with_chunked_uploads_on_one_connection(self):
        code, out, err = self.run_program(sys.executable, "-c", HTTP_CLIENT, self.px.url, self.base + "/echo")
        self.assertEqual((code, out), (0, "200 OK part one part two\n" * 3), err)

    # -- Node ------------------------------------------------------------------------

    def test_node_is_relayed_and_refused(self):
        node = tool("node")
        path = os.path.join(self.temp_dir(), "client.js")
        with open(path, "w", encoding="ascii") as f:
            f.write(NODE)
        code, out, err = self.run_program(node, path, self.px.url, self.base + "/echo")
        self.assertEqual((code, out), (0, "200 OK from node\n200 0\n"), err)
        self.state("open")
        code, out, err = self.run_program(node, path, self.px.url, self.base + "/echo")
        self.assertTrue(out.startswith("503 Circuit breaker open: payments {"), out + err)

    # -- Java ------------------------------------------------------------------------

    def test_java_is_relayed_and_refused(self):
        java, javac = tool("java"), tool("javac")
        folder = self.temp_dir()
        with open(os.path.join(folder, "Client.java"), "w", encoding="ascii") as f:
            f.write(JAVA)
        subprocess.run([javac, "-d", folder, os.path.join(folder, "Client.java")], check=True, timeout=60)
        host, port = self.px.address
        command = [java, "-Xshare:auto", "-XX:TieredStopAtLevel=1", f"-Dhttp.proxyHost={host}", f"-Dhttp.proxyPort={port}",
                   "-Dhttp.nonProxyHosts=", "-cp", folder, "Client", self.base + "/echo"]
        code, out, err = self.run_program(*command)
        self.assertEqual((code, out), (0, "200 OK \n200 OK from java\n200 OK \n"), err)
        self.state("open")
        code, out, err = self.run_program(*command)
        self.assertEqual(out.count("503 Circuit breaker open: payments {"), 3, out + err)

    # -- Go --------------------------------------------------------------------------

    def test_go_is_relayed_and_refused(self):
        go = tool("go")
        folder = self.temp_dir()
        path = os.path.join(folder, "client.go")
        with open(path, "w", encoding="ascii") as f:
            f.write(GO)
        env = clean_environment(GOFLAGS="-mod=mod", GO111MODULE="off", GOPATH=folder, CGO_ENABLED="0", GOPROXY="off",
                                GOCACHE=os.environ.get("TRIPSWITCH_TEST_GOCACHE", os.path.expanduser("~/.cache/go-build")))
        program = os.path.join(folder, "client")
        subprocess.run([go, "build", "-p", "1", "-o", program, path], env=env, check=True, timeout=85)
        code, out, err = self.run_program(program, self.base + "/echo")
        self.assertEqual((code, out), (0, "200 OK from go\n" * 3), err)
        self.state("open")
        code, out, err = self.run_program(program, self.base + "/echo")
        self.assertEqual(out.count("503 Circuit breaker open: payments {"), 3, out + err)

    # -- many ------------------------------------------------------------------------

    def test_apache_bench_with_keep_alive_fails_nothing(self):
        ab = tool("ab")
        code, out, err = self.run_program(ab, "-q", "-k", "-n", "2000", "-c", "20", "-X",
                                          f"127.0.0.1:{self.px.port}", self.base + "/bytes/1000")
        self.assertEqual(code, 0, err)
        self.assertIn("Complete requests:      2000", out)
        self.assertIn("Failed requests:        0", out)
        self.assertNotIn("Non-2xx responses", out)

    def test_every_sample_of_these_programs_arrived(self):
        books = self.px.wait_balance(settled=True)
        self.assertEqual(books.sent, self.cp.accepted)
