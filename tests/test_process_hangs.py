"""Workers that do not answer: stopped, in C code that keeps the GIL, and those whose parent is gone."""

from __future__ import annotations

import contextlib
import itertools
import os
import select as system
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from goslings import chan
from goslings.processes import Processes, WorkerDied, WorkerStats, _spawn
from goslings.processes._heart import Heart, answer
from helpers import until

SECONDS = 60.0
GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
LIMIT = 1.0


def keep_gil() -> None:
    """A C loop without end that never lets go of the GIL."""
    sum(itertools.repeat(0))


def loop() -> None:
    while True:
        pass


@pytest.fixture(params=["spawn", "forkserver"])
def watched(request: pytest.FixtureRequest) -> Iterator[Processes]:
    with Processes(2, start=request.param, hang_timeout=LIMIT) as workers:
        yield workers


def victim(workers: Processes, goroutine_runs: Any) -> Any:
    """The worker that has a call."""
    goroutine_runs.recv(SECONDS)
    return next(worker for worker in workers._workers if worker.calls)


def test_a_stopped_worker_is_killed_and_its_goroutines_hear_of_it(watched: Processes) -> None:
    runs, never = chan[int](2), chan[int]()

    def wait() -> None:
        runs.send(1)
        never.recv()

    goroutine = watched.go(wait)
    worker = victim(watched, runs)
    os.kill(worker.process.pid, signal.SIGSTOP)
    until(lambda: worker.heart.silent > 0, SECONDS)
    with pytest.raises(WorkerDied, match=rf"worker {worker.process.pid} was killed: it did not answer for \d+\.\d s"):
        goroutine.result(SECONDS)
    assert watched.go(abs, -1).result(SECONDS) == 1
    until(lambda: [worker.state for worker in watched.stats()] == ["ready", "ready"], SECONDS)


@pytest.mark.skipif(not GIL, reason="without a GIL no C code can keep it")
def test_c_code_that_keeps_the_gil_is_a_hang(watched: Processes) -> None:
    goroutine = watched.go(keep_gil)
    with pytest.raises(WorkerDied, match="did not answer"):
        goroutine.result(SECONDS)


def test_a_stopped_worker_whose_channel_is_waited_for_is_killed() -> None:
    """It has no call any more."""
    with Processes(1, hang_timeout=LIMIT) as workers:
        made = workers.go(lambda: chan(1)).result(SECONDS)
        (worker,) = workers._workers
        until(lambda: worker.heart.answered, SECONDS)
        os.kill(worker.process.pid, signal.SIGSTOP)
        with pytest.raises(WorkerDied, match="did not answer"):
            made.recv(timeout=SECONDS)


@pytest.mark.parametrize("busy", [loop, lambda: time.sleep(600)])
def test_who_computes_or_waits_answers(busy: Callable[[], None]) -> None:
    with Processes(1, hang_timeout=2.0) as workers:
        runs = chan[int](1)

        def run() -> None:
            runs.send(1)
            busy()

        goroutine = workers.go(run)
        heart = victim(workers, runs).heart
        for _ in range(3):
            heart.answered = False
            until(lambda: heart.answered, SECONDS)
        assert not goroutine.done()
        workers.kill()
        with pytest.raises(WorkerDied, match="SIGKILL"):
            goroutine.result(SECONDS)


def test_nobody_is_killed_without_being_asked_to() -> None:
    with Processes(1) as workers:
        runs = chan[int](1)
        goroutine = workers.go(lambda: runs.send(1))
        goroutine.result(SECONDS)
        (worker,) = workers._workers
        assert worker.heart is None
        assert workers.stats() == [WorkerStats(worker.process.pid, "ready", 0, 1, 0.0)]
        assert repr(workers) == "<Processes (1 workers, open)>"


def test_a_silent_worker_is_seen() -> None:
    with Processes(1, hang_timeout=600.0) as workers:
        runs, never = chan[int](1), chan[int]()

        def wait() -> None:
            runs.send(1)
            never.recv()

        goroutine = workers.go(wait)
        worker = victim(workers, runs)
        os.kill(worker.process.pid, signal.SIGSTOP)
        until(lambda: worker.heart.silent > 0, SECONDS)
        assert f", {worker.process.pid} silent for " in repr(workers)
        assert workers.stats()[0].silent > 0
        os.kill(worker.process.pid, signal.SIGCONT)
        until(lambda: worker.heart.silent == 0, SECONDS)
        never.send(1)
        goroutine.result(SECONDS)
        assert "silent" not in repr(workers)


def test_a_worker_that_stops_while_it_starts_is_killed() -> None:
    with Processes(1, hang_timeout=LIMIT) as workers:
        workers.go(abs, 1).result(SECONDS)
        (worker,) = workers._workers
        os.kill(worker.process.pid, signal.SIGSTOP)
        worker.heart.answered = False  # as if it had never: it is asked without having calls, and has more time
        until(lambda: worker.heart.silent > 0, SECONDS)
        worker.heart.silent = 60.0
        until(lambda: worker.fate, SECONDS)
        assert "did not answer" in worker.fate
        until(lambda: [worker.state for worker in workers.stats()] == ["ready"], SECONDS)


def test_seconds_without_a_look_do_not_count() -> None:
    heart = Heart()
    try:
        assert heart.look(1, True) == 0
        assert heart.look(0.5, True) == 0.5
        assert heart.look(0.5, False) == 1.0
        assert not heart.answered
        answer(os.dup(heart.theirs))
        until(lambda: heart.look(0, False) == 0, SECONDS)
        assert heart.answered
        assert heart.look(100, False) == 0, "nothing was asked"
    finally:
        heart.close()


@pytest.mark.parametrize("wrong", [0, -1, float("nan")])
def test_a_limit_that_makes_no_sense(wrong: float) -> None:
    with pytest.raises(ValueError, match="hang_timeout must be more than 0 seconds"):
        Processes(1, hang_timeout=wrong)


def test_a_fork_server_that_hangs_or_dies_is_replaced() -> None:
    with Processes(1, start="forkserver") as workers:
        workers.go(abs, 1).result(SECONDS)
        server = workers._server
        assert server is not None
        goroutine = workers.go(time.sleep, 600)
        server._process.kill()
        with pytest.raises(WorkerDied, match="SIGKILL"):
            goroutine.result(SECONDS)
        assert workers.go(abs, -1).result(SECONDS) == 1
        assert workers._server is not server
        assert server._process.poll() == -signal.SIGKILL


def test_a_pool_is_closed_although_its_fork_server_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("goslings.processes._spawn._FORK_SECONDS", 0.5)
    with Processes(1, start="forkserver") as workers:
        workers.go(abs, 1).result(SECONDS)
        assert workers._server is not None
        os.kill(workers._server._process.pid, signal.SIGSTOP)


def test_a_fork_server_that_stops_before_it_forks_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call that waited for the worker hears of it."""
    monkeypatch.setattr("goslings.processes._spawn._FORK_SECONDS", 0.5)
    with Processes(1, start="forkserver") as workers:
        server = workers._server
        assert server is not None
        os.kill(server._process.pid, signal.SIGSTOP)  # it has not imported anything yet
        goroutine = workers.go(abs, -1)
        with pytest.raises(WorkerDied, match="SIGKILL"):
            goroutine.result(SECONDS)
        assert workers.go(abs, -1).result(SECONDS) == 1
        assert workers._server is not server


def test_a_worker_of_which_a_dead_server_has_not_told_is_ended() -> None:
    """It runs, and nobody knows its process."""
    with Processes(1, start="forkserver") as workers:
        runs = chan[int](1)

        def run() -> None:
            runs.send(os.getpid())
            loop()

        goroutine = workers.go(run)
        pid = runs.recv(SECONDS)
        (worker,) = workers._workers
        lives = os.pidfd_open(pid)
        try:
            forked, server = worker.process, workers._server
            assert isinstance(forked, _spawn.Forked) and server is not None
            until(lambda: forked.pid, SECONDS)
            os.close(forked._pidfd)
            forked._pidfd, forked.pid = -1, 0  # as if it had not told
            server.kill()
            until(lambda: forked.is_unknown, SECONDS)
            assert not goroutine.done()
            worker.kill("the test")
            with pytest.raises(WorkerDied, match="the test"):
                goroutine.result(SECONDS)
            assert system.select([lives], [], [], SECONDS)[0], "it has not ended"
        finally:
            os.close(lives)


ORPHANS = """
import itertools, os, signal, sys, time
from goslings import chan, go
from goslings.processes import Processes

def loop():
    while True:
        pass

def main():
    runs = chan(8)
    workers = Processes(4, start=sys.argv[1])
    def run(what):
        runs.send(os.getpid())
        what()
    for what in (loop, lambda: sum(itertools.repeat(0)), lambda: time.sleep(600), lambda: chan().recv()):
        workers.go(run, what)
    pids = {runs.recv(60) for _ in range(4)}
    assert len(pids) == 4
    if workers._server is not None:
        pids.add(workers._server._process.pid)
    print(*pids, flush=True)
    time.sleep(600)

main()
"""


def is_stopped(pid: int) -> bool:
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] in "TZ" for stat in stats)


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_workers_end_with_a_killed_parent_whatever_they_do(start: str, stopped: bool) -> None:
    with contextlib.ExitStack() as open_things:
        parent = open_things.enter_context(
            subprocess.Popen([sys.executable, "-c", ORPHANS, start], stdout=subprocess.PIPE, text=True)
        )
        open_things.callback(parent.kill)
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == (5 if start == "forkserver" else 4)
        left = {}
        for pid in pids:
            left[pid] = os.pidfd_open(pid)
            open_things.callback(os.close, left[pid])
            if stopped:
                os.kill(pid, signal.SIGSTOP)
                until(lambda pid=pid: is_stopped(pid), SECONDS)
        parent.kill()
        parent.wait()

        def ended() -> bool:
            poll = system.poll()
            for fd in left.values():
                poll.register(fd, system.POLLIN)
            return len(poll.poll(0)) == len(left)

        try:
            until(ended, SECONDS)
        finally:
            for fd in left.values():
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
