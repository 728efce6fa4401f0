"""What a worker runs with: stores that live as long as the process, and what one configuration is made of.

A reload makes new models, tools and memory, closed when the last run that uses them has ended. Ledger, breakers, events
and the store's connections stay as long as their addresses do: what runs hold there must outlive a reload.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import structlog
from redis.exceptions import RedisError

from pilothouse_api.workerconfig import WorkerConfig
from pilothouse_dataplane.connectors.factory import ConnectorConfigError, make_connector
from pilothouse_dataplane.connectors.toolset import Toolset
from pilothouse_dataplane.core.breaker import BreakerMode
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.core.messages import Message
from pilothouse_dataplane.core.routing import Router
from pilothouse_dataplane.credentials.backend import BackendKeeper, Credentials
from pilothouse_dataplane.credentials.states import RedisLinkStates
from pilothouse_dataplane.ledger.base import Ledger
from pilothouse_dataplane.memory.short_term import ShortTermMemory, connect
from pilothouse_dataplane.models.gateway import ModelGateway
from pilothouse_dataplane.models.limits import Limits
from pilothouse_dataplane.models.providers import make_providers
from pilothouse_dataplane.models.response_cache import ResponseCache
from pilothouse_dataplane.worker.breakers import SharedBreakers
from pilothouse_dataplane.worker.config import ConfigError, LoadedConfig
from pilothouse_dataplane.worker.events import EventPublisher
from pilothouse_dataplane.worker.probing import Prober
from pilothouse_dataplane.worker.publish import EventSink

_DISCOVERY_SECONDS = 1.0
"""How long a reload waits for connectors that ask their systems for tools."""
_log = structlog.get_logger()


class SessionMemory(Protocol):
    """What a run needs of the short-term memory."""

    async def begin(self, session: str, run: str, text: str) -> tuple[Message, ...]: ...

    async def finish(self, session: str, run: str, text: str) -> None: ...


class Breakers(Protocol):
    """What an SRE's word about a breaker needs."""

    async def set_mode(self, name: str, mode: BreakerMode, by: str) -> bool: ...


class Locks(Protocol):
    """Locks among all workers of the tenant."""

    async def take(self, name: str, seconds: float) -> bool | None:
        """Whether the lock is ours now, for that long; None where nobody can say."""
        ...

    async def give(self, name: str) -> None:
        """Give it back early."""
        ...


class RedisLocks:
    """Locks as keys that expire."""

    def __init__(self, client: Any, tenant: str) -> None:
        self._client = client
        self._tenant = tenant

    def _key(self, name: str) -> str:
        return f"{{{self._tenant}}}:lock:{name}"

    async def take(self, name: str, seconds: float) -> bool | None:
        try:
            return bool(await self._client.set(self._key(name), b"1", nx=True, px=round(seconds * 1000)))
        except (RedisError, OSError, TimeoutError):
            return None

    async def give(self, name: str) -> None:
        try:
            await self._client.delete(self._key(name))
        except (RedisError, OSError, TimeoutError) as error:
            _log.warning("lock not given back; it expires", name=name, error=type(error).__name__)


class Stores:
    """The connections to one Redis and one PostgreSQL."""

    def __init__(self, loaded: LoadedConfig, worker: str, guards: GuardRegistry) -> None:
        """Connects to nothing yet. Raises ConfigError."""
        from pilothouse_dataplane.ledger.postgres import PostgresLedger

        tenant = loaded.config.tenant
        try:
            self.client = connect(loaded.redis_url)
        except ValueError as error:
            raise ConfigError("redis-url is not the address of a Redis") from error
        self.address = (loaded.redis_url, loaded.database_url, tenant)
        self.ledger: Ledger = PostgresLedger(loaded.database_url, tenant, worker)
        self.breakers = SharedBreakers(self.client, tenant, worker, guards)
        self.events = EventPublisher(self.client, tenant)
        self.locks = RedisLocks(self.client, tenant)
        limits = loaded.config.limits
        self.limits = Limits(
            self.client,
            tenant,
            worker,
            limits,
            max_workers=limits.max_workers,
            clock=time.monotonic,
            wall=time.time,
        )
        self.users = 0
        """Configurations that use them."""
        self._sharing = False

    async def share(self) -> None:
        """Begin to share breakers and limits with the other workers; at most a second."""
        if not self._sharing:
            self._sharing = True
            await asyncio.gather(self.breakers.start(), self.limits.start())

    async def unshare(self) -> None:
        """Before others take the breakers over."""
        if self._sharing:
            self._sharing = False
            await self.breakers.aclose()

    async def aclose(self) -> None:
        """Write what is queued, and close."""
        await self.unshare()
        await self.limits.aclose()
        await self.ledger.aclose()
        await self.events.aclose()
        await self.client.aclose()


class StoreKeeper:
    """Hands the same stores out as long as their addresses stay the same."""

    def __init__(self, worker: str, guards: GuardRegistry) -> None:
        self._worker = worker
        self._guards = guards
        self._current: Stores | None = None
        self.backends = BackendKeeper(worker)

    def get(self, loaded: LoadedConfig) -> Stores:
        """Raises ConfigError."""
        address = (loaded.redis_url, loaded.database_url, loaded.config.tenant)
        if self._current is None or self._current.address != address:
            self._current = Stores(loaded, self._worker, self._guards)
        return self._current


@dataclass(slots=True)
class Runtime:
    """One configuration's models, tools and stores."""

    config: WorkerConfig
    hash: str
    models: ModelGateway
    toolset: Toolset
    memory: SessionMemory
    events: EventSink
    ledger: Ledger
    breakers: Breakers
    locks: Locks
    limits: Limits | None = None
    """None in tests without limits."""
    stores: Stores | None = None
    """None in tests that bring their own."""
    credentials: Credentials | None = None
    """None in tests whose connectors need none."""
    prober: Prober | None = None
    """None in tests whose connectors aren't probed."""
    route_problems: tuple[str, ...] = ()
    """What is wrong with the route as this worker reads it, a sentence each."""
    users: int = 0
    """Runs that use it."""
    retired: bool = False

    async def start(self, before: Runtime | None) -> None:
        """Take the breakers over from the configuration before, and what was found of its connectors."""
        if before is not None and before.stores is not None and before.stores is not self.stores:
            await before.stores.unshare()
        if self.stores is not None:
            self.stores.limits.configure(self.config.limits, self.config.limits.max_workers)
            await self.stores.share()
        if self.credentials is not None:
            await self.credentials.start()
        # tools that were known before a reload must not be missing after it
        await self.toolset.start(wait=_DISCOVERY_SECONDS if before is not None else 0.0)
        if self.prober is not None:
            self.prober.start(before.prober if before is not None else None)

    async def aclose(self) -> None:
        """Close what no other configuration uses."""
        if self.prober is not None:
            await self.prober.aclose()
        await self.models.aclose()
        await self.toolset.aclose()
        if self.credentials is not None:
            await self.credentials.aclose()
        if self.stores is not None:
            self.stores.users -= 1
            if self.stores.users == 0:
                await self.stores.aclose()


RuntimeFactory = Callable[[LoadedConfig, GuardRegistry, StoreKeeper], Runtime]


def link_page(public_url: str, linkable: Container[str]) -> Callable[[str], str]:
    """Where a user links her account of a connector; "" where she can't, or nobody can tell the gateway's address."""

    def page(connector: str) -> str:
        if not public_url or connector not in linkable:
            return ""
        return f"{public_url.rstrip('/')}/accounts?connect={quote(connector, safe='')}"

    return page


def build_runtime(loaded: LoadedConfig, guards: GuardRegistry, keeper: StoreKeeper) -> Runtime:
    """Make everything that a configuration names. Connects to nothing yet. Raises ConfigError."""
    config = loaded.config
    try:
        connectors = {c.name: (c, make_connector(c, loaded.files, config.egress)) for c in config.connectors}
    except ConnectorConfigError as error:
        raise ConfigError(str(error)) from error
    stores = keeper.get(loaded)
    providers, route_problems = make_providers(config.route.providers, loaded.files)
    router = Router(config.route)
    cache = None
    if config.route.cache_seconds > 0:
        cache = ResponseCache(stores.client, config.tenant, config.route.cache_seconds, clock=time.monotonic)
    stores.users += 1
    backend = keeper.backends.get(config, loaded.files, loaded.database_url)
    credentials = Credentials(config, backend, RedisLinkStates(stores.client, config.tenant))
    # nothing here is a secret to be guessed: jitter
    jitter = random.random
    toolset = Toolset(
        connectors,
        guards,
        clock=time.monotonic,
        random=jitter,
        sources=credentials.sources,
        link_url=link_page(config.public_url, credentials.linkable),
        tenant=config.tenant,
        instructions=config.agent.instructions,
    )
    prober = Prober(
        toolset.connectors,
        {each.name: each.url for each in config.connectors},
        toolset.answered,
        clock=time.monotonic,
        wall=time.time,
        random=jitter,
    )
    return Runtime(
        config=config,
        hash=loaded.hash,
        models=ModelGateway(
            config.route,
            providers,
            guards,
            clock=time.monotonic,
            random=jitter,
            router=router,
            limits=stores.limits,
            cache=cache,
        ),
        toolset=toolset,
        memory=ShortTermMemory(stores.client, config.tenant, config.short_term_ttl_seconds),
        events=stores.events,
        ledger=stores.ledger,
        breakers=stores.breakers,
        locks=stores.locks,
        limits=stores.limits,
        stores=stores,
        credentials=credentials,
        prober=prober,
        route_problems=(*route_problems, *router.problems),
    )
