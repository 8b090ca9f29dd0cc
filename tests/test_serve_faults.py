"""The WSGI server among bad clients, bad handlers and without descriptors: others are served, memory is bounded."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from wsgiref.types import StartResponse

import goslings
import pytest
from fuzz import garbage
from helpers import count, until
from serving import PATIENCE, Command, Environ, address, all_of, ask, dial, hello, read_answer, request, serving

MIB = 1 << 20

HELLO = """
    import os, time

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return [b"hello"]
"""


def served(where: tuple[str, int], times: int = 20) -> None:
    """Others are served: on a new connection, and again on the same."""
    with dial(where) as sock:
        for _ in range(times):
            sock.sendall(request())
            assert read_answer(sock)[::2] == (200, b"hello")


def reset(sock: socket.socket) -> None:
    """Closes such that the other side gets an RST."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_half_open_and_reset_connections() -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        environ["wsgi.input"].read()
        return hello(environ, start_response)

    beginnings = [b"", b"GET", b"GET / HTTP/1.1\r\nHost:", request("/", "POST", body=b"x" * 1000)[:-500], request()]
    with serving(app, header_timeout=PATIENCE, body_timeout=PATIENCE) as server:
        for number in range(count(200)):
            sock = dial(server)
            sock.sendall(beginnings[number % len(beginnings)])
            if number % 3 == 0:
                sock.shutdown(socket.SHUT_WR)
                assert all_of(sock)[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 200")
            (reset if number % 2 else socket.socket.close)(sock)
        served(address(server))
        until(lambda: server.connections == 0)


def test_clients_that_send_nothing_or_not_enough_are_told_and_dropped() -> None:
    with serving(hello, header_timeout=0.3, body_timeout=0.3, keep_alive=0.3) as server:
        assert ask(server, b"") == b"", "nothing came: there is nothing to answer"
        assert ask(server, b"GET / HT").startswith(b"HTTP/1.1 408 ")
        with dial(server) as sock:
            sock.sendall(request())
            assert read_answer(sock)[0] == 200
            assert sock.recv(1) == b"", "the time between two requests"

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        return [environ["wsgi.input"].read()]

    with serving(app, body_timeout=0.3) as server:
        assert ask(server, request(method="POST", headers="Content-Length: 5")).startswith(b"HTTP/1.1 408 ")


def test_slow_lorises_hold_nobody_up() -> None:
    """200 clients that send their headers a byte at a time, while others are served."""
    with serving(hello, header_timeout=2.0) as server:
        slow = [dial(server) for _ in range(200)]
        data = request(headers="X: " + "y" * 5000)
        sent = 0
        dropped: set[int] = set()
        end = time.monotonic() + PATIENCE
        while len(dropped) < len(slow):
            assert time.monotonic() < end, f"{len(slow) - len(dropped)} are still there"
            for number, sock in enumerate(slow):
                if number not in dropped:
                    try:
                        sock.send(data[sent : sent + 1])
                    except OSError:
                        dropped.add(number)
            sent = min(sent + 1, len(data) - 10)
            served(address(server), 3)
        for sock in slow:
            with contextlib.suppress(ConnectionError):  # it was still sending when it was told
                assert all_of(sock).startswith(b"HTTP/1.1 408 ")
            sock.close()
        until(lambda: server.connections == 0)


def test_a_client_that_never_reads_costs_little_and_not_for_long(tmp_path: Path) -> None:
    code = """
        LARGE = b"x" * 30_000_000

        class Endless:
            def __iter__(self):
                while True:
                    yield b"x" * 100_000

            def close(self):
                with open("closed", "a") as file:
                    file.write("closed\\n")

        def app(environ, start_response):
            if environ["PATH_INFO"] == "/":
                start_response("200 OK", [("Content-Length", "5")])
                return [b"hello"]
            start_response("200 OK", [])
            return Endless() if environ["PATH_INFO"] == "/endless" else [LARGE]
    """
    with Command(tmp_path, code, "--write-timeout", "1") as command:
        served(command.where)
        before = command.memory()
        deaf = []
        for number in range(40):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(command.where)
            sock.sendall(request("/endless" if number % 2 else "/large"))
            deaf.append(sock)
        served(command.where)
        until(lambda: (tmp_path / "closed").exists() and len((tmp_path / "closed").read_text().split()) == 20, PATIENCE)
        served(command.where)
        assert command.memory() - before < 64 * MIB
        for sock in deaf:
            sock.close()
        assert command.stop() == 0, command.err


def test_huge_headers_are_not_kept(tmp_path: Path) -> None:
    with Command(tmp_path, HELLO) as command:
        served(command.where)
        before = command.memory()
        for _ in range(20):
            with dial(command.where) as sock, contextlib.suppress(ConnectionError):
                sock.sendall(b"GET / HTTP/1.1\r\n")
                for _ in range(100):
                    sock.sendall(b"X: " + b"y" * 100_000 + b"\r\n")
                assert all_of(sock).startswith(b"HTTP/1.1 431 ")
        served(command.where)
        assert command.memory() - before < 64 * MIB
        assert command.stop() == 0, command.err


def test_garbage_is_refused_and_others_are_served() -> None:
    """`make fuzz-http` does the same 100,000 times."""
    with serving(garbage.app, header_timeout=5.0, body_timeout=5.0, keep_alive=5.0) as server:
        wrong = garbage.attack(address(server), 1, count(1500), 4)
        assert not wrong, "\n".join(wrong[:10])
        assert ask(server, request(headers="Connection: close")).startswith(b"HTTP/1.1 200")
        until(lambda: server.connections == 0)


def test_a_server_without_descriptors_backs_off_and_goes_on(tmp_path: Path) -> None:
    with Command(tmp_path, HELLO, limit="ulimit -n 64") as command, dial(command.where) as before:
        before.sendall(request())
        assert read_answer(before)[0] == 200
        before.sendall(request()[:-2])  # in the middle of a request: not idle
        crowd = [dial(command.where) for _ in range(200)]
        until(lambda: "cannot accept" in command.err, PATIENCE)
        before.sendall(b"\r\n")
        assert read_answer(before)[2] == b"hello", "who is there is served"
        for sock in crowd:
            sock.sendall(request(headers="Connection: close"))
        # Those that were accepted and had sent nothing were closed to make room; the rest is served in turn.
        answered = 0
        for sock in crowd:
            with contextlib.suppress(ConnectionError):
                answered += all_of(sock).endswith(b"hello")
            sock.close()
        assert answered > 100
        served(command.where)
        assert command.process.poll() is None
        assert command.stop() == 0, command.err


def test_a_handler_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] == "/fail":
            raise ZeroDivisionError("on purpose")
        return hello(environ, start_response)

    with serving(app) as server:
        failing = [dial(server) for _ in range(20)]
        for sock in failing:
            sock.sendall(request("/fail"))
        served(address(server))
        for sock in failing:
            assert read_answer(sock)[0] == 500
            sock.close()
    assert caplog.text.count("ZeroDivisionError: on purpose") == 20


def test_ten_thousand_requests_are_answered_once_each_and_each_with_its_own() -> None:
    connections, each = 20, count(500)
    seen: Counter[str] = Counter()
    lock = threading.Lock()

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        with lock:
            seen[environ["PATH_INFO"]] += 1
        data = environ["PATH_INFO"].encode() + environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(data)))])
        return [data]

    failures: list[str] = []

    def client(where: tuple[str, int], number: int) -> None:
        with dial(where) as sock:
            for turn in range(each):
                path, body = f"/{number}/{turn}", b"b" * (turn % 50)
                sock.sendall(request(path, "POST", body=body))
                answer = read_answer(sock)
                if (answer[0], answer[2]) != (200, path.encode() + body):
                    failures.append(f"{path}: {answer}")

    with serving(app) as server:
        threads = [threading.Thread(target=client, args=(address(server), number)) for number in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert not failures
    assert len(seen) == connections * each and set(seen.values()) == {1}


# Stopping

LOGGED = """
    import os, time

    handled = os.open("handled", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def app(environ, start_response):
        os.write(handled, environ["PATH_INFO"].encode() + b"\\n")
        time.sleep(0.01)
        body = environ["PATH_INFO"].encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
"""


def test_sigterm_under_load_loses_no_request(tmp_path: Path) -> None:
    """Every request that the application began is answered in full."""
    answered: set[str] = set()

    def client(where: tuple[str, int], number: int) -> None:
        turn = 0
        while True:
            try:
                with dial(where) as sock:
                    for _ in range(5):
                        turn += 1
                        path = f"/{number}/{turn}"
                        sock.sendall(request(path))
                        status, _, body = read_answer(sock)
                        assert (status, body.decode()) == (200, path)
                        answered.add(path)
            except ConnectionRefusedError:
                return
            except (AssertionError, ConnectionError):
                continue  # the connection was closed before this request

    with Command(tmp_path, LOGGED) as command:
        threads = [threading.Thread(target=client, args=(command.where, number)) for number in range(16)]
        for thread in threads:
            thread.start()
        until(lambda: len(answered) > 200, PATIENCE)
        assert command.stop() == 0, command.err
        for thread in threads:
            thread.join(PATIENCE)
        handled = (tmp_path / "handled").read_text().split()
    assert len(handled) == len(set(handled))
    assert set(handled) == answered


STUCK = """
    import time

    def app(environ, start_response):
        open("begun", "w").close()
        time.sleep(1000)
"""


@pytest.mark.parametrize("how", ["grace", "second signal"])
def test_a_request_that_does_not_end_is_cut(how: str, tmp_path: Path) -> None:
    args = ["--grace", "0.2"] if how == "grace" else []
    with Command(tmp_path, STUCK, *args) as command, dial(command.where) as sock:
        sock.sendall(request())
        until((tmp_path / "begun").exists, PATIENCE)
        if how != "grace":
            command.process.send_signal(signal.SIGINT)
            until(lambda: refused(command.where), PATIENCE)
        assert command.stop() == 1
        with contextlib.suppress(ConnectionError):
            assert all_of(sock) == b""


def refused(where: tuple[str, int]) -> bool:
    try:
        dial(where).close()
    except ConnectionError:
        return True
    return False


def test_a_request_that_came_in_part_is_answered_after_the_signal(tmp_path: Path) -> None:
    with Command(tmp_path, HELLO) as command, dial(command.where) as sock:
        sock.sendall(request()[:-2])
        served(command.where)
        command.process.send_signal(signal.SIGTERM)
        until(lambda: refused(command.where), PATIENCE)
        sock.sendall(b"\r\n")
        answer = all_of(sock)
        assert answer.endswith(b"hello") and b"Connection: close" in answer
        assert command.process.wait(PATIENCE) == 0, command.err


def test_streams_end_before_the_server_does() -> None:
    gate = goslings.chan[None]()

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        gate.recv()
        yield b"ended"

    with serving(app) as server:
        sock = dial(server)
        sock.sendall(request())
        data = sock.recv(1 << 16)
        stopped = goslings.go(server.stop, PATIENCE)
        until(lambda: refused(address(server)))
        assert not stopped.done()
        gate.send(None)
        assert (data + all_of(sock)).endswith(b"5\r\nended\r\n0\r\n\r\n")
        assert stopped.result(PATIENCE) is True
        sock.close()


def test_many_connections_come_and_go_without_leaving_anything() -> None:
    with serving(hello) as server:
        served(address(server))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(count(300)):
            assert ask(server, request(headers="Connection: close")).endswith(b"hello")
        until(lambda: server.connections == 0)
        until(lambda: len(os.listdir("/proc/self/fd")) <= before)
