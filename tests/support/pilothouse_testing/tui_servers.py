"""In-process stand-ins of what the terminal tools speak to: Kubernetes (aiohttp), Fleet (gRPC), chat (websockets)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import yaml
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve

from pilothouse_proto.agent.v1 import agent_pb2
from pilothouse_proto.events.v1 import events_pb2
from pilothouse_proto.fleet.v1 import fleet_pb2, fleet_pb2_grpc

KEY = b"0123456789abcdef0123456789abcdef"


class FakeKube:
    """Enough of an API server: the lists, one watch, the Secret, the Service, TokenRequest."""

    def __init__(self) -> None:
        self.tokens = 0
        self.lists = 0
        self.tenants = ["acme"]
        self.watch_codes: list[int] = []
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != "Bearer admin":
            return web.json_response({"message": "who are you"}, status=403)
        path = request.path
        if path.endswith("/serviceaccounts/pilothouse-sre/token"):
            self.tokens += 1
            assert (await request.json())["spec"]["audiences"] == ["pilothouse-fleet"]
            status = {"token": f"sre-{self.tokens}", "expirationTimestamp": "2099-01-01T00:00:00Z"}
            return web.json_response({"status": status}, status=201)
        if path.endswith("/secrets/pilothouse-dev-tokens"):
            return web.json_response({"data": {"signing-key": base64.b64encode(KEY).decode()}})
        if path.endswith("/services/pilothouse-gateway"):
            return web.json_response({"spec": {"ports": [{"name": "http", "nodePort": 30080}]}})
        if path.endswith("/pods"):
            return web.json_response({"items": []})
        if "/tenants" in path and "watch" in request.query:
            if self.watch_codes:
                return web.json_response({}, status=self.watch_codes.pop())
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                event = json.dumps(await self.events.get()).encode() + b"\n"
                await response.write(event[:7])  # a line may come in pieces
                await response.write(event[7:])
        if "watch" in request.query:
            await asyncio.sleep(60)
        if path.startswith("/apis/pilothouse.dev/"):
            self.lists += 1
            items = [tenant_json(name) for name in self.tenants] if path.endswith("/tenants") else []
            return web.json_response({"metadata": {"resourceVersion": "5"}, "items": items})
        return web.json_response({"message": "not found"}, status=404)


def tenant_json(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": name, "generation": 2, "resourceVersion": "6"},
        "spec": {"displayName": name.title()},
        "status": {
            "observedGeneration": 2,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T09:00:00Z"}],
        },
    }


@asynccontextmanager
async def api_server() -> AsyncIterator[tuple[FakeKube, str]]:
    fake = FakeKube()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield fake, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def kubeconfig(folder: Path, url: str) -> str:
    """A kubeconfig file for ``api_server``."""
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump({
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "admin"}}],
    }))  # fmt: skip
    return str(path)


class FakeFleet(fleet_pb2_grpc.FleetServicer):
    """Answers a snapshot and one change; refuses the tokens in ``refused``. Dead letters live in ``letters``; a tenant
    in ``down`` has no worker; ``failure`` is what each action ends with, where it is set."""

    def __init__(self) -> None:
        self.letters: list[agent_pb2.DeadLetter] = []
        self.approvals: list[agent_pb2.PendingApproval] = []
        self.tools: list[agent_pb2.ToolDescription] = []
        self.down: set[str] = set()
        self.failure: tuple[grpc.StatusCode, str] | None = None
        self.asked: list[Any] = []
        self.outcome = agent_pb2.STEP_OUTCOME_SUCCEEDED
        self.decided = agent_pb2.DECIDE_OUTCOME_DECIDED
        self.seen: list[str] = []
        self.refused: set[str] = set()

    async def Watch(self, request: fleet_pb2.WatchRequest, context: Any) -> AsyncIterator[fleet_pb2.WatchResponse]:
        token = dict(context.invocation_metadata())["authorization"]
        self.seen.append(token)
        if token in self.refused:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not valid")
        session = fleet_pb2.Session(tenant="acme", session_id="s1", active=True, cost_micros=7)
        breaker = fleet_pb2.Breaker(tenant="acme", name="connector/jira", state=events_pb2.BREAKER_STATE_HALF_OPEN)
        yield fleet_pb2.WatchResponse(snapshot=fleet_pb2.Snapshot(
            sessions=[session], breakers=[breaker], approvals=self.approvals,
        ))  # fmt: skip
        yield fleet_pb2.WatchResponse()  # a change that this version does not know
        yield fleet_pb2.WatchResponse(session=fleet_pb2.Session(tenant="acme", session_id="s2"))

    async def WatchSession(self, request: Any, context: Any) -> AsyncIterator[fleet_pb2.WatchSessionResponse]:
        step = fleet_pb2.StepRecord(run_id="r", step_id="1", tool="jira.x", running=True)
        run = fleet_pb2.RunRecord(run_id="r", running=True, steps=[step])
        session = fleet_pb2.Session(tenant=request.tenant, session_id=request.session_id)
        yield fleet_pb2.WatchSessionResponse(session=session, runs=[run])

    async def _took(self, request: Any, context: Any) -> None:
        self.asked.append(request)
        if self.failure is not None:
            await context.abort(*self.failure)
        if request.tenant in self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"no worker of {request.tenant} is ready")

    async def ListTools(self, request: Any, context: Any) -> fleet_pb2.ListToolsResponse:
        await self._took(request, context)
        return fleet_pb2.ListToolsResponse(tools=self.tools)

    async def ListCosts(self, request: Any, context: Any) -> fleet_pb2.ListCostsResponse:
        await self._took(request, context)
        names = {agent_pb2.CostBy.Name(each).removeprefix("COST_BY_").lower() for each in request.by}
        values = {"user": "ana@x", "tier": "mid", "provider": "local", "model": "m", "revision": "r1"}
        one = agent_pb2.CostSum(calls=3, cost_micros=1_500_000)
        for name in names:
            setattr(one, name, values[name])
        return fleet_pb2.ListCostsResponse(day=request.day or "2026-11-22", sums=[one])

    async def ListDeadLetters(self, request: Any, context: Any) -> fleet_pb2.ListDeadLettersResponse:
        await self._took(request, context)
        found = [
            d for d in self.letters
            if d.tenant == request.tenant
            and (request.all or d.state == agent_pb2.DEAD_LETTER_STATE_OPEN)
            and (not request.id or d.id == request.id)
        ]  # fmt: skip
        return fleet_pb2.ListDeadLettersResponse(dead_letters=found)

    async def ReplayDeadLetter(self, request: Any, context: Any) -> fleet_pb2.ReplayDeadLetterResponse:
        await self._took(request, context)
        letter = next(d for d in self.letters if d.id == request.id)
        return fleet_pb2.ReplayDeadLetterResponse(
            dead_letter=letter, outcome=self.outcome, message="NET-9 is there now."
        )

    async def DiscardDeadLetter(self, request: Any, context: Any) -> fleet_pb2.DiscardDeadLetterResponse:
        await self._took(request, context)
        return fleet_pb2.DiscardDeadLetterResponse()

    async def DecideApproval(self, request: Any, context: Any) -> fleet_pb2.DecideApprovalResponse:
        await self._took(request, context)
        return fleet_pb2.DecideApprovalResponse(outcome=self.decided)

    async def SetBreaker(self, request: Any, context: Any) -> fleet_pb2.SetBreakerResponse:
        await self._took(request, context)
        return fleet_pb2.SetBreakerResponse()


@asynccontextmanager
async def fleet_server() -> AsyncIterator[tuple[FakeFleet, str]]:
    fake, server = FakeFleet(), grpc.aio.server()
    fleet_pb2_grpc.add_FleetServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield fake, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


class FakeGateway:
    """Answers a hello and asks; ``die`` closes the connection in the middle of a run.

    The question ``park`` parks its run until a decision; ``boss`` waits for a manager, and asks nobody here.
    """

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.die = False
        self.parked = False
        self.boss_decides = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def handle(self, socket: ServerConnection) -> None:
        async for raw in socket:
            message = json.loads(raw)
            self.got.append(message)
            match message["type"]:
                case "hello" if message["token"] == "bad":
                    error = {"type": "error", "message": "The token has expired.", "user_action": "Sign in again."}
                    await socket.send(json.dumps(error))
                case "hello":
                    session = message["session_id"] or "s-new"
                    ready = {"type": "ready", "session_id": session, "tenant": "acme", "user": "e@acme.example"}
                    await socket.send(json.dumps(ready))
                case "ask":
                    await socket.send(json.dumps({"type": "accepted", "run_id": "r1", "sequence": 1}))
                    if self.die:
                        await socket.close(1012, "restarting")
                    elif message["text"] == "write":
                        await socket.send(json.dumps({"type": "approval_required", "approval_id": "a1", "tool": "t"}))
                    elif message["text"] in ("park", "boss"):
                        self.parked = True
                        for event in park(message["text"]):
                            await socket.send(json.dumps({"run_id": "r1"} | event))
                        if message["text"] == "boss":
                            self.tasks.append(asyncio.create_task(self._boss(socket)))
                    elif message["text"] == "fail":
                        await socket.send(json.dumps({"type": "error", "message": "No.", "user_action": "Wait."}))
                    elif message["text"] != "wait":
                        await socket.send(json.dumps({"type": "text_delta", "text": "4"}))
                        await socket.send(json.dumps({"type": "final", "text": "42"}))
                case "stop":
                    await socket.send(json.dumps({"type": "final", "text": "", "partial": True}))
                case "approvals":
                    request = park("boss")[1]
                    pending = {"tenant": "acme", "user": "e@acme.example", "run_id": "r1", "request": request}
                    await socket.send(json.dumps({"type": "approvals", "approvals": [pending]}))
                case "decision" if self.parked or message["approval_id"].startswith("ap-"):
                    for event in decided(message["approved"]):
                        await socket.send(json.dumps(event))
                case "decision":
                    await socket.send(json.dumps({"type": "final", "text": str(message["approved"])}))

    async def _boss(self, socket: ServerConnection) -> None:
        await self.boss_decides.wait()
        for event in decided(True)[1:]:
            await socket.send(json.dumps(event))


def park(who: str) -> list[dict[str, Any]]:
    """A run that waits for the user (``park``) or for a manager."""
    by, approver = ("MANAGER", "boss@acme.example") if who == "boss" else ("USER", "e@acme.example")
    return [
        {"type": "plan", "steps": [{"step_id": "s1", "tool": "jira.issue.delete", "summary": "Delete NET-1"}]},
        {
            "type": "approval_required", "approval_id": "ap-0123456789", "tool": "jira.issue.delete",
            "summary": "Delete NET-1", "arguments_json": '{"issue": "NET-1"}', "by": f"APPROVER_{by}",
            "approver": approver, "expires": {"seconds": 4_000_000_000, "nanos": 0}, "reason": "The policy asks.",
            "origins": [{"path": "issue", "value": "NET-1", "source": "jira.issue.search (s0)"}], "step_id": "s1",
        },
        {"type": "text_delta", "text": "half an ans"},
        {"type": "parked", "approval_ids": ["ap-0123456789"]},
    ]  # fmt: skip


def decided(approved: bool) -> list[dict[str, Any]]:
    """What follows a decision."""
    name = "ap-0123456789"
    return [
        {"type": "decision_result", "approval_id": name, "outcome": "DECIDE_OUTCOME_DECIDED", "message": "Noted."},
        {"type": "resumed", "run_id": "r1", "worker": "w2", "reason": "The approval is there."},
        {"type": "approval_decided", "run_id": "r1", "approval_id": name, "approved": approved, "decided_by": "e"},
        {"type": "final", "run_id": "r1", "text": "Deleted." if approved else "Not deleted.",
         "time": {"model_ms": 900, "tools_ms": 100, "approval_ms": 0, "pilothouse_ms": 5}},
    ]  # fmt: skip


@asynccontextmanager
async def gateway() -> AsyncIterator[tuple[FakeGateway, str]]:
    fake = FakeGateway()
    async with serve(fake.handle, "127.0.0.1", 0) as server:
        yield fake, f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/v1/chat"
