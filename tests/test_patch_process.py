"""`goslings.patch`: pipes, child processes, signals, queues. Each test has its own process."""

from __future__ import annotations

import textwrap

import pytest
from helpers import check_child

PROCS = pytest.mark.parametrize("procs", ["1", "2"])

START = """
import goslings, os, queue, signal, subprocess, sys, threading, time
from goslings import go
goslings.patch()
"""


def check(code: str, procs: str = "1") -> str:
    return check_child(START + textwrap.dedent(code), env={"GOSLINGS_PROCS": procs})


@PROCS
@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"])
def test_every_item_of_a_queue_arrives_once(kind: str, procs: str) -> None:
    check(
        f"""
        items, got = queue.{kind}(*([7] if "{kind}" != "SimpleQueue" else [])), []
        def puts(n):
            for i in range(50): items.put((n, i))
        def gets():
            while True:
                item = items.get()
                if item == (10**9, 0): return
                got.append(item)
        getters = [go(gets) for _ in range(4)] + [threading.Thread(target=gets) for _ in range(2)]
        putters = [go(puts, n) for n in range(10)] + [threading.Thread(target=puts, args=(n,)) for n in (10, 11)]
        for one in getters + putters:
            if isinstance(one, threading.Thread): one.start()
        for one in putters: one.join(60)
        while items.qsize(): time.sleep(0.001)
        for _ in getters: items.put((10**9, 0))
        for one in getters: one.join(60)
        assert sorted(got) == sorted((n, i) for n in range(12) for i in range(50)), len(got)
        """,
        procs,
    )


@PROCS
def test_queues_time_out(procs: str) -> None:
    check(
        """
        def tries():
            for empty in (queue.Queue(), queue.SimpleQueue()):
                for wait in (lambda: empty.get(timeout=0.02), empty.get_nowait, lambda: empty.get(False)):
                    try: wait()
                    except queue.Empty: pass
                    else: raise AssertionError("not empty")
                try: empty.get(timeout=-1)
                except ValueError: pass
                else: raise AssertionError("no error")
            full = queue.Queue(1); full.put(1)
            try: full.put(2, timeout=0.02)
            except queue.Full: pass
            else: raise AssertionError("not full")
            full.get(); full.task_done(); full.join()
            if hasattr(full, "shutdown"):
                getter = go(lambda: full.get())
                time.sleep(0.001); full.shutdown()
                assert isinstance(getter.exception(60), queue.ShutDown)
        tries()
        for goroutine in [go(tries) for _ in range(10)]: goroutine.result(60)
        """,
        procs,
    )


@PROCS
def test_pipes_park_whoever_reads_and_writes(procs: str) -> None:
    check(
        """
        def through(n):
            r, w = os.pipe()
            data = bytes([n]) * 300_000
            writer = go(os.write, w, data)
            got = bytearray()
            while len(got) < len(data): got += os.read(r, 65536)
            assert writer.result(60) == len(data) and bytes(got) == data
            late = go(os.readv, r, [bytearray(3), buffer := bytearray(5)])
            goslings.gosched()
            assert os.writev(w, [b"abc", b"de"]) == 5 and late.result(60) == 5 and buffer[:2] == b"de"
            waiting = go(os.read, r, 10)
            goslings.gosched()
            os.close(w)
            assert waiting.result(60) == b""
            os.close(r)
        for goroutine in [go(through, n) for n in range(20)]: goroutine.result(60)
        """,
        procs,
    )


def test_descriptors_that_do_not_wait_are_left_alone() -> None:
    check("""
        import tempfile
        def tries():
            r, w = os.pipe()
            os.set_blocking(r, False)
            try: os.read(r, 1)
            except BlockingIOError: pass
            else: raise AssertionError("waited")
            with tempfile.TemporaryFile() as file:
                fd = file.fileno()
                assert os.write(fd, b"abc") == 3 and os.lseek(fd, 0, 0) == 0 and os.read(fd, 9) == b"abc"
            null = os.open(os.devnull, os.O_RDWR)
            assert os.read(null, 3) == b"" and os.write(null, b"xy") == 2
            os.close(r)
            for wrong in (lambda: os.read(r, 1), lambda: os.write(r, b"x"), lambda: os.close(r)):
                try: wrong()
                except OSError as error: assert error.errno == 9
                else: raise AssertionError("closed")
            try: os.write(w, b"x")
            except BrokenPipeError: pass
            else: raise AssertionError("nobody reads")
            os.close(w)
            for wrong in (lambda: os.read("x", 1), lambda: os.read(0, -1), lambda: os.write(1, "text")):
                try: wrong()
                except (TypeError, OSError): pass
                else: raise AssertionError("no error")
        go(tries).result(60)
        tries()
    """)


def test_a_read_ends_when_its_descriptor_is_closed() -> None:
    check("""
        r, w = os.pipe()
        reading = go(os.read, r, 1)
        while "(net read)" not in repr(reading): time.sleep(0.001)
        os.close(r)
        error = reading.exception(60)
        assert isinstance(error, OSError) and error.errno == 9, error
    """)


@PROCS
def test_processes_are_waited_for_side_by_side(procs: str) -> None:
    check(
        """
        def runs(n):
            code = f"import sys, time; time.sleep(0.2); print('x' * 100000); sys.exit({n})"
            done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            assert (done.returncode, done.stdout) == (n, "x" * 100_000 + "\\n"), done
        ticks = 0
        def tick():
            global ticks
            while ticks >= 0:
                ticks += 1
                time.sleep(0.001)
        ticker = go(tick)
        for goroutine in [go(runs, n) for n in range(5)]: goroutine.result(60)
        def both():
            code = "import sys; data = sys.stdin.read(); print(len(data), file=sys.stderr); print(data)"
            done = subprocess.run([sys.executable, "-c", code], input="x" * 200_000, capture_output=True, text=True)
            assert (done.stdout, done.stderr) == ("x" * 200_000 + "\\n", "200000\\n")
        for goroutine in [go(both) for _ in range(3)]: goroutine.result(60)
        seen, ticks = ticks, -10**9
        assert seen > 5, "others went on meanwhile"
        """,
        procs,
    )


def test_waits_for_a_process() -> None:
    check("""
        def program():
            process = subprocess.Popen(["sleep", "3600"])
            try: process.wait(0.05)
            except subprocess.TimeoutExpired as error: assert error.timeout == 0.05
            else: raise AssertionError("no timeout")
            assert process.poll() is None
            waits = [go(process.wait, 60) for _ in range(3)] + [go(process.wait)]
            goslings.gosched()
            process.kill()
            assert [one.result(60) for one in waits] == [-signal.SIGKILL] * 4
            child = subprocess.Popen(["true"])
            assert os.waitpid(child.pid, 0) == (child.pid, 0)
            child.returncode = 0
            child = subprocess.Popen(["false"])
            assert os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT).si_status == 1
            assert os.wait4(child.pid, 0)[1] == 256
            child.returncode = 1
            for wrong in (lambda: os.waitpid(child.pid, 0), lambda: os.wait4(child.pid, 0), os.wait):
                try: wrong()
                except ChildProcessError: pass
                else: raise AssertionError("no such child")
            assert os.system("exit 3") == 3 << 8
            with os.popen("echo one; echo two") as pipe: assert pipe.readlines() == ["one\\n", "two\\n"]
            try: subprocess.run(["sleep", "3600"], timeout=0.05)
            except subprocess.TimeoutExpired: pass
            else: raise AssertionError("no timeout")
        go(program).result(60)
        program()
    """)


def test_the_pipes_of_a_process_park_and_are_files_as_before() -> None:
    check("""
        import io
        def program():
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cat:
                def feed():
                    for n in range(200): cat.stdin.write(f"line {n}\\n")
                    cat.stdin.close()
                feeder = go(feed)
                assert [line.strip() for line in cat.stdout] == [f"line {n}" for n in range(200)]
                feeder.result(60)
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as cat:
                assert isinstance(cat.stdout, io.FileIO)
                reading = go(cat.stdout.read, 100)
                goslings.gosched()
                assert cat.stdin.write(b"x" * 10) == 10 and reading.result(60) == b"x" * 10
                cat.stdin.close()
                assert cat.stdout.read() == b"" and cat.stdout.readall() == b""
        go(program).result(60)
        program()
    """)


def test_signals_are_waited_for_on_another_thread() -> None:
    check("""
        def program():
            assert signal.sigtimedwait([signal.SIGUSR1], 0.02) is None
            waiting = go(signal.sigwait, [signal.SIGUSR1])
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert waiting.result(60) == signal.SIGUSR1
            signal.pthread_kill(threading.get_ident(), 0)
            thread = threading.Thread(target=time.sleep, args=(0.2,)); thread.start()
            signal.pthread_kill(thread.ident, 0)
            thread.join()
            assert time.pthread_getcpuclockid(threading.get_ident())
            for gone in (thread.ident, threading.get_ident() + 2_000_000):
                try: signal.pthread_kill(gone, 0)
                except ProcessLookupError: pass
                else: raise AssertionError("nobody is called so")
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # here; workers inherit it
        go(program).result(60)
        signal.pthread_kill(threading.get_ident(), 0)
    """)
