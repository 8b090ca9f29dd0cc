"""What the types say of correct programs. `make test` has mypy check it, and runs it."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, assert_type

import goslings
from goslings import (
    AtomicInt,
    Barrier,
    Case,
    Closed,
    Cond,
    Context,
    DeadlineExceeded,
    Event,
    Goroutine,
    GoroutineStack,
    Group,
    Map,
    Mutex,
    Once,
    Pool,
    RecvChan,
    RWMutex,
    Selected,
    Semaphore,
    SendChan,
    SingleFlight,
    Stats,
    Ticker,
    Timer,
    WaitGroup,
    after,
    after_func,
    background,
    blocking,
    chan,
    current,
    dump,
    go,
    goexit,
    gomaxprocs,
    gosched,
    leaks,
    lock_os_thread,
    num_goroutine,
    once_value,
    parmap,
    recv,
    select,
    send,
    sleep,
    stacks,
    stats,
    unlock_os_thread,
)


async def ajoin(a: str, b: int) -> str:
    return f"{a}{b}"


def join(a: str, b: int, *, sep: str = "-") -> str:
    return f"{a}{sep}{b}"


class Animal:
    pass


class Dog(Animal):
    def bark(self) -> str:
        return "woof"


def goroutines() -> None:
    g = go(join, "a", 1, sep="+")
    assert_type(g, Goroutine[str])
    assert_type(g.result(), str)
    assert_type(g.result(timeout=1), str)
    assert_type(g.exception(), BaseException | None)
    assert_type(g.join(1.5), bool)
    assert_type(g.done(), bool)
    assert_type(g.cancel("because"), bool)
    assert_type(g.id, int)
    g.name = "joiner"
    assert_type(g.name, str)
    assert_type(g.finished, RecvChan[None])
    g.add_done_callback(lambda done: assert_type(done.result(), str))
    wide: Goroutine[object] = g  # what gives a str gives an object
    assert_type(wide.result(), object)
    assert_type(current(), Goroutine[Any] | None)
    assert_type(go(lambda: 5).result(), int)
    gosched()
    lock_os_thread()
    unlock_os_thread()


def leaves() -> int:
    goexit()


def channels() -> None:
    ch = chan[int](2)
    assert_type(ch, chan[int])
    ch.send(1)
    ch.send(2, timeout=1)
    assert_type(ch.recv(), int)
    value, ok = ch.recv_ok()
    assert_type(value, int | None)
    assert_type(ok, bool)
    match ch.try_recv(None), ch.try_recv(default="nothing"):
        case None, str():
            pass
    assert_type(ch.try_recv(None), int | None)
    assert_type(ch.try_send(3), bool)
    assert_type(ch.try_recv(), int)
    assert_type((len(ch), ch.capacity, ch.closed), tuple[int, int, bool])
    with ch as same:
        assert_type(same, chan[int])
    for number in ch:
        assert_type(number, int)
    annotated: chan[str] = chan()
    assert_type(annotated.sender(), SendChan[str])
    assert_type(annotated.receiver(), RecvChan[str])


def recv_ok_tells_one_from_the_other(ch: RecvChan[int]) -> int:
    match ch.recv_ok():
        case (value, True):
            assert_type(value, int)
            return value
        case (nothing, False):
            assert_type(nothing, None)
            return -1


def views() -> None:
    ch = chan[Animal](1)
    sends_dogs: SendChan[Dog] = ch.sender()  # who takes any animal takes a dog
    sends_dogs.send(Dog())
    dogs = chan[Dog](1)
    dogs.send(Dog())
    gives_animals: RecvChan[Animal] = dogs.receiver()
    assert_type(gives_animals.recv(), Animal)


def selecting() -> None:
    numbers, words = chan[int](1), chan[str](1)
    assert_type(recv(numbers), Case)
    assert_type(send(words.sender(), "a"), Case)
    numbers.send(1)
    assert_type(select(recv(numbers), recv(words.receiver()), recv(None)), Selected[Any])
    assert_type(select(recv(numbers), timeout=0), Selected[Any] | None)
    known: Selected[str] | None = select(recv(words), timeout=0)
    if known is not None:
        assert_type(known.value, str)
    match select(recv(numbers), send(words, "b"), send(None, 5), timeout=1.0):
        case Selected(0, number, True):
            print(number)
        case Selected(index=1):
            pass
        case None:
            pass


def never_ready(waits: bool) -> None:
    if waits:
        select()


def time() -> None:
    sleep(0)
    assert_type(after(0).recv(), float)
    timer = Timer(1000)
    assert_type(timer.c, RecvChan[float])
    assert_type(timer.reset(2000), bool)
    assert_type(timer.stop(), bool)
    assert_type(after_func(1000, goroutines), Timer)
    with Ticker(0.001) as ticker:
        for tick in ticker:
            assert_type(tick, float)
            break


def synchronisation() -> None:
    mutex, rw, semaphore, event = Mutex(), RWMutex(), Semaphore(2), Event()
    with mutex as locked, rw.read(), semaphore as taken:
        assert_type(locked, Mutex)
        assert_type(taken, Semaphore)
    with rw.write():
        pass
    mutex.lock(timeout=1)
    mutex.unlock()
    assert_type(mutex.try_lock(), bool)
    assert_type(event.wait(0), bool)
    group = WaitGroup()
    assert_type(group.go(join, "a", 1), Goroutine[str])
    assert_type(group.go(ajoin, "a", 1), Goroutine[str])
    assert_type(group.wait(), bool)
    cond = Cond(Mutex())
    with cond:
        assert_type(cond.wait(0), bool)
    assert_type(Barrier(1).wait(), int)
    assert_type(AtomicInt(1).add(), int)
    once = Once()
    once.do(goroutines)
    get = once_value(lambda: "value")
    assert_type(get, Callable[[], str])
    assert_type(get(), str)


def containers() -> None:
    m = Map[str, int]()
    assert_type(m.load("a"), int | None)
    assert_type(m.load("a", "none"), int | str)
    assert_type(m.load_or_store("a", 1), tuple[int, bool])
    for key, value in m.range():
        assert_type((key, value), tuple[str, int])
    pool = Pool(Dog)
    assert_type(pool.get(), Dog | None)
    pool.put(Dog())
    assert_type(SingleFlight().do("key", lambda: 1), int)


def structure() -> None:
    with Group(limit=2) as group:
        assert_type(group, Group)
        assert_type(group.go(join, "a", 1, sep="/"), Goroutine[str])
        assert_type(group.go(ajoin, "a", 1), Goroutine[str])
        assert_type(group.context, Context)
    for text in parmap(str, range(3), limit=2, ordered=False):
        assert_type(text, str)
    with parmap(len, ["a"]) as lengths:
        assert_type(next(lengths), int)
    with background().with_timeout(1) as context:
        assert_type(context, Context)
        assert_type(context.done, RecvChan[None])
        assert_type(context.err(), BaseException | None)
        assert_type(context.with_value(Dog, Dog()).after_func(gosched), Callable[[], bool])
    caught: TimeoutError = DeadlineExceeded()
    assert isinstance(caught, goslings.GoslingsError)


def the_rest() -> None:
    assert_type(blocking(join, "a", 1, sep="/"), str)
    assert_type(gomaxprocs(), int)
    assert_type(num_goroutine(), int)
    assert_type(stats(), Stats)
    assert_type(stats().switches, int)
    assert_type(stacks(), list[GoroutineStack])
    assert_type(leaks(), list[GoroutineStack])
    with open(os.devnull, "w") as file:
        dump(file, group=True)
    try:
        chan[int]().try_recv()
    except goslings.WouldBlock as error:
        assert_type(error, goslings.WouldBlock)
    ch = chan[int]()
    ch.close()
    try:
        ch.recv()
    except Closed:
        pass
    g = go(sleep, 1000)
    g.cancel()
    try:
        g.result()
    except CancelledError:
        pass


def main() -> None:
    goroutines()
    assert go(leaves).result() is None
    channels()
    with chan[int](1) as ch:
        ch.send(7)
        assert recv_ok_tells_one_from_the_other(ch.receiver()) == 7
    assert recv_ok_tells_one_from_the_other(ch.receiver()) == -1
    views()
    selecting()
    never_ready(False)
    time()
    synchronisation()
    containers()
    structure()
    the_rest()


if __name__ == "__main__":
    main()
