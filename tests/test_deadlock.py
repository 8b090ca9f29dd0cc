"""Deadlock: told when nobody can ever go on, whatever they wait for, and never otherwise."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import check_child, count, run_child

FIRST_LINE = "goslings.Deadlock: all goroutines are asleep - deadlock!"

WAITS = {
    "C14 receive from nil": ("select(recv(None))", "chan receive (nil chan)", ""),
    "C14 send to nil": ("select(send(None, 1))", "chan send (nil chan)", ""),
    "G05 receive": ("chan().recv()", "chan receive", "chan 0x"),
    "G05 recv_ok": ("chan().recv_ok()", "chan receive", "chan 0x"),
    "G05 iteration": ("list(chan())", "chan receive", "chan 0x"),
    "G05 send": ("chan().send(1)", "chan send", "chan 0x"),
    "G05 send to a full channel": ("full.send(1)", "chan send", "chan 0x"),
    "G05 select": ("select(recv(chan()), send(full, 1))", "select", "chan 0x"),
    "S05 empty select": ("select()", "select (no cases)", ""),
    "S05 nil cases only": ("select(recv(None), send(None, 1))", "select (no cases)", ""),
    "S09 select with itself": ("select(recv(own), send(own, 1))", "select", "chan 0x"),
    "G05 Mutex": ("mutex.lock()", "sync.Mutex.Lock", "Mutex held by a thread"),
    "Y01 Mutex locked twice": ("twice()", "sync.Mutex.Lock", "Mutex held by"),
    "G05 RWMutex read": ("rw.rlock()", "sync.RWMutex.RLock", "RWMutex held by a thread"),
    "G05 RWMutex write": ("rw.lock()", "sync.RWMutex.Lock", "RWMutex held by a thread"),
    "G05 WaitGroup": ("group.wait()", "sync.WaitGroup.Wait", "WaitGroup with 1 to be done"),
    "G05 Cond": ("notified()", "sync.Cond.Wait", "Cond"),
    "G05 Once in itself": ("again()", "sync.Mutex.Lock", "Mutex held by"),
    "G05 Semaphore": ("permits.acquire()", "semacquire", "Semaphore"),
    "G05 Event": ("Event().wait()", "event wait", "Event"),
    "G05 Barrier": ("Barrier(2).wait()", "barrier wait", "Barrier"),
    "G05 result of a goroutine": ("stuck.result()", "goroutine result", "goroutine "),
    "G05 join": ("stuck.join()", "goroutine result", "goroutine "),
    "G05 finished": ("stuck.finished.recv_ok()", "goroutine result", "goroutine "),
    "G05 SingleFlight": ("flight()", "", ""),
    "G06 a timer that was stopped": ("stopped().recv()", "chan receive", "chan 0x"),
}
"""Name: what waits, its reason, and how what it waits for begins."""

PROGRAM = """
import json, sys
from goslings import *
full = chan(1)
full.send(0)
own = chan()
mutex, rw, group, permits = Mutex(), RWMutex(), WaitGroup(), Semaphore(1)
mutex.lock()
rw.lock()
group.add(1)
permits.acquire()
stuck = go(chan().recv)

def twice():
    own = Mutex()
    with own, own:
        pass

def notified():
    cond = Cond(Mutex())
    with cond:
        cond.wait()

def again():
    once = Once()
    once.do(lambda: once.do(print))

def flight():
    flight = SingleFlight()
    flight.do("key", lambda: flight.do("key", print))

def stopped():
    timer = Timer(1000)
    timer.stop()
    return timer.c

waits = json.loads(sys.argv[1])
told = {}
for name, code in waits.items():
    try:
        eval(code)
    except Deadlock as error:
        told[name] = [str(error)]
    waiter = go(eval, code, globals())
    try:
        waiter.join()
    except Deadlock as error:
        told[name] += [str(error), waiter.id]
    waiter.cancel()
    waiter.join()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[str, str, int]]:
    """For each wait what is told when the main thread waits so, and when a goroutine does."""
    program = ["-W", "error", "-X", "faulthandler", "-c", PROGRAM, json.dumps({n: w[0] for n, w in WAITS.items()})]
    done = subprocess.run([sys.executable, *program], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, tuple[str, str, int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", WAITS)
def test_c14_g05_s05_s09_y01_each_wait_of_the_main_thread_ends_so(
    name: str, told: dict[str, tuple[str, str, int]]
) -> None:
    _, reason, what = WAITS[name]
    text, *_ = told[name]
    first, blank, head, *rest = text.splitlines()
    assert (first, blank) == ("all goroutines are asleep - deadlock!", "")
    if reason:
        assert head == f"thread MainThread [{reason}]:"
    if what:
        assert rest[0].startswith(f"  waits for {what}")


@pytest.mark.parametrize("name", WAITS)
def test_c14_g05_s05_s09_y01_each_wait_of_a_goroutine_is_told(name: str, told: dict[str, tuple[str, str, int]]) -> None:
    _, reason, what = WAITS[name]
    _, text, number = told[name]
    paragraphs = text.split("\n\n")
    assert paragraphs[1].startswith(f"thread MainThread [goroutine result]:\n  waits for goroutine {number}\n")
    [own] = [lines for lines in paragraphs if lines.startswith(f"goroutine {number} [{reason}")]
    if what:
        assert own.splitlines()[1].startswith(f"  waits for {what}")


def test_g05_uncaught_it_ends_the_program() -> None:
    done = run_child("""
        import goslings
        def wait_here():
            goslings.chan().recv()
        goslings.go(wait_here).result()
    """)
    assert done.returncode == 1
    assert FIRST_LINE in done.stderr.splitlines()
    assert "thread MainThread [goroutine result]:\n  waits for goroutine 1\n" in done.stderr
    assert "goroutine 1 [chan receive]:\n" in done.stderr
    assert "in wait_here\n" in done.stderr


def test_g05_under_goslings_run_the_status_is_that_of_go(tmp_path: Path) -> None:
    script = tmp_path / "stuck.py"
    script.write_text("import goslings\ngoslings.chan().recv()\n")
    command = [sys.executable, "-m", "goslings", "run", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 2
    assert FIRST_LINE in done.stderr.splitlines()


def test_who_waits_for_whom_is_told() -> None:
    out = check_child("""
        from goslings import Deadlock, Mutex, WaitGroup, chan, go
        a, b = Mutex(), Mutex()
        meet = WaitGroup()
        meet.add(2)
        def cross(mine, other):
            with mine:
                meet.done()
                meet.wait()
                with other:
                    pass
        goroutines = [go(cross, a, b), go(cross, b, a)]
        try:
            goroutines[0].result()
        except Deadlock as error:
            print(str(error).splitlines()[1])
    """)
    assert out == "goroutine 1 waits for goroutine 2, which waits for goroutine 1\n"


def test_it_is_told_again_and_what_was_waited_for_is_as_it_was() -> None:
    out = check_child("""
        from goslings import Deadlock, Mutex, chan, go
        ch, mutex = chan(), Mutex()
        for _ in range(3):
            try:
                ch.recv()
            except Deadlock:
                print("told")
        # Nothing of these waits is left in the channel:
        g = go(ch.send, 7)
        print(ch.recv())
        stuck = go(ch.recv)
        try:
            stuck.result()
        except Deadlock:
            ch.send(8)  # it has waited on
        print(stuck.result())
    """)
    assert out.split() == ["told"] * 3 + ["7", "8"]


def test_a_failed_send_was_not_delivered() -> None:
    out = check_child("""
        from goslings import Deadlock, Selected, chan, recv, select, send
        ch = chan()
        for attempt in (lambda: ch.send(1), lambda: select(send(ch, 2), recv(chan()))):
            try:
                attempt()
            except Deadlock:
                print(ch.try_recv(None), select(recv(ch), timeout=0))
    """)
    assert out == "None None\n" * 2


def test_a_wait_for_a_notify_ends_with_the_mutex_locked_again() -> None:
    out = check_child("""
        from goslings import Cond, Deadlock, Mutex
        mutex = Mutex()
        cond = Cond(mutex)
        with cond:
            try:
                cond.wait()
            except Deadlock:
                print(mutex.locked())
        print(mutex.locked())
    """)
    assert out.split() == ["True", "False"]


def test_a_mutex_that_never_comes_back_ends_a_wait_for_a_notify_too() -> None:
    done = run_child("""
        from goslings import Cond, Mutex, chan, go
        mutex = Mutex()
        cond = Cond(mutex)
        def keep():
            mutex.lock()
            cond.notify()
            chan().recv()
        mutex.lock()
        go(keep)
        cond.wait()
    """)
    assert done.returncode == 1
    assert FIRST_LINE in done.stderr.splitlines()
    assert "thread MainThread [sync.Mutex.Lock]:\n  waits for Mutex held by goroutine 1\n" in done.stderr


def test_plain_threads_that_wait_for_ever_take_part() -> None:
    out = check_child("""
        import threading
        from goslings import Deadlock, chan, stacks
        ch = chan()
        threads = [threading.Thread(target=ch.recv, daemon=True, name=f"reader {n}") for n in range(3)]
        for thread in threads:
            thread.start()
        try:
            ch.recv()
        except Deadlock as error:
            print([line for line in str(error).splitlines() if line.startswith("thread")])
        for thread in threads:
            ch.send(1)
            thread.join()
    """)
    assert (
        out
        == str([f"thread {name} [chan receive]:" for name in ("MainThread", "reader 0", "reader 1", "reader 2")]) + "\n"
    )


def test_many_goroutines_are_grouped() -> None:
    out = check_child("""
        from goslings import Deadlock, chan, go
        ch = chan()
        goroutines = [go(ch.recv) for _ in range(1000)]
        try:
            goroutines[0].result()
        except Deadlock as error:
            print(len(str(error).splitlines()) < 20, "1000 goroutines [chan receive]:" in str(error))
    """)
    assert out == "True True\n"


def test_threads_of_the_pool_that_have_nothing_to_do_do_not_delay_it() -> None:
    out = check_child("""
        import time
        from goslings import Deadlock, blocking, chan, go
        go(blocking, int).result()
        begin = time.monotonic()
        try:
            chan().recv()
        except Deadlock as error:
            print(time.monotonic() - begin < 5, "goslings-blocking" in str(error))
        print(go(blocking, lambda: 1).result())  # and they go on
    """)
    assert out == "True False\n1\n"


def test_g06_a_timer_that_nobody_waits_for_does_not_delay_it() -> None:
    out = check_child("""
        import time
        from goslings import Deadlock, Ticker, Timer, chan
        begin = time.monotonic()
        timer, ticker, fast = Timer(3600), Ticker(3600), Ticker(0.05)
        try:
            chan().recv()
        except Deadlock:
            print(time.monotonic() - begin < 20)
    """)
    assert out == "True\n"


QUIET = {
    "G06 a goroutine that sleeps": "go(lambda: (sleep(SOON), ch.send(1)))",
    "G06 a goroutine that waits with a limit": "go(lambda: (select(timeout=SOON), ch.send(1)))",
    "G06 a function that a timer will run": "after_func(SOON, lambda: ch.send(1))",
    "G06 a timer that somebody waits for": "go(lambda: (after(SOON).recv(), ch.send(1)))",
    "G06 a timer that a select waits for": "go(lambda: (select(recv(Ticker(SOON).c), recv(chan())), ch.send(1)))",
    "G06 a signal that goes to a handler": (
        "signal.signal(signal.SIGALRM, lambda *_: ch.try_send(1)); signal.setitimer(signal.ITIMER_REAL, SOON)"
    ),
    "G06 a goroutine in a foreign call": "go(lambda: (time.sleep(SOON), ch.send(1)))",
    "G07 a thread in a foreign call": "threading.Thread(target=lambda: (time.sleep(SOON), ch.send(1))).start()",
    "G07 a thread that waits with a limit": (
        "threading.Thread(target=lambda: (Event().wait(SOON), ch.send(1))).start()"
    ),
    "G07 a thread that sleeps": "threading.Thread(target=lambda: (sleep(SOON), ch.send(1))).start()",
    "G07 an event loop": ("threading.Thread(target=lambda: asyncio.run(later())).start()"),
    "G07 a timer thread": "threading.Timer(SOON, ch.send, [1]).start()",
    "a call of blocking": "go(lambda: (blocking(time.sleep, SOON), ch.send(1)))",
    "a goroutine that computes": "go(lambda: (spin(), ch.send(1)))",
    "others that go on for ever": "go(busy); go(lambda: (sleep(SOON), ch.send(1)))",
}


@pytest.mark.parametrize("name", QUIET)
def test_g06_g07_it_is_not_told_while_something_may_happen(name: str) -> None:
    out = check_child(f"""
        import asyncio, signal, threading, time
        from goslings import *
        SOON = 0.3
        ch = chan(1)
        stuck = [go(chan().recv) for _ in range(10)]

        def spin():
            end = time.monotonic() + SOON
            while time.monotonic() < end:
                pass

        def busy():
            while True:
                gosched()

        async def later():
            await asyncio.sleep(SOON)
            await ch.asend(1)

        {QUIET[name]}
        print(ch.recv())
    """)
    assert out == "1\n"


def test_g08_a_deadlock_of_some_is_not_told() -> None:
    out = check_child("""
        import goslings
        stuck = [goslings.go(goslings.chan().recv) for _ in range(10)]
        goslings.sleep(0.3)
        print(goslings.num_goroutine())
    """)
    assert out == "10\n"


def test_a_wait_with_a_limit_ends_by_it() -> None:
    out = check_child("""
        from goslings import chan
        try:
            chan().recv(timeout=0.3)
        except TimeoutError:
            print("late")
    """)
    assert out == "late\n"


def test_it_can_be_switched_off() -> None:
    code = """
        import signal, goslings
        signal.alarm(1)  # ends the process: nothing handles it
        goslings.chan().recv()
    """
    done = run_child(code, env={"GOSLINGS_DEADLOCK": "off"})
    assert done.returncode == -signal.SIGALRM
    done = run_child(code)
    assert done.returncode == 1
    assert FIRST_LINE in done.stderr.splitlines()


def test_the_switch_takes_two_words() -> None:
    done = run_child("import goslings", env={"GOSLINGS_DEADLOCK": "maybe"})
    assert done.returncode == 1
    assert "ValueError: GOSLINGS_DEADLOCK must be on or off, not 'maybe'" in done.stderr


def test_a_forked_child_has_deadlocks_of_its_own() -> None:
    out = check_child("""
        import os, sys
        from goslings import Deadlock, chan, go, sleep
        ch = chan()
        go(lambda: (sleep(3600), ch.send(1)))
        child = os.fork()
        if child == 0:
            try:
                go(ch.recv).result()
            except Deadlock as error:
                print(str(error).splitlines()[2], flush=True)
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    """)
    assert out == "thread MainThread [goroutine result]:\n"


def test_interrupts_and_deadlocks_do_not_meet() -> None:
    out = check_child("""
        import os, signal
        from goslings import Deadlock, chan
        ch = chan()
        def handler(number, frame):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            try:
                ch.recv()  # a wait inside a wait
            except Deadlock:
                print("inner")
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            ch.recv()
        except Deadlock:
            print("outer")
    """)
    assert out.split() == ["inner", "outer"]


def test_wakes_on_their_way_are_no_deadlock() -> None:
    rounds = count(400)
    out = check_child(f"""
        import random, threading
        import goslings
        from goslings import chan, go, gomaxprocs
        gomaxprocs(3)
        ends = []
        def relay(source, drain):
            for value in source:
                drain.send(value)
        first = chan()
        last = first
        # A ring of goroutines and threads in turn: at any moment all but one sleep, and a wake is on its way.
        for number in range(6):
            source, last = last, chan()
            if number % 2:
                go(relay, source, last)
            else:
                threading.Thread(target=relay, args=(source, last), daemon=True).start()
        done = chan()
        def turn():
            for length in lengths:
                for _ in range(length):
                    first.send(1)
                    last.recv()
                done.send(length)
        rng = random.Random(7)
        lengths = [rng.randrange(1, 60) for _ in range({rounds})]
        go(turn)
        for length in lengths:
            assert done.recv() == length
        print("through")
    """)
    assert out == "through\n"
