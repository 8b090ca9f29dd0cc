"""subprocess: waiting for a child, and reading and writing its pipes.

What `Popen` does by `os` and `selectors` follows those. Its pipes are files; those are made of `io` here, with a bottom
that parks.
"""

from __future__ import annotations

import io
import subprocess
import time
import types
import warnings
from typing import Any

from goslings._goslings import _can_park, closing_fd
from goslings._patch import _os, _pipes
from goslings._patch._change import Unit, method, swap

__all__ = ["unit"]

_popen: Any = subprocess.Popen
_wait = _popen._wait


class Pipe(io.FileIO):
    """The end of a pipe: a goroutine that reads or writes parks."""

    def readinto(self, buffer: Any, /) -> int | None:
        if _can_park() and not self.closed and self.readable() and len(buffer) and _pipes.waits(self.fileno()):
            count = _pipes.read_ready(self.fileno(), [buffer])
            if count is not None:
                return count
        return super().readinto(buffer)

    # FileIO's reading and writing give None if nothing can be done at once; the types leave that out on some versions.

    def read(self, size: int | None = -1, /) -> bytes | None:  # type: ignore[override]
        if size is None or size < 0:
            return self.readall()
        buffer = bytearray(size)
        count = self.readinto(buffer)
        return None if count is None else bytes(memoryview(buffer)[:count])

    def readall(self) -> bytes | None:  # type: ignore[override]
        if not _can_park():
            return super().readall()
        pieces: list[bytes] = []
        while piece := self.read(65536):
            pieces.append(piece)
        return None if piece is None and not pieces else b"".join(pieces)

    def write(self, data: Any, /) -> int | None:  # type: ignore[override]
        if _can_park() and not self.closed and self.writable() and _pipes.waits(self.fileno()):
            with memoryview(data) as view, view.cast("B") as octets:
                return _pipes.write_all(self.fileno(), octets)
        return super().write(data)

    def close(self) -> None:
        if not self.closed:
            closing_fd(self.fileno())
        super().close()


def open_pipe(fd: int, mode: str, buffering: int = -1) -> Any:
    """As `io.open` of a descriptor in a binary mode."""
    if buffering == 1:
        told = "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used"
        warnings.warn(told, RuntimeWarning, stacklevel=2)
    raw = Pipe(fd, mode.replace("b", ""))
    if buffering == 0:
        return raw
    kind = io.BufferedWriter if "w" in mode else io.BufferedReader
    return kind(raw, buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE)


def wait(self: Any, timeout: float | None) -> int | None:
    """As `Popen._wait`, but a limited wait is woken by the end of the child."""
    left = timeout
    if timeout is not None and self.returncode is None:
        until = time.monotonic() + timeout
        ended = _os.child_ended(self.pid, max(0.0, timeout))
        if ended is not None:
            left = max(0.0, until - time.monotonic()) if ended else 0.0
    try:
        code: int | None = _wait(self, left)
        return code
    except subprocess.TimeoutExpired as error:
        if timeout is not None:
            error.timeout = timeout
        raise


def unit() -> Unit:
    """What is patched of `subprocess`."""
    shown = types.ModuleType("io", "The io that subprocess uses: see goslings._patch._subprocess.")
    vars(shown).update(vars(io))
    vars(shown)["open"] = open_pipe
    return Unit(
        "subprocess",
        [swap(subprocess, "io", shown, rebind=False), method(subprocess.Popen, "_wait", wait)],
        follows=[f"subprocess.{name}" for name in ("Popen", "run", "call", "check_call", "check_output", "getoutput")],
    )
