"""A provider that dies under 50 requests a second: what the requests through the real model gateway notice of it.

Two scripted model servers, each a process of its own. ``first`` has the better priority; it is killed (SIGKILL, with
answers half written) and started again later on the same port. Requests come on a fixed beat, whether or not earlier
ones have been answered. A request has failed if it raised, or if what stood there at its end was not the whole answer.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from engine_parts.chain import quantile
from engine_parts.processes import StandIn, free_port, wait_listening
from results import Figure

from pilothouse_api.workerconfig import ProviderConfig, RouteConfig, TargetConfig
from pilothouse_dataplane.core.guard import BreakerChange, GuardRegistry
from pilothouse_dataplane.core.messages import Message, ModelRequest
from pilothouse_dataplane.models.base import ModelDone, ModelError, ModelProvider, ModelRestarted, ModelText
from pilothouse_dataplane.models.cost import ModelCallRecord
from pilothouse_dataplane.models.gateway import ModelGateway
from pilothouse_dataplane.models.providers import make_provider
from pilothouse_sim.script.plans import ANSWER_TOKENS

PER_SECOND = 50
KILLED_AT, STARTED_AT = 10.0, 25.0
LEAST_SECONDS, MOST_SECONDS = 40.0, 58.0
"""It ends when the provider has had its traffic back for three seconds, within these."""
PACE = (0.3, 0.6)
"""Seconds of one whole answer, evenly drawn."""
RAISED = 1.25
"""A second whose p95 is above so many times the p95 before counts as raised."""
_REQUEST = ModelRequest((Message("system", "Answer briefly."), Message("user", "How is my issue doing?")))
_CHARACTERS = ANSWER_TOKENS * 4


@dataclass
class Seen:
    """What the requests have met. Times are seconds since the first one."""

    took: list[tuple[float, float]] = field(default_factory=list)
    """When it was asked, how long it took."""
    failed: list[tuple[float, str]] = field(default_factory=list)
    restarted: int = 0
    """Answers that broke off before the user's eyes and began anew."""
    fell_back: int = 0
    back_at: float | None = None
    """When the killed provider first answered after it was started again."""


class Provider:
    """A model server's process that can be killed and started again."""

    def __init__(self, name: str, root: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = root / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "pilothouse_sim", "bench-models", "--listen", f"127.0.0.1:{self.port}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def ready(self) -> None:
        wait_listening(self.port, self._process)
        StandIn(self.url, 0).pace(plan=PACE, answer=PACE)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def _two(root: Path) -> Iterator[tuple[Provider, Provider]]:
    first, second = Provider("first", root), Provider("second", root)
    try:
        for each in (first, second):
            each.start()
        for each in (first, second):
            each.ready()
        yield first, second
    finally:
        first.kill()
        second.kill()


async def _ask(models: ModelGateway, began: float, seen: Seen) -> None:
    """One request."""
    at = time.monotonic() - began
    written, whole, restarted = 0, False, False

    def called(record: ModelCallRecord) -> None:
        if record.aborted:
            return
        seen.fell_back += record.provider == "second"
        now = time.monotonic() - began
        if record.provider == "first" and seen.back_at is None and at > STARTED_AT:
            seen.back_at = now

    try:
        stream = models.stream(_REQUEST, deadline=time.monotonic() + 20, on_call=called)
        async with aclosing(stream) as events:
            async for event in events:
                if isinstance(event, ModelText):
                    written += len(event.text)
                elif isinstance(event, ModelRestarted):
                    written, restarted = 0, True
                elif isinstance(event, ModelDone):
                    whole = True
    except ModelError as error:
        seen.failed.append((at, str(error)))
        return
    if not whole or written != _CHARACTERS:
        seen.failed.append((at, f"{written} of {_CHARACTERS} characters"))
        return
    seen.restarted += restarted
    seen.took.append((at, time.monotonic() - began - at))


async def _drive(first: Provider, second: Provider) -> tuple[Seen, list[tuple[float, BreakerChange]]]:
    configs = tuple(
        ProviderConfig(name=name, type="OpenAI", base_url=f"{each.url}/v1")
        for name, each in (("first", first), ("second", second))
    )
    route = RouteConfig(
        providers=configs,
        tiers={
            "fast": tuple(TargetConfig(provider=each.name, model="m", priority=n) for n, each in enumerate(configs))
        },
        default_tier="fast",
    )
    began = time.monotonic()
    changes: list[tuple[float, BreakerChange]] = []
    guards = GuardRegistry(time.monotonic, lambda change: changes.append((time.monotonic() - began, change)))
    providers: dict[str, ModelProvider] = {each.name: make_provider(each, {}) for each in configs}
    models = ModelGateway(route, providers, guards, clock=time.monotonic, random=Random(1).random)  # noqa: S311
    seen, tasks, number = Seen(), set[asyncio.Task[None]](), 0
    killed = started = False
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] | None = None
    while True:
        now = time.monotonic() - began
        if now >= KILLED_AT and not killed:
            killed = True
            first.kill()
        if now >= STARTED_AT and not started:
            started = True
            first.start()
            ready = loop.run_in_executor(None, first.ready)
        done = seen.back_at is not None and now >= max(LEAST_SECONDS, seen.back_at + 3)
        if done or now >= MOST_SECONDS:
            break
        task = asyncio.create_task(_ask(models, began, seen))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
        await asyncio.sleep(max(0.0, number / PER_SECOND - (time.monotonic() - began)))
    if tasks:
        await asyncio.wait(tuple(tasks), timeout=25)
    if ready is not None:
        await ready
    await models.aclose()
    return seen, changes


def _p95(seen: Seen, start: float, end: float) -> float:
    """Milliseconds, of the requests asked in between."""
    return 1000 * quantile([took for at, took in seen.took if start <= at < end], 0.95)


def figures() -> list[Figure]:
    """``failures_while_provider_dies``; a minute at most."""
    with tempfile.TemporaryDirectory() as root, _two(Path(root)) as (first, second):
        seen, changes = asyncio.run(_drive(first, second))
    before = _p95(seen, 0, KILLED_AT)
    end = max(at for at, _ in seen.took) + 0.001
    back = seen.back_at
    raised = [second for second in range(int(end)) if _p95(seen, second, second + 1) > RAISED * before]
    detail: dict[str, object] = {
        "requests": len(seen.took) + len(seen.failed),
        "rate": f"{PER_SECOND}/s",
        "killed": f"at {KILLED_AT:.0f} s, started again at {STARTED_AT:.0f} s",
        "p95 before": f"{before:.0f} ms",
        "p95 while away": f"{_p95(seen, KILLED_AT, back or STARTED_AT):.0f} ms",
        "p95 in the second of its death": f"{_p95(seen, KILLED_AT - 1, KILLED_AT + 1):.0f} ms",
        "p95 after": f"{_p95(seen, back, end):.0f} ms" if back is not None else "it did not come back",
        f"seconds with p95 above {RAISED} times before": ", ".join(map(str, raised)) or "none",
        "broke off and began anew": seen.restarted,
        "answered by the second": seen.fell_back,
        "traffic back after its start": f"{back - STARTED_AT:.1f} s" if back is not None else "never",
        "breaker of the first": ", ".join(
            f"{change.state.value} {at:.1f} s" for at, change in changes if change.name == "provider/first"
        ),
    }
    if seen.failed:
        detail["first failures"] = [f"{at:.1f} s: {why}"[:160] for at, why in seen.failed[:3]]
    return [Figure("failures_while_provider_dies", len(seen.failed), "count", detail)]
