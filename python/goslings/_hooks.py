"""What happens to an exception that nobody reads: `goslings.excepthook`."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass

__all__ = ["ExceptHookArgs", "excepthook", "report"]


@dataclass(frozen=True)
class ExceptHookArgs:
    """What `goslings.excepthook` is called with."""

    exc_value: BaseException
    """The exception; its type is `type(exc_value)`, its traceback `exc_value.__traceback__`."""
    name: str
    """The goroutine's name."""
    started_at: str | None
    """ "file:line" of the `go` that started it, where known."""


def excepthook(args: ExceptHookArgs, /) -> None:
    """Prints the traceback to stderr, with the goroutine's name and where it was started.

    Replace it (`goslings.excepthook = f`) to do something else. SystemExit is passed over, as `threading` does.
    """
    if isinstance(args.exc_value, SystemExit) or sys.stderr is None:
        return
    where = f", started at {args.started_at}" if args.started_at else ""
    text = "".join(traceback.format_exception(args.exc_value))
    sys.stderr.write(f"Exception in {args.name}{where}, and nobody asked for its result:\n{text}")
    sys.stderr.flush()


def report(exc: BaseException, name: str, started_at: str | None) -> None:
    """Tells the hook of an exception that nobody can observe any more. Called by the runtime."""
    import goslings

    args = ExceptHookArgs(exc, name, started_at)
    try:
        goslings.excepthook(args)
    except BaseException as failed:
        excepthook(args)
        excepthook(ExceptHookArgs(failed, "goslings.excepthook itself", None))
    if os.environ.get("GOSLINGS_PANIC") == "exit" and not isinstance(exc, SystemExit):
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(2)
