"""Programs that end without closing their processes, that fork, or that cannot rebuild what comes."""

from __future__ import annotations

import contextlib
import os
import select as system
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from goslings import chan
from goslings.processes import Processes
from helpers import check_child, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")

SECONDS = 60.0

# How a parent ends

PROGRAM = """
import os, signal, sys, time
from goslings import chan, go
from goslings.processes import Processes

def work(runs, values):
    runs.send(os.getpid())
    for number in range(1_000_000_000):
        values.send(number)

def main(how):
    with Processes(2, start=sys.argv[1]) as workers:
        runs, values = chan(4), chan(64)
        large = workers.go(bytearray, 1 << 20).result(60)
        calls = [workers.go(work, runs, values) for _ in range(2)]
        pids = [runs.recv(60) for _ in calls]
        if workers._server is not None:
            pids.append(workers._server._process.pid)
        assert values.recv(60) == 0
        print(*pids, flush=True)
        sys.stdin.readline()
        how()

def fail():
    raise LookupError("as the test wants")

WAYS = {
    "exit": lambda: sys.exit(3),
    "_exit": lambda: os._exit(4),
    "exception": fail,
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGINT": lambda: os.kill(os.getpid(), signal.SIGINT),
}
main(WAYS[sys.argv[2]])
"""

STATUS = {"exit": 3, "_exit": 4, "exception": 1, "SIGTERM": -signal.SIGTERM, "SIGKILL": -signal.SIGKILL,
          "SIGINT": -signal.SIGINT}  # fmt: skip


def shared() -> set[str]:
    return set(os.listdir("/dev/shm"))


@pytest.mark.parametrize("how", list(STATUS))
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_nothing_is_left_of_a_program_however_it_ends(start: str, how: str) -> None:
    before = shared()
    with contextlib.ExitStack() as open_things:
        parent = open_things.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, start, how],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )  # fmt: skip
        )
        open_things.callback(parent.kill)
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == (3 if start == "forkserver" else 2)
        left = []
        for pid in pids:
            left.append(os.pidfd_open(pid))
            open_things.callback(os.close, left[-1])
        _, err = parent.communicate("go\n", timeout=SECONDS)
        assert parent.returncode == STATUS[how], err
        assert ("LookupError: as the test wants" in err) == (how == "exception"), err
        try:
            until(lambda: len(system.select(left, [], [], 0)[0]) == len(left), SECONDS)
        finally:
            for fd in left:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
    # Memory without a name went with the last process that had it.
    assert not {name for name in shared() - before if "goslings" in name}
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if is_of(path, pids)]


def is_of(path: Path, pids: list[int]) -> bool:
    """Whether it is one of these processes, and has not ended."""
    if int(path.parent.name) not in pids:
        return False
    with contextlib.suppress(OSError):
        return (path.parent / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


# Forks in the middle


def test_a_forked_child_is_refused_and_its_parent_goes_on() -> None:
    out = check_child("""
        import os, sys, multiprocessing, subprocess
        from goslings import chan, go, select, recv
        from goslings.processes import Processes

        def refused(name, call):
            try:
                call()
            except RuntimeError as error:
                assert "fork" in str(error), (name, error)
            else:
                raise AssertionError(name)

        def child():
            refused("go", lambda: workers.go(abs, 1))
            refused("recv", theirs.recv)
            refused("send", lambda: theirs.send(1))
            refused("len", lambda: len(theirs))
            refused("select", lambda: select(recv(theirs), timeout=1))
            workers.cancel()
            workers.close()
            workers.kill()
            with workers:
                pass
            mine = chan(1)
            mine.send(1)
            assert mine.recv() == 1
            return 7

        with Processes(2) as workers:
            theirs = workers.go(lambda: __import__("goslings").chan(1)).result(60)
            never = chan()
            goroutine = workers.go(lambda: never.recv())
            import warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            for _ in range(3):
                pid = os.fork()
                if pid == 0:
                    try:
                        os._exit(child())
                    except BaseException:
                        import traceback
                        traceback.print_exc()
                        os._exit(1)
                print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                assert workers.go(abs, -1).result(60) == 1
                theirs.send(5)
                assert theirs.recv() == 5
            # Beside processes of others.
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            process.join(60)
            print(process.exitcode)
            print(subprocess.run([sys.executable, "-c", "pass"], close_fds=False).returncode)
            # In a worker.
            def there():
                pid = os.fork()
                if pid == 0:
                    try:
                        never.try_send(1)
                    except RuntimeError as error:
                        os._exit(9 if "fork" in str(error) else 8)
                    os._exit(1)
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            print(workers.go(there).result(60))
            never.send(4)
            print(goroutine.result(60))
    """)
    assert out.split() == ["7", "7", "7", "0", "0", "9", "4"]


# What cannot be rebuilt


def refuse() -> Any:
    raise ValueError("cannot be rebuilt here")


class Refuses:
    def __reduce__(self) -> Any:
        return refuse, ()


class Unreduced(Exception):
    def __reduce__(self) -> Any:
        raise LookupError("it does not say how")


class Wants(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_what_cannot_be_rebuilt_is_an_error_of_whoever_wanted_it_and_the_worker_lives() -> None:
    def missing() -> Any:
        import types

        module = sys.modules["only_here"] = types.ModuleType("only_here")
        exec("class Thing: pass", module.__dict__)
        return module.Thing()  # type: ignore[attr-defined]

    def unreduced() -> None:
        raise Unreduced("some text")

    def wants() -> None:
        raise Wants(1, 2)

    def cyclic() -> None:
        error = ValueError("its own cause")
        other = KeyError("between")
        error.__cause__, other.__cause__ = other, error
        raise error

    def group() -> None:
        raise ExceptionGroup("many", [ValueError("first"), ExceptionGroup("inner", [KeyError("second"), Wants(3, 4)])])

    def huge() -> None:
        raise ValueError("x" * (1 << 22))

    def huge_unreduced() -> None:
        raise Unreduced("x" * (1 << 22))

    with Processes(1) as workers:
        workers.go(abs, 1).result(SECONDS)
        (worker,) = workers._workers
        home = chan[Any](1)
        with pytest.raises(ModuleNotFoundError, match="only_here"):
            workers.go(missing).result(SECONDS)
        with pytest.raises(ValueError, match="cannot be rebuilt here"):
            workers.go(Refuses).result(SECONDS)
        with pytest.raises(ValueError, match="cannot be rebuilt here"):
            workers.go(lambda value: value, Refuses()).result(SECONDS)
        with pytest.raises(ValueError, match="cannot be rebuilt here"):
            workers.go(lambda: home.send(Refuses())).result(SECONDS)
        home.send(Refuses())
        with pytest.raises(ValueError, match="cannot be rebuilt here"):
            workers.go(home.recv).result(SECONDS)
        for raises, error, text in (
            (unreduced, RuntimeError, r"Unreduced: some text \(the exception itself could not travel: .*not say how"),
            (wants, RuntimeError, r"Wants: 1 and 2 \(the exception itself could not be rebuilt"),
            (cyclic, ValueError, "its own cause"),
            (huge, ValueError, "xxxx"),
            (huge_unreduced, RuntimeError, "could not travel"),
        ):
            with pytest.raises(error, match=text) as caught:
                workers.go(raises).result(SECONDS)
            assert raises.__name__ in str(caught.value.__cause__), "the traceback there"
            del caught
        with pytest.raises((ExceptionGroup, RuntimeError), match="many"):
            workers.go(group).result(SECONDS)
        assert workers.go(abs, -1).result(SECONDS) == 1
        assert workers._workers == [worker]


# Limits when workers start


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_workers_that_cannot_be_started_for_want_of_something_are_told(start: Any) -> None:
    out = check_child(
        f"""
        import os, resource
        from goslings.processes import Processes, WorkerDied
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        for more in range(1, 9):
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + more, hard))
            try:
                with Processes(1, start={start!r}) as workers:
                    workers.go(abs, 1).result(60)
                print("went well")
            except (OSError, WorkerDied) as error:
                text = str(error)
                assert "Too many open files" in text or "descriptor" in text, text
                print("told")
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        with Processes(1, start={start!r}) as workers:
            print(workers.go(abs, -1).result(60))
    """,
        seconds=150,
    )
    words = out.split()
    assert words[0] == "told" and words[-1] == "1", out
