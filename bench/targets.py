"""The targets, as data: what is compared with what, and the limits it must keep.

A limit `owed` is what this stage of the project must reach, `target` what it aims for, `moonshot`
what would be splendid. `lower` is whether less is better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from results import Results
from workloads import FLAT, FLAT_ALIVE

# (results, interpreter, column of goslings) -> the measured value, None if it cannot be told
Measure = Callable[[Results, str, str], "float | None"]

# 3.13t lacks what 3.14t has made faster; its ratios to Go may be this much larger.
ALLOWANCE_313T = 1.5


@dataclass(frozen=True)
class Target:
    """One line of the table of targets."""

    workload: str
    what: str
    measure: Measure
    target: float
    owed: float | None = None
    moonshot: float | None = None
    lower: bool = True
    unit: str = "×"
    relative_to_go: bool = False
    free_threaded_only: bool = True
    columns: tuple[str, ...] = ("goslings P=1", "goslings P=2")

    def limit(self, tag: str, limit: float) -> float:
        return limit * ALLOWANCE_313T if self.relative_to_go and tag == "3.13t" else limit

    def met(self, value: float, limit: float) -> bool:
        return value <= limit if self.lower else value >= limit


def ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def to_go(workload: str, key: str = "ns_per_item") -> Measure:
    """goslings over Go on one processor."""

    def measure(results: Results, tag: str, column: str) -> float | None:
        ours = results.median(workload, column, tag, key)
        return ratio(ours, results.median(workload, "Go P=1", tag, key))

    return measure


def to_best_rival(workload: str, *, with_gil: bool) -> Measure:
    """How many times faster than the fastest Python rival."""

    def measure(results: Results, tag: str, column: str) -> float | None:
        rivals = results.rivals(workload, tag, with_gil=with_gil)
        return ratio(min(rivals.values(), default=None), results.median(workload, column, tag))

    return measure


def to_gevent_on_gil(workload: str) -> Measure:
    """How many times faster than gevent on a GIL build, where it is at its best."""

    def measure(results: Results, tag: str, column: str) -> float | None:
        theirs = [results.median(workload, "gevent", t) for t in results.tags if not t.endswith("t")]
        best = min((t for t in theirs if t is not None), default=None)
        return ratio(best, results.median(workload, column, tag))

    return measure


def to_rival(workload: str, rival: str) -> Measure:
    """How many times faster than this library."""

    def measure(results: Results, tag: str, column: str) -> float | None:
        return ratio(results.median(workload, rival, tag), results.median(workload, column, tag))

    return measure


def beyond_tonio(results: Results, tag: str, column: str) -> float | None:
    ours = results.median("timer", column, tag, "beyond_ms")
    return ratio(ours, results.median("timer", "tonio", tag, "beyond_ms"))


def of_ceiling(results: Results, tag: str, column: str) -> float | None:
    ours = results.median("cpu", column, tag, "speedup")
    return ratio(ours, results.median("cpu", "processes", tag, "speedup"))


def plain(workload: str, key: str) -> Measure:
    return lambda results, tag, column: results.median(workload, column, tag, key)


def feeds_of_ceiling(results: Results, tag: str, column: str) -> float | None:
    """The demo's speed-up over reading one feed after the other, as a share of what processes could."""
    demo = results.data.get("feeds", {}).get(tag, {})
    if not demo.get("ceiling") or "goslings" not in demo["rows"]:
        return None
    return ratio(demo["rows"]["goslings"]["speedup"], demo["ceiling"])


def feeds_to_best(results: Results, tag: str, column: str) -> float | None:
    """The demo's time over the faster of threading and multiprocessing."""
    rows = results.data.get("feeds", {}).get(tag, {}).get("rows", {})
    others = [rows[mode]["seconds"] for mode in ("threading", "multiprocessing") if mode in rows]
    if not others or "goslings" not in rows:
        return None
    return ratio(rows["goslings"]["seconds"], min(others))


def flatness(results: Results, tag: str, column: str) -> float | None:
    """The worst cost beside many goroutines, over the cost beside ten."""
    worst = None
    for workload in FLAT:
        base = results.flat_cost(workload, column, tag, "--alive", FLAT_ALIVE[0])
        for alive in FLAT_ALIVE[1:]:
            share = ratio(results.flat_cost(workload, column, tag, "--alive", alive), base)
            if share is not None and (worst is None or share > worst):
                worst = share
    return worst


def _go(workload: str, target: float, owed: float | None = None, moonshot: float | None = None) -> Target:
    what = "time, relative to Go on one processor"
    return Target(workload, what, to_go(workload), target, owed, moonshot, relative_to_go=True)


def _rival(workload: str, target: float, *, with_gil: bool, owed: bool) -> Target:
    whom = "all that run here, GIL put back or not" if with_gil else "those that keep the GIL as it is"
    measure = to_best_rival(workload, with_gil=with_gil)
    return Target(
        workload, f"times faster than the best Python rival ({whom})", measure, target,
        target if owed else None, lower=False,
    )  # fmt: skip


_ASYNC = ("goslings async P=1", "goslings async P=2")


def _async(workload: str, rival: str, times: float, *, free_threaded_only: bool) -> Target:
    what, measure = f"times faster than {rival}", to_rival(workload, rival)
    return Target(
        workload, what, measure, times, times, lower=False, free_threaded_only=free_threaded_only, columns=_ASYNC
    )


TARGETS: tuple[Target, ...] = (
    _go("spawn", 1.5, 2.0, 1.0),
    _go("pingpong", 1.5, 2.0, 1.0),
    _go("unbuffered", 1.5, 2.0),
    _go("buffered", 4.0, 5.0),
    _go("mpmc", 4.0, 5.0),
    _go("select2", 2.0, 3.0),
    _go("select_empty", 4.0),
    _go("chain", 3.0),
    _go("mutex", 6.0),
    _go("sieve", 2.0),
    Target(
        "timer",
        "lateness p99, relative to Go on one processor",
        to_go("timer", "late_p99_ms"),
        1.0,
        relative_to_go=True,
    ),
    Target("timer", "ms beyond 100 ms, relative to tonio", beyond_tonio, 1.0),
    *[
        _rival(name, times, with_gil=with_gil, owed=True)
        for name, times in (("pingpong", 5.0), ("unbuffered", 5.0), ("select2", 5.0), ("spawn", 1.5), ("mpmc", 1.5))
        for with_gil in (False, True)
    ],
    _rival("buffered", 3.0, with_gil=False, owed=False),
    Target("buffered", "times faster than gevent on a GIL build", to_gevent_on_gil("buffered"), 1.0, 1.0, lower=False),
    Target(
        "cpu",
        "share of the ceiling (two processes), two workers",
        of_ceiling,
        0.98,
        0.95,
        lower=False,
        columns=("goslings P=2",),
    ),
    Target(
        "single",
        "time in a goroutine over time outside",
        plain("single", "inside_over_outside"),
        1.02,
        free_threaded_only=False,
    ),
    Target(
        "parked", "resident bytes of a parked goroutine", plain("parked", "bytes_each"), 8192, 12288, 3072, unit=" B"
    ),
    Target("parked", "start and wake all, relative to Go on one processor", to_go("parked"), 5.0, relative_to_go=True),
    Target(
        "feeds", "share of the ceiling, the demo", feeds_of_ceiling, 0.9, 0.9, lower=False, columns=("goslings P=2",)
    ),
    Target(
        "feeds",
        "time, relative to the faster of threading and multiprocessing",
        feeds_to_best,
        1.0,
        1.0,
        columns=("goslings P=2",),
        free_threaded_only=False,
    ),
    Target("flat", "cost beside 100,000 goroutines over cost beside 10, the worst", flatness, 1.2, 1.2),
    *[
        _async(name, rival, times, free_threaded_only=rival == "tonio")
        for name in ("spawn", "pingpong", "buffered")
        for rival, times in (("asyncio", 3.0), ("tonio", 1.0))
    ],
    Target(
        "parked", "resident bytes of a parked goroutine", plain("parked", "bytes_each"), 1229, 1229,
        unit=" B", free_threaded_only=False, columns=_ASYNC,
    ),
    Target(
        "cpu", "share of the ceiling (two processes), two workers", of_ceiling, 0.9, 0.9,
        lower=False, columns=("goslings async P=2",),
    ),
)  # fmt: skip
