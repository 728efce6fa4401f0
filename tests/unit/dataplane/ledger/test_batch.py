"""How a queue becomes one transaction."""

from __future__ import annotations

import asyncio

from pilothouse_dataplane.core.messages import Outcome, ToolResult
from pilothouse_dataplane.ledger import batch
from pilothouse_dataplane.ledger.base import RunKey, WriteIntent

RUNS, LAZY, ENTRY_RUN, ENTRY_SEQ, OPEN_RUN, OUTCOME, FINAL_RUN = 2, 1, 6, 7, 4, 19, 21


def held(name: str, fence: int = 1) -> batch.HeldRun:
    return batch.HeldRun(RunKey(name, fence), 0)


def test_two_claims_of_one_run_are_told_apart() -> None:
    old, new = held("r", 1), held("r", 2)
    made = batch.build("w", [batch.Entry(old, 0, b"a"), batch.Entry(new, 5, b"b")])
    assert made.runs == {old: 1, new: 2}
    assert made.arguments[RUNS : RUNS + 2] == (["r", "r"], [1, 2])
    assert made.arguments[ENTRY_RUN : ENTRY_RUN + 3] == ([1, 2], [0, 5], [b"a", b"b"])


def test_a_run_that_ends_leaves_no_journal_and_others_keep_theirs() -> None:
    ending, going = held("a"), held("b")
    items = [batch.Opening(ending, b"o"), batch.Entry(ending, 0, b"x"), batch.Entry(going, 0, b"y")]
    made = batch.build("w", [*items, batch.Final(ending, "answered", b"end")])
    assert made.arguments[OPEN_RUN] == []
    assert made.arguments[ENTRY_RUN] == [made.runs[going]]
    assert made.arguments[FINAL_RUN] == [made.runs[ending]]


def test_only_the_first_outcome_counts() -> None:
    run = held("a")
    outcomes = [Outcome.FAILED, Outcome.SUCCEEDED]
    made = batch.build("w", [batch.WriteOutcome.of(run, "k", ToolResult(outcome, "")) for outcome in outcomes])
    assert made.arguments[OUTCOME] == ["failed"]


async def test_a_batch_waits_for_the_disk_when_somebody_waits_for_it() -> None:
    run = held("a")
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    lazy = [batch.Entry(run, 0, b"x")]
    assert batch.build("w", lazy).arguments[LAZY] is True
    assert batch.build("w", [*lazy, batch.Barrier(run, done)]).arguments[LAZY] is False
    write = batch.write(run, WriteIntent("a/s1", "s1", "t", {}, "h", "u"), done)
    assert batch.build("w", [*lazy, write]).arguments[LAZY] is False
    done.cancel()
    assert batch.given_up(write)
    assert not batch.given_up(lazy[0])
