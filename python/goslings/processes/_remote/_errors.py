"""The exceptions of objects served to others: who caused each, and what to do about it."""

from __future__ import annotations

import traceback

from goslings._errors import GoslingsError

__all__ = ["AuthenticationError", "Disconnected", "RemoteError", "describe", "text_of"]


class AuthenticationError(GoslingsError, ConnectionError):
    """The other side does not know the key, or does not speak this protocol. Nothing that it sent was used."""


class Disconnected(GoslingsError, ConnectionError):
    """The connection to the other side is gone: it ended, was killed, or cannot be reached.

    Raised by calls that wait for an answer, and by later ones. A call that had been sent may or may not have been
    carried out. `connect` again.
    """


class RemoteError(GoslingsError):
    """A call failed on the other side with an exception that could not be brought here. The text names it."""


for _error in (AuthenticationError, Disconnected, RemoteError):
    _error.__module__ = "goslings.processes"  # as users know them


def describe(error: BaseException, within: str) -> str:
    """The traceback of an exception, as text, without the calls of the file `within` that come first.

    What cannot even be shown does no harm.
    """
    traceback_ = error.__traceback__
    while traceback_ is not None and traceback_.tb_frame.f_code.co_filename == within:
        traceback_ = traceback_.tb_next
    try:
        return "".join(traceback.format_exception(type(error), error, traceback_))
    except Exception:
        return f"{type(error).__name__} (which cannot be shown)\n"


def text_of(error: BaseException) -> str:
    """The class of an exception, and what it says."""
    name = type(error).__qualname__
    try:
        said = str(error)
    except Exception:
        return f"{name} (which cannot be shown)"
    return f"{name}: {said}" if said else name
