"""What is seen from outside: stacks, dump, and SIGQUIT under `goslings run`."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import goslings
import pytest
from goslings import (
    Barrier,
    Cond,
    Event,
    Goroutine,
    GoroutineStack,
    Mutex,
    RWMutex,
    Semaphore,
    WaitGroup,
    chan,
    dump,
    go,
    recv,
    select,
    send,
    stacks,
)
from helpers import SECONDS, check_child, parked, start_child, until


def seen(goroutine: Goroutine[Any]) -> GoroutineStack:
    return next(one for one in stacks() if one.id == goroutine.id)


def waits(goroutine: Goroutine[Any]) -> GoroutineStack:
    """As `seen`, once it waits."""
    found: list[GoroutineStack] = []

    def look() -> bool:
        found[:] = [seen(goroutine)]
        return found[0].waiting is not None

    until(look)
    return found[0]


def end(*goroutines: Goroutine[Any]) -> None:
    """Cancels them, and waits until they are gone."""
    for goroutine in goroutines:
        goroutine.cancel()
        assert goroutine.join(SECONDS)


def test_g23_a_parked_goroutine_shows_what_it_waits_for_and_where() -> None:
    ch: chan[int] = chan()

    def inner() -> None:
        ch.recv()

    def outer() -> None:
        inner()

    g = go(outer)
    g.name = "waiting one"
    one = waits(g)
    assert (one.id, one.name, one.state) == (g.id, "waiting one", "chan receive")
    assert one.waiting_for == f"chan {repr(ch).split()[1].rstrip(':')} (0 of 0 buffered)"
    assert [frame.name for frame in one.frames] == ["outer", "inner"]
    assert [frame.line for frame in one.frames] == ["inner()", "ch.recv()"]
    assert one.created_by is not None
    assert one.created_by.startswith(f"{__file__}:")
    assert one.created_by.endswith("in test_g23_a_parked_goroutine_shows_what_it_waits_for_and_where")
    assert one.creator is None
    ch.send(1)
    g.result(SECONDS)
    assert all(other.id != g.id for other in stacks())


def _waits() -> dict[str, tuple[Callable[[], object], str]]:
    """For each state: what gets a goroutine into it, and what it is said to wait for."""
    mutex, held, cond = Mutex(), RWMutex(), Mutex()
    mutex.lock()
    held.lock()
    full: chan[int] = chan(1)
    full.send(0)
    group, condition, permits = WaitGroup(), Cond(cond), Semaphore(1)
    group.add(2)
    permits.acquire()

    def wait_notified() -> None:
        with cond:
            condition.wait()

    return {
        "chan send": (lambda: full.send(1), "chan 0x"),
        "select": (lambda: select(recv(chan()), send(full, 1)), "chan 0x"),
        "select (no cases)": (select, ""),
        "sleep": (lambda: goslings.sleep(1000), ""),
        "sync.Mutex.Lock": (mutex.lock, "Mutex held by a thread"),
        "sync.RWMutex.RLock": (held.rlock, "RWMutex held by a thread"),
        "sync.RWMutex.Lock": (held.lock, "RWMutex held by a thread"),
        "sync.WaitGroup.Wait": (group.wait, "WaitGroup with 2 to be done"),
        "sync.Cond.Wait": (wait_notified, "Cond"),
        "semacquire": (permits.acquire, "Semaphore"),
        "event wait": (Event().wait, "Event"),
        "barrier wait": (Barrier(2).wait, "Barrier"),
    }


@pytest.mark.parametrize("state", list(_waits()))
def test_g23_each_wait_has_its_reason(state: str) -> None:
    function, what = _waits()[state]
    g = go(function)
    one = waits(g)
    assert one.state == state
    assert one.waiting_for.startswith(what)
    assert bool(one.waiting_for) == bool(what)
    end(g)


def test_who_holds_what_is_waited_for() -> None:
    mutex, rw, forever = Mutex(), RWMutex(), chan[None]()

    def hold() -> None:
        with mutex, rw.write():
            forever.recv()

    holder = go(hold)
    parked(holder)
    waiters = [go(mutex.lock), go(rw.rlock), go(rw.lock), go(holder.result)]
    found = [waits(g) for g in waiters]
    assert [one.holders for one in found] == [(holder.id,)] * 4
    assert [one.waiting_for for one in found] == [
        f"Mutex held by goroutine {holder.id}",
        f"RWMutex held by goroutine {holder.id}",
        f"RWMutex held by goroutine {holder.id}",
        f"goroutine {holder.id}",
    ]
    assert found[3].state == "goroutine result"
    end(*waiters, holder)


def test_readers_of_a_lock_are_counted() -> None:
    rw = RWMutex()
    rw.rlock()
    rw.rlock()
    g = go(rw.lock)
    assert (waits(g).waiting_for, waits(g).holders) == ("RWMutex held by 2 readers", ())
    end(g)


def test_a_running_goroutine_shows_where_it_is(two_workers: None) -> None:
    stop, going = [], []

    def spin() -> None:
        going.append(1)
        while not stop:
            pass

    g = go(spin)
    until(lambda: going)
    one = seen(g)
    stop.append(1)
    assert one.state in ("running", "runnable")  # with a GIL it may be between two turns
    assert one.waiting is None
    assert [frame.name for frame in one.frames] == ["spin"]
    g.result(SECONDS)


def test_a_goroutine_sees_itself_and_its_creator() -> None:
    def child() -> GoroutineStack:
        me = goslings.current()
        assert me is not None
        return seen(me)

    def parent() -> tuple[int, GoroutineStack]:
        me = goslings.current()
        assert me is not None
        return me.id, go(child).result()

    number, one = go(parent).result(SECONDS)
    assert one.state == "running"
    assert one.creator == number
    assert [frame.name for frame in one.frames] == ["child", "seen"]


def test_what_has_not_started_is_said_not_to_have(one_worker: None) -> None:
    def first() -> list[str]:
        g = go(int)
        found = seen(g)
        g.result()
        return [found.state, str(len(found.frames)), str(found.waiting), str(found.worker)]

    assert go(first).result(SECONDS) == ["not started", "0", "None", "None"]


def test_the_worker_is_told_and_whether_the_thread_is_locked() -> None:
    gate = chan[None]()

    def wait(locks: int) -> None:
        for _ in range(locks):
            goslings.lock_os_thread()
        gate.recv_ok()

    async def stackless() -> None:
        await gate.arecv_ok()

    plain, locked, twice, other = go(wait, 0), go(wait, 1), go(wait, 2), go(stackless)
    parked(plain, locked, twice, other)
    for one in map(seen, (plain, locked, twice, other)):
        assert one.worker in range(goslings.stats().workers)
        assert one.locked_to_thread == (one.id in {locked.id, twice.id})
        state = "chan receive, locked to thread" if one.locked_to_thread else "chan receive"
        assert str(one).startswith(f"goroutine {one.id} [{state}]:\n  waits for chan ")
        assert f"\n  on worker {one.worker}\n" in str(one)
    main = stacks()[0]
    assert (main.worker, main.locked_to_thread) == (None, False)
    gate.close()
    for g in (plain, locked, twice, other):
        g.result(SECONDS)


def test_a_lock_that_was_undone_is_not_told() -> None:
    gate = chan[None]()

    def wait() -> None:
        goslings.lock_os_thread()
        goslings.lock_os_thread()
        gate.recv_ok()
        goslings.unlock_os_thread()
        gate.recv_ok()
        goslings.unlock_os_thread()
        gate.recv_ok()

    g = go(wait)
    told = []
    for _ in range(3):
        told.append(waits(g).locked_to_thread)
        gate.send(None)
    assert told == [True, True, False]
    g.result(SECONDS)


def test_frames_below_c_code_and_in_generators_are_seen() -> None:
    ch: chan[int] = chan()

    def numbers() -> Any:
        yield ch.recv()

    def sort() -> None:
        sorted([2, 1], key=lambda number: next(numbers()))

    g = go(sort)
    one = waits(g)
    assert [frame.name for frame in one.frames] == ["sort", "<lambda>", "numbers"]
    end(g)


def test_many_frames_are_all_seen() -> None:
    ch: chan[int] = chan()

    def deep(left: int) -> None:
        if left:
            deep(left - 1)
        else:
            ch.recv()

    g = go(deep, 300)
    assert [frame.name for frame in waits(g).frames] == ["deep"] * 301
    end(g)


def test_threads_that_wait_are_seen_too() -> None:
    ch: chan[int] = chan()

    def wait_here() -> None:
        ch.recv()

    thread = threading.Thread(target=wait_here, name="a plain thread")
    thread.start()

    def found() -> GoroutineStack | None:
        return next((one for one in stacks() if one.name == "a plain thread"), None)

    until(found)
    one = found()
    assert one is not None
    assert (one.id, one.state, one.created_by) == (None, "chan receive", None)
    assert one.frames[-1].name == "wait_here"
    ch.send(1)
    thread.join()
    assert found() is None


def test_the_main_thread_is_always_there() -> None:
    here = stacks()[0]
    assert (here.id, here.state, here.waiting) == (None, "running", None)
    assert here.frames[-1].name == "test_the_main_thread_is_always_there"
    # From elsewhere, while it waits:
    ready: chan[GoroutineStack] = chan()

    def look() -> None:
        until(lambda: stacks()[0].state == "chan receive")
        ready.send(stacks()[0])

    go(look)
    assert ready.recv(SECONDS).waiting_for.startswith("chan 0x")


def test_the_time_of_waiting_is_told() -> None:
    g = go(chan[int]().recv)
    parked(g)
    begin = time.monotonic()
    until(lambda: time.monotonic() - begin > 0.2)
    waiting = seen(g).waiting
    assert waiting is not None
    assert 0.1 < waiting < 60
    end(g)


def test_g23_a_dump_has_a_paragraph_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    ch: chan[int] = chan()

    def wait_here() -> None:
        ch.recv()

    def start() -> Goroutine[None]:
        g = go(wait_here)
        g.name = "the patient"
        return g

    starter = go(start)
    g = starter.result(SECONDS)
    parked(g)
    dump()
    text = capsys.readouterr().err
    paragraph = next(part for part in text.split("\n\n") if part.startswith(f"goroutine {g.id} "))
    head, wait, worker, place, line, *_, created = paragraph.splitlines()
    assert head == f"goroutine {g.id} 'the patient' [chan receive]:"
    assert wait.startswith("  waits for chan 0x")
    assert worker.startswith("  on worker ")
    assert place.endswith("in wait_here")
    assert line.strip() == "ch.recv()"
    assert created.startswith(f"created at {__file__}:")
    assert created.endswith(f".start in goroutine {starter.id}")
    assert str(seen(g)) + "\n" in text + "\n"
    end(g)


def test_o01_equal_stacks_are_grouped_with_their_number() -> None:
    ch: chan[int] = chan()

    def same() -> None:
        ch.recv()

    def other() -> None:
        ch.recv()

    equal = [go(same) for _ in range(5)]
    single = go(other)
    parked(*equal, single)
    text = io.StringIO()
    dump(text, group=True)
    assert "5 goroutines [chan receive]:" in text.getvalue()
    assert f"goroutine {single.id} [chan receive]:" in text.getvalue()
    text = io.StringIO()
    dump(text)
    assert text.getvalue().count("in same\n") == 5
    end(*equal, single)


def test_minutes_are_told_after_the_first() -> None:
    one = stacks()[0]
    old = GoroutineStack(7, "goroutine-7", "chan send", 185.0, "", (), None, None, 0, False, one.frames)
    assert str(old).startswith("goroutine 7 [chan send, 3 minutes]:\n")


def test_dumps_while_everybody_works(two_workers: None) -> None:
    stop: list[int] = []
    ping, pong = chan[int](), chan[int]()

    def left() -> None:
        while not stop:
            ping.send(1)
            pong.recv()
        ping.close()

    def right() -> None:
        for _ in ping:
            pong.send(1)

    def spawn() -> None:
        while not stop:
            goslings.Goroutine.join(go(int))

    goroutines = [go(left), go(right), go(spawn), go(spawn)]
    for _ in range(50):
        found = {one.id for one in stacks()}
        assert {g.id for g in goroutines} <= found
    stop.append(1)
    for g in goroutines:
        assert g.join(SECONDS)
        g.result()


def test_dumps_at_the_same_time() -> None:
    waiting = [go(chan[int]().recv) for _ in range(20)]
    parked(*waiting)
    lookers = [go(stacks) for _ in range(4)]
    threads = [threading.Thread(target=stacks) for _ in range(2)]
    for thread in threads:
        thread.start()
    for looker in lookers:
        assert {g.id for g in waiting} <= {one.id for one in looker.result(SECONDS)}
    for thread in threads:
        thread.join()
    end(*waiting)


def test_a_forked_child_sees_only_its_own() -> None:
    out = check_child("""
        import os, sys, goslings
        from goslings import chan, go, stacks
        lost = [go(chan().recv) for _ in range(3)]
        while [one.state for one in stacks()[1:]] != ["chan receive"] * 3:
            goslings.sleep(0.001)
        child = os.fork()
        if child == 0:
            assert len(stacks()) == 1, stacks()
            own = go(chan().recv)
            while [one.state for one in stacks()[1:]] != ["chan receive"]:
                goslings.sleep(0.001)
            assert [one.id for one in stacks()[1:]] == [own.id]
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert len(stacks()) == 4
        print("seen")
    """)
    assert out == "seen\n"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "stuck.py"
    path.write_text(
        "import goslings\n"
        "def stuck():\n"
        "    goslings.chan().recv()\n"
        "g = goslings.go(stuck)\n"
        "def look():\n"
        "    while [one.state for one in goslings.stacks()[:2]] != ['sleep', 'chan receive']:\n"
        "        goslings.sleep(0.001)\n"
        "    print('ready', flush=True)\n"
        "goslings.go(look)\n"
        "goslings.sleep(100)\n"
    )
    return path


def test_g22_sigquit_prints_all_stacks_and_ends_the_program(script: Path) -> None:
    command = [sys.executable, "-m", "goslings", "run", str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGQUIT)
        _, err = process.communicate(timeout=50)
    assert process.returncode == 2
    assert err.startswith("SIGQUIT: quit\n\nthread MainThread [sleep]:\n")
    assert "goroutine 1 [chan receive]:\n" in err
    assert f'File "{script}", line 3, in stuck' in err
    assert f"created at {script}:4 in <module>" in err


def test_g03_an_unread_exception_ends_the_program_if_asked_to() -> None:
    process = start_child(
        """
        import goslings
        def fail():
            raise ValueError("boom")
        goslings.go(fail)
        goslings.sleep(100)
        """,
        env={"GOSLINGS_PANIC": "exit"},
    )
    _, err = process.communicate(timeout=50)
    assert process.returncode == 2
    assert "ValueError: boom" in err
