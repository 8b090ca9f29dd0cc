"""Requests that are none, nearly none, or odd: each a function of a seed. `python -m fuzz.garbage --help`.

A server that is sent one may answer, refuse or close; it must not fail, must not hang, and must go on serving. What is
sent is mostly valid requests with a few bytes changed, since plain noise is refused at its first byte.
"""

from __future__ import annotations

import argparse
import random
import re
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from wsgiref.types import StartResponse

from goslings.wsgi import Server

PATIENCE = 30.0
"""Seconds without a byte from the server, after which it has failed."""

VALID = [
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /a/b%20c?d=e&f HTTP/1.1\r\nHost: h:80\r\nAccept: */*\r\nCookie: a=b; c=d\r\nConnection: close\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\nContent-Type: text/plain\r\n\r\nhello world",
    b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n \r\n0\r\nT: u\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET http://h/x HTTP/1.1\r\nHost: h\r\n\r\n",
]
PIECES = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b"%", b"%00", b"%zz", b"\xff", b"\xc3\x28"),
    *(
        b"HTTP/1.1",
        b"HTTP/9.9",
        b"Content-Length: 5\r\n",
        b"Content-Length: 99999999999\r\n",
        b"content-length: -1\r\n",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Host: other\r\n",
        b"0\r\n\r\n",
        b"ffffffffffff\r\n",
    ),
    *(
        b"Expect: 100-continue\r\n",
        b"X: " + b"y" * 9000 + b"\r\n",
        b"X: y\r\n" * 150,
        b"/" * 9000,
        b"\x16\x03\x01\x02\x00\x01",
    ),
]


def garbage(rng: random.Random) -> bytes:
    """One piece of input."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.randbytes(rng.randint(1, 400))
    data = bytearray(b"".join(rng.choices(VALID, k=rng.randint(1, 3))))
    for _ in range(rng.randint(0, 6)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[at : at + 1] = rng.randbytes(1)
            case 1:
                del data[at : at + rng.randint(1, 20)]
            case 2:
                data[at:at] = rng.choice(PIECES)
            case 3:
                del data[at:]
    return bytes(data)


def answers_are_whole(data: bytes) -> bool:
    """Whether it begins with a status line, as each answer does."""
    return not data or re.match(rb"HTTP/1\.1 (100|200|400|404|408|413|414|417|431|500|501|505) ", data) is not None


def throw(where: tuple[str, int], seed: int) -> str:
    """Sends one piece of garbage. Returns what is wrong with the server's behaviour, or ""."""
    rng = random.Random(seed)
    data = garbage(rng)
    with socket.create_connection(where, timeout=PATIENCE) as sock:
        # The port is free at once: there are not enough for so many connections otherwise.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        got = b""
        try:
            for part in cut(rng, data):
                sock.sendall(part)
            if rng.random() < 0.05:
                return ""  # reset in the middle
            sock.shutdown(socket.SHUT_WR)
            while more := sock.recv(1 << 16):
                got += more
        except TimeoutError:
            return f"no answer within {PATIENCE} s to {data!r}"
        except OSError:
            pass  # the server has closed while we were sending
    return "" if answers_are_whole(got) else f"answered {got[:200]!r} to {data!r}"


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    if rng.random() < 0.7 or len(data) < 2:
        return [data]
    at = rng.randrange(len(data))
    return [data[:at], data[at:]]


def attack(where: tuple[str, int], seed: int, number: int, at_once: int) -> list[str]:
    """Throws `number` pieces of garbage, of the seeds from `seed` on. Returns what went wrong."""
    with ThreadPoolExecutor(at_once) as threads:
        seeds = range(seed, seed + number)
        faults = threads.map(lambda each: throw(where, each), seeds)
        return [f"seed {each}: {fault}" for each, fault in zip(seeds, faults, strict=True) if fault]


def app(environ: dict[str, object], start_response: StartResponse) -> list[bytes]:
    """Reads everything that it is given."""
    data = environ["wsgi.input"].read()  # type: ignore[attr-defined]
    start_response("200 OK", [("X-Path", repr(environ["PATH_INFO"]))])
    return [data]


def main() -> int:
    parser = argparse.ArgumentParser(description="Throws garbage requests at a server in this process.")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=32)
    options = parser.parse_args()
    with Server(app, bind=("127.0.0.1:0",), header_timeout=2.0, body_timeout=2.0, keep_alive=2.0) as server:
        host, port = server.addresses[0].removeprefix("http://").split(":")
        begin = time.monotonic()
        wrong = attack((host, int(port)), options.seed, options.requests, options.at_once)
        seconds = time.monotonic() - begin
        left = server.connections
    for text in wrong[:20]:
        print(text)
    rate = options.requests / seconds
    print(f"{options.requests} garbage requests in {seconds:.1f} s ({rate:.0f}/s), {len(wrong)} wrong, {left} left")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
