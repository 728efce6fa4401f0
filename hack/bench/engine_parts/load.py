"""Fifty requests a second for a minute against stand-ins that take as long as real systems do.

The arrivals are open: a Poisson process that does not wait for answers. One worker a tier, as three tenants with one
default tier each. The kinds of request are dealt, not drawn (their shares are exact), then shuffled; every latency is
drawn. Beside it the plain chain of the same requests is simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import grpc.aio
from results import Figure

from engine_parts import chain, client
from engine_parts.chain import quantile
from engine_parts.overhead import through
from engine_parts.processes import WorkerProcess, config, cpu_seconds, stand_in, worker
from engine_parts.stores import Stores
from pilothouse_api.workerconfig import Tier

RATE = 50
BRIEF_SHARE = 0.5
"""0..1: requests that want a confirmation or one or two values ("file this", "what is the status of …"). Taken to be
half; what it comes to with none of them stands in the figure's detail."""
WRITE_SHARE = 0.5
"""0..1: brief requests that end in a write."""
SIMULATED = 100_000
_KEYS = ("IT-1", "IT-2", "IT-3", "IT-4", "IT-5", "IT-6", "IT-7")


@dataclass
class Asked:
    """One request and what came of it."""

    what: chain.Request
    seen: client.Seen


def requests(rng: random.Random, count: int) -> list[chain.Request]:
    """So many requests whose shares of tiers, tools and kinds are exact but for rounding."""
    dealt: list[chain.Request] = []
    owed: Counter[tuple[str, bool, bool, int]] = Counter()
    shares = {
        (tier, brief, writes, calls): share * brief_share * write_share * 0.5
        for tier, share in chain.TIER_SHARES.items()
        for brief, brief_share in ((True, BRIEF_SHARE), (False, 1 - BRIEF_SHARE))
        for writes, write_share in (((True, WRITE_SHARE), (False, 1 - WRITE_SHARE)) if brief else ((False, 1.0),))
        for calls in (2, 3)
    }
    carried = 0.0
    for kind, share in shares.items():
        carried += share * count
        owed[kind] = round(carried)
        carried -= owed[kind]
    for (tier, brief, writes, calls), number in owed.items():
        dealt += [chain.Request(tier, calls - writes, int(writes), brief)] * number
    rng.shuffle(dealt)
    return dealt


def words(what: chain.Request, number: int) -> str:
    """The request as a person writes it; the scripted model reads the calls from it."""
    text = "Briefly: " if what.brief else "Compare and explain: "
    text += " ".join(_KEYS[(number + i) % len(_KEYS)] for i in range(what.reads))
    return text + "".join(f", and file “Request {number}, part {i}”" for i in range(what.writes))


def measure(root: Path, stores: Stores, seconds: float) -> Iterator[Figure]:
    """The three figures."""
    with contextlib.ExitStack() as stack:
        models = stack.enter_context(stand_in("bench-models", root))
        jira = stack.enter_context(stand_in("bench-jira", root))
        workers = {
            tier: stack.enter_context(
                worker(
                    root,
                    f"load-{tier}",
                    config(f"acme-{tier}", models.url, jira.url, tier=tier),
                    stores,
                    collector=jira.url,
                )
            )
            for tier in get_args(Tier)
        }
        for one in workers.values():
            asyncio.run(through(one, 20))
        models.pace(plan=chain.PLAN, answer=chain.ANSWER)
        jira.pace(tool=chain.TOOL)
        rng = random.Random(4)  # noqa: S311 - the same schedule each time
        watched = {tier: one.pid for tier, one in workers.items()} | {"models": models.pid, "jira": jira.pid}
        before = {name: cpu_seconds(pid) for name, pid in watched.items()}
        asked = asyncio.run(_load(workers, requests(rng, round(RATE * seconds)), rng))
        used = {name: f"{(cpu_seconds(pid) - before[name]) / seconds:.0%}" for name, pid in watched.items()}
        yield from _figures(asked, used, seconds)


async def _load(workers: dict[Any, WorkerProcess], dealt: list[chain.Request], rng: random.Random) -> list[Asked]:
    async with contextlib.AsyncExitStack() as stack:
        stubs = {
            tier: client.stub_of(await stack.enter_async_context(grpc.aio.insecure_channel(one.address)))
            for tier, one in workers.items()
        }
        tasks: list[asyncio.Task[client.Seen]] = []
        due = time.monotonic()
        for number, what in enumerate(dealt):
            due += rng.expovariate(RATE)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            ask = client.ask(f"acme-{what.tier}", words(what, number))
            # the clock starts when the request was due: a late client is no excuse
            seen = client.Seen(ask.ask.run_id, due)
            tasks.append(asyncio.create_task(client.converse(stubs[what.tier], ask, seen)))
        return [Asked(what, seen) for what, seen in zip(dealt, await asyncio.gather(*tasks), strict=True)]


def _row(values: list[float]) -> str:
    return "/".join(f"{quantile(values, share):.2f}" for share in (0.5, 0.95, 0.99))


def _split(asked: list[Asked]) -> str:
    """Mean seconds by cause, as the workers counted them."""
    finals = [one.seen.last.final.time for one in asked if one.seen.last is not None and not one.seen.problem]
    if not finals:
        return "none"
    names = ("model", "tools", "approval", "pilothouse")
    return ", ".join(
        f"{name} {sum(getattr(f, f'{name}_ms') for f in finals) / len(finals) / 1000:.3f}" for name in names
    )


def _figures(asked: list[Asked], used: dict[str, str], seconds: float) -> Iterator[Figure]:
    answered = [one.seen.seconds for one in asked if not one.seen.problem]
    failures = Counter(one.seen.problem[:120] for one in asked if one.seen.problem)
    dealt = [one.what for one in asked]
    simulated = {
        name: chain.simulate(1, SIMULATED, lambda rng: rng.choice(dealt), early=early, reply=reply)
        for name, early, reply in (("plain", False, False), ("early", True, False), ("both", True, True))
    }
    whole = {name: _row([one.whole for one in runs]) for name, runs in simulated.items()}
    explained = [one.seen.seconds for one in asked if not one.what.brief and not one.seen.problem]
    within = sum(one.what.brief for one in asked) / len(asked)
    yield Figure(
        "answered_p95_at_50_per_s",
        quantile(answered, 0.95),
        "s",
        {
            "p50/p95/p99": _row(answered),
            "plain chain, simulated": whole["plain"],
            "with early starts, simulated": whole["early"],
            "with early starts and replies, simulated": whole["both"],
            "mean split by cause": _split(asked),
            "the same, simulated": "; ".join(
                f"{name}: model {_mean([one.model for one in runs]):.3f}, "
                f"tools {_mean([one.tools for one in runs]):.3f}"
                for name, runs in simulated.items()
            ),
            "answered within the plan": f"{within:.0%} of the requests (confirmations and single values, half of them "
            "with a write; their plans are 25 tokens longer)",
            "those with a second model call alone": _row(explained),
            "requests": f"{len(asked)} in {seconds:.0f} s, Poisson, tiers 70/10/20, two or three tools",
            "CPU, shares of a core": ", ".join(f"{name} {share}" for name, share in used.items()),
        },
    )
    firsts = {
        name: [at for one in asked if (at := one.seen.first(kinds)) is not None]
        for name, kinds in (("accepted", frozenset({"accepted"})), ("steps", client.STEPS))
    }
    yield Figure(
        "first_step_p95_at_50_per_s",
        quantile(firsts["steps"], 0.95),
        "s",
        {
            "p50/p95/p99": _row(firsts["steps"]),
            "accepted": _row(firsts["accepted"]),
            "the model's first token, simulated": _row([one.first_token for one in simulated["plain"]]),
        },
    )
    detail: dict[str, object] = {"requests": len(asked)}
    if failures:
        detail["why"] = "; ".join(f"{count} × {why}" for why, count in failures.most_common(3))
    yield Figure("failures_at_50_per_s", len(asked) - len(answered), "count", detail)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
