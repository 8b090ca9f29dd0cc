"""time: `sleep` parks."""

from __future__ import annotations

import time

from goslings._goslings import _sleep_here
from goslings._patch._change import Unit, call

__all__ = ["unit"]

_sleep = time.sleep


def sleep(seconds: float, /) -> None:
    """As `time.sleep`: the same errors for the same arguments."""
    if isinstance(seconds, (int, float)) and 0 < seconds < 9e9:
        _sleep_here(seconds)
    else:
        _sleep(seconds)  # zero yields; the rest is an error, or an object that counts as a number


def unit() -> Unit:
    """What is patched of `time`."""
    return Unit("time", [call(time, "sleep", sleep)])
