"""The workloads on eventlet: green threads and its LightQueue.

`LightQueue(0)` is a true rendezvous. It has no select over queues.
"""

from __future__ import annotations

from typing import Any

import eventlet
import eventlet.queue
import eventlet.semaphore
from harness import (
    Memory,
    Options,
    Result,
    Workload,
    chain_result,
    delays,
    lost,
    now,
    parked_result,
    run,
    sieve_result,
    sum_below,
    timer_result,
)


def all_of(threads: list[Any]) -> None:
    """Wait for each."""
    for thread in threads:
        thread.wait()


def nothing() -> None:
    """The body of a no-op greenlet."""


def spawn(n: int, opt: Options) -> Result:
    start = now()
    all_of([eventlet.spawn(nothing) for _ in range(n)])
    return Result(now() - start, n)


def pingpong(n: int, opt: Options) -> Result:
    ping, pong = eventlet.queue.LightQueue(0), eventlet.queue.LightQueue(0)

    def answer() -> None:
        for _ in range(n):
            pong.put(ping.get())

    start = now()
    eventlet.spawn(answer)
    total = 0
    for i in range(n):
        ping.put(i)
        total += pong.get()
    return Result(now() - start, n, lost(total, sum_below(n)))


def stream(n: int, ch: Any) -> Result:
    def produce() -> None:
        for i in range(n):
            ch.put(i)

    start = now()
    eventlet.spawn(produce)
    total = 0
    for _ in range(n):
        total += ch.get()
    return Result(now() - start, n, lost(total, sum_below(n)))


def unbuffered(n: int, opt: Options) -> Result:
    return stream(n, eventlet.queue.LightQueue(0))


def buffered(n: int, opt: Options) -> Result:
    return stream(n, eventlet.queue.LightQueue(1024))


def mpmc(n: int, opt: Options) -> Result:
    each = n // 4
    ch = eventlet.queue.LightQueue(128)
    sums: list[int] = []

    def produce() -> None:
        for i in range(each):
            ch.put(i)

    def consume() -> None:
        total = 0
        for _ in range(each):
            total += ch.get()
        sums.append(total)

    start = now()
    all_of([eventlet.spawn(fn) for fn in [produce, consume] * 4])
    return Result(now() - start, 4 * each, lost(sum(sums), 4 * sum_below(each)))


def chain(n: int, opt: Options) -> Result:
    memory = Memory()

    def link(left: Any, right: Any) -> None:
        left.put(1 + right.get())

    start = now()
    leftmost = eventlet.queue.LightQueue(0)
    left = leftmost
    for _ in range(n):
        right = eventlet.queue.LightQueue(0)
        eventlet.spawn(link, left, right)
        left = right
    eventlet.spawn(left.put, 1)
    got = leftmost.get()
    return chain_result(n, now() - start, got, memory)


def parked(n: int, opt: Options) -> Result:
    memory = Memory()
    gate = eventlet.queue.LightQueue()
    woken = 0

    def wait() -> None:
        nonlocal woken
        gate.get()
        woken += 1

    begin = now()
    waiting = [eventlet.spawn(wait) for _ in range(n)]
    eventlet.sleep(0)
    start = now() - begin
    eventlet.sleep(0.1)
    each = memory.each(n)
    begin = now()
    for _ in range(n):
        gate.put(None)
    all_of(waiting)
    return parked_result(n, start, now() - begin, woken, each)


def mutex(n: int, opt: Options) -> Result:
    each = n // 8
    lock = eventlet.semaphore.Semaphore()
    count = 0

    def add() -> None:
        nonlocal count
        for _ in range(each):
            with lock:
                count += 1

    start = now()
    all_of([eventlet.spawn(add) for _ in range(8)])
    return Result(now() - start, 8 * each, 8 * each - count)


def sieve(n: int, opt: Options) -> Result:
    def generate(out: Any) -> None:
        i = 2
        while True:
            out.put(i)
            i += 1

    def sift(source: Any, out: Any, prime: int) -> None:
        while True:
            i = source.get()
            if i % prime:
                out.put(i)

    start = now()
    ch = eventlet.queue.LightQueue(0)
    eventlet.spawn(generate, ch)
    last = 0
    for _ in range(n):
        last = ch.get()
        after = eventlet.queue.LightQueue(0)
        eventlet.spawn(sift, ch, after, last)
        ch = after
    return sieve_result(n, now() - start, last)


def timer(n: int, opt: Options) -> Result:
    late: list[float] = []

    def nap(delay: float) -> None:
        begin = now()
        eventlet.sleep(delay)
        late.append(now() - begin - delay)

    pauses = delays(n)
    start = now()
    all_of([eventlet.spawn(nap, delay) for delay in pauses])
    return timer_result(n, now() - start, late)


WORKLOADS: dict[str, Workload] = {
    f.__name__: f
    for f in (
        spawn, pingpong, unbuffered, buffered, mpmc, chain, parked, mutex, sieve, timer,
    )
}  # fmt: skip

if __name__ == "__main__":
    run("eventlet", eventlet.__version__, WORKLOADS)
