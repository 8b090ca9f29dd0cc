"""The access log: a line in the combined format for each request, written by a goroutine of its own.

Requests only append to a list. A file that cannot be written fast enough loses lines, which are counted, and holds
nobody up.
"""

from __future__ import annotations

import re
import sys
from time import localtime, strftime, time
from typing import Any, TextIO

from goslings import Event, blocking, go, sleep

__all__ = ["AccessLog"]

_PAUSE = 0.1
"""Lines of so many seconds are written at once."""
_LINES_MAX = 100_000

_ODD = re.compile(r"[^ !#-\[\]-~]")


class AccessLog:
    """Where requests are told of. `path`: a file that is appended to, or "-" for stdout. Raises OSError."""

    def __init__(self, path: str) -> None:
        self._file: TextIO = sys.stdout if path == "-" else open(path, "a", encoding="latin-1", buffering=1 << 16)
        self._own = path != "-"
        self._lines: list[str] = []
        self._some = Event()
        self._idle = True
        self._closed = False
        self._lost = 0
        self._stamp = (0, "")
        self._writer = go(self._write)

    def add(self, environ: dict[str, Any], status: int, sent: int) -> None:
        """Notes a request. Never blocks."""
        get = environ.get
        query = environ["QUERY_STRING"]
        target = environ["REQUEST_URI"] or environ["PATH_INFO"] + (query and "?" + query)
        line = f"{environ['REQUEST_METHOD']} {target} {environ['SERVER_PROTOCOL']}"
        self.line(
            environ["REMOTE_ADDR"], line, status, sent, get("HTTP_REFERER"), get("HTTP_USER_AGENT"), get("REMOTE_USER")
        )

    def line(
        self, address: str, line: str, status: int, sent: int, referer: str | None = None, agent: str | None = None,
        user: str | None = None,
    ) -> None:  # fmt: skip
        """Notes an answer. Never blocks."""
        if len(self._lines) >= _LINES_MAX:
            self._lost += 1
            return
        self._lines.append(
            f"{address or '-'} - {_clean(user)} [{self._time()}] "
            f'"{_clean(line)}" {status} {sent or "-"} "{_clean(referer)}" "{_clean(agent)}"\n'
        )
        if self._idle:
            self._idle = False
            self._some.set()

    def _time(self) -> str:
        second, text = self._stamp
        now = int(time())
        if now != second:
            text = strftime("%d/%b/%Y:%H:%M:%S %z", localtime(now))
            self._stamp = (now, text)
        return text

    def _write(self) -> None:
        while not self._closed:
            self._some.wait()
            if not self._closed:
                sleep(_PAUSE)
            self._some.clear()
            self._idle = True
            self._flush()

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        lost, self._lost = self._lost, 0
        if lost:
            lines.append(f"- {lost} lines were lost: the log was written too slowly\n")
        if lines:
            try:
                blocking(self._put, "".join(lines))
            except (OSError, ValueError) as error:
                print(f"goslings serve: the access log cannot be written: {error}", file=sys.stderr)

    def _put(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()

    def close(self) -> None:
        """Writes what there is. Blocks until that is done."""
        self._closed = True
        self._some.set()
        self._writer.result()
        self._flush()
        if self._own:
            self._file.close()


def _clean(text: str | None) -> str:
    """A field that can neither end itself nor its line."""
    if not text:
        return "-"
    return _ODD.sub(lambda odd: f"\\x{ord(odd[0]):02x}", text) if _ODD.search(text) else text
