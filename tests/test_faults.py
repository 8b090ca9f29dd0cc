"""Bad input and faults: each a clear Python exception or a clean exit, none a crash or a hang."""

from __future__ import annotations

import copy
import gc
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import goslings
import pytest
from goslings import (
    Cancelled,
    Closed,
    GoslingsError,
    Ticker,
    Timer,
    after,
    after_func,
    chan,
    go,
    gomaxprocs,
    num_goroutine,
    recv,
    select,
    send,
    sleep,
)
from helpers import SECONDS, check_child, count, results, run_child, start_child, until

MANY = count(10_000)


# Wrong types and values

WRONG: list[tuple[str, Callable[[], Any], type[BaseException], str]] = [
    ("go of no callable", lambda: go(1), TypeError, "go needs a callable, not int"),
    ("go of nothing", lambda: go(), TypeError, "fn"),
    ("capacity of text", lambda: chan("1"), TypeError, "capacity must be an int, not str"),
    ("capacity of a float", lambda: chan(1.0), TypeError, "capacity must be an int, not float"),
    ("negative capacity", lambda: chan(-1), ValueError, "capacity must not be negative"),
    ("huge capacity", lambda: chan(2**70), ValueError, "capacity is too large"),
    ("timeout of text", lambda: chan().recv(timeout="1"), TypeError, "timeout must be a number of seconds, not str"),
    ("timeout NaN", lambda: chan().recv(timeout=float("nan")), ValueError, "timeout must not be NaN"),
    ("send timeout NaN", lambda: chan(1).send(1, timeout=float("nan")), ValueError, "NaN"),
    ("recv_ok timeout", lambda: chan().recv_ok(timeout=[]), TypeError, "not list"),
    ("select timeout", lambda: select(timeout="soon"), TypeError, "not str"),
    ("select timeout NaN", lambda: select(timeout=float("nan")), ValueError, "NaN"),
    (
        "select of a channel",
        lambda: select(chan()),
        TypeError,
        r"cases made by recv\(ch\) and send\(ch, value\), not chan",
    ),
    ("select of None", lambda: select(None), TypeError, "not NoneType"),
    ("recv of no channel", lambda: recv(1), TypeError, "recv needs a chan, a RecvChan or None, not int"),
    ("send to no channel", lambda: send("x", 1), TypeError, "send needs a chan, a SendChan or None, not str"),
    ("recv from a SendChan", lambda: recv(chan().sender()), TypeError, "only sends"),
    ("send to a RecvChan", lambda: send(chan().receiver(), 1), TypeError, "only receives"),
    ("sleep of text", lambda: sleep("1"), TypeError, "seconds must be a number of seconds, not str"),
    ("sleep of None", lambda: sleep(None), TypeError, "not NoneType"),
    ("sleep NaN", lambda: sleep(float("nan")), ValueError, "NaN"),
    ("after text", lambda: after("1"), TypeError, "not str"),
    ("after NaN", lambda: after(float("nan")), ValueError, "NaN"),
    ("timer NaN", lambda: Timer(float("nan")), ValueError, "NaN"),
    ("timer reset NaN", lambda: Timer(1).reset(float("nan")), ValueError, "NaN"),
    ("ticker zero", lambda: Ticker(0), ValueError, "non-positive interval for Ticker"),
    ("ticker negative", lambda: Ticker(-1), ValueError, "non-positive interval for Ticker"),
    ("ticker NaN", lambda: Ticker(float("nan")), ValueError, "NaN"),
    ("ticker reset zero", lambda: Ticker(1).reset(0), ValueError, "non-positive interval for Ticker"),
    ("after_func of no callable", lambda: after_func(1, 2), TypeError, "callable"),
    ("after_func NaN", lambda: after_func(float("nan"), int), ValueError, "NaN"),
    ("after_func's channel", lambda: (timer := after_func(3600, int), timer.stop(), timer.c), TypeError, "no channel"),
    ("gomaxprocs text", lambda: gomaxprocs("2"), TypeError, "str"),
    ("gomaxprocs too many", lambda: gomaxprocs(100_000), ValueError, "256"),
    ("result timeout", lambda: go(int).result("1"), TypeError, "not str"),
    ("result timeout NaN", lambda: go(int).result(float("nan")), ValueError, "NaN"),
    ("join timeout NaN", lambda: go(int).join(float("nan")), ValueError, "NaN"),
    ("name of a number", lambda: setattr(go(int), "name", 1), TypeError, "str"),
    ("callback of no callable", lambda: go(int).add_done_callback(1), TypeError, "callable"),
    ("goexit outside", lambda: goslings.goexit(), RuntimeError, "goexit outside a goroutine"),
    ("try_send without a value", lambda: chan().try_send(), TypeError, "value"),
    ("setting capacity", lambda: setattr(chan(), "capacity", 1), AttributeError, "capacity"),
    ("a Goroutine from nothing", lambda: goslings.Goroutine(), TypeError, "Goroutine"),
    ("a SendChan from nothing", lambda: goslings.SendChan(), TypeError, "SendChan"),
    ("a RecvChan from nothing", lambda: goslings.RecvChan(), TypeError, "RecvChan"),
    ("a Selected from nothing", lambda: goslings.Selected(), TypeError, "Selected"),
    ("a subclass of Goroutine", lambda: type("G", (goslings.Goroutine,), {}), TypeError, "not an acceptable base type"),
]


@pytest.mark.parametrize(("attempt", "error", "message"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_types_and_values(attempt: Callable[[], Any], error: type[BaseException], message: str) -> None:
    with pytest.raises(error, match=message):
        attempt()


@pytest.mark.parametrize("where", ["goroutine", "thread"])
def test_bad_timeouts_are_refused_everywhere_and_leave_no_trace(where: str) -> None:
    def attempt() -> int:
        ch, refused = chan(1), 0
        for timeout in (float("nan"), "1", [], object(), 1j):
            for call in (
                ch.recv,
                ch.recv_ok,
                lambda timeout: ch.send(1, timeout),
                lambda timeout: select(recv(ch), timeout=timeout),
            ):
                with pytest.raises((TypeError, ValueError)):
                    call(timeout=timeout)
                refused += 1
        assert len(ch) == 0
        ch.send(1, timeout=0)
        return refused

    if where == "goroutine":
        assert go(attempt).result(SECONDS) == 20
    else:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(attempt()))
        thread.start()
        thread.join(SECONDS)
        assert found == [20]


def test_a_number_whose_float_fails() -> None:
    class Fails:
        def __float__(self) -> float:
            raise KeyError("float")

    with pytest.raises(KeyError, match="float"):
        chan().recv(timeout=Fails())


def test_numbers_of_every_kind_are_seconds() -> None:
    import decimal
    import fractions

    for zero in (0, 0.0, decimal.Decimal(0), fractions.Fraction(0), -(10**400)):
        with pytest.raises(TimeoutError):
            chan().recv(timeout=zero)
        sleep(zero)


def test_an_async_function_is_refused_with_advice() -> None:
    async def work() -> None: ...

    error = go(work).exception(SECONDS)
    assert isinstance(error, TypeError) and "async def" in str(error)


@pytest.mark.parametrize("make", [lambda: go(int), lambda: Timer(3600), lambda: Ticker(3600), lambda: recv(None)])
def test_copies_and_pickles_are_refused(make: Callable[[], Any]) -> None:
    thing = make()
    refusals = [pickle.dumps] if isinstance(thing, goslings.Case) else [pickle.dumps, copy.copy, copy.deepcopy]
    for refuse in refusals:
        with pytest.raises(TypeError, match=r"Goroutine|Timer|Ticker|Case"):
            refuse(thing)


def test_the_errors_are_what_they_are() -> None:
    for error in (Closed, goslings.WouldBlock):
        assert issubclass(error, GoslingsError)
    assert issubclass(Cancelled, BaseException) and not issubclass(Cancelled, Exception)


# Subinterpreters


def test_a_subinterpreter_gets_a_clear_import_error() -> None:
    out = check_child(
        """
        import sys
        if sys.version_info >= (3, 14):
            from concurrent import interpreters
            interp = interpreters.create()
            try:
                interp.exec("import goslings")
            except interpreters.ExecutionFailed as failed:
                print(failed.excinfo.type.__name__, failed.excinfo.msg)
            interp.close()
        else:
            import _interpreters
            interp = _interpreters.create()
            failed = _interpreters.exec(interp, "import goslings")
            print(failed.type.__name__, failed.msg)
            _interpreters.destroy(interp)
        from goslings import go
        print(go(lambda: 7).result())
        """
    )
    first, second = out.splitlines()
    assert first.startswith("ImportError ") and "interpreter" in first
    assert second == "7"


def test_a_subinterpreter_after_goroutines_ran() -> None:
    out = check_child(
        """
        import sys
        from goslings import chan, go, sleep
        ch = chan()
        goroutines = [go(ch.recv) for _ in range(100)]
        code = "try:\\n    import goslings\\nexcept ImportError: pass\\nelse: raise SystemExit('imported')"
        if sys.version_info >= (3, 14):
            from concurrent import interpreters
            interp = interpreters.create()
            interp.exec(code)
            interp.close()
        else:
            import _interpreters
            interp = _interpreters.create()
            assert _interpreters.exec(interp, code) is None
            _interpreters.destroy(interp)
        for i in range(100):
            ch.send(i)
        print(sum(g.result() for g in goroutines))
        """
    )
    assert out == "4950\n"


# fork


def test_fork_with_a_running_runtime() -> None:
    out = check_child(
        """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads
        from goslings import chan, go, num_goroutine, select, recv, send, sleep, after
        ch, full = chan(), chan(1)
        full.send(0)
        parked = [go(ch.recv) for _ in range(10)] + [go(full.send, i) for i in range(10)]
        parked += [go(select, recv(ch), send(full, 1)) for _ in range(10)]
        while any("chan" not in repr(g) and "select" not in repr(g) for g in parked):
            sleep(0.001)
        pid = os.fork()
        if pid == 0:
            # Those that wait in the channels are ghosts here.
            assert num_goroutine() == 0, num_goroutine()
            assert not ch.try_send(1)
            g = go(ch.recv)
            ch.send(2)
            assert g.result(10) == 2
            assert full.recv() == 0
            assert full.try_recv(None) is None, "a ghost's value was let in"
            full.send(5)
            assert full.recv() == 5
            assert select(recv(after(0.001)), recv(ch)).index == 0
            a, b = chan(), chan(3)
            def work(n):
                for i in range(n):
                    a.send(i)
                    b.send(i)
            workers = [go(work, 100) for _ in range(4)]
            readers = [go(lambda: [a.recv() for _ in range(200)]) for _ in range(2)]
            more = [go(lambda: [b.recv() for _ in range(200)]) for _ in range(2)]
            total = sum(sum(g.result(10)) for g in readers + more)
            assert total == 2 * 4 * 4950, total
            ch.close()
            os._exit(7)
        _, status = os.waitpid(pid, 0)
        for i in range(10):
            ch.send(i)
        got = sorted(g.result() for g in parked[:10])
        print(os.waitstatus_to_exitcode(status), got == list(range(10)))
        """
    )
    assert out == "7 True\n"


def test_fork_inside_a_goroutine() -> None:
    out = check_child(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from goslings import chan, go, current, sleep, gosched
        ch = chan()
        others = [go(ch.recv) for _ in range(5)]

        def work():
            pid = os.fork()
            if pid == 0:
                # The child is this goroutine, now on the child's only thread.
                inner = chan()
                g = go(lambda: [inner.recv() for _ in range(10)])
                for i in range(10):
                    inner.send(i)
                    sleep(0.0001)
                assert g.result(10) == list(range(10))
                print("child", flush=True)
                os._exit(3)
            _, status = os.waitpid(pid, 0)
            return os.waitstatus_to_exitcode(status)

        print(go(work).result())
        for i in range(5):
            ch.send(i)
        print(sorted(g.result() for g in others))
        """
    )
    assert out == "child\n3\n[0, 1, 2, 3, 4]\n"


def test_a_goroutine_that_forked_and_returns_ends_the_child() -> None:
    out = check_child(
        """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from goslings import go
        def work():
            pid = os.fork()
            if pid == 0:
                print("in the child")
                return None
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(go(work).result())
        """
    )
    assert out == "in the child\n0\n"


def test_forks_while_goroutines_run_and_timers_fire() -> None:
    out = check_child(
        f"""
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from goslings import chan, go, sleep, gosched, Ticker
        ch, stop = chan(4), chan()
        def busy():
            while not stop.closed:
                ch.send(1)
                ch.recv()
                sleep(0.0001)
                gosched()
        workers = [go(busy) for _ in range(4)]
        ticker = Ticker(0.0001)
        ended = []
        for i in range({count(20)}):
            pid = os.fork()
            if pid == 0:
                inner = chan()
                go(inner.send, 1)
                ok = inner.recv(timeout=10) == 1
                sleep(0.001)
                os._exit(0 if ok else 1)
            ended.append(os.waitpid(pid, 0)[1])
        stop.close()
        for g in workers:
            g.result()
        print(set(ended))
        """
    )
    assert out == "{0}\n"


def test_a_forked_child_ends_normally() -> None:
    out = check_child(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from goslings import chan, go
        ch = chan()
        parked = [go(ch.recv) for _ in range(100)]
        pid = os.fork()
        if pid == 0:
            more = [go(ch.recv) for _ in range(100)]
            sys.exit(4)  # with atexit, finalization and all
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert out == "4\n"


def test_children_of_children() -> None:
    out = check_child(
        """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from goslings import chan, go
        def work(depth):
            ch = chan()
            g = go(ch.recv)
            ch.send(depth)
            assert g.result(10) == depth
            if depth == 3:
                return 0
            pid = os.fork()
            if pid == 0:
                os._exit(work(depth + 1) + 1)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(work(0))
        """
    )
    assert out == "3\n"


def test_multiprocessing_by_fork() -> None:
    out = check_child(
        """
        import multiprocessing, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from goslings import chan, go

        def squares(n):
            ch = chan()
            for i in range(n):
                go(lambda i=i: ch.send(i * i))
            return sorted(ch.recv() for _ in range(n))

        if __name__ == "__main__":
            squares(10)
            context = multiprocessing.get_context("fork")
            with context.Pool(2) as pool:
                print(pool.map(squares, [3, 4]))
        """
    )
    assert out == "[[0, 1, 4], [0, 1, 4, 9]]\n"


def test_a_subprocess_started_by_goroutines(two_workers: None) -> None:
    import subprocess

    def work(i: int) -> str:
        return subprocess.run(["echo", str(i)], capture_output=True, text=True, check=True).stdout

    assert results([go(work, i) for i in range(8)]) == [f"{i}\n" for i in range(8)]


# Ctrl-C

INTERRUPTED = """
import os, signal, sys, threading, time
import goslings
from goslings import chan, go, recv, select, send, sleep, Closed
ch, never, full = chan(), chan(), chan(1)
full.send("full")
goroutine = go(never.recv)
waits = {{
    "recv": lambda: never.recv(),
    "recv with timeout": lambda: never.recv(timeout=60),
    "recv_ok": lambda: never.recv_ok(),
    "iteration": lambda: next(never),
    "send": lambda: full.send(1),
    "send with timeout": lambda: full.send(1, timeout=60),
    "select": lambda: select(recv(never), send(full, 1)),
    "select with timeout": lambda: select(recv(never), timeout=60),
    "select of nothing": lambda: select(),
    "sleep": lambda: sleep(60),
    "result": lambda: goroutine.result(),
    "join": lambda: goroutine.join(60),
    "exception": lambda: goroutine.exception(),
}}
wait = waits[{name!r}]
main = threading.main_thread()
"""


@pytest.mark.parametrize(
    "name",
    [
        "recv",
        "recv with timeout",
        "recv_ok",
        "iteration",
        "send",
        "send with timeout",
        "select",
        "select with timeout",
        "select of nothing",
        "sleep",
        "result",
        "join",
        "exception",
    ],
)
def test_ctrl_c_ends_a_wait_of_the_main_thread(name: str) -> None:
    out = check_child(
        INTERRUPTED.format(name=name)
        + """
interrupted = 0
for round in range(10):
    ready = chan()
    def kill():
        ready.recv()
        time.sleep(0.002 * (round % 3))  # most of the rounds while it waits, some before
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=kill)
    thread.start()
    try:
        ready.send(None)
        wait()
    except KeyboardInterrupt:
        interrupted += 1
    thread.join()
# The waits that were given up are gone: what comes later goes to others.
assert len(full) == 1 and full.recv() == "full" and not full.try_recv(False)
assert not never.try_recv(False)
never.send("for the goroutine")
print(interrupted, goroutine.result())
"""
    )
    assert out == "10 for the goroutine\n"


def test_ctrl_c_while_values_arrive_loses_and_doubles_none() -> None:
    out = check_child(
        f"""
        import os, signal, threading, time
        from goslings import chan, go, recv, select, send
        ch, begin, stop = chan(), threading.Event(), []
        n = {count(3000)}

        def sender():
            for i in range(n):
                ch.send(i)
            ch.close()

        def kill():
            begin.wait()
            while not stop:
                time.sleep(0.0007)
                if not stop:
                    os.kill(os.getpid(), signal.SIGINT)

        got, interrupted, ended = [], 0, False
        go(sender)
        thread = threading.Thread(target=kill)
        thread.start()
        try:
            while not ended:
                try:
                    begin.set()
                    # extend() is one call into C: no signal is handled between the receive and the append.
                    got.extend(iter(ch.recv, None))
                except KeyboardInterrupt:
                    interrupted += 1
                except Exception as error:
                    assert type(error).__name__ == "Closed", error
                    ended = True
        except KeyboardInterrupt:
            ended = True
        while not stop:
            try:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                stop.append(1)
            except KeyboardInterrupt:
                pass
        thread.join()
        rest = list(ch)
        print(got + rest == list(range(n)), interrupted > 0, len(rest))
        """
    )
    assert out.split()[0] == "True", out


def test_ctrl_c_in_a_goroutine_goes_to_the_main_thread_only() -> None:
    out = check_child(
        """
        import os, signal
        from goslings import chan, go, sleep
        ch = chan()
        def work():
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                sum(range(100))
            return "not disturbed"
        g = go(work)
        try:
            ch.recv()
        except KeyboardInterrupt:
            print(g.result())
        """
    )
    assert out == "not disturbed\n"


def test_ctrl_c_from_outside_ends_a_program_that_waits() -> None:
    process = start_child(
        """
        from goslings import chan, go
        ch = chan()
        goroutines = [go(ch.recv) for _ in range(100)]
        print("waiting", flush=True)
        chan().recv()
        """
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_a_signal_handler_that_uses_channels_while_main_waits() -> None:
    out = check_child(
        """
        import os, signal, threading, time
        from goslings import chan, go, select, recv, send, sleep
        ch, inner, log = chan(), chan(), []
        replies = chan(1000)  # has room: one handler may interrupt another between its two waits

        def echo():
            for value in inner:
                log.append(value)
                replies.send(value)

        go(echo)
        handled = []

        def handler(number, frame):
            # Waits itself, in the middle of main's wait on the same channel and on others.
            inner.send("x")
            replies.recv()
            select(recv(ch), timeout=0)
            sleep(0.0001)
            handled.append(go(int).result())

        signal.signal(signal.SIGUSR1, handler)

        def kill():
            for _ in range(50):
                os.kill(os.getpid(), signal.SIGUSR1)
                time.sleep(0.001)
            while not ch.try_send("for main"):
                time.sleep(0.001)

        thread = threading.Thread(target=kill)
        thread.start()
        value = ch.recv()
        thread.join()
        print(value, len(log) == len(handled), len(log) > 5)
        """
    )
    assert out == "for main True True\n"


def test_a_handler_may_serve_the_very_wait_that_it_interrupts() -> None:
    out = check_child(
        """
        import os, signal, threading, time
        from goslings import chan, select, recv, send
        ch = chan()
        signal.signal(signal.SIGUSR1, lambda *_: ch.send("from the handler"))
        def kill():
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGUSR1)
        for wait in (ch.recv, lambda: select(recv(ch)).value, lambda: next(ch), lambda: ch.recv(timeout=10)):
            thread = threading.Thread(target=kill)
            thread.start()
            print(wait())
            thread.join()
        """
    )
    assert out == "from the handler\n" * 4


def test_a_handler_that_raises_something_else() -> None:
    out = check_child(
        """
        import os, signal, threading, time
        from goslings import chan
        def handler(number, frame):
            raise LookupError("from the handler")
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        try:
            chan().recv()
        except LookupError as error:
            print(error)
        """
    )
    assert out == "from the handler\n"


def test_timeouts_hold_while_signals_come() -> None:
    out = check_child(
        """
        import signal, time
        from goslings import chan
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        started = time.monotonic()
        try:
            chan().recv(timeout=0.1)
        except TimeoutError:
            took = time.monotonic() - started
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(0.1 <= took < 5)
        """
    )
    assert out == "True\n"


# Exit

PARKED = f"""
import atexit, os, sys, threading, time
from goslings import chan, go, select, recv, send, sleep, num_goroutine, gosched, Ticker, after, after_func
ch, full, n = chan(), chan(1), {MANY}
full.send(0)
waits = [ch.recv, lambda: full.send(1), lambda: select(recv(ch), send(full, 1)), lambda: sleep(3600),
         lambda: ch.recv(timeout=3600), lambda: select()]
def waits_in_finally(i):
    try:
        waits[i % len(waits)]()
    finally:
        print("unwound", file=sys.stderr)
goroutines = [go(waits_in_finally, i) for i in range(n)]
for _ in range(200):
    gosched()
"""

ENDS = {
    "plain end": ("", 0, ""),
    "everything parked": (
        "while any('not started' in repr(g) for g in goroutines[::100]): sleep(0.001)\nsleep(0.05)",
        0,
        "",
    ),
    "handles dropped": ("del goroutines", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "sys.exit with text": ("sys.exit('text')", 1, "text\n"),
    "an exception": ("raise KeyError('main')", 1, "KeyError: 'main'\n"),
    "os._exit": ("os._exit(5)", 5, ""),
    "exit from a goroutine": ("go(os._exit, 6)\nchan().recv()", 6, ""),
    "busy workers": ("def busy():\n    while True: pass\nfor _ in range(4): go(busy)\nsleep(0.01)", 0, ""),
    "busy workers that switch": (
        "def busy():\n    while True:\n        gosched(); len(goroutines)\nfor _ in range(4): go(busy)\nsleep(0.01)",
        0,
        "",
    ),
    "workers that hand over": (
        "def a():\n    while True: x.send(1)\ndef b():\n    while True: x.recv()\n"
        "x = chan()\nfor _ in range(4): go(a); go(b)\nsleep(0.01)",
        0,
        "",
    ),
    "workers in C code": ("import time\nfor _ in range(2): go(time.sleep, 3600)\nsleep(0.01)", 0, ""),
    "workers that collect": (
        "import gc\ndef collects():\n    while True: gc.collect(0)\nfor _ in range(2): go(collects)\nsleep(0.01)",
        0,
        "",
    ),
    "workers that start others": (
        "def starts():\n    while True: go(ch.recv, timeout=0.001).join(); go(int)\n"
        "import goslings\ngoslings.excepthook = lambda args: None\nfor _ in range(4): go(starts)\nsleep(0.01)",
        0,
        "",
    ),
    "timers": (
        "t = [Ticker(0.0001) for _ in range(10)] + [after(i / 1000) for i in range(100)] + "
        "[after_func(i / 10000, gosched) for i in range(100)]\nsleep(0.005)",
        0,
        "",
    ),
    "threads that wait": (
        "for _ in range(5): threading.Thread(target=chan().recv, daemon=True).start()\nsleep(0.01)",
        0,
        "",
    ),
    "a thread that still works": (
        "def late():\n    time.sleep(0.05)\n    ch2 = chan()\n    go(ch2.send, 1)\n    assert ch2.recv() == 1\n"
        "threading.Thread(target=late).start()",
        0,
        "",
    ),
    "atexit functions that use goroutines": (
        "@atexit.register\ndef late():\n    ch2 = chan()\n    go(ch2.send, 1)\n    assert ch2.recv(timeout=10) == 1",
        0,
        "",
    ),
    "finalizers that use channels": (
        "class Final:\n    def __del__(self, chan=chan):\n"
        "        ch3 = chan(1); ch3.send(1); ch3.recv(); ch3.try_recv(None); ch3.close()\n"
        "keep = Final()\nkeep.me = keep",
        0,
        "",
    ),
    "finalizers that start goroutines": (
        "class Final:\n    def __del__(self, go=go):\n        go(int)\nkeep = Final()",
        0,
        "",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_exit_with_many_parked_goroutines(end: str) -> None:
    code, status, err = ENDS[end]
    # A half of a second is allowed for starting them, and ten for leaving on a machine that is busy.
    done = run_child(PARKED + code, seconds=30)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr[-2000:]
    if "exception" in end:
        assert done.stderr.endswith(err)
        assert "unwound" not in done.stderr
    else:
        assert done.stderr == err


def test_exit_is_quick() -> None:
    out = check_child(PARKED + "print(time.monotonic())\n")
    assert time.monotonic() - float(out) < 5


def test_g02_when_main_returns_nobody_is_waited_for() -> None:
    out = check_child(
        """
        from goslings import go, sleep
        def work():
            try:
                print("started", flush=True)
                sleep(3600)
            finally:
                print("finally")
        g = go(work)
        while "sleep" not in repr(g):
            sleep(0.001)
        """
    )
    assert out == "started\n"


def test_sys_exit_in_a_goroutine_ends_the_goroutine_only() -> None:
    out = check_child(
        """
        import sys
        from goslings import go, sleep
        go(sys.exit, 3)
        g = go(sys.exit, 4)
        sleep(0.01)
        print(type(g.exception()).__name__, g.exception().code)
        """
    )
    assert out == "SystemExit 4\n"


# Memory


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_no_memory_for_a_stack_is_a_memory_error() -> None:
    out = check_child(
        """
        import resource
        from goslings import chan, go, sleep, gomaxprocs
        ch = chan()
        go(int).result()
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (now + 300 * 2**20, resource.RLIM_INFINITY))
        goroutines = [go(ch.recv_ok) for _ in range(2000)]
        while any("not started" in repr(g) for g in goroutines):
            sleep(0.001)
        failed = [g for g in goroutines if g.done()]
        errors = {type(g.exception()).__name__ for g in failed}
        texts = {str(g.exception()).split(" (")[0] for g in failed}
        ch.close()
        fine = [g.result() for g in goroutines if g not in failed]
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(errors, texts, 50 < len(fine) < 1000, set(fine))
        print(go(lambda: 7).result())  # and it goes on
        """
    )
    assert out == "{'MemoryError'} {\"no memory for a goroutine's stack\"} True {(None, False)}\n7\n"


def test_a_memory_error_in_a_goroutine() -> None:
    def work() -> bytes:
        return bytes(2**62)

    assert isinstance(go(work).exception(SECONDS), MemoryError)
    with pytest.raises(MemoryError):
        go(work).result(SECONDS)


def test_a_small_stack_still_gives_recursion_errors() -> None:
    out = check_child(
        """
        import sys
        from goslings import go
        sys.setrecursionlimit(100000)
        def deep(n):
            return list(map(deep, [n + 1]))
        def python_only(n):
            return python_only(n + 1)
        print({type(g.exception()).__name__ for g in [go(deep, 0) for _ in range(5)] + [go(python_only, 0)]})
        """,
        env={"GOSLINGS_STACK_KB": "256"},
    )
    assert out == "{'RecursionError'}\n"


# Exceptions nobody reads


def test_an_exception_that_nobody_reads_is_reported(unread: list[goslings.ExceptHookArgs]) -> None:
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


def test_the_default_hook_prints_where_it_was_started() -> None:
    done = run_child(
        """
        from goslings import go, sleep
        def fail():
            raise KeyError("nobody reads this")
        g = go(fail)
        g.name = "reader"
        g.join()
        del g
        sleep(0.05)
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
        sleep(0.05)
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


def test_goslings_panic_exit_ends_the_process_with_2() -> None:
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
        sleep(0.05)
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


@pytest.mark.parametrize("raised", [KeyboardInterrupt, GeneratorExit, SystemExit, StopIteration, Cancelled])
def test_exceptions_of_every_kind_come_out_of_result(raised: type[BaseException]) -> None:
    def fail() -> None:
        raise raised

    with pytest.raises(raised):
        go(fail).result(SECONDS)


def test_environment_that_makes_no_sense() -> None:
    done = run_child("import goslings", env={"GOSLINGS_PROCS": "many"})
    assert done.returncode == 1 and "GOSLINGS_PROCS must be a whole number" in done.stderr


def test_no_goroutine_is_left_by_this_file() -> None:
    parked_before = num_goroutine()
    results([go(int) for _ in range(10)])
    until(lambda: num_goroutine() <= parked_before)


def test_two_threads_import_and_start_at_once() -> None:
    out = check_child(
        """
        import threading
        barrier = threading.Barrier(4)
        results = []
        def first():
            barrier.wait()
            import goslings
            results.append(goslings.go(lambda: 1).result(10))
        threads = [threading.Thread(target=first) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(results)
        """
    )
    assert out == "[1, 1, 1, 1]\n"
