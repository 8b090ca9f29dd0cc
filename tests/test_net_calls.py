"""The native calls that patched sockets are made of: each tries, parks, and tries again."""

from __future__ import annotations

import errno
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from goslings import _goslings, go
from goslings._goslings import (
    closing_fd,
    read_fd,
    sock_accept,
    sock_recv,
    sock_recv_into,
    sock_send,
    sock_sendall,
    write_fd,
)
from helpers import SECONDS, count, results, state, waits

READ, WRITE = "net read", "net write"
Pair = tuple[socket.socket, socket.socket]
Start = Callable[[Callable[[], Any]], Callable[[], Any]]


@pytest.fixture(params=[True, False], ids=["blocking", "nonblocking"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two connected sockets; whether they block by themselves makes no difference."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(request.param)
        other.setblocking(request.param)
        yield one, other


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    out, into = os.pipe()
    yield out, into
    for fd in (out, into):
        try:
            os.close(fd)
        except OSError:
            pass


def test_what_is_there_is_received(start: Start, pair: Pair) -> None:
    pair[1].send(b"hello")
    fd = pair[0].fileno()
    assert start(lambda: sock_recv(fd, 2))() == b"he"
    assert start(lambda: sock_recv(fd, 100, socket.MSG_PEEK))() == b"llo"
    assert start(lambda: sock_recv(fd, 100))() == b"llo"


def test_what_comes_later_is_received(start: Start, pair: Pair) -> None:
    fd = pair[0].fileno()
    answer = start(lambda: sock_recv(fd, 100))
    time.sleep(0.01)
    pair[1].send(b"x")
    assert answer() == b"x"


def test_a_goroutine_parks_until_something_comes(pair: Pair) -> None:
    waiting = waits(go(sock_recv, pair[0].fileno(), 100), READ)
    pair[1].send(b"x")
    assert waiting.result(SECONDS) == b"x"


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 300_000])
def test_the_end_is_empty(pair: Pair, size: int) -> None:
    pair[1].close()
    assert go(sock_recv, pair[0].fileno(), size).result(SECONDS) == b""


@pytest.mark.parametrize("size", [1, 65536, 65537, 1_000_000])
def test_much_is_sent_and_received_in_order(pair: Pair, size: int) -> None:
    data = os.urandom(500_000)

    def receive() -> bytes:
        parts = []
        while part := sock_recv(pair[0].fileno(), size if size > 1 else 1 << 20):
            parts.append(part)
        return b"".join(parts)

    receiver = go(receive)
    go(sock_sendall, pair[1].fileno(), memoryview(data)).result(SECONDS)
    pair[1].shutdown(socket.SHUT_WR)
    assert receiver.result(SECONDS) == data


def test_send_takes_what_there_is_room_for(pair: Pair) -> None:
    data = bytes(10_000_000)
    sent = go(sock_send, pair[0].fileno(), data).result(SECONDS)
    assert 0 < sent < len(data)
    waiting = waits(go(sock_sendall, pair[0].fileno(), data), WRITE)
    left = sent + len(data)
    while left:
        left -= len(pair[1].recv(1 << 20)) if pair[1].gettimeout() is None else drained(pair[1])
    waiting.result(SECONDS)


def drained(sock: socket.socket) -> int:
    """How much there was to receive; waits for some."""
    return len(sock_recv(sock.fileno(), 1 << 20))


def test_receiving_into_a_buffer(start: Start, pair: Pair) -> None:
    buffer = bytearray(b"........")
    pair[1].send(b"abcdef")
    fd = pair[0].fileno()
    assert start(lambda: sock_recv_into(fd, buffer, 2))() == 2
    assert start(lambda: sock_recv_into(fd, memoryview(buffer)[2:]))() == 4
    assert buffer == b"abcdef.."
    with pytest.raises(ValueError, match="too small"):
        sock_recv_into(fd, buffer, 9)
    with pytest.raises(ValueError, match="negative"):
        sock_recv_into(fd, buffer, -1)
    with pytest.raises((TypeError, BufferError)):
        sock_recv_into(fd, b"read-only")  # type: ignore[arg-type]


def test_a_buffer_cannot_be_resized_while_it_is_waited_for(pair: Pair) -> None:
    buffer = bytearray(4)
    waiting = waits(go(sock_recv_into, pair[0].fileno(), buffer), READ)
    with pytest.raises(BufferError):
        buffer.extend(b"more")
    pair[1].send(b"x")
    assert waiting.result(SECONDS) == 1
    buffer.extend(b"more")


def test_time_limits(start: Start, pair: Pair) -> None:
    fd = pair[0].fileno()

    def fails(timeout: float) -> str:
        try:
            sock_recv(fd, 1, 0, timeout)
        except TimeoutError as error:
            return str(error)
        except BlockingIOError as error:
            return errno.errorcode[error.errno or 0]
        return "no error"

    assert start(lambda: fails(0.01))() == "timed out"
    assert start(lambda: fails(0))() in ("EAGAIN", "EWOULDBLOCK")
    with pytest.raises(ValueError, match="out of range"):
        sock_recv(fd, 1, 0, -1)
    with pytest.raises(ValueError, match="negative"):
        sock_recv(fd, -1)


def test_the_time_limit_of_sendall_is_for_all(pair: Pair) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="timed out"):
        go(sock_sendall, pair[0].fileno(), bytes(10_000_000), 0, 0.05).result(SECONDS)
    assert 0.05 <= time.monotonic() - began < SECONDS


def reset(one: socket.socket) -> None:
    """Closes a TCP socket such that the other side is told of an error."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def test_errors_have_the_classes_of_their_numbers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    with one, other:
        waiting = waits(go(sock_recv, other.fileno(), 1), READ)
        reset(one)
        with pytest.raises(ConnectionResetError) as caught:
            waiting.result(SECONDS)
        assert caught.value.errno == errno.ECONNRESET
        with pytest.raises(BrokenPipeError):
            go(sock_sendall, other.fileno(), b"x").result(SECONDS)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock_recv(-1, 1)
    with tempfile.TemporaryFile() as file, pytest.raises(OSError, match="non-socket"):
        sock_recv(file.fileno(), 1)


def test_who_receives_from_what_is_closed_is_told(pair: Pair) -> None:
    waiting = waits(go(sock_recv, pair[0].fileno(), 1), READ)
    closing_fd(pair[0].fileno())
    pair[0].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        waiting.result(SECONDS)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_connections_are_accepted(family: int, tmp_path: Any) -> None:
    if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
        pytest.skip("the system has no IPv6")
    where: Any = {
        socket.AF_INET: ("127.0.0.1", 0),
        socket.AF_INET6: ("::1", 0),
        socket.AF_UNIX: str(tmp_path / "s"),
    }[socket.AddressFamily(family)]
    with socket.socket(family) as server, socket.socket(family) as client:
        server.bind(where)
        server.listen()
        server.setblocking(False)
        waiting = waits(go(sock_accept, server.fileno()), READ)
        if family == socket.AF_UNIX:
            client.bind(str(tmp_path / "c"))
        client.connect(server.getsockname())
        fd, address = waiting.result(SECONDS)
        with socket.socket(fileno=fd) as accepted:
            assert address == client.getsockname() == accepted.getpeername()
            assert not accepted.get_inheritable()
            assert os.get_blocking(fd)
        with pytest.raises(BlockingIOError):
            sock_accept(server.fileno(), 0)


def test_an_unbound_unix_socket_has_no_address(tmp_path: Any) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "s"))
        server.listen()
        client.connect(str(tmp_path / "s"))
        server.setblocking(False)
        fd, address = sock_accept(server.fileno())
        os.close(fd)
        assert address == ""


def test_datagrams_stay_whole(start: Start) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.1", 0))
        two.connect(one.getsockname())
        for size in (10, 0, 30_000):
            two.send(bytes(size))
        fd = one.fileno()
        assert [len(start(lambda: sock_recv(fd, 65536))()) for _ in range(3)] == [10, 0, 30_000]


def test_pipes_are_read_and_written(start: Start, pipe: tuple[int, int]) -> None:
    out, into = pipe
    assert start(lambda: write_fd(into, b"hello"))() == 5
    assert start(lambda: read_fd(out, 100))() == b"hello"
    waiting = waits(go(read_fd, out, 100), READ)
    os.close(into)
    assert waiting.result(SECONDS) == b""


def test_a_pipe_that_blocks_takes_everything_and_holds_up_nobody(one_worker: None, pipe: tuple[int, int]) -> None:
    out, into = pipe
    data = os.urandom(300_000)
    writing = waits(go(write_fd, into, data), WRITE)

    def read() -> bytes:
        got = b""
        while len(got) < len(data):
            got += read_fd(out, 10_000)
        return got

    assert go(read).result(SECONDS) == data
    assert writing.result(SECONDS) == len(data)


def test_a_pipe_that_does_not_block_takes_what_there_is_room_for(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    assert 0 < go(write_fd, pipe[1], bytes(1_000_000)).result(SECONDS) < 1_000_000
    waiting = waits(go(write_fd, pipe[1], b"x"), WRITE)
    assert state(waiting) == WRITE
    while len(os.read(pipe[0], 65536)) == 65536:
        pass
    assert waiting.result(SECONDS) == 1


def test_a_broken_pipe_is_an_error(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        go(write_fd, pipe[1], b"x").result(SECONDS)


def test_files_are_read_and_written(start: Start) -> None:
    with tempfile.TemporaryFile() as file:
        fd = file.fileno()
        data = os.urandom(200_000)
        assert start(lambda: write_fd(fd, data))() == len(data)
        os.lseek(fd, 0, os.SEEK_SET)
        assert start(lambda: read_fd(fd, len(data)))() == data
        assert start(lambda: read_fd(fd, 10))() == b""


def test_a_running_coroutine_is_refused(pair: Pair) -> None:
    async def main() -> None:
        sock_recv(pair[0].fileno(), 1)

    with pytest.raises(RuntimeError, match="blocks"):
        go(main).result(SECONDS)


def test_many_converse_over_tcp(two_workers: None) -> None:
    def echo(fd: int) -> None:
        while data := sock_recv(fd, 1000):
            sock_sendall(fd, data)
        closing_fd(fd)
        os.close(fd)

    def serve(fd: int, connections: int) -> None:
        for _ in range(connections):
            go(echo, sock_accept(fd)[0])

    def talk(address: tuple[str, int], rounds: int) -> None:
        with socket.create_connection(address) as sock:
            fd = sock.fileno()
            for number in range(rounds):
                message = b"%d " % number
                sock_sendall(fd, message)
                got = b""
                while len(got) < len(message):
                    got += sock_recv(fd, 1000)
                assert got == message
            closing_fd(fd)

    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        server.setblocking(False)
        serving = go(serve, server.fileno(), 50)
        results([go(talk, server.getsockname(), count(40)) for _ in range(50)])
        serving.result(SECONDS)


def test_threads_and_goroutines_read_from_one_pipe(two_workers: None, pipe: tuple[int, int]) -> None:
    out, into = pipe
    os.set_blocking(out, False)
    got: list[bytes] = []

    def read() -> None:
        while byte := read_fd(out, 1):
            got.append(byte)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    goroutines = [go(read) for _ in range(2)]
    rounds = count(500)
    for _ in range(rounds):
        os.write(into, b"x")
    os.close(into)
    results(goroutines)
    for thread in threads:
        thread.join(SECONDS)
    assert len(got) == rounds
    assert not _goslings._stacks()[1] or all(not thread.is_alive() for thread in threads)
