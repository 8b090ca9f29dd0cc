"""Peak memory of a process and all its descendants, sampled while it runs.

What counts is the proportional set size: a page that several processes share is divided among
them. Adding up resident sizes instead would charge a pool of forked processes several times
for what they share.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

# Reading smaps_rollup walks the page tables, up to a few milliseconds per process: seldom
# enough not to slow down what is measured, often enough not to miss a plateau.
_INTERVAL = 0.2


class MemoryPeak:
    """`with MemoryPeak(pid) as memory: …`; then `memory.bytes`, or None where it cannot be told."""

    def __init__(self, pid: int) -> None:
        self.bytes: int | None = None
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            used = _tree_bytes(self._pid)
            if used:
                self.bytes = max(self.bytes or 0, used)
            if self._stop.wait(_INTERVAL):
                return


def _tree_bytes(pid: int) -> int:
    """The memory of the process and its descendants now; 0 if it is gone or cannot be read."""
    process = Path(f"/proc/{pid}")
    total = 0
    try:
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = int(line.split()[1]) * 1024
        children = [
            int(child) for task in (process / "task").iterdir() for child in (task / "children").read_text().split()
        ]
    except OSError:
        return total
    return total + sum(map(_tree_bytes, children))
