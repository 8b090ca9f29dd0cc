"""The workloads on goslings, with stackful goroutines: plain functions, no async.

Written as a user would write them, in the same shape as bench/go. The timed part runs in a
goroutine; GOSLINGS_PROCS is the number of workers. `async def` goroutines have a file of their own,
on_goslings_async.py.
"""

from __future__ import annotations

import threading
from typing import Any

import goslings
from goslings import Mutex, WaitGroup, chan, go, recv, select, sleep
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
    single_result,
    spin,
    sum_below,
    timed_spin,
    timer_result,
)

# -- starting goroutines ---------------------------------------------------------------------


def nothing() -> None:
    """The body of a no-op goroutine."""


def spawn(n: int, opt: Options) -> Result:
    start = now()
    group = WaitGroup()
    for _ in range(n):
        group.go(nothing)
    group.wait()
    return Result(now() - start, n)


# -- channels --------------------------------------------------------------------------------


def plain_thread(fn: Any) -> None:
    threading.Thread(target=fn).start()


def echo(n: int, other: Any) -> int:
    """One side of pingpong: n round trips; `other` is how the other side is started."""
    ping: chan[int] = chan()
    pong: chan[int] = chan()

    def answer() -> None:
        for v in ping:
            pong.send(v)

    other(answer)
    total = 0
    for i in range(n):
        ping.send(i)
        total += pong.recv()
    ping.close()
    return total


def stream(n: int, capacity: int, other: Any) -> int:
    """n items through one channel; `other` is how the producer is started."""
    ch: chan[int] = chan(capacity)

    def produce() -> None:
        for i in range(n):
            ch.send(i)
        ch.close()

    other(produce)
    total = 0
    for v in ch:
        total += v
    return total


def in_pairs(n: int, pairs: int, one: Any) -> Result:
    """Run one(n/pairs) in as many goroutines as pairs, and check their sums."""
    each = max(1, n // pairs)
    sums = [0] * pairs

    def pair(p: int) -> None:
        sums[p] = one(each)

    start = now()
    group = WaitGroup()
    for p in range(pairs):
        group.go(pair, p)
    group.wait()
    return Result(now() - start, each * pairs, sum(lost(s, sum_below(each)) for s in sums))


def pingpong(n: int, opt: Options) -> Result:
    return in_pairs(n, opt.pairs, lambda each: echo(each, go))


def unbuffered(n: int, opt: Options) -> Result:
    return in_pairs(n, opt.pairs, lambda each: stream(each, 0, go))


def buffered(n: int, opt: Options) -> Result:
    return in_pairs(n, opt.pairs, lambda each: stream(each, 1024, go))


def pingpong_thread(n: int, opt: Options) -> Result:
    return in_pairs(n, 1, lambda each: echo(each, plain_thread))


def unbuffered_thread(n: int, opt: Options) -> Result:
    return in_pairs(n, 1, lambda each: stream(each, 0, plain_thread))


def buffered_thread(n: int, opt: Options) -> Result:
    return in_pairs(n, 1, lambda each: stream(each, 1024, plain_thread))


def mpmc(n: int, opt: Options) -> Result:
    each = n // 4
    ch: chan[int] = chan(128)
    producers, consumers = WaitGroup(), WaitGroup()
    sums = [0] * 4

    def produce() -> None:
        for i in range(each):
            ch.send(i)

    def consume(k: int) -> None:
        total = 0
        for v in ch:
            total += v
        sums[k] = total

    start = now()
    for k in range(4):
        producers.go(produce)
        consumers.go(consume, k)
    producers.wait()
    ch.close()
    consumers.wait()
    return Result(now() - start, 4 * each, lost(sum(sums), 4 * sum_below(each)))


def select2(n: int, opt: Options) -> Result:
    each = n // 2
    a: chan[int] = chan()
    b: chan[int] = chan()

    def produce(ch: chan[int]) -> None:
        for i in range(each):
            ch.send(i)

    start = now()
    go(produce, a)
    go(produce, b)
    total = 0
    for _ in range(2 * each):
        total += select(recv(a), recv(b)).value
    return Result(now() - start, 2 * each, lost(total, 2 * sum_below(each)))


def select_empty(n: int, opt: Options) -> Result:
    a: chan[int] = chan()
    b: chan[int] = chan()
    idle = 0
    start = now()
    for _ in range(n):
        if select(recv(a), recv(b), timeout=0) is None:
            idle += 1
    return Result(now() - start, n, n - idle)


def mutex(n: int, opt: Options) -> Result:
    each = n // 8
    lock = Mutex()
    count = 0

    def add() -> None:
        nonlocal count
        for _ in range(each):
            with lock:
                count += 1

    start = now()
    group = WaitGroup()
    for _ in range(8):
        group.go(add)
    group.wait()
    return Result(now() - start, 8 * each, 8 * each - count)


# -- many goroutines at once -----------------------------------------------------------------


def chain(n: int, opt: Options) -> Result:
    memory = Memory()

    def link(left: chan[int], right: chan[int]) -> None:
        left.send(1 + right.recv())

    start = now()
    leftmost: chan[int] = chan()
    left = leftmost
    for _ in range(n):
        right: chan[int] = chan()
        go(link, left, right)
        left = right
    go(left.send, 1)
    got = leftmost.recv()
    return chain_result(n, now() - start, got, memory)


def parked(n: int, opt: Options) -> Result:
    memory = Memory()
    gate: chan[int] = chan()
    started, ended = WaitGroup(), WaitGroup()
    woken = goslings.AtomicInt(0)
    started.add(n)
    ended.add(n)

    def wait() -> None:
        started.done()
        _, ok = gate.recv_ok()
        if not ok:
            woken.add(1)
        ended.done()

    begin = now()
    for _ in range(n):
        go(wait)
    started.wait()
    start = now() - begin
    sleep(0.2)
    each = memory.each(n)
    begin = now()
    gate.close()
    ended.wait()
    return parked_result(n, start, now() - begin, woken.load(), each)


def sieve(n: int, opt: Options) -> Result:
    def generate(out: chan[int]) -> None:
        i = 2
        while True:
            out.send(i)
            i += 1

    def sift(source: chan[int], out: chan[int], prime: int) -> None:
        while True:
            i = source.recv()
            if i % prime:
                out.send(i)

    start = now()
    ch: chan[int] = chan()
    go(generate, ch)
    last = 0
    for _ in range(n):
        last = ch.recv()
        after: chan[int] = chan()
        go(sift, ch, after, last)
        ch = after
    return sieve_result(n, now() - start, last)


def timer(n: int, opt: Options) -> Result:
    late: list[float] = []

    def nap(delay: float) -> None:
        begin = now()
        sleep(delay)
        late.append(now() - begin - delay)

    pauses = delays(n)
    start = now()
    group = WaitGroup()
    for delay in pauses:
        group.go(nap, delay)
    group.wait()
    return timer_result(n, now() - start, late)


# -- computing -------------------------------------------------------------------------------


def cpu(n: int, opt: Options) -> Result:
    def together() -> list[int]:
        return [g.result() for g in [go(spin) for _ in range(n)]]

    return cpu_result(n, lambda: [spin() for _ in range(n)], together)


def single(n: int, opt: Options) -> Result:
    """Runs in the main thread: `spin` there, and in a goroutine that it waits for."""
    return single_result(n, timed_spin, lambda: go(timed_spin).result())


# --------------------------------------------------------------------------------------------

WORKLOADS: dict[str, Workload] = {
    f.__name__: f
    for f in (
        spawn, pingpong, unbuffered, buffered, mpmc, select2, select_empty, chain, parked, mutex,
        sieve, timer, cpu, single, pingpong_thread, unbuffered_thread, buffered_thread,
    )
}  # fmt: skip


def in_a_goroutine(fn: Workload, n: int, opt: Options) -> Result:
    """Run the workload in a goroutine, beside as many parked ones as asked for."""
    never: chan[None] = chan()
    for _ in range(opt.alive):
        go(never.recv_ok)
    if opt.alive:
        go(sleep, 0.1).join()
    return fn(n, opt) if fn is single else go(fn, n, opt).result()


if __name__ == "__main__":
    version = str(getattr(goslings, "__version__", "?"))
    run("goslings", version, WORKLOADS, in_a_goroutine, lambda: {"procs": goslings.gomaxprocs()})
