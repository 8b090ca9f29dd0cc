"""What the tests of the WSGI server share: servers in this process and in others, and raw clients."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication

from goslings.wsgi import Server
from helpers import SECONDS, until

type Environ = dict[str, Any]

PATIENCE = 60.0
"""What a client allows for an answer that has to come: far more than it takes."""


def hello(environ: Environ, start_response: StartResponse) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


@contextlib.contextmanager
def serving(app: WSGIApplication, **options: Any) -> Iterator[Server]:
    """A server in this process, on a port of its own."""
    options.setdefault("bind", ("127.0.0.1:0",))
    server = Server(app, **options)
    server.start()
    try:
        yield server
    finally:
        assert server.stop(SECONDS), "requests were left"


def address(server: Server) -> tuple[str, int]:
    parts = urlsplit(server.addresses[0])
    assert parts.hostname and parts.port
    return parts.hostname, parts.port


def dial(where: Server | tuple[str, int]) -> socket.socket:
    return socket.create_connection(address(where) if isinstance(where, Server) else where, timeout=PATIENCE)


def all_of(sock: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    parts = []
    while data := sock.recv(1 << 16):
        parts.append(data)
    return b"".join(parts)


def ask(where: Server | tuple[str, int], data: bytes) -> bytes:
    """Sends this, and returns everything that comes back until the server closes the connection.

    The server may close it before it has read everything: what it has said by then can still be received.
    """
    with dial(where) as sock:
        with contextlib.suppress(BrokenPipeError):
            sock.sendall(data)
        return all_of(sock)


def read_answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One answer with a Content-Length or in chunks, of a connection that stays."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(1)
        assert more, data
        data += more
    head, _, _ = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = b""
    while len(body) < int(headers.get("content-length", 0)):
        more = sock.recv(1 << 16)
        assert more
        body += more
    return int(first.split()[1]), headers, body


def request(path: str = "/", method: str = "GET", headers: str = "", body: bytes = b"", version: str = "1.1") -> bytes:
    """One request. `headers` are whole lines without their ends, separated by `|`."""
    lines = [f"{method} {path} HTTP/{version}", "Host: test", *(headers.split("|") if headers else [])]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Command:
    """`goslings serve` in a process of its own."""

    def __init__(self, folder: Path, code: str, *args: str, limit: str = "") -> None:
        (folder / "served.py").write_text(textwrap.dedent(code))
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "goslings",
            "serve",
            "served:app",
            "--bind",
            "127.0.0.1:0",
        ]
        command += args
        if limit:
            command = ["sh", "-c", f'{limit}; exec "$@"', "sh", *command]
        self.err_path = folder / "stderr"
        self.out_path = folder / "stdout"
        with open(self.err_path, "wb") as err, open(self.out_path, "wb") as out:
            self.process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, "GOSLINGS_PROCS": "2"}, stdin=subprocess.DEVNULL,
                stdout=out, stderr=err,
            )  # fmt: skip
        until(lambda: self._port() or self.process.poll() is not None, PATIENCE)
        assert self.process.poll() is None, self.err
        self.where = ("127.0.0.1", self._port())

    def _port(self) -> int:
        found = re.search(r"serving on https?://[^:]+:(\d+)", self.err)
        return int(found[1]) if found else 0

    @property
    def err(self) -> str:
        return self.err_path.read_text(errors="replace")

    @property
    def out(self) -> str:
        return self.out_path.read_text(errors="replace")

    def memory(self) -> int:
        """Resident bytes now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal, waits for the end, and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
