"""What the tests share: waiting for conditions instead of sleeping, and programs in a process of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from typing import Any

import goslings
from goslings import Goroutine, go

Park = Callable[[Any], Any]
"""What waits and then returns its argument."""

FREE_THREADED = not sys._is_gil_enabled()
SECONDS = 20.0
"""How long a condition may take to come true before a test fails: far more than it needs."""


def count(usual: int) -> int:
    """A number of rounds, scaled by GOSLINGS_TEST_SCALE (0.1 for slow machines, 10 to dig deeper)."""
    return max(2, int(usual * float(os.environ.get("GOSLINGS_TEST_SCALE", "1"))))


def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Waits until `condition()` is true. Never for an order of events, only for one to be seen."""
    deadline = time.monotonic() + seconds
    pause = 0.0
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {condition}")
        goslings.sleep(pause)
        pause = min(0.01, pause + 0.0002)


def state(goroutine: Goroutine[Any]) -> str:
    """What a goroutine does now, in the words of a dump: "chan receive", "running", "done" …"""
    return repr(goroutine).removeprefix(f"<Goroutine {goroutine.name} (").removesuffix(")>")


WAITING = {
    *("chan receive", "chan send", "chan receive (nil chan)", "chan send (nil chan)"),
    *("select", "select (no cases)", "sleep", "goroutine result"),
}


MUTEX, RLOCK, LOCK = "sync.Mutex.Lock", "sync.RWMutex.RLock", "sync.RWMutex.Lock"
GROUP, COND, ACQUIRE = "sync.WaitGroup.Wait", "sync.Cond.Wait", "semacquire"
EVENT, BARRIER = "event wait", "barrier wait"


def waits(goroutine: Goroutine[Any], reason: str) -> Goroutine[Any]:
    """Waits until it waits there: by then it is in the queue."""
    until(lambda: state(goroutine) == reason)
    return goroutine


def parked(*goroutines: Goroutine[Any]) -> None:
    """Waits until each of them waits for something: by then it is in the queue of what it waits on."""
    for goroutine in goroutines:
        until(lambda goroutine=goroutine: state(goroutine) in WAITING)


def parked_elsewhere(pool: Any, channel: Any, number: int = 1) -> None:
    """Waits until so many goroutines of a pool's workers wait for a channel of this process."""

    def waiting() -> int:
        handles = [served._handle for worker in list(pool._all) for served in list(worker.peer._serving.values())]
        return sum(channel == case[0] for handle in handles if handle is not None for case in handle._cases)

    until(lambda: waiting() == number, 60)


def park_one_by_one(functions: Iterable[Callable[[], object]]) -> list[Goroutine[Any]]:
    """Starts goroutines such that each waits before the next one starts."""
    goroutines = []
    for function in functions:
        goroutines.append(go(function))
        parked(goroutines[-1])
    return goroutines


def results(goroutines: Iterable[Goroutine[Any]]) -> list[Any]:
    """What all of them returned."""
    return [goroutine.result(SECONDS) for goroutine in goroutines]


def churn() -> None:
    """Uses memory that was freed too early for something else."""
    for size in range(1, 60):
        for _ in range(20):
            exec("def f():\n    return [f]\n", {})
            bytearray(size * 16)
            type("T", (), {})


def start_child(code: str, *, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts a Python program in a process of its own, with warnings as errors."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "faulthandler", "-c", textwrap.dedent(code)],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def kill_all(process: subprocess.Popen[str]) -> None:
    """Kills a child and its children, which would keep its pipes open."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run_child(code: str, *, env: dict[str, str] | None = None, seconds: float = 50) -> subprocess.CompletedProcess[str]:
    """Runs a Python program in a process of its own to its end."""
    with start_child(code, env=env) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except BaseException as error:
            kill_all(process)
            out, err = process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise AssertionError(f"no end after {seconds} s\n{out}\n{err}") from None
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def check_child(code: str, *, env: dict[str, str] | None = None, seconds: float = 50) -> str:
    """Runs a program that must end well and write nothing to stderr; returns what it printed."""
    done = run_child(code, env=env, seconds=seconds)
    assert (done.returncode, done.stderr) == (0, ""), f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
