"""One gRPC channel per worker Pod, and the notice that a worker is gone.

How a dead worker is noticed within 2 seconds:

- its process ends: the kernel resets the connection, and the run's stream fails at once;
- its Pod object is deleted: the directory says so;
- it hangs or the network is cut: while it has runs, ``grpc.health.v1`` is asked every ``probe_interval`` on the same
  channel; ``worker_silence`` without any answer means lost. Health calls instead of HTTP/2 keepalive, because a gRPC
  server by default ends a connection whose client pings more often than every five minutes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from pilothouse_dataplane.gateway.workers import Worker

log = logging.getLogger(__name__)

_OPTIONS = (
    # A worker that is started again is used as soon as it listens: a refused connection costs next to nothing, and is
    # tried again only while a run waits for it.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    # A list of dead letters carries their arguments.
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
    # A Pod's address is always direct: a proxy from the environment must not see a tenant's text.
    ("grpc.enable_http_proxy", 0),
)


_REFUSED = frozenset({grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN})


@dataclass(slots=True)
class WorkerLink:
    """The channel to one Pod. ``lost`` is set once, when the worker is found to be gone; ``runs`` counts users."""

    worker: Worker
    channel: grpc.aio.Channel
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    runs: int = 0
    heard: float = 0.0
    """Monotonic seconds of the last sign of life."""
    _probe: asyncio.Task[None] | None = None

    def alive(self) -> None:
        """An event came: as good as an answered health check."""
        self.heard = time.monotonic()

    async def connected(self, seconds: float) -> bool:
        """Whether the Pod takes a connection; a refusal is known at once."""
        try:
            async with asyncio.timeout(seconds):
                while (state := self.channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state in _REFUSED:
                        return False
                    await self.channel.wait_for_state_change(state)
        except (TimeoutError, asyncio.InvalidStateError, grpc.aio.UsageError):
            return False
        return True

    async def serving(self, seconds: float) -> bool:
        """Whether the worker itself says that it takes runs, which is what its readiness probe asks too."""
        try:
            answer = await _health(self.channel)(health_pb2.HealthCheckRequest(), timeout=seconds, wait_for_ready=True)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class ChannelPool:
    """Opens channels on demand and closes those whose Pod is gone."""

    def __init__(self, *, probe_interval: float, silence: float) -> None:
        self._interval = probe_interval
        self._silence = silence
        self._links: dict[str, WorkerLink] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def in_flight(self) -> dict[str, int]:
        """Runs of this gateway by Pod uid."""
        return {uid: link.runs for uid, link in self._links.items()}

    def acquire(self, worker: Worker) -> WorkerLink:
        """The link to a worker, for one run; pair with :meth:`release`."""
        link = self._links.get(worker.uid)
        if link is None or link.lost.is_set() or link.worker.address != worker.address:
            if link is not None:
                self._forget(worker.uid)
            link = WorkerLink(worker, grpc.aio.insecure_channel(worker.address, options=_OPTIONS))
            self._links[worker.uid] = link
        link.runs += 1
        if link._probe is None:
            link.alive()
            link._probe = asyncio.create_task(self._watch(link), name=f"probe-{worker.name}")
        return link

    def release(self, link: WorkerLink) -> None:
        """One run less; an idle worker is not probed."""
        link.runs -= 1
        if link.runs <= 0 and link._probe is not None:
            link._probe.cancel()
            link._probe = None

    async def _watch(self, link: WorkerLink) -> None:
        check = _health(link.channel)
        while True:
            try:
                await check(health_pb2.HealthCheckRequest(), timeout=self._silence)
                link.alive()
            except grpc.aio.AioRpcError as error:
                # Any answer from the server, "unimplemented" too, proves that it lives; these two are the client's own.
                if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                    link.alive()
            if time.monotonic() - link.heard >= self._silence:
                log.warning("worker %s has been silent for %.1f s: its runs are lost", link.worker.name, self._silence)
                link.lost.set()
                return
            await asyncio.sleep(self._interval)

    def keep(self, known: Iterable[Worker]) -> None:
        """Close the channels of Pods that are not among ``known`` any more; their runs are lost."""
        alive = {worker.uid for worker in known}
        for uid in [uid for uid in self._links if uid not in alive]:
            self._forget(uid)

    def _forget(self, uid: str) -> None:
        link = self._links.pop(uid)
        link.lost.set()
        task = asyncio.create_task(self._close(link))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, link: WorkerLink) -> None:
        if link._probe is not None:
            link._probe.cancel()
        await link.channel.close(grace=0.5)

    async def close(self) -> None:
        """Close every channel."""
        for uid in list(self._links):
            self._forget(uid)
        if self._closing:
            await asyncio.wait(self._closing, timeout=2)


def _health(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
