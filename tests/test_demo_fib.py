"""The demo of short requests beside long ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from goslings.demo import fib as demo
from goslings.demo.fib_client import figures
from goslings.demo.fib_servers import SERVERS, fib


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "goslings", "demo", "fib", *argv],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip


def test_fib() -> None:
    assert [fib(n) for n in range(11)] == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55]


def test_figures() -> None:
    assert figures([0.001] * 98 + [0.5, 0.2], 2.0) == {"rate": 50.0, "p50": 0.001, "p99": 0.5, "worst": 0.5}


def test_all_servers_are_measured(tmp_path: Path) -> None:
    done = command("--seconds", "0.2", "--json", str(tmp_path / "out.json"))
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads((tmp_path / "out.json").read_text())["servers"]
    assert list(rows) == list(SERVERS)
    for name, row in rows.items():
        assert row["alone"]["rate"] > 0 and row["beside"]["rate"] > 0
        assert 0 < row["alone"]["p50"] <= row["alone"]["p99"] <= row["alone"]["worst"]
        assert any(line.startswith(f"{name} ") for line in done.stdout.splitlines())


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    case = {"rate": 100.0, "p50": 0.001, "p99": 0.01, "worst": 1.0, "long": 5.0}
    demo.plot(tmp_path / "out.svg", {name: {"alone": case, "beside": case} for name in SERVERS})
    assert "<svg" in (tmp_path / "out.svg").read_text()


@pytest.mark.parametrize(("argv", "said"), [(["--only", "forks"], "is not one of"), (["--seconds", "0"], "above 0")])
def test_wrong_options_say_what_is_right(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        demo.main(argv)
    assert stopped.value.code == 2 and said in capsys.readouterr().err
