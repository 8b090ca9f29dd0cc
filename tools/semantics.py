#!/usr/bin/env python3
"""Write docs/semantics.md: what goslings keeps of Go, row by row, and the tests that prove it.

The rows stand in tests/semantics.toml. A test that proves one is named after it, `test_c07_...`; one that
proves several, `test_c04_c05_...`. A row without a test needs a reason why there is no such thing, and a test
cannot name a row that there is not. With --check nothing is written; the exit status is 1 if the page is not
what it would be. Needs Python 3.11 or later.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TEST = re.compile(r"^(?:async )?def test_((?:[a-z]\d\d_)+)(\w+)\(", re.MULTILINE)
KEYS = {"says", "python", "absent"}

INTRODUCTION = """\
# What is kept of Go

Written by `make docs` from `tests/semantics.toml` and the names of the tests; do not edit.

Each row is a behaviour that programs with goroutines and channels rely on, as Go has it. Where it is different in
Python, the row says how. A row is true because of the tests beside it, which run on every interpreter that is
supported; tests that prove a row are named after it. Code and tests cite rows by their number.

{rows} rows; {proven} are proven by {tests} tests, {absent} are about something that there is not here.
"""


class Row(NamedTuple):
    id: str
    says: str
    python: str
    absent: str


class Test(NamedTuple):
    rows: tuple[str, ...]
    text: str
    file: str


def read_rows(path: Path) -> dict[str, list[Row]]:
    """The rows by the title of their section, in order."""
    try:
        import tomllib
    except ImportError:
        sys.exit("tools/semantics.py needs Python 3.11 or later")
    sections: dict[str, list[Row]] = {}
    for letter, section in tomllib.loads(path.read_text()).items():
        title: str = section.pop("title")
        rows: dict[str, dict[str, Any]] = section
        sections[title] = [row_of(f"{letter}{number}", keys) for number, keys in rows.items()]
    return sections


def row_of(name: str, keys: dict[str, Any]) -> Row:
    if not re.fullmatch(r"[A-Z]\d\d", name):
        sys.exit(f"{name}: a row is called by a letter and two digits")
    if "says" not in keys or keys.keys() - KEYS:
        sys.exit(f"{name}: has says, and perhaps python or absent, not {', '.join(sorted(keys))}")
    return Row(name, keys["says"], keys.get("python", ""), keys.get("absent", ""))


def read_tests(folder: Path) -> list[Test]:
    """The tests that are named after rows."""
    tests = []
    for path in sorted(folder.rglob("test_*.py")):
        for found in TEST.finditer(path.read_text()):
            rows = tuple(row.upper() for row in found[1].rstrip("_").split("_"))
            tests.append(Test(rows, found[2].replace("_", " "), path.relative_to(folder).as_posix()))
    return tests


def problems(rows: list[Row], tests: list[Test]) -> list[str]:
    proven = {row for test in tests for row in test.rows}
    known = {row.id for row in rows}
    found = [
        f"tests/{test.file}: no row {row}, for the test {test.text!r}"
        for test in tests
        for row in test.rows
        if row not in known
    ]
    for row in rows:
        if row.absent and row.id in proven:
            found.append(f"{row.id}: is said to be absent, and has tests")
        elif not row.absent and row.id not in proven:
            found.append(f"{row.id}: neither a test nor a reason: {row.says}")
    return found


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def page(sections: dict[str, list[Row]], tests: list[Test]) -> str:
    rows = [row for section in sections.values() for row in section]
    counts = {"rows": len(rows), "tests": len(tests), "absent": sum(bool(row.absent) for row in rows)}
    counts["proven"] = counts["rows"] - counts["absent"]
    lines = [INTRODUCTION.format(**counts)]
    for title, section in sections.items():
        lines += [f"## {title}", "", "| | in Go | in Python | proven by |", "|---|---|---|---|"]
        for row in section:
            proofs = [f"[{test.text}](../tests/{test.file})" for test in tests if row.id in test.rows]
            here = f"*Not here.* {row.absent}" if row.absent else row.python or "the same"
            lines.append(f"| {row.id} | {cell(row.says)} | {cell(here)} | {'<br>'.join(proofs)} |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if the page is not up to date"
    )
    parser.add_argument("--rows", type=Path, default=ROOT / "tests" / "semantics.toml")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "semantics.md")
    options = parser.parse_args()
    sections, tests = read_rows(options.rows), read_tests(options.tests)
    found = problems([row for section in sections.values() for row in section], tests)
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        return 1
    text = page(sections, tests)
    if not options.check:
        options.page.write_text(text)
    elif not options.page.exists() or options.page.read_text() != text:
        print(f"{options.page} is out of date: `make docs` writes it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
