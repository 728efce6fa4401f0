"""The labelled requests of ``data/routing``, as situations of a first plan."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilothouse_api.workerconfig import Tier
from pilothouse_dataplane.core.messages import Situation

DATA = Path(__file__).resolve().parents[1] / "data" / "routing"
TIERS: tuple[Tier, ...] = ("fast", "mid", "power")


@dataclass(frozen=True)
class Labelled:
    """A request, and the cheapest tier that should answer it."""

    id: str
    half: str
    tier: Tier
    situation: Situation


def half_of(request_id: str) -> str:
    """The fixed rule of the split."""
    return "held_out" if hashlib.sha256(request_id.encode()).digest()[0] >= 128 else "tuning"


def labelled(half: str | None = None) -> list[Labelled]:
    """All requests that measure, or those of one half, in the file's order."""
    found = [_one(raw, half_of(raw["id"])) for raw in _lines("requests.jsonl")]
    return [one for one in found if half is None or one.half == half]


def more_tuning() -> list[Labelled]:
    """The harder requests that only weights are fitted on; they have not the mix of a day."""
    return [_one(raw, "tuning") for raw in _lines("more_tuning.jsonl")]


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def _one(raw: dict[str, Any], half: str) -> Labelled:
    situation = Situation(raw["text"], groups=tuple(raw.get("groups", ())), earlier_turns=raw.get("earlier_turns", 0))
    return Labelled(raw["id"], half, raw["tier"], situation)
