"""Before and after: two saved runs side by side, and what changed by more than the noise."""

from __future__ import annotations

from results import Results


def compare(old: Results, new: Results) -> str:
    """A table of goslings' columns; Go's change shows how far the machine drifted meanwhile."""
    lines = [
        f"before: {old.data['machine']['commit']}, {old.data['machine']['date']}",
        f"after:  {new.data['machine']['commit']}, {new.data['machine']['date']}",
        "",
        f"{'':42}{'before':>12}{'after':>12}{'change':>9}",
    ]
    before = {_key(c.data): c for c in old.cells}
    for cell in new.cells:
        d = cell.data
        was = before.get(_key(d))
        if d["library"] not in ("goslings", "goslings_async", "Go") or was is None:
            continue
        a, b = was.median(), cell.median()
        if a is None or b is None:
            continue
        overlap = max(min(was.values()), min(cell.values())) <= min(max(was.values()), max(cell.values()))
        name = f"{d['tag']} {cell.column} {d['workload']} {' '.join(d['args'])}"
        lines.append(f"{name:42}{a:12,.1f}{b:12,.1f}{b / a - 1:+9.1%}{'' if overlap else '  *'}")
    lines += ["", "ns per item, medians; * where the spreads do not overlap"]
    return "\n".join(lines)


def _key(data: dict[str, object]) -> tuple[object, ...]:
    return (data["workload"], data["column"], data["tag"], tuple(data["args"]))  # type: ignore[arg-type]
