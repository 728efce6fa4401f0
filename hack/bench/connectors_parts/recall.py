"""Whether the tools that a request needs are among those that a model is shown, on the labelled requests."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from results import Figure

from connectors_parts import catalogs
from pilothouse_dataplane.core.catalog import SHOWN, Catalog

REQUESTS = catalogs.DATA / "requests.jsonl"
HALVES = ("tuning", "held_out")
_WARM_UP = 50
_SHOWN_MISSES = 40


@dataclass(frozen=True)
class Labelled:
    """A request, and what it needs."""

    id: str
    half: str
    request: str
    earlier: tuple[str, ...]
    """The turns before it, hers and the agent's."""
    needs: tuple[tuple[str, ...], ...]
    """Groups of tools; one of each group is enough."""


@dataclass(frozen=True)
class Miss:
    """A need that was not shown."""

    request: Labelled
    need: tuple[str, ...]
    shown: tuple[str, ...]


def half_of(request_id: str) -> str:
    """The fixed rule of the split."""
    return "held_out" if hashlib.sha256(request_id.encode()).digest()[0] >= 128 else "tuning"


def labelled() -> list[Labelled]:
    """All requests, in the file's order."""
    found = []
    for line in REQUESTS.read_text().splitlines():
        raw = json.loads(line)
        needs = tuple(tuple(group) for group in raw["needs"])
        found.append(Labelled(raw["id"], raw["half"], raw["request"], tuple(raw.get("earlier", ())), needs))
    return found


def misses(catalog: Catalog, requests: Sequence[Labelled]) -> list[Miss]:
    """All needs that are not shown."""
    found: list[Miss] = []
    for one in requests:
        shown = tuple(tool.name for tool in catalog.choose(one.request, one.earlier))
        if len(shown) > SHOWN:
            raise AssertionError(f"{one.id}: {len(shown)} tools were shown")
        found.extend(Miss(one, need, shown) for need in one.needs if not set(need) & set(shown))
    return found


def recall(requests: Sequence[Labelled], missed: Sequence[Miss]) -> float:
    """Share (0..1) of all needs that were shown."""
    wanted = {one.id for one in requests}
    needs = sum(len(one.needs) for one in requests)
    return 1 - sum(one.request.id in wanted for one in missed) / needs


def measure() -> Iterator[Figure]:
    """The figure: of the held-out half, or of all where that is lower."""
    catalog = catalogs.toolset().catalog
    requests = labelled()
    missed = misses(catalog, requests)
    halves = {half: [one for one in requests if one.half == half] for half in HALVES}
    reached = {half: recall(ones, missed) for half, ones in halves.items()}
    whole = recall(requests, missed)
    served = 1 - len({one.request.id for one in missed}) / len(requests)
    speed = _speed(catalog, requests)
    told = [f"{one.request.id} {'/'.join(one.need)}" for one in missed]
    per_connector = Counter(one.need[0].partition(".")[0] for one in missed)
    yield Figure(
        "tool_recall_at_12",
        min(whole, reached["held_out"]),
        "ratio",
        {
            "all": f"{whole:.4f} of {sum(len(one.needs) for one in requests)} needs in {len(requests)} requests",
            **{half: f"{reached[half]:.4f}, {len(ones)} requests" for half, ones in halves.items()},
            "requests with all they need": f"{served:.3f}",
            "tools": len(catalog.tools),
            "choosing, µs p50/p95/max": "/".join(f"{value * 1e6:.0f}" for value in speed),
            "misses by connector": ", ".join(f"{name} {count}" for name, count in per_connector.most_common())
            or "none",
            "missed": ", ".join(told[:_SHOWN_MISSES]) + (" …" if len(told) > _SHOWN_MISSES else "") or "nothing",
        },
    )


def _speed(catalog: Catalog, requests: Sequence[Labelled]) -> tuple[float, float, float]:
    """Seconds of CPU to choose: median, 95th percentile, largest."""
    for one in requests[:_WARM_UP]:
        catalog.choose(one.request, one.earlier)
    taken = []
    for one in requests:
        began = time.process_time_ns()
        catalog.choose(one.request, one.earlier)
        taken.append((time.process_time_ns() - began) / 1e9)
    return statistics.median(taken), statistics.quantiles(taken, n=20)[18], max(taken)
