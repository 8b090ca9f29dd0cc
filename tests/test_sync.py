"""Synchronisation: rows Y01 to Y18, E05, E07 and E08 of the table of semantics, and what Python adds."""

from __future__ import annotations

import contextlib
import copy
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import goslings
import pytest
from goslings import (
    AtomicInt,
    Barrier,
    Cancelled,
    Cond,
    Event,
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
    gosched,
)
from helpers import (
    ACQUIRE,
    BARRIER,
    COND,
    EVENT,
    GROUP,
    LOCK,
    MUTEX,
    RLOCK,
    SECONDS,
    check_child,
    count,
    results,
    until,
    waits,
)

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
