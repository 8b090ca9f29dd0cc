"""The scheduler under Go's own stress scenarios, written afresh."""

from __future__ import annotations

import time
from typing import Any

import pytest
from goslings import AtomicInt, WaitGroup, after, chan, go, gomaxprocs, gosched, num_goroutine, recv, select, sleep
from helpers import SECONDS, count, park_one_by_one, results, until


def test_g12_yielding_makes_progress(one_worker: None) -> None:
    # The first yields in a loop in which it never waits; the others get their turns.
    told, quit_ = chan(), chan()

    def yields() -> int:
        turns = 0
        while select(recv(quit_), timeout=0) is None:
            turns += 1
            gosched()
        return turns

    g = go(yields)
    for i in range(count(100)):
        sending = go(told.send, i)
        assert told.recv(timeout=SECONDS) == i
        sending.result(SECONDS)
    quit_.close()
    assert g.result(SECONDS) > 0


def test_g16_goroutines_that_wait_for_each_other_by_looking_run_at_the_same_time(
    two_workers: None, fast_switching: None
) -> None:
    # Each adds when it is its turn, and does not let others run while it looks.
    turns, n = AtomicInt(), 3
    for _ in range(count(5)):
        turns.store(0)

        def work(me: int) -> None:
            for i in range(n):
                deadline = time.monotonic() + SECONDS
                while turns.load() != 2 * i + me:
                    assert time.monotonic() < deadline
                turns.add()

        results([go(work, 0), go(work, 1)])
        assert turns.load() == 2 * n


def test_g17_a_busy_pair_and_a_light_pair_share_a_worker(one_worker: None) -> None:
    stop: list[bool] = []

    def pair(work: int) -> tuple[Any, list[int]]:
        a, b, rounds = chan(), chan(), [0]

        def ping() -> None:
            while not stop:
                for _ in range(work):
                    pass
                rounds[0] += 1
                a.send(None)
                b.recv()
            a.close()

        def pong() -> None:
            for _ in a:
                b.send(None)

        return (go(ping), go(pong)), rounds

    busy, heavy = pair(2000)
    idle, light = pair(0)
    until(lambda: heavy[0] >= 100 and light[0] >= 100)
    sleep(0.1)
    seen = heavy[0], light[0]
    stop.append(True)
    results([*busy, *idle])
    # Turns, not time, are shared: the light one has no fewer rounds, and not so many that it had all the turns.
    assert seen[1] * 20 >= seen[0] and seen[0] * 200 >= seen[1], seen


@pytest.mark.parametrize("hogs", [1, 4])
def test_g17_t11_timers_and_others_run_beside_those_who_yield(one_worker: None, hogs: int) -> None:
    stop: list[bool] = []

    def hog() -> None:
        while not stop:
            gosched()

    goroutines = [go(hog) for _ in range(hogs)]

    def timed() -> int:
        fired = 0
        for _ in range(20):
            after(0.001).recv()
            fired += 1
        return fired

    waiting = [go(timed) for _ in range(4)]
    assert results(waiting) == [20] * 4
    stop.append(True)
    results(goroutines)


def test_g19_the_number_falls_with_each_that_ends(two_workers: None) -> None:
    before, n = num_goroutine(), count(100)
    channels = [chan() for _ in range(n)]
    goroutines = park_one_by_one([ch.recv for ch in channels])
    assert num_goroutine() == before + n
    for i, (ch, g) in enumerate(zip(channels, goroutines, strict=True), 1):
        ch.send(None)
        g.result(SECONDS)
        until(lambda i=i: num_goroutine() == before + n - i)


def test_g18_the_number_of_workers_changes_while_thousands_come_and_go() -> None:
    before = gomaxprocs()
    try:
        group, counter, n = WaitGroup(), AtomicInt(), count(3000)

        def work() -> None:
            gosched()
            counter.add()
            sleep(0)

        for i in range(n):
            group.go(work)
            if i % 100 == 0:
                gomaxprocs(i // 100 % 6 + 1)
        assert group.wait(SECONDS) and counter.load() == n
    finally:
        gomaxprocs(before)


def test_g20_starting_from_many_at_once_reaches_each(two_workers: None) -> None:
    # Each starts two, ten layers deep; all report by one channel.
    depth, told = 10, chan(100)

    def grow(layer: int) -> None:
        if layer < depth:
            go(grow, layer + 1)
            go(grow, layer + 1)
        told.send(layer)

    for _ in range(count(3)):
        go(grow, 0)
        layers = [told.recv(timeout=SECONDS) for _ in range(2 ** (depth + 1) - 1)]
        assert [layers.count(layer) for layer in range(depth + 1)] == [2**layer for layer in range(depth + 1)]
