"""`goslings.net`: connections, listeners, servers."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import goslings
import pytest
from goslings import chan, go, net
from goslings._goslings import _go_at, _place, _places, _set_slice_ms
from helpers import SECONDS, check_child, count, results, state, until, waits

READ, WRITE = "net read", "net write"
Start = Callable[[Callable[[], Any]], Callable[[], Any]]
Pair = tuple[net.Conn, net.Conn]

HERE = ("127.0.0.1", 0)
DOCS = Path(__file__).resolve().parent.parent / "docs" / "net.md"


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Two ends of a connection."""
    where: net.Address = HERE if request.param == "tcp" else f"unix:{tmp_path}/s"
    with net.listen(where) as listener:
        address = listener.address if request.param == "tcp" else where
        accepting = go(listener.accept)
        with net.dial(address) as one, accepting.result(SECONDS) as other:
            yield one, other


def echo(conn: net.Conn) -> None:
    while data := conn.recv():
        conn.send(data)


def ask(address: Any, question: bytes) -> bytes:
    with net.dial(address) as conn:
        conn.send(question)
        return conn.read_exactly(len(question))


# Connections


def test_bytes_go_both_ways(start: Start, pair: Pair) -> None:
    one, other = pair
    one.send(b"there")
    assert start(lambda: other.recv())() == b"there"
    start(lambda: other.send(bytearray(b"and back")))()
    assert one.recv(3) == b"and"
    assert one.recv() == b" back"


def test_a_goroutine_parks_until_something_comes(pair: Pair) -> None:
    for byte in (b"a", b"b", b"c"):
        waiting = waits(go(pair[0].recv), READ)
        pair[1].send(byte)
        assert waiting.result(SECONDS) == byte


def test_the_end_is_seen_however_it_comes(pair: Pair) -> None:
    one, other = pair
    # Behind data that was read short: the reader waits at once then, and must not miss the end.
    for _ in range(3):
        waiting = waits(go(one.recv), READ)
        other.send(b"x")
        assert waiting.result(SECONDS) == b"x"
    other.send(b"last")
    other.close_write()
    assert one.recv() == b"last"
    assert [go(one.recv).result(SECONDS) for _ in range(3)] == [b"", b"", b""]
    one.send(b"still open")
    assert other.recv() == b"still open"


def test_an_end_that_comes_while_nobody_waits_is_seen(pair: Pair) -> None:
    one, other = pair

    def read() -> bytes:
        first = one.recv()
        ready.recv()  # the data, and the end, are there by now
        return first + one.recv() + one.recv()

    ready: chan[None] = chan()
    waiting = waits(go(read), READ)
    other.send(b"a")
    waits(waiting, "chan receive")
    other.send(b"b")
    other.close()
    # The worker's poller reports it while nobody waits for it.
    with net.listen(HERE) as listener:
        beside = go(listener.accept)
        net.dial(listener.address).close()
        beside.result(SECONDS).close()
    ready.send(None)
    assert waiting.result(SECONDS) == b"ab"


def test_much_goes_through(pair: Pair) -> None:
    data = os.urandom(3_000_000)
    sending = go(pair[0].send, data)
    assert go(pair[1].read_exactly, len(data)).result(SECONDS) == data
    sending.result(SECONDS)


def test_receiving_into_a_buffer(pair: Pair) -> None:
    buffer = bytearray(6)
    pair[0].send(b"abc\ndef")
    assert pair[1].read_until() == b"abc\n"
    assert pair[1].recv_into(buffer, 2) == 2
    assert pair[1].recv_into(memoryview(buffer)[2:]) == 1
    assert buffer == b"def\0\0\0"
    waiting = waits(go(pair[1].recv_into, buffer), READ)
    pair[0].send(b"xyz")
    assert waiting.result(SECONDS) == 3
    assert buffer[:3] == b"xyz"


def test_reading_exactly(pair: Pair) -> None:
    waiting = waits(go(pair[1].read_exactly, 5), READ)
    pair[0].send(b"abc")
    pair[0].send(b"defg")
    assert waiting.result(SECONDS) == b"abcde"
    assert pair[1].read_exactly(0) == b""
    pair[0].close()
    with pytest.raises(EOFError, match="after 2 of 3 bytes"):
        pair[1].read_exactly(3)
    assert pair[1].recv() == b"fg"
    with pytest.raises(ValueError, match="negative"):
        pair[1].read_exactly(-1)


def test_reading_lines(pair: Pair) -> None:
    waiting = waits(go(pair[1].read_until), READ)
    pair[0].send(b"one")
    pair[0].send(b"\ntwo\nthree\r\n\r")
    assert waiting.result(SECONDS) == b"one\n"
    assert pair[1].read_until() == b"two\n"
    waiting = waits(go(pair[1].read_until, b"\r\n\r\n"), READ)
    pair[0].send(b"\nrest")
    assert waiting.result(SECONDS) == b"three\r\n\r\n"
    pair[0].close()
    assert pair[1].read_until() == b"rest"
    assert pair[1].read_until() == b""
    with pytest.raises(ValueError, match="empty separator"):
        pair[1].read_until(b"")


def test_a_line_that_is_too_long_is_refused_and_kept(pair: Pair) -> None:
    pair[0].send(b"x" * 100 + b"\n")
    for limit in (10, 100):
        with pytest.raises(ValueError, match=f"within {limit} bytes"):
            pair[1].read_until(limit=limit)
    assert len(pair[1].read_until(limit=101)) == 101


def test_what_was_read_before_a_time_limit_is_kept(pair: Pair) -> None:
    pair[0].send(b"abc")
    with pytest.raises(TimeoutError):
        pair[1].read_until(timeout=0.02)
    with pytest.raises(TimeoutError):
        pair[1].read_exactly(4, timeout=0.02)
    pair[0].send(b"d\n")
    assert pair[1].read_exactly(4) == b"abcd"


def test_time_limits_and_deadlines(start: Start, pair: Pair) -> None:
    one, _ = pair

    def fails(**how: Any) -> str:
        try:
            one.recv(**how)
        except TimeoutError as error:
            return str(error)
        return "no error"

    assert start(lambda: fails(timeout=0.01))() == "timed out"
    assert start(lambda: fails(timeout=0))() == "timed out"
    one.set_deadline(0.01)
    assert start(fails)() == "timed out"
    assert start(fails)() == "timed out"
    with pytest.raises(TimeoutError):
        one.send(b"x")
    one.set_deadline(None)
    one.send(b"x")
    one.set_read_deadline(0)
    assert fails() == "timed out"
    one.send(b"x")
    one.set_read_deadline(None)
    one.set_write_deadline(-1)
    with pytest.raises(TimeoutError):
        one.send(b"x")
    with pytest.raises(TypeError):
        one.set_deadline("soon")  # type: ignore[arg-type]


def test_a_deadline_holds_for_calls_that_wait_already(pair: Pair) -> None:
    waiting = waits(go(pair[0].recv), READ)
    pair[0].set_deadline(60)
    pair[0].set_deadline(None)
    waits(waiting, READ)
    pair[0].set_read_deadline(0.01)
    with pytest.raises(TimeoutError):
        waiting.result(SECONDS)
    pair[0].set_read_deadline(None)
    sending = waits(go(pair[0].send, bytes(50_000_000)), WRITE)
    pair[0].set_write_deadline(0)
    with pytest.raises(TimeoutError):
        sending.result(SECONDS)


def test_closing_ends_what_waits(pair: Pair) -> None:
    reading = waits(go(pair[0].recv), READ)
    sending = waits(go(pair[0].send, bytes(50_000_000)), WRITE)
    pair[0].close()
    for waiting in (reading, sending):
        with pytest.raises(OSError, match="Bad file descriptor"):
            waiting.result(SECONDS)
    assert (pair[0].closed, pair[0].fileno()) == (True, -1)
    pair[0].close()
    for call in (pair[0].recv, pair[0].close_write, lambda: pair[0].local_address):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_closing_beside_calls_never_hits_another_file(two_workers: None) -> None:
    """A number is free for others only after the last call on it is over."""

    def spoil(conn: net.Conn) -> None:
        try:
            while conn.recv(1):
                pass
        except OSError as error:
            assert error.errno in (errno.EBADF, errno.ECONNRESET)  # noqa: PT017

    with net.listen(HERE) as listener:
        for _ in range(count(100)):
            accepting = go(listener.accept)
            one = net.dial(listener.address)
            with accepting.result(SECONDS) as other:
                readers = [go(spoil, one) for _ in range(3)]
                other.send(b"xx")
                go(one.close)
                # Whoever gets the number next must find all of what is sent to it.
                accepting = go(listener.accept)
                with net.dial(listener.address) as new, accepting.result(SECONDS) as peer:
                    peer.send(b"hello")
                    assert new.read_exactly(5, SECONDS) == b"hello"
                results(readers)


def test_a_reset_is_told() -> None:
    with net.listen(HERE) as listener:
        with socket.create_connection(listener.address) as sock:
            conn = listener.accept()
            waiting = waits(go(conn.recv), READ)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with conn:
            with pytest.raises(ConnectionResetError):
                waiting.result(SECONDS)
            with pytest.raises(BrokenPipeError):
                conn.send(b"x")


def test_a_cancelled_goroutine_receives_no_more(pair: Pair) -> None:
    waiting = waits(go(pair[0].recv), READ)
    waiting.cancel()
    with pytest.raises(CancelledError):
        waiting.result(SECONDS)
    pair[1].send(b"x")
    assert pair[0].recv() == b"x"


def test_several_may_read_from_one_connection(two_workers: None, pair: Pair) -> None:
    def read() -> int:
        total = 0
        while data := pair[0].recv(7):
            total += len(data)
        return total

    readers = [go(read) for _ in range(5)]
    for _ in range(count(200)):
        pair[1].send(b"0123456789")
    pair[1].close()
    assert sum(results(readers)) == 10 * count(200)


def test_addresses_and_representation(tmp_path: Path) -> None:
    with net.listen("127.0.0.1:0") as listener:
        assert re.fullmatch(r"<goslings.net.Listener fd=\d+>", repr(listener))
        with net.dial(listener.address) as one, listener.accept() as other:
            assert one.peer_address == listener.address == other.local_address
            assert one.local_address == other.peer_address
            assert repr(one) == f"<goslings.net.Conn fd={one.fileno()}>"
        assert repr(one) == "<goslings.net.Conn closed>"
    assert repr(listener) == "<goslings.net.Listener closed>"


def test_a_connection_is_taken_over_from_a_socket() -> None:
    one, other = socket.socketpair()
    with other, net.Conn(one.detach()) as conn:
        other.send(b"x")
        assert conn.recv() == b"x"
    with pytest.raises(OSError, match="Bad file descriptor"):
        net.Conn(-1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(OSError, match="Invalid argument"):
        net.Conn(sock.fileno())
    out, into = os.pipe()
    with pytest.raises(OSError, match="non-socket"):
        net.Conn(out)
    os.close(out)
    os.close(into)


def test_a_connection_that_is_forgotten_is_closed() -> None:
    one, other = socket.socketpair()
    net.Conn(one.detach())
    with other:
        until(lambda: other.recv(1) == b"")


# Awaited


def test_awaited_in_an_async_goroutine(pair: Pair) -> None:
    async def main() -> bytes:
        await pair[0].asend(b"question")
        return await pair[0].arecv()

    asking = go(main)
    assert pair[1].read_exactly(8) == b"question"
    waits(asking, READ)
    pair[1].send(b"answer")
    assert asking.result(SECONDS) == b"answer"


def test_awaited_in_asyncio(run: Callable[[Any], Any], pair: Pair) -> None:
    async def main() -> list[Any]:
        with pytest.raises(TimeoutError):
            await pair[0].arecv(timeout=0.01)
        reading = asyncio.create_task(pair_recv())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        echoing = go(echo, pair[1])
        await pair[0].asend(b"hello")
        answers = [await pair[0].arecv(2), await pair[0].arecv()]
        pair[0].close_write()
        await echoing
        return answers

    async def pair_recv() -> bytes:
        return await pair[0].arecv()

    assert run(main()) == [b"he", b"llo"]


def test_awaited_with_much_data(pair: Pair) -> None:
    data = os.urandom(2_000_000)

    async def receive() -> bytes:
        got = b""
        while len(got) < len(data):
            got += await pair[1].arecv(100_000)
        return got

    async def send() -> None:
        await pair[0].asend(data)

    receiving, sending = go(receive), go(send)
    assert receiving.result(SECONDS) == data
    sending.result(SECONDS)


def test_accepting_awaited() -> None:
    async def accept(listener: net.Listener) -> int:
        with await listener.aaccept():
            pass
        accepted = 0
        async for conn in listener:
            conn.close()
            accepted += 1
        return accepted

    with net.listen(HERE) as listener:
        accepting = waits(go(accept, listener), READ)
        for _ in range(3):
            with net.dial(listener.address) as conn:
                assert conn.recv() == b""
        listener.close()
        assert accepting.result(SECONDS) == 2


# Listening and dialling


def test_a_listener_is_iterated_until_it_is_closed() -> None:
    def accept() -> int:
        accepted = 0
        for conn in listener:
            conn.close()
            accepted += 1
        return accepted

    with net.listen(HERE) as listener:
        accepting = go(accept)
        for _ in range(3):
            with net.dial(listener.address) as conn:
                assert conn.recv() == b""
        waits(accepting, READ)
    assert accepting.result(SECONDS) == 3
    with pytest.raises(OSError, match="Bad file descriptor"):
        listener.accept()


def test_accepting_in_time() -> None:
    with net.listen(HERE) as listener:
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError):
                listener.accept(timeout)


@pytest.mark.parametrize("address", ["nowhere", "host:port", ":99999", "::1:80", "a:-1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    for call in (net.listen, net.dial):
        with pytest.raises(ValueError, match=r"address|brackets"):
            call(address)


def test_addresses_of_the_wrong_type_are_refused() -> None:
    with pytest.raises(TypeError):
        net.dial(80)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="host and a port"):
        net.dial(("localhost", "80"))


def test_every_address_is_listened_on() -> None:
    with net.listen(":0") as listener:
        port = listener.address[1]
        hosts = ["127.0.0.1"] + (["[::1]"] if socket.has_dualstack_ipv6() else [])
        for host in hosts:
            with net.dial(f"{host}:{port}"), listener.accept():
                pass
        with net.dial(f":{port}"), listener.accept():
            pass


def test_names_are_looked_up() -> None:
    with net.listen("localhost:0") as listener, net.dial(("localhost", listener.address[1])), listener.accept():
        pass
    with pytest.raises(OSError):
        net.dial("name.invalid:1", timeout=SECONDS)


def test_a_refused_connection_is_told() -> None:
    with net.listen(HERE) as listener:
        address = listener.address
    with pytest.raises(ConnectionRefusedError):
        net.dial(address)
    with pytest.raises(FileNotFoundError):
        net.dial("unix:/nowhere/at/all")


def test_dialling_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    with net.listen(f"unix:{tmp_path}/s", backlog=0):
        conns = []
        with pytest.raises(TimeoutError):
            while True:
                conns.append(net.dial(f"unix:{tmp_path}/s", timeout=0.02))
        for conn in conns:
            conn.close()


def test_a_left_over_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    where = f"unix:{tmp_path}/s"
    net.listen(where).close()
    with net.listen(where), pytest.raises(OSError, match="in use"):
        net.listen(where)
    (tmp_path / "file").write_text("no socket")
    with pytest.raises(OSError, match="in use"):
        net.listen(f"unix:{tmp_path}/file")


def test_a_port_is_shared() -> None:
    with net.listen(HERE, reuse_port=True) as one, net.listen(one.address, reuse_port=True) as other:
        assert one.address == other.address
    with net.listen(HERE) as one, pytest.raises(OSError, match="in use"):
        net.listen(one.address)


# Servers


def test_a_server_serves_many(two_workers: None) -> None:
    with net.serve(echo, HERE) as server:
        questions = [b"question %d" % number * 100 for number in range(50)]
        asking = [go(ask, server.address, question) for question in questions]
        assert results(asking) == questions
        assert server.accepted == 50
        until(lambda: server.connections == 0)
    assert server.stopping
    with pytest.raises(ConnectionRefusedError):
        net.dial(server.address)


def test_a_handler_that_raises_ends_its_own_connection_only(unread: list[goslings.ExceptHookArgs]) -> None:
    def handler(conn: net.Conn) -> None:
        if conn.recv() == b"raise":
            raise ZeroDivisionError("asked for")
        conn.send(b"fine")

    with net.serve(handler, HERE) as server:
        with net.dial(server.address) as quiet:
            with net.dial(server.address) as conn:
                conn.send(b"raise")
                assert conn.recv() == b""
            until(lambda: unread)
            quiet.send(b"x")
            assert quiet.recv() == b"fine"
    assert [type(args.exc_value) for args in unread] == [ZeroDivisionError]
    unread.clear()


def test_a_shut_down_server_lets_connections_come_to_their_end() -> None:
    with net.serve(echo, HERE) as server:
        conn = net.dial(server.address)
        conn.send(b"before")
        assert conn.read_exactly(6) == b"before"
        ending = go(server.shutdown, SECONDS)
        until(lambda: server.stopping)
        conn.send(b"after")
        assert conn.read_exactly(5) == b"after"
        assert state(ending) != "done"
        conn.close()
        assert ending.result(SECONDS) is True
    assert server.wait(0)
    assert server.shutdown() is True


def standing(name: str) -> list[str]:
    """What the goroutines do that are in a function of this name."""
    return sorted(stack.state for stack in goslings.stacks() if name in [frame.name for frame in stack.frames])


def test_a_shut_down_server_ends_those_who_take_too_long() -> None:
    ended: chan[str] = chan(2)

    def patient(conn: net.Conn) -> None:
        try:
            conn.recv() and goslings.sleep(1000)
        except OSError as error:
            ended.send(errno.errorcode[error.errno or 0])
        except goslings.Cancelled as error:
            ended.send(str(error))
            raise

    server = net.serve(patient, HERE)
    with net.dial(server.address), net.dial(server.address) as other:
        other.send(b"x")
        until(lambda: standing("patient") == [READ, "sleep"])
        assert server.shutdown(0.01) is False
        assert {ended.recv(SECONDS), ended.recv(SECONDS)} == {"EBADF", "the server shuts down"}
    assert server.connections == 0


def test_a_server_serves_no_more_connections_than_it_may() -> None:
    with net.serve(echo, HERE, connections=2) as server:
        conns = [net.dial(server.address) for _ in range(3)]
        for conn in conns:
            conn.send(b"x")
        assert [conn.recv() for conn in conns[:2]] == [b"x", b"x"]
        with pytest.raises(TimeoutError):
            conns[2].recv(timeout=0.05)
        assert server.connections == 2
        conns[0].close()
        assert conns[2].recv() == b"x"
        for conn in conns:
            conn.close()
    with pytest.raises(ValueError, match="room"):
        net.serve(echo, HERE, connections=0)
    with pytest.raises(TypeError):
        net.serve(None, HERE)  # type: ignore[arg-type]


def test_a_server_shuts_down_though_it_is_full() -> None:
    server = net.serve(echo, HERE, connections=1)
    with net.dial(server.address) as conn:
        conn.send(b"x")
        assert conn.recv() == b"x"
        assert server.shutdown(0.01) is False


def test_a_server_without_descriptors_left_waits_for_some() -> None:
    out = check_child(
        """
        import os, resource
        from goslings import go, net

        def echo(conn):
            while data := conn.recv():
                conn.send(data)

        server = net.serve(echo, ("127.0.0.1", 0), grace=0)
        first = net.dial(server.address)
        first.send(b"x")
        assert first.recv(timeout=20) == b"x"
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        conns = []
        try:
            while True:
                conns.append(net.dial(server.address))
        except OSError as error:
            print(error.strerror)
        # Those who are served go on.
        first.send(b"y")
        assert first.recv(timeout=20) == b"y"
        for number, conn in enumerate(conns):
            number % 3 == 0 or conn.close()
        # And those who were not are served now.
        for conn in conns[::3]:
            conn.send(b"z")
            assert conn.recv(timeout=20) == b"z"
        server.shutdown()
        """
    )
    assert "Too many open files" in out


def test_a_client_that_never_reads_holds_up_nobody(one_worker: None) -> None:
    def flood(conn: net.Conn) -> None:
        if conn.recv(1) == b"f":
            with suppress(OSError):
                conn.send(bytes(50_000_000))
        else:
            conn.send(b"fine")

    with net.serve(flood, HERE, grace=0) as server:
        with net.dial(server.address) as greedy:
            greedy.send(b"f")
            until(lambda: standing("flood") == [WRITE])
            assert ask_for(server.address) == b"fine"


def ask_for(address: Any) -> bytes:
    with net.dial(address) as conn:
        conn.send(b"?")
        return conn.read_exactly(4)


def test_a_handler_that_computes_holds_up_nobody_for_long(one_worker: None) -> None:
    stop = False

    def handler(conn: net.Conn) -> None:
        if conn.recv(1) == b"c":
            while not stop:
                pass
        conn.send(b"fine")

    with net.serve(handler, HERE) as server, net.dial(server.address) as busy:
        busy.send(b"c")
        try:
            for _ in range(3):
                assert go(ask_for, server.address).result(SECONDS) == b"fine"
        finally:
            stop = True


def test_ten_thousand_requests_on_a_hundred_connections(two_workers: None) -> None:
    def talk(address: Any, rounds: int) -> int:
        done = 0
        with net.dial(address) as conn:
            for number in range(rounds):
                question = b"%d\n" % number
                conn.send(question)
                assert conn.read_until() == question
                done += 1
        return done

    rounds = count(50)
    with net.serve(echo, HERE) as server:
        assert sum(results([go(talk, server.address, rounds) for _ in range(100)])) == 100 * rounds


def test_as_many_as_accept_get_a_connection_however_these_come(two_workers: None) -> None:
    """Also those that find nothing, and wait only after the poller has told of two connections at once."""
    with net.listen(HERE) as listener:
        for number in range(count(60)):
            accepting = [go(listener.accept) for _ in range(6)]
            dialled = [go(net.dial, listener.address) for _ in range(6)]
            if number % 2:
                accepting[0].cancel()  # whatever it was woken for is another's, or its connection is closed
                accepting.append(go(listener.accept))
                dialled.append(go(net.dial, listener.address))
            for goroutine in accepting[number % 2 :] + dialled:
                goroutine.result(SECONDS).close()
            if number % 2:
                with suppress(CancelledError):
                    accepting[0].result(SECONDS).close()
                with suppress(TimeoutError):
                    listener.accept(0).close()


# Balance


@pytest.fixture
def unwatched(two_workers: None) -> Iterator[None]:
    """Two workers that never count as held up, however long the system lets them wait."""
    _set_slice_ms(0)
    until(lambda: sorted(_places()) == [0, 1])
    yield
    _set_slice_ms(10)


def test_long_lived_connections_are_spread_evenly_over_the_workers(unwatched: None) -> None:
    """A hundred connections, some with much to do while the others are accepted: half of them on each worker."""

    def handler(conn: net.Conn) -> None:
        while conn.recv(1):
            conn.send(b"%d" % _place() + b"\n")

    def ask_place(conn: net.Conn) -> int:
        conn.send(b"?")
        return int(conn.read_until(timeout=SECONDS))

    def busy(conn: net.Conn) -> None:
        while not stop:
            ask_place(conn)

    stop = False
    conns: list[net.Conn] = []
    with net.serve(handler, HERE) as server:
        try:
            talking = []
            for number in range(100):
                conns.append(net.dial(server.address))
                ask_place(conns[-1])
                if number % 25 == 0:
                    talking.append(go(busy, conns[-1]))
            stop = True
            results(talking)
            places = Counter(map(ask_place, conns))
            assert sorted(places.values()) == [50, 50]
            first = next(iter(places))
            # When those of one worker have ended, the next ones go there.
            for conn in [conn for conn in conns if ask_place(conn) == first]:
                conn.close()
                conns.remove(conn)
            until(lambda: server.connections == len(conns))
            new = [net.dial(server.address) for _ in range(20)]
            conns += new
            assert Counter(map(ask_place, new)) == {first: 20}
        finally:
            stop = True
            for conn in conns:
                conn.close()


def test_connections_do_not_wait_for_a_worker_that_is_held_up(two_workers: None) -> None:
    """A handler that holds its worker in a foreign call: those that come then are served by the others."""
    hold, holding = threading.Event(), threading.Event()

    def handler(conn: net.Conn) -> None:
        if conn.recv(1) == b"h":
            holding.set()
            hold.wait(SECONDS)
        conn.send(b"fine")

    with net.serve(handler, HERE) as server, net.dial(server.address) as held:
        try:
            held.send(b"h")
            assert holding.wait(SECONDS)
            with ThreadPoolExecutor(6) as clients:
                assert list(clients.map(ask_for, [server.address] * 12)) == [b"fine"] * 12
            assert not hold.is_set()
        finally:
            hold.set()
        assert held.read_exactly(4, timeout=SECONDS) == b"fine"


def test_a_goroutine_that_is_placed_starts_there_or_where_others_do(unwatched: None) -> None:
    places = [0, 1, 1, 0, 1]
    assert [_go_at(place, _place).result(SECONDS) for place in places] == places
    assert _go_at(200, _place).result(SECONDS) != 200, "there is no such worker"
    assert _place() == -1
    locked: chan[int] = chan()
    parked = goslings.Event()

    def lock() -> int:
        goslings.lock_os_thread()
        locked.send(_place())
        parked.wait()
        return _place()

    locking = _go_at(1, lock)
    own = locked.recv(SECONDS)
    # Nobody starts on a thread that is somebody's own.
    assert own not in _places()
    assert _go_at(own, _place).result(SECONDS) != own
    parked.set()
    assert locking.result(SECONDS) == own


def test_the_examples_of_the_documentation_are_true() -> None:
    text = DOCS.read_text()
    blocks = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", text, re.DOTALL)
    assert blocks
    for code, output in blocks:
        assert check_child(code) == output
