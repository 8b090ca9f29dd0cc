"""Virtual time: rows B01 to B07 of the semantics, and what Python adds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import goslings
import pytest
from goslings import (
    AtomicInt,
    Barrier,
    Cond,
    Event,
    Mutex,
    RWMutex,
    Selected,
    Semaphore,
    Ticker,
    Timer,
    WaitGroup,
    after,
    after_func,
    blocking,
    chan,
    go,
    gosched,
    recv,
    select,
    sleep,
)
from goslings.testing import now, virtual_time, wait
from goslings.testing import sleep as sleep_and_wait
from helpers import count

DAY = 86_400.0
START = datetime(2000, 1, 1, tzinfo=UTC)
"""Go's synctest begins here, too."""


def in_bubble[T](fn: Callable[[], T]) -> T:
    return virtual_time(seed=1).run(fn)


def test_b01_the_call_returns_when_all_goroutines_have_ended() -> None:
    done: list[str] = []

    def child() -> None:
        for _ in range(10):
            gosched()
        go(grandchild)
        done.append("child")

    def grandchild() -> None:
        for _ in range(10):
            gosched()
        done.append("grandchild")

    def body() -> str:
        go(child)
        done.append("body")
        return "result"

    assert in_bubble(body) == "result"
    assert done == ["body", "child", "grandchild"]


def test_b01_all_descendants_see_the_clock() -> None:
    seen: list[datetime] = []

    def descend(depth: int) -> None:
        sleep(1)
        seen.append(now())
        if depth:
            go(descend, depth - 1).join()

    in_bubble(lambda: descend(3))
    assert seen == [START + timedelta(seconds=number) for number in (1, 2, 3, 4)]


def test_b02_a_day_takes_no_time_and_is_exact() -> None:
    def body() -> None:
        assert now() == START
        assert time.time() == START.timestamp()
        before = now(), time.monotonic(), time.perf_counter_ns()
        sleep(DAY)
        assert now() - before[0] == timedelta(days=1)
        assert time.monotonic() - before[1] == DAY
        assert time.perf_counter_ns() - before[2] == DAY * 1e9

    began = time.monotonic()
    in_bubble(body)
    assert time.monotonic() - began < 10


def test_b02_each_bubble_has_a_clock_of_its_own() -> None:
    def body() -> datetime:
        sleep(5)
        return now()

    assert in_bubble(body) == in_bubble(body) == START + timedelta(seconds=5)


def test_b03_the_clock_stands_while_anybody_can_run() -> None:
    def body() -> None:
        woken: list[int] = []
        after_func(1, lambda: woken.append(1))
        for _ in range(1000):
            gosched()
        assert not woken and now() == START
        sleep(2)
        assert woken == [1]

    in_bubble(body)


def test_b03_a_timer_that_the_body_leaves_behind_never_fires() -> None:
    fired: list[int] = []

    def body() -> None:
        after_func(1, lambda: fired.append(1))
        after(1)

    in_bubble(body)
    assert fired == []


def test_b03_what_happens_at_the_same_time_happens_in_any_order() -> None:
    def sleepers() -> tuple[int, ...]:
        order: list[int] = []
        group = WaitGroup()

        def sleeper(number: int) -> None:
            sleep(1)
            order.append(number)

        for number in range(3):
            group.go(sleeper, number)
        group.wait()
        return tuple(order)

    def timers() -> int:
        match select(recv(after(1)), recv(after(1))):
            case Selected(index):
                return index
        raise AssertionError("no case")

    assert {virtual_time(seed=seed).run(timers) for seed in range(100)} == {0, 1}
    assert len({virtual_time(seed=seed).run(sleepers) for seed in range(200)}) == 6
    assert virtual_time(seed=7).run(sleepers) == virtual_time(seed=7).run(sleepers)


def test_b03_timers_fire_in_the_order_of_their_times() -> None:
    def body() -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []
        group = WaitGroup()

        def note(name: str, seconds: float) -> None:
            sleep(seconds)
            seen.append((name, time.monotonic()))

        for name, seconds in ("c", 3.0), ("a", 1.0), ("b", 2.0):
            group.go(note, name, seconds)
        group.wait()
        return seen

    assert in_bubble(body) == [("a", 1.0), ("b", 2.0), ("c", 3.0)]


@pytest.mark.parametrize(
    "block",
    [
        lambda: chan().recv(timeout=7),
        lambda: chan().send(1, timeout=7),
        lambda: select(recv(chan()), recv(None), timeout=7),
        lambda: select(timeout=7),
        lambda: sleep(7),
        lambda: next(Ticker(7)),
        lambda: Timer(7).c.recv(),
        lambda: Event().wait(timeout=7),
        lambda: Barrier(2).wait(timeout=7),
        lambda: go(sleep, 7).join(),
        lambda: go(sleep, 7).finished.recv_ok(),
    ],
    ids=["recv", "send", "select", "no cases", "sleep", "Ticker", "Timer", "Event", "Barrier", "join", "finished"],
)
def test_b04_who_waits_for_something_of_the_bubble_lets_the_clock_move(block: Callable[[], object]) -> None:
    def body() -> datetime:
        with suppress(TimeoutError):
            block()
        return now()

    assert in_bubble(body) == START + timedelta(seconds=7)


def test_b04_waits_on_groups_conditions_and_semaphores_let_the_clock_move() -> None:
    def body() -> datetime:
        group, mutex, semaphore = WaitGroup(), Mutex(), Semaphore(1)
        cond = Cond(mutex)
        group.add()
        assert not group.wait(timeout=1)
        with mutex:
            assert not cond.wait(timeout=1)
        semaphore.acquire()
        with pytest.raises(TimeoutError):
            semaphore.acquire(timeout=1)
        return now()

    assert in_bubble(body) == START + timedelta(seconds=3)


@pytest.mark.parametrize("lock", [Mutex, RWMutex])
def test_b04_who_waits_for_a_mutex_runs_before_the_clock_moves(lock: Callable[[], Mutex | RWMutex]) -> None:
    def body() -> None:
        mutex, seen = lock(), chan[datetime](1)
        mutex.lock()

        def waiter() -> None:
            mutex.lock()
            seen.send(now())
            mutex.unlock()

        go(waiter)
        gosched()
        mutex.unlock()
        sleep(1)
        assert seen.recv() == START

    in_bubble(body)


def test_b04_blocking_and_channels_from_outside_hold_the_clock() -> None:
    outside = chan[int]()
    gate = threading.Event()

    def body() -> datetime:
        woken: list[datetime] = []
        after_func(1, lambda: woken.append(now()))
        assert blocking(lambda: gate.wait(20))
        assert woken == []
        assert outside.recv(timeout=None) == 5
        assert woken == []
        sleep(2)
        assert woken == [START + timedelta(seconds=1)]
        return now()

    def help_from_outside() -> None:
        gate.set()
        outside.send(5)

    helper = threading.Thread(target=help_from_outside)
    helper.start()
    assert in_bubble(body) == START + timedelta(seconds=2)
    helper.join()


def test_b05_wait_returns_when_all_others_are_blocked() -> None:
    def body() -> None:
        flag: list[int] = []
        gate = chan[None]()

        def child() -> None:
            flag.append(1)
            gate.recv()
            flag.append(2)

        go(child)
        wait()
        assert flag == [1]
        gate.send(None)
        wait()
        assert flag == [1, 2]
        assert now() == START

    in_bubble(body)


def test_b05_sleep_is_a_sleep_and_a_wait() -> None:
    def body(seed: int) -> None:
        done: list[int] = []
        for number in range(5):
            after_func(1, lambda number=number: done.append(number))
        sleep_and_wait(1)
        assert sorted(done) == [0, 1, 2, 3, 4], seed

    for seed in range(20):
        virtual_time(seed=seed).run(body, seed)


def test_b05_wait_outside_a_bubble_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="not in a bubble"):
        wait()
    with pytest.raises(RuntimeError, match="not in a bubble"):
        go(wait).result()


def test_b05_two_waits_at_once_are_an_error() -> None:
    def body() -> None:
        first = go(wait)
        second = go(wait)
        results = [type(first.exception()), type(second.exception())]
        assert sorted(str(one) for one in results) == sorted([str(type(None)), str(RuntimeError)])

    in_bubble(body)


def test_b06_all_blocked_is_a_deadlock() -> None:
    def body() -> None:
        go(chan[int]().recv).name = "reader"
        chan[int]().send(1)

    with pytest.raises(RuntimeError, match="deadlock: all goroutines in bubble are blocked") as caught:
        in_bubble(body)
    assert type(caught.value).__name__ == "Deadlock"
    text = str(caught.value)
    assert "main: chan send at" in text and "test_virtual_time.py" in text and "reader: chan receive" in text


def test_b06_goroutines_left_behind_are_a_deadlock() -> None:
    cleaned: list[str] = []

    def child() -> None:
        try:
            chan[int]().recv()
        finally:
            cleaned.append("child")

    with pytest.raises(RuntimeError, match="main bubble goroutine has exited but blocked goroutines remain") as caught:
        in_bubble(lambda: go(child) and None)
    assert "g1 child: chan receive" in str(caught.value)
    assert cleaned == ["child"]


def test_b06_the_clock_stands_once_the_body_has_ended() -> None:
    with pytest.raises(RuntimeError, match="main bubble goroutine has exited but blocked goroutines remain"):
        in_bubble(lambda: go(sleep, 1) and None)


def test_b06_what_the_body_raises_goes_before_a_deadlock() -> None:
    def body() -> None:
        go(chan[int]().recv)
        raise KeyError("of the body")

    with pytest.raises(KeyError, match="of the body"):
        in_bubble(body)


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (chan, lambda ch: ch.try_send(1)),
        (lambda: chan(1), lambda ch: ch.send(1)),
        (chan, lambda ch: ch.close()),
        (chan, lambda ch: select(recv(ch), timeout=0)),
        (lambda: chan().receiver(), lambda ch: ch.try_recv(None)),
        (lambda: Timer(1), lambda timer: timer.stop()),
        (lambda: Timer(1), lambda timer: timer.reset(1)),
        (lambda: Timer(1), lambda timer: timer.c.try_recv(None)),
        (lambda: Ticker(1), lambda ticker: ticker.stop()),
        (lambda: after_func(1, print), lambda timer: timer.stop()),
        (WaitGroup, lambda group: group.add()),
        (WaitGroup, lambda group: group.wait(timeout=0)),
        (lambda: Cond(Mutex()), lambda cond: cond.notify()),
    ],
)
def test_b07_what_belongs_to_a_bubble_cannot_be_used_outside(
    make: Callable[[], object], use: Callable[[object], object]
) -> None:
    made: list[object] = []
    used = threading.Event()
    failures: list[BaseException | None] = []

    def outsider() -> None:
        while not made:
            time.sleep(0.001)
        failures.append(go(use, made[0]).exception())
        used.set()

    def body() -> None:
        made.append(make())
        blocking(used.wait)
        use(made[0])  # inside it may be used

    thread = threading.Thread(target=outsider)
    thread.start()
    in_bubble(body)
    thread.join()
    assert isinstance(failures[0], RuntimeError) and "bubble" in str(failures[0])
    with pytest.raises(RuntimeError, match="bubble"):
        use(made[0])


def test_objects_from_outside_may_be_used_inside() -> None:
    numbers, number = chan[int](1), AtomicInt()

    def body() -> None:
        numbers.send(3)
        number.add(numbers.recv())

    in_bubble(body)
    assert number.load() == 3


def test_a_decorated_function_keeps_its_name_and_arguments() -> None:
    @virtual_time
    def plain(x: int, *, y: int) -> tuple[int, float]:
        """What it does."""
        sleep(10)
        return x + y, time.monotonic()

    @virtual_time(seed=3)
    def seeded() -> datetime:
        return now()

    assert plain(1, y=2) == (3, 10.0)
    assert (plain.__name__, plain.__doc__) == ("plain", "What it does.")
    assert seeded() == START


def test_an_exception_comes_out_as_it_is() -> None:
    error = ValueError("mine")

    @virtual_time
    def fails() -> None:
        raise error

    with pytest.raises(ValueError) as caught:
        fails()
    assert caught.value is error


def test_timeouts_go_by_the_clock_of_the_bubble() -> None:
    @virtual_time
    def body() -> None:
        with pytest.raises(TimeoutError):
            chan[int]().recv(timeout=3600)
        assert time.monotonic() == 3600
        assert select(recv(chan[int]()), timeout=60) is None
        assert time.monotonic() == 3660
        assert go(lambda: 5).result(timeout=10) == 5
        assert time.monotonic() == 3660

    body()


def test_tickers_keep_their_grid() -> None:
    @virtual_time
    def body() -> list[float]:
        ticks = []
        with Ticker(0.5) as ticker:
            for _ in range(3):
                ticks.append(next(ticker))
            sleep(2)  # ticks are missed, one waits
            ticks.append(next(ticker))
            ticks.append(next(ticker))
        return ticks

    assert body() == [0.5, 1.0, 1.5, 2.0, 4.0]


def test_time_is_patched_in_the_bubble_only() -> None:
    real = time.sleep
    outside: list[float] = []
    go_on = threading.Event()

    def outsider() -> None:
        before = time.monotonic()
        time.sleep(0.01)
        outside.append(time.monotonic() - before)
        go_on.set()

    @virtual_time
    def body() -> None:
        assert blocking(go_on.wait, 20)
        time.sleep(1e6)
        assert time.monotonic() == 1e6
        with pytest.raises(ValueError):
            time.sleep(-1)

    thread = threading.Thread(target=outsider)
    thread.start()
    body()
    thread.join()
    assert 0.009 < outside[0] < 60
    assert time.sleep is real


def test_time_can_be_left_as_it_is() -> None:
    @virtual_time(patch_time=False)
    def body() -> None:
        before = time.monotonic()
        sleep(1e6)
        assert time.monotonic() - before < 1000
        assert now() == START + timedelta(seconds=1e6)

    body()


def test_bubbles_cannot_be_nested() -> None:
    @virtual_time
    def inner() -> None: ...

    @virtual_time
    def outer() -> None:
        with pytest.raises(RuntimeError, match="cannot be nested"):
            inner()

    outer()


def test_many_bubbles_at_once() -> None:
    def body(number: int) -> float:
        for _ in range(number):
            sleep(1)
        return time.monotonic()

    for _ in range(count(200)):
        runs = [go(virtual_time().run, body, number) for number in range(20)]
        ended = {number: run.result(60) for number, run in enumerate(runs)}
        assert {number: time for number, time in ended.items() if time != number} == {}


def test_many_goroutines_sleep() -> None:
    @virtual_time
    def body() -> int:
        done, group = AtomicInt(), WaitGroup()

        def sleeper(number: int) -> None:
            for _ in range(3):
                sleep(number % 7)
            done.add()

        for number in range(2000):
            group.go(sleeper, number)
        group.wait()
        return done.load()

    assert body() == 2000


def test_a_failure_that_nobody_reads_is_reported(unread: list[goslings.ExceptHookArgs]) -> None:
    @virtual_time
    def body() -> None:
        go(lambda: 1 // 0)

    body()
    assert [type(report.exc_value) for report in unread] == [ZeroDivisionError]
    unread.clear()


def test_cancelled_from_outside_all_ends() -> None:
    ended: list[str] = []

    def body() -> None:
        try:
            blocking(threading.Event().wait, 0.05)
            sleep(1)
            ended.append("slept")
        finally:
            ended.append("body")

    run = go(virtual_time().run, body)
    assert run.join(20)
    assert ended == ["slept", "body"]


def test_async_goroutines_go_by_the_clock() -> None:
    async def worker(seconds: int, out: chan[float], event: Event, group: WaitGroup) -> None:
        await goslings.asleep(seconds)
        await out.asend(time.monotonic())
        await event.await_(timeout=100)
        match await goslings.aselect(recv(out), timeout=100):
            case None:
                group.done()

    @virtual_time
    def body() -> list[float]:
        out, event, group = chan[float](), Event(), WaitGroup()
        for seconds in 3, 1, 2:
            group.add()
            go(worker, seconds, out, event, group)
        times = [out.recv() for _ in range(3)]
        group.wait()
        return [*times, time.monotonic()]

    assert body() == [1.0, 2.0, 3.0, 203.0]
