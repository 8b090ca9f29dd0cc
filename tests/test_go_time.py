"""Timers under Go's own stress scenarios, written afresh."""

from __future__ import annotations

import gc
import random
import time
from typing import Any

from goslings import AtomicInt, Ticker, Timer, after, after_func, chan, go, gosched, recv, select, sleep, stats
from helpers import SECONDS, count, results, until

HOUR = 3600


def test_t11_a_timer_that_is_set_to_the_past_fires_at_once(two_workers: None) -> None:
    # Others lie before it in the heap, and one behind it that was there first.
    for _ in range(count(200)):
        behind = Timer(HOUR)
        timer = Timer(2 * HOUR)
        assert timer.reset(1e-9)
        selected = select(recv(timer.c), recv(behind.c), timeout=SECONDS)
        assert selected is not None and selected.index == 0
        assert behind.stop() and not timer.stop()


def test_t11_resets_stops_and_waits_at_random_lose_nothing(two_workers: None, rng: Any) -> None:
    n, seeds = count(100), [rng.randrange(2**32) for _ in range(4)]

    def work(seed: int) -> tuple[int, int]:
        rnd = random.Random(seed)
        timers = [Timer(rnd.random() * 0.02) for _ in range(n)]
        fired = stopped = 0
        while timers:
            i = rnd.randrange(len(timers))
            timer = timers[i]
            match rnd.randrange(3):
                case 0:
                    timer.reset(rnd.random() * 0.02)
                    continue
                case 1:
                    assert timer.stop(), "nobody has received from it"
                    assert timer.c.try_recv("nothing") == "nothing"
                    stopped += 1
                case 2:
                    timer.c.recv(timeout=SECONDS)
                    fired += 1
            timers[i] = timers[-1]
            timers.pop()
        return fired, stopped

    for fired, stopped in results([go(work, seed) for seed in seeds]):
        assert fired + stopped == n and fired and stopped


def test_t02_t08_stamps_are_the_due_times_however_late_they_are_read() -> None:
    before = time.monotonic()
    channels = [after(i / 1000) for i in range(10)]
    between = time.monotonic()
    ticker = Ticker(0.002)
    made = time.monotonic()
    sleep(0.05)
    for i, ch in enumerate(channels):
        assert before + i / 1000 - 1e-6 <= ch.recv() <= between + i / 1000 + 1e-6
    # The tick that waited is the oldest that was kept, and the following ones are on its grid.
    ticks = [ticker.c.recv() for _ in range(10)]
    ticker.stop()
    assert between + 0.002 - 1e-6 <= ticks[0] <= made + 0.002 + 1e-6
    for tick in ticks:
        periods = (tick - ticks[0]) / 0.002
        assert abs(periods - round(periods)) < 1e-3
        assert tick <= time.monotonic()
    assert ticks == sorted(set(ticks))


def test_t07_many_timers_that_nobody_keeps_are_gone() -> None:
    gc.collect()
    before = stats().timers
    for i in range(count(20_000)):
        ch = after(HOUR)
        if i % 4 == 0:
            assert select(recv(ch), timeout=0) is None
        if i % 4 == 1:
            Ticker(HOUR)
        if i % 4 == 2:
            Timer(HOUR).reset(2 * HOUR)
    del ch
    gc.collect()
    until(lambda: stats().timers <= before)


def test_t06_t11_functions_of_timers_run_beside_a_pair_that_hands_over(one_worker: None) -> None:
    # Two goroutines keep waking each other on the only worker; the timer ends that, in time.
    for _ in range(3):
        a, b, stop = chan(), chan(), []

        def ping(a: Any = a, b: Any = b, stop: list[int] = stop) -> int:
            rounds = 0
            while not stop:
                a.send(None)
                b.recv()
                rounds += 1
            a.close()
            return rounds

        def pong(a: Any = a, b: Any = b) -> int:
            return sum(b.send(None) is None for _ in a)

        pair = [go(ping), go(pong)]
        after_func(0.01, lambda stop=stop: stop.append(1))
        first, second = results(pair)
        assert first == second > 0


def test_t06_many_functions_run_once_each(two_workers: None) -> None:
    n, runs = count(3000), AtomicInt()
    timers = [after_func(i % 20 / 1000, runs.add) for i in range(n)]
    prevented = sum(timer.stop() for timer in timers[::3])
    until(lambda: runs.load() == n - prevented)
    sleep(0.005)
    assert runs.load() == n - prevented
    assert not any(timer.stop() for timer in timers)


def test_t05_t06_stop_tells_the_truth_in_a_race(two_workers: None) -> None:
    for i in range(count(1000)):
        ran = chan(1)
        timer = after_func(i % 50 * 1e-6, lambda ran=ran: ran.send(True))
        if i % 3:
            gosched()
        if timer.stop():
            assert ran.try_recv("did not run") == "did not run"
        else:
            assert ran.recv(timeout=SECONDS)


def test_t09_t11_tickers_made_reset_and_stopped_by_many(two_workers: None) -> None:
    def work(seed: int) -> int:
        rnd, ticks = random.Random(seed), 0
        for _ in range(count(30)):
            with Ticker(rnd.uniform(1e-4, 2e-3)) as ticker:
                for _ in range(3):
                    match rnd.randrange(3):
                        case 0:
                            ticker.reset(rnd.uniform(1e-4, 2e-3))
                        case 1:
                            ticker.c.recv(timeout=SECONDS)
                            ticks += 1
                        case 2:
                            ticks += select(recv(ticker.c), timeout=0) is not None
                ticker.stop()
                assert ticker.c.try_recv("none") == "none"
        return ticks

    assert all(results([go(work, seed) for seed in range(8)]))


def test_t01_t11_sleepers_and_timers_are_not_early_nor_lost_in_a_crowd(two_workers: None, rng: Any) -> None:
    n, seeds = count(500), [rng.randrange(2**32) for _ in range(2)]
    late = []

    def sleeper(seconds: float) -> float:
        started = time.monotonic()
        sleep(seconds)
        return time.monotonic() - started - seconds

    def waiter(seconds: float) -> float:
        started = time.monotonic()
        due = after(seconds).recv()
        now = time.monotonic()
        assert due <= now
        return now - started - seconds

    rnd = random.Random(seeds[0])
    goroutines = [go(rnd.choice((sleeper, waiter)), rnd.uniform(0, 0.05)) for _ in range(n)]
    late = results(goroutines)
    assert len(late) == n and min(late) >= 0
