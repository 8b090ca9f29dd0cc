"""One bar chart per interpreter, next to the page, if matplotlib is installed."""

from __future__ import annotations

from pathlib import Path

from results import Results

SHOWN = ("spawn", "pingpong", "unbuffered", "buffered", "mpmc", "select2", "sieve", "mutex")


def plot(results: Results, page: Path) -> list[str]:
    """Write benchmarks-TAG.svg beside the page; return the names."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "goslings"
    from matplotlib import pyplot

    names = []
    for tag in results.tags:
        columns = results.columns(tag)
        workloads = [w for w in SHOWN if w in results.workloads()]
        workloads = [w for w in workloads if results.median(w, "goslings P=1", tag) is not None]
        if not workloads:
            continue
        figure, axes = pyplot.subplots(figsize=(11, 4.5))
        width = 0.9 / len(columns)
        for i, column in enumerate(columns):
            values = [results.median(w, column, tag) for w in workloads]
            where = [k + i * width for k, v in enumerate(values) if v is not None]
            axes.bar(where, [v for v in values if v is not None], width, label=column)
        axes.set_yscale("log")
        axes.set_ylabel("ns per item (less is better)")
        axes.set_xticks([k + 0.45 - width / 2 for k in range(len(workloads))], workloads)
        axes.set_title(f"{results.data['interpreters'][tag]}, {results.data['machine']['cpu']}")
        axes.legend(fontsize=7, ncols=2)
        axes.grid(axis="y", alpha=0.3)
        figure.tight_layout()
        name = f"{page.stem}-{tag}.svg"
        figure.savefig(page.parent / name, metadata={"Date": None})
        pyplot.close(figure)
        names.append(name)
    return names
