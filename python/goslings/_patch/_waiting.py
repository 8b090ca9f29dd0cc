"""How the patched modules wait for descriptors: until when, and what if the kernel keeps saying "ready" in vain."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from goslings._goslings import _sleep_here as sleep
from goslings._goslings import _wait_fd_here as wait_fd

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["Deadline"]

_PATIENCE = 3
"""So many times a descriptor may be ready in vain before it is believed no more."""

_PAUSE_SECONDS_MAX = 0.01


class Deadline:
    """The end of one call that may wait several times; None means never.

    A datagram socket of the Unix family is writable while its peer takes nothing more. Whoever trusted it would turn in
    a circle and hold its worker, so from the fourth time on there is a short pause before the next attempt.
    """

    __slots__ = ("_end", "_vain")

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else monotonic() + timeout
        self._vain = 0

    def left(self) -> float | None:
        """Seconds until the end, 0 if it is over."""
        return None if self._end is None else max(0.0, self._end - monotonic())

    def ready(self, fd: FileDescriptorLike, write: bool) -> bool:
        """Waits until `fd`, a number or an object that has one, can be read (written), or has failed; False at the end.

        OSError if it is closed meanwhile.
        Parks a goroutine, blocks a plain thread.
        """
        left = self.left()
        if left == 0.0:
            return False
        self._vain += 1
        if self._vain > _PATIENCE:
            pause = min(_PAUSE_SECONDS_MAX, 0.0001 * self._vain)
            sleep(pause if left is None else min(left, pause))
            left = self.left()
        return wait_fd(fd, write, left)
