"""``kill -9`` of a worker at a random moment of each of many runs with writes; Jira's own state tells what happened.

Each run files two issues and reads one. Its worker is killed at a moment drawn evenly over a run's usual time; the
client does what the gateway does: it asks another worker for the same run (``attempt`` + 1, ``lost_worker``). One in
ten of those is killed as well. Jira's stand-in takes its time before it acts, goes on with a request whose sender is
dead, and its search lags behind, so that an outcome can be unknown, and can become known too late.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from results import Figure

from engine_parts import client
from engine_parts.chain import quantile
from engine_parts.pool import Pool, Victim
from engine_parts.processes import config, stand_in, write_config
from engine_parts.stores import Stores

LANES = 6
STAND_BY = 4
"""Workers beside those of the lanes."""
SECOND_KILL = 0.1
MODEL_SECONDS = (0.1, 0.2)
JIRA_FAULTS = {"latency_ms": [20, 120], "index_delay_seconds": 0.25}
OUTCOME_SECONDS = 40.0
TENANT = "acme"


@dataclass
class Report:
    """What happened to one run."""

    number: int
    run_id: str
    killed_in: list[str] = field(default_factory=list)
    """The last event that the client had seen, of each kill."""
    resumed: list[float] = field(default_factory=list)
    """Seconds from each kill to the next worker's first event."""
    outcome: str = ""
    """final, partial, error; empty: none."""
    in_doubt: bool = False
    text: str = ""


def text(number: int) -> str:
    """What run ``number`` is asked."""
    return f"Look at IT-1, then file “Crash {number} first part” and “Crash {number} second part”."


class Drill:
    """The runs, a few side by side."""

    def __init__(self, pool: Pool, kills: int, rng: random.Random) -> None:
        self._pool = pool
        self._rng = rng
        self._kills = kills
        self._durations: list[float] = []
        self._number = 0
        self.killed = 0
        self.reports: list[Report] = []
        self.unhurt = 0
        """Runs that ended before their kill; they are not counted among the reports."""

    async def run(self) -> None:
        """Until so many runs were hit."""
        for _ in range(5):
            victim = await self._pool.take()
            await self._one(victim, moment=None)
        await asyncio.gather(*(self._lane() for _ in range(LANES)))

    async def _lane(self) -> None:
        while len(self.reports) < self._kills:
            victim = await self._pool.take()
            await self._one(victim, self._rng.uniform(0, statistics.median(self._durations[-50:])))

    async def _one(self, victim: Victim, moment: float | None) -> None:
        self._number += 1
        report = Report(self._number, f"crash-{self._number}-{self._rng.randrange(1 << 30)}")
        began, lost, attempt, killed_at, cut = time.monotonic(), "", 1, 0.0, 0.0
        while True:
            ask = client.ask(TENANT, text(report.number), report.run_id, attempt, lost)
            seen = client.Seen(report.run_id, time.monotonic())
            task = asyncio.create_task(client.converse(victim.stub, ask, seen))
            await asyncio.wait([task], timeout=OUTCOME_SECONDS if moment is None else moment)
            hit = moment is not None and not task.done()
            if hit:
                report.killed_in.append(seen.events[-1][1] if seen.events else "asked")
                await self._pool.kill(victim)
                self.killed += 1
                cut = time.monotonic()
            await asyncio.wait([task], timeout=OUTCOME_SECONDS)
            if not task.done():
                task.cancel()
            if killed_at and seen.events:
                report.resumed.append(seen.began + seen.events[0][0] - killed_at)
            report.in_doubt = report.in_doubt or seen.unknown
            if seen.ended or not hit:
                break
            await self._pool.forget(victim)
            killed_at, lost, attempt = cut, victim.name, attempt + 1
            victim = await self._pool.take()
            again = self._rng.random() < SECOND_KILL
            moment = self._rng.uniform(0, statistics.median(self._durations[-50:])) if again else None
        self._ended(report, seen, time.monotonic() - began)
        if hit:
            await self._pool.forget(victim)
        else:
            self._pool.give_back(victim)

    def _ended(self, report: Report, seen: client.Seen, seconds: float) -> None:
        if not report.killed_in:
            self._durations.append(seconds)
            self.unhurt += 1
            return
        kind = seen.last.WhichOneof("event") if seen.last is not None else None
        if kind == "final" and seen.last is not None:
            report.outcome = "partial" if seen.last.final.partial else "final"
            report.text = seen.last.final.text
        elif kind == "error" and seen.last is not None:
            report.outcome, report.text = "error", seen.last.error.message
        self.reports.append(report)


@dataclass(frozen=True)
class Written:
    """What Jira holds of the drill."""

    by_key: Counter[str]
    by_summary: Counter[str]


def written(journal: Path) -> Written:
    """Reads the stand-in's state: the last line of each issue is the issue."""
    issues = {}
    for line in journal.read_text(encoding="utf-8").splitlines():
        issue = json.loads(line)
        issues[issue["key"]] = issue
    ours = [issue for issue in issues.values() if issue["summary"].startswith("Crash ")]
    keys = [issue["properties"].get("pilothouse", {}).get("idempotencyKey", "") for issue in ours]
    return Written(Counter(key for key in keys if key), Counter(issue["summary"] for issue in ours))


def measure(root: Path, stores: Stores, kills: int) -> Iterator[Figure]:
    """The three figures."""
    state = root / "jira-state"
    with (
        stand_in("bench-models", root) as models,
        stand_in("jira", root, "--state", str(state), faults=JIRA_FAULTS) as jira,
    ):
        models.pace(plan=MODEL_SECONDS, answer=MODEL_SECONDS)
        folder = root / "config"
        write_config(folder, config(TENANT, models.url, jira.url), stores)
        began = time.monotonic()
        drill = asyncio.run(_drill(root, folder, kills))
        took = time.monotonic() - began
        time.sleep(1.0)  # requests whose senders are dead
        yield from _figures(drill, written(state / "journal.jsonl"), took)


async def _drill(root: Path, folder: Path, kills: int) -> Drill:
    async with Pool(root, folder, LANES + STAND_BY) as pool:
        drill = Drill(pool, kills, random.Random(9))  # noqa: S311 - moments, not secrets
        await drill.run()
        return drill


def _figures(drill: Drill, state: Written, took: float) -> Iterator[Figure]:
    reports = drill.reports
    outcomes = Counter(report.outcome or "none" for report in reports)
    phases = Counter(phase for report in reports for phase in report.killed_in)
    doubled = {key: count for key, count in {**state.by_key, **state.by_summary}.items() if count > 1}
    wanted = [(r, [f"Crash {r.number} {part} part" for part in ("first", "second")]) for r in reports]
    whole = sum(all(state.by_summary[one] for one in issues) for _, issues in wanted)
    lost = sum(
        report.outcome == "final" and not report.in_doubt and not all(state.by_summary[one] for one in issues)
        for report, issues in wanted
    )
    detail: dict[str, object] = {
        "runs": len(reports),
        "kills": f"{drill.killed}, of these {drill.killed - len(reports)} of a worker that had taken over",
        "last event before the kill": ", ".join(f"{kind} {count}" for kind, count in phases.most_common()),
        "took": f"{took:.0f} s",
    }
    yield Figure(
        "duplicate_writes_in_1000_kills",
        max(sum(count - 1 for count in counted.values()) for counted in (state.by_key, state.by_summary)),
        "count",
        {
            **detail,
            "issues": sum(state.by_summary.values()),
            "runs with both writes": whole,
            "answered without saying that a write is missing": lost,
            **({"doubled": ", ".join(list(doubled)[:3])} if doubled else {}),
        },
    )
    doubtful = sum(report.in_doubt for report in reports)
    yield Figure(
        "runs_without_outcome_in_1000_kills",
        outcomes["none"],
        "count",
        {
            "outcomes": ", ".join(f"{kind} {count}" for kind, count in outcomes.most_common()),
            "told that a write is in doubt": doubtful,
        },
    )
    resumed = [seconds for report in reports for seconds in report.resumed]
    yield Figure(
        "resumed_p95_after_kill",
        quantile(resumed, 0.95),
        "s",
        {
            "p50/p95/p99": "/".join(f"{quantile(resumed, share):.3f}" for share in (0.5, 0.95, 0.99)),
            "from": "the kill to the next worker's first event at the client",
            "takeovers": len(resumed),
        },
    )
