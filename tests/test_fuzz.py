"""The fuzzer: a short run of it, and that it sees what goes wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzz.async_steps import AsyncMachine
from fuzz.ledger import SHIFT, Ledger, check
from fuzz.machine import Failure, Machine
from fuzz.program import ASYNC, GOROUTINE, MAIN, TASK, THREAD, Actor, Program, generate
from goslings import chan, num_goroutine
from helpers import count, until

TESTS = Path(__file__).resolve().parent


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", "-m", "fuzz", *arguments],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_random_programs_lose_and_double_nothing() -> None:
    done = fuzz("--seconds=8", f"--programs={count(60)}", "--first=1")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["programs"] > 1 and counts["values"] > 100 and counts["cancelled"]


def test_programs_in_bubbles_and_with_forks_do_so_too() -> None:
    seeds = range(1, 2000)
    bubble = next(seed for seed in seeds if generate(seed).bubble)
    [forks] = [seed for seed in seeds if any(step[0] == "fork" for step in generate(seed).actors[0].steps)][:1]
    for seed, what in ((bubble, "bubbles"), (forks, "fork")):
        done = fuzz("--seconds=60", "--programs=2", f"--seed={seed}")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert json.loads(done.stdout.splitlines()[-1])[what] >= 1


def test_a_seed_makes_one_program() -> None:
    assert str(generate(7)) == str(generate(7)) != str(generate(8))
    programs = [generate(seed) for seed in range(1, 300)]
    # Every kind of step occurs, and the machine knows what to do.
    names = {step[0] for program in programs for actor in program.actors for step in actor.steps}
    assert names <= {name for name in vars(Machine) if not name.startswith("_")} and len(names) > 40
    twins = {name[1:] for name in vars(AsyncMachine) if name.startswith("a")}
    assert {"send", "recv", "recv_ok", "select", "mutex", "read", "write", "acquire", "consume", "meet"} <= twins
    assert {program.uvloop for program in programs} == {program.signals for program in programs} == {False, True}
    assert {program.bubble for program in programs} == {False, True}
    for program in programs:
        if program.bubble:
            assert {actor.kind for actor in program.actors} <= {MAIN, GOROUTINE, ASYNC} and not program.signals
    assert {actor.kind for program in programs for actor in program.actors} == {MAIN, GOROUTINE, THREAD, ASYNC, TASK}
    for program in programs:
        starts = [
            number
            for actor in program.actors
            for step in actor.steps
            for number in (step[1:] if step[0] == "spawn" else step[1] if step[0] in ("group", "wait_group") else ())
        ]
        assert sorted(starts) == list(range(1, len(program.actors))), "each is started by one step"


def test_one_seed_can_be_repeated_and_is_told(tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = fuzz("--seconds=0.1", "--seed=12345", f"--state={state}", "--show")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(re.findall(r"^program (\d+)", done.stdout, re.M)) == {"12345"}
    assert state.read_text().strip() == "12345"


# What it sees


def value(actor: int, n: int) -> int:
    return actor << SHIFT | n


def good() -> tuple[list[Ledger], list[list[int]], list[int]]:
    one, two = Ledger(1), Ledger(2)
    one.sent = [(0, value(1, 1)), (0, value(1, 2)), (1, value(1, 3)), (0, value(1, 5))]
    one.kept = [value(1, 4)]
    two.received = [(0, value(1, 1)), (0, value(1, 2))]
    return [one, two], [[value(1, 5)], [value(1, 3)]], [1, 1]


def test_good_books_are_good() -> None:
    assert check(*good()) == []


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda one, two, drained, room: two.received.pop(), "is lost"),
        (lambda one, two, drained, room: drained[1].clear(), "is lost"),
        (lambda one, two, drained, room: two.received.append((0, value(1, 2))), "twice"),
        (lambda one, two, drained, room: drained[0].append(value(1, 2)), "twice"),
        (lambda one, two, drained, room: two.received.append((1, value(1, 4))), "send was reported to have failed"),
        (lambda one, two, drained, room: one.kept.append(value(1, 1)), "as sent and as not sent"),
        (lambda one, two, drained, room: two.received.append((1, value(3, 1))), "nobody says that it was sent"),
        (lambda one, two, drained, room: two.received.reverse(), "after a later one"),
        (lambda one, two, drained, room: room.__setitem__(1, 0), "without a buffer"),
        (lambda one, two, drained, room: two.received.append((0, drained[0].pop() + 1)), "is lost"),
        (lambda one, two, drained, room: drained[0].append(two.received.pop(0)[1]), "a later one received"),
    ],
)
def test_spoilt_books_are_found(spoil: Callable[..., object], complaint: str) -> None:
    ledgers, drained, capacities = good()
    spoil(*ledgers, drained, capacities)
    problems = check(ledgers, drained, capacities)
    assert any(complaint in problem for problem in problems), problems


def program(*scripts: list[Any], capacity: int = 3) -> Program:
    actors = [Actor(0, MAIN, True, [("spawn", *range(1, len(scripts) + 1))])]
    actors += [Actor(i + 1, GOROUTINE, True, steps) for i, steps in enumerate(scripts)]
    return Program(0, [capacity], [1, 1], [1, 1], 2, 10, 5e-3, actors)


def test_a_machine_that_loses_a_value_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [[("burst", 0, 10, None)], [("gulp", 0, 10, None)]]
    counts = Machine(program(*steps)).run()
    assert counts["values"] >= 10

    class Loses(Machine):
        def recv(self, actor: Actor, ledger: Ledger, number: int, limit: float | None) -> None:
            super().recv(actor, ledger, number, limit)
            if len(ledger.received) == 5:
                ledger.received.pop(2)

    with pytest.raises(Failure, match="actor 1 was sent on channel 0 and is lost"):
        Loses(program(*steps)).run()


def test_a_machine_in_which_somebody_is_not_woken_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    other = chan()

    class Hangs(Machine):
        def recv(self, actor: Actor, ledger: Ledger, number: int, limit: float | None) -> None:
            other.recv_ok()

    monkeypatch.setattr("fuzz.machine.END_SECONDS", 0.2)
    before = num_goroutine()
    with pytest.raises(Failure, match="somebody does not end"):
        Hangs(program([("recv", 0, None)])).run()
    other.close()
    until(lambda: num_goroutine() <= before)


def test_a_machine_whose_rules_are_broken_fails() -> None:
    class Broken(Machine):
        def add(self, actor: Actor, ledger: Ledger) -> None:
            self.inside[0] = "somebody"

    with pytest.raises(Failure, match="two hold mutex 0"):
        Broken(program([("add",), ("mutex", 0, None, [])])).run()
