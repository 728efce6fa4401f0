"""What the planner reads and answers, independent of the protocol that carried it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tool:
    """A function that the client offers; ``parameters`` are the names in its JSON Schema (empty: not told)."""

    name: str
    parameters: frozenset[str]


@dataclass(frozen=True)
class Call:
    """A planned call of a function."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Message:
    """One message; ``calls`` maps call ids to calls (assistant), ``call_id`` names the answered call (tool)."""

    role: str
    text: str = ""
    calls: tuple[tuple[str, Call], ...] = ()
    call_id: str = ""


@dataclass(frozen=True)
class Reply:
    """Calls to make, or the text of an answer."""

    text: str = ""
    calls: tuple[Call, ...] = ()


def approximate_tokens(text: str) -> int:
    """Tokens of a text: one for each four characters begun, as a rule of thumb for English; 0 for ""."""
    return -(-len(text) // 4)
