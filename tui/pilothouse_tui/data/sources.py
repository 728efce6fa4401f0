"""Where the terminal UI's updates come from: streams that never end, that reconnect by themselves and say so.

The application knows the ``Sources`` protocol only, so that tests and pictures run on fixed data.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Protocol, TypeVar

from pilothouse_api.names import GROUP, VERSION
from pilothouse_tui.data.convert import kube_object
from pilothouse_tui.data.fleet import FleetClient
from pilothouse_tui.data.kube import GoneError, KubeClient
from pilothouse_tui.data.retry import Backoff
from pilothouse_tui.errors import ToolError
from pilothouse_tui.model import (
    FLEET,
    KUBERNETES,
    Connected,
    Lost,
    ObjectDeleted,
    ObjectsListed,
    SessionUpdate,
    Update,
)

T = TypeVar("T")
KINDS = {"Tenant": "tenants", "Connector": "connectors", "ModelRoute": "modelroutes"}


class Sources(Protocol):
    """What the application needs: three endless streams. Each is closed by closing its iterator."""

    name: str
    """What is looked at, for the header: the kubeconfig's context."""

    def kubernetes(self) -> AsyncIterator[Update]:
        """Tenants, Connectors and ModelRoutes."""

    def fleet(self) -> AsyncIterator[Update]:
        """Sessions, breakers and costs."""

    def session(self, tenant: str, session_id: str) -> AsyncIterator[SessionUpdate]:
        """One session's runs and steps."""


class LiveSources:
    """The cluster of a kubeconfig."""

    def __init__(self, kube: KubeClient, fleet: FleetClient) -> None:
        self._kube, self._fleet = kube, fleet
        self.name = kube.access.context

    async def kubernetes(self) -> AsyncIterator[Update]:
        """List and watch the three kinds; one queue, so that one lost connection is told once a kind at most."""
        queue: asyncio.Queue[Update] = asyncio.Queue()
        tasks = [asyncio.create_task(self._follow(kind, plural, queue)) for kind, plural in KINDS.items()]
        down: set[str] = set()
        try:
            while True:
                update = await queue.get()
                # Three watches share one link: it is up again when all three are.
                if isinstance(update, Lost):
                    down.add(update.source)
                    update = Lost(KUBERNETES, update.message, update.to_do, update.retry_in)
                elif isinstance(update, Connected):
                    down.discard(update.source)
                    if down:
                        continue
                    update = Connected(KUBERNETES, update.where)
                yield update
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, kind: str, plural: str, queue: asyncio.Queue[Update]) -> None:
        path, backoff, version = f"/apis/{GROUP}/{VERSION}/{plural}", Backoff(), ""
        while True:
            try:
                if not version:
                    listed = await self._kube.get(path, {"resourceVersion": "0"})
                    version = listed["metadata"]["resourceVersion"]
                    queue.put_nowait(Connected(kind, self._kube.access.server))
                    objects = tuple(kube_object(kind, raw) for raw in listed.get("items") or ())
                    queue.put_nowait(ObjectsListed(kind, objects))
                async with aclosing(self._kube.watch(path, version)) as events:
                    async for event, raw in events:
                        version = raw["metadata"]["resourceVersion"]
                        backoff.succeeded()
                        if event == "DELETED":
                            queue.put_nowait(ObjectDeleted(kube_object(kind, raw).key))
                        elif event != "BOOKMARK":
                            queue.put_nowait(kube_object(kind, raw))
                await asyncio.sleep(0.2)  # a server that ends each watch at once must not be called in a tight loop
            except GoneError:
                version = ""
            except ToolError as error:
                wait = backoff.failed()
                queue.put_nowait(Lost(kind, error.happened, error.to_do, wait))
                version = ""  # list again: what was deleted meanwhile must go
                await asyncio.sleep(wait)

    def fleet(self) -> AsyncIterator[Update]:
        """Fleet.Watch, again and again."""
        return self._reopened(self._fleet.watch)

    def session(self, tenant: str, session_id: str) -> AsyncIterator[SessionUpdate]:
        """Fleet.WatchSession, again and again."""
        return self._reopened(partial(self._fleet.watch_session, tenant, session_id))

    async def _reopened(self, watch: Callable[[], AsyncIterator[T]]) -> AsyncIterator[T | Connected | Lost]:
        """The stream's items; opened again with growing waits after each end, which is told."""
        backoff = Backoff()
        while True:
            try:
                connected = False
                async for item in watch():
                    if not connected:
                        connected = True
                        backoff.succeeded()
                        yield Connected(FLEET, self._fleet.where)
                    yield item
                message, to_do = "The gateway ended the connection.", "Wait: it is opened again."
            except ToolError as error:
                message, to_do = error.happened, error.to_do
            wait = backoff.failed()
            yield Lost(FLEET, message, to_do, wait)
            await asyncio.sleep(wait)
