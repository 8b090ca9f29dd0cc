"""The workloads on tonio, in its `await` notation (faster here than its `yield` one).

TONIO_THREADS is the number of its threads. `select2` counts what arrives: tonio cancels the
branches that did not win; values that one of them had already taken are gone, or it comes to a stop.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

import tonio.colored as tonio
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
from tonio.colored.sync import Lock
from tonio.colored.sync.channel import channel

THREADS = int(os.environ.get("TONIO_THREADS", "0")) or None

# spawn.without_tracking starts without a handle; without_results waits, but keeps no values.
task = tonio.spawn.without_tracking
all_of = tonio.spawn.without_results


async def nothing() -> None:
    """The body of a no-op task."""


async def spawn(n: int, opt: Options) -> Result:
    start = now()
    await all_of(*[nothing() for _ in range(n)])
    return Result(now() - start, n)


async def pingpong(n: int, opt: Options) -> Result:
    ping_in, ping_out = channel(0)
    pong_in, pong_out = channel(0)

    async def answer() -> None:
        for _ in range(n):
            await pong_in.send(await ping_out.receive())

    start = now()
    task(answer())
    total = 0
    for i in range(n):
        await ping_in.send(i)
        total += await pong_out.receive()
    return Result(now() - start, n, lost(total, sum_below(n)))


async def stream(n: int, capacity: int) -> Result:
    source, sink = channel(capacity)

    async def produce() -> None:
        for i in range(n):
            await source.send(i)

    start = now()
    task(produce())
    total = 0
    for _ in range(n):
        total += await sink.receive()
    return Result(now() - start, n, lost(total, sum_below(n)))


async def unbuffered(n: int, opt: Options) -> Result:
    return await stream(n, 0)


async def buffered(n: int, opt: Options) -> Result:
    return await stream(n, 1024)


async def mpmc(n: int, opt: Options) -> Result:
    each = n // 4
    source, sink = channel(128)
    sums: list[int] = []

    async def produce() -> None:
        for i in range(each):
            await source.send(i)

    async def consume() -> None:
        total = 0
        for _ in range(each):
            total += await sink.receive()
        sums.append(total)

    start = now()
    await all_of(*[fn() for fn in [produce, consume] * 4])
    return Result(now() - start, 4 * each, lost(sum(sums), 4 * sum_below(each)))


async def select2(n: int, opt: Options) -> Result:
    """Ends when all arrived, or when nothing did for a second: what is missing then is lost."""
    each = n // 2
    (in_a, out_a), (in_b, out_b) = channel(0), channel(0)
    got, last = 0, now()

    async def produce(source: Any) -> None:
        for i in range(each):
            await source.send(i)

    async def consume() -> None:
        nonlocal got, last
        while True:
            await tonio.select(out_a.receive(), out_b.receive())
            got, last = got + 1, now()

    start = now()
    task(produce(in_a), produce(in_b), consume())
    while got < 2 * each and now() - last < 1:
        await tonio.sleep(0.05)
    return Result(last - start, max(got, 1), 2 * each - got)


async def chain(n: int, opt: Options) -> Result:
    memory = Memory()

    async def link(left: Any, right: Any) -> None:
        await left.send(1 + await right.receive())

    start = now()
    left, leftmost = channel(0)
    for _ in range(n):
        after, right = channel(0)
        task(link(left, right))
        left = after
    task(left.send(1))
    got = await leftmost.receive()
    return chain_result(n, now() - start, got, memory)


async def parked(n: int, opt: Options) -> Result:
    memory = Memory()
    source, gate = channel(1024)
    woken: list[None] = []

    async def wait() -> None:
        woken.append(await gate.receive())

    begin = now()
    waiting = all_of(*[wait() for _ in range(n)])
    await tonio.yield_now()
    start = now() - begin
    await tonio.sleep(0.5)
    each = memory.each(n)
    begin = now()
    for _ in range(n):
        await source.send(None)
    await waiting
    return parked_result(n, start, now() - begin, len(woken), each)


async def mutex(n: int, opt: Options) -> Result:
    each = n // 8
    lock = Lock()
    count = 0

    async def add() -> None:
        nonlocal count
        for _ in range(each):
            async with lock:
                count += 1

    start = now()
    await all_of(*[add() for _ in range(8)])
    return Result(now() - start, 8 * each, 8 * each - count)


async def sieve(n: int, opt: Options) -> Result:
    async def generate(out: Any) -> None:
        i = 2
        while True:
            await out.send(i)
            i += 1

    async def sift(source: Any, out: Any, prime: int) -> None:
        while True:
            i = await source.receive()
            if i % prime:
                await out.send(i)

    start = now()
    out, ch = channel(0)
    task(generate(out))
    last = 0
    for _ in range(n):
        last = await ch.receive()
        out, after = channel(0)
        task(sift(ch, out, last))
        ch = after
    return sieve_result(n, now() - start, last)


async def timer(n: int, opt: Options) -> Result:
    late: list[float] = []

    async def nap(delay: float) -> None:
        begin = now()
        await tonio.sleep(delay)
        late.append(now() - begin - delay)

    pauses = delays(n)
    start = now()
    await all_of(*[nap(delay) for delay in pauses])
    return timer_result(n, now() - start, late)


async def cpu(n: int, opt: Options) -> Result:
    """The functions in turn and together, driven from a thread outside of the runtime."""

    async def one() -> int:
        return spin()

    async def together() -> list[int]:
        return list(await tonio.spawn(*[one() for _ in range(n)]))

    def drive() -> Result:
        return cpu_result(n, lambda: [spin() for _ in range(n)], lambda: tonio.block_on(together()))

    return await tonio.spawn_blocking(drive)


WORKLOADS: dict[str, Workload] = {
    f.__name__: f
    for f in (
        spawn, pingpong, unbuffered, buffered, mpmc, select2, chain, parked, mutex, sieve, timer,
        cpu,
    )
}  # fmt: skip


if __name__ == "__main__":
    run(
        "tonio",
        version("tonio"),
        WORKLOADS,
        lambda fn, n, opt: tonio.run(fn(n, opt), threads=THREADS),
    )
