"""The worker's process: one event loop, one gRPC server, ended by SIGTERM without dropping a run."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from pathlib import Path
from typing import Any

import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from pilothouse_api import names
from pilothouse_dataplane.worker import tracing
from pilothouse_dataplane.worker.config import POLL_SECONDS, ConfigWatcher
from pilothouse_dataplane.worker.runtime import RuntimeFactory, build_runtime
from pilothouse_dataplane.worker.service import AgentService
from pilothouse_proto.agent.v1 import agent_pb2, agent_pb2_grpc

DRAIN_SECONDS = 5.0
"""How long runs may finish by themselves before they are handed over."""
_SERVICE = agent_pb2.DESCRIPTOR.services_by_name["Agent"].full_name
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second worker on the address is a mistake to hear of
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)
_log = structlog.get_logger()

# grpcio's companions carry no types
_health: Any = health
_add_health: Any = health_pb2_grpc.add_HealthServicer_to_server
_enable_reflection: Any = reflection.enable_server_reflection


class Worker:
    """One worker: service, health, reflection, configuration."""

    def __init__(self, config_dir: Path, name: str, factory: RuntimeFactory = build_runtime) -> None:
        self.service = AgentService(name, factory, tracing.from_environment(name))
        self._health: Any = _health.aio.HealthServicer()
        self._watcher = ConfigWatcher(config_dir, self.service.apply)
        self.service.watcher = self._watcher
        self._server = grpc.aio.server(options=_OPTIONS)
        self._watching: asyncio.Task[None] | None = None
        self._serving = False

    async def start(self, address: str) -> int:
        """Listen; returns the port. Raises RuntimeError where the address can't be had."""
        agent_pb2_grpc.add_AgentServicer_to_server(self.service, self._server)
        _add_health(self._health, self._server)
        _enable_reflection((_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        port = self._server.add_insecure_port(address)
        if port == 0:
            raise RuntimeError(f"can't listen on {address}")
        await self._look()
        await self._server.start()
        self._watching = asyncio.create_task(self._watch(), name="configuration")
        return port

    async def _look(self) -> None:
        await self._watcher.poll()
        serving = self.service.loaded and not self.service.draining
        if serving != self._serving or self._watching is None:
            self._serving = serving
            await self._set_health(serving)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._look()
            except Exception:
                # the worker goes on with what it has; the next change is another chance
                _log.exception("the configuration could not be looked at")

    async def _set_health(self, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", _SERVICE):
            await self._health.set(service, status)

    async def stop(self, grace_seconds: float = DRAIN_SECONDS) -> None:
        """Drain and end: not serving, runs finish or are handed over, ledger and events are written."""
        _log.info("draining", active_runs=self.service.active_runs)
        self.service.draining = True
        await self._set_health(False)
        await self.service.drain(grace_seconds)
        if self._watching is not None:
            self._watching.cancel()
        await self._server.stop(grace=1.0)
        await self.service.aclose()
        _log.info("ended")


async def serve(address: str) -> None:
    """Run a worker until SIGTERM or SIGINT."""
    worker = Worker(
        Path(os.environ.get("PILOTHOUSE_CONFIG_DIR", names.CONFIG_DIR)), os.environ.get("POD_NAME", "worker")
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    port = await worker.start(address)
    gc.freeze()  # what was imported stays: no need to walk it in every collection
    _log.info("listening", address=address, port=port)
    await stop.wait()
    await worker.stop()
