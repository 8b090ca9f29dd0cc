"""`_goslings.Link`: messages between processes."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import gc
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest
from goslings import go
from goslings._goslings import Link, Segment
from helpers import check_child, count, state, until, waits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="links are made of Linux's memory files")

Pair = tuple[Link, Link]
LONG = 200_000
"""More bytes than go through a ring."""
SECONDS = 60.0


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a link, both in this process: they do not know."""
    a, b = socket.socketpair()
    with Link(a.detach()) as one, Link(b.detach()) as other:
        yield one, other


@contextlib.contextmanager
def with_child(run: Callable[[Link], None]) -> Iterator[tuple[Link, int]]:
    """A link to a forked child that runs `run`, and its process number."""
    a, b = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            a.close()
            run(Link(b.detach()))
            status = 0
        os._exit(status)
    b.close()
    try:
        with Link(a.detach()) as link:
            yield link, pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def echo(link: Link) -> None:
    """Sends back what it receives, until the end."""
    with contextlib.suppress(EOFError):
        while True:
            data, fds = link.recv()
            link.send([data], fds)
            for fd in fds:
                os.close(fd)


def open_inodes() -> set[int]:
    """The files that this process has open. (How many there are depends on what other tests have left.)"""
    gc.collect()
    inodes = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            inodes.add(os.fstat(int(name)).st_ino)
    return inodes


class Buffer(ctypes.Structure):
    """The beginning of CPython's Py_buffer, and room for the rest."""

    _fields_ = (("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("rest", ctypes.c_byte * 128))


def address_of(data: Any) -> int:
    """Where a buffer begins."""
    found, api = Buffer(), ctypes.pythonapi
    api.PyObject_GetBuffer.argtypes = (ctypes.py_object, ctypes.POINTER(Buffer), ctypes.c_int)
    api.PyBuffer_Release.argtypes = (ctypes.POINTER(Buffer),)
    assert api.PyObject_GetBuffer(data, ctypes.byref(found), 0) == 0
    address = int(found.buf)
    api.PyBuffer_Release(ctypes.byref(found))
    return address


def maps() -> set[str]:
    """The shared memory that is mapped: where, and of which file."""
    with open("/proc/self/maps") as lines:
        return {f"{line.split()[0]} {line.split()[4]}" for line in lines if "memfd:" in line}


# Messages


def test_a_message_comes_as_it_was_sent(pair: Pair) -> None:
    one, other = pair
    one.send([b"there"])
    assert other.recv(SECONDS) == (b"there", [])
    other.send([b"and", bytearray(b" "), memoryview(b"back")])
    assert one.recv(SECONDS) == (b"and back", [])
    one.send(())
    one.send([b""])
    assert other.recv(SECONDS) == (b"", [])
    assert other.recv(SECONDS) == (b"", [])


def test_messages_of_every_size_come_whole_and_in_order(pair: Pair) -> None:
    one, other = pair
    sizes = [*range(40), 100, 4095, 4096, 65_519, 65_520, 65_521, 65_536, LONG, 1_000_003]
    messages = [bytes(random.Random(size).randbytes(size)) for size in sizes]
    sender = go(lambda: [one.send([message[:7], message[7:]]) for message in messages])
    for message in messages:
        data, fds = other.recv(SECONDS)
        assert bytes(data) == message and fds == []
    sender.result(SECONDS)


def test_a_long_message_is_not_copied_and_cannot_be_written(pair: Pair) -> None:
    one, other = pair
    one.send([b"x" * LONG])
    data, fds = other.recv(SECONDS)
    assert isinstance(data, memoryview) and data.readonly and data.nbytes == LONG and fds == []
    with pytest.raises(TypeError, match="readonly|read-only"):
        data[0] = 0


def inode(data: Any) -> int:
    """The file in which a long message lies: it is mapped here, and not open."""
    address = address_of(data)
    with open("/proc/self/maps") as lines:
        for line in lines:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= address < end:
                assert "memfd:goslings" in line
                return int(line.split()[4])
    raise AssertionError("it is not mapped")


def test_the_memory_of_a_long_message_is_used_again_when_nobody_has_it(pair: Pair) -> None:
    one, other = pair

    def sent(letter: bytes) -> Any:
        one.send([letter * LONG])
        return other.recv(SECONDS)[0]

    held = sent(b"a")
    first = inode(held)
    assert inode(sent(b"b")) != first and bytes(held) == b"a" * LONG
    part = held[5:10]
    del held
    assert inode(sent(b"c")) != first and bytes(part) == b"aaaaa"
    del part
    # It is kept for a second: on a busy machine two of them may be farther apart.
    until(lambda: inode(sent(b"d")) == inode(sent(b"e")), SECONDS)


def test_memory_that_is_not_used_is_given_back(pair: Pair) -> None:
    one, other = pair

    def files() -> set[int]:
        # Those of links have names, in /proc alone.
        found = set()
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:goslings"):
                    found.add(os.stat(f"/proc/self/fd/{fd}").st_ino)
        return found

    before = files()
    one.send([b"x" * LONG])
    data = other.recv(SECONDS)[0]
    used = inode(data)
    assert used in files() - before
    del data
    until(lambda: used not in files(), SECONDS)
    one.send([b"y" * LONG])
    assert bytes(other.recv(SECONDS)[0]) == b"y" * LONG


def test_a_forked_child_does_not_keep_the_memory_of_messages(pair: Pair) -> None:
    one, other = pair

    def mapped() -> int:
        with open("/proc/self/maps") as maps:
            return sum("memfd:goslings" in line and line.split()[1] == "rw-s" for line in maps)

    def is_kept() -> bool:
        for letter in (b"a", b"b"):  # the second one is written to a mapping
            one.send([letter * LONG])
            other.recv(SECONDS)
        return mapped() > before

    one.send([b"x"])
    other.recv(SECONDS)  # now the ring is mapped
    before = mapped()
    until(is_kept, SECONDS)
    seen, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            os.write(told, str(mapped()).encode())
            one.close()  # which unmaps nothing of this process
            status = 0
        os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert int(os.read(seen, 100)) == before
    os.close(seen)
    os.close(told)
    one.send([b"c" * LONG])
    assert bytes(other.recv(SECONDS)[0]) == b"c" * LONG


def test_a_buffer_of_numbers_is_sent_as_its_bytes(pair: Pair) -> None:
    one, other = pair
    numbers = array.array("d", [1.5, 2.5])
    one.send([numbers])
    assert other.recv(SECONDS)[0] == numbers.tobytes()


def test_between_processes() -> None:
    with with_child(echo) as (link, _):
        for size in (0, 1, 100, 60_000, LONG):
            link.send([b"x" * size])
            assert bytes(link.recv(SECONDS)[0]) == b"x" * size


def test_more_than_fits_comes_in_order_between_processes() -> None:
    total = count(50_000)

    def check(link: Link) -> None:
        for number in range(total):
            assert link.recv()[0] == b"%d" % number
        link.send([b"done"])

    with with_child(check) as (link, _):
        for number in range(total):
            link.send([b"%d" % number])
        assert link.recv(SECONDS)[0] == b"done"


def test_many_goroutines_send_at_once(pair: Pair) -> None:
    one, other = pair
    each, senders = count(500), 8

    def send(who: int) -> None:
        for number in range(each):
            one.send([b"%d " % who, b"%d" % number, b" " * (number % 50)])

    goroutines = [go(send, who) for who in range(senders)]
    seen = {who: 0 for who in range(senders)}
    for _ in range(each * senders):
        who, number = map(int, bytes(other.recv(SECONDS)[0]).split())
        assert number == seen[who]
        seen[who] += 1
    for goroutine in goroutines:
        goroutine.result(SECONDS)


# Descriptors


def test_descriptors_travel_with_their_message(pair: Pair) -> None:
    one, other = pair
    readers = []
    for number in range(5):
        reader, writer = os.pipe()
        one.send([b"before"])
        one.send([b"%d" % number, b"x" * (LONG if number == 3 else 0)], [writer])
        os.close(writer)
        readers.append(reader)
    for number in range(5):
        assert other.recv(SECONDS) == (b"before", [])
        data, (writer,) = other.recv(SECONDS)
        assert bytes(data)[:1] == b"%d" % number
        assert not os.get_inheritable(writer)
        os.write(writer, b"%d" % number)
        os.close(writer)
        assert os.read(readers[number], 10) == b"%d" % number
        os.close(readers[number])


def test_a_segment_travels_by_its_descriptor() -> None:
    segment = Segment(1 << 20)

    def write(link: Link) -> None:
        _, (fd,) = link.recv()
        memoryview(Segment.from_fd(fd))[:7] = b"written"
        link.send([b"done"])

    with with_child(write) as (link, _):
        link.send([b"here"], [segment.fileno()])
        assert link.recv(SECONDS)[0] == b"done"
    assert bytes(memoryview(segment)[:7]) == b"written"


def test_wrong_descriptors_are_refused_and_nothing_is_sent(pair: Pair) -> None:
    one, other = pair
    with pytest.raises(ValueError, match="more than 252"):
        one.send([b"too many"], [0] * 253)
    with pytest.raises(OSError, match="Bad file descriptor"):
        one.send([b"none"], [-1])
    with pytest.raises(OSError, match="Bad file descriptor"):
        one.send([b"closed"], [1_000_000])
    one.send([b"fine"], [0] * 252)
    data, fds = other.recv(SECONDS)
    assert data == b"fine" and len(fds) == 252
    for fd in fds:
        os.close(fd)


def test_wrong_parts_are_refused_and_nothing_is_sent(pair: Pair) -> None:
    one, other = pair
    for wrong in (["text"], [1], 5, b"bytes"):
        with pytest.raises(TypeError):
            one.send(wrong)  # type: ignore[arg-type]
    one.send([b"fine"])
    assert other.recv(SECONDS) == (b"fine", [])


# Waiting


def test_a_receiver_waits_and_is_woken(pair: Pair) -> None:
    one, other = pair
    for _ in range(count(20)):
        receiver = waits(go(other.recv), "net read")
        one.send([b"here"])
        assert receiver.result(SECONDS) == (b"here", [])


def test_a_sender_waits_for_room(pair: Pair) -> None:
    one, other = pair
    sent = 0

    def send() -> None:
        nonlocal sent
        for _ in range(100):
            one.send([b"x" * 20_000])
            sent += 1

    sender = waits(go(send), "net read")
    assert sent < 20
    for _ in range(100):
        assert len(other.recv(SECONDS)[0]) == 20_000
    sender.result(SECONDS)


def test_not_much_more_is_on_its_way_than_was_asked_for(pair: Pair) -> None:
    one, other = pair
    for size in (100_000, 1 << 20, 10 << 20):
        sent = 0
        with pytest.raises(TimeoutError):
            while True:
                one.send([bytes(size)], timeout=0)
                sent += 1
        assert sent >= 3 and (sent <= 4 or sent * size <= 20 << 20)
        for _ in range(sent):
            assert len(other.recv(SECONDS)[0]) == size


def test_time_limits(pair: Pair) -> None:
    one, other = pair
    for timeout in (0, -1, 0.01):
        with pytest.raises(TimeoutError):
            other.recv(timeout)
    with pytest.raises(TimeoutError):
        while True:
            one.send([b"x" * 20_000], timeout=0.01)
    with pytest.raises(TimeoutError):
        one.send([b"x" * 60_000], timeout=0)
    with pytest.raises(ValueError, match="NaN"):
        other.recv(float("nan"))
    assert other.recv(0)[0] == b"x" * 20_000


def test_cancelled_waits_change_nothing(pair: Pair) -> None:
    one, other = pair
    receiver = waits(go(other.recv), "net read")
    receiver.cancel()
    with pytest.raises(CancelledError):
        receiver.result(SECONDS)
    with pytest.raises(TimeoutError):
        while True:
            one.send([b"x" * 60_000], timeout=0)
    sender = waits(go(one.send, [b"y" * 60_000]), "net read")
    sender.cancel()
    with pytest.raises(CancelledError):
        sender.result(SECONDS)
    while True:
        try:
            assert other.recv(0)[0] == b"x" * 60_000
        except TimeoutError:
            break
    one.send([b"after"])
    assert other.recv(SECONDS) == (b"after", [])


def test_a_running_coroutine_is_told_what_to_do(pair: Pair) -> None:
    async def receive() -> None:
        pair[0].recv()

    with pytest.raises(RuntimeError, match=r"await go\(link.recv\)"):
        go(receive).result(SECONDS)


# The end


def test_the_end_comes_after_all_that_was_sent(pair: Pair) -> None:
    one, other = pair
    one.send([b"short"])
    one.send([b"x" * LONG])
    one.close()
    assert other.recv(SECONDS)[0] == b"short"
    assert len(other.recv(SECONDS)[0]) == LONG
    for _ in range(2):
        with pytest.raises(EOFError):
            other.recv(SECONDS)
    with pytest.raises(BrokenPipeError):
        other.send([b"nobody"])
    with pytest.raises(BrokenPipeError):
        other.send([b"x" * LONG])


def test_closing_wakes_who_waits_at_either_end(pair: Pair) -> None:
    one, other = pair
    mine, theirs = waits(go(one.recv), "net read"), waits(go(other.recv), "net read")
    one.close()
    one.close()
    assert one.closed and one.fileno() == -1 and repr(one) == "<Link, closed>"
    with pytest.raises(OSError) as raised:
        mine.result(SECONDS)
    assert raised.value.errno == errno.EBADF
    with pytest.raises(EOFError):
        theirs.result(SECONDS)
    for call in (one.recv, lambda: one.send([b"closed"])):
        with pytest.raises(OSError) as raised:
            call()
        assert raised.value.errno == errno.EBADF


def test_a_sender_that_waits_hears_of_the_end(pair: Pair) -> None:
    one, other = pair

    def fill() -> None:
        while True:
            one.send([b"x" * 60_000])

    sender = waits(go(fill), "net read")
    other.close()
    with pytest.raises(BrokenPipeError):
        sender.result(SECONDS)


def test_a_link_that_nobody_has_is_closed() -> None:
    a, b = socket.socketpair()
    inodes = {os.fstat(end.fileno()).st_ino for end in (a, b)}
    one, other = Link(a.detach()), Link(b.detach())
    one.send([b"last"])
    assert len(inodes & open_inodes()) == 2
    del one
    gc.collect()
    assert other.recv(SECONDS) == (b"last", [])
    with pytest.raises(EOFError):
        other.recv(SECONDS)
    del other
    assert not inodes & open_inodes()


def test_what_is_closed_keeps_nothing_whoever_has_it() -> None:
    """Neither descriptors nor memory, also of messages that were not received."""
    before, mapped = open_inodes(), maps()
    one, other = (Link(end.detach()) for end in socket.socketpair())
    segment = Segment(4096)
    one.send([b"first"])
    assert other.recv(SECONDS) == (b"first", [])
    one.send([b"unread"], [segment.fileno()])
    other.send([bytes(LONG)])
    del segment
    one.close()
    other.close()
    assert not maps() - mapped
    assert not open_inodes() - before
    for call in (lambda: one.send([b"late"]), other.recv):
        with pytest.raises(OSError, match="Bad file descriptor"):
            call()


def test_a_killed_peer_has_sent_what_it_has_sent() -> None:
    def run(link: Link) -> None:
        for number in range(1000):
            link.send([b"%d" % number, b"x" * (LONG if number % 100 == 0 else 0)])
        os.kill(os.getpid(), signal.SIGKILL)

    with with_child(run) as (link, pid):
        for number in range(1000):
            assert bytes(link.recv(SECONDS)[0]).rstrip(b"x") == b"%d" % number
        with pytest.raises(EOFError):
            link.recv(SECONDS)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def test_a_peer_killed_at_any_moment_leaves_whole_messages() -> None:
    def run(link: Link) -> None:
        number = 0
        while True:
            link.send([b"%d " % number] * (1 + number % 7 * 100))
            number += 1

    dice = random.Random(5)
    for _ in range(count(10)):
        with with_child(run) as (link, pid):
            number, kill_at = 0, dice.randrange(2000)
            with contextlib.suppress(EOFError):
                while True:
                    assert bytes(link.recv(SECONDS)[0]) == (b"%d " % number) * (1 + number % 7 * 100)
                    number += 1
                    if number == kill_at:
                        os.kill(pid, signal.SIGKILL)
            assert number >= kill_at


def test_a_peer_that_dies_in_the_middle_of_large_messages_is_noticed() -> None:
    def run(link: Link) -> None:
        for _ in range(3):
            link.recv()
        os.kill(os.getpid(), signal.SIGKILL)

    data = bytes(8 << 20)
    with with_child(run) as (link, _):
        with pytest.raises(BrokenPipeError):
            for _ in range(100):
                link.send([data])
        with pytest.raises(EOFError):
            link.recv(SECONDS)


def test_who_sends_hears_that_the_peer_was_killed() -> None:
    with with_child(lambda link: time.sleep(1000)) as (link, pid):
        link.send([b"into the void"])
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

        def refused() -> bool:
            try:
                link.send([b"more"])
            except BrokenPipeError:
                return True
            return False

        until(refused)
        with pytest.raises(BrokenPipeError):
            link.send([b"x" * LONG])


def test_a_forked_child_takes_no_part_and_keeps_nothing_open() -> None:
    ready, begin = os.pipe(), os.pipe()

    def run(link: Link) -> None:
        assert link.recv()[0] == b"before"
        link.send([b"answer"])
        # Another child of ours, with copies of all our descriptors.
        if os.fork() == 0:
            status = 1
            try:
                with pytest.raises(RuntimeError, match="forked child"):
                    link.send([b"mine"])
                with pytest.raises(RuntimeError, match="forked child"):
                    link.recv()
                link.close()
                del link
                os.write(ready[1], b"x")
                os.read(begin[0], 1)
                status = 0
            finally:
                os._exit(status)
        link.send([b"still here"])
        assert link.recv()[0] == b"die"
        os.kill(os.getpid(), signal.SIGKILL)

    with with_child(run) as (link, _):
        link.send([b"before"])
        assert link.recv(SECONDS)[0] == b"answer"
        assert os.read(ready[0], 1) == b"x"
        assert link.recv(SECONDS)[0] == b"still here"
        link.send([b"die"])
        # The grandchild still lives.
        with pytest.raises(EOFError):
            link.recv(SECONDS)
        with pytest.raises(BrokenPipeError):
            link.send([b"nobody"])
    os.write(begin[1], b"x")
    for fd in ready + begin:
        os.close(fd)


# Garbage


def test_a_socket_that_is_none_of_ours_is_refused() -> None:
    reader, writer = os.pipe()
    for fd in (reader, writer):
        with pytest.raises(OSError):
            Link(fd)
        os.close(fd)
    with pytest.raises(OSError):
        Link(-1)


@pytest.mark.parametrize("said", [b"gosling1", b"gosling2", b"x", b"HTTP/1.1 400 Bad Request\r\n"])
def test_a_peer_that_does_not_greet_is_refused(said: bytes) -> None:
    a, b = socket.socketpair()
    with Link(a.detach()) as link, b:
        b.send(said)
        for _ in range(2):
            with pytest.raises(ConnectionError, match="does not follow the rules"):
                link.recv(SECONDS)


def test_a_greeting_with_other_memory_is_refused() -> None:
    sealed = Segment(4096 + 8192).fileno
    unsealed = os.memfd_create("mine")
    os.ftruncate(unsealed, 4096 + 8192)
    keep = Segment(4096 + 8192), Segment(5000), Segment(100)
    del sealed
    for fd in (unsealed, *(segment.fileno() for segment in keep)):
        a, b = socket.socketpair()
        with Link(a.detach()) as link, b:
            socket.send_fds(b, [b"gosling1"], [fd, fd])
            with pytest.raises(ConnectionError):
                link.recv(SECONDS)
    os.close(unsealed)


def ring_of(peer: socket.socket) -> Segment:
    """The ring that a link writes, as it has greeted the other end of its socket."""
    said, fds, _, _ = socket.recv_fds(peer, 100, 10)
    assert said == b"gosling1"
    os.close(fds[1])
    return Segment.from_fd(fds[0])


def test_a_peer_that_scribbles_does_no_harm() -> None:
    dice = random.Random(int(os.environ.get("GOSLINGS_SEED", "11")))
    refused = 0
    for _ in range(count(60)):
        a, b = socket.socketpair()
        with Link(a.detach()) as one, Link(b.detach()) as other:
            peeked = socket.fromfd(one.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
            said, fds, _, _ = socket.recv_fds(peeked, 100, 10, socket.MSG_PEEK)
            assert said == b"gosling1"
            os.close(fds[1])
            scribbled = memoryview(Segment.from_fd(fds[0]))
            peeked.close()
            try:
                for number in range(30):
                    other.send([b"%d" % number * dice.randrange(200)])
                    where = dice.choice([dice.randrange(128, 700), dice.randrange(4096, 4096 + 4000)])
                    scribbled[where : where + 8] = dice.randbytes(8)
                    with contextlib.suppress(TimeoutError):
                        one.recv(0)
            except (ConnectionError, EOFError):
                refused += 1
            scribbled.release()
    assert refused


def test_a_message_waits_until_there_are_descriptors_for_it() -> None:
    out = check_child("""
        import errno, os, resource, socket
        from goslings._goslings import Link
        a, b = socket.socketpair()
        one, other = Link(a.detach()), Link(b.detach())
        one.send([b"first"])
        print(other.recv())
        one.send([b"many"], [0] * 20)
        one.send([b"then"])
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 5, 10_000))
        for _ in range(3):
            try:
                other.recv()
            except OSError as error:
                print(error.errno == errno.EMFILE)
        print(max(int(name) for name in os.listdir("/proc/self/fd")) <= highest + 1)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 50, 10_000))
        data, fds = other.recv()
        print(data, len(fds), len({os.fstat(fd).st_ino for fd in fds}))
        print(other.recv())
    """)
    assert out.splitlines() == ["(b'first', [])", *["True"] * 4, "b'many' 20 1", "(b'then', [])"]


def test_a_greeting_waits_until_there_are_descriptors_for_it() -> None:
    out = check_child("""
        import errno, os, resource, socket
        from goslings._goslings import Link
        a, b = socket.socketpair()
        one, other = Link(a.detach()), Link(b.detach())
        one.send([b"first"])
        spare = [os.dup(0) for _ in range(20)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(spare) + 1, 10_000))
        # What is held in reserve is enough for the greeting, and for long messages one after another.
        print(other.recv())
        for turn in range(3):
            one_fd = os.dup2(0, spare.pop())
            os.close(one_fd)
            one.send([bytes(200_000)])
            os.dup2(0, one_fd)
            spare.append(one_fd)
            data, fds = other.recv()
            print(data.nbytes, fds)
            del data
    """)
    assert out.splitlines() == ["(b'first', [])", *["200000 []"] * 3]


def test_long_messages_are_kept_without_descriptors(pair: Pair) -> None:
    one, other = pair
    one.send([bytes(LONG)])
    kept = [other.recv(SECONDS)[0]]
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        one.send([bytes(LONG)])
        kept.append(other.recv(SECONDS)[0])
    # The sender keeps the memory of a few.
    assert len(os.listdir("/proc/self/fd")) <= before + 8 + 2


def test_waits_are_named_in_a_dump(pair: Pair) -> None:
    receiver: Any = waits(go(pair[0].recv), "net read")
    assert state(receiver) == "net read"
    pair[1].send([b"x"])
    receiver.result(SECONDS)


def test_a_message_is_put_only_if_none_waits_before_it(pair: Pair) -> None:
    one, other = pair
    assert one._put(b"first")
    one._hold(True)
    assert not one._put(b"it would overtake what waits")
    one._hold(False)
    assert one._put(b"second")
    assert [other.recv(SECONDS)[0] for _ in range(2)] == [b"first", b"second"]
