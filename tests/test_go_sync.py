"""Locks and the like under Go's own stress scenarios, written afresh, with exact counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from goslings import (
    AtomicInt,
    Cond,
    Map,
    Mutex,
    Once,
    Pool,
    RWMutex,
    Semaphore,
    SingleFlight,
    WaitGroup,
    chan,
    go,
    gosched,
    sleep,
)
from helpers import ACQUIRE, COND, MUTEX, SECONDS, count, results, until, waits


def test_y13_signals_wake_generation_by_generation() -> None:
    # Each that starts to wait is behind those that wait already: it cannot get a signal meant for them.
    n, mutex = count(100), Mutex()
    cond, running, awake = Cond(mutex), chan(n), chan(n)

    def work(i: int) -> None:
        with mutex:
            running.send(True)
            cond.wait()
            awake.send(i)

    goroutines = []
    for i in range(n):
        goroutines.append(go(work, i))
        if i > 0:
            assert awake.recv() == i - 1
        running.recv()
        with mutex:
            cond.notify()
    assert awake.recv() == n - 1
    results(goroutines)


def test_y13_one_who_comes_later_does_not_take_the_wake_of_one_who_waits(two_workers: None) -> None:
    for _ in range(count(1000)):
        mutex = Mutex()
        cond, told, done = Cond(mutex), chan(), []

        def first(mutex: Mutex = mutex, cond: Cond = cond, told: Any = told) -> None:
            with mutex:
                told.send(None)
                cond.wait()
            told.send(None)

        def second(mutex: Mutex = mutex, cond: Cond = cond, done: list[bool] = done) -> None:
            with mutex:
                while not done:
                    cond.wait()

        one = go(first)
        told.recv()
        with mutex:
            pass  # it waits now, since it has let the mutex go
        broadcast, two = go(cond.notify_all), go(second)
        told.recv(timeout=SECONDS)
        with mutex:
            done.append(True)
        cond.notify_all()
        results([one, broadcast, two])


def test_y13_a_producer_and_a_consumer_by_one_cond(two_workers: None) -> None:
    mutex, n = Mutex(), count(20_000)
    cond, box = Cond(mutex), [0]

    def produce() -> None:
        for _ in range(n):
            with mutex:
                while box[0] == 1:
                    cond.wait()
                box[0] = 1
                cond.notify()

    def consume() -> int:
        taken = 0
        for _ in range(n):
            with mutex:
                while box[0] == 0:
                    cond.wait()
                box[0] = 0
                taken += 1
                cond.notify()
        return taken

    producing, consuming = go(produce), go(consume)
    assert consuming.result(SECONDS) == n
    producing.result(SECONDS)


def test_y13_a_broadcast_reaches_all_who_wait_and_nobody_else() -> None:
    n, mutex = count(200), Mutex()
    cond, woken = Cond(mutex), AtomicInt()

    def work() -> None:
        with mutex:
            cond.wait()
        woken.add()

    for _ in range(3):
        woken.store(0)
        goroutines = [waits(go(work), COND) for _ in range(n)]
        with mutex:
            cond.notify_all()
        late = go(work)
        results(goroutines)
        assert woken.load() == n and not late.done()
        waits(late, COND)
        cond.notify()
        late.result(SECONDS)


def test_y03_somebody_who_holds_it_nearly_always_starves_nobody(two_workers: None) -> None:
    mutex, stop, times = Mutex(), chan(), count(10)

    def greedy() -> None:
        while stop.try_recv("go on") == "go on":
            mutex.lock()
            sleep(1e-4)
            mutex.unlock()

    def modest() -> None:
        for _ in range(times):
            sleep(1e-4)
            mutex.lock(timeout=SECONDS)
            mutex.unlock()

    hog = go(greedy)
    go(modest).result(SECONDS)
    stop.send(None)
    hog.result(SECONDS)


def test_y01_y04_a_mutex_under_ten_lockers_and_triers(two_workers: None, fast_switching: None) -> None:
    mutex, n, done = Mutex(), count(10_000), AtomicInt()
    box = {"locked": 0}

    def hammer() -> int:
        mine = 0
        for i in range(n):
            if i % 3 == 0:
                if not mutex.try_lock():
                    continue
            else:
                mutex.lock()
            value = box["locked"]
            if i % 100 == 0:
                gosched()
            box["locked"] = value + 1
            mine += 1
            mutex.unlock()
        done.add()
        return mine

    goroutines = [go(hammer) for _ in range(10)]
    assert sum(results(goroutines)) == box["locked"] >= 10 * (n * 2 // 3)
    assert done.load() == 10 and mutex.try_lock()


@pytest.mark.parametrize(("readers", "writers"), [(1, 1), (3, 1), (10, 1), (10, 2), (5, 5)])
def test_y06_readers_and_writers_keep_apart(
    two_workers: None, fast_switching: None, readers: int, writers: int
) -> None:
    rw, activity, n = RWMutex(), AtomicInt(), count(2000)

    def reader() -> None:
        for i in range(n):
            if i % 5 == 0:
                if not rw.try_rlock():
                    continue
            else:
                rw.rlock()
            assert 1 <= activity.add(1) < 10_000
            if i % 10 == 0:
                gosched()
            activity.add(-1)
            rw.runlock()

    def writer() -> None:
        for i in range(n):
            if i % 5 == 0:
                if not rw.try_lock():
                    continue
            else:
                rw.lock()
            assert activity.add(10_000) == 10_000
            if i % 10 == 0:
                gosched()
            activity.add(-10_000)
            rw.unlock()

    results([go(reader) for _ in range(readers)] + [go(writer) for _ in range(writers)])
    assert activity.load() == 0 and rw.try_lock()


def test_y06_readers_meet_inside(two_workers: None) -> None:
    for readers in (1, 3, 10):
        rw, locked, release, done = RWMutex(), chan(), chan(), chan()

        def reader(rw: RWMutex = rw, locked: Any = locked, release: Any = release, done: Any = done) -> None:
            with rw.read():
                locked.send(True)
                release.recv()
            done.send(True)

        goroutines = [go(reader) for _ in range(readers)]
        for act in (locked.recv, lambda release=release: release.send(True), done.recv):
            for _ in range(readers):
                act()
        results(goroutines)


def test_y09_groups_wait_for_each_other_in_turn(two_workers: None) -> None:
    here, there, n = WaitGroup(), WaitGroup(), 16
    for _ in range(count(20)):
        here.add(n)
        there.add(n)
        exited = chan(n)

        def work(exited: Any = exited) -> None:
            here.done()
            there.wait()
            exited.send(True)

        goroutines = [go(work) for _ in range(n)]
        assert here.wait(SECONDS)
        for _ in range(n):
            assert exited.try_recv("none") == "none", "released too soon"
            there.done()
        for _ in range(n):
            exited.recv(timeout=SECONDS)
        results(goroutines)


def test_y09_waiting_races_with_the_last_done(two_workers: None) -> None:
    for _ in range(count(1000)):
        group, n = WaitGroup(), [0]
        counter = AtomicInt()
        group.add(2)

        def work(group: WaitGroup = group, counter: AtomicInt = counter) -> None:
            counter.add()
            group.done()

        goroutines = [go(work), go(work)]
        assert group.wait(SECONDS) and counter.load() == 2 and n == [0]
        results(goroutines)


def test_y12_once_runs_once_for_a_crowd(two_workers: None) -> None:
    for _ in range(count(200)):
        once, runs = Once(), []

        def work(once: Once = once, runs: list[int] = runs) -> int:
            once.do(lambda: (gosched(), runs.append(1)))
            return len(runs)

        assert results([go(work) for _ in range(10)]) == [1] * 10


def test_y15_a_pool_under_collections_gives_nothing_twice(two_workers: None) -> None:
    import gc

    pool: Pool[list[int]] = Pool(lambda: [0])
    n = count(2000)

    def work() -> None:
        for i in range(n):
            item = pool.get()
            assert item is not None
            item[0] += 1
            assert item[0] == 1, "somebody else has it"
            if i % 50 == 0:
                gosched()
            item[0] -= 1
            pool.put(item)

    goroutines = [go(work) for _ in range(6)]
    while not all(g.done() for g in goroutines):
        gc.collect()
        sleep(0.001)
    results(goroutines)


def test_y16_a_map_agrees_with_a_dict_under_a_lock(two_workers: None, rng: Any) -> None:
    # Each goroutine has keys of its own in a map that all share; a dict tells what must come out.
    shared: Map[tuple[int, int], int] = Map()
    n, seeds = count(3000), [rng.randrange(2**32) for _ in range(4)]

    def work(name: int) -> None:
        import random

        rnd, model = random.Random(seeds[name]), dict[tuple[int, int], int]()
        for i in range(n):
            key = (name, rnd.randrange(8))
            held = model.get(key)
            operations: list[Callable[[], tuple[Any, Any]]] = [
                lambda key=key, held=held: (shared.load(key), held),
                lambda key=key, i=i: (shared.store(key, i), model.__setitem__(key, i)),
                lambda key=key, i=i, held=held: (
                    shared.load_or_store(key, i),
                    (model.setdefault(key, i), held is not None),
                ),
                lambda key=key, held=held: (shared.load_and_delete(key), (model.pop(key, None), held is not None)),
                lambda key=key, i=i, held=held: (
                    shared.swap(key, i),
                    (held, held is not None) if model.__setitem__(key, i) is None else None,
                ),
                lambda key=key, i=i, held=held: (
                    shared.compare_and_swap(key, held, i),
                    held is not None and model.__setitem__(key, i) is None,
                ),
                lambda key=key, held=held: (
                    shared.compare_and_delete(key, held),
                    held is not None and model.pop(key) is not None,
                ),
            ]
            got, expected = rnd.choice(operations)()
            assert got == expected
            if i % 500 == 0:
                assert {k: v for k, v in shared.range() if k[0] == name} == model

    results([go(work, name) for name in range(4)])


def test_e05_of_a_crowd_few_make_the_call(two_workers: None) -> None:
    flight, calls, entered, n = SingleFlight(), AtomicInt(), AtomicInt(), 10
    gate = chan()

    def fetch() -> int:
        gate.recv_ok()
        return calls.add()

    def ask() -> int:
        entered.add()
        return flight.do("key", fetch)

    goroutines = [go(ask) for _ in range(n)]
    until(lambda: entered.load() == n)
    sleep(0.01)  # whoever has not come to the call by now makes one of its own, and the test the weaker
    gate.close()
    answers = results(goroutines)
    assert set(answers) == set(range(1, calls.load() + 1)) and calls.load() < n


def test_e07_a_semaphore_never_lets_in_more_than_it_has(two_workers: None, rng: Any) -> None:
    size, n = 8, count(2000)
    semaphore, held = Semaphore(size), AtomicInt()
    seeds = [rng.randrange(2**32) for _ in range(6)]

    def work(seed: int) -> None:
        import random

        rnd = random.Random(seed)
        for i in range(n):
            wish = rnd.randint(1, size)
            if i % 4 == 0:
                if not semaphore.try_acquire(wish):
                    continue
            elif i % 4 == 1:
                try:
                    semaphore.acquire(wish, timeout=1e-5)
                except TimeoutError:
                    continue
            else:
                semaphore.acquire(wish)
            assert wish <= held.add(wish) <= size
            gosched()
            held.add(-wish)
            semaphore.release(wish)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in seeds[:2]]
    for thread in threads:
        thread.start()
    results([go(work, seed) for seed in seeds[2:]])
    for thread in threads:
        thread.join(SECONDS)
    assert held.load() == 0 and semaphore.try_acquire(size)


def test_e07_a_large_wish_is_not_starved_by_small_ones(two_workers: None) -> None:
    n = 5
    semaphore, stop = Semaphore(n), chan()

    def small() -> None:
        while stop.try_recv("go on") == "go on":
            with semaphore:
                sleep(0.001)

    semaphore.acquire(n)
    goroutines = [waits(go(small), ACQUIRE) for _ in range(2 * n)]
    semaphore.release(n)
    semaphore.acquire(n, timeout=SECONDS)
    semaphore.release(n)
    for _ in goroutines:
        stop.send(None)
    results(goroutines)


def test_y05_ten_thousand_wait_for_one_mutex() -> None:
    n, mutex = count(5000), Mutex()
    entered = []

    def work(i: int) -> None:
        with mutex:
            entered.append(i)

    mutex.lock()
    goroutines = [go(work, i) for i in range(n)]
    waits(goroutines[-1], MUTEX)
    started = time.monotonic()
    mutex.unlock()
    results(goroutines)
    assert sorted(entered) == list(range(n))
    assert time.monotonic() - started < SECONDS
