"""Asks a worker over gRPC which configuration it has loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import grpc

from pilothouse_api import names
from pilothouse_operator.core.readiness import Worker, WorkerReport
from pilothouse_proto.agent.v1 import agent_pb2, agent_pb2_grpc

TIMEOUT_SECONDS = 1.0


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
    return WorkerReport(config_hash=status.config_hash, tenant=status.tenant, error=status.config_error or None)


async def ask_all(workers: Iterable[Worker]) -> dict[str, WorkerReport]:
    """Reports by Pod name of all workers that have an address, asked at the same time."""
    asked = [worker for worker in workers if worker.address and worker.ready]
    reports = await asyncio.gather(*(ask(worker.address) for worker in asked if worker.address))
    return {worker.name: report for worker, report in zip(asked, reports, strict=True)}
