"""`goslings.patch`: what is made of `threading`, used by goroutines and threads. Each test has its own process."""

from __future__ import annotations

import signal

import pytest
from helpers import check_child, run_child, start_child

PROCS = pytest.mark.parametrize("procs", ["1", "2"])

START = """
import goslings, sys, threading, time
from goslings import go
goslings.patch()
def all_of(function, goroutines=20, threads=4):
    "Runs function(n) in goroutines and in threads of the system; all have to end."
    real = [threading.Thread(target=function, args=(n,)) for n in range(threads)]
    ours = [go(function, n) for n in range(threads, threads + goroutines)]
    for thread in real: thread.start()
    for goroutine in ours: goroutine.result(60)
    for thread in real: thread.join(60); assert not thread.is_alive()
"""


def check(code: str, procs: str = "1") -> str:
    return check_child(START + _dedent(code), env={"GOSLINGS_PROCS": procs})


def _dedent(code: str) -> str:
    import textwrap

    return textwrap.dedent(code)


@PROCS
@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"])
def test_a_lock_held_across_a_wait_keeps_goroutines_and_threads_apart(kind: str, procs: str) -> None:
    check(
        f"""
        lock, inside, total = threading.{kind}(), 0, 0
        def work(n):
            global inside, total
            for _ in range(10):
                with lock:
                    assert inside == 0
                    inside += 1
                    time.sleep(0.0001)
                    inside -= 1
                    total += 1
        all_of(work)
        assert total == 240, total
        """,
        procs,
    )


@PROCS
def test_an_rlock_belongs_to_its_goroutine(procs: str) -> None:
    check(
        """
        lock = threading.RLock()
        def work(n):
            for _ in range(5):
                with lock, lock:
                    assert lock._is_owned() and lock._recursion_count() == 2
                    time.sleep(0.0001)
                    with lock: pass
                assert not lock._is_owned()
                try: lock.release()
                except RuntimeError as error: assert "un-acquired" in str(error)
                else: raise AssertionError("released what another one has")
        all_of(work)
        """,
        procs,
    )


@PROCS
def test_locks_time_out_and_refuse_as_the_originals_do(procs: str) -> None:
    check(
        """
        real = threading.Lock.__module__, sys.modules["goslings._threads"].lock
        assert real[0] == "_thread"
        def said(make):
            lock, all_said = make(), []
            lock.acquire()
            for arguments in ((False, 1), (True, -2), (True, 1e20), (True, "x"), (True, float("nan"))):
                try: lock.acquire(*arguments)
                except Exception as error: all_said.append(type(error))
                else: all_said.append(None)
            lock.release()
            try: lock.release()
            except Exception as error: all_said.append(repr(error))
            return all_said
        assert said(threading.Lock) == said(real[1]), (said(threading.Lock), said(real[1]))
        assert go(said, threading.Lock).result() == said(real[1])
        lock = threading.Lock()
        lock.acquire()
        def late(n):
            started = time.monotonic()
            assert not lock.acquire(timeout=0.05) and not lock.acquire(False)
            assert time.monotonic() - started >= 0.05
        all_of(late)
        """,
        procs,
    )


@PROCS
def test_conditions_events_barriers_and_semaphores(procs: str) -> None:
    check(
        """
        ready, seen, items, taken = threading.Event(), [], [], []
        full = threading.Condition()
        barrier = threading.Barrier(24)
        few, most, now = threading.Semaphore(3), 0, 0
        def work(n):
            global most, now
            assert ready.wait(60)
            barrier.wait(60)
            with few:
                now += 1; most = max(most, now)
                time.sleep(0.001)
                now -= 1
            with full:
                while not items: assert full.wait(60)
                taken.append(items.pop())
        def feed():
            ready.set()
            for item in range(24):
                with full:
                    items.append(item)
                    full.notify()
                time.sleep(0.0005)
        feeder = go(feed)
        all_of(work)
        feeder.result(60)
        assert sorted(taken) == list(range(24)) and not items
        assert 1 <= most <= 3, most
        """,
        procs,
    )


@PROCS
def test_threads_of_goroutines_are_goroutines(procs: str) -> None:
    out = check(
        """
        def program():
            before, switches = goslings.num_goroutine(), []
            gate = threading.Event()
            def body(n):
                assert goslings.current() is not None
                assert threading.current_thread() is threads[n] and threading.get_ident() == threads[n].ident
                gate.wait(60)
            threads = [threading.Thread(target=body, args=(n,), name=f"body-{n}") for n in range(200)]
            for thread in threads: thread.start()
            assert goslings.num_goroutine() >= before + 200
            assert threading.active_count() >= 201 and set(threads) <= set(threading.enumerate())
            assert all(thread.is_alive() and thread.ident and thread.native_id for thread in threads)
            assert len({thread.ident for thread in threads}) == 200
            threads[0].join(0.01)
            assert threads[0].is_alive()
            gate.set()
            for thread in threads: thread.join(60)
            assert not any(thread.is_alive() for thread in threads)
            assert not set(threads) & set(threading.enumerate())
            for wrong in (threads[0].start, threading.Thread().join, threading.current_thread().join):
                try: wrong()
                except RuntimeError as error: print(error)
                else: raise AssertionError(wrong)
        go(program).result(60)
        thread = threading.Thread(target=lambda: print(goslings.current()))
        thread.start(); thread.join()
        """,
        procs,
    )
    lines = out.splitlines()
    assert lines[0] == "threads can only be started once"
    assert lines[1] == "cannot join thread before it is started"
    assert lines[2].startswith("cannot join")
    assert lines[3] == "None", "a thread that a plain thread starts is one"


@PROCS
def test_thread_local_data_and_context_are_the_threads_own(procs: str) -> None:
    check(
        """
        import contextvars, gc, weakref
        var = contextvars.ContextVar("var", default="unset")
        made = []
        class Local(threading.local):
            def __init__(self, value):
                self.value = value
                made.append(value)
        old, new, gone = Local(1), threading.local(), []
        class Thing: pass
        def body(n):
            assert not hasattr(new, "n") and old.value == 1
            new.n = old.value = n
            new.thing = Thing()
            gone.append(weakref.ref(new.thing))
            for _ in range(5):
                time.sleep(0.0005)
                assert new.n == old.value == n
        all_of(body)
        gc.collect()
        assert len(gone) == 24 and not [ref for ref in gone if ref() is not None]
        assert made == [1] * 25 and not hasattr(new, "n")
        async def steps(n):
            assert not hasattr(new, "n")
            new.n = n
            for _ in range(5):
                await goslings.asleep(0.0005)
                assert new.n == n
        for goroutine in [go(steps, n) for n in range(50)]: goroutine.result(60)
        def starts():
            var.set("mine")
            thread = threading.Thread(target=lambda: gone.append(var.get()))
            thread.start(); thread.join()
            assert gone.pop() == ("mine" if getattr(sys.flags, "thread_inherit_context", False) else "unset")
        go(starts).result()
        """,
        procs,
    )


def test_what_waits_when_thread_local_data_ends_may_wait() -> None:
    check("""
        local, ended = threading.local(), []
        class Slow:
            def __del__(self):
                time.sleep(0.01)
                ended.append(goslings.current() is not None)
        def body():
            local.slow = Slow()
        go(body).result()
        deadline = time.monotonic() + 30
        while not ended and time.monotonic() < deadline: time.sleep(0.001)
        assert ended == [True], ended
    """)


@PROCS
def test_exceptions_of_threads_go_to_their_hooks(procs: str) -> None:
    out = check(
        """
        import _thread
        def fails(): raise ValueError("of a thread")
        def program():
            threading.excepthook = lambda args: print(args.exc_type.__name__, args.exc_value, args.thread.name)
            thread = threading.Thread(target=fails, name="failing")
            thread.start(); thread.join()
            sys.unraisablehook = lambda args: print(args.err_msg.split(" at ")[0], args.exc_value)
            done = threading.Lock(); done.acquire()
            def last():
                try: fails()
                finally: done.release()
            _thread.start_new_thread(last, ())
            done.acquire()
            _thread.start_new_thread(sys.exit, ())
            while _thread._count(): time.sleep(0.001)
        go(program).result(60)
        """,
        procs,
    )
    assert out.splitlines() == [
        "ValueError of a thread failing",
        "Exception ignored in thread started by <function program.<locals>.last of a thread",
    ]


@PROCS
def test_timers_and_futures(procs: str) -> None:
    check(
        """
        import concurrent.futures as futures
        def program():
            rung = threading.Event()
            timer = threading.Timer(0.01, rung.set)
            timer.start()
            assert rung.wait(60)
            timer.join()
            never = threading.Timer(3600, rung.clear); never.start(); never.cancel(); never.join(60)
            assert not never.is_alive() and rung.is_set()
            with futures.ThreadPoolExecutor(50) as executor:
                started = time.monotonic()
                assert list(executor.map(lambda n: time.sleep(0.1) or n, range(200))) == list(range(200))
                assert time.monotonic() - started < 15, "one after the other"
                jobs = [executor.submit(divmod, n, 3 - n) for n in range(6)]
                done, pending = futures.wait(jobs, 60)
                assert len(done) == 6 and not pending
                assert [job.exception() is None for job in jobs] == [True, True, True, False, True, True]
                assert {job.result() for job in futures.as_completed(jobs) if not job.exception()}
                slow = executor.submit(time.sleep, 0.2)
                try: slow.result(0.01)
                except TimeoutError: pass
                else: raise AssertionError("no timeout")
        go(program).result(60)
        program()
        """,
        procs,
    )


@PROCS
def test_logging_from_200_goroutines_and_threads(procs: str) -> None:
    out = check_child(
        """
        import logging, io, threading
        early = logging.StreamHandler(io.StringIO())
        root = logging.getLogger()
        root.addHandler(early)
        import goslings
        report = goslings.patch()
        assert not any("logging" in what or "Handler" in what for what in report.too_early), report
        class Parks(logging.Handler):
            lines = []
            def emit(self, record):
                import time
                time.sleep(0.0001)  # while it has the handler's lock
                self.lines.append((record.threadName, record.getMessage()))
        root.addHandler(Parks())
        root.setLevel(logging.INFO)
        def work(n):
            for i in range(3):
                logging.info("%d-%d", n, i)
        workers = [goslings.go(work, n) for n in range(200)]
        thread = threading.Thread(target=work, args=(200,))
        thread.start()
        for worker in workers: worker.result(60)
        thread.join()
        assert sorted(text for _, text in Parks.lines) == sorted(f"{n}-{i}" for n in range(201) for i in range(3))
        assert len(early.stream.getvalue().splitlines()) == 603
        print(sorted({name for name, _ in Parks.lines})[1])
        """,
        env={"GOSLINGS_PROCS": procs},
    )
    assert out.startswith("goroutine-")


def test_locks_made_before_are_exchanged_or_listed() -> None:
    out = check_child("""
        import sys, threading, types, queue
        module = types.ModuleType("early"); sys.modules["early"] = module
        exec('''
        import threading
        lock, held, shared = threading.Lock(), threading.Lock(), threading.RLock()
        held.acquire()
        also = shared
        class Box:
            lock = threading.Lock()
        class Item:
            def __init__(self): self.lock = threading.Lock()
        box = Item()
        items = [Item(), Item()]
        ''', vars(module))
        shared = module.shared
        import goslings
        report = goslings.patch()
        for lock in (module.lock, module.Box.lock, module.box.lock): assert isinstance(lock, threading.Lock)
        assert module.shared is module.also is shared
        print(report)
    """)
    assert "early.held, a lock of threads alone: somebody has it" in out, out
    assert "early.shared, a lock of threads alone: others refer to it, too" in out, out
    assert "2 locks of threads alone in early.Item objects" in out, out


def test_a_lock_made_before_still_works_where_nobody_parks_with_it() -> None:
    check_child("""
        import threading
        lock, keep = threading.Lock(), []
        keep.append(lock)
        import goslings
        goslings.patch()
        total = 0
        def work():
            global total
            for _ in range(200):
                with lock: total += 1
        for goroutine in [goslings.go(work) for _ in range(20)]: goroutine.result(60)
        assert total == 4000
    """)


def test_the_program_waits_for_threads_that_are_no_daemons() -> None:
    out = check("""
        def late(text):
            time.sleep(0.1)
            print(text, flush=True)
        def starts():
            threading.Thread(target=late, args=("no daemon",)).start()
            threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
        go(starts).result()
        print("main ends", flush=True)
    """)
    assert out.splitlines() == ["main ends", "no daemon"]


def test_exit_with_many_parked_daemon_threads() -> None:
    check("""
        def starts():
            lock = threading.Lock(); lock.acquire()
            for _ in range(500): threading.Thread(target=lock.acquire, daemon=True).start()
        go(starts).result(60)
    """)


def test_main_waits_on_an_event_until_ctrl_c() -> None:
    """An idiom that is no deadlock of ours, although nobody could ever set it."""
    with start_child(
        START
        + _dedent("""
        try:
            print("ready", flush=True)
            threading.Event().wait()
        except KeyboardInterrupt:
            print("interrupted")
    """)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        import time

        time.sleep(1.0)  # far longer than the search for a deadlock takes
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "interrupted\n", "")


@PROCS
def test_a_forked_child_has_one_thread_and_can_use_all(procs: str) -> None:
    done = run_child(
        START
        + _dedent("""
        import os, warnings, concurrent.futures as futures
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads
        lock = threading.Lock()
        def in_child():
            assert threading.current_thread() is threading.main_thread()
            assert threading.active_count() == 1, threading.enumerate()
            with lock: pass
            thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
            assert go(time.sleep, 0.001).join(60)
            with futures.ThreadPoolExecutor(2) as executor: assert list(executor.map(abs, [-1, 2])) == [1, 2]
            print("child", flush=True)
        def forks():
            threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
            pid = os.fork()
            if pid == 0:
                try:
                    in_child()
                    os._exit(0)
                except BaseException:
                    import traceback; traceback.print_exc()
                    os._exit(1)
            assert os.waitpid(pid, 0)[1] == 0
        go(forks).result(60)
        thread = threading.Thread(target=forks); thread.start(); thread.join()
        forks()
        """),
        env={"GOSLINGS_PROCS": procs},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.splitlines() == ["thread", "child"] * 3
