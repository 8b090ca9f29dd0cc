"""Runs random programs in this interpreter: `python -m fuzz --seconds 60 [--seed N]`, from the folder above.

Each program is made from a seed. Which one runs is written to the file given with --state before it runs, so that it
is known even if the interpreter crashes. With --seed the one program is run again and again: the seed repeats the
program, not the order in which its actors happen to run. The last line of the output is a JSON object with the counts.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import os
import random
import sys
import threading
import time
import warnings
from collections import Counter

import goslings
from goslings.testing import virtual_time

from fuzz import async_steps
from fuzz.async_steps import AsyncMachine
from fuzz.ledger import Token
from fuzz.machine import Failure
from fuzz.program import generate

STUCK_SECONDS = 90.0
"""A program that takes longer is hung: everything takes well below a second, and the machine gives up before."""
COLLECT_EVERY = 25


class Watchdog:
    """Ends the process, with everybody's stacks, when a program does not end."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.since: float | None = None
        self.seed = 0
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    def begin(self, seed: int) -> None:
        self.seed, self.since = seed, time.monotonic()
        # In case the thread below cannot run either.
        faulthandler.dump_traceback_later(self.seconds + 30, exit=True)

    def end(self) -> None:
        self.since = None
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while True:
            time.sleep(1)
            since = self.since
            if since is not None and time.monotonic() - since > self.seconds:
                print(f"\nseed {self.seed}: no end after {self.seconds} s", file=sys.stderr, flush=True)
                show_all()
                os._exit(3)


def show_all() -> None:
    faulthandler.dump_traceback(all_threads=True)
    goslings.dump(sys.stderr)
    sys.stderr.flush()


def run(seed: int, show: bool = False) -> Counter[str]:
    """Runs one program. Raises Failure."""
    program = generate(seed)
    if show:
        print(program, flush=True)
    goslings._goslings._set_slice_ms(program.slice_ms)
    if not program.bubble:
        return AsyncMachine(program).run()
    # What a bubble's goroutines share is made inside it.
    counts: Counter[str] = virtual_time(seed=seed).run(lambda: AsyncMachine(program).run())
    counts["bubbles"] += 1
    return counts


def check_nothing_is_left() -> None:
    """Every value that was made is gone."""
    deadline = time.monotonic() + 30
    while Token.alive.load():
        gc.collect()
        goslings.go(int).result()  # a worker looks at what other threads have left for it to free
        if time.monotonic() > deadline:
            raise Failure(f"{Token.alive.load()} values are never freed")
        time.sleep(0.001)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--programs", type=int, default=sys.maxsize, help="at most so many")
    parser.add_argument("--seed", type=int, help="run this program only")
    parser.add_argument("--first", type=int, help="where the seeds begin; random unless given")
    parser.add_argument("--state", help="a file for the seed of the program that runs")
    parser.add_argument("--show", action="store_true", help="print the programs")
    options = parser.parse_args()
    faulthandler.enable()
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # beside threads: that is what is tested
    if async_steps.uvloop is None:
        print("no uvloop here: programs that want it run on the loop of asyncio", flush=True)
    watchdog, total, programs = Watchdog(STUCK_SECONDS), Counter[str](), 0
    seeds = random.Random(options.first)
    state = os.open(options.state, os.O_WRONLY | os.O_CREAT, 0o644) if options.state else None
    started = told = time.monotonic()
    seed = 0
    try:
        while programs < options.programs and time.monotonic() - started < options.seconds:
            seed = options.seed or seeds.randrange(1, 2**48)
            if state is not None:
                os.pwrite(state, b"%-20d" % seed, 0)
            watchdog.begin(seed)
            total += run(seed, options.show)
            programs += 1
            if programs % COLLECT_EVERY == 0:
                check_nothing_is_left()
            watchdog.end()
            if time.monotonic() - told > 1:
                told = time.monotonic()
                print(json.dumps({"programs": programs, **total}), flush=True)
        check_nothing_is_left()
    except Failure as failure:
        print(f"\nseed {seed}: {failure}", file=sys.stderr, flush=True)
        show_all()
        # Without the usual end: it might hang, too.
        os._exit(1)
    print(json.dumps({"programs": programs, **total}), flush=True)


if __name__ == "__main__":
    main()
