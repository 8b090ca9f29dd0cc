"""Group: rows E01 to E04 of the table of semantics, and the promises of its own."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import pickle
import random
import threading
import weakref
from collections import Counter
from concurrent.futures import CancelledError
from typing import Any

import goslings
import pytest
from goslings import (
    AtomicInt,
    Cancelled,
    Event,
    Group,
    WaitGroup,
    chan,
    current,
    go,
    goexit,
    gosched,
    num_goroutine,
    sleep,
)
from helpers import EVENT, GROUP, SECONDS, check_child, count, parked, results, run_child, state, until, waits


def fail(what: BaseException) -> None:
    raise what


def kinds(group: BaseExceptionGroup[Any]) -> list[type[BaseException]]:
    return [type(error) for error in group.exceptions]


# Waiting


def test_e01_the_block_ends_when_all_have_ended() -> None:
    done: list[int] = []

    def work(i: int, more: int = 0) -> int:
        sleep(0.002 * (i % 3))
        if more:
            group.go(work, i + 100, more - 1)  # also those that are started by the others
        done.append(i)
        return i

    with Group() as group:
        goroutines = [group.go(work, i, more=2) for i in range(10)]
    assert sorted(done) == sorted(i + 100 * k for i in range(10) for k in range(3))
    assert [g.result(0) for g in goroutines] == list(range(10))
    with Group():
        pass


def test_e01_the_failures_come_out_in_order_of_time_and_the_first_cancels_the_rest() -> None:
    ended = chan(10)
    release = Event()

    def waits_for_ever() -> None:
        try:
            chan().recv()
        finally:
            ended.send("unwound")

    def fails_late() -> None:
        try:
            Event().wait()
        except Cancelled:
            raise KeyError("second") from None

    with pytest.raises(ExceptionGroup) as caught, Group() as group:
        late = waits(group.go(fails_late), EVENT)
        for _ in range(3):
            parked(group.go(waits_for_ever))
        first = group.go(lambda: (release.wait(), fail(ValueError("first"))))
        release.set()
    assert kinds(caught.value) == [ValueError, KeyError]
    assert caught.value.exceptions == (first.exception(), late.exception())
    assert type(caught.value) is ExceptionGroup and caught.value.__suppress_context__
    assert len(ended) == 3


def test_e01_from_a_goroutine_and_from_a_thread(start: Any) -> None:
    def run() -> int:
        with Group() as group:
            goroutines = [group.go(lambda i=i: i) for i in range(5)]
        with pytest.raises(ExceptionGroup), Group() as group:
            group.go(fail, OSError("expected"))
        return sum(g.result(0) for g in goroutines)

    assert go(run).result(SECONDS) == 10
    assert start(run)() == 10


def test_e02_the_context_is_cancelled_with_the_first_failure_as_its_cause() -> None:
    def tells() -> str:
        group.context.done.recv_ok()
        return "told"

    error = ValueError("first")
    with pytest.raises(ExceptionGroup), Group() as group:
        assert group.context.err() is None and group.context is group.context
        child = group.context.with_value("a", 1)
        group.go(fail, error)
        assert child.done.recv_ok(SECONDS) == (None, False)  # a failure does not interrupt the block: this does
        assert isinstance(child.err(), CancelledError) and child.cause() is error
    with Group() as group:
        kept = group.context.with_cancel()
        g = group.go(lambda: 5)
    assert kept.err() is not None and kept.cause() is kept.err() and g.result(0) == 5
    with Group() as group:
        group.go(tells)
        group.cancel()
    assert group.context.err() is not None


def test_e03_a_limit_bounds_how_many_run_at_once(two_workers: None, fast_switching: None) -> None:
    for limit in (1, 2, 7):
        running, peak = AtomicInt(), [0]

        def work(running: AtomicInt = running, peak: list[int] = peak) -> None:
            peak[0] = max(peak[0], running.add(1))
            for _ in range(3):
                gosched()
            running.add(-1)

        with Group(limit) as group:
            goroutines = [group.go(work) for _ in range(20)]
        assert results(goroutines) == [None] * 20
        assert 1 <= peak[0] <= limit


def test_e03_go_queues_and_never_blocks() -> None:
    event = Event()
    with Group(limit=2) as group:
        goroutines = [group.go(event.wait) for _ in range(100)]
        waits(goroutines[0], EVENT)
        waits(goroutines[1], EVENT)
        assert [state(g) for g in goroutines[2:]] == ["not started"] * 98
        ids = [g.id for g in goroutines]
        assert ids == sorted(set(ids)) and min(ids) > 0
        assert goroutines[5].name == f"goroutine-{ids[5]}"
        assert not goroutines[5].done() and not goroutines[5].join(0)
        event.set()
    assert results(goroutines) == [True] * 100
    assert [g.id for g in goroutines] == ids


def test_e03_a_queued_one_that_is_cancelled_ends_at_once_and_takes_no_place() -> None:
    event, ran = Event(), []
    with Group(limit=1) as group:
        first = waits(group.go(event.wait), EVENT)
        queued = [group.go(ran.append, i) for i in range(4)]
        called: list[Any] = []
        queued[1].add_done_callback(called.append)
        assert queued[1].cancel("why") is True and queued[1].cancel() is False
        assert queued[1].cancelled() and called == [queued[1]]
        with pytest.raises(CancelledError, match="why"):
            queued[1].result()
        assert queued[1].finished.recv_ok(0) == (None, False)
        event.set()
    assert first.result(0) and ran == [0, 2, 3]


@pytest.mark.parametrize("limit", [0, -1])
def test_e03_a_limit_is_at_least_one(limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Group(limit)
    for wrong in ("2", 1.5):
        with pytest.raises(TypeError):
            Group(wrong)  # type: ignore[arg-type]


def test_e04_a_failure_is_carried_to_the_block_and_ends_nothing_else() -> None:
    # Where Go ends the process: here it arrives at who waits, also when it is no Exception.
    bystander = Event()
    g = go(bystander.wait)
    with pytest.raises(BaseExceptionGroup) as caught, Group() as group:
        group.go(fail, SystemExit(3))
    assert kinds(caught.value) == [SystemExit] and not isinstance(caught.value, ExceptionGroup)
    with pytest.raises(BaseExceptionGroup) as caught, Group() as group:
        group.go(fail, KeyboardInterrupt())
    assert kinds(caught.value) == [KeyboardInterrupt]
    bystander.set()
    assert g.result(SECONDS)


# The block's own end


def test_an_exception_of_the_block_cancels_the_goroutines_and_is_among_the_failures() -> None:
    with pytest.raises(ExceptionGroup) as caught, Group() as group:
        g = waits(group.go(Event().wait), EVENT)
        raise KeyError("mine")
    assert kinds(caught.value) == [KeyError] and g.cancelled()
    assert isinstance(group.context.cause(), KeyError)

    def fails_when_cancelled() -> None:
        try:
            Event().wait()
        finally:
            raise ValueError("theirs")

    with pytest.raises(ExceptionGroup) as caught, Group() as group:
        waits(group.go(fails_when_cancelled), EVENT)
        raise KeyError("mine")
    assert kinds(caught.value) == [KeyError, ValueError]


@pytest.mark.parametrize("alone", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_one_that_is_no_exception_goes_on_alone_when_all_have_ended(alone: type[BaseException]) -> None:
    mine = alone("mine")
    with pytest.raises(alone) as caught, Group() as group:
        g = waits(group.go(Event().wait), EVENT)
        raise mine
    assert caught.value is mine and g.cancelled()


def test_what_fails_beside_one_that_goes_on_alone_is_reported(unread: list[Any]) -> None:
    def fails_when_cancelled() -> None:
        try:
            Event().wait()
        finally:
            raise ValueError("theirs")

    with pytest.raises(KeyboardInterrupt), Group() as group:
        waits(group.go(fails_when_cancelled), EVENT)
        raise KeyboardInterrupt
    until(lambda: gc.collect() is not None and unread)
    assert [str(args.exc_value) for args in unread] == ["theirs"]
    unread.clear()


def test_goexit_in_the_block_ends_the_goroutine_when_all_have_ended() -> None:
    members: list[Any] = []

    def run() -> str:
        with Group() as group:
            members.append(waits(group.go(Event().wait), EVENT))
            goexit()

    assert go(run).result(SECONDS) is None
    assert members[0].cancelled()


def test_a_goroutine_cancelled_while_it_waits_for_its_group_cancels_it() -> None:
    members: list[Any] = []
    after = chan(1)

    def run() -> None:
        try:
            with Group() as group:
                members.extend(group.go(Event().wait) for _ in range(3))
        except Cancelled as error:
            after.send((error.args, [member.cancelled() for member in members]))
            raise

    g = waits(go(run), GROUP)
    g.cancel("why")
    assert g.join(SECONDS) and g.cancelled()
    assert after.recv(0) == (("why",), [True] * 3)


def test_a_member_that_swallows_its_cancellation_is_waited_for_and_may_be_cancelled_again() -> None:
    swallowed, release = chan(2), chan()

    def stubborn() -> str:
        for _ in range(2):
            try:
                release.recv_ok()
            except Cancelled:
                swallowed.send(1)
        return "at last"

    def run() -> Any:
        with Group() as group:
            members.append(group.go(stubborn))
            parked(members[0])

    members: list[Any] = []
    g = waits(go(run), GROUP)
    g.cancel()
    swallowed.recv(SECONDS)
    waits(g, GROUP)
    assert not members[0].done()
    g.cancel()
    swallowed.recv(SECONDS)
    assert g.join(SECONDS) and g.cancelled()
    assert members[0].result(0) == "at last"


# Cancelling


def test_cancel_ends_all_without_an_error() -> None:
    with Group(limit=3) as group:
        goroutines = [group.go(Event().wait) for _ in range(20)]
        waits(goroutines[2], EVENT)
        group.cancel()
        late = group.go(fail, ValueError("never runs"))
        assert late.cancelled()
        group.cancel()
    assert all(g.cancelled() for g in goroutines)


def test_further_failures_do_not_interrupt_the_cleaning_up_of_the_others() -> None:
    cleaned = chan(10)

    def cleans_up() -> None:
        try:
            Event().wait()
        finally:
            for g in failing:
                g.join()  # a park point: it would end with another Cancelled
            cleaned.send(1)

    def fails_when_cancelled() -> None:
        try:
            Event().wait()
        finally:
            raise ValueError("another")

    failing: list[Any] = []
    with pytest.raises(ExceptionGroup) as caught, Group() as group:
        failing.extend(waits(group.go(fails_when_cancelled), EVENT) for _ in range(5))
        for _ in range(5):
            waits(group.go(cleans_up), EVENT)
        group.go(fail, KeyError("first"))
    assert kinds(caught.value) == [KeyError] + [ValueError] * 5
    assert len(cleaned) == 5


def test_a_member_may_cancel_its_group() -> None:
    with Group() as group:
        waiting = [group.go(Event().wait) for _ in range(5)]
        g = group.go(lambda: (group.cancel(), "done")[1])
    assert g.result(0) == "done" and all(other.cancelled() for other in waiting)


def test_cancelling_one_member_is_no_failure() -> None:
    with Group() as group:
        one, other = group.go(Event().wait), group.go(lambda: 5)
        one.cancel()
    assert one.cancelled() and other.result(0) == 5


def test_after_a_failure_go_returns_a_cancelled_handle() -> None:
    ran: list[int] = []
    with pytest.raises(ExceptionGroup), Group() as group:
        g = group.go(fail, ValueError("first"))
        assert g.join(SECONDS)
        late = group.go(ran.append, 1)
        assert late.cancelled() and late.join(0)
        with pytest.raises(CancelledError):
            late.result(0)
    assert ran == []


# Nesting


def test_groups_nest_and_so_do_their_failures() -> None:
    def inner(i: int) -> None:
        with Group(limit=2) as group:
            for k in range(4):
                group.go(fail, ValueError(i, k)) if k == i else group.go(Event().wait)

    with pytest.raises(ExceptionGroup) as caught, Group() as group:
        outer = [group.go(inner, 1), group.go(inner, 9)]
    assert kinds(caught.value) == [ExceptionGroup]
    assert caught.value.exceptions[0].exceptions[0].args == (1, 1)
    assert outer[1].cancelled()
    matched, rest = caught.value.split(ValueError)
    assert matched is not None and rest is None

    with Group() as group:
        with Group() as lower:
            got = lower.go(lambda: group.go(lambda: 5))
        assert got.result(0).result(SECONDS) == 5


# In async code


async def awaits(event: Event) -> str:
    await event
    return "set"


def run_anywhere(main: Any) -> Any:
    """In an async goroutine, and in an asyncio task."""
    assert go(main).result(SECONDS) == (found := asyncio.run(main()))
    return found


def test_async_with_waits_for_all_and_raises_what_failed() -> None:
    async def main() -> Any:
        event, started = Event(), []
        async with Group(limit=2) as group:
            goroutines = [group.go(awaits, event), group.go(event.wait), group.go(lambda: started.append(1) or 3)]
            assert not started
            event.set()
        assert [await g for g in goroutines] == ["set", True, 3]
        event.clear()
        failed: list[Any] = []
        try:
            async with Group() as group:
                waiting = group.go(awaits, event)
                group.go(fail, ValueError("theirs"))
                await waiting.ajoin()
                raise KeyError("mine")
        except* (ValueError, KeyError) as caught:
            failed = kinds(caught)
        return failed, waiting.cancelled()

    assert run_anywhere(main) == ([ValueError, KeyError], True)


def test_async_with_of_a_cancelled_task_ends_with_its_cancellation() -> None:
    members: list[Any] = []

    async def run() -> None:
        async with Group() as group:
            members.append(group.go(awaits, Event()))
            await members[-1].ajoin(0.001)

    async def main() -> None:
        task = asyncio.create_task(run())
        while not members:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert members[0].cancelled()

    asyncio.run(main())
    g = go(run)
    until(lambda: len(members) == 2)
    waits(g, GROUP)
    g.cancel()
    assert g.join(SECONDS) and g.cancelled() and members[1].cancelled()


def test_a_plain_with_in_async_code_names_the_other() -> None:
    async def main() -> str:
        with pytest.raises(RuntimeError, match="use `async with Group"), Group():
            pass
        return "told"

    assert run_anywhere(main) == "told"


# What is left


def test_go_is_refused_before_the_block_and_after_it() -> None:
    group = Group()
    with pytest.raises(RuntimeError, match="in its `with` block"):
        group.go(int)
    with group, pytest.raises(TypeError, match="callable"):
        group.go(None)  # type: ignore[call-overload]
    ran: list[int] = []
    with pytest.raises(RuntimeError, match="is over"):
        group.go(ran.append, 1)
    with pytest.raises(RuntimeError, match="make another"), group:
        pass
    assert ran == []


def test_who_comes_at_the_last_moment_is_waited_for_or_refused(two_workers: None, fast_switching: None) -> None:
    outcomes: Counter[str] = Counter()
    for i in range(count(300)):
        gate, ran = chan(), AtomicInt()

        def late(i: int = i, gate: Any = gate, ran: AtomicInt = ran) -> bool:
            gate.recv_ok()
            for _ in range(i % 7):
                gosched()
            try:
                group.go(ran.add, 1)
            except RuntimeError:
                return False
            return True

        with Group() as group:
            g = go(late)
            group.go(gosched)
            gate.close()
        seen = ran.load()
        accepted = g.result(SECONDS)
        assert seen == accepted, "it ended, and was waited for, if it was accepted"
        outcomes["accepted" if accepted else "refused"] += 1
    assert sum(outcomes.values()) == count(300)


def test_context_variables_are_those_of_who_calls_go() -> None:
    variable = contextvars.ContextVar("variable", default="none")
    with Group(limit=1) as group:
        got = []
        for value in "ab":
            variable.set(value)
            got.append(group.go(variable.get))
        variable.set("c")
    assert results(got) == ["a", "b"]


def test_members_know_who_they_are_and_have_names() -> None:
    with Group(limit=1) as group:
        group.go(sleep, 0.001)
        g = group.go(current)
        g.name = "second"
    assert g.result(0) is g and g.name == "second"


def test_the_group_keeps_nothing_of_those_that_have_ended(collect: None) -> None:
    class Thing:
        pass

    with Group(limit=2) as group:
        gone = []
        for _ in range(10):
            g = group.go(Thing)
            gone.append(weakref.ref(g.result(SECONDS)))
            del g
        until(lambda: gc.collect() is not None and not any(ref() for ref in gone))
        assert group._members == {} and group._placed == {} and not group._queue


def test_a_group_that_failed_leaves_no_cycle(collect: None) -> None:
    class Thing:
        pass

    def run() -> weakref.ref[Any]:
        thing = Thing()
        try:
            with Group() as group:
                group.go(lambda: fail(ValueError(thing)))
                raise KeyError(thing)
        except* (ValueError, KeyError):
            pass
        return weakref.ref(thing)

    def ended() -> bool:
        return all(ref() is None for ref in gone)

    gone = [run(), go(run).result(SECONDS)]
    gc.collect()
    until(ended)


def test_handles_that_were_never_started_go_away_with_their_group() -> None:
    count_ = WaitGroup()
    g = goslings._goslings._prepare(count_, print, print, (), None)
    assert count_.count == 1 and g.id > 0
    del g
    until(lambda: count_.count == 0)


def test_a_failure_in_a_group_is_told_with_the_place_that_started_it(unread: list[Any]) -> None:
    with pytest.raises(KeyboardInterrupt), Group() as group:
        g = group.go(fail, ValueError("expected"))
        g.join(SECONDS)
        del g
        raise KeyboardInterrupt
    until(lambda: gc.collect() is not None and unread)
    assert "test_group.py:" in unread.pop().started_at


def test_ctrl_c_in_the_block_and_in_its_end_passes_bare_once_all_have_ended() -> None:
    for where in ("group.context.done.recv_ok()", "pass"):
        done = check_child(f"""
            import _thread, threading, time
            from goslings import Event, Group, chan
            log = []

            def member():
                try:
                    Event().wait()
                finally:
                    log.append("unwound")

            threading.Timer(0.2, _thread.interrupt_main).start()
            try:
                with Group() as group:
                    for _ in range(3):
                        group.go(member)
                    {where}
            except KeyboardInterrupt as error:
                print(type(error).__name__, log)
            """)
        assert done == "KeyboardInterrupt ['unwound', 'unwound', 'unwound']\n"


def test_a_program_that_is_interrupted_in_a_group_says_so() -> None:
    done = run_child("""
        import _thread, threading
        from goslings import Event, Group
        threading.Timer(0.2, _thread.interrupt_main).start()
        with Group() as group:
            group.go(Event().wait)
        """)
    assert done.returncode != 0 and "KeyboardInterrupt" in done.stderr and "Group" not in done.stderr.splitlines()[-1]


def test_groups_are_not_copied() -> None:
    for call in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="Group cannot be"):
            call(Group())


def test_a_storm_of_groups_accounts_for_every_goroutine(
    two_workers: None, fast_switching: None, rng: random.Random, unread: list[Any]
) -> None:
    before = num_goroutine()

    def work(seed: float, depth: int, ended: AtomicInt) -> None:
        rnd = random.Random(seed)
        try:
            for _ in range(rnd.randrange(3)):
                rnd.choice((gosched, lambda: sleep(rnd.random() * 1e-3)))()
            if depth and rnd.random() < 0.5:
                run(rnd, depth - 1)
            if rnd.random() < 0.1:
                raise ValueError("expected")
        finally:
            ended.add(1)

    def run(rnd: random.Random, depth: int) -> None:
        ended, started = AtomicInt(), 0
        try:
            with Group(rnd.choice((None, 1, 2, 5))) as group:
                goroutines = []
                for _ in range(rnd.randrange(12)):
                    goroutines.append(group.go(work, rnd.random(), depth, ended))
                    if rnd.random() < 0.1:
                        rnd.choice(goroutines).cancel()
                    if rnd.random() < 0.02:
                        group.cancel()
                if rnd.random() < 0.1:
                    raise KeyError("expected")
        except* (ValueError, KeyError):
            pass
        assert all(g.done() for g in goroutines)
        started = sum(1 for g in goroutines if not g.cancelled())
        assert started <= ended.load() <= len(goroutines)
        assert group._members == {} and group._placed == {}

    for _ in range(count(60)):
        threads = [threading.Thread(target=run, args=(random.Random(rng.random()), 2)) for _ in range(2)]
        for thread in threads:
            thread.start()
        go(run, random.Random(rng.random()), 2).result(SECONDS)
        for thread in threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
    until(lambda: num_goroutine() <= before)
    gc.collect()
    # A group that is cancelled from outside leaves its failures to the hook.
    assert all(isinstance(args.exc_value, ValueError | ExceptionGroup) for args in unread)
    unread.clear()
