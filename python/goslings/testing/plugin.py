"""The pytest plugin: `@pytest.mark.explore`, the fixture `virtual_time`, and a dump of all goroutines on a timeout.

pytest loads it by its entry point, and so imports goslings, in every run where that is installed; `-p no:goslings`
switches it off.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

import pytest

if TYPE_CHECKING:
    from goslings.testing import Clock

_WARN_BEFORE = 0.9
"""The goroutines are shown when this part of the time of a test is over: pytest-timeout may end the process then."""

_ALARM = pytest.StashKey[threading.Timer]()
_STDERR = pytest.StashKey[TextIO]()
"""Where pytest cannot hide what is written."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "explore(schedules=1000, seed=None, strategy='pct', **options): runs the test under many schedules, as "
        "goslings.testing.explore does; a failure shows the seed, and explore(replay=seed) repeats it.",
    )
    with suppress(OSError, AttributeError, ValueError):  # a program without stderr
        assert sys.stderr is not None
        config.stash[_STDERR] = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="backslashreplace")


def pytest_unconfigure(config: pytest.Config) -> None:
    stderr = config.stash.get(_STDERR, None)
    if stderr is not None:
        del config.stash[_STDERR]
        stderr.close()


@pytest.fixture(name="virtual_time")
def _virtual_time(request: pytest.FixtureRequest) -> Iterator[Clock]:
    """The test runs in virtual time, as the first goroutine of a bubble of goslings.testing: this is its clock."""
    from goslings.testing import Clock
    from goslings.testing._virtual import new_bubble

    bubble = new_bubble(None)
    yield Clock(bubble)
    bubble.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Calls the test by other ways than pytest's own, if it is marked or uses the fixture."""
    __tracebackhide__ = True
    mark = pyfuncitem.get_closest_marker("explore")
    clock: Any = pyfuncitem.funcargs.get("virtual_time")
    if mark is None and clock is None:
        return None
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        pytest.fail("explore and virtual_time take plain functions; start async ones in them with go", pytrace=False)
    if mark is not None and clock is not None:
        pytest.fail("a test that is explored has virtual time without the fixture", pytrace=False)
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    test: Callable[[], object] = functools.partial(pyfuncitem.obj, **arguments)
    if mark is not None:
        _explore(test, *mark.args, **mark.kwargs)
    else:
        from goslings.testing._virtual import run_in

        run_in(clock._bubble, test, patch_time=True)
    return True


def _explore(test: Callable[[], object], *args: Any, replay: str | None = None, **kwargs: Any) -> None:
    __tracebackhide__ = True
    from goslings import testing

    if replay is None:
        testing.explore(test, *args, **kwargs)
        return
    options = {name: value for name, value in kwargs.items() if name in ("leaks", "steps")}
    testing.replay(test, replay, **options)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    """pytest-timeout watches a test from now on: so do we."""
    _set_alarm(item, float(settings.timeout or 0) * _WARN_BEFORE)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> None:
    _drop_alarm(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """pytest's own `faulthandler_timeout` shows the threads of a slow test; this shows the goroutines, too."""
    __tracebackhide__ = True
    seconds = 0.0
    if item.config.pluginmanager.hasplugin("faulthandler"):
        seconds = float(item.config.getini("faulthandler_timeout") or 0)
    if seconds and _ALARM not in item.stash:
        _set_alarm(item, seconds)
    try:
        return (yield)
    finally:
        if seconds:
            _drop_alarm(item)


def _set_alarm(item: pytest.Item, seconds: float) -> None:
    _drop_alarm(item)
    if seconds <= 0:
        return
    alarm = threading.Timer(seconds, _show, (item.config, item.nodeid, seconds))
    alarm.daemon = True
    alarm.name = "goslings-pytest"
    item.stash[_ALARM] = alarm
    alarm.start()


def _drop_alarm(item: pytest.Item) -> None:
    alarm = item.stash.get(_ALARM, None)
    if alarm is not None:
        alarm.cancel()
        del item.stash[_ALARM]


def _show(config: pytest.Config, nodeid: str, seconds: float) -> None:
    """Prints what all goroutines do."""
    goslings = sys.modules.get("goslings")
    if goslings is None or not goslings.num_goroutine():
        return
    out = config.stash.get(_STDERR, None)
    if out is not None:
        out.write(f"\n{nodeid}: not done after {seconds:g} s; the goroutines:\n\n")
        goslings.dump(out)
        out.flush()
