"""A worker's queue as PostgreSQL takes it: many runs' records in one call of ``ledger_flush_1``. Pure, but for futures.

An item belongs to one ``HeldRun``, the worker's own note of a claim. Its futures are resolved by ``writer``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pilothouse_dataplane.core.messages import ToolResult
from pilothouse_dataplane.ledger.base import RunKey, WriteIntent
from pilothouse_dataplane.ledger.codec import clean, result_json, to_json

_ITEM_BYTES = 300
"""What an item costs beside its payload, about."""


@dataclass(slots=True, eq=False)
class HeldRun:
    """A claim of this worker's, until the run is finished, parked, given up or lost."""

    key: RunKey
    next_seq: int
    told: set[str] = field(default_factory=set)
    """Decided approvals that the worker has been told of under this claim."""
    fenced: bool = False
    broken: str = ""
    """Why records of it were dropped; nothing more is recorded for it, and its lease is left to run out."""
    ended: bool = False
    """``finish`` was given."""

    @property
    def usable(self) -> bool:
        return not (self.fenced or self.broken or self.ended)


@dataclass(slots=True, eq=False)
class Opening:
    run: HeldRun
    opening: bytes

    @property
    def size(self) -> int:
        return _ITEM_BYTES + len(self.opening)


@dataclass(slots=True, eq=False)
class Entry:
    run: HeldRun
    seq: int
    entry: bytes

    @property
    def size(self) -> int:
        return _ITEM_BYTES + len(self.entry)


@dataclass(slots=True, eq=False)
class Write:
    run: HeldRun
    intent: WriteIntent
    arguments: str
    done: asyncio.Future[None]

    @property
    def size(self) -> int:
        return _ITEM_BYTES + len(self.arguments)


@dataclass(slots=True, eq=False)
class WriteOutcome:
    run: HeldRun
    write_key: str
    outcome: str
    result: str

    @classmethod
    def of(cls, run: HeldRun, write_key: str, result: ToolResult) -> WriteOutcome:
        return cls(run, write_key, result.outcome.value, result_json(result))

    @property
    def size(self) -> int:
        return _ITEM_BYTES + len(self.result)


@dataclass(slots=True, eq=False)
class Final:
    run: HeldRun
    outcome: str
    final: bytes

    @property
    def size(self) -> int:
        return _ITEM_BYTES + len(self.final)


@dataclass(slots=True, eq=False)
class Barrier:
    """Somebody waits until all before it is durable."""

    run: HeldRun
    done: asyncio.Future[None]
    size: int = _ITEM_BYTES


@dataclass(slots=True, eq=False)
class Alone:
    """A question of its own that keeps its place in the queue: ask, park, release. Safe to ask twice."""

    run: HeldRun
    call: Callable[[Any], Awaitable[Any]]
    """Takes the connection."""
    done: asyncio.Future[Any]
    size: int = _ITEM_BYTES


Item = Opening | Entry | Write | WriteOutcome | Final | Barrier | Alone

FLUSH = "SELECT held, granted FROM ledger_flush_1(" + ", ".join(f"${n}" for n in range(1, 25)) + ")"  # noqa: S608


def awaited(item: Item) -> bool:
    """Whether somebody waits for it."""
    return isinstance(item, (Write, Barrier, Alone))


def given_up(item: Item) -> bool:
    """Whether nobody waits for it any more, or its run is lost: then it must not be recorded."""
    if isinstance(item, (Write, Barrier, Alone)) and item.done.done():
        return True
    return item.run.fenced or bool(item.run.broken)


@dataclass(slots=True)
class Batch:
    """The arguments of one flush, and the runs in it by their place."""

    runs: dict[HeldRun, int]
    arguments: tuple[Any, ...]


def places(items: Iterable[Item]) -> dict[HeldRun, int]:
    """The runs of the items → their places, from 1 as PostgreSQL counts."""
    found: dict[HeldRun, int] = {}
    for item in items:
        found.setdefault(item.run, len(found) + 1)
    return found


def build(worker: str, items: Iterable[Item]) -> Batch:
    """Columns for ``ledger_flush_1``. The journal of a run that also ends here is left out: it would be dropped again.

    Only a write's first outcome counts. What nobody waits for may become durable a moment after PostgreSQL's answer.
    """
    items = list(items)
    at = places(items)
    ending = {item.run for item in items if isinstance(item, Final)}
    openings = [item for item in items if isinstance(item, Opening) and item.run not in ending]
    entries = [item for item in items if isinstance(item, Entry) and item.run not in ending]
    writes = [item for item in items if isinstance(item, Write)]
    outcomes: dict[str, WriteOutcome] = {}
    for item in items:
        if isinstance(item, WriteOutcome):
            outcomes.setdefault(item.write_key, item)
    finals = {item.run: item for item in items if isinstance(item, Final)}
    arguments = (
        worker,
        not any(awaited(item) for item in items),
        [run.key.run_id for run in at],
        [run.key.fence for run in at],
        [at[item.run] for item in openings],
        [item.opening for item in openings],
        [at[item.run] for item in entries],
        [item.seq for item in entries],
        [item.entry for item in entries],
        [at[item.run] for item in writes],
        [item.intent.key for item in writes],
        [item.intent.step_id for item in writes],
        [clean(item.intent.tool) for item in writes],
        [item.arguments for item in writes],
        [item.intent.arguments_hash for item in writes],
        [item.intent.user_email for item in writes],
        [item.intent.approval_id for item in writes],
        [at[item.run] for item in outcomes.values()],
        list(outcomes),
        [item.outcome for item in outcomes.values()],
        [item.result for item in outcomes.values()],
        [at[run] for run in finals],
        [clean(item.outcome) for item in finals.values()],
        [item.final for item in finals.values()],
    )
    return Batch(at, arguments)


def write(run: HeldRun, intent: WriteIntent, done: asyncio.Future[None]) -> Write:
    return Write(run, intent, to_json(intent.arguments), done)
