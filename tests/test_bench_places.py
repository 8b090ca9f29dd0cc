"""The benchmark of what it costs to talk to another process: it runs, and says what it found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench" / "places.py"


@pytest.mark.skipif(sys.platform != "linux", reason="links are made of Linux's memory files")
def test_it_measures_round_trips_rates_and_arrays(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    command = [sys.executable, str(BENCH), "--rounds", "1", "--scale", "0.01", "--json", str(file)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, env={**os.environ, "PYTHONWARNINGS": ""}
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert set(found) == {"round trip", "asleep", "idle", "rate", "array"}
    assert all(value > 0 for results in found.values() for values in results.values() for value in values)
    assert "of a futex" in done.stdout and "of Queue" in done.stdout
