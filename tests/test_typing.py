"""The types that users see: programs that mypy must accept, and mistakes that it must find."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent / "typing"
ROOT = FOLDER.parent.parent


def mypy(*files: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("mypy", reason="mypy is not installed beside this interpreter; it is beside another")
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--show-error-codes", "--no-error-summary", *files],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_mypy_accepts_correct_programs() -> None:
    checked = mypy(FOLDER / "correct.py")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_correct_programs_run() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", FOLDER / "correct.py"], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_mypy_finds_each_mistake_and_no_other() -> None:
    path = FOLDER / "mistakes.py"
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    expected = {number: found[1] for number, line in lines if (found := re.search(r"# E: ([a-z-]+)$", line))}
    checked = mypy(path)
    reported = re.findall(r"^\S+mistakes\.py:(\d+): error: .*\[([a-z-]+)\]$", checked.stdout, re.MULTILINE)
    assert {int(number): code for number, code in reported} == expected, checked.stdout
    assert len(expected) > 30
