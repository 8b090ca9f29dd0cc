"""What can go wrong with processes, as exceptions."""

from __future__ import annotations

from goslings._errors import GoslingsError

__all__ = ["RemoteTraceback", "WorkerDied"]


class WorkerDied(GoslingsError):
    """A worker process ended, was killed or closed its link while somebody waited for it.

    Caused by what ran there: it exited, crashed in a C library, or was killed, perhaps for want of memory. The text
    names the exit status or the signal. The pool has started another worker; what was lost is what this one did.
    """

    __module__ = "goslings.processes"


class RemoteTraceback(Exception):
    """The traceback of an exception in another process, as text: the `__cause__` of that exception here."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'
