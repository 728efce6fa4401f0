"""Start, login and end of the operator."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf

from pilothouse_operator.core.resources import Json
from pilothouse_operator.io import connection, workers
from pilothouse_operator.io.controller import Controller
from pilothouse_operator.io.kube import Kube
from pilothouse_operator.io.vault import Vault
from pilothouse_operator.settings import Settings

LOGIN_LIFE = timedelta(minutes=10)
"""After this kopf logs in again, and so reads the ServiceAccount's rotated token."""


class Runtime:
    """What the handlers share: the controller, while the operator runs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stack = AsyncExitStack()
        self._controller: Controller | None = None

    async def start(self) -> None:
        """Connect, read everything, begin to work."""
        kube = await self._stack.enter_async_context(Kube(connection.load()))
        controller = Controller(self.settings, kube, workers.ask_all, Vault(self.settings.vault))
        self._stack.push_async_callback(controller.stop)
        await controller.start()
        self._controller = controller

    async def stop(self) -> None:
        """End the tasks, then the connection."""
        await self._stack.aclose()

    def observe(self, event: Mapping[str, Any]) -> None:
        """Hand a raw watch event to the controller."""
        if self._controller is not None:
            raw: Json = dict(event["object"])
            self._controller.observe(raw, deleted=event.get("type") == "DELETED")

    def depth(self) -> int:
        """Keys that wait or are worked on."""
        return self._controller.queue.depth() if self._controller is not None else 0


def register(registry: kopf.OperatorRegistry, runtime: Runtime) -> None:
    """Add the handlers of the operator's own life."""

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        found = connection.load()
        return kopf.ConnectionInfo(
            server=found.server,
            ca_path=found.ca_path,
            ca_data=found.ca_data,
            insecure=found.insecure,
            token=found.current_token(),
            certificate_path=found.certificate_path,
            certificate_data=found.certificate_data,
            private_key_path=found.private_key_path,
            private_key_data=found.private_key_data,
            expiration=datetime.now(UTC) + LOGIN_LIFE if found.token_file is not None else None,
        )

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False  # conditions tell the state; Events would be writes with nothing to change
        settings.watching.server_timeout = 300  # a watch that has silently died is found at the latest then
        settings.watching.connect_timeout = 10
        settings.queueing.idle_timeout = 1.0  # a task for each object that had an event, for so long
        await runtime.start()

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        await runtime.stop()

    @kopf.on.probe(registry=registry, id="queue")
    def queue_depth(**_: Any) -> int:
        return runtime.depth()
