"""Synchronisation: rows Y01 to Y18, E05, E07 and E08 of the table of semantics, and what Python adds."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import goslings
import pytest
from goslings import (
    AtomicInt,
    Barrier,
    Cancelled,
    Cond,
    Event,
    Goroutine,
    Map,
    Mutex,
    Once,
    Pool,
    RWMutex,
    Semaphore,
    SingleFlight,
    WaitGroup,
    chan,
    current,
    go,
    goexit,
    gosched,
    once_value,
)
from helpers import SECONDS, check_child, count, results, state, until

MUTEX, RLOCK, LOCK = "sync.Mutex.Lock", "sync.RWMutex.RLock", "sync.RWMutex.Lock"
GROUP, COND, ACQUIRE = "sync.WaitGroup.Wait", "sync.Cond.Wait", "semacquire"
EVENT, BARRIER = "event wait", "barrier wait"


def waits(goroutine: Goroutine[Any], reason: str) -> Goroutine[Any]:
    """Waits until it waits there: by then it is in the queue."""
    until(lambda: state(goroutine) == reason)
    return goroutine


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


# Mutex


def test_y01_a_mutex_is_not_reentrant() -> None:
    mutex = Mutex()
    mutex.lock()
    assert not mutex.try_lock()
    with pytest.raises(TimeoutError, match="^lock timed out$"):
        mutex.lock(timeout=0.01)
    g = waits(go(mutex.lock), MUTEX)
    assert g.cancel()
    assert g.join(SECONDS) and g.cancelled()


def test_y01_anybody_may_unlock_a_mutex(start: Any) -> None:
    mutex = Mutex()
    mutex.lock()
    assert start(mutex.unlock)() is None
    assert not mutex.locked()
    start(mutex.lock)()
    assert mutex.locked()
    mutex.unlock()


def test_y02_unlocking_what_is_not_locked_is_an_error_at_the_culprit() -> None:
    mutex, rw = Mutex(), RWMutex()
    for misuse, text in (
        (mutex.unlock, "unlock of unlocked Mutex"),
        (rw.unlock, "unlock of unlocked RWMutex"),
        (rw.runlock, "runlock of unlocked RWMutex"),
    ):
        with pytest.raises(RuntimeError, match=f"^{text}$"):
            misuse()
        assert isinstance(go(misuse).exception(SECONDS), RuntimeError)
    rw.rlock()
    with pytest.raises(RuntimeError):
        rw.unlock()
    rw.runlock()
    rw.lock()
    with pytest.raises(RuntimeError):
        rw.runlock()
    rw.unlock()
    # and none of it has broken them
    with mutex, rw.write():
        assert mutex.locked() and not rw.try_rlock()
    with pytest.raises(RuntimeError, match="unlock"), mutex:
        mutex.unlock()


def test_y03_waiters_are_served_in_order_when_nobody_barges() -> None:
    mutex, order = Mutex(), []
    mutex.lock()

    def locker(i: int) -> None:
        mutex.lock()
        order.append(i)
        mutex.unlock()

    goroutines = [waits(go(locker, i), MUTEX) for i in range(20)]
    time.sleep(0.002)  # the first has waited for over a millisecond: it is handed over from now on
    mutex.unlock()
    results(goroutines)
    assert order == list(range(20))


def test_y03_a_greedy_locker_starves_nobody(two_workers: None) -> None:
    mutex, stop = Mutex(), Event()

    def greedy() -> None:
        while not stop.is_set():
            with mutex:
                until_ns = time.perf_counter_ns() + 100_000
                while time.perf_counter_ns() < until_ns:
                    pass
            gosched()

    g = go(greedy)
    for _ in range(10):
        mutex.lock(timeout=SECONDS)
        mutex.unlock()
    stop.set()
    g.result(SECONDS)


def test_y04_try_lock_never_waits() -> None:
    mutex = Mutex()
    assert mutex.try_lock()
    assert not mutex.try_lock()
    g = waits(go(mutex.lock), MUTEX)
    assert not mutex.try_lock()
    mutex.unlock()
    g.result(SECONDS)
    assert not mutex.try_lock()
    mutex.unlock()
    assert mutex.try_lock()


def test_y05_a_thousand_waiters_are_no_threads() -> None:
    mutex = Mutex()
    mutex.lock()
    before = threading.active_count()

    def locker() -> None:
        with mutex:
            pass

    goroutines = [go(locker) for _ in range(count(1000))]
    for goroutine in goroutines:
        waits(goroutine, MUTEX)
    assert threading.active_count() == before
    mutex.unlock()
    results(goroutines)


def test_y05_a_mutex_excludes_goroutines_and_threads(two_workers: None, fast_switching: None) -> None:
    mutex, n = Mutex(), count(1000)
    box = {"value": 0}

    def adder() -> None:
        for _ in range(n):
            with mutex:
                value = box["value"]
                if value % 50 == 0:
                    gosched()
                box["value"] = value + 1

    threads = [threading.Thread(target=adder) for _ in range(2)]
    for thread in threads:
        thread.start()
    results([go(adder) for _ in range(4)])
    for thread in threads:
        thread.join(SECONDS)
    assert box["value"] == 6 * n


# RWMutex


def test_y06_many_readers_or_one_writer(two_workers: None, fast_switching: None) -> None:
    rw, n = RWMutex(), count(300)
    readers, writers = AtomicInt(), AtomicInt()
    wrong: list[str] = []

    def reader() -> None:
        for _ in range(n):
            with rw.read():
                readers.add(1)
                if writers.load():
                    wrong.append("a reader beside a writer")
                gosched()
                readers.add(-1)

    def writer() -> None:
        for _ in range(n):
            with rw.write():
                if writers.add(1) != 1 or readers.load():
                    wrong.append("a writer beside somebody")
                gosched()
                writers.add(-1)

    threads = [threading.Thread(target=fn) for fn in (reader, writer)]
    for thread in threads:
        thread.start()
    results([go(reader) for _ in range(4)] + [go(writer) for _ in range(2)])
    for thread in threads:
        thread.join(SECONDS)
    assert wrong == []


def test_y06_readers_read_together(start: Any) -> None:
    rw, barrier = RWMutex(), Barrier(3)

    def reader() -> bool:
        with rw.read():
            barrier.wait(SECONDS)
        return True

    assert [result() for result in [start(reader) for _ in range(3)]] == [True] * 3


def test_y07_new_readers_wait_behind_a_writer_that_waits() -> None:
    rw, order = RWMutex(), []
    rw.rlock()

    def writer() -> None:
        with rw.write():
            order.append("writer")

    def reader() -> None:
        with rw.read():
            order.append("reader")

    w = waits(go(writer), LOCK)
    assert not rw.try_rlock()
    with pytest.raises(TimeoutError, match="^rlock timed out$"):
        rw.rlock(timeout=0.001)
    r = waits(go(reader), RLOCK)
    rw.runlock()
    results([w, r])
    assert order == ["writer", "reader"]


def test_y07_a_writer_that_gives_up_lets_the_readers_behind_it_in() -> None:
    for give_up in ("cancel", "timeout"):
        rw = RWMutex()
        rw.rlock()
        w = waits(go(rw.lock, timeout=None if give_up == "cancel" else 0.05), LOCK)
        r = go(rw.rlock)
        if give_up == "cancel":
            waits(r, RLOCK)
            w.cancel()
        r.result(SECONDS)
        assert w.join(SECONDS)
        with contextlib.suppress(TimeoutError, CancelledError):
            w.result()
        rw.runlock()
        rw.runlock()
        assert rw.try_lock()


def test_y08_readers_that_waited_go_before_the_next_writer() -> None:
    rw, order = RWMutex(), []
    rw.lock()

    def reader(i: int) -> None:
        with rw.read():
            order.append(f"r{i}")

    def writer() -> None:
        with rw.write():
            order.append("w")

    goroutines = [waits(go(reader, i), RLOCK) for i in range(5)]
    goroutines.append(waits(go(writer), LOCK))
    rw.unlock()
    results(goroutines)
    assert sorted(order[:5]) == [f"r{i}" for i in range(5)] and order[5] == "w"


# WaitGroup


def test_y09_wait_returns_at_zero_and_releases_everybody(start: Any) -> None:
    group = WaitGroup()
    assert group.wait() and group.wait(0)
    for _ in range(2):  # it can be used again
        group.add(2)
        waiters = [start(group.wait) for _ in range(5)]
        goroutines = [waits(go(group.wait), GROUP) for _ in range(100)]
        group.done()
        assert group.count == 1 and not group.wait(0) and not group.wait(0.001)
        group.done()
        assert results(goroutines) == [True] * 100
        assert [waiter() for waiter in waiters] == [True] * 5


def test_y10_a_negative_counter_is_an_error_at_the_culprit() -> None:
    group = WaitGroup()
    for misuse in (group.done, lambda: group.add(-1), lambda: group.add(-(2**40))):
        with pytest.raises(RuntimeError, match="^negative WaitGroup counter$"):
            misuse()
    assert group.count == 0
    group.add(3)
    with pytest.raises(RuntimeError):
        group.add(-4)
    assert group.count == 3
    group.add(-3)
    assert group.wait(0)
    with pytest.raises((OverflowError, RuntimeError)):
        group.add(2**63)


def test_y11_go_adds_starts_and_marks_done_however_it_ends() -> None:
    group, event = WaitGroup(), Event()

    def fails() -> None:
        event.wait()
        raise KeyError("expected")

    def leaves() -> None:
        event.wait()
        goexit()

    def returns(*args: int, **kwargs: int) -> tuple[tuple[int, ...], dict[str, int]]:
        event.wait()
        return args, kwargs

    failing = group.go(fails)
    returning = group.go(returns, 1, two=2)
    group.go(leaves)
    cancelled = group.go(event.wait)
    assert group.count == 4
    waits(cancelled, EVENT)
    cancelled.cancel()
    assert not group.wait(0)
    event.set()
    assert group.wait(SECONDS)
    assert returning.result(0) == ((1,), {"two": 2})
    assert isinstance(failing.exception(0), KeyError)
    assert cancelled.cancelled()


def test_y11_go_of_no_callable_leaves_the_counter() -> None:
    group = WaitGroup()
    with pytest.raises(TypeError, match="callable"):
        group.go(1)  # type: ignore[arg-type]
    assert group.count == 0


# Once


def test_y12_once_runs_the_first_and_all_wait_for_it(two_workers: None, start: Any) -> None:
    once, event, calls = Once(), Event(), []

    def slow() -> None:
        calls.append(1)
        event.wait()
        calls.append(2)

    def caller() -> int:
        once.do(slow)
        return len(calls)

    callers = [start(caller) for _ in range(5)]
    until(lambda: calls)
    second = waits(go(once.do, lambda: calls.append(3)), MUTEX)
    event.set()
    assert [result() for result in callers] == [2] * 5
    second.result(SECONDS)
    once.do(lambda: calls.append(4))
    assert calls == [1, 2]


def test_y12_a_first_call_that_failed_counts_as_done() -> None:
    once, ran = Once(), []
    with pytest.raises(ZeroDivisionError):
        once.do(lambda: 1 / 0)
    once.do(lambda: ran.append(1))
    assert not ran


def test_y12_once_within_itself_waits_for_itself() -> None:
    once = Once()
    g = waits(go(once.do, lambda: once.do(lambda: None)), MUTEX)
    g.cancel()
    assert g.join(SECONDS) and g.cancelled()


def test_y12_once_value_remembers_the_value() -> None:
    calls = AtomicInt()

    def make() -> object:
        calls.add()
        gosched()
        return object()

    get = once_value(make)
    values = results([go(get) for _ in range(20)]) + [get()]
    assert len(set(values)) == 1 and calls.load() == 1


def test_y12_once_value_repeats_its_failure_with_the_same_traceback() -> None:
    calls = AtomicInt()

    def fail() -> None:
        calls.add()
        raise KeyError("again")

    get, seen = once_value(fail), []
    for _ in range(5):
        with pytest.raises(KeyError, match="again") as caught:
            get()
        seen.append((caught.value, len(caught.traceback)))
    assert len(set(seen)) == 1 and calls.load() == 1


def test_y12_once_value_does_not_hand_on_a_cancellation() -> None:
    event = Event()
    get = once_value(event.wait)
    first = waits(go(get), EVENT)
    second = waits(go(get), MUTEX)
    first.cancel("enough")
    assert first.join(SECONDS) and first.cancelled()
    assert isinstance(second.exception(SECONDS), CancelledError) and not second.cancelled()
    with pytest.raises(CancelledError, match="enough"):
        get()


# Cond


def test_y13_cond_wakes_in_order_and_holds_the_mutex() -> None:
    mutex = Mutex()
    cond, order = Cond(mutex), []

    def waiter(i: int) -> None:
        with cond:
            assert cond.wait()
            assert mutex.locked()
            order.append(i)

    goroutines = [waits(go(waiter, i), COND) for i in range(10)]
    assert not mutex.locked()
    for i in range(5):
        cond.notify()
        until(lambda i=i: len(order) == i + 1)
    cond.notify_all()
    results(goroutines)
    assert order[:5] == [0, 1, 2, 3, 4] and sorted(order) == list(range(10))
    assert cond.mutex is mutex


def test_y13_a_notify_without_a_waiter_is_lost() -> None:
    cond = Cond(Mutex())
    cond.notify()
    cond.notify_all()
    with cond:
        assert not cond.wait(0) and not cond.wait(0.001)


def test_y13_a_later_waiter_steals_no_notify() -> None:
    mutex = Mutex()
    cond = Cond(mutex)

    def waiter(timeout: float | None) -> bool:
        with cond:
            return cond.wait(timeout)

    for _ in range(count(200)):
        first = waits(go(waiter, None), COND)
        with mutex:
            cond.notify()
        assert go(waiter, 0).result(SECONDS) is False
        assert first.result(SECONDS)


def test_y13_a_cancelled_waiter_eats_no_notify() -> None:
    mutex = Mutex()
    cond = Cond(mutex)

    def waiter() -> bool:
        with cond:
            return cond.wait()

    first, second = (waits(go(waiter), COND) for _ in range(2))
    with mutex:
        first.cancel()
        cond.notify()
        waits(first, MUTEX)  # it takes the mutex again before it goes
    assert first.join(SECONDS) and first.cancelled()
    assert second.result(SECONDS)
    assert not mutex.locked()


def test_y13_waiting_without_the_mutex_is_an_error() -> None:
    cond = Cond(Mutex())
    with pytest.raises(RuntimeError, match="^Cond.wait with its Mutex unlocked$"):
        cond.wait()
    with pytest.raises(TypeError):
        Cond(threading.Lock())  # type: ignore[arg-type]


def test_y13_cond_between_threads_and_goroutines(start: Any) -> None:
    cond, items = Cond(Mutex()), []

    def consumer() -> int:
        total = 0
        while True:
            with cond:
                while not items:
                    assert cond.wait(SECONDS)
                item = items.pop(0)
            if item is None:
                return total
            total += item

    result, n = start(consumer), count(1000)
    for i in range(n):
        with cond:
            items.append(i)
            cond.notify()
    with cond:
        items.append(None)
        cond.notify()
    assert result() == sum(range(n))


# What holds for all of them

OBJECTS: dict[str, Callable[[], Any]] = {
    "AtomicInt": AtomicInt,
    "Barrier": lambda: Barrier(2),
    "Cond": lambda: Cond(Mutex()),
    "Event": Event,
    "Map": Map,
    "Mutex": Mutex,
    "Once": Once,
    "Pool": Pool,
    "RWMutex": RWMutex,
    "RWMutexSide": lambda: RWMutex().read(),
    "Semaphore": lambda: Semaphore(1),
    "SingleFlight": SingleFlight,
    "WaitGroup": WaitGroup,
    "Timer": lambda: goslings.Timer(1000),
    "Ticker": lambda: goslings.Ticker(1000),
}


@pytest.mark.parametrize("what", OBJECTS)
def test_y14_synchronisation_objects_are_not_copied(what: str) -> None:
    made = OBJECTS[what]()
    for refuse in (copy.copy, copy.deepcopy, pickle.dumps, lambda made: copy.deepcopy([made])):
        with pytest.raises(TypeError, match=what):
            refuse(made)


@pytest.mark.parametrize("what", [what for what in OBJECTS if what != "RWMutexSide"])
def test_y14_they_can_be_referred_to_weakly(what: str) -> None:
    made = OBJECTS[what]()
    reference = weakref.ref(made)
    assert reference() is made


BLOCKERS: dict[str, tuple[str, Callable[[], tuple[Callable[..., Any], Callable[[], Any]]]]] = {}
"""Name: what a goroutine that waits there shows, and a maker of (a call that waits, what ends the wait)."""


def blocker(reason: str) -> Callable[[Any], Any]:
    def register(make: Any) -> Any:
        BLOCKERS[make.__name__.removeprefix("a_")] = reason, make
        return make

    return register


@blocker(MUTEX)
def a_mutex() -> Any:
    mutex = Mutex()
    mutex.lock()
    return mutex.lock, mutex.unlock


@blocker(RLOCK)
def a_read_lock() -> Any:
    rw = RWMutex()
    rw.lock()
    return rw.rlock, rw.unlock


@blocker(LOCK)
def a_write_lock() -> Any:
    rw = RWMutex()
    rw.rlock()
    return rw.lock, rw.runlock


@blocker(GROUP)
def a_group() -> Any:
    group = WaitGroup()
    group.add()
    return group.wait, group.done


@blocker(EVENT)
def an_event() -> Any:
    event = Event()
    return event.wait, event.set


@blocker(COND)
def a_cond() -> Any:
    cond, told = Cond(Mutex()), []

    def wait(timeout: Any = None) -> bool:
        with cond:
            return bool(told) or cond.wait(timeout)

    def tell() -> None:
        with cond:
            told.append(True)
            cond.notify()

    return wait, tell


@blocker(ACQUIRE)
def a_semaphore() -> Any:
    semaphore = Semaphore(1)
    semaphore.acquire()
    return lambda timeout=None: semaphore.acquire(1, timeout), semaphore.release


@blocker(BARRIER)
def a_barrier() -> Any:
    barrier = Barrier(2)
    return barrier.wait, barrier.wait


@pytest.mark.parametrize("name", BLOCKERS)
def test_each_parks_goroutines_and_puts_threads_to_sleep(name: str, start: Any) -> None:
    reason, make = BLOCKERS[name]
    call, end = make()
    g = waits(go(call), reason)
    end()
    g.result(SECONDS)
    call, end = make()
    finish = chan(1)

    def waiter() -> bool:
        finish.send(None)
        call(timeout=SECONDS)
        return True

    result = start(waiter)
    finish.recv()
    end()
    assert result()


@pytest.mark.parametrize("name", BLOCKERS)
def test_each_can_time_out_and_be_used_afterwards(name: str, start: Any) -> None:
    _, make = BLOCKERS[name]
    call, end = make()

    def waiter() -> Any:
        started = time.monotonic()
        try:
            return call(timeout=0.01)
        except TimeoutError:
            return False
        finally:
            assert time.monotonic() - started >= 0.01

    assert start(waiter)() is False
    for zero in (0, -1.0, float("-inf")):
        with contextlib.suppress(TimeoutError, threading.BrokenBarrierError):
            assert call(timeout=zero) is False
    if name != "barrier":  # which is broken now: see below
        end()
        assert call(timeout=0) in (None, True)


@pytest.mark.parametrize("name", BLOCKERS)
def test_each_can_be_cancelled_and_leaves_no_trace(name: str) -> None:
    reason, make = BLOCKERS[name]
    call, end = make()
    caught: list[BaseException] = []

    def waiter() -> None:
        try:
            call()
        except Cancelled as error:
            caught.append(error)
            raise

    g = waits(go(waiter), reason)
    assert g.cancel("enough")
    assert g.join(SECONDS) and g.cancelled()
    assert caught[0].args == ("enough",)
    if name == "barrier":
        return  # broken now: see below
    other = waits(go(call), reason)
    end()
    assert other.result(SECONDS) in (None, True)


@pytest.mark.parametrize("name", BLOCKERS)
def test_each_is_a_cancel_point_at_its_start(name: str) -> None:
    _, make = BLOCKERS[name]
    call, _ = make()

    def waiter() -> None:
        me = current()
        assert me is not None
        me.cancel()
        call(timeout=0)

    g = go(waiter)
    assert g.join(SECONDS) and g.cancelled()


@pytest.mark.parametrize("name", BLOCKERS)
def test_each_refuses_a_timeout_that_is_none(name: str) -> None:
    _, make = BLOCKERS[name]
    call, _ = make()
    with pytest.raises(ValueError, match="NaN"):
        call(timeout=float("nan"))
    with pytest.raises(TypeError, match="timeout must be a number of seconds, not str"):
        call(timeout="1")


@pytest.mark.parametrize("name", BLOCKERS)
def test_a_wait_of_the_main_thread_ends_with_ctrl_c(name: str) -> None:
    assert (
        check_child(f"""
        import os, signal, sys, threading
        sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
        import test_sync
        call, end = test_sync.BLOCKERS[{name!r}][1]()
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            call()
        except KeyboardInterrupt:
            print("interrupted")
        """)
        == "interrupted\n"
    )


# Pool


def test_y15_a_pool_gives_back_what_was_put_else_something_new(collect: None) -> None:
    made = iter(range(100))
    pool = Pool(lambda: next(made))
    assert [pool.get(), pool.get()] == [0, 1]
    pool.put(0)
    pool.put(None)
    assert [pool.get(), pool.get()] == [0, 2]
    assert Pool[int]().get() is None


def test_y15_what_is_in_a_pool_survives_one_collection_not_two(collect: None) -> None:
    pool: Pool[object] = Pool()
    item = object()
    pool.put(item)
    gc.collect()
    assert pool.get() is item
    pool.put(item)
    gc.collect()
    gc.collect()
    assert pool.get() is None
    pool.put(item)
    gc.collect()
    pool.put(other := object())
    gc.collect()
    assert pool.get() is other and pool.get() is None


def test_y15_collections_that_nobody_asked_for_empty_a_pool_too() -> None:
    class Item:
        pass

    pool: Pool[Item] = Pool()
    references = [weakref.ref(item) for item in [Item()] if pool.put(item) is None]
    keep: list[Any] = []

    def litter() -> bool:
        for _ in range(20_000):
            cycle: list[Any] = []
            cycle.append(cycle)
            keep.append([cycle])
        pool.put(Item())
        return references[0]() is None

    until(litter)


def test_y15_a_pool_shares_with_goroutines(two_workers: None) -> None:
    pool, n = Pool(object), count(1000)

    def user() -> int:
        inside = 0
        for _ in range(n):
            item = pool.get()
            inside += item is not None
            pool.put(item)
        return inside

    assert results([go(user) for _ in range(4)]) == [n] * 4


# Map


def test_y16_each_operation_of_a_map() -> None:
    m: Map[str, int] = Map()
    assert (m.load("a"), m.load("a", 5), "a" in m, len(m), bool(m)) == (None, 5, False, 0, True)
    m.store("a", 1)
    assert (m.load("a"), m.load("a", 5), "a" in m, len(m)) == (1, 1, True, 1)
    assert m.load_or_store("a", 2) == (1, True)
    assert m.load_or_store("b", 2) == (2, False)
    assert m.swap("b", 3) == (2, True)
    assert m.swap("c", 4) == (None, False)
    assert not m.compare_and_swap("missing", 0, 1)
    assert not m.compare_and_swap("c", 0, 1)
    assert m.compare_and_swap("c", 4, 5)
    assert not m.compare_and_delete("c", 4) and not m.compare_and_delete("missing", 4)
    assert m.compare_and_delete("c", 5)
    assert m.load_and_delete("b") == (3, True)
    assert m.load_and_delete("b") == (None, False)
    m.delete("a")
    m.delete("a")
    assert len(m) == 0
    m.store("x", 1)
    m.clear()
    assert list(m.range()) == []
    with pytest.raises(TypeError, match="unhashable"):
        m.store([], 1)  # type: ignore[arg-type]
    m.store("still", 1)  # nothing stayed locked
    assert dict(m.range()) == {"still": 1}


def test_y16_none_is_a_value() -> None:
    m: Map[int, None] = Map()
    assert m.load_or_store(1, None) == (None, False)
    assert m.load_or_store(1, None) == (None, True)
    assert m.compare_and_swap(1, None, None)
    assert not m.compare_and_swap(2, None, None)


def test_y16_range_sees_no_key_twice_and_allows_changes() -> None:
    m: Map[int, int] = Map()
    for i in range(100):
        m.store(i, i)
    seen = []
    for key, value in m.range():
        seen.append(key)
        assert value == key
        m.delete(key + 1)
        m.store(key + 1000, 0)
    assert seen == list(range(0, 100, 2))


def test_y16_operations_are_atomic(two_workers: None, fast_switching: None) -> None:
    m: Map[str, int] = Map()
    m.store("n", 0)
    winners, n = AtomicInt(), count(300)

    def worker(name: int) -> None:
        for i in range(n):
            while not m.compare_and_swap("n", value := m.load("n", 0), value + 1):
                pass
            winners.add(not m.load_or_store(f"once {i}", name)[1])
            list(m.range())

    results([go(worker, name) for name in range(4)])
    assert (m.load("n"), winners.load()) == (4 * n, n)


# AtomicInt


def test_y17_each_operation_of_an_atomic_int() -> None:
    a = AtomicInt()
    assert (a.load(), int(a), repr(a)) == (0, 0, "AtomicInt(0)")
    a.store(5)
    assert (a.add(), a.add(2), a.add(-10), a.swap(7), a.load()) == (6, 8, -2, -2, 7)
    assert a.compare_and_swap(7, 8) and not a.compare_and_swap(7, 9) and a.load() == 8
    assert AtomicInt(3).load() == 3


def test_y17_it_wraps_at_64_bits_and_refuses_what_does_not_fit() -> None:
    a = AtomicInt(2**63 - 1)
    assert a.add(1) == -(2**63)
    assert a.add(-1) == 2**63 - 1
    for misuse in (lambda: a.store(2**63), lambda: a.add(-(2**63) - 1), lambda: AtomicInt(2**64)):
        with pytest.raises(OverflowError):
            misuse()
    with pytest.raises(TypeError):
        a.store(1.5)  # type: ignore[arg-type]
    assert a.load() == 2**63 - 1


def test_y17_counting_together_loses_nothing(two_workers: None, fast_switching: None) -> None:
    a, n = AtomicInt(), count(5000)

    def adder() -> None:
        for _ in range(n):
            a.add()

    threads = [threading.Thread(target=adder) for _ in range(2)]
    for thread in threads:
        thread.start()
    results([go(adder) for _ in range(4)])
    for thread in threads:
        thread.join(SECONDS)
    assert a.load() == 6 * n


def test_y17_stores_are_seen_in_one_order(two_workers: None) -> None:
    # Store buffering: at least one of the two sees the other's store.
    for _ in range(count(300)):
        x, y, ready = AtomicInt(), AtomicInt(), Barrier(2)

        def one(mine: AtomicInt, other: AtomicInt, ready: Barrier = ready) -> int:
            ready.wait(SECONDS)
            mine.store(1)
            return other.load()

        assert 1 in results([go(one, x, y), go(one, y, x)])


# Y18: what came before is seen after


class Box:
    value = 0


@contextlib.contextmanager
def passing_on(send: Callable[[], Any], receive: Callable[[], Any]) -> Iterator[None]:
    box = Box()

    def writer() -> None:
        box.value = 1
        send()

    def reader() -> int:
        receive()
        return box.value

    r, w = go(reader), go(writer)
    yield
    assert r.result(SECONDS) == 1
    w.result(SECONDS)


def test_y18_each_hands_on_what_came_before(two_workers: None) -> None:
    for _ in range(count(100)):
        mutex, group, event, once, semaphore = Mutex(), WaitGroup(), Event(), Once(), Semaphore(1)
        m: Map[int, int] = Map()
        pool: Pool[int] = Pool()
        mutex.lock()
        group.add()
        semaphore.acquire()
        cond, told = Cond(Mutex()), []
        rw = RWMutex()
        rw.lock()

        def tell(cond: Cond = cond, told: list[int] = told) -> None:
            with cond:
                told.append(1)
                cond.notify()

        def hear(cond: Cond = cond, told: list[int] = told) -> None:
            with cond:
                while not told:
                    cond.wait()

        pairs: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
            (mutex.unlock, mutex.lock),
            (rw.unlock, rw.rlock),
            (group.done, group.wait),
            (event.set, event.wait),
            (semaphore.release, semaphore.acquire),
            (tell, hear),
            (lambda m=m: m.store(1, 1), lambda m=m: until(lambda: 1 in m)),
            (lambda pool=pool: pool.put(1), lambda pool=pool: until(pool.get)),
        ]
        with contextlib.ExitStack() as stack:
            for send, receive in pairs:
                stack.enter_context(passing_on(send, receive))
        box = Box()
        results([go(once.do, lambda box=box: setattr(box, "value", 1)) for _ in range(2)])
        assert box.value == 1


# SingleFlight


def test_e05_of_calls_at_one_time_one_is_made_and_all_get_its_answer(start: Any) -> None:
    flight, event, calls = SingleFlight(), Event(), AtomicInt()

    def fetch() -> object:
        calls.add()
        event.wait()
        return object()

    first = waits(go(flight.do, "key", fetch), EVENT)
    others = [start(lambda: flight.do("key", fetch)) for _ in range(3)]
    goroutines = [waits(go(flight.do, "key", fetch), EVENT) for _ in range(5)]
    assert flight.do("other key", lambda: 5) == 5
    with pytest.raises(TimeoutError, match="under way"):
        flight.do("key", fetch, timeout=0.001)
    event.set()
    answers = {first.result(SECONDS), *results(goroutines), *(other() for other in others)}
    assert calls.load() == len(answers)
    # A thread may have come late, and made a call of its own; the goroutines had not.
    assert len({first.result(), *results(goroutines)}) == 1
    assert flight.do("key", lambda: 7) == 7  # nothing is remembered


def test_e05_forget_lets_the_next_call_start_anew() -> None:
    flight, event, calls = SingleFlight(), Event(), AtomicInt()

    def fetch() -> int:
        event.wait()
        return calls.add()

    first = waits(go(flight.do, "key", fetch), EVENT)
    flight.forget("key")
    flight.forget("never heard of")
    second = waits(go(flight.do, "key", fetch), EVENT)
    third = waits(go(flight.do, "key", fetch), EVENT)
    event.set()
    assert sorted(results([first, second])) == [1, 2]
    assert third.result(SECONDS) == second.result(SECONDS)


def test_e06_a_failure_reaches_all_who_share_the_call() -> None:
    flight, event = SingleFlight(), Event()

    def fail() -> None:
        event.wait()
        raise KeyError("shared")

    goroutines = [waits(go(flight.do, 1, fail), EVENT) for _ in range(3)]
    event.set()
    errors = {goroutine.exception(SECONDS) for goroutine in goroutines}
    assert len(errors) == 1 and isinstance(errors.pop(), KeyError)


def test_e06_a_cancelled_caller_cancels_nobody_else() -> None:
    flight, event = SingleFlight(), Event()
    first = waits(go(flight.do, 1, event.wait), EVENT)
    second = waits(go(flight.do, 1, event.wait), EVENT)
    first.cancel("enough")
    assert first.join(SECONDS) and first.cancelled()
    assert isinstance(second.exception(SECONDS), CancelledError) and not second.cancelled()
    assert flight.do(1, lambda: 5) == 5


def test_e06_a_cancellation_that_comes_when_the_answer_is_there_waits_its_turn() -> None:
    flight, event, told = SingleFlight(), Event(), []

    def fetch() -> int:
        event.wait()
        me = current()
        assert me is not None
        me.cancel("later")
        return 5

    def first() -> None:
        told.append(flight.do(1, fetch))
        goslings.sleep(0)

    one = waits(go(first), EVENT)
    two = waits(go(flight.do, 1, fetch), EVENT)
    event.set()
    assert two.result(SECONDS) == 5
    assert one.join(SECONDS) and one.cancelled() and told == [5]


def test_e06_a_failed_call_leaves_no_cycle(collect: None) -> None:
    class Mark:
        pass

    flight, marks = SingleFlight(), []

    def fail() -> None:
        mark = Mark()
        marks.append(weakref.ref(mark))
        raise KeyError

    with contextlib.suppress(KeyError):
        flight.do(1, fail)
    assert marks[0]() is None


# Semaphore


def test_e07_a_semaphore_is_first_in_first_out_and_a_large_wish_holds_back_small_ones() -> None:
    semaphore, order = Semaphore(3), []
    semaphore.acquire(2)

    def taker(n: int) -> None:
        semaphore.acquire(n)
        order.append(n)
        semaphore.release(n)

    large = waits(go(taker, 3), ACQUIRE)
    assert not semaphore.try_acquire(1)
    small = waits(go(taker, 1), ACQUIRE)
    with pytest.raises(TimeoutError, match="^acquire timed out$"):
        semaphore.acquire(1, timeout=0.001)
    semaphore.release(2)
    results([large, small])
    assert order == [3, 1]
    assert semaphore.try_acquire(3) and not semaphore.try_acquire()


def test_e08_a_wait_that_was_cancelled_lets_the_next_in() -> None:
    semaphore = Semaphore(3)
    semaphore.acquire(2)
    large = waits(go(semaphore.acquire, 3), ACQUIRE)
    small = waits(go(semaphore.acquire, 1), ACQUIRE)
    large.cancel()
    assert small.result(SECONDS) is None
    assert large.join(SECONDS) and large.cancelled()
    semaphore.release(3)
    assert semaphore.try_acquire(3)


def test_e08_misuse_is_an_error_at_the_culprit() -> None:
    semaphore = Semaphore(3)
    for release in (1, 4, 2**62):
        with pytest.raises(RuntimeError, match="^release of more permits than were acquired$"):
            semaphore.release(release)
    with pytest.raises(ValueError, match="^cannot acquire 4 of 3 permits$"):
        semaphore.acquire(4)
    assert not semaphore.try_acquire(4)
    for misuse in (lambda: Semaphore(-1), lambda: semaphore.acquire(-1), lambda: semaphore.release(-1)):
        with pytest.raises(ValueError, match="negative"):
            misuse()
    semaphore.acquire(0)
    semaphore.release(0)
    with semaphore:
        assert not semaphore.try_acquire(3)
    assert semaphore.try_acquire(3)


def test_a_semaphore_bounds_who_is_inside(two_workers: None, fast_switching: None) -> None:
    semaphore, inside, most = Semaphore(3), AtomicInt(), []

    def worker() -> None:
        for _ in range(count(100)):
            with semaphore:
                most.append(inside.add())
                gosched()
                inside.add(-1)

    threads = [threading.Thread(target=worker) for _ in range(2)]
    for thread in threads:
        thread.start()
    results([go(worker) for _ in range(6)])
    for thread in threads:
        thread.join(SECONDS)
    assert 1 <= max(most) <= 3


# Event and Barrier


def test_an_event_releases_all_and_can_be_cleared(start: Any) -> None:
    event = Event()
    assert not event.is_set() and not event.wait(0)
    waiters = [start(event.wait) for _ in range(3)]
    goroutines = [waits(go(event.wait), EVENT) for _ in range(3)]
    event.set()
    event.set()
    assert event.is_set() and event.wait(0)
    assert results(goroutines) == [True] * 3
    assert [waiter() for waiter in waiters] == [True] * 3
    event.clear()
    assert not event.is_set() and not event.wait(0)


def test_an_event_that_is_cleared_at_once_has_released_those_who_waited() -> None:
    event = Event()
    goroutines = [waits(go(event.wait), EVENT) for _ in range(10)]
    event.set()
    event.clear()
    assert results(goroutines) == [True] * 10


def test_a_barrier_lets_all_pass_together_again_and_again(two_workers: None, start: Any) -> None:
    parties, rounds = 4, count(50)
    barrier, arrived = Barrier(parties), [AtomicInt() for _ in range(rounds)]
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (parties, 0, False)

    def party() -> list[int]:
        numbers = []
        for i in range(rounds):
            arrived[i].add()
            numbers.append(barrier.wait(SECONDS))
            assert arrived[i].load() == parties
        return numbers

    numbers = [result() for result in [start(party) for _ in range(parties)]]
    for each in zip(*numbers, strict=True):
        assert sorted(each) == list(range(parties))


def test_a_barrier_that_somebody_leaves_is_broken_for_all() -> None:
    for leave in ("cancel", "timeout", "abort"):
        barrier = Barrier(3)
        first = waits(go(barrier.wait), BARRIER)
        if leave == "abort":
            barrier.abort()
        elif leave == "cancel":
            second = waits(go(barrier.wait), BARRIER)
            assert barrier.n_waiting == 2
            second.cancel()
            assert second.join(SECONDS)
        else:
            with pytest.raises(TimeoutError, match="^barrier wait timed out$"):
                barrier.wait(0.001)
        assert isinstance(first.exception(SECONDS), threading.BrokenBarrierError)
        assert barrier.broken
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait()
        barrier.reset()
        assert not barrier.broken
        assert sorted(results([go(barrier.wait) for _ in range(3)])) == [0, 1, 2]


def test_a_barrier_that_is_reset_tells_those_who_wait() -> None:
    barrier = Barrier(2)
    first = waits(go(barrier.wait), BARRIER)
    barrier.reset()
    assert isinstance(first.exception(SECONDS), threading.BrokenBarrierError)
    assert not barrier.broken


def test_a_barrier_needs_somebody() -> None:
    for n in (0, -1):
        with pytest.raises(ValueError, match="positive"):
            Barrier(n)
    assert Barrier(1).wait() == 0


# Cancelled at random moments: nothing is lost


def test_cancelling_lockers_loses_no_lock(two_workers: None, rng: Any) -> None:
    mutex, semaphore, rw = Mutex(), Semaphore(2), RWMutex()

    def locker() -> None:
        for _ in range(5):
            with mutex, semaphore, rw.read():
                gosched()
            with rw.write():
                gosched()

    goroutines = []
    for _ in range(count(100)):
        goroutines += [go(locker) for _ in range(4)]
        for _ in range(rng.randrange(4)):
            rng.choice(goroutines).cancel()
        gosched()
    for goroutine in goroutines:
        assert goroutine.join(SECONDS)
        if not goroutine.cancelled():
            goroutine.result()
    assert mutex.try_lock() and semaphore.try_acquire(2) and rw.try_lock()
