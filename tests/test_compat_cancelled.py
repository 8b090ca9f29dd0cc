"""`goslings.compat.multiprocessing`: calls that end in the middle. Goroutines that are cancelled in the middle of a
message, and a system that has no descriptors or no memory for a while: nothing is lost, doubled or torn, and no place
stays taken.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from multiprocessing import connection as std
from typing import Any

import pytest
from goslings import Goroutine, go
from goslings.compat import multiprocessing
from goslings.compat.multiprocessing._ready import ready
from helpers import SECONDS, until, waits

READ, WRITE = "net read", "net write"
SPAWN = multiprocessing.get_context("spawn")
LARGE = bytes(range(256)) * 4000
"""More than a pipe or a socket has room for by itself; no two places alike that are near each other."""
FILE = bytes(100_000)
"""What goes through a memory file."""
FILL = bytes(30_000)
"""What does not."""

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def one_worker_is_enough(one_worker: None) -> Iterator[None]:
    """Whoever would hold the worker instead of parking holds up the test."""
    yield


def in_a_goroutine(function: Any, *args: Any) -> Any:
    return go(function, *args).result(SECONDS)


def on_a_thread(function: Any, *args: Any) -> Any:
    return function(*args)


ANYWHERE = pytest.mark.parametrize("run", [in_a_goroutine, on_a_thread])


def cancelled(goroutine: Goroutine[Any]) -> None:
    goroutine.cancel()
    with pytest.raises(CancelledError):
        goroutine.result(SECONDS)


def ends(duplex: bool) -> tuple[Any, Any]:
    """A receiving and a sending end."""
    return multiprocessing.Pipe(duplex)


# Connections


@ANYWHERE
@pytest.mark.parametrize("duplex", [True, False])
def test_a_message_that_has_begun_is_sent_in_full_with_the_next(duplex: bool, run: Run) -> None:
    reader, writer = ends(duplex)
    content = bytearray(LARGE)
    cancelled(waits(go(writer.send_bytes, content), WRITE))
    content[:] = bytes(len(content))  # it is the caller's again
    got = go(lambda: [reader.recv_bytes() for _ in range(3)])
    run(writer.send_bytes, b"next")
    run(writer.send_bytes, b"last")
    assert got.result(SECONDS) == [LARGE, b"next", b"last"]


def test_whoever_sends_the_rest_may_be_cancelled_too() -> None:
    reader, writer = ends(True)
    cancelled(waits(go(writer.send_bytes, LARGE), WRITE))
    for _ in range(3):
        cancelled(waits(go(writer.send_bytes, b"never begun"), WRITE))
    got = go(lambda: [reader.recv_bytes() for _ in range(2)])
    writer.send_bytes(b"next")
    assert got.result(SECONDS) == [LARGE, b"next"]


def test_a_message_that_has_not_begun_is_not_sent() -> None:
    reader, writer = ends(False)
    os.set_blocking(writer.fileno(), False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer.fileno(), bytes(select.PIPE_BUF))
    os.set_blocking(writer.fileno(), True)
    cancelled(waits(go(writer.send_bytes, b"never"), WRITE))
    sending = waits(go(writer.send_bytes, b"next"), WRITE)
    while not sending.done():
        assert not any(os.read(reader.fileno(), select.PIPE_BUF))
        if not reader.poll():
            break
    until(sending.done)
    data = b""
    while reader.poll():
        data += os.read(reader.fileno(), 1 << 16)
    assert data.lstrip(b"\0") == b"\4next"


@ANYWHERE
@pytest.mark.parametrize("duplex", [True, False])
@pytest.mark.parametrize("came", [1, 3, 4, 5, 9, 2000])
def test_what_has_come_of_a_message_is_kept_for_the_next_receiver(duplex: bool, came: int, run: Run) -> None:
    reader, writer = ends(duplex)
    raw_reader, raw_writer = os.pipe()
    with std.Connection(raw_writer, readable=False) as raw:
        raw.send_bytes(LARGE[:3000])
    with open(raw_reader, "rb") as file:
        message = file.read()
    for first, last in ((0, came), (came, came)):
        os.write(writer.fileno(), message[first:last])
        receiving = waits(go(reader.recv_bytes), READ)
        until(lambda: not reader.poll())
        cancelled(receiving)
    os.write(writer.fileno(), message[came:] + message)
    assert run(reader.recv_bytes) == run(reader.recv_bytes) == LARGE[:3000]


def test_the_long_header_of_the_library_may_be_cut_as_well() -> None:
    reader, writer = ends(True)
    message = b"\xff\xff\xff\xff" + (5).to_bytes(8, "big") + b"12345"
    for place in range(len(message)):
        os.write(writer.fileno(), message[place : place + 1])
        if place < len(message) - 1:
            receiving = waits(go(reader.recv_bytes), READ)
            until(lambda: not reader.poll())
            cancelled(receiving)
    assert reader.recv_bytes() == b"12345"


@ANYWHERE
def test_the_end_in_the_middle_of_a_message_is_told_once(run: Run) -> None:
    reader, writer = ends(True)
    os.write(writer.fileno(), b"\x00\x00\x00\x05123")
    writer.close()
    with pytest.raises(OSError, match="end of file during message"):
        run(reader.recv_bytes)
    with pytest.raises(EOFError):
        run(reader.recv_bytes)


def test_the_bytes_are_those_of_the_library() -> None:
    one, other = ends(True)
    library = std.Connection(os.dup(other.fileno()))
    for size in (0, 1, 16 * 1024, 16 * 1024 + 1, 3_000_000):
        data = os.urandom(size)
        sending = go(one.send_bytes, data)
        assert library.recv_bytes() == data
        sending.result(SECONDS)
        receiving = go(one.recv_bytes)
        library.send_bytes(data)
        assert receiving.result(SECONDS) == data
    library.close()


# Queues


class Shortage:
    """Stands for a function of the system: it fails while `number` is set."""

    def __init__(self, function: Any) -> None:
        self.function, self.number, self.failed = function, 0, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.number:
            self.failed += 1
            raise OSError(self.number, os.strerror(self.number))
        return self.function(*args, **kwargs)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Shortage:
    made = Shortage(os.memfd_create)
    monkeypatch.setattr(os, "memfd_create", made)
    return made


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC])
def test_what_waits_goes_on_waiting_while_the_system_is_short_of_something(files: Shortage, number: int) -> None:
    queue = SPAWN.Queue()
    small = 0
    while not queue._outbox._waiting:  # until the socket is full
        queue.put(FILL)
        small += 1
    queue.put(FILE)
    queue.put("last")
    files.number = number
    for _ in range(small):
        assert queue.get(timeout=SECONDS) == FILL
    until(lambda: files.failed >= 2)
    assert len(queue._outbox._waiting) == 2 and queue.qsize() == 2
    files.number = 0
    assert queue.get(timeout=SECONDS) == FILE
    assert queue.get(timeout=SECONDS) == "last"
    queue.close()
    queue.join_thread()


def test_a_shortage_that_lasts_is_told_once(
    files: Shortage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(multiprocessing.queues, "_PAUSES", (0.001, 0.004))
    queue = SPAWN.Queue()
    while not queue._outbox._waiting:
        queue.put(FILL)
    queue.put(FILE)
    files.number = errno.EMFILE
    while queue.qsize() > 1:
        queue.get(timeout=SECONDS)
    until(lambda: files.failed >= 10)
    files.number = 0
    assert queue.get(timeout=SECONDS) == FILE
    assert capfd.readouterr().err.count("Too many open files") == 1


@ANYWHERE
@pytest.mark.parametrize("kind", ["bounded", "unbounded", "JoinableQueue", "bounded JoinableQueue"])
def test_put_that_fails_takes_no_place(files: Shortage, kind: str, run: Run) -> None:
    make = SPAWN.JoinableQueue if "Joinable" in kind else SPAWN.Queue
    queue = make(1 if kind.startswith("bounded") else 0)
    files.number = errno.EMFILE
    for _ in range(3):
        with pytest.raises(OSError) as caught:
            run(queue.put, FILE, True, 0.01)
        assert caught.value.errno == errno.EMFILE
        assert queue.qsize() == 0 and queue.empty()
    if "Joinable" in kind:
        run(queue.join)
    files.number = 0
    run(queue.put, FILE)
    assert queue.qsize() == 1
    assert run(queue.get) == FILE
    if "Joinable" in kind:
        queue.task_done()
        run(queue.join)


def test_put_that_cannot_start_a_sender_has_put_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = SPAWN.Queue()
    starting = Shortage(go)
    starting.number = errno.ENOMEM
    monkeypatch.setattr(multiprocessing.queues, "go", starting)
    small = 0
    with pytest.raises(OSError):
        while True:
            queue.put(FILL)
            small += 1
    assert queue.qsize() == small
    starting.number = 0
    queue.put("last")
    assert [queue.get(timeout=SECONDS) for _ in range(small)] == [FILL] * small
    assert queue.get(timeout=SECONDS) == "last"
    queue.close()
    queue.join_thread()


@ANYWHERE
@pytest.mark.parametrize("kind", ["bounded", "unbounded", "JoinableQueue"])
def test_an_item_that_cannot_be_had_keeps_no_place(kind: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = SPAWN.JoinableQueue() if kind == "JoinableQueue" else SPAWN.Queue(1 if kind == "bounded" else 0)
    mapping = Shortage(mmap.mmap)
    monkeypatch.setattr(mmap, "mmap", mapping)
    queue.put(FILE)
    mapping.number = errno.ENOMEM
    with pytest.raises(OSError, match="memory"):
        run(queue.get)
    mapping.number = 0
    assert queue.qsize() == 0
    if kind == "JoinableQueue":
        run(queue.join)
    queue.put(FILE, timeout=SECONDS)
    assert run(queue.get) == FILE


@pytest.mark.parametrize("kind", ["bounded", "unbounded"])
def test_a_receiver_without_descriptors_keeps_no_place(kind: str) -> None:
    from test_process_shortage import no_descriptors

    queue = SPAWN.Queue(1 if kind == "bounded" else 0)
    queue.put(FILE)
    with no_descriptors(), pytest.raises(OSError) as caught:
        queue.get(timeout=SECONDS)
    assert caught.value.errno == errno.EMFILE
    assert queue.qsize() == 0
    queue.put(FILE, timeout=SECONDS)
    assert queue.get(timeout=SECONDS) == FILE


# Long times


@ANYWHERE
@pytest.mark.parametrize("timeout", [2.0**31 / 1000 + 1, 1e10, float("inf")])
def test_any_time_may_be_waited_for(timeout: float, run: Run) -> None:
    number = os.eventfd(1, os.EFD_CLOEXEC)
    assert run(ready, number, False, timeout) is True
    os.close(number)
    lock = SPAWN.Semaphore(0)
    giving = go(lambda: lock.release())
    assert run(lock.acquire, True, timeout)
    giving.result(SECONDS)


def test_who_waits_longer_than_poll_can_goes_on_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    from goslings.compat.multiprocessing import _ready

    monkeypatch.setattr(_ready, "_LONGEST", 1)
    number = os.eventfd(0, os.EFD_CLOEXEC)
    assert ready(number, False, 0.05) is False
    os.eventfd_write(number, 1)
    assert ready(number, False, 1e10) is True
    os.close(number)
