"""What every program below bench/impl shares: its command line, its one line of JSON, its checks.

A program is called `python bench/impl/on_LIBRARY.py WORKLOAD N [--alive K] [--pairs P]`, runs the
workload once and prints one JSON object: `workload`, `n`, `ns_per_item`, `lost` (how many values
did not arrive; 0 when all is well) and the workload's own columns. With `--probe` it says which
library and version it is and which workloads it has.

A workload is a function `f(n, opt) -> Result`. It takes the time itself, inside the goroutine,
task or thread in which a user would, so that starting the library is not part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

now = time.perf_counter


@dataclass
class Options:
    """The parts of the command line that only some workloads read."""

    alive: int = 0
    pairs: int = 1


@dataclass
class Result:
    """What a workload reports: seconds for so many items, values lost, extra columns."""

    seconds: float
    items: int
    lost: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


Workload = Callable[[int, Options], Any]


def run(
    library: str,
    version: str,
    workloads: dict[str, Workload],
    runner: Callable[[Workload, int, Options], Result] | None = None,
    facts: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Run what the command line asks for; `runner` is how this library runs its main function."""
    parser = argparse.ArgumentParser(
        description=f"The workloads on {library}; see bench/workloads.py for what each one times.",
        epilog="workloads here: " + " ".join(workloads),
    )
    parser.add_argument("workload", nargs="?", help="its name")
    parser.add_argument("n", nargs="?", type=int, help="how many items")
    parser.add_argument("--alive", type=int, default=0, help="others, parked, that exist meanwhile")
    parser.add_argument("--pairs", type=int, default=1, help="pairs that run at the same time")
    parser.add_argument("--probe", action="store_true", help="print library, version, workloads")
    args = parser.parse_args()
    if args.probe:
        line: dict[str, Any] = {
            "library": library,
            "version": version,
            "python": sys.version.split()[0],
            "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
            "workloads": sorted(workloads),
            **facts(),
        }
        _finish(line)
    if args.workload not in workloads:
        parser.error(f"{library} has no workload {args.workload!r}; it has: {' '.join(workloads)}")
    if args.n is None or args.n < 1 or args.alive < 0 or args.pairs < 1:
        parser.error("N and --pairs must be at least 1, --alive at least 0")
    opt = Options(args.alive, args.pairs)
    fn = workloads[args.workload]
    result = runner(fn, args.n, opt) if runner else fn(args.n, opt)
    _finish(
        {
            "workload": args.workload,
            "n": args.n,
            "ns_per_item": result.seconds * 1e9 / result.items,
            "lost": result.lost,
            **facts(),
            **result.extra,
        }
    )


def _finish(line: dict[str, Any]) -> None:
    """Print the line and leave at once: what is parked by now is not worth tearing down."""
    print(json.dumps(line), flush=True)
    os._exit(0)


def sum_below(n: int) -> int:
    """0 + 1 + … + (n-1): what a consumer must have added up."""
    return n * (n - 1) // 2


def lost(got: int, want: int) -> int:
    """0 when the sum is right, else 1 (some)."""
    return 0 if got == want else 1


def proc_kib(file: str, name: str) -> int:
    """A `Name:  123 kB` line of a file below /proc/self; 0 where there is none."""
    try:
        with open(f"/proc/self/{file}") as lines:
            for line in lines:
                if line.startswith(name + ":"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


class Memory:
    """Resident memory since the object was made; page tables apart, since Rss leaves them out."""

    def __init__(self) -> None:
        self.rss = proc_kib("smaps_rollup", "Rss")
        self.pte = proc_kib("status", "VmPTE")

    def each(self, n: int) -> dict[str, float]:
        """Bytes each of n, as the columns of `parked`."""
        return {
            "bytes_each": (proc_kib("smaps_rollup", "Rss") - self.rss) * 1024 / n,
            "page_table_bytes_each": (proc_kib("status", "VmPTE") - self.pte) * 1024 / n,
        }

    def peak_mib(self) -> float:
        """The highest resident memory so far, above what it was, in MiB."""
        return (proc_kib("status", "VmHWM") - self.rss) / 1024


def parked_result(n: int, start: float, wake: float, woken: int, memory: dict[str, float]) -> Result:
    """The result of `parked`: time to start, time to wake all, and who woke."""
    return Result(start + wake, n, n - woken, {"start_s": start, "wake_s": wake, **memory})


def chain_result(n: int, seconds: float, got: int, memory: Memory) -> Result:
    """The result of `chain`: n hops, and the peak of the memory."""
    extra = {"total_ms": seconds * 1e3, "peak_mib": memory.peak_mib()}
    return Result(seconds, n, lost(got, n + 1), extra)


def sieve_hops(n: int) -> tuple[int, int]:
    """The n-th prime, and how many values the sieve hands on to find it."""
    primes: list[int] = []
    hops, i = 0, 1
    while len(primes) < n:
        i += 1
        for k, p in enumerate(primes):
            if i % p == 0:
                hops += k + 1
                break
        else:
            primes.append(i)
            hops += len(primes)
    return primes[-1], hops


def sieve_result(n: int, seconds: float, last: int) -> Result:
    """The result of `sieve`: an item is one value handed from one filter to the next."""
    want, hops = sieve_hops(n)
    return Result(seconds, hops, lost(last, want), {"total_ms": seconds * 1e3, "primes": n})


def delays(n: int) -> list[float]:
    """n delays of 10 to 100 ms, in a scattered order."""
    return [0.010 + 0.090 * (i * 7919 % n) / n for i in range(n)]


def timer_result(n: int, seconds: float, late: list[float]) -> Result:
    """The result of `timer`; a sleeper that never woke or woke early is lost."""
    missing = n - len(late)
    late = sorted(late)
    early = sum(x < -0.0005 for x in late)
    return Result(
        seconds,
        n,
        missing + early,
        {
            "beyond_ms": (seconds - 0.1) * 1e3,
            "late_p50_ms": late[len(late) // 2] * 1e3,
            "late_p99_ms": late[len(late) * 99 // 100] * 1e3,
        },
    )


CPU_WORK = 400_000


def spin(k: int = CPU_WORK) -> int:
    """A function that only computes."""
    total = 0
    for i in range(k):
        total += i * i % 7
    return total


def cpu_result(n: int, in_turn: Callable[[], list[int]], together: Callable[[], list[int]]) -> Result:
    """The result of `cpu`: n × spin() one after the other and at once, by turns, the best of five."""
    want = [spin()] * n
    best = {in_turn: float("inf"), together: float("inf")}
    wrong = 0
    for _ in range(5):
        for way, least in best.items():
            start = now()
            got = way()
            best[way] = min(least, now() - start)
            wrong += got != want
    extra = {"speedup": best[in_turn] / best[together], "in_turn_s": best[in_turn]}
    return Result(best[together], n, wrong, extra)


def single_result(n: int, outside: Callable[[], float], inside: Callable[[], float]) -> Result:
    """The result of `single`: seconds of the same spin() in and outside of a goroutine, by turns."""
    ratios, times = [], []
    outside(), inside()
    for _ in range(n):
        plain = outside()
        times.append(inside())
        plain = (plain + outside()) / 2
        ratios.append(times[-1] / plain)
    return Result(statistics.median(times), 1, 0, {"inside_over_outside": statistics.median(ratios)})


def timed_spin() -> float:
    """Seconds of one spin()."""
    start = now()
    spin()
    return now() - start
