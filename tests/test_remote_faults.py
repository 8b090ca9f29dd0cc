"""What strangers, broken peers and networks do to `serve` and `connect`: errors, and service for everybody else."""

from __future__ import annotations

import functools
import hmac
import os
import pickle
import random
import socket
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from goslings import AtomicInt, chan, go, gosched, net, processes
from goslings.processes import AuthenticationError, Disconnected, RemoteError, Server, disconnect
from goslings.processes._remote import _auth, _frames, _server
from helpers import SECONDS, count, results, until, waits

# Only a failure takes so long, however busy the machine is.
connect = functools.partial(processes.connect, timeout=60)
serve = functools.partial(processes.serve, handshake=60)
KEY = b"a key that both sides know"
HERE = ("127.0.0.1", 0)
MAGIC = b"gosling\x01"


class Unspeakable(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise Unspeakable


class Echo:
    def __init__(self) -> None:
        self.waiting = AtomicInt()

    def echo(self, value: Any) -> Any:
        return value

    def many(self, n: int) -> bytes:
        return bytes(n)

    def wait(self) -> None:
        self.waiting.add(1)
        chan[None]().recv()

    def fail(self) -> None:
        raise Unspeakable

    def fail_at_length(self) -> None:
        raise LookupError("ä" * 10_000)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(Echo(), HERE, KEY, grace=0.1) as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Any]:
    proxy = connect(server.address, KEY)
    yield proxy
    disconnect(proxy)


class Liar:
    """Pretends to be a server; `lie(conn)` says what it does."""

    def __init__(self, lie: Callable[[net.Conn], Any]) -> None:
        self._server = net.serve(lie, HERE)
        self.address = self._server.address

    def __enter__(self) -> Liar:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown(0)


def proof(key: bytes, purpose: bytes, nonces: bytes) -> bytes:
    return hmac.digest(key, b"goslings.processes " + purpose + b"\0" + nonces, "sha256")


# Keys


def test_both_sides_need_the_same_key(server: Server) -> None:
    with pytest.raises(AuthenticationError, match="refused the authkey"):
        connect(server.address, b"another")
    until(lambda: server.refused == 1)


@pytest.mark.parametrize(("key", "error"), [(None, AuthenticationError), (b"", AuthenticationError), ("s", TypeError)])
def test_a_key_is_needed(server: Server, key: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="authkey"):
        connect(server.address, key)
    with pytest.raises(error, match="authkey"):
        serve(Echo(), HERE, key)


def test_a_server_that_does_not_know_the_key_is_found_out() -> None:
    def lie(conn: net.Conn) -> None:
        conn.send(MAGIC + bytes(32))
        conn.read_exactly(72)
        conn.send(b"\x01" + bytes(32))

    with Liar(lie) as liar, pytest.raises(AuthenticationError, match="does not know"):
        connect(liar.address, KEY)


def test_a_server_cannot_prove_itself_with_what_the_client_has_said() -> None:
    def lie(conn: net.Conn) -> None:
        conn.send(MAGIC + bytes(32))
        conn.send(b"\x01" + conn.read_exactly(72)[-32:])

    with Liar(lie) as liar, pytest.raises(AuthenticationError, match="does not know"):
        connect(liar.address, KEY)


def test_a_client_cannot_prove_itself_with_what_a_server_has_said(server: Server) -> None:
    """Neither by a reflection of the challenge to another connection, nor by a replay."""
    with net.dial(server.address) as one, net.dial(server.address) as other:
        first, second = one.read_exactly(40), other.read_exactly(40)
        # Somebody who knows the key answers the first challenge; the same words do not answer the second.
        mine = os.urandom(32)
        answer = MAGIC + mine + proof(KEY, b"client", first[8:] + mine)
        other.send(answer)
        assert other.read_exactly(33)[:1] == b"\x00"
        one.send(answer)
        said = one.read_exactly(33)
        assert said[:1] == b"\x01"
    with net.dial(server.address) as third:
        challenge = third.read_exactly(40)[8:]
        third.send(MAGIC + challenge + said[1:])
        assert third.read_exactly(33)[:1] == b"\x00"
    assert second != first


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\n\r\n", b"gosling\x02" + bytes(32), b"", b"gos"])
def test_a_server_of_another_kind_is_told_apart(said: bytes) -> None:
    with Liar(lambda conn: conn.send(said)) as liar, pytest.raises(AuthenticationError, match="protocol|closed"):
        connect(liar.address, KEY)


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    with Liar(lambda conn: conn.recv()) as liar, pytest.raises(TimeoutError):
        connect(liar.address, KEY, timeout=0.05)
    with pytest.raises(OSError):
        connect(("127.0.0.1", 1), KEY, timeout=SECONDS)


def test_nothing_is_unpickled_before_the_key_is_proved(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, ("/nonexistent/bomb",)

    used: list[Any] = []
    monkeypatch.setattr("pickle.loads", lambda *args: used.append(args))
    bomb = pickle.dumps(Bomb())
    for head in (b"", MAGIC, MAGIC + bytes(64), struct.pack(">I", len(bomb)), struct.pack(">I16s", len(bomb), b"")):
        before = server.refused
        with net.dial(server.address) as conn:
            with suppress(ConnectionError):
                conn.send(head + bomb * 10)
            with suppress(OSError):  # it has been cut off already
                conn.close_write()
            while conn_recv(conn):
                pass
        until(lambda before=before: server.refused > before)
    assert not used


def conn_recv(conn: net.Conn) -> bytes:
    """b"" also where the other side does not even read what was sent."""
    try:
        return conn.recv(timeout=SECONDS)
    except ConnectionError:
        return b""


# Frames


def admitted(server: Server) -> tuple[net.Conn, bytes, bytes]:
    """A connection of somebody who knows the key, and says what he likes then: it, and its keys to send and receive."""
    conn = net.dial(server.address)
    theirs, mine = conn.read_exactly(40)[8:], os.urandom(32)
    conn.send(MAGIC + mine + proof(KEY, b"client", theirs + mine))
    assert conn.read_exactly(33) == b"\x01" + proof(KEY, b"server", theirs + mine)
    keys = _auth._keys(KEY, theirs + mine)
    return conn, keys.to_server, keys.to_client


def sealed(key: bytes, number: int, body: bytes) -> bytes:
    from hashlib import blake2b

    seal = blake2b(struct.pack(">QI", number, len(body)) + body, key=key, digest_size=16).digest()
    return struct.pack(">I", len(body)) + seal + body


def greeting() -> bytes:
    return pickle.dumps((1 << 26, None), 5)


def ends(conn: net.Conn) -> None:
    """Waits until the other side has closed it."""
    while conn_recv(conn):
        pass
    conn.close()


def test_frames_are_sealed_with_their_number(server: Server, proxy: Any) -> None:
    """Changed, repeated, or sealed with the key of the other direction: the connection ends."""
    for spoil in (
        lambda to, of: sealed(of, 1, b"\x04" + bytes(8)),
        lambda to, of: sealed(to, 0, b"\x04" + bytes(8)),
        lambda to, of: sealed(to, 2, b"\x04" + bytes(8)),
        lambda to, of: sealed(to, 1, b"\x04" + bytes(8))[:-1] + b"\x01",
        lambda to, of: sealed(to, 1, b"\x09" + bytes(8)),
        lambda to, of: sealed(to, 1, b""),
        lambda to, of: struct.pack(">I16s", 0xFFFF_FFFF, b""),
    ):
        conn, to, of = admitted(server)
        conn.send(sealed(to, 0, greeting()))
        conn.send(sealed(to, 1, b"\x04" + bytes(8))[:0])
        conn.send(spoil(to, of))
        ends(conn)
    assert proxy.echo(1) == 1
    until(lambda: server.connections == 1)


def test_a_good_frame_is_taken(server: Server) -> None:
    """The counterpart of the test above: what is sealed well keeps the connection."""
    conn, to, _ = admitted(server)
    conn.send(sealed(to, 0, greeting()) + sealed(to, 1, b"\x04" + bytes(8)))
    until(lambda: server.connections == 1)
    with pytest.raises(TimeoutError):
        while conn.recv(timeout=0.1):
            pass
    conn.close()


def test_garbage_harms_nobody_else(server: Server, proxy: Any, rng: random.Random) -> None:
    """Some thousand strangers say random things, and half of a good handshake; those let in send broken messages."""
    slow = waits(go(proxy.wait), "event wait")
    rounds = count(1500)

    def stranger() -> None:
        with net.dial(server.address) as conn:
            start = rng.choice((b"", MAGIC, MAGIC + os.urandom(32), conn.read_exactly(rng.randrange(1, 41))))
            try:
                conn.send(start + rng.randbytes(rng.randrange(0, 200)))
            except ConnectionError:
                return

    def member() -> None:
        conn, to, _ = admitted(server)
        body = rng.choice((b"", bytes([rng.randrange(10)]) + rng.randbytes(rng.randrange(0, 60))))
        try:
            conn.send(sealed(to, 0, greeting()))
            frame = sealed(to, 1, body)
            conn.send(frame[: rng.randrange(len(frame))] if rng.random() < 0.3 else frame)
            if rng.random() < 0.5:
                conn.send(rng.randbytes(40))
        except ConnectionError:
            pass
        conn.close()

    def many() -> None:
        for _ in range(rounds // 10):
            (stranger if rng.random() < 0.8 else member)()

    many()
    tracemalloc.start()
    results(go(many) for _ in range(9))
    assert proxy.echo("still there") == "still there"
    until(lambda: server.connections == 1)
    assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    tracemalloc.stop()
    assert not slow.done()
    slow.cancel()
    assert slow.join(SECONDS)


def test_random_calls_of_a_member_are_answered(server: Server, rng: random.Random) -> None:
    """Calls whose contents are garbage fail, one by one."""
    conn, to, _ = admitted(server)
    conn.send(sealed(to, 0, greeting()))
    sent = count(200)
    for n in range(sent):
        body = struct.pack(">BQHH", 0, n, 0, 0) + rng.randbytes(rng.randrange(0, 40))
        conn.send(sealed(to, n + 1, body))
    failed = 0
    conn.read_exactly(struct.unpack(">I16x", conn.read_exactly(20, SECONDS))[0], SECONDS)
    for _ in range(sent):
        body = conn.read_exactly(struct.unpack(">I16x", conn.read_exactly(20, SECONDS))[0], SECONDS)
        failed += body[0] == 3
    assert failed == sent
    conn.close()


@pytest.mark.parametrize("said", [b"garbage", b"", (1,), (1 << 20, 5), ("x", None), (1, None), (1 << 20, (1, 2, 3, 4))])
def test_who_knows_the_key_and_greets_wrongly_is_told_apart(server: Server, said: Any) -> None:
    body = said if isinstance(said, bytes) else pickle.dumps(said, 5)

    def lie(conn: net.Conn) -> None:
        nonce = os.urandom(32)
        conn.send(MAGIC + nonce)
        theirs = conn.read_exactly(72)[8:40]
        conn.send(b"\x01" + proof(KEY, b"server", nonce + theirs))
        conn.send(sealed(_auth._keys(KEY, nonce + theirs).to_client, 0, body))
        conn.recv()

    with Liar(lie) as liar, pytest.raises(ConnectionError, match="does not greet"):
        connect(liar.address, KEY)
    before = server.refused
    conn, to, _ = admitted(server)
    conn.send(sealed(to, 0, body))
    ends(conn)
    until(lambda: server.refused == before + 1)


def test_calls_and_their_cancellations_may_meet_anywhere(server: Server, proxy: Any) -> None:
    """A cancellation that comes when its call has just been answered is none; the connection goes on."""

    def many() -> None:
        for round_ in range(count(150)):
            calling = go(proxy.echo, 1)
            for _ in range(round_ % 5):
                gosched()
            calling.cancel()
            calling.join(60)

    results([go(many) for _ in range(4)])
    assert proxy.echo(2) == 2
    (session,) = server._sessions
    until(lambda: not len(session._serving))


def test_an_exception_that_cannot_even_be_shown_is_told(proxy: Any) -> None:
    with pytest.raises(Unspeakable):
        proxy.fail.within(60)()


def test_a_failure_is_told_to_who_takes_little(server: Server) -> None:
    with connect(server.address, KEY, limit=1024) as small:
        with pytest.raises(RemoteError, match="LookupError: äää"):
            small.fail_at_length()
        assert small.echo(1) == 1


def test_a_message_for_which_there_is_no_memory_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not those who wait for an answer."""
    read = _frames.Frames.read

    def full(self: Any) -> bytes:
        body = read(self)
        if len(body) > 1000:
            raise MemoryError
        return body

    with serve(Echo(), HERE, KEY, grace=0.1) as server:
        proxy = connect(server.address, KEY)
        waiting = waits(go(proxy.wait), "event wait")
        monkeypatch.setattr(_frames.Frames, "read", full)
        assert proxy.echo(1) == 1
        with pytest.raises(Disconnected, match="MemoryError"):
            proxy.many.within(60)(2000)
        assert isinstance(waiting.exception(SECONDS), Disconnected)


# Sizes and numbers


def test_messages_have_a_limit_in_both_directions() -> None:
    with serve(Echo(), HERE, KEY, limit=100_000) as server, connect(server.address, KEY) as proxy:
        with pytest.raises(ValueError, match="at most 100000"):
            proxy.echo(bytes(100_000))
        with pytest.raises(ValueError, match="is between"):
            connect(server.address, KEY, limit=10)
        with connect(server.address, KEY, limit=5000) as small:
            with pytest.raises(ValueError, match="the caller takes at most 5000"):
                small.many(5000)
            assert len(small.many(4000)) == 4000
        assert len(proxy.many(100_001)) == 100_001  # the client's own limit is larger
        assert proxy.echo(1) == 1


def test_calls_at_once_have_a_limit() -> None:
    echo = Echo()
    with serve(echo, HERE, KEY, calls=3, grace=0.1) as server:
        proxy = connect(server.address, KEY)
        waiting = [go(proxy.wait) for _ in range(3)]
        until(lambda: echo.waiting.load() == 3)
        for _ in range(5):
            with pytest.raises(RemoteError, match="more than 3 calls"):
                proxy.echo(1)
        waiting[0].cancel()
        waiting[0].join(SECONDS)

        def free() -> bool:
            try:
                return bool(proxy.echo(True))
            except RemoteError:
                return False

        until(free)
        disconnect(proxy)
        for each in waiting[1:]:
            assert isinstance(each.exception(SECONDS), Disconnected)


def test_connections_have_a_limit() -> None:
    with serve(Echo(), HERE, KEY, connections=2) as server:
        one, other = connect(server.address, KEY), connect(server.address, KEY)
        until(lambda: server.connections == 2)
        with pytest.raises(ConnectionRefusedError, match="as many connections"):
            connect(server.address, KEY)
        disconnect(one)
        until(lambda: server.connections == 1)
        assert connect(server.address, KEY).echo(1) == other.echo(1) == 1


def test_the_limit_of_connections_holds_when_many_come_at_once() -> None:
    """Room is looked for when a client has proved itself, not when it comes."""
    with serve(Echo(), HERE, KEY, connections=1) as server:
        early = net.dial(server.address)
        theirs, mine = early.read_exactly(40)[8:], os.urandom(32)
        proxy = connect(server.address, KEY)
        early.send(MAGIC + mine + proof(KEY, b"client", theirs + mine))
        assert early.read_exactly(33, SECONDS)[:1] == b"\x02"
        early.close()
        assert proxy.echo(1) == 1
        disconnect(proxy)
        until(lambda: server._seats == 0)
        assert connect(server.address, KEY).echo(2) == 2


def test_who_does_not_prove_himself_in_time_is_cut_off() -> None:
    with serve(Echo(), HERE, KEY, handshake=0.2) as server:
        quiet = [net.dial(server.address) for _ in range(10)]
        drop = net.dial(server.address)
        for byte in MAGIC + bytes(4):  # a byte now and then does not help
            try:
                drop.send(bytes([byte]))
            except ConnectionError:
                break
            waits_a_little()
        assert connect(server.address, KEY).echo(1) == 1
        for conn in [*quiet, drop]:
            ends(conn)
        until(lambda: server.refused == 11)


def waits_a_little() -> None:
    from goslings import sleep

    sleep(0.03)


def test_strangers_do_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of too many who are silent, the oldest are cut off: they hold no room for long."""
    monkeypatch.setattr(_server, "_STRANGERS", 5)
    with serve(Echo(), HERE, KEY, handshake=SECONDS) as server:
        quiet = [net.dial(server.address) for _ in range(20)]
        until(lambda: server.refused >= 15)  # they may be looked at in any order, and after who comes later
        assert connect(server.address, KEY).echo(1) == 1
        for conn in quiet:
            conn.close()


def test_a_client_that_takes_no_answers_is_not_served_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls are not read any more once answers pile up; others are served; in the end it is cut off."""
    monkeypatch.setattr("goslings.processes._remote._frames.STALLED", 0.3)
    with serve(Echo(), HERE, KEY, grace=0.1) as server, connect(server.address, KEY) as other:
        conn, to, _ = admitted(server)
        conn.send(sealed(to, 0, greeting()))
        call = pickle.dumps((0, "many", (500_000,), {}), 5)
        try:
            for n in range(200):
                conn.send(sealed(to, n + 1, struct.pack(">BQHH", 0, n, 0, 0) + call), SECONDS)
        except ConnectionError:
            pass
        assert other.echo(1) == 1
        until(lambda: server.connections == 1)
        conn.close()


# Ends


def test_a_server_that_ends_in_the_middle_of_a_frame_is_noticed() -> None:
    def lie(conn: net.Conn) -> None:
        nonce = os.urandom(32)
        conn.send(MAGIC + nonce)
        theirs = conn.read_exactly(72)[8:40]
        conn.send(b"\x01" + proof(KEY, b"server", nonce + theirs))
        key = _auth._keys(KEY, nonce + theirs).to_client
        conn.send(sealed(key, 0, pickle.dumps((1 << 20, ("object", "Thing", ("ask",), ())), 5)))
        conn.recv()
        conn.send(sealed(key, 1, bytes(100))[:50])

    with Liar(lie) as liar:
        proxy = connect(liar.address, KEY)
        with pytest.raises(Disconnected, match="ended"):
            proxy.ask()


def test_a_connection_that_is_reset_is_noticed(server: Server) -> None:
    """By a device on the way, say."""
    between = socket.create_server(HERE)
    between.settimeout(SECONDS)

    def relay(source: net.Conn, target: net.Conn) -> None:
        try:
            while data := source.recv():
                target.send(data)
        except OSError:
            pass

    with net.listen(HERE) as listener:
        connecting = go(connect, listener.address, KEY)
        inner, outer = listener.accept(), net.dial(server.address)
        relays = [go(relay, inner, outer), go(relay, outer, inner)]
        proxy = connecting.result(SECONDS)
        waiting = [go(proxy.wait) for _ in range(5)]
        assert proxy.echo(1) == 1
        with socket.socket(fileno=os.dup(inner.fileno())) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        inner.close()
        outer.close()
        for each in waiting:
            assert isinstance(each.exception(SECONDS), Disconnected)
        results(relays)
    between.close()


def test_waiting_calls_say_what_they_wait_for(proxy: Any) -> None:
    waiting = waits(go(proxy.wait), "event wait")
    waiting.cancel()
    assert waiting.join(SECONDS) and waiting.cancelled()


def test_the_socket_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serve(Echo(), path, KEY), pytest.raises(OSError):
        serve(Echo(), path, KEY)
    server = serve(Echo(), path, KEY)
    path.unlink()
    path.write_text("mine")
    server.shutdown()
    assert path.read_text() == "mine"
