"""Contexts under Go's own stress scenarios, written afresh."""

from __future__ import annotations

import gc
import random
import time
from concurrent.futures import CancelledError
from typing import Any

import pytest
from goslings import AtomicInt, Context, DeadlineExceeded, background, chan, go, gosched, recv, select, send, stats
from helpers import SECONDS, count, results, until


def ended(context: Context) -> bool:
    """Whether its channel is closed; it must agree with the reason."""
    closed = select(recv(context.done), timeout=0) is not None
    if closed:
        assert context.err() is not None
    return closed


def tree(rnd: random.Random, layers: int, far: float) -> tuple[Context, list[Any], list[tuple[str, int]]]:
    """A line of contexts of all kinds, each derived from the one before; with those that can be cancelled, and
    what was bound on the way."""
    context, cancellable, bound = background(), [], []
    for layer in range(layers):
        match rnd.randrange(4):
            case 0:
                context = context.with_cancel()
                cancellable.append(context)
            case 1:
                context = context.with_timeout(far)
                cancellable.append(context)
            case 2:
                context = context.with_deadline(time.monotonic() + far)
                cancellable.append(context)
            case 3:
                bound.append((f"key {layer}", layer))
                context = context.with_value(*bound[-1])
    return context, cancellable, bound


@pytest.mark.parametrize("by", ["cancel", "deadline"])
def test_x02_x05_x10_random_lines_of_thirty_layers(by: str, rng: random.Random) -> None:
    # As many as to have all kinds in all places.
    for _ in range(count(100)):
        far = 1000.0 if by == "cancel" else rng.uniform(0.001, 0.003)
        begun = time.monotonic()
        last, cancellable, bound = tree(rng, 30, far)
        if not cancellable:
            continue

        def values(last: Context = last, bound: list[tuple[str, int]] = bound) -> None:
            for key, value in bound:
                assert last.value(key) == value
            assert last.value("no such key") is None

        values()
        if by == "deadline":
            timed = last.deadline is not None
            if not timed:
                continue
            assert begun + far <= last.deadline <= time.monotonic() + far
            assert last.done.recv_ok(timeout=SECONDS) == (None, False)
            assert isinstance(last.err(), DeadlineExceeded) and time.monotonic() >= begun + far
            # The layers above the first with a time go on; those below it have ended.
            for context in cancellable:
                assert ended(context) == (context.deadline is not None)
        else:
            assert not ended(last) and last.err() is None
            cut = rng.randrange(len(cancellable))
            cancellable[cut].cancel()
            assert ended(last) and isinstance(last.err(), CancelledError)
            assert [ended(context) for context in cancellable] == [i >= cut for i in range(len(cancellable))]
        values()
        cancellable[0].cancel()
        assert all(map(ended, cancellable))


def test_x02_children_of_every_kind_cancelled_all_at_once(two_workers: None) -> None:
    root, n = background().with_cancel(), count(100)
    contexts: dict[Context, list[Context]] = {root: []}
    waiting = [root]
    while len(contexts) < n:
        parent = waiting.pop(0)
        for _ in range(10):
            child = parent.with_cancel()
            contexts[child] = []
            contexts[parent].append(child)
            waiting.append(child)
    waiters = [go(lambda context=context: context.done.recv_ok(SECONDS)) for context in contexts]
    cancelling = [go(context.cancel) for context in contexts]
    results(cancelling)
    assert results(waiters) == [(None, False)] * len(contexts)
    assert all(isinstance(context.err(), CancelledError) for context in contexts)


def test_x02_parents_and_children_cancelled_crosswise(two_workers: None) -> None:
    # A cancels a child of B's line and B one of A's, again and again: neither waits for the other.
    for _ in range(count(300)):
        parent = background().with_cancel()
        child = parent.with_cancel()
        grandchild = child.with_timeout(1000)
        orders = [(parent, child, grandchild), (grandchild, child, parent), (child, grandchild, parent)]
        goroutines = [go(lambda order=order: [context.cancel() for context in order]) for order in orders]
        for context in (parent, child, grandchild):
            assert context.done.recv_ok(timeout=SECONDS) == (None, False)
        results(goroutines)


def test_x03_the_reason_never_comes_after_the_channel(two_workers: None) -> None:
    for i in range(count(1000)):
        context = background().with_cancel() if i % 2 else background().with_timeout(1000)
        wrong = []

        def looks(context: Context = context, wrong: list[str] = wrong) -> None:
            while True:
                closed = select(recv(context.done), timeout=0) is not None
                if closed and context.err() is None:
                    wrong.append("closed without a reason")
                if context.err() is not None and select(recv(context.done), timeout=0) is None:
                    wrong.append("a reason without being closed")
                if closed:
                    return
                gosched()

        g = go(looks)
        context.cancel()
        g.result(SECONDS)
        assert not wrong


def test_x03_children_derived_while_the_parent_ends(two_workers: None) -> None:
    for _ in range(count(300)):
        parent = background().with_cancel()

        def derives(parent: Context = parent) -> list[Context]:
            made = []
            for i in range(20):
                made.append(parent.with_cancel() if i % 2 else parent.with_timeout(1000))
                gosched()
            return made

        g = go(derives)
        gosched()
        parent.cancel()
        for child in g.result(SECONDS):
            assert child.done.recv_ok(timeout=SECONDS) == (None, False)
            assert isinstance(child.err(), CancelledError)


def test_x11_thousands_derived_and_cancelled_leave_nothing() -> None:
    root = background().with_cancel()
    before = stats().timers
    gc.collect()

    def round_of(n: int) -> int:
        for i in range(n):
            child = root.with_timeout(3600) if i % 2 else root.with_cancel()
            child.with_value("key", i).with_cancel()
            child.cancel()
        gc.collect()
        return len(gc.get_objects())

    first = round_of(count(2000))
    assert round_of(count(10_000)) < first + 200
    until(lambda: stats().timers <= before)
    assert not ended(root)
    root.cancel()


def test_x08_functions_run_exactly_once_or_are_prevented(two_workers: None) -> None:
    n = count(1000)
    for _ in range(3):
        context, runs = background().with_cancel(), AtomicInt()
        stops = [context.after_func(runs.add) for _ in range(n)]
        cancelling = go(context.cancel)
        prevented = sum(stop() for stop in stops)
        cancelling.result(SECONDS)
        until(lambda runs=runs, prevented=prevented: runs.load() == n - prevented)
        assert not any(stop() for stop in stops) and runs.load() == n - prevented


def test_x02_workers_of_a_request_end_with_it(two_workers: None) -> None:
    context = background().with_timeout(1000)
    jobs, answers, n = chan(), chan(), count(200)

    def worker(context: Context) -> int:
        done = 0
        while True:
            selected = select(recv(context.done), recv(jobs))
            if selected.index == 0:
                return done
            if select(send(answers, selected.value**2), recv(context.done)).index == 1:
                return done
            done += 1

    workers = [go(worker, context.with_cancel()) for _ in range(8)]
    feeder = go(lambda: [jobs.send(i) for i in range(n)])
    assert sorted(answers.recv() for _ in range(n)) == [i * i for i in range(n)]
    feeder.result(SECONDS)
    context.cancel()
    assert sum(results(workers)) == n
