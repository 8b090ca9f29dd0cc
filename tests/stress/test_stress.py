"""A storm with exact accounting: every value that was sent is received once, for as long as one likes.

GOSLINGS_STRESS_SECONDS says how long each storm takes (2 by default, `make stress` gives a minute in all),
GOSLINGS_SEED repeats the choices of an earlier run: its number is printed.
"""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from goslings import Cancelled, Closed, Goroutine, after, chan, go, gosched, num_goroutine, recv, select, send, sleep

STORMS = 6
SECONDS = float(os.environ.get("GOSLINGS_STRESS_SECONDS", str(2 * STORMS))) / STORMS
LIMIT = 60.0 + 5 * SECONDS


class Ledger:
    """What one worker sent for certain, what it may have sent, and what it received."""

    def __init__(self, name: int, seed: int) -> None:
        self.name, self.random = name, random.Random(seed)
        self.sent: list[tuple[int, int]] = []
        self.received: list[Any] = []
        self.next = 0

    def value(self) -> tuple[int, int]:
        self.next += 1
        return (self.name, self.next)


class Storm:
    def __init__(self, seed: int, capacities: tuple[int, ...]) -> None:
        self.random = random.Random(seed)
        self.channels = [chan(capacity) for capacity in capacities]
        self.deadline = time.monotonic() + SECONDS
        self.ledgers: list[Ledger] = []
        self.senders: list[Any] = []
        self.receivers: list[Any] = []
        self.stop = chan()

    def over(self) -> bool:
        return time.monotonic() > self.deadline

    def ledger(self) -> Ledger:
        self.ledgers.append(Ledger(len(self.ledgers), self.random.randrange(2**60)))
        return self.ledgers[-1]

    def start(self, function: Callable[[Ledger], None], number: int, threads: int, into: list[Any]) -> None:
        for i in range(number):
            ledger = self.ledger()
            if i < threads:
                thread = threading.Thread(target=function, args=(ledger,))
                thread.start()
                into.append(thread)
            else:
                into.append(go(function, ledger))

    # Senders

    def sends(self, mine: Ledger) -> None:
        rnd = mine.random
        while not self.over():
            value, ch = mine.value(), rnd.choice(self.channels)
            kind = rnd.randrange(6)
            if kind == 0:
                ch.send(value)
            elif kind == 1:
                try:
                    ch.send(value, timeout=rnd.random() * 1e-4)
                except TimeoutError:
                    continue
            elif kind == 2:
                if not ch.try_send(value):
                    continue
            elif kind == 3:
                some = rnd.sample(self.channels, rnd.randint(1, len(self.channels)))
                select(*(send(ch, value) for ch in some))
            elif kind == 4:
                if select(send(ch, value), timeout=rnd.random() * 1e-4) is None:
                    continue
            else:
                selected = select(recv(after(rnd.random() * 1e-4)), send(ch, value))
                assert selected is not None
                if selected.index == 0:
                    continue
            mine.sent.append(value)

    def sends_and_receives(self, mine: Ledger) -> None:
        rnd = mine.random
        while not self.over():
            ch, value = rnd.choice(self.channels), mine.value()
            selected = select(send(ch, value), recv(ch), recv(rnd.choice(self.channels)), timeout=1e-3)
            if selected is None:
                continue
            if selected.index == 0:
                mine.sent.append(value)
            else:
                mine.received.append(selected.value)

    # Receivers

    def receives(self, mine: Ledger) -> None:
        rnd = mine.random
        while True:
            ch, kind = rnd.choice(self.channels), rnd.randrange(5)
            if kind == 0:
                selected = select(recv(self.stop), *(recv(ch) for ch in self.channels))
                assert selected is not None
                if selected.index == 0:
                    return
                mine.received.append(selected.value)
            elif kind == 1:
                try:
                    mine.received.append(ch.recv(timeout=rnd.random() * 1e-4))
                except TimeoutError:
                    continue
            elif kind == 2:
                value = ch.try_recv(None)
                if value is not None:
                    mine.received.append(value)
            elif kind == 3:
                selected = select(recv(ch), timeout=rnd.random() * 1e-4)
                if selected is not None:
                    mine.received.append(selected.value)
            else:
                # Not for ever: all receivers could be at one channel while the senders are at the other.
                selected = select(recv(ch), recv(self.stop), timeout=1e-3)
                if selected is None:
                    continue
                if selected.index == 1:
                    return
                mine.received.append(selected.value)

    def is_cancelled_at_random(self, mine: Ledger) -> None:
        """Starts goroutines that receive one value each, and cancels some: a value is received or stays."""
        rnd = mine.random
        while not self.over():
            ch = rnd.choice(self.channels)

            def one(ch: Any = ch) -> None:
                try:
                    value = ch.recv(timeout=1e-3)
                except TimeoutError:
                    return
                mine.received.append(value)

            group = [go(one) for _ in range(rnd.randint(1, 8))]
            for _ in range(rnd.randint(0, 3)):
                gosched()
            for g in group:
                if rnd.random() < 0.5:
                    g.cancel()
            for g in group:
                g.join()
                if not g.cancelled():
                    g.result()

    def finish(self) -> None:
        for sender in self.senders:
            end(sender)
        # Whoever waits in a send now has nobody left to wait for; there is none.
        deadline = time.monotonic() + LIMIT
        while any(len(ch) for ch in self.channels):
            assert time.monotonic() < deadline, "values stay in the buffers"
            sleep(0.001)
        self.stop.close()
        for receiver in self.receivers:
            end(receiver)

    def check(self) -> int:
        sent = Counter(value for ledger in self.ledgers for value in ledger.sent)
        received = Counter(value for ledger in self.ledgers for value in ledger.received)
        lost, extra = sent - received, received - sent
        assert not lost and not extra, f"lost {list(lost)[:5]}, doubled or invented {list(extra)[:5]}"
        assert max(sent.values(), default=0) <= 1
        return sum(sent.values())


def end(one: Any) -> None:
    if isinstance(one, Goroutine):
        one.result(LIMIT)
    else:
        one.join(LIMIT)
        assert not one.is_alive(), "a thread does not end"


@pytest.fixture
def seed(rng: random.Random) -> int:
    return rng.randrange(2**60)


@pytest.fixture
def collecting() -> Any:
    """Collections all the time, in a goroutine and in a thread."""
    stop: list[int] = []

    def collects(pause: float) -> None:
        while not stop:
            gc.collect()
            sleep(pause)

    thread = threading.Thread(target=collects, args=(0.011,))
    thread.start()
    g = go(collects, 0.007)
    yield
    stop.append(1)
    thread.join()
    g.result()


@pytest.mark.parametrize("capacities", [(0,), (1, 0), (0, 1, 128, 3)], ids=["0", "0 and 1", "0, 1, 3, 128"])
@pytest.mark.timeout(LIMIT + 60)
def test_every_value_is_received_once(two_workers: None, collecting: None, seed: int, capacities: Any) -> None:
    storm = Storm(seed, capacities)
    storm.start(storm.receives, 8, 2, storm.receivers)
    storm.start(storm.sends, 8, 2, storm.senders)
    storm.start(storm.sends_and_receives, 4, 1, storm.senders)
    storm.start(storm.is_cancelled_at_random, 2, 0, storm.senders)
    storm.finish()
    assert storm.check() > 100


@pytest.mark.timeout(LIMIT + 60)
def test_closes_lose_nothing_that_was_accepted(two_workers: None, collecting: None, seed: int) -> None:
    rnd, deadline, rounds = random.Random(seed), time.monotonic() + SECONDS, 0
    while time.monotonic() < deadline or rounds == 0:
        rounds += 1
        ch = chan(rnd.choice((0, 1, 5, 128)))
        pause = rnd.random() * 1e-3
        plain = rnd.random() < 0.5

        def sender(name: int, ch: Any = ch, plain: bool = plain) -> list[Any]:
            sent, i = [], 0
            while True:
                i += 1
                try:
                    ch.send((name, i)) if plain else select(send(ch, (name, i)), send(None, 0))
                except Closed:
                    return sent
                sent.append((name, i))

        senders = [go(sender, name) for name in range(4)]
        receivers = [go(list, ch) for _ in range(3)]
        got: list[Any] = []
        thread = threading.Thread(target=lambda ch=ch, got=got: got.extend(ch))
        thread.start()
        sleep(pause)
        ch.close()
        sent = [value for g in senders for value in g.result(LIMIT)]
        thread.join(LIMIT)
        received = got + [value for g in receivers for value in g.result(LIMIT)]
        assert Counter(sent) == Counter(received), (rounds, len(sent), len(received))
    assert rounds > 1


@pytest.mark.timeout(LIMIT + 60)
def test_goroutines_come_wait_are_cancelled_and_go(two_workers: None, collecting: None, seed: int) -> None:
    """Each goroutine ends in exactly one way, says so, and is gone afterwards."""
    rnd, deadline = random.Random(seed), time.monotonic() + SECONDS
    before = num_goroutine()
    outcomes: Counter[str] = Counter()

    def work(ch: Any, depth: int) -> str:
        try:
            if depth:
                return go(work, ch, depth - 1).result()
            sorted([2, 1], key=lambda n: ch.recv_ok(timeout=5e-3) and n)
            return "received"
        except TimeoutError:
            return "timed out"
        except Cancelled:
            outcomes["unwound"] += 1
            raise

    while time.monotonic() < deadline:
        ch = chan(rnd.choice((0, 3)))
        group = [go(work, ch, rnd.randint(0, 2)) for _ in range(rnd.randint(1, 60))]
        for _ in range(rnd.randint(0, 20)):
            select(send(ch, 1), timeout=0)
        for g in rnd.sample(group, len(group) // 3):
            g.cancel(rnd.random())
        if rnd.random() < 0.5:
            ch.close()
        for g in group:
            assert g.join(LIMIT)
            if g.cancelled():
                outcomes["cancelled"] += 1
            elif g.exception() is not None:
                assert type(g.exception()).__name__ == "CancelledError", g.exception()
                outcomes["waited for a cancelled one"] += 1
            else:
                outcomes[g.result()] += 1
    assert outcomes["received"] and outcomes["cancelled"]
    while num_goroutine() > before:
        assert time.monotonic() < deadline + LIMIT, "goroutines are left"
        sleep(0.001)


@pytest.mark.timeout(LIMIT + 60)
def test_a_ring_of_many_passes_its_tokens_on(two_workers: None, collecting: None, seed: int) -> None:
    rnd, deadline = random.Random(seed), time.monotonic() + SECONDS
    size, tokens = 1000, 50
    channels = [chan(rnd.choice((0, 0, 1))) for _ in range(size)]
    final = chan(tokens)

    def node(i: int) -> int:
        passed, source, to = 0, channels[i], channels[(i + 1) % size]
        while True:
            token, ok = source.recv_ok()
            if not ok:
                return passed
            passed += 1
            if time.monotonic() > deadline:
                final.send(token)
            else:
                to.send(token)

    nodes = [go(node, i) for i in range(size)]
    for token in range(tokens):
        channels[token * (size // tokens)].send(token)
    assert sorted(final.recv(timeout=LIMIT) for _ in range(tokens)) == list(range(tokens))
    for ch in channels:
        ch.close()
    assert sum(g.result(LIMIT) for g in nodes) > tokens
