"""Channels under Go's own stress scenarios, written afresh, with exact counts."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from goslings import Closed, WaitGroup, WouldBlock, chan, go, gosched, recv, select, send
from helpers import SECONDS, check_child, count, park_one_by_one, results


def some(*cases: Any) -> Any:
    """What `select` takes, without a limit."""
    selected = select(*cases, timeout=SECONDS)
    assert selected is not None
    return selected


@pytest.mark.parametrize("capacity", [0, 1, 2, 3, 4, 5, 10, 50, 200])
def test_c01_c02_c09_every_capacity_blocks_and_passes_as_it_should(two_workers: None, capacity: int) -> None:
    # Whoever receives from an empty one waits, in each way to receive.
    ch = chan(capacity)
    waiting = park_one_by_one([ch.recv, ch.recv_ok, lambda: next(ch), lambda: select(recv(ch)).value])
    with pytest.raises(WouldBlock):
        chan(capacity).try_recv()
    assert select(recv(chan(capacity)), timeout=0) is None
    for i in range(4):
        ch.send(i)
    assert results(waiting) == [0, (1, True), 2, 3]
    assert len(ch) == 0

    # Whoever sends on a full one waits, in each way to send.
    for i in range(capacity):
        assert ch.try_send(i)
    assert not ch.try_send("too much") and select(send(ch, "too much"), timeout=0) is None
    waiting = park_one_by_one([lambda: ch.send("one"), lambda: select(send(ch, "two"))])
    assert (len(ch), ch.capacity) == (capacity, capacity)
    assert [ch.recv() for _ in range(capacity + 2)] == [*range(capacity), "one", "two"]
    results(waiting)

    # Closed, it gives what it holds, then what closed channels give.
    for i in range(capacity):
        ch.send(i)
    ch.close()
    assert [ch.recv_ok() for _ in range(capacity + 3)] == [(i, True) for i in range(capacity)] + [(None, False)] * 3
    for attempt in (ch.recv, ch.try_recv, lambda: next(ch)):
        with pytest.raises((Closed, StopIteration)):
            attempt()

    # A hundred pass in order, both with somebody to read them and without.
    ch = chan(capacity)
    sender = go(lambda: [ch.send(i) for i in range(100)])
    assert [ch.recv() for _ in range(100)] == list(range(100))
    sender.result(SECONDS)

    # Many send each number to many: each arrives as often as it was sent.
    ch, each = chan(capacity), count(200)
    senders = [go(lambda: [ch.send(i) for i in range(each)]) for _ in range(4)]
    receivers = [go(lambda: Counter(ch.recv() for _ in range(each))) for _ in range(4)]
    results(senders)
    assert sum(results(receivers), Counter()) == Counter(dict.fromkeys(range(each), 4))
    assert (len(ch), ch.capacity) == (0, capacity)


@pytest.mark.parametrize("by", ["try_recv", "select"])
def test_s17_an_attempt_beside_a_close_finds_the_value_or_the_close(two_workers: None, by: str) -> None:
    n = count(10_000)

    def attempt(ch: Any) -> str:
        if by == "select":
            selected = select(recv(ch), timeout=0)
            return "nothing" if selected is None else "value" if selected.ok else "closed"
        try:
            return "nothing" if ch.try_recv("nothing") == "nothing" else "value"
        except Closed:
            return "closed"

    seen: Counter[str] = Counter()
    for _ in range(n):
        ch = chan(1)
        ch.send(1)
        g = go(attempt, ch)
        ch.close()
        mine = ch.recv_ok()[1]
        theirs = g.result(SECONDS)
        assert theirs == ("closed" if mine else "value")
        seen[theirs] += 1
    assert sum(seen.values()) == n


@pytest.mark.parametrize("second", ["send", "close"])
def test_s16_s17_an_attempt_on_two_channels_of_which_one_is_always_ready(two_workers: None, second: str) -> None:
    # One value moves from the first channel to the second; whoever looks at both finds one of them ready.
    for _ in range(count(20_000)):
        a, b = chan(1), chan(1 if second == "send" else 0)
        a.send(1)
        g = go(select, recv(a), recv(b), timeout=0)
        if second == "send":
            b.send(1)
        else:
            b.close()
        select(recv(a), timeout=0)
        assert g.result(SECONDS) is not None, "neither, and yet one was ready all the time"


def test_c23_many_consumers_of_many_producers_sum_up(two_workers: None) -> None:
    primes = [2, 3, 7, 11, 13, 17, 19, 23, 27, 31]
    workers, items = 23, count(50_000)
    queue, answers = chan(workers * 3), chan(workers * 3)

    def worker(w: int) -> None:
        for value in queue:
            if primes[w % len(primes)] == value:
                gosched()
            answers.send(value)

    working = [go(worker, w) for w in range(workers)]

    def feed() -> int:
        total = 0
        for i in range(items):
            value = primes[i % len(primes)]
            queue.send(value)
            total += value
        queue.close()
        results(working)
        answers.close()
        return total

    feeding = go(feed)
    got = list(answers)
    assert len(got) == items and sum(got) == feeding.result(SECONDS)


@pytest.mark.parametrize("capacity", [0, 100])
def test_s02_a_select_that_sends_zeros_and_ones_sends_both(two_workers: None, capacity: int) -> None:
    ch, n = chan(capacity), max(100, count(1000))

    def receive() -> list[int]:
        got = []
        for _ in range(n):
            gosched()
            got.append(ch.recv())
        return got

    receiving = go(receive)
    for _ in range(n):
        some(send(ch, 0), send(ch, 1))
    ones = sum(receiving.result(SECONDS))
    assert n / 10 < ones < n * 9 / 10


def test_c19_values_of_all_kinds_pass_in_turn() -> None:
    ch = chan(1)
    values = [None, 1, "text", b"", 1.5, (), [1], {"a": 1}, Exception("no error"), StopIteration(1), ch, go, object()]
    for value in values:
        assert select(send(ch, value), timeout=0) is not None
        got = some(recv(ch)).value
        assert got is value
        ch.send(value)
        assert ch.recv_ok() == (value, True)


def test_c01_c04_a_chain_of_ten_thousand_goroutines() -> None:
    # In a process of its own, as it takes as many stacks.
    n = count(10_000)
    out = check_child(
        f"""
        from goslings import chan, go, num_goroutine
        def link(left, right):
            left.send(right.recv() + 1)
        left = first = chan()
        links = []
        for _ in range({n}):
            right = chan()
            links.append(go(link, left, right))
            left = right
        left.send(0)
        print(first.recv())
        print(all(g.join(20) for g in links))
        """,
        seconds=100,
    )
    assert out == f"{n}\nTrue\n"


def test_c09_c10_closed_channels_in_every_phrasing() -> None:
    def closed(capacity: int, held: int) -> Any:
        ch = chan(capacity)
        for i in range(held):
            ch.send(i)
        ch.close()
        return ch

    def raised(attempt: Any) -> Any:
        try:
            return attempt()
        except Closed as error:
            return str(error)

    ways_to_receive = {
        "recv": lambda ch: raised(ch.recv),
        "recv with a timeout": lambda ch: raised(lambda: ch.recv(timeout=0)),
        "recv_ok": lambda ch: ch.recv_ok(),
        "try_recv": lambda ch: raised(ch.try_recv),
        "try_recv with a default": lambda ch: raised(lambda: ch.try_recv(default="default")),
        "next": lambda ch: next(ch, "stop"),
        "select": lambda ch: some(recv(ch)),
        "select with a default": lambda ch: select(recv(ch), timeout=0),
        "select among others": lambda ch: some(recv(None), recv(chan()), recv(ch), send(chan(), 1)),
        "a view": lambda ch: ch.receiver().recv_ok(),
    }
    endings = {
        "recv_ok": (None, False),
        "a view": (None, False),
        "next": "stop",
    }
    for name, receive in ways_to_receive.items():
        for capacity, held in ((0, 0), (1, 0), (2, 1), (2, 2)):
            ch = closed(capacity, held)
            for i in range(held):
                got = receive(ch)
                value = got[0] if isinstance(got, tuple) else getattr(got, "value", got)
                assert value == i, name
            for _ in range(3):
                got = receive(ch)
                if name.startswith("select"):
                    assert (got.value, got.ok) == (None, False), name
                else:
                    assert got == endings.get(name, "receive on closed channel"), name
    ways_to_send = {
        "send": lambda ch: ch.send(1),
        "send with a timeout": lambda ch: ch.send(1, timeout=0),
        "try_send": lambda ch: ch.try_send(1),
        "select": lambda ch: select(send(ch, 1)),
        "select with a default": lambda ch: select(send(ch, 1), timeout=0),
        "select among others": lambda ch: select(recv(None), recv(chan()), send(ch, 1)),
        "a view": lambda ch: ch.sender().send(1),
    }
    for name, attempt in ways_to_send.items():
        for capacity, held in ((0, 0), (1, 0), (1, 1)):
            with pytest.raises(Closed, match="send on closed channel"):
                attempt(closed(capacity, held))
            assert name


def test_c23_c12_a_group_of_workers_that_ends_by_close(two_workers: None) -> None:
    for capacity, workers in itertools.product((0, 1, 10), (1, 4)):
        jobs, done, n = chan(capacity), chan(capacity), count(300)
        group = WaitGroup()

        def work(jobs: Any = jobs, done: Any = done) -> None:
            for job in jobs:
                done.send(job * job)

        for _ in range(workers):
            group.go(work)

        def close_behind(group: WaitGroup = group, done: Any = done) -> None:
            group.wait()
            done.close()

        go(close_behind)

        def feed(jobs: Any = jobs, n: int = n) -> None:
            with jobs:
                for i in range(n):
                    jobs.send(i)

        go(feed)
        assert sorted(done) == [i * i for i in range(n)]
