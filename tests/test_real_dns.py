"""dnspython with a name server (dnsmasq), over UDP and TCP: 200 goroutines at once on two workers, and each answer and
each error is accounted for."""

from __future__ import annotations

import pytest
import real
from helpers import check_child

pytest.importorskip("dns", reason="dnspython is not installed here")

HOSTS = {f"host{i}.test": f"10.0.{i // 100}.{i % 100 + 1}" for i in range(200)}

BEGIN = """
import os, signal
import goslings
from goslings import go
goslings.patch()
import dns.resolver

goslings.gomaxprocs(2)
N = 200
port, pid = int(os.environ["PORT"]), int(os.environ["SERVER_PID"])

def ask(name, tcp=False, lifetime=60.0):
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.timeout = ["127.0.0.1"], port, lifetime
    answer = resolver.resolve(name, "A", tcp=tcp, lifetime=lifetime, search=False)
    return [record.address for record in answer]

def outcomes(goroutines):
    counts = {}
    for goroutine in goroutines:
        try:
            what = goroutine.result(90)
        except Exception as error:
            what = type(error).__name__
        counts[what] = counts.get(what, 0) + 1
    return counts
"""


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_real_dns_answers_200_goroutines(tcp: bool) -> None:
    with real.dns(HOSTS) as server:
        check_child(
            BEGIN
            + """
tcp = os.environ["TCP"] == "True"

def work(i):
    if i % 4 == 3:
        return ask(f"nobody{i}.test", tcp)
    for _ in range(3):
        assert ask(f"host{i}.test", tcp) == [f"10.0.{i // 100}.{i % 100 + 1}"]
    return "right"

ended = outcomes([go(work, i) for i in range(N)])
assert ended == {"right": N * 3 // 4, "NXDOMAIN": N // 4}, ended
""",
            env={"TCP": str(tcp), **server.env},
        )


def test_real_dns_that_hangs_and_then_dies() -> None:
    with real.dns(HOSTS) as server:
        check_child(
            BEGIN
            + """
os.kill(pid, signal.SIGSTOP)
ended = outcomes([go(ask, f"host{i}.test", i % 2 == 0, 2.0) for i in range(N)])
assert ended == {"LifetimeTimeout": N}, ended
os.kill(pid, signal.SIGKILL)
def gone():
    try:
        ask("host1.test", tcp=True, lifetime=5.0)
    except (dns.resolver.LifetimeTimeout, dns.resolver.NoNameservers) as error:
        return "refused" in str(error)
while not gone():
    goslings.sleep(0.05)  # the kernel answers for it until it is quite gone
ended = outcomes([go(ask, f"host{i}.test", True, 2.0) for i in range(N)])
assert sum(ended.values()) == N and set(ended) <= {"LifetimeTimeout", "NoNameservers"}, ended
""",
            env=server.env,
        )
