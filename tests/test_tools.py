"""The tools that set goslings up: what they find, refuse and say."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TAG = f"3.{sys.version_info.minor}" + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "")


def tool(name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / name), *arguments],
        env={**os.environ, "GOSLINGS_PYTHONS": "", **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )


def script(path: Path, text: str) -> Path:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def found(run: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return dict(line.split("\t") for line in run.stdout.splitlines())


def test_a_named_interpreter_is_used_and_no_other() -> None:
    run = tool("interpreters.py", "list", GOSLINGS_PYTHONS=sys.executable)
    assert list(found(run)) == [TAG]
    assert "(from GOSLINGS_PYTHONS)" in run.stderr


def test_the_tag_comes_from_the_interpreter_not_from_its_name(tmp_path: Path) -> None:
    script(tmp_path / "python3.14t", f'exec "{sys.executable}" "$@"\n')
    run = tool("interpreters.py", "list", PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert list(found(run)) == [TAG]


def test_a_dead_shim_is_passed_over_and_the_version_behind_it_found(tmp_path: Path) -> None:
    name = f"python{TAG}"
    shims, behind = tmp_path / "shims", tmp_path / "versions" / "3.99.0" / "bin"
    shims.mkdir()
    behind.mkdir(parents=True)
    script(shims / name, "echo 'pyenv: command not found' >&2; exit 127\n")
    dead = tool("interpreters.py", "list", PATH=str(shims), XDG_CACHE_HOME=str(tmp_path))
    assert found(dead) == {}
    assert "does not run (pyenv: command not found)" in dead.stderr
    script(behind / name, f'exec "{sys.executable}" "$@"\n')
    alive = tool("interpreters.py", "list", PATH=str(shims), XDG_CACHE_HOME=str(tmp_path))
    assert list(found(alive)) == [TAG]
    assert "(from pyenv)" in alive.stderr


def test_an_interpreter_that_cannot_be_used_is_an_error_that_names_it() -> None:
    run = tool("interpreters.py", "ensure", GOSLINGS_PYTHONS=f"{sys.executable}:/no/such/python")
    assert run.returncode == 1
    assert "passed over: /no/such/python: no such program" in run.stderr


def test_an_interpreter_without_headers_is_passed_over(tmp_path: Path) -> None:
    facts = (
        '{"implementation": "cpython", "version": [3, 14, 0], "release": "3.14.0", "free": false, '
        '"executable": "/x", "missing_headers": ["/x/Python.h"], "missing_modules": []}'
    )
    script(tmp_path / "python3.14", f"echo '{facts}'\n")
    run = tool("interpreters.py", "list", PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert found(run) == {}
    assert "no /x/Python.h (on Debian and Ubuntu: apt-get install python3.14-dev)" in run.stderr


def test_without_any_way_to_get_an_interpreter_the_error_says_what_to_do(tmp_path: Path) -> None:
    script(tmp_path / "uv", "echo 'no network' >&2; exit 2\n")
    run = tool("interpreters.py", "ensure", PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert run.returncode == 1
    assert "uv could not install 3.14t: no network" in run.stderr
    assert "GOSLINGS_PYTHONS=" in run.stderr


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("fn f() {\n    // Ordering: a counter.\n    x.fetch_add(1, Relaxed);\n}\n", []),
        ("fn f() {\n    x.fetch_add(1, Relaxed);\n    fence(SeqCst);\n}\n", [2, 3]),
        ("fn f() {\n    // Ordering: f's own.\n}\nfn g() {\n    x.load(Acquire);\n}\n", [5]),
        (
            "fn f() {\n    x.compare_exchange(\n        1,\n        2,\n        AcqRel,\n        Relaxed,\n    );\n}\n",
            [2],
        ),
        ("fn f() {\n    slice.swap(1, 2);\n    file.load(path);\n    // x.load(Acquire)\n}\n", []),
        (
            "#[cfg(test)]\nmod tests {\n    fn f() { x.load(Acquire); }\n}\nfn g() { x.load(Acquire); }\n",
            [5],
        ),
    ],
    ids=["explained", "silent", "the function before", "several lines", "not atomic", "tests"],
)
def test_check_ordering_finds_operations_without_a_reason(tmp_path: Path, code: str, lines: list[int]) -> None:
    path = tmp_path / "a.rs"
    path.write_text(code)
    run = tool("check_ordering.py", str(path))
    assert run.returncode == bool(lines)
    assert [int(line.split(":")[1]) for line in run.stdout.splitlines() if "without" in line] == lines


ROWS = """
[C]
title = "Channels"
[C.01]
says = "A send | waits."
python = "It parks."
[C.02]
says = "It has no colour."
absent = "Nobody knows why."
"""


def semantics(folder: Path, rows: str, tests: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "rows.toml").write_text(rows)
    (folder / "test_it.py").write_text(tests)
    paths = ["--rows", str(folder / "rows.toml"), "--tests", str(folder), "--page", str(folder / "page.md")]
    return tool("semantics.py", *paths, *arguments)


def test_the_page_of_rows_tells_what_proves_each(tmp_path: Path) -> None:
    tests = "def test_c01_it_does() -> None: ...\n\nasync def test_c01_again() -> None: ...\n"
    assert semantics(tmp_path, ROWS, tests).returncode == 0
    text = (tmp_path / "page.md").read_text()
    proofs = "[it does](../tests/test_it.py)<br>[again](../tests/test_it.py)"
    assert f"| C01 | A send \\| waits. | It parks. | {proofs} |" in text
    assert "| C02 | It has no colour. | *Not here.* Nobody knows why. |" in text
    assert "2 rows; 1 are proven by 2 tests, 1 are about" in text
    assert semantics(tmp_path, ROWS, tests, "--check").returncode == 0
    assert "out of date" in semantics(tmp_path, ROWS, tests.replace("again", "also"), "--check").stderr


@pytest.mark.parametrize(
    ("rows", "tests", "problem"),
    [
        (ROWS, "", "C01: neither a test nor a reason"),
        (ROWS, "def test_c01_c03_it(): ...", "test_it.py: no row C03"),
        (ROWS, "def test_c01_c02_it(): ...", "C02: is said to be absent, and has tests"),
        (ROWS.replace("says", "tells"), "", "C01: has says, and perhaps python or absent"),
        (ROWS.replace("C.01", "C.1"), "", "C1: a row is called by a letter and two digits"),
    ],
)
def test_rows_and_tests_that_do_not_fit_are_errors(tmp_path: Path, rows: str, tests: str, problem: str) -> None:
    done = semantics(tmp_path, rows, tests)
    assert done.returncode == 1 and problem in done.stderr and not (tmp_path / "page.md").exists()


def test_the_page_of_rows_is_up_to_date() -> None:
    done = tool("semantics.py", "--check")
    assert done.returncode == 0, done.stderr


def test_make_without_a_target_lists_the_commands() -> None:
    listed = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    for target in ("dev", "demo", "test", "model", "stress", "miri", "lint", "docs", "bench"):
        assert f"make {target} " in listed
