"""Nobody starves: goroutines that hold their workers, in foreign calls or by computing."""

from __future__ import annotations

import threading

import goslings
from goslings import go
from goslings._goslings import _held
from helpers import SECONDS, check_child, until


def test_g14_goroutines_in_blocking_calls_do_not_hold_up_others() -> None:
    # A process of its own: the spare workers would stay.
    out = check_child(
        """
        import time, goslings
        from goslings import go

        goslings.gomaxprocs(1)
        begin = time.monotonic()
        sleepers = [go(time.sleep, 0.1) for _ in range(100)]
        for sleeper in sleepers:
            sleeper.result()
        print(time.monotonic() - begin)
        assert goslings.gomaxprocs() == 1
        assert goslings.stats().spares > 0
        """
    )
    assert float(out) < 5, "one after the other they take 10 s"


def test_a_goroutine_that_waits_for_a_thread_lock_does_not_keep_others_from_starting(one_worker: None) -> None:
    lock = threading.Lock()
    lock.acquire()

    def unlock() -> None:
        lock.release()

    holder = go(lock.acquire)
    # It can only run elsewhere: the only worker waits for what it does.
    go(unlock).result(SECONDS)
    assert holder.result(SECONDS) is True


def test_stats_and_held_name_who_holds_a_worker() -> None:
    release = threading.Event()
    holder = go(release.wait)
    until(lambda: holder.id in dict(_held()))
    until(lambda: dict(_held())[holder.id] > 0.05)
    assert goslings.stats().held >= 1
    assert goslings.stats().longest_hold >= 0.04
    release.set()
    assert holder.result(SECONDS) is True
    until(lambda: holder.id not in dict(_held()))
