"""The WSGI server: what applications and clients see of it."""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse
from wsgiref.validate import validator

import goslings
import pytest
from goslings.wsgi import Options, Server
from helpers import until
from serving import Command, Environ, address, all_of, ask, dial, hello, read_answer, request, serving


def echo(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Answers with the body of the request."""
    data = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [data]


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def unchunk(data: bytes) -> list[bytes]:
    """The chunks, down to the empty one, which must be there."""
    parts = []
    while True:
        size, _, data = data.partition(b"\r\n")
        count = int(size, 16)
        assert data[count : count + 2] == b"\r\n"
        if not count:
            assert data == b"\r\n"
            return parts
        parts.append(data[:count])
        data = data[count + 2 :]


# Requests and connections


def test_an_answer() -> None:
    with serving(hello) as server:
        answer = ask(server, request(headers="Connection: close"))
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[:3] == [b"HTTP/1.1 200 OK", b"Content-Type: text/plain", b"Content-Length: 5"]
    assert lines[3].startswith(b"Date: ") and lines[3].endswith(b" GMT")
    assert lines[4:] == [b"Server: goslings", b"Connection: close"]
    assert body == b"hello"


def test_a_connection_is_kept_and_used_again() -> None:
    with serving(hello) as server, dial(server) as sock:
        for _ in range(3):
            sock.sendall(request())
            status, headers, body = read_answer(sock)
            assert (status, body) == (200, b"hello")
            assert "connection" not in headers
        sock.sendall(request(headers="Connection: close"))
        assert all_of(sock).endswith(b"hello")


def test_pipelined_requests_are_answered_in_order() -> None:
    def slower_first(environ: Environ, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] == "/0":
            goslings.sleep(0.05)
        return echo(environ, start_response)

    data = b"".join(request(f"/{n}", "POST", body=b"body %d" % n) for n in range(50))
    with serving(slower_first) as server:
        answer = ask(server, data + request("/end", headers="Connection: close"))
    assert [part.partition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")][1:] == [
        *(b"body %d" % n for n in range(50)),
        b"",
    ]


def test_http_1_0() -> None:
    def unknown(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"some"
        yield b"more"

    with serving(hello) as server:
        assert b"Connection: close" in ask(server, request(version="1.0"))
        with dial(server) as sock:
            sock.sendall(request(version="1.0", headers="Connection: keep-alive"))
            assert read_answer(sock)[1]["connection"] == "keep-alive"
            sock.sendall(request(version="1.0"))
            assert read_answer(sock)[2] == b"hello"
            assert sock.recv(1) == b""
    with serving(unknown) as server:
        answer = ask(server, request(version="1.0", headers="Connection: keep-alive"))
        assert b"chunked" not in answer and body_of(answer) == b"somemore"


def test_answers_to_head_have_no_body() -> None:
    def of_unknown_length(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"some"

    for app in (hello, of_unknown_length):
        with serving(app) as server:
            answer = ask(server, request(method="HEAD") + request(method="HEAD", headers="Connection: close"))
            assert answer.count(b"HTTP/1.1 200 OK") == 2
            assert body_of(answer).count(b"\r\n\r\n") == 1 and answer.endswith(b"\r\n\r\n")
            assert answer.count(b"Content-Length: 5") == (2 if app is hello else 0)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_some_answers_have_no_body(status: str) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response(status, [])
        return [b""]

    with serving(app) as server:
        answer = ask(server, request() + request(headers="Connection: close"))
    assert answer.count(b"HTTP/1.1 ") == 2 and b"Content-Length" not in answer and b"chunked" not in answer


def test_blocks_are_sent_as_they_come() -> None:
    gate = goslings.chan[None]()

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b""
        yield b"first"
        gate.recv()
        yield b""
        yield b"second" * 10_000

    with serving(app) as server, dial(server) as sock:
        sock.sendall(request(headers="Connection: close"))
        data = b""
        while b"first" not in data:
            data += sock.recv(1 << 16)
        assert b"Transfer-Encoding: chunked" in data and b"second" not in data
        gate.send(None)
        assert unchunk(body_of(data + all_of(sock))) == [b"first", b"second" * 10_000]


@pytest.mark.parametrize("said", [5, 3, 8])
@pytest.mark.parametrize("blocks", [[b"12345"], [b"123", b"45"]])
@pytest.mark.parametrize("kind", [list, iter])
def test_a_body_is_never_longer_than_its_content_length(
    said: int, blocks: list[bytes], kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [("Content-Length", str(said))])
        return kind(blocks)

    with serving(app) as server:
        answer = ask(server, request() + (b"" if said != 5 else request(headers="Connection: close")))
        assert body_of(answer)[:5] == b"12345"[:said]
        if said != 5:
            assert answer.count(b"HTTP/1.1") == 1, "the connection cannot be kept"
            until(lambda: "Content-Length" in caplog.text)


def test_100_continue_is_sent_when_the_body_is_read() -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] == "/refuse":
            start_response("403 Forbidden", [])
            return [b"no"]
        return echo(environ, start_response)

    expect = "Expect: 100-continue|Content-Length: 4"
    with serving(app) as server:
        with dial(server) as sock:
            sock.sendall(request("/", "POST", expect))
            assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sock.sendall(b"data")
            assert read_answer(sock)[2] == b"data"
            sock.sendall(request("/", "POST", expect) + b"more")  # which does not wait
            assert read_answer(sock)[2] == b"more"
        assert ask(server, request("/refuse", "POST", expect)).startswith(b"HTTP/1.1 403")


def test_a_body_that_was_not_read_does_not_become_a_request() -> None:
    evil = request("/evil")
    seen = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    with serving(app) as server:
        answer = ask(server, request("/", "POST", body=evil) + request("/next", headers="Connection: close"))
        assert answer.count(b"hello") == 2
        large = request("/large", "POST", body=evil * 50_000)
        assert ask(server, large).count(b"hello") == 1, "too much to throw away: the connection is closed"
    assert seen == ["/", "/next", "/large"]


def test_the_input_of_a_request_ends_with_it() -> None:
    kept = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        kept.append(environ["wsgi.input"])
        return hello(environ, start_response)

    with serving(app) as server, dial(server) as sock:
        sock.sendall(request("/", "POST", body=b"one"))
        read_answer(sock)
        sock.sendall(request("/", "POST", body=b"two"))
        read_answer(sock)
    assert [each.read() for each in kept] == [b"", b""]


LINES = b"first\nsecond\n\nlast without an end"
READS: list[Any] = [
    (lambda i: i.read(), LINES),
    (lambda i: i.read(-1), LINES),
    (lambda i: i.read(None), LINES),
    (lambda i: [i.read(0), i.read(7), i.read(10_000), i.read(1)], [b"", LINES[:7], LINES[7:], b""]),
    (lambda i: [i.readline(), i.readline(3), i.readline(), i.read(2), i.readline()], None),
    (lambda i: i.readlines(), LINES.splitlines(True)),
    (lambda i: i.readlines(7), LINES.splitlines(True)[:2]),
    (list, LINES.splitlines(True)),
    (lambda i: [i.readline(0), i.readline(-1), next(i)], [b"", b"first\n", b"second\n"]),
    (lambda i: (lambda buffer: [i.readinto(buffer), bytes(buffer)])(bytearray(4)), [4, b"firs"]),
]


@pytest.mark.parametrize(("read", "told"), READS)
@pytest.mark.parametrize("chunked", [False, True])
def test_the_input_reads_as_a_file(read: Any, told: Any, chunked: bool) -> None:
    got = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        got.append(read(environ["wsgi.input"]))
        return hello(environ, start_response)

    told = [b"first\n", b"sec", b"ond\n", b"\nl", b"ast without an end"] if told is None else told
    with serving(app) as server, dial(server) as sock:
        if chunked:
            sock.sendall(request("/", "POST", "Transfer-Encoding: chunked"))
            for at in range(0, len(LINES), 5):
                sock.sendall(b"%x\r\n%b\r\n" % (len(LINES[at : at + 5]), LINES[at : at + 5]))
            sock.sendall(b"0\r\n\r\n")
        else:
            data = request("/", "POST", body=LINES)
            for at in range(0, len(data), 11):
                sock.sendall(data[at : at + 11])
        assert read_answer(sock)[0] == 200
    assert got == [told]


def test_large_bodies_pass_through() -> None:
    data = os.urandom(1 << 20) * 8
    with serving(echo) as server:
        connection = http.client.HTTPConnection(*address(server), timeout=60)
        for body in (data, (data[at : at + 99_999] for at in range(0, len(data), 99_999))):
            connection.request("POST", "/", body=body, encode_chunked=True)
            assert connection.getresponse().read() == data
        connection.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (request(headers="Content-Length: 5|Transfer-Encoding: chunked"), 400),
        (request(headers="X: " + "y" * 70_000), 431),
        (request("/" + "x" * 10_000), 414),
        (request(headers="Content-Length: 2000"), 413),
        (request(headers="Transfer-Encoding: gzip"), 501),
        (request(headers="Expect: nothing"), 417),
        (b"GET / HTTP/3.0\r\n\r\n", 505),
    ],
)
def test_what_is_refused_gets_an_answer_and_the_connection_is_closed(data: bytes, status: int) -> None:
    with serving(hello, body_limit=1000) as server:
        answer = ask(server, data + request() * 10)
        assert answer.startswith(b"HTTP/1.1 %d " % status) and b"Connection: close" in answer
        assert answer.count(b"HTTP/1.1 ") - answer.count(b"HTTP/1.1 is") == 1


def test_a_chunked_body_that_is_wrong_or_too_large_is_the_clients_fault() -> None:
    with serving(echo, body_limit=1000) as server:
        head = request("/", "POST", "Transfer-Encoding: chunked")
        assert ask(server, head + b"zz\r\n").startswith(b"HTTP/1.1 400 ")
        assert ask(server, head + b"400\r\n" + b"x" * 1024 + b"\r\n").startswith(b"HTTP/1.1 413 ")
        with dial(server) as sock:
            sock.sendall(head + b"5\r\nab")
            sock.shutdown(socket.SHUT_WR)
            assert all_of(sock) == b"", "there is nobody to tell"


# Applications


def test_the_validator_finds_nothing() -> None:
    @validator
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        environ["wsgi.input"].read(3)
        environ["wsgi.input"].readline()
        environ["wsgi.errors"].write("")
        environ["wsgi.errors"].flush()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"fine"]

    with serving(app) as server:
        for data in (request("/a/b?c=d"), request("/", "POST", body=b"one\ntwo"), request("/x%20y")):
            with dial(server) as sock:
                sock.sendall(data.replace(b"Host", b"Connection: close\r\nHost"))
                assert body_of(all_of(sock)).endswith(b"\r\nfine\r\n0\r\n\r\n")


def test_the_environ_tells_who_asks_whom() -> None:
    seen: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.append(environ)
        return hello(environ, start_response)

    with serving(app) as server, dial(server) as sock:
        sock.sendall(request())
        read_answer(sock)
        (environ,) = seen
        assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("127.0.0.1", str(sock.getsockname()[1]))
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("127.0.0.1", str(address(server)[1]))
        assert environ["wsgi.url_scheme"] == "http"
        assert (environ["wsgi.multithread"], environ["wsgi.multiprocess"], environ["wsgi.run_once"]) == (
            True,
            False,
            False,
        )


def test_write_and_the_iterable() -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", [("Content-Length", "9")])
        write(b"one")
        write(b"two")
        return [b"three"[:3]]

    with serving(app) as server:
        assert body_of(ask(server, request(headers="Connection: close"))) == b"onetwothr"


class Closing:
    """An iterable that notes how it ended."""

    def __init__(self, blocks: list[bytes], fails: bool = False) -> None:
        self.blocks, self.fails, self.closed = blocks, fails, 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.blocks
        if self.fails:
            raise ZeroDivisionError("on purpose")

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("fails", [False, True])
def test_the_iterable_is_always_closed(fails: bool, caplog: pytest.LogCaptureFixture) -> None:
    made = []

    def app(environ: Environ, start_response: StartResponse) -> Closing:
        start_response("200 OK", [])
        made.append(Closing([b"some"], fails))
        return made[-1]

    with serving(app) as server:
        answer = ask(server, request(headers="Connection: close"))
        assert answer.endswith(b"0\r\n\r\n") is not fails
    assert [each.closed for each in made] == [1]
    assert ("on purpose" in caplog.text) is fails


def test_the_iterable_is_closed_when_the_client_has_gone() -> None:
    made = []

    def app(environ: Environ, start_response: StartResponse) -> Closing:
        start_response("200 OK", [])
        made.append(Closing([b"x" * 100_000] * 1000))
        return made[-1]

    with serving(app) as server:
        with dial(server) as sock:
            sock.sendall(request())
            sock.recv(10)
        until(lambda: made and made[0].closed)


def test_a_handler_that_raises_is_a_500_and_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] == "/late":
            start_response("200 OK", [])(b"begun")
        raise {"/exit": SystemExit, "/os": OSError}.get(environ["PATH_INFO"], ZeroDivisionError)("on purpose")

    with serving(app) as server:
        with dial(server) as sock:
            for path in ("/", "/exit", "/os"):
                sock.sendall(request(path))
                assert read_answer(sock)[0] == 500, "and the connection is kept"
                assert f"GET {path}: the application failed" in caplog.text
            sock.sendall(request("/late"))
            answer = all_of(sock)
            assert answer.startswith(b"HTTP/1.1 200") and not answer.endswith(b"0\r\n\r\n"), "cut off"
    assert caplog.text.count("on purpose") >= 4 and "def app" not in caplog.text
    assert caplog.text.count("Traceback") == 4


@pytest.mark.parametrize(
    "result",
    [
        lambda start: ["text"],
        lambda start: [b"a", 5],
        lambda start: iter(["text"]),
        lambda start: None,
        lambda start: 5,
    ],
)
def test_a_body_that_is_not_bytes_is_a_500(result: Any, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [])
        return result(start_response)

    with serving(app) as server:
        assert ask(server, request(headers="Connection: close")).startswith(b"HTTP/1.1 500 ")
    assert "TypeError" in caplog.text


def test_start_response_is_checked(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        match environ["PATH_INFO"]:
            case "/never":
                pass
            case "/twice":
                start_response("200 OK", [])
                start_response("200 OK", [])
            case "/split":
                start_response("200 OK", [("X", "a\r\nSet-Cookie: evil=1")])
        return [b"x"]

    with serving(app) as server:
        for path in ("/never", "/twice", "/split"):
            answer = ask(server, request(path, headers="Connection: close"))
            assert answer.startswith(b"HTTP/1.1 500 ") and b"evil" not in answer
    assert caplog.text.count("\nAssertionError: ") == 2 and caplog.text.count("\nValueError: ") == 1


def test_exc_info_replaces_headers_until_they_are_sent(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("X", "before")])
        if environ["PATH_INFO"] == "/late":
            yield b"begun"
        try:
            raise ZeroDivisionError("on purpose")
        except ZeroDivisionError:
            start_response("503 Sorry", [("X", "after")], sys.exc_info())
        yield b"sorry"

    with serving(app) as server:
        answer = ask(server, request(headers="Connection: close"))
        assert answer.startswith(b"HTTP/1.1 503 Sorry\r\nX: after\r\n") and b"before" not in answer
        assert not caplog.text
        answer = ask(server, request("/late"))
        assert answer.startswith(b"HTTP/1.1 200") and not answer.endswith(b"0\r\n\r\n")
    assert "on purpose" in caplog.text


@pytest.mark.parametrize("length", [None, 5, 100_000])
def test_files_are_sent_from_where_they_stand(length: int | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 2000)
    opened: list[Any] = []

    def app(environ: Environ, start_response: StartResponse) -> Any:
        file = io.BytesIO(path.read_bytes()) if environ["PATH_INFO"] == "/memory" else open(path, "rb")
        opened.append(file)
        file.seek(1000)
        start_response("200 OK", [] if length is None else [("Content-Length", str(length))])
        return environ["wsgi.file_wrapper"](file, 4096)

    told = path.read_bytes()[1000:][:length]
    with serving(app) as server:
        answer = ask(server, request(headers="Connection: close"))
        assert body_of(answer) == told
        assert b"Content-Length: %d\r\n" % len(told) in answer
        answer = ask(server, request("/memory", headers="Connection: close"))
        assert b"".join(unchunk(body_of(answer))) == told if length is None else body_of(answer) == told
        assert body_of(ask(server, request(method="HEAD", headers="Connection: close"))) == b""
    assert [file.closed for file in opened] == [True] * 3


def test_a_file_that_is_too_short_ends_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"short")

    def app(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", [("Content-Length", "10")])
        return environ["wsgi.file_wrapper"](open(path, "rb"))

    with serving(app) as server:
        assert body_of(ask(server, request())) == b"short"


def test_requests_run_at_the_same_time() -> None:
    meeting = goslings.Barrier(20)

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        meeting.wait()
        return hello(environ, start_response)

    with serving(app) as server:
        socks = [dial(server) for _ in range(20)]
        for sock in socks:
            sock.sendall(request())
        for sock in socks:
            assert read_answer(sock)[2] == b"hello"
            sock.close()


# Places


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    for _ in range(2):  # the second time over what the first would have left if it had been killed
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(path))
        left.close()
        with serving(hello, bind=(f"unix:{path}",)) as server:
            assert server.addresses == [f"unix:{path}"]
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                sock.sendall(request(headers="Connection: close"))
                assert all_of(sock).endswith(b"hello")
            with pytest.raises(OSError, match="cannot listen on unix:"):
                Server(hello, bind=(f"unix:{path}",))
        assert not path.exists()


def test_several_addresses() -> None:
    with serving(hello, bind=("127.0.0.1:0", "127.0.0.1:0")) as server:
        first, second = server.addresses
        assert first != second
        for each in (first, second):
            host, port = each.removeprefix("http://").split(":")
            assert ask((host, int(port)), request(headers="Connection: close")).endswith(b"hello")
        with pytest.raises(OSError, match="cannot listen on 127"):
            Server(hello, bind=(first.removeprefix("http://"),))


def test_tls(certificates: dict[str, str]) -> None:
    data = os.urandom(1 << 20)
    with serving(echo, certfile=certificates["CERT"], keyfile=certificates["KEY"]) as server:
        assert server.addresses[0].startswith("https://")
        context = ssl.create_default_context(cafile=certificates["CA"])
        for _ in range(3):
            with context.wrap_socket(dial(server), server_hostname="localhost") as sock:
                sock.sendall(request("/", "POST", body=data))
                assert read_answer(sock)[2] == data
                sock.sendall(request("/", "POST", "Connection: close", body=b"x"))
                assert all_of(sock).endswith(b"x")
        assert b"HTTP" not in ask(server, request()), "who speaks no TLS is told so by TLS"


# Settings


@pytest.mark.parametrize(
    "options",
    [
        {"bind": "127.0.0.1:0"},
        {"bind": ()},
        {"bind": ("nowhere",)},
        {"bind": ("127.0.0.1:99999",)},
        {"bind": ("unix:",)},
        {"backlog": 0},
        {"header_limit": "1"},
        {"keep_alive": float("nan")},
        {"grace": -1.0},
        {"keyfile": "k"},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Server(hello, **options)
    with pytest.raises(TypeError):
        Options(no_such_thing=1)  # type: ignore[call-arg]


def test_no_keep_alive() -> None:
    with serving(hello, keep_alive=0.0) as server:
        assert b"Connection: close" in ask(server, request())


def test_more_connections_than_allowed_wait() -> None:
    with serving(hello, max_connections=2) as server:
        first, second = dial(server), dial(server)
        for sock in (first, second):
            sock.sendall(request())
            read_answer(sock)
        third = dial(server)
        third.sendall(request())
        third.settimeout(0.2)
        with pytest.raises(TimeoutError):
            third.recv(1)
        assert server.connections == 2
        first.close()
        third.settimeout(60)
        assert read_answer(third)[0] == 200
        second.close()
        third.close()


def test_the_access_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with serving(hello, access_log=str(path)) as server:
        ask(
            server,
            request("/a?b", headers='Referer: r|User-Agent: "quoted" \x01\xe4|Connection: close'.replace("\x01", "")),
        )
        ask(server, b"nonsense\r\n\r\n")
    good, bad = path.read_text().splitlines()
    assert good.startswith("127.0.0.1 - - [")
    assert good.endswith(r'] "GET /a?b HTTP/1.1" 200 5 "r" "\x22quoted\x22 \xe4"')
    assert bad.endswith('] "-" 400 - "-" "-"')
    assert time.strptime(good.split("[")[1].split("]")[0], "%d/%b/%Y:%H:%M:%S %z")


# The command


def test_the_command_serves_and_stops(tmp_path: Path) -> None:
    code = """
        from serving import hello as app
    """
    (tmp_path / "serving.py").write_text((Path(__file__).parent / "serving.py").read_text())
    (tmp_path / "helpers.py").write_text((Path(__file__).parent / "helpers.py").read_text())
    with Command(tmp_path, code) as command:
        assert ask(command.where, request(headers="Connection: close")).endswith(b"hello")
        with dial(command.where) as idle:
            idle.sendall(request())
            read_answer(idle)
            assert command.stop() == 0
            assert idle.recv(1) == b""
        assert command.out.count('"GET / HTTP/1.1" 200 5') == 2
        assert "Traceback" not in command.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["no_such_module_at_all:app"], "there is no module"),
        (["json:nothing"], "has no 'nothing'"),
        (["json:__name__"], "is no WSGI application"),
        (["json:dumps", "--bind", "x"], "an address is"),
        (["json:dumps", "--workers", "0"], "workers must be a positive whole number"),
        (["json:dumps", "--body-limit", "1X"], "positive size"),
        (["json:dumps", "--keep-alive", "-1"], "keep_alive"),
    ],
)
def test_the_command_says_what_is_wrong(args: list[str], said: str) -> None:
    command = [sys.executable, "-m", "goslings", "serve", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_serve_on_another_thread_serves_without_signals() -> None:
    program = """
        import socket, sys, threading
        from goslings.wsgi import serve
        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"hello"]
        threading.Thread(target=serve, args=(app,), kwargs={"bind": ("unix:SOCKET",)}, daemon=True).start()
        while True:
            try:
                sock = socket.socket(socket.AF_UNIX)
                sock.connect("SOCKET")
                break
            except OSError:
                sock.close()
        sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        data = b""
        while more := sock.recv(1000):
            data += more
        sock.close()
        print(data.endswith(b"hello"))
    """
    import tempfile

    from helpers import run_child

    with tempfile.TemporaryDirectory() as folder:
        done = run_child(program.replace("SOCKET", f"{folder}/s"))
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert threading.active_count() < 1000
