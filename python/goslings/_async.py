"""Which callables give coroutines."""

from __future__ import annotations

import functools
import inspect

__all__ = ["is_async"]


def is_async(function: object) -> bool:
    """Whether calling `function`, which is no plain function, gives a coroutine: a partial, an object with `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    return inspect.iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004
