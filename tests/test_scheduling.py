"""Who runs when, how many at once, and how many there can be: rows G12 to G20 of the table of semantics."""

from __future__ import annotations

import os
import threading
import time

import pytest
from goslings import aselect, blocking, chan, go, gomaxprocs, gosched, num_goroutine, recv, sleep, stats
from goslings.testing import explore
from helpers import FREE_THREADED, SECONDS, check_child, count, parked, results, until


def test_g12_gosched_lets_the_others_run(one_worker: None) -> None:
    log: list[str] = []

    def work(name: str) -> None:
        for _ in range(4):
            log.append(name)
            gosched()

    def both() -> None:
        a, b = go(work, "a"), go(work, "b")
        a.join(), b.join()

    go(both).result(SECONDS)
    assert "".join(log) in ("abababab", "babababa")


def test_g12_gosched_on_a_plain_thread_is_harmless() -> None:
    for _ in range(100):
        gosched()


def test_g17_nobody_starves_beside_a_pair_that_hands_over(one_worker: None) -> None:
    # Hand-offs jump the queue, but not for ever.
    ping, pong, stop = chan(), chan(), []

    def a() -> None:
        while not stop:
            ping.send(1)
            pong.recv()
        ping.close()

    def b() -> None:
        for value in ping:
            pong.send(value)

    pair = [go(a), go(b)]
    fresh = [go(lambda: [gosched() for _ in range(20)]) for _ in range(20)]
    results(fresh)
    stop.append(1)
    results(pair)


def test_g12_fresh_goroutines_start_beside_a_yielding_one(one_worker: None) -> None:
    stop: list[int] = []

    def spin() -> None:
        while not stop:
            gosched()

    g = go(spin)
    results([go(int) for _ in range(100)])
    stop.append(1)
    g.result(SECONDS)


def test_g14_a_blocking_call_does_not_hold_up_the_others(one_worker: None) -> None:
    # They come back only when all twenty are under way at once, and the main thread makes one more.
    barrier = threading.Barrier(21)
    calls = [go(blocking, barrier.wait, SECONDS) for _ in range(20)]
    assert go(lambda: "at once").result(SECONDS) == "at once"
    assert not any(g.done() for g in calls)
    barrier.wait(SECONDS)
    assert len(set(results(calls))) == 20


@pytest.mark.skipif(not FREE_THREADED, reason="one goroutine runs at a time where there is a GIL")
def test_g16_goroutines_run_at_the_same_time(two_workers: None) -> None:
    """Two that wait for each other without ever parking."""
    flags = [False, False]

    def work(mine: int) -> bool:
        flags[mine] = True
        deadline = time.monotonic() + SECONDS
        while not flags[1 - mine]:
            if time.monotonic() > deadline:
                return False
        return True

    assert results([go(work, 0), go(work, 1)]) == [True, True]


@pytest.mark.skipif(not FREE_THREADED, reason="one goroutine runs at a time where there is a GIL")
def test_g16_an_idle_worker_takes_what_a_busy_one_started(two_workers: None) -> None:
    def starter() -> bool:
        g = go(lambda: True)
        deadline = time.monotonic() + SECONDS
        while not g.done():
            if time.monotonic() > deadline:
                return False
        return g.result()

    assert go(starter).result(SECONDS + 5) is True


def test_g18_gomaxprocs_sets_and_returns_the_number_before() -> None:
    before = gomaxprocs()
    try:
        assert gomaxprocs(2) == before
        assert gomaxprocs(7) == 2
        assert gomaxprocs(0) == gomaxprocs(-1) == gomaxprocs(None) == gomaxprocs() == 7
        results([go(int) for _ in range(100)])
        assert gomaxprocs(1) == 7
        assert results([go(lambda: 1) for _ in range(100)]) == [1] * 100
    finally:
        gomaxprocs(before)


def test_g18_goroutines_start_after_the_number_of_workers_was_lowered() -> None:
    for _ in range(count(10)):
        before = gomaxprocs(2)
        channels = [chan() for _ in range(4)]
        goroutines = [go(lambda ch=ch: (time.sleep(0.002), list(ch))) for ch in channels]
        parked(*goroutines)
        gomaxprocs(1)
        for ch, g in zip(channels, goroutines, strict=True):
            ch.close()
            g.result(SECONDS)
            assert go(lambda: 1).result(SECONDS) == 1
        gomaxprocs(before)


def test_g18_the_default_follows_environment_and_affinity() -> None:
    code = "import goslings; print(goslings.gomaxprocs())"
    assert check_child(code, env={"GOSLINGS_PROCS": "3"}) == "3\n"
    cpus = len(os.sched_getaffinity(0)) if FREE_THREADED else 1
    assert 1 <= int(check_child(code, env={"GOSLINGS_PROCS": ""})) <= cpus
    one = f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})\n{code}"
    assert check_child(one, env={"GOSLINGS_PROCS": ""}) == "1\n"


def test_g19_num_goroutine_counts_all_that_exist() -> None:
    out = check_child(
        """
        from goslings import blocking, chan, go, num_goroutine, sleep
        print(num_goroutine())
        ch = chan()
        goroutines = [go(ch.recv_ok) for _ in range(50)]
        print(num_goroutine())
        ch.close()
        for g in goroutines:
            g.result()
        for _ in range(1000):
            if num_goroutine():
                sleep(0.001)
        print(num_goroutine())
        """
    )
    assert out == "0\n50\n0\n"


def test_g20_tens_of_thousands_of_parked_goroutines_are_ordinary() -> None:
    n = count(30_000)
    out = check_child(
        f"""
        import gc, re
        from goslings import blocking, chan, go, num_goroutine
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096
        ch, begun = chan(), chan(100)
        def work(i):
            begun.send(None)
            return ch.recv_ok()[1], i
        go(begun.send, None).result()
        begun.recv()
        before = resident()
        goroutines = []
        for start in range(0, {n}, 100):
            goroutines += [go(work, i) for i in range(start, min(start + 100, {n}))]
            for _ in range(min(100, {n} - start)):
                begun.recv()
        each = (resident() - before) / {n}
        gc.collect()
        print(num_goroutine() == {n})
        ch.close()
        print([g.result()[1] for g in goroutines] == list(range({n})))
        print("small" if each < 16_000 else each)
        """,
        seconds=100,
    )
    assert out == "True\nTrue\nsmall\n"


def test_g20_stacks_are_used_again() -> None:
    from goslings import _goslings

    results([go(gosched) for _ in range(200)])
    before = _goslings._stats()["stacks"]
    for _ in range(30):
        results([go(gosched) for _ in range(200)])
    # Each worker keeps its own, and another one may have begun meanwhile.
    assert _goslings._stats()["stacks"] <= before + 200 * stats().workers


def test_many_goroutines_come_and_go_from_many_threads(two_workers: None) -> None:
    before = num_goroutine()
    totals: list[int] = []

    def work() -> None:
        totals.append(sum(results([go(lambda i=i: i) for i in range(count(1000))])))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    n = count(1000)
    assert totals == [n * (n - 1) // 2] * 4
    until(lambda: num_goroutine() <= before)


def test_g16_calls_that_release_the_gil_run_at_the_same_time(two_workers: None) -> None:
    # Each waits for the other, outside of Python.
    barrier = threading.Barrier(2)
    assert sorted(results([go(barrier.wait, SECONDS) for _ in range(2)])) == [0, 1]


def test_o06_stats_count_what_there_is_and_what_has_been() -> None:
    before, n = stats(), count(100)
    ch = chan()
    goroutines = [go(ch.recv_ok) for _ in range(n)]
    parked(*goroutines)
    waiting = stats()
    assert waiting.goroutines == num_goroutine() >= n
    assert waiting.spawned - before.spawned >= n and waiting.started - before.started >= n
    assert waiting.finished - before.finished < n
    assert waiting.switches - before.switches >= n
    assert waiting.procs == gomaxprocs() and waiting.workers >= 1
    sleeper = go(sleep, 3600)
    parked(sleeper)
    assert stats().timers >= 1
    sleeper.cancel()
    ch.close()
    results(goroutines)
    until(lambda: stats().finished - before.finished >= n)
    until(lambda: stats().goroutines <= before.goroutines)
    assert stats().spawned == stats().finished + stats().goroutines


def test_o06_goroutines_of_bubbles_are_counted() -> None:
    def main() -> None:
        results([go(int) for _ in range(3)])

    before = stats()
    explore(main, schedules=5)
    until(lambda: stats().goroutines == before.goroutines)
    after = stats()
    assert after.spawned - before.spawned == after.finished - before.finished == 5 * 4


@pytest.mark.parametrize("workers", [1, 2])
def test_g12_goroutines_of_other_threads_start_beside_async_ones_that_wake_each_other(workers: int) -> None:
    """Those wait in the queue of all workers, whose own queues never get empty."""
    exchanges = [0] * 4
    stop: list[int] = []

    async def pair(number: int) -> None:
        ping: chan[int] = chan()
        pong: chan[int] = chan(1)

        async def echo() -> None:
            async for value in ping:
                await pong.asend(value)

        echoing = go(echo)
        while not stop:
            await ping.asend(1)
            await aselect(recv(pong), recv(chan()))
            exchanges[number] += 1
        ping.close()
        await echoing

    before = gomaxprocs(workers)
    try:
        pairs = [go(pair, number) for number in range(len(exchanges))]
        until(lambda: all(exchanges))
        for _ in range(20):
            late = go(lambda: sum(exchanges))
            began = sum(exchanges)
            assert late.result(SECONDS) - began < 20_000
    finally:
        stop.append(1)
        gomaxprocs(before)
    for goroutine in pairs:
        goroutine.result(SECONDS)
