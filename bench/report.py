"""Writes the results as Markdown; the same text goes to the terminal and to docs/benchmarks.md."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from losses import losses
from results import Cell, Results
from targets import TARGETS
from workloads import FLAT, FLAT_ALIVE, FLAT_PAIRS, WORKLOADS

OURS = ("goslings P=1", "goslings P=2")


def number(x: float) -> str:
    """Three figures, no exponent."""
    if abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}"


def time_of(ns: float) -> str:
    """A time with its unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{number(ns / size)} {unit}"
    return f"{number(ns)} ns"


def table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def trouble(cell: Cell | None) -> str | None:
    """What to print instead of a time, if there is none to print."""
    if cell is None:
        return "–"
    if cell.data["error"] and not cell.data["values"]:
        return "fails"
    if cell.lost:
        return f"LOSES {cell.lost:,}" if cell.lost > 1 else "LOSES values"
    return None


def shown(cell: Cell | None, key: str = "ns_per_item", *, spread: bool = True) -> str:
    """The median and, below it, the least and the most."""
    if (instead := trouble(cell)) is not None or cell is None:
        return instead or "–"
    values = cell.values(key)
    if not values:
        return "–"
    form = time_of if key == "ns_per_item" else number
    text = form(statistics.median(values)) + (" ~" if cell.data["noisy"] else "")
    return text + (f"<br>{form(min(values))} – {form(max(values))}" if spread and len(values) > 1 else "")


def header(results: Results) -> list[str]:
    d, machine = results.data, results.data["machine"]
    rounds = f"{d['rounds']} round{'s' if d['rounds'] > 1 else ''}"
    if d["quick"]:
        rounds += ", quick: too few items to publish"
    dropped = f"{results.dropped} were dropped"
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; do not edit. Every number is the median of fresh processes run in turn in one",
        f"invocation ({rounds}), with the least and the most below it. A pure-CPU control ran on",
        "all cores before and after each timing; where it was more than 15 % slower than at its best the timing was",
        f"dropped and repeated: {dropped}. `~`: the machine stayed disturbed, and the least disturbed",
        "timings are shown. Times compare only within one run: read the ratios.",
        "",
        f"* {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['kernel']}",
        f"* {', '.join(f'{tag}: {text}' for tag, text in d['interpreters'].items())}",
        f"* {d['go'] or 'without Go: it was not found'}",
        f"* commit {machine['commit']}, {machine['date']}",
        f"* `{d['command']}`",
        "",
    ]
    return lines


def targets(results: Results) -> list[str]:
    lines = ["## Targets", ""]
    for tag in results.tags:
        rows = []
        for t in TARGETS:
            if t.free_threaded_only and not tag.endswith("t"):
                continue
            verdicts = []
            for procs in ("P=1", "P=2"):
                column = next((column for column in t.columns if column.endswith(procs)), None)
                value = t.measure(results, tag, column) if column is not None else None
                if value is None:
                    verdicts.append("–")
                    continue
                limit = t.limit(tag, t.target)
                word = "met" if t.met(value, limit) else "**MISSED**"
                if word != "met" and t.owed is not None and t.met(value, t.limit(tag, t.owed)):
                    word = "MISSED, but what is owed is met"
                if t.moonshot is not None and t.met(value, t.limit(tag, t.moonshot)):
                    word = "met, moonshot too"
                verdicts.append(f"{number(value)}{t.unit} {word}")
            name = f"`{t.workload}`, async" if t.columns[0].startswith("goslings async") else f"`{t.workload}`"
            if set(verdicts) == {"–"} or (rows and rows[-1][0] == name and rows[-1][-2:] == verdicts):
                continue  # nothing to say, or, with the other rivals counted too, the same
            sign = "≤" if t.lower else "≥"
            owed = f"{sign} {number(t.limit(tag, t.owed))}{t.unit}" if t.owed is not None else "–"
            aim = f"{sign} {number(t.limit(tag, t.target))}{t.unit}"
            rows.append([name, t.what, aim, owed, *verdicts])
        if rows:
            head = ["workload", "what", "target", "owed now", "one worker", "two workers"]
            lines += [f"### {tag}", "", *table(head, rows)]
    if any(not tag.endswith("t") for tag in results.tags):
        lines += ["Most targets are set for the free-threaded builds only.", ""]
    return lines if len(lines) > 4 else ["## Targets", "", "Nothing that was measured has a target.", ""]


def main_table(results: Results, tag: str) -> list[str]:
    columns = results.columns(tag)
    names = [w for w in results.workloads() if any(results.cell(w, c, tag) for c in columns)]
    if not names:
        return []
    lines = [f"## {tag}: time per item", ""]
    rows = [[f"`{w}`", *[shown(results.cell(w, c, tag)) for c in columns]] for w in names]
    lines += table(["", *columns], rows)
    if any(c.startswith("Go ") for c in columns):
        lines += [f"### {tag}: relative to Go on one processor", ""]
        rows = []
        for w in names:
            base = results.median(w, "Go P=1", tag)
            cells = []
            for c in columns:
                value = results.median(w, c, tag)
                cells.append(
                    f"{number(value / base)}×"
                    if value is not None and base
                    else trouble(results.cell(w, c, tag)) or "–"
                )
            rows.append([f"`{w}`", *cells])
        lines += table(["", *columns], rows)
    rows = []
    for w in names:
        rivals = results.rivals(w, tag)
        mine = [results.median(w, c, tag) for c in OURS]
        if rivals and any(m is not None for m in mine):
            best = min(rivals, key=lambda c: rivals[c])
            cell = results.cell(w, best, tag)
            note = " (puts the GIL back)" if tag.endswith("t") and cell and cell.data["gil"] else ""
            times = [f"{number(rivals[best] / m)}×" if m else "–" for m in mine]
            rows.append([f"`{w}`", f"{best}{note} {time_of(rivals[best])}", *times])
    if rows:
        lines += [f"### {tag}: times faster than the best Python rival", ""]
        lines += table(["", "best rival", *OURS], rows)
    return lines


def own_columns(results: Results, tag: str) -> list[str]:
    """The workloads that have more to show than a time."""
    lines = []
    columns = results.columns(tag)
    for name in results.workloads():
        w = WORKLOADS[name]
        rows = []
        for c in columns:
            cell = results.cell(name, c, tag)
            if w.columns and cell is not None and cell.data["values"]:
                parts = [shown(cell, key, spread=key == w.key) for key, _ in w.columns]
                rows.append([c, f"{cell.data['n']:,}", *parts])
        if rows:
            lines += [f"### {tag}: `{name}`, {w.what}", ""]
            lines += table(["", "how many", *[heading for _, heading in w.columns]], rows)
    return lines


def flat(results: Results, tag: str) -> list[str]:
    """The cost of an item beside a crowd."""
    lines = []
    for option, counts, what in (
        ("--alive", FLAT_ALIVE, "beside so many parked goroutines"),
        ("--pairs", FLAT_PAIRS, "in so many pairs at once"),
    ):
        rows = []
        for w in FLAT:
            for c in (*OURS, "Go P=1", "Go P=2"):
                costs = [results.flat_cost(w, c, tag, option, k) for k in counts]
                if any(x is not None for x in costs):
                    base = costs[0]
                    cells = [
                        "–" if x is None else time_of(x) + (f" ({x / base - 1:+.0%})" if base and i else "")
                        for i, x in enumerate(costs)
                    ]
                    rows.append([f"`{w}`, {c}", *cells])
        if rows:
            lines += [f"### {tag}: cost of an item {what}", ""]
            lines += table(["", *[f"{k:,}" for k in counts]], rows)
    return lines


def notes(results: Results) -> list[str]:
    lines = ["## Who took part, and how", ""]
    seen: dict[tuple[str, str], str] = {}
    for cell in results.cells:
        d = cell.data
        back = ", puts the GIL back" if d["gil"] and d["tag"].endswith("t") else ""
        seen.setdefault((d["tag"], d["library"]), f"{d['library']} {d['version']}{back}")
    for tag in ["go", *results.tags]:
        them = [text for (t, _), text in seen.items() if t == tag]
        if them:
            lines.append(f"* {tag}: {'; '.join(them)}")
    lines += [f"* missing: {text}" for text in results.data["missing"]]
    chosen: dict[str, list[str]] = {}
    for cell in results.cells:
        d = cell.data
        if d["config"] and cell.column == d["library"]:
            chosen.setdefault(f"{d['tag']}, {d['library']} with {d['config']}", []).append(f"`{d['workload']}`")
    lines += [f"* {what}, faster in a trial: {', '.join(dict.fromkeys(where))}" for what, where in chosen.items()]
    for cell in results.cells:
        d = cell.data
        if d["error"]:
            lines.append(f"* fails: {d['tag']}, {cell.column}, `{d['workload']}` {' '.join(d['args'])}: {d['error']}")
    lines += ["", "## The workloads", ""]
    lines += [f"* `{name}`: {WORKLOADS[name].what}" for name in results.workloads()]
    lines += [
        "",
        "Slower programs get fewer items of the same. Where a library has no unbuffered channel a queue of one",
        "stands in, which asks less of it. Libraries without a select have a dash there. All programs are in",
        "`bench/impl` and `bench/go`; each checks what arrived, and one that loses values is marked, not timed.",
        "",
    ]
    return lines


def markdown(results: Results, plots: list[str] | None = None) -> str:
    lines = header(results) + targets(results)
    for name in plots or []:
        lines += [f"![{name}]({name})", ""]
    for tag in results.tags:
        lines += main_table(results, tag) + own_columns(results, tag) + flat(results, tag)
    lines += feeds(results) + losses(results) + notes(results)
    return "\n".join(lines).rstrip() + "\n"


def feeds(results: Results) -> list[str]:
    """The feed demo's own figures, per interpreter, where it ran."""
    lines = []
    for tag, data in results.data.get("feeds", {}).items():
        lines += [f"## {tag}: `feeds`, the feed demo", ""]
        if "error" in data:
            lines += [f"It did not run: {data['error']}", ""]
            continue
        rows = [
            [
                name,
                f"{r['seconds']:.2f}<br>{r['least']:.2f} – {r['most']:.2f}",
                "–" if r["speedup"] is None else f"{r['speedup']:.2f}×",
                number(r["peak_mib"]),
            ]
            for name, r in data["rows"].items()
        ]
        lines += table(["", "seconds", "speed-up", "peak MiB, process tree"], rows)
        if data["ceiling"]:
            lines += [f"Two processes that share nothing reach {data['ceiling']:.2f}×.", ""]
    return lines
