"""What holds for every test: no exception of a goroutine goes by unseen, and the number of workers stays."""

from __future__ import annotations

import gc
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import goslings
import pytest
from goslings import go
from helpers import SECONDS

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Started in the background, where shells have it ignored: programs that the tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[goslings.ExceptHookArgs]]:
    """The exceptions that nobody read. A test that expects some empties the list; else it fails."""
    reported: list[goslings.ExceptHookArgs] = []
    monkeypatch.setattr(goslings, "excepthook", reported.append)
    yield reported
    assert not reported, "an exception in a goroutine that nobody read"


@pytest.fixture
def two_workers() -> Iterator[None]:
    """Two workers, also where the default is one."""
    before = goslings.gomaxprocs(2)
    yield
    goslings.gomaxprocs(before)


@pytest.fixture
def one_worker() -> Iterator[None]:
    """Goroutines that start in this test start on one worker."""
    before = goslings.gomaxprocs(1)
    yield
    goslings.gomaxprocs(before)


@pytest.fixture
def collect() -> Iterator[None]:
    """Nothing of earlier tests is left to be collected, and nothing is collected unasked."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def fast_switching() -> Iterator[None]:
    """Threads of a GIL build change places a thousand times as often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def rng() -> random.Random:
    """Random choices from a seed that is printed when the test fails; GOSLINGS_SEED repeats them."""
    import os

    seed = int(os.environ.get("GOSLINGS_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
    print(f"GOSLINGS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture(scope="session")
def certificates() -> Iterator[dict[str, str]]:
    """Files: a certificate authority (CA), and a certificate for localhost (CERT) with its key (KEY)."""
    import real

    with real.certificates() as made:
        yield made


def by_goroutine(fn: Callable[[], Any]) -> Callable[[], Any]:
    return go(fn).result


def by_thread(fn: Callable[[], Any]) -> Callable[[], Any]:
    answer: list[Any] = []
    thread = threading.Thread(target=lambda: answer.append(fn()))
    thread.start()

    def result() -> Any:
        thread.join(SECONDS)
        return answer[0]

    return result


@pytest.fixture(params=[by_goroutine, by_thread], ids=["goroutine", "thread"])
def start(request: pytest.FixtureRequest) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Starts a function, as a goroutine or a thread; what it returns waits for the result."""
    starter: Callable[[Callable[[], Any]], Callable[[], Any]] = request.param
    return starter


Run = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine on an event loop of its own, at most as long as a condition may take to come true."""


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """As asyncio.run, on each kind of event loop that can be had."""
    import asyncio

    factory = asyncio.new_event_loop
    if request.param == "uvloop":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it does at import is its own affair
            factory = pytest.importorskip("uvloop", reason="there is no uvloop for this interpreter").new_event_loop

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(main, SECONDS))

    return run
