"""`selectors`: what the selectors of `select` do, also in selectors that were made before."""

from __future__ import annotations

import select
import selectors
from typing import Any

from goslings._goslings import _Patched
from goslings._patch._change import Change, Unit, method, swap
from goslings._patch._select import epoll, poll, select_parked, wait_for_any
from goslings._patch._waiting import Deadline

__all__ = ["unit"]

_PollLike: Any = selectors._PollLikeSelector
_Epoll: Any = selectors.EpollSelector
_poll_select = _PollLike.select
_epoll_select = _Epoll.select
_select = select.select


def _epoll_parked(self: Any, timeout: float | None = None) -> Any:
    ready = _epoll_select(self, 0)
    if ready or (timeout is not None and timeout <= 0):
        return ready
    Deadline(timeout).ready(self.fileno(), False)
    return _epoll_select(self, 0)


def _poll_parked(self: Any, timeout: float | None = None) -> Any:
    ready = _poll_select(self, 0)
    if ready or (timeout is not None and timeout <= 0):
        return ready
    masks = {}
    for fd, key in self._fd_to_key.copy().items():
        reads = select.EPOLLIN if key.events & selectors.EVENT_READ else 0
        writes = select.EPOLLOUT if key.events & selectors.EVENT_WRITE else 0
        masks[fd] = reads | writes
    wait_for_any(masks, Deadline(timeout))
    return _poll_select(self, 0)


def unit() -> Unit:
    return Unit(
        "selectors",
        [
            method(_Epoll, "select", _epoll_parked),
            method(_PollLike, "select", _poll_parked),
            swap(_Epoll, "_selector_cls", epoll),
            swap(selectors.PollSelector, "_selector_cls", poll),
            # Kept in a class, it must not become a method.
            Change(selectors.SelectSelector, "_select", _select, _Patched(_select, select_parked)),
        ],
    )
