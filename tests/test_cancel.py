"""Cancelling goroutines: Cancelled is raised where they wait, and nothing is lost."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any

import pytest
from goslings import Cancelled, Goroutine, chan, go, gosched, recv, select, send, sleep
from goslings.testing import virtual_time
from goslings.testing import wait as all_blocked
from helpers import SECONDS, count, parked, state, until


def test_cancel_raises_where_the_goroutine_waits() -> None:
    ch, caught = chan(), []

    def work(wait: Any) -> None:
        try:
            wait()
        except Exception:
            caught.append("Exception")  # Cancelled is none
        finally:
            caught.append("finally")

    waits = [
        ch.recv,
        ch.recv_ok,
        lambda: ch.recv(timeout=3600),
        lambda: ch.send(1),
        lambda: next(ch),
        lambda: select(recv(ch), send(ch, 1)),
        select,
        lambda: sleep(3600),
        lambda: go(sleep, 3600).join(3600),
    ]
    for wait in waits:
        g = go(work, wait)
        parked(g)
        assert g.cancel("stop it") is True
        assert g.join(SECONDS)
        assert g.done() and g.cancelled()
        for ask in (g.result, g.exception):
            with pytest.raises(CancelledError, match="stop it"):
                ask()
    assert caught == ["finally"] * len(waits)
    assert ch.try_recv("nothing") == "nothing" and not ch.try_send(1)


CancelledError = concurrent.futures.CancelledError


def test_cancelled_carries_the_message_into_the_goroutine() -> None:
    def work() -> Any:
        try:
            chan().recv()
        except Cancelled as cancelled:
            return cancelled.args

    for message, args in (((), ()), (("why",), ("why",)), ((None,), ())):
        g = go(work)
        parked(g)
        g.cancel(*message)
        assert g.result(SECONDS) == args


def test_a_goroutine_that_catches_it_goes_on_and_can_be_cancelled_again() -> None:
    ch, caught = chan(), []

    def work() -> str:
        for _ in range(2):
            try:
                ch.recv()
            except Cancelled as cancelled:
                caught.append(cancelled.args[0])
        return "done"

    g = go(work)
    parked(g)
    g.cancel(1)
    until(lambda: caught == [1])
    parked(g)
    g.cancel(2)
    assert g.result(SECONDS) == "done" and caught == [1, 2] and not g.cancelled()


def test_one_request_raises_once() -> None:
    ch, release = chan(), chan(1)

    def work() -> Any:
        try:
            ch.recv()
        except Cancelled:
            pass
        return release.recv()

    g = go(work)
    parked(g)
    g.cancel()
    release.send("went on")
    assert g.result(SECONDS) == "went on"


def test_cancel_of_one_that_runs_is_raised_where_it_waits_next(one_worker: None) -> None:
    log: list[str] = []

    def work(me: Any, point: Any) -> None:
        me.recv().cancel("later")
        log.append("still running")
        point()
        log.append("never here")

    for point in (
        gosched,
        lambda: sleep(0),
        lambda: chan(1).send(1),
        lambda: select(timeout=0),
        lambda: chan().recv(timeout=0),
    ):
        me = chan(1)
        g = go(work, me, point)
        me.send(g)
        with pytest.raises(CancelledError, match="later"):
            g.result(SECONDS)
    assert set(log) == {"still running"}


def test_cancel_before_the_start_means_it_never_runs(one_worker: None) -> None:
    ran = []

    def starter() -> Goroutine[Any]:
        g = go(ran.append, 1)
        assert state(g) == "not started"
        assert g.cancel("early")
        return g

    g = go(starter).result(SECONDS)
    with pytest.raises(CancelledError, match="early"):
        g.result(SECONDS)
    assert g.cancelled() and not ran


def test_cancel_of_one_that_is_done_is_false() -> None:
    g = go(int)
    g.join(SECONDS)
    assert g.cancel() is False and g.result() == 0
    g = go(chan().recv)
    g.cancel()
    g.join(SECONDS)
    assert g.cancel() is False and g.cancelled()


def test_the_waiters_own_cancellation_is_not_mistaken() -> None:
    inner = go(chan().recv)

    def wait() -> Any:
        inner.result()

    g = go(wait)
    parked(g, inner)
    g.cancel("the waiter")
    with pytest.raises(CancelledError, match="the waiter"):
        g.result(SECONDS)
    assert not inner.done()
    h = go(wait)
    parked(h)
    inner.cancel("the inner one")
    assert isinstance(h.exception(SECONDS), CancelledError) and not h.cancelled()


def test_raising_cancelled_without_being_cancelled_is_a_failure() -> None:
    def work() -> None:
        raise Cancelled

    g = go(work)
    assert isinstance(g.exception(SECONDS), Cancelled) and not g.cancelled()


def test_cancel_races_with_the_end_and_with_values(two_workers: None) -> None:
    ch = chan()
    outcomes = {"cancelled": 0, "received": 0}
    for i in range(count(1500)):
        g = go(ch.recv)
        if i % 2:
            parked(g)
        h = go(g.cancel)
        sent = select(send(ch, i), timeout=0 if i % 3 else 0.0005) is not None
        h.result(SECONDS)
        if not sent:
            g.cancel()
        g.join(SECONDS)
        assert sent is not g.cancelled(), (i, sent, g)
        outcomes["cancelled" if g.cancelled() else "received"] += 1
    assert sum(outcomes.values()) == count(1500)


def test_cancel_from_everywhere_at_once() -> None:
    g = go(chan().recv)
    parked(g)
    threads = [threading.Thread(target=g.cancel) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert g.join(SECONDS) and g.cancelled()


def test_two_cancels_before_the_goroutine_has_its_turn_are_one() -> None:
    @virtual_time  # one goroutine runs at a time: nobody notices the first before the second
    def bubble() -> list[str]:
        ch: Any = chan()
        log: list[str] = []

        def work() -> None:
            for _ in range(2):
                try:
                    ch.recv()
                except Cancelled:
                    log.append("cancelled")
                else:
                    log.append("received")

        g = go(work)
        all_blocked()
        assert g.cancel("one") and g.cancel("two")
        all_blocked()
        assert log == ["cancelled"]
        ch.send(1)
        g.join()
        return log

    assert bubble() == ["cancelled", "received"]
