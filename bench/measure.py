"""Runs the programs in turn, round after round, and keeps what was measured undisturbed."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from control import LIMIT, Control
from programs import Program, environment

TIMEOUT = 60.0  # of one run; all take a few seconds where nothing hangs


@dataclass
class Sample:
    """One run of a program, and the control's times before and after it."""

    line: dict[str, Any]
    control: float

    def disturbed(self, best: float) -> bool:
        return self.control > LIMIT * best


@dataclass
class Job:
    """A program on one workload, and its samples so far."""

    program: Program
    workload: str
    n: int
    args: tuple[str, ...] = ()
    samples: list[Sample] = field(default_factory=list)
    error: str = ""

    def clean(self, best: float) -> list[Sample]:
        return [s for s in self.samples if not s.disturbed(best)]

    def result(self, best: float, rounds: int) -> dict[str, Any]:
        """What is kept: the undisturbed samples, or the least disturbed ones and a mark."""
        kept = self.clean(best)
        noisy = len(kept) < min(3, rounds)
        if noisy:
            kept = sorted(self.samples, key=lambda s: s.control)[:rounds]
        return {
            "workload": self.workload,
            "library": self.program.library,
            "config": self.program.config,
            "column": self.program.column,
            "tag": self.program.tag,
            "gil": self.program.gil,
            "version": self.program.version,
            "n": self.n,
            "args": list(self.args),
            "error": self.error,
            "noisy": noisy and bool(kept),
            "dropped": len(self.samples) - len(kept),
            "values": [s.line for s in kept],
        }


def run_once(job: Job, n: int | None = None) -> dict[str, Any]:
    """Run the program once in a fresh process; {"error": …} if it does not do its work."""
    command = [*job.program.command, job.workload, str(n or job.n), *job.args]
    try:
        done = subprocess.run(
            command,
            env=environment(dict(job.program.env)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"did not end within {TIMEOUT:.0f} s"}
    except OSError as error:
        return {"error": str(error)}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        return {"error": f"ended with {how}: {last}"[:300]}
    try:
        line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {"error": f"printed no result: {done.stdout[-200:]!r}"}
    return line


def fastest(jobs: list[Job]) -> Job:
    """Of the configurations of one library, the one that is fastest in a short trial."""
    if len(jobs) == 1:
        return jobs[0]
    times = []
    for job in jobs:
        lines = [run_once(job, max(16, job.n // 4))]
        if "error" not in lines[0]:
            lines.append(run_once(job, max(16, job.n // 4)))
        good = [line["ns_per_item"] for line in lines if "error" not in line and not line["lost"]]
        times.append(min(good, default=float("inf")))
    return jobs[times.index(min(times))]


class Progress:
    """A bar if tqdm is installed and this is a terminal, else a line per workload."""

    def __init__(self, total: int) -> None:
        self.bar: Any = None
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm

                self.bar = tqdm(total=total, unit="run", dynamic_ncols=True, file=sys.stderr)
            except ImportError:
                pass

    def say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.set_description(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line that stays."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            self.say(text)

    def step(self, more: int = 0) -> None:
        if self.bar is not None:
            self.bar.total += more
            self.bar.update(1)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def rounds_of(
    jobs: Iterable[Job],
    rounds: int,
    patience: int,
    control: Control,
    step: Callable[[int], None],
    say: Callable[[str], None],
) -> None:
    """Run all jobs in turn `rounds` times; then again, in turn, those that were disturbed.

    None is run more than `patience` times the rounds; with a patience of 1 nothing is waited for.
    """
    todo = list(jobs)
    for attempt in range(rounds * patience):
        for job in list(todo):
            if len(job.clean(control.best)) >= rounds:
                continue
            before = control.settle(0.0 if patience == 1 else 1.0 if attempt < rounds else 4.0)
            line = run_once(job)
            after = control.run()
            if "error" in line:
                job.error = line["error"]
                todo.remove(job)
                say(f"{job.program.tag}, {job.program.column}, {job.workload}: {job.error}")
            else:
                job.samples.append(Sample(line, max(before, after)))
            step(1 if attempt >= rounds else 0)


def summary(values: list[float]) -> tuple[float, float, float]:
    """Median, least and most."""
    return statistics.median(values), min(values), max(values)
