"""Imports in goroutines: a module whose body parks is seen by nobody half done."""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from goslings import chan, go, gosched, sleep
from helpers import SECONDS, results, until


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("parks"):
            del sys.modules[name]


def test_imports_in_goroutines(modules: Path, two_workers: None) -> None:
    for i in range(20):
        (modules / f"parks_{i}.py").write_text(f"value = {i}\n")

    def work(i: int) -> int:
        return __import__(f"parks_{i % 20}").value

    assert results([go(work, i) for i in range(100)]) == [i % 20 for i in range(100)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_module_whose_body_parks_is_not_seen_half_done(modules: Path, workers: int) -> None:
    import goslings

    name = f"parks_in_body_{workers}"
    (modules / f"{name}.py").write_text(
        "import parks_gate\nfirst = 1\nparks_gate.begun.send(None)\nparks_gate.ch.recv()\nsecond = 2\n"
    )
    gate: Any = types.ModuleType("parks_gate")
    gate.ch, gate.begun = chan(), chan()
    sys.modules["parks_gate"] = gate
    before = goslings.gomaxprocs(workers)
    try:

        def work() -> int:
            module = __import__(name)
            return module.first + module.second

        first = go(work)
        gate.begun.recv()
        others = [go(work) for _ in range(5)]
        for _ in range(20):
            gosched()
        sleep(0.02)
        assert not any(g.done() for g in others), [g.exception() for g in others if g.done()]
        gate.ch.send(None)
        assert results([first, *others]) == [3] * 6
    finally:
        goslings.gomaxprocs(before)
        gate.ch.close()


def test_other_imports_go_on_while_a_module_body_is_parked(modules: Path, one_worker: None) -> None:
    (modules / "parks_long.py").write_text("import parks_gate\nparks_gate.ch.recv()\n")
    (modules / "parks_short.py").write_text("value = 1\n")
    gate: Any = types.ModuleType("parks_gate")
    gate.ch = chan()
    sys.modules["parks_gate"] = gate
    first = go(__import__, "parks_long")
    until(lambda: "chan receive" in repr(first))
    assert go(lambda: __import__("parks_short").value).result(SECONDS) == 1
    assert __import__("parks_short").value == 1
    gate.ch.send(None)
    first.result(SECONDS)


def test_a_module_whose_body_parks_and_fails_is_tried_again(modules: Path) -> None:
    (modules / "parks_fails.py").write_text(
        "import parks_gate\nparks_gate.ch.recv()\nif parks_gate.fail:\n    raise KeyError('body')\n"
    )
    gate: Any = types.ModuleType("parks_gate")
    gate.ch, gate.fail = chan(), True
    sys.modules["parks_gate"] = gate
    first = go(__import__, "parks_fails")
    until(lambda: "chan receive" in repr(first))
    # Who waits for a module that then fails is given the failed one by some versions of CPython; it does end.
    waiting = go(__import__, "parks_fails")
    gate.ch.send(None)
    assert isinstance(first.exception(SECONDS), KeyError)
    gate.fail = False
    gate.ch.close()
    assert waiting.join(SECONDS)
    waiting.exception()
    gate.ch = chan(1)
    gate.ch.send(None)
    sys.modules.pop("parks_fails", None)
    assert go(__import__, "parks_fails").result(SECONDS).__name__ == "parks_fails"


def test_modules_that_import_each_other_in_two_goroutines(modules: Path, two_workers: None) -> None:
    (modules / "parks_a.py").write_text("import goslings\ngoslings.gosched()\nimport parks_b\na = 1\n")
    (modules / "parks_b.py").write_text("import goslings\ngoslings.gosched()\nimport parks_a\nb = 2\n")
    first, second = go(__import__, "parks_a"), go(__import__, "parks_b")
    assert first.join(SECONDS) and second.join(SECONDS)
    assert (first.result().a, second.result().b) == (1, 2)


def test_a_thread_waits_for_a_module_that_a_goroutine_imports(modules: Path) -> None:
    (modules / "parks_slow.py").write_text("import parks_gate\nparks_gate.ch.recv()\nvalue = 1\n")
    gate: Any = types.ModuleType("parks_gate")
    gate.ch = chan()
    sys.modules["parks_gate"] = gate
    first = go(__import__, "parks_slow")
    until(lambda: "chan receive" in repr(first))
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(__import__("parks_slow").value))
    thread.start()
    time.sleep(0.02)
    assert not seen
    gate.ch.send(None)
    thread.join(SECONDS)
    assert seen == [1] and first.result(SECONDS).value == 1


def test_an_import_that_computes_is_not_interrupted_where_an_async_goroutine_wants_the_module(
    modules: Path, one_worker: None
) -> None:
    (modules / "parks_long.py").write_text(
        "import time\nend = time.monotonic() + 0.1\nwhile time.monotonic() < end:\n    pass\nvalue = 1\n"
    )

    def work() -> int:
        return __import__("parks_long").value

    async def awork() -> int:
        return __import__("parks_long").value

    assert results([go(work), *(go(awork) for _ in range(3)), go(work)]) == [1] * 5


def test_an_async_goroutine_does_not_wait_for_an_import_that_waits_for_its_worker(
    modules: Path, one_worker: None
) -> None:
    (modules / "parks_there.py").write_text("import parks_gate_2\nparks_gate_2.ch.recv()\nvalue = 1\n")
    gate: Any = types.ModuleType("parks_gate_2")
    gate.ch = chan()
    sys.modules["parks_gate_2"] = gate

    def work() -> int:
        return __import__("parks_there").value

    async def awork() -> int:
        return __import__("parks_there").value

    first = go(work)
    until(lambda: "chan receive" in repr(first))
    with pytest.raises(ImportError, match="parks_there is being imported by a goroutine that waits on the same worker"):
        go(awork).result(SECONDS)
    gate.ch.send(None)
    assert first.result(SECONDS) == 1
    assert go(awork).result(SECONDS) == 1
