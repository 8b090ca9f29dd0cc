"""The workloads on pysync-nogil: its channels and select, between threads.

It has channels (crossbeam's, capacity 0 is a rendezvous) but no tasks: everything runs in threads,
so only the workloads with a handful of them are here.
"""

from __future__ import annotations

import threading
from importlib.metadata import version
from typing import Any

from harness import Options, Result, Workload, lost, now, run, sum_below
from pysync import Channel, select


def start_thread(fn: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=fn, args=args, daemon=True)
    thread.start()
    return thread


def pingpong(n: int, opt: Options) -> Result:
    ping, pong = Channel(0), Channel(0)

    def answer() -> None:
        for _ in range(n):
            pong.send(ping.recv())

    start = now()
    start_thread(answer)
    total = 0
    for i in range(n):
        ping.send(i)
        total += pong.recv()
    return Result(now() - start, n, lost(total, sum_below(n)))


def stream(n: int, capacity: int) -> Result:
    ch = Channel(capacity)

    def produce() -> None:
        for i in range(n):
            ch.send(i)

    start = now()
    start_thread(produce)
    total = 0
    for _ in range(n):
        total += ch.recv()
    return Result(now() - start, n, lost(total, sum_below(n)))


def unbuffered(n: int, opt: Options) -> Result:
    return stream(n, 0)


def buffered(n: int, opt: Options) -> Result:
    return stream(n, 1024)


def mpmc(n: int, opt: Options) -> Result:
    each = n // 4
    ch = Channel(128)
    sums: list[int] = []

    def produce() -> None:
        for i in range(each):
            ch.send(i)

    def consume() -> None:
        total = 0
        for _ in range(each):
            total += ch.recv()
        sums.append(total)

    start = now()
    for thread in [start_thread(fn) for fn in [produce, consume] * 4]:
        thread.join()
    return Result(now() - start, 4 * each, lost(sum(sums), 4 * sum_below(each)))


def select2(n: int, opt: Options) -> Result:
    each = n // 2
    a, b = Channel(0), Channel(0)

    def produce(ch: Any) -> None:
        for i in range(each):
            ch.send(i)

    start = now()
    start_thread(produce, a)
    start_thread(produce, b)
    total = 0
    for _ in range(2 * each):
        total += select([a.recv_op(), b.recv_op()])[1]
    return Result(now() - start, 2 * each, lost(total, 2 * sum_below(each)))


def select_empty(n: int, opt: Options) -> Result:
    a, b = Channel(0), Channel(0)
    idle = 0
    start = now()
    for _ in range(n):
        try:
            select([a.recv_op(), b.recv_op()], timeout=0)
        except TimeoutError:
            idle += 1
    return Result(now() - start, n, n - idle)


WORKLOADS: dict[str, Workload] = {f.__name__: f for f in (pingpong, unbuffered, buffered, mpmc, select2, select_empty)}
for _name in ("pingpong", "unbuffered", "buffered"):
    WORKLOADS[_name + "_thread"] = WORKLOADS[_name]

if __name__ == "__main__":
    run("pysync-nogil", version("pysync-nogil"), WORKLOADS)
