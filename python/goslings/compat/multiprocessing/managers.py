"""Managers: the standard library's, whose processes are started by our contexts.

Their proxies keep a connection for each thread, and wait as threads do. From goroutines use them after
`goslings.patch()`, which gives each goroutine a connection of its own; or `goslings.processes.serve` and `connect`,
which were made for that.
"""

from __future__ import annotations

from multiprocessing import managers as _std
from multiprocessing.managers import AcquirerProxy as AcquirerProxy  # type: ignore[attr-defined]  # no stub
from multiprocessing.managers import BaseProxy as BaseProxy
from multiprocessing.managers import Namespace as Namespace
from multiprocessing.managers import Token as Token
from typing import Any

__all__ = ["BaseManager", "BaseProxy", "SharedMemoryManager", "SyncManager", "Token"]


def _our_context(kwargs: dict[str, Any]) -> dict[str, Any]:
    if kwargs.get("ctx") is None:
        from goslings.compat.multiprocessing.context import default_context

        kwargs["ctx"] = default_context.get_context()
    return kwargs


class BaseManager(_std.BaseManager):
    """As `multiprocessing.managers.BaseManager`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **_our_context(kwargs))


class SyncManager(_std.SyncManager):
    """As `multiprocessing.managers.SyncManager`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **_our_context(kwargs))


class SharedMemoryManager(_std.SharedMemoryManager):
    """As `multiprocessing.managers.SharedMemoryManager`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **_our_context(kwargs))


def __getattr__(name: str) -> Any:
    return getattr(_std, name)
