"""The workloads on pyroutine-rt: greenlets on several threads, and its Queue.

PYROUTINE_PROCS is the number of its threads. It has no unbuffered queue: one of size 1 stands in,
which asks less. It has no mutex and no select.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

import pyroutine
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
    pyroutine.gather(*[pyroutine.spawn(nothing) for _ in range(n)])
    return Result(now() - start, n)


def pingpong(n: int, opt: Options) -> Result:
    ping, pong = pyroutine.Queue(1), pyroutine.Queue(1)

    def answer() -> None:
        for _ in range(n):
            pong.put(ping.get())

    start = now()
    pyroutine.spawn(answer)
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
    pyroutine.spawn(produce)
    total = 0
    for _ in range(n):
        total += ch.get()
    return Result(now() - start, n, lost(total, sum_below(n)))


def unbuffered(n: int, opt: Options) -> Result:
    return stream(n, pyroutine.Queue(1))


def buffered(n: int, opt: Options) -> Result:
    return stream(n, pyroutine.Queue(1024))


def mpmc(n: int, opt: Options) -> Result:
    each = n // 4
    ch = pyroutine.Queue(128)
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
    pyroutine.gather(*[pyroutine.spawn(fn) for fn in [produce, consume] * 4])
    return Result(now() - start, 4 * each, lost(sum(sums), 4 * sum_below(each)))


def chain(n: int, opt: Options) -> Result:
    memory = Memory()

    def link(left: Any, right: Any) -> None:
        left.put(1 + right.get())

    start = now()
    leftmost = pyroutine.Queue(1)
    left = leftmost
    for _ in range(n):
        right = pyroutine.Queue(1)
        pyroutine.spawn(link, left, right)
        left = right
    pyroutine.spawn(left.put, 1)
    got = leftmost.get()
    return chain_result(n, now() - start, got, memory)


def parked(n: int, opt: Options) -> Result:
    memory = Memory()
    gate = pyroutine.Queue()
    woken: list[None] = []

    def wait() -> None:
        woken.append(gate.get())

    begin = now()
    waiting = [pyroutine.spawn(wait) for _ in range(n)]
    pyroutine.yield_()
    start = now() - begin
    pyroutine.sleep(0.3)
    each = memory.each(n)
    begin = now()
    for _ in range(n):
        gate.put(None)
    pyroutine.gather(*waiting)
    return parked_result(n, start, now() - begin, len(woken), each)


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
    ch = pyroutine.Queue(1)
    pyroutine.spawn(generate, ch)
    last = 0
    for _ in range(n):
        last = ch.get()
        after = pyroutine.Queue(1)
        pyroutine.spawn(sift, ch, after, last)
        ch = after
    return sieve_result(n, now() - start, last)


def timer(n: int, opt: Options) -> Result:
    late: list[float] = []

    def nap(delay: float) -> None:
        begin = now()
        pyroutine.sleep(delay)
        late.append(now() - begin - delay)

    pauses = delays(n)
    start = now()
    pyroutine.gather(*[pyroutine.spawn(nap, delay) for delay in pauses])
    return timer_result(n, now() - start, late)


def cpu(n: int, opt: Options) -> Result:
    def together() -> list[int]:
        return list(pyroutine.gather(*[pyroutine.spawn(spin) for _ in range(n)]))

    return cpu_result(n, lambda: [spin() for _ in range(n)], together)


WORKLOADS: dict[str, Workload] = {
    f.__name__: f
    for f in (
        spawn, pingpong, unbuffered, buffered, mpmc, chain, parked, sieve, timer, cpu,
    )
}  # fmt: skip


def in_a_pyroutine(fn: Workload, n: int, opt: Options) -> Result:
    pyroutine.set_max_procs(int(os.environ.get("PYROUTINE_PROCS", "0")) or os.cpu_count())
    result: Result = pyroutine.spawn(fn, n, opt).result()
    return result


if __name__ == "__main__":
    run("pyroutine-rt", version("pyroutine-rt"), WORKLOADS, in_a_pyroutine)
