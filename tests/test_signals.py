"""Signals: Ctrl-C and handlers while the main thread waits."""

from __future__ import annotations

import signal
import time

import pytest
from helpers import SECONDS, check_child, count, start_child

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


def test_a_signal_that_interrupts_no_sleep_is_noticed_soon() -> None:
    # One that comes after the interpreter looked for signals and before the sleep ends no system call, and no more
    # does one that another thread has caught: as if it came from `interrupt_main`.
    out = check_child(
        """
        import _thread, threading, time
        from goslings import chan, recv, select, send, sleep
        never = chan()
        waits = [never.recv, lambda: select(recv(never), send(never, 1)), lambda: sleep(60), lambda: never.recv(30)]
        for wait in waits:
            ready = chan()
            def interrupt():
                ready.recv()
                time.sleep(0.05)
                _thread.interrupt_main()
            thread = threading.Thread(target=interrupt)
            thread.start()
            try:
                ready.send(None)
                started = time.monotonic()
                wait()
            except KeyboardInterrupt:
                print("soon" if time.monotonic() - started < 20 else "late")
            thread.join()
        """
    )
    assert out == "soon\n" * 4


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
        """,
        env={"GOSLINGS_DEADLOCK": "off"},
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
        from goslings import chan, select, recv, send, stacks
        ch = chan()
        signal.signal(signal.SIGUSR1, lambda *_: ch.send("from the handler"))
        def kill():
            while stacks()[0].waiting is None:  # the main thread
                time.sleep(0.01)
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


def test_a_handler_that_raises_while_it_is_looked_for_a_deadlock() -> None:
    out = check_child(
        """
        import signal
        from goslings import _stacks, chan
        def handler(number, frame):
            raise LookupError("from the handler")
        signal.signal(signal.SIGALRM, handler)
        looked = _stacks.may_deadlock
        def may_deadlock():
            signal.raise_signal(signal.SIGALRM)
            return looked()
        _stacks.may_deadlock = may_deadlock
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


def test_g24_passing_signals_on_to_a_channel_never_blocks() -> None:
    out = check_child(
        """
        import os, signal, threading
        from goslings import chan, go, recv, select, sleep
        signals, passed = chan(1), []
        signal.signal(signal.SIGUSR1, lambda number, frame: passed.append(signals.try_send(number)))
        def send(n):
            for _ in range(n):
                signal.raise_signal(signal.SIGUSR1)
        send(2)
        print(passed, signals.recv() == signal.SIGUSR1, signals.try_recv("no more"))
        # Somebody who waits gets it, also the main thread itself, in whose wait the handler runs.
        g = go(signals.recv)
        for _ in range(1000):
            if "chan receive" in repr(g):
                break
            sleep(0.001)
        send(1)
        print(g.result(20) == signal.SIGUSR1)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        print(select(recv(signals), recv(None)).value == signal.SIGUSR1)
        """
    )
    assert out == "[True, False] True no more\nTrue\nTrue\n"
