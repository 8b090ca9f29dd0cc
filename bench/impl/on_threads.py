"""The workloads on the standard library's threads: `threading`, `queue`, `concurrent.futures`.

The best that it offers for each: `queue.SimpleQueue` (C) where no bound is needed, `queue.Queue`
where one is, and a hand-made rendezvous where an unbuffered channel is asked for. It has no
select. `cpu` uses one thread per function.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Queue, SimpleQueue
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

threading.stack_size(64 * 1024)


class Rendezvous:
    """An unbuffered channel for one sender at a time: put() returns when the value was taken."""

    def __init__(self) -> None:
        self.values: SimpleQueue[Any] = SimpleQueue()
        self.taken: SimpleQueue[None] = SimpleQueue()

    def put(self, value: Any) -> None:
        self.values.put(value)
        self.taken.get()

    def get(self) -> Any:
        value = self.values.get()
        self.taken.put(None)
        return value


def all_of(*fns: Any) -> None:
    """Run each in its own thread and wait."""
    threads = [threading.Thread(target=fn) for fn in fns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def daemon(fn: Any, *args: Any) -> None:
    threading.Thread(target=fn, args=args, daemon=True).start()


def spawn(n: int, opt: Options) -> Result:
    start = now()
    threads = [threading.Thread(target=int) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Result(now() - start, n)


def pingpong(n: int, opt: Options) -> Result:
    """Over two SimpleQueues: faster than a rendezvous, and here the same."""
    ping: SimpleQueue[int] = SimpleQueue()
    pong: SimpleQueue[int] = SimpleQueue()

    def answer() -> None:
        for _ in range(n):
            pong.put(ping.get())

    daemon(answer)
    total = 0
    start = now()
    for i in range(n):
        ping.put(i)
        total += pong.get()
    return Result(now() - start, n, lost(total, sum_below(n)))


def stream(n: int, ch: Any) -> Result:
    def produce() -> None:
        for i in range(n):
            ch.put(i)

    start = now()
    daemon(produce)
    total = 0
    for _ in range(n):
        total += ch.get()
    return Result(now() - start, n, lost(total, sum_below(n)))


def unbuffered(n: int, opt: Options) -> Result:
    return stream(n, Rendezvous())


def buffered(n: int, opt: Options) -> Result:
    return stream(n, Queue(1024))


def mpmc(n: int, opt: Options) -> Result:
    each = n // 4
    ch: Queue[int] = Queue(128)
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
    all_of(*[produce] * 4, *[consume] * 4)
    return Result(now() - start, 4 * each, lost(sum(sums), 4 * sum_below(each)))


def chain(n: int, opt: Options) -> Result:
    memory = Memory()

    def link(left: Any, right: Any) -> None:
        left.put(1 + right.get())

    start = now()
    leftmost: SimpleQueue[int] = SimpleQueue()
    left = leftmost
    for _ in range(n):
        right: SimpleQueue[int] = SimpleQueue()
        daemon(link, left, right)
        left = right
    left.put(1)
    got = leftmost.get()
    return chain_result(n, now() - start, got, memory)


def parked(n: int, opt: Options) -> Result:
    memory = Memory()
    gate: SimpleQueue[None] = SimpleQueue()
    ended: SimpleQueue[None] = SimpleQueue()

    def wait() -> None:
        ended.put(gate.get())

    begin = now()
    for _ in range(n):
        daemon(wait)
    start = now() - begin
    time.sleep(0.2)
    each = memory.each(n)
    begin = now()
    for _ in range(n):
        gate.put(None)
    for _ in range(n):
        ended.get()
    return parked_result(n, start, now() - begin, n, each)


def mutex(n: int, opt: Options) -> Result:
    each = n // 8
    lock = threading.Lock()
    count = 0

    def add() -> None:
        nonlocal count
        for _ in range(each):
            with lock:
                count += 1

    start = now()
    all_of(*[add] * 8)
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
    ch = Rendezvous()
    daemon(generate, ch)
    last = 0
    for _ in range(n):
        last = ch.get()
        after = Rendezvous()
        daemon(sift, ch, after, last)
        ch = after
    return sieve_result(n, now() - start, last)


def timer(n: int, opt: Options) -> Result:
    late: list[float] = []

    def nap(delay: float) -> None:
        begin = now()
        time.sleep(delay)
        late.append(now() - begin - delay)

    pauses = delays(n)
    start = now()
    threads = [threading.Thread(target=nap, args=(delay,)) for delay in pauses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return timer_result(n, now() - start, late)


def cpu(n: int, opt: Options) -> Result:
    with ThreadPoolExecutor(2) as pool:
        return cpu_result(
            n,
            lambda: [spin() for _ in range(n)],
            lambda: [f.result() for f in [pool.submit(spin) for _ in range(n)]],
        )


WORKLOADS: dict[str, Workload] = {
    f.__name__: f
    for f in (
        spawn, pingpong, unbuffered, buffered, mpmc, chain, parked, mutex, sieve, timer, cpu,
    )
}  # fmt: skip
# Between a goroutine and a plain thread: the standard library's threads are what one has instead.
for _name in ("pingpong", "unbuffered", "buffered"):
    WORKLOADS[_name + "_thread"] = WORKLOADS[_name]

if __name__ == "__main__":
    run("threads", "standard library", WORKLOADS)
