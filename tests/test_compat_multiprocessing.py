"""`goslings.compat.multiprocessing`: what it adds to the standard library's. The rest is in CPython's own tests."""

from __future__ import annotations

import multiprocessing as std
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from queue import Empty, Full
from typing import Any

import pytest
from goslings import go
from goslings.compat import multiprocessing
from helpers import SECONDS, check_child, count, results, until, waits

DOCS = Path(__file__).resolve().parent.parent / "docs" / "multiprocessing.md"
READ = "net read"
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def one_worker_is_enough(one_worker: None) -> Iterator[None]:
    """Whoever would hold the worker instead of parking holds up the test."""
    yield


def square(n: int) -> int:
    return n * n


def fail(n: int) -> None:
    raise ValueError(n)


def pass_on(source: Any, target: Any) -> None:
    while (item := source.get(timeout=SECONDS)) is not None:
        target.put(item)


def take_and_die(queue: Any, taken: Any) -> None:
    queue.get(timeout=SECONDS)
    taken.release()
    queue.get(timeout=SECONDS)


def hold(lock: Any, held: Any, go_on: Any) -> None:
    with lock:
        held.set()
        go_on.wait(SECONDS)


def add(value: Any, lock: Any, times: int) -> None:
    for _ in range(times):
        with lock:
            value.value += 1


def test_the_names_are_those_of_the_library() -> None:
    ours = {name for name in dir(multiprocessing) if not name.startswith("_")}
    assert set(std.__all__) <= ours
    assert set(std.__all__) <= set(multiprocessing.__all__)
    assert multiprocessing.shared_memory.SharedMemory is not None
    assert multiprocessing.util is std.util


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_a_goroutine_that_waits_for_an_item_parks(kind: str) -> None:
    queue = getattr(SPAWN, kind)()
    getting = [waits(go(queue.get), READ) for _ in range(3)]
    for n in range(3):
        queue.put(n)
    assert sorted(results(getting)) == [0, 1, 2]
    assert queue.empty()
    queue.close()


def test_a_queue_is_bounded() -> None:
    queue = SPAWN.Queue(2)
    queue.put(1)
    queue.put(2)
    assert queue.full() and queue.qsize() == 2
    with pytest.raises(Full):
        queue.put(3, timeout=0.01)
    with pytest.raises(Full):
        queue.put_nowait(3)
    putting = waits(go(queue.put, 3), READ)  # a place is what it waits for
    assert [queue.get() for _ in range(3)] == [1, 2, 3]
    putting.result(SECONDS)
    with pytest.raises(Empty):
        queue.get(timeout=0.01)
    with pytest.raises(Empty):
        queue.get_nowait()


def test_putting_never_waits_and_keeps_the_order() -> None:
    """Far more than the system has room for, small and large."""
    queue = SPAWN.Queue()
    items = [bytes([n % 256]) * (100_000 if n % 50 == 0 else 1000) for n in range(count(1000))]
    for item in items:
        queue.put(item)
    assert queue.qsize() == len(items)
    assert [queue.get(timeout=SECONDS) for _ in items] == items
    queue.close()
    queue.join_thread()


def test_items_go_through_a_process_and_back() -> None:
    there, back = SPAWN.Queue(), SPAWN.Queue(5)
    process = SPAWN.Process(target=pass_on, args=(there, back))
    process.start()
    items = [b"x" * size for size in (0, 1, 1000, 32 * 1024 - 100, 40_000, 3_000_000)] * 5
    for item in items:
        there.put(item)
    there.put(None)
    assert [back.get(timeout=SECONDS) for _ in items] == items
    go(process.join).result(SECONDS)
    assert process.exitcode == 0


def test_what_was_put_is_sent_before_a_process_ends() -> None:
    said = check_child("""
        from goslings.compat import multiprocessing
        def put(queue):
            for n in range(3000):
                queue.put(bytes(1000))
        if __name__ == "__main__":
            context = multiprocessing.get_context("fork")
            queue = context.Queue()
            import warnings
            warnings.simplefilter("ignore")
            process = context.Process(target=put, args=(queue,))
            process.start()
            print(sum(len(queue.get(timeout=30)) for _ in range(3000)))
            process.join()
    """)
    assert said == "3000000\n"


def test_a_process_that_is_killed_leaves_a_queue_usable() -> None:
    """In the middle of `get`: the standard library's queue has a lock then that nobody opens."""
    queue, taken = SPAWN.Queue(), SPAWN.Semaphore(0)
    process = SPAWN.Process(target=take_and_die, args=(queue, taken))
    process.start()
    queue.put(1)
    assert taken.acquire(timeout=SECONDS)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    queue.put(2)
    assert go(queue.get, True, SECONDS).result(SECONDS) == 2


def test_what_cannot_be_pickled_is_told_and_takes_no_place(capfd: pytest.CaptureFixture[str]) -> None:
    import threading

    queue = SPAWN.Queue(1)
    queue.put(threading.Lock())
    assert "cannot pickle" in capfd.readouterr().err
    queue.put(1, timeout=SECONDS)
    assert queue.get(timeout=SECONDS) == 1


def test_pipes_park() -> None:
    for duplex in (True, False):
        one, other = multiprocessing.Pipe(duplex)
        receiving = waits(go(one.recv), READ)
        other.send("x" * 100)
        assert receiving.result(SECONDS) == "x" * 100
        polling = waits(go(one.poll, None), READ)
        sending = go(other.send_bytes, bytes(5_000_000))  # more than there is room for
        assert polling.result(SECONDS) is True
        assert one.recv_bytes() == bytes(5_000_000)
        sending.result(SECONDS)
        waiting = waits(go(multiprocessing.connection.wait, [one]), READ)
        other.close()
        assert waiting.result(SECONDS) == [one]
        with pytest.raises(EOFError):
            go(one.recv).result(SECONDS)
        one.close()


def test_one_of_many_connections_is_waited_for() -> None:
    pairs = [multiprocessing.Pipe() for _ in range(5)]
    waiting = waits(go(multiprocessing.connection.wait, [one for one, _ in pairs]), READ)
    pairs[3][1].send(1)
    assert waiting.result(SECONDS) == [pairs[3][0]]
    assert go(multiprocessing.connection.wait, [one for one, _ in pairs[:3]], 0.01).result(SECONDS) == []


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def test_goroutines_park_for_locks(kind: str) -> None:
    lock = getattr(SPAWN, kind)()
    assert lock.acquire()
    trying = [go(lock.acquire, False), go(lock.acquire, True, 0.01)]
    assert results(trying) == [False, False]

    def enter() -> int:
        with lock:
            return 1

    waiting = [waits(go(enter), READ) for _ in range(3)]
    lock.release()
    assert results(waiting) == [1, 1, 1]


def test_an_rlock_belongs_to_a_goroutine() -> None:
    lock = SPAWN.RLock()
    with lock, lock:
        with pytest.raises(AssertionError, match="not owned"):
            go(lock.release).result(SECONDS)
        assert go(lock.acquire, False).result(SECONDS) is False
    with pytest.raises(AssertionError):
        lock.release()


def test_an_rlock_is_never_taken_for_the_one_of_who_had_it_before() -> None:
    """At no instruction of another thread's `acquire`."""
    lock = multiprocessing.RLock()
    with lock:
        pass
    mine = threading.get_ident()
    wrong: list[int] = []

    def look(frame: Any, event: str, arg: Any) -> Any:
        if frame.f_code.co_name != "acquire":
            return None
        frame.f_trace_opcodes = True
        if lock._semlock._depth > 0 and lock._semlock._owner == mine:
            wrong.append(frame.f_lineno)
        return look

    def other() -> None:
        sys.settrace(look)
        lock._semlock.acquire()
        sys.settrace(None)
        lock._semlock.release()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert not wrong


def test_what_is_released_too_often_is_an_error() -> None:
    for lock in (SPAWN.Lock(), SPAWN.BoundedSemaphore(2)):
        with pytest.raises(ValueError, match="too many times"):
            lock.release()
    semaphore = SPAWN.Semaphore(2)
    semaphore.release()
    assert semaphore.get_value() == 3
    with pytest.raises(ValueError):
        SPAWN.Semaphore(-1)


def test_locks_hold_between_processes() -> None:
    lock, held, go_on = SPAWN.Lock(), SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=hold, args=(lock, held, go_on))
    process.start()
    assert go(held.wait, SECONDS).result(SECONDS)
    assert not lock.acquire(timeout=0.01)
    entering = waits(go(lock.acquire), READ)
    go_on.set()
    assert entering.result(SECONDS)
    go(process.join).result(SECONDS)


def test_values_are_counted_exactly_by_processes_and_goroutines() -> None:
    value, lock = SPAWN.Value("i", 0), SPAWN.Lock()
    times = count(200)
    processes = [SPAWN.Process(target=add, args=(value, lock, times)) for _ in range(2)]
    for process in processes:
        process.start()
    results(go(add, value, lock, times) for _ in range(3))
    results(go(process.join) for process in processes)
    assert value.value == 5 * times


def test_a_pool_has_results_to_park_for() -> None:
    with SPAWN.Pool(2) as pool:
        assert go(pool.map, square, range(20)).result(SECONDS) == [n * n for n in range(20)]
        assert results(go(pool.apply, square, (n,)) for n in range(10)) == [n * n for n in range(10)]
        assert go(lambda: list(pool.imap(square, range(5)))).result(SECONDS) == [0, 1, 4, 9, 16]
        assert sorted(pool.imap_unordered(square, range(5))) == [0, 1, 4, 9, 16]
        with pytest.raises(ValueError):
            go(pool.apply, fail, (1,)).result(SECONDS)
        assert pool.map(square, []) == []
    go(pool.join).result(SECONDS)


def keep(lock: Any) -> None:
    global kept
    kept = lock


def square_under_lock(n: int) -> int:
    with kept:
        return n * n


def end_at_once() -> None:
    os._exit(3)


def test_executors_take_our_contexts() -> None:
    with ProcessPoolExecutor(2, SPAWN, keep, (SPAWN.Lock(),)) as executor:
        assert list(executor.map(square_under_lock, range(20), chunksize=3)) == [n * n for n in range(20)]
        waiting = [executor.submit(square, n) for n in range(5)]
        assert [each.result(SECONDS) for each in waiting] == [n * n for n in range(5)]
        assert type(executor.submit(fail, 1).exception(SECONDS)) is ValueError
    with ProcessPoolExecutor(1, SPAWN) as executor:
        assert type(executor.submit(end_at_once).exception(SECONDS)) is BrokenProcessPool


def test_start_methods_that_others_have_added_are_found() -> None:
    from multiprocessing import context

    added = context._concrete_contexts  # type: ignore[attr-defined]  # private: no stub
    added["their own"] = their_own = context.SpawnContext()
    try:
        assert multiprocessing.get_context("their own") is their_own
    finally:
        del added["their own"]
    with pytest.raises(ValueError, match="cannot find context for 'their own'"):
        multiprocessing.get_context("their own")


def test_a_goroutine_joins_a_process_while_others_run() -> None:
    process = SPAWN.Process(target=signal.pause)
    process.start()
    joining = waits(go(process.join), READ)
    assert process.is_alive()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    joining.result(SECONDS)
    assert process.exitcode == -signal.SIGTERM
    go(process.join, 1).result(SECONDS)


def test_nothing_has_a_name_that_could_be_left_behind() -> None:
    def named() -> set[str]:
        lines = Path("/proc/self/maps").read_text().splitlines()
        return {line.split()[0] for line in lines if "/dev/shm/" in line}

    before = named()
    made = [SPAWN.Queue(), SPAWN.Lock(), SPAWN.Condition(), SPAWN.Event(), SPAWN.JoinableQueue(3)]
    assert named() == before
    made.append(std.get_context("spawn").Lock())
    assert len(named()) == len(before) + 1  # so it would be seen


def test_descriptors_are_closed_with_their_objects() -> None:
    import gc

    def open_descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    SPAWN.Queue().put(1)
    gc.collect()
    before = open_descriptors()
    for _ in range(10):
        queue = SPAWN.Queue(3)
        queue.put(1)
        queue.get(timeout=SECONDS)
        queue.close()
        SPAWN.Lock()
    del queue
    gc.collect()
    until(lambda: open_descriptors() <= before)


# The documentation


def test_the_example_of_the_documentation_is_true(tmp_path: Path) -> None:
    import re
    import subprocess
    import sys

    found = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(found) == 1
    code, said = found[0]
    program = tmp_path / "program.py"
    program.write_text(code)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == (said, "", 0)


def test_the_page_of_cpython_s_tests_is_up_to_date() -> None:
    import subprocess
    import sys

    tool = Path(__file__).resolve().parent.parent / "tools" / "multiprocessing_suites.py"
    done = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
