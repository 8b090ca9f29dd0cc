"""A part of CPython's own tests under `goslings.patch`: what docs/patch-suites.md says to pass does.

The whole of it is `make suites`. A case that fails here counts if it fails again, twice, on its own, and passes
unpatched.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def tool() -> Any:
    """tools/suites.py. Its folder must not come into sys.path: it has a `test` of its own."""
    spec = importlib.util.spec_from_file_location("suites", ROOT / "tools" / "suites.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


suites = tool()
# Asked elsewhere: in this process `test` may be something else.
HAS_TESTS = subprocess.run([sys.executable, "-c", "import test.support"], stderr=subprocess.DEVNULL).returncode == 0
SECONDS = 60.0

QUICK = {
    "test_queue": ["QueueTest", "LifoQueueTest", "PriorityQueueTest", "SimpleQueueTest"],
    "test_thread": ["BarrierTest", "LockTests", "ThreadRunningTests"],
    "test_threading": ["LockTests", "PyRLockTests", "CRLockTests", "EventTests", "ConditionTests", "SemaphoreTests"],
    "test_threading_local": ["ThreadLocalTest"],
}
"""Classes of cases that take a few seconds in all, and do not measure times."""


@pytest.mark.skipif(not HAS_TESTS, reason="this interpreter has come without its `test` package")
@pytest.mark.parametrize("suite", sorted(QUICK))
def test_what_is_said_to_pass_passes(suite: str) -> None:
    module, known = f"test.{suite}", suites.reasons()
    cases = [
        name
        for name in suites.cases_of(sys.executable, module)
        if any(part in name.split(".")[0] for part in QUICK[suite]) and suites.reason_for(known, suite, name) is None
    ]
    assert cases, "the suite has changed"
    results = suites.run(sys.executable, module, cases, True, SECONDS)
    suspects = [name for name, (outcome, _) in results.items() if outcome not in ("pass", "skip")]
    failed = {
        name: results[name]
        for name in suspects
        if not suites.passes_alone(sys.executable, module, name, True, SECONDS)
        and suites.passes_alone(sys.executable, module, name, False, SECONDS)
    }
    assert not failed, "\n".join(f"{name}: {outcome}\n{detail}" for name, (outcome, detail) in failed.items())
    assert sum(outcome == "pass" for outcome, _ in results.values()) > len(cases) // 2


def test_the_table_is_up_to_date_and_every_difference_has_a_reason() -> None:
    text, problems = suites.page()
    assert not problems, "\n".join(problems)
    assert suites.PAGE.read_text() == text, "make suites ARGS=--page"
