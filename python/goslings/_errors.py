"""The exceptions of goslings: who caused each, and what to do about it."""

__all__ = [
    "Cancelled",
    "Closed",
    "DeadlineExceeded",
    "Deadlock",
    "GoExit",
    "GoslingsError",
    "TransactionConflict",
    "TransactionRetry",
    "WouldBlock",
]


class GoslingsError(Exception):
    """Base class of the errors that channels and contexts report."""


class Closed(GoslingsError):
    """The channel is closed.

    Raised by a send on a closed channel, a receive from a closed and drained one, and a second close. Receivers
    that expect it iterate (`for v in ch`) or use `recv_ok`; senders should be the ones who close.
    """


class WouldBlock(GoslingsError):
    """A `try_` call without a default found nothing: try later, or use the call that waits."""


class DeadlineExceeded(GoslingsError, TimeoutError):
    """The context's deadline has passed: what its `err()` gives then."""


class Cancelled(BaseException):
    """This goroutine was cancelled: raised where it waits, to let `finally` and `with` clean up.

    Not an Exception, so that `except Exception` does not swallow it. Raised by the runtime only. Who waits for the
    goroutine's result gets `concurrent.futures.CancelledError` instead.
    """


class Deadlock(RuntimeError):
    """Nobody can ever go on: every goroutine and every thread waits for another.

    Raised once, in the main thread, out of what it waits for; that is left as it was, and the others wait on. The
    message lists who waits for what, and where. It is not raised while anything else could still happen: a timer or
    sleeper, another thread (a plain Python thread or one of a library), a call of `blocking`, a signal handler of the
    program's. GOSLINGS_DEADLOCK=off switches it off.
    """


class GoExit(BaseException):
    """Raised by `goexit()` to end its goroutine. Let it pass."""


for _error in (Closed, WouldBlock, DeadlineExceeded, Cancelled, Deadlock, GoslingsError):
    _error.__module__ = "goslings"  # as users know them: tracebacks and pickles name it


class TransactionRetry(BaseException):
    """Leaves a transaction that `goslings.stm.retry` has ended: it runs again when something it read has changed."""


class TransactionConflict(BaseException):
    """Leaves a transaction that cannot commit any more: it runs again at once."""
