"""Goroutines and their handles: rows G01, G03, G04, G09 to G11 and G23, and the handle's own contract."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import re
import sys
import threading
import weakref
from typing import Any

import goslings
import pytest
from goslings import (
    Goroutine,
    RecvChan,
    chan,
    current,
    go,
    goexit,
    gomaxprocs,
    gosched,
    num_goroutine,
    recv,
    select,
    send,
    sleep,
)
from helpers import SECONDS, count, parked, results, state, until

CancelledError = concurrent.futures.CancelledError


# Starting


def test_g01_function_and_arguments_are_evaluated_by_the_caller_who_goes_on_at_once() -> None:
    log: list[str] = []

    def note(name: str, value: Any) -> Any:
        log.append(name)
        return value

    ch = chan()

    def body(a: int, b: int) -> int:
        log.append("body")
        return a + b

    def start() -> Goroutine[int]:
        g = go(note("function", body), note("argument", 1), b=note("keyword", 2))
        log.append("after")
        return g

    # In a goroutine on one worker, so that the body cannot run before its starter waits.
    before = gomaxprocs(1)
    try:
        g = go(start).result(SECONDS)
        assert g.result(SECONDS) == 3
    finally:
        gomaxprocs(before)
    assert log == ["function", "argument", "keyword", "after", "body"]
    ch.close()


def test_g01_any_callable_can_be_started() -> None:
    class Callable_:
        def __call__(self, x: int) -> int:
            return x + 1

        def method(self, x: int) -> int:
            return x + 2

        @classmethod
        def of_class(cls, x: int) -> int:
            return x + 3

        @staticmethod
        def static(x: int) -> int:
            return x + 4

    thing = Callable_()
    goroutines = [
        go(thing, 1),
        go(thing.method, 1),
        go(Callable_.of_class, 1),
        go(Callable_.static, 1),
        go(lambda x: x + 5, 1),
        go(int, "7"),
        go(max, 1, 8),
        go(str.upper, "x"),
        go(dict, a=1, **{"fn": 2, "self": 3}),
        go(go, int),
    ]
    *values, inner = results(goroutines)
    assert values == [2, 3, 4, 5, 6, 7, 8, "X", {"a": 1, "fn": 2, "self": 3}]
    assert inner.result(SECONDS) == 0


def test_goroutines_are_started_from_anywhere(two_workers: None) -> None:
    def nested(depth: int) -> int:
        return go(nested, depth - 1).result() + 1 if depth else 0

    assert nested(50) == 50
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(go(nested, 3).result(SECONDS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert got == [3] * 4


def test_go_from_asyncio() -> None:
    import asyncio

    async def main() -> int:
        g = go(lambda: 7)
        while not g.done():
            await asyncio.sleep(0)
        return g.result()

    assert asyncio.run(main()) == 7


# Results


def test_result_returns_the_value_again_and_again() -> None:
    thing = object()
    g = go(lambda: thing)
    assert g.result() is thing and g.result(timeout=0) is thing and g.exception() is None
    assert g.done() and not g.cancelled() and g.join(0)


def test_g03_result_raises_the_same_exception() -> None:
    error = KeyError("same")

    def fail() -> None:
        raise error

    g = go(fail)
    for _ in range(3):
        with pytest.raises(KeyError) as raised:
            g.result(SECONDS)
        assert raised.value is error
    assert g.exception() is error
    assert g.done() and not g.cancelled()


def test_timeouts_of_the_handle() -> None:
    ch = chan()
    g = go(ch.recv)
    for attempt in (lambda: g.result(0.01), lambda: g.exception(timeout=0.01), lambda: g.result(0)):
        with pytest.raises(TimeoutError):
            attempt()
    assert g.join(0.01) is False and g.join(timeout=0) is False and not g.done()
    ch.send(1)
    assert g.join() is True and g.join(0) is True and g.result() == 1


def test_many_wait_for_one(two_workers: None) -> None:
    ch = chan()
    g = go(ch.recv)
    waiters = [go(g.result) for _ in range(50)] + [go(g.join) for _ in range(50)]
    parked(*waiters)
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(g.result(SECONDS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    ch.send(5)
    for thread in threads:
        thread.join(SECONDS)
    assert results(waiters) == [5] * 50 + [True] * 50 and got == [5] * 4


def test_waiting_for_goroutines_that_are_just_ending(two_workers: None) -> None:
    for i in range(count(2000)):
        assert go(lambda i=i: i).result(SECONDS) == i
    for i in range(count(500)):
        g = go(lambda i=i: i)
        gosched()
        h = go(g.result)
        assert h.result(SECONDS) == i


def test_finished_is_closed_at_the_end() -> None:
    ch = chan()
    g = go(ch.recv)
    assert isinstance(g.finished, RecvChan) and not g.finished.closed and g.finished == g.finished
    h = go(lambda: select(recv(g.finished), timeout=SECONDS))
    parked(h)
    ch.send(None)
    assert h.result(SECONDS).ok is False
    assert g.finished.closed and g.finished.recv_ok() == (None, False)
    assert go(int).finished.recv_ok(SECONDS) == (None, False)


def test_a_race_by_select_over_finished() -> None:
    slow, fast = chan(), chan()
    a, b = go(slow.recv), go(fast.recv)
    fast.send("b")
    selected = select(recv(a.finished), recv(b.finished), timeout=SECONDS)
    assert selected is not None and selected.index == 1
    slow.send("a")
    results([a, b])


def test_done_callbacks() -> None:
    called: list[Any] = []
    ch = chan()
    g = go(ch.recv)
    g.add_done_callback(lambda h: called.append(("first", h is g, h.done(), h.result())))
    g.add_done_callback(lambda h: called.append(("second", current() is g)))
    ch.send(1)
    until(lambda: len(called) == 2)
    assert called == [("first", True, True, 1), ("second", True)]
    g.add_done_callback(lambda h: called.append("at once"))
    assert called[-1] == "at once"
    for end in (lambda: 1 / 0, goexit):
        g = go(end)
        g.add_done_callback(lambda h: called.append(h.exception()))
        g.join(SECONDS)
        g.exception(SECONDS)
    until(lambda: len(called) == 5)


def test_a_done_callback_that_waits() -> None:
    ch, done = chan(), []
    g = go(int)
    g.join(SECONDS)
    h = go(ch.recv)
    h.add_done_callback(lambda h: done.append(ch.recv()))
    ch.send(1)
    assert h.result(SECONDS) == 1
    ch.send(2)
    until(lambda: done == [2])


# Names and numbers


def test_g23_ids_are_never_used_again_and_names_can_be_set() -> None:
    goroutines = [go(int) for _ in range(100)]
    results(goroutines)
    ids = [g.id for g in goroutines]
    assert ids == sorted(set(ids)) and ids[0] > 0
    assert go(int).id > ids[-1]
    g = goroutines[0]
    assert g.name == f"goroutine-{g.id}"
    g.name = "worker"
    assert g.name == "worker" and "worker" in repr(g)
    g.name = "a (strange) name ☃"
    assert state(g) == "done"


def test_repr_tells_the_state() -> None:
    ch = chan()
    waits = [
        (ch.recv, "chan receive"),
        (lambda: ch.send(1), "chan send"),
        (lambda: select(recv(chan()), send(chan(), 1)), "select"),
        (select, "select (no cases)"),
        (lambda: sleep(3600), "sleep"),
    ]
    for function, text in waits:
        g = go(function)
        parked(g)
        assert state(g) == text
        g.cancel()
        g.join(SECONDS)
        assert state(g) == "cancelled"
    seen: list[str] = []
    go(lambda: seen.append(repr(current()))).result(SECONDS)
    assert "running" in seen[0]
    assert state(g) == "cancelled"
    g = go(lambda: 1 / 0)
    g.exception(SECONDS)
    assert state(g) == "failed"


def test_current() -> None:
    assert current() is None
    g = go(current)
    assert g.result(SECONDS) is g
    names = results([go(lambda: (gosched(), current().name)[1]) for _ in range(20)])
    assert len(set(names)) == 20


def test_handles_can_be_subscripted_referred_to_weakly_and_compared() -> None:
    assert Goroutine[int]
    g = go(int)
    assert weakref.ref(g)() is g and g == g and g != go(int) and len({g, g}) == 1


# Failing


def test_g04_only_the_goroutine_itself_catches_its_exception() -> None:
    ch, seen = chan(), []

    def fail() -> None:
        ch.recv()
        raise KeyError("its own")

    def catches() -> str:
        try:
            fail()
        except KeyError:
            return "caught"
        return "missed"

    def starter() -> Goroutine[None]:
        try:
            g = go(fail)
            parked(g)
            ch.send(None)
            assert g.join(SECONDS)
            gosched()
        except KeyError:
            seen.append("in the starter")
        finally:
            seen.append(sys.exception())
        return g

    failed = go(starter).result(SECONDS)
    assert seen == [None]
    assert isinstance(failed.exception(0), KeyError)
    caught = go(catches)
    ch.send(None)
    assert caught.result(SECONDS) == "caught"


@pytest.mark.parametrize("end", ["return", "exception", "goexit", "cancel"])
def test_g11_deferred_calls_run_last_in_first_out_however_it_ends(end: str) -> None:
    log: list[str] = []

    def work() -> None:
        with contextlib.ExitStack() as deferred:
            word = "now"
            deferred.callback(log.append, f"first {word}")
            deferred.callback(log.append, word)
            word = "later"  # the arguments are those of the time of the call
            try:
                try:
                    if end == "exception":
                        raise KeyError
                    if end == "goexit":
                        goexit()
                    if end == "cancel":
                        chan().recv()
                finally:
                    log.append("inner")
            finally:
                gosched()  # deferred code may let others run
                log.append("outer")

    g = go(work)
    if end == "cancel":
        parked(g)
        g.cancel()
    assert g.join(SECONDS)
    assert log == ["inner", "outer", "now", "first now"]
    assert isinstance(g.exception(), KeyError) if end == "exception" else g.done()
    assert g.cancelled() == (end == "cancel")


def test_g11_an_exception_during_an_exception_keeps_both() -> None:
    def work() -> None:
        try:
            raise KeyError("first")
        finally:
            gosched()
            raise ValueError("second")

    error = go(work).exception(SECONDS)
    assert repr(error) == "ValueError('second')" and repr(error.__context__) == "KeyError('first')"


def test_g11_what_cannot_be_called_is_an_error_of_the_caller() -> None:
    before = num_goroutine()
    for nothing in (None, 1, "work"):
        with pytest.raises(TypeError, match="callable"):
            go(nothing)  # type: ignore[arg-type]
    assert num_goroutine() <= before


# Ending


def test_g09_goexit_runs_finally_and_ends_only_this_goroutine() -> None:
    log = []

    def work() -> None:
        try:
            try:
                goexit()
            except Exception:
                log.append("Exception")
            finally:
                log.append("inner")
        finally:
            log.append(repr(sys.exception().__class__.__name__))

    g = go(work)
    assert g.result(SECONDS) is None and g.exception() is None and not g.cancelled()
    assert log == ["inner", "'GoExit'"]
    assert go(lambda: "lives on").result(SECONDS) == "lives on"


def test_g09_goexit_wins_over_an_exception() -> None:
    def work() -> None:
        try:
            raise KeyError
        finally:
            goexit()

    assert go(work).result(SECONDS) is None


def test_g10_goexit_outside_a_goroutine_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="outside a goroutine"):
        goexit()


def test_a_tree_of_goroutines(two_workers: None) -> None:
    def tree(depth: int) -> int:
        if depth == 0:
            return 1
        left, right = go(tree, depth - 1), go(tree, depth - 1)
        return left.result() + right.result()

    assert go(tree, 10).result(SECONDS) == 1024


def test_the_public_names_are_there() -> None:
    for name in ("go", "chan", "select", "recv", "send", "sleep", "after", "Timer", "Ticker", "Closed", "excepthook"):
        assert hasattr(goslings, name)
    assert re.fullmatch(r"\d+\.\d+\.\d+", goslings.__version__)


def test_every_documented_object_has_its_documentation() -> None:
    for name in (
        "go",
        "chan",
        "select",
        "recv",
        "send",
        "sleep",
        "after",
        "after_func",
        "Timer",
        "Ticker",
        "Goroutine",
    ):
        text = getattr(goslings, name).__doc__
        assert text and len(text) > 20, name


def test_gc_of_handles_in_the_middle_of_everything(two_workers: None) -> None:
    for i in range(count(300)):
        go(lambda: gosched())
        if i % 50 == 0:
            gc.collect()
    results([go(gosched) for _ in range(50)])
