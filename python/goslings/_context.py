"""Context: who may still go on, until when, and what belongs to the request. Go: `context`.

Invariants:
* `_end` holds nothing, or one end for ever: `dict.setdefault` decides who was first. The channel is closed after
  that, so who finds it closed finds the reason; `err` closes it before it tells the reason.
* Nothing here locks: each change is one operation of a dict or of a channel. So a finalizer, a signal handler or
  another goroutine may cancel between any two of them.
* A child enters itself among its parent's children and then looks whether the parent has ended; who ends the parent
  says so and then looks for children. The dict of children orders these two, so one of them sees the other.
* Who ends a context that has ended helps with its descendants, which leave their parents only when all is done: when
  any `cancel` returns, all of them have ended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self

from goslings._errors import Closed, DeadlineExceeded
from goslings._goslings import RecvChan, Timer, after_func, chan, go, recv, select
from goslings._goslings import _never as _never_ready

__all__ = ["Context", "background"]


class Context:
    """Carries an end, a deadline and values from a caller to all who work for it.

    Start with `background()` and derive: a child ends when its parent does, never the reverse. As a context manager
    a context is cancelled at the end of the block.

    Contexts of a class of one's own take part: they define `done` and `err`, and whatever else they have of `cause`,
    `value`, `deadline` and `after_func`. They derive from this class, or are given as in `Context.with_cancel(mine)`.
    """

    __slots__ = ()

    @property
    def done(self) -> RecvChan[None]:
        """A receive-only channel that is closed when the context ends: the same object each time.

        That of a context which never ends is never ready.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `done` of its own")

    def err(self) -> BaseException | None:
        """None while the context goes on; then why it ended, the same object for ever. Never blocks.

        DeadlineExceeded, which is a TimeoutError, or concurrent.futures.CancelledError.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `err` of its own")

    def cause(self) -> BaseException | None:
        """The cause given by whoever ended the context, or else `err()`. Never blocks."""
        return self.err()

    def value(self, key: object, /) -> Any:
        """The value that was bound to `key` nearest to this context, or None. Never blocks.

        Keys differ by type, too: 1, True and 1.0 are three.
        """
        return None

    @property
    def deadline(self) -> float | None:
        """When the context ends at the latest, as `time.monotonic()` counts; None if no such time is set."""
        return None

    def cancel(self, cause: BaseException | None = None) -> None:
        """Ends the context and, before it returns, all that descend from it. Does not wait for work to stop.

        May be called often, by anybody; the first call counts. Never blocks. Raises RuntimeError for a context that
        has no end of its own: `background()`, or one that only binds a value. Derive one by `with_cancel()` then.
        """
        raise RuntimeError("this context has no end of its own: derive one by with_cancel()")

    def with_cancel(self) -> Context:
        """A child that can be cancelled on its own.

        Do so in the end, best by `with`: until then its parent refers to it.
        """
        return _Child(self)

    def with_timeout(self, seconds: float, *, cause: BaseException | None = None) -> Context:
        """A child that ends in so many seconds, with this `cause` if that is what ends it."""
        return _Child(self, time.monotonic() + _number(seconds), cause)

    def with_deadline(self, when: float, *, cause: BaseException | None = None) -> Context:
        """A child that ends when `time.monotonic()` is `when`, with this `cause` if that is what ends it.

        The parent's deadline holds if it is earlier; one that has passed ends the child at once.
        """
        return _Child(self, _number(when), cause)

    def with_value(self, key: object, value: object, /) -> Context:
        """A child that binds `value` to `key`, and has no end of its own.

        Raises TypeError for a key that is None or cannot be hashed. A class of yours makes a key that nobody else has.
        """
        if key is None:
            raise TypeError("a key must not be None")
        hash(key)
        return _Bound(self, key, value)

    def without_cancel(self) -> Context:
        """A child with the values of its parent, but neither its end nor its deadline."""
        return _Unending(self)

    def after_func(self, fn: Callable[[], object], /) -> Callable[[], bool]:
        """Starts a goroutine that runs `fn()` once the context has ended, which may be at once.

        Returns a function that prevents this, and returns whether it did; it does not wait for an `fn` that runs.
        Never blocks. Raises TypeError if `fn` is not callable.
        """
        if not callable(fn):
            raise TypeError(f"after_func needs a callable, not {type(fn).__name__}")
        return _Call(self, fn).stop

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self.cancel()

    def __copy__(self) -> NoReturn:
        raise TypeError("a Context cannot be copied: it is a reference already, pass it on as it is")

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__copy__()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Context cannot be pickled: it belongs to this process; pass it to a goroutine instead")


def background() -> Context:
    """The context that all others come from: it never ends, and has no values."""
    return _background


class _End(NamedTuple):
    """How a context ended."""

    err: BaseException
    cause: BaseException


class _Node:
    """What ends when its parent does, or before: a context, or a function to call."""

    __slots__ = ("_above", "_children", "_end")

    def __init__(self) -> None:
        self._above: _Child | None = None  # the nearest context above that can end, if it is of this module
        self._end: dict[None, _End] = {}  # empty, or the end
        self._children: dict[_Node, None] = {}

    def _ended(self) -> _End | None:
        return self._end.get(None)

    def _announce(self) -> None:
        """Lets others see the end. May be called again, also by several at once. Cannot fail."""

    def _act(self) -> None:
        """Does what the end asks for. As `_announce`, but may fail."""

    def _follow(self, root: Context | None) -> None:
        """Has this end with `root`, which can end or is of a foreign class; None never ends."""
        self._above = root if isinstance(root, _Child) else None
        if self._above is not None:
            self._above._children[self] = None
            end = self._above._ended()
            if end is not None:
                _finish(self, end)


def _finish(first: _Node, end: _End) -> None:
    """Ends a node and all its descendants. Not by recursion: they may be a long line."""
    pending, ended = [(first, end)], []
    while pending:
        node, end = pending.pop()
        end = node._end.setdefault(None, end)
        node._announce()
        ended.append(node)
        pending += [(child, end) for child in list(node._children)]
    failure = None
    for node in reversed(ended):
        if node._above is not None:
            node._above._children.pop(node, None)
        try:
            node._act()
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure


class _Child(_Node, Context):
    """A context that can end."""

    __slots__ = ("__weakref__", "_chan", "_deadline", "_done", "_parent", "_stop", "_timer")

    def __init__(self, parent: Context, when: float | None = None, cause: BaseException | None = None) -> None:
        if cause is not None:
            _check_cause(cause)
        super().__init__()
        self._parent = parent
        self._chan: chan[None] = chan()
        self._done = self._chan.receiver()
        self._timer: Timer | None = None
        self._stop: Callable[[], object] | None = None
        latest: float | None = getattr(parent, "deadline", None)
        mine = when is not None and (latest is None or when < latest)
        self._deadline = when if mine else latest
        root = _root(parent)
        self._follow(root)
        if root is not None and self._above is None:
            self._follow_foreign(root)
        if mine and when is not None and not self._ended():
            self._set_timer(when, cause)

    def _follow_foreign(self, root: Context) -> None:
        if root.err() is not None:
            _finish(self, _end_of(root))
        elif getattr(type(root), "after_func", Context.after_func) is not Context.after_func:
            self._stop = root.after_func(lambda: _finish(self, _end_of(root)))
        elif root.done is not None:
            go(_watch, root, self)

    def _set_timer(self, when: float, cause: BaseException | None) -> None:
        err = DeadlineExceeded("context deadline exceeded")
        expire = partial(_finish, self, _End(err, err if cause is None else cause))
        left = when - time.monotonic()
        if left <= 0:
            expire()
        elif left < math.inf:
            self._timer = after_func(left, expire)
            if self._ended():
                self._act()  # who has ended us may have been too early to see the timer

    @property
    def done(self) -> RecvChan[None]:
        return self._done

    def err(self) -> BaseException | None:
        end = self._ended()
        if end is None:
            return None
        self._announce()
        return end.err

    def cause(self) -> BaseException | None:
        end = self._ended()
        if end is None:
            return None
        self._announce()
        return end.cause

    def value(self, key: object, /) -> Any:
        return _value(self._parent, key)

    @property
    def deadline(self) -> float | None:
        return self._deadline

    def cancel(self, cause: BaseException | None = None) -> None:
        if cause is not None:
            _check_cause(cause)
        err = CancelledError("context canceled")
        _finish(self, _End(err, err if cause is None else cause))

    def _announce(self) -> None:
        if not self._chan.closed:
            try:
                self._chan.close()
            except Closed:
                pass

    def _act(self) -> None:
        # Dropped, since both refer to us.
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()

    def __repr__(self) -> str:
        end = self._ended()
        return f"<Context ({'goes on' if end is None else end.err})>"


class _Passive(Context):
    """A context without an end of its own."""

    __slots__ = ()

    def __enter__(self) -> NoReturn:
        raise RuntimeError("this context has no end of its own, which `with` could bring: derive one by with_cancel()")


class _Bound(_Passive):
    """A context that binds a value."""

    __slots__ = ("__weakref__", "_key", "_parent", "_root", "_value")

    def __init__(self, parent: Context, key: object, value: object) -> None:
        self._parent, self._key, self._value = parent, key, value
        self._root = _root(parent)

    @property
    def done(self) -> RecvChan[None]:
        return _never if self._root is None else self._root.done

    def err(self) -> BaseException | None:
        return None if self._root is None else self._root.err()

    def cause(self) -> BaseException | None:
        return None if self._root is None else _cause(self._root)

    def value(self, key: object, /) -> Any:
        return _value(self, key)

    @property
    def deadline(self) -> float | None:
        return None if self._root is None else getattr(self._root, "deadline", None)

    def __repr__(self) -> str:
        return f"<Context with {self._key!r}>"


class _Unending(_Passive):
    """A context that never ends: `background()`, or one that keeps the values of another."""

    __slots__ = ("__weakref__", "_parent")

    def __init__(self, parent: Context | None) -> None:
        self._parent = parent

    @property
    def done(self) -> RecvChan[None]:
        return _never

    def err(self) -> None:
        return None

    def value(self, key: object, /) -> Any:
        return None if self._parent is None else _value(self._parent, key)

    def __repr__(self) -> str:
        return "<Context background>" if self._parent is None else "<Context without cancel>"


class _Call(_Node):
    """A function to call when a context has ended."""

    __slots__ = ("_fn", "_own")

    def __init__(self, parent: Context, fn: Callable[[], object]) -> None:
        super().__init__()
        self._fn = [fn]  # taken by whoever calls it, or drops it
        root = _root(parent)
        # A foreign one is followed by a context of ours.
        self._own = None if root is None or isinstance(root, _Child) else _Child(root)
        self._follow(self._own or root)

    def _act(self) -> None:
        if self._ended() is not _stopped:
            try:
                fn = self._fn.pop()
            except IndexError:
                return
            go(fn)

    def stop(self) -> bool:
        """Prevents the call; returns whether it did."""
        if self._end.setdefault(None, _stopped) is not _stopped:
            return False
        try:
            self._fn.pop()
        except IndexError:
            return False  # that was an earlier call
        if self._above is not None:
            self._above._children.pop(self, None)
        if self._own is not None:
            self._own.cancel()
        return True


def _watch(root: Context, child: _Child) -> None:
    """Waits for the end of a context of a foreign class."""
    picked = select(recv(root.done), recv(child.done))
    if picked.index == 0:
        _finish(child, _end_of(root))


def _root(parent: Context) -> Context | None:
    """The context whose end is that of `parent`: one of this module that can end, or a foreign one."""
    if isinstance(parent, _Bound):
        return parent._root
    if isinstance(parent, _Unending):
        return None
    if not isinstance(parent, _Child) and not (hasattr(parent, "done") and hasattr(parent, "err")):
        raise TypeError(f"a parent needs `done` and `err`, which {type(parent).__name__} has not")
    return parent


def _value(context: Context, key: object) -> Any:
    kind = type(key)
    while True:
        if isinstance(context, _Bound):
            if context._key is key or (type(context._key) is kind and context._key == key):
                return context._value
            context = context._parent
        elif isinstance(context, _Child):
            context = context._parent
        elif isinstance(context, _Unending):
            if context._parent is None:
                return None
            context = context._parent
        else:
            look = getattr(context, "value", None)
            return None if look is None else look(key)


def _cause(context: Context) -> BaseException | None:
    look = getattr(context, "cause", None)
    return context.err() if look is None else look()


def _end_of(context: Context) -> _End:
    """How a context of a foreign class has ended."""
    err = context.err() or CancelledError("context canceled")
    return _End(err, _cause(context) or err)


def _check_cause(cause: object) -> None:
    if not isinstance(cause, BaseException):
        raise TypeError(f"a cause must be an exception, not {type(cause).__name__}")


def _number(seconds: float) -> float:
    seconds = float(seconds) if isinstance(seconds, int | float) else seconds
    if math.isnan(seconds):
        raise ValueError("a time must not be NaN")
    return seconds


_never: RecvChan[None] = _never_ready()
_background = _Unending(None)
_error = CancelledError("stopped")
_stopped = _End(_error, _error)
"""How a `_Call` ends that was prevented."""
