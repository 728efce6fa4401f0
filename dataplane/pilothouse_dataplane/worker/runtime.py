"""What one configuration is made of at run time; closed when the last run that uses it has ended."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pilothouse_api.workerconfig import ConnectorConfig, ProviderConfig, WorkerConfig
from pilothouse_dataplane.connectors.base import Connector
from pilothouse_dataplane.connectors.factory import ConnectorConfigError, make_connector
from pilothouse_dataplane.connectors.toolset import Toolset
from pilothouse_dataplane.core.guard import GuardRegistry
from pilothouse_dataplane.core.messages import Message
from pilothouse_dataplane.memory.short_term import ShortTermMemory, connect
from pilothouse_dataplane.models.base import ModelProvider
from pilothouse_dataplane.models.gateway import ModelGateway
from pilothouse_dataplane.worker.config import ConfigError, LoadedConfig
from pilothouse_dataplane.worker.events import EventPublisher


class SessionMemory(Protocol):
    """What a run needs of the short-term memory."""

    async def begin(self, session: str, run: str, text: str) -> tuple[Message, ...]: ...

    async def finish(self, session: str, run: str, text: str) -> None: ...


class EventSink(Protocol):
    """Where run events go; never in an answer's way."""

    def publish(self, event: bytes) -> None: ...

    async def aclose(self) -> None: ...


def make_provider(config: ProviderConfig, files: Mapping[str, bytes]) -> ModelProvider:
    """A provider; its module is imported when a route names its type."""
    key = files[config.api_key_file].decode().strip() if config.api_key_file else None
    if config.type == "OpenAI":
        from pilothouse_dataplane.models.openai import OpenAIProvider

        return OpenAIProvider(config.name, config.base_url, key)
    from pilothouse_dataplane.models.anthropic import AnthropicProvider

    return AnthropicProvider(config.name, config.base_url, key)


@dataclass(slots=True)
class Runtime:
    """One configuration's models, tools and stores."""

    config: WorkerConfig
    hash: str
    models: ModelGateway
    toolset: Toolset
    memory: SessionMemory
    events: EventSink
    close_store: Callable[[], object]
    users: int = 0
    """Runs that use it."""
    retired: bool = False

    async def aclose(self) -> None:
        await self.models.aclose()
        await self.toolset.aclose()
        await self.events.aclose()
        closing = self.close_store()
        if hasattr(closing, "__await__"):
            await closing


RuntimeFactory = Callable[[LoadedConfig, GuardRegistry], Runtime]


def build_runtime(
    loaded: LoadedConfig,
    guards: GuardRegistry,
    *,
    provider: Callable[[ProviderConfig, Mapping[str, bytes]], ModelProvider] = make_provider,
    connector: Callable[[ConnectorConfig, Mapping[str, bytes]], Connector] = make_connector,
) -> Runtime:
    """Make everything that a configuration names. Connects to nothing yet. Raises ConfigError."""
    config = loaded.config
    try:
        connectors = {c.name: (c, connector(c, loaded.files)) for c in config.connectors}
    except ConnectorConfigError as error:
        raise ConfigError(str(error)) from error
    try:
        store = connect(loaded.redis_url)
    except ValueError as error:
        raise ConfigError("redis-url is not the address of a Redis") from error
    providers = {p.name: provider(p, loaded.files) for p in config.route.providers}
    # nothing here is a secret to be guessed: jitter
    jitter = random.random
    return Runtime(
        config=config,
        hash=loaded.hash,
        models=ModelGateway(config.route, providers, guards, clock=time.monotonic, random=jitter),
        toolset=Toolset(connectors, guards, clock=time.monotonic, random=jitter),
        memory=ShortTermMemory(store, config.tenant, config.short_term_ttl_seconds),
        events=EventPublisher(store, config.tenant),
        close_store=store.aclose,
    )
