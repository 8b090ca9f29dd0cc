"""The benchmarks run, check what they measure, and say what they found in the shape that others read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "bench" / "run.py"
TAG = f"{sys.version_info[0]}.{sys.version_info[1]}{'t' if 't' in sys.abiflags else ''}"


def bench(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """run.py with this interpreter, without Go and without waiting for a calm machine."""
    return subprocess.run(
        [sys.executable, str(RUN), "--python", f"{TAG}={sys.executable}", "--patience", "1", *args],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, **(env or {})},
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    """One tiny run: its raw results, its page, and the folder with both."""
    folder = tmp_path_factory.mktemp("bench")
    done = bench(
        *("--libs", "goslings,goslings async,threads,asyncio", "--workloads", "spawn,pingpong,buffered,mutex,select2"),
        *("--quick", "--rounds", "1", "--scale", "0.01"),
        *("--json", str(folder / "raw.json"), "--write", str(folder / "page.md")),
    )
    assert done.returncode == 0, done.stderr
    page = (folder / "page.md").read_text()
    assert page in done.stdout
    return json.loads((folder / "raw.json").read_text()), page, folder


def test_each_library_is_measured_and_loses_nothing(measured: tuple[dict[str, Any], str, Path]) -> None:
    data, _, _ = measured
    seen = {(r["library"], r["workload"]) for r in data["results"]}
    for library in ("goslings", "goslings async", "threads", "asyncio"):
        for workload in ("spawn", "pingpong", "buffered", "mutex"):
            assert (library, workload) in seen
    for result in data["results"]:
        assert not result["error"], result
        for line in result["values"]:
            assert line["lost"] == 0, result
            assert line["ns_per_item"] > 0


def test_goslings_is_measured_on_one_worker_and_on_two(measured: tuple[dict[str, Any], str, Path]) -> None:
    data, _, _ = measured
    for library in ("goslings", "goslings async"):
        procs = {r["config"]: {v["procs"] for v in r["values"]} for r in data["results"] if r["library"] == library}
        assert procs == {"P=1": {1}, "P=2": {2}}


def test_every_workload_of_async_goroutines_loses_nothing() -> None:
    program = ROOT / "bench" / "impl" / "on_goslings_async.py"

    def say(*args: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(program), *args], capture_output=True, text=True, timeout=60, check=True
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    for workload in say("--probe")["workloads"]:
        answer = say(workload, "2" if workload == "cpu" else "80")
        assert answer["lost"] == 0 and answer["ns_per_item"] > 0, answer


def test_the_page_has_ratios_targets_losses_and_where_it_was_made(
    measured: tuple[dict[str, Any], str, Path],
) -> None:
    _, page, _ = measured
    for part in (
        "## Targets",
        f"## {TAG}: time per item",
        f"### {TAG}: times faster than the best Python rival",
        "## Where we lose",
        "commit ",
        "`python bench/run.py",
        "too few items to publish",
    ):
        assert part in page
    assert sys.executable not in page


def test_a_saved_run_is_reported_again_and_compared(measured: tuple[dict[str, Any], str, Path]) -> None:
    _, page, folder = measured
    raw = str(folder / "raw.json")
    done = bench("--report", raw, "--compare", raw)
    assert done.returncode == 0, done.stderr
    without_plots = re.sub(r"!\[.*\]\(.*\)\n\n", "", page)  # which are drawn beside a page that is written to a file
    assert without_plots in done.stdout
    assert "goslings P=1 pingpong" in done.stdout
    assert "+0.0%" in done.stdout


def test_without_go_it_says_how_to_get_it(tmp_path: Path) -> None:
    done = bench(
        *("--libs", "Go,threads", "--workloads", "mutex", "--quick", "--rounds", "1", "--scale", "0.01"),
        env={"PATH": str(tmp_path), "GOSLINGS_GO": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "Go was not found" in done.stderr
    assert "golang-go" in done.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--workloads", "pingpong,nonsense"], "'nonsense' is not one of"),
        (["--libs", "nonsense"], "'nonsense' is not one of"),
        (["--rounds", "0"], "must be positive"),
        (["--python", "3.14t"], "wants TAG=PATH"),
        (["--go", "/nowhere/go"], "is not a go command"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(args: list[str], words: str) -> None:
    done = bench("--libs", "Go", *args) if "--libs" not in args else bench(*args)
    assert done.returncode != 0
    assert words in done.stderr


def test_a_program_that_loses_values_is_marked_and_not_ranked() -> None:
    """From results as they would be saved: a library that is fast because it drops what it is given."""
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import report
        from results import Results
    finally:
        sys.path.remove(str(ROOT / "bench"))

    def row(library: str, config: str, ns: float, lost: int) -> dict[str, Any]:
        column = f"{library} {config}".strip()
        line = {"workload": "select2", "n": 100, "ns_per_item": ns, "lost": lost}
        return {
            "workload": "select2",
            "library": library,
            "config": config,
            "column": column,
            "tag": "3.14t",
            "gil": False,
            "version": "1",
            "n": 100,
            "args": [],
            "error": "",
            "noisy": False,
            "dropped": 0,
            "values": [line] * 5,
        }

    data = {
        "machine": {"cpu": "c", "cores": 2, "memory_gib": 1, "kernel": "k", "commit": "0", "date": "d"},
        "interpreters": {"3.14t": "CPython"},
        "go": None,
        "command": "x",
        "rounds": 5,
        "quick": False,
        "missing": [],
        "feeds": {},
        "results": [
            row("goslings", "P=1", 500, 0),
            row("leaky", "", 10, 9),
            row("slow", "", 5000, 0),
        ],
    }
    results = Results(data)
    assert results.rivals("select2", "3.14t") == {"slow": 5000}
    page = report.markdown(results)
    assert "LOSES 9" in page
    assert "10.0× met" in page
