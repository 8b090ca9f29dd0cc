"""The programs in examples/ do what they say."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import goslings
import pytest
from helpers import until

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name: str) -> Any:
    return runpy.run_path(str(EXAMPLES / name))


def test_philosophers_all_eat(two_workers: None) -> None:
    assert example("philosophers.py")["dine"](7, 200) == [200] * 7


def test_a_buffer_loses_nothing(two_workers: None) -> None:
    assert sorted(example("buffer.py")["pass_on"](1000)) == list(range(1000))


def test_santa_prefers_his_reindeer_and_sees_his_elves(two_workers: None) -> None:
    before = goslings.num_goroutine()
    pole = example("santa.py")["north_pole"](30)
    assert (pole.delivered, pole.told.count("deliver"), pole.told.count("consult")) == (30, 30, pole.consulted)
    until(lambda: goslings.num_goroutine() <= before)


def test_a_job_board_serves_processes(capfd: pytest.CaptureFixture[str]) -> None:
    example("jobboard.py")["main"](2)
    assert capfd.readouterr().out.startswith("200 jobs by ")
