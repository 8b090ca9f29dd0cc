"""Which callables give coroutines."""

from __future__ import annotations

import functools
import inspect

__all__ = ["is_async"]


def is_async(function: object) -> bool:
    """Whether calling `function` gives a coroutine. For what is no plain function: a partial, a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    return inspect.iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004
