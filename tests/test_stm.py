"""goslings.stm: transactions are serial to whoever looks, wait where they should, and leave nothing half done."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import operator
import pickle
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import goslings
import pytest
from goslings import Group, chan, go, gosched, select, sleep, stm
from goslings.stm import TMap, TQueue, TVar, aatomically, atomic, atomically, check, on_commit, or_else, retry, stats
from helpers import SECONDS, check_child, count, results, state, until, waits
from hypothesis import given, settings
from hypothesis import strategies as st

RETRY = "transaction retry"


def test_a_transaction_sees_its_own_writes_and_others_see_them_when_it_commits() -> None:
    x, seen = TVar(1), []

    def change() -> int:
        x.set(2)
        other = threading.Thread(target=lambda: seen.append(x.get()))
        other.start()
        other.join()
        x.set(x.get() + 1)
        return x.get()

    assert (atomically(change), x.get(), seen) == (3, 3, [1])


def test_outside_a_transaction_each_call_is_one_of_its_own() -> None:
    x = TVar(1)
    x.set(5)
    assert (x.get(), x.modify(operator.mul, 2), x.get()) == (5, 10, 10)


def test_an_exception_undoes_everything_and_comes_through() -> None:
    x, y = TVar(1), TVar([1])
    kept = y.get()

    def fail() -> None:
        x.set(2)
        y.set([2])
        on_commit(pytest.fail, "was called")
        raise KeyError("out")

    with pytest.raises(KeyError, match="out"):
        atomically(fail)
    assert x.get() == 1 and y.get() is kept


def test_a_nested_transaction_that_raises_undoes_its_own_part_only() -> None:
    x, called = TVar(0), []

    @atomic
    def inner(n: int) -> None:
        x.modify(operator.add, n)
        on_commit(called.append, n)
        if n > 10:
            raise ValueError(n)

    @atomic
    def outer() -> int:
        inner(1)
        with pytest.raises(ValueError):
            inner(100)
        inner(2)
        return x.get()

    assert outer() == 3
    assert (x.get(), called) == (3, [1, 2])


def test_arguments_results_and_the_decorators_name() -> None:
    x = TVar(1)

    @atomic
    def add(a: int, *, b: int = 0) -> int:
        """Adds."""
        x.set(x.get() + a + b)
        return x.get()

    assert (add(1, b=2), add.__name__, add.__doc__) == (4, "add", "Adds.")
    assert atomically(add, 1, b=1) == 6


def test_misuse_raises_and_says_what_to_do() -> None:
    async def coroutine() -> None:
        pass

    for call, error, text in (
        (retry, RuntimeError, "outside a transaction"),
        (lambda: check(False), RuntimeError, "outside a transaction"),
        (lambda: or_else(int, int), RuntimeError, "outside a transaction"),
        (lambda: on_commit(int), RuntimeError, "outside a transaction"),
        (lambda: atomically(or_else), TypeError, "needs functions"),
        (lambda: atomically(on_commit, 3), TypeError, "needs a function, not int"),
        (lambda: atomic(coroutine), TypeError, "ordinary function"),
        (lambda: atomically(coroutine), TypeError, "ordinary function"),
        (lambda: atomically(3), TypeError, "not callable"),
        (lambda: TQueue(-1), ValueError, "negative"),
    ):
        with pytest.raises(error, match=text):
            call()  # type: ignore[operator]
    assert check(True) is None
    for refused in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="TVar"):
            refused(TVar(1))


@pytest.mark.parametrize(
    "effect",
    [
        lambda ch: ch.send(1),
        lambda ch: ch.try_send(1),
        lambda ch: ch.try_recv("none"),
        lambda ch: ch.close(),
        lambda ch: select(goslings.recv(ch), timeout=0),
        lambda ch: sleep(0),
        lambda ch: gosched(),
        lambda ch: go(int),
        lambda ch: goslings.Mutex().lock(),
        lambda ch: goslings.Event().set(),
        lambda ch: goslings.WaitGroup().wait(),
    ],
)
def test_what_others_notice_is_refused_in_a_transaction_and_on_commit_is_named(effect: Any) -> None:
    ch = chan(1)
    with pytest.raises(RuntimeError, match=r"in a transaction, which may run more than once: .* on_commit\(fn"):
        atomically(effect, ch)
    assert len(ch) == 0 and not ch.closed
    ch.send(1)  # and outside nothing is refused
    assert atomically(lambda: len(ch)) == 1


def test_on_commit_runs_once_after_the_commit_in_order_and_all_of_it() -> None:
    x, ch, seen = TVar(0), chan(10), []

    def fails() -> None:
        seen.append("fails")
        raise KeyError("first")

    def body() -> str:
        x.set(x.get() + 1)
        on_commit(lambda: seen.append(x.get()))
        on_commit(fails)
        on_commit(ch.send, "sent")
        return "result"

    with pytest.raises(KeyError, match="first"):
        atomically(body)
    assert (seen, ch.recv(), x.get()) == ([1, "fails"], "sent", 1)


def test_retry_waits_until_something_that_was_read_changes() -> None:
    x, y, other, runs = TVar(0), TVar(0), TVar(0), []

    def wait() -> tuple[int, int]:
        runs.append(1)
        a = x.get()
        if a < 2:
            retry()
        check(y.get() > 0)
        return a, y.get()

    g = waits(go(atomically, wait), RETRY)
    other.set(1)  # not read
    x.set(1)  # read: runs again, and waits again
    until(lambda: len(runs) == 2 and state(g) == RETRY)
    x.set(5)
    until(lambda: len(runs) == 3 and state(g) == RETRY)
    y.set(7)
    assert g.result(SECONDS) == (5, 7)
    assert len(runs) == 4


@pytest.mark.parametrize("who", ["thread", "goroutine", "async goroutine", "asyncio task"])
def test_everybody_can_wait_and_be_woken(who: str) -> None:
    x, got = TVar(0), chan(1)

    def take() -> int:
        check(x.get())
        value = x.get()
        x.set(0)
        return value

    async def atake() -> None:
        value = await aatomically(take)
        await got.asend(value)

    wakers: dict[str, Callable[[], Any]] = {
        "thread": lambda: threading.Thread(target=lambda: got.send(atomically(take)), daemon=True).start(),
        "goroutine": lambda: go(lambda: got.send(atomically(take))),
        "async goroutine": lambda: go(atake),
        "asyncio task": lambda: threading.Thread(target=asyncio.run, args=(atake(),), daemon=True).start(),
    }
    before = stats().retries
    kept = wakers[who]()
    until(lambda: stats().retries > before)
    x.set(42)
    assert got.recv(timeout=SECONDS) == 42
    assert x.get() == 0
    del kept


def test_atomically_in_a_coroutine_names_its_twin() -> None:
    async def wrong() -> None:
        atomically(int)

    with pytest.raises(RuntimeError, match=r"await aatomically\(...\)"):
        go(wrong).result(SECONDS)
    with pytest.raises(RuntimeError, match=r"await aatomically\(...\)"):
        asyncio.run(wrong())

    async def right() -> int:
        x = TVar(1)
        x.set(2)
        return x.get() + await aatomically(atomically, x.get)

    assert go(right).result(SECONDS) == asyncio.run(right()) == 4


def test_cancelling_whoever_waits_loses_nothing() -> None:
    x = TVar(0)

    def take() -> None:
        check(x.get())
        x.modify(operator.sub, 1)

    takers = [waits(go(atomically, take), RETRY) for _ in range(10)]
    for taker in takers[::2]:
        assert taker.cancel()
    for _ in range(5):
        x.modify(operator.add, 1)
    for taker in takers[1::2]:
        taker.result(SECONDS)
    assert all(taker.join(SECONDS) and taker.cancelled() for taker in takers[::2])
    assert x.get() == 0

    async def main() -> None:
        task = asyncio.create_task(aatomically(take))
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        x.set(1)
        await aatomically(take)

    asyncio.run(main())
    assert x.get() == 0


def test_or_else_takes_the_first_that_does_not_retry_and_undoes_the_others() -> None:
    x, y, z = TVar(0), TVar(0), TVar(0)

    def first() -> str:
        z.set(100)
        on_commit(pytest.fail, "was undone")
        check(x.get())
        return "first"

    def second() -> str:
        assert z.get() == 0
        check(y.get())
        z.set(2)
        return "second"

    assert atomically(or_else, first, second, lambda: "third") == "third"
    g = waits(go(atomically, or_else, first, second), RETRY)
    y.set(1)
    assert (g.result(SECONDS), z.get()) == ("second", 2)
    y.set(0)
    z.set(0)
    g = waits(go(atomically, or_else, lambda: (check(x.get()), "x")[1], second), RETRY)
    x.set(1)  # read by the first only
    assert g.result(SECONDS) == "x"

    def fails() -> None:
        z.set(3)
        raise ValueError("not a retry")

    with pytest.raises(ValueError, match="not a retry"):
        atomically(or_else, fails, second)
    assert z.get() == 0


def test_swallowing_a_retry_or_a_conflict_does_not_commit() -> None:
    x, y, attempts = TVar(0), TVar(0), []

    def body() -> str:
        attempts.append(1)
        for step in (lambda: check(x.get()), lambda: y.set(len(attempts))):
            with contextlib.suppress(BaseException):
                step()
        return "went on"

    g = waits(go(atomically, body), RETRY)
    assert y.get() == 0
    x.set(1)
    assert g.result(SECONDS) == "went on"
    assert y.get() == 2


def test_a_conflict_runs_again_and_no_write_is_lost(two_workers: None) -> None:
    x, n = TVar(0), count(2000)

    def add() -> None:
        value = x.get()
        if random.random() < 0.01:
            time.sleep(0)  # somebody else may come in between
        x.set(value + 1)

    threads = [threading.Thread(target=lambda: [atomically(add) for _ in range(n)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    results([go(lambda: [atomically(add) for _ in range(n)]) for _ in range(4)])
    for thread in threads:
        thread.join()
    assert x.get() == 6 * n


def test_money_is_conserved_and_every_snapshot_is_consistent(two_workers: None) -> None:
    accounts = [TVar(100) for _ in range(32)]
    rounds, wrong = count(1500), []

    def transfer(a: int, b: int, amount: int) -> None:
        accounts[a].modify(operator.sub, amount)
        accounts[b].modify(operator.add, amount)
        if amount == 7:
            raise ArithmeticError("never mind")

    def look() -> None:
        total = sum(account.get() for account in accounts)
        if total != 3200:  # in an attempt that may be lost, too
            wrong.append(total)

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for i in range(rounds):
            try:
                atomically(transfer, chance.randrange(32), chance.randrange(32), chance.randrange(10))
            except ArithmeticError:
                pass
            if i % 10 == 0:
                atomically(look)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    results([go(work, 10 + i) for i in range(4)])
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(account.get() for account in accounts) == 3200


def test_write_skew_is_impossible(two_workers: None) -> None:
    # Two doctors on call, each may leave if the other stays.
    for _ in range(count(300)):
        here = [TVar(True), TVar(True)]

        def leave(me: int, here: list[TVar[bool]] = here) -> None:
            if here[1 - me].get():
                here[me].set(False)

        results([go(atomically, leave, 0), go(atomically, leave, 1)])
        assert [one.get() for one in here].count(True) == 1


def test_a_long_transaction_comes_through_beside_many_short_ones(two_workers: None) -> None:
    cells, stop = [TVar(0) for _ in range(60)], []

    def short(i: int) -> None:
        while not stop:
            cells[i % 60].modify(operator.add, 1)
            i += 7
            gosched()

    def long() -> int:
        total = 0
        for cell in cells:
            total += cell.get()
            time.sleep(0.0002)
        cells[0].set(cells[0].get())
        return total

    before = stats().turns
    greedy = [go(short, i) for i in range(4)]
    for _ in range(3):
        assert go(atomically, long).result(SECONDS) >= 0
    stop.append(1)
    results(greedy)
    assert stats().turns >= before


def test_goroutines_that_take_turns_in_the_middle_keep_their_transactions_apart(one_worker: None) -> None:
    x, y = TVar(0), TVar(0)
    order = random.Random(1)

    def body(mine: TVar[int]) -> int:
        before = mine.get()
        for _ in range(3):
            # Any call may let others run: here the goroutine is interrupted as by preemption.
            if order.random() < 0.5:
                end = time.monotonic() + 0.012
                while time.monotonic() < end:
                    pass
            mine.set(mine.get() + 1)
        return mine.get() - before

    goroutines = [go(atomically, body, (x, y)[i % 2]) for i in range(6)]
    assert results(goroutines) == [3] * 6
    assert (x.get(), y.get()) == (9, 9)


def test_a_variable_may_hold_itself_and_is_collected(collect: None) -> None:
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    x: TVar[Any] = TVar(None)
    x.set((x, thing))
    assert "tuple" in repr(x)
    del thing, x
    gc.collect()
    assert gone() is None


def test_what_a_variable_held_goes_with_it_at_once() -> None:
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    x: TVar[Any] = TVar(thing)
    del thing
    assert atomically(x.get) is gone()
    del x
    assert gone() is None


def test_a_variable_made_and_given_up_in_a_transaction() -> None:
    class Thing:
        pass

    gone = []

    def body(number: int) -> int:
        for _ in range(number):
            thing = Thing()
            gone.append(weakref.ref(thing))
            lost = TVar(thing)
            assert lost.get() is thing
            lost.set((lost, thing))  # dropped with the transaction's writes, or by a collection
            del thing, lost
        gc.collect()
        return number

    assert atomically(body, 3) == 3
    assert atomically(body, 30) == 30
    until(lambda: not gc.collect() and not [ref for ref in gone if ref() is not None])


def test_a_variable_that_many_threads_have_used_is_collected(two_workers: None, collect: None) -> None:
    class Thing:
        pass

    x: TVar[Any] = TVar(Thing())
    held, gone = weakref.ref(x.get()), weakref.ref(x)

    def work(x: TVar[Any]) -> None:
        for _ in range(2_000):
            atomically(x.get)

    for thread in [threading.Thread(target=work, args=(x,)) for _ in range(3)]:
        thread.start()
        thread.join()
    x.set((x, x.get()))
    del x
    until(lambda: not gc.collect() and gone() is None and held() is None)


def test_readers_beside_writers_count_every_value(two_workers: None) -> None:
    """What two threads read while a third exchanges it is whole, and nothing is freed twice or never."""
    alive = goslings.AtomicInt(0)

    class Value:
        def __init__(self, number: int) -> None:
            self.number = number
            alive.add(1)

        def __del__(self) -> None:
            self.number = -1
            alive.add(-1)

    variables = tuple(TVar(Value(0)) for _ in range(4))

    def look() -> set[int]:
        return {variable.get().number for variable in variables}

    def put(number: int) -> None:
        for variable in variables:
            variable.set(Value(number))

    def read() -> int:
        seen = 0
        for _ in range(3_000):
            numbers = atomically(look)
            assert len(numbers) == 1 and -1 not in numbers
            assert variables[0].get().number >= seen
            seen = max(seen, *numbers)
        return seen

    def write() -> None:
        for number in range(1, 2_000):
            atomically(put, number)

    readers = [go(read) for _ in range(3)]
    thread = threading.Thread(target=write)
    thread.start()
    results(readers)
    thread.join()
    until(lambda: not gc.collect() and alive.load() == 4)
    assert atomically(look) == {1_999}


def test_finalizers_may_run_transactions() -> None:
    freed = TVar(0)

    class Counts:
        def __del__(self) -> None:
            freed.modify(operator.add, 1)

    x: TVar[Any] = TVar(Counts())

    def body() -> None:
        x.set(Counts())
        x.set(Counts())
        x.set(None)

    atomically(body)
    gc.collect()
    until(lambda: freed.get() == 3)


def test_ctrl_c_in_a_transaction_leaves_some_serial_order() -> None:
    out = check_child(
        """
        import signal
        from goslings.stm import TVar, atomically, check
        a, b = TVar(0), TVar(0)
        def both():
            a.set(a.get() + 1)
            for _ in range(50): pass
            b.set(b.get() + 1)
        hits = 0
        def interrupt(*_):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, interrupt)
        def for_ever():  # a function of its own: 3.14 does not see a jump back as part of its `try`
            while True:
                atomically(both)
                assert a.get() == b.get()
        for _ in range(60):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.003)
                for_ever()
            except KeyboardInterrupt:
                hits += 1
            assert a.get() == b.get(), (a, b)
        print(hits)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            atomically(lambda: check(a.get() < 0))
        except KeyboardInterrupt:
            print("out of retry")
        """,
        seconds=100,
    )
    assert out == "60\nout of retry\n"


def test_deadlock_is_found_where_nobody_can_change_what_was_read() -> None:
    out = check_child(
        """
        import goslings
        from goslings.stm import TVar, atomically, check
        x = TVar(0)
        try:
            atomically(lambda: check(x.get()))
        except goslings.Deadlock as error:
            print("transaction retry" in str(error))
        """
    )
    assert out == "True\n"


def test_after_a_fork_in_and_beside_transactions() -> None:
    out = check_child(
        """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from goslings import go, sleep
        from goslings.stm import TVar, atomically, check
        x, y = TVar(0), TVar(0)
        waiting = [go(atomically, lambda: check(x.get())) for _ in range(5)]
        while any("retry" not in repr(g) for g in waiting):
            sleep(0.001)
        def forks():
            y.set(1)
            pid = os.fork()
            y.set(2)
            return pid
        pid = atomically(forks)
        if pid == 0:
            x.set(1)  # those that waited do not exist here
            g = go(atomically, lambda: check(y.get() == 3))
            y.set(3)
            g.result()
            os._exit(y.get())
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), y.get())
        x.set(1)
        for g in waiting:
            g.result()
        """
    )
    assert out == "3 2\n"


def test_explore_finds_a_race_between_two_transactions_and_none_within_one() -> None:
    from goslings.testing import explore

    def broken() -> None:
        x = TVar(0)

        def add() -> None:
            value = atomically(x.get)
            atomically(x.set, value + 1)

        with Group() as group:
            group.go(add)
            group.go(add)
        assert x.get() == 2

    def right() -> None:
        x = TVar(0)

        def add() -> None:
            atomically(lambda: x.set(x.get() + 1))

        with Group() as group:
            group.go(add)
            group.go(add)
        assert x.get() == 2

    def waits_for_nobody() -> None:
        x = TVar(0)
        go(atomically, lambda: check(x.get() == 1))
        atomically(lambda: check(x.get() == 2))

    with pytest.raises(Exception, match="to repeat it") as found:
        explore(broken, schedules=300, seed=1)
    assert "TVar" in str(found.value) or "stm" in str(found.value)
    explore(right, schedules=100, seed=1)
    with pytest.raises(Exception, match="all goroutines are blocked for ever"):
        explore(waits_for_nobody, schedules=5, seed=1)


def test_stats_count() -> None:
    x, before = TVar(0), stats()
    atomically(x.set, 1)
    atomically(x.get)
    g = waits(go(atomically, lambda: check(x.get() == 2)), RETRY)
    x.set(2)
    g.result(SECONDS)
    now = stats()
    assert now.commits - before.commits >= 3 and now.retries - before.retries >= 1
    assert isinstance(now, stm.Stats)


# Laws, as properties: whatever random transactions do together, one after the other would have done.

Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["get", "set", "add", "move", "nest"]), st.integers(0, 3), st.integers(0, 3)),
    min_size=1,
    max_size=5,
)


class Model:
    """The same operations on plain numbers."""

    def __init__(self, values: list[int]) -> None:
        self.values = values

    def get(self, i: int) -> int:
        return self.values[i]

    def set(self, i: int, value: int) -> None:
        self.values[i] = value


class Real:
    def __init__(self, vars: list[TVar[int]]) -> None:
        self.vars = vars

    def get(self, i: int) -> int:
        return self.vars[i].get()

    def set(self, i: int, value: int) -> None:
        self.vars[i].set(value)


def perform(steps: list[Step], on: Any, nest: Callable[[Callable[[], None]], None]) -> tuple[int, ...]:
    seen = []
    for what, i, j in steps:
        if what == "get":
            seen.append(on.get(i))
        elif what == "set":
            on.set(i, 10 * j + 1)
        elif what == "add":
            on.set(i, on.get(i) + on.get(j) + 1)
        elif what == "move":
            a, b = on.get(i), on.get(j)
            on.set(i, b)
            on.set(j, a)
        else:

            def undone(i: int = i, j: int = j) -> None:
                on.set(i, -1)
                on.set(j, on.get(i) - 1)
                raise LookupError

            nest(undone)
    return tuple(seen)


def nest_real(part: Callable[[], None]) -> None:
    with pytest.raises(LookupError):
        atomically(part)


def nest_model(part: Callable[[], None]) -> None:
    pass  # what it does is undone


def permutations(items: list[int]) -> Iterator[list[int]]:
    if not items:
        yield []
    for i, item in enumerate(items):
        for rest in permutations(items[:i] + items[i + 1 :]):
            yield [item, *rest]


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, min_size=2, max_size=4))
def test_random_histories_are_serial(programs: list[list[Step]]) -> None:
    for turn in range(3):
        variables = [TVar(i) for i in range(4)]
        ready = chan()

        def run(steps: list[Step], variables: list[TVar[int]] = variables, ready: Any = ready) -> tuple[int, ...]:
            ready.recv_ok()
            return atomically(perform, steps, Real(variables), nest_real)

        goroutines = [go(run, steps) for steps in programs]
        ready.close()
        seen = results(goroutines)
        found = (seen, [variable.get() for variable in variables])
        possible = []
        for order in permutations(list(range(len(programs)))):
            model = Model(list(range(4)))
            answers: list[Any] = [None] * len(programs)
            for who in order:
                answers[who] = perform(programs[who], model, nest_model)
            possible.append((answers, model.values))
        assert found in possible, turn


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, min_size=2, max_size=3), st.integers(0, 1000))
def test_explored_histories_are_serial(programs: list[list[Step]], seed: int) -> None:
    from goslings.testing import explore

    def history() -> None:
        variables = [TVar(i) for i in range(4)]
        answers: list[Any] = [None] * len(programs)

        def run(who: int) -> None:
            answers[who] = atomically(perform, programs[who], Real(variables), nest_real)

        with Group() as group:
            for who in range(len(programs)):
                group.go(run, who)
        found = (answers, [variable.get() for variable in variables])
        for order in permutations(list(range(len(programs)))):
            model = Model(list(range(4)))
            expected: list[Any] = [None] * len(programs)
            for who in order:
                expected[who] = perform(programs[who], model, nest_model)
            if (expected, model.values) == found:
                return
        raise AssertionError(f"no serial order does {found}")

    explore(history, schedules=3, seed=seed)


def test_a_map_is_a_mapping_whose_keys_conflict_one_by_one() -> None:
    items = TMap[str, int]({"a": 1, "b": 2})
    assert (items["a"], len(items), sorted(items), "c" in items, items.get("c", 9)) == (1, 2, ["a", "b"], False, 9)
    items["c"] = 3
    del items["a"]
    with pytest.raises(KeyError, match="a"):
        items["a"]
    with pytest.raises(KeyError, match="a"):
        del items["a"]
    assert (items.snapshot(), items.pop("b"), items.setdefault("z", 5)) == ({"b": 2, "c": 3}, 2, 5)
    assert items.compact() == 2 and items.snapshot() == {"c": 3, "z": 5} == dict(items)
    assert repr(items) == "TMap({'c': 3, 'z': 5})"

    # A transaction that has touched one key is not disturbed by a change of another one, but by one of its own.
    def runs_beside(look: Callable[[], object], change: Callable[[], object]) -> int:
        runs = []

        def body() -> None:
            look()
            runs.append(1)
            if len(runs) == 1:
                thread = threading.Thread(target=change)
                thread.start()
                thread.join()
            items["out"] = len(runs)

        atomically(body)
        return len(runs)

    assert runs_beside(lambda: items["c"], lambda: items.update(z=6)) == 1
    assert runs_beside(lambda: items["c"], lambda: items.update(new=1)) == 1
    assert runs_beside(lambda: items["c"], lambda: items.update(c=4)) == 2
    assert runs_beside(lambda: items.get("not yet"), lambda: items.update({"not yet": 1})) == 2
    assert runs_beside(lambda: len(items), lambda: items.update(another=1)) == 2


def test_a_map_under_many_hands(two_workers: None) -> None:
    items, n = TMap[int, int](), count(300)

    def work(seed: int) -> int:
        chance, added = random.Random(seed), 0
        for _ in range(n):
            key = chance.randrange(20)

            def turn(key: int = key) -> int:
                if key in items:
                    del items[key]
                    return -1
                items[key] = seed
                return 1

            added += atomically(turn)
        return added

    total = sum(results([go(work, i) for i in range(6)]))
    assert total == len(items)


def test_a_queue_is_first_in_first_out_and_bounded() -> None:
    queue = TQueue[int](2)
    assert queue.empty() and queue.try_get("none") == "none"
    queue.put(1)
    assert queue.try_put(2) and not queue.try_put(3)
    g = waits(go(queue.put, 3), RETRY)
    assert (queue.peek(), len(queue), queue.get()) == (1, 2, 1)
    g.result(SECONDS)
    assert repr(queue) == "TQueue([2, 3])"
    assert [queue.get(), queue.get()] == [2, 3]
    g = waits(go(queue.get), RETRY)
    queue.put(4)
    assert g.result(SECONDS) == 4


@pytest.mark.parametrize("maxsize", [0, 1, 5])
def test_queues_lose_and_double_nothing(maxsize: int, two_workers: None) -> None:
    queue, n = TQueue[tuple[int, int]](maxsize), count(300)

    def put(who: int) -> None:
        for i in range(n):
            queue.put((who, i))

    def get() -> list[tuple[int, int]]:
        return [queue.get() for _ in range(n)]

    takers = [go(get) for _ in range(3)]
    givers = [go(put, who) for who in range(3)]
    results(givers)
    got = results(takers)
    assert sorted(item for part in got for item in part) == [(who, i) for who in range(3) for i in range(n)]
    for part in got:  # each giver's in order
        for who in range(3):
            own = [i for giver, i in part if giver == who]
            assert own == sorted(own)


def test_a_move_between_queues_is_one_step() -> None:
    a, b = TQueue[int](), TQueue[int]()
    for i in range(5):
        a.put(i)
    moved = go(lambda: [atomically(lambda: b.put(a.get())) for _ in range(6)])
    until(lambda: state(moved) == RETRY)
    assert atomically(lambda: len(a) + len(b)) == 5
    a.put(5)
    moved.result(SECONDS)
    assert [b.get() for _ in range(6)] == list(range(6))


def test_a_consumer_in_retry_uses_no_processor() -> None:
    out = check_child(
        """
        import time
        from goslings import go, sleep
        from goslings.stm import TVar, atomically, check
        x = TVar(0)
        waiting = [go(atomically, lambda: check(x.get())) for _ in range(100)]
        while any("retry" not in repr(g) for g in waiting):
            sleep(0.001)
        sleep(0.1)
        before = time.process_time()
        time.sleep(1)
        print(time.process_time() - before < 0.25)
        x.set(1)
        for g in waiting:
            g.result()
        """
    )
    assert out == "True\n"


def test_cancelled_in_the_middle_of_a_transaction_commits_nothing() -> None:
    x, begun, go_on = TVar(0), threading.Event(), threading.Event()

    def body() -> None:
        x.set(1)
        begun.set()
        go_on.wait(SECONDS)
        retry()  # the next point at which a cancellation is noticed

    g = go(atomically, body)
    begun.wait(SECONDS)
    assert g.cancel()
    go_on.set()
    assert g.join(SECONDS) and g.cancelled() and x.get() == 0
