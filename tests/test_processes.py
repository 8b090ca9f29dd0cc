"""goslings.processes.Processes: goroutines in worker processes."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import goslings
import pytest
from goslings import Cancelled, chan, go
from goslings.processes import Processes, WorkerDied
from helpers import check_child, parked, run_child, start_child, until

SECONDS = 60.0
"""How long an answer of another process may take: far more than it needs."""


@pytest.fixture(scope="module")
def workers() -> Iterator[Processes]:
    with Processes(2) as pool:
        yield pool


class Odd(Exception):
    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{text} {number}")
        self.number = number


def failing(number: int) -> None:
    raise LookupError(f"no {number}")


def test_a_call_runs_elsewhere_and_its_result_comes_back(workers: Processes) -> None:
    pid = workers.go(os.getpid).result(SECONDS)
    assert pid != os.getpid()
    assert pid in workers.pids


def test_go_returns_a_real_goroutine(workers: Processes) -> None:
    goroutine = workers.go(divmod, 7, 2)
    assert isinstance(goroutine, goslings.Goroutine)
    assert goroutine.name == "divmod"
    assert goroutine.join(SECONDS)
    assert goroutine.done() and not goroutine.cancelled()
    assert goroutine.result() == (3, 1)


def test_arguments_travel_by_position_and_by_name(workers: Processes) -> None:
    assert workers.go(lambda a, *b, c=0, **d: (a, b, c, d), 1, 2, 3, c=4, d=5).result(SECONDS) == (
        1,
        (2, 3),
        4,
        {"d": 5},
    )


def test_closures_and_lambdas_travel(workers: Processes) -> None:
    base = 40

    def add(x: int) -> int:
        return base + x

    assert workers.go(add, 2).result(SECONDS) == 42
    assert workers.go(lambda f: f(2), add).result(SECONDS) == 42


def test_functions_and_classes_of_main_travel() -> None:
    assert (
        check_child("""
        from goslings.processes import Processes

        class Point:
            def __init__(self, x): self.x = x

        def moved(point): return Point(point.x + 1)

        with Processes(1) as workers:
            answer = workers.go(moved, Point(1)).result(60)
            print(type(answer) is Point, answer.x)
        """)
        == "True 2\n"
    )


def test_a_worker_runs_many_goroutines_at_once(workers: Processes) -> None:
    gate, arrived = chan[None](), chan[int]()

    def wait(number: int) -> int:
        arrived.send(number)
        gate.recv_ok()
        return number

    goroutines = [workers.go(wait, number) for number in range(20)]
    assert sorted(arrived.recv(SECONDS) for _ in goroutines) == list(range(20))
    gate.close()
    assert [goroutine.result(SECONDS) for goroutine in goroutines] == list(range(20))


def test_goroutines_there_are_goroutines(workers: Processes) -> None:
    def there() -> tuple[str, int]:
        goroutine = goslings.current()
        assert goroutine is not None
        local = goslings.chan[int]()
        goslings.go(local.send, 5)
        return type(goroutine).__name__, local.recv()

    name, value = workers.go(there).result(SECONDS)
    assert (name, value) == ("Goroutine", 5)


def test_an_exception_comes_back_with_the_traceback_there(workers: Processes) -> None:
    with pytest.raises(LookupError, match="no 3") as caught:
        workers.go(failing, 3).result(SECONDS)
    assert 'raise LookupError(f"no {number}")' in str(caught.value.__cause__)


def test_an_exception_that_cannot_be_rebuilt_is_told(workers: Processes) -> None:
    def fail() -> None:
        raise Odd(3, "odd")

    with pytest.raises(RuntimeError, match=r"Odd: odd 3 \(the exception itself could not be rebuilt") as caught:
        workers.go(fail).result(SECONDS)
    assert "raise Odd" in str(caught.value.__cause__)


def test_an_exception_that_cannot_be_pickled_is_told(workers: Processes) -> None:
    def fail() -> None:
        import threading

        raise ValueError("with a lock", threading.Lock())

    with pytest.raises(
        RuntimeError, match=r"ValueError: .*with a lock.*could not travel: exception .args\[1\]: cannot"
    ):
        workers.go(fail).result(SECONDS)


def test_system_exit_there_is_an_exception_here(workers: Processes) -> None:
    with pytest.raises(SystemExit):
        workers.go(sys.exit, 3).result(SECONDS)
    assert workers.go(abs, -1).result(SECONDS) == 1


def test_goexit_there_ends_the_goroutine_only(workers: Processes) -> None:
    assert workers.go(goslings.goexit).result(SECONDS) is None


def test_async_functions_work(workers: Processes) -> None:
    async def twice(ch: Any) -> int:
        await goslings.asleep(0.001)
        value: int = await ch.arecv()
        return 2 * value

    numbers = chan[int]()
    goroutine = workers.go(twice, numbers)
    numbers.send(21, SECONDS)
    assert goroutine.result(SECONDS) == 42


def test_cancel_cancels_the_goroutine_there(workers: Processes) -> None:
    told, never = chan[str](1), chan[int]()

    def wait() -> None:
        told.send("waits")
        try:
            never.recv()
        except BaseException as error:
            told.send(f"{type(error).__name__} {error}")
            raise

    goroutine = workers.go(wait)
    assert told.recv(SECONDS) == "waits"
    parked(goroutine)
    assert goroutine.cancel("enough")
    assert told.recv(SECONDS) == "Cancelled enough"
    with pytest.raises(concurrent.futures.CancelledError, match="enough"):
        goroutine.result(SECONDS)
    assert goroutine.cancelled()


def test_a_goroutine_that_catches_its_cancellation_may_still_answer(workers: Processes) -> None:
    told, never = chan[str](1), chan[int]()

    def stubborn() -> str:
        told.send("waits")
        try:
            never.recv()
        except Cancelled:
            return "no"
        return "never"

    goroutine = workers.go(stubborn)
    told.recv(SECONDS)
    parked(goroutine)
    goroutine.cancel()
    assert goroutine.result(SECONDS) == "no"


def test_a_second_cancel_is_passed_on(workers: Processes) -> None:
    told, never = chan[str](1), chan[int]()

    def stubborn() -> None:
        for text in ("one", "two"):
            told.send(text)
            try:
                never.recv()
            except Cancelled:
                continue

    goroutine = workers.go(stubborn)
    assert told.recv(SECONDS) == "one"
    parked(goroutine)
    goroutine.cancel()
    assert told.recv(SECONDS) == "two"
    goroutine.cancel()
    assert goroutine.join(SECONDS)


def test_many_calls_are_spread_over_the_workers(workers: Processes) -> None:
    gate, pids = chan[None](), chan[int](8)

    def wait() -> None:
        pids.send(os.getpid())
        gate.recv_ok()

    goroutines = [workers.go(wait) for _ in range(4)]
    found = [pids.recv(SECONDS) for _ in goroutines]
    assert sorted(found.count(pid) for pid in set(found)) == [2, 2]
    gate.close()
    for goroutine in goroutines:
        goroutine.result(SECONDS)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"config": {"lock": "LOCK"}}, r"arg 0\['config'\]\['lock'\]: cannot pickle"),
        ([1, ("LOCK",)], r"arg 0\[1\]\[0\]: cannot pickle"),
    ],
)
def test_what_cannot_be_pickled_is_named(workers: Processes, value: Any, place: str) -> None:
    import threading

    def put(part: Any) -> Any:
        if part == "LOCK":
            return threading.Lock()
        if isinstance(part, dict):
            return {key: put(item) for key, item in part.items()}
        return type(part)(map(put, part)) if isinstance(part, list | tuple) else part

    with pytest.raises(TypeError, match=place):
        workers.go(print, put(value))


def test_what_cannot_be_pickled_is_named_in_objects_closures_and_results(workers: Processes) -> None:
    import threading
    import types

    thing = types.SimpleNamespace(config={"lock": threading.Lock()})
    with pytest.raises(TypeError, match=r"arg 0 \.config\['lock'\]: cannot pickle"):
        workers.go(print, thing)
    with pytest.raises(TypeError, match=r"arg end\.config\['lock'\]: cannot pickle|arg end \.config\['lock'\]: cannot"):
        workers.go(print, end=thing)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"function closure thing\.config\['lock'\]: cannot pickle"):
        workers.go(lambda: thing)
    with pytest.raises(TypeError, match=r"result\['a'\]: cannot pickle"):
        workers.go(lambda: {"a": threading.Lock()}).result(SECONDS)
    assert workers.go(abs, -1).result(SECONDS) == 1


def test_wrong_use_is_an_error_at_the_culprit(workers: Processes) -> None:
    with pytest.raises(TypeError, match="go needs a callable, not int"):
        workers.go(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n must be at least 1"):
        Processes(0)
    with pytest.raises(ValueError, match="max_tasks must be at least 1"):
        Processes(1, max_tasks=0)
    with pytest.raises(ValueError, match='start must be "spawn" or "forkserver", not'):
        Processes(1, start="fork")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="initializer must be callable"):
        Processes(1, initializer=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 1000, 70_000, 3_000_000])
def test_bytes_of_every_size_travel(workers: Processes, size: int) -> None:
    data = os.urandom(size)
    assert workers.go(lambda: data).result(SECONDS) == data
    assert workers.go(bytes, bytearray(data)).result(SECONDS) == data
    assert workers.go(str, "ä" * size).result(SECONDS) == "ä" * size


def test_arrays_travel_and_are_read_only(workers: Processes) -> None:
    numpy = pytest.importorskip("numpy", reason="there is no NumPy for this interpreter")
    array = numpy.arange(500_000.0).reshape(500, 1000)

    def there(array: Any) -> Any:
        return array.flags.writeable, float(array.sum()), array.T

    writable, total, back = workers.go(there, array).result(SECONDS)
    assert (writable, total) == (False, array.sum())
    assert numpy.array_equal(back, array.T) and not back.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        back[0, 0] = 1


def test_arrays_are_writable_if_asked() -> None:
    numpy = pytest.importorskip("numpy", reason="there is no NumPy for this interpreter")

    def there(array: Any) -> Any:
        array += 1
        return array

    with Processes(1, writable=True) as workers:
        array = numpy.zeros(200_000)
        back = workers.go(there, array).result(SECONDS)
        back += 1
        assert (array.max(), back.min()) == (0, 2)


def test_the_pool_closes_at_the_end_of_its_block() -> None:
    with Processes(1) as workers:
        goroutine = workers.go(lambda: goslings.sleep(0.05))
        (pid,) = workers.pids
    assert goroutine.done()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="was closed"):
        workers.go(print)
    workers.close()


def test_an_exception_in_the_block_cancels_the_goroutines() -> None:
    with pytest.raises(KeyError, match="own"), Processes(1) as workers:
        never = chan[int]()
        goroutine = workers.go(never.recv)
        raise KeyError("own")
    assert goroutine.cancelled()


def test_close_gives_up_after_its_timeout() -> None:
    with Processes(1) as workers:
        gate = chan[None]()
        goroutine = workers.go(gate.recv_ok)
        with pytest.raises(TimeoutError, match="close timed out"):
            workers.close(0.01)
        gate.close()
        assert goroutine.result(SECONDS) == (None, False)


def test_it_closes_in_async_code() -> None:
    import asyncio

    async def main() -> int:
        async with Processes(1) as workers:
            return await workers.go(abs, -3)

    assert asyncio.run(main()) == 3


def test_the_initializer_runs_first_in_each_worker() -> None:
    def prepare(word: str) -> None:
        os.environ["GOSLINGS_TEST_WORD"] = word

    with Processes(2, initializer=prepare, initargs=("hello",)) as workers:
        words = [workers.go(os.getenv, "GOSLINGS_TEST_WORD") for _ in range(4)]
        assert {word.result(SECONDS) for word in words} == {"hello"}


def test_an_initializer_that_fails_breaks_the_pool() -> None:
    with Processes(1, initializer=failing, initargs=(7,)) as workers:
        goroutine = workers.go(abs, 1)
        with pytest.raises(WorkerDied):
            goroutine.result(SECONDS)
        until(lambda: "broken" in repr(workers))
        with pytest.raises(WorkerDied, match="no worker can be started: .*no 7") as caught:
            workers.go(abs, 1)
        assert isinstance(caught.value.__cause__, LookupError)


def test_workers_are_replaced_after_max_tasks() -> None:
    with Processes(1, max_tasks=2) as workers:
        pids = [workers.go(os.getpid).result(SECONDS) for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


def test_a_worker_that_is_replaced_finishes_its_goroutines() -> None:
    with Processes(1, max_tasks=1) as workers:
        gate = chan[None]()
        first = workers.go(gate.recv_ok)
        assert workers.go(abs, -1).result(SECONDS) == 1
        gate.close()
        assert first.result(SECONDS) == (None, False)


def test_workers_of_a_fork_server() -> None:
    with Processes(2, start="forkserver") as workers:
        parents = {workers.go(os.getppid).result(SECONDS) for _ in range(4)}
        assert len(parents) == 1 and os.getpid() not in parents
        doomed = workers.go(lambda: (os.kill(os.getpid(), signal.SIGSEGV), time.sleep(60)))
        with pytest.raises(WorkerDied, match="was killed by SIGSEGV"):
            doomed.result(SECONDS)
        doomed = workers.go(os._exit, 5)
        with pytest.raises(WorkerDied, match="exited with status 5"):
            doomed.result(SECONDS)
        assert workers.go(lambda x: x + 1, 1).result(SECONDS) == 2


def test_a_pool_in_a_worker(workers: Processes) -> None:
    def nested() -> int:
        with Processes(1) as inner:
            numbers = chan[int](3)
            inner.go(lambda: [numbers.send(n) for n in range(3)]).result()
            return sum(numbers.recv() for _ in range(3))

    assert workers.go(nested).result(SECONDS) == 3


def test_what_workers_print_comes_out_and_they_inherit_the_environment() -> None:
    out = check_child(
        """
        import os
        from goslings.processes import Processes
        with Processes(1) as workers:
            workers.go(lambda: print("from there", os.environ["GOSLINGS_TEST_WORD"])).result(60)
        """,
        env={"GOSLINGS_TEST_WORD": "said"},
    )
    assert out == "from there said\n"


def test_a_program_may_end_without_closing() -> None:
    out = check_child("""
        from goslings.processes import Processes
        workers = Processes(1)
        print(workers.go(abs, -2).result(60))
    """)
    assert out == "2\n"


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_a_program_may_end_before_its_workers_have_started(start: str) -> None:
    """They see that nobody is there, and say nothing."""
    out = check_child(f"""
        from goslings.processes import Processes
        print(len(Processes(2, start={start!r}).pids))
    """)
    assert out == "2\n"


def test_ctrl_c_ends_the_program_and_its_workers(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with start_child(
        f"""
        import goslings, os, pathlib
        from goslings.processes import Processes
        with Processes(2) as workers:
            never = goslings.chan()
            waiting = [workers.go(never.recv) for _ in range(4)]
            pids = workers.pids
            workers.go(abs, 1).result(60)
            ready = pathlib.Path({str(ready)!r})
            ready.with_suffix(".new").write_text(" ".join(map(str, pids)))
            ready.with_suffix(".new").rename(ready)
            never.recv()
        """
    ) as child:
        until(ready.exists, SECONDS)
        os.killpg(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=SECONDS)
    assert err.rstrip().endswith("KeyboardInterrupt") and err.count("Traceback") == 1, err
    for pid in map(int, ready.read_text().split()):
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), SECONDS)


def test_workers_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with start_child(
        f"""
        import pathlib, time
        from goslings.processes import Processes
        workers = Processes(2)
        busy = [workers.go(time.sleep, 1000), workers.go(lambda: [None for _ in iter(int, 1)])]
        ready = pathlib.Path({str(ready)!r})
        ready.with_suffix(".new").write_text(" ".join(map(str, workers.pids)))
        ready.with_suffix(".new").rename(ready)
        time.sleep(1000)
        """
    ) as child:
        until(ready.exists, SECONDS)
        pids = [int(pid) for pid in ready.read_text().split()]
        os.kill(child.pid, signal.SIGKILL)
        child.wait(SECONDS)
        for pid in pids:
            until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), SECONDS)


def test_a_forked_child_does_not_keep_workers(tmp_path: Path) -> None:
    done = run_child("""
        import os, sys, warnings
        from goslings.processes import Processes
        warnings.simplefilter("ignore")
        with Processes(1) as workers:
            workers.go(abs, 1).result(60)
            pid = os.fork()
            if pid == 0:
                try:
                    workers.go(abs, 1)
                except Exception as error:
                    print(type(error).__name__)
                sys.stdout.flush()
                os._exit(0)
            os.waitpid(pid, 0)
            print(workers.go(abs, -4).result(60))
    """)
    assert done.stdout.split()[-1] == "4", done


def test_deadlocks_are_not_reported_while_a_worker_may_send(workers: Processes) -> None:
    late = chan[int]()

    def send_late() -> None:
        goslings.sleep(0.3)
        late.send(1)

    workers.go(send_late)
    assert late.recv(SECONDS) == 1


def test_calls_from_many_goroutines_at_once(workers: Processes) -> None:
    def some(base: int) -> list[int]:
        return [workers.go(lambda x: x + 1, base + n).result(SECONDS) for n in range(5)]

    goroutines = [go(some, 10 * k) for k in range(6)]
    for k, goroutine in enumerate(goroutines):
        assert goroutine.result(SECONDS) == [10 * k + n + 1 for n in range(5)]


def test_a_goroutine_cancelled_at_once_is_cancelled_there(workers: Processes) -> None:
    never = chan[int]()
    for _ in range(5):
        goroutine = workers.go(never.recv)
        goroutine.cancel()
        assert goroutine.join(SECONDS) and goroutine.cancelled()
    until(lambda: not any(worker.calls for worker in workers._workers), SECONDS)


def test_whoever_has_nothing_to_do_uses_no_processor(workers: Processes) -> None:
    numbers = chan[int]()
    # Back and forth first, so that both sides have a reason to look for the next message.
    receiver = workers.go(lambda: [numbers.recv() for _ in range(200)])
    for number in range(200):
        numbers.send(number)
    assert receiver.result(SECONDS) == list(range(200))
    waiting = workers.go(numbers.recv)

    def idle(seconds: float) -> float:
        before = time.process_time()
        goslings.sleep(seconds)
        return time.process_time() - before

    there = workers.go(idle, 1.0)
    here = idle(1.0)
    assert here < 0.2 and there.result(SECONDS) < 0.2
    numbers.send(1)
    assert waiting.result(SECONDS) == 1
