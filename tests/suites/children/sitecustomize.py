"""Read by every interpreter of a suite that runs with ours, those that its tests start among them: an import of
multiprocessing, or of one of its modules, finds goslings.compat.multiprocessing.
"""

from __future__ import annotations


def exchange_multiprocessing() -> None:
    """From now on an import of multiprocessing, or of one of its modules, finds ours."""
    import importlib
    import multiprocessing
    import pkgutil
    import sys

    from goslings.compat import multiprocessing as ours

    # First the library's own modules, which keep their names: they refer to each other, and to pickles, by these. The
    # tests reach ours as attributes of the package.
    for found in pkgutil.iter_modules(multiprocessing.__path__):
        if "win32" not in found.name:
            importlib.import_module(f"multiprocessing.{found.name}")
    sys.modules["multiprocessing"] = ours


exchange_multiprocessing()
