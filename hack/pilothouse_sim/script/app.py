"""The servers: ``bench-models`` (OpenAI's streaming chat completions), ``bench-jira`` (reads and creates of Jira's v3).

``POST /__sim/pace`` sets how fast both answer; ``GET /__sim/counts`` tells how often each was asked. A model call's
time is drawn evenly from its range, times the tier's factor (by the model's name); 40% of it is the time to the first
token, the rest is spread evenly over its tokens. A chunk leaves when its last token is there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pilothouse_sim.jira import fields
from pilothouse_sim.jira.store import Store
from pilothouse_sim.script.http import Answer, Connection, Handle, Request, Stream, Whole
from pilothouse_sim.script.plans import Script, script

FIRST_TOKEN_SHARE = 0.4
TIER_FACTORS = {"power": 1.0, "mid": 2 / 3, "fast": 1 / 3}
_API = "/rest/api/3"
_NO_MODEL = b'{"error":{"message":"not found","type":"invalid_request_error"}}'
_NO_ISSUE = b'{"errorMessages":["Issue does not exist or you do not have permission to see it."],"errors":{}}'


@dataclass(frozen=True)
class Pace:
    """Seconds, [shortest, longest]; zeros: as fast as possible."""

    plan: tuple[float, float] = (0, 0)
    """A plan's model call, on the power tier."""
    answer: tuple[float, float] = (0, 0)
    tool: tuple[float, float] = (0, 0)

    def changed(self, body: Mapping[str, Any]) -> Pace:
        """Raises ValueError, TypeError for what is no pace."""
        return dataclasses.replace(self, **{name: (float(low), float(high)) for name, (low, high) in body.items()})


def times(said: Script, seconds: float) -> tuple[float, ...]:
    """When each frame leaves, in seconds after the request, of a call that is meant to take ``seconds``."""
    first, rest = seconds * FIRST_TOKEN_SHARE, seconds * (1 - FIRST_TOKEN_SHARE)
    return tuple(first + rest * (out - 1) / (said.budget - 1) for out in said.tokens)


class ScriptedModels:
    """The model server. Without a pace each frame is sent at once, but on its own."""

    def __init__(self, rng: random.Random) -> None:
        self.pace = Pace()
        self.counts: Counter[str] = Counter()
        self._rng = rng

    def handle(self, request: Request) -> Answer:
        if request.path != "/v1/chat/completions" or request.method != "POST":
            return Whole(_NO_MODEL, 404)
        body = json.loads(request.body)
        offered = frozenset(tool["function"]["name"] for tool in body.get("tools") or ())
        if body.get("tool_choice") == "none":
            offered = frozenset()
        said = script(body["messages"], offered)
        self.counts["plan" if said.plan else "answer"] += 1
        low, high = self.pace.plan if said.plan else self.pace.answer
        if high <= 0:
            return Stream(said.frames)
        return Stream(said.frames, times(said, self._rng.uniform(low, high) * _factor(str(body.get("model")))))


def _factor(model: str) -> float:
    return next((factor for tier, factor in TIER_FACTORS.items() if tier in model), 1.0)


class ScriptedJira:
    """Jira's seed, read only; what is created gets a key and is counted, but not kept."""

    def __init__(self, rng: random.Random) -> None:
        self.pace = Pace()
        self.counts: Counter[str] = Counter()
        self._rng = rng
        seed = json.loads(files("pilothouse_sim.jira").joinpath("seed.json").read_text(encoding="utf-8"))
        store = Store(seed, None)
        self._issues = {
            key: json.dumps(fields.issue_view(issue, store, "http://jira.example", ["*all"], [])).encode()
            for key, issue in store.issues.items()
        }
        self._page = b'{"isLast":true,"issues":[' + b",".join(list(self._issues.values())[:3]) + b"]}"

    def handle(self, request: Request) -> Answer:
        low, high = self.pace.tool
        delay = self._rng.uniform(low, high) if high > 0 else 0.0
        noun, _, key = request.path.removeprefix(f"{_API}/").partition("/")
        if request.method == "GET" and noun == "issue" and key in self._issues:
            self.counts["get"] += 1
            return Whole(self._issues[key], delay=delay)
        if request.method == "POST" and request.path == f"{_API}/search/jql":
            self.counts["search"] += 1
            return Whole(self._page, delay=delay)
        if request.method == "POST" and request.path == f"{_API}/issue":
            self.counts["create"] += 1
            number = 1000 + self.counts["create"]
            created = {"id": str(20000 + number), "key": f"IT-{number}", "self": f"http://jira.example/{number}"}
            return Whole(json.dumps(created).encode(), 201, delay)
        if request.path == f"{_API}/serverInfo":
            return Whole(b'{"baseUrl":"http://jira.example","deploymentType":"Cloud"}')
        return Whole(_NO_ISSUE, 404)


def controlled(server: ScriptedModels | ScriptedJira) -> Handle:
    """The server's handler with ``/__sim`` and ``/healthz`` before it; it also takes OpenTelemetry's spans, and drops
    them."""

    def handle(request: Request) -> Answer:
        if request.path == "/v1/traces":
            return Whole(b"")
        if not request.path.startswith(("/__sim/", "/healthz")):
            return server.handle(request)
        if request.path == "/__sim/pace" and request.method == "POST":
            try:
                server.pace = server.pace.changed(json.loads(request.body))
            except (ValueError, TypeError, AttributeError) as error:
                return Whole(json.dumps({"error": str(error)}).encode(), 400)
            return Whole(json.dumps(dataclasses.asdict(server.pace)).encode())
        if request.path == "/__sim/counts":
            return Whole(json.dumps(server.counts).encode())
        return Whole(b'{"status":"ok"}', 200 if request.path == "/healthz" else 404)

    return handle


async def serve(system: str, host: str, port: int) -> None:
    """Serves ``bench-models`` or ``bench-jira`` until SIGTERM or SIGINT; prints its address once."""
    rng = random.Random()  # noqa: S311 - latencies, not secrets
    handle = controlled(ScriptedModels(rng) if system == "bench-models" else ScriptedJira(rng))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Connection(handle), host, port, backlog=1024)
    print(f"{system} stand-in listens on http://{host}:{server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    server.close()
