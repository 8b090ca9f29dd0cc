"""The benchmark of the WSGI server: it starts, and says why when it cannot."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench" / "serve.py"
WRK = """\
Running 4s test @ http://127.0.0.1:1/
  Latency Distribution
     50%  556.00us
     99%    1.50s
  125420 requests in 3.00s, 15.91MB read
  Socket errors: connect 1, read 2, write 0, timeout 4
  Non-2xx or 3xx responses: 8
Requests/sec:  41773.15
"""


def test_the_words_of_wrk_are_understood() -> None:
    spec = importlib.util.spec_from_file_location("bench_serve", BENCH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_serve"] = module
    spec.loader.exec_module(module)
    assert tuple(module.parse(WRK)) == (41773.15, 0.556, 1500.0, 15)
    with pytest.raises(SystemExit, match="something else"):
        module.parse("wrk: unknown option")


def run(**env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), "--seconds", "1", "--rounds", "1", "--connections", "4"]
    environment = {**os.environ, **env}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_without_wrk_it_says_how_to_get_it() -> None:
    done = run(PATH="/nonexistent", GOSLINGS_WRK="")
    assert done.returncode == 0 and "skipped: there is no wrk" in done.stdout


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_it_measures() -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("goslings") and line.split()[-1] == "0" for line in done.stdout.splitlines()), (
        done.stdout
    )
