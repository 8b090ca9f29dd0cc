"""stats: the runtime's counters."""

from __future__ import annotations

from dataclasses import dataclass

from goslings import _goslings

__all__ = ["Stats", "stats"]


@dataclass(frozen=True)
class Stats:
    """Counters of the runtime; those in the past tense count since it started."""

    procs: int
    """How many workers take new goroutines: `gomaxprocs()`."""
    workers: int
    """Worker threads that exist."""
    spares: int
    """Those of them that are more than `procs`: brought up because others were held, or left over."""
    goroutines: int
    """Goroutines that exist: running, ready, parked or not started yet."""
    spawned: int
    """Goroutines made by `go`."""
    started: int
    """Goroutines that have begun to run."""
    finished: int
    """Goroutines that have ended."""
    switches: int
    """Times that a worker turned to a goroutine."""
    stolen: int
    """Times that a worker took goroutines from another."""
    sleeps: int
    """Times that a worker went to sleep."""
    preemptions: int
    """Times that a goroutine that computed was made to let others run."""
    held: int
    """Workers that one goroutine has held for longer than a slice (GOSLINGS_SLICE_MS) now."""
    longest_hold: float
    """The longest time that a goroutine has been seen to hold its worker, in seconds."""
    timers: int
    """Timers that are set, sleeping goroutines and timeouts included."""
    stacks: int
    """Goroutine stacks mapped, in use or kept for reuse."""


def stats() -> Stats:
    """Reads the counters. They are not of one instant. Never blocks."""
    return Stats(**_goslings._stats())
