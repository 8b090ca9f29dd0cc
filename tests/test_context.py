"""Context: rows X01 to X12 of the table of semantics."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest
from goslings import (
    Cancelled,
    Context,
    DeadlineExceeded,
    GoslingsError,
    RecvChan,
    after,
    background,
    chan,
    go,
    recv,
    select,
    stats,
    testing,
)
from helpers import SECONDS, churn, count, parked, results, until


def over(context: Context) -> bool:
    return select(recv(context.done), timeout=0) is not None


def deep(context: Context, levels: int) -> Context:
    for _ in range(levels):
        context = context.with_cancel()
    return context


# The root


def test_x01_background_never_ends() -> None:
    root = background()
    assert root is background() and isinstance(root, Context)
    assert (root.err(), root.cause(), root.deadline, root.value("key")) == (None, None, None, None)
    assert isinstance(root.done, RecvChan) and root.done is background().done
    assert not over(root) and root.done.try_recv("nothing") == "nothing"
    assert repr(root) == "<Context background>"
    with pytest.raises(RuntimeError, match="with_cancel"):
        root.cancel()
    with pytest.raises(RuntimeError, match="with_cancel"), root:
        pass
    assert root.err() is None
    g = go(select, recv(root.done), recv(root.with_value(1, 2).done), timeout=0.01)
    assert g.result(SECONDS) is None


def test_x01_nor_does_it_hold_up_the_clock_of_a_bubble() -> None:
    def main() -> None:
        waiting = go(select, recv(background().with_value(1, 2).done), recv(after(5)))
        picked = select(recv(background().done), recv(after(3600)), recv(None))
        assert picked.index == 1 and waiting.result(0).index == 1

    testing.virtual_time().run(main)


# Cancelling


def test_x02_cancelling_ends_all_descendants_and_nobody_else() -> None:
    parent = background().with_cancel()
    child, sibling = parent.with_cancel(), parent.with_cancel()
    grandchildren = [child.with_cancel(), child.with_value("a", 1).with_timeout(100), child.with_deadline(1e12)]
    child.cancel()
    assert [over(context) for context in (child, *grandchildren)] == [True] * 4
    assert [over(context) for context in (parent, sibling)] == [False] * 2
    assert parent.err() is None and sibling.err() is None
    parent.cancel()
    assert over(parent) and over(sibling)


def test_x02_cancelling_does_not_wait_for_the_work() -> None:
    context = background().with_cancel()
    told, release = chan(), chan()

    def work() -> None:
        context.done.recv_ok()
        told.close()
        release.recv_ok()

    g = go(work)
    context.cancel()
    told.recv_ok(SECONDS)
    assert not g.done()
    release.close()
    g.result(SECONDS)


def test_x02_many_cancel_at_once_and_all_have_ended_when_any_returns(two_workers: None, fast_switching: None) -> None:
    for _ in range(count(30)):
        parent = background().with_cancel()
        below = [context for _ in range(10) for context in (parent.with_cancel(), deep(parent, 3))]
        gate = chan()

        def cancel(parent: Context = parent, below: list[Context] = below, gate: Any = gate) -> bool:
            gate.recv_ok()
            parent.cancel()
            return all(context.done.closed and context.err() is not None for context in below)

        waiting = [go(cancel) for _ in range(20)]
        told: list[bool] = []
        threads = [threading.Thread(target=lambda told=told: told.append(cancel())) for _ in range(3)]
        for thread in threads:
            thread.start()
        gate.close()
        assert results(waiting) == [True] * 20
        for thread in threads:
            thread.join(SECONDS)
        assert told == [True] * 3


def test_x02_a_long_line_of_descendants_needs_no_recursion() -> None:
    parent = background().with_cancel()
    last = deep(parent, 20_000)
    parent.cancel()
    assert over(last)
    assert last.err() is parent.err()


def test_x02_a_context_manager_cancels_on_leaving() -> None:
    with background().with_timeout(1000) as context:
        assert not over(context)
    assert isinstance(context.err(), CancelledError) and over(context)
    with pytest.raises(KeyError), background().with_cancel() as context:
        raise KeyError("expected")
    assert over(context)


def test_x03_the_reason_is_there_when_the_channel_is_closed_and_the_other_way_round(
    two_workers: None, fast_switching: None
) -> None:
    for _ in range(count(300)):
        context = background().with_cancel()

        def by_channel(context: Context = context) -> bool:
            context.done.recv_ok()
            return context.err() is not None

        def by_reason(context: Context = context) -> bool:
            while context.err() is None:
                time.sleep(0)
            return context.done.closed

        waiting = [go(by_channel), go(by_channel)]
        told: list[bool] = []
        thread = threading.Thread(target=lambda told=told: told.append(by_reason()))
        thread.start()
        context.cancel()
        assert results(waiting) == [True, True]
        thread.join(SECONDS)
        assert told == [True]


def test_x03_a_child_of_an_ended_context_has_ended_from_birth() -> None:
    parent = background().with_cancel()
    why = OSError("why")
    parent.cancel(why)
    children = (
        parent.with_cancel(),
        parent.with_timeout(5),
        parent.with_timeout(-5),
        parent.with_value("a", 1),
        parent.with_value("a", 1).with_cancel(),
    )
    for child in children:
        assert over(child) and child.err() is parent.err() and child.cause() is why
    assert parent._children == {}


def test_x03_children_made_while_the_parent_is_cancelled_end_too(two_workers: None, fast_switching: None) -> None:
    for _ in range(count(200)):
        parent = background().with_cancel()
        made = go(lambda parent=parent: [parent.with_cancel() for _ in range(30)])
        parent.cancel()
        assert all(map(over, made.result(SECONDS)))
        assert parent._children == {}


def test_x04_the_first_cancel_sets_the_cause() -> None:
    context = background().with_cancel()
    assert context.err() is None and context.cause() is None
    child = context.with_cancel()
    early, why = OSError("early"), OSError("why")
    child.cancel(early)
    context.cancel(why)
    context.cancel(OSError("later"))
    context.cancel()
    assert isinstance(context.err(), CancelledError) and str(context.err()) == "context canceled"
    assert context.err() is context.err() and context.cause() is why
    assert child.cause() is early and isinstance(child.err(), CancelledError)
    assert context.with_cancel().cause() is why

    without = background().with_cancel()
    without.cancel(None)
    assert without.cause() is without.err()
    for wrong in ("why", OSError, 1):
        with pytest.raises(TypeError, match="cause must be an exception"):
            background().with_cancel().cancel(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="cause must be an exception"):
            background().with_timeout(1, cause=wrong)  # type: ignore[arg-type]


# Deadlines


def test_x05_a_deadline_ends_the_context() -> None:
    for context in (background().with_timeout(0.01), background().with_deadline(time.monotonic() + 0.01)):
        child = context.with_cancel()
        assert not over(context) or time.monotonic() > (context.deadline or 0)
        child.done.recv_ok(SECONDS)
        assert time.monotonic() >= (context.deadline or 0)
        assert isinstance(context.err(), DeadlineExceeded) and child.err() is context.err()
        assert context.cause() is context.err()


def test_x05_a_deadline_is_capped_by_the_parents() -> None:
    now = time.monotonic()
    with background().with_deadline(now + 100) as parent:
        assert parent.deadline == now + 100
        assert parent.with_timeout(1000).deadline == now + 100
        assert parent.with_deadline(now + 50).deadline == now + 50
        assert parent.with_cancel().with_value("a", 1).deadline == now + 100
        assert parent.without_cancel().deadline is None
        timers = stats().timers
        parent.with_timeout(1000)
        assert stats().timers == timers, "a timer that the parent's makes superfluous"
    forever = background().with_timeout(float("inf"))
    assert not over(forever)


def test_x05_one_in_the_past_is_done_at_once_and_stays_so() -> None:
    for context in (
        background().with_timeout(0),
        background().with_timeout(-1),
        background().with_timeout(float("-inf")),
        background().with_deadline(time.monotonic()),
        background().with_deadline(0),
    ):
        assert over(context) and isinstance(context.err(), DeadlineExceeded)
        err = context.err()
        context.cancel(OSError("too late"))
        assert context.err() is err and context.cause() is err


@pytest.mark.parametrize("wrong", ["1", None, object()])
def test_x05_what_is_no_time_is_refused(wrong: Any) -> None:
    for derive in (background().with_timeout, background().with_deadline):
        with pytest.raises(TypeError):
            derive(wrong)
        with pytest.raises(ValueError):
            derive(float("nan"))


def test_x06_the_cause_of_a_deadline_counts_if_the_deadline_ends_it() -> None:
    late, why = OSError("late"), OSError("why")
    context = background().with_timeout(0.001, cause=late)
    context.done.recv_ok(SECONDS)
    assert context.cause() is late and isinstance(context.err(), DeadlineExceeded)
    context = background().with_timeout(1000, cause=late)
    context.cancel(why)
    assert context.cause() is why
    context = background().with_deadline(time.monotonic() + 1000, cause=late)
    context.cancel()
    assert context.cause() is context.err()
    assert background().with_deadline(0, cause=late).cause() is late


def test_x07_a_deadline_is_a_timeout_and_a_cancellation_is_not() -> None:
    exceeded, canceled = background().with_timeout(0), background().with_cancel()
    canceled.cancel()
    err = exceeded.err()
    assert isinstance(err, TimeoutError) and isinstance(err, GoslingsError)
    assert str(err) == "context deadline exceeded"
    assert not isinstance(canceled.err(), TimeoutError | Cancelled) and isinstance(canceled.err(), Exception)
    with pytest.raises(TimeoutError):
        raise err


# Functions


def test_x08_a_function_runs_once_after_the_end_in_its_own_goroutine() -> None:
    context = background().with_cancel()
    ran = chan(10)
    stops = [context.after_func(lambda i=i: ran.send((i, threading.get_ident()))) for i in range(3)]
    assert len(ran) == 0
    assert stops[1]() is True and stops[1]() is False
    context.cancel()
    got = [ran.recv(SECONDS) for _ in range(2)]
    assert sorted(i for i, _ in got) == [0, 2]
    assert threading.get_ident() not in {ident for _, ident in got}
    assert [stop() for stop in stops] == [False] * 3
    context.cancel()
    context.after_func(lambda: ran.send("at once"))
    assert ran.recv(SECONDS) == "at once" and len(ran) == 0


def test_x08_stop_does_not_wait_for_the_function() -> None:
    context = background().with_cancel()
    begun, go_on = chan(), chan()

    def function() -> None:
        begun.close()
        go_on.recv_ok()

    stop = context.after_func(function)
    context.cancel()
    begun.recv_ok(SECONDS)
    assert stop() is False
    go_on.close()


def test_x08_of_stop_and_cancel_at_once_one_has_its_way(two_workers: None, fast_switching: None) -> None:
    for _ in range(count(300)):
        context = background().with_cancel()
        ran = chan(1)
        stop = context.after_func(lambda ran=ran: ran.send(1))
        canceller, stopper = go(context.cancel), go(stop)
        canceller.result(SECONDS)
        if not stopper.result(SECONDS):
            ran.recv(SECONDS)
        else:
            assert len(ran) == 0
        assert stop() is False
        assert context._children == {}


def test_x08_a_function_of_a_context_that_never_ends_can_be_stopped_once() -> None:
    for context in (background(), background().with_value("a", 1), background().with_cancel().without_cancel()):
        stop = context.after_func(lambda: None)
        assert stop() is True and stop() is False
    with pytest.raises(TypeError, match="callable"):
        background().after_func(None)  # type: ignore[arg-type]


def test_x08_a_function_that_fails_is_reported_and_holds_up_nobody(unread: list[Any]) -> None:
    context = background().with_cancel()
    ran = chan(2)
    context.after_func(lambda: ran.send(1))
    context.after_func(lambda: 1 // 0)
    context.after_func(lambda: ran.send(2))
    context.cancel()
    assert sorted([ran.recv(SECONDS), ran.recv(SECONDS)]) == [1, 2]
    until(lambda: unread)
    assert isinstance(unread.pop().exc_value, ZeroDivisionError)


# Values


def test_x09_without_cancel_keeps_the_values_alone() -> None:
    parent = background().with_value("who", "me").with_timeout(1000)
    kept = parent.without_cancel()
    child = kept.with_cancel()
    parent.cancel(OSError("why"))
    assert not over(kept) and not over(child)
    assert (kept.err(), kept.cause(), kept.deadline, kept.value("who")) == (None, None, None, "me")
    assert child.value("who") == "me"
    with pytest.raises(RuntimeError, match="with_cancel"):
        kept.cancel()
    child.cancel()
    assert over(child) and not over(kept)


def test_x10_the_nearest_value_of_an_equal_key_is_found() -> None:
    base = background().with_value("a", 1).with_value("b", 2)
    inner = base.with_cancel().with_value("a", 3).with_timeout(1000)
    assert (base.value("a"), inner.value("a"), inner.value("b"), inner.value("c")) == (1, 3, 2, None)
    assert inner.value("".join(["", "a"])) == 3
    inner.cancel()
    assert inner.value("a") == 3


def test_x10_keys_of_different_types_never_collide() -> None:
    class Name(str):
        pass

    context = background().with_value(1, "int").with_value(True, "bool").with_value(1.0, "float")
    context = context.with_value("x", "str").with_value(Name("x"), "Name").with_value((1,), "tuple")
    for key, kind in ((1, "int"), (True, "bool"), (1.0, "float"), ("x", "str"), (Name("x"), "Name"), ((1,), "tuple")):
        assert context.value(key) == kind
    assert context.value(0) is None and context.value(None) is None
    nan = float("nan")
    assert context.with_value(nan, 5).value(nan) == 5


def test_x10_bad_keys_and_parents_are_refused() -> None:
    with pytest.raises(TypeError, match="None"):
        background().with_value(None, 1)
    with pytest.raises(TypeError, match="unhashable"):
        background().with_value([], 1)
    for parent in (None, object()):
        with pytest.raises(TypeError, match="`done` and `err`"):
            Context.with_cancel(parent)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="`done` and `err`"):
            Context.with_value(parent, 1, 2)  # type: ignore[arg-type]
    for call in (background().with_value(1, 2).cancel, background().with_value(1, 2).__enter__):
        with pytest.raises(RuntimeError, match="with_cancel"):
            call()


def test_x10_a_value_context_ends_with_its_parent() -> None:
    parent = background().with_cancel()
    bound = parent.with_value("a", 1).with_value("b", 2)
    assert bound.done is parent.done and bound.err() is None
    why = OSError("why")
    parent.cancel(why)
    assert over(bound) and bound.err() is parent.err() and bound.cause() is why


# Waiting, and what is left


def test_x11_done_is_one_channel_for_any_number_of_waiters() -> None:
    context = background().with_cancel()
    assert context.done is context.done
    waiting = [go(context.done.recv_ok) for _ in range(500)] + [go(list, context.done) for _ in range(5)]
    selecting = [go(select, recv(context.done), recv(None)) for _ in range(500)]
    threads = [threading.Thread(target=context.done.recv_ok) for _ in range(3)]
    for thread in threads:
        thread.start()
    parked(*waiting, *selecting)
    context.cancel()
    assert results(waiting) == [(None, False)] * 500 + [[]] * 5
    assert all((picked.index, picked.ok) == (0, False) for picked in results(selecting))
    for thread in threads:
        thread.join(SECONDS)
    assert not hasattr(context.done, "close"), "a receive-only channel"


def test_x11_cancelling_leaves_nothing_with_the_parent_nor_a_timer() -> None:
    timers = stats().timers
    with background().with_cancel() as parent:
        for i in range(count(100_000)):
            child = parent.with_cancel() if i % 10 else parent.with_timeout(1000)
            if i % 100 == 0:
                child.after_func(lambda: None)()
            child.cancel()
        assert parent._children == {}
        assert stats().timers == timers


def test_x11_a_timer_that_has_run_leaves_nothing(collect: None) -> None:
    with background().with_cancel() as parent:
        expired = [parent.with_timeout(0.001) for _ in range(100)]
        for context in expired:
            context.done.recv_ok(SECONDS)
            until(lambda: not parent._children)
        gone = [weakref.ref(context) for context in expired]
        del expired, context
        until(lambda: not any(ref() for ref in gone))


def test_contexts_in_a_cycle_are_collected(collect: None) -> None:
    class Thing:
        pass

    gone = []
    for derive in (Context.with_cancel, lambda parent: parent.with_value("thing", 1), Context.without_cancel):
        thing = Thing()
        context = derive(background().with_value(Thing, thing))
        context.after_func(lambda thing=thing: None)
        thing.context = context  # type: ignore[attr-defined]
        thing.child = context.with_cancel()  # type: ignore[attr-defined]
        gone += [weakref.ref(thing), weakref.ref(context)]
    cancelled = Thing()
    cancelled.context = background().with_value(Thing, cancelled).with_timeout(1000)  # type: ignore[attr-defined]
    cancelled.context.cancel()  # type: ignore[attr-defined]
    gone.append(weakref.ref(cancelled))
    del thing, context, cancelled
    gc.collect()
    churn()
    assert [ref() for ref in gone] == [None] * len(gone)


def test_a_finalizer_may_cancel_whatever_runs_meanwhile(two_workers: None) -> None:
    parent = background().with_cancel()

    class Cancels:
        def __init__(self, context: Context) -> None:
            self.me, self.context = self, context

        def __del__(self) -> None:
            self.context.cancel()
            self.context.with_cancel()

    before = gc.get_threshold()
    gc.set_threshold(20)
    try:
        for _ in range(count(300)):
            child = parent.with_cancel()
            grandchild = child.with_value("a", 1).with_cancel()
            Cancels(child)
            Cancels(grandchild)
            grandchild.cancel()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert parent._children == {} and parent.err() is None


# Contexts of one's own


class Own:
    """Has what a context must have, and nothing else."""

    def __init__(self) -> None:
        self.done = chan()
        self.reason: BaseException | None = None

    def err(self) -> BaseException | None:
        return self.reason

    def end(self, reason: BaseException) -> None:
        self.reason = reason
        self.done.close()


class Derived(Context):
    """Has everything, in its own way."""

    def __init__(self) -> None:
        self.own = Own()

    @property
    def done(self) -> Any:
        return self.own.done.receiver()

    def err(self) -> BaseException | None:
        return self.own.err()

    def cause(self) -> BaseException | None:
        return None if self.err() is None else KeyError("cause")

    def value(self, key: object, /) -> Any:
        return ("own", key)

    @property
    def deadline(self) -> float:
        return 1e11

    def end(self, reason: BaseException) -> None:
        self.own.end(reason)


@pytest.mark.parametrize("make", [Own, Derived])
def test_x12_children_follow_a_context_of_a_foreign_class(make: Callable[[], Any]) -> None:
    foreign = make()
    child = Context.with_cancel(foreign)
    bound = Context.with_value(foreign, "a", 1)
    grandchild = bound.with_cancel()
    sibling = Context.with_timeout(foreign, 1000)
    ran = chan(1)
    stopped = Context.after_func(foreign, lambda: ran.send("not"))
    bound.after_func(lambda: ran.send("ran"))
    assert stopped() is True
    sibling.cancel()
    assert not over(child) and not over(bound) and not over(grandchild) and over(sibling)
    assert foreign.reason is None if make is Own else foreign.err() is None
    assert bound.value("a") == 1 and bound.value("b") == (None if make is Own else ("own", "b"))
    assert child.deadline == bound.deadline == (None if make is Own else 1e11)
    why = OSError("why")
    foreign.end(why)
    for context in (child, grandchild):
        context.done.recv_ok(SECONDS)
        assert context.err() is why
        assert context.cause() is why if make is Own else isinstance(context.cause(), KeyError)
    assert over(bound) and bound.err() is why
    assert ran.recv(SECONDS) == "ran" and len(ran) == 0
    born_late = Context.with_cancel(foreign)
    assert over(born_late) and born_late.err() is why


def test_x12_the_goroutine_that_watches_ends_with_the_child() -> None:
    before = stats().goroutines
    foreign = Own()
    children = [Context.with_cancel(foreign) for _ in range(20)]  # type: ignore[arg-type]
    for child in children:
        child.cancel()
    until(lambda: stats().goroutines <= before)


def test_x12_one_with_an_after_func_of_its_own_needs_no_goroutine() -> None:
    class Calls(Own):
        def __init__(self) -> None:
            super().__init__()
            self.waiting: list[Any] = []

        def after_func(self, fn: Any) -> Any:
            self.waiting.append(fn)
            return lambda: self.waiting.remove(fn)

    before = stats().spawned
    foreign = Calls()
    child, dropped = Context.with_cancel(foreign), Context.with_cancel(foreign)  # type: ignore[arg-type]
    assert len(foreign.waiting) == 2 and stats().spawned == before
    dropped.cancel()
    assert len(foreign.waiting) == 1
    foreign.end(OSError("why"))
    foreign.waiting[0]()
    assert child.err() is foreign.reason


def test_x12_one_that_never_ends_may_have_no_channel() -> None:
    class Endless:
        done = None

        def err(self) -> None:
            return None

    before = stats().spawned
    child = Context.with_cancel(Endless())  # type: ignore[arg-type]
    assert stats().spawned == before and not over(child)
    child.cancel()


def test_a_subclass_is_told_what_it_lacks() -> None:
    class Bare(Context):
        pass

    for use in (lambda: Bare().done, Bare().err, Bare().with_cancel):
        with pytest.raises(NotImplementedError, match="Bare has no"):
            use()
    assert Bare().value(1) is None and Bare().deadline is None
    Bare().note = 1  # type: ignore[attr-defined]


def test_contexts_are_not_copied() -> None:
    context = background().with_cancel()
    for call in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="Context cannot be"):
            call(context)
    assert repr(context) == "<Context (goes on)>"
    context.cancel()
    assert repr(context) == "<Context (context canceled)>"


def test_a_tree_under_fire_ends_as_a_tree(two_workers: None, fast_switching: None, rng: random.Random) -> None:
    """Derived, cancelled and timed out at random by many at once: a context that has ended has no live descendant."""
    root = background().with_cancel()
    everybody: list[tuple[Context, Context]] = []

    def grow(seed: int) -> None:
        rnd = random.Random(seed)
        mine = [root]
        for _ in range(count(200)):
            parent = rnd.choice(mine)
            how = rnd.randrange(5)
            if how == 0:
                parent.cancel() if parent is not root else None
                continue
            child = (
                parent.with_timeout(rnd.random() * 0.01)
                if how == 1
                else parent.with_value(how, seed)
                if how == 2
                else parent.with_cancel()
            )
            if how != 2:
                mine.append(child)
            everybody.append((parent, child))

    growing = [go(grow, rng.random()) for _ in range(6)]
    threads = [threading.Thread(target=grow, args=(rng.random(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    results(growing)
    for thread in threads:
        thread.join(SECONDS)
    for parent, child in everybody:
        assert parent.err() is None or (child.err() is not None and child.done.closed)
    root.cancel()
    assert all(child.done.closed for _, child in everybody)
    until(lambda: root._children == {})
