"""What `goslings.patch` answers."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["PatchReport"]


@dataclass(frozen=True, slots=True)
class PatchReport:
    """What is patched now, and what is not. `print` shows it."""

    patched: dict[str, list[str]] = field(default_factory=dict)
    """For each unit what of it is patched: `{"time": ["time.sleep"]}`."""
    followed: list[str] = field(default_factory=list)
    """Names in other modules that referred to something patched, and refer to the new one now."""
    too_early: list[str] = field(default_factory=list)
    """What was imported or made too early, and still refers to the originals: it blocks the thread."""
    not_patched: dict[str, str] = field(default_factory=dict)
    """What stays as it was, and why."""
    excluded: list[str] = field(default_factory=list)
    """Units that were not asked for."""

    def __bool__(self) -> bool:
        """Whether all that was asked for follows."""
        return not self.too_early

    def __str__(self) -> str:
        lines = []
        for unit, names in self.patched.items():
            lines.append(f"patched {unit}: {', '.join(names)}")
        if self.followed:
            lines.append(f"followed: {', '.join(self.followed)}")
        lines += [f"too early: {what}" for what in self.too_early]
        lines += [f"not patched: {what}: {why}" for what, why in self.not_patched.items()]
        if self.excluded:
            lines.append(f"not asked for: {', '.join(self.excluded)}")
        return "\n".join(lines) or "nothing is patched"
