"""How the runtime meets the process: how many workers, what at exit, what around `fork`."""

from __future__ import annotations

import atexit
import math
import os
import sys

from goslings import _goslings, _imports

__all__ = ["free_threaded", "install", "setting", "switch"]


def free_threaded() -> bool:
    """Whether Python code runs in parallel now: a free-threaded build whose GIL is off."""
    return not sys._is_gil_enabled()


def setting(name: str, least: int, most: int) -> int | None:
    """A number from the environment; None if it is not set. Raises ValueError if it makes no sense."""
    text = os.environ.get(name, "")
    if not text:
        return None
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, not {text!r}")
    return int(text)


def switch(name: str) -> bool:
    """Whether something is on, which it is unless the environment says "off". Raises ValueError for another word."""
    text = os.environ.get(name, "") or "on"
    if text not in ("on", "off"):
        raise ValueError(f"{name} must be on or off, not {text!r}")
    return text == "on"


def _default_procs() -> int:
    """GOSLINGS_PROCS, else the usable CPUs on a free-threaded build and 1 on a GIL build."""
    asked = setting("GOSLINGS_PROCS", 1, 256)
    if asked is not None:
        return asked
    if not free_threaded():
        return 1
    return _within_quota(os.process_cpu_count() or 1)


def _within_quota(cpus: int) -> int:
    """No more than the container's CPU quota, rounded up (Go does the same since 1.25)."""
    quota = cpu_quota()
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def cpu_quota() -> float | None:
    """How many CPUs the container may use at a time; None if it is not limited."""
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def install() -> None:
    """Registers with the interpreter; called once, at import."""
    setting("GOSLINGS_STACK_KB", 192, 1024 * 1024)  # read by the runtime, when it needs the first stack
    _goslings._start_default(_default_procs())
    slice_ms = setting("GOSLINGS_SLICE_MS", 0, 3_600_000)
    if slice_ms is not None:
        _goslings._set_slice_ms(slice_ms)
    _goslings._set_warn_ms(setting("GOSLINGS_WARN_BLOCKING", 1, 3_600_000) or 0)
    _goslings._detect_deadlocks(switch("GOSLINGS_DEADLOCK"))
    _imports.install()
    # Registered early, so it runs late: after the functions that programs register.
    atexit.register(_goslings._stop)
    os.register_at_fork(
        before=_goslings._before_fork,
        after_in_parent=_goslings._after_fork_parent,
        after_in_child=_goslings._after_fork_child,
    )
