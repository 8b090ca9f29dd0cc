"""What the demo prints: a line for each feed with a problem, the table, and the same as JSON."""

from __future__ import annotations

import importlib
import json
import platform
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .feed_page import FeedError
from .feed_run import Outcome, Run, usable_cpus

_MOST_LINES = 40
_QUIET_SHARE = 0.85  # of as many times faster as there are CPUs, independent processes are on an idle machine


def interpreter() -> str:
    """The interpreter and what it means for parallelism, in a line."""
    build = "free-threaded" if _free_threaded() else "with the GIL"
    version = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{version}, {build}, {usable_cpus()} CPUs"


def _free_threaded() -> bool:
    """Whether Python code runs in parallel here (the GIL may have been re-enabled)."""
    built = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    return built and not getattr(sys, "_is_gil_enabled", lambda: True)()


def feed_lines(outcomes: Sequence[Outcome]) -> str:
    """A line for each feed that failed or was read though broken, and one for all the others."""
    failed = sorted((o for o in outcomes if o.state == "failed"), key=lambda o: o.url)
    odd = sorted((o for o in outcomes if o.state != "failed" and o.note), key=lambda o: o.url)
    lines = [f"  failed  {o.url}  {o.note}" for o in failed]
    lines += [f"  broken  {o.url}  {o.found} items read; {o.note}" for o in odd]
    if len(lines) > _MOST_LINES:
        hidden = len(lines) - _MOST_LINES
        lines[_MOST_LINES:] = [f"  … and {hidden} more broken ones (all are in the --json file)"]
    unchanged = sum(o.state == "unchanged" for o in outcomes)
    lines.append(
        f"  {len(outcomes) - len(failed)} feeds read ({len(odd)} of them broken, "
        f"{unchanged} unchanged), {len(failed)} failed, "
        f"{sum(o.added for o in outcomes):,} new of {sum(o.found for o in outcomes):,} items"
    )
    return "\n".join(lines)


def table(runs: Sequence[Run], ceiling: Run | None) -> str:
    """Wall time, speed-up, share of the machine's ceiling and peak memory of each run."""
    sequential = next((run for run in runs if run.mode == "sequential"), None)
    top = ceiling.speedup(sequential) if ceiling and sequential else None
    lines = [f"{'':15} {'at once':>8} {'wall':>9} {'speed-up':>9} {'of ceiling':>11} {'peak memory':>12}"]
    for run in runs:
        speedup = run.speedup(sequential) if sequential else None
        of_ceiling = speedup / top if speedup and top else None
        lines.append(
            f"{run.mode:15} {run.width:8} {run.wall:7.2f} s {_cell(speedup, '{:.2f}x'):>9} "
            f"{_cell(of_ceiling, '{:.0%}'):>11} {_mebibytes(run.memory):>12}"
        )
    if ceiling and top:
        lines.append(
            f"ceiling: {ceiling.width} independent processes with a share each, {ceiling.wall:.2f} s, {top:.2f}x"
        )
        if top < _QUIET_SHARE * ceiling.width:
            lines.append(
                "note: the ceiling is low because other programs use the CPUs, or most of the time is waiting;\n"
                "for exact figures run it on an idle machine with --slow 0 --rounds 5"
            )
    if len(runs[0].walls) > 1:
        lines.append(f"medians of {len(runs[0].walls)} rounds, each run in a fresh process")
    if any(run.mode == "processes" for run in runs):
        lines.append("processes: goslings, with goroutines in worker processes that parse; starting these is timed")
    if not _free_threaded() and any(run.mode in ("threading", "goslings") for run in runs):
        lines.append(
            "threading, goslings: with the GIL these overlap fetching, but only one parses at a time; for\n"
            "parallel parsing use worker processes (--places processes) or a free-threaded Python such as 3.14t"
        )
    return "\n".join(lines)


def same_store(runs: Sequence[Run]) -> bool:
    return len({run.digest for run in runs}) == 1


def verdict(runs: Sequence[Run]) -> str:
    """Whether all runs have left the same rows in their stores."""
    if same_store(runs):
        return f"same store after each run: sha256 {runs[0].digest[:16]}…"
    digests = "\n".join(f"  {run.mode:15} sha256 {run.digest}" for run in runs)
    return f"THE STORES DIFFER, though all runs had the same feeds:\n{digests}"


def refreshes(first: Run, second: Run, store: Path | None) -> str:
    """What two refreshes of one store by goslings have brought."""
    unchanged = sum(o.state == "unchanged" for o in second.outcomes)
    again = sum(o.state == "read" for o in second.outcomes)
    return (
        f"refresh into {store or 'an empty store'}: {added(first):,} new items in "
        f"{first.wall:.2f} s; once more: {added(second):,} new in {second.wall:.2f} s\n"
        f"  ({unchanged} feeds answered that they had not changed, {again} were parsed again)"
    )


def added(run: Run) -> int:
    """How many items were new in the run."""
    return sum(o.added for o in run.outcomes)


def write_json(path: Path, runs: Sequence[Run], ceiling: Run | None) -> None:
    sequential = next((run for run in runs if run.mode == "sequential"), None)
    content = {
        "python": interpreter(),
        "free_threaded": _free_threaded(),
        "cpus": usable_cpus(),
        "same_store": same_store(runs),
        "ceiling": None
        if ceiling is None or sequential is None
        else {"walls": ceiling.walls, "speedup": ceiling.speedup(sequential)},
        "runs": [_run_json(run, sequential) for run in runs],
    }
    try:
        path.write_text(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise FeedError(f"cannot write {path}: {error.strerror}") from None


def _run_json(run: Run, sequential: Run | None) -> dict[str, Any]:
    return {
        "mode": run.mode,
        "width": run.width,
        "walls": run.walls,
        "cpu_seconds": run.cpus,
        "speedup": run.speedup(sequential) if sequential else None,
        "peak_memory_bytes": run.memory,
        "digest": run.digest,
        "feeds": [
            {"url": o.url, "state": o.state, "note": o.note, "found": o.found, "new": o.added}
            for o in sorted(run.outcomes, key=lambda o: o.url)
        ],
    }


def plot(path: Path, runs: Sequence[Run], ceiling: Run | None) -> None:
    """A bar for each run. Needs matplotlib."""
    pyplot = matplotlib_pyplot()
    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    bars = axes.barh([run.mode for run in runs], [run.wall for run in runs], color="#4a7")
    axes.bar_label(bars, fmt="%.2f s", padding=3)
    if ceiling:
        axes.axvline(ceiling.wall, color="#a33", linestyle="--", label="ceiling of the machine")
        axes.legend()
    axes.invert_yaxis()
    axes.set_xlabel(f"seconds to refresh {len(runs[0].outcomes)} feeds")
    axes.set_title(interpreter())
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise FeedError(f"cannot draw {path}: {error}") from None


def matplotlib_pyplot() -> Any:
    """matplotlib, set to draw into files. Raises FeedError if it is not installed."""
    try:
        importlib.import_module("matplotlib").use("agg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError:
        raise FeedError("--plot draws with matplotlib; run: pip install matplotlib") from None


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _mebibytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:,.1f} MiB"
