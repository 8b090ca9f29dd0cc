"""Requests as bytes: what they become, and what is refused. No sockets here."""

from __future__ import annotations

import random
from typing import Any

import pytest
from goslings._goslings import _http_head, _HttpReader
from helpers import count
from hypothesis import given
from hypothesis import strategies as st

HOST = b"Host: h\r\n"


def reader(head: int = 4096, line: int = 1024, headers: int = 20, body: int = 1 << 20) -> _HttpReader:
    return _HttpReader(head, line, headers, body)


def parse(data: bytes, **limits: int) -> tuple[dict[str, Any], int, bool, bool]:
    one = reader(**limits)
    one.feed(data)
    head = one.head({})
    assert head is not None
    return head


def get(line: bytes = b"GET / HTTP/1.1", headers: bytes = b"") -> bytes:
    return line + b"\r\n" + HOST + headers + b"\r\n"


def refusal(data: bytes, **limits: int) -> int:
    """The status with which the head, or the body after it, is refused."""
    one = reader(**limits)
    one.feed(data)
    with pytest.raises(ValueError) as refused:
        assert one.head({}) is not None, "more was wanted"
        while one.body(1 << 16):
            pass
    status, reason = refused.value.args
    assert isinstance(reason, str) and reason
    assert isinstance(status, int)
    return status


def body(data: bytes, most: int = 1 << 16) -> bytes:
    """The whole body of a request that is there in full, read at most `most` at a time."""
    one = reader()
    one.feed(data)
    assert one.head({}) is not None
    return whole(one, most)


def whole(one: _HttpReader, most: int = 1 << 16) -> bytes:
    parts = []
    while piece := one.body(most):
        assert len(piece) <= most
        parts.append(piece)
    assert piece is not None, "the body has no end"
    assert one.ended
    return b"".join(parts)


# Heads


def test_a_request_becomes_an_environ() -> None:
    base = {"SERVER_NAME": "s"}
    one = reader()
    one.feed(
        b"POST /a%20b/%e4?q=%20&x HTTP/1.1\r\nHost: example.org:80\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 3\r\nX-Many: 1\r\nx-many: 2\r\nCookie: a=1\r\nCookie: b=2\r\nX-Latin: \xe4\r\n\r\nabcGET"
    )
    head = one.head(base)
    assert head == (
        {
            "SERVER_NAME": "s",
            "REQUEST_METHOD": "POST",
            "PATH_INFO": "/a b/\xe4",
            "QUERY_STRING": "q=%20&x",
            "REQUEST_URI": "/a%20b/%e4?q=%20&x",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "example.org:80",
            "CONTENT_TYPE": "text/plain",
            "CONTENT_LENGTH": "3",
            "HTTP_X_MANY": "1,2",
            "HTTP_COOKIE": "a=1; b=2",
            "HTTP_X_LATIN": "\xe4",
        },
        3,
        True,
        False,
    )
    assert base == {"SERVER_NAME": "s"}
    assert (one.body(100), one.body(100), one.ended, one.pending) == (b"abc", b"", True, 3)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/%2F%2e%zz%4", "//.%zz%4", ""),
        (b"//double", "//double", ""),
        (b"/?", "/", ""),
        (b"/a?b?c", "/a", "b?c"),
        (b"/%C3%A4", "/\xc3\xa4", ""),
        (b"/%00", "/\0", ""),
        (b"http://else.where/x?y", "/x", "y"),
        (b"http://else.where?y", "/", "y"),
        (b"http://else.where", "/", ""),
    ],
)
def test_targets(target: bytes, path: str, query: str) -> None:
    environ = parse(get(b"GET " + target + b" HTTP/1.1"))[0]
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path, query)
    assert environ["HTTP_HOST"] == ("else.where" if b"else" in target else "h")


def test_options_may_ask_about_everything() -> None:
    assert parse(get(b"OPTIONS * HTTP/1.1"))[0]["PATH_INFO"] == "*"


@pytest.mark.parametrize(
    ("version", "headers", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: x, Close\r\n", False),
        (b"1.1", b"Connection: keep-alive\r\nConnection: close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_how_long_a_connection_is_kept(version: bytes, headers: bytes, kept: bool) -> None:
    assert parse(get(b"GET / HTTP/" + version, headers))[2] is kept


def test_empty_lines_before_a_request_are_passed_over() -> None:
    assert parse(b"\r\n\r\n" + get())[0]["PATH_INFO"] == "/"


def test_a_header_with_an_underscore_does_not_pass_for_another() -> None:
    environ = parse(get(headers=b"X_Forwarded_For: evil\r\nX-Forwarded-For: good\r\nContent_Length: 5\r\n"))[0]
    assert environ["HTTP_X_FORWARDED_FOR"] == "good"
    assert "CONTENT_LENGTH" not in environ


def test_100_continue_is_expected_of_bodies_only() -> None:
    expect = b"Expect: 100-Continue\r\n"
    assert parse(get(b"POST / HTTP/1.1", expect + b"Content-Length: 1\r\n"))[3] is True
    assert parse(get(b"POST / HTTP/1.1", expect))[3] is False
    assert parse(get(b"POST / HTTP/1.0", expect + b"Content-Length: 1\r\n"))[3] is False
    assert refusal(get(headers=b"Expect: the-unexpected\r\n")) == 417


CHUNKED = b"Transfer-Encoding: chunked\r\n"

REFUSED: list[tuple[int, bytes]] = [
    # No HTTP at all.
    (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello from TLS \r\n\r\n"),
    (400, b"GET /\r\n\r\n"),
    (400, b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n"),
    (400, b" GET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"G\x00T / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET / FTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET relative HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET /#part HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET ftp://h/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET http:///x HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET http://a@b/x HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"GET * HTTP/1.1\r\n" + HOST + b"\r\n"),
    (501, b"CONNECT h:80 HTTP/1.1\r\n" + HOST + b"\r\n"),
    # Other versions.
    (505, b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"),
    (505, b"GET / HTTP/1.2\r\n" + HOST + b"\r\n"),
    (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    # Hosts.
    (400, b"GET / HTTP/1.1\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    # Headers.
    (400, get(headers=b"X : space before colon\r\n")),
    (400, get(headers=b" X: folded\r\n")),
    (400, get(headers=b"X: a\r\n folded\r\n")),
    (400, get(headers=b"X: a\x00b\r\n")),
    (400, get(headers=b"X: a\rb\r\n")),
    (400, get(headers=b"no colon\r\n")),
    (400, get(headers=b": no name\r\n")),
    (400, b"GET / HTTP/1.1\nHost: h\n\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n"),
    # Where does this request end? Whoever disagrees with the server before us smuggles.
    (400, get(headers=b"Content-Length: 5\r\n" + CHUNKED) + b"0\r\n\r\n"),
    (400, get(headers=CHUNKED + b"Content-Length: 5\r\n") + b"0\r\n\r\n"),
    (400, get(headers=b"Content-Length: 5\r\nContent-Length: 5\r\n") + b"12345"),
    (400, get(headers=b"Content-Length: 5\r\nContent-Length: 6\r\n") + b"12345"),
    (400, get(headers=b"Content-Length: 5, 5\r\n") + b"12345"),
    (400, get(headers=b"Content-Length: +5\r\n") + b"12345"),
    (400, get(headers=b"Content-Length: -5\r\n") + b"12345"),
    (400, get(headers=b"Content-Length: 0x5\r\n") + b"12345"),
    (400, get(headers=b"Content-Length: 5_0\r\n") + b"12345"),
    (400, get(headers=b"Content-Length: 1 2\r\n") + b"12345"),
    (400, get(headers=b"Content-Length:\r\n") + b"12345"),
    (400, get(headers=b"Content-Length: 99999999999999999999\r\n")),
    (400, get(headers=CHUNKED + CHUNKED) + b"0\r\n\r\n"),
    (400, get(headers=b"Transfer-Encoding:\r\n") + b"0\r\n\r\n"),
    (400, get(headers=b'Transfer-Encoding: "chunked"\r\n') + b"0\r\n\r\n"),
    (501, get(headers=b"Transfer-Encoding: xchunked\r\n") + b"0\r\n\r\n"),
    (501, get(headers=b"Transfer-Encoding: gzip, chunked\r\n") + b"0\r\n\r\n"),
    (501, get(headers=b"Transfer-Encoding: chunked, identity\r\n") + b"0\r\n\r\n"),
    (501, get(headers=b"Transfer-Encoding: identity\r\n") + b"0\r\n\r\n"),
    (400, get(b"POST / HTTP/1.0", CHUNKED) + b"0\r\n\r\n"),
    (400, get(headers=b"Transfer-Encoding : chunked\r\n") + b"0\r\n\r\n"),
    # Chunks.
    (400, get(headers=CHUNKED) + b"\r\n"),
    (400, get(headers=CHUNKED) + b"g\r\n"),
    (400, get(headers=CHUNKED) + b"-1\r\n"),
    (400, get(headers=CHUNKED) + b"+1\r\n"),
    (400, get(headers=CHUNKED) + b"0x1\r\n"),
    (400, get(headers=CHUNKED) + b" 1\r\n"),
    (400, get(headers=CHUNKED) + b"1 1\r\n"),
    (400, get(headers=CHUNKED) + b"1\n"),
    (400, get(headers=CHUNKED) + b"1;a=\rb\r\n"),
    (400, get(headers=CHUNKED) + b"1;a=\x00\r\n"),
    (400, get(headers=CHUNKED) + b"1000000000000000\r\n"),
    (400, get(headers=CHUNKED) + b"1\r\nab"),
    (400, get(headers=CHUNKED) + b"1\r\na\n0\r\n\r\n"),
    (400, get(headers=CHUNKED) + b"0;" + b"x" * 2000),
    (400, get(headers=CHUNKED) + b"0\r\nno trailer\r\n\r\n"),
    (400, get(headers=CHUNKED) + b"0\r\nx : y\r\n\r\n"),
    (431, get(headers=CHUNKED) + b"0\r\nx: " + b"y" * 5000),
    (431, get(headers=CHUNKED) + b"0\r\n" + b"x: y\r\n" * 1000),
    # Too much.
    (414, b"GET /" + b"x" * 2000),
    (414, b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    (431, get(headers=b"X: " + b"y" * 5000 + b"\r\n")),
    (431, b"GET / HTTP/1.1\r\nX: " + b"y" * 5000),
    (431, get(headers=b"X: y\r\n" * 30)),
    (413, get(headers=b"Content-Length: 2000000\r\n")),
    (413, get(headers=CHUNKED) + b"200000\r\n"),
]


@pytest.mark.parametrize(("status", "data"), REFUSED, ids=lambda what: repr(what)[-60:])
def test_what_is_no_request_is_refused_however_it_comes(status: int, data: bytes) -> None:
    assert refusal(data) == status
    # A byte at a time: refused with the same status, at the latest when all has come.
    one = reader()
    with pytest.raises(ValueError) as refused:
        headed = False
        for byte in data:
            one.feed(bytes([byte]))
            headed = headed or one.head({}) is not None
            if headed:
                one.body(1 << 16)
    assert refused.value.args[0] == status


def test_garbage_is_refused_before_its_end() -> None:
    one = reader()
    one.feed(b"\x16\x03\x01\x02\x00\x01")
    with pytest.raises(ValueError):
        one.head({})


def test_the_limits_are_exact() -> None:
    line = b"GET /" + b"x" * (1024 - 14) + b" HTTP/1.1"
    assert len(line) == 1024
    assert parse(get(line))
    assert refusal(get(line.replace(b"x", b"xx", 1))) == 414
    data = get(headers=b"X: " + b"y" * (4096 - 32) + b"\r\n")
    assert len(data) == 4096
    assert parse(data)
    assert refusal(data.replace(b"y", b"yy", 1)) == 431
    assert parse(get(headers=b"X: y\r\n" * 19))
    assert refusal(get(headers=b"X: y\r\n" * 20)) == 431
    assert parse(get(headers=b"Content-Length: 1048576\r\n"))[1] == 1 << 20
    assert refusal(get(headers=b"Content-Length: 1048577\r\n")) == 413


# Bodies


def chunks(parts: list[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    framed = b"".join(b"%X%b\r\n%b\r\n" % (len(part), extension, part) for part in parts if part)
    return framed + b"0%b\r\n%b\r\n" % (extension, trailers)


def test_chunks() -> None:
    start = get(b"POST / HTTP/1.1", CHUNKED)
    assert parse(start)[1] == -1
    assert body(start + chunks([])) == b""
    assert body(start + chunks([b"one", b"", b"two" * 100])) == b"one" + b"two" * 100
    assert body(start + chunks([b"one"], b' ; a="b;c"', b"Trailer: x\r\nOther: y\r\n")) == b"one"
    assert body(start + b"00000a\r\n0123456789\r\n000\r\n\r\n") == b"0123456789"


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 60), st.randoms(use_true_random=False))
def test_a_body_is_the_same_however_it_comes(parts: list[bytes], most: int, rng: random.Random) -> None:
    told = b"".join(parts)
    for framed, headers in (
        (chunks(parts, b";x", b"a: b\r\n"), CHUNKED),
        (told, b"Content-Length: %d\r\n" % len(told)),
    ):
        data = get(b"POST / HTTP/1.1", headers) + framed + get(b"GET /next HTTP/1.1")
        one = reader()
        got: list[bytes] = []
        seen: list[str] = []
        while data:
            cut = rng.randint(1, 40)
            one.feed(data[:cut])
            data = data[cut:]
            while True:
                if one.ended:
                    if seen[-1:] == ["/next"] or (head := one.head({})) is None:
                        break
                    seen.append(head[0]["PATH_INFO"])
                elif (piece := one.body(most)) is None:
                    break
                else:
                    got.append(piece)
        assert (b"".join(got), seen, one.pending) == (told, ["/", "/next"], 0)


def test_the_next_head_is_not_looked_for_inside_a_body() -> None:
    one = reader()
    one.feed(get(b"POST / HTTP/1.1", b"Content-Length: 100\r\n") + get())
    assert one.head({})
    with pytest.raises(RuntimeError, match="has not been read"):
        one.head({})


def test_what_comes_before_a_bad_chunk_is_given_out_first() -> None:
    one = reader()
    one.feed(get(b"POST / HTTP/1.1", CHUNKED) + b"3\r\nabcX")
    one.head({})
    assert one.body(100) == b"abc"
    with pytest.raises(ValueError):
        one.body(100)


def test_random_bytes_give_a_head_a_wish_or_a_refusal(rng: random.Random) -> None:
    seeds = [get(), get(b"POST / HTTP/1.1", CHUNKED) + chunks([b"abc", b"def"])] + [data for _, data in REFUSED]
    for _ in range(count(5000)):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(data))
            data[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
            if not data:
                break
        one = reader()
        one.feed(bytes(data))
        try:
            while (head := one.head({})) is not None:
                assert head[0]["PATH_INFO"]
                while one.body(1 << 16):
                    pass
                if not one.ended:
                    break
        except ValueError as refused:
            assert refused.args[0] in {400, 413, 414, 417, 431, 501, 505}


# Answers


def test_the_head_of_an_answer() -> None:
    assert _http_head("200 OK", [("Content-Length", "3"), ("X-Ä".replace("Ä", "a"), "\xe4")]) == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-a: \xe4\r\n",
        3,
        False,
        False,
        False,
    )
    headers = [("Connection", "Close"), ("Transfer-Encoding", "chunked"), ("Date", "d"), ("server", "s")]
    assert _http_head("404 No", headers) == (b"HTTP/1.1 404 No\r\nDate: d\r\nserver: s\r\n", -1, True, True, True)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200", []),
        ("20 OK", []),
        ("100 Continue", []),
        ("abc def", []),
        ("200 OK\r\nX: y", []),
        ("200 OK", [("X", "a\r\nY: b")]),
        ("200 OK", [("X", "a\nb")]),
        ("200 OK", [("X", "\u20ac")]),
        ("200 OK", [("X Y", "a")]),
        ("200 OK", [("", "a")]),
        ("200 OK", [("X\r\nY", "a")]),
        ("200 OK", [("Content-Length", "-1")]),
        ("200 OK", [("Content-Length", "1"), ("content-length", "1")]),
    ],
)
def test_an_answer_that_would_be_two_is_refused(status: str, headers: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError):
        _http_head(status, headers)


@pytest.mark.parametrize("headers", [[("X", b"a")], [("X",)], [["X", "a"]], ["X: a"], [(b"X", "a")], (("X", "a"),)])
def test_headers_are_a_list_of_pairs_of_strings(headers: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        _http_head("200 OK", headers)
