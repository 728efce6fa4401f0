"""The figures of a bench: one JSON line each, and a section of RESULTS.md with the goals beside them.

The goals stand in RESULTS.md itself (the table under "Goals"), so that a reader finds both in one place.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
_OPERATORS = {
    "<=": lambda value, goal: value <= goal,
    ">=": lambda value, goal: value >= goal,
    "<": lambda value, goal: value < goal,
}


@dataclass(frozen=True)
class Figure:
    """One measured value; ``detail`` says how it was measured and what ran beside it."""

    figure: str
    value: float
    unit: str
    detail: Mapping[str, object] = field(default_factory=dict)

    def line(self, bench: str) -> str:
        return json.dumps(
            {
                "bench": bench,
                "figure": self.figure,
                "value": round(self.value, 3),
                "unit": self.unit,
                "detail": dict(self.detail),
            }
        )


def goals(text: str) -> dict[tuple[str, str], tuple[str, float]]:
    """(bench, figure) → operator and goal, from the rows ``| bench | figure | unit | <= 45 |``."""
    found = {}
    row = r"^\| (\w+) \| (\w+) \| [^|]+ \| (<=|>=|<) ([\d.]+) \|$"
    for bench, figure, operator, goal in re.findall(row, text, re.M):
        found[(bench, figure)] = (operator, float(goal))
    return found


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {memory:.0f} GB, {system}"


def section(bench: str, figures: Iterable[Figure], text: str, today: datetime.date) -> str:
    """The bench's section as Markdown."""
    wanted = goals(text)
    rows = [
        f"## {bench}",
        "",
        f"`make bench BENCH={bench}`, {today.isoformat()}, {machine()}.",
        "",
        "| figure | value | goal | met | detail |",
        "|---|---|---|---|---|",
    ]
    for one in figures:
        operator, goal = wanted.get((bench, one.figure), ("", 0.0))
        met = "-" if not operator else ("yes" if _OPERATORS[operator](one.value, goal) else "no")
        aim = f"{operator} {goal:g} {one.unit}" if operator else "-"
        detail = "; ".join(f"{key}: {value}" for key, value in one.detail.items())
        rows.append(f"| {one.figure} | {one.value:.3g} {one.unit} | {aim} | {met} | {detail} |")
    return "\n".join(rows) + "\n"


def record(bench: str, figures: list[Figure], path: Path = RESULTS) -> None:
    """Puts the bench's section in place of its last one, or at the end."""
    text = path.read_text() if path.exists() else "# Results\n"
    new = section(bench, figures, text, datetime.datetime.now(datetime.UTC).date())
    pattern = re.compile(rf"^## {re.escape(bench)}\n.*?(?=^## |\Z)", re.M | re.S)
    text, replaced = pattern.subn(lambda _: new + "\n", text)
    if not replaced:
        text = text.rstrip("\n") + "\n\n" + new
    path.write_text(text.rstrip("\n") + "\n")
