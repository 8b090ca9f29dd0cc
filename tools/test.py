#!/usr/bin/env python3
"""Run all bounded tests: the Rust crate, its models, and the Python package on each interpreter.

Ends with a table of what took part and a line `N passed, N failed, N skipped`. Nothing stops at
the first failure. Logs of the Python runs (JUnit XML) are left in target/test.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from typing import NamedTuple
from xml.etree import ElementTree

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from build_cpython import fail
from dev import ROOT, Venv, locked, prepare
from interpreters import TAGS, Interpreter, ensure, tags_argument
from servers import ensure_all as ensure_servers

# One run may take this long before it counts as hung. Far above what it needs.
RUN_SECONDS = int(os.environ.get("GOSLINGS_TEST_SECONDS", "900"))
STACKS_AFTER_SECONDS = 120  # a single test that takes longer gets its threads' stacks printed
RESULTS = ROOT / "target" / "test"
TEST_FRAME = re.compile(r'File ".*/(tests/.*\.py)", line \d+,? in (test_\w+)')
CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")


class Row(NamedTuple):
    """One line of the closing table."""

    name: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    remark: str = ""


def run(command: list[str], env: dict[str, str] | None = None, echo: bool = True) -> tuple[int, list[str]]:
    """Run with a time limit, showing the output as it comes; return the exit code and the lines.

    A run that exceeds the limit first gets SIGABRT, upon which Python prints every thread's stack.
    """
    lines: list[str] = []
    process = subprocess.Popen(
        command,
        cwd=str(ROOT),
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None

    def out_of_time(*_: object) -> None:
        print(f"no end after {RUN_SECONDS} s: stopping it", flush=True)
        os.kill(process.pid, signal.SIGABRT)
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGKILL))
        signal.alarm(10)

    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(RUN_SECONDS)
    try:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if echo:
                print(line, end="", flush=True)
        return process.wait(), lines
    finally:
        signal.alarm(0)
        if process.poll() is None:  # interrupted by the user
            os.killpg(process.pid, signal.SIGKILL)


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def cargo_row(name: str, target: str) -> Row:
    """Run a make target that ends in cargo test, and add up cargo's counts."""
    title(name)
    started = time.monotonic()
    code, lines = run(["make", "--no-print-directory", target])
    counts = [tuple(map(int, found.groups())) for found in map(CARGO_RESULT.match, lines) if found]
    passed, failed, ignored = (sum(column) for column in zip(*counts)) if counts else (0, 0, 0)
    remark = ""
    if code != 0 and failed == 0:
        failed, remark = 1, "did not build or did not finish"
    elif passed + failed == 0:
        failed, remark = 1, "ran no test"
    return Row(name, passed, failed, ignored, time.monotonic() - started, remark)


def pytest_row(venv: Venv, name: str, arguments: list[str]) -> Row:
    """Run pytest on one interpreter; the counts come from its JUnit file."""
    title(name)
    started = time.monotonic()
    RESULTS.mkdir(parents=True, exist_ok=True)
    report = RESULTS / f"{venv.tag}.xml"
    report.unlink() if report.exists() else None
    code, lines = run(
        [
            venv.python,
            "-X",
            "faulthandler",
            "-m",
            "pytest",
            "-q",
            f"--junitxml={report}",
            "-o",
            f"faulthandler_timeout={STACKS_AFTER_SECONDS}",
            "--ignore=tests/stress",
            *(arguments or ["tests"]),
        ]
    )
    passed = failed = skipped = 0
    if report.exists():
        for suite in ElementTree.parse(str(report)).getroot().iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped += int(suite.get("skipped", 0))
            failed += bad
            passed += int(suite.get("tests", 0)) - bad - int(suite.get("skipped", 0))
    remark = ""
    if code != 0 and failed == 0:
        failed, remark = (
            1,
            "ran no test" if code == 5 else f"ended with exit code {code}{where_it_stood(lines)}",
        )
    return Row(name, passed, failed, skipped, time.monotonic() - started, remark)


def where_it_stood(lines: list[str]) -> str:
    """The test in the stacks that are printed when one takes too long, or the interpreter crashes."""
    tests = [found for found in map(TEST_FRAME.search, lines) if found]
    return f", in {tests[0][1]}::{tests[0][2]}" if tests else ""


def with_mypy(interpreters: list[Interpreter]) -> Interpreter:
    """A GIL interpreter if one takes part: mypy cannot be had for every free-threaded one."""
    return min(interpreters, key=lambda found: found.free_threaded)


def prepare_tests(interpreter: Interpreter, lint: bool) -> Venv:
    """With mypy if that is wanted and can be had, since some tests check types."""
    if lint:
        with contextlib.suppress(SystemExit):  # the stubtest row tells
            return prepare(interpreter, ["test", "lint"])
    return prepare(interpreter, ["test"])


def stubtest_row(interpreters: list[Interpreter]) -> Row:
    """Compare the hand-written stubs with the module that was built."""
    interpreter = with_mypy(interpreters)
    name = f"stubtest {interpreter.tag}"
    title(name)
    started = time.monotonic()
    try:
        with locked():
            venv = prepare(interpreter, ["test", "lint"])
    except SystemExit:
        return Row(name, 0, 1, 0, time.monotonic() - started, "mypy could not be installed")
    command = [venv.python, "-m", "mypy.stubtest", "goslings._goslings"]
    allowlist = ROOT / "tests" / "stubtest-allowlist.txt"
    if allowlist.exists():
        command += ["--allowlist", str(allowlist)]
    code, _ = run(command, env=dict(os.environ, MYPYPATH=str(ROOT / "python")))
    return Row(name, int(code == 0), int(code != 0), 0, time.monotonic() - started)


def python_rows(interpreters: list[Interpreter], arguments: list[str]) -> list[Row]:
    rows, built = [], []
    if not arguments:
        title("servers for tests/test_real_*.py")
        ensure_servers()  # tests that need what is not to be had are skipped
    typed = with_mypy(interpreters)
    for interpreter in interpreters:
        name = f"pytest {interpreter.tag}"
        started = time.monotonic()
        try:
            with locked():
                venv = prepare_tests(interpreter, lint=interpreter is typed)
        except SystemExit:
            rows.append(Row(name, 0, 1, 0, time.monotonic() - started, "could not be built"))
            continue
        built.append(interpreter)
        rows.append(pytest_row(venv, name, arguments))
    if built and not arguments:
        rows.append(stubtest_row(built))
    return rows


def has_models() -> bool:
    return any("loom::model" in path.read_text(encoding="utf-8") for path in ROOT.glob("crates/*/**/*.rs"))


def summary(rows: list[Row], interpreters: list[Interpreter]) -> None:
    title("summary")
    print(f"{'':16} {'passed':>7} {'failed':>7} {'skipped':>8} {'time':>7}")
    for row in rows:
        minutes, seconds = divmod(int(row.seconds), 60)
        print(
            f"{row.name:16} {row.passed:7} {row.failed:7} {row.skipped:8} {minutes:4}:{seconds:02}  {row.remark}".rstrip()
        )
    for found in interpreters:
        kind = "free-threaded" if found.free_threaded else "GIL"
        print(f"{found.tag}: CPython {found.version}, {kind}, {found.executable} (from {found.found})")
    absent = [tag for tag in TAGS if tag not in {found.tag for found in interpreters}]
    if absent:
        print(f"did not take part: {', '.join(absent)}")
    totals = [sum(getattr(row, name) for row in rows) for name in ("passed", "failed", "skipped")]
    skipped = f", {totals[2]} skipped" if totals[2] else ""
    print(f"\n{totals[0]} passed, {totals[1]} failed{skipped}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        type=tags_argument,
        default=[],
        metavar="TAGS",
        help="e.g. 3.14t,3.13: these interpreters and no others",
    )
    parser.add_argument("--python", action="store_true", help="only the Python tests, not the Rust crate's")
    parser.add_argument(
        "args",
        nargs="*",
        metavar="ARGS",
        help="after --: arguments for pytest in place of `tests`; implies --python",
    )
    options = parser.parse_args()
    print("interpreters:", flush=True)
    interpreters = ensure(options.only)
    rows = []
    if not (options.python or options.args):
        rows.append(cargo_row("rust", "test-rust"))
        if has_models():
            rows.append(cargo_row("models", "model-quick"))
        else:
            print("models: there are none yet")
    rows += python_rows(interpreters, options.args)
    summary(rows, interpreters)
    sys.exit(any(row.failed for row in rows))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("interrupted")
