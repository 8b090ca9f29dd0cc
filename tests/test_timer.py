"""Time: Go's behaviours, rows T01 to T11 of the table of semantics (the rules of Go 1.23)."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
from goslings import (
    Closed,
    RecvChan,
    Ticker,
    Timer,
    WouldBlock,
    after,
    after_func,
    chan,
    go,
    gomaxprocs,
    gosched,
    num_goroutine,
    recv,
    select,
    sleep,
)
from helpers import SECONDS, count, parked, results, state, until

HOUR = 3600


@pytest.mark.parametrize("place", ["main", "goroutine"])
def test_t01_sleep_never_ends_early(place: str) -> None:
    def work() -> float:
        worst = 1.0
        for i in range(count(50)):
            seconds = i % 7 / 1000
            started = time.monotonic()
            sleep(seconds)
            worst = min(worst, time.monotonic() - started - seconds)
        return worst

    assert (work() if place == "main" else go(work).result(SECONDS)) >= 0


def test_t01_many_sleepers_at_once_are_never_early(two_workers: None) -> None:
    def work(i: int) -> float:
        started, seconds = time.monotonic(), i % 50 / 1000
        sleep(seconds)
        return time.monotonic() - started - seconds

    late = results([go(work, i) for i in range(count(2000))])
    assert min(late) >= 0


def test_t01_no_time_returns_at_once_and_huge_times_are_clamped() -> None:
    started = time.monotonic()
    for seconds in (0, -1, -1e300, float("-inf"), 1e-300):
        sleep(seconds)
    assert time.monotonic() - started < 5
    goroutines = [go(sleep, seconds) for seconds in (1e300, float("inf"), 10**400)]
    parked(*goroutines)
    assert [state(g) for g in goroutines] == ["sleep"] * 3
    for g in goroutines:
        assert g.cancel() and g.join(SECONDS)


def test_t02_a_timer_gives_the_time_it_was_due_however_late_it_is_read() -> None:
    before = time.monotonic()
    ch = after(0.01)
    between = time.monotonic()
    sleep(0.08)
    due = ch.recv()
    assert before + 0.01 <= due <= between + 0.01 + 0.001


def test_t03_timer_channels_look_unbuffered() -> None:
    timer, ticker = Timer(0), Ticker(0.001)
    sleep(0.02)
    for ch in (timer.c, ticker.c, after(0)):
        assert isinstance(ch, RecvChan)
        assert (len(ch), ch.capacity, ch.closed) == (0, 0, False)
    assert timer.c.recv() and ticker.c.recv()
    assert timer.c == timer.c and hash(timer.c) == hash(timer.c)


def test_t04_stop_and_reset_tell_whether_the_value_was_received_and_leave_nothing_stale() -> None:
    timer = Timer(0)
    sleep(0.01)  # past its time, not received
    assert timer.stop()
    with pytest.raises(WouldBlock):
        timer.c.try_recv()
    timer = Timer(0)
    sleep(0.01)
    assert timer.reset(HOUR)
    assert timer.c.try_recv("nothing") == "nothing"
    assert timer.reset(0)
    assert timer.c.recv(timeout=SECONDS)


def test_t05_stop_and_reset_of_one_that_was_received_or_stopped() -> None:
    timer = Timer(0)
    timer.c.recv()
    assert not timer.stop()
    assert not timer.reset(HOUR)
    assert timer.stop()
    assert not timer.stop()
    assert not timer.reset(0)
    timer.c.recv()
    assert not timer.reset(HOUR) and timer.reset(HOUR) and timer.stop()


def test_t05_stop_races_with_its_time() -> None:
    for i in range(count(300)):
        timer = Timer(i % 10 / 20_000)
        sleep(i % 7 / 20_000)
        if timer.stop():
            assert timer.c.try_recv("nothing") == "nothing"
        else:
            raise AssertionError("nobody received")


def test_t06_after_func_runs_in_a_goroutine_of_its_own() -> None:
    ch = chan()
    started = threading.get_ident()
    timer = after_func(0.001, lambda: ch.send(threading.get_ident()))
    assert ch.recv() != started
    assert not timer.stop()
    with pytest.raises(TypeError, match="no channel"):
        _ = timer.c


def test_t06_stop_tells_whether_it_was_started_and_does_not_wait() -> None:
    begun, gate, runs = chan(), chan(), []

    def slow() -> None:
        begun.send(None)
        gate.recv()
        runs.append(1)

    timer = after_func(0, slow)
    begun.recv()
    assert not timer.stop()  # it runs
    assert not timer.reset(0)
    begun.recv()  # a second run beside the first
    gate.send(None)
    gate.send(None)
    until(lambda: len(runs) == 2)
    timer = after_func(HOUR, slow)
    assert timer.stop() and not timer.stop()
    assert timer.reset(HOUR) is False and timer.reset(0)
    begun.recv()
    gate.send(None)
    until(lambda: len(runs) == 3)


def test_t06_a_timer_function_runs_though_nobody_holds_the_timer() -> None:
    ch = chan()
    after_func(0.005, lambda: ch.send("ran"))
    gc.collect()
    assert ch.recv(timeout=SECONDS) == "ran"


def test_t06_a_timer_function_that_fails_is_reported(unread: list) -> None:
    def fail() -> None:
        raise KeyError("timer")

    after_func(0, fail)
    until(lambda: unread)
    assert repr(unread.pop().exc_value) == "KeyError('timer')"


def test_t07_timers_that_nobody_refers_to_are_collected() -> None:
    from goslings import _goslings

    before = _goslings._stats()["timers"]
    keep = [after(HOUR) for _ in range(100)] + [Ticker(HOUR).c for _ in range(100)]
    assert _goslings._stats()["timers"] >= before + 200
    for _ in range(count(1000)):
        after(HOUR)
        Timer(HOUR)
        Ticker(HOUR)
    gc.collect()
    assert _goslings._stats()["timers"] <= before + 200
    ref = weakref.ref(keep[0])
    del keep
    gc.collect()
    assert ref() is None
    until(lambda: _goslings._stats()["timers"] <= before)


def test_t07_a_parked_receiver_keeps_its_timer() -> None:
    g = go(lambda: after(0.02).recv())
    parked(g)
    gc.collect()
    assert g.result(SECONDS) <= time.monotonic()


def test_t08_a_ticker_drops_ticks_for_a_slow_reader_and_keeps_its_grid() -> None:
    ticker = Ticker(0.005)
    sleep(0.06)
    first = ticker.c.recv()
    assert time.monotonic() - first >= 0.04  # the oldest was kept, the others dropped
    times = [ticker.c.recv() for _ in range(4)]
    ticker.stop()
    for a, b in zip(times, times[1:], strict=False):
        periods = (b - a) / 0.005
        assert periods > 0.9 and abs(periods - round(periods)) < 0.01


def test_t08_ticks_are_on_a_grid() -> None:
    with Ticker(0.002) as ticker:
        times = [tick for tick, _ in zip(ticker, range(20), strict=False)]
    for a, b in zip(times, times[1:], strict=False):
        periods = (b - a) / 0.002
        assert periods > 0.9 and abs(periods - round(periods)) < 0.01


def test_t09_stop_does_not_close_and_a_bad_period_is_an_error() -> None:
    ticker = Ticker(0.001)
    sleep(0.01)
    ticker.stop()
    assert not ticker.c.closed and ticker.c.try_recv("nothing") == "nothing"
    sleep(0.01)
    assert ticker.c.try_recv("nothing") == "nothing"
    ticker.reset(0.001)
    assert ticker.c.recv(timeout=SECONDS)
    ticker.stop()
    for bad in (0, -1):
        with pytest.raises(ValueError, match="non-positive interval for Ticker"):
            Ticker(bad)
        with pytest.raises(ValueError, match="non-positive interval for Ticker"):
            ticker.reset(bad)


def test_t09_reset_of_a_ticker_leaves_no_stale_tick() -> None:
    ticker = Ticker(0.001)
    sleep(0.01)
    ticker.reset(HOUR)
    assert ticker.c.try_recv("nothing") == "nothing"
    ticker.stop()


def test_t10_exactly_one_of_several_receivers_gets_the_value(two_workers: None) -> None:
    ch, quit_ = after(0.02), chan()
    goroutines = [go(select, recv(ch), recv(quit_)) for _ in range(10)]
    parked(*goroutines)
    until(lambda: sum(g.done() for g in goroutines) == 1)
    sleep(0.01)
    assert sum(g.done() for g in goroutines) == 1
    quit_.close()
    assert sorted(g.result(SECONDS).index for g in goroutines) == [0] + [1] * 9


def test_t11_moving_timers_about_loses_nothing(two_workers: None) -> None:
    n = count(200)

    def work(i: int) -> int:
        timer = Timer(HOUR)
        for k in range(20):
            timer.reset((HOUR, 0.05, 10, 0.001)[(i + k) % 4])
            if k % 3 == 0:
                gosched()
        timer.reset(0.002)
        timer.c.recv()
        return timer.c.try_recv(1)

    assert results([go(work, i) for i in range(n)]) == [1] * n


def test_t11_a_timer_moved_earlier_fires_earlier() -> None:
    timers = [Timer(HOUR + i) for i in range(100)]
    started = time.monotonic()
    for timer in reversed(timers):
        timer.reset(0.005)
    for timer in timers:
        timer.c.recv(timeout=SECONDS)
    assert time.monotonic() - started < 5


def test_t11_timers_fire_in_the_order_of_their_times(one_worker: None) -> None:
    ch = chan(100)
    first = time.monotonic() + 0.5
    keep = [after_func(first + i * 0.004 - time.monotonic(), lambda i=i: ch.send(i)) for i in reversed(range(20))]
    assert [ch.recv() for _ in range(20)] == list(range(20))
    assert not any(timer.stop() for timer in keep)


def test_t11_timers_fire_while_others_compute(two_workers: None) -> None:
    stop = []

    def compute() -> None:
        while not stop:
            sum(range(100))
            gosched()

    busy = [go(compute) for _ in range(4)]
    started = time.monotonic()
    for _ in range(20):
        after(0.001).recv()
        sleep(0.001)
        assert select(recv(chan()), timeout=0.001) is None
    assert time.monotonic() - started < 10
    stop.append(1)
    results(busy)


def test_t11_a_timer_wakes_main_while_every_worker_is_busy() -> None:
    stop: list[int] = []

    def compute() -> None:
        while not stop:
            pass

    busy = [go(compute) for _ in range(gomaxprocs())]
    assert after(0.005).recv(timeout=SECONDS)
    sleep(0.005)
    assert select(recv(chan()), timeout=0.005) is None
    stop.append(1)
    results(busy)


def test_timeouts_of_many_waits_end_in_order(one_worker: None) -> None:
    ended = chan(1000)
    first = time.monotonic() + 0.5

    def wait(i: int) -> None:
        with pytest.raises(TimeoutError):
            chan().recv(timeout=first + i * 0.01 - time.monotonic())
        ended.send(i)

    goroutines = [go(wait, i) for i in reversed(range(20))]
    results(goroutines)
    assert [ended.recv() for _ in range(20)] == list(range(20))


def test_many_timers_and_timeouts_that_do_not_come_true(two_workers: None) -> None:
    ch = chan()

    def work() -> int:
        total = 0
        for _ in range(50):
            total += ch.recv(timeout=HOUR)
            timer = Timer(HOUR)
            timer.stop()
        return total

    goroutines = [go(work) for _ in range(count(40))]
    for _ in range(50 * len(goroutines)):
        ch.send(1)
    assert results(goroutines) == [50] * len(goroutines)


def test_sleep_can_be_cancelled() -> None:
    before = num_goroutine()
    goroutines = [go(sleep, HOUR) for _ in range(100)]
    parked(*goroutines)
    for g in goroutines:
        assert g.cancel()
    for g in goroutines:
        assert g.join(SECONDS) and g.cancelled()
    until(lambda: num_goroutine() <= before)


def test_sleep_is_for_threads_too() -> None:
    took = []

    def work() -> None:
        started = time.monotonic()
        sleep(0.01)
        took.append(time.monotonic() - started)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(took) == 4 and min(took) >= 0.01


def test_a_timer_channel_cannot_be_sent_on_or_closed() -> None:
    ch = after(HOUR)
    assert not hasattr(ch, "send") and not hasattr(ch, "close")
    with pytest.raises(TypeError):
        from goslings import send

        send(ch, 1)


def test_t08_iterating_a_ticker_in_a_goroutine_until_told_to_stop() -> None:
    quit_, ticker, seen = chan(), Ticker(0.001), []

    def work() -> None:
        while (selected := select(recv(ticker.c), recv(quit_))) and selected.index == 0:
            seen.append(selected.value)

    g = go(work)
    until(lambda: len(seen) >= 5)
    quit_.close()
    g.result(SECONDS)
    assert seen == sorted(seen)
    with pytest.raises(Closed):
        quit_.recv()
