"""Async goroutines seen from outside: stacks, deadlocks, the end of the program, fork."""

from __future__ import annotations

import time
from typing import Any

from goslings import Goroutine, agosched, chan, current, go, stacks
from helpers import SECONDS, check_child, count, parked, results, run_child


def seen(goroutine: Goroutine[Any]) -> Any:
    return next(one for one in stacks() if one.id == goroutine.id)


async def leaf(ch: chan[int]) -> int:
    return await ch.arecv()


async def branch(ch: chan[int]) -> int:
    return await leaf(ch)


def test_stacks_show_the_await_chain_of_a_parked_one() -> None:
    ch: chan[int] = chan()

    async def each() -> Any:
        yield await branch(ch)

    async def root() -> int:
        return [value async for value in each()][0]

    g = go(root)
    parked(g)
    one = seen(g)
    assert one.state == "chan receive" and one.waiting_for.startswith("chan 0x")
    assert [frame.name for frame in one.frames] == ["root", "each", "branch", "leaf"]
    assert "await ch.arecv()" in str(one)
    assert one.created_by is not None and __file__ in one.created_by
    ch.send(3)
    assert g.result(SECONDS) == 3


def test_stacks_show_one_that_runs(two_workers: None) -> None:
    looked: chan[list[str]] = chan(1)

    async def look() -> None:
        me = current()
        assert me is not None
        one = seen(me)
        looked.try_send([one.state, *[frame.name for frame in one.frames]])

    async def root() -> None:
        await agosched()
        await look()

    go(root).result(SECONDS)
    state, *names = looked.recv(SECONDS)
    assert state == "running"
    assert names[:2] == ["root", "look"]


def test_stacks_while_many_are_stepped(two_workers: None) -> None:
    stop = []

    async def work() -> None:
        while not stop:
            await branch(ready)
            await ready.asend(1)
            await agosched()

    ready: chan[int] = chan(8)
    for _ in range(4):
        ready.send(1)
    goroutines = [go(work) for _ in range(8)]
    numbers = {goroutine.id for goroutine in goroutines}
    try:
        for _ in range(count(100)):
            for one in stacks():
                assert one.id not in numbers or not one.frames or one.frames[0].name == "work"
    finally:
        stop.append(True)
    results(goroutines)


DEADLOCKS = """
    from goslings import *
    ch = chan()
    lock = Mutex()

    async def leaf():
        await ch.arecv()

    async def work():
        async with lock:
            await leaf()

    async def second():
        async with lock:
            pass
"""


def test_a_deadlock_with_async_goroutines_is_told_with_their_await_chains() -> None:
    done = run_child(
        DEADLOCKS
        + """
    import time
    a = go(work)
    while not lock.locked():
        time.sleep(0.001)
    b = go(second)
    try:
        a.result()
    except Deadlock as error:
        print(error)
    """
    )
    assert done.returncode == 0, done.stderr
    for part in ("goroutine 1 [chan receive]", "in work", "in leaf", "[sync.Mutex.Lock]", "in second"):
        assert part in done.stdout, done.stdout


def test_no_deadlock_while_an_event_loop_may_still_send() -> None:
    out = check_child("""
        import asyncio, threading
        from goslings import *
        ch = chan()

        async def later():
            await asyncio.sleep(0.3)
            await ch.asend(1)

        async def forward():
            return await ch.arecv()

        threading.Thread(target=asyncio.run, args=(later(),)).start()
        print(go(forward).result())
    """)
    assert out == "1\n"


def test_the_program_ends_at_once_with_ten_thousand_parked() -> None:
    start = time.monotonic()
    out = check_child("""
        from goslings import *
        never = chan()

        async def inner():
            await never.arecv()

        async def work():
            started.done()
            try:
                await inner()
            finally:
                print("not run at exit")

        started = WaitGroup()
        started.add(10_000)
        kept = [go(work) for _ in range(5_000)]
        for _ in range(5_000):
            go(work)
        started.wait()
        print(num_goroutine())
    """)
    assert out == "10000\n"
    assert time.monotonic() - start < SECONDS


def test_a_forked_child_has_none_and_can_start_its_own() -> None:
    out = check_child("""
        import os
        from goslings import *
        ch = chan()

        async def work():
            return await ch.arecv()

        async def twice(n):
            await asleep(0.001)
            return 2 * n

        goroutines = [go(work) for _ in range(100)]
        while any("chan receive" not in repr(g) for g in goroutines):
            sleep(0.001)
        child = os.fork()
        if child == 0:
            assert num_goroutine() == 0
            assert not ch.try_send(1)  # who waits there lives in the parent
            assert go(twice, 4).result(20) == 8
            os._exit(7)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for n in range(100):
            ch.send(n)
        print(status, sum(g.result(20) for g in goroutines))
    """)
    assert out == "7 4950\n"
