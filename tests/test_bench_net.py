"""The benchmark of servers runs, and says what it found."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench" / "net"

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="the load is compiled with cc, which is not there")


def bench(*args: str) -> str:
    done = subprocess.run([sys.executable, str(BENCH), *args], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_servers_are_measured_beside_each_other() -> None:
    out = bench(
        *("echo", "--connections", "20", "--seconds", "0.2", "--rounds", "1"),
        *("--only", "goslings.net", "asyncio", "patched"),
    )
    for name in ("goslings.net", "patched sockets", "asyncio streams", "asyncio protocols", "goslings.net, 2 workers"):
        assert re.search(rf"^{name} +[1-9]\d* ", out, re.MULTILINE), out
    assert re.search(r"^two workers have \d+% of the rate of two processes", out, re.MULTILINE)


def test_idle_connections_are_measured() -> None:
    out = bench("idle", "--idle", "300", "--only", "goslings.net")
    assert re.search(r"^goslings.net +-?\d+ bytes each", out, re.MULTILINE), out
