"""Tracing, profiling and frames of goroutines."""

from __future__ import annotations

import gc
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from goslings import Closed, chan, go
from helpers import SECONDS, check_child, parked, results, run_child


def test_tracing_is_a_goroutines_own() -> None:
    out = check_child(
        """
        import sys
        from goslings import chan, go, gosched
        ch = chan()
        events = []

        def tracer(frame, event, arg):
            events.append((frame.f_code.co_name, event))
            return tracer

        def traced():
            sys.settrace(tracer)
            marked()
            ch.recv()
            marked()
            sys.settrace(None)

        def marked():
            return 1

        def other():
            for _ in range(5):
                gosched()
                marked()
            return sys.gettrace()

        g = go(traced)
        while "chan receive" not in repr(g):
            gosched()
        go(other).result()
        ch.send(None)
        g.result()
        calls = [name for name, event in events if event == "call"]
        print(calls, go(other).result())
        """,
        env={"GOSLINGS_PROCS": "1"},
    )
    assert out == "['marked', 'marked'] None\n"


def test_a_trace_function_that_parks() -> None:
    out = check_child(
        """
        import sys
        from goslings import chan, go, gosched
        ch = chan()
        lines = []

        def tracer(frame, event, arg):
            if frame.f_code.co_name == "traced" and event == "line":
                lines.append(ch.recv())
            return tracer

        def traced():
            a = 1
            b = 2
            return a + b

        def work():
            sys.settrace(tracer)
            try:
                return traced()
            finally:
                sys.settrace(None)

        goroutines = [go(work) for _ in range(3)]
        while not all(g.done() for g in goroutines):
            ch.try_send(1)
            gosched()
        print([g.result() for g in goroutines], len(lines))
        """
    )
    assert out == "[3, 3, 3] 9\n"


def test_profiling_everything_while_goroutines_switch() -> None:
    out = check_child(
        """
        import sys, threading
        from goslings import chan, go
        calls = []
        threading.setprofile(lambda frame, event, arg: calls.append(event))
        sys.setprofile(lambda frame, event, arg: calls.append(event))
        a, b = chan(), chan()

        def ping():
            for i in range(100):
                a.send(i)
                assert b.recv() == i

        def pong():
            for i in range(100):
                b.send(a.recv())

        g, h = go(ping), go(pong)
        g.result(), h.result()
        sys.setprofile(None)
        print(len(calls) > 0)
        """
    )
    assert out == "True\n"


def test_monitoring_while_goroutines_switch() -> None:
    out = check_child(
        """
        import sys
        from goslings import chan, go, gosched
        ch = chan()
        mon = sys.monitoring
        mon.use_tool_id(3, "test")
        starts = []

        def on_start(code, offset):
            if code.co_name == "seen":
                starts.append(1)
                gosched()
                ch.try_send(1)

        mon.register_callback(3, mon.events.PY_START, on_start)
        mon.set_events(3, mon.events.PY_START)

        def seen():
            return ch.recv()

        goroutines = [go(seen) for _ in range(20)]
        while not all(g.done() for g in goroutines):
            ch.try_send(1)
            gosched()
        mon.set_events(3, 0)
        mon.free_tool_id(3)
        print(len(starts), sum(g.result() for g in goroutines))
        """
    )
    assert out == "20 20\n"


def test_frames_end_at_the_goroutines_own_function() -> None:
    def names() -> list[str]:
        frame, found = sys._getframe(), []
        while frame:
            found.append(frame.f_code.co_name)
            frame = frame.f_back
        return found

    def outer(park: Callable[[], Any]) -> tuple[list[str], list[str]]:
        before = names()
        park()
        return before, names()

    ch = chan()
    goroutines = [go(outer, ch.recv) for _ in range(5)]
    parked(*goroutines)
    for _ in goroutines:
        ch.send(None)
    for before, after in results(goroutines):
        assert before == after == ["names", "outer"]


def test_a_frame_of_a_parked_goroutine_can_be_looked_at() -> None:
    ch, frames = chan(), []

    def outer() -> str:
        secret = "local"
        frames.append(sys._getframe())
        inner()
        return secret

    def inner() -> None:
        frames.append(sys._getframe())
        ch.recv()

    g = go(outer)
    parked(g)
    gc.collect()
    a, b = frames
    assert (a.f_locals["secret"], b.f_back is a, a.f_back) == ("local", True, None)
    assert [frame.name for frame in traceback.extract_stack(b)] == ["outer", "inner"]
    assert b.f_lineno > a.f_lineno
    ch.send(None)
    assert g.result(SECONDS) == "local"
    # The frames have outlived the goroutine's stack.
    gc.collect()
    assert a.f_locals["secret"] == "local" and b.f_code.co_name == "inner"


def test_current_frames_with_parked_goroutines() -> None:
    ch = chan()
    goroutines = [go(ch.recv) for _ in range(20)]
    parked(*goroutines)
    frames = sys._current_frames()
    assert threading.get_ident() in frames
    assert go(sys._current_frames).result(SECONDS)
    assert sys._current_exceptions()
    ch.close()
    for g in goroutines:
        assert isinstance(g.exception(SECONDS), Closed)


def test_faulthandler_dumps_with_parked_goroutines() -> None:
    done = run_child(
        """
        import faulthandler, sys
        from goslings import chan, go, sleep
        def waits(ch):
            return ch.recv()
        ch = chan()
        goroutines = [go(waits, ch) for _ in range(20)]
        while not all("chan receive" in repr(g) for g in goroutines):
            sleep(0.001)
        faulthandler.dump_traceback(all_threads=True)
        go(faulthandler.dump_traceback).result()
        print("alive")
        """
    )
    assert (done.returncode, done.stdout) == (0, "alive\n") and "Current thread" in done.stderr


def test_locals_of_a_goroutine_that_parks_inside_exec_and_class_bodies() -> None:
    ch = chan()

    def work() -> tuple[Any, Any]:
        space: dict[str, Any] = {"ch": ch}
        exec("a = ch.recv()\nb = [ch.recv() for _ in range(2)]", space)

        class Body:
            x = ch.recv()
            y = x + ch.recv()

        return (space["a"], space["b"]), (Body.x, Body.y)

    g = go(work)
    for i in range(5):
        ch.send(i)
    assert g.result(SECONDS) == ((0, [1, 2]), (3, 7))
