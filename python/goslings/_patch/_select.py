"""`select`: a goroutine that waits for several descriptors waits for one epoll descriptor that contains them.

First the original is asked, with a timeout of 0; then the epoll descriptor is waited for, as any other is; then the
original is asked again. So answers and errors are its own. Files that epoll refuses are always ready, and the original
has said so.

`poll` and `epoll` make objects of classes that cannot be changed. They are replaced by classes with such an object
inside.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Iterable, Mapping
from typing import Any, Self

from goslings._goslings import Mutex, _can_park, closing_fd
from goslings._patch._change import Unit, call, swap
from goslings._patch._waiting import Deadline

__all__ = ["epoll", "poll", "select_parked", "unit", "wait_for_any"]

_select = select.select
_poll = select.poll
_epoll = select.epoll

_SECONDS_MAX = 9e9
_MILLISECONDS_MAX = 2.0**31 - 1
"""What C takes; it says so if it is more."""


def wait_for_any(masks: Mapping[int, int], deadline: Deadline) -> bool:
    """Waits until one of the descriptors has one of its events (EPOLLIN …), or an error; False at the deadline."""
    if len(masks) == 1:
        ((fd, mask),) = masks.items()
        if mask in (select.EPOLLIN, select.EPOLLOUT):
            return deadline.ready(fd, mask == select.EPOLLOUT)
    with _epoll() as together:
        for fd, mask in masks.items():
            try:
                together.register(fd, mask)
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EBADF):  # a plain file; closed. Ask again
                    return True
                raise
        try:
            return deadline.ready(together.fileno(), False)
        finally:
            closing_fd(together.fileno())


def _descriptor(file: Any) -> int:
    return file if isinstance(file, int) else file.fileno()


def _seconds(timeout: Any) -> bool:
    """Whether this is a timeout that we know to wait for; else C says what is wrong with it."""
    return timeout is None or (isinstance(timeout, int | float) and 0 < timeout < _SECONDS_MAX)


def select_parked(rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None, /) -> Any:
    if not _seconds(timeout):
        return _select(rlist, wlist, xlist, timeout)
    rlist, wlist, xlist = _list(rlist), _list(wlist), _list(xlist)
    deadline = Deadline(timeout)
    while True:
        ready = _select(rlist, wlist, xlist, 0)
        if any(ready):
            return ready
        masks: dict[int, int] = {}
        for files, event in (rlist, select.EPOLLIN), (wlist, select.EPOLLOUT), (xlist, select.EPOLLPRI):
            for file in files:
                fd = _descriptor(file)
                masks[fd] = masks.get(fd, 0) | event
        if not wait_for_any(masks, deadline):
            return _select(rlist, wlist, xlist, 0)


def _list(files: Any) -> Any:
    """What can be looked through several times; but not a copy of a list, which a `fileno` may change."""
    return list(files) if isinstance(files, Iterable) and not isinstance(files, list | tuple) else files


class _Poll:
    """As what `select.poll` makes."""

    __slots__ = ("__weakref__", "_busy", "_masks", "_poll")

    _poll: Any
    _masks: dict[int, int]
    _busy: Mutex

    def __new__(cls) -> Self:
        raise TypeError("cannot create 'select.poll' instances")

    def register(self, fd: Any, eventmask: int = select.POLLIN | select.POLLPRI | select.POLLOUT, /) -> None:
        """Adds a descriptor, or changes what is waited for."""
        self._poll.register(fd, eventmask)
        self._masks[_descriptor(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int, /) -> None:
        """Changes what is waited for."""
        self._poll.modify(fd, eventmask)
        self._masks[_descriptor(fd)] = eventmask

    def unregister(self, fd: Any, /) -> None:
        """Removes a descriptor."""
        self._poll.unregister(fd)
        self._masks.pop(_descriptor(fd), None)

    def poll(self, timeout: float | None = None, /) -> Any:
        """Waits, at most `timeout` milliseconds, if it is neither None nor negative; returns (descriptor, events)."""
        milliseconds = timeout is None or (isinstance(timeout, int | float) and timeout < _MILLISECONDS_MAX)
        if timeout == 0 or not milliseconds or not _can_park():
            return self._poll.poll(timeout)
        if not self._busy.try_lock():
            raise RuntimeError("concurrent poll() invocation")
        try:
            return self._park(Deadline(None if timeout is None or timeout < 0 else timeout / 1000))
        finally:
            self._busy.unlock()

    def _park(self, deadline: Deadline) -> Any:
        while True:
            ready = self._poll.poll(0)
            # Bits that poll alone knows, such as that of a bad descriptor, it has just reported.
            masks = {fd: mask & ~select.POLLNVAL for fd, mask in self._masks.copy().items()}
            if ready or not wait_for_any(masks, deadline):
                return ready or self._poll.poll(0)


_Poll.__name__ = _Poll.__qualname__ = "poll"
_Poll.__module__ = "select"


class _MakePoll:
    """`select.poll`, which is no class and does not become a method where it is kept in one."""

    __name__ = "poll"

    def __call__(self) -> _Poll:
        """Returns a new poll object."""
        made = object.__new__(_Poll)
        made._poll, made._masks, made._busy = _poll(), {}, Mutex()
        return made


poll = _MakePoll()


class epoll:
    """As `select.epoll`."""

    __slots__ = ("__weakref__", "_epoll")

    def __init__(self, *args: int, **kwargs: int) -> None:
        self._epoll = _epoll(*args, **kwargs)

    @classmethod
    def fromfd(cls, fd: int, /) -> Self:
        """Makes an object of a descriptor."""
        made = cls.__new__(cls)
        made._epoll = _epoll.fromfd(fd)
        return made

    def close(self) -> None:
        """Closes the descriptor; who waits for it gets an OSError."""
        if not self._epoll.closed:
            closing_fd(self._epoll.fileno())
        self._epoll.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._epoll.closed

    def fileno(self) -> int:
        """The descriptor."""
        return self._epoll.fileno()

    def register(self, *args: Any, **kwargs: Any) -> None:
        """Adds a descriptor."""
        self._epoll.register(*args, **kwargs)

    def modify(self, *args: Any, **kwargs: Any) -> None:
        """Changes what is waited for."""
        self._epoll.modify(*args, **kwargs)

    def unregister(self, *args: Any, **kwargs: Any) -> None:
        """Removes a descriptor."""
        self._epoll.unregister(*args, **kwargs)

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """Waits, at most `timeout` seconds, if it is neither None nor negative; returns (descriptor, events)."""
        seconds = timeout is None or (isinstance(timeout, int | float) and timeout < _SECONDS_MAX)
        if timeout == 0 or not seconds or not _can_park():
            return self._epoll.poll(timeout, maxevents)
        deadline = Deadline(None if timeout is None or timeout < 0 else timeout)
        while True:
            ready = self._epoll.poll(0, maxevents)
            if ready or not deadline.ready(self._epoll.fileno(), False):
                return ready or self._epoll.poll(0, maxevents)

    def __enter__(self) -> Self:
        self._epoll.__enter__()
        return self

    def __exit__(self, *_args: object) -> None:
        self.close()


def unit() -> Unit:
    return Unit(
        "select",
        [call(select, "select", select_parked), swap(select, "poll", poll), swap(select, "epoll", epoll)],
    )
