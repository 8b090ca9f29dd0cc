"""What is known about where the numbers come from: machine, interpreters, commit, date."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from programs import Interpreter


def cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def commit(root: Path) -> str:
    """The commit, marked where the tree has changes beyond it."""
    try:
        head = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        changed = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "-uno"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + (" with changes" if changed else "")


def describe(interpreter: Interpreter) -> str:
    """`CPython 3.14.7, free-threaded`."""
    code = (
        "import sys, platform; gil = getattr(sys, '_is_gil_enabled', lambda: True)();"
        "print(platform.python_implementation(), platform.python_version()"
        " + (', GIL' if gil else ', free-threaded'))"
    )
    done = subprocess.run([interpreter.python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "does not run"


def facts(root: Path, interpreters: list[Interpreter]) -> dict[str, Any]:
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": memory_gib(),
        "kernel": f"{platform.system()} {platform.release()}",
        "commit": commit(root),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "interpreters": {i.tag: describe(i) for i in interpreters},
    }
