"""Exceptions that nobody reads go to the hook, or end the process if that is asked for."""

from __future__ import annotations

import gc
from typing import Any

import goslings
import pytest
from goslings import chan, go, sleep
from helpers import SECONDS, check_child, run_child, start_child, until


def test_g03_an_exception_that_nobody_reads_is_reported(unread: list[goslings.ExceptHookArgs]) -> None:
    def fail() -> None:
        raise KeyError("unread")

    g = go(fail)
    g.name = "failing"
    g.join(SECONDS)
    assert not unread  # somebody may still read it
    del g
    until(lambda: unread)
    (args,) = unread
    assert repr(args.exc_value) == "KeyError('unread')" and args.name == "failing"
    assert args.started_at is not None and args.started_at.startswith(__file__ + ":")
    assert args.exc_value.__traceback__ is not None
    unread.clear()


def test_one_is_reported_from_within_code_that_cannot_import(unread: list[goslings.ExceptHookArgs]) -> None:
    def fail() -> None:
        raise KeyError("unread")

    g = go(fail)
    g.join(SECONDS)
    handles = [g]
    del g
    # As the functions that namedtuple makes are: a finalizer may run in any of them.
    exec("handles.pop()", {"__builtins__": {}, "handles": handles})
    until(lambda: unread)
    assert repr(unread.pop().exc_value) == "KeyError('unread')"


def test_an_exception_whose_handle_went_first_is_reported(unread: list[goslings.ExceptHookArgs]) -> None:
    ch = chan()

    def fail() -> None:
        ch.recv()
        raise KeyError("unread")

    go(fail)
    ch.send(None)
    until(lambda: unread)
    assert repr(unread.pop().exc_value) == "KeyError('unread')"


@pytest.mark.parametrize("read", ["result", "exception", "join"])
def test_reading_counts(unread: list[goslings.ExceptHookArgs], read: str) -> None:
    def fail() -> None:
        raise KeyError("read")

    g = go(fail)
    if read == "result":
        with pytest.raises(KeyError):
            g.result(SECONDS)
    elif read == "exception":
        g.exception(SECONDS)
    else:  # looks at nothing
        g.join(SECONDS)
    del g
    if read == "join":
        until(lambda: unread)
        unread.clear()
    sleep(0.01)
    assert not unread


def test_a_timeout_reads_nothing(unread: list[goslings.ExceptHookArgs]) -> None:
    ch = chan()

    def fail() -> None:
        ch.recv()
        raise KeyError("unread")

    g = go(fail)
    with pytest.raises(TimeoutError):
        g.result(0)
    ch.send(None)
    del g
    until(lambda: unread)
    unread.clear()


def test_cancelled_goroutines_and_goexit_are_no_failures(unread: list[goslings.ExceptHookArgs]) -> None:
    g = go(chan().recv)
    g.cancel()
    g.join(SECONDS)
    go(goslings.goexit).join(SECONDS)
    del g
    sleep(0.01)
    assert not unread


def test_g03_the_default_hook_prints_where_it_was_started() -> None:
    done = run_child(
        """
        from goslings import go, sleep
        def fail():
            raise KeyError("nobody reads this")
        g = go(fail)
        g.name = "reader"
        g.join()
        del g
        sleep(0.5)
        """
    )
    assert done.returncode == 0
    first, *rest = done.stderr.splitlines()
    assert first == "Exception in reader, started at <string>:5, and nobody asked for its result:"
    assert rest[0] == "Traceback (most recent call last):" and rest[-1] == "KeyError: 'nobody reads this'"
    assert any("in fail" in line for line in rest)


def test_an_unread_exception_at_the_end_of_the_program_is_reported() -> None:
    done = run_child(
        """
        from goslings import go
        def fail():
            raise KeyError("at the end")
        g = go(fail)
        g.join()
        """
    )
    assert done.returncode == 0
    assert "KeyError: 'at the end'" in done.stderr


def test_an_unread_exception_in_a_cycle_is_reported_by_the_collector(unread: list[goslings.ExceptHookArgs]) -> None:
    def fail() -> None:
        me = goslings.current()
        raise KeyError("in a cycle", me)

    g = go(fail)
    g.join(SECONDS)
    del g
    until(lambda: (gc.collect(), unread)[1])
    assert unread[0].exc_value.args[0] == "in a cycle"
    unread.clear()


def test_an_unread_exception_is_reported_while_main_waits() -> None:
    process = start_child(
        """
        from goslings import chan, go
        def fail():
            raise KeyError("while main waits")
        go(fail)
        chan().recv()
        """
    )
    with process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("KeyError: 'while main waits'" in line for line in lines)
        process.kill()


def test_an_exception_in_the_hook_is_told_with_the_first() -> None:
    done = run_child(
        """
        import goslings
        from goslings import go, sleep
        def hook(args):
            raise ValueError("hook")
        goslings.excepthook = hook
        def fail():
            raise KeyError("first")
        go(fail).join()
        sleep(0.5)
        print(go(lambda: "goes on").result())
        """
    )
    assert (done.returncode, done.stdout) == (0, "goes on\n")
    assert "KeyError: 'first'" in done.stderr and "ValueError: hook" in done.stderr


def test_a_hook_that_parks_or_starts_goroutines(unread: list[goslings.ExceptHookArgs], monkeypatch: Any) -> None:
    # The hook runs where the last handle goes away, which may be this thread: so there is room.
    ch = chan(2)

    def hook(args: goslings.ExceptHookArgs) -> None:
        ch.send(args.name)
        go(ch.send, "started")

    monkeypatch.setattr(goslings, "excepthook", hook)
    go(lambda: 1 / 0)
    assert ch.recv().startswith("goroutine-")
    assert ch.recv() == "started"


def test_g03_goslings_panic_exit_ends_the_process_with_2() -> None:
    done = run_child(
        """
        from goslings import go, chan
        print("before")
        def fail():
            raise KeyError("fatal")
        go(fail)
        chan().recv()
        """,
        env={"GOSLINGS_PANIC": "exit"},
    )
    assert (done.returncode, done.stdout) == (2, "before\n")
    assert "KeyError: 'fatal'" in done.stderr and "nobody asked" in done.stderr


def test_goslings_panic_exit_leaves_read_exceptions_alone() -> None:
    out = check_child(
        """
        import sys
        from goslings import go, sleep
        def fail():
            raise KeyError("read")
        print(type(go(fail).exception()).__name__)
        go(sys.exit)
        sleep(0.5)
        """,
        env={"GOSLINGS_PANIC": "exit"},
    )
    assert out == "KeyError\n"


def test_a_done_callback_that_fails_goes_to_the_hook(unread: list[goslings.ExceptHookArgs]) -> None:
    def callback(g: Any) -> None:
        raise KeyError("callback")

    g = go(int)
    g.add_done_callback(callback)
    assert g.result(SECONDS) == 0
    until(lambda: unread)
    assert repr(unread.pop().exc_value) == "KeyError('callback')"
