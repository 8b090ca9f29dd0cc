"""The workloads on asyncio, with its own loop or, where ASYNCIO_LOOP=uvloop, on uvloop.

asyncio has no unbuffered channel: a queue of one stands in for it, which asks less. It has no
select either: `select2` keeps one getter per queue and waits for the first, the way that loses
nothing. `cpu` uses threads, as its documentation advises.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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

KEEP: list[Any] = []


def task(coroutine: Any) -> None:
    """Start a task that nobody waits for, and keep it from the garbage collector."""
    KEEP.append(asyncio.create_task(coroutine))


async def nothing() -> None:
    """The body of a no-op task."""


async def spawn(n: int, opt: Options) -> Result:
    start = now()
    create = asyncio.create_task
    await asyncio.gather(*[create(nothing()) for _ in range(n)])
    return Result(now() - start, n)


async def pingpong(n: int, opt: Options) -> Result:
    ping: asyncio.Queue[int] = asyncio.Queue(1)
    pong: asyncio.Queue[int] = asyncio.Queue(1)

    async def answer() -> None:
        for _ in range(n):
            await pong.put(await ping.get())

    start = now()
    task(answer())
    total = 0
    for i in range(n):
        await ping.put(i)
        total += await pong.get()
    return Result(now() - start, n, lost(total, sum_below(n)))


async def stream(n: int, capacity: int) -> Result:
    ch: asyncio.Queue[int] = asyncio.Queue(capacity)

    async def produce() -> None:
        for i in range(n):
            await ch.put(i)

    start = now()
    task(produce())
    total = 0
    for _ in range(n):
        total += await ch.get()
    return Result(now() - start, n, lost(total, sum_below(n)))


async def unbuffered(n: int, opt: Options) -> Result:
    return await stream(n, 1)


async def buffered(n: int, opt: Options) -> Result:
    return await stream(n, 1024)


async def mpmc(n: int, opt: Options) -> Result:
    each = n // 4
    ch: asyncio.Queue[int] = asyncio.Queue(128)

    async def produce() -> None:
        for i in range(each):
            await ch.put(i)

    async def consume() -> int:
        total = 0
        for _ in range(each):
            total += await ch.get()
        return total

    start = now()
    for _ in range(4):
        task(produce())
    sums = await asyncio.gather(*[consume() for _ in range(4)])
    return Result(now() - start, 4 * each, lost(sum(sums), 4 * sum_below(each)))


async def select2(n: int, opt: Options) -> Result:
    each = n // 2
    queues: list[asyncio.Queue[int]] = [asyncio.Queue(1), asyncio.Queue(1)]

    async def produce(ch: asyncio.Queue[int]) -> None:
        for i in range(each):
            await ch.put(i)

    start = now()
    for ch in queues:
        task(produce(ch))
    total = got = 0
    getters = {asyncio.create_task(ch.get()): ch for ch in queues}
    while got < 2 * each:
        done, _ = await asyncio.wait(getters, return_when=asyncio.FIRST_COMPLETED)
        for getter in done:
            total += getter.result()
            got += 1
            ch = getters.pop(getter)
            getters[asyncio.create_task(ch.get())] = ch
    return Result(now() - start, 2 * each, lost(total, 2 * sum_below(each)))


async def chain(n: int, opt: Options) -> Result:
    memory = Memory()

    async def link(left: asyncio.Queue[int], right: asyncio.Queue[int]) -> None:
        await left.put(1 + await right.get())

    start = now()
    leftmost: asyncio.Queue[int] = asyncio.Queue(1)
    left = leftmost
    for _ in range(n):
        right: asyncio.Queue[int] = asyncio.Queue(1)
        task(link(left, right))
        left = right
    await left.put(1)
    got = await leftmost.get()
    return chain_result(n, now() - start, got, memory)


async def parked(n: int, opt: Options) -> Result:
    memory = Memory()
    gate: asyncio.Queue[None] = asyncio.Queue()
    woken = 0

    async def wait() -> None:
        nonlocal woken
        await gate.get()
        woken += 1

    begin = now()
    tasks = [asyncio.create_task(wait()) for _ in range(n)]
    await asyncio.sleep(0)
    start = now() - begin
    each = memory.each(n)
    begin = now()
    for _ in range(n):
        gate.put_nowait(None)
    for waiting in tasks:
        await waiting
    return parked_result(n, start, now() - begin, woken, each)


async def mutex(n: int, opt: Options) -> Result:
    each = n // 8
    lock = asyncio.Lock()
    count = 0

    async def add() -> None:
        nonlocal count
        for _ in range(each):
            async with lock:
                count += 1

    start = now()
    await asyncio.gather(*[add() for _ in range(8)])
    return Result(now() - start, 8 * each, 8 * each - count)


async def sieve(n: int, opt: Options) -> Result:
    async def generate(out: asyncio.Queue[int]) -> None:
        i = 2
        while True:
            await out.put(i)
            i += 1

    async def sift(source: asyncio.Queue[int], out: asyncio.Queue[int], prime: int) -> None:
        while True:
            i = await source.get()
            if i % prime:
                await out.put(i)

    start = now()
    ch: asyncio.Queue[int] = asyncio.Queue(1)
    task(generate(ch))
    last = 0
    for _ in range(n):
        last = await ch.get()
        after: asyncio.Queue[int] = asyncio.Queue(1)
        task(sift(ch, after, last))
        ch = after
    return sieve_result(n, now() - start, last)


async def timer(n: int, opt: Options) -> Result:
    late: list[float] = []

    async def nap(delay: float) -> None:
        begin = now()
        await asyncio.sleep(delay)
        late.append(now() - begin - delay)

    pauses = delays(n)
    start = now()
    await asyncio.gather(*[nap(delay) for delay in pauses])
    return timer_result(n, now() - start, late)


async def cpu(n: int, opt: Options) -> Result:
    """A coroutine per function, each in a thread; several loops' worth, driven from here."""
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(2)

    async def together() -> list[int]:
        return list(await asyncio.gather(*[loop.run_in_executor(pool, spin) for _ in range(n)]))

    def from_a_thread() -> list[int]:
        return asyncio.run_coroutine_threadsafe(together(), loop).result()

    return await asyncio.to_thread(cpu_result, n, lambda: [spin() for _ in range(n)], from_a_thread)


WORKLOADS: dict[str, Workload] = {
    f.__name__: f
    for f in (
        spawn, pingpong, unbuffered, buffered, mpmc, select2, chain, parked, mutex, sieve, timer,
        cpu,
    )
}  # fmt: skip


def in_a_loop(fn: Workload, n: int, opt: Options) -> Result:
    if os.environ.get("ASYNCIO_LOOP") == "uvloop":
        import uvloop

        return asyncio.run(fn(n, opt), loop_factory=uvloop.new_event_loop)
    return asyncio.run(fn(n, opt))


if __name__ == "__main__":
    version = "standard library"
    if os.environ.get("ASYNCIO_LOOP") == "uvloop":
        import uvloop

        version = f"uvloop {uvloop.__version__}"
    run("asyncio", version, WORKLOADS, in_a_loop)
