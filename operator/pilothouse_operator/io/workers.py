"""Asks a worker over gRPC which configuration it has loaded, and what it knows of its connectors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC

import grpc

from pilothouse_api import names
from pilothouse_operator.core.readiness import ConnectorReport, Worker, WorkerReport
from pilothouse_proto.agent.v1 import agent_pb2, agent_pb2_grpc

TIMEOUT_SECONDS = 1.0
MAX_PROBLEMS = 8
"""Sentences about a model route that are kept of one worker: a condition shows a few."""
_REACHABLE = {agent_pb2.REACHABILITY_REACHABLE: True, agent_pb2.REACHABILITY_UNREACHABLE: False}


async def ask(address: str) -> WorkerReport:
    """One worker's report; an unreachable worker is a report with an error, never an exception.

    A channel a call: workers come and go, and a kept channel to each of thousands would cost more than a handshake on
    the few occasions when a Tenant is looked at.
    """
    target = f"[{address}]:{names.WORKER_GRPC_PORT}" if ":" in address else f"{address}:{names.WORKER_GRPC_PORT}"
    # A Pod's address may be reused for another tenant's worker: subchannels are not shared between looks.
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        stub = agent_pb2_grpc.AgentStub(channel)
        try:
            status = await stub.GetStatus(agent_pb2.GetStatusRequest(), timeout=TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            return WorkerReport(error=f"{error.code().name}: {error.details()}")
    return report_of(status)


def report_of(status: agent_pb2.GetStatusResponse) -> WorkerReport:
    """A worker's answer, without what changes while nothing does (times of probes, how long one took)."""
    until = status.credentials_until if status.HasField("credentials_until") else None
    return WorkerReport(
        config_hash=status.config_hash,
        tenant=status.tenant,
        error=status.config_error or None,
        connectors=tuple(_connector(one) for one in sorted(status.connectors, key=lambda one: one.name)),
        credentials_error=status.credentials_error,
        credentials_until=None if until is None else until.ToDatetime(tzinfo=UTC).replace(microsecond=0),
        route_problems=tuple(sorted(set(status.route_problems))[:MAX_PROBLEMS]),
    )


def _connector(said: agent_pb2.ConnectorStatus) -> ConnectorReport:
    reachable = _REACHABLE.get(said.reachable)
    return ConnectorReport(
        name=said.name,
        tools=said.tools,
        reachable=reachable,
        message=said.message if reachable is False else "",
        problem=said.problem,
    )


async def ask_all(workers: Iterable[Worker]) -> dict[str, WorkerReport]:
    """Reports by Pod name of all workers that have an address, asked at the same time."""
    asked = [worker for worker in workers if worker.address and worker.ready]
    reports = await asyncio.gather(*(ask(worker.address) for worker in asked if worker.address))
    return {worker.name: report for worker, report in zip(asked, reports, strict=True)}
