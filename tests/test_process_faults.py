"""What happens to processes when things go wrong: deaths, garbage, storms of both."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import re
import signal
import subprocess
import sys
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import goslings
import pytest
from goslings import chan, go, recv, select
from goslings.processes import Processes, WorkerDied
from helpers import count, parked_elsewhere, until

SECONDS = 60.0


@pytest.fixture(scope="module")
def workers() -> Iterator[Processes]:
    with Processes(2) as pool:
        yield pool


def segments() -> int:
    """Memory of several processes that this one has open or mapped."""
    found = 0
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found += "memfd:" in os.readlink(fd)
        except OSError:
            continue
    return found


def die(how: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), how)
    time.sleep(60)


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (lambda: os._exit(7), "exited with status 7"),
        (lambda: die(signal.SIGKILL), "was killed by SIGKILL"),
        (lambda: die(signal.SIGTERM), "was killed by SIGTERM"),
    ],
)
def test_a_worker_that_dies_is_told_and_replaced(workers: Processes, end: Any, told: str) -> None:
    with pytest.raises(WorkerDied, match=rf"worker \d+ {told}"):
        workers.go(end).result(SECONDS)
    assert workers.go(abs, -1).result(SECONDS) == 1
    until(lambda: len(workers.pids) == 2, SECONDS)


def test_all_goroutines_of_a_dead_worker_fail() -> None:
    with Processes(1) as workers:
        ready, never = chan[None](), chan[int]()

        def wait() -> None:
            ready.send(None)
            never.recv()

        waiting = [workers.go(wait) for _ in range(5)]
        for _ in waiting:
            ready.recv(SECONDS)
        os.kill(workers.pids[0], signal.SIGKILL)
        for goroutine in waiting:
            with pytest.raises(WorkerDied, match="SIGKILL"):
                goroutine.result(SECONDS)
        never.try_send(1)
        assert len(never) == 0, "their waits have vanished"


def test_a_worker_that_closes_its_link_is_ended(workers: Processes) -> None:
    def hang_up() -> None:
        from goslings.processes import _peer

        for peer in list(_peer._peers.values()):
            peer.close()

    with pytest.raises(WorkerDied, match=r"worker \d+ (was ended: it has closed its link|exited)"):
        workers.go(hang_up).result(SECONDS)
    assert workers.go(abs, -1).result(SECONDS) == 1


def test_garbage_on_a_link_ends_the_worker(workers: Processes) -> None:
    def lie() -> None:
        from goslings.processes import _peer

        for peer in list(_peer._peers.values()):
            peer._link.send([os.urandom(100)])
        time.sleep(60)

    with pytest.raises(WorkerDied, match="garbage on its link"):
        workers.go(lie).result(SECONDS)
    assert workers.go(abs, -1).result(SECONDS) == 1


def test_waits_of_the_dead_vanish(workers: Processes) -> None:
    numbers, asked = chan[int](), chan[int](2)

    def wait() -> None:
        asked.send(os.getpid())
        numbers.recv()

    def offer() -> None:
        asked.send(os.getpid())
        numbers.send(1)

    for function in (wait, offer):
        goroutine = workers.go(function)
        pid = asked.recv(SECONDS)
        parked_elsewhere(workers, numbers)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            goroutine.result(SECONDS)
        assert select(recv(numbers), goslings.send(numbers, 5), timeout=0) is None


def is_stopped(pid: int) -> bool:
    """Whether every thread of the process stands still: one that runs elsewhere does not stop within the call."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def test_what_was_on_its_way_to_the_dead_goes_back(workers: Processes) -> None:
    """The worker is stopped, so that the value is answered to it and never taken."""
    numbers, asked = chan[int](3), chan[int](1)

    def take() -> None:
        asked.send(os.getpid())
        numbers.recv()

    goroutine = workers.go(take)
    pid = asked.recv(SECONDS)
    parked_elsewhere(workers, numbers)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: is_stopped(pid), SECONDS)
    for number in range(3):
        numbers.send(number)
    until(lambda: len(numbers) == 2, SECONDS)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied):
        goroutine.result(SECONDS)
    assert [numbers.recv(SECONDS) for _ in range(3)] == [0, 1, 2]


def test_a_channel_of_a_dead_worker_says_so() -> None:
    with Processes(1) as workers:
        made = workers.go(lambda: goslings.chan(1)).result(SECONDS)
        assert made.try_send(1)
        waiting = go(lambda: made.send(2))
        until(lambda: workers._workers[0].peer._operations, SECONDS)
        os.kill(workers.pids[0], signal.SIGKILL)
        with pytest.raises(WorkerDied, match="SIGKILL"):
            waiting.result(SECONDS)
        for call in (made.recv, lambda: made.try_send(3), lambda: len(made), made.close):
            with pytest.raises(WorkerDied, match="SIGKILL"):
                call()
        local = chan[int](1)
        local.send(5)
        with pytest.raises(WorkerDied):
            select(recv(made), timeout=SECONDS)


def test_a_dead_worker_s_channel_in_another_worker() -> None:
    with Processes(2) as workers:
        made, pid = workers.go(lambda: (goslings.chan(), os.getpid())).result(SECONDS)
        os.kill(pid, signal.SIGKILL)
        until(lambda: made._origin.peer.dead is not None, SECONDS)

        def use() -> str:
            try:
                made.recv()
            except WorkerDied as error:
                return str(error)
            return "received"

        assert "SIGKILL" in workers.go(use).result(SECONDS)


def test_workers_that_never_start_break_the_pool(tmp_path: Path) -> None:
    with Processes(1, initializer=os._exit, initargs=(9,)) as workers:
        with pytest.raises(WorkerDied, match="exited with status 9"):
            for _ in range(50):
                workers.go(abs, 1).result(SECONDS)
        until(lambda: "broken" in repr(workers), SECONDS)
        with pytest.raises(WorkerDied, match="no worker can be started: .*status 9"):
            workers.go(abs, 1)


def test_a_dead_initializer_s_child_is_not_waited_for_at_close() -> None:
    pool = Processes(1)
    hung = pool.go(lambda: [None for _ in iter(int, 1)])
    pool.go(abs, 1).result(SECONDS)
    pool.kill()
    with pytest.raises(WorkerDied):
        hung.result(SECONDS)


def test_nothing_is_left_open_after_a_pool() -> None:
    with Processes(1) as workers:
        workers.go(abs, 1).result(SECONDS)
    before, memory = len(os.listdir("/proc/self/fd")), segments()
    for _ in range(3):
        with Processes(1) as workers:
            data = bytes(1_000_000)
            assert workers.go(len, data).result(SECONDS) == len(data)
            doomed = workers.go(die)
            with pytest.raises(WorkerDied):
                doomed.result(SECONDS)
    del workers, doomed

    def left() -> tuple[int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), segments()

    until(lambda: left() <= (before, memory), SECONDS)


def held_open() -> Counter[str]:
    """What is open and mapped that belongs to links with processes."""
    found: Counter[str] = Counter()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found[re.sub(r"\d+", "", os.readlink(fd))] += 1
    with open("/proc/self/maps") as lines:
        for line in lines:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            found["ring"] += "memfd:" in line and end - start >= 1 << 16
    return Counter({what: found[what] for what in ("socket:[]", "anon_inode:[pidfd]", "pidfd:[]", "pipe:[]", "ring")})


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_what_belonged_to_the_dead_is_closed_when_they_are_reaped(start: Any) -> None:
    """Although the program still has all that had to do with them, and without the collector."""
    rounds = 6
    kept: list[Any] = []

    def hold(own: Any, values: Any, jobs: Any, large: Any) -> None:
        for number in range(40):
            values.send(number)
        large.send(bytes(200_000))
        own.send(goslings.chan(8))
        jobs.recv()
        jobs.recv()

    def one() -> None:
        own, values, jobs, large = chan[Any](2), chan[int](64), chan[int](1), chan[bytes](1)
        goroutine = workers.go(hold, own, values, jobs, large)
        jobs.send(1)
        theirs = own.recv(SECONDS)
        assert values.recv(SECONDS) == 0
        for number in range(8):
            theirs.send(number)
        pid = next(worker.pid for worker in workers.stats() if worker.calls)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied) as caught:
            goroutine.result(SECONDS)
        kept.append((goroutine, caught, own, theirs, values, jobs, large))
        until(lambda: [worker.state for worker in workers.stats()] == ["ready"], SECONDS)

    gc.collect()
    gc.disable()
    try:
        with Processes(1, start=start) as workers:
            until(lambda: [worker.state for worker in workers.stats()] == ["ready"], SECONDS)
            before = held_open()
            assert before["ring"] >= 2
            for _ in range(rounds):
                one()
            until(lambda: held_open() <= before, SECONDS)
    finally:
        gc.enable()


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="without a GIL the last reference may be known late, on a worker that sleeps",
)
def test_a_dead_worker_is_no_work_for_the_collector() -> None:
    """What was raised keeps no frame that keeps what was raised."""
    gc.collect()
    gc.disable()
    try:
        with Processes(1) as workers:
            for by_call in (True, False):
                workers.go(abs, 1).result(SECONDS)
                (worker,) = workers._workers
                left = weakref.ref(worker), weakref.ref(worker.peer)
                made = None if by_call else workers.go(lambda: goslings.chan()).result(SECONDS)
                goroutine = workers.go(time.sleep, 600) if made is None else go(made.recv)
                until(lambda worker=worker: worker.calls or worker.peer._operations, SECONDS)
                worker.process.kill()
                with pytest.raises(WorkerDied):
                    goroutine.result(SECONDS)
                del worker, goroutine, made
                until(lambda left=left: [ref() for ref in left] == [None, None], SECONDS)
    finally:
        gc.enable()


def children() -> set[int]:
    """Processes that this one has started and not reaped."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def test_a_worker_that_dies_while_the_pool_closes_is_not_replaced(rng: random.Random) -> None:
    before = children()
    for _ in range(count(8)):
        pool = Processes(2, start="forkserver")
        pool.go(abs, 1).result(SECONDS)
        victim = pool._workers[0].process
        killer = go(victim.kill)
        goslings.sleep(rng.choice([0, rng.random() * 0.005]))
        pool.close(SECONDS)
        killer.result(SECONDS)
        assert not pool.stats()
        assert children() <= before


def test_a_system_that_refuses_processes_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool goes on with those that it has, tells when there is none, and is whole again later."""
    from goslings.processes import _spawn

    with Processes(2) as workers:
        until(lambda: [worker.state for worker in workers.stats()] == ["ready"] * 2, SECONDS)
        first, second = workers._workers

        def refuse(fd: int, pair: int) -> None:
            raise OSError(11, "no more processes")

        with monkeypatch.context() as patched:
            patched.setattr(_spawn, "Spawned", refuse)
            first.process.kill()
            until(lambda: len(workers.stats()) == 1, SECONDS)
            assert workers.go(os.getpid).result(SECONDS) == second.process.pid
            second.process.kill()
            until(lambda: not workers.stats(), SECONDS)
            with pytest.raises(OSError, match="no more processes"):
                workers.go(abs, 1)
        # Each call tries again: the end of the second worker may be trying still, and in vain.
        until(lambda: workers.go(abs, -1).result(SECONDS) == len(workers._workers) - 1, SECONDS)
        until(lambda: [worker.state for worker in workers.stats()] == ["ready"] * 2, SECONDS)
    with monkeypatch.context() as patched:
        patched.setattr(_spawn, "Spawned", refuse)
        with pytest.raises(OSError, match="no more processes"):
            Processes(2)


def test_no_worker_gets_more_calls_than_max_tasks() -> None:
    with Processes(2, start="forkserver", max_tasks=3) as workers:
        groups = [go(lambda: [workers.go(os.getpid).result(SECONDS) for _ in range(4)]) for _ in range(6)]
        pids = Counter(pid for group in groups for pid in group.result(SECONDS))
    assert pids.total() == 24 and max(pids.values()) == 3, pids


def test_descriptors_of_a_result_that_nobody_wants_are_closed() -> None:
    from goslings._goslings import Segment
    from goslings.processes import _child

    segment = Segment(4096)
    with Processes(1) as workers:
        workers.go(abs, 1).result(SECONDS)
        (worker,) = workers._workers
        fd = os.dup(segment.fileno())
        assert isinstance(worker, _child.Child)
        worker._on_result([fd], 12345, True, None)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_storms_of_killed_workers_lose_and_double_nothing(rng: random.Random) -> None:
    """Workers move values from one channel to another and are killed at random.

    Each value has one owner at a time, so at the end it has come through, or it was in the hands of a goroutine that
    died: at most one each.
    """
    total, rounds = count(600), count(12)
    with Processes(2) as workers:
        source, sink = chan[int](5), chan[int](5)

        def move() -> None:
            for value in source:
                sink.send(value)

        def keep_moving() -> int:
            """Until a mover ends well; how many have died."""
            died = 0
            while True:
                try:
                    workers.go(move).result(SECONDS)
                    return died
                except WorkerDied:
                    died += 1

        def produce() -> None:
            for number in range(total):
                source.send(number, SECONDS)

        movers = [go(keep_moving) for _ in range(4)]
        producer = go(produce)
        got: list[int] = []
        consumer = go(lambda: got.extend(sink))
        for _ in range(rounds):
            goslings.sleep(rng.random() * 0.05)
            # Three that die before they are ready would break the pool.
            until(lambda: any(worker.ready for worker in workers._workers), SECONDS)
            ready = [worker for worker in workers._workers if worker.ready]
            if ready:
                rng.choice(ready).process.kill()
        producer.result(SECONDS)
        source.close()
        died = sum(mover.result(SECONDS) for mover in movers)
        sink.close()
        consumer.result(SECONDS)
    assert max(Counter(got).values()) == 1, "doubled"
    missing = set(range(total)) - set(got)
    assert len(missing) <= died, (missing, died)


def test_a_stream_that_is_killed_leaves_what_it_has_sent() -> None:
    with Processes(1) as workers:
        values, sent = chan[int](64), chan[int](1)

        def produce() -> None:
            for number in range(40):
                values.send(number)
            sent.send(40)
            time.sleep(60)

        goroutine = workers.go(produce)
        assert sent.recv(SECONDS) == 40
        os.kill(workers.pids[0], signal.SIGKILL)
        with pytest.raises(WorkerDied):
            goroutine.result(SECONDS)
        assert [values.recv(SECONDS) for _ in range(40)] == list(range(40))
        # And all of the buffer is free again.
        assert [values.try_send(number) for number in range(65)] == [True] * 64 + [False]


@pytest.mark.parametrize(("start", "rounds"), [("forkserver", 60), ("spawn", 12)])
def test_the_books_of_killed_workers_balance(start: str, rounds: int, rng: random.Random) -> None:
    """`bench/kills.py` checks values, streams, descriptors, memory and processes; here for a moment."""
    script = Path(__file__).parent.parent / "bench" / "kills.py"
    command = [sys.executable, str(script), "--rounds", str(count(rounds)), "--start", start]
    command += ["--seed", str(rng.randrange(1, 2**32))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count(rounds)} kills:" in done.stdout and not done.stderr, done.stdout + done.stderr
