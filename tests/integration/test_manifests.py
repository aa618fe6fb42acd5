"""The files of docker/, held against the program: its flags, variables, ports, probes and libraries."""

import ipaddress
import json
import os
import re
import shlex
import subprocess
import sys
import unittest

from harness import ROOT, Case, Proxy, binary, clean_environment, free_port, merge, run_binary, tool, wait_until

try:
    import yaml
except ImportError:
    yaml = None

DOCKER = os.path.join(ROOT, "docker")
IDENTITY = {"TRIPSWITCH_PROJECT_ID", "TRIPSWITCH_API_KEY", "TRIPSWITCH_INGEST_SECRET", "TRIPSWITCH_BASE_URL"}
PROXY_VARIABLES = {"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"}


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as f:
        return f.read()


def dockerfile():
    """[[(instruction, arguments)]], one list per stage."""
    text = re.sub(r"^\s*#.*\n", "", read("docker", "Dockerfile"), flags=re.M)
    stages = []
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            if word == "FROM":
                stages.append([])
            stages[-1].append((word, rest.strip()))
    return stages


def of(stage, word):
    return [rest for w, rest in stage if w == word]


def image_env():
    return dict(pair.split("=", 1) for rest in of(dockerfile()[-1], "ENV") for pair in shlex.split(rest))


def documents(name):
    return list(yaml.safe_load_all(read("docker", *name.split("/"))))


def env_of(container):
    return {e["name"]: e.get("value") for e in container.get("env", [])}


@unittest.skipIf(yaml is None, "PyYAML is not installed (python3-yaml)")
class ManifestCase(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.help = run_binary("--help").stdout
        cls.version = read("VERSION").strip()

    def flag_default(self, flag):
        found = re.search(rf"^  --{flag} .*\n((?:      .*\n)+)", self.help, re.M)
        self.assertIsNotNone(found, f"--help has no --{flag}")
        return re.search(r"\[(.*?)\](?: |$)", " ".join(found[1].split()) + " ")[1]

    def flags(self):
        return set(re.findall(r"^  --([a-z-]+) ", self.help, re.M))

    def assert_known_variables(self, names, where):
        """Every variable of ours is one that the program reads."""
        flags = self.flags() | {"config"}
        for name in names:
            if name.startswith("TRIPSWITCH_PROXY_"):
                flag = name.removeprefix("TRIPSWITCH_PROXY_").lower().replace("_", "-")
                self.assertIn(flag, flags, f"{where}: {name} stands for no flag")
            elif name.startswith("TRIPSWITCH_"):
                plain = name.removesuffix("_FILE")
                self.assertIn(plain, IDENTITY, f"{where}: {name}")
                self.assertIn(plain, self.help, f"{where}: {name}")

    def port_of(self, flag):
        return int(self.flag_default(flag).split(",")[0].rpartition(":")[2])

    def connect_works(self):
        """Whether this version takes CONNECT."""
        origin = self.http_origin()
        client = self.client(self.proxy({}, None))
        client.send(f"CONNECT 127.0.0.1:{origin.port} HTTP/1.1\r\nHost: 127.0.0.1:{origin.port}\r\n\r\n")
        return client.read_response_head().status != 501

    def assert_app_variables(self, env, where):
        """HTTP_PROXY in both spellings, on the default listener; https only if CONNECT works."""
        want = f"http://127.0.0.1:{self.port_of('listen')}"
        for name in ("HTTP_PROXY", "http_proxy"):
            self.assertEqual(env.get(name), want, f"{where}: {name}")
        for name in ("HTTPS_PROXY", "https_proxy"):
            self.assertEqual(env.get(name), want if self.connect_works() else None, f"{where}: {name}")
        for name in ("NO_PROXY", "no_proxy"):
            items = env.get(name, "").split(",")
            for must in ("localhost", "127.0.0.1", "::1"):
                self.assertIn(must, items, f"{where}: {name}")
            for item in items:
                self.assertFalse(item.startswith("*"), f"{where}: {name}: few programs understand {item}")
                self.assertNotRegex(item, r"^[^:]+:\d+$", f"{where}: {name}: few programs understand a port")


class DockerfileTest(ManifestCase):
    def test_the_build_stage_runs_the_tests_and_the_image_has_only_what_it_made(self):
        build, image = dockerfile()
        self.assertTrue(any(re.match(r"make test\b", r) for r in of(build, "RUN")), "the build runs no tests")
        self.assertEqual(of(image, "COPY"), ["--from=build /image/ /"])
        self.assertEqual(of(image, "RUN"), [], "distroless has no shell")
        for rest in of(build, "COPY"):
            for source in rest.split()[:-1]:
                self.assertTrue(os.path.exists(os.path.join(ROOT, source)), f"COPY {source}")

    def test_the_image_is_nobody_and_stops_and_starts_as_the_program_expects(self):
        image = dockerfile()[-1]
        self.assertRegex(of(image, "FROM")[0], r"^\S+:(?!latest)\S+$")
        self.assertEqual(of(image, "USER"), ["65532:65532"])
        self.assertEqual(of(image, "STOPSIGNAL"), ["SIGTERM"])
        self.assertEqual([json.loads(r) for r in of(image, "ENTRYPOINT")], [["/tripswitch-proxy"]])
        self.assertEqual(of(image, "CMD"), [])
        ports = {str(self.port_of("listen")), str(self.port_of("telemetry-listen"))}
        self.assertEqual(set(" ".join(of(image, "EXPOSE")).split()), ports)
        self.assertIn(f'version="{self.version}"', of(image, "LABEL")[0])

    def test_a_health_check_is_there_if_and_only_if_the_program_can_do_one(self):
        has_status = run_binary("status", "--help").returncode == 0 and re.search(r"^  status\b", self.help, re.M)
        checks = of(dockerfile()[-1], "HEALTHCHECK")
        self.assertEqual(bool(checks), bool(has_status), checks)

    def test_its_variables_are_known_and_keep_the_default_ports(self):
        env = image_env()
        self.assert_known_variables(env, "Dockerfile")
        for name, flag in (("TRIPSWITCH_PROXY_LISTEN", "listen"), ("TRIPSWITCH_PROXY_TELEMETRY_LISTEN", "telemetry-listen")):
            ports = {int(a.rpartition(":")[2]) for a in env[name].split(",")}
            self.assertEqual(ports, {self.port_of(flag)}, name)
        for address in env["TRIPSWITCH_PROXY_LISTEN"].split(","):
            self.assertTrue(ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).is_loopback, "an open proxy")
        hosts = {ipaddress.ip_address(a.rpartition(":")[0].strip("[]"))
                 for a in env["TRIPSWITCH_PROXY_TELEMETRY_LISTEN"].split(",")}
        self.assertTrue(all(h.is_unspecified for h in hosts), "probes come from outside")

    def test_its_libraries_are_those_that_the_program_loads(self):
        path = os.path.join(ROOT, "build", "tripswitch-proxy")  # sanitizers load other libraries
        if not os.path.exists(path):
            self.skipTest("no release binary")
        if not (os.path.exists("/etc/debian_version") and read("/etc/debian_version").startswith("12")):
            self.skipTest("the list is that of Debian 12")
        into = self.temp_dir()
        done = subprocess.run([os.path.join(ROOT, "tools", "closure.sh"), "--list", os.path.join(DOCKER, "libraries.txt"), path, into],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        names = [n for n in read("docker", "libraries.txt").splitlines() if not n.startswith("#")]
        self.assertEqual(sorted(os.listdir(os.path.join(into, "usr", "lib"))), sorted(names))

    def test_it_starts_where_there_is_no_ipv6(self):
        unshare = tool("unshare")
        sealed = [unshare, "-n" if os.geteuid() == 0 else "-rn", "sh", "-c", "ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"]
        if not tool("ip") or subprocess.run(sealed, capture_output=True, check=False).returncode != 0:
            self.skipTest("no network namespaces here")
        env = {**image_env(), "TRIPSWITCH_PROXY_DRAIN_MIN": "0s", "TRIPSWITCH_PROXY_DRAIN_IDLE": "0s"}
        script = sealed[-1] + ' && exec "$0" "$@"'
        code = ("import subprocess, sys, time, urllib.request\n"
                "p = subprocess.Popen(sys.argv[1:])\n"
                "end = time.monotonic() + 30\n"
                "while time.monotonic() < end and p.poll() is None:\n"
                "    try:\n"
                f"        r = urllib.request.urlopen('http://127.0.0.2:{self.port_of('telemetry-listen')}/startupz')\n"
                "        print(r.status)\n"
                "        break\n"
                "    except OSError:\n"
                "        time.sleep(0.05)\n"
                "if p.poll() is None:\n"
                "    p.terminate()\n"
                "sys.exit(p.wait())\n")
        done = subprocess.run([*sealed[:4], script, sys.executable, "-c", code, binary()], env=clean_environment(**env),
                              capture_output=True, text=True, timeout=50, check=False)
        self.assertEqual((done.returncode, done.stdout.splitlines()[:1]), (0, ["200"]), done.stderr[-2000:])


class ComposeTest(ManifestCase):
    def services(self):
        return documents("compose.yaml")[0]["services"]

    def test_its_services_share_names_ports_and_files_that_exist(self):
        services = self.services()
        proxy, client, flaky = services["proxy"], services["client"], services["flaky"]
        self.assertEqual(proxy["image"], f"tripswitch-proxy:{self.version}")
        context = os.path.normpath(os.path.join(DOCKER, proxy["build"]["context"]))
        self.assertTrue(os.path.exists(os.path.join(context, proxy["build"]["dockerfile"])))
        self.assertEqual(proxy["ports"], ["127.0.0.1:{0}:{0}".format(self.port_of("telemetry-listen"))])
        self.assert_known_variables(proxy["environment"], "compose")
        self.assertEqual(client["network_mode"], "service:proxy")
        self.assert_app_variables(client["environment"], "compose")
        for service in (flaky, client):
            source, target, _ = service["volumes"][0].split(":")
            script = service["command"][1]
            self.assertTrue(os.path.exists(os.path.join(DOCKER, source, os.path.relpath(script, target))), script)
        port = flaky["command"][flaky["command"].index("--listen") + 1].rpartition(":")[2]
        self.assertIn(f"http://flaky:{port}/", client["command"])

    def test_nothing_runs_as_root_or_writes(self):
        for name, service in self.services().items():
            self.assertTrue(service["read_only"], name)
            self.assertTrue(name == "proxy" or service["user"] == "65532:65532", name)
            self.assertNotRegex(service["image"], r"(:latest|^[^:]+)$", name)

    def test_the_variables_of_the_proxy_are_accepted_by_it(self):
        proxy = self.services()["proxy"]
        done = run_binary("check", env={**image_env(), **proxy["environment"]})
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)

    def test_the_client_sees_the_app_break_the_refusal_and_the_recovery(self):
        """The commands of the file, on other ports."""
        services = self.services()
        proxy = self.proxy({"samples": None, "embedded": {"auto_breaker": {"cooldown_ms": 500, "eval_interval_ms": 100}}}, None)
        command = services["flaky"]["command"]
        listen = command.index("--listen") + 1
        flaky = subprocess.Popen([sys.executable, os.path.join(DOCKER, "compose", "flaky.py"), "--listen", "127.0.0.1:0",
                                  "--cycle", "2,1.5", *[a for a in command[2:listen - 1]]],
                                 stdout=subprocess.PIPE, text=True)
        self.addCleanup(flaky.stdout.close)
        self.addCleanup(flaky.wait)
        self.addCleanup(flaky.terminate)
        port = int(flaky.stdout.readline().rpartition(":")[2])
        env = {k: v for k, v in os.environ.items() if k.upper() not in ("NO_PROXY", "HTTP_PROXY")}
        env["http_proxy"] = env["HTTP_PROXY"] = proxy.url
        client = subprocess.Popen([sys.executable, os.path.join(DOCKER, "compose", "client.py"), f"http://127.0.0.1:{port}/",
                                   "--every", "0.02"], stdout=subprocess.PIPE, text=True, env=env)
        self.addCleanup(client.stdout.close)
        self.addCleanup(client.wait)
        self.addCleanup(client.terminate)
        seen = []

        def story():
            seen.append(client.stdout.readline().strip()[9:])
            text = "\n".join(seen)
            return re.search(rf"200 OK\n500 .*\n503 Circuit breaker open: 127.0.0.1:{port}\n(.*\n)*200 OK", text)

        wait_until(story, 20, lambda: f"the client to see it all, it saw {seen}")


class KubernetesTest(ManifestCase):
    """docker/kubernetes/explicit-sidecar.yaml"""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        docs = {d["kind"]: d for d in documents("kubernetes/explicit-sidecar.yaml")}
        cls.config_map = docs["ConfigMap"]
        cls.pod = docs["Deployment"]["spec"]["template"]
        cls.deployment = docs["Deployment"]
        cls.spec = cls.pod["spec"]
        cls.sidecar = cls.spec["initContainers"][0]
        cls.app = cls.spec["containers"][0]

    def test_it_is_a_native_sidecar_before_everything_else(self):
        self.assertEqual((self.sidecar["name"], self.sidecar["restartPolicy"]), ("tripswitch-proxy", "Always"))
        self.assertEqual(self.sidecar["image"], f"tripswitch-proxy:{self.version}")
        self.assertNotIn("command", self.sidecar)
        self.assertEqual(self.pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"], self.app["name"])
        self.assertIs(self.spec["enableServiceLinks"], False)
        self.assertEqual(self.deployment["spec"]["selector"]["matchLabels"], self.pod["metadata"]["labels"])

    def test_it_has_the_rights_of_nobody_as_the_restricted_standard_wants(self):
        pod = self.spec["securityContext"]
        self.assertIs(pod["runAsNonRoot"], True)
        self.assertEqual(pod["seccompProfile"], {"type": "RuntimeDefault"})
        for container in (self.sidecar, self.app):
            own = container["securityContext"]
            self.assertIs(own["allowPrivilegeEscalation"], False, container["name"])
            self.assertEqual(own["capabilities"], {"drop": ["ALL"]}, container["name"])
        self.assertEqual(self.sidecar["securityContext"]["runAsUser"], 65532)
        self.assertIs(self.sidecar["securityContext"]["readOnlyRootFilesystem"], True)
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            self.assertNotIn(key, self.spec)
        for volume in self.spec["volumes"]:
            self.assertTrue(set(volume) & {"configMap", "secret", "emptyDir"}, volume)

    def test_its_resources_bound_memory_and_not_the_processor(self):
        self.assertEqual(self.sidecar["resources"], {"requests": {"cpu": "10m", "memory": "24Mi"}, "limits": {"memory": "128Mi"}})

    def test_the_grace_period_is_longer_than_the_longest_drain(self):
        self.assertEqual(self.flag_default("drain-max"), "25s")
        self.assertGreater(self.spec["terminationGracePeriodSeconds"], 25)

    def test_variables_and_mounts_fit_together(self):
        env = env_of(self.sidecar)
        self.assert_known_variables(env, "sidecar")
        self.assertFalse(PROXY_VARIABLES & set(env), "the sidecar needs no proxy")
        self.assertFalse([n for n in env if n in ("TRIPSWITCH_API_KEY", "TRIPSWITCH_INGEST_SECRET")], "secrets come from files")
        mounts = {m["mountPath"]: m["name"] for m in self.sidecar["volumeMounts"]}
        volumes = {v["name"]: v for v in self.spec["volumes"]}
        for name in ("TRIPSWITCH_PROXY_CONFIG", "TRIPSWITCH_API_KEY_FILE", "TRIPSWITCH_INGEST_SECRET_FILE"):
            self.assertIn(os.path.dirname(env[name]), mounts, name)
            self.assertIn(mounts[os.path.dirname(env[name])], volumes, name)
        config_volume = volumes[mounts[os.path.dirname(env["TRIPSWITCH_PROXY_CONFIG"])]]["configMap"]
        self.assertEqual(config_volume["name"], self.config_map["metadata"]["name"])
        self.assertIn(os.path.basename(env["TRIPSWITCH_PROXY_CONFIG"]), [i["path"] for i in config_volume["items"]])
        for item in config_volume["items"]:
            self.assertIn(item["key"], self.config_map["data"])
        reference = next(e for e in self.sidecar["env"] if e["name"] == "TRIPSWITCH_PROJECT_ID")["valueFrom"]["configMapKeyRef"]
        self.assertEqual(reference["name"], self.config_map["metadata"]["name"])
        self.assertIn(reference["key"], self.config_map["data"])
        self.assert_app_variables(env_of(self.app), "app")

    def test_probes_ask_ports_that_are_declared_and_only_where_they_should(self):
        ports = {p["name"]: p["containerPort"] for p in self.sidecar["ports"]}
        self.assertEqual(ports, {"telemetry": self.port_of("telemetry-listen")})
        self.assertNotIn("readinessProbe", self.sidecar, "it would gate the pod")
        startup, live = self.sidecar["startupProbe"], self.sidecar["livenessProbe"]
        self.assertEqual((startup["httpGet"]["path"], startup["periodSeconds"]), ("/startupz", 1))
        self.assertEqual((live["httpGet"]["path"], live["periodSeconds"], live["failureThreshold"]), ("/livez", 10, 3))
        patience_s = startup["periodSeconds"] * startup["failureThreshold"]
        self.assertGreater(patience_s, float(self.flag_default("control-startup-sync-timeout").removesuffix("s")))
        for probe in (startup, live):
            self.assertIn(probe["httpGet"]["port"], ports)

    def test_the_program_runs_from_it_answers_its_probes_and_protects_the_app(self):
        """Image and manifest together: their variables, their config, keys from files; only
        the ports, the paths of the mounts and the control plane are those of the test."""
        control = self.control({"payment-gateway": "closed"})
        dns, origin, secrets = self.dns(), self.http_origin(), self.temp_dir()
        dns.set("payments.example.com", "127.0.0.1")
        for name, text in (("api-key", control.api_key), ("ingest-secret", control.ingest_secret)):
            with open(os.path.join(secrets, name), "w", encoding="utf-8") as f:
                f.write(text + "\n")
        os.chmod(os.path.join(secrets, "api-key"), 0o440)
        os.chmod(os.path.join(secrets, "ingest-secret"), 0o440)
        env = {**image_env(), **{k: v for k, v in env_of(self.sidecar).items() if v is not None}}
        for name in ("TRIPSWITCH_API_KEY_FILE", "TRIPSWITCH_INGEST_SECRET_FILE"):
            env[name] = os.path.join(secrets, os.path.basename(env[name]))
        env["TRIPSWITCH_PROJECT_ID"] = control.project_id
        env["TRIPSWITCH_BASE_URL"] = control.url
        del env["TRIPSWITCH_PROXY_CONFIG"]  # the harness writes the file
        telemetry_port, port = free_port(), free_port()
        env["TRIPSWITCH_PROXY_TELEMETRY_LISTEN"] = env["TRIPSWITCH_PROXY_TELEMETRY_LISTEN"].replace(
            str(self.port_of("telemetry-listen")), str(telemetry_port))
        env["TRIPSWITCH_PROXY_LISTEN"] = env["TRIPSWITCH_PROXY_LISTEN"].replace(str(self.port_of("listen")), str(port))
        config = json.loads(self.config_map["data"]["config.json"])
        proxy = self.start_from(config, env, port, telemetry_port,
                                ["--dns-servers", dns.address, "--admin-listen", "off"])
        control.wait_stream()

        for probe in (self.sidecar["startupProbe"], self.sidecar["livenessProbe"]):
            # 127.0.0.2: an address that a loopback-only listener would not have
            path = probe["httpGet"]["path"]
            done = subprocess.run([tool("curl"), "-sS", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}",
                                   f"http://127.0.0.2:{telemetry_port}{path}"], capture_output=True, text=True, check=False)
            self.assertEqual(done.stdout, "200", f"{path}: {done.stderr}")

        url = f"http://payments.example.com:{origin.port}/"
        self.assert_relayed(self.get(url, proxy=proxy), 200, b"ok")
        control.set("payment-gateway", "open")
        response = wait_until(lambda: next((r for r in [self.get(url, proxy=proxy)] if r.status == 503), None), 10)
        self.assert_self_made(response, 503, "destination_unavailable")
        self.assertEqual((response.get("x-tripswitch-breaker"), response.get("retry-after")), ("payment-gateway", "5"))

    def start_from(self, config, env, port, telemetry_port, args):
        """What decides the ports here is the environment, as it is in the pod."""
        class FromEnvironment(Proxy):
            def write_config(self, new=None):
                self.config = new if new is not None else self.config
                self.port, self.telemetry_port = port, telemetry_port
                self.address, self.url = ("127.0.0.1", port), f"http://127.0.0.1:{port}"
                with open(self.config_path, "w", encoding="utf-8") as f:
                    json.dump(config, f)

        proxy = FromEnvironment(merge({"samples": None, "drain": None, "workers": None, "admin_listen": None}, config),
                                None, env=env, args=args, check_books=False)
        self._keep(proxy)
        return proxy


class ReadmeTest(ManifestCase):
    """What README names, exists; test_readme.py types its commands."""

    def test_its_variables_files_and_targets_exist(self):
        text = read("README.md")
        self.assert_known_variables(set(re.findall(r"\bTRIPSWITCH_\w+", text)), "README")
        targets = set(re.findall(r"^\.PHONY:(.*)$", read("Makefile"), re.M)[0].split())
        for target in re.findall(r"(?:^    |`)make ([a-z-]+)", text, re.M):
            self.assertIn(target, targets, "make " + target)
        for name in re.findall(r"\b(?:proxy|sync|config|docker|docs|tools)/[\w./-]+\.\w+", text):
            self.assertTrue(os.path.exists(os.path.join(ROOT, name)), name)
        for room in re.findall(r"^\| `(\w+)/`", text, re.M):
            self.assertTrue(os.path.isdir(os.path.join(ROOT, room)), room)

    def test_its_endpoints_answer(self):
        proxy = self.proxy({"samples": None}, None)
        origin = self.http_origin()
        self.get(origin.url + "/")
        paths = re.findall(r"^\| (`/.*?) \|", read("README.md"), re.M)
        self.assertEqual(len(paths), 5, paths)
        for path in re.findall(r"`(/\S*)`", " ".join(paths)):
            path = path.replace("NAME", f"127.0.0.1:{origin.port}")
            self.assertEqual(proxy.telemetry(path).status, 200, path)


if __name__ == "__main__":
    unittest.main()
