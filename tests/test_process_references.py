"""References to channels in other processes: each is counted once, whatever becomes of the message that holds it."""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import goslings
import pytest
from goslings import chan, go, select
from goslings.processes import Processes
from helpers import count, state, until

SECONDS = 60.0


@pytest.fixture
def workers() -> Iterator[Processes]:
    with Processes(2) as pool:
        yield pool


class Counted:
    """What was lent to each worker, and comes to nothing again."""

    def __init__(self, workers: Processes) -> None:
        self.workers = workers
        self.before = self.now()

    def now(self) -> list[int]:
        return [sum(lent.count for lent in list(worker.peer._exports.values())) for worker in self.workers._workers]

    def check(self) -> None:
        def even() -> bool:
            gc.collect()
            there = [self.workers.go(lambda: (gc.collect(), None)[1]) for _ in range(4)]
            for goroutine in there:
                goroutine.result(SECONDS)
            return self.now() == self.before

        until(even, SECONDS)


def peer_counts() -> int:
    """In a worker: the references to its channels that its parent has."""
    from goslings.processes import _peer

    gc.collect()
    return sum(lent.count for peer in list(_peer._peers.values()) for lent in list(peer._exports.values()))


def test_a_select_that_sends_channels_counts_each_of_them_once(workers: Processes, rng: random.Random) -> None:
    """Sends at two workers' channels and one here, of values with channels: tried, repeated and given up."""

    def make(begin: Any) -> Any:
        begin.recv_ok()
        return goslings.chan(1), goslings.chan(1)

    def use(found: Any) -> None:
        for channel in found:
            channel.try_send(1)
            assert channel.try_recv() == 1

    books = Counted(workers)
    waiting = chan[int]()
    homes = [workers.go(make, waiting) for _ in range(2)]
    until(lambda: all(worker.calls for worker in workers._workers), SECONDS)
    waiting.close()
    (there, own), (elsewhere, spare) = (home.result(SECONDS) for home in homes)
    del homes
    assert there._origin.peer is not elsewhere._origin.peer
    here = chan[Any](1)
    for turn in range(count(120)):
        fresh = goslings.chan[int](1)
        value = [fresh, own, fresh.sender()]
        cases = [goslings.send(there, value), goslings.send(elsewhere, value), goslings.send(here, value)]
        full = [channel for channel in (there, elsewhere, here) if rng.random() < 0.6]
        for channel in full:
            channel.send(None)
        # With all of them full it waits, and the places take turns.
        late = go(rng.choice(full).recv) if len(full) == 3 and turn % 3 else None
        done = select(*cases, timeout=rng.choice([0, 0.02]) if late is None else SECONDS)
        if late is not None:
            late.result(SECONDS)
        for channel in (there, elsewhere, here):
            while (found := channel.try_recv(False)) is not False:
                if found is not None:
                    assert done is not None
                    use([found[0], found[1]])
        own.try_send(turn)
        assert own.try_recv() == turn, "it is alive"
    del value, cases, fresh, found, done, channel, full, late
    del there, own, elsewhere, spare, here, waiting
    books.check()

    def there_too() -> bool:
        gc.collect()
        return [workers.go(peer_counts).result(SECONDS) for _ in range(4)] == [0] * 4

    until(there_too, SECONDS)


def test_references_that_were_pickled_and_not_sent_are_given_back(workers: Processes) -> None:
    books = Counted(workers)
    kept = chan[int](1)
    alive = weakref.ref(kept)
    with pytest.raises(TypeError, match=r"arg 1: cannot pickle '_thread.lock' object"):
        workers.go(print, kept, threading.Lock())
    cancelled = [workers.go(print, kept, [kept]) for _ in range(10)]
    for goroutine in cancelled:
        goroutine.cancel()
    for goroutine in cancelled:
        with contextlib.suppress(CancelledError):
            goroutine.result(SECONDS)
    full = workers.go(lambda: goslings.chan(1)).result(SECONDS)
    full.send(1)
    assert not full.try_send([kept])
    with pytest.raises(TimeoutError):
        full.send([kept], timeout=0.01)
    del kept, cancelled, goroutine, full
    books.check()
    until(lambda: alive() is None, SECONDS)


class Held:
    """Something that a frame holds."""


def test_a_channel_that_is_dropped_while_it_comes_again_is_counted_exactly(workers: Processes) -> None:
    """Channels go to a worker again and again, where several goroutines use and drop them at once."""

    def use(inbox: Any) -> int:
        def each() -> int:
            used = 0
            for channel in inbox:
                assert channel.capacity == 2
                channel.try_send(1)
                del channel
                used += 1
            return used

        return sum(goroutine.result() for goroutine in [go(each) for _ in range(4)])

    books = Counted(workers)
    inbox = chan[Any](4)
    users = [workers.go(use, inbox) for _ in range(2)]
    channels = [chan[int](2) for _ in range(3)]
    number = count(3000)
    for turn in range(number):
        channel = channels[turn % 3 if turn % 64 < 48 else 0]
        inbox.send(channel)
        channel.try_recv(None)
    inbox.close()
    assert sum(user.result(SECONDS) for user in users) == number
    del users, channel, inbox
    books.check()
    assert all(not worker.peer.dead for worker in workers._workers)


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="without a GIL the last reference may be known late, on a worker that sleeps",
)
def test_operations_are_no_work_for_the_collector(workers: Processes) -> None:
    """Whatever their end: no exception keeps the frame that it was raised in, no select keeps itself."""
    there = [workers.go(lambda: goslings.chan(1)).result(SECONDS) for _ in range(2)]
    here = chan[Any](1)
    for channel in (*there, here):
        channel.send(1)

    def by_time() -> None:
        held = alive()
        with pytest.raises(TimeoutError):
            there[0].send([1], timeout=0.001)
        del held

    def by_select() -> None:
        held = alive()
        for timeout in (0, 0.001, 0.01):
            assert select(*(goslings.send(channel, held.name) for channel in (*there, here)), timeout=timeout) is None
            assert select(*(goslings.recv(channel) for channel in (*there, here)), timeout=timeout) is not None
            for channel in (*there, here):
                channel.try_send(1)

    def by_cancel() -> None:
        held = alive()
        goroutine = go(lambda: (held, there[0].send(1)))
        until(lambda: state(goroutine) == "chan receive", SECONDS)
        goroutine.cancel()
        with pytest.raises(CancelledError):
            goroutine.result(SECONDS)

    def by_close() -> None:
        held = alive()
        closed = workers.go(lambda: goslings.chan(1)).result(SECONDS)
        closed.close()
        for call in (closed.close, closed.recv, lambda: closed.send(1), lambda: (held, closed.try_send(1))):
            with pytest.raises(goslings.Closed):
                call()

    lives: list[weakref.ref[Any]] = []

    def alive() -> Any:
        held: Any = Held()
        held.name = "held"
        lives.append(weakref.ref(held))
        return held

    gc.collect()
    gc.disable()
    try:
        for way in (by_time, by_select, by_cancel, by_close):
            way()
            until(lambda: not any(ref() for ref in lives), SECONDS)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.garbage.clear()
        for way in (by_time, by_select, by_cancel, by_close):
            way()
        gc.collect()
        ours = [found for found in gc.garbage if "goslings.processes" in type(found).__module__]
        assert not ours, ours
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
