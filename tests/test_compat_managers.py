"""Managers of `goslings.compat.multiprocessing`: the library's objects and proxies, on `serve` and `connect`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from goslings import go
from goslings.compat import multiprocessing
from goslings.compat.multiprocessing.managers import BaseManager
from helpers import results, until, waits

SECONDS = 60.0
SPAWN = multiprocessing.get_context("spawn")


class Register:
    def __init__(self) -> None:
        self.numbers: list[int] = []

    def add(self, number: int) -> int:
        self.numbers.append(number)
        return len(self.numbers)

    def fail(self) -> None:
        raise LookupError("not there")

    def unpicklable(self) -> Any:
        return threading.Lock()

    def hidden(self) -> None:
        raise AssertionError("not to be reached")


class Manager(BaseManager):
    """A manager of objects of a class of one's own."""


Manager.register("Register", Register, exposed=("add", "fail", "unpicklable"))


def fill(numbers: Any, lock: Any, known: Any) -> None:
    with lock:
        numbers.append(os.getpid())
        known["child"] = multiprocessing.current_process().name


def connect_and_add(address: Any, key: bytes, answers: Any) -> None:
    manager = Manager(address, key)
    manager.connect()
    answers.put(manager.Register().add(1))


@pytest.fixture(scope="module")
def manager() -> Iterator[Any]:
    with SPAWN.Manager() as manager:
        yield manager


def test_goroutines_wait_for_objects_of_a_manager_at_the_same_time(manager: Any, one_worker: None) -> None:
    queue, event = manager.Queue(), manager.Event()
    getting = [waits(go(queue.get), "event wait") for _ in range(10)]
    waiting = waits(go(event.wait), "event wait")
    for n in range(10):
        queue.put(n)
    assert sorted(results(getting)) == list(range(10))
    event.set()
    assert waiting.result(SECONDS)


def test_a_lock_of_a_manager_belongs_to_a_thread_or_a_goroutine(manager: Any) -> None:
    lock = manager.RLock()

    def nested() -> bool:
        with lock, lock:
            return True

    assert nested() and go(nested).result(SECONDS)
    with lock:
        assert go(lock.acquire, False).result(SECONDS) is False
        other = waits(go(nested), "event wait")
    assert other.result(SECONDS)


def test_proxies_go_to_processes_and_into_each_other(manager: Any) -> None:
    numbers, known, lock = manager.list(), manager.dict(), manager.Lock()
    processes = [SPAWN.Process(target=fill, args=(numbers, lock, known)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(numbers) == sorted(process.pid for process in processes) and "child" in known
    known["numbers"] = numbers
    known["numbers"].append(0)
    assert numbers[-1] == 0


def test_what_a_method_raises_is_raised_here() -> None:
    with Manager(ctx=SPAWN) as manager:
        register = manager.Register()  # type: ignore[attr-defined]  # made by `register`
        assert (register.add(4), register.add(5)) == (1, 2)
        with pytest.raises(LookupError, match="not there"):
            register.fail()
        with pytest.raises(multiprocessing.managers.RemoteError, match="Unserializable"):
            register.unpicklable()
        with pytest.raises(multiprocessing.managers.RemoteError, match="not in exposed"):
            register._callmethod("hidden")


@pytest.mark.parametrize("serializer", ["pickle", "xmlrpclib"])
def test_a_manager_is_reached_by_whoever_knows_the_key(serializer: str) -> None:
    with Manager(("127.0.0.1", 0), b"the key", serializer, SPAWN) as manager:
        other = Manager(manager.address, b"the key", serializer)
        other.connect()
        assert other.Register().add(3) == 1  # type: ignore[attr-defined]  # made by `register`
        with pytest.raises(multiprocessing.AuthenticationError):
            Manager(manager.address, b"another key", serializer).connect()
        if serializer == "pickle":
            answers = SPAWN.Queue()
            process = SPAWN.Process(target=connect_and_add, args=(manager.address, b"the key", answers))
            process.start()
            assert answers.get(timeout=SECONDS) == 1
            process.join()
            assert process.exitcode == 0


def test_objects_are_let_go_with_their_last_proxy() -> None:
    with SPAWN.Manager() as manager:
        one, other = manager.list(), manager.dict()
        assert manager._number_of_objects() == 2
        del one
        until(lambda: manager._number_of_objects() == 1)
        del other
        until(lambda: manager._number_of_objects() == 0)


def test_who_waits_for_a_manager_that_is_killed_is_told() -> None:
    with SPAWN.Manager() as manager:
        queue = manager.Queue()
        waiting = waits(go(queue.get), "event wait")
        process = manager._process
        os.kill(process.pid, signal.SIGKILL)
        assert isinstance(waiting.exception(SECONDS), ConnectionError)
        with pytest.raises(OSError):
            queue.put(1)


def test_a_serializer_or_an_address_that_nobody_knows_is_refused() -> None:
    with pytest.raises(KeyError):
        Manager(serializer="json")
    with pytest.raises(ValueError, match="unrecognized"):
        Manager(7, b"key").connect()
