#!/usr/bin/env python3
"""Run CPython's own test suites, plain and under `goslings.patch()` inside a goroutine, and write docs/patch-suites.md.

Each case runs in both ways, in child processes with a time limit: a hang or a crash is the result of one case, and
the next goes on in a new process. What passes plain and not patched is run again on its own, twice, before it counts.
The results are kept in tests/suites/results/, a file for each suite and interpreter; each difference needs a reason in
tests/suites/reasons.toml. `--page` writes the page from the results, `--check` says whether it is up to date.
Needs Python 3.11 or later.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tomllib

ROOT = Path(__file__).resolve().parent.parent
SUITES = ROOT / "tests" / "suites"
RESULTS = SUITES / "results"
REASONS = SUITES / "reasons.toml"
PAGE = ROOT / "docs" / "patch-suites.md"
CHILD = SUITES / "child.py"
TAGS = ("3.14t", "3.14", "3.13t", "3.13")

LAYER: bool | str = True
"""What "patched" means: true is `goslings.patch()`; see tests/suites/child.py."""

ENVIRONMENT: dict[str, str] = {}
"""What a child gets besides, and all that it starts, if it is "patched"."""

CASE_SECONDS = 90.0
"""A case that takes longer hangs."""

INTRODUCTION = """\
# CPython's own tests under goslings.patch()

Written by `make suites` from what it found, and `tests/suites/reasons.toml`; do not edit.

Each case of these suites of the interpreter's `test` package ran twice: as it is, and in a goroutine after
`goslings.patch()`. What a case starts in a process of its own is not patched there. *Cases* are those that pass
unpatched; what is skipped or fails there is not counted. Below the table is each case that passes unpatched and not
patched, and why.
"""

Result = tuple[str, str]
"""Outcome ("pass", "skip", "fail", "error", "hang", "crash") and detail."""


class Child:
    """A process that runs cases."""

    def __init__(self, python: str, module: str, cases: list[str] | None, patched: bool) -> None:
        mine, theirs = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        self._folder = tempfile.TemporaryDirectory(prefix="suites-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [python, "-X", "faulthandler", str(CHILD), str(theirs)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs],
            cwd=self._folder.name,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(ENVIRONMENT if patched else {})},
            start_new_session=True,
        )
        os.close(theirs)
        self._pipe, self._rest = mine, b""
        asked = {"module": module, "cases": cases, "patched": LAYER if patched else False}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asked).encode())
            self._process.stdin.close()
        except BrokenPipeError:
            pass

    def lines(self, seconds: float) -> Iterator[Any]:
        """What it says. TimeoutError if it says nothing for so long; ends with the process."""
        while True:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                yield json.loads(line)
            if not select.select([self._pipe], [], [], seconds)[0]:
                raise TimeoutError
            chunk = os.read(self._pipe, 65536)
            if not chunk:
                return
            self._rest += chunk

    def said(self) -> str:
        """The end of what it printed."""
        self._log.seek(max(0, os.fstat(self._log.fileno()).st_size - 3000))
        return self._log.read().decode(errors="replace")

    def abort(self) -> None:
        """Has it print its stacks and end."""
        self._process.send_signal(signal.SIGABRT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            pass

    def close(self) -> int:
        """Ends it and all that it has started; returns its status."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        status = self._process.wait()
        os.close(self._pipe)
        self._log.close()
        self._folder.cleanup()
        return status


def cases_of(python: str, module: str) -> list[str]:
    """The names of the cases of a suite; empty if the interpreter does not have it."""
    child = Child(python, module, None, False)
    try:
        for what in child.lines(60):
            names: list[str] = what[1]
            return names
        print(child.said(), file=sys.stderr)
        return []
    finally:
        child.close()


def run(python: str, module: str, cases: Iterable[str], patched: bool, seconds: float) -> dict[str, Result]:
    """Runs the cases; a child that hangs or dies is replaced, and the next case is its first."""
    left, results = list(cases), {}
    while left:
        child, current = Child(python, module, left, patched), left[0]
        outcome = ""
        try:
            for kind, name, *end in child.lines(seconds):
                current = name
                if kind == "end":
                    results[name] = (end[0], end[1])
            outcome = "crash"
        except TimeoutError:
            outcome = "hang"
            child.abort()
        finally:
            said = child.said()
            status = child.close()
        if current not in results:
            results[current] = (outcome, f"status {status}\n{said}")
        left = [name for name in left if name not in results]
    return results


def passes_alone(python: str, module: str, case: str, patched: bool, seconds: float) -> bool:
    """Whether it passes in at least one of two processes of its own."""
    return any(run(python, module, [case], patched, seconds)[case][0] == "pass" for _ in range(2))


def compare(python: str, suite: str, cases: list[str], seconds: float) -> dict[str, Any]:
    """Runs cases both ways; what came of it."""
    module = f"test.{suite}"
    started = time.monotonic()
    plain = run(python, module, cases, False, seconds)
    passed = [name for name in cases if plain[name][0] == "pass"]
    patched = run(python, module, passed, True, seconds)
    different = {}
    for name in passed:
        outcome, detail = patched[name]
        if outcome == "pass" or passes_alone(python, module, name, True, seconds):
            continue
        if passes_alone(python, module, name, False, seconds):
            different[name] = {"outcome": outcome, "detail": detail}
    counts = {kind: sum(plain[name][0] == kind for name in cases) for kind in ("pass", "skip")}
    return {
        "cases": len(cases),
        "skipped": counts["skip"],
        "failed_plain": sorted(name for name in cases if plain[name][0] not in ("pass", "skip")),
        "passed_plain": counts["pass"],
        "passed_patched": counts["pass"] - len(different),
        "different": different,
        "seconds": round(time.monotonic() - started, 1),
    }


def again(python: str, suite: str, stored: Path, seconds: float) -> None:
    """Runs the cases of a stored result that differed; those that pass now do not differ any more."""
    kept = json.loads(stored.read_text())
    found = compare(python, suite, sorted(kept["different"]), seconds)
    kept["different"] = {name: what["outcome"] for name, what in sorted(found["different"].items())}
    kept["passed_patched"] = kept["passed_plain"] - len(kept["different"])
    stored.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"{stored.stem}: {kept['passed_patched']} of {kept['passed_plain']} pass patched now", flush=True)


def reasons() -> dict[str, dict[str, str]]:
    """For each suite the reason of each difference; names may be patterns."""
    with open(REASONS, "rb") as file:
        found: dict[str, dict[str, str]] = tomllib.load(file)["reasons"]
    return found


def reason_for(known: dict[str, dict[str, str]], suite: str, case: str) -> str | None:
    for pattern, reason in known.get(suite, {}).items():
        if fnmatch.fnmatchcase(case, pattern):
            return reason
    return None


def version_of(python: str, tag: str) -> str:
    """What the page calls an interpreter."""
    ask = "import sys; print(sys.version.split()[0], end='')"
    version = subprocess.run([python, "-c", ask], stdout=subprocess.PIPE, text=True).stdout
    return f"{version}{' free-threaded' if tag.endswith('t') else ''}"


def store(suite: str, tag: str, version: str, found: dict[str, Any]) -> None:
    """Keeps what is true of any run: neither times nor what was printed."""
    kept = {key: value for key, value in found.items() if key != "seconds"}
    kept["different"] = {name: what["outcome"] for name, what in sorted(found["different"].items())}
    kept = {"suite": suite, "python": version, **kept}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{suite}-{tag}.json").write_text(json.dumps(kept, indent=1) + "\n")


def page() -> tuple[str, list[str]]:
    """The page, and what is wrong with it: differences without a reason, too few passes."""
    known, problems = reasons(), []
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    suites = sorted({what["suite"] for what in found.values()})
    versions = {tag: what["python"] for tag in TAGS for key, what in found.items() if key.endswith(f"-{tag}")}
    lines = [INTRODUCTION, "| suite | interpreter | cases | pass patched | |", "|---|---|---|---|---|"]
    for suite in suites:
        for tag in TAGS:
            what = found.get(f"{suite}-{tag}")
            if what is None:
                if tag in versions:
                    lines.append(f"| {suite} | {tag} | | | not run |")
                continue
            share = what["passed_patched"] / what["passed_plain"] if what["passed_plain"] else 1.0
            row = f"{what['passed_plain']} | {what['passed_patched']} | {100 * share:.1f} %"
            lines.append(f"| {suite} | {what['python']} | {row} |")
    for tag, version in versions.items():
        those = [what for key, what in found.items() if key.endswith(f"-{tag}")]
        cases, passed = (sum(what[key] for what in those) for key in ("passed_plain", "passed_patched"))
        share = passed / cases
        lines.append(f"| all of them | {version} | {cases} | {passed} | {100 * share:.1f} % |")
        if share < 0.95:
            problems.append(f"{tag}: only {100 * share:.1f} % pass")
    lines += ["", *(f"{tag} has no `test` package here: not run." for tag in TAGS if tag not in versions)]
    for suite in suites:
        differences: dict[str, list[str]] = {}
        for tag in TAGS:
            for name, outcome in found.get(f"{suite}-{tag}", {}).get("different", {}).items():
                differences.setdefault(name, []).append(f"{tag}: {outcome}")
        lines += ["", f"## {suite}", ""]
        lines += ["Every case that passes unpatched passes patched."] if not differences else []
        by_reason: dict[str, list[str]] = {}
        for name, where in sorted(differences.items()):
            reason = reason_for(known, suite, name)
            if reason is None:
                problems.append(f"{suite}: no reason for {name} ({', '.join(where)})")
            by_reason.setdefault(reason or "?", []).append(f"  * `{name}` ({', '.join(where)})")
        for reason, names in by_reason.items():
            lines += [f"* {reason}", *names]
    return "\n".join(lines).rstrip() + "\n", problems


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", help="as test_queue; default: those in reasons.toml")
    parser.add_argument("--only", default=",".join(TAGS), help="interpreters: 3.14t,3.13")
    parser.add_argument("-k", dest="pattern", help="only cases that contain this; nothing is stored then")
    parser.add_argument("--again", action="store_true", help="only the cases that differed the last time")
    parser.add_argument("--seconds", type=float, default=CASE_SECONDS, help="limit of one case")
    parser.add_argument("--verbose", "-v", action="store_true", help="show why each difference")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    options = parser.parse_args()
    if not (options.page or options.check):
        with open(REASONS, "rb") as file:
            suites = options.suites or tomllib.load(file)["suites"]
        for tag in options.only.split(","):
            python = ROOT / ".venvs" / tag / "bin" / "python"
            if not python.exists():
                print(f"{tag}: no environment; `make dev PYTHONS={tag}` makes one")
                continue
            for suite in suites:
                one(str(python), tag, suite, options)
        if options.pattern:
            return 0
    text, problems = page()
    if options.check:
        if not PAGE.exists() or PAGE.read_text() != text:
            problems.append(f"{PAGE.name} is not what `tools/suites.py --page` writes")
    else:
        PAGE.write_text(text)
    print("\n".join(problems) or f"{PAGE.name}: all differences have reasons")
    return 1 if problems else 0


def one(python: str, tag: str, suite: str, options: argparse.Namespace) -> None:
    """Runs one suite on one interpreter, shows and stores what came of it."""
    cases = cases_of(python, f"test.{suite}")
    stored = RESULTS / f"{suite}-{tag}.json"
    if options.again and cases and stored.exists():
        again(python, suite, stored, options.seconds)
        return
    if options.pattern:
        cases = [name for name in cases if options.pattern in name]
    if not cases:
        print(f"{suite} on {tag}: no such cases")
        return
    found = compare(python, suite, cases, options.seconds)
    print(
        f"{suite} on {tag}: {found['passed_patched']} of {found['passed_plain']} pass patched"
        f" ({found['skipped']} skipped, {len(found['failed_plain'])} fail plain), {found['seconds']} s",
        flush=True,
    )
    known = reasons()
    for name, what in found["different"].items():
        print(f"  {what['outcome']:5} {name}: {reason_for(known, suite, name) or 'NO REASON'}")
        if options.verbose:
            print("      " + what["detail"].replace("\n", "\n      "))
    if not options.pattern:
        store(suite, tag, version_of(python, tag), found)


if __name__ == "__main__":
    sys.exit(main())
