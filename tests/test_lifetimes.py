"""What is let go, and when: values, channels, cycles, handles, timers. Row C21 of the table of semantics."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from goslings import (
    Case,
    Goroutine,
    RecvChan,
    Selected,
    SendChan,
    Ticker,
    Timer,
    after,
    after_func,
    chan,
    current,
    go,
    recv,
    select,
    send,
)
from helpers import SECONDS, check_child, churn, results, until


class Thing:
    """Can be weakly referred to."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def test_c21_a_received_value_is_not_kept(collect: None) -> None:
    ch = chan(2)
    for receive in (
        ch.recv,
        ch.try_recv,
        ch.recv_ok,
        lambda: next(ch),
        lambda: select(recv(ch)),
        lambda: ch.recv(timeout=1),
    ):
        thing = Thing()
        ref = weakref.ref(thing)
        ch.send(thing)
        del thing
        assert ref() is not None
        receive()
        assert ref() is None, receive


def test_c21_a_value_handed_over_is_not_kept(collect: None) -> None:
    ch, done = chan(), chan()

    def receiver() -> None:
        for _ in range(20):
            ch.recv()
            done.send(None)

    g = go(receiver)
    for i in range(20):
        thing = Thing()
        ref = weakref.ref(thing)
        if i % 2:
            select(send(ch, thing))
        else:
            ch.send(thing)
        del thing
        done.recv()
        until(lambda ref=ref: ref() is None)
    g.result(SECONDS)


def test_c21_a_value_that_was_not_sent_is_not_kept(collect: None) -> None:
    ch = chan()
    refs = []
    for attempt in (
        lambda thing: ch.try_send(thing),
        lambda thing: select(send(ch, thing), timeout=0),
        lambda thing: select(send(ch, thing), send(None, thing), timeout=0.001),
        lambda thing: pytest.raises(TimeoutError, ch.send, thing, timeout=0.001),
        lambda thing: pytest.raises(TimeoutError, ch.send, thing, timeout=0),
    ):
        thing = Thing()
        refs.append(weakref.ref(thing))
        attempt(thing)
        del thing
    gc.collect()
    assert [ref() for ref in refs] == [None] * len(refs)


def test_c21_a_channel_that_goes_away_drops_what_it_holds(collect: None) -> None:
    ch, thing = chan(3), Thing()
    ref = weakref.ref(thing)
    ch.send(thing)
    ch.send(thing)
    del thing
    ch.close()
    assert ref() is not None
    del ch
    assert ref() is None


KINDS = (Thing, chan, SendChan, RecvChan, Goroutine, Timer, Ticker, Case, Selected)


def alive() -> int:
    """How many of our objects the collector knows."""
    return sum(isinstance(thing, KINDS) for thing in gc.get_objects())


def cycle_through_its_buffer() -> Any:
    ch = chan(1)
    ch.send(ch)
    return ch


def cycle_through_a_list() -> Any:
    ch = chan(3)
    ch.send([1, {"ch": ch}])
    return ch


def cycle_of_channels() -> Any:
    a, b = chan(1), chan(1)
    a.send(b)
    b.send(a)
    return a


def cycle_through_a_view() -> Any:
    ch = chan(1)
    ch.send(ch.sender())
    return ch


def cycle_of_which_only_a_view_is_left() -> Any:
    ch = chan(1)
    thing = Thing(view=ch.receiver())
    ch.send(thing)
    return thing


def cycle_of_two_views() -> Any:
    ch = chan(1)
    thing = Thing(receiver=ch.receiver(), sender=ch.sender())
    ch.send(thing)
    return thing


def cycle_through_a_case() -> Any:
    ch = chan(1)
    ch.send(send(ch, 1))
    return ch


def cycle_through_the_value_of_a_case() -> Any:
    thing = Thing()
    thing.case = send(chan(), thing)
    return thing


def cycle_through_a_selected() -> Any:
    ch, thing = chan(1), Thing()
    ch.send(thing)
    thing.selected = select(recv(ch))
    return thing


def cycle_through_a_result() -> Any:
    thing = Thing()
    thing.goroutine = go(lambda: thing)
    thing.goroutine.result(SECONDS)
    return thing


def cycle_of_a_goroutine_that_returned_itself() -> Any:
    g = go(current)
    assert g.result(SECONDS) is g
    return g


def cycle_through_a_tuple_result() -> Any:
    g = go(lambda: (current(),))
    assert g.result(SECONDS) == (g,)
    return g


def cycle_through_an_exception() -> Any:
    def fail() -> None:
        me = current()
        raise KeyError(me)

    g = go(fail)
    g.exception(SECONDS)
    return g


def cycle_through_a_cancel_message() -> Any:
    thing, ch = Thing(), chan()
    thing.goroutine = go(ch.recv)
    thing.goroutine.cancel(thing)
    thing.goroutine.join(SECONDS)
    return thing


def cycle_through_finished() -> Any:
    thing = Thing()
    thing.goroutine = go(lambda: thing)
    thing.finished = thing.goroutine.finished
    thing.finished.recv_ok()
    return thing


def cycle_through_a_timer() -> Any:
    thing = Thing()
    thing.timer = after_func(3600, lambda: thing)
    thing.timer.stop()
    return thing


def cycle_through_a_timer_that_ran() -> Any:
    thing, ran = Thing(), chan(1)
    thing.timer = after_func(0, lambda: (thing, ran.send(1)))
    ran.recv()
    return thing


def cycle_through_a_timers_channel() -> Any:
    thing = Thing()
    thing.timer = Timer(3600)
    thing.channel = thing.timer.c
    thing.me = thing
    return thing


def cycle_through_a_ticker() -> Any:
    thing = Thing(ticker=Ticker(3600))
    thing.me = [thing, thing.ticker.c, iter(thing.ticker)]
    return thing


def cycle_through_a_done_callback_that_ran() -> Any:
    thing = Thing()
    thing.goroutine = go(int)
    thing.goroutine.add_done_callback(lambda g: thing)
    thing.goroutine.result(SECONDS)
    return thing


CYCLES = [function for name, function in list(globals().items()) if name.startswith("cycle_")]


@pytest.mark.parametrize("make", CYCLES, ids=[make.__name__ for make in CYCLES])
def test_c21_a_cycle_is_collected(collect: None, make: Callable[[], Any]) -> None:
    before = alive()
    root = make()
    ref = weakref.ref(root)
    del root

    def gone() -> bool:
        gc.collect()
        # A weak reference goes when the cycle is found; the objects only if it can be broken.
        return ref() is None and alive() <= before

    # The worker may hold on to the goroutine that has just ended for a moment.
    until(gone, 2)


def test_c21_a_cycle_that_is_still_used_is_not_collected(collect: None) -> None:
    roots = [make() for make in CYCLES]
    gc.collect()
    churn()
    gc.collect()
    for root in roots:
        if isinstance(root, chan):
            assert root.recv() is not None
        elif isinstance(root, Goroutine):
            assert root.done()
        else:
            assert root.__dict__


def test_c21_a_goroutine_parked_on_an_unreachable_channel_stays() -> None:
    assert "1\n" == check_child(
        """
        import gc
        from goslings import chan, go, num_goroutine, sleep
        g = go(lambda: chan().recv())
        while "chan receive" not in repr(g):
            sleep(0.001)
        del g
        gc.collect()
        print(num_goroutine())
        """
    )


def test_c21_a_handle_that_nobody_holds_does_not_outlive_its_goroutine(collect: None) -> None:
    ch = chan()
    g = go(ch.recv)
    ref = weakref.ref(g)
    del g
    gc.collect()
    assert ref() is not None  # it runs
    ch.send(1)
    until(lambda: ref() is None)


def test_arguments_and_results_are_released(collect: None) -> None:
    thing = Thing()
    ref = weakref.ref(thing)
    g = go(lambda argument, *, keyword: None, thing, keyword=thing)
    del thing
    g.result(SECONDS)
    until(lambda: ref() is None)
    g = go(Thing)
    ref = weakref.ref(g.result(SECONDS))
    assert ref() is not None
    del g
    until(lambda: (gc.collect(), ref() is None)[1])


def test_t07_timers_that_nobody_holds_are_released(collect: None) -> None:
    # T07: no Stop is needed.
    channels = [after(3600) for _ in range(100)]
    refs = [weakref.ref(ch) for ch in channels]
    del channels
    assert all(ref() is None for ref in refs)


def test_values_of_every_kind_are_dropped_once(two_workers: None) -> None:
    """Each value is finalized exactly once, however its way ended."""
    made, dropped = 0, []

    class Counted:
        def __init__(self) -> None:
            nonlocal made
            made += 1

        def __del__(self) -> None:
            dropped.append(1)

    def work() -> None:
        ch, full = chan(2), chan(1)
        full.send(Counted())
        for _ in range(10):
            ch.try_send(Counted())
            select(send(full, Counted()), timeout=0)
        with pytest.raises(TimeoutError):
            full.send(Counted(), timeout=0.001)
        g = go(full.send, Counted())
        g.cancel()
        g.join()
        ch.close()
        go(lambda: Counted()).join()

    results([go(work) for _ in range(4)])
    # The workers let go of a goroutine shortly after its end.
    until(lambda: (gc.collect(), len(dropped) == 4 * 24)[1])
