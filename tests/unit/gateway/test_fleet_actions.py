"""An SRE's actions: each needs its own right in the tenant's namespace, and goes to a worker of that tenant alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from pilothouse_dataplane.gateway.calls import WorkerCalls
from pilothouse_dataplane.gateway.fleet.auth import Authorizer
from pilothouse_dataplane.gateway.fleet.hub import Hub
from pilothouse_dataplane.gateway.fleet.projection import Projection
from pilothouse_dataplane.gateway.fleet.service import FleetService
from pilothouse_dataplane.gateway.kube import KubeClient, KubeConfig
from pilothouse_proto.agent.v1 import agent_pb2 as agent
from pilothouse_proto.fleet.v1 import fleet_pb2 as pb
from pilothouse_proto.fleet.v1 import fleet_pb2_grpc
from pilothouse_testing.gateway_fakes import FLEET_TOKEN, FakeKube

Make = Callable[..., Any]
ACTIONS: list[tuple[str, Message, tuple[str, str], type[Message]]] = [
    (
        "ListDeadLetters",
        pb.ListDeadLettersRequest(tenant="acme"),
        ("list", "deadletters"),
        agent.ListDeadLettersRequest,
    ),
    (
        "ReplayDeadLetter",
        pb.ReplayDeadLetterRequest(tenant="acme", id="d1", force=True),
        ("update", "deadletters"),
        agent.ReplayDeadLetterRequest,
    ),
    (
        "DiscardDeadLetter",
        pb.DiscardDeadLetterRequest(tenant="acme", id="d1"),
        ("delete", "deadletters"),
        agent.DiscardDeadLetterRequest,
    ),
    (
        "DecideApproval",
        pb.DecideApprovalRequest(tenant="acme", approval_id="boss-run1", approved=True),
        ("update", "approvals"),
        agent.DecideRequest,
    ),
    (
        "SetBreaker",
        pb.SetBreakerRequest(tenant="acme", name="connector/jira", mode=agent.BREAKER_MODE_FORCED_OPEN),
        ("update", "breakers"),
        agent.SetBreakerRequest,
    ),
    ("ListTools", pb.ListToolsRequest(tenant="acme"), ("list", "tools"), agent.ListToolsRequest),
    (
        "ListCosts",
        pb.ListCostsRequest(tenant="acme", day="2026-11-22", by=[agent.COST_BY_USER]),
        ("list", "costs"),
        agent.ListCostsRequest,
    ),
]


@dataclass
class Fleet:
    kube: FakeKube
    stub: Any

    async def call(self, method: str, request: Message, token: str = FLEET_TOKEN) -> Any:
        return await getattr(self.stub, method)(request, metadata=(("authorization", f"Bearer {token}"),), timeout=8)


@asynccontextmanager
async def fleet(here: Any) -> AsyncIterator[Fleet]:
    kube = FakeKube()
    server = grpc.aio.server()
    async with KubeClient(KubeConfig(await kube.start(), None)) as client:
        service = FleetService(
            settings=here.settings,
            authorizer=Authorizer(client),
            calls=WorkerCalls(here.dispatcher),
            approvals=here.approvals,
            directory=here.directory,
            projection=Projection(),
            hub=Hub(),
            metrics=here.metrics,
        )
        fleet_pb2_grpc.add_FleetServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Fleet(kube, fleet_pb2_grpc.FleetStub(channel))
        await server.stop(grace=None)
    await kube.stop()


@pytest.mark.parametrize(("method", "request_", "right", "sent"), ACTIONS, ids=[a[0] for a in ACTIONS])
async def test_an_action_needs_its_own_right_and_names_who_asked(
    bench: Make, method: str, request_: Message, right: tuple[str, str], sent: type[Message]
) -> None:
    here = bench()
    worker = await here.worker("w1")
    here.ledger.approvals["boss-run1"] = None
    async with fleet(here) as served:
        served.kube.forbidden = {right}
        with pytest.raises(grpc.aio.AioRpcError, match=rf"{right[0]} {right[1]}\.pilothouse\.dev") as refused:
            await served.call(method, request_)
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await served.call(method, request_, "stolen")
        assert unknown.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert worker.calls == []
        every = {r for *_, r, _ in ACTIONS} | {("get", "fleets")}
        served.kube.forbidden = every - {right}  # a refusal is not remembered, and no other right is asked for
        served.kube.allowed = lambda user, namespace: (user, namespace) == ("sre", "acme")
        await served.call(method, request_)
        (call,) = worker.calls
        assert isinstance(call, sent)
        assert getattr(call, "tenant", "") == "acme"
        if hasattr(call, "requested_by"):
            assert call.requested_by == "sre"
        if isinstance(call, agent.DecideRequest):
            assert (call.override, call.decider.email, list(call.decider.groups)) == (True, "sre", ["g"])
        worker.abort = grpc.StatusCode.FAILED_PRECONDITION
        with pytest.raises(grpc.aio.AioRpcError, match="w1 says no") as passed_on:
            await served.call(method, request_)
        assert passed_on.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        worker.abort = grpc.StatusCode.INTERNAL
        with pytest.raises(grpc.aio.AioRpcError, match="did not answer") as hidden:
            await served.call(method, request_)
        assert "says no" not in str(hidden.value.details())
        here.directory.table.put_worker(("acme", "w1"), None)
        with pytest.raises(grpc.aio.AioRpcError, match="No worker of acme is ready") as nobody:
            await served.call(method, request_)
        assert nobody.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_replay_is_sent_to_one_worker_only(bench: Make) -> None:
    here = bench()
    workers = [await here.worker(name) for name in ("w1", "w2")]
    for worker in workers:
        worker.abort = grpc.StatusCode.UNAVAILABLE
    async with fleet(here) as served:
        with pytest.raises(grpc.aio.AioRpcError, match="not known"):
            await served.call(*ACTIONS[1][:2])
        assert sum(len(worker.calls) for worker in workers) == 1
        with pytest.raises(grpc.aio.AioRpcError, match="Try again"):
            await served.call(*ACTIONS[0][:2])
        assert sum(len(worker.calls) for worker in workers) == 3


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ListDeadLetters", pb.ListDeadLettersRequest()),
        ("ReplayDeadLetter", pb.ReplayDeadLetterRequest(tenant="acme")),
        ("DecideApproval", pb.DecideApprovalRequest(tenant="acme")),
        ("SetBreaker", pb.SetBreakerRequest(tenant="acme", name="connector/jira")),
    ],
)
async def test_an_action_that_lacks_its_object_is_refused(bench: Make, method: str, request_: Message) -> None:
    async with fleet(bench()) as served:
        with pytest.raises(grpc.aio.AioRpcError, match="must be set") as refused:
            await served.call(method, request_)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_run_that_an_sre_decides_goes_on_and_its_user_reads_it(bench: Make) -> None:
    here = bench()
    worker = await here.worker("w1")
    asked = here.ask("park for boss")
    assert (await asked.end())["type"] == "parked"
    here.approvals.parked(asked.run)
    read: list[dict[str, Any]] = []
    over = asyncio.Event()

    async def emit(body: dict[str, Any]) -> None:
        read.append(body)
        if body["type"] == "final":
            over.set()

    async def emit_other(body: dict[str, Any]) -> None:
        raise AssertionError("another session's events")

    here.approvals.join("acme", "s1", emit)
    here.approvals.join("acme", "s2", emit_other)
    here.approvals.join("globex", "s1", emit_other)
    async with fleet(here) as served:
        request = pb.DecideApprovalRequest(tenant="acme", approval_id="boss-run1", approved=True)
        answer = await served.call("DecideApproval", request)
        assert (answer.outcome, answer.message) == (agent.DECIDE_OUTCOME_DECIDED, "Noted.")
        async with asyncio.timeout(3):
            await over.wait()
    assert [(e["type"], e["sequence"]) for e in read] == [("resumed", 4), ("final", 5)]
    assert [resume.run_id for resume in worker.resumes] == ["run1"]
