"""signal: waiting for signals happens on a thread of its own; signals for a goroutine go to its worker."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

from goslings._blocking import offload
from goslings._patch import _threading
from goslings._patch._change import Unit, call, everywhere

__all__ = ["unit"]

_pthread_kill = signal.pthread_kill
_clock = time.pthread_getcpuclockid


def _blocked(function: Callable[..., Any], signals: Any, *args: Any) -> Any:
    """Calls it on a thread that has the signals blocked, as it should be where one waits for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        return function(signals, *args)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _waiting(original: Callable[..., Any]) -> Callable[..., Any]:
    def wait(signals: Any, *args: Any) -> Any:
        return offload(_blocked, original, set(signals), *args)

    return wait


def pthread_kill(thread_id: int, signalnum: int, /) -> None:
    """As `signal.pthread_kill`. What `get_ident` says in a goroutine stands for its worker."""
    _pthread_kill(_threading.thread_of(thread_id), signalnum)


def pthread_getcpuclockid(thread_id: int, /) -> int:
    """As `time.pthread_getcpuclockid`. What `get_ident` says in a goroutine stands for its worker."""
    return _clock(_threading.thread_of(thread_id))


def unit() -> Unit:
    """What is patched of `signal`."""
    pause = signal.pause
    return Unit(
        "signal",
        [
            *(
                call(signal, name, _waiting(getattr(signal, name)))
                for name in ("sigwait", "sigwaitinfo", "sigtimedwait")
            ),
            call(signal, "pause", lambda: offload(pause)),
            everywhere(signal, "pthread_kill", pthread_kill),
            everywhere(time, "pthread_getcpuclockid", pthread_getcpuclockid),
        ],
        cannot={
            "signal.signal": "handlers are set and run by the main thread alone, as always",
            "signal.pthread_sigmask": "it is about the worker's thread, which goroutines share",
        },
    )
