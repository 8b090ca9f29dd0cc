"""The workloads on gevent: its own queues (compiled), greenlets, its thread pool for `cpu`.

`unbuffered` uses gevent.queue.Channel, a true rendezvous. It has no select over queues.
"""

from __future__ import annotations

from typing import Any

import gevent
import gevent.lock
import gevent.queue
from gevent.threadpool import ThreadPool
from harness import (
    Memory,
    Options,
    Result,
    Workload,
    chain_result,
    cpu_result,
    delays,
    lost,
    now,
    parked_result,
    run,
    sieve_result,
    spin,
    sum_below,
    timer_result,
)


def nothing() -> None:
    """The body of a no-op greenlet."""


def spawn(n: int, opt: Options) -> Result:
    start = now()
    gevent.joinall([gevent.spawn(nothing) for _ in range(n)])
    return Result(now() - start, n)


def pingpong(n: int, opt: Options) -> Result:
    ping, pong = gevent.queue.Channel(), gevent.queue.Channel()

    def answer() -> None:
        for _ in range(n):
            pong.put(ping.get())

    start = now()
    gevent.spawn(answer)
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
    gevent.spawn(produce)
    total = 0
    for _ in range(n):
        total += ch.get()
    return Result(now() - start, n, lost(total, sum_below(n)))


def unbuffered(n: int, opt: Options) -> Result:
    return stream(n, gevent.queue.Channel())


def buffered(n: int, opt: Options) -> Result:
    return stream(n, gevent.queue.SimpleQueue(1024))


def mpmc(n: int, opt: Options) -> Result:
    each = n // 4
    ch = gevent.queue.SimpleQueue(128)
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
    gevent.joinall([gevent.spawn(fn) for fn in [produce, consume] * 4])
    return Result(now() - start, 4 * each, lost(sum(sums), 4 * sum_below(each)))


def chain(n: int, opt: Options) -> Result:
    memory = Memory()

    def link(left: Any, right: Any) -> None:
        left.put(1 + right.get())

    start = now()
    leftmost = gevent.queue.Channel()
    left = leftmost
    for _ in range(n):
        right = gevent.queue.Channel()
        gevent.spawn(link, left, right)
        left = right
    gevent.spawn(left.put, 1)
    got = leftmost.get()
    return chain_result(n, now() - start, got, memory)


def parked(n: int, opt: Options) -> Result:
    memory = Memory()
    gate = gevent.queue.SimpleQueue()
    woken = 0

    def wait() -> None:
        nonlocal woken
        gate.get()
        woken += 1

    begin = now()
    waiting = [gevent.spawn(wait) for _ in range(n)]
    gevent.sleep(0)
    start = now() - begin
    gevent.sleep(0.1)
    each = memory.each(n)
    begin = now()
    for _ in range(n):
        gate.put(None)
    gevent.joinall(waiting)
    return parked_result(n, start, now() - begin, woken, each)


def mutex(n: int, opt: Options) -> Result:
    each = n // 8
    lock = gevent.lock.Semaphore()
    count = 0

    def add() -> None:
        nonlocal count
        for _ in range(each):
            with lock:
                count += 1

    start = now()
    gevent.joinall([gevent.spawn(add) for _ in range(8)])
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
    ch = gevent.queue.Channel()
    gevent.spawn(generate, ch)
    last = 0
    for _ in range(n):
        last = ch.get()
        after = gevent.queue.Channel()
        gevent.spawn(sift, ch, after, last)
        ch = after
    return sieve_result(n, now() - start, last)


def timer(n: int, opt: Options) -> Result:
    late: list[float] = []

    def nap(delay: float) -> None:
        begin = now()
        gevent.sleep(delay)
        late.append(now() - begin - delay)

    pauses = delays(n)
    start = now()
    gevent.joinall([gevent.spawn(nap, delay) for delay in pauses])
    return timer_result(n, now() - start, late)


def cpu(n: int, opt: Options) -> Result:
    pool = ThreadPool(2)
    return cpu_result(
        n,
        lambda: [spin() for _ in range(n)],
        lambda: [job.get() for job in [pool.spawn(spin) for _ in range(n)]],
    )


WORKLOADS: dict[str, Workload] = {
    f.__name__: f
    for f in (
        spawn, pingpong, unbuffered, buffered, mpmc, chain, parked, mutex, sieve, timer, cpu,
    )
}  # fmt: skip

if __name__ == "__main__":
    run("gevent", gevent.__version__, WORKLOADS)
