"""What the gateway's tests put around it: a misbehaving Agent, an API server, Valkey, tokens, a chat client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
from aiohttp import web
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from joserfc import jwt
from joserfc.jwk import OctKey

from pilothouse_api import names
from pilothouse_dataplane.gateway.routing import Affinity
from pilothouse_dataplane.gateway.sessions import SessionStore
from pilothouse_proto.agent.v1 import agent_pb2 as pb
from pilothouse_proto.agent.v1 import agent_pb2_grpc
from pilothouse_testing.servers import free_port

SIGNING_KEY = b"0123456789abcdef0123456789abcdef-test"
FLEET_TOKEN = "fleet-token"


def token(tenant: str = "acme", user: str = "ana", *, key: bytes = SIGNING_KEY, **claims: Any) -> str:
    """A development token; keyword arguments replace claims, None removes one."""
    now = int(time.time())
    body = {
        "sub": f"{tenant}|{user}",
        "email": f"{user}@{tenant}.example",
        "tenant": tenant,
        "name": user.title(),
        "aud": names.DEV_TOKEN_AUDIENCE,
        "iat": now,
        "exp": now + 3600,
        **claims,
    }
    return jwt.encode({"alg": "HS256"}, {k: v for k, v in body.items() if v is not None}, OctKey.import_key(key))


def loopback() -> str:
    """An address of one's own in 127/8, so that tests side by side can use the product's fixed ports."""
    return f"127.{random.randint(100, 250)}.{random.randint(1, 250)}.{random.randint(2, 250)}"


class MemorySessions(SessionStore):
    """Which worker serves a session, without a Redis; the rest of the store is not there."""

    def __init__(self) -> None:
        self.served: dict[tuple[str, str], Affinity] = {}

    async def affinity(self, tenant: str, session_id: str) -> Affinity | None:
        """See :class:`SessionStore`."""
        return self.served.get((tenant, session_id))

    async def remember(self, tenant: str, session_id: str, affinity: Affinity) -> None:
        """See :class:`SessionStore`."""
        self.served[tenant, session_id] = affinity


@dataclass
class FakeLedger:
    """What the workers of a tenant share: approvals by id (True, False or None while they wait) and parked runs."""

    approvals: dict[str, bool | None] = field(default_factory=dict)
    parked: dict[str, pb.Ask] = field(default_factory=dict)


class FakeAgent(agent_pb2_grpc.AgentServicer):
    """A worker. What it does depends on the question; ``*`` marks what only the first worker of a run does, after
    which the next one says ``resumed`` and answers:

    ``die``*: one step begins, then the server is killed; ``hang``*: accepts, then it stops answering anything;
    ``hand over``*: streams text, then gives the run away as a draining worker does; ``end``*: ends the stream early;
    ``sleep``*: accepts and does nothing; ``poison``: each worker fails; ``wait``: runs until a stop; ``approve``: asks
    for approval; ``park``: asks the user, ``park for boss`` the manager, and parks; ``flood``: 2,000 long deltas;
    ``wait and die``*: dies once told to stop; ``decide and die``*: dies once told a decision, and the next one waits
    for it; else: echoes.
    """

    def __init__(self, name: str, ledger: FakeLedger | None = None) -> None:
        self.name = name
        self.ledger = ledger or FakeLedger()
        self.asks: list[pb.Ask] = []
        self.resumes: list[pb.Resume] = []
        self.calls: list[Message] = []
        self.abort: grpc.StatusCode | None = None
        self.serving = True
        self.drop_decisions = False
        self.deaf = False
        """Decisions on the stream are not noted, as by a worker whose ledger is away."""
        self.refusals: list[pb.ErrorCode.ValueType] = []
        """Errors with which the next runs are answered."""
        self.stops: list[str] = []
        self.decisions: list[pb.ApprovalDecision] = []
        self.costs: list[pb.CostSum] = []
        self.reconciled = 0
        """Questions of gateways for what the ledger says of the day's costs."""
        self.cancelled = asyncio.Event()
        self.sent = 0
        self.hung = False
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Serve; returns the port."""
        server = grpc.aio.server()
        agent_pb2_grpc.add_AgentServicer_to_server(self, server)
        health = grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health",
            {
                "Check": grpc.unary_unary_rpc_method_handler(
                    self._check,
                    request_deserializer=health_pb2.HealthCheckRequest.FromString,
                    response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
                )
            },
        )
        server.add_generic_rpc_handlers((health,))
        self.port = server.add_insecure_port(f"{host}:{port}")
        await server.start()
        self._server, self.hung = server, False
        return self.port

    def _approved(self, run_id: str) -> bool:
        return all(decided for name, decided in self.ledger.approvals.items() if name.endswith(run_id))

    async def _killed(self) -> None:
        self._killing = asyncio.create_task(self.stop())
        await asyncio.sleep(60)

    async def stop(self) -> None:
        """End as a killed process does: connections are closed at once."""
        if self._server is not None:
            await self._server.stop(grace=None)

    async def _check(self, request: object, context: object) -> health_pb2.HealthCheckResponse:
        if self.hung:
            await asyncio.sleep(60)
        status = health_pb2.HealthCheckResponse
        return status(status=status.SERVING if self.serving else status.NOT_SERVING)

    async def Decide(self, request: pb.DecideRequest, context: Any) -> pb.DecideResponse:
        """The manager decides what waits for her, the user the rest; an override decides all."""
        await self._call(request, context)
        if request.approval_id not in self.ledger.approvals:
            return pb.DecideResponse(outcome=pb.DECIDE_OUTCOME_NOT_FOUND, message="There is no such approval.")
        asked = "boss@acme.example" if request.approval_id.startswith("boss") else "ana@acme.example"
        if not request.override and request.decider.email != asked:
            return pb.DecideResponse(outcome=pb.DECIDE_OUTCOME_NOT_ALLOWED, message=f"Only {asked} may decide.")
        if self.ledger.approvals[request.approval_id] is not None:
            return pb.DecideResponse(outcome=pb.DECIDE_OUTCOME_ALREADY_DECIDED, message="It was decided before.")
        self.ledger.approvals[request.approval_id] = request.approved
        run_id = request.approval_id.partition("-")[2]
        ask = self.ledger.parked.get(run_id)
        return pb.DecideResponse(
            outcome=pb.DECIDE_OUTCOME_DECIDED,
            message="Noted.",
            session_id=ask.session_id if ask else "",
            run_id=run_id,
            resume=ask is not None,
        )

    async def ListApprovals(self, request: pb.ListApprovalsRequest, context: Any) -> pb.ListApprovalsResponse:
        """All that wait."""
        await self._call(request, context)
        waiting = [name for name, decided in self.ledger.approvals.items() if decided is None]
        return pb.ListApprovalsResponse(
            approvals=[pb.PendingApproval(request=pb.ApprovalRequired(approval_id=name)) for name in waiting]
        )

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Any) -> pb.ListDeadLettersResponse:
        """One letter."""
        await self._call(request, context)
        return pb.ListDeadLettersResponse(dead_letters=[pb.DeadLetter(id="d1", tenant=request.tenant)])

    async def ReplayDeadLetter(self, request: pb.ReplayDeadLetterRequest, context: Any) -> pb.ReplayDeadLetterResponse:
        """Succeeds."""
        await self._call(request, context)
        letter = pb.DeadLetter(id=request.id, state=pb.DEAD_LETTER_STATE_REPLAYED)
        return pb.ReplayDeadLetterResponse(dead_letter=letter, outcome=pb.STEP_OUTCOME_SUCCEEDED, message="Done.")

    async def DiscardDeadLetter(
        self, request: pb.DiscardDeadLetterRequest, context: Any
    ) -> pb.DiscardDeadLetterResponse:
        """Succeeds."""
        await self._call(request, context)
        return pb.DiscardDeadLetterResponse(dead_letter=pb.DeadLetter(id=request.id))

    async def SetBreaker(self, request: pb.SetBreakerRequest, context: Any) -> pb.SetBreakerResponse:
        """Succeeds."""
        await self._call(request, context)
        return pb.SetBreakerResponse()

    async def ListTools(self, request: pb.ListToolsRequest, context: Any) -> pb.ListToolsResponse:
        """One tool."""
        await self._call(request, context)
        tool = pb.ToolDescription(name="jira.issue.get", connector="jira", effect=pb.EFFECT_READ)
        return pb.ListToolsResponse(tools=[tool])

    async def ListCosts(self, request: pb.ListCostsRequest, context: Any) -> pb.ListCostsResponse:
        """``costs``; a gateway's own question, which names a moment, is not kept among the calls."""
        if request.HasField("until"):
            self.reconciled += 1
        else:
            await self._call(request, context)
        return pb.ListCostsResponse(day=request.day or "2026-11-22", sums=self.costs)

    async def ListAccounts(self, request: pb.ListAccountsRequest, context: Any) -> pb.ListAccountsResponse:
        """Jira, not linked."""
        await self._call(request, context)
        jira = pb.Account(connector="jira", system="Jira", state=pb.LINK_STATE_NOT_LINKED)
        return pb.ListAccountsResponse(accounts=[jira])

    async def BeginLink(self, request: pb.BeginLinkRequest, context: Any) -> pb.BeginLinkResponse:
        """Sends the browser to a system of its name; ``odd`` sends it to something that is no web address."""
        await self._call(request, context)
        if request.connector == "odd":
            return pb.BeginLinkResponse(authorization_url="javascript:alert(1)")
        if request.connector == "unknown":
            error = pb.Error(code=pb.ERROR_CODE_INVALID_REQUEST, message="There is no connector unknown.")
            return pb.BeginLinkResponse(error=error)
        return pb.BeginLinkResponse(authorization_url=f"https://{request.connector}.example/authorize?state=x")

    async def FinishLink(self, request: pb.FinishLinkRequest, context: Any) -> pb.FinishLinkResponse:
        """Links, unless the code is ``bad`` or the system sent an error."""
        await self._call(request, context)
        if request.code == "bad" or request.error:
            why = request.error_description or "The code is not good."
            error = pb.Error(code=pb.ERROR_CODE_INVALID_REQUEST, message=why, user_action="Begin again.")
            return pb.FinishLinkResponse(error=error)
        return pb.FinishLinkResponse(account=pb.Account(connector="jira", system="Jira", account="ana@acme.example"))

    async def Unlink(self, request: pb.UnlinkRequest, context: Any) -> pb.UnlinkResponse:
        """Succeeds."""
        await self._call(request, context)
        return pb.UnlinkResponse(message="Forgotten.")

    async def _call(self, request: Message, context: Any) -> None:
        self.calls.append(request)
        if self.abort is not None:
            await context.abort(self.abort, f"{self.name} says no")

    async def Converse(self, request_iterator: Any, context: Any) -> AsyncIterator[pb.ConverseEvent]:
        """One run."""
        try:
            async for event in self._run(request_iterator, context):
                yield event
                self.sent += 1
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def _run(self, requests: Any, context: Any) -> AsyncIterator[pb.ConverseEvent]:
        first = await anext(aiter(requests))
        ask, count = first.ask, 0
        if first.HasField("resume"):
            self.resumes.append(first.resume)
            ask = self.ledger.parked[first.resume.run_id]
        else:
            self.asks.append(ask)

        def event(**kind: Any) -> pb.ConverseEvent:
            nonlocal count
            count += 1
            return pb.ConverseEvent(sequence=count, run_id=ask.run_id, **kind)

        if self.refusals:
            yield event(error=pb.Error(code=self.refusals.pop(0), message="not here"))
            return
        step = pb.StepStarted(step_id="s1", tool="jira.issue.create", summary="Create an issue")
        again = ask.attempt > 1
        if first.HasField("resume"):
            yield event(resumed=pb.Resumed(worker=self.name, reason="The approvals are decided."))
            yield event(final=pb.Final(text="approved" if self._approved(ask.run_id) else "refused"))
            self.ledger.parked.pop(ask.run_id, None)
            return
        if again:
            yield event(resumed=pb.Resumed(worker=self.name, reason=f"{ask.lost_worker} was lost."))
        else:
            yield event(accepted=pb.Accepted(session_id=ask.session_id, revision="r1", worker=self.name))
        if ask.text == "poison":
            raise RuntimeError("poison")
        if ask.text == "wait" or (ask.text == "wait and die" and again):
            self.stops.append((await anext(aiter(requests))).stop.reason)
            yield event(final=pb.Final(text="stopped", partial=True))
            return
        if ask.text in {"approve", "decide and die"}:
            yield event(approval_required=pb.ApprovalRequired(approval_id="a1", tool=step.tool, summary="Create?"))
            decision = (await anext(aiter(requests))).decision
            self.decisions.append(decision)
            if self.deaf:
                await asyncio.sleep(60)
            if ask.text == "decide and die" and not again:
                await self._killed()
            yield event(approval_decided=pb.ApprovalDecided(approval_id="a1", approved=decision.approved))
            yield event(final=pb.Final(text="approved" if decision.approved else "refused"))
            return
        if ask.text.startswith("park"):
            by, who = (pb.APPROVER_MANAGER, "boss") if "boss" in ask.text else (pb.APPROVER_USER, "mine")
            name = f"{who}-{ask.run_id}"
            self.ledger.approvals[name] = None
            self.ledger.parked[ask.run_id] = ask
            yield event(
                approval_required=pb.ApprovalRequired(approval_id=name, tool=step.tool, summary="Create?", by=by)
            )
            if self.drop_decisions:  # parks while the decision is on its way up
                await anext(aiter(requests))
            yield event(parked=pb.Parked(approval_ids=[name]))
            return
        if not again:
            if ask.text in {"die", "hand over", "end"}:
                yield event(text_delta=pb.TextDelta(text="half of"))
                yield event(step_started=step)
            if ask.text == "die":
                await asyncio.sleep(0.05)
                await self._killed()
            if ask.text == "wait and die":
                await anext(aiter(requests))
                await self._killed()
            if ask.text == "sleep":
                await asyncio.sleep(60)
            if ask.text == "hang":
                self.hung = True
                await asyncio.sleep(60)
            if ask.text == "hand over":
                self.serving = False
                await context.abort(grpc.StatusCode.UNAVAILABLE, "handing over")
            if ask.text == "end":
                return
        if ask.text == "flood":
            for _ in range(2_000):
                yield event(text_delta=pb.TextDelta(text="x" * 10_000))
        yield event(plan=pb.Plan(steps=[pb.PlannedStep(step_id="s1", tool=step.tool, summary=step.summary)]))
        yield event(step_started=step)
        yield event(
            step_finished=pb.StepFinished(
                step_id="s1", outcome=pb.STEP_OUTCOME_SUCCEEDED, summary="Created", duration_ms=5
            )
        )
        yield event(text_delta=pb.TextDelta(text=f"You said {ask.text}"))
        usage = pb.Usage(input_tokens=3, output_tokens=4, cost_micros=5)
        yield event(final=pb.Final(text=f"You said {ask.text}", usage=usage))


def pod(
    tenant: str, name: str, ip: str, *, namespace: str | None = None, ready: bool = True, **meta: Any
) -> dict[str, Any]:
    """A worker Pod as the API server shows it."""
    return {
        "metadata": {
            "name": name,
            "namespace": namespace or tenant,
            "uid": f"uid-{name}",
            "labels": {
                names.LABEL_COMPONENT: names.COMPONENT_WORKER,
                names.LABEL_TENANT: tenant,
                names.LABEL_REVISION: "r1",
            },
            **meta,
        },
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def tenant_object(name: str, namespace: str | None = None, created: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    """A Tenant as the API server shows it."""
    space = namespace or name
    return {"metadata": {"name": name, "namespace": space, "uid": f"uid-{space}-{name}", "creationTimestamp": created}}


class FakeKube:
    """An API server with Pods, Tenants, TokenReview, SubjectAccessReview; ``put`` and ``delete`` feed the watches."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[tuple[str, str], dict[str, Any]]] = {"pods": {}, "tenants": {}}
        self.version = 1
        self.lists = 0
        self.expire_watches = False
        self.allowed: Callable[[str, str], bool] = lambda user, namespace: True
        self.forbidden: set[tuple[str, str]] = set()
        """Pairs of verb and resource that nobody may."""
        self.reviews = 0
        self._watchers: dict[str, set[asyncio.Queue[dict[str, Any]]]] = {"pods": set(), "tenants": set()}
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Serve plain HTTP on 127.0.0.1; returns the server's URL."""
        app = web.Application()
        app.router.add_get("/api/v1/pods", self._pods)
        app.router.add_get(f"/apis/{names.API_VERSION}/tenants", self._tenants)
        app.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", self._token_review)
        app.router.add_post("/apis/authorization.k8s.io/v1/subjectaccessreviews", self._access_review)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        return f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        """End, watches included."""
        if self._runner is not None:
            await self._runner.cleanup()

    def kubeconfig(self, url: str, path: Path) -> Path:
        """A kubeconfig file for this server (JSON is YAML)."""
        doc = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
        path.write_text(json.dumps(doc))
        return path

    def put(self, kind: str, obj: dict[str, Any]) -> None:
        """Add or change an object."""
        self.version += 1
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        known = key in self.objects[kind]
        obj["metadata"]["resourceVersion"] = str(self.version)
        self.objects[kind][key] = obj
        self._send(kind, {"type": "MODIFIED" if known else "ADDED", "object": obj})

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object."""
        self.version += 1
        self._send(kind, {"type": "DELETED", "object": self.objects[kind].pop((namespace, name))})

    def _send(self, kind: str, event: dict[str, Any]) -> None:
        for queue in self._watchers[kind]:
            queue.put_nowait(event)

    def cut_watches(self) -> None:
        """Answer 410 to each watch, as a server does whose history was compacted."""
        for kind in self._watchers:
            self._send(kind, {"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}})

    async def _pods(self, request: web.Request) -> web.StreamResponse:
        return await self._get("pods", request)

    async def _tenants(self, request: web.Request) -> web.StreamResponse:
        return await self._get("tenants", request)

    async def _get(self, kind: str, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") != "1":
            self.lists += 1
            items = list(self.objects[kind].values())
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": items})
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._watchers[kind].add(queue)
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                event = await queue.get()
                await response.write(json.dumps(event).encode() + b"\n")
                if event["type"] == "ERROR":
                    return response
        finally:
            self._watchers[kind].discard(queue)

    async def _token_review(self, request: web.Request) -> web.Response:
        self.reviews += 1
        spec = (await request.json())["spec"]
        known = spec["token"] == FLEET_TOKEN
        status: dict[str, Any] = {"authenticated": known}
        if known:
            status |= {"user": {"username": "sre", "groups": ["g"]}, "audiences": spec["audiences"]}
        return web.json_response({"status": status})

    async def _access_review(self, request: web.Request) -> web.Response:
        self.reviews += 1
        spec = (await request.json())["spec"]
        wanted = spec["resourceAttributes"]
        allowed = self.allowed(spec["user"], wanted.get("namespace", ""))
        allowed = (
            allowed and wanted["group"] == names.GROUP and (wanted["verb"], wanted["resource"]) not in self.forbidden
        )
        return web.json_response({"status": {"allowed": allowed}})


class Chat:
    """A chat client for tests."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.session_id = ""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, base: str) -> AsyncIterator[Chat]:
        """Connect to ``base`` (http://host:port)."""
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{base}/v1/chat", max_msg_size=0) as socket:
            yield cls(socket)

    async def send(self, **frame: Any) -> None:
        """Send one frame."""
        await self.socket.send_json(frame)

    async def next(self, seconds: float = 5) -> dict[str, Any]:
        """The next event; a closed connection is ``{"type": "closed", "code": …}``."""
        async with asyncio.timeout(seconds):
            message = await self.socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            loaded: dict[str, Any] = json.loads(message.data)
            return loaded
        return {"type": "closed", "code": self.socket.close_code}

    async def hello(self, value: str | None = None, session_id: str | None = None) -> dict[str, Any]:
        """Say hello; returns the answer."""
        await self.send(type="hello", token=value or token(), session_id=session_id)
        answer = await self.next()
        self.session_id = answer.get("session_id", "")
        return answer

    async def until(self, *types: str, seconds: float = 5) -> list[dict[str, Any]]:
        """All events up to the first of these types."""
        events = []
        async with asyncio.timeout(seconds):
            while True:
                event = await self.next(seconds)
                events.append(event)
                if event["type"] in types or event["type"] == "closed":
                    return events

    async def ask(self, text: str, seconds: float = 5) -> list[dict[str, Any]]:
        """Ask, and take everything to the end, or until the run waits."""
        await self.send(type="ask", text=text)
        return await self.until("final", "error", "parked", seconds=seconds)
