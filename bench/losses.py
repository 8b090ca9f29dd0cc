"""Where we lose: sentences made from the data, so that nobody has to remember to write them."""

from __future__ import annotations

from results import Results

MARGIN = 1.03  # a difference below this is noise


def losses(results: Results) -> list[str]:
    """Every workload in which Go, or a Python rival, is faster than the better of our columns."""
    lines = ["## Where we lose", ""]
    for tag in results.tags:
        to_go, to_rivals = [], []
        for workload in results.workloads():
            ours = [results.median(workload, f"goslings P={p}", tag) for p in (1, 2)]
            mine = min((m for m in ours if m is not None), default=None)
            if mine is None:
                cell = results.cell(workload, "goslings P=1", tag)
                if cell is not None:
                    to_rivals.append(f"`{workload}` does not even run")
                continue
            if workload in ("cpu", "single", "timer"):
                continue  # judged by their targets, not by the time of an item
            go = [results.median(workload, f"Go P={p}", tag) for p in (1, 2)]
            theirs = min((g for g in go if g is not None), default=None)
            if theirs is not None and mine > theirs * MARGIN:
                to_go.append(f"`{workload}` {mine / theirs:.1f}×")
            for column, value in sorted(results.rivals(workload, tag).items(), key=lambda item: item[1]):
                if mine > value * MARGIN:
                    to_rivals.append(f"`{workload}` to {column} ({mine / value:.1f}×)")
        if any(c.data["library"] == "goslings" and c.data["tag"] == tag for c in results.cells):
            go_text = f"slower than Go in {', '.join(to_go)}" if to_go else "nowhere to Go"
            rival_text = f"we lose {', '.join(to_rivals)}" if to_rivals else "nowhere to a Python library"
            lines += [f"On {tag}, each at its best number of processors: {go_text}; {rival_text}.", ""]
    return lines if len(lines) > 2 else [*lines, "goslings was not measured in this run.", ""]
