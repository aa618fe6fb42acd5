"""The base of all test cases: starts things, and ends them in the right order.

Case        every test starts what it needs.
SharedCase  one control plane, DNS server and proxy for the whole class; each test brings
            its own origins.  Only for tests that leave no trace in each other.
"""

import shutil
import tempfile
import unittest

from .control import ControlPlane
from .dns import DnsServer
from .origin import HttpOrigin, Origin, in_turn
from .proxy import Proxy
from .wait import wait_until

# One route for every host: breaker "b", router "rtr".
ROUTE_ALL = {"name": "all", "breakers": ["b"], "router": "rtr"}


class Case(unittest.TestCase):
    time_limit_s = 60  # the runner kills a test that takes longer
    maxDiff = 4000

    def setUp(self):
        self._proxies = []

    # -- things ------------------------------------------------------------------------

    def control(self, breakers=None, **kw):
        control = ControlPlane(breakers if breakers is not None else {"b": "closed"}, **kw)
        self.addCleanup(self._end_control, control)
        return control

    def _end_control(self, control):
        control.stop()
        if control.violations:
            self.fail("the control plane was sent something wrong:\n" + "\n".join(control.violations[:10]))

    def dns(self):
        dns = DnsServer()
        self.addCleanup(dns.stop)
        return dns

    def origin(self, *scripts, **kw):
        """A scripted origin: one script for all connections, or several for the first, second, ..."""
        origin = Origin(in_turn(*scripts) if len(scripts) > 1 else scripts[0], **kw)
        self.addCleanup(self._end_origin, origin)
        return origin

    def http_origin(self, **kw):
        origin = HttpOrigin(**kw)
        self.addCleanup(self._end_origin, origin)
        return origin

    def _end_origin(self, origin):
        origin.stop()
        if origin.errors:
            self.fail("in the origin's script: " + "\n".join(origin.errors[:3]))

    def proxy(self, config=None, control=None, **kw):
        """Unless the config says otherwise, one route for everything."""
        config = dict(config or {})
        if control is not None:
            config.setdefault("routes", [ROUTE_ALL])
        proxy = Proxy(config, control, **kw)
        self._keep(proxy)
        return proxy

    def _keep(self, proxy):
        self._proxies.append(proxy)
        self.addCleanup(proxy.cleanup)
        self.addCleanup(proxy.stop)

    def client(self, proxy=None, **kw):
        client = (proxy or self._proxies[-1]).client(**kw)
        self.addCleanup(client.close)
        return client

    def get(self, url, *lines, proxy=None, **kw):
        """One request on a connection of its own."""
        client = self.client(proxy)
        try:
            return client.get(url, *lines, **kw)
        finally:
            client.close()

    def temp_dir(self):
        path = tempfile.mkdtemp(prefix="tsp-test-")
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path

    def wait_until(self, cond, timeout=10.0, what="the condition"):
        return wait_until(cond, timeout, what)

    # -- assertions --------------------------------------------------------------------

    def assert_self_made(self, response, status, error=None, msg=""):
        """A complete answer of the proxy's own: DESIGN promise 8, ECOSYSTEM section 2.5."""
        lines = response.get_all("proxy-status")
        text = f"{msg}: {response}"
        self.assertEqual(response.status, status, text)
        self.assertEqual(len(lines), 1, f"Proxy-Status lines, {text}")
        self.assertTrue(lines[0].startswith("tripswitch-proxy"), text)
        if error:
            wanted = (error,) if isinstance(error, str) else error
            self.assertTrue(any(f"error={e}" in lines[0] for e in wanted), f"wanted error={wanted}, {text}")

    def assert_relayed(self, response, status=200, body=None, msg=""):
        self.assertEqual(response.status, status, f"{msg}: {response}")
        self.assertEqual(response.get_all("proxy-status"), [], f"{msg}: a relayed response is not ours: {response}")
        if body is not None:
            self.assertEqual(response.body, body, msg)

    def last_words(self):
        """The end of every proxy's operations log, for a failure's report."""
        out = []
        for proxy in self._proxies:
            try:
                out.append(f"--- stderr of proxy {proxy.pid}, config {proxy.config_path}\n{proxy.stderr()[-4000:]}")
            except OSError:
                pass
        return "\n".join(out)


class SharedCase(Case):
    """Class attributes: `config` (without routes: ROUTE_ALL), `breakers`, `warnings`, `workers`."""

    config = {}
    breakers = {"b": "closed"}
    warnings = False
    workers = 1
    environment = {}

    @classmethod
    def setUpClass(cls):
        cls.cp = ControlPlane(cls.breakers)
        cls.addClassCleanup(cls._end_class_control)
        cls.names = DnsServer()
        cls.addClassCleanup(cls.names.stop)
        config = {"workers": cls.workers, "routes": [ROUTE_ALL], **cls.config}
        cls.px = Proxy(config, cls.cp, dns=cls.names, warnings=cls.warnings, env=cls.environment)
        cls.addClassCleanup(cls.px.cleanup)
        cls.addClassCleanup(cls.px.stop)

    @classmethod
    def _end_class_control(cls):
        cls.cp.stop()
        if cls.cp.violations:
            raise AssertionError("the control plane was sent something wrong:\n" + "\n".join(cls.cp.violations[:10]))

    def setUp(self):
        super().setUp()
        self._proxies = [self.px]
        self.assertIsNone(self.px.process.poll(), f"the proxy is gone:\n{self.px.stderr()[-3000:]}")

    def delta(self, name, **labels):
        """A function that tells how much a counter has grown since now."""
        before = self.px.metric(name, **labels)
        return lambda: self.px.metric(name, **labels) - before


def tool(name):
    """Skip loudly without a program."""
    path = shutil.which(name)
    if not path:
        raise unittest.SkipTest(f"{name} is not installed")
    return path
