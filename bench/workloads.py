"""The workloads: their names, what each times, how many items at which pace, which columns.

Every program has its pace: `fast` are goslings and Go, `medium` the libraries with tasks of their
own, `slow` what uses a thread for each. A slower program gets fewer items, so that all take about
as long; what is reported is the cost of one item.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Workload:
    """One line of the table."""

    name: str
    what: str
    fast: int
    medium: int
    slow: int
    unit: str = "ns"
    # Columns besides the time, as (key in the output, heading).
    columns: tuple[tuple[str, str], ...] = field(default=())
    # The column that ratios and targets compare; the time of one item unless said otherwise.
    key: str = "ns_per_item"

    def count(self, pace: str, scale: float) -> int:
        """How many items a program of this pace gets."""
        n = {"fast": self.fast, "medium": self.medium, "slow": self.slow}[pace]
        floor = 2 if self.name in ("cpu", "single") else 16
        return max(min(floor, n), round(n * scale))


_CHAIN = (("total_ms", "total ms"), ("peak_mib", "peak MiB"))
_PARKED = (
    ("bytes_each", "bytes each"),
    ("page_table_bytes_each", "page table bytes each"),
    ("start_s", "start all, s"),
    ("wake_s", "wake all, s"),
)
_TIMER = (
    ("beyond_ms", "ms beyond 100 ms"),
    ("late_p50_ms", "late p50, ms"),
    ("late_p99_ms", "late p99, ms"),
)
_CPU = (("speedup", "speed-up on 2"),)
_SINGLE = (("inside_over_outside", "inside / outside"),)

WORKLOADS: dict[str, Workload] = {
    w.name: w
    for w in (
        Workload("spawn", "start and wait for no-op goroutines", 1_000_000, 200_000, 5_000),
        Workload("pingpong", "round trip over two unbuffered channels", 400_000, 40_000, 20_000),
        Workload("unbuffered", "one producer, one consumer, per item", 600_000, 60_000, 20_000),
        Workload("buffered", "the same, capacity 1024", 2_000_000, 500_000, 100_000),
        Workload("mpmc", "4 producers, 4 consumers, capacity 128", 1_000_000, 400_000, 80_000),
        Workload("select2", "selecting over two channels, two producers", 300_000, 20_000, 10_000),
        Workload("select_empty", "select, timeout 0, two empty channels", 1_000_000, 100_000, 100_000),
        Workload("chain", "a daisy chain, one value through it", 100_000, 100_000, 1_000, columns=_CHAIN),
        Workload("parked", "parked on a receive; start, wake all", 1_000_000, 100_000, 2_000, columns=_PARKED),
        Workload("mutex", "8 goroutines on one mutex, lock and unlock", 1_000_000, 400_000, 200_000),
        Workload("sieve", "concurrent prime sieve, per value handed on", 2_500, 500, 100, columns=_CHAIN[:1]),
        Workload("timer", "sleeping 10 to 100 ms each", 100_000, 100_000, 2_000, columns=_TIMER, key="late_p99_ms"),
        Workload("cpu", "functions that only compute", 16, 16, 16, columns=_CPU, key="speedup"),
        Workload("single", "one such function, in a goroutine", 15, 15, 15, columns=_SINGLE, key="inside_over_outside"),
        Workload("pingpong_thread", "goroutine and plain thread: pingpong", 40_000, 20_000, 20_000),
        Workload("unbuffered_thread", "goroutine and plain thread: unbuffered", 60_000, 20_000, 20_000),
        Workload("buffered_thread", "goroutine and plain thread: buffered", 500_000, 100_000, 100_000),
    )
}  # fmt: skip

# The crowd: the per-item cost of these, beside so many parked goroutines, and in so many pairs.
FLAT = ("spawn", "pingpong", "unbuffered", "buffered")
FLAT_ALIVE = (10, 1_000, 100_000)
FLAT_PAIRS = (10, 1_000, 10_000)
FLAT_COUNTS = {"spawn": 200_000, "pingpong": 200_000, "unbuffered": 400_000, "buffered": 1_000_000}

# Not run here but by the demo itself; see feeds.py.
FEEDS = "feeds"

NAMES = (*WORKLOADS, "flat", FEEDS)
