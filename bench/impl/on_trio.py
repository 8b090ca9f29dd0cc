"""The workloads on trio: nurseries and memory channels. It has no select."""

from __future__ import annotations

from typing import Any

import trio
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


async def nothing() -> None:
    """The body of a no-op task."""


async def spawn(n: int, opt: Options) -> Result:
    start = now()
    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(nothing)
    return Result(now() - start, n)


async def pingpong(n: int, opt: Options) -> Result:
    ping_in, ping_out = trio.open_memory_channel[int](0)
    pong_in, pong_out = trio.open_memory_channel[int](0)

    async def answer() -> None:
        async for v in ping_out:
            await pong_in.send(v)

    total = 0
    start = now()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        for i in range(n):
            await ping_in.send(i)
            total += await pong_out.receive()
        ping_in.close()
    return Result(now() - start, n, lost(total, sum_below(n)))


async def stream(n: int, capacity: int) -> Result:
    source, sink = trio.open_memory_channel[int](capacity)

    async def produce() -> None:
        for i in range(n):
            await source.send(i)
        source.close()

    total = 0
    start = now()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        async for v in sink:
            total += v
    return Result(now() - start, n, lost(total, sum_below(n)))


async def unbuffered(n: int, opt: Options) -> Result:
    return await stream(n, 0)


async def buffered(n: int, opt: Options) -> Result:
    return await stream(n, 1024)


async def mpmc(n: int, opt: Options) -> Result:
    each = n // 4
    source, sink = trio.open_memory_channel[int](128)
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
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(produce)
            nursery.start_soon(consume)
    return Result(now() - start, 4 * each, lost(sum(sums), 4 * sum_below(each)))


async def chain(n: int, opt: Options) -> Result:
    memory = Memory()

    async def link(left: Any, right: Any) -> None:
        await left.send(1 + await right.receive())

    start = now()
    left, leftmost = trio.open_memory_channel[int](0)
    async with trio.open_nursery() as nursery:
        for _ in range(n):
            after, right = trio.open_memory_channel[int](0)
            nursery.start_soon(link, left, right)
            left = after
        nursery.start_soon(left.send, 1)
        got = await leftmost.receive()
    return chain_result(n, now() - start, got, memory)


async def parked(n: int, opt: Options) -> Result:
    memory = Memory()
    source, gate = trio.open_memory_channel[None](0)
    woken = 0

    async def wait() -> None:
        nonlocal woken
        try:
            await gate.receive()
        except trio.EndOfChannel:
            woken += 1

    begin = now()
    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        start = now() - begin
        each = memory.each(n)
        begin = now()
        source.close()
    return parked_result(n, start, now() - begin, woken, each)


async def mutex(n: int, opt: Options) -> Result:
    each = n // 8
    lock = trio.Lock()
    count = 0

    async def add() -> None:
        nonlocal count
        for _ in range(each):
            async with lock:
                count += 1

    start = now()
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(add)
    return Result(now() - start, 8 * each, 8 * each - count)


async def sieve(n: int, opt: Options) -> Result:
    async def generate(out: Any) -> None:
        i = 2
        while True:
            await out.send(i)
            i += 1

    async def sift(source: Any, out: Any, prime: int) -> None:
        async for i in source:
            if i % prime:
                await out.send(i)

    start = now()
    async with trio.open_nursery() as nursery:
        out, ch = trio.open_memory_channel[int](0)
        nursery.start_soon(generate, out)
        last = 0
        for _ in range(n):
            last = await ch.receive()
            out, after = trio.open_memory_channel[int](0)
            nursery.start_soon(sift, ch, out, last)
            ch = after
        elapsed = now() - start
        nursery.cancel_scope.cancel()
    return sieve_result(n, elapsed, last)


async def timer(n: int, opt: Options) -> Result:
    late: list[float] = []

    async def nap(delay: float) -> None:
        begin = now()
        await trio.sleep(delay)
        late.append(now() - begin - delay)

    pauses = delays(n)
    start = now()
    async with trio.open_nursery() as nursery:
        for delay in pauses:
            nursery.start_soon(nap, delay)
    return timer_result(n, now() - start, late)


async def cpu(n: int, opt: Options) -> Result:
    """A task per function, each in a thread of trio's pool, two at a time."""
    two = trio.CapacityLimiter(2)

    async def together() -> list[int]:
        results: list[int] = []

        async def one() -> None:
            results.append(await trio.to_thread.run_sync(spin, limiter=two))

        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(one)
        return results

    return await trio.to_thread.run_sync(
        cpu_result, n, lambda: [spin() for _ in range(n)], lambda: trio.from_thread.run(together)
    )


WORKLOADS: dict[str, Workload] = {
    f.__name__: f
    for f in (
        spawn, pingpong, unbuffered, buffered, mpmc, chain, parked, mutex, sieve, timer, cpu,
    )
}  # fmt: skip

if __name__ == "__main__":
    import trio.testing

    run("trio", trio.__version__, WORKLOADS, lambda fn, n, opt: trio.run(fn, n, opt))
