"""redis-py with a Redis server: 200 goroutines at once on two workers, and each answer and each error is accounted
for."""

from __future__ import annotations

import pytest
import real
from helpers import check_child

pytest.importorskip("redis", reason="redis-py is not installed here")

BEGIN = """
import os, signal
import goslings
from goslings import go
goslings.patch()
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

goslings.gomaxprocs(2)
N = 200
port, pid = int(os.environ["PORT"]), int(os.environ["SERVER_PID"])

def client(**options):
    return redis.Redis(host="127.0.0.1", port=port, decode_responses=True, retry=Retry(NoBackoff(), 0), **options)

def waiting(n):
    with client() as watch:
        while watch.info("clients")["blocked_clients"] != n:
            goslings.sleep(0.01)

def outcomes(goroutines):
    counts = {}
    for goroutine in goroutines:
        try:
            what = goroutine.result(60)
        except Exception as error:
            what = type(error).__name__
        counts[what] = counts.get(what, 0) + 1
    return counts
"""


def test_real_redis_answers_200_goroutines() -> None:
    with real.redis() as server:
        check_child(
            BEGIN
            + """
shared = client(max_connections=50000)  # one pool for all, as programs have it

def work(i):
    shared.set(f"key{i}", f"value{i}")
    for n in range(20):
        shared.incr("counter")
        assert shared.get(f"key{i}") == f"value{i}"
    with shared.pipeline() as pipe:
        pipe.incr("counter").incr("counter").get(f"key{i}")
        assert pipe.execute()[2] == f"value{i}"
    return "done"

assert outcomes([go(work, i) for i in range(N)]) == {"done": N}
assert shared.get("counter") == str(N * 22)
shared.close()
""",
            env=server.env,
        )


def test_real_redis_200_goroutines_wait_at_once() -> None:
    with real.redis() as server:
        check_child(
            BEGIN
            + """
def take(i):
    with client() as mine:
        return mine.blpop([f"queue{i}"])[1] == f"item{i}"

takers = [go(take, i) for i in range(N)]
waiting(N)
with client() as giver:
    for i in range(N):
        giver.rpush(f"queue{i}", f"item{i}")
assert outcomes(takers) == {True: N}
""",
            env=server.env,
        )


def test_real_redis_killed_while_200_goroutines_wait_then_refused() -> None:
    with real.redis() as server:
        check_child(
            BEGIN
            + """
def take(i):
    with client() as mine:
        return mine.blpop([f"queue{i}"])

takers = [go(take, i) for i in range(N)]
waiting(N)
os.kill(pid, signal.SIGKILL)
assert outcomes(takers) == {"ConnectionError": N}
assert outcomes([go(take, i) for i in range(N)]) == {"ConnectionError": N}, "nobody listens there any more"
""",
            env=server.env,
        )


def test_real_redis_that_hangs_times_out_200_goroutines() -> None:
    with real.redis() as server:
        check_child(
            BEGIN
            + """
def ask(i):
    with client(socket_timeout=60.0, single_connection_client=True) as mine:
        assert mine.ping()
        mine.connection._sock.settimeout(1.0)
        ready.done()
        stopped.wait()
        return mine.get("key")

ready, stopped = goslings.WaitGroup(), goslings.Event()
ready.add(N)
askers = [go(ask, i) for i in range(N)]
ready.wait()
os.kill(pid, signal.SIGSTOP)
stopped.set()
try:
    assert outcomes(askers) == {"TimeoutError": N}
finally:
    os.kill(pid, signal.SIGCONT)
""",
            env=server.env,
        )
