"""`goslings.patch` itself: what is asked for, what follows, what is reported. Each test has a process of its own."""

from __future__ import annotations

from pathlib import Path

from helpers import check_child, run_child

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "patch.md"


def test_patch_parks_goroutines_and_leaves_plain_threads_alone() -> None:
    out = check_child("""
        import time, goslings
        goslings.gomaxprocs(1)
        original = time.sleep
        goslings.patch()
        assert time.sleep is not original
        started = time.monotonic()
        for sleeper in [goslings.go(time.sleep, 0.3) for _ in range(100)]:
            sleeper.result()
        assert time.monotonic() - started < 15, "they slept one after the other"
        time.sleep(0.01)
        for wrong in (-1, "x", None):
            for place in (lambda: time.sleep(wrong), goslings.go(time.sleep, wrong).result):
                try:
                    place()
                except (ValueError, TypeError) as error:
                    print(type(error).__name__, error)
    """)
    lines = out.splitlines()
    assert len(lines) == 6 and lines[::2] == lines[1::2], "goroutines and threads get the same errors"


def test_a_second_call_changes_nothing() -> None:
    check_child("""
        import time, goslings
        first = str(goslings.patch())
        sleep = time.sleep
        second = str(goslings.patch())
        assert second == first, (first, second)
        assert time.sleep is sleep
    """)


def test_only_and_exclude() -> None:
    check_child("""
        import time, goslings
        original = time.sleep
        report = goslings.patch(exclude=["time"])
        assert time.sleep is original and "time" in report.excluded and "time" not in report.patched
        report = goslings.patch(only=["time"])
        assert time.sleep is not original and report.patched["time"] == ["time.sleep"], report
    """)


def test_unknown_names_are_refused_before_anything_is_patched() -> None:
    check_child("""
        import time, goslings
        original = time.sleep
        for wrong in (dict(only=["time", "tiem"]), dict(exclude=["tiem"])):
            try:
                goslings.patch(**wrong)
            except ValueError as error:
                assert "'tiem'" in str(error) and "there is: " in str(error), error
            else:
                raise AssertionError("not refused")
        for wrong in (dict(only="time"), dict(exclude="time")):
            try:
                goslings.patch(**wrong)
            except TypeError as error:
                assert "['time']" in str(error)
            else:
                raise AssertionError("not refused")
        assert time.sleep is original
    """)


EARLY = """
import sys, time, types
early = types.ModuleType("early")
sys.modules["early"] = early
exec('''
from time import sleep
from time import sleep as _sleep
real_sleep = sleep
def nap(seconds, sleep=sleep):
    sleep(seconds)
def closure():
    inner = sleep
    def nap():
        inner(1)
    return nap
enclosed = closure()
class Sleeper:
    sleep = sleep
    @staticmethod
    def nap(seconds, *, sleep=sleep):
        sleep(seconds)
''', vars(early))
"""


def test_what_was_imported_too_early_follows_or_is_reported() -> None:
    out = check_child(
        EARLY
        + """
import goslings
report = goslings.patch(only=["time"])
assert early.sleep is early._sleep is time.sleep is not early.real_sleep
assert "early.sleep" in report.followed and "early._sleep" in report.followed
assert not report
print(report)
"""
    )
    assert "followed:" in out and "early.sleep" in out
    for place in (
        "early.real_sleep is time.sleep",
        "early.nap keeps time.sleep",
        "early.closure.<locals>.nap keeps time.sleep",
        "early.Sleeper.sleep is time.sleep",
        "early.Sleeper.nap keeps time.sleep",
    ):
        assert f"too early: {place}" in out, out


def test_a_patched_function_is_still_one() -> None:
    check_child("""
        import inspect, pickle, time, goslings
        goslings.patch()
        class Keeper:
            sleep = time.sleep
        Keeper().sleep(0)  # did not become a method
        assert pickle.loads(pickle.dumps(time.sleep)) is time.sleep
        assert time.sleep.__name__ == "sleep" and time.sleep.__doc__ and time.sleep.__module__ == "time"
        assert callable(time.sleep) and inspect.unwrap(time.sleep) is not time.sleep
    """)


def test_somebody_else_may_patch_on_top() -> None:
    out = check_child("""
        import time, goslings
        goslings.patch()
        time.sleep = lambda seconds: None
        print(goslings.patch())
        goslings.go(time.sleep, 3600).result()
    """)
    assert "not patched: time.sleep: somebody has put something else in its place since" in out


def test_goslings_own_modules_keep_the_originals() -> None:
    done = run_child("""
        import sys, goslings, goslings.aio, goslings.testing, time
        before = time.sleep
        goslings.patch()
        for name, module in list(sys.modules.items()):
            if name.startswith("goslings"):
                for value in vars(module).values():
                    assert value is not time.sleep, name
        print(goslings.blocking(time.monotonic) > 0)
        assert goslings.go(goslings.blocking, before, 0.01).result() is None
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_examples_of_the_guide_are_true() -> None:
    out = check_child(f"""
        import doctest
        print(doctest.testfile({str(GUIDE)!r}, module_relative=False))
    """)
    assert out.startswith("TestResults(failed=0, attempted=") and "attempted=0" not in out, out


def test_a_bubble_has_its_own_time_also_when_patched() -> None:
    check_child("""
        import queue, threading, time, goslings
        from goslings.testing import virtual_time
        goslings.patch()
        def program():
            started, items = time.monotonic(), queue.SimpleQueue()
            goslings.go(lambda: (time.sleep(3600), items.put(1)))
            assert items.get() == 1
            time.sleep(10)
            return time.monotonic() - started
        assert virtual_time(program)() == 3610
    """)


def test_asyncio_runs_in_a_goroutine() -> None:
    check_child("""
        import asyncio, threading, time, goslings
        goslings.patch()
        lock = threading.Lock()
        async def main(n):
            with lock: time.sleep(0.001)  # holds up the loop, and parks the goroutine
            result = await asyncio.gather(*(asyncio.sleep(0.01, i) for i in range(10)))
            return n + sum(result) + await asyncio.to_thread(abs, -1)
        def run(n): return asyncio.run(main(n))
        assert [g.result(60) for g in [goslings.go(run, n) for n in range(5)]] == [n + 46 for n in range(5)]
        assert run(1) == 47
    """)
