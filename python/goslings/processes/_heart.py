"""Whether a worker still answers: its parent asks over a socket of its own, and a thread of the system answers.

That thread needs what any Python code needs, so it answers as long as the interpreter runs: also beside goroutines that
compute, and C calls that have let go of the GIL. It does not answer while the process is stopped, in a C call that
keeps the GIL, or in a deadlock of the interpreter.

Seconds in which the parent itself did not look do not count: it may have been stopped together with its workers.
"""

from __future__ import annotations

import contextlib
import os
import socket

from goslings import _threads

__all__ = ["START_SECONDS", "Heart", "answer"]

START_SECONDS = 60.0
"""The first answer may take so long, or `hang_timeout`, if that is more: an interpreter has to start."""


class Heart:
    """The parent's end of it, for one worker. `look` is for one goroutine."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._asked = False
        self.answered = False
        """Whether it has ever."""
        self.silent = 0.0
        """For how many seconds it has owed an answer."""
        self._lock = _threads.lock()

    @property
    def theirs(self) -> int:
        """The descriptor for the worker, until it was `given`."""
        return self._theirs.fileno()

    def given(self) -> None:
        """The worker has its end, or will never have it."""
        self._theirs.close()

    def look(self, seconds: float, wanted: bool) -> float:
        """For how long an answer is owed now. `seconds`: since the last look. `wanted`: asks, if none is owed.

        Never blocks.
        """
        with self._lock, contextlib.suppress(OSError):  # closed, or the worker is gone: others see to that
            if self._asked:
                try:
                    self._asked = not self._ours.recv(64, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    self.silent += seconds
                else:
                    self.answered, self.silent = True, 0.0
            if wanted and not self._asked:
                self._ours.send(b"?", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                self._asked = True
        return self.silent

    def close(self) -> None:
        """The worker is gone."""
        with self._lock:
            self._ours.close()
            self._theirs.close()


def answer(fd: int) -> None:
    """In the worker: answers until the parent is gone. Returns at once."""
    _threads.start(_answer, fd, name="goslings.processes heart")


def _answer(fd: int) -> None:
    with contextlib.suppress(OSError):
        while asked := os.read(fd, 64):
            os.write(fd, asked)
    os.close(fd)
