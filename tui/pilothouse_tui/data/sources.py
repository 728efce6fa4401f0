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
from pilothouse_tui.data.actions import FleetActions
from pilothouse_tui.data.convert import kube_object
from pilothouse_tui.data.fleet import FleetClient
from pilothouse_tui.data.kube import GoneError, KubeClient
from pilothouse_tui.data.retry import Backoff
from pilothouse_tui.errors import ToolError
from pilothouse_tui.model import (
    FLEET,
    KUBERNETES,
    BreakerMode,
    Connected,
    DeadLetter,
    DeadLetters,
    Decision,
    Lost,
    ObjectDeleted,
    ObjectsListed,
    Replay,
    SessionUpdate,
    Update,
)

T = TypeVar("T")
KINDS = {"Tenant": "tenants", "Connector": "connectors", "ModelRoute": "modelroutes"}


class Sources(Protocol):
    """What the application needs: three endless streams, each closed by closing its iterator, and the SRE's actions,
    which raise a ToolError."""

    name: str
    """What is looked at, for the header: the kubeconfig's context."""

    def kubernetes(self) -> AsyncIterator[Update]:
        """Tenants, Connectors and ModelRoutes."""

    def fleet(self) -> AsyncIterator[Update]:
        """Sessions, breakers, costs and approvals."""

    def session(self, tenant: str, session_id: str) -> AsyncIterator[SessionUpdate]:
        """One session's runs and steps."""

    async def dead_letters(self, *, all_states: bool) -> DeadLetters:
        """Dead letters of all tenants: open ones, or all."""

    async def replay(self, tenant: str, id: str, *, force: bool = False) -> Replay:
        """Send a dead letter again."""

    async def discard(self, tenant: str, id: str) -> DeadLetter:
        """Close a dead letter."""

    async def decide(self, tenant: str, approval_id: str, approved: bool) -> Decision:
        """Answer an approval for who is asked."""

    async def set_breaker(self, tenant: str, name: str, mode: BreakerMode) -> None:
        """Take a breaker out of its own hands, or give it back."""


class LiveSources:
    """The cluster of a kubeconfig."""

    def __init__(self, kube: KubeClient, fleet: FleetClient) -> None:
        self._kube, self._fleet = kube, fleet
        actions = FleetActions(fleet)
        self._actions = actions
        self.replay, self.discard = actions.replay, actions.discard
        self.decide, self.set_breaker = actions.decide, actions.set_breaker
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

    async def dead_letters(self, *, all_states: bool) -> DeadLetters:
        """See ``Sources``."""
        return await self._actions.dead_letters(await self._kube.find_tenants(), all_states=all_states)

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
