"""What the integration tests are made of: a scripted control plane, scripted origins, a DNS
server, byte-exact clients, and the real proxy with its books."""

from .case import ROUTE_ALL, Case, SharedCase, tool
from .control import ControlPlane
from .dns import DnsServer
from .http import BadMessage, Ended
from .metrics import JUDGED, Books, Metrics
from .origin import BlackHole, HttpOrigin, Origin, answering, in_turn, pattern
from .ports import free_port
from .proxy import ROOT, Proxy, StartError, binary, build_cost, clean_environment, has_ipv6, merge, run_binary, slowdown, variant
from .raw import Raw, authority_of, chunk, request
from .wait import stays, wait_until

__all__ = [
    "ROOT", "ROUTE_ALL", "BadMessage", "BlackHole", "Books", "Case", "ControlPlane", "DnsServer", "Ended",
    "HttpOrigin", "JUDGED", "Metrics", "Origin", "Proxy", "Raw", "SharedCase", "StartError", "answering",
    "authority_of", "binary", "build_cost", "chunk", "clean_environment", "free_port", "has_ipv6", "in_turn", "merge",
    "pattern", "request", "run_binary", "slowdown", "stays", "tool", "variant", "wait_until",
]
