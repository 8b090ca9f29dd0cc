"""What `goslings run --warn-blocking` prints: who held a worker while others waited, and where."""

from __future__ import annotations

import sys

from goslings._stacks import stacks

__all__ = ["held"]

_known: set[tuple[str, int | None]] = set()


def held(goroutine: int, seconds: float) -> None:
    """Warns on stderr, once for each place, that a goroutine has held its worker. Called by the monitor's thread."""
    one = next((one for one in stacks() if one.id == goroutine), None)
    if one is None or not one.frames or sys.stderr is None:
        return
    place = (one.frames[-1].filename, one.frames[-1].lineno)
    if place in _known:
        return
    _known.add(place)
    sys.stderr.write(
        f"goslings: {one.name} has held its worker for {seconds * 1000:.0f} ms while others waited; "
        f"a call that blocks belongs into goslings.blocking:\n{''.join(one.frames.format())}"
    )
    sys.stderr.flush()
