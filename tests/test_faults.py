"""Bad input and faults: each a clear Python exception or a clean exit, none a crash or a hang."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
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
from helpers import SECONDS, check_child, results, run_child, until

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


def test_a_coroutine_is_refused_with_advice() -> None:
    async def work() -> None: ...

    coroutine = work()
    with pytest.raises(TypeError, match="async def function and its arguments"):
        go(coroutine)  # type: ignore[arg-type]
    coroutine.close()


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
