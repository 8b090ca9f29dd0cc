#!/usr/bin/env python3
"""Check that every atomic operation says why its memory ordering is right.

Looks at crates/*/src/**/*.rs outside test code. Each load, store, swap, compare_exchange, fetch_*
and fence that is given an ordering needs a comment `// Ordering: ...` on its own line or within
the 14 lines above it, in the same function; one comment may serve several operations. Prints
file:line of each that has none, and exits with 1 if there are any.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

REACH = 14
OPERATION = re.compile(r"(\.(load|store|swap|compare_exchange(_weak)?|fetch_\w+)|\b(compiler_)?fence)\s*\(")
ORDERING = re.compile(r"\b(Relaxed|Acquire|Release|AcqRel|SeqCst)\b")
FUNCTION = re.compile(r"^\s*(pub(\([^)]*\))?\s+)?((const|async|unsafe|extern(\s+\"[^\"]*\")?)\s+)*fn\s")
TEST_MODULE = re.compile(r"#\[cfg\((all\()?\s*test\b")


def without_comment(line: str) -> str:
    return line.split("//", 1)[0]


def arguments(lines: list[str], row: int, column: int) -> str:
    """The text between the parenthesis at (row, column) and its partner."""
    depth, text = 0, ""
    for line in [lines[row][column:], *lines[row + 1 : row + 40]]:
        for char in without_comment(line):
            depth += (char == "(") - (char == ")")
            text += char
            if depth == 0:
                return text
    return text


def test_lines(lines: list[str]) -> set[int]:
    """Rows inside `#[cfg(test)] mod x { ... }`."""
    skip: set[int] = set()
    for row, line in enumerate(lines):
        if row in skip or not TEST_MODULE.search(line):
            continue
        depth, opened = 0, False
        for at in range(row, len(lines)):
            code = without_comment(lines[at])
            depth += code.count("{") - code.count("}")
            opened = opened or "{" in code
            skip.add(at)
            if (opened and depth <= 0) or (not opened and ";" in code):
                break
    return skip


def explained(lines: list[str], row: int) -> bool:
    for at in range(row, max(-1, row - REACH - 1), -1):
        if "// Ordering:" in lines[at]:
            return True
        if FUNCTION.match(lines[at]):
            return False
    return False


def unexplained(path: Path) -> list[int]:
    """Line numbers of the operations in a file that say nothing."""
    lines = path.read_text(encoding="utf-8").splitlines()
    skip = test_lines(lines)
    found = []
    for row, line in enumerate(lines):
        if row in skip:
            continue
        for match in OPERATION.finditer(without_comment(line)):
            if ORDERING.search(arguments(lines, row, match.end() - 1)) and not explained(lines, row):
                found.append(row + 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, help="files to check instead of all")
    root = Path(__file__).resolve().parent.parent
    files = parser.parse_args().files or [
        path.relative_to(Path.cwd()) if Path.cwd() in path.parents else path
        for path in sorted(root.glob("crates/*/src/**/*.rs"))
        if not {"tests.rs", "loom.rs", "shuttle.rs"} & {path.name}
        and "tests" not in path.relative_to(root).parts
    ]
    bad = [
        f"{path}:{line}: atomic operation without an `// Ordering:` comment"
        for path in files
        for line in unexplained(path)
    ]
    print("\n".join(bad) if bad else f"{len(files)} files: every atomic operation explains its ordering")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
