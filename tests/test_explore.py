"""explore and replay: bugs that depend on the schedule are found, and found again; what is correct passes."""

from __future__ import annotations

import doctest
import gc
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import goslings
import pytest
from goslings import (
    AtomicInt,
    Cond,
    Event,
    Map,
    Mutex,
    Once,
    RWMutex,
    Selected,
    Semaphore,
    SingleFlight,
    Ticker,
    WaitGroup,
    after,
    blocking,
    chan,
    current,
    go,
    gosched,
    recv,
    select,
    send,
    sleep,
)
from goslings.testing import ScheduleFailure, explore, replay
from helpers import check_child, count

SCHEDULES = 1000

Program = Callable[[], object]


def failure(fn: Program, **how: object) -> ScheduleFailure:
    with pytest.raises(ScheduleFailure) as caught:
        explore(fn, **how)  # type: ignore[arg-type]
    return caught.value


class Number:
    """A plain variable that goroutines share."""

    value: int | None = 0


# Each bug, and the same program without it.


def lost_update(correct: bool) -> None:
    number, mutex, group = Number(), Mutex(), WaitGroup()

    def work() -> None:
        if correct:
            mutex.lock()
        number.value = number.value + 1  # type: ignore[operator]
        if correct:
            mutex.unlock()

    group.go(work)
    group.go(work)
    group.wait()
    assert number.value == 2


def lost_atomic_update(correct: bool) -> None:
    number, group = AtomicInt(), WaitGroup()

    def work() -> None:
        if correct:
            number.add()
        else:
            number.store(number.load() + 1)

    group.go(work)
    group.go(work)
    group.wait()
    assert number.load() == 2


def missed_wake_up(correct: bool) -> None:
    mutex, ready = Mutex(), AtomicInt()
    changed = Cond(mutex)

    def reader() -> None:
        if correct:
            with mutex:
                while not ready.load():
                    changed.wait()
        elif not ready.load():  # and between the look and the wait it may change
            with mutex:
                changed.wait()

    def writer() -> None:
        with mutex:
            ready.store(1)
            changed.notify()

    both = go(reader), go(writer)
    for one in both:
        one.result()


def lock_order(correct: bool) -> None:
    a, b = Mutex(), Mutex()

    def transfer(first: Mutex, second: Mutex) -> None:
        with first, second:
            pass

    both = go(transfer, a, b), go(transfer, *((a, b) if correct else (b, a)))
    for one in both:
        one.result()


def send_after_close(correct: bool) -> None:
    numbers, group = chan[int](2), WaitGroup()

    def sender() -> None:
        numbers.send(1)

    group.go(sender)
    if correct:
        group.wait()
    numbers.close()
    group.wait()


def double_close(correct: bool) -> None:
    quit, once = chan[None](), Once()

    def stop() -> None:
        if correct:
            once.do(quit.close)
        elif not quit.closed:
            quit.close()

    group = WaitGroup()
    group.go(stop)
    group.go(stop)
    group.wait()


def early_return(correct: bool) -> None:
    answers = chan[int](2 if correct else 0)

    def ask(number: int) -> None:
        sleep(number)
        answers.send(number)

    for number in range(2):
        go(ask, number)
    answers.recv()  # the first is enough: the other one sends for ever


def check_then_act(correct: bool) -> None:
    made, group = AtomicInt(), WaitGroup()
    cache = Map[str, int]()

    def get() -> int | None:
        if correct:
            value, loaded = cache.load_or_store("key", 1)
            made.add(not loaded)
            return value
        if cache.load("key") is None:
            cache.store("key", made.add())
        return cache.load("key")

    group.go(get)
    group.go(get)
    group.wait()
    assert made.load() == 1


def add_inside(correct: bool) -> None:
    group, done = WaitGroup(), AtomicInt()

    def work() -> None:
        if not correct:
            group.add()
        done.add()
        group.done()

    for _ in range(2):
        if correct:
            group.add()
        go(work)
    group.wait()
    assert done.load() == 2


def dropped_by_timeout(correct: bool) -> None:
    values, kept = chan[int](0 if correct else 1), list[int]()

    def producer() -> None:
        sleep(1)
        if correct:
            values.send(5, timeout=60)
        else:
            values.send(5)  # into the buffer, and nobody looks there any more

    maker = go(producer)
    match select(recv(values), recv(after(1))):
        case Selected(0, value):
            kept.append(value)
        case Selected(1) if correct:
            kept.append(values.recv())
    maker.result()
    assert kept == [5]


def checked_twice(correct: bool) -> None:
    started, ready, mutex = AtomicInt(), AtomicInt(), Mutex()
    group, seen = WaitGroup(), list[int]()

    def use() -> None:
        if not started.load():
            with mutex:
                if not started.load():
                    if not correct:
                        started.store(1)  # before it is true
                    ready.store(1)
                    if correct:
                        started.store(1)
        seen.append(ready.load())

    group.go(use)
    group.go(use)
    group.wait()
    assert seen == [1, 1]


def send_with_lock_held(correct: bool) -> None:
    mutex, numbers = Mutex(), chan[int]()

    def producer() -> None:
        with mutex:
            number = 1
            if not correct:
                numbers.send(number)
        if correct:
            numbers.send(number)

    def consumer() -> None:
        with mutex:
            pass
        numbers.recv()

    both = go(producer), go(consumer)
    for one in both:
        one.result()


BUGS: list[tuple[Callable[[bool], None], dict[str, object], str]] = [
    (lost_update, {"preempt": "instructions"}, "AssertionError in main"),
    (lost_atomic_update, {}, "AssertionError in main"),
    (missed_wake_up, {}, "all goroutines are blocked for ever"),
    (lock_order, {}, "all goroutines are blocked for ever"),
    (send_after_close, {}, "Closed in g1 sender: send on closed channel"),
    (double_close, {}, "Closed in g. stop: close of closed channel"),
    (early_return, {"leaks": True}, "1 left behind when the function had returned"),
    (check_then_act, {}, "AssertionError in main"),
    (add_inside, {}, "AssertionError in main|RuntimeError"),
    (dropped_by_timeout, {}, "AssertionError in main"),
    (checked_twice, {}, "AssertionError in main"),
    (send_with_lock_held, {}, "all goroutines are blocked for ever"),
]
NAMES = [bug.__name__ for bug, _, _ in BUGS]


@pytest.mark.parametrize("strategy", ["pct", "random"])
@pytest.mark.parametrize(("bug", "how", "reason"), BUGS, ids=NAMES)
def test_each_bug_is_found(bug: Callable[[bool], None], how: dict[str, object], reason: str, strategy: str) -> None:
    for seed in range(3):
        found = failure(lambda: bug(False), schedules=SCHEDULES, seed=seed, strategy=strategy, **how)
        assert re.match(reason, found.reason), found.reason
        assert 1 <= found.schedule <= SCHEDULES
        print(f"{bug.__name__}: {strategy}, seed {seed}: schedule {found.schedule}")


@pytest.mark.parametrize("strategy", ["pct", "random"])
@pytest.mark.parametrize(("bug", "how", "reason"), BUGS, ids=NAMES)
def test_the_correct_program_passes(
    bug: Callable[[bool], None], how: dict[str, object], reason: str, strategy: str
) -> None:
    schedules = count(300)
    report = explore(lambda: bug(True), schedules=schedules, seed=5, strategy=strategy, **how)  # type: ignore[arg-type]
    assert (report.schedules, report.seed) == (schedules, 5)
    assert report.steps > 0


@pytest.mark.parametrize(("bug", "how", "reason"), BUGS, ids=NAMES)
def test_a_schedule_is_repeated_exactly(bug: Callable[[bool], None], how: dict[str, object], reason: str) -> None:
    def program() -> None:
        bug(False)

    found = failure(program, seed=11, **how)
    for _ in range(3):
        with pytest.raises(ScheduleFailure) as again:
            replay(program, found.seed, leaks=bool(how.get("leaks")))
        assert again.value.reason == found.reason
        assert again.value.trace == found.trace
        assert type(again.value.__cause__) is type(found.__cause__)


def test_a_schedule_is_repeated_in_another_process() -> None:
    program = """
        from goslings import AtomicInt, WaitGroup, select, recv, send, chan
        from goslings.testing import ScheduleFailure, explore, replay
        def program():
            number, group, out = AtomicInt(), WaitGroup(), chan(3)
            def work(amount):
                select(send(out, amount), recv(chan()))
                number.store(number.load() + amount)
            for amount in {1, 2, 3}:
                group.go(work, amount)
            group.wait()
            assert number.load() == 6
        try:
            explore(program, seed=3)
        except ScheduleFailure as failure:
            print(failure.seed)
            for step in failure.trace:
                print(step.number, step.who, step.what, step.notes, step.line)
            try:
                replay(program, failure.seed)
            except ScheduleFailure as again:
                print(again.trace == failure.trace)
    """
    told = {check_child(program, env={"PYTHONHASHSEED": seed}) for seed in ("1", "2", "3")}
    assert len(told) == 1
    assert told.pop().endswith("True\n")


def test_the_cause_is_the_exception_itself() -> None:
    error = KeyError("mine")

    def program() -> None:
        raise error

    found = failure(program)
    assert found.__cause__ is error
    assert found.reason == "KeyError in main: 'mine'"
    assert found.schedule == 1


def test_the_message_tells_the_seed_and_the_steps() -> None:
    def program() -> None:
        numbers = chan[int]()
        reader = go(numbers.recv)
        reader.name = "reader"
        numbers.send(1)
        reader.result()
        raise ValueError("at the end")

    text = str(failure(program, seed=1))
    assert "ValueError in main: at the end" in text
    assert re.search(r"replay\(fn, 'fifo-operations-idle-1'\)", text)
    assert re.search(r"main +chan.send → waits \(chan send\) +test_explore.py:\d+ +numbers.send\(1\)", text)
    assert re.search(r"reader +.*wakes main", text)


def test_a_deadlock_tells_who_waits_for_what() -> None:
    found = failure(lambda: lock_order(False), seed=1)
    assert type(found.__cause__).__name__ == "Deadlock"
    text = str(found.__cause__)
    assert text.count("sync.Mutex.Lock at") == 2 and "main: " in text and "test_explore.py:" in text


def test_a_livelock_is_given_up() -> None:
    def program() -> None:
        flag = AtomicInt()
        while not flag.load():
            gosched()

    found = failure(program, steps=500)
    assert "no end after 501 steps" in found.reason


def test_who_spins_for_another_lets_it_run() -> None:
    def program() -> None:
        flag = AtomicInt()
        go(flag.store, 1)
        while not flag.load():
            pass

    explore(program, schedules=200, seed=1)


def test_goroutines_that_are_left_are_told_only_if_asked() -> None:
    ended: list[int] = []

    def program() -> None:
        def left() -> None:
            try:
                chan[int]().recv()
            finally:
                ended.append(1)

        go(left)
        gosched()

    explore(program, schedules=10)
    assert len(ended) == 10
    assert "left behind" in failure(program, leaks=True, schedules=10).reason


def test_goroutines_that_end_by_themselves_are_not_left() -> None:
    explore(lambda: go(sleep, 100) and None, schedules=50, leaks=True)

    def ticking() -> None:
        def tick() -> None:
            for _ in Ticker(1):
                pass

        go(tick)

    assert "left behind" in failure(ticking, leaks=True).reason
    explore(ticking, schedules=10)


def test_a_failure_that_is_read_is_no_failure() -> None:
    def program() -> None:
        assert isinstance(go(lambda: 1 // 0).exception(), ZeroDivisionError)

    explore(program, schedules=50)

    def unread_one() -> None:
        go(lambda: 1 // 0).join()

    assert failure(unread_one).reason.startswith("ZeroDivisionError in g1 <lambda>: ")
    assert isinstance(failure(unread_one).__cause__, ZeroDivisionError)


def test_time_is_virtual() -> None:
    def program() -> None:
        began = time.monotonic()
        sleep(86_400)
        assert time.monotonic() - began == 86_400
        with pytest.raises(TimeoutError):
            chan[int]().recv(timeout=86_400)

    began = time.monotonic()
    explore(program, schedules=100)
    assert time.monotonic() - began < 20


def test_timers_may_fire_early_if_asked() -> None:
    def program() -> None:
        numbers = chan[int](1)
        go(numbers.send, 1)
        assert select(recv(numbers), timeout=1000) is not None

    explore(program, schedules=300, seed=1)
    assert failure(program, timers="any", seed=1).__cause__


def test_select_chooses_by_the_seed() -> None:
    def program() -> None:
        a, b = chan[int](1), chan[int](1)
        a.send(1)
        b.send(2)
        match select(recv(a), recv(b)):
            case Selected(1):
                raise AssertionError("the second")

    found = failure(program)
    for _ in range(5):
        with pytest.raises(ScheduleFailure):
            replay(program, found.seed)


def test_dice_are_thrown_by_the_seed() -> None:
    def program() -> None:
        assert random.random() < 0.95

    found = failure(program)
    state = random.getstate()
    with pytest.raises(ScheduleFailure):
        replay(program, found.seed)
    assert random.getstate() == state


def test_every_kind_of_object_takes_part() -> None:
    """Two schedules differ in who comes first, whatever it is that both do."""

    def order_of(operation: Callable[[], Callable[[], object]]) -> set[tuple[int, ...]]:
        seen: set[tuple[int, ...]] = set()

        def program() -> None:
            act, order, group = operation(), list[int](), WaitGroup()

            def work(number: int) -> None:
                act()
                order.append(number)

            group.go(work, 0)
            group.go(work, 1)
            group.wait()
            seen.add(tuple(order))

        explore(program, schedules=60, seed=1)
        return seen

    def on[T](make: Callable[[], T], act: Callable[[T], object]) -> Callable[[], Callable[[], object]]:
        def operation() -> Callable[[], object]:
            made = make()
            return lambda: act(made)

        return operation

    operations: dict[str, Callable[[], Callable[[], object]]] = {
        "chan": on(lambda: chan[int](2), lambda ch: ch.send(1)),
        "select": on(lambda: chan[int](2), lambda ch: select(send(ch, 1))),
        "Mutex": on(Mutex, lambda mutex: mutex.lock() or mutex.unlock()),
        "RWMutex": on(RWMutex, lambda mutex: mutex.rlock() or mutex.runlock()),
        "Semaphore": on(lambda: Semaphore(2), lambda semaphore: semaphore.acquire()),
        "Event": on(Event, lambda event: event.set()),
        "AtomicInt": on(AtomicInt, lambda number: number.add()),
        "Map": on(Map[int, int], lambda found: found.load(1)),
        "Once": on(Once, lambda once: once.do(int)),
        "SingleFlight": on(SingleFlight, lambda flight: flight.do("key", int)),
        "sleep": lambda: lambda: sleep(1),
        "gosched": lambda: gosched,
        "go": lambda: lambda: go(int).join(),
    }
    for name, operation in operations.items():
        assert order_of(operation) == {(0, 1), (1, 0)}, name


def test_lines_are_steps_if_asked() -> None:
    def program() -> None:
        number, group = Number(), WaitGroup()

        def work() -> None:
            before = number.value
            number.value = before + 1

        group.go(work)
        group.go(work)
        group.wait()
        assert number.value == 2

    explore(program, schedules=100, seed=1)
    found = failure(program, seed=1, preempt="lines")
    assert any(step.what == "line" and "number.value" in step.source for step in found.trace)
    with pytest.raises(ScheduleFailure) as again:
        replay(program, found.seed)
    assert again.value.trace == found.trace
    # The tool of sys.monitoring is free again.
    assert all(sys.monitoring.get_tool(number) != "goslings.testing" for number in range(6))


def test_async_goroutines_make_way_where_they_await() -> None:
    def program(correct: bool) -> None:
        number, group, mutex = Number(), WaitGroup(), Mutex()

        async def work() -> None:
            if correct:
                await mutex.alock()
            before = number.value or 0
            await goslings.agosched()
            number.value = before + 1
            if correct:
                mutex.unlock()
            group.done()

        group.add(2)
        go(work)
        go(work)
        group.wait()
        assert number.value == 2

    def order() -> None:
        out = chan[int](2)

        async def work(number: int) -> None:
            await out.asend(number)

        go(work, 1)
        go(work, 2)
        assert [out.recv(), out.recv()] == [1, 2]

    explore(lambda: program(True), schedules=200, seed=1)
    for bug in order, lambda: program(False):
        found = failure(bug, seed=1)
        with pytest.raises(ScheduleFailure) as again:
            replay(bug, found.seed)
        assert again.value.trace == found.trace


def test_threads_are_errors() -> None:
    def thread() -> None:
        threading.Thread(target=int).start()

    assert "a thread in an explored function" in failure(thread).reason
    real = threading.Thread.start
    explore(lambda: None, schedules=2)
    assert threading.Thread.start is real
    thread()


def test_blocking_is_an_error() -> None:
    assert "blocking in an explored function" in failure(lambda: blocking(int)).reason


def test_runs_cannot_be_nested() -> None:
    assert "cannot be nested" in failure(lambda: explore(int)).reason


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"fn": 5}, TypeError),
        ({"fn": int, "strategy": "best"}, ValueError),
        ({"fn": int, "preempt": "often"}, ValueError),
        ({"fn": int, "timers": "never"}, ValueError),
    ],
)
def test_wrong_arguments(how: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        explore(**how)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", ["", "5", "pct-3", "fifo-operations-idle-xyz"])
def test_what_is_no_seed(seed: str) -> None:
    with pytest.raises(ValueError, match="not a seed"):
        replay(int, seed)


def test_a_run_leaves_nothing_behind() -> None:
    gc.collect()
    before = goslings.num_goroutine()
    with pytest.raises(ScheduleFailure):
        explore(lambda: lock_order(False), seed=1)
    explore(lambda: early_return(False), schedules=100)
    assert goslings.num_goroutine() == before
    assert gc.isenabled()
    assert current() is None
    assert not goslings.testing._bubbles._patch._users


def test_from_a_goroutine_and_several_at_once() -> None:
    runs = [go(explore, lambda: lock_order(True), 50, seed) for seed in range(4)]
    assert [run.result(30).seed for run in runs] == [0, 1, 2, 3]


def test_other_goroutines_go_on_meanwhile() -> None:
    ticks = AtomicInt()
    quit = Event()

    def other() -> None:
        while not quit.is_set():
            ticks.add()
            gosched()

    beside = go(other)
    explore(lambda: lock_order(True), schedules=100, seed=1)
    quit.set()
    beside.result(20)
    assert ticks.load() > 0


def test_an_import_is_no_step() -> None:
    """Else the first run would differ from the others, in which the module is there already."""
    program = """
        import sys
        from goslings import go, AtomicInt
        from goslings.testing import ScheduleFailure, explore, replay
        def program():
            number = AtomicInt()
            def work():
                import colorsys
                number.add()
            both = go(work), go(work)
            for one in both:
                one.result()
            sys.modules.pop("colorsys")
            assert False
        try:
            explore(program, seed=1)
        except ScheduleFailure as failure:
            try:
                replay(program, failure.seed)
            except ScheduleFailure as again:
                print(again.trace == failure.trace, {step.what for step in again.trace})
    """
    told = check_child(program)
    assert told.startswith("True") and "Mutex" not in told


def test_a_hang_in_foreign_code_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("goslings.testing._explore._STALL_SECONDS", 1.0)
    lock = threading.Lock()
    lock.acquire()
    with pytest.raises(RuntimeError, match="has not taken a step"):
        try:
            explore(lambda: lock.acquire(timeout=5), schedules=1)
        finally:
            lock.release()


def test_the_environment_gives_the_seed() -> None:
    program = "from goslings.testing import explore; print(explore(int, 3).seed)"
    done = subprocess.run(
        [sys.executable, "-c", program], env={"GOSLINGS_SEED": "77"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "77\n"


def test_the_guide_and_the_docstring_are_true() -> None:
    guide = Path(__file__).resolve().parent.parent / "docs" / "testing.md"
    told = doctest.testfile(str(guide), module_relative=False)
    assert (told.failed, told.attempted > 10) == (0, True)
    assert doctest.testmod(goslings.testing).failed == 0
