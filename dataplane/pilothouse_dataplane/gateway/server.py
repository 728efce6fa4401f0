"""Puts the gateway together: one event loop with HTTP, gRPC, the watches and the event reader, and a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator

import grpc.aio
import uvicorn
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

from pilothouse_dataplane.gateway.accounts import Accounts
from pilothouse_dataplane.gateway.app import build_app
from pilothouse_dataplane.gateway.approvals import Approvals
from pilothouse_dataplane.gateway.calls import WorkerCalls
from pilothouse_dataplane.gateway.channels import ChannelPool
from pilothouse_dataplane.gateway.chat import ChatServer
from pilothouse_dataplane.gateway.discovery import Discovery
from pilothouse_dataplane.gateway.dispatch import Dispatcher
from pilothouse_dataplane.gateway.fleet.auth import Authorizer
from pilothouse_dataplane.gateway.fleet.consumer import Consumer
from pilothouse_dataplane.gateway.fleet.hub import Hub
from pilothouse_dataplane.gateway.fleet.projection import Projection
from pilothouse_dataplane.gateway.fleet.reconcile import Reconciler
from pilothouse_dataplane.gateway.fleet.service import FleetService
from pilothouse_dataplane.gateway.identity import DevTokenVerifier
from pilothouse_dataplane.gateway.kube import KubeClient, load_config
from pilothouse_dataplane.gateway.metrics import Metrics, ModelCosts
from pilothouse_dataplane.gateway.sessions import SessionStore
from pilothouse_dataplane.gateway.settings import Settings
from pilothouse_dataplane.gateway.workers import Directory
from pilothouse_proto.fleet.v1 import fleet_pb2_grpc

log = logging.getLogger(__name__)


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us: chats end before the server does."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let runs end (``drain_timeout``). Raises OSError where a port is taken and
    :class:`~pilothouse_dataplane.gateway.kube.KubeError` where no API server is configured."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    metrics, directory, projection, hub = Metrics(), Directory(), Projection(), Hub()
    # The library's own retries wait for seconds: a person who asks is told sooner.
    quick = Retry(ConstantBackoff(0.1), 2)
    redis: Redis = Redis.from_url(settings.redis_url, socket_timeout=2, socket_connect_timeout=2, retry=quick)
    # Its own connection: it blocks for a second at a time, and must not time out meanwhile.
    stream_redis: Redis = Redis.from_url(settings.redis_url, socket_timeout=5, socket_connect_timeout=2, retry=quick)
    pool = ChannelPool(probe_interval=settings.probe_interval, silence=settings.worker_silence)
    sessions = SessionStore(redis, ttl=settings.session_ttl, lock_ttl=settings.run_lock_ttl)
    dispatcher = Dispatcher(directory, sessions, pool, wait=settings.no_worker_wait)
    approvals = Approvals(dispatcher=dispatcher, settings=settings, metrics=metrics)
    verifier, calls = DevTokenVerifier(settings.dev_token_key_file), WorkerCalls(dispatcher)
    accounts = Accounts(settings=settings, verifier=verifier, calls=calls, directory=directory)
    chat = ChatServer(
        settings=settings,
        verifier=verifier,
        sessions=sessions,
        dispatcher=dispatcher,
        approvals=approvals,
        metrics=metrics,
    )
    reconciler = Reconciler(calls, directory, projection, hub)
    consumer = Consumer(stream_redis, directory, projection, hub, metrics, approvals.heard, reconciler.gap)
    metrics.registry.register(ModelCosts(projection.costs))

    async with KubeClient(load_config()) as kube:
        discovery = Discovery(kube, directory)

        async def ready() -> str | None:
            if chat.draining.is_set():
                return "shutting down"
            if not discovery.synced:
                return "the workers are not known yet: the Kubernetes API has not answered"
            if not consumer.synced:
                return "the event streams are not read yet"
            try:
                async with asyncio.timeout(1):
                    await redis.get("pilothouse:ready")  # GET, not PING: a full or loading server still answers PING
            except (RedisError, OSError, TimeoutError):
                return "Redis does not answer"
            return None

        started = asyncio.Event()
        directory.listen(lambda: started.set() if discovery.synced else None)
        fleet = grpc.aio.server(
            options=(("grpc.max_receive_message_length", 64 * 1024), ("grpc.so_reuseport", 0)),
            maximum_concurrent_rpcs=500,
        )
        fleet_pb2_grpc.add_FleetServicer_to_server(
            FleetService(
                settings=settings,
                authorizer=Authorizer(kube),
                calls=calls,
                approvals=approvals,
                directory=directory,
                projection=projection,
                hub=hub,
                metrics=metrics,
            ),
            fleet,
        )
        fleet.add_insecure_port(f"{_host(settings.pod_ip)}:{settings.fleet_port}")
        http = _Uvicorn(
            uvicorn.Config(
                build_app(settings=settings, chat=chat, accounts=accounts, metrics=metrics, ready=ready),
                host=settings.pod_ip,
                port=settings.http_port,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                ws_max_size=settings.max_frame_bytes,
                ws_ping_interval=settings.ping_interval,
                ws_ping_timeout=settings.ping_interval,
                ws_per_message_deflate=False,  # 300 KB a connection for text of some hundred bytes
                timeout_graceful_shutdown=2,
                limit_concurrency=settings.max_connections + 200,
            )
        )
        await fleet.start()
        background = [
            asyncio.create_task(discovery.run(), name="discovery"),
            asyncio.create_task(consumer.run(started), name="consumer"),
            asyncio.create_task(consumer.expire(), name="expire"),
            asyncio.create_task(reconciler.run(started), name="reconcile"),
        ]
        serving = asyncio.create_task(http.serve(), name="http")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        log.info("gateway serves HTTP on %s:%d", settings.pod_ip, settings.http_port)
        try:
            done, _ = await asyncio.wait({serving, stopping, *background}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # nothing but a signal ends them: what did is an error, and ends the process
                raise RuntimeError(f"{task.get_name()} ended without being asked to")
            log.info("ending: connections without a run are closed, runs have %.0f s", settings.drain_timeout)
            await chat.drain()
        finally:
            http.should_exit = True
            await fleet.stop(grace=0.5)
            with contextlib.suppress(TimeoutError, SystemExit):
                await asyncio.wait_for(asyncio.gather(serving, return_exceptions=True), 5)
            for task in (*background, stopping):
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await approvals.close()
            await pool.close()
            await redis.aclose()
            await stream_redis.aclose()
