"""psycopg: its hook for waiting.

psycopg 3 waits in one function, `psycopg.waiting.wait`. Where its compiled part is installed that is one written in C,
which blocks the thread. psycopg offers others, written in Python; the environment variable PSYCOPG_WAIT_FUNC names
another one before it is imported. So that is set, if nobody has, and what is imported already is changed.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from goslings._goslings import _Patched
from goslings._patch._change import Change, Unit

__all__ = ["unit"]


def unit() -> Unit:
    waiting: Any = sys.modules.get("psycopg.waiting")
    if waiting is None:
        return Unit("psycopg", [], finish=_before_import)
    compiled = hasattr(waiting, "wait_c") and waiting.wait is waiting.wait_c
    if not compiled:
        return Unit("psycopg", [])  # it waits with `select`
    return Unit("psycopg", [Change(waiting, "wait", waiting.wait, _Patched(waiting.wait, waiting.wait_poll))])


def _before_import() -> list[str]:
    os.environ.setdefault("PSYCOPG_WAIT_FUNC", "wait_poll")
    return []
