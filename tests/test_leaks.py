"""leaks: what can never be woken is found, and what can be is not."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import goslings
import pytest
from goslings import (
    Barrier,
    Cond,
    Event,
    Goroutine,
    Mutex,
    RWMutex,
    Semaphore,
    WaitGroup,
    after,
    chan,
    go,
    leaks,
    recv,
    select,
    send,
    stacks,
)
from helpers import SECONDS, check_child, until


def settled(number: int) -> None:
    """Waits until the goroutine with this number waits."""
    until(lambda: any(one.id == number and one.waiting is not None for one in stacks()))


def lost() -> dict[int, str]:
    return {one.id: one.state for one in leaks() if one.id is not None}


def started(start: Callable[[], Any]) -> int:
    """Runs `start`, which starts one goroutine; its number, once it waits. Keeps nothing of it."""
    before = {one.id for one in stacks()}
    start()
    [number] = {one.id for one in stacks()} - before
    assert number is not None
    settled(number)
    return number


def by_early_return() -> None:
    """The answer comes after its reader has gone."""
    answer: chan[int] = chan()

    def work() -> None:
        answer.send(42)

    go(work)


def by_forgotten_close() -> None:
    jobs: chan[int] = chan()

    def work() -> None:
        for _ in jobs:
            pass

    go(work)
    jobs.send(1)


def by_double_send() -> None:
    results: chan[int] = chan()

    def work(results: chan[int]) -> None:
        results.send(1)
        results.send(2)

    go(work, results)
    results.recv()


def by_method() -> None:
    go(chan[int]().recv)


def by_mutex() -> None:
    mutex = Mutex()

    def work() -> None:
        mutex.lock()
        mutex.lock()

    go(work)


def by_rw_mutex() -> None:
    rw = RWMutex()

    def work() -> None:
        rw.lock()
        rw.rlock()

    go(work)


def by_group() -> None:
    group = WaitGroup()
    group.add(1)

    def work() -> None:
        group.wait()

    go(work)


def by_cond() -> None:
    cond = Cond(Mutex())

    def work() -> None:
        cond.mutex.lock()
        cond.wait()

    go(work)


def by_semaphore() -> None:
    permits = Semaphore(1)

    def work() -> None:
        permits.acquire()
        permits.acquire()

    go(work)


def by_event() -> None:
    event = Event()

    def work() -> None:
        event.wait()

    go(work)


def by_barrier() -> None:
    barrier = Barrier(2)

    def work() -> None:
        barrier.wait()

    go(work)


def by_select() -> None:
    first, second = chan[int](), chan[int]()

    def work() -> None:
        select(recv(first), send(second, 1))

    go(work)


def by_select_of_many() -> None:
    a, b, c, d, e = (chan[int]() for _ in range(5))

    def work() -> None:
        select(recv(a), recv(b), recv(c), recv(d), send(e, [1]))

    go(work)


def by_empty_select() -> None:
    def work() -> None:
        select()

    go(work)


def by_depth() -> None:
    ch: chan[int] = chan()

    def inner(ch: chan[int], more: int) -> int:
        return ch.recv() if more == 0 else 1 + inner(ch, more - 1) * 2

    go(inner, ch, 5)


def by_keyword() -> None:
    def work(*, source: chan[int]) -> list[int]:
        return [1, 2, source.recv()]

    go(work, source=chan())


def by_what_it_sends() -> None:
    """The value holds the channel that it is sent on."""
    ch: chan[Any] = chan()
    go(ch.send, [ch])


class Holder:
    def __init__(self) -> None:
        self.source: chan[int] = chan()
        self.mutex = Mutex()

    def run(self) -> None:
        self.source.recv()


def by_attribute() -> None:
    go(Holder().run)


LOST = {
    by_early_return: "chan send",
    by_forgotten_close: "chan receive",
    by_double_send: "chan send",
    by_method: "chan receive",
    by_mutex: "sync.Mutex.Lock",
    by_rw_mutex: "sync.RWMutex.RLock",
    by_group: "sync.WaitGroup.Wait",
    by_cond: "sync.Cond.Wait",
    by_semaphore: "semacquire",
    by_event: "event wait",
    by_barrier: "barrier wait",
    by_select: "select",
    by_select_of_many: "select",
    by_empty_select: "select (no cases)",
    by_depth: "chan receive",
    by_keyword: "chan receive",
    by_what_it_sends: "chan send",
    by_attribute: "chan receive",
}


@pytest.mark.parametrize("start", LOST, ids=lambda start: start.__name__)
def test_o03_a_goroutine_that_nobody_can_wake_is_found(start: Callable[[], None]) -> None:
    number = started(start)
    assert lost()[number] == f"{LOST[start]} (leaked)"
    assert lost()[number] == f"{LOST[start]} (leaked)"  # looking changes nothing


def test_o03_what_is_told_of_it() -> None:
    number = started(by_early_return)
    [one] = [one for one in leaks() if one.id == number]
    assert one.frames[-1].name == "work"
    assert one.created_by is not None and one.created_by.endswith("in by_early_return")
    assert str(one).startswith(f"goroutine {number} [chan send (leaked)]:\n")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="3.13 holds the object of a `with` where nobody sees it")
def test_o03_a_with_statement_that_never_begins() -> None:
    def start() -> None:
        mutex = Mutex()

        def work() -> None:
            with mutex, mutex:
                pass

        go(work)

    number = started(start)
    assert number in lost()


def test_o03_those_that_wait_for_each_other_only() -> None:
    numbers: list[int] = []

    def start() -> None:
        a, b = Mutex(), Mutex()
        met = WaitGroup()
        met.add(2)

        def work(mine: Mutex, other: Mutex) -> None:
            mine.lock()
            met.done()
            met.wait()
            other.lock()

        numbers.extend(g.id for g in (go(work, a, b), go(work, b, a)))

    start()
    for number in numbers:
        until(lambda number=number: any(o.id == number and o.state == "sync.Mutex.Lock" for o in stacks()))
    assert set(numbers) <= set(lost())


def test_o03_who_waits_for_a_lost_one_is_lost_too() -> None:
    numbers: list[int] = []

    def start() -> None:
        stuck = go(chan[int]().recv)
        numbers.extend([stuck.id, go(stuck.result).id])

    start()
    for number in numbers:
        settled(number)
    assert set(numbers) <= set(lost())


def test_o03_a_kept_handle_does_not_save_it() -> None:
    kept = go(chan[int]().recv)
    settled(kept.id)
    assert kept.id in lost()
    kept.cancel()
    assert kept.join(SECONDS)
    assert kept.id not in lost()


GLOBAL: dict[str, Any] = {}
OTHERS: list[Goroutine[Any]] = []
"""What a test starts besides: cancelled at its end."""


def kept_by_global() -> Goroutine[Any]:
    GLOBAL["channel"] = ch = chan[int]()
    return go(ch.recv)


def kept_by_container() -> Goroutine[Any]:
    ch: chan[int] = chan()
    GLOBAL["deep"] = {"list": [(1, {"channel": ch})]}
    return go(ch.recv)


def kept_by_view() -> Goroutine[Any]:
    ch: chan[int] = chan()
    GLOBAL["view"] = ch.sender()
    return go(ch.recv)


def kept_by_closure() -> Goroutine[Any]:
    ch: chan[int] = chan()
    GLOBAL["closure"] = lambda: ch.send(1)
    return go(ch.recv)


def kept_by_case() -> Goroutine[Any]:
    ch: chan[int] = chan()
    GLOBAL["case"] = send(ch, 1)
    return go(ch.recv)


def kept_by_mutex() -> Goroutine[Any]:
    mutex = GLOBAL["mutex"] = Mutex()
    mutex.lock()
    return go(mutex.lock)


def kept_by_group() -> Goroutine[Any]:
    """A goroutine that goes on will count down."""
    group = WaitGroup()
    OTHERS.append(group.go(GLOBAL["forever"].recv))
    return go(group.wait)


def kept_by_goroutine() -> Goroutine[Any]:
    """A local of a goroutine that can be woken."""
    ch: chan[int] = chan()

    def work() -> None:
        own = ch
        GLOBAL["forever"].recv()
        own.send(1)

    other = go(work)
    settled(other.id)
    OTHERS.append(other)
    return go(ch.recv)


def kept_by_goroutine_with_limit() -> Goroutine[Any]:
    ch: chan[int] = chan()

    def work() -> None:
        own = ch
        goslings.sleep(1000)
        own.send(1)

    other = go(work)
    settled(other.id)
    OTHERS.append(other)
    return go(ch.recv)


def kept_by_running_goroutine() -> Goroutine[Any]:
    ch: chan[int] = chan()

    def work() -> None:
        own = ch
        GLOBAL["blocking"].wait()  # a thread's: the worker waits
        del own

    if goslings.gomaxprocs() < 2:
        pytest.skip("one worker")
    go(work)
    return go(ch.recv)


def kept_by_not_started() -> Goroutine[Any]:
    ch: chan[int] = chan()
    GLOBAL["prepared"] = goslings.after_func(1000, lambda: ch.send(1))
    return go(ch.recv)


def kept_by_timer() -> Goroutine[Any]:
    return go(after(1000).recv)


def kept_by_thread() -> Goroutine[Any]:
    ch: chan[int] = chan()

    def work() -> None:
        own = ch
        GLOBAL["blocking"].wait()
        del own

    threading.Thread(target=work, daemon=True).start()
    return go(ch.recv)


def kept_by_generator() -> Goroutine[Any]:
    ch: chan[int] = chan()

    def numbers() -> Any:
        own = ch
        yield
        own.send(1)

    GLOBAL["generator"] = generator = numbers()
    next(generator)
    return go(ch.recv)


def kept_by_select() -> Goroutine[Any]:
    """One of its channels is enough."""
    GLOBAL["one"] = one = chan[int]()
    return go(select, recv(chan()), recv(one))


def kept_by_time_limit() -> Goroutine[Any]:
    return go(chan[int]().recv, 1000)


def kept_by_sleep() -> Goroutine[Any]:
    return go(goslings.sleep, 1000)


def kept_by_callback() -> Goroutine[Any]:
    ch: chan[int] = chan()
    other = go(GLOBAL["forever"].recv)
    OTHERS.append(other)
    other.add_done_callback(lambda _: ch.send(1))
    settled(other.id)
    return go(ch.recv)


def kept_by_result() -> Goroutine[Any]:
    other = go(GLOBAL["forever"].recv)
    OTHERS.append(other)
    settled(other.id)
    return go(other.result)


def kept_by_weak_reference() -> Goroutine[Any]:
    import weakref

    ch: chan[int] = chan()
    GLOBAL["weak"] = weakref.ref(ch)
    return go(ch.recv)


def kept_by_buffered_channel() -> Goroutine[Any]:
    """As a value in another channel."""
    ch: chan[int] = chan()
    GLOBAL["buffer"] = buffer = chan[chan[int]](1)
    buffer.send(ch)
    return go(ch.recv)


def kept_by_context_variable() -> Goroutine[Any]:
    import contextvars

    ch: chan[int] = chan()
    GLOBAL["context"] = context = contextvars.copy_context()
    context.run(contextvars.ContextVar("channel").set, ch)
    return go(ch.recv)


SAFE = [function for name, function in list(globals().items()) if name.startswith("kept_by_")]


@pytest.mark.parametrize("start", SAFE, ids=lambda start: start.__name__)
def test_o03_what_can_be_reached_is_not_reported(start: Callable[[], Goroutine[Any]], two_workers: None) -> None:
    GLOBAL["forever"] = chan[int]()
    GLOBAL["blocking"] = blocking = threading.Event()
    before = set(lost())
    g = start()
    settled(g.id)
    assert not set(lost()) - before
    blocking.set()
    g.cancel()
    assert g.join(SECONDS)
    for other in OTHERS:
        other.cancel()
        assert other.join(SECONDS)
    OTHERS.clear()
    GLOBAL.clear()


def test_the_local_of_the_caller_is_reachable() -> None:
    ch: chan[int] = chan()
    g = go(ch.recv)
    settled(g.id)
    assert g.id not in lost()
    ch.send(1)
    g.result(SECONDS)


def test_leaks_from_a_goroutine_while_others_work(two_workers: None) -> None:
    stop: list[int] = []

    def work() -> None:
        ping: chan[list[Any]] = chan()

        def echo() -> None:
            for value in ping:
                value.append([ping])

        g = go(echo)
        while not stop:
            ping.send([1, {2: 3}])
        ping.close()
        g.result()

    goroutines = [go(work) for _ in range(3)]
    numbers = {g.id for g in goroutines}
    for _ in range(10):
        found = go(lost).result(SECONDS)
        assert not numbers & set(found)
    stop.append(1)
    for g in goroutines:
        g.result(SECONDS)


def test_nothing_is_kept_by_looking(collect: None) -> None:
    import gc
    import weakref

    class Value:
        pass

    value = Value()
    watch = weakref.ref(value)
    g = go(chan[Value]().send, value)
    settled(g.id)
    assert g.id in lost()
    del value
    g.cancel()
    assert g.join(SECONDS)
    del g
    gc.collect()
    until(lambda: watch() is None)


def test_a_program_without_goroutines_has_no_leaks() -> None:
    assert check_child("import goslings; print(goslings.leaks())") == "[]\n"
