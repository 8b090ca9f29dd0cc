"""blocking: calls that would hold a worker, on threads of their own."""

from __future__ import annotations

import contextvars
import gc
import os
import threading
import time
import weakref
from contextlib import suppress
from typing import Any

import pytest
from goslings import AtomicInt, Cancelled, Event, blocking, chan, current, go, num_goroutine
from helpers import FREE_THREADED, SECONDS, check_child, count, results, run_child, state, until


def waits(goroutine: Any) -> Any:
    until(lambda: state(goroutine) == "event wait")
    return goroutine


def test_it_gives_what_the_function_returns() -> None:
    def call(*args: int, **kwargs: int) -> tuple[tuple[int, ...], dict[str, int]]:
        return args, kwargs

    expected = ((1, 2), {"fn": 3, "timeout": 4})
    assert go(lambda: blocking(call, 1, 2, fn=3, timeout=4)).result(SECONDS) == expected
    assert blocking(call, 1, 2, fn=3, timeout=4) == expected


def test_sleeping_calls_run_at_the_same_time_and_hold_no_worker(one_worker: None) -> None:
    everybody = threading.Barrier(10)  # which would hold the worker for ever
    ticks = AtomicInt()

    def sleeper() -> int:
        blocking(everybody.wait, SECONDS)
        return ticks.add()

    assert sorted(results([go(sleeper) for _ in range(10)])) == list(range(1, 11))
    started = time.monotonic()
    results([go(blocking, time.sleep, 0.2) for _ in range(20)])
    assert time.monotonic() - started < 20 * 0.2 / 2


def test_on_a_plain_thread_it_is_a_call() -> None:
    assert blocking(threading.get_ident) == threading.get_ident()
    answer: list[bool] = []
    thread = threading.Thread(target=lambda: answer.append(blocking(threading.get_ident) == threading.get_ident()))
    thread.start()
    thread.join(SECONDS)
    assert answer == [True]


def test_the_call_runs_on_a_thread_that_is_no_worker() -> None:
    def call() -> tuple[int, object]:
        return threading.get_ident(), current()

    def caller() -> bool:
        ident, goroutine = blocking(call)
        return ident != threading.get_ident() and goroutine is None

    assert go(caller).result(SECONDS)


def test_threads_are_used_again() -> None:
    def caller() -> set[int]:
        return {blocking(threading.get_ident) for _ in range(count(1000))}

    before = threading.active_count()
    assert len(go(caller).result(SECONDS)) < before + 20


def test_an_exception_is_raised_in_the_caller() -> None:
    def fail() -> None:
        raise KeyError("from the thread")

    def caller() -> str:
        with pytest.raises(KeyError, match="from the thread") as caught:
            blocking(fail)
        return caught.traceback[-1].name

    assert go(caller).result(SECONDS) == "fail"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, StopIteration, GeneratorExit])
def test_any_exception_comes_back_and_the_thread_lives_on(kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind

    def caller() -> None:
        with pytest.raises(kind):
            blocking(fail)

    results([go(caller) for _ in range(5)])


def test_a_failed_call_leaves_no_cycle(collect: None) -> None:
    class Mark:
        pass

    marks: list[weakref.ref[Mark]] = []

    def fail() -> None:
        mark = Mark()
        marks.append(weakref.ref(mark))
        raise KeyError

    def caller() -> None:
        with suppress(KeyError):
            blocking(fail)

    go(caller).result(SECONDS)
    # On free-threaded builds, what a thread has made may outlive its use while the thread sleeps.
    until(lambda: (FREE_THREADED and gc.collect(), marks[0]() is None)[1])


def test_what_went_through_is_let_go(collect: None) -> None:
    class Mark:
        pass

    mark = Mark()
    reference = weakref.ref(mark)
    assert go(lambda mark: blocking(lambda mark: mark is not None, mark), mark).result(SECONDS)
    del mark
    until(lambda: (FREE_THREADED and gc.collect(), reference() is None)[1])


def test_the_call_sees_the_context_variables_of_the_caller() -> None:
    variable = contextvars.ContextVar("variable", default="default")

    def call() -> str:
        seen = variable.get()
        variable.set("changed by the call")
        return seen

    def caller(value: str) -> tuple[str, str]:
        variable.set(value)
        return blocking(call), variable.get()

    assert results([go(caller, f"of {i}") for i in range(5)]) == [(f"of {i}", f"of {i}") for i in range(5)]
    assert go(blocking, call).result(SECONDS) == "default"


def test_a_cancelled_caller_goes_and_the_call_ends_by_itself() -> None:
    release, ended = threading.Event(), Event()
    caught: list[BaseException] = []

    def call() -> None:
        release.wait(SECONDS)
        ended.set()

    def caller() -> None:
        try:
            blocking(call)
        except Cancelled as error:
            caught.append(error)
            raise

    g = waits(go(caller))
    g.cancel("enough")
    assert g.join(SECONDS) and g.cancelled() and caught[0].args == ("enough",)
    assert not ended.is_set()
    release.set()
    assert ended.wait(SECONDS)


def test_a_caller_that_is_cancelled_already_makes_no_call() -> None:
    ran: list[bool] = []

    def caller() -> None:
        me = current()
        assert me is not None
        me.cancel()
        blocking(ran.append, True)

    g = go(caller)
    assert g.join(SECONDS) and g.cancelled() and not ran


def test_a_call_may_use_channels_start_goroutines_and_block_itself() -> None:
    ch = chan[int]()

    def call() -> int:
        g = go(lambda: ch.recv() + 1)
        ch.send(blocking(lambda: 4))
        return g.result(SECONDS)

    assert go(blocking, call).result(SECONDS) == 5


def test_no_more_calls_at_once_than_allowed() -> None:
    assert (
        check_child(
            """
            import threading, time
            from goslings import AtomicInt, blocking, go
            inside, most, idents = AtomicInt(), [], set()
            def call(i):
                most.append(inside.add())
                idents.add(threading.get_ident())
                time.sleep(0.002)
                inside.add(-1)
                return i
            goroutines = [go(blocking, call, i) for i in range(100)]
            print([g.result(30) for g in goroutines] == list(range(100)), max(most))
            """,
            env={"GOSLINGS_BLOCKING": "3"},
        )
        == "True 3\n"
    )


def test_waiting_for_a_thread_can_be_cancelled() -> None:
    assert (
        check_child(
            """
            import threading
            from goslings import blocking, go, sleep
            release = threading.Event()
            first = go(blocking, release.wait)
            ran = []
            while "event wait" not in repr(first): sleep(0.001)
            second = go(blocking, ran.append, 2)
            third = go(blocking, ran.append, 3)
            while "semacquire" not in repr(second) or "semacquire" not in repr(third): sleep(0.001)
            second.cancel()
            print(second.join(30), second.cancelled(), ran)
            release.set()
            print(first.result(30), third.result(30), ran)
            """,
            env={"GOSLINGS_BLOCKING": "1"},
        )
        == "True True []\nTrue None [3]\n"
    )


def test_threads_that_end_at_the_limit_strand_nobody() -> None:
    # Threads give up waiting for a call just when the next one comes.
    assert (
        check_child(
            """
            import random
            import goslings._blocking
            from goslings import blocking, go, sleep
            goslings._blocking._IDLE_SECONDS = 0.001
            def caller():
                for _ in range(30):
                    blocking(int)
                    sleep(random.uniform(0.0005, 0.0015))
            goroutines = [go(caller) for _ in range(6)]
            print(all(g.join(50) for g in goroutines))
            """,
            env={"GOSLINGS_BLOCKING": "2"},
        )
        == "True\n"
    )


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_limit_that_makes_no_sense_is_an_error(value: str) -> None:
    done = run_child("import goslings", env={"GOSLINGS_BLOCKING": value})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ValueError: GOSLINGS_BLOCKING must be a ")
    assert repr(value) in done.stderr.splitlines()[-1]


def test_a_call_under_way_does_not_keep_the_program_alive() -> None:
    started = time.monotonic()
    assert (
        check_child("""
        import time
        from goslings import blocking, chan, go
        ready = chan()
        def call():
            ready.send(1)
            time.sleep(1000)
        g = go(blocking, call)
        ready.recv()
        print("end")
        """)
        == "end\n"
    )
    assert time.monotonic() - started < 60


def test_it_works_in_a_forked_child() -> None:
    def call() -> int:
        return 5

    go(blocking, call).result(SECONDS)  # so that there are threads that the child will not have
    assert (
        check_child("""
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads
        from goslings import blocking, go
        print(go(blocking, int, "1").result(30), flush=True)
        child = os.fork()
        if child == 0:
            print([go(blocking, int, str(i)).result(30) for i in range(2, 5)], flush=True)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(go(blocking, int, "6").result(30))
        """)
        == "1\n[2, 3, 4]\n0\n6\n"
    )


def test_a_call_may_fork() -> None:
    started = time.monotonic()
    assert (
        check_child("""
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads
        from goslings import blocking, go
        def call():
            child = os.fork()
            if child == 0:
                print(go(blocking, int, "2").result(30), flush=True)
                os._exit(0)
            return child
        child = go(blocking, call).result(30)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """)
        == "2\n0\n"
    )
    assert time.monotonic() - started < 60


def test_it_leaves_no_goroutine_behind() -> None:
    before = num_goroutine()
    results([go(blocking, os.getpid) for _ in range(20)])
    until(lambda: num_goroutine() <= before)
