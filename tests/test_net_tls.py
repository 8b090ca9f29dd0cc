"""`goslings.net` with TLS: handshakes, farewells, all calls of a connection, and clients that misbehave."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

import pytest
from goslings import Event, WaitGroup, go, net
from helpers import SECONDS, count, results, until, waits

READ = "net read"
HERE = ("127.0.0.1", 0)
Start = Callable[[Callable[[], Any]], Callable[[], Any]]
Files = dict[str, str]
Pair = tuple[net.TlsConn, net.TlsConn]
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def server_side(files: Files) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files["CERT"], files["KEY"])
    return context


def client_side(files: Files) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=files["CA"])


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def contexts(request: pytest.FixtureRequest, certificates: Files) -> Contexts:
    """Of a server and of a client, who agree on this version."""
    both = server_side(certificates), client_side(certificates)
    for context in both:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[request.param]
    return both


@pytest.fixture
def pair(contexts: Contexts) -> Iterator[Pair]:
    """Two ends of a connection: client, server. Their handshake is made."""
    server, client = contexts
    with net.listen(HERE, tls=server) as listener:
        accepting = go(accepted, listener)
        with net.dial(listener.address, tls=client, server_hostname="localhost") as one:
            with accepting.result(SECONDS) as other:
                yield one, other


def accepted(listener: net.Listener) -> net.TlsConn:
    conn = listener.accept(SECONDS)
    assert isinstance(conn, net.TlsConn)
    conn.handshake(SECONDS)
    return conn


def echo(conn: net.Conn) -> None:
    while data := conn.recv():
        conn.send(data)


def dial(address: Any, files: Files) -> net.TlsConn:
    return net.dial(address, tls=client_side(files), server_hostname="localhost", timeout=SECONDS)


# The calls


def test_bytes_go_both_ways(start: Start, pair: Pair) -> None:
    one, other = pair
    one.send(b"there")
    assert start(lambda: other.recv())() == b"there"
    start(lambda: other.send(bytearray(b"and back")))()
    assert one.recv(3) == b"and"
    assert one.recv() == b" back"
    one.send(b"")
    assert other.recv(0) == b""


def test_a_goroutine_parks_until_something_comes(pair: Pair) -> None:
    for end in (0, 1):
        for byte in (b"a", b"b", b"c"):
            waiting = waits(go(pair[end].recv), READ)
            pair[1 - end].send(byte)
            assert waiting.result(SECONDS) == byte


def test_lines_and_exact_numbers_of_bytes(pair: Pair) -> None:
    one, other = pair
    one.send(b"first\nsecond\nxyz")
    assert other.read_until() == b"first\n"
    assert other.read_until(b"nd\n") == b"second\n"
    buffer = bytearray(b"------")
    assert other.recv_into(memoryview(buffer)[1:], 2) == 2
    assert buffer == b"-xy---"
    with pytest.raises(ValueError, match="too small"):
        other.recv_into(buffer, 7)
    reading = waits(go(other.read_exactly, 4), READ)
    one.send(b"123456")
    assert reading.result(SECONDS) == b"z123"
    one.close()
    with pytest.raises(EOFError, match="3 of 4"):
        other.read_exactly(4)
    assert other.recv() == b"456"
    assert other.recv() == b""


def test_much_goes_through_in_both_directions_at_once(pair: Pair) -> None:
    one, other = os.urandom(3_000_000), os.urandom(2_000_001)
    sending = [go(pair[0].send, one), go(pair[1].send, other)]
    reading = [go(pair[1].read_exactly, len(one)), go(pair[0].read_exactly, len(other))]
    assert results(reading) == [one, other]
    results(sending)


def test_what_was_read_before_a_timeout_is_not_lost(pair: Pair) -> None:
    one, other = pair
    one.send(b"half of ")
    with pytest.raises(TimeoutError):
        other.read_until(timeout=0.05)
    with pytest.raises(TimeoutError):
        other.read_exactly(20, timeout=0)
    one.send(b"a line\n")
    assert other.read_until(timeout=SECONDS) == b"half of a line\n"


def test_a_deadline_ends_a_wait_that_has_begun(start: Start, pair: Pair) -> None:
    one, other = pair
    waiting = waits(go(one.recv), READ)
    one.set_deadline(0)
    with pytest.raises(TimeoutError):
        waiting.result(SECONDS)
    one.set_deadline(None)
    other.send(b"x")
    assert start(one.recv)() == b"x"


@pytest.mark.parametrize("who", ["client", "server"])
def test_who_has_said_farewell_still_receives(pair: Pair, who: str) -> None:
    one, other = pair if who == "client" else pair[::-1]
    other.send(b"sent before")
    one.send(b"question")
    one.close_write()
    assert other.read_exactly(8) == b"question"
    assert [other.recv(timeout=SECONDS) for _ in range(2)] == [b"", b""]
    other.send(b" and after")
    assert one.read_exactly(21, timeout=SECONDS) == b"sent before and after"
    with pytest.raises(BrokenPipeError, match="after close_write"):
        one.send(b"more")


def test_a_close_is_a_farewell_and_ends_waits(pair: Pair) -> None:
    one, other = pair
    waiting, here = waits(go(other.recv), READ), waits(go(one.recv), READ)
    one.close()
    assert waiting.result(SECONDS) == b""
    with pytest.raises(OSError, match="Bad file descriptor"):
        here.result(SECONDS)
    with pytest.raises(OSError, match="Bad file descriptor"):
        one.send(b"x")
    one.close()
    assert one.closed and repr(one) == "<goslings.net.TlsConn closed>"
    assert repr(other) == f"<goslings.net.TlsConn fd={other.fileno()}>"


def test_an_end_without_a_farewell_is_an_error(pair: Pair) -> None:
    one, other = pair
    one.send(b"the beginning")
    one._shutdown(socket.SHUT_RDWR)
    assert other.recv() == b"the beginning"
    with pytest.raises(ssl.SSLEOFError):
        other.recv()


def test_a_broken_record_is_an_error(pair: Pair) -> None:
    one, other = pair
    net.Conn.send(one, b"\x17\x03\x03\x00\x05hello")
    with pytest.raises(ssl.SSLError):
        other.recv()


def test_after_a_send_that_broke_off_nothing_is_sent(pair: Pair) -> None:
    one, other = pair
    with pytest.raises(TimeoutError):
        one.send(bytes(50_000_000), timeout=0.05)
    with pytest.raises(BrokenPipeError, match="broke off"):
        one.send(b"x")
    # Receiving goes on.
    other.send(b"y")
    assert one.recv() == b"y"


def test_what_is_asked_of_the_protocol(pair: Pair) -> None:
    one, other = pair
    assert one.ssl_object.version() == other.ssl_object.version() in ("TLSv1.2", "TLSv1.3")
    certificate = one.ssl_object.getpeercert()
    assert certificate and certificate["subject"] == ((("commonName", "localhost"),),)
    assert one.local_address == other.peer_address


def test_awaited_twins_in_asyncio_and_in_goroutines(contexts: Contexts, run: Callable[..., Any]) -> None:
    server, client = contexts

    async def serve(listener: net.Listener) -> bytes:
        async for conn in listener:
            with conn:
                while data := await conn.arecv(timeout=SECONDS):
                    await conn.asend(data.upper())
                return b"served"
        return b""

    async def talk(below: net.Conn) -> bytes:
        with net.TlsConn(below, client, server_hostname="localhost") as conn:
            await conn.ahandshake(SECONDS)
            with pytest.raises(TimeoutError):
                await conn.arecv(timeout=0.01)
            await conn.asend(b"word " * 100_000)
            got = b""
            while len(got) < 500_000:
                got += await conn.arecv()
            return got

    with net.listen(HERE, tls=server) as listener:
        serving = go(serve, listener)
        assert run(talk(net.dial(listener.address))) == b"WORD " * 100_000
        assert serving.result(SECONDS) == b"served"
        # And the other way round.
        talking = go(talk, net.dial(listener.address))
        assert run(serve(listener)) == b"served"
        assert talking.result(SECONDS) == b"WORD " * 100_000


def test_a_task_that_is_cancelled_loses_nothing(pair: Pair, run: Callable[..., Any]) -> None:
    one, other = pair

    async def cancelled() -> bytes:
        task = asyncio.ensure_future(other.arecv())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await one.asend(b"kept")
        return await other.arecv()

    assert run(cancelled()) == b"kept"


# Handshakes


def test_a_name_that_the_certificate_has_not_is_refused(certificates: Files) -> None:
    with net.serve(echo, HERE, tls=server_side(certificates)) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match="elsewhere"):
            net.dial(server.address, tls=client_side(certificates), server_hostname="elsewhere.test")
        with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
            net.dial(server.address, tls=True)
        # The name is that of the address, else.
        with net.dial(server.address, tls=client_side(certificates), timeout=SECONDS) as conn:
            conn.send(b"x")
            assert conn.recv() == b"x"


def test_a_handshake_has_a_deadline(certificates: Files) -> None:
    with net.listen(HERE) as silent:
        with pytest.raises(TimeoutError):
            net.dial(silent.address, tls=client_side(certificates), timeout=0.05)
        with net.dial(silent.address) as below:
            conn = net.TlsConn(below, client_side(certificates), server_hostname="localhost", handshake_timeout=0.05)
            with pytest.raises(TimeoutError, match=r"handshake took longer than 0\.05 s"):
                conn.recv()
            with pytest.raises(TimeoutError, match="handshake took longer"):
                asyncio.run(asyncio.wait_for(conn.asend(b"x"), SECONDS))


def test_clients_that_speak_no_tls_are_nobodys_failure(certificates: Files, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "goslings.net")
    served: list[str] = []

    def handler(conn: net.Conn) -> None:
        served.append("one")
        echo(conn)

    with net.serve(handler, HERE, tls=server_side(certificates), handshake_timeout=0.2) as server:
        with net.dial(server.address) as plain, net.dial(server.address) as silent, net.dial(server.address) as gone:
            gone.close()
            plain.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with suppress(ConnectionError):
                while plain.recv(timeout=SECONDS):
                    pass
            with suppress(ConnectionError):
                assert silent.recv(timeout=SECONDS) == b""
        with dial(server.address, certificates) as conn:
            conn.send(b"x")
            assert conn.recv() == b"x"
    assert served == ["one"]
    assert len([record for record in caplog.records if "no TLS with a client" in record.getMessage()]) == 3


def test_a_client_in_no_hurry_holds_up_nobody(certificates: Files, one_worker: None) -> None:
    with net.serve(echo, HERE, tls=server_side(certificates), handshake_timeout=SECONDS, grace=0) as server:
        with net.dial(server.address):
            until(lambda: server.connections == 1)
            with dial(server.address, certificates) as conn:
                conn.send(b"x")
                assert conn.recv() == b"x"


def test_mistakes_are_told(certificates: Files) -> None:
    context = client_side(certificates)
    with net.listen(HERE) as listener:
        with pytest.raises(ValueError, match="server_hostname is for TLS"):
            net.dial(listener.address, server_hostname="x")  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="SSLContext"):
            net.dial(listener.address, tls="yes")  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="was said to `listen`"):
            net.serve(echo, listener, tls=server_side(certificates))
    with pytest.raises(ValueError, match="whom should the certificate name"):
        net.dial("unix:/nowhere", tls=context)
    with pytest.raises(TypeError, match="SSLContext"):
        net.listen(HERE, tls=True)  # type: ignore[arg-type]


# With others


def test_the_standard_library_talks_to_it(contexts: Contexts) -> None:
    server, client = contexts
    with net.serve(echo, HERE, tls=server) as here:
        raw = socket.create_connection(here.address, SECONDS)
        with client.wrap_socket(raw, server_hostname="localhost") as sock:
            for _ in range(3):
                sock.sendall(b"hello")
                assert sock.recv(100) == b"hello"
            sock.unwrap().close()
    with socket.create_server(HERE) as below, server.wrap_socket(below, server_side=True) as listening:

        def reply() -> None:
            sock, _ = listening.accept()
            with sock:
                while data := sock.recv(100):
                    sock.sendall(data.upper())

        thread = threading.Thread(target=reply)
        thread.start()
        with net.dial(listening.getsockname(), tls=client, server_hostname="localhost", timeout=SECONDS) as conn:
            conn.send(b"hello")
            assert conn.recv(timeout=SECONDS) == b"HELLO"
        thread.join(SECONDS)
        assert not thread.is_alive()


def test_a_connection_in_use_begins_to_talk_tls(contexts: Contexts) -> None:
    server, client = contexts

    def handler(conn: net.Conn) -> None:
        assert conn.read_until() == b"STARTTLS\n"
        conn.send(b"go ahead\n")
        with net.TlsConn(conn, server, server_side=True) as above:
            echo(above)

    with net.serve(handler, HERE) as running, net.dial(running.address) as conn:
        conn.send(b"STARTTLS\n")
        assert conn.read_until() == b"go ahead\n"
        with net.TlsConn(conn, client, server_hostname="localhost") as above:
            above.send(b"secret")
            assert above.read_exactly(6) == b"secret"


def test_two_hundred_clients(certificates: Files, two_workers: None) -> None:
    rounds, clients = count(10), 200
    context = client_side(certificates)
    ready: WaitGroup = WaitGroup()
    ready.add(clients)
    begin = Event()

    def talk(address: Any) -> int:
        done = 0
        with net.dial(address, tls=context, server_hostname="localhost") as conn:
            ready.done()
            begin.wait()
            for number in range(rounds):
                question = b"%d " % number * 50 + b"\n"
                conn.send(question)
                assert conn.read_until() == question
                done += 1
        return done

    with net.serve(echo, HERE, tls=server_side(certificates), handshake_timeout=60) as server:
        talking = [go(talk, server.address) for _ in range(clients)]
        assert ready.wait(60)
        assert server.connections == clients
        begin.set()
        assert sum(talk.result(60) for talk in talking) == clients * rounds


def test_a_reader_and_a_writer_at_a_time(pair: Pair, two_workers: None) -> None:
    """Many calls on one connection from both sides, whoever is first; what arrives is in order."""
    rounds = count(300)

    def write(conn: net.Conn) -> None:
        for number in range(rounds):
            conn.send(b"%d\n" % number)

    def read(conn: net.Conn) -> list[int]:
        return [int(conn.read_until()) for _ in range(rounds)]

    writing = [go(write, conn) for conn in pair]
    assert results([go(read, conn) for conn in pair]) == [list(range(rounds))] * 2
    results(writing)


def test_goroutines_that_wait_for_tls_can_be_cancelled(pair: Pair) -> None:
    waiting = waits(go(pair[0].recv), READ)
    waiting.cancel()
    with pytest.raises(CancelledError):
        waiting.result(SECONDS)
    pair[1].send(b"x")
    assert pair[0].recv() == b"x"
    assert isinstance(pair[0], net.Conn)
