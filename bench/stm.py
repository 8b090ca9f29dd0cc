"""What a transaction costs: `python bench/stm.py`. Beside `threading.Lock`, and beside atomix-stm if that is installed.

    counter   one variable read and written: as a transaction, and under a lock
    bank      transfers between 64 accounts by 4 goroutines: two workers over one; and how long a word takes from one
              thread to another and back. A commit moves what it writes between the processors: where these share no
              cache (a virtual machine may be moved so at any time), that costs more than a second worker brings
    readers   transactions that read 8 of 1,024 variables: two workers over one, beside two processes over one;
              and the same where the interpreter counts references to three of four values that they find
    wake      from a commit to where a consumer goes on that was blocked in retry()

Rounds take turns; medians. What is owed is printed beside what was measured. Two workers are worth measuring on a
free-threaded interpreter only, and on a machine with two idle processors.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import goslings
from goslings import AtomicInt, go
from goslings.stm import TVar, atomically, check

ACCOUNTS = 64
GOROUTINES = 4


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def repeat(times: int, step: Callable[[], object]) -> Callable[[], None]:
    def work() -> None:
        for _ in range(times):
            step()

    return work


class Box:
    """What the lock guards."""

    value = 0


def locked_step() -> Callable[[], None]:
    lock, box = threading.Lock(), Box()

    def add() -> None:
        box.value = box.value + 1

    def step() -> None:
        with lock:
            add()

    return step


def goslings_step() -> Callable[[], None]:
    counter = TVar(0)

    def add() -> None:
        counter.set(counter.get() + 1)

    def step() -> None:
        atomically(add)

    return step


def atomix_step() -> Callable[[], object] | None:
    """The same with atomix-stm; None without it."""
    if importlib.util.find_spec("atomix_stm") is None:
        return None
    import atomix_stm

    counter = atomix_stm.Ref(0)

    def add() -> None:
        counter.alter(lambda value: value + 1)

    step: Callable[[], object] = atomix_stm.atomically(add)
    return step


def counter(rounds: int) -> None:
    steps: dict[str, tuple[Callable[[], object], int]] = {
        "threading.Lock": (locked_step(), 100_000),
        "goslings.stm": (goslings_step(), 100_000),
    }
    if atomix := atomix_step():
        steps["atomix-stm"] = (atomix, 2_000)
    took: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, (step, times) in steps.items():
            took[name].append(timed(repeat(times, step)) / times * 1e9)
    ns = {name: statistics.median(times) for name, times in took.items()}
    print("counter   " + ", ".join(f"{name} {value:,.0f} ns" for name, value in ns.items()))
    print(f"          {ns['goslings.stm'] / ns['threading.Lock']:.2f} times a lock (owed: at most 4)")
    if "atomix-stm" in ns:
        print(f"          {ns['atomix-stm'] / ns['goslings.stm']:.1f} times faster than atomix-stm (owed: at least 10)")
    else:
        print("          atomix-stm is not installed: pip install atomix-stm")


def together(work: Callable[[int], object]) -> None:
    for goroutine in [go(work, seed) for seed in range(GOROUTINES)]:
        goroutine.result()


def transfer(source: TVar[int], target: TVar[int]) -> None:
    source.set(source.get() - 1)
    target.set(target.get() + 1)


def transfers(count: int) -> Callable[[int], None]:
    accounts = [TVar(100) for _ in range(ACCOUNTS)]

    def work(seed: int) -> None:
        chance = random.Random(seed)
        pairs = [tuple(chance.sample(accounts, 2)) for _ in range(64)]
        for number in range(count):
            source, target = pairs[number % 64]
            atomically(transfer, source, target)

    return work


def look(some: tuple[TVar[int], ...]) -> int:
    total = 0
    for variable in some:
        total += variable.get()
    return total


def there_and_back(times: int = 20_000) -> float:
    """How long a word takes between two threads that look for it all the time: ns, what their looks cost included."""
    word = AtomicInt()

    def answer() -> None:
        for turn in range(0, 2 * times, 2):
            while word.load() != turn + 1:
                pass
            word.store(turn + 2)

    thread = threading.Thread(target=answer)
    thread.start()

    def ask() -> None:
        for turn in range(0, 2 * times, 2):
            word.store(turn + 1)
            while word.load() != turn + 2:
                pass

    took = timed(ask)
    thread.join()
    return took / times * 1e9


def readings(count: int, most: int = 256) -> Callable[[int], None]:
    """Of values below `most`: the interpreter counts references to those from 257 on."""
    variables = [TVar(i % most) for i in range(1024)]

    def work(seed: int) -> None:
        chance = random.Random(seed)
        groups = [tuple(chance.sample(variables, 8)) for _ in range(64)]
        for number in range(count):
            atomically(look, groups[number % 64])

    return work


def speed_up(rounds: int, work: Callable[[int], None]) -> tuple[float, list[float]]:
    """Two workers over one: the median, and all rounds."""
    ratios = []
    for _ in range(rounds):
        goslings.gomaxprocs(1)
        one = timed(lambda: together(work))
        goslings.gomaxprocs(2)
        ratios.append(one / timed(lambda: together(work)))
    return statistics.median(ratios), ratios


def in_process(count: int, ready: Any, begin: Any) -> None:
    work = readings(count)
    ready.release()
    begin.acquire()
    for seed in range(GOROUTINES // 2):
        work(seed)


def ceiling(rounds: int, count: int) -> float:
    """The same readings in two processes over one after the other: what the machine gives."""
    spawn = multiprocessing.get_context("spawn")
    ratios = []
    for _ in range(rounds):
        took = []
        for at_once in (1, 2):
            ready, begin = spawn.Semaphore(0), spawn.Semaphore(0)
            processes = [spawn.Process(target=in_process, args=(count, ready, begin)) for _ in range(2)]
            for process in processes:
                process.start()
            for _ in processes:
                ready.acquire()

            def run(at_once: int = at_once, processes: Any = processes, begin: Any = begin) -> None:
                for first in range(0, 2, at_once):
                    for _ in range(at_once):
                        begin.release()
                    if at_once == 1 and first == 0:
                        while all(process.is_alive() for process in processes):
                            time.sleep(0.0005)
                for process in processes:
                    process.join()

            took.append(timed(run))
        ratios.append(took[0] / took[1])
    return statistics.median(ratios)


def wake(times: int) -> None:
    goslings.gomaxprocs(2)
    flag, at = TVar(0), TVar(0.0)
    late = []

    def take() -> float:
        check(flag.get())
        flag.set(0)
        return at.get()

    def consumer() -> None:
        for _ in range(times):
            begin = atomically(take)
            late.append((time.perf_counter() - begin) * 1e6)

    def produce() -> None:
        check(not flag.get())
        flag.set(1)
        at.set(time.perf_counter())

    waiting = go(consumer)
    for _ in range(times):
        goslings.sleep(0.0005)  # by then the consumer waits
        atomically(produce)
    waiting.result()
    print(f"wake      median {statistics.median(late):.0f} us (owed: at most 50)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement (default: %(default)s)")
    parser.add_argument("--count", type=int, default=20_000, help="transactions of a goroutine (default: %(default)s)")
    args = parser.parse_args()
    kind = "GIL" if getattr(sys, "_is_gil_enabled", lambda: True)() else "free-threaded"
    print(f"CPython {sys.version.split()[0]}, {kind}, {os.cpu_count()} processors; {args.rounds} rounds")
    counter(args.rounds)
    free = kind != "GIL"
    before = there_and_back() if free else 0.0
    bank, rounds = speed_up(3 * args.rounds, transfers(args.count))
    spread = f"{min(rounds):.2f} to {max(rounds):.2f}"
    print(f"bank      two workers {bank:.2f} times one, {spread} (owed, free-threaded: at least 1.5)")
    if free:
        after = there_and_back()
        print(f"          a word there and back between two threads: {before:.0f} ns before, {after:.0f} ns after")
    readers, rounds = speed_up(args.rounds, readings(args.count))
    spread = f"{min(rounds):.2f} to {max(rounds):.2f}"
    most = ceiling(max(1, args.rounds // 2), args.count)
    print(f"readers   two workers {readers:.2f} times one, {spread}; two processes {most:.2f}", end="")
    print(f": {readers / most:.0%} of it (owed, free-threaded: at least 90 %)")
    counted, rounds = speed_up(args.rounds, readings(args.count, 1024))
    spread = f"{min(rounds):.2f} to {max(rounds):.2f}"
    print(f"          {counted:.2f} times one, {spread}, where values are counted")
    wake(500)


if __name__ == "__main__":
    main()
