"""The workloads on goslings, with `async def` goroutines, which have no stack of their own.

Written as a user would write them, in the same shape as on_goslings.py and on_asyncio.py. The timed part runs in
an async goroutine; GOSLINGS_PROCS is the number of workers.
"""

from __future__ import annotations

import goslings
from goslings import Mutex, WaitGroup, agosched, aselect, asleep, chan, go, recv
from harness import (
    CPU_WORK,
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

STEP = CPU_WORK // 40

# -- starting goroutines ---------------------------------------------------------------------


async def nothing() -> None:
    """The body of a no-op goroutine."""


async def spawn(n: int, opt: Options) -> Result:
    start = now()
    group = WaitGroup()
    for _ in range(n):
        group.go(nothing)
    await group
    return Result(now() - start, n)


# -- channels --------------------------------------------------------------------------------


async def echo(n: int) -> int:
    """One pair of pingpong: n round trips."""
    ping: chan[int] = chan()
    pong: chan[int] = chan()

    async def answer() -> None:
        async for v in ping:
            await pong.asend(v)

    go(answer)
    total = 0
    for i in range(n):
        await ping.asend(i)
        total += await pong.arecv()
    ping.close()
    return total


async def stream(n: int, capacity: int) -> int:
    """n items through one channel."""
    ch: chan[int] = chan(capacity)

    async def produce() -> None:
        for i in range(n):
            await ch.asend(i)
        ch.close()

    go(produce)
    total = 0
    async for v in ch:
        total += v
    return total


async def pingpong(n: int, opt: Options) -> Result:
    start = now()
    total = await echo(n)
    return Result(now() - start, n, lost(total, sum_below(n)))


async def unbuffered(n: int, opt: Options) -> Result:
    start = now()
    total = await stream(n, 0)
    return Result(now() - start, n, lost(total, sum_below(n)))


async def buffered(n: int, opt: Options) -> Result:
    start = now()
    total = await stream(n, 1024)
    return Result(now() - start, n, lost(total, sum_below(n)))


async def mpmc(n: int, opt: Options) -> Result:
    each = n // 4
    ch: chan[int] = chan(128)
    producers = WaitGroup()

    async def produce() -> None:
        for i in range(each):
            await ch.asend(i)

    async def consume() -> int:
        total = 0
        async for v in ch:
            total += v
        return total

    start = now()
    for _ in range(4):
        producers.go(produce)
    consumers = [go(consume) for _ in range(4)]
    await producers
    ch.close()
    total = sum([await consumer for consumer in consumers])
    return Result(now() - start, 4 * each, lost(total, 4 * sum_below(each)))


async def select2(n: int, opt: Options) -> Result:
    each = n // 2
    a: chan[int] = chan()
    b: chan[int] = chan()

    async def produce(ch: chan[int]) -> None:
        for i in range(each):
            await ch.asend(i)

    start = now()
    go(produce, a)
    go(produce, b)
    total = 0
    for _ in range(2 * each):
        total += (await aselect(recv(a), recv(b))).value
    return Result(now() - start, 2 * each, lost(total, 2 * sum_below(each)))


async def select_empty(n: int, opt: Options) -> Result:
    a: chan[int] = chan()
    b: chan[int] = chan()
    idle = 0
    start = now()
    for _ in range(n):
        if await aselect(recv(a), recv(b), timeout=0) is None:
            idle += 1
    return Result(now() - start, n, n - idle)


async def mutex(n: int, opt: Options) -> Result:
    each = n // 8
    lock = Mutex()
    count = 0

    async def add() -> None:
        nonlocal count
        for _ in range(each):
            async with lock:
                count += 1

    start = now()
    group = WaitGroup()
    for _ in range(8):
        group.go(add)
    await group
    return Result(now() - start, 8 * each, 8 * each - count)


# -- many goroutines at once -----------------------------------------------------------------


async def chain(n: int, opt: Options) -> Result:
    memory = Memory()

    async def link(left: chan[int], right: chan[int]) -> None:
        await left.asend(1 + await right.arecv())

    async def first(ch: chan[int]) -> None:
        await ch.asend(1)

    start = now()
    leftmost: chan[int] = chan()
    left = leftmost
    for _ in range(n):
        right: chan[int] = chan()
        go(link, left, right)
        left = right
    go(first, left)
    got = await leftmost.arecv()
    return chain_result(n, now() - start, got, memory)


async def parked(n: int, opt: Options) -> Result:
    memory = Memory()
    gate: chan[int] = chan()
    started, ended = WaitGroup(), WaitGroup()
    woken = goslings.AtomicInt(0)
    started.add(n)
    ended.add(n)

    async def wait() -> None:
        started.done()
        _, ok = await gate.arecv_ok()
        if not ok:
            woken.add(1)
        ended.done()

    begin = now()
    for _ in range(n):
        go(wait)
    await started
    start = now() - begin
    await asleep(0.2)
    each = memory.each(n)
    begin = now()
    gate.close()
    await ended
    return parked_result(n, start, now() - begin, woken.load(), each)


async def sieve(n: int, opt: Options) -> Result:
    async def generate(out: chan[int]) -> None:
        i = 2
        while True:
            await out.asend(i)
            i += 1

    async def sift(source: chan[int], out: chan[int], prime: int) -> None:
        async for i in source:
            if i % prime:
                await out.asend(i)

    start = now()
    ch: chan[int] = chan()
    go(generate, ch)
    last = 0
    for _ in range(n):
        last = await ch.arecv()
        after: chan[int] = chan()
        go(sift, ch, after, last)
        ch = after
    return sieve_result(n, now() - start, last)


async def timer(n: int, opt: Options) -> Result:
    late: list[float] = []

    async def nap(delay: float) -> None:
        begin = now()
        await asleep(delay)
        late.append(now() - begin - delay)

    pauses = delays(n)
    start = now()
    group = WaitGroup()
    for delay in pauses:
        group.go(nap, delay)
    await group
    return timer_result(n, now() - start, late)


# -- computing -------------------------------------------------------------------------------


async def spin_in_steps() -> int:
    """What harness.spin computes, in forty steps: others may go on after each, here or on another worker."""
    total = 0
    for first in range(0, CPU_WORK, STEP):
        for i in range(first, first + STEP):
            total += i * i % 7
        await agosched()
    return total


def cpu(n: int, opt: Options) -> Result:
    def together() -> list[int]:
        return [g.result() for g in [go(spin_in_steps) for _ in range(n)]]

    return cpu_result(n, lambda: [spin() for _ in range(n)], together)


# --------------------------------------------------------------------------------------------

WORKLOADS: dict[str, Workload] = {
    f.__name__: f
    for f in (
        spawn, pingpong, unbuffered, buffered, mpmc, select2, select_empty, chain, parked, mutex,
        sieve, timer, cpu,
    )
}  # fmt: skip


def in_a_goroutine(fn: Workload, n: int, opt: Options) -> Result:
    """Run the workload in a goroutine: an async one, unless it is a plain function."""
    result: Result = go(fn, n, opt).result()
    return result


if __name__ == "__main__":
    version = str(getattr(goslings, "__version__", "?"))
    run("goslings async", version, WORKLOADS, in_a_goroutine, lambda: {"procs": goslings.gomaxprocs()})
