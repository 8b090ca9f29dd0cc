"""Managers of `goslings.compat.multiprocessing`: the library's objects and proxies, on `serve` and `connect`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import queue
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from goslings import go
from goslings.compat import multiprocessing
from goslings.compat.multiprocessing import _doors, _lanes
from goslings.compat.multiprocessing.managers import BaseManager
from helpers import results, state, until, waits

SECONDS = 60.0
READ = "net read"
"""How a goroutine waits that has a socket of its own."""
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
    getting = [waits(go(queue.get), READ) for _ in range(10)]
    waiting = waits(go(event.wait), READ)
    for n in range(10):
        queue.put(n)
    assert sorted(results(getting)) == list(range(10))
    event.set()
    assert waiting.result(SECONDS)


def test_those_for_whom_there_are_no_sockets_share_a_connection(
    manager: Any, one_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lanes, "_SOCKETS", 3)
    queue = manager.Queue()
    getting = [go(queue.get) for _ in range(20)]
    until(lambda: {state(each) for each in getting} <= {"event wait", READ})
    assert [state(each) for each in getting].count(READ) <= 3
    for n in range(20):
        queue.put(n)
    assert sorted(results(getting)) == list(range(20))


def test_a_manager_without_a_door_is_used_through_the_connection(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lanes, "knock", lambda name, token, seat: None)
    found = []

    def use() -> None:
        numbers = manager.list([1])
        numbers.append(threading.get_ident())
        found.append(list(numbers))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(SECONDS)
    assert found == [[1, thread.ident]]


def test_nobody_comes_in_without_a_token_or_with_a_used_one() -> None:
    arrived: queue.SimpleQueue[_doors.DirectLine] = queue.SimpleQueue()
    unpickled = []

    def load(data: Any) -> Any:
        unpickled.append(bytes(data))
        return pickle.loads(data)

    door = _doors.Door(arrived.put, (pickle.dumps, load))
    try:
        stranger = _doors.knock(door.name, secrets.token_bytes(32))
        assert stranger is not None
        with pytest.raises(_doors.Ended):
            stranger.call(pickle.dumps(1))
        token = door.promise()
        known = _doors.knock(door.name, token)
        assert known is not None
        line = arrived.get(timeout=SECONDS)
        again = _doors.knock(door.name, token)
        assert again is not None
        with pytest.raises(_doors.Ended):
            again.call(pickle.dumps(2))
        answer = go(known.call, pickle.dumps(3))
        assert line.recv() == 3
        line.send(4)
        assert pickle.loads(answer.result(SECONDS)) == 4
        assert unpickled == [pickle.dumps(3)] and arrived.empty()
    finally:
        door.close()
    with pytest.raises(_doors.Ended):
        known.call(b"")
    assert _doors.knock(door.name, token) is None


def test_another_user_does_not_come_in_and_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: queue.SimpleQueue[_doors.DirectLine] = queue.SimpleQueue()
    door = _doors.Door(arrived.put, (pickle.dumps, pickle.loads))
    try:
        another = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: another)
        assert _doors.knock(door.name, door.promise()) is None
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            other.settimeout(SECONDS)
            other.connect(door.name)
            with contextlib.suppress(BrokenPipeError):
                other.send(door.promise())
            with contextlib.suppress(ConnectionResetError):
                assert other.recv(1) == b""
        assert arrived.empty()
    finally:
        door.close()


class Ring(Exception):
    """Raised by a signal."""


def test_who_was_interrupted_does_not_get_the_late_answer_next(manager: Any) -> None:
    items, known, gotten = manager.Queue(), manager.dict(a=1), manager.Event()

    def ring(*_: Any) -> None:
        raise Ring

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(Ring):
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            items.get()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    go(items.put, "late").result(SECONDS)
    assert known["a"] == 1
    gotten.set()
    assert gotten.is_set() and known["a"] == 1


def test_a_coroutine_of_asyncio_holds_up_its_loop_as_with_the_library(manager: Any) -> None:
    async def use() -> list[int]:
        numbers = manager.list([1])
        numbers.append(2)
        return list(numbers)

    assert asyncio.run(use()) == [1, 2]
    found: list[list[int]] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(use())))  # one that has no lane yet
    thread.start()
    thread.join(SECONDS)
    assert found == [[1, 2]]


def test_large_values_go_to_a_manager_and_back(manager: Any) -> None:
    values = manager.list()
    for size in (32 * 1024 - 8, 32 * 1024, 64 * 1024, 3_000_000):
        values.append(b"x" * size)
    assert [len(value) for value in values] == [32 * 1024 - 8, 32 * 1024, 64 * 1024, 3_000_000]
    assert go(lambda: len(values[3])).result(SECONDS) == 3_000_000


def test_a_lock_of_a_manager_belongs_to_a_thread_or_a_goroutine(manager: Any) -> None:
    lock = manager.RLock()

    def nested() -> bool:
        with lock, lock:
            return True

    assert nested() and go(nested).result(SECONDS)
    with lock:
        assert go(lock.acquire, False).result(SECONDS) is False
        other = waits(go(nested), READ)
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
        waiting = waits(go(queue.get), READ)
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
