#!/usr/bin/env python3
"""Measure goslings beside Go, the standard library and its Python rivals.

Every measurement is a fresh process. Per workload the programs run in turn, round after round, so
that a drift of the machine hits all of them; medians, spreads and ratios are printed, targets are
judged, and losses are printed like wins.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import compare
import feeds
import gobuild
import machine
import plots
import report
from control import Control
from measure import Job, Progress, fastest, rounds_of
from programs import LIBRARIES, Interpreter, Program, find_interpreters, of_go, of_library
from results import Results
from workloads import FEEDS, FLAT, FLAT_ALIVE, FLAT_COUNTS, FLAT_PAIRS, NAMES, WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
QUICK_SCALE = 0.1

EXAMPLES = """
examples:
  python bench/run.py                                   everything, on every interpreter of .venvs
  python bench/run.py --workloads pingpong,spawn --libs goslings,Go,tonio
  python bench/run.py --python 3.14t=/usr/bin/python3.14t --quick
  python bench/run.py --json before.json                … then change something, and:
  python bench/run.py --json after.json --compare before.json
  python bench/run.py --report after.json --write docs/benchmarks.md      no measuring, only the page

workloads: """ + " ".join(NAMES)  # fmt: skip


def names(known: list[str]) -> Any:
    """An argument type: names from a list, separated by commas."""

    def parse(text: str) -> list[str]:
        chosen = [x for x in text.split(",") if x]
        for x in chosen:
            if x not in known:
                raise argparse.ArgumentTypeError(f"{x!r} is not one of: {', '.join(known)}")
        return chosen

    return parse


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--workloads", type=names(list(NAMES)), default=list(NAMES), help="only these, comma-separated")
    add(
        "--libs",
        type=names(["Go", *LIBRARIES]),
        default=["Go", *LIBRARIES],
        help="only these, comma-separated",
    )
    add("--rounds", type=int, default=5, help="undisturbed rounds of each program (5)")
    add(
        "--patience",
        type=int,
        default=3,
        help="run a program at most this many times the rounds, where it is disturbed (3)",
    )
    add("--scale", type=float, default=1.0, help="factor on the numbers of items (1.0)")
    add("--quick", action="store_true", help="3 rounds of a tenth of the items: for a look, not to publish")
    add(
        "--python",
        action="append",
        default=[],
        metavar="TAG=PATH",
        help="an interpreter, instead of those in .venvs; repeatable",
    )
    add("--go", metavar="PATH", help="the go command ($GOSLINGS_GO, else the one on PATH)")
    add(
        "--write",
        metavar="FILE",
        help="write the page there (docs/benchmarks.md after a complete run; `-`: nowhere)",
    )
    add("--json", type=Path, metavar="FILE", help="save the raw results")
    add("--compare", type=Path, metavar="FILE", help="show what changed since these saved results")
    add("--report", type=Path, metavar="FILE", help="measure nothing: report these saved results")
    args = parser.parse_args()
    if args.rounds < 1 or args.patience < 1 or args.scale <= 0:
        parser.error("--rounds, --patience and --scale must be positive")
    if args.quick:
        args.rounds, args.scale = min(args.rounds, 3), args.scale * QUICK_SCALE
    complete = args.workloads == list(NAMES) and args.libs == ["Go", *LIBRARIES] and args.scale == 1
    if args.write is None and complete and args.rounds >= 5 and not args.report:
        args.write = str(ROOT / "docs" / "benchmarks.md")
    args.write = None if args.write in (None, "-") else Path(args.write)
    if args.write and args.write.is_dir():
        parser.error(f"--write wants a file, and {args.write} is a folder")
    return args


def gather(libs: list[str], interpreters: list[Interpreter], go: str | None) -> tuple[list[Program], list[str]]:
    """Every program that takes part, and why others do not."""
    programs: list[Program] = []
    missing: list[str] = []
    if "Go" in libs:
        if go is None:
            missing.append(gobuild.HOW_TO_GET_IT)
        else:
            programs += of_go(gobuild.build(go))
    for interpreter in interpreters:
        for name in libs:
            if name != "Go":
                found, why = of_library(LIBRARIES[name], interpreter)
                programs += found
                missing += [f"{interpreter.tag}, {text}" for text in why]
    return programs, missing


def group(programs: list[Program], workload: str, scale: float) -> list[Job]:
    """The jobs of one workload; of a library's configurations only the fastest."""
    jobs: dict[tuple[str, str], list[Job]] = {}
    for program in programs:
        if workload in program.workloads:
            n = WORKLOADS[workload].count(program.pace, scale)
            jobs.setdefault((program.tag, program.column), []).append(Job(program, workload, n))
    return [fastest(candidates) for candidates in jobs.values()]


def crowd(programs: list[Program], workload: str, scale: float) -> list[Job]:
    """The jobs of `flat`: one workload beside parked goroutines, and in many pairs."""
    n = max(1000, round(FLAT_COUNTS[workload] * scale))
    jobs = []
    for program in programs:
        if program.library not in ("goslings", "Go") or workload not in program.workloads:
            continue
        jobs += [Job(program, workload, n, ("--alive", str(k))) for k in FLAT_ALIVE]
        if workload != "spawn":
            jobs += [Job(program, workload, max(n, 100 * k), ("--pairs", str(k))) for k in FLAT_PAIRS if k <= n]
    return jobs


def measure(args: argparse.Namespace) -> Results:
    interpreters = find_interpreters(args.python, ROOT)
    if not interpreters:
        raise SystemExit("no interpreter: run `make dev` first, or name one with --python TAG=PATH")
    go = gobuild.find(args.go) if "Go" in args.libs else None
    programs, missing = gather(args.libs, interpreters, go)
    for text in missing:
        print(f"missing: {text}", file=sys.stderr)
    if not programs:
        raise SystemExit("nothing to measure: none of the libraries is installed")
    facts = machine.facts(ROOT, interpreters)
    done: list[dict[str, Any]] = []
    groups = [(w, False) for w in args.workloads if w in WORKLOADS]
    groups += [(w, True) for w in FLAT if "flat" in args.workloads]
    guess = sum(w in p.workloads for p in programs for w, _ in groups)
    progress = Progress(guess * args.rounds)
    finished: list[tuple[Job, int]] = []
    with Control() as control:
        for workload, beside in groups:
            progress.say(f"flat {workload}" if beside else workload)
            jobs = (crowd if beside else group)(programs, workload, args.scale)
            rounds_of(jobs, args.rounds, args.patience, control, progress.step, progress.note)
            finished += [(job, args.rounds) for job in jobs]
        done = [job.result(control.best, rounds) for job, rounds in finished]
    demo = {}
    if FEEDS in args.workloads and "goslings" in args.libs:
        progress.say(FEEDS)
        demo = {i.tag: feeds.run(i, args.rounds, args.scale) for i in interpreters}
    progress.close()
    return Results(
        {
            "machine": {k: v for k, v in facts.items() if k != "interpreters"},
            "interpreters": facts["interpreters"],
            "go": next((p.version for p in programs if p.library == "Go"), None),
            "command": shlex.join(["python", "bench/run.py", *_public(sys.argv[1:])]),
            "rounds": args.rounds,
            "scale": args.scale,
            "quick": args.quick,
            "missing": missing,
            "results": done,
            "feeds": demo,
        }
    )


def _public(argv: list[str]) -> list[str]:
    """The command line without where things are on this machine."""
    shown = []
    for i, arg in enumerate(argv):
        if i and argv[i - 1] == "--python":
            arg = arg.partition("=")[0] + "=…"
        elif i and argv[i - 1] in ("--go", "--json", "--compare", "--report"):
            arg = "…"
        elif arg.startswith(("--python=", "--go=", "--json=", "--compare=", "--report=")):
            arg = arg.partition("=")[0] + "=…"
        shown.append(arg)
    return shown


def main() -> None:
    args = arguments()
    old = Results.load(args.compare) if args.compare else None
    results = Results.load(args.report) if args.report else measure(args)
    if args.json:
        results.save(args.json)
    pictures: list[str] = []
    if args.write:
        args.write.parent.mkdir(parents=True, exist_ok=True)
        pictures = plots.plot(results, args.write)
    page = report.markdown(results, pictures)
    if args.write:
        args.write.write_text(page)
        print(f"written: {args.write}", file=sys.stderr)
    print(page)
    if old is not None:
        print(compare.compare(old, results))


if __name__ == "__main__":
    main()
