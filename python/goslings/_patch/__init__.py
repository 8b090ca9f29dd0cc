"""`goslings.patch`: the standard library's calls that wait park the goroutine instead of the thread.

One file for each part of the standard library (a *unit*), named in `_units.py`. A unit lists its changes, and says
what it cannot change (`_change.py`). `_apply.py` carries changes out, once, and looks for what refers to the
originals elsewhere. `_report.py` says what came of it.
"""

from __future__ import annotations

from goslings._patch._apply import patch as patch
from goslings._patch._report import PatchReport as PatchReport

__all__ = ["PatchReport", "patch"]
