"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)  # each starts an interpreter or three


def run(folder: Path, tests: str, *arguments: str, ini: str = "") -> tuple[int, str]:
    """Runs pytest on `tests` in a process of its own: its status, and what it printed."""
    (folder / "test_it.py").write_text(textwrap.dedent(tests))
    (folder / "pytest.ini").write_text("[pytest]\n" + ini)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:tonio", *arguments, str(folder)],
        cwd=folder,
        env={**os.environ, "PYTEST_ADDOPTS": "", "GOSLINGS_SEED": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=250,
    )
    return done.returncode, done.stdout + done.stderr


LOST_UPDATE = """
    import pytest
    from goslings import AtomicInt, WaitGroup

    @pytest.fixture
    def how_many():
        return 2

    {mark}
    def test_lost_update(how_many):
        number, group = AtomicInt(), WaitGroup()
        def work():
            number.store(number.load() + 1)
        for _ in range(how_many):
            group.go(work)
        group.wait()
        assert number.load() == how_many
"""


def test_a_marked_test_is_explored(tmp_path: Path) -> None:
    status, told = run(tmp_path, LOST_UPDATE.format(mark="@pytest.mark.explore(schedules=500, seed=1)"))
    assert status == 1
    assert "ScheduleFailure" in told and "AtomicInt.store" in told
    found = re.search(r"replay\(fn, '([^']+)'\)", told)
    assert found is not None
    status, again = run(tmp_path, LOST_UPDATE.format(mark=f"@pytest.mark.explore(replay={found[1]!r})"))
    assert status == 1 and found[1] in again
    status, told = run(tmp_path, LOST_UPDATE.format(mark="@pytest.mark.explore(schedules=1)"))
    assert status == 0, told


def test_a_marked_test_that_is_correct_passes(tmp_path: Path) -> None:
    status, told = run(
        tmp_path,
        """
        import pytest
        from goslings import AtomicInt, WaitGroup
        runs = []

        @pytest.mark.explore(schedules=50)
        @pytest.mark.parametrize("amount", [1, 2])
        def test_it(amount):
            runs.append(amount)
            number, group = AtomicInt(), WaitGroup()
            group.go(number.add, amount)
            group.wait()
            assert number.load() == amount

        def test_how_often():
            assert runs == [1] * 50 + [2] * 50
        """,
        "--strict-markers",
    )
    assert status == 0, told


def test_the_fixture_lets_the_test_run_in_virtual_time(tmp_path: Path) -> None:
    status, told = run(
        tmp_path,
        """
        import time
        import pytest
        import goslings

        @pytest.fixture
        def other():
            return 5

        def test_a_day(virtual_time, other):
            before = time.monotonic()
            goslings.sleep(86_400)
            time.sleep(other)
            assert time.monotonic() - before == 86_405
            assert str(virtual_time.now()) == "2000-01-02 00:00:05+00:00"

        def test_it_waits(virtual_time):
            done = []
            goslings.go(lambda: done.append(1))
            virtual_time.wait()
            assert done == [1]

        def test_outside():
            assert time.monotonic() < 80_000 or goslings.current() is None

        class TestClass:
            def test_method(self, virtual_time):
                goslings.sleep(10)
                assert virtual_time.monotonic() == 10

        @pytest.mark.xfail(strict=True)
        def test_failing(virtual_time):
            assert goslings.current() is None

        def test_skipping(virtual_time):
            pytest.skip("for a reason")

        @pytest.mark.xfail(raises=goslings.Deadlock, strict=True)
        def test_deadlock(virtual_time):
            goslings.chan().recv()
        """,
        "-rA",
    )
    assert status == 0, told
    assert "4 passed, 1 skipped, 2 xfailed" in told


def test_async_tests_are_refused(tmp_path: Path) -> None:
    status, told = run(tmp_path, "async def test_it(virtual_time): ...\n")
    assert status == 1 and "take plain functions" in told


HANGS = """
    from goslings import chan, go
    def test_that_hangs():
        ch = chan()
        go(ch.recv).name = "the one that waits"
        go(ch.recv).join({seconds})
"""


def test_a_timeout_shows_the_goroutines(tmp_path: Path) -> None:
    pytest.importorskip("pytest_timeout")
    status, told = run(tmp_path, HANGS.format(seconds=30), "--timeout=1")
    assert status != 0
    assert "test_that_hangs: not done after 0.9 s" in told and "the one that waits" in told


def test_so_does_the_timeout_of_pytests_faulthandler(tmp_path: Path) -> None:
    status, told = run(tmp_path, HANGS.format(seconds=2), "-p", "no:timeout", ini="faulthandler_timeout = 0.5\n")
    assert status == 0, told
    assert "test_that_hangs: not done after 0.5 s" in told and "the one that waits" in told


def test_the_plugin_can_be_left_out(tmp_path: Path) -> None:
    status, told = run(tmp_path, "def test_it(): ...\n", "-p", "no:goslings", "-p", "no:timeout")
    assert status == 0, told
