#!/usr/bin/env python3
"""Run random programs on each interpreter, and account for every value that they send.

The programs are those of tests/fuzz. The time is shared among the interpreters, in slices of at most a minute, each in a
process of its own. A failure is printed with the seed of its program, and saved in target/fuzz; `make fuzz
SEED=... PYTHONS=...` runs that program again and again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from build_cpython import fail
from dev import ROOT, Venv, locked, prepare
from interpreters import ensure, tags_argument

SLICE_SECONDS = 60.0
GRACE_SECONDS = 300.0  # a slice that takes so much longer is killed: its own watchdog has failed
FAILURES = ROOT / "target" / "fuzz"
MAIN_COUNTS = (
    "programs",
    "bubbles",
    "fork",
    "actors",
    "operations",
    "values",
    "cancelled",
    "timed out",
    "closed",
)


class Slice(NamedTuple):
    """What came of one process."""

    failed: bool
    counts: dict[str, int]
    seconds: float


class Bar:
    """How far it is, on one line of a terminal."""

    def __init__(self, seconds: float) -> None:
        self.started, self.seconds = time.monotonic(), seconds
        self.shown = sys.stderr.isatty()

    def draw(self, tag: str, counts: dict[str, int]) -> None:
        if not self.shown:
            return
        passed = time.monotonic() - self.started
        filled = min(30, int(30 * passed / self.seconds))
        told = f"{counts.get('programs', 0)} programs, {counts.get('values', 0)} values"
        left = max(0, int(self.seconds - passed))
        sys.stderr.write(f"\r[{'#' * filled}{'.' * (30 - filled)}] {left:5} s left  {tag}: {told}\033[K")
        sys.stderr.flush()

    def clear(self) -> None:
        if self.shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def run_slice(
    venv: Venv, seconds: float, first: int, seed: int | None, bar: Bar, before: dict[str, int]
) -> Slice:
    """One process."""
    FAILURES.mkdir(parents=True, exist_ok=True)
    state = FAILURES / f"running-{venv.tag}-{os.getpid()}"
    chosen = ["--seed", str(seed)] if seed is not None else ["--first", str(first)]
    started = time.monotonic()
    process = subprocess.Popen(
        [
            venv.python,
            "-X",
            "faulthandler",
            "-m",
            "fuzz",
            f"--seconds={seconds}",
            f"--state={state}",
            *chosen,
        ],
        cwd=str(ROOT),
        env=dict(os.environ, PYTHONPATH=str(ROOT / "tests")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None and process.stderr is not None
    errors: list[str] = []
    reader = threading.Thread(target=errors.extend, args=(process.stderr,), daemon=True)
    reader.start()
    killer = threading.Timer(seconds + GRACE_SECONDS, process.kill)
    killer.start()
    counts: dict[str, int] = {}
    try:
        for line in process.stdout:
            if line.startswith("{"):
                counts = json.loads(line)
                bar.draw(venv.tag, add(before, counts))
        code = process.wait()
    finally:
        killer.cancel()
        if process.poll() is None:
            process.kill()
    reader.join(10)
    if code != 0:
        bar.clear()
        running = state.read_text().strip() if state.exists() else "?"
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        saved = FAILURES / f"{venv.tag}-{running}.txt"
        saved.write_text(f"{venv.tag}, seed {running}, {how}\n{''.join(errors)}")
        print(f"{venv.tag}: FAILED, seed {running}, {how}; saved in {saved.relative_to(ROOT)}", flush=True)
        print("".join(errors[:60]), flush=True)
        print(f"again: make fuzz SEED={running} PYTHONS={venv.tag}", flush=True)
    state.unlink() if state.exists() else None
    return Slice(code != 0, counts, time.monotonic() - started)


def add(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {key: a.get(key, 0) + b.get(key, 0) for key in {**a, **b}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=tags_argument, default=[], metavar="TAGS", help="these interpreters")
    parser.add_argument("--seconds", type=float, default=60, help="in all, for all interpreters together")
    parser.add_argument("--seed", type=int, help="only the program of this seed")
    options = parser.parse_args()
    interpreters = ensure(options.only)
    with locked():
        venvs = [prepare(interpreter, ["test"]) for interpreter in interpreters]
    choose = random.Random()
    bar = Bar(options.seconds)
    totals: dict[str, dict[str, int]] = {venv.tag: {} for venv in venvs}
    seconds = dict.fromkeys(totals, 0.0)
    failures = dict.fromkeys(totals, 0)
    turns = max(1, round(options.seconds / len(venvs) / SLICE_SECONDS))
    interrupted = False
    try:
        for _ in range(turns):
            for venv in venvs:
                ended = run_slice(
                    venv,
                    options.seconds / len(venvs) / turns,
                    choose.randrange(1, 2**48),
                    options.seed,
                    bar,
                    totals[venv.tag],
                )
                totals[venv.tag] = add(totals[venv.tag], ended.counts)
                seconds[venv.tag] += ended.seconds
                failures[venv.tag] += ended.failed
    except KeyboardInterrupt:
        interrupted = True
    bar.clear()
    print(f"{'':6}{'seconds':>8}{'failed':>8}" + "".join(f"{name:>12}" for name in MAIN_COUNTS))
    for tag, counts in totals.items():
        numbers = "".join(f"{counts.get(name, 0):12}" for name in MAIN_COUNTS)
        print(f"{tag:6}{seconds[tag]:8.0f}{failures[tag]:8}{numbers}")
    failed = sum(failures.values())
    values = sum(counts.get("values", 0) for counts in totals.values())
    print(
        f"{values} values sent, each of them accounted for; {failed} failures"
        if not failed
        else f"{failed} failures"
    )
    if interrupted:
        fail("interrupted; what the last process did is not counted")
    sys.exit(failed > 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("interrupted")
