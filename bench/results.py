"""What was measured, as a thing that can be asked: the median of this column on that interpreter."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workloads import FLAT, WORKLOADS

# What the ratios to rivals leave out: ourselves, Go, and the ceiling.
NOT_RIVALS = ("goslings", "goslings async", "Go", "processes")


@dataclass(frozen=True)
class Cell:
    """One program on one workload."""

    data: dict[str, Any]

    @property
    def column(self) -> str:
        return str(self.data["column"])

    @property
    def lost(self) -> int:
        return int(max((v["lost"] for v in self.data["values"]), default=0))

    @property
    def works(self) -> bool:
        return bool(self.data["values"]) and not self.lost and not self.data["error"]

    def values(self, key: str = "ns_per_item") -> list[float]:
        return [v[key] for v in self.data["values"] if key in v]

    def median(self, key: str = "ns_per_item") -> float | None:
        values = self.values(key)
        return statistics.median(values) if values else None


class Results:
    """Everything of one invocation; what --json saves."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.cells = [Cell(d) for d in data["results"]]

    @classmethod
    def load(cls, path: Path) -> Results:
        return cls(json.loads(path.read_text()))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.data, indent=1) + "\n")

    @property
    def tags(self) -> list[str]:
        return list(self.data["interpreters"])

    @property
    def dropped(self) -> int:
        return sum(c.data["dropped"] for c in self.cells)

    def workloads(self) -> list[str]:
        """Those measured, in the order of the table."""
        seen = {c.data["workload"] for c in self.cells if not c.data["args"]}
        return [name for name in WORKLOADS if name in seen]

    def columns(self, tag: str) -> list[str]:
        """The headings for one interpreter: Go, goslings, then the rivals."""
        seen = [c.column for c in self.cells if c.data["tag"] in (tag, "go") and not c.data["args"]]
        first = [f"{library} P={p}" for library in ("Go", "goslings", "goslings async") for p in (1, 2)]
        rest = [c for c in dict.fromkeys(seen) if c not in first]
        return [c for c in first if c in seen] + rest

    def cell(self, workload: str, column: str, tag: str, args: tuple[str, ...] = ()) -> Cell | None:
        """A column of Go is the same on every interpreter."""
        tag = "go" if column.startswith("Go ") else tag
        for cell in self.cells:
            d = cell.data
            if (d["workload"], d["column"], d["tag"], tuple(d["args"])) == (workload, column, tag, args):
                return cell
        return None

    def median(
        self,
        workload: str,
        column: str,
        tag: str,
        key: str = "ns_per_item",
        args: tuple[str, ...] = (),
    ) -> float | None:
        """None where it was not measured, failed or lost values."""
        cell = self.cell(workload, column, tag, args)
        return cell.median(key) if cell is not None and cell.works else None

    def rivals(self, workload: str, tag: str, *, with_gil: bool = True) -> dict[str, float]:
        """The Python rivals on this interpreter, without those that lose values."""
        found = {}
        for cell in self.cells:
            d = cell.data
            if d["workload"] != workload or d["tag"] != tag or d["args"]:
                continue
            if d["library"] in NOT_RIVALS or not cell.works or (d["gil"] and not with_gil):
                continue
            found[cell.column] = cell.median() or float("inf")
        return found

    def flat_cost(self, workload: str, column: str, tag: str, option: str, k: int) -> float | None:
        return self.median(workload, column, tag, args=(option, str(k)))

    def has_flat(self, tag: str) -> bool:
        return any(c.data["args"] and c.data["tag"] == tag and c.data["workload"] in FLAT for c in self.cells)
